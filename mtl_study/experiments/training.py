"""Train one run: a RunConfig in, a Run (its record) out.

One loop for every problem and every SMTO. What a method needs beyond the step it asks for through its hooks; nothing
here knows any method by name. The seed fixes initial weights, dropout and batch order, the same for every method:
comparisons are paired.
"""

from __future__ import annotations

import copy
import functools
import math
import os
import platform
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import numpy as np
import scipy
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau

from mtl_core import __version__, smtos
from mtl_core.datasets.base import Split, SplitName
from mtl_core.datasets.cityscapes import Cityscapes
from mtl_core.smtos.base import SMTO, GramianWeighting, ProblemInfo, StepResult
from mtl_core.smtos.geometry import NonFinite
from mtl_core.step import MultiTaskModel, RandomState, Space, Step
from mtl_core.tasks import Task
from mtl_study.cosines import cosine_to_mean, pairwise_cosine
from mtl_study.experiments import checkpoints, inner
from mtl_study.experiments.checkpoints import Checkpoint, complete
from mtl_study.experiments.runs import LAST_STEPS, BadConfig, Epoch, Gradients, Run, RunConfig

PATIENCE, LEAST_LR = 5, 1e-5  # of the plateau schedules: epochs without improvement, and where the step size stays
P = ParamSpec("P")
Loss = Callable[[Tensor, Tensor], Tensor]
META_BATCH = 100  # of the validation split, for bi-level methods that ask for it


def find_device(device: str) -> torch.device:
    """The device of that name; "auto" is a GPU where there is one. Raises BadConfig if it is not there, or has no
    float64, in which metrics are summed (MPS)."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device, dtype=torch.float64)
    except (RuntimeError, AssertionError, TypeError) as error:
        why = str(error).splitlines()[0].rstrip(".")
        why = "torch knows no device of that kind" if why.startswith("Expected one of") else why
        raise BadConfig(
            f"device {device!r} cannot be used: {why}. Use 'auto' (a GPU where there is one), 'cpu' or 'cuda'."
        ) from None
    return torch.device(device)


def gpus(device: str) -> list[str]:
    """Those that runs on a device of that name are spread over, as CUDA_VISIBLE_DEVICES names them: all that are
    visible. One that is named by its number is all there is."""
    if find_device(device) != torch.device("cuda"):
        return []
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    return named.split(",")[:count]


def check_precision(precision: str, device: torch.device) -> None:
    """Raises BadConfig if the device does not compute in it: tf32 (float32 whose products of convolutions and matrices
    have ten binary digits) takes a GPU that has it. Elsewhere torch would use float32 without a word. amp
    (steps under autocast to bfloat16, evaluation in float32) goes everywhere."""
    if precision == "tf32" and not (device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)):
        raise BadConfig(
            f"precision = 'tf32' needs an NVIDIA GPU of compute capability 8.0 or more; the device is '{device}'. "
            "Use 'float32'."
        )


def train(
    config: RunConfig,
    device: str = "auto",
    data_dir: str | None = None,
    threads: int = 1,
    checkpoint: str | os.PathLike[str] | None = None,
    every: float = checkpoints.EVERY,
    keep: bool = False,
) -> Run:
    """Train and evaluate one run.

    Args:
        config: what to train; the record is a function of it (on one machine and thread count, bit for bit).
        device: "auto", "cpu", "cuda", … data_dir: where the full source is. threads: of torch, in this run.
        checkpoint: a file with the run's state. A state that is found there is continued, if it is of this very
            run on this kind of machine. every (seconds), keep: when it is written (`checkpoints.complete`).

    Returns:
        The record. A loss or gradient that is not finite ends the run as diverged; that is a result.

    Raises:
        DataNotFound, BadConfig, BadOption: before training.
    """
    with determinism(threads, config.precision):
        where = find_device(device)
        place = place_of(checkpoint, config, where)
        return complete(lambda: Training(config, where, data_dir), place, every, keep).record()


def train_from_checkpoint(
    folder: str | os.PathLike[str],
    config: RunConfig,
    device: str = "auto",
    data_dir: str | None = None,
    every: float = checkpoints.EVERY,
    keep: bool = False,
) -> Run:
    """`train`, from the checkpoint in a live store onwards, if there is one."""
    file = checkpoint_of(folder, config) if Path(folder).is_dir() else None  # not on a machine that sees no store
    return train(config, device, data_dir, checkpoint=file, every=every, keep=keep)


def checkpoint_of(folder: str | os.PathLike[str], config: Any) -> Path:
    """Of a run or population: the file next to its record's place in a live store."""
    return Path(folder) / config.folder / f"{config.key}.checkpoint"


