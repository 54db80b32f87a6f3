"""What theory promises: invariances, descent, identities, equal weights, and that no two methods are the same."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from benchmarks import oracles
from benchmarks.oracles import GRAMIAN_METHODS, gramian
from mtl_core.smtos import solvers
from mtl_core.smtos.imgrad import balance
from mtl_core.smtos.registry import build

#: every Gramian method in a deterministic form
METHODS: dict[str, dict[str, object]] = {
    key: {"order": "index"} if key in ("pcgrad", "gradvac") else {} for key in GRAMIAN_METHODS
}
#: those that treat all tasks alike; PCGrad and GradVac in a fixed order do not
EQUIVARIANT = [key for key in METHODS if not METHODS[key]]


def solve(key: str, G: np.ndarray, losses: np.ndarray | None = None, steps: int = 1, **options: object) -> np.ndarray:
    """The weights of a fresh SMTO after some equal steps."""
    smto = build(key, len(G), **(METHODS[key] | options))
    for _ in range(steps):
        weights = smto.solve(G, losses)
    return weights


def direction(weights: np.ndarray, J: np.ndarray) -> np.ndarray:
    d = weights @ J
    return d / np.linalg.norm(d)


@st.composite
def jacobians(draw: st.DrawFn, min_tasks: int = 2, max_tasks: int = 7) -> np.ndarray:
    """Task gradients [K, P] of many kinds, none of them Pareto stationary by a hair."""
    K = draw(st.integers(min_tasks, max_tasks))
    J = oracles.jacobian(
        K,
        draw(st.integers(0, 10**6)),
        cosine=draw(st.sampled_from([0.0, 0.3, 0.8])),
        decades=draw(st.sampled_from([0.0, 0.5, 2.0])),
        size=draw(st.sampled_from([1, 50])),
    )
    C = oracles.units(J @ J.T)[1]
    w = solvers.min_norm_point(C).weights
    assume(w @ C @ w > 1e-6)
    return J


# -- invariances -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", EQUIVARIANT)
@settings(max_examples=15)
@given(jacobians(), st.randoms())
def test_permuted_tasks_give_the_same_update(key, J, random) -> None:
    order = random.sample(range(len(J)), len(J))
    losses = np.linspace(0.5, 2.0, len(J))
    expected = solve(key, J @ J.T, losses, steps=12) @ J
    actual = solve(key, J[order] @ J[order].T, losses[order], steps=12) @ J[order]
    assert_allclose(actual, expected, atol=1e-6 * np.linalg.norm(expected))


@pytest.mark.parametrize("key", METHODS)
@settings(max_examples=10)
@given(jacobians(), st.integers(0, 1000))
def test_rotated_gradients_give_the_rotated_update(key, J, seed) -> None:
    """The weights see inner products only: J Q instead of J turns d into d Q."""
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((J.shape[1],) * 2))[0]
    losses = np.linspace(0.5, 2.0, len(J))
    expected = solve(key, J @ J.T, losses) @ J @ Q
    turned = J @ Q
    assert_allclose(solve(key, turned @ turned.T, losses) @ turned, expected, atol=1e-6 * np.linalg.norm(expected))


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("edm", {}),
        ("imtl_g", {"guard": False}),
        ("nash_mtl", {}),
        ("fairgrad", {"alpha": 1.0}),
        ("mgda", {"normalize": "l2", "combine": "scaled"}),
        ("mgda", {"normalize": "loss", "combine": "scaled"}),
    ],
    ids=str,
)
@settings(max_examples=25)
@given(jacobians(), st.integers(0, 1000))
def test_direction_does_not_depend_on_the_scales_of_the_losses(key, options, J, seed) -> None:
    scale = 10.0 ** np.random.default_rng(seed).uniform(-3, 3, len(J))
    scaled, losses = scale[:, None] * J, np.linspace(0.5, 2.0, len(J))
    if key == "imtl_g":
        y = np.linalg.solve(oracles.units(J @ J.T)[1], np.ones(len(J)))
        lengths = np.linalg.norm(scaled, axis=1)
        assume(abs((y / lengths).sum()) > 1e-6 * np.abs(y / lengths).sum())  # α exists
    actual = direction(solve(key, scaled @ scaled.T, losses * scale, **options), scaled)
    expected = direction(solve(key, J @ J.T, losses, **options), J)
    assert_allclose(abs(actual @ expected), 1, atol=1e-6)  # IMTL-G may turn its direction round


@pytest.mark.parametrize("key", ["mgda", "cagrad", "imgrad", "pcgrad", "fairgrad", "upgrad", "aligned_mtl", "cdtt"])
def test_direction_of_the_others_does(key) -> None:
    """Their direction changes, so the test above can fail."""
    J = oracles.jacobian(3, 5, size=3)
    scaled = np.array([[1.0], [10.0], [0.3]]) * J
    losses = np.array([1.0, 0.7, 1.5])
    expected = direction(solve(key, J @ J.T, losses, steps=12), J)
    actual = direction(solve(key, scaled @ scaled.T, losses * [1, 10, 0.3], steps=12), scaled)
    assert actual @ expected < 1 - 1e-4


@settings(max_examples=25)
@given(jacobians(), st.floats(1e-4, 1e4))
def test_one_common_scale_of_the_losses(J, scale) -> None:
    """G → s² G: weights stay for methods as long as the gradients; Nash's are ∝ 1/s, FairGrad's s^(−2α/(1 + α))."""
    G = J @ J.T
    for key in ("edm", "imtl_g", "cagrad", "imgrad", "pcgrad", "upgrad", "aligned_mtl"):
        w = solve(key, G)
        assert_allclose(solve(key, scale**2 * G), w, rtol=1e-5, atol=1e-6 * np.abs(w).max(), err_msg=key)
    w = solve("nash_mtl", G, max_norm=None)
    assert_allclose(solve("nash_mtl", scale**2 * G, max_norm=None), w / scale, rtol=1e-6)
    w = solve("fairgrad", G, max_norm=None)
    assert_allclose(solve("fairgrad", scale**2 * G, max_norm=None), w * scale ** (-4 / 3), rtol=1e-6)


# -- descent and conservation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("mgda", {"normalize": "none"}),
        ("mgda", {"combine": "scaled"}),
        ("edm", {}),
        ("nash_mtl", {}),
        ("fairgrad", {}),
        ("fairgrad", {"alpha": 0.5}),
        ("upgrad", {"reg": 0.0}),
    ],
    ids=str,
)
@settings(max_examples=30)
@given(jacobians())
def test_no_task_gets_worse(key, options, J) -> None:
    """J d ≥ 0, measured along unit vectors."""
    d = direction(solve(key, J @ J.T, np.linspace(0.5, 2.0, len(J)), **options), J)
    assert (J @ d / np.linalg.norm(J, axis=1)).min() >= -1e-7


def test_of_two_tasks_pcgrad_hurts_none_and_of_three_it_may() -> None:
    for seed in range(20):
        G = gramian(2, seed, size=2, decades=1)
        assert (G @ solve("pcgrad", G)).min() >= -1e-12
    assert min((G @ solve("pcgrad", G)).min() for G in (gramian(3, seed, size=3) for seed in range(60))) < -1e-3


@settings(max_examples=40)
@given(jacobians())
def test_the_shortest_combination_gains_its_own_length_squared(J) -> None:
    """MGDA without scaling: d·g_k ≥ |d|², with equality on the support."""
    G = J @ J.T
    w = solve("mgda", G, normalize="none")
    gains, squared = G @ w, w @ G @ w
    assert (gains >= squared * (1 - 1e-8)).all()
    assert_allclose(gains[w > 0], squared, rtol=1e-6)


@settings(max_examples=40)
@given(jacobians())
def test_edm_bisects(J) -> None:
    """u_k·d is the same on the support, and not less elsewhere."""
    G = J @ J.T
    w = solve("edm", G)
    projections = G @ w / np.linalg.norm(J, axis=1)
    common = projections[w > 0].min()
    assert_allclose(w.sum(), 1)
    assert_allclose(projections[w > 0], common, rtol=1e-7)
    assert (projections >= common * (1 - 1e-9)).all()


@settings(max_examples=40)
@given(jacobians())
def test_the_nash_update_has_length_root_k(J) -> None:
    a = solve("nash_mtl", J @ J.T, max_norm=None)
    assert_allclose(np.linalg.norm(a @ J), np.sqrt(len(J)))
    assert_allclose(np.linalg.norm(solve("nash_mtl", J @ J.T) @ J), 1)


@settings(max_examples=40)
@given(jacobians(), st.integers(0, 1000))
def test_no_update_as_long_gains_more_percent_than_nash(J, seed) -> None:
    """Σ_k g_k·d'/g_k·d ≤ K for every |d'| = |d|."""
    d = solve("nash_mtl", J @ J.T) @ J
    other = d + np.random.default_rng(seed).standard_normal(len(d)) * np.linalg.norm(d) / 10
    other *= np.linalg.norm(d) / np.linalg.norm(other)
    assert (J @ other / (J @ d)).sum() <= len(J) * (1 + 1e-9)


@settings(max_examples=40)
@given(jacobians(), st.floats(0.05, 0.95))
def test_cagrad_stays_on_its_ball(J, c) -> None:
    g_0 = J.mean(0)
    d = solve("cagrad", J @ J.T, c=c, rescale=0) @ J
    assert_allclose(np.linalg.norm(d - g_0), c * np.linalg.norm(g_0), rtol=1e-6)
    assert (J @ d).min() >= (J @ g_0).min() - 1e-9 * np.linalg.norm(g_0)


# -- identities between methods --------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(jacobians(max_tasks=2))
def test_of_two_tasks_many_methods_are_one(J) -> None:
    """EDM = IMTL-G, and with Nash-MTL they point along u_1 + u_2; UPGrad is PCGrad."""
    G, units = J @ J.T, J / np.linalg.norm(J, axis=1, keepdims=True)
    bisector = direction(np.ones(2), units)
    assert_allclose(solve("imtl_g", G), solve("edm", G), rtol=1e-9)
    for key in ("edm", "imtl_g", "imtl", "nash_mtl"):
        assert_allclose(direction(solve(key, G), J), bisector, atol=1e-7)
    assert_allclose(solve("upgrad", G, reg=0.0), solve("pcgrad", G))
    assert_allclose(solve("mgda", G, normalize="l2"), [0.5, 0.5])


@settings(max_examples=40)
@given(jacobians(min_tasks=3))
def test_edm_is_imtl_g_where_all_tasks_count(J) -> None:
    G = J @ J.T
    y = np.linalg.solve(oracles.units(G)[1], np.ones(len(G)))
    if (y > 1e-9).all():
        assert_allclose(solve("edm", G), solve("imtl_g", G), rtol=1e-6, atol=1e-9)
    else:
        assert np.abs(solve("edm", G) - solve("imtl_g", G, guard=False)).max() > 1e-9


@settings(max_examples=40)
@given(jacobians())
def test_fairgrad_of_one_is_nash(J) -> None:
    G = J @ J.T
    assert_allclose(solve("fairgrad", G, alpha=1.0), solve("nash_mtl", G), rtol=1e-8)
    assert_allclose(solvers.bargaining(G, 1 + 1e-9).weights, solvers.bargaining(G).weights, rtol=1e-6)


@settings(max_examples=40)
@given(jacobians())
def test_aligned_mtl_is_as_long_as_its_shortest_axis(J) -> None:
    """|d|² = λ_min |w|² at full rank, w = 1/K each."""
    values = np.linalg.eigvalsh(J @ J.T)
    assume(values[0] > 1e-5 * values[-1])
    d = solve("aligned_mtl", J @ J.T) @ J
    assert_allclose(d @ d, values[0] / len(J), rtol=1e-5)


def test_aligned_mtl_of_orthogonal_equally_long_gradients_is_the_mean() -> None:
    assert_allclose(solve("aligned_mtl", 3.0 * np.eye(4)), np.full(4, 1 / 4))


@settings(max_examples=40)
@given(jacobians())
def test_balance_is_bounded_by_the_lengths(J) -> None:
    """κ ≥ |g_m| / |g_0|, with equality where every task has a share in g_m."""
    G = J @ J.T
    w = solve("mgda", G, normalize="none")
    ratio = np.sqrt(w @ G @ w / G.mean())
    kappa = balance(G)
    assert ratio <= kappa * (1 + 1e-9) <= 1 + 1e-8
    if (w > 1e-9).all():
        assert_allclose(kappa, ratio, rtol=1e-6)


def test_full_support_makes_cagrad_parallel_to_mgda() -> None:
    met = 0
    for seed in range(30):
        J = oracles.jacobian(3, seed, decades=0.2)
        if (solvers.cagrad_dual(J @ J.T, 0.5).weights > 1e-6).all():
            met += 1
            expected = direction(solve("mgda", J @ J.T, normalize="none"), J)
            assert_allclose(direction(solve("cagrad", J @ J.T), J), expected, atol=1e-7)
    assert met > 3


def test_imgrad_at_three_quarters_is_cagrad() -> None:
    """κ = ¾ weighs both terms of the dual as CAGrad does; found by turning two gradients apart."""

    def pair(cosine: float) -> np.ndarray:
        return np.array([[1.0, 2 * cosine], [2 * cosine, 4.0]])

    low, high = -0.99, 0.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if balance(pair(middle)) < 0.75 else (low, middle)
    assert_allclose(balance(pair(low)), 0.75, atol=1e-9)
    assert_allclose(solve("imgrad", pair(low), c=0.5), solve("cagrad", pair(low), c=0.5), rtol=1e-7)


READINGS = ["code", "eq9", "eq11", "eq11_plain"]


@pytest.mark.parametrize("reading", READINGS)
def test_imgrad_solves_the_objective_as_it_is_written(reading) -> None:
    """Each reading as a convex programme, and not CAGrad's dual at another radius."""
    for seed, (K, c) in enumerate([(2, 0.5), (3, 0.2), (4, 0.8), (11, 0.8)]):
        G = gramian(K, seed, decades=0.7)
        w = oracles.imgrad_dual(G, c, balance(G), reading)
        expected = (1 / K + c * np.sqrt(G.mean() / (w @ G @ w)) * w) / (1 + c**2)
        R = oracles.root(G)
        found = solve("imgrad", G, c=c, reading=reading)
        assert_allclose(found @ R, expected @ R, atol=2e-3 * np.abs(expected @ R).max())
        assert_allclose(
            solve("imgrad", 1e-6 * G, c=c, reading=reading), found, rtol=1e-6
        ) if reading != "eq11" else None


