"""Time to target: how long a method takes until it is as good as the uniform loss at its end.

    to_target(runs, baselines, tasks)        epochs, steps and seconds until a run has reached its target
    reaches(times), costs(runs)              by method: the median of that, and what an epoch costs
    half_way(times)                          who reaches it in half of the runs, and how soon
    ahead(runs, baselines, tasks, share)     the lead over the uniform loss's end with only a share of its epochs
    profile(times), scores(times)            over problems: who is how often within a factor τ of the fastest
    one_setting(times)                       the same with one setting for all problems; scores_in_one_setting(times)

The target of a run is the best validation Δm of the uniform loss with the same seed and the same settings: learning
rate, dropout, weight decay, batch, and all else but the method and its own options. So a method that is handed a larger
step is compared with a sum that is handed it, too. Validation says when a target is reached, as it says which epoch of
a run counts. `ahead` turns the question round, so that no run is without an answer: it stops a method early and reads
both on test data.

Source: Dolan and Moré 2002, "Benchmarking optimization software with performance profiles", Mathematical Programming
91; Dahl et al. 2023, arXiv:2306.07179 (AlgoPerf), score training algorithms so, by the time to a target that a
reference reaches, with the area under the profile up to a factor of 4.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from mtl_core.tasks import Task
from mtl_study.analysis import delta, frames
from mtl_study.analysis.frames import RUN, UNIFORM
from mtl_study.experiments.runs import Run

WIDEST = 4.0  # AlgoPerf's: who takes four times as long as the fastest gets nothing for it
SETTING = ("lr", "dropout", "weight_decay", "options")  # what "one setting for all problems" holds fixed

Unit = Literal["epochs", "steps", "seconds"]


def seconds_per_epoch(runs: Iterable[Run]) -> dict[str, float]:
    """By configuration: the uniform loss's, the median over its runs, times what the configuration costs (`costs`), so
    that one run on a busy machine does not count."""
    table = frames.paces(runs)
    unit = table[table.smto == UNIFORM].seconds.median()
    return {str(config): float(times * unit) for config, times in table.groupby("config").times.median().items()}


def costs(runs: Iterable[Run]) -> pd.Series:
    """By method: an epoch in epochs of the uniform loss at the same seed, the median over the runs, as recorded."""
    return frames.paces(runs).groupby("smto").times.median()


def reaches(times: pd.DataFrame) -> pd.Series:
    """Median over the seeds of each method's share of the uniform loss's epochs to its best; ∞: not reached.

    Args:
        times: of `to_target`, one problem.
    """
    return times.groupby("smto")["share"].quantile(0.5, interpolation="higher")


def to_target(
    runs: Sequence[Run],
    baselines: pd.DataFrame,
    tasks: Sequence[Task],
    target: Literal["equal settings", "best settings"] = "equal settings",
) -> pd.DataFrame:
    """When each run has reached its target. One row per run of one problem, those of the uniform loss among them.

    Args:
        target: "best settings" takes for every run the uniform loss in the configuration that has the best mean
            validation Δm: what a method must reach that brings its own settings along.

    Returns:
        problem, smto, config, seed, lr, target (validation Δm in percent; NaN where the uniform loss has no such run);
        epochs (from 1: the first with at least the target), steps, seconds, each ∞ where the run ends without it;
        share: those epochs over the ones that the uniform loss takes to its own best; steps and seconds likewise as
        share_of_steps and share_of_seconds.

    Raises:
        ValueError: there is no run of the uniform loss.
    """
    uniform = [run for run in runs if run.config.smto == UNIFORM]
    if not uniform:
        raise ValueError("no run of 'unit_scal' among these: there is nothing to reach.")
    gains = delta.delta_m(frames.tidy(runs), baselines, tasks)["delta_m"].xs("val", level="split")
    curves = {key: curve.to_numpy() for key, curve in gains.groupby(RUN, sort=False)}
    paces = seconds_per_epoch(runs)
    best = None
    if target == "best settings":
        best = delta.best_configurations(delta.selected(uniform, baselines, tasks))["config"].iloc[0]
    references = {
        (_alike(run) if best is None else "", run.config.seed): run
        for run in uniform
        if best in (None, frames.configuration(run.config))
    }
    rows = []
    for run in runs:
        reference = references.get((_alike(run) if best is None else "", run.config.seed))
        row: dict[str, Any] = dict(zip(RUN, frames.run_key(run), strict=True)) | {"lr": run.config.lr}
        if reference is not None and (its := _best(curves, reference)):
            wanted, its_epochs = its
            own, theirs = _costs(run, paces), _costs(reference, paces)
            epochs = _first(curves.get(frames.run_key(run), np.array([])), wanted)
            row |= {"target": wanted, "epochs": epochs, "share": epochs / its_epochs}
            for unit in ("steps", "seconds"):
                row[unit] = epochs * own[unit]
                row[f"share_of_{unit}"] = row[unit] / (its_epochs * theirs[unit])
        rows.append(row)
    shares = ["share", "share_of_steps", "share_of_seconds"]
    return pd.DataFrame(rows, columns=[*RUN, "lr", "target", "epochs", "steps", "seconds", *shares])


def half_way(times: pd.DataFrame) -> pd.DataFrame:
    """The methods that reach the target in at least half of their runs, the fastest first, and after which share of the
    uniform loss's epochs: the upper median over runs.

    Args:
        times: of `to_target`, one problem; rows of the uniform loss and those without a target are left out.

    Returns:
        Index smto; share.
    """
    known = times[times.target.notna() & (times.smto != UNIFORM)]
    shares = known.groupby("smto")[["share"]].quantile(0.5, interpolation="higher")
    return shares[np.isfinite(shares.share)].sort_values("share")


def ahead(
    runs: Sequence[Run],
    baselines: pd.DataFrame,
    tasks: Sequence[Task],
    share: float = 0.75,
    by: Literal["epochs", "seconds"] = "epochs",
) -> pd.DataFrame:
    """Test Δm of every run when it is stopped early, minus that of the uniform loss at its end, at equal settings and
    seed: above 0 where the method has reached what the uniform loss ends with.

    Both are read on test data at the epoch that validation chose, the method's among the epochs that it is left with.

    Args:
        share: of the epochs that the uniform loss was trained for, or with `by="seconds"` of its seconds. What is left
            is rounded down to whole epochs.

    Returns:
        problem, smto, config, seed, epochs (that the run was left with), lead (in points; NaN where it has none, or
        where the uniform loss has no run with these settings and this seed). The uniform loss has no row.
    """
    paces = seconds_per_epoch(runs)
    references = {(_alike(run), run.config.seed): run for run in runs if run.config.smto == UNIFORM}
    ends = delta.selected(list(references.values()), baselines, tasks)
    ends = dict(zip(references, ends["delta_m"], strict=True))
    left: list[tuple[int, Run, float]] = []
    rows: list[dict[str, Any]] = []
    for run in runs:
        reference = references.get((_alike(run), run.config.seed))
        if run.config.smto == UNIFORM:
            continue
        row: dict[str, Any] = dict(zip(RUN, frames.run_key(run), strict=True)) | {"epochs": 0}
        if reference is not None:
            own, theirs = _costs(run, paces), _costs(reference, paces)
            spent = share * reference.config.epochs
            spent = spent if by == "epochs" else spent * theirs["seconds"] / own["seconds"]
            row["epochs"] = min(math.floor(spent + 1e-9), run.config.epochs)
            if row["epochs"]:
                shorter = run.serving(run.config.model_copy(update={"epochs": row["epochs"]}))
                assert shorter is not None
                left.append((len(rows), shorter, ends[_alike(run), run.config.seed]))
        rows.append(row)
    table = pd.DataFrame(rows, columns=[*RUN, "epochs"]).assign(lead=math.nan)
    if left:
        stopped = delta.selected([run for _, run, _ in left], baselines, tasks)["delta_m"]
        table.loc[[place for place, _, _ in left], "lead"] = stopped.to_numpy() - [end for _, _, end in left]
    return table


def _alike(run: Run) -> str:
    """All that two runs must share to be compared at equal settings, except the seed."""
    settings = json.loads(frames.configuration(run.config))
    return json.dumps({name: value for name, value in settings.items() if name not in ("smto", "options")})


def _best(curves: dict[Any, np.ndarray], run: Run) -> tuple[float, int] | None:
    """The best value of a run's curve, and after how many epochs it has it; None where it has no value."""
    curve = curves.get(frames.run_key(run), np.array([]))
    epoch = delta.best_val_epoch(curve)
    return None if epoch is None else (float(curve[epoch]), epoch + 1)


