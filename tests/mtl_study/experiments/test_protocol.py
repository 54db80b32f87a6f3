"""The paper's protocol: published settings, or a search as the paper did it; and what a store holds of it."""

import zlib

import numpy as np
import pandas as pd
import pytest

from mtl_core import problems
from mtl_study import artifacts, parameters, provenance
from mtl_study.analysis import comparisons, delta, frames
from mtl_study.experiments import protocol, runner
from mtl_study.experiments.protocol import Grid
from mtl_study.experiments.runs import BadConfig, Epoch, Run, RunConfig
from mtl_study.experiments.store import RunStore
from mtl_study.paper import published

TINY = {
    "train_size": 128,
    "val_size": 400,
    "test_size": 40,
    "epochs": 1,
    "batch_size": 64,
}  # 400: no ties on validation


def config(**settings):
    return RunConfig.of(**{"problem": "multimnist/CL_RR", "seed": 0, "lr": 0.002, **TINY, **settings})


def contents(folder):
    """Every file of a store."""
    return {path: path.read_bytes() for path in folder.rglob("*.json")}


def test_published_settings(tmp_path):
    """Every method has the paper's settings, every task its single-task reference, all seeds of both."""
    e = protocol.experiment(
        "multimnist/CL_RR", ["unit_scal", "cagrad"], seeds=[1, 2], store=tmp_path, workers=0, **TINY
    )
    assert [(r.config.smto, r.config.lr, r.config.seed) for r in e.runs] == [
        ("unit_scal", 0.001, 1),
        ("unit_scal", 0.001, 2),
        ("cagrad", 0.001, 1),
        ("cagrad", 0.001, 2),
    ]
    assert e.runs[2].config.options == {"c": 0.8}
    assert {(r.config.problem, r.config.lr, r.config.dropout) for r in e.baselines} == {
        ("multimnist/CL", 0.0025, 0.5),
        ("multimnist/RR", 0.0025, 0.0),
    }
    assert set(e.settings["chosen"]) == {"published"}
    assert len(e.selected()) == 4


def test_the_runs_of_a_method_are_found_by_seed_and_gains_have_no_levels(make_run):
    ends = {"unit_scal": 0.9, "edm": 0.95}
    runs = [make_run([{"CL": end, "RR": 0.4}], smto=smto, seed=seed) for smto, end in ends.items() for seed in (1, 2)]
    alone = [make_run([{name: 1.0 if name == "CL" else 0.4}]) for name in ("CL", "RR")]
    found = protocol.Experiment(problems.get("multimnist/CL_RR"), runs, alone, pd.DataFrame(), [])
    assert found.of("edm") == runs[2:] and found.of("edm", [2]) == runs[3:] and found.of("imtl") == []
    gains = found.gains(runs[2:])
    assert gains.CL.tolist() == pytest.approx([-5, -5]) and gains.RR.tolist() == pytest.approx([0, 0])
    assert set(gains) < set(found.selected(runs[2:]))


@pytest.mark.slow
def test_search_picks_by_mean_validation_delta_m(tmp_path):
    """The chosen learning rate is the one with the best mean best-epoch validation Δm over the search seeds; the extra
    seed is then run for it alone."""
    grid = Grid(lr=[0.002, 1e-7])
    e = protocol.experiment(
        "multimnist/CL_RR",
        ["unit_scal", "edm"],
        seeds=[1, 2, 3],
        search="grid",
        search_seeds=[1, 2],
        grid=grid,
        store=tmp_path,
        workers=0,
        **{**TINY, "train_size": 1280, "epochs": 3},  # enough for a step size to matter
    )
    assert {(r.config.smto, r.config.lr, r.config.seed) for r in e.runs} == {
        (smto, 0.002, seed) for smto in ("unit_scal", "edm") for seed in (1, 2, 3)
    }
    assert len(e.searched) == 2 * 2 * 4  # settings × search seeds × (two single tasks and two methods)
    table = delta.selected(
        [r for r in e.searched if r.config.problem == "multimnist/CL_RR"],
        delta.single_task_baselines(e.baselines, e.problem.tasks),
        e.problem.tasks,
    )
    means = table.groupby(["smto", "config"])["val_delta_m"].mean()
    for smto in ("unit_scal", "edm"):
        assert '"lr":0.002' in means[smto].idxmax()
    assert e.settings["chosen"].str.contains("2 configurations × 2 seeds").all()


