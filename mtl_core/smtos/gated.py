"""A gate around an SMTO: it acts in a given share of the steps, those with the greatest need, elsewhere the mean loss.

    need_t = max_k |g_k| / min_k |g_k|  ("ratio"), −min_{j<k} cos(g_j, g_k)  ("cosine"), or a random number  ("random")
    u_t = the share of the last 50 steps, this one included, with more need than this one
    the inner SMTO acts where u_t < duty + (duty · t − steps with the inner SMTO before this one) / 50

After T steps the inner SMTO has acted in duty · T of them, give or take 50, whatever the need is measured by: what
differs between two measures is when it acts, and hardly how often.

Source: this package, to test Zhou et al. 2025 (arXiv:2503.08006): does imbalance or conflict ask for an SMTO?
Differs:
1. Nothing to differ from.
"""

from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field

from mtl_core.smtos.base import StepResult, register
from mtl_core.smtos.wrapping import Wrapping
from mtl_core.step import Step

WINDOW = 50


@register
class Gated(Wrapping):
    """Options:
    by: what the need of a step is measured by, "ratio" of lengths, "cosine" of the worst pair, or "random".
    duty: share of the steps in which the inner SMTO acts, in [0, 1].
    """

    key = "gated"
    space = "parameters"
    head_policy = "plain"
    native_scale = "the inner SMTO's, or the mean gradient's"
    remembered = ("window", "steps", "acted")

    def __init__(
        self,
        num_tasks: int,
        inner: str = "cagrad",
        inner_options: dict[str, Any] | None = None,
        by: Literal["ratio", "cosine", "random"] = "ratio",
        duty: Annotated[float, Field(ge=0, le=1)] = 0.5,
    ) -> None:
        super().__init__(num_tasks, inner, inner_options)
        self.by, self.duty = by, duty
        self.window: list[float] = []
        self.steps, self.acted = 0, 0

    def need(self, gramian: np.ndarray) -> float:
        """Of a step with this Gramian [K, K]: higher asks more for the inner SMTO."""
        if self.by == "random":
            return float(torch.rand((), generator=self.generator))
        norms = np.sqrt(gramian.diagonal())
        with np.errstate(divide="ignore", invalid="ignore"):
            found = norms.max() / norms.min() if self.by == "ratio" else -(gramian / np.outer(norms, norms)).min()
        return float(np.nan_to_num(found, nan=0.0, posinf=np.finfo(float).max))

    def opens(self, need: float) -> bool:
        """Whether the inner SMTO acts in a step with this need; counts the step."""
        self.window = [*self.window, need][-WINDOW:]
        behind = self.duty * self.steps - self.acted
        opened = bool(np.mean(np.array(self.window) > need) < self.duty + behind / WINDOW)
        self.steps, self.acted = self.steps + 1, self.acted + opened
        return opened

    def backward(self, step: Step) -> StepResult:
        need = self.need(step.on_host("parameters")[:-1].numpy())
        if self.opens(need) and self.inner is not None:
            result = self.inner.backward(step)
        else:
            weights = torch.full((self.num_tasks,), 1 / self.num_tasks, device=step.losses.device)
            step.apply(weights)
            result = StepResult(weights, torch.ones_like(weights))
        return replace(result, diagnostics={**result.diagnostics, "need": need, "share": self.acted / self.steps})
