"""What the pictures that answer (`mtl_study.teaching.live`) begin with: two gradients and every method, or a landscape.

    publish(ax, "00_pair", preset, "…", live=playground(Pair(120, 4), ["unit_scal", "edm"]))

The playground has every method whose weights are a function of the Gramian and the losses, as it is at its first step
(CDTT at its eleventh); the others are named there with the reason. A new method has to be in one of the two lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mtl_core import smtos
from mtl_study.look import LOOK, in_order, label
from mtl_study.teaching import grid, landscape, two_tasks
from mtl_study.teaching.live import Live
from mtl_study.teaching.toys import Pair

#: the methods that the playground does not have, and why
LEFT_OUT = {
    "auto_lambda": "asks a second batch.",
    "bayesagg_mtl": "reads the targets and the last layers.",
    "db_mtl": "averages gradients over many steps.",
    "dwa": "compares the losses of two epochs.",
    "excess_mtl": "adds up squared gradients, entry by entry, over all steps.",
    "famo": "learns from what each step did to the losses.",
    "fixed": "has the weights that it is given.",
    "gated": "switches another method on and off by its past.",
    "go4align": "learns from the losses of all steps.",
    "graddrop": "draws a mask per feature.",
    "gradnorm": "learns its weights from the losses of all steps.",
    "imtl_l": "learns a scale per loss; at its first step it is the sum.",
    "ldc_mtl": "learns its weights from step to step.",
    "moco": "averages gradients over many steps.",
    "modo": "asks two further batches.",
    "rlw_dirichlet": "draws its weights.",
    "rlw_normal": "draws its weights.",
    "rotograd": "turns the gradients.",
    "sdmgrad": "asks two further batches.",
    "stch": "compares the losses with those of a past epoch.",
    "uw": "learns a scale per loss; where it comes to rest it is SI.",
}


def ported() -> list[str]:
    """The methods of the playground, in order of display; each has an entry in METHODS of browser/weights.js."""
    return [key for key in in_order(smtos.keys()) if key not in LEFT_OUT]


def playground(pair: Pair, shown: Sequence[str]) -> Live:
    """Two gradients whose tips can be moved, with all methods in a table.

    Args:
        shown: the methods whose steps are drawn at first.
    """
    out = [{"label": label(key), "reason": reason} for key, reason in LEFT_OUT.items()]
    begin = {"gradients": pair.gradients.tolist(), "losses": pair.losses.tolist(), "shown": list(shown)}
    return Live("playground", {**begin, "methods": _looks(ported()), "left_out": out})


def player(shown: Sequence[str], weight: float, rate: float, steps: int) -> Live:
    """Walks over the landscape, computed while they are played.

    Args:
        shown: the methods that walk at first. weight: of the first loss, at first; the second has 1 minus it. rate: the
            step size at first. steps: at most so many.
    """
    weights, rates = sorted({0.1, 0.3, 0.5, 0.7, 0.9, weight}), sorted({*landscape.RATES, rate}, reverse=True)
    return Live(
        "player",
        {
            "methods": _looks(in_order(two_tasks.METHODS)),
            "shown": list(shown),
            "optimizer": "adam",
            "rates": rates,
            "rate": rate,
            "weight": weight,
            "goals": [[w, list(landscape.optimum(w))] for w in weights],
            "starts": [list(start) for start in grid.STARTS],
            "start": list(grid.STARTS[0]),
            "steps": steps,
        },
    )


def _looks(keys: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"key": key, "label": LOOK[key].label, "colour": LOOK[key].colour, "dash": list(LOOK[key].dash)} for key in keys
    ]
