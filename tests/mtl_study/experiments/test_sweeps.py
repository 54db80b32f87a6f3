"""Fixed weights as runs: extracted from a run, or swept; and notebooks 02b to 05c ask for the others' records."""

import math
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml

from mtl_core import problems
from mtl_study import artifacts, parameters
from mtl_study.analysis import delta, task_weights
from mtl_study.experiments import runner, sweeps
from mtl_study.experiments.population import PopulationConfig
from mtl_study.experiments.protocol import Experiment
from mtl_study.experiments.runs import BadConfig, RunConfig
from mtl_study.experiments.store import RunStore
from mtl_study.paper import claims, published
from mtl_study.paper.claims import REPRODUCED

TINY = {"train_size": 128, "val_size": 40, "test_size": 40, "epochs": 2, "batch_size": 64}
UNIFORM = RunConfig.of(problem="multimnist/CL_RR", seed=1, lr=0.002, **TINY)
PRESETS = ("smoke", "quick", "overnight", "paper")


def values(preset, notebook):
    return yaml.safe_load((artifacts.REPOSITORY / "params" / preset / f"{notebook}.yaml").read_text())


# -- configurations ----------------------------------------------------------------------------------------------------


def test_weights_are_brought_to_sum_one_and_all_else_stays():
    first, second = sweeps.fixed(UNIFORM, [3, 1], [1, 2])
    assert first.options == {"weights": [0.75, 0.25]} and (first.smto, first.seed, second.seed) == ("fixed", 1, 2)
    assert first.model_copy(update={"smto": "unit_scal", "options": {}}).key == UNIFORM.key
    assert sweeps.fixed(UNIFORM, [3, 1], [1], lr=0.01)[0].lr == 0.01


def test_equal_weights_are_the_uniform_loss_and_its_record():
    """The plain sum's mean gives each of K tasks 1/K: the same run under the same name."""
    assert sweeps.fixed(UNIFORM, [0.2, 0.2], [1])[0].key == UNIFORM.key
    assert sweeps.fixed(sweeps.fixed(UNIFORM, [1, 9], [1])[0], [1, 1], [1])[0].key == UNIFORM.key


def test_the_last_bit_of_a_weight_does_not_name_another_run():
    """Sums in another order, on another machine: one part in 10¹⁵ more or less is the same run."""
    a, b = ([w * (1 + e) for w in (0.1, 0.9)] for e in (0, 3e-15))
    assert sweeps.fixed(UNIFORM, a, [1])[0].key == sweeps.fixed(UNIFORM, [b[0], 0.9], [1])[0].key


@pytest.mark.parametrize("weights", [[0, 0], [math.nan, 1], [1, 1, 1], [-1, 3], [1]])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(BadConfig, match=r"weights|one per task"):
        sweeps.fixed(UNIFORM, weights, [1])


def test_ratios_are_even_on_a_log_scale_with_the_uniform_loss_in_the_middle():
    found = sweeps.ratios(0.01, 100.0, 5)
    assert [w1 / w2 for w1, w2 in found] == pytest.approx([0.01, 0.1, 1, 10, 100])
    assert all(w1 + w2 == pytest.approx(1) for w1, w2 in found)
    assert [(b, a) for a, b in reversed(found)] == [pytest.approx(pair) for pair in found]
    with pytest.raises(BadConfig, match="at least two"):
        sweeps.ratios(0.1, 10, 1)


# -- runs --------------------------------------------------------------------------------------------------------------


