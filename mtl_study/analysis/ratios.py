"""How unbalanced are the task gradients, and how much of that is the unit of a loss? From the looks at runs (probes).

    of_run(looks, factors)      one row per look: the ratio r of the longest gradient to the shortest, in several units
    per_run(records, factors)   one row per run: what the rules ask for

r has no unit, but it has those of the losses in it: a loss in a unit that is ten times smaller has a gradient that is
ten times as long. So each number has controls next to it: the last task's loss times constants, and each task's loss
times the one constant, for the whole run, that makes all mean log lengths equal. What is left then no unit explains.

Source of r: Zhou et al. 2025, arXiv:2503.08006.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mtl_study.experiments.probes import Look, Looks

LINES = (1.5, 2.0, 3.0, 4.0)  # thresholds of the paper


def of_run(looks: Sequence[Look], factors: Sequence[float]) -> pd.DataFrame:
    """One row per look.

    Returns:
        ratio; "times F" with the last task's loss times each factor; left, with one constant per task; conflict, 1
        where two of the gradients have a negative inner product. A look with a gradient that is zero is left out.
    """
    gramians = np.array([look.of_batch for look in looks])
    gramians = gramians[(np.einsum("lkk->lk", gramians) > 0).all(axis=1)]
    logs = np.log(np.einsum("lkk->lk", gramians)) / 2
    found = {"ratio": np.ptp(logs, axis=1)}
    last = np.zeros(logs.shape[1])
    for factor in factors:
        last[-1] = np.log(factor)
        found[f"times {factor:g}"] = np.ptp(logs + last, axis=1)
    found["left"] = np.ptp(logs - logs.mean(axis=0), axis=1)
    table = np.exp(pd.DataFrame(found))
    return table.assign(conflict=(gramians.min(axis=(1, 2)) < 0).astype(float))


def per_run(records: Iterable[Looks], factors: Sequence[float]) -> pd.DataFrame:
    """One row per run.

    Returns:
        problem, smto, seed, seconds; the medians over looks of ratio, "times F" and left; "above L", the share of looks
        with r above each of LINES; conflict, the share with a conflict.
    """
    rows: list[dict[str, Any]] = []
    for record in records:
        run, table = record.config.base, of_run(record.looks, factors)
        rows.append(
            {"problem": run.problem, "smto": run.smto, "seed": run.seed, "seconds": record.seconds}
            | table.drop(columns="conflict").median().to_dict()
            | {f"above {line:g}": float((table.ratio > line).mean()) for line in LINES}
            | {"conflict": float(table.conflict.mean())}
        )
    return pd.DataFrame(rows)
