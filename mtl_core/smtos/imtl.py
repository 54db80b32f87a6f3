"""IMTL: impartial learning. Equal projections on all unit gradients (G), equal scaled losses (L), or both.

    IMTL-G    α with Σ α_k = 1 for which u_k·d is the same for all k, d = Σ_k α_k g_k, u_k = g_k / |g_k|
              α ∝ y / |g|,  C y = 1,  C the cosines                            update = Σ_k α_k g_k
    IMTL-L    each loss becomes e^(s_k) L_k − s_k with a learnt s_k (0 at the start); ∂/∂s_k = e^(s_k) L_k − 1
              at rest e^(s_k) = 1 / L_k                                        update = Σ_k e^(s_k) g_k
    IMTL      G on the gradients of the scaled losses: α_k from g̃_k = e^(s_k) g_k
                                                                               update = Σ_k α_k e^(s_k) g_k
              the heads get the gradients of the scaled losses, e^(s_k); s_k its own gradient, not weighted by α

α is not sign-constrained: for three tasks and more the common projection can be negative, which makes every loss grow.

Source: Liu, Li, Kuang, Xue, Chen, Yang, Liao, Zhang 2021, "Towards impartial multi-task learning", ICLR 2021,
OpenReview IMPnRXEWpvr (not on arXiv).
Differs:
1. For three tasks and more the released code of the main paper, and the code that it extends, use the matrix of the
   closed form transposed (D24): the projections are then not equal, and the weights can be huge. The correct form is
   the default, `form="transposed"` the released one with its 1e-6 on the diagonal, which depends on the scale of the
   gradients, and with zero weights where it gives none. For two tasks the two agree except for that 1e-6.
2. `guard`: where the common projection is not positive, a weight exceeds 1000, or no equal projections exist, the step
   is EDM's (flag "guard"). Switched off, the formula is taken as it is; where there is no solution the shared update is
   zero (flag "no_solution"). The transposed form has no guard.
3. The gradients are those on the features, as in the main paper; `space="parameters"` takes those on the shared
   parameters.
4. s has its own Adam with the main optimizer's initial learning rate, which does not follow the schedule (D43), as in
   the released code. The source learns s with the network.
5. The main paper logs α alone (D25); the weights recorded here are the effective ones, α_k e^(s_k), and α is a
   diagnostic.
6. e^s L − s has no minimum for L ≤ 0. Here, where scales are learnt, a loss of 0 counts as 1e-12, with the flag
   "floored_loss"; a negative loss is an error.
"""

from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from mtl_core.smtos.adam import VectorAdam
from mtl_core.smtos.base import GramianWeighting, LossWeighting, ProblemInfo, StepResult, register
from mtl_core.smtos.edm import bisector
from mtl_core.smtos.solvers import Solution, equal_projections
from mtl_core.step import Space, Step


@register
class IMTLG(GramianWeighting):
    """Options:
    form: the closed form, "correct" or "transposed".
    guard: EDM's step where the correct form would raise every loss or has no sound solution.
    space: the gradients, on "features" or "parameters".
    """

    key = "imtl_g"
    space: Space = "features"
    native_scale = "weights sum to 1"

    def __init__(
        self,
        num_tasks: int,
        form: Literal["correct", "transposed"] = "correct",
        guard: bool = True,
        space: Space = "features",
    ) -> None:
        super().__init__(num_tasks)
        self.form, self.guard, self.space = form, guard, space

    def weights(self, gramian: np.ndarray) -> np.ndarray:
        """Gramian of the task gradients [K, K] to weights α [K], of any sign, summing to 1."""
        if self.form == "transposed":
            alpha = transposed(gramian)
        else:
            solution = equal_projections(gramian)
            if self.guard and not is_sound(gramian, solution):
                self.flags.append("guard")
                solution = bisector(gramian)
            alpha = self.record(solution) if np.isfinite(solution.weights).all() else solution.weights
        self._describe(gramian, alpha)
        if np.isfinite(alpha).all():
            return alpha
        self.flags.append("no_solution")
        return np.zeros(len(gramian))

    def _describe(self, gramian: np.ndarray, alpha: np.ndarray) -> None:
        """For three tasks and more: the largest |α|, and the decimal logarithm of the condition number of the closed
        form's matrix M, the same for both forms (at most 17, where double precision ends)."""
        if len(alpha) > 2:
            matrix = released_system(gramian)[0]
            condition = np.linalg.cond(matrix) if np.isfinite(matrix).all() else np.inf
            self.diagnostics |= {
                "largest_alpha": float(np.abs(alpha).max()),
                "peak_alpha": float(np.abs(alpha).max()),
                "log10_condition_of_M": float(np.log10(min(condition, 1e17))),
            }


