// Two gradients whose tips can be moved, and what every method makes of them.
import { choice, element, labelled, methodBox, set, short, stroke, tip } from "./elements.js";
import { dot, gains, minNorm, solve } from "./weights.js";

const REACH = 2.7; // of the drawing, to each side
const STEP = 1.6; // length of all steps where they are drawn equally long
const NAMES = ["−g₁", "−g₂"];

const combined = (w, vectors) => [0, 1].map((i) => w[0] * vectors[0][i] + w[1] * vectors[1][i]);
const length = (v) => Math.hypot(...v);

/** What a method makes of two gradients: its weights, its update, and what holds of it. */
export function verdict(key, gradients, losses) {
  const G = gradients.map((g) => gradients.map((h) => dot(g, h)));
  const weights = solve(key, G, losses);
  const update = combined(weights, gradients);
  const [longest, size] = [Math.max(...gradients.map(length)), length(update)];
  const shortest = longest > 0 ? combined(minNorm(G), gradients) : [0, 0];
  const stands = size <= 1e-9 * longest;
  const rises = gains(G, weights).map((gain, k) => !stands && gain < -1e-9 * size * length(gradients[k]));
  const least = length(shortest);
  const along = least > 1e-9 * longest && dot(update, shortest) >= (1 - 1e-9) * size * least;
  return { weights, update, stands, rises, inCone: weights.every((w) => w >= -1e-12), shortest: stands ? least <= 1e-9 * longest : along };
}

/** Draw the playground into a box. */
export function playground(box, setup) {
  const gradients = setup.gradients.map((g) => [...g]);
  const losses = [...setup.losses];
  const shown = new Set(setup.shown);
  let equal = true;

  // the drawing: y points up, and arrows show −g
  const plane = element("svg", { viewBox: [-REACH, -REACH, 2 * REACH, 2 * REACH].join(" "), class: "plane", role: "group" });
  plane.setAttribute("aria-label", "Two gradients, downhill, and the steps of the methods");
  const good = element("polygon", { class: "good" });
  const hull = element("line", { class: "hull" });
  const nearest = element("path", { class: "nearest", d: "M0 -0.09 0.09 0 0 0.09 -0.09 0Z" });
  const tasks = NAMES.map(() => arrow("currentColor", [], "task"));
  const names = NAMES.map((name) => element("text", { "aria-hidden": "true" }, name));
  const steps = new Map(setup.methods.map(({ key, colour, dash }) => [key, arrow(colour, dash, "step")]));
  const tips = NAMES.map((name, k) =>
    tip(plane, REACH, `Tip of ${name}`, () => gradients[k].map((x) => -x), (at) => {
      gradients[k] = at.map((x) => -x);
      draw();
    }),
  );
  plane.append(good, hull, ...tasks, ...steps.values(), nearest, ...names, ...tips.map(({ made }) => made));

  // the table: a row per method
  const rows = new Map();
  const body = element("tbody");
  for (const method of setup.methods) {
    const cells = Array.from({ length: 5 }, () => element("td"));
    const named = methodBox(method, shown.has(method.key), (on) => {
      if (on) shown.add(method.key);
      else shown.delete(method.key);
      draw();
    });
    rows.set(method.key, cells);
    body.append(element("tr", { "data-key": method.key }, element("th", { scope: "row" }, named), ...cells));
  }
  const heads = ["method", "w₁", "w₂", "losses", "in the cone", "on ◆"];
  const head = element("thead", {}, element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text))));
  const table = element("table", {}, head, body);

  const said = element("p", { role: "status", class: "said" });
  const fields = losses.map((_, k) => {
    const value = element("output", {}, short(losses[k]));
    const range = { type: "range", min: -4, max: 4, step: 0.25, value: Math.log2(losses[k]) };
    const field = element("input", {
      ...range,
      oninput: () => {
        losses[k] = 2 ** Number(field.value);
        value.textContent = short(losses[k]);
        draw();
      },
    });
    return labelled(`loss ${"L₁ L₂".split(" ")[k]}`, field, value);
  });
  const lengths = choice([[true, "equally long"], [false, "as long as they are"]], equal, (value) => {
    equal = value;
    draw();
  });
  const again = element("button", {
    type: "button",
    onclick: () => {
      setup.gradients.forEach((g, k) => (gradients[k] = [...g]));
      draw();
    },
  }, "back to the start");
  const hint = element("p", { class: "hint" }, "Drag the two tips; or focus one with Tab and press the arrow keys (Shift: ten times as far). Shaded: steps that raise no loss. Dashed: all mixtures of the two; ◆ is the shortest. In the cone: between −g₁ and −g₂. On ◆: in its direction.");
  const out = setup.left_out.map(({ label, reason }) => element("li", {}, element("b", {}, label), ` ${reason}`));
  const others = element("details", {}, element("summary", {}, `${out.length} methods are not here`), element("ul", {}, ...out));
  const left = element("div", { class: "left" }, plane, said, element("div", { class: "fields" }, ...fields, labelled("steps are", lengths), again), hint);
  box.append(left, element("div", { class: "right" }, table, others));

  function draw() {
    const downhill = gradients.map((g) => g.map((x) => -x));
    const sizes = downhill.map(length);
    downhill.forEach((v, k) => {
      point(tasks[k], v);
      const beyond = v.map((x) => x * (1 + 0.36 / Math.max(sizes[k], 0.12)));
      set(names[k], { x: beyond[0], y: -beyond[1] });
    });
    set(hull, { x1: downhill[0][0], y1: -downhill[0][1], x2: downhill[1][0], y2: -downhill[1][1] });
    set(good, { points: harmless(downhill).map(([x, y]) => `${x},${-y}`).join(" ") });
    const G = gradients.map((g) => gradients.map((h) => dot(g, h)));
    const least = sizes[0] + sizes[1] > 0 ? combined(minNorm(G), downhill) : [0, 0];
    set(nearest, { transform: `translate(${least[0]} ${-least[1]})` });
    let falling = 0;
    for (const { key } of setup.methods) {
      const { weights, update, stands, rises, inCone, shortest } = verdict(key, gradients, losses);
      const bad = rises.flatMap((raised, k) => (raised ? [`L${"₁₂"[k]}`] : []));
      const words = stands ? "no step" : bad.length ? `${bad.join(", ")} rises` : "none rises";
      if (!stands && !bad.length) falling++;
      const texts = [...weights.map(short), words, inCone ? "yes" : "no", shortest ? "yes" : "no"];
      rows.get(key).forEach((cell, i) => (cell.textContent = texts[i]));
      rows.get(key)[2].className = bad.length ? "bad" : "";
      const scale = stands ? 0 : equal ? -STEP / length(update) : -1;
      point(steps.get(key), update.map((x) => scale * x));
      steps.get(key).style.display = shown.has(key) ? "" : "none";
    }
    tips.forEach((one) => one.draw());
    const cosine = dot(...downhill) / (sizes[0] * sizes[1]);
    const angle = Math.round((180 / Math.PI) * Math.acos(Math.min(Math.max(cosine, -1), 1)));
    const where = sizes[0] * sizes[1] > 0 ? `${angle}°, lengths ${short(sizes[0])} and ${short(sizes[1])}` : "one task has no gradient";
    said.textContent = `${where}. ${falling} of ${setup.methods.length} methods take a step that raises no loss.`;
  }

  draw();
}

