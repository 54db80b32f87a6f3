"""Runs: what identifies one, and what its record holds.

A run is a function of its configuration. Its identity is the configuration, except how many epochs it has, plus the
code versions of the rooms that it passes through (dataset, model, SMTO, trainer), hashed: a pilot is the beginning of a
longer run. A record holds raw numbers only; everything relative (Δm, the chosen epoch) is computed when it is read.

A record is one line of text, in a store and in an archive alike:

    {"key": "0123456789abcdef", "checksum": "…", "record": {"config": {…}, …}}

key: the hash of the identity. checksum: SHA-256 of the key, a blank and the record's text, that is of all
after `"record": ` without the last brace.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Sized
from functools import lru_cache
from typing import Annotated, Any, Literal, Self, overload

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    model_serializer,
    model_validator,
)

from mtl_core import problems, smtos
from mtl_core.datasets.base import SPLITS
from mtl_core.names import nearest
from mtl_core.smtos import registry
from mtl_core.tasks import Task
from mtl_study import streets  # noqa: F401  (draws the embedded source)
from mtl_study.experiments.fingerprints import fingerprint

UNKNOWN = "instruction set unknown"  # of records from before 27 November 2026
#: settings that came later, with what older records have
LATER: dict[str, Any] = {
    "problem_options": {},
    "schedule": "exponential",
    "keep_jacobian": True,
    "optimizer": "adam",
    "momentum": 0.0,
    "betas": [0.9, 0.999],
    "eps": 1e-8,
    "units": [],
}
#: of these, what the first shipped records do not spell
SINCE_SHIPPED = ("optimizer", "momentum", "betas", "eps", "units")
WITH_MOMENTUM, WITH_BETAS = ("sgd", "signsgd", "muon"), ("adam", "adamw", "adam_per_task", "muon")
LAST_STEPS = 20  # before a divergence, of which a record keeps the method's diagnostics
TRAINER_CODE_VERSION = 1  # raise when the numbers that training.py or step.py produce change
WHOLE = r"(0|[1-9][0-9]*)"  # a whole number, in one spelling
ENDED = re.compile(rf"finished|diverged at epoch {WHOLE}, step {WHOLE}")
LINE = re.compile(r'\{"key": "([0-9a-f]{16})", "checksum": "([0-9a-f]{64})", "record": (\{.*\})\}\n')
#: the text before and after the epochs of a run, where it is written as we write it
BEFORE_HISTORY, AFTER_HISTORY = re.compile(r',"ended":"[^"]*","history":(?=\[)'), ',"before_divergence":'

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Size = Annotated[int, Field(ge=1)]


class BadConfig(ValueError):
    """A setting that is unknown, of the wrong type or out of range."""


class BadRecord(ValueError):
    """A text that is no record, or one that does not fit its own configuration."""


class ForeignRecord(BadRecord):
    """A whole record of a problem, a method or an option that is not known here."""


class Config(BaseModel):
    """What one record's numbers depend on: settings that are checked when they are given, and the name they make.

    A subclass says what its `identity` is, which `base` run's data and model it needs, the `folder` of its records in a
    store, its `title` for people, and how many `epochs_in_all` it trains.

    Raises:
        BadConfig: through `of(...)`, in one message that says what is wrong.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @classmethod
    def of(cls, **settings: Any) -> Self:
        """A configuration, or a BadConfig that says in one message what is wrong with it."""
        try:
            return cls(**settings)
        except ValidationError as error:
            raise BadConfig(explain(error, cls)) from None

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """The same except for these settings, which are checked like those of any other. Raises BadConfig."""
        return type(self).of(**{**{name: getattr(self, name) for name in type(self).model_fields}, **(update or {})})

    @property
    def identity(self) -> dict[str, Any]:
        """The configuration and the code versions."""
        raise NotImplementedError

    @property
    def key(self) -> str:
        """The hash that names the record: 16 hexadecimal digits."""
        return _key(self.identity)


