"""Δm, the mean gain over single-task models, and the epoch at which a run is read.

    single_task_baselines(runs, tasks)   what Δm is measured against
    delta_m(table, baselines, tasks)     the mean gain over the single-task models, per run, split and epoch
    selected(runs, baselines, tasks)     one row per run: test values at the epoch that validation chose
    with_levels(selected, values, tasks) with a second column per gain: the seed error of the single-task models added

All gains are in percent and higher is better.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mtl_core.tasks import Task
from mtl_study.analysis.frames import RUN, SPLITS, configuration, run_key, tidy
from mtl_study.experiments.runs import Run


def best_val_epoch(values: ArrayLike) -> int | None:
    """The rule that chooses an epoch: the largest validation value, the first of several; NaN never wins.

    Args:
        values: one per epoch [E], higher is better.

    Returns:
        The epoch from 0, or None where no value is finite.
    """
    found = np.asarray(values, dtype=float)
    found = np.where(np.isfinite(found), found, -np.inf)
    return int(found.argmax()) if found.size and found.max() > -np.inf else None


LEVEL = "level "  # the columns of `with_levels` begin with it
AT_ONCE = 500  # runs whose epochs are held as a table; of the others only the chosen epoch's values are


def _some_at_a_time(runs: Sequence[Run]) -> Iterator[Sequence[Run]]:
    for start in range(0, len(runs), AT_ONCE):
        yield runs[start : start + AT_ONCE]


TestRule = Literal["own_epoch", "best_test"]


def single_task_values(
    single_task_runs: Iterable[Run],
    tasks: Sequence[Task],
    test_rule: TestRule = "own_epoch",
    chosen: Mapping[tuple[str, str], str] | None = None,
) -> pd.DataFrame:
    """What the single-task models of the chosen configurations reach, seed by seed; their means are the baselines.

    Per metric: each run is read at the epoch where that metric was best on validation; the configuration with the best
    mean there over the seeds that all configurations have is chosen. A configuration that diverged at some seed before
    its first epoch was over is not chosen, and a warning says so.

    Args:
        single_task_runs: of one or several configurations per task.
        test_rule: "own_epoch" reads the test value at the metric's own best validation epoch, as the paper describes.
            "best_test" is the released evaluation: the best test value over the epochs chosen by any metric of the
            task, which lets test data choose (D11). They differ only for tasks with several metrics.
        chosen: the configuration of (task, metric) where somebody has chosen it already, as the paper did.

    Returns:
        Index (split, task, metric, seed); columns value, config.

    Raises:
        ValueError: a task has no run, its configurations share no seed, or all of them diverged at some seed.
    """
    single_task_runs = list(single_task_runs)
    read: dict[str, list[dict[str, Any]]] = {task.name: [] for task in tasks}
    for table in map(tidy, _some_at_a_time(single_task_runs)):
        for task in tasks:
            of_task = table[table.task == task.name]
            read[task.name] += [_single_task_run(run, task, test_rule) for _, run in of_task.groupby(RUN, sort=False)]
    empty = [run for run in single_task_runs if not run.history]  # diverged at once: no row in any table
    rows = []
    for task in tasks:
        diverged = [run for run in empty if run.config.definition.task_names == (task.name,)]
        if not read[task.name] and not diverged:
            raise ValueError(
                f"no single-task run of {task.name!r}: Δm has nothing to be measured against. Train it first."
            )
        runs = read[task.name] + [_without_value(run, task) for run in diverged]
        if diverged:
            found = ", ".join(f"{run.config.lr:g} (seed {run.config.seed})" for run in diverged)
            warnings.warn(
                f"{task.name} alone {diverged[0].ended.split(',')[0]} at learning rate {found}: this setting is not "
                "chosen as what Δm is measured against.",
                stacklevel=2,
            )
        for metric, definition in task.metrics.items():
            sign = 1.0 if definition.higher_is_better else -1.0
            scores = pd.DataFrame([{**run[metric], "config": run["config"], "seed": run["seed"]} for run in runs])
            config = (chosen or {}).get((task.name, metric))
            if config is None:
                config = _best_configuration(scores.assign(score=sign * scores["val"]), task.name)
            for split in SPLITS:
                of_chosen = scores[scores.config == config]
                rows += [(split, task.name, metric, r.seed, getattr(r, split), config) for r in of_chosen.itertuples()]
    columns = ["split", "task", "metric", "seed", "value", "config"]
    return pd.DataFrame(rows, columns=columns).set_index(["split", "task", "metric", "seed"])


def single_task_baselines(
    single_task_runs: Iterable[Run],
    tasks: Sequence[Task],
    test_rule: TestRule = "own_epoch",
    chosen: Mapping[tuple[str, str], str] | None = None,
) -> pd.DataFrame:
    """What each metric is measured against: the mean over seeds of single-task models (`single_task_values`).

    Returns:
        Index (split, task, metric); columns value, n (seeds), config.

    Raises:
        ValueError: what `single_task_values` raises, or a baseline cannot be divided by.
    """
    values = single_task_values(single_task_runs, tasks, test_rule, chosen)
    keys = ["split", "task", "metric"]
    rows = []
    for (split, task, metric), of_metric in values.groupby(level=keys, sort=False):
        value = of_metric["value"].mean(skipna=False)
        if not (np.isfinite(value) and value > 0):
            raise ValueError(
                f"the {split} baseline of {task} {metric} is {value}: no gain can be relative to it. Look at the "
                "single-task runs."
            )
        rows.append((split, task, metric, value, len(of_metric), of_metric["config"].iloc[0]))
    return pd.DataFrame(rows, columns=[*keys, "value", "n", "config"]).set_index(keys)


def _single_task_run(run: pd.DataFrame, task: Task, test_rule: str) -> dict[str, Any]:
    """Validation and test value of each metric of one single-task run, at the metric's own best validation epoch."""
    values = run.pivot(index="epoch", columns=["metric", "split"], values="value")
    signs = {metric: 1.0 if m.higher_is_better else -1.0 for metric, m in task.metrics.items()}
    epochs = {metric: best_val_epoch(sign * values[metric, "val"]) for metric, sign in signs.items()}
    result: dict[str, Any] = {"config": run.config.iloc[0], "seed": run.seed.iloc[0]}
    for metric, sign in signs.items():
        epoch = epochs[metric]
        if epoch is None:
            result[metric] = {"val": math.nan, "test": math.nan}
            continue
        candidates = [epoch] if test_rule == "own_epoch" else [e for e in epochs.values() if e is not None]
        test = max(sign * values[metric, "test"].iloc[e] for e in candidates)
        result[metric] = {"val": values[metric, "val"].iloc[epoch], "test": sign * test}
    return result


