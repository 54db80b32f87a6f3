"""Which methods would have hurt a task? All of them on the same gradients: the Gramians that looks at a run (probes)
have kept.

    margin(gramian, weights)     how much of the step the worst-off task gets
    angle(gramian, one, other)   how far two directions are apart
    per_look(gramians, cs)       what every method would have done at each look
    per_run(records, cs)         one row per run: what the rules ask for

A step d is a Pareto failure where g_k·d < 0 for a task k: to first order that task's loss rises. The run is the uniform
loss's, so nothing here depends on where a method would have led it. Methods that remember are asked look by look; what
Nash-MTL's released solver keeps when it gives up is then older than in a training.

Theorem (of this package). At the same gradients and c IMGrad fails wherever CAGrad does. d of CAGrad maximises
min_k g_k·d over the ball |d − g_0| ≤ c |g_0|. d of IMGrad, in each of its readings, is in that ball. So its
min_k g_k·d is no larger. What both divide d by is positive.

Source of the claim: Zhou et al. 2025, arXiv:2503.08006.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mtl_core import smtos
from mtl_core.smtos.base import GramianWeighting
from mtl_study.experiments.probes import Looks

ROUNDING = 1e-6  # a margin above minus this is no failure
CLOSE = 1.0  # degrees between two directions that are nearly one
READINGS = ("code", "eq9", "eq11", "eq11_plain")  # of IMGrad's objective; its name means the first
EQUAL = "unit_scal"
#: name to key and options; CAGrad and IMGrad come with every c
RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "pcgrad": ("pcgrad", {"order": "index"}),
    "mgda": ("mgda", {"normalize": "none"}),
    "imtl_g": ("imtl_g", {}),
    "aligned_mtl": ("aligned_mtl", {}),
    "nash exact": ("nash_mtl", {}),
    "nash released": ("nash_mtl", {"solver": "cvxpy"}),
}


def margin(gramian: np.ndarray, weights: np.ndarray) -> float:
    """The least cosine between d = Σ_k w_k g_k and the gradient of a task: below 0, d is a Pareto failure; 0 where
    there is no d. Tasks without gradient are left out.

    Args:
        gramian: [K, K]. weights: [K].
    """
    gains, norms = gramian @ weights, np.sqrt(gramian.diagonal())
    length, there = np.sqrt(max(weights @ gains, 0.0)), norms > 0
    if length <= 1e-10 * (np.abs(weights) @ norms):
        return 0.0
    return float((gains[there] / norms[there]).min() / length)


def angle(gramian: np.ndarray, one: np.ndarray, other: np.ndarray) -> float:
    """Between two directions with these weights, in degrees; NaN where one has no length."""
    lengths = [np.sqrt(max(w @ gramian @ w, 0.0)) for w in (one, other)]
    if min(lengths) == 0:
        return float("nan")
    apart = one / lengths[0] - other / lengths[1]  # exact where the angle is small, unlike the inner product
    return float(np.degrees(2 * np.arcsin(min(np.sqrt(max(apart @ gramian @ apart, 0.0)) / 2, 1.0))))


def rules(num_tasks: int, cs: Sequence[float]) -> dict[str, GramianWeighting]:
    """Name to method, made for so many tasks: those of RULES, "cagrad 0.4", "imgrad 0.4", "imgrad eq9 0.4", …"""
    chosen = dict(RULES)
    for c in cs:
        chosen[f"cagrad {c:g}"] = ("cagrad", {"c": c})
        for reading in READINGS:
            chosen[f"{imgrad(reading)} {c:g}"] = ("imgrad", {"c": c, "reading": reading})
    found = {}
    for name, (key, options) in chosen.items():
        smto = smtos.build(key, num_tasks, **options)
        assert isinstance(smto, GramianWeighting)
        found[name] = smto
    return found


def per_look(gramians: Iterable[ArrayLike], cs: Sequence[float]) -> pd.DataFrame:
    """A row per look at a run: the margin of every rule's step, a column each; `fallback`, whether the released solver
    gave up; and `angle 0.4`, … between the directions of CAGrad and IMGrad at this c, in degrees.

    Args:
        gramians: [K, K] each, in the order of the run. cs: of CAGrad and IMGrad.
    """
    rows, methods = [], dict[str, GramianWeighting]()
    for gramian in map(np.asarray, gramians):
        methods = methods or rules(len(gramian), cs)
        row: dict[str, float] = {EQUAL: margin(gramian, np.ones(len(gramian)))}
        weights = dict[str, np.ndarray]()
        for name, smto in methods.items():
            smto.flags.clear()
            weights[name] = smto.solve(gramian)
            row[name] = margin(gramian, weights[name])
            if name == "nash released":
                row["fallback"] = float("fallback" in smto.flags)
        row |= {f"angle {c:g}": angle(gramian, *(weights[f"{key} {c:g}"] for key in ("cagrad", "imgrad"))) for c in cs}
        rows.append(row)
    return pd.DataFrame(rows)


def per_run(records: Iterable[Looks], cs: Sequence[float]) -> pd.DataFrame:
    """One row per run, as the rules take them.

    Returns:
        problem, smto, seed, seconds; a column per rule, the share of looks at which its step hurts a task, those of
        CAGrad and IMGrad also as means over c; fallback, the share at which the released solver gives up; looks, their
        number; of looks and c, close, the share at which the directions of CAGrad and IMGrad are less than CLOSE
        degrees apart, and hurts alone, at which IMGrad hurts a task and CAGrad does not; repairs, how many looks there
        are, over c and readings, of the reverse, which the theorem excludes.
    """
    rows: list[dict[str, Any]] = []
    for record in records:
        run, margins = record.config.base, per_look((look.of_batch for look in record.looks), cs)
        angles = [f"angle {c:g}" for c in cs]
        fails = margins.drop(columns=["fallback", *angles]) < -ROUNDING
        row = {"problem": run.problem, "smto": run.smto, "seed": run.seed, "seconds": record.seconds}
        row |= fails.mean().to_dict() | {"fallback": margins.fallback.mean()}
        for name in ("cagrad", *(imgrad(reading) for reading in READINGS)):
            row[name] = float(np.mean([row[f"{name} {c:g}"] for c in cs]))
        alone = [fails[f"imgrad {c:g}"] & ~fails[f"cagrad {c:g}"] for c in cs]
        repairs = [fails[f"cagrad {c:g}"] & ~fails[f"{imgrad(r)} {c:g}"] for c in cs for r in READINGS]
        row |= {"looks": len(margins), "close": float((margins[angles] < CLOSE).to_numpy().mean())}
        rows.append(row | {"hurts alone": np.mean(alone), "repairs": int(np.sum(repairs))})
    return pd.DataFrame(rows)


def imgrad(reading: str) -> str:
    """The name of a reading among the rules, without its c."""
    return "imgrad" if reading == READINGS[0] else f"imgrad {reading}"
