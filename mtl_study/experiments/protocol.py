"""The paper's protocol: single-task baselines, then the search (or the published settings), then the seeds that are
reported.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pandas as pd

from mtl_core import problems, smtos
from mtl_study import provenance
from mtl_study.analysis import comparisons, delta, frames
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
    search. test_rule: which test value a single-task baseline has (`delta.single_task_values`). chosen: the
    configuration of each metric of a single task that the paper, or the search, has chosen.
    """

    problem: problems.Problem
    runs: list[Run]
    baselines: list[Run]
    settings: pd.DataFrame
    searched: list[Run]
    test_rule: delta.TestRule = "own_epoch"
    chosen: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def reference(self) -> pd.DataFrame:
        """What the single-task models reach (`delta.single_task_baselines`)."""
        return delta.single_task_baselines(self.baselines, self.problem.tasks, self.test_rule, self.chosen)

    def selected(self, runs: Sequence[Run] | None = None) -> pd.DataFrame:
        """One row per run: gains over the single-task baselines in percent, at the epoch that validation chose; of the
        experiment's own runs, or of others of the same problem. Each gain has a second column for claims about a
        level, which holds the seed error of the baselines (`delta.with_levels`)."""
        values = delta.single_task_values(self.baselines, self.problem.tasks, self.test_rule, self.chosen)
        found = delta.selected(self.runs if runs is None else runs, self.reference(), self.problem.tasks)
        return delta.with_levels(found, values, self.problem.tasks)

    def of(self, smto: str, seeds: Sequence[int] | None = None) -> list[Run]:
        """The runs of a method; with these seeds only, where some are given."""
        return [run for run in self.runs if run.config.smto == smto and (seeds is None or run.config.seed in seeds)]

    def gains(self, runs: Sequence[Run], split: Literal["test", "val"] = "test") -> pd.DataFrame:
        """As `selected`, of runs of the same problem, without what it has for levels; also on the split "val"."""
        return delta.selected(runs, self.reference(), self.problem.tasks, split=split)


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
    hyperparameter, each metric of a single task what the paper chose for it. With `search="grid"` every combination of
    the grid is run with the search seeds; the one with the best mean validation Δm, each run at its best epoch, is
    chosen (single tasks: per metric, the best mean validation value) and then run with all `seeds`. A method that took
    over another one's learning rate in the paper (CDTT has EDM's on QM9) does so here. The search seeds stay among the
    reported ones where `seeds` names them, as in the paper (D12).

    Args:
        problem: a multi-task problem, e.g. "multimnist/CL_RR". methods: keys of the SMTOs, in order of display.
        seeds: of the reported runs. options: overrides by method, e.g. {"cagrad": {"c": 0.5}}; published settings only.
        as_released: methods, problem and baselines as the paper's released code has them (`paper.released`), in place
            of our corrections; with either search.
        settings: everything else of a RunConfig (epochs, batch_size, source, train_size, …).
        store, workers, device, data_dir: as for `run`.

    Raises:
        BadConfig, BadOption, NotInPaper: before any training; also what `run` raises.
    """
    whole, settings = _checked(problem, methods, seeds, search, search_seeds, grid, options, as_released, settings)
    place: dict[str, Any] = {"store": store, "workers": workers, "device": device, "data_dir": data_dir}
    if search == "published":
        return _as_published_by_the_paper(whole, methods, seeds, options or {}, as_released, settings, place)
    assert grid is not None
    return _as_searched_here(whole, methods, seeds, search_seeds, grid, as_released, settings, place)


def planned(
    problem: str,
    methods: Sequence[str],
    *,
    seeds: Sequence[int],
    search: Search = "published",
    search_seeds: Sequence[int] = (),
    grid: Grid | None = None,
    as_released: bool = False,
    **settings: Any,
) -> list[RunConfig]:
    """The configurations that `experiment` trains, as far as they are known before any run: with a search, those of the
    search. Raises what `experiment` raises before any training, except errors about data, device and store."""
    whole, settings = _checked(problem, methods, seeds, search, search_seeds, grid, None, as_released, settings)
    if search == "published":
        single, chosen = _published_plan(whole, methods, {}, as_released)
        return [_config(p, s, c, seed, settings) for p, s, c in single + chosen for seed in seeds]
    assert grid is not None
    single, tried, _ = _search_plan(whole, methods, grid, as_released)
    return [_config(p, s, c, seed, settings) for p, s, c in single + tried for seed in search_seeds]


def _checked(
    problem: str,
    methods: Sequence[str],
    seeds: Sequence[int],
    search: str,
    search_seeds: Sequence[int],
    grid: Grid | None,
    options: Mapping[str, Any] | None,
    as_released: bool,
    settings: Mapping[str, Any],
) -> tuple[problems.Problem, dict[str, Any]]:
    """The problem, and the settings of its runs."""
    _check_search(search, search_seeds, seeds, grid, options, settings)
    if "unit_scal" not in methods:
        raise BadConfig(f"methods = {list(methods)} lacks 'unit_scal', the baseline that all others are paired with.")
    of_problem = problems.canonical(problem, settings.get("problem_options", {}))
    settings = {**settings, "problem_options": of_problem}
    if as_released:
        settings["problem_options"] = released.problem_options(problem, of_problem)
    for smto in methods:
        smtos.get(smto)
    if twice := [smto for smto, count in Counter(methods).items() if count > 1]:
        raise BadConfig(f"methods = {list(methods)} names {', '.join(twice)} more than once.")
    return problems.get(problem, **settings["problem_options"]), settings


Plan = list[tuple[str, str, Mapping[str, Any]]]  # problem, method, settings


def _published_plan(
    whole: problems.Problem, methods: Sequence[str], options: Mapping[str, Mapping[str, Any]], as_released: bool
) -> tuple[Plan, Plan]:
    """Of the single tasks, and of the methods."""
    chosen: Plan = []
    for smto in methods:
        best = published.best(whole.name, smto)
        best["options"] |= options.get(smto, {})
        chosen.append((whole.name, smto, _trained(smto, whole, best, as_released)))
    return [(name, "unit_scal", best) for name in whole.single_tasks for best in _published_baselines(name)], chosen


def _search_plan(
    whole: problems.Problem, methods: Sequence[str], grid: Grid, as_released: bool
) -> tuple[Plan, Plan, dict[str, str]]:
    """What is tried for the single tasks, and for the methods; and the methods that take over another one's rate."""
    single: Plan = [
        (name, "unit_scal", c)
        for name in whole.single_tasks
        for c in replace(grid, options=True).settings(name, "unit_scal")
    ]
    taken = {s: m for s in methods if (m := published.rate_of(whole.name, s))}
    if lacking := [model for model in taken.values() if model not in methods]:
        raise BadConfig(
            f"{', '.join(taken)} takes the learning rate that is found for {', '.join(lacking)} on {whole.name}, as in "
            f"the paper; name {', '.join(lacking)} among the methods, too."
        )
    return single, [one for s in methods if s not in taken for one in _tried(whole, s, grid, as_released)], taken


