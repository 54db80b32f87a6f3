"""The K×K subproblems: Gramian in, weights out. float64 on the host by numpy and LAPACK, no state, no optimizer inside.

Each solver takes the Gramian G [K, K] of K ≥ 1 gradients, none of them zero, and gives a `Solution`. All begin alike:

    n_k = |g_k|      C = G / n nᵀ      the cosines; the norms become part of the right-hand sides

Nothing that spans decades is then squared: gradients whose lengths differ by twelve orders of magnitude are as good a
problem as gradients of equal length. For two tasks there are closed forms. Three problems have inequalities (min-norm
point, CAGrad's dual, projection on the dual cone): they guess the support all at once (block pivoting, a few linear
systems) and, should that not settle, as for dependent gradients, find it one task at a time (Lawson and Hanson).

Residuals are violations of the optimality conditions, with every gradient scaled to unit length: rounding leaves 1e-16
to 1e-12, closed forms count as 0. Where gradients are dependent the weights may not be unique; the update is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.linalg.lapack import dposv, dpotrf, dpotrs

#: entries of a solution below this share of their sum are rounding
ROUNDING = 1e-13


class Solution(NamedTuple):
    """Weights [K], the linear systems they took, and by how much they miss the optimality conditions."""

    weights: np.ndarray
    iterations: int
    residual: float


def cosines(gramian: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of the gradients [K] and cosines between them [K, K]."""
    norms = np.sqrt(gramian.diagonal())
    return norms, gramian / norms / norms[:, None]


# -- the point of least norm in the convex hull (MGDA, EDM, IMGrad, and the measure of Pareto stationarity) ------------


def min_norm_point(gramian: np.ndarray) -> Solution:
    """argmin wᵀGw over the simplex: weights of the point of least norm in the convex hull of the gradients.

    Optimal iff (Gw)_k ≥ wᵀGw for all k, with equality where w_k > 0. Up to scale that is v = n w with

        v ≥ 0      C v ≥ p      complementary      p = 1/n

    Where 0 is in the hull there is none. With C + p pᵀ instead of C there is; elsewhere it is the same up to scale.
    """
    if len(gramian) <= 2:
        return _min_norm_of_two(gramian)
    norms, C = cosines(gramian)
    p = norms.min() / norms
    v, rounds = _by_pivoting(C, p)
    if v is None:
        v, more = _of_dependent(C, p)
        rounds += more
    v /= v.sum()
    w = v / norms
    return Solution(w / w.sum(), rounds, _hull_residual(C, p, v))


def min_norm_miss(gramian: np.ndarray, w: np.ndarray) -> float:
    """The residual of weights w [K] on the simplex, wherever they come from, as a solution of `min_norm_point`."""
    norms, C = cosines(gramian)
    v = w * norms
    return _hull_residual(C, norms.min() / norms, v / v.sum())


def _hull_residual(C: np.ndarray, p: np.ndarray, v: np.ndarray) -> float:
    projections = C.dot(v)
    gap = projections - v.dot(projections) / v.dot(p) * p
    return float(max(-gap.min(), np.abs(gap * (v > 0)).max()))


def _of_dependent(C: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, int]:
    v = np.linalg.pinv(C, rcond=1e-13, hermitian=True).dot(p)  # equal weights for equal gradients
    if v.min() >= 0 and np.abs(C.dot(v) - p).max() <= 1e-12 * v.sum():
        return v, 1
    return _complementary(C + np.outer(p, p), p)


def _min_norm_of_two(gramian: np.ndarray) -> Solution:
    if len(gramian) == 1:
        return Solution(np.ones(1), 0, 0.0)
    (a, b), (_, c) = gramian.tolist()
    distance = a + c - 2 * b  # |g_1 - g_2|²
    if distance <= 1e-15 * (a + c):  # the same gradient twice
        return Solution(np.array([0.5, 0.5]), 0, 0.0)
    return _on_segment((c - b) / distance, (a - b) / distance)


