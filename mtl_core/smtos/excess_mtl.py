"""ExcessMTL: weight goes to the tasks that are farthest from what they could reach, and not to those with a noisy loss.

    S_k ← S_k + g_k²  (entry by entry)      e_k = Σ_p g_kp² / √(S_kp + 1e-7)      what a step of AdaGrad would gain
    w_k ← w_k e^(η e_k / e_k⁰), brought to sum K            e_k⁰: e_k of the first step, where w = 1
    update = Σ_k w_k g_k, the heads likewise

Source: He, Zhou, Zhang, Yun, Xu, Zeng, Chilimbi, Zhao 2024, "Robust multi-task learning with excess risks", ICML 2024,
arXiv:2402.02009.
Differs:
1. The source's text averages e over the first epochs to get e⁰; the authors' code, and this one, take the first step.
2. The authors' code has η = 0.01 and asks for 1 in its example; here it is 0.01. The weights sum to K, as there.
3. The weights are kept as logarithms, so that they cannot overflow. The 1e-7 is that of the authors' code; what it does
   depends on the scale of the gradients.
4. A task without gradient in the first step makes that code divide 0 by 0. Here e_k⁰ is the first e_k that is not 0,
   and the task's factor is 1 up to that step (flag "inactive_task" in every step in which a task has no gradient).
"""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from mtl_core.smtos.base import SMTO, StepResult, register
from mtl_core.smtos.geometry import NonFinite
from mtl_core.step import Step


@register
class ExcessMTL(SMTO):
    """Options:
    eta: how fast a task with a large excess gains weight.
    """

    key = "excess_mtl"
    space = "parameters"
    native_scale = "weights sum to K"
    remembered = ("squares", "trained")

    def __init__(self, num_tasks: int, eta: Annotated[float, Field(ge=0)] = 0.01) -> None:
        super().__init__(num_tasks)
        self.eta = eta
        self.squares: Tensor | None = None  # S [K, P], sized by the first step
        self.first: Tensor = nn.Buffer(torch.zeros(num_tasks))  # e⁰; 0 where it has not been met
        self.log_w: Tensor = nn.Buffer(torch.zeros(num_tasks))

    def excess(self, gradients: Tensor) -> Tensor:
        """Gradients [K, P] to e [K], ≥ 0; S takes its step."""
        squares = gradients.square()
        self.squares = squares if self.squares is None else self.squares.to(squares) + squares
        return (squares / (self.squares + 1e-7).sqrt()).sum(1)

    def weights(self, excess: Tensor) -> Tensor:
        """e [K] to w, > 0, summing to K."""
        excess = excess.to(self.first)
        ratio = torch.where(self.first > 0, excess / self.first, 0.0)
        self.first.copy_(torch.where(self.first > 0, self.first, excess))
        self.log_w.copy_((self.log_w + self.eta * ratio).log_softmax(0))
        return self.num_tasks * self.log_w.exp()

    def backward(self, step: Step) -> StepResult:
        excess = self.excess(step.jacobian)
        values = excess.tolist()
        if not all(map(math.isfinite, values)):
            raise NonFinite(f"{self.key}: the task gradients are not finite; their excess risks are {values}.")
        flags = ("inactive_task",) if min(values) == 0 else ()
        weights = self.weights(excess).to(step.losses)
        step.apply(weights, weights)
        return StepResult(weights, weights, flags=flags)
