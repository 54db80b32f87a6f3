"""One look for all figures: what a method looks like, how an axis is dressed, where a figure's caption goes.

A method keeps its label, colour, dash, marker and place everywhere. The uniform loss is black, and so is the dashed
line at its median; zero, the single-task model, is thin grey. The six hues stay apart for readers who see few colours,
and within a hue every method has a dash and a marker of its own. Problems are not methods: they take `viridis`,
those with streets `plasma`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from mtl_core.artifacts import save_figure, save_table
from mtl_core.words import listed

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import Markdown

INK, GREY, FAINT = "#000000", "#8a8a8a", "#c8c8c8"
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"

Dash = tuple[float, ...] | str
SOLID: Dash = ""
LONG, DOT, DASHDOT, SHORT = (5, 1.5), (1, 1.2), (4, 1.2, 1, 1.2), (2.2, 1.2)
DASHDOTDOT: Dash = (4, 1.2, 1, 1.2, 1, 1.2)


class Look(NamedTuple):
    """How a method is drawn."""

    label: str
    colour: str
    dash: Dash
    marker: str


LOOK = {  # in order of display: that of the paper, then what it does not have
    "unit_scal": Look("Unit. Scal.", INK, SOLID, "o"),
    "auto_lambda": Look("Auto-Lambda", SKY, SOLID, "o"),
    "cagrad": Look("CAGrad", BLUE, SOLID, "s"),
    "cdtt": Look("CDTT", GREEN, SOLID, "^"),
    "edm": Look("EDM", VERMILION, SOLID, "D"),
    "famo": Look("FAMO", ORANGE, SOLID, "v"),
    "graddrop": Look("GradDrop", SKY, LONG, "P"),
    "imtl": Look("IMTL", PURPLE, SOLID, "X"),
    "mgda_ub": Look("MGDA-UB", GREEN, LONG, "p"),
    "nash_mtl": Look("Nash-MTL", BLUE, LONG, "h"),
    "pcgrad": Look("PCGrad", ORANGE, LONG, "o"),
    "rlw_dirichlet": Look("RLW-Dirichlet", PURPLE, LONG, "s"),
    "rlw_normal": Look("RLW-Normal", PURPLE, DOT, "D"),
    "rotograd": Look("RotoGrad", VERMILION, LONG, "P"),
    "si": Look("SI", SKY, DOT, "^"),
    "uw": Look("UW", GREEN, DOT, "v"),
    "fixed": Look("Fixed weights", BLUE, DOT, "*"),
    "aligned_mtl": Look("Aligned-MTL", VERMILION, DOT, "o"),
    "bayesagg_mtl": Look("BayesAgg-MTL", ORANGE, DOT, "s"),
    "db_mtl": Look("DB-MTL", SKY, DASHDOT, "D"),
    "dwa": Look("DWA", BLUE, DASHDOT, "^"),
    "fairgrad": Look("FairGrad", GREEN, DASHDOT, "X"),
    "go4align": Look("GO4Align", VERMILION, DASHDOT, "p"),
    "gradnorm": Look("GradNorm", ORANGE, DASHDOT, "h"),
    "imgrad": Look("IMGrad", PURPLE, DASHDOT, "v"),
    "imtl_g": Look("IMTL-G", PURPLE, SHORT, "P"),
    "imtl_l": Look("IMTL-L", SKY, SHORT, "*"),
    "mgda": Look("MGDA", GREEN, SHORT, "o"),
    "stch": Look("STCH", BLUE, SHORT, "v"),
    "upgrad": Look("UPGrad", VERMILION, SHORT, "s"),
    "imtl_transposed": Look("IMTL, transposed", PURPLE, DASHDOTDOT, "p"),  # imtl with form = "transposed" (D24)
}

PROBLEMS = {  # label, place on the family's colour map, marker; in order of display
    "multimnist/CL_CR": ("CL_CR: two classifications", 0.08, "o"),
    "multimnist/RL_RR": ("RL_RR: two reconstructions", 0.42, "s"),
    "multimnist/CL_RR": ("CL_RR: one of each", 0.74, "^"),
    "cityscapes/R50": ("Cityscapes R50", 0.0, "P"),
    "cityscapes/R18": ("Cityscapes R18", 0.22, "X"),
    "cityscapes/inst_seg": ("Cityscapes Inst. Seg.", 0.44, "v"),
    "cityscapes/HR": ("Cityscapes HR", 0.62, "p"),
    "cityscapes/19C": ("Cityscapes 19C", 0.8, "D"),
    "qm9": ("QM9: eleven properties", 0.1, "h"),
}
FAMILIES = {"multimnist": "viridis", "cityscapes": "plasma", "qm9": "gray"}  # their colour maps

SHORT_NAMES = {"inst_seg": "Inst. Seg.", "qm9": "QM9"}  # of problems; the others' are the last part of their names

NAMES = {  # what a column is called in figures and tables
    "delta_m": "Δm",
    "cosine_to_mean": "cosine to the mean gradient C",
    "normalised_cosine": "(K C² − 1)/(K − 1)",
    "pairwise_cosine": "pairwise cosine",
    "norm_ratio": "longest over shortest gradient",
    "weight_distance": "mean |w₁ − ½|",
}

A_SEED = "A seed fixes initial weights, dropout and batch order; the split belongs to the data set."


def label(smto: str) -> str:
    """A method's name in figures and tables; its key where it has no look of its own."""
    return LOOK[smto].label if smto in LOOK else smto