def _on_segment(first: float, second: float) -> Solution:
    """Two weights that sum to 1, clipped to [0, 1]; both are given, as the difference of one from 1 loses digits."""
    return Solution(np.array([min(max(first, 0.0), 1.0), min(max(second, 0.0), 1.0)]), 0, 0.0)


# -- equal projections (IMTL-G) ----------------------------------------------------------------------------------------


def equal_projections(gramian: np.ndarray) -> Solution:
    """Weights with sum 1 whose combination of the gradients has equal projections on the unit gradients: C (n w) ∝ 1.

    They are not sign-constrained. The residual is the spread of these projections over Σ |w_k| n_k. NaN or infinite
    where there are none: C singular and 1 not in its range, or C⁻¹1/n with sum 0.
    """
    if len(gramian) == 2:
        (a, _), (_, c) = gramian.tolist()
        first, second = a**0.5, c**0.5
        return Solution(np.array([second, first]) / (first + second), 0, 0.0)
    norms, C = cosines(gramian)
    y, regular = _for_ones(C)
    projections = C.dot(y)
    if not regular and np.abs(projections - 1).max() > 1e-6:
        return Solution(np.full(len(norms), np.nan), 1, np.nan)
    weights = y / norms
    with np.errstate(divide="ignore", invalid="ignore"):
        return Solution(weights / weights.sum(), 1, float(np.ptp(projections) / np.abs(y).sum()))


def least_projections(gramian: np.ndarray) -> tuple[Solution, np.ndarray]:
    """The least y [K] with least |C y - 1|, and the projections C y of Σ y_k u_k on the unit gradients [K].

    Optimal iff C (C y - 1) = 0. The projections are all 1 unless C is singular.
    """
    C = cosines(gramian)[1]
    y = np.full(2, 1 / (1 + C[0, 1])) if len(C) == 2 else _for_ones(C)[0]
    projections = C.dot(y)
    return Solution(y, int(len(C) > 2), float(np.abs(C.dot(projections - 1)).max() / np.abs(y).sum())), projections


def _for_ones(C: np.ndarray) -> tuple[np.ndarray, bool]:
    """C y = 1 [K], by least squares where C is singular; and whether it is regular."""
    ones = np.ones(len(C))
    factor, y, failed = dposv(C, ones)
    if failed or factor.diagonal().min() < 1e-7:
        return np.linalg.pinv(C, rcond=1e-13, hermitian=True).dot(ones), False
    return y, True


# -- the dual of CAGrad and IMGrad -------------------------------------------------------------------------------------


def cagrad_dual(gramian: np.ndarray, c: float) -> Solution:
    """argmin g_w·g_0 + c |g_0| |g_w| over the simplex, where g_w = Σ w_k g_k and g_0 is the mean gradient.

    It is the dual of: maximise ν = min_k g_k·d over |d - g_0| ≤ c |g_0|. With d = g_0 + Σ x_k u_k, u_k the unit
    gradients, β_k = u_k·g_0 and |g_0| = 1, the optimality conditions are

        x ≥ 0      C x + β ≥ ν/n      complementary      xᵀC x = c²

    On a given support they are a linear system and a quadratic equation in ν. In general the least |d - g_0| for a
    given ν grows with ν, and the root of "= c" can be bracketed. Where even ν = 0 leaves room in the ball and ν > 0 is
    out of reach, 0 is in the hull and the dual is solved by g_w = 0, whatever d is.
    """
    K = len(gramian)
    if K == 1:
        return Solution(np.ones(1), 0, 0.0)
    if K == 2:
        return _cagrad_of_two(gramian, c)
    sums = gramian.sum(0)
    squared = sums.sum() / K**2  # |g_0|²
    if squared <= 1e-15 * gramian.diagonal().max():  # 0 up to rounding: so is the objective, everywhere
        return Solution(np.full(K, 1 / K), 0, 0.0)
    if c == 0:  # linear: the gradient least aligned with the mean
        return Solution(np.where(np.arange(K) == sums.argmin(), 1.0, 0.0), 0, 0.0)
    norms, C = cosines(gramian)
    p = norms.min() / norms
    beta = sums / norms / (K * squared**0.5)
    x, rounds = _cagrad_by_pivoting(C, p, beta, c)
    residual = _cagrad_residual(C, p, beta, c, x)
    if residual > 1e-10:
        hull = min_norm_point(C).weights
        stationary = hull.dot(C).dot(hull) <= 1e-14
        if stationary and _least_distance(C, -beta)[1] <= c:
            return min_norm_point(gramian)
        other, more = _cagrad_by_bracketing(C, p, beta, c)
        rounds += more
        if (other_residual := _cagrad_residual(C, p, beta, c, other)) < residual:
            x, residual = other, other_residual
    w = x / norms
    return Solution(w / w.sum(), rounds, residual)


