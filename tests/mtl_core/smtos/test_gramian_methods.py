"""Every method that reads the Gramian: values by hand and by reference, options, state, heads, other libraries."""

from __future__ import annotations

import itertools
import sys
import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.testing import assert_close
from torchjd import aggregation as torchjd
from torchjd.linalg import QuadprogProjector

from benchmarks import oracles
from benchmarks.oracles import G1, G2, G3, GRAMIAN_METHODS, gramian
from mtl_core.options import BadOption
from mtl_core.smtos.base import GramianWeighting, ProblemInfo
from mtl_core.smtos.cdtt import correct, pull
from mtl_core.smtos.edm import bisector
from mtl_core.smtos.imgrad import balance
from mtl_core.smtos.imtl import transposed
from mtl_core.smtos.registry import build, options

ORTHOGONAL = np.diag([4.0, 1.0])  # lengths 2 and 1 at a right angle


def solve(key: str, G: np.ndarray, losses: list[float] | None = None, **options) -> np.ndarray:
    """The weights of a fresh SMTO."""
    return build(key, len(G), **options).solve(G, None if losses is None else np.array(losses))


# -- reference values --------------------------------------------------------------------------------------------------

REFERENCE = {
    ("mgda", "normalize=none"): ([0.48108108, 0.37837838, 0.14054054], [0, 1, 0], [0.74193548, 0.25806452]),
    ("edm",): ([0.43728148, 0.37880506, 0.18391346], [0.5, 0, 0.5], [0.66666667, 0.33333333]),
    ("imtl_g", "guard=False"): (
        [0.43728148, 0.37880506, 0.18391346],
        [-0.09302326, 1.16279070, -0.06976744],
        [0.66666667, 0.33333333],
    ),
    ("nash_mtl", "max_norm=None"): (
        [0.66194495, 0.56854007, 0.32845955],
        [0.65747228, 5.82382805, 0.67871976],
        [1.19522861, 0.59761430],
    ),
    ("cagrad", "rescale=0"): (
        [0.66279631, 0.53876390, 0.33333333],
        [0.33333333, 3.38383420, 0.33333333],
        [0.98733972, 0.5],
    ),
    ("imgrad",): (
        [0.51512851, 0.41703360, 0.20325203],
        [0.20325203, 3.17935044, 0.20325203],
        [0.78033143, 0.30487805],
    ),
    ("fairgrad", "max_norm=None"): (
        [0.56725299, 0.47063818, 0.23166246],
        [0.23521534, 18.75085506, 0.27821138],
        [1.22132641, 0.52743452],
    ),
    ("upgrad", "reg=0.0"): ([0.53333333, 0.51282051, 0.37389277], [1 / 3, 1 / 3, 1 / 3], [0.8, 0.575]),
    ("aligned_mtl",): (
        [0.35833886, 0.31194671, 0.18457408],
        [-0.01487637, 0.29413067, -0.00913256],
        [0.54021386, 0.29118622],
    ),
    ("pcgrad", "scale=sum", "order=index"): ([1.5, 1.5, 1.12121212], [1, 1, 1], [1.6, 1.15]),
    ("pcgrad", "scale=sum", "order=reversed"): ([1.58333333, 1.5, 1.09090909], [1, 1, 1], [1.6, 1.15]),
}


def parse(option: str) -> tuple[str, object]:
    name, value = option.split("=")
    return name, {"None": None, "False": False, "0.0": 0.0, "0": 0}.get(value, value)


@pytest.mark.parametrize("method", REFERENCE, ids=" ".join)
@pytest.mark.agrees(
    "values that other solvers found",
    "mgda",
    "edm",
    "imtl_g",
    "nash_mtl",
    "cagrad",
    "imgrad",
    "fairgrad",
    "upgrad",
    "aligned_mtl",
    "pcgrad",
)
def test_reference_values(method) -> None:
    """Each vector satisfies its method's own optimality conditions to 1e-12; other solvers than ours found them."""
    key, *given = method
    for G, expected in zip((G1, G2, G3), REFERENCE[method], strict=True):
        assert_allclose(solve(key, G, **dict(map(parse, given))), expected, atol=6e-9)


def test_cagrad_dual_weights_of_the_reference() -> None:
    """Recovered from the weights on the mean gradient: what is more than 1/K, to sum 1."""
    for G, expected in ((G1, [0.61594121, 0.38405879, 0]), (G2, [0, 1, 0]), (G3, [1, 0])):
        more = solve("cagrad", G, rescale=0) - 1 / len(G)
        assert_allclose(more / more.sum(), expected, atol=6e-9)


def test_imgrad_balance_of_the_reference() -> None:
    assert_allclose([balance(G) for G in (G1, G2, G3)], [0.83698300, 0.98344506, 0.78612760], atol=6e-9)


@pytest.mark.agrees("its definition, worked out apart", "cdtt")
def test_cdtt_of_the_reference_before_and_after_the_correction() -> None:
    before = ([0.41039969, 0.30986152, 0.27973879], [-0.10330287, 1.10660574, -0.00330287], [0.68674715, 0.31325285])
    after = (before[0], [-0.09742093, 1.10070619, -0.00328526], before[2])
    for G, pulled, corrected in zip((G1, G2, G3), before, after, strict=True):
        weights = pull(G, bisector(G).weights, np.array([0.9, 0.85, 0.95])[: len(G)])
        assert_allclose(weights, pulled, atol=6e-9)
        assert_allclose(correct(G, weights), corrected, atol=6e-9)


