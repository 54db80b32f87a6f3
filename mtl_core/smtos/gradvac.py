"""GradVac: gradients are made as similar as they usually are, and not only where they conflict.

    for every task i:   v_i = g_i;   for every other task j, in random order:
                        φ = cos(v_i, g_j), and where φ < t_ij:
                        v_i ← v_i + |v_i| (t_ij √(1 − φ²) − φ √(1 − t_ij²)) / (|g_j| √(1 − t_ij²)) g_j
                        t_ij ← (1 − β) t_ij + β φ          (φ from before the change; t is 0 at the start)
    update = 1/K Σ_i v_i

After a change cos(v_i, g_j) = t_ij. With all t = 0 this is PCGrad, and so is the first step. The changes stay in the
span of the task gradients, so they are weights: row i of `V` holds those of v_i.

Source: Wang, Tsvetkov, Firat, Cao 2021, "Gradient vaccine: investigating and improving multi-task optimization in
massively multilingual models", ICLR 2021, arXiv:2010.05874.
Differs:
1. The source sums the v_i: `scale="sum"`. Here they are averaged, as PCGrad's are.
2. The source can hold a target for every layer; here there is one for all shared parameters. β = 0.5 is the default of
   two public libraries, which have no code by the authors to follow.
3. The libraries add 1e-8 to norms and denominators, which depends on the scale of the gradients. Here |t| counts as at
   most 1 − 1e-8, and where nothing is left of v_i (1e-7 of |g_i|) neither v_i nor t changes.
4. A task without gradient, which has no cosine, leaves its targets as they are.
"""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from mtl_core.smtos.base import register
from mtl_core.smtos.pcgrad import PCGrad


@register
class GradVac(PCGrad):
    """Options:
    beta: how fast the targets follow the cosines, 0 (PCGrad) to 1 (at once).
    scale: the mean of the changed gradients, or their sum.
    order: in which each task meets the others.
    """

    key = "gradvac"
    code_version = 1
    native_scale = "mean of K changed gradients"
    remembered = ("targets",)

    def __init__(
        self,
        num_tasks: int,
        beta: Annotated[float, Field(ge=0, le=1)] = 0.5,
        scale: Literal["mean", "sum"] = "mean",
        order: Literal["random", "index", "reversed"] = "random",
    ) -> None:
        super().__init__(num_tasks, scale, order)
        self.beta = beta
        self.targets = np.zeros((num_tasks, num_tasks))  # row i: of task i with every other task

    def weights(self, gramian: np.ndarray) -> np.ndarray:
        """Gramian of the task gradients [K, K] to task weights [K]; the targets of these tasks move."""
        tasks, norms = np.arange(len(gramian)), np.sqrt(gramian.diagonal())
        targets = self.targets[np.ix_(self.active, self.active)]
        V, products = np.eye(len(gramian)), gramian.copy()  # rows: weights of v_i, and v_i·g_j
        for j in self.orders(len(gramian)).T:  # all tasks at once: task i meets task j[i]
            lengths = np.sqrt(np.maximum((V * products).sum(1), 0.0))
            left = lengths > 1e-7 * norms
            phi = np.clip(products[tasks, j] / np.where(left, lengths * norms[j], 1.0), -1.0, 1.0)
            target = targets[tasks, j]
            sine = np.sqrt(1 - np.minimum(np.abs(target), 1 - 1e-8) ** 2)
            added = lengths / norms[j] * (target * np.sqrt(1 - phi**2) / sine - phi)
            added = np.where(left & (phi < target), added, 0.0)
            V[tasks, j] += added
            products += added[:, None] * gramian[j]
            targets[tasks, j] = np.where(left, target + self.beta * (phi - target), target)
        self.targets[np.ix_(self.active, self.active)] = targets
        weights: np.ndarray = V.sum(0) / (len(gramian) if self.scale == "mean" else 1)
        return weights
