"""Everything that is computed from run records: Δm and its chosen epoch, ranks, intervals, tests, gradient statistics.

    tidy(runs)                          one row per number that a record holds
    references(single_task_runs)        what Δm is measured against
    delta_m(table, references, tasks)   the mean gain over the single-task models, per run, split and epoch
    selected(runs, references, tasks)   one row per run: test values at the epoch that validation chose
    paired(selected)                    differences to the uniform loss, seed by seed, with intervals

Records hold raw metrics only, so every number here can be had again under another rule. All gains are in percent and
higher is better. An interval always treats the seeds as the sample: it says how much another draw of seeds would move
the number, and nothing about other data sets or other hyperparameters.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

RUN = ["problem", "smto", "config", "seed"]  # what tells one run from another in a table
SPLITS = ("val", "test")


# -- from records to tables --------------------------------------------------------------------------------------------


def configuration(config: Any) -> str:
    """What a configuration holds besides its seed, as one line of JSON: runs that share it differ by seed only."""
    settings = {name: value for name, value in config.settings.items() if name != "seed"}
    return json.dumps(settings, sort_keys=True, separators=(",", ":"))


def tidy(runs: Iterable[Any]) -> pd.DataFrame:
    """One row per stored metric: problem, smto, config, seed, split, epoch (from 0), task, metric, value.

    What a record holds as None (not finite) becomes NaN.
    """
    rows = []
    for run in runs:
        key = run_key(run)
        for epoch, record in enumerate(run.history):
            for split in SPLITS:
                for task, values in getattr(record, split).items():
                    for metric, value in values.items():
                        rows.append((*key, split, epoch, task, metric, _number(value)))
    return pd.DataFrame(rows, columns=[*RUN, "split", "epoch", "task", "metric", "value"])


def setting(config: str, name: str) -> Any:
    """One setting out of the column `config` of a table, e.g. setting(row.config, "lr")."""
    return json.loads(config)[name]


def run_key(run: Any) -> tuple[str, str, str, int]:
    """What tells a run from another in a table: the columns `RUN`."""
    return run.config.problem, run.config.smto, configuration(run.config), run.config.seed


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


# -- Δm ----------------------------------------------------------------------------------------------------------------


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


def references(
    single_task_runs: Iterable[Any],
    tasks: Sequence[Any],
    test_rule: Literal["own_epoch", "best_test"] = "own_epoch",
) -> pd.DataFrame:
    """What each metric is measured against: the mean over seeds of single-task models, chosen on validation.

    Per metric: each run is read at the epoch where that metric was best on validation; the configuration with the best
    mean there over the seeds that all configurations have is chosen; its mean over all its seeds is the reference.

    Args:
        single_task_runs: of one or several configurations per task.
        tasks: with `.name` and `.metrics: {name: .higher_is_better}`.
        test_rule: "own_epoch" reads the test value at the metric's own best validation epoch, as the paper describes.
            "best_test" is the released evaluation: the best test value over the epochs chosen by any metric of the
            task, which lets test data choose (D11). They differ only for tasks with several metrics.

    Returns:
        Index (split, task, metric); columns value, n (seeds), config.

    Raises:
        ValueError: a task has no run, its configurations share no seed, or a reference cannot be divided by.
    """
    table = tidy(single_task_runs)
    rows = []
    for task in tasks:
        of_task = table[table.task == task.name]
        if of_task.empty:
            raise ValueError(
                f"no single-task run of {task.name!r}: Δm has nothing to be measured against. Train it first."
            )
        runs = [_single_task_run(run, task, test_rule) for _, run in of_task.groupby(RUN, sort=False)]
        for metric, definition in task.metrics.items():
            sign = 1.0 if definition.higher_is_better else -1.0
            scores = pd.DataFrame([{**run[metric], "config": run["config"], "seed": run["seed"]} for run in runs])
            config = _best_configuration(scores.assign(score=sign * scores["val"]), task.name)
            chosen = scores[scores.config == config]
            for split in SPLITS:
                value = chosen[split].mean(skipna=False)
                if not (np.isfinite(value) and value > 0):
                    raise ValueError(
                        f"the {split} reference of {task.name} {metric} is {value}: no gain can be relative to it. "
                        "Look at the single-task runs."
                    )
                rows.append((split, task.name, metric, value, len(chosen), config))
    columns = ["split", "task", "metric", "value", "n", "config"]
    return pd.DataFrame(rows, columns=columns).set_index(["split", "task", "metric"])


def _single_task_run(run: pd.DataFrame, task: Any, test_rule: str) -> dict[str, Any]:
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


def _best_configuration(scores: pd.DataFrame, name: str) -> str:
    """The configuration with the largest mean score over the seeds that all configurations have; NaN never wins."""
    seeds = set.intersection(*(set(group.seed) for _, group in scores.groupby("config")))
    if not seeds:
        raise ValueError(f"{name}: the configurations to choose from share no seed, so their means cannot be compared.")
    common = scores[scores.seed.isin(seeds)]
    means = common.groupby("config", sort=False)["score"].apply(lambda score: score.mean(skipna=False))
    if means.isna().all():
        raise ValueError(f"{name}: every configuration diverged at some seed; none can be chosen.")
    return str(means.idxmax())


def relative_changes(table: pd.DataFrame, references: pd.DataFrame, tasks: Sequence[Any]) -> pd.DataFrame:
    """Gain over the single-task reference per metric, in percent; higher is better whichever way the metric goes.

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
    reference = references["value"].unstack(["task", "metric"])[columns].loc[split].to_numpy()
    return 100 * signs * (values - reference) / reference


