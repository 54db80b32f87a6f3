"""The notebooks that are handed out in a course.

    python -m mtl_study.publishing.handouts                   the student's, into artifacts/student/
    python -m mtl_study.publishing.handouts --seed 7          likewise; exercises with numbers have other ones
    python -m mtl_study.publishing.handouts --instructor      the instructor's, into artifacts/instructor/

A student's notebook holds no solution, and says by itself which numbers its exercises have. What a student trains goes
into a store in the student's folder; the shipped records and the docs are read through links there, since JupyterLab
shows nothing outside the folder that it was started in. A folder with answers in it is never overwritten. Each check
has a cell of its own, with the metadata by which nbgrader gives it a point: docs/teaching.md.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import itertools
import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from mtl_core import files
from mtl_study import artifacts, commands
from mtl_study.publishing import notebooks
from mtl_study.words import counted

OURS = "mtl_study"  # our part of a notebook's metadata
NBGRADER = "nbgrader"  # its part of a cell's
SHIPPED = "results"
DOCS = "docs"


class Answered(ValueError):
    """A folder holds notebooks that somebody has worked in."""


def student(notebook: NotebookNode) -> NotebookNode:
    """The notebook that a student gets."""
    found = copy.deepcopy(notebooks.without_solutions(notebook))
    found.cells = [part for cell in found.cells for part in _parts(cell)]
    return found


def _parts(cell: NotebookNode) -> list[NotebookNode]:
    """A cell, cut before and after each check. nbgrader gives a point to a cell of its own that ends without an error
    and without a progress bar."""
    if cell.cell_type != "code" or not notebooks.checks_in(cell.source):
        return [cell]
    lines, cut = cell.source.split("\n"), [0]
    parts: list[NotebookNode] = []
    calls = {node.lineno: ast.unparse(node) for node in notebooks.check_calls(cell.source)}
    for statement in ast.parse(cell.source).body:
        if isinstance(statement, ast.Expr) and calls.get(statement.lineno) == ast.unparse(statement):
            cut += [statement.lineno - 1, statement.end_lineno or statement.lineno]
    for start, end in itertools.pairwise([*cut, len(lines)]):
        if source := "\n".join(lines[start:end]).strip("\n"):
            part = copy.deepcopy(cell)
            part.source, part.id = source, f"{cell.id}-{len(parts) + 1}" if parts else cell.id
            if start in cut[1::2]:
                part.metadata[NBGRADER] = graded(*notebooks.checks_in(source))
            parts.append(part)
    return parts


def graded(exercise: str) -> dict[str, Any]:
    """What nbgrader wants to know of the cell that checks an exercise: version 3 of its schema."""
    roles = {"grade": True, "locked": True, "solution": False, "task": False}
    return {"schema_version": 3, "grade_id": exercise, "points": 1, **roles}


def instructor(notebook: NotebookNode) -> NotebookNode:
    """The notebook that an instructor gets: with minutes below the title, and a heading above each solution."""
    found, cells = copy.deepcopy(notebook), []
    for cell in found.cells:
        if notebooks.tagged(cell, "solution"):
            cells.append(new_markdown_cell("**Solution**", id=f"{cell.id}-head"))
        cells.append(cell)
    cells.insert(1, new_markdown_cell(timing(notebook), id="instructor-minutes"))
    found.cells = cells
    return found


def timing(notebook: NotebookNode) -> str:
    """The minutes of a notebook's sections, as a Markdown table."""
    sections: dict[str, list[NotebookNode]] = {}
    heading = "(before the first section)"
    for cell in notebook.cells:
        found = re.findall(r"^## (.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else []
        heading = found[-1] if found else heading
        sections.setdefault(heading, []).append(cell)
    rows = [f"| {name} | {notebooks.minutes(NotebookNode(cells=cells)):.0f} |" for name, cells in sections.items()]
    checked = counted(len(set(notebooks.checks(notebook))), "checked answer")
    whole = f"**For the instructor.** {notebooks.minutes(notebook):.0f} minutes to read, {checked}."
    return "\n".join([whole, "", "| section | minutes |", "| :--- | ---: |", *rows])


def handed_out(notebook: NotebookNode, store: str, seed: int) -> NotebookNode:
    """A copy at home in another folder: it trains into this store, its links lead to the docs that are there, its
    exercises have the numbers of this seed, and it says what its cells were, so that answers can be told."""
    for cell in notebook.cells:
        if notebooks.tagged(cell, "parameters"):
            cell.source = re.sub(rf'^(store: str = )"{SHIPPED}"', rf"\1{json.dumps(store)}", cell.source, flags=re.M)
        elif cell.cell_type == "markdown":
            cell.source = cell.source.replace("](../docs/", f"]({DOCS}/")
    if seed:
        first = next(i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code")
        code = f"from mtl_study.teaching.marking import seeded\n\nseeded({seed})  # the numbers of your exercises"
        notebook.cells.insert(first, new_code_cell(code, id="seed"))
    notebook.metadata[OURS] = {"handed_out": digest(notebook), "seed": seed}
    return notebook


def digest(notebook: NotebookNode) -> str:
    """Of the sources of a notebook's cells."""
    sources = [(cell.cell_type, cell.source) for cell in notebook.cells]
    return hashlib.sha256(json.dumps(sources, ensure_ascii=False).encode()).hexdigest()[:16]


def answered(path: Path) -> bool:
    """Whether somebody has changed a notebook since it was handed out, or it is none of ours."""
    try:
        notebook = notebooks.read(path)
    except ValueError:
        return True
    return notebook.metadata.get(OURS, {}).get("handed_out") != digest(notebook)


def seed_of(notebook: NotebookNode) -> int:
    """With which seed a notebook was handed out; 0 where it does not say."""
    return int(notebook.metadata.get(OURS, {}).get("seed", 0))


def write(repository: Path, folder: Path, seed: int | None = None, solutions: bool = False) -> list[Path]:
    """Write the notebooks into a folder.

    Args:
        seed: of the numbers in exercises, 0 for those of the notebooks; None: what the folder has.
        solutions: for the instructor.

    Raises:
        Answered: a notebook there was changed; nothing is written.
        CannotWrite: the folder cannot be written to.
    """
    sources = notebooks.find(repository / "notebooks")
    targets = [folder / path.name for path in sources]
    if changed := [path for path in targets if path.exists() and answered(path)]:
        names = ", ".join(path.name for path in changed)
        raise Answered(
            f"Nothing was written: somebody has worked in {counted(len(changed), 'notebook')} of {folder} ({names}). "
            "Move what you want to keep, or name another folder: FOLDER=…"
        )
    shipped = folder / SHIPPED
    where = shipped.absolute()
    store = where.relative_to(repository).as_posix() if where.is_relative_to(repository) else str(where)
    for path, target in zip(sources, targets, strict=True):
        copied = (instructor if solutions else student)(notebooks.read(path))
        kept = seed_of(notebooks.read(target)) if target.exists() else 0
        own = handed_out(copied, store, kept if seed is None else seed)
        files.write_atomically(target, nbformat.writes(own) + "\n")
    for name in (SHIPPED, DOCS):
        _link(folder / name, repository / name)
    return targets


def _link(place: Path, target: Path) -> None:
    """Raises CannotWrite."""
    if not place.exists():
        try:
            place.symlink_to(target, target_is_directory=True)
        except OSError as error:
            raise files.CannotWrite(error.errno, f"cannot link {place} to {target}: {error.strerror}") from error


@commands.ends((Answered,))
def main(arguments: list[str] | None = None, repository: Path = artifacts.REPOSITORY) -> int:
    """The command. Returns the exit code: 0; 1 where something could not be written; 2 where answers are in the way."""
    parser = argparse.ArgumentParser(
        prog="python -m mtl_study.publishing.handouts", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--folder", type=Path, help="default: artifacts/student, or artifacts/instructor")
    parser.add_argument("--seed", type=int, help="of the numbers in exercises, from 0; 0 for those of the notebooks")
    parser.add_argument("--instructor", action="store_true", help="with solutions and minutes")
    given = parser.parse_args(arguments)
    if given.seed is not None and given.seed < 0:
        parser.error(f"--seed {given.seed}: a whole number from 0 is needed")
    default = artifacts.root() / ("instructor" if given.instructor else "student")
    folder = Path(os.path.abspath(os.path.expanduser(given.folder))) if given.folder else default
    written = write(repository, folder, given.seed, given.instructor)
    print(f"Wrote {counted(len(written), 'notebook')} to {folder}")
    print(f"JupyterLab shows them: {Path(sys.executable).with_name('jupyter')} lab {shlex.quote(str(folder))}")
    return 0


if __name__ == "__main__":
    commands.run(main)
