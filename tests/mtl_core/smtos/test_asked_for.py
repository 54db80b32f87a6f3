"""Methods that users of other libraries ask for: ConFIG, GradVac, GLS, ExcessMTL, LDC-MTL. Values from the authors'
code where there is one, from public libraries, by hand, and by automatic differentiation of what they minimise."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn, tensor
from torch.testing import assert_close
from torchjd import aggregation as torchjd

from benchmarks import oracles
from benchmarks.oracles import G1, G2, G3, gramian
from mtl_core.options import BadOption
from mtl_core.smtos.geometry import NonFinite
from mtl_core.smtos.registry import build
from mtl_core.step import MultiTaskModel, Step


def correlated(K: int, seed: int, latent: int = 5) -> np.ndarray:
    """A Gramian of K gradients that mostly agree, in a space of few dimensions, with lengths over two decades."""
    random = np.random.default_rng((K, seed))
    J = (1 + 0.5 * random.standard_normal((K, latent))) * 10 ** random.uniform(-1, 1, (K, 1))
    return J @ J.T


# -- ConFIG ------------------------------------------------------------------------------------------------------------


@pytest.mark.agrees("its authors' package", "config")
def test_config_values_of_the_authors_package() -> None:
    """Theirs is a direction; taken apart by the Jacobian that has this Gramian."""
    for G, expected in (
        (G1, [1.4077094909, 1.2194604476, 0.5920596442]),
        (G2, [4.2, -52.5, 3.15]),
        (G3, [1.5, 0.75]),
    ):
        assert_allclose(build("config", len(G)).solve(G), expected, rtol=1e-9)


@pytest.mark.parametrize("K", [2, 3, 7, 20])
@pytest.mark.agrees("torchjd", "config")
def test_torchjd_config_agrees(K) -> None:
    for seed in range(5):
        J = oracles.jacobian(K, seed, size=K + 4, decades=0.7)
        assert_allclose(build("config", K).solve(J @ J.T) @ J, torchjd.ConFIG()(torch.tensor(J)).numpy(), rtol=1e-7)


def test_config_is_imtl_g_rescaled_and_never_turns_round() -> None:
    """|cos| = 1 between the two, with IMTL-G as its formula has it: it raises every loss in some cases, ConFIG in none.

    ConFIG divides y/|g| by Σ y = yᵀC y > 0, IMTL-G by Σ y/|g|, of either sign: the cosine is the sign of that sum."""
    turned = {2: 0, 3: 0, 5: 0}
    for K in turned:
        for seed in range(200):
            G = correlated(K, seed)
            theirs, smto = build("imtl_g", K, guard=False).solve(G), build("config", K)
            ours = smto.solve(G)
            if smto.flags:
                continue
            cosine = theirs @ G @ ours / np.sqrt((theirs @ G @ theirs) * (ours @ G @ ours))
            assert abs(cosine) == pytest.approx(1, abs=1e-6), (K, seed)
            assert np.sign(cosine) == np.sign((np.linalg.solve(G, np.sqrt(G.diagonal()))).sum()), (K, seed)
            assert (G @ ours > 0).all() and ((G @ theirs > 0).all() == (cosine > 0)), (K, seed)
            turned[K] += cosine < 0
    assert turned[2] == 0
    assert turned[3] > 5 and turned[5] > 20


def test_config_is_as_long_as_the_projections_on_it_together() -> None:
    for K in (2, 3, 11):
        G = gramian(K, 4, decades=1)
        weights = build("config", K).solve(G)
        projections = G @ weights / np.sqrt(weights @ G @ weights)  # of every gradient on the update
        assert_allclose(weights @ G @ weights, projections.sum() ** 2)
        assert_allclose(projections / np.sqrt(G.diagonal()), projections[0] / np.sqrt(G[0, 0]))


def test_config_without_equal_cosines_says_so() -> None:
    """Three directions of a plane, at −40°, 0° and 40°: by symmetry the update is the middle one. At 0°, twice, 100°
    and 175°, within a half-plane, too, least squares hurt a task."""
    for degrees, hurt in (([-40.0, 0.0, 40.0], False), ([0.0, 0.0, 100.0, 175.0], True)):
        J = np.stack([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))], axis=1)
        smto = build("config", len(J))
        d = smto.solve(J @ J.T) @ J
        assert smto.flags == ["unequal_cosines"]
        assert_allclose(d, torchjd.ConFIG()(torch.tensor(J)).numpy(), atol=1e-7)
        assert ((J @ d).min() < 0) == hurt


# -- GradVac -----------------------------------------------------------------------------------------------------------

J_GRADVAC = [
    np.array([[2.0, 0, 0], [-1, 2, 1], [0, -1, 3]]),
    np.array([[1.0, 1, 0], [1, 2, 1], [0, -1, 1]]),
    np.array([[1.0, 0, -1], [1, 2, 1], [-2, 1, 1]]),
    np.array([[1.0, 0, 0], [1, 1, 0], [-1, 1, 1]]),
]
WEIGHTS = [
    [1.5, 1.33333333, 1],
    [1.5, 1, 2.08542189],
    [2.67479189, 1.10206077, 1.43672212],
    [1.44589694, 1, 1.16082921],
]
TARGETS = [[0, 0.29742902, -0.41376018], [0.29742902, 0, -0.02507565], [-0.42857042, 0.16926741, 0]]


@pytest.mark.agrees("LibMTL", "gradvac")
def test_gradvac_values_of_a_public_library() -> None:
    """LibMTL's, β = 0.3, in order of the tasks: the weights of four steps that follow each other, then the targets."""
    smto = build("gradvac", 3, beta=0.3, scale="sum", order="index")
    found = [smto.solve(J @ J.T) for J in J_GRADVAC]
    assert_allclose(found, WEIGHTS, rtol=1e-6)
    assert_allclose(smto.targets, TARGETS, atol=1e-7)


