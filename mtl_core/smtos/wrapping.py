"""Methods that may work around another SMTO."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from mtl_core.options import BadOption
from mtl_core.smtos.base import NEEDS, SMTO, ProblemInfo
from mtl_core.smtos.registry import build
from mtl_core.step import MultiTaskModel, Step


class Wrapping(SMTO):
    """Methods that may work around another SMTO, which then decides the weights. Without an inner one they act alone.

    Options:
    inner: key of the SMTO inside.
    inner_options: its options.
    """

    #: keys that make no sense inside
    not_inside: ClassVar[tuple[str, ...]] = ()

    def __init__(self, num_tasks: int, inner: str | None, inner_options: dict[str, Any] | None) -> None:
        super().__init__(num_tasks)
        if inner is None and inner_options:
            raise BadOption(f"{self.key}: inner_options = {inner_options!r} without an inner SMTO; give option inner.")
        if inner in self.not_inside:
            raise BadOption(f"{self.key}: {inner!r} does not work inside {self.key}; give another inner SMTO, or none.")
        self.inner = None if inner is None else build(inner, num_tasks, **(inner_options or {}))
        if self.inner is not None:
            self.replay = self.inner.replay

    def required(self) -> list[str]:
        inner = [] if self.inner is None else self.inner.required()
        return [need for need in NEEDS if need in inner or need in super(Wrapping, self).required()]

    def check_model(self, model: MultiTaskModel) -> None:
        if self.inner is not None:
            self.inner.check_model(model)

    def set_up(self, info: ProblemInfo, seed: int) -> None:
        super().set_up(info, seed)
        if self.inner is not None:
            self.inner.set_up(info, seed)

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        return [] if self.inner is None else self.inner.parameter_groups(lr)

    def transform_features(self, z: Tensor, k: int) -> Tensor:
        return z if self.inner is None else self.inner.transform_features(z, k)

    def begin_epoch(self, epoch: int, mean_losses: Tensor | None, lr: float) -> None:
        if self.inner is not None:
            self.inner.begin_epoch(epoch, mean_losses, lr)

    def after_step(self, step: Step) -> None:
        if self.inner is not None:
            self.inner.after_step(step)
