"""What notebook 06 proves with: Gramians that meet an assumption, weights by a method's own code, and a record of what
was checked.

    for G in equal_lengths(1000, 2, rng): …          two gradients of one length, at any angle
    worst("edm", equal_rows(1000, 5, rng))           by how much the weights differ from 1/K, at most
    same_field(keys, pairs)                          which methods give two tasks the same weights, everywhere
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from mtl_core import smtos
from mtl_core.smtos.base import SMTO, GramianWeighting, LossWeighting, ProblemInfo
from mtl_core.smtos.famo import FAMO
from mtl_study.teaching.toys import Pair, Slope, Toy, walk, weigh

Options = Mapping[str, Mapping[str, Any]]

# -- Gramians that meet an assumption ----------------------------------------------------------------------------------


def equal_lengths(draws: int, K: int, rng: np.random.Generator) -> np.ndarray:
    """Gramians [draws, K, K] of gradients of one length, between 1e-3 and 1e3, at random angles, from nearly opposite
    to nearly parallel."""
    shared = rng.uniform(0, 2, (draws, 1, 1)) * rng.standard_normal((draws, 1, K + 1))
    J = rng.standard_normal((draws, K, K + 1)) + shared
    J *= 10 ** rng.uniform(-3, 3, (draws, 1, 1)) / np.linalg.norm(J, axis=2, keepdims=True)
    return J @ J.mT


def equal_rows(draws: int, K: int, rng: np.random.Generator) -> np.ndarray:
    """The same [draws, K, K], where also all rows of the Gramian have the same sum.

    A circulant Gramian has both properties; both survive when tasks are renumbered, and when such Gramians are added.
    """
    spectra = rng.uniform(0.02, 1, (draws, 3, K // 2 + 1))
    rows = np.fft.irfft(spectra, K)
    shifts = (np.arange(K) - np.arange(K)[:, None]) % K
    circulants = (rows / rows[..., :1])[..., shifts]
    orders = rng.permuted(np.tile(np.arange(K), (draws, 3, 1)), axis=2)
    mixed = np.take_along_axis(np.take_along_axis(circulants, orders[..., None], 2), orders[:, :, None], 3).mean(1)
    return mixed * 10 ** rng.uniform(-6, 6, (draws, 1, 1))


def correlated(draws: int, K: int, rng: np.random.Generator) -> np.ndarray:
    """Gramians [draws, K, K] of gradients that mostly agree, of lengths that span two decades."""
    J = 1 + 0.5 * rng.standard_normal((draws, K, K + 2))
    J *= 10 ** rng.uniform(-1, 1, (draws, K, 1))
    return J @ J.mT


# -- weights, by the methods' own code ---------------------------------------------------------------------------------


def unequal(weights: np.ndarray) -> float:
    """By how much weights [K], brought to sum 1, differ from 1/K, at most, as a share of 1/K."""
    return float(np.abs(len(weights) * weights / weights.sum() - 1).max())


def weights_of(key: str, gramian: np.ndarray, **options: Any) -> np.ndarray:
    """The weights [K] that a method gives to tasks with this Gramian [K, K] and equal losses. CDTT's are those of its
    eleventh such step. Of FAMO they are its shares z, which it divides by the losses, after a hundred steps in which
    each loss falls as to first order it would under equal weights, by 1 % on average."""
    K = len(gramian)
    if key == "cdtt":
        return cdtt([gramian] * 11, np.ones(K), **options)
    if key == "famo":
        falls = gramian.sum(1)
        return famo(np.tile(0.01 * falls / max(falls.mean(), 1e-12), (100, 1)), **options)[-1]
    return weigh(smtos.build(key, K, **options), gramian, np.ones(K))


def worst(key: str, gramians: Iterable[np.ndarray], **options: Any) -> float:
    """The largest `unequal` of a method's weights on Gramians [draws, K, K]."""
    return max(unequal(weights_of(key, gramian, **options)) for gramian in gramians)


