"""PCGrad: before the gradients are averaged, each loses what conflicts with the others.

    for every task i:   v_i = g_i;   for every other task j, in random order, where v_i·g_j < 0:
                        v_i ← v_i − (v_i·g_j / |g_j|²) g_j
    update = 1/K Σ_i v_i

The projections stay in the span of the task gradients, so they are weights: row i of `V` holds those of v_i. For two
tasks the update hurts neither; for more, a later projection may undo an earlier one. Without conflict it is the update
of the uniform loss.

Source: Yu, Kumar, Gupta, Levine, Hausman, Finn 2020, arXiv:2001.06782.
Differs:
1. The source and the released code of the main paper sum the projected gradients: `scale="sum"`. Here they are
   averaged, as the losses of the uniform loss are, so that the two differ in direction only. To Adam without weight
   decay the sum and the mean are one; with it, weight decay weighs K times more against a mean. Every task has its own
   order and projects on the original g_j, as in the source; other public codes take one order for all tasks.
2. The order comes from the run's generator on the host. `order="index"` and `order="reversed"` make it deterministic.
"""

from typing import Literal

import numpy as np
import torch

from mtl_core.smtos.base import GramianWeighting, register


@register
class PCGrad(GramianWeighting):
    """Options:
    scale: the mean of the projected gradients, or their sum.
    order: in which each task meets the others.
    """

    key = "pcgrad"
    code_version = 2
    native_scale = "mean of K gradients"

    def __init__(
        self,
        num_tasks: int,
        scale: Literal["mean", "sum"] = "mean",
        order: Literal["random", "index", "reversed"] = "random",
    ) -> None:
        super().__init__(num_tasks)
        self.scale, self.order, self.averages = scale, order, scale == "mean"

    def weights(self, gramian: np.ndarray) -> np.ndarray:
        """Gramian of the task gradients [K, K] to task weights [K]; without conflict 1/K each (1 for the sum)."""
        K = len(gramian)
        tasks = np.arange(K)
        V, products = np.eye(K), gramian.copy()  # rows: weights of v_i, and v_i·g_j
        for j in self.orders(K).T:  # all tasks at once: task i meets task j[i]
            removed = np.minimum(products[tasks, j], 0.0) / gramian[j, j]
            V[tasks, j] -= removed
            products -= removed[:, None] * gramian[j]
        weights: np.ndarray = V.sum(0) / (K if self.scale == "mean" else 1)
        return weights

    def orders(self, K: int) -> np.ndarray:
        """Row i: the other tasks, in the order in which task i meets them, [K, K − 1]."""
        if self.order == "random":
            others = torch.rand(K, K - 1, generator=self.generator).argsort(1).numpy()
        else:
            others = np.tile(np.arange(K - 1), (K, 1))[:, :: 1 if self.order == "index" else -1]
        return others + (others >= np.arange(K)[:, None])
