"""Looks at a training run that do not change it: gradients sample by sample and task by task, and what Adam makes of
conflicts.

    watch(config)             one run with its looks, evenly spaced
    watch_all(configs, store) several; those that the store does not hold are trained

A look is taken before the method's backward pass, on the parameters as they are then. Gradients of single samples are
those on the shared parameters in evaluation mode: with batch normalisation, or dropout, in training mode the gradient
of a "sample" would hold its whole batch, or chance.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from mtl_core.step import Step, inner_products
from mtl_study.experiments import runner, training
from mtl_study.experiments.extras import ExtraConfig, ExtraRecord, evenly, to_the_end
from mtl_study.experiments.runs import BadRecord
from mtl_study.experiments.store import LOOKS, Store
from mtl_study.experiments.training import Training

SAMPLES = 8  # of a batch, and tasks, as Elich et al. have them
DIGITS = 5  # of a number in a record

Matrix = list[list[float]]


class Look(BaseModel):
    """One look.

    epoch, step: from 0. norms: length of the gradient of every task on every sample [K, S]. of_tasks: cosines between
    two tasks' gradients on one sample, [K(K−1)/2, S], in the order of `itertools.combinations`. of_samples: between two
    samples' gradients for one task, [K, S(S−1)/2]. A cosine with a gradient that is zero is 0. of_batch: inner products
    of the K gradients on the whole batch, J Jᵀ [K, K]. preconditioned: the same as Adam measures them, J P Jᵀ with
    P = 1/(√v̂ + ε); empty where there is no Adam, or not yet.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    epoch: int
    step: int
    norms: Matrix
    of_tasks: Matrix
    of_samples: Matrix
    of_batch: Matrix
    preconditioned: Matrix

    @classmethod
    def of(cls, gramian: np.ndarray, of_batch: np.ndarray, preconditioned: np.ndarray, **when: int) -> Look:
        """From inner products of the gradients of all tasks on all samples, [K, S, K, S], task first."""
        K, S = gramian.shape[:2]
        norms = np.sqrt(np.einsum("ksks->ks", gramian))
        cosines = gramian / np.where(norms > 0, norms, np.inf)[:, :, None, None] / np.where(norms > 0, norms, np.inf)
        one, other = np.triu_indices(K, 1)
        first, second = np.triu_indices(S, 1)
        return cls(
            norms=rounded(norms),
            of_tasks=rounded([[cosines[a, s, b, s] for s in range(S)] for a, b in zip(one, other, strict=True)]),
            of_samples=rounded([cosines[k, first, k, second] for k in range(K)]),
            of_batch=rounded(of_batch),
            preconditioned=rounded(preconditioned),
            **when,
        )


def rounded(rows: Any) -> Matrix:
    return [[float(f"{value:.{DIGITS}g}") for value in row] for row in rows]


class LooksConfig(ExtraConfig):
    """Everything that the looks at a run depend on.

    looks: so many, at most one per step, evenly spaced over all of them, the last step included. samples: the first of
    each batch, at most so many.
    """

    place: ClassVar[str] = LOOKS
    code_version: ClassVar[int] = 1  # raise when the numbers that this file produces change

    looks: Annotated[int, Field(ge=1)] = 20
    samples: Annotated[int, Field(ge=2)] = SAMPLES

    @property
    def steps(self) -> set[int]:
        """Of the run, from 0: those that are looked at."""
        return evenly(self.base, self.looks)