class RunConfig(Config):
    """Everything that a run's numbers depend on.

    problem, problem_options: "multimnist/CL_RR", …, as `problems.get` takes it. source, *_size: which data, and how
    many samples of each split (None: as many as the source usually gives).
    smto, options: the method, as `smtos.build` takes it.
    lr: step size at the start. weight_decay: L2, added to the gradient; with adamw apart from it.
    optimizer: the inner one, which moves the parameters (experiments/inner.py); momentum, betas and eps are its own.
    units: a factor per task on the training losses [K], which the SMTO and the record then see in these units; metrics
    stay as they are. None given: 1 for all.
    schedule: "exponential" multiplies the step size by lr_decay after every epoch; "plateau" does so when the summed
    losses of an epoch's last batch have not improved for 5 epochs, as in the released code for QM9 (D5);
    "plateau_on_validation" when the validation metrics have not.
    keep_jacobian: False saves memory: the Gramian on the parameters is accumulated part by part (`step.Step`).
    dropout: one probability for encoder and heads. seed: initial weights, dropout and batch order; never the split.

    Raises:
        BadConfig: through `RunConfig.of(...)`, in one message that names the setting and the nearest valid name.
    """

    problem: str
    smto: str = "unit_scal"
    options: dict[str, Any] = {}
    seed: Annotated[int, Field(ge=0, lt=2**32)]  # what every generator of random numbers takes
    epochs: Size
    batch_size: Size = 256
    lr: Positive
    lr_decay: Annotated[float, Field(gt=0, le=1)] = 0.95
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: NotNegative = 0.0
    source: str = "embedded"
    train_size: Size | None = None
    val_size: Size | None = None
    test_size: Size | None = None
    precision: Literal["float32", "float64", "tf32", "amp"] = "float32"
    problem_options: dict[str, Any] = {}
    schedule: Literal["exponential", "plateau", "plateau_on_validation"] = "exponential"
    keep_jacobian: bool = True
    optimizer: Literal["adam", "adamw", "sgd", "signsgd", "muon", "adam_per_task"] = "adam"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)] = [0.9, 0.999]
    eps: Positive = 1e-8
    units: list[Positive] = []

    @model_validator(mode="after")
    def _refuse_the_unknown(self) -> Self:
        object.__setattr__(self, "problem_options", problems.canonical(self.problem, self.problem_options))
        problem = self.definition
        self._check_optimizer(len(problem.tasks))
        for name in ("lr", "dropout", "weight_decay", "lr_decay", "momentum"):
            object.__setattr__(self, name, getattr(self, name) + 0.0)  # −0.0 is 0.0
        object.__setattr__(self, "options", registry.canonical(self.smto, self.options))
        _refuse_options(self.smto, len(problem.tasks), self.options)
        if self.source not in problem.data.sources:
            raise ValueError(
                f"source = {self.source!r}{nearest(self.source, problem.data.sources)}: {self.problem} has the sources "
                f"{', '.join(problem.data.sources)}."
            )
        if self.schedule != "exponential" and self.lr_decay == 1:
            raise ValueError(
                "lr_decay = 1: a plateau schedule multiplies by it, so it must be below 1; the paper has 0.7."
            )
        for split, size in zip(SPLITS, problem.data.sizes(self.source), strict=True):
            if getattr(self, f"{split}_size") is None:
                object.__setattr__(self, f"{split}_size", size)
        last = self.sizes[0] % self.batch_size or self.batch_size
        if last < problem.smallest_batch:
            raise ValueError(
                f"train_size = {self.train_size}, batch_size = {self.batch_size}: the last batch has {last} of the at "
                f"least {problem.smallest_batch} samples that {self.problem} needs; change one of the two."
            )
        return self

    @model_serializer(mode="wrap")
    def _as_shipped(self, settings: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What came after the first shipped records is left out where it says nothing new: they read as they were
        written."""
        found: dict[str, Any] = settings(self)
        return {name: value for name, value in found.items() if name not in SINCE_SHIPPED or value != LATER[name]}

    def _check_optimizer(self, num_tasks: int) -> None:
        """Raises ValueError for a setting that the optimizer does not have; units of 1 are none."""
        for name, having in (("momentum", WITH_MOMENTUM), ("betas", WITH_BETAS), ("eps", WITH_BETAS)):
            if getattr(self, name) != LATER[name] and self.optimizer not in having:
                raise ValueError(
                    f"{name} = {getattr(self, name)}: optimizer {self.optimizer!r} has none; {', '.join(having)} do."
                )
        if self.units and len(self.units) != num_tasks:
            raise ValueError(f"units = {self.units}: {self.problem} has {num_tasks} tasks; give a factor for each.")
        if self.optimizer == "adam_per_task" and not self.keep_jacobian:
            raise ValueError("keep_jacobian = False: adam_per_task needs every task's gradient; leave it True.")
        if set(self.units) == {1.0}:
            object.__setattr__(self, "units", [])

    @property
    def base(self) -> RunConfig:
        """The run itself."""
        return self

    @property
    def folder(self) -> str:
        """The folder of its record in a store: "multimnist/CL_RR/cagrad"."""
        return f"{self.problem}/{self.smto}"

    @property
    def title(self) -> str:
        """The run in words."""
        return f"{self.problem}, {self.smto}, seed {self.seed}"

    @property
    def epochs_in_all(self) -> int:
        return self.epochs

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Samples in train, val and test."""
        assert self.train_size and self.val_size and self.test_size
        return self.train_size, self.val_size, self.test_size

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration as JSON. What was added later (LATER) is left out where it says nothing new, so that
        older records keep their names."""
        settings = self.model_dump(mode="json")
        return {name: value for name, value in settings.items() if name not in LATER or value != LATER[name]}

    @property
    def definition(self) -> problems.Problem:
        """The problem, with its options."""
        return problems.get(self.problem, **self.problem_options)

    @property
    def identity(self) -> dict[str, Any]:
        """The configuration without its length, and the code version of every room it passes through."""
        versions = {
            **self.definition.code_versions,
            "smto": _smto_code_version(self.smto, self.options),
            "trainer": TRAINER_CODE_VERSION,
        }
        return {name: value for name, value in self.settings.items() if name != "epochs"} | {"numerics": versions}


def _key(identity: dict[str, Any]) -> str:
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _refuse_options(key: str, num_tasks: int, options: Mapping[str, Any]) -> None:
    """Raises BadOption where the method does not take these. Each set of options is tried once: a plan has thousands
    of runs of one."""
    asked = smtos.get(key), num_tasks, repr(options)
    if asked not in _TAKEN:
        smtos.build(key, num_tasks, **options)
        _TAKEN.add(asked)


_TAKEN: set[tuple[type, int, str]] = set()


def _smto_code_version(key: str, options: Mapping[str, Any]) -> Any:
    """Of a method and of those inside it. What is defined outside the package has its code for a version, so that
    another definition under the same key is another method."""
    smto = smtos.get(key)
    own: Any = smto.code_version if smto.__module__.startswith("mtl_core.") else fingerprint(smto)
    inner = options.get("inner")
    return [own, _smto_code_version(inner, options.get("inner_options") or {})] if inner else own


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """What pydantic found wrong with a configuration, in one message."""
    messages = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = model.model_fields
            messages.append(f"unknown setting {name!r}{nearest(name, known)}. Known: {', '.join(known)}")
        elif problem["type"] == "value_error":
            messages.append(str(problem["ctx"]["error"]))
        else:
            given = "" if problem["type"] == "missing" else f" = {problem['input']!r}"
            messages.append(f"{name}{given}: {problem['msg']}")
    return "; ".join(messages)


class Gradients(BaseModel):
    """Angles and lengths of the task gradients, averaged over an epoch's sampled steps.

    cosine_to_mean: mean cosine between each task's gradient and their average (the paper's metric).
    pairwise_cosine: mean over pairs of tasks. norms: length of each gradient [K]. norm_ratio: longest over shortest.
    None where a gradient is zero.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    cosine_to_mean: float | None
    pairwise_cosine: float | None
    norms: list[float]
    norm_ratio: float | None


