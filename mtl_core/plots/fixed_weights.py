"""Section 3.5 of the paper, weights that stay as they are: Figures 5 and 6, the front behind them, and its price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from mtl_core import metrics
from mtl_core.fronts import FRONT, SWEEP, comparable, expected_best, nondominated
from mtl_core.plots import look
from mtl_core.plots.look import BLUE, FAINT, GREEN, GREY, INK, LOOK, ORANGE, PURPLE, SKY, VERMILION
from mtl_core.plots.qm9 import SIGNS
from mtl_core.plots.selection import FEW, box
from mtl_core.weights import FEWEST
from mtl_core.words import number

TASK_HUES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
WEIGHTS = "Weights are those that the paper logs, averaged over the steps of an epoch and normalised to sum 1."


def _task_line(k: int) -> dict[str, Any]:
    """How the k-th task is drawn; a second round of the hues is dashed."""
    return {"color": TASK_HUES[k % 6], "linestyle": "-" if k < 6 else (0, (2.2, 1.2))}


def _epochs(ax: Axes) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set_xlabel("epoch")


def _beside(ax: Axes, **settings: Any) -> None:
    """A legend to the right of the axes."""
    ax.legend(bbox_to_anchor=(1.01, 1), loc="upper left", frameon=False, fontsize=8.5, labelspacing=0.35, **settings)


def _forest(ax: Axes, y: float, values: Sequence[float], colour: Any, marker: str, floor: float = -np.inf) -> None:
    """One row of a forest plot: mean, 95 % t interval, and a stroke per seed where they are few."""
    mean, low, high, n = metrics.t_interval(values)
    if n > 1:
        ax.plot([max(low, floor), high], [y, y], color=colour, linewidth=1.8, solid_capstyle="butt", zorder=2)
    if n <= FEW:
        ax.plot(values, np.full(len(values), y), "|", color=colour, markersize=8, alpha=0.55, zorder=2)
    ax.plot(mean, y, marker, color=colour, markersize=7, markeredgecolor="white", markeredgewidth=0.7, zorder=4)


def _rows(table: pd.DataFrame, value: str, ax: Axes | None, floor: float = -np.inf) -> Axes:
    """A forest plot of one column: a row per method, in it a marker per problem where there are several."""
    table = table[np.isfinite(table[value])]
    smtos, problems = look.in_order(table.smto), look.problems_in_order(table.problem)
    ax = ax or look.figure(7.5, 1.3 + 0.24 * len(smtos) * max(len(problems), 1.4))[1]
    step = 0.62 / max(len(problems), 1)
    for i, problem in enumerate(problems):
        of_problem = look.problem_line(problem)
        for y, smto in enumerate(smtos):
            values = table[(table.problem == problem) & (table.smto == smto)][value].to_numpy()
            one = len(problems) == 1
            colour, marker = (
                (LOOK[smto].colour, LOOK[smto].marker) if one else (of_problem["color"], of_problem["marker"])
            )
            if len(values):
                _forest(ax, y + step * (i - (len(problems) - 1) / 2), values, colour, marker, floor)
        if len(problems) > 1:
            ax.plot([], [], of_problem["marker"], color=of_problem["color"], label=of_problem["label"])
    ax.set_yticks(range(len(smtos)), [look.label(s) for s in smtos])
    ax.set_ylim(len(smtos) - 0.4, -0.6)
    if len(problems) > 1:
        ax.legend(frameon=False, fontsize=8.5, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    look.dress(ax, grid="x")
    return ax


def _interval_words(table: pd.DataFrame, value: str) -> str:
    table = table[np.isfinite(table[value])]
    few = table.groupby(["problem", "smto"]).size().min() <= FEW if len(table) else False
    return f"Mean over {look.seeds(table)} and 95 % t interval{'; the small strokes are the seeds' if few else ''}."


# -- Figures 5 and 6 ---------------------------------------------------------------------------------------------------


def figure_5(
    source: pd.DataFrame,
    fixed: Mapping[float, pd.DataFrame],
    ax: Axes | None = None,
    settings: pd.DataFrame | None = None,
) -> Axes:
    """Figure 5: Δm on QM9 of Nash-MTL, and of fixed weights taken from its runs at several learning rates.

    Args:
        source: `metrics.selected` of the method that the weights were taken from. fixed: the same of fixed weights, by
            the learning rate of the run that they came from, in order of display. settings: for the caption.
    """
    ax = ax or look.figure(1.6 + 1.25 * (len(fixed) + 1), 4)[1]
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
        look.zero_line(ax)
    look.dress(ax)
    rates = sorted({metrics.setting(config, "lr") for rows in fixed.values() for config in rows.config})
    look.caption(
        ax,
        f"Test Δm of {look.seeds(every)} each, at the epoch with the best validation Δm: median, quartiles, whiskers "
        "to the last value within 1.5 box lengths",
        "and one dot per seed." if source.seed.nunique() <= FEW else "and what lies beyond.",
        f"Dashes: the median of {look.label(smto)} (of the method itself, not of the uniform loss, D46). The fixed "
        f"weights are the last of the moving average of the weights of one {look.label(smto)} run; whatever its "
        f"learning rate, they are trained at {', '.join(f'{lr:g}' for lr in rates)} (D34).",
        look.diverged(every[every.smto == smto]),
        look.A_SEED,
        look.chosen(settings),
    )
    return ax


def figure_6(mnist: Any, city: Any, qm9: Sequence[Any], factor: float = 0.9) -> list[Axes]:
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
        names = _weights_of(ax, run, factor)
        ax.set_title(f"{letter} {_run_title(run)}", loc="left", fontsize=10)
        ax.set_ylabel("weight")
        ax.set_ylim(bottom=0)
        lines = [Line2D([], [], label=t, linewidth=2, **_task_line(k)) for k, t in enumerate(names)]
        place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": max(len(lines), 1)}
        ax.legend(handles=lines, frameon=False, fontsize=8.5, **place)
    panels = [found[f"c{i}"] for i in range(len(qm9))]
    names = []
    for ax, run in zip(panels, qm9, strict=True):
        names = _weights_of(ax, run, factor) or names
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
        lines = [Line2D([], [], label=SIGNS.get(t, t), linewidth=2, **_task_line(k)) for k, t in enumerate(names)]
        _beside(panels[-1], handles=lines)
    axes = [found["a"], found["b"], *panels]
    look.caption(
        axes[0],
        f"One run each. {WEIGHTS} Faint: epoch by epoch; strong: their exponential moving average with factor "
        f"{factor:g}, whose last value becomes the fixed weight. Where the strong line is level, the weights have "
        "settled; the average itself starts at the first epoch and needs some ten epochs to forget it.",
    )
    return axes


def _run_title(run: Any) -> str:
    return f"{look.label(run.config.smto)} on {look.problem_label(run.config.problem)}"


def _weights_of(ax: Axes, run: Any, factor: float) -> list[str]:
    """Epoch means and moving average of every task's weight; returns the tasks."""
    table = metrics.trajectories([run])
    names = list(table.task.unique())
    if names:
        weights = table.pivot(index="epoch", columns="task", values="weight")[names]
        for k, (name, average) in enumerate(zip(names, metrics.ema(weights, factor).T, strict=True)):
            line = _task_line(k)
            ax.plot(weights.index + 1, weights[name], color=line["color"], linewidth=1, alpha=0.4)
            ax.plot(weights.index + 1, average, linewidth=2, **line)
    _epochs(ax)
    look.dress(ax)
    return names