class Looks(ExtraRecord):
    """The looks at one run."""

    config: LooksConfig
    looks: list[Look]

    def check(self, *, whole: bool = True) -> None:
        """Number of looks, tasks and samples, and how it ended."""
        wanted = len(self.config.steps)
        if (self.finished and len(self.looks) != wanted) or len(self.looks) > wanted:
            raise BadRecord(f"it holds {len(self.looks)} of {wanted} looks and ended: {self.ended}")
        K, S = len(self.config.base.definition.tasks), self.config.samples
        for number, look in enumerate(self.looks):
            count = len(look.norms[0]) if look.norms else 0
            shapes = {"norms": (K, count), "of_tasks": (K * (K - 1) // 2, count)}
            shapes |= {"of_samples": (K, count * (count - 1) // 2), "of_batch": (K, K)}
            wrong = [name for name, shape in shapes.items() if np.shape(getattr(look, name)) != shape]
            if wrong or count > S:
                raise BadRecord(f"look {number}: {', '.join(wrong) or 'samples'} of another size than {K} tasks have")


class LooksStore(Store[LooksConfig, Looks]):
    """The looks of a run store: <problem>/looks/<key>.json, or <problem>/looks.jsonl."""

    kind, place = Looks, LOOKS


def watch(config: LooksConfig, device: str = "auto", data_dir: str | None = None) -> Looks:
    """Train a run and look at it. The run is the one that nobody looks at, bit for bit."""
    return to_the_end(
        Looks, config, device, lambda where: _Watched(config, where, data_dir), lambda run: {"looks": run.looks}
    )


def watch_all(configs: Iterable[LooksConfig], store: str | os.PathLike[str], **how: Any) -> list[Looks]:
    """The looks at several runs, in order; those that the store does not hold are trained and stored.

    Args:
        how: as for `runner.run`.
    """
    return runner.records(configs, LooksStore(store), watch, **{"title": "looks", **how})


class _Watched(Training):
    def __init__(self, config: LooksConfig, device: torch.device, data_dir: str | None) -> None:
        super().__init__(config.base, device, data_dir)
        self.samples, self.done, self.looks = config.samples, 0, list[Look]()
        self.wanted = config.steps

    def before_backward(self, step: Step) -> None:
        if self.done in self.wanted:
            per_epoch = math.ceil(len(self.data["train"]) / self.config.batch_size)
            jacobian = step.jacobian.detach()
            gramian = per_sample(self.model, self.loss_functions, step, self.samples)
            of_batch = inner_products(jacobian).cpu().numpy()
            when = {"epoch": self.done // per_epoch, "step": self.done % per_epoch}
            self.looks.append(Look.of(gramian, of_batch, self._preconditioned(step, jacobian), **when))
        self.done += 1

    def _preconditioned(self, step: Step, jacobian: Tensor) -> np.ndarray:
        roots = []
        for parameter in step.shared:
            state = self.optimizer.state.get(parameter, {})
            if "exp_avg_sq" not in state:
                return np.empty((0, 0))
            group = self.optimizer.param_groups[0]
            correction = 1 - group["betas"][1] ** float(state["step"])
            roots.append((state["exp_avg_sq"] / correction).sqrt() + group["eps"])
        return inner_products(jacobian / step.flatten(roots).sqrt()).cpu().numpy()


def per_sample(model: nn.Module, loss_functions: Sequence[training.Loss], step: Step, samples: int) -> np.ndarray:
    """Inner products of the gradients of every task on each of the step's first samples, [K, S, K, S]. Model, running
    statistics, .grad and random generators stay as they are."""
    was_training = model.training
    model.eval()
    rows = []
    try:
        inputs, count = step.x, min(samples, len(step.targets[0]))
        for i in range(count):
            predictions = model(inputs[i : i + 1], step.transform_features)
            for loss, prediction, target in zip(loss_functions, predictions, step.targets, strict=True):
                found = torch.autograd.grad(
                    loss(prediction, target[i : i + 1]), step.shared, retain_graph=True, materialize_grads=True
                )
                rows.append(torch.cat([g.flatten() for g in found]))
    finally:
        model.train(was_training)
    K = len(loss_functions)
    products = inner_products(torch.stack(rows)).cpu().numpy().reshape(count, K, count, K)
    return np.ascontiguousarray(products.transpose(1, 0, 3, 2))
