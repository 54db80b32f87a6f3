"""Populations: who takes over from whom, what that does, and that nothing finished is lost."""

import hashlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings

import pandas as pd
import pytest
import torch

from mtl_core import problems
from mtl_core.datasets import multimnist
from mtl_study import artifacts
from mtl_study.analysis import delta
from mtl_study.experiments import population, runner, training
from mtl_study.experiments.checkpoints import complete
from mtl_study.experiments.merge import merge
from mtl_study.experiments.population import (
    Population,
    PopulationConfig,
    PopulationStore,
    populations,
    train_population,
)
from mtl_study.experiments.runs import BadConfig, BadRecord, RunConfig
from mtl_study.experiments.store import POPULATIONS, RunStore, StoreError

SHIPPED = artifacts.REPOSITORY / "results"
BASELINES = {"CL": {"accuracy": 0.5}, "RR": {"mse": 0.8}}
TINY = {"train_size": 128, "val_size": 40, "test_size": 40, "batch_size": 64, "epochs": 4, "lr": 0.002}


def base(**settings):
    return RunConfig.of(**{"problem": "multimnist/CL_RR", "seed": 3, "dropout": 0.2, **TINY, **settings})


def config(base_settings=None, **settings):
    given = {
        "base": base(**(base_settings or {})),
        "baselines": BASELINES,
        "size": 4,
        "exploit_interval": 1,
        "quantile": 0.5,
    }
    return PopulationConfig.of(**{**given, **settings})


def numbers(record):
    """A record without what may differ between two populations of the same configuration."""
    return record.model_dump(exclude={"seconds"})


@pytest.fixture(scope="module")
def pbt():
    return train_population(config())


# -- the search --------------------------------------------------------------------------------------------------------


@pytest.mark.training
def test_a_population_is_a_function_of_its_configuration(pbt):
    """Bit for bit, dropout included; another seed gives other weights."""
    assert numbers(train_population(config())) == numbers(pbt)
    other = train_population(config({"seed": 4, "epochs": 2}))
    assert other.members[0].weights[0] != pbt.members[0].weights[0]


def test_the_worst_take_over_from_the_best(pbt):
    """After every epoch, but not after the last, the two worst of four give way to one of the two best, and move by a
    step of N(0, 0.3²) of the logits; the best keep their weights."""
    assert pbt.ended == "finished" and pbt.epochs_trained == 4 * 4
    assert [member.parent[0] for member in pbt.members] == [None] * 4
    for epoch in (1, 2, 3):
        scores = [member.score[epoch - 1] for member in pbt.members]
        *_, third, fourth = ranking = sorted(range(4), key=lambda i: -scores[i])
        for i, member in enumerate(pbt.members):
            parent = member.parent[epoch]
            if i not in (third, fourth):
                assert parent is None and member.weights[epoch] == member.weights[epoch - 1]
                continue
            assert parent in ranking[:2]
            (a, b), (c, d) = member.weights[epoch], pbt.members[parent].weights[epoch - 1]
            assert 0 < abs(math.log(a / b) - math.log(c / d)) < 6 * 0.3 * math.sqrt(2)


def test_without_exploring_a_child_is_its_parent(pbt):
    """From the moment it takes over, bit for bit: the copy of a network continues as the network itself does."""
    record = train_population(config(exploit_interval=2, explore=0.0, quantile=0.25))
    children = [(i, m.parent[2]) for i, m in enumerate(record.members) if m.parent[2] is not None]
    assert len(children) == 1
    for child, parent in children:
        one, other = record.members[child], record.members[parent]
        assert one.weights[2:] == other.weights[2:] and one.score[2:] == other.score[2:]
        assert one.weights[1] != other.weights[1] and one.score[1] != other.score[1]
    assert all(m.parent[e] is None for m in record.members for e in (0, 1, 3))
    assert [m.weights[0] for m in record.members] == [m.weights[0] for m in pbt.members]  # the same draw


def test_the_winners_history_is_its_networks(pbt):
    """The weights along its history are those of the members that it came from, its last epoch has the highest score of
    all."""
    best, member = pbt.best, pbt.best.member
    assert best.score == max(s for m in pbt.members for s in m.score) == pbt.members[member].score[best.epoch]
    assert len(best.history) == best.epoch + 1
    for epoch in range(best.epoch, -1, -1):
        weights = pbt.members[member].weights[epoch]
        assert best.history[epoch].weights == pytest.approx(weights, rel=1e-6)
        val = best.history[epoch].val
        assert population.score(val, BASELINES, base().definition.tasks) == pbt.members[member].score[epoch]
        if pbt.members[member].parent[epoch] is not None:
            member = pbt.members[member].parent[epoch]


