"""What a method guarantees, by looking for the smallest problem in which it does not.

A problem is K gradients in the plane with whole numbers as coordinates, none of them zero, small ones first. Every
method that is a function of the Gramian is asked for its update of each, once for all problems that have the same one:
they are turned or mirrored. A blank is no proof: no counterexample is that small. A method that draws is asked with one
fixed order of the tasks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from mtl_core import smtos
from mtl_core.smtos.base import GramianWeighting
from mtl_core.smtos.geometry import is_stationary
from mtl_study.words import minus

LARGEST = {2: 2, 3: 1}  # number of tasks: largest coordinate
FACTOR = 4.0  # by which one task's loss and gradient are scaled
SMALL = 1e-4  # for an update: the gradients are about 1 long
OPTIONS: dict[str, dict[str, Any]] = {"pcgrad": {"order": "index"}, "gradvac": {"order": "index"}}

Gradients = np.ndarray  # [K, 2]


@cache
def problems(K: int) -> tuple[Gradients, ...]:
    """The smallest sum of absolute coordinates first; of those with the same Gramian, the first."""
    numbers = range(-LARGEST[K], LARGEST[K] + 1)
    vectors = [v for v in itertools.product(numbers, repeat=2) if any(v)]
    every = sorted(itertools.product(vectors, repeat=K), key=lambda g: (np.abs(g).sum(), [[-x for x in v] for v in g]))
    first: dict[bytes, Gradients] = {}
    for gradients in map(np.array, every):
        first.setdefault((gradients @ gradients.T).tobytes(), gradients.astype(float))
    return tuple(first.values())


def weights(key: str, gradients: Gradients, losses: np.ndarray | None = None) -> np.ndarray:
    """Of a fresh method, so that none remembers another problem [K]."""
    smto = smtos.build(key, len(gradients), **OPTIONS.get(key, {}))
    assert isinstance(smto, GramianWeighting)
    return smto.solve(gradients @ gradients.T, losses)


def _hurts(key: str, gradients: Gradients) -> bool:
    update = weights(key, gradients) @ gradients
    return bool((gradients @ update < -SMALL).any())


def _moves_where_all_is_balanced(key: str, gradients: Gradients) -> bool:
    update = weights(key, gradients) @ gradients
    return is_stationary(gradients @ gradients.T) and bool(np.linalg.norm(update) > SMALL)


def _turns_with_a_unit(key: str, gradients: Gradients) -> bool:
    before = weights(key, gradients) @ gradients
    for k in range(len(gradients)):
        scale = np.where(np.arange(len(gradients)) == k, FACTOR, 1.0)
        after = weights(key, scale[:, None] * gradients, scale) @ (scale[:, None] * gradients)
        one, other = np.linalg.norm(before), np.linalg.norm(after)
        if (one > SMALL) != (other > SMALL) or (one > SMALL and before @ after < (1 - 1e-6) * one * other):
            return True
    return False


def _depends_on_the_order(key: str, gradients: Gradients) -> bool:
    update = weights(key, gradients) @ gradients
    turned = weights(key, gradients[::-1]) @ gradients[::-1]
    rolled = np.roll(gradients, 1, axis=0)
    gaps = [np.abs(other - update).max() for other in (turned, weights(key, rolled) @ rolled)]
    return bool(max(gaps) > SMALL)


BROKEN: dict[str, Callable[[str, Gradients], bool]] = {  # promise: whether a problem breaks it
    "no task gets worse": _hurts,
    "stops at stationary points": _moves_where_all_is_balanced,
    "same direction in any unit": _turns_with_a_unit,
    "same update in any order": _depends_on_the_order,
}


def methods() -> list[str]:
    """The methods that are functions of the Gramian alone, where the losses are 1 each (IMTL learns scales as well)."""
    return [k for k in smtos.keys() if issubclass(smtos.get(k), GramianWeighting) and k != "imtl"]  # noqa: SIM118


@cache
def smallest(key: str, promise: str, K: int) -> str:
    """The smallest problem of K tasks that breaks a promise, or nothing."""
    for gradients in problems(K):
        if BROKEN[promise](key, gradients):
            return ", ".join(minus("({:g}, {:g})".format(*g)) for g in gradients)
    return ""


def table() -> pd.DataFrame:
    """Methods × promises × number of tasks: the smallest counterexample, blank where none is that small."""
    rows = {key: {(p, K): smallest(key, p, K) for p in BROKEN for K in LARGEST} for key in methods()}
    return pd.DataFrame.from_dict(rows, orient="index")
