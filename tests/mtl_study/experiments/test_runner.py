"""Many runs: nothing is trained twice, and nothing finished is lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from mtl_core.datasets import multimnist
from mtl_core.datasets.base import DataNotFound
from mtl_core.smtos import registry
from mtl_study.experiments import engines, runner, training
from mtl_study.experiments.runs import RunConfig
from mtl_study.experiments.store import RunStore, StoreError

TINY = {"train_size": 128, "val_size": 40, "test_size": 40, "epochs": 1, "batch_size": 64}


def config(**settings):
    return RunConfig.of(**{"problem": "multimnist/CL_RR", "seed": 0, "lr": 0.002, **TINY, **settings})


def contents(folder):
    """Every file of a store, without the seconds; nothing but records may be there."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        record = json.loads(path.read_text())["record"]
        del record["seconds"], record["clock"]
        files[str(path.relative_to(folder))] = json.dumps(record)
    return files


def age(path, seconds=7200):
    """Make a file look as if it had lain there for long."""
    before = time.time() - seconds
    os.utime(path, (before, before))


def test_only_what_is_missing_is_trained(tmp_path):
    """Order is kept, duplicates are one run, and a record that is there is not touched."""
    store = RunStore(tmp_path)
    configs = [config(seed=1), config(seed=0), config(seed=1)]
    first = runner.run(configs[:1], store, workers=0)
    stamp = store.path(configs[0]).stat().st_mtime_ns
    runs = runner.run(configs, store, workers=0)
    assert [r.config.seed for r in runs] == [1, 0, 1] and runs[0] == first[0] == runs[2]
    assert store.path(configs[0]).stat().st_mtime_ns == stamp
    assert len(list(store)) == 2


@pytest.mark.training
def test_workers_give_the_same_records_as_this_process(tmp_path):
    """Two worker processes and none: the same bytes."""
    configs = [config(seed=s, smto=m) for s in (0, 1) for m in ("unit_scal", "edm")]
    runner.run(configs, tmp_path / "two", workers=2)
    runner.run(configs, tmp_path / "one", workers=0)
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
        half = record.with_name(f".{record.name}.0123456789abcdef.tmp")
        half.write_text("{")
        age(half)
        record.unlink()
    for half in killed.rglob(
        ".*.tmp"
    ):  # a real one, where a kill came in the middle of writing: another run's, for an hour
        age(half)
    for folder in (killed, undisturbed):
        subprocess.run([sys.executable, script, folder], check=True, stderr=subprocess.DEVNULL)
    assert contents(killed) == contents(undisturbed)
    assert len(contents(killed)) == 5


def test_what_a_kill_leaves_does_not_disturb(tmp_path):
    """A missing record and half of one under its temporary name: the same store in the end. (Real kills: above.)"""
    configs = [config(seed=seed) for seed in (0, 1)]
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    runner.run(configs, undisturbed, workers=0)
    shutil.copytree(undisturbed, killed)
    record = RunStore(killed).path(configs[0])
    half = record.with_name(f".{record.name}.0123456789abcdef.tmp")
    half.write_text("{")
    age(half)
    record.unlink()
    runner.run(configs, killed, workers=0)
    assert contents(killed) == contents(undisturbed)


def test_a_store_that_stops_taking_records_loses_none(tmp_path):
    """Its folder for one problem is occupied by a file: the runs are kept elsewhere, and the message says where."""
    store = RunStore(tmp_path / "store")
    store.folder.mkdir()
    (store.folder / "multimnist").write_text("in the way")
    with pytest.raises(StoreError, match="copy its contents") as error:
        runner.run([config(seed=0), config(seed=1)], store, workers=0)
    refuge = RunStore(str(error.value).split("lie in ")[1].split(":")[0])
    assert {run.config.seed for run in refuge} == {0, 1}
    shutil.rmtree(refuge.folder)


class AtOnce(engines.Here):
    """Hands all that it has done back in one batch."""

    slots = 10

    def completed(self, wait):
        return [found for _ in list(self.tasks) for found in super(AtOnce, self).completed(1)]


def seeded(record, seed):
    return record.model_copy(update={"config": record.config.model_copy(update={"seed": seed})})


@pytest.fixture(scope="module")
def record():
    return training.train(config())


def test_an_interrupt_while_a_record_is_stored_loses_none_of_its_batch(tmp_path, record, monkeypatch):
    store, put = RunStore(tmp_path), RunStore.put

    def interrupted(self, run):
        monkeypatch.setattr(RunStore, "put", put)
        raise KeyboardInterrupt

    monkeypatch.setattr(runner.engines, "engine", lambda *_: AtOnce())
    monkeypatch.setattr(RunStore, "put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runner.records([config(seed=s) for s in (1, 2)], store, lambda c, *_: seeded(record, c.seed))
    assert sorted(run.config.seed for run in store) == [1, 2]
    assert len(contents(tmp_path)) == 2


def test_a_refuge_that_is_full_too_leaves_no_folder(tmp_path, record, monkeypatch):
    store, refuges = RunStore(tmp_path / "store"), tmp_path / "refuges"
    refuges.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(refuges))

    def full(self, run):
        self.path(run.config).parent.mkdir(parents=True)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunStore, "put", full)
    with pytest.raises(StoreError, match=r"nor a temporary folder .* 1 finished runs are lost"):
        runner.records([config()], store, lambda *_: record, workers=0)
    assert list(refuges.iterdir()) == []


def test_an_unwritable_store_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="name another folder as `store`"):
        runner.run([config()], tmp_path / "file" / "store", workers=0)


def test_missing_data_are_refused_before_training(tmp_path):
    with pytest.raises(DataNotFound, match="train-images"):
        runner.run([config(), config(source="full")], tmp_path / "store", workers=0, data_dir=str(tmp_path))
    assert not list((tmp_path / "store").rglob("*.json"))


def test_one_failing_run_does_not_cost_the_others(tmp_path, monkeypatch):
    """Data that cannot be read when they are loaded: that run fails by name, the other one is stored."""
    monkeypatch.setattr(multimnist, "FILES", {})  # what is to be there, so that nothing is found to be missing before
    store = RunStore(tmp_path / "store")
    with pytest.raises(runner.RunFailed, match="1 of 2 runs failed"):
        runner.run([config(), config(source="full")], store, workers=0, data_dir=str(tmp_path))
    assert [run.config.source for run in store] == ["embedded"]


def test_every_method_has_a_price():
    """What a method reads is said in words of its own; the order of the runs needs only whether it is cheap."""
    plain = {"problem": "multimnist/CL_RR", "seed": 1, "epochs": 1, "lr": 0.1}
    known = set(registry.keys()) - {"fixed", "gated"}  # which take options
    prices = {key: runner._cost(RunConfig.of(smto=key, **plain))[1] for key in known}
    assert set(prices.values()) == {1.0, 1.4} and prices["unit_scal"] == 1.0 and prices["cagrad"] == 1.4
