// Walks of several methods over the landscape, to be played, stopped and taken step by step.
import { choice, element, labelled, methodBox, set, short, stroke, tip } from "./elements.js";
import { contours, parts, Walk } from "./landscape.js";

const EXTENT = 11;
const PIXELS = 900;
const WAYS = { adam: "Adam", gd: "gradient descent" };

/** Draw the player into a box. */
export function player(box, setup) {
  const state = { optimizer: setup.optimizer, rate: setup.rate, weight: setup.weight, start: [...setup.start] };
  const shown = new Set(setup.shown);
  let walks = [];
  let taken = 0;
  let running = false;

  const ground = element("canvas", { width: PIXELS, height: PIXELS, "aria-hidden": "true" });
  const plane = element("svg", { viewBox: [-EXTENT, -EXTENT, 2 * EXTENT, 2 * EXTENT].join(" "), class: "plane", role: "group" });
  plane.setAttribute("aria-label", "The landscape from above, with the walks");
  const goal = element("path", { class: "goal", d: star(0.55) });
  const lines = new Map();
  for (const { key, colour, dash } of setup.methods) {
    const style = { ...stroke(colour, dash), fill: "none", "vector-effect": "non-scaling-stroke" };
    lines.set(key, [element("polyline", style), element("circle", { r: 0.24, fill: style.stroke })]);
  }
  const start = tip(plane, EXTENT, "Start of the walks", () => state.start, (at) => {
    named.selectedIndex = -1; // a start that is in no list
    change({ start: at });
  });
  const ticks = [-8, -4, 0, 4, 8].flatMap((at) => {
    const text = String(at).replace("-", "−");
    return [element("text", { x: at, y: EXTENT - 0.5 }, text), element("text", { x: 0.8 - EXTENT, y: -at }, text)];
  });
  ticks.forEach((tick) => set(tick, { class: "tick", "aria-hidden": "true" }));
  plane.append(...ticks, goal, ...[...lines.values()].flat(), start.made);

  const play = element("button", { type: "button", onclick: () => run(!running) }, "play");
  const once = element("button", { type: "button", onclick: () => { run(false); advance(1); draw(); } }, "one step");
  const again = element("button", { type: "button", onclick: () => change({}) }, "back to the start");
  const starts = setup.starts.map((at) => [at, `(${at.map(short).join(", ")})`]);
  const named = choice(starts, starts[0][0], (at) => change({ start: [...at] }));
  const fields = [
    labelled("start", named),
    labelled("optimizer", choice(Object.entries(WAYS), state.optimizer, (optimizer) => change({ optimizer }))),
    labelled("step size", choice(setup.rates.map((x) => [x, String(x)]), state.rate, (rate) => change({ rate }))),
    labelled("weight of L₁", choice(setup.goals.map(([x]) => [x, String(x)]), state.weight, (weight) => change({ weight }))),
  ];

  const rows = new Map();
  const body = element("tbody");
  for (const method of setup.methods) {
    const cells = [element("td"), element("td")];
    const toggle = methodBox(method, shown.has(method.key), (on) => {
      if (on) shown.add(method.key);
      else shown.delete(method.key);
      change({});
    });
    rows.set(method.key, cells);
    body.append(element("tr", { "data-key": method.key }, element("th", { scope: "row" }, toggle), ...cells));
  }
  const heads = ["method", "loss", "where it is"].map((text) => element("th", { scope: "col" }, text));
  const table = element("table", {}, element("thead", {}, element("tr", {}, ...heads)), body);
  const said = element("p", { role: "status", class: "said" });
  const hint = element("p", { class: "hint" }, `Drag the start; or focus it with Tab and press the arrow keys. Across: x₁, up: x₂. Star: the optimum of the weighted sum; grey: lines on which that sum is equal. Play goes faster the longer it lasts, up to ${setup.steps.toLocaleString("en")} steps.`);
  const left = element("div", { class: "left" }, element("div", { class: "stage" }, ground, plane), said, hint);
  const controls = element("div", { class: "fields" }, play, once, again, ...fields);
  box.append(left, element("div", { class: "right" }, controls, table));

  function change(given) {
    run(false);
    const ground = given.weight !== undefined;
    Object.assign(state, given);
    const factors = [state.weight, 1 - state.weight];
    const [, at] = setup.goals.find(([weight]) => weight === state.weight);
    walks = [...shown].map((key) => ({ walk: new Walk({ key, ...state, factors, goal: at }), path: [[...state.start]] }));
    taken = 0;
    set(goal, { transform: `translate(${at[0]} ${-at[1]})` });
    if (ground) paint(factors);
    draw();
  }

  function run(on) {
    running = on;
    play.textContent = on ? "pause" : "play";
    if (on) requestAnimationFrame(frame);
  }

  function frame() {
    if (!running || !box.isConnected) return;
    advance(1 + Math.floor(taken / 60));
    draw();
    if (taken >= setup.steps || walks.every(({ walk }) => walk.arrived)) run(false);
    else requestAnimationFrame(frame);
  }

  function advance(steps) {
    const more = Math.min(steps, setup.steps - taken);
    for (const { walk, path } of walks) {
      for (let n = 0; n < more; n++) walk.step();
      path.push([...walk.at]);
    }
    taken += more;
  }

  function draw() {
    const found = new Map(walks.map((one) => [one.walk.key, one]));
    for (const [key, [line, end]] of lines) {
      const one = found.get(key);
      line.style.display = end.style.display = one ? "" : "none";
      const cells = rows.get(key);
      cells.forEach((cell) => (cell.textContent = "–"));
      if (!one) continue;
      const { walk, path } = one;
      set(line, { points: path.map(([x, y]) => `${x.toFixed(3)},${(-y).toFixed(3)}`).join(" ") });
      set(end, { cx: walk.at[0], cy: -walk.at[1] });
      cells[0].textContent = short(walk.loss);
      cells[1].textContent = walk.arrived ? `arrived after ${walk.steps.toLocaleString("en")} steps` : `(${walk.at.map(short).join(", ")})`;
    }
    start.draw();
    said.textContent = `Step ${taken.toLocaleString("en")}. ${walks.filter(({ walk }) => walk.arrived).length} of ${walks.length} have arrived.`;
  }

  function paint(factors) {
    const pen = ground.getContext("2d");
    const place = (x) => ((x + EXTENT) / (2 * EXTENT)) * PIXELS;
    pen.clearRect(0, 0, PIXELS, PIXELS);
    pen.strokeStyle = "#8a8a8a";
    pen.lineWidth = 2; // of 900, also seen on a phone
    pen.beginPath();
    const height = (at) => {
      const { losses } = parts(at);
      return factors[0] * losses[0] + factors[1] * losses[1];
    };
    for (const [x, y, X, Y] of contours(height, EXTENT, 120, 24)) {
      pen.moveTo(place(x), PIXELS - place(y));
      pen.lineTo(place(X), PIXELS - place(Y));
    }
    pen.stroke();
  }

  change({ weight: state.weight });
}

function star(size) {
  const corner = (n) => {
    const [turn, far] = [(Math.PI * n) / 5, n % 2 ? 0.42 * size : size];
    return `${far * Math.sin(turn)} ${-far * Math.cos(turn)}`;
  };
  return `M${Array.from({ length: 10 }, (_, n) => corner(n)).join(" ")}Z`;
}
