"""What a training step takes on the device at hand: seconds, measured on drawn samples in the shapes of the real ones,
or scaled from one that was measured by the operations of both; and memory. Operations and memory are counted on tensors
without numbers. No data are needed.
"""

from __future__ import annotations

import functools
import math
import os
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from mtl_core import problems, smtos
from mtl_core.datasets import cityscapes
from mtl_core.models import deeplab
from mtl_core.molecules import Group, Molecules
from mtl_core.smtos.base import SMTO, ProblemInfo
from mtl_core.step import MultiTaskModel, Step
from mtl_study.experiments import training
from mtl_study.experiments.runs import RunConfig
from mtl_study.experiments.waits import Waits

ATOMS = 18  # of the usual molecule of QM9
LONGEST = 30.0  # seconds that are measured for
SHARE = 1 / 6  # of the seconds that are left may go to one step of a shape
FEWEST, ROUNDS, ENOUGH = 2, 4, 0.5  # steps at least, since the first is slow; at most; seconds that are enough
SIDE, TIMES = 256, 3  # of a product; so many times as long in bfloat16 it takes where the device has none
SLOW = 1e10  # operations per second, of a device of which nothing is known yet
STANDS_FOR = {"losses": "unit_scal", "features": "mgda_ub", "parameters": "cagrad"}  # of all methods of a space
MORE = {"second_batch", "after_step", "transform"}  # what makes a method's step longer than that of its space
PER_PIXEL = {"images": 3, "labels": 1, "instances": 1, "disparity": 1}  # numbers in Cityscapes' maps
PER_SAMPLE = {"multimnist": 2 * 4 * 28 * 28, "qm9": 800}  # bytes; a pair of digits comes with the picture of one
NOWHERE = torch.device("meta")


class Shape(NamedTuple):
    """Of what a step does: steps of one shape take equally long. way: a space, or a method that does more than the
    others of its own, as Auto-Lambda with its second batch does."""

    problem: str
    options: tuple[tuple[str, Any], ...]
    batch: int
    way: str

    @property
    def family(self) -> str:
        """ "multimnist" """
        return self.problem.split("/")[0]

    def __str__(self) -> str:
        options = "".join(f", {name} {value}" for name, value in self.options)
        return f"{self.problem}{options}, {STANDS_FOR.get(self.way, self.way)}, {self.batch} samples"


def shape(config: RunConfig) -> Shape:
    """That of a run. One problem serves for all with as many tasks and classes, and features of the same size."""
    whole = config.definition
    classes = getattr(whole.data, "classes", 0) if "S" in whole.task_names else 0
    network = whole.name.split("/")[0], whole.feature_shape, len(whole.tasks), classes
    options = tuple(
        (k, v) for k, v in sorted(config.problem_options.items()) if k in ("width", "slim", "max_atoms", "upsampling")
    )
    method = smtos.get(config.smto)
    way: str = method.space if method.space in STANDS_FOR and not MORE & {*method.needs} else config.smto
    return Shape(_first(network, options, whole.name), options, config.batch_size, way)


_KNOWN: dict[Any, str] = {}


def _first(*key: Any) -> str:
    return _KNOWN.setdefault(key[:-1], key[-1])


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


def method(found: Shape) -> SMTO:
    """The one that a shape's way names, as it is after a warm-up."""
    key, tasks = STANDS_FOR.get(found.way, found.way), len(problems.get(found.problem).tasks)
    options: dict[str, dict[str, Any]] = {
        "fixed": {"weights": [1 / tasks] * tasks},
        "bayesagg_mtl": {"warm_up": 0},
    }
    return smtos.build(key, tasks, **options.get(key, {}))


def one_step(found: Shape, device: torch.device, amp: bool = False) -> Callable[[], None]:
    """A training step of a fresh network, on samples that are drawn once."""
    whole = problems.get(found.problem, **dict(found.options))
    torch.manual_seed(0)
    with device:
        model: MultiTaskModel = whole.build_model(0.0)
    model.to(memory_format=torch.channels_last)
    smto = method(found)
    smto.set_up(ProblemInfo(tuple(t.likelihood for t in whole.tasks), whole.feature_shape, 1e-3, 0.0), seed=0)
    smto.to(device)
    smto.begin_epoch(0, None, 1e-3)
    groups = [{"params": list(model.parameters())}, *smto.parameter_groups(1e-3)]
    optimizer = torch.optim.Adam(groups, lr=1e-3, fused=device != NOWHERE)
    averages: list[Tensor] = []
    samples, losses = batch(whole, found.batch, device), [task.loss for task in whole.tasks]

    def move() -> None:
        """Adam's step, which makes nothing but two averages for each parameter, in the first step."""
        if device != NOWHERE:
            optimizer.step()
        elif not averages:
            moved = [p for group in groups for p in group["params"] if p.grad is not None]
            averages.extend(torch.zeros_like(p) for p in (*moved, *moved))

    def one() -> None:
        with torch.autocast(device.type, torch.bfloat16) if amp else nullcontext():
            step = Step(
                model,
                losses,
                *samples,
                transform_features=smto.transform_features,
                second_batch=lambda: samples,
                replay=smto.replay,
            )
        smto.backward(step)
        move()
        smto.after_step(step)

    return one


