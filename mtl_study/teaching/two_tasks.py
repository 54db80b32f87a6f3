"""What methods do with two gradients of two coordinates, in closed form and for many such pairs at once.

    weights = METHODS["mgda"](G)               gradients [N, 2, 2], rows are tasks, to weights [N, 2]

For two tasks several methods are one: UPGrad is PCGrad, EDM is IMTL-G; CDTT and ConFIG have its direction, and so has
Nash-MTL. The page of a method is its file in mtl_core/smtos; a test holds these against them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

EPSILON = 1e-4  # which Liu et al. add under CAGrad's roots and to the length by which it divides, in their toy
RANK = 2 * float(np.finfo(np.float32).eps)  # eigenvalues below, relative to the largest, are none to Aligned-MTL
Method = Callable[..., np.ndarray]  # of gradients [N, 2, 2]


def unit_scal(G: np.ndarray) -> np.ndarray:
    """Half of each."""
    return np.full((len(G), 2), 0.5)


def pcgrad(G: np.ndarray) -> np.ndarray:
    """The mean of the two gradients, each projected past the other where they conflict."""
    g11, g12, g22 = products(G)
    conflict = np.minimum(g12, 0)
    first = 0.5 * (1 - conflict / np.where(g11 > 0, g11, 1))
    return np.stack([first, 0.5 * (1 - conflict / np.where(g22 > 0, g22, 1))], axis=-1)


def mgda(G: np.ndarray) -> np.ndarray:
    """The shortest convex combination."""
    g11, g12, g22 = products(G)
    A = g11 + g22 - 2 * g12  # |g_1 − g_2|²
    found = np.stack([g22 - g12, g11 - g12], axis=-1) / np.where(A > 0, A, 1)[:, None]
    return np.where(A[:, None] > 0, np.clip(found, 0, 1), 0.5)


def imtl_g(G: np.ndarray) -> np.ndarray:
    """Equal projections on both unit gradients; the weights sum to 1."""
    others = lengths(G)[:, ::-1]
    return others / others.sum(-1, keepdims=True)


def nash_mtl(G: np.ndarray) -> np.ndarray:
    """The bisector, 1 long; nothing where the gradients are opposite."""
    norms = lengths(G)
    length = np.sqrt(((G.astype(np.float64) / norms[..., None]).sum(1) ** 2).sum(-1, keepdims=True))
    return np.where(length > 2e-5, 1 / np.where(length > 0, length, 1), 0) / norms


def aligned_mtl(G: np.ndarray) -> np.ndarray:
    """The mean of the two gradients, both principal axes made as long as the shorter."""
    J = G.astype(np.float64)
    values, axes = np.linalg.eigh(J @ J.swapaxes(1, 2))
    kept = values > RANK * values[:, -1:]
    least = np.where(kept[:, :1], values[:, :1], values[:, -1:])
    factors = np.where(kept, np.sqrt(least / np.where(kept, values, 1)), 0)
    weights: np.ndarray = ((axes * factors[:, None]) @ axes.swapaxes(1, 2)).sum(-1) / 2
    return weights


def cagrad(
    G: np.ndarray, c: float | np.ndarray = 0.5, epsilon: float = EPSILON, inner: np.ndarray | None = None
) -> np.ndarray:
    """The inner problem in closed form. c: one, or one for each pair [N]. epsilon: as the released toy has it; 0 is the
    method as published. inner: the c of the inner problem, where it is another one [N].

    With w on task 1 it minimises s w + r √(A w² + 2Bw + C), r = c |g_0|, s the slope of g_w·g_0: where the root's slope
    cannot outweigh s the solution is a corner.
    """
    g11, g12, g22 = products(G)
    r = 0.5 * (c if inner is None else inner) * np.sqrt(g11 + g22 + 2 * g12 + epsilon)
    A, B = g11 + g22 - 2 * g12, g12 - g22
    s = 0.5 * (g11 - g22)
    a, b, d, e = _coordinates(G)
    D, room = (a * e - b * d) ** 2 + epsilon * A, r * r * A - s * s  # D = AC − B², C = g₂·g₂ + ε
    root = -(B + s * np.sqrt(D / np.where(room > 0, room, 1))) / np.where(A > 0, A, 1)
    w = np.where(A > 0, np.where(room > 0, np.clip(root, 0, 1), s < 0), 0.5)
    return _toward(G, w, c, epsilon)


def imgrad(G: np.ndarray, c: float | np.ndarray = 0.8, reading: str = "code") -> np.ndarray:
    """CAGrad with the weights of another inner problem.

    With the length of g_w in it, that is CAGrad's own at a smaller or larger c. With its square it is a parabola
    ("eq11"), or a sum of the two, whose slope is halved to 0 ("eq9").
    """
    kappa = balance(G)
    rest = 1 - kappa
    if reading in ("code", "eq11_plain"):
        linear = 1.5 - kappa if reading == "code" else np.maximum(rest, 1e-12)
        return cagrad(G, c, 0.0, inner=c * kappa / linear)
    g11, g12, g22 = products(G)
    A, B, s = g11 + g22 - 2 * g12, g12 - g22, 0.5 * (g11 - g22)
    r = 0.5 * c * np.sqrt(np.maximum(g11 + g22 + 2 * g12, 0))
    if reading == "eq11":
        slope, pull = rest * s + 2 * kappa * r * B, 2 * kappa * r * A
        w = np.where(pull > 0, np.clip(-slope / np.where(pull > 0, pull, 1), 0, 1), s < 0)
        return _toward(G, w, c, 0.0)
    low, high = np.zeros(len(G)), np.ones(len(G))
    for _ in range(40):
        w = 0.5 * (low + high)
        half = A * w + B  # of the slope of |g_w|²
        length = np.sqrt(np.maximum((half + B) * w + g22, 0))
        rising = rest * (s + r * half / np.where(length > 0, length, 1)) + 2 * kappa * half > 0
        low, high = np.where(rising, low, w), np.where(rising, w, high)
    return _toward(G, 0.5 * (low + high), c, 0.0)


def balance(G: np.ndarray) -> np.ndarray:
    """IMGrad's κ [N]: the cosine between the mean gradient and the shortest combination, 0 where that is none."""
    (a, b, d, e), w = _coordinates(G), mgda(G)
    x, y = w[:, 0] * a + w[:, 1] * d, w[:, 0] * b + w[:, 1] * e  # the shortest combination
    length, twice_the_mean = np.sqrt(x * x + y * y), np.sqrt((a + d) ** 2 + (b + e) ** 2)
    there = length > 1e-5 * (w * lengths(G)).sum(-1)
    cosine = (x * (a + d) + y * (b + e)) / np.where(there, length * twice_the_mean, 1)
    return np.where(there, np.minimum(cosine, 1), 0)


