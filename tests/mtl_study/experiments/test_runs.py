"""Identity of a run, its record, and the store."""

import json

import pytest

from mtl_core.datasets import multimnist
from mtl_core.models import lenet
from mtl_core.smtos.edm import EDM
from mtl_core.smtos.unit_scal import UnitScal
from mtl_study.experiments import training
from mtl_study.experiments.runs import TRAINER_CODE_VERSION, BadConfig, Run, RunConfig
from mtl_study.experiments.store import RunStore, StoreError

TINY = {"train_size": 64, "val_size": 20, "test_size": 20, "epochs": 1, "batch_size": 64, "lr": 0.002, "seed": 0}


def config(**settings):
    return RunConfig.of(**{"problem": "multimnist/CL_RR", **TINY, **settings})


@pytest.fixture(scope="module")
def record():
    return training.train(config(smto="edm"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"problem": "multimnist/CLRR"}, "did you mean 'multimnist/CL_RR'"),
        ({"smto": "edmm"}, "no SMTO called 'edmm' (did you mean 'edm'"),
        ({"smto": "cagrad", "options": {"C": 0.5}}, "cagrad has no option 'C'"),
        ({"smto": "cagrad", "options": {"c": "0.5"}}, "cagrad: option c = '0.5'"),
        ({"lr": "1e-3"}, "lr = '1e-3'"),
        ({"lr": -0.1}, "lr = -0.1"),
        ({"epochs": 0}, "epochs = 0"),
        ({"dropuot": 0.1}, "unknown setting 'dropuot' (did you mean 'dropout'"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        ({"source": "ful"}, "source = 'ful'"),
        ({"seed": 1.5}, "seed = 1.5"),
        ({"problem_options": {"wings": 3}}, "multimnist/CL_RR has no option 'wings'"),
        ({"schedule": "plateu"}, "schedule = 'plateu'"),
        ({"schedule": "plateau", "lr_decay": 1.0}, "lr_decay = 1"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_settings_are_refused_in_one_message(settings, message):
    """What, where, and the nearest valid name."""
    with pytest.raises(BadConfig) as error:
        config(**settings)
    assert message in str(error.value)


def test_identity_is_everything_that_moves_numbers():
    """Each setting changes the key; asking twice does not; defaults spelt out are the same run."""
    base = config()
    assert base.key == config().key
    for change in (
        {"seed": 1},
        {"lr": 0.001},
        {"smto": "edm"},
        {"epochs": 2},
        {"val_size": 21},
        {"precision": "float64"},
        {"schedule": "plateau"},
    ):
        assert config(**change).key != base.key
    assert config(lr_decay=0.95, source="embedded").key == base.key


def test_a_room_that_changes_retrains_only_what_passes_through_it(monkeypatch):
    """Raising EDM's code version moves EDM's runs and no others."""
    edm, uniform = config(smto="edm").key, config().key
    monkeypatch.setattr(EDM, "code_version", EDM.code_version + 1)
    assert config(smto="edm").key != edm and config().key == uniform
    assert config().identity["numerics"] == {
        "dataset": multimnist.CODE_VERSION,
        "model": lenet.CODE_VERSION,
        "smto": UnitScal.code_version,
        "trainer": TRAINER_CODE_VERSION,
    }


def test_a_record_reads_back_as_it_was_written(record):
    assert Run.from_json(record.to_json()) == record


def test_a_record_holds_raw_numbers_only(record):
    """Nothing relative and no chosen epoch: those are computed when it is read."""
    text = record.to_json()
    assert "delta" not in text and "best" not in text
    assert json.loads(text)["history"][0]["val"]["RR"]["mse"] > 0


def test_store_gives_back_what_was_put(tmp_path, record):
    store = RunStore(tmp_path)
    assert store.get(record.config) is None
    path = store.put(record)
    assert path == tmp_path / "multimnist/CL_RR/edm" / f"{record.config.key}.json"
    assert store.get(record.config) == record
    assert list(store) == [record]


def test_a_stale_record_is_a_miss(tmp_path, record, monkeypatch):
    """After a change of code, and under a name that promises another run."""
    store = RunStore(tmp_path)
    path = store.put(record)
    other = config(smto="edm", seed=7)
    store.path(other).write_text(path.read_text())
    with pytest.warns(UserWarning, match="another run"):
        assert store.get(other) is None
    monkeypatch.setattr(EDM, "code_version", EDM.code_version + 1)
    assert store.get(config(smto="edm")) is None and list(store) == []


def test_a_damaged_record_is_a_miss_and_says_so(tmp_path, record):
    store = RunStore(tmp_path)
    path = store.put(record)
    path.write_text(path.read_text()[:100])
    with pytest.warns(UserWarning, match="no run record"):
        assert store.get(record.config) is None
    with pytest.warns(UserWarning, match="left out"):
        assert list(store) == []


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        RunStore(tmp_path / "file" / "store").check_writable()
