"""Of 01_mnist_selection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mtl_study.teaching.marking import Given, Wrong, exercise, spot
from mtl_study.words import percent


@exercise(
    "both tasks: {right} of 100 left digits right, a squared error of {error:g}; single-task models: {right_alone} of "
    "100 and {error_alone:g}",
    right=(95, 94, 92, 96),
    right_alone=(97, 98),
    error=(0.12, 0.11, 0.13),
    error_alone=(0.10, 0.09),
)
def two_gains(given: Given, right: float, right_alone: float, error: float, error_alone: float) -> str:
    """Δm of an accuracy and a squared error."""
    value = given.number("Δm")
    cl, rr = (right - right_alone) / right_alone, (error_alone - error) / error_alone
    spot(
        value,
        50 * (cl + rr),
        [
            (50 * (cl - rr), "Of a squared error less is better, so that its gain has the other sign."),
            (-50 * (cl + rr), "Both tasks got worse, so both gains are negative."),
            (100 * (cl + rr), "This is the sum of the two gains. Take their mean."),
            ((cl + rr) / 2, "This is no percentage yet: times 100."),
            (
                50 * (right / 100 - right_alone / 100 + error_alone - error),
                "These are plain differences. Divide each by what the single-task model reaches.",
            ),
            (
                50 * ((right - right_alone) / right + (error_alone - error) / error),
                "Divide by the single-task model's value, not by the new one.",
            ),
            (100 * cl, "This is the gain on CL alone. Take the mean with that on RR."),
            (100 * rr, "This is the gain on RR alone. Take the mean with that on CL."),
        ],
        "Gain of a task: (new − alone) / alone, with the other sign for an error. Then the mean of both, times 100.",
        tolerance=0.005,
    )
    return f"{percent(100 * cl)} on CL and {percent(100 * rr)} on RR."


@exercise()
def constant_weights(given: Given) -> str:
    """Two constant weights, which are then trained."""
    cl, rr = given.weights("w_CL", "w_RR")
    if abs(cl - rr) < 1e-9:
        raise Wrong("This is the uniform loss itself. Try another constant.")
    return "These can be trained." + (
        " They add to the task whose gradient is longer already; try the other way, too." if cl > rr else ""
    )


@exercise()
def epoch_gains(given: Given, runs: Sequence[Any], package: Callable[[Any], Any], accuracy: float, mse: float) -> str:
    """Test Δm of a run, epoch by epoch. package: the same by the package; accuracy, mse: of the single-task models."""

    def by_hand(run: Any, split: str = "test", sign: float = -1.0) -> tuple[np.ndarray, np.ndarray]:
        values = [getattr(epoch, split) for epoch in run.history]
        cl = np.array([value["CL"]["accuracy"] for value in values]) / accuracy - 1
        return cl, sign * (np.array([value["RR"]["mse"] for value in values]) / mse - 1)

    def epochs(run: Any) -> np.ndarray:
        cl, rr = by_hand(run)
        return 50 * (cl + rr)

    return given.agrees(
        runs,
        package,
        [
            (
                lambda run: 50 * np.sum(by_hand(run, sign=1.0), axis=0),
                "Of a squared error less is better: turn the sign of RR around.",
            ),
            (lambda run: 2 * epochs(run), "This is the sum of the two gains. Take their mean."),
            (lambda run: epochs(run) / 100, "These are no percentages yet: times 100."),
            (lambda run: -epochs(run), "Both signs are turned around: higher accuracy is a gain, higher error a loss."),
            (
                lambda run: 50 * np.sum(by_hand(run, "val"), axis=0),
                "These are the gains on validation. The exercise asks for `.test`.",
            ),
            (lambda run: 100 * by_hand(run)[0], "This is CL alone. RR counts as much."),
            (lambda run: epochs(run)[::-1], "The epochs come in reverse order."),
        ],
        "Mind the sign of RR, divide by `accuracy` and `mse`, and take the mean of the two gains, in percent.",
        show=lambda run: f"the run of {run.config.smto}, seed {run.config.seed},",
    )
