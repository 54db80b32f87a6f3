"""The edges: no gradient, stationary points, twelve decades, dependent gradients, 1 to 64 tasks, bad input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose

from benchmarks import oracles
from benchmarks.oracles import G1, GRAMIAN_METHODS, gramian
from mtl_core.smtos.base import GramianWeighting
from mtl_core.smtos.geometry import NonFinite, NotAGramian, is_stationary
from mtl_core.smtos.registry import build

UNDEFINED = [key for key in GRAMIAN_METHODS if build(key, 2).undefined_at_stationary]
AVERAGING = [key for key in GRAMIAN_METHODS if build(key, 2).averages]
LOSSY = ["cdtt", "imtl", "mgda", "mgda_ub"]  # they take logarithms of losses, divide by them, or come to rest at 1/L


def made(key: str, K: int, **options: object) -> GramianWeighting:
    return build(key, K, **({"order": "index"} if key in ("pcgrad", "gradvac") else {}) | options)


# -- how many tasks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", GRAMIAN_METHODS)
def test_one_task_goes_along_its_gradient(key) -> None:
    """With the method's own scale: 1, (1 + c)/(1 + c²) for CAGrad's kin, a unit vector for the clipped ones."""
    scale = {"cagrad": 1.5 / 1.25, "imgrad": 1.8 / 1.64, "nash_mtl": 1 / 3, "fairgrad": 1 / 3}.get(key, 1.0)
    for length in (3.0, 3e-9, 3e9):
        smto = made(key, 1)
        expected = {"nash_mtl": 1 / length, "fairgrad": min(length ** (-4 / 3), 1 / length)}.get(key, scale)
        for _ in range(12):
            weights = smto.solve(np.array([[length**2]]), np.array([1.0]))
        assert_allclose(weights, [expected])
        assert smto.flags == []


@pytest.mark.parametrize("key", GRAMIAN_METHODS)
def test_any_number_of_tasks(key) -> None:
    """A direction that is finite and not zero, no flag, and no task without weight forgotten."""
    for K in (2, 3, 8, 23, 64):
        smto = made(key, K)
        G = gramian(K, 1, cosine=0.2, size=300)
        weights = smto.solve(G, np.linspace(0.5, 2, K))
        assert weights.shape == (K,)
        assert np.isfinite(weights).all(), K
        assert weights @ G @ weights > 0, K
        assert smto.flags == [], K
        assert smto.diagnostics.get("residual", 0) <= 1e-9, K


@pytest.mark.parametrize("key", GRAMIAN_METHODS)
def test_no_tasks_are_refused(key) -> None:
    with pytest.raises(ValueError, match=f"{key}: num_tasks is 0; at least one"):
        build(key, 0)


# -- no gradient -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", GRAMIAN_METHODS)
def test_no_gradient_at_all(key) -> None:
    """Weights 0 and a flag; the heads keep learning."""
    smto = made(key, 3)
    weights = smto.solve(np.zeros((3, 3)))
    assert_allclose(weights, np.zeros(3))
    assert_allclose(smto.head_weights(weights), np.ones(3))
    assert smto.flags == ["no_gradient"]


@pytest.mark.parametrize("key", GRAMIAN_METHODS)
@pytest.mark.parametrize("length", [0.0, 1e-13])
def test_a_task_without_gradient_is_left_out(key, length) -> None:
    """The others get what they would get alone, itself 0; also where it is 1e-13 of the longest. A mean remains one
    over all four tasks."""
    J = oracles.jacobian(3, 4, cosine=0.1)
    J = np.vstack([J[:2], length * J[2:], J[2:]])
    G = J @ J.T
    alone, together = made(key, 3), made(key, 4)
    rest = [0, 1, 3]
    losses = np.array([0.5, 0.8, 1.1, 1.7])
    for _ in range(12):
        expected = alone.solve(G[np.ix_(rest, rest)], losses[rest])
        weights = together.solve(G, losses)
    assert_allclose(weights[rest], expected * (3 / 4 if key in AVERAGING else 1))
    assert weights[2] == 0
    assert together.flags == ["inactive_task"]


def test_which_methods_average() -> None:
    """The others' updates are convex combinations, sums, or of a length of their own."""
    assert AVERAGING == ["aligned_mtl", "cagrad", "gradvac", "imgrad", "pcgrad", "upgrad"]
    assert not build("pcgrad", 3, scale="sum").averages and not build("aligned_mtl", 3, reduction="sum").averages


