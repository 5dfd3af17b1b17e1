// The map of the features: points on a canvas, and the picture of the one that is pointed at.
const points = audit.map;
const GRID = 10_000; // positions are whole numbers up to this
const MAX_ZOOM = 40;
const REACH = 28; // pixels from the pointer within which a point is found
const view = { zoom: 1, x: GRID / 2, y: GRID / 2 };
const hiddenVerdicts = new Set();
let pointed = -1;
let drawing = false;

const idOfPoint = (k) => (points.tile[k] >= 0 ? tiles.id[points.tile[k]] : points.id[k]);
const givenOfPoint = (k) => (points.tile[k] >= 0 ? tiles.given[points.tile[k]] : points.given[k]);
const suggestedOfPoint = (k) => (points.tile[k] >= 0 ? tiles.suggested[points.tile[k]] : points.suggested[k]);
const verdictOfPoint = (k) => audit.verdicts[points.verdict[k]];

const sizeOfMap = () => {
  const frame = find("map-frame");
  return { width: frame.clientWidth, height: frame.clientHeight };
};
const scaleOfMap = ({ width, height }) => ((Math.min(width, height) - 32) / GRID) * view.zoom;
const placePoint = (k, size = sizeOfMap(), scale = scaleOfMap(size)) => [
  size.width / 2 + (points.x[k] - view.x) * scale,
  size.height / 2 - (points.y[k] - view.y) * scale,
];

// Verdicts differ in shape as well as in colour.
const SHAPES = {
  keep: (brush, x, y, r) => brush.arc(x, y, 0.6 * r, 0, 7),
  relabel: (brush, x, y, r) => brush.arc(x, y, r, 0, 7),
  drop: (brush, x, y, r) => brush.rect(x - 0.85 * r, y - 0.85 * r, 1.7 * r, 1.7 * r),
  ask: (brush, x, y, r) => {
    brush.moveTo(x, y - 1.2 * r);
    brush.lineTo(x + 1.1 * r, y + 0.8 * r);
    brush.lineTo(x - 1.1 * r, y + 0.8 * r);
    brush.closePath();
  },
};

const drawMap = () => {
  drawing = false;
  const canvas = find("map-canvas");
  const size = sizeOfMap();
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.round(size.width * ratio);
  canvas.height = Math.round(size.height * ratio);
  const brush = canvas.getContext("2d");
  brush.scale(ratio, ratio);
  const style = getComputedStyle(document.documentElement);
  const scale = scaleOfMap(size);
  const r = Math.min(6, (points.x.length > 1500 ? 2.6 : 3.6) * Math.sqrt(view.zoom));
  for (const [code, verdict] of audit.verdicts.entries()) {
    if (hiddenVerdicts.has(verdict)) continue;
    brush.fillStyle = style.getPropertyValue(`--${verdict}`);
    brush.globalAlpha = verdict === "keep" ? 0.45 : 0.85;
    for (let k = 0; k < points.x.length; k++) {
      if (points.verdict[k] !== code) continue;
      const [x, y] = placePoint(k, size, scale);
      if (x < -9 || y < -9 || x > size.width + 9 || y > size.height + 9) continue;
      brush.beginPath();
      SHAPES[verdict](brush, x, y, r);
      brush.fill();
    }
  }
  pointAt(pointed);
};
const redraw = () => {
  if (!drawing) requestAnimationFrame(drawMap);
  drawing = true;
};

const wordsOfPoint = (k) => {
  const given = nameOf(givenOfPoint(k));
  const other = suggestedOfPoint(k) >= 0 && suggestedOfPoint(k) !== givenOfPoint(k);
  return `${verdictOfPoint(k)}: ${given}${other ? `, suggested ${nameOf(suggestedOfPoint(k))}` : ""}; ${idOfPoint(k)}`;
};

// Shows the card of a point beside it; -1 takes the card away.
const pointAt = (k) => {
  pointed = k;
  const card = find("map-card");
  const ring = find("map-ring");
  ring.hidden = card.hidden = k < 0;
  if (k < 0) return;
  const size = sizeOfMap();
  const [x, y] = placePoint(k, size);
  ring.style.transform = `translate(${x}px, ${y}px)`;
  if (card.dataset.point !== String(k)) {
    card.dataset.point = k;
    const tile = points.tile[k];
    const labels = make("span", { class: "labels" });
    if (suggestedOfPoint(k) >= 0 && suggestedOfPoint(k) !== givenOfPoint(k)) {
      labels.append(make("span", { class: "struck" }, makeName(givenOfPoint(k))), " → ", makeName(suggestedOfPoint(k), "b"));
    } else labels.append(makeName(givenOfPoint(k), "b"));
    const image = make("img", { alt: "", class: tile >= 0 && isSmall(tile) ? "pixels" : null });
    if (tile >= 0) showPicture(image, tile);
    card.replaceChildren(
      ...(tile >= 0 ? [make("span", { class: "picture" }, image)] : []),
      make("span", { class: "words" }, labels, makeBadge(verdictOfPoint(k)), make("span", { class: "id" }, make("bdi", { dir: "ltr" }, idOfPoint(k)))),
    );
  }
  const left = x + 14 + card.offsetWidth > size.width ? x - 14 - card.offsetWidth : x + 14;
  const top = Math.min(Math.max(4, y - card.offsetHeight / 2), size.height - card.offsetHeight - 4);
  card.style.transform = `translate(${Math.max(4, left)}px, ${top}px)`;
};

