"""Configurations of weights that stay as they are: a sweep, what an SMTO settled on, and the inverse of what is
measured at the start.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import pandas as pd
import torch

from mtl_core import problems
from mtl_core.models import lenet
from mtl_study.analysis import delta, slopes, task_weights
from mtl_study.experiments import runner
from mtl_study.experiments.protocol import Experiment
from mtl_study.experiments.runs import BadConfig, Run, RunConfig
from mtl_study.experiments.store import RunStore

T = TypeVar("T")

DECIMALS = 6  # of fixed weights that are computed: a run's name must not depend on the last bit of an average


def fixed(like: RunConfig, weights: Sequence[float], seeds: Sequence[int], **changes: Any) -> list[RunConfig]:
    """Configurations that train with these weights, brought to sum 1, and in all else are like the given one.

    Equal weights are the uniform loss, so its records are used and not trained a second time. Weights are rounded to
    six decimals.

    Args:
        weights: one ≥ 0 per task, in task order [K]. changes: other settings to replace, e.g. lr=0.001.

    Raises:
        BadConfig: weights of another number than the problem has tasks, negative, or all 0; a setting out of range.
    """
    total = sum(weights)
    if not (math.isfinite(total) and total > 0):
        raise BadConfig(f"weights = {list(weights)} have the sum {total}; give numbers ≥ 0, at least one above 0.")
    shares = [round(float(w) / total, DECIMALS) for w in weights]
    equal = len(set(shares)) == 1 and len(shares) == len(like.definition.tasks)
    method = {"smto": "unit_scal", "options": {}} if equal else {"smto": "fixed", "options": {"weights": shares}}
    return [RunConfig.of(**{**like.model_dump(), **method, **changes, "seed": seed}) for seed in seeds]


def extracted(source: Run, seeds: Sequence[int], *, factor: float = 0.9, **changes: Any) -> list[RunConfig]:
    """Configurations of the paper's fixed weights: those that a run settled on (`task_weights.fixed_weights`).

    Args:
        source: a run of a method that gives weights; learning rate, dropout, weight decay and all else are its own.
        seeds: of the new runs. factor: of the moving average.
        changes: other settings to replace: lr on QM9, where the paper trains all weights at one rate (D34).

    Raises:
        ValueError: the method gives no weights, or the run left none.
    """
    return fixed(source.config, [*task_weights.fixed_weights(source, factor).values()], seeds, **changes)


def front(like: RunConfig, weights: Iterable[Sequence[float]], seeds: Sequence[int], **changes: Any) -> list[RunConfig]:
    """Configurations of a sweep over fixed weights: every vector of weights with every seed, in this order.

    Args:
        like: of the uniform loss, which gives all other settings. weights: one vector [K] per point of the sweep.
        changes: other settings to replace, e.g. lr=0.001.
    """
    return [config for w in weights for config in fixed(like, w, seeds, **changes)]


def over_rates(experiment: Experiment, weights: Iterable[Sequence[float]], seeds: Sequence[int]) -> list[RunConfig]:
    """Configurations of a sweep at every learning rate that a method of the experiment has, that of the uniform loss
    first: so no method has a larger step than the sweep."""
    uniform, weights = experiment.of("unit_scal")[0].config, list(weights)
    rates = dict.fromkeys([uniform.lr, *(run.config.lr for run in experiment.runs)])
    return [config for lr in rates for config in front(uniform, weights, seeds, lr=lr)]


def changed(runs: Iterable[Run], **changes: Any) -> list[RunConfig]:
    """The configurations of these runs with other settings; seeds stay, so that they can be compared seed by seed."""
    return [RunConfig.of(**{**run.config.model_dump(), **changes}) for run in runs]


def trained(
    plan: Mapping[T, Sequence[RunConfig]], store: RunStore | str | os.PathLike[str], title: str, **place: Any
) -> dict[T, list[Run]]:
    """The records of the configurations in a plan, lists of them by name, under the same names. All are trained
    together, so that no core waits.

    Args:
        title, place: as for `runner.run`.
    """
    configs = [config for some in plan.values() for config in some]
    done = {run.config.key: run for run in runner.run(configs, store, title=title, **place)}
    return {name: [done[config.key] for config in some] for name, some in plan.items()}


def ratios(lowest: float, highest: float, points: int) -> list[tuple[float, float]]:
    """Weights of two tasks with sum 1, whose ratio goes from lowest to highest in equal steps of its logarithm."""
    if points < 2:
        raise BadConfig(f"points = {points}: a sweep has at least two.")
    low, high = math.log(lowest), math.log(highest)
    logs = [low + i * (high - low) / (points - 1) for i in range(points)]
    return [(1 / (1 + math.exp(-x)), 1 / (1 + math.exp(x))) for x in logs]


def at_the_start(config: RunConfig, data_dir: str | None = None) -> pd.DataFrame:
    """What each task is like before any training: of the network that the seed draws, over the first batch of the
    training split in stored order, without dropout.

    Returns:
        Index task; loss, and gradient, the length of the loss's gradient on the shared parameters.
    """
    problem, data = config.definition, config.definition.data
    data.check(config.source, config.sizes, data_dir)
    data.prepare(config.source, config.sizes, data_dir)
    split = data.load(config.source, config.sizes, data_dir, torch.device("cpu"), torch.float32)["train"]
    torch.manual_seed(config.seed)
    model = problem.build_model(config.dropout).eval()
    x, targets = split.batch(torch.arange(min(config.batch_size, len(split))), problem.task_names)
    z, shared = model.encoder(x), list(model.encoder.parameters())
    rows = {}
    for task, head, target in zip(problem.tasks, model.heads.values(), targets, strict=True):
        loss = task.loss(head(z), target)
        gradient = torch.autograd.grad(loss, shared, retain_graph=True)
        rows[task.name] = {
            "loss": loss.item(),
            "gradient": math.sqrt(sum(float(g.double().square().sum()) for g in gradient)),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("task")


def inverse(values: Iterable[float]) -> list[float]:
    """Weights in inverse proportion to these values, with sum 1 and three decimals: so coarse that another machine's
    rounding of the values names the same runs."""
    inverses = [1 / value for value in values]
    return [round(one / sum(inverses), 3) for one in inverses]


def with_uniform(configs: Iterable[RunConfig], seeds: Sequence[int]) -> list[RunConfig]:
    """These configurations with each of the seeds, and the uniform loss with the same settings as each of them, so that
    a difference to it is one of the method alone; each once."""
    found: dict[str, RunConfig] = {}
    for config in configs:
        for seed in seeds:
            own = config.model_copy(update={"seed": seed})
            uniform = RunConfig.of(**{**own.model_dump(), "smto": "unit_scal", "options": {}})
            found |= {own.key: own, uniform.key: uniform}
    return list(found.values())


def again(configs: Iterable[RunConfig], seeds: Sequence[int]) -> list[RunConfig]:
    """These configurations with each of the seeds, each once."""
    found = [config.model_copy(update={"seed": seed}) for config in configs for seed in seeds]
    return list({config.key: config for config in found}.values())


def weights_of(config: RunConfig) -> list[float]:
    """The weights of a configuration of fixed weights, or equal ones, with sum 1."""
    n = len(config.definition.tasks)
    return list(config.options.get("weights", [1 / n] * n))


BATCHES, WIDTHS = (32, 64, 128, 256), (0.5, 1, 2, 4)
MORE_TASKS = ("multimnist/CL_RR", "multimnist/CL_CR_RR", "multimnist/CL_CR_RL_RR")


def batches(configs: Iterable[RunConfig], sizes: Iterable[int] = BATCHES) -> dict[float, list[RunConfig]]:
    """The configurations by batch, each for about as many steps, in whole epochs; the learning rate decays by the same
    factor over the whole of training. A batch of which the steps are less than half an epoch is left out."""
    found: dict[float, list[RunConfig]] = {}
    for config in configs:
        for batch in sizes:
            with suppress(ValueError):
                epochs, _ = slopes.whole_epochs(config.epochs, config.batch_size, batch, config.sizes[0])
                decay = round(config.lr_decay ** (config.epochs / epochs), DECIMALS)
                changes = {"batch_size": batch, "epochs": epochs, "lr_decay": decay}
                found.setdefault(batch, []).append(
                    config if batch == config.batch_size else RunConfig.of(**{**config.model_dump(), **changes})
                )
    return found


def gains_by_batch(
    gains: Callable[[list[Run]], pd.DataFrame],
    variants: Mapping[float, Mapping[float, Sequence[RunConfig]]],
    seeds: Sequence[int],
    store: RunStore | str | os.PathLike[str],
) -> pd.DataFrame:
    """Gains by learning rate and batch, all over the same single-task models, of the runs that a store holds.

    Args:
        gains: `Experiment.gains` of the experiment with these models. variants: `batches` by learning rate.

    Returns:
        Rows of `delta.selected` with lr, batch, and steps of training.
    """
    found = []
    for lr, of_rate in variants.items():
        for batch, configs in of_rate.items():
            steps = configs[0].epochs * math.ceil(configs[0].sizes[0] / batch)
            if runs := held(again(configs, seeds), store):
                found.append(gains(runs).assign(lr=lr, batch=batch, steps=steps))
    columns = ["smto", "seed", "delta_m", "val_delta_m", "lr", "batch", "steps"]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=columns)


def features(configs: Iterable[RunConfig], widths: Iterable[float] = WIDTHS) -> dict[float, list[RunConfig]]:
    """The configurations on digits by the number of features, which the network's width multiplies with all else."""
    configs = list(configs)
    return {
        lenet.features(width): [
            RunConfig.of(**{**c.model_dump(), "problem_options": {} if width == 1 else {"width": width}})
            for c in configs
        ]
        for width in widths
    }


