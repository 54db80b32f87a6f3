"""Auto-Lambda, and the methods that work around another one: RotoGrad and Auto-Lambda with an inner SMTO."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn, tensor
from torch.testing import assert_close

from mtl_core.options import BadOption
from mtl_core.smtos.base import SMTO, ProblemInfo
from mtl_core.smtos.registry import build
from mtl_core.step import MultiTaskModel, ScaledStep, Step

INNER = ["edm", "cagrad", "nash_mtl", "unit_scal", "pcgrad", "mgda_ub", "imtl", "famo", "uw", "graddrop", "db_mtl"]


def ready(key: str, toy, weight_decay: float = 0.0, **options) -> SMTO:
    """An SMTO that has been set up, in float64."""
    smto = build(key, len(toy.losses), **options)
    setting = ProblemInfo(toy.setting.likelihoods, toy.setting.feature_shape, toy.setting.lr, weight_decay)
    smto.set_up(setting, 1)
    return smto.double()


@pytest.mark.parametrize("key", ["auto_lambda", "imtl", "uw", "rotograd"])
def test_a_method_that_was_not_set_up_is_refused(key, toy) -> None:
    """Also one that was restored from a state: its λ would stay where they are without a word."""
    state = ready(key, toy).state_dict()
    fresh = build(key, len(toy.losses)).double()
    if key != "rotograd":  # which has no size before
        fresh.load_state_dict(state)
    with pytest.raises(BadOption, match=f"{key} needs .*: set_up"):
        fresh.backward(toy.step())


def meta_loss(toy, lambdas: Tensor, lr: float, weight_decay: float) -> Tensor:
    """Σ L on batch 1 after one step of gradient descent on Σ λ L of batch 0: what Auto-Lambda lowers."""
    model = copy.deepcopy(toy.model)
    Step(model, toy.losses, *toy.batch(0)).apply(lambdas, lambdas)
    with torch.no_grad():
        for p in model.parameters():
            p -= lr * (p.grad + weight_decay * p)
    return Step(model, toy.losses, *toy.batch(1)).losses.sum()


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.agrees("finite differences of the meta loss", "auto_lambda")
def test_exact_meta_gradient_is_the_slope_of_the_meta_loss(toy, weight_decay) -> None:
    """−lr ⟨∇L_k, v⟩ against central differences of the loss after the virtual step, by λ_k."""
    smto = ready("auto_lambda", toy, weight_decay, start=0.4)
    step = toy.step(smto)
    v = step.elsewhere(smto.virtual(step), step.second_batch())
    found = -smto.lr * smto.slopes(step, v)
    h, expected = 1e-4, []
    for direction in torch.eye(2).double():
        ahead, behind = (meta_loss(toy, 0.4 + s * h * direction, 0.01, weight_decay) for s in (1, -1))
        expected.append((ahead - behind) / (2 * h))
    assert_close(found, torch.stack(expected), rtol=1e-6, atol=1e-9)


def test_finite_difference_agrees_with_the_exact_gradient(make_toy) -> None:
    """On a smooth net, also under dropout, because both probes meet the masks of the step itself."""
    for dropout in (0.0, 0.5):
        toy = make_toy(dropout)
        smto = ready("auto_lambda", toy, gradients="finite_difference")
        step = toy.step(smto)
        v = step.elsewhere(smto.virtual(step), step.second_batch())
        difference = smto.slopes(step, v)
        smto.gradients = "exact"
        assert_close(difference, smto.slopes(step, v), rtol=1e-4, atol=1e-8)


def test_fresh_masks_are_noise_in_the_difference(make_toy) -> None:
    """Without dropout the two looks are those under replayed masks. Under dropout the slope is another one each time,
    most of it noise; and every look moves the statistics of batch normalisation."""
    spread = {}
    for dropout, masks in itertools.product((0.0, 0.3), ("replay", "fresh")):
        toy = make_toy(dropout)
        toy.model.encoder.insert(1, nn.BatchNorm1d(8).double())
        smto = ready("auto_lambda", toy, gradients="finite_difference", masks=masks)
        torch.manual_seed(0)
        step = toy.step(smto)
        v = step.elsewhere(smto.virtual(step), step.second_batch())
        looks = torch.stack([smto.slopes(step, v) for _ in range(5)])
        spread[dropout, masks] = float(looks.std(0).max() / looks.mean(0).abs().max())
        assert toy.model.encoder[1].num_batches_tracked == (11 if masks == "fresh" else 1)
        assert smto.replay == (masks == "replay")
    assert max(spread[0.0, "replay"], spread[0.0, "fresh"], spread[0.3, "replay"]) < 1e-6 < 0.3 < spread[0.3, "fresh"]
    with pytest.raises(BadOption, match=r"masks = .fresh. without gradients = .finite_difference."):
        build("auto_lambda", 2, masks="fresh")


def test_auto_lambda_takes_an_adam_step_and_uses_the_new_weights(toy) -> None:
    """The first step of Adam moves every λ by lr_ratio · lr against its slope; encoder and heads get the result."""
    smto = ready("auto_lambda", toy, lr_ratio=2.0)
    step = toy.step(smto)
    slopes = smto.slopes(step, step.elsewhere(smto.virtual(step), step.second_batch()))
    jacobian, heads = step.jacobian, toy.head_gradients()
    applied = smto.backward(toy.step(smto))
    assert_close(applied.weights, 0.1 + 0.02 * slopes.sign(), rtol=1e-4, atol=0)
    assert_close(toy.gradient(), applied.weights @ jacobian)
    assert_close(toy.head_gradients(), [w * g for w, g in zip(applied.weights, heads, strict=True)])


def test_auto_lambda_at_rest_keeps_its_weights(toy) -> None:
    smto = ready("auto_lambda", toy, lr_ratio=0.0)
    applied = toy.train(smto, toy.optimizer(smto), range(3))
    assert_close(applied[-1].weights, torch.full((2,), 0.1).double(), rtol=0, atol=1e-7)


def test_auto_lambda_favours_the_task_that_helps_the_other_batch(toy) -> None:
    """A task whose gradient raises the meta loss (its loss is upside down there) loses weight, the other gains."""
    smto = ready("auto_lambda", toy, lr_ratio=1.0)
    original = list(toy.losses)
    for number in range(20):
        step = toy.step(smto, number)
        step.second_batch = lambda: toy.batch(0)
        step.loss_functions = [original[0], lambda p, y: -original[1](p, y)]
        smto.backward(step)
    assert smto.lambdas[0] > 0.1 > smto.lambdas[1]


def test_one_task_gains_weight_while_batches_agree(toy) -> None:
    toy.model = MultiTaskModel(toy.model.encoder, {"a": toy.model.heads["a"]})
    toy.losses, toy.targets = toy.losses[:1], toy.targets[:1]
    smto = ready("auto_lambda", toy, lr_ratio=1.0)
    toy.train(smto, toy.optimizer(smto), range(10))
    assert smto.lambdas[0] > 0.1


def test_auto_lambda_follows_the_schedule_in_its_virtual_step_only(toy) -> None:
    smto = ready("auto_lambda", toy, lr_ratio=3.0)
    smto.begin_epoch(5, None, 0.002)
    assert smto.lr == 0.002 and smto.optimizer.lr == pytest.approx(0.03)
    step = toy.step(smto)
    moved = smto.virtual(step)
    weight = toy.model.heads["b"].weight
    assert_close(moved[weight], weight.detach() - 0.002 * smto.lambdas[1] * weight.grad)


@pytest.mark.parametrize("gradients", ["exact", "finite_difference"])
def test_the_other_batch_leaves_no_trace(toy, gradients) -> None:
    """Parameters, statistics of batch normalisation and random numbers are those of one ordinary step."""
    toy.model.encoder.insert(1, nn.BatchNorm1d(8).double())
    toy.model.encoder.append(nn.Dropout(0.5))
    smto = ready("auto_lambda", toy, gradients=gradients, lr_ratio=0.0)
    torch.manual_seed(0)
    before = copy.deepcopy(toy.model.state_dict())
    smto.backward(toy.step(smto))
    found, statistics, state = toy.gradient(), copy.deepcopy(toy.model.state_dict()), torch.get_rng_state()

    toy.model.load_state_dict(before)
    torch.manual_seed(0)
    ready("fixed", toy, weights=[0.1, 0.1]).backward(toy.step())
    assert_close(found, toy.gradient(), rtol=1e-6, atol=1e-12)
    assert_close(statistics, toy.model.state_dict())
    assert torch.equal(state, torch.get_rng_state())


def test_auto_lambda_asks_for_a_second_batch(toy) -> None:
    with pytest.raises(RuntimeError, match="needs a second batch"):
        ready("auto_lambda", toy).backward(toy.step())


# -- around another SMTO ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", INNER)
def test_rotograd_around_another_method(toy, key) -> None:
    """Before the rotations have turned, encoder and heads get what the inner method alone gives; R learns as ever."""
    alone = ready(key, toy)
    expected_weights = alone.backward(toy.step(alone)).weights
    expected = toy.gradient(), toy.head_gradients()
    rotograd = ready("rotograd", toy)
    rotograd.backward(toy.step(rotograd))
    smto = ready("rotograd", toy, inner=key)
    applied = smto.backward(toy.step(smto))
    assert_close((toy.gradient(), toy.head_gradients()), expected)
    assert_close(applied.weights, expected_weights, equal_nan=True)
    assert_close(smto.angles.grad, rotograd.angles.grad)
    assert applied.diagnostics["rotation_loss"] > 0


@pytest.mark.parametrize("key", INNER)
def test_auto_lambda_around_another_method(toy, key) -> None:
    """The inner method sees the losses λ_k L_k; the weights that are told are those on the losses themselves."""
    smto = ready("auto_lambda", toy, inner=key, lr_ratio=3.0)
    applied = smto.backward(toy.step(smto))
    found, lambdas = (toy.gradient(), toy.head_gradients()), smto.lambdas.clone()
    assert not torch.allclose(lambdas[0], lambdas[1])

    original = list(toy.losses)
    toy.losses = [lambda p, y, f=f, w=w: w * f(p, y) for f, w in zip(original, lambdas, strict=True)]
    alone = ready(key, toy)
    inside = alone.backward(toy.step(alone))
    assert_close(found, (toy.gradient(), toy.head_gradients()))
    assert_close(applied.weights, inside.weights.double() * lambdas, equal_nan=True)
    assert_close(applied.head_weights, inside.head_weights.double() * lambdas, equal_nan=True)
    if not applied.weights.isnan().any():
        assert_close(applied.weights @ Step(toy.model, original, *toy.batch(0)).jacobian, found[0])


@pytest.mark.parametrize("outer", ["rotograd", "auto_lambda"])
@pytest.mark.parametrize("key", INNER)
def test_combinations_train(make_toy, outer, key) -> None:
    """Forty steps with dropout lower both losses; the inner method keeps its own state and parameters."""
    toy = make_toy(dropout=0.1)
    smto = ready(outer, toy, inner=key)
    toy.model.eval()
    before = Step(toy.model, toy.losses, toy.x, toy.targets, transform_features=smto.transform_features).losses
    toy.model.train()
    smto.begin_epoch(0, None, 0.01)
    toy.train(smto, toy.optimizer(smto), range(40))
    toy.model.eval()
    after = Step(toy.model, toy.losses, toy.x, toy.targets, transform_features=smto.transform_features).losses
    assert (after < before).all()


def test_auto_lambda_around_rotograd_around_edm(toy) -> None:
    """Three deep: λ cancels in EDM's direction, so encoder gradients are RotoGrad's with EDM inside."""
    smto = ready("auto_lambda", toy, inner="rotograd", inner_options={"inner": "edm", "lr_ratio": 1.0}, lr_ratio=3.0)
    smto.backward(toy.step(smto))
    found = toy.gradient()
    alone = ready("edm", toy)
    alone.backward(toy.step(alone))
    assert_close(torch.cosine_similarity(found, toy.gradient(), dim=0), torch.ones((), dtype=torch.float64))
    optimizer = toy.optimizer(smto)
    assert len(optimizer.param_groups) == 2
    toy.train(smto, optimizer, range(5))
    assert (smto.inner.angles != 0).any()


def test_an_inner_method_is_told_what_it_needs(toy) -> None:
    """Options, epochs, parameters for the optimizer, the losses after the step, and the wish for replayed masks."""
    smto = ready("rotograd", toy, inner="cagrad", inner_options={"c": 0.2})
    assert smto.inner.c == 0.2
    smto = ready("auto_lambda", toy, inner="dwa")
    for epoch, means in enumerate([None, tensor([1.0, 1.0]), tensor([1.0, 0.5])]):
        smto.begin_epoch(epoch, means, 0.01)
    assert smto.inner.w[0] > smto.inner.w[1]
    assert len(ready("rotograd", toy, inner="uw").parameter_groups(0.01)) == 2
    smto = ready("rotograd", toy, inner="famo")
    assert smto.replay and not ready("rotograd", toy).replay
    toy.train(smto, toy.optimizer(smto), range(2))
    assert (smto.inner.logits != 0).any()
    without = MultiTaskModel(nn.LayerNorm(6), {"a": nn.Linear(6, 1), "b": nn.Linear(6, 1)})
    for outer in ("rotograd", "auto_lambda"):
        with pytest.raises(BadOption, match="gradnorm judges gradients"):
            ready(outer, toy, inner="gradnorm").check_model(without)


def test_famo_inside_auto_lambda_compares_scaled_losses_with_scaled_losses(toy) -> None:
    """δ is a difference of logarithms, so λ drops out of it."""
    smto = ready("auto_lambda", toy, inner="famo")
    step = toy.step(smto)
    smto.backward(step)
    toy.optimizer(smto).step()
    expected = smto.inner.logit_gradient(step.losses, step.reevaluate())
    scaled = ScaledStep(step, smto.lambdas)
    assert_close(smto.inner.logit_gradient(scaled.losses, scaled.reevaluate()), expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("key", "options", "says"),
    [
        ("rotograd", {"inner": "auto_lambda"}, "does not work inside rotograd"),
        ("rotograd", {"inner": "rotograd"}, "does not work inside rotograd"),
        ("auto_lambda", {"inner": "auto_lambda"}, "does not work inside auto_lambda"),
        ("auto_lambda", {"inner": "bayesagg_mtl"}, "does not work inside auto_lambda"),
        ("rotograd", {"inner": "cagard"}, "did you mean 'cagrad'"),
        ("rotograd", {"inner": "cagrad", "inner_options": {"d": 1}}, "cagrad has no option 'd'"),
        ("auto_lambda", {"inner_options": {"c": 0.5}}, "without an inner SMTO"),
    ],
)
def test_combinations_that_make_no_sense_are_refused(key, options, says) -> None:
    with pytest.raises(BadOption, match=says):
        build(key, 2, **options)


# -- a gate ------------------------------------------------------------------------------------------------------------


def test_a_gate_that_is_always_open_is_its_inner_method_and_one_that_is_never_open_the_mean(toy) -> None:
    for duty, expected in ((1.0, ready("cagrad", toy)), (0.0, None)):
        smto = ready("gated", toy, duty=duty)
        for _ in range(3):
            step = toy.step(smto)
            result = smto.backward(step)
            gradients = [p.grad.clone() for p in step.model.parameters()]
            again = toy.step(smto)
            if expected is None:
                again.apply(torch.full((2,), 0.5))
            else:
                assert_close(result.weights, expected.backward(again).weights)
            assert_close(gradients, [p.grad for p in again.model.parameters()])
            assert result.diagnostics["share"] == duty


@pytest.mark.parametrize("duty", [0.1, 0.5, 0.9])
def test_a_gate_keeps_its_duty_to_within_fifty_steps_whatever_the_needs(duty) -> None:
    """Also where they always rise, always fall, never change, or are such that the gate is wrong as long as it can."""
    for needs in (range(400), range(400, 0, -1), [1.0] * 400, None):
        smto, off = build("gated", 2, duty=duty), 0.0
        for t in range(400):
            behind = smto.acted < duty * smto.steps
            smto.opens(float((-t if behind else t) if needs is None else needs[t]))
            off = max(off, abs(smto.acted - duty * smto.steps))
        assert off <= 50


@pytest.mark.agrees("its definition, worked out apart", "gated")
def test_a_gate_keeps_its_duty_whatever_the_need_is_measured_by() -> None:
    """Also where the need drifts, so that a running quantile alone would be open too often; and it opens where the need
    is greatest."""
    random = np.random.default_rng(0)
    for by, duty in itertools.product(("ratio", "cosine", "random"), (0.3, 0.7)):
        smto = build("gated", 2, by=by, duty=duty)
        needs, opened = [], []
        for t in range(400):
            ratio, cosine = np.exp(abs(random.normal()) + t / 200), np.tanh(random.normal() - t / 200)
            needs.append(smto.need(np.array([[ratio**2, ratio * cosine], [ratio * cosine, 1.0]])))
            assert needs[-1] == pytest.approx({"ratio": ratio, "cosine": -cosine}.get(by, needs[-1]))
            opened.append(smto.opens(needs[-1]))
        assert np.mean(opened) == pytest.approx(duty, abs=0.02)
        last, opened_last = np.array(needs[-50:]), np.array(opened[-50:])
        assert last[opened_last].min() > np.quantile(last, 1 - duty) - 0.5 * last.std()


def test_the_need_of_a_task_without_gradient_is_the_greatest_by_ratio_and_none_by_cosine() -> None:
    zero = np.diag([1.0, 0.0])
    assert build("gated", 2, by="ratio").need(zero) > 1e300
    assert build("gated", 2, by="cosine").need(zero) == 0