@pytest.mark.agrees("torchjd, for two tasks", "gradvac")
def test_torchjd_gradvac_agrees_on_two_tasks_where_nothing_is_random() -> None:
    theirs, ours = torchjd.GradVacWeighting(beta=0.3, eps=0.0), build("gradvac", 2, beta=0.3, scale="sum")
    for seed in range(30):
        G = gramian(2, seed, size=3)
        assert_allclose(ours.solve(G), theirs(torch.tensor(G)).numpy(), rtol=1e-9)


def test_gradvac_by_hand_reaches_its_target() -> None:
    """Two unit gradients at 60°, β = 1: the first step is the mean and sets t = ½. Then at 90°: v = g_1 + g_2/√3, whose
    cosine with g_2 is ½; so w = (1 + 1/√3)/2 each."""
    smto = build("gradvac", 2, beta=1.0)
    assert_allclose(smto.solve(np.array([[1, 0.5], [0.5, 1]])), [0.5, 0.5])
    assert_allclose(smto.targets, [[0, 0.5], [0.5, 0]])
    assert_allclose(smto.solve(np.eye(2)), np.full(2, (1 + 3**-0.5) / 2))
    v = np.array([1, 3**-0.5])
    assert_allclose(v[1] / np.linalg.norm(v), 0.5)


def test_gradvac_begins_as_pcgrad_and_with_beta_0_stays_so() -> None:
    for K in (2, 3, 7):
        first, never = build("gradvac", K, order="index"), build("gradvac", K, beta=0.0, order="index")
        for seed in range(4):
            G = gramian(K, seed, size=3)
            expected = build("pcgrad", K, order="index").solve(G)
            assert_allclose(never.solve(G), expected, atol=1e-12)
            if seed == 0:
                assert_allclose(first.solve(G), expected, atol=1e-12)
            elif K > 2:
                assert np.abs(first.solve(G) - expected).max() > 1e-3