@pytest.mark.slow
def test_what_a_store_holds_is_found_without_training(tmp_path):
    """Of each method the best configuration on validation, among the runs made alike that are most; None where a
    single task is missing."""
    problem, methods = "multimnist/CL_RR", ["unit_scal", "edm"]
    settings = {"search": "grid", "search_seeds": [1], "grid": Grid(lr=[0.002, 1e-7]), "store": tmp_path, "workers": 1}
    e = protocol.experiment(problem, methods, seeds=[1, 2], **settings, **TINY)
    runner.run([config(seed=1, epochs=2, smto="edm"), config(seed=1, smto="pcgrad")], tmp_path, workers=0)
    found = protocol.stored(problem, methods, tmp_path)
    assert [r.config for r in found.runs] == [r.config for r in e.runs]
    assert {r.config.key for r in found.baselines} == {r.config.key for r in e.baselines}
    assert found.selected().equals(e.selected())
    assert protocol.stored("multimnist/CL_CR", methods, tmp_path) is None
    assert protocol.stored("qm9 with wings", methods, tmp_path) is None


def test_of_several_settings_in_a_store_the_published_ones_are_taken(tmp_path):
    """However well the others do: a method that happens to have been tried more often must not gain by it."""
    problem, methods = "multimnist/CL_RR", ["unit_scal", "cagrad"]
    e = protocol.experiment(problem, methods, seeds=[1], store=tmp_path, workers=0, **TINY)
    tried = [
        r.config.model_copy(update={"lr": lr, "seed": seed}) for r in e.runs for lr in (0.002, 0.004) for seed in (1, 2)
    ]
    runner.run([*tried, e.runs[0].config.model_copy(update={"batch_size": 32})], tmp_path, workers=0)
    provenance.forget()
    found = protocol.stored(problem, methods, tmp_path)
    assert [r.config for r in found.runs] == [r.config for r in e.runs]
    assert found.selected().equals(e.selected())
    behind = {c.key for c in tried} | {r.key for r in [*e.runs, *e.baselines]}
    assert {place.rpartition("/")[2] for place in provenance.records()} == behind  # and not that of another batch


# -- with stand-ins for training: what is chosen and what is read back, on every problem of the paper ------------------


def stand_in(config):
    """A record that nobody trained: its metrics follow from its configuration, the seed moves them a little."""
    luck = np.random.default_rng(zlib.crc32(frames.configuration(config).encode()))
    level, chance = luck.uniform(0.4, 0.6), np.random.default_rng(config.seed).normal(0, 0.01)
    tasks = config.definition.tasks
    values = {task.name: {metric: float(level + chance) for metric in task.metrics} for task in tasks}
    weights = [1 / len(tasks)] * len(tasks)
    epoch = Epoch(
        lr=config.lr,
        train_losses=weights,
        val=values,
        test=values,
        weights=weights,
        head_weights=weights,
        diagnostics={},
        flags={},
        gradients={},
    )
    history = [epoch] * config.epochs
    versions = config.identity["numerics"]
    return Run(config=config, code_versions=versions, ended="finished", history=history, seconds=1.0, environment={})


@pytest.fixture
def untrained(monkeypatch):
    """Runs are made by hand instead of by training; a store holds them like any others."""

    def run(configs, store, **_):
        store = store if isinstance(store, RunStore) else RunStore(store)
        for config in (configs := list(configs)):
            if store.get(config) is None:
                store.put(stand_in(config))
        return [store.get(config) for config in configs]

    monkeypatch.setattr(runner, "run", run)
    return run