def place_of(file: str | os.PathLike[str] | None, config: Any, device: torch.device) -> Checkpoint | None:
    """A file as the checkpoint of a run or population that is trained in this process."""
    return None if file is None else Checkpoint(Path(file), config.key, environment(device), config.epochs_in_all)


def method(config: RunConfig, model: MultiTaskModel) -> SMTO:
    """The method of a run, set up for its problem.

    Raises:
        BadOption: it cannot work with this problem's network, features or losses.
    """
    problem = config.definition
    smto = smtos.build(config.smto, len(problem.tasks), **config.options)
    smto.check_model(model)
    info = ProblemInfo(
        likelihoods=tuple(task.likelihood for task in problem.tasks),
        feature_shape=problem.feature_shape,
        lr=config.lr,
        weight_decay=config.weight_decay,
    )
    smto.set_up(info, seed=config.seed)
    return smto


def what_helps(config: RunConfig) -> str:
    """Where a GPU's memory did not do for a run."""
    ways = ["fewer runs per GPU (MTL_RUNS_PER_GPU, or fewer WORKERS)"]
    problem = config.definition
    smto = smtos.build(config.smto, len(problem.tasks), **config.options)
    of_gramian = isinstance(smto, GramianWeighting) and smto.space == "parameters"  # it reads nothing else of them
    if of_gramian and config.keep_jacobian and config.optimizer != "adam_per_task":
        ways.append(f"keep_jacobian: false ({config.smto} keeps {len(problem.tasks)} gradients of the encoder)")
    if isinstance(problem.data, Cityscapes) and not os.environ.get("MTL_STREAM"):
        ways.append("MTL_STREAM=1 (images and maps stay on the host)")
    return f"What helps: {', or '.join([*ways, 'a smaller batch_size, which is another run'])}."


