"""Of 02_two_similar_tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from mtl_study.analysis import inference
from mtl_study.teaching.marking import Given, Wrong, exercise
from mtl_study.words import listed, number


@exercise(
    "a mean of 1 point, a margin of 2 points, a standard error of {wide:g}; then one of {narrow:g}",
    wide=(0.5, 0.45, 0.6),
    narrow=(0.3, 0.25, 0.32),
)
def two_readings(given: Given, wide: float, narrow: float) -> str:
    """What two intervals of five seeds say: "equal", "different", "both" or "unknown"."""
    try:
        words = [Given(part).choice("equal", "different", "both", "unknown") for part in given.raw]
    except TypeError:
        words = []
    if len(words) != 2:
        raise Wrong("Two words are asked for, one for each standard error.")
    given.said = listed(map(repr, words))
    for place, word, error in zip(("first", "second"), words, (wide, narrow), strict=True):
        low, high = (1 + sign * inference.critical_t(0.95, 4) * error for sign in (-1, 1))
        equal, different = low > -2 and high < 2, low > 0 or high < 0
        interval = f"The {place} interval is from {number(low, 2)} to {number(high, 2)}"
        if (word in ("equal", "both")) != equal:
            raise Wrong(f"{interval}. Is all of it inside ±2? Then it is (also) equal; else it is not.")
        if (word in ("different", "both")) != different:
            raise Wrong(f"{interval}. Does it leave out 0? Then it is (also) different; else it is not.")
    return "A difference can be there and too small to matter."


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

    draws = np.random.default_rng(0)
    return given.agrees(
        [*differences.values(), *(draws.normal(margin / 2, margin, n) for n in (3, 10))],
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
