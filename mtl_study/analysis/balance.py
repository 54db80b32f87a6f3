"""Do good fixed weights make the gradients equally long? And can one run of the uniform loss tell which those are?

    magnitude_similarity(lengths)      1 where gradients are equally long
    of_runs(runs)                      the same per run, of the gradients times their weights
    agreement(selected, similarity)    per seed, the rank correlation with Δm over a sweep of fixed weights
    inverse_norms(runs)                weights that would have made a run's gradients equally long

Sources: the gradient magnitude similarity is Yu et al.'s (2020, arXiv:2001.06782). That weights that do well have a
high one is a finding of Yang et al. (2025, arXiv:2508.13979, AutoScale), who choose weights by such measures during a
first phase of training. Ours is plainer: train the uniform loss once, then weight by inverse gradient lengths.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mtl_study.analysis import inference
from mtl_study.analysis.frames import RUN, run_key
from mtl_study.experiments.runs import Run


def magnitude_similarity(lengths: ArrayLike) -> float:
    """Mean over pairs of 2 |g_i| |g_j| / (|g_i|² + |g_j|²): from 0 to 1, which is where all are equally long.

    Args:
        lengths: of the gradients [K], ≥ 0. NaN where one of them is not finite, or a pair has no length at all.
    """
    found = np.asarray(lengths, dtype=float)
    i, j = np.triu_indices(len(found), k=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        similarity = 2 * found[i] * found[j] / (found[i] ** 2 + found[j] ** 2)
    return float(similarity.mean())


def of_runs(runs: Iterable[Run], space: str = "parameters") -> pd.DataFrame:
    """One row per run: problem, smto, config, seed, similarity: the mean over epochs of the gradient magnitude
    similarity of w_k g_k, with the epoch's mean weights. Epochs without weights or gradients are left out."""
    rows = []
    for run in runs:
        found = [
            magnitude_similarity(np.array(epoch.weights, dtype=float) * epoch.gradients[space].norms)
            for epoch in run.history
            if space in epoch.gradients
        ]
        finite = inference.finite(found)
        rows.append((*run_key(run), float(finite.mean()) if len(finite) else np.nan))
    return pd.DataFrame(rows, columns=[*RUN, "similarity"])


def agreement(selected: pd.DataFrame, similarity: pd.DataFrame, column: str = "delta_m") -> pd.DataFrame:
    """Over the configurations of a sweep, seed by seed: Spearman's correlation of similarity with `column`.

    Args:
        selected: of one problem, a row per run of the sweep. similarity: `of_runs` of the same runs.

    Returns:
        seed, rho, n (configurations). A seed with fewer than three has no rho.
    """
    both = selected.merge(similarity, on=RUN).dropna(subset=[column, "similarity"])
    rows = [
        (seed, inference.spearman(table["similarity"], table[column]).rho if len(table) > 2 else np.nan, len(table))
        for seed, table in both.groupby("seed")
    ]
    return pd.DataFrame(rows, columns=["seed", "rho", "n"])


def inverse_norms(run: Run, space: str = "parameters") -> list[float]:
    """Weights in inverse proportion to the lengths of a run's task gradients, with sum 1 and three decimals [K].

    A length is the geometric mean over epochs, so that no epoch counts more because its gradients are long.

    Raises:
        ValueError: the record holds no gradients in that space, or one of length 0.
    """
    lengths = np.array([epoch.gradients[space].norms for epoch in run.history if space in epoch.gradients])
    if not lengths.size or not (lengths > 0).all():
        raise ValueError(
            f"{run.config.title}: its record has no task gradients of positive length on the {space} in every epoch; "
            "take a run of the uniform loss that finished."
        )
    inverses: Sequence[float] = np.exp(-np.log(lengths).mean(axis=0)).tolist()
    return [round(one / sum(inverses), 3) for one in inverses]
