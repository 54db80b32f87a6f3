"""Do gradients of two tasks disagree more than those of two samples of one task? From inner products alone.

    pairs(gramian)       cosine, magnitude similarity and log ratio of every pair, between tasks and between samples
    per_look(gramians)   one row per look
    per_run(looks)       one row per run: what the rules ask for

Magnitude similarity 2|g||h|/(|g|² + |h|²) is 1/cosh(ln r) with r = |g|/|h|. A constant weight on one task shifts ln r
between tasks and so changes it: the part of it that a constant removes is the mean of ln r, the rest its spread.

Source of the measures: Elich et al. 2024, arXiv:2311.04698, section 4.2 (cosine, magnitude similarity, bands).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

TASKS, SAMPLES = "tasks", "samples"  # between tasks on one sample; between samples of one task


def pairs(gramian: np.ndarray) -> pd.DataFrame:
    """Inner products [K, S, K, S] to a row per pair of gradients.

    Returns:
        between ("tasks", on one sample; "samples", of one task), cosine, magnitude (1: equally long), log_ratio (of the
        first to the second, in the order of tasks or samples), which (the pair of tasks, or the task). A pair with a
        gradient that is zero is left out.
    """
    K, S = gramian.shape[:2]
    norms = np.sqrt(np.einsum("ksks->ks", gramian))
    rows = []
    for between, places in (
        (TASKS, [((a, s), (b, s), f"{a}{b}") for s in range(S) for a in range(K) for b in range(a + 1, K)]),
        (SAMPLES, [((k, s), (k, t), f"{k}") for k in range(K) for s in range(S) for t in range(s + 1, S)]),
    ):
        for one, other, which in places:
            a, b = norms[one], norms[other]
            if a > 0 and b > 0:
                rows.append((between, gramian[*one, *other] / (a * b), 2 * a * b / (a**2 + b**2), np.log(a / b), which))
    return pd.DataFrame(rows, columns=["between", "cosine", "magnitude", "log_ratio", "which"])


def per_look(gramian: np.ndarray) -> dict[str, float]:
    """What one look says.

    Returns:
        inside: 1 where the 95 % band of cosines between tasks lies inside that between samples; cosine_gap and
        magnitude_gap: mean between tasks minus mean between samples; spread_gap: the same of the standard deviation of
        ln r, each pair of tasks, or each task, about its own mean, which no constant weight removes; magnitude_left:
        magnitude_gap after one constant weight per pair of tasks has removed the mean of ln r.
    """
    table = pairs(gramian)
    found = {between: table[table.between == between] for between in (TASKS, SAMPLES)}
    low, high = ({b: np.quantile(t.cosine, q) for b, t in found.items()} for q in (0.025, 0.975))
    centred = {b: t.log_ratio - t.groupby("which").log_ratio.transform("mean") for b, t in found.items()}
    left = {TASKS: 1 / np.cosh(centred[TASKS]), SAMPLES: found[SAMPLES].magnitude}
    # between samples each ratio is as good as its inverse, so its mean is 0
    free = len(centred[TASKS]) - found[TASKS].which.nunique()
    sd = {TASKS: np.sqrt((centred[TASKS] ** 2).sum() / free), SAMPLES: np.sqrt((found[SAMPLES].log_ratio ** 2).mean())}

    def gap(column: str) -> float:
        return float(found[TASKS][column].mean() - found[SAMPLES][column].mean())

    return {
        "inside": float(low[SAMPLES] <= low[TASKS] and high[TASKS] <= high[SAMPLES]),
        "cosine_gap": gap("cosine"),
        "magnitude_gap": gap("magnitude"),
        "magnitude_left": float(left[TASKS].mean() - left[SAMPLES].mean()),
        "spread_gap": float(sd[TASKS] - sd[SAMPLES]),
    }


def per_run(gramians: Iterable[np.ndarray], problem: str, smto: str, seed: int) -> dict[str, float | str | int]:
    """The means over the looks at one run, as the rules take them: a row with problem, smto and seed."""
    looks = pd.DataFrame([per_look(gramian) for gramian in gramians])
    return {"problem": problem, "smto": smto, "seed": seed, **looks.mean().to_dict()}


def turned_by_adam(of_batch: np.ndarray, preconditioned: np.ndarray) -> dict[str, float]:
    """Over the pairs of tasks: the share that conflicts (inner product below 0) as gradients have it, as Adam measures
    it, and the share whose sign differs between the two. NaN where Adam has no measure yet."""
    upper = np.triu_indices(len(of_batch), 1)
    plain, adams = of_batch[upper], preconditioned[upper]
    if np.isnan(adams).any():
        return {"conflict": float((plain < 0).mean()), "conflict_adam": np.nan, "turned": np.nan}
    return {
        "conflict": float((plain < 0).mean()),
        "conflict_adam": float((adams < 0).mean()),
        "turned": float((np.sign(plain) != np.sign(adams)).mean()),
    }