SMALL = {"train_size": 128, "val_size": 40, "test_size": 40, "batch_size": 64, "epochs": 1}
OF_FAMILY = {"cityscapes": {"problem_options": {"width": 64, "slim": 4}}, "qm9": {"schedule": "plateau"}}


def reduced(name):
    """The paper's protocol for a problem on a grid of two learning rates, that of the uniform loss and the last. On the
    digits with fewer seeds, and without the methods' own options."""
    axes, (search_seeds, seeds) = published.axes(name), published.seeds(name)
    grid = Grid(
        [published.best(name)["lr"], axes["lr"][-1]],
        weight_decay=axes["weight_decay"][:2],
        options=not name.startswith("multimnist"),
    )
    methods = [smto for smto in published.methods(name) if smto != "fixed"]
    plan = {"search": "grid", "grid": grid, "search_seeds": search_seeds[:2], "seeds": seeds[:3]}
    return methods, {**plan, **SMALL, **OF_FAMILY.get(name.split("/")[0], {})}


def same(found, experiment):
    """Whether a store gives what an experiment reported: runs, baselines, every number."""
    assert {r.config.key for r in found.runs} == {r.config.key for r in experiment.runs}
    assert {r.config.key for r in found.baselines} == {r.config.key for r in experiment.baselines}
    ours, theirs = (e.selected().sort_values(["smto", "seed"], ignore_index=True) for e in (found, experiment))
    pd.testing.assert_frame_equal(ours, theirs)
    return True


@pytest.mark.parametrize("name", published.problems())
def test_after_a_search_the_store_gives_what_the_search_reports(name, tmp_path, untrained):
    """On every problem: all reported seeds of the chosen configuration, although the search has tried the published one
    with its own seeds. What other notebooks add to the store changes nothing: the published settings, other learning
    rates or another regularisation with every seed."""
    methods, settings = reduced(name)
    e = protocol.experiment(name, methods, store=tmp_path, **settings)
    counts = e.selected().groupby("smto").size()
    assert set(counts.index) == set(methods) and set(counts) == {len(settings["seeds"])}
    assert set(e.reference().n) == {len(settings["seeds"])}
    found = protocol.stored(name, methods[1:], tmp_path)
    assert same(found, e) and list(dict.fromkeys(r.config.smto for r in found.runs)) == methods
    others = [r.config.model_copy(update=change) for r in e.runs for change in ({"lr": 0.3}, {"weight_decay": 0.7})]
    published_too = [RunConfig.of(**r.config.model_dump() | published.best(name, r.config.smto)) for r in e.runs]
    axes = {axis: getattr(settings["grid"], axis) for axis in ("lr", "dropout", "weight_decay")}
    tried = [c for c in published_too if all(getattr(c, axis) in values for axis, values in axes.items())]
    assert tried or name == "multimnist/CL_CR"  # there the paper has dropout
    untrained([*others, *tried], tmp_path)
    assert same(protocol.stored(name, methods[1:], tmp_path), e)


def test_published_settings_are_read_back_with_every_seed(tmp_path, untrained):
    """Where a sweep of learning rates has fewer seeds, or as many."""
    name, (methods, _) = "multimnist/CL_CR", reduced("multimnist/CL_CR")
    e = protocol.experiment(name, methods, seeds=[1, 2, 3, 4, 5], store=tmp_path, **SMALL)
    swept = [r.config.model_copy(update={"lr": lr}) for r in e.runs for lr in (0.02, 0.03)]
    untrained([c for c in swept if c.seed < 4 or c.lr == 0.03], tmp_path)
    assert same(protocol.stored(name, methods[1:], tmp_path), e)
    untrained([r.config.model_copy(update={"lr": 0.02}) for r in e.baselines], tmp_path)
    assert same(protocol.stored(name, methods[1:], tmp_path, search="published"), e)


