"""The task weights that a method gave: epoch by epoch, how far from equal, where they settled, how much they moved.

Everything is read off the means over an epoch, so that movement within an epoch counts for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pandas as pd

from mtl_study.analysis.frames import RUN, as_float, run_key
from mtl_study.experiments.runs import Epoch, Run


def trajectories(runs: Iterable[Run]) -> pd.DataFrame:
    """Weights per epoch, normalised to sum 1 over tasks, for the methods that have weights.

    Returns:
        problem, smto, config, seed, epoch, task, weight (epoch mean of the raw weight over the sum of those means).
    """
    rows = []
    for run in runs:
        for epoch, record in enumerate(run.history):
            weights = np.array(epoch_weights(run.config.smto, record))
            if not np.isfinite(weights).all() or not weights.sum():
                continue
            for task, weight in zip(record.val, weights / weights.sum(), strict=True):
                rows.append((*run_key(run), epoch, task, weight))
    return pd.DataFrame(rows, columns=[*RUN, "epoch", "task", "weight"])


def epoch_weights(smto: str, record: Epoch) -> list[float]:
    """The weights of a method in one epoch as the paper logs them, mean over its steps, not normalised [K].

    Of Nash-MTL those before its clip, of IMTL the balancing ones without the learnt scales (D25), of all others what
    they put on the gradients of the shared parameters.
    """
    if smto == "nash_mtl":
        return [as_float(value) for value in record.head_weights]
    if smto == "imtl":
        return [as_float(record.diagnostics.get(f"alpha_{k}")) for k in range(len(record.weights))]
    return [as_float(value) for value in record.weights]


def distance_from_equal(runs: Iterable[Run]) -> pd.DataFrame:
    """How far the weights are from equal, per run and epoch: |w₁ − 1/K| of the first task's normalised weight.

    Returns:
        problem, smto, config, seed, epoch, distance; with two tasks 0 is the uniform loss and ½ is a single task.
    """
    weights = trajectories(runs)
    share = 1 / weights.groupby([*RUN, "epoch"])["task"].transform("size")
    first = weights.groupby([*RUN, "epoch"]).cumcount() == 0
    return weights[first].assign(distance=(weights.weight - share).abs()[first]).drop(columns=["task", "weight"])


def ema(values: pd.DataFrame, factor: float = 0.9) -> pd.DataFrame:
    """Exponential moving average over epochs, the rows: m_0 = w_0, m_e = factor · m_{e−1} + (1 − factor) · w_e."""
    return values.ewm(alpha=1 - factor, adjust=False).mean()


def fixed_weights(run: Run, factor: float = 0.9) -> Mapping[str, float]:
    """The weights that a run settled on, as the paper extracts them: EMA of the normalised epoch means, last epoch.

    Raises:
        ValueError: the method has no weights.
    """
    weights = trajectories([run])
    if weights.empty:
        raise ValueError(f"{run.config.smto} gives no weights, so none can be taken from it.")
    last = ema(by_epoch(weights), factor).iloc[-1]
    return (last / last.sum()).to_dict()


def by_epoch(trajectory: pd.DataFrame) -> pd.DataFrame:
    """The weights of one run, of `trajectories`, as a table: index epoch, one column per task, in task order."""
    table = trajectory.pivot(index="epoch", columns="task", values="weight")
    return table[list(trajectory.task.unique())]


FEWEST = 6  # epochs: below, a third of training is no step at all


def _settling(runs: Iterable[Run]) -> Iterator[tuple[tuple[str, str, str, int], np.ndarray]]:
    """Every run and its normalised weights, [epochs, K]; with fewer than six epochs there are none, [0, 0]."""
    for run in runs:
        table = by_epoch(trajectories([run]))
        yield run_key(run), table.to_numpy() if len(table) >= FEWEST else np.empty((0, 0))


def drift(runs: Iterable[Run]) -> pd.DataFrame:
    """How fast the weights move in the first third of training, how fast in the last, and the ratio.

        speed(e) = 1/K · Σ_k |w_k(e) − w_k(e − 1)|      w: epoch means, normalised to sum 1
        log_ratio = ln(mean speed in the last third / mean speed in the first third)

    The ratio is taken as a logarithm, so that twice as fast and half as fast are equally far from no change and a t
    interval over seeds makes sense. The step size falls during training, too: weights that follow the parameters slow
    down with them. Chance keeps a ratio near 0: a method that draws new weights in every step does not settle.

    Returns:
        problem, smto, config, seed, early and late (mean speed per epoch), log_ratio (< 0: the weights settle; NaN
        where they never moved).
    """
    rows = []
    for key, weights in _settling(runs):
        early = late = math.nan
        if len(weights):
            speed = np.abs(np.diff(weights, axis=0)).mean(axis=1)
            third = len(speed) // 3
            early, late = float(speed[:third].mean()), float(speed[-third:].mean())
        with np.errstate(divide="ignore", invalid="ignore"):
            rows.append((*key, early, late, float(np.log(np.divide(late, early)))))
    return pd.DataFrame(rows, columns=[*RUN, "early", "late", "log_ratio"])


def static_cv(runs: Iterable[Run]) -> pd.DataFrame:
    """How constant the weights are over the last 80 % of training: their coefficient of variation, mean over tasks.

        cv = 1/K · Σ_k sd_e(w_k(e)) / mean_e(w_k(e))      e: the last ⌈0.8 E⌉ epochs

    0 is a fixed weight; 0.1 means that a weight is typically within a tenth of its mean. The standard deviation is
    that of these epochs, divided by their number.

    Returns:
        problem, smto, config, seed, cv.
    """
    rows = []
    for key, weights in _settling(runs):
        cv = math.nan
        if len(weights):
            late = weights[-math.ceil(0.8 * len(weights)) :]
            with np.errstate(divide="ignore", invalid="ignore"):
                cv = float((late.std(axis=0) / np.abs(late.mean(axis=0))).mean())
        rows.append((*key, cv))
    return pd.DataFrame(rows, columns=[*RUN, "cv"])
