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
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import ExponentialLR
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

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
    replicas: each process has its share of every batch. features: whether they are given. half: network and data are
    in bfloat16. scheduled: gradients are clipped, and every epoch halves the step size. apart: each task has batches of
    its own. frozen: the encoder's first layer is, before this step. wrap: what is around the encoder. network: layers
    and a transformer with dropout give one tensor of features, an LSTM a dict with a list in it.
    """

    amp: bool = False
    scale: float = 0.0
    parts: int = 1
    partial: bool = False
    saved: int = -1
    replicas: tuple[int, int] = (0, 1)
    features: bool = True
    half: bool = False
    scheduled: bool = False
    apart: bool = False
    frozen: int = -1
    wrap: Literal["", "checkpointed", "compiled"] = ""
    network: Literal["layers", "transformer", "lstm"] = "layers"

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.half else torch.float32 if self.amp else torch.float64

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
    "clipping, scheduler": Way(scheduled=True),
    "a dataset per task": Way(apart=True),
    "a layer frozen midway": Way(frozen=3),
    "checkpointing": Way(wrap="checkpointed"),
    "torch.compile": Way(wrap="compiled"),
    "all bfloat16": Way(half=True),
    "transformer": Way(network="transformer"),
    "LSTM, features in a dict": Way(network="lstm"),
}
TABLES = list(WAYS)[:7], list(WAYS)[7:]  # the columns of the two tables
ONE_TENSOR = ("bayesagg_mtl", "graddrop", "rotograd")  # of features is what they look at
PER_PARAMETER = ("db_mtl", "excess_mtl", "moco")  # is what they remember of earlier steps
REFUSED = {
    ("bayesagg_mtl", "partial labels"),
    *((key, name) for key in ONE_TENSOR for name, way in WAYS.items() if way.apart or way.network == "lstm"),
    *((key, "a layer frozen midway") for key in PER_PARAMETER),
}


def digits(key: str, way: str) -> int | None:
    """To how many digits your own loop takes the trainer's gradients; None where it is refused. In bfloat16,
    of two digits, one sum of all tasks' gradients rounds otherwise than one per task, and so does a sum of losses."""
    if (key, way) in REFUSED:
        return None
    if WAYS[way].half and key == "auto_lambda":
        return 3
    if WAYS[way].amp or WAYS[way].half:
        return 1 if get(key).space == "losses" or key == "gradnorm" else 6
    return 12


class Transformer(nn.Module):
    """Six numbers as six words; one layer of attention, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = nn.Linear(1, 4), nn.Linear(4, 5)
        self.layer = nn.TransformerEncoderLayer(4, nhead=2, dim_feedforward=8, dropout=0.1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.out(self.layer(self.words(x.unsqueeze(2))).mean(1))
        return z


class Recurrent(nn.Module):
    """Six numbers one after the other. Features: the last state, and the mean of all, in a dict with a list in it; or
    joined, one after the other, as the trainer takes them."""

    def __init__(self, joined: bool) -> None:
        super().__init__()
        self.lstm, self.joined = nn.LSTM(1, 5, batch_first=True), joined

    def forward(self, x: Tensor) -> Any:
        states, (last, _) = self.lstm(x.unsqueeze(2))
        parts = [last[0], states.mean(1)]
        return torch.cat(parts, 1) if self.joined else {"last": parts[0], "others": parts[1:], "mask": (x > 0).to(x)}


class HeadOnPart(nn.Linear):
    """A head on one of two parts of the features, in a nest or joined."""

    def __init__(self, outputs: int, which: int) -> None:
        super().__init__(5, outputs)
        self.which = which

    def forward(self, z: Any) -> Tensor:
        parts = z.split(5, 1) if isinstance(z, Tensor) else tree_leaves(z)
        return super().forward(parts[self.which])


class Rows(nn.Module):
    """A head that sees its own task's samples of three tasks'."""

    def __init__(self, head: nn.Module, task: int) -> None:
        super().__init__()
        self.head, self.task = head, task

    def forward(self, z: Tensor) -> Tensor:
        prediction: Tensor = self.head(z.chunk(K)[self.task])
        return prediction


def network(way: Way, joined: bool = False) -> MultiTaskModel:
    """An encoder and three linear heads, the same every time. joined: as the trainer takes them, one tensor of features
    for all tasks."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder: nn.Module = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5), nn.Tanh())
        heads: dict[str, nn.Module] = {"a": nn.Linear(5, 3), "b": nn.Linear(5, 2), "c": nn.Linear(5, 1)}
        if way.network == "transformer":
            encoder = Transformer()
        if way.network == "lstm":
            encoder, heads = Recurrent(joined), {"a": HeadOnPart(3, 0), "b": HeadOnPart(2, 1), "c": HeadOnPart(1, 1)}
        if way.apart and joined:
            heads = {name: Rows(head, k) for k, (name, head) in enumerate(heads.items())}
        return MultiTaskModel(encoder, heads).to(way.dtype)


@functools.cache
def samples(dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    x = torch.randn(12 * SIZE, 6, generator=torch.Generator().manual_seed(1)).to(dtype)
    return x, [x[:, :3].argmax(1), torch.stack([x[:, 0] - x[:, 4], 3 * x[:, 5]], 1), 0.5 * x[:, :1] - x[:, 3:4]]


def batch(number: int, way: Way, part: int = 0) -> tuple[Tensor, list[Tensor]]:
    """The samples of a step, or of its part, that this process sees; those of all tasks, where each has its own."""
    (rank, count), (x, targets) = way.replicas, samples(way.dtype)
    size = SIZE // count // way.parts
    starts = [SIZE * ((number + 4 * k) % 12) + size * (rank + count * part) for k in range(K if way.apart else 1)]
    own = starts if way.apart else starts * K
    return torch.cat([x[i : i + size] for i in starts]), [y[i : i + size] for i, y in zip(own, targets, strict=True)]


def method(key: str) -> SMTO:
    return build(key, K, **OPTIONS.get(key, {}))


def gradients(*modules: nn.Module) -> Tensor:
    """All of .grad, flat [P]; zeros where there is none."""
    everyone = [p for module in modules for p in module.parameters()]
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in everyone])


