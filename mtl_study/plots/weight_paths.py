"""Section 3.5 of the paper, the weights themselves: Figures 5 and 6, how fixed weights are taken from a run, and
whether weights settle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from mtl_study import look
from mtl_study.analysis import frames, task_weights
from mtl_study.analysis.fronts import FRONT
from mtl_study.analysis.task_weights import FEWEST
from mtl_study.experiments.runs import Run
from mtl_study.look import BLUE, GREEN, GREY, LOOK, ORANGE, PURPLE, SKY, VERMILION
from mtl_study.plots import canvas, captions
from mtl_study.plots.canvas import legend_right
from mtl_study.plots.forest import forest_plot, interval_words
from mtl_study.plots.qm9 import SIGNS
from mtl_study.plots.selection import box
from mtl_study.words import number, percent

TASK_HUES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
WEIGHTS = "Weights as the paper logs them, averaged over each epoch, normalised to sum 1."


def task_line(k: int) -> dict[str, Any]:
    """How the k-th task is drawn; a second round of the hues is dashed."""
    return {"color": TASK_HUES[k % 6], "linestyle": "-" if k < 6 else (0, (2.2, 1.2))}


def figure_5(
    source: pd.DataFrame,
    fixed: Mapping[float, pd.DataFrame],
    settings: pd.DataFrame | None = None,
) -> Axes:
    """Figure 5: Δm on QM9 of Nash-MTL, and of fixed weights taken from its runs at several learning rates.

    Args:
        source: `delta.selected` of the method that the weights were taken from. fixed: the same of fixed weights, by
            the learning rate of the run that they came from, in order of display. settings: for the caption.
    """
    _, ax = canvas.figure(1.6 + 1.25 * (len(fixed) + 1), 4)
    smto = str(source.smto.iloc[0])
    box(ax, 0, source.delta_m.dropna().to_numpy(), smto)
    for x, rows in enumerate(fixed.values(), 1):
        box(ax, x, rows.delta_m.dropna().to_numpy(), "fixed")
    ax.axhline(source.delta_m.median(), color=LOOK[smto].colour, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    ax.set_xticks(range(len(fixed) + 1), [look.label(smto), *(f"{lr:g}" for lr in fixed)])
    ax.set_xlabel(f"fixed weights: learning rate of the {look.label(smto)} run that they come from")
    ax.set_ylabel("Δm, % (higher is better)")
    every = pd.concat([source, *(rows.assign(smto=f"fixed {lr}") for lr, rows in fixed.items())])
    low, high = every.delta_m.min(), every.delta_m.max()
    if high + 0.3 * (high - low) > 0:  # where zero is near, it is shown
        canvas.zero_line(ax)
    canvas.despine(ax)
    rates = sorted({frames.setting(config, "lr") for rows in fixed.values() for config in rows.config})
    canvas.caption(
        ax,
        f"Δm of {captions.seeds(every)} each. Dashes: the median of {look.label(smto)} itself (D46). The fixed weights "
        f"are the last moving average of one {look.label(smto)} run and are trained at "
        f"{', '.join(f'{lr:g}' for lr in rates)} (D34).",
        captions.diverged(every[every.smto == smto]),
        captions.chosen(settings, [smto, "fixed"]),
    )
    return ax


def figure_6(mnist: Run, city: Run, qm9: Sequence[Run], factor: float = 0.9) -> list[Axes]:
    """Figure 6: weights over the epochs of training, faint, and their moving average, of one run each.

    Args:
        mnist, city: the runs of panels (a) and (b). qm9: of panel (c), a sub-panel each, sharing the upper axis.
        factor: of the moving average.

    Returns:
        The axes of (a), (b), and (c) from left to right.
    """
    import matplotlib.pyplot as plt

    width = max(len(qm9), 1)
    places: list[Any] = [["a"] * width + ["b"] * width, [f"c{i // 2}" for i in range(2 * width)]]
    _, found = plt.subplot_mosaic(places, figsize=(10, 6.4), layout="constrained")
    for name, run, letter in (("a", mnist, "(a)"), ("b", city, "(b)")):
        ax = found[name]
        names = draw_weights(ax, run, factor)
        ax.set_title(f"{letter} {_run_title(run)}", loc="left", fontsize=10)
        ax.set_ylabel("weight")
        ax.set_ylim(bottom=0)
        lines = [Line2D([], [], label=t, linewidth=2, **task_line(k)) for k, t in enumerate(names)]
        place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": max(len(lines), 1)}
        canvas.legend(ax, handles=lines, fontsize=8.5, **place)
    panels = [found[f"c{i}"] for i in range(len(qm9))]
    names = []
    for ax, run in zip(panels, qm9, strict=True):
        names = draw_weights(ax, run, factor) or names
        ax.set_title(f"learning rate {run.config.lr:g}", loc="left", fontsize=9)
        ax.sharey(panels[0])
        if ax is not panels[0]:
            ax.tick_params(labelleft=False)
    if panels:
        panels[0].set_ylim(bottom=0)
        panels[0].set_ylabel("weight")
        panels[0].annotate(
            f"(c) {_run_title(qm9[0])}", (0, 1), xytext=(0, 20), xycoords="axes fraction", textcoords="offset points"
        )
        lines = [Line2D([], [], label=SIGNS.get(t, t), linewidth=2, **task_line(k)) for k, t in enumerate(names)]
        legend_right(panels[-1], handles=lines)
    axes = [found["a"], found["b"], *panels]
    canvas.caption(
        axes[0],
        f"One run each. {WEIGHTS} Faint: epoch by epoch; strong: their moving average with factor {factor:g}, whose "
        "last value becomes the fixed weight. Where it is level, the weights have settled; after ten epochs "
        f"the first still makes {percent(100 * factor**9, 0)} of it.",
    )
    return axes


def _run_title(run: Run) -> str:
    return f"{look.label(run.config.smto)} on {look.problem_label(run.config.problem)}"


def draw_weights(ax: Axes, run: Run, factor: float) -> list[str]:
    """Epoch means and moving average of every task's weight; returns the tasks."""
    weights = task_weights.by_epoch(task_weights.trajectories([run]))
    average = task_weights.ema(weights, factor)
    for k, name in enumerate(weights):
        line = task_line(k)
        ax.plot(weights.index + 1, weights[name], color=line["color"], linewidth=1, alpha=0.4)
        ax.plot(weights.index + 1, average[name], linewidth=2, **line)
    canvas.counting_axis(ax)
    canvas.despine(ax)
    return list(weights)


