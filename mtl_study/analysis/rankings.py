"""Places of methods, how sure they are, and what tables give per method over its tasks: mean rank and spread."""

from __future__ import annotations

import itertools
import string
from collections.abc import Sequence

import numpy as np
import pandas as pd

from mtl_core.tasks import Task
from mtl_study.analysis.inference import t_interval


def _metric_columns(tasks: Sequence[Task]) -> dict[str, list[str]]:
    """The columns of `selected` that hold a task's metrics, by task."""
    return {t.name: [t.name] if len(t.metrics) == 1 else [f"{t.name}/{m}" for m in t.metrics] for t in tasks}


def places(by_seed: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """How sure each method's place is: the places that it may have, and the methods that it cannot be told from.

    Each method is compared with every other one, paired by seed, by t intervals at level 1 − (1 − level)/(m − 1), so
    that with the given probability all its m − 1 intervals hold the true difference. Methods found to be better are
    ahead of it, those found to be worse are behind it, and the place of its true mean is in between. That holds for
    any spreads and any dependence between the methods; for one method at a time.

    A method that lost a run (NaN) has no mean. It comes last, and may have any place.

    Args:
        by_seed: index seed, one column per method; higher is better (`comparisons.by_seed`).

    Returns:
        Index smto; mean, place (of the mean, 1 is best), first and last (the interval of places), ties: a letter per
        group of neighbours no two of which are told apart; a method can belong to several.
    """
    methods, alike = list(by_seed), 1 - (1 - level) / max(by_seed.shape[1] - 1, 1)
    whole = by_seed.dropna(axis="columns").reindex(columns=methods)
    means = whole.mean()
    ahead = pd.DataFrame(False, index=methods, columns=methods)  # [a, b]: a is told to be better than b
    for a, b in itertools.combinations(methods, 2):
        found = t_interval(whole[a] - whole[b], alike)
        ahead.loc[a, b], ahead.loc[b, a] = found.low > 0, found.high < 0
    apart, order = ahead | ahead.T, list(means.sort_values(ascending=False, kind="stable").index)
    groups: list[list[str]] = []
    for i, leader in enumerate(order):
        group = [leader]
        for smto in order[i + 1 :]:
            if apart.loc[group, smto].any():
                break
            group.append(smto)
        if not groups or group[-1] not in groups[-1]:
            groups.append(group)
    letters = dict(zip(string.ascii_lowercase, groups, strict=False))
    return pd.DataFrame(
        {
            "mean": means,
            "place": means.rank(ascending=False, method="min", na_option="bottom").astype(int),
            "first": 1 + ahead.sum(axis=0),
            "last": len(methods) - ahead.sum(axis=1),
            "ties": {smto: "".join(name for name, group in letters.items() if smto in group) for smto in methods},
        }
    ).rename_axis("smto")


def mean_rank(selected: pd.DataFrame, tasks: Sequence[Task]) -> pd.Series:
    """Mean rank over tasks of each method's mean over seeds, 1 is best (lower is better); ties share their average.

    A task with several metrics counts once, with the mean of its ranks. A run without a value (it diverged before its
    first epoch was over) has no finite error, and so has no mean that it is part of: its method ranks last, whatever
    its other seeds reach, and is not ranked by those that survived.
    """
    columns = _metric_columns(tasks)
    each = selected.groupby("smto", sort=False)[list(itertools.chain(*columns.values()))]
    means = each.agg(lambda values: values.mean(skipna=False))
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
