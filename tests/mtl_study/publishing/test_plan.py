"""What `make plan` counts is what is trained; what it says of time and memory follows from what it measures."""

import itertools
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from mtl_core import problems, smtos
from mtl_study import artifacts, parameters
from mtl_study.experiments.probes import LooksConfig, LooksStore
from mtl_study.experiments.runs import RunConfig
from mtl_study.experiments.store import RunStore
from mtl_study.experiments.strides import StridesConfig, StridesStore
from mtl_study.publishing import calibration, plan, planned
from mtl_study.publishing.calibration import Shape, Steps

DIGITS = {"problem": "multimnist/CL_RR", "lr": 0.001, "seed": 1, "train_size": 1000, "val_size": 300, "test_size": 300}


def given(preset, *numbers):
    found = sorted((artifacts.REPOSITORY / "params" / preset).glob("*.yaml"))
    return {path.stem: parameters.preset_values(path) for path in found if artifacts.number_of(path.stem) in numbers}


def test_what_is_planned_for_quick_is_what_was_trained_for_it():
    """Every run is in the shipped store, but for what only a run can name: fixed weights, and step sizes chosen from
    several for all seeds beyond the first."""
    store = RunStore(artifacts.REPOSITORY / "results")
    configs = plan.new_runs(given("quick", "01", "02", "02b", "03", "04", "05", "05b", "05c"))
    lacking = {name: {c.smto for c in some if store.get(c) is None} for name, some in configs.items()}
    assert [name for name, some in configs.items() if not some] == ["02b_cosine"]  # notebook 02 has trained them all
    assert {name for name, smtos_ in lacking.items() if smtos_} == {"05_fixed_weights", "05c_other_ways"}
    assert lacking["05_fixed_weights"] == lacking["05c_other_ways"] == {"fixed"}
    [(name, values)] = given("quick", "07").items()
    seventh = planned.runs(name, values)
    first = [c for c in seventh if isinstance(c, RunConfig) and c.seed == values["seeds"][0] and not c.units]
    looks = [c for c in seventh if isinstance(c, LooksConfig)]
    assert first and all(store.get(config) for config in first)
    held = LooksStore(artifacts.REPOSITORY / "results")
    assert looks and all(held.get(config) for config in looks)
    eighth = plan.new_runs(given("quick", "08"))["08_imbalance"]
    stores = {LooksConfig: held, RunConfig: store, StridesConfig: StridesStore(artifacts.REPOSITORY / "results")}
    assert {type(config) for config in eighth} == {*stores}
    assert all(stores[type(config)].get(config) for config in eighth)


def test_every_notebook_that_trains_is_counted_whole_or_said_to_be_in_part():
    """What has no count of its own is counted by what its parameters name."""
    values = given("smoke", *map(artifacts.number_of, parameters.SCHEMAS))
    assert values.keys() == parameters.SCHEMAS.keys()
    for name, trains in ((name, issubclass(schema, parameters.OnData)) for name, schema in parameters.SCHEMAS.items()):
        assert bool(planned.runs(name, values[name])) == trains
        assert planned.partly(name) == (trains and name not in planned.NOTEBOOKS)
    [(name, of_first)] = given("quick", "01").items()  # all with published settings
    assert {c.key for c in planned._named(name, of_first)} <= {c.key for c in planned.runs(name, of_first)}


def test_a_search_by_hand():
    """Smoke's 01: 16 methods and 2 single tasks at 2 rates with one seed; of each the chosen ones with a second seed,
    and the uniform loss at the rate that it has not. An exercise adds fixed weights, by seed."""
    [(_, values)] = given("smoke", "01").items()
    every = planned.runs("01_mnist_selection", values)
    configs = [config for config in every if config.smto != "fixed"]
    assert [config.seed for config in every if config.smto == "fixed"] == values["seeds"]
    first = [config for config in configs if config.seed == values["details"]["search_seeds"][0]]
    rates = len(values["details"]["grid"]["lr"])
    assert len(first) == rates * (len(values["methods"]) + 2)
    second = [config for config in configs if config not in first]
    reported = {config.lr for config in second if config.smto != "unit_scal"}
    alone = [config for config in second if config.problem != "multimnist/CL_RR"]
    uniform = [config for config in second if config.smto == "unit_scal" and config not in alone]
    assert len(alone) == 2 and {config.lr for config in uniform} >= reported
    assert len(second) == len(values["methods"]) - 1 + len(uniform) + len(alone)