def extraction(run: Run, factor: float = 0.9) -> np.ndarray:
    """How fixed weights are taken from a run, in four steps.

    Args:
        run: of a method with weights. factor: of the moving average.

    Returns:
        The axes [4]: epoch means, normalised, moving average, last epoch.

    Raises:
        ValueError: the method has no weights.
    """
    fixed = task_weights.fixed_weights(run, factor)
    names = list(fixed)
    normalised = task_weights.by_epoch(task_weights.trajectories([run]))
    raw = np.array([task_weights.epoch_weights(run.config.smto, record) for record in run.history])
    average = task_weights.ema(normalised, factor)
    _, axes = canvas.figure(12, 3.1, columns=4)
    titles = ["1 epoch means", "2 divided by their sum", f"3 moving average, {factor:g}", "4 its last value"]
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title, loc="left", fontsize=10)
        canvas.despine(ax)
    for k, name in enumerate(names):
        line = {"linewidth": 1.6, **task_line(k)}
        axes[0].plot(np.arange(1, len(raw) + 1), raw[:, k], **line)
        for ax, alpha in ((axes[1], 1.0), (axes[2], 0.25)):
            ax.plot(normalised.index + 1, normalised[name], alpha=alpha, **line)
        axes[2].plot(average.index + 1, average[name], **line)
        axes[3].barh(k, fixed[name], color=line["color"], alpha=0.8, hatch="///" if k > 5 else None, edgecolor="white")
        text = number(fixed[name], 3)
        axes[3].annotate(text, (fixed[name], k), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8)
    for ax in axes[:3]:
        canvas.counting_axis(ax)
    for ax in axes[1:3]:
        ax.set_ylim(0, max(1.05 * normalised.to_numpy().max(), 0.1))
    axes[3].set_yticks(range(len(names)), [SIGNS.get(t, t) for t in names])
    axes[3].set(ylim=(len(names) - 0.5, -0.5), xlim=(0, 1.3 * max(fixed.values())), xlabel="fixed weight")
    axes[0].set_ylabel("weight")
    canvas.caption(
        axes,
        f"{_run_title(run)}, seed {run.config.seed}. 1: the method's weights, averaged over each epoch. 2: divided by "
        f"their sum. 3: m(e) = {factor:g} m(e − 1) + {number(1 - factor, 2).rstrip('0')} w(e), from m(0) = w(0). 4: m "
        "of the last epoch, in the colours of the lines.",
    )
    return axes


