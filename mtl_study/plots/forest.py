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

STROKES = 10  # up to so many seeds, each has its stroke


def draw_interval(ax: Axes, y: float, low: float, high: float, colour: ColorType) -> None:
    """The line of an interval; nothing where it has no bounds."""
    if np.isfinite([low, high]).all():
        ax.plot([low, high], [y, y], color=colour, linewidth=1.8, solid_capstyle="butt", zorder=2)


def draw_row(
    ax: Axes,
    y: float,
    values: Sequence[float] | pd.Series | np.ndarray,
    colour: ColorType,
    marker: str,
    floor: float = -np.inf,
    bounds: tuple[float, float] | None = None,
) -> None:
    """One row of a forest plot: mean, 95 % t interval, and a stroke per seed where they are few.

    Args:
        floor: the interval ends there, where it would reach lower. bounds: of another interval, to be drawn instead.
    """
    mean, low, high, n = inference.t_interval(values)
    low, high = bounds or (low, high)
    draw_interval(ax, y, max(low, floor) if np.isfinite(low) else low, high, colour)
    if n <= STROKES:
        ax.plot(values, np.full(len(values), y), "|", color=colour, markersize=8, alpha=0.55, zorder=2)
    ax.plot(mean, y, marker, color=colour, markersize=7, markeredgecolor="white", markeredgewidth=0.7, zorder=4)


def draw_middle(ax: Axes, y: float, values: pd.Series, dot: float, colour: ColorType, label: str | None = None) -> None:
    """Many values as one row: a line for the middle 95 % of them, thick for the middle half, and a dot."""
    low, lower, upper, high = values.quantile([0.025, 0.25, 0.75, 0.975])
    ax.plot([low, high], [y, y], color=colour, linewidth=1.5)
    ax.plot([lower, upper], [y, y], color=colour, linewidth=5, alpha=0.5)
    ax.plot(dot, y, "o", color=colour, markersize=5, label=label)


def forest_plot(table: pd.DataFrame, value: str, floor: float = -np.inf) -> Axes:
    """A forest plot of one column: a row per method; where there are several problems, one per method and problem."""
    table = table[np.isfinite(table[value])]
    smtos, problems = look.in_order(table.smto), look.problems_in_order(table.problem)
    several = len(problems) > 1
    rows = {key: found[value].to_numpy() for key, found in table.groupby(["smto", "problem"])}
    own = {smto: [problem for problem in problems if (smto, problem) in rows] for smto in smtos}
    gap = 0.7 if several else 0.0  # between methods
    height = len(rows) + gap * max(len(smtos) - 1, 0)
    _, ax = canvas.figure(7.5, 1.3 + (0.16 if several else 0.34) * height)
    y, ticks = 0.0, list[float]()
    for smto in smtos:
        for place, problem in enumerate(own[smto]):
            drawn = canvas.problem_line(problem)
            colour, marker = (drawn["color"], drawn["marker"]) if several else (LOOK[smto].colour, LOOK[smto].marker)
            draw_row(ax, y + place, rows[smto, problem], colour, marker, floor)
        ticks.append(y + (len(own[smto]) - 1) / 2)
        y += len(own[smto]) + gap
    ax.set_yticks(ticks, [look.label(s) for s in smtos])
    ax.set_ylim(height - 0.4, -0.6)
    if several:
        for drawn in map(canvas.problem_line, problems):
            ax.plot([], [], drawn["marker"], color=drawn["color"], label=drawn["label"])
        canvas.legend_above(ax, ncols=2)
    canvas.despine(ax, grid="x")
    return ax


def interval_words(table: pd.DataFrame, value: str) -> str:
    table = table[np.isfinite(table[value])]
    few = table.groupby(["problem", "smto"]).size().min() <= STROKES if len(table) else False
    return f"Mean of {captions.seeds(table)} and interval{'; small strokes: the seeds' if few else ''}."
