"""Which notebooks a change touches: `make reproduce CHANGED=1`.

A notebook's numbers depend on its file, its preset's file (and which one ships), the modules that it imports and theirs
in turn, with their data files, the pinned versions, and the shipped records. An executed notebook says what all of that
was (`stamp`).
"""

from __future__ import annotations

import ast
import hashlib
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path

from mtl_study import parameters
from mtl_study.publishing import house, notebooks

REGISTRY = "mtl_core.smtos"  # imports the files of its folder by their names


def inputs(repository: Path, notebook: Path, preset: str) -> list[Path]:
    """The files that a notebook depends on at a preset, in order; all the records, where it reads any."""
    modules = imported(repository, notebooks.read(notebook))
    found = {notebook, repository / "constraints.txt"}
    found |= {parameters.file_of(preset, notebook.stem, repository / "params")}
    found |= {repository / "params" / f"{preset}.yaml"} if preset == parameters.SHIPPED else set()
    for module in modules:
        path = repository.joinpath(*module.split("."))
        found.add(path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py")
        found |= {file for file in path.parent.glob("data/*") if file.is_file()}
    if "mtl_study.experiments.store" in modules:
        found |= set((repository / "results").rglob("*.jsonl"))
    return sorted(path for path in found if path.exists())


def imported(repository: Path, notebook: notebooks.NotebookNode) -> set[str]:
    """The modules of the two packages that a notebook imports, and theirs in turn."""
    graph = _graph(repository)
    todo: set[str] = set()
    for cell in notebook.cells:
        with suppress(SyntaxError):
            for node in ast.walk(ast.parse(cell.source if cell.cell_type == "code" else "")):
                if isinstance(node, ast.ImportFrom):
                    todo |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
                elif isinstance(node, ast.Import):
                    todo |= {alias.name for alias in node.names}
    found: set[str] = set()
    while todo:
        module = todo.pop()
        if module in graph and module not in found:
            found.add(module)
            parents = {module.rpartition(".")[0]}
            methods = {m for m in graph if m.startswith(f"{REGISTRY}.")} if module.startswith(REGISTRY) else set()
            todo |= graph[module] | parents | methods
    return found


@cache
def _graph(repository: Path) -> dict[str, set[str]]:
    return house.imports(repository)


def stamp(repository: Path, notebook: Path, preset: str) -> dict[str, str]:
    """The beginning of the hash of each file that a notebook depends on."""
    return {path.relative_to(repository).as_posix(): _hash(path) for path in inputs(repository, notebook, preset)}


def _hash(path: Path) -> str:
    """Of a notebook's cells, without what they printed; of another file's bytes."""
    if path.suffix == ".ipynb":
        content = "\0".join(cell.source for cell in notebooks.read(path).cells).encode()
    else:
        content = path.read_bytes()
    return hashlib.sha256(content).hexdigest()[:16]


def since_executed(repository: Path, notebook: Path, preset: str, folder: Path) -> list[str]:
    """The files that are others than when the notebook was executed into this folder; all where it was not."""
    now = stamp(repository, notebook, preset)
    try:
        before = dict(notebooks.read(folder / "notebooks" / notebook.name).metadata["inputs"])
    except (notebooks.BadParameters, OSError, KeyError, TypeError, ValueError):
        before = {}
    return sorted(path for path in now.keys() | before.keys() if now.get(path) != before.get(path))


def since_commit(repository: Path, notebook: Path, preset: str, commit: str) -> list[str]:
    """The files that differ from a commit, new ones included.

    Raises:
        ValueError: git does not know the commit, or there is no git.
    """
    hang = {path.relative_to(repository).as_posix() for path in inputs(repository, notebook, preset)}
    return sorted(hang & _differing(repository, commit))


@cache
def _differing(repository: Path, commit: str) -> set[str]:
    found: set[str] = set()
    for arguments in (["diff", "--name-only", commit, "--"], ["ls-files", "--others", "--exclude-standard"]):
        try:
            done = subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, text=True)
        except OSError as error:
            raise ValueError(f"git cannot be run: {error}") from None
        if done.returncode:
            raise ValueError(f"git does not know {commit!r}: {done.stderr.strip().splitlines()[0]}")
        found |= set(done.stdout.splitlines())
    return found
