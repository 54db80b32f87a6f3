"""Other libraries' methods as SMTOs, so that they train in `mtl_core.Balancer` and can be compared with all others.

    from_torchjd(UPGrad())                       an aggregator of torchjd
    from_libmtl(CAGrad, calpha=0.5, rescale=1)   a weighting class of LibMTL, with the arguments of its `backward`

Each gives a class: build it with the number of tasks, hand it to `mtl_study.check_smto`, or register it under a key of
its own (`mtl_core.smtos.base.register`), for runs and for `mtl_study.against_shipped`.
Neither library is imported here.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from mtl_core.options import BadOption
from mtl_core.smtos.base import SMTO, StepResult
from mtl_core.step import MultiTaskModel, Step


class Torchjd(SMTO):
    """The Jacobian on the shared parameters [K, P] goes to an aggregator, and its answer [P] is the update. Heads get
    plain gradients, as torchjd's `mtl_backward` leaves them. Weights are not known (NaN)."""

    key = "torchjd"
    space = "parameters"
    head_policy = "plain"
    native_scale = "the aggregator's"
    aggregator: ClassVar[Any]

    def __init__(self, num_tasks: int) -> None:
        super().__init__(num_tasks)
        self.own = copy.deepcopy(self.aggregator)
        self.register_load_state_dict_pre_hook(_make_room)

    def backward(self, step: Step) -> StepResult:
        step.apply_shared(self.own(step.jacobian))
        return StepResult(torch.full_like(step.losses, torch.nan), torch.ones_like(step.losses))

    def get_extra_state(self) -> dict[str, Any]:
        """What the aggregator counts in plain attributes goes along with its buffers."""
        parts = {place: vars(part) for place, part in self.own.named_modules()}
        own = {
            place: {n: v for n, v in of.items() if isinstance(v, int | float | tuple)} for place, of in parts.items()
        }
        return {**super().get_extra_state(), "own": own}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        super().set_extra_state(state)
        for place, kept in state["own"].items():
            vars(self.own.get_submodule(place)).update(kept)