@pytest.mark.training
def test_extraction_trains_with_what_the_run_settled_on(tmp_path):
    """The last value of the moving average, written out; the source's settings; a second call trains nothing."""
    config = UNIFORM.model_copy(update={"smto": "cagrad", "options": {"c": 0.8}, "dropout": 0.1})
    (source,) = runner.run([config], tmp_path, workers=0)
    runs = runner.run(sweeps.extracted(source, [1, 2]), tmp_path, workers=0)
    (a0, b0), (a1, b1) = (epoch.weights for epoch in source.history)
    expected = 0.9 * a0 / (a0 + b0) + 0.1 * a1 / (a1 + b1)
    for run, seed in zip(runs, [1, 2], strict=True):
        assert run.config.options["weights"] == pytest.approx([expected, 1 - expected], abs=1e-6)
        assert (run.config.seed, run.config.dropout, run.config.lr) == (seed, 0.1, 0.002)
        assert run.history[-1].weights == pytest.approx(run.config.options["weights"])
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    assert runner.run(sweeps.extracted(source, [1, 2]), tmp_path) == runs
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")} == stamps


def test_a_sweep_shares_its_middle_with_the_uniform_loss(tmp_path):
    uniform = runner.run([UNIFORM], tmp_path, workers=0)
    runs = runner.run(sweeps.front(UNIFORM, sweeps.ratios(0.1, 10, 3), [1]), tmp_path, workers=0)
    assert [run.config.smto for run in runs] == ["fixed", "unit_scal", "fixed"] and runs[1] == uniform[0]
    assert len(list(RunStore(tmp_path))) == 3
    gains = [run.history[-1].weights[0] for run in runs]
    assert gains == sorted(gains)


@pytest.mark.training
def test_at_the_start_a_network_is_untrained():
    """Loss about ln 10 for ten classes; the gradient's length by finite differences along itself; the same whatever
    came before; weights are inverse to them."""
    torch.manual_seed(99)
    start = sweeps.at_the_start(UNIFORM)
    assert list(start.index) == ["CL", "RR"] and start.loss["CL"] == pytest.approx(math.log(10), rel=0.1)
    assert sweeps.at_the_start(UNIFORM).equals(start)
    first, second = sweeps.inverse(start.loss)
    assert first + second == pytest.approx(1) and first / second == pytest.approx(
        start.loss.RR / start.loss.CL, rel=0.02
    )

    problem = UNIFORM.definition
    split = problem.data.load("embedded", UNIFORM.sizes, None, torch.device("cpu"), torch.float32)["train"]
    torch.manual_seed(UNIFORM.seed)
    model = problem.build_model(0.0).eval().double()
    x, targets = split.batch(torch.arange(UNIFORM.batch_size), problem.task_names)
    shared = list(model.encoder.parameters())
    for task, head, target in zip(problem.tasks, model.heads.values(), targets, strict=True):
        target = target.double() if target.is_floating_point() else target
        loss = task.loss(head(model.encoder(x.double())), target)
        gradient = torch.autograd.grad(loss, shared)
        length, losses = float(start.gradient[task.name]), []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                for parameter, g in zip(shared, gradient, strict=True):
                    parameter += step * g
                losses.append(float(task.loss(head(model.encoder(x.double())), target)))
                for parameter, g in zip(shared, gradient, strict=True):
                    parameter -= step * g
        assert math.sqrt((losses[0] - losses[1]) / 2e-6) == pytest.approx(length, rel=1e-3)


def test_weights_in_inverse_proportion_by_hand():
    assert sweeps.inverse([1.0, 3.0]) == [0.75, 0.25]


# -- claims ------------------------------------------------------------------------------------------------------------


def test_the_papers_table_2_reproduces_what_the_paper_says_of_it():
    parts = [part for part in claims.parts("C8") if part.paper.table]
    assert len(parts) == 4 and {claims.on_paper(part).verdict for part in parts} == {REPRODUCED}


