"""A table of what handed-in notebooks say about their exercises.

    python -m mtl_study.publishing.grading handed_in      writes grades.csv, grades.md and nbgrader.csv into artifacts/

Nothing is run. A mark is what `check` printed when the notebook was last run, by whoever handed it in, and printed text
can be edited. So the table names what does not fit: a right mark without an answer, an answer that was run again after
its check, another seed than the one handed out. What it cannot notice is in docs/teaching.md. To be sure, run the
notebook yourself, where code from others may do no harm: nbgrader does. nbgrader.csv has points in the columns of
`nbgrader export`, for what reads those.

    handed_in/<name>/01_mnist_selection.ipynb      or handed_in/01_mnist_selection-<name>.ipynb
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from nbformat import NotebookNode

from mtl_core import files
from mtl_core.names import nearest
from mtl_study import artifacts, commands
from mtl_study.parameters import BadParameters
from mtl_study.publishing import handouts, notebooks
from mtl_study.teaching.marking import RIGHT, UNANSWERED, WRONG, book

MARKS = {RIGHT: "right", WRONG: "wrong", UNANSWERED: "unanswered"}
NOT_RUN, MISSING, UNREADABLE, COPIED = "not run", "missing", "no notebook", "a copy"
COPY = re.compile(r"(-Copy\d+| ?\(\d+\))+$")  # how JupyterLab and browsers end the name of a copy
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
        expected: the exercises that the notebook was handed out with; others are named, and doubtful.
    """
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    found: dict[str, dict[str, str]] = {}
    for i, cell in enumerate(code):
        calls = notebooks.check_calls(cell.source)
        said = _said(cell)
        for name, call in zip(notebooks.checks_in(cell.source), calls, strict=True):
            start, text = said.pop(0) if said else ("", "")
            mark = MARKS.get(start, NOT_RUN)
            doubt = "" if name in expected else "not an exercise of this notebook"
            if mark in (MARKS[RIGHT], MARKS[WRONG]):
                doubt = doubt or _doubt(code, i, call, mark) or _another_seed(notebook, name)
            found[name] = {"exercise": name, "mark": mark, "doubt": doubt, "said": text}
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
    bound = {name: (cell, empty) for cell in code[:check] for name, empty in _bound(_tree(cell.source)) if name in used}
    if mark == "right" and (not bound or any(empty for _, empty in bound.values())):
        return "right, but there is no answer"
    cells = [code[check], *(cell for cell, _ in bound.values())]
    counts = [int(cell.get("execution_count") or 0) for cell in cells]
    if not all(counts):
        return "an output without a run"
    return "the answer was run again after its check" if max(counts) > counts[0] else ""


def _tree(source: str) -> ast.Module:
    """A cell's code, without lines for IPython; empty where it is no Python."""
    try:
        return ast.parse(re.sub(r"^[%!].*", "", source, flags=re.MULTILINE))
    except SyntaxError:
        return ast.Module([], [])