# -- by hand -----------------------------------------------------------------------------------------------------------


def test_edm_by_hand() -> None:
    """|g| = 2 and 1 at a right angle: α = (½, ½), so w ∝ (¼, ½) and the update is the bisector (⅔, ⅔)."""
    assert_allclose(solve("edm", ORTHOGONAL), [1 / 3, 2 / 3])


def test_mgda_by_hand() -> None:
    """none: w ∝ 1/n². l2: the mean. loss: h = g/L, w ∝ L²/n². loss+: |h| = 1/L, w ∝ L²."""
    assert_allclose(solve("mgda", ORTHOGONAL, normalize="none"), [1 / 5, 4 / 5])
    assert_allclose(solve("mgda", ORTHOGONAL, normalize="l2"), [1 / 2, 1 / 2])
    assert_allclose(solve("mgda", ORTHOGONAL, [1.0, 3.0], normalize="loss"), np.array([1 / 4, 9]) / 9.25)
    assert_allclose(solve("mgda", ORTHOGONAL, [1.0, 3.0]), [1 / 10, 9 / 10])


def test_mgda_combines_scaled_gradients_on_request() -> None:
    """Then the weights on the plain gradients are w/s: for l2, the mean of the unit gradients."""
    assert_allclose(solve("mgda", ORTHOGONAL, normalize="l2", combine="scaled"), [1 / 4, 1 / 2])
    assert_allclose(solve("mgda", ORTHOGONAL, normalize="none", combine="scaled"), [1 / 5, 4 / 5])


def test_mgda_loss_plus_of_two_tasks_looks_at_losses_and_cosine_only() -> None:
    """w_1 = L_1 (L_1 − L_2 cos) / (L_1² + L_2² − 2 cos L_1 L_2), clipped, whatever the lengths."""
    losses, cosine = [0.7, 1.9], 0.3
    expected = 0.7 * (0.7 - 1.9 * cosine) / (0.7**2 + 1.9**2 - 2 * cosine * 0.7 * 1.9)
    for n in ([1.0, 1.0], [0.01, 50.0]):
        G = np.outer(n, n) * [[1, cosine], [cosine, 1]]
        assert_allclose(solve("mgda", G, losses)[0], expected, rtol=1e-12)


def test_mgda_on_unscaled_gradients_promises_no_descent() -> None:
    """l2, lengths 1 and 10, cosine −½: the weights are (½, ½), and d·g_1 = −2."""
    G = np.array([[1.0, -5.0], [-5.0, 100.0]])
    w = solve("mgda", G, normalize="l2")
    assert_allclose(w, [0.5, 0.5])
    assert_allclose((G @ w)[0], -2)


def test_pcgrad_by_hand() -> None:
    """G3: each loses (−0.6)/|other|² of the other; the mean is half of that; without conflict all count 1."""
    assert_allclose(solve("pcgrad", G3), [0.8, 0.575])
    assert_allclose(solve("pcgrad", G3, scale="sum"), [1.6, 1.15])
    assert_allclose(solve("pcgrad", G2), [1 / 3, 1 / 3, 1 / 3])


@pytest.mark.agrees("its definition, vector by vector", "pcgrad")
def test_pcgrad_follows_its_definition_in_every_order() -> None:
    """Against the projections done on vectors, one after the other."""
    smto = build("pcgrad", 5)
    for seed in range(20):
        J = oracles.jacobian(5, seed, size=5)
        smto.generator.manual_seed(seed)
        orders = smto.orders(5)
        total = np.zeros(J.shape[1])
        for i, order in enumerate(orders):
            assert sorted(order) == [j for j in range(5) if j != i]
            v = J[i].copy()
            for j in order:
                v -= min(v @ J[j], 0) / (J[j] @ J[j]) * J[j]
            total += v / 5
        smto.generator.manual_seed(seed)
        assert_allclose(smto.solve(J @ J.T) @ J, total, atol=1e-12)


def test_nash_of_two_tasks_by_hand() -> None:
    """α_k = 1/(n_k √(1 + cos)); |d|² = K; clipped to length 1 on the encoder, not on the heads."""
    smto = build("nash_mtl", 2)
    weights = smto.solve(G3)
    alpha = np.array([1, 0.5]) / np.sqrt(0.7)
    assert_allclose(smto.head_weights(weights), alpha)
    assert_allclose(weights, alpha / np.sqrt(2))
    assert_allclose(weights @ G3 @ weights, 1)


def test_cagrad_rescales() -> None:
    d = solve("cagrad", G1, rescale=0)
    assert_allclose(solve("cagrad", G1), d / 1.25)
    assert_allclose(solve("cagrad", G1, rescale=2), d / 1.5)


def test_cagrad_without_radius_is_the_mean() -> None:
    assert_allclose(solve("cagrad", G1, c=0.0), np.full(3, 1 / 3))


def test_cagrad_beyond_its_theory_warns() -> None:
    with pytest.warns(UserWarning, match="c = 1.2"):
        build("cagrad", 2, c=1.2)


