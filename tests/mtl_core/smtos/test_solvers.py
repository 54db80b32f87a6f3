"""The K×K solvers against certificates, convex programmes, brute force and hand computations."""

from __future__ import annotations

import decimal
import itertools
from decimal import Decimal

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import nnls

from benchmarks import oracles
from benchmarks.oracles import G1, G2, G3, gramian
from mtl_core.smtos import solvers

WELL_POSED = {
    "orthogonal on average": {},
    "correlated": {"cosine": 0.3, "decades": 1},
    "lengths over two decades": {"decades": 2},
    "lengths over twelve decades": {"decades": 12},
    "conflicting": {"size": 4},
}
SIZES = [1, 2, 3, 5, 11, 40, 64]


@pytest.fixture(params=WELL_POSED, ids=lambda name: name.replace(" ", "_"))
def kind(request) -> dict[str, float]:
    return WELL_POSED[request.param]


def several(K: int, kind: dict[str, float]) -> list[np.ndarray]:
    return [gramian(K, seed, **kind) for seed in range(8 if K < 40 else 2)]


# -- optimality, K from 1 to 64 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("K", SIZES)
def test_min_norm_point_is_optimal(K, kind) -> None:
    for G in several(K, kind):
        w, _, residual = solvers.min_norm_point(G)
        assert oracles.min_norm_violation(G, w) <= 1e-12
        assert residual <= 1e-12


@pytest.mark.parametrize("K", SIZES)
def test_cagrad_dual_is_optimal(K, kind) -> None:
    for c, G in itertools.product((0.05, 0.5, 0.95, 1.6), several(K, kind)):
        w, _, residual = solvers.cagrad_dual(G, c)
        assert oracles.cagrad_violation(G, w, c) <= 1e-8, c
        assert residual <= 1e-9, c


@pytest.mark.parametrize("K", SIZES)
def test_nash_bargaining_is_solved(K, kind) -> None:
    for G in several(K, kind):
        a, _, residual = solvers.bargaining(G)
        assert oracles.fair_violation(G, a) <= 1e-9
        assert residual <= 1e-9


@pytest.mark.parametrize("alpha", [0.5, 0.99, 2.0, 4.0])
@pytest.mark.parametrize("K", SIZES)
def test_alpha_fairness_is_solved(K, alpha) -> None:
    """Norms over six decades: for α ≠ 1 they do not drop out of the problem."""
    for kind in ({}, {"cosine": 0.3, "decades": 1}, {"decades": 2}, {"decades": 6}):
        for G in several(K, kind):
            w, _, residual = solvers.bargaining(G, alpha)
            assert oracles.fair_violation(G, w, alpha) <= 1e-8
            assert residual <= 1e-8


@pytest.mark.parametrize("size", [1000, 4], ids=["orthogonal_on_average", "conflicting"])
@pytest.mark.parametrize("alpha", [0.1, 0.3, 0.5, 4.0, 8.0, 20.0])
def test_alpha_far_from_one_and_lengths_over_twelve_decades(alpha, size) -> None:
    """Gains then span up to 75 decades; those below the rounding of their sum hold as far as that can be told."""
    for K, seed in itertools.product((2, 3, 5, 11), range(3)):
        G = gramian(K, seed, decades=12, size=size)
        w, _, residual = solvers.bargaining(G, alpha)
        assert oracles.fair_rounding(G, w, alpha) <= 1e-8, (K, seed)
        assert residual <= 1e-8, (K, seed)


@pytest.mark.parametrize(("K", "alpha"), [(3, 0.3), (3, 0.5), (3, 8.0), (5, 0.3), (5, 4.0)])
def test_alpha_fairness_in_a_hundred_digits(K, alpha) -> None:
    """Newton's method in decimal arithmetic, begun at the weights, settles less than 1e-9 from them."""
    for seed in range(2):
        G = gramian(K, seed, decades=12)
        w = solvers.bargaining(G, alpha).weights
        exact, last_step = refined(G, w, alpha)
        assert last_step < 1e-60
        assert_allclose(w, exact, rtol=1e-9)


