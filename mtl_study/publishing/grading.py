"""A table of what handed-in notebooks say about their exercises.

    python -m mtl_study.publishing.grading handed_in      writes grades.csv, grades.md and nbgrader.csv into artifacts/

Nothing is run. A mark is what `check` printed when the notebook was last run, by whoever handed it in, and printed text
can be edited. So the table names what does not fit: an answer that was changed after its check, a right mark without an
answer. To be sure, run the notebook yourself, where code from others may do no harm: nbgrader does (docs/teaching.md).
nbgrader.csv has points in the columns of `nbgrader export`, for what reads those.

    handed_in/<name>/01_mnist_selection.ipynb      or handed_in/01_mnist_selection-<name>.ipynb
"""

from __future__ import annotations

import argparse
import ast
from pathlib import Path

import pandas as pd
from nbformat import NotebookNode

from mtl_core import files
from mtl_study import artifacts, cells, commands
from mtl_study.parameters import BadParameters
from mtl_study.publishing import notebooks
from mtl_study.teaching.marking import RIGHT, UNANSWERED, WRONG

MARKS = {RIGHT: "right", WRONG: "wrong", UNANSWERED: "unanswered"}
NOT_RUN, MISSING, UNREADABLE = "not run", "missing", "no notebook"
EXPORTED = [
    *("assignment", "duedate", "timestamp", "student_id", "last_name", "first_name", "email"),
    *("raw_score", "late_submission_penalty", "score", "max_score"),
]
COLUMNS = ["name", "notebook", "exercise", "mark", "doubt", "said"]


class NothingHandedIn(ValueError):
    """A folder without notebooks."""


def marks(notebook: NotebookNode, expected: list[str]) -> list[dict[str, str]]:
    """A row per exercise: its mark, what makes it doubtful, and what was said.

    Args:
        expected: the exercises that the notebook was handed out with.
    """
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    found: dict[str, dict[str, str]] = {}
    for i, cell in enumerate(code):
        calls = notebooks.check_calls(cell.source)
        said = _said(cell)
        for name, call in zip(notebooks.checks_in(cell.source), calls, strict=True):
            start, text = said.pop(0) if said else ("", "")
            mark = MARKS.get(start, NOT_RUN)
            found[name] = {"exercise": name, "mark": mark, "doubt": _doubt(code, i, call, mark), "said": text}
    for name in expected:
        found.setdefault(name, {"exercise": name, "mark": MISSING, "doubt": "", "said": ""})
    return [found[name] for name in dict.fromkeys([*expected, *found])]


def _said(cell: NotebookNode) -> list[tuple[str, str]]:
    """What each check of a cell printed: how it begins, and all of it in one line."""
    text = "".join(str(output.text) for output in cell.get("outputs", []) if output.output_type == "stream")
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        start = next((start for start in MARKS if line.startswith(start)), None)
        if start:
            found.append((start, line))
        elif found and line.startswith("  "):
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
    return found


def _doubt(code: list[NotebookNode], check: int, call: ast.Call, mark: str) -> str:
    """What does not fit between a check and its answer."""
    used = {node.id for node in ast.walk(call.args[1]) if isinstance(node, ast.Name)}
    binding = [cell for cell in code[:check] if used & cells.names(cell.source).binds]
    if not binding or mark not in ("right", "wrong"):
        return ""
    answer, checked = binding[-1], code[check].get("execution_count")
    if mark == "right" and _empty(answer.source, used):
        return "right, but there is no answer"
    if checked is None or answer.get("execution_count") is None:
        return "an output without a run"
    return "the answer was run again after its check" if answer.execution_count > checked else ""


def _empty(source: str, names: set[str]) -> bool:
    """Whether a cell gives all of these names that it binds the value None, as it was handed out."""
    given = [
        (target, node.value)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign)
        for target in _names(node.targets[0])
        if target in names
    ]
    return bool(given) and all(
        all(isinstance(part, ast.Constant) and part.value is None for part in getattr(value, "elts", [value]))
        for _, value in given
    )


def _names(target: ast.expr) -> list[str]:
    return [node.id for node in ast.walk(target) if isinstance(node, ast.Name)]


