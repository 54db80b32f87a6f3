"""RLW: random weights, drawn afresh in every step. If chance does as well as a method, the method has little to say.

    RLW-Normal      w = softmax(ξ)   with ξ ~ N(0, 1)^K
    RLW-Dirichlet   w = v            with v ~ Dirichlet(1, …, 1), uniform on the simplex

E[w_k] = 1/K for both, so the expected update is that of the uniform loss.

Source: Lin, Ye, Zhang, Tsang 2022, arXiv:2111.10603.
Differs:
1. None from the source, where the weights sum to 1. In the released code of the main paper, and in the code that it
   extends, they sum to K: `scale="sum"`. To Adam without weight decay the two are one.
2. One generator per run, on the host, serves both draws: the same seed gives the same weights on every device. (The
   released code draws one with Python's generator and the other with torch's.)
"""

from typing import Literal

import torch
from torch import Tensor

from mtl_core.smtos.base import LossWeighting, register


class RLW(LossWeighting):
    """Random weights; the subclasses say from which distribution.

    Options:
    scale: weights that sum to 1 ("mean") or to K ("sum").
    """

    code_version = 2
    native_scale = "weights sum to 1"

    def __init__(self, num_tasks: int, scale: Literal["mean", "sum"] = "mean") -> None:
        super().__init__(num_tasks)
        self.scale = scale

    def draw(self) -> Tensor:
        """A point of the simplex [K]."""
        raise NotImplementedError

    def weights(self, losses: Tensor) -> Tensor:
        """Losses [K] to random weights, ≥ 0."""
        return (self.draw() * (self.num_tasks if self.scale == "sum" else 1)).to(losses, non_blocking=True)


@register
class RLWNormal(RLW):
    key = "rlw_normal"

    def draw(self) -> Tensor:
        return torch.randn(self.num_tasks, generator=self.generator).softmax(0)


@register
class RLWDirichlet(RLW):
    key = "rlw_dirichlet"

    def draw(self) -> Tensor:
        gammas = torch.empty(self.num_tasks).exponential_(generator=self.generator)  # Gamma(1) is Exp(1)
        return gammas / gammas.sum()
