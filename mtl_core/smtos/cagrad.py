"""CAGrad: within a ball around the mean gradient, the direction along which the worst-off task gains most.

    maximise min_k g_k·d  subject to  |d − g_0| ≤ c |g_0|,  g_0 the mean gradient; by its dual
    w = argmin over the simplex of g_w·g_0 + c |g_0| |g_w|,  g_w = Σ_k w_k g_k
    d = g_0 + (c |g_0| / |g_w|) g_w                    update = d / (1 + c²)

Source: Liu, Liu, Jin, Stone, Liu 2021, arXiv:2110.14048.
Differs:
1. The source's code multiplies the update by K, that of the main paper does not; nor does this. Both divide by 1 + c²
   (`rescale=1`; 0: not at all, 2: by 1 + c).
2. The dual is solved exactly. Both codes run SLSQP from equal weights, and its tolerance of 1e-6 is absolute (D50): it
   ends where it began wherever (1 + c)² Σ_k (g_k·g_0 − |g_0|²)² < 1e-6, for two tasks and c = 0.5 wherever both
   gradients are shorter than 0.043. The update is then the mean gradient times (1 + c)/(1 + c²). `solver="slsqp"` is
   the released solver, with the 1e-8 that the codes add under the roots and to the lengths, which is felt below lengths
   of 1e-4; how often it ends where it began is counted (flag "unmoved"), and how often that, or where else it ends, is
   no solution (flag "inexact").
3. The weights recorded are those of the update; the main paper's log omits the factor 1 / (1 + c²).
4. Where the dual is solved by g_w = 0 it says nothing about d; then d = g_0 (flag "pareto_stationary").
5. c is 0.5; the main paper searches {0.2, 0.5, 0.8}. For c ≥ 1 the source promises no convergence (a warning says so).
"""

import warnings
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from mtl_core.smtos.base import GramianWeighting, register
from mtl_core.smtos.released import EPSILON, cagrad_dual_by_slsqp, is_start
from mtl_core.smtos.solvers import cagrad_dual


@register
class CAGrad(GramianWeighting):
    """Options:
    c: radius of the ball over the length of the mean gradient, ≥ 0.
    rescale: what d is divided by: 0 nothing, 1 for 1 + c², 2 for 1 + c.
    solver: of the dual, "exact" or the released "slsqp".
    """

    key = "cagrad"
    native_scale = "(1 + c)/(1 + c²) at most, times the mean gradient's length"
    averages = True

    def __init__(
        self,
        num_tasks: int,
        c: Annotated[float, Field(ge=0)] = 0.5,
        rescale: Literal[0, 1, 2] = 1,
        solver: Literal["exact", "slsqp"] = "exact",
    ) -> None:
        super().__init__(num_tasks)
        if c >= 1:
            warnings.warn(f"{self.key}: c = {c}; for c ≥ 1 the method is not known to converge.", stacklevel=2)
        self.c, self.rescale, self.solver = c, rescale, solver

    def weights(self, gramian: np.ndarray) -> np.ndarray:
        """Gramian of the task gradients [K, K] to task weights [K], > 0."""
        return self.toward(gramian, self.dual(gramian))

    def dual(self, gramian: np.ndarray, linear: float = 1.0, cone: float = 1.0) -> np.ndarray:
        """w [K] on the simplex: the least linear · g_w·g_0 + cone · c |g_0| |g_w|."""
        if self.solver == "exact" or len(gramian) == 1:
            return self.record(cagrad_dual(gramian, self.c * cone / linear))
        w = self.record(cagrad_dual_by_slsqp(gramian, self.c, linear, cone))
        self.flags += ["unmoved"] * is_start(w)
        return w

    def toward(self, gramian: np.ndarray, w: np.ndarray) -> np.ndarray:
        """Weights of d [K]: from the mean gradient, c |g_0| in the direction of g_w."""
        weights = np.full(len(w), 1 / len(w))
        mean_length, length = np.sqrt(max(gramian.mean(), 0.0)), np.sqrt(max(w @ gramian @ w, 0.0))
        if self.solver == "slsqp":
            weights += (self.c * np.sqrt(gramian.mean() + EPSILON) + EPSILON) / (length + EPSILON) * w
        elif length > 1e-5 * (w @ np.sqrt(gramian.diagonal())):
            weights += self.c * mean_length / length * w
        else:
            self.flags.append("pareto_stationary")
        return weights / {0: 1, 1: 1 + self.c**2, 2: 1 + self.c}[self.rescale]
