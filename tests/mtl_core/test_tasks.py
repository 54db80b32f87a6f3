"""Losses and metrics by hand, and at the edges: ignored pixels, empty masks, absent classes."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
from torch import Tensor, tensor
from torch.testing import assert_close

from mtl_core import tasks
from mtl_core.tasks import IGNORED, Metric, Task

REDUCTIONS = ["per_image", "pooled"]


def measured(metric: Metric, *batches: tuple[Tensor, Tensor]) -> float:
    """The metric over a split that comes in these batches."""
    statistics = [metric.statistic(prediction, target) for prediction, target in batches]
    assert all(statistic.dtype == torch.float64 for statistic in statistics)
    return float(metric.value(sum(statistics[1:], statistics[0])))


def log_probabilities(classes: list[list[int]], k: int, right: float = 0.9) -> Tensor:
    """Maps of one row, [B, K, 1, W], that give these classes this probability and share the rest."""
    labels = tensor(classes)[:, None]
    spread = torch.full((len(classes), k, *labels.shape[1:]), (1 - right) / (k - 1))
    return spread.scatter(1, labels[:, None], right).log()


def example(task: Task, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random prediction and target of three images of 4×5 pixels, a third of them invalid; the last image wholly."""
    valid = torch.rand(3, 1, 4, 5, generator=generator) > 1 / 3
    valid[2] = False
    if task.name == "S":
        labels = torch.randint(7, (3, 4, 5), generator=generator)
        return torch.randn(3, 7, 4, 5, generator=generator).log_softmax(1), labels.where(valid[:, 0], IGNORED)
    if task.name == "D":
        return torch.randn(3, 1, 4, 5, generator=generator), (torch.rand(3, 1, 4, 5, generator=generator) + 0.1) * valid
    offsets = torch.randn(3, 2, 4, 5, generator=generator)
    return torch.randn(3, 2, 4, 5, generator=generator), torch.cat([offsets, valid], 1)


MAPS = {task.name: task for task in (tasks.segmentation(7), tasks.disparity(), tasks.instances())}


# -- segmentation ------------------------------------------------------------------------------------------------------


def test_cross_entropy_in_both_forms() -> None:
    """Two images of four pixels, three labelled right and one wrong: −3 ln 0.9 − ln 0.05, over 8 pixels or over 4."""
    task = tasks.segmentation(3)
    prediction = log_probabilities([[0, 1, 2, 0], [1, 1, 1, 1]], 3)
    target = tensor([[[0, 1, 2, IGNORED]], [[0, IGNORED, IGNORED, IGNORED]]])
    total = tensor(-3 * math.log(0.9) - math.log(0.05))
    assert_close(task.loss(prediction, target), total / 8)
    assert_close(task.reduced("per_image")(prediction, target), total / 8)
    assert_close(task.reduced("pooled")(prediction, target), total / 4)


def test_accuracy_and_iou_by_hand() -> None:
    """True 0 0 1 1 2, predicted 0 1 1 1 0: accuracy 3/5; IoU 1/3, 2/3 and 0. Ignored pixels count for nothing."""
    task = tasks.segmentation(3)
    batch = log_probabilities([[0, 1, 1, 1, 0, 2]], 3), tensor([[[0, 0, 1, 1, 2, IGNORED]]])
    assert measured(task.metrics["acc"], batch) == pytest.approx(3 / 5)
    assert measured(task.metrics["mIoU"], batch) == pytest.approx((1 / 3 + 2 / 3 + 0) / 3)
    assert task.metrics["acc"].statistic is task.metrics["mIoU"].statistic


def test_a_class_that_never_occurs_has_no_iou() -> None:
    """Class 2 is not in the labels. Nobody predicts it: the mean is over two classes. Someone does: still over two, and
    the pixel is missed by class 1."""
    miou = tasks.segmentation(3).metrics["mIoU"]
    target = tensor([[[0, 0, 1, 1]]])
    assert measured(miou, (log_probabilities([[0, 0, 1, 1]], 3), target)) == 1
    assert measured(miou, (log_probabilities([[0, 0, 1, 2]], 3), target)) == pytest.approx((1 + 1 / 2) / 2)


