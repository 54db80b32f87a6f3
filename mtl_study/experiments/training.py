"""Train one run: a RunConfig in, a Run (its record) out.

One loop for every problem and every SMTO. What a method needs beyond the step it asks for through its hooks; nothing
here knows any method by name. The seed fixes initial weights, dropout and batch order, the same for every method:
comparisons are paired.
"""

from __future__ import annotations

import copy
import math
import os
import platform
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau

from mtl_core import __version__, smtos
from mtl_core.datasets.base import SplitName
from mtl_core.smtos.base import ProblemInfo, StepResult
from mtl_core.smtos.geometry import NonFinite, cosine_to_mean, pairwise_cosine
from mtl_core.step import RandomState, Space, Step
from mtl_core.tasks import Task
from mtl_study.experiments.runs import LAST_STEPS, BadConfig, Epoch, Gradients, Run, RunConfig

PATIENCE, LEAST_LR = 5, 1e-5  # of the plateau schedules: epochs without improvement, and where the step size stays
META_BATCH = 100  # of the validation split, for bi-level methods that ask for it


def find_device(device: str) -> torch.device:
    """The device of that name; "auto" is a GPU where there is one. Raises BadConfig if it is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BadConfig(
            f"device {device!r} cannot be used: {str(error).splitlines()[0]} Use 'auto', 'cpu' or 'cuda'."
        ) from None
    return torch.device(device)


def train(config: RunConfig, device: str = "auto", data_dir: str | None = None, threads: int = 1) -> Run:
    """Train and evaluate one run.

    Args:
        config: what to train; the record is a function of it (on one machine and thread count, bit for bit).
        device: "auto", "cpu", "cuda", … data_dir: where the full source lies. threads: of torch, in this run.

    Returns:
        The record. A loss or gradient that is not finite ends the run as diverged; that is a result.

    Raises:
        DataNotFound, BadConfig, BadOption: before training.
    """
    start = time.perf_counter()
    with determinism(threads):
        run = Training(config, find_device(device), data_dir).run()
    return run.model_copy(update={"seconds": round(time.perf_counter() - start, 2)})


class Training:
    """A run on its way, epoch by epoch. Several may take turns in one process: each goes on from its own random state.

    Attributes:
        history: the epochs that were completed.
        mean_losses: mean training losses of the last one [K].
        diverged: where, or nothing.
    """

    def __init__(self, config: RunConfig, device: torch.device, data_dir: str | None) -> None:
        self.config, self.device = config, device
        self.problem = config.definition
        self.tasks, self.names = self.problem.tasks, self.problem.task_names
        dtype = getattr(torch, config.precision)
        data = self.problem.data
        data.check(config.source, config.sizes, data_dir)
        data.prepare(config.source, config.sizes, data_dir)
        self.data = data.load(config.source, config.sizes, data_dir, device, dtype)

        torch.manual_seed(config.seed)
        self.model = self.problem.build_model(config.dropout).to(device, dtype).to(memory_format=torch.channels_last)
        torch.manual_seed(config.seed)  # dropout starts from the seed, however many heads were initialised
        self.smto = smtos.build(config.smto, len(self.tasks), **config.options)
        self.smto.check_model(self.model)
        self.smto.set_up(
            ProblemInfo(
                likelihoods=tuple(task.likelihood for task in self.tasks),
                feature_shape=self.problem.feature_shape,
                lr=config.lr,
                weight_decay=config.weight_decay,
            ),
            seed=config.seed,
        )
        self.smto.to(device).to(torch.promote_types(dtype, torch.float32))
        self.optimizer = torch.optim.Adam(
            [{"params": list(self.model.parameters())}, *self.smto.parameter_groups(config.lr)],
            lr=config.lr,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.schedule = _Schedule(self.optimizer, config, self.tasks)
        self.order = torch.Generator().manual_seed(config.seed)
        self.augmentation = torch.Generator().manual_seed(config.seed + 2_000_003)
        self.loss_functions = [task.loss for task in self.tasks]
        self.second_batch = self._second_batches()
        self.history: list[Epoch] = []
        self.mean_losses: Tensor | None = None
        self.diverged = ""
        self.before_divergence: dict[str, list[float | None]] = {}
        self.random_state = RandomState.capture(device)

    def run(self) -> Run:
        """All epochs, and the record that they give."""
        while len(self.history) < self.config.epochs and not self.diverged:
            self.epoch()
        return Run(
            config=self.config,
            code_versions=self.config.identity["numerics"],
            ended=self.diverged or "finished",
            before_divergence=self.before_divergence,
            history=self.history,
            seconds=0,
            environment=environment(self.device),
        )

    def epoch(self) -> None:
        """Train and evaluate one more epoch. A loss or gradient that is not finite leaves none: the run has
        diverged."""
        self.random_state.restore(self.device)
        lr = self.optimizer.param_groups[0]["lr"]
        self.smto.begin_epoch(len(self.history), self.mean_losses, lr)
        log = _EpochLog(self.names, self.device)
        step = 0
        try:
            for step, index in enumerate(self._batches()):
                self._step(step, index, log)
        except NonFinite:
            self.diverged = f"diverged at epoch {len(self.history)}, step {step}"
            self.before_divergence = log.last_steps()
            return
        self.mean_losses = log.mean("losses")
        self.history.append(log.close(lr, val=self._evaluate("val"), test=self._evaluate("test")))
        self.schedule.step(log.last_losses, self.history)
        self.random_state = RandomState.capture(self.device)

    def take_over(self, other: Training) -> None:
        """Go on from where another run of the same problem and method stands, as it would itself: network, optimizer,
        step size, SMTO, random generators and history become copies of its own. Only what bi-level methods draw their
        second batches from stays."""
        self.model.load_state_dict(other.model.state_dict())
        self.smto.load_state_dict(copy.deepcopy(other.smto.state_dict()))
        self.optimizer.load_state_dict(copy.deepcopy(other.optimizer.state_dict()))  # it would share the moments
        self.schedule.scheduler.load_state_dict(copy.deepcopy(other.schedule.scheduler.state_dict()))
        self.order.set_state(other.order.get_state())
        self.augmentation.set_state(other.augmentation.get_state())
        self.random_state = other.random_state
        self.history, self.mean_losses, self.diverged = list(other.history), other.mean_losses, other.diverged

    def _batches(self) -> Iterator[Tensor]:
        order = torch.randperm(len(self.data["train"]), generator=self.order).to(self.device)
        return iter(order.split(self.config.batch_size))

    def _second_batches(self) -> Callable[[], tuple[Tensor, Sequence[Tensor]]]:
        """Batches for bi-level methods, drawn lazily: a second shuffle of the training split, or the validation
        split."""
        validation = getattr(self.smto, "meta_split", "train") == "validation"
        split: SplitName = "val" if validation else "train"
        size = META_BATCH if validation else self.config.batch_size
        generator = torch.Generator().manual_seed(self.config.seed + 1_000_003)
        augmentation = None if validation else torch.Generator().manual_seed(self.config.seed + 3_000_003)

        def stream() -> Iterator[tuple[Tensor, Sequence[Tensor]]]:
            while True:
                order = torch.randperm(len(self.data[split]), generator=generator).to(self.device)
                for index in order.split(size):
                    yield self.data[split].batch(index, self.names, augmentation)

        batches = stream()
        return lambda: next(batches)

    def _step(self, number: int, index: Tensor, log: _EpochLog) -> None:
        x, targets = self.data["train"].batch(index, self.names, self.augmentation)
        step = Step(
            self.model,
            self.loss_functions,
            x,
            targets,
            transform_features=self.smto.transform_features,
            second_batch=self.second_batch,
            replay=self.smto.replay,
            keep_jacobian=self.config.keep_jacobian,
        )
        if not torch.isfinite(step.losses).all():
            raise NonFinite("a loss is not finite")
        if len(self.tasks) > 1 and number % self.problem.sample_every == min(1, self._last_step):
            log.look(step)
        applied = self.smto.backward(step)
        self.optimizer.step()
        self.smto.after_step(step)
        log.add(step, applied)

    @property
    def _last_step(self) -> int:
        return math.ceil(len(self.data["train"]) / self.config.batch_size) - 1

    @torch.no_grad()
    def _evaluate(self, name: SplitName) -> dict[str, dict[str, float | None]]:
        """Raw metrics of one split, by task and metric."""
        split = self.data[name]
        totals: dict[tuple[str, str], Tensor] = {}
        self.model.eval()
        for index in torch.arange(len(split), device=self.device).split(self.problem.evaluation_batch):
            x, targets = split.batch(index, self.names)
            z = self.model.encoder(x)
            for k, (task, head, target) in enumerate(zip(self.tasks, self.model.heads.values(), targets, strict=True)):
                prediction = head(self.smto.transform_features(z, k))
                for metric, definition in task.metrics.items():
                    key = (task.name, metric)
                    statistic = definition.statistic(prediction, target)
                    totals[key] = statistic + totals[key] if key in totals else statistic
        self.model.train()
        return {
            task.name: {name: number(m.value(totals[task.name, name])) for name, m in task.metrics.items()}
            for task in self.tasks
        }


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

    def look(self, step: Step) -> None:
        for space, gramians in self.gramians.items():
            gramians.append(step.gramian(space))

    def add(self, step: Step, applied: StepResult) -> None:
        self.count += 1
        self.last_losses = step.losses
        for name, values in (
            ("losses", step.losses),
            ("weights", applied.weights),
            ("head_weights", applied.head_weights),
        ):
            values = values.detach().double()
            self.sums[name] = self.sums[name] + values if name in self.sums else values.clone()
        for name, value in applied.diagnostics.items():
            self.diagnostics.setdefault(name, []).append(value)
        self.flags.update(applied.flags)

    def mean(self, name: str) -> Tensor:
        return self.sums[name] / self.count

    def last_steps(self) -> dict[str, list[float | None]]:
        """What the method reported of itself in the last steps, the very last at the end."""
        return {name: [number(v) for v in values[-LAST_STEPS:]] for name, values in sorted(self.diagnostics.items())}

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


def instruction_set() -> str:
    """The vector instructions that torch uses, and those that oneDNN was told not to exceed: "AVX512"."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return torch.backends.cpu.get_cpu_capability() + (f", oneDNN at most {limit}" if limit else "")


def environment(device: torch.device) -> dict[str, str]:
    """On what a run was made. Bit-equal numbers can be expected where all of it is equal."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "mtl_core": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": f"{device.type} ({name})",
        "processor": processor(),
        "instruction_set": instruction_set(),
        "threads": str(torch.get_num_threads()),
    }


@contextmanager
def determinism(threads: int) -> Iterator[None]:
    """Fixed thread count and deterministic kernels, put back afterwards; torch's default generators too."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_rng_state()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        torch.set_rng_state(before[2])