class Epoch(BaseModel):
    """What one epoch left. Lists are in task order [K]; metrics are raw, by task and metric name; None means NaN.

    diagnostics: what the method reported of itself, the mean over steps; under a name that begins with "peak_" the
    largest.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    lr: float
    train_losses: list[float | None]
    val: dict[str, dict[str, float | None]]
    test: dict[str, dict[str, float | None]]
    weights: list[float | None]
    head_weights: list[float | None]
    diagnostics: dict[str, float | None]
    flags: dict[str, int]
    gradients: dict[str, Gradients]


Metrics = Mapping[str, Collection[str]]  # the names of the metrics of every task, in task order
NO_EPOCHS = zlib.compress(b"[]", 1)
FIRST_FIELD = '{"lr":'  # of an epoch, as it is written


class Packed(Sequence[Epoch]):
    """The epochs of a record, read-only. They are kept as compressed JSON, in a thirtieth of the memory, and unpacked
    where they are looked at: a table over thousands of records never holds more than a few histories.

    Raises:
        BadRecord: when stored ones (`stored`) are looked at and do not fit.
    """

    __slots__ = ("expected", "length", "packed")

    expected: tuple[str, Metrics] | None

    def __init__(self, epochs: Sequence[Epoch]) -> None:
        self.length, self.expected = len(epochs), None
        self.packed = zlib.compress(EPOCHS.dump_json(list(epochs)), 1) if epochs else NO_EPOCHS

    @classmethod
    def stored(cls, text: str, title: str, metrics: Metrics) -> Packed:
        """Epochs as in a record's line. They are counted now, and parsed and checked against the metrics when they
        are first looked at: what the checksum fits is what was written, and nothing is written unchecked.

        Args:
            title: of the record, for messages.
        """
        packed = cls([])
        packed.length = text.count(f",{FIRST_FIELD}") + text.startswith(f"[{FIRST_FIELD}")
        packed.packed = zlib.compress(text.encode(), 1)
        packed.expected = title, metrics
        return packed

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> Epoch: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Epoch]: ...

    def __getitem__(self, index: int | slice) -> Epoch | Sequence[Epoch]:
        return self._epochs()[index]

    def __iter__(self) -> Iterator[Epoch]:
        return iter(self._epochs())

    def _epochs(self) -> list[Epoch]:
        if self.expected is None:
            return _unpacked(self.packed)
        title, metrics = self.expected
        try:
            epochs = _unpacked(self.packed)
            check_epochs(epochs, metrics)
        except ValidationError as error:
            raise BadRecord(f"{title}: history.{explain(error, Epoch)}") from None
        except BadRecord as error:
            raise BadRecord(f"{title}: {error}") from None
        self.expected = None
        return epochs

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Packed) and self.packed == other.packed:
            return True
        return isinstance(other, Sequence) and list(self) == list(other)

    def __repr__(self) -> str:
        return f"<{self.length} epochs>"


def ends(text: str) -> str:
    """Of the text of many epochs the first and the last."""
    first, last = text.find(f",{FIRST_FIELD}"), text.rfind(f",{FIRST_FIELD}")
    return text if first == last else text[:first] + text[last:]


def unread(history: Sequence[Epoch]) -> bool:
    """Whether a record's epochs have been counted only."""
    return isinstance(history, Packed) and history.expected is not None