def test_aligned_mtl_by_hand() -> None:
    """diag(4, 1): B = √λ_s diag(½, 1), λ_s = 1 (min and median, the lower of two), 2.5 (mean)."""
    assert_allclose(solve("aligned_mtl", ORTHOGONAL), [1 / 4, 1 / 2])
    assert_allclose(solve("aligned_mtl", ORTHOGONAL, reduction="sum"), [1 / 2, 1])
    assert_allclose(solve("aligned_mtl", ORTHOGONAL, scale="rmse"), np.sqrt(2.5) * np.array([1 / 4, 1 / 2]))
    assert_allclose(solve("aligned_mtl", ORTHOGONAL, scale="median"), [1 / 4, 1 / 2])


@pytest.mark.parametrize(("rank", "scale"), [(5, "min"), (5, "median"), (3, "min"), (3, "rmse")])
def test_aligned_mtl_makes_the_gradients_a_frame(rank, scale) -> None:
    """B G B = λ_s × the projection on the range of G, so the aligned system has condition number 1."""
    G = gramian(5, 1, rank=rank)
    values, vectors = np.linalg.eigh(G)
    values, vectors = values[-rank:], vectors[:, -rank:]
    common = {"min": values.min(), "median": np.median(values), "rmse": values.mean()}[scale]
    B = np.sqrt(common) * vectors / np.sqrt(values) @ vectors.T
    assert_allclose(B @ G @ B, common * vectors @ vectors.T, atol=1e-12)
    assert_allclose(solve("aligned_mtl", G, scale=scale), B @ np.full(5, 1 / 5), atol=1e-10)


def test_fairgrad_limits() -> None:
    """α → 0: the sum. α → ∞: equal gains."""
    assert_allclose(solve("fairgrad", G1, alpha=1e-3, max_norm=None), np.ones(3), rtol=0.02)
    gains = G1 @ solve("fairgrad", G1, alpha=200.0, max_norm=None)
    assert np.ptp(gains) < 0.02 * gains.mean()


@pytest.mark.parametrize("key", ["fairgrad", "nash_mtl"])
def test_clip_shortens_and_never_lengthens(key) -> None:
    free = solve(key, G1, max_norm=None)
    length = np.sqrt(free @ G1 @ free)
    assert_allclose(solve(key, G1), free / length)
    assert_allclose(solve(key, G1, max_norm=2 * length), free)


def test_fairgrad_length() -> None:
    """|d|² = Σ w^(1 − 1/α)."""
    w = solve("fairgrad", G1, alpha=3.0, max_norm=None)
    assert_allclose(w @ G1 @ w, (w ** (2 / 3)).sum())


def test_upgrad_regularised_as_its_library_differs_a_little() -> None:
    """Ridge 1e-4 on unit gradients; 1e-8, the default, cannot be told from none."""
    exact = solve("upgrad", G1, reg=0.0)
    assert_allclose(solve("upgrad", G1), exact, rtol=1e-7)
    assert 1e-6 < np.abs(solve("upgrad", G1, reg=1e-4) - exact).max() < 1e-3


# -- IMTL --------------------------------------------------------------------------------------------------------------


def test_imtl_g_of_two_tasks_by_hand() -> None:
    """α_1 = n_2/(n_1 + n_2) at every cosine, −1 and 1 included."""
    for cosine in (-1.0, -0.4, 0.0, 0.9, 1.0):
        G = np.array([[9.0, 3 * cosine], [3 * cosine, 1.0]])
        assert_allclose(solve("imtl_g", G), [1 / 4, 3 / 4])


def test_transposed_form_agrees_for_two_tasks_and_misses_for_three() -> None:
    """Projections are equal in the correct form only (D24)."""
    assert_allclose(solve("imtl_g", G3, form="transposed"), solve("imtl_g", G3), atol=1e-6)
    spread = {}
    for form in ("correct", "transposed"):
        projections = [G @ solve("imtl_g", G, form=form) / np.sqrt(np.diag(G)) for G in (G1, gramian(11, 1, decades=1))]
        spread[form] = [np.ptp(p) / np.abs(p).mean() for p in projections]
    assert max(spread["correct"]) < 1e-10
    assert min(spread["transposed"]) > 0.1


def test_transposed_form_solves_the_transposed_system() -> None:
    """With the gradients written out: rows i of M are (g_1 − g_i)·(u_1 − u_j), plus 1e-6 on the diagonal."""
    J = oracles.jacobian(4, 0, decades=1)
    U = J / np.linalg.norm(J, axis=1, keepdims=True)
    M = np.array([[(J[0] - J[i]) @ (U[0] - U[j]) + 1e-6 * (i == j) for j in (1, 2, 3)] for i in (1, 2, 3)])
    right = np.array([J[0] @ (U[0] - U[j]) for j in (1, 2, 3)])
    assert_allclose(transposed(J @ J.T)[1:], np.linalg.solve(M, right), rtol=1e-8)
    correct_form = np.linalg.solve(M.T - 1e-6 * np.eye(3), right)
    assert_allclose(solve("imtl_g", J @ J.T, guard=False)[1:], correct_form, rtol=1e-7)


def test_transposed_form_depends_on_the_scale_of_the_gradients() -> None:
    """Two gradients of equal length, cosine 0.8: of length 1, α = ½; of length 1e-4, .5122. Equal gradients: (1, 0)."""
    pair = np.array([[1.0, 0.8], [0.8, 1.0]])
    assert_allclose(solve("imtl_g", pair, form="transposed"), [0.5, 0.5], atol=3e-6)
    assert_allclose(solve("imtl_g", 1e-8 * pair, form="transposed"), [0.5122, 0.4878], atol=5e-5)
    assert_allclose(solve("imtl_g", np.ones((2, 2)), form="transposed"), [1, 0], atol=1e-12)


