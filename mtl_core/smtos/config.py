"""ConFIG: the direction with one positive cosine to all gradients, as long as their projections on it together.

    u_k = g_k / |g_k|, C their cosines     y: C y = 1, by least squares     v = Σ_k y_k u_k, so that u_k·v = 1 for all k
    w_k = (Σ_j |g_j| (C y)_j / yᵀC y) y_k / |g_k|                           update = Σ_k w_k g_k = (Σ_k g_k·v) v / |v|²

It is IMTL-G with another length. IMTL-G divides y / |g| by its sum, which may be negative for three tasks and more: it
then goes the other way, and every loss rises. ConFIG divides by Σ_k y_k = |v|², which may not: every loss falls. For
two tasks it is the bisector.

Source: Liu, Chu, Thuerey 2024, "ConFIG: towards conflict-free training of physics informed neural networks",
arXiv:2408.11104.
Differs:
1. The authors' package solves a least-squares problem with the whole Jacobian; the Gramian says as much. Its variants
   with momentum, with unequal cosines and with other lengths are not offered.
2. Where 0 is in the convex hull of the unit gradients no direction has a positive cosine to all of them. The package
   takes what least squares gives; here the shared update is zero (flag "pareto_stationary").
3. Elsewhere, too, equal cosines need not exist where gradients depend on each other. Least squares then decides, as in
   the package (flag "unequal_cosines"); such a step may raise a loss.
"""

import numpy as np

from mtl_core.smtos.base import GramianWeighting, register
from mtl_core.smtos.solvers import least_projections


@register
class ConFIG(GramianWeighting):
    key = "config"
    native_scale = "sum of the projections of the K gradients"
    undefined_at_stationary = True

    def weights(self, gramian: np.ndarray) -> np.ndarray:
        """Gramian of the task gradients [K, K] to task weights [K], of any sign."""
        norms = np.sqrt(gramian.diagonal())
        solution, projections = least_projections(gramian)
        y = self.record(solution)
        if np.abs(projections - 1).max() > 1e-6:
            self.flags.append("unequal_cosines")
        weights: np.ndarray = norms.dot(projections) / y.dot(projections) * y / norms
        return weights