UNIFORM = Shape("multimnist/CL_RR", (), 256, "losses")


def test_hours_by_hand():
    """Three epochs of 4 steps; 600 samples are evaluated after each, at a third of a step of 256."""
    config = RunConfig.of(**DIGITS, epochs=3, batch_size=256, smto="cagrad")
    taken = plan.shapes([config])
    assert plan.steps(config) == 12
    assert taken == {UNIFORM._replace(way="parameters"): 12, UNIFORM: pytest.approx(3 * 600 / 256 / 3)}
    seconds = {"losses": 1.0, "parameters": 100.0}
    known = plan.measured(taken, lambda one, amp=False: seconds[one.way] * (0.25 if amp else 1), bfloat16=True)
    assert known.hours(taken) == pytest.approx((1200 + 600 / 256) / 3600)
    trained = plan.shapes([config], evaluated=False)
    assert trained == {UNIFORM._replace(way="parameters"): 12}
    assert known.saved(trained) == pytest.approx(0.75 * 1200 / 3600)  # evaluation is in float32
    assert known.notes(taken)[0] == "Measured: multimnist/CL_RR, unit_scal, 256 samples: 1,000 ms per step."


def test_autocast_is_measured_once_per_family(monkeypatch):
    """On the lightest of each. Where there is no bfloat16 nothing is measured for it."""
    monkeypatch.setattr(calibration, "work", lambda one: calibration.SLOW * one.batch / 256)
    asked = []

    def seconds(one: Shape, amp: bool = False) -> float:
        asked.append((one.batch, amp))
        return one.batch / 256 * (0.5 if amp else 1)

    taken = {UNIFORM: 1.0, UNIFORM._replace(batch=64): 1.0}
    known = plan.measured(taken, seconds, bfloat16=True)
    assert asked == [(64, False), (256, False), (64, True)] and known.amp == {"multimnist": 0.5}
    asked.clear()
    known = plan.measured(taken, seconds, bfloat16=False)
    assert asked == [(64, False), (256, False)] and known.saved(taken) is None
    assert "not measured" in known.notes(taken)[-1]
    assert plan.table([plan.Row("01_a", *[1] * 5, None, *[1] * 5)]).count("| – |") == 1


def test_a_step_that_does_not_fit_into_memory_is_measured_with_fewer_samples():
    """A GPU with room for 40 samples; then one with room for none, of which nothing is known."""
    asked = []

    def clock(room: int) -> Callable[[Shape], float]:
        def seconds(one: Shape) -> float:
            asked.append(one.batch)
            if one.batch > room:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return 0.5

        return seconds

    found = Steps()
    found.measure([UNIFORM], clock(40), longest=1e9)
    assert asked == [256, 128, 64, 32] and found.seconds(UNIFORM) == 4.0
    empty = Steps()
    empty.measure([UNIFORM], clock(1), longest=1e9)
    assert empty == {}


@pytest.mark.parametrize(
    ("steps", "fastest"), [([9.0, 3.0, 1.0], 3.0), ([0.4, 0.2, 0.1], 0.2), ([0.1, 0.1, 0.2, 0.1, 0.05], 0.1)]
)
def test_a_step_is_measured_twice_at_least_and_the_first_is_slow(monkeypatch, steps, fastest):
    """Two steps, however long; more up to half a second, and four at most."""
    ticks = iter(itertools.accumulate(itertools.chain(*((0, one) for one in steps))))
    monkeypatch.setattr(calibration.time, "process_time", lambda: next(ticks))
    monkeypatch.setattr(calibration, "one_step", lambda found, device, amp: lambda: None)
    assert calibration.seconds(UNIFORM, torch.device("cpu")) == pytest.approx(fastest)