def refined(G: np.ndarray, w: np.ndarray, alpha: float) -> tuple[np.ndarray, float]:
    """G w = w^(-1/α) in a hundred digits from a start nearby: w, and how far the last step was, relative."""
    with decimal.localcontext(prec=100):
        K, power = len(G), -1 / Decimal(alpha)
        A, x, step = [[Decimal(g) for g in row] for row in G.tolist()], [Decimal(v) for v in w.tolist()], Decimal(1)
        for _ in range(12):
            rows = [[*row, x[k] ** power - sum(g * v for g, v in zip(row, x, strict=True))] for k, row in enumerate(A)]
            for k in range(K):
                rows[k][k] -= power * x[k] ** (power - 1)
            for k in range(K):  # elimination; the matrix is positive definite
                for i in range(k + 1, K):
                    factor = rows[i][k] / rows[k][k]
                    rows[i] = [a - factor * b for a, b in zip(rows[i], rows[k], strict=True)]
            change = [Decimal(0)] * K
            for k in reversed(range(K)):
                known = sum(rows[k][j] * change[j] for j in range(k + 1, K))
                change[k] = (rows[k][K] - known) / rows[k][k]
            x = [v + c for v, c in zip(x, change, strict=True)]
            step = max(abs(c / v) for c, v in zip(change, x, strict=True))
        return np.array([float(v) for v in x]), float(step)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 2.0, 8.0])
@pytest.mark.parametrize("apart", [1e-3, 1e-6, 1e-9, 0.0])
def test_bargains_of_nearly_dependent_gradients(alpha, apart) -> None:
    """Every gradient twice, the second time with a little noise: singular to 1e-18, and still one solution."""
    for seed in range(3):
        J = oracles.jacobian(4, seed, size=8, decades=1)
        noise = np.random.default_rng(seed).standard_normal(J.shape) * np.linalg.norm(J, axis=1, keepdims=True)
        J = np.vstack([J, J + apart * noise])
        w, _, residual = solvers.bargaining(J @ J.T, alpha)
        assert oracles.fair_violation(J @ J.T, w, alpha) <= 1e-8
        assert residual <= 1e-8


@pytest.mark.parametrize("K", SIZES)
def test_projection_on_the_dual_cone_is_optimal(K, kind) -> None:
    """The update is the mean of the projections found by non-negative least squares, and no task gets worse."""
    for G in several(K, kind):
        a, _, residual = solvers.dual_cone_projection(G)
        assert residual <= 1e-12
        n, _ = oracles.units(G)
        assert (G @ a / n).min() >= -1e-12 * (a @ n)
        if K <= 11:
            assert oracles.dual_cone_violation(G, a) <= 1e-12


@pytest.mark.parametrize("K", SIZES)
def test_equal_projections_are_equal(K, kind) -> None:
    for G in several(K, kind):
        a, _, residual = solvers.equal_projections(G)
        assert oracles.equal_projection_violation(G, a) <= 1e-10
        assert residual <= 1e-10


# -- the same problems as convex programmes ----------------------------------------------------------------------------


@pytest.mark.parametrize("K", [2, 3, 11])
@pytest.mark.parametrize("seed", [0, 1])
def test_solvers_against_convex_programmes(K, seed) -> None:
    """To the programmes' tolerance. Weights are compared by the update that they make, which is unique."""
    G = gramian(K, seed, size=K + 2, decades=1)

    def apart(a: np.ndarray, b: np.ndarray) -> float:
        return np.sqrt(max((a - b) @ G @ (a - b), 0) / (b @ G @ b))

    assert apart(solvers.min_norm_point(G).weights, oracles.min_norm(G)) < 1e-3
    assert apart(solvers.bargaining(G).weights, oracles.fair(G)) < 1e-3
    assert apart(solvers.bargaining(G, 2.0).weights, oracles.fair(G, 2.0)) < 1e-3
    assert apart(solvers.bargaining(G, 0.5).weights, oracles.fair(G, 0.5)) < 1e-3
    assert apart(solvers.dual_cone_projection(G).weights, oracles.dual_cone(G)) < 1e-3
    w = solvers.cagrad_dual(G, 0.5).weights
    d = oracles.root(G).T @ (1 / K + 0.5 * np.sqrt(G.mean() / (w @ G @ w)) * w)
    assert np.linalg.norm(d - oracles.cagrad_direction(G, 0.5)) < 1e-3 * np.linalg.norm(d)