def test_gradvac_edges() -> None:
    """Opposite gradients: nothing is left of either, nothing is divided by 0, and the next step is of this world.
    A silent task keeps its targets. Parallel gradients at β = 1: the target counts as less than 1."""
    smto = build("gradvac", 3, beta=1.0, order="index")
    G = np.array([[1.0, -1, 0], [-1, 1, 0], [0, 0, 1]])
    assert_allclose(G @ smto.solve(G), [0, 0, 1 / 3], atol=1e-12)  # a third of g_3, and nothing else
    before = smto.targets.copy()
    smto.solve(np.diag([1.0, 0.0, 1.0]) + 0.5 * np.array([[0, 0, 1], [0, 0, 0], [1, 0, 0]]))
    assert_allclose(smto.targets[1], before[1])
    assert_allclose(smto.targets[:, 1], before[:, 1])
    assert smto.targets[0, 2] == pytest.approx(0.5)
    opposite = build("gradvac", 2, beta=1.0)
    with np.errstate(all="raise"):
        for _ in range(2):  # the second time t = −1
            opposite.solve(np.array([[1.0, -1], [-1, 1]]))
    parallel = build("gradvac", 2, beta=1.0)
    parallel.solve(np.ones((2, 2)))
    assert np.isfinite(parallel.solve(np.eye(2))).all()


# -- GLS ---------------------------------------------------------------------------------------------------------------


@pytest.mark.agrees("automatic differentiation of its objective", "gls")
def test_gls_is_the_gradient_of_the_geometric_mean(toy) -> None:
    step = toy.step()
    jacobian, losses = step.jacobian, step.losses.requires_grad_()
    (expected,) = torch.autograd.grad(losses.prod() ** 0.5, losses)
    applied = build("gls", 2).backward(toy.step())
    assert_close(applied.weights, expected)
    assert_close(toy.gradient(), expected @ jacobian)


def test_gls_by_hand_and_beyond_the_range_of_a_product() -> None:
    """L = (½, 4, 4): the geometric mean is 2. And a thousand losses, whose product no number holds."""
    assert_close(build("gls", 3).weights(tensor([0.5, 4.0, 4.0])), tensor([4 / 3, 1 / 6, 1 / 6]))
    for loss in (1e-3, 1e3):
        losses = torch.full((1000,), loss)
        assert losses.prod() in (0, torch.inf)
        assert_close(build("gls", 1000).weights(losses), torch.full((1000,), 1e-3))


def test_gls_goes_along_si() -> None:
    losses = tensor([0.3, 2.0, 50.0], dtype=torch.float64)
    gls, si = build("gls", 3).weights(losses), build("si", 3).weights(losses)
    assert_close(gls / si, losses.log().mean().exp().expand(3))


# -- ExcessMTL ---------------------------------------------------------------------------------------------------------


@pytest.mark.agrees("its authors' code", "excess_mtl")
def test_excess_mtl_values_of_the_authors_code() -> None:
    """η = ½, four steps: gradients that grow, shrink, and halve each time."""
    J = torch.tensor([[1.0, 2.0, 0.0], [0.0, -1.0, 3.0], [0.5, 0.5, -0.25]], dtype=torch.float64)
    smto = build("excess_mtl", 3, eta=0.5).double()
    found = []
    for t in range(4):
        scale = torch.tensor([[1.0 + t], [1 - 0.2 * t], [2.0**-t]], dtype=torch.float64)
        found.append(smto.weights(smto.excess(scale * J)).tolist())
    expected = [
        [1, 1, 1],
        [1.51354323, 0.79445751, 0.69199926],
        [2.27236028, 0.40692495, 0.32071477],
        [2.78585434, 0.12226660, 0.09187907],
    ]
    assert_allclose(found, expected, atol=6e-9)


def test_excess_mtl_by_hand(toy) -> None:
    """In the first step e = Σ |g_p| up to the 1e-7, w = 1, and encoder and heads get the plain sum."""
    step = toy.step()
    smto = build("excess_mtl", 2).double()
    applied = smto.backward(step)
    assert_close(smto.first, step.jacobian.abs().sum(1), rtol=1e-3, atol=0)
    assert_close(applied.weights, torch.ones(2, dtype=torch.float64))
    assert_close(toy.gradient(), step.jacobian.sum(0))


def test_excess_mtl_waits_for_a_silent_task() -> None:
    """A task's weight moves from its second gradient on; until then it has the share that the others leave it."""
    smto = build("excess_mtl", 2, eta=1.0).double()
    rows = [[[1.0], [0.0]], [[1.0], [0.0]], [[1.0], [2.0]]]
    found = [smto.weights(smto.excess(tensor(row, dtype=torch.float64))).tolist() for row in rows]
    move = np.exp(2**-0.5), np.exp(2**-0.5 + 3**-0.5)  # e = 1/√2, 1/√3, over e⁰ = 1
    assert_allclose(found, [[1, 1], *([2 * m / (m + 1), 2 / (m + 1)] for m in move)], rtol=1e-6)
    assert smto.first.tolist() == pytest.approx([1, 2], rel=1e-6)


