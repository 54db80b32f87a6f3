// Parts of pages: elements, drawings in the plane, and tips that mouse, finger and keys move.

const SVG = "http://www.w3.org/2000/svg";
const DRAWN = new Set(["svg", "g", "line", "path", "polygon", "polyline", "circle", "text"]);

/** An element with attributes and children; of functions, "onclick", it gets listeners. */
export function element(tag, attributes = {}, ...children) {
  const made = DRAWN.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else if (typeof value === "boolean") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export function set(drawn, attributes) {
  for (const [name, value] of Object.entries(attributes)) drawn.setAttribute(name, value);
}

/** Two decimals, three digits above 10, a true minus. */
export function short(x) {
  const text = Math.abs(x) < 9.995 ? x.toFixed(2) : String(Number(x.toPrecision(3)));
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
}

/** A field with its name. */
export function labelled(text, field, ...more) {
  return element("label", {}, element("span", {}, text), field, ...more);
}

/** A list of choices, [value, text] each. */
export function choice(entries, chosen, changed) {
  const list = element("select", { onchange: () => changed(entries[list.selectedIndex][0]) });
  list.append(...entries.map(([value, text]) => element("option", { selected: value === chosen }, text)));
  return list;
}

/** The name of a method with its line and a box that says whether it is drawn. */
export function methodBox({ label, colour, dash }, shown, changed) {
  const line = { x1: 1, x2: 27, y1: 5, y2: 5, ...stroke(colour, dash) };
  const swatch = element("svg", { viewBox: "0 0 28 10", "aria-hidden": "true", class: "swatch" }, element("line", line));
  const box = element("input", { type: "checkbox", checked: shown, onchange: () => changed(box.checked) });
  return element("label", {}, box, swatch, label);
}

/** How a method is drawn, as in every figure; the black of the uniform loss is the color of the text. */
export function stroke(colour, dash) {
  const drawn = colour === "#000000" ? "currentColor" : colour;
  return { stroke: drawn, "stroke-width": 2.4, "stroke-dasharray": dash.map((x) => 2.4 * x).join(" ") };
}

/** A point of a drawing whose y points up, moved by mouse, finger and arrow keys (with Shift ten times as far).
 *
 * plane: the svg; reach: its half width. name: what it is. get: the point; moved: is told of a new one. */
export function tip(plane, reach, name, get, moved) {
  const made = element("g", { class: "tip", role: "slider", tabindex: 0, "aria-label": name });
  made.append(element("circle", { class: "hit", r: 0.11 * reach }), element("circle", { class: "dot", r: 0.035 * reach }));
  const within = (x) => Math.min(Math.max(x, -0.98 * reach), 0.98 * reach);
  const go = (x, y) => moved([within(x), within(y)]);
  const follow = (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(plane.getScreenCTM().inverse());
    go(at.x, -at.y);
  };
  made.addEventListener("pointerdown", (event) => {
    made.setPointerCapture(event.pointerId);
    made.focus();
    event.preventDefault();
  });
  made.addEventListener("pointermove", (event) => made.hasPointerCapture(event.pointerId) && follow(event));
  made.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!way) return;
    event.preventDefault();
    event.stopPropagation();
    const [[x, y], far] = [get(), (event.shiftKey ? 0.2 : 0.02) * reach];
    go(x + far * way[0], y + far * way[1]);
  });
  const draw = () => {
    const [x, y] = get();
    set(made, { transform: `translate(${x} ${-y})`, "aria-valuetext": `across ${short(x)}, up ${short(y)}` });
    set(made, { "aria-valuemin": -180, "aria-valuemax": 180, "aria-valuenow": Math.round((180 / Math.PI) * Math.atan2(y, x)) });
  };
  return { made, draw };
}
