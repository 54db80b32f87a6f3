"""The paper's protocol: single-task baselines, then the search (or the published settings), then the seeds that are
reported.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd

from mtl_core import problems, smtos
from mtl_study.analysis import delta, frames
from mtl_study.experiments import runner
from mtl_study.experiments.runs import BadConfig, Run, RunConfig
from mtl_study.experiments.store import RunStore
from mtl_study.paper import published, released
from mtl_study.words import counted

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

    def settings(self, problem: str, smto: str) -> list[published.Settings]:
        """The settings to try for one method on one problem. A method that the paper did not run keeps its own
        defaults."""
        if self.options:
            own = published.option_grid(problem, smto)
        else:
            own = [published.best(problem, smto)["options"] if smto in published.methods(problem) else {}]
        return [
            {"lr": lr, "dropout": dropout, "weight_decay": decay, "options": options}
            for lr, dropout, decay, options in itertools.product(self.lr, self.dropout, self.weight_decay, own)
        ]


@dataclass(frozen=True)
class Experiment:
    """What an experiment ends with.

    runs: of the chosen settings, every seed, method by method. baselines: the single-task runs of the chosen settings.
    settings: one row per single task and method: what was chosen, by whom, out of how many. searched: every run of the
    search. test_rule: which test value a single-task baseline has (`delta.single_task_baselines`).
    """

    problem: problems.Problem
    runs: list[Run]
    baselines: list[Run]
    settings: pd.DataFrame
    searched: list[Run]
    test_rule: delta.TestRule = "own_epoch"

    def reference(self) -> pd.DataFrame:
        """What the single-task models reach (`delta.single_task_baselines`)."""
        return delta.single_task_baselines(self.baselines, self.problem.tasks, test_rule=self.test_rule)

    def selected(self) -> pd.DataFrame:
        """One row per run: gains over the single-task baselines in percent, at the epoch that validation chose."""
        return delta.selected(self.runs, self.reference(), self.problem.tasks)


def experiment(
    problem: str,
    methods: Sequence[str],
    *,
    seeds: Sequence[int],
    search: Search = "published",
    search_seeds: Sequence[int] = (),
    grid: Grid | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    as_released: bool = False,
    store: RunStore | str,
    workers: int | None = None,
    device: str = "auto",
    data_dir: str | None = None,
    **settings: Any,
) -> Experiment:
    """The paper's protocol for one problem: single-task baselines and every method, with published or searched
    settings.

    With `search="published"` each method has the paper's best learning rate, dropout, weight decay and own
    hyperparameter. With `search="grid"` every combination of the grid is run with the search seeds; the one with the
    best mean validation Δm, each run at its best epoch, is chosen (single tasks: per metric, the best mean validation
    value) and then run with all `seeds`. The search seeds stay among the reported ones where `seeds` names them, as in
    the paper (D12).

    Args:
        problem: a multi-task problem, e.g. "multimnist/CL_RR". methods: keys of the SMTOs, in order of display.
        seeds: of the reported runs. options: overrides by method, e.g. {"cagrad": {"c": 0.5}}; published settings only.
        as_released: methods, problem and baselines as the paper's released code has them (`paper.released`), in place
            of our corrections; with either search.
        settings: everything else of a RunConfig (epochs, batch_size, source, train_size, …).
        store, workers, device, data_dir: as for `run`.

    Raises:
        BadConfig, BadOption, UnknownProblem, NotInPaper: before any training; also what `run` raises.
    """
    _check_search(search, search_seeds, seeds, grid, options, settings)
    if "unit_scal" not in methods:
        raise BadConfig(f"methods = {list(methods)} lacks 'unit_scal', the baseline that all others are paired with.")
    if as_released:
        settings["problem_options"] = released.problem_options(problem, settings.get("problem_options", {}))
    whole = problems.get(problem, **settings.get("problem_options", {}))
    for smto in methods:
        smtos.get(smto)
    place: dict[str, Any] = {"store": store, "workers": workers, "device": device, "data_dir": data_dir}
    if search == "published":
        return _as_published_by_the_paper(whole, methods, seeds, options or {}, as_released, settings, place)
    assert grid is not None
    return _as_searched_here(whole, methods, seeds, search_seeds, grid, as_released, settings, place)


def _as_published_by_the_paper(
    whole: problems.Problem,
    methods: Sequence[str],
    seeds: Sequence[int],
    options: Mapping[str, Mapping[str, Any]],
    as_released: bool,
    settings: Mapping[str, Any],
    place: Mapping[str, Any],
) -> Experiment:
    """The published settings of every single task and method, with every seed."""
    chosen = []
    for smto in methods:
        best = published.best(whole.name, smto)
        best["options"] |= options.get(smto, {})
        chosen.append((whole.name, smto, _trained(smto, whole, best, as_released)))
    single = [(name, "unit_scal", best) for name in whole.single_tasks for best in _published_baselines(name)]
    configs = [_config(p, s, c, seed, settings) for p, s, c in single + chosen for seed in seeds]
    done = runner.run(configs, title=whole.name, **place)
    split = len(single) * len(seeds)
    table = _settings_table(done[split:], done[:split], whole, "published")
    return Experiment(whole, done[split:], done[:split], table, [], _test_rule(as_released))


def as_published(problem: str, smto: str, seed: int, **settings: Any) -> list[RunConfig]:
    """The configurations that `search="published"` trains: one for a method, and for a single task ("unit_scal" on
    "multimnist/CL") one, or one per metric where the paper has different settings for its metrics."""
    single = len(problems.get(problem).tasks) == 1
    chosen = _published_baselines(problem) if single else [published.best(problem, smto)]
    return [_config(problem, smto, one, seed, settings) for one in chosen]


def _as_searched_here(
    whole: problems.Problem,
    methods: Sequence[str],
    seeds: Sequence[int],
    search_seeds: Sequence[int],
    grid: Grid,
    as_released: bool,
    settings: Mapping[str, Any],
    place: Mapping[str, Any],
) -> Experiment:
    """Every combination of the grid with the search seeds; the best ones with every seed."""
    plan: list[tuple[str, str, Mapping[str, Any]]] = [
        (name, "unit_scal", c)
        for name in whole.single_tasks
        for c in replace(grid, options=True).settings(name, "unit_scal")
    ]
    split = len(plan) * len(search_seeds)
    plan += [
        (whole.name, smto, _trained(smto, whole, c, as_released))
        for smto in methods
        for c in grid.settings(whole.name, smto)
    ]
    configs = [_config(p, s, c, seed, settings) for p, s, c in plan for seed in search_seeds]
    searched = runner.run(configs, title=f"{whole.name}: search", **place)

    alone, together, rule = searched[:split], searched[split:], _test_rule(as_released)
    best = set(delta.single_task_baselines(alone, whole.tasks, test_rule=rule)["config"])
    kept = [r for r in alone if frames.configuration(r.config) in best]
    baselines = _extend(kept, seeds, f"{whole.name}: baselines", place)
    gains = delta.selected(together, delta.single_task_baselines(baselines, whole.tasks, test_rule=rule), whole.tasks)
    best = set(delta.best_configurations(gains)["config"])
    kept = [r for r in together if frames.configuration(r.config) in best]
    runs = _extend(kept, seeds, f"{whole.name}: seeds", place)
    by = f"searched here over {{n}} configurations × {counted(len(search_seeds), 'seed')}"
    return Experiment(whole, runs, baselines, _settings_table(runs, baselines, whole, by, searched), searched, rule)


def _trained(smto: str, problem: problems.Problem, chosen: published.Settings, as_released: bool) -> Mapping[str, Any]:
    return released.settings(smto, len(problem.tasks), chosen) if as_released else chosen


def _test_rule(as_released: bool) -> delta.TestRule:
    return released.TEST_RULE if as_released else "own_epoch"


def stored(problem: str, methods: Sequence[str], store: RunStore | str | os.PathLike[str]) -> Experiment | None:
    """What a store already holds of an experiment, by whichever notebook; nothing is trained.

    Of each of these methods, and of each single task, it takes the settings that the paper published; where the store
    does not hold them (after a search), the configuration that is best on validation. Only runs that were made alike
    are compared: that agree in all but method, seed and what a search chooses; a longer run is alike by its first
    epochs. Where there are several such groups, it is the one that most runs were made for.

    Returns:
        None where the store has no runs of the uniform loss on this problem, or lacks those of a single task.
    """
    if problem not in problems.PROBLEMS:
        return None
    whole = problems.get(problem)
    store = store if isinstance(store, RunStore) else RunStore(store)
    names = (problem, *whole.single_tasks)
    needed = {(name, "unit_scal") for name in names}
    wanted = needed | {(problem, smto) for smto in methods}
    # by name: the folder of "qm9" holds those of its single tasks, "qm9/mu", …
    found = [r for n in names for r in store.records(n) if r.config.problem == n and (n, r.config.smto) in wanted]
    complete = [group for group in _alike(found) if needed <= {(r.config.problem, r.config.smto) for r in group}]
    if not complete:
        return None
    group = complete[0]
    alone = _as_published([r for r in group if r.config.problem != problem])
    together = _as_published([r for r in group if r.config.problem == problem])
    whole = together[0].config.definition  # with the options that these runs have
    reference = delta.single_task_baselines(alone, whole.tasks)
    rows = delta.best_configurations(delta.selected(together, reference, whole.tasks))
    best = {*rows["config"], *reference["config"]}
    alone, together = ([r for r in part if frames.configuration(r.config) in best] for part in (alone, together))
    order = ["unit_scal", *methods]
    together.sort(key=lambda r: (order.index(r.config.smto), r.config.seed))
    return Experiment(whole, together, alone, _settings_table(together, alone, whole, "the best in the store"), [])


def with_all_seeds(experiment: Experiment, store: RunStore | str | os.PathLike[str]) -> Experiment:
    """The same experiment with every seed that the store holds of its configurations, also those that were not asked
    for; nothing is trained."""
    store = store if isinstance(store, RunStore) else RunStore(store)

    def all_seeds(runs: list[Run]) -> list[Run]:
        found = {run.config.key: run for run in runs}
        lengths = {run.config.epochs for run in runs}
        alike = {(run.config.problem, run.config.smto, frames.configuration(run.config)) for run in runs}
        for problem, smto in dict.fromkeys((run.config.problem, run.config.smto) for run in runs):
            for epochs, longer in itertools.product(lengths, store.records(f"{problem}/{smto}")):
                run = longer.serving(longer.config.model_copy(update={"epochs": epochs}))
                if run is not None and (problem, smto, frames.configuration(run.config)) in alike:
                    found.setdefault(run.config.key, run)
        return list(found.values())

    return replace(experiment, runs=all_seeds(experiment.runs), baselines=all_seeds(experiment.baselines))


def _as_published(runs: list[Run]) -> list[Run]:
    """Of every problem and method the runs with the published settings, where there are any; all of them elsewhere."""

    def as_published(run: Run) -> bool:
        name, smto = run.config.problem, run.config.smto
        single = len(run.config.definition.tasks) == 1
        try:
            known = _published_baselines(name) if single else [published.best(name, smto)]
        except published.NotInPaper:
            return False
        return any(all(getattr(run.config, key) == value for key, value in best.items()) for best in known)

    chosen = [run for run in runs if as_published(run)]
    found = {(run.config.problem, run.config.smto) for run in chosen}
    return chosen + [run for run in runs if (run.config.problem, run.config.smto) not in found]


def _alike(runs: Sequence[Run]) -> list[list[Run]]:
    """Groups of runs that were made alike and have the same length, the one that most runs were made for first, of
    equals the longest. Of a longer run its first epochs belong to a group."""
    groups = []
    for _, group in itertools.groupby(sorted(runs, key=_common), _common):
        alike = list(group)
        lengths = Counter(run.config.epochs for run in alike)
        for epochs, made in lengths.items():
            served = [run.serving(run.config.model_copy(update={"epochs": epochs})) for run in alike]
            groups.append((made, epochs, [run for run in served if run is not None]))
    return [group for _, _, group in sorted(groups, key=lambda g: g[:2], reverse=True)]


def _common(run: Run) -> str:
    """What all runs of an experiment have in common, but for their length."""
    return run.config.model_dump_json(exclude={"problem", "seed", "epochs", *SEARCHED})


def _published_baselines(name: str) -> list[published.Settings]:
    """The paper's settings for a single task: one, or one per metric where its metrics have different ones."""
    found: list[published.Settings] = []
    for metric in problems.get(name).tasks[0].metrics:
        if (best := published.best(name, metric=metric)) not in found:
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
    configs = {frames.configuration(r.config): r.config for r in kept}.values()
    every_seed = [config.model_copy(update={"seed": seed}) for config in configs for seed in seeds]
    return runner.run(every_seed, title=title, **place)


def _shown_options(config: RunConfig) -> dict[str, Any]:
    """A method's own settings: those that the paper gives for it, whether or not they are our default, and all others
    that are not."""
    try:
        named = published.best(config.problem, config.smto)["options"]
    except published.NotInPaper:
        named = {}
    known = smtos.options(config.smto)
    return {name: config.options.get(name, known[name].default) for name in named} | config.options


def _settings_table(
    runs: list[Run], baselines: list[Run], problem: problems.Problem, by: str, searched: Sequence[Run] = ()
) -> pd.DataFrame:
    """What was chosen for every single task and method, and by whom."""
    rows = []
    for record in {frames.configuration(r.config): r for r in [*baselines, *runs]}.values():
        config = record.config
        alike = [r for r in searched if (r.config.problem, r.config.smto) == (config.problem, config.smto)]
        tried = len({frames.configuration(r.config) for r in alike})
        single = config.problem != problem.name
        rows.append(
            {
                "smto": "single_task" if single else config.smto,
                "task": config.definition.task_names[0] if single else "",
                "lr": config.lr,
                "dropout": config.dropout,
                "weight_decay": config.weight_decay,
                "options": _shown_options(config),
                "chosen": by.format(n=tried),
            }
        )
    return pd.DataFrame(rows)