def _bound(node: ast.AST) -> Iterator[tuple[str, bool]]:
    """The names that code binds outside of functions, in order, each with whether to nothing, as it was handed out."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name, False
        case ast.Name(id=name, ctx=ast.Store()):
            yield name, False
        case ast.alias():
            yield node.asname or node.name.split(".")[0], False
        case ast.Assign(targets=targets, value=value):
            yield from _bound(value)
            for target in targets:
                yield from _given(target, value)
        case ast.AnnAssign(target=target, value=ast.expr() as value) | ast.NamedExpr(target=target, value=value):
            yield from _bound(value)
            yield from _given(target, value)
        case ast.AnnAssign() | ast.Lambda() | ast.comprehension():
            pass
        case _:
            for part in ast.iter_child_nodes(node):
                yield from _bound(part)


def _given(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, bool]]:
    """The names of an assignment, each with whether it is given None or `...`."""
    targets, values = getattr(target, "elts", None), getattr(value, "elts", [])
    if targets and len(targets) == len(values):
        for one, its in zip(targets, values, strict=True):
            yield from _given(one, its)
    elif isinstance(target, ast.Name):
        yield target.id, isinstance(value, ast.Constant) and value.value in (None, ...)
    else:
        yield from _bound(target)


def _another_seed(notebook: NotebookNode, exercise: str) -> str:
    """Whether an exercise with numbers was answered with those of another seed than was handed out."""
    told, run = str(handouts.seed_of(notebook)), notebooks.seeds(notebook) or ["0"]
    if set(run) == {told} or exercise not in book() or not book()[exercise].numbers:
        return ""
    return f"the numbers of seed {' and '.join(run)}, handed out with {told}"


def exercises(repository: Path = artifacts.REPOSITORY) -> dict[str, list[str]]:
    """The exercises of each notebook, as it is handed out."""
    return {path.stem: notebooks.checks(notebooks.read(path)) for path in notebooks.find(repository / "notebooks")}


def grade(folder: Path, ours: dict[str, list[str]]) -> pd.DataFrame:
    """All handed-in notebooks of a folder: a row per exercise, with COLUMNS. Of several copies of a notebook, the one
    with the notebook's own name counts; a row names each other one.

    Args:
        ours: the `exercises` of each notebook.

    Raises:
        NothingHandedIn: there is no notebook in it.
    """
    there = {path.relative_to(folder): path for path in sorted(folder.rglob("*.ipynb")) if not path.is_dir()}
    found = {within: path for within, path in there.items() if not any(part.startswith(".") for part in within.parts)}
    if not found:
        raise NothingHandedIn(f"{folder} holds no handed-in notebooks: expected {folder}/<name>/NN_….ipynb.")
    counts: dict[tuple[str, str], Path] = {}
    for within in sorted(found, key=lambda one: (one.stem not in ours, COPY.search(one.stem) is not None, one)):
        counts.setdefault(_whose(within, ours), within)
    rows: list[dict[str, str]] = []
    for within, path in found.items():
        name, stem = _whose(within, ours)
        whose, one = {"name": name, "notebook": stem}, counts[name, stem]
        try:
            if stem not in ours:
                raise BadParameters(f"{path} has the name of none of our notebooks{nearest(stem, ours)}.")
            if one == within:
                rows += [{**whose, **mark} for mark in marks(notebooks.read(path), ours[stem])]
            else:
                said = f"{within} does not count, {one} does."
                rows.append({**whose, "exercise": "", "mark": COPIED, "doubt": "", "said": said})
        except (ValueError, TypeError, AttributeError, OSError) as error:  # what others hand in can be anything
            rows.append({**whose, "exercise": "", "mark": UNREADABLE, "doubt": "", "said": str(error)})
    return pd.DataFrame(rows, columns=COLUMNS)


def _whose(within: Path, ours: dict[str, list[str]]) -> tuple[str, str]:
    """Who handed in a file, and which notebook it is."""
    own = COPY.sub("", within.stem)
    stem = max((stem for stem in ours if own.startswith(stem)), key=len, default="")
    name = within.parts[0] if len(within.parts) > 1 else own.removeprefix(stem).strip("-_ ") or own
    return name, stem or own


def summary(grades: pd.DataFrame) -> pd.DataFrame:
    """A row per name and notebook: how many exercises have which mark, and how many of these marks are doubtful."""
    known = [*MARKS.values(), NOT_RUN, MISSING, UNREADABLE, COPIED]
    counts = pd.crosstab([grades.name, grades.notebook], grades.mark).reindex(columns=known, fill_value=0)
    counts["doubtful"] = grades[grades.doubt != ""].groupby(["name", "notebook"]).size().reindex(counts.index).fillna(0)
    return counts.astype(int).reset_index().rename_axis(columns=None)


def points(grades: pd.DataFrame, ours: dict[str, list[str]]) -> pd.DataFrame:
    """A row per notebook and name, as `nbgrader export` writes it: a point for each right answer without a doubt, of as
    many as the notebook has exercises. What was not handed in has none.

    Args:
        ours: the `exercises` of each notebook.
    """
    right = grades.assign(score=((grades.mark == "right") & (grades.doubt == "")).astype(float))
    scores = right.pivot_table(index="notebook", columns="name", values="score", aggfunc="sum", fill_value=0.0)
    found = scores[scores.index.isin(ours)].stack().rename("score").reset_index()
    found = found.rename(columns={"notebook": "assignment", "name": "student_id"})
    found["raw_score"], found["late_submission_penalty"] = found.score, 0.0
    found["max_score"] = [float(len(set(ours[notebook]))) for notebook in found.assignment]
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
    ours = exercises(repository)
    grades = grade(Path(given.folder).expanduser(), ours)
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
    files.write_atomically(artifacts.root() / "nbgrader.csv", points(grades, ours).to_csv(index=False))
    print(summary(grades).to_string(index=False))
    print(f"Wrote {artifacts.root() / 'grades.csv'}, grades.md and nbgrader.csv")
    return 0


if __name__ == "__main__":
    commands.run(main)
