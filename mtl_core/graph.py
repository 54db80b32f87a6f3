"""A Step out of a graph that is there already: the losses of somebody's own loop, differentiated as the SMTO asks.

Nothing is cut, and no model is known: what a loss reaches without passing the features, and is not shared, belongs to
its head. A loss that reaches shared parameters past the features, or is given without features, is differentiated all
the way down, once per task. Every gradient comes from torch.autograd.grad and is put into .grad here; where several
processes train together, every number that a method sees and every gradient is their mean.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.utils._pytree import tree_leaves

from mtl_core.options import BadOption
from mtl_core.step import MultiTaskModel, Space, Step, check_scalars, inner_products, moved, processes, single, unseen

Again = Callable[[], Tensor]  # the losses [K] of a batch under the parameters as they are when it is called


class Replicas:
    """The processes that take each step together: all of torch.distributed's, or this one alone."""

    def __init__(self, together: bool = True) -> None:
        self.together, self.alike = together, False
        self._marks: dict[nn.Parameter, float] = {}  # of parameters of heads, by their values when they were first met

    @property
    def count(self) -> int:
        """How many they are."""
        return processes() if self.together else 1

    def check_alike(self, tensors: Iterable[Tensor]) -> None:
        """Raises ValueError where the processes begin with something else each."""
        self.alike = not self.differing(torch.stack([t.detach().float().abs().sum() for t in tensors]))
        if not self.alike:
            words = "give all the same, as DistributedDataParallel(network) does, or together=False to train apart."
            raise ValueError(f"the processes begin with other parameters, or the methods with other seeds: {words}")

    def mark(self, parameters: Sequence[nn.Parameter]) -> float:
        """A number that tells lists of parameters apart; where all is well it is the same in every process."""
        new = {p: p.numel() + float(p.detach().double().abs().sum()) for p in parameters if p not in self._marks}
        self._marks |= new
        return sum(place * self._marks[p] for place, p in enumerate(parameters, 1))

    def differing(self, numbers: Tensor) -> list[int]:
        """The places at which a vector is not the same in every process."""
        everyone = [torch.empty_like(numbers) for _ in range(self.count)]
        distributed.all_gather(everyone, numbers)
        alike = torch.stack(everyone).isclose(everyone[0], equal_nan=True).all(0)
        return [place for place, same in enumerate(alike.tolist()) if not same]

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over the processes, in each of them."""
        if self.count == 1:
            return tensor
        total = tensor.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total / self.count

    def idle(self, shared: Sequence[nn.Parameter], reached: Container[nn.Parameter]) -> set[nn.Parameter]:
        """The shared parameters that no loss reaches in any process."""
        found = [float(p in reached) for p in shared]
        found = found if self.count == 1 else self.mean(torch.tensor(found, device=shared[0].device)).tolist()
        return {p for p, share in zip(shared, found, strict=True) if not share}

    def means(self, wanted: Collection[Any], tensors: Iterable[Tensor | None]) -> dict[Any, Tensor]:
        """The means of several tensors by what they are wanted for, sent at once. None is left out where there is one
        process; with several, another may have a gradient, and None counts as zeros."""
        found = {p: t for p, t in zip(wanted, tensors, strict=True) if t is not None}
        if self.count == 1 or not wanted:
            return found
        found = {p: found[p] if p in found else single(torch.zeros_like(p)) for p in wanted}
        flat = self.mean(torch.cat([t.flatten() for t in found.values()]))
        parts = flat.split([t.numel() for t in found.values()])
        return {p: part.view(t.shape).to(t) for (p, t), part in zip(found.items(), parts, strict=True)}

    def gather(self, tensor: Tensor, dim: int = 0) -> Tensor:
        """The tensors of all processes, one after the other. Raises ValueError where their sizes differ."""
        if self.count == 1:
            return tensor
        sizes = torch.tensor([tensor.dim(), tensor.numel(), len(tensor)], dtype=torch.float64, device=tensor.device)
        if self.differing(sizes):
            raise ValueError(f"sizes differ between processes, here {list(tensor.shape)}; this method takes one.")
        everyone = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(self.count)]
        distributed.all_gather(everyone, tensor.contiguous())
        return torch.cat(everyone, dim)


class GraphStep(Step):
    """The losses of one batch on a graph, and their gradients on request.

    Args:
        model: whose encoder has the shared parameters; heads only for a method that looks at them.
        losses: a scalar per task, averaged over the batch; None where the task is missing from it.
        last: what a method sees of a missing task's loss [K]. Its gradient is 0.
        features: tensors between shared parameters and losses. replicas: the processes that take this step together.
        scale: factor of a GradScaler. Losses are differentiated times this factor; gradients are without it.
        targets: one tensor per task. second_batch: see `elsewhere`.
        keep_graph: what is asked after the Jacobian may go through the encoder again; otherwise that frees its graph.

    Raises:
        ValueError: a loss is no scalar; losses, features and shared parameters do not hang together; a feature is made
            of another, or has a hook; processes have different tasks.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        losses: Mapping[str, Tensor | None],
        last: Tensor,
        features: Sequence[Tensor] = (),
        replicas: Replicas | None = None,
        scale: Tensor | None = None,
        targets: Sequence[Tensor] = (),
        second_batch: Again | None = None,
        keep_graph: bool = False,
    ) -> None:
        self.model, self.features, self.scale, self.keep_graph = model, list(features), scale, keep_graph
        self.replicas, self._targets = replicas or Replicas(together=False), targets
        self.second_batch = None if second_batch is None else lambda: second_batch  # type: ignore[assignment]
        self.again: Again | None = None  # the same batch, once more
        check_scalars({name: loss for name, loss in losses.items() if loss is not None})
        values = [last[k] if loss is None else loss.detach().to(last) for k, loss in enumerate(losses.values())]
        self.losses = self.replicas.mean(torch.stack(values))
        self.roots = {k: loss for k, loss in enumerate(losses.values()) if loss is not None and loss.requires_grad}
        self.shared = [p for p in model.encoder.parameters() if p.requires_grad]
        self._walk, self._tied, self._spent = None, False, False
        self._jacobian: Tensor | None = None
        self._gramians: dict[str, Tensor] = {}
        self._sort_out()
        if self.replicas.count > 1:
            self._check_processes(losses)

    def _check_processes(self, losses: Mapping[str, Tensor | None]) -> None:
        """All of them have the same tasks, heads and ways. Raises ValueError in each of them."""
        present, names = [float(loss is not None) for loss in losses.values()], list(losses)
        ways = [*present, *map(self.replicas.mark, self.specific), float(self.through_features)]
        found = self.replicas.differing(torch.tensor(ways, dtype=torch.float64, device=self.losses.device))
        if partly := [names[i] for i in found if i < len(names)]:
            raise ValueError(f"tasks {partly} are missing in some processes only; all need the same in every step.")
        if partly := [names[i - len(names)] for i in found if i < 2 * len(names)]:
            words = "Give all the same, as DistributedDataParallel(network) does, and add what is not used times 0."
            raise ValueError(f"heads of tasks {partly} differ between processes, in values or in layers used. {words}")
        if found:
            raise ValueError("in some processes only a loss reaches shared parameters past the features; give none.")

    def _sort_out(self) -> None:
        """What belongs to the heads; whether all losses reach what is shared through the features alone."""
        shared, doors, below = set(self.shared), doors_of(self.features), below_features(self.features)
        each = [[root] for root in self.roots.values()] if doors else [list(self.roots.values())]
        found = [leaves(roots, doors) for roots in each]
        behind = [[p for p in reached if p not in shared] for reached, _ in found]
        theirs = iter(behind if doors else behind * len(self.roots))
        self.specific = [next(theirs) if k in self.roots else [] for k in range(self.num_tasks)]
        past = [shared.intersection(reached) for reached, _ in found]
        users = Counter(itertools.chain(*past))
        self.partly = [list(p.shape) for p in (users.keys() - below) if users[p] < len(past)]
        self.reached = {*below, *itertools.chain(*(reached for reached, _ in found))}
        if doors and not any(met for _, met in found):
            raise ValueError("no loss depends on the features; give what heads took in (and compile no whole network).")
        if not any(past) and shared.isdisjoint(below):
            words = "no shards, as FSDP's; copied? only together: copy.deepcopy((network, balance, optimizer))"
            raise ValueError(f"no loss depends on a shared parameter; give what all tasks use ({words}).")
        if lost := [list(p.shape) for p in below if p not in shared]:
            words = "not in `shared` and would get no gradient. Give all parameters below the features, or no features."
            raise ValueError(f"the features come from parameters or inputs (of shapes {str(lost)[1:-1]}) {words}")
        self.through_features = bool(doors) and not any(past)
        self.around = [k for k, p, (_, met) in zip(self.roots, past, found, strict=False) if doors and p and not met]

    @property
    def z(self) -> Tensor:  # type: ignore[override]
        """The features of all processes' batches, detached [B, …]."""
        return self.replicas.gather(single(self._one_feature.detach()))

    @property
    def targets(self) -> list[Tensor]:  # type: ignore[override]
        return [self.replicas.gather(target) for target in self._targets]

    @property
    def _one_feature(self) -> Tensor:
        if len(self.features) != 1:
            raise ValueError(f"this method looks at one tensor of features [B, …]; there are {len(self.features)}.")
        return self.features[0]

    def _pull(
        self, outputs: Sequence[Tensor], gradients: Iterable[Tensor], wanted: Sequence[Tensor], keep: bool
    ) -> list[Tensor | None]:
        """Gradients on outputs to those on what is wanted: dense, of at least single precision; None: none arrives."""
        if not wanted or not outputs:
            return [None] * len(wanted)
        scaled = [(g if self.scale is None else g * self.scale).to(o) for o, g in zip(outputs, gradients, strict=True)]
        found = differentiated(outputs, wanted, scaled, retain_graph=keep, allow_unused=True)
        return [None if g is None else self._plain(g) for g in found]

    def _plain(self, gradient: Tensor) -> Tensor:
        dense = single(gradient.to_dense() if gradient.is_sparse else gradient)
        return dense if self.scale is None else dense / self.scale

    @functools.cached_property
    def _found(self) -> dict[int, dict[Tensor, Tensor]]:
        """Per task that is there: its gradients on the features and its head, and on what is shared where the features
        are not all that leads there."""
        found, last = {}, max(self.roots, default=-1)
        for k, root in self.roots.items():
            wanted = [*self.features, *([] if self.through_features else self.shared), *self.specific[k]]
            gradients = self._pull([root], [torch.ones_like(root)], wanted, keep=k < last)
            found[k] = {p: g for p, g in zip(wanted, gradients, strict=True) if g is not None}
        return found

    def _on(self, z: Tensor) -> Tensor:
        """∂L_k/∂z [K, …] for one tensor of features."""
        if self.around:
            raise ValueError(f"tasks {self.around} reach shared parameters past all features; give theirs, too.")
        none = single(torch.zeros_like(z))
        return torch.stack([self._found.get(k, {}).get(z, none) for k in range(self.num_tasks)])

    def _task_gradients(self, parameters: list[nn.Parameter]) -> Iterator[list[Tensor]]:
        last, before = max(self.roots, default=-1), [p.grad for p in parameters]
        for k in range(self.num_tasks):
            found = self._found.get(k, {})
            if self.through_features:
                arriving = [z for z in self.features if z in found]
                keep = self.keep_graph or parameters is not self.shared or k < last
                row = self._pull(arriving, [found[z] for z in arriving], parameters, keep)
            else:
                row = [found.get(p) for p in parameters]
            if any(p.grad is not old for p, old in zip(parameters, before, strict=True)):
                raise ValueError("a layer's own backward pass puts gradients into .grad, where no method sees them.")
            yield _dense(parameters, row)

    @property
    def feature_gradients(self) -> Tensor:
        return self.replicas.gather(self._on(self._one_feature), dim=1) / self.replicas.count

    @property
    def head_gradients(self) -> list[dict[nn.Parameter, Tensor]]:
        heads = map(self._heads, range(self.num_tasks))
        return [self.replicas.means(found.keys(), found.values()) for found in heads]

    def _heads(self, k: int) -> dict[nn.Parameter, Tensor]:
        found = self._found.get(k, {})
        return {p: found[p] for p in self.specific[k] if p in found}

    @property
    def jacobian(self) -> Tensor:
        if self._jacobian is None:
            self._jacobian = self.replicas.mean(super().jacobian)
        return self._jacobian

    def gradients_on(self, parameter: nn.Parameter) -> Tensor:
        return self.replicas.mean(super().gradients_on(parameter))

    def gramian(self, space: Space) -> Tensor:
        if space == "features" and space not in self._gramians:
            products = functools.reduce(torch.add, [inner_products(self._on(z).flatten(1)) for z in self.features])
            self._gramians[space] = self.replicas.mean(products) / self.replicas.count
        return super().gramian(space)

    def apply(self, weights: Tensor, head_weights: Tensor | None = None) -> None:
        self._check_graph()
        same, weights = head_weights is weights, weights.to(self.losses)
        if same and "_found" not in vars(self):
            everyone = list(dict.fromkeys([*self.shared, *itertools.chain(*self.specific)]))
            roots = list(self.roots.values())
            gradients = self._pull(roots, [weights[k] for k in self.roots], everyone, keep=False)
            self._fill(self.replicas.means(everyone, gradients))
        elif self.through_features and self._jacobian is None:
            directions = [torch.tensordot(weights.to(g), g, 1) for g in map(self._on, self.features)]
            self._apply_on(self._pull(self.features, directions, self.shared, keep=False), head_weights)
        else:
            self.apply_shared(weights.to(self.jacobian) @ self.jacobian, head_weights)

    def apply_shared(self, gradient: Tensor, head_weights: Tensor | None = None) -> None:
        self._check_graph()
        self._fill(dict(zip(self.shared, self.unflatten(gradient), strict=True)) | self._weighted_heads(head_weights))

    def apply_features(self, direction: Tensor, head_weights: Tensor | None = None) -> None:
        self._check_graph()
        if not self.through_features:
            raise ValueError("a loss reaches shared parameters past the features; this method needs all to pass them.")
        count = self.replicas.count
        own = direction.chunk(count)[distributed.get_rank() if count > 1 else 0] * count
        self._apply_on(self._pull(self.features, [own], self.shared, keep=False), head_weights)

    def _apply_on(self, gradients: Sequence[Tensor | None], head_weights: Tensor | None) -> None:
        self._fill(self.replicas.means(self.shared, gradients) | self._weighted_heads(head_weights))

    def _weighted_heads(self, head_weights: Tensor | None) -> dict[Tensor, Tensor]:
        total: dict[Tensor, Tensor] = {}
        for k in self._found:
            for p, gradient in self._heads(k).items():
                weighted = gradient if head_weights is None else gradient * head_weights[k].to(gradient)
                total[p] = total[p] + weighted if p in total else weighted
        return self.replicas.means(total.keys(), total.values())

    def _fill(self, gradients: Mapping[Tensor, Tensor]) -> None:
        """Copies: autograd gives one tensor for p and q in p + q, the weight for a parameter that is added to a loss,
        and a layer's own buffer where its backward pass returns it."""
        self._spent = True
        for p, gradient in gradients.items():
            p.grad = torch.empty_like(p).copy_(gradient)

    def release(self) -> None:
        """Let go of the graph and of all gradients; the losses stay."""
        vars(self).pop("_found", None)
        self.roots, self.features, self._jacobian, self.second_batch = {}, [], None, None

    def reevaluate(self, parameters: Mapping[nn.Parameter, Tensor] | None = None, fresh: bool = False) -> Tensor:
        assert self.again is not None and parameters is None  # see NEEDS["trainer"]
        with torch.no_grad():
            return self.replicas.mean(self.again().to(self.losses))

    def second_jacobian(self) -> Tensor:
        with unseen(self.losses.device, draws=True):
            losses = self.second_batch()()  # type: ignore[misc, operator]
            found = [self._pull([x], [torch.ones_like(x)], self.shared, keep=True) for x in losses]
        return self.replicas.mean(torch.stack([self.flatten(_dense(self.shared, row)) for row in found]))

    def elsewhere(self, parameters: Mapping[nn.Parameter, Tensor], batch: Any) -> dict[nn.Parameter, Tensor]:
        """Gradient of Σ_k L_k, for losses that `batch()` computes, at other values of the parameters."""
        with moved(parameters), unseen(self.losses.device, draws=True):
            loss = batch().sum()
            found = self._pull([loss], [torch.ones_like(loss)], list(parameters), keep=False)
        return self.replicas.means(parameters, _dense(list(parameters), found))


