"""What `make plan` counts is what is trained; what it says of time and memory follows from what it measures."""

import json
import re

import pytest
import torch

from mtl_core import smtos
from mtl_core.smtos import keys as all_methods
from mtl_study import artifacts, parameters
from mtl_study.experiments.runs import RunConfig
from mtl_study.experiments.store import RunStore
from mtl_study.publishing import calibration, plan, planned

DIGITS = {"problem": "multimnist/CL_RR", "lr": 0.001, "seed": 1, "train_size": 1000, "val_size": 300, "test_size": 300}


def given(preset, *numbers):
    found = sorted((artifacts.REPOSITORY / "params" / preset).glob("0[1-5]_*.yaml"))
    return {path.stem: parameters.preset_values(path) for path in found if path.stem[:2] in numbers}


def test_what_is_planned_for_quick_is_what_was_trained_for_it():
    """Every run is in the shipped store, but for fixed weights that only a run can name."""
    store = RunStore(artifacts.REPOSITORY / "results")
    configs = plan.new_runs(given("quick", "01", "02", "03", "04", "05"))
    lacking = {name: {c.smto for c in some if store.get(c) is None} for name, some in configs.items()}
    assert all(configs.values())
    assert lacking == {name: {"fixed"} if name[:2] == "05" else set() for name in configs}


def test_a_search_by_hand():
    """Smoke's 01: 16 methods and 2 single tasks at 2 rates with one seed; of each the chosen ones with a second seed,
    and the uniform loss at the rate that it has not."""
    [(_, values)] = given("smoke", "01").items()
    configs = planned.runs("01", values)
    first = [config for config in configs if config.seed == values["details"]["search_seeds"][0]]
    rates = len(values["details"]["grid"]["lr"])
    assert len(first) == rates * (len(values["methods"]) + 2)
    second = [config for config in configs if config not in first]
    reported = {config.lr for config in second if config.smto != "unit_scal"}
    alone = [config for config in second if config.problem != "multimnist/CL_RR"]
    uniform = [config for config in second if config.smto == "unit_scal" and config not in alone]
    assert len(alone) == 2 and {config.lr for config in uniform} >= reported
    assert len(second) == len(values["methods"]) - 1 + len(uniform) + len(alone)


def test_hours_follow_from_steps_and_samples():
    config = RunConfig.of(**DIGITS, epochs=3, batch_size=256)
    assert plan.steps(config) == 3 * 4 and plan.samples(config) == pytest.approx(3 * (1000 + 600 / 3))
    values = given("smoke", "01")
    [row], unmeasured = plan.rows(values, lambda shape: 0.5, per_epoch=2**30)
    configs = planned.runs("01", values["01_mnist_selection"])
    assert unmeasured == 0 and row.runs == len(configs) and row.disk == row.epochs
    assert row.hours == pytest.approx(sum(map(plan.samples, configs)) / 7200)
    assert 0 < row.hours_published < row.hours


def test_what_is_not_measured_has_the_time_of_the_slowest_alike():
    configs = [RunConfig.of(**DIGITS, epochs=1, smto=smto) for smto in ("unit_scal", "cagrad", "auto_lambda")]
    times = iter([0.25])
    found, unmeasured = plan.timed(configs, lambda shape: next(times), longest=0)
    assert unmeasured == len(found) - 1 == 2 and set(found.values()) == {0.25}


@pytest.mark.parametrize("problem", ["multimnist/CL_RR", "cityscapes/19C", "qm9"])
def test_memory_of_a_run(problem):
    """What the backward pass needs grows with the batch, the gradients of the tasks do not."""
    options = {"slim": 32, "width": 32} if "city" in problem else {"slim": 4} if problem == "qm9" else {}
    way = calibration.Shape(problem, tuple(sorted(options.items())), 8, "losses")
    one, two, three = (calibration.memory(way._replace(batch=n)) for n in (8, 16, 24))
    assert 0 < one < two and three - two == pytest.approx(two - one, rel=0.02)
    whole = calibration.problem(way)
    shared = sum(p.numel() * p.element_size() for p in whole.build_model(0.0).encoder.parameters())
    assert calibration.memory(way._replace(way="parameters")) - one == len(whole.tasks) * shared


def test_every_way_of_a_step_is_measured():
    assert set(calibration.STANDS_FOR) <= {smtos.get(key).space for key in all_methods()}
    for way in (*calibration.STANDS_FOR, "auto_lambda", "gradnorm"):
        shape = calibration.Shape("multimnist/CL_RR", (), 4, way)
        assert 0 < calibration.seconds(shape, torch.device("cpu")) < 10


def test_the_command(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path))
    monkeypatch.setattr(calibration, "seconds", lambda shape, device: 0.001)
    assert plan.main(["--preset", "smoke", "--only", "04 06", "--devices", "4"]) == 0
    head, _, *lines = capsys.readouterr().out.splitlines()
    assert "hours, 4 devices" in head and [re.match(r"\| (\d\d)_", line)[1] for line in lines[:2]] == ["04", "06"]
    first, second = json.loads(next(tmp_path.rglob("plan.json")).read_text())["notebooks"]
    assert first["hours_on_all"] == first["hours"] / 4 > 0 and second["runs"] == 0
    assert plan.main(["--preset", "papr"]) == 2
    assert plan.main(["--devices", "0"]) == 2
