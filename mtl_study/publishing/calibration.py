"""What a training step takes on the device at hand: its seconds, measured on drawn samples of the right size, and its
memory, counted on tensors without numbers. No data are needed."""

from __future__ import annotations

import functools
import time
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from mtl_core import problems, smtos
from mtl_core.datasets.qm9 import Group, Molecules
from mtl_core.models import deeplab
from mtl_core.smtos.base import ProblemInfo
from mtl_core.step import MultiTaskModel, Step
from mtl_study.experiments.runs import RunConfig

ATOMS = 18  # of the usual molecule of QM9
AT_A_TIME = {"multimnist": 64, "cityscapes": 2, "qm9": 24}  # samples per step that are enough for a processor
ROUNDS, ENOUGH = 4, 0.5  # steps at most, and seconds after which there are no more
STANDS_FOR = {"losses": "unit_scal", "features": "mgda_ub", "parameters": "cagrad"}  # of all methods of a space


class Shape(NamedTuple):
    """Of what a step does: runs of one shape take equally long. way: a space, or a method that
    does more than the others of its own, as Auto-Lambda with its second batch does."""

    problem: str
    options: tuple[tuple[str, Any], ...]
    batch: int
    way: str


def shape(config: RunConfig) -> Shape:
    """That of a run; of problems with as many tasks and classes, and features of one size, one stands for all."""
    whole = config.definition
    classes = getattr(whole.data, "classes", 0) if "S" in whole.task_names else 0
    network = whole.name.split("/")[0], whole.feature_shape, len(whole.tasks), classes
    options = tuple((k, v) for k, v in sorted(config.problem_options.items()) if k in ("width", "slim", "max_atoms"))
    space: str = smtos.get(config.smto).space
    way = space if space in STANDS_FOR and config.smto != "auto_lambda" else config.smto
    return Shape(_first(network, options, whole.name), options, config.batch_size, way)


_KNOWN: dict[Any, str] = {}


def _first(*key: Any) -> str:
    return _KNOWN.setdefault(key[:-1], key[-1])


def problem(found: Shape) -> problems.Problem:
    return problems.get(found.problem, **dict(found.options))


def batch(whole: problems.Problem, n: int, device: torch.device) -> tuple[Any, list[Tensor]]:
    """Inputs and targets of n drawn samples, in the shapes of the real ones."""
    on: dict[str, Any] = {"device": device}
    family = whole.name.split("/")[0]
    if family == "qm9":
        atoms = min(ATOMS, getattr(whole.data, "max_atoms", None) or ATOMS)
        group = Group(torch.arange(n, **on), torch.rand(n, atoms, 11, **on), torch.rand(n, atoms, atoms, 5, **on))
        return Molecules([group], n), [torch.randn(n, 1, **on) for _ in whole.tasks]
    if family == "multimnist":
        targets = [
            torch.randint(10, (n,), **on) if name[0] == "C" else torch.rand(n, 28, 28, **on)
            for name in whole.task_names
        ]
        return torch.rand(n, 1, 28, 28, **on), targets
    high, wide = (side * deeplab.STRIDE for side in whole.feature_shape[1:])
    targets = [
        torch.randint(getattr(whole.data, "classes", 1), (n, high, wide), **on)
        if name == "S"
        else torch.rand(n, {"D": 1, "I": 3}[name], high, wide, **on)
        for name in whole.task_names
    ]
    return torch.randn(n, 3, high, wide, **on), targets


def seconds(found: Shape, device: torch.device) -> float:
    """What a step takes per sample, the fastest of a few. A processor takes fewer samples at a time, and its own time
    counts, whatever else the machine does."""
    whole = problem(found)
    n = min(found.batch, AT_A_TIME[found.problem.split("/")[0]]) if device.type == "cpu" else found.batch
    torch.manual_seed(0)
    model = whole.build_model(0.0).to(device).to(memory_format=torch.channels_last)
    smto = smtos.build(STANDS_FOR.get(found.way, found.way), len(whole.tasks))
    smto.set_up(ProblemInfo(tuple(t.likelihood for t in whole.tasks), whole.feature_shape, 1e-3, 0.0), seed=0)
    smto.to(device)
    smto.begin_epoch(0, None, 1e-3)
    groups = [{"params": list(model.parameters())}, *smto.parameter_groups(1e-3)]
    optimizer = torch.optim.Adam(groups, lr=1e-3, fused=True)
    losses = [task.loss for task in whole.tasks]
    draw = functools.partial(batch, whole, n, device)
    clock = time.process_time if device.type == "cpu" else time.perf_counter

    def one() -> float:
        samples = draw()
        _wait(device)
        begun = clock()
        step = Step(
            model,
            losses,
            *samples,
            transform_features=smto.transform_features,
            second_batch=draw,
            replay=smto.replay,
        )
        smto.backward(step)
        optimizer.step()
        smto.after_step(step)
        _wait(device)
        return clock() - begun

    times = [one()]
    while len(times) < ROUNDS and sum(times) < ENOUGH:
        times.append(one())
    return min(times) / n


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory(found: Shape) -> int:
    """Bytes of one run: what the forward pass keeps for the backward one, and parameters with their gradients and
    Adam's two averages; where the method reads the gradients on the parameters, those of every task, too. Without the
    data and what the device's libraries take."""
    whole, nowhere = problem(found), torch.device("meta")
    with nowhere:
        model: MultiTaskModel = whole.build_model(0.0)
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    x, targets = batch(whole, found.batch, nowhere)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        z = model.encoder(x)
        held = [
            task.loss(head(z), target)
            for task, head, target in zip(whole.tasks, model.heads.values(), targets, strict=True)
        ]
    assert len(held) == len(whole.tasks)
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    activations = sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in own)
    copies = len(whole.tasks) if found.way == "parameters" else 0
    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    shared = sum(p.numel() * p.element_size() for p in model.encoder.parameters())
    return activations + 4 * parameters + copies * shared
