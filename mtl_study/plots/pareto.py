"""Section 3.5 of the paper, what fixed weights reach: the front of a sweep, what its runs cost, and which method is
best for whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.typing import ColorType

from mtl_study import look
from mtl_study.analysis import frames
from mtl_study.analysis.fronts import FRONT, SWEEP, comparable, nondominated
from mtl_study.look import FAINT, GREY, LOOK
from mtl_study.plots import canvas, captions
from mtl_study.plots.canvas import legend_right
from mtl_study.words import counted, number

LEADING = 7  # so many methods have their colour in the figure of utilities, the others are faint


def front(
    selected: pd.DataFrame,
    tasks: Sequence[str] = ("CL", "RR"),
    placed: pd.DataFrame | None = None,
    settings: pd.DataFrame | None = None,
) -> np.ndarray:
    """One task's gain against the other's: the front that fixed weights draw, and every other method.

    Args:
        selected: of one problem, of the sweep several configurations. tasks: across and up.
        placed: `fronts.placed` of the same; its words are then in the legend. settings: for the caption.

    Returns:
        The axes [2]: everything, and the part where the other methods and the uniform loss are.
    """
    _, axes = canvas.figure(12.5, 5, columns=2)
    columns = [x, y] = list(tasks)
    diverged = captions.diverged(selected[~selected.smto.isin(FRONT)])
    selected = comparable(selected, tasks)
    rates = _rates(selected[selected.smto.isin(FRONT)])
    for ax in axes:
        draw_front(ax, selected, columns, rates)
        ax.set_xlabel(f"gain on {x}, % (to the right: better)")
        canvas.despine(ax, grid=None)
    axes[0].set_ylabel(f"gain on {y}, % (up: better)")
    inner = selected[selected.smto != SWEEP][columns]
    low, high = inner.min(), inner.max()
    slack = 0.08 * (high - low).clip(lower=0.1)
    axes[1].set(xlim=(low[x] - slack[x], high[x] + slack[x]), ylim=(low[y] - slack[y], high[y] + slack[y]))
    (left, right), (bottom, top) = axes[1].get_xlim(), axes[1].get_ylim()
    frame: dict[str, Any] = {"facecolor": "none", "edgecolor": GREY, "linewidth": 0.8, "zorder": 5}
    axes[0].add_patch(Rectangle((left, bottom), right - left, top - bottom, linestyle=(0, (2, 2)), **frame))
    axes[1].set_title("the dashed part, enlarged", loc="left", fontsize=10)
    for ax in axes:
        (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
        if left <= 0 <= right:
            canvas.zero_line(ax, "x")
        if bottom <= 0 <= top:
            canvas.zero_line(ax, "y")

    blue, black = LOOK[SWEEP].colour, LOOK["unit_scal"].colour
    handles = [Line2D([], [], color=blue, linewidth=1.8, label="front of the sweep")]
    for i, rate in enumerate(rates):
        dot: dict[str, Any] = {"linestyle": "none", "marker": "*", "markersize": 9, "markeredgecolor": blue}
        name = f"fixed weights, learning rate {rate:g}" if len(rates) > 1 else "fixed weights"
        handles.append(Line2D([], [], markerfacecolor=shade(blue, i, len(rates)), label=name, **dot))
    if "unit_scal" in set(selected.smto):
        name = look.label("unit_scal") + (" (the same shades)" if len(rates) > 1 else "")
        handles.append(Line2D([], [], color=black, linestyle="none", marker="o", markersize=8, label=name))
    for smto in look.in_order(set(selected.smto) - set(FRONT)):
        word = f": {placed.word[smto]}" if placed is not None and smto in placed.index else ""
        style: dict[str, Any] = {"color": LOOK[smto].colour, "marker": LOOK[smto].marker, "markersize": 7}
        handles.append(Line2D([], [], linestyle="none", label=look.label(smto) + word, **style))
    legend_right(axes[1], handles=handles)
    words = ""
    if placed is not None:
        words = f"Beyond, on, inside: by {placed.attrs['margin']:g} standard deviations, seed by seed."
    stars = selected[selected.smto == SWEEP].config.nunique()
    canvas.caption(
        axes,
        f"Large: means of {captions.seeds(selected)}; small: seeds. Stars: {stars} settings of unequal weights; thick "
        "line: the front of their means and the uniform loss's, thin: per seed.",
        "Hollow: not the uniform loss's published rate." if len(rates) > 1 else "",
        words,
        diverged,
        captions.chosen(settings, set(selected.smto) - set(FRONT), " of SMTOs"),
    )
    return axes


def objectives(
    selected: pd.DataFrame, tasks: Sequence[str] = ("CL", "RR"), settings: pd.DataFrame | None = None
) -> Axes:
    """The picture of the answer: every method, and the sweep of fixed weights at each of its learning rates, on the two
    gains, with the names at the points.

    Args:
        selected: of one problem; of the sweep and of the uniform loss several configurations. tasks: across and up.
        settings: for the caption.
    """
    _, ax = canvas.figure(8.5, 5.8)
    columns = [x, y] = list(tasks)
    selected = comparable(selected, tasks)
    selected = selected.assign(lr=[frames.setting(config, "lr") for config in selected.config])
    sweep, others = selected[selected.smto.isin(FRONT)], selected[~selected.smto.isin(FRONT)]
    rates = _rates(sweep)
    points: list[tuple[float, float]] = []
    passed: list[np.ndarray] = []
    names, colours = list[str](), list[str]()
    for i, rate in enumerate(rates):
        line = sweep[sweep.lr == rate].assign(share=sweep.config.map(_share)).groupby(["share", "smto"])[columns].mean()
        look_of: dict[str, Any] = {"color": LOOK[SWEEP].colour, "linestyle": (0, (3, 1.5)) if i else "-", "zorder": 2}
        ax.plot(
            line[x], line[y], marker="*", markersize=8, linewidth=1.4, label=f"fixed weights, rate {rate:g}", **look_of
        )
        steps = np.linspace(0, len(line) - 1, 40 * len(line))
        passed.append(np.stack([np.interp(steps, range(len(line)), line[task]) for task in columns], axis=1))
        if "unit_scal" in line.index.get_level_values("smto"):
            (sum_,) = line.xs("unit_scal", level="smto").to_numpy()
            ax.plot(*sum_, "o", color=LOOK["unit_scal"].colour, markersize=9, markeredgecolor="white", zorder=4)
            points.append((sum_[0], sum_[1]))
            names.append(look.label("unit_scal") + (f", rate {rate:g}" if len(rates) > 1 else ""))
            colours.append(LOOK["unit_scal"].colour)
    for smto in look.in_order(others.smto):
        runs, style = others[others.smto == smto], LOOK[smto]
        mean, sd = canvas.mean_and_sd(runs[columns])
        ax.errorbar(
            mean[x], mean[y], sd[y], sd[x], color=style.colour, elinewidth=0.7, alpha=0.35, fmt="none", zorder=1
        )
        ax.plot(mean[x], mean[y], style.marker, color=style.colour, markersize=8, markeredgecolor="white", zorder=3)
        points.append((mean[x], mean[y]))
        names.append(look.label(smto) + (f", rate {runs.lr.iloc[0]:g}" if runs.lr.iloc[0] != rates[0] else ""))
        colours.append(style.colour)
    low, high = np.min(points, axis=0), np.max(points, axis=0)
    slack = 0.12 * np.maximum(high - low, 0.1)
    ax.set(xlim=(low[0] - slack[0], high[0] + slack[0]), ylim=(low[1] - slack[1], high[1] + slack[1]))
    ax.set(xlabel=f"gain on {x}, % (to the right: better)", ylabel=f"gain on {y}, % (up: better)")
    canvas.despine(ax, grid="both")
    canvas.legend(ax, fontsize=8.5, loc="lower left")
    canvas.label_points(ax, points, names, colours, np.concatenate(passed), fontsize=8)
    canvas.caption(
        ax,
        f"Gain over the single-task models on each task: mean of {captions.seeds(selected)}; crosses: ± 1 standard "
        "deviation. Stars: fixed weights, joined in order; the ends are outside. Names without a rate have that of the "
        "first line.",
        captions.chosen(settings, set(selected.smto) - set(FRONT), " of SMTOs"),
    )
    return ax


def _share(config: str) -> float:
    """What the first of two tasks gets in a run of fixed weights; ½ where no weights are given."""
    first, second = frames.setting(config, "options").get("weights", (1, 1))
    return float(first / (first + second))


def _rates(sweep: pd.DataFrame) -> list[float]:
    """The learning rates of a sweep in the order of its runs, which begin with those at the uniform loss's own."""
    return list(dict.fromkeys(frames.setting(config, "lr") for config in sweep.config))


