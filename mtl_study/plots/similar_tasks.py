"""Section 3.2 of the paper, two similar tasks, and the angles between task gradients: Figures 2, 3(a) and 7."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from mtl_core.problems import Problem
from mtl_study import look
from mtl_study.analysis import alignment, comparisons, frames, inference, task_weights
from mtl_study.cosines import cosine_to_mean
from mtl_study.experiments.runs import Run
from mtl_study.look import GREY, INK
from mtl_study.paper import published
from mtl_study.plots import canvas, captions
from mtl_study.plots.forest import forest_plot, interval_words
from mtl_study.plots.selection import box
from mtl_study.words import listed, number

TOGETHER = 6  # up to so many problems share a row of Figure 7
BANDS = 4  # up to so many lines of Figure 2 have one; more cover each other
COLUMNS_OF_FIGURE_7 = ("cosine_to_mean", "pairwise_cosine", "norm_ratio")

# -- Figure 2 ----------------------------------------------------------------------------------------------------------


def figure_2(
    selected: pd.DataFrame,
    runs: Iterable[Run],
    problems: Sequence[str] | None = None,
    settings: pd.DataFrame | None = None,
) -> np.ndarray:
    """Figure 2: a row per problem; to the left the boxes of Δm, to the right |w₁ − ½| per epoch.

    Args:
        selected: of these problems. runs: the records behind it. problems: a row each; by default those in the table.
        settings: of the experiments, for the caption.
    """
    problems = list(selected.problem.unique()) if problems is None else list(problems)
    distances = task_weights.distance_from_equal(runs)
    figure, axes = canvas.grid_of_axes(len(problems), [65, 35], 9.5, 3.3)
    distances = distances[distances.problem.isin(problems) & (distances.smto != "unit_scal")]
    shown = look.in_order(distances.smto)
    sd = distances.groupby(["problem", "smto", "epoch"]).distance.std(ddof=1)
    for (left, right), problem in zip(axes, problems, strict=True):
        _boxes(left, selected[selected.problem == problem])
        left.set_title(look.PROBLEMS[problem][0], loc="left", fontsize=10)
        _curves(right, distances[distances.problem == problem], len(shown) <= BANDS)
    lines = [canvas.legend_entry(smto) for smto in shown]
    canvas.legend(figure, handles=lines, loc="outside right center", fontsize=8.5, title="weights of")
    spread = f" (standard deviation {number(sd.mean(), 2)})" if sd.any() else ""
    none = [smto for smto in look.in_order(selected.smto) if smto not in {*shown, "unit_scal"}]
    canvas.caption(
        axes,
        f"Left: Δm of {captions.seeds(selected)} per method. Right: means over seeds{spread}, as the paper logs "
        "weights: Nash-MTL's before its clip, IMTL's without learnt scales (D25).",
        f"Without weights: {', '.join(look.label(s) for s in none)}." if none else "",
        captions.diverged(selected),
        captions.elsewhere(selected),
        captions.chosen(settings, selected.smto),
    )
    return axes


def _boxes(ax: Axes, selected: pd.DataFrame) -> None:
    values = comparisons.by_seed(selected)
    smtos = look.in_order(values.columns)
    for x, smto in enumerate(smtos):
        box(ax, x, values[smto].dropna().to_numpy(), smto)
    if "unit_scal" in smtos:
        ax.axhline(values["unit_scal"].median(), color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    low, high = np.nanmin(values), np.nanmax(values)
    if high + 0.3 * (high - low) > 0:  # where zero is near, it is shown
        canvas.zero_line(ax)
    ax.set_xticks(range(len(smtos)), [look.label(s) for s in smtos], rotation=35, ha="right", rotation_mode="anchor")
    ax.set_xlim(-0.7, len(smtos) - 0.3)
    ax.set_ylabel("Δm, % (higher is better)")
    canvas.despine(ax)


def _curves(ax: Axes, distances: pd.DataFrame, bands: bool) -> None:
    """One line per method, mean over seeds; where asked for, in a band of ± 1 sd."""
    shown = distances.assign(epoch=distances.epoch + 1)
    canvas.lines(ax, shown, "epoch", "distance", errorbar=canvas.one_sd(lambda mean: 0) if bands else None)
    ax.set_ylabel("|w₁ − ½|")
    canvas.counting_axis(ax)
    ax.set_ylim(bottom=0)
    canvas.despine(ax)


def weight_distances(per_run: pd.DataFrame, near: float | None = None) -> Axes:
    """Do weights stay near ½ unless the tasks differ? Per method and problem the mean |w₁ − ½| over training.

    Args:
        per_run: `alignment.per_run` of the runs of several problems. near: draws the band that counts as near ½.
    """
    table = per_run[~per_run.smto.isin(["unit_scal", "fixed"])]
    ax = forest_plot(table, "weight_distance", floor=0)
    if near is not None:
        ax.axvspan(0, near, color=canvas.SHADED, zorder=0)
    ax.set_xlim(left=0)
    ax.set_xlabel("mean over epochs of |w₁ − ½| (0: the uniform loss, ½: one task alone)")
    canvas.caption(
        ax,
        "How far from ½ the first task's share of the weights is, on average over training.",
        interval_words(table, "weight_distance"),
        f"Shaded: below {near:g}, what counts as near." if near is not None else "",
    )
    return ax


def famo_noise(runs: Iterable[Run]) -> pd.DataFrame:
    """What moves FAMO's weights, epoch by epoch, of the runs of FAMO among `runs`; two tasks.

    A weight is z_k/L_k over the sum of these. z is the softmax of logits that Adam moves by the difference between the
    tasks' improvements δ_k, the fall of log L_k in one step; Adam moves them as fast where that difference is chance.

    Returns:
        problem, smto, seed, epoch; weight (of the first task), share_z and share_loss (what z or 1/L alone would make
        of it), loss (the smaller of the two, in training); improvement (mean of δ over steps and tasks), drift and
        spread (mean and standard deviation of δ₁ − δ₂ over steps), noise (spread over the size of the improvement).

    Raises:
        ValueError: no run of FAMO, or one of an earlier version that did not record these numbers.
    """
    needed = ("share_0", "improvement_0", "improvement_1", "lead_squared_0")
    rows = []
    for run in (run for run in runs if run.config.smto == "famo"):
        for epoch, record in enumerate(run.history):
            if missing := [name for name in needed if record.diagnostics.get(name) is None]:
                raise ValueError(
                    f"a run of FAMO on {run.config.problem} (seed {run.config.seed}) has no {', '.join(missing)}: an "
                    "earlier version stored it. Remove its record from the store, then run this again."
                )
            share, one, other, lead_squared = (frames.as_float(record.diagnostics[name]) for name in needed)
            losses, weights = np.array(record.train_losses, dtype=float), np.array(record.weights, dtype=float)
            drift, improvement = one - other, (one + other) / 2
            spread = math.sqrt(max(4 * lead_squared - drift**2, 0))  # a lead is half the difference between two tasks
            rows.append(
                {
                    "problem": run.config.problem,
                    "smto": "famo",
                    "seed": run.config.seed,
                    "epoch": epoch,
                    "weight": weights[0] / weights.sum(),
                    "share_z": share,
                    "share_loss": (1 / losses[0]) / (1 / losses).sum(),
                    "loss": losses.min(),
                    "improvement": improvement,
                    "drift": drift,
                    "spread": spread,
                    "noise": spread / abs(improvement) if improvement else math.inf,
                }
            )
    if not rows:
        raise ValueError("there is no run of FAMO among these, so there is nothing to explain.")
    return pd.DataFrame(rows)


def famo(groups: Mapping[str, Iterable[Run]]) -> np.ndarray:
    """Why FAMO's weights wander: the weight of every seed, and how much of what moves it is chance.

    Args:
        groups: runs to compare, by the title of their panel.
    """
    tables = {name: famo_noise(runs) for name, runs in groups.items()}
    _, axes = canvas.figure(3.1 * (len(tables) + 1), 3.3, columns=len(tables) + 1)
    last = axes[-1]
    for i, ((name, table), ax) in enumerate(zip(tables.items(), axes[:-1], strict=True)):
        style = {"color": mpl.colormaps["viridis"](0.08 + 0.66 * i / max(len(tables) - 1, 1)), "marker": "os^D"[i % 4]}
        for _, of_seed in table.groupby("seed"):
            ax.plot(of_seed.epoch + 1, of_seed.weight, linewidth=1.1, markersize=2.5, **style)
        by_loss = table.groupby("epoch").share_loss.mean()
        ax.plot(by_loss.index + 1, by_loss, color=GREY, linewidth=1.6, linestyle=(0, (4, 2)))
        ax.axhline(0.5, color=GREY, linewidth=1, linestyle=(0, (1, 1.5)), zorder=1)
        ax.set_ylim(0, 1)
        noise = table.groupby("epoch").noise.median()
        last.plot(noise.index + 1, noise, linewidth=1.6, markersize=4, label=name, **style)
        ax.set_title(name, loc="left", fontsize=9.5)
    last.axhline(1, color=GREY, linewidth=1, linestyle=(0, (1, 1.5)), zorder=1)
    last.set_yscale("log")
    canvas.plain_log_ticks(last.yaxis)
    last.set_title("chance over improvement", loc="left", fontsize=9.5)
    axes[0].set_ylabel("weight of the first task")
    for ax in axes:
        canvas.counting_axis(ax)
        canvas.despine(ax)
    every = pd.concat(tables.values())
    canvas.caption(
        axes,
        f"FAMO, epoch means, a line per seed ({captions.seeds(every)}). It weighs by z/L; grey dashes: 1/L alone. "
        "Right: the standard deviation over the steps of the difference between the tasks' improvements (falls of the "
        "log loss), over their mean improvement, median of the seeds. Above 1 a step says little.",
    )
    return axes


def famo_table(groups: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """The numbers behind `famo`: a row per group; the caption in `.attrs["caption"]`."""
    rows = {}
    for name, runs in groups.items():
        table = famo_noise(runs)
        by_loss = table.groupby("epoch").share_loss.mean()
        rows[name] = {
            "improvement per step": table.improvement.median(),
            "chance": table.spread.median(),
            "chance over improvement": table.noise.median(),
            "w₁ moves per epoch by": table.sort_values("epoch").groupby("seed").weight.diff().abs().mean(),
            "mean |w₁ − ½|": (table.weight - 0.5).abs().mean(),
            "w₁ by 1/L alone": captions.interval(by_loss.min(), by_loss.max()),
            "smaller loss at the end": table[table.epoch == table.epoch.max()].loss.mean(),
        }
    found = pd.DataFrame.from_dict(rows, orient="index").rename_axis("FAMO on")
    found.attrs["decimals"] = {
        "improvement per step": 4,
        "chance": 4,
        "chance over improvement": 2,
        "w₁ moves per epoch by": 3,
        "mean |w₁ − ½|": 3,
        "smaller loss at the end": 3,
    }
    canvas.caption(
        found,
        """Improvement: the fall of a batch's log loss in one step, mean of the two tasks. Chance: the standard
        deviation, over the steps of an epoch, of the difference between the two. Medians over epochs and seeds for
        these and their ratio; means for the rest. w₁ by 1/L alone: the range over epochs of its mean over seeds.""",
    )
    return found


# -- angles between gradients: Figures 3(a) and 7 ----------------------------------------------------------------------


def figure_7(statistics: pd.DataFrame, spaces: Sequence[str] = ("parameters",), smto: str = "unit_scal") -> np.ndarray:
    """Figures 3(a) and 7, C during training, with the pairwise cosine and the ratio of the lengths; a row of panels per
    space, and per family where there are many problems.

    Args:
        statistics: `alignment.gradient_statistics` of the runs of several problems. spaces: of "parameters" (the
            paper's) and "features". smto: under which method; the paper's is the uniform loss.
    """
    table = statistics[statistics.space.isin(spaces) & (statistics.smto == smto)]
    problems = look.problems_in_order(table.problem)
    families = [problems] if len(problems) <= TOGETHER else _by_family(problems)
    rows = [(space, members) for space in spaces for members in families]
    figure, axes = canvas.grid_of_axes(len(rows), [1, 1, 1], 10.5, 3.5 if len(rows) == 1 else 2.4)
    for row, (space, members) in zip(axes, rows, strict=True):
        _statistics(row, table[(table.space == space) & table.problem.isin(members)])
        if len(spaces) > 1:
            row[0].set_ylabel(f"on the {space}")
    for column, title in zip(axes.T, COLUMNS_OF_FIGURE_7, strict=True):
        column[0].set_title(look.NAMES[title], loc="left", fontsize=10)
        column[-1].set_xlabel("training, %")
        bounds = np.array([ax.get_ylim() for ax in column])  # one scale for a quantity, wide enough for every row
        for ax in column:
            ax.set_ylim(bounds[:, 0].min(), bounds[:, 1].max())
    lines = [canvas.problem_line(problem) for problem in problems]
    handles = [Line2D([], [], markersize=5, **line) for line in lines]
    canvas.legend_above(figure, handles=handles, ncols=min(max(len(problems), 1), 4))
    where = listed("shared parameters" if space == "parameters" else space for space in spaces)
    canvas.caption(
        axes,
        f"Task gradients on the {where} under {look.label(smto)}, {captions.seeds(table)}. Left: the mean cosine of "
        "a gradient to their average; dotted: orthogonal and equally long. Middle: pairs of tasks. "
        "Right: unequal lengths alone lower C (D29).",
        _looks(table),
    )
    return axes if len(rows) > 1 else axes[0]


def _by_family(problems: Sequence[str]) -> list[list[str]]:
    """The problems in rows: digits, streets, molecules."""
    families = dict.fromkeys(problem.split("/")[0] for problem in problems)
    return [[problem for problem in problems if problem.split("/")[0] == family] for family in families]


def _statistics(axes: np.ndarray, table: pd.DataFrame) -> None:
    """A row of Figure 7: the three statistics of some problems."""
    for ax, column in zip(axes, COLUMNS_OF_FIGURE_7, strict=True):
        band = canvas.one_sd(lambda mean: 1.0) if column == "norm_ratio" else canvas.one_sd()
        canvas.lines(ax, table, "progress", column, "problem", band)
        ax.set_xlim(-3, 103)
        canvas.despine(ax)
    for num_tasks in sorted(table.num_tasks.unique()):
        floor = alignment.cosine_floor(num_tasks)
        axes[0].axhline(floor, color=GREY, linewidth=1, linestyle=(0, (1, 1.5)), zorder=1)
        axes[0].annotate(
            f"1/√{num_tasks}", (1, floor), xycoords=("axes fraction", "data"), xytext=(3, 0),
            textcoords="offset points", ha="left", va="center", fontsize=8, color="#555555",
        )  # fmt: skip
    axes[1].axhline(0, color=GREY, linewidth=1, linestyle=(0, (1, 1.5)), zorder=1)
    axes[2].axhline(1, color=GREY, linewidth=1, linestyle=(0, (1, 1.5)), zorder=1)
    axes[2].set_yscale("log")
    canvas.plain_log_ticks(axes[2].yaxis)


def _looks(table: pd.DataFrame) -> str:
    """The sentences of a caption that say at which steps the gradients were looked at."""
    every, once, problems = Problem.sample_every, [], look.problems_in_order(table.problem)
    for problem in problems:
        config = table[table.problem == problem].config.iloc[0]
        samples, batch = (frames.setting(config, name) for name in ("train_size", "batch_size"))
        if samples and samples <= (every + 1) * batch:
            once.append(look.problem_label(problem))
    if len(once) == len(problems):
        return "Looks: the second step of each epoch (D30)."
    found = f"Looks: the second step of an epoch, then every {every}th"
    where = listed(once) if len(once) <= 3 else f"{len(once)} of the problems"
    return f"{found}; here one per epoch on {where} (D30)." if once else f"{found}."


def unrelated_tasks(tasks: Sequence[int] = (2, 3, 11), largest: float = 100.0) -> np.ndarray:
    """What C can be when nothing conflicts: a sweep over the number of tasks, the gradients' lengths and their angle.

    Args:
        tasks: K of each line. largest: ratio of the longest gradient to the shortest at the right end.
    """
    _, axes = canvas.figure(10, 3.8, columns=2)
    ratios = np.geomspace(1, largest, 60)
    _unrelated(axes[0], tasks, ratios)
    _two_tasks(axes[1], ratios)
    canvas.caption(
        axes,
        "Computed, not measured. Left: C of gradients that are all orthogonal, so that no task helps or hinders "
        "another, with lengths evenly spaced on a logarithmic scale. Dotted: the paper's values, with its numbers of "
        "tasks. Right: C of two tasks; along a line C is the same, although the angle is not.",
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
        c = [cosine_to_mean(unrelated_gramian(num_tasks, ratio)) for ratio in ratios]
        colour = mpl.colormaps["viridis"](place)
        ax.plot(ratios, c, color=colour, linewidth=2)
        ax.annotate(f"K = {num_tasks}", (ratios[0], c[0]), xytext=(2, 4), textcoords="offset points", color=colour)
    for name, words in [("cosine_high", "2 tasks"), ("cosine_middle", "3 tasks"), ("cosine_low", "11 tasks")]:
        value = published.text(name).value
        ax.axhline(value, color=GREY, linewidth=1, linestyle=(0, (1, 1.5)), zorder=1)
        ax.annotate(
            f"paper: {words}", (1, value), xycoords=("axes fraction", "data"), xytext=(-2, 2),
            textcoords="offset points", ha="right", va="bottom", fontsize=8, color="#555555",
        )  # fmt: skip
    ax.set_xscale("log")
    canvas.plain_log_ticks(ax.xaxis)
    ax.set(xlabel="longest over shortest gradient", ylabel="C", ylim=(0, 0.85))
    ax.set_title("tasks that have nothing to do with each other", loc="left", fontsize=10)
    canvas.despine(ax)


def _two_tasks(ax: Axes, ratios: np.ndarray) -> None:
    angles, levels, at = np.linspace(0, 180, 91), np.linspace(0.2, 0.9, 8), len(ratios) // 2
    c = np.array([[cosine_to_mean(unrelated_gramian(2, r, np.cos(np.radians(a)))) for r in ratios] for a in angles])
    c[-1] = np.where(np.isnan(c[-1]), 0, c[-1])  # opposite gradients of equal length have no mean
    filled = ax.contourf(ratios, angles, c, levels=np.linspace(0, 1, 21), cmap="viridis")
    lines = ax.contour(ratios, angles, c, levels=levels, colors="white", linewidths=0.8)
    places = [(ratios[at], angles[np.abs(c[:, at] - level).argmin()]) for level in levels]
    ax.clabel(lines, fmt="%.1f", fontsize=8, manual=places, inline_spacing=2)
    ax.set_xscale("log")
    canvas.plain_log_ticks(ax.xaxis)
    ax.set(xlabel="longer over shorter gradient", ylabel="angle between them")
    ax.set_yticks([0, 45, 90, 135, 180], ["0°", "45°", "90°\nunrelated", "135°", "180°"])
    ax.set_title("C of two tasks", loc="left", fontsize=10)
    bar = canvas.figure_of(ax).colorbar(filled, ax=ax, ticks=np.linspace(0, 1, 6))
    bar.outline.set_visible(False)


def ranking(per_run: pd.DataFrame, one_rate: pd.DataFrame, smto: str = "imtl") -> pd.DataFrame:
    """Does C tell where an SMTO helps? Per problem C, the pairwise cosine, 1/√K and one gap, method − Unit. Scal.

    Args:
        per_run: `alignment.per_run`, of which the rows of Unit. Scal. count.
        one_rate: test gains on the same problems, compared at one learning rate (`protocol.at_one_rate`), so that a gap
            is that of the method and not of two rates. smto: the one method that every problem has.

    Returns:
        One row per problem on which the gap is known; then Spearman's correlation of each column with the gap, which
        is the last column. Problems without such runs are named in the caption (`.attrs["caption"]`).
    """
    rows, without = {}, []
    for problem in look.problems_in_order(one_rate.problem):
        of_problem = one_rate[(one_rate.problem == problem) & one_rate.smto.isin([smto, "unit_scal"])]
        if smto not in set(of_problem.smto):
            continue
        gap = comparisons.paired(of_problem)["mean"][smto]
        if math.isnan(gap):
            without.append(look.problem_label(problem))
            continue
        uniform = per_run[(per_run.problem == problem) & (per_run.smto == "unit_scal")]
        rows[look.problem_label(problem)] = {
            "C": uniform.cosine_to_mean.mean(),
            "pairwise cosine": uniform.pairwise_cosine.mean(),
            "norm ratio": uniform.norm_ratio.mean(),
            "1/√K": alignment.cosine_floor(int(uniform.num_tasks.iloc[0])),
            "gap": gap,
        }
    columns = ["C", "pairwise cosine", "norm ratio", "1/√K", "gap"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("problem")
    least = 2 / math.factorial(len(rows))  # the permutation p-value of a perfect order: that and its mirror image
    notes = []
    if least > 0.05:
        notes.append(f"Over {len(rows)} problems no correlation can have a permutation p-value below {least:.2g}.")
    if table["1/√K"].nunique() < 2:
        notes.append("1/√K cannot rank problems that have equally many tasks.")
    if without:
        notes.append(f"No runs at one rate: {listed(without)}.")
    correlations = {name: inference.spearman(table[name], table["gap"]).rho for name in columns[:-1]}
    table.loc["rank correlation with the gap"] = pd.Series(correlations)
    table.attrs["decimals"] = 2
    canvas.caption(
        table,
        f"""Gradients: mean over training and {captions.seeds(one_rate)} under Unit. Scal. Gap: mean test Δm of
        {look.label(smto)} minus that of Unit. Scal. at one learning rate, in points; the paper runs {look.label(smto)}
        on every problem. The paper's reading asks for a high C where the gap is small, a rank correlation of −1.
        {" ".join(notes)}""",
    )
    return table


# -- as good, as equal: statements that need intervals -----------------------------------------------------------------


def equivalence(selected: pd.DataFrame, margin: float, one_rate: pd.DataFrame | None = None) -> pd.DataFrame:
    """Is a method as good as Unit. Scal.? Whether a difference shows, and whether it is surely small.

    Args:
        selected: of one or several problems. margin: in points, what still counts as equally good. one_rate: the same
            as `comparisons.at_one_rate` gives it: adds the difference and its reading at one learning rate.

    Returns:
        One row per problem and method; the caption in `.attrs["caption"]`.
    """
    rows = []
    for problem in look.problems_in_order(selected.problem):
        found = _readings(selected[selected.problem == problem], margin)
        matched = None if one_rate is None else _readings(one_rate[one_rate.problem == problem], margin)
        for smto in look.in_order(found.index):
            of = found.loc[smto]
            row: dict[str, Any] = {
                "problem": look.problem_label(problem),
                "method": look.label(smto),
                "difference": of["mean"],
                "95 % interval": captions.interval(of.low, of.high),
                "seeds": int(of.n),
                "p": of.p,
                "reading": of.reading,
            }
            if matched is not None:
                at = matched.loc[smto]
                row |= {"at one rate": at["mean"], "seeds at one rate": int(at.n), "reading at one rate": at.reading}
            rows.append(row)
    table = pd.DataFrame(rows)
    table.attrs["decimals"] = {"difference": 2, "p": 4, "at one rate": 2}
    canvas.caption(
        table,
        f"""Test Δm minus Unit. Scal.'s at the same seed, in points, over {captions.seeds(selected)}. p: of two
        one-sided t tests of "outside ±{margin:g}". Equal: p below {inference.TOST:g}, with the 95 % interval within
        ±{margin:g}. Different: without 0 in it; by more than {margin:g}: all beyond. Each row is a test of its own.
        {"At one rate: both at one." if one_rate is not None else ""}""",
    )
    return table


def _readings(of_problem: pd.DataFrame, margin: float) -> pd.DataFrame:
    """What the differences of each method to Unit. Scal. show: index smto; mean, low, high, n, p, reading."""
    small = comparisons.equivalence(of_problem, margin)
    different = (small.n > 1) & ~((small.low <= 0) & (small.high >= 0))
    less, more = small.p < inference.TOST, (small.low > margin) | (small.high < -margin)
    readings = pd.Series("cannot tell", small.index).mask(different, "different")
    readings = readings.mask(different & more, f"different, by more than {margin:g}")
    readings = readings.mask(less, f"equal within ±{margin:g}").mask(
        less & different, f"different, by less than {margin:g}"
    )
    return small.assign(reading=readings.where(small.n > 0, "no runs"))


def weights(per_run: pd.DataFrame, against: str) -> pd.DataFrame:
    """Do weights stay nearer to ½ where the tasks are alike? Mean |w₁ − ½|, here and elsewhere, by method.

    Args:
        per_run: `alignment.per_run` of the runs of several problems. against: the problem whose tasks differ.

    Returns:
        One row per problem and method with weights; the caption in `.attrs["caption"]`.
    """
    table = per_run[~per_run.smto.isin(["unit_scal", "fixed"])].dropna(subset="weight_distance")
    values = {key: rows.set_index("seed").weight_distance for key, rows in table.groupby(["problem", "smto"])}
    rows = []
    for problem in look.problems_in_order(table.problem):
        for smto in look.in_order(table[table.problem == problem].smto):
            mean, low, high, n = inference.t_interval(values[problem, smto])
            row = {"problem": look.problem_label(problem), "method": look.label(smto), "seeds": n}
            row |= {"mean |w₁ − ½|": mean, "95 % interval": captions.interval(max(low, 0), high, 3)}
            if problem != against and (against, smto) in values:
                mean, low, high, _ = inference.t_interval((values[problem, smto] - values[against, smto]).dropna())
                reading = "nearer" if high < 0 else "farther" if low > 0 else "cannot tell"
                row |= {"difference": mean, "its 95 % interval": captions.interval(low, high, 3), "reading": reading}
            rows.append(row)
    found = pd.DataFrame(rows)
    found.attrs["decimals"] = {"mean |w₁ − ½|": 3, "difference": 3}
    canvas.caption(
        found,
        f"""|w₁ − ½|, averaged over training: mean over {captions.seeds(table)} with t interval. Difference: to the same
        method on {look.problem_label(against)}, seed by seed; below zero the weights are nearer to ½ here. The settings
        differ between problems, too (Tables 6 to 8).""",
    )
    return found
