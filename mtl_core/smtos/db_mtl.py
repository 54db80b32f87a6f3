"""DB-MTL (SI-MTL at first): balance losses by their logarithms and gradients by their norms, after averaging over time.

    h_k = ∇ log(L_k + 1e-8) on the shared parameters
    q_k ← β_t q_k + (1 − β_t) h_k,  β_t = β / t^σ                    (q = 0 at the start)
    a_k = max_j |q_j| / |q_k|                                        update = Σ_k a_k q_k
    head k: the gradient of log(L_k + 1e-8)

With β = 0 the update points along the sum of the unit gradients, whatever the scales of the losses.

Source: Lin, Jiang, Ye, Zhang, Chen, Chen, Liu, Kwok 2023, arXiv:2308.12029. Only its abstract and the code that its
authors ship in LibMTL were known when this page was written: β = 0.9 and σ = 0 are that code's; the paper is said to
tune both.
Differs:
1. None known from that code. q takes K × P numbers of memory.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from mtl_core.smtos.base import SMTO, StepResult, floored, register
from mtl_core.step import Step

EPSILON = 1e-8


@register
class DBMTL(SMTO):
    """Options:
    beta: how much of the average is kept in every step, 0 (nothing) to below 1.
    sigma: how fast beta falls with the steps.
    """

    key = "db_mtl"
    space = "parameters"
    head_policy = "scaled"
    native_scale = "K vectors of one length"
    remembered = ("average", "steps", "trained")

    def __init__(
        self,
        num_tasks: int,
        beta: Annotated[float, Field(ge=0, lt=1)] = 0.9,
        sigma: Annotated[float, Field(ge=0)] = 0.0,
    ) -> None:
        super().__init__(num_tasks)
        self.beta, self.sigma = beta, sigma
        self.average: Tensor | None = None  # q [K, P], sized by the first step
        self.steps = 0

    def update_average(self, gradients: Tensor) -> Tensor:
        """Gradients of the logarithms [K, P] to q [K, P]."""
        self.steps += 1
        beta = self.beta / self.steps**self.sigma
        if beta == 0:
            return gradients
        before = torch.zeros_like(gradients) if self.average is None else self.average.to(gradients)
        self.average = before.lerp(gradients, 1 - beta)
        return self.average

    def backward(self, step: Step) -> StepResult:
        losses, flags = floored(self.key, step.losses, 0.0)
        inverse = 1 / (losses + EPSILON)
        average = self.update_average(step.jacobian * inverse[:, None])
        norms = average.norm(dim=1)
        balance = norms.max() / (norms + EPSILON)
        step.apply_shared(balance @ average, inverse)
        # With an average over time the update is no combination of the present gradients alone.
        weights = balance * inverse if self.beta == 0 else torch.full_like(inverse, torch.nan)
        return StepResult(weights, inverse, flags=flags)
