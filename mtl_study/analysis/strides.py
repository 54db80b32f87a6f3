"""Do real steps do what methods ask for? From the steps of runs (experiments/strides.py).

    per_run(records)        one row per run: failures of directions and of steps, what is left of a direction in a step
    over_methods(table)     one row per seed: what goes with Δm over the methods

A direction d, or a step s, is a Pareto failure where it lowers some task's loss at the cost of another's, to first
order: g_k·d < 0 for some k.

Sources: Zhou et al. 2025, arXiv:2503.08006 (failures, progress); Zhou et al. 2026, arXiv:2604.08939 (how little of the
current gradient is in an advanced optimizer's step); Kurin et al. 2022, arXiv:2201.04122 (the length of the sum of the
gradients late in training).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mtl_study.analysis import inference
from mtl_study.cosines import pairwise_cosine
from mtl_study.experiments.strides import Stride, Strides

FAILS = -1e-5  # a cosine below it hurts the task; of what is only rounding there is less
LATE = 0.8  # of training: what comes after it is late
COLUMNS = ["problem", "smto", "seed", "seconds", "asked", "moved", "share", "cosine", "failures", "ratio", "sum", "gap"]
MEASURES = ("gap", "cosine", "share", "failures")  # that are held against Δm


def of_stride(stride: Stride) -> dict[str, float]:
    """One step.

    Returns:
        asked and moved: whether d and s hurt a task (1 or 0); share: the cosine of d and s; cosine: the mean over pairs
        of tasks; ratio: the longest gradient over the shortest; log_sum: the logarithm of |Σ_k g_k|.
    """
    G, along, D = (np.array(getattr(stride, name)) for name in ("gramian", "along", "directions"))
    norms, lengths = np.sqrt(G.diagonal()), np.sqrt(D.diagonal())
    with np.errstate(divide="ignore", invalid="ignore"):
        worst = (along / np.outer(lengths, norms)).min(axis=1)
        return {
            "asked": float(worst[0] < FAILS),
            "moved": float(worst[1] < FAILS),
            "share": float(D[0, 1] / lengths.prod()),
            "cosine": pairwise_cosine(G),
            "ratio": float(norms.max() / norms.min()),
            "log_sum": float(np.log(max(G.sum(), 0.0)) / 2),
        }


def per_run(records: Iterable[Strides]) -> pd.DataFrame:
    """One row per run. Runs that diverged are left out.

    Returns:
        problem, smto, seed, seconds; asked and moved, the shares of looks at which direction and step hurt a task;
        failures, the second minus the first; share, cosine, the means, and ratio, the median over looks; sum,
        |Σ_k g_k|, the geometric mean over the looks of the last fifth; gap, the largest minus the smallest progress
        L_k / L_k(0) of a task, mean over the last third of the epochs (0: all tasks have come as far).
    """
    rows: list[dict[str, Any]] = []
    for record in (one for one in records if one.finished):
        run, looks = record.config.base, pd.DataFrame([of_stride(one) for one in record.strides])
        steps = np.array(sorted(record.config.steps))  # the last one of the run is among them
        late = looks[steps >= LATE * (steps[-1] + 1)]
        losses = np.array([epoch.train_losses for epoch in record.history], dtype=float)
        progress = losses[-max(1, run.epochs // 3) :] / record.strides[0].losses
        rows.append(
            {"problem": run.problem, "smto": run.smto, "seed": run.seed, "seconds": record.seconds}
            | looks[["asked", "moved", "share", "cosine"]].mean().to_dict()
            | {"failures": float((looks.moved - looks.asked).mean()), "ratio": float(looks.ratio.median())}
            | {"sum": float(np.exp(late.log_sum.mean())), "gap": float(np.ptp(progress, axis=1).mean())}
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def over_methods(table: pd.DataFrame, without: Sequence[str] = ("mgda",)) -> pd.DataFrame:
    """What goes with Δm over the methods, seed by seed.

    Args:
        table: `per_run` with a column delta_m, of one problem. without: methods that a second look leaves out.

    Returns:
        problem, smto ("unit_scal", for the rules), seed, seconds, methods (how many); of each of MEASURES "rho NAME",
        its rank correlation with Δm, "rest NAME", the same without those methods, and "better NAME", the same within
        the better half of the methods by mean Δm.
    """
    rows = []
    means = table.groupby(["problem", "smto"]).delta_m.mean()
    good = means >= means.groupby("problem").transform("median")
    for (problem, seed), found in table.groupby(["problem", "seed"], sort=False):
        rest, better = found[~found.smto.isin(without)], found[found.smto.map(good[problem]).astype(bool)]
        row = {"problem": problem, "smto": "unit_scal", "seed": seed, "seconds": found.seconds.sum()}
        row |= {f"rho {name}": _rho(found, name) for name in MEASURES}
        row |= {f"rest {name}": _rho(rest, name) for name in MEASURES}
        row |= {f"better {name}": _rho(better, name) for name in MEASURES}
        rows.append({**row, "methods": len(found)})
    measured = [f"{of} {name}" for of in ("rho", "rest", "better") for name in MEASURES]
    return pd.DataFrame(rows, columns=["problem", "smto", "seed", "seconds", *measured, "methods"])


def _rho(table: pd.DataFrame, name: str) -> float:
    both = table[[name, "delta_m"]].dropna()
    return inference.spearman(both[name], both.delta_m).rho if len(both) > 2 else np.nan
