"""One forward pass, differentiated only as far as the SMTO asks.

    z = encoder(x)                  one forward pass of the shared encoder
    z_k = a detached copy of z      one per task, so that ONE backward pass over all the heads gives
    L_k = loss_k(head_k(z_k), y_k)    every head's gradient and every ∂L_k/∂z

From there on everything is lazy. Losses and feature gradients cost what plain training costs; the Jacobian with
respect to the shared parameters costs K backward passes through the encoder alone, never K passes through all the
heads. Where only its Gramian is wanted, it need not be kept: the K gradients walk back through the encoder side by
side, part by part, and leave nothing behind but their inner products.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

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
    """

    def __init__(self, encoder: nn.Module, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleDict(heads)

    def forward(self, x: Inputs, transform_features: TransformFeatures = unchanged) -> list[Tensor]:
        """The predictions of all heads for a batch."""
        z = self.encoder(x)
        return [head(transform_features(z, k)) for k, head in enumerate(self.heads.values())]


@dataclass(frozen=True)
class RandomState:
    """The state of torch's default generators, so that a second forward pass can meet the same dropout masks."""

    cpu: Tensor
    cuda: Tensor | None

    @classmethod
    def capture(cls, device: torch.device) -> RandomState:
        return cls(torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None)

    def restore(self, device: torch.device) -> None:
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda, device)


