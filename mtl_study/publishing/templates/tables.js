"use strict";
// A click on a column's head sorts its table. Above a long one is a field to filter it by; above that of all claims a list, too.
const order = new Intl.Collator("en", { numeric: true });
const LONG = 20;  // rows

function valueOf(cell) {
  const text = cell.textContent.trim();
  const number = Number.parseFloat(text.replaceAll(",", "").replace("−", "-").replace(/^[<>≤≥] */, ""));
  return Number.isNaN(number) ? text : number;
}

function compare(a, b) {
  const [x, y] = [typeof a === "number", typeof b === "number"];
  return x && y ? a - b : x ? -1 : y ? 1 : order.compare(a, b);
}

function sort(table, column) {
  const head = table.tHead.rows[0].cells[column];
  const way = head.ariaSort === "ascending" ? -1 : 1;
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => way * compare(valueOf(a.cells[column]), valueOf(b.cells[column])));
  table.tBodies[0].append(...rows);
}

function filter(table) {
  const box = document.createElement("div");
  box.className = "filters";
  box.innerHTML = '<input type="search" placeholder="Filter by words" aria-label="Filter by words">';
  const verdicts = new Set([...table.querySelectorAll(".badge")].map((badge) => badge.textContent));
  const list = document.createElement("select");
  list.ariaLabel = "Verdict";
  list.append(new Option("all verdicts", ""), ...[...verdicts].map((verdict) => new Option(verdict, verdict)));
  if (verdicts.size) box.append(list);
  box.addEventListener("input", () => {
    const words = box.firstChild.value.toLowerCase();
    for (const row of table.tBodies[0].rows) {
      const verdict = row.querySelector(".badge")?.textContent;
      row.hidden = !row.textContent.toLowerCase().includes(words) || (list.value !== "" && verdict !== list.value);
    }
  });
  table.before(box);
}

for (const table of document.querySelectorAll("table")) {
  [...(table.tHead?.rows[0].cells ?? [])].forEach((head, column) => {
    if (!head.textContent.trim()) return;
    const button = document.createElement("button");
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, column));
    head.append(button);
  });
  if (table.tBodies[0]?.rows.length > LONG) filter(table);
}
