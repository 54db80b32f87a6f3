"""What else moves a result: regularisation, the selection bias of validation, the learning rate, a wider network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mtl_core.tasks import Task
from mtl_study import look
from mtl_study.analysis import comparisons, delta, frames, inference
from mtl_study.analysis.fronts import expected_best
from mtl_study.experiments.runs import Run
from mtl_study.look import GREY, LOOK
from mtl_study.plots import canvas, captions
from mtl_study.plots.canvas import legend_right
from mtl_study.plots.forest import draw_interval, forest_plot, interval_words
from mtl_study.plots.pareto import shade
from mtl_study.words import counted, spanned


def regularised(runs: Sequence[Run], baselines: pd.DataFrame, tasks: Sequence[Task]) -> pd.DataFrame:
    """Δm of every run twice: at the epoch that validation chose (early stopping), and at the last epoch (none).

    Returns:
        The columns of `delta.selected`, and dropout, weight_decay, early_stopping.
    """
    last = delta.selected(runs, baselines, tasks, rule="last_epoch").assign(early_stopping=False)
    table = pd.concat([last, delta.selected(runs, baselines, tasks).assign(early_stopping=True)], ignore_index=True)
    return table.assign(
        dropout=[float(frames.setting(config, "dropout")) for config in table.config],
        weight_decay=[float(frames.setting(config, "weight_decay")) for config in table.config],
    )


def _setting_name(dropout: float, decay: float) -> str:
    parts = [f"dropout {dropout:g}"] * bool(dropout) + [f"decay {decay:g}"] * bool(decay)
    return "\n".join(parts) or "none"


def regularisation(table: pd.DataFrame) -> np.ndarray:
    """Is an SMTO a regulariser? Δm by method and regularisation, without (left) and with (right) early stopping.

    Args:
        table: of `regularised`, of one problem.

    Returns:
        The axes [2].
    """
    smtos = look.in_order(table.smto)
    settings = sorted(set(zip(table.dropout, table.weight_decay, strict=True)), key=lambda s: (bool(s[1]), s))
    titles = {False: "last epoch", True: "with early stopping"}
    if _same(table):
        titles = {True: "last epoch (early stopping chooses the same one)"}
    _, axes = canvas.figure(5.5 * len(titles), 4, columns=len(titles), sharey=True, squeeze=False)
    axes = axes[0]
    for ax, stops in zip(axes, titles, strict=True):
        for i, smto in enumerate(smtos):
            shift = 0.7 * ((i + 0.5) / len(smtos) - 0.5)
            means = []
            for x, (dropout, decay) in enumerate(settings):
                rows = table[(table.smto == smto) & (table.early_stopping == stops)]
                values = rows[(rows.dropout == dropout) & (rows.weight_decay == decay)].delta_m.dropna()
                means.append(values.mean() if len(values) else np.nan)
                at = np.full(len(values), x + shift)
                canvas.dots(ax, at, values, LOOK[smto].colour, LOOK[smto].marker, size=3.6, alpha=0.45, zorder=2)
            ax.plot(np.arange(len(settings)) + shift, means, linestyle="none", markersize=7.5, markeredgecolor="white",
                    zorder=3, marker=LOOK[smto].marker, color=LOOK[smto].colour, label=look.label(smto))  # fmt: skip
        for x in range(1, len(settings)):
            ax.axvline(x - 0.5, color="#e9e9e9", linewidth=0.8, zorder=0)
        ax.set_xticks(range(len(settings)), [_setting_name(*s) for s in settings], fontsize=8)
        ax.set_xlim(-0.5, len(settings) - 0.5)
        ax.set_title(titles[stops], loc="left", fontsize=10)
        canvas.despine(ax)
    axes[0].set_ylabel("Δm, % (higher is better)")
    legend_right(axes[-1])
    canvas.caption(
        axes,
        f"Δm on {look.problem_label(str(table.problem.iloc[0]))}: large, mean of "
        f"{captions.seeds(table.drop_duplicates(frames.RUN))}; small, a seed. Across: dropout in encoder and heads, "
        "and weight decay. All against the same single-task models. The table below says by how much a method's lead "
        "over Unit. Scal. shrinks.",
    )
    return axes


def _same(table: pd.DataFrame) -> bool:
    """Whether early stopping chose the last epoch in every run, so that two panels would show the same."""
    by_run = [
        table[table.early_stopping == stops].set_index(frames.RUN).delta_m.sort_index() for stops in (False, True)
    ]
    return by_run[0].equals(by_run[1])


def table_of_regularisation(table: pd.DataFrame) -> pd.DataFrame:
    """Does regularising the uniform loss close the gap? Per method: its lead on Unit. Scal. without any regularisation,
    with the best for each, and by how much it shrank, with intervals.

    Args:
        table: of `regularised`, of one problem, with runs without dropout and weight decay among them.

    Returns:
        One row per method; the caption in `.attrs["caption"]`.

    Raises:
        ValueError: no unregularised run, or no uniform loss.
    """
    plain = (table.dropout == 0) & (table.weight_decay == 0)
    if "unit_scal" not in set(table[plain].smto):
        raise ValueError("no run of unit_scal without dropout and weight decay: nothing to measure the gap against.")
    bare = comparisons.differences(table[plain & ~table.early_stopping])
    full = table[table.early_stopping]
    best = comparisons.differences(delta.best_configurations(full))
    rows = []
    for smto in look.in_order(set(bare.columns) & set(best.columns)):
        without, with_it = inference.t_interval(bare[smto]), inference.t_interval(best[smto])
        change = inference.t_interval(bare[smto] - best[smto])
        explained = without.low > 0 and with_it.low <= 0 <= with_it.high and change.low > 0
        row = {"method": look.label(smto), "seeds": change.n}
        for name, found in (("lead, none", without), ("lead, best for each", with_it), ("shrank by", change)):
            row |= {name: found.mean, f"{name}: 95 % interval": captions.interval(found.low, found.high)}
        no_lead = without.high < 0
        row["reading"] = (
            "explained"
            if explained
            else "no lead to explain"
            if no_lead
            else "a lead remains"
            if without.low > 0 and with_it.low > 0
            else "cannot tell"
        )
        rows.append(row)
    found = pd.DataFrame(rows).set_index("method")
    found.attrs["decimals"] = 2
    canvas.caption(
        found,
        f"""Test Δm minus that of Unit. Scal. at the same seed, in points, {captions.seeds(full)}. None: no dropout, no
        weight decay, last epoch. Best for each: early stopping, dropout and weight decay by validation. Intervals
        decide. "Explained": above 0 without, around 0 with, shrunk. "A lead remains": above 0 both times. "No lead":
        below 0 without.""",
    )
    return found


def selection_bias(table: pd.DataFrame) -> Axes:
    """Does validation flatter? Validation Δm minus test Δm at the epoch that validation chose, per method.

    Args:
        table: of `tuning.selection_bias`, of one or several problems.
    """
    ax = forest_plot(table, "bias")
    ax.axvline(0, color=GREY, linewidth=1, zorder=1)
    ax.set_xlabel("validation Δm − test Δm, points (to the right: validation flatters)")
    canvas.caption(
        ax,
        "Each against the single-task models on the same split. One split may be easier than the other, for one task "
        "more than for the other, so this moves with a method's place between the tasks: it is no measure of luck by "
        "itself.",
        interval_words(table, "bias"),
    )
    return ax


def search_selection_bias(table: pd.DataFrame) -> Axes:
    """Does searching more flatter more? The luck of the best of n configurations on validation, against n.

    Args:
        table: of `tuning.selection_bias`, of one problem, of a search: several configurations per method.
    """
    _, ax = canvas.figure(7.5, 3.8)
    table = table.dropna(subset=["luck"])
    for smto in look.in_order(table.smto):
        curves = [
            [expected_best(runs.val_delta_m, runs.luck, n) for n in range(1, len(runs) + 1)]
            for _, runs in table[table.smto == smto].groupby("seed")
        ]
        shortest = min(map(len, curves))
        each = [(smto, n, luck) for curve in curves for n, luck in enumerate(curve[:shortest], 1)]
        drawn = pd.DataFrame(each, columns=["smto", "tried", "luck"])
        canvas.lines(ax, drawn, "tried", "luck", errorbar=("pi", 100), markersize=5, markevery=1)
    ax.axhline(0, color=GREY, linewidth=0.8, zorder=1)
    canvas.counting_axis(ax, "configurations tried")
    ax.set_ylabel("luck on validation, points")
    legend_right(ax)
    canvas.despine(ax)
    canvas.caption(
        ax,
        "The best by validation of n configurations, taken at random from a method's search. Luck: how much better it "
        "looks there than on test, minus the same at the other seeds. Mean of "
        f"{counted(table.seed.nunique(), 'seed')}, band: least to greatest. It is 0 where all seeds choose alike; what "
        "the split flatters cannot be seen.",
    )
    return ax


def lr_vs_seed(table: pd.DataFrame) -> Axes:
    """Does the choice of learning rates move a result more than the seed? The ratio of the two spreads, per method.

    Args:
        table: of `tuning.lr_vs_seed`.
    """
    table = table[np.isfinite(table.ratio)]
    smtos = look.in_order(table.index)
    _, ax = canvas.figure(7.5, 1.2 + 0.36 * len(smtos))
    ax.axvspan(6, 7, color=canvas.THEIRS, zorder=0)
    ax.set_xscale("log")
    bounds = table[["ratio", "low", "high"]].to_numpy().ravel()
    bounds = [*bounds[np.isfinite(bounds) & (bounds > 0)], 1, 7]
    left, right = 0.7 * min(bounds), 1.5 * max(bounds)
    for y, smto in enumerate(smtos):
        row = table.loc[smto]
        colour = LOOK[smto].colour
        if np.isfinite(row.low):
            high = min(row.high, right)
            draw_interval(ax, y, max(row.low, left), high, colour)
            if row.high > right:
                ax.plot(0.97 * right, y, ">", color=colour, markersize=5, zorder=2)
        ax.plot(row.ratio, y, LOOK[smto].marker, color=colour, markersize=8, markeredgecolor="white", zorder=3)
    ax.axvline(1, color=GREY, linewidth=1, zorder=1)
    ax.set_xlim(left, right)
    canvas.plain_log_ticks(ax.xaxis)
    ax.set_yticks(range(len(smtos)), [look.label(s) for s in smtos])
    ax.set_ylim(len(smtos) - 0.4, -0.6)
    ax.set_xlabel("sd over learning rates / sd over seeds (right of 1: tuning moves more than luck)")
    canvas.despine(ax, grid="x")
    canvas.caption(
        ax,
        f"Standard deviation of Δm over {spanned(table.lrs, 'learning rate')}, over that of "
        f"{spanned(table.seeds, 'seed')} at the best of them; line: 95 % interval from the noncentral F distribution; "
        "an arrow: beyond the figure. Shaded: 6 to 7, what Xin et al. (2022) found for grids of several rates each, "
        "which is another statistic.",
    )
    return ax


def compute_parity(table: pd.DataFrame) -> Axes:
    """Would a larger network have been the better use of the time? Δm against the time of an epoch.

    The uniform loss with networks of several widths is a line for each learning rate, every other method, at the
    paper's width, a point.

    Args:
        table: of `fronts.with_cost`: width, lr, times and delta_m per run, of one problem.
    """
    _, ax = canvas.figure(8.5, 4.2)
    rates = table[table.smto == "unit_scal"].lr.drop_duplicates().tolist()
    for smto in look.in_order(table.smto):
        for lr, runs in table[table.smto == smto].groupby("lr", sort=False):
            over_seeds = runs.groupby("width")
            times, mean = over_seeds.times.median(), over_seeds.delta_m.mean()
            style = look.line(smto)
            for width, rows in over_seeds:
                at = np.full(len(rows), times[width])
                canvas.dots(ax, at, rows.delta_m, style["color"], style["marker"], size=3.7, alpha=0.4)
            style |= {"markersize": 8, "markeredgecolor": "white", "markeredgewidth": 0.7, "zorder": 3}
            if smto == "unit_scal" and len(rates) > 1:
                tint = shade(style["color"], rates.index(lr), len(rates))
                style |= {"markerfacecolor": tint, "markeredgecolor": style["color"]}
            if len(rates) > 1:
                style["label"] += f", {lr:g}"
            ax.plot(times, mean, **style)
            for width in times.index if len(times) > 1 else ():
                place = (times[width], mean[width])
                ax.annotate(f"× {width:g}", place, xytext=(6, -12), textcoords="offset points", fontsize=8.5)
    ax.set_xlim(left=0)
    ax.margins(y=0.12)
    ax.set_xlabel("time of an epoch, in epochs of the uniform loss (to the left: cheaper)")
    ax.set_ylabel("Δm, % (higher is better)")
    legend_right(ax)
    canvas.despine(ax)
    canvas.caption(
        ax,
        f"Large: mean of {captions.seeds(table)}; small: a seed. Time: the median over seeds of that over the uniform "
        "loss's. ×: the uniform loss with a network so many times as wide; all others, single-task models too, at × 1.",
        "Behind a name: the learning rate." if len(rates) > 1 else "",
        "A method below the line of its rate would do better with a wider network.",
    )
    return ax