def test_a_sweep_has_every_rate_of_a_method_and_the_uniform_loss_comes_first(tmp_path):
    fast = UNIFORM.model_copy(update={"smto": "edm", "lr": 0.01})
    runs = [SimpleNamespace(config=config) for config in (fast, UNIFORM)]
    found = sweeps.over_rates(Experiment(UNIFORM.definition, runs, [], None, []), [(0.5, 0.5), (0.9, 0.1)], [1, 2])
    assert [(c.lr, c.smto, c.seed) for c in found[:5]] == [
        (0.002, "unit_scal", 1),
        (0.002, "unit_scal", 2),
        (0.002, "fixed", 1),
        (0.002, "fixed", 2),
        (0.01, "unit_scal", 1),
    ]
    assert len(found) == 8 and {c.lr for c in found} == {0.002, 0.01}


def test_a_plan_comes_back_under_its_names_and_trains_a_run_once(monkeypatch):
    asked = []

    def run(configs, store, **how):
        asked.append((list(configs), store, how))
        return [SimpleNamespace(config=config) for config in reversed(configs)]

    monkeypatch.setattr(runner, "run", run)
    other = UNIFORM.model_copy(update={"seed": 2})
    found = sweeps.trained({"a": [UNIFORM, other], 0.1: [other]}, "there", "title", device="cpu")
    assert {name: [run.config for run in runs] for name, runs in found.items()} == {"a": [UNIFORM, other], 0.1: [other]}
    assert asked == [([UNIFORM, other, other], "there", {"title": "title", "device": "cpu"})]


def test_changed_runs_keep_their_seeds_and_weights_are_named():
    runs = [SimpleNamespace(config=config) for config in sweeps.fixed(UNIFORM, [3, 1], [1, 2])]
    found = sweeps.changed(runs, lr=0.5, dropout=0.1)
    assert [(c.seed, c.lr, c.dropout, sweeps.weights_of(c)) for c in found] == [
        (seed, 0.5, 0.1, [0.75, 0.25]) for seed in (1, 2)
    ]
    assert sweeps.weights_of(UNIFORM) == [0.5, 0.5]
    assert [c.seed for c in sweeps.again([UNIFORM, *found[:1], UNIFORM], [3, 4])] == [3, 4, 3, 4]


def test_leads_are_those_of_the_values_that_a_store_holds_whole(monkeypatch, tmp_path):
    """Without the single task RR, or without the uniform loss, a value is left out."""
    names = ("multimnist/CL", "multimnist/RR")
    edm = UNIFORM.model_copy(update={"smto": "edm"})
    variants = {
        n: sweeps.changed([SimpleNamespace(config=c) for c in (UNIFORM, edm)], batch_size=n) for n in (8, 16, 32)
    }
    singles = {
        n: [RunConfig.of(**{**variants[n][0].model_dump(), "problem": name}) for name in names] for n in variants
    }
    there = [*variants[8], *singles[8], *variants[16], singles[16][0], variants[32][1], *singles[32]]
    keys = {config.key for config in there}
    monkeypatch.setattr(
        sweeps, "held", lambda configs, store: [SimpleNamespace(config=c) for c in configs if c.key in keys]
    )
    monkeypatch.setattr(delta, "single_task_baselines", lambda runs, tasks: len(runs))
    monkeypatch.setattr(delta, "selected", lambda runs, reference, tasks: (len(runs), reference))
    monkeypatch.setattr(sweeps.slopes, "leads", lambda tables: tables)
    assert sweeps.leads(variants, [1], tmp_path) == {8: (2, 2)}
    by_rate = {0.1: variants, 0.2: {16: [edm.model_copy(update={"lr": 0.2})]}}
    table = sweeps.gains_by_batch(lambda runs: pd.DataFrame({"runs": [len(runs)]}), by_rate, [1], tmp_path)
    steps = [math.ceil(UNIFORM.sizes[0] / n) * UNIFORM.epochs for n in (8, 16, 32)]
    assert table.to_numpy().tolist() == [[n, 0.1, b, s] for n, b, s in zip((2, 2, 1), (8, 16, 32), steps, strict=True)]


# -- notebooks 02b to 05c ask for the records that are there -----------------------------------------------------------