def _first(curve: np.ndarray, target: float) -> float:
    """After how many epochs a curve is at least at the target; ∞ for never."""
    reached = np.flatnonzero(curve >= target)
    return float(reached[0] + 1) if len(reached) else math.inf


def _costs(run: Run, paces: dict[str, float]) -> dict[str, float]:
    """What an epoch of a run costs."""
    steps = math.ceil(run.config.sizes[0] / run.config.batch_size)
    return {"steps": steps, "seconds": paces.get(frames.configuration(run.config), math.nan)}


# -- over problems -----------------------------------------------------------------------------------------------------

_COLUMN: dict[Unit, str] = {"epochs": "share", "steps": "share_of_steps", "seconds": "share_of_seconds"}


def ratios(times: pd.DataFrame, by: Unit = "epochs") -> pd.DataFrame:
    """How many times as long as the fastest method each one takes: index problem, one column per method; ∞ for never.

    A method's time on a problem is the median over seeds, in units of the uniform loss's at equal settings (half of the
    seeds or more without the target: never).

    Args:
        times: `to_target` of several problems, one below the other.

    Raises:
        ValueError: a method has several configurations on a problem, or is missing on one; keep those that are alike.
    """
    of_method = times.groupby(["problem", "smto"], sort=False)
    if (of_method["config"].nunique() > 1).any():
        several = [smto for (_, smto), n in of_method["config"].nunique().items() if n > 1]
        raise ValueError(f"several configurations of {', '.join(dict.fromkeys(several))}; keep one per problem.")
    medians = of_method[_COLUMN[by]].quantile(0.5, interpolation="higher").unstack("smto")[times["smto"].unique()]
    if (absent := of_method.size().unstack("smto")[medians.columns].isna()).any(axis=None):
        missing = ", ".join(f"{smto} on {problem}" for problem, smto in absent.stack()[absent.stack()].index)
        raise ValueError(f"no run of {missing}: a profile is over problems that all methods have.")
    medians = medians.fillna(math.inf)  # its target is not known
    return medians.div(medians.min(axis=1), axis=0).rename_axis(columns=None)


