"""What is learnt, by which methods, and how it goes: digits, a table of the methods, learning curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from torch import Tensor

from mtl_core import smtos
from mtl_core.tasks import Task
from mtl_study import look
from mtl_study.analysis import delta, frames
from mtl_study.experiments.runs import Run
from mtl_study.plots import canvas
from mtl_study.words import counted


def samples(x: Tensor, classes: Tensor, digits: Tensor) -> np.ndarray:
    """Inputs of Multi-MNIST and what is asked of them: the class of the left digit, the right digit redrawn.

    Args:
        x: [N, 1, 28, 28]. classes: of the left digits [N]. digits: the right ones [N, 28, 28].

    Returns:
        The axes [3, N].
    """
    import matplotlib.pyplot as plt

    count = len(x)
    size, heights = (1.05 * count + 1, 2.7), (1, 0.35, 1)
    _, axes = plt.subplots(3, count, figsize=size, height_ratios=heights, squeeze=False, layout="constrained")
    for column, (picture, name, digit) in enumerate(zip(x[:, 0], classes, digits, strict=True)):
        for row, image in ((0, picture), (2, digit)):
            axes[row, column].imshow(image.numpy(force=True), cmap="gray", interpolation="nearest")
        axes[1, column].text(0.5, 0.5, str(int(name)), ha="center", va="center", fontsize=17)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    names = ("input", "CL: class of\nthe left digit", "RR: the right\ndigit, redrawn")
    for ax, name in zip(axes[:, 0], names, strict=True):
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
    canvas.caption(
        axes, "First row: what the network sees, of MNIST's digits. Below: the two targets, a class and a picture."
    )
    return axes


def learning_curves(
    runs: Sequence[Run],
    baselines: pd.DataFrame,
    tasks: Sequence[Task],
    highlight: Sequence[str],
) -> Axes:
    """Validation Δm after every epoch, mean over seeds: drawn out for those in `highlight` (up to seven), else grey."""
    gains = delta.delta_m(frames.tidy(runs), baselines, tasks)["delta_m"].xs("val", level="split")
    curves = gains.groupby(["smto", "epoch"]).mean().unstack("epoch")
    curves.columns = curves.columns + 1
    each = gains.groupby(["smto", "seed", "epoch"]).mean().unstack("epoch").to_numpy()
    found = look.in_order(curves.index)
    _, ax = canvas.figure(8, 4.2)
    for smto in found:
        if smto not in highlight:
            ax.plot(curves.columns, curves.loc[smto], color=look.FAINT, linewidth=0.9, zorder=1)
    table = gains.rename("gain").reset_index().query("smto in @highlight")
    table = table.assign(epoch=table.epoch + 1)
    bold = canvas.lines(ax, table, "epoch", "gain", markersize=4, linewidth=1.8, markevery=1, zorder=3)
    canvas.zero_line(ax)
    ax.set_ylim(_worth_seeing(each), None)
    canvas.counting_axis(ax, "epochs trained")
    ax.set_ylabel("validation Δm, % (higher is better)")
    last = curves.iloc[:, -1]
    order = sorted(bold, key=lambda smto: -last[smto])
    handles = [canvas.legend_entry(smto) for smto in order]
    if len(found) > len(bold):
        handles.append(Line2D([], [], color=look.FAINT, label="the others"))
    canvas.legend_right(ax, handles=handles)
    canvas.despine(ax)
    seeds = len({run.config.seed for run in runs})
    canvas.caption(
        ax,
        f"Validation Δm after every epoch, mean over {counted(seeds, 'seed')}; the legend is in the order of the last "
        "epoch.",
        "The line at 0: the single-task models at their best epochs. The axis cuts off what is far below the rest.",
    )
    return ax


def _worth_seeing(values: np.ndarray) -> float | None:
    """A lower limit that leaves room for every run's later half and cuts off what is far below it."""
    later = values[:, values.shape[1] // 2 :]
    later = later[np.isfinite(later)]
    if not later.size:
        return None
    low, high = later.min(), max(later.max(), 0.0)
    return float(low - 0.25 * (high - low))


def table_of_methods(methods: Sequence[str]) -> pd.DataFrame:
    """What each method works on, what the heads get (D28) and how long its update is, from the methods themselves.

    Returns:
        One row per method; its caption in `.attrs["caption"]`.
    """
    works_on = {"features": "gradients on the features", "parameters": "gradients on the weights"}
    heads = {"plain": "own gradient", "mean": "own gradient / K", "weighted": "own gradient × weight"}
    heads["scaled"] = "own gradient × scale"
    rows = []
    for key in methods:
        smto = smtos.get(key)
        row = {"method": look.label(key), "works on": works_on.get(smto.space, smto.space)}
        rows.append(row | {"its head gets": heads[smto.head_policy], "size of the update": smto.native_scale})
    table = pd.DataFrame(rows).set_index("method")
    canvas.caption(
        table,
        "Read from the methods' own files, mtl_core/smtos. K is the number of tasks; the weight is that of the task on "
        "the shared part.",
    )
    return table
