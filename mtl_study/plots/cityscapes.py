"""Section 3.3 of the paper, the Cityscapes ladder: the scenes, Figures 3(b) and 6(b), and what opens the gap."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.colors import hsv_to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy import stats
from torch import Tensor

from mtl_core import problems
from mtl_core.datasets.cityscapes import CLASSES, MEAN, STD, TO_7
from mtl_core.models.deeplab import DilatedConv
from mtl_study import look
from mtl_study.analysis import frames, inference, task_weights
from mtl_study.experiments.runs import Run
from mtl_study.look import GREY, LOOK
from mtl_study.plots import canvas, captions
from mtl_study.plots.forest import draw_row
from mtl_study.plots.weight_paths import draw_weights, task_line
from mtl_study.words import counted, listed, percent

STEPS = {  # of the ladder, by problem: as the paper calls them
    "cityscapes/R50": "R50",
    "cityscapes/R18": "R18",
    "cityscapes/inst_seg": "Inst. Seg.",
    "cityscapes/HR": "HR",
    "cityscapes/19C": "19C",
}


class Corner(NamedTuple):
    """One of the eight corners: whether instances are learnt, too; 19 classes instead of 7; twice the resolution."""

    tasks: bool
    classes: bool
    resolution: bool

    def __str__(self) -> str:
        tasks, classes = "S D I" if self.tasks else "S D", 19 if self.classes else 7
        return f"{tasks}\n{classes} classes\n{'high' if self.resolution else 'low'} res."


CORNERS = {
    "cityscapes/R18": Corner(False, False, False),
    "cityscapes/SD_19": Corner(False, True, False),
    "cityscapes/HR_SD_7": Corner(False, False, True),
    "cityscapes/HR_SD_19": Corner(False, True, True),
    "cityscapes/inst_seg": Corner(True, False, False),
    "cityscapes/SDI_19": Corner(True, True, False),
    "cityscapes/HR": Corner(True, False, True),
    "cityscapes/19C": Corner(True, True, True),
}
FACTORS = {"tasks": "a third task", "classes": "19 classes instead of 7", "resolution": "twice the resolution"}

_CLASSES = sorted((c for c in CLASSES if 0 <= c.train_id < 19), key=lambda c: c.train_id)
COLOURS = np.array([c.color for c in _CLASSES]) / 255  # of the 19 classes, as Cityscapes has them
_FIRST = [int((TO_7[:-1] == k).nonzero()[0, 0]) for k in range(7)]  # class of each of the 7 categories
COLOURS_7 = COLOURS[_FIRST]
NAMES, NAMES_7 = [c.name for c in _CLASSES], [_CLASSES[first].category for first in _FIRST]
NO_OBJECT = 0.55  # the grey of pixels that belong to no person or vehicle


# -- what is learnt ----------------------------------------------------------------------------------------------------


def scenes(columns: Mapping[str, Tensor], depth: Tensor, offsets: Tensor) -> np.ndarray:
    """Scenes as a model sees them, one per row, and its targets next to them.

    Args:
        columns: by title, images [N, 3, H, W], normalised as ImageNet's, or classes [N, H, W], −1 = ignored; classes
            above 6 are of the 19.
        depth: disparity [N, 1, H, W] in pixels, 0 = not measured. offsets: from the centres, and their mask
            [N, 3, H, W].

    Returns:
        The axes [N, columns + 2].
    """
    import matplotlib.pyplot as plt

    rows, count = len(depth), len(columns) + 2
    size = (2.3 * count + 1.3, 1.3 * rows + 0.3)
    figure, axes = plt.subplots(rows, count, figsize=size, squeeze=False, layout="constrained")
    pictures = {title: _coloured(values) for title, values in columns.items()}
    disparity = depth[:, 0].numpy(force=True)
    shade = mpl.colormaps["viridis"](disparity / max(disparity.max(), 1e-6))
    shade[disparity == 0] = 1
    pictures |= {"D: disparity": shade, "I: way to the middle": _directions(offsets.numpy(force=True))}
    for row, column in itertools.product(range(rows), range(count)):
        ax = axes[row, column]
        ax.imshow(list(pictures.values())[column][row], interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for ax, title in zip(axes[0], pictures, strict=True):
        ax.set_title(title, fontsize=9)
    handles = [handle for title, values in columns.items() if values.ndim == 3 for handle in _key(title, values)]
    # to the right: at the foot it would cover the small print once a saved figure is cropped
    key = canvas.legend(figure, handles=handles, loc="outside right center", fontsize=8, handlelength=1.2)
    for text in key.get_texts():
        text.set_fontweight("bold" if text.get_text() in columns else "normal")
    canvas.caption(
        axes,
        "Left: what the network sees, at its own resolution; then its targets. S: classes, in the colours of "
        "Cityscapes; white is ignored. D: yellow is near, violet far, white not measured. I: for a pixel of a person "
        "or vehicle the colour is the direction to the middle of its object, fainter where that is nearer.",
    )
    return axes


def _coloured(values: Tensor) -> np.ndarray:
    """Images or classes [N, …] as pictures [N, H, W, 3]."""
    if values.ndim == 4:
        image = values.numpy(force=True).transpose(0, 2, 3, 1) * np.array(STD) + np.array(MEAN)
        return image.clip(0, 1)
    _, palette = _classes(values)
    return np.vstack([palette, np.ones((1, 3))])[values.numpy(force=True)]  # the last, white, is index −1: ignored


def _classes(values: Tensor) -> tuple[list[str], np.ndarray]:
    """Names and colours of the classes that these are of: the 19 where there is one above 6, else the 7."""
    return (NAMES, COLOURS) if int(values.max()) > 6 else (NAMES_7, COLOURS_7)


def _key(title: str, values: Tensor) -> list[Patch]:
    """Entries of a legend: a title, then every class that occurs."""
    names, palette = _classes(values)
    found = [int(k) for k in values.unique() if k >= 0]
    return [Patch(alpha=0, label=title), *(Patch(color=palette[k], label=names[k]) for k in found)]


def _directions(offsets: np.ndarray) -> np.ndarray:
    """Offsets with their mask [N, 3, H, W] to pictures [N, H, W, 3]: the hue is the direction to the middle, grey what
    has none."""
    down, right, valid = offsets.transpose(1, 0, 2, 3)
    length = np.hypot(down, right)
    hue = np.arctan2(-down, -right) / (2 * np.pi) % 1
    strength = 0.15 + 0.85 * np.sqrt(length / max(length.max(), 1e-6))
    colours = hsv_to_rgb(np.stack([hue, strength, np.ones_like(hue)], axis=-1))
    return np.where(valid[..., None] > 0, colours, NO_OBJECT)


def dilations_at_work(problem: problems.Problem) -> list[int]:
    """Which dilations of a head's 3×3 convolutions are less than a side of the map of features z. Where a dilation is
    not, all taps but the middle one meet padding only, and the branch is a 1×1 convolution."""
    head = next(iter(problem.build_model(0.0).heads.values()))
    found = [conv.dilation[0] for conv in head.modules() if isinstance(conv, DilatedConv)]
    return [dilation for dilation in found if dilation < max(problem.feature_shape[1:])]


def table_of_steps(names: Sequence[str], **options: Any) -> pd.DataFrame:
    """What each problem is: its picture, tasks, classes and the size of its model, read off the problems themselves.

    Args:
        options: of the problems, as `problems.get` takes them.

    Returns:
        One row per problem; the caption in `.attrs["caption"]`.
    """
    rows = []
    for name in names:
        problem = problems.get(name, **{**options, "pretrained": False})
        model = problem.build_model(0.0)
        height, width = problem.feature_shape[1:]
        parts = [sum(p.numel() for p in part.parameters()) for part in (model.encoder, *model.heads.values())]
        rows.append(
            {
                "step": STEPS.get(name, look.problem_label(name)),
                "picture": f"{8 * width} × {8 * height}",
                "map of features": f"{width} × {height}",
                "dilations at work": ", ".join(map(str, dilations_at_work(problem))) or "none",
                "tasks": " ".join(problem.task_names),
                "classes": problem.data.classes,  # type: ignore[attr-defined]
                "weights of the encoder": parts[0],
                "of each head": f"{min(parts[1:]):,} to {max(parts[1:]):,}",
            }
        )
    table = pd.DataFrame(rows).set_index("step")
    table["weights of the encoder"] = [f"{n:,}" for n in table["weights of the encoder"]]
    canvas.caption(
        table,
        "S: semantic segmentation; D: disparity; I: the way to each pixel of a person or vehicle from the middle of "
        "its object. Dilations at work: those of a head's 3×3 convolutions that are less than the longer side of the "
        "map of features; with others they are 1×1 convolutions.",
    )
    return table


# -- Figure 3(b) -------------------------------------------------------------------------------------------------------


def gaps(selected: pd.DataFrame, columns: Sequence[str] = ("delta_m",)) -> pd.DataFrame:
    """`selected` with a column "gap" (and "gap_…" for the other columns): what each run has minus what the uniform loss
    has on the same problem with the same seed, in points."""
    keys = ["problem", "seed"]
    uniform = selected[selected.smto == "unit_scal"].set_index(keys)
    found = selected.copy()
    for column in columns:
        reference = uniform[column].reindex(pd.MultiIndex.from_frame(found[keys])).to_numpy()
        found["gap" if column == "delta_m" else f"gap_{column}"] = found[column].to_numpy(dtype=float) - reference
    return found


def unequal_rates(selected: pd.DataFrame) -> dict[str, str]:
    """Where not all methods have the same learning rate, so that a gap is not that of the methods alone: by problem,
    the rates in words, "Unit. Scal.: 0.001, IMTL: 0.0005"."""
    found = {}
    for problem in look.problems_in_order(selected.problem):
        configs = selected[selected.problem == problem].drop_duplicates("smto").set_index("smto").config
        rates = {smto: frames.setting(configs[smto], "lr") for smto in look.in_order(configs.index)}
        if len({*rates.values()}) > 1:
            found[problem] = ", ".join(f"{look.label(smto)}: {rate:g}" for smto, rate in rates.items())
    return found


def ladder(selected: pd.DataFrame, settings: pd.DataFrame | None = None) -> np.ndarray:
    """Figure 3(b): Δm of Unit. Scal. and of others at every step (above), and the differences to it (below).

    Args:
        selected: of the steps; a method is drawn where it has runs. settings: of the experiments, for the caption.

    Returns:
        The two axes.
    """
    import matplotlib.pyplot as plt

    steps = [name for name in STEPS if name in set(selected.problem)]
    smtos = look.in_order(selected.smto)
    _, axes = plt.subplots(2, 1, figsize=(8.5, 5.8), sharex=True, height_ratios=[3, 2], layout="constrained")
    table, at = gaps(selected), np.arange(len(steps))
    table = table.assign(step=table.problem.map(steps.index))
    for ax, column in zip(axes, ("delta_m", "gap"), strict=True):
        shown = table if column == "delta_m" else table[table.smto != "unit_scal"]
        for smto in canvas.lines(ax, shown, "step", column, errorbar=canvas.one_sd(), markersize=6):
            own, apart = shown[shown.smto == smto], 0.06 * (smtos.index(smto) - (len(smtos) - 1) / 2)
            ax.plot(own.step + apart, own[column], "_", color=LOOK[smto].colour, markersize=7, alpha=0.7, zorder=2)
    canvas.zero_line(axes[0])
    axes[1].axhline(0, color=look.INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    for ax, words in zip(
        axes, ("Δm, % (higher is better)", "minus Unit. Scal., points\n(higher is better)"), strict=True
    ):
        canvas.despine(ax)
        ax.set_ylabel(words)
    axes[1].set_xticks(at, [STEPS[step] for step in steps])
    canvas.legend_above(axes[0], handles=[canvas.legend_entry(smto) for smto in smtos], ncols=len(smtos))
    unequal = unequal_rates(selected)
    rates = [STEPS[step] + (f" ({words})" if len(unequal) < 2 else "") for step, words in unequal.items()]
    canvas.caption(
        axes,
        f"Mean of {captions.seeds(selected)}, with bands for all lines alike (D31); a stroke is a seed.",
        "With two tasks the two forms of IMTL are one (D24)." if "imtl_transposed" in smtos else "",
        captions.diverged(selected),
        captions.elsewhere(selected),
        f"The learning rates differ on {listed(rates)}: a gap there is not the method's alone."
        if rates
        else captions.chosen(settings, selected.smto),
    )
    return axes


# -- which change opens the gap ----------------------------------------------------------------------------------------


def effects(table: pd.DataFrame, column: str = "gap") -> pd.DataFrame:
    """What each of the three changes does to a number, and what they do together: seed by seed, from all eight corners.

    The effect of a change is the mean over the four corners with it minus the mean over the four without. Of two
    changes together: by how much one's effect is larger with the other than without, halved; of three likewise.

    Args:
        table: one row per corner and seed of one method, with problem, seed and the column.

    Returns:
        Index seed, one column per effect ("tasks", "classes", "tasks × classes", …). Seeds that lack a corner are left
        out.

    Raises:
        ValueError: several rows of one corner and seed.
    """
    rows = table[table.problem.isin(CORNERS)]
    if rows.duplicated(["problem", "seed"]).any():
        raise ValueError("several runs of one corner have the same seed; give those of one method.")
    values = rows.pivot(index="seed", columns="problem", values=column).reindex(columns=list(CORNERS)).dropna()
    signs = 2 * np.array(list(CORNERS.values()), dtype=int) - 1  # [8, 3]
    found = {}
    for order in (1, 2, 3):
        for chosen in itertools.combinations(range(3), order):
            name = " × ".join(Corner._fields[i] for i in chosen)
            found[name] = values @ (signs[:, list(chosen)].prod(axis=1) / 4)
    return pd.DataFrame(found, index=values.index)


def effect_intervals(found: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Means and t intervals of effects, from one error variance that they have in common, with seeds as blocks.

    Every effect is a sum of the same eight gaps with signs, over 4. So all seven have the same variance if that of the
    gap, once taken out what a seed does to all corners alike, is equal in all corners and independent between them.
    Assuming that, s² is the mean of the seven variances between seeds, with 7 (n − 1) degrees of freedom.

    Args:
        found: what `effects` gives, n seeds.

    Returns:
        Index effect; mean, low, high; own_low and own_high from the effect's own variance, n − 1 degrees of freedom.
        With one seed the bounds are infinite.
    """
    n, count = found.shape
    table = pd.DataFrame({"mean": found.mean()})
    half = np.inf
    if n > 1:
        half = stats.t.ppf((1 + level) / 2, count * (n - 1)) * np.sqrt(found.var(ddof=1).mean() / n)
    own = [inference.t_interval(found[name], level) for name in found]
    return table.assign(
        low=table["mean"] - half,
        high=table["mean"] + half,
        own_low=[interval.low for interval in own],
        own_high=[interval.high for interval in own],
    )