def _cagrad_of_two(gramian: np.ndarray, c: float) -> Solution:
    """The objective is convex in w_1: its stationary point, at distance t from the shortest g_w, clipped to [0, 1]."""
    (a, b), (_, d) = gramian.tolist()
    distance = a + d - 2 * b  # |g_1 - g_2|²
    squared = (a + d + 2 * b) / 4  # |g_0|²
    if min(distance, squared) <= 1e-15 * (a + d):  # the same gradient twice, or g_0 = 0
        return Solution(np.array([0.5, 0.5]), 0, 0.0)
    slope = (a - d) / 2  # g_0·(g_1 - g_2)
    room = c * c * squared * distance - slope * slope
    if slope == 0:
        t = 0.0
    elif room <= 0:
        t = -np.inf if slope > 0 else np.inf
    else:
        t = -slope * (max(a * d - b * b, 0.0) / room) ** 0.5 / distance
    return _on_segment((d - b) / distance + t, (a - b) / distance - t)


def _cagrad_face(
    C: np.ndarray, p: np.ndarray, beta: np.ndarray, c: float, index: np.ndarray
) -> tuple[np.ndarray, float] | None:
    """x [K] and ν of the optimality conditions, were they equations on a support; None where its gradients depend."""
    right = np.array([p[index], beta[index]])
    _, left, failed = dposv(C[index[:, None], index], right.T)
    if failed:
        return None
    (pp, pb), (_, bb) = right.dot(left).tolist()
    nu = (pb + max(pb * pb - pp * (bb - c * c), 0.0) ** 0.5) / pp
    x = np.zeros(len(p))
    x[index] = left.dot([nu, -1.0])
    return x, nu


def _cagrad_by_pivoting(C: np.ndarray, p: np.ndarray, beta: np.ndarray, c: float) -> tuple[np.ndarray, int]:
    x, rounds = np.zeros(len(p)), 0
    on = np.ones(len(p), dtype=bool)
    fewest, patience = len(p) + 1, 3
    while patience:
        face = _cagrad_face(C, p, beta, c, on.nonzero()[0])
        if face is None:
            break
        (x, nu), rounds = face, rounds + 1
        wrong = np.where(on, x, C.dot(x) + beta - nu * p) < -ROUNDING
        count = int(np.count_nonzero(wrong))
        if count == 0:
            break
        patience = 3 if count < fewest else patience - 1
        fewest = min(count, fewest)
        on ^= wrong
        if not on.any():
            break
    return x, rounds


def _cagrad_by_bracketing(C: np.ndarray, p: np.ndarray, beta: np.ndarray, c: float) -> tuple[np.ndarray, int]:
    low, high = float((beta / p).min()), 1.0 + c
    best, nu, rounds = np.zeros(len(p)), (low + high) / 2, 0
    for _ in range(100):
        x, length, more = _least_distance(C, nu * p - beta)
        rounds += more
        if length <= c * (1 + 1e-14):
            low, best = nu, x
        else:
            high = nu
        if abs(length - c) <= 1e-14 * c or high - low <= 1e-15:
            break
        nu = (low + high) / 2
        face = _cagrad_face(C, p, beta, c, x.nonzero()[0]) if 0 < length < np.inf else None
        if face is not None and low <= face[1] <= high:
            nu = face[1]
            if _cagrad_residual(C, p, beta, c, face[0]) <= 1e-10:
                best = face[0]
                break
    return best, rounds


