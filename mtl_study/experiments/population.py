"""Population-based training: look for the weights of a weighted sum of losses while training with them.

    w = softmax(z),  z ~ N(0, spread²) per task         each member of a population has weights of its own
    score = validation Δm                               after every epoch, in percent, higher is better
    after every exploit interval: the members of the worst quantile give up
        exploit     each takes over the network, optimizer, step size and z of a member drawn from the best quantile
        explore     and continues with z + N(0, explore²)

Sources: Royer, Blankevoort, Ehteshami Bejnordi 2023, arXiv:2310.08910 (for the weights of a scalarisation);
Jaderberg et al. 2017, arXiv:1711.09846 (population-based training).
Differs:
1. All members stop at the end of an interval and are ranked together; with Jaderberg et al. each decides when it is
   ready.
2. Weights move on the simplex, by a normal step of the logits; Jaderberg et al. multiply hyperparameters by 0.8 or 1.2.
3. All members have the base's seed: the same initial network, batches and dropout masks. Scores then differ by the
   weights and not by the luck of a seed, the winner is no lucky draw, and until a member first gives up it is, bit for
   bit, the plain run of `fixed` with its weights.
"""

from __future__ import annotations

import functools
import math
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mtl_core.names import nearest
from mtl_core.tasks import Task
from mtl_study.experiments import checkpoints, runner, training
from mtl_study.experiments.runs import (
    STORED_AS_NUMERICS,
    WHOLE,
    BadRecord,
    Config,
    History,
    NotNegative,
    Record,
    RunConfig,
    check_epochs,
    metrics_of,
)
from mtl_study.experiments.store import POPULATIONS, Store
from mtl_study.words import listed

POPULATION_CODE_VERSION = 1  # raise when the numbers that this file produces change
ALL_DIVERGED = re.compile(rf"all members diverged, the last at epoch {WHOLE}")

Baselines = dict[str, dict[str, float]]


