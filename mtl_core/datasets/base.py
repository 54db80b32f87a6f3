"""What a dataset is to the rest: splits that belong to it, checked before training, prepared once, batched by index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
Sizes = tuple[int, int, int]  # samples in train, val and test


class DataNotFound(FileNotFoundError):
    """Data that a run needs are not where they were looked for, or are not whole."""


class Split(Protocol):
    """The samples of one split, on one device."""

    def __len__(self) -> int: ...

    def batch(
        self, index: Tensor, tasks: tuple[str, ...], generator: torch.Generator | None = None
    ) -> tuple[Any, Sequence[Tensor]]:
        """Inputs and one target per task.

        Args:
            index: which samples [B]. tasks: names.
            generator: for training batches; augmentation draws from it, so that a run is a function of its seed.
                None: no augmentation.
        """


class Dataset(Protocol):
    """Where samples come from: one or more sources, the same kind of samples from each."""

    @property
    def sources(self) -> tuple[str, ...]: ...

    def sizes(self, source: str) -> Sizes:
        """How many samples a run takes that does not say how many."""

    def check(self, source: str, sizes: Sizes, data_dir: str | None) -> None:
        """Before training, raises DataNotFound for missing or damaged data, ValueError for sizes beyond the source."""

    def prepare(self, source: str, sizes: Sizes, data_dir: str | None) -> None:
        """Writes the files that are read later, once, whole or not at all; does nothing where they exist."""

    def load(
        self, source: str, sizes: Sizes, data_dir: str | None, device: torch.device, dtype: torch.dtype
    ) -> Mapping[SplitName, Split]:
        """The splits on a device, kept for the next run of the same process."""
