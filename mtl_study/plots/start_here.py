"""The figures of notebook 00: gradients as arrows.

All arrows point downhill: a task's arrow is −g_k, the way a step on that task alone would go, and a method's arrow is
−d, the step that it takes. Tasks are grey and numbered; a method has its own colour, as everywhere.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon
from matplotlib.typing import LineStyleType
from numpy.typing import ArrayLike

from mtl_core import smtos
from mtl_core.smtos.base import ProblemInfo
from mtl_study.look import FAINT, GREY, INK, LOOK, label, line
from mtl_study.plots.canvas import caption, despine, figure, legend, legend_entry
from mtl_study.teaching.toys import Pair, Toy, Walk, weigh
from mtl_study.words import minus

DARK = "#4d4d4d"
TASKS = (DARK, GREY)  # task 1 dark, task 2 lighter
PULLS = "PuOr"  # of pulls; the weights, another quantity, are drawn in "RdBu" (notebook 06)
DASHES: tuple[LineStyleType, ...] = ("-", (0, (3, 2)))


# -- arrows ------------------------------------------------------------------------------------------------------------


def arrow(
    ax: Axes, tail: ArrayLike, head: ArrayLike, colour: str, width: float = 1.5, size: float = 11, **more: Any
) -> None:
    """An arrow from point to point, in data coordinates; a dot where it has no length."""
    if np.allclose(tail, head):
        ax.plot(*np.asarray(tail), "o", color=colour, markersize=2 + width, **more)
        return
    more = {"zorder": 3, **more}
    patch = FancyArrowPatch(
        tuple(np.asarray(tail)),
        tuple(np.asarray(head)),
        arrowstyle="-|>",
        mutation_scale=size,
        shrinkA=0,
        shrinkB=0,
        color=colour,
        lw=width,
        **more,
    )
    patch.set_in_layout(False)  # it is inside the axes; to measure hundreds of arrows would take seconds
    ax.add_patch(patch)


def task_arrows(
    ax: Axes,
    tail: ArrayLike,
    gradients: np.ndarray,
    labels: Sequence[str] = ("−g₁", "−g₂"),
    gap: float = 12,
    **more: Any,
) -> None:
    """Where every task alone would go from `tail`: −g_k, with its name beyond the head."""
    for colour, gradient, name in zip(TASKS, gradients, labels, strict=True):
        head = np.asarray(tail) - gradient
        arrow(ax, tail, head, colour, **more)
        towards = -gradient / np.linalg.norm(gradient)
        ax.annotate(
            name,
            head,
            xytext=gap * towards,
            textcoords="offset points",
            color=colour,
            ha="center",
            va="center",
            fontsize=10,
        )


def next_to(ax: Axes, point: np.ndarray, along: np.ndarray, text: str, colour: str, side: int) -> None:
    """A text next to an arrow that points `along`: to its left (side 1) or right (−1), looking along the arrow."""
    x, y = 15 * side * along / np.linalg.norm(along)
    ax.annotate(
        text,
        (float(point[0]), float(point[1])),
        xytext=(-y, x),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=9,
        color=colour,
    )


def bare(ax: Axes) -> Axes:
    """No frame, no ticks, both axes on one scale."""
    ax.set_aspect("equal")
    ax.axis("off")
    return ax


# -- 1. what it is about -----------------------------------------------------------------------------------------------


def shared_encoder() -> Axes:
    """One encoder, two heads, two losses; forward in grey, gradients back in the tasks' shades."""
    _, ax = figure(8, 3.1)
    boxes = {
        "input": (0.0, 0, "a batch\nof inputs", "white"),
        "encoder": (2.1, 0, "shared encoder\nparameters θ", "#ececec"),
        "head 1": (5.0, 0.95, "head 1", "white"),
        "head 2": (5.0, -0.95, "head 2", "white"),
        "loss 1": (7.2, 0.95, "loss L₁", "white"),
        "loss 2": (7.2, -0.95, "loss L₂", "white"),
    }
    half = {"encoder": 0.95, "input": 0.7}
    for name, (x, y, text, fill) in boxes.items():
        width, height = half.get(name, 0.6), 0.55 if name in half else 0.36
        ax.add_patch(
            FancyBboxPatch(
                (x - width, y - height),
                2 * width,
                2 * height,
                boxstyle="round,pad=0.04",
                facecolor=fill,
                edgecolor=DARK,
                lw=1,
            )
        )
        ax.text(x, y, text, ha="center", va="center", fontsize=10)
    arrow(ax, (0.78, 0), (1.08, 0), FAINT)
    for side, colour, k in ((1, TASKS[0], "₁"), (-1, TASKS[1], "₂")):
        arrow(ax, (3.12, 0.22 * side), (4.34, 0.82 * side), FAINT)
        arrow(ax, (5.68, 0.85 * side), (6.52, 0.85 * side), FAINT)
        back = {"width": 2.0, "size": 13}
        arrow(ax, (6.52, 1.08 * side), (5.68, 1.08 * side), colour, **back)
        arrow(ax, (4.34, 1.1 * side), (3.12, 0.5 * side), colour, **back)
        ax.text(3.55, 1.1 * side, f"g{k} = ∂L{k}/∂θ", color=colour, ha="center", va="center", fontsize=10)
    ax.text(3.86, 0, "features z", color=GREY, fontsize=9, ha="center", va="center")
    ax.set(xlim=(-0.85, 7.95), ylim=(-1.55, 1.55))
    caption(ax, "Two tasks on one encoder. Light arrows: the forward pass. Dark arrows: the gradients that come back.")
    return bare(ax)