def test_guard_replaces_a_step_that_raises_every_loss() -> None:
    """G2: the common projection is −0.0233, while EDM raises none."""
    free = build("imtl_g", 3, guard=False)
    projections = G2 @ free.solve(G2) / np.sqrt(np.diag(G2))
    assert_allclose(projections, np.full(3, -0.02325581), atol=1e-8)
    assert free.flags == []
    guarded = build("imtl_g", 3)
    assert_allclose(guarded.solve(G2), solve("edm", G2))
    assert guarded.flags == ["guard"]
    guarded.solve(G1)
    assert guarded.flags == []


def test_guard_where_equal_projections_do_not_exist() -> None:
    """A third gradient between two others that are opposite in the plane: rank 2, and 1 not in the range of C."""
    J = np.array([[1.0, 0.2], [-1.0, 0.2], [0.0, 1.0]])
    smto = build("imtl_g", 3)
    assert_allclose(smto.solve(J @ J.T), solve("edm", J @ J.T))
    assert smto.flags == ["guard"]


def test_imtl_without_solution_stops_the_step_when_unguarded() -> None:
    """Opposite pairs in the plane: every projection comes with its negative, so equal ones are 0."""
    J = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    smto = build("imtl_g", 4, guard=False)
    assert_allclose(smto.solve(J @ J.T), np.zeros(4))
    assert smto.flags == ["no_solution"]
    guarded = build("imtl_g", 4)
    assert_allclose(guarded.solve(J @ J.T) @ J, [0, 0], atol=1e-12)
    assert guarded.flags == ["guard"]


def test_imtl_starts_as_imtl_g_and_then_scales(toy) -> None:
    """First step: s = 0. After it each s_k has moved by the learning rate, up where L_k < 1."""
    smto = build("imtl", 3)
    smto.set_up(ProblemInfo(("softmax",) * 3, (5,), lr=0.1, weight_decay=0), seed=1)
    losses = np.array([0.5, 1.3, 2.1])
    assert_allclose(smto.solve(G1, losses), solve("imtl_g", G1))
    assert_allclose(smto.head_weights(np.ones(3)), np.ones(3))
    assert_allclose(smto.s, [0.1, -0.1, -0.1], atol=1e-6)
    weights = smto.solve(G1, losses)
    scales = np.exp([0.1, -0.1, -0.1])
    alpha = solve("imtl_g", G1 * np.outer(scales, scales))
    assert_allclose(weights, alpha * scales, rtol=1e-6)
    assert_allclose(smto.head_weights(weights), scales, rtol=1e-6)
    assert_allclose([smto.diagnostics[f"alpha_{k}"] for k in range(3)], alpha, rtol=1e-6)


@pytest.mark.agrees("automatic differentiation of its scaled losses", "imtl")
def test_imtl_scale_takes_the_gradient_of_its_scaled_loss() -> None:
    """∂/∂s (e^s L − s) by autograd, over twenty steps of Adam."""
    smto = build("imtl", 2)
    smto.set_up(ProblemInfo(("softmax",) * 2, (5,), lr=0.05, weight_decay=0), seed=1)
    s = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.Adam([s], lr=0.05)
    for losses in np.random.default_rng(0).uniform(0.2, 3, (20, 2)):
        smto.solve(G3, losses)
        optimizer.zero_grad()
        (s.exp() * torch.tensor(losses) - s).sum().backward()
        optimizer.step()
    assert_close(smto.s, s.detach(), rtol=1e-4, atol=1e-6)


def test_imtl_direction_does_not_depend_on_its_scales() -> None:
    """Equal projections are blind to the scale of each loss: e^s changes the length of the update only."""
    smto = build("imtl", 3, guard=False)
    smto.s.copy_(torch.tensor([1.0, -0.5, 0.3]))
    scaled, plain = smto.solve(G1, np.ones(3)), solve("imtl_g", G1)
    assert_allclose(scaled / scaled.sum(), plain, rtol=1e-6)
    assert not np.isclose(scaled.sum(), 1)


def test_imtl_settles_where_scaled_losses_are_one() -> None:
    """Constant losses: e^s → 1/L, for both methods that learn a scale."""
    losses = torch.tensor([0.25, 4.0], dtype=torch.float64)
    hybrid, alone = build("imtl", 2), build("imtl_l", 2)
    for smto in (hybrid, alone):
        smto.set_up(ProblemInfo(("softmax",) * 2, (5,), lr=0.05, weight_decay=0), seed=1)
    for _ in range(300):
        hybrid.solve(G3, losses.numpy())
        alone.optimizer.step(alone.s, alone.weights(losses) * losses - 1)
    assert_allclose(hybrid.s.exp(), 1 / losses, rtol=1e-3)
    assert_allclose(alone.weights(losses), 1 / losses, rtol=1e-3)


def test_imtl_l_weighs_heads_and_encoder_alike_and_then_learns(toy) -> None:
    smto = build("imtl_l", 2)
    smto.set_up(toy.setting, seed=1)
    step = toy.step()
    jacobian = step.jacobian
    step = toy.step()
    applied = smto.backward(step)
    assert_close(toy.gradient(), jacobian.sum(0))
    assert_close(applied.head_weights, torch.ones(2, dtype=torch.float64))
    assert_close(smto.s.double(), toy.setting.lr * (1 - step.losses).sign(), rtol=1e-4, atol=1e-6)


