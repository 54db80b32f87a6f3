"""Δm from anyone's numbers, with the error of what it is measured against: `delta_m table.csv`.

A row per run, a column per metric; an arrow says which way is good, and a slash joins metrics of one task:

    method,  seed, seg/mIoU ↑, seg/accuracy ↑, depth ↓
    single,  1,    .521,       .742,
    single,  1,    ,           ,               .0164
    sum,     1,    .518,       .739,           .0171

Rows of "single" (`--single NAME`) are single-task models, with the metrics that they have; without a column "seed" rows
count as seeds in their order. (`up` and `down` do for the arrows.)
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from mtl_core.names import nearest
from mtl_core.tasks import Metric, Task
from mtl_study.analysis import delta, inference
from mtl_study.words import listed, number

SIGNS = {"↑": True, "up": True, "↓": False, "down": False}
TAKEN = (
    "delta_m",
    "low",
    "high",
    "n",
    "method",
    "smto",
    "seed",
    "problem",
    "config",
    "split",
    "epoch",
)  # columns of ours


class BadTable(ValueError):
    """A table that Δm cannot be computed from."""


def tasks_of(columns: list[str]) -> dict[str, tuple[str, str, bool]]:
    """What the columns of metrics mean: task, metric, and whether higher is better."""
    found: dict[str, tuple[str, str, bool]] = {}
    for column in columns:
        name, _, sign = column.strip().rpartition(" ")
        if sign not in SIGNS or not name:
            raise BadTable(f"column {column!r}: end it in ↑ (higher is better) or ↓, as 'accuracy ↑', or leave it out.")
        task, metric = (part.strip() for part in name.partition("/")[::2])
        if task in TAKEN:
            raise BadTable(
                f"column {column!r}: {task!r} means something else in the answer; give the task another name."
            )
        if twice := [other for other, of in found.items() if of[:2] == (task, metric or task)]:
            raise BadTable(f"columns {twice[0]!r} and {column!r} are of one metric; keep one, or rename it.")
        found[column] = (task, metric or task, SIGNS[sign])
    if not found:
        raise BadTable("there is no column of a metric; expected method, seed and a column like 'accuracy ↑'.")
    return found


def gains(frame: pd.DataFrame, single: str = "single", level: float = 0.95) -> pd.DataFrame:
    """Δm of every method of a table.

    Args:
        frame: as above. single: how its single-task models are called.

    Returns:
        Index method; delta_m (mean over runs, in percent, higher is better); low, high: its t interval, in which the
        error of the single-task models is; n runs; one column per task. An interval needs two seeds that the method
        has in common with every single-task model.

    Raises:
        BadTable: what is missing, or is no number.
    """
    if "method" not in frame:
        raise BadTable(f"there is no column 'method'{nearest('method', list(map(str, frame.columns)))}.")
    if lacking := [str(i + 2) for i in np.flatnonzero(_empty(frame["method"]))]:
        raise BadTable(f"no method in row {', '.join(lacking)}.")
    names = frame["method"].astype(str).str.strip()
    if single not in set(names):
        raise BadTable(
            f"no row has the method {single!r}{nearest(single, sorted(set(names)))}; the single-task models, which Δm "
            f"is measured against, are called so (or as --single says). Methods: {', '.join(dict.fromkeys(names))}."
        )
    meaning = tasks_of([c for c in frame.columns if c not in ("method", "seed")])
    said = frame[list(meaning)]
    values = said.mask(said.map(pd.api.types.is_bool)).apply(pd.to_numeric, errors="coerce")  # True is no number
    if wrong := [f"{c!r}, row {i + 2}" for c in meaning for i in np.flatnonzero(values[c].isna() & ~_empty(frame[c]))]:
        raise BadTable(f"not a number: {'; '.join(wrong)}.")
    if not 0 < level < 1:
        raise BadTable(f"level = {level} of the intervals: expected a share between 0 and 1, as 0.95.")
    if "seed" in frame and (lacking := [str(i + 2) for i in np.flatnonzero(_empty(frame["seed"]))]):
        raise BadTable(f"no seed in row {', '.join(lacking)}; without that column rows are seeds in their order.")
    below = values[names == single] <= 0
    infinite = np.isinf(values)
    for words, where in (("infinite", infinite), (f"0 or less in a row of {single!r}; Δm is percent of it", below)):
        if wrong := [c for c in meaning if where[c].any()]:
            raise BadTable(f"{words}: {', '.join(map(repr, wrong))}.")
    seeds = frame["seed"].map(_seed) if "seed" in frame else frame.groupby(names, sort=False).cumcount() + 1
    long = values.rename(columns=meaning).assign(smto=names, seed=seeds.to_numpy()).set_index(["smto", "seed"])
    long.columns = pd.MultiIndex.from_tuples([key[:2] for key in long.columns], names=["task", "metric"])
    alone = long.loc[[single]].stack(["task", "metric"], future_stack=True).dropna().droplevel("smto").rename("value")
    if twice := [f"{task}/{m} (seed {seed})" for task, m, seed in _twice(alone, ["task", "metric", "seed"])]:
        raise BadTable(f"twice in rows of {single!r}: {', '.join(twice)}.")
    tasks = _tasks(meaning)
    pairs = [(task.name, metric) for task in tasks for metric in task.metrics]
    if missing := [f"{t}/{m}" if t != m else t for t, m in pairs if (t, m) not in set(alone.index.droplevel("seed"))]:
        raise BadTable(f"no row of {single!r} has a value of {', '.join(missing)}.")
    methods = long.drop(index=single, level="smto")
    if methods.empty:
        raise BadTable(f"all rows are of {single!r}; there is no method to compare with the single-task models.")
    if methods.isna().any(axis=None):
        gaps = [f"{smto} (seed {seed})" for smto, seed in methods.index[methods.isna().any(axis=1)]]
        raise BadTable(f"every method needs all metrics; empty cells: {', '.join(gaps)}.")
    if twice := [f"{smto} (seed {seed})" for smto, seed in _twice(methods, ["smto", "seed"])]:
        raise BadTable(f"twice in the table: {', '.join(twice)}.")
    return _measured(methods, alone, tasks, level)


def _seed(value: Any) -> str:
    """A seed in one spelling: " s1" is "s1", and 1.0 is 1, also in a column with texts."""
    text = str(value).strip()
    try:
        number = Decimal(text)
    except InvalidOperation:
        return text
    return f"{number.normalize():f}" if number.is_finite() and abs(number.adjusted()) < 40 else text


def _empty(column: pd.Series) -> pd.Series:
    return column.isna() | column.astype(str).str.strip().isin(["", "-", "–"])


def _twice(rows: pd.DataFrame | pd.Series, levels: list[str]) -> list[tuple[Any, ...]]:
    index = rows.index.reorder_levels(levels)
    return list(index[index.duplicated()])


def _tasks(meaning: dict[str, tuple[str, str, bool]]) -> list[Task]:
    found: dict[str, dict[str, Metric]] = {}
    for task, metric, higher in meaning.values():
        found.setdefault(task, {})[metric] = Metric(higher, "", _never, _never)
    return [Task(name, name, "gaussian", _never, metrics) for name, metrics in found.items()]


def _never(*_: Any) -> Tensor:
    raise NotImplementedError("a table has values, and nothing to compute them from")


def _measured(methods: pd.DataFrame, alone: pd.Series, tasks: list[Task], level: float) -> pd.DataFrame:
    values = pd.concat({"test": alone}, names=["split"]).reorder_levels(["split", "task", "metric", "seed"]).to_frame()
    baselines = values.groupby(level=["split", "task", "metric"]).mean()
    rows = methods.stack(["task", "metric"], future_stack=True).rename("value").reset_index()
    table = rows.assign(problem="table", config="", split="test", epoch=0)
    changes = delta.relative_changes(table, baselines, tasks)
    selected = delta.delta_m(table, baselines, tasks)
    several = [(task.name, m) for task in tasks if len(task.metrics) > 1 for m in task.metrics]
    for task, metric in several:
        selected[f"{task}/{metric}"] = changes[task, metric]
    selected = delta.with_levels(selected.reset_index(), values, tasks)
    found = {}
    for smto in dict.fromkeys(methods.index.get_level_values("smto")):
        runs = selected[selected.smto == smto]
        interval = inference.t_interval(runs[delta.LEVEL + "delta_m"], level)
        found[smto] = {"delta_m": runs.delta_m.mean(), "low": interval.low, "high": interval.high, "n": len(runs)}
        found[smto] |= {task.name: runs[task.name].mean() for task in tasks}
    return pd.DataFrame.from_dict(found, orient="index").rename_axis("method")


def read(file: Path) -> pd.DataFrame:
    """A table from a file of comma-separated values.

    Raises:
        BadTable: other separators, or two columns of one name.
    """
    (names,) = pd.read_csv(file, header=None, nrows=1, skipinitialspace=True, dtype=str, na_filter=False).to_numpy()
    if len(names) == 1 and (wrong := [sign for sign in ";\t" if sign in names[0]]):
        raise BadTable(f"columns are separated by {wrong[0]!r}; expected commas.")
    if twice := [name for name, count in Counter(map(str.strip, names)).items() if count > 1]:
        raise BadTable(f"two columns have one name: {', '.join(map(repr, twice))}.")
    return pd.read_csv(file, skipinitialspace=True)


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns its exit code: 2 where the table is refused."""
    parser = argparse.ArgumentParser(
        prog="delta_m",
        description="Δm with its interval, from a table of runs.",
        epilog=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", help="a CSV file: method, seed, and a column per metric, e.g. 'accuracy ↑'")
    parser.add_argument("--single", default="single", help="how the single-task models are called in it")
    parser.add_argument("--level", type=float, default=0.95, help="of the intervals")
    given = parser.parse_args(arguments)
    try:
        table = gains(read(Path(given.table).expanduser()), given.single, given.level)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError, BadTable) as error:
        print(f"{given.table}: {error}", file=sys.stderr)
        return 2
    intervals = [f"[{number(low, 2)}, {number(high, 2)}]" for low, high in zip(table.low, table.high, strict=True)]
    shown = table.assign(**{f"{100 * given.level:g} % interval": intervals}).drop(columns=["low", "high"])
    print(shown.to_string(float_format=lambda x: number(x, 2)))
    if alone := list(table.index[~np.isfinite(table.high)]):
        print(f"No interval: {listed(alone)}. It takes two seeds that the method shares with every single-task model.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
