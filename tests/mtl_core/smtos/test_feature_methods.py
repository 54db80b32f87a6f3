"""Methods that look at gradients in their own way: GradDrop, RotoGrad, GradNorm, DB-MTL, BayesAgg-MTL."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import nn, tensor
from torch.nn import functional as F
from torch.testing import assert_close
from torchjd import aggregation as torchjd

from mtl_core.options import BadOption
from mtl_core.smtos.base import ProblemInfo
from mtl_core.smtos.bayesagg_mtl import softmax_evidence, softmax_moments, square_evidence, square_moments, with_bias
from mtl_core.smtos.registry import build
from mtl_core.smtos.rotograd import exponential, haar

ONE = torch.ones((), dtype=torch.float64)


def ready(key: str, num_tasks: int = 2, seed: int = 1, feature_shape: tuple = (5,), **options):
    """An SMTO that has been set up, in float64."""
    smto = build(key, num_tasks, **options)
    likelihoods = ("softmax", *["gaussian"] * (num_tasks - 1))
    smto.set_up(ProblemInfo(likelihoods, feature_shape, lr=0.01, weight_decay=0.0), seed)
    return smto.double()


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- GradDrop --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
def test_graddrop_keeps_everything_where_signs_agree(sign) -> None:
    """All tasks vote for one sign at every feature: the direction is the plain sum."""
    gradients = sign * normal(3, 1, 40).abs()
    assert_close(ready("graddrop", 3).direction(gradients, torch.ones(1, 40).double()), gradients.sum(0))


def test_graddrop_votes_with_the_sign_of_the_feature() -> None:
    """Where z is negative the vote turns: +1 and −1 agree on features of opposite sign, whatever the coin."""
    gradients = tensor([[[1.0], [-2.0]], [[3.0], [-1.0]]]).double()  # [K, B, 1]: votes 3 and 4
    assert_close(ready("graddrop").direction(gradients, tensor([[5.0], [-0.1]]).double()), gradients.sum(0))


def test_graddrop_has_the_length_of_the_sum() -> None:
    gradients, z = normal(3, 8, 10), normal(8, 10, seed=1)
    direction = ready("graddrop", 3).direction(gradients, z)
    assert_close(direction.norm(), gradients.sum(0).norm())
    text = ready("graddrop", 3, renormalise=False).direction(gradients, z)
    assert_close(torch.cosine_similarity(direction.flatten(), text.flatten(), dim=0), ONE)
    assert not torch.isclose(text.norm(), gradients.sum(0).norm())


def test_graddrop_picks_one_of_two_opposite_gradients() -> None:
    """Purity ½: at every feature one of the two, each about as often (20,000 coins: standard error 0.0035)."""
    gradients = tensor([[[1.0]], [[-1.0]]]).double().expand(2, 1, 20_000)
    kept = ready("graddrop", renormalise=False).direction(gradients, torch.ones(1, 20_000).double())
    assert_close(kept.abs(), torch.ones_like(kept))
    assert abs(float((kept > 0).double().mean()) - 0.5) < 0.02


def test_graddrop_on_average() -> None:
    """Two numbers a > 0 > b: E = a p + b (1 − p) with purity p = a / (a − b). Here 3, −1: ¾·3 − ¼ = 2; k = 0: 1."""
    gradients = tensor([[[3.0]], [[-1.0]]]).double().expand(2, 1, 20_000)
    z = torch.ones(1, 20_000).double()
    assert abs(float(ready("graddrop", renormalise=False).direction(gradients, z).mean()) - 2) < 0.06
    assert abs(float(ready("graddrop", k=0.0, renormalise=False).direction(gradients, z).mean()) - 1) < 0.06


def test_graddrop_tosses_one_coin_per_feature_for_the_whole_batch() -> None:
    gradients = tensor([1.0, -1.0]).double().view(2, 1, 1).expand(2, 6, 50)
    kept = ready("graddrop", renormalise=False).direction(gradients, torch.ones(6, 50).double())
    assert_close(kept, kept[:1].expand_as(kept))
    assert len(kept[0].unique()) == 2


def test_graddrop_without_votes() -> None:
    """Where z is 0 no task votes and all gradients pass; no gradient at all gives no direction."""
    gradients = normal(2, 4, 6)
    assert_close(ready("graddrop").direction(gradients, torch.zeros(4, 6).double()), gradients.sum(0))
    nothing = torch.zeros(2, 4, 6).double()
    assert_close(ready("graddrop").direction(nothing, torch.ones(4, 6).double()), nothing[0])


def test_graddrop_leak() -> None:
    """A full leak is the sum; a leak of the first task alone always lets that task pass."""
    gradients, z = normal(2, 4, 6), normal(4, 6, seed=1)
    assert_close(ready("graddrop", leak=[1.0, 1.0], renormalise=False).direction(gradients, z), gradients.sum(0))
    rest = ready("graddrop", leak=[1.0, 0.0], renormalise=False).direction(gradients, z) - gradients[0]
    assert (torch.isclose(rest, gradients[1]) | torch.isclose(rest, torch.zeros_like(rest))).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("k", "leak"), [(1.0, None), (0.4, None), (1.0, [0.0, 0.3, 1.0])])
@pytest.mark.agrees("torchjd, with the same coins", "graddrop")
def test_graddrop_is_that_of_torchjd(seed, k, leak) -> None:
    """On the rows of a Jacobian, with the same coins, in the form of the source's text: not brought to any length."""
    jacobian = torch.randn(3, 500, generator=torch.Generator().manual_seed(7))
    ours = ready("graddrop", 3, seed=seed, k=k, leak=leak, space="parameters", renormalise=False).direction(jacobian)
    torch.manual_seed(seed)
    theirs = torchjd.GradDrop(f=lambda p: 0.5 + k * (p - 0.5), leak=None if leak is None else tensor(leak))
    assert_close(ours, theirs(jacobian))


