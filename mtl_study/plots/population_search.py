"""How a population looks for weights: its members, or the path of the winner."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mtl_study import look
from mtl_study.experiments.population import Member, Population, Winner
from mtl_study.look import FAINT, GREY, INK, VERMILION
from mtl_study.plots import canvas
from mtl_study.plots.canvas import legend_right
from mtl_study.plots.qm9 import SIGNS
from mtl_study.plots.weight_paths import task_line
from mtl_study.words import counted, number


def population(population: Population) -> Axes:
    """How a population looks for weights: each member's share of the first task, and who took over from whom.

    With more than two tasks: the weights of the winner and of those that it came from, epoch by epoch.

    Args:
        population: a record of `population.populations`.
    """
    config, members, best = population.config, population.members, population.best
    tasks = [task.name for task in config.base.definition.tasks]
    _, ax = canvas.figure(8.5, 4)
    if len(tasks) == 2:
        _members(ax, members, best, tasks[0])
    else:
        _winner(ax, members, best, tasks)
    canvas.counting_axis(ax)
    canvas.despine(ax)
    took = sum(parent is not None for member in members for parent in member.parent)
    every = "epoch" if config.exploit_interval == 1 else f"{config.exploit_interval} epochs"
    how = (
        f"every {every} the worst {100 * config.quantile:g} % take over one of the best and change its weights a "
        f"little ({counted(took, 'time')} in all)"
    )
    copied = "Dotted: from the member that was copied. " if took else ""
    score = "" if best is None else f" (validation Δm {number(best.score, 1)} % after epoch {best.epoch + 1})"
    canvas.caption(
        ax,
        f"{len(members)} members on {look.problem_label(config.base.problem)}; {how}.",
        f"A line per member; brighter: better validation Δm. {copied}Star: the winner{score}."
        if len(tasks) == 2
        else f"The normalised weights of the winner{score} and of its forebears. Dotted verticals: where it took over.",
        f"Dashes: equal weights. {population.epochs_trained:,} epochs in all.",
    )
    return ax


def _members(ax: Axes, members: Sequence[Member], best: Winner | None, task: str) -> None:
    scores = np.array([[np.nan if s is None else s for s in member.score] for member in members], dtype=float)
    rank = pd.DataFrame(scores).rank(axis=0, pct=True).to_numpy()  # 1: the best of its epoch
    colours = mpl.colormaps["viridis"]
    shares = [np.array([w[0] / sum(w) for w in member.weights]) for member in members]
    for i, (member, share) in enumerate(zip(members, shares, strict=True)):
        for e in range(len(share)):
            colour = FAINT if np.isnan(rank[i, e]) else colours(0.92 * rank[i, e])
            parent = member.parent[e]
            if parent is None:
                ax.plot([max(e, 0.5), e + 1], [share[max(e - 1, 0)], share[e]], color=colour, linewidth=1.6, zorder=2)
            else:
                lineage = [shares[parent][e - 1], share[e]]
                ax.plot([e, e + 1], lineage, color=GREY, linewidth=1, linestyle=(0, (1, 1.2)), zorder=1)
            ax.plot(e + 1, share[e], "o", color=colour, markersize=3.2, zorder=3)
    if best is not None:
        at = best.weights[0] / sum(best.weights)
        ax.plot(best.epoch + 1, at, "*", color=VERMILION, markersize=15, markeredgecolor="white", zorder=5)
    ax.axhline(0.5, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    ax.set_ylim(0, 1)
    ax.set_ylabel(f"weight of {task}")
    bar = canvas.figure_of(ax).colorbar(mpl.cm.ScalarMappable(cmap=colours), ax=ax, ticks=[0, 1], shrink=0.8)
    bar.ax.set_yticklabels(["worst", "best"])
    bar.set_label("validation Δm within the epoch")
    bar.outline.set_visible(False)


def _winner(ax: Axes, members: Sequence[Member], best: Winner | None, tasks: Sequence[str]) -> None:
    if best is None:
        return
    member, path, taken = best.member, [], []
    for epoch in range(best.epoch, -1, -1):
        path.append(members[member].weights[epoch])
        if (parent := members[member].parent[epoch]) is not None:
            taken.append(epoch + 0.5)
            member = parent
    weights = np.array(path[::-1])
    weights = weights / weights.sum(axis=1, keepdims=True)
    for k, task in enumerate(tasks):
        ax.plot(np.arange(1, len(weights) + 1), weights[:, k], label=SIGNS.get(task, task), linewidth=2, **task_line(k))
    for at in taken:
        ax.axvline(at, color=GREY, linewidth=1, linestyle=(0, (1, 1.5)), zorder=1)
    ax.axhline(1 / len(tasks), color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    ax.set_ylim(bottom=0)
    ax.set_ylabel("weight of the winner")
    legend_right(ax)