def test_imgrads_printed_objectives_lead_to_mgda() -> None:
    """At κ = 1, where the mean gradient is the shortest combination: d = (1 + c) g_0 / (1 + c²)."""
    for reading in READINGS:
        assert_allclose(solve("imgrad", np.eye(3), c=0.5, reading=reading), np.full(3, 1.5 / 3 / 1.25), rtol=1e-9)


def test_the_balance_of_two_gradients_in_closed_form() -> None:
    """r = |g_1| / |g_2| and the angle φ between them. At a right angle it is the similarity of magnitudes."""
    for ratio, degrees in itertools.product((1.0, 1.5, 2.0, 3.0, 10.0), (20.0, 30.0, 60.0, 90.0, 120.0, 150.0, 170.0)):
        cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        if ratio * cos < 1:
            expected = 2 * ratio * sin / np.sqrt((ratio**2 + 1) ** 2 - 4 * ratio**2 * cos**2)
        else:  # the shortest combination is the short gradient
            expected = (1 + ratio * cos) / np.sqrt(ratio**2 + 1 + 2 * ratio * cos)
        found = balance(np.array([[ratio**2, ratio * cos], [ratio * cos, 1.0]]))
        assert_allclose(found, 1.0 if ratio == 1 and ratio * cos < 1 else expected, atol=1e-12)
        if degrees == 90:
            assert_allclose(found, 2 * ratio / (ratio**2 + 1), atol=1e-12)


