// The entry of the module: JupyterLab calls `render`, through anywidget; a page without a kernel calls `start`.
import { element } from "./elements.js";
import { player } from "./player.js";
import { playground } from "./playground.js";

const KINDS = { playground, player };

export function show(kind, setup, place) {
  const box = element("div", { class: "mtl-live", "data-lm-suppress-shortcuts": "true" }); // keys are for the tips
  place.append(box);
  KINDS[kind](box, setup);
}

export default { render: ({ model, el }) => show(model.get("kind"), model.get("setup"), el) };

/** Put what is live in place of its pictures. */
export function start(page) {
  for (const place of page.querySelectorAll("[data-live]")) {
    const { kind, setup } = JSON.parse(place.dataset.live);
    show(kind, setup, place);
    place.classList.add("is-live");
  }
}
