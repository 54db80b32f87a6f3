"""Identity of a run, and its record: every flipped bit is noticed, and a longer run serves a shorter request."""

import hashlib
import json
import random
import re

import pytest
import torch

from mtl_core import smtos
from mtl_core.datasets import multimnist
from mtl_core.models import lenet
from mtl_core.smtos import base, registry
from mtl_core.smtos.base import LossWeighting
from mtl_core.smtos.edm import EDM
from mtl_core.smtos.unit_scal import UnitScal
from mtl_study import artifacts
from mtl_study.experiments import merge, runs, training
from mtl_study.experiments.fingerprints import fingerprint
from mtl_study.experiments.runs import TRAINER_CODE_VERSION, BadConfig, BadRecord, Packed, Run, RunConfig

TINY = {"train_size": 64, "val_size": 20, "test_size": 20, "epochs": 1, "batch_size": 64, "lr": 0.002, "seed": 0}


def config(**settings):
    return RunConfig.of(**{"problem": "multimnist/CL_RR", **TINY, **settings})


NEEDED = {"fixed": {"weights": [0.3, 0.7]}}  # options without a default
APART = {"seconds", "clock", "environment"}


@pytest.fixture(scope="module")
def record():
    return training.train(config(smto="edm"))


@pytest.fixture(scope="module")
def longer():
    return training.train(config(smto="edm", epochs=3))


def numbers(run):
    """A record without what may differ between two runs of the same configuration."""
    return run.model_dump(exclude=APART)


# -- settings and keys -------------------------------------------------------------------------------------------------


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
        {"val_size": 21},
        {"precision": "float64"},
        {"schedule": "plateau"},
    ):
        assert config(**change).key != base.key
    assert config(lr_decay=0.95, source="embedded").key == base.key


def test_how_many_epochs_is_no_part_of_the_key():
    """A pilot is the beginning of a longer run."""
    assert config(epochs=2).key == config().key and config(epochs=2) != config()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"smto": "cagrad", "options": {"c": 1}}, {"smto": "cagrad", "options": {"c": 1.0}}),
        ({"problem_options": {"width": 2}}, {"problem_options": {"width": 2.0}}),
        ({"problem_options": {"width": 1}}, {}),
        (
            {"smto": "auto_lambda", "options": {"inner": "cagrad", "inner_options": {"c": 1}}},
            {"smto": "auto_lambda", "options": {"inner": "cagrad", "inner_options": {"c": 1.0}}},
        ),
        (
            {"smto": "auto_lambda", "options": {"inner": "cagrad", "inner_options": {}}},
            {"smto": "auto_lambda", "options": {"inner": "cagrad"}},
        ),
        ({"smto": "fixed", "options": {"weights": [1, 0]}}, {"smto": "fixed", "options": {"weights": [1.0, 0.0]}}),
        ({"lr": 1, "dropout": 0, "weight_decay": 0}, {"lr": 1.0}),
        ({"dropout": -0.0, "weight_decay": -0.0}, {}),
        ({"smto": "cagrad", "options": {"c": -0.0}}, {"smto": "cagrad", "options": {"c": 0.0}}),
        ({"smto": "auto_lambda", "options": {"inner_options": {}}}, {"smto": "auto_lambda"}),
    ],
    ids=str,
)
def test_two_spellings_of_a_run_are_one_key(one, other):
    assert config(**one) == config(**other) and config(**one).key == config(**other).key


def test_another_upsampling_is_another_run_and_leaves_other_keys_alone():
    """The option is part of what a run is only where it is not torch's kernel."""
    common = {"problem": "cityscapes/19C", "seed": 1, "epochs": 1, "lr": 0.001, "batch_size": 4}
    common |= {"train_size": 8, "val_size": 4, "test_size": 4}
    small = {"width": 32, "slim": 32}
    one, same, other = (
        RunConfig.of(**common, problem_options=small | said)
        for said in ({}, {"upsampling": "kernel"}, {"upsampling": "products"})
    )
    assert one.key == same.key != other.key
    assert one.settings["problem_options"] == small and one.identity["numerics"] == other.identity["numerics"]


def test_width_is_an_option_of_a_run_and_leaves_other_keys_alone():
    """A run that does not name a width is hashed without it; one that does has a key of its own."""
    plain = RunConfig.of(problem="multimnist/CL_RR", seed=1, epochs=1, lr=0.001)
    wide = RunConfig.of(problem="multimnist/CL_RR", seed=1, epochs=1, lr=0.001, problem_options={"width": 2})
    assert "problem_options" not in plain.identity and wide.key != plain.key
    assert wide.definition.feature_shape == (100,) and plain.definition.feature_shape == (50,)


