"""An SMTO or a sweep: what a sweep of weights can reach, what all SMTOs add to it, and which of the two is worth its
price."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mtl_core import smtos
from mtl_study import look
from mtl_study.analysis import fronts, inference
from mtl_study.analysis.fronts import FRONT, SWEEP
from mtl_study.look import label, problem_label
from mtl_study.plots import canvas, captions


def minima(loss: Callable[[np.ndarray], np.ndarray], shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two tasks with one parameter θ: the loss of θ − 1, and that of θ + 1.

    Returns:
        Both losses at the minimum of w · L₁ + (1 − w) · L₂ for each share w [n, 2], and the front itself [N, 2].
    """
    theta = np.linspace(-1, 1, 2001)
    front = np.stack([loss(theta - 1), loss(theta + 1)], axis=1)
    return front[[(w * front[:, 0] + (1 - w) * front[:, 1]).argmin() for w in shares]], front


def convex() -> np.ndarray:
    """What a sweep of weights can reach: all of a convex front, the ends of another one. Returns the axes [2]."""
    shares = np.linspace(0.02, 0.98, 25)
    _, axes = canvas.figure(8, 3.2, columns=2)
    losses: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "convex: L = x²": np.square,
        "not convex: L = 1 − exp(−x²)": lambda x: 1 - np.exp(-(x**2)),
    }
    for ax, (name, loss) in zip(axes, losses.items(), strict=True):
        found, front = minima(loss, shares)
        ax.plot(*front.T, color=look.FAINT, linewidth=3)
        ax.plot(*found.T, "o", color=look.BLUE, markersize=5)
        ax.set(xlabel="L₁ (to the left: better)", ylabel="L₂ (down: better)", title=name)
        canvas.despine(ax, grid=None)
    canvas.caption(axes, f"Grey: the front. Blue: where {len(shares)} different weights lead.")
    return axes


def hypervolume() -> Axes:
    """Four points, and the area that they dominate."""
    _, ax = canvas.figure(4.6, 3.2)
    points, corner = np.array([[1, 4], [2, 3], [4, 1], [1.5, 1.5]]), np.zeros(2)
    for x, y in points[fronts.nondominated(points)]:
        ax.fill_between([0, x], 0, y, color="#dbe9f4", linewidth=0)
    ax.plot(*points.T, "o", color=look.BLUE)
    ax.plot(*corner, "x", color=look.INK)
    ax.set(xlabel="task 1 (to the right: better)", ylabel="task 2 (up: better)", xlim=(-0.2, 5), ylim=(-0.2, 5))
    canvas.despine(ax, grid=None)
    area = fronts.hypervolume(points, corner)
    canvas.caption(ax, f"Four points dominate an area of {area:g} above the reference point (cross).")
    return ax


def contributions(added: Mapping[tuple[str, str], pd.DataFrame]) -> pd.DataFrame:
    """What all SMTOs together add to the hypervolume of the sweep, and what one of them, and a point of the sweep, do.

    Args:
        added: `fronts.hypervolume_contributions` by problem and what was measured.

    Returns:
        A row for each; the caption in `.attrs["caption"]`.
    """
    rows = {}
    for (problem, view), found in added.items():
        by_method = {str(smto): inference.t_interval(values) for smto, values in found.groupby("smto").added}
        single = {smto: interval for smto, interval in by_method.items() if smto not in ("all", SWEEP)}
        most, every = max(single, key=lambda smto: single[smto].mean, default=""), by_method["all"]
        rows[f"{problem_label(problem)}, {view}"] = {
            "all SMTOs": every.mean,
            "95 % interval": captions.interval(every.low, every.high, 1),
            "the most of one": single[most].mean if most else np.nan,
            "interval of that one": captions.interval(single[most].low, single[most].high, 1) if most else "–",
            "which": label(most) if most else "–",
            "a sweep point": by_method[SWEEP].mean,
            "n": every.n,
        }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("measured on")
    table.attrs["decimals"] = 1
    canvas.caption(
        table,
        "By how many percent the hypervolume of the sweep grows with all SMTOs, and with the one that adds most "
        "(chosen in hindsight). A sweep point: what one of its front adds to the rest, the median. Hypervolume "
        "above a point a tenth of the front's extent below its ends. Training losses: of the last epoch.",
    )
    return table