class GroupStep(Step):
    """A step on some of the shared parameters, for a small problem of their own.

    Args:
        step: the whole. group: its shared parameters from position `start` of the flat vector on.

    Attributes:
        head_weights: those that the method gave, None for plain gradients.
    """

    def __init__(self, step: GraphStep, group: list[nn.Parameter], start: int) -> None:
        self.step, self.shared, self.losses = step, group, step.losses
        self._jacobian = step.jacobian[:, start : start + sum(p.numel() for p in group)]
        self._gramians = {}
        self.head_weights: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.step, name)

    def apply(self, weights: Tensor, head_weights: Tensor | None = None) -> None:
        self.head_weights = head_weights
        for p, part in zip(self.shared, self.unflatten(weights.to(self.jacobian) @ self.jacobian), strict=True):
            p.grad = part.to(p.dtype)


def tensors_in(features: Any) -> list[Tensor]:
    """The tensors with a gradient in a nest of lists, tuples and dicts. ValueError for what would have to be opened."""
    nest = [t for t in tree_leaves(features) if isinstance(t, Tensor) or is_dataclass(t) or hasattr(t, "__dict__")]
    if closed := sorted({type(t).__name__ for t in nest if not isinstance(t, Tensor)}):
        raise ValueError(f"no tensor is looked for inside {', '.join(closed)}: give its tensors as the features.")
    return list(dict.fromkeys(t for t in nest if t.requires_grad))


