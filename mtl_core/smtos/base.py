"""The protocol of every SMTO, the two bases that cover nearly all of them, and `register`.

    LossWeighting.weights(losses [K])          -> weights [K]    the heads get the same weights
    GramianWeighting.weights(gramian [K, K])   -> weights [K]    on "features" or "parameters"; heads: plain gradients

An SMTO sees losses and gradients, never the name of a dataset or a task. The K×K problems are solved in float64 on the
host with numpy; everything with a batch in it stays on the device with torch.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from mtl_core.options import BadOption, check_options, parameters
from mtl_core.smtos.geometry import NonFinite, check_gramian, is_stationary
from mtl_core.smtos.solvers import Solution
from mtl_core.step import MultiTaskModel, Space, Step, without_autocast
from mtl_core.tasks import Likelihood

Losses = TypeVar("Losses", Tensor, np.ndarray)

#: what a method may need besides losses and shared parameters, and how it gets it in your own loop
NEEDS = {
    "lr": "the optimizer's step size: Balancer(…, lr=0.001)",
    "likelihoods": 'what each loss is, "softmax", "gaussian" or "laplace": Balancer(…, likelihoods=[…])',
    "feature_shape": "the shape of one sample's features: Balancer(…, feature_shape=(64,))",
    "heads": "the heads as modules: Balancer(…, heads={…})",
    "trainer": 'a Step that runs the network itself, so it has no place in own loops: take gradients="exact"',
    "parameters": 'its parameters in the optimizer: Adam([{"params": network.parameters()}, *balance.parameters()])',
    "begin_epoch": "to be told when an epoch begins: balance.begin_epoch()",
    "transform": "heads that take balance.transform(z, k)",
    "features": "what the heads took in: balance.backward(losses, features=z)",
    "targets": "the targets: balance.backward(…, targets=[…])",
    "second_batch": "the losses of another batch, a new one at every call: second_batch=lambda: losses_of(next(more))",
    "every_task": 'every task in its first batch; or its option start="first_epoch"',
    "after_step": "the losses once more after the step: balance.after_step(lambda: losses_of(batch))",
}


@dataclass
class StepResult:
    """What an SMTO did in one step.

    weights: on the shared parameters [K]; NaN where the method has none.
    head_weights: on the heads [K]; both on the device of the losses or, in float64 where that is MPS, on the host.
    diagnostics: numbers worth a curve (iterations, residual, rotation loss, …).
    flags: names of edge cases met in this step; the run record counts them.
    """

    weights: Tensor
    head_weights: Tensor
    diagnostics: dict[str, float | Tensor] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProblemInfo:
    """What an SMTO may know of the problem before training starts.

    likelihoods: "softmax" (cross-entropy), "gaussian" (squared error) or "laplace" (absolute error) per task.
    feature_shape: shape of z for one sample. lr, weight_decay: of the main optimizer at the start.
    """

    likelihoods: tuple[Likelihood, ...]
    feature_shape: tuple[int, ...]
    lr: float
    weight_decay: float


def _checked(backward: Callable[[Any, Step], StepResult]) -> Callable[[Any, Step], StepResult]:
    """What no method can work with is refused before any state moves; none computes under autocast."""

    @functools.wraps(backward)
    def checked(self: SMTO, step: Step) -> StepResult:
        if step.num_tasks != self.num_tasks:
            raise BadOption(f"{self.key}: made for num_tasks = {self.num_tasks}; the model has {step.num_tasks} heads.")
        if not self.is_set_up and (lacking := [n for n in self.needs if n in ProblemInfo.__dataclass_fields__]):
            raise BadOption(f"{self.key} needs {' and '.join(lacking)}: set_up(ProblemInfo(…), seed) comes first.")
        if step.losses.device.type == "cpu" and not torch.isfinite(step.losses).all():
            raise NonFinite(f"{self.key}: a loss is not finite: {step.losses.tolist()}.")
        if "trained" in self.remembered:
            trained = [p.requires_grad for p in step.model.encoder.parameters()]
            if self.trained not in (None, trained):
                words = "remembers each shared parameter; some were frozen or unfrozen since: make a new one."
                raise ValueError(f"{self.key} {words}")
            self.trained = trained
        with without_autocast(step.losses.device):
            return backward(self, step)

    return checked


class SMTO(nn.Module):
    """A specialized multi-task optimizer: how much does each task count in this step?

    Class attributes (they fill the register of differences, docs/methods.md):
        key: name in configurations and records. space: what it looks at.
        head_policy: what the heads get: "plain", "mean", "weighted" or "scaled".
        native_scale: how long the update is, in words.
        code_version: raised whenever the numbers it produces change, so that stored runs are not mistaken for new ones.
        remembered: names of plain attributes (counters, arrays, tensors) that state_dict() must hold besides the
            buffers; "trained" is one of a method that has numbers for each shared parameter. A tensor is replaced, and
            never changed in place.
        replay: whether it looks at a batch twice and needs the same dropout masks.
        needs: names in NEEDS, of what it must be given besides losses and shared parameters (see `required`).
        positive_losses: a negative loss is an error, a loss of 0 counts as `floor` (flag "floored_loss").
    """

    key: ClassVar[str]
    space: str = "losses"
    head_policy: ClassVar[str] = "weighted"
    native_scale: ClassVar[str] = ""
    code_version: ClassVar[int] = 1
    remembered: ClassVar[tuple[str, ...]] = ()
    replay: bool = False
    needs: tuple[str, ...] = ()
    positive_losses: bool = False
    trained: list[bool] | None = None  # which shared parameters
    floor: ClassVar[float] = 1e-12

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Every `backward` begins with the same look at the step."""
        super().__init_subclass__(**keywords)
        if "backward" in vars(cls):
            cls.backward = _checked(cls.backward)  # type: ignore[method-assign, assignment]

    def __new__(cls, *args: Any, **given: Any) -> Self:
        """Holds what the constructor is given against its signature; a wrong name or value raises BadOption."""
        known = {name: p for name, p in parameters(cls.__init__).items() if name != "self"}
        named = dict(zip(known, args, strict=False)) | given
        num_tasks = named.pop("num_tasks", 1)
        if not isinstance(num_tasks, int) or isinstance(num_tasks, bool):
            raise BadOption(f"{cls.key}: num_tasks = {num_tasks!r}: expected a whole number.")
        known.pop("num_tasks", None)
        check_options(cls.key, known, named)
        return super().__new__(cls)

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        if num_tasks < 1:
            raise BadOption(f"{self.key}: num_tasks is {num_tasks}; at least one task is needed.")
        self.num_tasks = num_tasks
        self.generator, self.is_set_up = torch.Generator().manual_seed(0), False
        self.pending: tuple[str, ...] = ()  # flags met between epochs; the next step's record carries them

    def required(self) -> list[str]:
        """What it needs in every training, with these options: names in NEEDS, in that order."""
        return [need for need in NEEDS if need in self.needs or (need == "features" and need in self.space)]

    def set_up(self, info: ProblemInfo, seed: int) -> None:
        """Called once, before the optimizer is made, to size parameters by the problem. Seeds the generator."""
        self.generator.manual_seed(seed)
        self.is_set_up = True

    def check_model(self, model: MultiTaskModel) -> None:
        """Called before training. Raises BadOption for a model that this method cannot work with."""

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Groups that join the main optimizer (and follow its learning-rate schedule)."""
        return []

    def transform_features(self, z: Tensor, k: int) -> Tensor:
        """What head k sees of z."""
        return z

    def begin_epoch(self, epoch: int, mean_losses: Tensor | None, lr: float) -> None:
        """Told when an epoch starts: its number from 0, last epoch's mean training losses [K], the present lr."""

    def floored_means(self, mean_losses: Tensor) -> Tensor:
        """Last epoch's mean losses [K] for a method that divides by them: 0 counts as 1e-12, and the next step is
        flagged. Raises NonFinite or ValueError, as `floored` does."""
        means, self.pending = floored(self.key, mean_losses, self.floor)
        return means

    def take_pending(self) -> tuple[str, ...]:
        """The flags that the next step's record must carry."""
        flags, self.pending = self.pending, ()
        return flags

    def backward(self, step: Step) -> StepResult:
        """Leave gradients in .grad of all model parameters (and of its own) and say what was done.

        Raises:
            BadOption: the step has another number of tasks.
            NonFinite: a loss is NaN or infinite. Methods that never read a number on the host do not see it on a GPU,
                where looking would mean waiting; the trainer leaves the parameters as they are there.
        """
        raise NotImplementedError

    def after_step(self, step: Step) -> None:
        """Called after the optimizer has moved the parameters."""

    def get_extra_state(self) -> dict[str, Any]:
        """What state_dict() adds to parameters and buffers: the generator and the `remembered` attributes, arrays
        as tensors, so that torch.load reads them."""
        kept = {name: getattr(self, name) for name in self.remembered}
        kept = {name: v if isinstance(v, Tensor) else copy.copy(v) for name, v in kept.items()}
        kept = {name: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for name, v in kept.items()}
        return {"generator": self.generator.get_state(), **kept}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"].cpu())
        for name in self.remembered:
            array = isinstance(getattr(self, name), np.ndarray)
            value = copy.deepcopy(state[name])
            setattr(self, name, torch.as_tensor(value).numpy() if array else value)