def _tried(whole: problems.Problem, smto: str, grid: Grid, as_released: bool) -> Plan:
    return [(whole.name, smto, _trained(smto, whole, c, as_released)) for c in grid.settings(whole.name, smto)]


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
    single, chosen = _published_plan(whole, methods, options, as_released)
    configs = [_config(p, s, c, seed, settings) for p, s, c in single + chosen for seed in seeds]
    done = runner.run(configs, title=whole.name, **place)
    split = len(single) * len(seeds)
    alone, together = done[:split], done[split:]
    table = _settings_table(together, alone, whole, "published")
    return Experiment(whole, together, alone, table, [], _test_rule(as_released), published_choice(alone))


def published_choice(single_task_runs: Sequence[Run]) -> dict[tuple[str, str], str]:
    """The configuration that the paper chose for each (task, metric), where it is among these runs."""
    found = {}
    for run in single_task_runs:
        (task,) = run.config.definition.tasks
        with suppress(published.NotInPaper):
            for metric, best in published.single_task(run.config.problem).items():
                if _has(run.config, best):
                    found[task.name, metric] = frames.configuration(run.config)
    return found


def _has(config: RunConfig, settings: Mapping[str, Any]) -> bool:
    """Whether a run has these settings; an option that it does not name has its default."""
    axes = ("lr", "dropout", "weight_decay")
    options = frames.all_options(config.smto, config.options), frames.all_options(config.smto, settings["options"])
    return all(getattr(config, axis) == settings[axis] for axis in axes) and options[0] == options[1]


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
    single, plan, taken = _search_plan(whole, methods, grid, as_released)
    split = len(single) * len(search_seeds)

    def search(plan: Sequence[tuple[str, str, Mapping[str, Any]]], title: str) -> list[Run]:
        configs = [_config(p, s, c, seed, settings) for p, s, c in plan for seed in search_seeds]
        configs = list({config.key: config for config in configs}.values())  # D13: one run for every weight decay
        return runner.run(configs, title=f"{whole.name}: {title}", **place)

    searched = search(single + plan, "search")
    alone, together, rule = searched[:split], searched[split:], _test_rule(as_released)
    of_search = delta.single_task_baselines(alone, whole.tasks, test_rule=rule)["config"].xs("val", level="split")
    kept = [r for r in alone if frames.configuration(r.config) in set(of_search)]
    baselines = _extend(kept, seeds, f"{whole.name}: baselines", place)
    by_metric: dict[Any, str] = dict(of_search.items())  # (task, metric): more seeds do not choose again
    reference = delta.single_task_baselines(baselines, whole.tasks, rule, by_metric)

    def chosen() -> pd.DataFrame:
        return delta.best_configurations(delta.selected(together, reference, whole.tasks))

    if taken:
        rates = chosen().groupby("smto")["config"].first().map(lambda config: frames.setting(config, "lr"))
        plan = [
            one
            for smto, model in taken.items()
            for one in _tried(whole, smto, replace(grid, lr=[rates[model]]), as_released)
        ]
        together = together + search(plan, "search at rates that were found")
        together.sort(key=lambda run: methods.index(run.config.smto))
    best = set(chosen()["config"])
    kept = [r for r in together if frames.configuration(r.config) in best]
    runs = _extend(kept, seeds, f"{whole.name}: seeds", place)
    by = f"searched here over {{n}} configurations × {counted(len(search_seeds), 'seed')}"
    searched = [*alone, *together]
    table = _settings_table(runs, baselines, whole, by, searched)
    return Experiment(whole, runs, baselines, table, searched, rule, by_metric)


