"""Records as tables: one row per number that a record holds. The columns RUN tell one run from another.

    tidy(runs)          problem, smto, config, seed, split, epoch, task, metric, value
    paces(runs)         what an epoch took, in seconds and in epochs of the uniform loss; seconds_per_seed(runs)
    diagnostics(runs)   what the methods reported of themselves

Records hold raw metrics only, so every number that is computed from them can be had again under another rule.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from mtl_core import smtos
from mtl_study.experiments.runs import LATER, Run, RunConfig

RUN = ["problem", "smto", "config", "seed"]  # what tells one run from another in a table
SPLITS = ("val", "test")
UNIFORM = "unit_scal"


def configuration(config: RunConfig) -> str:
    """What a configuration holds besides its seed, as one line of JSON: runs that share it differ by seed only."""
    settings = {name: value for name, value in config.settings.items() if name != "seed"}
    return json.dumps(settings, sort_keys=True, separators=(",", ":"))


def tidy(runs: Iterable[Run]) -> pd.DataFrame:
    """One row per stored metric: problem, smto, config, seed, split, epoch (from 0), task, metric, value.

    What a record holds as None (not finite) becomes NaN.
    """
    rows = []
    for run in runs:
        key = run_key(run)
        for epoch, record in enumerate(run.history):
            for split in SPLITS:
                for task, values in getattr(record, split).items():
                    for metric, value in values.items():
                        rows.append((*key, split, epoch, task, metric, as_float(value)))
    return pd.DataFrame(rows, columns=[*RUN, "split", "epoch", "task", "metric", "value"])


def paces(runs: Iterable[Run]) -> pd.DataFrame:
    """What an epoch of every run took, as recorded: its seconds hang on what else the machine did. So each is also set
    against the uniform loss at the same seed, since a seed's runs were trained at about the same time; of that, the
    median over seeds is what a method costs.

    Returns:
        A row per run with an epoch: problem, smto, config, seed; seconds; times: over the median of the uniform loss's
        on this problem at the paper's width with this batch and seed, at any rate (NaN where there is none).
    """
    rows = [
        (
            *run_key(run),
            run.config.batch_size,
            run.config.problem_options.get("width", 1),
            run.seconds / len(run.history),
        )
        for run in runs
        if run.history
    ]
    table = pd.DataFrame(rows, columns=[*RUN, "batch_size", "width", "seconds"])
    alike = ["problem", "batch_size", "seed"]
    uniform = table[(table.smto == UNIFORM) & (table.width == 1)].groupby(alike).seconds.median()
    return table.assign(times=table.seconds / table.join(uniform.rename("uniform"), on=alike).uniform)[
        [*RUN, "seconds", "times"]
    ]


def seconds_per_seed(runs: Iterable[Run]) -> float:
    """What one more seed of all these runs takes: the sum over their configurations of the fastest seed, as a busy
    machine only adds to it; each run counts once."""
    each = {run.key: (configuration(run.config), run.seconds) for run in runs}
    return float(pd.DataFrame(each.values(), columns=["config", "seconds"]).groupby("config").seconds.min().sum())


def setting(config: str, name: str) -> Any:
    """One setting out of the column `config` of a table, e.g. setting(row.config, "lr"); where it is not spelt out, as
    for what came later than most records, its default."""
    settings = json.loads(config)
    return settings[name] if name in settings else LATER[name]


def all_options(smto: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """A method's options, those included that a configuration does not spell since they have their defaults."""
    return {name: option.default for name, option in smtos.options(smto).items()} | dict(options)


def run_key(run: Run) -> tuple[str, str, str, int]:
    """What tells a run from another in a table: the columns `RUN`."""
    return run.config.problem, run.config.smto, configuration(run.config), run.config.seed


def as_float(value: float | None) -> float:
    """A number of a record, which keeps None for NaN."""
    return math.nan if value is None else float(value)


def flags_in_words(runs: Iterable[Run]) -> str:
    """How often the edges of methods were met (a guard, a failed solve, a task without gradient, …), as a sentence."""
    counts: dict[tuple[str, str], int] = {}
    for run in runs:
        for epoch in run.history:
            for flag, count in epoch.flags.items():
                counts[run.config.smto, flag] = counts.get((run.config.smto, flag), 0) + count
    found = [f"{smto}: {flag} in {count:,} steps" for (smto, flag), count in sorted(counts.items())]
    return f"Flags raised by methods: {'; '.join(found)}." if found else "No method raised a flag in any step."


def diagnostics(runs: Iterable[Run]) -> pd.DataFrame:
    """What the methods reported of themselves, epoch means: problem, smto, config, seed, epoch, name, value."""
    rows = [
        (*run_key(run), epoch, name, as_float(value))
        for run in runs
        for epoch, record in enumerate(run.history)
        for name, value in record.diagnostics.items()
    ]
    return pd.DataFrame(rows, columns=[*RUN, "epoch", "name", "value"])
