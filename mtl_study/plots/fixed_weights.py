"""Section 3.5 of the paper, what weights taken from an SMTO reach: Table 2, and whether they replace their method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from mtl_study.analysis import comparisons, frames, inference
from mtl_study.look import label, problem_label
from mtl_study.paper import published
from mtl_study.plots import canvas, captions
from mtl_study.words import listed, percent

UNIFORM = "unit_scal"


def by_seed(selected: pd.DataFrame, fixed: pd.DataFrame, seeds: Sequence[int]) -> pd.DataFrame:
    """Test Δm of the uniform loss, of fixed weights and of the SMTO with the best mean validation Δm, a row per seed.

    Args:
        selected: `Experiment.selected` of one problem. fixed: rows of the same problem with fixed weights.

    Returns:
        seed, unit_scal, fixed, best_smto (Δm); problem, smto ("fixed"), best (the method), lr, "lr of best" (as text).
    """
    best = selected[selected.smto != UNIFORM].groupby("smto").val_delta_m.mean().idxmax()
    known = comparisons.by_seed(selected)
    columns = {UNIFORM: known[UNIFORM], "fixed": fixed.set_index("seed").delta_m, "best_smto": known[best]}
    rows = pd.DataFrame(columns).loc[list(seeds)].rename_axis("seed").reset_index()
    rates = {"lr": rate(fixed), "lr of best": rate(selected[selected.smto == best])}
    return rows.assign(problem=selected.problem.iloc[0], smto="fixed", best=best, **rates)


def remembered(epochs: Mapping[str, int], factor: float = 0.9) -> str:
    """The sentence that says how much of the first epoch a moving average still holds.

    Args:
        epochs: of training, by problem.
    """
    shares = (f"{percent(100 * factor ** (n - 1), 0)} on {problem_label(problem)}" for problem, n in epochs.items())
    return f"The moving average behind the fixed weights still holds of the first epoch: {listed(shares)}."


def table_2(
    rows: pd.DataFrame,
    selected: Mapping[str, pd.DataFrame],
    fixed: Mapping[str, pd.DataFrame],
    sets: int,
) -> pd.DataFrame:
    """Table 2: the uniform loss, fixed weights, and the best SMTO, with the paper's means.

    Args:
        rows: of `by_seed`, of several problems. selected, fixed: what they come from, by problem. sets: of weights on
            QM9, of which validation has chosen.

    Returns:
        A row per problem; the caption in `.attrs["caption"]`.
    """
    theirs = published.table("table_2")
    lines, rates = {}, []
    for problem, found in rows.groupby("problem", sort=False):
        best = str(found.best.iloc[0])
        cells = {"best SMTO": label(best), "n": len(found)}
        for column, name in {UNIFORM: "Unit. Scal.", "fixed": "fixed weights", "best_smto": "best SMTO, Δm"}.items():
            cells |= {name: found[column].mean(), f"± {name}": found[column].std(ddof=1)}
            cells[f"paper {name}"] = theirs.loc[problem, column]
        lines[problem_label(str(problem))] = cells
        of = selected[str(problem)]
        trained = (of[of.smto == UNIFORM], fixed[str(problem)], of[of.smto == best])
        rates.append(f"{', '.join(map(rate, trained))} on {problem_label(str(problem))}")
    table = pd.DataFrame.from_dict(lines, orient="index").rename_axis("problem")
    table.attrs["decimals"] = 2
    canvas.caption(
        table,
        f"Test Δm in percent, higher is better. The best SMTO and, on QM9, the best of {sets} sets of weights: by mean "
        f"validation Δm. Learning rates, from left to right: {'; '.join(rates)}. Where they differ, so does more than "
        "the weights.",
    )
    return table


def rate(table: pd.DataFrame) -> str:
    """The learning rate of these runs, as a caption has it; a dash where there are none."""
    return f"{frames.setting(table.config.iloc[0], 'lr'):g}" if len(table) else "–"


def minus_source(fixed: pd.DataFrame, source: pd.DataFrame) -> pd.Series:
    """Test Δm of fixed weights minus that of the method that they come from, in points; index seed."""
    return (fixed.set_index("seed").delta_m - source.set_index("seed").delta_m).dropna()


def replaced(pairs: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]], note: str) -> pd.DataFrame:
    """Can fixed weights replace the method that they come from? Two one-sided tests against a standard deviation.

    Args:
        pairs: by problem, rows of fixed weights and of their source. note: a sentence of the caption.

    Returns:
        A row per problem; the caption in `.attrs["caption"]`.
    """
    rows = {}
    for problem, (fixed, source) in pairs.items():
        difference, sd = minus_source(fixed, source), source.delta_m.std(ddof=1)
        interval = inference.t_interval(difference)
        rows[problem_label(problem)] = {
            "source": label(str(source.smto.iloc[0])),
            "learning rates": f"{rate(fixed)}, source {rate(source)}",
            "fixed − source": interval.mean,
            "95 % interval": captions.interval(interval.low, interval.high),
            "margin": sd,
            "p": inference.tost(difference, sd),
            "n": interval.n,
        }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("problem")
    table.attrs["decimals"] = {"fixed − source": 2, "margin": 2, "p": 3}
    canvas.caption(
        table,
        "Test Δm, difference in points, paired by seed; margin: one standard deviation of the source. p: of two "
        "one-sided tests; below 0.025, where the interval is within the margin, the two are equal.",
        note,
    )
    return table
