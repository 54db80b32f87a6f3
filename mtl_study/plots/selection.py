"""Section 3.1 of the paper, all methods on one problem: Figure 1, Tables 3 and 7; also a forest plot of
the differences, and the trade-off between two tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from mtl_study import look
from mtl_study.analysis import comparisons, frames, rankings
from mtl_study.analysis.delta import LEVEL
from mtl_study.look import GREY, INK, LOOK
from mtl_study.paper import published
from mtl_study.plots import canvas, captions
from mtl_study.plots.canvas import FEW
from mtl_study.plots.forest import STROKES, draw_row
from mtl_study.words import listed, minus

Scale = Literal["linear", "symlog"]
THIN = "PX"  # markers that would vanish behind others


def figure_1(selected: pd.DataFrame, scale: Scale = "linear", settings: pd.DataFrame | None = None) -> Axes:
    """Figure 1: a box of Δm per method, over seeds; up to five seeds are drawn one by one on top.

    Args:
        selected: of one problem. scale: "symlog" is linear between −5 and 5 % and logarithmic beyond, for when a few
            methods dwarf the rest. settings: of the experiment, for the caption.
    """
    values = comparisons.by_seed(selected)
    smtos = look.in_order(values.columns)
    _, ax = canvas.figure(8.5, 4.2)
    for x, smto in enumerate(smtos):
        box(ax, x, values[smto].dropna().to_numpy(), smto)
    ax.set_xticks(range(len(smtos)), [look.label(s) for s in smtos], rotation=40, ha="right", rotation_mode="anchor")
    ax.set_xlim(-0.7, len(smtos) - 0.3)
    if "unit_scal" in smtos:
        ax.axhline(values["unit_scal"].median(), color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    canvas.zero_line(ax)
    _scale(ax, scale, "y")
    ax.set_ylabel("Δm, % (higher is better)")
    canvas.despine(ax)
    canvas.caption(
        ax,
        f"Δm of {captions.seeds(selected)} per method.",
        "The axis is logarithmic beyond ±5 %." if scale == "symlog" else "",
        captions.diverged(selected),
        captions.elsewhere(selected),
        captions.chosen(settings, selected.smto),
    )
    return ax


def box(ax: Axes, x: float, values: np.ndarray, smto: str, width: float = 0.62) -> None:
    """One method's box, of quartiles; its seeds on top where they are few."""
    if not len(values):
        ax.annotate("no value", (x, 0), ha="center", va="bottom", rotation=90, fontsize=7, color=GREY)
        return
    import seaborn as sns

    _, colour, _, marker = LOOK[smto]
    few = len(values) <= FEW
    sns.boxplot(
        x=np.full(len(values), x), y=values, orient="x", native_scale=True, width=width, ax=ax,
        showfliers=not few, flierprops={"marker": marker, "markersize": 4, "markerfacecolor": "none"},
        boxprops={"facecolor": (*to_rgb(colour), 0.18)}, medianprops={"linewidth": 2},
        linecolor=colour, linewidth=1.1, zorder=2,
    )  # fmt: skip
    if few:
        spread = np.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else np.zeros(1)
        size = 7.7 if marker == "*" else 4.9  # of a small star little is left
        canvas.dots(ax, x + spread, values, colour, marker, size=size, edgecolor="white", linewidth=0.6, zorder=3)


