"""Configurations for the trained half of notebook 08: is it conflict that hurts, or imbalance?

    baselines(like, seeds)                        the single-task models that gains are measured against
    watched(like, methods, c, seeds, looks)       methods whose real steps are looked at
    gated(like, inner, c, duties, seeds)          one SMTO that acts in a share of the steps, by three measures of need
    at_radii(like, radii, seeds)                  CAGrad and IMGrad at the same values of c

All are at one step size, that of `like`. c, the radius of CAGrad's ball, is a setting of IMGrad too, with another
default; a comparison at each one's default is one of two values of c.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mtl_study.analysis.gates import WITH_RADIUS
from mtl_study.experiments.runs import RunConfig
from mtl_study.experiments.strides import StridesConfig

MEASURES = ("ratio", "cosine", "random")  # of need, as `gated` has them


def method(like: RunConfig, smto: str, c: float, seed: int) -> RunConfig:
    """A method in its default form, but for c."""
    return like.model_copy(update={"smto": smto, "options": _radius(smto, c), "seed": seed})


def _radius(smto: str, c: float) -> dict[str, Any]:
    return {"c": c} if smto in WITH_RADIUS else {}


def baselines(like: RunConfig, seeds: Iterable[int]) -> list[RunConfig]:
    """Every single task with every seed."""
    return [
        like.model_copy(update={"problem": problem, "seed": seed})
        for problem in like.definition.single_tasks
        for seed in seeds
    ]


def watched(like: RunConfig, methods: Sequence[str], c: float, seeds: Sequence[int], looks: int) -> list[StridesConfig]:
    """Every method with every seed, seed by seed."""
    return [StridesConfig.of(base=method(like, smto, c, seed), looks=looks) for seed in seeds for smto in methods]


def gated(like: RunConfig, inner: str, c: float, duties: Iterable[float], seeds: Sequence[int]) -> list[RunConfig]:
    """The inner method behind a gate of every duty by every measure of need, with every seed."""
    inside = {"inner": inner, "inner_options": _radius(inner, c)}
    ways = [{**inside, "by": by, "duty": duty} for duty in duties for by in MEASURES]
    return [like.model_copy(update={"smto": "gated", "options": way, "seed": s}) for s in seeds for way in ways]


def at_radii(like: RunConfig, radii: Sequence[float], seeds: Sequence[int]) -> list[RunConfig]:
    """Both methods at every c with every seed."""
    return [method(like, smto, c, seed) for seed in seeds for c in radii for smto in WITH_RADIUS]