def _toward(G: np.ndarray, w: np.ndarray, c: float | np.ndarray, epsilon: float) -> np.ndarray:
    """Weights of d [N, 2]: from the mean gradient, c |g_0| in the direction of g_w, w [N] on task 1; over 1 + c."""
    g11, g12, g22 = products(G)
    r = 0.5 * c * np.sqrt(g11 + g22 + 2 * g12 + epsilon)
    a, b, d, e = _coordinates(G)
    x, y = w * a + (1 - w) * d, w * b + (1 - w) * e
    length = np.sqrt(x * x + y * y + epsilon) + epsilon
    pull = r / np.where(length > 0, length, 1)
    return np.stack([0.5 + pull * w, 0.5 + pull * (1 - w)], axis=-1) / np.expand_dims(1 + c, -1)


def products(G: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """g₁·g₁, g₁·g₂ and g₂·g₂ in float64, [N] each."""
    a, b, d, e = _coordinates(G)
    return a * a + b * b, a * d + b * e, d * d + e * e


def lengths(G: np.ndarray) -> np.ndarray:
    """|g₁| and |g₂| in float64 [N, 2]; 1 where there is none."""
    x, y = G[..., 0].astype(np.float64), G[..., 1].astype(np.float64)
    norms = np.sqrt(x * x + y * y)
    return np.where(norms > 0, norms, 1)


def _coordinates(G: np.ndarray) -> np.ndarray:
    """Of the first and of the second gradient, in float64 [4, N]."""
    return G.astype(np.float64).reshape(-1, 4).T


METHODS: dict[str, Method] = {
    "unit_scal": unit_scal,
    "pcgrad": pcgrad,
    "mgda": mgda,
    "imtl_g": imtl_g,
    "nash_mtl": nash_mtl,
    "aligned_mtl": aligned_mtl,
    "cagrad": cagrad,
    "imgrad": imgrad,
}
