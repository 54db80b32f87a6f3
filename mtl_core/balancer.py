"""A method in your own loop: any network, any losses, one call instead of `loss.backward()`.

A method's class declares what else it must be given (`needs`). If something is missing, an error names it: before the
first step where that can be known, otherwise at the next `backward`.
"""

from __future__ import annotations

import copy
import itertools
import operator
import warnings
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, SupportsFloat, SupportsIndex

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from mtl_core.graph import GraphStep, GroupStep, Replicas, is_older, leaves, parameters_of, tensors_in
from mtl_core.options import BadOption, check_options, parameters
from mtl_core.smtos.base import NEEDS, SMTO, GramianWeighting, ProblemInfo, StepResult
from mtl_core.smtos.geometry import NonFinite
from mtl_core.smtos.registry import build
from mtl_core.smtos.wrapping import Wrapping
from mtl_core.step import MultiTaskModel, RandomState, autocast_as_now, check_scalars, unseen, without_autocast
from mtl_core.tasks import Likelihood

EMPTY = "no_gradient"  # flag of a step without any
OVERFLOW = "overflow"  # flag of a step whose gradients a GradScaler's factor made infinite
REMEMBERED = ("tasks", "epoch", "last", "sums", "counts", "steps")  # by a Balancer, apart from its method's state
NOTED = ("step", "task", "loss", "weight", "norm", "cosine", "conflicts")  # in a row of the log
Losses = Mapping[str, Tensor | None] | Sequence[Tensor | None] | Tensor


class Unmet(RuntimeError):
    """A method is not given what it needs. The message names the missing call."""


class Spoilt(NonFinite):
    """Losses that a given function computes are NaN or infinite."""


