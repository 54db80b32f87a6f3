"""Of 00_start_here."""

from __future__ import annotations

import numpy as np

from mtl_core import smtos
from mtl_core.smtos.base import GramianWeighting
from mtl_study.look import label
from mtl_study.teaching.marking import Given, Wrong, exercise, short
from mtl_study.teaching.toys import Pair, weigh
from mtl_study.words import listed, number

FIVE = ("unit_scal", "si", "pcgrad", "cagrad", "edm")
WHY = {  # of a method that is named wrongly, or forgotten
    "unit_scal": "the mean of the two gradients turns to the one that has become ten times as long.",
    "pcgrad": "PCGrad takes out the conflict and then the mean, and a gradient ten times as long has more of it.",
    "cagrad": "CAGrad starts at the mean gradient, and that turns to the longer one.",
    "si": "SI weighs by 1/L, and L₁ has become ten times as large. What is left of g₁/L₁?",
    "edm": "EDM looks for the same angle to both gradients. Do the angles change?",
}


@exercise()
def unit_keepers(given: Given) -> str:
    """Methods whose step keeps its direction when the unit of one loss changes."""
    named = given.keys({key: label(key) for key in FIVE})
    before, after = Pair(120, 1), Pair(120, 10, loss_ratio=10)

    def direction(key: str, pair: Pair) -> np.ndarray:
        update: np.ndarray = weigh(smtos.build(key, 2), pair.gramian, pair.losses) @ pair.gradients
        return update / np.linalg.norm(update)

    keepers = {key for key in FIVE if np.allclose(direction(key, before), direction(key, after), atol=1e-6)}
    for key in FIVE:
        if key in named - keepers:
            raise Wrong(f"{label(key)} is not one of them: {WHY[key]}")
    for key in FIVE:
        if key in keepers - named:
            raise Wrong(f"One is missing. {WHY[key]} Compare columns 3 and 5 of the grids.")
    return f"A factor on a task cancels in {listed(map(label, sorted(keepers)))}; the others mix lengths."


@exercise("an angle of {angle}°", angle=(60, 45, 30, 50, 70))
def mgda_ratio(given: Given, angle: float) -> str:
    """From which ratio of lengths on MGDA without scaling gives the longer gradient no weight."""
    ratio = given.number("|g₁| : |g₂|", low=0)
    cosine = float(np.cos(np.deg2rad(angle)))
    if ratio < 1:
        raise Wrong("Task 1 is the longer one, so the ratio is above 1. Have you divided the other way round?")
    pair = Pair(angle, ratio)
    weight = float(weigh(smtos.build("mgda", 2, normalize="none"), pair.gramian, pair.losses)[0])
    if abs(ratio - 1 / np.sin(np.deg2rad(angle))) < 0.01 and abs(ratio * cosine - 1) > 0.02:
        raise Wrong("That is 1 over the sine. Which side of the triangle is the projection of g₁ on g₂?")
    if ratio < 0.98 / cosine:
        raise Wrong(f"There task 1 still has a weight of {number(weight, 3)}. Go on to longer g₁.")
    if ratio > 1.02 / cosine:
        raise Wrong("There task 1 has no weight, but it had none at a smaller ratio either. Find where that begins.")
    return "From there on the shortest vector between the tips is g₂ itself: g₁·g₂ ≥ |g₂|²."


def random_gramians(num_tasks: int, count: int = 20, seed: int = 1) -> list[np.ndarray]:
    """Of gradients with 10 entries, [K, K] each."""
    jacobians = np.random.default_rng(seed).normal(size=(count, num_tasks, 10))
    return [jacobian @ jacobian.T for jacobian in jacobians]


def method(given: Given) -> type[GramianWeighting]:
    """A class of the reader's own that weighs by the Gramian."""
    if isinstance(given.raw, GramianWeighting):
        raise Wrong("This is an object of your class. Give the class itself, without brackets.")
    found = given.function("class")
    if not (isinstance(found, type) and issubclass(found, GramianWeighting)):
        raise Wrong("A class is asked for, derived from GramianWeighting: `class Mine(GramianWeighting): …`.")
    if "weights" not in vars(found):
        raise Wrong("Your class has no function called `weights`.")
    if not isinstance(getattr(found, "key", None), str):
        raise Wrong('Your class has no key: a line `key = "mine"` above its function is missing.')
    return found


