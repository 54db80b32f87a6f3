"""The figures of notebook 08: who reaches an optimum where losses have weights, what κ tells, and who hurts a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mtl_study.look import GREY, INK, LOOK, SKY, VERMILION, in_order, label, problem_label
from mtl_study.plots import canvas
from mtl_study.teaching import grid, imbalance, landscape
from mtl_study.teaching.landscape import Walks
from mtl_study.words import listed, number

EXTENT = 11  # of the landscape, to all sides
ANGLES = (30, 60, 90, 150)  # in degrees
RULES = {"nash exact": "nash_mtl", "nash released": "nash_mtl"}  # names of rules that are not the key of a method


READINGS = {"code": "released code", "eq9": "equation 9", "eq11": "equation 11", "eq11_plain": "equation 11 by 10"}


def _arm(smto: str, c: float, reading: str) -> str:
    options = ([f"c = {c:g}"] if c != grid.NO_C else []) + ([READINGS[reading]] if reading != grid.NO_READING else [])
    return ", ".join([label(smto), *options])


def reached(tables: Mapping[str, pd.DataFrame]) -> np.ndarray:
    """Starts that reach the optimum: a row per method with its options, a column per weight and step size, the
    precisions one below the other.

    Args:
        tables: `grid.reached` by precision.
    """
    first = next(iter(tables.values()))
    order = in_order(first.smto)
    rank = {reading: place for place, reading in enumerate([grid.NO_READING, *READINGS])}
    arms = sorted(
        {*zip(first.smto, first.c, first.reading, strict=True)}, key=lambda a: (order.index(a[0]), a[1], rank[a[2]])
    )
    weights, rates = sorted(set(first.weight)), sorted(set(first.lr))
    columns = len(weights) * len(rates)
    _, axes = canvas.grid_of_axes(len(tables), [1], max(2.2 + 0.34 * columns, 5.0), 0.26 * len(arms) + 1.5)
    for ax, (precision, table) in zip(axes.flat, tables.items(), strict=True):
        by_arm = table.set_index(["smto", "c", "reading", "weight", "lr"]).reached
        counts = np.array([[[by_arm[(*arm, w, lr)] for lr in rates] for w in weights] for arm in arms])
        shown = counts.reshape(len(arms), columns)
        ax.imshow(shown, cmap="viridis", vmin=0, vmax=len(grid.STARTS), aspect="auto")
        for (i, j), count in np.ndenumerate(shown):
            ax.text(j, i, str(count), ha="center", va="center", fontsize=8, color="white" if count < 4 else INK)
        for k in range(1, len(weights)):
            ax.axvline(k * len(rates) - 0.5, color="white", linewidth=3)
        ax.set_xticks(range(columns), [f"{lr:g}" for lr in rates] * len(weights), rotation=90, fontsize=8)
        ax.set_xlabel("step size")
        ax.set_yticks(range(len(arms)), [_arm(*arm) for arm in arms], fontsize=8.5)
        for k, weight in enumerate(weights):
            x = (k + 0.5) * len(rates) - 0.5
            ax.text(x, -0.65, f"{weight:g} : {1 - weight:g}", ha="center", va="bottom", fontsize=8.5)
        ax.set_title(precision, fontsize=9.5, pad=16)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    canvas.caption(
        axes,
        f"Of {len(grid.STARTS)} starts, those from which Adam reaches the optimum of the weighted landscape (distance "
        f"below {landscape.NEAR:g}), by step size and, above, the weights of the two losses. Nash-MTL and IMTL-G do "
        "not see these weights; MGDA and PCGrad hardly move on where no step improves both losses.",
        "IMGrad: as released, and by its equations." if len(set(first.reading) - {grid.NO_READING}) > 1 else "",
    )
    return axes


def paths(walks: Walks, weight: float, lr: float) -> np.ndarray:
    """Every method's walks from five starts at one weight and step size, a panel each; CAGrad and IMGrad with the first
    of their options."""
    rows = walks.plan.reset_index(drop=True)
    rows = rows[(rows.weight == weight) & (rows.lr == lr)]
    methods = in_order(rows.smto)
    columns = (len(methods) + 1) // 2
    figure, axes = canvas.grid_of_axes(2, [1] * columns, 2.5 * columns, 2.65)
    for ax, smto in zip(axes.flat, methods, strict=False):
        own = rows[rows.smto == smto]
        own = own[(own.c == own.c.iloc[0]) & (own.reading == own.reading.iloc[0])]
        _seen_from_above(ax, walks, own, weight)
        ax.set_title(f"{_arm(*own.iloc[0][['smto', 'c', 'reading']])}: {own.steps.count()} of {len(own)}", fontsize=9)
    for ax in axes.flat[len(methods) :]:
        figure.delaxes(ax)
    canvas.caption(
        axes,
        f"Walks from five starts (grey) under Adam with a step size of {lr:g} and weights of {weight:g} and "
        f"{1 - weight:g} on the two losses. Orange star: the optimum of their sum; blue: the points at which no step "
        "improves both. A cross: the walk has not arrived when it ends. Titles: how many have.",
    )
    return axes


def race(walks: Walks, methods: Sequence[str], weight: float, lr: float) -> Axes:
    """The walks of some methods from the first start, at one weight and step size, on one landscape."""
    rows = walks.plan.reset_index(drop=True)
    rows = rows[(rows.weight == weight) & (rows.lr == lr) & (rows.start == 0)]
    own = pd.concat([rows[rows.smto == smto].head(1) for smto in in_order(methods)])
    _, ax = canvas.figure(6.2, 4.2)
    _seen_from_above(ax, walks, own, weight)
    ax.set_aspect("equal")
    for smto, c, reading in own[["smto", "c", "reading"]].itertuples(index=False):
        ax.plot([], [], color=LOOK[smto].colour, label=_arm(smto, c, reading))
    canvas.legend_right(ax)
    return ax


def _seen_from_above(ax: Axes, walks: Walks, own: pd.DataFrame, weight: float) -> None:
    """The weighted landscape, its optimum, and the walks in these rows of their plan."""
    x, y = np.meshgrid(np.linspace(-EXTENT, EXTENT, 160), np.linspace(-EXTENT, EXTENT, 160))
    heights = landscape.losses(np.stack([x, y], axis=-1)) @ [weight, 1 - weight]
    ax.contour(x, y, heights, 24, cmap="Greys", linewidths=0.6, alpha=0.7)
    ax.plot([-7, 7], [landscape.BEST[1]] * 2, color=SKY, linewidth=4, alpha=0.5, solid_capstyle="round")
    for row in own.itertuples():
        colour = LOOK[row.smto].colour
        path = walks.paths[:, row.Index]
        arrived = row.steps == row.steps
        ax.plot(*path.T, color=colour, linewidth=1.2)
        ax.plot(*path[0], "o", color=GREY, markersize=4.5)
        ax.plot(*path[-1], "o" if arrived else "x", color=colour, markersize=4 if arrived else 8)
    ax.plot(*landscape.optimum(weight), "*", color=VERMILION, markersize=11, markeredgecolor="white", zorder=5)
    ax.set(xlim=(-EXTENT, EXTENT), ylim=(-EXTENT, EXTENT), xticks=[], yticks=[])


def kappas(table: pd.DataFrame) -> np.ndarray:
    """κ over the ratio of lengths: two tasks with their formula, and more tasks.

    Args:
        table: `imbalance.measured`.
    """
    more = sorted(set(table.num_tasks) - {2})
    _, axes = canvas.grid_of_axes(1, [1] * (1 + len(more)), 4.0 * (1 + len(more)) + 1.8, 3.6)
    origins = list(dict.fromkeys(table.origin))
    shades = [mpl.colormaps["Blues"](shade) for shade in (0.35, 0.55, 0.75, 1.0)]  # darker: a longer part is shared
    looks = dict(zip(origins, (*zip(shades, "os^D", strict=True), *[(INK, "x")] * len(origins)), strict=False))
    for ax, tasks in zip(axes.flat, [2, *more], strict=True):
        part = table[table.num_tasks == tasks]
        for origin, own in part.groupby("origin", sort=False):
            colour, marker = looks[str(origin)]
            some = own.iloc[:: max(1, len(own) // 200)]
            name = "looks at runs" if marker == "x" else str(origin)
            ax.plot(some.ratio, some.kappa, marker, color=colour, markersize=3.5, alpha=0.55, label=name)
        if tasks == 2:
            ratios = np.geomspace(1, max(20.0, part.ratio.max()), 200)
            for angle in ANGLES:
                values = imbalance.kappa(ratios, np.full_like(ratios, np.cos(np.deg2rad(angle))))
                ax.plot(ratios, values, color=VERMILION, linewidth=1.2, label="formula")
                at, side = (len(ratios) - 1, "left") if angle <= 90 else (int(np.argmin(abs(values - 0.2))), "right")
                ax.annotate(f"{angle}°", (ratios[at], values[at]), fontsize=8, ha=side, va="center", color=VERMILION)
        ax.set_xscale("log")
        canvas.plain_log_ticks(ax.xaxis)
        ax.set_ylim(0, 1.03)
        ax.set_title(f"{tasks} tasks", fontsize=9.5)
        ax.set_xlabel("longest gradient over shortest")
        canvas.despine(ax, "both")
    axes.flat[0].set_ylabel("κ")
    handles, names = axes.flat[0].get_legend_handles_labels()
    once = dict(zip(names, handles, strict=True))
    canvas.legend_right(axes.flat[-1], handles=list(once.values()), labels=list(once))
    canvas.caption(
        axes,
        "κ, the cosine between the mean gradient and the shortest convex combination: a mark per Gramian, of random "
        "ones some 200 of a kind. Lines: the formula for two tasks, by the angle between their gradients. Random "
        "gradients have a part in common that is 0 to 2 times as long as what each has for itself (shared).",
    )
    return axes


def rule_name(rule: str) -> str:
    """Of a rule of `failures.per_run`, for a reader."""
    known = {"nash exact": "Nash-MTL, exact", "nash released": "Nash-MTL, released solver"}
    key, _, c = rule.partition(" ")
    return known.get(rule) or (f"{label(key)}, c = {c}" if c else label(key))


def hurt(per_run: pd.DataFrame, rules: Sequence[str]) -> np.ndarray:
    """The share of looks at which a rule's step would have hurt a task, a panel per problem where one did: a bar for
    the mean, a dot per run.

    Args:
        per_run: `failures.per_run`. rules: its columns that are shown, from top to bottom.
    """
    every = list(dict.fromkeys(per_run.problem))
    problems = [p for p in every if (per_run.loc[per_run.problem == p, list(rules)] > 0).any(axis=None)] or every
    spared = [problem_label(p) for p in every if p not in problems]
    _, axes = canvas.grid_of_axes(1, [1] * len(problems), 2.0 + 2.5 * len(problems), 0.27 * len(rules) + 1.2)
    highest = 100 * per_run[list(rules)].max(axis=None)
    for ax, problem in zip(axes.flat, problems, strict=True):
        runs = per_run[per_run.problem == problem]
        for i, rule in enumerate(rules):
            colour = LOOK[RULES.get(rule, rule.split()[0])].colour
            mean = 100 * runs[rule].mean()
            ax.barh(i, mean, color=colour, alpha=0.45, height=0.7)
            canvas.dots(ax, 100 * runs[rule], [i] * len(runs), colour, "o", "y", size=3, alpha=0.6)
            ax.text(1.05 * max(highest, 1), i, number(mean, 1), ha="left", va="center", fontsize=8)
        ax.set_yticks(range(len(rules)), [rule_name(r) for r in rules] if ax is axes.flat[0] else [], fontsize=8.5)
        ax.set_ylim(len(rules) - 0.5, -0.5)
        ax.set_xlim(0, 1.22 * max(highest, 1))
        ax.set_title(problem_label(problem), fontsize=9.5)
        ax.set_xlabel("looks that hurt a task, %")
        canvas.despine(ax, "x")
    canvas.caption(
        axes,
        "Looks at runs of the uniform loss: the share at which a method's step, on the same gradients, would have made "
        "a task's loss rise. Bar and number: the mean over runs; a dot per run.",
        f"No step hurts a task on {listed(spared)}." if spared else "",
    )
    return axes
