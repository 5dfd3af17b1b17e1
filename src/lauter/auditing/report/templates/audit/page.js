// What the page knows, and the few things that all its parts use. Text from the data goes into text nodes and
// attribute values alone; nothing here writes HTML.
const find = (id) => document.getElementById(id);
const readData = (id) => JSON.parse(find(id).textContent);
const audit = readData("audit-data");
const tiles = audit.tiles; // columns; a tile is a place in them
const count = tiles.id.length;
const SMALL = 64; // pictures below so many pixels are shown pixel by pixel

const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children);
  return element;
};

const verdictOf = (tile) => audit.verdicts[tiles.verdict[tile]];
const nameOf = (code) => (code < 0 ? "no label" : audit.classes[code]);
const makeName = (code, tag = "bdi") => make(tag, { class: code < 0 ? "none" : null, dir: "auto" }, nameOf(code));
const makeBadge = (verdict) => make("span", { class: `badge ${verdict}` }, verdict);

const formatShare = (p) => {
  if (p === null) return "–";
  if (p > 0 && p < 0.01) return "<1%";
  return p < 1 && p > 0.99 ? ">99%" : `${Math.round(100 * p)}%`;
};
const formatCount = (value) => value.toLocaleString("en");

// What a tile is about, in words: for labels of buttons and for those who listen.
const describe = (tile) => {
  const given = tiles.given[tile] < 0 ? "no label" : `given ${nameOf(tiles.given[tile])}`;
  const suggested =
    tiles.suggested[tile] >= 0 && tiles.suggested[tile] !== tiles.given[tile]
      ? `, suggested ${nameOf(tiles.suggested[tile])}`
      : "";
  const right = tiles.right[tile] === null ? "" : `, right with ${formatShare(tiles.right[tile])}`;
  return `${verdictOf(tile)}: ${given}${suggested}${right}`;
};

// Pictures are read from the page's data when the first is needed, and made when they come near the screen.
let payloads = null;
const showPicture = (image, tile) => {
  payloads ??= readData("pictures");
  image.src = `data:image/webp;base64,${payloads[tile]}`;
};
const watcher = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      showPicture(entry.target, Number(entry.target.dataset.tile));
    }
  },
  { rootMargin: "500px" },
);
const isSmall = (tile) => Math.max(tiles.width[tile], tiles.height[tile]) < SMALL;
const makePicture = (tile, alt = "") => {
  const image = make("img", {
    "data-tile": tile,
    width: tiles.width[tile],
    height: tiles.height[tile],
    class: isSmall(tile) ? "pixels" : null,
    decoding: "async",
    alt,
  });
  watcher.observe(image);
  return image;
};

// Said once to those who listen; the same words twice are said twice.
const announce = (text, id = "news") => {
  const place = find(id);
  place.textContent = "";
  requestAnimationFrame(() => (place.textContent = text));
};