@exercise()
def inverse_norms(given: Given) -> str:
    """A method of one's own: weights as 1/|g|, with sum 1."""
    mine = method(given)

    def shares(values: np.ndarray) -> np.ndarray:
        return values / values.sum()

    return given.agrees(
        random_gramians(2),
        lambda G: shares(G.diagonal() ** -0.5),
        [
            (lambda G: G.diagonal() ** -0.5, "These are 1/|g|, and their sum is not 1 yet. Divide by it."),
            (
                lambda G: shares(1 / G.diagonal()),
                "The diagonal holds |g|², not |g|. Something is missing before the 1/.",
            ),
            (lambda G: 1 / G.diagonal(), "The diagonal holds |g|², not |g|; and the sum is not 1 yet."),
            (lambda G: shares(G.diagonal() ** 0.5), "The longer gradient gets more here. It has to get less."),
            (lambda G: shares(G.diagonal()), "The longer gradient gets more here. It has to get less."),
            (lambda G: np.full(2, 0.5), "These are equal weights, whatever the lengths."),
        ],
        "The diagonal of the Gramian holds |g_k|². Divide by the sum at the end.",
        function=mine(2).weights,
    )


@exercise()
def still_edm(given: Given) -> str:
    """Whether inverse norms are EDM for three tasks, too."""
    three = np.array([[1, 0.9, 0], [0.9, 1, 0], [0, 0, 1]])  # unit gradients, two of them close together
    weights = weigh(smtos.build("edm", 3), three, np.ones(3))
    if given.truth() != bool(np.allclose(weights, 1 / 3)):
        raise Wrong("Two of the three may be nearly one task. Should each of them count as much as the third?")
    return (
        "With two of three unit gradients close together EDM gives "
        f"{listed(short(w) for w in weights)}: it sees the angles, and 1/|g| knows none."
    )


@exercise()
def equal_rates(given: Given, learnt: np.ndarray) -> str:
    """Weights for which all losses fall at the same relative rate. learnt: FAMO's, after its walk in one place [2]."""
    mine, losses = method(given), np.array([7.0, 1.5])
    G = np.array([[20.0, -3.0], [-3.0, 1.25]])

    def weights(gramian: np.ndarray) -> np.ndarray:
        smto = mine(2)
        smto.losses = losses
        return smto.weights(gramian)

    def shares(values: np.ndarray) -> np.ndarray:
        return values / values.sum()

    said = given.agrees(
        [G, *random_gramians(2)],
        lambda gramian: shares(np.linalg.solve(gramian, losses)),
        [
            (lambda gramian: np.linalg.solve(gramian, losses), "The rates are equal. Now bring the sum of w to 1."),
            (
                lambda gramian: shares(np.linalg.solve(gramian, [1, 1])),
                "Here both losses fall by the same amount. The "
                "larger loss should fall by more: by the same part of itself.",
            ),
            (lambda gramian: shares(1 / losses), "This is SI: it reads the losses and leaves out the Gramian."),
            (lambda gramian: shares(losses), "These weights are in proportion to the losses; the falls Gw have to be."),
            (lambda gramian: shares(gramian @ losses), "This multiplies by G. You know Gw and look for w."),
            (lambda gramian: shares(gramian.diagonal() ** -0.5), "This is EDM: it reads the lengths, not the losses."),
        ],
        "Which equation do the K weights solve, if each fall has to be in proportion to its loss?",
        function=weights,
    )
    share = shares(np.linalg.solve(G, losses))[0]
    return (
        f"{said} At θ = (0, 2) they give task 1 a share of {number(share, 3)}. In the figure of methods with a memory "
        f"FAMO came to rest at {number(float(shares(learnt)[0]), 3)}: its steps are not infinitely small, and a "
        "weight decay pulls it back a little."
    )
