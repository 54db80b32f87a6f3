"""The paper preset of the Cityscapes ladder is known to run: every configuration of it can be made, and every problem
and every method takes a real optimisation step.

Two things are replaced, since neither can be shipped: Cityscapes by streets, in its own layout and read by the same
code, and ImageNet's weights by random ones."""

import itertools

import pytest

from mtl_core import artifacts, notebooks, problems, sweeps
from mtl_core.plots import cityscapes
from mtl_core.runs import RunConfig
from mtl_core.training import train

PAPER = notebooks.preset_values(artifacts.REPOSITORY / "params" / "paper" / "03_cityscapes_ladder.yaml")
LAST = PAPER["steps"][-1]
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
    grid = sweeps.Grid(PAPER["grid_lr"], weight_decay=PAPER["grid_weight_decay"], options=PAPER["grid_options"])
    for step in PAPER["steps"]:
        names = [(name, "unit_scal") for name in problems.get(step).single_tasks]
        names += [(step, smto) for smto in (PAPER["all_methods"] if step == LAST else PAPER["methods"])]
        for name, smto in names:
            yield from ((name, smto, settings) for settings in grid.settings(name, smto))


def beside_the_ladder():
    """The same of the runs that are made with the settings of a step: IMTL transposed, corners, their single task."""
    chosen = {"lr": 0.001, "dropout": 0.0, "weight_decay": 0.0001, "options": {}}
    corners = set(cityscapes.CORNERS) - set(PAPER["steps"])
    yield from ((name, smto, chosen) for name, smto in itertools.product(sorted(corners), PAPER["methods"]))
    yield from ((name, "imtl", {**chosen, "options": {"form": "transposed"}}) for name in PAPER["steps"][2:])
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
    assert {config.problem for config in configs} >= {*PAPER["steps"], *cityscapes.CORNERS}


def step(name, smto, width, **options):
    """The record of one real step on two streets, with the network of the paper, and its evaluation."""
    sizes = {"train_size": 2, "val_size": 2, "test_size": 2, "batch_size": 2, "epochs": 1}
    place = {"source": "embedded", "problem_options": {"width": width}}
    config = RunConfig.of(
        problem=name, smto=smto, seed=1, lr=0.001, weight_decay=0.0001, options=options, **sizes, **place
    )
    return train(config, device="cpu")


@pytest.mark.parametrize("name", PAPER["steps"])
def test_a_step_of_the_ladder_at_full_resolution(name):
    """The uniform loss, and the gradients of all tasks on all shared weights for their statistics."""
    width = PAPER["problem_options"]["width"]
    run = step(name, "unit_scal", width)
    assert run.ended == "finished" and None not in run.history[0].train_losses
    assert len(run.history[0].gradients["parameters"].norms) == len(problems.get(name).tasks)


@pytest.mark.parametrize("smto", [*PAPER["all_methods"][1:], "imtl_transposed"])
def test_a_step_of_every_method_with_the_full_network(smto):
    """At a quarter of the resolution: what a method does depends on the weights and features, not on the pixels."""
    key, form = smto.removesuffix("_transposed"), {"form": "transposed"} if smto.endswith("_transposed") else {}
    run = step(LAST, key, 64, **form)
    assert run.ended == "finished" and set(run.history[0].val) == {"S", "D", "I"}