def _least_distance(C: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, float, int]:
    """x ≥ 0 for which e = Σ x_k u_k is the shortest vector with u_k·e ≥ bounds_k, and |e| (∞ where there is none)."""
    if bounds.max() <= 0:
        return np.zeros(len(bounds)), 0.0, 0
    z, rounds = _complementary(C + np.outer(bounds, bounds), bounds)
    gain = float(bounds.dot(z))  # |e|² / (1 + |e|²)
    if gain >= 1 - 1e-12:
        return z, np.inf, rounds
    return z / (1 - gain), (max(gain, 0.0) / (1 - gain)) ** 0.5, rounds


def cagrad_miss(gramian: np.ndarray, c: float, w: np.ndarray) -> float:
    """The residual of weights w [K] on the simplex, wherever they come from, as a solution of `cagrad_dual`."""
    norms, C = cosines(gramian)
    mean_length = max(gramian.mean(), 0.0) ** 0.5
    if mean_length <= 3e-8 * norms.max():  # 0 up to rounding: so is the objective, everywhere
        return 0.0
    return _cagrad_residual(C, norms.min() / norms, gramian.mean(1) / norms / mean_length, c, w * norms)


def _cagrad_residual(C: np.ndarray, p: np.ndarray, beta: np.ndarray, c: float, x: np.ndarray) -> float:
    """Of the gains along unit gradients, x scaled to the length that it should have."""
    Cx = C.dot(x)
    squared, total = x.dot(Cx), x.dot(p)
    if squared <= 0 or total <= 0:  # no solution at all
        return np.inf
    projections = beta + c / squared**0.5 * Cx
    gap = projections - x.dot(projections) / total * p
    return float(max(-x.min(), -gap.min(), np.abs(gap * (x > 0)).max()))


# -- Nash bargaining and its generalisation (Nash-MTL, FairGrad) -------------------------------------------------------


def bargaining(gramian: np.ndarray, alpha: float = 1.0) -> Solution:
    """The w > 0 with G w = w^(-1/α), elementwise; α = 1 is the Nash bargaining solution G w = 1/w.

    It is the gradient equation of wᵀGw/2 - Σ φ(w_k), φ' = w^(-1/α), strictly convex for every G: the solution is
    unique, and exists iff 0 is not in the convex hull of the gradients, dependent or not. Written for b = n w,

        C b = x      x = n^(1/α - 1) b^(-1/α)      the gains along unit gradients

    the norms drop out for α = 1. For other α they do not, and where they span many decades so do the gains: Newton's
    method on b may then stall, and the path of the bargains from α = 1 on is followed instead.

    The residual is max |C b / x - 1|. Where it exceeds 1e-8, because a gain is so much smaller than the terms that it
    is the sum of that rounding covers it, it is |C b - x| / (|C| b), the share of these terms that does not cancel.
    """
    norms, C = cosines(gramian)
    if alpha == 1 and len(norms) <= 2:
        together = 1.0 + float(C[0, 1]) if len(norms) == 2 else 1.0
        with np.errstate(divide="ignore"):
            return Solution(1 / (norms * np.sqrt(together)), 0, 0.0)
    with np.errstate(all="ignore"):  # what is not finite has no small residual
        solution = _bargain_by_newton(norms, C, alpha)
        if alpha != 1 and not solution.residual <= 1e-8:
            other = _bargain_by_continuation(norms, C, alpha)
            if other.residual < solution.residual or not np.isfinite(solution.weights).all():
                return other._replace(iterations=solution.iterations + other.iterations)
    return solution


