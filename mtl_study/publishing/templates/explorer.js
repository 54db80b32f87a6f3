"use strict";
// The explorer of index.html: chooses among the rows of the table in #explored, which Python made, and draws them.
// Nothing is computed of the numbers here but where they are drawn.
const explored = JSON.parse(document.getElementById("explored").textContent);
const explorer = document.getElementById("explorer");
const [problemList, metricList] = explorer.querySelectorAll("select");
const methodBoxes = explorer.querySelector(".methods");
const dropped = new Set(); // methods that the reader does not want to see
const UNIFORM = "unit_scal"; // what all others are compared with
const [ROW, TOP, BOTTOM, SMALL] = [26, 30, 44, 520]; // pixels; below SMALL the names get less room

function svg(tag, given, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(given)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function element(tag, given, ...children) {
  const made = Object.assign(document.createElement(tag), given);
  made.append(...children);
  return made;
}

const problem = () => explored[problemList.selectedIndex];
const rates = () => explorer.querySelector("input[name=rates]:checked").value;
const minus = (text) => text.replace("-", "−");

function rowsShown() {
  return problem().rows[rates()][metricList.value].filter(({ smto }) => smto === UNIFORM || !dropped.has(smto));
}

function symbol({ colour, marker }, size, at = "") {
  return svg("path", { d: marker, fill: colour, transform: `${at}scale(${size})` });
}

function ticks(low, high, most) {
  const step = [1, 2, 2.5, 5, 10].map((n) => n * 10 ** Math.floor(Math.log10((high - low) / most))).find((n) => (high - low) / n <= most);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

function span(rows) {
  // All means and seeds, and of the intervals as much as fits into as much room again: a wide one ends in an arrow.
  const inside = [0, ...rows.flatMap((row) => [row.mean, ...row.each])].filter((value) => value !== null);
  const [low, high] = [Math.min(...inside), Math.max(...inside)];
  const room = (high - low || 1) / 2;
  const bounds = rows.flatMap((row) => [row.low, row.high]).filter((value) => value !== null);
  const pad = room / 10;
  return [Math.max(low - room, Math.min(low, ...bounds)) - pad, Math.min(high + room, Math.max(high, ...bounds)) + pad];
}

function drawn(rows, width) {
  const methods = problem().methods;
  const left = width < SMALL ? 96 : 130;
  const height = TOP + ROW * rows.length + BOTTOM;
  const [low, high] = span(rows);
  const x = (value) => left + ((value - low) / (high - low)) * (width - left - 14);
  const foot = TOP + ROW * rows.length;
  const made = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img" });
  for (const tick of ticks(low, high, width < SMALL ? 6 : 9)) {
    made.append(svg("line", { x1: x(tick), x2: x(tick), y1: TOP, y2: foot, class: "grid" }));
    made.append(svg("text", { x: x(tick), y: foot + 16, "text-anchor": "middle" }, minus(String(tick))));
  }
  made.append(svg("line", { x1: x(0), x2: x(0), y1: TOP - 6, y2: foot, class: "uniform" }));
  made.append(svg("text", { x: x(0), y: TOP - 12, "text-anchor": "middle" }, methods[UNIFORM].label));
  const axis = "points more than Unit. Scal. (to the right: better)";
  made.append(svg("text", { x: (left + width) / 2, y: foot + 36, "text-anchor": "middle" }, width < SMALL ? "points (to the right: better)" : axis));
  rows.forEach((row, i) => {
    const [y, look] = [TOP + ROW * (i + 0.5), methods[row.smto]];
    const group = svg("g", { "data-smto": row.smto }, svg("title", {}, `${look.label}: ${row.cells[3]} (${row.cells[4]})`));
    group.append(svg("text", { x: left - 12, y: y + 4, "text-anchor": "end" }, look.label));
    if (row.mean === null) group.append(svg("text", { x: x(0) + 8, y: y + 4, class: "faint" }, "no runs"));
    if (row.low !== null) {
      const [from, to] = [Math.max(row.low, low), Math.min(row.high, high)];
      group.append(svg("line", { x1: x(from), x2: x(to), y1: y, y2: y, stroke: look.colour, "stroke-width": 2.4 }));
      if (row.low < low) group.append(svg("path", { d: `M${x(low)},${y}l8,-5v10z`, fill: look.colour }));
      if (row.high > high) group.append(svg("path", { d: `M${x(high)},${y}l-8,-5v10z`, fill: look.colour }));
    }
    for (const each of row.each) {
      group.append(svg("line", { x1: x(each), x2: x(each), y1: y - 7, y2: y + 7, stroke: look.colour, class: "seed" }));
    }
    if (row.mean !== null) group.append(symbol(look, 10, `translate(${x(row.mean)} ${y}) `));
    made.append(group);
  });
  return made;
}

function redraw() {
  const [all, metric, how] = [rowsShown(), problem().metrics[metricList.value], rates()];
  const others = all.filter(({ smto }) => smto !== UNIFORM);
  const [place, table] = [explorer.querySelector(".sheet"), explorer.querySelector("table")];
  const total = Object.keys(problem().methods).length - 1;
  const picture = others.length ? drawn(others, Math.max(280, Math.min(960, place.clientWidth - 20))) : "No method is chosen.";
  if (others.length) picture.setAttribute("aria-label", `${metric} on ${problem().label}, each method minus the uniform loss; the table below has the numbers.`);
  place.replaceChildren(picture);
  for (const head of table.tHead.rows[0].cells) head.removeAttribute("aria-sort");
  const heads = [...table.tHead.rows[0].cells].map((head) => head.textContent);
  table.tBodies[0].replaceChildren(
    ...all.map((row) => {
      const cells = row.cells.map((text, i) => element("td", {}, text));
      cells.forEach((cell, i) => i !== 1 && (cell.dataset.head = heads[i]));
      const mark = svg("svg", { viewBox: "-8 -8 16 16", width: 16, height: 16, "aria-hidden": "true" }, symbol(problem().methods[row.smto], 11));
      cells[1].prepend(element("span", { className: "swatch" }, mark));
      return element("tr", {}, ...cells);
    }),
  );
  table.classList.toggle("without-gain", how === "one_rate");
  const { label, seeds, data } = problem();
  explorer.querySelector("[role=status]").textContent =
    `${label}, ${metric}: ${others.length} of ${total} methods, ${seeds} seeds.${data ? ` Data: ${data}.` : ""}`;
  for (const caption of explorer.querySelectorAll("[data-rates]")) caption.hidden = caption.dataset.rates !== how;
}

function offer() {
  // The metrics and the methods of the problem that is chosen; a metric of the same name stays chosen.
  const { metrics, methods } = problem();
  const before = metricList.value;
  metricList.replaceChildren(...Object.entries(metrics).map(([key, name]) => new Option(name, key)));
  metricList.value = before in metrics ? before : "delta_m";
  const boxes = Object.entries(methods).filter(([smto]) => smto !== UNIFORM);
  methodBoxes.replaceChildren(
    ...boxes.map(([smto, look]) => {
      const box = element("input", { type: "checkbox", value: smto, checked: !dropped.has(smto) });
      const mark = svg("svg", { viewBox: "-8 -8 16 16", width: 16, height: 16, "aria-hidden": "true" }, symbol(look, 11));
      return element("label", {}, box, element("span", { className: "swatch" }, mark), look.label);
    }),
  );
  redraw();
}

function chooseAll(event) {
  for (const box of methodBoxes.querySelectorAll("input")) {
    box.checked = event.target.value === "all";
    box.checked ? dropped.delete(box.value) : dropped.add(box.value);
  }
  redraw();
}

problemList.replaceChildren(...explored.map(({ label, problem }) => new Option(label, problem)));
problemList.addEventListener("change", offer);
metricList.addEventListener("change", redraw);
for (const radio of explorer.querySelectorAll("input[name=rates]")) radio.addEventListener("change", redraw);
for (const button of explorer.querySelectorAll(".choice button")) button.addEventListener("click", chooseAll);
methodBoxes.addEventListener("change", ({ target }) => {
  target.checked ? dropped.delete(target.value) : dropped.add(target.value);
  redraw();
});
new ResizeObserver(redraw).observe(explorer.querySelector(".card"));
offer();
