"""What all figures share: making them, their axes and legends, their captions, and saving them for the report."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox
from matplotlib.typing import ColorType
from numpy.typing import ArrayLike

from mtl_study.artifacts import save_figure, save_table, warning
from mtl_study.look import FAMILIES, GREY, INK, LONG, PROBLEMS, in_order, label, line, look, problems_in_order
from mtl_study.teaching.guesses import guess_at
from mtl_study.teaching.live import Live, bundle
from mtl_study.words import untagged

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import Markdown

FEW = 5  # up to so many seeds, each is drawn
MARKER = 4.5  # half the size of a marker, in points: a name keeps away from it
SHADED = "#eef3ee"  # what counts as equal, or as near
THEIRS = "#f3eee4"  # what others found


def problem_line(problem: str) -> dict[str, Any]:
    """How a problem is drawn where lines are problems and not methods."""
    name, place, marker = PROBLEMS.get(problem, (problem, 0.95, "D"))
    streets = problem.startswith("cityscapes/")
    line = {"linestyle": (0, LONG)} if streets else {}
    colours = mpl.colormaps[FAMILIES.get(problem.split("/")[0], "viridis")]
    return {"color": colours(place), "marker": marker, "label": name, **line}


def figure(width: float = 8.0, height: float = 4.0, columns: int = 1, **settings: Any) -> tuple[Figure, Any]:
    """A new figure with one row of axes, sized in inches for a notebook page."""
    import matplotlib.pyplot as plt

    return plt.subplots(1, columns, figsize=(width, height), layout="constrained", **settings)


def grid_of_axes(rows: int, widths: Sequence[float], width: float, row_height: float) -> tuple[Figure, np.ndarray]:
    """A new figure with rows of axes whose columns have these relative widths; axes [rows, columns]."""
    import matplotlib.pyplot as plt

    size = (width, row_height * rows)
    return plt.subplots(rows, len(widths), figsize=size, width_ratios=widths, squeeze=False, layout="constrained")


def despine(ax: Axes, grid: Literal["x", "y", "both"] | None = "y") -> Axes:
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


def counting_axis(ax: Axes, label: str = "epoch") -> None:
    """An axis of what is counted: whole numbers, the first of them 1."""
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set_xlabel(label)


def plain_log_ticks(axis: Axis) -> None:
    """Ticks of a logarithmic axis as plain numbers, 1 2 5 10 20 50 …, not as powers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def thin_labels(figure: Figure) -> None:
    """Fewer ticks on an axis of numbers whose labels touch: of a linear one, or of a logarithmic one its decades."""
    figure.draw_without_rendering()
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        locator = axis.get_major_locator()
        if isinstance(locator, LogLocator) and _labels_touch(axis):
            locator.set_params(subs=(1,))
        for bins in range(8, 1, -1):
            if isinstance(locator, MaxNLocator) and _labels_touch(axis):
                locator.set_params(nbins=bins)


def _labels_touch(axis: Axis) -> bool:
    low, high = sorted(axis.get_view_interval())
    labels = [
        one for at, one in zip(axis.get_majorticklocs(), axis.get_ticklabels(), strict=False) if low <= at <= high
    ]
    boxes = [one.get_window_extent().padded(0.15 * float(one.get_fontsize())) for one in labels if one.get_text()]
    return any(one.overlaps(other) for one, other in itertools.pairwise(boxes))


def mean_and_sd(over_seeds: Any) -> tuple[Any, Any]:
    """What bands and crosses show: the mean over seeds, and the standard deviation between them, 0 for a single one."""
    return over_seeds.mean(), over_seeds.std(ddof=1).fillna(0)


def one_sd(floor: Callable[[float], float] = lambda mean: -math.inf) -> Callable[[Any], tuple[float, float]]:
    """A band as seaborn asks for it: ± 1 standard deviation between seeds, no lower than a floor, by their mean."""
    return lambda values: (
        max(values.mean() - values.std(ddof=1), floor(values.mean())),
        values.mean() + values.std(ddof=1),
    )


def drawn_as(by: str, keys: Sequence[str]) -> dict[str, Any]:
    """What makes seaborn draw methods (`by` is "smto") or problems ("problem") as in every other figure."""
    if by == "smto":
        return look(keys)
    lines = {key: problem_line(key) for key in keys}
    dashes = {key: line.get("linestyle", (0, ""))[1] for key, line in lines.items()}
    palette, markers = ({key: line[what] for key, line in lines.items()} for what in ("color", "marker"))
    return dict.fromkeys(("hue", "style"), by) | dict.fromkeys(("hue_order", "style_order"), keys) | {
        "palette": palette, "dashes": dashes, "markers": markers,
    }  # fmt: skip