def test_imgrad_hurts_a_task_wherever_cagrad_does() -> None:
    """At equal c its d is in CAGrad's ball, of which CAGrad's d has the largest worst gain. The reverse happens."""
    random, only_imgrad, both = np.random.default_rng(0), 0, 0
    for _ in range(300):
        K, c = int(random.choice([2, 3])), float(random.choice([0.1, 0.2, 0.4]))
        J = random.normal(size=(K, 3)) * 10 ** random.uniform(-1, 1, size=(K, 1))
        G = J @ J.T
        worst = {"cagrad": (G @ solve("cagrad", G, c=c) / G.diagonal() ** 0.5).min()}
        worst |= {r: (G @ solve("imgrad", G, c=c, reading=r) / G.diagonal() ** 0.5).min() for r in READINGS}
        if worst["cagrad"] < 0:
            assert all(worst[reading] < 1e-9 for reading in READINGS)
            both += 1
        else:
            only_imgrad += any(worst[reading] < -1e-9 for reading in READINGS)
    assert both > 20 and only_imgrad > 2


# -- equal weights ---------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.floats(1e-3, 1e3), st.floats(-0.99, 0.99), st.floats(0.05, 0.95))
def test_two_equally_long_gradients_count_alike(n, cosine, c) -> None:
    """The propositions of the main paper, for any length and angle: CAGrad for every c, Nash-MTL, IMTL, EDM, CDTT."""
    G = n**2 * np.array([[1.0, cosine], [cosine, 1.0]])
    for key in ("edm", "imtl", "imtl_g", "mgda", "imgrad", "fairgrad", "aligned_mtl", "pcgrad", "upgrad"):
        first, second = solve(key, G)
        assert_allclose(first, second, rtol=1e-9, err_msg=key)
    assert_allclose(solve("cdtt", G, np.full(2, 0.7), steps=12), [0.5, 0.5], atol=1e-9)
    assert_allclose(solvers.cagrad_dual(G, c).weights, [0.5, 0.5], atol=1e-12)
    assert_allclose(solve("cagrad", G, c=c), (1 + c) / (1 + c**2) * np.array([0.5, 0.5]))
    assert_allclose(solve("nash_mtl", G, max_norm=None), np.full(2, 1 / (n * np.sqrt(1 + cosine))))