def _bargain_by_newton(norms: np.ndarray, C: np.ndarray, alpha: float) -> Solution:
    """Newton's method takes relative steps, b ← b (1 + t y). One factorisation serves a step and two corrections of it
    by the terms that are not linear in y. After a damped step comes the best length along the ray, in closed form."""
    K, power, ray = len(norms), 1 / alpha, alpha / (1 + alpha)
    demand = norms ** (power - 1) if power != 1 else np.ones(K)  # x = demand / b^power
    b = demand**ray  # solves the problem of orthogonal gradients
    for _ in range(1 if power == 1 else 3):  # and this brings correlated ones near
        x = demand / b**power
        b = b * (x / np.maximum(C.dot(b), 0.3 * x)) ** ray
    best, best_b, damped = Solution(b / norms, 0, np.inf), b, True
    for iteration in range(100):
        x, Cb = demand / b if power == 1 else demand / b**power, C.dot(b)
        if damped:
            length = (b.dot(x) / b.dot(Cb)) ** ray
            b, Cb, x = length * b, length * Cb, x / length**power
        residual = float(np.abs(Cb / x - 1).max())
        if residual < best.residual:
            best, best_b = Solution(b / norms, iteration, residual), b
        elif not residual < np.inf or best.residual < 1e-8:  # lost, or rounding: it improves no more
            break
        if residual < 1e-14:
            break
        H, missed = C.copy(), x - Cb
        H.flat[:: K + 1] += power * x / b
        factor, failed = dpotrf(H.T, clean=0, overwrite_a=1)
        if failed:
            break
        y = dpotrs(factor, missed)[0] / b
        largest = float(np.abs(y).max())
        if (1 + power) * largest > 1:  # a damped step
            y = y * _step_length(C, b, Cb, b * x, power, y, float((b * y).dot(missed)))
        elif largest > 1e-9:
            for _ in range(2):
                bent = 1 / (1 + y) if power == 1 else (1 + y) ** -power
                corrected = dpotrs(factor, missed + x * (bent - 1 + power * y))[0] / b
                if corrected.min() < -0.9:
                    break
                y = corrected
        b = b + b * y
    if best.residual > 1e-8:
        best = best._replace(residual=_residual(C, best_b, demand / best_b**power))
    return best


def _step_length(
    C: np.ndarray, b: np.ndarray, Cb: np.ndarray, shares: np.ndarray, power: float, y: np.ndarray, decrement: float
) -> float:
    """At most 1, short of the border, and such that the objective falls by a tenth of what its slope promises."""
    by = b * y
    slope, curvature = float(by.dot(Cb)), float(by.dot(C.dot(by)))

    def change(t: float) -> float:
        gains = np.log1p(t * y) if power == 1 else ((1 + t * y) ** (1 - power) - 1) / (1 - power)
        return t * slope + t * t / 2 * curvature - float(shares.dot(gains))

    t, rounding = min(1.0, 0.95 / max(-float(y.min()), 1e-300)), 1e-14 * float(shares.sum())
    while t > 1e-6 and change(t) > rounding - 0.1 * t * decrement:
        t /= 2
    return t


def _bargain_by_continuation(norms: np.ndarray, C: np.ndarray, alpha: float) -> Solution:
    """Follow the bargains from that of Nash, τ = 0, to that of α, τ = 1:

        C b = x      b x w^(τ (1/α - 1)) = 1      w = b/n

    b and x are unknowns of their own, so that a gain below the rounding of C b keeps its digits. Every step corrects
    what the last one missed and goes along the path as far as b or x change by a fraction of themselves.
    """
    K, bend, unit = len(norms), 1 / alpha - 1, float(np.exp(np.log(norms).mean()))
    n = norms / unit
    b = _bargain_by_newton(np.ones(K), C, 1.0).weights
    x, tau, last, rounds = 1 / b, 0.0, np.inf, 0
    while rounds < 2000:
        rounds += 1
        power, log_w = 1 + tau * bend, np.log(b / n)
        missed = -(np.log(b) + np.log(x) + tau * bend * log_w)
        H = C.copy()
        H.flat[:: K + 1] += power * x / b
        factor, failed = dpotrf(H.T, clean=0, overwrite_a=1)
        if failed:
            break
        right = np.array([x * missed + x - C.dot(b), -bend * x * log_w])
        correction, along = dpotrs(factor, right.T)[0].T / b  # relative changes of b
        correction_of_x, along_of_x = missed - power * correction, -bend * log_w - power * along
        size, speed = _change(correction, correction_of_x, power), _change(along, along_of_x, power)
        part = min(1.0, 0.7 / size)
        stride = min(1 - tau, (0.7 - size) / speed) if size < 0.3 and tau < 1 else 0.0
        if not (size < np.inf and (speed < np.inf or tau == 1)):  # beyond what a number can be: stay here
            break
        b = b * (1 + part * correction + stride * along)
        x = x * (1 + part * correction_of_x + stride * along_of_x)
        if tau == 1 and (size <= 1e-8 or size >= last):
            break
        tau, last = 1.0 if stride == 1 - tau else tau + stride, size if tau == 1 else np.inf
    return Solution(b / n * unit ** (-2 * alpha / (1 + alpha)), rounds, _residual(C, b, n ** (power - 1) / b**power))


