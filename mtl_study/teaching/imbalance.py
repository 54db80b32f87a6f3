"""IMGrad's measure of balance, κ: the cosine between the mean gradient and the shortest convex combination.

For two gradients with r = longer / shorter and the angle φ between them

    κ = 2 r sin φ / √((r² + 1)² − 4 r² cos² φ)          where r cos φ < 1
    κ = (1 + r cos φ) / √(r² + 1 + 2 r cos φ)           elsewhere: the shortest combination is the shorter gradient

It is 1 where both are equally long, whatever the angle, and falls with r: to 0 for φ ≥ 90°, to cos φ for less. At a
right angle it is the magnitude similarity 2r/(r² + 1). For more tasks there is no such formula.

Source of the claim: Zhou et al. 2025, arXiv:2503.08006. The formula is this package's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from mtl_core.smtos.imgrad import balance

SHARED = (0.0, 0.5, 1.0, 2.0)  # of random gradients: how long the part is that all tasks have, in units of their own
FEATURES = 40  # of random gradients


def kappa(ratio: float | np.ndarray, cosine: float | np.ndarray) -> np.ndarray:
    """Of two gradients, from the ratio of their lengths (≥ 1) and the cosine between them."""
    ratio, cosine = np.asarray(ratio, dtype=float), np.asarray(cosine, dtype=float)
    sine = np.sqrt(np.maximum(1 - cosine**2, 0))
    inside = ratio * cosine < 1
    between = (ratio**2 + 1) ** 2 - (2 * ratio * cosine) ** 2
    along = 2 * ratio * sine / np.sqrt(np.where(inside & (between > 0), between, 1))
    shorter = (1 + ratio * cosine) / np.sqrt(np.where(inside, 1, ratio**2 + 1 + 2 * ratio * cosine))
    found: np.ndarray = np.where(inside, along, shorter)
    return found


def random_gramians(shared: float, draws: int, num_tasks: int, rng: np.random.Generator) -> np.ndarray:
    """Gramians of Gaussian gradients whose lengths lie within a factor of some 10 of each other, [draws, K, K].

    Args:
        shared: how long the part is that all tasks have, in units of what each has for itself.
    """
    J = rng.normal(size=(draws, num_tasks, FEATURES)) + shared * rng.normal(size=(draws, 1, FEATURES))
    J *= np.exp(rng.normal(0, 0.7, (draws, num_tasks, 1)))
    found: np.ndarray = J @ J.swapaxes(1, 2)
    return found


def measured(gramians: Mapping[str, Iterable[np.ndarray]]) -> pd.DataFrame:
    """A row per Gramian [K, K], by where it comes from.

    Returns:
        origin, num_tasks; ratio of the longest to the shortest gradient; cosine, the least between two; kappa, as
        IMGrad computes it; for two tasks its closed form, else NaN. A Gramian with a gradient that is zero is left out.
    """
    rows = []
    for origin, found in gramians.items():
        for G in map(np.asarray, found):
            norms = np.sqrt(G.diagonal())
            if norms.min() > 0:
                ratio, cosine = norms.max() / norms.min(), float((G / np.outer(norms, norms)).min())
                closed = float(kappa(ratio, cosine)) if len(G) == 2 else np.nan
                rows.append((origin, len(G), ratio, cosine, balance(G), closed))
    return pd.DataFrame(rows, columns=["origin", "num_tasks", "ratio", "cosine", "kappa", "closed"])


def correlations(table: pd.DataFrame) -> pd.DataFrame:
    """Spearman's correlation of κ with the ratio, a row per origin and number of tasks.

    Args:
        table: `measured`.

    Returns:
        gramians, how many; deviation, the largest between κ and its closed form (NaN for more than two tasks);
        spearman, of all Gramians, and of those with a conflict and without: −1 where κ always falls as the ratio rises;
        NaN for fewer than three; low and high, the 95 % interval of the first (`interval`).
    """
    rows = []
    for (origin, num_tasks), part in table.groupby(["origin", "num_tasks"], sort=False):
        conflict = part.cosine < 0
        rows.append(
            {
                "origin": origin,
                "num_tasks": num_tasks,
                "gramians": len(part),
                "deviation": (part.kappa - part.closed).abs().max(),
                "spearman": (rho := _spearman(part)),
                **dict(zip(("low", "high"), interval(rho, len(part)), strict=True)),
                "spearman, conflict": _spearman(part[conflict]),
                "spearman, no conflict": _spearman(part[~conflict]),
            }
        )
    return pd.DataFrame(rows)


def _spearman(part: pd.DataFrame) -> float:
    if len(part) < 3 or part.kappa.nunique() == 1:
        return float("nan")
    return float(spearmanr(part.ratio, part.kappa).statistic)


def interval(rho: float, pairs: int) -> tuple[float, float]:
    """The 95 % interval of a rank correlation from so many pairs, more than three: Fisher's z with the standard error
    of Bonett & Wright 2000 (Psychometrika 65, 23–28), √((1 + ρ²/2)/(n − 3))."""
    half = 1.96 * np.sqrt((1 + rho**2 / 2) / (pairs - 3)) if pairs > 3 else np.nan
    z = np.arctanh(np.clip(rho, -1 + 1e-12, 1 - 1e-12))
    return float(np.tanh(z - half)), float(np.tanh(z + half))


def falls(angles: int = 179, ratios: int = 200) -> bool:
    """Whether the closed form falls with the ratio, from 1 to 1,000, at every angle between 0 and 180 degrees."""
    cosines = np.cos(np.deg2rad(np.linspace(0, 180, angles + 2)[1:-1]))
    values = kappa(np.geomspace(1, 1000, ratios)[:, None], cosines)
    return bool((np.diff(values, axis=0) < 0).all())


def least_c(gramian: np.ndarray) -> float:
    """For two tasks the least c with which CAGrad, at this Gramian [2, 2], hurts neither: minus the cosine between the
    mean gradient and the one that it hurts, 0 where it hurts none."""
    norms, along = np.sqrt(gramian.diagonal()), gramian.mean(1)
    return max(0.0, -float((along / norms).min()) / float(np.sqrt(gramian.mean())))