def more_tasks(configs: Iterable[RunConfig], names: Iterable[str] = MORE_TASKS) -> dict[float, list[RunConfig]]:
    """The configurations on digits by the number of tasks: classifications and reconstructions of both digits."""
    configs = list(configs)
    return {
        len(problems.get(name).tasks): [RunConfig.of(**{**c.model_dump(), "problem": name}) for c in configs]
        for name in names
    }


def held(configs: Iterable[RunConfig], store: RunStore | str | os.PathLike[str]) -> list[Run]:
    """Of these configurations those records that a store holds; nothing is trained."""
    store = store if isinstance(store, RunStore) else RunStore(store)
    return [run for config in configs if (run := store.get(config)) is not None]


def leads(
    variants: Mapping[float, Sequence[RunConfig]], seeds: Sequence[int], store: RunStore | str | os.PathLike[str]
) -> pd.DataFrame:
    """Leads over the uniform loss by the value that is varied (`slopes.leads`), of the runs that a store holds; a value
    without runs of the uniform loss, or without those of a single task, is left out.

    Args:
        variants: configurations by value, as of `batches`; single tasks have the settings of the first of them.
    """
    store = store if isinstance(store, RunStore) else RunStore(store)
    tables = {}
    for value, configs in variants.items():
        whole, first = configs[0].definition, configs[0].model_dump()
        singles = [RunConfig.of(**{**first, "problem": name, "problem_options": {}}) for name in whole.single_tasks]
        runs, alone = held(again(configs, seeds), store), held(again(singles, seeds), store)
        names = {run.config.problem for run in alone}
        if any(run.config.smto == "unit_scal" for run in runs) and names == set(whole.single_tasks):
            reference = delta.single_task_baselines(alone, whole.tasks)
            tables[value] = delta.selected(runs, reference, whole.tasks)
    return slopes.leads(tables)