def test_measuring_takes_what_counting_has_left_of_the_time(monkeypatch):
    """Half a minute, or less, and never nothing."""
    monkeypatch.setattr(calibration, "work", lambda one: 1.0)
    monkeypatch.setattr(plan.time, "perf_counter", lambda: 100.0)
    longest = []
    monkeypatch.setattr(Steps, "measure", lambda self, order, seconds, most: longest.append(most))
    for until in (math.inf, 120.0, 101.0):
        plan.measured({UNIFORM: 1.0}, lambda one: 1.0, False, until)
    assert longest == [calibration.LONGEST, 20.0, plan.LAST] and plan.LIMIT + plan.LAST < 150


def test_no_run_is_divided_between_devices():
    row = plan.Row("01_a", 2, 1, 1, 10.0, 10.0, None, *[0.0] * 4, longest=6.0)
    assert [row.hours_on(n) for n in (1, 2, 4)] == [10.0, 6.0, 6.0]
    assert "| 10 | 6 | 10 |" in plan.table([row], devices=4)


@pytest.mark.parametrize(("slower", "has"), [(2, True), (10, False)])
def test_a_device_has_bfloat16_where_a_product_is_not_much_slower(monkeypatch, slower, has):
    ticks = iter(itertools.accumulate([0, 1] * calibration.ROUNDS + [0, slower] * calibration.ROUNDS))
    monkeypatch.setattr(calibration.time, "perf_counter", lambda: next(ticks))
    monkeypatch.setattr(calibration, "SIDE", 2)  # the clock is ours
    assert calibration.has_bfloat16(torch.device("cpu")) is has


def test_what_is_not_measured_is_scaled_by_its_operations(monkeypatch):
    """Of its own network first, else of its own data, else of whatever is there."""
    monkeypatch.setattr(calibration, "work", lambda one: {"losses": 3.0, "parameters": 5.0}[one.way] * one.batch)
    cagrad, streets = UNIFORM._replace(way="parameters"), Shape("cityscapes/19C", (), 32, "losses")
    found = Steps({UNIFORM._replace(batch=64): 2.0})
    assert found.seconds(UNIFORM) == 8.0 and found.seconds(cagrad) == pytest.approx(8.0 * 5 / 3)
    assert found.seconds(streets) == 1.0
    found[Shape("cityscapes/R18", (), 2, "losses")] = 30.0
    assert found.seconds(streets) == 16 * 30.0
    assert f"({UNIFORM._replace(batch=64)})" in plan.Measured(found, {}).notes([cagrad])[2]


def test_a_step_that_is_too_long_is_measured_with_fewer_samples(monkeypatch):
    """A sixth of 120 s is left for a step of the first: 2 s per sample fit 8 times, not 16 times. What does not fit
    with two samples is not measured."""
    monkeypatch.setattr(calibration, "work", lambda one: 2 * calibration.SLOW * one.batch)
    asked: list[Shape] = []
    found = Steps()
    found.measure([UNIFORM], lambda one: asked.append(one) or 1.0, longest=120)
    assert asked == [UNIFORM._replace(batch=8)] and found.seconds(UNIFORM) == 32.0
    found.measure([UNIFORM], lambda one: asked.append(one) or 1.0, longest=0.1)
    assert len(asked) == 1


def test_every_family_is_measured():
    """Streets are so much work that they are expected to take too long on a device of which nothing is known."""
    lightest = [Shape(name, (), 32, "losses") for name in ("multimnist/CL", "qm9/mu", "cityscapes/R18/S")]
    for longest in (calibration.LONGEST, plan.LAST):
        asked: list[Shape] = []
        found = Steps()
        found.measure(lightest, lambda one, asked=asked: asked.append(one) or 1e-4, longest)
        assert [one.problem for one in asked] == [one.problem for one in lightest]
        assert asked[2].batch == 2 and found.like(Shape("cityscapes/19C", (), 32, "losses")) == asked[2]
    alone = Steps()
    alone.measure([lightest[0]._replace(batch=1)], lambda one: 1.0, 0.0)
    assert [one.batch for one in alone] == [1]