def along_the_source(key: str, J: np.ndarray) -> np.ndarray:
    """The update for two conflicting gradients in the plane and a third of zero, J [3, 2], by the sources' formulas:
    the mean gradient and the final mean are over three. One-dimensional problems are solved on a fine grid."""
    g, g0 = J[np.abs(J).sum(1) > 0], J.sum(0) / 3
    if key in ("pcgrad", "gradvac", "upgrad"):  # for two tasks the projections are one; GradVac begins as PCGrad
        return sum(v - (v @ u) / (u @ u) * u for v, u in (g, g[::-1])) / 3
    if key == "aligned_mtl":
        values, vectors = np.linalg.eigh(J @ J.T)
        return np.sqrt(values[1]) * (vectors[:, 1:] / np.sqrt(values[1:]) @ vectors[:, 1:].T @ np.full(3, 1 / 3)) @ J
    radius = 0.5 * np.linalg.norm(g0)
    share = np.linspace(0, 1, 1_000_001)[:, None]
    if key == "cagrad":  # the primal: the direction in which the worse-off of the two gains most
        angle = 2 * np.pi * share
        directions = g0 + radius * np.hstack([np.cos(angle), np.sin(angle)])
        return directions[(directions @ g.T).min(1).argmax()] / 1.25
    segment = share * g[0] + (1 - share) * g[1]  # every g_w
    lengths = np.linalg.norm(segment, axis=1)
    kappa = segment[lengths.argmin()] @ g0 / (lengths.min() * np.linalg.norm(g0))
    best = ((1.5 - kappa) * segment @ g0 + kappa * radius * lengths).argmin()
    return (g0 + radius * segment[best] / lengths[best]) / 1.25


@pytest.mark.parametrize("key", AVERAGING)
def test_a_silent_task_counts_in_the_mean(key) -> None:
    """One of three tasks without gradient: the update is that of the sources, which divide by three."""
    for silent, turn in itertools.product(range(3), (0.0, 1.0)):
        rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        J = np.insert(np.array([[1.0, 0.2], [-0.6, 0.5]]) @ rotation, silent, 0.0, axis=0)
        smto = made(key, 3, **({"c": 0.5} if key in ("cagrad", "imgrad") else {}))
        assert_allclose(smto.solve(J @ J.T) @ J, along_the_source(key, J), atol=3e-6)
        assert smto.flags == ["inactive_task"]


@pytest.mark.parametrize("key", AVERAGING)
def test_one_of_three_tasks_alone_moves_a_third_as_far(key) -> None:
    for scale, options in (
        (3, {}),
        (1, {"pcgrad": {"scale": "sum"}, "gradvac": {"scale": "sum"}, "aligned_mtl": {"reduction": "sum"}}.get(key)),
    ):
        if options is not None:
            expected = made(key, 1, **options).solve(np.array([[4.0]]))[0]
            assert_allclose(made(key, 3, **options).solve(np.diag([0.0, 4.0, 0.0])), [0, expected / scale, 0])


def test_the_head_of_a_task_without_gradient_gets_the_mean_weight_of_the_others() -> None:
    """Nash-MTL weighs its heads. diag(4, 1, 0): α = (½, 1)."""
    smto = build("nash_mtl", 3)
    assert_allclose(smto.head_weights(smto.solve(np.diag([4.0, 1.0, 0.0]))), [0.5, 1.0, 0.75])


def test_the_scale_of_a_task_without_gradient_is_learned_all_the_same() -> None:
    """IMTL's s follows the loss, not the gradient on the features."""
    smto = build("imtl", 3)
    smto.solve(np.diag([1.0, 0.0, 1.0]), np.array([0.5, 2.0, 3.0]))
    assert_allclose(smto.s.sign().numpy(), [1, -1, -1])


