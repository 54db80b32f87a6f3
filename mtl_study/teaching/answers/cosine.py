"""Of 02b_cosine."""

from __future__ import annotations

import numpy as np

from mtl_study.cosines import cosine_to_mean
from mtl_study.teaching.marking import Given, Wrong, exercise, short, spot


@exercise(
    "two gradients at a right angle, the first {ratio} times as long as the second; then {K} gradients of equal "
    "length, all at right angles",
    ratio=(3, 2, 4),
    K=(4, 3, 9),
)
def unrelated_cosines(given: Given, ratio: float, K: int) -> str:
    """The cosine to the mean of gradients at right angles."""
    values = given.numbers("first C", "second C")
    right = [cosine_to_mean(np.diag([ratio**2, 1.0])), cosine_to_mean(np.eye(K))]
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
def longer_ratio(given: Given) -> str:
    """How many times as long the longer of two gradients at a right angle is where C is 0.6."""
    ratio = given.number("ratio")
    if ratio < 1:
        raise Wrong("The longer one is at least as long as the other: 1 or more. Have you divided the other way round?")
    C = cosine_to_mean(np.diag([ratio**2, 1.0]))
    if abs(C - 0.6) <= 0.01:
        return f"There C is {short(C)}."
    if abs(ratio - 4 / 3) < 0.01:
        raise Wrong("There the shorter one has a cosine of 0.6 with the average. C is the mean of both cosines.")
    if abs(cosine_to_mean(np.diag([ratio, 1.0])) - 0.6) < 0.002:
        raise Wrong("That is the ratio of the squared lengths: there is a root.")
    raise Wrong(f"There C is {short(C)}, and 0.6 is asked for. Try a {'longer' if C > 0.6 else 'shorter'} one.")


@exercise()
def cosine_by_gramian(given: Given) -> str:
    """C as a function of the Gramian."""
    draws = np.random.default_rng(0)
    gradients = [draws.normal(size=(K, 20)) * draws.uniform(0.1, 10, size=(K, 1)) for K in (2, 3, 11)]

    def lengths(G: np.ndarray) -> np.ndarray:
        return np.sqrt(G.diagonal())

    def pairs(G: np.ndarray) -> float:
        cosines = G / np.outer(lengths(G), lengths(G))
        return float(cosines[np.triu_indices(len(G), 1)].mean())

    return given.agrees(
        [J @ J.T for J in gradients],
        cosine_to_mean,
        [
            (pairs, "This is the pairwise cosine. C compares each gradient with the average of all."),
            (
                lambda G: (G / np.outer(lengths(G), lengths(G))).mean(),
                "This is the mean of all cosines, each gradient "
                "with itself included. C compares each with the average of all.",
            ),
            (
                lambda G: (G.mean(1) / (lengths(G) * G.mean())).mean(),
                "The mean of all of G is the square of |ḡ|: there is a root.",
            ),
            (lambda G: (G.mean(1) / lengths(G)).mean(), "These are projections. Divide by |ḡ|, too."),
            (lambda G: (G.mean(1) / np.sqrt(G.mean())).mean(), "Divide by the lengths of the single gradients, too."),
            (lambda G: (G.mean(1) / (G.diagonal() * np.sqrt(G.mean()))).mean(), "The diagonal holds |g|², not |g|."),
            (
                lambda G: (G.mean(1) / (lengths(G) * np.sqrt(G.mean()))).sum(),
                "This is the sum over the tasks. Take the mean.",
            ),
            (
                lambda G: (G.sum(1) / (lengths(G) * np.sqrt(G.mean()))).mean(),
                "This is K times too much above: the average is the sum divided by K.",
            ),
        ],
        "Which entries of G give ⟨g_k, ḡ⟩, and which |ḡ|²?",
        show=lambda G: f"a Gramian of {len(G)} tasks",
    )
