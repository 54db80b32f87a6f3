"""What this machine has, and which presets it can run: `make doctor`."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import joblib
import nbformat
import psutil
import torch
from nbformat.v4 import new_code_cell, new_notebook

from mtl_core import files
from mtl_study import artifacts, commands, parameters
from mtl_study.experiments import evidence
from mtl_study.publishing import check, notebooks, running
from mtl_study.words import counted, duration, listed

GIB = 2**30
#: of a preset: GiB of memory for the notebook and two processes that train, GiB of disk for data and artifacts, seconds
#: on two cores without a GPU, with the shipped records (README); None: longer than anybody has measured
NEEDS: dict[str, tuple[float, float, float | None]] = {
    "smoke": (4, 1, 6 * 60),
    "quick": (5, 1, 7 * 60),
    "shipped": (5, 1, 8 * 60),
    "overnight": (6, 2, None),
    "paper": (16, 20, None),
}


@dataclass(frozen=True)
class Line:
    """One thing that was looked at. good: whether a notebook can run with it as it is; None: for information only."""

    what: str
    says: str
    good: bool | None = None

    def __str__(self) -> str:
        return f"{ {True: '✓', False: '✗', None: ' '}[self.good] } {self.what}: {self.says}"


def machine(repository: Path) -> Iterator[Line]:
    """What is installed and what there is of memory, disk and processors."""
    version = platform.python_version()
    yield Line("Python", f"{version}, {sys.executable}", (3, 11) <= sys.version_info[:2] < (3, 14))
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (repository / "constraints.txt").read_text(), flags=re.MULTILINE))
    lacking, other = [], []
    for package, pin in pins.items():
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            lacking.append(package)
        else:
            other += [] if found.split("+")[0] == pin else [f"{package} {found} (pinned {pin})"]
    says = f"{len(pins) - len(lacking) - len(other)} of {len(pins)} as constraints.txt has them"
    says += f"; other versions: {', '.join(other)}" if other else ""
    yield Line("packages", says + (f"; missing: {', '.join(lacking)}" if lacking else ""), not lacking)
    free = psutil.virtual_memory().available
    yield Line("memory", f"{memory() / GIB:.0f} GiB, {min(free, memory()) / GIB:.1f} free")
    for name, folder in places(repository).items():
        yield _place(name, folder)
    yield Line("processor", f"{counted(joblib.cpu_count(), 'core')}, {evidence.here()}")
    kinds = check.Shipped.read(repository / "results").kinds
    alike = "at these versions the same bits as" if evidence.here() in kinds else "numbers that differ by rounding from"
    yield Line("instruction set", f"what is trained here has {alike} the shipped records ({listed(sorted(kinds))})")
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        yield Line("GPU", f"{gpu.name}, {gpu.total_memory / GIB:.0f} GiB")
    else:
        yield Line("GPU", "none")


def memory() -> float:
    """Bytes: the machine's, or what its container may take."""
    total = float(psutil.virtual_memory().total)
    try:
        return min(total, float(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no container, or no limit: "max"
        return total


def places(repository: Path) -> dict[str, Path]:
    """The folders that commands write to, by the variable or value that names another."""
    return {
        "artifacts (MTL_ARTIFACTS)": artifacts.root(),
        "data (MTL_DATA)": files.cache_folder(),
        "records (store)": repository / "runs",
        "temporary files (TMPDIR)": Path(tempfile.gettempdir()),
    }


def _place(name: str, folder: Path) -> Line:
    """Whether a folder, or where it would be made, can be written to, and how much there is room for."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"x")
    except OSError as error:
        return Line(name, f"{folder} cannot be written to: {error.strerror}", False)
    return Line(name, f"{folder}, {shutil.disk_usage(there).free / GIB:.0f} GiB free", True)


def kernel() -> Line:
    """Whether a notebook runs."""
    with files.scratch("mtl-doctor-", Path(tempfile.gettempdir())) as scratch:
        path = scratch / "00_try.ipynb"
        code = new_code_cell("import torch\n(torch.ones(2, 2) @ torch.ones(2, 2)).sum()")
        spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(new_notebook(cells=[code], metadata=spec), path)
        try:
            seconds = running.run(running.Job(path, {}), scratch, scratch / "out", running.Limits(seconds=50))
        except (running.NotebookFailed, files.CannotWrite) as error:
            return Line("notebooks", str(error).splitlines()[0], False)
    return Line("notebooks", f"one runs, in {seconds:.0f} s", True)


def presets(repository: Path) -> Iterator[Line]:
    """Of each preset whether it can run here, what it lacks, and how long it takes."""
    has = memory() / GIB
    disk = shutil.disk_usage(repository).free / GIB
    named = [path.name for path in (repository / "params").iterdir() if path.is_dir()]
    for preset in sorted([*named, parameters.SHIPPED], key=_order):
        needs, room, seconds = NEEDS.get(preset, (0, 0, None))
        lacks = [f"{needs:.0f} GiB of memory"] if has < needs else []
        lacks += [f"{room:.0f} GiB of disk"] if disk < room else []
        lacks += missing_data(repository, preset)
        if preset == "paper" and not torch.cuda.is_available():
            lacks.append("a GPU")
        if lacks:
            yield Line(preset, f"lacks {listed(lacks)}", False)
        else:
            yield Line(preset, f"can run; {time(preset, seconds)}", True)


def _order(preset: str) -> int:
    return list(NEEDS).index(preset) if preset in NEEDS else len(NEEDS)


def time(preset: str, seconds: float | None) -> str:
    """How long a preset takes: as it did here, or as was measured elsewhere."""
    last = [_seconds(path) for path in (artifacts.root() / preset / "notebooks").glob("*.ipynb")]
    if here := [found for found in last if found]:
        return f"{counted(len(here), 'notebook')} took {duration(sum(here))} here when last executed"
    if seconds is None:
        return f"`make records PRESET={preset} LOOK=1` says what is missing and how long it takes"
    return f"takes about {duration(seconds)} on two cores without a GPU"


def _seconds(executed: Path) -> float | None:
    try:
        found: float | None = json.loads(executed.read_text(encoding="utf-8"))["metadata"]["papermill"]["duration"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found


def missing_data(repository: Path, preset: str) -> list[str]:
    """The data that a preset's notebooks need here and that are not there."""
    found = []
    for notebook in notebooks.find(repository / "notebooks"):
        values = parameters.preset_values(parameters.file_of(preset, notebook.stem, repository / "params"))
        found += [what for what, _ in parameters.lacking(notebook.stem, values)]
    return list(dict.fromkeys(found))


def main(repository: Path = artifacts.REPOSITORY) -> int:
    """The command. Returns 0 where smoke can run, else 1."""
    found = [*machine(repository), kernel()]
    runnable = list(presets(repository))
    for finding in (*found, *runnable):
        print(finding)
    bad = [finding.what for finding in found if finding.good is False]
    bad += [finding.what for finding in runnable if finding.what == artifacts.SMOKE and not finding.good]
    print(f"smoke cannot run here: {listed(bad)}." if bad else "smoke can run here: `make reproduce`.")
    return 1 if bad else 0


if __name__ == "__main__":
    commands.run(main)
