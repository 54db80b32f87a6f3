"""One forward pass, differentiated only as far as the SMTO asks.

    z = encoder(x)                  one forward pass of the shared encoder
    z_k = a detached copy of z      one per task, so that ONE backward pass over all the heads gives
    L_k = loss_k(head_k(z_k), y_k)    every head's gradient and every ∂L_k/∂z

From there on everything is lazy. Losses and feature gradients cost what plain training costs; the Jacobian with
respect to the shared parameters costs K backward passes through the encoder alone, never K passes through all the
heads. Where only its Gramian is wanted, it need not be kept: the K gradients pass back through the encoder together,
part by part, and only their inner products are stored.

A parameter of the encoder that a head uses too is shared: its gradients are those of the whole losses, through z and
past it. One that several heads use gets the sum of what it would get in each of them.
"""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn

Space = Literal["features", "parameters"]
LossFunction = Callable[[Tensor, Tensor], Tensor]
TransformFeatures = Callable[[Tensor, int], Tensor]
Inputs = Any  # a batch as the encoder takes it: a tensor [B, …], or an object of tensors (graphs)
Batch = tuple[Inputs, Sequence[Tensor]]
_IN_ONE = ": its Gramian cannot be accumulated part by part; use keep_jacobian=True."


def unchanged(z: Tensor, k: int) -> Tensor:
    """Every head sees z itself."""
    return z


