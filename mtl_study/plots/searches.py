"""Other ways to find weights, as tables: what each finds, and what it costs; and an SMTO compared with the sweep at
several learning rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mtl_study.analysis import frames, fronts, inference
from mtl_study.analysis.fronts import FRONT
from mtl_study.look import label
from mtl_study.plots import canvas, captions
from mtl_study.words import counted, number


def found(
    gains: Mapping[str, pd.Series],
    weights: Mapping[str, Sequence[float]],
    epochs: Mapping[str, int],
    random: str,
    drawn: tuple[int, int],
    tasks: Sequence[str],
) -> pd.DataFrame:
    """Ways to find weights, and what they cost.

    Args:
        gains: test Δm by seed of networks that were trained with the weights found, by the way to find them. weights:
            those that were found; where there are several, the first. epochs: of training that the search took; 0 where
            it is not named. random: the name of random points of the sweep, of which drawn says how many of how many.
            tasks: of the problem.

    Returns:
        A row per way; the caption in `.attrs["caption"]`.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, values in gains.items():
        ahead = inference.t_interval(values - gains[random])
        rows[name] = {
            f"of {', '.join(tasks)}": ", ".join(number(w, 3) for w in weights[name]) if name in weights else "–",
            "epochs of search": epochs.get(name, 0),
            "Δm": values.mean(),
            "± Δm": values.std(ddof=1),
            "n": int(values.notna().sum()),
            "minus random points": ahead.mean if name != random else np.nan,
            "95 % interval": captions.interval(ahead.low, ahead.high) if name != random else "–",
        }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("weights")
    table.attrs["decimals"] = {"Δm": 2, "± Δm": 2, "minus random points": 2}
    n, every = drawn
    canvas.caption(
        table,
        "Test Δm on CL_RR in percent, higher is better, trained from the start with the weights found. A population "
        f"for each of {counted(len(gains.get('population', ())), 'seed')}; shown are the first one's weights. "
        f"Random points: of {n} of the sweep's {every} at this learning rate the best "
        "on validation, the mean over all ways to draw.",
    )
    return table


def random_points(swept: pd.DataFrame, n: int) -> pd.Series:
    """By seed the test Δm of the best of n random points of a sweep on validation: the mean over all ways to draw them.

    Args:
        swept: `delta.selected` of a sweep at one learning rate; with fewer points than n all of them are drawn.
    """
    known = swept.dropna(subset="delta_m").groupby("seed")
    best = {s: fronts.expected_best(of.val_delta_m, of.delta_m, min(n, len(of))) for s, of in known}
    return pd.Series(best, dtype=float)


def placed_by_rate(swept: pd.DataFrame, others: pd.DataFrame, tasks: Sequence[str]) -> pd.DataFrame:
    """The same SMTO and the front of the sweep, at each of its learning rates that the sweep has.

    Args:
        swept: `delta.selected` of the whole sweep. others: the same of methods at several rates. tasks: two columns.

    Returns:
        A row per method and rate; the caption in `.attrs["caption"]`.
    """
    known = {frames.setting(config, "lr") for config in swept.config}
    of_rate = others.assign(lr=[frames.setting(config, "lr") for config in others.config])
    rows = []
    for (smto, lr), runs in of_rate[~of_rate.smto.isin(FRONT)].groupby(["smto", "lr"], sort=False):
        if lr not in known:
            continue
        spot = fronts.placed(pd.concat([swept, runs], ignore_index=True), tasks).loc[smto]
        rows.append(
            {
                "method": label(str(smto)),
                "learning rate": f"{lr:g}",
                "Δm": runs.delta_m.mean(),
                "± Δm": runs.delta_m.std(ddof=1),
                "ε+": spot.epsilon,
                "95 % interval": captions.interval(spot.low, spot.high, 1),
                "ε+ of a sweep point": spot.yardstick,
                "reading": spot.word,
            }
        )
    table = pd.DataFrame(rows, columns=None if rows else ["method"]).set_index("method")
    table.attrs["decimals"] = {"Δm": 2, "± Δm": 2, "ε+": 1, "ε+ of a sweep point": 1}
    canvas.caption(
        table,
        f"Test Δm on CL_RR, mean and standard deviation over {captions.seeds(others)}, and the additive ε (ε+) "
        "against the front of the whole sweep, as in the table of all methods in notebook 05b.",
    )
    return table
