"""A trained encoder stays as it is, its heads are retrained on corrupted pictures, and all runs meet the same ones."""

import pytest
import torch

from mtl_study.experiments import training, transfer
from mtl_study.experiments.corruptions import SEVERITIES
from mtl_study.experiments.runs import BadConfig, BadRecord, RunConfig
from mtl_study.experiments.store import RunStore

pytestmark = pytest.mark.training
TINY = {"train_size": 64, "val_size": 20, "test_size": 20, "epochs": 1, "batch_size": 32, "lr": 0.002, "seed": 1}


def config(epochs=1, **settings):
    base = RunConfig.of(**{"problem": "multimnist/CL_RR", **TINY, **settings})
    return transfer.TransferConfig.of(base=base, tuning_epochs=epochs)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """One record, and its store."""
    store = tmp_path_factory.mktemp("store")
    (record,) = transfer.transfers([config()], store, workers=0)
    return record, store


def test_a_transfer_is_stored_and_found_again(found):
    """In a folder next to the runs, whose stores do not see it; its clean scores are those of the run itself."""
    record, store = found
    assert transfer.TransferStore(store).get(config()) == record and list(RunStore(store)) == []
    assert transfer.Transfer.from_line(record.to_line()) == record
    assert record.clean == training.train(config().base).history[-1].test
    assert list(record.corrupted) == list(SEVERITIES) and {len(s) for s in record.corrupted.values()} == {5}
    assert transfer.transfer(config()).corrupted == record.corrupted  # a function of its configuration
    assert config(2).key != config().key
    lacking = record.model_copy(update={"corrupted": {**record.corrupted, "fog": []}})
    with pytest.raises(BadRecord, match="other corruptions or severities"):
        lacking.check()


def test_only_heads_are_tuned_and_all_runs_meet_the_same_pictures(monkeypatch):
    """What is corrupted for the test does not depend on the seed of a run; what is corrupted for training does."""
    seen = {}
    original = transfer.corrupt

    def corrupt(images, name, severity, generator):
        found = original(images, name, severity, generator)
        seen.setdefault((len(images) == 20, name, severity), []).append(found)
        return found

    monkeypatch.setattr(transfer, "corrupt", corrupt)
    for seed in (1, 2):
        run = training.Training(config(seed=seed).base, torch.device("cpu"), None)
        before = {name: value.clone() for name, value in run.model.state_dict().items()}
        transfer._tuned(config(seed=seed), run)
        changed = {name for name, value in run.model.state_dict().items() if not torch.equal(value, before[name])}
        assert changed and not any(name.startswith("encoder") for name in changed)
    tests = [pair for (of_test, *_), pair in seen.items() if of_test]
    assert len(tests) == 50 and all(torch.equal(*pair) for pair in tests)


def test_what_cannot_be_corrupted_is_refused():
    with pytest.raises(BadConfig, match="only digits can be corrupted"):
        transfer.TransferConfig.of(base=RunConfig.of(problem="qm9", seed=1, epochs=1, lr=0.001), tuning_epochs=1)