@pytest.mark.parametrize("K", [2, 3, 4, 7, 11])
def test_equal_lengths_and_equal_row_sums_make_equal_weights(K) -> None:
    """The generalisation to K tasks: the uniform vector satisfies every method's optimality conditions."""
    for seed in range(10):
        G = oracles.balanced(K, seed)
        for key in (
            "mgda",
            "mgda_ub",
            "edm",
            "imtl",
            "imtl_g",
            "nash_mtl",
            "cagrad",
            "imgrad",
            "fairgrad",
            "aligned_mtl",
        ):
            w = solve(key, G)
            assert_allclose(w, np.full(K, w.mean()), rtol=1e-9, err_msg=key)
        for alpha in (0.5, 4.0):
            w = solve("fairgrad", G, alpha=alpha)
            assert_allclose(w, np.full(K, w.mean()), rtol=1e-9)
        assert_allclose(solve("cdtt", G, np.ones(K), steps=12), np.full(K, 1 / K), rtol=1e-9)


def test_equal_lengths_alone_do_not() -> None:
    """Three tasks, two of them aligned (cosine 0.9) and one at right angles to both."""
    G = np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]])
    for key in ("edm", "imtl_g", "mgda"):
        assert_allclose(solve(key, G), [0.256, 0.256, 0.487], atol=6e-4)
    nash = solve("nash_mtl", G)
    assert_allclose(nash / nash.sum(), [0.296, 0.296, 0.408], atol=6e-4)
    assert_allclose(solvers.cagrad_dual(G, 0.5).weights, [0.075, 0.075, 0.851], atol=6e-4)


