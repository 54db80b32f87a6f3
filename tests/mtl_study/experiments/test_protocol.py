"""The paper's protocol: published settings, or a search as the paper did it; and what a store holds of it."""

import pytest

from mtl_study.analysis import delta
from mtl_study.experiments import protocol, runner
from mtl_study.experiments.protocol import Grid
from mtl_study.experiments.runs import BadConfig, RunConfig

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
    runner.run(tried, tmp_path, workers=0)
    found = protocol.stored(problem, methods, tmp_path)
    assert [r.config for r in found.runs] == [r.config for r in e.runs]
    assert found.selected().equals(e.selected())


def test_seeds_that_were_not_asked_for_are_read_and_not_trained(tmp_path):
    """Of the same configurations only, baselines included."""
    problem, methods, settings = "multimnist/CL_RR", ["unit_scal", "edm"], {"store": tmp_path, "workers": 1, **TINY}
    both = protocol.experiment(problem, methods, seeds=[1, 2], **settings)
    runner.run([both.runs[0].config.model_copy(update={"lr": 0.004, "seed": 3})], tmp_path, workers=0)
    one = protocol.experiment(problem, methods, seeds=[2], **settings)
    before = contents(tmp_path)
    found = protocol.with_all_seeds(one, tmp_path)
    assert contents(tmp_path) == before
    for of_found, of_both in ((found.runs, both.runs), (found.baselines, both.baselines)):
        assert {r.config.key for r in of_found} == {r.config.key for r in of_both}


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
