"""How much of a difference is optimisation, and how much remains at equal training loss?

    at_equal_loss(run, other, …)      gains of both at the lowest training loss that both reach, task by task
    parts(pairs, …)                   a difference in Δm, split in two: generalisation and optimisation
    conflict(parts, statistics)       do the angles of the gradients tell which of the two is large?

Two runs whose training losses differ also differ in what they have learnt by heart and in what they have not learnt
yet. So compare a task where both have the same training loss: what remains there is generalisation; the rest of the
difference is that one run has got further, which is optimisation.

Source: Mueller et al. 2024, arXiv:2408.14677 ("Can optimization trajectories explain multi-task transfer?"): multi-task
training generalises otherwise than single-task training at equal training loss, from early on; conflict between
gradients goes with slower optimisation but does not predict generalisation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mtl_core.tasks import Task
from mtl_study.analysis import delta, frames, inference
from mtl_study.analysis.frames import RUN
from mtl_study.experiments.runs import Run

SETTINGS = ("lr", "dropout", "weight_decay", "batch_size")  # that a run shares with what it is compared with


def gains_by_epoch(run: Run, task: Task, baselines: pd.DataFrame, split: str = "test") -> np.ndarray:
    """A task's gain over the single-task models after every epoch, in percent, the mean over its metrics [E]."""
    values = [
        [frames.as_float(getattr(epoch, split)[task.name][metric]) for metric in task.metrics] for epoch in run.history
    ]
    alone = [baselines.loc[(split, task.name, metric), "value"] for metric in task.metrics]
    signs = np.array([1.0 if metric.higher_is_better else -1.0 for metric in task.metrics.values()])
    return (100 * signs * (np.array(values).reshape(-1, len(alone)) / np.array(alone) - 1)).mean(axis=1)


def losses_by_epoch(run: Run, task: str) -> np.ndarray:
    """A task's mean training loss of every epoch [E]."""
    place = run.config.definition.task_names.index(task)
    return np.array([frames.as_float(epoch.train_losses[place]) for epoch in run.history])


def where(losses: np.ndarray, level: float) -> float:
    """After how many epochs (a real number, from 0) a training loss first reaches a level, on straight lines between
    the epochs, of the loss's logarithm; NaN where it never does, or where it starts below."""
    reached = np.flatnonzero(losses <= level)
    if not len(reached) or (reached[0] == 0 and losses[0] < level):
        return math.nan
    last = int(reached[0])
    if last == 0 or losses[last] == level:
        return float(last)
    above, below = np.log(losses[last - 1]), np.log(losses[last])
    return float(last - 1 + (above - np.log(level)) / (above - below))


def at_equal_loss(
    losses: tuple[np.ndarray, np.ndarray], gains: tuple[np.ndarray, np.ndarray]
) -> tuple[float, float, float]:
    """The training loss at which two runs are compared on a task, the lowest that both reach, and both gains there, on
    straight lines between the epochs. NaN where one run starts below what the other ends with: they share no level.

    Args:
        losses, gains: of the two runs, by epoch [E] each; losses > 0.
    """
    level = max(float(np.nanmin(found)) if np.isfinite(found).any() else math.nan for found in losses)
    found = []
    for loss, gain in zip(losses, gains, strict=True):
        epoch = where(loss, level)
        found.append(math.nan if math.isnan(epoch) else float(np.interp(epoch, np.arange(len(gain)), gain)))
    return level, found[0], found[1]