def forest(
    selected: pd.DataFrame,
    ax: Axes | None = None,
    margin: float | None = None,
    scale: Scale = "linear",
    theirs: str | None = "table_3",
    settings: pd.DataFrame | None = None,
    one_rate: pd.DataFrame | None = None,
) -> Axes:
    """Each method minus Unit. Scal., seed by seed: mean, 95 % interval, and the paper's difference as a hollow marker.

    Args:
        selected: of one problem. ax: to draw in; None makes a figure. margin: draws the band within which two methods
            count as equally good. theirs: the paper's table to compare with, if it has one. settings: of the
            experiment, for the caption. one_rate: as `comparisons.at_one_rate` gives it; where a method has another
            learning rate than Unit. Scal., the difference at one rate is drawn above it in grey.
    """
    found, each = comparisons.paired(selected), comparisons.differences(selected)
    smtos = look.in_order(found.index)
    reference = published.table(theirs)["delta_m"] if theirs else pd.Series(dtype=float)
    matched, moved = _where_rates_differ(selected, one_rate)
    ax = ax or canvas.figure(7.5, 0.8 + 0.31 * len(smtos))[1]
    if margin is not None:
        ax.axvspan(-margin, margin, color=canvas.SHADED, zorder=0)
    for y, smto in enumerate(smtos):
        colour, marker = LOOK[smto].colour, LOOK[smto].marker
        draw_row(ax, y, each[smto].dropna(), colour, marker)
        if (key := smto.removesuffix("_transposed")) in reference and "unit_scal" in reference:
            hollow: dict[str, Any] = {"markerfacecolor": "white", "markeredgewidth": 1.1, "markeredgecolor": colour}
            theirs_at = reference[key] - reference["unit_scal"]
            ax.plot(theirs_at, y + 0.27, marker=marker, markersize=6, zorder=3, **hollow)
        if smto in matched:
            draw_row(ax, y - 0.27, matched[smto].dropna(), GREY, marker)
    ax.axvline(0, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    ax.set_yticks(range(len(smtos)), [look.label(s) for s in smtos])
    ax.set_ylim(len(smtos) - 0.4, -0.6)
    _scale(ax, scale, "x")
    if not reference.empty:
        style: dict[str, Any] = {"color": INK, "linestyle": "none", "marker": "o", "markersize": 6}
        entries = [
            Line2D([], [], label="here", **style),
            Line2D([], [], label="paper", markerfacecolor="white", **style),
        ]
        canvas.legend(ax, handles=entries, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=8.5)
    ax.set_xlabel("Δm minus that of Unit. Scal., points (to the right: better)")
    canvas.despine(ax, grid="x")
    canvas.caption(
        ax,
        f"Differences at the same seed: mean of {captions.seeds(selected)} and interval.",
        "Strokes: the seeds." if len(each) <= STROKES else "",
        "Hollow: the paper's." if not reference.empty else "",
        f"Grey: both at one learning rate, where theirs differ{moved}." if one_rate is not None else "",
        f"Shaded: ±{margin:g} points, equally good." if margin is not None else "",
        "With one seed there is no interval." if found.n.max() < 2 else "",
        "The axis is logarithmic beyond ±5 points." if scale == "symlog" else "",
        captions.chosen(settings, selected.smto),
    )
    return ax


def _where_rates_differ(selected: pd.DataFrame, one_rate: pd.DataFrame | None) -> tuple[pd.DataFrame, str]:
    """The differences at one rate of the methods that have another one than Unit. Scal., and a note on those that no
    runs are there for."""
    if one_rate is None:
        return pd.DataFrame(), ""
    own = selected.groupby("smto").config.first().map(lambda config: frames.setting(config, "lr"))
    each = comparisons.differences(one_rate)[[s for s in own.index if own[s] != own["unit_scal"]]]
    lacking = [look.label(s) for s in look.in_order(each.columns[each.isna().all()])]
    return each.dropna(axis="columns", how="all"), f" (no runs: {listed(lacking)})" if lacking else ""


def trade_off(
    selected: pd.DataFrame,
    tasks: Sequence[str] = ("CL", "RR"),
    settings: pd.DataFrame | None = None,
) -> Axes:
    """One task's gain against the other's: a large marker with its name per method (mean), a small one per seed.

    Args:
        selected: of one problem. tasks: across and up. settings: for the caption.
    """
    across, up = comparisons.by_seed(selected, tasks[0]), comparisons.by_seed(selected, tasks[1])
    smtos = look.in_order(across.columns)
    _, ax = canvas.figure(8, 4.8)
    canvas.zero_line(ax, "x")
    canvas.zero_line(ax, "y")
    ax.plot(0, 0, "*", color=GREY, markersize=11, linestyle="none", zorder=2)
    points, names, colours = [(0.0, 0.0)], ["single-task models"], [GREY]
    for smto in smtos:
        style: dict[str, Any] = {"color": LOOK[smto].colour, "marker": LOOK[smto].marker, "linewidths": 0}
        ax.scatter(across[smto], up[smto], s=14, alpha=0.35, zorder=2, **style)
        style |= {"edgecolor": "white", "linewidths": 0.7}
        mean = (across[smto].mean(), up[smto].mean())
        ax.scatter(*mean, s=75, zorder=4 if LOOK[smto].marker in THIN else 3, **style)
        if np.isfinite(mean).all():
            points.append(mean)
            names.append(look.label(smto))
            colours.append(LOOK[smto].colour)
    _equal_delta_m(ax)
    ax.set_xlabel(f"gain on {tasks[0]}, % (to the right: better)")
    ax.set_ylabel(f"gain on {tasks[1]}, % (up: better)")
    canvas.despine(ax, grid=None)
    canvas.label_points(ax, points, names, colours, fontsize=8)
    canvas.caption(
        ax,
        f"Gain over the single-task models on each task: large, mean of {captions.seeds(selected)}; small, a seed.",
        "Along a thin slanted line Δm, the mean of the two, is the same.",
        captions.chosen(settings, selected.smto),
    )
    return ax


def _equal_delta_m(ax: Axes) -> None:
    """Thin lines along which the mean of the two axes is the same, behind what is drawn, without moving the limits."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    levels = np.linspace((left + bottom) / 2, (right + top) / 2, 9)[1:-1]
    for level in levels:
        ax.plot([left, right], [2 * level - left, 2 * level - right], color="#ececec", linewidth=0.8, zorder=0)
    ax.set(xlim=(left, right), ylim=(bottom, top))


# -- tables ------------------------------------------------------------------------------------------------------------


def table_3(
    selected: pd.DataFrame,
    theirs: str = "table_3",
    settings: pd.DataFrame | None = None,
    spread: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Tables 3 and 4: gains and Δm, our mean and standard deviation over seeds, the paper's mean; the interval of
    the level of Δm, and the places that it may have.

    Args:
        selected: of one problem; the interval is shown where it has levels (`delta.with_levels`). theirs: the paper's
            table, whose columns are shown. settings: for the caption. spread: the columns that get a standard
            deviation; None is all of them.

    Returns:
        One row per method in order of display; its caption in `.attrs["caption"]`.
    """
    reference = published.table(theirs)
    columns, places = list(reference.columns), rankings.places(comparisons.by_seed(selected))
    rows, with_levels = [], f"{LEVEL}delta_m" in selected
    for smto in look.in_order(selected.smto):
        runs = selected[selected.smto == smto]
        row: dict[str, Any] = {"method": look.label(smto), "n": int(runs.delta_m.notna().sum())}
        for column in columns:
            name = look.NAMES.get(column, column)
            row[name] = runs[column].mean()
            if spread is None or column in spread:
                row[f"± {name}"] = runs[column].std(ddof=1)
            row[f"paper {name}"] = reference[column].get(smto.removesuffix("_transposed"), np.nan)
        if with_levels:
            row["Δm, 95 % interval"] = captions.level(runs[f"{LEVEL}delta_m"])
        rows.append(row | captions.place(places.loc[smto]))
    table = pd.DataFrame(rows).set_index("method")
    transposed = "imtl_transposed" in set(selected.smto)
    table.attrs["decimals"] = 2
    canvas.caption(
        table,
        f"""Gain over the single-task models in percent, higher is better; ±: standard deviation of single runs; paper:
        mean over {len(published.seeds(str(selected.problem.iloc[0]))[1])} runs.
        {"The paper ran IMTL transposed (D24); its numbers are in both rows." if transposed else ""}
        {captions.diverged(selected)} {captions.elsewhere(selected)} {captions.chosen(settings, selected.smto)}""",
    )
    return table


def table_of_differences(
    selected: pd.DataFrame, one_rate: pd.DataFrame, settings: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Each method minus Unit. Scal., at the learning rates that both have and at one rate for the two.

    Args:
        selected: of one problem. one_rate: the same as `comparisons.at_one_rate` gives it. settings: for the caption.

    Returns:
        One row per method in order of display; its caption in `.attrs["caption"]`.
    """
    own = selected.groupby("smto").config.first().map(lambda config: frames.setting(config, "lr"))
    as_run, matched = comparisons.paired(selected), comparisons.paired(one_rate)
    rates = one_rate.groupby("smto").rate.first()
    rows = []
    for smto in look.in_order(as_run.index):
        first, second = as_run.loc[smto], matched.loc[smto]
        known = second.n > 0
        rows.append(
            {
                "method": look.label(smto),
                "rates": f"{own[smto]:g}, {own['unit_scal']:g}" if own[smto] != own["unit_scal"] else f"{own[smto]:g}",
                "difference": first["mean"],
                "95 % interval": captions.interval(first.low, first.high),
                "n": int(first.n),
                "one rate": f"{rates[smto]:g}" if known else "no runs",
                "at one rate": second["mean"],
                "interval at one rate": captions.interval(second.low, second.high),
                "n at one rate": int(second.n),
            }
        )
    table = pd.DataFrame(rows).set_index("method")
    table.attrs["decimals"] = 2
    lacking = [row["method"] for row in rows if row["one rate"] == "no runs"]
    canvas.caption(
        table,
        "Test Δm minus that of Unit. Scal. in points, paired by seed, with the number of pairs: at the learning "
        "rates of both (method, Unit. Scal.), then at one.",
        f"No runs at one rate: {listed(lacking)}." if lacking else "",
        captions.chosen(settings, selected.smto),
    )
    return table


def table_of_settings(settings: pd.DataFrame, problem: str) -> pd.DataFrame:
    """Tables 6 to 10: the settings that were used, who chose them, and what the paper chose.

    Args:
        settings: one row per single task and method, with smto ("single_task" for a single-task model), task, lr,
            dropout, weight_decay, options, chosen.
        problem: whose table it is, e.g. "multimnist/CL_RR".

    Returns:
        One row per single task and method in order of display; its caption in `.attrs["caption"]`.
    """
    single = settings[settings.smto == "single_task"]
    order = look.in_order(settings.smto[settings.smto != "single_task"])
    ordered = pd.concat([single, *(settings[settings.smto == smto] for smto in order)])
    rows = []
    for row in ordered.itertuples():
        alone = row.smto == "single_task"
        rows.append(
            {
                "method": f"single task {row.task}" if alone else look.label(str(row.smto)),
                "lr": f"{row.lr:g}",
                "dropout": f"{row.dropout:g}",
                "weight decay": f"{row.weight_decay:g}",
                "own options": _options(row.options),
                "chosen": row.chosen,
                "paper's choice": _published(problem, str(row.smto), str(row.task) if alone else None),
            }
        )
    table = pd.DataFrame(rows).set_index("method")
    methods = settings[settings.smto != "single_task"]
    decay = "weight decay (wd), " if methods["weight_decay"].any() else ""
    canvas.caption(
        table,
        f"Hyperparameters of the runs behind the figures and tables of {look.problem_label(problem)}, and who chose "
        f"them; in the last column what the paper chose (its Table {published.table_number(problem)}): learning rate, "
        f"dropout, {decay}own options.",
        "No method here is regularised by dropout or weight decay (D47)."
        if not methods[["dropout", "weight_decay"]].to_numpy().any()
        else "",
    )
    return table


def _options(options: dict[str, Any]) -> str:
    def text(value: Any) -> str:
        if isinstance(value, list):
            return "[" + ", ".join(map(text, value)) + "]"
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    return ", ".join(f"{name} = {text(value)}" for name, value in options.items()) or "–"


def _published(problem: str, smto: str, task: str | None) -> str:
    try:
        if task is None:
            found = [published.best(problem, smto)]
        else:
            family = "multimnist" if problem.startswith("multimnist/") else problem
            found = list(published.single_task(f"{family}/{task}").values())
    except published.NotInPaper:
        return "not in the paper"
    texts = []
    for s in found:
        decay = [f"wd {s['weight_decay']:g}"] if s["weight_decay"] else []
        own = [_options(s["options"])] if s["options"] else []
        texts.append(", ".join([f"{s['lr']:g}", f"{s['dropout']:g}", *decay, *own]))
    return "; ".join(dict.fromkeys(texts))


def _scale(ax: Axes, scale: Scale, axis: Literal["x", "y"]) -> None:
    if scale == "symlog":
        setter, which = (ax.set_yscale, ax.yaxis) if axis == "y" else (ax.set_xscale, ax.xaxis)
        setter("symlog", linthresh=5, linscale=0.7)
        ticks = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
        which.set_major_locator(FixedLocator([*(-t for t in ticks), 0, *ticks]))
        which.set_minor_locator(NullLocator())
        which.set_major_formatter(lambda value, _: minus(f"{value:g}"))
