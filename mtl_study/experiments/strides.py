"""The real steps of a run, compared with the directions that its method asked for.

    stride(config)            one run with its strides, evenly spaced
    strides(configs, store)   several; those that the store does not hold are trained

A method looks at the gradients g_k of this step and asks for a direction d, which is what .grad holds. The inner
optimizer then moves the shared parameters by −s. Under Adam s is made of earlier directions too, and of a measure for
every coordinate, so what holds of d (that it hurts no task: g_k·d ≥ 0 for all k) need not hold of s.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from mtl_core.step import Step
from mtl_study.experiments import runner
from mtl_study.experiments.extras import ExtraConfig, ExtraRecord, evenly, to_the_end
from mtl_study.experiments.probes import Matrix, rounded
from mtl_study.experiments.runs import BadRecord, History, Run
from mtl_study.experiments.store import STRIDES, Store
from mtl_study.experiments.training import Training


class Stride(BaseModel):
    """One step.

    epoch, step: from 0. losses: of the batch, before the step [K]. gramian: inner products of the task gradients
    [K, K]. along: of each of them with d and with s, [2, K]. directions: of d and s with each other, [2, 2].
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    epoch: int
    step: int
    losses: list[float]
    gramian: Matrix
    along: Matrix
    directions: Matrix

    @classmethod
    def of(cls, losses: Tensor, jacobian: Tensor, directions: Tensor, **when: int) -> Stride:
        """From the losses [K], the task gradients [K, P], and d and s [2, P]."""
        J, D = jacobian.double(), directions.double()
        return cls(
            losses=rounded([losses])[0],
            gramian=rounded(J @ J.T),
            along=rounded(D @ J.T),
            directions=rounded(D @ D.T),
            **when,
        )


class StridesConfig(ExtraConfig):
    """Everything that the strides of a run depend on.

    looks: the first step, and so many others, at most all of them, evenly spaced, the last one included.
    """

    place: ClassVar[str] = STRIDES
    code_version: ClassVar[int] = 1  # raise when the numbers that this file produces change

    looks: Annotated[int, Field(ge=1)] = 40

    @property
    def steps(self) -> set[int]:
        """Of the run, from 0: those that are looked at."""
        return {0} | evenly(self.base, self.looks)


class Strides(ExtraRecord):
    """The strides of one run, and the epochs that the run left."""

    config: StridesConfig
    strides: list[Stride]
    history: History

    @property
    def run(self) -> Run:
        """The run itself, as `training.train` gives it."""
        return Run(
            config=self.config.base,
            code_versions=self.config.base.identity["numerics"],
            ended=self.ended,
            history=self.history,
            seconds=self.seconds,
            environment=self.environment,
        )

    def check(self, *, whole: bool = True) -> None:
        """The run's epochs; number of strides and tasks."""
        self.run.check(whole=whole)
        wanted = len(self.config.steps)
        if (self.finished and len(self.strides) != wanted) or len(self.strides) > wanted:
            raise BadRecord(f"it holds {len(self.strides)} of {wanted} strides and ended: {self.ended}")
        K = len(self.config.base.definition.tasks)
        for number, one in enumerate(self.strides):
            shapes = {len(one.losses), len(one.gramian), *map(len, one.gramian), *map(len, one.along)}
            if shapes != {K} or len(one.along) != 2 or [len(row) for row in one.directions] != [2, 2]:
                raise BadRecord(f"stride {number}: numbers of another size than {K} tasks have")


class StridesStore(Store[StridesConfig, Strides]):
    """The strides of a run store: <problem>/strides/<key>.json, or <problem>/strides.jsonl."""

    kind, place = Strides, STRIDES


def stride(config: StridesConfig, device: str = "auto", data_dir: str | None = None) -> Strides:
    """Train a run and look at its steps. The run is the one that nobody looks at."""
    return to_the_end(
        Strides,
        config,
        device,
        lambda where: _Measured(config, where, data_dir),
        lambda run: {"strides": run.strides, "history": run.history},
    )


def strides(configs: Iterable[StridesConfig], store: str | os.PathLike[str], **how: Any) -> list[Strides]:
    """The strides of several runs, in order; those that the store does not hold are trained and stored.

    Args:
        how: as for `runner.run`.
    """
    return runner.records(configs, StridesStore(store), stride, **{"title": "strides", **how})


class _Measured(Training):
    def __init__(self, config: StridesConfig, device: torch.device, data_dir: str | None) -> None:
        super().__init__(config.base, device, data_dir)
        self.done, self.strides = 0, list[Stride]()
        self.wanted = config.steps
        self.jacobian = self.before = torch.empty(0)

    @torch.no_grad()
    def before_backward(self, step: Step) -> None:
        if self.done in self.wanted:
            with torch.enable_grad():
                self.jacobian = step.jacobian.detach().clone()
            self.before = step.flatten(step.shared)

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        if self.done in self.wanted:
            per_epoch = math.ceil(len(self.data["train"]) / self.config.batch_size)
            asked = step.flatten([torch.zeros_like(p) if p.grad is None else p.grad for p in step.shared])
            directions = torch.stack([asked, self.before - step.flatten(step.shared)])
            when = {"epoch": self.done // per_epoch, "step": self.done % per_epoch}
            self.strides.append(Stride.of(step.losses, self.jacobian, directions, **when))
        self.done += 1