# -- CDTT --------------------------------------------------------------------------------------------------------------


def after_ten_steps(G: np.ndarray, losses: np.ndarray, **options) -> GramianWeighting:
    smto = build("cdtt", len(G), **options)
    for _ in range(10):
        assert_allclose(smto.solve(G, losses), solve("edm", G))
    return smto


def test_cdtt_is_edm_for_ten_steps_and_then_pulls() -> None:
    """Constant norms: ρ = 1 + log₁₀ L. For L = 1e-3, 1, 10 and α = 0.2 the tensions are 0.800, 0.9, 0.988."""
    losses = np.array([1e-3, 1.0, 10.0])
    smto = after_ten_steps(G1, losses)
    expected = correct(G1, pull(G1, bisector(G1).weights, np.array([0.8000574, 0.9, 0.98760])))
    assert_allclose(smto.solve(G1, losses), expected, atol=2e-5)


def test_cdtt_tension_follows_the_window() -> None:
    """Gradients twice as long in step 11: ρ = (9 + 2)/10 + log₁₀ L; ten steps later the window is constant again."""
    smto = after_ten_steps(G3, np.ones(2))
    smto.losses = np.ones(2)
    norms = np.sqrt(np.diag(G3))
    tension = smto.tension(np.array([2, 1]) * norms)
    expected = 0.2 / (1 + np.exp(np.e * (1 - np.array([1.1, 1.0])))) + 0.8
    assert_allclose(tension, expected)
    for _ in range(9):
        tension = smto.tension(np.array([2, 1]) * norms)
    assert_allclose(tension[1], 0.9)
    assert_allclose(tension[0], 0.2 / (1 + np.exp(np.e * (1 - 20 / 19))) + 0.8)
    assert_allclose(smto.tension(np.array([2, 1]) * norms), [0.9, 0.9])


def test_cdtt_of_two_equally_long_gradients() -> None:
    """a = ½ ± (τ_1 − τ_2)/|g_1 − g_2|: sensitive where the gradients agree."""
    for cosine in (0.0, 0.9, 0.9999):
        G = np.array([[1.0, cosine], [cosine, 1.0]])
        distance = np.sqrt(2 - 2 * cosine)
        tension = np.array([0.91, 0.9])
        assert_allclose(pull(G, np.array([0.5, 0.5]), tension), [0.5 + 0.01 / distance, 0.5 - 0.01 / distance])


def test_cdtt_without_spread_has_equal_tensions() -> None:
    """α = 0: τ = 1 for all, whatever the losses."""
    smto = after_ten_steps(G1, np.array([1e-3, 1.0, 10.0]), alpha=0.0)
    expected = correct(G1, pull(G1, bisector(G1).weights, np.ones(3)))
    assert_allclose(smto.solve(G1, np.array([1e-3, 1.0, 10.0])), expected)


def test_cdtt_of_equal_gradients_stays_at_them() -> None:
    """One task, or several with one gradient: g_k = c, no direction to pull in."""
    for K in (1, 2, 3):
        smto = after_ten_steps(np.full((K, K), 4.0), np.ones(K))
        assert_allclose(smto.solve(np.full((K, K), 4.0), np.ones(K)), np.full(K, 1 / K), atol=1e-9)


def test_cdtt_correction_meets_the_hyperplane_on_the_way_to_the_gradient() -> None:
    """Where the segment from v to g_k meets the plane orthogonal to g_k, computed with vectors."""
    J = np.array([[1.0, 0.0, 0.0], [-0.8, 0.6, 0.1], [0.3, 0.2, 2.0]])
    G = J @ J.T
    a = np.array([-0.2, 0.7, 0.5])  # v·g_1 < 0
    v = a @ J
    t = (v @ J[0]) / (v @ J[0] - J[0] @ J[0])
    met = v + t * (J[0] - v)
    assert abs(met @ J[0]) < 1e-12
    first = correct(G, a)
    if (met @ J[1] >= 0) and (met @ J[2] >= 0):
        assert_allclose(first @ J, met, atol=1e-12)
    else:
        pytest.fail("the example was chosen so that one correction suffices")


def test_cdtt_hurts_nobody_after_a_single_correction() -> None:
    """The task corrected last has v·g ≥ 0."""
    for seed in range(30):
        J = oracles.jacobian(4, seed, size=4, decades=0.5)
        G, a = J @ J.T, np.random.default_rng(seed).standard_normal(4)
        if (G @ a).min() < 0:
            corrected = correct(G, a)
            assert (G @ corrected)[3] >= -1e-12


# -- Nash-MTL's released procedure -------------------------------------------------------------------------------------


@pytest.mark.parametrize("K", [1, 2, 3, 11])
def test_released_procedure_reaches_the_bargain_for_gradients_of_equal_length(K) -> None:
    G = gramian(K, 1)
    released = build("nash_mtl", K, solver="cvxpy", max_norm=None)
    assert_allclose(released.solve(G), solve("nash_mtl", G, max_norm=None), rtol=1e-3)
    assert released.flags == []
    assert released.diagnostics["failures"] == 0


