"""Rates at equal terms: methods at several learning rates and batches, and who leads when each has its best.

    gains(held, tasks)     `delta.selected` of all sizes, with batch, epochs and lr
    rates(gains)           each method's best rate by batch, and whether it lies inside those tried
    best_places(gains)     each method's best batch and rate together
    one_rate(gains)        by batch one rate for all methods
    leads(gains, at)       Δm of each method minus the uniform loss's, seed by seed, each at such a rate

What is best has the largest mean validation Δm over the seeds; where a seed left no value, nothing is best. Test data
choose nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from mtl_core.tasks import Task
from mtl_study.analysis import delta, tuning
from mtl_study.experiments.runs import Run

Size = tuple[int, int]  # batch size, epochs
UNIFORM = "unit_scal"


def gains(
    held: Mapping[Size, tuple[Sequence[Run], Sequence[Run]]],
    tasks: Sequence[Task],
    lengths: Mapping[int, int] | None = None,
    reference: int | None = None,
) -> pd.DataFrame:
    """Δm of all runs, over single-task models with the batch and the length of what is measured against them.

    Args:
        held: runs of one problem and single-task runs by size, one per batch, as of `evidence.held`.
        lengths: by batch the epochs that are read, from the first; None: all.
        reference: the batch whose single-task models all gains are over, so that batches can be compared; None: each
            batch has its own.

    Returns:
        The columns of `delta.selected`, and batch, epochs and lr.
    """
    read = {}
    for (batch, epochs), both in held.items():
        length = (lengths or {}).get(batch, epochs)
        read[batch, length] = tuple(_beginnings(some, length) for some in both)
    alone = {batch: singles for (batch, _), (_, singles) in read.items()}
    found = []
    for (batch, epochs), (runs, singles) in read.items():
        baselines = delta.single_task_baselines(singles if reference is None else alone[reference], tasks)
        found.append(delta.selected(runs, baselines, tasks).assign(batch=batch, epochs=epochs))
    columns = ["problem", "smto", "config", "seed", "delta_m", "val_delta_m", "seconds", "batch", "epochs"]
    return tuning.by_rate(pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=columns))


def _beginnings(runs: Iterable[Run], epochs: int) -> list[Run]:
    """Of the runs that are long enough the first epochs."""
    read = [run.serving(run.config.model_copy(update={"epochs": epochs})) for run in runs]
    return [run for run in read if run is not None]


def equal_epochs(sizes: Iterable[Size]) -> dict[int, int]:
    """By batch the epochs that all of them have."""
    sizes = list(sizes)
    return {batch: min(epochs for _, epochs in sizes) for batch, _ in sizes}


def equal_steps(sizes: Iterable[Size], train_size: int) -> dict[int, int]:
    """By batch the whole epochs within the steps that all of them have."""
    sizes = list(sizes)
    per_epoch = {batch: math.ceil(train_size / batch) for batch, _ in sizes}
    steps = min((epochs * per_epoch[batch] for batch, epochs in sizes), default=0)
    return {batch: steps // of_one for batch, of_one in per_epoch.items()}


def rates(gains: pd.DataFrame) -> pd.DataFrame:
    """Each method's best learning rate, by batch.

    Returns:
        batch, smto, lr, and inside: whether a lower and a higher rate were tried. A method without a rate at which all
        seeds have a value is left out.
    """
    return pd.DataFrame(
        [
            (int(str(batch)), smto, place[0], rows.lr.min() < place[0] < rows.lr.max())
            for (batch, smto), rows in gains.groupby(["batch", "smto"], sort=False)
            if (place := _best(rows, ["lr"]))
        ],
        columns=["batch", "smto", "lr", "inside"],
    )


def best_places(gains: pd.DataFrame) -> pd.DataFrame:
    """Each method's best batch and learning rate together: batch, smto, lr. The gains have to be over the same
    single-task models at all batches."""
    return pd.DataFrame(
        [
            (int(place[0]), smto, place[1])
            for smto, rows in gains.groupby("smto", sort=False)
            if (place := _best(rows, ["batch", "lr"]))
        ],
        columns=["batch", "smto", "lr"],
    )


def one_rate(gains: pd.DataFrame) -> pd.DataFrame:
    """By batch the learning rate that is best for the uniform loss, of those that every method has there, for all
    methods: batch, smto, lr."""
    found = []
    for _, rows in gains.groupby("batch"):
        methods = rows.groupby("lr")["smto"].nunique()
        shared = rows[rows.lr.isin(methods.index[methods == rows.smto.nunique()])]
        best = rates(shared).query("smto == @UNIFORM")[["batch", "lr"]]
        found.append(rows[["batch", "smto"]].drop_duplicates().merge(best, on="batch"))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=["batch", "smto", "lr"])


def leads(gains: pd.DataFrame, at: pd.DataFrame) -> pd.DataFrame:
    """Δm of each method minus that of the uniform loss at the same seed, each read where `at` says.

    Args:
        at: batch, smto and lr. One place per method and batch (`rates`, `one_rate`): methods are compared at the same
            batch. One place per method (`best_places`): each has its own batch.

    Returns:
        batch (the method's), smto, seed, lead (points). A pair of which one has no value is left out.
    """
    if at.empty:
        return pd.DataFrame(columns=["batch", "smto", "seed", "lead"])
    there = gains.merge(at[["batch", "smto", "lr"]], on=["batch", "smto", "lr"])
    on = ["batch", "seed"] if at.smto.duplicated().any() else ["seed"]
    uniform = there.loc[there.smto == UNIFORM, [*on, "delta_m"]]
    both = there[there.smto != UNIFORM].merge(uniform, on=on, suffixes=("", "_uniform"))
    both = both.assign(lead=both["delta_m"] - both["delta_m_uniform"])
    return both[["batch", "smto", "seed", "lead"]].dropna(ignore_index=True)


def _best(gains: pd.DataFrame, by: list[str]) -> tuple[Any, ...] | None:
    """The place with the largest mean validation Δm; None where none has a value at every seed."""
    values = gains.pivot(index=by, columns="seed", values="val_delta_m").mean(axis=1, skipna=False)
    if values.isna().all():
        return None
    best = values.idxmax()
    return best if isinstance(best, tuple) else (best,)