@pytest.mark.parametrize("smto", smtos.keys())
def test_an_option_at_its_default_is_not_given(smto):
    """Every option of every method, also inside another."""
    needed = NEEDED.get(smto, {})
    defaults = {name: p.default for name, p in smtos.options(smto).items() if p.default is not p.empty}
    spelt_out = {**defaults, **needed}
    assert config(smto=smto, options=spelt_out).key == config(smto=smto, options=needed).key
    for name, default in defaults.items():
        assert config(smto=smto, options={name: default, **needed}).options == needed
    try:
        outside = config(smto="rotograd", options={"inner": smto, "inner_options": needed})
    except BadConfig:
        return  # does not work inside
    assert config(smto="rotograd", options={"inner": smto, "inner_options": spelt_out}).key == outside.key


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


# -- records -----------------------------------------------------------------------------------------------------------


def sealed(record, **changes):
    """The line of a record with these changes, under a checksum that fits."""
    key, content = record.key, {**record.model_dump(mode="json", by_alias=True), **changes}
    body = json.dumps(content, separators=(",", ":"))
    checksum = hashlib.sha256(f"{key} {body}".encode()).hexdigest()
    return f'{{"key": "{key}", "checksum": "{checksum}", "record": {body}}}\n'


def flipped(line, bit):
    data = bytearray(line)
    data[bit // 8] ^= 1 << bit % 8
    return bytes(data)


def is_noticed(kind, line):
    try:
        kind.from_line(line.decode())
    except (BadRecord, UnicodeDecodeError):
        return True
    return False


def shipped(number, seed=0):
    """Lines of the archive, drawn at random, and the kind of record that they hold."""
    paths = sorted((artifacts.REPOSITORY / "results").rglob("*.jsonl"))
    found = [(merge._kind(path.stem), line) for path in paths for line in path.open("rb")]
    return random.Random(seed).sample(found, number)


def test_a_record_reads_back_as_it_was_written(record):
    line = record.to_line()
    assert Run.from_line(line) == record and Run.from_line(line).to_line() == line


def test_a_line_is_readable_without_the_package(record):
    """By json and hashlib alone: key, checksum and raw numbers; nothing relative and no chosen epoch."""
    line = record.to_line()
    content = json.loads(line)
    assert list(content) == ["key", "checksum", "record"] and line.count("\n") == 1
    body = line[line.index('"record": ') + len('"record": ') : -len("}\n")]
    assert content["checksum"] == hashlib.sha256(f"{content['key']} {body}".encode()).hexdigest()
    assert content["key"] == record.config.key and content["record"]["history"][0]["val"]["RR"]["mse"] > 0
    assert "delta" not in line and "best" not in line


def test_every_flipped_bit_of_a_record_is_noticed(record):
    line = record.to_line().encode()
    assert not is_noticed(Run, line)
    assert all(is_noticed(Run, flipped(line, bit)) for bit in range(8 * len(line)))


def test_flipped_bits_of_shipped_records_are_noticed():
    """A hundred bits each of forty lines; and lines that lost their end."""
    draw = random.Random(1)
    for kind, line in shipped(40):
        assert not is_noticed(kind, line)
        assert all(is_noticed(kind, flipped(line, draw.randrange(8 * len(line)))) for _ in range(100))
        assert is_noticed(kind, line[:-1]) and is_noticed(kind, line[: len(line) // 2])


def epoch(record, number=0, **changes):
    """A history in which one epoch has these changes."""
    history = record.model_dump(mode="json")["history"]
    history[number] = {**history[number], **changes}
    return {"history": history}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: {"config": {**r.config.model_dump(), "epochs": 10}}, "it holds 3 of 10 epochs and ended: finished"),
        (lambda r: {"config": {**r.config.model_dump(), "epochs": 2}}, "it holds 3 of 2 epochs"),
        (lambda r: {"config": {**r.config.model_dump(), "lr": 0.1}}, "its key is"),
        (lambda r: {"numerics": {**r.code_versions, "smto": 99}}, "its key is"),
        (lambda r: {"ended": "Finished"}, "ended = 'Finished'"),
        (lambda r: {"ended": "diverged at epoch -1, step 0"}, "ended = 'diverged at epoch -1, step 0'"),
        (lambda r: {"ended": "diverged at epoch ٣, step 0"}, "expected 'finished' or"),
        (lambda r: {"ended": "diverged at epoch 01, step 0"}, "expected 'finished' or"),
        (lambda r: {"ended": "diverged at epoch 3, step 0"}, "after the end of its 3 epochs"),
        (lambda r: {"ended": "diverged at epoch 2, step 1"}, "after the end of its 3 epochs"),
        (lambda r: {"ended": "diverged at epoch 2, step 0"}, "it holds 3 of 3 epochs and ended: diverged at epoch 2"),
        (lambda r: epoch(r, val={**r.history[0].val, "CR": {"accuracy": 0.5}}), "epoch 0: other tasks or metrics"),
        (lambda r: epoch(r, 1, test={"CL": r.history[0].test["CL"]}), "epoch 1: other tasks or metrics"),
        (lambda r: epoch(r, 2, test={**r.history[0].test, "RR": {"mae": 0.5}}), "epoch 2: other tasks or metrics"),
        (lambda r: epoch(r, weights=[0.3, 0.3, 0.4]), "epoch 0: lists of another length than the 2 tasks"),
        (lambda r: epoch(r, head_weights=[1.0]), "epoch 0: lists of another length"),
        (lambda r: epoch(r, train_losses=[]), "epoch 0: lists of another length"),
        (lambda r: epoch(r, lr=float("nan")), "history.0.lr"),
        (lambda r: epoch(r, lr=float("inf")), "history.0.lr"),
        (lambda r: epoch(r, weights=[float("nan"), 1.0]), "history.0.weights.0"),
        (lambda r: epoch(r, val={**r.history[0].val, "RR": {"mse": float("-inf")}}), "history.0.val.RR.mse"),
        (lambda r: epoch(r, lr="0.002"), "history.0.lr"),
        (lambda r: epoch(r, lr=None), "history.0.lr"),
        (lambda r: {"seconds": float("nan")}, "seconds"),
        (lambda r: {"clock": [1.0]}, "clock"),
        (lambda r: {"before_divergence": {"alpha_0": [1.0]}}, "before_divergence"),
        (lambda r: {"note": "hand-made"}, "note"),
    ],
)
def test_a_record_that_does_not_fit_its_configuration_is_refused(longer, change, message):
    """Though its checksum does: all of it where that is asked for, else at the latest when its epochs are looked at."""
    assert Run.from_line(sealed(longer), whole=True) == longer
    wrong = sealed(longer, **change(longer))
    with pytest.raises(BadRecord, match=re.escape(message)):
        Run.from_line(wrong, whole=True)
    with pytest.raises(BadRecord, match=re.escape(message)):
        list(Run.from_line(wrong).history)


