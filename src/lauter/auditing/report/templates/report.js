"use strict";
// Filters of the gallery. Reads only what stands in the page; everything is shown where scripts are off.
(() => {
  const tiles = Array.from(document.querySelectorAll("#gallery > li"));
  const buttons = Array.from(document.querySelectorAll("#filters button"));
  const classFilter = document.getElementById("class-filter");
  const search = document.getElementById("search");
  const texts = tiles.map((tile) => tile.querySelector(".words").textContent.toLowerCase());
  const more = document.getElementById("more");
  const PAGE = matchMedia("(max-width: 30rem)").matches ? 16 : 42;
  let verdict = "";
  let limit = PAGE;

  const show = () => {
    const code = classFilter ? classFilter.value : "";
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let fitting = 0;
    tiles.forEach((tile, k) => {
      const fits =
        (!verdict || tile.dataset.verdict === verdict) &&
        (!code || tile.dataset.codes.split(" ").includes(code)) &&
        words.every((word) => texts[k].includes(word));
      fitting += fits;
      tile.hidden = !fits || fitting > limit;
    });
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.verdict === verdict)));
    document.getElementById("shown").textContent = fitting === tiles.length ? "" : `${fitting} of ${tiles.length}`;
    document.getElementById("none").hidden = fitting > 0;
    more.hidden = fitting <= limit;
    more.textContent = `Show ${fitting - limit} more`;
  };

  buttons.forEach((button) =>
    button.addEventListener("click", () => {
      verdict = button.dataset.verdict;
      show();
    }),
  );
  if (classFilter) classFilter.addEventListener("change", show);
  search.addEventListener("input", show);
  more.addEventListener("click", () => {
    const next = tiles.filter((tile) => !tile.hidden).length;
    limit = Infinity;
    show();
    // The button is gone: the keyboard goes on where the new pictures begin.
    const first = tiles.filter((tile) => !tile.hidden)[next];
    first.tabIndex = -1;
    first.focus({ preventScroll: true });
  });
  document.getElementById("filters").hidden = false;
  show();
})();