def delta_m(table: pd.DataFrame, references: pd.DataFrame, tasks: Sequence[Any]) -> pd.DataFrame:
    """Δm, the mean gain over the single-task models in percent (higher is better), per run, split and epoch.

        Δm = 100/K · Σ_k 1/|M_k| · Σ_{m ∈ M_k} s_m (M_m − M_m,st) / M_m,st

    Tasks count equally, and metrics equally within a task. A NaN in any metric makes Δm NaN.

    Returns:
        Index (problem, smto, config, seed, split, epoch); one column per task (its own mean gain) and delta_m.
    """
    changes = relative_changes(table, references, tasks)
    result = pd.DataFrame({task.name: changes[task.name].mean(axis=1, skipna=False) for task in tasks})
    return result.assign(delta_m=result.mean(axis=1, skipna=False))


def selected(
    runs: Sequence[Any],
    references: pd.DataFrame,
    tasks: Sequence[Any],
    split: Literal["test", "val"] = "test",
    rule: Literal["best_val_epoch", "last_epoch"] = "best_val_epoch",
) -> pd.DataFrame:
    """One row per run, read on the test split at the epoch that validation chose (`best_val_epoch` of validation Δm).

    Args:
        split: "val" reads validation at the same epoch: for choosing between runs, never for reporting them.
        rule: "last_epoch" reads the last completed epoch instead, as if there were no early stopping.

    Returns:
        problem, smto, config, seed, epoch; delta_m and one column per task, in percent, higher is better; where a task
        has several metrics, one column "task/metric" each; val_delta_m, what chose the epoch; diverged. A run that left
        no usable epoch has NaN throughout; one that diverged later keeps the best epoch that it completed.
    """
    table = tidy(runs)
    gains = delta_m(table, references, tasks)
    changes = relative_changes(table, references, tasks)
    names = [task.name for task in tasks]
    several = {f"{t.name}/{metric}": (t.name, metric) for t in tasks if len(t.metrics) > 1 for metric in t.metrics}
    by_run = dict(iter(gains["delta_m"].xs("val", level="split").groupby(RUN, sort=False)))
    rows = []
    for run in runs:
        key = run_key(run)
        val = by_run.get(key, pd.Series(dtype=float))
        position = best_val_epoch(val) if rule == "best_val_epoch" else len(val) - 1 if len(val) else None
        row: dict[str, Any] = dict(zip(RUN, key, strict=True)) | {"diverged": run.ended != "finished"}
        if position is not None:
            epoch = val.index.get_level_values("epoch")[position]
            at = (*key, split, epoch)
            row |= {"epoch": epoch, "val_delta_m": val.iloc[position], **gains.loc[at].to_dict()}
            row |= {column: changes.loc[at, pair] for column, pair in several.items()}
        rows.append(row)
    columns = [*RUN, "epoch", "delta_m", *names, *several, "val_delta_m", "diverged"]
    return pd.DataFrame(rows, columns=columns).astype({"epoch": "Int64"})


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


