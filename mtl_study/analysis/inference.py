"""Intervals and tests.

An interval always treats the seeds as the sample: it says how much another draw of seeds would move the number, and
nothing about other data sets or other hyperparameters.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

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
    """The values that are neither NaN nor infinite."""
    found = np.asarray(values, dtype=float)
    return found[np.isfinite(found)]


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Mean and t interval. Assumes independent values, about normal; NaN is left out. One value gives (−∞, ∞)."""
    sample = finite(values)
    if len(sample) < 2:
        return Interval(float(sample[0]) if len(sample) else math.nan, -math.inf, math.inf, len(sample))
    low, high = _t_test(sample).confidence_interval(level)
    return Interval(float(sample.mean()), float(low), float(high), len(sample))


def _t_test(sample: np.ndarray, mean: float = 0.0, alternative: str = "two-sided") -> Any:
    """scipy's t test; that values are all but equal is no reason for it to warn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        return stats.ttest_1samp(sample, mean, alternative=alternative)


def tost(values: ArrayLike, margin: float) -> float:
    """Two one-sided t tests: the p-value of "the mean lies outside ±margin". Small means equal, within the margin.

    A difference that is not significant is no evidence of equality; this is. p < 0.05 exactly where the 90 % interval
    of the mean lies within the margin. NaN with fewer than two values.
    """
    sample = finite(values)
    if len(sample) < 2:
        return math.nan
    below, above = _t_test(sample, -margin, "greater").pvalue, _t_test(sample, margin, "less").pvalue
    return float(np.nan_to_num(np.max([below, above]), nan=1.0))  # equal values, just at the margin, have none


class Correlation(NamedTuple):
    """Spearman's rank correlation, its two-sided permutation p-value, and whether all permutations were tried."""

    rho: float
    p: float
    n: int
    exact: bool


def spearman(x: ArrayLike, y: ArrayLike) -> Correlation:
    """Rank correlation with a permutation test: all n! orders up to eight points, a seeded sample of 9,999 beyond.

    Three points cannot give a p below 1/3, four none below 1/12, five none below 1/60 (both directions count).
    """
    pairs = np.column_stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)])
    ranks = stats.rankdata(pairs[np.isfinite(pairs).all(axis=1)], axis=0)
    n, exact = len(ranks), len(ranks) <= 8
    if n < 3 or (np.ptp(ranks, axis=0) == 0).any():
        return Correlation(math.nan, math.nan, n, True)
    a, b = stats.zscore(ranks).T
    test = stats.permutation_test(
        [b],
        lambda orders, axis: np.abs(orders @ a) / n,
        permutation_type="pairings",
        vectorized=True,
        alternative="greater",  # of the absolute value: both directions count
        n_resamples=math.factorial(n) if exact else 9999,
        rng=np.random.default_rng(0),
    )
    return Correlation(float(a @ b / n), float(test.pvalue), n, exact)