@pytest.mark.parametrize("key", ["edm", "cdtt"])
def test_a_zero_gradient_can_stop_the_step(key) -> None:
    """The released behaviour: no shared update, and CDTT's window does not move."""
    smto = made(key, 3, zero_gradient="stop")
    assert_allclose(smto.solve(np.diag([1.0, 0.0, 2.0])), np.zeros(3))
    assert smto.flags == ["inactive_task"]
    assert_allclose(smto.solve(G1), made("edm", 3).solve(G1))
    if key == "cdtt":
        assert_allclose(smto.window, [np.sqrt(np.diag(G1))])


def test_a_gradient_that_comes_back_after_ten_steps_has_full_tension() -> None:
    """CDTT: its window sum was 0, so ρ is infinite and τ = 1."""
    smto = build("cdtt", 2)
    for _ in range(10):
        smto.solve(np.diag([1.0, 0.0]))
    smto.solve(np.eye(2))
    smto.window = [[1.0, 0.0]] * 10
    smto.active, smto.losses = np.array([0, 1]), np.ones(2)
    assert_allclose(smto.tension(np.ones(2)), [0.9, 1.0])


# -- Pareto-stationary points ------------------------------------------------------------------------------------------


def stationary(K: int, seed: int = 0) -> np.ndarray:
    """Σ c_k g_k = 0 with all c_k > 0."""
    J = oracles.jacobian(K, seed, size=20)
    c = np.random.default_rng(seed).uniform(0.5, 1.5, K)
    J[-1] = -(c[:-1] @ J[:-1]) / c[-1]
    return J @ J.T


@pytest.mark.parametrize("key", UNDEFINED)
@pytest.mark.parametrize("K", [2, 3, 11])
def test_where_there_is_no_solution_the_step_is_zero_and_flagged(key, K) -> None:
    smto = made(key, K)
    for seed in range(5):
        weights = smto.solve(stationary(K, seed))
        assert_allclose(weights, np.zeros(K))
        assert_allclose(smto.head_weights(weights), np.ones(K))
        assert smto.flags == ["pareto_stationary"]


def test_nash_heads_keep_the_last_bargain_at_a_stationary_point() -> None:
    smto = build("nash_mtl", 3)
    before = smto.head_weights(smto.solve(G1))
    weights = smto.solve(stationary(3))
    assert_allclose(weights, np.zeros(3))
    assert_allclose(smto.head_weights(weights), before)


@pytest.mark.parametrize("key", ["mgda", "edm", "upgrad", "imtl_g", "imtl"])
@pytest.mark.parametrize("K", [2, 3, 11])
def test_where_there_is_a_solution_it_is_zero(key, K) -> None:
    """0 is the shortest combination, the mean of the projections, and EDM's answer where IMTL-G has none."""
    for seed in range(5):
        G = stationary(K, seed)
        smto = made(key, K, **({"normalize": "none"} if key == "mgda" else {}))
        weights = smto.solve(G)
        assert weights @ G @ weights <= 1e-12 * np.trace(G)


@pytest.mark.parametrize("key", GRAMIAN_METHODS)
def test_stationary_points_leave_weights_finite(key) -> None:
    for K, seed in itertools.product((2, 3, 11), range(5)):
        weights = made(key, K).solve(stationary(K, seed), np.linspace(0.5, 2, K))
        assert np.isfinite(weights).all(), (K, seed)
        assert np.abs(weights).max() < 1e3, (K, seed)


def test_cagrad_where_its_dual_says_nothing_is_the_mean() -> None:
    """g_1 = −g_2, and g_3 across: no gain for all is possible, and d = g_0/(1 + c²)."""
    J = np.array([[1.0, 0.0], [-1.0, 0.0], [0.1, 2.0]])
    smto = build("cagrad", 3, c=0.5)
    assert_allclose(smto.solve(J @ J.T), np.full(3, 1 / 3 / 1.25))
    assert smto.flags == ["pareto_stationary"]


