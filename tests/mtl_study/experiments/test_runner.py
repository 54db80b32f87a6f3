"""Many runs: nothing is trained twice, nothing finished is lost, and the search does what the paper says."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time

import pytest

from mtl_core.datasets.multimnist import FILES, DataNotFound
from mtl_study.analysis import delta
from mtl_study.experiments import protocol, runner
from mtl_study.experiments.protocol import Grid
from mtl_study.experiments.runs import BadConfig, RunConfig
from mtl_study.experiments.store import RunStore, StoreError

TINY = {"train_size": 128, "val_size": 40, "test_size": 40, "epochs": 1, "batch_size": 64}


def config(**settings):
    return RunConfig.of(**{"problem": "multimnist/CL_RR", "seed": 0, "lr": 0.002, **TINY, **settings})


def contents(folder):
    """Every file of a store, without the seconds."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        record = json.loads(path.read_text())
        record.pop("seconds")
        files[str(path.relative_to(folder))] = json.dumps(record)
    return files


def test_only_what_is_missing_is_trained(tmp_path):
    """Order is kept, duplicates are one run, and a record that is there is not touched."""
    store = RunStore(tmp_path)
    configs = [config(seed=1), config(seed=0), config(seed=1)]
    first = runner.run(configs[:1], store, workers=1)
    stamp = store.path(configs[0]).stat().st_mtime_ns
    runs = runner.run(configs, store, workers=1)
    assert [r.config.seed for r in runs] == [1, 0, 1] and runs[0] == first[0] == runs[2]
    assert store.path(configs[0]).stat().st_mtime_ns == stamp
    assert len(list(store)) == 2


@pytest.mark.training
def test_workers_give_the_same_records_as_this_process(tmp_path):
    """Two worker processes and none: the same bytes."""
    configs = [config(seed=s, smto=m) for s in (0, 1) for m in ("unit_scal", "edm")]
    runner.run(configs, tmp_path / "two", workers=2)
    runner.run(configs, tmp_path / "one", workers=1)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


SWEEP = """
import sys
from mtl_study.experiments import runner
from mtl_study.experiments.runs import RunConfig
configs = [RunConfig.of(problem="multimnist/CL_RR", seed=s, lr=0.002, train_size=640, val_size=40, test_size=40,
                        epochs=2,
                        batch_size=64) for s in range(5)]
if __name__ == "__main__":
    runner.run(configs, sys.argv[1], workers=2)
"""


@pytest.mark.slow
def test_killed_at_any_moment_and_started_again(tmp_path):
    """SIGKILL after the first record, then again a little later: in the end the store is that of an undisturbed
    sweep."""
    script = tmp_path / "sweep.py"
    script.write_text(SWEEP)
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    for wanted in (1, 3):
        process = subprocess.Popen([sys.executable, script, killed], start_new_session=True, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 600
        while len(list(killed.rglob("*.json"))) < wanted and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert list(killed.rglob("*.json")), "nothing was stored before the kill"
    for record in list(killed.rglob("*.json"))[:1]:  # what a kill in the middle of writing leaves
        record.with_name(f".{record.name}.999999999-1.tmp").write_text("{")
        record.unlink()
    for folder in (killed, undisturbed):
        subprocess.run([sys.executable, script, folder], check=True, stderr=subprocess.DEVNULL)
    assert contents(killed) == contents(undisturbed)
    assert len(contents(killed)) == 5


def test_what_a_kill_leaves_does_not_disturb(tmp_path):
    """A missing record and half of one under its temporary name: the same store in the end. (Real kills: above.)"""
    configs = [config(seed=seed) for seed in (0, 1)]
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    runner.run(configs, undisturbed, workers=1)
    shutil.copytree(undisturbed, killed)
    record = RunStore(killed).path(configs[0])
    record.with_name(f".{record.name}.999999999-1.tmp").write_text("{")
    record.unlink()
    runner.run(configs, killed, workers=1)
    assert contents(killed) == contents(undisturbed)


def test_a_store_that_stops_taking_records_loses_none(tmp_path):
    """Its folder for one problem is occupied by a file: the runs are kept elsewhere, and the message says where."""
    store = RunStore(tmp_path / "store")
    store.folder.mkdir()
    (store.folder / "multimnist").write_text("in the way")
    with pytest.raises(StoreError, match="copy its contents") as error:
        runner.run([config(seed=0), config(seed=1)], store, workers=1)
    refuge = RunStore(str(error.value).split("lie in ")[1].split(":")[0])
    assert {run.config.seed for run in refuge} == {0, 1}
    shutil.rmtree(refuge.folder)


def test_an_unwritable_store_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="name another folder"):
        runner.run([config()], tmp_path / "file" / "store", workers=1)


def test_missing_data_are_refused_before_training(tmp_path):
    with pytest.raises(DataNotFound, match="train-images"):
        runner.run([config(), config(source="full")], tmp_path / "store", workers=1, data_dir=str(tmp_path))
    assert not list((tmp_path / "store").rglob("*.json"))


def test_one_failing_run_does_not_cost_the_others(tmp_path):
    """MNIST files of the right size but without MNIST in them: that run fails by name, the other one is stored."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, size in FILES.items():
        (raw / name).write_bytes(struct.pack(">i", 7) + bytes(size - 4))
    store = RunStore(tmp_path / "store")
    with pytest.raises(runner.RunFailed, match="1 of 2 runs failed"):
        runner.run([config(), config(source="full")], store, workers=1, data_dir=str(tmp_path))
    assert [run.config.source for run in store] == ["embedded"]


def test_published_settings(tmp_path):
    """Every method has the paper's settings, every task its single-task reference, all seeds of both."""
    e = protocol.experiment(
        "multimnist/CL_RR", ["unit_scal", "cagrad"], seeds=[1, 2], store=tmp_path, workers=1, **TINY
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
        workers=1,
        **TINY,
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
    runner.run([config(seed=1, epochs=2, smto="edm"), config(seed=1, smto="pcgrad")], tmp_path, workers=1)
    found = protocol.stored(problem, methods, tmp_path)
    assert [r.config for r in found.runs] == [r.config for r in e.runs]
    assert {r.config.key for r in found.baselines} == {r.config.key for r in e.baselines}
    assert found.selected().equals(e.selected())
    assert protocol.stored("multimnist/CL_CR", methods, tmp_path) is None
    assert protocol.stored("qm9 with wings", methods, tmp_path) is None


def test_of_several_settings_in_a_store_the_published_ones_are_taken(tmp_path):
    """However well the others do: a method that happens to have been tried more often must not gain by it."""
    problem, methods = "multimnist/CL_RR", ["unit_scal", "cagrad"]
    e = protocol.experiment(problem, methods, seeds=[1], store=tmp_path, workers=1, **TINY)
    tried = [
        r.config.model_copy(update={"lr": lr, "seed": seed}) for r in e.runs for lr in (0.002, 0.004) for seed in (1, 2)
    ]
    runner.run(tried, tmp_path, workers=1)
    found = protocol.stored(problem, methods, tmp_path)
    assert [r.config for r in found.runs] == [r.config for r in e.runs]
    assert found.selected().equals(e.selected())


def test_seeds_that_were_not_asked_for_are_read_and_not_trained(tmp_path):
    """Of the same configurations only, baselines included."""
    problem, methods, settings = "multimnist/CL_RR", ["unit_scal", "edm"], {"store": tmp_path, "workers": 1, **TINY}
    both = protocol.experiment(problem, methods, seeds=[1, 2], **settings)
    runner.run([both.runs[0].config.model_copy(update={"lr": 0.004, "seed": 3})], tmp_path, workers=1)
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