def _trained(smto: str, problem: problems.Problem, chosen: published.Settings, as_released: bool) -> Mapping[str, Any]:
    return released.settings(smto, problem.name, chosen) if as_released else chosen


def _test_rule(as_released: bool) -> delta.TestRule:
    return released.TEST_RULE if as_released else "own_epoch"


def stored(
    problem: str,
    methods: Sequence[str],
    store: RunStore | str | os.PathLike[str],
    search: str | None = None,
    **settings: Any,
) -> Experiment | None:
    """What a store already holds of an experiment, by whichever notebook; nothing is trained.

    It is what that notebook reports. Where the paper's settings were taken over, those of every method count; so it was
    if nothing else is said and the single tasks have no other settings than the published ones. Else they were
    searched: of the settings that the search can have tried, the values of learning rate, dropout and weight decay that
    the single tasks have, those count that are best on validation over the seeds of the search. Of what counts it has
    every seed. Only runs that were made alike are compared: that agree in all but method, seed and what a search
    chooses; a longer run is alike by its first epochs. Where there are several such groups, it is the one that most
    runs were made for.

    Args:
        search: "published" or "grid", as for `experiment`, if it is known.
        settings: what the runs have in common, as for `experiment` (epochs, source, …): only such runs are read. A
            store can hold those of several presets; `mtl_study.parameters.settings_of` says what a preset's have.

    Returns:
        None where the store has no such runs of the uniform loss on this problem, or lacks those of a single task.
    """
    if problem not in problems.PROBLEMS:
        return None
    whole = problems.get(problem)
    store = store if isinstance(store, RunStore) else RunStore(store)
    names = (problem, *whole.single_tasks)
    needed = {(name, "unit_scal") for name in names}
    wanted = needed | {(problem, smto) for smto in methods}
    like = (
        {name: _config(name, "unit_scal", {"lr": 1.0, "epochs": 1}, 1, settings) for name in names} if settings else {}
    )
    axes = [axis for axis in settings if axis != "epochs"]
    with provenance.choosing() as taken:
        # by name: the folder of "qm9" holds those of its single tasks, "qm9/mu", …
        found = [r for n in names for r in store.records(n) if r.config.problem == n and (n, r.config.smto) in wanted]
        found = [r for r in found if all(getattr(r.config, a) == getattr(like[r.config.problem], a) for a in axes)]
        groups = [group for group in _alike(found) if settings.get("epochs") in (None, group[0].config.epochs)]
        complete = [group for group in groups if needed <= {(r.config.problem, r.config.smto) for r in group}]
        taken.update(f"{run.config.folder}/{run.key}" for run in itertools.chain(*complete[:1]))
    if not complete:
        return None
    group = complete[0]
    alone = [r for r in group if r.config.problem != problem]
    together = [r for r in group if r.config.problem == problem]
    whole = together[0].config.definition  # with the options that these runs have
    chosen: dict[tuple[str, str], str] = {}
    if search == "published" or (not search and all(_is_published(run.config) is not False for run in alone)):
        chosen, together = published_choice(alone), _as_published(together)
    else:
        together = _as_searched(together, alone)
    reference = delta.single_task_baselines(alone, whole.tasks, chosen=chosen)
    rows = delta.best_configurations(delta.selected(together, reference, whole.tasks))
    best = {*rows["config"], *reference["config"]}
    alone, together = ([r for r in part if frames.configuration(r.config) in best] for part in (alone, together))
    order = ["unit_scal", *methods]
    together.sort(key=lambda r: (order.index(r.config.smto), r.config.seed))
    by = "published" if chosen else "the best in the store"
    return Experiment(whole, together, alone, _settings_table(together, alone, whole, by), [], chosen=chosen)


