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

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from mtl_core.options import BadOption
from mtl_core.smtos.base import LossWeighting, StepResult, register
from mtl_core.step import Step, in_float64


@register
class GO4Align(LossWeighting):
    """Options:
    eta: how fast a large loss loses weight.
    groups: N, at most K; two by default.
    """

    key = "go4align"
    code_version = 2
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
        self.log_p: Tensor = nn.Buffer(torch.zeros(num_tasks).log_softmax(0))

    def weights(self, losses: Tensor) -> Tensor:
        """Positive losses [K] to weights, > 0."""
        omega = self.log_p.exp().to(losses) * losses.sum() / losses
        return omega if self.groups == self.num_tasks else group_means(in_float64(omega), self.groups).to(losses)

    def backward(self, step: Step) -> StepResult:
        self.log_p.copy_((self.log_p - self.eta * step.losses.to(self.log_p)).log_softmax(0))
        return super().backward(step)


def group_means(values: Tensor, groups: int) -> Tensor:
    """Every one of K numbers replaced by the mean of its group, for the split into `groups` groups of least sum of
    squared distances to their means. In one dimension the best groups are runs of the sorted values."""
    x, order = values.sort(stable=True)
    places, shifted = torch.arange(len(x), device=x.device), x - x.mean()
    sums, squares = (functional.pad(y.cumsum(0), (1, 0)) for y in (shifted, shifted.square()))
    start, end = places[:, None], places + 1
    spread = squares[end] - squares[start] - (sums[end] - sums[start]).square() / (end - start).clamp(min=1)
    spread = spread.clamp(min=0).where(end > start, torch.inf)  # [start, end - 1]: of x[start:end] about its mean
    best, begins = spread[0], [torch.zeros_like(places)]  # best[e]: least spread of x[: e + 1] in len(begins) groups
    for _ in range(groups - 1):
        best, begin = (functional.pad(best[:-1], (1, 0), value=torch.inf)[:, None] + spread).min(0)
        begins.append(begin)  # where the last group begins
    means, stop = torch.zeros_like(x), places[-1:] + 1
    for row in reversed(begins):
        begin = row.gather(0, stop - 1)
        group = (places >= begin) & (places < stop)
        means, stop = ((x * group).sum() / group.sum()).where(group, means), begin
    return torch.empty_like(means).scatter_(0, order, means)