def test_histories_are_kept_packed_and_say_the_same(longer):
    """A table over many records never holds the epochs of more than a few."""
    found = Run.from_line(longer.to_line())
    assert isinstance(found.history, Packed) and found == longer and found.to_line() == longer.to_line()
    plain = list(found.history)
    assert found.history == plain and plain == found.history and found.history[-1] == plain[-1]
    assert found.history[1:] == plain[1:] and len(found.history) == len(plain)
    assert found.history != plain[1:] and found.history != [plain[1], *plain[1:]]
    shorter = found.serving(found.config.model_copy(update={"epochs": 2}))
    assert isinstance(shorter.history, Packed) and shorter.history == plain[:2]
    many = [Packed([plain[0].model_copy(update={"lr": 1.0 + number})]) for number in range(200)]
    assert [epochs[0].lr for epochs in many] == [1.0 + number for number in range(200)]
    assert sum(len(epochs.packed) for epochs in many) < 200 * 1500
    assert runs._unpacked.cache_info().currsize <= 64


def test_epochs_are_parsed_when_they_are_looked_at(longer):
    """Until then they are counted only, whatever the method reports of itself; and a record that does not fit is not
    written in the first place."""
    wrong = longer.model_copy(
        update={"history": [epoch.model_copy(update={"weights": [1.0]}) for epoch in longer.history]}
    )
    with pytest.raises(BadRecord, match="epoch 0: lists of another length"):
        wrong.to_line()
    told = [epoch.model_copy(update={"diagnostics": {"lr": 1.0, "a,{": 0.0}}) for epoch in longer.history]
    longer = longer.model_copy(update={"history": Packed(told)})
    runs._unpacked.cache_clear()
    found = Run.from_line(longer.to_line())
    runs._unpacked.cache_clear()
    assert len(found.history) == 3 and runs._unpacked.cache_info().misses == 0
    assert found.history[2] == told[2] and found == longer
    with pytest.raises(BadRecord, match=f"{found.config.title} .{found.key}.: history.1.lr"):
        Run.from_line(sealed(longer, **epoch(longer, 1, lr=None))).history[0]


