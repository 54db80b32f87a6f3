"""Figures of notebook 08 that rest on runs: how unbalanced gradients are, real steps, gates, and equal c."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mtl_study.analysis.gates import BEST
from mtl_study.experiments.gates import MEASURES
from mtl_study.look import BLUE, FAINT, GREY, INK, LOOK, ORANGE, VERMILION, in_order, label, problem_label
from mtl_study.plots import canvas
from mtl_study.plots.forest import draw_middle, draw_row

NEED = {"ratio": (VERMILION, "o"), "cosine": (BLUE, "s"), "random": (GREY, "^")}  # colour, marker
NEEDS = {"ratio": "least balanced", "cosine": "most in conflict", "random": "at random"}  # the steps that it takes
MARGIN = 2.0  # points within which two methods count as the same


def ratios(tables: Mapping[str, pd.DataFrame], factors: Sequence[float]) -> np.ndarray:
    """The ratio r of the longest to the shortest task gradient over all looks, by problem: as it is, with the last
    task's loss times each factor, and with one constant per task.

    Args:
        tables: `analysis.ratios.of_run` of all runs, by problem.
    """
    scaled = [f"times {factor:g}" for factor in factors]
    shown = {"ratio": "as it is", **{f: f"last loss × {f.split()[1]}" for f in scaled}, "left": "best units"}
    colours = {"ratio": INK, **dict.fromkeys(scaled, BLUE), "left": VERMILION}
    _, axes = canvas.grid_of_axes(1, [1] * len(tables), 3.1 * len(tables) + 0.6, 0.36 * len(shown) + 1.2)
    for ax, (problem, table) in zip(axes.flat, tables.items(), strict=True):
        for row, column in enumerate(shown):
            draw_middle(ax, row, table[column], table[column].median(), colours[column])
        ax.axvline(2, color=GREY, linewidth=0.8, linestyle="--")
        ax.set_xscale("log")
        canvas.plain_log_ticks(ax.xaxis)
        ax.set_yticks(range(len(shown)), shown.values() if ax is axes.flat[0] else [])
        ax.set_ylim(len(shown) - 0.5, -0.5)
        ax.set_title(problem_label(problem), fontsize=9.5)
        ax.set_xlabel("longest over shortest gradient")
        canvas.despine(ax, "x")
    canvas.caption(
        axes,
        "The longest over the shortest task gradient on a batch, under the uniform loss and Adam. Line: the middle 95 "
        "% of all looks, thick: half, dot: median; dashed: 2. Blue: the last task's loss in another unit. Orange: each "
        "loss times the one constant that makes their mean log lengths equal.",
    )
    return axes


def failures(per_run: pd.DataFrame) -> np.ndarray:
    """How often directions and real steps hurt a task, and what is left of a direction in a step, by method.

    Args:
        per_run: `analysis.strides.per_run`.
    """
    methods = in_order(per_run.smto)
    _, axes = canvas.grid_of_axes(1, [1.5, 1], 9.0, 0.36 * len(methods) + 1.3)
    left, right = axes.flat
    for row, smto in enumerate(methods):
        rows = per_run[per_run.smto == smto]
        for offset, column, colour in ((-0.17, "asked", FAINT), (0.17, "moved", VERMILION)):
            said = {"asked": "the direction asked for", "moved": "the step that Adam makes"}[column]
            name = said if row == 0 else None
            left.barh(row + offset, 100 * rows[column].mean(), 0.3, color=colour, alpha=0.8, label=name)
            canvas.dots(left, 100 * rows[column], [row + offset] * len(rows), INK, "o", "y", size=2)
        canvas.strip(right, row, rows.share, LOOK[smto].colour, LOOK[smto].marker)
    for ax in axes.flat:
        ax.set_yticks(range(len(methods)), [label(smto) for smto in methods] if ax is left else [])
        ax.set_ylim(len(methods) - 0.5, -0.5)
        ax.set_xlim(left=0)
        canvas.despine(ax, "x")
    left.set_xlabel("looks at which a task is hurt, %")
    canvas.legend_above(left, ncols=2)
    right.set_xlim(0, 1)
    right.set_xlabel("cosine of direction and step")
    canvas.caption(
        axes,
        "Left: the share of looks at which a task's gradient has a negative inner product with the method's direction "
        "(grey), and with the step that Adam makes of it (orange); bars: means, dots: seeds. Right: the cosine between "
        "direction and step; 1 is gradient descent. CAGrad and IMGrad have the same c.",
    )
    return axes


def progress(per_run: pd.DataFrame) -> np.ndarray:
    """Δm over the gap between the tasks' progress and over how much their gradients conflict: a small mark per run, a
    large one per method.

    Args:
        per_run: `analysis.strides.per_run` with delta_m.
    """
    methods = in_order(per_run.smto)
    _, axes = canvas.grid_of_axes(1, [1, 1], 9.5, 3.6)
    for ax, column in zip(axes.flat, ("gap", "cosine"), strict=True):
        for smto in methods:
            rows = per_run[per_run.smto == smto]
            _, colour, _, marker = LOOK[smto]
            ax.plot(rows[column], rows.delta_m, marker, color=colour, markersize=3, alpha=0.35)
            ax.plot(rows[column].mean(), rows.delta_m.mean(), marker, color=colour, markersize=8)
        ax.set_ylabel("Δm, % (higher is better)" if column == "gap" else "")
        canvas.despine(ax)
    axes.flat[0].set_xlabel("gap between the tasks' progress")
    axes.flat[1].set_xlabel("mean cosine of the tasks' gradients")
    means, colours = per_run.groupby("smto").mean(numeric_only=True), [LOOK[smto].colour for smto in methods]
    for ax, column in zip(axes.flat, ("gap", "cosine"), strict=True):
        points = [(means[column][smto], means.delta_m[smto]) for smto in methods]
        canvas.label_points(ax, points, [label(smto) for smto in methods], colours, fontsize=8)
    canvas.caption(
        axes,
        "Δm of every run; larger, the mean of a method. Left: over the gap in progress, the largest minus the smallest "
        "of loss over first loss, last third of the epochs (0: all tasks have come as far). Right: over the mean "
        "cosine between two tasks' gradients (below 0: conflict).",
    )
    return axes


def gates(per_seed: pd.DataFrame, duties: Sequence[float], levels: Mapping[str, float]) -> np.ndarray:
    """Δm behind gates of equal duty by what opens them, and the paired differences.

    Args:
        per_seed: `analysis.gates.by_duty`. levels: Δm without a gate, by name, for lines.
    """
    _, axes = canvas.grid_of_axes(1, [1, 1], 9.5, 3.6)
    left, right = axes.flat
    for place, duty in enumerate(duties):
        for j, by in enumerate(MEASURES):
            colour, marker = NEED[by]
            values = per_seed[f"{by} {duty:g}"]
            said = NEEDS[by] if place == 0 else None
            canvas.strip(left, place + 0.2 * (j - 1), values, colour, marker, upright=True, half=0.07, label=said)
    for (name, level), style in zip(levels.items(), ("--", ":", "-."), strict=False):
        left.axhline(level, color=INK, linewidth=0.9, linestyle=style, label=name)
    left.set_xticks(range(len(duties)), [f"{100 * duty:g} %" for duty in duties])
    left.set_xlabel("share of the steps")
    left.set_ylabel("Δm, % (higher is better)")
    canvas.legend(left, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3)
    canvas.despine(left)
    pairs = [(duty, other) for duty in duties for other in ("random", "cosine")]
    names = []
    for row, (duty, other) in enumerate(pairs):
        values = per_seed[f"ratio {duty:g}"] - per_seed[f"{other} {duty:g}"]
        names.append(f"{100 * duty:g} %: minus {NEEDS[other]}")
        draw_row(right, row, values, NEED[other][0], "D")
    _differences(right, names, "gain in Δm, points (to the right: better)")
    canvas.caption(
        axes,
        "The method acts in the given share of the steps, elsewhere the mean loss does. Left: Δm, a mark per seed, a "
        "bar for the mean; lines: without a gate. Right: Δm behind the first gate minus that behind another at the "
        "same seed; to the right of 0 it is better to act where gradients are least balanced.",
    )
    return axes


def _differences(ax: Axes, names: Sequence[str], says: str) -> None:
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlabel(says)
    canvas.zero_line(ax, "x")
    canvas.despine(ax, "x")


def equal_radii(table: pd.DataFrame) -> np.ndarray:
    """IMGrad minus CAGrad in Δm, by problem: at every c, and each at its best.

    Args:
        table: `analysis.gates.apart`.
    """
    problems = list(dict.fromkeys(table.problem))
    values = [*sorted({c for c in table.c if c != BEST}), BEST]
    _, axes = canvas.grid_of_axes(1, [1] * len(problems), 4.4 * len(problems) + 0.4, 0.5 * len(values) + 1.2)
    for ax, problem in zip(axes.flat, problems, strict=True):
        ax.axvspan(-MARGIN, MARGIN, color=canvas.SHADED, zorder=0)
        for row, c in enumerate(values):
            rows = table[(table.problem == problem) & (table.c == c)]
            draw_row(ax, row, rows.difference, ORANGE if c == BEST else BLUE, "D")
        names = [f"c = {c:g}" if c != BEST else "each at its best c" for c in values]
        _differences(
            ax,
            names if ax is axes.flat[0] else [""] * len(names),
            "IMGrad minus CAGrad, points of Δm\n(to the right: IMGrad is better)",
        )
        ax.set_title(problem_label(problem), fontsize=9.5)
    canvas.caption(
        axes,
        "The difference in Δm at the same seed, a stroke each, with mean and interval; right of 0 IMGrad is better. "
        f"Shaded: ±{MARGIN:g} points, within which the two count as the same. Best c: by mean validation Δm.",
    )
    return axes