def in_order(smtos: Iterable[str]) -> list[str]:
    """Methods in order of display, each once; raises KeyError, naming those that have no look."""
    found = set(smtos)
    if strangers := sorted(found - set(LOOK)):
        raise KeyError(f"{', '.join(strangers)}: no look; give one in mtl_core/plots/look.py.")
    return [smto for smto in LOOK if smto in found]


def look(smtos: Sequence[str]) -> dict[str, Any]:
    """Arguments that make seaborn draw these methods as in every other figure."""
    return {
        "hue": "smto",
        "style": "smto",
        "hue_order": smtos,
        "style_order": smtos,
        "palette": {s: LOOK[s].colour for s in smtos},
        "dashes": {s: LOOK[s].dash for s in smtos},
        "markers": {s: LOOK[s].marker for s in smtos},
    }


def line(smto: str) -> dict[str, Any]:
    """The same for one call of matplotlib's `plot`."""
    _, colour, dash, marker = LOOK[smto]
    return {"color": colour, "linestyle": (0, dash) if dash else "-", "marker": marker, "label": label(smto)}


def problem_line(problem: str) -> dict[str, Any]:
    """How a problem is drawn where lines are problems and not methods."""
    name, place, marker = PROBLEMS.get(problem, (problem, 0.95, "D"))
    streets = problem.startswith("cityscapes/")
    line = {"linestyle": (0, LONG)} if streets else {}
    colours = mpl.colormaps[FAMILIES.get(problem.split("/")[0], "viridis")]
    return {"color": colours(place), "marker": marker, "label": name, **line}


def problems_in_order(problems: Iterable[str]) -> list[str]:
    """Problems in order of display, each once; those without a look of their own come last."""
    found = list(dict.fromkeys(problems))
    return [*(p for p in PROBLEMS if p in found), *(p for p in found if p not in PROBLEMS)]


def problem_label(problem: str) -> str:
    """The short name of a problem, as the paper writes it."""
    name = problem.split("/")[-1]
    return SHORT_NAMES.get(name, name)


# -- axes --------------------------------------------------------------------------------------------------------------


def figure(width: float = 8.0, height: float = 4.0, columns: int = 1, **settings: Any) -> tuple[Figure, Any]:
    """A new figure with one row of axes, sized in inches for a notebook page."""
    import matplotlib.pyplot as plt

    return plt.subplots(1, columns, figsize=(width, height), layout="constrained", **settings)


def grid_of_axes(rows: int, widths: Sequence[float], width: float, row_height: float) -> tuple[Figure, np.ndarray]:
    """A new figure with rows of axes whose columns have these relative widths; axes [rows, columns]."""
    import matplotlib.pyplot as plt

    size = (width, row_height * rows)
    return plt.subplots(rows, len(widths), figsize=size, width_ratios=widths, squeeze=False, layout="constrained")


def dress(ax: Axes, grid: Literal["x", "y", "both"] | None = "y") -> Axes:
    """No box around the axes, a faint grid behind the data along `grid` ("x", "y", "both" or None)."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(axis=grid, color="#e9e9e9", linewidth=0.8)
    ax.tick_params(length=3, color=GREY)
    return ax


def zero_line(ax: Axes, axis: str = "y") -> None:
    """The single-task model."""
    draw = ax.axhline if axis == "y" else ax.axvline
    draw(0, color=GREY, linewidth=0.8, zorder=1)


def plain_log_ticks(axis: Axis) -> None:
    """Ticks of a logarithmic axis as plain numbers, 1 2 5 10 20 50 …, not as powers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def legend_entry(smto: str) -> Line2D:
    """A line for a legend that lists methods."""
    return Line2D([], [], markersize=5, **line(smto))


