"""Of 02_two_similar_tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from mtl_core.smtos import geometry
from mtl_study.analysis import inference
from mtl_study.teaching.marking import Given, exercise, spot


@exercise(
    "two gradients at a right angle, the first {ratio} times as long as the second; then {K} gradients of equal "
    "length, all at right angles",
    ratio=(3, 2, 4),
    K=(4, 3, 9),
)
def unrelated_cosines(given: Given, ratio: float, K: int) -> str:
    """The cosine to the mean of gradients at right angles."""
    values = given.numbers("first C", "second C")
    right = [geometry.cosine_to_mean(np.diag([ratio**2, 1.0])), geometry.cosine_to_mean(np.eye(K))]
    long, brief = ratio / np.hypot(ratio, 1), 1 / np.hypot(ratio, 1)
    spot(
        values,
        right,
        [
            (right[::-1], "These are the two numbers in the other order."),
            ([0, 0], "That is the cosine between two of the gradients. C compares each with their average."),
            ([long, right[1]], "That is the longer gradient alone. C is the mean of both cosines."),
            ([brief, right[1]], "That is the shorter gradient alone. C is the mean of both cosines."),
            ([1 / np.sqrt(2), right[1]], "The first is right for equal lengths. The longer one turns the average."),
            ([right[0], 1 / np.sqrt(2)], "The first is right. The second is that of two gradients; here are more."),
            (
                [right[0], 1 / K],
                "The first is right. The average is shorter than a gradient, and that has to be divided "
                "out: there is a root.",
            ),
        ],
        "Put each gradient on an axis of its own, find their average, and then the cosine of each with it.",
        tolerance=0.01,
    )
    return "Nothing conflicts in either case, and yet C is below the 0.7 that is read as little interference."


@exercise()
def other_dropout(given: Given) -> str:
    """A probability of dropout, which is then trained with."""
    given.number("dropout", 0, 0.5)
    return "This can be trained."


@exercise()
def two_one_sided_tests(given: Given, differences: Mapping[str, Sequence[float]], margin: float) -> str:
    """The p-value of the two one-sided tests."""

    def t(values: Sequence[float], shift: float, ddof: int = 1, root: bool = True) -> float:
        n = len(values)
        error = np.std(values, ddof=ddof) / (np.sqrt(n) if root else 1)
        return float((np.mean(values) + shift) / error)

    def pair(values: Sequence[float], ddof: int = 1, root: bool = True) -> tuple[float, float]:
        n = len(values) - 1
        return (
            float(stats.t.sf(t(values, margin, ddof, root), n)),
            float(stats.t.cdf(t(values, -margin, ddof, root), n)),
        )

    return given.agrees(
        list(differences.values()),
        lambda values: inference.tost(values, margin),
        [
            (lambda values: min(pair(values)), "Both tests must be passed, so the larger of the two p counts."),
            (lambda values: sum(pair(values)), "The two p are not added; the larger one counts."),
            (lambda values: max(pair(values, ddof=0)), "The standard deviation divides by n − 1: ddof=1."),
            (lambda values: max(pair(values, root=False)), "The error of a mean is the standard deviation over √n."),
            (lambda values: 1 - max(pair(values)), "This is the other tail: swap `cdf` and `sf`."),
            (lambda values: 1 - min(pair(values)), "This is the other tail: swap `cdf` and `sf`."),
            (lambda values: pair(values)[0], "This is one of the two tests, that of the lower side."),
            (lambda values: pair(values)[1], "This is one of the two tests, that of the upper side."),
        ],
        "Each of the two tests has its own p. Both must be small, so the larger one counts.",
    )