EPOCHS = TypeAdapter(list[Epoch])
History = Annotated[Sequence[Epoch], AfterValidator(Packed), PlainSerializer(list, return_type=list[Epoch])]


@lru_cache(maxsize=64)  # the records of one figure, which are looked at epoch by epoch and again and again
def _unpacked(packed: bytes) -> list[Epoch]:
    return EPOCHS.validate_json(zlib.decompress(packed), strict=True)


#: of the field that holds the code versions: stored records have spelt it so from the beginning
STORED_AS_NUMERICS: Any = Field(validation_alias="numerics", serialization_alias="numerics")


class Record(BaseModel):
    """What a configuration left. A subclass has config, code_versions, ended, seconds and environment.

    seconds, environment: how long it took and on what; not part of what a record is.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True, allow_inf_nan=False)

    @property
    def identity(self) -> dict[str, Any]:
        """Of the configuration, under the code versions that it was trained with."""
        record: Any = self
        return {**record.config.identity, "numerics": record.code_versions}

    def check(self, *, whole: bool = True) -> None:
        """Holds a record against its configuration: without `whole` all but the epochs that nobody has looked at yet.
        Raises BadRecord, saying what does not fit."""

    @classmethod
    def parsed(cls, key: str, body: str) -> Self:
        """The record in the text of a line, unchecked. Raises ValidationError."""
        return cls.model_validate_json(body, strict=True)

    def serving(self, config: Any) -> Self | None:
        """The record that this one holds for a configuration of the same identity, or None if it is too short."""
        raise NotImplementedError

    def same_beginning(self, other: Self) -> bool:
        """Whether the shorter of two records of one identity is the beginning of the longer, in all that counts."""
        raise NotImplementedError

    @property
    def key(self) -> str:
        """That of its identity: the configuration's, unless the code has changed since."""
        return _key(self.identity)

    def to_line(self) -> str:
        """The record as a store has it. Raises BadRecord if it does not fit its configuration."""
        self.check()
        key, body = self.key, self.model_dump_json(by_alias=True)
        return f'{{"key": "{key}", "checksum": "{_checksum(key, body)}", "record": {body}}}\n'

    @classmethod
    def from_line(cls, line: str, *, whole: bool = False) -> Self:
        """A record as a store has it. Raises BadRecord if a single bit of it was changed, or if it does not fit its own
        configuration: a ForeignRecord where that is not known here. Of a run's epochs the number is checked, and the
        first and the last; with `whole` all of them, which else are when they are looked at (`Packed.stored`)."""
        key, body = unpacked(line)
        try:
            record = cls.parsed(key, body)
        except ValidationError as error:
            of_config = all(problem["loc"][:1] == ("config",) for problem in error.errors())
            raise (ForeignRecord if of_config else BadRecord)(explain(error, cls)) from None
        if record.key != key:
            raise BadRecord(f"its key is {key}, its configuration has another one")
        record.check(whole=whole)
        return record