def figure_of(ax: Axes | np.ndarray) -> Figure:
    """The figure that holds one or several axes."""
    figure = (ax if isinstance(ax, Axes) else ax.flat[0]).get_figure(root=True)
    assert figure is not None
    return figure


def caption(ax: Axes | np.ndarray, *sentences: str) -> None:
    """Keep a caption with a figure, for `publish`; it is not drawn."""
    figure_of(ax).set_label(" ".join(" ".join(sentences).split()))


def interval(low: float, high: float, decimals: int = 2) -> str:
    """The bounds of an interval as a cell of a table; a dash where one seed gives none."""
    if not np.isfinite([low, high]).all():
        return "–"
    return " to ".join(f"{bound:.{decimals}f}".replace("-", "−") for bound in (low, high))


def seeds(selected: pd.DataFrame) -> str:
    """How many seeds stand behind each method: "10 seeds", "3 to 5 seeds"."""
    found = sorted({int(n) for n in selected.groupby(["problem", "smto"])["seed"].nunique()})
    if len(found) > 1:
        return f"{found[0]} to {found[-1]} seeds"
    return "1 seed" if found in ([], [1]) else f"{found[0]} seeds"


def chosen(settings: pd.DataFrame | None) -> str:
    """The sentence of a caption that says who chose the settings; nothing where that is not known."""
    if settings is None:
        return ""
    by = ["as published" if by == "published" else by for by in settings["chosen"].unique()]
    rates = settings[settings.smto != "single_task"].groupby("smto", sort=False).lr.agg(["first", "nunique"])
    unequal = learning_rates(rates["first"].to_dict()) if (rates["nunique"] == 1).all() else ""
    return f"Settings: {'; '.join(by)}. {unequal}".strip()


def learning_rates(rates: Mapping[str, float]) -> str:
    """The sentence of a caption that says which methods have another learning rate than most; nothing where all have
    the same.

    Args:
        rates: by method.
    """
    counts = Counter(rates.values())
    if len(counts) < 2:
        return ""
    (most, _), *_ = counts.most_common()
    others = [
        f"{lr:g} for {listed(label(smto) for smto in in_order(s for s in rates if rates[s] == lr))}"
        for lr in sorted(set(rates.values()) - {most})
    ]
    return f"Learning rate: {most:g}, but {listed(others)}."


def diverged(selected: pd.DataFrame) -> str:
    """The sentence of a caption that names the methods some of whose runs diverged; nothing where none did."""
    found = selected[selected.diverged].groupby(["problem", "smto"], sort=False).size()
    if found.empty:
        return ""
    several = selected.problem.nunique() > 1
    runs = [
        f"{n} of {label(smto)}" + (f" on {problem_label(problem)}" if several else "")
        for (problem, smto), n in found.items()
    ]
    return f"Runs that diverged, read at their best epoch before, if any: {', '.join(runs)}."


# -- leaving them for the report ---------------------------------------------------------------------------------------


def publish(ax: Axes | np.ndarray, name: str, preset: str, title: str, data: str = "") -> Markdown:
    """Save a figure as PDF and PNG under `name` ("01_figure_1") and show it; returns its caption, to stand below it.

    Args:
        data: what it rests on, where a reader might take that for something else: "synthetic streets". It stands in the
            caption and in the small print of the figure.
    """
    import matplotlib.pyplot as plt
    from IPython.display import Markdown, display

    figure = figure_of(ax)
    text = _with_data(str(figure.get_label()), data)
    save_figure(figure, name, preset, title, text, data)
    display(figure)  # by itself it would be shown when the cell ends, below its caption
    plt.close(figure)
    return Markdown(f"**{title}.** {text}")


def publish_table(frame: pd.DataFrame, name: str, preset: str, title: str, data: str = "") -> Markdown:
    """Save a table as CSV and Markdown under `name` ("01_table_3"); returns it with its caption.

    Args:
        data: as for `publish`; it stands in the caption.
    """
    caption = _with_data(frame.attrs.get("caption", ""), data)
    return save_table(frame, name, preset, title, caption, frame.attrs.get("decimals"))


def _with_data(caption: str, data: str) -> str:
    return f"{caption} Data: {data}.".strip() if data else caption
