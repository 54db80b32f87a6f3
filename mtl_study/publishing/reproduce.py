"""The one command: check the parameters, run the notebooks through papermill, gather what they leave.

    python -m mtl_study.publishing.reproduce --preset smoke --only 01      writes artifacts/smoke/
    python -m mtl_study.publishing.reproduce --preset shipped --report     writes REPORT.md from artifacts/shipped/

A notebook that fails does not keep the others from running. Running again is cheap: the notebooks find the runs that
they need in the run store.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from mtl_core import files, progress
from mtl_core.names import nearest
from mtl_study import artifacts, commands, parameters
from mtl_study.parameters import BadParameters, checking
from mtl_study.publishing import check, notebooks, pages, report, summary, touched
from mtl_study.publishing.running import GIB, NONE, Job, Limits, NotebookFailed, run
from mtl_study.words import counted


class BadRequest(ValueError):
    """An unknown preset or notebook, or parameters that do not fit: refused before anything runs."""


# -- before anything runs ----------------------------------------------------------------------------------------------


def store_at(given: Path) -> str:
    """The folder that STORE names, from here. Raises BadRequest if it can be none on this system."""
    try:
        return os.path.abspath(checking.place(str(given)))
    except ValueError as error:
        raise BadRequest(f"STORE = {str(given)!r} {error}.") from None


def need_preset(repository: Path, preset: str) -> None:
    """Raises BadRequest if there is no such preset."""
    try:
        parameters.need(preset, repository / "params")
    except BadParameters as error:
        raise BadRequest(str(error)) from None


def plan(repository: Path, preset: str, only: list[str], overrides: dict[str, Any]) -> list[Job]:
    """The notebooks to run, in reading order, with their parameters.

    Args:
        preset: a folder of params; or `parameters.SHIPPED`, each notebook's own.
        only: numbers or names of notebooks; all where empty.
        overrides: values that replace the preset's, in those notebooks that have the parameter.

    Raises:
        BadRequest: with everything that is wrong, in one message.
    """
    need_preset(repository, preset)
    problems, jobs = [], []
    for notebook in choose(notebooks.find(repository / "notebooks"), only):
        try:
            notebooks.parameters(notebook)
            path = parameters.file_of(preset, notebook.stem, repository / "params")
            values = parameters.preset_values(path)
        except BadParameters as error:
            problems.append(str(error))
            continue
        given = {**values, **{k: v for k, v in overrides.items() if k in values}}
        problems += [f"{path}: {problem}." for problem in parameters.problems_of(notebook.stem, given, path.parents[1])]
        own = path.parent.name
        if values.get("preset", own) != own:
            problems.append(f"{path}: preset is {values['preset']!r}, expected {own!r}, the name of its folder.")
        jobs.append(Job(notebook, given))
    for name in overrides:
        if not problems and not any(name in job.values for job in jobs):
            problems.append(f"none of these notebooks has a parameter {name!r}.")
    if problems:
        raise BadRequest("\n".join(problems))
    return jobs


def choose(found: list[Path], only: list[str]) -> list[Path]:
    """The notebooks with these numbers or names, in reading order; 05 means 05b and 05c, too. Raises BadRequest for a
    name that fits none."""
    if not found:
        raise BadRequest("there are no notebooks: expected notebooks/NN_name.ipynb in the repository.")
    chosen = set()
    for name in only:
        fitting = {path for path in found if name in _called(path)}
        if not fitting:
            stems = [path.stem for path in found]
            raise BadRequest(f"there is no notebook {name!r}{nearest(name, stems)}. Notebooks: {', '.join(stems)}.")
        chosen |= fitting
    return sorted(chosen) if only else found


def _called(path: Path) -> set[str]:
    """What a notebook is asked for by: its name, its number, and the number that its parts share: 05 for 05b."""
    number = artifacts.number_of(path.stem)
    return {path.name, path.stem, number, number.lstrip("0"), number[:2], number[:2].lstrip("0")}


# -- running -----------------------------------------------------------------------------------------------------------


def run_all(jobs: list[Job], repository: Path, preset: str, limits: Limits = NONE) -> list[str]:
    """Run these notebooks; after each, bring claims.json and index.html up to date.

    Returns:
        The failures, one text each.
    """
    folder, failures, sources = artifacts.folder(preset), [], notebooks.find(repository / "notebooks")
    pages.write_index(folder, preset, sources)  # if that fails, then before any work
    for job in jobs:
        _say(f"▶ {job.notebook.stem} ({preset})")
        try:
            seconds = run(job, repository, folder, limits, touched.stamp(repository, job.notebook, preset))
            _say(f"✓ {job.notebook.stem}: {seconds:.0f} s")
        except NotebookFailed as failure:
            failures.append(str(failure))
            _say(f"✗ {failure}")
        finally:
            pages.write_index(folder, preset, sources)
    _say(f"\nOpen {folder / 'index.html'}")
    return failures


def changed(jobs: list[Job], repository: Path, preset: str, since: str) -> list[Job]:
    """Those of the jobs whose notebooks a change touches, and says which files did.

    Args:
        since: a commit; or "1", what they were when the notebook was last executed.

    Raises:
        BadRequest: git does not know the commit.
    """
    kept = []
    for job in jobs:
        try:
            files = (
                touched.since_executed(repository, job.notebook, preset, artifacts.folder(preset))
                if since == "1"
                else touched.since_commit(repository, job.notebook, preset, since)
            )
        except ValueError as error:
            raise BadRequest(f"CHANGED={since}: {error}") from None
        if files:
            kept.append(job)
            more = f" and {len(files) - 3} more" if len(files) > 3 else ""
            _say(f"{job.notebook.stem} is touched by {', '.join(files[:3])}{more}.")
        else:
            _say(f"{job.notebook.stem} is not touched.")
    return kept


def conclude(preset: str, repository: Path, jobs: list[Job], code: int, check_shipped: bool) -> int:
    """Say last what is wrong, and write it into summary.json and junit.xml. Returns the exit code."""
    folder, ran = artifacts.folder(preset), {job.notebook.stem for job in jobs}
    shown = [s for s in pages.sections(folder, notebooks.find(repository / "notebooks")) if s.stem in ran]
    found = check.differences(repository, shown, folder) if check_shipped else []
    for section in (section for section in shown if section.state != "done" or section.missing):
        without = f" Without a verdict: {', '.join(section.missing)}." if section.missing else ""
        _say(f"✗ {section.stem}: {section.failure or section.state}{without}")
    for difference in found:
        _say(f"{'≠' if difference.kind == 'drift' else '≈'} {difference}")
    drifted = sum(difference.kind == "drift" for difference in found)
    if check_shipped and code == commands.PASSED:
        code = commands.DRIFTED if drifted else commands.PASSED
        rounding = counted(len(found) - drifted, "number or table", "numbers and tables")
        _say(
            f"Checked against the shipped numbers: {drifted} drifted; {rounding} differ by rounding."
            if found
            else "Checked against the shipped numbers: all are the same."
        )
    summary.write(folder, preset, code, shown, found)
    return code


# -- the command -------------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None, repository: Path = artifacts.REPOSITORY) -> int:
    """The command.

    Returns:
        The exit code (`summary`): 0; 1 where a notebook failed or something could not be written; 2 where the request
        is refused before anything runs; 3 where numbers are no longer the shipped ones; 130 where it was interrupted.
    """
    parser = argparse.ArgumentParser(
        prog="python -m mtl_study.publishing.reproduce", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--preset",
        help="a folder of params/, or (shipped, the default with --check and --report) the one whose numbers ship",
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="NN", help="notebooks by number or name; default: all")
    parser.add_argument("--workers", type=_positive, help="training processes; default: one per core, or per GPU")
    parser.add_argument("--store", type=Path, help="the folder of the run records, instead of the preset's")
    parser.add_argument("--artifacts", type=Path, help="the folder to write to; default: artifacts/ in the repository")
    parser.add_argument("--check", action="store_true", help="compare the numbers with the shipped ones")
    parser.add_argument(
        "--changed", metavar="SINCE", help="only notebooks that changed since a commit, or (1) since they were executed"
    )
    parser.add_argument("--minutes", type=_above_zero, help="a notebook that takes longer is ended")
    parser.add_argument("--memory", type=_above_zero, help="a notebook that takes more GiB is ended")
    parser.add_argument(
        "--report", action="store_true", help="run nothing; write REPORT.md from the preset's artifacts"
    )
    parser.add_argument("--drop", action="store_true", help="with --report: leave out what only the last report has")
    given = parser.parse_args(arguments)
    if given.preset is None:
        given.preset = parameters.SHIPPED if given.check or given.report else artifacts.SMOKE

    if given.artifacts:
        os.environ["MTL_ARTIFACTS"] = os.path.abspath(os.path.expanduser(given.artifacts))  # for the kernels, too
    if given.workers:
        os.environ["MTL_WORKERS"] = str(given.workers)
    if not sys.stderr.isatty():
        os.environ[progress.QUIET] = "1"  # for the kernels, which cannot tell
    only = [name for text in given.only for name in re.split(r"[\s,]+", text) if name]
    limits = Limits(given.minutes and 60 * given.minutes, given.memory and given.memory * GIB)
    jobs: list[Job] = []
    try:
        if given.only and not only:
            raise BadRequest("ONLY is blank: name notebooks by number, such as 01, or leave it out for all of them.")
        overrides = {"store": store_at(given.store)} if given.store else {}
        if given.report:
            need_preset(repository, given.preset)
            sources = notebooks.find(repository / "notebooks")
            _say(f"Wrote {report.write_report(repository, given.preset, sources, given.drop)}")
            return commands.PASSED
        jobs = plan(repository, given.preset, only, overrides)
        if given.check:
            check.shipped(repository)
            check.need_same_preset(repository, given.preset, [job.notebook.stem for job in jobs])
        if given.changed:
            jobs = changed(jobs, repository, given.preset, given.changed)
        code = commands.FAILED if run_all(jobs, repository, given.preset, limits) else commands.PASSED
        return conclude(given.preset, repository, jobs, code, given.check)
    except (BadRequest, check.NothingShipped) as error:
        _say(f"Nothing was run.\n{error}")
        with suppress(BadRequest):
            need_preset(repository, given.preset)
            summary.write(artifacts.folder(given.preset), given.preset, commands.REFUSED, why=str(error))
        return commands.REFUSED
    except (files.CannotWrite, BadParameters, report.NothingToShow, pages.Unreadable) as error:
        _say(str(error))
        return commands.FAILED
    except KeyboardInterrupt:
        logging.getLogger("asyncio").disabled = True  # the cell that was cut off is no news
        _say("\nStopped. Finished runs are kept; the same command continues from there.")
        with suppress(files.CannotWrite):
            conclude(given.preset, repository, jobs, commands.INTERRUPTED, check_shipped=False)
        return commands.INTERRUPTED


def _above_zero(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: a number above 0 is needed")
    return number


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processes; give a whole number from 1")
    return int(text)


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    # Asked to end by a scheduler, end as on Ctrl-C: taking the kernel and its training processes along.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    commands.run(main)