def test_graddrop_at_random_keeps_half_of_the_entries() -> None:
    gradients = torch.ones(2, 20, 500).double()
    kept = ready("graddrop", mode="random", renormalise=False).direction(gradients, torch.ones(20, 500).double())
    assert abs(float(kept.mean()) - 1) < 0.03 and set(kept.unique().tolist()) == {0.0, 1.0, 2.0}


def test_graddrop_sends_its_direction_through_the_encoder(toy) -> None:
    """Features: one pass through the encoder; parameters: signs of the gradients themselves. Heads are left plain."""
    step = toy.step()
    direction = ready("graddrop").direction(step.feature_gradients, step.z)
    step.apply_features(direction)
    expected, heads = toy.gradient(), toy.head_gradients()
    applied = ready("graddrop").backward(toy.step())
    assert_close(toy.gradient(), expected)
    assert_close(toy.head_gradients(), heads)
    assert applied.weights.isnan().all() and (applied.head_weights == 1).all()

    jacobian = toy.step().jacobian
    ready("graddrop", space="parameters", renormalise=False).backward(toy.step())
    found = toy.gradient()
    choices = torch.stack([jacobian.clamp(min=0).sum(0), jacobian.clamp(max=0).sum(0)])
    assert torch.isclose(choices, found).any(0).all()
    assert toy.head_gradients()[0].equal(heads[0])


def test_graddrop_sums_so_a_silent_task_changes_nothing() -> None:
    gradients, z = normal(2, 8, 40), normal(8, 40, seed=1)
    silent = torch.cat([gradients, torch.zeros(1, 8, 40).double()])
    assert_close(ready("graddrop", 3).direction(silent, z), ready("graddrop", 2).direction(gradients, z))