class LossWeighting(SMTO):
    """Methods that read the K losses and nothing else. `weights` is all they implement."""

    def weights(self, losses: Tensor) -> Tensor:
        """Losses [K] to task weights [K], on the losses' device."""
        raise NotImplementedError

    def backward(self, step: Step) -> StepResult:
        losses, flags = step.losses, self.take_pending()
        if self.positive_losses:
            losses, met = floored(self.key, losses, self.floor)
            flags = tuple(dict.fromkeys(flags + met))
        weights = self.weights(losses)
        step.apply(weights, weights)
        return StepResult(weights, weights, flags=flags)


class GramianWeighting(SMTO):
    """Methods that read the K×K Gramian of the task gradients. `weights` is all they implement.

    The edges are decided here and nowhere else:
    * a task without a gradient (zero, or 1e-12 of the longest) is left out of the K×K problem and gets weight 0 on the
      shared parameters; a mean stays one over all K tasks (`averages`); where heads are weighted, its head gets the
      mean weight of the others (flag "inactive_task");
    * no task with a gradient: weights 0 (flag "no_gradient");
    * a Pareto-stationary point (0 in the convex hull of the unit gradients) gives the zero direction where the method
      has no solution there (`undefined_at_stationary`; flag "pareto_stationary");
    * a loss of 0 counts as 1e-12 where it must be positive (flag "floored_loss");
    * a solution that misses its optimality conditions by more than 1e-6 is used, and counted (flag "inexact");
    * a Gramian or a loss that is not finite raises NonFinite.
    """

    space: Space = "parameters"
    head_policy: ClassVar[str] = "plain"
    undefined_at_stationary: bool = False
    #: the update is made of the mean gradient, or of a mean of K vectors: a task that is left out counts in that K
    averages: bool = False

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
        share = len(active) / self.num_tasks if self.averages else 1.0
        weights[active] = share * self.weights(gramian)
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

    def backward(self, step: Step) -> StepResult:
        there = step.on_host(self.space).numpy()
        solved = self.solve(there[:-1], there[-1])
        both = torch.from_numpy(np.stack([solved, self.head_weights(solved)]))
        weights, head_weights = both.to(step.gramian(self.space).device, non_blocking=True)
        step.apply(weights, None if self.head_policy == "plain" else head_weights)
        return StepResult(weights, head_weights, dict(self.diagnostics), tuple(self.flags))


