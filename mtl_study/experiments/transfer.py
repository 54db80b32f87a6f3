"""What features are worth on corrupted pictures: a trained encoder is kept as it is, and its heads are retrained.

    transfer(config)             one run, its heads tuned on corrupted pictures, and its scores on all corruptions
    transfers(configs, store)    several; those that the store does not hold are trained

1. Train a run, multi-task or single-task. Its test scores after the last epoch are the clean ones.
2. Corrupt the training pictures, each by a corruption and at a severity that are drawn for it, and train the heads on
   them with Adam, each on its own task. Targets stay as they are.
3. Test on the whole test split under every corruption and severity, which is the same for all runs.

Source: Elich et al. 2024, arXiv:2311.04698, appendix A6.
Differs: 1. Ten of the fifteen corruptions (experiments/corruptions.py). 2. A corruption is drawn once per training
picture, not once per epoch, so that the features are computed once. 3. The paper gives neither epochs nor step
size of the tuning; 4. nor what the clean score is read from: here the last epoch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import ModuleList

from mtl_core.datasets.base import Split, SplitName
from mtl_core.datasets.multimnist import MEAN, STD
from mtl_study.experiments import runner, training
from mtl_study.experiments.corruptions import SEVERITIES, corrupt
from mtl_study.experiments.extras import ExtraConfig, ExtraRecord, to_the_end
from mtl_study.experiments.runs import BadRecord, Positive
from mtl_study.experiments.store import TRANSFERS, Store
from mtl_study.experiments.training import Training

LEVELS = range(1, 6)  # the severities
ALL = [(name, severity) for name in SEVERITIES for severity in LEVELS]
Scores = dict[str, dict[str, float | None]]  # by task and metric, as in a run's record


class TransferConfig(ExtraConfig):
    """Everything that the scores depend on.

    tuning_epochs, tuning_lr: of the heads, with the run's batch size.
    """

    place: ClassVar[str] = TRANSFERS
    code_version: ClassVar[int] = 2  # raise when the numbers that this file, or corruptions.py, produces change

    tuning_epochs: Annotated[int, Field(ge=1)]
    tuning_lr: Positive = 0.001

    @model_validator(mode="after")
    def _pictures_only(self) -> TransferConfig:
        if not self.base.problem.startswith("multimnist/"):
            raise ValueError(f"base.problem = {self.base.problem!r}: only digits can be corrupted here.")
        return self


class Transfer(ExtraRecord):
    """clean: test scores of the run itself. corrupted: with the heads that were tuned, by corruption, one per severity.
    Both are empty where the run diverged."""

    config: TransferConfig
    clean: Scores
    corrupted: dict[str, list[Scores]]

    def check(self, *, whole: bool = True) -> None:
        """Corruptions, severities, tasks and metrics."""
        wanted = {task.name: set(task.metrics) for task in self.config.base.definition.tasks}
        if not self.finished:
            if self.clean or self.corrupted:
                raise BadRecord(f"it has scores and ended: {self.ended}")
            return
        if set(self.corrupted) != set(SEVERITIES) or any(len(s) != len(LEVELS) for s in self.corrupted.values()):
            raise BadRecord(f"other corruptions or severities than {', '.join(SEVERITIES)} at {len(LEVELS)} each")
        for scores in (self.clean, *(one for levels in self.corrupted.values() for one in levels)):
            if {task: set(metrics) for task, metrics in scores.items()} != wanted:
                raise BadRecord(f"other tasks or metrics than {', '.join(wanted)} with theirs")


class TransferStore(Store[TransferConfig, Transfer]):
    """The transfers of a run store: <problem>/transfers/<key>.json, or <problem>/transfers.jsonl."""

    kind, place = Transfer, TRANSFERS


def transfer(config: TransferConfig, device: str = "auto", data_dir: str | None = None) -> Transfer:
    """Train one run, tune its heads on corrupted pictures, and test it."""

    def found(run: Training) -> dict[str, Any]:
        if run.diverged:
            return {"clean": {}, "corrupted": {}}
        return {"clean": run.history[-1].test, "corrupted": _tuned(config, run)}

    return to_the_end(Transfer, config, device, lambda where: Training(config.base, where, data_dir), found)


def transfers(configs: Iterable[TransferConfig], store: str | os.PathLike[str], **how: Any) -> list[Transfer]:
    """The transfers of several runs, in order; those that the store does not hold are trained and stored.

    Args:
        how: as for `runner.run`.
    """
    return runner.records(configs, TransferStore(store), transfer, **{"title": "transfers", **how})


def _tuned(config: TransferConfig, run: Training) -> dict[str, list[Scores]]:
    """Heads trained on corrupted pictures, and their scores on every corruption and severity."""
    model, device = run.model, run.device
    draw = torch.Generator().manual_seed(config.base.seed + 5_000_003)
    clean, targets = _all(run, "train")
    which = torch.randint(len(ALL), (len(clean),), generator=draw)
    mixed = clean.clone()
    for i, (name, severity) in enumerate(ALL):
        if (which == i).any():
            mixed[which == i] = corrupt(clean[which == i], name, severity, draw)
    z = _features(run, mixed)
    heads = ModuleList(model.heads.values())
    optimizer = torch.optim.Adam(heads.parameters(), lr=config.tuning_lr)
    heads.train()
    for _ in range(config.tuning_epochs):
        for index in torch.randperm(len(z), generator=draw).to(device).split(config.base.batch_size):
            predictions = model.predictions([z[index]] * len(run.tasks), run.smto.transform_features)
            optimizer.zero_grad()
            losses = [t.loss(p, y[index]) for t, p, y in zip(run.tasks, predictions, targets, strict=True)]
            torch.stack(losses).sum().backward()
            optimizer.step()
    heads.eval()
    clean, targets = _all(run, "test")
    found: dict[str, list[Scores]] = {name: [] for name in SEVERITIES}
    for number, (name, severity) in enumerate(ALL):
        of_test = torch.Generator().manual_seed(6_000_003 + number)  # no seed of a run: all meet the same pictures
        found[name].append(_scores(run, _features(run, corrupt(clean, name, severity, of_test)), targets))
    return found


def pictures(split: Split, device: torch.device = torch.device("cpu")) -> Tensor:  # noqa: B008
    """All pictures of a split of digits that is on a device: [N, 1, 28, 28] from 0 to 1, on the host."""
    x, _ = split.batch(torch.arange(len(split), device=device), ())
    return (x.float().cpu() * STD + MEAN).clamp(0, 1)


def _all(run: Training, name: SplitName) -> tuple[Tensor, list[Tensor]]:
    """All pictures of a split, and their targets."""
    split = run.data[name]
    _, targets = split.batch(torch.arange(len(split), device=run.device), run.names)
    return pictures(split, run.device), list(targets)


@torch.no_grad()
def _features(run: Training, x: Tensor) -> Tensor:
    """Of pictures from 0 to 1, by the encoder in evaluation mode."""
    encoder = run.model.encoder.eval()
    dtype = next(encoder.parameters()).dtype
    x = ((x - MEAN) / STD).to(run.device, dtype)
    return torch.cat([encoder(part) for part in x.split(run.problem.evaluation_batch)])


@torch.no_grad()
def _scores(run: Training, z: Tensor, targets: list[Tensor]) -> Scores:
    predictions = run.model.predictions([z] * len(run.tasks), run.smto.transform_features)
    return {
        task.name: {
            name: training.number(metric.value(metric.statistic(prediction, target)))
            for name, metric in task.metrics.items()
        }
        for task, prediction, target in zip(run.tasks, predictions, targets, strict=True)
    }