def answers(
    gains: Mapping[str, pd.DataFrame], names: Mapping[str, list[str]], prices: Mapping[str, Mapping[str, float]]
) -> pd.DataFrame:
    """An SMTO, or a sweep? Both chosen by validation, with what they reach and what they cost.

    Args:
        gains: `delta.selected` of the sweep and of all methods, by problem. names: the two tasks; prices: of a run by
            method, in runs of the uniform loss.

    Returns:
        A row per problem; the caption in `.attrs["caption"]`, the differences with their intervals in
        `.attrs["gaps"]`.
    """
    rows, gaps = {}, {}
    for problem, table in gains.items():
        swept = fronts.budget(table, names[problem], measure="delta_m", prices=prices[problem])
        of_sweep = swept[swept.smto == SWEEP].pivot(index="seed", columns="runs", values="value")
        smtos = table[~table.smto.isin(FRONT)]
        chosen = str(smtos.groupby("smto").val_delta_m.mean().idxmax())
        best = smtos[smtos.smto == chosen].set_index("seed").delta_m
        enough, runs = of_sweep.columns[of_sweep.mean() >= best.mean()], of_sweep.columns[-1]
        gap = gaps[problem_label(problem)] = inference.t_interval(best - of_sweep[runs])
        rows[problem_label(problem)] = {
            "best SMTO": label(chosen),
            "its price": prices[problem][chosen],
            "price of trying all": sum(prices[problem][smto] for smto in smtos.smto.unique()),
            "its Δm": best.mean(),
            "± its Δm": best.std(ddof=1),
            "runs of the sweep": runs,
            "Δm of its best": of_sweep[runs].mean(),
            "SMTO − sweep": gap.mean,
            "95 % interval": captions.interval(gap.low, gap.high),
            "runs that reach it": str(enough[0]) if len(enough) else "–",
        }
    found = pd.DataFrame.from_dict(rows, orient="index").rename_axis("problem")
    found.attrs["gaps"] = gaps
    found.attrs["decimals"] = {"its price": 1, "price of trying all": 0, "its Δm": 2, "± its Δm": 2} | {
        "Δm of its best": 2,
        "SMTO − sweep": 2,
    }
    canvas.caption(
        found,
        "Test Δm in percent, higher is better, of the SMTO and of the run of the sweep that are best on validation; "
        "prices in runs of the uniform loss. To choose the SMTO all of them were run. Differences are paired by seed. "
        "Runs that reach it: of the sweep, on average over all ways to choose so many.",
    )
    return found


def paces(table: pd.DataFrame) -> pd.DataFrame:
    """How long an epoch of each method takes, over one of the uniform loss at the same seed.

    Args:
        table: of `fronts.with_cost`, a row per method and seed, with seconds_per_epoch.

    Returns:
        A row per method, those that take longest first; the caption in `.attrs["caption"]`.
    """
    logs = np.log(table.pivot_table(index="seed", columns="smto", values="seconds_per_epoch"))
    times = logs.drop(columns="unit_scal").sub(logs["unit_scal"], axis=0)
    rows = {}
    for smto in times.mean().sort_values(ascending=False).index:
        mean, low, high, n = inference.t_interval(times[smto].dropna())
        ends = captions.interval(np.exp(low), np.exp(high))
        rows[label(str(smto))] = {"reads": smtos.get(str(smto)).space, "seeds": n, "× uniform loss": np.exp(mean)}
        rows[label(str(smto))] |= {"95 % interval": ends}
    found = pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")
    found.attrs["decimals"] = {"× uniform loss": 2}
    canvas.caption(
        found,
        "Seconds of an epoch over those of the uniform loss at the same seed: geometric mean; lower is better. Runs "
        "share their machine with others, so this is rough.",
    )
    return found
