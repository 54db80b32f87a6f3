"""DWA: a task whose loss falls more slowly than that of the others gets more weight, once per epoch.

    r_k = L̄_k(t−1) / L̄_k(t−2)      (mean training losses of the last two epochs)
    w = K softmax(r / T)             w = 1 in the first two epochs

Source: Liu, Johns, Davison 2019, arXiv:1803.10704.
Differs:
1. None from the text. A variant in other codes takes windows of 25 steps instead of epochs.
2. A mean loss of 0 counts as 1e-12; the first step of the epoch is flagged.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from mtl_core.smtos.base import LossWeighting, register


@register
class DWA(LossWeighting):
    """Options:
    temperature: T; the larger, the closer the weights are to 1.
    """

    key = "dwa"
    native_scale = "weights sum to K"
    remembered = ("epochs_seen",)
    needs = ("begin_epoch",)

    def __init__(self, num_tasks: int, temperature: Annotated[float, Field(gt=0)] = 2.0) -> None:
        super().__init__(num_tasks)
        self.temperature = temperature
        self.epochs_seen = 0
        self.w: Tensor = nn.Buffer(torch.ones(num_tasks))
        self.last: Tensor = nn.Buffer(torch.ones(num_tasks))

    def begin_epoch(self, epoch: int, mean_losses: Tensor | None, lr: float) -> None:
        if mean_losses is None:
            return
        present = self.floored_means(mean_losses).to(self.w)
        if self.epochs_seen > 0:
            self.w.copy_(self.num_tasks * (present / self.last / self.temperature).softmax(0))
        self.last.copy_(present)
        self.epochs_seen += 1

    def weights(self, losses: Tensor) -> Tensor:
        """Losses [K] to this epoch's weights, > 0, summing to K."""
        return self.w.to(losses, copy=True)
