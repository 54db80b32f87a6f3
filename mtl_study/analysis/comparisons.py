"""Methods compared with the uniform loss, seed by seed.

A seed gives every method the same initial weights, batches and dropout masks, so differences are paired.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from mtl_study.analysis.delta import LEVEL
from mtl_study.analysis.frames import RUN, setting
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
        Index smto; mean, low, high of the 95 % interval, n, and p: below `inference.TOST`, they are equivalent:
        that interval is then within the margin.
    """
    table = differences(selected)
    return paired(selected).assign(p=[tost(table[smto], margin) for smto in table])


def yardstick(ours: pd.Series, theirs: pd.Series, higher_is_better: bool) -> pd.Series:
    """What lies between our single-task models and somebody else's, if the methods are equally good in both: by what
    their single-task metric has to be multiplied to give ours. One number per method; if it is the same for all, the
    single-task models alone explain the difference in level.

    Args:
        ours, theirs: gains over the single-task models in percent, higher is better; index smto.

    Returns:
        Index smto, of those that both have: (1 ± theirs / 100) / (1 ± ours / 100), + where a higher metric is better.
    """
    sign = 1 if higher_is_better else -1
    return ((1 + sign * theirs / 100) / (1 + sign * ours / 100)).dropna()


def at_one_rate(selected: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """`selected` for comparisons at one learning rate: no method's difference to the uniform loss is that of two rates.

    A method that has another rate than the uniform loss is compared with the uniform loss at the method's rate, which
    leaves the method its own settings; or, where there are no such runs or fewer, is itself taken at the rate of the
    uniform loss. In the first case its gains are moved by what the uniform loss gains between the two rates at the
    same seed, so that `differences`, `paired` and the rules of claims find the difference at one rate. They are levels
    of nothing. A method without any such runs has NaN.

    Args:
        selected: one configuration per method and problem. others: rows of the same kind of runs that differ from those
            in their learning rate only (`protocol.at_one_rate` finds them); may be empty.

    Returns:
        The same rows and columns, and rate: at which the method and the uniform loss are compared. NaN in both where
        they cannot be, at seeds that one of the two lacks, and in the columns for levels.
    """
    levels = [c for c in selected if c.startswith(LEVEL)]
    selected = selected.assign(**dict.fromkeys(levels, np.nan))
    gains = [c for c in selected.select_dtypes("number").columns if c not in (*RUN, *levels, "epoch", "seconds")]
    found = []
    for problem, table in selected.groupby("problem", sort=False):
        uniform = table[table.smto == "unit_scal"].set_index("seed")
        of_others = others[others.problem == problem] if len(others) else others
        of_others = of_others.assign(lr=[setting(config, "lr") for config in of_others.get("config", ())])
        for smto, runs in table.groupby("smto", sort=False):
            found.append(_at_one_rate(runs.set_index("seed"), uniform, of_others, gains, str(smto)).reset_index())
    return pd.concat(found, ignore_index=True)[[*selected.columns, "rate"]]


def _at_one_rate(
    runs: pd.DataFrame, uniform: pd.DataFrame, others: pd.DataFrame, gains: list[str], smto: str
) -> pd.DataFrame:
    """The rows of one method on one problem."""
    own, base = (setting(table.config.iloc[0], "lr") for table in (runs, uniform))
    if own == base:
        return runs.assign(rate=own)
    moved = others[(others.smto == "unit_scal") & (others.lr == own)].set_index("seed")[gains]
    slower = others[(others.smto == smto) & (others.lr == base)].set_index("seed")[gains]
    at_own = (runs[gains] - moved + uniform[gains]).reindex(runs.index)
    at_base = slower.reindex(runs.index)
    pairs_own, pairs_base = at_own.delta_m.notna().sum(), at_base.delta_m.notna().sum()
    if not (pairs_own or pairs_base):
        return runs.assign(**dict.fromkeys(gains, np.nan), rate=np.nan)
    values, rate = (at_own, own) if pairs_own >= pairs_base else (at_base, base)
    return runs.assign(**{column: values[column] for column in gains}, rate=rate)