def _without_value(run: Run, task: Task) -> dict[str, Any]:
    """The same of a run that diverged before its first epoch was over."""
    nothing = {"val": math.nan, "test": math.nan}
    return {"config": configuration(run.config), "seed": run.config.seed, **dict.fromkeys(task.metrics, nothing)}


def _best_configuration(scores: pd.DataFrame, name: str) -> str:
    """The configuration with the largest mean score over the seeds that all configurations have; NaN never wins. Of
    equals it is the one with most seeds, as that which a search has chosen, then the first."""
    seeds = set.intersection(*(set(group.seed) for _, group in scores.groupby("config")))
    if not seeds:
        raise ValueError(f"{name}: the configurations to choose from share no seed, so their means cannot be compared.")
    common = scores[scores.seed.isin(seeds)]
    means = common.groupby("config", sort=False)["score"].apply(lambda score: score.mean(skipna=False))
    if means.isna().all():
        raise ValueError(
            f"{name}: every configuration diverged at some seed; none can be chosen. Train it with a smaller learning "
            "rate."
        )
    best = means.index[means == means.max()]
    return str(scores[scores.config.isin(best)].groupby("config", sort=False).size().idxmax())


def relative_changes(table: pd.DataFrame, baselines: pd.DataFrame, tasks: Sequence[Task]) -> pd.DataFrame:
    """Gain over the single-task baseline per metric, in percent; higher is better whichever way the metric goes.

        100 · s · (M − M_st) / M_st      s = +1 where a higher metric is better, −1 where a lower one is

    Returns:
        Index (problem, smto, config, seed, split, epoch), columns (task, metric).

    Raises:
        ValueError: the table holds another problem's tasks.
    """
    pairs = [(task.name, metric) for task in tasks for metric in task.metrics]
    columns = pd.MultiIndex.from_tuples(pairs, names=["task", "metric"])
    found = set(zip(table.task, table.metric, strict=True))
    if not table.empty and found != set(pairs):
        raise ValueError(f"the runs have the metrics {sorted(found)}, the tasks {sorted(pairs)}: not the same problem.")
    values = table.set_index([*RUN, "split", "epoch", "task", "metric"])["value"].unstack(["task", "metric"])
    values = values.reindex(columns=columns)
    signs = np.array([1.0 if m.higher_is_better else -1.0 for task in tasks for m in task.metrics.values()])
    split = values.index.get_level_values("split")
    alone = baselines["value"].unstack(["task", "metric"])[columns].loc[split].to_numpy()
    return 100 * signs * (values - alone) / alone