def is_older(roots: Iterable[Tensor], moment: Any) -> bool:
    """Whether a part of the graph of these tensors was there before that tensor was computed. torch counts nodes."""
    seen, todo, number = set[Any](), [root.grad_fn for root in roots], moment.grad_fn._sequence_nr()
    while todo:
        node: Any = todo.pop()
        if node is not None and node not in seen:
            if node._sequence_nr() < number:
                return True
            seen.add(node)
            todo.extend(following for following, _ in node.next_functions)
    return False


def differentiated(*tensors: Any, **options: Any) -> Any:
    """torch.autograd.grad, whose error about a graph that is gone says what to do."""
    try:
        return torch.autograd.grad(*tensors, **options)
    except RuntimeError as error:
        if "second time" in str(error):  # torch's words
            error.add_note("Each backward takes losses of its own: run the network again before the next one.")
        raise


def parameters_of(shared: Iterable[nn.Parameter], who: str) -> list[nn.Parameter]:
    """The parameters, as a list. Raises BadOption for modules."""
    given: list[Any] = list(shared) if isinstance(shared, Iterable) else [shared]
    if wrong := {type(p).__name__ for p in given if not isinstance(p, nn.Parameter)}:
        raise BadOption(f"{who}: expected shared parameters, not {', '.join(wrong)}: shared=trunk.parameters().")
    return given