def test_min_norm_point_is_no_worse_than_its_programme() -> None:
    """Smaller objective and smaller violation on the same Gramians."""
    for seed in range(5):
        G = gramian(5, seed, decades=1)
        ours, theirs = solvers.min_norm_point(G).weights, np.maximum(oracles.min_norm(G), 0)
        theirs = theirs / theirs.sum()
        assert ours @ G @ ours <= (theirs @ G @ theirs) * (1 + 1e-14)
        assert oracles.min_norm_violation(G, ours) <= oracles.min_norm_violation(G, theirs)


@pytest.mark.parametrize("K", [3, 5, 11])
def test_min_norm_point_is_the_ray_of_a_non_negative_least_squares_problem(K) -> None:
    """min |R'x|² + (1 − Σ x)² over x ≥ 0 has its solution on the ray of the min-norm weights."""
    for seed in range(5):
        G = gramian(K, seed, decades=1, size=K)
        G = G / np.trace(G)
        x, _ = nnls(np.vstack([oracles.root(G).T, np.ones(K)]), np.r_[np.zeros(K), 1.0])
        assert_allclose(solvers.min_norm_point(G).weights, x / x.sum(), atol=1e-9)


# -- closed forms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_two_tasks_by_brute_force(seed) -> None:
    """No point of a fine grid does better than the closed forms."""
    G = gramian(2, seed, decades=1.5, size=2)
    grid = np.linspace(0, 1, 20001)
    points = np.array([grid, 1 - grid])
    quadratic = np.einsum("ip,ij,jp->p", points, G, points)

    w = solvers.min_norm_point(G).weights
    assert w @ G @ w <= quadratic.min() * (1 + 1e-12)
    for c in (0.1, 0.5, 0.9, 1.5):
        radius = c * np.sqrt(G.mean())
        objective = G.mean(0) @ points + radius * np.sqrt(quadratic)
        w = solvers.cagrad_dual(G, c).weights
        assert G.mean(0) @ w + radius * np.sqrt(w @ G @ w) <= objective.min() + 1e-12 * np.abs(objective).max()


def test_min_norm_point_by_hand() -> None:
    """Orthogonal: w ∝ 1/n². Conflict: (c − b)/(a + c − 2b). A gradient that is shorter and aligned alone."""
    assert_allclose(solvers.min_norm_point(np.diag([4.0, 1.0, 0.25])).weights, np.array([1, 4, 16]) / 21)
    assert_allclose(solvers.min_norm_point(G3).weights, [4.6 / 6.2, 1.6 / 6.2])
    assert_allclose(solvers.min_norm_point(np.array([[1.0, 2.0], [2.0, 9.0]])).weights, [1, 0])


def test_min_norm_point_of_equal_gradients_is_their_mean() -> None:
    for K in (1, 2, 3, 7):
        assert_allclose(solvers.min_norm_point(np.full((K, K), 3.0)).weights, np.full(K, 1 / K), atol=1e-12)


def test_nash_of_two_tasks() -> None:
    """α_k = 1 / (n_k √(1 + cos)); for G3 cos = −0.3."""
    assert_allclose(solvers.bargaining(G3).weights, np.array([1, 0.5]) / np.sqrt(0.7), rtol=1e-14)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 2.0, 8.0])
def test_orthogonal_gradients_are_fair_in_closed_form(alpha) -> None:
    """n² w = w^(−1/α), so w = n^(−2α/(1 + α))."""
    n = np.array([0.1, 1.0, 3.0, 20.0])
    assert_allclose(solvers.bargaining(np.diag(n**2), alpha).weights, n ** (-2 * alpha / (1 + alpha)), rtol=1e-10)


