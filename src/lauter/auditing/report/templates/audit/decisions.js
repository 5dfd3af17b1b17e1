// What a person decided: kept in memory, and in the browser's storage where that is allowed.
const DECISIONS = ["accept", "keep", "relabel", "drop", "skip"];
const HEADER = ["id", "given", "decision", "label"];
const STORE = `lauter-audit-${audit.fingerprint}`;
const MAX_PAST = 500;
const decisions = new Map(); // tile -> { decision, label: a class's code, or -1 }
let past = []; // [tile, what was decided before or null], the last one last
const listeners = [];

// The decision that an action stands for, or the reason why there is none.
const decide = (tile, action, label = -1) => {
  const given = tiles.given[tile];
  const suggested = tiles.suggested[tile];
  if (action === "accept") {
    const verdict = verdictOf(tile);
    if (verdict === "keep") return { decision: "accept", label: given };
    if (verdict === "relabel") return { decision: "accept", label: suggested };
    if (verdict === "drop") return { decision: "accept", label: -1 };
    // A question has no answer to accept: what is suggested is taken, and the file says so plainly.
    if (suggested < 0) return { problem: "Nothing is suggested for this image." };
    return decide(tile, "relabel", suggested);
  }
  if (action === "keep" && given < 0) return { problem: "This image has no given label to keep." };
  if (action === "keep") return { decision: "keep", label: given };
  if (action === "relabel") return label === given ? { decision: "keep", label } : { decision: "relabel", label };
  return { decision: action, label: -1 };
};

const tellDecision = (tile, { decision, label }) => {
  if (decision === "skip") return "skipped";
  if (decision === "keep") return `kept: ${nameOf(label)}`;
  if (decision === "relabel") return `relabelled: ${nameOf(label)}`;
  if (decision === "drop") return "dropped";
  return verdictOf(tile) === "drop" ? "accepted: drop" : `accepted: ${nameOf(label)}`;
};

const warnOfStorage = () => {
  const warning = find("storage-warning");
  warning.textContent =
    "This browser does not let the page keep decisions. They are lost when you close or reload it: download them first.";
  warning.hidden = false;
};

const isDecision = (entry) =>
  entry === null ||
  (typeof entry === "object" &&
    DECISIONS.includes(entry.decision) &&
    Number.isInteger(entry.label) &&
    entry.label >= -1 &&
    entry.label < audit.classes.length);
const isEntry = (entry) =>
  Array.isArray(entry) && Number.isInteger(entry[0]) && entry[0] >= 0 && entry[0] < count && isDecision(entry[1]);

const saveDecisions = () => {
  try {
    localStorage.setItem(STORE, JSON.stringify({ decisions: [...decisions], past }));
  } catch {
    warnOfStorage();
  }
};

const restoreDecisions = () => {
  let text = null;
  try {
    text = localStorage.getItem(STORE);
    localStorage.setItem(`${STORE}-probe`, "1"); // reading may be allowed where writing is not
    localStorage.removeItem(`${STORE}-probe`);
  } catch {
    warnOfStorage();
  }
  if (text === null) return;
  let kept = {};
  try {
    kept = JSON.parse(text) ?? {};
  } catch {
    return; // not ours
  }
  decisions.clear();
  for (const [tile, decision] of (kept.decisions ?? []).filter(isEntry)) if (decision) decisions.set(tile, decision);
  past = (kept.past ?? []).filter(isEntry);
};

const tellListeners = (tile) => listeners.forEach((listener) => listener(tile));

const noteDecision = (tile, { decision, label }) => {
  past.push([tile, decisions.get(tile) ?? null]);
  past = past.slice(-MAX_PAST);
  decisions.set(tile, { decision, label });
};
const setDecision = (tile, decision) => {
  noteDecision(tile, decision);
  saveDecisions();
  tellListeners(tile);
};

// Takes the last decision back and says which image it was about, or -1.
const undoDecision = () => {
  if (!past.length) return -1;
  const [tile, before] = past.pop();
  if (before) decisions.set(tile, before);
  else decisions.delete(tile);
  saveDecisions();
  tellListeners(tile);
  return tile;
};

// CSV as RFC 4180 has it. Ids stand as they are, for they are keys: nothing is put before a leading = or +.
const quote = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const writeCsv = () => {
  const rows = [...decisions.keys()].sort((a, b) => a - b).map((tile) => {
    const { decision, label } = decisions.get(tile);
    const given = tiles.given[tile];
    return [tiles.id[tile], given < 0 ? "" : nameOf(given), decision, label < 0 ? "" : nameOf(label)];
  });
  return [HEADER, ...rows].map((row) => `${row.map(quote).join(",")}\r\n`).join("");
};

const readCsv = (text) => {
  const rows = [];
  let row = [];
  let field = "";
  let quoted = false;
  const endField = () => {
    row.push(field);
    field = "";
  };
  const endRow = () => {
    endField();
    rows.push(row);
    row = [];
  };
  for (let k = text.startsWith("\uFEFF") ? 1 : 0; k < text.length; k++) {
    const sign = text[k];
    if (quoted && sign === '"' && text[k + 1] === '"') field += text[++k];
    else if (sign === '"') quoted = !quoted;
    else if (quoted) field += sign;
    else if (sign === ",") endField();
    else if (sign === "\n") endRow();
    else if (sign !== "\r") field += sign;
  }
  if (field || row.length) endRow();
  return rows;
};

// Reads a file that this page wrote, on this machine or another; says what came of it.
const loadCsv = (text) => {
  const [header = [], ...rows] = readCsv(text);
  if (header.join() !== HEADER.join()) return `This is no decisions file: its first line is not ${HEADER.join()}.`;
  const places = new Map(tiles.id.map((id, tile) => [id, tile]));
  const codes = new Map(audit.classes.map((name, code) => [name, code]));
  const loaded = [];
  for (const [id, given, decision, label = ""] of rows) {
    const tile = places.get(id);
    const code = label === "" ? -1 : codes.get(label);
    if (tile === undefined || code === undefined || !DECISIONS.includes(decision)) continue;
    if ((codes.get(given) ?? -1) !== tiles.given[tile]) continue;
    noteDecision(tile, { decision, label: code });
    loaded.push(tile);
  }
  saveDecisions();
  loaded.forEach(tellListeners);
  const left = rows.length - loaded.length;
  return `${loaded.length} decisions loaded${left ? `; ${left} lines do not fit the pictures of this page` : ""}.`;
};

const downloadDecisions = () => {
  const url = URL.createObjectURL(new Blob([writeCsv()], { type: "text/csv;charset=utf-8" }));
  make("a", { href: url, download: "decisions.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
  announce(`${decisions.size} decisions downloaded.`);
};
