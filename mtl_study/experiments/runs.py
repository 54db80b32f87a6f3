"""Runs: what identifies one, and what its record holds.

A run is a function of its configuration. Its identity is the configuration plus the code versions of the rooms
that it passes through (dataset, model, SMTO, trainer), hashed. A record holds raw numbers only; everything relative
(Δm, the chosen epoch) is computed when it is read.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mtl_core import problems, smtos
from mtl_core.datasets.base import SPLITS
from mtl_core.names import nearest

LATER = {"problem_options": {}, "schedule": "exponential", "keep_jacobian": True}
LAST_STEPS = 20  # before a divergence, of which a record keeps the method's diagnostics
TRAINER_CODE_VERSION = 1  # raise when the numbers that training.py or step.py produce change
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Size = Annotated[int, Field(ge=1)]


class BadConfig(ValueError):
    """A setting that is unknown, of the wrong type or out of range."""


class Config(BaseModel):
    """What one record's numbers depend on: settings that are checked when they are given, and the name they make.

    A subclass says what its `identity` is, which `base` run's data and model it needs, the `folder` of its records in a
    store, its `title` for people, and how many `epochs_in_all` it trains.

    Raises:
        BadConfig: through `of(...)`, in one message that says what is wrong.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @classmethod
    def of(cls, **settings: Any) -> Self:
        """A configuration, or a BadConfig that says in one message what is wrong with it."""
        try:
            return cls(**settings)
        except ValidationError as error:
            raise BadConfig(explain(error, cls)) from None

    @property
    def identity(self) -> dict[str, Any]:
        """The configuration and the code versions."""
        raise NotImplementedError

    @property
    def key(self) -> str:
        """The hash that names the record: 16 hexadecimal digits."""
        text = json.dumps(self.identity, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class RunConfig(Config):
    """Everything that a run's numbers depend on.

    problem, problem_options: "multimnist/CL_RR", …, as `problems.get` takes it. source, *_size: which data, and how
    many samples of each split (None: as many as the source usually gives).
    smto, options: the method, as `smtos.build` takes it.
    lr: step size of Adam at the start. weight_decay: L2, inside Adam.
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
    seed: Annotated[int, Field(ge=0)]
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
    precision: Literal["float32", "float64"] = "float32"
    problem_options: dict[str, Any] = {}
    schedule: Literal["exponential", "plateau", "plateau_on_validation"] = "exponential"
    keep_jacobian: bool = True

    @model_validator(mode="after")
    def _refuse_the_unknown(self) -> Self:
        problem = problems.get(self.problem, **self.problem_options)
        smtos.build(self.smto, len(problem.tasks), **self.options)
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

    @property
    def base(self) -> RunConfig:
        """The run itself."""
        return self

    @property
    def folder(self) -> str:
        """Where in a store its record lies: "multimnist/CL_RR/cagrad"."""
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
        """The configuration as JSON has it. What was added later (LATER) is left out where it says nothing new, so that
        older records keep their names."""
        settings = self.model_dump(mode="json")
        return {name: value for name, value in settings.items() if name not in LATER or value != LATER[name]}

    @property
    def definition(self) -> problems.Problem:
        """The problem, with its options."""
        return problems.get(self.problem, **self.problem_options)

    @property
    def identity(self) -> dict[str, Any]:
        """The configuration and the code version of every room it passes through."""
        versions = {
            **self.definition.code_versions,
            "smto": _smto_code_version(self.smto, self.options),
            "trainer": TRAINER_CODE_VERSION,
        }
        return {**self.settings, "numerics": versions}


def _smto_code_version(key: str, options: dict[str, Any]) -> int | list[int]:
    own = smtos.get(key).code_version
    return [own, smtos.get(options["inner"]).code_version] if options.get("inner") else own


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
    """How the task gradients lay to each other, averaged over an epoch's sampled steps.

    cosine_to_mean: mean cosine between each task's gradient and their average (the paper's metric).
    pairwise_cosine: mean over pairs of tasks. norms: length of each gradient [K]. norm_ratio: longest over shortest.
    None where a gradient is zero.
    """

    model_config = ConfigDict(extra="forbid")

    cosine_to_mean: float | None
    pairwise_cosine: float | None
    norms: list[float]
    norm_ratio: float | None


class Epoch(BaseModel):
    """What one epoch left. Lists are in task order [K]; metrics are raw, by task and metric name; None stands for NaN.

    diagnostics: what the method reported of itself, the mean over steps; under a name that begins with "peak_" the
    largest.
    """

    model_config = ConfigDict(extra="forbid")

    lr: float
    train_losses: list[float | None]
    val: dict[str, dict[str, float | None]]
    test: dict[str, dict[str, float | None]]
    weights: list[float | None]
    head_weights: list[float | None]
    diagnostics: dict[str, float | None]
    flags: dict[str, int]
    gradients: dict[str, Gradients]


#: of the field that holds the code versions: stored records have spelt it so from the beginning
STORED_AS_NUMERICS: Any = Field(validation_alias="numerics", serialization_alias="numerics")


class Record(BaseModel):
    """What a configuration left. A subclass has config, code_versions, ended, seconds and environment.

    seconds, environment: how long it took and on what; not part of what a record is.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    def to_json(self) -> str:
        return self.model_dump_json(indent=1, by_alias=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises pydantic's ValidationError if the text is no record."""
        return cls.model_validate_json(text, strict=False)


class Run(Record):
    """The record of one run.

    ended: "finished", or "diverged at epoch e, step s" (both from 0): a result, not a crash. `history` holds the
    epochs that were completed.
    before_divergence: what the method reported of itself in the last steps before a run diverged, LAST_STEPS of them at
    most, by name.
    """

    config: RunConfig
    code_versions: dict[str, Any] = STORED_AS_NUMERICS
    ended: str
    history: list[Epoch]
    before_divergence: dict[str, list[float | None]] = {}
    seconds: float
    environment: dict[str, str]

    @property
    def diverged(self) -> bool:
        return self.ended != "finished"
