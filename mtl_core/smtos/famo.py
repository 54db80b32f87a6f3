"""FAMO: a softmax over tasks, learnt so that the losses fall at equal rates.

    z = softmax(ξ)      D_k = L_k − m_k + 1e-8         (m_k: the least possible loss, 0)
    w_k = (z_k / D_k) / Σ_j (z_j / D_j)                update = Σ_k w_k g_k
    after the step, on the same batch: δ_k = log D_k(before) − log D_k(after)
    ∂/∂ξ = z ∘ (δ − zᵀδ), followed by Adam with weight decay γ: a task that improved more than the others loses weight

Source: Liu, Feng, Stone, Liu 2023, arXiv:2306.03792.
Differs:
1. The released code of the main paper clips the shared gradient before the backward pass, when there is none yet:
   nothing happens (D22). The source's stand-alone code clips it to norm 1 afterwards, its benchmark code does not.
   Here nothing is clipped; `max_norm` clips afterwards.
2. Both codes look at the losses again in training mode, under new dropout masks, with a second update of the
   statistics of batch normalisation, and the released code also builds a graph (D42): δ then measures mostly the
   masks. Here the second look meets the same masks and leaves the statistics alone; `masks="fresh"` is the released
   behaviour.
3. ξ has its own Adam with a constant learning rate, as in the source; it does not follow the schedule (D43). γ is 1e-2
   as in the source's stand-alone code; its scripts use 1e-3 and 1e-2 and the main paper searches {1e-2, 1e-3, 1e-4}.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mtl_core.options import BadOption
from mtl_core.smtos.adam import VectorAdam
from mtl_core.smtos.base import LossWeighting, StepResult, register
from mtl_core.step import Step


@register
class FAMO(LossWeighting):
    """Options:
    gamma: weight decay of the logits.
    w_lr: learning rate of the logits.
    min_losses: the least possible value of every loss (0 each); a loss below it counts as equal to it. Where one is
        negative, losses may be.
    max_norm: clip the shared gradient to this norm.
    masks: dropout masks of the second look at the batch, "replay" those of the first or "fresh".

    Diagnostics, per task k from 0: share_k is z_k; improvement_k and improvement_squared_k are δ_k and δ_k² of the step
    before, lead_squared_k is (δ_k − mean of δ)². Means over an epoch, so they give signal and noise of what moves ξ.
    """

    key = "famo"
    native_scale = "weights sum to 1"
    positive_losses = True
    remembered = ("improvement",)
    needs = ("after_step",)

    def __init__(
        self,
        num_tasks: int,
        gamma: Annotated[float, Field(ge=0)] = 0.01,
        w_lr: Annotated[float, Field(ge=0)] = 0.025,
        min_losses: list[float] | None = None,
        max_norm: Annotated[float, Field(gt=0)] | None = None,
        masks: Literal["replay", "fresh"] = "replay",
    ) -> None:
        super().__init__(num_tasks)
        least = [0.0] * num_tasks if min_losses is None else min_losses
        if len(least) != num_tasks:
            raise BadOption(f"famo: {len(least)} min_losses for {num_tasks} tasks: {least}; give one per task.")
        self.max_norm, self.masks = max_norm, masks
        self.positive_losses = min(least) >= 0
        self.replay = masks == "replay"
        self.logits: Tensor = nn.Buffer(torch.zeros(num_tasks))
        self.least: Tensor = nn.Buffer(torch.tensor(least))
        self.optimizer = VectorAdam(num_tasks, lr=w_lr, weight_decay=gamma)
        self.improvement: Tensor | None = None  # δ of the last step

    def distances(self, losses: Tensor) -> Tensor:
        """D [K], > 0: how far the losses are above the least possible ones."""
        return (losses - self.least.to(losses)).clamp(min=0) + 1e-8

    def weights(self, losses: Tensor) -> Tensor:
        """Positive losses [K] to weights, > 0, summing to 1."""
        ratios = self.logits.softmax(0).to(losses) / self.distances(losses)
        return ratios / ratios.sum()

    def logit_gradient(self, before: Tensor, after: Tensor) -> Tensor:
        """Losses of the same batch before and after the step [K] to the gradient on the logits [K], which sums to 0."""
        z = self.logits.softmax(0).to(before)
        self.improvement = delta = self.distances(before).log() - self.distances(after).log()
        return z * (delta - z @ delta)

    def backward(self, step: Step) -> StepResult:
        result = super().backward(step)
        found = {"share": self.logits.softmax(0)}
        if self.improvement is not None:
            delta = self.improvement
            found |= {"improvement": delta, "improvement_squared": delta.square()}
            found |= {"lead_squared": (delta - delta.mean()).square()}
        for name, values in found.items():
            result.diagnostics |= {f"{name}_{k}": value for k, value in enumerate(values)}
        if self.max_norm is not None:
            norm = torch.nn.utils.clip_grad_norm_(step.shared, self.max_norm)
            result.weights = result.weights * (self.max_norm / (norm + 1e-6)).clamp(max=1)
        return result

    def after_step(self, step: Step) -> None:
        after = step.reevaluate(fresh=self.masks == "fresh")
        self.optimizer.step(self.logits, self.logit_gradient(step.losses, after))
