"use strict";
(() => {
  const main = document.querySelector("main");

  // The legend hides a method everywhere: in tables, dot plots and curves.
  const chips = [...document.querySelectorAll("[data-toggle]")];
  const show = (chip, shown) => {
    chip.setAttribute("aria-pressed", shown);
    main.classList.toggle(`off-${chip.dataset.toggle}`, !shown);
  };
  for (const chip of chips) chip.addEventListener("click", () => show(chip, chip.getAttribute("aria-pressed") !== "true"));
  for (const button of document.querySelectorAll("[data-all]")) button.addEventListener("click", () => { for (const chip of chips) show(chip, button.dataset.all === "true"); });

  // Ordering the summary orders everything, so that a method is found at the same place in each table. What has no value comes last.
  const headings = [...document.querySelectorAll("[data-column]")];
  const order = (heading) => {
    const place = heading.parentElement;
    const falling = place.getAttribute("aria-sort") === "ascending";
    for (const other of headings) other.parentElement.setAttribute("aria-sort", "none");
    place.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const value = (row) => row.cells[heading.dataset.column].dataset.order;
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      const ascending = heading.dataset.column === "0" ? x.localeCompare(y) : x - y;
      return falling ? -ascending : ascending;
    };
    const runs = [...document.querySelectorAll(".summary .runs tr")].sort(compare).map((row) => row.dataset.run);
    for (const group of document.querySelectorAll(".runs")) {
      const members = new Map([...group.children].filter((child) => child.dataset.run).map((child) => [child.dataset.run, child]));
      for (const run of runs) if (members.has(run)) group.append(members.get(run));
    }
  };
  for (const heading of headings) heading.addEventListener("click", () => order(heading));

  // What a mark stands for, beside the pointer or the finger.
  const tip = document.getElementById("tip");
  document.addEventListener("pointerover", (event) => {
    const told = event.target.dataset?.tip;
    tip.hidden = !told;
    if (!told) return;
    tip.textContent = told;
    tip.style.left = `${Math.max(8, Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${event.clientY + 16 + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 8 : event.clientY + 16}px`;
  });
})();