def seconds(found: Shape, device: torch.device, amp: bool = False) -> float:
    """What a step takes, the fastest of a few. On a processor only its own computing time counts."""
    one = one_step(found, device, amp)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    times: list[float] = []
    while len(times) < FEWEST or (len(times) < ROUNDS and sum(times) < ENOUGH):
        _wait(device)
        begun = clock()
        one()
        _wait(device)
        times.append(clock() - begun)
    return min(times)


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 itself, as a product of matrices shows. One that does not is many times
    slower under autocast."""
    times = []
    for kind in (torch.float32, torch.bfloat16):
        a = torch.ones(SIDE, SIDE, dtype=kind, device=device)
        each = []
        for _ in range(ROUNDS):
            _wait(device)
            begun = time.perf_counter()
            a @ a
            _wait(device)
            each.append(time.perf_counter() - begun)
        times.append(min(each))
    return times[1] < TIMES * times[0]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Alive(TorchDispatchMode):
    """Bytes of all tensors without numbers that are alive: now, and at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.is_meta:
                storage = tensor.untyped_storage()
                if storage._cdata not in self.known:
                    self.known[storage._cdata] = storage.nbytes()
                    self.now += storage.nbytes()
                    self.most = max(self.most, self.now)
                    weakref.finalize(storage, self._gone, storage._cdata)
        return made

    def _gone(self, key: int) -> None:
        self.now -= self.known.pop(key)


@functools.cache
def _counted(found: Shape) -> tuple[float, int]:
    """Operations of a step as runs take it, and bytes at most in a second one, which has the averages that Adam begins
    in the first."""
    with training.determinism(1), Alive() as alive, Waits():
        one = one_step(found, NOWHERE)
        with FlopCounterMode(display=False) as counter:
            one()
        alive.most = alive.now
        one()
    return float(counter.get_total_flops()), alive.most


def work(found: Shape) -> float:
    """Operations of a step: products and convolutions."""
    return _counted(found)[0]


def memory(found: Shape) -> int:
    """Bytes of one run, at most: network, gradients and Adam's averages, what the backward pass needs, and what the
    method makes. Without the data and what the device's libraries take."""
    return _counted(found)[1]


class Steps(dict[Shape, float]):
    """Seconds of the steps that were measured; of all others what follows from them."""

    def like(self, wanted: Shape) -> Shape:
        """The measured shape that one follows from: the shape itself or its network with fewer samples; or of the same
        network or else data that which has the nearest work."""

        def distance(one: Shape) -> tuple[bool, bool, bool, float]:
            network, way = one[:2] == wanted[:2], one.way == wanted.way
            return one.family != wanted.family, not network, not way, abs(math.log(work(one) / work(wanted)))

        return wanted if wanted in self else min(self, key=distance)

    def seconds(self, wanted: Shape) -> float:
        """Of a step, as long as its work is of that which was measured."""
        known = self.like(wanted)
        return self[known] * (work(wanted) / work(known) if known != wanted else 1)

    def measure(self, wanted: Iterable[Shape], clock: Callable[[Shape], float], longest: float = LONGEST) -> None:
        """Measure these shapes, one after the other, as long as there is time; one whose step would take more than its
        share of what is left with fewer samples, by halves down to two, or not at all. The first of a family is
        measured in any case: what is known of other data says little of its steps."""
        end = time.perf_counter() + longest
        for one in wanted:
            few = self.fitting(one, SHARE * (end - time.perf_counter()))
            if few is None and not self.knows(one):
                few = one._replace(batch=min(one.batch, 2))
            while few is not None and few not in self:
                try:
                    self[few] = clock(few)
                except torch.OutOfMemoryError:  # half as many samples, down to two
                    few = few._replace(batch=few.batch // 2) if few.batch >= 4 else None

    def fitting(self, one: Shape, most: float) -> Shape | None:
        """The shape with so few samples, by halves down to two, that its step takes no more seconds than that."""
        whole = self.expected(one)
        n = next((n for n in _halves(one.batch) if whole * n / one.batch <= most), None)
        return None if n is None else one._replace(batch=n)

    def expected(self, wanted: Shape) -> float:
        return self.seconds(wanted) if self.knows(wanted) else work(wanted) / SLOW

    def knows(self, wanted: Shape) -> bool:
        """Whether a shape of the same family was measured."""
        return any(one.family == wanted.family for one in self)


def _halves(n: int) -> Iterator[int]:
    while n >= 2:
        yield n
        n //= 2


def in_turn(taken: Mapping[Shape, float]) -> list[Shape]:
    """In which order shapes are measured: the one with the least work of each family, so that something is known of
    all, then those first whose steps are taken most often: so the time that is measured for tells most."""
    light: dict[str, Shape] = {}
    for one in sorted(taken, key=work):
        light.setdefault(one.family, one)
    return list(dict.fromkeys([*light.values(), *sorted(taken, key=lambda one: -taken[one])]))


def maps(configs: Iterable[RunConfig | Any]) -> int:
    """Bytes of Cityscapes' maps that a process keeps on a GPU: those of the two largest folders that its runs read
    (`cityscapes._open_maps`), nothing where they are streamed."""
    bases = [config.base for config in configs if config.base.problem.startswith("cityscapes/")]
    if os.environ.get("MTL_STREAM"):
        return 0
    pixel = sum(np.dtype(cityscapes.ARRAYS[name]).itemsize * n for name, n in PER_PIXEL.items())
    found = set()
    for base in bases:
        data: Any = base.definition.data
        scenes = sum(base.sizes if base.source == "embedded" else data.sizes(base.source))
        found.add((scenes * data.width * (data.width // 2) * pixel, data.aligned))
    return sum(size for size, _ in sorted(found)[-2:])


def samples(configs: Iterable[RunConfig | Any]) -> int:
    """Bytes of the other samples that a process keeps: of digits and of molecules, those of the run that has most."""
    most: dict[str, int] = {}
    for config in configs:
        family = config.base.problem.split("/")[0]
        most[family] = max(most.get(family, 0), sum(config.base.sizes) * PER_SAMPLE.get(family, 0))
    return sum(most.values())
