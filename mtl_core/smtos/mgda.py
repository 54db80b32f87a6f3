"""MGDA: the convex combination of the task gradients of least norm, the steepest descent common to all tasks.

    h_k = g_k / s_k        w = argmin |Σ_k w_k h_k|² over the simplex         update = Σ_k w_k g_k
    s_k: "none" 1, "l2" |g_k|, "loss" L_k, "loss+" L_k |g_k|

`mgda` takes the gradients on the shared parameters, `mgda_ub` those on the features ("upper bound": one backward pass).
For two tasks "loss+" looks at losses and cosine only, never at the lengths of the gradients; "l2" is the plain mean.

Source: Sener, Koltun 2018, arXiv:1810.04650 (the minimum-norm problem: Désidéri 2012).
Differs:
1. The source's text has no scaling; its sample configuration and the released code of the main paper use "loss+", the
   default here.
2. The weights found for the scaled gradients are applied to the unscaled ones, as in the source's code and in the main
   paper's MGDA-UB. This loses the promise that no task gets worse. The main paper's parameter-level MGDA combines the
   scaled gradients instead, so that one option means two updates there; `combine="scaled"` does so in both.
3. The heads get plain gradients, as in the main paper's code; in the source's code they are weighted.
4. The point of least norm is exact. The source's and the released code use at most 250 rounds of a projected search in
   the manner of Frank and Wolfe, whose two-point formula returns 0.999 and 0.001 instead of 1 and 0 (D26). For two
   tasks that formula is all. `solver="search"` is that search; how often it misses is counted (flag "inexact").
5. The scaling by losses needs them to be positive.
"""

from typing import Literal

import numpy as np

from mtl_core.smtos.base import GramianWeighting, register
from mtl_core.smtos.released import min_norm_by_search
from mtl_core.smtos.solvers import min_norm_point
from mtl_core.step import Space


@register
class MGDA(GramianWeighting):
    """Options:
    normalize: by what each gradient is divided before the least norm is sought.
    combine: the gradients that the weights are applied to, "unscaled" or "scaled" (divided likewise).
    solver: of the least norm, "exact" or the released "search".
    """

    key = "mgda"
    space: Space = "parameters"
    native_scale = "weights sum to 1"

    def __init__(
        self,
        num_tasks: int,
        normalize: Literal["none", "l2", "loss", "loss+"] = "loss+",
        combine: Literal["unscaled", "scaled"] = "unscaled",
        solver: Literal["exact", "search"] = "exact",
    ) -> None:
        super().__init__(num_tasks)
        self.normalize, self.combine, self.solver = normalize, combine, solver
        self.positive_losses = normalize in ("loss", "loss+")

    def weights(self, gramian: np.ndarray) -> np.ndarray:
        """Gramian of the task gradients [K, K] to task weights [K], ≥ 0; unscaled they sum to 1."""
        scale = self.scale(gramian)
        scaled = gramian / np.outer(scale, scale)
        w = self.record(min_norm_point(scaled) if self.solver == "exact" else min_norm_by_search(scaled, "gradient"))
        if self.combine == "scaled":
            w = w / scale
        return w

    def scale(self, gramian: np.ndarray) -> np.ndarray:
        """s [K], > 0."""
        norms = np.sqrt(gramian.diagonal())
        scales: dict[str, np.ndarray] = {
            "none": np.ones_like(norms),
            "l2": norms,
            "loss": self.losses,
            "loss+": self.losses * norms,
        }
        return scales[self.normalize]


@register
class MGDAUB(MGDA):
    key = "mgda_ub"
    space: Space = "features"