class Balancer:
    """An SMTO for any network: all it knows of the network is the parameters that all tasks share.

    Args:
        smto: the method's key, or the method itself, built with options.
        shared: the parameters of the part that all tasks use (for gradnorm the last matrix among them counts).
        num_tasks: K, for a key without `tasks`. tasks: their names, for losses that come by name.
        lr, weight_decay: of the optimizer at the start. feature_shape: of one sample's features.
        likelihoods: "softmax", "gaussian" or "laplace", heads: modules or functions; one per task, by name or in order.
        groups: lists of shared parameters. Each is a problem of its own to a method that reads the Gramian on the
            shared parameters; heads get the mean of their weights, of groups with a gradient.
        seed: of the method's own random numbers.
        log: `self.log` keeps a row for each step (or its part) and task: loss, weight, length of the gradient (on the
            given features), its lowest cosine with another task's (or NaN), conflicts: with how many it is below 0.
        together: the processes of torch.distributed, if there are several, take every step together: losses, gradients
            and weights are those of all their batches, of equal size. The network is called as it is or in
            DistributedDataParallel, whose own averaging has then nothing to do.

    Raises:
        BadOption: unknown method, or one that cannot work with these parameters.
        Unmet: the method needs an argument that is not given.
    """

    def __init__(
        self,
        smto: str | SMTO,
        shared: Iterable[nn.Parameter] = (),
        num_tasks: int | None = None,
        *,
        tasks: Sequence[str] | None = None,
        lr: float | None = None,
        weight_decay: float = 0.0,
        likelihoods: Sequence[Likelihood] | Mapping[str, Likelihood] | None = None,
        feature_shape: Sequence[int] | int | None = None,
        heads: Any = None,
        groups: Iterable[Iterable[nn.Parameter]] | None = None,
        seed: int = 0,
        together: bool = True,
        log: bool = False,
    ) -> None:
        typed = {"lr": lr, "weight_decay": weight_decay, "likelihoods": likelihoods, "together": together, "log": log}
        check_options("Balancer", parameters(Balancer), typed)
        for name, several, kind in (("tasks", tasks, Collection), ("groups", groups, Iterable)):
            if isinstance(several, str | set | frozenset) or not isinstance(several, kind | None):
                raise BadOption(f"Balancer: {name} = {several!r}: expected a list, one entry for each.")
        by_name = isinstance(heads, Mapping | nn.ModuleDict)
        self.tasks = list(tasks) if tasks is not None else list(heads) if by_name and heads else None
        if isinstance(smto, str):
            if not (count := num_tasks or len(self.tasks or heads or ())):
                raise BadOption("Balancer: how many tasks are there? Give num_tasks=2, or their names: tasks=[…].")
            smto = build(smto, count)
        elif not isinstance(smto, SMTO):
            raise BadOption(f"Balancer: {smto!r} is no SMTO; give its key, or build(…), or from_torchjd(…)(num_tasks).")
        elif num_tasks not in (None, smto.num_tasks):
            raise BadOption(f"Balancer: num_tasks = {num_tasks}, but {smto.key} was made for {smto.num_tasks} tasks.")
        self.smto, self.key, self.num_tasks = smto, smto.key, smto.num_tasks
        given = parameters_of(shared, "Balancer")
        parts = [given] if groups is None else [parameters_of(group, "Balancer") for group in groups]
        shared = list(itertools.chain(*parts))
        if groups is not None and (len(set(shared)) < len(shared) or {p for p in given if p.requires_grad} - {*shared}):
            raise BadOption("Balancer: one group for each shared parameter; two groups have one, or none has.")
        trained = [[p for p in part if p.requires_grad] for part in parts]
        self.groups = None if groups is None else [part for part in trained if part]
        if len(set(self.tasks or ())) < len(self.tasks or ()):
            raise BadOption(f"Balancer: two tasks have one name: {self.tasks}.")
        if not any(p.requires_grad for p in shared):
            words = "give those of the part that all tasks use, as list(trunk.parameters()): an iterator serves once."
            raise BadOption(f"Balancer: shared holds no trainable parameter; {words}")
        if not isinstance(seed, SupportsIndex):
            raise BadOption(f"Balancer: seed = {seed!r}: expected a whole number.")
        if not by_name and not isinstance(heads or [], Sequence | nn.ModuleList):
            raise BadOption(f"Balancer: heads in a {type(heads).__name__}; give one per task, by name or in order.")
        each, kinds = self._each("heads", heads), self._each("likelihoods", likelihoods)
        needed: Any = nn.Module if "heads" in smto.required() else Callable
        if wrong := [head for head in each or () if not isinstance(head, needed)]:
            raise BadOption(f"Balancer: {self.key} takes each head as a {needed.__name__}; given: {wrong}.")
        modules = {str(k): head for k, head in enumerate(each or ()) if isinstance(head, nn.Module)}
        self.model = MultiTaskModel(nn.ParameterList(shared), modules)
        smto.check_model(self.model)
        self.needs, self.wraps = smto.required(), isinstance(smto, Wrapping)
        sizes: Any = (feature_shape,) if hasattr(feature_shape, "__index__") else feature_shape or ()
        shape, lr = tuple(map(operator.index, sizes)), None if lr is None else float(lr)
        told = {"lr": lr, "likelihoods": likelihoods, "feature_shape": shape or None, "heads": heads, "trainer": None}
        self._refuse(need for need in self.needs if told.get(need, True) is None)
        for name, per_task in (("tasks", tasks), ("likelihoods", likelihoods), ("heads", heads)):
            if per_task is not None and len(per_task) != self.num_tasks:
                raise BadOption(f"Balancer: {len(per_task)} {name} for {self.num_tasks} tasks; give one per task.")
        self.lr, self.epoch, self.steps, self._handed_over = lr, 0, 0, False
        self.replicas, self.logs, self.log = Replicas(together), log, list[dict[str, Any]]()
        self.device, dtype = shared[0].device, torch.promote_types(shared[0].dtype.to_real(), torch.float32)
        smto.set_up(ProblemInfo(tuple(kinds or ()), shape, lr or 0.0, float(weight_decay)), operator.index(seed))
        smto.to(self.device, dtype)
        if self.groups is not None and not (isinstance(smto, GramianWeighting) and smto.space == "parameters"):
            raise BadOption(f"{self.key} solves no Gramian on parameters, so none per group. Leave groups out.")
        self.smtos = [smto] + [copy.deepcopy(smto) for _ in (self.groups or [])[1:]]
        self.last = torch.full((self.num_tasks,), torch.nan, device=self.device, dtype=dtype)  # loss of each task
        self.sums, self.counts = torch.zeros_like(self.last), torch.zeros_like(self.last)  # in this epoch
        self.before, self.times = self.sums, self.counts  # the same over the step's parts, for after_step
        self._parts, self._part = 1, 0  # of an accumulated step: how many, and how many have been
        self._lost, self._losses = False, (self.last, self.sums, self.counts)  # an overflow in this step; at its start,
        self._start: list[dict[str, Any]] = []  # the losses before it and the methods' states
        self._pending: GraphStep | None = None  # a step that after_step has not looked at
        self._own: list[tuple[nn.Parameter, int, Tensor | None]] = []  # what an optimizer moves, versions, values
        self._versions: dict[Any, int] = {}  # of all parameters, before their gradients were there
        self._moved = set[Any]()  # what optimizers have moved since
        ALIVE.add(self)
        self._seen, self._first = set[int](), True  # tasks whose features were transformed; no step has been
        self._random_state: RandomState | None = None

    def _each(self, name: str, given: Any) -> Any:
        """What is given by task's name or in order, in order."""
        by_name = isinstance(given, Mapping | nn.ModuleDict)
        if by_name and set(given) != set(self.tasks or ()):
            raise BadOption(f"Balancer: {name} {list(given)} for tasks {self.tasks}; give one per task, by its name.")
        return [given[task] for task in self.tasks or ()] if by_name else given

    def _refuse(self, needs: Iterable[str], words: str = "") -> None:
        if needs := list(needs):
            raise Unmet(f"{self.key} needs " + ", and ".join(NEEDS[need] for need in needs) + (words or "."))

    def parameters(self) -> list[dict[str, Any]]:
        """What the method learns by the main optimizer, as parameter groups; for most methods none:
        Adam([{"params": network.parameters()}, *balance.parameters()], lr=0.001)."""
        self._handed_over = True
        groups = self.smto.parameter_groups(self.lr or 0.0)
        return [{name: v for name, v in g.items() if name != "lr" or self.lr is not None} for g in groups]

    def begin_epoch(self, lr: float | None = None) -> None:
        """An epoch begins. lr: the optimizer's present step size, where it changes."""
        if not isinstance(lr, SupportsFloat | None):
            raise BadOption(f"balance.begin_epoch(lr={lr!r}): expected one number: lr=scheduler.get_last_lr()[0].")
        means = torch.where(self.counts > 0, self.sums / self.counts.clamp(min=1), self.last)
        for smto in self.smtos:
            smto.begin_epoch(self.epoch, means if self.epoch else None, self.lr or 0.0 if lr is None else float(lr))
        self.epoch += 1
        self.sums, self.counts = torch.zeros_like(self.sums), torch.zeros_like(self.counts)

    def begin_step(self) -> None:
        """Called before the forward pass where there is dropout, for `after_step` to meet the same masks. In the later
        parts of an accumulated step it does nothing."""
        if self._part == 0 and any(smto.replay for smto in self.smtos):
            self._random_state = RandomState.capture(self.device)

    def transform(self, z: Tensor, k: int | str) -> Tensor:
        """What head k sees of the features [B, …]; z itself for most methods."""
        if not isinstance(z, Tensor):
            raise ValueError(f"balance.transform(z, {k!r}): z is one tensor [B, …], not {type(z).__name__}.")
        known: Any = self.tasks or [] if isinstance(k, str) else range(self.num_tasks)
        if k not in known:
            words = f"there are {self.num_tasks} tasks, and their names are {self.tasks}: Balancer(…, tasks=[…])."
            raise ValueError(f"balance.transform(z, {k!r}): {words}")
        place: int = known.index(k)
        self._seen |= {place} if torch.is_grad_enabled() else set()
        return self.smto.transform_features(z, place)

    @contextmanager
    def accumulate(self, parts: int) -> Iterator[None]:
        """Inside, every `backward` is one of so many parts of a step. Each part has weights of its own; their gradients
        are averaged. What a method learns itself moves with every part; `after_step` comes once, with mean losses."""
        if not hasattr(parts, "__index__") or parts < 1 or self._parts > 1:
            words = "expected a whole number, at least one part, and no block in another."
            raise BadOption(f"balance.accumulate({parts!r}): {words}")
        self._parts, self._part = parts, 0
        try:
            yield
        finally:
            been, self._parts, self._part = self._part, 1, 0
        if been:
            raise Unmet(f"balance.accumulate({parts}): the last step has had {been} of {parts} calls of backward.")

    def backward(
        self,
        losses: Losses,
        features: Any = None,
        *,
        targets: Mapping[str, Tensor] | Sequence[Tensor] | None = None,
        second_batch: Callable[[], Losses] | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> StepResult:
        """Add the method's gradients to .grad of the network and of its own parameters, instead of `loss.backward()`.

        Args:
            losses: one scalar per task, in order or by name, averaged over the batch. A task that is None, or whose
                name is not there, is missing from this batch: it has no gradient, and a method that reads losses sees
                its last one (in the first step the mean of the others).
            features: what the heads took in, tensors in any nest of lists, tuples and dicts; constants are passed over.
                With them the K passes end there for a method that reads features, and heads are passed through once.
            targets: one tensor per task, as the losses come. second_batch: computes the losses of another batch.
            scaler: the gradients come out times its scale, as scaler.step expects them; the method sees plain ones. A
                step whose gradients overflow leaves the method as it was.

        Returns:
            What was done; with groups the weights have a row for each.

        Raises:
            Unmet: the method lacks something. NonFinite, BadOption, ValueError: as for the method and for GraphStep.
        """
        named = self._in_order(losses)
        if not any(p.requires_grad for p in self.model.encoder.parameters()):
            words = "unfreeze some, or train the heads without a method: sum(losses).backward()."
            raise ValueError(f"all shared parameters are frozen, so that nothing is left to balance: {words}")
        if isinstance(targets, Tensor):
            raise ValueError(f"targets in one tensor {list(targets.shape)}; give one per task, by name or in order.")
        aims: Any = None if targets is None else list(self._in_order(targets, "targets").values())
        z = tensors_in(features)
        if features is not None and not z:
            raise ValueError("the features carry no gradient: no tensor of floats is in the nest, or all are detached.")
        self._check(named, bool(z), aims, second_batch)
        last = self.last
        if any(loss is None for loss in named.values()):  # (`None in` would compare each loss with it)
            values = [loss.detach().to(last) for loss in named.values() if loss is not None]
            last = torch.where(last.isnan(), torch.stack(values).mean(), last)
        another = None if second_batch is None else self._evaluated(second_batch, "second_batch")
        if not isinstance(scaler, torch.amp.GradScaler | None):
            raise ValueError(f"scaler={scaler!r}: expected the torch.amp.GradScaler that steps the optimizer.")
        scale = None if scaler is None else scaler.scale(torch.ones((), device=self.device))
        step = GraphStep(self.model, named, last, z, self.replicas, scale, aims or (), another, self.wraps)
        if self._first and not isinstance(losses, Tensor) and len(step.roots) > 1:
            self._warn_of_shared(step)
        with without_autocast(self.device):
            gramian = step.gramian("features" if z and not step.around else "parameters") if self.logs else None
            result = self._balanced(step)
        if gramian is not None:
            self._note(list(named), step.losses, gramian, result)
        self._count(named, step, result)
        return result

    def _note(self, tasks: Sequence[str], losses: Tensor, gramian: Tensor, result: StepResult) -> None:
        norms = gramian.diagonal().sqrt()
        cosines = (gramian / norms.outer(norms)).fill_diagonal_(torch.nan)
        lowest = cosines.nan_to_num(2).amin(1)
        weights = result.weights.view(-1, len(tasks)).mean(0)
        values = (losses, weights, norms, lowest.where(lowest < 2, torch.nan), (cosines < 0).sum(1))
        for row in zip([self.steps] * len(tasks), tasks, *(value.tolist() for value in values), strict=True):
            self.log.append(dict(zip(NOTED, row, strict=True)))

    def after_step(self, losses: Callable[[], Losses]) -> None:
        """Called after optimizer.step() for a method that looks at the losses once more; others pass over it.

        Args:
            losses: computes those of the same batch (of all parts of an accumulated step, their means), without a
                graph (a penalty on gradients takes torch.enable_grad() inside). Running statistics and generators
                are left as they are, unless FAMO has masks="fresh".

        Raises:
            Unmet: the method wants the dropout masks of the first look, and there was no `begin_step`.
            NonFinite: a loss is NaN or infinite. The method learns nothing from this step; go on with the next.
        """
        step = self._pending
        if step is None:
            return
        if self._part or self._unmoved():
            raise Unmet("after_step comes after optimizer.step(); nothing has moved since. (balance.skip_step?)")
        compute, replay = self._evaluated(losses, "after_step"), any(smto.replay for smto in self.smtos)
        start, self._random_state, self._pending = self._random_state, None, None

        def again() -> Tensor:
            with unseen(self.device, start) if replay else nullcontext():
                before, values = RandomState.capture(self.device), compute()
                if replay and start is None and before != RandomState.capture(self.device):
                    words = 'call balance.begin_step() before the forward pass, or take its option masks="fresh".'
                    raise Unmet(f"{self.key} looks at the losses again under the same dropout masks: {words}")
            return values

        step.losses, step.again = torch.where(self.times > 0, self.before / self.times.clamp(min=1), self.last), again
        with without_autocast(self.device):
            self.smto.after_step(step)

    def skip_step(self) -> None:
        """Called instead of optimizer.step() where you leave a step out, as after a gradient that is not finite: the
        method is as it was before. Unmet: a part of an accumulated step has been, and its last has not."""
        if self._part:
            raise Unmet("balance.skip_step() leaves out a whole step; call it after the last part of accumulate.")
        if self._moved.isdisjoint(self._versions):
            self._restore()
        self._pending, self._own = None, []

    def _restore(self) -> None:
        """The methods, and the losses that they are told of, as they were before this step."""
        for smto, state in zip(self.smtos, self._start, strict=False):
            smto.load_state_dict(state)
        self.last, self.sums, self.counts = self._losses

    def _in_order(self, losses: Losses, what: str = "losses") -> dict[str, Tensor | None]:
        """The losses, or what is called so, by name, in the tasks' order."""
        if not isinstance(losses, Mapping):
            one = not isinstance(losses, Iterable) or (isinstance(losses, Tensor) and not losses.dim())
            values: list[Any] = [losses] if one else list(losses)
            if len(values) != self.num_tasks:
                raise ValueError(f"{len(values)} {what} for {self.num_tasks} tasks; give None for a missing one.")
            return dict(zip(self.tasks or map(str, range(self.num_tasks)), values, strict=True))
        if self.tasks is None and len(losses) == self.num_tasks:
            self.tasks = list(losses)
        if self.tasks is None or not set(losses) <= set(self.tasks):
            raise ValueError(f"{what} of {list(losses)} for tasks {self.tasks}; name all: Balancer(…, tasks=[…]).")
        return {name: losses.get(name) for name in self.tasks}

    def _check(self, named: Mapping[str, Tensor | None], features: bool, targets: Any, second_batch: Any) -> None:
        """What cannot be worked with is refused before anything moves."""
        missing = [name for name, loss in named.items() if loss is None]
        if len(missing) == self.num_tasks:
            raise ValueError("every task is missing from this batch.")
        lacks = {
            "parameters": not self._handed_over,
            "begin_epoch": not self.epoch,
            "transform": any(loss is not None and k not in self._seen for k, loss in enumerate(named.values())),
            "features": not features,
            "every_task": bool(missing) and bool(self.last.isnan().all()),
            "targets": targets is None or any(target is None for target in targets),
            "second_batch": second_batch is None,
        }
        self._refuse(need for need in self.needs if lacks.get(need))
        if "targets" in self.needs and missing:
            raise ValueError(f"{self.key} reads every task's targets; {missing} are missing from this batch.")
        if self._part == 0 and self._pending is not None:
            self._refuse(["after_step"], "; it has not come after the last step. (balance.skip_step?)")
        if self._part == 0 and "parameters" in self.needs and self._unmoved():
            words = "; nothing has moved them since the last backward. (balance.accumulate? balance.skip_step?)"
            self._refuse(["parameters"], words)

    def _warn_of_shared(self, step: GraphStep) -> None:
        """Without features, what all losses are made of should be in `shared`; with them, no part of a head should."""
        self._first, own = False, set(self.model.parameters())
        reached = [] if step.features else [set(leaves([loss], set())[0]) for loss in step.roots.values()]
        if common := [list(p.shape) for p in (set.intersection(*reached) - own if reached else ())]:
            words = f"all losses use parameters (shapes {str(common)[1:-1]}) that are not in `shared`"
            warnings.warn(f"{words}; they are trained as heads are.", stacklevel=3)
        if step.partly:
            words = f"only some losses use parameters in `shared` (shapes {str(step.partly)[1:-1]}) above the features"
            warnings.warn(f"{words}; leave out those of heads: shared=trunk.parameters().", stacklevel=3)

    def _unmoved(self) -> bool:
        found = (p not in self._moved and p._version == v and (old is None or p.equal(old)) for p, v, old in self._own)
        return bool(self._own) and all(found)

    def _evaluated(self, function: Callable[[], Losses], name: str) -> Callable[[], Tensor]:
        """A function that computes losses, under the present autocast, as one that gives a tensor [K]. Those with a
        part that was there before are refused, and so are those that are not finite, in all processes alike."""
        if not callable(function):
            raise ValueError(f"{name}: give a function that computes the losses, not their values: lambda: losses.")
        autocast = autocast_as_now(self.device)

        def evaluate() -> Tensor:
            with torch.inference_mode(False):  # with a graph, whatever the mode
                begun = torch.zeros((), requires_grad=True).clone()
            with autocast():
                given = function()
            try:
                named = self._in_order(given)
                check_scalars({task: v for task, v in named.items() if v is not None})
            except ValueError as error:
                raise ValueError(f"{name}: give a function of the losses alone, as in backward: {error}") from None
            graphs = [v for v in named.values() if v is not None and v.requires_grad]
            if is_older(graphs, begun):
                raise ValueError(f"{name} gives losses that were there before; it has to compute them anew.")
            if torch.is_grad_enabled() and not graphs:
                raise ValueError(f"{name} gives losses without a graph; compute them without no_grad() or detach().")
            values = torch.stack([self.last[k] if v is None else v.to(self.last) for k, v in enumerate(named.values())])
            finite = zip(named.items(), self.replicas.mean(values.detach()).isfinite().tolist(), strict=True)
            if spoilt := [task for (task, v), fine in finite if not (v is None or fine)]:
                words = "The method is as it was before, and learns nothing here: go on with the next batch."
                raise Spoilt(f"{name} gives losses of tasks {spoilt} that are not finite. {words}")
            return values

        return evaluate

    def _balanced(self, step: GraphStep) -> StepResult:
        """The method's own backward; its gradients are added to .grad."""
        own = [p for smto in self.smtos for p in smto.parameters()]
        everyone = list(dict.fromkeys([*step.shared, *itertools.chain(*step.specific), *own]))
        if self.replicas.count > 1 and not self.replicas.alike:
            self.replicas.check_alike([*everyone, self.smto.generator.get_state().to(self.device)])
        self._moved, self._versions = set(), {p: p._version for p in everyone}
        kept, result = [p.grad for p in everyone], None
        if self._part == 0:
            self._lost, self._losses = False, (self.last, self.sums, self.counts)
            states = [smto.state_dict() for smto in self.smtos]
            self._start = [{n: v.clone() if isinstance(v, Tensor) else v for n, v in s.items()} for s in states]
        for p in everyone:
            p.grad = None
        try:
            result = self._solved(step)
        except Exception as error:
            self._restore()
            if not isinstance(error, NonFinite) or step.scale is None or not step.losses.isfinite().all():
                raise
            if isinstance(error, Spoilt):  # by parameters that an overflow has moved, or by themselves?
                met = [step.jacobian, *itertools.chain(*(found.values() for found in step.head_gradients))]
                if all(bool(g.isfinite().all()) for g in met):
                    raise
        finally:
            idle = self.replicas.idle(step.shared, step.reached)
            found = [None if p in idle and p.grad is not None and not p.grad.any() else p.grad for p in everyone]
            for p, old in zip(everyone, kept, strict=True):
                p.grad = old
        finite = result and (step.scale is None or all(bool(g.isfinite().all()) for g in found if g is not None))
        self._lost = self._lost or not finite
        if self._lost:
            self._restore()
        if not finite:
            found, none = [torch.full_like(p, torch.inf) for p in everyone], torch.full_like(step.losses, torch.nan)
            result = StepResult(none, none, flags=(OVERFLOW,))
        assert result is not None
        for p, old, new in zip(everyone, kept, found, strict=True):
            if new is not None:
                new = new if self._parts == 1 else new / self._parts
                new = new if step.scale is None else new * step.scale
                p.grad = new if old is None else new + old if old.is_sparse else old.add_(new)
                for hook in (p._post_accumulate_grad_hooks or {}).values():
                    hook(p)
        return result

    def _solved(self, step: GraphStep) -> StepResult:
        if self.groups is None:
            return self.smto.backward(step)
        if {*itertools.chain(*self.groups)} != {*step.shared}:
            raise ValueError("shared parameters were frozen or unfrozen since; make a new Balancer.")
        results, on_heads, start = [], [], 0
        for smto, group in zip(self.smtos, self.groups, strict=True):
            part = GroupStep(step, group, start)
            results.append(smto.backward(part))
            on_heads += [] if part.head_weights is None or EMPTY in results[-1].flags else [part.head_weights]
            start += sum(p.numel() for p in group)
        heads = torch.stack(on_heads).mean(0) if on_heads else None
        step.apply_shared(step.flatten([p.grad for p in step.shared if p.grad is not None]), heads)
        flags = tuple(itertools.chain(*(result.flags for result in results)))
        weights = torch.stack([result.weights for result in results])
        return StepResult(weights, results[0].head_weights if heads is None else heads, flags=flags)

    def _count(self, named: Mapping[str, Tensor | None], step: GraphStep, result: StepResult) -> None:
        """Losses join the means of the epoch and of an accumulated step."""
        there, losses = [loss is not None for loss in named.values()], step.losses
        present = torch.ones_like(losses) if all(there) else torch.tensor(there).to(losses)
        seen = losses * present
        if not self._lost:
            self.last, self.sums, self.counts = losses, self.sums + seen, self.counts + present
        self.before, self.times = (seen, present) if self._part == 0 else (self.before + seen, self.times + present)
        self._part = (self._part + 1) % self._parts
        self.steps += self._part == 0
        self._seen.clear()
        if self._lost:
            self._pending, self._own = None, []
            return
        moving = [p for p in self.smto.parameters() if p.grad is not None] if "parameters" in self.needs else []
        copied = set(moving)
        if "after_step" in self.needs:  # versions, and the values of one, tell whether the optimizer has been
            step.release()
            self._pending, moving = step, [p for p in step.shared if p.grad is not None]
            copied = {min(moving, key=torch.numel)} if moving else copied
        self._own = [(p, self._versions[p], p.detach().clone() if p in copied else None) for p in moving]

    def state_dict(self) -> dict[str, Any]:
        """The state between two steps. torch.load reads it with its defaults. Unmet: a step is not at its end."""
        if self._part or self._pending is not None:
            raise Unmet("balance.state_dict() is asked for between backward and after_step, or inside accumulate.")
        states = {"smtos": [smto.state_dict() for smto in self.smtos]} | {n: getattr(self, n) for n in REMEMBERED}
        return copy.deepcopy({"method": [self.key, self.num_tasks], **states})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from that state, in a Balancer made with the same arguments."""
        for name, here in (("method", [self.key, self.num_tasks]), ("tasks", self.tasks)):
            if name not in state or (here and state[name] and state[name] != here):
                raise ValueError(f"this state has {name} = {state.get(name)}; this Balancer has {here}.")
        if len(state["smtos"]) != len(self.smtos):
            raise ValueError(f"saved with {len(state['smtos'])} groups; there are {len(self.smtos)} here.")
        for smto, own in zip(self.smtos, state["smtos"], strict=True):
            smto.load_state_dict(own)
        for name in REMEMBERED:
            value = state[name]
            setattr(self, name, value.to(self.last) if isinstance(value, Tensor) else copy.copy(value))
        self._pending, self._own, self._random_state, self._seen, self._versions = None, [], None, set(), {}
        self._start, self._losses = [], (self.last, self.sums, self.counts)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)  # of a copy
        ALIVE.add(self)


ALIVE: weakref.WeakSet[Balancer] = weakref.WeakSet()  # who is told what an optimizer has moved


def _note_moved(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    for balancer in ALIVE:
        everyone = itertools.chain(*(group["params"] for group in optimizer.param_groups))
        moved = [p for p in everyone if p in balancer._versions]
        if moved and not getattr(optimizer, "found_inf", None):  # a GradScaler's, with which a fused one skips the step
            balancer._moved.update(moved)


register_optimizer_step_post_hook(_note_moved)
