"""The protocol of every SMTO, the two bases that cover nearly all of them, and the registry.

    LossWeighting.weights(losses [K])          -> weights [K]    the heads get the same weights
    GramianWeighting.weights(gramian [K, K])   -> weights [K]    on "features" or "parameters"; heads: plain gradients

An SMTO sees losses and gradients, never the name of a dataset or a task. The K×K problems are solved in float64 on the
host with numpy; everything with a batch in it stays on the device with torch.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import math
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from mtl_core.smtos.solvers import Solution, cosines, min_norm_point
from mtl_core.step import MultiTaskModel, Space, Step

Likelihood = Literal["softmax", "gaussian", "laplace"]
Losses = TypeVar("Losses", Tensor, np.ndarray)


class BadOption(ValueError):
    """An SMTO was asked for by a wrong name, or with a wrong option."""


class NotAGramian(ValueError):
    """A matrix that cannot be the Gramian of task gradients."""


class NonFinite(ArithmeticError):
    """A loss or a gradient is NaN or infinite: the run has diverged."""


@dataclass
class Applied:
    """What an SMTO did in one step.

    weights: on the shared parameters [K]; NaN where the method has none.
    head_weights: on the heads [K].
    diagnostics: numbers worth a curve (iterations, residual, rotation loss, …).
    flags: names of edge cases met in this step; the run record counts them.
    """

    weights: Tensor
    head_weights: Tensor
    diagnostics: dict[str, float | Tensor] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Setting:
    """What an SMTO may know of the problem before training starts.

    likelihoods: "softmax" (cross-entropy), "gaussian" (squared error) or "laplace" (absolute error) per task.
    feature_shape: shape of z for one sample.
    lr, weight_decay: of the main optimizer at the start.
    """

    likelihoods: tuple[Likelihood, ...]
    feature_shape: tuple[int, ...]
    lr: float
    weight_decay: float


class SMTO(nn.Module):
    """A specialized multi-task optimizer: how much does each task count in this step?

    Class attributes (they fill the register of differences, docs/methods.md):
        key: name in configurations and records.
        space: what it looks at.
        head_policy: what the heads get: "plain", "mean", "weighted" or "scaled".
        native_scale: how long the update is, in words.
        numerics: raised whenever the numbers it produces change, so that stored runs are not mistaken for new ones.
        remembered: names of plain attributes (counters, host arrays) that state_dict() must carry beside the buffers.
        replay: whether it looks at a batch twice and needs the same dropout masks.
    """

    key: ClassVar[str]
    space: str = "losses"
    head_policy: ClassVar[str] = "weighted"
    native_scale: ClassVar[str] = ""
    numerics: ClassVar[int] = 1
    remembered: ClassVar[tuple[str, ...]] = ()
    replay: bool = False

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        if num_tasks < 1:
            raise BadOption(f"{self.key}: num_tasks is {num_tasks}; at least one task is needed.")
        self.num_tasks = num_tasks
        self.generator = torch.Generator().manual_seed(0)
        self.pending: tuple[str, ...] = ()  # flags met between epochs; the next step's record carries them

    def set_up(self, setting: Setting, seed: int) -> None:
        """Called once, before the optimizer is made, to size parameters by the problem. Seeds the generator."""
        self.generator.manual_seed(seed)

    def check_model(self, model: MultiTaskModel) -> None:
        """Called before training. Raises BadOption for a model that this method cannot work with."""

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Groups that join the main optimizer (and follow its learning-rate schedule)."""
        return []

    def adapt(self, z: Tensor, k: int) -> Tensor:
        """What head k sees of z."""
        return z

    def begin_epoch(self, epoch: int, mean_losses: Tensor | None, lr: float) -> None:
        """Told when an epoch starts: its number from 0, last epoch's mean training losses [K], the present lr."""

    def floored_means(self, mean_losses: Tensor) -> Tensor:
        """Last epoch's mean losses [K] for a method that divides by them: 0 counts as 1e-12, and the next step is
        flagged. Raises NonFinite or ValueError, as `floored` does."""
        means, self.pending = floored(self.key, mean_losses, 1e-12)
        return means

    def take_pending(self) -> tuple[str, ...]:
        """The flags that the next step's record must carry."""
        flags, self.pending = self.pending, ()
        return flags

    def backward(self, step: Step) -> Applied:
        """Leave gradients in .grad of all model parameters (and of its own) and say what was done."""
        raise NotImplementedError

    def after_step(self, step: Step) -> None:
        """Called after the optimizer has moved the parameters."""

    def get_extra_state(self) -> dict[str, Any]:
        """What state_dict() keeps beside parameters and buffers: the generator and the `remembered` attributes."""
        return {"generator": self.generator.get_state(), **{name: getattr(self, name) for name in self.remembered}}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"].cpu())
        for name in self.remembered:
            setattr(self, name, state[name])


