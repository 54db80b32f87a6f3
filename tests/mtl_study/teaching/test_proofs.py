"""The Gramians of notebook 06 meet the assumptions, the weights are the methods' own, and a false check fails."""

from __future__ import annotations

import numpy as np
import pytest
import sympy
from numpy.testing import assert_allclose

from mtl_core import smtos
from mtl_study.paper import claims
from mtl_study.teaching import proofs
from mtl_study.teaching.toys import Pair

UNSCALED = {"mgda": {"normalize": "none"}, "fixed": {"weights": [0.5, 0.5]}}
PAIRS = [Pair(angle, ratio) for angle in (40, 120, 160) for ratio in (0.3, 1.0, 2.5)]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# -- Gramians ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("K", [2, 3, 7])
def test_equal_lengths_are_equal_and_angles_are_of_all_kinds(K, rng):
    G = proofs.equal_lengths(200, K, rng)
    squares = G.diagonal(axis1=1, axis2=2)
    assert_allclose(squares, squares[:, :1].repeat(K, 1), rtol=1e-12)
    cosines = G / squares[:, :1, None]
    assert np.linalg.eigvalsh(cosines).min() > -1e-12
    assert cosines.min() < -0.7 and cosines[:, 0, 1].max() > 0.9


@pytest.mark.parametrize("K", [2, 3, 4, 7])
def test_equal_rows_are_equal_and_cosines_are_not(K, rng):
    G = proofs.equal_rows(50, K, rng)
    squares = G.diagonal(axis1=1, axis2=2)
    assert_allclose(squares, squares[:, :1].repeat(K, 1), rtol=1e-12)
    assert_allclose(G.sum(1), G.sum(1)[:, :1].repeat(K, 1), rtol=1e-12)
    cosines = G / squares[:, :1, None]
    assert np.linalg.eigvalsh(cosines).min() > 0
    off = cosines[:, *np.triu_indices(K, 1)]
    assert (np.ptp(off, axis=1) > 1e-3).all() == (K > 3)  # for three tasks equal rows mean equal cosines


# -- weights -----------------------------------------------------------------------------------------------------------


def test_unequal_by_hand():
    assert proofs.unequal(np.array([0.2, 0.2])) == 0
    assert proofs.unequal(np.array([1.0, 3.0])) == pytest.approx(0.5)


THEOREM = ["mgda", "edm", "imtl_g", "nash_mtl", "fairgrad", "cagrad", "imgrad", "aligned_mtl", "cdtt", "config"]


@pytest.mark.parametrize("K", [2, 3, 4, 11])
@pytest.mark.parametrize("key", THEOREM)
def test_equal_lengths_and_rows_give_equal_weights(key, K, rng):
    assert proofs.worst(key, proofs.equal_rows(30, K, rng), **UNSCALED.get(key, {})) < 1e-9


def test_the_theorem_wants_mgda_without_scaling_or_with_equal_losses(rng):
    """Scaled by losses of 1 it is the same problem; by losses that differ it is another."""
    (gramian,) = proofs.equal_rows(1, 4, rng)
    for normalize in ("none", "l2", "loss", "loss+"):
        assert proofs.worst("mgda", [gramian], normalize=normalize) < 1e-9
        smto = smtos.build("mgda", 4, normalize=normalize)
        found = proofs.unequal(smto.solve(gramian, np.array([1.0, 2.0, 3.0, 4.0])))
        assert (found > 0.1) == normalize.startswith("loss")


@pytest.mark.parametrize("key", THEOREM)
def test_equal_lengths_alone_do_not_from_three_tasks_on(key, rng):
    assert proofs.worst(key, proofs.equal_lengths(30, 3, rng), **UNSCALED.get(key, {})) > 0.05


def test_equal_rows_are_not_enough_for_methods_that_turn_gradients_one_by_one(rng):
    for key in ("pcgrad", "upgrad"):
        assert proofs.worst(key, proofs.equal_rows(30, 7, rng)) > 0.01


@pytest.mark.parametrize("key", ["rotograd", "db_mtl", "edm", "cdtt"])
def test_weights_are_taken_from_the_update_where_a_method_has_none(key):
    """|g_1| : |g_2| = 3 : 1: these follow the bisector, w_1 : w_2 = 1 : 3."""
    weights = proofs.weights_of_pair(key, Pair(70, 3.0))
    assert proofs.share(weights) == pytest.approx(0.25, abs=1e-5)


def test_methods_that_share_a_field():
    keys = ["unit_scal", "cagrad", "cdtt", "edm", "mgda_ub", "nash_mtl", "pcgrad", "si", "upgrad"]
    groups = proofs.same_field(keys, PAIRS, {})
    assert groups == [["unit_scal", "mgda_ub", "si"], ["cagrad"], ["cdtt", "edm", "nash_mtl"], ["pcgrad", "upgrad"]]


def test_a_field_has_the_weights_of_each_pair():
    angles, ratios = np.array([40.0, 150.0]), np.array([0.5, 1.0, 4.0])
    weights = proofs.field(["cagrad"], angles, ratios, {})
    assert weights.shape == (3, 2, 2)
    assert_allclose(weights[2, 1], proofs.weights_of_pair("cagrad", Pair(150.0, 4.0)))


