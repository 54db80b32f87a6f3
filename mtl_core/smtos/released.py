"""The K×K solvers of released codes, for the options that repeat these, with the codes' tolerances and the small
numbers that they add: scipy's general optimizers, started at equal weights, and a search for the point of least norm.
`solvers` has what is used otherwise.

scipy's solvers are imported where they are used: that takes half a second, and only these options need it.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from mtl_core.smtos.solvers import Solution, cagrad_miss, min_norm_miss

#: what the released code of CAGrad adds under roots and to lengths
EPSILON = 1e-8


def cagrad_dual_by_slsqp(gramian: np.ndarray, c: float, linear: float = 1.0, cone: float = 1.0) -> Solution:
    """argmin linear · g_w·g_0 + cone · c |g_0| |g_w| over the simplex, as CAGrad's and IMGrad's released codes seek it.

    SLSQP with numerical derivatives ends where a step promises less than its tolerance of 1e-6. That is an absolute
    number, and the objective is as long as the gradients squared. So it ends at once, at equal weights, where

        (linear + cone c)² Σ_k (g_k·g_0 − g_0·g_0)² < 1e-6

    For two tasks that is ||g_1|² − |g_2|²| < √8 · 1e-3 / (linear + cone c).
    """
    from scipy.optimize import minimize

    start = np.full(len(gramian), 1 / len(gramian))
    along, radius = gramian.mean(1), c * np.sqrt(gramian.mean() + EPSILON) + EPSILON
    found = minimize(
        lambda w: linear * w @ along + cone * radius * np.sqrt(w @ gramian @ w + EPSILON),
        start,
        method="SLSQP",
        bounds=[(0, 1)] * len(start),
        constraints={"type": "eq", "fun": lambda w: 1 - w.sum()},
    )
    return Solution(found.x, found.nit, cagrad_miss(gramian, c * cone / linear, found.x))


def bargaining_by_least_squares(gramian: np.ndarray, alpha: float) -> Solution:
    """The w > 0 with G w = w^(−1/α), as FairGrad's released code seeks it: least squares of the two sides' difference.

    Its tolerances of 1e-8 are absolute in part, while w grows as the gradients get shorter. The residual is
    max |(G w) w^(1/α) − 1|.
    """
    from scipy.optimize import least_squares

    start = np.full(len(gramian), 1 / len(gramian))
    found = least_squares(lambda w: gramian @ w - w ** (-1 / alpha), start, bounds=(0, np.inf))
    return Solution(found.x, found.nfev, float(np.abs(gramian @ found.x * found.x ** (1 / alpha) - 1).max()))


def is_start(weights: np.ndarray) -> bool:
    """Whether a solver's weights [K] are those that it began with."""
    return bool((weights == 1 / len(weights)).all())


def min_norm_by_search(gramian: np.ndarray, rule: Literal["gradient", "vertex"]) -> Solution:
    """argmin wᵀGw over the simplex, as the released codes of MGDA ("gradient") and EDM ("vertex", Frank-Wolfe) seek it.

    They begin with the best pair of gradients. For three and more, at most 250 rounds follow, each to the best point of
    the segment from w to a target: a step against the slope as far as the simplex goes, or the gradient of least inner
    product with g_w. A best point that is an end of the segment is missed by a thousandth of it. They end where w would
    move by less than 1e-5 in sum.
    """
    K = len(gramian)
    if K == 1:
        return Solution(np.ones(1), 0, 0.0)
    w, rounds = _best_pair(gramian), 0
    while K > 2 and rounds < 250:
        rounds += 1
        products = gramian @ w
        target = _downhill(w, products) if rule == "gradient" else np.eye(K)[products.argmin()]
        share = _share_of_first(w @ products, target @ products, target @ gramian @ target)
        new = share * w + (1 - share) * target
        if np.abs(new - w).sum() < 1e-5:
            break
        w = new
    return Solution(w, rounds, min_norm_miss(gramian, w))


def _share_of_first(first: float, between: float, second: float) -> float:
    """Where the segment between two vectors is nearest to 0, given their inner products; 0.999, 0.001 for its ends."""
    if between >= first:
        return 0.999
    return 0.001 if between >= second else (second - between) / (first + second - 2 * between)


def _best_pair(gramian: np.ndarray) -> np.ndarray:
    """Weights [K] of the shortest combination of two gradients, ends counted as they are."""
    best, shortest = np.zeros(len(gramian)), np.inf
    for i, j in zip(*np.triu_indices(len(gramian), 1), strict=True):
        first, between, second = gramian[i, i], gramian[i, j], gramian[j, j]
        share = _share_of_first(first, between, second)
        inside = second + share * (between - second)
        length = first if between >= first else second if between >= second else inside
        if length < shortest:
            best, shortest = np.zeros(len(gramian)), length
            best[i], best[j] = share, 1 - share
    return best


def _downhill(w: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """From w [K] against the slope, to where the first weight gets 0 or 1 (but by 1 at most where none is on its way to
    0); then the nearest point of the simplex."""
    along = slope.mean() - slope
    falling, rising = -w[along < 0] / along[along < 0], (1 - w[along > 0]) / along[along > 0]
    reach = min(falling[falling > 1e-7], default=1.0)
    y = w + along * min([reach, *rising[rising > 1e-7]])
    largest = np.sort(y)[::-1]
    excess = (largest.cumsum() - 1) / np.arange(1, len(y) + 1)
    nearest: np.ndarray = np.maximum(y - excess[largest > excess][-1], 0.0)
    return nearest
