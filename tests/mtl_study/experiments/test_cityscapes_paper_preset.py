"""The paper preset of the Cityscapes ladder is known to run: every configuration of it can be made, and every run takes
a real optimisation step with the whole network at full resolution: every single task, and on every step and corner
every method with its own options.

Two things are replaced, since neither can be shipped: Cityscapes by two streets, in its own layout and read by the same
code, and ImageNet's weights by random ones."""

import copy
import itertools
import json

import pytest
import torch

from mtl_core import problems, smtos
from mtl_core.smtos.base import ProblemInfo
from mtl_core.step import Step
from mtl_study import artifacts, parameters
from mtl_study.experiments import protocol
from mtl_study.experiments.runs import RunConfig
from mtl_study.experiments.training import Training, determinism, train
from mtl_study.paper import published
from mtl_study.parameters import schemas
from mtl_study.plots import cityscapes

PAPER = parameters.preset_values(artifacts.REPOSITORY / "params" / "paper" / "03_cityscapes_ladder.yaml")
PAPER |= PAPER["details"]
LADDER = list(schemas.LADDER)
LAST = LADDER[-1]
COMMON = {
    name: PAPER[name]
    for name in ("source", "train_size", "val_size", "test_size", "epochs", "batch_size", "lr_decay", "precision")
}


