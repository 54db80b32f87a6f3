"use strict";
// The page of the search: what MiniSearch finds in SECTIONS for the words of the field above, as it is typed.
const SHOWN = 30; // sections at most
const BEFORE = 70, AFTER = 170; // letters of an excerpt, around the first word that was found
const field = document.querySelector("form.search input");
const [count, list] = ["count", "found"].map((id) => document.getElementById(id));
const lower = (text) => text.toLowerCase();

// The words of a text, split where `marked` splits them: "K=2" is two.
const tokens = (text) => text.match(/[\p{L}\p{M}\p{N}]+/gu) ?? [];
const engine = new MiniSearch({ fields: ["heading", "page", "text"], tokenize: tokens });
engine.addAll(SECTIONS.map(([, page, heading, text], id) => ({ id, page, heading, text })));

function marked(text, terms) {
  // The text as nodes, its words that were found in <mark>.
  return text.split(/([\p{L}\p{M}\p{N}]+)/u).map((part) => {
    if (!terms.has(lower(part))) return part;
    const mark = document.createElement("mark");
    mark.textContent = part;
    return mark;
  });
}

function excerpt(text, terms) {
  const words = [...text.matchAll(/[\p{L}\p{M}\p{N}]+/gu)];
  const first = words.find((word) => terms.has(lower(word[0])))?.index ?? 0;
  const start = first <= BEFORE ? 0 : text.indexOf(" ", first - BEFORE) + 1;
  const end = first + AFTER >= text.length ? text.length : text.lastIndexOf(" ", first + AFTER);
  return `${start > 0 ? "… " : ""}${text.slice(start, Math.max(end, first))}${end < text.length ? " …" : ""}`;
}

function entry({ id, terms }) {
  const [address, page, heading, text] = SECTIONS[id];
  const known = new Set(terms);
  const [item, link, where, shown] = ["li", "a", "span", "p"].map((tag) => document.createElement(tag));
  link.href = address;
  link.append(...marked(heading, known));
  where.className = "soft";
  where.append(heading === page ? "" : ` · ${page}`);
  shown.append(...marked(excerpt(text, known), known));
  item.append(link, where, shown);
  return item;
}

function search() {
  const words = field.value.trim();
  const found = words
    ? engine.search(words, {
        combineWith: "AND",
        prefix: true,
        fuzzy: (term) => (term.length > 4 ? 0.2 : false),
        boost: { heading: 3, page: 2 },
      })
    : [];
  list.replaceChildren(...found.slice(0, SHOWN).map(entry));
  const [all, few] = [`${found.length} section${found.length === 1 ? "" : "s"}`, `, the first ${SHOWN} are shown`];
  count.textContent = !words ? "" : found.length ? `${all}${found.length > SHOWN ? few : ""}.` : `No section has all of: ${words}.`;
}

function move(event) {
  if (event.key === "/" && event.target !== field) {
    field.focus();
    event.preventDefault();
  }
  const way = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const links = [...list.querySelectorAll("a")];
  const at = links.indexOf(document.activeElement);
  if (!way || (at < 0 && document.activeElement !== field)) return;
  (at + way < 0 ? field : links[Math.min(at + way, links.length - 1)])?.focus();
  event.preventDefault();
}

field.addEventListener("input", () => {
  const query = new URLSearchParams({ q: field.value });
  history.replaceState(null, "", field.value ? `?${query}` : location.pathname);
  search();
});
field.form.addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("keydown", move);
field.value = new URLSearchParams(location.search).get("q") ?? "";
field.focus();
search();
