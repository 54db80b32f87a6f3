"""What a Gramian of task gradients tells: whether it is one, and whether 0 is in the hull."""

from __future__ import annotations

import numpy as np

from mtl_core.smtos.solvers import cosines, min_norm_point


class NotAGramian(ValueError):
    """A matrix that cannot be the Gramian of task gradients."""


class NonFinite(ArithmeticError):
    """A loss or a gradient is NaN or infinite: the run has diverged."""


def is_stationary(gramian: np.ndarray) -> bool:
    """Whether 0 is (numerically) in the convex hull of the unit gradients: min wᵀCw ≤ 1e-10 over the simplex."""
    C = cosines(gramian)[1]
    if (C >= 0).all():
        return False
    w = min_norm_point(C).weights
    return bool(w @ C @ w <= 1e-10)


def check_gramian(gramian: np.ndarray, key: str, num_tasks: int) -> np.ndarray:
    """The Gramian as float64, made exactly symmetric.

    Raises:
        NonFinite: an entry is NaN or infinite.
        NotAGramian: not real numbers, not [K, K], not symmetric, or not positive semi-definite beyond rounding.
    """
    given = np.asarray(gramian)
    if given.dtype.kind not in "fiu":
        raise NotAGramian(f"{key}: a Gramian holds real numbers; this matrix has the type {given.dtype}.")
    gramian = given.astype(np.float64, copy=False)
    if gramian.shape != (num_tasks, num_tasks):
        raise NotAGramian(f"{key}: expected a Gramian of shape ({num_tasks}, {num_tasks}), got {gramian.shape}.")
    if not np.isfinite(gramian).all():
        raise NonFinite(f"{key}: the Gramian of the task gradients is not finite:\n{gramian}")
    norms = np.sqrt(np.abs(gramian.diagonal()))
    scale = np.outer(norms, norms)  # Cauchy-Schwarz: |G_ij| may not exceed it
    if (np.abs(gramian - gramian.T) > 1e-6 * scale).any():
        raise NotAGramian(f"{key}: a Gramian is symmetric, this matrix is not:\n{gramian}")
    if (gramian.diagonal() < 0).any() or (np.abs(gramian) > (1 + 1e-6) * scale).any():
        raise NotAGramian(f"{key}: a Gramian is positive semi-definite, this matrix is not:\n{gramian}")
    if num_tasks > 2:
        unit = np.where(norms > 0, norms, 1.0)
        smallest = np.linalg.eigvalsh(gramian / np.outer(unit, unit))[0]
        if smallest < -1e-6 * num_tasks:
            words = f"the smallest eigenvalue of this one, scaled to unit diagonal, is {smallest:.2e}:\n{gramian}"
            raise NotAGramian(f"{key}: a Gramian is positive semi-definite; {words}")
    symmetric: np.ndarray = (gramian + gramian.T) / 2
    return symmetric