class Step:
    """The losses of one batch and, on request, their gradients.

    Args:
        model: encoder and heads, in train mode.
        loss_functions: one per task, prediction and target to a scalar, averaged over the batch.
        x: inputs [B, …], a tensor or whatever else the encoder takes.
        targets: one tensor per task.
        transform_features: what head k sees of z (identity by default; RotoGrad rotates).
        second_batch: returns a second batch (x, targets), for bi-level methods. None where the trainer offers none.
        replay: keep the state of the random generators, for a second look at the batch under the same dropout masks.
        keep_jacobian: False accumulates the Gramian on the shared parameters part by part and keeps no row of the
            Jacobian. It saves memory where the encoder is an nn.Sequential (nested ones count): never more than one
            part's K gradients live at a time. The passes are as many and the results equal up to rounding;
            `apply(weights)` costs one encoder pass more.

    Attributes:
        losses: L_k, detached [K].
        z: the shared representation, detached [B, …].
        shared: the encoder's trainable parameters. Flat vectors [P] hold them one after the other, each in the order in
            which it lies in memory.
        specific: each head's trainable parameters.
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
        self.model, self.x, self.targets = model, x, targets
        self.loss_functions, self.second_batch = loss_functions, second_batch
        self.transform_features = transform_features or unchanged
        self.heads = list(model.heads.values())
        self.shared = [p for p in model.encoder.parameters() if p.requires_grad]
        self.specific = [[p for p in head.parameters() if p.requires_grad] for head in self.heads]
        self._device = next(model.parameters()).device
        self._random_state = RandomState.capture(self._device) if replay else None
        for parameter in itertools.chain(self.shared, *self.specific):
            parameter.grad = None

        self._walk = None if keep_jacobian else PartByPart(model.encoder)
        self._z = model.encoder(x) if self._walk is None else self._walk(x)
        self.z = self._z.detach()
        self._leaves = [self._z.detach().requires_grad_() for _ in self.heads]
        predictions = [
            head(self.transform_features(leaf, k))
            for k, (head, leaf) in enumerate(zip(self.heads, self._leaves, strict=True))
        ]
        self._losses = self._evaluate(predictions, targets)
        self.losses = self._losses.detach()
        self._feature_gradients: Tensor | None = None
        self._jacobian: Tensor | None = None
        self._gramians: dict[str, Tensor] = {}

    @property
    def num_tasks(self) -> int:
        """K."""
        return len(self.heads)

    # -- what an SMTO may look at ------------------------------------------------------------------------------------

    @property
    def feature_gradients(self) -> Tensor:
        """∂L_k/∂z [K, B, …], all batch entries, unweighted. The pass that gives them fills the heads' gradients too."""
        if self._feature_gradients is None:
            if self._losses.requires_grad:
                self._losses.sum().backward()
            self._feature_gradients = torch.stack([_gradient(leaf) for leaf in self._leaves])
            self._leaves.clear()  # no second copy
        return self._feature_gradients

    @property
    def jacobian(self) -> Tensor:
        """Row k is the gradient of L_k on the shared parameters, flattened [K, P]."""
        if self._jacobian is None:
            jacobian = self.shared[0].new_empty(self.num_tasks, sum(p.numel() for p in self.shared))
            for k, gradient in enumerate(self.feature_gradients):
                rows = torch.autograd.grad(self._z, self.shared, gradient, retain_graph=True, materialize_grads=True)
                self.flatten(rows, out=jacobian[k])
            self._jacobian = jacobian
        return self._jacobian

    def gradients_on(self, parameter: nn.Parameter) -> Tensor:
        """The gradient of every L_k on one shared parameter, flattened [K, …]: passes that go no deeper than needed."""
        rows = [torch.autograd.grad(self._z, parameter, g, retain_graph=True)[0] for g in self.feature_gradients]
        return torch.stack([row.reshape(-1) for row in rows])

    def gramian(self, space: Space) -> Tensor:
        """Inner products of the task gradients on the features or on the shared parameters, float64 [K, K]."""
        if space not in self._gramians:
            if space == "features":
                gramian = inner_products(self.feature_gradients.flatten(1))
            elif self._walk is None or self._jacobian is not None:
                gramian = inner_products(self.jacobian)
            else:
                gramian = self._walk.gramian(self.feature_gradients)
            self._gramians[space] = gramian
        return self._gramians[space]

    def unflatten(self, flat: Tensor) -> list[Tensor]:
        """Views of a flat vector [P], shaped and laid out in memory like the shared parameters."""
        start = flat.storage_offset()
        views = []
        for parameter in self.shared:
            views.append(flat.as_strided(parameter.shape, parameter.stride(), start))
            start += parameter.numel()
        return views

    def flatten(self, tensors: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
        """One tensor per shared parameter, put one after the other into a flat vector [P]."""
        flat = self.shared[0].new_empty(sum(p.numel() for p in self.shared)) if out is None else out
        torch._foreach_copy_(self.unflatten(flat), list(tensors))
        return flat

    # -- what an SMTO may do -----------------------------------------------------------------------------------------

    def apply(self, weights: Tensor, head_weights: Tensor | None = None) -> None:
        """Fill .grad with Σ_k weights[k] ∇L_k on the encoder and head_weights[k] ∇L_k on head k (1 where None)."""
        if self._feature_gradients is None and head_weights is weights:
            # Loss weighting: one backward pass of the weighted sum, exactly what plain training pays.
            self._losses.backward(weights.to(self.losses))
            self._z.backward(functools.reduce(torch.add, [_gradient(leaf) for leaf in self._leaves]))
            return
        if self._jacobian is not None:
            self.apply_shared(weights.to(self._jacobian) @ self._jacobian, head_weights)
        else:
            gradients = self.feature_gradients
            self.apply_features(torch.tensordot(weights.to(gradients), gradients, 1), head_weights)

    def apply_shared(self, gradient: Tensor, head_weights: Tensor | None = None) -> None:
        """Put a flat gradient [P] on the shared parameters."""
        self.feature_gradients  # fills the heads' gradients  # noqa: B018
        for parameter, part in zip(self.shared, self.unflatten(gradient), strict=True):
            parameter.grad = part
        self._weight_heads(head_weights)

    def apply_features(self, direction: Tensor, head_weights: Tensor | None = None) -> None:
        """Send a gradient on the features [B, …] through the encoder."""
        self.feature_gradients  # fills the heads' gradients  # noqa: B018
        self._z.backward(direction)
        self._weight_heads(head_weights)

    def _weight_heads(self, head_weights: Tensor | None) -> None:
        if head_weights is None:
            return
        for weight, parameters in zip(head_weights.to(self.losses), self.specific, strict=True):
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad *= weight

    # -- the same model, elsewhere ------------------------------------------------------------------------------------

    @torch.no_grad()
    def reevaluate(self, parameters: Mapping[nn.Parameter, Tensor] | None = None, fresh: bool = False) -> Tensor:
        """The losses of the same batch under the model's present parameters, or at other values of them [K].

        No graph is built, the dropout masks are those of the first look and the running statistics of batch
        normalisation stay as they are, which needs `replay=True`. With `fresh` it is one more pass in training mode.
        """
        if fresh:
            return self._evaluate(self._predict(self.x, parameters), self.targets)
        if self._random_state is None:
            raise RuntimeError("only a Step made with replay=True can be looked at again under the same dropout masks.")
        after = RandomState.capture(self._device)
        self._random_state.restore(self._device)
        with frozen_statistics(self.model):
            losses = self._evaluate(self._predict(self.x, parameters), self.targets)
        after.restore(self._device)
        return losses

    def elsewhere(self, parameters: Mapping[nn.Parameter, Tensor], batch: Batch) -> dict[nn.Parameter, Tensor]:
        """Gradient of Σ_k L_k on another batch at other values of the parameters (one forward and one backward pass).
        The model, its statistics, every .grad and the random generators are left as they were."""
        x, targets = batch
        leaves = {p: value.detach().requires_grad_() for p, value in parameters.items()}
        after = RandomState.capture(self._device)
        with frozen_statistics(self.model):
            losses = self._evaluate(self._predict(x, leaves), targets)
        after.restore(self._device)
        gradients = torch.autograd.grad(losses.sum(), list(leaves.values()), materialize_grads=True)
        return dict(zip(leaves, gradients, strict=True))

    def _predict(self, x: Tensor, parameters: Mapping[nn.Parameter, Tensor] | None) -> list[Tensor]:
        if parameters is None:
            predictions: list[Tensor] = self.model(x, self.transform_features)
            return predictions
        named = {name: parameters[p] for name, p in self.model.named_parameters() if p in parameters}
        predictions = functional_call(self.model, named, (x, self.transform_features))
        return predictions

    def _evaluate(self, predictions: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        return torch.stack([loss(p, y) for loss, p, y in zip(self.loss_functions, predictions, targets, strict=True)])


class PartByPart:
    """A forward pass through an encoder that remembers its way, so that K gradients can walk back side by side.

    Args:
        encoder: an nn.Sequential is taken apart into its children, nested ones too; any other module is one part.

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

    def gramian(self, gradients: Tensor) -> Tensor:
        """Gradients on the output [K, …] to the inner products of those on the parameters, float64 [K, K]."""
        gramian = torch.zeros(len(gradients), len(gradients), dtype=torch.float64, device=gradients.device)
        arriving = list(gradients)
        for part, (x, output) in zip(reversed(self.parts), reversed(self.way), strict=True):
            if not output.requires_grad:
                break
            parameters = [p for p in part.parameters() if p.requires_grad]
            arriving = self._back(parameters, x, output, arriving, gramian)
        return gramian

    def _back(
        self, parameters: list[nn.Parameter], x: Inputs, output: Tensor, arriving: list[Tensor], gramian: Tensor
    ) -> list[Tensor]:
        """Through one part: adds to the Gramian and gives the K gradients on the part's input."""
        wanted = [*parameters, x] if isinstance(x, Tensor) and x.requires_grad else parameters
        passes = [
            torch.autograd.grad(output, wanted, gradient, retain_graph=True, materialize_grads=True)
            for gradient in arriving
        ]
        for k_gradients in itertools.islice(zip(*passes, strict=True), len(parameters)):
            gramian += inner_products(torch.stack(k_gradients).flatten(1))
        return [gradients[-1] for gradients in passes]


class ScaledStep(Step):
    """The same step with losses c_k L_k: what an SMTO sees that works inside another one.

    Args:
        step: the step itself.
        scales: c, one factor per task [K].
    """

    def __init__(self, step: Step, scales: Tensor) -> None:
        self.step, self.scales = step, scales.to(step.losses)
        self.losses = step.losses * self.scales

    def __getattr__(self, name: str) -> Any:
        return getattr(self.step, name)

    @property
    def feature_gradients(self) -> Tensor:
        gradients = self.step.feature_gradients
        return gradients * self.scales.view(-1, *[1] * (gradients.dim() - 1))

    @property
    def jacobian(self) -> Tensor:
        return self.step.jacobian * self.scales[:, None]

    def gradients_on(self, parameter: nn.Parameter) -> Tensor:
        return self.step.gradients_on(parameter) * self.scales[:, None]

    def gramian(self, space: Space) -> Tensor:
        return self.step.gramian(space) * self.scales.double().outer(self.scales.double())

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


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Batch normalisation normalises by the batch, as in training, but does not update its running statistics."""
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


def inner_products(rows: Tensor) -> Tensor:
    """Rows [K, n] to their inner products, summed in float64 [K, K], without a copy of all rows in that precision."""
    parts = (part.double() for part in rows.split(2**18, dim=1))
    products: Tensor = functools.reduce(torch.add, [part @ part.T for part in parts])
    return products


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """What an nn.Sequential calls, one after the other, nested ones taken apart too."""
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        for child in module:
            yield from _parts(child)
    else:
        yield module


def _gradient(leaf: Tensor) -> Tensor:
    """The gradient that reached a leaf; zeros where a loss is not connected to the features."""
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