FAMILIES = {
    "digits": ("01_mnist_selection", "multimnist/CL_RR", "methods"),
    "streets": ("03_cityscapes_ladder", "cityscapes/19C", "all_methods"),
    "molecules": ("04_qm9", "qm9", "methods"),
}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_settings_are_those_of_the_problems_own_notebook(family, preset):
    notebook, problem, methods = FAMILIES[family]
    ours, theirs = values(preset, "05_fixed_weights"), values(preset, notebook)
    assert ours["details"]["search"] == theirs["details"]["search"]
    assert (ours["source"][family], ours["data_dir"][family]) == (theirs["source"], theirs["data_dir"])
    assert set(ours["seeds"][family]) <= set(theirs["seeds"])  # more of them may be there
    for name, value in ours["details"][family].items():
        if name == "sweep_seeds":
            assert set(value) <= set(theirs["seeds"])
        else:
            assert value == theirs["details"][name], name
    assert set(ours["methods"][problem]) <= set(theirs[methods])


PARTS = {
    "02b_cosine": "02_two_similar_tasks",
    "05b_sweep_or_smto": "05_fixed_weights",
    "05c_other_ways": "05b_sweep_or_smto",
}


def test_the_parts_of_a_lesson_have_the_settings_of_the_part_before():
    """So their records are the same. Notebook 05 has those of digits in a table of their own."""
    for preset in PRESETS:
        for part, before in PARTS.items():
            ours, theirs = values(preset, part), values(preset, before)
            if before == "05_fixed_weights":
                assert {**ours.pop("details")["ratios"]}.keys() < theirs["methods"].keys()
                assert ours["methods"] == theirs["methods"]["multimnist/CL_CR"]
                assert ours["all_methods"] == theirs["methods"]["multimnist/CL_RR"]
                assert all(ours[name] == theirs[name]["digits"] for name in ("seeds", "source", "data_dir"))
                ours, theirs = values(preset, part)["details"], {**theirs["details"]["digits"]}
            else:
                assert all(ours[name] == theirs[name] for name in ("store", "seeds", "source", "data_dir"))
                ours, theirs = ours["details"], theirs["details"]
            common = ours.keys() & theirs.keys()
            assert {"epochs", "train_size", "grid"} <= common
            assert {name: ours[name] for name in common} == {name: theirs[name] for name in common}, (preset, part)
        assert values(preset, "05c_other_ways")["methods"] == values(preset, "05b_sweep_or_smto")["all_methods"]
        taken = values(preset, "05_fixed_weights")["details"]["sources"]["multimnist/CL_RR"]
        assert values(preset, "05c_other_ways")["details"]["taken_from"] == taken


@pytest.mark.parametrize("preset", PRESETS)
def test_every_run_of_a_preset_is_a_valid_configuration(preset):
    """Extraction, sweep, rates, regularisation, width and populations, for every seed: all can be constructed."""
    given, sweep, ways = (values(preset, name) for name in ("05_fixed_weights", "05b_sweep_or_smto", "05c_other_ways"))
    seeds, digits = given["seeds"]["digits"], parameters.settings_of(preset, "multimnist/CL_RR")
    del digits["search"]
    given |= {**sweep["details"], **ways["details"], **given["details"]}
    for problem in ("multimnist/CL_RR", "multimnist/CL_CR"):
        like = RunConfig.of(**digits, **published.best(problem), problem=problem, seed=1)
        ladder = sweeps.ratios(**given["ratios"][problem])
        rates = {like.lr, *(published.best(problem, smto)["lr"] for smto in given["methods"][problem])}
        configs = [config for lr in rates for config in sweeps.front(like, ladder, seeds, lr=lr)]
        assert len({config.key for config in configs}) == len(rates) * len(ladder) * len(seeds)
        assert sum(config.smto == "unit_scal" for config in configs) == len(rates) * len(seeds)
    like = RunConfig.of(**digits, **published.best("multimnist/CL_RR"), problem="multimnist/CL_RR", seed=1)
    for dropout, decay in given["kurin"]:
        RunConfig.of(**{**like.model_dump(), "dropout": dropout, "weight_decay": decay})
    assert [0.0, 0.0] in given["kurin"]  # without any regularisation, too
    for width in given["widths"]:
        RunConfig.of(**{**like.model_dump(), "problem_options": {"width": width}})
    PopulationConfig.of(
        base=like,
        baselines={"CL": {"accuracy": 0.9}, "RR": {"mse": 0.1}},
        size=given["population"]["size"],
        exploit_interval=given["population"]["exploit_interval"],
    )
    for problem, smto in given["sources"].items():
        assert smto in given["methods"][problem] and published.best(problem, smto)
        assert len(problems.get(problem).tasks) in (2, 3, 11)


