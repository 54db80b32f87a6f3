"""Stores brought together: nothing is lost, and nothing is chosen between in silence."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from mtl_study import artifacts
from mtl_study.experiments import merge as merging
from mtl_study.experiments import training
from mtl_study.experiments.merge import main, merge
from mtl_study.experiments.population import Member, Population, PopulationConfig, PopulationStore
from mtl_study.experiments.runs import RunConfig
from mtl_study.experiments.store import RunStore

TINY = {"train_size": 64, "val_size": 20, "test_size": 20, "epochs": 1, "batch_size": 64, "lr": 0.002, "seed": 0}


def config(**settings):
    return RunConfig.of(**{"problem": "multimnist/CL_RR", "smto": "edm", **TINY, **settings})


@pytest.fixture(scope="module")
def longer():
    return training.train(config(epochs=2))


@pytest.fixture(scope="module")
def record(longer):
    """The first epoch of the longer run."""
    return longer.serving(config())


def seeded(record, seed):
    """The same numbers as another run's: no training is needed to fill a store."""
    return record.model_copy(update={"config": record.config.model_copy(update={"seed": seed})})


def otherwise(record):
    """A record of the same key with another number in its first epoch."""
    history = [record.history[0].model_copy(update={"lr": 0.5}), *record.history[1:]]
    return record.model_copy(update={"history": history})


@pytest.fixture(scope="module")
def population():
    """One whose members all diverged at once, by hand."""
    settings = PopulationConfig.of(
        base=RunConfig.of(**{**TINY, "problem": "multimnist/CL_RR", "epochs": 2}),
        baselines={"CL": {"accuracy": 0.5}, "RR": {"mse": 0.8}},
        size=4,
        exploit_interval=1,
    )
    return Population(
        config=settings,
        code_versions=settings.code_versions,
        ended="all members diverged, the last at epoch 0",
        members=[Member(weights=[[0.5, 0.5]], score=[None], parent=[None]) for _ in range(4)],
        best=None,
        epochs_trained=4,
        seconds=1.0,
        environment={},
    )


def filled(folder, *records):
    """A live store with these records."""
    for record in records:
        (PopulationStore if isinstance(record, Population) else RunStore)(folder).put(record)
    return folder


def packed(folder, *records):
    """An archive with these records."""
    merge(filled(folder.with_name(f"{folder.name}-live"), *records), folder, pack=True)
    return folder


def lines(folder):
    """Every line of a store, in any order."""
    paths = [*folder.rglob("*.json"), *folder.rglob("*.jsonl")]
    return sorted(line for path in paths for line in path.read_text().splitlines(keepends=True))


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("into", [filled, packed])
@pytest.mark.parametrize("source", [filled, packed])
def test_two_stores_become_one(tmp_path, longer, record, population, source, into):
    """What is new is added, a longer run takes the place of its beginning, a shorter one is known; the source stays,
    and doing it again changes nothing."""
    start = source(tmp_path / "from", longer, seeded(record, 1), seeded(record, 2), population)
    target = into(tmp_path / "into", record, seeded(longer, 2), seeded(record, 3))
    before = contents(start)
    done = merge(start, target)
    assert (len(done.added), len(done.longer), done.known) == (2, 1, 1) and not done.differing + done.unreadable
    whole = [longer, seeded(record, 1), seeded(longer, 2), seeded(record, 3), population]
    assert lines(target) == sorted(one.to_line() for one in whole) and contents(start) == before
    assert all(RunStore(target).get(one.config) == one for one in whole[:4])
    assert PopulationStore(target).get(population.config) == population
    after = contents(target)
    assert merge(start, target).known == 4 and contents(target) == after
    assert all(path.endswith(".jsonl" if into is packed else ".json") for path in after)


def test_an_archive_is_the_same_whatever_the_order(tmp_path, record):
    one = packed(tmp_path / "one", *(seeded(record, seed) for seed in (1, 2, 3)))
    two = packed(tmp_path / "two", seeded(record, 3))
    merge(filled(tmp_path / "more", seeded(record, 2), seeded(record, 1)), two)
    assert contents(one) == contents(two)


@pytest.mark.parametrize("into", [filled, packed])
def test_records_that_differ_are_named_and_the_one_that_was_there_stays(tmp_path, longer, record, into, capsys):
    target = into(tmp_path / "into", record, seeded(record, 1))
    start = filled(tmp_path / "from", otherwise(longer), seeded(record, 2))
    before = lines(target)
    assert main([str(start), "--into", str(target)]) == 1
    said = capsys.readouterr().out
    assert "1 record added" in said
    assert f"differs from the one that is there, which stays: {RunStore(start).path(record.config)}" in said
    assert lines(target) == sorted([*before, seeded(record, 2).to_line()])


@pytest.mark.parametrize("source", [filled, packed])
def test_what_is_damaged_in_the_source_is_named_and_the_rest_is_merged(tmp_path, record, source):
    start = source(tmp_path / "from", *(seeded(record, seed) for seed in range(4)))
    path = min([*start.rglob("*.json"), *start.rglob("*.jsonl")])
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    done = merge(start, tmp_path / "into")
    assert len(done.added) == 3 and len(done.unreadable) == 1 and str(path) in done.unreadable[0]
    assert path.read_bytes() == data


