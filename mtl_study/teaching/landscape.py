"""The two losses of two parameters on which CAGrad is introduced, and many walks over them at once.

    L₁ = c₁ (ln max(|½(−x₁ − 7) + tanh x₂|, κ) + 6) + c₂ (((x₁ − 7)² + 0.1 (x₂ + 8)²)/10 − 20)
    L₂ = c₁ (ln max(|½(3 − x₁) − tanh x₂ + 2|, κ) + 6) + c₂ (((x₁ + 7)² + 0.1 (x₂ + 8)²)/10 − 20)
    c₁ = max(tanh ½x₂, 0),  c₂ = max(−tanh ½x₂, 0),  κ = 5·10⁻⁶

Two curved valleys above x₂ = 0, two bowls below. The mean of both is least at (0, −8.355), with −15.0916.

    walks = walk(plan("adam", "unit_scal", [0.1, 1.0]), steps=1000)

Sources: Liu et al. 2021, arXiv:2110.14048, and its code (losses, starts, CAGrad's 1e-4); Elich et al. 2024,
arXiv:2311.04698 (the table of steps over step sizes).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np
import pandas as pd
import yaml

KAPPA = 5e-6
STARTS = ((-8.5, 7.5), (-8.5, -5.0), (9.0, 9.0))  # of Liu et al.
BEST, LOWEST = (0.0, -8.3551), -15.0916  # of the mean of both losses
REACHED = -15.0  # a walk has arrived once the mean loss is below; the one line that gives the published numbers
EPSILON = 1e-4  # which Liu et al. add under CAGrad's roots and to the length by which it divides
RATES = (10.0, 5.0, 1.0, 0.5, 0.1, 0.05, 0.01, 0.005, 0.001)
BETAS, ADAMS_EPSILON = (0.9, 0.999), 1e-8


def losses(x: np.ndarray) -> np.ndarray:
    """Points [..., 2] to losses [..., 2], in the points' precision."""
    return _parts(x)[0]


def gradients(x: np.ndarray) -> np.ndarray:
    """Points [..., 2] to the gradient of each loss [..., 2, 2], rows are losses. Where a valley is clamped, by κ, its
    logarithm has none."""
    return _parts(x)[1]