def test_the_lightest_of_each_family_is_measured_first(monkeypatch):
    monkeypatch.setattr(calibration, "work", lambda one: float(one.batch))
    big, small, streets = UNIFORM, UNIFORM._replace(batch=2), Shape("cityscapes/19C", (), 32, "losses")
    assert calibration.in_turn({big: 9.0, small: 1.0, streets: 5.0}) == [small, streets, big]


def test_the_operations_of_a_step():
    """One backward pass more through the encoder for the second task, three passes for a second batch."""
    losses, features, cagrad, auto = (
        calibration.work(UNIFORM._replace(batch=4, way=way))
        for way in ("losses", "features", "parameters", "auto_lambda")
    )
    assert losses <= features < cagrad < auto
    assert calibration.work(UNIFORM._replace(batch=8)) == 2 * losses


SLIM = {"cityscapes/19C": (("slim", 32), ("width", 32)), "qm9": (("slim", 4),)}


@pytest.mark.parametrize("problem", ["multimnist/CL_RR", "qm9", pytest.param("cityscapes/19C", marks=pytest.mark.slow)])
def test_memory_of_a_run(problem):
    """What the backward pass needs grows with the batch; a method that reads the gradients on the parameters keeps
    those of all tasks (on streets the most is in the heads' large maps, before there are any), and a second batch is a
    second forward pass."""
    way = calibration.Shape(problem, SLIM.get(problem, ()), 8, "losses")
    one, two, three = (calibration.memory(way._replace(batch=n)) for n in (8, 16, 24))
    assert 0 < one < two and three - two == pytest.approx(two - one, rel=0.02)
    whole = problems.get(problem, **dict(way.options))
    shared = sum(p.numel() * p.element_size() for p in whole.build_model(0.0).encoder.parameters())
    more = calibration.memory(way._replace(way="parameters")) - one
    assert more == 0 if problem == "cityscapes/19C" else more > 0.99 * len(whole.tasks) * shared
    assert calibration.memory(way._replace(way="auto_lambda", batch=24)) > 1.1 * three


def test_what_is_alive_by_hand():
    """Views have no bytes of their own, and what is gone has none."""
    with calibration.Alive() as alive:
        a = torch.empty(1000, device="meta")
        b = (a + 1).view(10, 100)[:3]
        assert alive.now == 8000
        del b
        assert (alive.now, alive.most) == (4000, 8000)
        c = a.double()
    assert alive.now == alive.most == 12_000 and c.is_meta


def test_every_way_of_a_step_is_measured():
    assert set(calibration.STANDS_FOR) <= {smtos.get(key).space for key in smtos.keys()}  # noqa: SIM118
    for way in (*calibration.STANDS_FOR, "auto_lambda", "famo", "rotograd"):
        shape = calibration.Shape("multimnist/CL_RR", (), 4, way)
        assert 0 < calibration.seconds(shape, torch.device("cpu")) < 10


def test_the_command(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path))
    monkeypatch.setattr(calibration, "seconds", lambda shape, device, amp=False: 0.001)
    monkeypatch.setattr(calibration, "work", lambda one: 1e6 * one.batch)
    monkeypatch.setattr(calibration, "has_bfloat16", lambda device: False)
    monkeypatch.setenv("MTL_RUNS_PER_GPU", "3")
    assert plan.main(["--preset", "smoke", "--only", "04 06", "--devices", "4"]) == 0
    head, _, *lines = capsys.readouterr().out.splitlines()
    assert "hours, one core | hours, 4 cores" in head and "GiB, 4 cores of one host | GiB per GPU, 3 runs" in head
    assert [re.match(r"\| (\d\d[a-z]?)_", line)[1] for line in lines[:2]] == ["04", "06"]
    first, second = json.loads(next(tmp_path.rglob("plan.json")).read_text())["notebooks"]
    assert first["hours_on_all"] == first["hours"] / 4 > 0 and first["hours_amp"] is None and second["runs"] == 0
    assert 0 < first["longest"] <= first["hours"]
    assert first["memory_per_gpu"] == 3 * (first["memory"] + first["samples"]) > 0
    known = json.loads(next(tmp_path.rglob("plan.json")).read_text())
    assert first["memory_on_one_host"] == pytest.approx(4 * (first["memory"] + first["samples"] + known["process"]))
    assert second["memory_on_one_host"] == 0 and f"took {known['seconds']} s" in known["notes"][-1]
    capsys.readouterr()
    assert plan.main(["--preset", "papper"]) == 2
    says = capsys.readouterr().err.splitlines()
    assert len(says) == 1 and "no preset 'papper' (did you mean 'paper'?). Presets are" in says[0]
    assert plan.main(["--devices", "0"]) == 2