class PopulationConfig(Config):
    """Everything that a population's numbers depend on.

    base: a run of `unit_scal` or `fixed`: problem, epochs, step size, …, seed. Its own weights are ignored.
    baselines: single-task value on validation by task and metric, what Δm is measured against (`on_validation`).
    size: members. exploit_interval: epochs between two rankings. spread: standard deviation of the initial logits.
    explore: standard deviation of a step of the logits. quantile: share of the members that give up in a ranking, and
    share of those that they take over from.
    """

    model_config = ConfigDict(allow_inf_nan=False, populate_by_name=True, loc_by_alias=False)

    base: RunConfig
    baselines: Baselines = Field(validation_alias="references", serialization_alias="references")  # as stored
    size: Annotated[int, Field(ge=2)] = 8
    exploit_interval: Annotated[int, Field(ge=1, validation_alias="block", serialization_alias="block")]  # as stored
    spread: NotNegative = 1.5
    explore: NotNegative = 0.3
    quantile: Annotated[float, Field(gt=0, le=0.5)] = 0.25

    @model_validator(mode="after")
    def _refuse_what_makes_no_sense(self) -> Self:
        base, tasks = self.base, self.base.definition.tasks
        if base.smto not in ("fixed", "unit_scal"):
            raise ValueError(
                f"base.smto = {base.smto!r} chooses weights by itself; a population needs 'unit_scal' or 'fixed'."
            )
        if len(tasks) < 2:
            raise ValueError(f"base.problem = {base.problem!r} has one task, and so no weights to look for.")
        if base.epochs % self.exploit_interval:
            whole = [str(length) for length in range(1, base.epochs + 1) if base.epochs % length == 0]
            raise ValueError(
                f"exploit_interval = {self.exploit_interval} does not divide base.epochs = {base.epochs}: the last one "
                f"would be cut short. Intervals that do: {listed(whole)}."
            )
        if self.exploit_interval == base.epochs:
            raise ValueError(
                f"exploit_interval = {self.exploit_interval} is all of base.epochs = {base.epochs}: no member would "
                "ever take over from another. Give a smaller interval."
            )
        if not self.per_quantile:
            raise ValueError(
                f"quantile = {self.quantile} of size = {self.size} is less than one member; give a quantile of at "
                f"least {math.ceil(1000 / self.size) / 1000}."
            )
        _check_baselines(self.baselines, tasks, base.problem)
        object.__setattr__(self, "base", base.model_copy(update={"smto": "unit_scal", "options": {}}))
        return self

    @property
    def per_quantile(self) -> int:
        """Members in a quantile."""
        return int(self.size * self.quantile + 1e-9)

    def member(self, weights: Sequence[float]) -> RunConfig:
        """The plain run with these weights [K]; also the one to train the winner's weights again from the start."""
        options = {"weights": [float(weight) for weight in weights]}  # as RunConfig has them: 1 and 1.0 are one run
        return self.base.model_copy(update={"smto": "fixed", "options": options})

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration as JSON."""
        return {"base": self.base.settings, **self.model_dump(mode="json", exclude={"base"}, by_alias=True)}

    @property
    def code_versions(self) -> dict[str, Any]:
        """The code version of every room that a population passes through."""
        of_a_run = self.member([1.0] * len(self.base.definition.tasks)).identity["numerics"]
        return {**of_a_run, "population": POPULATION_CODE_VERSION}

    @property
    def identity(self) -> dict[str, Any]:
        """The configuration and the code versions."""
        return {**self.settings, "numerics": self.code_versions}

    @property
    def folder(self) -> str:
        """The folder of its record in a store."""
        return f"{self.base.problem}/{POPULATIONS}"

    @property
    def title(self) -> str:
        """The population in words."""
        return f"{self.base.problem}, population, seed {self.base.seed}"

    @property
    def epochs_in_all(self) -> int:
        return self.size * self.base.epochs


def _check_baselines(baselines: Baselines, tasks: Sequence[Task], problem: str) -> None:
    """Raises ValueError unless there is one positive number for every metric of every task, and no other."""
    _check_names("baselines", baselines, [task.name for task in tasks], "task", problem)
    for task in tasks:
        _check_names(f"baselines of {task.name}", baselines[task.name], list(task.metrics), "metric", task.name)
        for metric, value in baselines[task.name].items():
            if value <= 0:
                raise ValueError(f"the baseline of {task.name} {metric} is {value}: no gain can be relative to it.")


def _check_names(where: str, given: Iterable[str], known: Sequence[str], kind: str, owner: str) -> None:
    expected = f"{owner} has {listed(known)}."
    for name in given:
        if name not in known:
            raise ValueError(f"{where}: there is no {kind} {name!r}{nearest(name, known)}; {expected}")
    if missing := [name for name in known if name not in given]:
        raise ValueError(f"{where}: {listed(missing)} is missing; {expected}")


def on_validation(baselines: pd.DataFrame) -> Baselines:
    """What `delta.single_task_baselines` found on validation, as a PopulationConfig takes it."""
    found: Baselines = {}
    for (task, metric), value in baselines["value"].xs("val", level="split").items():
        found.setdefault(task, {})[metric] = float(value)
    return found


def score(
    metrics: Mapping[str, Mapping[str, float | None]], baselines: Baselines, tasks: Sequence[Task]
) -> float | None:
    """Δm of one epoch's metrics, as `delta.delta_m` has it: percent, higher is better. None where a metric is not
    finite."""

    def gain(task: Task) -> float:
        gains = []
        for name, metric in task.metrics.items():
            value, baseline = metrics[task.name][name], baselines[task.name][name]
            change = (math.nan if value is None else value - baseline) / baseline
            gains.append(change if metric.higher_is_better else -change)
        return sum(gains) / len(gains)

    return training.number(100 * sum(map(gain, tasks)) / len(tasks))


# -- records -----------------------------------------------------------------------------------------------------------


class Member(BaseModel):
    """A place in the population, epoch by epoch.

    weights: that it trained with [K each]. score: after the epoch, validation Δm in percent; None from where it
    diverged until it takes over from another. parent: the member whose network it took over before the epoch, if any.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    weights: list[list[float]]
    score: list[float | None]
    parent: list[int | None]


