// The review: one image after the other, decided on by key, mouse or touch.
const KEYS = { a: "accept", k: "keep", r: "keep", d: "drop", s: "skip" };
const MAX_MATCHES = 50;
let queue = []; // tiles in the order of the gallery when the review began
let place = 0;
let recent = []; // labels chosen of late, the last first
let matches = []; // codes in the chooser's list
let active = 0; // place in them

const choicesOf = (tile) => {
  const verdict = verdictOf(tile);
  const given = tiles.given[tile];
  const suggested = tiles.suggested[tile];
  const accept = {
    keep: ["Accept: keep ", given],
    relabel: ["Accept: relabel to ", suggested],
    drop: ["Accept: drop", null],
    ask: suggested >= 0 && suggested !== given ? ["Use the suggested ", suggested] : null,
  }[verdict];
  const choices = [];
  if (accept) choices.push(["accept", "A", ...accept]);
  if (given >= 0 && verdict !== "keep") choices.push(["keep", "K", "Keep ", given]);
  choices.push(["label", "L", "Another label…", null]);
  if (verdict !== "drop") choices.push(["drop", "D", "Drop", null]);
  choices.push(["skip", "S", "Cannot tell", null]);
  return choices;
};

// Which button of `choicesOf` a decision was made with.
const choiceOf = (tile, decision) => {
  if (!decision) return "";
  const asked = verdictOf(tile) === "ask" && decision.decision === "relabel" && decision.label === tiles.suggested[tile];
  if (decision.decision === "accept" || asked) return "accept";
  return decision.decision === "relabel" ? "label" : decision.decision;
};

const makeFacts = (tile) => {
  const facts = make("div", { class: "facts" }, make("p", {}, makeBadge(verdictOf(tile))));
  if (tiles.right[tile] !== null) facts.append(makeMeter("given label right", tiles.right[tile], "keep"));
  if (tiles.suggestedRight[tile] !== null && tiles.suggested[tile] !== tiles.given[tile]) {
    facts.append(makeMeter("suggested right", tiles.suggestedRight[tile], "relabel"));
  }
  if (tiles.open[tile] !== null) facts.append(makeMeter("of no class", tiles.open[tile], "drop"));
  const notes = [];
  if (tiles.part[tile]) notes.push(`split: ${tiles.part[tile]}`);
  if (tiles.faults[tile]) notes.push(tiles.faults[tile]);
  if (tiles.leak[tile]) notes.push(`its twin in another split: ${tiles.leak[tile]}`);
  for (const note of notes) facts.append(make("p", { class: "note" }, make("bdi", {}, note)));
  facts.append(make("p", { class: "code" }, make("bdi", { dir: "ltr" }, tiles.id[tile])));
  const twins = tiles.group[tile] < 0 ? [] : ALL.filter((other) => other !== tile && tiles.group[other] === tiles.group[tile]);
  if (twins.length) {
    const list = make("ul", { class: "others" });
    for (const twin of twins.slice(0, 5)) {
      list.append(make("li", {}, makePicture(twin), make("span", {}, makeName(tiles.given[twin]))));
    }
    facts.append(make("p", { class: "note" }, "Near-duplicates and their given labels:"), list);
  }
  return facts;
};

const makeTitle = (tile) => {
  const given = tiles.given[tile];
  const suggested = tiles.suggested[tile];
  const parts = [make("span", { class: "hidden" }, given < 0 ? "" : "given "), makeName(given)];
  if (suggested >= 0 && suggested !== given) {
    parts.push(make("span", { class: "arrow" }, " → "), make("span", { class: "hidden" }, "suggested "), makeName(suggested, "b"));
  }
  return parts;
};

const fillChoices = (tile) => {
  const chosen = choiceOf(tile, decisions.get(tile));
  const buttons = choicesOf(tile).map(([action, key, words, code]) =>
    make(
      "button",
      { type: "button", "data-action": action, "aria-pressed": String(action === chosen), "aria-keyshortcuts": key },
      make("span", { class: "choice" }, words, ...(code === null ? [] : [makeName(code, "b")])),
      make("kbd", {}, key),
    ),
  );
  find("review-choices").replaceChildren(...buttons);
};

