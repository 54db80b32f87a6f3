"""The explorer's table: what the page of results draws for the problem, the metric, the methods and the rates that a
reader chooses.

    leave(selected, one_rate, preset=preset, notebook=notebook)     in a notebook, after its own tables

All is computed here, and written as it is shown; a browser chooses among the rows and draws them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.markers import MarkerStyle

from mtl_core import problems
from mtl_study import artifacts, look
from mtl_study.analysis import comparisons, frames, rankings
from mtl_study.look import LOOK
from mtl_study.plots import captions
from mtl_study.words import counted, number, say

if TYPE_CHECKING:
    from IPython.display import Markdown

UNIFORM = "unit_scal"
OWN, ONE_RATE = "own", "one_rate"
PAGE = "The page of results"  # begins the sentence that says where the explorer is
DIGITS = 4  # of what is drawn
HEADS = ("places", "method", "ties", "minus Unit. Scal.", "95 % interval", "seeds", "rate", "gain")
CAPTIONS = {
    OWN: "Each method with settings of its own. The difference to the uniform loss (Unit. Scal.) at the same seed, in "
    "points: mean and 95 % interval; small strokes are the seeds. Gain: over the single-task models, in percent. "
    f"Higher is better. {captions.PLACES}",
    ONE_RATE: "A method whose learning rate is not that of the uniform loss (Unit. Scal.) is compared with the uniform "
    "loss at its own rate, or is itself taken at the rate of the uniform loss, whichever has more runs. The difference "
    "at the same seed, in points: mean and 95 % interval; small strokes are the seeds. Only methods with all pairs of "
    f"runs have a place. {captions.PLACES}",
}


def leave(selected: pd.DataFrame, one_rate: pd.DataFrame, *, preset: str, notebook: str, data: str = "") -> Markdown:
    """Write artifacts/<preset>/explorer/<notebook>.json. Returns a sentence that says where it is drawn.

    Args:
        selected: of one or several problems. one_rate: the same as `comparisons.at_one_rate` gives it; it may lack
            methods. data: as for `publish`, where a reader might take the data for others.

    Raises:
        CannotWrite: the disk is full or the folder is not writable.
    """
    found = [
        of_problem(table, one_rate[one_rate.problem == problem], data)
        for problem, table in selected.groupby("problem", sort=False)
    ]
    artifacts.save_findings({"problems": found}, notebook, preset, kind="explorer")
    shown = counted(len(found), "problem")
    return say(f"{PAGE} draws {shown} of this notebook again for the methods that you choose: *Explore*.")


def of_problem(selected: pd.DataFrame, one_rate: pd.DataFrame, data: str = "") -> dict[str, Any]:
    """The tables of one problem.

    Returns:
        problem, label, data, seeds; metrics: column → name; methods: key → label, colour and marker (a path around 0,
        one unit wide); rows: by rates (own, one_rate) and metric, best first, as `_rows` has them.
    """
    name = str(selected.problem.iloc[0])
    smtos = look.in_order(selected.smto)
    metrics = {"delta_m": "Δm, mean over tasks"}
    for task in problems.get(name).tasks:
        metrics[task.name] = f"{task.name}: {task.label}"
        if len(task.metrics) > 1:
            metrics |= {f"{task.name}/{metric}": f"{task.name}: {metric}" for metric in task.metrics}
    return {
        "problem": name,
        "label": look.PROBLEMS.get(name, (look.problem_label(name),))[0],
        "data": data,
        "seeds": int(selected.seed.nunique()),
        "metrics": metrics,
        "methods": {
            s: {"label": look.label(s), "colour": LOOK[s].colour, "marker": _marker(LOOK[s].marker)} for s in smtos
        },
        "rows": {
            rates: {metric: _rows(table, metric, smtos, rates) for metric in metrics}
            for rates, table in ((OWN, selected), (ONE_RATE, one_rate))
        },
    }


def _rows(selected: pd.DataFrame, metric: str, smtos: Sequence[str], rates: str) -> list[dict[str, Any]]:
    """A row per method: smto; mean, low and high of the difference, and each seed's, None where there is none; cells,
    the texts below `HEADS`."""
    values = comparisons.by_seed(selected, metric).reindex(columns=smtos)
    measured = selected.assign(delta_m=selected[metric])
    paired, each = comparisons.paired(measured), comparisons.differences(measured)
    placed = values if rates == OWN else values.dropna(axis="columns")
    places = rankings.places(placed)
    rate = (
        selected.groupby("smto").config.first().map(lambda config: frames.setting(config, "lr"))
        if rates == OWN
        else selected.groupby("smto").rate.first()
    )
    rows = []
    for smto in smtos:
        known = smto in paired.index and paired.n[smto] > 0
        seeds = paired.n[smto] if known else values[smto].notna().sum() if smto == UNIFORM else 0
        mean, low, high = (float(paired.loc[smto, bound]) if known else math.nan for bound in ("mean", "low", "high"))
        of_place = captions.place(places.loc[smto]) if smto in places.index else {"places": "–", "ties": ""}
        cells = [
            of_place["places"],
            look.label(smto),
            of_place["ties"],
            number(mean, 2, sign=True) if known else "–",
            captions.interval(low, high),
            str(int(seeds)),
            f"{rate[smto]:g}" if smto in rate and np.isfinite(rate[smto]) else "no runs",
            number(values[smto].mean(), 2) if rates == OWN else "",
        ]
        rows.append(
            {
                "smto": smto,
                "place": int(places.place[smto]) if smto in places.index else None,
                "mean": 0.0 if smto == UNIFORM else _plain(mean),
                "low": _plain(low),
                "high": _plain(high),
                "each": [_plain(value) for value in each[smto].dropna()] if known else [],
                "cells": cells,
            }
        )
    return sorted(rows, key=lambda row: (row["place"] or len(rows), math.inf if row["mean"] is None else -row["mean"]))


def _plain(value: float) -> float | None:
    return round(float(value), DIGITS) if math.isfinite(value) else None


def _marker(marker: str) -> str:
    """A marker of matplotlib as the path of an SVG."""
    style = MarkerStyle(marker)
    (outline,) = style.get_path().transformed(style.get_transform()).to_polygons()
    return "M" + "L".join(f"{x:.3g},{-y:.3g}" for x, y in np.asarray(outline)) + "Z"
