// Puts the parts together once the page is there.
const fillDesk = () => {
  find("progress").value = decisions.size;
  find("progress-words").textContent = decisions.size
    ? `${formatCount(decisions.size)} of ${formatCount(count)} decided`
    : "Nothing decided yet";
  find("undo").disabled = past.length === 0;
  find("download").disabled = decisions.size === 0;
  find("start").textContent = decisions.size && decisions.size < count ? "Go on with the review" : "Review";
};

// Begins with the first image of the gallery's list that is not decided yet.
const beginReview = () => {
  const at = fitting.findIndex((tile) => !decisions.has(tile));
  openReview(fitting.slice(), Math.max(0, at));
};

const refreshAll = () => {
  restoreDecisions();
  fillDesk();
  showPage();
  if (find("review").open) showReview();
};

restoreDecisions();
startGallery();
startReview();
startMap();
listeners.push(fillDesk);
fillDesk();
filterTiles();
document.querySelectorAll("img[data-tile]").forEach((image) => {
  if (!image.src) watcher.observe(image);
});
find("start").addEventListener("click", beginReview);
find("undo").addEventListener("click", undoInGallery);
find("download").addEventListener("click", downloadDecisions);
find("load").addEventListener("click", () => find("load-file").click());
find("load-file").addEventListener("change", async () => {
  const [file] = find("load-file").files;
  find("load-file").value = "";
  if (!file) return;
  const words = loadCsv(await file.text());
  announce(words);
  find("shown").textContent = words;
});
// The same page in another tab: what is decided there holds here.
addEventListener("storage", (event) => {
  if (event.key === STORE) refreshAll();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "?" || event.target.closest("input, dialog")) return;
  find("help").showModal();
  event.preventDefault();
});
find("desk").hidden = false;
