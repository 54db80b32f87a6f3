"""FairGrad: divide the gain among the tasks by α-fairness.

    w > 0 with  G w = w^(−1/α)  elementwise            d = Σ_k w_k g_k      update = d · min(1, max_norm / |d|)

α → 0 gives the sum of the gradients, α = 1 the Nash bargaining solution, α → ∞ equal gains g_k·d. Only α = 1 does not
depend on the scales of the losses.

Source: Ban, Ji 2024, arXiv:2402.15638.
Differs:
1. The source's code solves by bounded least squares, and multiplies d by K before it clips the update to length 1. Here
   Newton's method solves to rounding, d is not multiplied, and the clip, known from |d|² = wᵀGw, is part of the
   weights. Another public code leaves out the clip and weights the heads as well.
2. α is 2, as in the source's scripts (its class has 1).
3. Far from α = 1, or where lengths span many decades, the gains g_k·d can be smaller than the rounding of the sums that
   they are. Then the bargains are followed from α = 1 to the α asked for, which takes milliseconds. Lengths over twelve
   decades are solved for α from 0.1 to 20; a solution that misses the equation is used and flagged ("inexact").
"""

from typing import Annotated

import numpy as np
from pydantic import Field

from mtl_core.smtos.base import GramianWeighting, register
from mtl_core.smtos.solvers import bargaining


@register
class FairGrad(GramianWeighting):
    """Options:
    alpha: the degree of fairness, > 0.
    max_norm: longest shared update; None for no clip.
    """

    key = "fairgrad"
    native_scale = "length at most 1 (max_norm)"
    undefined_at_stationary = True

    def __init__(
        self,
        num_tasks: int,
        alpha: Annotated[float, Field(gt=0)] = 2.0,
        max_norm: Annotated[float, Field(gt=0)] | None = 1.0,
    ) -> None:
        super().__init__(num_tasks)
        self.alpha, self.max_norm = alpha, max_norm

    def weights(self, gramian: np.ndarray) -> np.ndarray:
        """Gramian of the task gradients [K, K] to task weights [K], > 0."""
        w = self.record(bargaining(gramian, self.alpha))
        return w if self.max_norm is None else w * min(1.0, self.max_norm / np.sqrt(w @ gramian @ w))