def delta_m(table: pd.DataFrame, baselines: pd.DataFrame, tasks: Sequence[Task]) -> pd.DataFrame:
    """Δm, the mean gain over the single-task models in percent (higher is better), per run, split and epoch.

        Δm = 100/K · Σ_k 1/|M_k| · Σ_{m ∈ M_k} s_m (M_m − M_m,st) / M_m,st

    Tasks count equally, and metrics equally within a task. A NaN in any metric makes Δm NaN.

    Returns:
        Index (problem, smto, config, seed, split, epoch); one column per task (its own mean gain) and delta_m.
    """
    changes = relative_changes(table, baselines, tasks)
    result = pd.DataFrame({task.name: changes[task.name].mean(axis=1, skipna=False) for task in tasks})
    return result.assign(delta_m=result.mean(axis=1, skipna=False))


def selected(
    runs: Sequence[Run],
    baselines: pd.DataFrame,
    tasks: Sequence[Task],
    split: Literal["test", "val"] = "test",
    rule: Literal["best_val_epoch", "last_epoch"] = "best_val_epoch",
) -> pd.DataFrame:
    """One row per run, read on the test split at the epoch that validation chose (`best_val_epoch` of validation Δm).

    Args:
        split: "val" reads validation at the same epoch: for choosing between runs, never for reporting them.
        rule: "last_epoch" reads the last completed epoch instead, as if there were no early stopping.

    Returns:
        problem, smto, config, seed, epoch; delta_m and one column per task, in percent, higher is better; where a task
        has several metrics, one column "task/metric" each; val_delta_m, what chose the epoch; diverged; seconds, how
        long it took; machine, the kind it was made on. A run that left no usable epoch has NaN throughout; one that
        diverged later keeps the best epoch that it completed.
    """
    names = [task.name for task in tasks]
    several = {f"{t.name}/{metric}": (t.name, metric) for t in tasks if len(t.metrics) > 1 for metric in t.metrics}
    columns = [*RUN, "epoch", "delta_m", *names, *several, "val_delta_m", "diverged", "seconds", "machine"]
    rows: list[dict[str, Any]] = []
    for some in _some_at_a_time(runs):
        rows += _selected(some, baselines, tasks, split, rule, several)
    return pd.DataFrame(rows, columns=columns).astype({"epoch": "Int64"})


def _selected(
    runs: Sequence[Run],
    baselines: pd.DataFrame,
    tasks: Sequence[Task],
    split: str,
    rule: str,
    several: dict[str, tuple[str, str]],
) -> list[dict[str, Any]]:
    table = tidy(runs)
    gains = delta_m(table, baselines, tasks)
    changes = relative_changes(table, baselines, tasks)
    on_validation = gains["delta_m"][gains.index.get_level_values("split") == "val"].droplevel("split")
    by_run = dict(iter(on_validation.groupby(RUN, sort=False)))
    rows = []
    for run in runs:
        key = run_key(run)
        val = by_run.get(key, pd.Series(dtype=float))
        position = best_val_epoch(val) if rule == "best_val_epoch" else len(val) - 1 if len(val) else None
        row: dict[str, Any] = dict(zip(RUN, key, strict=True)) | {
            "diverged": run.diverged,
            "seconds": run.seconds,
            "machine": run.machine,
        }
        if position is not None:
            epoch = val.index.get_level_values("epoch")[position]
            at = (*key, split, epoch)
            row |= {"epoch": epoch, "val_delta_m": val.iloc[position], **gains.loc[at].to_dict()}
            row |= {column: changes.loc[at, pair] for column, pair in several.items()}
        rows.append(row)
    return rows