# -- how much of a result is luck or tuning ----------------------------------------------------------------------------


def optimism(runs: Sequence[Any], references: pd.DataFrame, tasks: Sequence[Any]) -> pd.DataFrame:
    """How much better a run looks on the split that chose its epoch: validation Δm − test Δm, in points.

    Each Δm is relative to the single-task models on the same split, whose own epochs validation chose, too. What is
    left holds two things: luck, and that one split is easier than the other, which depends on the task and so on where
    between the tasks a configuration stands. The latter is the same for all seeds of a configuration. So the part of
    it that is the luck of one run is measured against the other seeds:

        luck = optimism − mean optimism of the same configuration at the other seeds

    Its mean over all runs of a configuration is 0. Over the runs that validation *chose* it is what choosing adds.

    Returns:
        problem, smto, config, seed, epoch, val_delta_m, delta_m, optimism (> 0: it looks better on validation), luck
        (> 0: better than this configuration usually does; NaN for one seed).
    """
    table = selected(runs, references, tasks)[[*RUN, "epoch", "val_delta_m", "delta_m"]]
    table["optimism"] = table.val_delta_m - table.delta_m
    alike = table.groupby(["problem", "smto", "config"]).optimism
    others = (alike.transform("sum") - table.optimism) / (alike.transform("count") - 1).replace(0, math.nan)
    return table.assign(luck=table.optimism - others)