def machine(environment: Mapping[str, str]) -> str:
    """The kind of a machine: where it is the same, so are the numbers. "cpu (x86_64), AVX2"."""
    return f"{environment.get('device', 'device unknown')}, {environment.get('instruction_set', UNKNOWN)}"


def unpacked(line: str) -> tuple[str, str]:
    """Key and record, still as text, of a line. Raises BadRecord if a single bit of it was changed."""
    if not (found := LINE.fullmatch(line)):
        raise BadRecord("it is not a line with key, checksum and record")
    key, checksum, body = found.groups()
    if _checksum(key, body) != checksum:
        raise BadRecord("its checksum does not fit: it was changed after it was written")
    return key, body


def checksum(line: str) -> str:
    """What a whole line says that its checksum is."""
    return line[: line.index('", "record"')].rpartition('"')[2]


def _checksum(key: str, body: str) -> str:
    return hashlib.sha256(f"{key} {body}".encode()).hexdigest()


def metrics_of(tasks: Iterable[Task]) -> Metrics:
    return {task.name: set(task.metrics) for task in tasks}


def check_epochs(history: Iterable[Epoch], metrics: Metrics) -> None:
    """Raises BadRecord where an epoch has other tasks or metrics than these, or lists of another length."""
    order, names = list(metrics), list(metrics.values())
    for number, epoch in enumerate(history):
        lists: list[Sized] = [
            epoch.train_losses,
            epoch.weights,
            epoch.head_weights,
            *(g.norms for g in epoch.gradients.values()),
        ]
        if any(len(one) != len(metrics) for one in lists):
            raise BadRecord(f"epoch {number}: lists of another length than the {len(metrics)} tasks")
        for split in (epoch.val, epoch.test):
            if list(split) != order or [found.keys() for found in split.values()] != names:
                raise BadRecord(f"epoch {number}: other tasks or metrics than {', '.join(metrics)} with theirs")