@pytest.mark.parametrize("number", [0, 2])
def test_what_another_version_would_have_written_is_refused_when_it_is_read(longer, number):
    """The first epoch and the last are looked at, and a setting that the epochs of this version lack is in all."""
    with pytest.raises(BadRecord, match=f"history.{number}.entropy"):
        Run.from_line(sealed(longer, **epoch(longer, number, entropy=0.5)))


def test_a_diagnostic_of_any_name_reads_back(longer):
    told = {"lead": [1.0], "before_divergence": [1.0]}
    lost = longer.model_copy(
        update={
            "ended": "diverged at epoch 2, step 0",
            "history": longer.history[:2],
            "before_divergence": told,
            "clock": [],
        }
    )
    assert Run.from_line(lost.to_line(), whole=True) == lost


# -- a longer run serves a shorter request -----------------------------------------------------------------------------


@pytest.fixture
def registry_as_it_was(monkeypatch):
    monkeypatch.setattr(base, "REGISTRY", dict(base.REGISTRY))
    monkeypatch.setattr(registry, "REGISTRY", base.REGISTRY)


def test_another_definition_under_the_same_name_is_another_run(registry_as_it_was):
    def defined(text="def weights(self, losses): return torch.ones_like(losses)"):
        names = {"__name__": "__main__", "LossWeighting": LossWeighting, "torch": torch}
        exec(f"class Mine(LossWeighting):\n    key = 'mine'\n    {text}", names)
        base.register(names["Mine"])
        return config(smto="mine").key

    one = defined()
    assert defined("def weights(self, losses):\n\n        return torch.ones_like(losses)  # the same") == one
    assert defined("def weights(self, losses): return 2 * torch.ones_like(losses)") != one
    assert defined("replay = True\n    def weights(self, losses): return torch.ones_like(losses)") != one
    assert defined("def backward(self, step): return 1") != defined("def backward(self, step): return 2")


def test_a_definition_is_the_same_in_a_script_and_in_a_cell():
    """Where its module is imported in the same piece of code, the compiler calls a function in another way."""
    body = "class Mine(LossWeighting):\n    key = 'mine'\n    def weights(self, losses):\n"
    body += "        for place in (1, 2):\n            t.rand(place)\n        return t.ones_like(losses)\n"
    found = []
    for code in (f"import torch as t\n{body}", body):
        names = {"__name__": "__main__", "LossWeighting": LossWeighting, "t": torch}
        exec(code, names)
        found.append(names["Mine"])
    assert fingerprint(found[0]) == fingerprint(found[1])
    exec(body.replace("ones", "zeros"), names)
    assert fingerprint(names["Mine"]) != fingerprint(found[0])


def test_what_a_method_uses_of_its_own_cell_is_part_of_it():
    """Functions, at any depth, classes and constants; not what only has the name of an attribute, nor what nobody
    uses."""
    cell = {
        "method": "class Mine(LossWeighting):\n    key = 'mine'\n    def weights(self, losses):\n"
        "        return [helped(x) for x in losses.shape]\n",
        "helper": "def helped(x): return Inner().scaled(deep(x)) if x else helped(1)\n",
        "deep": "def deep(x): return FACTOR * x\n",
        "class": "class Inner:\n    def scaled(self, x): return 2 * x\n",
        "constant": "FACTOR = 3\n",
        "attribute": "shape = 1\n",
        "unused": "def other(x): return x\n",
        "imported": "from math import sqrt\n",
    }

    def made(**changed):
        names = {"__name__": "__main__", "LossWeighting": LossWeighting}
        exec("".join((cell | changed).values()), names)
        return fingerprint(names["Mine"])

    one = made()
    assert made() == one
    for part in ("attribute", "unused"):
        assert made(**{part: cell[part].replace("1", "2").replace("return x", "return -x")}) == one, part
    for part, (old, new) in {
        "helper": ("helped(1)", "helped(2)"),
        "deep": ("* x", "/ x"),
        "class": ("2 * x", "4 * x"),
        "constant": ("3", "5"),
    }.items():
        assert made(**{part: cell[part].replace(old, new)}) != one, part