def test_a_gpu_holds_the_data_of_every_process_and_a_host_one_copy_of_the_maps(monkeypatch):
    """Maps of 4.5 GB at width 512 and 1.1 at 256, as the data say of themselves; a process keeps both."""
    monkeypatch.delenv("MTL_STREAM", raising=False)
    large, small, digits = (
        RunConfig.of(problem=name, smto="uw", source=source, seed=1, epochs=1, batch_size=32, lr=1e-4)
        for name, source in (("cityscapes/19C", "full"), ("cityscapes/R18", "full"), ("multimnist/CL_RR", "embedded"))
    )
    one, both = calibration.maps([large, large]), calibration.maps([large, small, digits])
    assert one / 1e9 == pytest.approx(4.55, abs=0.05) and both == pytest.approx(1.25 * one)
    assert calibration.samples([large]) == 0
    assert calibration.samples([large, digits]) == sum(digits.sizes) * calibration.PER_SAMPLE["multimnist"]
    row = plan.Row("03", 1, 1, 1, 1.0, 1.0, 1.0, memory=7.0, maps=both / plan.GIB, samples=0.5, disk=1.0, longest=1.0)
    assert row.on_gpu(2) == 2 * row.on_gpu(1) == 2 * (7.5 + both / plan.GIB)
    assert row.on_host(4, process=0.25) == 4 * 7.75 + both / plan.GIB
    assert plan._rounded(row.on_gpu(2)) in plan.table([row], runs_per_gpu=2)
    [head, _, line] = plan.table([row], devices=4, process=0.25).splitlines()
    of_host = [cell.strip() for cell in head.split("|")].index("GiB, 4 cores of one host")
    assert line.split("|")[of_host].strip() == plan._rounded(row.on_host(4, 0.25))
    assert "of one host" not in plan.table([row], devices=4, device="GPU")
    monkeypatch.setenv("MTL_STREAM", "1")
    assert calibration.maps([large]) == 0


@pytest.mark.parametrize("problem", ["multimnist/CL_RR", "qm9"])
def test_the_bytes_of_a_sample(problem):
    """Of the samples as they are loaded, at most, and not twice as many as there are."""
    sizes, seen = (2000, 100, 100), {}
    loaded = problems.get(problem).data.load("embedded", sizes, None, torch.device("cpu"), torch.float32)
    waiting = [*loaded.values()]
    while waiting:
        one = waiting.pop()
        if isinstance(one, torch.Tensor | np.ndarray):
            seen[one.data_ptr() if isinstance(one, torch.Tensor) else one.ctypes.data] = one.nbytes
        else:
            waiting += one if isinstance(one, tuple | list) else vars(one).values()
    counted = calibration.PER_SAMPLE[problem.split("/")[0]]
    found = sum(seen.values()) / sum(sizes)
    assert found / 2 < counted and (problem != "qm9" or found <= 1.1 * counted)