def agreement_and_conflict(
    pairs: Sequence[tuple[float, float]] = ((40, 1), (90, 1), (140, 1), (140, 0.4)),
) -> np.ndarray:
    """Pairs of gradients with some angle and length of the second, their mean, and where task 2 gets worse."""
    _, axes = figure(9.5, 2.5, len(pairs))
    for ax, (angle, length) in zip(axes, pairs, strict=True):
        radians = np.deg2rad(angle)
        first, second = np.array([1.0, 0.0]), np.array([np.cos(radians), np.sin(radians)])
        along = 5 * np.array([second[1], -second[0]])  # where task 2 stays as it is
        ax.add_patch(Polygon([along, along - 5 * second, -along - 5 * second, -along], color="#f0f0f0", lw=0, zorder=0))
        ax.plot(*np.stack([-along, along]).T, color=FAINT, lw=0.8, zorder=1)
        task_arrows(ax, (0, 0), -np.stack([first, length * second]))
        mean = (first + length * second) / 2
        arrow(ax, (0, 0), mean, LOOK["unit_scal"].colour, width=2)
        ax.set(xlim=(-1.05, 1.4), ylim=(-0.4, 1.3))
        bare(ax)
        word = "they agree" if angle < 90 else "unrelated" if angle == 90 else "conflict"
        worse = mean @ second < -1e-9
        ax.set_title(f"{angle:.0f}°: {word}" + (", and the\nmean makes task 2 worse" if worse else "\n"), fontsize=10)
    caption(axes, "Two gradients, downhill. Black: their mean. Shaded: steps that make task 2 worse, to first order.")
    return axes


# -- 2. the toy --------------------------------------------------------------------------------------------------------


