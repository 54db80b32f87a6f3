"""One notebook, executed by papermill into a folder of artifacts: as .ipynb and as a page, up to an error if there is
one.

The kernel is this very interpreter, with the repository as its working folder. What its cells print to stderr
(warnings, progress bars) is passed on. A notebook may have a limit of time and memory; beyond it, its processes are
ended.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import nbformat
import papermill
import psutil
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbconvert.filters import strip_ansi
from papermill.exceptions import PapermillExecutionError

from mtl_core import files
from mtl_study import artifacts
from mtl_study.publishing import notebooks
from mtl_study.publishing.rendering import to_html
from mtl_study.words import duration

GIB = 2**30


@dataclass(frozen=True)
class Job:
    """One notebook and the values for its parameters."""

    notebook: Path
    values: dict[str, Any]


@dataclass(frozen=True)
class Limits:
    """What a notebook may take, its training processes included; None: as much as it wants."""

    seconds: float | None = None
    memory: float | None = None  # bytes


NONE = Limits()


class NotebookFailed(RuntimeError):
    """A notebook stopped: which one, in which cell, why, and where the executed part is."""


class ThisInterpreter(AsyncKernelManager):
    """Starts the kernel with the Python that runs now, not with another kernel of the machine. Its file is in the
    folder `place` and is removed with it; what the notebook leaves goes to `target`; `started` gets the manager
    itself."""

    place: Path
    target: Path
    started: list[ThisInterpreter]

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
        self.connection_file = str(self.place / "kernel.json")
        self.started.append(self)

    async def _async_pre_start_kernel(self, **settings: Any) -> tuple[list[str], dict[str, Any]]:
        environment = {**os.environ, **(settings.pop("env", None) or {}), artifacts.REPRODUCED: str(self.target)}
        return await super()._async_pre_start_kernel(**settings, env=environment)


def run(
    job: Job,
    repository: Path,
    folder: Path,
    limits: Limits = NONE,
    inputs: Mapping[str, str] | None = None,
) -> float:
    """Execute a notebook into `folder`. What an earlier execution left there is cleared first, so that everything in
    the folder comes from the last one.

    Args:
        inputs: the files that it depends on, with their hashes (`touched.stamp`): kept with what is executed.

    Returns:
        How long it took, in seconds.

    Raises:
        NotebookFailed: the executed part is kept as <name>.failed.ipynb and .failed.html; or all was executed, and its
            page could not be made.
        CannotWrite: the disk is full or the folder is not writable.
    """
    artifacts.clear(folder, job.notebook.stem)
    target = folder / "notebooks" / job.notebook.name
    begun = target.with_suffix(".begun")
    files.write_atomically(begun, "")
    start = time.monotonic()
    with files.scratch("mtl-reproduce-", Path(tempfile.gettempdir())) as scratch:
        executed = scratch / job.notebook.name
        started: list[ThisInterpreter] = []
        reasons: list[str] = []
        known = {"place": scratch, "target": folder.absolute(), "started": started}
        try:
            with _watched(started, limits, reasons), contextlib.closing(Lines(sys.stderr)) as lines:
                papermill.execute_notebook(
                    job.notebook,
                    executed,
                    parameters=job.values,
                    kernel_name="python3",
                    kernel_manager_class=type("Kernel", (ThisInterpreter,), known),
                    extra_arguments=["--log-level=CRITICAL"],  # of the kernel's remarks on itself, not of errors
                    cwd=repository,
                    progress_bar=False,
                    stderr_file=lines,
                )
        except (Exception, KeyboardInterrupt) as error:  # a cell, a kernel that died, a limit, Ctrl-C
            cause = reasons[0] if reasons else _describe(error)
            message = _keep_failure(job, executed, target, cause)
            begun.unlink(missing_ok=True)
            if isinstance(error, KeyboardInterrupt):
                raise
            raise NotebookFailed(message) from error
        notebook = notebooks.read(executed)
    notebooks.tidy(notebook)
    notebook.metadata["inputs"] = dict(inputs or {})
    try:
        page = to_html(notebook, target.stem)
    except Exception as error:  # of nbconvert, of one of its filters, of an output that neither expects
        notebook.metadata["failure"] = f"Its page could not be made: {_describe(error)}"
        page = ""
    files.write_atomically(target, nbformat.writes(notebook) + "\n")
    begun.unlink(missing_ok=True)
    if not page:
        raise NotebookFailed(f"{job.notebook.name} was executed. {notebook.metadata['failure']}")
    files.write_atomically(target.with_suffix(".html"), page)
    return time.monotonic() - start


def _keep_failure(job: Job, executed: Path, target: Path, cause: str) -> str:
    """Save what was executed, as a notebook and as a page, and say what happened."""
    notebook, where = notebooks.read(job.notebook), ""
    with contextlib.suppress(notebooks.BadParameters, FileNotFoundError):  # it did not start, or it was cut off
        notebook = notebooks.read(executed)
    started = [cell for cell in notebook.cells if cell.metadata.get("papermill", {}).get("start_time")]
    if started:  # the last of them never came to its end; a text is started, too, and has no number
        last = started[-1]
        place = f"in cell [{last.execution_count or '*'}], which" if last.cell_type == "code" else "at the text that"
        where = f" {place} begins `{next(iter(last.source.splitlines()), '')}`"
    stopped = "stopped" if started else "did not start"
    notebook.metadata["failure"] = f"{stopped.capitalize()}{where}: {cause}"
    notebooks.tidy(notebook)
    kept = target.with_suffix(".failed.ipynb")
    files.write_atomically(kept, nbformat.writes(notebook) + "\n")
    with contextlib.suppress(Exception):  # of a page, after a failure that is told anyway
        files.write_atomically(kept.with_suffix(".html"), to_html(notebook, target.stem))
    return f"{job.notebook.name} {stopped}{where}: {cause}\nWhat was executed is kept in {kept}."


def _describe(error: BaseException) -> str:
    """The name and the text of an error, without terminal colours."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, PapermillExecutionError):
        return f"{error.ename}: {error.evalue}"
    return f"{type(error).__name__}: {strip_ansi(str(error)).strip()}"


