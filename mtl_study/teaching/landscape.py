"""The two losses of two parameters on which CAGrad is introduced, and many walks over them at once.

    L₁ = c₁ (ln max(|½(−x₁ − 7) + tanh x₂|, κ) + 6) + c₂ (((x₁ − 7)² + 0.1 (x₂ + 8)²)/10 − 20)
    L₂ = c₁ (ln max(|½(3 − x₁) − tanh x₂ + 2|, κ) + 6) + c₂ (((x₁ + 7)² + 0.1 (x₂ + 8)²)/10 − 20)
    c₁ = max(tanh ½x₂, 0),  c₂ = max(−tanh ½x₂, 0),  κ = 5·10⁻⁶

Two curved valleys above x₂ = 0, two bowls below. The mean of both is least at (0, −8.355), with −15.0916.

    walks = walk(plan(["adam"], ["unit_scal"], [0.1, 1.0]), steps=1000)

With weights w and 1 − w on the losses, before the method sees them, the optimum is another point of the bottom.

Sources: Liu et al. 2021, arXiv:2110.14048, and its code (losses, starts, CAGrad's 1e-4); Elich et al. 2024,
arXiv:2311.04698 (the table of steps over step sizes); Senushkin et al. 2023, arXiv:2305.19000 (weights on the losses).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import joblib
import numpy as np
import pandas as pd
import yaml
from scipy.optimize import minimize

from mtl_core import progress
from mtl_study.teaching.two_tasks import Method, cagrad, pcgrad, unit_scal

KAPPA = 5e-6
STARTS = ((-8.5, 7.5), (-8.5, -5.0), (9.0, 9.0))  # of Liu et al.
BEST, LOWEST = (0.0, -8.3551), -15.0916  # of the mean of both losses
REACHED = -15.0  # a walk has arrived once the mean loss is below; the line that gives the published numbers under Adam
NEAR = 0.5  # with weights on the losses, once it is as near to their optimum
RATES = (10.0, 5.0, 1.0, 0.5, 0.1, 0.05, 0.01, 0.005, 0.001)
BETAS, ADAMS_EPSILON = (0.9, 0.999), 1e-8
PLAN = ["optimizer", "method", "lr", "start"]
METHODS: dict[str, Method] = {"unit_scal": unit_scal, "pcgrad": pcgrad, "cagrad": cagrad}


def losses(x: np.ndarray) -> np.ndarray:
    """Points [..., 2] to losses [..., 2], in the points' precision."""
    return _parts(x)[0]


def gradients(x: np.ndarray) -> np.ndarray:
    """Points [..., 2] to the gradient of each loss [..., 2, 2], rows are losses. Where a valley is clamped, by κ, its
    logarithm has none; on the line x₂ = 0 both gates have their slope, as in the released code."""
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
            np.where(x2 >= 0, slope_of_gate, 0) * a
            + above * inverse * sign * (1 - bend * bend)
            - np.where(x2 <= 0, slope_of_gate, 0) * p
            + below * (x2 + 8) / 50
        )
        found.append(a * above + p * below)
        rows.append(np.stack([along_1, along_2], axis=-1))
    return np.stack(found, axis=-1), np.stack(rows, axis=-2)


@cache
def optimum(weight: float) -> tuple[float, float]:
    """Where weight · L₁ + (1 − weight) · L₂ is least."""
    both = np.array([weight, 1 - weight])
    start = [7 * (2 * weight - 1), BEST[1]]
    x1, x2 = minimize(lambda x: (both @ losses(x), both @ gradients(x)), start, jac=True, tol=1e-10).x.tolist()
    return x1, x2


# -- walks -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Walks:
    """Where many walks led.

    plan: one row per walk: optimizer, method, lr, start (its number), what else it said, and steps until the walk had
    arrived (NaN: never): the mean loss below REACHED, with weights on the losses a point within NEAR of their optimum.
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
    return pd.DataFrame(rows, columns=PLAN)


def walk(
    plan: pd.DataFrame,
    steps: int,
    precision: str = "float64",
    starts: Sequence[tuple[float, float]] = STARTS,
    keep: Iterable[int] = (),
    perturbed: float = 0.0,
    methods: Mapping[str, Method] = METHODS,
) -> Walks:
    """All walks of a plan side by side; each ends where it arrives.

    Args:
        plan: as of `plan`; with a column `weight`, the weights on the losses are that and 1 minus it; with a column
        `c`, methods are given that, too.
        steps: at most so many. precision: "float32", in which the papers computed, or "float64"; weights of the methods
        are always computed in the latter. keep: steps at which the points are kept. perturbed: is added to both
        coordinates of every start, relative to it. methods: those that the plan names.
    """
    dtype, kept = np.dtype(precision), np.array(sorted({0, *keep, steps}))
    N, at = len(plan), np.arange(len(plan))  # at: which walks are still under way
    x = (np.asarray(starts)[plan.start] * (1 + perturbed)).astype(dtype)
    rates, adam = plan.lr.to_numpy(), (plan.optimizer == "adam").to_numpy()
    names, weighted = plan.method.to_numpy(), "weight" in plan
    first = plan.weight.to_numpy() if weighted else np.ones(N)
    factors = np.stack([first, 1 - first if weighted else first], axis=-1).astype(dtype)[..., None]
    told = [plan.c.to_numpy()] if "c" in plan else []  # to the methods, besides gradients
    goals = np.array([optimum(weight) for weight in first]) if weighted else np.zeros((N, 2))
    arrived, last, paths = np.full(N, np.nan), x.copy(), []
    mean, square = np.zeros_like(x), np.zeros_like(x)
    members = {name: names == name for name in plan.method.unique()}
    for step in range(steps + 1):
        found, G = _parts(x)
        there = ((x - goals) ** 2).sum(-1) < NEAR**2 if weighted else found.mean(-1, dtype=dtype) < REACHED
        if there.any():
            arrived[at[there]], last[at[there]] = step, x[there]
            go = ~there
            at, x, G, mean, square = at[go], x[go], G[go], mean[go], square[go]
            rates, adam, factors, goals, told = rates[go], adam[go], factors[go], goals[go], [c[go] for c in told]
            members = {name: own[go] for name, own in members.items()}
        if step in kept:
            last[at] = x
            paths.append(last.copy())
        if not len(at):
            break
        G, direction = G * factors, np.empty_like(x)
        for name, own in members.items():
            weights = methods[name](G[own], *(c[own] for c in told)).astype(dtype)
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


def in_precisions(walk: Callable[[str], Walks], precisions: Sequence[str]) -> dict[str, Walks]:
    """What `walk` gives for each precision, each in a process of its own: walks are bound by one core."""
    done = joblib.Parallel(n_jobs=len(precisions), return_as="generator")(map(joblib.delayed(walk), precisions))
    return dict(zip(precisions, progress.bar(done, total=len(precisions), desc="Walks"), strict=True))


def published() -> pd.DataFrame:
    """The steps that Elich et al. found, as `Walks.table` has them."""
    text = resources.files("mtl_study.paper").joinpath("data", "elich.yaml").read_text(encoding="utf-8")
    rows: dict[str, list[float | None]] = yaml.safe_load(text)["toy"]
    index = pd.MultiIndex.from_tuples([tuple(name.split()) for name in rows], names=["optimizer", "method"])
    return pd.DataFrame(list(rows.values()), index, RATES, dtype=float).rename_axis(columns="lr")
