"""CDTT: EDM's direction, pulled towards the tasks whose gradients grow (central direction with task tension).

    c = EDM's direction      e_k = (g_k − c) / |g_k − c|
    ρ_k = S_k(t) / S_k(t − 1) + log₁₀ L_k              S_k(t): sum of |g_k| over the last ten steps
    τ_k = α / (1 + exp(e (1 − ρ_k))) + 1 − α           the tension, between 1 − α and 1 (here e is Euler's number)
    v = c + Σ_k τ_k e_k
    then for each task in turn with v·g_k < 0: v ← s (v − (v·u_k) u_k), s = |g_k| / (|g_k| − v·u_k), u_k = g_k / |g_k|
    that is: where the segment from v to g_k meets the plane of no first-order change of L_k       update = v

The first ten steps, while the window fills, are EDM's. The tension multiplies unit vectors, while c is as long as the
gradients are: for gradients much shorter than 1 it decides alone.

Source: Nakamura, Grassi Jr, Wolf 2022, "Leveraging task tension", Neurocomputing 511, arXiv:2204.06698.
Differs:
1. The released code corrects the direction by angles and tangents; the formula above is what that comes to. One sweep,
   as there: a later correction may undo an earlier one.
2. Where g_k = c (one task, or equal gradients) the released code divides 0 by 0; here e_k = 0.
3. EDM's direction is exact; `solver="search"` is the released code's search for it (D26). A task without gradient is
   left out of the step; `zero_gradient="stop"` is the released behaviour: no shared update, and the window does not
   advance (D27).
4. α is 0.2, as in the main paper's code, which searches {0.2, 0.4, 0.6, 0.8, 1}; the source's example has 0.3.
"""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from mtl_core.smtos.base import register
from mtl_core.smtos.edm import EDM, Solver


def pull(gramian: np.ndarray, center: np.ndarray, tension: np.ndarray) -> np.ndarray:
    """Weights of v = c + Σ τ_k e_k [K], given those of c and the tensions [K]. They sum to 1."""
    norms = np.sqrt(gramian.diagonal())
    differences = np.eye(len(gramian)) - center  # row k: weights of g_k − c
    distances = np.sqrt(np.maximum(np.einsum("ki,ij,kj->k", differences, gramian, differences), 0.0))
    apart = distances > 1e-7 * norms  # closer together, the Gramian cannot tell them apart
    weights: np.ndarray = center + np.where(apart, tension / np.where(apart, distances, 1.0), 0.0) @ differences
    return weights


def correct(gramian: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """One sweep over the tasks, each that v would hurt turned to indifference. Weights of v [K] to weights [K]."""
    weights = weights.copy()
    for k, norm in enumerate(np.sqrt(gramian.diagonal())):
        projection = gramian[k] @ weights / norm  # v·u_k
        if projection < 0:
            scale = norm / (norm - projection)
            weights *= scale
            weights[k] -= scale * projection / norm
    return weights


@register
class CDTT(EDM):
    """Options:
    alpha: how far apart tensions can be, in [0, 1]; 0 makes them all 1.
    """

    key = "cdtt"
    positive_losses = True
    remembered = ("window",)

    def __init__(
        self,
        num_tasks: int,
        alpha: Annotated[float, Field(ge=0, le=1)] = 0.2,
        zero_gradient: Literal["skip", "stop"] = "skip",
        solver: Solver = "exact",
    ) -> None:
        super().__init__(num_tasks, zero_gradient, solver)
        self.alpha = alpha
        self.window: list[list[float]] = []  # |g_k| of the last ten steps, oldest first

    def weights(self, gramian: np.ndarray) -> np.ndarray:
        """Gramian of the task gradients [K, K] to task weights [K]; they sum to 1 before the correction."""
        center = super().weights(gramian)
        tension = self.tension(np.sqrt(gramian.diagonal())) if center.any() else None  # zeros: stopped
        return center if tension is None else correct(gramian, pull(gramian, center, tension))

    def tension(self, norms: np.ndarray) -> np.ndarray | None:
        """Lengths of the gradients [K] join the window; τ [K], or None while it fills."""
        everyone = np.zeros(self.num_tasks)
        everyone[self.active] = norms
        window = np.array([*self.window, everyone.tolist()])
        self.window = window[-10:].tolist()
        if len(window) <= 10:
            return None
        now, before = window[1:, self.active].sum(0), window[:-1, self.active].sum(0)
        with np.errstate(divide="ignore", over="ignore"):  # a task that had no gradient for ten steps: τ = 1
            rho = now / before + np.log10(self.losses)
            tau: np.ndarray = self.alpha / (1 + np.exp(np.e * (1 - rho))) + 1 - self.alpha
        return tau