def lr_vs_seed(
    selected: pd.DataFrame,
    grids: Sequence[Sequence[float]] | None = None,
    column: str = "delta_m",
    level: float = 0.95,
    resamples: int = 9999,
) -> pd.DataFrame:
    """Does the choice of learning rates move the result more than the seed does? A row per method.

        ratio = sd over grids of the result of a grid / sd over seeds at the best learning rate

    The result of a grid is the mean over seeds at its best learning rate, the one with the best mean validation Δm. By
    default every learning rate is a grid of its own; with coarse grids of several, as in Xin et al. (2022,
    arXiv:2209.11379, who find 6 to 7), it is what the next one to tune would find. The interval is the percentile
    bootstrap over seeds, the same resampled seeds at every learning rate; with few seeds it is wide, and may reach ∞.

    Args:
        selected: of one problem; several learning rates per method, which differ in nothing else. Seeds that some
            learning rate lacks, or at which it diverged, are left out.
        grids: each the learning rates of one grid.

    Returns:
        Index smto; sd_lr and sd_seed (in the unit of the column), ratio, low, high, best_lr, lrs, seeds (how many).
        Methods with one learning rate are left out.

    Raises:
        ValueError: a learning rate of a grid was not run, or a method has two runs of one learning rate and seed.
    """
    table = selected.assign(lr=[setting(config, "lr") for config in selected.config])
    if table.duplicated(["smto", "lr", "seed"]).any() or table.problem.nunique() > 1:
        raise ValueError("several runs of one method, learning rate and seed; give those that differ in these only.")
    rows = {}
    for smto, runs in table.groupby("smto", sort=False):
        both = runs.pivot(index="seed", columns="lr", values=[column, "val_delta_m"]).dropna()
        values, scores, lrs = both[column].to_numpy(), both["val_delta_m"].to_numpy(), list(both[column])
        if len(lrs) < 2 or not len(values):
            continue
        if missing := [lr for grid in grids or [] for lr in grid if lr not in lrs]:
            raise ValueError(f"{smto}: no run with the learning rate {missing[0]:g}; there are {lrs}.")
        places = [[lrs.index(lr) for lr in grid] for grid in grids or [[lr] for lr in lrs]]
        best = int(scores.mean(axis=0).argmax())
        draws = np.random.default_rng(0).integers(len(values), size=(resamples, len(values)))
        over_lrs, over_seeds = _spreads(values, scores, places, best, np.vstack([np.arange(len(values)), draws]))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = over_lrs / over_seeds
        row = {"sd_lr": over_lrs[0], "sd_seed": over_seeds[0], "ratio": ratio[0], "low": math.nan, "high": math.nan}
        if len(values) > 1:
            row["low"], row["high"] = np.nanquantile(ratio[1:], [(1 - level) / 2, (1 + level) / 2], method="nearest")
        rows[smto] = row | {"best_lr": lrs[best], "lrs": len(lrs), "seeds": len(values)}
    columns = ["sd_lr", "sd_seed", "ratio", "low", "high", "best_lr", "lrs", "seeds"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("smto")


def lr_vs_seed_by_seed(selected: pd.DataFrame, column: str = "delta_m") -> pd.DataFrame:
    """The logarithm of `lr_vs_seed`'s ratio as one value per seed, so that a t interval over seeds holds the noise of
    both spreads.

        p_s = n · ln ratio − (n − 1) · ln ratio without seed s

    These are the jackknife's pseudo-values; a mean over seeds cannot be one, since a spread between seeds belongs to no
    single seed. Source: Miller 1968, "Jackknifing variances", Annals of Mathematical Statistics 39.

    Returns:
        smto, seed, log_ratio (> 0: learning rates move the result more). With fewer than three seeds there is no spread
        without one of them, and the table is empty.
    """
    whole = lr_vs_seed(selected, column=column, resamples=1)
    rows = []
    for smto, row in whole.iterrows():
        runs = selected[selected.smto == smto]
        counts = runs.dropna(subset=[column, "val_delta_m"]).groupby("seed").size()
        seeds = counts.index[counts == row.lrs]
        for seed in seeds if len(seeds) > 2 else ():
            rest = runs[runs.seed.isin(seeds) & (runs.seed != seed)]
            without = lr_vs_seed(rest, column=column, resamples=1).ratio[smto]
            with np.errstate(divide="ignore"):
                value = len(seeds) * np.log(row.ratio) - (len(seeds) - 1) * np.log(without)
            rows.append((smto, seed, float(value)))
    return pd.DataFrame(rows, columns=["smto", "seed", "log_ratio"])


def _spreads(
    values: np.ndarray, scores: np.ndarray, grids: Sequence[Sequence[int]], best: int, draws: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each draw of seeds [R, n]: the standard deviation over grids of what the best-scored learning rate of a grid
    gives, and that over seeds at the best learning rate. values, scores: [n, learning rates]. One seed has none."""
    drawn, means, score = values[draws], values[draws].mean(axis=1), scores[draws].mean(axis=1)
    row = np.arange(len(draws))
    results = [means[row, np.array(grid)[score[:, grid].argmax(axis=1)]] for grid in grids]
    over_seeds = drawn[:, :, best].std(axis=1, ddof=1) if values.shape[0] > 1 else np.full(len(draws), math.nan)
    return np.std(results, axis=0, ddof=1) if len(grids) > 1 else np.full(len(draws), math.nan), over_seeds


# -- tables over methods -----------------------------------------------------------------------------------------------


def _metric_columns(tasks: Sequence[Any]) -> dict[str, list[str]]:
    """The columns of `selected` that hold a task's metrics, by task."""
    return {t.name: [t.name] if len(t.metrics) == 1 else [f"{t.name}/{m}" for m in t.metrics] for t in tasks}


def mean_rank(selected: pd.DataFrame, tasks: Sequence[Any]) -> pd.Series:
    """Mean rank over tasks of each method's mean over seeds, 1 is best (lower is better); ties share their average.

    A task with several metrics counts once, with the mean of its ranks. A method without a value ranks last.
    """
    columns = _metric_columns(tasks)
    means = selected.groupby("smto", sort=False)[list(itertools.chain(*columns.values()))].mean()
    ranks = means.rank(ascending=False, method="average", na_option="bottom")
    return pd.DataFrame({task: ranks[names].mean(axis=1) for task, names in columns.items()}).mean(axis=1).rename("mr")


def task_statistics(selected: pd.DataFrame, tasks: Sequence[Any], as_released: bool = False) -> pd.DataFrame:
    """Spread over tasks of each method's gain (its mean over seeds), in percent: min, max, med, std, avg.

    std is that of the tasks themselves (not of a sample of tasks): divided by K. With `as_released`, med and std take
    the average in as one more value, as the paper's table does (D32).
    """
    means = selected.groupby("smto", sort=False)[[task.name for task in tasks]].mean()
    average = means.mean(axis=1)
    spread = means.assign(average=average) if as_released else means
    return pd.DataFrame(
        {
            "min": means.min(axis=1),
            "max": means.max(axis=1),
            "med": spread.median(axis=1),
            "std": spread.std(axis=1, ddof=0),
            "avg": average,
        }
    )


def over_tasks(selected: pd.DataFrame, tasks: Sequence[Any]) -> pd.DataFrame:
    """`selected` of one problem, and per run what tables give per method: min, max, med and std of its gains over the
    tasks (std divided by K), and mr, its mean rank over tasks among the methods with the same seed (1 is best)."""
    gains = selected[[task.name for task in tasks]]
    ranks = gains.groupby(selected.seed).rank(ascending=False, method="average", na_option="bottom")
    values = gains.to_numpy(dtype=float)
    return selected.assign(
        min=values.min(axis=1),
        max=values.max(axis=1),
        med=np.median(values, axis=1),
        std=values.std(axis=1),
        mr=ranks.mean(axis=1),
    )


# -- intervals and tests -----------------------------------------------------------------------------------------------


class Interval(NamedTuple):
    """A mean over seeds with its confidence interval."""

    mean: float
    low: float
    high: float
    n: int


def _finite(values: ArrayLike) -> np.ndarray:
    found = np.asarray(values, dtype=float)
    return found[np.isfinite(found)]


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Mean and t interval. Assumes independent values, about normal; NaN is left out. One value gives (−∞, ∞)."""
    sample = _finite(values)
    n = len(sample)
    if n == 0:
        return Interval(math.nan, -math.inf, math.inf, 0)
    mean = float(sample.mean())
    if n == 1:
        return Interval(mean, -math.inf, math.inf, 1)
    half = float(stats.t.ppf((1 + level) / 2, n - 1) * sample.std(ddof=1) / math.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def bootstrap_interval(values: ArrayLike, level: float = 0.95, resamples: int = 9999, seed: int = 0) -> Interval:
    """Mean and percentile bootstrap interval. Assumes no shape, but is too narrow for few values (below 8, say)."""
    sample = _finite(values)
    if len(sample) < 2:
        return t_interval(sample, level)
    drawn = np.random.default_rng(seed).choice(sample, (resamples, len(sample))).mean(axis=1)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(sample.mean()), float(low), float(high), len(sample))


def differences(selected: pd.DataFrame, baseline: str = "unit_scal", column: str = "delta_m") -> pd.DataFrame:
    """Each method minus the baseline, seed by seed: index seed, one column per method; NaN where either has no value.

    Pairs share initial weights and batch order, so what the seed does to both cancels.

    Raises:
        ValueError: more than one problem, several configurations of one method, or no baseline.
    """
    values = by_seed(selected, column)
    if baseline not in values:
        raise ValueError(f"no run of the baseline {baseline!r} among {', '.join(values)}: nothing to compare with.")
    return values.drop(columns=baseline).sub(values[baseline], axis=0)


def by_seed(selected: pd.DataFrame, column: str = "delta_m") -> pd.DataFrame:
    """One column of `selected` as a table: index seed, one column per method in the order of appearance.

    Raises:
        ValueError: more than one problem, or several configurations of one method.
    """
    if selected.problem.nunique() > 1:
        raise ValueError(f"one problem at a time, not {', '.join(sorted(selected.problem.unique()))}.")
    if selected.duplicated(["smto", "seed"]).any():
        several = selected[selected.duplicated(["smto", "seed"])].smto.unique()
        raise ValueError(f"several runs of {', '.join(several)} have the same seed; keep one configuration per method.")
    return selected.pivot(index="seed", columns="smto", values=column)[selected.smto.unique()].rename_axis(columns=None)


def paired(
    selected: pd.DataFrame,
    baseline: str = "unit_scal",
    column: str = "delta_m",
    level: float = 0.95,
    method: Literal["t", "bootstrap"] = "t",
) -> pd.DataFrame:
    """Mean difference to the baseline over the seeds that both have, with its interval.

    Assumes that the seeds are independent and, for "t", that their differences are about normal. Intervals are one per
    method: of fifteen 95 % intervals, one in a while misses.

    Returns:
        Index smto; mean, low, high (in the unit of the column) and n, the number of pairs.
    """
    interval = t_interval if method == "t" else bootstrap_interval
    table = differences(selected, baseline, column)
    rows = {smto: interval(table[smto], level)._asdict() for smto in table}
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(Interval._fields)).rename_axis("smto")


def tost(values: ArrayLike, margin: float) -> float:
    """Two one-sided t tests: the p-value of "the mean lies outside ±margin". Small means equal, within the margin.

    A difference that is not significant is no evidence of equality; this is. p < 0.05 exactly where the 90 % interval
    of the mean lies within the margin. NaN with fewer than two values.
    """
    sample = _finite(values)
    n = len(sample)
    if n < 2:
        return math.nan
    error = sample.std(ddof=1) / math.sqrt(n)
    if error == 0:
        return float(abs(sample.mean()) >= margin)
    below = stats.t.sf((sample.mean() + margin) / error, n - 1)  # of: the mean is at most −margin
    above = stats.t.cdf((sample.mean() - margin) / error, n - 1)  # of: the mean is at least +margin
    return float(max(below, above))


def equivalence(
    selected: pd.DataFrame, margin: float, baseline: str = "unit_scal", column: str = "delta_m"
) -> pd.DataFrame:
    """Is each method as good as the baseline, within ±margin? Two one-sided tests on the paired differences.

    Returns:
        Index smto; mean, low, high of the 90 % interval, n, and p (the smaller, the safer that they are equivalent).
    """
    table = differences(selected, baseline, column)
    return paired(selected, baseline, column, level=0.90).assign(p=[tost(table[smto], margin) for smto in table])


class Correlation(NamedTuple):
    """Spearman's rank correlation, its two-sided permutation p-value, and whether all permutations were tried."""

    rho: float
    p: float
    n: int
    exact: bool


def spearman(x: ArrayLike, y: ArrayLike, permutations: int = 9999, seed: int = 0) -> Correlation:
    """Rank correlation with a permutation test: all n! orders up to eight points, a seeded sample of orders beyond.

    Three points cannot give a p below 1/3, four none below 1/12, five none below 1/60 (both directions count).
    """
    pairs = np.column_stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)])
    ranks = stats.rankdata(pairs[np.isfinite(pairs).all(axis=1)], axis=0)
    n = len(ranks)
    if n < 3 or (np.ptp(ranks, axis=0) == 0).any():
        return Correlation(math.nan, math.nan, n, True)
    a, b = ((ranks - ranks.mean(axis=0)) / (ranks.std(axis=0) * math.sqrt(n))).T
    rho = float(a @ b)
    exact = n <= 8
    if exact:
        orders = np.array(list(itertools.permutations(range(n))))
    else:
        orders = np.random.default_rng(seed).permuted(np.tile(np.arange(n), (permutations, 1)), axis=1)
    as_extreme = np.abs(b[orders] @ a) >= abs(rho) - 1e-12
    p = as_extreme.mean() if exact else (as_extreme.sum() + 1) / (permutations + 1)
    return Correlation(rho, float(p), n, exact)