@pytest.mark.training
def test_until_it_gives_up_a_member_is_a_plain_run(tmp_path):
    """Before the first ranking each member is the run of `fixed` with its weights, bit for bit; and a score is the Δm
    that `delta.selected` reads."""
    record = train_population(config({"epochs": 2}, exploit_interval=1))
    runs = runner.run([record.config.member(m.weights[0]) for m in record.members], tmp_path, workers=0)
    tasks = base().definition.tasks
    for member, run in zip(record.members, runs, strict=True):
        assert member.score[0] == population.score(run.history[0].val, BASELINES, tasks)
    kept = [i for i, member in enumerate(record.members) if member.parent[1] is None]
    assert len(kept) == 2
    for i in kept:
        assert record.members[i].score[1] == population.score(runs[i].history[1].val, BASELINES, tasks)
    rows = [(split, task, m, v) for split in ("val", "test") for task, of in BASELINES.items() for m, v in of.items()]
    baselines = pd.DataFrame(rows, columns=["split", "task", "metric", "value"]).set_index(["split", "task", "metric"])
    assert population.on_validation(baselines) == BASELINES
    table = delta.selected([runs[i] for i in kept], baselines, tasks)
    best_of = [max(record.members[i].score) for i in kept]
    assert table.val_delta_m.tolist() == pytest.approx(best_of, rel=1e-6)


def test_several_metrics_count_equally_within_a_task():
    """By hand: +20 % and −10 % in S, where the second metric is better low, and 0 % in D."""
    tasks = problems.get("cityscapes/R18").tasks
    baselines = {"S": {"acc": 0.5, "mIoU": 0.4}, "D": {"l1_abs": 2.0, "l1_rel": 0.5}}
    found = {"S": {"acc": 0.6, "mIoU": 0.36}, "D": {"l1_abs": 1.0, "l1_rel": 0.75}}
    assert population.score(found, baselines, tasks) == pytest.approx((5 + 0) / 2)
    assert population.score({**found, "D": {"l1_abs": None, "l1_rel": 0.75}}, baselines, tasks) is None


class Killed(Exception):
    pass


@pytest.mark.training
def test_a_population_that_was_killed_goes_on_bit_for_bit(pbt, tmp_path, monkeypatch):
    """After each of its epochs: networks, weights, who took over from whom, the draws to come, the best so far."""
    whole_epoch, left = population._Search.epoch, []

    def epoch(self):
        if not left:
            raise Killed
        left.pop()
        whole_epoch(self)

    monkeypatch.setattr(population._Search, "epoch", epoch)
    for stop in (1, 2, 3):
        left[:] = [None] * stop
        with pytest.raises(Killed):
            train_population(config(), checkpoint=tmp_path / f"{stop}", every=0)
        left[:] = [None] * (4 - stop)  # and not one more
        assert numbers(train_population(config(), checkpoint=tmp_path / f"{stop}")) == numbers(pbt)
        assert not left


# -- divergence --------------------------------------------------------------------------------------------------------


@pytest.mark.training
def test_a_member_that_diverges_is_replaced():
    """Three of four members whose networks hold a NaN: one more than a quantile has."""
    with training.determinism(threads=1):
        search = population._Search(config(exploit_interval=2), torch.device("cpu"), None)
        for i in (0, 1, 3):
            next(search.trainings[i].model.parameters()).data.fill_(math.nan)
        complete(lambda: search, None)
        record = search.record()
    assert record.ended == "finished"
    for i in (0, 1, 3):
        finite = [s is not None for s in record.members[i].score]
        assert finite == [False, False, True, True]
        assert record.members[i].parent == [None, None, 2, None]
    assert record.epochs_trained == 3 + 4 + 3 * 2


def test_all_diverged_is_a_result(tmp_path):
    (record,) = populations([config({"problem": "multimnist/CL_RR", "lr": 1e30})], tmp_path, workers=0)
    assert record.ended == "all members diverged, the last at epoch 0"
    assert record.best is None and record.epochs_trained == 4
    assert PopulationStore(tmp_path).get(record.config) == record


# -- identity and store ------------------------------------------------------------------------------------------------


def test_identity_is_everything_that_moves_numbers(monkeypatch):
    """Each setting changes the key, except the base's own weights."""
    key = config().key
    assert config({"smto": "fixed", "options": {"weights": [0.9, 0.1]}}).key == key
    for change in (
        {"size": 6},
        {"exploit_interval": 2},
        {"spread": 1.0},
        {"explore": 0.2},
        {"quantile": 0.25},
        {"baselines": {**BASELINES, "RR": {"mse": 0.7}}},
        {"base": base(seed=4)},
    ):
        assert config(**change).key != key
    monkeypatch.setattr(population, "POPULATION_CODE_VERSION", population.POPULATION_CODE_VERSION + 1)
    assert config().key != key


