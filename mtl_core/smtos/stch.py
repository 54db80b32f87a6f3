"""STCH: smooth Tchebycheff scalarisation. Minimise a smooth maximum of the losses, so that the worst task leads.

    f_k = log(L_k / ref_k)        minimise K μ log Σ_k e^(f_k / μ)        w_k = K softmax(f / μ)_k / L_k
    warm-up: minimise Σ_k log L_k for some epochs, w_k = 1 / L_k; ref is the mean training loss of the last of them

μ → ∞ is SI, μ → 0 trains the worst task only.

Source: Lin, Zhang, Yang, Liu, Wang, Zhang 2024, arXiv:2402.19078, in the form of its released multi-task code.
Differs:
1. That code adds 1e-20 inside the logarithms; here a loss of 0 counts as 1e-12, with a flag.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from mtl_core.smtos.base import LossWeighting, register


@register
class STCH(LossWeighting):
    """Options:
    mu: μ, how smooth the maximum is.
    warm_up: epochs of summed logarithms before the epoch, of the same kind, whose mean losses become ref.
    """

    key = "stch"
    native_scale = "K times the weighted mean of g_k / L_k"
    positive_losses = True
    remembered = ("warm",)
    needs = ("begin_epoch",)

    def __init__(
        self, num_tasks: int, mu: Annotated[float, Field(gt=0)] = 1.0, warm_up: Annotated[int, Field(ge=0)] = 4
    ) -> None:
        super().__init__(num_tasks)
        self.mu, self.warm_up = mu, warm_up
        self.warm = False  # whether ref is known
        self.ref: Tensor = nn.Buffer(torch.ones(num_tasks))

    def begin_epoch(self, epoch: int, mean_losses: Tensor | None, lr: float) -> None:
        if epoch > self.warm_up and not self.warm and mean_losses is not None:
            self.ref.copy_(self.floored_means(mean_losses))
            self.warm = True

    def weights(self, losses: Tensor) -> Tensor:
        """Positive losses [K] to weights, > 0."""
        if not self.warm:
            return losses.reciprocal()
        return self.num_tasks * ((losses / self.ref.to(losses)).log() / self.mu).softmax(0) / losses
