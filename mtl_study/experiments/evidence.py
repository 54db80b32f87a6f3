"""The records that a preset rests on, most informative first: `make records PRESET=overnight HOURS=2.5`.

params/<preset>.yaml lists them in tiers, docs/evidence.md says why. What is missing is trained into the store, in that
order, until it is complete or the time is up; the command can be repeated, killed, and run on several machines that
share a store or bring theirs together with `make merge`.

A *block* is a problem of a tier with one seed: its single-task baselines and all its methods. Its runs are compared
with each other, so they are trained on machines of one kind, those with the same instruction set: a block that was
begun on another kind is left to it.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import os
import signal
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mtl_core import problems
from mtl_core.names import nearest
from mtl_study import artifacts, commands
from mtl_study.analysis import balance, delta, settled
from mtl_study.experiments import protocol, runner, sweeps, training
from mtl_study.experiments.engines import EngineLost
from mtl_study.experiments.runs import BadConfig, Positive, Run, RunConfig, explain, machine
from mtl_study.experiments.store import RunStore
from mtl_study.words import counted, duration, listed

Size = tuple[int, int]  # batch size, epochs


class Ratios(BaseModel):
    """Of two weights (`sweeps.ratios`)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    lowest: Positive
    highest: Positive
    points: int = Field(ge=2)


class Further(BaseModel):
    """A run more per seed: the published configuration of a method with changes to its `RunConfig`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    problem: str
    smto: str
    changes: dict[str, Any]


class Tier(BaseModel):
    """Runs that are asked for together.

    of: problem → methods, in the order in which they are trained. lr: learning rates that every method gets; where
    empty, or with published_too, each gets the one that the paper chose. wider: rates that are tried for a method whose
    best rate is at the edge of those it has, the next one outwards each time. epochs: one number per batch size.
    settings: everything else of a `RunConfig`.

    beside: also the uniform loss in the settings of every method (`sweeps.with_uniform`). further: also these. ratios:
    of these problems, also a sweep over fixed weights, with the arguments of `sweeps.ratios`. inverse_norms: of these
    problems, also weights in inverse proportion to the gradients of the uniform loss's run with this seed, once there
    is one. vary: each run, and the single-task baselines in the first one's settings, for every value that this
    function of `sweeps` has.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    says: str
    of: dict[str, list[str]]
    seeds: list[int] = Field(min_length=1)
    lr: list[Positive] = []
    wider: list[Positive] = []
    published_too: bool = False
    batch_size: list[int] = Field(min_length=1)
    epochs: list[int]
    settings: dict[str, Any] = {}
    beside: bool = False
    further: list[Further] = []
    ratios: dict[str, Ratios] = {}
    inverse_norms: dict[str, int] = {}
    vary: Literal["batches", "features", "more_tasks"] | None = None

    @model_validator(mode="after")
    def _one_length_per_batch(self) -> Tier:
        if len(self.epochs) != len(self.batch_size):
            raise ValueError(f"epochs has {len(self.epochs)} values, one is needed per batch size: {self.batch_size}")
        return self

    @model_validator(mode="after")
    def _further_on_its_problems(self) -> Tier:
        for one in self.further:
            if one.problem not in self.of:
                raise ValueError(
                    f"further: {one.problem!r} is none of the problems of this tier{nearest(one.problem, self.of)}"
                )
        return self

    @property
    def sizes(self) -> list[Size]:
        """Batch size and epochs, one pair per batch size."""
        return list(zip(self.batch_size, self.epochs, strict=True))

    def with_(self, size: Size) -> dict[str, Any]:
        """What all runs of this size have in common."""
        return {**self.settings, "batch_size": size[0], "epochs": size[1]}


