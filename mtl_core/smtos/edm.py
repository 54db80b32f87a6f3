"""EDM: follow the bisector. The update is equally long along every task's gradient (every k with α_k > 0).

    u_k = g_k / |g_k|      α = weights of the point of least norm in the convex hull of the u_k
    w_k = (α_k / |g_k|) / Σ_j (α_j / |g_j|)            update = Σ_k w_k g_k

A task with α_k = 0 gains more than the others, along its unit gradient, without being asked.

Source: Katrutsa, Merkulov, Tursynbek, Oseledets 2020, "Follow the bisector", arXiv:2007.06937.
Differs:
1. The source's own code handles two tasks only. For K > 2 the released code of the main paper runs Frank-Wolfe, at most
   250 rounds. Here the point of least norm is exact; `solver="search"` is that search (D26), and how often it
   misses is counted (flag "inexact").
2. Where one task has no gradient, the released code stops the shared update (D27); here that task is left out of the
   step by the one policy for edges (base.py). Option `zero_gradient="stop"` is the released behaviour.
"""

from typing import Literal

import numpy as np

from mtl_core.smtos.base import GramianWeighting, register
from mtl_core.smtos.released import min_norm_by_search
from mtl_core.smtos.solvers import Solution, cosines, min_norm_point

Solver = Literal["exact", "search"]


def bisector(gramian: np.ndarray, solver: Solver = "exact") -> Solution:
    """Gramian of gradients, none of them zero, [K, K] to weights [K], ≥ 0, summing to 1."""
    norms, C = cosines(gramian)
    solution = min_norm_point(C) if solver == "exact" else min_norm_by_search(C, "vertex")
    weights = solution.weights / norms
    return solution._replace(weights=weights / weights.sum())


@register
class EDM(GramianWeighting):
    """Options:
    zero_gradient: what a task without gradient does to the step, "skip" (it is left out) or "stop" (no shared update).
    solver: of the least norm, "exact" or the released "search".
    """

    key = "edm"
    native_scale = "weights sum to 1"

    def __init__(
        self, num_tasks: int, zero_gradient: Literal["skip", "stop"] = "skip", solver: Solver = "exact"
    ) -> None:
        super().__init__(num_tasks)
        self.zero_gradient, self.solver = zero_gradient, solver

    def weights(self, gramian: np.ndarray) -> np.ndarray:
        """Gramian of the task gradients [K, K] to task weights [K], ≥ 0, summing to 1."""
        if self.zero_gradient == "stop" and len(gramian) < self.num_tasks:
            return np.zeros(len(gramian))
        return self.record(bisector(gramian, self.solver))