def test_imgrad_at_a_stationary_point_is_blind_to_the_balance() -> None:
    """κ = 0: all weight on the gradient least aligned with the mean, here g_2, so d = g_0 + c |g_0| g_2/|g_2|."""
    J = np.array([[1.0, 0.0], [-1.0, 0.0], [0.1, 2.0]])
    smto = build("imgrad", 3, c=0.5)
    length = np.linalg.norm(J.mean(0))
    assert_allclose(smto.solve(J @ J.T) @ J * 1.25, J.mean(0) + 0.5 * length * J[1])
    assert smto.diagnostics["kappa"] == 0


def test_what_counts_as_stationary() -> None:
    """Opposite gradients do, nearly opposite ones do not, and lengths do not matter."""
    assert is_stationary(np.array([[1.0, -3.0], [-3.0, 9.0]]))
    assert not is_stationary(np.array([[1.0, -2.999], [-2.999, 9.0]]))
    assert not is_stationary(np.array([[1.0, 0.0], [0.0, 1e-20]]))
    assert is_stationary(stationary(5))


# -- scale -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", GRAMIAN_METHODS)
def test_lengths_over_almost_twelve_decades(key) -> None:
    """Every task is active, the weights are finite and so is the update; the solvers' own conditions hold."""
    for K in (2, 3, 8):
        J = oracles.jacobian(K, 2)
        J = J / np.linalg.norm(J, axis=1, keepdims=True) * np.logspace(-5.5, 5.5, K)[:, None]
        smto = made(key, K)
        weights = smto.solve(J @ J.T, np.linspace(0.5, 2, K))
        assert np.isfinite(weights).all(), K
        assert np.linalg.norm(weights @ J) > 0, K
        assert "inactive_task" not in smto.flags, K
        assert smto.diagnostics.get("residual", 0) <= 1e-8, K


@pytest.mark.parametrize("key", sorted(set(GRAMIAN_METHODS) - {"cdtt"}))
@pytest.mark.parametrize("scale", [1e-60, 1e60])
def test_extreme_gradients_are_no_edge(key, scale) -> None:
    """No absolute epsilon anywhere: the direction is that of ordinary gradients. (CDTT's tension is a length.)"""
    losses = np.array([0.5, 0.8, 1.1])
    expected, actual = made(key, 3).solve(G1, losses), made(key, 3).solve(scale * G1, losses)
    assert_allclose(actual / np.linalg.norm(actual), expected / np.linalg.norm(expected), rtol=1e-6)


@pytest.mark.parametrize("key", GRAMIAN_METHODS)
def test_dependent_gradients_that_all_agree(key) -> None:
    """More tasks than dimensions, in the positive orthant: finite weights, an update, the conditions satisfied."""
    for K, rank in ((3, 2), (5, 1), (11, 4), (40, 13)):
        J = np.abs(oracles.jacobian(K, 3, rank=rank))
        G = J @ J.T
        smto = made(key, K)
        weights = smto.solve(G, np.linspace(0.5, 2, K))
        assert np.isfinite(weights).all(), (K, rank)
        assert weights @ G @ weights > 0, (K, rank)
        assert set(smto.flags) <= {"guard", "unequal_cosines"}, (K, rank)
        assert smto.diagnostics.get("residual", 0) <= 1e-8, (K, rank)


