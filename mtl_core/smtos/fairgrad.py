"""FairGrad: divide the gain among the tasks by α-fairness.

    w > 0 with  G w = w^(−1/α)  elementwise            d = Σ_k w_k g_k      update = d · min(1, max_norm / |d|)

α → 0 gives the sum of the gradients, α = 1 the Nash bargaining solution, α → ∞ equal gains g_k·d. Only α = 1 does not
depend on the scales of the losses.

Source: Ban, Ji 2024, arXiv:2402.15638.
Differs:
1. The source's code solves by bounded least squares from equal weights. Its tolerances are in part absolute: the
   equation is missed by about 2e-6 of itself where gradients are 0.01 long, by 4e-3 at 1e-3, by nearly all at 1e-5
   (D50). Here Newton's method solves to rounding. `solver="least_squares"` is the released solver; how often it misses
   by more than 1e-6 is counted (flag "inexact"), and how often it ends where it began (flag "unmoved"; never seen).
2. α is 2, as in the source's scripts (its class has 1).
3. The source's code multiplies d by K before it clips the update to length 1. Here d is not multiplied, and the clip,
   known from |d|² = wᵀGw, is part of the weights. Another public code leaves out the clip and weights the heads too.
4. Where 0 is in the convex hull of the gradients, as for opposite ones, there is no solution. Here the update is zero
   (flag "pareto_stationary"); the source's solver ends somewhere, with a short update, not zero unless by symmetry.
5. Far from α = 1, or where lengths span many decades, the gains g_k·d can be smaller than the rounding of the sums that
   they are. Then the bargains are followed from α = 1 to the α asked for, which takes milliseconds. Lengths over twelve
   decades are solved for α from 0.1 to 20; a solution that misses the equation is used and flagged ("inexact").
"""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from mtl_core.smtos.base import GramianWeighting, register
from mtl_core.smtos.released import bargaining_by_least_squares, is_start
from mtl_core.smtos.solvers import bargaining


@register
class FairGrad(GramianWeighting):
    """Options:
    alpha: the degree of fairness, > 0.
    max_norm: longest shared update; None for no clip.
    solver: "newton" (exact) or the released "least_squares".
    """

    key = "fairgrad"
    native_scale = "length at most 1 (max_norm)"

    def __init__(
        self,
        num_tasks: int,
        alpha: Annotated[float, Field(gt=0)] = 2.0,
        max_norm: Annotated[float, Field(gt=0)] | None = 1.0,
        solver: Literal["newton", "least_squares"] = "newton",
    ) -> None:
        super().__init__(num_tasks)
        self.alpha, self.max_norm, self.solver = alpha, max_norm, solver
        self.undefined_at_stationary = solver == "newton"

    def weights(self, gramian: np.ndarray) -> np.ndarray:
        """Gramian of the task gradients [K, K] to task weights [K], > 0."""
        if self.solver == "newton":
            w = self.record(bargaining(gramian, self.alpha))
        else:
            w = self.record(bargaining_by_least_squares(gramian, self.alpha))
            self.flags += ["unmoved"] * (len(w) > 1 and is_start(w))
        length = np.sqrt(max(w @ gramian @ w, 0.0))
        return w if self.max_norm is None or length <= self.max_norm else w * (self.max_norm / length)
