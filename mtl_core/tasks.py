"""A task: its loss, its metrics, and which way is better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Likelihood = Literal["softmax", "gaussian", "laplace"]


@dataclass(frozen=True)
class Metric:
    """A number over a whole split, exact whatever the batch size.

    statistic: prediction and target of one batch to a float64 tensor that is summed over batches.
    value: the summed statistic to the metric.
    """

    higher_is_better: bool
    unit: str
    statistic: Callable[[Tensor, Tensor], Tensor]
    value: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Task:
    """One thing to predict.

    likelihood: of the loss; "softmax" (cross-entropy), "gaussian" (squared error) or "laplace" (absolute error).
    loss: prediction and target to the batch mean, a scalar (lower is better).
    """

    name: str
    label: str
    likelihood: Likelihood
    loss: Callable[[Tensor, Tensor], Tensor]
    metrics: dict[str, Metric]


def _mean(total: Tensor) -> Tensor:
    return total[0] / total[1]


def _correct(prediction: Tensor, target: Tensor) -> Tensor:
    correct = (prediction.argmax(1) == target).sum().double()
    return torch.stack([correct, torch.full_like(correct, len(target))])


def _squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    total = (prediction - target).square().flatten(1).mean(1).sum(dtype=torch.float64)
    return torch.stack([total, torch.full_like(total, len(target))])


ACCURACY = Metric(higher_is_better=True, unit="fraction", statistic=_correct, value=_mean)
MSE = Metric(higher_is_better=False, unit="normalised intensity²", statistic=_squared_error, value=_mean)


def classification(name: str, label: str) -> Task:
    """Log-probabilities against classes: negative log-likelihood, accuracy in [0, 1]."""
    return Task(name, label, "softmax", F.nll_loss, {"accuracy": ACCURACY})


def reconstruction(name: str, label: str) -> Task:
    """Images against images: mean squared error over the pixels, in units of the normalised input."""
    return Task(name, label, "gaussian", F.mse_loss, {"mse": MSE})