const fillProgress = () => {
  const decided = queue.reduce((sum, tile) => sum + decisions.has(tile), 0);
  find("review-place").textContent = `${formatCount(place + 1)} of ${formatCount(queue.length)} · ${formatCount(decided)} decided`;
  find("review-progress").max = Math.max(1, queue.length);
  find("review-progress").value = decided;
  find("review-back").disabled = place === 0;
  find("review-next").disabled = place === queue.length - 1;
  find("review-undo").disabled = past.length === 0;
};

const showReview = () => {
  const tile = queue[place];
  closeChooser();
  const image = find("review-image");
  showPicture(image, tile);
  image.alt = `Image ${tiles.id[tile]}`;
  image.width = tiles.width[tile];
  image.height = tiles.height[tile];
  image.classList.toggle("pixels", isSmall(tile));
  find("review-title").replaceChildren(...makeTitle(tile));
  find("review-facts").replaceChildren(makeFacts(tile));
  const decision = decisions.get(tile);
  find("review-news").textContent = decision ? `You decided: ${tellDecision(tile, decision)}` : "";
  fillChoices(tile);
  fillProgress();
  find("review-title").focus({ preventScroll: true });
};

const openReview = (tiles_, at) => {
  if (!tiles_.length) return;
  queue = tiles_;
  place = at;
  if (!find("review").open) find("review").showModal();
  showReview();
  find("review").scrollTop = 0;
};
// Opens one image, in the gallery's list where it is there.
const openTile = (tile) => {
  const at = fitting.indexOf(tile);
  if (at >= 0) openReview(fitting.slice(), at);
  else openReview([tile], 0);
};

const move = (step) => {
  const next = place + step;
  if (next < 0 || next >= queue.length) return;
  place = next;
  showReview();
};

const act = (action, label = -1) => {
  const tile = queue[place];
  const decision = decide(tile, action, label);
  if (decision.problem) {
    announce(decision.problem, "review-news");
    return;
  }
  setDecision(tile, decision);
  const words = tellDecision(tile, decision);
  if (place < queue.length - 1) {
    place++;
    showReview();
    announce(`Before: ${words}.`, "review-news");
  } else {
    showReview();
    announce(`${words}. This was the last one of the list.`, "review-news");
  }
};

const undoInReview = () => {
  const tile = undoDecision();
  if (tile < 0) {
    announce("There is nothing to undo.", "review-news");
    return;
  }
  const at = queue.indexOf(tile);
  if (at >= 0) place = at;
  showReview();
  announce("Taken back.", "review-news");
};

// The chooser of another label: a list that what is typed makes shorter.
const matchClasses = (typed) => {
  const tile = queue[place];
  const wanted = typed.trim().toLowerCase();
  const first = [tiles.suggested[tile], ...recent, tiles.given[tile]].filter((code) => code >= 0);
  const codes = [...new Set([...first, ...audit.classes.keys()])];
  if (!wanted) return codes.slice(0, MAX_MATCHES);
  const names = codes.map((code) => [code, nameOf(code).toLowerCase()]).filter(([, text]) => text.includes(wanted));
  const rank = (text) => (text === wanted ? 0 : text.startsWith(wanted) ? 1 : 2);
  return names.sort((a, b) => rank(a[1]) - rank(b[1])).slice(0, MAX_MATCHES).map(([code]) => code);
};

const fillMatches = () => {
  const input = find("chooser-input");
  active = Math.min(Math.max(active, 0), Math.max(0, matches.length - 1));
  const options = matches.map((code, k) =>
    make("li", { id: `choice-${k}`, role: "option", "data-code": code, "aria-selected": String(k === active) }, makeName(code)),
  );
  if (!options.length) options.push(make("li", { class: "none", role: "option", "aria-disabled": "true", "aria-selected": "false" }, "No class fits."));
  find("chooser-list").replaceChildren(...options);
  if (matches.length) input.setAttribute("aria-activedescendant", `choice-${active}`);
  else input.removeAttribute("aria-activedescendant");
  find("chooser-list").children[active]?.scrollIntoView({ block: "nearest" });
};

const openChooser = () => {
  find("chooser").hidden = false;
  find("chooser-input").value = "";
  active = 0;
  matches = matchClasses("");
  fillMatches();
  find("chooser-input").focus();
  find("chooser").scrollIntoView({ block: "nearest" });
};
const closeChooser = () => (find("chooser").hidden = true);
const choose = (code) => {
  recent = [code, ...recent.filter((other) => other !== code)].slice(0, 5);
  act("relabel", code);
};

