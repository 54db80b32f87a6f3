"""Aligned-MTL: make the principal axes of the task gradients equally long, then combine.

    G = V diag(λ) Vᵀ, of rank r      B = √λ_s V_r diag(λ_r)^(−1/2) V_rᵀ      weights = B w
    λ_s: the least of the r eigenvalues (scale="min"), their mean ("rmse"), or their median: of an even number the lower
    of the two in the middle, as in the source's code

On the range of G the aligned system has condition number 1: B G B = λ_s I.

Source: Senushkin, Patakin, Kuznetsov, Konushin 2023, arXiv:2305.19000.
Differs:
1. w = 1/K each (the scale of the mean); in the source's code w = 1 (`reduction="sum"`).
2. The rank is counted as in the source's code: λ > λ_max K ε, ε of float32. The Gramian is float64.
3. The gradients are those on the shared parameters; `space="features"` is the source's faster variant.
"""

from typing import Literal

import numpy as np

from mtl_core.smtos.base import GramianWeighting, register
from mtl_core.step import Space


@register
class AlignedMTL(GramianWeighting):
    """Options:
    scale: the common length of the aligned axes, from the eigenvalues that are not zero.
    reduction: w, 1/K each ("mean") or 1 each ("sum").
    space: the gradients, on "features" or "parameters".
    """

    key = "aligned_mtl"
    code_version = 2
    native_scale = "mean of K gradients as long as the shortest axis"

    def __init__(
        self,
        num_tasks: int,
        scale: Literal["min", "median", "rmse"] = "min",
        reduction: Literal["mean", "sum"] = "mean",
        space: Space = "parameters",
    ) -> None:
        super().__init__(num_tasks)
        self.scale, self.reduction, self.space, self.averages = scale, reduction, space, reduction == "mean"

    def weights(self, gramian: np.ndarray) -> np.ndarray:
        """Gramian of the task gradients [K, K] to task weights [K], of any sign."""
        K = len(gramian)
        values, vectors = np.linalg.eigh(gramian)
        kept = values > values[-1] * self.num_tasks * np.finfo(np.float32).eps
        values, vectors = values[kept], vectors[:, kept]
        common = {"min": values.min(), "median": values[(len(values) - 1) // 2], "rmse": values.mean()}[self.scale]
        w = np.full(K, 1 / K if self.reduction == "mean" else 1.0)
        weights: np.ndarray = np.sqrt(common) * (vectors / np.sqrt(values)) @ (vectors.T @ w)
        return weights
