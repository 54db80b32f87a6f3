"""Sentences that captions share: how many seeds, who chose the settings, which runs diverged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from mtl_study.analysis import inference
from mtl_study.look import in_order, label, problem_label
from mtl_study.words import listed, number, spanned

if TYPE_CHECKING:
    import pandas as pd


PLACES = (
    "Places: those that the mean may have, by 95 % intervals of the differences to all others (Bonferroni); methods "
    "that share a letter are tied."
)
EVERYWHERE = (  # of figures and tables: said once, so that captions need not
    "Unless a caption says otherwise: Δm, the mean gain over the single-task models in percent, is read on test data "
    "at the epoch with the best validation Δm, and means are over seeds. A band or ± is one standard deviation between "
    "seeds. An interval is a 95 % t interval over seeds. A box has the median and the quartiles, its whiskers reach "
    "the last value within 1.5 box lengths. Up to five seeds are drawn one by one. A grey line at 0 is the single-task "
    "models, whose own error is not drawn: it moves all methods together. A black dashed line is the uniform loss "
    "(Unit. Scal.), next to boxes its median. A method keeps its colour and its marker in all figures. In a table the "
    "interval of a method's Δm has the error of the single-task models in it, which cancels in differences. "
    f"{PLACES} A seed fixes initial weights, dropout and batch order; the split belongs to the data set."
)


def interval(low: float, high: float, decimals: int = 2) -> str:
    """The bounds of an interval as a cell of a table; a dash where one seed gives none."""
    if not np.isfinite([low, high]).all():
        return "–"
    return f"{number(low, decimals)} to {number(high, decimals)}"


def seeds(selected: pd.DataFrame) -> str:
    """How many seeds each method has: "10 seeds", "3 to 5 seeds"."""
    return spanned(selected.groupby(["problem", "smto"])["seed"].nunique(), "seed")


def chosen(settings: pd.DataFrame | None, drawn: Iterable[str], of: str = "") -> str:
    """The sentence of a caption that says who chose the settings of the methods drawn; nothing where that is not
    known. of: " of SMTOs", for example."""
    if settings is None:
        return ""
    settings = settings[settings.smto.isin({*drawn, "single_task"})]
    by = ["as published" if by == "published" else by for by in settings["chosen"].unique()]
    rates = settings[settings.smto != "single_task"].groupby("smto", sort=False).lr.agg(["first", "nunique"])
    unequal = learning_rates(rates["first"].to_dict()) if (rates["nunique"] == 1).all() else ""
    return f"Settings{of}: {'; '.join(by)}. {unequal}".strip()


def learning_rates(rates: Mapping[str, float]) -> str:
    """The sentence of a caption that says which methods have another learning rate than most; nothing where all have
    the same.

    Args:
        rates: by method.
    """
    counts = Counter(rates.values())
    if len(counts) < 2:
        return ""
    (most, _), *_ = counts.most_common()
    others = [
        f"{lr:g} for {listed(label(smto) for smto in in_order(s for s in rates if rates[s] == lr))}"
        for lr in sorted(set(rates.values()) - {most})
    ]
    return f"Learning rate: {most:g}, but {listed(others)}."


NAMED = 4  # more methods whose runs diverged are counted, not named


def level(values: pd.Series, decimals: int = 1) -> str:
    """The interval of a method's level as a cell of a table, from its column of `delta.with_levels`."""
    found = inference.t_interval(values)
    return interval(found.low, found.high, decimals)


def place(row: pd.Series) -> dict[str, str]:
    """The cells of a table that say which places a method may have and with whom it is tied (`rankings.places`)."""
    first, last = int(row["first"]), int(row["last"])
    return {"places": str(first) if first == last else f"{first} to {last}", "ties": row.ties}


def elsewhere(selected: pd.DataFrame) -> str:
    """The sentence of a caption that names the methods with runs from another kind of machine than most of their seed;
    nothing where there are none. They start from the same weights and batches, and round otherwise."""
    most = selected.groupby(["problem", "seed"]).machine.transform(lambda machines: machines.mode()[0])
    found = selected[selected.machine != most].smto.unique()
    return f"Some runs are from another kind of machine: {', '.join(map(label, found))}." if len(found) else ""


def diverged(selected: pd.DataFrame) -> str:
    """The sentence of a caption that names the methods some of whose runs diverged; nothing where none did."""
    found = selected[selected.diverged].groupby(["problem", "smto"], sort=False).size()
    if found.empty:
        return ""
    if len(found) > NAMED:
        return f"{found.sum()} runs diverged; they are read at their best epoch before, if any."
    several = selected.problem.nunique() > 1
    runs = [
        f"{n} of {label(smto)}" + (f" on {problem_label(problem)}" if several else "")
        for (problem, smto), n in found.items()
    ]
    return f"Runs that diverged, read at their best epoch before, if any: {', '.join(runs)}."