def test_the_papers_own_weights_on_qm9_can_be_trained():
    """All four sets, at the learning rate that the paper trains them with."""
    given, molecules = values("paper", "05_fixed_weights")["details"], parameters.settings_of("paper", "qm9")
    del molecules["search"]
    like = RunConfig.of(**molecules, **published.best("qm9", "unit_scal"), problem="qm9", seed=1)
    for lr in given["nash_lr"]:
        weights = list(published.qm9_fixed_weights(lr).values())
        (config,) = sweeps.fixed(like, weights, [1], lr=given["fixed_lr"])
        assert config.options["weights"] == pytest.approx(weights, abs=1e-6) and config.lr == 0.001


def test_extraction_needs_a_method_with_weights(make_run):
    run = make_run([{"CL": 0.9, "RR": 0.1}], smto="rotograd", weights=[[None, None]])
    with pytest.raises(ValueError, match="gives no weights"):
        task_weights.fixed_weights(run)


def test_the_uniform_loss_stands_beside_every_configuration_with_its_settings():
    edm = RunConfig.of(problem="multimnist/CL_RR", smto="edm", seed=1, epochs=2, lr=0.01, dropout=0.1)
    si = RunConfig.of(problem="multimnist/CL_RR", smto="si", seed=1, epochs=2, lr=0.01, dropout=0.1)
    found = sweeps.with_uniform([edm, si], [6, 7])
    assert {(c.smto, c.lr, c.dropout, c.seed) for c in found} == {
        (smto, 0.01, 0.1, seed) for smto in ("edm", "si", "unit_scal") for seed in (6, 7)
    }
    assert len(found) == 6


def test_other_batches_take_as_many_steps_and_end_at_the_same_step_size(tmp_path):
    """12,000 pairs: 40 epochs of 256 are 1,880 steps, as are ten of 64; of 24,000 in one epoch they are too few."""
    config = RunConfig.of(problem="multimnist/CL_RR", seed=1, epochs=40, lr=0.001, train_size=12_000)
    found = sweeps.batches([config], [1, 64, 256])
    assert list(found) == [64, 256] and found[256] == [config]
    (other,) = found[64]
    assert (other.epochs, other.batch_size) == (10, 64)
    assert other.lr_decay**10 == pytest.approx(0.95**40, rel=1e-4)
    assert sweeps.held(found[64], tmp_path) == []  # nothing is trained


def test_features_and_tasks_are_varied_and_nothing_else():
    config = RunConfig.of(problem="multimnist/CL_RR", smto="rotograd", seed=1, epochs=1, lr=0.001)
    wide = sweeps.features([config])
    assert list(wide) == [25, 50, 100, 200] and wide[50] == [config]
    assert all(c.definition.feature_shape == (n,) for n, (c,) in wide.items())
    many = sweeps.more_tasks([config])
    assert list(many) == [2, 3, 4] and many[2] == [config]
    assert all({c.smto, c.lr, c.seed} == {"rotograd", 0.001, 1} for (c,) in many.values())
