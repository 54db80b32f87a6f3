"""Of 04_qm9."""

from __future__ import annotations

import numpy as np

from mtl_core.datasets.qm9 import PROPERTIES
from mtl_core.smtos.imtl import IMTLG, transposed
from mtl_study.teaching.marking import Given, Wrong, exercise, spot
from mtl_study.words import counted, listed

ERRORS = (  # of the single-task models, of method A and of method B, by property; A wins by rank, B by Δm
    ((10, 20, 1), (12, 20, 3), (15, 25, 1)),
    ((8, 50, 2), (10, 50, 7), (12, 60, 2)),
    ((20, 10, 4), (25, 10, 11), (30, 14, 4)),
)


@exercise("errors of {errors[0]} alone, {errors[1]} with A and {errors[2]} with B", errors=ERRORS)
def two_methods(given: Given, errors: tuple[tuple[float, ...], ...]) -> str:
    """Δm of two methods on three errors."""
    values = given.numbers("Δm of A", "Δm of B")
    alone, *others = np.array(errors, dtype=float)
    gains = np.array([(alone - other) / alone for other in others])
    right = 100 * gains.mean(1)
    spot(
        values,
        right,
        [
            (right[::-1], "These are the two numbers in the other order: A first."),
            (-right, "Of errors less is better, so a larger error is a negative gain."),
            (100 * gains.sum(1), "These are sums over the three properties. Take the means."),
            (right / 100, "These are no percentages yet: times 100."),
            (
                [100 * np.mean((alone - other) / other) for other in others],
                "Divide by the single-task model's error, not by the method's.",
            ),
            (
                [np.mean(alone - other) for other in others],
                "These are plain differences. Divide each by the single-task model's error, since the units differ.",
            ),
            (
                [100 * (alone.sum() - other.sum()) / alone.sum() for other in others],
                "Errors in different units cannot be added. Take each property's gain first, then the mean.",
            ),
        ],
        "Per property (alone − method) / alone, then the mean of the three, times 100.",
        tolerance=0.005,
    )
    return "One property ruins A."


@exercise("errors of {errors[0]} alone, {errors[1]} with A and {errors[2]} with B", errors=ERRORS)
def winner_by_rank(given: Given, errors: tuple[tuple[float, ...], ...]) -> str:
    """Which of two methods has the better mean rank."""
    _, a, b = np.array(errors, dtype=float)
    ahead = "A" if (a < b).sum() > (b < a).sum() else "B"
    if given.choice("A", "B") != ahead:
        raise Wrong("Say for each property who has the smaller error. How often is it which of them?")
    return "The winner by rank is the loser by Δm. Table 1 shows both because of this."


@exercise()
def kept_properties(given: Given) -> str:
    """Some of the eleven properties."""
    found = given.keys({key: one.label for key, one in PROPERTIES.items()})
    given.value = [key for key in PROPERTIES if key in found]
    if len(found) == len(PROPERTIES):
        raise Wrong("These are all eleven, as above. Leave some out.")
    if len(found) == 1:
        raise Wrong(f"With {listed(found)} alone there is one task, and nothing to combine. Keep two or more.")
    return f"{counted(len(found), 'property', 'properties')} kept."


@exercise()
def imtl_weights(given: Given) -> str:
    """IMTL's correct form, as a function of a Gramian."""
    draws = np.random.default_rng(4)
    jacobians = [draws.normal(size=(K, 15)) * draws.uniform(0.5, 2, (K, 1)) for K in (2, 3, 11) for _ in range(4)]

    def shares(values: np.ndarray) -> np.ndarray:
        return values / values.sum()

    def by_projections(G: np.ndarray) -> np.ndarray:
        return np.linalg.solve(G / np.sqrt(G.diagonal())[:, None], np.ones(len(G)))

    return given.agrees(
        [J @ J.T for J in jacobians],
        lambda G: IMTLG(len(G), guard=False).weights(G),
        [
            (by_projections, "All projections are 1. Now bring the sum of the weights to 1."),
            (transposed, "This is the transposed form: rows and columns are swapped."),
            (
                lambda G: shares(np.linalg.solve((G / np.sqrt(G.diagonal())[:, None]).T, np.ones(len(G)))),
                "Rows and columns are swapped: row k has to be divided by |g_k|.",
            ),
            (
                lambda G: shares(np.linalg.solve(G, np.ones(len(G)))),
                "Here all g_k · d are the same. The exercise asks for u_k · d, along unit gradients.",
            ),
            (
                lambda G: shares(G.diagonal() ** -0.5),
                "1/|g| is right for two tasks only. With more the angles count, too.",
            ),
            (
                lambda G: shares(np.linalg.solve(G / G.diagonal()[:, None], np.ones(len(G)))),
                "The diagonal holds |g|². Divide row k by |g_k|, its root.",
            ),
            (lambda G: np.full(len(G), 1 / len(G)), "These are equal weights, whatever the Gramian."),
        ],
        "Ask for projections of 1, solve the linear system, then bring the sum of the weights to 1.",
        show=lambda G: f"a Gramian of {len(G)} tasks",
    )