def _change(of_b: np.ndarray, of_x: np.ndarray, power: float) -> float:
    """How far b and x move; where power is small, b may grow much without bending the equations."""
    return float(max(min(1.0, power) ** 0.5 * np.abs(of_b).max(), np.abs(of_x).max(), -of_b.min()))


def _residual(C: np.ndarray, b: np.ndarray, x: np.ndarray) -> float:
    """max |C b - x| over x, or over |C| b, the terms of the sum C b, where these are more; ∞ if it is not a number."""
    gap = np.abs(C.dot(b) - x)
    residual = float(np.minimum(gap / x, gap / np.abs(C).dot(b)).max())
    return residual if residual < np.inf else np.inf


# -- projection on the dual cone (UPGrad) ------------------------------------------------------------------------------


def dual_cone_projection(gramian: np.ndarray, reg: float = 0.0) -> Solution:
    """Weights [K] of the mean of the gradients, each first projected on the cone {d: g_k·d ≥ 0 for all k}.

    The projection of u_i is u_i + Σ_k t_k u_k with t ≥ 0, C t + C_i ≥ 0, complementary: K problems with one matrix (to
    whose diagonal `reg` is added). The residual is the worst violation of these conditions, over 1 + Σ t.
    """
    norms, C = cosines(gramian)
    K = len(norms)
    if C.min() >= 0:
        return Solution(np.full(K, 1 / K), 0, 0.0)
    if K == 2:
        t = -float(C[0, 1]) / (1 + reg)
        return Solution((1 + t * norms[::-1] / norms) / 2, 0, 0.0)
    M = C + reg * np.eye(K) if reg else C
    T, rounds = _dual_cone_by_pivoting(M)
    residuals = _complementarity(M, T)
    if residuals.max() > 1e-11:
        for i in np.flatnonzero(residuals > 1e-11):
            T[i], more = _one_by_one(M, -M[i])
            rounds += more
        residuals = _complementarity(M, T)
    return Solution((1 + norms.dot(T) / norms) / K, rounds, float(residuals.max()))


def _complementarity(M: np.ndarray, T: np.ndarray) -> np.ndarray:
    gaps = T.dot(M) + M
    off = np.maximum(np.maximum(-T, -gaps), np.minimum(np.abs(T), np.abs(gaps)))
    residuals: np.ndarray = off.max(1) / (1 + np.abs(T).sum(1))
    return residuals


def _dual_cone_by_pivoting(M: np.ndarray) -> tuple[np.ndarray, int]:
    """`_by_pivoting` for all K right-hand sides; rows of T that did not settle are left for `_one_by_one`."""
    K = len(M)
    T, rounds = np.zeros((K, K)), 0
    rows = np.flatnonzero(M.min(1) < 0)
    on = _dual_cone_guess(M)[rows]
    fewest, patience = np.full(len(rows), K + 1), np.full(len(rows), 3)
    while len(rows):
        x, regular = np.zeros((len(rows), K)), np.ones(len(rows), dtype=bool)
        for row, (i, support) in enumerate(zip(rows, on, strict=True)):
            index = support.nonzero()[0]
            if len(index):
                _, part, failed = dposv(M[index[:, None], index], -M[i, index])
                x[row, index], regular[row] = 0.0 if failed else part, not failed
        T[rows] = x
        rounds += 1
        wrong = np.where(on, x, x.dot(M) + M[rows]) < -ROUNDING
        count = wrong.sum(1)
        patience = np.where(count < fewest, 3, patience - 1)
        fewest = np.minimum(count, fewest)
        go = (count > 0) & (patience > 0) & regular
        rows, on, fewest, patience = rows[go], (on ^ wrong)[go], fewest[go], patience[go]
    return T, rounds


