"""Which methods notice in which unit a loss is measured? Direction and length of a method's update before and after
every task's loss, and with it its gradient, is multiplied by a constant.

    rows = drawn(100, 3, rng)

The update is Σ_k w_k g_k. With factors α gradients are α_k g_k, losses α_k L_k, and the update is Σ_k w'_k α_k g_k.
Methods that remember are asked at their first step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mtl_core import smtos
from mtl_core.smtos.base import GramianWeighting, LossWeighting
from mtl_study.look import label
from mtl_study.teaching.toys import weigh

FACTORS = (10.0, 0.1)  # of the first two tasks; the others keep their unit
SAME = 1e-9  # in a cosine, and relative in a length
TIMES = 10
UP_TO_SIGN, DIRECTION, BOTH, NEITHER = "direction up to sign", "direction", "direction and length", "neither"
#: methods with an option that matters here; a name and what it is built with
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "MGDA, raw gradients": ("mgda", {"normalize": "none"}),
    "MGDA, unit gradients": ("mgda", {"normalize": "l2", "combine": "scaled"}),
    "IMTL-G without its guard": ("imtl_g", {"guard": False}),
}
#: what theory promises for any number of tasks; of all others, neither
EXPECTED = {
    "SI": BOTH,
    "GLS": BOTH,
    "STCH": BOTH,
    "Nash-MTL": BOTH,
    "MGDA, unit gradients": BOTH,
    "EDM": DIRECTION,
    "CDTT": DIRECTION,
    "FAMO": DIRECTION,
    "IMTL-G without its guard": UP_TO_SIGN,
}
#: one name is enough for what is the same on one Gramian, and what draws its weights is asked without the draw
LEFT_OUT = {
    "auto_lambda": "its weights come from a second batch and a virtual step",
    "bayesagg_mtl": "it looks at the last layers of the heads and at targets",
    "config": "RotoGrad and others take it inside; as a method of its own it is IMTL-G with other lengths",
    "db_mtl": "it takes the gradients of the logarithms of the losses, which no unit changes, and remembers them",
    "dwa": "equal weights at its first step",
    "excess_mtl": "it looks at every parameter's gradient, not at their Gramian",
    "fixed": "the uniform loss with other weights",
    "gated": "whatever method it lets through",
    "graddrop": "it draws for every number of the features",
    "gradnorm": "equal weights at its first step; later they follow the lengths on one matrix",
    "imtl": "its learnt scales are 1 at its first step: IMTL-G",
    "imtl_g": "with its guard, see the variant without",
    "imtl_l": "equal weights at its first step",
    "mgda": "see its variants",
    "mgda_ub": "MGDA on the features",
    "moco": "it remembers every parameter's gradient; equal weights at its first step",
    "modo": "its weights come from three batches",
    "pcgrad": "see its variant",
    "rlw_dirichlet": "random weights, whatever the losses",
    "rlw_normal": "random weights, whatever the losses",
    "rotograd": "it turns the features; lengths on them are made equal",
    "sdmgrad": "its weights come from three batches",
    "uw": "equal weights at its first step; later equivariant (first table)",
}


def methods() -> dict[str, tuple[str, dict[str, Any]]]:
    """Label to key and options of every method that is a function of Gramian and losses."""
    found = {}
    for key in smtos.keys():  # noqa: SIM118
        weighing = issubclass(smtos.get(key), GramianWeighting | LossWeighting)
        if weighing and key not in LEFT_OUT:
            found[label(key)] = (key, {"order": "index"} if key == "gradvac" else {})
    return found | VARIANTS | {label("pcgrad"): ("pcgrad", {"order": "index"})}


def random_gramians(draws: int, num_tasks: int, rng: np.random.Generator, features: int = 40) -> np.ndarray:
    """Gramians of Gaussian gradients whose lengths differ by at most a factor of about 3, [draws, K, K]."""
    J = rng.normal(size=(draws, num_tasks, features)) * np.exp(rng.normal(0, 0.5, (draws, num_tasks, 1)))
    J += rng.normal(size=(draws, 1, features)) * 0.3  # something in common
    found: np.ndarray = J @ J.transpose(0, 2, 1)
    return found


def change(key: str, options: dict[str, Any], gramian: np.ndarray, losses: np.ndarray) -> tuple[float, float]:
    """Cosine between a method's updates in the two units, and the length of the second over that of the first."""
    K = len(gramian)
    alpha = np.array([*FACTORS, *[1.0] * (K - 2)])
    first = weigh(smtos.build(key, K, **options), gramian, losses)
    second = alpha * weigh(smtos.build(key, K, **options), gramian * np.outer(alpha, alpha), losses * alpha)
    a, b = first @ gramian @ first, second @ gramian @ second
    return float(first @ gramian @ second / np.sqrt(a * b)), float(np.sqrt(b / a))


def drawn(draws: int, num_tasks: int, rng: np.random.Generator) -> pd.DataFrame:
    """The fingerprints of all methods on random Gramians and losses; what may point backwards does so seldom, and is
    asked of TIMES as many."""
    losses = np.exp(rng.normal(size=(draws, num_tasks)))
    gramians = random_gramians(draws, num_tasks, rng)
    (more,) = rng.spawn(1)  # the others' draws stay as they are
    count = (TIMES - 1) * draws
    many = np.concatenate([losses, np.exp(more.normal(size=(count, num_tasks)))])
    seldom = [name for name, kept in EXPECTED.items() if kept == UP_TO_SIGN]
    often = [name for name in methods() if name not in seldom]
    tables = [
        fingerprints(list(gramians), list(losses), often),
        fingerprints([*gramians, *random_gramians(count, num_tasks, more)], list(many), seldom),
    ]
    return pd.concat(tables).loc[list(methods())].rename_axis("method")


def fingerprints(
    gramians: Sequence[np.ndarray], losses: Sequence[np.ndarray], which: Iterable[str] | None = None
) -> pd.DataFrame:
    """A row per method: what does not change when units change.

    Args:
        gramians: [K, K] each. losses: [K] each. which: labels of methods; all.

    Returns:
        Index: label. asked: of how many Gramians. cosine: least, median_cosine; length, longest: least and largest
        ratio of lengths; flips: in how many cases the second update points backwards; invariant: what the method keeps,
        in words.
    """
    known, rows = methods(), {}
    for name in known if which is None else which:
        key, options = known[name]
        pairs = [change(key, options, G, L) for G, L in zip(gramians, losses, strict=True)]
        cosines, lengths = np.array(pairs).T
        direction = cosines.min() > 1 - SAME
        same_length = np.abs(lengths - 1).max() < 1e-6
        up_to_sign = np.abs(cosines).min() > 1 - SAME
        rows[name] = {
            "asked": len(pairs),
            "cosine": cosines.min(),
            "median_cosine": np.median(cosines),
            "length": lengths.min(),
            "longest": lengths.max(),
            "flips": int((cosines < 0).sum()),
            "invariant": (BOTH if same_length else DIRECTION) if direction else UP_TO_SIGN if up_to_sign else NEITHER,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")
