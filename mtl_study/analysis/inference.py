"""Intervals and tests.

An interval always treats the seeds as the sample: it says how much another draw of seeds would move the number, and
nothing about other data sets or other hyperparameters.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


class Interval(NamedTuple):
    """A mean over seeds with its confidence interval."""

    mean: float
    low: float
    high: float
    n: int


def finite(values: ArrayLike) -> np.ndarray:
    found = np.asarray(values, dtype=float)
    return found[np.isfinite(found)]


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Mean and t interval. Assumes independent values, about normal; NaN is left out. One value gives (−∞, ∞)."""
    sample = finite(values)
    n = len(sample)
    if n == 0:
        return Interval(math.nan, -math.inf, math.inf, 0)
    mean = float(sample.mean())
    if n == 1:
        return Interval(mean, -math.inf, math.inf, 1)
    half = float(stats.t.ppf((1 + level) / 2, n - 1) * sample.std(ddof=1) / math.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def bootstrap_interval(values: ArrayLike, level: float = 0.95, resamples: int = 9999, seed: int = 0) -> Interval:
    """Mean and percentile bootstrap interval. Assumes no shape, but is too narrow for few values (below 8, say)."""
    sample = finite(values)
    if len(sample) < 2:
        return t_interval(sample, level)
    drawn = np.random.default_rng(seed).choice(sample, (resamples, len(sample))).mean(axis=1)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(sample.mean()), float(low), float(high), len(sample))


def tost(values: ArrayLike, margin: float) -> float:
    """Two one-sided t tests: the p-value of "the mean lies outside ±margin". Small means equal, within the margin.

    A difference that is not significant is no evidence of equality; this is. p < 0.05 exactly where the 90 % interval
    of the mean lies within the margin. NaN with fewer than two values.
    """
    sample = finite(values)
    n = len(sample)
    if n < 2:
        return math.nan
    error = sample.std(ddof=1) / math.sqrt(n)
    if error == 0:
        return float(abs(sample.mean()) >= margin)
    below = stats.t.sf((sample.mean() + margin) / error, n - 1)  # of: the mean is at most −margin
    above = stats.t.cdf((sample.mean() - margin) / error, n - 1)  # of: the mean is at least +margin
    return float(max(below, above))


class Correlation(NamedTuple):
    """Spearman's rank correlation, its two-sided permutation p-value, and whether all permutations were tried."""

    rho: float
    p: float
    n: int
    exact: bool


def spearman(x: ArrayLike, y: ArrayLike, permutations: int = 9999, seed: int = 0) -> Correlation:
    """Rank correlation with a permutation test: all n! orders up to eight points, a seeded sample of orders beyond.

    Three points cannot give a p below 1/3, four none below 1/12, five none below 1/60 (both directions count).
    """
    pairs = np.column_stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)])
    ranks = stats.rankdata(pairs[np.isfinite(pairs).all(axis=1)], axis=0)
    n = len(ranks)
    if n < 3 or (np.ptp(ranks, axis=0) == 0).any():
        return Correlation(math.nan, math.nan, n, True)
    a, b = ((ranks - ranks.mean(axis=0)) / (ranks.std(axis=0) * math.sqrt(n))).T
    rho = float(a @ b)
    exact = n <= 8
    if exact:
        orders = np.array(list(itertools.permutations(range(n))))
    else:
        orders = np.random.default_rng(seed).permuted(np.tile(np.arange(n), (permutations, 1)), axis=1)
    as_extreme = np.abs(b[orders] @ a) >= abs(rho) - 1e-12
    p = as_extreme.mean() if exact else (as_extreme.sum() + 1) / (permutations + 1)
    return Correlation(rho, float(p), n, exact)