# -- limits ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _watched(started: list[ThisInterpreter], limits: Limits, reasons: list[str]) -> Iterator[None]:
    """Look every second whether the kernel and what it started keep within the limits. If they do not, say so in
    `reasons` and end them."""
    over = threading.Event()
    begin = time.monotonic()

    def watch() -> None:
        while not over.wait(0.5):
            processes = _processes(started)
            if limits.seconds is not None and time.monotonic() - begin > limits.seconds:
                reasons.append(f"it took longer than the limit of {duration(limits.seconds)}")
            elif limits.memory is not None and (used := _memory(processes)) > limits.memory:
                reasons.append(f"it took {used / GIB:.2g} GiB of memory, above the limit of {limits.memory / GIB:.2g}")
            if reasons and processes:
                for process in processes:
                    with contextlib.suppress(psutil.Error):
                        process.kill()
                return

    thread = threading.Thread(target=watch, daemon=True)
    if limits != NONE:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if limits != NONE:
            thread.join()


def _processes(started: list[ThisInterpreter]) -> list[psutil.Process]:
    """The kernel and all that it started."""
    found = []
    for manager in started:
        with contextlib.suppress(psutil.Error, AttributeError):  # not there yet, or no longer
            kernel = psutil.Process(manager.provisioner.process.pid)  # type: ignore[union-attr]
            found += [kernel, *kernel.children(recursive=True)]
    return found


def _memory(processes: list[psutil.Process]) -> int:
    used = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            used += process.memory_info().rss
    return used


# -- what is printed ---------------------------------------------------------------------------------------------------


class Lines(io.TextIOBase):
    """Passes text on: to a terminal as it is; to a log in whole lines, a progress bar as its last state."""

    def __init__(self, to: TextIO) -> None:
        self.to, self.rest = to, ""

    def write(self, text: str) -> int:
        if self.to.isatty():
            self.to.write(text)
            self.to.flush()
            return len(text)
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            if shown := _last_state(line):
                self.to.write(f"{shown}\n")
        self.rest = self.rest[self.rest.rfind("\r", 0, -1) + 1 :]  # what is overwritten will not be shown
        self.to.flush()
        return len(text)

    def close(self) -> None:
        if shown := _last_state(self.rest):
            self.to.write(f"{shown}\n")
        self.rest = ""


def _last_state(line: str) -> str:
    """What a terminal shows of a line in the end."""
    return next((state.rstrip() for state in reversed(strip_ansi(line).split("\r")) if state.strip()), "")