def test_only_what_is_missing_is_trained(tmp_path, pbt):
    """A record that is there is not touched, and no reader of single runs takes it for one of them, or for damage."""
    store = PopulationStore(tmp_path)
    path = store.put(pbt)
    assert path == tmp_path / "multimnist/CL_RR/populations" / f"{pbt.config.key}.json"
    assert Population.from_line(path.read_text()) == pbt
    stamp = path.stat().st_mtime_ns
    small = config({"epochs": 2}, size=2)
    found = populations([small, config(), small], tmp_path, workers=0)
    assert found[1] == pbt and found[0] == found[2] == store.get(small)
    assert path.stat().st_mtime_ns == stamp
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(RunStore(tmp_path)) == []


def test_beside_an_archive_checkpoints_lie_where_records_do(tmp_path, monkeypatch, pbt):
    """An archive is read only, and what is written into it would be found by no one."""
    PopulationStore(tmp_path / "live").put(pbt)
    merge(tmp_path / "live", tmp_path / "archive", pack=True)
    seen = []
    monkeypatch.setattr(runner, "records", lambda configs, store, train, **how: seen.append((store, train.args)))
    populations([config()], tmp_path / "archive")
    ((store, folders),) = seen
    assert store.archive and folders == (store.folder.resolve(),) == ((tmp_path / "runs/archive").resolve(),)


def test_a_damaged_or_misnamed_record_is_a_miss_and_says_so(tmp_path, pbt):
    store = PopulationStore(tmp_path)
    path = store.put(pbt)
    assert store.get(config()) == pbt and store.get(config(size=6)) is None
    store.path(config(size=6)).write_text(path.read_text())
    with pytest.warns(UserWarning, match="another population"):
        assert store.get(config(size=6)) is None
    path.write_text(path.read_text()[:100])
    with pytest.warns(UserWarning, match="no population record"):
        assert store.get(config()) is None


def test_a_population_of_another_length_is_another_population():
    """What happens in it depends on how long it has."""
    assert config({"epochs": 2}).key != config().key


def sealed(record, **changes):
    """The line of a record with these changes, under a checksum that fits."""
    key, content = record.key, {**record.model_dump(mode="json", by_alias=True), **changes}
    body = json.dumps(content, separators=(",", ":"))
    checksum = hashlib.sha256(f"{key} {body}".encode()).hexdigest()
    return f'{{"key": "{key}", "checksum": "{checksum}", "record": {body}}}\n'


def of(part, record, number=None, **changes):
    """A record in whose part (or one member of it) these changes are."""
    content = record.model_dump(mode="json")[part]
    if number is None:
        return {part: {**content, **changes}}
    content[number] = {**content[number], **changes}
    return {part: content}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: {"ended": "diverged at epoch 0, step 0"}, "expected 'finished' or 'all members diverged"),
        (lambda r: {"ended": "all members diverged, the last at epoch 9"}, "it holds 4 members, of 4, and ended: all"),
        (lambda r: {"ended": "all members diverged, the last at epoch 1"}, "member 0: other than 2 epochs"),
        (lambda r: {"members": r.model_dump(mode="json")["members"][:3]}, "it holds 3 members, of 4"),
        (lambda r: of("members", r, 1, score=[1.0]), "member 1: other than 4 epochs"),
        (lambda r: of("members", r, 1, score=[math.nan] * 4), "members.1.score.0"),
        (lambda r: of("members", r, 2, weights=[[1.0]] * 4), "member 2: weights of another number than the 2 tasks"),
        (lambda r: of("members", r, 2, parent=[None, 4, None, None]), "member 2: a parent that is none of the 4"),
        (lambda r: {"best": None}, "scores and no winner"),
        (lambda r: of("best", r, epoch=7), "at epoch 7, is not what the members have there"),
        (lambda r: of("best", r, score=1e6), "is not what the members have there"),
        (lambda r: of("best", r, history=[]), "is not what the members have there"),
        (lambda r: {"config": {**r.config.settings, "size": 5}}, "its key is"),
    ],
)
def test_a_record_that_does_not_fit_its_configuration_is_refused(pbt, change, message):
    """Though its checksum does."""
    assert Population.from_line(sealed(pbt)) == pbt
    with pytest.raises(BadRecord, match=re.escape(message)):
        Population.from_line(sealed(pbt, **change(pbt)))


def test_whole_numbers_as_weights_name_the_same_run():
    assert config().member([1, 0]).key == config().member([1.0, 0.0]).key


