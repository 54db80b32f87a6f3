"""Adam on one vector, for what a method learns besides the network."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class VectorAdam(nn.Module):
    """Adam for a vector of K numbers that an SMTO learns by itself (logits, log-scales, weights), outside the main
    optimizer and its schedule. The formula is torch.optim.Adam's. The moments are buffers: state_dict() carries them.

    Args:
        size: K. lr: step size.
        weight_decay: L2 form, added to the gradient.
    """

    def __init__(
        self,
        size: int,
        lr: float,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__()
        self.lr, self.weight_decay, self.betas, self.eps = lr, weight_decay, betas, eps
        self.mean: Tensor = nn.Buffer(torch.zeros(size))
        self.square: Tensor = nn.Buffer(torch.zeros(size))
        self.count = 0  # of steps taken

    @torch.no_grad()
    def step(self, vector: Tensor, gradient: Tensor) -> None:
        """Move `vector` [K] in place against `gradient` [K]."""
        (beta, beta_square), gradient = self.betas, gradient.to(vector)
        if self.weight_decay:
            gradient = gradient + self.weight_decay * vector
        self.count += 1
        self.mean.lerp_(gradient, 1 - beta)
        self.square.lerp_(gradient.square(), 1 - beta_square)
        bias, bias_square = 1 - beta**self.count, 1 - beta_square**self.count
        vector.sub_(self.lr / bias * self.mean / ((self.square / bias_square).sqrt() + self.eps))

    def get_extra_state(self) -> int:
        return self.count

    def set_extra_state(self, state: int) -> None:
        self.count = state
