"""What a `Balancer(…, log=True)` has noted of a training, drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mtl_study.look import GREY
from mtl_study.plots import canvas
from mtl_study.plots.weight_paths import task_line

PANELS = {
    "loss": "loss",
    "weight": "weight on what is shared",
    "norm": "length of the gradient",
    "cosine": "lowest cosine with another task's gradient",
}


def log(rows: Sequence[Mapping[str, Any]], mean_over: int = 1) -> np.ndarray:
    """`balance.log`: a panel each for losses, weights, gradients' lengths and lowest cosines, a line per task.

    Args:
        rows: with step, task, loss, weight, norm and cosine; conflicts are counted under the last panel.
        mean_over: steps that a point is the mean of.
    """
    frame = pd.DataFrame(list(rows))
    if frame.empty:
        raise ValueError("the log is empty: make the Balancer with log=True, and take a step before drawing it.")
    frame["step"] = frame.step // mean_over * mean_over
    _, axes = canvas.figure(3.3 * len(PANELS), 3, len(PANELS))
    for ax, (column, title) in zip(axes, PANELS.items(), strict=True):
        for k, (task, own) in enumerate(frame.groupby("task", sort=False)):
            means = own.groupby("step")[column].mean()
            ax.plot(means.index, means, label=task, **task_line(k))
        ax.set_title(title, fontsize="medium")
        ax.set_xlabel("step")
        canvas.despine(ax)
    axes[-1].axhline(0, color=GREY, linewidth=0.8)
    shares = frame.assign(met=frame.conflicts > 0).groupby("task", sort=False).met.mean()
    words = "; ".join(f"{task} {100 * share:.0f} %" for task, share in shares.items())
    axes[-1].set_xlabel(f"step (steps with a conflict: {words})")
    canvas.legend(axes[0], title="task")
    return np.asarray(axes)