def test_a_class_may_occur_in_one_batch_only() -> None:
    """Metrics of segmentation are those of the split, not means over batches."""
    task, k = tasks.segmentation(3), 3
    first = log_probabilities([[0, 0, 1]], k), tensor([[[0, 0, 0]]])
    second = log_probabilities([[1, 2, 2]], k), tensor([[[1, 2, 0]]])
    whole = torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]])
    for metric in task.metrics.values():
        assert measured(metric, first, second) == measured(metric, whole)


def test_nothing_labelled_has_no_accuracy() -> None:
    task = tasks.segmentation(3)
    batch = log_probabilities([[0, 1]], 3), tensor([[[IGNORED, IGNORED]]])
    assert all(math.isnan(measured(metric, batch)) for metric in task.metrics.values())


# -- disparity ---------------------------------------------------------------------------------------------------------


def test_disparity_by_hand() -> None:
    """Errors 1 and 3 in one image, 7 in the other, unknown elsewhere: per image (2 + 7)/2, pooled 11/3. Relative errors
    1/4, 3/2 and 7/10."""
    task = tasks.disparity()
    target = tensor([[4.0, 0, 2], [0, 10, 0]]).view(2, 1, 1, 3)
    prediction = tensor([[5.0, 9, -1], [9, 3, 9]]).view(2, 1, 1, 3)
    assert task.loss(prediction, target) == (2 + 7) / 2
    assert_close(task.reduced("pooled")(prediction, target), tensor(11 / 3))
    halves = [(prediction[b : b + 1], target[b : b + 1]) for b in range(2)]
    assert measured(task.metrics["l1_abs"], *halves) == pytest.approx(11 / 3)
    assert measured(task.metrics["l1_rel"], *halves) == pytest.approx((1 / 4 + 3 / 2 + 7 / 10) / 3)


def test_an_image_without_disparity_counts_as_zero() -> None:
    """Per image it halves the mean, pooled it changes nothing."""
    task = tasks.disparity()
    target, prediction = torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2)
    target[0] = 3.0
    assert task.loss(prediction, target) == 1.0
    assert task.reduced("pooled")(prediction, target) == 2.0


# -- instances ---------------------------------------------------------------------------------------------------------


def test_offsets_by_hand() -> None:
    """Two pixels of objects, one per image: errors 1 and 2, 3 and 6, mean 3. An offset of exactly −1 is as good as any
    other (D15)."""
    task = tasks.instances()
    target, prediction = torch.full((2, 3, 1, 2), 99.0), torch.zeros(2, 2, 1, 2)
    target[:, 2] = tensor([[[1.0, 0]], [[0, 1.0]]])
    target[0, :2, 0, 0], prediction[0, :, 0, 0] = tensor([-1.0, -1]), tensor([0.0, 1])
    target[1, :2, 0, 1], prediction[1, :, 0, 1] = tensor([5.0, 5]), tensor([2.0, -1])
    assert task.loss(prediction, target) == task.reduced("pooled")(prediction, target) == 3
    assert measured(task.metrics["l1_abs"], *[(prediction[b : b + 1], target[b : b + 1]) for b in range(2)]) == 3


# -- what holds for all maps -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", MAPS)
def test_nothing_valid_gives_zero_and_no_gradient(name: str, reduction: str) -> None:
    """A batch without a valid pixel: loss 0 and gradient 0, not NaN."""
    task = MAPS[name]
    prediction, target = (part[2:] for part in example(task, torch.Generator().manual_seed(1)))
    prediction.requires_grad_()
    loss = task.reduced(reduction)(prediction, target)
    (gradient,) = torch.autograd.grad(loss, prediction)
    assert loss == 0 and (gradient == 0).all()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", MAPS)
