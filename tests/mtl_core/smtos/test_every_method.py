"""What holds for every SMTO in the registry: a state that can be saved, and the symmetries that the mathematics has."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn, tensor
from torch.nn import functional as F
from torch.testing import assert_close

from mtl_core.smtos.base import SMTO, ProblemInfo
from mtl_core.smtos.registry import build, keys
from mtl_core.step import MultiTaskModel, Step

OPTIONS: dict[str, dict] = {
    "fixed": {"weights": [0.3, 0.7]},
    "bayesagg_mtl": {"warm_up": 1},
    "stch": {"warm_up": 0},
    "rotograd": {"burn_in": 5, "lr_ratio": 10.0},
    "auto_lambda": {"lr_ratio": 10.0},
}
CASES = [(key, OPTIONS.get(key, {})) for key in keys()] + [
    ("rotograd", {"inner": "nash_mtl", "start": "haar"}),
    ("auto_lambda", {"inner": "famo", "gradients": "finite_difference"}),
    ("gradnorm", {"start": "first_epoch"}),
    ("graddrop", {"mode": "random"}),
]
RANDOM = {"rlw_normal", "rlw_dirichlet", "graddrop", "pcgrad", "gradvac", "bayesagg_mtl"}


def ready(key: str, setting: ProblemInfo, seed: int = 1, **options) -> SMTO:
    smto = build(key, len(setting.likelihoods), **options)
    smto.set_up(setting, seed)
    return smto


@pytest.mark.parametrize(("key", "options"), CASES, ids=str)
def test_a_saved_state_goes_on_bit_for_bit(make_toy, key, options) -> None:
    """Three epochs with dropout, then more; and these again from the saved states of model, optimizer and SMTO, in new
    objects made with another seed."""

    def go_on(toy, smto, optimizer) -> tuple[list[Tensor], list[Tensor]]:
        applied = toy.train(smto, optimizer, range(6, 8))
        smto.begin_epoch(3, tensor([0.9, 0.7]), 0.01)
        applied += toy.train(smto, optimizer, range(8, 12))
        return [p.detach().clone() for p in toy.model.parameters()], [a.weights for a in applied]

    toy = make_toy(dropout=0.3, dtype=torch.float32)
    smto = ready(key, toy.setting, **options)
    optimizer = toy.optimizer(smto)
    for epoch, means in enumerate([None, tensor([1.2, 1.1]), tensor([1.0, 0.8])]):
        smto.begin_epoch(epoch, means, 0.01)
        toy.train(smto, optimizer, range(2 * epoch, 2 * epoch + 2))
    saved = copy.deepcopy((toy.model.state_dict(), optimizer.state_dict(), smto.state_dict())), torch.get_rng_state()
    expected = go_on(toy, smto, optimizer)

    toy = make_toy(dropout=0.3, dtype=torch.float32)
    smto = ready(key, toy.setting, seed=99, **options)
    optimizer = toy.optimizer(smto)
    toy.model.load_state_dict(saved[0][0])
    optimizer.load_state_dict(saved[0][1])
    smto.load_state_dict(saved[0][2])
    torch.set_rng_state(saved[1])
    assert_close(go_on(toy, smto, optimizer), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("key", sorted(set(keys()) - RANDOM))
def test_the_order_of_the_tasks_does_not_matter(make_toy, key) -> None:
    """Three steps with the tasks the other way round: the same encoder, the same weights in the other order."""
    found = []
    for order in ([0, 1], [1, 0]):
        toy = make_toy()
        names = list(toy.model.heads)
        toy.model = MultiTaskModel(toy.model.encoder, {names[k]: toy.model.heads[names[k]] for k in order})
        toy.losses, toy.targets = [toy.losses[k] for k in order], [toy.targets[k] for k in order]
        setting = ProblemInfo(tuple(toy.setting.likelihoods[k] for k in order), (5,), 0.01, 0.0)
        options = {**OPTIONS.get(key, {})}
        if key == "fixed":
            options["weights"] = [options["weights"][k] for k in order]
        smto = ready(key, setting, **options).double()
        applied = toy.train(smto, toy.optimizer(smto), range(3))
        weights = torch.stack([a.weights.double() for a in applied])
        found.append((weights[:, order], [p.detach() for p in toy.model.encoder.parameters()]))
    assert_close(found[0], found[1], equal_nan=True, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("key", sorted(RANDOM))
def test_random_methods_repeat_with_their_seed(make_toy, key) -> None:
    options = {"bayesagg_mtl": {"warm_up": 0}}.get(key, {})
    found = []
    for seed in (1, 1):
        toy = make_toy()
        smto = ready(key, toy.setting, seed, **options).double()
        toy.train(smto, toy.optimizer(smto), range(4))
        found.append([p.detach() for p in toy.model.parameters()])
    assert_close(found[0], found[1], rtol=0, atol=0)


@pytest.mark.parametrize("key", ["si", "gls", "famo", "edm", "imtl_g", "config", "nash_mtl", "db_mtl", "rotograd"])
def test_a_direction_that_no_unit_of_a_loss_can_change(make_toy, key) -> None:
    """L_1 → 1000 L_1 leaves the direction of the encoder's gradient where it was, for methods that promise it."""
    directions = []
    for unit in (1.0, 1000.0):
        toy = make_toy()
        plain = toy.losses[0]
        toy.losses[0] = lambda p, y, c=unit, f=plain: c * f(p, y)
        options = {"db_mtl": {"beta": 0.0}}.get(key, {})
        smto = ready(key, toy.setting, **options).double()
        smto.backward(toy.step(smto))
        directions.append(toy.gradient() / toy.gradient().norm())
    assert_close(directions[0], directions[1], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "key", ["unit_scal", "mgda", "cagrad", "pcgrad", "gradvac", "upgrad", "fairgrad", "excess_mtl", "ldc_mtl"]
)
def test_a_direction_that_a_unit_does_change(make_toy, key) -> None:
    directions = []
    for unit in (1.0, 1000.0):
        toy = make_toy()
        plain = toy.losses[0]
        toy.losses[0] = lambda p, y, c=unit, f=plain: c * f(p, y)
        smto = ready(key, toy.setting).double()
        smto.backward(toy.step(smto))
        directions.append(toy.gradient() / toy.gradient().norm())
    assert directions[0] @ directions[1] < 0.999