def landscape(toy: Toy, ax: Axes, reach: tuple[float, float, float, float] = (-2.9, 3.9, -1.7, 2.9)) -> Axes:
    """Contours of both losses, their minima and the Pareto set."""
    x, y = np.meshgrid(np.linspace(*reach[:2], 200), np.linspace(*reach[2:], 160))
    losses = toy.losses(np.stack([x, y], axis=-1))
    for k, bowl in enumerate(toy.bowls):
        above = losses[..., k] - losses[..., k].min()
        levels = above.max() * np.array([0.01, 0.04, 0.09, 0.16, 0.25, 0.36, 0.49, 0.64, 0.81])
        ax.contour(x, y, above, levels, colors=[TASKS[k]], linewidths=0.7, linestyles=[DASHES[k]], alpha=0.55, zorder=1)
        ax.plot(*bowl.minimum, "x", color=TASKS[k], markersize=7, markeredgewidth=2, zorder=4)
        ax.annotate(
            f"minimum of L{'₁₂'[k]}",
            bowl.minimum,
            xytext=(0, (-13, 10)[k]),
            textcoords="offset points",
            ha="center",
            color=TASKS[k],
            fontsize=9,
            zorder=5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
        )
    ax.plot(*toy.pareto_set().T, color=FAINT, lw=6, solid_capstyle="round", zorder=2)
    ax.set(xlim=reach[:2], ylim=reach[2:], xlabel="θ₁", ylabel="θ₂")
    ax.set_aspect("equal")
    return despine(ax, grid=None)


def one_step(toy: Toy, theta: ArrayLike, weights: Mapping[str, np.ndarray], scale: float = 0.35) -> Axes:
    """The gradients at θ and the updates that these weights make of them, drawn `scale` times as long."""
    _, ax = figure(8, 5.2)
    landscape(toy, ax)
    theta = np.asarray(theta, dtype=float)
    jacobian = scale * toy.jacobian(theta)
    task_arrows(ax, theta, jacobian)
    for smto, w in weights.items():
        arrow(ax, theta, theta - w @ jacobian, LOOK[smto].colour, width=2.2, size=14)
    ax.plot(*theta, "o", color=INK, markersize=5, zorder=6)
    handles = [Line2D([], [], color=LOOK[s].colour, lw=2.2, label=f"−d, {label(s)}") for s in weights]
    legend(ax, handles=handles, loc="lower right", frameon=True, framealpha=0.9, edgecolor="none")
    caption(
        ax,
        "Solid contours: L₁. Dashed: L₂. Broad grey band: the Pareto set, where no step improves both.",
        f"Arrows are {scale:g} times as long as the gradients.",
    )
    return ax


def walks(toy: Toy, walked: Mapping[str, Sequence[Walk]]) -> np.ndarray:
    """Where each method goes from each start: in the plane of the parameters, and in that of the losses."""
    fig, axes = figure(10, 4.6, 2, width_ratios=(1.35, 1))
    plane, losses = axes
    landscape(toy, plane)
    losses.plot(*toy.losses(toy.pareto_set()).T, color=FAINT, lw=6, solid_capstyle="round", zorder=2)
    for smto, several in walked.items():
        style = {**line(smto), "marker": "", "lw": 1.6, "zorder": 3}
        for walk in several:
            for ax, path in ((plane, walk.points), (losses, walk.losses)):
                ax.plot(*path.T, **style)
                ax.plot(*path[-1], **{**line(smto), "markersize": 7, "markeredgecolor": "white", "zorder": 5})
                ax.plot(*path[0], "o", color=INK, markersize=5, zorder=6)
    ends = np.array([walk.losses for several in walked.values() for walk in several])
    losses.set(xlabel="L₁", ylabel="L₂", xlim=(0, 1.05 * ends[..., 0].max()), ylim=(0, 1.05 * ends[..., 1].max()))
    despine(losses, grid="both")
    handles = [legend_entry(smto) for smto in walked]
    legend(fig, handles=handles, loc="outside lower center", ncols=len(walked))
    caption(
        axes,
        "Left: the paths over the contours of both losses. Right: the same paths as losses. Black dots: starts.",
        "Broad grey band: the Pareto set, beyond which nothing can be had.",
    )
    return axes