def extraction(run: Any, factor: float = 0.9) -> np.ndarray:
    """How fixed weights are taken from a run, in four steps.

    Args:
        run: of a method with weights. factor: of the moving average.

    Returns:
        The axes [4]: epoch means, normalised, moving average, last epoch.

    Raises:
        ValueError: the method has no weights.
    """
    fixed = metrics.fixed_weights(run, factor)
    names = list(fixed)
    normalised = metrics.trajectories([run]).pivot(index="epoch", columns="task", values="weight")[names].to_numpy()
    raw = np.array([metrics.epoch_weights(run.config.smto, record) for record in run.history])
    epochs, average = np.arange(1, len(raw) + 1), metrics.ema(normalised, factor)
    _, axes = look.figure(12, 3.1, columns=4)
    titles = ["1 epoch means", "2 divided by their sum", f"3 moving average, {factor:g}", "4 its last value"]
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title, loc="left", fontsize=10)
        look.dress(ax)
    for k, name in enumerate(names):
        line = {"linewidth": 1.6, **_task_line(k)}
        axes[0].plot(epochs, raw[:, k], **line)
        for ax, alpha in ((axes[1], 1.0), (axes[2], 0.25)):
            ax.plot(epochs[: len(normalised)], normalised[:, k], alpha=alpha, **line)
        axes[2].plot(epochs[: len(average)], average[:, k], **line)
        axes[3].barh(k, fixed[name], color=line["color"], alpha=0.8, hatch="///" if k > 5 else None, edgecolor="white")
        text = number(fixed[name], 3)
        axes[3].annotate(text, (fixed[name], k), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8)
    for ax in axes[:3]:
        _epochs(ax)
    for ax in axes[1:3]:
        ax.set_ylim(0, max(1.05 * normalised.max(), 0.1))
    axes[3].set_yticks(range(len(names)), [SIGNS.get(t, t) for t in names])
    axes[3].set(ylim=(len(names) - 0.5, -0.5), xlim=(0, 1.3 * max(fixed.values())), xlabel="fixed weight")
    axes[0].set_ylabel("weight")
    look.caption(
        axes,
        f"{_run_title(run)}, seed {run.config.seed}: from its weights to fixed ones. 1: the weights that the method "
        "gives, averaged over the steps of each epoch. 2: divided by their sum over tasks. 3: "
        f"m(e) = {factor:g} m(e − 1) + {number(1 - factor, 2).rstrip('0')} w(e), from m(0) = w(0). 4: m of the last "
        "epoch, one number per task in the colours of the lines.",
    )
    return axes