def test_excess_mtl_cannot_overflow_and_refuses_nan(toy) -> None:
    smto = build("excess_mtl", 2, eta=1e3).double()
    for scale in (1.0, 1e6, 1e9):
        weights = smto.weights(smto.excess(scale * torch.eye(2, dtype=torch.float64)[:, :1]))
    assert_close(weights, tensor([2.0, 0.0], dtype=torch.float64))
    with torch.no_grad():
        next(toy.model.parameters()).fill_(torch.nan)
    with pytest.raises(NonFinite, match="finite"):
        build("excess_mtl", 2).backward(toy.step())


# -- LDC-MTL -----------------------------------------------------------------------------------------------------------


def chain(K: int = 4) -> tuple[MultiTaskModel, list, torch.Tensor, list[torch.Tensor]]:
    """K squared errors of different size on one encoder."""
    torch.manual_seed(1)
    model = MultiTaskModel(nn.Linear(3, 4), {str(k): nn.Linear(4, 1) for k in range(K)}).double()
    x = torch.randn(8, 3).double()
    return model, [nn.functional.mse_loss] * K, x, [(k + 1.0) * x[:, k % 3, None] for k in range(K)]


@pytest.mark.parametrize("lamb", [0.0, 0.01, 5.0])
@pytest.mark.agrees("automatic differentiation of its objective", "ldc_mtl")
def test_ldc_mtl_is_the_gradient_of_its_sum(lamb) -> None:
    """Everything at once by automatic differentiation: encoder, heads and θ, in three steps."""
    model, losses, x, targets = chain()
    smto = build("ldc_mtl", 4, lamb=lamb).double()
    optimizer = torch.optim.SGD([{"params": list(model.parameters())}, *smto.parameter_groups(0.1)], lr=0.1)
    for _ in range(3):
        copied, theta = copy.deepcopy(model), smto.theta.detach().clone().requires_grad_()
        values = torch.stack([f(p, y) for f, p, y in zip(losses, copied(x), targets, strict=True)])
        weighted = theta.sigmoid() * values
        total = weighted.sum() / theta.sigmoid().sum().detach() + lamb * (weighted[:-1] - weighted[1:]).abs().sum()
        expected = torch.autograd.grad(total, [*copied.parameters(), theta])
        applied = smto.backward(Step(model, losses, x, targets))
        assert_close([p.grad for p in [*model.parameters(), smto.theta]], list(expected))
        assert ((applied.weights < 0).any()) == (lamb > 1)
        optimizer.step()


def test_ldc_mtl_by_hand() -> None:
    """θ = 1, L = (3, 1, 2), λ = 0.1: s = (1, −1), so the differences are 1, −2, 1 and w = ⅓ + σ (0.1, −0.2, 0.1)."""
    sigma = 1 / (1 + np.exp(-1))
    weights = build("ldc_mtl", 3, lamb=0.1).double().weights(tensor([3.0, 1.0, 2.0], dtype=torch.float64))
    assert_allclose(weights, 1 / 3 + sigma * np.array([0.1, -0.2, 0.1]))


def test_ldc_mtl_of_equal_losses_is_the_mean() -> None:
    assert_close(build("ldc_mtl", 3).weights(torch.full((3,), 0.7)), torch.full((3,), 1 / 3))


# -- options -----------------------------------------------------------------------------------------------------------


def test_options_out_of_range_are_refused() -> None:
    for key, option, message in (
        ("gradvac", {"beta": 1.5}, "less than or equal to 1"),
        ("gradvac", {"scale": "max"}, "'mean' or 'sum'"),
        ("excess_mtl", {"eta": -0.1}, "greater than or equal to 0"),
        ("ldc_mtl", {"lamb": -1.0}, "greater than or equal to 0"),
        ("gls", {"scale": "sum"}, "no option 'scale'"),
        ("config", {"guard": True}, "no option 'guard'"),
    ):
        with pytest.raises(BadOption, match=f"{key}.*{message}"):
            build(key, 2, **option)