def broken(ratio: float, cosine: float, three: np.ndarray) -> pd.DataFrame:
    """What each proposition comes to where its assumptions hold, and where they do not.

    Args:
        ratio: |g_2| / |g_1| where lengths differ. cosine: between two gradients. three: a Gramian of three equally long
            gradients [3, 3].

    Returns:
        One row per proposition: smto, the share of task 1 ("as assumed", "lengths": where they differ, "same": the same
        gradient twice), and of three tasks the three weights.
    """
    rows = []
    for proposition, key in enumerate(("cagrad", "nash_mtl", "imtl_g", "edm", "cdtt", "famo"), start=1):
        row: dict[str, Any] = {"proposition": proposition, "smto": key}
        for name, length, angle_cosine in (("as assumed", 1, cosine), ("lengths", ratio, cosine), ("same", 1, 1.0)):
            crossed = length * angle_cosine
            row[name] = share(weights_of(key, np.array([[1.0, crossed], [crossed, length**2]])))
        weights = weights_of(key, three)
        rows.append(row | {f"task {k}": weight for k, weight in enumerate(weights / weights.sum(), start=1)})
    return pd.DataFrame(rows)


def cdtt(gramians: Sequence[np.ndarray], losses: np.ndarray, alpha: float = 0.2) -> np.ndarray:
    """CDTT's weights [K] in the last of several steps with these Gramians [steps, K, K] and losses [K]; its window of
    ten steps must have filled: eleven are needed."""
    smto = smtos.build("cdtt", len(losses), alpha=alpha)
    return [weigh(smto, gramian, losses) for gramian in gramians][-1]


def famo(improvements: np.ndarray, **options: Any) -> np.ndarray:
    """FAMO's shares z [steps, K] after each of several steps, in which the logarithms of the losses fall by these
    numbers [steps, K]."""
    smto = smtos.build("famo", improvements.shape[1], **options)
    assert isinstance(smto, FAMO)
    shares = []
    for improvement in torch.from_numpy(improvements):
        before = torch.ones_like(improvement)
        smto.optimizer.step(smto.logits, smto.logit_gradient(before, (-improvement).exp()))
        shares.append(smto.logits.softmax(0).numpy())
    return np.array(shares)


def weights_of_pair(key: str, pair: Pair, options: Mapping[str, Any] | None = None) -> np.ndarray:
    """The weights [2] that a method gives to two tasks, by its own code; NaN where it makes no step.

    A method that learns is taken at its first step, CDTT at its eleventh. Of one that reads more than Gramian and
    losses the update is taken apart: Jᵀ w = update.
    """
    if key == "cdtt":
        return cdtt([pair.gramian] * 11, pair.losses, **(options or {}))
    smto = prepared(key, options)
    if isinstance(smto, GramianWeighting | LossWeighting):
        weights = weigh(smto, pair.gramian, pair.losses)
    else:
        slopes = [Slope(tuple(g), float(loss)) for g, loss in zip(pair.gradients, pair.losses, strict=True)]
        update = walk(Toy(tuple(slopes)), smto, (0.0, 0.0), lr=1e-3, steps=1).updates[0]
        weights = np.linalg.solve(pair.gradients.T, update)
    return weights if weights.any() else np.full(2, np.nan)


def prepared(key: str, options: Mapping[str, Any] | None) -> SMTO:
    """A method for two tasks with squared errors."""
    smto = smtos.build(key, 2, **(options or {}))
    smto.set_up(ProblemInfo(("gaussian", "gaussian"), (2,), lr=1e-3, weight_decay=0.0), seed=1)
    return smto


def share(weights: np.ndarray) -> float:
    """The part of task 1 in the sum of two weights."""
    return float(weights[0] / weights.sum())


def same_field(keys: Sequence[str], pairs: Sequence[Pair], options: Options) -> list[list[str]]:
    """The methods in groups: within one, the shares of task 1 agree to 1e-4 on all these pairs."""
    groups: list[tuple[np.ndarray, list[str]]] = []
    for key in keys:
        shares = np.array([share(weights_of_pair(key, pair, options.get(key))) for pair in pairs])
        for known, members in groups:
            if np.allclose(known, shares, rtol=0, atol=1e-4, equal_nan=True):
                members.append(key)
                break
        else:
            groups.append((shares, [key]))
    return [members for _, members in groups]