def test_dual_cone_projection_by_hand() -> None:
    """G3: each loses its projection on the other, ½ (1 + 0.6/1, 1 + 0.6/4). Without conflict: the mean."""
    assert_allclose(solvers.dual_cone_projection(G3).weights, [0.8, 0.575], rtol=1e-14)
    assert_allclose(solvers.dual_cone_projection(G2).weights, np.full(3, 1 / 3), rtol=1e-14)


def test_cagrad_with_full_support_has_a_closed_form() -> None:
    """d = t m, m = J'a, a = G⁻¹1 / 1'G⁻¹1, t = 1 + √(1 − (1 − c²)|g_0|²/|m|²), where w = (t a − 1/K)/(t − 1) ≥ 0."""
    met = 0
    for seed in range(60):
        G, c = gramian(4, seed, decades=0.3), 0.7
        a = np.linalg.solve(G, np.ones(4))
        a /= a.sum()
        inside = 1 - (1 - c**2) * G.mean() / (a @ G @ a)
        if inside < 0:
            continue
        t = 1 + np.sqrt(inside)
        w = (t * a - 1 / 4) / (t - 1)
        if w.min() >= 0:
            met += 1
            assert_allclose(solvers.cagrad_dual(G, c).weights, w, atol=1e-9)
    assert met > 5


@pytest.mark.parametrize("G", [G1, G2, G3])
@pytest.mark.parametrize("c", [0.2, 0.5, 0.8])
def test_cagrad_duality_is_strong(G, c) -> None:
    """The dual's value is the least gain min_k g_k·d, and d is on the border of the ball."""
    K, length = len(G), np.sqrt(G.mean())
    w = solvers.cagrad_dual(G, c).weights
    a = 1 / K + c * length / np.sqrt(w @ G @ w) * w
    assert_allclose((G @ a).min(), w @ G.mean(0) + c * length * np.sqrt(w @ G @ w), rtol=1e-12)
    away = a - 1 / K
    assert_allclose(away @ G @ away, c**2 * G.mean(), rtol=1e-12)


def test_cagrad_with_no_radius_looks_at_the_mean_gradient_alone() -> None:
    """c = 0: the gradient least aligned with the mean; the weights on it do not matter, the update is the mean."""
    assert_allclose(solvers.cagrad_dual(G1, 0.0).weights, [1, 0, 0])
    assert_allclose(solvers.cagrad_dual(G2, 0.0).weights, [0, 1, 0])


# -- where the problem is degenerate -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("K", "rank"), [(3, 1), (3, 2), (5, 2), (11, 3), (11, 10), (40, 13), (64, 21)])
def test_dependent_gradients(K, rank) -> None:
    """Fewer dimensions than tasks: weights may not be unique, optimality holds all the same."""
    for seed in range(6):
        G = gramian(K, seed, rank=rank)
        assert oracles.min_norm_violation(G, solvers.min_norm_point(G).weights) <= 1e-10
        a, _, residual = solvers.dual_cone_projection(G)
        assert residual <= 1e-10
        assert (G @ a).min() >= -1e-9
        for c in (0.2, 0.5, 0.95):
            w, _, residual = solvers.cagrad_dual(G, c)
            assert residual <= 1e-9
            if w @ G @ w > 1e-12:
                assert oracles.cagrad_violation(G, w, c) <= 1e-8


@pytest.mark.parametrize(("K", "rank"), [(3, 2), (5, 2), (11, 3), (40, 13)])
def test_dependent_gradients_with_a_common_descent_direction_can_bargain(K, rank) -> None:
    """Rank deficiency alone is no obstacle: in the positive orthant 0 is not in the hull."""
    for seed in range(6):
        J = np.abs(gramian(K, seed, rank=rank)) @ np.abs(np.random.default_rng(seed).standard_normal((K, rank)))
        G = J @ J.T
        for alpha in (1.0, 2.0):
            assert oracles.fair_violation(G, solvers.bargaining(G, alpha).weights, alpha) <= 1e-8