@pytest.fixture(scope="module", autouse=True)
def data_elsewhere(tmp_path_factory):
    """Streets and arrays go to a temporary folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTL_DATA", str(tmp_path_factory.mktemp("data")))
        yield


def searched():
    """(problem, method, settings) of every configuration that the search tries, of single tasks and of methods."""
    grid = protocol.Grid(**PAPER["grid"])
    for step in LADDER:
        names = [(name, "unit_scal") for name in problems.get(step).single_tasks]
        names += [(step, smto) for smto in (PAPER["all_methods"] if step == LAST else PAPER["methods"])]
        for name, smto in names:
            yield from ((name, smto, settings) for settings in grid.settings(name, smto))


def beside_the_ladder():
    """The same of the runs that are made with the settings of a step: IMTL transposed, corners, their single task."""
    chosen = {"lr": 0.001, "dropout": 0.0, "weight_decay": 0.0001, "options": {}}
    corners = set(cityscapes.CORNERS) - set(LADDER)
    yield from ((name, smto, chosen) for name, smto in itertools.product(sorted(corners), PAPER["methods"]))
    yield from ((name, "imtl", {**chosen, "options": {"form": "transposed"}}) for name in LADDER[2:])
    yield "cityscapes/SD_19/S", "unit_scal", chosen


def test_every_configuration_of_the_paper_preset_can_be_made():
    """No two of them are the same run, and all have the sizes of the paper."""
    plan = [*searched(), *beside_the_ladder()]
    configs = [
        RunConfig.of(**COMMON, **settings, problem=name, smto=smto, seed=1, problem_options=PAPER["problem_options"])
        for name, smto, settings in plan
    ]
    assert {config.sizes for config in configs} == {(2380, 595, 500)}
    assert len({config.key for config in configs}) == len({(n, s, str(c)) for n, s, c in plan}) > 400
    assert {config.problem for config in configs} >= {*LADDER, *cityscapes.CORNERS}


def distinct():
    """One setting per (problem, method, own options): what makes a step another one. Of Auto-Lambda's learning rates of
    its weights, which its first step hardly depends on, the least and the greatest."""
    found = {}
    for name, smto, settings in [*searched(), *beside_the_ladder()]:
        found.setdefault((name, smto, json.dumps(settings["options"], sort_keys=True)), (smto, settings))
    rates = [ratio["lr_ratio"] for ratio in published.option_grid(LAST, "auto_lambda")]
    between = [json.dumps({"lr_ratio": ratio}) for ratio in set(rates) - {min(rates), max(rates)}]
    return {key: run for key, run in found.items() if not (key[1] == "auto_lambda" and key[2] in between)}


def runs_of(problem):
    return [run for (name, _, _), run in distinct().items() if name == problem]


TOGETHER = [*LADDER, *sorted(set(cityscapes.CORNERS) - set(LADDER))]
ALONE = sorted({name for name, _, _ in distinct()} - set(TOGETHER))


def test_nothing_of_the_paper_preset_is_left_out():
    """All methods on the last step, two or three on the others and on the corners, every single task."""
    assert [smto for smto, _ in runs_of(LAST)] == [
        smto
        for smto in [*PAPER["all_methods"], "imtl"]
        for _ in range(2 if smto == "auto_lambda" else len(published.option_grid(LAST, smto)))
    ]
    for name in TOGETHER:
        found = [(smto, settings["options"].get("form")) for smto, settings in runs_of(name)]
        transposed = [("imtl", "transposed")] if name in LADDER[2:] else []
        assert name == LAST or found == [(smto, None) for smto in PAPER["methods"]] + transposed
    assert {*ALONE} == {single for name in TOGETHER for single in problems.get(name).single_tasks}


LARGE = ("cityscapes/R50", "cityscapes/HR", "cityscapes/19C")  # the deep encoder, and four times the pixels


def slow_where_large(names):
    return [pytest.param(name, marks=pytest.mark.slow if name.startswith(LARGE) else ()) for name in names]


WHOLE = {**PAPER["problem_options"], "pretrained": False}
TWO = {"source": "embedded", "train_size": 2, "val_size": 2, "test_size": 2, "batch_size": 2, "epochs": 1}


def two_streets(name, smto, settings):
    """A configuration of the paper preset with two streets instead of Cityscapes, and random weights."""
    return RunConfig.of(**{**COMMON, **settings, **TWO}, problem=name, smto=smto, seed=1, problem_options=WHOLE)


@pytest.mark.training
@pytest.mark.parametrize("name", slow_where_large(TOGETHER))
def test_every_method_takes_a_step_at_full_resolution(name):
    """The gradients at the start are the same for all methods, and are computed once; what a method makes of them, its
    further passes, the update and what follows it are its own. RotoGrad, whose heads see another z, has its own."""
    problem = problems.get(name, **WHOLE)
    problem.data.prepare("embedded", (2, 2, 2), None)
    split = problem.data.load("embedded", (2, 2, 2), None, torch.device("cpu"), torch.float32)["train"]
    x, targets = split.batch(torch.arange(2), problem.task_names, torch.Generator().manual_seed(1))
    torch.manual_seed(1)
    model = problem.build_model(0.0).to(memory_format=torch.channels_last)
    losses, likelihoods = [task.loss for task in problem.tasks], tuple(task.likelihood for task in problem.tasks)
    first = Step(model, losses, x, targets, second_batch=lambda: (x, targets), replay=True)
    assert first.jacobian.shape == (len(problem.tasks), sum(p.numel() for p in model.encoder.parameters()))
    start = copy.deepcopy(model.state_dict())
    of_heads = {p: p.grad.clone() for p in model.heads.parameters()}
    own_z = {"rotograd"}  # once; its other options share the gradients, for at the start it rotates nothing

    for key, settings in runs_of(name):
        model.load_state_dict(start)
        for p in model.heads.parameters():
            p.grad = of_heads[p].clone()
        smto = smtos.build(key, len(problem.tasks), **settings["options"])
        smto.set_up(ProblemInfo(likelihoods, problem.feature_shape, settings["lr"], settings["weight_decay"]), seed=1)
        smto.begin_epoch(0, None, settings["lr"])
        groups = [{"params": list(model.parameters())}, *smto.parameter_groups(settings["lr"])]
        optimizer = torch.optim.Adam(groups, settings["lr"], weight_decay=settings["weight_decay"], fused=True)
        step = (
            Step(model, losses, x, targets, transform_features=smto.transform_features)
            if key in own_z
            else copy.copy(first)
        )
        own_z.discard(key)
        applied = smto.backward(step)
        optimizer.step()
        smto.after_step(step)
        moved = [not torch.equal(p, start[n]) and bool(p.isfinite().all()) for n, p in model.named_parameters()]
        assert all(moved) and torch.isfinite(step.losses).all(), (key, settings)
        assert "no_solution" not in applied.flags, (key, settings)


class WithoutEvaluation(Training):
    """The trainer itself, without the metrics."""

    def _evaluate(self, name):
        return {}


@pytest.mark.training
@pytest.mark.parametrize("name", slow_where_large(ALONE))
def test_every_single_task_takes_a_step_at_full_resolution(name):
    ((smto, settings),) = runs_of(name)
    with determinism(1):
        training = WithoutEvaluation(two_streets(name, smto, settings), torch.device("cpu"), None)
        start = [p.detach().clone() for p in training.model.parameters()]
        training.epoch()
    assert training.history and None not in training.history[0].train_losses
    for before, after in zip(start, training.model.parameters(), strict=True):
        assert not torch.equal(before, after) and after.isfinite().all()


@pytest.mark.training
def test_the_trainer_goes_through_an_epoch_at_full_resolution():
    """The gradients' statistics and the metrics on all three splits are part of it."""
    run = train(two_streets("cityscapes/R18", "imtl", {"lr": 0.001, "weight_decay": 0.0001}), "cpu")
    assert run.ended == "finished" and set(run.history[0].test) == {"S", "D"}
    assert len(run.history[0].gradients["parameters"].norms) == 2
