"""Fixed weights: the weights that the user gives, the same in every step.

    w_k given                                          update = Σ_k w_k g_k, each head its own w_k

Source: scalarisation; the main paper (Gama and Grassi 2025, arXiv:2505.10347) trains with the time average of another
method's weights, brought to sum 1.
Differs:
1. The weights are used as given: any non-negative numbers, which need not sum to 1.
"""

import math

import torch
from torch import Tensor, nn

from mtl_core.options import BadOption
from mtl_core.smtos.base import LossWeighting, register


@register
class Fixed(LossWeighting):
    """Options:
    weights: one number ≥ 0 per task, at least one of them positive.
    """

    key = "fixed"
    native_scale = "as given"

    def __init__(self, num_tasks: int, weights: list[float] | None = None) -> None:
        super().__init__(num_tasks)
        if weights is None:
            raise BadOption(f"fixed: option weights is missing; give {num_tasks} numbers ≥ 0, one per task.")
        if len(weights) != num_tasks:
            raise BadOption(f"fixed: {len(weights)} weights for {num_tasks} tasks: {weights}; give one per task.")
        if not all(math.isfinite(w) and w >= 0 for w in weights) or not any(weights):
            raise BadOption(f"fixed: weights are {weights}; they must be finite, ≥ 0 and not all 0.")
        self.given: Tensor = nn.Buffer(torch.tensor(weights, dtype=torch.float64))

    def weights(self, losses: Tensor) -> Tensor:
        """Losses [K] to the given weights."""
        return self.given.to(losses)
