"""What `mtl_core.Balancer` keeps of a method in your own loop: every way of training, compared with the trainer's
step on three small tasks. docs/methods.md has the table; the tests measure every cell.
"""

from __future__ import annotations

import copy
import functools
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from mtl_core.balancer import Balancer
from mtl_core.smtos.base import SMTO, ProblemInfo
from mtl_core.smtos.registry import build, get
from mtl_core.step import MultiTaskModel, Step

K, LR, SIZE, STEPS = 3, 0.05, 8, 6
LOSSES: list[Callable[[Tensor, Tensor], Tensor]] = [F.cross_entropy, F.mse_loss, F.mse_loss]
INFO = ProblemInfo(("softmax", "gaussian", "gaussian"), (5,), LR, 0.0)
OPTIONS: dict[str, dict[str, Any]] = {
    "fixed": {"weights": [0.2, 0.3, 0.5]},
    "bayesagg_mtl": {"warm_up": 1},
    "stch": {"warm_up": 0},
}
MISSING: dict[int, tuple[int, ...]] = {1: (0,), 3: (1, 2), 4: (2,)}  # tasks that are not in these batches


@dataclass(frozen=True)
class Way:
    """How a loop trains.

    amp: the forward pass under autocast to bfloat16. scale: of a GradScaler, 0: none. parts: of each step. partial:
    tasks are missing from some batches. saved: everything is saved and restored in new objects before this step.
    replicas: each process has its share of every batch. features: whether they are given.
    """

    amp: bool = False
    scale: float = 0.0
    parts: int = 1
    partial: bool = False
    saved: int = -1
    replicas: tuple[int, int] = (0, 1)
    features: bool = True

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.amp else torch.float64

    def autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.amp)

    def missing(self, number: int) -> tuple[int, ...]:
        return MISSING.get(number, ()) if self.partial else ()


#: what docs/methods.md has a column for
WAYS = {
    "loop": Way(),
    "accumulation": Way(parts=2),
    "partial labels": Way(partial=True),
    "saved and loaded": Way(saved=3),
    "AMP": Way(amp=True),
    "GradScaler": Way(amp=True, scale=1024.0),
    "two processes": Way(replicas=(0, 2)),
}
REFUSED = {("bayesagg_mtl", "partial labels")}


def digits(key: str, way: str) -> int | None:
    """To how many digits your own loop takes the trainer's gradients; None where it is refused. In bfloat16,
    of two digits, one sum of all tasks' gradients rounds otherwise than one per task."""
    if (key, way) in REFUSED:
        return None
    if WAYS[way].amp:
        return 1 if get(key).space == "losses" or key == "gradnorm" else 6
    return 12


