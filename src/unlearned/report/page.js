"use strict";
(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const current = () => root.dataset.theme || (dark.matches ? "dark" : "light");
  const label = () => { button.textContent = current() === "dark" ? "Light theme" : "Dark theme"; };
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = current() === "dark" ? "light" : "dark"; label(); });
  dark.addEventListener("change", label);
  label();

  // A long part of a table shows its first rows; one more row opens it. Paper shows all.
  for (const part of document.querySelectorAll("tbody.long")) {
    const rest = [...part.rows].slice(Number(part.dataset.shown) + 1);
    const row = part.insertRow();
    const cell = row.insertCell();
    cell.colSpan = rest[0].cells.length;
    const more = document.createElement("button");
    more.type = "button";
    cell.append(more);
    const fold = (folded) => {
      part.classList.toggle("folded", folded);
      more.setAttribute("aria-expanded", !folded);
      more.textContent = folded ? `${rest.length} more rows` : "Fewer rows";
    };
    for (const one of rest) one.classList.add("more");
    more.addEventListener("click", () => fold(!part.classList.contains("folded")));
    fold(true);
  }
})();
