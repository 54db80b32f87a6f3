"""The paper's problems by name: dataset + model + tasks.

"multimnist/CL_RR"   classify the left digit, reconstruct the right one
"multimnist/CL"      the same, one task alone: the single-task reference
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from mtl_core import tasks
from mtl_core.datasets import multimnist
from mtl_core.models import lenet
from mtl_core.smtos.base import nearest
from mtl_core.step import MultiTaskModel
from mtl_core.tasks import Task

Source = Literal["embedded", "full"]
SPLITS = multimnist.SPLITS


class UnknownProblem(ValueError):
    """No problem has this name."""


@dataclass(frozen=True)
class Problem:
    """What is learnt: tasks in order, a model for them, and where the samples come from.

    feature_shape: of z for one sample. build_model(dropout): a fresh model, initialised from torch's default generator.
    """

    name: str
    tasks: tuple[Task, ...]
    feature_shape: tuple[int, ...]
    build_model: Callable[[float], MultiTaskModel]
    numerics: dict[str, int]  # of dataset and model

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(task.name for task in self.tasks)

    @property
    def single_tasks(self) -> tuple[str, ...]:
        """Names of the problems that hold one of these tasks alone."""
        family = self.name.split("/")[0]
        return tuple(f"{family}/{name}" for name in self.task_names)

    def default_sizes(self, source: Source) -> tuple[int, int, int]:
        """Samples in train, val and test."""
        return multimnist.SIZES[source]

    def check(self, source: Source, sizes: tuple[int, int, int], data_dir: str | None) -> None:
        """Refuses, before any training, sizes that the source does not have and data that are not there."""
        if source == "full":
            for split, size, most in zip(SPLITS, sizes, multimnist.SIZES["full"], strict=True):
                if size > most:
                    raise ValueError(f"{self.name}: {split}_size is {size:,}; the full source has {most:,} pairs.")
        multimnist.check(source, data_dir)

    def load(
        self,
        source: Source,
        sizes: tuple[int, int, int],
        data_dir: str | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Mapping[multimnist.SplitName, multimnist.Split]:
        """The splits on a device; `split.batch(index, task_names)` gives inputs and targets."""
        return multimnist.load(source, sizes, data_dir, device, dtype)


_MNIST_TASKS = {
    "CL": tasks.classification("CL", "class of the left digit"),
    "CR": tasks.classification("CR", "class of the right digit"),
    "RL": tasks.reconstruction("RL", "reconstruction of the left digit"),
    "RR": tasks.reconstruction("RR", "reconstruction of the right digit"),
}
_MNIST_HEADS = {"C": lenet.ClassificationHead, "R": lenet.ReconstructionHead}


def _multimnist(names: tuple[str, ...]) -> Problem:
    def build_model(dropout: float) -> MultiTaskModel:
        encoder = lenet.Encoder(dropout)
        return MultiTaskModel(encoder, {name: _MNIST_HEADS[name[0]](dropout) for name in names})

    return Problem(
        name=f"multimnist/{'_'.join(names)}",
        tasks=tuple(_MNIST_TASKS[name] for name in names),
        feature_shape=(lenet.FEATURES,),
        build_model=build_model,
        numerics={"dataset": multimnist.NUMERICS, "model": lenet.NUMERICS},
    )


PROBLEMS = {
    problem.name: problem
    for problem in map(_multimnist, [("CL", "CR"), ("CL", "RR"), ("RL", "RR"), ("CL",), ("CR",), ("RL",), ("RR",)])
}


def get(name: str) -> Problem:
    """The problem of that name. Raises UnknownProblem, naming the nearest, if there is none."""
    if name not in PROBLEMS:
        raise UnknownProblem(
            f"there is no problem called {name!r}{nearest(name, PROBLEMS)}. Known: {', '.join(PROBLEMS)}."
        )
    return PROBLEMS[name]