def is_sound(gramian: np.ndarray, solution: Solution) -> bool:
    """Whether the projections are equal, and positive, without a weight beyond 1000."""
    alpha = solution.weights
    return bool(solution.residual <= 1e-8 and np.abs(alpha).max() <= 1e3 and (gramian @ alpha > 0).all())


def transposed(gramian: np.ndarray) -> np.ndarray:
    """α as in the released code: M α_{2…K} = r, α_1 = 1 − Σ, with M_ij = (g_1 − g_i)·(u_1 − u_j) + 1e-6 δ_ij and
    r_j = g_1·(u_1 − u_j). The correct matrix is Mᵀ. NaN where M is singular."""
    matrix, right = released_system(gramian)
    try:
        others = np.linalg.solve(matrix, right)
    except np.linalg.LinAlgError:
        return np.full(len(gramian), np.nan)
    return np.array([1 - others.sum(), *others])


def released_system(gramian: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """M [K − 1, K − 1] and r [K − 1] of `transposed`."""
    units = gramian / np.sqrt(gramian.diagonal())  # [i, j]: g_i·u_j
    right = units[0, 0] - units[0, 1:]
    return right - (units[1:, :1] - units[1:, 1:]) + 1e-6 * np.eye(len(gramian) - 1), right


@register
class IMTL(IMTLG):
    """The hybrid of both, as the main paper runs it. Options: those of `imtl_g`."""

    key = "imtl"
    head_policy = "scaled"
    needs = ("lr",)
    native_scale = "weights α e^s, α sums to 1"
    positive_losses = True

    def __init__(
        self,
        num_tasks: int,
        form: Literal["correct", "transposed"] = "correct",
        guard: bool = True,
        space: Space = "features",
    ) -> None:
        super().__init__(num_tasks, form, guard, space)
        self.s: Tensor = nn.Buffer(torch.zeros(num_tasks))
        self.scales = np.ones(num_tasks)  # e^s of the present step
        self.optimizer = VectorAdam(num_tasks, lr=1e-3)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """s and its Adam stay on the host, where they are used; of a move only the precision counts."""
        super()._apply(lambda tensor: tensor.to(fn(tensor).dtype), recurse)  # type: ignore[no-untyped-call]
        return self

    def set_up(self, info: ProblemInfo, seed: int) -> None:
        super().set_up(info, seed)
        self.optimizer.lr = info.lr

    def solve(self, gramian: np.ndarray, losses: np.ndarray | None = None) -> np.ndarray:
        """Gramian of the plain gradients [K, K] and losses [K] to α e^s [K]; then s takes its step."""
        self.scales = np.exp(self.s.numpy().astype(float))
        weights = super().solve(gramian, losses)
        losses = np.ones(self.num_tasks) if losses is None else np.maximum(losses, self.floor)
        self.optimizer.step(self.s, torch.from_numpy(self.scales * losses - 1))
        return weights

    def weights(self, gramian: np.ndarray) -> np.ndarray:
        """Gramian of the plain gradients [K, K] to α e^s [K]."""
        scales = self.scales[self.active]
        alpha = super().weights(gramian * np.outer(scales, scales))
        self.diagnostics |= {f"alpha_{k}": float(a) for k, a in zip(self.active, alpha, strict=True)}
        if len(alpha) > 2:
            self.diagnostics["largest_scale"] = float(scales.max())
        return alpha * scales

    def head_weights(self, weights: np.ndarray) -> np.ndarray:
        """e^s [K]."""
        return self.scales


@register
class IMTLL(LossWeighting):
    """Learnt scales alone."""

    key = "imtl_l"
    head_policy = "scaled"
    needs = ("lr",)
    native_scale = "weights e^s, 1 at the start"
    positive_losses = True

    def __init__(self, num_tasks: int) -> None:
        super().__init__(num_tasks)
        self.s: Tensor = nn.Buffer(torch.zeros(num_tasks))
        self.optimizer = VectorAdam(num_tasks, lr=1e-3)

    def set_up(self, info: ProblemInfo, seed: int) -> None:
        super().set_up(info, seed)
        self.optimizer.lr = info.lr

    def weights(self, losses: Tensor) -> Tensor:
        """Losses [K] to e^s [K]."""
        return self.s.exp().to(losses)

    def backward(self, step: Step) -> StepResult:
        result = super().backward(step)
        self.optimizer.step(self.s, result.weights * step.losses.clamp(min=self.floor) - 1)
        return result
