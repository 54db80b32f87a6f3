"""How long methods take to reach what the uniform loss ends with."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mtl_study import look
from mtl_study.analysis import targets
from mtl_study.look import label, problem_label
from mtl_study.plots import canvas, captions

UNITS = {"epochs": "share", "steps": "share_of_steps", "seconds": "share_of_seconds"}


def times(table: pd.DataFrame, by: targets.Unit = "epochs") -> Axes:
    """How long every run of one problem takes to its target, in units of the uniform loss's time: a dot per seed, a bar
    at the median. Runs that end without it are drawn at the right edge.

    Args:
        table: `targets.to_target` of one problem, or those rows of it that are to be shown.
    """
    table = table[table.smto != targets.UNIFORM].dropna(subset="target")
    smtos = look.in_order(table.smto)
    column = UNITS[by]
    finite = table[column][np.isfinite(table[column])]
    edge = 1.25 * max(finite.max() if len(finite) else 1.0, 1.0)
    _, ax = canvas.figure(7, 0.9 + 0.3 * max(len(smtos), 1))
    for place, smto in enumerate(smtos):
        values = table[table.smto == smto][column].to_numpy()
        at = np.where(np.isfinite(values), values, edge)
        apart = place + np.linspace(-0.2, 0.2, len(at)) if len(at) > 1 else [place]  # seeds side by side
        canvas.dots(ax, at, apart, look.LOOK[smto].colour, look.LOOK[smto].marker, "y", size=5)
        ax.plot(np.quantile(at, 0.5, method="higher"), place, "|", color=look.INK, markersize=14, zorder=4)
    ax.axvline(1, color=look.INK, linestyle="--", linewidth=1)
    ax.axvline(edge, color=look.FAINT, linewidth=1)
    ax.set_yticks(range(len(smtos)), [label(smto) for smto in smtos])
    ax.set_ylim(len(smtos) - 0.5, -0.5)
    ax.set_xlim(0, 1.05 * edge)
    ticks = [tick for tick in ax.get_xticks() if 0 <= tick < 0.94 * edge]
    ax.set_xticks([*ticks, edge], [*(f"{tick:g}" for tick in ticks), "not\nreached"])
    ax.set_xlabel(f"{by} to the uniform loss's best validation Δm, in units of its own (to the left: faster)")
    canvas.despine(ax, grid="x")
    seeds = captions.seeds(table) if len(table) else "no seeds"
    canvas.caption(
        ax,
        f"{_on(table)}{seeds}, each a dot; bar: the median. The dashed line: the uniform loss with the same settings "
        "and seed. A run that never reaches what it ends with is drawn on the right.",
        _paced(by),
    )
    return ax


def profile(table: pd.DataFrame, by: targets.Unit = "epochs", ax: Axes | None = None) -> Axes:
    """The performance profile of all methods over problems; the legend gives their scores.

    Args:
        table: `targets.to_target` of several problems, one configuration per method and problem.
    """
    shares, scores = targets.profile(table, by), targets.scores(table, by)
    ax = canvas.figure(7.5, 3.8)[1] if ax is None else ax
    for smto in look.in_order(shares.columns):
        style = look.line(smto) | {"marker": "", "linewidth": 2.2 if smto == targets.UNIFORM else 1.6}
        style["label"] = f"{label(smto)} {scores[smto]:.2f}"
        ax.step(shares.index, shares[smto], where="post", **style)
    ax.set(xlim=(1, shares.index[-1]), ylim=(-0.03, 1.03))
    ax.set_xlabel("τ: times as long as the fastest method")
    ax.set_ylabel("share of problems (higher is better)")
    canvas.legend_right(ax)
    canvas.despine(ax)
    names = ", ".join(problem_label(problem) for problem in look.problems_in_order(table.problem))
    canvas.caption(
        ax,
        f"{names}: for every τ the share of problems on which a method reaches its target in at most τ times the "
        f"fastest method's {by}. A method's time: the median of {captions.seeds(table)}, over the uniform loss's at "
        "equal settings. In the legend: the share of the area that is under the line.",
        _paced(by),
    )
    return ax


def _on(table: pd.DataFrame) -> str:
    names = [problem_label(problem) for problem in table.problem.unique()]
    return f"{', '.join(names)}, " if names else ""


def _paced(by: targets.Unit) -> str:
    return "Seconds as recorded, while other work ran: read them roughly." if by == "seconds" else ""