def _helped(work: Callable[Concatenate[Training, P], None]) -> Callable[Concatenate[Training, P], None]:
    """A part of a run that says what helps where memory runs out in it."""

    @functools.wraps(work)
    def helped(run: Training, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            work(run, *args, **kwargs)
        except RuntimeError as error:
            if not checkpoints.out_of_memory(error):
                raise
            first = ". ".join(str(error).split(". ")[:2]).removesuffix(".")  # what failed, and how much was asked for
            raise torch.OutOfMemoryError(f"{first}. {what_helps(run.config)}") from None

    return helped


class Training:
    """A run on its way, epoch by epoch. Several may take turns in one process: each keeps its own random state.

    Attributes:
        history: the epochs that were completed.
        mean_losses: mean training losses of the last one [K].
        diverged: where, or nothing.
    """

    @_helped
    def __init__(self, config: RunConfig, device: torch.device, data_dir: str | None) -> None:
        self.config, self.device = config, device
        self.problem = config.definition
        self.tasks, self.names = self.problem.tasks, self.problem.task_names
        check_precision(config.precision, device)
        dtype = torch.float64 if config.precision == "float64" else torch.float32
        data = self.problem.data
        data.check(config.source, config.sizes, data_dir)
        data.prepare(config.source, config.sizes, data_dir)
        self.data = data.load(config.source, config.sizes, data_dir, device, dtype)

        torch.manual_seed(config.seed)
        self.model = self.problem.build_model(config.dropout).to(device, dtype).to(memory_format=torch.channels_last)
        torch.manual_seed(config.seed)  # dropout starts from the seed, however many heads were initialised
        self.smto = method(config, self.model)
        self.smto.to(device).to(torch.promote_types(dtype, torch.float32))
        self.optimizer = inner.build(config, self.model, self.smto.parameter_groups(config.lr))
        self.per_task = inner.per_task(self.optimizer)
        self.schedule = _Schedule(self.optimizer, config, self.tasks)
        self.order = torch.Generator().manual_seed(config.seed)
        self.augmentation = torch.Generator().manual_seed(config.seed + 2_000_003)
        self.second_batch_needed = "second_batch" in self.smto.required()
        units = config.units or [1.0] * len(self.tasks)
        self.loss_functions = [scaled(task.loss, unit) for task, unit in zip(self.tasks, units, strict=True)]
        validation = getattr(self.smto, "meta_split", "train") == "validation"
        self.second_batch = _SecondBatches(
            self.data["val" if validation else "train"],
            META_BATCH if validation else config.batch_size,
            self.names,
            device,
            config.seed + 1_000_003,
            None if validation else config.seed + 3_000_003,
        )
        self.history: list[Epoch] = []
        self.clock: list[float] = []  # seconds until the end of each epoch
        self.begun = time.perf_counter()
        self.mean_losses: Tensor | None = None
        self.diverged = ""
        self.before_divergence: dict[str, list[float | None]] = {}
        self.random_state = RandomState.capture(device)

    @property
    def unfinished(self) -> bool:
        return len(self.history) < self.config.epochs and not self.diverged

    @property
    def beyond(self) -> bool:
        """Whether it continued from a longer run's checkpoint that is past its own end."""
        return len(self.history) + bool(self.diverged) > self.config.epochs

    def record(self) -> Run:
        """What the run left, as far as it has come; of one that came further, what it left at its end."""
        epochs = max(self.config.epochs, len(self.history) + bool(self.diverged))
        run = Run(
            config=self.config.model_copy(update={"epochs": epochs}),
            code_versions=self.config.identity["numerics"],
            ended=self.diverged or "finished",
            before_divergence=self.before_divergence,
            history=self.history,
            seconds=round(time.perf_counter() - self.begun, 2),
            clock=self.clock,
            environment=environment(self.device, self.smto),
        )
        return run.serving(self.config) or run

    @_helped
    def epoch(self) -> None:
        """Train and evaluate one more epoch. A loss or gradient that is not finite leaves none: the run has
        diverged."""
        self.random_state.restore(self.device)
        lr = self.optimizer.param_groups[0]["lr"]
        self.smto.begin_epoch(len(self.history), self.mean_losses, lr)
        log = _EpochLog(self.names, self.device)
        step, found = 0, None
        try:
            for step, index in enumerate(self._batches()):
                self._step(step, index, log)
            found = log.first_not_finite()
        except NonFinite:
            earlier = log.first_not_finite()
            found = step if earlier is None else earlier
        if found is not None:
            self.diverged = f"diverged at epoch {len(self.history)}, step {found}"
            self.before_divergence = log.last_steps(found)
            return
        self.mean_losses = log.mean("losses")
        self.history.append(log.close(lr, val=self._evaluate("val"), test=self._evaluate("test")))
        self.clock.append(round(time.perf_counter() - self.begun, 2))
        self.schedule.step(log.last_losses, self.history)
        self.random_state = RandomState.capture(self.device)

    def state_dict(self) -> dict[str, Any]:
        """The state between two epochs: a run that continues from here is the same, bit for bit."""
        return {
            "model": self.model.state_dict(),
            "smto": self.smto.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.scheduler.state_dict(),
            "order": self.order.get_state(),
            "augmentation": self.augmentation.get_state(),
            "second_batch": self.second_batch.state_dict(),
            "random_state": {"cpu": self.random_state.cpu, "cuda": self.random_state.own},
            "mean_losses": self.mean_losses,
            "history": [epoch.model_dump_json() for epoch in self.history],
            "clock": self.clock,
            "diverged": self.diverged,
            "before_divergence": self.before_divergence,
        }

    @_helped
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue this very run where another process left it."""
        self.model.load_state_dict(state["model"])
        self.smto.load_state_dict(state["smto"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.scheduler.load_state_dict(state["schedule"])
        self.order.set_state(state["order"])
        self.augmentation.set_state(state["augmentation"])
        self.second_batch.load_state_dict(state["second_batch"])
        self.random_state = RandomState(state["random_state"]["cpu"], state["random_state"]["cuda"])
        self.mean_losses = state["mean_losses"]
        self.history = [Epoch.model_validate_json(text) for text in state["history"]]
        self.clock = list(state["clock"])
        self.diverged, self.before_divergence = state["diverged"], state["before_divergence"]
        self.begun = time.perf_counter() - (self.clock[-1] if self.clock else 0.0)

    def take_over(self, other: Training) -> None:
        """Continue another run of the same problem and method, as it would itself: network, optimizer, step size, SMTO,
        random generators and history become copies of its own. Only the generator from which bi-level methods draw
        their second batches stays."""
        self.model.load_state_dict(other.model.state_dict())
        self.smto.load_state_dict(copy.deepcopy(other.smto.state_dict()))
        self.optimizer.load_state_dict(copy.deepcopy(other.optimizer.state_dict()))  # it would share the moments
        self.schedule.scheduler.load_state_dict(copy.deepcopy(other.schedule.scheduler.state_dict()))
        self.order.set_state(other.order.get_state())
        self.augmentation.set_state(other.augmentation.get_state())
        self.random_state = other.random_state
        self.history, self.mean_losses, self.diverged = list(other.history), other.mean_losses, other.diverged

    def _batches(self) -> Iterator[Tensor]:
        order = torch.randperm(len(self.data["train"]), generator=self.order)
        return iter(order.split(self.config.batch_size))

    def _step(self, number: int, index: Tensor, log: _EpochLog) -> None:
        x, targets = self.data["train"].batch(index, self.names, self.augmentation)
        mixed = self.config.precision == "amp"
        with torch.autocast(self.device.type, torch.bfloat16) if mixed else nullcontext():
            step = Step(
                self.model,
                self.loss_functions,
                x,
                targets,
                transform_features=self.smto.transform_features,
                second_batch=self.second_batch if self.second_batch_needed else None,
                replay=self.smto.replay,
                keep_jacobian=self.config.keep_jacobian,
            )
        if self.device.type == "cpu" and not torch.isfinite(step.losses).all():
            raise NonFinite("a loss is not finite")
        if len(self.tasks) > 1 and number % self.problem.sample_every == min(1, self._last_step):
            log.look(step)
        self.before_backward(step)
        jacobian = None if self.per_task is None else step.jacobian
        result = self.smto.backward(step)
        if self.per_task is not None and jacobian is not None:
            self.per_task.see(step, jacobian, result.weights)
        finite = self._finite_gradients(step)
        log.add(step, result, finite, number)
        if self.device.type == "cpu" and not finite:  # on a GPU reading it would mean waiting for it
            raise NonFinite("a gradient is not finite")
        # 1: the step leaves all parameters as they are
        setattr(self.optimizer, "found_inf", 1 - finite.float())  # noqa: B010  (stubs do not know it)
        self.optimizer.step()
        self.after_step(step)
        self.smto.after_step(step)

    def before_backward(self, step: Step) -> None:
        """Called when a step's losses are there and its graph is whole, for who looks on; it must change nothing."""

    def after_step(self, step: Step) -> None:
        """Called when the parameters have moved, and .grad still is what moved them; for who looks on, too."""

    def _finite_gradients(self, step: Step) -> Tensor:
        """Whether the losses and all gradients are finite, on the device."""
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        longest = nn.utils.get_total_norm(gradients, norm_type=math.inf) if gradients else step.losses.sum()
        return torch.isfinite(longest) & torch.isfinite(step.losses).all()

    @property
    def _last_step(self) -> int:
        return math.ceil(len(self.data["train"]) / self.config.batch_size) - 1

    @torch.no_grad()
    def _evaluate(self, name: SplitName) -> dict[str, dict[str, float | None]]:
        """Raw metrics of one split, by task and metric."""
        split = self.data[name]
        totals: dict[tuple[str, str], Tensor] = {}
        self.model.eval()
        for index in torch.arange(len(split)).split(self.problem.evaluation_batch):
            x, targets = split.batch(index, self.names)
            z = self.model.encoder(x)
            predictions = self.model.predictions([z] * len(self.tasks), self.smto.transform_features)
            for task, prediction, target in zip(self.tasks, predictions, targets, strict=True):
                for metric, definition in task.metrics.items():
                    key = (task.name, metric)
                    statistic = definition.statistic(prediction, target)
                    totals[key] = statistic + totals[key] if key in totals else statistic
        self.model.train()
        return {
            task.name: {name: number(m.value(totals[task.name, name].cpu())) for name, m in task.metrics.items()}
            for task in self.tasks
        }


def scaled(loss: Loss, unit: float) -> Loss:
    """A loss in another unit."""
    return loss if unit == 1 else lambda prediction, target: unit * loss(prediction, target)


class _SecondBatches:
    """Batches for bi-level methods, drawn lazily, in an order of their own that is drawn again when it has ended.

    Args:
        split: whose samples. seed: of the order. augmentation: seed of what changes samples; None for none.
    """

    def __init__(
        self, split: Split, size: int, names: tuple[str, ...], device: torch.device, seed: int, augmentation: int | None
    ) -> None:
        self.split, self.size, self.names, self.device = split, size, names, device
        self.generator = torch.Generator().manual_seed(seed)
        self.augmentation = None if augmentation is None else torch.Generator().manual_seed(augmentation)
        self.order: Sequence[Tensor] = []
        self.drawn_from = self.generator.get_state()  # what the present order was drawn with
        self.taken = 0

    def __call__(self) -> tuple[Any, Sequence[Tensor]]:
        if self.taken == len(self.order):
            self._draw()
        self.taken += 1
        return self.split.batch(self.order[self.taken - 1], self.names, self.augmentation)

    def _draw(self) -> None:
        self.drawn_from = self.generator.get_state()
        order = torch.randperm(len(self.split), generator=self.generator)
        self.order, self.taken = order.split(self.size), 0

    def state_dict(self) -> dict[str, Any]:
        augmentation = None if self.augmentation is None else self.augmentation.get_state()
        return {"drawn_from": self.drawn_from, "taken": self.taken, "augmentation": augmentation}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["drawn_from"])
        if state["taken"]:
            self._draw()
        self.taken = state["taken"]
        if self.augmentation is not None:
            self.augmentation.set_state(state["augmentation"])


