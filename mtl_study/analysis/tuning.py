"""How much of a result is luck or tuning: what validation's choice adds, and the learning rate against the seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mtl_study.analysis.delta import selected
from mtl_study.analysis.frames import RUN, setting


def selection_bias(runs: Sequence[Any], baselines: pd.DataFrame, tasks: Sequence[Any]) -> pd.DataFrame:
    """How much better a run looks on the split that chose its epoch: validation Δm − test Δm, in points.

    Each Δm is relative to the single-task models on the same split, whose own epochs validation chose, too. What is
    left holds two things: luck, and that one split is easier than the other, which depends on the task and so on where
    between the tasks a configuration stands. The latter is the same for all seeds of a configuration. So the part of
    it that is the luck of one run is measured against the other seeds:

        luck = optimism − mean optimism of the same configuration at the other seeds

    Its mean over all runs of a configuration is 0. Over the runs that validation *chose* it is what choosing adds.

    Returns:
        problem, smto, config, seed, epoch, val_delta_m, delta_m, optimism (> 0: it looks better on validation), luck
        (> 0: better than this configuration usually does; NaN for one seed).
    """
    table = selected(runs, baselines, tasks)[[*RUN, "epoch", "val_delta_m", "delta_m"]]
    table["optimism"] = table.val_delta_m - table.delta_m
    alike = table.groupby(["problem", "smto", "config"]).optimism
    others = (alike.transform("sum") - table.optimism) / (alike.transform("count") - 1).replace(0, math.nan)
    return table.assign(luck=table.optimism - others)


def lr_vs_seed(
    selected: pd.DataFrame,
    grids: Sequence[Sequence[float]] | None = None,
    column: str = "delta_m",
    level: float = 0.95,
    resamples: int = 9999,
) -> pd.DataFrame:
    """Does the choice of learning rates move the result more than the seed does? A row per method.

        ratio = sd over grids of the result of a grid / sd over seeds at the best learning rate

    The result of a grid is the mean over seeds at its best learning rate, the one with the best mean validation Δm. By
    default every learning rate is a grid of its own; with coarse grids of several, as in Xin et al. (2022,
    arXiv:2209.11379, who find 6 to 7), it is what the next one to tune would find. The interval is the percentile
    bootstrap over seeds, the same resampled seeds at every learning rate; with few seeds it is wide, and may reach ∞.

    Args:
        selected: of one problem; several learning rates per method, which differ in nothing else. Seeds that some
            learning rate lacks, or at which it diverged, are left out.
        grids: each the learning rates of one grid.

    Returns:
        Index smto; sd_lr and sd_seed (in the unit of the column), ratio, low, high, best_lr, lrs, seeds (how many).
        Methods with one learning rate are left out.

    Raises:
        ValueError: a learning rate of a grid was not run, or a method has two runs of one learning rate and seed.
    """
    table = selected.assign(lr=[setting(config, "lr") for config in selected.config])
    if table.duplicated(["smto", "lr", "seed"]).any() or table.problem.nunique() > 1:
        raise ValueError("several runs of one method, learning rate and seed; give those that differ in these only.")
    rows = {}
    for smto, runs in table.groupby("smto", sort=False):
        both = runs.pivot(index="seed", columns="lr", values=[column, "val_delta_m"]).dropna()
        values, scores, lrs = both[column].to_numpy(), both["val_delta_m"].to_numpy(), list(both[column])
        if len(lrs) < 2 or not len(values):
            continue
        if missing := [lr for grid in grids or [] for lr in grid if lr not in lrs]:
            raise ValueError(f"{smto}: no run with the learning rate {missing[0]:g}; there are {lrs}.")
        places = [[lrs.index(lr) for lr in grid] for grid in grids or [[lr] for lr in lrs]]
        best = int(scores.mean(axis=0).argmax())
        draws = np.random.default_rng(0).integers(len(values), size=(resamples, len(values)))
        over_lrs, over_seeds = _spreads(values, scores, places, best, np.vstack([np.arange(len(values)), draws]))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = over_lrs / over_seeds
        row = {"sd_lr": over_lrs[0], "sd_seed": over_seeds[0], "ratio": ratio[0], "low": math.nan, "high": math.nan}
        if len(values) > 1:
            row["low"], row["high"] = np.nanquantile(ratio[1:], [(1 - level) / 2, (1 + level) / 2], method="nearest")
        rows[smto] = row | {"best_lr": lrs[best], "lrs": len(lrs), "seeds": len(values)}
    columns = ["sd_lr", "sd_seed", "ratio", "low", "high", "best_lr", "lrs", "seeds"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("smto")


def lr_vs_seed_by_seed(selected: pd.DataFrame, column: str = "delta_m") -> pd.DataFrame:
    """The logarithm of `lr_vs_seed`'s ratio as one value per seed, so that a t interval over seeds holds the noise of
    both spreads.

        p_s = n · ln ratio − (n − 1) · ln ratio without seed s

    These are the jackknife's pseudo-values; a mean over seeds cannot be one, since a spread between seeds belongs to no
    single seed. Source: Miller 1968, "Jackknifing variances", Annals of Mathematical Statistics 39.

    Returns:
        smto, seed, log_ratio (> 0: learning rates move the result more). With fewer than three seeds there is no spread
        without one of them, and the table is empty.
    """
    whole = lr_vs_seed(selected, column=column, resamples=1)
    rows = []
    for smto, row in whole.iterrows():
        runs = selected[selected.smto == smto]
        counts = runs.dropna(subset=[column, "val_delta_m"]).groupby("seed").size()
        seeds = counts.index[counts == row.lrs]
        for seed in seeds if len(seeds) > 2 else ():
            rest = runs[runs.seed.isin(seeds) & (runs.seed != seed)]
            without = lr_vs_seed(rest, column=column, resamples=1).ratio[smto]
            with np.errstate(divide="ignore"):
                value = len(seeds) * np.log(row.ratio) - (len(seeds) - 1) * np.log(without)
            rows.append((smto, seed, float(value)))
    return pd.DataFrame(rows, columns=["smto", "seed", "log_ratio"])


def _spreads(
    values: np.ndarray, scores: np.ndarray, grids: Sequence[Sequence[int]], best: int, draws: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each draw of seeds [R, n]: the standard deviation over grids of what the best-scored learning rate of a grid
    gives, and that over seeds at the best learning rate. values, scores: [n, learning rates]. One seed has none."""
    drawn, means, score = values[draws], values[draws].mean(axis=1), scores[draws].mean(axis=1)
    row = np.arange(len(draws))
    results = [means[row, np.array(grid)[score[:, grid].argmax(axis=1)]] for grid in grids]
    over_seeds = drawn[:, :, best].std(axis=1, ddof=1) if values.shape[0] > 1 else np.full(len(draws), math.nan)
    return np.std(results, axis=0, ddof=1) if len(grids) > 1 else np.full(len(draws), math.nan), over_seeds
