"""What one may expect of an SMTO, checked on three small tasks: `print(check_smto(MyMethod))`.

A method that cannot keep a promise says so, with the reason: `check_smto("pcgrad", unless={"permutation": "draws"})`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_core.names import nearest
from mtl_core.options import BadOption, parameters
from mtl_core.smtos.base import SMTO, ProblemInfo, StepResult
from mtl_core.smtos.geometry import NonFinite
from mtl_core.smtos.registry import get
from mtl_core.step import LossFunction, MultiTaskModel, Step
from mtl_study.words import listed

K, LR = 3, 0.05


class Broken(AssertionError):
    """A promise is not kept: what was found instead."""


class ChecksFailed(AssertionError):
    """A method breaks promises that it does not take back. The message is the report."""


@dataclass(frozen=True)
class Report:
    """By check: "kept", "broken", or "waived" where the method does not promise it; and what was found."""

    title: str
    found: dict[str, tuple[str, str]]

    def of(self, outcome: str) -> list[str]:
        """The checks with this outcome."""
        return [name for name, (what, _) in self.found.items() if what == outcome]

    def __str__(self) -> str:
        rows = [f"  {outcome:8}{name:13}{words}" for name, (outcome, words) in self.found.items()]
        return "\n".join([self.title, *rows])


def check_smto(smto: type[SMTO] | str, unless: Mapping[str, str] | None = None, **options: Any) -> Report:
    """Hold an SMTO against what the package expects of every one.

    Args:
        smto: the class, or the key of a registered one.
        unless: promises that it does not make: name of the check to the reason.
        options: of the method, for three tasks.

    Returns:
        A row per check; print it.

    Raises:
        ChecksFailed: a promise is broken that `unless` does not name, or no object can be made of the class.
        BadOption: `unless` names no check; `smto` is no class; an option is wrong, or one without a default is missing.
    """
    method, unless = get(smto) if isinstance(smto, str) else smto, dict(unless or {})
    if not isinstance(method, type) or not issubclass(method, SMTO):
        raise BadOption(f"check_smto: {method!r} is no class of SMTOs; give the class itself, without (), or a key.")
    for name in unless:
        if name not in CHECKS:
            raise BadOption(f"unless: there is no check {name!r}{nearest(name, CHECKS)}. Checks: {', '.join(CHECKS)}.")

    def make() -> SMTO:
        return method(K, **options)

    _check_made(method, make, options)
    found = {}
    for name, check in CHECKS.items():
        try:
            outcome, words = "kept", check(make)
        except Exception as error:
            outcome, words = "broken", str(error) if isinstance(error, Broken) else f"{type(error).__name__}: {error}"
        if name in unless:
            outcome, words = "waived", f"{unless[name]} ({'kept here: ' if outcome == 'kept' else ''}{words})"
        found[name] = (outcome, words)
    report = Report(f"{method.key}: {method.__qualname__} on {K} tasks", found)
    if report.of("broken"):
        which = " ".join(report.of("broken"))
        raise ChecksFailed(
            f"{report}\nMend it, or take back what it cannot promise, as one that draws: unless={{check: reason}}, "
            f'with `make compare` UNLESS="{which}".'
        )
    return report


def _check_made(method: type[SMTO], make: Callable[[], SMTO], options: Mapping[str, Any]) -> None:
    """Raises what keeps every check from beginning, once."""
    takes = [p for name, p in parameters(method.__init__).items() if name not in ("self", "num_tasks", *options)]
    if needed := [p.name for p in takes if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]:
        raise BadOption(
            f"{method.key} needs {listed(needed)} and got no value. Give the option a default, or give a value: "
            f"options={{'{needed[0]}': …}}, with `make compare` OPTIONS='{{\"{needed[0]}\": …}}'."
        )
    try:
        make()
    except BadOption:
        raise
    except Exception as error:
        raise ChecksFailed(
            f"{method.key}: {method.__qualname__}({K}) raises {type(error).__name__}: {error}"
        ) from error


# -- the three tasks ---------------------------------------------------------------------------------------------------


class _Counted(torch.autograd.Function):
    """Its input; it counts how often a forward and a backward pass come by."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, passes: list[int]) -> Tensor:
        passes[0] += 1
        ctx.passes = passes
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.passes[1] += 1
        return gradient, None


