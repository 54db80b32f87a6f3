"""Many runs: which ones an experiment needs, who chose their settings, and getting them done.

`run` trains what the store does not hold yet, one process per core, and is safe to kill and repeat. `experiment` is
the paper's protocol on top of it: single-task references, then the search (or the published settings), then the seeds
that are reported.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import joblib
import pandas as pd
import torch
from tqdm import tqdm

from mtl_core import metrics, paper, problems, smtos, training
from mtl_core.runs import BadConfig, C, R, Run, RunConfig, RunStore, Store, StoreError
from mtl_core.words import counted

# For the workers, which read them when they start: glibc then keeps freed memory for the next step instead of giving it
# back to the system and asking for it again, page by page. A tenth of a LeNet step; elsewhere these mean nothing.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**32)}


def run(
    configs: Iterable[RunConfig],
    store: RunStore | str | os.PathLike[str],
    *,
    workers: int | None = None,
    device: str = "auto",
    data_dir: str | None = None,
    title: str = "runs",
) -> list[Run]:
    """The records of these configurations, in order; those that the store does not hold are trained and stored.

    Args:
        configs: duplicates are trained once.
        store: where records are kept; a folder.
        workers: training processes; None is one per core (one per GPU where there is one). Each has one torch thread.
        device, data_dir: as for `training.train`.
        title: what the progress bar says.

    Raises:
        BadConfig, BadOption, DataNotFound: before any training, if a run of the sweep could not start.
        StoreError: the store cannot be written to. Before training; or, if that happens later (a full disk), at the
            end: every finished run is then kept, and the message says where.
        RunFailed: a run raised an error; all other runs are done and stored first.
    """
    store = store if isinstance(store, RunStore) else RunStore(store)
    how: dict[str, Any] = {"workers": workers, "device": device, "data_dir": data_dir, "title": title}
    return records(configs, store, training.train, **how)


def records(
    configs: Iterable[C],
    store: Store[C, R],
    train: Callable[[C, str, str | None], R],
    *,
    workers: int | None = None,
    device: str = "auto",
    data_dir: str | None = None,
    title: str = "records",
) -> list[R]:
    """`run` for records of any kind.

    Args:
        train: makes the record of a configuration, in a worker; (config, device, data_dir).
    """
    configs = list(configs)
    found = {config.key: record for config in configs if (record := store.get(config)) is not None}
    missing = list({config.key: config for config in configs if config.key not in found}.values())
    if missing:
        found |= _train(missing, store, train, workers, device, data_dir, title)
    return [found[config.key] for config in configs]


class RunFailed(RuntimeError):
    """A run of a sweep raised an error that is not a divergence."""


def _train(
    configs: list[C],
    store: Store[C, R],
    train: Callable[[C, str, str | None], R],
    workers: int | None,
    device: str,
    data_dir: str | None,
    title: str,
) -> dict[str, R]:
    where = training.find_device(device)
    bases = {(b.problem, str(b.problem_options), b.smto, b.source, b.sizes): b for b in (c.base for c in configs)}
    for config in bases.values():
        problem = config.definition
        problem.data.check(config.source, config.sizes, data_dir)
        smtos.build(config.smto, len(problem.tasks), **config.options).check_model(problem.build_model(config.dropout))
    store.check_writable()
    if workers is None:
        workers = int(os.environ.get("MTL_WORKERS") or (joblib.cpu_count() if where.type == "cpu" else 1))

    for name, value in KEEP_MEMORY.items():
        os.environ.setdefault(name, value)
    for config in {(b.problem, str(b.problem_options), b.source, b.sizes): b for b in bases.values()}.values():
        config.definition.data.prepare(config.source, config.sizes, data_dir)

    found: dict[str, R] = {}
    failed: list[str] = []
    unsaved = _Unsaved(store)
    longest_first = sorted(configs, key=_cost, reverse=True)
    with (
        joblib.parallel_config("loky", inner_max_num_threads=1),
        joblib.Parallel(n_jobs=min(workers, len(configs)), return_as="generator_unordered", batch_size=1) as parallel,
        tqdm(total=len(configs), desc=title, unit=store.what, file=sys.stderr, dynamic_ncols=True, leave=False) as bar,
    ):
        for config, result in parallel(
            joblib.delayed(_attempt)(train, c, device, data_dir, os.getpid()) for c in longest_first
        ):
            if isinstance(result, str):
                failed.append(f"{config.title}: {result}")
            else:
                found[config.key] = result
                unsaved.save(result)
            bar.set_postfix_str(config.title)
            bar.update()
    unsaved.report()
    if failed:
        how_many = f"{len(failed)} of {len(configs)} {store.what}s failed; the others are stored."
        raise RunFailed("\n".join([how_many, *failed]))
    return found


def _attempt(
    train: Callable[[C, str, str | None], R], config: C, device: str, data_dir: str | None, driver: int
) -> tuple[C, R | str]:
    """In a worker: train, and hand an error back as text, so that one bad run does not cost the others."""
    if os.getpid() != driver:
        end_with(driver)
    try:
        return config, train(config, device, data_dir)
    except Exception as error:
        return config, f"{type(error).__name__}: {error}"


@functools.cache
def end_with(driver: int) -> None:
    """A worker whose driver was killed would go on training for nobody: it ends within a second."""

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(1)
        os._exit(1)

    if os.getppid() == driver:
        threading.Thread(target=watch, daemon=True).start()


def _cost(config: Any) -> tuple[int, float]:
    """Steps times a rough price, to start the longest runs first."""
    price = {"losses": 1.0, "features": 1.0, "parameters": 1.4}[smtos.get(config.base.smto).space]
    return config.epochs_in_all * config.base.sizes[0], price


class _Unsaved:
    """Writes records to the store, and elsewhere when the store stops taking them: nothing finished is lost."""

    def __init__(self, store: Store[Any, Any]) -> None:
        self.store = store
        self.refuge: Store[Any, Any] | None = None
        self.error: OSError | None = None
        self.waiting: list[Any] = []  # in memory, for want of any other place

    def save(self, run: Any) -> None:
        try:
            self.store.put(run)
        except OSError as error:
            self.error = error
            self.waiting.append(run)
            self.shelter()

    def shelter(self) -> None:
        """Move what waits to a temporary folder, as far as that takes it."""
        try:
            if self.refuge is None:
                self.refuge = type(self.store)(tempfile.mkdtemp(prefix=f"mtl-unsaved-{self.store.what}s-"))
            while self.waiting:
                self.refuge.put(self.waiting[-1])
                self.waiting.pop()
        except OSError as error:
            self.error = error

    def report(self) -> None:
        """Raises StoreError if anything could not be stored, after a last try."""
        for run in list(self.waiting):
            with contextlib.suppress(OSError):
                self.store.put(run)
                self.waiting.remove(run)
        self.shelter()
        what, folder = self.store.what, self.store.folder
        if self.waiting:
            raise StoreError(
                f"neither the {what} store {folder} nor a temporary folder could be written to ({self.error}): "
                f"{len(self.waiting)} finished {what}s are lost. Free some space and run the same command again."
            )
        if self.refuge is not None and any(self.refuge.folder.rglob("*.json")):
            raise StoreError(
                f"the {what} store {folder} could no longer be written to ({self.error}). The {what}s finished since "
                f"then lie in {self.refuge.folder}: copy its contents into the store, then run the same command again."
            )


# -- the paper's protocol ----------------------------------------------------------------------------------------------

Search = Literal["published", "grid"]
SEARCHED = ("smto", "options", "lr", "dropout", "weight_decay")  # what may differ between the methods of an experiment


@dataclass(frozen=True)
class Grid:
    """What a search tries for every method (and every single task): all combinations of these values.

    options: whether a method's own hyperparameter (CAGrad's c, …) is searched over the paper's grid, too; if not, it
    keeps its published value.
    """

    lr: Sequence[float]
    dropout: Sequence[float] = (0.0,)
    weight_decay: Sequence[float] = (0.0,)
    options: bool = False

    def __post_init__(self) -> None:
        for name in ("lr", "dropout", "weight_decay"):
            if not len(getattr(self, name)):
                raise BadConfig(f"the grid of {name} is empty; give at least one value, e.g. {name}: [0.001].")

    def settings(self, problem: str, smto: str) -> list[dict[str, Any]]:
        """The settings to try for one method on one problem. A method that the paper did not run keeps its own
        defaults."""
        if self.options:
            own = paper.option_grid(problem, smto)
        else:
            own = [paper.best(problem, smto)["options"] if smto in paper.methods(problem) else {}]
        return [
            {"lr": lr, "dropout": dropout, "weight_decay": decay, "options": options}
            for lr, dropout, decay, options in itertools.product(self.lr, self.dropout, self.weight_decay, own)
        ]


@dataclass(frozen=True)
class Experiment:
    """What an experiment ends with.

    runs: of the chosen settings, every seed, method by method. references: the single-task runs of the chosen settings.
    settings: one row per single task and method: what was chosen, by whom, out of how many. searched: every run of the
    search.
    """

    problem: problems.Problem
    runs: list[Run]
    references: list[Run]
    settings: pd.DataFrame
    searched: list[Run]

    def selected(self) -> pd.DataFrame:
        """One row per run: gains over the single-task references in percent, at the epoch that validation chose."""
        tasks = self.problem.tasks
        return metrics.selected(self.runs, metrics.references(self.references, tasks), tasks)


def experiment(
    problem: str,
    methods: Sequence[str],
    *,
    seeds: Sequence[int],
    search: Search = "published",
    search_seeds: Sequence[int] = (),
    grid: Grid | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    store: RunStore | str,
    workers: int | None = None,
    device: str = "auto",
    data_dir: str | None = None,
    **settings: Any,
) -> Experiment:
    """The paper's protocol for one problem: single-task references and every method, with published or searched
    settings.

    With `search="published"` each method has the paper's best learning rate, dropout, weight decay and own
    hyperparameter. With `search="grid"` every combination of the grid is run with the search seeds; the one with the
    best mean validation Δm, each run at its best epoch, is chosen (single tasks: per metric, the best mean validation
    value) and then run with all `seeds`. The search seeds stay among the reported ones where `seeds` names them, as in
    the paper (D12).

    Args:
        problem: a multi-task problem, e.g. "multimnist/CL_RR". methods: keys of the SMTOs, in order of display.
        seeds: of the reported runs. options: overrides by method, e.g. {"cagrad": {"c": 0.5}}; published settings only.
        settings: everything else of a RunConfig (epochs, batch_size, source, train_size, …).
        store, workers, device, data_dir: as for `run`.

    Raises:
        BadConfig, BadOption, UnknownProblem, NotInPaper: before any training; also what `run` raises.
    """
    _check_search(search, search_seeds, seeds, grid, options, settings)
    if "unit_scal" not in methods:
        raise BadConfig(f"methods = {list(methods)} lacks 'unit_scal', the baseline that all others are paired with.")
    whole = problems.get(problem, **settings.get("problem_options", {}))
    for smto in methods:
        smtos.get(smto)
    place: dict[str, Any] = {"store": store, "workers": workers, "device": device, "data_dir": data_dir}
    if search == "published":
        overrides = options or {}
        chosen = [
            (whole.name, smto, {**best, "options": {**best["options"], **overrides.get(smto, {})}})
            for smto in methods
            for best in [paper.best(problem, smto)]
        ]
        single = [(name, "unit_scal", best) for name in whole.single_tasks for best in _published_references(name)]
        configs = [_config(p, s, c, seed, settings) for p, s, c in single + chosen for seed in seeds]
        done = run(configs, title=problem, **place)
        split = len(single) * len(seeds)
        table = _settings_table(done[split:], done[:split], whole, "published")
        return Experiment(whole, done[split:], done[:split], table, [])

    assert grid is not None
    plan = [
        (name, "unit_scal", c)
        for name in whole.single_tasks
        for c in replace(grid, options=True).settings(name, "unit_scal")
    ]
    split = len(plan) * len(search_seeds)
    plan += [(whole.name, smto, c) for smto in methods for c in grid.settings(problem, smto)]
    configs = [_config(p, s, c, seed, settings) for p, s, c in plan for seed in search_seeds]
    searched = run(configs, title=f"{problem}: search", **place)

    alone, together = searched[:split], searched[split:]
    best = set(metrics.references(alone, whole.tasks)["config"])
    references = _extend(
        [r for r in alone if metrics.configuration(r.config) in best], seeds, f"{problem}: references", place
    )
    rows = metrics.best_configurations(
        metrics.selected(together, metrics.references(references, whole.tasks), whole.tasks)
    )
    kept = [r for r in together if metrics.configuration(r.config) in set(rows["config"])]
    runs = _extend(kept, seeds, f"{problem}: seeds", place)
    by = f"searched here over {{n}} configurations × {counted(len(search_seeds), 'seed')}"
    return Experiment(whole, runs, references, _settings_table(runs, references, whole, by, searched), searched)


def stored(problem: str, methods: Sequence[str], store: RunStore | str | os.PathLike[str]) -> Experiment | None:
    """What a store already holds of an experiment, by whichever notebook; nothing is trained.

    Of each of these methods, and of each single task, it takes the settings that the paper published; where the store
    does not hold them (after a search), the configuration that is best on validation. Only runs that were made alike
    are compared: that agree in all but method, seed and what a search chooses. Where there are several such groups, it
    is the one with most runs.

    Returns:
        None where the store has no runs of the uniform loss on this problem, or lacks those of a single task.
    """
    if problem not in problems.PROBLEMS:
        return None
    whole = problems.get(problem)
    folder = store.folder if isinstance(store, RunStore) else Path(store)
    names = (problem, *whole.single_tasks)
    needed = {(name, "unit_scal") for name in names}
    wanted = needed | {(problem, smto) for smto in methods}
    # by name: the folder of "qm9" holds those of its single tasks, "qm9/mu", …
    found = [r for n in names for r in RunStore(folder / n) if r.config.problem == n and (n, r.config.smto) in wanted]
    groups = [list(group) for _, group in itertools.groupby(sorted(found, key=_common), _common)]
    complete = [group for group in groups if needed <= {(r.config.problem, r.config.smto) for r in group}]
    if not complete:
        return None
    group = max(complete, key=len)
    alone = _as_published([r for r in group if r.config.problem != problem])
    together = _as_published([r for r in group if r.config.problem == problem])
    whole = together[0].config.definition  # with the options that these runs have
    reference = metrics.references(alone, whole.tasks)
    rows = metrics.best_configurations(metrics.selected(together, reference, whole.tasks))
    best = {*rows["config"], *reference["config"]}
    alone, together = ([r for r in part if metrics.configuration(r.config) in best] for part in (alone, together))
    order = ["unit_scal", *methods]
    together.sort(key=lambda r: (order.index(r.config.smto), r.config.seed))
    return Experiment(whole, together, alone, _settings_table(together, alone, whole, "the best in the store"), [])


def with_all_seeds(experiment: Experiment, store: RunStore | str | os.PathLike[str]) -> Experiment:
    """The same experiment with every seed that the store holds of its configurations, also those that were not asked
    for; nothing is trained."""
    folder = store.folder if isinstance(store, RunStore) else Path(store)

    def all_seeds(runs: list[Run]) -> list[Run]:
        found = {run.config.key: run for run in runs}
        alike = {(run.config.problem, run.config.smto, metrics.configuration(run.config)) for run in runs}
        for problem, smto in dict.fromkeys((run.config.problem, run.config.smto) for run in runs):
            for run in RunStore(folder / problem / smto):
                if (problem, smto, metrics.configuration(run.config)) in alike:
                    found.setdefault(run.config.key, run)
        return list(found.values())

    return replace(experiment, runs=all_seeds(experiment.runs), references=all_seeds(experiment.references))


def _as_published(runs: list[Run]) -> list[Run]:
    """Of every problem and method the runs with the published settings, where there are any; all of them elsewhere."""

    def published(run: Run) -> bool:
        name, smto = run.config.problem, run.config.smto
        single = len(run.config.definition.tasks) == 1
        try:
            known = _published_references(name) if single else [paper.best(name, smto)]
        except paper.NotInPaper:
            return False
        return any(all(getattr(run.config, key) == value for key, value in best.items()) for best in known)

    chosen = [run for run in runs if published(run)]
    found = {(run.config.problem, run.config.smto) for run in chosen}
    return chosen + [run for run in runs if (run.config.problem, run.config.smto) not in found]


def _common(run: Run) -> str:
    """What all runs of an experiment have in common."""
    return run.config.model_dump_json(exclude={"problem", "seed", *SEARCHED})


def _published_references(name: str) -> list[paper.Settings]:
    """The paper's settings for a single task: one, or one per metric where its metrics have different ones."""
    found: list[paper.Settings] = []
    for metric in problems.get(name).tasks[0].metrics:
        if (best := paper.best(name, metric=metric)) not in found:
            found.append(best)
    return found


