"""Where records are kept: live stores, archives, and what of them is damaged, strange or of another code."""

import hashlib
import json
import os
import re
import warnings

import pytest

from mtl_core.smtos.edm import EDM
from mtl_study.experiments import runner, runs, training
from mtl_study.experiments.merge import merge
from mtl_study.experiments.runs import Run, RunConfig
from mtl_study.experiments.store import RunStore, StoreError

TINY = {"train_size": 64, "val_size": 20, "test_size": 20, "epochs": 1, "batch_size": 64, "lr": 0.002, "seed": 0}


def config(**settings):
    return RunConfig.of(**{"problem": "multimnist/CL_RR", "smto": "edm", **TINY, **settings})


@pytest.fixture(scope="module")
def longer():
    return training.train(config(epochs=3))


@pytest.fixture(scope="module")
def record(longer):
    """The first epoch of the longer run."""
    return longer.serving(config())


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "store")


@pytest.fixture
def archive(tmp_path, longer):
    """A packed store with the seeds 0 (of three epochs) and 1 to 4 (of one)."""
    live = RunStore(tmp_path / "live")
    for one in (longer, *(seeded(longer.serving(config()), seed) for seed in range(1, 5))):
        live.put(one)
    merge(live.folder, tmp_path / "archive", pack=True)
    return RunStore(tmp_path / "archive")


def seeded(record, seed):
    """The same numbers as another run's: no training is needed to fill a store."""
    return record.model_copy(update={"config": record.config.model_copy(update={"seed": seed})})


def otherwise(record, lr=0.5):
    """A record of the same key with another number in its first epoch."""
    history = [record.history[0].model_copy(update={"lr": lr}), *record.history[1:]]
    return record.model_copy(update={"history": history})


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- live stores -------------------------------------------------------------------------------------------------------


def test_a_store_gives_back_what_was_put(store, record):
    assert store.get(record.config) is None
    path = store.put(record)
    assert path == store.folder / "multimnist/CL_RR/edm" / f"{record.config.key}.json"
    assert store.get(record.config) == record
    assert list(store) == [record]
    assert path.read_text() == record.to_line()


def test_epochs_stay_unread_until_they_are_looked_at(store, longer):
    """And one that does not fit makes room for its like."""
    path = store.put(longer)
    assert runs.unread(store.get(longer.config).history)
    body = longer.model_dump(mode="json", by_alias=True)
    body["history"][1]["weights"] = [1.0]
    text = json.dumps(body, separators=(",", ":"))
    checksum = hashlib.sha256(f"{longer.key} {text}".encode()).hexdigest()
    path.write_text(f'{{"key": "{longer.key}", "checksum": "{checksum}", "record": {text}}}\n')
    with pytest.raises(runs.BadRecord, match=f"{longer.key}.: epoch 1: lists of another length"):
        list(store.get(longer.config).history)
    with pytest.warns(UserWarning, match="differs from the new record"):
        store.put(longer)
    assert store.get(longer.config) == longer


def test_a_longer_run_serves_a_shorter_request(store, longer, record):
    store.put(longer)
    assert store.get(config()) == record and store.get(config(epochs=2)) == longer.serving(config(epochs=2))
    assert store.get(config(epochs=4)) is None


def test_a_diverged_run_serves_a_longer_request(store, longer):
    ended = {"ended": "diverged at epoch 2, step 0", "history": longer.history[:2], "clock": longer.clock[:2]}
    store.put(longer.model_copy(update=ended))
    assert store.get(config(epochs=60)).ended == "diverged at epoch 2, step 0"
    assert store.get(config(epochs=2)).ended == "finished"


def test_of_two_records_of_one_key_the_longer_stays(store, longer, record):
    """Whichever came first; nothing is written where nothing is won."""
    store.put(record)
    store.put(longer)
    (path,) = store.files()
    stamp = path.stat().st_mtime_ns
    store.put(record.model_copy(update={"seconds": 5.0, "environment": {"torch": "0"}}))
    assert path.stat().st_mtime_ns == stamp and list(store) == [longer]
    assert list(contents(store.folder)) == [path.relative_to(store.folder).as_posix()]


def test_records_that_differ_are_reported_and_both_are_kept(store, longer, record):
    """Also the third, and also a file that is no record of this key."""
    path = store.put(record)
    lines = {record.to_line()}
    for other in (otherwise(record), otherwise(longer, 0.25)):
        with pytest.warns(UserWarning, match=f"{re.escape(str(path))}.* differs"):
            store.put(other)
        lines.add(other.to_line())
    assert list(store) == [otherwise(longer, 0.25)]
    assert {line.decode() for line in contents(store.folder).values()} == lines


