"""Forest plots: a row per method, with its mean, its interval and a stroke per seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.typing import ColorType

from mtl_study import look
from mtl_study.analysis import inference
from mtl_study.look import LOOK
from mtl_study.plots import canvas, captions
from mtl_study.plots.canvas import FEW


def draw_row(
    ax: Axes,
    y: float,
    values: Sequence[float] | pd.Series | np.ndarray,
    colour: ColorType,
    marker: str,
    floor: float = -np.inf,
) -> None:
    """One row of a forest plot: mean, 95 % t interval, and a stroke per seed where they are few."""
    mean, low, high, n = inference.t_interval(values)
    if n > 1:
        ax.plot([max(low, floor), high], [y, y], color=colour, linewidth=1.8, solid_capstyle="butt", zorder=2)
    if n <= FEW:
        ax.plot(values, np.full(len(values), y), "|", color=colour, markersize=8, alpha=0.55, zorder=2)
    ax.plot(mean, y, marker, color=colour, markersize=7, markeredgecolor="white", markeredgewidth=0.7, zorder=4)


def forest_plot(table: pd.DataFrame, value: str, floor: float = -np.inf) -> Axes:
    """A forest plot of one column: a row per method, in it a marker per problem where there are several."""
    table = table[np.isfinite(table[value])]
    smtos, problems = look.in_order(table.smto), look.problems_in_order(table.problem)
    _, ax = canvas.figure(7.5, 1.3 + 0.24 * len(smtos) * max(len(problems), 1.4))
    step = 0.62 / max(len(problems), 1)
    for i, problem in enumerate(problems):
        of_problem = canvas.problem_line(problem)
        for y, smto in enumerate(smtos):
            values = table[(table.problem == problem) & (table.smto == smto)][value].to_numpy()
            one = len(problems) == 1
            colour, marker = (
                (LOOK[smto].colour, LOOK[smto].marker) if one else (of_problem["color"], of_problem["marker"])
            )
            if len(values):
                draw_row(ax, y + step * (i - (len(problems) - 1) / 2), values, colour, marker, floor)
        if len(problems) > 1:
            ax.plot([], [], of_problem["marker"], color=of_problem["color"], label=of_problem["label"])
    ax.set_yticks(range(len(smtos)), [look.label(s) for s in smtos])
    ax.set_ylim(len(smtos) - 0.4, -0.6)
    if len(problems) > 1:
        ax.legend(frameon=False, fontsize=8.5, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    canvas.despine(ax, grid="x")
    return ax


def interval_words(table: pd.DataFrame, value: str) -> str:
    table = table[np.isfinite(table[value])]
    few = table.groupby(["problem", "smto"]).size().min() <= FEW if len(table) else False
    return f"Mean over {captions.seeds(table)} and 95 % t interval{'; the small strokes are the seeds' if few else ''}."
