"""MoDo, SDMGrad, MoCo: weights on the simplex that follow gradients of other batches, or averages of gradients over
steps, since the Gramian of one batch's gradients is not that of the mean gradients.

    MoDo       w ← Π(w − γ (J₁ J₂ᵀ w + ρ w))                                         update = Jᵀ w
    SDMGrad    M = J₁ J₂ᵀ / (mean_k √M_kk)²;  often b ← b/2 + M (w + λ/K),  w ← Π(w − lr b)
                                                                                     update = Jᵀ (w + λ/K) / (1 + λ)
    MoCo       Y ← Y + β t^(−½) (J − Y),  w ← Π(w − γ t^(−½) (Y Yᵀ w + ρ w))         update = Yᵀ w

J [K, P] has the task gradients of this batch, J₁ and J₂ those of two further ones; Π is the nearest point of the
simplex; t counts steps; w begins at 1/K and stays from step to step. Heads get plain gradients of this batch.

Source: Chen, Fernando, Ying, Chen 2023, arXiv:2305.20057 (MoDo); Xiao, Ban, Ji 2023, arXiv:2305.18409, and its code
(SDMGrad); Fernando, Shen, Liu, Chaudhury, Murugesan, Chen 2023, ICLR 2023, OpenReview dLAYGdKTi2 (MoCo). Their texts
were not at hand in full; formulas and constants follow LibMTL 1.1.5, which took them from the authors' codes.
Differs:
1. SDMGrad's code makes one tensor under three names for the gradients of its three batches: the last one overwrites the
   others, and nothing is sampled twice. `reading="released"` is that: J₁ = J₂ = J, 1e-4 is added to every M_kk under
   the root, and the update comes times K. The default takes two further batches.
2. With J₁ ≠ J₂ some M_kk can be negative; it counts as 0 there, as in LibMTL. Where all do, the weights are those of
   λ and the last w (flag "no_gradient").
3. One pair of further batches serves all of a step's updates of SDMGrad's w, as in its code; lr is 10, LibMTL's 5.
4. MoCo's source keeps Y in a bounded set; LibMTL, after its code, brings g_k to the length of L_k before it joins Y and
   takes a softmax for Π. Neither is here. Weights on this batch's gradients exist, and are recorded, in the first step.
5. In LibMTL heads get the mean (MoDo) or the sum (SDMGrad) of three batches' gradients.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mtl_core.smtos.base import SMTO, StepResult, register
from mtl_core.step import Step, in_float64, inner_products

STEPS, LR = 20, 10.0  # of SDMGrad's w
AtLeast0 = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Reading = Literal["published", "released"]


def on_simplex(v: Tensor) -> Tensor:
    """The nearest point [K] with entries ≥ 0 that sum to 1."""
    u = v.sort(descending=True).values
    excess = u.cumsum(0) - 1
    count = (u * torch.arange(1, len(v) + 1, device=v.device) > excess).sum().clamp(min=1)
    return (v - excess.gather(0, count[None] - 1) / count).clamp(min=0)


class OnSimplex(SMTO):
    """Methods that keep a w on the simplex."""

    space, head_policy, native_scale = "parameters", "plain", "weights sum to 1"

    def __init__(self, num_tasks: int) -> None:
        super().__init__(num_tasks)
        self.w: Tensor = nn.Buffer(torch.full((num_tasks,), 1 / num_tasks, dtype=torch.float64))

    def between(self, step: Step) -> Tensor:
        """J₁ J₂ᵀ of two further batches, float64 [K, K]."""
        both = torch.cat([step.second_jacobian(), step.second_jacobian()])
        return inner_products(both)[: self.num_tasks, self.num_tasks :]


@register
class MoDo(OnSimplex):
    """Options:
    gamma: step size of w.
    rho: how much w is drawn to equal weights.
    """

    key = "modo"
    needs = ("second_batch",)

    def __init__(self, num_tasks: int, gamma: AtLeast0 = 0.001, rho: AtLeast0 = 0.1) -> None:
        super().__init__(num_tasks)
        self.gamma, self.rho = gamma, rho

    def backward(self, step: Step) -> StepResult:
        w = in_float64(self.w)
        w = on_simplex(w - self.gamma * (self.between(step) @ w + self.rho * w))
        self.w.copy_(w)
        step.apply(w)
        return StepResult(w.to(step.losses), torch.ones_like(step.losses))


@register
class SDMGrad(OnSimplex):
    """Options:
    lamb: λ, how much the mean gradient counts.
    reading: "published", two further batches, or "released", this one alone.
    """

    key = "sdmgrad"

    def __init__(self, num_tasks: int, lamb: AtLeast0 = 0.3, reading: Reading = "published") -> None:
        super().__init__(num_tasks)
        self.lamb, self.released = lamb, reading == "released"
        self.needs = () if self.released else ("second_batch",)

    def backward(self, step: Step) -> StepResult:
        between = step.gramian("parameters") if self.released else self.between(step)
        scale = (between.diagonal().clamp(min=0) + 1e-4 * self.released).sqrt().mean().square()
        between = between / scale.where(scale > 0, torch.inf)
        w, of_mean, slope = in_float64(self.w), self.lamb / self.num_tasks, in_float64(self.w) * 0
        for _ in range(STEPS):
            slope = slope / 2 + between @ (w + of_mean)
            w = on_simplex(w - LR * slope)
        self.w.copy_(w)
        weights = (w + of_mean) / (1 + self.lamb) * (self.num_tasks if self.released else 1)
        step.apply(weights)
        flags = () if scale > 0 else ("no_gradient",)
        return StepResult(weights.to(step.losses), torch.ones_like(step.losses), flags=flags)


@register
class MoCo(OnSimplex):
    """Options:
    beta: how much a step counts in the average of the gradients.
    gamma: step size of w.
    rho: how much w is drawn to equal weights.
    """

    key = "moco"
    native_scale = "a mean of averaged gradients"
    remembered = ("count", "average", "trained")

    def __init__(self, num_tasks: int, beta: Share = 0.5, gamma: AtLeast0 = 0.1, rho: AtLeast0 = 0.0) -> None:
        super().__init__(num_tasks)
        self.beta, self.gamma, self.rho, self.count = beta, gamma, rho, 0
        self.average: Tensor | None = None  # Y [K, P]

    def backward(self, step: Step) -> StepResult:
        rows, self.count, first = step.jacobian, self.count + 1, self.average is None
        share, w = self.beta / self.count**0.5, in_float64(self.w)
        self.average = share * rows if self.average is None else self.average.to(rows).lerp(rows, share)
        w = on_simplex(w - self.gamma / self.count**0.5 * (inner_products(self.average) @ w + self.rho * w))
        self.w.copy_(w)
        step.apply_shared(w.to(rows) @ self.average)
        return StepResult((w * (share if first else torch.nan)).to(step.losses), torch.ones_like(step.losses))