def drift(table: pd.DataFrame) -> Axes:
    """Do weights settle? Their speed in the last third of training over that in the first, per method.

    Args:
        table: of `task_weights.drift`, of one or several problems.
    """
    ax = forest_plot(table, "log_ratio")
    ax.axvline(0, color=GREY, linewidth=1, zorder=1)
    low, high = ax.get_xlim()
    powers = np.arange(np.floor(low / np.log(2)), np.ceil(high / np.log(2)) + 1)
    powers = powers[:: max(1, len(powers) // 9)]
    labels = [f"{2**p:g}" if p >= 0 else f"1/{2**-p:g}" for p in powers]
    ax.set_xticks(powers * np.log(2), labels)
    ax.set_xlim(low, high)
    ax.set_xlabel("speed in the last third over speed in the first (to the left: the weights settle)")
    counted = table[np.isfinite(table.log_ratio)]
    dropped = [look.label(smto) for smto in look.in_order(set(table.smto) - set(counted.smto))]
    short = [look.problem_label(p) for p in look.problems_in_order(table.problem) if p not in set(counted.problem)]
    canvas.caption(
        ax,
        "How much the weights, normalised to sum 1, change from epoch to epoch, late over early.",
        interval_words(table, "log_ratio").replace("Mean", "Geometric mean"),
        "The step size falls, too.",
        f"Without a value: {', '.join(dropped)}." if dropped else "",
        f"Fewer than {FEWEST} epochs: {', '.join(short)}." if short else "",
    )
    return ax


def static(table: pd.DataFrame) -> Axes:
    """How constant the weights are over the last 80 % of training: their coefficient of variation, per method.

    Args:
        table: of `task_weights.static_cv`, of one or several problems.
    """
    table = table[~table.smto.isin(FRONT)]  # constant by definition
    known = table[np.isfinite(table.cv)]
    short = [look.problem_label(p) for p in look.problems_in_order(table.problem) if p not in set(known.problem)]
    without = [look.label(smto) for smto in look.in_order(set(table.smto) - set(known.smto))]
    ax = forest_plot(table, "cv", floor=0)
    ax.set_xlim(left=0)
    ax.set_xlabel("coefficient of variation of a weight (0: it is constant)")
    canvas.caption(
        ax,
        "Standard deviation over mean of each task's normalised weight over the last 80 % of training. Means over an "
        "epoch hide what happens within it: random weights count as nearly constant.",
        interval_words(table, "cv"),
        f"Without weights: {', '.join(without)}." if without else "",
        f"Fewer than {FEWEST} epochs: {', '.join(short)}." if short else "",
    )
    return ax
