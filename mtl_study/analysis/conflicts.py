"""Do gradients of two tasks disagree more than those of two samples of one task? From the looks at runs (probes).

    pairs(look)       cosine, magnitude similarity and log ratio of every pair, between tasks and between samples
    per_look(look)    what one look says
    per_run(records)  one row per run: what the rules ask for
    inside_by_chance  how often a band of few is inside one of many where nothing differs

Magnitude similarity 2|g||h|/(|g|² + |h|²) is 1/cosh(ln r) with r = |g|/|h|. A constant weight on one task shifts ln r
between tasks and so changes it: the part of it that a constant removes is the mean of ln r, the rest its spread.

Source of the measures: Elich et al. 2024, arXiv:2311.04698, section 4.2 (cosine, magnitude similarity, bands).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mtl_study.experiments.probes import Look, Looks

TASKS, SAMPLES = "tasks", "samples"  # between tasks on one sample; between samples of one task
BAND = (0.025, 0.975)  # the quantiles of a 95 % band


def pairs(look: Look) -> pd.DataFrame:
    """One look to a row per pair of gradients.

    Returns:
        between ("tasks", on one sample; "samples", of one task), cosine, magnitude (1: equally long), log_ratio (of the
        first to the second, in the order of tasks or samples), which (the pair of tasks, or the task). A pair with a
        gradient that is zero is left out.
    """
    norms = np.array(look.norms)
    K, S = norms.shape
    first, second = np.triu_indices(S, 1)
    parts = [
        (TASKS, f"{a}{b}", look.of_tasks[i], norms[a], norms[b])
        for i, (a, b) in enumerate(itertools.combinations(range(K), 2))
    ]
    parts += [(SAMPLES, f"{k}", look.of_samples[k], norms[k, first], norms[k, second]) for k in range(K)]
    found = []
    for between, which, cosines, a, b in parts:
        there = (a > 0) & (b > 0)
        ratio = np.log(a[there] / b[there])
        rows = {"between": between, "cosine": np.array(cosines)[there], "magnitude": 1 / np.cosh(ratio)}
        found.append(pd.DataFrame({**rows, "log_ratio": ratio, "which": which}))
    return pd.concat(found, ignore_index=True)


def per_look(look: Look) -> dict[str, float]:
    """What one look says.

    Returns:
        inside: 1 where the 95 % band of cosines between tasks is inside that between samples; cosine_gap and
        magnitude_gap: mean between tasks minus mean between samples; spread of tasks and of samples: the standard
        deviation of ln r, each pair of tasks about its own mean, which no constant weight removes; spread_gap: the
        difference.
    """
    table = pairs(look)
    found = {between: table[table.between == between] for between in (TASKS, SAMPLES)}
    centred = found[TASKS].log_ratio - found[TASKS].groupby("which").log_ratio.transform("mean")
    # between samples each ratio is as good as its inverse, so its mean is 0
    free = len(centred) - found[TASKS].which.nunique()
    sd = {TASKS: np.sqrt((centred**2).sum() / free), SAMPLES: np.sqrt((found[SAMPLES].log_ratio ** 2).mean())}

    def gap(column: str) -> float:
        return float(found[TASKS][column].mean() - found[SAMPLES][column].mean())

    return {
        "inside": float(_inside(found[TASKS].cosine, found[SAMPLES].cosine)),
        "cosine_gap": gap("cosine"),
        "magnitude_gap": gap("magnitude"),
        "spread_gap": float(sd[TASKS] - sd[SAMPLES]),
        **{f"spread {between}": float(value) for between, value in sd.items()},
    }


def of_run(looks: Sequence[Look]) -> pd.DataFrame:
    """The pairs of all looks at one run.

    Returns:
        As `pairs`, and look, its number, and left: the magnitude similarity that is left where each pair of tasks has
        the one constant weight, for the whole run, that makes the mean of ln r 0.
    """
    table = pd.concat([pairs(look).assign(look=i) for i, look in enumerate(looks)], ignore_index=True)
    mean = table.groupby(["between", "which"]).log_ratio.transform("mean")
    return table.assign(left=1 / np.cosh(table.log_ratio - mean.where(table.between == TASKS, 0.0)))


def per_run(records: Iterable[Looks]) -> pd.DataFrame:
    """One row per run, as the rules take them.

    Returns:
        problem, smto, seed, seconds; the means over looks of what `per_look` says; inside_pooled: 1 where the band of
        all looks together is inside; magnitude_left, the magnitude gap that a constant weight leaves (`of_run`);
        drift (`drift`, the mean over pairs of tasks); of tasks and of samples magnitude, left, pairs (at a look), and
        conflicts: the share of pairs with a cosine below 0.
    """
    rows: list[dict[str, Any]] = []
    for record in records:
        run, table = record.config.base, of_run(record.looks)
        table["conflicts"] = table.cosine < 0
        means = table.groupby("between")[["magnitude", "left", "conflicts"]].mean()
        moved = table[table.between == TASKS].groupby("which")[["look", "log_ratio"]].apply(drift)
        rows.append(
            {"problem": run.problem, "smto": run.smto, "seed": run.seed, "seconds": record.seconds}
            | pd.DataFrame([per_look(look) for look in record.looks]).mean().to_dict()
            | {"magnitude_left": means.left[TASKS] - means.left[SAMPLES], "drift": float(moved.mean())}
            | {"inside_pooled": float(_inside(*(table[table.between == b].cosine for b in (TASKS, SAMPLES))))}
            | {f"{name} {between}": means[name][between] for name in means for between in means.index}
            | {f"pairs {b}": round(count / len(record.looks)) for b, count in table.between.value_counts().items()}
        )
    return pd.DataFrame(rows)


def drift(rows: pd.DataFrame) -> float:
    """The variance over looks of what ln r is on average: that of the means of samples, minus the part that a mean of
    so few samples has by chance. Without bias: where nothing drifts it is 0 on average, so it may be below 0. NaN for
    one look, or where no look has two samples.

    Args:
        rows: with look and log_ratio, of one pair of tasks.
    """
    by_look = rows.groupby("look").log_ratio
    return float(by_look.mean().var() - (by_look.var() / by_look.size()).mean())


def _inside(tasks: np.ndarray | pd.Series, samples: np.ndarray | pd.Series) -> np.ndarray:
    """1 where the 95 % band of the first, along the last axis, is inside that of the second, else 0."""
    (low, high), (lowest, highest) = (np.quantile(np.asarray(values), BAND, axis=-1) for values in (tasks, samples))
    return np.asarray((lowest <= low) & (high <= highest), dtype=float)


def inside_by_chance(of_tasks: int, of_samples: int, wider: float = 1.0, draws: int = 4000) -> float:
    """In what share of looks the band between tasks would be inside that between samples if all cosines were
    independent and normal about one mean: a band of few is narrower than one of many.

    Args:
        of_tasks, of_samples: so many cosines. wider: how many times as wide those between tasks are.
    """
    rng = np.random.default_rng(0)
    tasks, samples = (rng.normal(size=(draws, count)) for count in (of_tasks, of_samples))
    return float(_inside(wider * tasks, samples).mean())


def turned_by_adam(look: Look) -> dict[str, float]:
    """Over the pairs of tasks: the share that conflicts (inner product below 0) by plain gradients and by Adam's
    measure, and the shares that this measure ends and makes. NaN where Adam has no measure yet."""
    upper = np.triu_indices(len(look.of_batch), 1)
    plain = np.array(look.of_batch)[upper]
    if not look.preconditioned:
        return {"conflict": float((plain < 0).mean()), **dict.fromkeys(["conflict_adam", "ended", "made"], np.nan)}
    adams = np.array(look.preconditioned)[upper]
    return {
        "conflict": float((plain < 0).mean()),
        "conflict_adam": float((adams < 0).mean()),
        "ended": float(((plain < 0) & (adams >= 0)).mean()),
        "made": float(((plain >= 0) & (adams < 0)).mean()),
    }