@pytest.mark.parametrize("K", [2, 3, 11, 20])
def test_a_gradient_given_twice_changes_no_update(K) -> None:
    """Of the min-norm point, CAGrad (with the mean kept the same) and the projections."""
    J = oracles.jacobian(K, 1, cosine=0.1)
    twice = np.vstack([J, J])
    G, G_twice = J @ J.T, twice @ twice.T
    for solve in (solvers.min_norm_point, lambda G: solvers.cagrad_dual(G, 0.5), solvers.dual_cone_projection):
        w = solve(G_twice).weights
        assert_allclose((w[:K] + w[K:]) @ J, solve(G).weights @ J, atol=1e-9)


@pytest.mark.parametrize("K", [2, 3, 11, 40])
def test_pareto_stationary_gradients(K) -> None:
    """0 = Σ g_k: the hull's shortest point is 0, the dual cone holds no descent, CAGrad's objective is 0."""
    J = oracles.jacobian(K, 2, decades=0.5)
    J -= J.mean(0)
    G = J @ J.T
    w = solvers.min_norm_point(G).weights
    assert_allclose(w, np.full(K, 1 / K), atol=1e-9)
    assert w @ G @ w <= 1e-14 * np.trace(G)
    a = solvers.dual_cone_projection(G).weights
    assert a @ G @ a <= 1e-12 * np.trace(G)
    assert_allclose(solvers.cagrad_dual(G, 0.5).weights, np.full(K, 1 / K))


def test_min_norm_near_a_stationary_point() -> None:
    """The mean all but removed: |d| is 1e-3 … 1e-6 of the gradients, and still the shortest."""
    for shrink in (1e-3, 1e-6):
        for K in (3, 11, 40):
            J = oracles.jacobian(K, 3)
            J -= (1 - shrink) * J.mean(0)
            G = J @ J.T
            assert oracles.min_norm_violation(G, solvers.min_norm_point(G).weights) <= 1e-13
            if shrink == 1e-3:
                assert oracles.fair_violation(G, solvers.bargaining(G).weights) <= 1e-7


def test_cagrad_where_a_task_opposes_all_others() -> None:
    """On a line: g = (2, 1, −1/2), g_0 = 5/6, d = (1 − c) g_0 is the best the third can get; it alone has weight."""
    line = np.array([2.0, 1.0, -0.5])
    w = solvers.cagrad_dual(np.outer(line, line), 0.5).weights
    assert_allclose(w, [0, 0, 1], atol=1e-9)


def test_cagrad_is_solved_by_zero_where_no_gain_is_possible_for_all() -> None:
    """In the plane, g_1 = −g_2 and a third across: ν = 0 has room in the ball, ν > 0 is out of reach, so g_w = 0."""
    J = np.array([[1.0, 0.0], [-1.0, 0.0], [0.1, 2.0]])
    w = solvers.cagrad_dual(J @ J.T, 0.5).weights
    assert_allclose(w @ J, 0, atol=1e-12)


def test_equal_projections_that_do_not_exist() -> None:
    """Three gradients at 120° in the plane: C is singular and 1 not in its range."""
    angles = 2 * np.pi * np.arange(3) / 3
    J = np.array([np.cos(angles), np.sin(angles)]).T
    assert np.isnan(solvers.equal_projections(J @ J.T).weights).all()


def test_permuted_tasks_have_permuted_weights() -> None:
    for seed in range(10):
        G = gramian(7, seed, decades=2, size=7)
        order = np.random.default_rng(seed).permutation(7)
        for solve in (
            solvers.min_norm_point,
            solvers.equal_projections,
            lambda G: solvers.cagrad_dual(G, 0.5),
            solvers.bargaining,
            lambda G: solvers.bargaining(G, 3.0),
            solvers.dual_cone_projection,
        ):
            expected = solve(G).weights[order]
            assert_allclose(
                solve(G[np.ix_(order, order)]).weights, expected, rtol=1e-7, atol=1e-10 * np.abs(expected).max()
            )
