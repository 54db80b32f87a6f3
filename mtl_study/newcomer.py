"""A method of your own next to all others, on a problem whose records ship: `make compare METHOD=mine.py`.

    mtl_study.against_shipped(MyMethod, "multimnist/CL_RR")
    mtl_study.against_shipped("mine.py", "multimnist/CL_RR")

checks the method, trains it with the seeds of the shipped runs, and compares it with the paper's methods, whose runs
these are. Only the new method is trained, and two runs of the uniform loss that tell what a step costs on this machine;
a second method finds those two in the store.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from mtl_core import problems, smtos
from mtl_core.names import nearest
from mtl_core.smtos import SMTO
from mtl_core.smtos.base import REGISTRY
from mtl_study import adapters, artifacts, parameters
from mtl_study.analysis import comparisons, delta, frames, inference, rankings, targets
from mtl_study.checking import Report, check_smto
from mtl_study.experiments import protocol, runner
from mtl_study.experiments.fingerprints import fingerprint
from mtl_study.experiments.runs import BadConfig, Run, RunConfig
from mtl_study.experiments.store import RunStore
from mtl_study.look import label
from mtl_study.paper import published
from mtl_study.words import counted, interval, known, listed, number

UNIFORM = "unit_scal"
SEARCH_SEEDS = (101, 102)  # not among those that are reported: a lucky seed is not chosen by and counted, too


class BadMethod(ValueError):
    """What is given as a method is none."""


@dataclass(frozen=True)
class Found:
    """What `against_shipped` found.

    smto: key of the new method, lr: its own learning rate, chosen on validation. checks: what `check_smto` says of it.
    table: one row per method: lr, delta_m (mean), place, first, last (the places that it may have), ties (a letter per
    group that cannot be told apart), reaches (median over seeds of the epochs to the uniform loss's best at the same
    rate, as a share of those that it takes; ∞ where it does not get there); cost (seconds per step over those of the
    uniform loss, as recorded: of the new method on this machine, of the others where their runs were made); difference,
    low, high, n: the new method minus this one, each at its own rate, paired by seed; and difference_at_rate,
    low_at_rate, high_at_rate at the rate of this one. Gains in percent, differences in points, higher is better.
    absent: methods of the package that have no shipped runs with these settings. selected: one row per run. runs: those
    that it takes. earlier: how many of these were in the store before.
    """

    problem: str
    smto: str
    lr: float
    checks: Report
    table: pd.DataFrame
    absent: list[str]
    selected: pd.DataFrame
    runs: list[Run]
    rates: list[float]
    settings: dict[str, Any]
    level: float
    earlier: int

    def _repr_markdown_(self) -> str:
        percent = f"{100 * self.level:g} %"
        new, own = self.table.loc[self.smto], self.table.drop(index=self.smto)
        own_rates, one_rate = (
            f"better than {listed(map(label, own.index[own[f'low{suffix}'] > 0]))} and worse than "
            f"{listed(map(label, own.index[own[f'high{suffix}'] < 0]))}"
            for suffix in ("", "_at_rate")
        )
        n = int(own.n.max())
        name = label(self.smto)
        lines = [
            f"# {name} on {self.problem}",
            "",
            f"Mean Δm {number(new.delta_m, 2)} % over {counted(n, 'seed')}: place {new.place} of {len(self.table)}, "
            f"which may be any from {new['first']} to {new['last']}. {self._costs()}",
            "",
            f"**At the learning rate of each other method** it is {one_rate}; from the rest it cannot be told. Each at "
            f"its own rate, a difference that belongs to the rates as well, it is {own_rates}.",
            "",
            f"| method | learning rate | Δm | place | ties | {name} minus it ({percent}) | at its rate ({percent}) "
            "| share of the uniform loss's epochs to its best | time per step, ×, as recorded |",
            "| :--- | ---: | ---: | ---: | :--- | ---: | ---: | ---: | ---: |",
        ]
        for smto, row in self.table.sort_values("place").iterrows():
            first, last = int(row["first"]), int(row["last"])
            cells = [
                f"**{label(str(smto))}**" if smto == self.smto else label(str(smto)),
                f"{row.lr:g}",
                number(row.delta_m, 2),
                f"{first}" if first == last else f"{first} to {last}",
                str(row.ties),
                interval(row.difference, row.low, row.high),
                interval(row.difference_at_rate, row.low_at_rate, row.high_at_rate),
                known(row.reaches),
                known(row.cost),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        lines += [
            "",
            f"Δm: gain over single-task models in percent, higher is better. Intervals are paired by seed, {percent} "
            f"each: of {len(own)}, one in a while misses. Ties: methods that share a letter cannot be told apart. The "
            f"rate of {name} is the best of {listed(f'{lr:g}' for lr in self.rates)} on validation, with seeds that "
            "are not counted; the others have the paper's rates, at each of which the new method was tried. Epochs: a "
            "share of those that the uniform loss takes to its best validation Δm at the same rate and seed, median "
            f"over seeds; ∞: not reached. Time: over that of the uniform loss; of {name} on this machine, of the "
            f"others where their runs were made. {settings}.",
            "",
            f"The other rows are the paper's methods, whose records ship. Without records here: "
            f"{listed(map(label, self.absent))}; `mtl_study.compare` trains them and puts them beside {name}. Fixed "
            "weights are left out: they are one method for each vector of weights (notebook 05).",
            "",
            "```",
            str(self.checks),
            "```",
        ]
        return "\n".join(lines) + "\n"

    def _costs(self) -> str:
        times = number(self.table.cost[self.smto], 2)
        said = f"A step costs {times} times as much as one of the uniform loss, by the recorded seconds"
        if not self.earlier:
            return f"{said}; all {len(self.runs)} runs were trained now."
        return f"{said}; {self.earlier} of the {len(self.runs)} runs were trained earlier, perhaps under another load."


def load(path: str | os.PathLike[str]) -> type[SMTO]:
    """The one method that a Python file defines; it is known by its key from then on.

    Raises:
        BadMethod: there is no such file, or it does not define exactly one method. What the file itself raises.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        near = nearest(file.name, [other.name for other in file.parent.glob("*.py")])
        raise BadMethod(f"there is no file {file}{near}. METHOD is a Python file with one class under @register.")
    smtos.keys()  # all that are taken are known
    name = f"method_{file.stem}"
    for key in [key for key, smto in REGISTRY.items() if smto.__module__ == name]:
        del REGISTRY[key]  # of this file, which is read again
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise BadMethod(f"{file} is not a Python file: its name has to end in .py.")
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    classes = {one for one in vars(module).values() if inspect.isclass(one) and issubclass(one, SMTO)}
    found = [one for one in classes if "key" in vars(one) and one.__module__ in (name, adapters.__name__)]
    methods = [one for one in found if REGISTRY.get(one.key) is one]
    if len(methods) != 1:
        names = listed(sorted(f"{one.__name__} with the key {one.key!r}" for one in methods or found), none="none")
        words = ". Put @register above the class" if found and not methods else ""
        raise BadMethod(f"{file} registers {len(methods)} methods, not one; those with a key: {names}{words}.")
    methods[0].__module__ = name  # what an adapter has made belongs to the file, too: its source counts
    fingerprint(methods[0])  # as long as the file is what was loaded
    return methods[0]