class _Schedule:
    """The step size from epoch to epoch."""

    def __init__(self, optimizer: torch.optim.Optimizer, config: RunConfig, tasks: Sequence[Task]) -> None:
        self.kind, self.tasks = config.schedule, tasks
        self.scheduler: ExponentialLR | ReduceLROnPlateau
        if self.kind == "exponential":
            self.scheduler = ExponentialLR(optimizer, config.lr_decay)
        else:
            self.scheduler = ReduceLROnPlateau(optimizer, factor=config.lr_decay, patience=PATIENCE, min_lr=LEAST_LR)

    def step(self, last_losses: Tensor, history: Sequence[Epoch]) -> None:
        """After an epoch: the losses of its last batch [K], and all epochs so far."""
        if isinstance(self.scheduler, ExponentialLR):
            self.scheduler.step()
        elif self.kind == "plateau":
            self.scheduler.step(float(last_losses.sum()))
        else:
            self.scheduler.step(self._validation(history))

    def _validation(self, history: Sequence[Epoch]) -> float:
        """Mean over tasks of the validation metrics, each relative to the first epoch's; lower is better."""

        def relative(task: Task) -> float:
            then, now = history[0].val[task.name], history[-1].val[task.name]
            values = []
            for name, metric in task.metrics.items():
                a, b = then[name] or math.nan, now[name] or math.nan
                values.append(a / b if metric.higher_is_better else b / a)
            return sum(values) / len(values)

        return sum(map(relative, self.tasks)) / len(self.tasks)


