"""What tables give per method over its tasks: the mean rank, and how the gains spread."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from mtl_core.tasks import Task


def _metric_columns(tasks: Sequence[Task]) -> dict[str, list[str]]:
    """The columns of `selected` that hold a task's metrics, by task."""
    return {t.name: [t.name] if len(t.metrics) == 1 else [f"{t.name}/{m}" for m in t.metrics] for t in tasks}


def mean_rank(selected: pd.DataFrame, tasks: Sequence[Task]) -> pd.Series:
    """Mean rank over tasks of each method's mean over seeds, 1 is best (lower is better); ties share their average.

    A task with several metrics counts once, with the mean of its ranks. A method without a value ranks last.
    """
    columns = _metric_columns(tasks)
    means = selected.groupby("smto", sort=False)[list(itertools.chain(*columns.values()))].mean()
    ranks = means.rank(ascending=False, method="average", na_option="bottom")
    return pd.DataFrame({task: ranks[names].mean(axis=1) for task, names in columns.items()}).mean(axis=1).rename("mr")


def task_statistics(selected: pd.DataFrame, tasks: Sequence[Task], as_released: bool = False) -> pd.DataFrame:
    """Spread over tasks of each method's gain (its mean over seeds), in percent: min, max, med, std, avg.

    std is that of the tasks themselves (not of a sample of tasks): divided by K. With `as_released`, med and std take
    the average in as one more value, as the paper's table does (D32).
    """
    means = selected.groupby("smto", sort=False)[[task.name for task in tasks]].mean()
    average = means.mean(axis=1)
    spread = means.assign(average=average) if as_released else means
    return pd.DataFrame(
        {
            "min": means.min(axis=1),
            "max": means.max(axis=1),
            "med": spread.median(axis=1),
            "std": spread.std(axis=1, ddof=0),
            "avg": average,
        }
    )


def over_tasks(selected: pd.DataFrame, tasks: Sequence[Task]) -> pd.DataFrame:
    """`selected` of one problem, and per run what tables give per method: min, max, med and std of its gains over the
    tasks (std divided by K), and mr, its mean rank over tasks among the methods with the same seed (1 is best)."""
    gains = selected[[task.name for task in tasks]]
    ranks = gains.groupby(selected.seed).rank(ascending=False, method="average", na_option="bottom")
    values = gains.to_numpy(dtype=float)
    return selected.assign(
        min=values.min(axis=1),
        max=values.max(axis=1),
        med=np.median(values, axis=1),
        std=values.std(axis=1),
        mr=ranks.mean(axis=1),
    )
