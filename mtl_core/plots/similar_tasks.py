"""Section 3.2 of the paper, two similar tasks, and what the gradients were doing: Figures 2, 3(a) and 7."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mtl_core import metrics, paper
from mtl_core.plots import look
from mtl_core.plots.look import GREY, INK, LOOK
from mtl_core.plots.selection import FEW, box

# -- Figure 2 ----------------------------------------------------------------------------------------------------------


def figure_2(
    selected: pd.DataFrame,
    runs: Iterable[Any],
    problems: Sequence[str] | None = None,
    settings: pd.DataFrame | None = None,
) -> np.ndarray:
    """Figure 2: a row per problem; to the left the boxes of Δm, to the right |w₁ − ½| per epoch.

    Args:
        selected: of these problems. runs: the records behind it. problems: a row each; by default those in the table.
        settings: of the experiments, for the caption.
    """
    problems = list(selected.problem.unique()) if problems is None else list(problems)
    distances = metrics.distance_from_equal(runs)
    figure, axes = look.grid_of_axes(len(problems), [65, 35], 9.5, 3.3)
    shown: list[str] = []
    for (left, right), problem in zip(axes, problems, strict=True):
        _boxes(left, selected[selected.problem == problem])
        left.set_title(look.PROBLEMS[problem][0], loc="left", fontsize=10)
        shown += _curves(right, distances[(distances.problem == problem) & (distances.smto != "unit_scal")])
    axes[-1, 1].set_xlabel("epoch")
    lines = [look.legend_entry(smto) for smto in look.in_order(shown)]
    figure.legend(handles=lines, loc="outside right center", frameon=False, fontsize=8.5, title="weights of")
    few = selected.seed.nunique() <= FEW
    look.caption(
        axes,
        f"Left: test Δm of {look.seeds(selected)} per method at the epoch with the best validation Δm, as boxes",
        "with a dot per seed;" if few else "(whiskers: 1.5 box lengths);",
        "black dashes: the median of Unit. Scal.; grey, where it is near: the single-task models.",
        "Right: how far the first task's weight, averaged over each epoch and normalised to sum 1, is from ½: mean "
        "over the seeds and ± 1 standard deviation. RotoGrad has no weights.",
        look.diverged(selected),
        look.A_SEED,
        look.chosen(settings),
    )
    return axes


def _boxes(ax: Axes, selected: pd.DataFrame) -> None:
    values = metrics.by_seed(selected)
    smtos = look.in_order(values.columns)
    for x, smto in enumerate(smtos):
        box(ax, x, values[smto].dropna().to_numpy(), smto)
    if "unit_scal" in smtos:
        ax.axhline(values["unit_scal"].median(), color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    low, high = np.nanmin(values), np.nanmax(values)
    if high + 0.3 * (high - low) > 0:  # where zero is near, it is shown
        look.zero_line(ax)
    ax.set_xticks(range(len(smtos)), [look.label(s) for s in smtos], rotation=35, ha="right", rotation_mode="anchor")
    ax.set_xlim(-0.7, len(smtos) - 0.3)
    ax.set_ylabel("Δm, % (higher is better)")
    look.dress(ax)


def _curves(ax: Axes, distances: pd.DataFrame) -> list[str]:
    """One line per method, mean over seeds, in a band of ± 1 sd; returns the methods drawn."""
    smtos = look.in_order(distances.smto)
    for smto in smtos:
        over_seeds = distances[distances.smto == smto].groupby("epoch")["distance"]
        mean, sd = over_seeds.mean(), over_seeds.std(ddof=1).fillna(0)
        every = max(1, len(mean) // 6)
        ax.plot(mean.index, mean, linewidth=1.5, markersize=4.5, markevery=every, **look.line(smto))
        ax.fill_between(mean.index, (mean - sd).clip(lower=0), mean + sd, color=LOOK[smto].colour, alpha=0.12, lw=0)
    ax.set_ylabel("|w₁ − ½|")
    ax.set_ylim(bottom=0)
    look.dress(ax)
    return smtos


def weight_distances(per_run: pd.DataFrame, ax: Axes | None = None, near: float | None = None) -> Axes:
    """Do weights stay near ½ unless the tasks differ? Per method and problem the mean |w₁ − ½| over training.

    Args:
        per_run: `metrics.per_run` of the runs of several problems. near: draws the band that counts as near ½.
    """
    table = per_run.dropna(subset=["weight_distance"])
    table = table[~table.smto.isin(["unit_scal", "fixed"])]
    smtos, problems = look.in_order(table.smto), [p for p in look.PROBLEMS if p in set(table.problem)]
    ax = ax or look.figure(7.5, 1.0 + 0.5 * len(smtos))[1]
    if near is not None:
        ax.axvspan(0, near, color="#eef3ee", zorder=0)
    step = 0.62 / max(len(problems), 1)
    for i, problem in enumerate(problems):
        style = look.problem_line(problem)
        for y, smto in enumerate(smtos):
            values = table[(table.problem == problem) & (table.smto == smto)].weight_distance
            if values.empty:
                continue
            at = y + step * (i - (len(problems) - 1) / 2)
            mean, low, high, n = metrics.t_interval(values)
            if n > 1:
                ax.plot([max(low, 0), high], [at, at], color=style["color"], linewidth=1.8, zorder=2)
            if n <= FEW:
                ax.plot(values, np.full(len(values), at), "|", color=style["color"], markersize=7, alpha=0.55, zorder=2)
            ax.plot(mean, at, style["marker"], color=style["color"], markersize=7, markeredgecolor="white", zorder=3)
        ax.plot([], [], style["marker"], color=style["color"], label=style["label"])
    ax.set_yticks(range(len(smtos)), [look.label(s) for s in smtos])
    ax.set_ylim(len(smtos) - 0.4, -0.6)
    ax.set_xlim(left=0)
    ax.set_xlabel("mean over epochs of |w₁ − ½| (0: the uniform loss, ½: one task alone)")
    ax.legend(frameon=False, fontsize=8.5, loc="lower left", bbox_to_anchor=(0, 1), ncols=max(len(problems), 1))
    look.dress(ax, grid="x")
    look.caption(
        ax,
        "How far from ½ the first task's normalised weight is, on average over training: mean over "
        f"{look.seeds(table)} and 95 % t interval.",
        "The small strokes are the seeds." if table.seed.nunique() <= FEW else "",
        f"Shaded: below {near:g}, what counts as near." if near is not None else "",
        look.A_SEED,
    )
    return ax


def diagnostic(runs: Iterable[Any], smto: str, name: str, words: str, ax: Axes | None = None) -> Axes:
    """What a method reports of itself, epoch by epoch, on each problem that it ran on.

    Args:
        name: of the diagnostic in the records. words: what it is, for the axis.
    """
    table = metrics.diagnostics(runs)
    table = table[(table.smto == smto) & (table.name == name)]
    ax = ax or look.figure(6.5, 3.2)[1]
    for problem in [p for p in look.PROBLEMS if p in set(table.problem)]:
        _band(ax, table[table.problem == problem], "epoch", "value", look.problem_line(problem))
    ax.set_xlabel("epoch")
    ax.set_ylabel(words)
    ax.legend(frameon=False, fontsize=8.5)
    look.dress(ax)
    look.caption(
        ax,
        f"{look.label(smto)}: {words}, epoch means; mean over {look.seeds(table)} and ± 1 standard deviation.",
        look.A_SEED,
    )
    return ax


# -- how the gradients lie: Figures 3(a) and 7 -------------------------------------------------------------------------


def figure_7(statistics: pd.DataFrame, space: str = "parameters", smto: str = "unit_scal") -> np.ndarray:
    """Figures 3(a) and 7, C during training, and beside it the pairwise cosine and the ratio of the lengths.

    Args:
        statistics: `metrics.gradient_statistics` of the runs of several problems. space: "parameters" (the paper's) or
            "features". smto: under which method; the paper's is the uniform loss.
    """
    table = statistics[(statistics.space == space) & (statistics.smto == smto)]
    figure, axes = look.figure(10.5, 3.5, columns=3)
    columns = ["cosine_to_mean", "pairwise_cosine", "norm_ratio"]
    problems = [p for p in look.PROBLEMS if p in set(table.problem)]
    where = "shared parameters" if space == "parameters" else "features"
    for ax, column in zip(axes, columns, strict=True):
        for problem in problems:
            _band(ax, table[table.problem == problem], "progress", column, look.problem_line(problem))
        ax.set_title(look.NAMES[column], loc="left", fontsize=10)
        ax.set_xlabel("training, %")
        look.dress(ax)
    for num_tasks in sorted(table.num_tasks.unique()):
        floor = metrics.cosine_floor(num_tasks)
        axes[0].axhline(floor, color=GREY, linewidth=1, linestyle=(0, (1, 1.5)), zorder=1)
        axes[0].annotate(
            f"1/√{num_tasks}: unrelated tasks", (1, floor), xycoords=("axes fraction", "data"), xytext=(-2, -3),
            textcoords="offset points", ha="right", va="top", fontsize=8, color="#555555",
            bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1},
        )  # fmt: skip
    axes[1].axhline(0, color=GREY, linewidth=1, linestyle=(0, (1, 1.5)), zorder=1)
    axes[2].axhline(1, color=GREY, linewidth=1, linestyle=(0, (1, 1.5)), zorder=1)
    axes[2].set_yscale("log")
    look.plain_log_ticks(axes[2].yaxis)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=max(len(problems), 1), frameon=False, fontsize=9)
    look.caption(
        axes,
        f"Task gradients on the {where} under {look.label(smto)}, at every hundredth step, averaged over each epoch: "
        f"mean over {look.seeds(table)} and ± 1 standard deviation.",
        "Left: the paper's metric, the mean cosine between each task's gradient and their average; dotted, what "
        "orthogonal gradients of equal length have. Middle: the mean cosine between pairs of tasks. Right: how much "
        "longer the longest gradient is than the shortest; unequal lengths alone lower C (D29).",
        look.A_SEED,
    )
    return axes


def _band(ax: Axes, table: pd.DataFrame, x: str, y: str, style: dict[str, Any]) -> None:
    over_seeds = table.groupby(x)[y]
    mean, sd = over_seeds.mean(), over_seeds.std(ddof=1).fillna(0)
    every = max(1, len(mean) // 6)
    ax.plot(mean.index, mean, linewidth=1.6, markersize=4.5, markevery=every, **style)
    ax.fill_between(mean.index, mean - sd, mean + sd, color=style["color"], alpha=0.15, lw=0)


def unrelated_tasks(tasks: Sequence[int] = (2, 3, 11), largest: float = 100.0) -> np.ndarray:
    """What C can be when nothing conflicts: a sweep over the number of tasks, the gradients' lengths and their angle.

    Args:
        tasks: K of each line. largest: ratio of the longest gradient to the shortest at the right end.
    """
    _, axes = look.figure(10, 3.8, columns=2)
    ratios = np.geomspace(1, largest, 60)
    _unrelated(axes[0], tasks, ratios)
    _two_tasks(axes[1], ratios)
    look.caption(
        axes,
        "Computed, not measured. Left: the paper's metric C of gradients that are all orthogonal to each other, so "
        "that no task helps or hinders another, with lengths evenly spaced on a logarithmic scale. It starts at 1/√K "
        "and falls as the lengths grow apart. Dotted: the values that the paper reports, with its numbers of tasks.",
        "Right: C of two tasks for every angle and ratio of lengths; along a line C is the same, although the angle is "
        "not.",
    )
    return axes


def unrelated_gramian(num_tasks: int, ratio: float, cosine: float = 0.0) -> np.ndarray:
    """Gramian [K, K] of gradients with one common pairwise cosine, lengths log-spaced from 1 to `ratio`.

    Raises:
        ValueError: K gradients cannot all have this cosine with each other (it is below −1/(K − 1)).
    """
    if not -1 / max(num_tasks - 1, 1) - 1e-12 <= cosine <= 1:
        raise ValueError(f"{num_tasks} gradients cannot all have cosine {cosine}: at least −1/(K − 1), at most 1.")
    norms = np.geomspace(1, ratio, num_tasks)
    return (np.full((num_tasks, num_tasks), cosine) + (1 - cosine) * np.eye(num_tasks)) * np.outer(norms, norms)


def _unrelated(ax: Axes, tasks: Sequence[int], ratios: np.ndarray) -> None:
    for num_tasks, place in zip(tasks, np.linspace(0.1, 0.8, len(tasks)), strict=True):
        c = [metrics.cosine_to_mean(unrelated_gramian(num_tasks, ratio)) for ratio in ratios]
        colour = mpl.colormaps["viridis"](place)
        ax.plot(ratios, c, color=colour, linewidth=2)
        ax.annotate(f"K = {num_tasks}", (ratios[0], c[0]), xytext=(2, 4), textcoords="offset points", color=colour)
    for name, words in [("cosine_high", "2 tasks"), ("cosine_middle", "3 tasks"), ("cosine_low", "11 tasks")]:
        value = paper.text(name).value
        ax.axhline(value, color=GREY, linewidth=1, linestyle=(0, (1, 1.5)), zorder=1)
        ax.annotate(
            f"paper: {words}", (1, value), xycoords=("axes fraction", "data"), xytext=(-2, 2),
            textcoords="offset points", ha="right", va="bottom", fontsize=8, color="#555555",
        )  # fmt: skip
    ax.set_xscale("log")
    look.plain_log_ticks(ax.xaxis)
    ax.set(xlabel="longest over shortest gradient", ylabel="C", ylim=(0, 0.85))
    ax.set_title("tasks that have nothing to do with each other", loc="left", fontsize=10)
    look.dress(ax)


def _two_tasks(ax: Axes, ratios: np.ndarray) -> None:
    angles, levels, at = np.linspace(0, 180, 181), np.linspace(0.2, 0.9, 8), len(ratios) // 2
    c = np.array(
        [[metrics.cosine_to_mean(unrelated_gramian(2, r, np.cos(np.radians(a)))) for r in ratios] for a in angles]
    )
    c[-1] = np.where(np.isnan(c[-1]), 0, c[-1])  # opposite gradients of equal length have no mean
    filled = ax.contourf(ratios, angles, c, levels=np.linspace(0, 1, 21), cmap="viridis")
    lines = ax.contour(ratios, angles, c, levels=levels, colors="white", linewidths=0.8)
    places = [(ratios[at], angles[np.abs(c[:, at] - level).argmin()]) for level in levels]
    ax.clabel(lines, fmt="%.1f", fontsize=8, manual=places, inline_spacing=2)
    ax.set_xscale("log")
    look.plain_log_ticks(ax.xaxis)
    ax.set(xlabel="longer over shorter gradient", ylabel="angle between them")
    ax.set_yticks([0, 45, 90, 135, 180], ["0°", "45°", "90°\nunrelated", "135°", "180°"])
    ax.set_title("C of two tasks", loc="left", fontsize=10)
    bar = look.figure_of(ax).colorbar(filled, ax=ax, ticks=np.linspace(0, 1, 6))
    bar.outline.set_visible(False)


def ranking(per_run: pd.DataFrame, selected: pd.DataFrame) -> pd.DataFrame:
    """Does C tell where SMTOs help? Per problem C, the pairwise cosine and 1/√K beside the gap SMTO − Unit. Scal.

    Args:
        per_run: `metrics.per_run`, of which the rows of Unit. Scal. count.
        selected: test gains on the same problems; the methods that all of them have are compared.

    Returns:
        One row per problem, then Spearman's correlation of each column with the mean gap. Caption in
        `.attrs["caption"]`.
    """
    problems = [p for p in look.PROBLEMS if p in set(selected.problem)]
    found = [set(selected[selected.problem == p].smto) for p in problems]
    shared = selected[selected.smto.isin(set.intersection(*found))]
    rows = {}
    for problem in problems:
        gaps = metrics.paired(shared[shared.problem == problem])["mean"]
        uniform = per_run[(per_run.problem == problem) & (per_run.smto == "unit_scal")]
        rows[look.problem_label(problem)] = {
            "C": uniform.cosine_to_mean.mean(),
            "pairwise cosine": uniform.pairwise_cosine.mean(),
            "norm ratio": uniform.norm_ratio.mean(),
            "1/√K": metrics.cosine_floor(len(look.problem_label(problem).split("_"))),
            "mean gap": gaps.mean(),
            "largest gap": gaps.max(),
        }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("problem")
    correlations = {name: metrics.spearman(table[name], table["mean gap"]).rho for name in table.columns[:-2]}
    table.loc["rank correlation with the mean gap"] = correlations
    table.attrs["decimals"] = 2
    table.attrs["caption"] = (
        f"Gradients: mean over training and {look.seeds(selected)} under Unit. Scal. Gaps: mean test Δm of each of "
        f"{shared.smto.nunique() - 1} SMTOs minus that of Unit. Scal., in points. The paper's reading asks for a high "
        f"C where the gap is small, a rank correlation of −1. Over {len(rows)} problems no correlation can have a "
        f"permutation p-value below {2 / math.factorial(len(rows)):.2g}, and 1/√K cannot rank problems with equally "
        "many tasks at all."
    )
    return table