_counted: Callable[[Tensor, list[int]], Tensor] = _Counted.apply


class _Encoder(nn.Sequential):
    """Two layers. `passes` counts forward and backward passes that come as far as the first."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5), nn.Tanh())
        self.passes = [0, 0]

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self
        z: Tensor = nn.Sequential(*others)(_counted(first(x), self.passes))
        return z


@dataclass
class _Trial:
    """An SMTO at work on three squared errors of different size, in float64, the same tasks every time.

    order: of the tasks. unit: factor on all losses. instead: losses that replace the squared error, by task.
    held: the model stays where it is; what the method learns moves.
    """

    smto: SMTO
    order: tuple[int, ...] = (0, 1, 2)
    unit: float = 1.0
    instead: dict[int, LossFunction] = field(default_factory=dict)
    held: bool = False
    seed: int = 1

    def __post_init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.encoder = _Encoder()
            heads = [nn.Linear(5, 2) for _ in range(K)]
            self.x = torch.randn(32, 6, dtype=torch.float64)
        y = [torch.stack([(k + 1) * self.x[:, k], self.x[:, 3] - k * self.x[:, 4]], 1) for k in range(K)]
        self.model = MultiTaskModel(self.encoder, {f"task {k}": heads[k] for k in self.order}).double()
        self.targets = [y[k] for k in self.order]
        squared: LossFunction = lambda p, y: self.unit * F.mse_loss(p, y)  # noqa: E731
        self.losses = [self.instead.get(k, squared) for k in self.order]
        self.smto.set_up(ProblemInfo(("gaussian", "gaussian", "gaussian"), (5,), LR, 0.0), self.seed)
        self.smto.double()
        self.smto.check_model(self.model)
        own = {"params": list(self.model.parameters()), "lr": 0.0 if self.held else LR}
        self.optimizer = torch.optim.SGD([own, *self.smto.parameter_groups(LR)], lr=LR)
        self.others = 0  # batches that the method asked for besides its own

    def batch(self, number: int) -> tuple[Tensor, list[Tensor]]:
        rows = slice(8 * (number % 4), 8 * (number % 4) + 8)
        return self.x[rows], [y[rows] for y in self.targets]

    def another(self, number: int) -> tuple[Tensor, list[Tensor]]:
        self.others += 1
        return self.batch(number)

    def step(self, number: int) -> tuple[Step, StepResult]:
        """One training step; its gradients stay in .grad."""
        if number % 2 == 0:
            means = None if number == 0 else torch.linspace(1, 0.5, K).double()[list(self.order)] * self.unit
            self.smto.begin_epoch(number // 2, means, LR)
        step = Step(
            self.model,
            self.losses,
            *self.batch(number),
            transform_features=self.smto.transform_features,
            second_batch=lambda: self.another(number + 1),
            replay=self.smto.replay,
        )
        result = self.smto.backward(step)
        self.optimizer.step()
        self.smto.after_step(step)
        return step, result

    def gradients(self) -> Tensor:
        """On the encoder, flat [P]."""
        return torch.cat([p.grad.flatten() for p in self.encoder.parameters() if p.grad is not None])

    def trained(self, numbers: range) -> Iterator[tuple[Tensor, StepResult]]:
        """Gradients on the encoder and results of some steps."""
        for number in numbers:
            result = self.step(number)[1]
            yield self.gradients(), result


def _apart(a: Tensor, b: Tensor) -> float:
    """The largest difference, as a share of the longer of two vectors; NaN counts as infinite."""
    scale = float(torch.maximum(a.abs().max(), b.abs().max()))
    gap = float((a - b).abs().max())
    return math.inf if math.isnan(gap) else gap / scale if scale else 0.0


def _hold(apart: float, allowed: float, words: str) -> str:
    if not apart <= allowed:
        raise Broken(f"{words}: off by {apart:.1e} of the largest entry, {allowed:.0e} allowed")
    return f"{words} (off by {apart:.0e})"


# -- the checks --------------------------------------------------------------------------------------------------------


def _gradients(make: Callable[[], SMTO]) -> str:
    trial, worst, combined = _Trial(make()), 0.0, True
    for number in range(4):
        twin = copy.deepcopy(trial.model)
        x, targets = trial.batch(number)
        predictions = twin(x, trial.smto.transform_features)
        values = [f(p, y) for f, p, y in zip(trial.losses, predictions, targets, strict=True)]
        encoder = list(twin.encoder.parameters())
        rows = [torch.cat([g.flatten() for g in torch.autograd.grad(v, encoder, retain_graph=True)]) for v in values]
        heads = [torch.autograd.grad(v, list(h.parameters())) for v, h in zip(values, twin.heads.values(), strict=True)]
        _, result = trial.step(number)
        if result.weights.isnan().all():
            combined = False
        else:
            worst = max(worst, _apart(trial.gradients(), result.weights.to(rows[0]) @ torch.stack(rows)))
        for weight, mine, plain in zip(result.head_weights, trial.model.heads.values(), heads, strict=True):
            for p, gradient in zip(mine.parameters(), plain, strict=True):
                if p.grad is None:
                    raise Broken("a head has no gradient")
                worst = max(worst, _apart(p.grad, weight.to(gradient) * gradient))
    encoder_words = "the encoder gets Σ w_k ∇L_k" if combined else "the encoder's is no weighting"
    return _hold(worst, 1e-9, f"as by plain autograd: {encoder_words}, head k its own gradient times its weight")


def _permutation(make: Callable[[], SMTO]) -> str:
    ways = [list(_Trial(make(), order=order).trained(range(4))) for order in ((0, 1, 2), (2, 0, 1))]
    worst = max(_apart(one, other) for (one, _), (other, _) in zip(*ways, strict=True))
    return _hold(worst, 1e-6, "tasks in another order: the same updates")


def _scaling(make: Callable[[], SMTO]) -> str:
    ways = [list(_Trial(make(), unit=unit, held=True).trained(range(12))) for unit in (1.0, 64.0)]
    worst = max(_apart(one / one.norm(), other / other.norm()) for (one, _), (other, _) in zip(*ways, strict=True))
    return _hold(worst, 1e-6, "all losses 64 times as large: updates in the same directions")


def _silent(make: Callable[[], SMTO]) -> str:
    for silent in ((1,), (0, 1, 2)):
        trial = _Trial(make(), instead=dict.fromkeys(silent, lambda p, y: 0.5 + 0 * p.sum()))
        for gradient, _ in trial.trained(range(4)):
            if not gradient.isfinite().all():
                raise Broken(f"{len(silent)} of {K} tasks without gradient: the update is not finite")
            if len(silent) < K and not gradient.any():
                raise Broken(f"{len(silent)} of {K} tasks without gradient: there is no update")
    return "one task without gradient: the others train on; all: nothing breaks"


def _nan(make: Callable[[], SMTO]) -> str:
    trial = _Trial(make(), instead={1: lambda p, y: math.nan * p.sum()})
    try:
        _, result = trial.step(0)
    except NonFinite:
        return "a loss that is NaN raises NonFinite"
    raise Broken(f"a loss that is NaN raises nothing; the weights are {result.weights.tolist()}")


def _state(make: Callable[[], SMTO]) -> str:
    trial = _Trial(make())
    list(trial.trained(range(3)))
    other = _Trial(make(), seed=99)
    other.model.load_state_dict(copy.deepcopy(trial.model.state_dict()))
    other.smto.load_state_dict(copy.deepcopy(trial.smto.state_dict()))
    for (one, _), (two, _) in zip(trial.trained(range(3, 7)), other.trained(range(3, 7)), strict=True):
        _hold(_apart(one, two), 0.0, "saved, and restored in a new object: the same updates")
    return "saved, and restored in a new object: the same updates, bit for bit"


def _cost(make: Callable[[], SMTO]) -> str:
    trial = _Trial(make())
    list(trial.trained(range(2)))
    trial.others, trial.encoder.passes[:] = 0, [0, 0]
    trial.step(2)
    forward, backward = trial.encoder.passes
    allowed = (K if "parameters" in trial.smto.space else 1) + trial.others
    words = f"passes through the encoder per step: {forward} forward, {backward} backward"
    if backward > allowed:
        raise Broken(f"{words}; for a method that reads {trial.smto.space} at most {allowed} backward")
    return words


CHECKS: dict[str, Callable[[Callable[[], SMTO]], str]] = {
    "gradients": _gradients,
    "permutation": _permutation,
    "scaling": _scaling,
    "silent": _silent,
    "nan": _nan,
    "state": _state,
    "cost": _cost,
}