class _Tiers(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    settings: dict[str, dict[str, Any]] = {}  # named here, used by the tiers as YAML aliases
    tiers: list[Tier]


@dataclass(frozen=True)
class Block:
    """One problem of a tier with one seed: the runs of its single-task baselines and methods, in order."""

    tier: Tier
    problem: str
    seed: int
    configs: list[RunConfig]

    @property
    def title(self) -> str:
        return f"{self.tier.says}: {self.problem}, seed {self.seed}"


def tiers(preset: str, params: Path | None = None) -> list[Tier]:
    """What a preset's file asks for. Raises BadConfig if there is none, or if it holds what is not understood."""
    params = params or artifacts.REPOSITORY / "params"
    path = params / f"{preset}.yaml"
    known = sorted(file.stem for file in params.glob("*.yaml") if file.with_suffix("").is_dir())
    if preset not in known:
        raise BadConfig(
            f"no list of records for the preset {preset!r}{nearest(preset, known)}: expected {path}. Presets with one: "
            f"{', '.join(known)}; of the others `make reproduce` trains what their notebooks need."
        )
    try:
        return _Tiers.model_validate(yaml.safe_load(path.read_text(encoding="utf-8"))).tiers
    except ValidationError as error:
        raise BadConfig(f"{path}: {explain(error, Tier)}") from None


def blocks(tier: Tier, store: RunStore) -> list[Block]:
    """The blocks of a tier, seed by seed. Which rates it tries depends on what the store holds already."""
    found = []
    rates = {(p, *size): _rates(tier, p, size, store) for p in tier.of for size in tier.sizes}
    for seed in tier.seeds:
        for problem, methods in tier.of.items():
            configs = [config for size in tier.sizes for config in _baselines(tier, problem, seed, size)]
            if tier.published_too:  # the baselines, too, at these rates
                configs += [config.model_copy(update={"lr": lr}) for config in configs for lr in tier.lr]
            for size in tier.sizes:
                chosen = rates[problem, *size]
                ours = [_config(tier, problem, m, seed, size, lr) for m in methods for lr in chosen[m]]
                ours = sweeps.with_uniform(ours, [seed]) if tier.beside else ours
                ours += [_further(tier, one, seed, size) for one in tier.further if one.problem == problem]
                configs += (
                    [*ours, *_weights(tier, problem, seed, size, store)]
                    if tier.vary is None
                    else _varied(tier.vary, ours)
                )
            found.append(Block(tier, problem, seed, list({config.key: config for config in configs}.values())))
    return found


def _baselines(tier: Tier, problem: str, seed: int, size: Size) -> list[RunConfig]:
    """Of each single task, at its published settings."""
    whole = problems.get(problem, **tier.settings.get("problem_options", {}))
    return [
        c for name in whole.single_tasks for c in protocol.as_published(name, "unit_scal", seed, **tier.with_(size))
    ]


def _further(tier: Tier, one: Further, seed: int, size: Size) -> RunConfig:
    config = _config(tier, one.problem, one.smto, seed, size, None)
    return RunConfig.of(**{**config.model_dump(), **one.changes})


def _weights(tier: Tier, problem: str, seed: int, size: Size, store: RunStore) -> list[RunConfig]:
    """With fixed weights, at the settings of the uniform loss."""
    uniform = _config(tier, problem, "unit_scal", seed, size, None)
    found = []
    if problem in tier.ratios:
        found += sweeps.front(uniform, sweeps.ratios(**tier.ratios[problem].model_dump()), [seed])
    if problem in tier.inverse_norms:
        run = store.get(uniform.model_copy(update={"seed": tier.inverse_norms[problem]}))
        found += sweeps.fixed(uniform, balance.inverse_norms(run), [seed]) if run else []
    return found


def _varied(vary: str, configs: list[RunConfig]) -> list[RunConfig]:
    """These for every value of what is varied, after the single-task baselines in the settings of the first."""
    found = []
    for varied in getattr(sweeps, vary)(configs).values():
        first = varied[0]
        found += [
            RunConfig.of(
                **{**first.model_dump(), "problem": name, "smto": "unit_scal", "options": {}, "problem_options": {}}
            )
            for name in first.definition.single_tasks
        ] + varied
    return found


def _config(tier: Tier, problem: str, smto: str, seed: int, size: Size, lr: float | None) -> RunConfig:
    [config] = protocol.as_published(problem, smto, seed, **tier.with_(size))
    return config if lr is None else config.model_copy(update={"lr": lr})


def _rates(tier: Tier, problem: str, size: Size, store: RunStore) -> dict[str, list[float | None]]:
    """The rates that each method gets, None for the published one: those of the tier, and, once all of these are
    trained and the best on validation is at their edge, the next one outwards."""
    rates = {smto: sorted(tier.lr) for smto in tier.of[problem]}
    if tier.lr and tier.wider:
        alone = [store.get(config) for seed in tier.seeds for config in _baselines(tier, problem, seed, size)]
        for smto, own in rates.items():
            while (further := _outwards(tier, problem, smto, size, own, alone, store)) is not None:
                own.append(further)
                own.sort()
    first = [None] if tier.published_too or not tier.lr else []
    return {smto: [*first, *own] for smto, own in rates.items()}


def _outwards(
    tier: Tier, problem: str, smto: str, size: Size, rates: list[float], alone: list[Run | None], store: RunStore
) -> float | None:
    """The next rate beyond the best one, if that is at the edge: by mean validation Δm over the seeds, and a rate at
    which a seed left nothing is not the best. None where it does not, where there is none, or where a run is missing.
    """
    found = [store.get(_config(tier, problem, smto, seed, size, lr)) for lr in rates for seed in tier.seeds]
    runs, baselines = ([run for run in some if run is not None] for some in (found, alone))
    if len(runs) < len(found) or len(baselines) < len(alone):
        return None
    tasks = runs[0].config.definition.tasks
    table = delta.selected(runs, delta.single_task_baselines(baselines, tasks), tasks)
    by_rate = table.assign(lr=[run.config.lr for run in runs]).groupby("lr")["val_delta_m"]
    means = by_rate.agg(lambda values: values.mean(skipna=False))
    best = float(means.idxmax()) if means.notna().any() else rates[0]
    if best == rates[0]:
        return max((lr for lr in tier.wider if lr < best), default=None)
    return min((lr for lr in tier.wider if lr > best), default=None) if best == rates[-1] else None


# -- what there is, and what it takes ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class State:
    """Of a block: the runs that the store holds, those that it lacks, and the kinds of machine that trained the former
    (`kind`)."""

    block: Block
    held: list[Run]
    missing: list[RunConfig]

    @property
    def kinds(self) -> set[str]:
        return {run.machine for run in self.held}

    @property
    def foreign(self) -> bool:
        """Whether it was begun on machines of another kind than this one."""
        return bool(self.missing and self.kinds) and here() not in self.kinds


@functools.cache
def here() -> str:
    """The kind of this machine's processor."""
    return machine(training.environment(training.find_device("cpu")))


def state(block: Block, store: RunStore) -> State:
    held, missing = [], []
    for config in block.configs:
        run = store.get(config)
        if run is None:
            missing.append(config)
        else:
            held.append(run)
    return State(block, held, missing)


def held(
    preset: str, says: str, store: RunStore | str | os.PathLike[str], params: Path | None = None
) -> dict[Size, tuple[list[Run], list[Run]]]:
    """What a store holds of one tier, for a notebook that reads it: runs, and single-task baselines, by batch and
    epochs. Nothing is trained. A method counts once all of its runs are there, the further rates among them that its
    best one asks for; so nobody takes the best of half a grid.

    Args:
        says: the tier's name. params: the folder of the presets.

    Returns:
        Nothing where the preset has no list of records, or where a baseline or every method is incomplete.

    Raises:
        BadConfig: there is a list, and no such tier in it; the nearest is named.
    """
    params = params or artifacts.REPOSITORY / "params"
    if not (params / f"{preset}.yaml").is_file():
        return {}
    known = {one.says: one for one in tiers(preset, params)}
    if says not in known:
        raise BadConfig(f"{preset} has no tier {says!r}{nearest(says, known)}. Its tiers: {'; '.join(known)}.")
    tier, store = known[says], store if isinstance(store, RunStore) else RunStore(store)
    states = [state(block, store) for block in blocks(tier, store)]
    lacking = {(config.problem, config.smto) for one in states for config in one.missing}
    found: dict[Size, tuple[list[Run], list[Run]]] = {}
    for run in (run for one in states for run in one.held):
        config = run.config
        if (config.problem, config.smto) not in lacking:
            of_size = found.setdefault((config.batch_size, config.epochs), ([], []))
            of_size[config.problem not in tier.of].append(run)
    whole = all(problem in tier.of for problem, _ in lacking) and all(runs for runs, _ in found.values())
    return dict(sorted(found.items())) if whole else {}


def seconds(config: RunConfig, held: Sequence[Run]) -> float:
    """How long a run will take on one core: as long per sample as the fastest of the same method in the held runs of
    this problem (the others may have waited), or as the middle one of these; NaN where there is none."""

    def per_sample(run: Run) -> float:
        return run.seconds / max(len(run.history), 1) / run.config.sizes[0]

    alike = [r for r in held if r.config.problem == config.problem and r.config.source == config.source and r.history]
    same = [r for r in alike if r.config.smto == config.smto and r.config.batch_size == config.batch_size]
    same = same or [r for r in alike if r.config.smto == config.smto]
    if not alike:
        return math.nan
    pace = min(map(per_sample, same)) if same else statistics.median(map(per_sample, alike))
    return pace * config.epochs * config.sizes[0]


def outlook(states: Sequence[State], store: RunStore) -> str:
    """What is there and what is missing, a line per tier, and how long it takes on one core: by the runs that are
    there, and where there are none by the store's others of the same methods, which may be shorter."""
    held = list({run.key: run for state in states for run in state.held}.values())
    lines = []
    for tier in dict.fromkeys(state.block.tier.says for state in states):
        of_tier = [state for state in states if state.block.tier.says == tier]
        missing = {config.key: config for state in of_tier for config in state.missing}
        runs = {config.key for state in of_tier for config in state.block.configs}
        complete = sum(not state.missing for state in of_tier)
        line = f"{tier}: {len(runs) - len(missing):,} of {counted(len(runs), 'run')}, {complete} of "
        line += f"{counted(len(of_tier), 'block')} complete"
        if missing:
            times = [seconds(config, held) for config in missing.values()]
            if all(map(math.isnan, times)):
                others = [
                    run for part in {config.folder: None for config in missing.values()} for run in store.records(part)
                ]
                times = [seconds(config, others) for config in missing.values()]
            known = [t for t in times if not math.isnan(t)]
            if known:
                line += f"; about {duration(sum(known) / len(known) * len(times))} on one core to go"
            line += "" if known else "; nothing is known of how long one takes"
        lines.append(line + ".")
    for state in states:
        if state.foreign:
            lines.append(
                f"{state.block.title}: begun on {listed(sorted(state.kinds))}, which this machine ({here()}) is not; "
                f"{counted(len(state.missing), 'run')} left to that kind (or `ANY=1` here)."
            )
    return "\n".join(lines)


def lengths(tier: Tier, store: RunStore) -> list[str]:
    """Whether the runs at the published settings are long enough (`settled.in_words`): a line per problem that is
    complete with two seeds or more."""
    lines = []
    for size, problem in itertools.product(tier.sizes, tier.of if not tier.lr or tier.published_too else ()):
        complete = [one for s in tier.seeds if (one := _published(tier, problem, s, size, store))]
        runs, alone = ([run for one in complete for run in one[part]] for part in (0, 1))
        if said := settled.in_words(runs, alone, problems.get(problem).tasks):
            lines.append(f"{tier.says}: {problem}: {said}")
    return lines


def _published(tier: Tier, problem: str, seed: int, size: Size, store: RunStore) -> tuple[list[Run], list[Run]] | None:
    """The runs of the methods at the published settings, and of the baselines; None where one is missing."""
    configs = [_config(tier, problem, smto, seed, size, None) for smto in tier.of[problem]]
    found = [[store.get(config) for config in some] for some in (configs, _baselines(tier, problem, seed, size))]
    runs, alone = ([run for run in some if run is not None] for some in found)
    return (runs, alone) if [len(runs), len(alone)] == [len(some) for some in found] else None


def verdicts(preset: str) -> str:
    """What was decided when the preset's notebooks last ran, or else what ships, of this preset if there is anything:
    how many of each verdict, and a line for every one that is open, with what would settle it."""
    places = artifacts.folder(preset) / "claims.json", artifacts.REPOSITORY / "docs" / "report" / "claims.json"
    path = next((file for file in places if file.is_file()), None)
    if path is None:
        return f"No verdicts yet: `make reproduce PRESET={preset}` makes them."
    every = json.loads(path.read_text(encoding="utf-8"))
    rows = [row for row in every if row["preset"] == preset] or every
    counts = Counter(row["verdict"] for row in rows)
    presets = listed(sorted({row["preset"] for row in rows}))
    lines = [f"Verdicts at {presets}, as {path} has them: {listed(f'{n} {verdict}' for verdict, n in counts.items())}."]
    return "\n".join([*lines, *(f"{row['id']}, open: {row['settles']}." for row in rows if row["verdict"] == "open")])


# -- training it -------------------------------------------------------------------------------------------------------


class TimeIsUp(Exception):
    """Raised in the main thread at the hour."""


@contextmanager
def until(hours: float | None) -> Iterator[None]:
    """Raises TimeIsUp inside after so many hours."""

    def stop(*_: object) -> None:
        raise TimeIsUp

    if hours is None:
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, hours * 3600)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def look(wanted: Sequence[Tier], store: RunStore) -> list[State]:
    """The state of every block, in the order in which they are trained."""
    return [state(block, store) for tier in wanted for block in blocks(tier, store)]