def shade(colour: ColorType, i: int, n: int) -> tuple[float, float, float]:
    """The i-th of n shades of a colour, from full to white."""
    part, (red, green, blue) = i / max(n - 1, 1), to_rgb(colour)
    return (1 - part) * red + part, (1 - part) * green + part, (1 - part) * blue + part


def draw_front(ax: Axes, selected: pd.DataFrame, columns: list[str], rates: Sequence[float]) -> None:
    x, y = columns
    sweep = selected[selected.smto.isin(FRONT)]
    means = sweep.groupby(["smto", "config"])[columns].mean()
    line = means[nondominated(means)].sort_values(x)
    colour = LOOK[SWEEP].colour
    for _, of_seed in sweep.groupby("seed"):
        own = of_seed[nondominated(of_seed[columns])].sort_values(x)
        ax.plot(own[x], own[y], color=colour, linewidth=0.8, alpha=0.3, zorder=1, drawstyle="steps-pre")
    ax.plot(line[x], line[y], color=colour, linewidth=1.8, zorder=2, drawstyle="steps-pre")
    for smto in look.in_order(selected.smto):
        rows, style = selected[selected.smto == smto], LOOK[smto]
        marker = "*" if smto == SWEEP else style.marker
        ax.scatter(rows[x], rows[y], s=12, alpha=0.35, linewidths=0, zorder=2, color=style.colour, marker=marker)
        size = {SWEEP: 75, "unit_scal": 110}.get(smto, 70)
        for config, at in rows.groupby("config")[columns].mean().iterrows():
            dot: dict[str, Any] = {"color": style.colour, "edgecolor": "white", "marker": marker, "linewidths": 0.7}
            if smto in FRONT and len(rates) > 1:
                i = rates.index(frames.setting(str(config), "lr"))
                dot |= {"color": shade(style.colour, i, len(rates)), "edgecolor": style.colour}
            ax.scatter(at[x], at[y], s=size, zorder=3 if smto == SWEEP else 4, **dot)