def _make_room(smto: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """The buffers that a state fills are there, and no others: some aggregators make theirs in the first step."""
    for place, part in smto.own.named_modules(prefix=f"{prefix}own"):
        for name in part._buffers.keys() - part._non_persistent_buffers_set:
            kept = state.get(f"{place}.{name}")
            if kept is None or part._buffers[name] is None:
                part._buffers[name] = None if kept is None else torch.empty_like(kept)


def from_torchjd(aggregator: Any, key: str = "torchjd") -> type[SMTO]:
    """A class of SMTOs that follow an aggregator of torchjd; every one begins with a copy of it. Raises BadOption for
    anything else, such as a class or a weighting."""
    if isinstance(aggregator, type):
        raise BadOption(f"from_torchjd: {aggregator.__name__} is a class; give an aggregator: {aggregator.__name__}().")
    if "Weighting" in {base.__name__ for base in type(aggregator).__mro__}:
        raise BadOption(
            f"from_torchjd: {aggregator!r} is a weighting of torchjd; give an aggregator, such as UPGrad()."
        )
    if "Aggregator" not in {base.__name__ for base in type(aggregator).__mro__}:
        raise BadOption(f"from_torchjd: {aggregator!r} is no aggregator of torchjd; give one, such as UPGrad().")
    return type("FromTorchjd", (Torchjd,), {"key": key, "aggregator": aggregator, "of_whom": repr(aggregator)})


class LibMTL(SMTO):
    """A weighting class of LibMTL. What it asks of its surroundings is answered from the step: weights that it puts on
    the losses go to all parameters, an update of the shared parameters goes there, and heads then get what LibMTL's
    backward passes leave with them (`rep_grad=False`). Weights on task gradients are not known (NaN)."""

    key = "libmtl"
    space = "parameters"
    head_policy = "plain"
    native_scale = "the class's"
    needs: tuple[str, ...] = ("begin_epoch",)
    remembered = ("history",)
    weighting: ClassVar[type]
    arguments: ClassVar[dict[str, Any]]

    def __init__(self, num_tasks: int) -> None:
        super().__init__(num_tasks)
        self.history: list[Tensor] = []  # mean losses of the epochs so far
        self.own = type(self.weighting.__name__, (_Answered, self.weighting), {})()
        self.own.task_num, self.own.task_name = num_tasks, [str(k) for k in range(num_tasks)]
        self.own.rep_grad, self.own.device, self.own.decoders = False, torch.device("cpu"), {}

    def check_model(self, model: MultiTaskModel) -> None:
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.own.device, self.own.grad_dim = (
            parameters[0].device,
            sum(p.numel() for p in model.encoder.parameters() if p.requires_grad),
        )
        self.own.init_param()
        asks = {"parameters": bool(list(self.own.parameters())), "after_step": hasattr(self.own, "update_w")}
        self.needs = (*type(self).needs, *(need for need, asked in asks.items() if asked))

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        learnt = list(self.own.parameters())
        return [{"params": learnt}] if learnt else []

    def begin_epoch(self, epoch: int, mean_losses: Tensor | None, lr: float) -> None:
        self.own.epoch = epoch
        if mean_losses is not None:
            self.history.append(mean_losses.detach().cpu())
        if self.history:
            self.own.train_loss_buffer = torch.stack(self.history, 1).numpy()

    def backward(self, step: Step) -> StepResult:
        own, unknown = self.own, torch.full_like(step.losses, torch.nan)
        own.smto_step, own.smto_losses, own.smto_update = step, step.losses.clone().requires_grad_(), None
        own.smto_heads = torch.zeros_like(step.losses)
        own.backward(own.smto_losses * 1, **self.arguments)
        weights, update, heads = own.smto_losses.grad, own.smto_update, own.smto_heads
        own.smto_step = own.smto_losses = own.smto_update = None
        if update is not None:
            step.apply_shared(update.to(step.jacobian), heads)
            return StepResult(unknown, heads)
        if weights is None:
            raise BadOption(f"{self.key}: {type(own).__name__} neither differentiates the losses nor sets a gradient.")
        step.apply(weights, weights)
        return StepResult(weights, weights)

    def after_step(self, step: Step) -> None:
        """What LibMTL's trainer does for FAMO alone."""
        if "after_step" in self.needs:
            self.own.update_w(step.reevaluate(fresh=True))

    def get_extra_state(self) -> dict[str, Any]:
        """Copies of the class's tensors, arrays, optimizers, numbers and lists of them, as torch.load reads them."""
        own = {name: value for name, value in vars(self.own).items() if name[0] != "_"}
        arrays = {name: torch.from_numpy(v.copy()) for name, v in own.items() if isinstance(v, np.ndarray)}
        optimizers = {name: v.state_dict() for name, v in own.items() if isinstance(v, torch.optim.Optimizer)}
        tensors = {name: v.detach() for name, v in own.items() if isinstance(v, Tensor)}
        lists = {name: v if isinstance(v, list) else [v] for name, v in own.items()}
        numbers = {name: own[name] for name, v in lists.items() if all(isinstance(n, int | float) for n in v)}
        return {**super().get_extra_state(), "own": copy.deepcopy((numbers, tensors, arrays, optimizers))}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        super().set_extra_state(state)
        (numbers, tensors, arrays, optimizers), own = state["own"], vars(self.own)
        for name, kept in tensors.items():
            if isinstance(own.get(name), Tensor) and own[name].shape == kept.shape:
                own[name].data.copy_(kept)  # an optimizer may hold this one
            else:
                own[name] = kept.clone()
        own.update(copy.deepcopy(numbers), **{name: kept.numpy().copy() for name, kept in arrays.items()})
        for name, kept in optimizers.items():
            own[name].load_state_dict(copy.deepcopy(kept))


class _Answered(nn.Module):
    """LibMTL's AbsWeighting, as far as it differentiates losses and writes gradients, on a Step."""

    smto_step: Any
    smto_losses: Any
    smto_update: Any
    smto_heads: Tensor

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            words = "LibMTL's trainer has it, or the class made it before it was saved."
            raise AttributeError(f"{type(self).__name__} asks for {name!r}, which is not here: {words}") from None

    def _compute_grad_dim(self) -> None:
        """grad_dim is known before training."""

    def _compute_grad(self, losses: Any, mode: str = "backward", rep_grad: bool = False) -> Tensor:
        """Of what the class has made of the K losses, on the shared parameters [K, P]; fills its own parameters' .grad,
        as a backward pass would."""
        if (isinstance(losses, Tensor) and not losses.dim()) or len(losses) != len(self.smto_losses):
            raise BadOption(f"{type(self).__name__} takes losses of several batches, which this adapter does not give.")
        rows = []
        for loss in losses:
            self.smto_losses.grad = None
            loss.backward(retain_graph=True)
            rows.append(self.smto_losses.grad)
        self.smto_losses.grad = None
        of_losses = torch.stack(rows)
        self.smto_heads = of_losses.sum(0)
        return of_losses.to(self.smto_step.jacobian) @ self.smto_step.jacobian

    def _get_grads(self, losses: Any, mode: str = "backward") -> Tensor:
        return self._compute_grad(losses, mode)

    def _reset_grad(self, new_grads: Tensor) -> None:
        self.smto_update = new_grads.detach()

    def _backward_new_grads(self, batch_weight: Any, per_grads: Any = None, grads: Any = None) -> None:
        self._reset_grad(torch.as_tensor(batch_weight).to(grads) @ grads)


def from_libmtl(weighting: type, key: str = "libmtl", **arguments: Any) -> type[SMTO]:
    """A class of SMTOs that follow a weighting class of LibMTL. arguments: of its `backward`; LibMTL's documents have
    their defaults. Raises BadOption for what is no class. One that wants several batches (MoDo, SDMGrad) is refused by
    BadOption at its first step."""
    if not isinstance(weighting, type):
        raise BadOption(
            f"from_libmtl: {weighting!r} is no class; give one, as of LibMTL.weighting: from_libmtl(CAGrad)."
        )
    of_whom = f"{weighting.__module__}.{weighting.__qualname__}"  # part of what a run is (`fingerprints`)
    own = {"key": key, "weighting": weighting, "arguments": arguments, "of_whom": of_whom}
    return type("FromLibMTL", (LibMTL,), own)