const nearestPoint = (atX, atY, reach = REACH) => {
  const size = sizeOfMap();
  const scale = scaleOfMap(size);
  let best = -1;
  let least = reach * reach;
  for (let k = 0; k < points.x.length; k++) {
    if (hiddenVerdicts.has(verdictOfPoint(k))) continue;
    const [x, y] = placePoint(k, size, scale);
    // What has a picture is drawn above, and is found first where both are equally near.
    const distance = (x - atX) ** 2 + (y - atY) ** 2 + (points.tile[k] < 0 ? 9 : 0);
    if (distance <= least) {
      least = distance;
      best = k;
    }
  }
  return best;
};

// The nearest point that lies in a direction, for the arrow keys.
const stepPoint = (dx, dy) => {
  if (pointed < 0) return nearestPoint(sizeOfMap().width / 2, sizeOfMap().height / 2, Infinity);
  let best = pointed;
  let least = Infinity;
  for (let k = 0; k < points.x.length; k++) {
    if (k === pointed || hiddenVerdicts.has(verdictOfPoint(k))) continue;
    const along = (points.x[k] - points.x[pointed]) * dx + (points.y[k] - points.y[pointed]) * dy;
    const aside = Math.abs((points.x[k] - points.x[pointed]) * dy - (points.y[k] - points.y[pointed]) * dx);
    if (along <= 0 || aside > along) continue;
    if (along + 2 * aside < least) {
      least = along + 2 * aside;
      best = k;
    }
  }
  return best;
};

const zoomMap = (factor) => {
  if (pointed >= 0) [view.x, view.y] = [points.x[pointed], points.y[pointed]];
  view.zoom = Math.min(MAX_ZOOM, Math.max(1, view.zoom * factor));
  if (view.zoom === 1) view.x = view.y = GRID / 2;
  redraw();
};

const pressInMap = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const steps = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  if (event.key in steps) {
    const k = stepPoint(...steps[event.key]);
    if (view.zoom > 1) [view.x, view.y] = [points.x[k], points.y[k]];
    pointAt(k);
    redraw();
    announce(wordsOfPoint(k), "map-news");
  } else if (event.key === "Enter" && pointed >= 0 && points.tile[pointed] >= 0) openTile(points.tile[pointed]);
  else if (event.key === "+" || event.key === "=") zoomMap(1.6);
  else if (event.key === "-") zoomMap(1 / 1.6);
  else if (event.key === "Escape") pointAt(-1);
  else return;
  event.preventDefault();
};

const startMap = () => {
  if (!points) return;
  // One scale for both axes: the middle of what is there comes to the middle of the map.
  for (const axis of ["x", "y"]) {
    const shift = Math.round((GRID - points[axis].reduce((a, b) => Math.max(a, b), 0)) / 2);
    points[axis] = points[axis].map((value) => value + shift);
  }
  // Points without a picture come first, and alone bring their words along.
  find("map-parts").hidden = false;
  const canvas = find("map-canvas");
  const byVerdict = countBy(points.verdict);
  const buttons = audit.verdicts
    .filter((_, code) => byVerdict.has(code))
    .map((verdict) => make("button", { type: "button", "data-verdict": verdict, "aria-pressed": "true" }, make("i", { class: `swatch shape ${verdict}` }), verdict));
  find("map-verdicts").replaceChildren(...buttons);
  find("map-verdicts").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const verdict = button.dataset.verdict;
    if (!hiddenVerdicts.delete(verdict)) hiddenVerdicts.add(verdict);
    button.setAttribute("aria-pressed", String(!hiddenVerdicts.has(verdict)));
    pointAt(-1);
    redraw();
  });
  find("zoom-in").addEventListener("click", () => zoomMap(1.6));
  find("zoom-out").addEventListener("click", () => zoomMap(1 / 1.6));
  find("zoom-all").addEventListener("click", () => zoomMap(0));
  canvas.addEventListener("keydown", pressInMap);

  let drag = null;
  let dragged = false;
  canvas.addEventListener("pointerdown", (event) => {
    dragged = false;
    if (event.pointerType === "mouse" && view.zoom > 1) {
      drag = [event.clientX, event.clientY, view.x, view.y];
      canvas.setPointerCapture(event.pointerId);
    }
  });
  canvas.addEventListener("pointermove", (event) => {
    if (drag) {
      const scale = scaleOfMap(sizeOfMap());
      dragged ||= Math.hypot(event.clientX - drag[0], event.clientY - drag[1]) > 4;
      view.x = drag[2] - (event.clientX - drag[0]) / scale;
      view.y = drag[3] + (event.clientY - drag[1]) / scale;
      redraw();
    } else if (event.pointerType === "mouse") pointAt(nearestPoint(event.offsetX, event.offsetY));
  });
  for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, () => (drag = null));
  canvas.addEventListener("pointerleave", () => {
    if (!drag && document.activeElement !== canvas) pointAt(-1);
  });
  let touched = -1;
  canvas.addEventListener("click", (event) => {
    if (dragged) return;
    const k = nearestPoint(event.offsetX, event.offsetY);
    // The first touch shows a point, the second one opens it; a mouse has shown it already.
    const open = k >= 0 && (event.pointerType !== "touch" || k === touched);
    touched = k;
    pointAt(k);
    if (open && points.tile[k] >= 0) openTile(points.tile[k]);
  });
  new ResizeObserver(redraw).observe(find("map-frame"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
};