@pytest.mark.parametrize("name", published.problems())
def test_of_the_shipped_records_those_are_read_that_quick_reports(name):
    """Whatever else ships: the published settings, with quick's five seeds or its three, and more for some."""
    store, methods = RunStore(artifacts.REPOSITORY / "results"), published.methods(name)
    others = [smto for smto in methods if smto not in ("unit_scal", "fixed")]
    settings = parameters.settings_of("quick", name)
    found = protocol.stored(name, others, store, **settings)
    if found is None:
        assert not name.startswith(("multimnist", "qm9"))
        return
    assert found.chosen and all(protocol._is_published(run.config) is not False for run in found.runs)
    seeds = range(1, 6) if name.startswith("multimnist") else range(1, 4)
    for smto in found.selected().smto.unique():
        assert {*seeds} <= {run.config.seed for run in found.of(smto)}, smto


def test_of_a_store_with_runs_of_several_presets_those_are_read_that_are_asked_for(tmp_path, untrained):
    """More runs of another length or on fewer pictures do not take their place."""
    name, methods = "cityscapes/R18", ["unit_scal", "imtl"]
    few = {**SMALL, "problem_options": {"width": 64, "slim": 4}}
    e = protocol.experiment(name, methods, seeds=[1, 2], store=tmp_path, **few)
    other = few | {"epochs": 2, "train_size": 64}
    larger = protocol.experiment(name, methods, seeds=[1, 2, 3], store=tmp_path, **other)
    assert same(protocol.stored(name, ["imtl"], tmp_path), larger)
    assert same(protocol.stored(name, ["imtl"], tmp_path, **few), e)
    assert same(protocol.stored(name, ["imtl"], tmp_path, **other), larger)
    assert protocol.stored(name, ["imtl"], tmp_path, **few | {"epochs": 3}) is None


@pytest.mark.parametrize("name", ["cityscapes/19C", "cityscapes/R18"])
def test_published_single_tasks_have_the_settings_that_the_paper_chose_metric_by_metric(name, tmp_path, untrained):
    """Disparity has 0.001 for its absolute error and 0.0005 for its relative one, whichever is better here."""
    e = protocol.experiment(name, ["unit_scal"], seeds=[1, 2], store=tmp_path, **SMALL, **OF_FAMILY["cityscapes"])
    reference = e.reference().sort_index()
    lr = reference.config.map(lambda config: frames.setting(config, "lr")).loc["test", "D"]
    assert lr.to_dict() == {"l1_abs": 0.001, "l1_rel": 0.0005}
    of_disparity = [r for r in e.baselines if r.config.problem.endswith("/D")]
    by_hand = {
        metric: np.mean([r.history[0].test["D"][metric] for r in of_disparity if r.config.lr == lr[metric]])
        for metric in lr.index
    }
    assert reference.value.loc["test", "D"].to_dict() == pytest.approx(by_hand)
    again = delta.single_task_baselines(e.baselines, e.problem.tasks)  # chosen on validation: one setting for both
    assert again.config.xs(("test", "D"), level=("split", "task")).nunique() == 1


def test_cdtt_takes_the_learning_rate_that_was_found_for_edm_on_qm9(tmp_path, untrained):
    """As in the paper: five runs of its search, one for each alpha, and none at another rate."""
    _, settings = reduced("qm9")
    e = protocol.experiment("qm9", ["unit_scal", "cdtt", "edm"], store=tmp_path, **settings)
    tried = [r.config for r in e.searched if r.config.smto == "cdtt"]
    (lr,) = {r.config.lr for r in e.runs if r.config.smto == "edm"}
    assert {c.lr for c in tried} == {lr} and len(tried) == len(published.grid("qm9", "cdtt")) == 5
    assert list(dict.fromkeys(r.config.smto for r in e.runs)) == ["unit_scal", "cdtt", "edm"]
    with pytest.raises(BadConfig, match="found for edm on qm9, as in the paper; name edm"):
        protocol.experiment("qm9", ["unit_scal", "cdtt"], store=tmp_path, **settings)