# -- no two methods are the same ---------------------------------------------------------------------------------------

PARTED = {key: OPTIONS.get(key, {}) for key in keys()} | {
    "fixed": {"weights": [0.2, 0.5, 0.3]},
    "fixed, equal": {"weights": [1 / 3, 1 / 3, 1 / 3]},
    "auto_lambda, not learning": {"lr_ratio": 0.0, "start": 1 / 3},
}
#: pairs that agree by theory, and why
AGREE = {
    frozenset({"unit_scal", "fixed, equal"}): "both are the mean of the losses",
    frozenset({"unit_scal", "auto_lambda, not learning"}): "so are λ of 1/K that do not learn",
    frozenset({"fixed, equal", "auto_lambda, not learning"}): "for the same reason",
}


def three_tasks() -> tuple[MultiTaskModel, list, list]:
    """Three tasks that conflict, with losses of different sizes: a model, its losses, twelve batches."""
    torch.manual_seed(5)
    encoder = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5), nn.Tanh())
    heads = {"a": nn.Sequential(nn.Linear(5, 3), nn.LogSoftmax(1)), "b": nn.Linear(5, 2), "c": nn.Linear(5, 1)}
    x = torch.randn(96, 6).double()
    targets = [x[:, :3].argmax(1), torch.stack([x[:, 0] - x[:, 4], 3 * x[:, 5]], 1), 0.5 * x[:, :1] - x[:, 3:4]]
    batches = [(x[rows], [y[rows] for y in targets]) for rows in torch.arange(96).split(8)]
    return MultiTaskModel(encoder, heads).double(), [F.nll_loss, F.mse_loss, F.mse_loss], batches


def gradients_of(name: str) -> Tensor:
    """All gradients that a method leaves in twelve steps of gradient descent, in six epochs of two steps [12, P]."""
    model, losses, batches = three_tasks()
    smto = ready(name.split(",")[0], ProblemInfo(("softmax", "gaussian", "gaussian"), (5,), 0.1, 0.0), **PARTED[name])
    smto.double()
    optimizer = torch.optim.SGD([{"params": list(model.parameters())}, *smto.parameter_groups(0.1)], lr=0.1)
    means, found = None, []
    for number, batch in enumerate(batches):
        if number % 2 == 0:
            smto.begin_epoch(number // 2, means, 0.1)
        another = lambda number=number: batches[(number + 1) % 12]  # noqa: E731
        step = Step(
            model, losses, *batch, transform_features=smto.transform_features, second_batch=another, replay=smto.replay
        )
        smto.backward(step)
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        optimizer.step()
        smto.after_step(step)
        means = step.losses
    return torch.stack(found)


def test_no_two_methods_agree() -> None:
    """Encoder and heads together, over twelve steps from the same weights: a hundredth apart, or the same by theory."""
    gradients = {name: gradients_of(name) for name in PARTED}
    wrong = {}
    for one, other in itertools.combinations(PARTED, 2):
        a, b = gradients[one], gradients[other]
        apart = float((a - b).norm() / max(a.norm(), b.norm()))
        if not (apart < 1e-6 if frozenset({one, other}) in AGREE else apart > 0.01):
            wrong[one, other] = apart
    assert wrong == {}
