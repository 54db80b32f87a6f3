"""GradDrop: at every feature the tasks vote with the sign of their gradients; a coin picks the sign that is kept.

    P_k = ∂L_k/∂z [B, …]        q_k = Σ_batch P_k ∘ sign(z)                    (one number per feature)
    purity p = ½ + ½ k Σ_k q_k / Σ_k |q_k|                                      (½ where all q are 0)
    keep the positive sign with probability p: mask_k = [q_k ≥ 0], else mask_k = [q_k ≤ 0]; one coin per feature
    direction on z = Σ_k P_k ∘ (leak_k + (1 − leak_k) mask_k), brought to the length of Σ_k P_k

Source: Chen, Ngiam, Huang, Luong, Kretzschmar, Chai, Anguelov 2020, arXiv:2010.06808.
Differs:
1. The source's text does not bring the direction to the length of the sum; the authors' code and the released code of
   the main paper do, and so does the default (D45). `renormalise=False` is the text.
2. The codes guard Σ|q| by adding 1e-7, which pulls the purity towards ½ where gradients are that small; here 0/0 alone
   gives ½.
3. `space="parameters"` votes on the shared parameters instead: the same rule with q_k = g_k, as in several public
   codes (they then divide by K; here the length is that of the sum). `mode="random"` drops every entry of every task
   on its own with probability ½; the source's random variant still keeps one sign per feature.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from mtl_core.options import BadOption
from mtl_core.smtos.base import SMTO, StepResult, register
from mtl_core.step import Step


@register
class GradDrop(SMTO):
    """Options:
    k: how strongly the coin follows the vote, 0 (a fair coin) to 1.
    leak: per task, the share of its gradient that always passes, 0 to 1.
    renormalise: bring the direction to the length of the plain sum.
    space: vote on the features or on the shared parameters.
    mode: one "sign" per feature, or every entry at "random".
    """

    key = "graddrop"
    space = "features"
    head_policy = "plain"
    native_scale = "length of the sum of the feature gradients"

    def __init__(
        self,
        num_tasks: int,
        k: Annotated[float, Field(ge=0, le=1)] = 1.0,
        leak: list[Annotated[float, Field(ge=0, le=1)]] | None = None,
        renormalise: bool = True,
        space: Literal["features", "parameters"] = "features",
        mode: Literal["sign", "random"] = "sign",
    ) -> None:
        super().__init__(num_tasks)
        if leak is not None and len(leak) != num_tasks:
            raise BadOption(f"graddrop: {len(leak)} leaks for {num_tasks} tasks: {leak}; give one per task.")
        self.k, self.leak, self.renormalise, self.space, self.mode = k, leak, renormalise, space, mode

    def uniform(self, like: Tensor) -> Tensor:
        """Uniform numbers in [0, 1), drawn on the host: the same on every device."""
        return torch.rand(like.shape, generator=self.generator).to(like, non_blocking=True)

    def masks(self, votes: Tensor) -> Tensor:
        """Votes q [K, …] to masks of 0 and 1, the same shape."""
        if self.mode == "random":
            return (self.uniform(votes) < 0.5).to(votes)
        total = votes.abs().sum(0)
        purity = 0.5 + 0.5 * self.k * votes.sum(0) / total.where(total > 0, 1)
        signs = torch.where(purity > self.uniform(purity), 1.0, -1.0).to(votes)
        return (votes * signs >= 0).to(votes)

    def direction(self, gradients: Tensor, z: Tensor | None = None) -> Tensor:
        """Task gradients [K, B, …] and the features z [B, …] to one gradient [B, …]; [K, P] to [P] without z."""
        votes = gradients
        if z is not None and self.mode != "random":
            votes = torch.einsum("kb...,b...->k...", gradients, z.sign())
        masks = self.masks(votes)
        if self.leak is not None:
            leak = torch.tensor(self.leak).to(masks, non_blocking=True).view(-1, *[1] * (masks.dim() - 1))
            masks = leak + (1 - leak) * masks
        if masks.dim() < gradients.dim():
            masks = masks.unsqueeze(1)  # one coin serves the whole batch
        kept = (gradients * masks).sum(0)
        if self.renormalise:
            length = kept.norm()
            kept = kept * (gradients.sum(0).norm() / length.where(length > 0, 1))
        return kept

    def backward(self, step: Step) -> StepResult:
        if self.space == "features":
            step.apply_features(self.direction(step.feature_gradients, step.z))
        else:
            step.apply_shared(self.direction(step.jacobian))
        return StepResult(torch.full_like(step.losses, torch.nan), torch.ones_like(step.losses))
