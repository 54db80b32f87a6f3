"""Records of what is done with a run in addition to training it: looks at gradients (probes), real steps (strides),
corrupted pictures (transfer). Each kind has a folder of its own, next to the methods' runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import torch

from mtl_study.experiments import training
from mtl_study.experiments.runs import ENDED, STORED_AS_NUMERICS, BadRecord, Config, Record, RunConfig


class ExtraConfig(Config):
    """What one such record depends on. A subclass names the folder (`place`) and the version of its code, and adds
    settings.

    base: the run.
    """

    place: ClassVar[str]
    code_version: ClassVar[int]
    base: RunConfig

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration as JSON."""
        return {"base": self.base.settings, **self.model_dump(mode="json", exclude={"base"})}

    @property
    def code_versions(self) -> dict[str, Any]:
        """The code version of every room that it passes through."""
        return {**self.base.identity["numerics"], self.place: self.code_version}

    @property
    def identity(self) -> dict[str, Any]:
        """The configuration and the code versions."""
        return {**self.settings, "numerics": self.code_versions}

    @property
    def folder(self) -> str:
        """The folder of its record in a store."""
        return f"{self.base.problem}/{self.place}"

    @property
    def title(self) -> str:
        """In words."""
        return f"{self.base.title}, {self.place}"

    @property
    def epochs_in_all(self) -> int:
        return self.base.epochs


def evenly(run: RunConfig, looks: int) -> set[int]:
    """So many of a run's steps, from 0, or all that it has: evenly spaced, the last one included."""
    steps = run.epochs * math.ceil(run.sizes[0] / run.batch_size)
    return {int(step) for step in np.linspace(0, steps - 1, min(looks, steps) + 1)[1:]}


class ExtraRecord(Record):
    """A subclass adds config, and what was found. ended: as that of the run."""

    code_versions: dict[str, Any] = STORED_AS_NUMERICS
    ended: str
    seconds: float
    environment: dict[str, str]

    @property
    def finished(self) -> bool:
        """Whether the run has. Raises BadRecord if it ended in neither of the two ways."""
        if not ENDED.fullmatch(self.ended):
            raise BadRecord(f"ended = {self.ended!r}; expected 'finished' or 'diverged at epoch e, step s'")
        return self.ended == "finished"

    def serving(self, config: Any) -> Self:
        """Itself: its length is part of what it is."""
        return self

    def same_beginning(self, other: Self) -> bool:
        """Whether both are the same, seconds and environment apart."""
        apart = {"seconds", "environment"}
        return self.model_dump(exclude=apart) == other.model_dump(exclude=apart)


B = TypeVar("B", bound=ExtraRecord)
T = TypeVar("T", bound=training.Training)


def to_the_end(
    kind: Callable[..., B],
    config: ExtraConfig,
    device: str,
    begin: Callable[[torch.device], T],
    found: Callable[[T], dict[str, Any]],
) -> B:
    """The record of one run.

    Args:
        begin: makes the run on a device; it is trained to its end. found: what the record has of it.
    """
    with training.determinism(1, config.base.precision):
        begun = time.perf_counter()
        run = begin(training.find_device(device))
        while run.unfinished:
            run.epoch()
        return kind(
            config=config,
            code_versions=config.code_versions,
            ended=run.diverged or "finished",
            **found(run),
            seconds=round(time.perf_counter() - begun, 2),
            environment=training.environment(run.device, run.smto),
        )
