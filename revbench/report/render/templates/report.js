"use strict";
// The page works without this: it adds sorting, opens what a link leads into, and marks where one reads in the contents.
const UNITS = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40, "µs": 1e-6, ms: 1e-3, s: 1, GFLOP: 1e9, TFLOP: 1e12, "%": 0.01 };

function numberOf(text) {
  const found = /^[≥']?\s*([+\-−]?[\d,]*\.?\d+(?:e[+\-]?\d+)?)\s*([^\s\d(]*)/.exec(text.trim());
  return found ? Number(found[1].replace(/,/g, "").replace("−", "-")) * (UNITS[found[2]] ?? 1) : null;
}

function sortBy(table, column, header) {
  const descending = header.getAttribute("aria-sort") === "ascending";
  const rows = [...table.tBodies[0].rows].map((row, place) => {
    const text = row.cells[column].textContent;
    return { row, place, text, number: numberOf(text) };
  });
  const known = (one) => (one.number === null ? 1 : 0);
  rows.sort((a, b) => {
    const missing = known(a) - known(b);
    if (missing) return missing;
    const order = a.number === null ? a.text.localeCompare(b.text) : a.number - b.number;
    return (descending ? -order : order) || a.place - b.place;
  });
  for (const { row } of rows) {
    row.classList.remove("break");
    table.tBodies[0].append(row);
  }
  for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
}

for (const table of document.querySelectorAll("figure table")) {
  if (table.tBodies[0].rows.length < 2) continue;
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-label", `Sort by ${header.textContent.trim()}`);
    header.append(button);
    header.classList.add("sortable");
    header.title = "Sort by this column";
    header.addEventListener("click", () => sortBy(table, column, header));
  });
}

for (const box of document.querySelectorAll(".scroll")) {
  const hint = document.createElement("p");
  hint.className = "note hint";
  hint.textContent = "Wider than its box: scroll sideways";
  box.before(hint);
  new ResizeObserver(() => {
    hint.hidden = box.scrollWidth <= box.clientWidth + 1;
  }).observe(box);
}

function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  if (target) target.scrollIntoView();
}
addEventListener("hashchange", reveal);
if (location.hash) reveal();

const folded = document.querySelectorAll("details");
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...folded].filter((one) => !one.open);
  for (const one of opened) one.open = true;
});
addEventListener("afterprint", () => {
  for (const one of opened) one.open = false;
});

const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
const inView = new Set();
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) inView[entry.isIntersecting ? "add" : "delete"](entry.target.id);
  const first = [...links.keys()].find((id) => inView.has(id));
  for (const [id, link] of links) {
    if (id === first) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}, { rootMargin: "0px 0px -60% 0px" });
for (const id of links.keys()) watcher.observe(document.getElementById(id));
