"""What notebook 08 makes of its experiments: checks for the verdicts, and the sentences that it prints.

The rules are in mtl_study/paper/data/claims.yaml; each check names the proposition that it belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mtl_study.analysis import failures
from mtl_study.look import label, problem_label
from mtl_study.teaching import grid
from mtl_study.teaching.elich import checked
from mtl_study.teaching.landscape import Walks
from mtl_study.words import counted, listed, number, percent

DRAWN = ("unit_scal", "pcgrad", "cagrad", "nash_mtl", "imgrad")  # whose walks the paper shows
ROUNDING = 1e-10  # between two ways to compute one cosine
STRONG = -0.5  # a correlation that lets one number stand for another
FEW = 0.1  # of the walks that do not arrive


def of_balance(walks: Mapping[str, Walks]) -> pd.DataFrame:
    """One row per method, whether equal weights keep it from the optimum, and one on the walks that do not arrive, by
    precision. Of `grid.walk`."""
    found = []
    for precision, these in walks.items():
        reached = grid.reached(these)
        even = reached[reached.weight == 0.5]
        for smto in DRAWN:
            most = int(even[even.smto == smto].reached.max())
            name = f"{label(smto)}, {precision}: starts of {len(grid.STARTS)} at its best step size"
            found.append(checked("equal weights", name, most == len(grid.STARTS), starts=most))
        lost = grid.ends(these)
        share = float(grid.stuck_in_balance(lost).mean()) if len(lost) else 0.0
        found.append(checked("stuck", f"walks that do not arrive, {precision}", share < FEW, share=share))
    return pd.DataFrame(found)


def of_imbalance(walks: Mapping[str, Walks], ahead: str = "imgrad", behind: str = "cagrad") -> pd.DataFrame:
    """One row per precision: in how many cells `ahead` reaches the optimum from more starts, and what the method and
    the step size explain. Of `grid.walk`."""
    found = []
    for precision, these in walks.items():
        reached = grid.reached(these)
        cells = grid.contest(reached, ahead, behind)
        more = int((cells.ahead > cells.behind).sum())
        name = f"{label(ahead)} against {label(behind)}, {precision}"
        found.append(checked("ahead", name, more > len(cells) / 2, more=more, cells=len(cells)))
        shares = grid.explained(reached)
        method, rate = shares["method"], shares["step size"]
        name = f"shares of the variance, {precision}"
        found.append(checked("explains", name, method > rate, method=method, step_size=rate))
    return pd.DataFrame(found)


def of_cosine(table: pd.DataFrame, falls: bool) -> pd.DataFrame:
    """One row per origin of Gramians. Of `imbalance.correlations`, and whether the closed form falls."""
    found = [checked("falls", "the closed form, with the ratio", falls)]
    for row in table.itertuples():
        name = f"{row.gramians} Gramians, {row.origin}"
        if row.num_tasks == 2:
            found.append(checked("closed form", name, row.deviation < ROUNDING, deviation=row.deviation))
        else:
            found.append(checked(f"{row.num_tasks} tasks", name, row.spearman < STRONG, spearman=row.spearman))
    return pd.DataFrame(found)


# -- sentences ---------------------------------------------------------------------------------------------------------


def on_grid(walks: Mapping[str, Walks]) -> str:
    """Who reaches the optimum at unequal weights, and what decides."""
    parts = []
    for precision, these in walks.items():
        reached = grid.reached(these)
        cells = grid.contest(reached)
        more, fewer = int((cells.ahead > cells.behind).sum()), int((cells.ahead < cells.behind).sum())
        shares = grid.explained(reached)
        parts.append(
            f"In {precision} IMGrad reaches the optimum from more starts than CAGrad in {more} of "
            f"{counted(len(cells), 'cell')}, from fewer in {fewer} and from as many in {len(cells) - more - fewer}. Of "
            f"the variance between the cells of Unit. Scal., CAGrad and IMGrad the step size explains "
            f"{_share(shares['step size'])} and the method {_share(shares['method'])}."
        )
    return " ".join(parts)


def _share(value: float) -> str:
    return "nothing, as nothing varies," if np.isnan(value) else percent(100 * value, 1)


def on_balance(walks: Mapping[str, Walks]) -> str:
    """Who reaches the optimum at equal weights, and where the walks that do not arrive end."""
    parts = []
    for precision, these in walks.items():
        reached, starts = grid.reached(these), len(grid.STARTS)
        best = reached[reached.weight == 0.5].groupby("smto", sort=False).reached.max()
        missing = [f"{label(str(smto))} ({most} of {starts})" for smto, most in best.items() if most < starts]
        who = f"all methods but {listed(missing)} reach" if missing else "every method reaches"
        lost = grid.ends(these)
        parts.append(
            f"In {precision}, at equal weights and the best of the step sizes, {who} the optimum from all {starts} "
            f"starts. {_of_lost(lost, len(these.plan))}"
        )
    return " ".join(parts)


def _of_lost(lost: pd.DataFrame, walks: int) -> str:
    if lost.empty:
        return f"Every one of {walks:,} walks arrives."
    conflict, stuck = 100 * (lost.cosine < 0).mean(), 100 * grid.stuck_in_balance(lost).mean()
    return (
        f"Of {walks:,} walks {len(lost):,} do not arrive: {percent(conflict, 0)} of these end where gradients "
        f"conflict, and {percent(stuck, 0)} where they do while one is less than twice as long as the other."
    )


def on_cosine(table: pd.DataFrame) -> str:
    """How near the computed cosine is to its formula, and how well it tells imbalance. Of `imbalance.correlations`."""
    two, more = table[table.num_tasks == 2], table[table.num_tasks > 2]
    said = (
        f"For two tasks κ as IMGrad computes it and the formula differ by {two.deviation.max():.0e} at most, over "
        f"{counted(int(two.gramians.sum()), 'Gramian')}."
    )
    words = [f"{number(row.spearman, 2)} ({row.origin})" for row in two.itertuples() if row.spearman == row.spearman]
    if words:
        said += f" Its rank correlation with the ratio of lengths is {listed(words)}."
    for tasks, part in more.groupby("num_tasks"):
        words = [f"{number(row.spearman, 2)} ({row.origin})" for row in part.itertuples()]
        said += f" With {tasks} tasks it is {listed(words)}."
    return said


def on_failures(per_run: pd.DataFrame, cs: Sequence[float]) -> str:
    """Who would have hurt a task on the way of the uniform loss. Of `failures.per_run`."""
    means = per_run.groupby("problem", sort=False).mean(numeric_only=True)

    def shares(column: str) -> str:
        return listed(
            f"{percent(100 * value, 1)} of the looks on {problem_label(str(name))}"
            for name, value in means[column].items()
        )

    worst = {f"{c:g}": (means[f"cagrad {c:g}"].max(), means[f"imgrad {c:g}"].max()) for c in cs}
    words = [f"{percent(100 * a, 1)} and {percent(100 * b, 1)} at c = {c}" for c, (a, b) in worst.items()]
    repairs = per_run.repairs.sum()
    return (
        f"The uniform loss itself would have hurt a task at {shares(failures.EQUAL)}, Nash-MTL with its released "
        f"solver at {shares('nash released')} (it gives up at {shares('fallback')}), and solved exactly at "
        f"{shares('nash exact')}. CAGrad and IMGrad hurt one, on the problem where they do most, at {listed(words)}. "
        f"IMGrad repairs {'failures of CAGrad, against the theorem' if repairs else 'no failure of CAGrad'}; it "
        f"hurts a task alone at {shares('hurts alone')} and c."
    )


# -- runs (B4 to B7) ---------------------------------------------------------------------------------------------------