def doors_of(features: Iterable[Tensor]) -> set[tuple[Any, int]]:
    """Where features leave the graph: a node, and which of its outputs."""
    return {(z.grad_fn, z.output_nr) for z in features if z.grad_fn is not None}


def below_features(features: Sequence[Tensor]) -> list[Any]:
    """The tensors that features are differentiated for. Raises ValueError where one is made of another, or has a hook,
    since what passes there would count twice."""
    found = [leaves([z], doors_of(features) - doors_of([z])) for z in features]
    below = list(itertools.chain(*(reached for reached, _ in found)))
    if any(met for _, met in found) or not {*features}.isdisjoint(below):
        raise ValueError("one of the features is made of another; give those that come first, or no features.")
    if not all(z.dim() for z in features):
        raise ValueError("a feature has no dimensions; the first is that of the samples, [B, …].")
    if any(z._backward_hooks or z.retains_grad for z in features):
        raise ValueError("a hook on the features, or retain_grad, would act twice; put it on what they are made of.")
    return below


def leaves(roots: Iterable[Tensor], doors: set[tuple[Any, int]]) -> tuple[list[Any], bool]:
    """The tensors that losses are differentiated for, reached without passing a door (`doors_of`); and whether
    one was met. Raises ValueError at a reentrant checkpoint."""
    seen, todo, found, met = set(), [(root.grad_fn, root.output_nr) for root in roots], [], False
    while todo:
        edge = todo.pop()
        if edge in doors:
            met = True
        elif (node := edge[0]) is not None and node not in seen:
            seen.add(node)
            kind = type(node).__name__  # node.name() takes twice as long
            if kind == "CheckpointFunctionBackward":
                raise ValueError("a checkpoint hides the parameters behind it; make it with use_reentrant=False.")
            if kind == "AccumulateGrad":
                found.append(node.variable)  # type: ignore[attr-defined]
            todo.extend(node.next_functions)
    return found, met


def _dense(wanted: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> list[Tensor]:
    return [torch.zeros_like(p) if g is None else g for p, g in zip(wanted, gradients, strict=True)]