def grade(folder: Path, repository: Path = artifacts.REPOSITORY) -> pd.DataFrame:
    """All handed-in notebooks of a folder: a row per exercise, with COLUMNS.

    Raises:
        NothingHandedIn: there is no notebook in it.
    """
    ours = {path.stem: notebooks.checks(notebooks.read(path)) for path in notebooks.find(repository / "notebooks")}
    rows: list[dict[str, str]] = []
    for path in sorted(folder.rglob("*.ipynb")):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        stem = max((stem for stem in ours if path.stem.startswith(stem)), key=len, default="")
        within = path.relative_to(folder).parts[:-1]
        name = within[0] if within else path.stem.removeprefix(stem).strip("-_ ") or path.stem
        whose = {"name": name, "notebook": stem or path.stem}
        try:
            rows += [{**whose, **mark} for mark in marks(notebooks.read(path), ours.get(stem, []))]
        except (BadParameters, SyntaxError) as error:
            rows.append({**whose, "exercise": "", "mark": UNREADABLE, "doubt": "", "said": str(error)})
    if not rows:
        raise NothingHandedIn(f"{folder} holds no handed-in notebooks: expected {folder}/<name>/NN_….ipynb.")
    return pd.DataFrame(rows, columns=COLUMNS)


def summary(grades: pd.DataFrame) -> pd.DataFrame:
    """A row per name and notebook: how many exercises have which mark, and how many of these marks are doubtful."""
    known = [*MARKS.values(), NOT_RUN, MISSING, UNREADABLE]
    counts = pd.crosstab([grades.name, grades.notebook], grades.mark).reindex(columns=known, fill_value=0)
    counts["doubtful"] = grades[grades.doubt != ""].groupby(["name", "notebook"]).size().reindex(counts.index).fillna(0)
    return counts.astype(int).reset_index().rename_axis(columns=None)


def points(grades: pd.DataFrame) -> pd.DataFrame:
    """A row per notebook and name, as `nbgrader export` writes it: a point for each right answer without a doubt. What
    was not handed in has none."""
    right = grades.assign(score=((grades.mark == "right") & (grades.doubt == "")).astype(float))
    scores = right.pivot_table(index="notebook", columns="name", values="score", aggfunc="sum", fill_value=0.0)
    most = grades[grades.exercise != ""].groupby("notebook").exercise.nunique().astype(float)
    found = scores.stack().rename("score").reset_index()
    found = found.rename(columns={"notebook": "assignment", "name": "student_id"})
    found["raw_score"], found["late_submission_penalty"] = found.score, 0.0
    found["max_score"] = found.assignment.map(most).fillna(0.0)
    return found.reindex(columns=EXPORTED)


@commands.ends((NothingHandedIn,))
def main(arguments: list[str] | None = None, repository: Path = artifacts.REPOSITORY) -> int:
    """The command. Returns the exit code: 0; 1 where the tables cannot be written; 2 without notebooks."""
    parser = argparse.ArgumentParser(
        prog="python -m mtl_study.publishing.grading", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("folder", help="with the handed-in notebooks")
    given = parser.parse_args(arguments)
    if not given.folder:
        parser.error("which folder? make grade FOLDER=handed_in, with handed_in/<name>/NN_….ipynb")
    grades = grade(Path(given.folder).expanduser(), repository)
    page = "\n".join([
        "# Grades",
        "",
        "What the checks printed when each notebook was last run by its author; nothing was run here.",
        "",
        artifacts.to_markdown(summary(grades)),
        artifacts.to_markdown(grades),
    ])  # fmt: skip
    files.write_atomically(artifacts.root() / "grades.csv", grades.to_csv(index=False))
    files.write_atomically(artifacts.root() / "grades.md", page)
    files.write_atomically(artifacts.root() / "nbgrader.csv", points(grades).to_csv(index=False))
    print(summary(grades).to_string(index=False))
    print(f"Wrote {artifacts.root() / 'grades.csv'}, grades.md and nbgrader.csv")
    return 0


if __name__ == "__main__":
    commands.run(main)
