// The gallery: filters, search, sorting, and pages of pictures. Only one page of tiles is in the document.
const PAGE = matchMedia("(max-width: 30rem)").matches ? 24 : 60;
const texts = tiles.id.map((id, tile) =>
  [id, nameOf(tiles.given[tile]), nameOf(tiles.suggested[tile]), tiles.faults[tile], tiles.part[tile]].join("\n").toLowerCase(),
);
const ALL = Array.from({ length: count }, (_, tile) => tile);
let verdictShown = "";
let fitting = ALL;
let pageShown = 0;

const STATES = {
  all: ["all images", () => true],
  open: ["not yet decided", (tile) => !decisions.has(tile)],
  done: ["decided", (tile) => decisions.has(tile)],
  twins: ["near-duplicates", (tile) => tiles.group[tile] >= 0],
  leaks: ["leaks", (tile) => tiles.leak[tile] !== ""],
  faults: ["faults", (tile) => tiles.faults[tile] !== ""],
};
const last = (value) => (value === null ? Infinity : value);
const compareNames = (a, b) => (nameOf(a) < nameOf(b) ? -1 : nameOf(a) > nameOf(b) ? 1 : 0);
const ORDERS = {
  review: ["for review", (a, b) => a - b],
  right: ["least sure first", (a, b) => last(tiles.right[a]) - last(tiles.right[b]) || a - b],
  kept: ["surest first", (a, b) => (tiles.right[b] ?? -1) - (tiles.right[a] ?? -1) || a - b],
  open: ["most open first", (a, b) => (tiles.open[b] ?? -1) - (tiles.open[a] ?? -1) || a - b],
  suggested: ["surest suggestion", (a, b) => (tiles.suggestedRight[b] ?? -1) - (tiles.suggestedRight[a] ?? -1) || a - b],
  given: ["given label", (a, b) => compareNames(tiles.given[a], tiles.given[b]) || a - b],
  id: ["id", (a, b) => (tiles.id[a] < tiles.id[b] ? -1 : 1)],
};

const makeMeter = (words, share, kind) => {
  const bar = make("i", { class: kind });
  bar.style.width = `${100 * share}%`;
  return make(
    "span",
    { class: "prob" },
    make("span", {}, words),
    make("span", { class: "meter" }, bar),
    make("span", {}, formatShare(share)),
  );
};

const makeLabels = (tile) => {
  const given = tiles.given[tile];
  const suggested = tiles.suggested[tile];
  const line = make("span", { class: "labels" });
  if (suggested < 0 || suggested === given) line.append(makeName(given, "b"));
  else line.append(make("span", { class: "struck" }, makeName(given)), " → ", makeName(suggested, "b"));
  return line;
};

const makeNotes = (tile) => {
  const notes = [];
  if (tiles.group[tile] >= 0) notes.push("near-duplicate");
  if (tiles.leak[tile]) notes.push("leak");
  if (tiles.faults[tile]) notes.push(tiles.faults[tile]);
  return notes;
};

const fillTile = (button, tile) => {
  const decision = decisions.get(tile);
  const words = make("span", { class: "words" }, makeLabels(tile), makeBadge(verdictOf(tile)));
  if (tiles.right[tile] !== null) words.append(makeMeter("right", tiles.right[tile], "keep"));
  if (tiles.open[tile] !== null) words.append(makeMeter("open", tiles.open[tile], "drop"));
  const notes = makeNotes(tile);
  if (notes.length) words.append(make("span", { class: "notes" }, notes.join(" · ")));
  words.append(make("span", { class: "id", title: tiles.id[tile] }, make("bdi", { dir: "ltr" }, tiles.id[tile])));
  button.setAttribute("aria-label", `${describe(tile)}; ${tiles.id[tile]}${decision ? `; ${tellDecision(tile, decision)}` : ""}`);
  button.classList.toggle("decided", Boolean(decision));
  const old = button.querySelector(".picture");
  const picture = old ?? make("span", { class: "picture" }, makePicture(tile));
  button.replaceChildren(picture, words);
  if (decision) button.append(make("span", { class: `decision ${decision.decision}` }, tellDecision(tile, decision)));
};

const makeTile = (tile) => {
  const button = make("button", { type: "button", class: "tile", "data-tile": tile });
  fillTile(button, tile);
  return make("li", {}, button);
};