def test_invalid_pixels_count_for_nothing(name: str, reduction: str) -> None:
    """Their predictions may be anything: same loss, no gradient there, same metrics."""
    task = MAPS[name]
    prediction, target = example(task, torch.Generator().manual_seed(1))
    invalid = {"S": target == IGNORED, "D": target[:, 0] == 0, "I": target[:, -1] == 0}[name]
    invalid = invalid[:, None].expand_as(prediction)
    other = prediction.where(~invalid, prediction.flip(3) * 2 - 1).requires_grad_()
    loss = task.reduced(reduction)
    assert_close(loss(other, target), loss(prediction, target))
    (gradient,) = torch.autograd.grad(loss(other, target), other)
    assert (gradient[invalid] == 0).all() and gradient[~invalid].any()
    for metric in task.metrics.values():
        assert measured(metric, (other.detach(), target)) == measured(metric, (prediction, target))


@pytest.mark.parametrize("name", MAPS)
def test_a_metric_does_not_depend_on_the_batches(name: str) -> None:
    task = MAPS[name]
    prediction, target = example(task, torch.Generator().manual_seed(1))
    singles = [(prediction[b : b + 1], target[b : b + 1]) for b in range(3)]
    for metric in task.metrics.values():
        assert measured(metric, *singles) == pytest.approx(measured(metric, (prediction, target)))


@pytest.mark.parametrize("name", ["S", "D"])
def test_both_forms_agree_where_all_is_valid(name: str) -> None:
    task = MAPS[name]
    prediction, target = example(task, torch.Generator().manual_seed(1))
    target = target.where(target != (IGNORED if name == "S" else 0), 1)
    assert_close(task.reduced("pooled")(prediction, target), task.loss(prediction, target))


def test_names_directions_and_likelihoods() -> None:
    """Names of metrics are those of the paper's numbers; only accuracy and mIoU are better when higher."""
    found = {
        name: (task.likelihood, [(m, metric.higher_is_better) for m, metric in task.metrics.items()])
        for name, task in MAPS.items()
    }
    assert found == {
        "S": ("softmax", [("acc", True), ("mIoU", True)]),
        "D": ("laplace", [("l1_abs", False), ("l1_rel", False)]),
        "I": ("laplace", [("l1_abs", False)]),
    }


@pytest.mark.parametrize("name", [*MAPS, "mu"])
def test_a_task_can_be_sent_to_another_process(name: str) -> None:
    task = MAPS.get(name) or tasks.regression("mu", "dipole moment", "D", 1.5)
    assert pickle.loads(pickle.dumps(task)).metrics.keys() == task.metrics.keys()


# -- one number per sample ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3,), (3, 1)], ids=str)
def test_regression_by_hand(shape: tuple[int, ...]) -> None:
    """Errors 1, −2 and 0.5 on the normalised target: squares 5.25/3; 3.5/3 of a unit of 27.2 meV."""
    task = tasks.regression("homo", "energy of the highest occupied orbital", "meV", 27.2)
    target, error = tensor([0.3, -1.0, 2.0]), tensor([1.0, -2.0, 0.5])
    prediction = (target + error).view(shape)
    assert task.likelihood == "gaussian"
    assert_close(task.loss(prediction, target), tensor(5.25 / 3))
    assert task.reduced("pooled") is task.loss
    halves = [(prediction[:2], target[:2]), (prediction[2:], target[2:])]
    assert measured(task.metrics["mae"], *halves) == pytest.approx(27.2 * 3.5 / 3)
    assert task.metrics["mae"].unit == "meV" and not task.metrics["mae"].higher_is_better


def test_regression_refuses_other_shapes() -> None:
    """Two numbers per sample would silently broadcast."""
    with pytest.raises(RuntimeError, match="shape"):
        tasks.regression("mu", "dipole moment", "D", 1.5).loss(torch.ones(3, 2), torch.ones(3))
