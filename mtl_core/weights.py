"""Do weights settle? How much a method's weights move early and late in training, and how constant they are.

Both read the epoch means of the normalised weights that the paper logs (`metrics.trajectories`), so that movement
within an epoch counts for nothing. Runs of fewer than six epochs have no value, nor have methods without weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from mtl_core import metrics

FEWEST = 6  # epochs: below, a third of training is no step at all


def _trajectories(runs: Iterable[Any]) -> Iterator[tuple[tuple[str, str, str, int], np.ndarray]]:
    """Every run and its normalised weights, [epochs, K]; with fewer than six epochs there are none, [0, 0]."""
    for run in runs:
        table = metrics.trajectories([run]).pivot(index="epoch", columns="task", values="weight")
        yield metrics.run_key(run), table.to_numpy() if len(table) >= FEWEST else np.empty((0, 0))


def drift(runs: Iterable[Any]) -> pd.DataFrame:
    """How fast the weights move in the first third of training, how fast in the last, and the ratio.

        speed(e) = 1/K · Σ_k |w_k(e) − w_k(e − 1)|      w: epoch means, normalised to sum 1
        log_ratio = ln(mean speed in the last third / mean speed in the first third)

    The ratio is taken as a logarithm, so that twice as fast and half as fast are equally far from no change and a t
    interval over seeds makes sense. The step size falls during training, too: weights that follow the parameters slow
    down with them. Chance keeps a ratio near 0: a method whose weights are drawn anew in every step does not settle.

    Returns:
        problem, smto, config, seed, early and late (mean speed per epoch), log_ratio (< 0: the weights settle; NaN
        where they never moved).
    """
    rows = []
    for key, weights in _trajectories(runs):
        early = late = math.nan
        if len(weights):
            speed = np.abs(np.diff(weights, axis=0)).mean(axis=1)
            third = len(speed) // 3
            early, late = float(speed[:third].mean()), float(speed[-third:].mean())
        with np.errstate(divide="ignore", invalid="ignore"):
            rows.append((*key, early, late, float(np.log(np.divide(late, early)))))
    return pd.DataFrame(rows, columns=[*metrics.RUN, "early", "late", "log_ratio"])


def static_cv(runs: Iterable[Any], part: float = 0.8) -> pd.DataFrame:
    """How constant the weights are over the last 80 % of training: their coefficient of variation, mean over tasks.

        cv = 1/K · Σ_k sd_e(w_k(e)) / mean_e(w_k(e))      e: the last ⌈part · E⌉ epochs

    0 is a fixed weight; 0.1 means that a weight is typically within a tenth of its mean. The standard deviation is
    that of these epochs, divided by their number.

    Returns:
        problem, smto, config, seed, cv.
    """
    rows = []
    for key, weights in _trajectories(runs):
        cv = math.nan
        if len(weights):
            late = weights[-math.ceil(part * len(weights)) :]
            with np.errstate(divide="ignore", invalid="ignore"):
                cv = float((late.std(axis=0) / np.abs(late.mean(axis=0))).mean())
        rows.append((*key, cv))
    return pd.DataFrame(rows, columns=[*metrics.RUN, "cv"])
