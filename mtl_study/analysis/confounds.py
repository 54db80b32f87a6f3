"""What runs under several optimizers, and in several units, say: one yardstick for all, each at its best step size.

    table = under_optimizers(runs, tasks)       a row per run, with its optimizer, step size and units
    rates = best_rates(table)                   the best step size of each, and whether it is inside those tried
    best = at_best(table)                       the rows at it, single-task models joined
    gains(best)                                 what an optimizer gives to a method, and a method under an optimizer
    interaction(best)                           what Adam does for multi-task training beyond what it does anyway
    preferences(runs, alone, tasks)             a row per run with weights on its losses, and the gain in every task
    ends(best)                                  how far apart opposite preferences lead, by optimizer
    front(best, tasks), orders(best)            which optimizer holds the Pareto front; whether methods keep their order
    spread(best_in_units)                       how far Δm moves with the unit of one loss

Δm is in percent, higher is better, against the best single-task models under Adam, whatever trained the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binom, kendalltau

from mtl_core.tasks import Task
from mtl_study.analysis import delta
from mtl_study.analysis.frames import setting
from mtl_study.analysis.fronts import nondominated
from mtl_study.experiments.runs import Run

ALONE = "single_task"  # the name of the single-task models, joined, among the methods
COLUMNS = [
    "problem",
    "tasks",
    "smto",
    "optimizer",
    "lr",
    "factor",
    "seed",
    "delta_m",
    "val_delta_m",
    "seconds",
    "at_end",
]
Way = tuple[str, str, str]  # problem, method, optimizer


def under_optimizers(runs: Sequence[Run], tasks: Sequence[Task]) -> pd.DataFrame:
    """One row per run, of methods and of single-task models, whose Δm is the gain in their own task. A run that is
    given twice counts once.

    Returns:
        problem, tasks (how many), smto, optimizer, lr, factor (of the last task's loss), seed, delta_m, val_delta_m,
        seconds, at_end (whether its best epoch by validation is the last one), and the gain in every task that it has,
        in percent. Empty where a task has no single-task model under
        Adam.
    """
    names = [task.name for task in tasks]
    by_tasks: dict[tuple[str, ...], list[Run]] = {}
    for run in {run.key: run for run in runs}.values():
        by_tasks.setdefault(run.config.definition.task_names, []).append(run)
    alone = [run for name in names for run in by_tasks.get((name,), []) if run.config.optimizer == "adam"]
    if {run.config.definition.task_names[0] for run in alone} != set(names):
        return pd.DataFrame(columns=[*COLUMNS, *names])
    baselines = delta.single_task_baselines(alone, tasks)
    tables = []
    for of_tasks, found in by_tasks.items():
        theirs = baselines[baselines.index.get_level_values("task").isin(of_tasks)]
        table = delta.selected(found, theirs, [task for task in tasks if task.name in of_tasks])
        table["tasks"] = len(of_tasks)
        table["at_end"] = _at_end(table)
        table["optimizer"] = [setting(config, "optimizer") for config in table.config]
        table["lr"] = [setting(config, "lr") for config in table.config]
        table["factor"] = [(setting(config, "units") or [1.0])[-1] for config in table.config]
        tables.append(table.reindex(columns=[*COLUMNS, *names]))
    return pd.concat(tables, ignore_index=True)


def _at_end(found: pd.DataFrame) -> list[bool]:
    """Whether the epoch that validation chose is the last one, row by row."""
    chosen = zip(found.epoch.fillna(-1), found.config, strict=True)
    return [bool(epoch == setting(config, "epochs") - 1) for epoch, config in chosen]


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
    their mean gain and that in each task, under the name ALONE.

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
    how: dict[str, Any] = {"seconds": "sum", "inside": "all"}
    how |= dict.fromkeys(task_names(rows), "mean") | dict.fromkeys(["delta_m", "val_delta_m"], _mean_of_all)
    joined = (
        single[counts == single.problem.nunique()]
        .groupby(["optimizer", "seed"], sort=False, as_index=False)
        .agg(how)
        .assign(problem="".join(several.problem[:1]), smto=ALONE, factor=1.0)
    )
    return pd.concat([several, joined.reindex(columns=rows.columns)], ignore_index=True)


def _mean_of_all(gains: pd.Series) -> float:
    """NaN where one is: a task that diverged is not left out of a mean over tasks."""
    return float(gains.mean(skipna=False))


def task_names(table: pd.DataFrame) -> list[str]:
    """The tasks that a table has gains in."""
    return [name for name in table if name not in (*COLUMNS, "inside", "preferred")]


def interaction(best: pd.DataFrame, other: str = "sgd", of: str = "adam", value: str = "delta_m") -> pd.DataFrame:
    """What one optimizer gives over another, to methods and to single-task models, seed by seed. A method counts where
    all four best step sizes are inside their grids: one at an edge says only how far the grid reached.

    Args:
        best: `at_best`. value: which of its columns, Δm or the gain in a task.

    Returns:
        problem, smto, seed, seconds; gain (points of Δm, `of` minus the other), gain_alone, and interaction, the first
        minus the second: above 0, it helps multi-task training more than it helps training.
    """
    best = best[best.factor == 1]
    problem = best.problem.iloc[0] if len(best) else ""
    columns = ["problem", "smto", "seed", "seconds", "gain", "gain_alone", "interaction"]
    inside = best.groupby(["smto", "optimizer"]).inside.all()
    at = best.set_index(["smto", "optimizer", "seed"]).sort_index()
    rows = []
    for smto in dict.fromkeys(best.smto):
        four = [(name, optimizer) for name in (smto, ALONE) for optimizer in (of, other)]
        if smto == ALONE or not all(inside.get(pair, False) for pair in four):
            continue
        numbers = pd.DataFrame({pair: at[value].loc[pair] for pair in four}).dropna()
        seconds = pd.DataFrame({pair: at.seconds.loc[pair] for pair in four}).sum(axis=1)
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


def preferences(runs: Sequence[Run], alone: Sequence[Run], tasks: Sequence[Task]) -> pd.DataFrame:
    """One row per run of the uniform loss with weights on its losses, for `best_rates` and `at_best`.

    Args:
        alone: single-task models; those under Adam are the yardstick, as everywhere here.

    Returns:
        COLUMNS, where smto names the weights ("0.9 : 0.1") and val_delta_m weighs the tasks' gains on validation by
        them; preferred, the task with the largest weight; and the gain on test in every task, in percent.
    """
    names = [task.name for task in tasks]
    single = [run for run in alone if run.config.optimizer == "adam" and len(run.config.definition.task_names) == 1]
    if {run.config.definition.task_names[0] for run in single} != set(names):
        return pd.DataFrame(columns=[*COLUMNS, "preferred", *names])
    baselines = delta.single_task_baselines(single, tasks)
    found, validated = (delta.selected(runs, baselines, tasks, split) for split in ("test", "val"))
    units = [setting(config, "units") or [1.0] * len(tasks) for config in found.config]
    weights = np.array(units, dtype=float).reshape(-1, len(tasks)) / len(tasks)
    found["val_delta_m"] = (validated[names].to_numpy(dtype=float) * weights).sum(axis=1)
    found["smto"] = [named(row) for row in weights]
    found["preferred"] = [names[i] for i in weights.argmax(axis=1)]
    found["at_end"] = _at_end(found)
    for name in ("optimizer", "lr"):
        found[name] = [setting(config, name) for config in found.config]
    return found.assign(tasks=len(tasks), factor=1.0)[[*COLUMNS, "preferred", *names]]


def named(weights: Iterable[float]) -> str:
    """ "0.9 : 0.1", of the weights on the losses."""
    return " : ".join(f"{weight:g}" for weight in weights)


def ends(best: pd.DataFrame) -> pd.DataFrame:
    """How far apart preferences lead, seed by seed: by how many points a task gains more where it is the preferred one
    than where another is, mean over the tasks. 0: preferences make no difference.

    Args:
        best: `at_best` of `preferences`.

    Returns:
        problem, smto ("unit_scal", for the rules), seed, seconds, "apart OPTIMIZER", and "apart OPTIMIZER TASK" for
        each task; NaN where a seed lacks a preference, or a best step size is the smallest or the largest tried.
    """
    tasks = list(dict.fromkeys(best.preferred)) if len(best) else []
    found = pd.DataFrame(index=pd.Index(sorted(set(best.seed)), name="seed"))
    for optimizer, rows in best.groupby("optimizer", sort=False):
        of = {name: rows[rows.preferred == name].set_index("seed")[tasks] for name in tasks}
        apart = {
            name: pd.concat([of[name][name] - of[other][name] for other in tasks if other != name], axis=1).mean(
                axis=1, skipna=False
            )
            for name in tasks
            if len(tasks) > 1 and rows.inside.all()
        }
        found[f"apart {optimizer}"] = sum(apart.values()) / len(apart) if apart else np.nan
        for name in tasks:
            found[f"apart {optimizer} {name}"] = apart.get(name, np.nan)
    problem = best.problem.iloc[0] if len(best) else ""
    return found.assign(problem=problem, smto="unit_scal", seconds=best.groupby("seed").seconds.sum()).reset_index()


class Held(NamedTuple):
    """Runs on a joint front: how many, how many of the first optimizer, and how often as many or more would be if in
    every pair of runs (one method, one seed) a coin said which is whose."""

    size: int
    first: int
    p: float


def front(best: pd.DataFrame, tasks: Sequence[str], other: str = "sgd") -> Held:
    """Who holds the Pareto front of the runs of all methods and seeds under Adam and another optimizer, each at its
    best step size. The chance is exact: where one run of a pair is on the front, a coin decides; both count anyway.

    Args:
        best: `at_best`, with the gain in every task.
    """
    rows = best[(best.factor == 1) & (best.smto != ALONE) & best.optimizer.isin(["adam", other])]
    rows = rows.dropna(subset=list(tasks))
    rows = rows[rows.groupby(["smto", "seed"]).optimizer.transform("nunique") == 2]
    if rows.empty:
        return Held(0, 0, float("nan"))
    on = rows[nondominated(rows[list(tasks)])]
    first, both = int((on.optimizer == "adam").sum()), int(on.duplicated(["smto", "seed"]).sum())
    return Held(len(on), first, float(binom.sf(first - both - 1, len(on) - 2 * both, 0.5)))


def orders(best: pd.DataFrame, other: str = "sgd") -> float:
    """Kendall's τ between the methods' orders by Δm under Adam and under another optimizer, mean over the seeds that
    have all of them: 1, the same order; −1, the reverse. NaN for fewer than two methods."""
    rows = best[(best.factor == 1) & (best.smto != ALONE)]
    wide = rows.pivot(index="seed", columns=["optimizer", "smto"], values="delta_m").astype(float).dropna()
    if not {"adam", other} <= set(rows.optimizer) or len(set(rows.smto)) < 2 or wide.empty:
        return float("nan")
    return float(
        np.mean([kendalltau(row["adam"], row[other][row["adam"].index]).statistic for _, row in wide.iterrows()])
    )


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
