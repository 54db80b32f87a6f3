"""How much of a result is luck or tuning: the selection bias of validation, and the learning rate against the seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from mtl_core.tasks import Task
from mtl_study.analysis import inference
from mtl_study.analysis.delta import selected
from mtl_study.analysis.frames import RUN, setting
from mtl_study.experiments.runs import Run


def selection_bias(runs: Sequence[Run], baselines: pd.DataFrame, tasks: Sequence[Task]) -> pd.DataFrame:
    """How much better a run looks on the split that chose its epoch: validation Δm − test Δm, in points.

    Each Δm is relative to the single-task models on the same split, whose own epochs validation chose, too. What is
    left holds two things: luck, and that one split is easier than the other, which depends on the task, and so on how
    a configuration trades the tasks. The latter is the same for all seeds of a configuration. So the luck of one run
    is measured against the other seeds:

        luck = bias − mean bias of the same configuration at the other seeds

    Its mean over all runs of a configuration is 0. Over the runs that validation *chose* it is what choosing adds.

    Returns:
        problem, smto, config, seed, epoch, val_delta_m, delta_m, bias (> 0: it looks better on validation), luck (> 0:
        better than this configuration usually does; NaN for one seed).
    """
    table = selected(runs, baselines, tasks)[[*RUN, "epoch", "val_delta_m", "delta_m"]]
    table["bias"] = table.val_delta_m - table.delta_m
    alike = table.groupby(["problem", "smto", "config"]).bias
    others = (alike.transform("sum") - table.bias) / (alike.transform("count") - 1).replace(0, math.nan)
    return table.assign(luck=table.bias - others)


def lr_vs_seed(selected: pd.DataFrame) -> pd.DataFrame:
    """Does the choice of the learning rate move the result more than the seed does? A row per method.

        ratio = sd over learning rates of the mean over seeds / sd over seeds at the best learning rate

    The best learning rate is the one with the best mean validation Δm. (Xin et al. 2022, arXiv:2209.11379, find a ratio
    of 6 to 7, over grids of several learning rates each.) The interval, at 95 %, is that of `inference.ChoiceRatio`.

    Args:
        selected: of one problem; several learning rates per method, which differ in nothing else. Seeds that some
            learning rate lacks, or at which it diverged, are left out.

    Returns:
        Index smto; sd_lr and sd_seed (of Δm, in points), ratio, low, high, best_lr, lrs, seeds (how many).
        Methods with one learning rate are left out.

    Raises:
        ValueError: a method has two runs of one learning rate and seed, or there are several problems.
    """
    table = by_rate(selected)
    if table.duplicated(["smto", "lr", "seed"]).any() or table.problem.nunique() > 1:
        raise ValueError("several runs of one method, learning rate and seed; give those that differ in these only.")
    rows = {}
    for smto, runs in table.groupby("smto", sort=False):
        both = runs.pivot(index="seed", columns="lr", values=["delta_m", "val_delta_m"]).dropna()
        values, lrs = both["delta_m"], list(both["delta_m"])  # [n, learning rates]
        if len(lrs) < 2 or not len(values):
            continue
        best = int(both["val_delta_m"].mean().to_numpy().argmax())
        found = inference.ChoiceRatio(values.to_numpy(dtype=float), best)
        mean, low, high, n = found.interval(0.95)
        row = {"sd_lr": values.mean().std(ddof=1), "sd_seed": values.iloc[:, best].std(ddof=1)}
        row |= {"ratio": found.ratio, "low": math.exp(low), "high": math.exp(high)}
        if not math.isfinite(mean):
            row |= {"low": math.nan, "high": math.nan}
        rows[smto] = row | {"best_lr": lrs[best], "lrs": len(lrs), "seeds": n}
    columns = ["sd_lr", "sd_seed", "ratio", "low", "high", "best_lr", "lrs", "seeds"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("smto")


def by_rate(selected: pd.DataFrame) -> pd.DataFrame:
    """`selected` with the learning rate of each run as the column lr."""
    return selected.assign(lr=[setting(config, "lr") for config in selected.config])