def at_one_rate(
    experiment: Experiment, store: RunStore | str | os.PathLike[str], *, train: bool = False, **place: Any
) -> pd.DataFrame:
    """`experiment.selected()` for comparisons at one learning rate (`comparisons.at_one_rate`).

    What it takes are runs of the uniform loss at every rate that a method has and the uniform loss has not, with the
    reported seeds. What the store holds of them is read, and of the methods at the rate of the uniform loss, too.

    Args:
        train: train those of the uniform loss that are missing; workers, device, data_dir: as for `run`.
    """
    store = store if isinstance(store, RunStore) else RunStore(store)
    uniform = [run.config for run in experiment.runs if run.config.smto == "unit_scal"]
    others = [run.config for run in experiment.runs if run.config.lr != uniform[0].lr]
    rates = dict.fromkeys(config.lr for config in others)
    needed = [config.model_copy(update={"lr": lr}) for lr in rates for config in uniform]
    if train:
        runner.run(needed, store, title=f"{experiment.problem.name}: the uniform loss at other rates", **place)
    needed += [config.model_copy(update={"lr": uniform[0].lr}) for config in others]
    held = [run for config in needed if (run := store.get(config)) is not None]
    return comparisons.at_one_rate(experiment.selected(), experiment.selected(held))


def at_rate(experiment: Experiment, store: RunStore | str | os.PathLike[str], lr: float) -> Experiment:
    """The experiment with every method and every single task at this learning rate, as far as the store holds it; where
    a single-task model is missing, no run."""
    store = store if isinstance(store, RunStore) else RunStore(store)

    def held(runs: list[Run]) -> list[Run]:
        configs = {c.key: c for c in (run.config.model_copy(update={"lr": lr}) for run in runs)}
        return [run for config in configs.values() if (run := store.get(config)) is not None]

    alone = held(experiment.baselines)
    whole = {(run.config.problem, run.config.seed) for run in experiment.baselines}
    complete = {(run.config.problem, run.config.seed) for run in alone} == whole
    return replace(experiment, runs=held(experiment.runs) if complete else [], baselines=alone, searched=[], chosen={})


def _as_published(runs: list[Run]) -> list[Run]:
    """Of every method the runs with the published settings, where there are any; all of them elsewhere."""
    chosen = [run for run in runs if _is_published(run.config)]
    found = {run.config.smto for run in chosen}
    return chosen + [run for run in runs if run.config.smto not in found]