@pytest.mark.parametrize("into", [filled, packed])
def test_what_is_damaged_in_the_target_is_named_and_not_lost(tmp_path, record, into):
    """In an archive the line stays, until a record of its key takes its place; in a live store it is set aside then."""
    target = into(tmp_path / "into", record)
    (path,) = [*target.rglob("*.json"), *target.rglob("*.jsonl")]
    data = path.read_bytes().replace(b"multimnist/CL_RR", b"multimnist/CL_RL")
    path.write_bytes(data)
    done = merge(filled(tmp_path / "one", seeded(record, 1)), target)
    assert len(done.added) == 1 and len(done.unreadable) == (into is packed) and data.decode() in lines(target)
    with pytest.warns(UserWarning, match="set aside") if into is filled else contextlib.nullcontext():
        done = merge(filled(tmp_path / "two", record), target)
    assert len(done.unreadable) == len(done.added) == 1 and record.config.key in done.unreadable[0]
    assert lines(target) == sorted([record.to_line(), seeded(record, 1).to_line()])
    if into is filled:
        assert path.with_suffix(".damaged").read_bytes() == data


@pytest.mark.parametrize("into", [filled, packed])
@pytest.mark.parametrize("thing", ["folder", "link"])
def test_what_is_no_file_in_the_targets_place_is_named_and_stays(tmp_path, record, population, into, thing):
    """A folder, or a link to nowhere; what belongs elsewhere is merged."""
    target = into(tmp_path / "into", record, population)
    (path,) = [path for path in [*target.rglob("*.json"), *target.rglob("*.jsonl")] if "edm" in str(path)]
    path.unlink()
    path.mkdir() if thing == "folder" else path.symlink_to("nowhere")
    done = merge(filled(tmp_path / "from", record, population), target)
    assert len(done.unreadable) == 1 and record.config.key in done.unreadable[0] and str(path) in done.unreadable[0]
    assert done.known == 1 and not done.added and (path.is_dir() or os.readlink(path) == "nowhere")


def test_what_this_version_does_not_know_in_the_targets_place_stays(tmp_path, record):
    target = filled(tmp_path / "into", record)
    path = RunStore(target).path(record.config)
    path.write_text(text := first_format(record))
    with pytest.warns(UserWarning, match="first format"):
        done = merge(filled(tmp_path / "from", record), target)
    assert len(done.unreadable) == 1 and record.config.key in done.unreadable[0] and not done.added
    assert path.read_text() == text


def first_format(record):
    """As records were written until format 2: over many lines, no key and no checksum, options as they were given."""
    content = record.model_dump(mode="json", by_alias=True)
    for later in ("problem_options", "schedule", "keep_jacobian"):
        content["config"].pop(later, None)
    content.pop("clock", None)
    return json.dumps(content, indent=1) + "\n"


def test_records_of_the_first_format_are_keyed_anew(tmp_path, longer, record):
    """Of a run and its beginning, two files then, the longer holds; options are written in one spelling; what fits no
    configuration is named."""
    folder = tmp_path / "from/multimnist/CL_RR/edm"
    folder.mkdir(parents=True)
    for name, one in (("0" * 16, record), ("1" * 16, longer), ("2" * 16, seeded(record, 1))):
        (folder / f"{name}.json").write_text(first_format(one))
    spelt_out = json.loads(first_format(seeded(record, 2)))
    spelt_out["config"]["options"] = {"zero_gradient": "skip"}
    (folder / f"{'3' * 16}.json").write_text(json.dumps(spelt_out))
    (folder / f"{'4' * 16}.json").write_text(first_format(longer).replace('"finished"', '"stopped"'))
    done = merge(tmp_path / "from", tmp_path / "into", pack=True)
    assert len(done.unreadable) == 1 and "444" in done.unreadable[0] and "ended = 'stopped'" in done.unreadable[0]
    assert len(done.added) == 3 and len(done.longer) == 1
    found = list(RunStore(tmp_path / "into"))
    assert sorted(run.config.seed for run in found) == [0, 1, 2]
    for one in (longer, seeded(record, 1), seeded(record, 2)):
        kept = RunStore(tmp_path / "into").get(one.config)
        assert kept.model_dump(exclude={"clock"}) == one.model_dump(exclude={"clock"})


@pytest.mark.slow
def test_a_merge_that_was_killed_leaves_whole_files_and_goes_on(tmp_path, record):
    """At any moment: what is there is whole, and the same command ends as if nothing had happened."""
    start = filled(tmp_path / "from", *(seeded(record, seed) for seed in range(150)))
    command = [sys.executable, "-m", merging.__name__, start, "--into", tmp_path / "into"]
    target = tmp_path / "into"
    process = subprocess.Popen(
        command, cwd=artifacts.REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 300
    while len(list(target.rglob("*.json"))) < 20 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = list(RunStore(target))
    assert len(kept) >= 20 and set(lines(target)) <= set(lines(start))
    done = merge(start, target)
    assert len(done.added) == 150 - len(kept) and lines(target) == lines(start) and len(lines(start)) == 150


def test_an_archive_that_cannot_be_written_stays_as_it_was(tmp_path, record, monkeypatch):
    """Files are packed whole, one after the other."""
    target = packed(tmp_path / "into", record)
    before = contents(target)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        merge(filled_elsewhere(tmp_path / "from", seeded(record, 1)), target)
    assert contents(target) == before


def filled_elsewhere(folder, record):
    path = folder / record.config.folder / f"{record.config.key}.json"
    path.parent.mkdir(parents=True)
    path.write_text(record.to_line())
    return folder


def test_a_source_that_is_none_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path / "nowhere")])
    assert "nowhere is no folder" in capsys.readouterr().err
