"""A run that continues from a checkpoint is the run that was never stopped."""

import io
import math
import random
from collections import deque

import numpy as np
import pytest
import torch

from mtl_core import smtos
from mtl_study.experiments import leases, runner, training
from mtl_study.experiments.checkpoints import Checkpoint
from mtl_study.experiments.runs import RunConfig
from mtl_study.experiments.store import RunStore

TINY = {"train_size": 192, "val_size": 40, "test_size": 40, "batch_size": 64, "lr": 0.002, "seed": 3, "dropout": 0.2}
NEEDED = {"fixed": {"weights": [0.3, 0.7]}}
METHODS = [key for key in smtos.keys() if key != "bayesagg_mtl"]  # noqa: SIM118  (that one: below, on molecules)


def config(**settings):
    return RunConfig.of(**{"problem": "multimnist/CL_RR", **TINY, **settings})


def numbers(run):
    return run.model_dump(exclude={"seconds", "clock", "environment"})


def stopped(run, file, after=1):
    """Train so many epochs of a run and leave a checkpoint."""
    training.train(run.model_copy(update={"epochs": after}), checkpoint=file, keep=True)
    assert file.exists()


@pytest.mark.training
def test_every_method_goes_on_bit_for_bit(tmp_path):
    """Stopped after one of two epochs: weights, moments, what the method remembers, orders, masks and second batches
    are where they were. The checkpoint is gone at the end."""
    file = tmp_path / "run.checkpoint"
    for smto in METHODS:
        run = config(smto=smto, options=NEEDED.get(smto, {}), epochs=2)
        stopped(run, file)
        assert numbers(training.train(run, checkpoint=file)) == numbers(training.train(run)), smto
        file.unlink()


@pytest.mark.training
@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": "plateau", "lr_decay": 0.5},
        {"schedule": "plateau_on_validation", "lr_decay": 0.5},
        {"precision": "float64"},
        {"smto": "auto_lambda", "options": {"meta_split": "validation"}},
        {"smto": "rotograd", "options": {"inner": "cagrad"}},
        {"problem": "cityscapes/R18", "problem_options": {"width": 32, "slim": 16}, "batch_size": 8, "train_size": 16}
        | {"val_size": 8, "test_size": 8},
        {"problem": "qm9", "problem_options": {"max_atoms": 9, "slim": 4}, "dropout": 0.0, "train_size": 60}
        | {"batch_size": 30, "val_size": 20, "test_size": 20},
        {"smto": "bayesagg_mtl", "options": {"warm_up": 1}, "problem": "qm9", "dropout": 0.0, "train_size": 60}
        | {"problem_options": {"max_atoms": 9, "slim": 4}, "batch_size": 30, "val_size": 20, "test_size": 20},
    ],
    ids=lambda settings: " ".join(map(str, settings.values()))[:40],
)
def test_every_schedule_and_problem_goes_on_bit_for_bit(settings, tmp_path):
    run = config(**settings, epochs=3)
    stopped(run, tmp_path / "run.checkpoint", after=2)
    assert numbers(training.train(run, checkpoint=tmp_path / "run.checkpoint")) == numbers(training.train(run))


@pytest.mark.training
def test_only_what_is_missing_is_trained(tmp_path, monkeypatch):
    """Lengthening costs the difference; the clock continues."""
    file = tmp_path / "run.checkpoint"
    stopped(config(epochs=3), file, after=2)
    epochs = []
    monkeypatch.setattr(training.Training, "epoch", _counting(training.Training.epoch, epochs))
    run = training.train(config(epochs=3), checkpoint=file, keep=True)
    assert len(epochs) == 1 and len(run.history) == 3 and run.clock == sorted(run.clock)
    assert run.seconds >= run.clock[-1] > run.clock[0]
    assert file.exists()  # it may be lengthened once more


def _counting(epoch, calls):
    def counted(self):
        calls.append(self)
        epoch(self)

    return counted