def test_released_procedure_misses_the_bargain_where_norms_differ() -> None:
    """Eleven gradients, lengths over three decades: α_k (Gα)_k is far from 1, and d points elsewhere."""
    residuals, agreement = [], []
    for seed in range(3):
        G = gramian(11, seed, decades=3)
        released, exact = build("nash_mtl", 11, solver="cvxpy", max_norm=None), build("nash_mtl", 11, max_norm=None)
        a, b = released.solve(G), exact.solve(G)
        assert oracles.fair_violation(G, b) < 1e-10
        residuals.append(oracles.fair_violation(G, a))
        assert_allclose(released.diagnostics["residual"], residuals[-1])
        agreement.append(a @ G @ b / np.sqrt((a @ G @ a) * (b @ G @ b)))
    assert max(residuals) > 1
    assert min(agreement) < 0.99


@pytest.mark.agrees("torchjd, the released procedure", "nash_mtl")
def test_released_procedure_is_that_of_torchjd() -> None:
    """The same iterates, where it converges and where it stalls."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchjd's programme is rebuilt in every round, and cvxpy says so
        for kind in ({"decades": 1}, {"decades": 2}):
            J = oracles.jacobian(3, 4, **kind)
            theirs = torchjd.NashMTL(3, max_norm=0.0)
            ours = build("nash_mtl", 3, solver="cvxpy", max_norm=None)
            for _ in range(2):
                expected = theirs(torch.tensor(J)).numpy()
                assert_allclose(ours.solve(J @ J.T) @ J, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_failed_solve_keeps_the_last_bargain_and_is_counted() -> None:
    """Gradients a million times shorter from one step to the next: ECOS gives up. The exact solver does not notice."""
    smto = build("nash_mtl", 3, solver="cvxpy", max_norm=None)
    before = smto.solve(G1)
    assert smto.flags == []
    assert_allclose(smto.solve(1e-12 * G1), before)
    assert_allclose(solve("nash_mtl", 1e-12 * G1, max_norm=None), 1e6 * before, rtol=1e-6)
    assert smto.flags == ["fallback"]
    assert smto.diagnostics["failures"] == 1


def test_missing_solver_is_an_error_before_training() -> None:
    with pytest.raises(BadOption, match=r"no solver called 'GUROBI'; installed: .*ECOS"):
        build("nash_mtl", 2, solver="cvxpy", conic="GUROBI")
    with pytest.raises(BadOption, match="'OSQP' cannot solve"):
        build("nash_mtl", 2, solver="cvxpy", conic="OSQP")


def test_missing_cvxpy_is_an_error_before_training(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    with pytest.raises(BadOption, match="pip install cvxpy"):
        build("nash_mtl", 2, solver="cvxpy")


def test_nash_holds_a_bargain_for_some_steps(toy) -> None:
    """update_every=3: α changes in steps 0, 3, …; in between the update is clipped all the same."""
    smto = build("nash_mtl", 2, update_every=3)
    heads = []
    for number in range(5):
        applied = smto.backward(toy.step(number=number))
        heads.append(applied.head_weights.numpy())
        gradient, jacobian = toy.gradient(), toy.step(number=number).jacobian
        free = applied.head_weights @ jacobian
        assert_close(gradient, free / max(1.0, float(free.norm())), rtol=1e-5, atol=0)
        assert_close(applied.weights @ jacobian, gradient, rtol=1e-9, atol=1e-12)
    assert_allclose(heads[1], heads[0])
    assert_allclose(heads[2], heads[0])
    assert not np.allclose(heads[3], heads[0])
    assert_allclose(heads[4], heads[3])


# -- a real step -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", GRAMIAN_METHODS)
def test_update_is_the_weighted_sum_of_the_task_gradients(key, toy) -> None:
    """.grad of the encoder = Σ w_k g_k, .grad of head k = head weight × plain gradient."""
    step = toy.step()
    jacobian = step.jacobian
    plain = toy.head_gradients()
    smto = build(key, 2)
    smto.set_up(toy.setting, seed=1)
    applied = smto.backward(toy.step(smto))
    assert_close(toy.gradient(), applied.weights @ jacobian)
    assert_close(toy.head_gradients(), [w * g for w, g in zip(applied.head_weights, plain, strict=True)])
    if smto.head_policy == "plain":
        assert_close(applied.head_weights, torch.ones(2, dtype=torch.float64))
    assert applied.flags == ()


@pytest.mark.parametrize("key", ["imtl", "imtl_g", "aligned_mtl"])
def test_space_decides_whose_gramian_is_read(key, toy) -> None:
    step = toy.step()  # looked at when the encoder has gradients of other steps
    weights = {}
    for space in ("features", "parameters"):
        smto = build(key, 2, space=space)
        smto.set_up(toy.setting, seed=1)
        weights[space] = smto.backward(toy.step()).weights
        assert_allclose(weights[space], build(key, 2).solve(step.gramian(space).numpy(), step.losses.numpy()))
    assert not np.allclose(weights["features"], weights["parameters"])


def test_mgda_variants_read_different_gramians(toy) -> None:
    step = toy.step()
    for key, space in (("mgda", "parameters"), ("mgda_ub", "features")):
        expected = solve("mgda", step.gramian(space).numpy(), step.losses.tolist())
        assert_allclose(build(key, 2).backward(toy.step()).weights, expected)


@pytest.mark.parametrize("key", ["cdtt", "imtl", "imtl_l", "nash_mtl", "pcgrad"])
def test_state_is_saved_and_restored(key, toy) -> None:
    """A method with memory continues from its state_dict as if it had not been interrupted."""
    first, second = build(key, 2), build(key, 2)
    for smto in (first, second):
        smto.set_up(toy.setting, seed=1)
    optimizer = toy.optimizer(first)
    toy.train(first, optimizer, range(12))
    second.load_state_dict(first.state_dict())
    for number in range(12, 15):
        expected = first.backward(toy.step(number=number))
        actual = second.backward(toy.step(number=number))
        assert_close(actual.weights, expected.weights)
        assert_close(actual.head_weights, expected.head_weights)


def test_pcgrad_orders_come_from_the_seed(toy) -> None:
    G = gramian(5, 3, size=5)
    weights = []
    for seed in (1, 1, 2):
        smto = build("pcgrad", 5)
        smto.set_up(toy.setting, seed)
        weights.append(smto.solve(G))
    assert_allclose(weights[0], weights[1])
    assert not np.allclose(weights[0], weights[2])


# -- compatibility options are off by default, and differ --------------------------------------------------------------

NEAR = np.array([[1.0, 1.5], [1.5, 4.0]])  # g_1 is shorter, and the shortest combination


@pytest.mark.parametrize(
    ("key", "option", "G", "losses"),
    [
        ("imtl_g", {"form": "transposed"}, G1, None),
        ("imtl_g", {"guard": False}, G2, None),
        ("imtl", {"form": "transposed"}, G1, None),
        ("imtl", {"guard": False}, G2, None),
        ("mgda", {"solver": "search"}, NEAR, [1.0, 4.0]),
        ("mgda_ub", {"solver": "search"}, NEAR, [1.0, 4.0]),
        ("edm", {"solver": "search"}, gramian(11, 0, size=20), None),
        ("cdtt", {"solver": "search"}, gramian(11, 0, size=20), None),
        ("mgda", {"combine": "scaled"}, G1, None),
        ("pcgrad", {"scale": "sum"}, G1, None),
        ("cagrad", {"rescale": 0}, G1, None),
        ("imgrad", {"rescale": 2}, G1, None),
        *(("imgrad", {"reading": reading}, G1, None) for reading in ("eq9", "eq11", "eq11_plain")),
        ("cagrad", {"solver": "slsqp"}, 1e-4 * G1, None),
        ("imgrad", {"solver": "slsqp"}, 1e-4 * G1, None),
        ("fairgrad", {"solver": "least_squares"}, 1e-8 * G1, None),
        ("upgrad", {"reg": 1e-4}, G1, None),
        ("fairgrad", {"max_norm": None}, G1, None),
        ("nash_mtl", {"max_norm": None}, G1, None),
        ("nash_mtl", {"solver": "cvxpy"}, gramian(11, 0, decades=3, size=200), None),
        ("aligned_mtl", {"reduction": "sum"}, G1, None),
        ("aligned_mtl", {"scale": "median"}, G1, None),
        ("edm", {"zero_gradient": "stop"}, np.diag([1.0, 0.0, 2.0]), None),
        ("cdtt", {"zero_gradient": "stop"}, np.diag([1.0, 0.0, 2.0]), None),
    ],
    ids=lambda value: str(value) if not isinstance(value, np.ndarray) else "",
)
def test_option_changes_the_weights(key, option, G, losses) -> None:
    default = solve(key, G, losses)
    changed = solve(key, G, losses, **option)
    assert np.abs(default - changed).max() > 1e-5 * np.abs(default).max()
    (name, value), *_ = option.items()
    assert options(key)[name].default != value


def test_the_released_search_keeps_interior_weights_and_stops_short_of_vertices() -> None:
    """Two tasks: .999 and .001 where the optimum is one of them (also where they are equal), else the exact weights."""
    released = {"normalize": "none", "solver": "search"}
    assert_allclose(solve("mgda", NEAR, **released), [0.999, 0.001])
    assert_allclose(solve("mgda", NEAR[::-1, ::-1], **released), [0.001, 0.999])
    assert_allclose(solve("mgda", NEAR, normalize="none"), [1, 0])
    assert_allclose(solve("mgda", np.ones((2, 2)), **released), [0.999, 0.001])
    assert_allclose(solve("mgda", G3, **released), solve("mgda", G3, normalize="none"))


@pytest.mark.parametrize(
    ("key", "num_tasks", "option", "message"),
    [
        ("cagrad", 2, {"c": -0.1}, "c = -0.1.*greater than or equal to 0"),
        ("cagrad", 2, {"rescale": 3}, "rescale = 3"),
        ("imgrad", 2, {"c": "0.4"}, "c = '0.4'.*number"),
        ("cagrad", 2, {"solver": "SLSQP"}, "'exact' or 'slsqp'"),
        ("imgrad", 2, {"solver": "cvxpy"}, "'exact' or 'slsqp'"),
        ("imgrad", 2, {"solver": "slsqp", "reading": "eq9"}, "give solver='exact' with 'eq9'"),
        ("fairgrad", 2, {"solver": "exact"}, "'newton' or 'least_squares'"),
        ("cdtt", 2, {"alpha": 1.5}, "alpha = 1.5.*less than or equal to 1"),
        ("fairgrad", 2, {"alpha": 0.0}, "alpha = 0.0.*greater than 0"),
        ("fairgrad", 2, {"max_norm": -1.0}, "max_norm = -1.0"),
        ("nash_mtl", 2, {"max_norm": 0.0}, "max_norm = 0.0.*greater than 0"),
        ("nash_mtl", 2, {"update_every": 0}, "update_every = 0"),
        ("upgrad", 2, {"reg": -1e-3}, "reg = -0.001"),
        ("imtl", 2, {"form": "released"}, "'correct' or 'transposed'"),
        ("imtl_g", 2, {"space": "z"}, "'features' or 'parameters'"),
        ("mgda", 2, {"normalize": "loss++"}, "'none', 'l2', 'loss' or 'loss\\+'"),
        ("mgda", 3, {"solver": "slsqp"}, "'exact' or 'search'"),
        ("pcgrad", 2, {"ordre": "index"}, "did you mean 'order'"),
    ],
)
def test_options_out_of_range_are_refused(key, num_tasks, option, message) -> None:
    with pytest.raises(BadOption, match=f"{key}.*{message}"):
        build(key, num_tasks, **option)


# -- other implementations ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("K", [2, 3, 7])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.agrees("torchjd", "imtl_g", "aligned_mtl", digits=9)
@pytest.mark.agrees("torchjd", "fairgrad", digits=5)
@pytest.mark.agrees("torchjd", "cagrad", digits=4)
@pytest.mark.agrees("torchjd, whose search converges slowly", "mgda", digits=1)
def test_torchjd_agrees(K, seed) -> None:
    """Where its definition is ours: no rescaling by 1 + c², w = 1/K, no clip; its Frank-Wolfe converges slowly."""
    G = gramian(K, seed, size=K + 4, decades=0.7)
    theirs = {
        "mgda": (torchjd.MGDAWeighting(epsilon=1e-9, max_iters=2000), {"normalize": "none"}, 5e-2),
        "cagrad": (torchjd.CAGradWeighting(c=0.5, norm_eps=1e-10), {"rescale": 0}, 1e-4),
        "imtl_g": (torchjd.IMTLGWeighting(), {"guard": False}, 1e-9),
        "aligned_mtl": (torchjd.AlignedMTLWeighting(), {}, 1e-9),
        "fairgrad": (torchjd.FairGradWeighting(alpha=2.0), {"max_norm": None}, 1e-5),
    }
    for key, (weighting, given, tolerance) in theirs.items():
        expected = weighting(torch.tensor(G)).numpy()
        assert_allclose(solve(key, G, **given), expected, atol=tolerance * np.abs(expected).max(), err_msg=key)


def test_torchjd_aligned_mtl_scales_agree() -> None:
    for K, scale in itertools.product((4, 5), ("min", "median", "rmse")):
        G = gramian(K, 1)
        expected = torchjd.AlignedMTLWeighting(scale_mode=scale)(torch.tensor(G)).numpy()
        assert_allclose(solve("aligned_mtl", G, scale=scale), expected, rtol=1e-9)


@pytest.mark.parametrize("K", [2, 3, 7, 20])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.agrees("torchjd", "upgrad", digits=7)
def test_torchjd_upgrad_agrees(K, seed) -> None:
    """Its quadratic programmes need something on the diagonal; 1e-12 of the trace leaves the weights as they are. With
    its default, 1e-4 of the trace, they are others."""
    G = gramian(K, seed, size=K + 4, decades=0.7)
    ours = solve("upgrad", G, reg=0.0)
    theirs = torchjd.UPGradWeighting(projector=QuadprogProjector(norm_eps=0.0, reg_eps=1e-12))(torch.tensor(G)).numpy()
    assert_allclose(ours, theirs, rtol=1e-7)
    if K > 2:
        assert np.abs(ours - torchjd.UPGradWeighting()(torch.tensor(G)).numpy()).max() > 1e-6


def test_torchjds_upgrad_may_raise_the_loss_of_a_short_gradient() -> None:
    """As docs/own_loops.md says: it is our projection where two that conflict are equally long, not at 1 to 10."""
    for long, alike in ((1.0, True), (10.0, False)):
        J = np.diag([1.0, long]) @ np.array([[1.0, 0.0], [-0.99, (1 - 0.99**2) ** 0.5]])
        G = J @ J.T
        ours = G @ solve("upgrad", G)  # what each loss falls by
        theirs = G @ torchjd.UPGradWeighting()(torch.tensor(G)).numpy()
        assert (ours >= -1e-12).all() and (theirs[0] > 0) == alike
        assert (np.abs(ours - theirs).max() < 0.01 * np.abs(ours).max()) == alike


@pytest.mark.agrees("torchjd: the outcomes that it draws from", "pcgrad", digits=6)
def test_torchjd_pcgrad_draws_from_the_same_outcomes() -> None:
    """Three tasks, two orders each: the eight sums are the same set."""
    G = np.array([[1.0, -0.5, -0.4], [-0.5, 1.2, -0.3], [-0.4, -0.3, 0.9]])
    rounded = lambda w: tuple(np.round(w, 6))  # noqa: E731
    smto, weighting = build("pcgrad", 3, scale="sum"), torchjd.PCGradWeighting()
    torch.manual_seed(0)
    theirs = {rounded(weighting(torch.tensor(G)).numpy()) for _ in range(150)}
    ours = {rounded(smto.solve(G)) for _ in range(150)}
    assert len(ours) == 8
    assert ours == theirs


def test_gradients_of_random_batches_never_raise_a_flag(toy) -> None:
    """Ordinary training is no edge case: every method takes a few real steps without one."""
    for key, number in itertools.product(GRAMIAN_METHODS, range(3)):
        smto = build(key, 2)
        smto.set_up(toy.setting, seed=1)
        assert smto.backward(toy.step(smto, number)).flags == (), key
