"""Of 03_cityscapes_ladder."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from mtl_study.teaching.marking import Given, Wrong, exercise, spot
from mtl_study.words import number


@exercise(
    "gains of {acc:g} % (accuracy) and {miou:g} % (mIoU) on S, {absolute:g} % and {relative:g} % (the errors) on D, "
    "{instances:g} % on I",
    acc=(-1.0, -0.5, 1.5),
    miou=(-4.0, -6.0, -3.0),
    absolute=(2.0, -3.0, 1.0),
    relative=(6.0, -8.0, 3.0),
    instances=(-6.0, 4.0, -9.0),
)
def five_gains(given: Given, acc: float, miou: float, absolute: float, relative: float, instances: float) -> str:
    """Δm of three tasks, two of which have two metrics."""
    value = given.number("Δm")
    of_tasks = [(acc + miou) / 2, (absolute + relative) / 2, instances]
    spot(
        value,
        np.mean(of_tasks),
        [
            (
                np.mean([acc, miou, absolute, relative, instances]),
                "This is the mean of the five. S and D have two metrics each: average those first.",
            ),
            (np.sum(of_tasks), "This is the sum over the three tasks. Take the mean."),
            (np.mean([acc, absolute, instances]), "This leaves out the second metric of S and of D."),
            (np.mean([miou, relative, instances]), "This leaves out the first metric of S and of D."),
            (
                np.mean([acc + miou, absolute + relative, instances]),
                "Within a task the two metrics are averaged, not added.",
            ),
            (
                -np.mean(of_tasks),
                "These are gains already: of errors, too, plus is better. Leave the signs as they are.",
            ),
            (np.mean(of_tasks) / 100, "The gains are in percent already."),
        ],
        "First average within each task, then over the three tasks.",
        tolerance=0.003,
    )
    return "Had all five counted the same, a method that is good at the tasks with two metrics would look better."


@exercise()
def fair_length(given: Given, reached: Callable[[float], Mapping[str, np.ndarray]]) -> str:
    """A length of the first of three gradients for which the transposed form of IMTL still lowers all losses.
    reached: the projections of both forms, "correct" and "transposed", at a length."""
    length = given.number("length", 0.2, 10)
    found = reached(length)
    said = "\n".join(f"{form}: {', '.join(number(v, 3) for v in values)}" for form, values in found.items())
    values = found["transposed"]
    if abs(length - 1) < 1e-9 or np.ptp(values) <= 0.01:
        raise Wrong(f"There all three projections are (nearly) the same, as in the correct form.\n{said}")
    if values.min() <= 0:
        uphill = "₁₂₃"[int(values.argmin())]
        raise Wrong(f"There L{uphill} rises: its projection is {number(values.min(), 3)}. Try nearer to 1.\n{said}")
    return f"Near equal lengths the two forms nearly agree.\n{said}"


@exercise()
def mean_iou(given: Given, package: Callable[[np.ndarray], float]) -> str:
    """The mean IoU of a confusion matrix. package: the same by the package."""
    rng = np.random.default_rng(0)
    matrices = [rng.integers(1, 100, (n, n)) for n in (2, 7, 19)]
    without = matrices[1].copy()
    without[3] = 0  # class 3 occurs nowhere, but is predicted here and there

    def iou(matrix: np.ndarray) -> np.ndarray:
        right = np.diag(matrix)
        return right / (matrix.sum(0) + matrix.sum(1) - right)

    def occurring(values: np.ndarray, matrix: np.ndarray) -> float:
        return float(values[matrix.sum(1) > 0].mean())

    return given.agrees(
        [*matrices, without],
        package,
        [
            (lambda m: np.trace(m) / m.sum(), "This is the accuracy: the share of all pixels."),
            (lambda m: iou(m).mean(), "On the matrix where class 3 never occurs it is left in the mean. Leave it out."),
            (
                lambda m: occurring(np.diag(m) / np.maximum(m.sum(1), 1), m),
                "This is TP over the row, TP + FN. False positives belong into the union, too.",
            ),
            (
                lambda m: occurring(np.diag(m) / m.sum(0), m),
                "This is TP over the column, TP + FP. False negatives belong into the union, too.",
            ),
            (
                lambda m: occurring(np.diag(m) / (m.sum(0) + m.sum(1)), m),
                "Row and column both hold TP. In the union it counts once: take it off again.",
            ),
            (
                lambda m: occurring(2 * np.diag(m) / (m.sum(0) + m.sum(1)), m),
                "This is the Dice score. The union is row plus column minus TP.",
            ),
            (lambda m: 100 * occurring(iou(m), m), "This is in percent; a share from 0 to 1 is asked for."),
            (lambda m: iou(m)[m.sum(1) > 0].sum(), "This is the sum over the classes. Take the mean."),
        ],
        "A diagonal entry is TP. Its row holds TP + FN, its column TP + FP, so that the two together count TP twice.",
        show=lambda m: f"a matrix of {len(m)} classes" + ("" if m.sum(1).all() else ", one of which never occurs,"),
    )