def table_of_placed(placed: pd.DataFrame, own: pd.DataFrame | None = None) -> pd.DataFrame:
    """`fronts.placed` as a table to read: a row per method in order of display; the caption in `.attrs["caption"]`.

    Args:
        own: `fronts.placed_at_own_rate` of the same runs; shown in further columns.
    """
    rows = []
    for smto in look.in_order(placed.index):
        row = placed.loc[smto]
        cells = {
            "method": look.label(smto),
            "seeds": int(row.n),
            "ε+": row.epsilon,
            "95 % interval": captions.interval(row.low, row.high, 1),
            "ε+ of a sweep point": row.yardstick,
            "reading": row.word,
        }
        if own is not None and smto in own.index:
            row = own.loc[smto]
            cells |= {
                "own rate": f"{row.lr:g}",
                "ε+ there": row.epsilon,
                "interval there": captions.interval(row.low, row.high, 1),
                "of a sweep point there": row.yardstick,
                "reading there": row.word,
            }
        rows.append(cells)
    table = pd.DataFrame(rows, columns=None if rows else ["method"]).set_index("method")
    tasks, margin = placed.attrs["tasks"], placed.attrs["margin"]
    sd = " and ".join(f"{number(placed.attrs['sd'][task], 2)} points on {task}" for task in tasks)
    table.attrs["decimals"] = 1
    canvas.caption(
        table,
        f"""ε+: how far the front of {placed.attrs["sweep"]} fixed-weight runs (equal ones too), same seed, must
        move on both tasks to reach the method, in standard deviations of a seed ({sd}). Beyond, inside: by
        over {margin:g}, interval without 0. On: interval within ±{margin:g}.
        {"There: the same for the sweep at the method's rate." if own is not None else ""}""",
    )
    return table