class Run(Record):
    """The record of one run.

    ended: "finished", or "diverged at epoch e, step s" (both from 0): a result, not a crash. `history` holds the
    epochs that were completed.
    before_divergence: what the method reported of itself in the last steps before a run diverged, LAST_STEPS of them at
    most, by name.
    clock: seconds from the start to the end of each epoch; older records have none.
    """

    config: RunConfig
    code_versions: dict[str, Any] = STORED_AS_NUMERICS
    ended: str
    history: History
    before_divergence: dict[str, list[float | None]] = {}
    seconds: float
    clock: list[float] = []
    environment: dict[str, str]

    @property
    def diverged(self) -> bool:
        return self.ended != "finished"

    @property
    def machine(self) -> str:
        """The kind of machine that it was made on."""
        return machine(self.environment)

    @classmethod
    def parsed(cls, key: str, body: str) -> Run:
        """With its epochs still unread, where it is written as we write it and the first and the last one fit."""
        begins = BEFORE_HISTORY.search(body)
        start = begins.end() if begins else -1
        end = body.find(f"]{AFTER_HISTORY}", start) + 1
        if start < 0 or end == 0:
            return super().parsed(key, body)
        run, text = super().parsed(key, f"{body[:start]}[]{body[end:]}"), body[start:end]
        metrics = metrics_of(run.config.definition.tasks)
        try:
            check_epochs(EPOCHS.validate_json(ends(text), strict=True), metrics)
        except (ValidationError, BadRecord):
            return super().parsed(key, body)  # its check says what is wrong
        run.history = Packed.stored(text, f"{run.config.title} ({key})", metrics)
        return run

    def check(self, *, whole: bool = True) -> None:
        """Number of epochs, tasks, metrics and weights, and how it ended."""
        ended = ENDED.fullmatch(self.ended)
        if not ended:
            raise BadRecord(f"ended = {self.ended!r}; expected 'finished' or 'diverged at epoch e, step s'")
        wanted = self.config.epochs
        if self.diverged:
            wanted, step = int(ended[1]), int(ended[2])
            if wanted >= self.config.epochs or step * self.config.batch_size >= self.config.sizes[0]:
                raise BadRecord(f"ended = {self.ended!r}, which is after the end of its {self.config.epochs} epochs")
        if len(self.history) != wanted:
            raise BadRecord(f"it holds {len(self.history)} of {self.config.epochs} epochs and ended: {self.ended}")
        if whole or not unread(self.history):
            check_epochs(self.history, metrics_of(self.config.definition.tasks))
        steps = max(map(len, self.before_divergence.values()), default=0)
        if steps > LAST_STEPS or (steps and not self.diverged):
            raise BadRecord(f"before_divergence: {steps} steps, and it ended: {self.ended}")
        if self.clock and len(self.clock) != len(self.history):
            raise BadRecord(f"clock: {len(self.clock)} times for {len(self.history)} epochs")

    def serving(self, config: RunConfig) -> Run | None:
        """The first epochs of this run as a record of their own; a run that diverged serves any length."""
        have, ask = len(self.history), config.epochs
        if ask == self.config.epochs:
            return self
        if self.diverged and have < ask:
            return self.model_copy(update={"config": config})
        if ask > have:
            return None
        seconds = self.clock[ask - 1] if self.clock else round(self.seconds * ask / max(have, 1), 2)
        beginning: dict[str, Any] = {
            "config": config,
            "ended": "finished",
            "history": Packed(self.history[:ask]),
            "before_divergence": {},
        }
        return self.model_copy(update=beginning | {"seconds": seconds, "clock": self.clock[:ask]})

    def same_beginning(self, other: Run) -> bool:
        """Epoch by epoch; of two that diverged, at the same step."""
        both = min(len(self.history), len(other.history))
        if self.history[:both] != other.history[:both]:
            return False
        short = min((self, other), key=lambda run: (len(run.history), run.diverged))
        if not short.diverged:
            return True
        return self.ended == other.ended and self.before_divergence == other.before_divergence
