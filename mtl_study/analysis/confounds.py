"""What runs under several optimizers, and in several units, say: one yardstick for all, each at its best step size.

    table = under_optimizers(runs, tasks)       a row per run, with its optimizer, step size and units
    rates = best_rates(table)                   the best step size of each, and whether it is inside those tried
    best = at_best(table)                       the rows at it, single-task models joined
    gains(best)                                 what an optimizer gives to a method, and a method under an optimizer
    interaction(best)                           what Adam does for multi-task training beyond what it does anyway
    spread(best_in_units)                       how far Δm moves with the unit of one loss

Δm is in percent, higher is better, against the best single-task models under Adam, whatever trained the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from mtl_core.tasks import Task
from mtl_study.analysis import delta
from mtl_study.analysis.frames import setting
from mtl_study.experiments.runs import Run

ALONE = "single_task"  # the name of the single-task models, joined, among the methods
COLUMNS = ["problem", "tasks", "smto", "optimizer", "lr", "factor", "seed", "delta_m", "val_delta_m", "seconds"]
Way = tuple[str, str, str]  # problem, method, optimizer


def under_optimizers(runs: Sequence[Run], tasks: Sequence[Task]) -> pd.DataFrame:
    """One row per run, of methods and of single-task models, whose Δm is the gain in their own task. A run that is
    given twice counts once.

    Returns:
        problem, tasks (how many), smto, optimizer, lr, factor (of the last task's loss), seed, delta_m, val_delta_m,
        seconds. Empty where a task has no single-task model under Adam.
    """
    names = [task.name for task in tasks]
    by_tasks: dict[tuple[str, ...], list[Run]] = {}
    for run in {run.key: run for run in runs}.values():
        by_tasks.setdefault(run.config.definition.task_names, []).append(run)
    alone = [run for name in names for run in by_tasks.get((name,), []) if run.config.optimizer == "adam"]
    if {run.config.definition.task_names[0] for run in alone} != set(names):
        return pd.DataFrame(columns=COLUMNS)
    baselines = delta.single_task_baselines(alone, tasks)
    tables = []
    for of_tasks, found in by_tasks.items():
        theirs = baselines[baselines.index.get_level_values("task").isin(of_tasks)]
        table = delta.selected(found, theirs, [task for task in tasks if task.name in of_tasks])
        table["tasks"] = len(of_tasks)
        table["optimizer"] = [setting(config, "optimizer") for config in table.config]
        table["lr"] = [setting(config, "lr") for config in table.config]
        table["factor"] = [(setting(config, "units") or [1.0])[-1] for config in table.config]
        tables.append(table[COLUMNS])
    return pd.concat(tables, ignore_index=True)


def best_rates(table: pd.DataFrame) -> dict[Way, tuple[float, bool]]:
    """The best step size of each way to train, and whether a smaller and a larger one were tried: the largest mean
    validation Δm, with the losses as they are, over the seeds that all its step sizes have. Of equal ones it is the
    first that has a smaller and a larger one. One that diverged at such a seed is not chosen; where all did, the way is
    left out."""
    found = {}
    for way, rows in table[table.factor == 1].groupby(["problem", "smto", "optimizer"], sort=False):
        common = set.intersection(*(set(of_rate.seed) for _, of_rate in rows.groupby("lr")))
        scores = rows[rows.seed.isin(common)].groupby("lr").val_delta_m.apply(lambda values: values.mean(skipna=False))
        if scores.notna().any():
            equal = [float(lr) for lr in scores.index[scores == scores.max()]]
            inside = [lr for lr in equal if scores.index.min() < lr < scores.index.max()]
            found[way] = next(iter([*inside, *equal])), bool(inside)
    return found


def at_best(table: pd.DataFrame) -> pd.DataFrame:
    """The rows at the best step size (`best_rates`), and the single-task models of a seed as if they were one run:
    their mean gain, under the name ALONE.

    Returns:
        And a column inside: whether the step sizes tried have a smaller and a larger one.
    """
    rates = best_rates(table)
    ways = list(zip(table.problem, table.smto, table.optimizer, strict=True))
    chosen = [way in rates and rates[way][0] == lr for way, lr in zip(ways, table.lr, strict=True)]
    inside = [rates.get(way, (0.0, False))[1] for way in ways]
    rows = table.assign(inside=inside)[np.array(chosen, dtype=bool)]
    several, single = rows[rows.tasks > 1], rows[rows.tasks == 1]
    counts = single.groupby(["optimizer", "seed"]).problem.transform("nunique")
    joined = (
        single[counts == single.problem.nunique()]
        .groupby(["optimizer", "seed"], sort=False, as_index=False)
        .agg({"delta_m": "mean", "val_delta_m": "mean", "seconds": "sum", "inside": "all"})
        .assign(problem="".join(several.problem[:1]), smto=ALONE, factor=1.0)
    )
    return pd.concat([several, joined.reindex(columns=rows.columns)], ignore_index=True)


def interaction(best: pd.DataFrame, other: str = "sgd") -> pd.DataFrame:
    """What Adam gives over another optimizer, to methods and to single-task models, seed by seed. A method counts where
    all four best step sizes are inside their grids: one at an edge says only how far the grid reached.

    Returns:
        problem, smto, seed, seconds; gain (points of Δm, Adam minus the other), gain_alone, and interaction, the first
        minus the second: above 0, Adam helps multi-task training more than it helps training.
    """
    best = best[best.factor == 1]
    problem = best.problem.iloc[0] if len(best) else ""
    columns = ["problem", "smto", "seed", "seconds", "gain", "gain_alone", "interaction"]
    inside = best.groupby(["smto", "optimizer"]).inside.all()
    value = best.set_index(["smto", "optimizer", "seed"]).sort_index()
    rows = []
    for smto in dict.fromkeys(best.smto):
        four = [(name, optimizer) for name in (smto, ALONE) for optimizer in ("adam", other)]
        if smto == ALONE or not all(inside.get(pair, False) for pair in four):
            continue
        numbers = pd.DataFrame({pair: value.delta_m.loc[pair] for pair in four}).dropna()
        seconds = pd.DataFrame({pair: value.seconds.loc[pair] for pair in four}).sum(axis=1)
        for seed, (a, b, c, d) in zip(numbers.index, numbers.to_numpy(), strict=True):
            rows.append((problem, smto, seed, seconds[seed], a - b, c - d, (a - b) - (c - d)))
    return pd.DataFrame(rows, columns=columns)


def gains(best: pd.DataFrame, other: str = "sgd") -> dict[str, float]:
    """What Adam gives to the uniform loss over another optimizer, and what the best method gives over the uniform loss
    under each: mean Δm over the seeds, in points. Empty where a best step size is at the edge, or there is no other
    method.

    Returns:
        "optimizer", and a number by optimizer.
    """
    of_methods = best[(best.factor == 1) & (best.smto != ALONE) & best.optimizer.isin(["adam", other])]
    mean = of_methods.groupby(["optimizer", "smto"]).delta_m.mean().unstack("smto")
    if mean.shape[0] < 2 or "unit_scal" not in mean or mean.shape[1] < 2 or not of_methods.inside.all():
        return {}
    over = mean.drop(columns="unit_scal").max(axis=1) - mean.unit_scal
    return {"optimizer": float(mean.unit_scal["adam"] - mean.unit_scal[other]), **over.to_dict()}


def at_the_edge(best: pd.DataFrame) -> list[tuple[str, str]]:
    """The (method, optimizer) pairs whose best step size is the smallest or the largest that was tried."""
    found = best.groupby(["smto", "optimizer"], sort=False).inside.all()
    return [pair for pair, inside in found.items() if not inside]


def spread(table: pd.DataFrame, arms: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """How far Δm moves with the unit of one loss: its standard deviation over the factors, seed by seed.

    Args:
        table: of `at_best`, one row per method, optimizer, factor and seed.
        arms: the (method, optimizer) pairs that are asked about.

    Returns:
        problem, smto ("unit_scal", for the rules), seed, seconds and for each pair "spread method optimizer" and
        "delta_m method optimizer", the latter in the unit as it is; NaN where a seed lacks a factor, or the best
        step size is the smallest or the largest that was tried.
    """
    factors = sorted({1.0, *table.factor})
    found = pd.DataFrame(index=pd.Index(sorted(set(table.seed)), name="seed"))
    for smto, optimizer in arms:
        rows = table[(table.smto == smto) & (table.optimizer == optimizer) & table.inside.astype(bool)]
        over = rows.pivot(index="seed", columns="factor", values="delta_m").reindex(found.index, columns=factors)
        found[f"spread {smto} {optimizer}"] = over.astype(float).std(axis=1, ddof=0, skipna=False)
        found[f"delta_m {smto} {optimizer}"] = over[1.0]
    problem = table.problem.iloc[0] if len(table) else ""
    seconds = table.groupby("seed").seconds.sum()
    return found.assign(problem=problem, smto="unit_scal", seconds=seconds).reset_index()