# -- how the task gradients lie ----------------------------------------------------------------------------------------


def cosine_to_mean(gramian: np.ndarray) -> float:
    """The paper's metric C: the mean cosine between each task's gradient and their average. NaN if one of them is zero.

        C = 1/K · Σ_k ⟨g_k, ḡ⟩ / (|g_k| |ḡ|)      ḡ = 1/K · Σ_k g_k

    Unrelated (orthogonal) gradients of equal length have C = 1/√K, so it falls with the number of tasks alone; and it
    falls when the lengths differ (D29).
    """
    gramian = np.asarray(gramian, dtype=float)
    norms = np.sqrt(gramian.diagonal())
    to_mean, mean_norm = gramian.mean(axis=1), math.sqrt(max(gramian.mean(), 0.0))
    if (norms == 0).any() or mean_norm <= 1e-12 * norms.max():
        return math.nan
    return float((to_mean / (norms * mean_norm)).mean())


def pairwise_cosine(gramian: np.ndarray) -> float:
    """Mean cosine over all pairs of tasks: 0 for unrelated gradients whatever K and the lengths. NaN if one is zero."""
    gramian = np.asarray(gramian, dtype=float)
    norms = np.sqrt(gramian.diagonal())
    if (norms == 0).any() or len(gramian) < 2:
        return math.nan
    cosines = gramian / np.outer(norms, norms)
    return float(cosines[np.triu_indices(len(gramian), 1)].mean())