def test_upgrad_is_no_such_method() -> None:
    """Equal lengths and equal row sums, and its weights differ by up to a fifth: projections are one-sided."""
    spread = [np.ptp(w) / w.mean() for w in (solve("upgrad", oracles.balanced(5, seed)) for seed in range(50))]
    assert 0.05 < max(spread) < 0.4


def test_sensitivity_to_a_tenth_more_length() -> None:
    """n_2/n_1 = 1.1, c = ½: three methods see the lengths only, MGDA and CAGrad the more the better the tasks agree."""
    cosines = (-0.9, 0.0, 0.7, 0.9, 0.99)
    shares: dict[str, list[float]] = {key: [] for key in ("edm", "imtl_g", "nash_mtl", "mgda", "cagrad")}
    dual = []
    for k in cosines:
        G = np.array([[1.0, 1.1 * k], [1.1 * k, 1.21]])
        for key, share in shares.items():
            w = solve(key, G, **({"normalize": "none"} if key == "mgda" else {}))
            share.append(w[0] / w.sum())
        dual.append(solvers.cagrad_dual(G, 0.5).weights[0])
    for key in ("edm", "imtl_g", "nash_mtl"):
        assert_allclose(shares[key], np.full(5, 1.1 / 2.1))
    assert_allclose(shares["mgda"], [0.525, 0.548, 0.657, 0.957, 1.0], atol=6e-4)
    assert_allclose(shares["cagrad"], [0.525, 0.548, 0.657, 0.669, 0.672], atol=6e-4)
    assert_allclose(dual, [0.58, 0.64, 0.98, 1, 1], atol=6e-3)


