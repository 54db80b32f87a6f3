"""A new method against each of the others."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from mtl_study.look import LOOK, label
from mtl_study.newcomer import Found
from mtl_study.plots import canvas
from mtl_study.plots.forest import draw_interval


def differences(found: Found) -> Axes:
    """A row per method: the new one minus it, each at its own rate; below, hollow, both at the rate of that method."""
    table = found.table.drop(index=found.smto).sort_values("difference", ascending=False)
    _, ax = canvas.figure(7.5, 1.0 + 0.34 * len(table))
    for y, (smto, row) in enumerate(table.iterrows()):
        colour = LOOK[str(smto)].colour if smto in LOOK else "black"
        for suffix, shift, fill in (("", -0.13, colour), ("_at_rate", 0.17, "white")):
            mean, low, high = (row[f"{name}{suffix}"] for name in ("difference", "low", "high"))
            if np.isfinite(mean):
                draw_interval(ax, y + shift, low, high, colour)
                ax.plot(mean, y + shift, "o", color=colour, markerfacecolor=fill, markersize=6, zorder=3)
    for fill, words in (("black", "each at its own rate"), ("white", "both at the rate of the method")):
        ax.plot([], [], "o", color="black", markerfacecolor=fill, markersize=6, label=words)
    canvas.legend_above(ax, ncols=2)
    ax.set_yticks(range(len(table)), [label(str(smto)) for smto in table.index])
    ax.set_ylim(len(table) - 0.4, -0.6)
    ax.set_xlabel(
        f"Δm of {label(found.smto)} minus that of the method, in points; to the right {label(found.smto)} is better"
    )
    canvas.zero_line(ax, "x")
    return canvas.despine(ax, grid="x")


def caption(found: Found) -> str:
    return (
        f"{label(found.smto)} minus each other method on {found.problem}: mean and {100 * found.level:g} % interval, "
        "paired by seed. Full: each at its own learning rate; hollow: both at the rate of the other method."
    )