def frozen(way: Way, model: MultiTaskModel, number: int) -> None:
    if number == way.frozen:
        for p in next(model.encoder.children()).parameters():
            p.requires_grad_(False).grad = None


def clipped(way: Way, model: nn.Module) -> None:
    if way.scheduled:
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)


def by_trainer(key: str, way: Way) -> list[Tensor]:
    """The gradients of every step as the trainer takes them."""
    smto, model, found = method(key), network(way, joined=True), []
    smto.set_up(INFO, 0)
    smto.to(torch.promote_types(way.dtype, torch.float32))
    optimizer = torch.optim.SGD([{"params": list(model.parameters())}, *smto.parameter_groups(LR)], lr=LR)
    schedule = ExponentialLR(optimizer, 0.5 if way.scheduled else 1.0)
    other = replace(way, parts=1, partial=False, saved=-1)  # a whole batch
    seen: list[list[Tensor]] = [[] for _ in range(K)]

    def step(number: int, losses: Sequence[Any], data: tuple[Tensor, list[Tensor]]) -> Step:
        with way.autocast():
            return Step(
                model,
                losses,
                *data,
                transform_features=smto.transform_features,
                second_batch=lambda: batch(number + 1, other),
                replay=smto.replay,
            )

    last = torch.zeros(K)
    for number in range(STEPS):
        if number % 2 == 0:
            means = torch.stack([torch.stack(s).mean() for s in seen]) if number else None
            if number:
                schedule.step()
            smto.begin_epoch(number // 2, means, optimizer.param_groups[0]["lr"])
            seen = [[] for _ in range(K)]
        torch.manual_seed(number)
        frozen(way, model, number)
        missing = way.missing(number)
        constant = {k: lambda p, y, value=last[k]: value + 0 * p.sum() for k in missing}
        losses = [constant.get(k, LOSSES[k]) for k in range(K)]
        whole, total = step(number, losses, batch(number, other)), torch.zeros(())
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
            p.grad = part.view_as(p).to(p.dtype, copy=True) if p.requires_grad else None
        clipped(way, model)
        optimizer.step()
        smto.after_step(whole)
    return found


class Loop:
    """Your own loop, giving every method what it needs."""

    def __init__(self, key: str, way: Way) -> None:
        self.way, self.smto, self.model = way, method(key), network(way)
        self.balance = Balancer(
            self.smto,
            shared=self.model.encoder.parameters(),
            lr=LR,
            likelihoods=INFO.likelihoods,
            feature_shape=INFO.feature_shape,
            heads=self.model.heads,
            tasks=list(self.model.heads),
        )
        groups = [{"params": list(self.model.parameters())}, *self.balance.parameters()]
        self.optimizer = torch.optim.SGD(groups, lr=LR)
        self.schedule = ExponentialLR(self.optimizer, 0.5 if way.scheduled else 1.0)
        self.scaler = torch.amp.GradScaler("cpu", way.scale or 1.0, growth_interval=10**6) if way.scale else None
        self.encoder: Callable[[Tensor], Any] = self.model.encoder
        if way.replicas[1] > 1:
            self.encoder = DistributedDataParallel(self.model.encoder)
        if way.wrap == "checkpointed":
            self.encoder = lambda x: checkpoint(self.model.encoder, x, use_reentrant=False)
        if way.wrap == "compiled":
            torch.compiler.reset()  # torch compiles a few networks of one kind, then no more
            self.encoder = torch.compile(self.model.encoder, backend="aot_eager", fullgraph=True)

    def forward(self, number: int, part: int = 0) -> tuple[Any, dict[str, Tensor], list[Tensor]]:
        """The features, the losses of the tasks that are there, the targets."""
        (x, targets), way, losses = batch(number, self.way, part), self.way, {}
        with way.autocast():
            z = [self.encoder(own) for own in x.chunk(K)] if way.apart else self.encoder(x)
            for k, (name, head) in enumerate(self.model.heads.items()):
                if k not in way.missing(number):
                    own = z[k] if way.apart else z
                    seen = self.balance.transform(own, k) if isinstance(own, Tensor) else own
                    losses[name] = LOSSES[k](head(seen), targets[k])
        return z, losses, targets

    def means(self, number: int) -> dict[str, Tensor]:
        """The losses of a step, averaged over its parts."""
        parts = [self.forward(number, part)[1] for part in range(self.way.parts)]
        return {name: torch.stack([losses[name] for losses in parts]).mean() for name in parts[0]}

    def another(self, number: int) -> Callable[[], dict[str, Tensor]]:
        """The losses of a second batch: that of the next step, whole."""
        whole, missing = copy.copy(self), self.way.missing(number)
        whole.way = replace(self.way, parts=1, partial=False)
        names = [name for k, name in enumerate(self.model.heads) if k not in missing]
        return lambda: {name: loss for name, loss in whole.means(number + 1).items() if name in names}

    def step(self, number: int) -> Tensor:
        """One step; the gradients that it took [P]."""
        if number % 2 == 0:
            if number:
                self.schedule.step()
            self.balance.begin_epoch(lr=self.optimizer.param_groups[0]["lr"])
        torch.manual_seed(number)
        frozen(self.way, self.model, number)
        self.balance.begin_step()
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
        clipped(self.way, self.model)
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