# -- the front ---------------------------------------------------------------------------------------------------------


def front(
    selected: pd.DataFrame,
    tasks: Sequence[str] = ("CL", "RR"),
    placed: pd.DataFrame | None = None,
    front_methods: Sequence[str] = FRONT,
    settings: pd.DataFrame | None = None,
) -> np.ndarray:
    """One task's gain against the other's: the front that fixed weights draw, and where every other method lies.

    Args:
        selected: of one problem, of the sweep several configurations. tasks: across and up.
        placed: `fronts.placed` of the same; its words then stand in the legend. settings: for the caption.

    Returns:
        The axes [2]: everything, and the part where the other methods and the uniform loss are.
    """
    _, axes = look.figure(12.5, 5, columns=2)
    columns = [x, y] = list(tasks)
    diverged = look.diverged(selected[~selected.smto.isin(front_methods)])
    selected = comparable(selected, tasks, front_methods)
    rates = _rates(selected[selected.smto.isin(front_methods)])
    for ax in axes:
        _draw_front(ax, selected, columns, front_methods, rates)
        ax.set_xlabel(f"gain on {x}, % (to the right: better)")
        look.dress(ax, grid=None)
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
            look.zero_line(ax, "x")
        if bottom <= 0 <= top:
            look.zero_line(ax, "y")

    blue, black = LOOK[SWEEP].colour, LOOK["unit_scal"].colour
    handles = [Line2D([], [], color=blue, linewidth=1.8, label="front of the sweep")]
    for i, rate in enumerate(rates):
        dot: dict[str, Any] = {"linestyle": "none", "marker": "*", "markersize": 9, "markeredgecolor": blue}
        name = f"fixed weights, learning rate {rate:g}" if len(rates) > 1 else "fixed weights"
        handles.append(Line2D([], [], markerfacecolor=_shade(blue, i, len(rates)), label=name, **dot))
    if "unit_scal" in set(selected.smto):
        name = look.label("unit_scal") + (" (the same shades)" if len(rates) > 1 else "")
        handles.append(Line2D([], [], color=black, linestyle="none", marker="o", markersize=8, label=name))
    for smto in look.in_order(set(selected.smto) - set(front_methods)):
        word = f": {placed.word[smto]}" if placed is not None and smto in placed.index else ""
        style: dict[str, Any] = {"color": LOOK[smto].colour, "marker": LOOK[smto].marker, "markersize": 7}
        handles.append(Line2D([], [], linestyle="none", label=look.label(smto) + word, **style))
    _beside(axes[1], handles=handles)
    words = ""
    if placed is not None:
        sd = ", ".join(f"{number(value, 2)} points on {task}" for task, value in placed.attrs["sd"].items())
        words = (
            f"Beyond, on, inside: against the front of the same seed, by more or less than {placed.attrs['margin']:g} "
            f"standard deviations of a seed ({sd})."
        )
    stars = selected[selected.smto == SWEEP].config.nunique()
    shades = (
        "Stars and the uniform loss: filled, at its own learning rate; hollow or pale, at the others. The other "
        "methods have one learning rate each, the sweep has all of them."
        if len(rates) > 1
        else ""
    )
    look.caption(
        axes,
        "Test gain over the single-task models on each task; the upper right is better. Large: mean of "
        f"{look.seeds(selected)}; small: a seed. Stars: {stars} configurations of fixed weights; thick line: the front "
        "of their means, thin lines: that of each seed; to its lower left everything is dominated. Black: the uniform "
        "loss, the point of equal weights.",
        shades,
        words,
        diverged,
        look.A_SEED,
        look.chosen(settings),
    )
    return axes


def _rates(sweep: pd.DataFrame) -> list[float]:
    """The learning rates of a sweep in the order of its runs, which begin with those at the uniform loss's own."""
    return list(dict.fromkeys(metrics.setting(config, "lr") for config in sweep.config))