class _EpochLog:
    """Sums of what happened in one epoch, kept on the device until it ends."""

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        self.count, self.num_tasks, self.device = 0, len(names), device
        self.sums: dict[str, Tensor] = {}
        self.diagnostics: dict[str, list[float | Tensor]] = {}
        self.flags: Counter[str] = Counter()
        self.gramians: dict[Space, list[Tensor]] = {"features": [], "parameters": []}
        self.not_finite = torch.full((), -1, device=device)  # the first step that was not; −1: none

    def look(self, step: Step) -> None:
        for space, gramians in self.gramians.items():
            gramians.append(step.gramian(space))

    def add(self, step: Step, result: StepResult, finite: Tensor, number: int) -> None:
        self.not_finite = torch.where((self.not_finite < 0) & ~finite, number, self.not_finite)
        self.count += 1
        self.last_losses = step.losses
        for name, values in (
            ("losses", step.losses),
            ("weights", result.weights),
            ("head_weights", result.head_weights),
        ):
            values = values.detach().double()
            self.sums[name] = self.sums[name] + values if name in self.sums else values.clone()
        for name, value in result.diagnostics.items():
            self.diagnostics.setdefault(name, []).append(value)
        self.flags.update(result.flags)

    def mean(self, name: str) -> Tensor:
        return self.sums[name] / self.count

    def first_not_finite(self) -> int | None:
        """The first step whose losses or gradients were not finite."""
        step = int(self.not_finite)
        return None if step < 0 else step

    def last_steps(self, until: int) -> dict[str, list[float | None]]:
        """What the method reported of itself in the last steps up to this one, the very last at the end."""
        known = {name: values[: until + 1] for name, values in sorted(self.diagnostics.items())}
        return {name: [number(v) for v in values[-LAST_STEPS:]] for name, values in known.items()}

    def close(self, lr: float, **metrics: dict[str, dict[str, float | None]]) -> Epoch:
        return Epoch(
            lr=float(f"{lr:.7g}"),
            train_losses=numbers(self.mean("losses")),
            weights=numbers(self.mean("weights")),
            head_weights=numbers(self.mean("head_weights")),
            diagnostics={name: number(_over_epoch(name, values)) for name, values in sorted(self.diagnostics.items())},
            flags=dict(sorted(self.flags.items())),
            gradients={space: _gradients(gramians) for space, gramians in self.gramians.items() if gramians},
            **metrics,
        )


