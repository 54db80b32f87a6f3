"""IMGrad: CAGrad that leans on the worst-off task only as far as the gradients are balanced.

    κ = cos(g_0, g_m) in (0, 1],  g_m = MGDA's direction (the shortest convex combination),  g_0 the mean gradient
    w = argmin over the simplex of (3/2 − κ) g_w·g_0 + κ c |g_0| |g_w|,  g_w = Σ_k w_k g_k
    d = g_0 + (c |g_0| / |g_w|) g_w                    update = d / (1 + c²)

The minimiser is that of CAGrad's dual at the radius c κ / (3/2 − κ): at κ = 3/4 it is CAGrad's.

Source: Zhou, Liu, Zhao, Gong 2025, arXiv:2503.08006.
Differs:
1. The source's released code is written for three tasks, and its script for two does not run as it is; here K is free.
   The formula is that of the code for three. It multiplies the update by K; here it is not.
2. c is 0.8, as in its script (its parser says 0.5). The dual and the minimum-norm problem are solved exactly; its code
   runs SLSQP for the dual, as CAGrad's does, and stays at equal weights where gradients are short (D50), here wherever
   (3/2 − κ + κ c)² Σ_k (g_k·g_0 − |g_0|²)² < 1e-6. `solver="slsqp"` is that solver, with κ exact; flags: see `cagrad`.
3. At a Pareto-stationary point g_m = 0 has no cosine; κ = 0 there (flag "pareto_stationary").
4. Of the source's text only a part was at hand. Its extension of Nash-MTL is left out.
"""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from mtl_core.smtos.base import register
from mtl_core.smtos.cagrad import CAGrad
from mtl_core.smtos.solvers import min_norm_point


def balance(gramian: np.ndarray) -> float:
    """κ: cosine between the mean gradient and the shortest convex combination, in [0, 1]."""
    w = min_norm_point(gramian).weights
    length, mean_length = np.sqrt(max(w @ gramian @ w, 0.0)), np.sqrt(max(gramian.mean(), 0.0))
    if length <= 1e-5 * (w @ np.sqrt(gramian.diagonal())):
        return 0.0
    return min(float(w @ gramian.mean(1) / (length * mean_length)), 1.0)


@register
class IMGrad(CAGrad):
    """Options: those of `cagrad`."""

    key = "imgrad"

    def __init__(
        self,
        num_tasks: int,
        c: Annotated[float, Field(ge=0)] = 0.8,
        rescale: Literal[0, 1, 2] = 1,
        solver: Literal["exact", "slsqp"] = "exact",
    ) -> None:
        super().__init__(num_tasks, c, rescale, solver)

    def weights(self, gramian: np.ndarray) -> np.ndarray:
        """Gramian of the task gradients [K, K] to task weights [K], > 0."""
        kappa = balance(gramian)
        if kappa == 0:
            self.flags.append("pareto_stationary")
        w = self.dual(gramian, linear=1.5 - kappa, cone=kappa)
        self.diagnostics["kappa"] = kappa
        return self.toward(gramian, w)