def cosine_floor(num_tasks: int) -> float:
    """C of unrelated gradients of equal length: 1/√K."""
    return 1 / math.sqrt(num_tasks)


def normalised_cosine(cosine: ArrayLike, num_tasks: int) -> np.ndarray:
    """C with the number of tasks taken out: (K C² − 1) / (K − 1).

    For gradients of equal length with one common pairwise cosine κ, C = √((1 + (K − 1) κ) / K), and this gives κ back.
    """
    return (num_tasks * np.asarray(cosine, dtype=float) ** 2 - 1) / (num_tasks - 1)


def gradient_statistics(runs: Iterable[Any]) -> pd.DataFrame:
    """What the records say of the task gradients: one row per run, epoch and space ("features", "parameters").

    Returns:
        problem, smto, config, seed, epoch, progress (percent of training), space, num_tasks, cosine_to_mean,
        normalised_cosine, pairwise_cosine, norm_ratio (longest over shortest).
    """
    rows = []
    for run in runs:
        epochs = len(run.history)
        for epoch, record in enumerate(run.history):
            for space, found in record.gradients.items():
                c, tasks = _number(found.cosine_to_mean), len(found.norms)
                rows.append(
                    dict(zip(RUN, run_key(run), strict=True))
                    | {"epoch": epoch, "progress": 100 * epoch / max(epochs - 1, 1), "space": space, "num_tasks": tasks}
                    | {"cosine_to_mean": c, "normalised_cosine": float(normalised_cosine(c, tasks))}
                    | {"pairwise_cosine": _number(found.pairwise_cosine), "norm_ratio": _number(found.norm_ratio)}
                )
    statistics = ["cosine_to_mean", "normalised_cosine", "pairwise_cosine", "norm_ratio"]
    return pd.DataFrame(rows, columns=[*RUN, "epoch", "progress", "space", "num_tasks", *statistics])