class Winner(BaseModel):
    """The network with the highest score of all, at the epoch that had it (the first of several).

    member, epoch: where it was, from 0. weights: that it trained with in this epoch [K]. history: all epochs that
    this network has been through, those of the members that it came from included; the last one is the winner's own.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    member: int
    epoch: int
    score: float
    weights: list[float]
    history: History


class Population(Record):
    """The record of one population.

    ended: "finished", or "all members diverged, the last at epoch e" (from 0): a result, not a crash.
    best: None where no epoch of any member has a score. epochs_trained: of all members together, one that diverged in
    the middle counting as whole: the cost.
    """

    config: PopulationConfig
    code_versions: dict[str, Any] = STORED_AS_NUMERICS
    ended: str
    members: list[Member]
    best: Winner | None
    epochs_trained: int
    seconds: float
    environment: dict[str, str]

    def check(self, *, whole: bool = True) -> None:
        """Number of members, their epochs and weights, how it ended, and that the winner is the best of them."""
        ended = ALL_DIVERGED.fullmatch(self.ended)
        if self.ended != "finished" and not ended:
            raise BadRecord(
                f"ended = {self.ended!r}; expected 'finished' or 'all members diverged, the last at epoch e'"
            )
        epochs, tasks, size = self.config.base.epochs, self.config.base.definition.tasks, self.config.size
        wanted = epochs if ended is None else int(ended[1]) + 1
        if wanted > epochs or len(self.members) != size:
            raise BadRecord(f"it holds {len(self.members)} members, of {size}, and ended: {self.ended}")
        for number, member in enumerate(self.members):
            if {len(member.weights), len(member.score), len(member.parent)} != {wanted}:
                raise BadRecord(f"member {number}: other than {wanted} epochs")
            if any(len(weights) != len(tasks) for weights in member.weights):
                raise BadRecord(f"member {number}: weights of another number than the {len(tasks)} tasks")
            if any(parent is not None and not 0 <= parent < size for parent in member.parent):
                raise BadRecord(f"member {number}: a parent that is none of the {size} members")
        scores = [score for member in self.members for score in member.score if score is not None]
        if (self.best is None) != (not scores):
            raise BadRecord("it has a winner and no scores, or scores and no winner")
        if self.best is not None:
            self._check_winner(self.best, max(scores), wanted)
            check_epochs(self.best.history, metrics_of(tasks))

    def _check_winner(self, best: Winner, highest: float, epochs: int) -> None:
        """Raises BadRecord unless the winner is where the highest score is."""
        there = 0 <= best.member < len(self.members) and 0 <= best.epoch < epochs
        if there:
            member = self.members[best.member]
            there = (member.score[best.epoch], member.weights[best.epoch]) == (best.score, best.weights)
        if not there or best.score != highest or len(best.history) != best.epoch + 1:
            raise BadRecord(
                f"its winner, member {best.member} at epoch {best.epoch}, is not what the members have there"
            )

    def serving(self, config: PopulationConfig) -> Population | None:
        """Itself: what a population does depends on how long it has."""
        return self

    def same_beginning(self, other: Population) -> bool:
        """Whether both are the same, seconds and environment apart."""
        apart = {"seconds", "environment"}
        return self.model_dump(exclude=apart) == other.model_dump(exclude=apart)


class PopulationStore(Store[PopulationConfig, Population]):
    """The populations of a run store: <problem>/populations/<key>.json, or <problem>/populations.jsonl."""

    kind, place = Population, POPULATIONS


# -- one population ----------------------------------------------------------------------------------------------------


def train_population(
    config: PopulationConfig,
    device: str = "auto",
    data_dir: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    every: float = checkpoints.EVERY,
) -> Population:
    """Train all members of one population, epoch by epoch, in this process.

    Args:
        config: the record is a function of it (on one machine, bit for bit). device, data_dir, checkpoint, every: as
            for `training.train`.

    Raises:
        DataNotFound, BadConfig: before training.
    """
    with training.determinism(1, config.base.precision):
        where = training.find_device(device)
        place = training.place_of(checkpoint, config, where)
        return checkpoints.complete(lambda: _Search(config, where, data_dir), place, every).record()


def _from_checkpoint(
    folder: str | os.PathLike[str], config: PopulationConfig, device: str, data_dir: str | None
) -> Population:
    file = training.checkpoint_of(folder, config) if Path(folder).is_dir() else None
    return train_population(config, device, data_dir, file)


class _Search:
    def __init__(self, config: PopulationConfig, device: torch.device, data_dir: str | None) -> None:
        self.config, self.device = config, device
        self.tasks = config.base.definition.tasks
        self.generator = torch.Generator().manual_seed(config.base.seed + 4_000_003)
        self.logits = [config.spread * self._normal() for _ in range(config.size)]  # z of each member [K]
        self.weights = [_weights(z) for z in self.logits]
        self.trainings = [training.Training(config.member(w), device, data_dir) for w in self.weights]
        self.members = [Member(weights=[], score=[], parent=[]) for _ in self.trainings]
        self.best: Winner | None = None
        self.epochs_trained = 0
        self.begun = time.perf_counter()

    def _normal(self) -> torch.Tensor:
        return torch.randn(len(self.tasks), generator=self.generator, dtype=torch.float64)

    @property
    def unfinished(self) -> bool:
        return self.epochs < self.config.base.epochs and not self.all_diverged

    @property
    def beyond(self) -> bool:
        """Never: its length is part of what it is."""
        return False

    @property
    def epochs(self) -> int:
        """How many are done."""
        return len(self.members[0].score)

    @property
    def all_diverged(self) -> bool:
        return all(member.diverged for member in self.trainings)

    def epoch(self) -> None:
        """One more, of all members."""
        epoch = self.epochs
        parents = self._exploit_and_explore() if epoch > 0 and epoch % self.config.exploit_interval == 0 else {}
        for i in range(self.config.size):
            self._epoch(i, parents.get(i))

    def record(self) -> Population:
        """What the search left, as far as it has come."""
        return Population(
            config=self.config,
            code_versions=self.config.code_versions,
            ended=f"all members diverged, the last at epoch {self.epochs - 1}" if self.all_diverged else "finished",
            members=self.members,
            best=self.best,
            epochs_trained=self.epochs_trained,
            seconds=round(time.perf_counter() - self.begun, 2),
            environment=training.environment(self.device, self.trainings[0].smto),
        )

    def state_dict(self) -> dict[str, Any]:
        """Its state between two epochs: a search that continues from here is the same, bit for bit."""
        return {
            "generator": self.generator.get_state(),
            "logits": self.logits,
            "weights": self.weights,
            "trainings": [member.state_dict() for member in self.trainings],
            "members": [member.model_dump_json() for member in self.members],
            "best": None if self.best is None else self.best.model_dump_json(),
            "epochs_trained": self.epochs_trained,
            "seconds": time.perf_counter() - self.begun,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue this very search where another process left it."""
        self.generator.set_state(state["generator"])
        self.logits, self.weights = state["logits"], state["weights"]
        for member, saved in zip(self.trainings, state["trainings"], strict=True):
            member.load_state_dict(saved)
        self.members = [Member.model_validate_json(text) for text in state["members"]]
        self.best = None if state["best"] is None else Winner.model_validate_json(state["best"])
        self.epochs_trained = state["epochs_trained"]
        self.begun = time.perf_counter() - state["seconds"]

    def _epoch(self, i: int, parent: int | None) -> None:
        """One epoch of member i, unless it has diverged, and its line in the record."""
        run, record, found = self.trainings[i], self.members[i], None
        if not run.diverged:
            run.epoch()
            self.epochs_trained += 1
        if not run.diverged:
            found = score(run.history[-1].val, self.config.baselines, self.tasks)
        record.weights.append(self.weights[i])
        record.score.append(found)
        record.parent.append(parent)
        if found is not None and (self.best is None or found > self.best.score):
            self.best = Winner(
                member=i, epoch=len(record.score) - 1, score=found, weights=self.weights[i], history=list(run.history)
            )

    def _exploit_and_explore(self) -> dict[int, int]:
        """The worst quantile, and every member without a score, continue from a member of the best quantile.

        Returns:
            Who took over from whom.
        """
        scores = [-math.inf if (last := member.score[-1]) is None else last for member in self.members]
        ranking = sorted(range(self.config.size), key=lambda i: -scores[i])  # of equals, the earlier is the better
        best = [i for i in ranking[: self.config.per_quantile] if scores[i] > -math.inf]
        if not best:
            return {}
        lost = [i for i in ranking if scores[i] == -math.inf]
        parents = {}
        for child in sorted({*ranking[-self.config.per_quantile :], *lost}):
            parent = best[int(torch.randint(len(best), (), generator=self.generator))]
            self.trainings[child].take_over(self.trainings[parent])
            self.logits[child] = self.logits[parent] + self.config.explore * self._normal()
            self.weights[child] = _weights(self.logits[child])
            given = self.trainings[child].smto.get_buffer("given")
            given.copy_(torch.tensor(self.weights[child], dtype=torch.float64))
            parents[child] = parent
        return parents


def _weights(z: torch.Tensor) -> list[float]:
    """softmax(z) [K], with the seven digits that the record has."""
    return [float(f"{w:.7g}") for w in z.softmax(0).tolist()]


# -- several -----------------------------------------------------------------------------------------------------------


def populations(configs: Iterable[PopulationConfig], store: str | os.PathLike[str], **how: Any) -> list[Population]:
    """The records of these populations, in order; those that the store does not hold are trained and stored.

    Args:
        configs: duplicates are trained once. store: the folder of the runs.
        how: workers, device, data_dir, title as for `runner.run`, which also says what is raised. A population is
            trained in one process.
    """
    place = PopulationStore(store)
    train = functools.partial(_from_checkpoint, place.folder.resolve())  # not into an archive
    return runner.records(configs, place, train, **{"title": "populations", **how})
