"""The figures of notebook 06: where methods give two tasks equal weights, and where they do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea, VPacker
from matplotlib.patches import Patch

from mtl_study import look
from mtl_study.look import FAINT, GREY, INK, LOOK, label
from mtl_study.plots import canvas
from mtl_study.teaching import proofs
from mtl_study.teaching.toys import Pair, Walk
from mtl_study.words import listed

DARK = "#4d4d4d"
LEVELS = {0.1: "0.1", 0.25: "¼", 0.75: "¾", 0.9: "0.9"}

# -- the page for the wall ---------------------------------------------------------------------------------------------


def fields(
    groups: Sequence[Sequence[str]], without: Mapping[str, str], options: proofs.Options, resolution: int
) -> np.ndarray:
    """The share of task 1 in the weights of every method, over the cosine between two gradients and the ratio of their
    lengths: a page in A4 landscape, which can be printed larger.

    Args:
        groups: of methods that give the same weights, a panel each. without: the methods that have no such field, and
            why. resolution: points along either side of a panel.
    """
    cosines = np.linspace(-0.999, 0.999, resolution)
    ratios = 2 ** np.linspace(-3, 3, resolution)
    angles = np.rad2deg(np.arccos(cosines))
    lengths = np.array([[Pair(angle, ratio).gramian for angle in angles] for ratio in ratios])
    rows, columns = -(-(len(groups) + 1) // 3), 3
    figure, axes = canvas.grid_of_axes(rows, [1] * columns, 11.7, 8.3 / 3)
    figure.set_layout_engine("constrained", hspace=0.04, wspace=0.04)
    negative: list[str] = []
    for ax, members in zip(axes.flat, groups, strict=False):
        weights = proofs.field(members, angles, ratios, options)
        share = weights[..., 0] / weights.sum(-1)
        _field(ax, cosines, ratios, share, (lengths @ weights[..., None])[..., 0].min(-1))
        _names(ax, members, options)
        if share.min() < -1e-6 or share.max() > 1 + 1e-6:
            negative += [label(key) for key in members]
    for ax in axes[:, 0]:
        ax.set_ylabel("|g₁| : |g₂|", fontsize=10)
    for column in range(columns):
        lowest = [ax for ax in axes[:, column] if ax.has_data()][-1]
        lowest.set_xlabel("cosine between g₁ and g₂", fontsize=10)
    for ax in axes.flat[len(groups) + 1 :]:
        ax.axis("off")
    _key(axes.flat[len(groups)], without, negative)
    figure.suptitle("Whose gradient counts? The weight of task 1 out of two", fontsize=15, weight="bold")
    canvas.caption(
        axes,
        "Equal losses. Colour: the share of task 1 in the weights, w₁ / (w₁ + w₂); white is ½. Hatched: the step "
        "raises one task's loss, to first order. Dashes: gradients of equal length. Methods that learn: at their first "
        "step, CDTT at its eleventh. Options not the defaults:",
        f"{listed(f'{label(key)} ({in_words(given)})' for key, given in options.items())}.",
    )
    return axes


def _field(ax: Axes, cosines: np.ndarray, ratios: np.ndarray, share: np.ndarray, least_gain: np.ndarray) -> None:
    ax.pcolormesh(cosines, ratios, share, cmap="RdBu", vmin=0, vmax=1, shading="nearest", rasterized=True)
    if np.ptp(share) > 1e-6:
        lines = ax.contour(cosines, ratios, share, list(LEVELS), colors=["white", DARK, DARK, "white"], linewidths=0.7)
        ax.clabel(lines, fmt=LEVELS, fontsize=8, inline_spacing=3)
    with mpl.rc_context({"hatch.linewidth": 0.45, "hatch.color": DARK}):
        scaled = least_gain / np.abs(least_gain).max()
        ax.contourf(cosines, ratios, scaled, [-2, -1e-9], hatches=["////"], colors="none")
    ax.axhline(1, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    ax.set_yscale("log", base=2)
    ax.set(yticks=[1 / 8, 1 / 2, 1, 2, 8], yticklabels=["1 : 8", "1 : 2", "1 : 1", "2 : 1", "8 : 1"])
    ax.set(xlim=(-1, 1), ylim=(1 / 8, 8), xticks=[-1, -0.5, 0, 0.5, 1], xticklabels=["−1", "−½", "0", "½", "1"])
    ax.minorticks_off()
    ax.tick_params(labelsize=8.5, length=3, color=GREY)


def _names(ax: Axes, members: Sequence[str], options: proofs.Options, width: int = 44) -> None:
    """The names of some methods above an axes, each in its colour, in as many lines as it takes; with their options."""
    lines: list[list[str]] = [[]]
    for key in members:
        if lines[-1] and sum(len(label(k)) + 2 for k in [*lines[-1], key]) > width:
            lines.append([])
        lines[-1].append(key)
    size = 11 if len(members) <= 3 else 9.5
    rows: list[Artist] = []
    for line in lines:
        texts: list[Artist] = []
        for key in line:
            texts.append(
                TextArea(label(key), textprops={"fontsize": size, "weight": "bold", "color": LOOK[key].colour})
            )
            if key in options and len(members) == 1:
                texts.append(TextArea(in_words(options[key]), textprops={"fontsize": 8, "color": GREY}))
        rows.append(HPacker(children=texts, pad=0, sep=9))
    box = VPacker(children=rows, pad=0, sep=2)
    ax.add_artist(
        AnchoredOffsetbox(
            "lower left",
            child=box,
            frameon=False,
            pad=0.2,
            borderpad=0,
            bbox_to_anchor=(0, 1),
            bbox_transform=ax.transAxes,
        )
    )


def in_words(options: Mapping[str, Any]) -> str:
    """Options as they are written."""
    return ", ".join(f"{name} = {value!r}" for name, value in options.items())


def _key(ax: Axes, without: Mapping[str, str], negative: Sequence[str]) -> None:
    """What the colours mean, whose weights go beyond them, and which methods are missing."""
    ax.axis("off")
    bar = ax.inset_axes((0.04, 0.84, 0.92, 0.07))
    ticks = {0: "task 2\nalone", 0.25: "¼", 0.5: "½: both\nequally", 0.75: "¾", 1: "task 1\nalone"}
    scale = ScalarMappable(Normalize(0, 1), "RdBu")
    colours = ax.get_figure().colorbar(scale, cax=bar, orientation="horizontal", ticks=list(ticks))  # type: ignore[union-attr]
    colours.ax.set_xticklabels(list(ticks.values()), fontsize=8.5)
    colours.outline.set_visible(False)
    with mpl.rc_context({"hatch.linewidth": 0.45}):
        hatched = Patch(facecolor="white", edgecolor=DARK, hatch="////", linewidth=0)
    line = mpl.lines.Line2D([], [], color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    explained = ["the step makes one task worse", "Assumption 1: equal lengths"]
    canvas.legend(ax, handles=[hatched, line], labels=explained, loc="upper left", bbox_to_anchor=(0, 0.6), fontsize=9)
    beyond = [f"{listed(negative)}: the darkest where a weight is below 0, too", ""] if negative else []
    missing = [f"{label(key)}: {why}" for key, why in without.items()]
    text = "\n".join([*beyond, "Not a field over these two numbers:", *missing])
    ax.text(0.04, 0.33, text, fontsize=8, va="top", transform=ax.transAxes)


# -- broken on purpose -------------------------------------------------------------------------------------------------


def sensitivity(frame: pd.DataFrame, ratio: float) -> np.ndarray:
    """Left: the share of task 1 when g_2 is `ratio` times as long as g_1; right: how far that turns the update.

    Args:
        frame: of `proofs.sensitivity`.
    """
    _, axes = canvas.figure(10, 4, 2)
    for ax, column in zip(axes, ("share", "degrees"), strict=True):
        ends: list[tuple[float, list[str]]] = []  # methods that end at one height share a name
        for key in look.in_order(frame.smto):
            rows = frame[frame.smto == key]
            style = {**look.line(key), "marker": "", "linewidth": 1.9}
            ax.plot(rows.cosine, rows[column], **style)
            ends.append((float(rows[column].iloc[-1]), [key]))
        _end_labels(ax, frame.cosine.max(), ends, gap=0.055)
        ax.set(xlabel="cosine between g₁ and g₂", xlim=(frame.cosine.min(), frame.cosine.max()))
        canvas.despine(ax)
    axes[0].axhline(0.5, color=GREY, linewidth=0.8, zorder=1)
    axes[0].set_ylabel("w₁ / (w₁ + w₂)")
    axes[1].set_ylabel("degrees")
    axes[0].set_title("the weights", loc="left", fontsize=10)
    axes[1].set_title("the update, turned away from the mean gradient by", loc="left", fontsize=10)
    canvas.caption(
        axes,
        f"g₂ is {ratio:g} times as long as g₁. Left: the share of task 1; the grey line is ½. Right: the angle between "
        "the update and the mean of the two gradients. Lines that run into one another carry all their names.",
    )
    return axes


def _end_labels(ax: Axes, x: float, ends: Sequence[tuple[float, list[str]]], gap: float) -> None:
    """Names to the right of where lines end; those that end together are put side by side, none on top of another."""
    low, high = ax.get_ylim()
    merged: list[tuple[float, list[str]]] = []
    for y, keys in sorted(ends):
        if merged and y - merged[-1][0] < 1e-3 * (high - low):
            merged[-1][1].extend(keys)
        else:
            merged.append((y, list(keys)))
    at = -np.inf
    for y, keys in merged:
        at = max(y, at + gap * (high - low))
        names = "\n".join(label(key) for key in look.in_order(keys))
        at += (len(keys) - 1) * gap * (high - low) / 2
        ax.annotate(names, (x, at), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8.5,
                    color=LOOK[keys[0]].colour if len(keys) == 1 else INK, annotation_clip=False)  # fmt: skip
        at += (len(keys) - 1) * gap * (high - low) / 2


def beyond_two(weights: Mapping[str, np.ndarray], deviations: pd.DataFrame) -> np.ndarray:
    """Left: the weights of three tasks with equally long gradients, two of them alike; right: random Gramians.

    Args:
        weights: per method, of three tasks, summing to 1.
        deviations: smto, K, median (of max |K w_k − 1|, for equal lengths only), worst (where the rows have equal sums,
            too).
    """
    _, axes = canvas.figure(10, 0.36 * len(weights) + 1.4, 2, width_ratios=(1, 1.35), sharey=True)
    left, right = axes
    keys = look.in_order(weights)
    for y, key in enumerate(keys):
        first, second, third = weights[key]
        left.plot([min(weights[key]), max(weights[key])], [y, y], color=FAINT, linewidth=1.2, zorder=1)
        left.plot([first, second], [y, y], "o", color=LOOK[key].colour, markersize=7)
        left.plot(third, y, "o", markerfacecolor="white", markeredgecolor=LOOK[key].colour, markersize=7)
        rows = deviations[deviations.smto == key]
        sizes = 14 + 6 * rows.K
        for column, fill in (("worst", LOOK[key].colour), ("median", "white")):
            at = np.maximum(rows[column], 1e-16)
            right.scatter(at, [y] * len(rows), s=sizes, facecolor=fill, edgecolor=LOOK[key].colour, zorder=3)
    left.axvline(1 / 3, color=GREY, linewidth=0.8, zorder=0)
    left.set(yticks=range(len(keys)), yticklabels=[label(key) for key in keys], xlabel="weight (they sum to 1)")
    left.set_title("two alike (●) and one apart (○)", loc="left", fontsize=10)
    left.invert_yaxis()
    right.set(xscale="log", xlim=(1e-17, 30), xlabel="largest |K wₖ − 1|")
    right.axvspan(1e-17, 1e-9, color="#f2f2f2", zorder=0)
    right.text(1.5e-9, len(keys) - 0.75, "← rounding", fontsize=8, color=GREY, va="center")
    right.set_title("equal lengths (○), and equal rows, too (●)", loc="left", fontsize=10)
    for ax in axes:
        canvas.despine(ax, grid=None)
        ax.tick_params(axis="y", length=0)
    sizes = listed(f"{K}" for K in sorted(deviations.K.unique()))
    canvas.caption(
        axes,
        "Left: three gradients of one length; the first two have a cosine of 0.9, the third is at right angles to "
        f"both. Grey line: ⅓. Right: random Gramians of {sizes} tasks, larger dots for more tasks. Hollow: equal "
        "lengths only, median; filled: equal sums of the rows, too, the worst; 0 is at 1e-16.",
    )
    return axes


def tension(frame: pd.DataFrame) -> Axes:
    """CDTT's weight of task 1 over the distance between two equally long gradients, for losses that differ.

    Args:
        frame: distance, loss_ratio, share.
    """
    _, ax = canvas.figure(7, 3.8)
    shades = mpl.colormaps["viridis"](np.linspace(0.05, 0.8, frame.loss_ratio.nunique()))
    for (ratio, rows), shade in zip(frame.groupby("loss_ratio"), shades, strict=True):
        ax.plot(rows.distance, rows.share, color=shade, linewidth=1.9)
        halfway = rows.iloc[(rows.share - 0.75).abs().argmin()]
        ax.annotate(
            f"L₁ : L₂ = {ratio:g}",
            (halfway.distance, halfway.share),
            xytext=(8, 4),
            textcoords="offset points",
            fontsize=8.5,
            color=shade,
        )
    ax.axhline(0.5, color=GREY, linewidth=0.8, zorder=1)
    ax.set(xscale="log", xlabel="|g₁ − g₂|", ylabel="w₁ / (w₁ + w₂)")
    canvas.caption(ax, "CDTT at its eleventh step; two gradients of one length at right angles; L₂ = 1. Grey: ½.")
    return canvas.despine(ax)


def famo(walks: Mapping[str, Walk], noisy: Mapping[float, np.ndarray]) -> np.ndarray:
    """Left: FAMO's share of task 1 on two toys, both with equal losses at the start. Right: two equal tasks whose
    improvements are noisy.

    Args:
        walks: by name. noisy: standard deviation of the noise over the mean improvement → shares of task 1
            [paths, steps].
    """
    _, axes = canvas.figure(10, 3.7, 2)
    left, right = axes
    for (name, walk), dash in zip(walks.items(), ("-", (0, (3, 2))), strict=True):
        share = walk.weights[:, 0] / walk.weights.sum(1)
        left.plot(share, color=LOOK["famo"].colour, linestyle=dash, linewidth=1.9)
        left.annotate(
            name, (len(share) - 1, share[-1]), xytext=(-2, 6), textcoords="offset points", ha="right", fontsize=8.5
        )
    shades = mpl.colormaps["viridis"](np.linspace(0.8, 0.05, len(noisy)))
    for (noise, paths), shade in zip(sorted(noisy.items(), reverse=True), shades, strict=True):
        right.plot(paths.T, color=shade, linewidth=0.7, alpha=0.85)
        right.plot([], [], color=shade, linewidth=2, label=f"{noise:g} × its mean")
    canvas.legend(right, fontsize=8.5, title="noise in the improvement", title_fontsize=8.5, loc="upper left", ncols=3)
    for ax, title in zip(axes, ("equal losses that do not stay equal", "equal tasks, noisy losses"), strict=True):
        ax.axhline(0.5, color=GREY, linewidth=0.8, zorder=1)
        ax.set(xlabel="step", ylim=(0, 1))
        ax.set_title(title, loc="left", fontsize=10)
        canvas.despine(ax)
    left.set_ylabel("share of task 1 in the weights")
    right.set_ylabel("z₁")
    canvas.caption(
        axes,
        "Left: gradient descent on two losses that begin equal.",
        "Right: both tasks improve at the same rate on average; what a single batch shows is noisy, independently for "
        f"the two. {len(next(iter(noisy.values())))} runs per amount of noise. Grey: ½.",
    )
    return axes
