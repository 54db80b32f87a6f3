"""Nash-MTL: the tasks bargain. No equally long update gives some of them more percent than it takes from the others.

    α > 0 with  G α = 1/α  elementwise                 d = Σ_k α_k g_k
    update = d · min(1, max_norm / |d|)                the heads get α_k, not clipped

At the solution |d| = √K whatever the gradients, so that with max_norm = 1 the update always has length 1. α depends on
the cosines and on 1/|g_k|: its direction does not depend on the scales of the losses, while α grows without bound as
gradients vanish.

Source: Navon, Shamsian, Achituve, Maron, Kawaguchi, Chechik, Fetaya 2022, arXiv:2202.01017.
Differs:
1. The source's code, which the main paper runs, linearises the problem up to 20 times and calls the solver ECOS, from
   the last step's α. Its test for a solution measures the normalised Gramian against α on the unnormalised scale; it
   stops with the iterate before the last; where norms differ by some decades it stalls far from the solution; and where
   the solver fails, the last α stays, unnoticed. Here Newton's method solves to rounding. `solver="cvxpy"` is the
   released procedure with the convex solver `conic`; failures are counted (flag "fallback").
2. The clip is known from |d|² = αᵀGα, so it is part of the weights on the shared parameters; the α that the main paper
   logs are the head weights. `max_norm=None` leaves the update √K long.
3. Where 0 is in the convex hull of the gradients there is no solution: no shared update (flag "pareto_stationary"), and
   the heads keep the last α (1 each at the start), also where no task has a gradient.
4. `update_every=n` uses α for n steps, as the source allows; those between cost one backward pass.
"""

from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field

from mtl_core.options import BadOption
from mtl_core.smtos.base import GramianWeighting, StepResult, register
from mtl_core.smtos.solvers import bargaining
from mtl_core.step import Step


@register
class NashMTL(GramianWeighting):
    """Options:
    max_norm: longest shared update; None for no clip.
    update_every: steps that one bargain holds for.
    solver: "newton" (exact) or "cvxpy" (the released procedure).
    conic: which of cvxpy's solvers the released procedure calls.
    """

    key = "nash_mtl"
    head_policy = "weighted"
    native_scale = "length 1 (max_norm), √K without clip"
    undefined_at_stationary = True
    remembered = ("alpha", "count")

    def __init__(
        self,
        num_tasks: int,
        max_norm: Annotated[float, Field(gt=0)] | None = 1.0,
        update_every: Annotated[int, Field(ge=1)] = 1,
        solver: Literal["newton", "cvxpy"] = "newton",
        conic: str = "ECOS",
    ) -> None:
        super().__init__(num_tasks)
        self.max_norm, self.update_every, self.solver = max_norm, update_every, solver
        self.procedure = Procedure(num_tasks, conic) if solver == "cvxpy" else None
        self.alpha = np.ones(num_tasks)  # the last bargain
        self.count = 0  # of steps

    def solve(self, gramian: np.ndarray, losses: np.ndarray | None = None) -> np.ndarray:
        """Gramian [K, K] to the weights on the shared parameters [K], clipped."""
        weights = super().solve(gramian, losses)
        length = np.sqrt(weights @ gramian @ weights)
        return weights if self.max_norm is None or length <= self.max_norm else weights * self.max_norm / length

    def weights(self, gramian: np.ndarray) -> np.ndarray:
        """Gramian of the task gradients [K, K] to α [K], > 0."""
        if self.procedure is None:
            alpha = self.record(bargaining(gramian))
        else:
            alpha, failures = self.procedure(gramian, self.alpha[self.active])
            self.flags += ["fallback"] * bool(failures)
            self.diagnostics |= {"residual": float(np.abs(alpha * (gramian @ alpha) - 1).max()), "failures": failures}
        self.alpha = np.full(self.num_tasks, alpha.mean())  # a task left out gets the others' mean
        self.alpha[self.active] = alpha
        return alpha

    def head_weights(self, weights: np.ndarray) -> np.ndarray:
        """The last α [K], not clipped."""
        return self.alpha.copy()

    def backward(self, step: Step) -> StepResult:
        self.count += 1
        if (self.count - 1) % self.update_every == 0:
            return super().backward(step)
        alpha = torch.from_numpy(self.alpha).to(step.losses)
        step.apply(alpha, alpha)
        if self.max_norm is None:
            return StepResult(alpha, alpha)
        length = torch.nn.utils.clip_grad_norm_(step.shared, self.max_norm)
        return StepResult(alpha * (self.max_norm / (length + 1e-6)).clamp(max=1), alpha)  # as torch clips


class Procedure:
    """The source's solver: up to 20 rounds of a convex programme, each linearised at the last round's α.

        minimise Σ_k (A α)_k + φ′(α_t)·(α − α_t) / f   over α ≥ 0 with  log(f α_k) + log (A α)_k ≥ 0
        f = |G| (Frobenius), A = G / f, φ(α) = Σ_k log α_k + log (A α)_k

    It ends where |A α_t − 1/α_t| < 1e-3, where α moves by less than 1e-6, or where the solver fails, always with α_t.

    Raises:
        BadOption: cvxpy or the named solver is not installed, or it cannot solve such programmes.
    """

    def __init__(self, num_tasks: int, conic: str) -> None:
        try:
            import cvxpy
        except ImportError:
            raise BadOption('nash_mtl: solver = "cvxpy" needs the package cvxpy: pip install cvxpy.') from None
        if conic not in cvxpy.installed_solvers():
            names = ", ".join(cvxpy.installed_solvers())
            raise BadOption(f"nash_mtl: cvxpy finds no solver called {conic!r}; installed: {names}.")
        self.conic = conic
        self.options = {"max_iters": 100} if conic == "ECOS" else {}
        self.programs: dict[int, Any] = {}
        if self(np.eye(num_tasks), np.ones(num_tasks))[1]:
            raise BadOption(f"nash_mtl: the solver {conic!r} cannot solve a programme with logarithms; try ECOS.")

    def __call__(self, gramian: np.ndarray, alpha: np.ndarray) -> tuple[np.ndarray, int]:
        """Gramian [K, K] and the last step's α [K] to α [K] and the number of failed solves (0 or 1)."""
        import cvxpy

        K = len(gramian)
        if K not in self.programs:
            self.programs[K] = _program(K)
        problem, variable, matrix, root, slope = self.programs[K]
        factor = np.linalg.norm(gramian)
        A = gramian / factor
        matrix.value, root.value = A, factor
        for _ in range(20):
            with np.errstate(all="ignore"):  # an iterate of 0 fails in the next round
                tangent = (1 / alpha + A @ (1 / (A @ alpha))) / factor
            try:
                slope.value = tangent
                problem.solve(solver=self.conic, **self.options)
            except (cvxpy.SolverError, ArithmeticError, ValueError):
                return alpha, 1
            new = variable.value
            if new is None or not np.isfinite(new).all():
                return alpha, 1
            if np.linalg.norm(A @ alpha - 1 / alpha) < 1e-3 or np.linalg.norm(new - alpha) < 1e-6:
                break
            alpha = new
        return alpha, 0


def _program(K: int) -> tuple[Any, ...]:
    import cvxpy as cp

    alpha = cp.Variable(K, nonneg=True)
    matrix, factor, slope = cp.Parameter((K, K)), cp.Parameter(nonneg=True), cp.Parameter(K)
    gains = matrix @ alpha
    problem = cp.Problem(cp.Minimize(cp.sum(gains) + slope @ alpha), [cp.log(factor * alpha) + cp.log(gains) >= 0])
    return problem, alpha, matrix, factor, slope
