"""Whether runs are long enough: what still moves over the last third of training, against the standard error between
seeds. The rule of docs/evidence.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mtl_core.tasks import Task
from mtl_study.analysis import delta
from mtl_study.experiments.runs import Run
from mtl_study.look import label
from mtl_study.words import counted, listed, minus


def readings(runs: Sequence[Run], alone: Sequence[Run], tasks: Sequence[Task]) -> pd.Series:
    """What is watched, index (what, seed): of every method its gap in test Δm to the uniform loss of the same seed, in
    points; of every task's metrics what the single-task model reaches on test, in their own units.

    Args:
        runs: of the methods, one configuration each, the uniform loss among them. alone: single-task models.

    Raises:
        ValueError: what `delta.single_task_baselines` raises.
    """
    values = delta.single_task_values(alone, tasks).loc["test"]["value"]
    names = [(f"{task} alone, {metric}", seed) for task, metric, seed in values.index]
    table = delta.selected(runs, delta.single_task_baselines(alone, tasks), tasks)
    table = table.pivot(index="seed", columns="smto", values="delta_m")
    gaps = table.drop(columns="unit_scal").sub(table["unit_scal"], axis=0).unstack()
    found = {**dict(zip(names, values, strict=True)), **gaps.to_dict()}
    return pd.Series(found, dtype=float, name="value").rename_axis(["what", "seed"])


def movement(end: pd.Series, before: pd.Series) -> pd.DataFrame:
    """How far each mean over the seeds moved.

    Args:
        end, before: `readings` of the same runs at the end and after two thirds of their epochs.

    Returns:
        Index what; moved, the mean at the end minus the one before; error, the standard error of the one at the end;
        n seeds; settled, whether it moved by no more than the error. With one seed nothing is known to have settled.
    """
    by_what = end.groupby(level="what", sort=False)
    moved = by_what.mean() - before.groupby(level="what", sort=False).mean()
    table = pd.DataFrame(
        {"moved": moved, "error": by_what.std(ddof=1) / np.sqrt(by_what.count()), "n": by_what.count()}
    )
    return table.assign(settled=table.moved.abs() <= table.error)


def in_words(runs: Sequence[Run], alone: Sequence[Run], tasks: Sequence[Task]) -> str:
    """What has settled over the last third of these runs, as a sentence; "" where that cannot be said: of one seed, of
    one or two epochs, or where a run has diverged before.

    Args:
        runs, alone: as for `readings`, all of one length.
    """
    every = [*runs, *alone]
    epochs = max((run.config.epochs for run in every), default=0)
    before = epochs - epochs // 3
    first = [run.serving(run.config.model_copy(update={"epochs": before})) for run in every]
    if len({run.config.seed for run in every}) < 2 or before == epochs or None in first:
        return ""
    some = [run for run in first if run is not None]
    table = movement(readings(runs, alone, tasks), readings(some[: len(runs)], some[len(runs) :], tasks))
    names = {run.config.smto: label(run.config.smto) for run in runs}
    in_errors = (table.moved / table.error).abs()
    moving = table[~table.settled].loc[in_errors[~table.settled].sort_values(ascending=False).index]
    most = [
        f"{names.get(what, what)} by {minus(f'{_short(row.moved):g}')} (error {_short(row.error):g})"
        for what, row in moving[:3].iterrows()
    ]
    return (
        f"From epoch {before} to {epochs}, {table.settled.sum()} of {len(table)} gaps to the uniform loss and baselines"
        f" moved by no more than their standard error over {counted(int(table.n.min()), 'seed')}"
        f"{f'; of the others, most in its own errors: {listed(most)}' if most else ''}."
    )


def _short(value: float) -> float:
    """To two digits."""
    return float(f"{value:.2g}")
