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
