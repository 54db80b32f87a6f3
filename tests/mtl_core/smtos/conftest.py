"""A small problem that every SMTO can take a step on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_core.smtos.base import SMTO, ProblemInfo, StepResult
from mtl_core.step import MultiTaskModel, Step


@dataclass
class Toy:
    """Two tasks on 32 points, one with cross-entropy and one with squared error, and linear heads on five features."""

    model: MultiTaskModel
    losses: list
    x: Tensor
    targets: list[Tensor]
    setting: ProblemInfo

    def batch(self, number: int, size: int = 8) -> tuple[Tensor, list[Tensor]]:
        """Batch number 0, 1, 2, … of the 32 points, in a fixed order without end."""
        rows = torch.arange(number * size, (number + 1) * size) % len(self.x)
        return self.x[rows], [y[rows] for y in self.targets]

    def step(self, smto: SMTO | None = None, number: int = 0) -> Step:
        """A Step on batch `number` as the trainer makes it; the second batch is the following one."""
        if smto is None:
            return Step(self.model, self.losses, *self.batch(number))
        another = lambda: self.batch(number + 1)  # noqa: E731
        return Step(
            self.model,
            self.losses,
            *self.batch(number),
            transform_features=smto.transform_features,
            second_batch=another,
            replay=smto.replay,
        )

    def optimizer(self, smto: SMTO, lr: float = 0.01) -> torch.optim.Adam:
        return torch.optim.Adam([{"params": list(self.model.parameters())}, *smto.parameter_groups(lr)], lr=lr)

    def train(self, smto: SMTO, optimizer: torch.optim.Optimizer, numbers: range) -> list[StepResult]:
        """Steps on these batches, as the trainer takes them; what was applied in each."""
        applied = []
        for number in numbers:
            step = self.step(smto, number)
            applied.append(smto.backward(step))
            optimizer.step()
            smto.after_step(step)
        return applied

    def gradient(self) -> Tensor:
        """The encoder's .grad, flat."""
        return torch.cat([p.grad.flatten() for p in self.model.encoder.parameters()])

    def head_gradients(self) -> list[Tensor]:
        """Every head's .grad, flat."""
        return [torch.cat([p.grad.flatten() for p in head.parameters()]) for head in self.model.heads.values()]


@pytest.fixture
def make_toy() -> Callable[..., Toy]:
    """A function that makes the problem, the same every time."""

    def make(dropout: float = 0.0, dtype: torch.dtype = torch.float64) -> Toy:
        torch.manual_seed(3)
        encoder = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 5), nn.Tanh())
        heads = {"a": nn.Sequential(nn.Linear(5, 3), nn.LogSoftmax(1)), "b": nn.Linear(5, 2)}
        x = torch.randn(32, 6, dtype=dtype)
        targets = [(x[:, :3] + 0.3 * x[:, 3:]).argmax(1), torch.stack([x[:, 0] - x[:, 4], 2 * x[:, 5]], 1)]
        setting = ProblemInfo(likelihoods=("softmax", "gaussian"), feature_shape=(5,), lr=0.01, weight_decay=0.0)
        return Toy(MultiTaskModel(encoder, heads).to(dtype), [F.nll_loss, F.mse_loss], x, targets, setting)

    return make


@pytest.fixture
def toy(make_toy: Callable[..., Toy]) -> Toy:
    return make_toy()