def test_one_failing_population_does_not_cost_the_others(tmp_path, monkeypatch):
    """Data that cannot be read when they are loaded: that population fails by name, the other is stored."""
    monkeypatch.setattr(multimnist, "FILES", {})  # what is to be there, so that nothing is found to be missing before
    good = config({"epochs": 2}, size=2)
    bad = config({"epochs": 2, "source": "full"}, size=2)
    with pytest.raises(runner.RunFailed, match="1 of 2 populations failed"):
        populations([bad, good], tmp_path / "store", workers=0, data_dir=str(tmp_path))
    assert PopulationStore(tmp_path / "store").get(good) is not None


def test_a_store_that_stops_taking_records_loses_none(tmp_path):
    """Its folder for one problem is occupied by a file: the record is kept elsewhere, and the message says where."""
    (tmp_path / "multimnist").write_text("in the way")
    small = config({"epochs": 2}, size=2)
    with pytest.raises(StoreError, match="copy its contents") as error:
        populations([small], tmp_path, workers=0)
    refuge = PopulationStore(str(error.value).split("lie in ")[1].split(":")[0])
    assert refuge.get(small) is not None
    shutil.rmtree(refuge.folder)


@pytest.mark.slow
def test_killed_and_started_again(tmp_path):
    """SIGKILL after the first record: it stays, untouched, and the others are as if nothing had happened."""
    settings = {"train_size": 256}
    configs = [config({**settings, "seed": seed}, exploit_interval=2) for seed in range(3)]
    script = tmp_path / "search.py"
    script.write_text(
        "import json, sys\n"
        "from mtl_study.experiments.population import PopulationConfig, populations\n"
        "configs = [PopulationConfig.model_validate(c, strict=False) for c in json.load(open(sys.argv[1]))]\n"
        "if __name__ == '__main__':\n"
        "    populations(configs, sys.argv[2], workers=2)\n"
    )
    (tmp_path / "configs.json").write_text(json.dumps([c.model_dump(mode="json") for c in configs]))
    store = tmp_path / "store"
    process = subprocess.Popen(
        [sys.executable, script, tmp_path / "configs.json", store],
        start_new_session=True,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(artifacts.REPOSITORY)},
    )
    deadline = time.monotonic() + 600
    while not list(store.rglob("*.json")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*.json")}
    assert before
    found = populations(configs, store, workers=0)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list(store.rglob("*.json"))) == 3
    assert numbers(found[0]) == numbers(train_population(configs[0]))


def test_every_shipped_population_is_current():
    """It is where its identity says, under the code versions of today."""
    store, found = PopulationStore(SHIPPED), 0
    for path in SHIPPED.rglob(f"{POPULATIONS}.jsonl"):
        for line in path.read_text().splitlines(keepends=True):
            record = Population.from_line(line)
            assert record.key == record.config.key and path == SHIPPED / f"{record.config.folder}.jsonl"
            assert store.get(record.config) == record
            found += 1
    assert found == len(list(store.records())) > 0


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base": base(smto="edm")}, "base.smto = 'edm'"),
        ({"base": base(problem="multimnist/CL")}, "has one task"),
        ({"exploit_interval": 3}, "Intervals that do: 1, 2 and 4"),
        ({"exploit_interval": 4}, "Give a smaller interval"),
        ({"exploit_interval": 0}, "exploit_interval = 0"),
        ({"size": 1}, "size = 1"),
        ({"size": 3, "quantile": 0.25}, "a quantile of at least 0.334"),
        ({"quantile": 0.6}, "quantile = 0.6"),
        ({"explore": -0.1}, "explore = -0.1"),
        ({"spread": math.inf}, "spread = inf"),
        ({"quantil": 0.25}, "did you mean 'quantile'"),
        ({"baselines": {"CL": {"accuracy": 0.5}}}, "RR is missing"),
        ({"baselines": {**BASELINES, "CR": {"accuracy": 0.5}}}, "no task 'CR' (did you mean 'RR'?)"),
        ({"baselines": {**BASELINES, "CL": {"acuracy": 0.5}}}, "no metric 'acuracy' (did you mean 'accuracy'?)"),
        ({"baselines": {**BASELINES, "CL": {}}}, "baselines of CL: accuracy is missing"),
        ({"baselines": {**BASELINES, "CL": {"accuracy": 0.0}}}, "CL accuracy is 0.0"),
        ({"baselines": {**BASELINES, "CL": {"accuracy": math.nan}}}, "baselines.CL.accuracy = nan"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_settings_are_refused_in_one_message(settings, message):
    with pytest.raises(BadConfig) as error:
        config(**settings)
    assert message in str(error.value)