def budget(table: pd.DataFrame) -> Axes:
    """What n runs buy: the sweep as a line, every method with one configuration as a point; each with its name.

    Args:
        table: of `fronts.budget`.
    """
    _, ax = canvas.figure(8.5, 4.2)
    measure = table.attrs.get("measure", "hypervolume")
    table = table.assign(cost=table.groupby(["smto", "runs"]).cost.transform("mean"))  # it differs from seed to seed
    sweep = table.smto == SWEEP
    style: dict[str, Any] = {"errorbar": ("pi", 100), "markevery": 1, "markeredgewidth": 0.6, "zorder": 3}
    canvas.lines(ax, table[sweep], "cost", "value", linewidth=2, markersize=10, **style)
    ax.lines[-1].set_linestyle("-")
    canvas.lines(ax, table[~sweep], "cost", "value", linewidth=1.4, markersize=7, **style)
    over_seeds = table.groupby(["smto", "cost"]).value
    for (smto, at), values in over_seeds:  # a band has no width where there is one cost alone
        if table[table.smto == smto].cost.nunique() == 1:
            ax.vlines(at, values.min(), values.max(), color=LOOK[smto].colour, linewidth=1.2, zorder=2)
    passed = [(at, mean) for (_, at), mean in over_seeds.mean().items()]
    smtos = look.in_order(table.smto)
    last = over_seeds.mean().reset_index().groupby("smto").last()
    points = [(last.cost[smto], last.value[smto]) for smto in smtos]
    if measure == "hypervolume":
        ax.set_ylim(bottom=0)
    ax.set_xscale("log", base=2)  # methods cost one to three runs, and the sweep fourteen
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_xlabel("cost, in runs of the uniform loss")
    names = {"hypervolume": "hypervolume, %² (higher is better)", "delta_m": "best Δm, % (higher is better)"}
    ax.set_ylabel(names[measure])
    canvas.despine(ax)
    said = ["sweep of fixed weights" if smto == SWEEP else look.label(smto) for smto in smtos]
    canvas.label_points(ax, points, said, [LOOK[smto].colour for smto in smtos], passed, fontsize=8)
    corner = " and ".join(f"{number(value, 1)} %" for value in table.attrs.get("reference", []))
    tasks = " and ".join(table.attrs.get("tasks", []))
    canvas.caption(
        ax,
        f"What n runs buy, tried in random order: mean of {counted(table.seed.nunique(), 'seed')}, band and strokes: "
        "least to greatest.",
        f"Hypervolume: the area, in gains on {tasks}, that at least one of the n runs is better than, above {corner}."
        if measure == "hypervolume"
        else "Of n runs the one with the best validation Δm is read on test.",
        "Cost: n times the price of a run.",
    )
    return ax


def utility(utilities: pd.DataFrame, tasks: Sequence[str] = ("CL", "RR")) -> Axes:
    """Which method is best, for every way to weigh the two tasks: utility relative to the best, and who that is.

    Args:
        utilities: of `fronts.utilities`. tasks: as there.
    """
    _, ax = canvas.figure(8.5, 4.4)
    means = utilities.groupby(["u", "smto"]).utility.mean().unstack("smto")
    behind = means.sub(means.max(axis=1), axis=0)
    leading = {SWEEP, *means.idxmax(axis=1), *behind.mean().nlargest(LEADING).index}
    for smto in look.in_order(means.columns):
        style: dict[str, Any] = {**look.line(smto), "linewidth": 2.4 if smto == SWEEP else 1.4}
        if smto == SWEEP:
            style |= {"linestyle": "-", "label": "best of the sweep"}
        if smto not in leading:
            style = {"color": FAINT, "linewidth": 0.9, "zorder": 1, "marker": ""}
        ax.plot(behind.index, behind[smto], markersize=5, markevery=max(1, len(behind) // 8), **style)
    if len(leading) < len(means.columns):
        ax.plot([], [], color=FAINT, linewidth=0.9, label="the others")
    worst = float(behind.min().min())  # what is far behind may leave the picture, but not the sweep
    of_sweep = 1.05 * float(behind[SWEEP].min()) if SWEEP in behind else 0.0
    shown = max(1.05 * worst, min(2 * float(behind.median().median()), of_sweep, -0.1))
    height = 0.07 * abs(shown)
    best = means.idxmax(axis=1)
    edges = np.concatenate([[0], (best.index[1:] + best.index[:-1]) / 2, [1]])
    for _, part in best.groupby((best != best.shift()).cumsum()):
        smto, first = str(part.iloc[0]), best.index.get_loc(part.index[0])
        left, right = edges[first], edges[first + len(part)]
        bar: dict[str, Any] = {"color": LOOK[smto].colour, "edgecolor": "white", "linewidth": 0.8}
        ax.barh(1.2 * height, right - left, height, left=left, align="center", **bar)
        name = "the sweep" if smto == SWEEP else look.label(smto)
        place: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8, "color": "white"}
        if right - left > 0.012 * len(name) + 0.02:
            ax.text((left + right) / 2, 1.2 * height, name, **place)
    ax.set_ylim(shown, 2 * height)
    ax.set_xlim(0, 1)
    ax.set_xlabel(f"u, what {tasks[0]} is worth; {tasks[1]} is worth 1 − u")
    ax.set_ylabel("behind the best, points (up: better)")
    legend_right(ax)
    canvas.despine(ax)
    changes = int((best != best.shift()).sum() - 1)
    canvas.caption(
        ax,
        f"u · gain on {tasks[0]} + (1 − u) · gain on {tasks[1]}, mean of "
        f"{counted(utilities.seed.nunique(), 'seed')}, minus that of the best method (bar on top), which changes "
        f"{counted(changes, 'time')}. For every u the sweep takes the weights that are best on validation.",
        "Lines that leave the picture are far behind." if worst < shown else "",
    )
    return ax
