"""When an SMTO acts, and at which c: what comparisons at equal terms say. Δm is in percent, higher is better.

by_duty(selected, always)    one row per seed: Δm behind every gate, and without one
at_radii(selected)    one row per method and seed: Δm at equal c, and at the best c by validation
apart(selected)       one row per seed and c: IMGrad minus CAGrad
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from mtl_study.analysis.frames import all_options, setting
from mtl_study.experiments.runs import Run

WITH_RADIUS = ("cagrad", "imgrad")  # methods with the setting c
BEST = "best"  # among the values of c: each method at its best by validation


def by_duty(selected: pd.DataFrame, always: pd.DataFrame) -> pd.DataFrame:
    """Of gated runs, one row per seed.

    Args:
        always: runs of the same method without a gate, with seed and delta_m.

    Returns:
        problem, smto ("gated"), seed, seconds, and "MEASURE DUTY", Δm behind that gate: "ratio 0.3"; always, Δm of the
        method in every step (NaN where there is no such run).
    """
    options = [all_options("gated", setting(config, "options")) for config in selected.config]
    gate = [f"{one['by']} {one['duty']:g}" for one in options]
    table = selected.assign(gate=gate)
    wide = table.pivot(index=["problem", "seed"], columns="gate", values="delta_m")
    wide = wide.reindex(columns=list(dict.fromkeys(gate)))
    wide["always"] = wide.index.get_level_values("seed").map(always.set_index("seed").delta_m)
    seconds = table.groupby(["problem", "seed"]).seconds.sum()
    return wide.assign(smto="gated", seconds=seconds).reset_index().rename_axis(columns=None)


def duty(runs: Sequence[Run]) -> pd.DataFrame:
    """Of gated runs: by, duty, seed, and acted, the share of the steps so far in which the inner method has acted, mean
    over the steps of the last epoch."""
    rows = []
    for run in (one for one in runs if one.history):
        options = all_options("gated", run.config.options)
        acted = run.history[-1].diagnostics["share"]
        rows.append((options["by"], options["duty"], run.config.seed, acted))
    return pd.DataFrame(rows, columns=["by", "duty", "seed", "acted"])


def with_radius(selected: pd.DataFrame) -> pd.DataFrame:
    """Of runs of CAGrad and IMGrad: with a column c."""
    pairs = zip(selected.smto, selected.config, strict=True)
    return selected.assign(c=[all_options(smto, setting(config, "options"))["c"] for smto, config in pairs])


def at_radii(table: pd.DataFrame) -> pd.DataFrame:
    """One row per method and seed.

    Args:
        table: `with_radius`.

    Returns:
        problem, smto, seed, seconds; equal, Δm averaged over all values of c (NaN where one is missing); best, Δm at
        the method's best c, that with the largest mean validation Δm over all seeds; c, which that is.
    """
    found = []
    for (problem, smto), rows in table.groupby(["problem", "smto"], sort=False):
        by_c = rows.pivot(index="seed", columns="c", values="delta_m")
        best = rows.groupby("c").val_delta_m.apply(lambda values: values.mean(skipna=False))
        c = float(best.idxmax()) if best.notna().any() else float("nan")
        of = pd.DataFrame({"equal": by_c.mean(axis=1, skipna=False), "best": by_c[c] if c == c else float("nan")})
        of = of.assign(problem=problem, smto=smto, c=c, seconds=rows.groupby("seed").seconds.sum())
        found.append(of.reset_index())
    return pd.concat(found, ignore_index=True)


def apart(table: pd.DataFrame) -> pd.DataFrame:
    """IMGrad minus CAGrad in points of Δm, at every c, and each at its best.

    Returns:
        problem, c (a number, or BEST), seed, difference.
    """
    best = at_radii(table)
    best = best.assign(c=BEST, delta_m=best.best)
    both = pd.concat([table[["problem", "smto", "seed", "c", "delta_m"]], best])
    wide = both.pivot(index=["problem", "c", "seed"], columns="smto", values="delta_m")
    wide = wide.loc[list(dict.fromkeys(table.problem))]
    other, ours = WITH_RADIUS
    return (wide[ours] - wide[other]).rename("difference").reset_index()
