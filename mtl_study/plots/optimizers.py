"""The figures of notebook 07: how far units move a run, which methods notice them, and walks over the landscape."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import Tensor

from mtl_study.analysis.conflicts import SAMPLES, TASKS
from mtl_study.analysis.confounds import ALONE
from mtl_study.artifacts import NOISE
from mtl_study.experiments.corruptions import SEVERITIES, corrupt
from mtl_study.look import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LOOK,
    OPTIMIZERS,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    label,
    problem_label,
)
from mtl_study.plots import canvas
from mtl_study.plots.forest import draw_middle
from mtl_study.teaching import landscape
from mtl_study.teaching.fingerprint import BOTH, DIRECTION, UP_TO_SIGN
from mtl_study.teaching.landscape import Walks
from mtl_study.words import counted, number

FLOOR = 1e-17  # where what is exactly 0 is drawn
FRAME = 11  # of the landscape, from -11 to 11


def invariance_table(rows: pd.DataFrame) -> pd.DataFrame:
    """How far the two runs come apart, a row per setting, in words."""

    def shown(value: float) -> str:
        if np.isnan(value):
            return "–"
        if 0 < value < NOISE:
            return f"< {NOISE:.0e}"
        return "0" if value == 0 else number(value, 2) if value > 0.005 else f"{value:.0e}"

    table = pd.DataFrame(
        {
            "setting": rows.setting,
            "backbone": rows.backbone,
            "first step of the backbone": rows["first encoder"].map(shown),
            "its whole way": rows.encoder.map(shown),
            "first step of the heads": rows["first heads"].map(shown),
            "their whole way": rows.heads.map(shown),
            "equal at powers of two": ["yes" if bits else "no" for bits in rows.bits],
            "rounding alone": rows.control.map(shown),
        }
    ).set_index("setting")
    canvas.caption(
        table,
        "Losses times 10 and 0.1 against losses as they are: the difference of two runs over the length of the way, "
        "after the first and last step. Equal at powers of two: to the last bit with losses times 8 and ⅛ (with a "
        "matched start to rounding). Rounding alone: the heads' way where only the start differs, by 1e-15.",
    )
    return table


def sizes(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """How far factors of 10 and 0.1 move Adam's heads on a frozen backbone, a bar for each ε and weight decay."""
    ax = canvas.figure(7.5, 3.2)[1] if ax is None else ax
    of_eps = table.weight_decay.isna()
    names = [
        f"ε = {row.eps:.0e}" if eps else f"λ = {row.weight_decay:.0e}"
        for eps, row in zip(of_eps, table.itertuples(), strict=True)
    ]
    ax.bar(names, 100 * table["apart"], color=[BLUE if eps else VERMILION for eps in of_eps], width=0.65)
    for i, value in enumerate(100 * table["apart"]):
        ax.text(i, value, number(value, 1 if value < 10 else 0), ha="center", va="bottom", fontsize=8.5)
    ax.set_ylabel("heads come apart, % of their way")
    canvas.despine(ax)
    canvas.caption(
        ax,
        "Adam on a frozen backbone, losses times 10 and 0.1. Blue: ε, without weight decay; orange: decay λ in the "
        "gradient, with ε → 0. Adam(α, ε, λ) is Adam(1, ε/α, λ/α), so a larger ε or λ is what a smaller loss makes of "
        "it.",
    )
    return ax