@pytest.mark.training
def test_a_checkpoint_is_written_every_so_often(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(Checkpoint, "save", lambda self, state, over=False: saved.append(len(state["history"])))
    training.train(config(epochs=4), checkpoint=tmp_path / "c", every=0)
    assert saved == [1, 2, 3, 4]
    training.train(config(epochs=4), checkpoint=tmp_path / "c", every=1000)
    assert saved == [1, 2, 3, 4]


@pytest.mark.training
@pytest.mark.parametrize("change", ["seed", "instruction set", "code version", "half a file", "no file of ours"])
def test_what_would_not_go_on_bit_for_bit_is_discarded_and_said(change, tmp_path, monkeypatch):
    run, file = config(epochs=2), tmp_path / "run.checkpoint"
    stopped(config(epochs=2, seed=4) if change == "seed" else run, file)
    if change == "instruction set":
        monkeypatch.setattr(training, "instruction_set", lambda: "another")
    elif change == "code version":
        monkeypatch.setattr(smtos.get("unit_scal"), "code_version", 99)
    elif change == "half a file":
        file.write_bytes(file.read_bytes()[:1000])
    elif change == "no file of ours":
        torch.save({"key": run.key}, file)
    with pytest.warns(UserWarning, match="cannot be continued and is removed"):
        found = training.train(run, checkpoint=file)
    assert found.history == training.train(run).history and not file.exists()


@pytest.mark.training
@pytest.mark.parametrize("settings", [{}, {"lr": 1e30}], ids=["finished", "diverged"])
def test_a_record_that_is_lost_on_its_way_need_not_be_trained_again(tmp_path, monkeypatch, settings):
    """Where a checkpoint was written, one of the end is kept until the record is stored."""
    file, epochs = tmp_path / "run.checkpoint", []
    run = config(epochs=3, **settings)
    lost = training.train(run, checkpoint=file, every=0, keep=True)
    monkeypatch.setattr(training.Training, "epoch", _counting(training.Training.epoch, epochs))
    assert numbers(training.train(run, checkpoint=file)) == numbers(lost) and epochs == []


@pytest.mark.training
def test_a_sweep_removes_checkpoints_unless_it_is_to_keep_them(tmp_path, monkeypatch):
    """Asking for more epochs of a kept run trains only those."""
    epochs = []
    monkeypatch.setattr(training.Training, "epoch", _counting(training.Training.epoch, epochs))
    run, longer = config(epochs=1), config(epochs=3)
    file = training.checkpoint_of(tmp_path, run)
    runner.run([run], tmp_path, workers=0, keep=True)
    assert file.exists() and len(epochs) == 1
    (record,) = runner.run([longer], tmp_path, workers=0)
    assert len(epochs) == 3 and len(record.history) == 3 and not file.exists()
    assert numbers(record) == numbers(training.train(longer))
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".json"]


@pytest.mark.training
@pytest.mark.parametrize("settings", [{}, {"lr": 1e30}], ids=["finished", "diverged"])
def test_a_longer_runs_checkpoint_serves_a_shorter_request_and_stays(tmp_path, settings):
    """Three epochs are there, one and two are asked for: the record is that of the shorter run, and is whole."""
    file, longer = tmp_path / "run.checkpoint", config(epochs=3, **settings)
    training.train(longer, checkpoint=file, keep=True)
    content = file.read_bytes()
    for epochs in (1, 2):
        shorter = longer.model_copy(update={"epochs": epochs})
        record = training.train(shorter, checkpoint=file)
        record.check()
        assert numbers(record) == numbers(training.train(shorter)) and file.read_bytes() == content


@pytest.mark.training
def test_a_sweep_leaves_a_longer_runs_checkpoint_alone(tmp_path):
    longer = config(epochs=3)
    file = training.checkpoint_of(tmp_path, longer)
    file.parent.mkdir(parents=True)
    training.train(longer, checkpoint=file, keep=True)
    runner.run([config(epochs=1)], tmp_path, workers=0)
    assert file.exists()


