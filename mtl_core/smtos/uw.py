"""UW: every task learns the scale of its own noise, and the loss of a noisy task counts less.

    minimise Σ_k [ η_k + e^(−p_k η_k) L_k / f_k ] over all parameters and the K log-scales η (0 at the start)
    w_k = e^(−p_k η_k) / f_k                           ∂/∂η_k = 1 − p_k w_k L_k
    p, f = 2, 2 Gaussian (squared error)   2, 1 softmax (cross-entropy)   1, 1 Laplace (absolute error)

Where η has settled, w_k = 1 / (p_k L_k): in equilibrium UW is SI up to constants.

Source: Kendall, Gal, Cipolla 2018, arXiv:1705.07115.
Differs:
1. As in the released code of the main paper η joins the main optimizer as a group of its own, with the same learning
   rate, schedule and weight decay. Other public codes use one form for all tasks, or start at a negative η.
2. ∂/∂η is the closed form above; nothing is differentiated through it.
3. The likelihoods come from the problem; option `likelihoods` overrides them. η is not bounded: as a loss falls towards
   0 its weight grows as 1/L, as in the source.
4. η + e^(−p η) L / f has no minimum for L ≤ 0, whatever the likelihood. Here a loss of 0 counts as 1e-12, with the flag
   "floored_loss"; a negative loss is an error.
"""

from typing import Any

import torch
from torch import Tensor, nn

from mtl_core.options import BadOption
from mtl_core.smtos.base import LossWeighting, ProblemInfo, StepResult, register
from mtl_core.step import Step
from mtl_core.tasks import Likelihood

POWER_AND_DIVISOR: dict[Likelihood, tuple[float, float]] = {
    "gaussian": (2.0, 2.0),
    "softmax": (2.0, 1.0),
    "laplace": (1.0, 1.0),
}


@register
class UW(LossWeighting):
    """Options:
    likelihoods: one per task, instead of the problem's own.
    """

    key = "uw"
    native_scale = "between half the sum and the sum at the start"
    positive_losses = True

    def __init__(self, num_tasks: int, likelihoods: list[Likelihood] | None = None) -> None:
        super().__init__(num_tasks)
        if likelihoods is not None and len(likelihoods) != num_tasks:
            raise BadOption(f"uw: {len(likelihoods)} likelihoods for {num_tasks} tasks: {likelihoods}; one per task.")
        self.likelihoods = likelihoods
        self.needs = ("parameters",) if likelihoods else ("likelihoods", "parameters")
        self.eta = nn.Parameter(torch.zeros(num_tasks))
        self.power: Tensor = nn.Buffer(torch.ones(num_tasks))
        self.divisor: Tensor = nn.Buffer(torch.ones(num_tasks))

    def set_up(self, info: ProblemInfo, seed: int) -> None:
        super().set_up(info, seed)
        self.likelihoods = self.likelihoods or list(info.likelihoods)
        self.power, self.divisor = torch.tensor([POWER_AND_DIVISOR[kind] for kind in self.likelihoods]).T

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """η with the main optimizer's learning rate and weight decay."""
        return [{"params": [self.eta], "lr": lr}]

    def weights(self, losses: Tensor) -> Tensor:
        """Losses [K] to e^(−p η) / f, > 0."""
        if self.likelihoods is None:
            raise RuntimeError("uw: the likelihoods are unknown before set_up; call it, or give option likelihoods.")
        return ((-self.power * self.eta.detach()).exp() / self.divisor).to(losses)

    def backward(self, step: Step) -> StepResult:
        result = super().backward(step)
        losses = step.losses.clamp(min=self.floor)
        self.eta.grad = (1 - self.power * result.weights * losses).to(self.eta)
        return result
