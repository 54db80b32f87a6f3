"""Losses small enough to be drawn, and gradient descent on them by any method.

Pair(…)                                    two gradients as arrows
walk(toy, smtos.build("edm", 2), …)        gradient descent on two losses of two parameters
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mtl_core.smtos.base import SMTO, GramianWeighting, LossWeighting, ProblemInfo
from mtl_core.step import MultiTaskModel, Step
from mtl_core.tasks import Likelihood


def weigh(smto: SMTO, gramian: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """The weights [K] that a method gives to K tasks with this Gramian [K, K] and these losses [K].

    Raises:
        TypeError: the method needs to see more than these two.
    """
    if isinstance(smto, GramianWeighting):
        return smto.solve(gramian, losses)
    if isinstance(smto, LossWeighting):
        return smto.weights(torch.as_tensor(losses)).numpy()
    raise TypeError(f"{smto.key} is a function of neither the Gramian nor the losses: it reads {smto.space}.")


@dataclass(frozen=True)
class Pair:
    """Two tasks as far as a method with a Gramian and losses can see them.

    angle: between the gradients, degrees. ratio: |g_1| : |g_2|. loss_ratio: L_1 : L_2. length, loss: geometric means.
    """

    angle: float
    ratio: float
    loss_ratio: float = 1.0
    length: float = 1.0
    loss: float = 1.0

    @classmethod
    def of(cls, gramian: np.ndarray, losses: np.ndarray) -> Pair:
        """The pair with this Gramian [2, 2] and these losses [2]."""
        first, second = np.sqrt(np.diagonal(gramian))
        cosine = np.clip(gramian[0, 1] / (first * second), -1, 1)
        (a, b), angle = losses, float(np.rad2deg(np.arccos(cosine)))
        return cls(angle, float(first / second), float(a / b), float(np.sqrt(first * second)), float(np.sqrt(a * b)))

    @property
    def gradients(self) -> np.ndarray:
        """J [2, 2]: two vectors of a plane, symmetric about the vertical, −g_1 to the left and both −g_k upwards."""
        half = np.deg2rad(self.angle / 2)
        units = np.array([[np.sin(half), -np.cos(half)], [-np.sin(half), -np.cos(half)]])
        return self.length * np.sqrt([[self.ratio], [1 / self.ratio]]) * units

    @property
    def gramian(self) -> np.ndarray:
        """G = J Jᵀ [2, 2]."""
        return self.gradients @ self.gradients.T

    @property
    def losses(self) -> np.ndarray:
        """L [2]."""
        return self.loss * np.sqrt([self.loss_ratio, 1 / self.loss_ratio])


@dataclass(frozen=True)
class Bowl:
    """L(θ) = lowest + ½ Σ_i curvature_i (θ_i − minimum_i)² of two parameters."""

    minimum: tuple[float, float]
    curvature: tuple[float, float]
    lowest: float = 0.0

    def loss(self, theta: Any) -> Any:
        """Points [..., 2] to losses [...], of numpy or of torch."""
        x, y = theta[..., 0] - self.minimum[0], theta[..., 1] - self.minimum[1]
        return self.lowest + (self.curvature[0] * x**2 + self.curvature[1] * y**2) / 2

    def gradient(self, theta: np.ndarray) -> np.ndarray:
        """Points [..., 2] to gradients [..., 2]."""
        return np.asarray(self.curvature) * (np.asarray(theta) - self.minimum)

    def scaled(self, factor: float) -> Bowl:
        """The same loss in other units."""
        a, b = self.curvature
        return Bowl(self.minimum, (factor * a, factor * b), factor * self.lowest)


@dataclass(frozen=True)
class Slope:
    """L(θ) = level + direction · θ: a loss whose value and gradient at θ = 0 can be chosen freely."""

    direction: tuple[float, float]
    level: float = 1.0

    def loss(self, theta: Any) -> Any:
        """Points [..., 2] to losses [...], of numpy or of torch."""
        return self.level + self.direction[0] * theta[..., 0] + self.direction[1] * theta[..., 1]

    def gradient(self, theta: np.ndarray) -> np.ndarray:
        """Points [..., 2] to gradients [..., 2]."""
        return np.broadcast_to(np.asarray(self.direction, dtype=float), np.shape(theta)).copy()


@dataclass(frozen=True)
class Toy:
    """K tasks that share two parameters θ and nothing else: every head returns θ unchanged."""

    tasks: tuple[Bowl | Slope, ...]

    def losses(self, theta: np.ndarray) -> np.ndarray:
        """Points [..., 2] to losses [..., K]."""
        return np.stack([task.loss(np.asarray(theta, dtype=float)) for task in self.tasks], axis=-1)

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """A point [2] to J [K, 2]; row k is the gradient of task k."""
        return np.stack([task.gradient(np.asarray(theta, dtype=float)) for task in self.tasks])

    def gramian(self, theta: np.ndarray) -> np.ndarray:
        """A point [2] to G = J Jᵀ [K, K]."""
        jacobian = self.jacobian(theta)
        return jacobian @ jacobian.T

    @property
    def bowls(self) -> tuple[Bowl, ...]:
        """The tasks, where all of them have a minimum. Raises TypeError otherwise."""
        bowls = tuple(task for task in self.tasks if isinstance(task, Bowl))
        if len(bowls) < len(self.tasks):
            raise TypeError("a slope has no minimum: only a toy that is made of bowls has minima and a Pareto set.")
        return bowls

    def pareto_set(self, points: int = 201) -> np.ndarray:
        """Where neither of two bowls can get better without the other getting worse [points, 2]: the minima of
        (1 − t) L_1 + t L_2 for t from 0 to 1."""
        t = np.linspace(0, 1, points)[:, None]
        first, second = self.bowls
        a, b = (1 - t) * np.asarray(first.curvature), t * np.asarray(second.curvature)
        return (a * np.asarray(first.minimum) + b * np.asarray(second.minimum)) / (a + b)


@dataclass(frozen=True)
class Walk:
    """What gradient descent with some method did.

    points: θ before every step and at the end [T + 1, 2]. losses: there [T + 1, K]. weights: of every step, NaN where
    the method has none [T, K]. updates: what the optimizer was given; the step is −lr times it [T, 2].
    """

    points: np.ndarray
    losses: np.ndarray
    weights: np.ndarray
    updates: np.ndarray


class _Point(nn.Module):
    """An "encoder" whose features are its two parameters, whatever the input."""

    def __init__(self, start: Sequence[float]) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([list(map(float, start))]))

    def forward(self, x: Tensor) -> Tensor:
        return self.theta * 1.0


def walk(
    toy: Toy,
    smto: SMTO,
    start: Sequence[float],
    lr: float,
    steps: int,
    hold: bool = False,
    second_batch: Toy | None = None,
    seed: int = 1,
) -> Walk:
    """Plain gradient descent on the toy, steered by a method: its own `backward` on a `Step`, as in training. All steps
    belong to one epoch.

    Args:
        start: θ at the start.
        lr: length of a step over that of the update.
        hold: put θ back after every step, to see what a method learns while it stays in one place.
        second_batch: the losses on "another batch" of the same data, for Auto-Lambda; the same ones where None.
        seed: of the method's own generator.
    """
    encoder = _Point(start)
    theta = encoder.theta
    model = MultiTaskModel(encoder, {f"task {k + 1}": nn.Identity() for k in range(len(toy.tasks))})
    likelihoods: list[Likelihood] = ["gaussian"] * len(toy.tasks)
    smto.set_up(ProblemInfo(tuple(likelihoods), feature_shape=(2,), lr=lr, weight_decay=0.0), seed)
    optimizer = torch.optim.SGD([{"params": [theta]}, *smto.parameter_groups(lr)], lr=lr)
    nothing, other = torch.zeros(1), second_batch or toy
    loss_functions = [lambda z, task: task.loss(z[0])] * len(toy.tasks)  # a task is its own "target"
    points, losses, weights, updates = [], [], [], []
    for _ in range(steps):
        before = theta.detach().clone()
        step = Step(
            model,
            loss_functions,
            nothing,
            toy.tasks,  # type: ignore[arg-type]
            transform_features=smto.transform_features,
            second_batch=lambda: (nothing, other.tasks),  # type: ignore[arg-type, return-value]
            replay=smto.replay,
        )
        result = smto.backward(step)
        points.append(before[0])
        losses.append(step.losses)
        weights.append(result.weights.detach())
        assert theta.grad is not None
        updates.append(theta.grad[0].clone())
        optimizer.step()
        smto.after_step(step)
        if hold:
            theta.data.copy_(before)
    points.append(theta.detach()[0].clone())
    end = torch.stack([task.loss(points[-1]) for task in toy.tasks])

    def array(rows: list[Tensor]) -> np.ndarray:
        return torch.stack([row.double() for row in rows]).numpy()

    return Walk(array(points), array([*losses, end]), array(weights), array(updates))