class MultiTaskModel(nn.Module):
    """A shared encoder and one head per task, in task order.

    The encoder maps a batch to the shared representation z [B, …], a head what the SMTO makes of z to a prediction.
    An encoder may say `gradients_at_once = True`: torch has a batched backward pass for all that is in it, and on a GPU
    a Step takes the K task gradients in one such pass, for the price of a second Jacobian in memory.
    """

    def __init__(self, encoder: nn.Module, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleDict(heads)

    def forward(self, x: Inputs, transform_features: TransformFeatures = unchanged) -> list[Tensor]:
        """The predictions of all heads for a batch."""
        return list(self.predictions([self.encoder(x)] * len(self.heads), transform_features))

    def predictions(self, features: Sequence[Tensor], transform_features: TransformFeatures) -> Iterator[Tensor]:
        """Features for every head [B, …] to its prediction, one head after the other. A head that begins in place, such
        as Sequential(ReLU(inplace=True), …), works on a copy. Raises ValueError where one does so unseen."""
        for k, ((name, head), z) in enumerate(zip(self.heads.items(), features, strict=True)):
            seen = transform_features(z, k)
            try:
                prediction: Tensor = head(seen.clone() if _begins_in_place(head) else seen)
            except RuntimeError as error:
                if "a leaf Variable that requires grad" not in str(error):
                    raise
                words = "and the other heads see the same ones; let it work on z.clone(), or without inplace=True."
                raise ValueError(f"head {name!r} changes the features in place, {words}") from error
            yield prediction


@dataclass(frozen=True, eq=False)
class RandomState:
    """The state of torch's default generators, so that a second forward pass can meet the same dropout masks."""

    cpu: Tensor
    own: Tensor | None  # of a device with a generator of its own

    @classmethod
    def capture(cls, device: torch.device) -> RandomState:
        of = {"cuda": lambda: torch.cuda.get_rng_state(device), "mps": torch.mps.get_rng_state}.get(device.type)
        return cls(torch.get_rng_state(), of and of())

    def restore(self, device: torch.device) -> None:
        torch.set_rng_state(self.cpu)
        if self.own is not None:
            torch.mps.set_rng_state(self.own) if device.type == "mps" else torch.cuda.set_rng_state(self.own, device)

    def __eq__(self, other: object) -> bool:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return all(a is b or torch.equal(a, b) for a, b in pairs)


class Step:
    """The losses of one batch and, on request, their gradients.

    Args:
        model: encoder and heads, in train mode.
        loss_functions: one per task, prediction and target to a scalar, averaged over the batch.
        x: inputs [B, …], a tensor or whatever else the encoder takes. targets: one tensor per task.
        transform_features: what head k sees of z (identity by default; RotoGrad rotates).
        second_batch: returns a second batch (x, targets), for bi-level methods. None where the trainer offers none.
        replay: keep the state of the random generators, for a second look at the batch under the same dropout masks.
        keep_jacobian: False accumulates the Gramian on the shared parameters part by part and keeps no row of the
            Jacobian. It saves memory where the encoder is an nn.Sequential (nested ones count): never more than one
            part's K gradients live at a time. The passes are as many and the results equal up to rounding;
            `apply(weights)` costs one encoder pass more.

    Attributes:
        losses: L_k, detached [K]. z: the shared representation, detached [B, …].
        shared: the encoder's trainable parameters, those that heads use too included. None where it is frozen or has
            none: the heads are trained then, and a warning says so. Flat vectors [P] hold them one after the other,
            each in its order in memory (row by row where it is part of something larger).
        specific: each head's trainable parameters that are not shared; one that several heads use is in all of them.

    Raises:
        ValueError: heads, loss functions and targets are not equally many; features are no floating-point tensor or
            do not depend on the shared parameters; a loss is no scalar. When gradients are asked for: a loss reaches a
            parameter of the encoder past z, and no head has it.
        RuntimeError: several processes of torch.distributed run; or gradients are asked for, or applied, after they
            have been applied.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        loss_functions: Sequence[LossFunction],
        x: Inputs,
        targets: Sequence[Tensor],
        transform_features: TransformFeatures | None = None,
        second_batch: Callable[[], Batch] | None = None,
        replay: bool = False,
        keep_jacobian: bool = True,
    ) -> None:
        if hasattr(model, "_orig_mod"):
            raise ValueError("torch.compile(model) compiles what a Step never calls; compile model.encoder and heads.")
        if processes() > 1:
            words = "use mtl_core.Balancer: they take each step together, or with together=False each by itself."
            raise RuntimeError(f"a Step sees one process's batch, and all {processes()} would drift apart; {words}")
        self.model, self.x, self.targets = model, x, targets
        self.loss_functions, self.second_batch = loss_functions, second_batch
        self.transform_features = transform_features or unchanged
        self.heads = list(model.heads.values())
        self.shared = [p for p in model.encoder.parameters() if p.requires_grad]
        used = [[p for p in head.parameters() if p.requires_grad] for head in self.heads]
        shared = set(self.shared)
        self.specific = [[p for p in parameters if p not in shared] for parameters in used]
        self._tied = len(shared.union(*used)) < len(shared) + sum(map(len, used))
        self._device = next(itertools.chain(model.parameters(), [torch.empty(0)])).device
        self._random_state = RandomState.capture(self._device) if replay else None
        self._autocast = autocast_as_now(self._device)
        for parameter in itertools.chain(self.shared, *self.specific):
            parameter.grad = None

        self._walk = None if keep_jacobian else PartByPart(model.encoder)
        self._z = model.encoder(x) if self._walk is None else self._walk(x)
        self._check_features()
        self.z = single(self._z.detach())
        self._leaves = [self._z.detach().requires_grad_() for _ in self.heads]
        self._losses = self._evaluate(list(model.predictions(self._leaves, self.transform_features)), targets)
        self.losses = single(self._losses.detach())
        if not self._losses.requires_grad:
            warnings.warn("no loss of this batch depends on a trainable parameter: nothing is learnt.", stacklevel=2)
        self._spent = False  # whether the graph has been used up
        self._past_z: list[dict[nn.Parameter, Tensor]] = []  # where parameters are tied: per task, what bypasses z
        self._feature_gradients: Tensor | None = None
        self._jacobian: Tensor | None = None
        self._gramians: dict[str, Tensor] = {}

    @property
    def num_tasks(self) -> int:
        """K."""
        return len(self.losses)

    def _check_features(self) -> None:
        z = self._z
        if not isinstance(z, Tensor) or not z.is_floating_point():
            found = str(z.dtype) if isinstance(z, Tensor) else type(z).__name__
            raise ValueError(f"the encoder gives {found}; expected one tensor of floating-point features [B, …].")
        if not self.shared:
            warnings.warn("nothing is shared: the encoder has no trainable parameter; heads are trained.", stacklevel=3)
        elif not z.requires_grad:
            words = "it detaches them, or they are made under torch.no_grad(). For heads alone, freeze the encoder."
            raise ValueError(f"the features carry no gradient, though the encoder has trainable parameters: {words}")

    # -- what an SMTO may look at ------------------------------------------------------------------------------------

    @property
    def feature_gradients(self) -> Tensor:
        """∂L_k/∂z [K, B, …], all batch entries, unweighted. The pass that gives them fills the heads' gradients too."""
        if self._feature_gradients is None:
            self._check_graph()
            if self._tied:
                self._past_z = [self._back_through_head(k) for k in range(self.num_tasks)]
            elif self._losses.requires_grad:
                self._back_through_heads()
            self._feature_gradients = single(torch.stack([_gradient(leaf) for leaf in self._leaves]))
            self._leaves.clear()  # no second copy
        return self._feature_gradients

    def _back_through_head(self, k: int) -> dict[nn.Parameter, Tensor]:
        """Head k alone: ∂L_k/∂z goes to its leaf; the gradients on the parameters that it uses."""
        used = list(dict.fromkeys([*(p for p in self.heads[k].parameters() if p.requires_grad), *self.shared]))
        if not self._losses.requires_grad:
            return {}
        wanted = [self._leaves[k], *used]
        of_z, *found = torch.autograd.grad(self._losses[k], wanted, retain_graph=True, allow_unused=True)
        self._leaves[k].grad = of_z
        return {p: gradient for p, gradient in zip(used, found, strict=True) if gradient is not None}

    def _back_through_heads(self) -> None:
        """All heads at once. Where none is known to use a shared parameter, no loss may reach one but through z."""
        encoder = dict(self.model.encoder.named_parameters())
        earlier = {name: parameter.grad for name, parameter in encoder.items()}
        for parameter in encoder.values():
            parameter.grad = None
        self._losses.sum().backward()
        for name, parameter in encoder.items():
            if parameter.grad is not None:
                raise ValueError(
                    f"a loss depends on the encoder's parameter {name!r} past the features, as a penalty on it would, "
                    "and no head has it. Let a head have it, too, as an attribute, and what reaches it there counts."
                )
            parameter.grad = earlier[name]

    @property
    def head_gradients(self) -> list[dict[nn.Parameter, Tensor]]:
        """∇L_k on those of head k's `specific` parameters that it reaches, per task."""
        self.feature_gradients  # fills the heads' gradients  # noqa: B018
        if self._tied:
            both = zip(self.specific, self._past_z, strict=True)
            return [{p: found[p] for p in own if p in found} for own, found in both]
        return [{p: p.grad for p in own if p.grad is not None} for own in self.specific]

    @property
    def jacobian(self) -> Tensor:
        """Row k is the gradient of L_k on the shared parameters, flattened [K, P]."""
        if self._jacobian is None:
            jacobian = self._new_flat(self.num_tasks)
            for row, gradients in zip(jacobian, self._task_gradients(self.shared), strict=True):
                self.flatten(gradients, out=row)
            self._jacobian = jacobian
        return self._jacobian

    def gradients_on(self, parameter: nn.Parameter) -> Tensor:
        """The gradient of every L_k on one shared parameter, flattened [K, …]: passes that go no deeper than needed."""
        return torch.stack([row.reshape(-1) for (row,) in self._task_gradients([parameter])])

    def _task_gradients(self, parameters: list[nn.Parameter]) -> Iterator[list[Tensor]]:
        """The gradients of one task after the other on shared parameters, dense."""
        arriving = self.feature_gradients
        self._check_graph()
        if getattr(self.model.encoder, "gradients_at_once", False) and _on_gpu(self._z):
            rows: Iterator[Sequence[Tensor]] = _batched_gradients(self._z, parameters, arriving.to(self._z))
        else:
            rows = (_gradients(self._z, parameters, gradient.to(self._z)) for gradient in arriving)
        for k, row in enumerate(rows):
            past_z = self._past_z[k] if self._tied else {}
            yield [g + past_z[p] if p in past_z else g for p, g in zip(parameters, row, strict=True)]

    def gramian(self, space: Space) -> Tensor:
        """Inner products of the task gradients on the features or on the shared parameters, float64 [K, K]."""
        if space not in self._gramians:
            if space == "features":
                gramian = inner_products(self.feature_gradients.flatten(1))
            elif self._walk is None or self._jacobian is not None:
                gramian = inner_products(self.jacobian)
            else:
                self._check_graph()
                gramian = self._walk.gramian(self.feature_gradients.to(self._z), self._past_z)
            self._gramians[space] = gramian
        return self._gramians[space]

    def on_host(self, space: Space) -> Tensor:
        """The Gramian and, below it, the losses, float64 [K + 1, K], on the host: the one wait for a GPU in a step."""
        if (key := f"{space}, on the host") not in self._gramians:
            self._gramians[key] = torch.cat([self.gramian(space), in_float64(self.losses)[None]]).cpu()
        return self._gramians[key]

    def unflatten(self, flat: Tensor) -> list[Tensor]:
        """Views of a flat vector [P], shaped and laid out in memory like the shared parameters."""
        start = flat.storage_offset()
        views = []
        for parameter, stride in zip(self.shared, self._strides, strict=True):
            views.append(flat.as_strided(parameter.shape, stride, start))
            start += parameter.numel()
        return views

    def flatten(self, tensors: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
        """One tensor per shared parameter, put one after the other into a flat vector [P]."""
        flat = self._new_flat() if out is None else out
        if self.shared:
            torch._foreach_copy_(self.unflatten(flat), list(tensors))
        return flat

    @functools.cached_property
    def _strides(self) -> list[tuple[int, ...]]:
        """Of the shared parameters' gradients: a parameter's own, or those of a dense copy if it is not dense."""
        return [torch.empty_like(p, device="meta").stride() for p in self.shared]

    def _new_flat(self, *rows: int) -> Tensor:
        """Room for flat vectors [*rows, P], in a type that holds all shared parameters."""
        dtype = functools.reduce(torch.promote_types, {p.dtype for p in self.shared} or {self.losses.dtype})
        return self.losses.new_empty(*rows, sum(p.numel() for p in self.shared), dtype=dtype)

    # -- what an SMTO may do -----------------------------------------------------------------------------------------

    def apply(self, weights: Tensor, head_weights: Tensor | None = None) -> None:
        """Fill .grad with Σ_k weights[k] ∇L_k on the encoder and head_weights[k] ∇L_k on head k (1 where None)."""
        self._check_graph()
        if self._feature_gradients is None and head_weights is weights:
            # Loss weighting: one backward pass of the weighted sum, exactly what plain training pays.
            if self._losses.requires_grad:
                self._losses.backward(weights.to(self._losses))
            self._back_through_encoder(functools.reduce(torch.add, [_gradient(leaf) for leaf in self._leaves]))
            self._spent = True
        elif self._jacobian is not None:
            self.apply_shared(weights.to(self._jacobian) @ self._jacobian, head_weights)
        else:
            gradients = self.feature_gradients
            self._back_through_encoder(torch.tensordot(weights.to(gradients), gradients, 1))
            self._fill_past_z(self.shared, weights)
            self._weight_heads(head_weights)

    def apply_shared(self, gradient: Tensor, head_weights: Tensor | None = None) -> None:
        """Put a flat gradient [P] on the shared parameters."""
        self._check_graph()
        self.feature_gradients  # fills the heads' gradients  # noqa: B018
        for parameter, part in zip(self.shared, self.unflatten(gradient), strict=True):
            parameter.grad = part.to(parameter.dtype)
        self._weight_heads(head_weights)

    def apply_features(self, direction: Tensor, head_weights: Tensor | None = None) -> None:
        """Send a gradient on the features [B, …] through the encoder. What reaches a shared parameter past them, in a
        head that uses it too, counts as on the head's own parameters."""
        self._check_graph()
        self.feature_gradients  # fills the heads' gradients  # noqa: B018
        self._back_through_encoder(direction)
        self._fill_past_z(self.shared, head_weights)
        self._weight_heads(head_weights)

    def _check_graph(self) -> None:
        if self._spent:
            raise RuntimeError("this Step has been applied and its graph is gone; make a new Step for every update.")

    def _back_through_encoder(self, gradient: Tensor) -> None:
        if self._z.requires_grad:
            self._z.backward(gradient.to(self._z))

    def _weight_heads(self, head_weights: Tensor | None) -> None:
        self._spent = True
        if self._tied:
            self._fill_past_z(list(dict.fromkeys(itertools.chain(*self.specific))), head_weights)
        elif head_weights is not None:
            for weight, parameters in zip(head_weights.to(self.losses), self.specific, strict=True):
                for parameter in parameters:
                    if parameter.grad is not None:
                        parameter.grad *= weight

    def _fill_past_z(self, parameters: Sequence[nn.Parameter], weights: Tensor | None) -> None:
        """Where parameters are tied: add to .grad what reaches them past z, weighted by task (1 where None)."""
        for k, found in enumerate(self._past_z):
            for parameter in parameters:
                if parameter in found:
                    if parameter.grad is None:
                        parameter.grad = torch.zeros_like(parameter)
                    parameter.grad += found[parameter] * (1 if weights is None else weights[k].to(parameter))

    # -- the same model, elsewhere ------------------------------------------------------------------------------------

    @torch.no_grad()
    def reevaluate(self, parameters: Mapping[nn.Parameter, Tensor] | None = None, fresh: bool = False) -> Tensor:
        """The losses of the same batch under the model's present parameters, or at other values of them [K].

        No graph is built, the dropout masks are those of the first look and the running statistics of batch
        normalisation stay as they are, which needs `replay=True`. With `fresh` it is one more pass in training mode.
        """
        if not fresh and self._random_state is None:
            raise RuntimeError("only a Step made with replay=True can be looked at again under the same dropout masks.")
        with moved(parameters or {}), nullcontext() if fresh else unseen(self._device, self._random_state):
            return self._look(self.x, self.targets)

    def second_jacobian(self) -> Tensor:
        """`jacobian` on another second batch [K, P], by K passes through the whole model; nothing else changes."""
        if self.second_batch is None:
            raise RuntimeError("this method needs a second batch in every step: make the Step with second_batch=….")
        with unseen(self._device, draws=True):
            losses = self._look(*self.second_batch())
            return torch.stack([self.flatten(_gradients(x, self.shared, torch.ones_like(x))) for x in losses])

    def elsewhere(self, parameters: Mapping[nn.Parameter, Tensor], batch: Batch) -> dict[nn.Parameter, Tensor]:
        """Gradient of Σ_k L_k on another batch at other values of the parameters (one forward and one backward pass).
        The model, its statistics, every .grad and the random generators are left as they were."""
        with moved(parameters), unseen(self._device):
            losses = self._look(*batch)
            gradients = _gradients(losses, list(parameters), torch.ones_like(losses))
        return dict(zip(parameters, gradients, strict=True))

    def _look(self, x: Inputs, targets: Sequence[Tensor]) -> Tensor:
        with self._autocast():
            return single(self._evaluate(self.model(x, self.transform_features), targets))

    def _evaluate(self, predictions: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        counts = len(predictions), len(self.loss_functions), len(targets)
        if len(set(counts)) > 1:
            words = "there are {} heads, {} loss functions and {} targets.".format(*counts)
            raise ValueError(f"every task needs one head, one loss function and one tensor of targets; {words}")
        losses = [loss(p, y) for loss, p, y in zip(self.loss_functions, predictions, targets, strict=True)]
        check_scalars(dict(zip(self.model.heads, losses, strict=True)))
        return torch.stack(losses)


class PartByPart:
    """A forward pass through an encoder that records its steps, so that K gradients can pass back together.

    Args:
        encoder: an nn.Sequential is taken apart into its children, nested ones too, unless it has hooks; any other
            module is one part.

    Raises:
        ValueError: here or in the forward pass, where a part gives no tensor, changes its input in place or shares a
            parameter with another one.
    """

    def __init__(self, encoder: nn.Module) -> None:
        self.parts = list(_parts(encoder))
        self.way: list[tuple[Inputs, Tensor]] = []  # what went into each part, and what came out
        if sum(len(list(part.parameters())) for part in self.parts) > len(list(encoder.parameters())):
            raise ValueError(f"a parameter belongs to two children of the encoder{_IN_ONE}")

    def __call__(self, x: Inputs) -> Tensor:
        """The encoder's output for a batch."""
        for part in self.parts:
            version = getattr(x, "_version", None)
            output = part(x)
            if not isinstance(output, Tensor):
                raise ValueError(f"{type(part).__name__} in the encoder gives {type(output).__name__}{_IN_ONE}")
            if getattr(x, "_version", None) != version:
                raise ValueError(f"{type(part).__name__} in the encoder changes its input in place{_IN_ONE}")
            self.way.append((x, output))
            x = output
        z: Tensor = x
        return z

    def gramian(self, gradients: Tensor, past_z: list[dict[nn.Parameter, Tensor]]) -> Tensor:
        """Gradients on the output [K, …] to the inner products of those on the parameters, float64 [K, K]. What reaches
        parameters of task k past the output, in `past_z[k]` (empty: nothing), is added to theirs."""
        gramian = in_float64(gradients.new_zeros(len(gradients), len(gradients)))
        arriving = list(gradients)
        for part, (x, output) in zip(reversed(self.parts), reversed(self.way), strict=True):
            if not output.requires_grad and not past_z:
                break
            parameters = [p for p in part.parameters() if p.requires_grad]
            wanted = [*parameters, x] if isinstance(x, Tensor) and x.requires_grad else parameters
            passes = [_gradients(output, wanted, gradient) for gradient in arriving]
            for p, rows in zip(parameters, zip(*passes, strict=True), strict=False):
                if past_z:
                    rows = tuple(g + found[p] if p in found else g for g, found in zip(rows, past_z, strict=True))
                gramian += inner_products(torch.stack([row.flatten() for row in rows]))
            arriving = [gradients[-1] for gradients in passes] if wanted else arriving
            passes, rows = [], ()  # nothing of this part lives on
        return gramian


class ScaledStep(Step):
    """The same step with losses c_k L_k: what an SMTO sees that works inside another one.

    Args:
        step: the step itself. scales: c, one factor per task [K].
    """

    def __init__(self, step: Step, scales: Tensor) -> None:
        self.step, self.scales = step, scales.to(step.losses)
        self.losses, self._gramians = step.losses * self.scales, {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.step, name)

    @property
    def feature_gradients(self) -> Tensor:
        gradients = self.step.feature_gradients
        return gradients * self.scales.view(-1, *[1] * (gradients.dim() - 1))

    @property
    def head_gradients(self) -> list[dict[nn.Parameter, Tensor]]:
        scaled = zip(self.scales, self.step.head_gradients, strict=True)
        return [{p: scale * gradient for p, gradient in found.items()} for scale, found in scaled]

    @property
    def jacobian(self) -> Tensor:
        return self.step.jacobian * self.scales[:, None]

    def gradients_on(self, parameter: nn.Parameter) -> Tensor:
        return self.step.gradients_on(parameter) * self.scales[:, None]

    def gramian(self, space: Space) -> Tensor:
        return self.step.gramian(space) * in_float64(self.scales).outer(in_float64(self.scales))

    def second_jacobian(self) -> Tensor:
        return self.step.second_jacobian() * self.scales[:, None]

    def apply(self, weights: Tensor, head_weights: Tensor | None = None) -> None:
        scaled = weights.to(self.scales) * self.scales
        self.step.apply(scaled, scaled if head_weights is weights else self._on_heads(head_weights))

    def apply_shared(self, gradient: Tensor, head_weights: Tensor | None = None) -> None:
        self.step.apply_shared(gradient, self._on_heads(head_weights))

    def apply_features(self, direction: Tensor, head_weights: Tensor | None = None) -> None:
        self.step.apply_features(direction, self._on_heads(head_weights))

    def reevaluate(self, parameters: Mapping[nn.Parameter, Tensor] | None = None, fresh: bool = False) -> Tensor:
        return self.step.reevaluate(parameters, fresh) * self.scales

    def _on_heads(self, head_weights: Tensor | None) -> Tensor:
        return self.scales if head_weights is None else head_weights.to(self.scales) * self.scales


_kept: list[tuple[nn.Module, str, Tensor, Tensor]] = []  # buffers of layers, with copies


def _keep(layer: nn.Module, _: Any) -> None:
    if layer.training:
        _kept.extend((layer, name, buffer, buffer.clone()) for name, buffer in layer.named_buffers(recurse=False))


@contextmanager
def unseen(device: torch.device, start: RandomState | None = None, draws: bool = False) -> Iterator[None]:
    """Forward passes that leave no trace: random generators and the buffers of layers, such as running statistics, end
    where they were. start: where the generators begin. draws: they go on, for what draws a batch of its own."""
    hooks: dict[Any, Any] = nn.modules.module._global_forward_pre_hooks
    after = RandomState.capture(device)
    torch.clear_autocast_cache()  # of weights that have moved since
    hooks["mtl_core"] = _keep  # by one name: for a new one in every step torch.compile would compile again
    try:
        if start is not None:
            start.restore(device)
        yield
    finally:
        hooks.pop("mtl_core", None)
        torch.clear_autocast_cache()
        if not draws:
            after.restore(device)
        while _kept:
            layer, name, buffer, copy = _kept.pop()  # the first copy of a buffer is the last to go back
            buffer.data.copy_(copy)  # by .data: a graph that needs it still may
            layer._buffers[name] = buffer


@contextmanager
def moved(parameters: Mapping[nn.Parameter, Tensor]) -> Iterator[None]:
    """Parameters have other values for a while. Gradients of what is computed here have to be taken here, too."""
    here = {p: p.data for p in parameters}
    try:
        for p, value in parameters.items():
            p.data = value.detach().to(p)
        yield
    finally:
        for p, value in here.items():
            p.data = value


def processes() -> int:
    """How many processes torch.distributed runs; 1 where it does not."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def check_scalars(losses: Mapping[str, Any]) -> None:
    """Raises ValueError, naming the task, for a loss that is no scalar tensor."""
    for name, loss in losses.items():
        if not isinstance(loss, Tensor) or loss.dim():
            found = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"the loss of task {name!r} is {found}; expected a scalar tensor: take mean or sum.")


def in_float64(x: Tensor) -> Tensor:
    """x in float64: on its device or, from MPS, which has none, on the host. Raises ValueError for complex numbers."""
    if x.is_complex():
        raise ValueError("complex numbers are not supported; give torch.view_as_real of them, made of real parameters.")
    return (x.cpu() if x.device.type == "mps" else x).double()


def inner_products(rows: Tensor) -> Tensor:
    """Rows [K, n] to their inner products, summed in float64 [K, K], without a copy of all rows in that precision."""
    parts = (in_float64(part) for part in rows.split(2**18, dim=1))
    products: Tensor = functools.reduce(torch.add, [part @ part.T for part in parts])
    return products


def autocast_as_now(device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """What makes contexts in which autocast is as it is at present."""
    kind = device.type
    if not torch.amp.is_autocast_available(kind):
        return nullcontext
    enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    return functools.partial(torch.autocast, kind, dtype=dtype, enabled=enabled, cache_enabled=False)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """A context in which sums and products are of full precision."""
    kind = device.type
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if on else nullcontext()


def single(tensor: Tensor) -> Tensor:
    """The tensor itself, or a copy in single precision of one that has less."""
    return tensor if tensor.dtype.itemsize >= 4 else tensor.float()


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """What an nn.Sequential calls, one after the other, nested ones taken apart too."""
    hooked = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward and not hooked:
        for child in module:
            yield from _parts(child)
    else:
        yield module


def _gradient(leaf: Tensor) -> Tensor:
    """The gradient that reached a leaf; zeros where a loss is not connected to the features."""
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def _begins_in_place(head: nn.Module) -> bool:
    """Whether one of the layers before a head's first parameters says that it works in place."""
    for part in _parts(head):
        if getattr(part, "inplace", False):
            return True
        if next(part.parameters(), None) is not None:
            break
    return False


def _on_gpu(z: Tensor) -> bool:
    return z.is_cuda


def _gradients(output: Tensor, wanted: Sequence[Tensor], gradient: Tensor) -> list[Tensor]:
    """A gradient on the output to those on what is wanted, dense; zeros where the output does not depend on it."""
    if not (output.requires_grad and wanted):
        return [torch.zeros_like(tensor) for tensor in wanted]
    found = torch.autograd.grad(output, wanted, gradient, retain_graph=True, materialize_grads=True)
    return [g.to_dense() if g.is_sparse else g for g in found]


def _batched_gradients(output: Tensor, wanted: Sequence[Tensor], gradients: Tensor) -> Iterator[Sequence[Tensor]]:
    """The same for gradients [K, …] in one pass."""
    found = torch.autograd.grad(output, wanted, gradients, retain_graph=True, allow_unused=True, is_grads_batched=True)
    stacks = [p.new_zeros(len(gradients), *p.shape) if g is None else g for p, g in zip(wanted, found, strict=True)]
    return zip(*stacks, strict=True)