def train(wanted: Sequence[Tier], store: RunStore, anywhere: bool = False, **place: Any) -> list[State]:
    """Train what is missing, block by block, and what turns out to be missing then (`Tier.wider`).

    Args:
        anywhere: also blocks that were begun on another kind of machine.
        place: workers, device, data_dir, as for `runner.run`.

    Returns:
        The state of every block at the end.
    """
    while True:
        states = look(wanted, store)
        missing = [config for one in states if anywhere or not one.foreign for config in one.missing]
        if not missing:
            return states
        runner.run(missing, store, title="records", keep=True, longest_first=False, **place)


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns its exit code: 0 where it ended as asked, also at the hour; 1 where a run failed; 2 where
    the request is refused."""
    parser = argparse.ArgumentParser(prog="records", description="The records that a preset rests on.")
    parser.add_argument("--preset", default="overnight", help="params/<preset>.yaml lists them")
    parser.add_argument("--hours", type=float, help="stop after so many; default: when all is there")
    parser.add_argument("--store", default=str(artifacts.REPOSITORY / "results"), help="the folder of the records")
    parser.add_argument("--data", default=str(artifacts.REPOSITORY / "data"), help="the folder that holds MNIST/raw")
    parser.add_argument("--workers", type=int, help="training processes; default: one per core, or per GPU")
    parser.add_argument("--any", action="store_true", help="finish blocks that another kind of machine began, too")
    parser.add_argument("--look", action="store_true", help="train nothing; say what is there and what is missing")
    given = parser.parse_args(arguments)
    if given.hours is not None and not given.hours > 0:
        parser.error(f"--hours {given.hours}: give a number above 0")
    store = RunStore(given.store)
    try:
        wanted = tiers(given.preset)
        print(f"{verdicts(given.preset)}\n{outlook(look(wanted, store), store)}", flush=True)
        for tier in wanted if given.look else ():
            for line in lengths(tier, store):
                print(line)
    except ValueError as error:
        print(f"Nothing was trained.\n{error}", file=sys.stderr)
        return 2
    try:
        if not given.look:
            with until(given.hours):
                states = train(wanted, store, given.any, workers=given.workers, device="cpu", data_dir=given.data)
            done = "Complete." if not any(one.missing for one in states) else "This machine has nothing more to train."
            print(f"{done}\n{outlook(states, store)}")
    except TimeIsUp:
        print(f"The time is up; the same command continues from here.\n{outlook(look(wanted, store), store)}")
    except (runner.RunFailed, EngineLost, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Finished runs are kept; the same command continues from there.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    commands.run(main)