def _check_search(
    search: str,
    search_seeds: Sequence[int],
    seeds: Sequence[int],
    grid: Grid | None,
    options: Mapping[str, Any] | None,
    settings: Mapping[str, Any],
) -> None:
    if taken := {"lr", "dropout", "weight_decay", "options"} & set(settings):
        raise BadConfig(
            f"{', '.join(sorted(taken))}: chosen by the search, not given; use search = 'grid' and a grid of one value."
        )
    if not len(seeds):
        raise BadConfig("seeds is empty; give at least one, e.g. seeds: [1, 2, 3].")
    for name, values in (("seeds", seeds), ("search_seeds", search_seeds)):
        if len(set(values)) < len(values):
            raise BadConfig(f"{name} = {list(values)} names a seed twice; it would be the same run.")
    if search not in ("published", "grid"):
        raise BadConfig(
            f"search = {search!r}; expected 'published' (the paper's settings) or 'grid' (search them here)."
        )
    if search == "grid":
        if grid is None:
            raise BadConfig("search = 'grid' needs a grid, e.g. grid=Grid(lr=[0.001, 0.0025]).")
        if not len(search_seeds):
            raise BadConfig("search = 'grid' needs search_seeds, e.g. search_seeds: [1].")
        if options:
            raise BadConfig("options overrides published settings; with search = 'grid' the grid decides.")