def test_only_what_is_missing_or_too_short_is_trained(tmp_path, longer, record):
    RunStore(tmp_path).put(record)
    before = contents(tmp_path)
    assert runner.run([config()], tmp_path, workers=0) == [record] and contents(tmp_path) == before
    (found,) = runner.run([config(epochs=3)], tmp_path, workers=0)
    assert found.history == longer.history and [one.config.epochs for one in RunStore(tmp_path)] == [3]


def test_a_record_of_older_code_is_a_miss(store, record, monkeypatch):
    path = store.put(record)
    monkeypatch.setattr(EDM, "code_version", EDM.code_version + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.get(config()) is None and list(store) == []
    assert path.exists()


@pytest.mark.parametrize("bit", [3, 8 * 12 + 1, 8 * 60, -8 * 100 + 2, -6])
def test_a_damaged_record_is_named_set_aside_and_missing(store, record, bit):
    path = store.put(record)
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    with pytest.warns(UserWarning, match=f"{path.name} is no run record and was set aside, as {path.stem}.damaged"):
        assert store.get(record.config) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.get(record.config) is None and list(store) == []
    store.put(record)
    assert store.get(record.config) == record and path.with_suffix(".damaged").read_bytes() == data


def test_a_record_that_others_have_mended_meanwhile_is_not_set_aside(store, record, monkeypatch):
    """Two sweeps come upon a damaged record; before the second sets it aside, the first has trained it again."""
    path = store.put(record)
    path.write_text("damaged")

    def slowly(line):
        monkeypatch.undo()
        path.write_text(record.to_line())
        return Run.from_line(line)

    monkeypatch.setattr(Run, "from_line", slowly)
    assert store.get(record.config) == record
    assert list(contents(path.parent)) == [path.name]


def test_what_is_damaged_twice_is_kept_twice(store, record):
    for text in ("one", "two"):
        path = store.put(record)
        path.write_text(text)
        with pytest.warns(UserWarning, match="set aside"):
            assert list(store) == []
    assert sorted(contents(path.parent).values()) == [b"one", b"two"]


def test_only_files_named_by_their_own_key_count(store, record):
    """What editors and sync tools leave next to records is passed over and mentioned once."""
    path = store.put(record)
    line = path.read_text()
    strange = [
        path.parent / ".ipynb_checkpoints" / f"{path.stem}-checkpoint.json",
        path.parent / ".ipynb_checkpoints" / path.name,
        path.with_name(f"{path.stem} (conflicted copy).json"),
        path.with_name(f"{path.stem}.sync-conflict-20260101.json"),
        path.with_name("notes.json"),
    ]
    for copy in strange:
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(line)
    with pytest.warns(UserWarning, match="5 files passed over") as said:
        assert list(store) == [record]
    assert len(said) == 1 and all(str(copy) in str(said[0].message) for copy in strange)
    assert store.get(record.config) == record and all(copy.exists() for copy in strange)


@pytest.mark.parametrize("place", ["other key", "other folder"])
def test_a_whole_record_in_a_wrong_place_is_passed_over_and_stays(store, record, place):
    """It is no second run, and neither is it damaged."""
    path = store.put(record)
    copy = store.path(config(seed=7)) if place == "other key" else store.folder / "backup" / path.name
    copy.parent.mkdir(exist_ok=True)
    copy.write_text(path.read_text())
    with pytest.warns(UserWarning, match="holds another run than its name says and is passed over") as said:
        assert list(store) == [record]
    assert len(said) == 1 and copy.exists()
    if place == "other key":
        with pytest.warns(UserWarning, match="holds another run"):
            assert store.get(config(seed=7)) is None
        with pytest.warns(UserWarning, match="what was there differs|holds another run"):
            store.put(seeded(record, 7))
        assert store.get(config(seed=7)).config.seed == 7 and copy.with_suffix(".other").exists()


def test_a_part_of_a_store_is_not_taken_for_a_store(store, record):
    path = store.put(record)
    with pytest.warns(UserWarning, match="passed over"):
        assert list(RunStore(store.folder / "multimnist")) == []
    assert path.exists()


@pytest.mark.parametrize("thing", ["folder", "link"])
def test_what_is_no_file_in_a_records_place_is_a_clear_error(store, record, thing):
    path = store.path(record.config)
    path.parent.mkdir(parents=True)
    path.mkdir() if thing == "folder" else path.symlink_to("nowhere")
    for act in (lambda: store.get(record.config), lambda: list(store)):
        with pytest.raises(StoreError, match=f"{path.name} is a .*, where a run record belongs"):
            act()
    with pytest.raises(StoreError):
        store.put(record)
    with pytest.raises(StoreError):
        runner.run([config()], store, workers=0)


def test_a_link_to_a_record_is_a_record(store, record, tmp_path):
    path = store.put(record)
    os.replace(path, tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert store.get(record.config) == record


def test_a_record_of_the_first_format_is_mentioned_and_stays(store, record):
    path = store.path(record.config)
    path.parent.mkdir(parents=True)
    path.write_text(record.model_dump_json(by_alias=True, indent=1) + "\n")
    with pytest.warns(UserWarning, match="first format of records and is passed over; `make merge FROM="):
        assert list(store) == []
    assert path.exists()


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        RunStore(tmp_path / "file" / "store").check_writable()


# -- archives ----------------------------------------------------------------------------------------------------------


def packed(archive):
    return archive.archive / "multimnist/CL_RR/edm.jsonl"


def test_an_archive_serves_and_takes_nothing(archive, longer, record):
    """What it lacks goes to the live store next to it, and both are read."""
    before = contents(archive.archive)
    assert archive.folder == archive.archive.parent / "runs/archive" and not archive.folder.exists()
    assert archive.get(config(epochs=3)) == longer and archive.get(config()) == record
    assert sorted(run.config.seed for run in archive) == [0, 1, 2, 3, 4]
    assert list(archive.records("multimnist/CL_RR/edm")) == list(archive.records("multimnist")) == list(archive)
    assert list(archive.records("multimnist/CL_RR/ed")) == list(archive.records("qm9")) == []
    new = seeded(record, 9)
    assert archive.put(new) == archive.folder / "multimnist/CL_RR/edm" / f"{new.config.key}.json"
    assert archive.get(new.config) == new and len(list(archive)) == 6
    assert contents(archive.archive) == before


def test_a_longer_run_beside_an_archive_is_taken(archive, longer, record):
    """One run, not two."""
    archive.put(seeded(longer, 1))
    assert archive.get(config(seed=1)) == seeded(record, 1)
    assert archive.get(config(seed=1, epochs=3)) == seeded(longer, 1)
    assert sorted((run.config.seed, run.config.epochs) for run in archive)[:2] == [(0, 3), (1, 3)]
    assert len(list(archive)) == 5


def test_a_live_record_that_differs_from_the_archive_is_reported(archive, record):
    archive.put(otherwise(seeded(record, 1)))
    with pytest.warns(UserWarning, match="records of one key that differ"):
        assert len(list(archive)) == 5
    with pytest.warns(UserWarning, match="records of one key that differ"):
        archive.get(config(seed=1))


def test_a_flipped_bit_of_an_archive_loses_one_record_and_names_it(archive):
    """Wherever it is in the line, the key included; a line's end takes the next line along."""
    path = packed(archive)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    keys = [line[9:25].decode() for line in lines]
    start = len(lines[0])
    for bit in (8 * 4, 8 * 10 + 1, 8 * 24, 8 * 60, 8 * 500, 8 * (len(lines[1]) - 1)):
        data = bytearray(whole)
        data[start + bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        end = bit // 8 == len(lines[1]) - 1
        named = ", ".join(keys[1:3]) if end else "line 2"
        with pytest.warns(UserWarning, match=f"left out: .*edm.jsonl, .*{named}"):
            found = {run.config.key for run in RunStore(archive.archive)}
        assert found == {keys[0], *keys[3 if end else 2 :]}
    path.write_bytes(whole[:-1])
    with pytest.warns(UserWarning, match=f"line 5 \\({keys[4]}\\)"):
        assert len(list(RunStore(archive.archive))) == 4


def test_a_damaged_first_byte_leaves_an_archive_one(archive):
    path = packed(archive)
    path.write_bytes(b"z" + path.read_bytes()[1:])
    with pytest.warns(UserWarning, match="line 1"):
        assert len(list(RunStore(archive.archive))) == 4


def test_a_line_twice_is_one_run_and_two_that_differ_are_reported(archive, record):
    """As a tool for merging texts leaves them."""
    path = packed(archive)
    path.write_bytes(path.read_bytes() * 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(RunStore(archive.archive))) == 5
    path.write_text(path.read_text() + otherwise(record).to_line())
    with pytest.warns(UserWarning, match="records of one key that differ"):
        assert len(list(RunStore(archive.archive))) == 5


def test_other_files_do_not_make_a_store_an_archive(store, record):
    """Notes as JSON lines, and what an editor hides."""
    path = store.put(record)
    (store.folder / "notes.jsonl").write_text('{"note": 1}\n')
    hidden = path.parent / ".ipynb_checkpoints" / "edm-checkpoint.jsonl"
    hidden.parent.mkdir()
    hidden.write_text(record.to_line())
    with pytest.warns(UserWarning, match=r"passed over, no records in its first line: .*notes.jsonl"):
        again = RunStore(store.folder)
    assert again.archive is None and list(again) == [record]


def test_single_files_within_an_archive_are_mentioned(archive, record):
    """They would be found by no one."""
    loose = archive.archive / "multimnist/CL_RR/edm" / f"{record.config.key}.json"
    loose.parent.mkdir()
    loose.write_text(record.to_line())
    with pytest.warns(UserWarning, match="1 file next to the archive .* passed over; `make merge FROM="):
        assert len(list(archive)) == 5