@pytest.mark.parametrize("key", GRAMIAN_METHODS)
def test_the_same_gradient_for_every_task(key) -> None:
    """The update points along it."""
    g = np.array([3.0, 4.0])
    for K in (2, 3, 7):
        J = np.tile(g, (K, 1))
        d = made(key, K).solve(J @ J.T, np.ones(K)) @ J
        assert_allclose(d / np.linalg.norm(d), g / 5, err_msg=f"{K} tasks")


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("G", "error", "message"),
    [
        (np.ones((2, 3)), NotAGramian, r"expected a Gramian of shape \(2, 2\), got \(2, 3\)"),
        (np.eye(3), NotAGramian, r"expected a Gramian of shape \(2, 2\), got \(3, 3\)"),
        (np.array([[1.0, 0.5], [0.4, 1.0]]), NotAGramian, "symmetric, this matrix is not"),
        (np.array([[1.0, 2.0], [2.0, 1.0]]), NotAGramian, "positive semi-definite, this matrix is not"),
        (np.array([[-1.0, 0.0], [0.0, 1.0]]), NotAGramian, "positive semi-definite, this matrix is not"),
        (np.array([[np.nan, 0.0], [0.0, 1.0]]), NonFinite, "not finite"),
        (np.array([[np.inf, 0.0], [0.0, 1.0]]), NonFinite, "not finite"),
        (np.eye(2) * 1j, NotAGramian, "real numbers; this matrix has the type complex128"),
    ],
    ids=["not square", "wrong size", "not symmetric", "indefinite", "negative", "nan", "infinite", "complex"],
)
def test_what_is_no_gramian_is_refused(G, error, message) -> None:
    """By every method, under its name."""
    for key in GRAMIAN_METHODS:
        with pytest.raises(error, match=f"(?s){key}: .*{message}"):
            made(key, 2).solve(G)


def test_three_gradients_cannot_all_oppose_each_other() -> None:
    """Every pair is possible, the three together are not: the smallest eigenvalue is −0.8."""
    G = np.full((3, 3), -0.9) + 1.9 * np.eye(3)
    with pytest.raises(NotAGramian, match=r"smallest eigenvalue of this one, scaled to unit diagonal, is -8.00e-01"):
        made("edm", 3).solve(G)


@pytest.mark.parametrize("key", GRAMIAN_METHODS)
def test_a_loss_that_is_not_finite_ends_the_run(key) -> None:
    with pytest.raises(NonFinite, match=f"{key}: a loss is not finite"):
        made(key, 2).solve(np.eye(2), np.array([1.0, np.nan]))


@pytest.mark.parametrize("key", LOSSY)
def test_a_negative_loss_is_refused_where_it_has_no_meaning(key) -> None:
    with pytest.raises(ValueError, match=rf"{key}: the losses are \[1.0, -0.5\].*positive"):
        made(key, 2).solve(np.eye(2), np.array([1.0, -0.5]))
    for other in set(GRAMIAN_METHODS) - set(LOSSY):
        made(other, 2).solve(np.eye(2), np.array([1.0, -0.5]))


@pytest.mark.parametrize("key", LOSSY)
def test_a_loss_of_zero_is_floored_and_flagged(key) -> None:
    smto = made(key, 2)
    for _ in range(11):
        weights = smto.solve(np.array([[1.0, 0.2], [0.2, 1.0]]), np.array([1.0, 0.0]))
    assert np.isfinite(weights).all()
    assert smto.flags == ["floored_loss"]


def test_mgda_without_losses_in_its_scale_takes_any() -> None:
    for normalize in ("none", "l2"):
        build("mgda", 2, normalize=normalize).solve(np.eye(2), np.array([0.0, -1.0]))


@pytest.mark.parametrize("alpha", [0.001, 1000.0])
def test_a_solver_that_misses_its_conditions_is_flagged(alpha) -> None:
    """FairGrad with an extreme α and lengths over twelve decades: weights and gains that no double precision number can
    be. What is used is finite, and counted."""
    flags = []
    for seed in range(4):
        smto = build("fairgrad", 5, alpha=alpha, max_norm=None)
        weights = smto.solve(gramian(5, seed, decades=12, size=5))
        assert np.isfinite(weights).all() and (weights >= 0).all()
        assert (smto.flags == ["inexact"]) == (not smto.diagnostics["residual"] <= 1e-6)
        flags += smto.flags
    assert "inexact" in flags


@pytest.mark.parametrize("alpha", [0.1, 0.3, 8.0, 20.0])
def test_fairgrad_far_from_alpha_one_is_solved_without_a_flag(alpha) -> None:
    smto = build("fairgrad", 11, alpha=alpha, max_norm=None)
    for seed in range(3):
        smto.solve(gramian(11, seed, decades=12, size=12))
        assert smto.diagnostics["residual"] <= 1e-8
        assert smto.flags == []