def test_at_one_rate_what_the_store_lacks_is_trained_only_if_asked_for(tmp_path, untrained):
    """On CL_RR CDTT and FAMO have another rate than the uniform loss: it takes the uniform loss at theirs."""
    name, methods = "multimnist/CL_RR", ["unit_scal", "cdtt", "edm", "famo"]
    e = protocol.experiment(name, methods, seeds=[1, 2, 3], store=tmp_path, **SMALL)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    table = protocol.at_one_rate(e, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == before
    rates = table.groupby("smto").rate.first()
    assert rates.isna().to_dict() == {"unit_scal": False, "cdtt": True, "edm": False, "famo": True}
    assert comparisons.paired(table).n.to_dict() == {"cdtt": 0, "edm": 3, "famo": 0}
    table = protocol.at_one_rate(e, tmp_path, train=True)
    assert table.groupby("smto").rate.first().to_dict() == {
        "unit_scal": 0.001,
        "cdtt": 0.0025,
        "edm": 0.001,
        "famo": 0.0025,
    }
    assert comparisons.paired(table).n.eq(3).all()
    assert len(list(tmp_path.rglob("*.json"))) == len(before) + 3


def test_at_one_rate_for_all_single_tasks_have_it_too(tmp_path, untrained):
    """All runs at the rate 0.01, once every single-task model of every seed is there; until then none."""
    e = protocol.experiment("multimnist/CL_RR", ["unit_scal", "famo"], seeds=[1, 2], store=tmp_path, **SMALL)
    store = RunStore(tmp_path)
    at = {
        run.config.key: run.model_copy(update={"config": run.config.model_copy(update={"lr": 0.01})}) for run in e.runs
    }
    for run in at.values():
        store.put(run)
    assert protocol.at_rate(e, store, 0.01).runs == []
    for run in e.baselines:
        store.put(run.model_copy(update={"config": run.config.model_copy(update={"lr": 0.01})}))
    found = protocol.at_rate(e, tmp_path, 0.01)
    assert {(run.config.smto, run.config.seed, run.config.lr) for run in found.runs} == {
        (smto, seed, 0.01) for smto in ("unit_scal", "famo") for seed in (1, 2)
    }
    assert {run.config.lr for run in found.baselines} == {0.01} and len(found.selected()) == 4


def test_options_grid_is_the_papers():
    """CAGrad's c over 0.2, 0.5, 0.8, for each learning rate and dropout."""
    settings = Grid(lr=[0.001, 0.01], dropout=[0.0, 0.3], options=True).settings("multimnist/CL_RR", "cagrad")
    assert len(settings) == 12 and {s["options"]["c"] for s in settings} == {0.2, 0.5, 0.8}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"search": "gird"}, "expected 'published'"),
        ({"search": "grid", "search_seeds": [1]}, "needs a grid"),
        ({"search": "grid", "grid": Grid(lr=[0.1])}, "search_seeds"),
        ({"seeds": []}, "seeds is empty"),
        ({"seeds": [1, 1]}, "names a seed twice"),
        ({"lr": 0.1}, "lr: chosen by the search"),
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"methods": ["unit_scal", "cagrat"]}, "did you mean 'cagrad'"),
        ({"methods": ["cagrad"]}, "lacks 'unit_scal'"),
    ],
    ids=str,
)
def test_bad_experiments_are_refused(tmp_path, settings, message):
    given = {
        "problem": "multimnist/CL_RR",
        "methods": ["unit_scal"],
        "seeds": [1],
        "store": tmp_path,
        **TINY,
        **settings,
    }
    with pytest.raises(ValueError, match=message):
        protocol.experiment(**given)


def test_an_empty_grid_is_refused():
    with pytest.raises(BadConfig, match="the grid of lr is empty"):
        Grid(lr=[])
