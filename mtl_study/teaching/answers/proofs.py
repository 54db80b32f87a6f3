"""Of 06_proofs."""

from __future__ import annotations

import numpy as np

from mtl_core.smtos import solvers
from mtl_study.teaching import proofs
from mtl_study.teaching.marking import Given, Wrong, exercise, named, same, short, spot
from mtl_study.words import listed


@exercise("|g₁| = 1 and |g₂| = {ratio:g}", ratio=(3, 2, 4, 5, 1.5))
def edm_weights(given: Given, ratio: float) -> str:
    """EDM's weights for two gradients at a right angle."""
    values = given.numbers("w₁", "w₂")
    right = proofs.weights_of("edm", np.diag([1.0, ratio**2]))
    square = np.array([ratio**2, 1]) / (ratio**2 + 1)
    total = values.sum()
    is_one = same(total, 1, 1e-3)
    spot(
        values,
        right,
        [
            (right[::-1], "They are swapped: the longer gradient gets less."),
            ([0.5, 0.5], "These are right for equal lengths."),
            (
                square,
                "Weights as 1/|g|² make the shortest vector between the tips; that is MGDA. EDM begins with unit "
                "gradients.",
            ),
            (square[::-1], "The longer gradient has to get less, and as 1/|g|, not as 1/|g|²."),
            ([1, ratio], "The longer gradient has to get less; and the sum has to be 1."),
            *([] if is_one else [(right * total, f"The ratio is right, and the sum is {short(total)}. Divide by it.")]),
            ([1, 0], "Both tasks have some weight: the update is equally long along both unit gradients."),
        ],
        ("" if is_one else f"The sum of the weights has to be 1; here it is {short(total)}. ")
        + "Proposition 4 has the weights for any two lengths.",
    )
    return "As 1/|g₁| to 1/|g₂|; the angle plays no part."


@exercise("c = {c:g}, |g₁| = 1 and |g₂| = {ratio:g}", c=(0.5,), ratio=(1.1, 1.2, 1.3, 1.15))
def cagrad_cosine(given: Given, c: float, ratio: float) -> str:
    """The cosine from which on CAGrad's inner problem drops a task."""
    cosine = given.number("cosine")
    if abs(cosine) > 1:
        raise Wrong("A cosine is from −1 to 1; this may be an angle.")

    def inner(at: float) -> np.ndarray:
        gramian = np.array([[1.0, ratio * at], [ratio * at, ratio**2]])
        return np.asarray(solvers.cagrad_dual(gramian, c=c).weights)

    grid = np.arange(0, 1, 0.01)
    right = next(at for at in grid if inner(at).min() == 0)
    if cosine < right - 0.005:
        raise Wrong(
            f"There both have some weight still: {named(('w₁', 'w₂'), inner(cosine))}. Go on to larger cosines."
        )
    if cosine > right + 0.005:
        raise Wrong("There one is dropped, but it is so at a smaller cosine, too. Halve the interval.")
    return (
        "Task 2 is dropped. Along the mean gradient the shorter task gains less: it is the worse off, and CAGrad leans "
        "to it."
    )


@exercise()
def equal_parts(given: Given) -> str:
    """Weights with which every task has the same part in the update."""
    draws = np.random.default_rng(6)
    jacobians = [draws.normal(size=(K, 8)) * draws.uniform(0.1, 3, (K, 1)) for K in (2, 3, 7) for _ in range(10)]

    def shares(values: np.ndarray) -> np.ndarray:
        return values / values.sum()

    return given.agrees(
        [J @ J.T for J in jacobians],
        lambda G: shares(G.diagonal() ** -0.5),
        [
            (lambda G: G.diagonal() ** -0.5, "All parts are 1. Now bring the sum of the weights to 1."),
            (
                lambda G: shares(1 / G.diagonal()),
                "The diagonal holds |g|²; with these weights long gradients have a smaller part.",
            ),
            (lambda G: shares(G.diagonal() ** 0.5), "The longer gradient gets more here. It has to get less."),
            (lambda G: np.full(len(G), 1 / len(G)), "Equal weights give the longer gradient the larger part."),
            (lambda G: proofs.weights_of("edm", G), "This is EDM: the same part for two tasks, not for more."),
            (
                lambda G: shares(np.linalg.solve(G, np.ones(len(G)))),
                "Here all tasks gain the same. The exercise asks "
                "for the same part w_k |g_k| in the update, whatever the angles.",
            ),
        ],
        "Only the diagonal of the Gramian matters.",
        show=lambda G: f"a Gramian of {len(G)} tasks",
    )


@exercise("a sum of {total:g} in each row", total=(1.0, 1.2, 0.8, 1.4))
def equal_rows(given: Given, total: float) -> str:
    """Cosines of four tasks whose rows all have this sum, without being all equal."""
    try:
        C = np.asarray(given.raw, dtype=float)
    except (TypeError, ValueError):
        raise Wrong("A matrix of 4 by 4 numbers is asked for.") from None
    if C.shape != (4, 4):
        raise Wrong(f"A matrix of 4 by 4 numbers is asked for; this one has the shape {C.shape}.")
    given.said = "a matrix of 4 by 4 numbers"
    if not np.isfinite(C).all():
        raise Wrong("Not all of its entries are finite.")
    if not np.allclose(C, C.T):
        i, j = np.argwhere(~np.isclose(C, C.T))[0] + 1
        raise Wrong(f"It is not symmetric: row {i}, column {j} and row {j}, column {i} differ.")
    if not np.allclose(np.diag(C), 1):
        raise Wrong("A gradient has the cosine 1 with itself: ones belong on the diagonal.")
    if np.abs(C).max() > 1 + 1e-9:
        raise Wrong("A cosine is from −1 to 1.")
    if np.ptp(C.sum(0)) > 1e-9:
        raise Wrong(f"The sums of the rows differ: {listed(short(value) for value in C.sum(0))}.")
    if np.ptp(C[np.triu_indices(4, 1)]) <= 1e-3:
        raise Wrong("These cosines are all equal. That meets the condition, but one with unequal ones is asked for.")
    least = np.linalg.eigvalsh(C).min()
    if least <= 1e-9:
        raise Wrong(f"No four independent vectors have these cosines: an eigenvalue is {short(least)}, not above 0.")
    if not np.allclose(C.sum(0), total, atol=1e-6):
        raise Wrong(f"Each row has the sum {short(C[0].sum())}; {short(total)} is asked for.")
    off = {key: proofs.worst(key, [C]) for key in ("nash_mtl", "cagrad", "edm")}
    return (
        f"Nash-MTL, CAGrad and EDM give all four tasks the same weight, to {max(off.values()):.0e}. For four tasks "
        "rows of equal sums make c₁₂ = c₃₄, c₁₃ = c₂₄ and c₁₄ = c₂₃, so that tasks can change places."
    )