def changing_weights(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """How far weights that change move Adam's heads, a dot per draw, over Adam's two memories."""
    ax = canvas.figure(6.5, 3.0)[1] if ax is None else ax
    settings = list(dict.fromkeys(table.betas))
    for offset, (kind, colour, marker) in zip(
        (-0.1, 0.1), (("random", BLUE, "o"), ("ramp", VERMILION, "s")), strict=True
    ):
        part = table[table.weights == kind]
        x = [settings.index(betas) + offset for betas in part.betas]
        ax.plot(x, part["apart"], marker, color=colour, markersize=5, alpha=0.8, label=kind)
    ax.set_xticks(range(len(settings)), [f"β = {a:g}, {b:g}" for a, b in settings])
    ax.set_ylim(bottom=0)
    ax.set_ylabel("distance / length of the path")
    canvas.legend(ax)
    canvas.despine(ax)
    canvas.caption(
        ax,
        "Heads on a frozen backbone under Adam (ε → 0): the distance between the path with weights that change and "
        "that with constant weights, over its length. Random: up to tenfold either way, every step; ramp: one "
        "weight from a tenth to ten, the other from ten to a tenth.",
    )
    return ax


def fingerprints(tables: Mapping[int, pd.DataFrame], ax: Axes | None = None) -> Axes:
    """The median cosine between a method's updates in two units, a row per method and a column per number of tasks.
    Marks say what is invariant."""
    order = pd.DataFrame({K: t.median_cosine for K, t in tables.items()})
    order = order.loc[order.mean(axis=1).sort_values(ascending=False, kind="stable").index]
    ax = canvas.figure(5.2, 0.27 * len(order) + 1.2)[1] if ax is None else ax
    image = ax.imshow(order, cmap="viridis", vmin=min(0.5, order.min().min()), vmax=1, aspect="auto")
    for i, method in enumerate(order.index):
        for j, K in enumerate(order):
            kept = tables[K].invariant[method]
            mark = {BOTH: " ◉", DIRECTION: " ●", UP_TO_SIGN: " ±"}.get(kept, "")
            dark = order.iloc[i, j] < 0.85
            ax.text(
                j,
                i,
                number(order.iloc[i, j], 2) + mark,
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else INK,
            )
    ax.set_xticks(range(len(order.columns)), [f"{K} tasks" for K in order])
    ax.set_yticks(range(len(order)), order.index)
    canvas.figure_of(ax).colorbar(image, ax=ax, label="median cosine", shrink=0.6)
    canvas.caption(
        ax,
        "Two updates of one method on the same random gradients, the second with the first two tasks' losses in other "
        "units (times 10 and 0.1). ◉ neither direction nor length changes, ● the direction stays, ± up to its sign.",
    )
    return ax


# -- runs --------------------------------------------------------------------------------------------------------------

OPTIMIZER = {  # colour, marker
    "adam": (BLUE, "o"),
    "sgd": (VERMILION, "s"),
    "signsgd": (GREEN, "^"),
    "muon": (PURPLE, "D"),
    "adamw": (SKY, "v"),
    "adam_per_task": (ORANGE, "P"),
}


def under_optimizers(best: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Δm of methods and single-task models under each optimizer at its best step size, a dot per seed."""
    ax = canvas.figure(7.5, 3.6)[1] if ax is None else ax
    methods = [*(m for m in dict.fromkeys(best.smto) if m != ALONE), ALONE]
    optimizers = [name for name in OPTIMIZER if name in set(best.optimizer)]
    for j, optimizer in enumerate(optimizers):
        colour, marker = OPTIMIZER[optimizer]
        for i, smto in enumerate(methods):
            rows = best[(best.smto == smto) & (best.optimizer == optimizer)]
            x = i + 0.16 * (j - (len(optimizers) - 1) / 2)
            face = colour if rows.inside.all() else "none"
            ax.plot([x] * len(rows), rows.delta_m, marker, color=colour, markerfacecolor=face, markersize=5)
        ax.plot([], [], marker, color=colour, label=OPTIMIZERS[optimizer])
    ax.set_xticks(range(len(methods)), ["single-task" if m == ALONE else label(m) for m in methods])
    ax.set_ylabel("Δm, % (higher is better)")
    canvas.zero_line(ax)
    canvas.despine(ax)
    canvas.legend_right(ax)
    canvas.caption(
        ax,
        "Δm against the best single-task models under Adam; a dot per seed, each pair at its best "
        "step size by validation. Hollow: that step size is the smallest or the largest that was tried.",
        _left_out(best),
    )
    return ax


def preferences(best: pd.DataFrame, tasks: Sequence[str], ax: Axes | None = None) -> Axes:
    """Where preferences lead under each optimizer: the gain in the second task over that in the first, a dot per seed,
    and a line between the means of the ends. Of `confounds.at_best` of `confounds.preferences`, of two tasks."""
    ax = canvas.figure(6.2, 3.8)[1] if ax is None else ax
    x, y = tasks
    ends, names, colours = [], [], []
    for optimizer, rows in best.groupby("optimizer", sort=False):
        colour, marker = OPTIMIZER[str(optimizer)]
        face = colour if rows.inside.all() else "none"
        ax.plot(rows[x], rows[y], marker, color=colour, markerfacecolor=face, markersize=5, label=OPTIMIZERS[optimizer])
        of = rows.groupby("smto", sort=False)[[x, y]]
        mean, low, high = of.mean(), of.min(), of.max()
        ax.plot(mean[x], mean[y], "-", color=colour, linewidth=1.2)
        right = mean[x] >= mean[x].mean()  # outside the dots, away from the line
        ends += list(zip(high[x].where(right, low[x]), mean[y], strict=True))
        names += list(map(str, mean.index))
        colours += [colour] * len(mean)
    ax.margins(x=0.3)
    ax.set_xlabel(f"gain in {x}, % (higher is better)")
    ax.set_ylabel(f"gain in {y}, % (higher is better)")
    canvas.despine(ax, "both")
    canvas.legend_right(ax)
    canvas.label_points(ax, ends, names, colours, avoid=best[[x, y]], fontsize=8)
    canvas.caption(
        ax,
        f"The uniform loss with the weights {x} : {y} on its losses, each at its best step size: gains over "
        "single-task models under Adam, a dot per seed, lines between means. The longer a line, the more preferences "
        "matter. Hollow: a best step size is the smallest or the largest that was tried.",
        _left_out(best),
    )
    return ax


def over_units(best: pd.DataFrame, arms: Sequence[tuple[str, str]], ax: Axes | None = None) -> Axes:
    """Δm over the factor on the last task's loss, a line per way to train: the mean over seeds."""
    ax = canvas.figure(7.5, 3.8)[1] if ax is None else ax
    drawn = best[[arm in set(arms) for arm in zip(best.smto, best.optimizer, strict=True)]]
    for smto, optimizer in arms:
        rows = drawn[(drawn.smto == smto) & (drawn.optimizer == optimizer)]
        mean = rows.groupby("factor").delta_m.mean()
        style: dict[str, Any] = {
            "color": LOOK[smto].colour,
            "linestyle": "--" if optimizer == "sgd" else "-",
            "marker": OPTIMIZER[optimizer][1],
        }
        style["markerfacecolor"] = style["color"] if rows.inside.all() else "none"
        ax.plot(mean.index, mean, label=f"{label(smto)}, {OPTIMIZERS[optimizer]}", markersize=5, linewidth=1.5, **style)
    ax.set_xscale("log")
    ax.set_xlabel("factor on the loss of the last task")
    ax.set_ylabel("Δm, % (higher is better)")
    canvas.zero_line(ax)
    canvas.despine(ax)
    canvas.legend_right(ax)
    canvas.caption(
        ax,
        "Δm, mean over seeds; the step size of each way to train is the best at the factor 1. A "
        "rule that does not notice units is a level line. Hollow: that step size is the smallest or the largest tried.",
        _left_out(drawn),
    )
    return ax


def _left_out(best: pd.DataFrame) -> str:
    """How many runs have no Δm, as they diverged before their first evaluation, and under which optimizers."""
    lost = best[best.delta_m.isna()]
    under = " and ".join(OPTIMIZERS[name] for name in OPTIMIZER if name in set(lost.optimizer))
    return f"Left out: {counted(len(lost), 'run')} that diverged, under {under}." if under else ""


BANDS = {"cosine": "cosine", "magnitude": "magnitude similarity", "left": "the same after\none constant weight"}


def bands(pairs: Mapping[str, pd.DataFrame]) -> np.ndarray:
    """Cosine and magnitude similarity of pairs of gradients, between tasks and between samples, by problem: the middle
    95 % of all looks, half of them thick, and the mean.

    Args:
        pairs: `conflicts.of_run` of all runs by problem.
    """
    _, axes = canvas.grid_of_axes(1, [1, 1, 1], 9.5, 0.7 * len(pairs) + 1.3)
    for ax, (column, name) in zip(axes.flat, BANDS.items(), strict=True):
        for i, table in enumerate(pairs.values()):
            for offset, between, colour in ((-0.14, TASKS, VERMILION), (0.14, SAMPLES, BLUE)):
                values = table[table.between == between][column]
                said = f"between {between}" if i == 0 else None
                draw_middle(ax, i + offset, values, values.mean(), colour, said)
        ax.set_yticks(range(len(pairs)), [problem_label(name) for name in pairs] if column == "cosine" else [])
        ax.set_ylim(len(pairs) - 0.5, -0.5)
        if column != "cosine":
            ax.set_xlim(0, 1.03)
            ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        ax.set_xlabel(name)
        canvas.despine(ax, "x")
    canvas.legend_right(axes.flat[2])
    canvas.caption(
        axes,
        "Pairs of gradients under the uniform loss and Adam: of two tasks on one sample (orange), of two samples for "
        "one task (blue). Line: the middle 95 %, thick: half, dot: mean. Magnitude similarity is 1 where both are "
        "equally long; in the third panel one weight per run makes lengths equal on average.",
    )
    return axes


# -- corrupted pictures ------------------------------------------------------------------------------------------------


def corrupted(picture: Tensor, severities: Sequence[int] = (1, 3, 5)) -> np.ndarray:
    """A picture [1, H, W] from 0 to 1 under every corruption, a row per severity."""
    _, axes = canvas.grid_of_axes(len(severities), [1] * len(SEVERITIES), 10.5, 1.1)
    for ax, (severity, name) in zip(axes.flat, itertools.product(severities, SEVERITIES), strict=True):
        generator = torch.Generator().manual_seed(severity)
        shown = corrupt(picture[None].contiguous(), name, severity, generator)[0, 0].numpy()
        ax.imshow(shown, cmap="gray", vmin=0, vmax=1)
        ax.set_xticks([])
        ax.set_yticks([])
        if severity == severities[0]:
            ax.set_title(name, fontsize=8)
        if name == next(iter(SEVERITIES)):
            ax.set_ylabel(f"severity {severity}", fontsize=8)
    canvas.caption(
        axes, "One test picture under ten corruptions (Hendrycks, Dietterich 2019, severities for 64 pixels)."
    )
    return axes


def transfers(runs: pd.DataFrame) -> np.ndarray:
    """δ and the difference of scores on corrupted pictures by task and method, a dot per seed; both below 0 where the
    multi-task features are ahead.

    Args:
        runs: `transfers.per_run`.
    """
    names = [column.removeprefix("delta ") for column in runs if column.startswith("delta ")]
    methods = list(dict.fromkeys(runs.smto))
    _, axes = canvas.grid_of_axes(1, [1, 1], 9.0, 0.32 * len(names) * len(methods) + 1.4)
    labels = []
    for row, (task, smto) in enumerate(itertools.product(names, methods)):
        labels.append(f"{task}, {label(smto)}")
        for ax, column in zip(axes.flat, ("delta", "difference"), strict=True):
            values = runs[runs.smto == smto][f"{column} {task}"]
            canvas.strip(ax, row, values, LOOK[smto].colour, LOOK[smto].marker)
    for ax, name in zip(axes.flat, ("δ, of the clean score", "difference, % of single-task"), strict=True):
        ax.set_yticks(range(len(labels)), labels if ax is axes.flat[0] else [])
        ax.set_ylim(len(labels) - 0.5, -0.5)
        ax.set_xlabel(f"{name}\n← multi-task ahead    single-task ahead →")
        canvas.zero_line(ax, "x")
        ax.locator_params(axis="x", nbins=6)
        canvas.despine(ax, "x")
    canvas.caption(
        axes,
        "Scores on corrupted pictures, heads tuned on such, mean over corruptions and severities; a dot per seed. "
        "Left, the paper's δ: corrupted over clean score, multi-task minus single-task for an error (RR), the reverse "
        "for accuracy (CL). Right: the same of the scores, in percent of the single-task model's.",
    )
    return axes


# -- the landscape -----------------------------------------------------------------------------------------------------


def toy_table(tables: Mapping[str, pd.DataFrame], published: pd.DataFrame) -> pd.DataFrame:
    """Steps until all starts have arrived: ours in each precision and the paper's, "–" where not all do."""
    rows = []
    for optimizer, method in published.index:
        for of, table in {"paper": published, **tables}.items():
            steps = ["–" if np.isnan(v) else f"{v:,.0f}" for v in table.loc[(optimizer, method)]]
            name = "Adam" if optimizer == "adam" else "GD"
            rows.append(
                {"optimizer": name, "method": label(method), "of": of}
                | dict(zip(map(_rate, table.columns), steps, strict=True))
            )
    table = pd.DataFrame(rows).set_index(["optimizer", "method", "of"])
    return table


def _rate(lr: float) -> str:
    return f"{lr:g}"


def toy_caption(steps: int, cap: int) -> str:
    """Of the table: what it counts, and how long we walked."""
    return (
        "Steps until the walks from all three starts have a mean loss below −15, by step size; –: not all have. The "
        f"paper stops after {cap:,} steps, we after {steps:,}. Below 0.1 paths are chaotic: another rounding, another "
        "number."
    )


def _seen_last(path: np.ndarray) -> np.ndarray:
    """The end of a path [T, 2] that begins in the frame; of one that ends outside, where it last crosses the edge."""
    inside = (np.abs(path) <= FRAME).all(axis=1)
    if inside[-1]:
        return np.asarray(path[-1])
    last = np.flatnonzero(inside)[-1]
    here, there = path[last], path[last + 1]
    out = np.abs(there) > FRAME
    edge = (np.sign(there[out]) * FRAME - here[out]) / (there - here)[out]
    return np.asarray(here + edge.min() * (there - here))


def paths(walks: Walks, which: Sequence[tuple[str, str]], lr: float) -> np.ndarray:
    """Walks from the three starts over the mean loss, a panel per optimizer and method, at one step size."""
    _, axes = canvas.grid_of_axes(1, [1] * len(which), 3.1 * len(which), 3.4)
    x, y = np.meshgrid(*[np.linspace(-FRAME, FRAME, 160)] * 2)
    heights = landscape.losses(np.stack([x, y], axis=-1)).mean(-1)
    for ax, (optimizer, method) in zip(axes.flat, which, strict=True):
        ax.contour(x, y, heights, 24, cmap="Greys", linewidths=0.6, alpha=0.7)
        rows = walks.plan.reset_index(drop=True)
        chosen = rows[(rows.optimizer == optimizer) & (rows.method == method) & (rows.lr == lr)]
        for row in chosen.itertuples():
            path = walks.paths[:, row.Index]
            arrived = row.steps == row.steps
            colour = LOOK[method].colour
            ax.plot(*path.T, color=colour, linewidth=1.3)
            ax.plot(*path[0], "o", color=GREY, markersize=5)
            ax.plot(*_seen_last(path), "*" if arrived else "x", color=colour, markersize=9, clip_on=False, zorder=5)
        ax.set(xlim=(-FRAME, FRAME), ylim=(-FRAME, FRAME), xticks=[], yticks=[])
        ax.set_title(f"{'Adam' if optimizer == 'adam' else 'Gradient descent'}, {label(method)}", fontsize=9.5)
    canvas.caption(
        axes,
        f"CAGrad's landscape, step size {lr:g}: lines of equal mean loss, walks from three starts (grey). A star: it "
        "has arrived, a cross: it has not when the walk ends (at the frame's edge where it has left).",
    )
    return axes