def pooled(found: pd.DataFrame) -> str:
    """The sentences of a caption that say what the intervals of `effect_intervals` assume."""
    n, count = found.shape
    if n < 2:
        return "With one seed there is no interval."
    return (
        f"Intervals: one variance, the mean of the {count} between seeds ({count * (n - 1)} degrees of freedom), as if "
        "the gap varied equally in all corners, but for what a seed does to all."
    )


def table_of_effects(columns: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Effects with their intervals over seeds: a row per effect; the caption in `.attrs["caption"]`.

    Args:
        columns: by title, what `effects` gives.
    """
    parts = {}
    for title, found in columns.items():
        table = effect_intervals(found)
        parts[title] = table["mean"]
        for name, bounds in (("95 % interval", ["low", "high"]), ("by itself", ["own_low", "own_high"])):
            parts[f"{title}: {name}"] = pd.Series(
                [captions.interval(low, high) for low, high in table[bounds].to_numpy()], table.index, dtype=object
            )
    first = next(iter(columns.values()))
    table = pd.DataFrame(parts).rename(index=FACTORS).rename_axis("effect of")
    n = len(first)
    table.attrs["decimals"] = 2
    canvas.caption(
        table,
        f"Points of Δm, eight corners, {counted(n, 'seed')}. ×: half of how much more one does with the "
        f"other (all three: a quarter). {pooled(first)} "
        + (f"By itself: each effect's own variance ({n - 1})." if n > 1 else ""),
    )
    return table


def factorial(table: pd.DataFrame, smto: str = "imtl") -> np.ndarray:
    """The gap to Unit. Scal. in the eight corners (left), and what each change adds to it (right).

    Args:
        table: `gaps` of the eight corners.
    """
    rows = table[(table.smto == smto) & table.problem.isin(CORNERS)]
    colour, marker = LOOK[smto].colour, LOOK[smto].marker
    figure, (left, right) = canvas.figure(11, 4.0, columns=2, width_ratios=[6, 4])
    for x, name in enumerate(CORNERS):
        values = rows[rows.problem == name].gap.dropna()
        left.plot(np.full(len(values), x), values, "_", color=colour, markersize=9, alpha=0.7)
        left.plot(x, values.mean(), marker, color=colour, markersize=7, markeredgecolor="white")
    left.axhline(0, color=look.INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    left.set_xticks(range(len(CORNERS)), [str(corner) for corner in CORNERS.values()], fontsize=8)
    left.set_ylabel(f"Δm of {look.label(smto)} minus Unit. Scal., points\n(higher is better)")
    canvas.despine(left)
    found = effects(rows)
    for y, (name, row) in enumerate(effect_intervals(found).iterrows()):
        draw_row(right, y, found[name], colour, marker, bounds=(row.low, row.high))
    right.axvline(0, color=look.INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    right.set_yticks(range(len(found.columns)), [FACTORS.get(name, name) for name in found])
    right.set_ylim(len(found.columns) - 0.4, -0.6)
    right.set_xlabel("adds to the gap, points")
    canvas.despine(right, grid="x")
    canvas.caption(
        figure.axes[0],
        f"Left: Δm minus that of Unit. Scal., paired ({captions.seeds(rows)}). Right: what each change adds, the mean "
        "over the four corners with it minus that without; ×: half of how much more it does with the other than "
        "without. Strokes: seeds.",
        "Intervals share one error variance (table below)."
        if len(found) > 1
        else "With one seed there is no interval.",
        captions.diverged(rows),
    )
    return np.array([left, right])


# -- Figure 6(b) -------------------------------------------------------------------------------------------------------


def trajectories(runs: Iterable[Run], factor: float = 0.9) -> np.ndarray:
    """Figure 6: the normalised weights of one method during training, a panel per seed: faint the epoch means, strong
    their moving average.

    Args:
        runs: of one method on one problem. factor: how much of the average is kept from epoch to epoch.

    Raises:
        ValueError: no run with weights.
    """
    drawn = {run.config.seed: run for run in runs if not task_weights.trajectories([run]).empty}
    if not drawn:
        raise ValueError("none of these runs has weights: nothing to draw.")
    (_, first), *_ = runs_by_seed = sorted(drawn.items())
    figure, axes = canvas.figure(3.2 * len(drawn) + 1, 3.2, columns=len(drawn), sharey=True, squeeze=False)
    names, epochs = list[str](), max(len(run.history) for run in drawn.values())
    for ax, (seed, run) in zip(axes[0], runs_by_seed, strict=True):
        names = draw_weights(ax, run, factor)
        ax.axhline(1 / len(names), color=GREY, linewidth=0.8, zorder=1)
        ax.set_title(f"seed {seed}", loc="left", fontsize=10)
    axes[0, 0].set_ylabel("weight (they sum to 1)")
    handles = [Line2D([], [], linewidth=2, label=name, **task_line(k)) for k, name in enumerate(names)]
    canvas.legend(figure, handles=handles, loc="outside right center", title="task")
    canvas.caption(
        axes,
        f"Weights of {look.label(first.config.smto)} on {look.problem_label(first.config.problem)}: faint, the "
        f"mean over each epoch, normalised to sum 1; strong, its moving average with factor {factor:g}: after "
        f"{counted(epochs, 'epoch')}, {percent(100 * factor ** (epochs - 1))} of it is still the first epoch. Grey: "
        "equal weights.",
    )
    return axes
