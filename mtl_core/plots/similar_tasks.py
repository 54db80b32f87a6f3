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
    none = [smto for smto in look.in_order(selected.smto) if smto not in {*shown, "unit_scal"}]
    few = selected.seed.nunique() <= FEW
    look.caption(
        axes,
        f"Left: test Δm of {look.seeds(selected)} per method at the epoch with the best validation Δm, as boxes",
        "with a dot per seed;" if few else "(whiskers: 1.5 box lengths);",
        "black dashes: the median of Unit. Scal.; grey, where it is near: the single-task models.",
        "Right: how far the first task's weight, averaged over each epoch and normalised to sum 1, is from ½: mean "
        "over the seeds and ± 1 standard deviation. Weights are those that the paper logs: of Nash-MTL before its "
        "clip, of IMTL without the learnt scales (D25).",
        f"Without weights: {', '.join(look.label(s) for s in none)}." if none else "",
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


def famo_noise(runs: Iterable[Any]) -> pd.DataFrame:
    """Why FAMO's weights wander: what makes them up, epoch by epoch, of the runs of FAMO among `runs`.

    A weight is z_k/L_k over the sum of these; z is the softmax of logits that Adam moves by the difference between the
    tasks' improvements δ_k, the change of log L_k in one step, and at full speed whether it means anything or not.

    Returns:
        problem, seed, epoch; weight (of the first task), share_z and share_loss (what z or 1/L alone would make of it),
        drift (the mean over steps of (δ₁ − δ₂)/2), spread (its standard deviation), noise (spread over the size of the
        drift: far above 1, the difference is mostly chance).
    """
    rows = []
    for run in runs:
        if run.config.smto != "famo":
            continue
        for epoch, record in enumerate(run.history):
            found, losses = record.diagnostics, np.array(record.train_losses, dtype=float)
            drift = (found.get("improvement_0", math.nan) - found.get("improvement_1", math.nan)) / 2
            spread = math.sqrt(max(found.get("lead_squared_0", math.nan) - drift**2, 0))
            rows.append(
                {
                    "problem": run.config.problem,
                    "smto": "famo",
                    "seed": run.config.seed,
                    "epoch": epoch,
                    "weight": record.weights[0] / sum(record.weights),
                    "share_z": found.get("share_0", math.nan),
                    "share_loss": (1 / losses[0]) / (1 / losses).sum(),
                    "spread": spread,
                    "drift": drift,
                    "noise": spread / abs(drift) if drift else math.inf,
                }
            )
    return pd.DataFrame(rows)


def famo(runs: Iterable[Any]) -> np.ndarray:
    """Why FAMO's weights wander: its weight, the two shares that make it up, how much of what moves it is chance."""
    table = famo_noise(runs)
    figure, axes = look.figure(11, 3.3, columns=4)
    panels = {
        "weight": "weight of the first task",
        "share_z": "its share by the logits",
        "share_loss": "its share by 1/loss",
        "noise": "spread over drift of the\ntasks' difference in improvement",
    }
    problems = [p for p in look.PROBLEMS if p in set(table.problem)]
    for ax, (column, words) in zip(axes, panels.items(), strict=True):
        for problem in problems:
            of_problem = table[table.problem == problem]
            if column == "noise":  # a ratio: its median over seeds, one line
                median = of_problem.groupby("epoch").noise.median()
                every = max(1, len(median) // 6)
                ax.plot(median, linewidth=1.6, markersize=4.5, markevery=every, **look.problem_line(problem))
                ax.set_yscale("log")
            else:
                _band(ax, of_problem, "epoch", column, look.problem_line(problem))
                ax.set_ylim(0, 1)
                ax.axhline(0.5, color=GREY, linewidth=1, linestyle=(0, (1, 1.5)), zorder=1)
        ax.set_title(words, loc="left", fontsize=9.5)
        ax.set_xlabel("epoch")
        look.dress(ax)
    axes[3].axhline(1, color=GREY, linewidth=1, linestyle=(0, (1, 1.5)), zorder=1)
    look.plain_log_ticks(axes[3].yaxis)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=max(len(problems), 1), frameon=False, fontsize=9)
    look.caption(
        axes,
        f"FAMO, epoch means over {look.seeds(table)} and ± 1 standard deviation. Its weight is proportional to z/L:",
        "second panel, what the softmax z of its logits alone would give; third, what the losses alone would. Right: "
        "how the tasks' difference in log-loss improvement per step spreads around its mean, in units of that mean "
        "(median over seeds): above 1 chance outweighs the trend, and Adam moves the logits at full speed anyway.",
        look.A_SEED,
    )
    return axes


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
    angles, levels, at = np.linspace(0, 180, 91), np.linspace(0.2, 0.9, 8), len(ratios) // 2
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