def against_shipped(
    method: type[SMTO] | str | os.PathLike[str],
    problem: str,
    *,
    options: Mapping[str, Any] | None = None,
    unless: Mapping[str, str] | None = None,
    search_seeds: Sequence[int] = SEARCH_SEEDS,
    level: float = 0.95,
    preset: str | None = None,
    shipped: RunStore | str | os.PathLike[str] | None = None,
    store: RunStore | str | os.PathLike[str] = "runs/compare",
    workers: int | None = None,
    device: str = "auto",
    data_dir: str | None = None,
    **settings: Any,
) -> Found:
    """A new method compared with the paper's methods that have shipped runs of this problem.

    It is trained at every learning rate that one of these has, with the search seeds, of which the mean validation Δm
    chooses its own rate, and with the seeds of the shipped runs.

    Args:
        method: a class, or a file that defines one (`load`). options: of it. unless: as for `check_smto`.
        preset: whose settings and seeds the shipped runs have; quick, where neither settings nor a store are given.
        shipped: the records of the others; default: those of the repository. store: where the new runs go.
        settings: which of the shipped runs are meant (epochs, source, train_size, …), besides those of the preset.
            Without a preset all seeds count that each method and single task has.

    Raises:
        BadMethod, ChecksFailed, BadConfig, BadOption: before any training; also what `runner.run` raises.
    """
    smto = method if inspect.isclass(method) else load(method)
    if not (inspect.isclass(smto) and issubclass(smto, SMTO)):
        raise BadMethod(f"{method!r} is no SMTO: expected a class that derives from one of mtl_core.smtos.base.")
    if smtos.get(smto.key) is not smto or _is_ours(smto.key):
        raise BadMethod(f"{smto.key!r} is a method of the package; a new one has a key of its own.")
    fingerprint(smto)  # raises where it cannot be told, before any work
    checks = check_smto(smto, unless, **(options or {}))
    if preset is None and shipped is None and not settings:
        preset = "quick"
    records = RunStore(artifacts.REPOSITORY / "results") if shipped is None else shipped
    paper = problem in published.problems() or problem not in problems.PROBLEMS  # an unknown name is refused there
    others = [key for key in published.methods(problem) if key not in (UNIFORM, "fixed")] if paper else []
    if paper and preset is not None:
        settings = parameters.settings_of(preset, problem) | settings
    experiment = protocol.stored(problem, others, records, **settings) if paper else None
    command = "records" if preset == "overnight" else "reproduce"
    more = "" if preset is None or not paper else f" `make {command} PRESET={preset}` trains more of this preset's."
    if experiment is None:
        raise BadConfig(
            f"there are no records of the uniform loss and its single tasks on {problem!r} with these settings; for a "
            f"problem without records use mtl_study.compare, which trains the others, too.{more}"
        )
    wanted = None if preset is None else parameters.seeds_of(preset, problem)
    experiment, seeds = _whole_seeds(experiment, wanted)
    if len(seeds) < 2:
        of = "" if wanted is None else f" of {preset}'s {len(wanted)}"
        raise BadConfig(
            f"every method has records of {counted(len(seeds), 'seed')}{of} on {problem!r} with these settings; an "
            f"interval takes at least two.{more}"
        )
    uniform = [run.config for run in experiment.runs if run.config.smto == UNIFORM]
    rates = sorted({run.config.lr for run in experiment.runs})
    if both := sorted(set(seeds) & set(search_seeds)):
        raise BadConfig(f"search_seeds: {both} are among the reported seeds, which flatters; give other ones.")

    def configs(lr: float, seed: int, key: str) -> RunConfig:
        own = dict(options or {}) if key == smto.key else {}
        return RunConfig.of(**{**uniform[0].model_dump(), "smto": key, "options": own, "lr": lr, "seed": seed})

    place: dict[str, Any] = {"workers": workers, "device": device, "data_dir": data_dir}
    plan = [configs(lr, seed, smto.key) for lr in rates for seed in (*search_seeds, *seeds)]
    plan += [configs(uniform[0].lr, seed, UNIFORM) for seed in search_seeds]
    kept = store if isinstance(store, RunStore) else RunStore(store)
    earlier = sum(kept.get(config) is not None for config in plan)
    runs = runner.run(plan, store, title=f"{smto.key} on {problem}", **place)
    mine = [run for run in runs if run.config.smto == smto.key]
    searched = [run for run in mine if run.config.seed in search_seeds]
    chosen = delta.best_configurations(experiment.selected(searched))["config"].iloc[0]
    lr = float(comparisons.setting(chosen, "lr"))
    reported = [run for run in mine if run.config.seed in seeds]
    table = _table(experiment, records, smto.key, lr, reported, level)
    table["cost"] = targets.costs(experiment.runs)
    table.loc[smto.key, "cost"] = targets.costs(runs).get(smto.key, math.nan)
    absent = [key for key in sorted(REGISTRY) if key not in (*table.index, "fixed") and _is_ours(key)]
    at_own = experiment.selected([*experiment.runs, *(run for run in reported if run.config.lr == lr)])
    alike = {name: getattr(uniform[0], name) for name in ("source", "epochs", "batch_size", "train_size")}
    return Found(problem, smto.key, lr, checks, table, absent, at_own, runs, rates, alike, level, earlier)


