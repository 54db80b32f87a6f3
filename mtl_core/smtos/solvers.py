"""The K×K subproblems: Gramian in, weights out. float64 on the host by numpy and LAPACK, no state, no optimiser inside.

Each solver takes the Gramian G [K, K] of K ≥ 1 gradients, none of them zero, and gives a `Solution`. All begin alike:

    n_k = |g_k|      C = G / n nᵀ      the cosines; the norms become part of the right-hand sides

Nothing that spans decades is then squared: gradients whose lengths differ by twelve orders of magnitude are as good a
problem as gradients of equal length. For two tasks there are closed forms. Three problems have inequalities (min-norm
point, CAGrad's dual, projection on the dual cone): they guess the support all at once (block pivoting, a few linear
systems) and, should that not settle, as for dependent gradients it may not, find it one task at a time (Lawson and
Hanson).

Residuals are violations of the optimality conditions, with every gradient scaled to unit length: rounding leaves 1e-16
to 1e-12, closed forms count as 0. Where gradients are dependent the weights may not be unique; the update is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.linalg.lapack import dposv

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

    Where 0 is in the hull there is none. With C + p pᵀ in place of C there is; elsewhere it is the same up to scale.
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
    projections = C.dot(v)
    gap = projections - v.dot(projections) / v.dot(p) * p
    w = v / norms
    return Solution(w / w.sum(), rounds, float(max(-gap.min(), np.abs(gap * (v > 0)).max())))


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
    ones = np.ones(len(norms))
    factor, y, failed = dposv(C, ones)
    if failed or factor.diagonal().min() < 1e-7:
        y = np.linalg.pinv(C, rcond=1e-13, hermitian=True).dot(ones)
        if np.abs(C.dot(y) - ones).max() > 1e-6:
            return Solution(np.full(len(norms), np.nan), 1, np.nan)
    projections = C.dot(y)
    weights = y / norms
    with np.errstate(divide="ignore", invalid="ignore"):
        return Solution(weights / weights.sum(), 1, float(np.ptp(projections) / np.abs(y).sum()))


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
    if squared <= 1e-15 * gramian.diagonal().max():  # 0 but for rounding: so is the objective, everywhere
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

        b (C b) = s      s = w^(1 - 1/α)      the shares of |d|² = Σ s

    the norms drop out for α = 1. For other α they do not: where w spans more than about eight decades float64 may not
    suffice, and the residual, max |b (C b) / s - 1|, says so. Newton's method takes relative steps, w ← w (1 + t y); a
    damped one is followed by the best length along the ray, which has a closed form.
    """
    norms, C = cosines(gramian)
    K = len(norms)
    if alpha == 1 and K <= 2:
        together = 1.0 + float(C[0, 1]) if K == 2 else 1.0
        with np.errstate(divide="ignore"):
            return Solution(1 / (norms * np.sqrt(together)), 0, 0.0)
    power, ray = 1 - 1 / alpha, alpha / (1 + alpha)
    w = norms ** (-2 * ray)  # solves the problem of orthogonal gradients
    for _ in range(2 if power else 0):  # and this brings correlated ones near
        b, share = norms * w, w**power
        w = w * (share / np.maximum(b * C.dot(b), 0.1 * share)) ** ray
    best, damped, ones = Solution(w, 0, np.inf), True, np.ones(K)
    for iteration in range(100):
        b, share = norms * w, w**power if power else ones
        Cb = C.dot(b)
        if damped:
            length = (share.sum() / b.dot(Cb)) ** ray
            w, b, Cb, share = length * w, length * b, length * Cb, length**power * share
        error = 1 - b * Cb / share
        residual = float(np.abs(error).max())
        if residual < best.residual:
            best = Solution(w, iteration, residual)
        elif best.residual < 1e-8:  # rounding: it improves no more
            break
        if residual < 1e-14:
            break
        root = np.sqrt(share)
        scaled = b / root
        H = scaled[:, None] * C * scaled
        H.flat[:: K + 1] += 1 / alpha
        y = dposv(H, root * error)[1] / root
        damped = (1 + 1 / alpha) * float(np.abs(y).max()) > 0.6
        t = _step_length(gramian, power, w, y, float((share * error).dot(y))) if damped else 1.0
        w = w * (1 + t * y)
    return best


def _step_length(gramian: np.ndarray, power: float, w: np.ndarray, y: np.ndarray, decrement: float) -> float:
    """At most 1, short of the border, and such that the objective falls by a tenth of what its slope promises."""

    def value(w: np.ndarray) -> float:
        return float(w.dot(gramian).dot(w) / 2 - (w**power / power if power else np.log(w)).sum())

    start, t = value(w), min(1.0, 0.95 / max(-float(y.min()), 1e-300))
    while t > 1e-6 and value(w * (1 + t * y)) > start - 0.1 * t * decrement + 1e-14 * abs(start):
        t /= 2
    return t


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
    return off.max(1) / (1 + np.abs(T).sum(1))


def _dual_cone_by_pivoting(M: np.ndarray) -> tuple[np.ndarray, int]:
    """`_by_pivoting` for all K right-hand sides at once; rows of T that did not settle are left as they were."""
    K = len(M)
    T, identity, rounds = np.zeros((K, K)), np.eye(K), 0
    rows = np.flatnonzero(M.min(1) < 0)
    on = M[rows] < 0
    fewest, patience = np.full(len(rows), K + 1), np.full(len(rows), 3)
    while len(rows):
        try:
            systems = np.where(on[:, :, None] & on[:, None, :], M, identity)
            x = np.linalg.solve(systems, np.where(on, -M[rows], 0.0)[:, :, None])[:, :, 0]
        except np.linalg.LinAlgError:
            break
        rounds += 1
        T[rows] = x
        wrong = np.where(on, x, x.dot(M) + M[rows]) < -ROUNDING
        count = wrong.sum(1)
        patience = np.where(count < fewest, 3, patience - 1)
        fewest = np.minimum(count, fewest)
        go = (count > 0) & (patience > 0)
        rows, on, fewest, patience = rows[go], (on ^ wrong)[go], fewest[go], patience[go]
    return T, rounds


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