def test_sensitivity_to_ten_percent():
    """Two lengths 1 and 1.1. MGDA in closed form, (1.21 − 1.1κ) / (2.21 − 2.2κ), at most 1; EDM 1.1 / 2.1."""
    cosines = np.array([-0.9, 0.0, 0.7, 0.99])
    frame = proofs.sensitivity(["edm", "mgda", "famo"], UNSCALED, cosines, 1.1).set_index("smto")
    assert_allclose(frame.share["edm"], 1.1 / 2.1)
    assert_allclose(frame.share["mgda"], np.minimum((1.21 - 1.1 * cosines) / (2.21 - 2.2 * cosines), 1), rtol=1e-9)
    assert_allclose(frame[["share", "degrees"]].loc["famo"], [[0.5, 0.0]] * 4, atol=1e-5)


def test_what_breaks_the_propositions():
    """Two alike and one apart: y = C⁻¹1 = (1/1.9, 1/1.9, 1). Ten percent: 1.1 / 2.1. The same gradient twice: ½."""
    one_apart = np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]])
    frame = proofs.broken(1.1, 0.7, one_apart).set_index("smto")
    assert list(frame.proposition) == [1, 2, 3, 4, 5, 6]
    assert_allclose(frame[["as assumed", "same"]], 0.5, atol=1e-9)
    assert_allclose(frame.lengths[["nash_mtl", "imtl_g", "edm", "cdtt"]], 1.1 / 2.1)
    assert frame.lengths["cagrad"] > 0.6 and 0.505 < frame.lengths["famo"] < 0.6
    tasks = frame[["task 1", "task 2", "task 3"]]
    assert_allclose(tasks.loc["edm"], np.array([1, 1, 1.9]) / 3.9)
    assert_allclose(tasks.sum(axis=1), 1)
    assert (np.abs(tasks - 1 / 3).max(axis=1) > 0.02).all()


def test_three_tasks_of_equal_lengths_and_losses_break_cdtt():
    """v = c + τ Σ e_k by hand. At losses of 1 τ is 0.8 + 0.2 / (1 + 1); gradients this long need no turning."""
    J = 100 * np.array([[1.0, 0, 0], [0.9, np.sqrt(0.19), 0], [0, 0, 1.0]])
    center = np.array([1, 1, 1.9]) / 3.9 @ J
    pulls = (J - center) / np.linalg.norm(J - center, axis=1, keepdims=True)
    expected = center + 0.9 * pulls.sum(0)
    assert_allclose(proofs.weights_of("cdtt", J @ J.T) @ J, expected)


def test_cdtt_leaves_a_half_by_the_difference_of_the_tensions():
    """½ ± (τ_1 − τ_2) / |g_1 − g_2|, with τ_k = α / (1 + exp(−e log₁₀ L_k)) + 1 − α where the lengths do not change."""
    losses, alpha = np.array([2.0, 1.0]), 0.4
    tension = alpha / (1 + np.exp(-np.e * np.log10(losses)))
    expected = 0.5 + (tension[0] - tension[1]) / np.sqrt(2)
    assert_allclose(proofs.cdtt([np.eye(2)] * 11, losses, alpha), [expected, 1 - expected])


def test_famo_moves_towards_the_task_that_improves_less():
    shares = proofs.famo(np.tile([0.02, 0.01], (5, 1)))
    assert (np.diff(shares[:, 0]) < 0).all() and shares[0, 0] < 0.5
    assert_allclose(shares.sum(1), 1, rtol=1e-6)
    assert_allclose(proofs.famo(np.full((5, 3), 0.02)), 1 / 3, rtol=1e-6)


# -- the record --------------------------------------------------------------------------------------------------------


def test_a_false_identity_and_a_large_deviation_fail():
    x = sympy.symbols("x")
    checks = proofs.ProofChecks()
    checks.algebra(1, "true", (x + 1) ** 2 - x**2 - 2 * x - 1)
    checks.algebra(2, "false", (x + 1) ** 2 - x**2 - 1)
    checks.numbers(3, "rounding", 1e-15, 10)
    checks.numbers(4, "not rounding", 1e-6, 10)
    checks.numbers(5, "no number", float("nan"), 10)
    assert list(checks.frame().passed) == [True, False, True, False, False]


def test_one_failed_check_decides_the_claim():
    def verdict(deviation: float) -> str:
        checks = proofs.ProofChecks()
        for proposition in range(1, 7):
            checks.numbers(proposition, "equal weights", deviation if proposition == 4 else 0.0, 10)
        return claims.judge("C12", checks.frame(), preset="quick", notebook="06_proofs").verdict

    assert verdict(1e-12) == claims.REPRODUCED
    assert verdict(1e-3) == claims.NOT_REPRODUCED


def test_adam_shields_a_head_from_a_constant_weight_and_from_nothing_else():
    """Weights from a thousandth to a thousand move a head alike; with weight decay, or with a weight that grows tenfold
    on the way, they do not."""
    assert proofs.head_under_adam(1.0) == 0
    assert max(proofs.head_under_adam(weight) for weight in (0.001, 1000.0)) < 0.01
    assert proofs.head_under_adam(0.001, weight_decay=0.01) > 0.1
    assert proofs.head_under_adam(1.0, late=10.0) > 0.1