def test_equal_lengths_at_the_features_are_not_equal_lengths_at_the_parameters() -> None:
    """z = (θ_1, 2 θ_2), ∂L_1/∂z = (1, 0), ∂L_2/∂z = (0, ½): IMTL-G weighs (⅓, ⅔) there and (½, ½) here."""
    at_features, trunk = np.array([[1.0, 0.0], [0.0, 0.5]]), np.diag([1.0, 2.0])
    at_parameters = at_features @ trunk
    assert_allclose(solve("imtl_g", at_features @ at_features.T), [1 / 3, 2 / 3])
    assert_allclose(solve("imtl_g", at_parameters @ at_parameters.T), [0.5, 0.5])


# -- no two methods are the same -------------------------------------------------------------------------------------

#: One Gramian of 4 tasks, with conflicts, unequal lengths, and a task that EDM leaves out (so EDM is not IMTL-G)
PARTING = gramian(4, 11, size=4, decades=0.5, cosine=0.0)
LOSSES = np.array([0.4, 1.3, 2.1, 0.9])
SAME = {frozenset({"mgda", "mgda_ub"})}  # one method, told apart by whose gradients it reads


def test_the_parting_gramian_is_an_ordinary_one() -> None:
    _, C = oracles.units(PARTING)
    assert np.linalg.cond(C) < 1e3
    assert C.min() < -0.1
    smto = build("imtl_g", 4)
    smto.solve(PARTING)
    assert smto.flags == []


def test_no_two_methods_agree() -> None:
    """After twelve equal steps, so that those with memory have one, the weights differ by a hundredth or more."""
    weights = {key: solve(key, PARTING, LOSSES, steps=12) for key in METHODS}
    wrong = {}
    for one, other in itertools.combinations(METHODS, 2):
        a, b = weights[one], weights[other]
        apart = np.abs(a - b).max() / max(np.abs(a).max(), np.abs(b).max())
        if not (apart == 0 if frozenset({one, other}) in SAME else apart > 0.01):
            wrong[one, other] = apart
    assert wrong == {}
