"""One figure, table or verdict of a notebook, from those of its cells that it rests on; nothing is trained for it.

python -m mtl_study.publishing.excerpts 01_figure_1        as does `make figure NAME=01_figure_1`
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import nbformat

from mtl_core import files, progress
from mtl_core.names import nearest
from mtl_study import artifacts, cells, commands
from mtl_study.experiments import runner
from mtl_study.paper import rules
from mtl_study.parameters import SHIPPED
from mtl_study.publishing import notebooks, report, reproduce, running
from mtl_study.publishing.notebooks import NotebookNode
from mtl_study.words import counted

PLACE = "excerpts"  # where excerpts write: a folder next to those of the presets


class NotThere(ValueError):
    """No notebook draws or judges this."""


def of_picture(repository: Path, name: str) -> tuple[Path, int]:
    """The notebook that draws a figure or table, and which of its code cells does. Raises NotThere."""
    number = artifacts.number_of(name)
    sources = [path for path in notebooks.find(repository / "notebooks") if artifacts.number_of(path.stem) == number]
    for path in sources:
        for i, source in enumerate(_code(path)):
            if "publish" in source and cells.mentions(source, name):
                return path, i
    known = [
        n for path in notebooks.find(repository / "notebooks") for n in notebooks.pictures_of(notebooks.read(path))
    ]
    raise NotThere(f"no notebook publishes {name!r}{nearest(name, known)}. Figures and tables: {', '.join(known)}.")


def of_claim(repository: Path, claim: str) -> tuple[Path, int]:
    """The notebook that judges a claim, and which of its code cells does. Raises NotThere."""
    for path in notebooks.find(repository / "notebooks"):
        for i, source in enumerate(_code(path)):
            if claim in _judged(source):
                return path, i
    raise NotThere(f"no notebook judges {claim!r}{nearest(claim, rules.names())}. Claims: {', '.join(rules.names())}.")


def _judged(source: str) -> list[str]:
    with suppress(SyntaxError):
        calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and node.args]
        first = [call.args[0] for call in calls if getattr(call.func, "attr", "") == "judge"]
        return [str(arg.value) for arg in first if isinstance(arg, ast.Constant)]
    return []


def _code(path: Path) -> list[str]:
    return [cell.source for cell in notebooks.read(path).cells if cell.cell_type == "code"]


def excerpt(notebook: NotebookNode, last: int) -> NotebookNode:
    """The code cells that one of them rests on, itself and the parameters included, in order."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    kept = cells.needed([cell.source for cell in code], last)
    kept |= {i for i, cell in enumerate(code[: last + 1]) if notebooks.tagged(cell, "parameters")}
    return NotebookNode(notebook, cells=[code[i] for i in sorted(kept)])


def run(repository: Path, preset: str, found: Callable[[], tuple[Path, int]], store: Path | None = None) -> Path:
    """Execute what a cell rests on, at a preset, from records that are there.

    Returns:
        The folder with what it left.

    Raises:
        BadRequest: there is no such preset, or it does not fit.
        NotebookFailed: a cell failed; also where it would have had to train a run.
    """
    path, last = found()
    overrides = {"store": reproduce.store_at(store)} if store else {}
    (job,) = reproduce.plan(repository, preset, [path.stem], overrides)
    with reading_only(), files.scratch("mtl-excerpt-", Path(tempfile.gettempdir())) as scratch:
        part = scratch / path.name
        nbformat.write(excerpt(notebooks.read(path), last), part)
        running.run(running.Job(part, job.values), repository, artifacts.folder(preset))
        return artifacts.folder(preset)


@contextmanager
def reading_only() -> Iterator[None]:
    """Nothing is trained inside, and artifacts go to a folder of their own."""
    before = {name: os.environ.get(name) for name in (runner.READ_ONLY, "MTL_ARTIFACTS", progress.QUIET)}
    os.environ |= {runner.READ_ONLY: "1", "MTL_ARTIFACTS": str(artifacts.root() / PLACE), progress.QUIET: "1"}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@commands.ends((NotThere, reproduce.BadRequest), failed=(running.NotebookFailed,))
def main(arguments: list[str] | None = None, repository: Path = artifacts.REPOSITORY) -> int:
    """Redraw one figure or table. Returns the exit code: 0; 1 where that failed; 2 where there is no such thing."""
    parser = argparse.ArgumentParser(prog="python -m mtl_study.publishing.excerpts", description="Redraw one figure.")
    parser.add_argument("name", help="of a figure or table: 01_figure_1")
    parser.add_argument("--preset", default=SHIPPED, help="default: the one whose numbers ship")
    parser.add_argument("--store", type=Path, help="the folder of the run records, instead of the preset's")
    given = parser.parse_args(arguments)
    begin = time.monotonic()
    folder = run(repository, given.preset, lambda: of_picture(repository, given.name), given.store)
    figure, table = folder / f"figures/{given.name}.png", folder / f"tables/{given.name}.md"
    drawn = figure if figure.exists() else table
    manifest = json.loads(drawn.with_suffix(".json").read_text(encoding="utf-8"))
    records = counted(len(manifest["records"]), "record")
    print(f"{manifest['title']}\n{drawn}\nDrawn from {records} in {time.monotonic() - begin:.0f} s; manifest: ", end="")
    print(drawn.with_suffix(".json"))
    if drawn == table:
        print(f"\n{table.read_text(encoding='utf-8')}")
    elif (shipped := repository / f"docs/report/{given.name}.png").exists():
        same = report.same_picture(shipped.read_bytes(), drawn.read_bytes())
        print(f"{'The same picture as' if same else 'Not the same, pixel by pixel, as'} {shipped}.")
    return 0


if __name__ == "__main__":
    commands.run(main)
