"""Unitary scalarisation: the plain mean of the losses, the baseline that every SMTO must beat.

    w_k = 1/K

Source: Kurin, De Palma, Kostrikov, Whiteson, Kumar 2022, arXiv:2201.04122.
Differs:
1. The source minimises the sum; the main paper's prose says sum, its released code the mean (D1). The mean is the
   default; `scale="sum"` is the sum. Under Adam they differ only through the L2 weight decay.
"""

from typing import Literal

import torch
from torch import Tensor

from mtl_core.smtos.base import LossWeighting, register


@register
class UnitScal(LossWeighting):
    """Options:
    scale: the "mean" of the losses, or their "sum".
    """

    key = "unit_scal"
    head_policy = "mean"
    native_scale = "weights sum to 1"

    def __init__(self, num_tasks: int, scale: Literal["mean", "sum"] = "mean") -> None:
        super().__init__(num_tasks)
        self.scale = scale

    def weights(self, losses: Tensor) -> Tensor:
        """Losses [K] to 1/K each."""
        return torch.full_like(losses, 1.0 if self.scale == "sum" else 1 / self.num_tasks)