def field(members: Sequence[str], angles: np.ndarray, ratios: np.ndarray, options: Options) -> np.ndarray:
    """Weights of two tasks with equal losses [ratios, angles, 2]. All members of a group give the same; these are from
    the first that has no memory.

    Args:
        angles: between the gradients, degrees. ratios: |g_1| / |g_2|.
    """
    key = next((key for key in members if not smtos.get(key).remembered), members[0])
    smto = prepared(key, options.get(key))
    pairs = [[Pair(angle, ratio) for angle in angles] for ratio in ratios]
    return np.array([[weigh(smto, pair.gramian, pair.losses) for pair in row] for row in pairs])


def sensitivity(keys: Sequence[str], options: Options, cosines: np.ndarray, ratio: float) -> pd.DataFrame:
    """What becomes of equal weights when one gradient is longer.

    Args:
        cosines: between the two gradients. ratio: |g_2| / |g_1|.

    Returns:
        One row per method and cosine: smto, cosine, share (of task 1 in the weights), degrees (between the update and
        the mean of the two gradients).
    """
    rows = []
    for key in keys:
        for cosine in cosines:
            pair = Pair(float(np.rad2deg(np.arccos(cosine))), 1 / ratio)
            weights = weights_of_pair(key, pair, options.get(key))
            rows.append((key, cosine, share(weights), angle(weights @ pair.gradients, pair.gradients.mean(0))))
    return pd.DataFrame(rows, columns=["smto", "cosine", "share", "degrees"])


def cosine(gramian: np.ndarray, w: np.ndarray, v: np.ndarray) -> float:
    """Between the updates that two kinds of weights [K] give, from the Gramian of the task gradients [K, K]."""
    return float(w @ gramian @ v / np.sqrt((w @ gramian @ w) * (v @ gramian @ v)))


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """Between two vectors of the plane, degrees."""
    return float(np.rad2deg(np.abs(np.arctan2(a[0] * b[1] - a[1] * b[0], a @ b))))


# -- heads under Adam --------------------------------------------------------------------------------------------------


def head_under_adam(weight: float, steps: int = 200, weight_decay: float = 0.0, late: float = 1.0) -> float:
    """How far a head ends from where it would have ended with weight 1, in units of how far it has moved.

    The head, one linear layer, learns to classify by Adam; its features stay as they are, so that nothing but the
    weight of its loss differs. 0: the weight does not matter. Adam divides a gradient by its own usual size, and a
    constant factor cancels except in ε.

    Args:
        weight: of the loss, constant. late: a factor on it in the second half of the steps.
    """

    generator = torch.Generator().manual_seed(0)
    z = torch.randn(64, 8, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (64,), generator=generator)
    start = torch.randn(3, 8, generator=generator, dtype=torch.float64) / 8

    def trained(early: float, late: float) -> torch.Tensor:
        head = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([head], lr=0.001, weight_decay=weight_decay)
        for step in range(steps):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(z @ head.T, y)
            ((early if 2 * step < steps else late) * loss).backward()
            optimizer.step()
        return head.detach()

    alone = trained(1.0, 1.0)
    return float((trained(weight, weight * late) - alone).norm() / (alone - start).norm())


# -- the record --------------------------------------------------------------------------------------------------------


class ProofChecks:
    """What was checked of each proposition, and what came of it."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def algebra(self, proposition: int, check: str, *differences: Any) -> None:
        """An identity: all differences of its two sides are 0, which sympy can show."""
        import sympy

        passed = all(sympy.simplify(difference) == 0 for difference in differences)
        self._add(proposition, check, "algebra", "all", passed)

    def numbers(self, proposition: int, check: str, deviation: float, cases: int, allowed: float = 1e-9) -> None:
        """An equality on many cases: the largest deviation, of the method's own code, is rounding."""
        self._add(proposition, check, "code", f"{cases:,}", deviation <= allowed, deviation, allowed)

    def _add(
        self, proposition: int, check: str, by: str, cases: str, passed: bool, *deviation_and_allowed: float
    ) -> None:
        deviation, allowed = deviation_and_allowed or (float("nan"), float("nan"))
        row = {"proposition": proposition, "check": check, "by": by, "cases": cases, "passed": bool(passed)}
        self.rows.append(row | {"largest deviation": float(deviation), "allowed": float(allowed)})

    def frame(self) -> pd.DataFrame:
        """One row per check."""
        return pd.DataFrame(self.rows)
