"""The mean cosines of task gradients, by their Gramian: the paper's, and one that counts conflicts alone."""

from __future__ import annotations

import math

import numpy as np


def cosine_to_mean(gramian: np.ndarray) -> float:
    """The paper's metric C: the mean cosine between each task's gradient and their average. NaN if one of them is zero.

        C = 1/K · Σ_k ⟨g_k, ḡ⟩ / (|g_k| |ḡ|)      ḡ = 1/K · Σ_k g_k

    Unrelated (orthogonal) gradients of equal length have C = 1/√K, so it falls with the number of tasks alone; and it
    falls when the lengths differ (D29).
    """
    gramian = np.asarray(gramian, dtype=float)
    norms = np.sqrt(gramian.diagonal())
    to_mean, mean_norm = gramian.mean(axis=1), math.sqrt(max(gramian.mean(), 0.0))
    if (norms == 0).any() or mean_norm <= 1e-12 * norms.max():
        return math.nan
    return float((to_mean / (norms * mean_norm)).mean())


def pairwise_cosine(gramian: np.ndarray) -> float:
    """Mean cosine over all pairs of tasks: 0 for unrelated gradients whatever K and the lengths. NaN if one is zero."""
    gramian = np.asarray(gramian, dtype=float)
    norms = np.sqrt(gramian.diagonal())
    if (norms == 0).any() or len(gramian) < 2:
        return math.nan
    cosines = gramian / np.outer(norms, norms)
    return float(cosines[np.triu_indices(len(gramian), 1)].mean())