def _is_ours(key: str) -> bool:
    return smtos.get(key).__module__.startswith("mtl_core.")


def _whole_seeds(
    experiment: protocol.Experiment, wanted: Sequence[int] | None
) -> tuple[protocol.Experiment, list[int]]:
    """What an experiment has of the seeds that every method and single task has, of the wanted ones if some are given;
    and these seeds. So a block of runs that was begun and not ended neither adds a seed nor drops a method."""
    seeds: dict[str, set[int]] = {}
    for run in (*experiment.runs, *experiment.baselines):
        seeds.setdefault(frames.configuration(run.config), set()).add(run.config.seed)
    whole = set.intersection(*seeds.values(), *([] if wanted is None else [set(wanted)]))
    runs, baselines = (
        [run for run in part if run.config.seed in whole] for part in (experiment.runs, experiment.baselines)
    )
    return replace(experiment, runs=runs, baselines=baselines), sorted(whole)


def _table(
    experiment: protocol.Experiment,
    records: RunStore | str | os.PathLike[str],
    key: str,
    lr: float,
    reported: list[Run],
    level: float,
) -> pd.DataFrame:
    own = [run for run in reported if run.config.lr == lr]
    selected = experiment.selected([*experiment.runs, *own])
    by_seed = comparisons.by_seed(selected)
    table = rankings.places(by_seed, level).rename(columns={"mean": "delta_m"})
    rate = {run.config.smto: run.config.lr for run in [*experiment.runs, *own]}
    table.insert(0, "lr", pd.Series(rate))
    at_rate = {r: experiment.selected([run for run in reported if run.config.lr == r]) for r in set(rate.values())}
    for suffix, new in (("", dict.fromkeys(rate, at_rate[lr])), ("_at_rate", {s: at_rate[r] for s, r in rate.items()})):
        found = {
            smto: inference.t_interval(new[smto].set_index("seed").delta_m - by_seed[smto], level)
            for smto in table.index
            if smto != key
        }
        values = pd.DataFrame.from_dict(found, orient="index", columns=list(inference.Interval._fields))
        table = table.join(
            values[["mean", "low", "high"]].add_suffix(suffix).rename(columns={f"mean{suffix}": f"difference{suffix}"})
        )
        table["n"] = values["n"]
    table["reaches"] = _reaches(experiment, records, own)
    return table


def _reaches(experiment: protocol.Experiment, records: RunStore | str | os.PathLike[str], own: list[Run]) -> pd.Series:
    """Median over the seeds of the share of the uniform loss's epochs to its best, at the same settings."""
    store = records if isinstance(records, RunStore) else RunStore(records)
    runs = [*experiment.runs, *own]
    wanted = {}
    for run in runs:
        alike = RunConfig.of(**{**run.config.model_dump(), "smto": UNIFORM, "options": {}})
        wanted[alike.key] = alike
    held = {run.key: run for run in runs}
    held |= {found.key: found for config in wanted.values() if (found := store.get(config)) is not None}
    times = targets.to_target([*held.values()], experiment.reference(), experiment.problem.tasks)
    reported = {frames.configuration(run.config) for run in runs}
    return targets.reaches(times[times.config.isin(reported)])