const showPage = () => {
  const pages = Math.max(1, Math.ceil(fitting.length / PAGE));
  pageShown = Math.min(Math.max(pageShown, 0), pages - 1);
  const start = pageShown * PAGE;
  const shown = fitting.slice(start, start + PAGE);
  find("gallery").replaceChildren(...shown.map(makeTile));
  const of = fitting.length === count ? "" : ` of ${formatCount(count)}`;
  find("shown").textContent = shown.length
    ? `${formatCount(start + 1)}–${formatCount(start + shown.length)} of ${formatCount(fitting.length)}${of ? ` that fit,${of} in all` : ""}`
    : "";
  find("none").hidden = fitting.length > 0;
  for (const [id, idle] of [["earlier", pageShown === 0], ["later", pageShown === pages - 1]]) {
    find(id).disabled = find(`${id}-below`).disabled = idle;
  }
  document.querySelectorAll(".pager").forEach((pager) => (pager.hidden = fitting.length === 0));
  document.querySelector(".pager.below").hidden = pages === 1;
};

const filterTiles = () => {
  const words = find("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const code = find("class-filter").value === "" ? null : Number(find("class-filter").value);
  const part = find("part-filter").value;
  const fits = STATES[find("state-filter").value][1];
  fitting = ALL.filter(
    (tile) =>
      (!verdictShown || verdictOf(tile) === verdictShown) &&
      (code === null || tiles.given[tile] === code || tiles.suggested[tile] === code) &&
      (!part || tiles.part[tile] === part) &&
      fits(tile) &&
      words.every((word) => texts[tile].includes(word)),
  ).sort(ORDERS[find("sort").value][1]);
  for (const button of find("verdict-filter").children) {
    button.setAttribute("aria-pressed", String(button.dataset.verdict === verdictShown));
  }
  pageShown = 0;
  showPage();
};

const turnPage = (step) => {
  pageShown += step;
  showPage();
  find("images").querySelector(".pager").scrollIntoView({ block: "nearest" });
  find("gallery").querySelector(".tile")?.focus({ preventScroll: true });
};

const fillSelect = (id, options) => find(id).replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));

const countBy = (column) => {
  const counts = new Map();
  for (const value of column) counts.set(value, (counts.get(value) ?? 0) + 1);
  return counts;
};

const startGallery = () => {
  const byVerdict = countBy(tiles.verdict);
  const makeChoice = (verdict, text, number) =>
    make(
      "button",
      { type: "button", "data-verdict": verdict },
      ...(verdict ? [make("i", { class: `swatch ${verdict}` })] : []),
      text,
      make("span", {}, ` ${formatCount(number)}`),
    );
  const found = audit.verdicts.map((verdict, code) => [verdict, byVerdict.get(code) ?? 0]).filter(([, number]) => number);
  find("verdict-filter").replaceChildren(makeChoice("", "all", count), ...found.map(([verdict, number]) => makeChoice(verdict, verdict, number)));
  const byClass = countBy(ALL.flatMap((tile) => [...new Set([tiles.given[tile], tiles.suggested[tile]])]));
  byClass.delete(-1);
  const codes = [...byClass.keys()].sort(compareNames);
  fillSelect("class-filter", [["", "any"], ...codes.map((code) => [code, `${nameOf(code)} (${byClass.get(code)})`])]);
  const parts = [...new Set(tiles.part)].filter(Boolean).sort();
  fillSelect("part-filter", [["", "any"], ...parts.map((part) => [part, part])]);
  find("part-filter").parentElement.hidden = parts.length < 2;
  const needed = { twins: "group", leaks: "leak", faults: "faults" };
  const states = Object.keys(STATES).filter((key) => !needed[key] || ALL.some(STATES[key][1]));
  fillSelect("state-filter", states.map((key) => [key, STATES[key][0]]));
  const measured = { open: tiles.open, suggested: tiles.suggestedRight };
  const orders = Object.keys(ORDERS).filter((key) => !measured[key] || measured[key].some((value) => value !== null));
  fillSelect("sort", orders.map((key) => [key, ORDERS[key][0]]));

  find("verdict-filter").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    verdictShown = button.dataset.verdict;
    filterTiles();
  });
  for (const id of ["class-filter", "part-filter", "state-filter", "sort"]) find(id).addEventListener("change", filterTiles);
  find("search").addEventListener("input", filterTiles);
  find("clear").addEventListener("click", () => {
    verdictShown = find("search").value = find("class-filter").value = find("part-filter").value = "";
    find("state-filter").value = "all";
    filterTiles();
    find("search").focus();
  });
  for (const suffix of ["", "-below"]) {
    find(`earlier${suffix}`).addEventListener("click", () => turnPage(-1));
    find(`later${suffix}`).addEventListener("click", () => turnPage(1));
  }
  listeners.push((tile) => {
    const button = find("gallery").querySelector(`.tile[data-tile="${tile}"]`);
    if (button) fillTile(button, tile);
  });
};