def with_levels(selected: pd.DataFrame, values: pd.DataFrame, tasks: Sequence[Task]) -> pd.DataFrame:
    """`selected`, with a column "level …" for every gain, whose spread over seeds holds the whole error of its level.

    All methods are measured against the same single-task models. What their seeds do to a gain is missing from its
    spread between a method's own seeds, and does not cancel where a gain is compared with a number. To first order, a
    baseline M that is off by δ moves a gain g of metric m by

        − (100 s + g) · δ / M        s = +1 where a higher metric is better, −1 where a lower one is

    So with δ_r, what the single-task model of seed r is off the mean of all, every seed gives its own gain plus what
    its own single-task models would have done to the mean gain. The mean stays; a t interval over seeds holds both
    errors, and whatever a seed does to both at once. Differences between methods need none of this.

    Args:
        selected: of one problem. values: `single_task_values` of its baselines.

    Returns:
        NaN at seeds that the baselines lack. Where fewer than two seeds are in both, the mean is put at one of
        them, which gives no interval.
    """
    alone = values["value"].xs("test", level="split").unstack("seed")  # [metrics, seeds]
    of_metric = {
        (f"{task.name}/{metric}" if len(task.metrics) > 1 else task.name): (
            1.0 if definition.higher_is_better else -1.0,
            alone.loc[(task.name, metric)].dropna(),
        )
        for task in tasks
        for metric, definition in task.metrics.items()
    }
    gains = list(dict.fromkeys(["delta_m", *(task.name for task in tasks), *of_metric]))
    seeds_alone = set.intersection(*(set(of_seed.index) for _, of_seed in of_metric.values()))
    result = selected.assign(**{LEVEL + column: math.nan for column in gains})
    for _, runs in selected.groupby(["smto", "config"], sort=False):
        known = runs[runs[gains].notna().all(axis=1)].set_index("seed")
        mean, both = known[gains].mean(), [seed for seed in known.index if seed in seeds_alone]
        if len(both) < 2:
            result.loc[runs.index[0], [LEVEL + column for column in gains]] = mean.to_numpy()
            continue
        moved = pd.DataFrame(index=both)
        for column, (sign, of_seed) in of_metric.items():
            off = of_seed[both] / of_seed.mean()
            share = math.sqrt(len(both) / len(of_seed))  # of its spread, as a mean over more seeds than these has
            moved[column] = -(100 * sign + mean[column]) * (off - off.mean()) * share
        for task in tasks:
            moved[task.name] = moved[[c for c in of_metric if c.split("/")[0] == task.name]].mean(axis=1)
        moved["delta_m"] = moved[[task.name for task in tasks]].mean(axis=1)
        own = known.loc[both, gains]
        own = (own - own.mean()) * math.sqrt(len(both) / len(known))
        rows = runs.index[runs.seed.isin(both)]
        levels = (mean + own + moved[gains]).loc[runs.seed[rows]]
        result.loc[rows, [LEVEL + column for column in gains]] = levels.to_numpy()
    return result


def best_configurations(selected: pd.DataFrame) -> pd.DataFrame:
    """The rows of each method's best configuration, per problem: the largest mean validation Δm over the seeds that all
    its configurations have. The search's own seeds stay among the rows (D12). Where every configuration diverged at
    some seed before its first epoch was over, it is the one with most seeds that did not: divergence is a result."""
    kept = []
    for (problem, smto), group in selected.groupby(["problem", "smto"], sort=False):
        found = group.groupby("config", sort=False)["val_delta_m"].agg(["count", "size"])
        if (found["count"] < found["size"]).all():
            best = found["count"].idxmax()
        else:
            best = _best_configuration(group.assign(score=group.val_delta_m), f"{problem}, {smto}")
        kept.append(group[group.config == best])
    return pd.concat(kept, ignore_index=True)