def lines(
    ax: Axes, table: pd.DataFrame, x: str, y: str, by: str = "smto", errorbar: Any = None, **style: Any
) -> list[str]:
    """A line per method or problem, the mean over seeds, with its name for a legend; returns what is drawn.

    Args:
        table: a row per seed and place. errorbar: the band around a line: None, `one_sd()`, or ("pi", 100), from the
            least to the greatest; where there is one seed there is none. style: of all lines.

    Raises:
        ValueError: the axis is not linear: seaborn would average logarithms.
    """
    import seaborn as sns

    if ax.get_yscale() != "linear":
        raise ValueError("the axis is not linear, so seaborn would average logarithms: draw first, then set the scale.")
    table = table.dropna(subset=[x, y])
    keys = in_order(table[by]) if by == "smto" else problems_in_order(table[by])
    said, before = (ax.get_xlabel(), ax.get_ylabel()), len(ax.lines)
    style = {"linewidth": 1.6, "markersize": 4.5, "markevery": max(1, table[x].nunique() // 6), **style}
    if keys:
        shade = {"alpha": 0.15, "linewidth": 0} if errorbar else {}
        sns.lineplot(
            table, x=x, y=y, errorbar=errorbar, err_kws=shade, legend=False, ax=ax, **drawn_as(by, keys), **style
        )
    for drawn, key in zip(ax.lines[before:], keys, strict=True):
        drawn.set_label(label(key) if by == "smto" else problem_line(key)["label"])
    ax.set(xlabel=said[0], ylabel=said[1])
    return keys


def dots(ax: Axes, x: Any, y: Any, colour: ColorType, marker: str, orient: str = "x", **style: Any) -> None:
    """A mark per seed at these places, across and up; seaborn moves none. `orient` is as seaborn has it."""
    import seaborn as sns

    style |= {"color": colour, "marker": marker, "legend": False}  # else all that has a label gets one here
    sns.stripplot(x=x, y=y, orient=orient, native_scale=True, jitter=False, ax=ax, **style)


def strip(
    ax: Axes,
    place: float,
    values: Any,
    colour: ColorType,
    marker: str,
    upright: bool = False,
    half: float = 0.3,
    label: str | None = None,
) -> None:
    """A mark per seed and a black bar at their mean, across at the height `place`, or upright above it.

    Args:
        half: half the length of the bar.
    """
    at, bar, mean = [place] * len(values), [place - half, place + half], [values.mean()] * 2
    x, y, orient = (at, values, "x") if upright else (values, at, "y")
    dots(ax, x, y, colour, marker, orient, size=4.5, alpha=0.75, label=label)
    ax.plot(*((bar, mean) if upright else (mean, bar)), color=INK, linewidth=1.4)


def legend(of: Axes | Figure, **settings: Any) -> Legend:
    """A legend; where a line in it is dashed, its samples are long enough for dashes on both sides of a marker."""
    handles = settings.get("handles") or (of.get_legend_handles_labels()[0] if isinstance(of, Axes) else [])
    dashed = any(isinstance(handle, Line2D) and handle.get_linestyle() not in ("-", "None") for handle in handles)
    if dashed:
        settings.setdefault("handlelength", 3.8)
    settings.setdefault("frameon", False)
    return of.legend(**settings)


def legend_right(ax: Axes, **settings: Any) -> None:
    """A legend to the right of the axes."""
    legend(ax, bbox_to_anchor=(1.01, 1), loc="upper left", fontsize=8.5, labelspacing=0.35, **settings)


def legend_above(of: Axes | Figure, **settings: Any) -> None:
    """A legend above the axes, or above all axes of a figure; below them it would cover the small print."""
    if isinstance(of, Axes):
        legend(of, loc="lower left", bbox_to_anchor=(0, 1), fontsize=8.5, **settings)
    else:
        legend(of, loc="outside upper center", fontsize=9, **settings)


def label_points(
    ax: Axes,
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    colours: Sequence[str],
    avoid: ArrayLike = (),
    **style: Any,
) -> list[Annotation]:
    """A name at each of these points, where it covers no other name and no other point, if there is such a place; a
    hairline leads to the point where the name had to move away, and what a name crosses fades behind it. To be called
    last: later limits would move the points under their names.

    Args:
        points: in data coordinates; a name and its colour each. avoid: other points, [n, 2], that names had better not
            cover. style: of `annotate`.
    """
    figure = figure_of(ax)
    figure.canvas.draw()  # so that the layout is settled
    scale, frame = figure.dpi / 72, ax.get_window_extent()
    dots = ax.transData.transform(np.asarray(points, dtype=float))
    lines = ax.transData.transform(np.asarray(avoid, dtype=float).reshape(-1, 2))
    directions = [(math.cos(2 * math.pi * i / 16), math.sin(2 * math.pi * i / 16)) for i in range(16)]
    taken: list[Bbox] = []
    found, paper = [], [withStroke(linewidth=2, foreground="white")]
    for i, (name, point, colour) in enumerate(zip(names, points, colours, strict=True)):
        text = ax.annotate(name, point, (0, 0), textcoords="offset points", color=colour, va="center", **style)
        text.set(path_effects=paper, zorder=5)
        width, height = text.get_window_extent().size
        others = np.delete(dots, i, axis=0)
        places: list[tuple[float, int, tuple[float, float], Bbox]] = []
        for distance in (7, 13, 20, 30, 42):
            for x, y in directions:
                across, up = (
                    distance * x - (1 - x) / 2 * width / scale,
                    distance * y,
                )  # it ends where it faces its point
                left, bottom = dots[i] + scale * np.array([across, up]) - [0, height / 2]
                box = Bbox.from_bounds(left, bottom, width, height).padded(scale)
                covers = box.padded(MARKER * scale).count_contains(others) + box.count_overlaps(taken)
                outside = not (frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1))
                cost = 100.0 * (covers + outside) + 20.0 * (box.count_contains(lines) > 0) + distance
                places.append((cost, distance, (across, up), box))
        _, distance, place, box = min(places, key=lambda one: one[0])
        text.set_position(place)
        taken.append(box)
        if distance > 13:
            hairline = {"arrowstyle": "-", "lw": 0.4, "color": colour}
            ax.annotate("", point, place, textcoords="offset points", arrowprops=hairline)
        found.append(text)
    return found


def legend_entry(smto: str) -> Line2D:
    """A line for a legend that lists methods."""
    return Line2D([], [], markersize=5, **line(smto))


def figure_of(ax: Axes | np.ndarray) -> Figure:
    """The figure that holds one or several axes."""
    figure = (ax if isinstance(ax, Axes) else ax.flat[0]).get_figure(root=True)
    assert figure is not None
    return figure


def caption(of: Axes | np.ndarray | pd.DataFrame, *sentences: str) -> None:
    """Keep a caption with a figure or a table, for `publish` or `publish_table`; line breaks are ignored."""
    text = " ".join(" ".join(sentences).split())
    if isinstance(of, Axes | np.ndarray):
        figure_of(of).set_label(text)
    else:
        of.attrs["caption"] = text


def publish(
    ax: Axes | np.ndarray, name: str, preset: str, title: str, data: str = "", live: Live | None = None
) -> Markdown:
    """Save a figure as PDF and PNG under `name` ("01_figure_1") and show it; returns its caption, to be shown below it,
    with what the reader guessed (`predict`).

    Args:
        data: what it rests on, where a reader might take that for something else: "synthetic streets". It is in the
            caption and in the small print of the figure.
        live: what takes the place of the figure where scripts run.
    """
    import matplotlib.pyplot as plt
    from IPython.display import Markdown, display

    figure = figure_of(ax)
    thin_labels(figure)
    text = _with_data(str(figure.get_label()), data)
    save_figure(figure, name, preset, title, text, data)
    if live:
        show(ax, live)
    else:
        display(figure)  # by itself it would be shown when the cell ends, below its caption
        plt.close(figure)
    return _with_guess(Markdown(untagged(f"**{title}.** {warning(preset)}{text}")), name)


def show(ax: Axes | np.ndarray, live: Live) -> None:
    """Show a figure, and where scripts run what takes its place."""
    import matplotlib.pyplot as plt
    from IPython.display import display

    display(bundle(figure_of(ax), live), raw=True)
    plt.close(figure_of(ax))


def publish_table(frame: pd.DataFrame, name: str, preset: str, title: str, data: str = "") -> Markdown:
    """Save a table as CSV and Markdown under `name` ("01_table_3"); returns it with its caption, and with what the
    reader guessed (`predict`).

    Args:
        data: as for `publish`; it goes into the caption.
    """
    caption = _with_data(frame.attrs.get("caption", ""), data)
    return _with_guess(save_table(frame, name, preset, title, caption, frame.attrs.get("decimals")), name)


def _with_guess(shown: Markdown, name: str) -> Markdown:
    """A caption, or a table with its own, and the guess about it, if the reader keeps one."""
    from IPython.display import Markdown

    guess = guess_at(name)
    return Markdown(f"{shown.data}\n\n> **Your guess:** {untagged(guess)}") if guess else shown


def _with_data(caption: str, data: str) -> str:
    return f"{caption} Data: {data}.".strip() if data else caption