def network(dtype: torch.dtype) -> MultiTaskModel:
    """An encoder and three linear heads, the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5), nn.Tanh())
        return MultiTaskModel(encoder, {"a": nn.Linear(5, 3), "b": nn.Linear(5, 2), "c": nn.Linear(5, 1)}).to(dtype)


@functools.cache
def samples(dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    x = torch.randn(12 * SIZE, 6, generator=torch.Generator().manual_seed(1)).to(dtype)
    return x, [x[:, :3].argmax(1), torch.stack([x[:, 0] - x[:, 4], 3 * x[:, 5]], 1), 0.5 * x[:, :1] - x[:, 3:4]]


def batch(number: int, way: Way, part: int = 0) -> tuple[Tensor, list[Tensor]]:
    """The samples of a step, or of its part, that this process sees."""
    (rank, count), (x, targets) = way.replicas, samples(way.dtype)
    size = SIZE // count // way.parts
    start = SIZE * (number % 12) + size * (rank + count * part)
    return x[start : start + size], [y[start : start + size] for y in targets]


def method(key: str) -> SMTO:
    return build(key, K, **OPTIONS.get(key, {}))


def gradients(*modules: nn.Module) -> Tensor:
    """All of .grad, flat [P]; zeros where there is none."""
    everyone = [p for module in modules for p in module.parameters()]
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in everyone])


def by_trainer(key: str, way: Way) -> list[Tensor]:
    """The gradients of every step as the trainer takes them."""
    smto, model, found = method(key), network(way.dtype), []
    smto.set_up(INFO, 0)
    smto.to(way.dtype)
    optimizer = torch.optim.SGD([{"params": list(model.parameters())}, *smto.parameter_groups(LR)], lr=LR)
    seen: list[list[Tensor]] = [[] for _ in range(K)]

    def step(number: int, losses: Sequence[Any], data: tuple[Tensor, list[Tensor]]) -> Step:
        with way.autocast():
            return Step(
                model,
                losses,
                *data,
                transform_features=smto.transform_features,
                second_batch=lambda: batch(number + 1, Way(amp=way.amp)),
                replay=smto.replay,
            )

    last = torch.zeros(K)
    for number in range(STEPS):
        if number % 2 == 0:
            means = torch.stack([torch.stack(s).mean() for s in seen]) if number else None
            smto.begin_epoch(number // 2, means, LR)
            seen = [[] for _ in range(K)]
        missing = way.missing(number)
        constant = {k: lambda p, y, value=last[k]: value + 0 * p.sum() for k in missing}
        losses = [constant.get(k, LOSSES[k]) for k in range(K)]
        whole, total = step(number, losses, batch(number, Way(amp=way.amp))), torch.zeros(())
        for part in range(way.parts):
            one = whole if way.parts == 1 else step(number, losses, batch(number, way, part))
            smto.backward(one)
            total = total + gradients(model, smto) / way.parts
        found.append(total)
        last = whole.losses
        for k in set(range(K)) - set(missing):
            seen[k].append(last[k])
        own = [*model.parameters(), *smto.parameters()]
        for p, part in zip(own, total.split([p.numel() for p in own]), strict=True):
            p.grad = part.view_as(p)
        optimizer.step()
        smto.after_step(whole)
    return found


class Loop:
    """Your own loop, giving every method what it needs."""

    def __init__(self, key: str, way: Way) -> None:
        self.way, self.smto, self.model = way, method(key), network(way.dtype)
        self.balance = Balancer(
            self.smto,
            shared=self.model.encoder.parameters(),
            lr=LR,
            likelihoods=INFO.likelihoods,
            feature_shape=INFO.feature_shape,
            heads=self.model.heads,  # type: ignore[arg-type]
            tasks=list(self.model.heads),
        )
        groups = [{"params": list(self.model.parameters())}, *self.balance.parameters()]
        self.optimizer = torch.optim.SGD(groups, lr=LR)
        self.scaler = torch.amp.GradScaler("cpu", way.scale or 1.0, growth_interval=10**6) if way.scale else None
        self.encoder = self.model.encoder
        if way.replicas[1] > 1:
            self.encoder = DistributedDataParallel(self.encoder)

    def forward(self, number: int, part: int = 0) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
        """The features, the losses of the tasks that are there, the targets."""
        (x, targets), way = batch(number, self.way, part), self.way
        with way.autocast():
            z = self.encoder(x)
            losses = {
                name: LOSSES[k](head(self.balance.transform(z, k)), targets[k])
                for k, (name, head) in enumerate(self.model.heads.items())
                if k not in way.missing(number)
            }
        return z, losses, targets

    def means(self, number: int) -> dict[str, Tensor]:
        """The losses of a step, averaged over its parts."""
        parts = [self.forward(number, part)[1] for part in range(self.way.parts)]
        return {name: torch.stack([losses[name] for losses in parts]).mean() for name in parts[0]}

    def another(self, number: int) -> Callable[[], dict[str, Tensor]]:
        """The losses of a second batch: that of the next step, whole."""
        whole, names = copy.copy(self), self.forward(number)[1]
        whole.way = replace(self.way, parts=1, partial=False)
        return lambda: {name: loss for name, loss in whole.means(number + 1).items() if name in names}

    def step(self, number: int) -> Tensor:
        """One step; the gradients that it took [P]."""
        if number % 2 == 0:
            self.balance.begin_epoch()
        self.optimizer.zero_grad()
        with self.balance.accumulate(self.way.parts):
            for part in range(self.way.parts):
                z, losses, targets = self.forward(number, part)
                self.balance.backward(
                    losses,
                    features=z if self.way.features else None,
                    targets=targets,
                    second_batch=self.another(number),
                    scaler=self.scaler,
                )
        found = gradients(self.model, self.smto)
        if self.scaler is None:
            self.optimizer.step()
        else:
            found = found / self.scaler.get_scale()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.balance.after_step(lambda: self.means(number))
        return found


def by_hand(key: str, way: Way) -> list[Tensor]:
    """The gradients of every step as your own loop takes them."""
    loop, found = Loop(key, way), []
    for number in range(STEPS):
        if number == way.saved:
            kept = io.BytesIO()
            torch.save([part.state_dict() for part in (loop.model, loop.balance, loop.optimizer)], kept)
            kept.seek(0)
            loop = Loop(key, way)
            parts: tuple[Any, ...] = (loop.model, loop.balance, loop.optimizer)
            for part, state in zip(parts, torch.load(kept), strict=True):
                part.load_state_dict(state)
        found.append(loop.step(number))
    return found


def across(rank: int, count: int, meeting: str, keys: Sequence[str], folder: str) -> None:
    """In one of several processes: `by_hand` with this process's share of every batch, written to a file."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=count)
    way = Way(replicas=(rank, count))
    torch.save({key: by_hand(key, way) for key in keys}, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def apart(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """The largest difference of any step, as a share of its largest entry; NaN counts as infinite."""
    gaps = [float((a.double() - b.double()).abs().max() / b.abs().max()) for a, b in zip(ours, theirs, strict=True)]
    return math.inf if any(map(math.isnan, gaps)) else max(gaps)
