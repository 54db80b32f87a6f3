"""What a record says of the task gradients: their cosines and lengths during training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mtl_study.analysis.frames import RUN, as_float, run_key
from mtl_study.analysis.inference import spearman
from mtl_study.analysis.task_weights import distance_from_equal
from mtl_study.experiments.runs import Run


def cosine_floor(num_tasks: int) -> float:
    """C of unrelated gradients of equal length: 1/√K."""
    return 1 / math.sqrt(num_tasks)


def normalised_cosine(cosine: ArrayLike, num_tasks: int) -> np.ndarray:
    """C with the number of tasks taken out: (K C² − 1) / (K − 1).

    For gradients of equal length with one common pairwise cosine κ, C = √((1 + (K − 1) κ) / K), and this gives κ back.
    """
    return (num_tasks * np.asarray(cosine, dtype=float) ** 2 - 1) / (num_tasks - 1)


def gradient_statistics(runs: Iterable[Run]) -> pd.DataFrame:
    """What the records say of the task gradients: one row per run, epoch and space ("features", "parameters").

    Returns:
        problem, smto, config, seed, epoch, progress (percent of training), space, num_tasks, cosine_to_mean,
        normalised_cosine, pairwise_cosine, norm_ratio (longest over shortest).
    """
    rows = []
    for run in runs:
        epochs = len(run.history)
        for epoch, record in enumerate(run.history):
            for space, found in record.gradients.items():
                c, tasks = as_float(found.cosine_to_mean), len(found.norms)
                rows.append(
                    dict(zip(RUN, run_key(run), strict=True))
                    | {"epoch": epoch, "progress": 100 * epoch / max(epochs - 1, 1), "space": space, "num_tasks": tasks}
                    | {"cosine_to_mean": c, "normalised_cosine": float(normalised_cosine(c, tasks))}
                    | {"pairwise_cosine": as_float(found.pairwise_cosine), "norm_ratio": as_float(found.norm_ratio)}
                )
    statistics = ["cosine_to_mean", "normalised_cosine", "pairwise_cosine", "norm_ratio"]
    return pd.DataFrame(rows, columns=[*RUN, "epoch", "progress", "space", "num_tasks", *statistics])


def per_run(runs: Sequence[Run], space: str = "parameters") -> pd.DataFrame:
    """One row per run of what the claims on weights and gradients ask: means over the epochs of training.

    Returns:
        problem, smto, config, seed; weight_distance (mean |w₁ − 1/K|, NaN without weights); num_tasks, cosine_to_mean,
        pairwise_cosine and norm_ratio in the given space.
    """
    keys = pd.DataFrame([run_key(run) for run in runs], columns=RUN)
    distance = distance_from_equal(runs).groupby(RUN)["distance"].mean().rename("weight_distance").reset_index()
    gradients = gradient_statistics(runs)
    columns = ["num_tasks", "cosine_to_mean", "pairwise_cosine", "norm_ratio"]
    gradients = gradients[gradients.space == space].groupby(RUN)[columns].mean().reset_index()
    return keys.merge(distance, on=RUN, how="left").merge(gradients, on=RUN, how="left")


def ranking(selected: pd.DataFrame, cosines: pd.DataFrame, smtos: Sequence[str]) -> pd.DataFrame:
    """Do the problems with a low C have the large gaps? Seed by seed, over problems.

    Args:
        selected: rows of several problems, with the uniform loss and these methods on each. cosines: `per_run` of the
            uniform loss's runs on the same problems.

    Returns:
        seed; rho: Spearman's correlation over problems of C with the gap (mean over the methods of Δm minus that of the
        uniform loss); rho_of_floor: that of 1/√K with the gap (NaN where all problems have as many tasks); problems
        (how many the seed has whole).
    """
    gains = selected.pivot(index=["seed", "problem"], columns="smto", values="delta_m")
    gap = gains.reindex(columns=list(smtos)).sub(gains["unit_scal"], axis=0).mean(axis=1, skipna=False).rename("gap")
    table = cosines[cosines.smto == "unit_scal"].set_index(["seed", "problem"])[["cosine_to_mean", "num_tasks"]]
    table = table.join(gap).dropna()
    rows = [
        (
            seed,
            spearman(found["cosine_to_mean"], found["gap"]).rho,
            spearman([cosine_floor(int(k)) for k in found["num_tasks"]], found["gap"]).rho,
            len(found),
        )
        for seed, found in table.groupby("seed")
    ]
    return pd.DataFrame(rows, columns=["seed", "rho", "rho_of_floor", "problems"])
