"""How a lead over the uniform loss changes with a setting that both share: the batch, the width, the number of tasks.

    leads(tables)      Δm of each method minus the uniform loss's, by value of the setting and seed
    slopes(leads)      per method and seed, points of lead per doubling of the setting

Every value has its own uniform loss, so what the setting does to both cancels. Small batches are said to hurt methods
that look at gradients (Cao et al. 2026, "Towards calibrated gradient-based multi-task learning", CVPR Findings).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from mtl_study.analysis import comparisons


def leads(tables: Mapping[float, pd.DataFrame]) -> pd.DataFrame:
    """Δm of each method minus that of the uniform loss at the same value of the setting and the same seed.

    Args:
        tables: `delta.selected` of one problem by the setting's value (> 0), each with the uniform loss.

    Returns:
        value, smto, seed, lead (points). Pairs of which one has no value are left out.
    """
    found = [
        comparisons.differences(table)
        .rename_axis(columns="smto")
        .stack()
        .rename("lead")
        .reset_index()
        .assign(value=float(value))
        for value, table in tables.items()
    ]
    columns = ["value", "smto", "seed", "lead"]
    return (
        pd.concat(found, ignore_index=True)[columns].dropna(ignore_index=True)
        if found
        else pd.DataFrame(columns=columns)
    )


def slopes(leads: pd.DataFrame, log: bool = True) -> pd.DataFrame:
    """The least-squares slope of a method's lead, seed by seed, over the values that the seed has.

    Args:
        log: per doubling of the value; False: per unit.

    Returns:
        smto, seed, slope (points; > 0: the lead grows with the setting), n (values). A seed that lacks one of the
        method's values is left out, since its slope would be over another range.
    """
    rows = []
    for smto, table in leads.groupby("smto", sort=False):
        wanted = table["value"].nunique()
        for seed, of_seed in table.groupby("seed"):
            if len(of_seed) < wanted or wanted < 2:
                continue
            x = np.log2(of_seed["value"]) if log else of_seed["value"]
            rows.append((smto, seed, float(np.polyfit(x, of_seed["lead"], 1)[0]), len(of_seed)))
    return pd.DataFrame(rows, columns=["smto", "seed", "slope", "n"])


def whole_epochs(epochs: int, batch: int, other: int, train_size: int) -> tuple[int, int]:
    """How many epochs of another batch size make about as many steps, and how many steps those are.

    Raises:
        ValueError: not even one epoch of the other batch is so short.
    """
    steps = epochs * math.ceil(train_size / batch)
    per_epoch = math.ceil(train_size / other)
    found = round(steps / per_epoch)
    if not found:
        raise ValueError(
            f"{epochs} epochs of batch {batch} are {steps} steps, less than half of one epoch of batch {other} "
            f"({per_epoch}); train longer or leave that batch out."
        )
    return found, found * per_epoch