def _shade(colour: Any, i: int, n: int) -> tuple[float, float, float]:
    """The i-th of n shades of a colour, from full to white."""
    part, (red, green, blue) = i / max(n - 1, 1), to_rgb(colour)
    return (1 - part) * red + part, (1 - part) * green + part, (1 - part) * blue + part


def _draw_front(
    ax: Axes, selected: pd.DataFrame, columns: list[str], front_methods: Sequence[str], rates: Sequence[float]
) -> None:
    x, y = columns
    sweep = selected[selected.smto.isin(front_methods)]
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
            if smto in front_methods and len(rates) > 1:
                i = rates.index(metrics.setting(str(config), "lr"))
                dot |= {"color": _shade(style.colour, i, len(rates)), "edgecolor": style.colour}
            ax.scatter(at[x], at[y], s=size, zorder=3 if smto == SWEEP else 4, **dot)


def table_of_placed(placed: pd.DataFrame, own: pd.DataFrame | None = None) -> pd.DataFrame:
    """`fronts.placed` as a table to read: a row per method in order of display; the caption in `.attrs["caption"]`.

    Args:
        own: `fronts.placed_at_own_rate` of the same runs; it then stands beside it.
    """
    rows = []
    for smto in look.in_order(placed.index):
        row = placed.loc[smto]
        cells = {
            "method": look.label(smto),
            "seeds": int(row.n),
            "excess": row.excess,
            "95 % interval": look.interval(row.low, row.high, 1),
            "a sweep point": row.yardstick,
            "reading": row.word,
        }
        if own is not None and smto in own.index:
            row = own.loc[smto]
            cells |= {
                "own rate": f"{row.lr:g}",
                "excess there": row.excess,
                "interval there": look.interval(row.low, row.high, 1),
                "a sweep point there": row.yardstick,
                "reading there": row.word,
            }
        rows.append(cells)
    table = pd.DataFrame(rows, columns=None if rows else ["method"]).set_index("method")
    tasks, margin = placed.attrs["tasks"], placed.attrs["margin"]
    sd = " and ".join(f"{number(placed.attrs['sd'][task], 2)} points on {task}" for task in tasks)
    table.attrs["decimals"] = 1
    table.attrs["caption"] = " ".join(
        f"""By how much each method is beyond (above 0) or inside (below 0) the front that
        {placed.attrs["sweep"]} configurations of fixed weights, the uniform loss among them, draw with the same seed,
        in standard deviations of a seed ({sd}): what every point of the front would have to gain on both tasks to be as
        good. Beyond or inside: by more than {margin:g} on average, with an interval that excludes 0; on: with the whole
        interval within ±{margin:g}. "A sweep point":
        the same for a point of the front against the rest of the sweep, in the median; a method that is beyond by less
        may just have met a gap between two weights. {
            "There: against that part of the sweep only which has the method's own learning rate. The whole sweep has "
            "several, a method has one, and a larger step moves a method, too."
            if own is not None
            else ""
        } {look.A_SEED}""".split()
    )
    return table


def budget(table: pd.DataFrame, ax: Axes | None = None, across: str = "cost") -> Axes:
    """What n runs buy: the sweep as a line, every method with one configuration as a point.

    Args:
        table: of `fronts.budget`. across: "cost" or "runs".
    """
    ax = ax or look.figure(8.5, 4.2)[1]
    measure = table.attrs.get("measure", "hypervolume")
    for smto in look.in_order(table.smto):
        over_seeds = table[table.smto == smto].groupby("runs")
        at, mean = over_seeds[across].mean(), over_seeds.value.mean()
        low, high = over_seeds.value.min(), over_seeds.value.max()
        style = {**look.line(smto), "linewidth": 1.4, "markersize": 7, "zorder": 3}
        if smto == SWEEP:
            style |= {"linestyle": "-", "linewidth": 2, "markersize": 10, "label": "sweep of fixed weights"}
        ax.plot(at, mean, markeredgecolor="white", markeredgewidth=0.6, **style)
        if len(at) > 1:
            ax.fill_between(at, low, high, color=LOOK[smto].colour, alpha=0.12, lw=0)
        else:
            ax.vlines(at, low, high, color=LOOK[smto].colour, linewidth=1.2, zorder=2)
    if measure == "hypervolume":
        ax.set_ylim(bottom=0)
    ax.set_xlim(left=0)
    ax.set_xlabel("cost, in runs of the uniform loss" if across == "cost" else "runs")
    names = {"hypervolume": "hypervolume, %² (higher is better)", "delta_m": "best Δm, % (higher is better)"}
    ax.set_ylabel(names[measure])
    _beside(ax)
    look.dress(ax)
    corner = " and ".join(f"{number(value, 1)} %" for value in table.attrs.get("reference", []))
    tasks = " and ".join(table.attrs.get("tasks", []))
    look.caption(
        ax,
        f"What n runs buy, with the configurations tried in random order: mean over {_seed_count(table)}, and from the "
        "least to the greatest seed.",
        f"Hypervolume: the area, in gains on {tasks}, that at least one of the n runs is better than, above {corner}."
        if measure == "hypervolume"
        else "Of n runs the one with the best validation Δm is read on test.",
        "A method with one configuration is a point.",
        "Cost: n times the price of a run." if across == "cost" else "",
        look.A_SEED,
    )
    return ax


