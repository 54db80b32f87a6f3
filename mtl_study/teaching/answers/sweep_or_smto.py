"""Of 05b_sweep_or_smto."""

from __future__ import annotations

import numpy as np

from mtl_study.analysis import fronts
from mtl_study.teaching.marking import Given, exercise, spot
from mtl_study.words import counted

GAINS = (((1, 4), (2, 3), (3, 1)), ((1, 5), (3, 3), (4, 1)), ((1, 6), (2, 4), (5, 2)))


@exercise("gains of {gains[0]}, {gains[1]} and {gains[2]}", gains=GAINS)
def three_points(given: Given, gains: tuple[tuple[float, float], ...]) -> str:
    """The hypervolume of three points above (0, 0)."""
    points = np.array(gains, dtype=float)
    areas = points.prod(1)
    shared = [min(points[i, 0], points[j, 0]) * min(points[i, 1], points[j, 1]) for i, j in ((0, 1), (1, 2))]
    spot(
        given.number("hypervolume"),
        fronts.hypervolume(points, [0, 0]),
        [
            (areas.sum(), "This counts what the three rectangles share more than once."),
            (areas.max(), "This is the largest rectangle alone. The others reach beyond it."),
            (points.max(0).prod(), "This is the rectangle up to (best, best), and no model is there."),
            (areas.sum() - sum(shared), "What all three share is taken off once too often."),
            (points.sum(), "These are the gains added. The hypervolume is an area."),
            (areas.mean(), "This is the mean of the rectangles. Draw their union."),
        ],
        "Draw the three rectangles from the origin; what they share counts once.",
    )
    return "Column by column, from left to right."


@exercise("gains of {gains[0]}, {gains[1]} and {gains[2]}", gains=GAINS)
def fourth_point(given: Given, gains: tuple[tuple[float, float], ...]) -> str:
    """By how much a point at (2, 2) adds to it."""
    value = given.number("growth")
    three = fronts.hypervolume(gains, [0, 0])
    growth = fronts.hypervolume([*gains, (2, 2)], [0, 0]) - three
    spot(
        value,
        growth,
        [
            (4, "4 is the rectangle of (2, 2) alone. How much of it is covered already?"),
            (three, "This is the hypervolume itself. The growth is asked for."),
            (1, "Draw (2, 2): is there a corner of its rectangle outside the others?"),
            (-1, "A further model cannot make the hypervolume smaller."),
        ],
        "Is any of the three at least as good on both tasks?",
    )
    return "A point that another one dominates adds nothing."


@exercise()
def worth(given: Given) -> str:
    """How much the first of two tasks is worth."""
    given.number("u", 0, 1)
    return ""


@exercise()
def front_filter(given: Given) -> str:
    """The points that no other dominates."""
    draws = np.random.default_rng(0)
    sizes = [(1, 2), (5, 2), (20, 2), (20, 3), (40, 4)]
    clouds = [draws.integers(0, 6, size=size).astype(float) for size in sizes]
    clouds.append(np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0], [0.0, 2.0]]))  # two equal points on the front

    def kept(points: np.ndarray, *, strict: bool = False, weak: bool = False, low: bool = False) -> np.ndarray:
        found = []
        for i, point in enumerate(points):
            others = np.delete(points, i, axis=0)
            as_good = (others <= point if low else others >= point).all(1)
            better = (others < point if low else others > point).all(1)
            some = (others < point if low else others > point).any(1)
            found.append(not (better if strict else as_good if weak else as_good & some).any())
        return np.array(found, dtype=float)

    return given.agrees(
        clouds,
        fronts.nondominated,
        [
            (
                lambda p: kept(p, weak=True),
                "Equal points throw each other out. Another one has to be better somewhere.",
            ),
            (lambda p: kept(p, strict=True), "A point is out when another is better in one coordinate, not in all."),
            (lambda p: kept(p, low=True), "Higher is better; this is the front for lower."),
            (lambda p: 1 - kept(p), "This is the other way round: true is for those that stay."),
            (lambda p: (p == p.max(0)).any(1), "These are the best in some coordinate. The front has more points."),
            (lambda p: p.sum(1) == p.sum(1).max(), "This is the largest sum. The front has more points."),
            (lambda p: np.ones(len(p)), "This keeps every point."),
        ],
        "A point is out as soon as one other is nowhere worse and somewhere better; an equal point is neither.",
        show=lambda p: f"{counted(len(p), 'point')} with {counted(p.shape[1], 'coordinate')}",
    )