def _parts(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x1, x2 = x[..., 0], x[..., 1]
    bend, gate = np.tanh(x2), np.tanh(0.5 * x2)
    above, below = np.maximum(gate, 0), np.maximum(-gate, 0)
    slope_of_gate = 0.5 * (1 - gate * gate)
    found, rows = [], []
    for sign, valley in ((1, 0.5 * (-x1 - 7) + bend), (-1, 0.5 * (3 - x1) - bend + 2)):
        clamped = np.maximum(np.abs(valley), KAPPA).astype(x.dtype)
        a = np.log(clamped) + 6
        p = ((x1 - sign * 7) ** 2 + 0.1 * (x2 + 8) ** 2) / 10 - 20
        inverse = np.where(np.abs(valley) > KAPPA, np.sign(valley) / clamped, 0)  # ∂ ln|valley| / ∂ valley
        along_1 = above * (-0.5 * inverse) + below * (x1 - sign * 7) / 5
        along_2 = (
            np.where(x2 > 0, slope_of_gate, 0) * a
            + above * inverse * sign * (1 - bend * bend)
            - np.where(x2 < 0, slope_of_gate, 0) * p
            + below * (x2 + 8) / 50
        )
        found.append(a * above + p * below)
        rows.append(np.stack([along_1, along_2], axis=-1))
    return np.stack(found, axis=-1), np.stack(rows, axis=-2)


# -- methods: gradients [N, 2, 2] to weights [N, 2] --------------------------------------------------------------------


def unit_scal(G: np.ndarray) -> np.ndarray:
    """Half of each."""
    return np.full((len(G), 2), 0.5)


def pcgrad(G: np.ndarray) -> np.ndarray:
    """The mean of the two gradients, each projected past the other where they conflict."""
    g11, g12, g22 = _products(G)
    conflict = np.minimum(g12, 0)
    first = 0.5 * (1 - conflict / np.where(g11 > 0, g11, 1))
    return np.stack([first, 0.5 * (1 - conflict / np.where(g22 > 0, g22, 1))], axis=-1)


def cagrad(G: np.ndarray, c: float = 0.5, epsilon: float = EPSILON) -> np.ndarray:
    """The inner problem in closed form. epsilon: as the released toy has it; 0 is the method as published.

    With w on task 1 it minimises s w + r √(A w² + 2Bw + C), r = c |g_0|, s the slope of g_w·g_0: where the root's slope
    cannot outweigh s the solution is a corner.
    """
    g11, g12, g22 = _products(G)
    r = 0.5 * c * np.sqrt(g11 + g22 + 2 * g12 + epsilon)
    A, B = g11 + g22 - 2 * g12, g12 - g22
    s = 0.5 * (g11 - g22)
    (a, b), (d, e) = np.moveaxis(G.astype(np.float64), 0, -1)
    D, room = (a * e - b * d) ** 2 + epsilon * A, r * r * A - s * s  # D = AC − B², C = g₂·g₂ + ε
    inner = -(B + s * np.sqrt(D / np.where(room > 0, room, 1))) / np.where(A > 0, A, 1)
    w = np.where(A > 0, np.where(room > 0, np.clip(inner, 0, 1), s < 0), 0.5)
    of_w = w[:, None] * G[:, 0].astype(np.float64) + (1 - w)[:, None] * G[:, 1]
    length = np.sqrt((of_w * of_w).sum(-1) + epsilon) + epsilon
    pull = r / np.where(length > 0, length, 1)
    return np.stack([0.5 + pull * w, 0.5 + pull * (1 - w)], axis=-1) / (1 + c)


METHODS = {"unit_scal": unit_scal, "pcgrad": pcgrad, "cagrad": cagrad}


def _products(G: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """g₁·g₁, g₁·g₂ and g₂·g₂ in float64, [N] each."""
    first, second = np.moveaxis(G.astype(np.float64), -2, 0)
    return (first * first).sum(-1), (first * second).sum(-1), (second * second).sum(-1)


# -- walks -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Walks:
    """Where many walks led.

    plan: one row per walk: optimizer, method, lr, start (its number), and steps until the mean loss was below REACHED
    (NaN: never).
    paths: points at the steps `kept`, [len(kept), N, 2]; a walk that has arrived stays.
    """

    plan: pd.DataFrame
    kept: np.ndarray
    paths: np.ndarray

    def table(self) -> pd.DataFrame:
        """Steps until the walks from all starts have arrived, by optimizer and method, a column per step size; NaN
        where not all do."""
        steps = self.plan.groupby(["optimizer", "method", "lr"], sort=False).steps
        return steps.max().where(steps.count() == steps.size()).unstack()[self.plan.lr.unique()]


def plan(optimizers: Iterable[str], methods: Iterable[str], rates: Iterable[float] = RATES) -> pd.DataFrame:
    """A row per walk: every optimizer ("gd", "adam") with every method, step size and start."""
    rows = itertools.product(optimizers, methods, rates, range(len(STARTS)))
    return pd.DataFrame(rows, columns=["optimizer", "method", "lr", "start"])


def walk(
    plan: pd.DataFrame,
    steps: int,
    precision: str = "float64",
    starts: Sequence[tuple[float, float]] = STARTS,
    keep: Iterable[int] = (),
    perturbed: float = 0.0,
) -> Walks:
    """All walks of a plan side by side; each ends where it arrives.

    Args:
        steps: at most so many. precision: "float32", in which the papers computed, or "float64"; weights of the methods
        are always computed in the latter. keep: steps at which the points are kept. perturbed: is added to both
        coordinates of every start, relative to it.
    """
    dtype, kept = np.dtype(precision), np.array(sorted({0, *keep, steps}))
    N, at = len(plan), np.arange(len(plan))  # at: which walks are still under way
    x = (np.asarray(starts)[plan.start] * (1 + perturbed)).astype(dtype)
    rates, adam = plan.lr.to_numpy(), (plan.optimizer == "adam").to_numpy()
    methods = plan.method.to_numpy()
    arrived, last, paths = np.full(N, np.nan), x.copy(), []
    mean, square = np.zeros_like(x), np.zeros_like(x)
    members = {name: methods == name for name in plan.method.unique()}
    for step in range(steps + 1):
        found, G = _parts(x)
        there = found.mean(-1, dtype=dtype) < REACHED
        if there.any():
            arrived[at[there]], last[at[there]] = step, x[there]
            go = ~there
            at, x, G, mean, square = at[go], x[go], G[go], mean[go], square[go]
            rates, adam = rates[go], adam[go]
            members = {name: own[go] for name, own in members.items()}
        if step in kept:
            last[at] = x
            paths.append(last.copy())
        if not len(at):
            break
        direction = np.empty_like(x)
        for name, own in members.items():
            weights = METHODS[name](G[own]).astype(dtype)
            direction[own] = (weights[:, :, None] * G[own]).sum(1)
        (beta, beta_square), n = BETAS, step + 1
        mean += (direction - mean) * dtype.type(1 - beta)
        square += (direction * direction - square) * dtype.type(1 - beta_square)
        root = np.sqrt(square) / dtype.type(np.sqrt(1 - beta_square**n)) + dtype.type(ADAMS_EPSILON)
        length = np.where(adam, rates / (1 - beta**n), rates).astype(dtype)[:, None]
        x = x - length * np.where(adam[:, None], mean / root, direction)
    paths += [last.copy()] * (len(kept) - len(paths))
    return Walks(plan.assign(steps=arrived), kept, np.stack(paths))


# -- the published table -----------------------------------------------------------------------------------------------


def published() -> pd.DataFrame:
    """The steps that Elich et al. found, as `Walks.table` has them."""
    text = resources.files("mtl_study.paper").joinpath("data", "elich.yaml").read_text(encoding="utf-8")
    rows: dict[str, list[float | None]] = yaml.safe_load(text)["toy"]
    index = pd.MultiIndex.from_tuples([tuple(name.split()) for name in rows], names=["optimizer", "method"])
    return pd.DataFrame(list(rows.values()), index, RATES, dtype=float).rename_axis(columns="lr")