def floored(key: str, losses: Losses, floor: float) -> tuple[Losses, tuple[str, ...]]:
    """Losses [K] for a method that divides by them or takes their logarithm: 0 counts as `floor`, with a flag.

    On a GPU, where looking would mean waiting, there is no flag, and a negative loss counts as NaN: nothing is learnt.

    Raises:
        NonFinite: a loss is NaN or infinite. ValueError: a loss is negative.
    """
    if isinstance(losses, Tensor) and losses.device.type != "cpu":
        return losses.where(losses >= 0, torch.nan).clip(min=floor), ()
    values = losses.tolist()
    if not np.isfinite(values).all():
        raise NonFinite(f"{key}: a loss is not finite: {values}.")
    smallest = min(values)
    if smallest < 0:
        raise ValueError(f"{key}: the losses are {values}; this method needs every loss to be positive.")
    return (losses, ()) if smallest >= floor else (losses.clip(min=floor), ("floored_loss",))


REGISTRY: dict[str, type[SMTO]] = {}  #: every SMTO by its key; `registry` finds and builds them


def register(smto: type[SMTO]) -> type[SMTO]:
    """Class decorator: makes an SMTO known by its key. A class that is defined again (by a notebook, a script or a
    reloaded module) replaces the old one. Raises BadOption where a different class has the key, or it is no name."""
    key = getattr(smto, "key", None)
    if not (isinstance(key, str) and key.isascii() and key.isidentifier() and key.islower()):
        words = "in lower-case letters, digits and _, as key = 'my_method'; records are kept under it"
        raise BadOption(f"{smto.__qualname__}: {'no key' if key is None else f'key = {key!r}'}; give it one {words}.")
    known = REGISTRY.get(smto.key, smto)
    again = known.__module__ == smto.__module__ and (smto.__module__ == "__main__" or known.__name__ == smto.__name__)
    if known is not smto and not again:
        raise BadOption(f"two SMTOs are called {smto.key!r}; give {smto.__qualname__} another key.")
    REGISTRY[smto.key] = smto
    return smto