class VectorAdam(nn.Module):
    """Adam for a vector of K numbers that an SMTO learns by itself (logits, log-scales, weights), outside the main
    optimizer and its schedule. The formula is torch.optim.Adam's. The moments are buffers: state_dict() carries them.

    Args:
        size: K.
        lr: step size.
        weight_decay: L2 form, added to the gradient.
    """

    def __init__(
        self,
        size: int,
        lr: float,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__()
        self.lr, self.weight_decay, self.betas, self.eps = lr, weight_decay, betas, eps
        self.mean: Tensor
        self.square: Tensor
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("square", torch.zeros(size))
        self.count = 0  # of steps taken

    @torch.no_grad()
    def step(self, vector: Tensor, gradient: Tensor) -> None:
        """Move `vector` [K] in place against `gradient` [K]."""
        (beta, beta_square), gradient = self.betas, gradient.to(vector)
        if self.weight_decay:
            gradient = gradient + self.weight_decay * vector
        self.count += 1
        self.mean.lerp_(gradient, 1 - beta)
        self.square.lerp_(gradient.square(), 1 - beta_square)
        bias, bias_square = 1 - beta**self.count, 1 - beta_square**self.count
        vector.sub_(self.lr / bias * self.mean / ((self.square / bias_square).sqrt() + self.eps))

    def get_extra_state(self) -> int:
        return self.count

    def set_extra_state(self, state: int) -> None:
        self.count = state


class LossWeighting(SMTO):
    """Methods that read the K losses and nothing else. `weights` is all they implement."""

    #: a negative loss is an error, a loss of 0 counts as `floor` (flag "floored_loss")
    positive_losses: ClassVar[bool] = False
    floor: ClassVar[float] = 1e-12

    def weights(self, losses: Tensor) -> Tensor:
        """Losses [K] to task weights [K], on the losses' device."""
        raise NotImplementedError

    def backward(self, step: Step) -> Applied:
        losses, flags = step.losses, self.take_pending()
        if self.positive_losses:
            losses, met = floored(self.key, losses, self.floor)
            flags = tuple(dict.fromkeys(flags + met))
        weights = self.weights(losses)
        step.apply(weights, weights)
        return Applied(weights, weights, flags=flags)


class GramianWeighting(SMTO):
    """Methods that read the K×K Gramian of the task gradients. `weights` is all they implement.

    The edges are decided here and nowhere else:
    * a task without a gradient (zero, or 1e-12 of the longest) is left out of the K×K problem and gets weight 0 on the
      shared parameters; where heads are weighted, its head gets the mean weight of the others (flag "inactive_task");
    * no task with a gradient: weights 0 (flag "no_gradient");
    * a Pareto-stationary point (0 in the convex hull of the unit gradients) gives the zero direction where the method
      has no solution there (`undefined_at_stationary`; flag "pareto_stationary");
    * a loss of 0 counts as 1e-12 where it must be positive (flag "floored_loss");
    * a solution that misses its optimality conditions by more than 1e-6 is used, and counted (flag "inexact");
    * a Gramian or a loss that is not finite raises NonFinite.
    """

    space: Space = "parameters"
    head_policy: ClassVar[str] = "plain"
    #: a negative loss is an error, a loss of 0 counts as `floor` (flag "floored_loss")
    positive_losses: bool = False
    floor: ClassVar[float] = 1e-12
    undefined_at_stationary: ClassVar[bool] = False

    def __init__(self, num_tasks: int) -> None:
        super().__init__(num_tasks)
        self.losses = np.ones(num_tasks)  # of the tasks in the problem at hand, for those methods that look at them too
        self.active = np.arange(num_tasks)  # their positions among all tasks
        self.diagnostics: dict[str, float] = {}
        self.flags: list[str] = []

    def weights(self, gramian: np.ndarray) -> np.ndarray:
        """Gramian of the active tasks' gradients, float64 [K, K], to task weights [K]."""
        raise NotImplementedError

    def solve(self, gramian: np.ndarray, losses: np.ndarray | None = None) -> np.ndarray:
        """`weights` under the policy for the edges: any Gramian [K, K] and losses [K] (ones) to weights [K]."""
        gramian = check_gramian(gramian, self.key, self.num_tasks)
        losses = np.ones(len(gramian)) if losses is None else np.asarray(losses, dtype=float)
        if losses.shape != (self.num_tasks,):
            raise ValueError(f"{self.key}: expected {self.num_tasks} losses, got an array of shape {losses.shape}.")
        if not np.isfinite(losses).all():
            raise NonFinite(f"{self.key}: a loss is not finite: {losses}.")
        self.diagnostics, self.flags = {}, []
        if self.positive_losses:
            losses, flags = floored(self.key, losses, self.floor)
            self.flags += flags
        norms = np.sqrt(gramian.diagonal())
        active = np.flatnonzero(norms > 1e-12 * norms.max())
        self.losses, self.active = losses[active], active
        weights = np.zeros(len(gramian))
        if len(active) == 0:
            self.flags.append("no_gradient")
            return weights
        if len(active) < len(gramian):
            self.flags.append("inactive_task")
            gramian = gramian[np.ix_(active, active)]
        if self.undefined_at_stationary and is_stationary(gramian):
            self.flags.append("pareto_stationary")
            return weights
        weights[active] = self.weights(gramian)
        return weights

    def record(self, solution: Solution) -> np.ndarray:
        """The weights of a K×K solver's solution; its iterations and residual join the diagnostics (flag "inexact")."""
        residual = solution.residual + 0.0  # −0.0 is 0.0, NaN stays
        self.diagnostics |= {"iterations": solution.iterations, "residual": residual}
        if not solution.residual <= 1e-6:
            self.flags.append("inexact")
        return solution.weights

    def head_weights(self, weights: np.ndarray) -> np.ndarray:
        """What the heads get [K]: the task weights where the policy is "weighted" and there is a direction, else 1."""
        if self.head_policy != "weighted" or not weights.any():
            return np.ones(len(weights))
        mean = weights[self.active].mean()
        return np.where(np.isin(np.arange(len(weights)), self.active), weights, mean)

    def on_host(self, gramian: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
        """Where numbers leave the device: Gramian [K, K] and losses [K] to weights on encoder and heads, [K] each."""
        weights = self.solve(gramian.cpu().numpy(), losses.double().cpu().numpy())
        return torch.from_numpy(weights), torch.from_numpy(self.head_weights(weights))

    def backward(self, step: Step) -> Applied:
        weights, head_weights = self.on_host(step.gramian(self.space), step.losses)
        step.apply(weights, None if self.head_policy == "plain" else head_weights)
        return Applied(weights, head_weights, dict(self.diagnostics), tuple(self.flags))


class Wrapping(SMTO):
    """Methods that may work around another SMTO, which then decides the weights. Without an inner one they act alone.

    Options:
    inner: key of the SMTO inside.
    inner_options: its options.
    """

    #: keys that make no sense inside
    not_inside: ClassVar[tuple[str, ...]] = ()

    def __init__(self, num_tasks: int, inner: str | None, inner_options: dict[str, Any] | None) -> None:
        super().__init__(num_tasks)
        if inner is None and inner_options:
            raise BadOption(f"{self.key}: inner_options = {inner_options!r} without an inner SMTO; give option inner.")
        if inner in self.not_inside:
            raise BadOption(f"{self.key}: {inner!r} does not work inside {self.key}; give another inner SMTO, or none.")
        self.inner = None if inner is None else build(inner, num_tasks, **(inner_options or {}))
        if self.inner is not None:
            self.replay = self.inner.replay

    def set_up(self, setting: Setting, seed: int) -> None:
        super().set_up(setting, seed)
        if self.inner is not None:
            self.inner.set_up(setting, seed)

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        return [] if self.inner is None else self.inner.parameter_groups(lr)

    def adapt(self, z: Tensor, k: int) -> Tensor:
        return z if self.inner is None else self.inner.adapt(z, k)

    def begin_epoch(self, epoch: int, mean_losses: Tensor | None, lr: float) -> None:
        if self.inner is not None:
            self.inner.begin_epoch(epoch, mean_losses, lr)

    def after_step(self, step: Step) -> None:
        if self.inner is not None:
            self.inner.after_step(step)


def is_stationary(gramian: np.ndarray) -> bool:
    """Whether 0 is (numerically) in the convex hull of the unit gradients: min wᵀCw ≤ 1e-10 over the simplex."""
    C = cosines(gramian)[1]
    if (C >= 0).all():
        return False
    w = min_norm_point(C).weights
    return bool(w @ C @ w <= 1e-10)


def floored(key: str, losses: Losses, floor: float) -> tuple[Losses, tuple[str, ...]]:
    """Losses [K] for a method that divides by them or takes their logarithm: 0 counts as `floor`, with a flag.

    Raises:
        NonFinite: a loss is NaN or infinite.
        ValueError: a loss is negative.
    """
    if isinstance(losses, Tensor) and losses.is_meta:
        return losses, ()
    values = losses.tolist()
    if not np.isfinite(values).all():
        raise NonFinite(f"{key}: a loss is not finite: {values}.")
    smallest = min(values)
    if smallest < 0:
        raise ValueError(f"{key}: the losses are {values}; this method needs every loss to be positive.")
    return (losses, ()) if smallest >= floor else (losses.clip(min=floor), ("floored_loss",))


def check_gramian(gramian: np.ndarray, key: str, num_tasks: int) -> np.ndarray:
    """The Gramian as float64, made exactly symmetric.

    Raises:
        NonFinite: an entry is NaN or infinite.
        NotAGramian: not real numbers, not [K, K], not symmetric, or not positive semi-definite beyond rounding.
    """
    given = np.asarray(gramian)
    if given.dtype.kind not in "fiu":
        raise NotAGramian(f"{key}: a Gramian holds real numbers; this matrix has the type {given.dtype}.")
    gramian = given.astype(np.float64, copy=False)
    if gramian.shape != (num_tasks, num_tasks):
        raise NotAGramian(f"{key}: expected a Gramian of shape ({num_tasks}, {num_tasks}), got {gramian.shape}.")
    if not np.isfinite(gramian).all():
        raise NonFinite(f"{key}: the Gramian of the task gradients is not finite:\n{gramian}")
    norms = np.sqrt(np.abs(gramian.diagonal()))
    scale = np.outer(norms, norms)  # Cauchy-Schwarz: |G_ij| may not exceed it
    if (np.abs(gramian - gramian.T) > 1e-6 * scale).any():
        raise NotAGramian(f"{key}: a Gramian is symmetric, this matrix is not:\n{gramian}")
    if (gramian.diagonal() < 0).any() or (np.abs(gramian) > (1 + 1e-6) * scale).any():
        raise NotAGramian(f"{key}: a Gramian is positive semi-definite, this matrix is not:\n{gramian}")
    if num_tasks > 2:
        unit = np.where(norms > 0, norms, 1.0)
        smallest = np.linalg.eigvalsh(gramian / np.outer(unit, unit))[0]
        if smallest < -1e-6 * num_tasks:
            raise NotAGramian(
                f"{key}: a Gramian is positive semi-definite; the smallest eigenvalue of this one, scaled to unit "
                f"diagonal, is {smallest:.2e}:\n{gramian}"
            )
    return (gramian + gramian.T) / 2


# -- registry --------------------------------------------------------------------------------------------------------

_REGISTRY: dict[str, type[SMTO]] = {}


def register(smto: type[SMTO]) -> type[SMTO]:
    """Class decorator: makes an SMTO known by its key."""
    if smto.key in _REGISTRY:
        raise BadOption(f"two SMTOs are called {smto.key!r}.")
    _REGISTRY[smto.key] = smto
    return smto


@functools.cache
def _load() -> None:
    """Import every file of this package, so that each has registered itself."""
    import mtl_core.smtos as package

    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def keys() -> list[str]:
    """The keys of all SMTOs, sorted."""
    _load()
    return sorted(_REGISTRY)


def get(key: str) -> type[SMTO]:
    """The class of an SMTO. Raises BadOption, naming the nearest key, if there is none."""
    _load()
    if key not in _REGISTRY:
        raise BadOption(f"there is no SMTO called {key!r}{nearest(key, _REGISTRY)}. Known: {', '.join(keys())}.")
    return _REGISTRY[key]


def options(key: str) -> dict[str, inspect.Parameter]:
    """The options of an SMTO: name to parameter, with annotation and default."""
    parameters = dict(inspect.signature(get(key).__init__, eval_str=True).parameters)
    return {name: p for name, p in parameters.items() if name not in ("self", "num_tasks")}


def build(key: str, num_tasks: int, **given: Any) -> SMTO:
    """The SMTO called `key` for K tasks, with options: `build("cagrad", num_tasks=2, c=0.5)`.

    Raises:
        BadOption: unknown key or option (the nearest is named), or a value of the wrong type or out of range.
    """
    smto = get(key)
    check_options(key, options(key), given)
    if not isinstance(num_tasks, int) or isinstance(num_tasks, bool):
        raise BadOption(f"{key}: num_tasks = {num_tasks!r}: expected a whole number.")
    return smto(num_tasks, **given)


def check_options(owner: str, known: Mapping[str, inspect.Parameter], given: Mapping[str, Any]) -> None:
    """Holds options against the signature that takes them. Raises BadOption, naming the owner and the nearest name."""
    for name, value in given.items():
        if name not in known:
            raise BadOption(
                f"{owner} has no option {name!r}{nearest(name, known)}. Its options: {', '.join(known) or 'none'}."
            )
        try:
            TypeAdapter(known[name].annotation).validate_python(value, strict=True)
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            raise BadOption(
                f"{owner}: option {name} = {value!r}: {problem}. Default: {known[name].default!r}."
            ) from None
        numbers = value if isinstance(value, list) else [value]
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            raise BadOption(f"{owner}: option {name} = {value!r}: expected a finite number.")


def nearest(name: str, known: Any) -> str:
    """ " (did you mean …?)" for the closest known name, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
