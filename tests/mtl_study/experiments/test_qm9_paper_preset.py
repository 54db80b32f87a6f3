"""The paper preset of notebook 04 takes one real step of every run: real molecules, full width, every method."""

import json

import pytest
import torch
import yaml

from mtl_core import problems, smtos
from mtl_core.datasets.base import DataNotFound
from mtl_core.smtos.base import ProblemInfo
from mtl_core.step import Step
from mtl_study import artifacts
from mtl_study.experiments import protocol, training
from mtl_study.experiments.runs import RunConfig
from mtl_study.paper import published

VALUES = yaml.safe_load((artifacts.REPOSITORY / "params" / "paper" / "04_qm9.yaml").read_text())
VALUES |= VALUES["details"]
OPTIONS, GRID = VALUES["problem_options"], protocol.Grid(**VALUES["grid"])
COMMON = {
    name: VALUES[name]
    for name in ("epochs", "batch_size", "schedule", "lr_decay", "source", "train_size", "val_size", "test_size")
}
SMALL = (8, 4, 4)


def configurations():
    """Every setting that the preset searches or runs again: (problem, method, settings)."""
    problem = problems.get("qm9", **OPTIONS)
    for name in problem.single_tasks:
        yield from ((name, "unit_scal", settings) for settings in GRID.settings(name, "unit_scal"))
    for smto in VALUES["methods"]:
        yield from (("qm9", smto, settings) for settings in GRID.settings("qm9", smto))
    for settings in GRID.settings("qm9", "imtl"):
        yield "qm9", "imtl", {**settings, "options": {"form": "transposed"}}


def config(problem, smto, settings, seed=1, **changes):
    return RunConfig.of(
        **{**COMMON, **settings, "problem": problem, "smto": smto, "seed": seed, "problem_options": OPTIONS, **changes}
    )


def test_the_preset_is_the_papers_protocol():
    training_of = published.training("qm9")
    assert (VALUES["epochs"], VALUES["batch_size"], VALUES["lr_decay"]) == (
        training_of.epochs,
        training_of.batch_size,
        training_of.lr_decay,
    )
    assert sorted(VALUES["grid"]["lr"]) == sorted(published.axes("qm9")["lr"])
    assert (VALUES["search_seeds"], VALUES["seeds"]) == published.seeds("qm9")
    assert set(VALUES["methods"]) == set(published.methods("qm9")) - {"fixed"}
    every = problems.get("qm9").data.sizes("embedded")
    assert (VALUES["train_size"], VALUES["val_size"], VALUES["test_size"]) == every
    assert OPTIONS == {"max_atoms": 29, "slim": 1}  # all molecules, the whole network


def test_every_run_of_the_preset_is_a_valid_configuration():
    """With every seed and both schedules; no two of them are the same run."""
    configs = [
        config(*one, seed=seed, schedule=schedule)
        for one in configurations()
        for seed in VALUES["seeds"]
        for schedule in ("plateau", "plateau_on_validation")
    ]
    assert len({c.key for c in configs}) == len(configs) > 500
    assert {c.problem for c in configs} == {"qm9", *problems.get("qm9").single_tasks}


@pytest.fixture(scope="module")
def molecules():
    """Eight real molecules; reading the package's text takes half a minute where no earlier test has done it."""
    problem = problems.get("qm9", **OPTIONS)
    try:
        problem.data.prepare("embedded", SMALL, None)
    except DataNotFound as missing:
        pytest.skip(str(missing))
    return problem.data.load("embedded", SMALL, None, torch.device("cpu"), torch.float32)


@pytest.mark.training
@pytest.mark.slow
def test_every_method_takes_a_real_step(molecules):
    """At full width, with its optimizer: every distinct (method, own options) moves the encoder, all stays finite."""
    problem = problems.get("qm9", **OPTIONS)
    x, targets = molecules["train"].batch(torch.arange(8), problem.task_names)
    losses = [task.loss for task in problem.tasks]
    together = [(smto, settings) for name, smto, settings in configurations() if name == "qm9"]
    distinct = {(smto, json.dumps(s["options"], sort_keys=True)): s for smto, s in together}
    assert {smto for smto, _ in distinct} == set(VALUES["methods"])
    for (key, _), settings in distinct.items():
        torch.manual_seed(1)
        model = problem.build_model(0.0)
        smto = smtos.build(key, len(problem.tasks), **settings["options"])
        likelihoods = tuple(task.likelihood for task in problem.tasks)
        smto.set_up(ProblemInfo(likelihoods, problem.feature_shape, settings["lr"], 0.0), seed=1)
        groups = [{"params": list(model.parameters())}, *smto.parameter_groups(settings["lr"])]
        optimizer = torch.optim.Adam(groups, lr=settings["lr"])
        before = torch.cat([p.detach().flatten() for p in model.encoder.parameters()])
        step = Step(
            model,
            losses,
            x,
            targets,
            transform_features=smto.transform_features,
            second_batch=lambda: (x, targets),
            replay=smto.replay,
        )
        applied = smto.backward(step)
        optimizer.step()
        smto.after_step(step)
        after = torch.cat([p.detach().flatten() for p in model.encoder.parameters()])
        assert before.numel() == 616_960, key
        assert torch.isfinite(after).all() and (after != before).float().mean() > 0.5, (key, settings["options"])
        assert torch.isfinite(step.losses).all() and "no_solution" not in applied.flags, (key, settings["options"])


@pytest.mark.training
@pytest.mark.parametrize("name", ["qm9", *problems.get("qm9", **OPTIONS).single_tasks])
def test_the_trainer_runs_an_epoch_of_one_step(molecules, name):
    """The whole path of a run, all eleven tasks and each alone: train, look at the gradients, evaluate, schedule."""
    small = dict(zip(("train_size", "val_size", "test_size"), SMALL, strict=True)) | {"batch_size": 8, "epochs": 1}
    settings = next(settings for problem, smto, settings in configurations() if (problem, smto) == (name, "unit_scal"))
    for schedule in ("plateau", "plateau_on_validation"):
        run = training.train(config(name, "unit_scal", settings, schedule=schedule, **small), "cpu")
        expected = list(problems.get(name, **OPTIONS).task_names)
        assert run.ended == "finished" and list(run.history[0].val) == expected
        assert all(run.history[0].val[task]["mae"] > 0 for task in expected)
