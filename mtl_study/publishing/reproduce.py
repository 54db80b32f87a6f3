"""The one command: check the parameters, run the notebooks through papermill, gather what they leave.

    python -m mtl_study.publishing.reproduce --preset smoke --only 01      writes artifacts/smoke/
    python -m mtl_study.publishing.reproduce --preset quick --report       writes REPORT.md from artifacts/quick/
    python -m mtl_study.publishing.reproduce --student          writes artifacts/student/, notebooks without solutions

A notebook runs with the repository as its working folder and this very interpreter as its kernel; what its cells print
to stderr (warnings, progress bars) is passed on to the terminal. A notebook that fails does not keep the others from
running. Running again is cheap: the notebooks find the runs that they need in the run store.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbconvert import HTMLExporter
from nbconvert.filters import strip_ansi
from nbconvert.preprocessors import TagRemovePreprocessor
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from mtl_core import files, progress
from mtl_core.names import nearest
from mtl_study import artifacts
from mtl_study.publishing import notebooks, pages
from mtl_study.publishing.notebooks import BadParameters

STYLE = """
.jp-RenderedMarkdown pre {  /* code in printed Markdown: the font of code, and lines that scroll instead of breaking */
  font-family: var(--jp-code-font-family); white-space: pre; word-break: normal; overflow-x: auto;
}
.back { display: block; padding: 0.6rem 1rem 0; font-family: var(--jp-content-font-family); color: #0b62a4; }
"""
BACK = '<a class="back" href="../index.html">← All notebooks, figures and verdicts</a>'


class BadRequest(ValueError):
    """An unknown preset or notebook, or parameters that do not fit: refused before anything runs."""


@dataclass(frozen=True)
class Job:
    """One notebook and the values for its parameters."""

    notebook: Path
    values: dict[str, Any]


class NotebookFailed(RuntimeError):
    """A notebook stopped: which one, in which cell, why, and where the executed part lies."""


# -- before anything runs ----------------------------------------------------------------------------------------------


def plan(repository: Path, preset: str, only: list[str], overrides: dict[str, Any]) -> list[Job]:
    """The notebooks to run, in reading order, with their parameters.

    Args:
        only: numbers or names of notebooks; all where empty.
        overrides: values that replace the preset's, in those notebooks that have the parameter.

    Raises:
        BadRequest: with everything that is wrong, in one message.
    """
    params = repository / "params"
    presets = sorted(folder.name for folder in params.glob("*") if folder.is_dir())
    if preset not in presets:
        raise BadRequest(
            f"there is no preset {preset!r}{nearest(preset, presets)}. Presets are the folders of {params}: "
            f"{', '.join(presets) or 'none'}."
        )
    problems, jobs = [], []
    for notebook in choose(notebooks.find(repository / "notebooks"), only):
        path = params / preset / f"{notebook.stem}.yaml"
        try:
            defaults, values = notebooks.parameters(notebook), notebooks.preset_values(path)
        except BadParameters as error:
            problems.append(str(error))
            continue
        problems += [f"{path}: {problem}." for problem in notebooks.misfits(values, defaults)]
        if values.get("preset", preset) != preset:
            problems.append(f"{path}: preset is {values['preset']!r}, expected {preset!r}, the name of its folder.")
        jobs.append(Job(notebook, {**values, **{k: v for k, v in overrides.items() if k in values}}))
    for name in overrides:
        if not problems and not any(name in job.values for job in jobs):
            problems.append(f"none of these notebooks has a parameter {name!r}.")
    if problems:
        raise BadRequest("\n".join(problems))
    return jobs


def choose(found: list[Path], only: list[str]) -> list[Path]:
    """The notebooks with these numbers or names, in reading order. Raises BadRequest for a name that fits none."""
    if not found:
        raise BadRequest("there are no notebooks: expected notebooks/NN_name.ipynb in the repository.")
    chosen = set()
    for name in only:
        fitting = {path for path in found if name in (path.name, path.stem, path.stem[:2])}
        if not fitting:
            stems = [path.stem for path in found]
            raise BadRequest(f"there is no notebook {name!r}{nearest(name, stems)}. Notebooks: {', '.join(stems)}.")
        chosen |= fitting
    return sorted(chosen) if only else found


# -- running -----------------------------------------------------------------------------------------------------------


class ThisInterpreter(AsyncKernelManager):
    """Starts the kernel with the Python that runs now, whatever kernels the machine has besides. Its file lies in the
    folder `place`, with which it goes."""

    place: Path

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
        self.connection_file = str(self.place / "kernel.json")


def run(job: Job, repository: Path, folder: Path) -> float:
    """Execute a notebook into `folder` as .ipynb and .html. What an earlier execution left there is cleared first, so
    that everything in the folder comes from the last one.

    Returns:
        How long it took, in seconds.

    Raises:
        NotebookFailed: the executed part is kept as <name>.failed.ipynb.
        CannotWrite: the disk is full or the folder is not writable.
    """
    pages.clear(folder, job.notebook.stem)
    target = folder / "notebooks" / job.notebook.name
    start = time.monotonic()
    with files.scratch("mtl-reproduce-", Path(tempfile.gettempdir())) as scratch:
        executed = scratch / job.notebook.name
        try:
            papermill.execute_notebook(
                job.notebook,
                executed,
                parameters=job.values,
                kernel_name="python3",
                kernel_manager_class=type("Kernel", (ThisInterpreter,), {"place": scratch}),
                extra_arguments=["--log-level=CRITICAL"],  # of the kernel's remarks on itself, not of errors in cells
                cwd=repository,
                progress_bar=False,
                stderr_file=sys.stderr,
            )
        except Exception as error:  # a cell, or a kernel that died
            raise NotebookFailed(_keep_failure(job, executed, target, error)) from error
        notebook = notebooks.read(executed)
    notebooks.tidy(notebook)
    files.write_atomically(target, nbformat.writes(notebook) + "\n")
    files.write_atomically(target.with_suffix(".html"), to_html(notebook, target.stem))
    return time.monotonic() - start


def _keep_failure(job: Job, executed: Path, target: Path, error: Exception) -> str:
    """Save what was executed and say what happened."""
    cause = f"{error.ename}: {error.evalue}" if isinstance(error, PapermillExecutionError) else _describe(error)
    if not executed.exists():
        return f"{job.notebook.name} did not start: {cause}"
    notebook, where = notebooks.read(executed), ""
    started = [cell for cell in notebook.cells if cell.metadata.get("papermill", {}).get("start_time")]
    if started:  # the last of them never came to its end
        first_line = next(iter(started[-1].source.splitlines()), "")
        where = f" in cell [{started[-1].execution_count or '*'}], which begins `{first_line}`"
    notebook.metadata["failure"] = f"Stopped{where}: {cause}"
    notebooks.tidy(notebook)
    kept = target.with_suffix(".failed.ipynb")
    files.write_atomically(kept, nbformat.writes(notebook) + "\n")
    return f"{job.notebook.name} stopped{where}: {cause}\nWhat was executed is kept in {kept}."


def _describe(error: Exception) -> str:
    """The name and the text of an error, without terminal colours."""
    return f"{type(error).__name__}: {strip_ansi(str(error)).strip()}"


def to_html(notebook: NotebookNode, name: str) -> str:
    """A notebook as a page, with a link back to index.html. Cells tagged "remark" show the sentences that they print,
    not their code."""
    exporter = HTMLExporter(theme="light")
    exporter.register_preprocessor(TagRemovePreprocessor(remove_input_tags={"remark"}), enabled=True)
    page = exporter.from_notebook_node(notebook, {"metadata": {"name": name}})[0]
    return page.replace("</head>", f"<style>{STYLE}</style>\n</head>", 1).replace("<main>", f"{BACK}\n<main>", 1)


def run_all(jobs: list[Job], repository: Path, preset: str) -> list[str]:
    """Run these notebooks; after each, bring claims.json and index.html up to date.

    Returns:
        The failures, one text each.
    """
    folder, failures = artifacts.folder(preset), []
    pages.write_index(folder, preset, notebooks.find(repository / "notebooks"))  # if that fails, then before any work
    for job in jobs:
        _say(f"▶ {job.notebook.stem} ({preset})")
        try:
            _say(f"✓ {job.notebook.stem}: {run(job, repository, folder):.0f} s")
        except NotebookFailed as failure:
            failures.append(str(failure))
            _say(f"✗ {failure}")
        finally:
            pages.write_index(folder, preset, notebooks.find(repository / "notebooks"))
    _say(f"\nOpen {folder / 'index.html'}")
    return failures


# -- the command -------------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None, repository: Path = artifacts.REPOSITORY) -> int:
    """The command.

    Returns:
        The exit code: 0; 1 where a notebook failed or something could not be written; 2 where the request is refused
        before anything runs; 130 where it was interrupted.
    """
    parser = argparse.ArgumentParser(
        prog="python -m mtl_study.publishing.reproduce", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--preset", default="smoke", help="a folder of params/: smoke (default), quick or paper")
    parser.add_argument("--only", nargs="+", default=[], metavar="NN", help="notebooks by number or name; default: all")
    parser.add_argument("--workers", type=_positive, help="training processes; default: one per core")
    parser.add_argument("--store", type=Path, help="the folder of the run records, instead of the preset's")
    parser.add_argument("--artifacts", type=Path, help="the folder to write to; default: artifacts/ in the repository")
    parser.add_argument(
        "--report", action="store_true", help="run nothing; write REPORT.md from the preset's artifacts"
    )
    parser.add_argument("--student", action="store_true", help="run nothing; write the notebooks without solutions")
    given = parser.parse_args(arguments)

    if given.artifacts:
        os.environ["MTL_ARTIFACTS"] = str(given.artifacts.absolute())  # for the kernels, too
    if given.workers:
        os.environ["MTL_WORKERS"] = str(given.workers)
    if not sys.stderr.isatty():
        os.environ[progress.QUIET] = "1"  # for the kernels, which cannot tell
    overrides = {"store": str(given.store.absolute())} if given.store else {}
    only = [name for text in given.only for name in re.split(r"[\s,]+", text) if name]
    try:
        if given.student:
            _student_copies(repository)
            return 0
        if given.report:
            _say(f"Wrote {pages.write_report(repository, given.preset, notebooks.find(repository / 'notebooks'))}")
            return 0
        failures = run_all(plan(repository, given.preset, only, overrides), repository, given.preset)
        return 1 if failures else 0
    except BadRequest as error:
        _say(f"Nothing was run.\n{error}")
        return 2
    except (files.CannotWrite, BadParameters, pages.NothingToShow) as error:
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        logging.getLogger("asyncio").disabled = True  # the cell that was cut off is no news
        _say("\nStopped. Finished runs are kept; the same command goes on from there.")
        return 130


def _student_copies(repository: Path) -> None:
    for path in notebooks.find(repository / "notebooks"):
        copy = notebooks.without_solutions(notebooks.read(path))
        files.write_atomically(artifacts.folder("student") / path.name, nbformat.writes(copy) + "\n")
    _say(f"Wrote {artifacts.folder('student')}")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: at least one is needed")
    return number


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    artifacts.need_checkout()
    # Asked to end by a scheduler, end as on Ctrl-C: taking the kernel and its training processes along.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