def _seed_count(table: pd.DataFrame) -> str:
    n = table.seed.nunique()
    return f"{n} seed{'s' if n != 1 else ''}"


def utility(utilities: pd.DataFrame, tasks: Sequence[str] = ("CL", "RR"), ax: Axes | None = None) -> Axes:
    """Which method is best, for every way to weigh the two tasks: utility relative to the best, and who that is.

    Args:
        utilities: of `fronts.utilities`. tasks: as there.
    """
    ax = ax or look.figure(8.5, 4.4)[1]
    means = utilities.groupby(["u", "smto"]).utility.mean().unstack("smto")
    behind = means.sub(means.max(axis=1), axis=0)
    smtos = look.in_order(means.columns)
    for smto in smtos:
        style = {**look.line(smto), "linewidth": 2.4 if smto == SWEEP else 1.4}
        if smto == SWEEP:
            style |= {"linestyle": "-", "label": "best of the sweep"}
        ax.plot(behind.index, behind[smto], markersize=5, markevery=max(1, len(behind) // 8), **style)
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
    _beside(ax)
    look.dress(ax)
    changes = int((best != best.shift()).sum() - 1)
    look.caption(
        ax,
        f"Utility u · gain on {tasks[0]} + (1 − u) · gain on {tasks[1]}, test, mean over {_seed_count(utilities)}, "
        "minus that of the best method at this u. For every u the sweep takes the weights that are best on validation; "
        "every other method has what it has. The bar on top has the colour and, where there is room, the name of the "
        "best method, which changes "
        f"{changes} time{'s' if changes != 1 else ''} from left to right.",
        "Lines that leave the picture are far behind." if worst < shown else "",
        look.A_SEED,
    )
    return ax


# -- do weights settle? ------------------------------------------------------------------------------------------------


def drift(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Do weights settle? How much slower they move in the last third of training than in the first, per method.

    Args:
        table: of `weights.drift`, of one or several problems.
    """
    ax = _rows(table, "log_ratio", ax)
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
    look.caption(
        ax,
        f"Speed: how much the normalised weights change from epoch to epoch, mean over tasks. {WEIGHTS}",
        _interval_words(table, "log_ratio").replace("Mean", "Geometric mean"),
        "An interval wholly to the left of 1: they settle. The step size falls during training as well.",
        f"Without a value, as their weights do not move or they have none: {', '.join(dropped)}." if dropped else "",
        f"Trained too briefly to tell (fewer than {FEWEST} epochs): {', '.join(short)}." if short else "",
        look.A_SEED,
    )
    return ax


def static(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """How constant the weights are over the last 80 % of training: their coefficient of variation, per method.

    Args:
        table: of `weights.static_cv`, of one or several problems.
    """
    table = table[~table.smto.isin(FRONT)]  # constant by definition
    known = table[np.isfinite(table.cv)]
    short = [look.problem_label(p) for p in look.problems_in_order(table.problem) if p not in set(known.problem)]
    without = [look.label(smto) for smto in look.in_order(set(table.smto) - set(known.smto))]
    ax = _rows(table, "cv", ax, floor=0)
    ax.set_xlim(left=0)
    ax.set_xlabel("coefficient of variation of a weight (0: it is constant)")
    look.caption(
        ax,
        "Standard deviation over mean of each task's weight over the epochs of the last 80 % of training, mean over "
        f"tasks. {WEIGHTS} Means over an epoch hide what happens within it: weights drawn anew in every step count as "
        "nearly constant.",
        _interval_words(table, "cv"),
        f"Without weights to log: {', '.join(without)}." if without else "",
        f"Trained too briefly to tell (fewer than {FEWEST} epochs): {', '.join(short)}." if short else "",
        look.A_SEED,
    )
    return ax


def population(population: Any, ax: Axes | None = None) -> Axes:
    """How a population looks for weights: each member's share of the first task, and who took over from whom.

    With more than two tasks: the weights of the winner and of those that it came from, epoch by epoch.

    Args:
        population: a record of `population.populations`.
    """
    config, members, best = population.config, population.members, population.best
    tasks = [task.name for task in config.base.definition.tasks]
    ax = ax or look.figure(8.5, 4)[1]
    if len(tasks) == 2:
        _members(ax, members, best, tasks[0])
    else:
        _winner(ax, members, best, tasks)
    _epochs(ax)
    look.dress(ax)
    took = sum(parent is not None for member in members for parent in member.parent)
    every = "epoch" if config.block == 1 else f"{config.block} epochs"
    how = (
        f"every {every} the worst {100 * config.quantile:g} % take over the network of one of the best and change its "
        f"weights a little ({'once' if took == 1 else f'{took} times'} in all)"
    )
    copied = "A dotted line leads from the member that was copied. " if took else ""
    score = "" if best is None else f" (validation Δm {number(best.score, 1)} % after epoch {best.epoch + 1})"
    look.caption(
        ax,
        f"{len(members)} members train side by side on {look.problem_label(config.base.problem)}; {how}.",
        f"A line per member: its weight of {tasks[0]}, normalised to sum 1; brighter: better validation Δm, ranked "
        f"within the epoch. {copied}Star: the winner{score}."
        if len(tasks) == 2
        else f"The normalised weights of the winner{score}, of its forebears before it took over from them. Dotted "
        "verticals: where it did.",
        f"Black dashes: equal weights. In all {population.epochs_trained:,} epochs were trained.",
    )
    return ax


def _members(ax: Axes, members: Sequence[Any], best: Any, task: str) -> None:
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
    bar = look.figure_of(ax).colorbar(mpl.cm.ScalarMappable(cmap=colours), ax=ax, ticks=[0, 1], shrink=0.8)
    bar.ax.set_yticklabels(["worst", "best"])
    bar.set_label("validation Δm within the epoch")
    bar.outline.set_visible(False)


def _winner(ax: Axes, members: Sequence[Any], best: Any, tasks: Sequence[str]) -> None:
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
        ax.plot(
            np.arange(1, len(weights) + 1), weights[:, k], label=SIGNS.get(task, task), linewidth=2, **_task_line(k)
        )
    for at in taken:
        ax.axvline(at, color=GREY, linewidth=1, linestyle=(0, (1, 1.5)), zorder=1)
    ax.axhline(1 / len(tasks), color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    ax.set_ylim(bottom=0)
    ax.set_ylabel("weight of the winner")
    _beside(ax)


# -- regularisation ----------------------------------------------------------------------------------------------------


def regularised(runs: Sequence[Any], references: pd.DataFrame, tasks: Sequence[Any]) -> pd.DataFrame:
    """Δm of every run twice: at the epoch that validation chose (early stopping), and at the last epoch (none).

    Returns:
        The columns of `metrics.selected`, and dropout, weight_decay, early_stopping.
    """
    rules: dict[bool, Any] = {False: "last_epoch", True: "best_val_epoch"}
    rows = [
        metrics.selected(runs, references, tasks, rule=rule).assign(early_stopping=stops)
        for stops, rule in rules.items()
    ]
    table = pd.concat(rows, ignore_index=True)
    return table.assign(
        dropout=[float(metrics.setting(config, "dropout")) for config in table.config],
        weight_decay=[float(metrics.setting(config, "weight_decay")) for config in table.config],
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
    _, axes = look.figure(10, 4, columns=2, sharey=True)
    for ax, stops in zip(axes, (False, True), strict=True):
        for i, smto in enumerate(smtos):
            shift = 0.7 * ((i + 0.5) / len(smtos) - 0.5)
            means = []
            for x, (dropout, decay) in enumerate(settings):
                rows = table[(table.smto == smto) & (table.early_stopping == stops)]
                values = rows[(rows.dropout == dropout) & (rows.weight_decay == decay)].delta_m.dropna()
                means.append(values.mean() if len(values) else np.nan)
                at = np.full(len(values), x + shift)
                style = {"color": LOOK[smto].colour, "marker": LOOK[smto].marker}
                ax.scatter(at, values, s=13, alpha=0.45, linewidths=0, zorder=2, **style)
            ax.plot(np.arange(len(settings)) + shift, means, linestyle="none", markersize=7.5, markeredgecolor="white",
                    zorder=3, marker=LOOK[smto].marker, color=LOOK[smto].colour, label=look.label(smto))  # fmt: skip
        for x in range(1, len(settings)):
            ax.axvline(x - 0.5, color="#e9e9e9", linewidth=0.8, zorder=0)
        ax.set_xticks(range(len(settings)), [_setting_name(*s) for s in settings], fontsize=8)
        ax.set_xlim(-0.5, len(settings) - 0.5)
        ax.set_title("with early stopping" if stops else "last epoch", loc="left", fontsize=10)
        look.dress(ax)
    axes[0].set_ylabel("Δm, % (higher is better)")
    _beside(axes[1])
    look.caption(
        axes,
        f"Test Δm on {look.problem_label(str(table.problem.iloc[0]))}: large, mean over "
        f"{look.seeds(table.drop_duplicates(metrics.RUN))}; small, a seed. Left: at the last epoch; right: at the "
        "epoch with the best validation Δm. Across: dropout in encoder and heads, and weight decay. All against the "
        "same single-task models. The table below says by how much a method's lead over Unit. Scal. shrinks.",
        look.A_SEED,
    )
    return axes


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
    bare = metrics.differences(table[plain & ~table.early_stopping])
    full = table[table.early_stopping]
    best = metrics.differences(metrics.best_configurations(full))
    rows = []
    for smto in look.in_order(set(bare.columns) & set(best.columns)):
        without, with_it = metrics.t_interval(bare[smto]), metrics.t_interval(best[smto])
        change = metrics.t_interval(bare[smto] - best[smto])
        explained = without.low > 0 and with_it.low <= 0 <= with_it.high and change.low > 0
        row = {"method": look.label(smto), "seeds": change.n}
        for name, found in (("lead, none", without), ("lead, best for each", with_it), ("shrank by", change)):
            row |= {name: found.mean, f"{name}: 95 % interval": look.interval(found.low, found.high)}
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
    found.attrs["caption"] = " ".join(
        f"""Test Δm minus that of Unit. Scal. at the same seed, in points: mean over {look.seeds(full)}
        and 95 % t interval. None: no dropout, no weight decay, last epoch. Best for each: with early stopping, each
        method at the dropout and weight decay with the best mean validation Δm. "Explained" by regularisation: a lead
        above 0 without, none that can be told from 0 with it, and the difference between the two above 0. A lead
        remains: both above 0. No lead to explain: below 0 without. Cannot tell: anything else.
        {look.A_SEED}""".split()
    )
    return found


# -- luck, tuning, size ------------------------------------------------------------------------------------------------


def optimism(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Does validation flatter? Validation Δm minus test Δm at the epoch that validation chose, per method.

    Args:
        table: of `metrics.optimism`, of one or several problems.
    """
    ax = _rows(table, "optimism", ax)
    ax.axvline(0, color=GREY, linewidth=1, zorder=1)
    ax.set_xlabel("validation Δm − test Δm, points (to the right: validation flatters)")
    look.caption(
        ax,
        "Both at the epoch with the best validation Δm, each relative to the single-task models on the same split. One "
        "split may be easier than the other, for one task more than for the other, so this moves with a method's place "
        "between the tasks: it is no measure of luck by itself.",
        _interval_words(table, "optimism"),
        look.A_SEED,
    )
    return ax


def search_optimism(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Does searching more flatter more? The luck of the best of n configurations on validation, against n.

    Args:
        table: of `metrics.optimism`, of one problem, of a search: several configurations per method.
    """
    ax = ax or look.figure(7.5, 3.8)[1]
    table = table.dropna(subset=["luck"])
    for smto in look.in_order(table.smto):
        curves = [
            [expected_best(runs.val_delta_m, runs.luck, n) for n in range(1, len(runs) + 1)]
            for _, runs in table[table.smto == smto].groupby("seed")
        ]
        shortest = min(map(len, curves))
        values = np.array([curve[:shortest] for curve in curves])
        at = np.arange(1, shortest + 1)
        ax.plot(at, values.mean(axis=0), linewidth=1.6, markersize=5, **look.line(smto))
        if len(values) > 1:
            ax.fill_between(at, values.min(axis=0), values.max(axis=0), color=LOOK[smto].colour, alpha=0.1, lw=0)
    ax.axhline(0, color=GREY, linewidth=0.8, zorder=1)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set_xlabel("configurations tried")
    ax.set_ylabel("luck on validation, points")
    _beside(ax)
    look.dress(ax)
    look.caption(
        ax,
        "Of n configurations of a method, taken at random from its search, the one with the best validation Δm. Luck: "
        "how much better it looks there than on test, minus the same of this configuration at the other seeds, which "
        f"were not chosen. Mean over {_seed_count(table)}, from the least to the greatest. A line that rises: the more "
        "is tried, the more validation flatters. It is 0 by construction where all seeds choose alike, and flattery by "
        "the split, which all seeds share, cannot be seen here.",
        look.A_SEED,
    )
    return ax


def lr_vs_seed(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Does the choice of learning rates move a result more than the seed? The ratio of the two spreads, per method.

    Args:
        table: of `metrics.lr_vs_seed`.
    """
    table = table[np.isfinite(table.ratio)]
    smtos = look.in_order(table.index)
    ax = ax or look.figure(7.5, 1.2 + 0.36 * len(smtos))[1]
    ax.axvspan(6, 7, color="#eef3ee", zorder=0)
    ax.set_xscale("log")
    bounds = table[["ratio", "low", "high"]].to_numpy().ravel()
    bounds = [*bounds[np.isfinite(bounds) & (bounds > 0)], 1, 7]
    left, right = 0.7 * min(bounds), 1.5 * max(bounds)
    for y, smto in enumerate(smtos):
        row = table.loc[smto]
        colour = LOOK[smto].colour
        if np.isfinite(row.low):
            high = min(row.high, right)
            ax.plot([max(row.low, left), high], [y, y], color=colour, linewidth=1.8, solid_capstyle="butt", zorder=2)
            if row.high > right:
                ax.plot(0.97 * right, y, ">", color=colour, markersize=5, zorder=2)
        ax.plot(row.ratio, y, LOOK[smto].marker, color=colour, markersize=8, markeredgecolor="white", zorder=3)
    ax.axvline(1, color=GREY, linewidth=1, zorder=1)
    ax.set_xlim(left, right)
    look.plain_log_ticks(ax.xaxis)
    ax.set_yticks(range(len(smtos)), [look.label(s) for s in smtos])
    ax.set_ylim(len(smtos) - 0.4, -0.6)
    ax.set_xlabel("sd over learning rates / sd over seeds (right of 1: tuning moves more than luck)")
    look.dress(ax, grid="x")
    rates, seeds = (sorted({int(n) for n in table[name]}) for name in ("lrs", "seeds"))
    look.caption(
        ax,
        f"Standard deviation of Δm over {_span(rates)} learning rates, over that of {_span(seeds)} seeds at the best "
        "of them; line: 95 % bootstrap interval over seeds, with few seeds a rough one. An arrow: without upper bound. "
        "Shaded: 6 to 7, what Xin et al. (2022) found; theirs is the spread over grids of several rates each, with the "
        "best rate of each grid, ours that over single rates, so that the two are not the same statistic. With few "
        "seeds the line is no judge: resampling them mostly shrinks the spread between them. The verdict uses a "
        "jackknife.",
        look.A_SEED,
    )
    return ax


def _span(numbers: Sequence[int]) -> str:
    if not numbers:
        return "no"
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def compute_parity(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Would a larger network have been the better use of the time? Δm against the time of an epoch.

    The uniform loss with networks of several widths is a line for each learning rate, every other method, at the
    paper's width, a point.

    Args:
        table: of `fronts.with_cost`: width, lr, seconds and delta_m per run, of one problem.
    """
    ax = ax or look.figure(8.5, 4.2)[1]
    rates = table[table.smto == "unit_scal"].lr.drop_duplicates().tolist()
    for smto in look.in_order(table.smto):
        for lr, runs in table[table.smto == smto].groupby("lr", sort=False):
            over_seeds = runs.groupby("width")
            seconds, mean = over_seeds.seconds.median(), over_seeds.delta_m.mean()
            style = look.line(smto)
            for width, rows in over_seeds:
                at = np.full(len(rows), seconds[width])
                ax.scatter(
                    at, rows.delta_m, s=14, alpha=0.4, linewidths=0, color=style["color"], marker=style["marker"]
                )
            style |= {"markersize": 8, "markeredgecolor": "white", "markeredgewidth": 0.7, "zorder": 3}
            if smto == "unit_scal" and len(rates) > 1:
                shade = _shade(style["color"], rates.index(lr), len(rates))
                style |= {"markerfacecolor": shade, "markeredgecolor": style["color"]}
            if len(rates) > 1:
                style["label"] += f", {lr:g}"
            ax.plot(seconds, mean, **style)
            for width in seconds.index if len(seconds) > 1 else ():
                place = (seconds[width], mean[width])
                ax.annotate(f"× {width:g}", place, xytext=(6, -12), textcoords="offset points", fontsize=8.5)
    ax.set_xlim(left=0)
    ax.margins(y=0.12)
    ax.set_xlabel("seconds per epoch (to the left: cheaper)")
    ax.set_ylabel("Δm, % (higher is better)")
    _beside(ax)
    look.dress(ax)
    look.caption(
        ax,
        f"Test Δm against the time that an epoch took (median over runs, as recorded): large, mean over "
        f"{look.seeds(table)}; small, a seed. ×: the uniform loss with all channels, features and hidden "
        "units of the network so many times as wide; all others at × 1, and so the single-task models.",
        "The number behind a name is the learning rate: compare a method with the line of its own."
        if len(rates) > 1
        else "",
        "A method below that line, as far as the line reaches, would have been better served by a wider network.",
        look.A_SEED,
    )
    return ax