def _is_published(config: RunConfig) -> bool | None:
    """Whether a run has the settings that the paper published for it; None where there are none."""
    try:
        single = len(config.definition.tasks) == 1
        known = _published_baselines(config.problem) if single else [published.best(config.problem, config.smto)]
    except published.NotInPaper:
        return None
    return any(_has(config, best) for best in known)


def _as_searched(runs: list[Run], alone: list[Run]) -> list[Run]:
    """Of the runs of every method those whose settings a search can have tried that tried `alone` for the single tasks;
    all of them where there are none, as of methods with the options of the released code."""
    tried = {axis: {getattr(run.config, axis) for run in alone} for axis in ("lr", "dropout", "weight_decay")}

    def searchable(config: RunConfig) -> bool:
        try:
            own = [published.best(config.problem, config.smto)["options"]]
        except published.NotInPaper:
            own = [{}]
        own += published.option_grid(config.problem, config.smto)
        within = all(getattr(config, axis) in values for axis, values in tried.items())
        known = [frames.all_options(config.smto, options) for options in own]
        return within and frames.all_options(config.smto, config.options) in known

    chosen = [run for run in runs if searchable(run.config)]
    found = {run.config.smto for run in chosen}
    return chosen + [run for run in runs if run.config.smto not in found]


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
    """What all runs of an experiment have in common, except their length."""
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
    of_problem = {**settings.get("problem_options", {}), **chosen.get("problem_options", {})}
    return RunConfig.of(
        **{**chosen, **settings, "problem_options": of_problem, "problem": problem, "smto": smto, "seed": seed}
    )


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


@dataclass(frozen=True)
class Expected:
    """What an experiment trains if its search chooses what the paper chose, or where it does not try that, the first
    that it tries; with published settings this is exact.

    searched: every run of the search. baselines, runs: with the chosen settings, every seed.
    """

    searched: list[RunConfig]
    baselines: list[RunConfig]
    runs: list[RunConfig]

    @property
    def all(self) -> list[RunConfig]:
        return [*self.searched, *self.baselines, *self.runs]

    def of(self, *smtos: str) -> list[RunConfig]:
        """The reported runs of these methods."""
        return [config for config in self.runs if config.smto in smtos]


def expected(
    problem: str,
    methods: Sequence[str],
    *,
    seeds: Sequence[int],
    search: Search = "published",
    search_seeds: Sequence[int] = (),
    grid: Grid | None = None,
    as_released: bool = False,
    **settings: Any,
) -> Expected:
    """All that `experiment` trains, as far as that can be said before any run. Raises as `planned`."""
    whole, settings = _checked(problem, methods, seeds, search, search_seeds, grid, None, as_released, settings)

    def made(plan: Plan, some: Sequence[int]) -> list[RunConfig]:
        return [_config(p, s, c, seed, settings) for p, s, c in plan for seed in some]

    if search == "published":
        alone, together = _published_plan(whole, methods, {}, as_released)
        return Expected([], made(alone, seeds), made(together, seeds))
    assert grid is not None
    single, tried, taken = _search_plan(whole, methods, grid, as_released)
    alone = [one for name in whole.single_tasks for one in _as_the_paper(single, name, "unit_scal")]
    rates = {smto: _as_the_paper(tried, problem, model)[0][2]["lr"] for smto, model in taken.items()}
    tried += [one for smto, lr in rates.items() for one in _tried(whole, smto, replace(grid, lr=[lr]), as_released)]
    together = [one for smto in methods for one in _as_the_paper(tried, problem, smto)]
    return Expected(made(single + tried, search_seeds), made(alone, seeds), made(together, seeds))


def _as_the_paper(tried: Plan, problem: str, smto: str) -> Plan:
    """Of what is tried for a method or a single task that which the paper has chosen, or else the first."""
    own = [one for one in tried if one[:2] == (problem, smto)]
    try:
        single = len(problems.get(problem).tasks) == 1
        best = _published_baselines(problem) if single else [published.best(problem, smto)]
    except published.NotInPaper:
        best = []
    axes = ("lr", "dropout", "weight_decay")

    def known(settings: Mapping[str, Any]) -> tuple[Any, ...]:
        return (*(settings[axis] for axis in axes), frames.all_options(smto, settings["options"]))

    return [one for one in own if known(one[2]) in [known(b) for b in best]] or own[:1]
