"""What runs under several optimizers, and in several units, say: one yardstick for all, each at its best step size.

    table = under_optimizers(runs, alone, tasks)    a row per run, with its optimizer, step size and units
    best = at_best(table)                           those at the best step size, and whether that lies inside the grid
    interaction(best)                               what Adam does for multi-task training beyond what it does anyway
    spread(best_in_units)                           how far Δm moves with the unit of one loss

Δm is in percent, higher is better, against the best single-task models under Adam, whatever trained the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mtl_core.tasks import Task
from mtl_study.analysis import delta
from mtl_study.analysis.frames import setting
from mtl_study.experiments.runs import Run

ALONE = "single_task"  # stands for the single-task models among the methods
OF_RUN = ["smto", "optimizer", "factor"]


def yardstick(alone: Sequence[Run], tasks: Sequence[Task]) -> pd.DataFrame:
    """What everything is measured against: the best single-task models under Adam."""
    return delta.single_task_baselines([run for run in alone if run.config.optimizer == "adam"], tasks)


def under_optimizers(runs: Sequence[Run], alone: Sequence[Run], tasks: Sequence[Task]) -> pd.DataFrame:
    """One row per multi-task run and, as method "single_task", one per set of single-task models with the same seed,
    optimizer and step size.

    Returns:
        problem, smto, optimizer, lr, factor (of the last task's loss), seed, delta_m, val_delta_m, seconds. Empty where
        there are no single-task models.
    """
    columns = ["problem", "smto", "optimizer", "lr", "factor", "seed", "delta_m", "val_delta_m", "seconds"]
    if not alone:
        return pd.DataFrame(columns=columns)
    baselines = yardstick(alone, tasks)
    table = delta.selected(runs, baselines, tasks)
    table["optimizer"] = [setting(config, "optimizer") for config in table.config]
    table["lr"] = [setting(config, "lr") for config in table.config]
    table["factor"] = [(setting(config, "units") or [1.0])[-1] for config in table.config]
    together = _together(alone, tasks, baselines).assign(problem=table.problem.iloc[0] if len(table) else "")
    return pd.concat([table[columns], together.reindex(columns=columns)], ignore_index=True)


def _together(alone: Sequence[Run], tasks: Sequence[Task], baselines: pd.DataFrame) -> pd.DataFrame:
    """The single-task models of one optimizer, step size and seed as if they were one run: mean gain over tasks."""
    by_setting: dict[tuple[str, float, int], dict[str, Run]] = {}
    for run in alone:
        key = (run.config.optimizer, run.config.lr, run.config.seed)
        by_setting.setdefault(key, {})[run.config.definition.task_names[0]] = run
    rows: list[dict[str, Any]] = []
    for (optimizer, lr, seed), of_task in by_setting.items():
        read = [delta.selected([of_task[t.name]], _of(baselines, t), [t]).iloc[0] for t in tasks if t.name in of_task]
        row = {"smto": ALONE, "optimizer": optimizer, "lr": lr, "factor": 1.0, "seed": seed}
        if len(read) == len(tasks):
            sums = {name: float(np.sum([one[name] for one in read])) for name in ("delta_m", "val_delta_m", "seconds")}
            rows.append(
                row | {"seconds": sums["seconds"]} | {n: sums[n] / len(tasks) for n in ("delta_m", "val_delta_m")}
            )
    return pd.DataFrame(rows)


def _of(baselines: pd.DataFrame, task: Task) -> pd.DataFrame:
    return baselines[baselines.index.get_level_values("task") == task.name]


def at_best(table: pd.DataFrame, factor: float | None = None) -> pd.DataFrame:
    """The rows of each (method, optimizer) at its best step size, the largest mean validation Δm over seeds.

    Args:
        factor: the unit in which the step size is chosen; None: in each unit its own.

    Returns:
        And a column inside: whether the step sizes tried have a smaller and a larger one.
    """
    kept = []
    for _, rows in table.groupby(OF_RUN[:2] if factor is not None else OF_RUN, sort=False):
        looked_at = rows if factor is None else rows[rows.factor == factor]
        scores = looked_at.groupby("lr").val_delta_m.apply(lambda values: values.mean(skipna=False))
        if scores.isna().all():
            continue
        best = scores.idxmax()
        kept.append(rows[rows.lr == best].assign(inside=scores.index.min() < best < scores.index.max()))
    return pd.concat(kept, ignore_index=True) if kept else table.assign(inside=False)[:0]


def interaction(best: pd.DataFrame, other: str = "sgd") -> pd.DataFrame:
    """What Adam gives over another optimizer, to methods and to single-task models, seed by seed. A method counts where
    all four best step sizes lie inside their grids: one at an edge says only how far the grid reached.

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


def at_the_edge(best: pd.DataFrame) -> list[tuple[str, str]]:
    """The (method, optimizer) pairs whose best step size is the smallest or the largest that was tried."""
    found = best.groupby(["smto", "optimizer"], sort=False).inside.all()
    return [pair for pair, inside in found.items() if not inside]


def spread(table: pd.DataFrame, arms: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """How far Δm moves with the unit of one loss: its standard deviation over the factors, seed by seed.

    Args:
        table: one row per method, optimizer, factor and seed. arms: the (method, optimizer) pairs that are asked about.

    Returns:
        problem, smto ("unit_scal", for the rules), seed, seconds and for each pair "spread method optimizer" and
        "delta_m method optimizer", the latter in the unit as it is; NaN where a seed lacks a factor.
    """
    factors = sorted({1.0, *table.factor})
    found = pd.DataFrame(index=pd.Index(sorted(set(table.seed)), name="seed"))
    for smto, optimizer in arms:
        rows = table[(table.smto == smto) & (table.optimizer == optimizer)]
        over = rows.pivot(index="seed", columns="factor", values="delta_m").reindex(found.index, columns=factors)
        found[f"spread {smto} {optimizer}"] = over.astype(float).std(axis=1, ddof=0, skipna=False)
        found[f"delta_m {smto} {optimizer}"] = over[1.0]
    problem = table.problem.iloc[0] if len(table) else ""
    seconds = table.groupby("seed").seconds.sum()
    return found.assign(problem=problem, smto="unit_scal", seconds=seconds).reset_index()
