"use strict";
// Marks the answers to the questions, and keeps them in this browser: { before: { id: choice }, after: { id: choice } }.
{
  const KEY = "mtl-questions";
  const form = document.getElementById("questions");
  const result = document.getElementById("result");
  const questions = [...form.querySelectorAll(".question")];
  const idOf = (question) => question.id.replace("question-", "");
  let kept = { before: {}, after: {} };

  try {
    const found = JSON.parse(localStorage.getItem(KEY));
    if (found) kept = { before: found.before ?? {}, after: found.after ?? {} };
    localStorage.setItem(KEY, JSON.stringify(kept));
  } catch {
    document.getElementById("storage").hidden = false;
  }

  function keep() {
    try {
      localStorage.setItem(KEY, JSON.stringify(kept));
    } catch {
      document.getElementById("storage").hidden = false;
    }
  }

  const right = (question, when) => kept[when][idOf(question)] === question.dataset.right;
  const answered = (when) => Object.keys(kept[when]).length > 0;
  const count = (when) => questions.filter((question) => right(question, when)).length;

  function hide() {
    for (const shown of form.querySelectorAll(".hint, .links")) shown.hidden = true;
    result.replaceChildren();
  }

  // The answers that were given at this time, where there are any.
  function fill(when) {
    hide();
    for (const question of questions)
      for (const input of question.querySelectorAll("input")) input.checked = kept[when][idOf(question)] === input.value;
  }

  function explain() {
    for (const question of questions) {
      const input = question.querySelector("input:checked");
      if (!input) continue;
      const hint = input.closest("label").nextElementSibling;
      hint.className = input.value === question.dataset.right ? "hint yes" : "hint no";
      hint.hidden = false;
      question.querySelector(".links").hidden = false;
    }
  }

  function say(when) {
    const given = Object.keys(kept[when]).length;
    const line = document.createElement("p");
    line.textContent = `${when === "before" ? "Before" : "After"}: ${count(when)} of ${questions.length} right, ` +
      `${questions.length - given} without an answer.`;
    result.replaceChildren(line);
    if (!answered("before") || when === "before") return;
    const table = document.createElement("table");
    table.createTHead().innerHTML = "<tr><th>question</th><th>before</th><th>after</th></tr>";
    const rows = table.createTBody();
    for (const [number, question] of questions.entries()) {
      const row = rows.insertRow();
      const marks = ["before", "after"].map((at) =>
        right(question, at) ? "✓ right" : idOf(question) in kept[at] ? "✗ wrong" : "○ no answer");
      for (const text of [String(number + 1), ...marks]) row.insertCell().textContent = text;
    }
    const all = rows.insertRow();
    for (const text of ["right", count("before"), count("after")]) all.insertCell().textContent = text;
    result.append(table);
  }

  form.addEventListener("change", (event) => {
    if (event.target.name === "when") fill(event.target.value);
    else hide();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const when = form.elements.when.value;
    kept[when] = Object.fromEntries(questions.flatMap((question) => {
      const input = question.querySelector("input:checked");
      return input ? [[idOf(question), input.value]] : [];
    }));
    keep();
    hide();
    if (when === "after") explain();
    say(when);
    result.focus();
  });
  document.getElementById("forget").addEventListener("click", () => {
    kept = { before: {}, after: {} };
    keep();
    fill(form.elements.when.value);
    result.textContent = "All answers are forgotten.";
  });
  fill("before");
}
