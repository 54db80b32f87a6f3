"""LDC-MTL: a weighted mean of the losses and a penalty where neighbours differ; both teach the weights, too.

    minimise Σ_k σ_k L_k / Σ_j σ_j + λ Σ_{k<K} |σ_k L_k − σ_{k+1} L_{k+1}|         σ = sigmoid(θ), θ = 1 at the start
    with s_k the sign of σ_k L_k − σ_{k+1} L_{k+1}, s_0 = s_K = 0:
    w_k = σ_k (1 / Σ_j σ_j + λ (s_k − s_{k−1}))               ∂/∂θ_k = (1 − σ_k) w_k L_k

The sum Σ_j σ_j is not differentiated, so θ falls for every task whose w_k L_k is positive. The penalty compares a task
with its neighbours: for three tasks and more their order matters. w_k can be negative where 2λ exceeds 1 / Σ_j σ_j.

Source: Xiao, Dong, Zou, Ji 2025, "LDC-MTL: balancing multi-task learning through scalable loss discrepancy control",
arXiv:2502.08585.
Differs:
1. In the source's text a network reads the features and gives σ, and σ and the network are the levels of a bilevel
   problem, of which every step is of first order. The authors' code for CelebA has one number θ_k per task in place of
   the network and descends the sum above in everything at once; we do the same.
2. Their code for QM9 puts log(L_k / L_k⁰) in place of L_k, with L_k⁰ from the first step of each epoch, and starts θ at
   random; that for the two street datasets has the network. Neither is offered.
3. θ joins the main optimizer, with its learning rate, schedule and weight decay, as in that code.
"""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from mtl_core.smtos.base import LossWeighting, StepResult, register
from mtl_core.step import Step


@register
class LDCMTL(LossWeighting):
    """Options:
    lamb: λ, the weight of the penalty.
    """

    key = "ldc_mtl"
    native_scale = "weights sum to 1, but for the penalty"
    needs = ("parameters",)

    def __init__(self, num_tasks: int, lamb: Annotated[float, Field(ge=0)] = 0.01) -> None:
        super().__init__(num_tasks)
        self.lamb = lamb
        self.theta = nn.Parameter(torch.ones(num_tasks))

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """θ with the main optimizer's learning rate and weight decay."""
        return [{"params": [self.theta], "lr": lr}]

    def weights(self, losses: Tensor) -> Tensor:
        """Losses [K] to the gradient of the objective on them [K]."""
        shares = self.theta.detach().sigmoid().to(losses)
        signs = torch.diff(shares * losses).neg().sign()  # s_1 … s_{K−1}
        return shares * (1 / shares.sum() + self.lamb * torch.diff(nn.functional.pad(signs, (1, 1))))

    def backward(self, step: Step) -> StepResult:
        result = super().backward(step)
        self.theta.grad = (1 - self.theta.detach().sigmoid()) * (result.weights * step.losses).to(self.theta)
        return result
