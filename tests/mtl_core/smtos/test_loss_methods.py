"""Methods that look at the losses alone: Unit. Scal., fixed weights, UW, SI, RLW, FAMO, DWA, STCH, GO4Align."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, tensor
from torch.testing import assert_close

from mtl_core.options import BadOption
from mtl_core.smtos.base import ProblemInfo
from mtl_core.smtos.geometry import NonFinite
from mtl_core.smtos.go4align import group_means
from mtl_core.smtos.registry import build
from mtl_core.step import MultiTaskModel, Step

LOSSES = tensor([0.5, 4.0], dtype=torch.float64)


def ready(key: str, num_tasks: int = 2, seed: int = 1, likelihoods: tuple = ("softmax", "gaussian"), **options):
    """An SMTO that has been set up."""
    smto = build(key, num_tasks, **options)
    smto.set_up(ProblemInfo(likelihoods, (5,), lr=0.01, weight_decay=0.0), seed)
    return smto


# -- fixed in advance ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "factor"), [("mean", 0.5), ("sum", 1.0)])
@pytest.mark.agrees("automatic differentiation of the mean", "unit_scal")
def test_unit_scal_is_the_mean_or_the_sum(toy, scale, factor) -> None:
    step = toy.step()
    applied = ready("unit_scal", scale=scale).backward(step)
    step = toy.step()
    expected = factor * step.jacobian.sum(0)
    ready("unit_scal", scale=scale).backward(step)
    assert_close(toy.gradient(), expected)
    assert_close(applied.head_weights, torch.full_like(LOSSES, factor))


@pytest.mark.agrees("automatic differentiation of the weighted sum", "fixed")
def test_fixed_weights_weigh_encoder_and_heads(toy) -> None:
    step = toy.step()
    step.feature_gradients  # noqa: B018
    plain = toy.head_gradients()
    expected = tensor([0.25, 3.0], dtype=torch.float64) @ step.jacobian
    ready("fixed", weights=[0.25, 3.0]).backward(toy.step())
    assert_close(toy.gradient(), expected)
    assert_close(toy.head_gradients(), [0.25 * plain[0], 3 * plain[1]])


def test_fixed_weights_of_one_over_k_are_unit_scal(toy) -> None:
    ready("unit_scal").backward(toy.step())
    expected = toy.gradient()
    ready("fixed", weights=[0.5, 0.5]).backward(toy.step())
    assert_close(toy.gradient(), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        (None, "missing"),
        ([1.0], "1 weights for 2 tasks"),
        ([1.0, -0.1], "≥ 0"),
        ([0.0, 0.0], "not all 0"),
        ([1.0, math.inf], "finite"),
        ([1.0, "a"], "option weights"),
    ],
)
def test_fixed_refuses_what_are_no_weights(weights, says) -> None:
    with pytest.raises(BadOption, match=says):
        build("fixed", 2, weights=weights)


# -- UW --------------------------------------------------------------------------------------------------------------


def test_uw_weights_by_hand() -> None:
    """η = 0: 1 for cross-entropy, ½ for squared error, 1 for absolute error; η = log 2 divides by 4, 4 and 2."""
    smto = ready("uw", 3, likelihoods=("softmax", "gaussian", "laplace"))
    losses = torch.ones(3)
    assert_close(smto.weights(losses), tensor([1.0, 0.5, 1.0]))
    with torch.no_grad():
        smto.eta.fill_(math.log(2))
    assert_close(smto.weights(losses), tensor([0.25, 0.125, 0.5]))


@pytest.mark.agrees("automatic differentiation of its objective", "uw")
def test_uw_is_the_gradient_of_its_joint_loss(toy) -> None:
    """Encoder, heads and η get what automatic differentiation of Σ η + e^(−pη) L/f gives."""
    smto = ready("uw").double()
    with torch.no_grad():
        smto.eta.copy_(tensor([0.3, -0.2]))
    smto.backward(toy.step(smto))
    found = [toy.gradient(), *toy.head_gradients(), smto.eta.grad.clone()]

    parameters = [*toy.model.parameters(), smto.eta]
    for p in parameters:
        p.grad = None
    losses = torch.stack(
        [f(p, y) for f, p, y in zip(toy.losses, toy.model(toy.batch(0)[0]), toy.batch(0)[1], strict=True)]
    )
    total = (smto.eta + torch.exp(-2 * smto.eta) * losses / tensor([1.0, 2.0])).sum()
    total.backward()
    assert_close(found, [toy.gradient(), *toy.head_gradients(), smto.eta.grad])


def test_uw_at_rest_is_si(toy) -> None:
    """Where ∂/∂η = 0 the weights are 1 / (p L)."""
    smto = ready("uw").double()
    losses = toy.step().losses
    with torch.no_grad():
        smto.eta.copy_((2 * losses / tensor([1.0, 2.0])).log() / 2)
    applied = smto.backward(toy.step(smto))
    assert_close(smto.eta.grad, torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-12)
    assert_close(applied.weights, 1 / (2 * losses))


def test_uw_trains_eta_with_the_main_optimizer(toy) -> None:
    """One Adam step of lr 0.01: η moves by 0.01 against its gradient."""
    smto = ready("uw").double()
    optimizer = toy.optimizer(smto)
    toy.train(smto, optimizer, range(1))
    assert_close(smto.eta.detach(), -0.01 * smto.eta.grad.sign(), rtol=1e-5, atol=0)
    assert optimizer.param_groups[1]["weight_decay"] == optimizer.param_groups[0]["weight_decay"]


def test_uw_takes_likelihoods_from_the_problem_or_from_its_option() -> None:
    chosen = build("uw", 2, likelihoods=["laplace", "gaussian"])
    chosen.set_up(ProblemInfo(("softmax", "softmax"), (5,), 0.01, 0.0), 1)
    assert_close(chosen.power, tensor([1.0, 2.0]))
    with pytest.raises(RuntimeError, match="set_up"):
        build("uw", 2).weights(LOSSES)
    with pytest.raises(BadOption, match="1 likelihoods for 2 tasks"):
        build("uw", 2, likelihoods=["softmax"])
    with pytest.raises(BadOption, match="likelihoods"):
        build("uw", 2, likelihoods=["poisson", "softmax"])


# -- SI --------------------------------------------------------------------------------------------------------------


@pytest.mark.agrees("values by hand", "si")
def test_si_by_hand() -> None:
    """Losses ½ and 4: weights 2/2 and ¼/2; the sum of logarithms has no ½."""
    assert_close(ready("si").weights(LOSSES), tensor([1.0, 0.125], dtype=torch.float64))
    assert_close(ready("si", scale="sum").weights(LOSSES), tensor([2.0, 0.25], dtype=torch.float64))


@pytest.mark.parametrize("key", ["si", "famo", "stch"])
def test_the_unit_of_a_loss_does_not_matter(toy, key) -> None:
    """Methods on log losses keep their direction when a loss is measured in other units. (FAMO: its first step.)"""
    ready(key).backward(toy.step())
    before = toy.gradient()
    toy.losses[0] = lambda p, y: 1000 * nn.functional.nll_loss(p, y)
    ready(key).backward(toy.step())
    assert_close(torch.cosine_similarity(before, toy.gradient(), dim=0), torch.ones((), dtype=torch.float64))


@pytest.mark.parametrize("key", ["si", "uw", "imtl_l", "famo", "stch", "go4align", "gradnorm", "db_mtl"])
def test_losses_must_not_be_negative(toy, key) -> None:
    toy.losses[1] = lambda p, y: -p.square().mean()
    with pytest.raises(ValueError, match=rf"{key}: the losses are .*needs every loss to be positive"):
        ready(key).backward(toy.step())


@pytest.mark.parametrize("key", ["si", "uw", "imtl_l", "famo", "stch", "go4align", "gradnorm", "db_mtl"])
def test_a_loss_that_is_not_finite_ends_the_run(toy, key) -> None:
    toy.losses[1] = lambda p, y: p.mean() * math.nan
    with pytest.raises(NonFinite, match=key):
        ready(key).backward(toy.step())


@pytest.mark.parametrize("key", ["si", "uw", "imtl_l", "famo", "stch", "go4align", "gradnorm"])
def test_a_loss_of_zero_is_floored_and_flagged(toy, key) -> None:
    toy.losses[1] = lambda p, y: 0 * p.mean()
    applied = ready(key).backward(toy.step())
    assert applied.flags == ("floored_loss",)
    assert applied.weights.isfinite().all() and toy.gradient().isfinite().all()


@pytest.mark.parametrize(
    ("key", "options"), [("dwa", {}), ("stch", {"warm_up": 0}), ("gradnorm", {"start": "first_epoch"})], ids=str
)
def test_a_mean_loss_of_zero_is_floored_and_flagged_once(toy, key, options) -> None:
    """It is met between two epochs; the record of the first step after carries the flag."""
    smto = ready(key, **options)
    flags = []
    for epoch, means in enumerate([None, tensor([1.0, 0.0]), tensor([0.5, 0.5])]):
        smto.begin_epoch(epoch, means, 0.01)
        flags += [smto.backward(toy.step(smto, number)).flags for number in (2 * epoch, 2 * epoch + 1)]
    assert flags == [(), (), ("floored_loss",), (), (), ()]
    assert toy.gradient().isfinite().all()


# -- RLW -------------------------------------------------------------------------------------------------------------


def draws(key: str, count: int, num_tasks: int = 3, **options) -> torch.Tensor:
    smto = ready(key, num_tasks, **options)
    return torch.stack([smto.weights(torch.ones(num_tasks, dtype=torch.float64)) for _ in range(count)])


@pytest.mark.parametrize("key", ["rlw_normal", "rlw_dirichlet"])
def test_rlw_sums_to_one_or_to_k(key) -> None:
    assert_close(draws(key, 50).sum(1), torch.ones(50, dtype=torch.float64))
    assert_close(draws(key, 50, scale="sum").sum(1), torch.full((50,), 3.0, dtype=torch.float64))
    assert (draws(key, 50) > 0).all()


@pytest.mark.parametrize("key", ["rlw_normal", "rlw_dirichlet"])
def test_rlw_is_the_uniform_loss_on_average(key) -> None:
    """E[w] = 1/K; four thousand draws leave a standard error of about 0.01."""
    assert_close(draws(key, 4000).mean(0), torch.full((3,), 1 / 3, dtype=torch.float64), rtol=0, atol=0.02)


@pytest.mark.agrees("the distribution that it draws from", "rlw_normal")
def test_rlw_normal_draws_logits_from_a_standard_normal() -> None:
    """log w_1 − log w_2 is the difference of two of them: mean 0, variance 2."""
    difference = draws("rlw_normal", 4000).log().diff(dim=1)
    assert_close(difference.var(0), torch.full((2,), 2.0, dtype=torch.float64), rtol=0.1, atol=0)


@pytest.mark.agrees("the distribution that it draws from", "rlw_dirichlet")
def test_rlw_dirichlet_is_uniform_on_the_simplex() -> None:
    """For K = 3 one coordinate has variance (K−1)/(K²(K+1)) = 1/18 and is below t with probability 1 − (1−t)²."""
    v = draws("rlw_dirichlet", 4000)
    assert_close(v.var(0), torch.full((3,), 1 / 18, dtype=torch.float64), rtol=0.1, atol=0)
    for t in (0.1, 0.5, 0.8):
        assert_close((v < t).double().mean(0), torch.full((3,), 1 - (1 - t) ** 2).double(), rtol=0, atol=0.04)


@pytest.mark.parametrize("key", ["rlw_normal", "rlw_dirichlet"])
def test_rlw_repeats_with_its_seed(key) -> None:
    assert torch.equal(draws(key, 5), draws(key, 5))
    other = ready(key, 3, seed=2)
    assert not torch.equal(draws(key, 1)[0], other.weights(torch.ones(3, dtype=torch.float64)))


# -- FAMO ------------------------------------------------------------------------------------------------------------


def test_famo_weights_by_hand() -> None:
    """At the start z = ½ each, so w ∝ 1/L: losses ½ and 4 give 8/9 and 1/9."""
    assert_close(ready("famo").weights(LOSSES), tensor([8 / 9, 1 / 9], dtype=torch.float64), rtol=0, atol=1e-7)
    lowered = ready("famo", min_losses=[0.0, 3.5]).weights(LOSSES)
    assert_close(lowered, tensor([0.5, 0.5], dtype=torch.float64), rtol=0, atol=1e-7)


def test_famo_at_the_least_possible_loss(toy) -> None:
    """A loss of 0 counts as 1e-8, once: w_2 = 1e-8/(L_2 + 1e-8) for L_1 = 0. Losses below 0 are fine where the least
    one is: −½ and −2½ are ½ above −1 and −3."""
    toy.losses[0] = lambda p, y: 0 * p.mean()
    applied = ready("famo").backward(toy.step())
    assert_close(applied.weights[1], 1e-8 / toy.step().losses[1], rtol=1e-3, atol=0)
    toy.losses[:] = [lambda p, y: 0 * p.mean() - 0.5, lambda p, y: 0 * p.mean() - 2.5]
    applied = ready("famo", min_losses=[-1.0, -3.0]).backward(toy.step())
    assert_close(applied.weights, tensor([0.5, 0.5], dtype=torch.float64))
    assert applied.flags == ()
    with pytest.raises(ValueError, match="needs every loss to be positive"):
        ready("famo", min_losses=[0.0, 1.0]).backward(toy.step())


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=6), st.integers(0, 100))
def test_famo_weights_sum_to_one(losses, seed) -> None:
    smto = ready("famo", len(losses), likelihoods=("gaussian",) * len(losses))
    smto.logits.copy_(torch.randn(len(losses), generator=torch.Generator().manual_seed(seed)))
    weights = smto.weights(tensor(losses, dtype=torch.float64))
    assert_close(weights.sum(), tensor(1.0, dtype=torch.float64))
    assert (weights > 0).all()


@pytest.mark.agrees("automatic differentiation of its objective", "famo")
def test_famo_logit_gradient_is_that_of_its_objective() -> None:
    """∂/∂ξ of softmax(ξ)ᵀδ, δ the fall of the log losses; it sums to 0."""
    smto = ready("famo").double()
    smto.logits.copy_(tensor([0.4, -1.0]))
    before, after = LOSSES, tensor([0.3, 3.9], dtype=torch.float64)
    xi = smto.logits.clone().requires_grad_()
    (xi.softmax(0) @ ((before + 1e-8).log() - (after + 1e-8).log())).backward()
    found = smto.logit_gradient(before, after)
    assert_close(found, xi.grad)
    assert_close(found.sum(), torch.zeros((), dtype=torch.float64), rtol=0, atol=1e-15)


def test_famo_frozen_is_parallel_to_si(toy) -> None:
    smto = ready("famo", w_lr=0.0)
    optimizer = toy.optimizer(smto, lr=0.0)
    applied = toy.train(smto, optimizer, range(3))
    inverse = 1 / toy.step(number=2).losses
    assert_close(applied[-1].weights, inverse / inverse.sum(), rtol=1e-6, atol=0)


def test_famo_takes_weight_from_the_task_that_improved_more(toy) -> None:
    smto = ready("famo")
    step = toy.step(smto)
    smto.backward(step)
    with torch.no_grad():
        toy.model.heads["b"].weight.mul_(0)  # makes the squared error change
        toy.model.heads["b"].bias.copy_(step.targets[1].mean(0))
    improved = step.losses[1] > step.reevaluate()[1]
    smto.after_step(step)
    assert improved and smto.logits[1] < 0 < smto.logits[0]


def line(theta: float = 1.0) -> tuple[MultiTaskModel, list, list]:
    """L_1 = θ²/2 and L_2 = (2θ − 1)²/2 of one shared weight θ."""
    heads = {"a": nn.Identity(), "b": nn.Identity()}
    model = MultiTaskModel(nn.Linear(1, 1, bias=False, dtype=torch.float64), heads)
    nn.init.constant_(model.encoder.weight, theta)
    return (
        model,
        [lambda p, y: p.square().sum() / 2, lambda p, y: (2 * p - y).square().sum() / 2],
        [tensor(0), tensor(1)],
    )


def test_famo_leaves_equal_weights_when_losses_are_equal_once() -> None:
    """Proposition 6 needs equal losses before and after every step. Here they are equal at θ = 1 only: a step of 0.1
    along the mean gradient gives 0.36125 and 0.245, and the logits move apart at once."""
    model, losses, targets = line()
    smto = ready("famo", gamma=0.0).double()
    step = Step(model, losses, torch.ones(1, 1, dtype=torch.float64), targets, replay=True)
    applied = smto.backward(step)
    assert_close(step.losses, tensor([0.5, 0.5], dtype=torch.float64))
    assert_close(applied.weights, tensor([0.5, 0.5], dtype=torch.float64))
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    after = step.reevaluate()
    assert_close(after, tensor([0.36125, 0.245], dtype=torch.float64))
    expected = math.log(0.5 / 0.36125) - math.log(0.5 / 0.245)
    assert_close(smto.logit_gradient(step.losses, after), tensor([expected, -expected]).double() / 4, atol=1e-7, rtol=0)
    smto.after_step(step)
    assert smto.weights(after)[0] > smto.weights(after)[1] * after[1] / after[0]


@pytest.mark.parametrize("num_tasks", [2, 3, 5])
def test_famo_keeps_equal_weights_while_losses_stay_equal(num_tasks) -> None:
    """Proposition 6: tasks that are copies of each other have equal losses at all times."""
    torch.manual_seed(0)
    head = nn.Linear(3, 1)
    heads = {str(k): nn.Linear(3, 1) for k in range(num_tasks)}
    for twin in heads.values():
        twin.load_state_dict(head.state_dict())
    model = MultiTaskModel(nn.Linear(4, 3), heads)
    smto = ready("famo", num_tasks, likelihoods=("gaussian",) * num_tasks)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x, y = torch.randn(16, 4), torch.randn(16, 1)
    for _ in range(30):
        step = Step(model, [nn.functional.mse_loss] * num_tasks, x, [y] * num_tasks, replay=True)
        applied = smto.backward(step)
        optimizer.step()
        smto.after_step(step)
    assert_close(applied.weights, torch.full((num_tasks,), 1 / num_tasks))
    assert smto.logits.unique().numel() == 1


def test_famo_clips_the_shared_gradient_on_request(toy) -> None:
    ready("famo").backward(toy.step())
    free, heads = toy.gradient(), toy.head_gradients()
    limit = 0.5 * float(free.norm())
    applied = ready("famo", max_norm=limit).backward(toy.step())
    assert_close(toy.gradient(), free / 2, rtol=1e-4, atol=0)
    assert_close(toy.head_gradients(), heads)
    assert_close(applied.weights, applied.head_weights / 2, rtol=1e-4, atol=0)
    ready("famo", max_norm=3 * limit).backward(toy.step())
    assert_close(toy.gradient(), free)


def test_famo_reports_what_moves_its_logits(toy) -> None:
    """z of this step; of the step before each δ_k, its square, and the square of its distance from the mean of δ."""
    smto = ready("famo")
    optimizer = toy.optimizer(smto)
    first = toy.train(smto, optimizer, range(1))[0].diagnostics
    assert first == {"share_0": 0.5, "share_1": 0.5}
    share, delta = smto.logits.softmax(0), smto.improvement
    found = toy.train(smto, optimizer, range(1, 2))[0].diagnostics
    lead = (delta[0] - delta[1]) / 2
    for k in range(2):
        assert_close(found[f"share_{k}"], share[k])
        assert_close(found[f"improvement_{k}"], delta[k])
        assert_close(found[f"improvement_squared_{k}"], delta[k] ** 2)
        assert_close(found[f"lead_squared_{k}"], lead**2)


def test_famo_fresh_masks_differ_only_under_dropout(make_toy) -> None:
    """Under dropout the fresh masks move the logits although no parameter has moved; the replayed ones do not."""
    logits = {}
    for dropout, masks in itertools.product((0.0, 0.5), ("replay", "fresh")):
        toy, smto = make_toy(dropout), ready("famo", masks=masks)
        toy.train(smto, toy.optimizer(smto, lr=0.0), range(3))
        logits[dropout, masks] = smto.logits
    still = torch.zeros(2)
    assert all(torch.equal(logits[case], still) for case in [(0.0, "replay"), (0.0, "fresh"), (0.5, "replay")])
    assert not torch.equal(logits[0.5, "fresh"], still)


# -- DWA -------------------------------------------------------------------------------------------------------------


@pytest.mark.agrees("values by hand", "dwa")
def test_dwa_by_hand() -> None:
    """Two epochs of equal weights, then r = (½, 1) and T = 2: w = 2 softmax(¼, ½)."""
    smto = ready("dwa").double()
    equal = torch.ones(2, dtype=torch.float64)
    for epoch, means in enumerate([None, tensor([1.0, 2.0]), tensor([0.5, 2.0])]):
        assert_close(smto.weights(LOSSES), equal)
        smto.begin_epoch(epoch, means, 0.01)
    share = 1 / (1 + math.exp(0.25))
    assert_close(smto.weights(LOSSES), tensor([2 * share, 2 - 2 * share], dtype=torch.float64))
    smto.begin_epoch(3, tensor([0.25, 1.0]), 0.01)  # both halved
    assert_close(smto.weights(LOSSES), equal)


def test_dwa_with_a_high_temperature_is_the_sum() -> None:
    smto = ready("dwa", temperature=1e9)
    for epoch, means in enumerate([None, tensor([1.0, 2.0]), tensor([0.1, 2.0])]):
        smto.begin_epoch(epoch, means, 0.01)
    assert_close(smto.weights(LOSSES.float()), torch.ones(2))


# -- STCH ------------------------------------------------------------------------------------------------------------


def warm_stch(mu: float, ref: torch.Tensor):
    smto = ready("stch", len(ref), likelihoods=("gaussian",) * len(ref), mu=mu).double()
    for epoch in range(5):
        smto.begin_epoch(epoch, None if epoch == 0 else 99 * ref, 0.01)
        assert_close(smto.weights(ref), 1 / ref)  # the warm-up: summed logarithms
    smto.begin_epoch(5, ref, 0.01)
    smto.begin_epoch(6, 99 * ref, 0.01)  # ref stays
    return smto


@pytest.mark.parametrize("mu", [0.3, 1.0, 4.0])
@pytest.mark.agrees("automatic differentiation of its objective", "stch")
def test_stch_weights_are_the_gradient_of_its_objective(mu) -> None:
    ref = tensor([1.0, 0.2, 3.0], dtype=torch.float64)
    losses = tensor([0.7, 0.15, 0.4], dtype=torch.float64, requires_grad=True)
    (3 * mu * torch.logsumexp((losses / ref).log() / mu, 0)).backward()
    assert_close(warm_stch(mu, ref).weights(losses.detach()), losses.grad)


def test_stch_at_its_limits() -> None:
    """μ = 1: K / (ref_k Σ L/ref); μ → ∞: 1/L, which is SI; μ → 0: only the task that is worst relative to ref."""
    ref = tensor([1.0, 0.2, 3.0], dtype=torch.float64)
    losses = tensor([0.7, 0.15, 0.4], dtype=torch.float64)  # 0.7, 0.75 and 0.13 of ref
    assert_close(warm_stch(1.0, ref).weights(losses), 3 / (ref * (losses / ref).sum()))
    assert_close(warm_stch(1e9, ref).weights(losses), 1 / losses)
    assert_close(warm_stch(1e-3, ref).weights(losses), tensor([0.0, 3 / 0.15, 0.0], dtype=torch.float64))


# -- GO4Align --------------------------------------------------------------------------------------------------------


@pytest.mark.agrees("values by hand", "go4align")
def test_go4align_by_hand() -> None:
    """η = 0: ω = mean loss / L = 2.25/½ and 2.25/4, a group each."""
    assert_close(ready("go4align", eta=0.0).weights(LOSSES), tensor([4.5, 0.5625], dtype=torch.float64))


def test_go4align_moves_weight_away_from_large_losses(toy) -> None:
    """p ∝ e^(−η Σ L) over the steps so far."""
    smto = ready("go4align", eta=0.5).double()
    total = torch.zeros(2, dtype=torch.float64)
    for number in range(3):
        step = toy.step(smto, number)
        total += step.losses
        smto.backward(step)
    assert_close(smto.log_p.exp(), (-0.5 * total).softmax(0))


@given(st.lists(st.floats(0.01, 50), min_size=3, max_size=7), st.integers(1, 7))
def test_go4align_groups_keep_the_sum(losses, groups) -> None:
    """A group shares its mean, so Σ w = Σ ω; with K groups w = ω, with one all are equal."""
    losses = tensor(losses, dtype=torch.float64)
    groups = min(groups, len(losses))
    smto = build("go4align", len(losses), groups=groups)
    weights, omega = smto.weights(losses), losses.sum() / losses / len(losses)
    assert_close(weights.sum(), omega.sum())
    assert len(weights.unique()) <= groups
    if groups == len(losses):
        assert_close(weights, omega)
    if groups == 1:
        assert_close(weights, omega.mean().expand_as(omega))


@settings(max_examples=40)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=5), st.integers(1, 4))
def test_groups_are_the_best_of_all_splits(values, groups) -> None:
    """Against every assignment of values to groups."""
    values, groups = np.array(values), min(groups, len(values))

    def spread(means) -> float:
        return float(((values - means) ** 2).sum())

    best = math.inf
    for assignment in itertools.product(range(groups), repeat=len(values)):
        labels = np.array(assignment)
        best = min(best, spread(np.array([values[labels == label].mean() for label in labels])))
    assert spread(group_means(torch.from_numpy(values), groups).numpy()) <= best + 1e-9 * (1 + np.square(values).sum())


def test_go4align_refuses_more_groups_than_tasks() -> None:
    with pytest.raises(BadOption, match="groups is 3, but there are 2 tasks"):
        build("go4align", 2, groups=3)


# -- options out of range --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("famo", {"gamma": -1.0}),
        ("famo", {"max_norm": 0.0}),
        ("famo", {"min_losses": [0.0]}),
        ("famo", {"masks": "old"}),
        ("rlw_normal", {"scale": "none"}),
        ("stch", {"mu": 0.0}),
        ("stch", {"warm_up": -1}),
        ("dwa", {"temperature": 0.0}),
        ("go4align", {"eta": -1e-4}),
        ("graddrop", {"leak": [0.5]}),
        ("graddrop", {"k": 2.0}),
        ("rotograd", {"lr_ratio": 0.0}),
        ("gradnorm", {"alpha": -0.1}),
        ("db_mtl", {"beta": 1.0}),
        ("bayesagg_mtl", {"gamma": 0.0}),
        ("auto_lambda", {"meta_split": "test"}),
    ],
)
def test_options_out_of_range_are_refused(key, options) -> None:
    (name,) = options
    with pytest.raises(BadOption, match=rf"{key}.*{name}|{key}: \d+ {name}|{key}: 1 leaks"):
        build(key, 2, **options)


@pytest.mark.agrees("automatic differentiation of its objective", "imtl_l")
def test_imtl_l_descends_the_scaled_losses(toy) -> None:
    """∂/∂s of Σ e^(s_k) L_k − s_k by central differences, and twenty steps of torch's Adam on it: the same s."""
    smto = build("imtl_l", 2).double()
    smto.set_up(toy.setting, seed=0)
    reference = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([reference], lr=toy.setting.lr)
    for _ in range(20):
        step = toy.step()
        losses, present = step.losses.double(), smto.s.clone()

        def objective(s: torch.Tensor, losses: torch.Tensor = losses) -> torch.Tensor:
            return (s.exp() * losses - s).sum()

        probes = 1e-5 * torch.eye(2, dtype=torch.float64)
        numeric = torch.stack([(objective(present + e) - objective(present - e)) / 2e-5 for e in probes])
        weights = smto.backward(step).weights
        assert_close(weights.double() * losses - 1, numeric, rtol=1e-5, atol=1e-5)
        adam.zero_grad()
        objective(reference).backward()
        adam.step()
        assert_close(smto.s, reference.detach(), rtol=1e-5, atol=1e-7)