def _over_epoch(name: str, values: Sequence[float | Tensor]) -> float | Tensor:
    """The mean of an epoch's values; of one whose name begins with "peak_" the largest."""
    return max(values) if name.startswith("peak_") else sum(values) / len(values)


def _gradients(gramians: list[Tensor]) -> Gradients:
    """Statistics of each sampled Gramian, averaged."""
    samples = [gramian.cpu().numpy() for gramian in gramians]
    norms = [sample.diagonal() ** 0.5 for sample in samples]
    ratios = [n.max() / n.min() if n.min() > 0 else math.nan for n in norms]

    def mean(values: Sequence[Any]) -> Any:
        return sum(values) / len(values)

    return Gradients(
        cosine_to_mean=number(mean([cosine_to_mean(s) for s in samples])),
        pairwise_cosine=number(mean([pairwise_cosine(s) for s in samples])),
        norms=[number(x) or 0.0 for x in mean(norms)],
        norm_ratio=number(mean(ratios)),
    )


def number(value: Any) -> float | None:
    """A plain number with seven significant digits (what float32 holds), None where it is not finite."""
    value = float(value)
    return float(f"{value:.7g}") if math.isfinite(value) else None


def numbers(values: Tensor) -> list[float | None]:
    return [number(v) for v in values]


