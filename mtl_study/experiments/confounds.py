"""Configurations for two questions of notebook 07: is it Adam or is it the method, and who feels the unit of a loss?

    crossed(like, methods, rates, seeds)        methods and single-task models, each under every optimizer and step size
    in_units(like, arms, factors, rates, seeds) ways to train, each with one task's loss in several units

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
#: ways to train, from what feels units most to what cannot feel them
ARMS: tuple[Arm, ...] = (
    ("unit_scal", "sgd"),
    ("unit_scal", "signsgd"),
    ("unit_scal", "adam"),
    ("unit_scal", "adam_per_task"),
    ("uw", "sgd"),
    ("uw", "adam"),
    ("si", "sgd"),
    ("si", "adam"),
    ("nash_mtl", "adam"),
)


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
) -> tuple[list[RunConfig], list[RunConfig]]:
    """Every method under every optimizer at each of its step sizes; and, in the second list, the single-task models.

    Args:
        like: gives problem, data, epochs and the rest. rates: step sizes by optimizer.
    """
    alone = like.definition.single_tasks
    methods = list(methods)

    def all_of(problems: Iterable[str], smtos: Iterable[str]) -> list[RunConfig]:
        pairs = [(problem, smto) for problem in problems for smto in smtos]
        return [
            under(like, name, lr, problem=problem, smto=smto, options={}, seed=seed)
            for name, of_optimizer in rates.items()
            for lr in of_optimizer
            for problem, smto in pairs
            for seed in seeds
        ]

    return all_of([like.problem], methods), all_of(alone, ["unit_scal"])


def in_units(
    like: RunConfig,
    arms: Iterable[Arm],
    factors: Iterable[float],
    rates: Mapping[Arm, float] | Mapping[Arm, Sequence[float]],
    seeds: Sequence[int],
) -> list[RunConfig]:
    """Ways to train, each with the last task's loss times each of the factors.

    Args:
        rates: the step size of each arm, or several.
    """
    ones = [1.0] * (len(like.definition.tasks) - 1)
    found = []
    for smto, optimizer in arms:
        given = rates[smto, optimizer]
        for lr in [given] if isinstance(given, float) else given:
            for factor in factors:
                changes = {"smto": smto, "options": {}, "units": [*ones, float(factor)]}
                found += [under(like, optimizer, lr, seed=seed, **changes) for seed in seeds]
    return found
