"""Who reaches the optimum of the landscape where the two losses have weights, and what does it depend on? Walks under
Adam over weights, step sizes, starts, methods, and the c and the readings that some of these have.

    walks = walk([0.1, 0.5, 0.9], [0.005, 0.1], cs=[0.4], readings=["code"], steps=20_000)
    reached(walks)                             starts that arrive, a row per cell of the grid
    contest(reached(walks))                    IMGrad's starts minus CAGrad's, cell by cell
    explained(reached(walks))                  what shares of the variance step size, weight and method explain
    ends(walks)                                where gradients stand in the walks that do not arrive

Source of the question: Zhou et al. 2025, arXiv:2503.08006, figures 1 and 2; of starts and weights: Senushkin et al.
2023, arXiv:2305.19000. Neither says what step size, c or number of steps IMGrad had.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from mtl_study.teaching import landscape, two_tasks
from mtl_study.teaching.landscape import Walks

STARTS = ((-8.5, 7.5), (0.0, 0.0), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0))
LOOKS = 60  # at a walk, evenly spaced, and as many that are close together at its beginning
LAST = 0.1  # of a walk: what counts as its end
BALANCED = 2.0  # gradients are, where the longer is less than so many times as long as the shorter
COMPARED = ("unit_scal", "cagrad", "imgrad")  # that differ in how much they help the worst-off task
NO_C, NO_READING = 0.0, ""  # of methods that have none


def arms(cs: Sequence[float], readings: Sequence[str]) -> list[tuple[str, float, str]]:
    """Every method as often as it has options: (key, c, reading)."""
    options = {"cagrad": [(c, NO_READING) for c in cs], "imgrad": list(itertools.product(cs, readings))}
    return [(smto, *of) for smto in two_tasks.METHODS for of in options.get(smto, [(NO_C, NO_READING)])]


def _told_c(smto: str, reading: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """A method of gradients [N, 2, 2] and a c for each pair [N]."""
    if smto == "cagrad":
        return lambda G, c: two_tasks.cagrad(G, c, epsilon=0.0)
    if smto == "imgrad":
        return lambda G, c: two_tasks.imgrad(G, c, reading)
    return lambda G, c: two_tasks.METHODS[smto](G)


def walk(
    weights: Sequence[float],
    rates: Sequence[float],
    cs: Sequence[float],
    readings: Sequence[str],
    steps: int,
    precision: str = "float64",
) -> Walks:
    """All walks of the grid, side by side.

    Args:
        weights: of the first loss; the second has 1 minus it. rates: Adam's step sizes. steps: at most so many.
        precision: as of `landscape.walk`.

    Returns:
        The plan has smto, c and reading next to the columns that every plan has.
    """
    rows = [
        ("adam", f"{smto} {reading}", lr, start, smto, c, reading, weight)
        for smto, c, reading in arms(cs, readings)
        for weight, lr, start in itertools.product(weights, rates, range(len(STARTS)))
    ]
    methods = {f"{smto} {reading}": _told_c(smto, reading) for smto, _, reading in arms(cs, readings)}
    plan = pd.DataFrame(rows, columns=[*landscape.PLAN, "smto", "c", "reading", "weight"])
    looks = {*np.linspace(0, steps, LOOKS + 1).astype(int), *np.geomspace(1, steps, LOOKS).astype(int)}
    return landscape.walk(plan, steps, precision, STARTS, looks, methods=methods)


def reached(walks: Walks) -> pd.DataFrame:
    """A row per method with its options, weight and step size: how many of the five starts arrive."""
    cells = walks.plan.groupby(["smto", "c", "reading", "weight", "lr"], sort=False)
    return cells.steps.count().rename("reached").reset_index()


def contest(reached: pd.DataFrame, ahead: str = "imgrad", behind: str = "cagrad") -> pd.DataFrame:
    """A row per cell at unequal weights: `ahead`, `behind`, the starts that two methods reach there.

    A method without c or readings meets the other in each of its cells.
    """
    one, other = (reached[(reached.smto == name) & (reached.weight != 0.5)] for name in (ahead, behind))
    on = ["weight", "lr"] + ["c"] * bool((one.c != NO_C).all() and (other.c != NO_C).all())
    cells = one.merge(other[[*on, "reached"]], on=on, suffixes=("", " behind"))
    return cells.rename(columns={"reached": "ahead", "reached behind": "behind"}).drop(columns="smto")


def explained(reached: pd.DataFrame, methods: Sequence[str] = COMPARED) -> pd.Series:
    """Of the variance of the number of starts reached, the shares that step size, weight and method explain, each by
    itself; `rest`: what only their combinations do. A method's c and readings are averaged first, so that every cell
    counts once. NaN where nothing varies."""
    cells = reached[reached.smto.isin(methods)].groupby(["smto", "weight", "lr"]).reached.mean().reset_index()
    total = cells.reached.var(ddof=0)
    found = {
        name: cells.groupby(column).reached.mean().var(ddof=0) / total if total else np.nan
        for name, column in (("step size", "lr"), ("weight", "weight"), ("method", "smto"))
    }
    return pd.Series(found | {"rest": 1 - sum(found.values())})


def ends(walks: Walks) -> pd.DataFrame:
    """The walks that do not arrive, a row each: how the gradients stand to each other at its end.

    Returns:
        The plan; the medians over the looks at the last tenth of the walk: cosine, and ratio, the longer to the shorter
        gradient; optimal: whether the last look is near a point that is the optimum for some weights (the Pareto set).
    """
    late = walks.kept >= (1 - LAST) * walks.kept[-1]
    lost = walks.plan.reset_index(drop=True)
    lost = lost[lost.steps.isna()]
    x = walks.paths[late][:, lost.index].astype(np.float64)
    factors = np.stack([lost.weight, 1 - lost.weight], axis=-1)
    G = landscape.gradients(x) * factors[..., None]
    norms = two_tasks.lengths(G)
    cosines = (G[..., 0, :] * G[..., 1, :]).sum(-1) / norms.prod(-1)
    ratios = norms.max(-1) / norms.min(-1)
    some = np.array([landscape.optimum(weight) for weight in np.linspace(0.01, 0.99, 99).tolist()])
    near = (((x[-1][:, None] - some) ** 2).sum(-1) < landscape.NEAR**2).any(1)
    return lost.assign(cosine=np.median(cosines, axis=0), ratio=np.median(ratios, axis=0), optimal=near)


def stuck_in_balance(lost: pd.DataFrame) -> np.ndarray:
    """Of walks that do not arrive, as `ends` has them: which end where gradients conflict and are balanced."""
    found: np.ndarray = ((lost.cosine < 0) & (lost.ratio < BALANCED)).to_numpy()
    return found
