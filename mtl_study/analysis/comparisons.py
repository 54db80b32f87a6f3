"""Methods beside the uniform loss, seed by seed.

A seed gives every method the same initial weights, batches and dropout masks, so differences are paired.
"""

from __future__ import annotations

import pandas as pd

from mtl_study.analysis.inference import Interval, t_interval, tost


def differences(selected: pd.DataFrame) -> pd.DataFrame:
    """Δm of each method minus that of the uniform loss, seed by seed, in points: index seed, one column per method; NaN
    where either has no value.

    Pairs share initial weights and batch order, so what the seed does to both cancels.

    Raises:
        ValueError: more than one problem, several configurations of one method, or no uniform loss.
    """
    values = by_seed(selected)
    if "unit_scal" not in values:
        raise ValueError(f"no run of 'unit_scal' among {', '.join(values)}: nothing to compare with.")
    return values.drop(columns="unit_scal").sub(values["unit_scal"], axis=0)


def by_seed(selected: pd.DataFrame, column: str = "delta_m") -> pd.DataFrame:
    """One column of `selected` as a table: index seed, one column per method in the order of appearance.

    Raises:
        ValueError: more than one problem, or several configurations of one method.
    """
    if selected.problem.nunique() > 1:
        raise ValueError(f"one problem at a time, not {', '.join(sorted(selected.problem.unique()))}.")
    if selected.duplicated(["smto", "seed"]).any():
        several = selected[selected.duplicated(["smto", "seed"])].smto.unique()
        raise ValueError(f"several runs of {', '.join(several)} have the same seed; keep one configuration per method.")
    return selected.pivot(index="seed", columns="smto", values=column)[selected.smto.unique()].rename_axis(columns=None)


def paired(selected: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Mean difference to the uniform loss in Δm over the seeds that both have, with its t interval.

    Assumes that the seeds are independent and their differences about normal. Intervals are one per method: of fifteen
    95 % intervals, one in a while misses.

    Returns:
        Index smto; mean, low, high (in points) and n, the number of pairs.
    """
    table = differences(selected)
    rows = {smto: t_interval(table[smto], level)._asdict() for smto in table}
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(Interval._fields)).rename_axis("smto")


def equivalence(selected: pd.DataFrame, margin: float) -> pd.DataFrame:
    """Is each method as good as the uniform loss, within ±margin points of Δm? Two one-sided tests on the paired
    differences.

    Returns:
        Index smto; mean, low, high of the 95 % interval, n, and p: below `inference.TOST`, which is where that interval
        lies within the margin, they are equivalent.
    """
    table = differences(selected)
    return paired(selected).assign(p=[tost(table[smto], margin) for smto in table])