def ends(toy: Toy, walked: Mapping[str, Sequence[Walk]]) -> pd.DataFrame:
    """The losses where the walks end, the angle between the gradients there, and how far apart a method's ends are."""
    rows = []
    for key, several in walked.items():
        row: dict[str, Any] = {"method": label(key)}
        for number, walk in enumerate(several, start=1):
            row |= {f"L₁, start {number}": walk.losses[-1, 0], f"L₂, start {number}": walk.losses[-1, 1]}
        angles = [Pair.of(toy.gramian(walk.points[-1]), walk.losses[-1]).angle for walk in several]
        row["smallest angle"] = min(angles)
        row["distance of the ends"] = np.linalg.norm(several[0].points[-1] - several[-1].points[-1])
        rows.append(row)
    table = pd.DataFrame(rows).set_index("method")
    caption(
        table,
        "Losses at the end of each walk; the angle between the two gradients there, in degrees (180: on the Pareto "
        "set); the distance in θ between the ends from the two starts (0: the start does not matter).",
    )
    table.attrs["decimals"] = {"smallest angle": 0, **{c: 2 for c in table.columns if c != "smallest angle"}}
    return table


# -- 3. every method on one page ---------------------------------------------------------------------------------------


def catalogue(keys: Sequence[str]) -> pd.DataFrame:
    """What each method reads and what it does, as its page says."""
    rows = []
    for key in keys:
        page = inspect.getdoc(inspect.getmodule(smtos.get(key))) or ""
        does = page.split("\n\n")[0].partition(": ")[2]
        rows.append({"method": label(key), "reads": reads(key), "what it does": does[:1].upper() + does[1:]})
    table = pd.DataFrame(rows).set_index("method")
    caption(table, "From the methods' own files in mtl_core/smtos; several methods may share a file.")
    return table


def grid(keys: Sequence[str], pairs: Sequence[Pair], options: Mapping[str, dict[str, Any]] | None = None) -> Axes:
    """A row per method, or per methods whose steps have one direction in all columns; a column per pair of gradients:
    the two gradients in grey, the step in the method's colour, the shares of the tasks in the weights below, and which
    task the step makes worse."""
    weights = {key: [weights_of(key, pair, (options or {}).get(key, {})) for pair in pairs] for key in keys}
    rows = _together(keys, lambda one, other: all(map(_same_direction, weights[one], weights[other])))
    width, height, left = 2.5, 1.9, 2.9  # of a cell and of the names, in lengths of the column's longer gradient
    inches, line_height = 0.54, 0.3
    _, ax = figure((left + width * len(pairs)) * inches, (height * len(rows) + 1.2) * inches)
    for row, members in enumerate(rows):
        top, colour = -height * row, LOOK[members[0]].colour
        ax.axhline(top, color="#e9e9e9", lw=0.8)
        first = top - (height - line_height * len(members)) / 2
        for i, key in enumerate(members):
            style: dict[str, Any] = {"fontsize": 10.5, "color": LOOK[key].colour, "weight": "bold"}
            ax.text(0.1, first - line_height * i, label(key), ha="left", va="center", **style)
        said = " or ".join(dict.fromkeys(reads(key).removeprefix("gradients on ") for key in members))
        said = f"gradients on {said}" if reads(members[0]).startswith("gradients") else said
        below = first - line_height * len(members)
        ax.text(0.1, below, f"reads: {said}", ha="left", va="center", fontsize=8, color=GREY)
        for column, pair in enumerate(pairs):
            tail = np.array([left + width * (column + 0.5), top - 1.2])
            gradients = pair.gradients / np.linalg.norm(pair.gradients, axis=1).max()
            for gradient, shade, name in zip(gradients, TASKS, "12", strict=True):
                arrow(ax, tail, tail - gradient, shade, width=1, size=7)
                beyond = tail - gradient * (1 + 0.14 / np.linalg.norm(gradient))
                ax.text(*beyond, name, color=shade, fontsize=7.5, ha="center", va="center")
            draws = weights[members[0]][column]
            style = {"width": 1.9, "size": 9} if len(draws) == 1 else {"width": 0.6, "size": 5, "alpha": 0.5}
            for w in draws:
                arrow(ax, tail, tail + step(pair, w, 0.85), colour, **style)
            note = "at random" if len(draws) > 1 else "  ".join(short(x) for x in draws[0] / draws[0].sum())
            ax.text(tail[0], tail[1] - 0.12, note, ha="center", va="top", fontsize=9)
            if len(draws) == 1 and (hurt := made_worse(pair, draws[0])):
                ax.text(tail[0], tail[1] - 0.37, f"{hurt} worse", ha="center", va="top", fontsize=8, weight="bold")
    for column, pair in enumerate(pairs):
        ax.text(left + width * (column + 0.5), 0.1, title(pair), ha="center", va="bottom", fontsize=9, linespacing=1.35)
    ax.set(xlim=(0, left + width * len(pairs)), ylim=(-height * len(rows), 1.2))
    caption(
        ax,
        "Grey arrows: the two gradients, downhill. Coloured arrow: the step, always drawn equally long; methods in one",
        "row share its direction. Numbers: the shares of task 1 and task 2 in the weights.",
        '"2 worse": the step raises the loss of task 2, to first order.',
    )
    return bare(ax)


