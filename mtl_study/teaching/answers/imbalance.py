"""Of 08_imbalance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtl_core import smtos
from mtl_study.analysis import failures
from mtl_study.teaching import gridworlds, imbalance, zhou
from mtl_study.teaching.gridworlds import Gridworld
from mtl_study.teaching.marking import Given, Wrong, exercise, spot
from mtl_study.teaching.toys import weigh
from mtl_study.words import number


@exercise(
    "at a right angle, one {ratio:g} times as long as the other; then equally long, at {angle} degrees",
    ratio=(3, 2, 4, 5),
    angle=(170, 160, 150),
)
def two_kappas(given: Given, ratio: float, angle: float) -> str:
    """κ of two pairs of gradients."""
    values = given.numbers("first κ", "second κ")
    right = imbalance.kappa(np.array([ratio, 1.0]), np.cos(np.deg2rad([90.0, angle])))
    spot(
        values,
        right,
        [
            (right[::-1], "These are the two numbers in the other order."),
            (
                [right[0], 0],
                "The first is right. For equal lengths the formula does not depend on the angle: put r = 1.",
            ),
            ([right[0], abs(np.cos(np.deg2rad(angle)))], "The first is right. The second is no cosine: put r = 1."),
            ([right[0], np.cos(np.deg2rad(angle))], "The first is right. The second is no cosine: put r = 1."),
            ([right[0], np.sin(np.deg2rad(angle))], "The first is right. For r = 1 the sine is divided out again."),
            ([0, 1], "The second is right. A right angle does not make κ 0: put φ = 90° into the formula."),
            (
                [1 / ratio, 1],
                "The second is right. The first is the ratio of the lengths; the formula has r² + 1 below.",
            ),
            ([ratio / (ratio**2 + 1), 1], "The second is right. In the first a factor of 2 is missing."),
            ([1, 1], "The second is right. κ is 1 for equal lengths only."),
        ],
        "Put r and φ into the formula.",
        tolerance=1e-3,
    )
    return "2r/(r² + 1); and 1 at r = 1, whatever the angle."


@exercise("lengths {ratio:g} to 1, an angle of {angle} degrees", ratio=(4, 3, 5, 6), angle=(120, 135, 150))
def least_c(given: Given, ratio: float, angle: float) -> str:
    """The least c with which CAGrad hurts neither of two tasks."""
    cosine = float(np.cos(np.deg2rad(angle)))
    pair = np.array([[ratio**2, ratio * cosine], [ratio * cosine, 1.0]])
    right = imbalance.least_c(pair)
    c = given.number("c")
    if c < 0:
        raise Wrong("c is the radius of a ball, and not below 0. Mind the sign of the cosine.")
    if c >= 1:
        raise Wrong("For c of 1 or more the ball around the mean gradient holds 0. The least c is smaller.")
    spot(
        c,
        right,
        [
            (
                abs(cosine),
                "That is the cosine between the two gradients. It is that between the shorter one and the mean "
                "that counts.",
            ),
            (np.sqrt(1 - right**2), "That is the sine of the angle between the shorter gradient and the mean."),
            (
                float(pair[0].mean() / np.sqrt(pair[0, 0] * pair.mean())),
                "That is the cosine between the longer gradient and the mean.",
            ),
            (1 / ratio, "That is the ratio of the lengths; the angle counts, too."),
        ],
        _tried(pair, c),
        tolerance=0.005,
    )
    return "\n" + "\n".join(_tried(pair, value) for value in (c - 0.05, c + 0.05))


def _tried(pair: np.ndarray, c: float) -> str:
    c = min(max(c, 0.0), 0.99)
    weights = weigh(smtos.build("cagrad", 2, c=c), pair, np.ones(2))
    gets = number(failures.margin(pair, weights), 3, sign=True)
    return f"With c = {number(c, 2)} the worst-off task gets {gets} of the step."


@exercise()
def pcgrad_weights(given: Given) -> str:
    """PCGrad of two tasks as weights."""
    jacobians = np.random.default_rng(7).normal(size=(20, 2, 3))

    def by(G: np.ndarray, half: float = 0.5, clip: bool = True, sign: float = 1.0, swap: bool = False) -> np.ndarray:
        conflict = max(0.0, -G[0, 1]) if clip else -G[0, 1]
        return half * (1 + sign * conflict / (G.diagonal()[::-1] if swap else G.diagonal()))

    return given.agrees(
        [J @ J.T for J in jacobians],
        lambda G: weigh(smtos.build("pcgrad", 2, order="index"), G, np.ones(2)),
        [
            (
                lambda G: by(G, half=1.0),
                "These are the weights of the sum of the two projected gradients. Take the mean.",
            ),
            (lambda G: by(G, clip=False), "Where the gradients agree PCGrad projects nothing. Mind the sign of g₁·g₂."),
            (
                lambda G: by(G, sign=-1.0),
                "A projection takes off (g₁·g₂ / |g₂|²) g₂, and in a conflict g₁·g₂ is below 0.",
            ),
            (lambda G: by(G, swap=True), "Divided by the wrong length: what is taken off along g₂ has |g₂|² below it."),
            (lambda G: by(G) / by(G).sum(), "These are brought to sum 1. PCGrad's are not."),
            (lambda G: np.full(2, 0.5), "This is the plain mean, right only where nothing conflicts."),
        ],
        "g₁ − (g₁·g₂ / |g₂|²) g₂ adds to the weight of g₂.",
    )


@exercise()
def agreeing_goals(given: Given) -> str:
    """Two goals and a start whose gradients agree although one is more than twice as long."""
    try:
        goals, start = given.raw
        given.said = f"the goals {goals} and the start {start}"
        cells = [(int(row), int(column)) for row, column in (*goals, start)]
        exact = len(cells) == 3
    except (TypeError, ValueError):
        exact = False
    if not exact:
        raise Wrong("Two goals and a start are asked for, each a cell (row, column): ((0, 0), (4, 4)) and (2, 2).")
    if outside := next((cell for cell in cells if not all(0 <= place <= 4 for place in cell)), None):
        raise Wrong(f"The cell {outside} is outside: rows and columns are 0 to 4.")
    if cells[0] == cells[1]:
        raise Wrong("The two goals are one cell, and the two tasks one task.")
    jacobian = Gridworld(5, cells[:2], start=cells[2]).jacobian(np.zeros((25, 4)))
    cosine, ratio = gridworlds.cosine_and_ratio(jacobian @ jacobian.T)
    found = f"The cosine is {number(cosine, 2, sign=True)} and the ratio {number(ratio, 2)}."
    if not cosine > 0.3 and not ratio > 2:
        raise Wrong(f"{found} Put both goals on one side of the start, one nearer than the other.")
    if not cosine > 0.3:
        raise Wrong(
            f"{found} They do not agree enough: a goal on the way to the other one is reached by the same moves."
        )
    if not ratio > 2:
        raise Wrong(f"{found} They are too equally long: move one goal nearer to the start.")
    return f"{found} A goal on the way to the other one is reached sooner, and by the same moves."


@exercise()
def gate(given: Given) -> str:
    """A gate with a duty of 0.3."""
    draws = np.random.default_rng(8)
    inputs = [list(draws.normal(size=120)), list(np.arange(80.0)), list(draws.exponential(size=7))]

    def by(
        needs: Sequence[float], owed: bool = True, first: int = 49, itself: bool = True, equal: bool = False
    ) -> np.ndarray:
        opened: list[float] = []
        for t, need in enumerate(needs):
            window = np.array(needs[max(0, t - first) : t + itself])
            above = window >= need if equal else window > need
            share = float(above.mean()) if len(window) else 0.0
            opened.append(float(share < 0.3 + (0.3 * t - sum(opened)) / 50 * owed))
        return np.array(opened)

    return given.agrees(
        inputs,
        zhou.gate,
        [
            (
                lambda needs: by(needs, owed=False),
                "Without the second term it never closes where needs rise all the time: u is 0 in every step.",
            ),
            (lambda needs: by(needs, first=len(needs)), "The window holds the last 50 needs, not all."),
            (lambda needs: by(needs, itself=False), "The window holds this step's need, too."),
            (lambda needs: by(needs, first=50), "The window holds 50 needs with this one; here are 51."),
            (lambda needs: by(needs, equal=True), "u counts the needs above this one, not those that are equal to it."),
            (lambda needs: 1 - by(needs), "This is the other way round: 1 is for open."),
        ],
        "Follow the two formulas for u and a, step by step; a counts the steps before this one.",
        show=lambda needs: f"{len(needs)} needs" + (", rising," if sorted(needs) == needs else ""),
    )