def processor() -> str:
    """What the processor calls itself."""
    try:
        named = re.search(r"^model name\s*:\s*(.+?)\s*$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:  # not Linux
        named = None
    return named[1] if named else platform.processor() or platform.machine()


LIMITS = {"oneDNN": "ONEDNN_MAX_CPU_ISA", "MKL": "MKL_ENABLE_INSTRUCTIONS"}


def instruction_set() -> str:
    """The vector instructions that torch's own kernels use (ATEN_CPU_CAPABILITY limits them), and those that the
    libraries it calls were told not to exceed: "AVX512", "AVX2, oneDNN at most AVX2"."""
    limits = [f"{library} at most {os.environ[name]}" for library, name in LIMITS.items() if os.environ.get(name)]
    return ", ".join([torch.backends.cpu.get_cpu_capability(), *limits])


def environment(device: torch.device, smto: SMTO | None = None) -> dict[str, str]:
    """On what a run was made; of a method outside the package, or with one inside it, where it was defined. Bit-equal
    numbers can be expected where all of it is equal."""
    foreign = []
    while smto is not None:
        if not type(smto).__module__.startswith("mtl_core."):
            foreign.append(type(smto).__module__)
        smto = getattr(smto, "inner", None)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "mtl_core": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,  # this one and scipy compute the K×K weights
        "scipy": scipy.__version__,
        "device": f"{device.type} ({name})",
        "processor": processor(),
        "instruction_set": instruction_set(),
        "threads": str(torch.get_num_threads()),
        **({"defined_in": foreign[0]} if foreign else {}),
    }


SWITCHES: tuple[tuple[Any, str, bool], ...] = (
    (torch.backends.mkldnn, "enabled", True),
    (torch.backends.cudnn, "benchmark", False),
    (torch.utils.deterministic, "fill_uninitialized_memory", False),  # no kernel reads it, and filling it costs
)


def _set_float32(tf32: bool) -> Callable[[], None]:
    """Have float32 computed as float32 on every device, or products and convolutions on a GPU in tf32. Torch keeps that
    twice: in `fp32_precision`, one for each part of it, where "none" follows the part around it, and in older flags;
    and it refuses to read a flag that says otherwise than the parts.

    Returns:
        What puts all of it back.
    """
    backends = torch.backends
    parts: list[Any] = [backends, backends.cudnn, backends.mkldnn, backends.cuda.matmul]
    parts += [getattr(part, name, None) for part in parts[1:3] for name in ("matmul", "conv", "rnn")]
    parts = [part for part in parts if hasattr(part, "fp32_precision")]  # torch before 2.9 has the flags alone
    before = [part.fp32_precision for part in parts]
    try:
        convolutions = backends.cudnn.allow_tf32
    except RuntimeError:  # it says otherwise than the parts
        convolutions = None
    for part in parts:
        part.fp32_precision = "none"
    products = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")  # these two set the flags and their parts
    backends.cudnn.allow_tf32 = tf32

    def put_back() -> None:
        torch.set_float32_matmul_precision(products)
        if convolutions is not None:
            backends.cudnn.allow_tf32 = convolutions
        for part, value in zip(parts, before, strict=True):
            part.fp32_precision = "none"
            if part.fp32_precision != value:
                part.fp32_precision = value

    return put_back


@contextmanager
def determinism(threads: int, precision: str = "float32") -> Iterator[None]:
    """All of torch's global state that changes numbers, as every run has it: thread count, deterministic kernels that
    are not chosen by their speed, default dtype and device, no autocast, oneDNN, and float32 that is float32: only at
    `precision` "tf32" may a GPU compute products and convolutions in that. It and the default generators are put back
    afterwards."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before: list[Callable[[], Any]] = [
        _set_float32(tf32=precision == "tf32"),
        functools.partial(torch.set_num_threads, torch.get_num_threads()),
        functools.partial(
            torch.use_deterministic_algorithms,
            torch.are_deterministic_algorithms_enabled(),
            warn_only=torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        functools.partial(torch.set_default_dtype, torch.get_default_dtype()),
        functools.partial(torch.set_rng_state, torch.get_rng_state()),
        *(functools.partial(setattr, part, name, getattr(part, name)) for part, name, _ in SWITCHES),
    ]
    if (device := torch.get_default_device()).type != "cpu":
        before.append(functools.partial(torch.set_default_device, device))
        torch.set_default_device(None)
    if torch.cuda.is_initialized():
        before.append(functools.partial(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_default_dtype(torch.float32)
    for part, name, value in SWITCHES:
        setattr(part, name, value)
    try:
        with torch.enable_grad(), torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        for put_back in before:
            put_back()