def _dual_cone_guess(M: np.ndarray) -> np.ndarray:
    """The supports [K, K], one problem per row: where gradients conflict, or, for many tasks, where ten steps of
    projected gradient descent (with momentum; a step is one product of matrices) leave something positive."""
    if len(M) <= 16:
        return M < 0
    square = M.dot(M)
    fourth = square.dot(square)
    M = M / np.linalg.norm(fourth.dot(fourth)) ** 0.125  # at least the largest eigenvalue, and nearly that
    T = Y = np.zeros_like(M)
    for step in range(10):
        before, T = T, np.maximum(Y - Y.dot(M) - M, 0)
        Y = T + step / (step + 3) * (T - before)
    support: np.ndarray = Y - Y.dot(M) > M
    return support


# -- x ≥ 0, Q x ≥ c, complementary -------------------------------------------------------------------------------------


def _complementary(Q: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, int]:
    x, rounds = _by_pivoting(Q, c)
    if x is not None:
        return x, rounds
    x, more = _one_by_one(Q, c)
    return x, rounds + more


def _by_pivoting(Q: np.ndarray, c: np.ndarray) -> tuple[np.ndarray | None, int]:
    """Solve on a support, exchange all that are on the wrong side, repeat; and the linear systems it took.

    None where the gradients are dependent or the exchanges do not settle.
    """
    K = len(c)
    factor, x, failed = dposv(Q, c)
    if failed or factor.diagonal().min() < 1e-7:
        return None, 1
    if x.min() >= 0:
        return x, 1
    on = x > 0
    fewest, patience, rounds = K, 3, 1
    while patience and on.any():
        index = on.nonzero()[0]
        factor, part, failed = dposv(Q[index[:, None], index], c[index])
        rounds += 1
        if failed or factor.diagonal().min() < 1e-7:
            break
        x = np.zeros(K)
        x[index] = part
        wrong = np.where(on, x, Q.dot(x) - c) < -ROUNDING * np.abs(part).sum()
        count = int(np.count_nonzero(wrong))
        if count == 0:
            return np.maximum(x, 0.0), rounds
        patience = 3 if count < fewest else patience - 1
        fewest = min(count, fewest)
        on ^= wrong
    return None, rounds


def _one_by_one(Q: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, int]:
    """The same for a positive semi-definite Q with c in its range: argmin xᵀQx/2 - cᵀx over x ≥ 0.

    Let in the task that gains most, walk towards the optimum on the support, drop what reaches zero on the way. Each
    support is new and its gradients are independent, so it ends.
    """
    K = len(c)
    x, rounds = np.zeros(K), 0
    on, barred = np.zeros(K, dtype=bool), np.zeros(K, dtype=bool)
    while rounds < 30 * K:
        gain = np.where(on | barred, -np.inf, c - Q.dot(x))
        entering = int(gain.argmax())
        if gain[entering] <= ROUNDING * max(np.abs(c).max(), x.sum()):
            break
        on[entering] = True
        while True:
            index = on.nonzero()[0]
            _, part, failed = dposv(Q[index[:, None], index], c[index])
            rounds += 1
            y = np.zeros(K)
            y[index] = part
            if failed or (y[entering] <= 0 and x[entering] == 0):  # what it gained was rounding
                on[entering], barred[entering] = False, True
                break
            if part.min() > 0:
                x = y
                barred[:] = False
                break
            down = index[part <= 0]
            reach = x[down] / (x[down] - y[down])
            x = x + reach.min() * (y - x)
            x[down[reach <= reach.min()]] = 0.0
            on &= x > 0
    return x, rounds