def test_why_published_takes_more_is_said_where_it_does():
    dear, cheap = (
        plan.Row(name, 1, 1, 1, 2.0, hours, 1.0, 1.0, 0.0, 0.0, 1.0, 10.0 * hours)
        for name, hours in (("05_fixed_weights", 3), ("04_qm9", 1))
    )
    says = plan.notes("paper", "one core", [dear, cheap])
    assert any(line.startswith("05_fixed_weights take more with `search: published`") for line in says)
    assert not any("take more" in line for line in plan.notes("paper", "one core", [cheap]))
    assert any("lower bound, without the libraries' workspace" in line for line in says)
    assert any("MTL_TIME_LIMIT (in hours) has to be set: 05_fixed_weights (30)." in line for line in says)


def test_the_page_has_the_memory_of_every_method():
    """Each once; some of the numbers, counted again."""
    text = (artifacts.REPOSITORY / "docs/cluster.md").read_text(encoding="utf-8")
    head, _, *lines = text.split(plan.MEMORY[0])[1].split(plan.MEMORY[1])[0].strip().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in (head, *lines)]
    assert rows[0] == ["methods", *(f"{one.problem}, batch {one.batch}" for one in plan.LARGEST)]
    said = [(key, dict(zip(plan.LARGEST, row[1:], strict=True))) for row in rows[1:] for key in row[0].split(", ")]
    assert sorted(key for key, _ in said) == sorted(smtos.keys())
    digits, _, r18, *_, largest = plan.LARGEST
    for key, network in (("uw", digits), ("modo", digits), ("bayesagg_mtl", digits), ("cagrad", r18)):
        assert dict(said)[key][network] == plan._gib(network._replace(way=key)), key
    readme = (artifacts.REPOSITORY / "README.md").read_text(encoding="utf-8")
    of_ladder = re.search(r"^\| 03_cityscapes_ladder \|.*$", readme, re.MULTILINE)[0].split("|")
    assert float(of_ladder[9]) == float(dict(said)["auto_lambda"][largest])  # as the page says


def test_the_readme_has_the_table():
    """A row with hours for every notebook, as the command wrote it in less than 150 seconds."""
    readme = (artifacts.REPOSITORY / "README.md").read_text(encoding="utf-8")
    head, _, *lines = readme.split(plan.START)[1].split(plan.END)[0].strip().splitlines()
    taken = re.fullmatch(r"Counting and measuring took (\d+) s\.", lines[-1])
    assert taken and int(taken[1]) <= 150, lines[-1]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert head == plan.table([], devices=4).splitlines()[0] and [row[0] for row in cells] == list(parameters.SCHEMAS)
    trained = plan.new_runs(given("paper", *map(artifacts.number_of, planned.NOTEBOOKS)))
    for row in cells:
        assert (float(row[4].replace(",", "")) > 0) == bool(trained.get(row[0])), row[0]
        runs = trained.get(row[0], ())
        counts = [len(runs), sum(run.epochs_in_all for run in runs), sum(map(plan.steps, runs))]
        assert [int(cell.replace(",", "")) for cell in row[1:4]] == counts, row[0]


@pytest.mark.slow
def test_the_plan_of_the_paper_preset_needs_no_data(tmp_path):
    """A row of every notebook, with hours for each that trains into a store of its own or more than those before."""
    environment = {**os.environ, "MTL_DATA": str(tmp_path / "none"), "MTL_ARTIFACTS": str(tmp_path)}
    command = [sys.executable, "-m", "mtl_study.publishing.plan", "--preset", "paper", "--devices", "4"]
    done = subprocess.run(command, cwd=artifacts.REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = {row["notebook"]: row for row in json.loads((tmp_path / "paper" / "plan.json").read_text())["notebooks"]}
    assert list(rows) == list(parameters.SCHEMAS)
    assert {artifacts.number_of(name) for name, row in rows.items() if row["hours"] == 0} == {"00", "02b", "06"}
    for row in (row for row in rows.values() if row["hours"]):
        assert min(row[name] for name in ("hours_published", "memory", "disk")) > 0, row
        assert row["hours_amp"] is None or row["hours_amp"] > 0, row  # as the processor has bfloat16 or not
    assert not (tmp_path / "none").exists() or not any((tmp_path / "none").rglob("*.npy"))