def test_graddrop_repeats_with_its_seed() -> None:
    gradients, z = normal(3, 8, 40), normal(8, 40, seed=1)
    first, again, other = (ready("graddrop", 3, seed=s).direction(gradients, z) for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


# -- RotoGrad --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 30.0])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_exponential_is_that_of_torch(scale, size) -> None:
    """Value and derivative, against torch.matrix_exp, from the identity to many full turns."""
    angles = scale * normal(3, size, size)
    outward, found = normal(3, size, size, seed=1), []
    for exp in (exponential, torch.matrix_exp):
        a = angles.clone().requires_grad_()
        rotation = exp(a - a.mT)
        rotation.backward(outward)
        found.append((rotation.detach(), a.grad))
    assert_close(found[0], found[1], rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_exponential_of_what_is_not_finite(value) -> None:
    assert exponential(torch.full((2, 3, 3), value)).isnan().all()


def is_rotation(r: torch.Tensor, atol: float = 1e-9) -> bool:
    eye = torch.eye(r.shape[-1]).to(r).expand_as(r)
    return torch.allclose(r @ r.mT, eye, atol=atol) and torch.allclose(torch.linalg.det(r), torch.ones(len(r)).to(r))


@pytest.mark.parametrize("start", ["identity", "haar"])
def test_rotations_stay_rotations(toy, start) -> None:
    """Orthogonal with determinant 1, at the start and after training at a large step."""
    smto = ready("rotograd", start=start, lr_ratio=50.0)
    assert is_rotation(smto.rotations().detach())
    before = smto.rotations().detach()
    toy.train(smto, toy.optimizer(smto), range(30))
    assert is_rotation(smto.rotations().detach())
    assert not torch.allclose(smto.rotations().detach(), before, atol=0.1)


def test_rotations_stay_rotations_in_single_precision(make_toy) -> None:
    toy = make_toy(dtype=torch.float32)
    smto = build("rotograd", 2, lr_ratio=50.0)
    smto.set_up(toy.setting, 1)
    toy.train(smto, toy.optimizer(smto), range(30))
    assert smto.angles.abs().max() > 1
    assert is_rotation(smto.rotations().detach(), atol=1e-5)


def test_the_start_is_the_identity_or_uniform() -> None:
    """Uniform on SO(m): orthogonal, determinant 1, entries of mean 0 and variance 1/m."""
    assert_close(ready("rotograd").rotations(), torch.eye(5).double().repeat(2, 1, 1))
    assert not torch.allclose(ready("rotograd", start="haar").base[0], ready("rotograd", start="haar").base[1])
    generator = torch.Generator().manual_seed(0)
    sample = torch.stack([haar(4, generator) for _ in range(1500)]).double()
    assert is_rotation(sample, atol=1e-5)
    assert_close(sample.mean(0), torch.zeros(4, 4).double(), rtol=0, atol=0.06)
    assert_close(sample.square().mean(0), torch.full((4, 4), 0.25).double(), rtol=0, atol=0.03)


def test_rotograd_starts_with_the_sum_of_unit_gradients(toy) -> None:
    """At the first step C is the mean norm: the direction on z is that times Σ G_k/|G_k|, and heads see z itself."""
    step = toy.step()
    norms = step.feature_gradients.flatten(1).norm(dim=1)
    step.apply(norms.mean() / norms)
    expected, heads = toy.gradient(), toy.head_gradients()
    smto = ready("rotograd")
    applied = smto.backward(toy.step(smto))
    assert_close(toy.gradient(), expected)
    assert_close(toy.head_gradients(), heads)
    assert_close(applied.weights * norms, norms.mean().expand(2))


def test_rotograd_scales_by_growth_since_the_start() -> None:
    """Norms (1, 1), then (3, 1): α = (¾, ¼), C = ¾·3 + ¼·1 = 2.5. The burn-in step measures the start again."""
    smto = ready("rotograd")
    smto.norms_at_start = torch.ones(2).double()
    assert_close(smto.scaling(tensor([3.0, 1.0]).double()), tensor([2.5 / 3, 2.5]).double())
    assert_close(smto.scaling(tensor([3.0, 0.0]).double()), tensor([1.0, 0.0]).double())


def test_rotograd_takes_the_start_anew_after_the_burn_in(toy) -> None:
    smto, seen = ready("rotograd", burn_in=3), []
    optimizer = toy.optimizer(smto)
    for number in range(6):
        toy.train(smto, optimizer, range(number, number + 1))
        seen.append(smto.norms_at_start.clone())
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[3], seen[5]) and not torch.equal(seen[2], seen[3])


@pytest.mark.parametrize("burn_in", [2, 20])
def test_a_task_without_a_gradient_at_the_start_starts_where_it_first_has_one(toy, burn_in) -> None:
    """Task b has no targets in the first two batches. Its weight there is 0, that of the other task is 1; in the third
    step both have grown by 1, so that C is the mean of the lengths."""
    smto = ready("rotograd", burn_in=burn_in)
    lengths = [(2.0, 0.0), (2.0, 0.0), (2.0, 3.0), (4.0, 3.0)]
    weights = []
    for number, (a, b) in enumerate(lengths):
        step = toy.step(smto)
        norms = step.feature_gradients.flatten(1).norm(dim=1)
        step.feature_gradients.mul_((tensor([a, b]).to(norms) / norms).view(2, *[1] * (step.z.dim())))
        weights.append(smto.backward(step).weights)
        if number < 2:
            assert smto.norms_at_start[1] == 0
    expected = [(1, 0), (1, 0), (2.5 / 2, 2.5 / 3), (11 / 12, 11 / 9)]  # in the end α = (2, 1)/3 and C = 11/3
    assert_close(torch.stack(weights), tensor(expected).to(weights[0]))
    assert_close(smto.norms_at_start, tensor([2.0, 3.0]).to(smto.norms_at_start))


@pytest.mark.parametrize("shape", [(5,), (5, 2, 3)], ids=["vectors", "maps"])
@pytest.mark.parametrize("size", [None, 3])
@pytest.mark.parametrize("reduction", ["mean", "package"])
@pytest.mark.agrees("automatic differentiation of the rotation loss", "rotograd")
def test_rotation_gradient_is_that_of_the_rotation_loss(shape, size, reduction) -> None:
    """Against automatic differentiation of Σ_n |R v_n − ∂L_k/∂(R_k z_n)|², written out."""
    smto = ready("rotograd", start="haar", feature_shape=shape, size=size, reduction=reduction)
    with torch.no_grad():
        smto.angles.copy_(0.7 * normal(*smto.angles.shape))
    z, direction = normal(4, *shape, seed=1), normal(2, 4, *shape, seed=2)
    wanted, gradients = [], []
    for k in range(2):  # the gradient on R_k z is `direction`; the one on z comes from automatic differentiation
        leaf = z.clone().requires_grad_()
        turned = smto.transform_features(leaf, k)
        wanted.append(direction[k])
        gradients += torch.autograd.grad(turned, leaf, direction[k])
    gradients = torch.stack(gradients)
    norms = gradients.flatten(1).norm(dim=1)
    v = (gradients / norms.view(2, *[1] * z.dim())).mean(0) * gradients.mean(0).norm()
    assert_close(smto.target(gradients, norms), v)
    losses = smto.turn(gradients, v)

    rotations, m, expected = smto.rotations(), smto.angles.shape[1], []
    for k in range(2):
        turned = torch.einsum("ij,bj...->bi...", rotations[k], v[:, :m])
        expected.append(
            (turned - wanted[k][:, :m]).square().sum() / (4 if reduction == "mean" or len(shape) > 1 else 1)
        )
    assert_close(losses, torch.stack(expected).detach())
    assert_close(smto.angles.grad, torch.autograd.grad(sum(expected), smto.angles)[0])


def triangle_runs(optimizer: partial, steps: int, size: int, base: torch.Tensor, scale: float) -> list[torch.Tensor]:
    """RotoGrad's rotations [2, m, m] step by step, by its definition alone. What is learnt are the m (m − 1)/2 angles
    of one triangle per task; the loss is written out, differentiated automatically and scaled by `scale`."""
    rows, columns = torch.tril_indices(size, size, -1)
    angles = torch.zeros(2, len(rows), dtype=torch.float64, requires_grad=True)
    learner, seen = optimizer([angles]), []
    for z, targets in batches(steps):
        skew = torch.zeros(2, size, size, dtype=torch.float64).index_put((tensor([[0], [1]]), rows, columns), angles)
        rotations = base @ torch.matrix_exp(skew - skew.mT)
        seen.append(rotations.detach())
        wanted, gradients = [], []
        for k in range(2):  # L_k = |R_k z − target_k|⁴/4, which has a gradient of another length for every sample
            turned = torch.cat([z[:, :size] @ seen[-1][k].T, z[:, size:]], 1)
            gap = turned - targets[k]
            wanted.append(gap * gap.square().sum(1, keepdim=True))
            gradients.append(torch.cat([wanted[k][:, :size] @ seen[-1][k], wanted[k][:, size:]], 1))
        mean = sum(gradients) / 2
        v = sum(g / g.norm() for g in gradients) / 2 * mean.norm()
        loss = sum((v[:, :size] @ rotations[k].T - wanted[k][:, :size]).square().sum() for k in range(2))
        learner.zero_grad()
        (scale * loss).backward()
        learner.step()
    return seen


def batches(steps: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Features [8, 5] and targets [2, 8, 5] of every step."""
    return [(normal(8, 5, seed=2 * n + 1), normal(2, 8, 5, seed=2 * n + 2)) for n in range(steps)]


@pytest.mark.parametrize(
    "optimizer", [partial(torch.optim.Adam, lr=0.05), partial(torch.optim.SGD, lr=1e-4)], ids=["Adam", "SGD"]
)
@pytest.mark.parametrize("size", [None, 3])
@pytest.mark.parametrize("reduction", ["mean", "package"])
@pytest.mark.agrees("its definition, sixty steps", "rotograd")
def test_rotograd_learns_one_triangle_per_task(optimizer, size, reduction) -> None:
    """Sixty steps at one rate, against an independent account of the parametrisation: a whole matrix A in exp(A − Aᵀ)
    would be twice as far on."""
    smto = ready("rotograd", start="haar", size=size, reduction=reduction)
    expected = triangle_runs(optimizer, 60, size or 5, smto.base, 1 / 8 if reduction == "mean" else 1.0)
    learner = optimizer([smto.angles])
    for (z, targets), rotations in zip(batches(60), expected, strict=True):
        assert_close(smto.rotations().detach(), rotations, rtol=0, atol=1e-9)
        gradients = []
        for k in range(2):
            leaf = z.clone().requires_grad_()
            loss = (smto.transform_features(leaf, k) - targets[k]).square().sum(1).square().sum() / 4
            gradients += torch.autograd.grad(loss, leaf)
        gradients = torch.stack(gradients)
        smto.turn(gradients, smto.target(gradients, gradients.flatten(1).norm(dim=1)))
        learner.step()
    assert_close(smto.angles, smto.angles.tril(-1))
    assert (expected[-1] - expected[0]).abs().max() > 0.1


def test_a_head_does_not_move_its_rotation_and_the_rest_passes() -> None:
    smto = ready("rotograd", size=2, start="haar")
    z = normal(3, 5).requires_grad_()
    out = smto.transform_features(z, 1)
    assert_close(out[:, 2:], z[:, 2:])
    assert_close(out[:, :2], z[:, :2] @ smto.base[1].T)
    out.sum().backward()
    assert smto.angles.grad is None


def test_rotations_are_new_after_every_change_of_the_angles(toy) -> None:
    """What a head sees follows the optimizer, state_dict() and evaluation in between, also where somebody looks between
    the backward pass and the optimizer."""
    smto = ready("rotograd", lr_ratio=50.0)
    optimizer = toy.optimizer(smto)
    z = normal(3, 5)
    for number in range(3):
        toy.train(smto, optimizer, range(number, number + 1))
        with torch.inference_mode():
            assert_close(smto.transform_features(z, 1), z @ smto.rotations()[1].T)
        assert_close(smto.transform_features(z, 1), z @ smto.rotations()[1].detach().T)
    step = toy.step(smto)
    smto.backward(step)
    before = smto.transform_features(z, 1)
    optimizer.step()
    with torch.no_grad():
        assert_close(smto.transform_features(z, 1), z @ smto.rotations()[1].detach().T)
    assert_close(smto.transform_features(z, 1), z @ smto.rotations()[1].detach().T)
    assert (smto.transform_features(z, 1) - before).abs().max() > 0.01
    smto.load_state_dict(ready("rotograd", start="haar", seed=9).state_dict())
    assert_close(smto.transform_features(z, 1), z @ smto.base[1].T)


def test_rotograd_learns_to_align_two_tasks() -> None:
    """L_k = c_k·R_k z in the plane with c_1 at a right angle to c_2: the rotations bring R_kᵀ c_k together."""
    smto = ready("rotograd", feature_shape=(2,))
    wanted = tensor([[1.0, 0.0], [0.0, 1.0]]).double()
    optimizer = torch.optim.Adam(smto.parameter_groups(1.0))
    cosines = []
    for _ in range(100):
        gradients = torch.stack([c @ r for c, r in zip(wanted, smto.rotations().detach(), strict=True)])[:, None]
        cosines.append(float(torch.cosine_similarity(gradients[0, 0], gradients[1, 0], dim=0)))
        smto.turn(gradients, smto.target(gradients, gradients.flatten(1).norm(dim=1)))
        optimizer.step()
    assert abs(cosines[0]) < 1e-9 and cosines[-1] > 0.999


def test_the_best_rotation_is_the_procrustes_solution() -> None:
    """With v and ∂L/∂(Rz) held fixed, descent ends where the singular value decomposition of Σ ∂L/∂(Rz) vᵀ does."""
    smto = ready("rotograd", 1, feature_shape=(4,))
    v, wanted = normal(20, 4), normal(20, 4, seed=1)
    optimizer = torch.optim.Adam([smto.angles], lr=0.05)
    for _ in range(400):
        losses = smto.turn(wanted[None] @ smto.rotations().detach(), v)
        optimizer.step()
    u, _, vt = torch.linalg.svd(wanted.T @ v)
    best = u @ torch.diag(tensor([1.0, 1.0, 1.0, torch.linalg.det(u @ vt)]).double()) @ vt
    assert_close(smto.rotations()[0].detach(), best, rtol=0, atol=1e-3)
    assert_close(losses[0], (v @ best.T - wanted).square().sum() / 20, rtol=1e-5, atol=0)


def test_rotograd_reports_its_rotation_loss(toy) -> None:
    smto = ready("rotograd")
    (applied,) = toy.train(smto, toy.optimizer(smto), range(1))
    assert applied.diagnostics["rotation_loss"] > 0
    assert_close(applied.diagnostics["rotation_loss_sum"], 2 * applied.diagnostics["rotation_loss"])


def test_rotations_have_their_own_learning_rate_and_never_decay() -> None:
    (group,) = ready("rotograd", lr_ratio=0.5).parameter_groups(0.01)
    assert group["lr"] == 0.005 and group["weight_decay"] == 0
    with pytest.raises(BadOption, match="size is 6, but the representation has 5"):
        ready("rotograd", size=6)


# -- GradNorm --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 0.12, 1.5])
@pytest.mark.agrees("automatic differentiation of its objective", "gradnorm")
def test_gradnorm_gradient_is_that_of_its_objective(alpha) -> None:
    smto = ready("gradnorm", 3, alpha=alpha)
    smto.begin(tensor([1.0, 2.0, 0.5]))
    smto.w.copy_(tensor([0.5, 1.5, 1.0]))
    norms, losses = tensor([2.0, 0.3, 1.0]).double(), tensor([0.9, 0.5, 0.45]).double()
    w = smto.w.clone().requires_grad_()
    rates = losses / smto.initial
    target = ((w * norms).mean() * (rates / rates.mean()) ** alpha).detach()
    (w * norms - target).abs().sum().backward()
    assert_close(smto.weight_gradient(norms, losses), w.grad)


def test_gradnorm_comes_to_rest_at_equal_norms() -> None:
    """α = 0 and constant norms: w_k n_k end up equal, within the size of a step, and Σ w = K throughout."""
    norms = tensor([2.0, 0.5, 1.0]).double()
    smto = ready("gradnorm", 3, alpha=0.0, w_lr=0.002)
    for _ in range(2000):
        smto.optimizer.step(smto.w, smto.weight_gradient(norms, torch.ones(3).double()))
        smto.w.clamp_(min=1e-6).mul_(3 / smto.w.sum())
        assert abs(float(smto.w.sum()) - 3) < 1e-9
    assert_close(smto.w * norms, (3 / (1 / norms).sum()).expand(3), rtol=0.02, atol=0)


def test_gradnorm_looks_at_the_last_shared_layer(toy) -> None:
    """One step: w moves by its learning rate against the gradient; the model's step still has w = 1."""
    smto = ready("gradnorm", alpha=0.0)
    step = toy.step(smto)
    norms = step.jacobian[:, -45:-5].norm(dim=1)  # the 8 × 5 weights of the encoder's last layer
    applied = smto.backward(toy.step(smto))
    assert_close(applied.weights, torch.ones(2).double())
    lower = tensor([-1.0, 1.0]) if norms[0] > norms[1] else tensor([1.0, -1.0])
    assert_close(smto.w, (1 + 0.025 * lower).double())
    assert_close(smto.initial, step.losses)


def test_gradnorm_needs_a_shared_layer_with_a_weight(toy) -> None:
    """An encoder of scales and biases alone, or with its matrices frozen: refused before training and in a step."""
    for parameter in toy.model.encoder.parameters():
        parameter.requires_grad_(parameter.dim() == 1)
    with pytest.raises(BadOption, match=r"gradnorm .*trainable parameters have the shapes \[\(8,\), \(5,\)\]"):
        ready("gradnorm").check_model(toy.model)
    with pytest.raises(BadOption, match=r"gradnorm .*layer that is not frozen"):
        ready("gradnorm").backward(toy.step())


def test_gradnorm_may_wait_for_the_first_epoch(toy) -> None:
    smto = ready("gradnorm", start="first_epoch")
    smto.begin_epoch(0, None, 0.01)
    applied = toy.train(smto, toy.optimizer(smto), range(3))
    assert_close(applied[-1].weights, torch.ones(2).double())
    smto.begin_epoch(1, tensor([1.0, 2.0]), 0.01)
    smto.begin_epoch(2, tensor([0.5, 0.5]), 0.01)
    assert_close(smto.initial, tensor([1.0, 2.0]).double())
    applied = toy.train(smto, toy.optimizer(smto), range(2))
    assert not torch.equal(applied[-1].weights, torch.ones(2).double())


# -- DB-MTL ----------------------------------------------------------------------------------------------------------


def test_db_mtl_without_memory_sums_unit_gradients(toy) -> None:
    """β = 0: d = max |h| Σ g_k/|g_k| with h_k = g_k/L_k, the same for any units of the losses; heads get ∇ log L."""
    step = toy.step()
    jacobian, losses, heads = step.jacobian, step.losses, toy.head_gradients()
    norms = jacobian.norm(dim=1)
    expected = (norms / losses).max() * (jacobian / norms[:, None]).sum(0)
    for unit in (1.0, 1000.0):
        toy.losses[1] = lambda p, y, c=unit: c * F.mse_loss(p, y)
        applied = ready("db_mtl", beta=0.0).backward(toy.step())
        assert_close(toy.gradient(), expected, rtol=1e-6, atol=1e-9)
        assert_close(
            toy.head_gradients(), [g / loss for g, loss in zip(heads, losses, strict=True)], rtol=1e-6, atol=1e-9
        )
        assert_close(applied.weights @ toy.step().jacobian, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.agrees("values by hand", "db_mtl")
def test_db_mtl_average_by_hand() -> None:
    """h = 1, then 3, with β = ½: q = ½, then ¼ + 3/2. With σ = 1 the second β is ¼: q = ⅛ + 9/4."""
    for sigma, second in ((0.0, 1.75), (1.0, 2.375)):
        smto = ready("db_mtl", beta=0.5, sigma=sigma)
        assert_close(smto.update_average(torch.ones(2, 3)), torch.full((2, 3), 0.5))
        assert_close(smto.update_average(torch.full((2, 3), 3.0)), torch.full((2, 3), second))


def test_db_mtl_sums_so_a_silent_task_changes_nothing(toy) -> None:
    """The other's gradient has the common length already: the update is that of log L_a alone."""
    step = toy.step()
    step.jacobian[1] = 0
    ready("db_mtl", beta=0.0).backward(step)
    assert_close(toy.gradient(), step.jacobian[0] / (step.losses[0] + 1e-8))


def test_db_mtl_contributions_have_one_length(toy) -> None:
    smto = ready("db_mtl")
    applied = toy.train(smto, toy.optimizer(smto), range(4))
    norms = smto.average.norm(dim=1)
    assert_close(toy.gradient(), norms.max() * (smto.average / norms[:, None]).sum(0), rtol=1e-5, atol=1e-9)
    assert applied[-1].weights.isnan().all()


# -- BayesAgg-MTL ----------------------------------------------------------------------------------------------------


def test_moments_of_a_squared_error_are_those_of_random_weights() -> None:
    """Against 400,000 draws of the weights, for two outputs: mean and variance of (2/D) Σ_d w_d (w_dᵀh − y_d)."""
    m, y = normal(3, 2), normal(4, 2, seed=1)
    h = normal(4, 3, seed=2)
    root = normal(3, 3, seed=3) / 2
    mean, variance = square_moments(h, m, root @ root.T, y)
    drawn = m + torch.einsum("ij,sjd->sid", root, normal(400_000, 3, 2, seed=4))
    gradients = torch.einsum("sid,sbd->sbi", drawn, torch.einsum("bi,sid->sbd", h, drawn) - y)
    assert_close(mean, gradients.mean(0), rtol=0.05, atol=0.02)
    assert_close(variance, gradients.var(0), rtol=0.05, atol=0.02)


def test_moments_without_doubt_are_ordinary_gradients() -> None:
    """A posterior of no width: the mean is what automatic differentiation gives, the variance 0."""
    h, w = normal(4, 3).requires_grad_(), normal(2, 3, seed=1)
    y, classes = normal(4, 2, seed=2), tensor([0, 1, 1, 0])
    nothing = torch.zeros(4, 3).double()
    square = torch.autograd.grad((h @ w.T - y).square().mean(1).sum(), h)[0]
    assert_close(square_moments(h.detach(), w.T, torch.zeros(3, 3).double(), y), (square, nothing))
    entropy = torch.autograd.grad(F.cross_entropy(h @ w.T, classes, reduction="sum"), h)[0]
    found = softmax_moments(h.detach(), w.expand(70, 2, 3), classes)
    assert_close(found, (entropy, nothing))


@pytest.mark.agrees("ridge regression", "bayesagg_mtl")
def test_evidence_of_a_regression_is_ridge_regression() -> None:
    """Two batches absorbed one after the other are one data set: Λ⁻¹ b solves min |hW − y|² + |W|²/γ."""
    h, y = normal(12, 3), normal(12, 2, seed=1)
    parts = [square_evidence(h[rows], y[rows]) for rows in (slice(0, 5), slice(5, 12))]
    precision, linear = (a + b for a, b in zip(*parts, strict=True))
    found = torch.linalg.solve(precision + torch.eye(3).double() / 0.1, linear)
    augmented = torch.cat([h, torch.eye(3).double() / math.sqrt(0.1)]), torch.cat([y, torch.zeros(3, 2).double()])
    assert_close(found, torch.linalg.lstsq(*augmented).solution)


@pytest.mark.agrees("a Newton step on the posterior", "bayesagg_mtl")
def test_evidence_of_a_classification_is_a_newton_step() -> None:
    """H is the Hessian of the summed cross-entropy, and H W − b its gradient."""
    h, w, classes = normal(6, 3), normal(4, 3, seed=1), tensor([0, 1, 2, 3, 1, 1])

    def entropy(flat: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(h @ flat.view(4, 3).T, classes, reduction="sum")

    hessian, linear = softmax_evidence(h, w, classes)
    assert_close(hessian, torch.autograd.functional.hessian(entropy, w.flatten()))
    gradient = torch.autograd.functional.jacobian(entropy, w.flatten())
    assert_close(hessian @ w.flatten() - linear[:, 0], gradient)


def test_bayesagg_averages_by_precision(toy) -> None:
    """s = 0: the plain mean of the mean gradients. A larger s leans towards the task that is surer, entry by entry."""
    smto = ready("bayesagg_mtl", warm_up=0, power=0.0)
    step = toy.step(smto)
    applied = smto.backward(step)
    found = toy.gradient()
    heads = toy.head_gradients()

    means = []
    for k, (head, target) in enumerate(zip((toy.model.heads["a"][0], toy.model.heads["b"]), step.targets, strict=True)):
        h, w = with_bias(step.z, head)
        evidence = smto.collected[k]
        again = ready("bayesagg_mtl", warm_up=0)  # the same generator: the same samples
        means.append(again.moments(k, h, w, target, evidence)[0][:, :5])
    step = toy.step(smto)
    step.apply_features(torch.stack(means).mean(0) / 8)
    assert_close(found, toy.gradient())
    assert_close(heads, toy.head_gradients())
    assert applied.weights.isnan().all() and (applied.head_weights == 1).all()

    ready("bayesagg_mtl", warm_up=0, power=1.0).backward(toy.step(smto))
    assert torch.cosine_similarity(found, toy.gradient(), dim=0) < 0.9999


def test_bayesagg_warms_up_with_the_mean_and_remembers_one_epoch(toy) -> None:
    smto = ready("bayesagg_mtl", warm_up=2)
    optimizer = toy.optimizer(smto)
    collected = []
    for epoch in range(4):
        smto.begin_epoch(epoch, None, 0.01)
        assert smto.evidence.keys() == (set() if epoch < 2 else {0, 1})
        applied = toy.train(smto, optimizer, range(4))
        collected.append(dict(smto.collected))
        assert_close(applied[-1].weights, torch.full((2,), 0.5 if epoch < 2 else math.nan).double(), equal_nan=True)
    assert collected[0] == {}
    assert_close(smto.evidence[1], collected[2][1])
    h = torch.cat([toy.model.encoder(toy.x).detach(), torch.ones(32, 1).double()], 1)
    assert_close(collected[3][1][0], h.T @ h, rtol=0.2, atol=2.0)  # features as they were when each batch was trained


def test_bayesagg_refuses_what_it_has_no_posterior_for(toy) -> None:
    smto = build("bayesagg_mtl", 2)
    with pytest.raises(BadOption, match="task 1 has an absolute error"):
        smto.set_up(ProblemInfo(("softmax", "laplace"), (5,), 0.01, 0.0), 1)
    with pytest.raises(BadOption, match=r"shape \(5, 2, 2\)"):
        smto.set_up(ProblemInfo(("softmax", "gaussian"), (5, 2, 2), 0.01, 0.0), 1)
    toy.model.heads["b"] = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    with pytest.raises(BadOption, match="head 'b' holds Linear, Linear"):
        ready("bayesagg_mtl").backward(toy.step())
