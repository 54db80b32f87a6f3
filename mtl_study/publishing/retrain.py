"""Shipped records, drawn at random and trained once more: bit-equal, or how far off against the spread of seeds."""

from __future__ import annotations

import math
import random
import secrets
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from scipy import stats

from mtl_core import files
from mtl_core.datasets.base import DataNotFound
from mtl_study.experiments import runner
from mtl_study.experiments.runs import Run
from mtl_study.experiments.store import NOT_RUNS, RunStore, archived
from mtl_study.words import counted, duration

MADE_WITH = ("torch", "numpy", "scipy")  # other versions may round in another order


class TooMany(ValueError):
    """More runs were asked for than there are that this machine could train."""


@dataclass(frozen=True)
class Retrained:
    """A run and the shipped one. equal: bit by bit. worst: the largest difference of a final test metric, in standard
    deviations between seeds; NaN where there are no other seeds. limit: what `worst` stays below in 99 of 100 pairs of
    seeds. where: of which metric."""

    equal: bool
    worst: float = math.nan
    limit: float = 0.0
    where: str = ""
    value: float = math.nan
    shipped: float = math.nan

    def drifted(self, alike: bool) -> bool:
        """Whether rounding cannot explain it. alike: whether the machines and versions are, as far as both say; if not,
        rounding may drive two runs as far apart as two seeds."""
        return not self.equal and (alike or not self.worst < self.limit)

    def __str__(self) -> str:
        if self.equal:
            return "bit-equal"
        spread = "there are no other seeds" if math.isnan(self.worst) else f"{self.worst:.2g} × the spread of the seeds"
        return f"not bit-equal: {self.where} ends at {self.value:.6g}, shipped {self.shipped:.6g} ({spread})"


def again(folder: Path, count: int, seed: int | None = None, data_dir: str | None = None) -> int:
    """Train `count` records of an archive once more and print what came of each.

    Args:
        data_dir: of data that are not embedded. Runs on data that are not there are not drawn.

    Returns:
        0, or 3 where one drifted.

    Raises:
        TooMany: there are not so many.
    """
    seed = secrets.randbelow(10**6) if seed is None else seed
    store = RunStore(folder)
    chosen = drawn(folder, count, seed, data_dir)
    total = sum(run.seconds for run in chosen)
    print(f"{counted(count, 'record')}, drawn with SEED={seed}; training took {duration(total)} when they were made.")
    drift = False
    with files.scratch("mtl-audit-", Path(tempfile.gettempdir())) as scratch:
        for shipped in chosen:
            device = "cpu" if shipped.environment["device"].startswith("cpu") else "cuda"
            (run,) = runner.run([shipped.config], scratch, device=device, data_dir=data_dir, title=shipped.config.title)
            found, alike = compare(run, shipped, store), same_kind(run, shipped)
            drift |= found.drifted(alike)
            print(f"{shipped.key} {shipped.config.title}: {found}.")
            if not found.equal:
                print(f"  here {_machine(run)}; shipped {_machine(shipped)}.")
    print("A number has drifted." if drift else "Nothing has drifted.")
    return 3 if drift else 0


def drawn(folder: Path, count: int, seed: int, data_dir: str | None = None) -> list[Run]:
    """Random records of an archive that this machine can train. Raises TooMany."""
    paths = [path for path in archived(folder) if path.stem not in NOT_RUNS]
    possible = [
        line
        for path in paths
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True)
        if (torch.cuda.is_available() or '"device":"cpu' in line)
        and ('"source":"embedded"' in line or _has_data(Run.from_line(line), data_dir))
    ]
    if not 1 <= count <= len(possible):
        raise TooMany(f"RUNS={count}: expected 1 to {len(possible)}, the records of {folder} that can be trained here.")
    return [Run.from_line(line) for line in random.Random(seed).sample(possible, count)]


def _has_data(run: Run, data_dir: str | None) -> bool:
    """Whether the data that a run was trained on are there."""
    try:
        run.config.definition.data.check(run.config.source, run.config.sizes, data_dir)
    except DataNotFound:
        return False
    return True


def compare(run: Run, shipped: Run, store: RunStore) -> Retrained:
    """Hold a run against the shipped one; the spread is that of the other seeds in the same settings."""
    if run.history == shipped.history and run.ended == shipped.ended:
        return Retrained(equal=True)
    if not (run.history and shipped.history):
        return Retrained(False, math.inf, where=f"the run ({run.ended}; shipped: {shipped.ended})")
    alike = [other for other in store.records(shipped.config.folder) if _but_seed(other) == _but_seed(shipped)]
    found, several = [], sum(map(len, shipped.history[-1].test.values()))
    for task, metrics in shipped.history[-1].test.items():
        for metric, theirs in metrics.items():
            ours = run.history[-1].test[task][metric]
            values = [v for other in alike if other.history and (v := other.history[-1].test[task][metric]) is not None]
            spread = statistics.stdev(values) if len(values) > 1 else math.nan
            a, b = (math.nan if value is None else value for value in (ours, theirs))
            off = 0.0 if a == b else abs(a - b)
            worst, limit = _times(off, spread), two_seeds(len(values), several)
            found.append(Retrained(False, worst, limit, f"{task} {metric}", a, b))
    return max(found, key=lambda one: math.inf if math.isnan(one.worst) else one.worst)


def two_seeds(seeds: int, metrics: int) -> float:
    """How many standard deviations, estimated from some seeds, two runs that differ like seeds stay within, in all of
    several metrics and in 99 of 100 cases; NaN for fewer than two seeds."""
    return math.sqrt(2) * float(stats.t.ppf(1 - 0.01 / (2 * metrics), seeds - 1)) if seeds > 1 else math.nan


def _times(off: float, spread: float) -> float:
    return 0.0 if off == 0 else math.inf if spread == 0 else off / spread


def _but_seed(run: Run) -> dict[str, object]:
    return {**run.config.settings, "seed": None}


def same_kind(run: Run, shipped: Run) -> bool:
    """Whether bit-equal numbers are to be expected: the same kind of machine and versions, where the record says so."""
    theirs = shipped.environment
    if "instruction_set" not in theirs:
        return False
    alike = all(run.environment.get(name) == theirs.get(name) for name in MADE_WITH)
    return alike and run.machine == shipped.machine


def _machine(run: Run) -> str:
    versions = ", ".join(f"{name} {run.environment.get(name, 'unknown')}" for name in MADE_WITH)
    return f"{run.machine}, {versions}"
