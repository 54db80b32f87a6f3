"""Of 05c_other_ways."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mtl_study.analysis import fronts
from mtl_study.teaching.marking import Given, Wrong, exercise, short, spot
from mtl_study.words import counted, listed


@exercise("a validation Δm of 1, 2 and 3, a test Δm of {test[0]}, {test[1]} and {test[2]}", test=((5, 1, 3), (6, 2, 4)))
def best_of_points(given: Given, test: tuple[float, ...]) -> str:
    """The test Δm of the best on validation, of two and of three points."""
    values = given.numbers("two drawn", "three drawn")
    points = ([1.0, 2.0, 3.0], list(map(float, test)))
    right = [fronts.expected_best(*points, n) for n in (2, 3)]
    _, middle, high = sorted(test)
    spot(
        values,
        right,
        [
            (right[::-1], "These are the two numbers in the other order."),
            ([(middle + 2 * high) / 3, high], "Here test chooses. Validation has to choose; test is only read."),
            ([np.mean(test)] * 2, "This is the mean of all points: as if one were drawn."),
            (
                [right[0], high],
                "The first is right. With all three drawn validation keeps the third, not the best on test.",
            ),
            ([2 * 2 / 3 + 4 / 3, 3], "This is the validation Δm of what is kept. Its test Δm is asked for."),
            ([right[0], np.mean(test)], "The first is right. There is one way only to draw all three."),
            ([right[1], right[1]], "The second is right. With two drawn the third is missing in one of three pairs."),
        ],
        "Write down the three pairs, and what validation keeps of each.",
        tolerance=0.003,
    )
    return "Of three pairs one keeps the second point, two keep the third."


@exercise()
def some_rates(given: Given, grid: Sequence[float]) -> str:
    """Two or more of the learning rates of a grid."""
    try:
        rates = sorted({float(rate) for rate in itertools.islice(given.raw, 100)})
    except (TypeError, ValueError):
        raise Wrong(f"A list of learning rates is asked for, of {listed(map(short, grid))}.") from None
    given.said = listed(map(short, rates), none="no rate")
    if strange := [short(rate) for rate in rates if rate not in grid]:
        raise Wrong(f"Not in the grid: {listed(strange)}. It holds {listed(map(short, grid))}.")
    if len(rates) < 2:
        raise Wrong("With fewer than two rates there is no spread over rates.")
    if len(rates) == len(set(grid)) > 2:
        raise Wrong("These are all of them, as above. Leave some out.")
    given.value = rates
    return ""


@exercise()
def best_of(given: Given) -> str:
    """The mean test value of the best of n on validation, over all ways to draw n."""
    draws = np.random.default_rng(0)
    cases = [(draws.permutation(N).astype(float), draws.normal(size=N), n) for N, n in [(1, 1), (4, 2), (9, 2), (9, 9)]]

    def by(
        case: Any,
        chosen: int = 0,
        read: int = 1,
        join: Callable[..., float] = np.mean,
    ) -> float:
        drawn = itertools.combinations(range(len(case[0])), case[2])
        return float(join([case[read][max(way, key=lambda i: case[chosen][i])] for way in drawn]))

    return given.agrees(
        cases,
        lambda case: fronts.expected_best(*case),
        [
            (lambda case: by(case, chosen=1), "Here test chooses. Validation has to choose; test is only read."),
            (lambda case: by(case, read=0), "This is the mean of the validation Δm. What is kept is read on test."),
            (lambda case: by(case, join=np.max), "This is the best of all that is kept. Take the mean."),
            (lambda case: by(case, join=np.sum), "This is the sum. Take the mean."),
            (lambda case: case[1][np.argmax(case[0])], "This is the best of all points on validation, whatever n is."),
            (lambda case: np.mean(case[1]), "This is the mean of all points, whatever n is."),
            (lambda case: by(case, join=np.median), "This is the median. Take the mean."),
        ],
        "Validation chooses, test is only read: keep the index of the best on validation, then look up its test Δm.",
        show=lambda case: f"{counted(len(case[0]), 'point')}, {case[2]} drawn",
    )
