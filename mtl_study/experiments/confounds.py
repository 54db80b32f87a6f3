"""Configurations for two questions of notebook 07: is it Adam or is it the method, and who feels the unit of a loss?

    crossed(like, methods, rates, seeds)    methods and single-task models, each under every optimizer and step size
    at_rates(like, ways, seeds)             some of these, each at a step size of its own
    in_units(like, arms, factors, seeds)    ways to train, each with one task's loss in several units
    preferring(like, weights, rates, seeds) the uniform loss with weights, under every optimizer and step size

All are plain runs: optimizer, momentum and units are settings of a run (`RunConfig`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mtl_core.names import nearest
from mtl_study.experiments.runs import BadConfig, RunConfig

#: the optimizers that are compared, with their momentum
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adam": {},
    "sgd": {"optimizer": "sgd", "momentum": 0.9},
    "signsgd": {"optimizer": "signsgd", "momentum": 0.9},
    "muon": {"optimizer": "muon", "momentum": 0.95},
    "adamw": {"optimizer": "adamw"},
    "adam_per_task": {"optimizer": "adam_per_task"},
}
Arm = tuple[str, str]  # a method and an optimizer
WEIGHED = ("adam", "sgd")  # the optimizers under which preferences are tried
#: ways to train that the rules of Elich-mechanism ask about
JUDGED: tuple[Arm, ...] = (("unit_scal", "sgd"), ("unit_scal", "adam"), ("si", "sgd"), ("si", "adam"))


def under(like: RunConfig, optimizer: str, lr: float, **changes: Any) -> RunConfig:
    """The configuration under another optimizer. Raises BadConfig for one that is not in OPTIMIZERS."""
    if optimizer not in OPTIMIZERS:
        raise BadConfig(
            f"optimizer {optimizer!r}{nearest(optimizer, OPTIMIZERS)} is not compared: {', '.join(OPTIMIZERS)} are."
        )
    plain = {"optimizer": "adam", "momentum": 0.0, "betas": [0.9, 0.999], "eps": 1e-8}
    return RunConfig.of(**{**like.model_dump(), **plain, **OPTIMIZERS[optimizer], "lr": lr, **changes})


def crossed(
    like: RunConfig, methods: Iterable[str], rates: Mapping[str, Sequence[float]], seeds: Sequence[int]
) -> list[RunConfig]:
    """Every method, and the single-task models, under every optimizer at each of its step sizes.

    Args:
        like: gives problem, data, epochs and the rest. rates: step sizes by optimizer.
    """
    pairs = [(like.problem, smto) for smto in methods]
    pairs += [(problem, "unit_scal") for problem in like.definition.single_tasks]
    ways = [(*pair, optimizer, lr) for optimizer, found in rates.items() for lr in found for pair in pairs]
    return at_rates(like, ways, seeds)


def at_rates(
    like: RunConfig, ways: Iterable[tuple[str, str, str, float]], seeds: Sequence[int], **changes: Any
) -> list[RunConfig]:
    """These ways to train, (problem, method, optimizer, step size), with each seed."""
    return [
        under(like, optimizer, lr, problem=problem, smto=smto, options={}, seed=seed, **changes)
        for problem, smto, optimizer, lr in ways
        for seed in seeds
    ]


def in_units(
    like: RunConfig, arms: Mapping[Arm, float], factors: Iterable[float], seeds: Sequence[int]
) -> list[RunConfig]:
    """Ways to train, each at its step size, with the last task's loss times each of the factors."""
    ways = [(like.problem, *arm, lr) for arm, lr in arms.items()]
    ones = [1.0] * (len(like.definition.tasks) - 1)
    return [run for factor in factors for run in at_rates(like, ways, seeds, units=[*ones, float(factor)])]


def preferring(
    like: RunConfig, weights: Sequence[float], rates: Mapping[str, Sequence[float]], seeds: Sequence[int]
) -> list[RunConfig]:
    """The uniform loss with weights on the losses, under those optimizers of WEIGHED that have step sizes, at each.

    Args:
        weights: [K], of sum 1; times K they are the runs' `units`, so that equal ones change nothing.
    """
    ways = [(like.problem, "unit_scal", optimizer, lr) for optimizer in WEIGHED for lr in rates.get(optimizer, [])]
    return at_rates(like, ways, seeds, units=[round(len(weights) * weight, 12) for weight in weights])