# -- the weights that a method gave ------------------------------------------------------------------------------------


Which = Literal["logged", "applied"]


def trajectories(runs: Iterable[Any], which: Which = "logged") -> pd.DataFrame:
    """Weights per epoch, normalised to sum 1 over tasks, for the methods that have weights.

    Args:
        which: "logged" are the weights that the paper logs: of Nash-MTL those before its clip, of IMTL the balancing
            ones without the learnt scales (D25), of all others what they put on the gradients of the shared parameters.
            "applied" is the latter for every method.

    Returns:
        problem, smto, config, seed, epoch, task, weight (epoch mean of the raw weight over the sum of those means).
    """
    rows = []
    for run in runs:
        for epoch, record in enumerate(run.history):
            weights = np.array(epoch_weights(run.config.smto, record, which))
            if not np.isfinite(weights).all() or not weights.sum():
                continue
            for task, weight in zip(record.val, weights / weights.sum(), strict=True):
                rows.append((*run_key(run), epoch, task, weight))
    return pd.DataFrame(rows, columns=[*RUN, "epoch", "task", "weight"])


def epoch_weights(smto: str, record: Any, which: Which = "logged") -> list[float]:
    """A method's weights in one epoch, mean over its steps, as given [K]; `which` as for `trajectories`."""
    values = record.weights
    if which == "logged" and smto == "nash_mtl":
        values = record.head_weights
    elif which == "logged" and smto == "imtl":
        values = [record.diagnostics.get(f"alpha_{k}") for k in range(len(values))]
    return [_number(value) for value in values]