def parts(runs: Sequence[Run], others: Sequence[Run], baselines: pd.DataFrame, tasks: Sequence[Task]) -> pd.DataFrame:
    """Every run of a problem paired with another of the same seed, mean over tasks: their difference in test Δm, split.

        difference = generalisation + optimisation

    The difference is that of Δm at the epochs that validation chose (against single-task models: Δm itself, task by
    task at each one's own epoch). Generalisation is the difference at equal training loss, optimisation the rest.

    Args:
        others: what to compare with: runs of the same problem (the uniform loss), of which that with the same learning
            rate, dropout, weight decay, batch and seed is taken; or of its single tasks, one per task and seed.
        baselines: what gains are relative to.

    Returns:
        problem, smto, config, seed, difference, generalisation, optimisation (in points of Δm; NaN where a task has no
        training loss in common, or there is nothing to compare with), log_loss: the mean over tasks of the logarithm
        of the last training loss over the other's (> 0: this run got less far).
    """
    names = [task.name for task in tasks]
    ours = delta.selected(runs, baselines, tasks).set_index(RUN)
    rows = []
    for run in runs:
        key = frames.run_key(run)
        row: dict[str, Any] = dict(zip(RUN, key, strict=True))
        compared = [_other(run, others, task.name) for task in tasks]
        if all(compared) and run.history:
            there, here, further, theirs = [], [], [], []
            for task, other in zip(tasks, compared, strict=True):
                assert other is not None
                losses = (losses_by_epoch(run, task.name), losses_by_epoch(other, task.name))
                gains = (
                    gains_by_epoch(run, task, baselines),
                    gains_by_epoch(other, task, baselines),
                )
                _, mine, its = at_equal_loss(losses, gains)
                here.append(mine)
                there.append(its)
                further.append(math.log(losses[0][-1] / losses[1][-1]))
                theirs.append(_reported(other, task, names, baselines, tasks))
            difference = float(ours.loc[key, "delta_m"]) - float(np.mean(theirs))
            general = float(np.mean(here) - np.mean(there))
            row |= {"difference": difference, "generalisation": general, "optimisation": difference - general}
            row["log_loss"] = float(np.mean(further))
        rows.append(row)
    columns = [*RUN, "difference", "generalisation", "optimisation", "log_loss"]
    return pd.DataFrame(rows, columns=columns)


def _other(run: Run, others: Sequence[Run], task: str) -> Run | None:
    """The run with the same seed that has this task, and the same settings where it is of the same problem."""
    for other in others:
        alike = [[getattr(one.config, name) for name in SETTINGS] for one in (run, other)]
        fits = other.config.problem != run.config.problem or alike[0] == alike[1]
        if fits and other.config.seed == run.config.seed and task in other.config.definition.task_names:
            return other if other.history else None
    return None


def _reported(run: Run, task: Task, names: Sequence[str], baselines: pd.DataFrame, tasks: Sequence[Task]) -> float:
    """The gain on a task at the epoch that counts: of a run of several tasks the one that validation Δm chose, of a
    single task the one that its own metrics chose."""
    of_run = list(tasks) if len(run.config.definition.tasks) > 1 else [task]
    on_validation = np.mean([gains_by_epoch(run, one, baselines, "val") for one in of_run], axis=0)
    epoch = delta.best_val_epoch(on_validation)
    return math.nan if epoch is None else float(gains_by_epoch(run, task, baselines)[epoch])


def conflict(parts: pd.DataFrame, statistics: pd.DataFrame, column: str = "pairwise_cosine") -> pd.DataFrame:
    """Over the methods, seed by seed: does the angle between the task gradients go with generalisation, or with how far
    optimisation got?

    Args:
        parts: of one problem, several methods. statistics: `alignment.per_run` of the same runs.

    Returns:
        seed; rho_generalisation and rho_optimisation: Spearman's correlations of `column` (the higher, the less
        conflict) with generalisation and with −log_loss, both higher = better; n (methods).
    """
    both = parts.merge(statistics[[*RUN, column]], on=RUN).dropna(subset=["generalisation", "log_loss", column])
    rows = [
        (
            seed,
            inference.spearman(table[column], table["generalisation"]).rho,
            inference.spearman(table[column], -table["log_loss"]).rho,
            len(table),
        )
        for seed, table in both.groupby("seed")
        if len(table) > 2
    ]
    return pd.DataFrame(rows, columns=["seed", "rho_generalisation", "rho_optimisation", "n"])