const pressInChooser = (event) => {
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8 };
  if (event.key in steps) {
    active += steps[event.key];
    fillMatches();
  } else if (event.key === "Enter") {
    if (matches.length) choose(matches[active]);
  } else if (event.key === "Escape") {
    closeChooser();
    find("review-title").focus({ preventScroll: true });
  } else {
    return;
  }
  event.preventDefault();
  event.stopPropagation();
};

const pressInReview = (event) => {
  if (event.target === find("chooser-input")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if ((event.ctrlKey || event.metaKey) && key === "z") undoInReview();
  else if (event.ctrlKey || event.metaKey || event.altKey) return;
  else if (key === "Enter" && event.target.closest("button")) return;
  else if (key in KEYS || key === "Enter") act(KEYS[key] ?? "accept");
  else if (key === "l") openChooser();
  else if (key === "u") undoInReview();
  else if (key === "ArrowRight" || key === "n") move(1);
  else if (key === "ArrowLeft" || key === "p") move(-1);
  else if (key === "?") find("help").showModal();
  else return;
  event.preventDefault();
};

// In the gallery the keys act on the picture in focus, and the focus goes on to the next.
const pressInGallery = (event) => {
  const button = event.target.closest(".tile");
  if (!button || event.ctrlKey || event.metaKey || event.altKey) return;
  const all = [...find("gallery").querySelectorAll(".tile")];
  const at = all.indexOf(button);
  const tile = Number(button.dataset.tile);
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key in KEYS) {
    const decision = decide(tile, KEYS[key]);
    if (decision.problem) announce(decision.problem);
    else {
      setDecision(tile, decision);
      announce(`${tellDecision(tile, decision)}.`);
      all[at + 1]?.focus();
    }
  } else if (key === "l") {
    openTile(tile);
    openChooser();
  } else if (key === "u") undoInGallery();
  else if (key === "ArrowRight" || key === "n") all[at + 1]?.focus();
  else if (key === "ArrowLeft" || key === "p") all[at - 1]?.focus();
  else return;
  event.preventDefault();
};

const undoInGallery = () => {
  const tile = undoDecision();
  announce(tile < 0 ? "There is nothing to undo." : "Taken back.");
  find("gallery").querySelector(`.tile[data-tile="${tile}"]`)?.focus();
};

const startReview = () => {
  const dialog = find("review");
  dialog.addEventListener("keydown", pressInReview);
  dialog.addEventListener("cancel", (event) => {
    if (!find("chooser").hidden) {
      event.preventDefault();
      closeChooser();
    }
  });
  dialog.addEventListener("close", () => {
    const tile = queue[place];
    const at = fitting.indexOf(tile);
    if (at >= 0 && Math.floor(at / PAGE) !== pageShown) {
      pageShown = Math.floor(at / PAGE);
      showPage();
    }
    find("gallery").querySelector(`.tile[data-tile="${tile}"]`)?.focus();
  });
  find("review-choices").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.action === "label") openChooser();
    else act(button.dataset.action);
  });
  find("chooser-input").addEventListener("input", () => {
    active = 0;
    matches = matchClasses(find("chooser-input").value);
    fillMatches();
  });
  find("chooser-input").addEventListener("keydown", pressInChooser);
  find("chooser-list").addEventListener("click", (event) => {
    const option = event.target.closest("[data-code]");
    if (option) choose(Number(option.dataset.code));
  });
  find("review-back").addEventListener("click", () => move(-1));
  find("review-next").addEventListener("click", () => move(1));
  find("review-undo").addEventListener("click", undoInReview);
  find("review-close").addEventListener("click", () => dialog.close());
  find("help-close").addEventListener("click", () => find("help").close());
  document.querySelectorAll(".ask-help").forEach((button) => button.addEventListener("click", () => find("help").showModal()));
  find("gallery").addEventListener("keydown", pressInGallery);
  find("gallery").addEventListener("click", (event) => {
    const button = event.target.closest(".tile");
    if (button) openTile(Number(button.dataset.tile));
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-open]");
    if (button) openTile(Number(button.dataset.open));
  });
};
