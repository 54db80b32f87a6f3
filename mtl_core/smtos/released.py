"""The K×K solvers of released codes, for the options that repeat these: scipy's general optimisers, started at equal
weights, with the codes' tolerances and the small numbers that they add. `solvers` has what is used otherwise.

scipy.optimize is imported where it is used: it takes half a second, and only these options need it.
"""

from __future__ import annotations

import numpy as np

from mtl_core.smtos.solvers import Solution, cagrad_miss

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
