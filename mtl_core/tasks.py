"""A task: its loss, its metrics, and which way is better.

Where not every pixel has a target, the others count for nothing: neither in the loss and its gradient nor in a metric.
An image, or a batch, without a single valid pixel has loss 0.

    L = (1/B) Σ_b (1/n_b) Σ_(i in b) ℓ_i      per image (n_b: valid pixels of image b; all H·W for segmentation)
    L = (1/n) Σ_i ℓ_i                          pooled (n: valid pixels of the batch)

The paper's code has both (D14): per image for segmentation and disparity in the training step of all methods but
RotoGrad; pooled for RotoGrad, for Auto-Lambda's second batch, and for instances everywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Likelihood = Literal["softmax", "gaussian", "laplace"]
Reduction = Literal["per_image", "pooled"]
Loss = Callable[[Tensor, Tensor], Tensor]
IGNORED = -1  # the label of pixels without a class


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
    pooled: the loss in its pooled form, where there is such a thing (see the top of this page).
    """

    name: str
    label: str
    likelihood: Likelihood
    loss: Loss
    metrics: dict[str, Metric]
    pooled: Loss | None = None

    def reduced(self, reduction: Reduction) -> Loss:
        """The loss in this form; a loss that has but one form in that one."""
        return self.pooled if reduction == "pooled" and self.pooled is not None else self.loss


def _mean(total: Tensor, scale: float = 1.0) -> Tensor:
    return scale * (total[0] / total[1])


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


def _mse(prediction: Tensor, target: Tensor) -> Tensor:
    return F.mse_loss(prediction.reshape(target.shape), target)


def _absolute_error(prediction: Tensor, target: Tensor) -> Tensor:
    total = (prediction.reshape(target.shape) - target).abs().sum(dtype=torch.float64)
    return torch.stack([total, torch.full_like(total, len(target))])


def regression(name: str, label: str, unit: str, scale: float) -> Task:
    """A normalised quantity, [B] or [B, 1] against [B]: squared error, and the mean absolute error in physical units.

    Args:
        unit: of the metric. scale: how much a value of 1 means, in this unit.
    """
    mae = Metric(False, unit, _absolute_error, functools.partial(_mean, scale=scale))
    return Task(name, label, "gaussian", _mse, {"mae": mae})


def segmentation(classes: int) -> Task:
    """S: a class for every pixel, log-probabilities [B, K, H, W] against labels int64 [B, H, W], IGNORED where there is
    none. Cross-entropy; per image it is divided by all H·W pixels, so that it shrinks with the share of ignored ones.

    Metrics, both from the confusion matrix of the split, as fractions: acc, of pixels; mIoU, the mean over classes of
    TP / (TP + FP + FN). It is taken over those classes that occur in the split's labels, which for Cityscapes are all.
    A class that never occurs has nothing to be found, so any IoU for it, 0 or 1, would be made up, and leaving it out
    only where it is not predicted would average over different classes for different models. To predict it is an error
    all the same: a pixel missed (FN) of the class that is there.
    """
    label, confusion = f"segmentation into {classes} classes", functools.partial(_confusion, classes)
    metrics = {
        "acc": Metric(True, "fraction", confusion, _pixel_accuracy),
        "mIoU": Metric(True, "fraction", confusion, _mean_iou),
    }
    return Task("S", label, "softmax", _cross_entropy_per_image, metrics, pooled=_cross_entropy_pooled)


def disparity() -> Task:
    """D: pixels by which the right eye's image is shifted, [B, 1, H, W] against [B, 1, H, W], 0 where unknown. Absolute
    error. Metrics over all valid pixels of the split: l1_abs, in pixels; l1_rel, the error as a fraction of the truth,
    ruled by far pixels (D17)."""
    metrics = {
        "l1_abs": Metric(False, "pixels", _masked_total, _mean),
        "l1_rel": Metric(False, "fraction", _relative_disparity_error, _mean),
    }
    return Task("D", "disparity", "laplace", _disparity_per_image, metrics, pooled=_masked_pooled)


def instances() -> Task:
    """I: rows and columns between a pixel and the middle of its object, [B, 2, H, W] against [B, 3, H, W], whose last
    channel is 1 where a pixel belongs to an object and 0 elsewhere (an explicit mask: D15). Absolute error, pooled over
    the batch in either form. Metric l1_abs: mean over rows and columns of all such pixels of the split, in pixels."""
    l1_abs = Metric(False, "pixels", _masked_total, _mean)
    return Task("I", "offset from the middle of the instance", "laplace", _masked_pooled, {"l1_abs": l1_abs})


def _cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    """Of all pixels together; sums of a map are reproducible on a GPU, the sum that nll_loss takes is not."""
    return F.nll_loss(prediction, target, ignore_index=IGNORED, reduction="none").sum()


def _cross_entropy_per_image(prediction: Tensor, target: Tensor) -> Tensor:
    return _cross_entropy(prediction, target) / target.numel()


def _cross_entropy_pooled(prediction: Tensor, target: Tensor) -> Tensor:
    return _cross_entropy(prediction, target) / (target != IGNORED).sum().clamp(min=1)


def _confusion(classes: int, prediction: Tensor, target: Tensor) -> Tensor:
    """Pixels by true class (rows) and predicted class, [K, K]."""
    pairs = (classes * target + prediction.argmax(1)).where(target != IGNORED, classes**2).flatten()
    counts = pairs.new_zeros(classes**2 + 1).scatter_add_(0, pairs, torch.ones_like(pairs))
    return counts[:-1].view(classes, classes).double()


def _pixel_accuracy(confusion: Tensor) -> Tensor:
    return confusion.trace() / confusion.sum()


def _mean_iou(confusion: Tensor) -> Tensor:
    present = confusion.sum(1)
    iou = confusion.diagonal() / (present + confusion.sum(0) - confusion.diagonal())
    return iou[present > 0].mean()


def _masked_error(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Absolute errors, 0 at invalid pixels, and which are valid, [B, C, H, W] each. A pixel is valid where the target's
    last channel is not 0: disparity itself, the mask of instances."""
    valid = (target[:, -1:] != 0).expand_as(prediction)
    return (prediction - target[:, : prediction.shape[1]]).abs() * valid, valid


def _disparity_per_image(prediction: Tensor, target: Tensor) -> Tensor:
    error, valid = _masked_error(prediction, target)
    return (error.flatten(1).sum(1) / valid.flatten(1).sum(1).clamp(min=1)).mean()


def _masked_pooled(prediction: Tensor, target: Tensor) -> Tensor:
    error, valid = _masked_error(prediction, target)
    return error.sum() / valid.sum().clamp(min=1)


def _masked_total(prediction: Tensor, target: Tensor) -> Tensor:
    error, valid = _masked_error(prediction, target)
    return torch.stack([error.sum(dtype=torch.float64), valid.sum(dtype=torch.float64)])


def _relative_disparity_error(prediction: Tensor, target: Tensor) -> Tensor:
    error, valid = _masked_error(prediction, target)
    relative = error / target.where(valid, 1)
    return torch.stack([relative.sum(dtype=torch.float64), valid.sum(dtype=torch.float64)])
