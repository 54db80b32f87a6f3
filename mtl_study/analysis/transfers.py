"""What survives on corrupted pictures, of multi-task and of single-task features (experiments/transfer.py).

    by_task(records, alone, tasks)   a row per run, task, corruption and severity
    per_run(table)                   a row per run: what the rules ask for

    δ = s · (M_multi / M_multi,clean − M_single / M_single,clean)       s = −1 where a higher metric is better, else 1
    difference = 100 · s · (M_multi − M_single) / M_single              percent of the single-task model's score

Both are below 0 where the multi-task features are ahead, as in the paper. δ divides each model by its own clean score,
so a model that is bad on clean pictures has less to lose.

Source: Elich et al. 2024, arXiv:2311.04698, appendix A6 (δ).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from mtl_core.tasks import Task
from mtl_study.experiments.transfer import Transfer

COLUMNS = ["problem", "smto", "seed", "task", "corruption", "severity", "delta", "difference", "seconds"]


def by_task(together: Sequence[Transfer], alone: Sequence[Transfer], tasks: Sequence[Task]) -> pd.DataFrame:
    """Multi-task runs compared with the single-task models of their seed, the mean over a task's metrics.

    Returns:
        problem, smto, seed, task, corruption, severity, delta, difference (both below 0: multi-task is ahead), seconds
        (of the multi-task run). Runs that diverged, or whose seed lacks a single-task model, are left out.
    """
    single = {(run.config.base.seed, task): run for run in alone if run.clean for task in run.clean}
    rows: list[dict[str, Any]] = []
    for run in (one for one in together if one.clean):
        of_run = {name: getattr(run.config.base, name) for name in ("problem", "smto", "seed")}
        for task in tasks:
            if (other := single.get((run.config.base.seed, task.name))) is None:
                continue
            for corruption, levels in run.corrupted.items():
                for severity, scores in enumerate(levels, 1):
                    theirs = other.corrupted[corruption][severity - 1]
                    found = [
                        _apart(-1 if metric.higher_is_better else 1, *values)
                        for name, metric in task.metrics.items()
                        for values in [[one[task.name][name] for one in (scores, run.clean, theirs, other.clean)]]
                    ]
                    means = [sum(pair[i] for pair in found) / len(found) for i in (0, 1)]
                    row = {"task": task.name, "corruption": corruption, "severity": severity}
                    rows.append({**of_run, **row, "delta": means[0], "difference": means[1], "seconds": run.seconds})
    return pd.DataFrame(rows, columns=COLUMNS)


def _apart(sign: int, ours: Any, ours_clean: Any, theirs: Any, theirs_clean: Any) -> tuple[float, float]:
    return sign * (ours / ours_clean - theirs / theirs_clean), 100 * sign * (ours - theirs) / theirs


def per_run(table: pd.DataFrame) -> pd.DataFrame:
    """One row per run.

    Returns:
        problem, smto, seed, seconds; delta and difference, means over tasks, corruptions and severities; favours, the
        share of (task, corruption, severity) with δ below 0; agree, the share of tasks in which the means of δ and of
        the difference have one sign; and of each task "delta TASK" and "difference TASK".
    """
    keys = ["problem", "smto", "seed"]
    of_task = table.groupby([*keys, "task"], sort=False)[["delta", "difference"]].mean()
    found = of_task.groupby(level=keys, sort=False).mean()
    found["favours"] = (table.delta < 0).groupby([table[key] for key in keys], sort=False).mean()
    found["agree"] = (of_task.delta * of_task.difference > 0).groupby(level=keys, sort=False).mean()
    found["seconds"] = table.groupby(keys, sort=False).seconds.first()
    for column in ("delta", "difference"):
        found = found.join(of_task[column].unstack("task").add_prefix(f"{column} "))
    return found.reset_index()