@pytest.mark.training
def test_a_checkpoint_whose_sweep_was_killed_before_it_removed_it_goes_with_the_next(tmp_path, monkeypatch):
    """And not where it was kept, or is that of a longer run whose record is not stored yet. That a sweep was killed is
    seen by its lease: without one the checkpoint may be of a run on its way."""
    monkeypatch.setattr(leases, "_over", lambda lease: True)  # its holder is dead
    record = training.train(config(epochs=2))
    file = training.checkpoint_of(tmp_path, record.config)
    lease = file.with_suffix(".lease")
    for ended, keep, leased, stays in (
        (2, False, True, False),
        (2, True, True, True),
        (3, False, True, True),
        (2, False, False, True),
    ):
        file.unlink(missing_ok=True)
        RunStore(tmp_path).put(record)
        training.train(config(epochs=ended), checkpoint=file, every=0, keep=keep)
        if leased:
            lease.write_text("{}")
        assert runner.run([record.config], tmp_path, workers=0) == [record]
        assert file.exists() is stays and not lease.exists(), (ended, keep, leased)


@pytest.mark.training
def test_a_checkpoint_left_by_a_sweep_that_was_waited_for_goes_too(tmp_path, monkeypatch):
    """The record appears between the look at the store and the claim."""
    record = training.train(config(epochs=2))
    file = training.checkpoint_of(tmp_path, record.config)
    claim = leases.Leases.claim

    def killed_after_storing(self, path):
        RunStore(tmp_path).put(record)
        training.train(record.config, checkpoint=file, every=0)
        return claim(self, path)

    monkeypatch.setattr(leases.Leases, "claim", killed_after_storing)
    assert runner.run([record.config], tmp_path, workers=0) == [record] and not file.exists()


@pytest.mark.training
def test_any_flipped_bit_of_a_checkpoint_is_noticed(tmp_path):
    file, run = tmp_path / "run.checkpoint", config(epochs=3)
    stopped(run, file)
    content, dice = file.read_bytes(), random.Random(0)
    for _ in range(40):
        place, bit = dice.randrange(len(content)), dice.randrange(8)
        file.write_bytes(content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :])
        with pytest.warns(UserWarning, match="its checksum does not fit"):
            assert Checkpoint(file, run.key, training.environment(torch.device("cpu")), 3).load() is None
        assert not file.exists()


@pytest.mark.training
def test_a_state_that_does_not_load_is_discarded_and_the_run_begins_again(tmp_path):
    """A method whose code has changed in a way that its key does not tell."""
    file, run = tmp_path / "run.checkpoint", config(epochs=2)
    place = Checkpoint(file, run.key, training.environment(training.find_device("auto")), 1)
    with training.determinism(1):
        training.train(run.model_copy(update={"epochs": 1}), checkpoint=file, keep=True)
        state = place.load()
        state["model"] = dict(list(state["model"].items())[1:])
        place.save(state)
    with pytest.warns(UserWarning, match="cannot be continued and is removed .RuntimeError"):
        assert numbers(training.train(run, checkpoint=file)) == numbers(training.train(run))


def test_nothing_in_a_checkpoint_is_run(tmp_path):
    """A pickle that would run a function when it is read is refused."""

    class Dangerous:
        def __reduce__(self):
            return (io.open, (str(tmp_path / "written"), "w"))

    file = tmp_path / "run.checkpoint"
    torch.save({"key": "k", "environment": {}, "state": Dangerous()}, file)
    with pytest.warns(UserWarning, match="cannot be continued"):
        assert Checkpoint(file, "k", {}, 1).load() is None
    assert not (tmp_path / "written").exists()


def test_what_methods_remember_comes_back_in_its_type(tmp_path):
    state = {
        "array": np.array([1.5, math.inf]),
        "number": np.float64(0.1),
        "window": deque([1, 2], maxlen=2),
        "pair": (1, "two"),
        "none": None,
        "deep": {"list": [np.arange(3)]},
    }
    place = Checkpoint(tmp_path / "c", "k", {}, 1)
    place.save(state)
    found = place.load()
    assert list(found) == list(state)
    np.testing.assert_array_equal(found["array"], state["array"])
    assert found["number"] == 0.1 and isinstance(found["number"], np.float64)
    assert found["window"] == state["window"] and found["window"].maxlen == 2
    assert found["pair"] == (1, "two") and found["none"] is None
    np.testing.assert_array_equal(found["deep"]["list"][0], np.arange(3))
