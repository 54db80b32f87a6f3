"""GO4Align: tasks at a similar level of progress form a group and share one weight.

    p_k ← p_k e^(−η L_k), brought to sum 1               (1/K at the start)
    ω_k = p_k Σ_j L_j / L_k
    split the numbers ω into N groups by k-means; w_k = mean ω of the group of task k

Source: Shen, Wang, Xiao, van Noord, Worring 2024, arXiv:2404.06486.
Differs:
1. The released code's default is one group, which makes all weights equal; its main class calls a k-means routine
   whose import is switched off. Here there are two groups, and a group per task where K = 2.
2. k-means on K numbers is solved exactly, by dynamic programming over the sorted values; no random start.
3. p is kept as a logarithm, so that it cannot underflow.
"""

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from mtl_core.options import BadOption
from mtl_core.smtos.base import LossWeighting, StepResult, register
from mtl_core.step import Step


@register
class GO4Align(LossWeighting):
    """Options:
    eta: how fast a large loss loses weight.
    groups: N, at most K; two by default.
    """

    key = "go4align"
    native_scale = "weights K p_k · (mean loss) / L_k, averaged in groups; K p_k is 1 at the start"
    positive_losses = True

    def __init__(
        self,
        num_tasks: int,
        eta: Annotated[float, Field(ge=0)] = 1e-4,
        groups: Annotated[int, Field(ge=1)] | None = None,
    ) -> None:
        super().__init__(num_tasks)
        if groups is not None and groups > num_tasks:
            raise BadOption(f"go4align: groups is {groups}, but there are {num_tasks} tasks; give 1 to {num_tasks}.")
        self.eta, self.groups = eta, min(2, num_tasks) if groups is None else groups
        self.log_p: Tensor
        self.register_buffer("log_p", torch.zeros(num_tasks).log_softmax(0))

    def weights(self, losses: Tensor) -> Tensor:
        """Positive losses [K] to weights, > 0."""
        omega = self.log_p.exp().to(losses) * losses.sum() / losses
        if self.groups == self.num_tasks:
            return omega
        return torch.from_numpy(group_means(omega.double().cpu().numpy(), self.groups)).to(losses, non_blocking=True)

    def backward(self, step: Step) -> StepResult:
        self.log_p.copy_((self.log_p - self.eta * step.losses.to(self.log_p)).log_softmax(0))
        return super().backward(step)


def group_means(values: np.ndarray, groups: int) -> np.ndarray:
    """Every one of K numbers replaced by the mean of its group, for the split into `groups` groups of least sum of
    squared distances to their means. In one dimension the best groups are runs of the sorted values."""
    order = np.argsort(values, kind="stable")
    x = values[order]
    size = len(x)
    sums, squares = (np.concatenate([[0.0], np.cumsum(y)]) for y in (x - x.mean(), (x - x.mean()) ** 2))
    start, end = np.arange(size)[:, None], np.arange(1, size + 1)[None]
    spread = squares[end] - squares[start] - (sums[end] - sums[start]) ** 2 / np.maximum(end - start, 1)
    spread = np.where(end > start, np.maximum(spread, 0), np.inf)  # [start, end - 1]: of x[start:end] about its mean
    best, begins = spread[0], []  # best[e]: least spread of x[: e + 1] in one group more than there are rows in begins
    for _ in range(groups - 1):
        split = np.concatenate([[np.inf], best[:-1]])[:, None] + spread
        begins.append(split.argmin(axis=0))  # where the last group begins
        best = split.min(axis=0)
    means, stop = np.empty(size), size
    for row in reversed(begins):
        begin = int(row[stop - 1])
        means[order[begin:stop]] = x[begin:stop].mean()
        stop = begin
    means[order[:stop]] = x[:stop].mean()
    return means
