"""Of 07_optimizers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mtl_study.teaching import elich
from mtl_study.teaching.marking import Given, Wrong, exercise
from mtl_study.words import number

LETTERS = "abcde"
EQUAL = {  # whether it is equal to the last bit, and why
    "a": (True, "SGD moves by the step size times the gradient: what is left of 8 and an eighth?"),
    "b": (False, "Adam divides by √v̂ + ε. The factor is in √v̂, not in ε."),
    "c": (True, "Divide Adam's fraction by 8, above and below: which ε is left?"),
    "d": (True, "What is the sign of 8 g?"),
    "e": (True, "AdamW's decay is apart from the gradient, and without ε the factor cancels."),
}


@exercise()
def equal_bits(given: Given) -> str:
    """Which of five trainings do not notice a factor of 8."""
    if isinstance(given.raw, str):  # "acd" and "a, c, d" are sets of letters, too
        given.raw = {letter for letter in given.raw.lower() if letter.isalnum()}
    named = given.keys(dict(zip(LETTERS, LETTERS, strict=True)))
    for letter, (equal, why) in EQUAL.items():
        if (letter in named) != equal:
            raise Wrong(f"{'One is missing' if equal else f'{letter} is not one of them'}. {why}")
    return "c is the equivalence of this notebook."


@exercise()
def felt_epsilon(given: Given, moved: Callable[[float], float]) -> str:
    """The smallest power of ten as ε that lets factors of 10 and 0.1 through. moved: how far heads come apart with it,
    as a share of their way."""
    epsilon = given.number("ε")
    if epsilon < 0:
        raise Wrong("ε is added to a root, and is not below 0.")
    if epsilon == 0:
        raise Wrong("Without ε the factor cancels altogether.")
    if epsilon >= 1:
        raise Wrong("That is far above all roots of v̂, and Adam is SGD with momentum. Try one below 1.")
    share, below = (100 * moved(value) for value in (epsilon, epsilon / 10))
    if share <= 5:
        raise Wrong(
            f"The heads come {number(share, 2)} % of their way apart. ε counts where it is not small compared with the "
            "root of v̂: take a larger one."
        )
    if below > 5:
        raise Wrong(
            f"The heads come {number(share, 1)} % of their way apart, but with a tenth of this ε it is "
            f"{number(below, 1)} % already: take a smaller one."
        )
    return (
        f"The heads come {number(share, 1)} % of their way apart, with a tenth of this ε {number(below, 1)} %. Adam's "
        "usual ε is 1e-8."
    )


@exercise()
def sign_sgd(given: Given) -> str:
    """The way of signSGD with momentum."""
    draws = np.random.default_rng(7)
    inputs = [list(draws.normal(size=(length, 6))) for length in (1, 2, 30)]

    def way(gradients: list[np.ndarray], beta: float = 0.9, late: bool = False, signed: bool = True) -> np.ndarray:
        average, found = np.zeros(6), np.zeros(6)
        for gradient in gradients:
            before = average
            average = beta * average + (1 - beta) * gradient
            step = before if late else average
            found = found - 0.1 * (np.sign(step) if signed else step)
        return found

    return given.agrees(
        inputs,
        elich.way_of_sign_sgd,
        [
            (lambda g: way(g, beta=0.0), "There is no momentum in it: the sign of each gradient by itself."),
            (lambda g: -way(g), "This walks uphill. A step goes against the gradient."),
            (lambda g: way(g, late=True), "The average has to take in this step's gradient before its sign is taken."),
            (lambda g: way(g, signed=False), "This steps by the average itself, not by its sign."),
            (lambda g: 10 * way(g), "The step size of 0.1 is missing."),
            (
                lambda g: way(g, beta=0.1),
                "The average keeps 0.9 of itself and takes 0.1 of the gradient, not the other way round.",
            ),
            (lambda g: way(g) - way(g[:-1]), "This is the last step. The sum of all steps is asked for."),
            (lambda g: -0.1 * np.sign(np.sum(g, axis=0)), "This is one step for all gradients together."),
        ],
        "The sign is taken of the average, after this step's gradient has joined it.",
        show=lambda g: f"{len(g)} gradients" if len(g) > 1 else "one gradient",
    )