def profile(times: pd.DataFrame, by: Unit = "epochs", widest: float = WIDEST) -> pd.DataFrame:
    """The performance profile: for each method the share of problems on which it takes at most τ times as long as the
    fastest.

    Returns:
        Index tau, from 1 to `widest`, at every value where some method's share rises; one column per method.
    """
    found = ratios(times, by)
    steps = found.to_numpy()
    taus = np.unique([1.0, widest, *steps[np.isfinite(steps) & (steps <= widest)]])
    shares = {smto: [(found[smto] <= tau).mean() for tau in taus] for smto in found}
    return pd.DataFrame(shares, index=pd.Index(taus, name="tau"))


def scores(times: pd.DataFrame, by: Unit = "epochs", widest: float = WIDEST) -> pd.Series:
    """The area under the performance profile from 1 to `widest`, as a share: 1 is the fastest on every problem, 0 never
    within a factor of `widest` of the fastest.

        (1/P) Σ_p max(0, widest − r_p) / (widest − 1)
    """
    return (widest - ratios(times, by)).clip(lower=0).div(widest - 1).mean().rename("score")


def scores_by_seed(times: pd.DataFrame, by: Unit = "epochs", widest: float = WIDEST) -> pd.DataFrame:
    """The same within each seed that every method has on every problem: smto, seed, score."""
    complete = times.groupby("seed").size() == times.groupby(["problem", "smto"]).ngroups
    rows = [
        scores(times[times.seed == seed], by, widest).rename_axis("smto").reset_index().assign(seed=seed)
        for seed in complete.index[complete]
    ]
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=["smto", "score", "seed"])


def one_setting(times: pd.DataFrame, by: Unit = "epochs", widest: float = WIDEST) -> pd.DataFrame:
    """Of each method the rows of one setting, the same on all problems: that with the best score against the fastest
    setting of any method. A setting is learning rate, dropout, weight decay and the method's own options.

    Args:
        times: `to_target` with `target="best settings"`, of all settings that were tried on all problems.

    Returns:
        Those rows of `times`, with a column `setting`. A method that has no setting in common on all problems is left
        out: compare the methods before and after, and say so.
    """
    settings = [json.dumps([frames.setting(config, name) for name in SETTING]) for config in times["config"]]
    table = times.assign(setting=settings)
    everywhere = table.groupby(["smto", "setting"]).problem.nunique() == times.problem.nunique()
    pairs = pd.MultiIndex.from_frame(table[["smto", "setting"]])
    table = table[pairs.isin(everywhere.index[everywhere])]
    if table.empty:
        return table
    names = table.smto + " " + table.setting  # each setting as if it were a method of its own
    found = scores(table.assign(smto=names), by, widest)
    best = table.assign(name=names, score=names.map(found)).sort_values("score", kind="stable", ascending=False)
    kept = best.groupby("smto", sort=False)["name"].first()
    return table[names.isin(kept)]


def scores_in_one_setting(times: pd.DataFrame, by: Unit = "epochs", widest: float = WIDEST) -> pd.DataFrame:
    """`scores_by_seed` of every method in its `one_setting`: problem ("every problem"), smto, seed, score. Empty where
    the uniform loss has no setting in common on all problems."""
    found = one_setting(times, by, widest)
    if UNIFORM not in set(found["smto"]):
        return pd.DataFrame(columns=["problem", "smto", "seed", "score"])
    return scores_by_seed(found, by, widest).assign(problem="every problem")
