"""IMGrad: CAGrad that turns more to the worst-off task the less balanced the gradients are.

    κ = cos(g_0, g_m) in (0, 1],  g_m = MGDA's direction (the shortest convex combination),  g_0 the mean gradient
    w = argmin over the simplex of (3/2 − κ) g_w·g_0 + κ c |g_0| |g_w|,  g_w = Σ_k w_k g_k
    d = g_0 + (c |g_0| / |g_w|) g_w                    update = d / (1 + c²)

The minimiser is that of CAGrad's dual at the radius c κ / (3/2 − κ): at κ = 3/4 it is CAGrad's. d is in CAGrad's ball,
where no direction has a better worst gain than CAGrad's: with the same c < 1, IMGrad hurts a task wherever it does.

Source: Zhou, Liu, Zhao, Gong 2025, arXiv:2503.08006.
Differs:
1. The source's released code is written for three tasks, and its script for two does not run as it is; here K is free.
   The formula is that of the code for three. It multiplies the update by K; here it is not.
2. c is 0.8, as in its script (its parser says 0.5). The dual and the minimum-norm problem are solved exactly; its code
   runs SLSQP for the dual, as CAGrad's does, and stays at equal weights where gradients are short (D50), here wherever
   (3/2 − κ + κ c)² Σ_k (g_k·g_0 − |g_0|²)² < 1e-6. `solver="slsqp"` is that solver, with κ exact; flags: see `cagrad`.
3. At a Pareto-stationary point g_m = 0 has no cosine; κ = 0 there (flag "pareto_stationary").
4. The source prints three other objectives, and `reading` has them. "eq9": (1 − κ)(g_w·g_0 + c |g_0| |g_w|) + κ |g_w|².
   "eq11": (1 − κ) g_w·g_0 + κ c |g_0| |g_w|². "eq11_plain": the same with |g_w|, which follows from its equation 10.
   At κ = 1 all three are MGDA's. Its extension of Nash-MTL (equation 13) has no code and is left out.
"""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from scipy.optimize import brentq

from mtl_core.options import BadOption
from mtl_core.smtos.base import register
from mtl_core.smtos.cagrad import CAGrad
from mtl_core.smtos.solvers import Solution, cagrad_dual, min_norm_point


def balance(gramian: np.ndarray) -> float:
    """κ: cosine between the mean gradient and the shortest convex combination, in [0, 1]."""
    w = min_norm_point(gramian).weights
    length, mean_length = np.sqrt(max(w @ gramian @ w, 0.0)), np.sqrt(max(gramian.mean(), 0.0))
    if length <= 1e-5 * (w @ np.sqrt(gramian.diagonal())):
        return 0.0
    return min(float(w @ gramian.mean(1) / (length * mean_length)), 1.0)


def blend(gramian: np.ndarray, linear: float, cone: float, square: float) -> Solution:
    """argmin over the simplex of linear · g_w·g_0 + cone · |g_0| |g_w| + square · |g_w|², at least one of them above 0.

    It is CAGrad's dual with the slope s = cone + 2 square |g_w| / |g_0|, which grows less than s does.
    """
    mean_length = np.sqrt(max(gramian.mean(), 0.0))
    if linear <= 1e-12 * (cone + square) or mean_length == 0:
        return min_norm_point(gramian)

    def excess(slope: float) -> float:
        w = cagrad_dual(gramian, slope / linear).weights
        return float(slope - cone - 2 * square * np.sqrt(max(w @ gramian @ w, 0.0)) / mean_length)

    more = -excess(cone)
    slope = brentq(excess, cone, cone + 2 * more, xtol=1e-15 * more) if more > 0 else cone
    return cagrad_dual(gramian, slope / linear)


@register
class IMGrad(CAGrad):
    """Options:
    reading: the objective, that of the "code", or as printed: "eq9", "eq11" or "eq11_plain".
    """

    key = "imgrad"

    def __init__(
        self,
        num_tasks: int,
        c: Annotated[float, Field(ge=0)] = 0.8,
        rescale: Literal[0, 1, 2] = 1,
        solver: Literal["exact", "slsqp"] = "exact",
        reading: Literal["code", "eq9", "eq11", "eq11_plain"] = "code",
    ) -> None:
        super().__init__(num_tasks, c, rescale, solver)
        if reading != "code" and solver != "exact":
            raise BadOption(f"imgrad: solver = {solver!r} is of reading 'code'; give solver='exact' with {reading!r}.")
        self.reading = reading

    def weights(self, gramian: np.ndarray) -> np.ndarray:
        """Gramian of the task gradients [K, K] to task weights [K], > 0."""
        kappa = balance(gramian)
        if kappa == 0:
            self.flags.append("pareto_stationary")
        self.diagnostics["kappa"] = kappa
        if self.reading == "code":
            return self.toward(gramian, self.dual(gramian, linear=1.5 - kappa, cone=kappa))
        linear, cone, square = {
            "eq9": (1 - kappa, (1 - kappa) * self.c, kappa),
            "eq11": (1 - kappa, 0.0, kappa * self.c * np.sqrt(max(gramian.mean(), 0.0))),
            "eq11_plain": (1 - kappa, kappa * self.c, 0.0),
        }[self.reading]
        return self.toward(gramian, self.record(blend(gramian, linear, cone, square)))