/** An arrow from the middle. */
function arrow(colour, dash, kind) {
  const style = stroke(colour, dash);
  const shaft = element("line", { x1: 0, y1: 0, "vector-effect": "non-scaling-stroke", ...style });
  return element("g", { class: kind, fill: style.stroke }, shaft, element("path", { d: "M0 0 -0.2 0.075 -0.2 -0.075Z" }));
}

function point(drawn, [x, y]) {
  const [shaft, head] = drawn.children;
  const size = Math.hypot(x, y);
  const short = size > 0 ? Math.max(1 - 0.12 / size, 0) : 0;
  set(shaft, { x2: short * x, y2: -short * y });
  set(head, { transform: `translate(${x} ${-y}) rotate(${(-180 / Math.PI) * Math.atan2(y, x)})` });
  head.style.display = size > 0.02 ? "" : "none";
}

/** Corners of the region of steps that raise no loss; of a task without gradient any step does. */
function harmless(downhill) {
  const turns = downhill.filter((v) => length(v) > 0).map(([x, y]) => Math.atan2(y, x));
  if (!turns.length) return [];
  const apart = turns.length === 2 ? Math.atan2(Math.sin(turns[1] - turns[0]), Math.cos(turns[1] - turns[0])) : 0;
  const [middle, half] = [turns[0] + apart / 2, (Math.PI - Math.abs(apart)) / 2];
  const far = (turn) => [20 * Math.cos(turn), 20 * Math.sin(turn)];
  return [[0, 0], far(middle - half), far(middle), far(middle + half)];
}