def test_a_method_inside_another_counts_at_any_depth(monkeypatch):
    """Its code version for the key, and for the record where it was defined."""
    deep = {"inner": "rotograd", "inner_options": {"inner": "cagrad"}}
    before = config(smto="auto_lambda", options=deep).key
    monkeypatch.setattr(smtos.get("cagrad"), "code_version", 99)
    assert config(smto="auto_lambda", options=deep).key != before
    mine = smtos.build("auto_lambda", 2, inner="rotograd", inner_options={"inner": "edm"})
    monkeypatch.setattr(EDM, "__module__", "__main__")
    assert training.environment(torch.device("cpu"), mine)["defined_in"] == "__main__"
    monkeypatch.undo()
    assert "defined_in" not in training.environment(torch.device("cpu"), smtos.build("auto_lambda", 2, inner="edm"))


def agrees(long, epochs, device="auto"):
    """What a record holds for so many epochs is, bit for bit, the run that was trained for that long."""
    wanted = long.config.model_copy(update={"epochs": epochs})
    served, trained = long.serving(wanted), training.train(wanted, device)
    served.check()
    assert served.config == wanted and numbers(served) == numbers(trained)
    assert long.same_beginning(trained) and trained.same_beginning(long)
    assert served.seconds <= long.seconds and long.config.epochs > epochs


@pytest.mark.training
@pytest.mark.parametrize("smto", [key for key in smtos.keys() if key != "bayesagg_mtl"])  # noqa: SIM118
def test_the_first_epochs_of_a_run_are_the_shorter_run(smto):
    """Every method that LeNet can train with, dropout included."""
    long = training.train(config(smto=smto, options=NEEDED.get(smto, {}), epochs=3, dropout=0.2, batch_size=32))
    for epochs in (1, 2):
        agrees(long, epochs)


@pytest.mark.training
def test_the_first_epochs_of_bayesagg_mtl_are_the_shorter_run():
    """On molecules: it needs heads of one layer."""
    molecules = {"problem": "qm9", "problem_options": {"max_atoms": 9, "slim": 4}, "train_size": 60, "batch_size": 30}
    long = training.train(config(**molecules, smto="bayesagg_mtl", options={"warm_up": 1}, epochs=3))
    for epochs in (1, 2):
        agrees(long, epochs)


@pytest.mark.training
@pytest.mark.parametrize("schedule", ["exponential", "plateau", "plateau_on_validation"])
def test_under_every_schedule_the_first_epochs_are_the_shorter_run(schedule, monkeypatch):
    """Plateaus without patience, so that the step size changes within a few epochs."""
    monkeypatch.setattr(training, "PATIENCE", 0)
    long = training.train(config(smto="edm", epochs=6, schedule=schedule, lr_decay=0.5, lr=0.02, dropout=0.5), "cpu")
    assert len({epoch.lr for epoch in long.history[:-1]}) > 1
    for epochs in (1, 4, 5):
        agrees(long, epochs, "cpu")


def test_a_request_for_more_is_not_served(longer):
    assert longer.serving(config(smto="edm", epochs=4)) is None
    assert longer.serving(longer.config) is longer


def test_a_diverged_run_serves_every_length(longer):
    """A longer request ends where it ended; a shorter one that it got through is finished."""
    ended = {"ended": "diverged at epoch 2, step 0", "history": longer.history[:2]}
    before = {"before_divergence": {"residual": [0.5, None]}}
    diverged = longer.model_copy(update={**ended, **before, "clock": longer.clock[:2]})
    diverged.check()
    for epochs in (3, 60):
        served = diverged.serving(config(smto="edm", epochs=epochs))
        served.check()
        assert served.config.epochs == epochs and numbers(served) | {"config": 0} == numbers(diverged) | {"config": 0}
    for epochs in (1, 2):
        served = diverged.serving(config(smto="edm", epochs=epochs))
        served.check()
        assert (served.ended, served.history, served.before_divergence) == ("finished", longer.history[:epochs], {})


def test_what_is_the_beginning_of_a_run(longer):
    """Seconds and environment apart; one that ended otherwise is not, and neither is one with another number."""
    two = longer.serving(config(smto="edm", epochs=2))
    assert longer.same_beginning(longer.model_copy(update={"seconds": 9.0, "environment": {}}))
    diverged = longer.model_copy(update={"ended": "diverged at epoch 2, step 0", "history": longer.history[:2]})
    assert not diverged.same_beginning(longer) and not longer.same_beginning(diverged)
    assert diverged.same_beginning(two) and two.same_beginning(diverged)
    later = diverged.model_copy(update={"ended": "diverged at epoch 2, step 1"})
    assert not later.same_beginning(diverged)
    other = longer.history[1].model_copy(update={"lr": 0.5})
    assert not longer.same_beginning(two.model_copy(update={"history": [longer.history[0], other]}))