def _config(problem: str, smto: str, chosen: Mapping[str, Any], seed: int, settings: Mapping[str, Any]) -> RunConfig:
    return RunConfig.of(**{**chosen, **settings, "problem": problem, "smto": smto, "seed": seed})


def _extend(kept: list[Run], seeds: Sequence[int], title: str, place: Mapping[str, Any]) -> list[Run]:
    """The same configurations with all the reported seeds."""
    configs = {metrics.configuration(r.config): r.config for r in kept}.values()
    return run([config.model_copy(update={"seed": seed}) for config in configs for seed in seeds], title=title, **place)


def _settings_table(
    runs: list[Run], references: list[Run], problem: problems.Problem, by: str, searched: Sequence[Run] = ()
) -> pd.DataFrame:
    """What was chosen for every single task and method, and by whom."""
    rows = []
    for record in {metrics.configuration(r.config): r for r in [*references, *runs]}.values():
        config = record.config
        alike = [r for r in searched if (r.config.problem, r.config.smto) == (config.problem, config.smto)]
        tried = len({metrics.configuration(r.config) for r in alike})
        single = config.problem != problem.name
        rows.append(
            {
                "smto": "single_task" if single else config.smto,
                "task": config.definition.task_names[0] if single else "",
                "lr": config.lr,
                "dropout": config.dropout,
                "weight_decay": config.weight_decay,
                "options": config.options,
                "chosen": by.format(n=tried),
            }
        )
    return pd.DataFrame(rows)


# -- fixed weights -----------------------------------------------------------------------------------------------------

DECIMALS = 6  # of fixed weights that are computed: a run's name must not hang on the last bit of an average


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
    """Configurations of the paper's fixed weights: those that a run settled on (`metrics.fixed_weights`).

    Args:
        source: a run of a method that gives weights; learning rate, dropout, weight decay and all else are its own.
        seeds: of the new runs. factor: of the moving average.
        changes: other settings to replace: lr on QM9, where the paper trains all weights at one rate (D34).

    Raises:
        ValueError: the method gives no weights, or the run left none.
    """
    return fixed(source.config, [*metrics.fixed_weights(source, factor).values()], seeds, **changes)


def front(like: RunConfig, weights: Iterable[Sequence[float]], seeds: Sequence[int], **changes: Any) -> list[RunConfig]:
    """Configurations of a sweep over fixed weights: every vector of weights with every seed, in this order.

    Args:
        like: of the uniform loss, which gives all other settings. weights: one vector [K] per point of the sweep.
        changes: other settings to replace, e.g. lr=0.001.
    """
    return [config for w in weights for config in fixed(like, w, seeds, **changes)]


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