def _together(keys: Sequence[str], alike: Callable[[str, str], bool]) -> list[list[str]]:
    """The methods in groups, each with those that are like its first one."""
    groups: list[list[str]] = []
    for key in keys:
        if group := next((group for group in groups if alike(group[0], key)), None):
            group.append(key)
        else:
            groups.append([key])
    return groups


def _same_direction(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two methods take the same step, its length apart; never where one rolls dice."""
    if len(one) > 1 or len(other) > 1:
        return False
    return bool(np.allclose(one / one.sum(), other / other.sum(), atol=5e-3))


def step(pair: Pair, weights: np.ndarray, length: float) -> np.ndarray:
    """The downhill step −Σ_k w_k g_k [2], brought to a length; zero where it has none."""
    update = weights @ pair.gradients
    norm = np.linalg.norm(update)
    return -length * update / norm if norm > 1e-9 * pair.length else np.zeros(2)


def made_worse(pair: Pair, weights: np.ndarray) -> str:
    """The tasks whose loss the step raises, to first order: "2", "1, 2" or ""."""
    gains = pair.gramian @ weights
    return ", ".join(str(k + 1) for k in np.flatnonzero(gains < -1e-9 * pair.length**2))


def title(pair: Pair) -> str:
    """A pair in three lines."""

    def proportion(x: float) -> str:
        return f"{x:g} : 1" if x >= 1 else f"1 : {1 / x:g}"

    return f"{pair.angle:.0f}°\ngradients {proportion(pair.ratio)}\nlosses {proportion(pair.loss_ratio)}"


def reads(key: str) -> str:
    """What a method looks at, in a few words."""
    space = smtos.get(key).space
    return {"parameters": "gradients on θ", "features": "gradients on z"}.get(space, space)


def weights_of(key: str, pair: Pair, options: Mapping[str, Any] | None = None, draws: int = 20) -> np.ndarray:
    """The weights that a method gives to a pair of gradients [1, 2]; 20 draws where it rolls dice [20, 2].

    A method with a memory is shown at its first step, CDTT at its eleventh, as its window takes ten to fill.
    """
    smto = smtos.build(key, 2, **(options or {}))
    smto.set_up(ProblemInfo(("gaussian", "gaussian"), (2,), lr=1e-3, weight_decay=0.0), seed=1)
    steps = draws if key.startswith("rlw") else 11 if key == "cdtt" else 1
    weights = np.stack([weigh(smto, pair.gramian, pair.losses) for _ in range(steps)])
    return weights if key.startswith("rlw") else weights[-1:]


def short(number: float) -> str:
    """Two decimals without the leading zero; three digits above 10; a true minus."""
    text = f"{number:.2f}" if abs(number) < 10 else f"{number:.3g}"
    return minus(text.removeprefix("0") if text.startswith("0.") else text)


def pulls(keys: Sequence[str], resolution: int, columns: int = 4) -> np.ndarray:
    """For every cosine and every ratio of lengths: whose gradient does the method's update follow? Methods with the
    same map share it."""
    import matplotlib.pyplot as plt

    cosines = np.linspace(-0.998, 0.998, resolution)
    ratios = np.geomspace(1 / 8, 8, resolution)
    pairs = [[Pair(angle, ratio) for angle in np.rad2deg(np.arccos(cosines))] for ratio in ratios]
    maps = {key: np.array([[pull(key, pair) for pair in row] for row in pairs]) for key in keys}
    groups = _together(keys, lambda one, other: bool(np.allclose(maps[one], maps[other], atol=0.02, equal_nan=True)))
    rows = -(-len(groups) // columns)
    fig, axes = plt.subplots(
        rows,
        columns,
        figsize=(2.3 * columns, 2.2 * rows + 0.5),
        sharex=True,
        sharey=True,
        layout="constrained",
        squeeze=False,
    )
    for ax, members in zip(axes.flat, groups, strict=False):
        ax.pcolormesh(cosines, ratios, maps[members[0]], cmap=PULLS, vmin=0, vmax=1, shading="nearest", rasterized=True)
        ax.set_yscale("log", base=2)
        names = [", ".join(map(label, members[i : i + 2])) for i in range(0, len(members), 2)]
        colour = LOOK[members[0]].colour if len(members) == 1 else INK
        ax.set_title("\n".join(names), fontsize=9, color=colour, weight="bold")
        ax.set(xticks=[-1, 0, 1], xticklabels=["−1", "0", "1"])
        ax.set(yticks=[1 / 8, 1, 8], yticklabels=["1 : 8", "1 : 1", "8 : 1"])
        ax.minorticks_off()
        ax.tick_params(labelsize=8, length=2)
    for ax in axes.flat[len(groups) :]:
        ax.axis("off")
    fig.supxlabel("cosine between g₁ and g₂", fontsize=9)
    fig.supylabel("|g₁| : |g₂|", fontsize=9)
    bar = fig.colorbar(
        mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), PULLS), ax=axes, ticks=[0, 0.5, 1], shrink=0.7, aspect=30
    )
    bar.ax.set_yticklabels(["task 2 alone", "both equally", "task 1 alone"], fontsize=8)
    caption(
        axes,
        "Each map is a whole method, or several that share it, for two tasks with equal losses. Colour: the pull of "
        "task",
        "1, which is w₁|g₁| / (w₁|g₁| + w₂|g₂|). White: the update bisects the angle between the gradients.",
    )
    return axes


def pull(key: str, pair: Pair) -> float:
    """The part of task 1 in the update, w_1|g_1| over the sum of both, kept within 0 and 1; NaN without an update."""
    parts = weights_of(key, pair)[0] * np.sqrt(pair.gramian.diagonal())
    return float(np.clip(parts[0] / parts.sum(), 0, 1)) if parts.any() else np.nan


def memory(walked: Mapping[str, Walk]) -> Axes:
    """The share of task 1 in the weights, step by step, while θ is held in one place."""
    _, ax = figure(8, 4)
    shares = {smto: walk.weights[:, 0] / walk.weights.sum(1) for smto, walk in walked.items()}
    for smto, share in shares.items():
        ax.plot(share, **{**line(smto), "marker": ""}, lw=1.8)
    ax.set(xlabel="step (θ stays where it is)", ylabel="w₁ / (w₁ + w₂)")
    low, high = ax.get_ylim()
    y, gap = -np.inf, (high - low) / 18
    for smto in sorted(shares, key=lambda s: shares[s][-1]):
        y = max(y + gap, shares[smto][-1])  # names do not cover each other
        ax.annotate(
            label(smto),
            (len(shares[smto]) - 1, shares[smto][-1]),
            xytext=(1.06 * len(shares[smto]), y),
            color=LOOK[smto].colour,
            va="center",
            fontsize=9,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": FAINT, "lw": 0.8},
        )
    caption(ax, "Share of task 1 in the weights. The losses and the gradients are the same in every step.")
    return despine(ax)


def neither(
    gradients: np.ndarray, draws: np.ndarray, rotations: np.ndarray, lambdas: Sequence[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """Three methods that are functions of neither the Gramian nor the losses.

    Args:
        gradients: of the two tasks on two features [2, 2].
        draws: updates of GradDrop [n, 2].
        rotations: that RotoGrad has learnt, R_k [2, 2, 2].
        lambdas: pairs of a gradient on a second batch [2] and the weights that Auto-Lambda has learnt from it [2].
    """
    _, axes = figure(11, 2.7, 2 + len(lambdas))
    reach = np.abs(gradients).max() * 1.3
    drop, turn, *others = axes

    for ax in axes:
        task_arrows(ax, (0, 0), gradients)
        ax.set(xlim=(-1.15 * reach, 0.85 * reach), ylim=(-0.9 * reach, 0.12 * reach))
        bare(ax)
    directions, counts = np.unique(draws.round(6), axis=0, return_counts=True)
    for direction, count in zip(directions, counts, strict=True):
        arrow(drop, (0, 0), -direction, LOOK["graddrop"].colour, width=2)
        next_to(drop, -0.75 * direction, -direction, f"{count / len(draws):.0%}", LOOK["graddrop"].colour, -1)
    drop.set_title("GradDrop\nflips coins", fontsize=10)
    for rotation, gradient in zip(rotations, gradients, strict=True):
        arrow(turn, (0, 0), -rotation.T @ gradient, LOOK["rotograd"].colour, width=2)
    turn.set_title("RotoGrad\nturns the gradients", fontsize=10)
    for ax, (v, weights) in zip(others, lambdas, strict=True):
        arrow(ax, (0, 0), -v, INK, width=1.2)
        next_to(ax, -v, -v, "−v", INK, 1)
        update = weights @ gradients
        arrow(ax, (0, 0), -3 * update / np.linalg.norm(update), LOOK["auto_lambda"].colour, width=2.2)
        ax.set_title(f"Auto-Lambda\nλ = {short(weights[0])}, {short(weights[1])}", fontsize=10)
    caption(
        axes,
        "Grey: the gradients at the start of the toy, downhill. GradDrop: the updates that it can make, and how often.",
        "RotoGrad: the same gradients as the learnt rotations show them to the encoder. Auto-Lambda: the direction of",
        "its step after some steps in one place; −v is downhill, on the second batch, for both tasks together.",
    )
    return axes


# -- 4. one pair -------------------------------------------------------------------------------------------------------


def one_pair(pair: Pair, keys: Sequence[str]) -> np.ndarray:
    """The steps of some methods for one pair of gradients, equally long, and their weights."""
    _, axes = figure(9, 3.0, 2, width_ratios=(1.25, 1))
    ax, table = axes
    unit = np.linalg.norm(pair.gradients, axis=1).max()
    task_arrows(ax, (0, 0), pair.gradients / unit, width=2.2, size=14)
    lines = []
    for key, width in zip(keys, np.linspace(4.2, 1.4, len(keys)), strict=True):  # none hides another
        w = weights_of(key, pair)[-1]
        arrow(ax, (0, 0), step(pair, w, 0.8), LOOK[key].colour, width=width)
        hurt = made_worse(pair, w)
        lines.append((key, w, f"makes task {hurt} worse" if hurt else ""))
    ax.set(xlim=(-1.25, 1.25), ylim=(-0.25, 1.25))
    bare(ax)
    table.set(xlim=(0, 1), ylim=(min(-len(lines), -7) - 0.5, 1))
    table.axis("off")
    table.text(0, 0, "method", fontsize=9, color=GREY)
    for x, name in ((0.5, "w₁"), (0.64, "w₂")):
        table.text(x, 0, name, fontsize=9, color=GREY, ha="right")
    for row, (key, weights, worse) in enumerate(lines, start=1):
        table.text(0, -row, label(key), color=LOOK[key].colour, weight="bold", fontsize=10)
        for x, number in zip((0.5, 0.64), weights, strict=True):
            table.text(x, -row, short(number), fontsize=10, ha="right")
        table.text(0.7, -row, worse, fontsize=9, color=GREY)
    caption(axes, "Grey: the gradients, downhill. Colours: the steps, all drawn equally long.")
    return axes


# -- 5. real digits ----------------------------------------------------------------------------------------------------


def digits(images: np.ndarray, classes: Sequence[int], originals: np.ndarray) -> np.ndarray:
    """Some inputs [n, 28, 28], the class that task CL must name, and the digit [n, 28, 28] that task RR must draw."""
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(2, len(images), figsize=(1.1 * len(images), 2.6), layout="constrained")
    for column, (image, name, original) in enumerate(zip(images, classes, originals, strict=True)):
        for ax, picture in zip(axes[:, column], (image, original), strict=True):
            ax.imshow(picture, cmap="gray_r")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_color(FAINT)
        axes[0, column].set_title(f"CL: {name}", fontsize=9)
    axes[0, 0].set_ylabel("input", fontsize=9)
    axes[1, 0].set_ylabel("RR: draw", fontsize=9)
    caption(axes, "Above: inputs. Below: the digit on the right, which task RR must draw. CL: the digit on the left.")
    return axes


def table_of_pairs(pairs: Mapping[str, Pair], tasks: Sequence[str]) -> pd.DataFrame:
    """Losses, lengths of the gradients, their ratio and their angle, by where the gradients are taken."""
    rows = []
    for space, pair in pairs.items():
        lengths = np.sqrt(pair.gramian.diagonal())
        row: dict[str, Any] = {"gradients on the": space}
        row |= {f"loss {task}": loss for task, loss in zip(tasks, pair.losses, strict=True)}
        row |= {f"length {task}": length for task, length in zip(tasks, lengths, strict=True)}
        rows.append(row | {"ratio": pair.ratio, "cosine": np.cos(np.deg2rad(pair.angle)), "angle": pair.angle})
    table = pd.DataFrame(rows).set_index("gradients on the")
    caption(table, "One batch. Ratio: of the lengths. Angle in degrees; above 90 the tasks conflict.")
    table.attrs["decimals"] = {column: 4 for column in table.columns if column.startswith("length")}
    table.attrs["decimals"] |= {f"loss {task}": 2 for task in tasks}
    table.attrs["decimals"] |= {"angle": 0, "ratio": 1, "cosine": 2}
    return table


def real_pairs(pairs: Mapping[str, Pair], tasks: Sequence[str], keys: Sequence[str]) -> np.ndarray:
    """Two gradients of a network in the plane that they span, and what some methods make of them, all equally long."""
    fig, axes = figure(9, 3.2, len(pairs))
    for ax, (name, pair) in zip(axes, pairs.items(), strict=True):
        unit = np.linalg.norm(pair.gradients, axis=1).max()
        task_arrows(ax, (0, 0), pair.gradients / unit, tasks, gap=14, width=2.2, size=14)
        for key, width in zip(keys, np.linspace(4.2, 1.4, len(keys)), strict=True):  # none hides another
            arrow(ax, (0, 0), step(pair, weights_of(key, pair)[-1], 0.85), LOOK[key].colour, width=width)
        ax.set(xlim=(-1.25, 1.25), ylim=(-0.3, 1.2))
        bare(ax)
        ax.set_title(name, fontsize=10)
    handles = [Line2D([], [], color=LOOK[key].colour, lw=2, label=label(key)) for key in keys]
    legend(fig, handles=handles, loc="outside lower center", ncols=len(keys))
    caption(
        axes,
        "The plane that the two gradients span. Grey: the gradients, downhill, in true proportion. Colours: the steps,",
        "all drawn equally long.",
    )
    return axes
