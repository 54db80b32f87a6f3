"""Of 05_fixed_weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mtl_study.analysis import task_weights
from mtl_study.teaching.marking import Given, Wrong, exercise, spot


@exercise(
    "{first:g} in the first epoch, {later:g} in all later ones, above {line:g}",
    first=(0.5, 0.4, 0.3),
    later=(0.9, 0.85),
    line=(0.8, 0.78),
)
def moving_average(given: Given, first: float, later: float, line: float) -> str:
    """A weight's moving average after ten epochs, and the epoch in which it passes a line."""
    values = given.numbers("average", "epochs")
    path = task_weights.ema(pd.DataFrame({"first": [first] + [later] * 99}))["first"].to_numpy()
    epoch = int((path <= line).sum()) + 1
    spot(
        values[0],
        path[9],
        [
            (path[10], "This is the average after eleven epochs: the first epoch is where it starts."),
            (path[8], "This is the average after nine epochs."),
            (
                later - (later - first) * 0.1**9,
                "The average keeps 0.9 of itself and takes 0.1 of the new, not the other way round.",
            ),
            ((first + 9 * later) / 10, "This is the plain mean of ten epochs. The moving average forgets slowly."),
            (0.9 * first + 0.1 * later, "This is the average after two epochs."),
            (later, "It comes close to that and never reaches it."),
        ],
        "The distance to the later weight shrinks by the factor once per epoch after the first.",
        tolerance=0.001,
    )
    spot(
        values[1],
        epoch,
        [
            (epoch - 1, "The average is right. The count is one too few: the first epoch counts as well."),
            (epoch + 1, "The average is right. The count is one too many."),
        ],
        "The average is right. When has its distance to the later weight shrunk far enough?",
    )
    return "What is missing shrinks by a tenth per epoch."


@exercise()
def moving_factor(given: Given) -> str:
    """A factor of the moving average."""
    factor = given.number("factor", 0, 1)
    if factor == 1:
        raise Wrong("With 1 the average would keep its first value and never learn anything.")
    if factor == 0.9:
        raise Wrong("That is the factor above, and nothing moves. Choose another one.")
    return ""


@exercise()
def extraction(given: Given, runs: Sequence[np.ndarray]) -> str:
    """Fixed weights of a run. runs: the weights of some, epoch means [epochs, K]."""
    draws = np.random.default_rng(0)

    def average(values: np.ndarray, keep: float = 0.9) -> np.ndarray:
        found = values[0]
        for value in values[1:]:
            found = keep * found + (1 - keep) * value
        return found

    def shares(weights: np.ndarray) -> np.ndarray:
        return weights / weights.sum(axis=-1, keepdims=True)

    def package(weights: np.ndarray) -> np.ndarray:
        return shares(task_weights.ema(pd.DataFrame(shares(weights))).iloc[-1].to_numpy())

    return given.agrees(
        [*runs, draws.random((1, 2)), draws.random((30, 4))],
        package,
        [
            (
                lambda w: shares(average(w)),
                "Divide each epoch by its sum before you average; long weights count more here.",
            ),
            (average, "Divide each epoch by its sum before you average."),
            (
                lambda w: shares(average(shares(w), 0.1)),
                "The average keeps 0.9 of itself and takes 0.1 of the new, not the other way round.",
            ),
            (lambda w: shares(w).mean(0), "This is the plain mean over the epochs. The rule forgets the early ones."),
            (lambda w: shares(w)[-1], "These are the last epoch's weights alone."),
            (
                lambda w: shares(average(np.concatenate([0 * w[:1], shares(w)]))),
                "The average starts at the first epoch, not at 0.",
            ),
            (
                lambda w: average(np.concatenate([0 * w[:1], shares(w)])),
                "The average starts at the first epoch, not at 0; and the sum has to be 1.",
            ),
            (lambda w: average(shares(w)[::-1]), "The epochs are averaged from the last to the first."),
        ],
        "Divide each epoch by its sum before you average, and start the average at the first epoch.",
        show=lambda w: f"weights of {len(w)} epochs and {w.shape[1]} tasks",
    )