def distance_from_equal(runs: Iterable[Any], which: Which = "logged") -> pd.DataFrame:
    """How far the weights are from equal, per run and epoch: |w₁ − 1/K| of the first task's normalised weight.

    Returns:
        problem, smto, config, seed, epoch, distance; with two tasks 0 is the uniform loss and ½ is a single task.
    """
    weights = trajectories(runs, which)
    share = 1 / weights.groupby([*RUN, "epoch"])["task"].transform("size")
    first = weights.groupby([*RUN, "epoch"]).cumcount() == 0
    return weights[first].assign(distance=(weights.weight - share).abs()[first]).drop(columns=["task", "weight"])


def flags_in_words(runs: Iterable[Any]) -> str:
    """How often the edges of methods were met (a guard, a failed solve, a task without gradient, …), as a sentence."""
    counts: dict[tuple[str, str], int] = {}
    for run in runs:
        for epoch in run.history:
            for flag, count in epoch.flags.items():
                counts[run.config.smto, flag] = counts.get((run.config.smto, flag), 0) + count
    found = [f"{smto}: {flag} in {count:,} steps" for (smto, flag), count in sorted(counts.items())]
    return f"Flags raised by methods: {'; '.join(found)}." if found else "No method raised a flag in any step."


def ema(values: ArrayLike, factor: float = 0.9) -> np.ndarray:
    """Exponential moving average over the first axis: m_0 = w_0, m_e = factor · m_{e−1} + (1 − factor) · w_e."""
    result = np.array(values, dtype=float)
    for e in range(1, len(result)):
        result[e] = factor * result[e - 1] + (1 - factor) * result[e]
    return result


def fixed_weights(run: Any, factor: float = 0.9) -> Mapping[str, float]:
    """The weights that a run settled on, as the paper extracts them: EMA of the normalised epoch means, last epoch.

    Raises:
        ValueError: the method has no weights.
    """
    weights = trajectories([run])
    if weights.empty:
        raise ValueError(f"{run.config.smto} gives no weights, so none can be taken from it.")
    last = ema(weights.pivot(index="epoch", columns="task", values="weight")[list(weights.task.unique())], factor)[-1]
    return dict(zip(weights.task.unique(), (last / last.sum()).tolist(), strict=True))


def diagnostics(runs: Iterable[Any]) -> pd.DataFrame:
    """What the methods reported of themselves, epoch means: problem, smto, config, seed, epoch, name, value."""
    rows = [
        (*run_key(run), epoch, name, _number(value))
        for run in runs
        for epoch, record in enumerate(run.history)
        for name, value in record.diagnostics.items()
    ]
    return pd.DataFrame(rows, columns=[*RUN, "epoch", "name", "value"])


def per_run(runs: Sequence[Any], space: str = "parameters") -> pd.DataFrame:
    """One row per run of what the claims on weights and gradients ask: means over the epochs of training.

    Returns:
        problem, smto, config, seed; weight_distance (mean |w₁ − 1/K|, NaN without weights); num_tasks, cosine_to_mean,
        pairwise_cosine and norm_ratio in the given space.
    """
    keys = pd.DataFrame([run_key(run) for run in runs], columns=RUN)
    distance = distance_from_equal(runs).groupby(RUN)["distance"].mean().rename("weight_distance").reset_index()
    gradients = gradient_statistics(runs)
    columns = ["num_tasks", "cosine_to_mean", "pairwise_cosine", "norm_ratio"]
    gradients = gradients[gradients.space == space].groupby(RUN)[columns].mean().reset_index()
    return keys.merge(distance, on=RUN, how="left").merge(gradients, on=RUN, how="left")
