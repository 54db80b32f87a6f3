"""A Step differentiates only as far as it is asked, and what it gives is what full backward passes would give."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mtl_core.smtos.base import GramianWeighting, ProblemInfo
from mtl_core.smtos.registry import build, get, keys
from mtl_core.step import MultiTaskModel, ScaledStep, Step, unseen

LOSSES = [F.nll_loss, F.mse_loss, F.l1_loss]


def problem(dropout: float = 0.0, norm: bool = False) -> tuple[MultiTaskModel, Tensor, list[Tensor]]:
    """A small convolutional model in float64 with three unlike heads, and a batch of eight."""
    torch.manual_seed(0)
    encoder = nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4) if norm else nn.Identity(),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Conv2d(4, 3, 3),
        nn.Flatten(),
        nn.Linear(12, 5),
        nn.Tanh(),
    )
    heads = {
        "a": nn.Sequential(nn.Linear(5, 4), nn.LogSoftmax(1)),
        "b": nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Dropout(dropout), nn.Linear(6, 3)),
        "c": nn.Sequential(nn.Linear(5, 1), nn.Flatten(0)),
    }
    model = MultiTaskModel(encoder, heads).double()
    x = torch.randn(8, 2, 6, 6, dtype=torch.float64)
    targets = [torch.randint(4, (8,)), torch.randn(8, 3, dtype=torch.float64), torch.randn(8, dtype=torch.float64)]
    return model, x, targets


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every gradient, by the name of its parameter."""
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def joint(model: MultiTaskModel, x: Tensor, targets: list[Tensor], weights: Tensor, head_weights: Tensor) -> dict:
    """Gradients by ordinary backward passes of the whole model: the encoder's of Σ w L, head k's of h_k L_k."""
    losses = torch.stack([f(p, y) for f, p, y in zip(LOSSES, model(x), targets, strict=True)])
    shared = torch.autograd.grad(losses @ weights, list(model.encoder.parameters()), retain_graph=True)
    specific = torch.autograd.grad(losses @ head_weights, list(model.heads.parameters()))
    names = [name for name, _ in model.named_parameters()]
    return dict(zip(names, [*shared, *specific], strict=True))


WEIGHTS = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64)
HEAD_WEIGHTS = torch.tensor([1.5, 0.2, 0.7], dtype=torch.float64)
ONES = torch.ones(3, dtype=torch.float64)


@pytest.mark.parametrize("space", ["losses", "features", "parameters"])
@pytest.mark.parametrize("head_weights", [None, HEAD_WEIGHTS, WEIGHTS], ids=["plain", "others", "same"])
def test_gradients_are_those_of_the_joint_graph(space: str, head_weights: Tensor | None) -> None:
    """Whatever was looked at before, whatever the weights."""
    model, x, targets = problem()
    step = Step(model, LOSSES, x, targets)
    if space != "losses":
        step.gramian(space)
    step.apply(WEIGHTS, head_weights)
    assert_close(gradients(model), joint(model, x, targets, WEIGHTS, ONES if head_weights is None else head_weights))


def test_losses_are_those_of_the_model() -> None:
    model, x, targets = problem()
    expected = [f(p, y) for f, p, y in zip(LOSSES, model(x), targets, strict=True)]
    assert_close(Step(model, LOSSES, x, targets).losses, torch.stack(expected).detach())


def test_gramians_are_inner_products_of_full_backward_passes() -> None:
    model, x, targets = problem()
    z = model.encoder(x)
    losses = [f(h(z), y) for f, h, y in zip(LOSSES, model.heads.values(), targets, strict=True)]
    rows = {"features": [], "parameters": []}
    for loss in losses:
        rows["features"].append(torch.autograd.grad(loss, z, retain_graph=True)[0].flatten())
        shared = torch.autograd.grad(loss, list(model.encoder.parameters()), retain_graph=True)
        rows["parameters"].append(torch.cat([g.flatten() for g in shared]))
    step = Step(model, LOSSES, x, targets)
    for space, vectors in rows.items():
        jacobian = torch.stack(vectors)
        assert_close(step.gramian(space), jacobian @ jacobian.T)
    assert_close(step.feature_gradients.flatten(1), torch.stack(rows["features"]))
    assert_close(step.jacobian, torch.stack(rows["parameters"]))


def test_gramian_is_summed_in_double_precision() -> None:
    """In single precision the inner product of these two rows would be 0: 1e8 + 1 - 1e8."""
    encoder, heads = nn.Linear(1, 3, bias=False), {"a": nn.Linear(3, 1, bias=False), "b": nn.Linear(3, 1, bias=False)}
    with torch.no_grad():
        heads["a"].weight.copy_(torch.tensor([[1e4, 1.0, 1e4]]))
        heads["b"].weight.copy_(torch.tensor([[1e4, 1.0, -1e4]]))
    step = Step(
        MultiTaskModel(encoder, heads), [lambda p, y: p.sum()] * 2, torch.ones(1, 1), [torch.zeros(1), torch.zeros(1)]
    )
    assert step.gramian("parameters")[0, 1] == 1


def test_gradients_on_one_parameter_are_columns_of_the_jacobian() -> None:
    model, x, targets = problem()
    step = Step(model, LOSSES, x, targets)
    last = model.encoder[6]
    size = last.weight.numel() + last.bias.numel()
    found = step.gradients_on(last.weight)
    assert_close(found, step.jacobian[:, -size : -last.bias.numel()])


def test_an_unconnected_loss_has_a_zero_row() -> None:
    """A loss that does not depend on the model, and one that depends on its head alone."""
    model, x, targets = problem()
    step = Step(model, [F.nll_loss, lambda p, y: torch.zeros((), dtype=p.dtype), F.l1_loss], x, targets)
    assert (step.jacobian[1] == 0).all() and (step.feature_gradients[1] == 0).all()
    assert (step.jacobian[[0, 2]] != 0).any(1).all()
    step.apply(WEIGHTS)
    assert all(p.grad is None for p in model.heads["b"].parameters())
    with pytest.warns(UserWarning, match="nothing is learnt"):
        alone = Step(model, [lambda p, y: torch.zeros((), dtype=p.dtype)] * 3, x, targets)
    assert (alone.gramian("parameters") == 0).all()


def test_a_frozen_parameter_gets_no_gradient() -> None:
    model, x, targets = problem()
    model.encoder[0].weight.requires_grad_(False)
    step = Step(model, LOSSES, x, targets)
    step.gramian("parameters")
    step.apply(WEIGHTS)
    assert model.encoder[0].weight.grad is None and model.encoder[0].bias.grad is not None
    assert step.jacobian.shape[1] == sum(p.numel() for p in model.encoder.parameters() if p.requires_grad)


def test_gradients_lie_in_memory_as_their_parameters_do() -> None:
    """Fused optimizers read parameter and gradient in memory order without comparing layouts: with channels-last
    weights a gradient in another order would be added to the wrong entries."""
    model, x, targets = problem()
    expected = joint(model, x, targets, WEIGHTS, ONES)
    model = model.to(memory_format=torch.channels_last)
    assert not model.encoder[4].weight.is_contiguous()
    for space in ("features", "parameters"):
        step = Step(model, LOSSES, x.to(memory_format=torch.channels_last), targets)
        step.gramian(space)
        step.apply(WEIGHTS)
        assert_close(gradients(model), expected)
        assert all(p.grad.stride() == p.stride() for p in model.parameters())
    twin = copy.deepcopy(model)
    for copied, p in zip(twin.parameters(), model.parameters(), strict=True):
        copied.grad = p.grad.clone()
    torch.optim.Adam(model.parameters(), fused=True).step()
    torch.optim.Adam(twin.parameters(), foreach=False, fused=False).step()
    assert_close(dict(model.named_parameters()), dict(twin.named_parameters()))


def test_flatten_undoes_unflatten() -> None:
    model, x, targets = problem()
    step = Step(model.to(memory_format=torch.channels_last), LOSSES, x, targets)
    flat = torch.arange(step.jacobian.shape[1], dtype=torch.float64)
    assert_close(step.flatten(step.unflatten(flat)), flat)


def test_adapt_is_what_the_heads_see() -> None:
    """With z turned to c_k z for head k the feature gradients follow the chain rule."""
    model, x, targets = problem()
    scales = [2.0, -0.5, 3.0]
    step = Step(model, LOSSES, x, targets, transform_features=lambda z, k: z * scales[k])
    z = step.z.clone().requires_grad_()
    for k, (loss, head, target) in enumerate(zip(LOSSES, model.heads.values(), targets, strict=True)):
        (expected,) = torch.autograd.grad(loss(head(z * scales[k]), target), z)
        assert_close(step.feature_gradients[k], expected)


class Graphs(NamedTuple):
    """Inputs that are no tensor: numbers, and to which sample each belongs."""

    nodes: Tensor
    sample: Tensor


class Sums(nn.Module):
    """Graphs to one row per sample [B, 4], through features of their nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 4)

    def forward(self, x: Graphs) -> Tensor:
        nodes = self.linear(x.nodes).tanh()
        return nodes.new_zeros(int(x.sample.max()) + 1, 4).index_add(0, x.sample, nodes)


@pytest.mark.parametrize("keep_jacobian", [True, False])
def test_inputs_need_not_be_a_tensor(keep_jacobian: bool) -> None:
    """Five nodes of two graphs; a second look and a look elsewhere included."""
    torch.manual_seed(0)
    graphs = Graphs(torch.randn(5, 2), torch.tensor([0, 0, 1, 1, 1]))
    model = MultiTaskModel(nn.Sequential(Sums(), nn.Linear(4, 3)), {"a": nn.Linear(3, 1), "b": nn.Linear(3, 2)})
    targets = [torch.zeros(2, 1), torch.ones(2, 2)]
    step = Step(model, [F.mse_loss, F.l1_loss], graphs, targets, replay=True, keep_jacobian=keep_jacobian)
    gramian = step.gramian("parameters")
    assert_close(step.reevaluate(), step.losses)
    rows = step.jacobian.double()
    assert_close(gramian, rows @ rows.T)
    moved = step.elsewhere({p: p.detach() for p in model.parameters()}, (graphs, targets))
    step.apply(torch.ones(2))
    assert_close([p.grad for p in moved], list(moved.values()))


# -- without keeping the Jacobian ------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "batch norm"])
def test_a_gramian_accumulated_part_by_part_is_the_same(norm: bool) -> None:
    """In single precision to 1e-6 of the lengths involved, for an encoder with a sequence inside the sequence."""
    model, x, targets = problem(dropout=0.3, norm=norm)
    model.encoder = nn.Sequential(model.encoder[:3], nn.Identity(), model.encoder[3:])
    model, x, targets = model.float(), x.float(), [y.float() if y.is_floating_point() else y for y in targets]
    gramians = []
    for keep in (True, False):
        torch.manual_seed(1)
        gramians.append(Step(model, LOSSES, x, targets, keep_jacobian=keep).gramian("parameters"))
    lengths = gramians[0].diagonal().sqrt()
    assert gramians[1].dtype == torch.float64
    assert ((gramians[0] - gramians[1]).abs() <= 1e-6 * lengths.outer(lengths)).all()


OPTIONS: dict[str, dict[str, Any]] = {"fixed": {"weights": [0.2, 0.3, 0.5]}}


@pytest.mark.parametrize("key", sorted(set(keys()) - {"bayesagg_mtl"}))  # that one needs linear heads
def test_every_method_acts_the_same_without_the_jacobian(key: str) -> None:
    """Two steps each, a look at the Gramian first, as the trainer takes it: equal weights and gradients to 1e-6."""
    found = []
    for keep in (True, False):
        model, x, targets = problem(norm=True)
        smto = build(key, 3, **OPTIONS.get(key, {}))
        smto.set_up(ProblemInfo(("softmax", "gaussian", "gaussian"), (5,), lr=0.01, weight_decay=0.0), seed=1)
        smto.double()
        optimizer = torch.optim.SGD([{"params": list(model.parameters())}, *smto.parameter_groups(0.01)], lr=0.01)
        smto.begin_epoch(0, None, 0.01)
        for _ in range(2):
            step = Step(
                model,
                LOSSES,
                x,
                targets,
                transform_features=smto.transform_features,
                second_batch=lambda x=x, targets=targets: (x + 1, targets),
                replay=smto.replay,
                keep_jacobian=keep,
            )
            step.gramian("parameters")
            applied = smto.backward(step)
            if not keep and issubclass(get(key), GramianWeighting) and smto.space == "parameters":
                assert step._jacobian is None  # nobody has made it after all
            optimizer.step()
            smto.after_step(step)
            found.append([applied.weights, applied.head_weights, *[p.grad for p in model.parameters()]])
    assert_close(found[2:], found[:2], rtol=1e-6, atol=1e-9, equal_nan=True)


def test_the_jacobian_itself_can_still_be_had() -> None:
    """And what is there is used: after it no second walk."""
    model, x, targets = problem()
    expected = Step(model, LOSSES, x, targets).jacobian
    step = Step(model, LOSSES, x, targets, keep_jacobian=False)
    assert_close(step.jacobian, expected)
    assert torch.equal(step.gramian("parameters"), expected @ expected.T)
    step.apply(WEIGHTS)
    assert_close(gradients(model), joint(model, x, targets, WEIGHTS, ONES))


@pytest.mark.parametrize("frozen", [(0,), (4, 6), (0, 4), (0, 4, 6)], ids=str)
def test_frozen_parts_are_walked_through_or_left_out(frozen: tuple[int, ...]) -> None:
    model, x, targets = problem(norm=True)
    for i in frozen:
        model.encoder[i].requires_grad_(False)
    expected = Step(model, LOSSES, x, targets).gramian("parameters")
    assert_close(Step(model, LOSSES, x, targets, keep_jacobian=False).gramian("parameters"), expected)


def test_an_encoder_of_one_piece_is_one_part() -> None:
    """Any module will do; there is then nothing to save."""

    class Whole(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    model, x, targets = problem()
    expected = Step(model, LOSSES, x, targets).gramian("parameters")
    model.encoder = Whole(model.encoder)
    assert_close(Step(model, LOSSES, x, targets, keep_jacobian=False).gramian("parameters"), expected)


def test_an_encoder_that_cannot_be_walked_is_refused() -> None:
    """Each would give a wrong Gramian or none: a shared parameter, an input overwritten, no tensor."""
    model, x, targets = problem()
    tied = nn.Linear(5, 5).double()
    for extra, complaint in (
        ((tied, nn.Tanh(), tied), "belongs to two children"),
        ((nn.ReLU(inplace=True),), "ReLU in the encoder changes its input in place"),
        ((nn.Flatten(), nn.Sequential(nn.Unflatten(1, (5, 1)), nn.Tanh(), nn.Flatten(), nn.ReLU(True))), "in place"),
        ((nn.GRU(5, 5).double(), nn.Linear(5, 5)), "GRU in the encoder gives tuple"),
    ):
        model.encoder = nn.Sequential(*problem()[0].encoder, *extra)
        with pytest.raises(ValueError, match=f"{complaint}.*keep_jacobian=True"):
            Step(model, LOSSES, x, targets, keep_jacobian=False)


class Peak(TorchDispatchMode):
    """The most bytes that tensors made inside have held at one time, the model's parameters not counted."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = {p.untyped_storage()._cdata for p in model.parameters()}
        self.live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.model:
                    self.live[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.live = {key: (ref, size) for key, (ref, size) in self.live.items() if not ref.expired()}
        self.peak = max(self.peak, sum(size for _, size in self.live.values()))
        return result


def test_no_more_than_one_part_lives_at_a_time() -> None:
    """Eight equal layers, three tasks: the Jacobian has 24 gradients of a layer, the walk three at a time and, while it
    multiplies them, three more and these in double precision: 3 + 3 + 6 = 12, and less than one for what is small."""
    size = 64
    layer = 4 * size * (size + 1)  # bytes of one layer's parameters
    peaks = {}
    for keep in (True, False):
        torch.manual_seed(0)
        encoder = nn.Sequential(*[nn.Linear(size, size) for _ in range(8)])
        model = MultiTaskModel(encoder, {name: nn.Linear(size, 1) for name in "abc"})
        step = Step(model, [F.mse_loss] * 3, torch.randn(2, size), [torch.zeros(2, 1)] * 3, keep_jacobian=keep)
        step.feature_gradients  # noqa: B018
        with Peak(model) as memory:
            step.gramian("parameters")
        peaks[keep] = memory.peak
    assert peaks[True] >= 24 * layer
    assert peaks[False] <= 13 * layer


def test_the_jacobian_is_kept_once() -> None:
    """Eight layers of 512, three tasks: Gramian and update take less memory than a second copy: one task's gradients
    before they are put in its row, and some columns at a time in double precision."""
    torch.manual_seed(0)
    encoder = nn.Sequential(*[nn.Linear(512, 512) for _ in range(8)])
    model = MultiTaskModel(encoder, {name: nn.Linear(512, 1) for name in "abc"})
    step = Step(model, [F.mse_loss] * 3, torch.randn(2, 512), [torch.zeros(2, 1)] * 3)
    step.feature_gradients  # noqa: B018
    with Peak(model) as memory:
        step.gramian("parameters")
        step.apply(WEIGHTS)
    copy_of_it = 3 * 8 * 512 * 513 * 4  # bytes
    assert copy_of_it <= memory.peak < 2 * copy_of_it


# -- the same model, elsewhere ---------------------------------------------------------------------------------------


def test_a_second_look_meets_the_same_masks_and_leaves_no_trace() -> None:
    """With dropout and batch normalisation: equal losses while nothing moves; statistics and random numbers stay."""
    model, x, targets = problem(dropout=0.5, norm=True)
    step = Step(model, LOSSES, x, targets, replay=True)
    step.apply(ONES, ONES)
    statistics, state = copy.deepcopy(list(model.buffers())), torch.get_rng_state()
    assert_close(step.reevaluate(), step.losses)
    assert_close(list(model.buffers()), statistics)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.allclose(Step(model, LOSSES, x, targets).losses, step.losses)  # other masks: the test can fail


def test_a_second_look_after_the_parameters_have_moved() -> None:
    """It equals a new forward pass from the same state of the generator."""
    model, x, targets = problem(dropout=0.5, norm=True)
    torch.manual_seed(7)
    step = Step(model, LOSSES, x, targets, replay=True)
    step.apply(ONES, ONES)
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    after = step.reevaluate()
    torch.manual_seed(7)
    assert_close(after, Step(model, LOSSES, x, targets).losses)
    assert not torch.allclose(after, step.losses)


def test_a_fresh_look_meets_other_masks_and_moves_the_statistics() -> None:
    model, x, targets = problem(dropout=0.5, norm=True)
    step = Step(model, LOSSES, x, targets)
    statistics = copy.deepcopy(list(model.buffers()))
    assert not torch.allclose(step.reevaluate(fresh=True), step.losses)
    assert model.encoder[1].num_batches_tracked == statistics[2] + 1


def test_a_second_look_needs_replay() -> None:
    model, x, targets = problem()
    with pytest.raises(RuntimeError, match="replay=True"):
        Step(model, LOSSES, x, targets).reevaluate()


def test_elsewhere_is_the_gradient_there_and_leaves_everything_as_it_was() -> None:
    model, x, targets = problem(dropout=0.5, norm=True)
    other = (x.flip(0) + 1, [y.flip(0) for y in targets])
    step = Step(model, LOSSES, x, targets)
    step.apply(WEIGHTS)
    moved = {p: p.detach() + 0.1 for p in model.parameters()}
    before = copy.deepcopy((list(model.state_dict().values()), gradients(model))), torch.get_rng_state()
    found = step.elsewhere(moved, other)
    assert_close((list(model.state_dict().values()), gradients(model)), before[0])
    assert torch.equal(torch.get_rng_state(), before[1])

    there = copy.deepcopy(model)  # the same random numbers come next
    with torch.no_grad():
        for p, value in zip(there.parameters(), moved.values(), strict=True):
            p.copy_(value)
    Step(there, LOSSES, *other).apply(ONES, ONES)
    for p, q in zip(model.parameters(), there.parameters(), strict=True):
        assert_close(found[p], q.grad)


def test_elsewhere_does_not_spoil_the_graph_of_the_step() -> None:
    """A feature-level update after a look elsewhere is what it would have been."""
    model, x, targets = problem()
    step = Step(model, LOSSES, x, targets)
    step.elsewhere({p: p.detach() * 2 for p in model.parameters()}, (x, targets))
    step.gramian("features")
    step.apply(WEIGHTS)
    assert_close(gradients(model), joint(model, x, targets, WEIGHTS, ONES))


class Counts(nn.Module):
    """A layer that moves one buffer in place and another by a new tensor, and multiplies by a third."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name in ("inside", "replaced", "factor"):
            self.register_buffer(name, torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        self.inside += x.detach().mean()
        self.replaced = self.replaced + 1
        return x * self.factor


MOVING = {
    "batch norm": lambda: nn.BatchNorm2d(4),
    "instance norm": lambda: nn.InstanceNorm2d(4, track_running_stats=True),
    "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 1)),
    "the older spectral norm": lambda: nn.utils.spectral_norm(nn.Conv2d(4, 4, 1)),
    "one's own": lambda: Counts(4),
}


@pytest.mark.parametrize("error", [False, True])
@pytest.mark.parametrize("name", MOVING)
def test_a_second_look_moves_no_buffer_of_any_layer(name: str, error: bool) -> None:
    """Also after an error; and a graph from before the look can still be walked back."""
    layer = MOVING[name]()
    x = torch.randn(3, 4, 5, 5, requires_grad=True)
    buffers = dict(layer.named_buffers())
    first = layer(x)
    before = {key: buffer.clone() for key, buffer in layer.named_buffers()}
    with pytest.raises(ZeroDivisionError) if error else nullcontext(), unseen(x.device):
        layer(x + 1)
        layer(x + 2)
        assert any(not torch.equal(buffer, before[key]) for key, buffer in layer.named_buffers())
        if error:
            raise ZeroDivisionError
    first.sum().backward()
    for key, buffer in layer.named_buffers():
        assert torch.equal(buffer, before[key])
        assert buffer is buffers[key] or key == "replaced"


# -- a step seen through scales --------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", ["losses", "features", "parameters"])
@pytest.mark.parametrize("head_weights", [None, HEAD_WEIGHTS, WEIGHTS], ids=["plain", "others", "same"])
def test_a_scaled_step_is_a_step_with_scaled_losses(space: str, head_weights: Tensor | None) -> None:
    model, x, targets = problem()
    scales = torch.tensor([0.5, 3.0, -1.0], dtype=torch.float64)
    scaled = [lambda p, y, f=f, c=c: c * f(p, y) for f, c in zip(LOSSES, scales, strict=True)]

    def seen(step: Step) -> list[Tensor]:
        found = [step.losses, torch.tensor(step.num_tasks), step.reevaluate()]
        if space != "losses":
            found += [step.gramian(space), step.on_host(space)]
            found += [step.feature_gradients, step.gradients_on(step.shared[-2])]
        if space == "parameters":
            found += [step.jacobian]
        step.apply(WEIGHTS, head_weights)
        return found + list(gradients(model).values())

    expected = seen(Step(model, scaled, x, targets, replay=True))
    assert_close(seen(ScaledStep(Step(model, LOSSES, x, targets, replay=True), scales)), expected)


@pytest.mark.parametrize("space", ["features", "parameters"])
def test_what_the_host_has_read_is_kept_by_step_and_space(space: str) -> None:
    """The Gramian and the losses below it, once; a step seen through scales has its own."""
    model, x, targets = problem()
    step = Step(model, LOSSES, x, targets)
    step.on_host("features"), step.on_host("parameters")
    there = step.on_host(space)
    assert there is step.on_host(space)
    assert torch.equal(there, torch.cat([step.gramian(space), step.losses.double()[None]]))
    scaled = ScaledStep(step, torch.tensor([2.0, 2.0, 2.0]))
    assert torch.equal(scaled.on_host(space), torch.cat([4 * there[:-1], 2 * there[-1:]]))
    assert step.on_host(space) is there


def test_a_scaled_step_scales_the_heads_only_where_the_direction_is_given() -> None:
    """A direction on the features or on the shared parameters is taken as it is."""
    model, x, targets = problem()
    scales = torch.tensor([0.5, 3.0, -1.0], dtype=torch.float64)
    step = ScaledStep(Step(model, LOSSES, x, targets), scales)
    direction = torch.randn_like(step.z)
    step.apply_features(direction, HEAD_WEIGHTS)
    expected = joint(model, x, targets, ONES, scales * HEAD_WEIGHTS)
    shared = torch.autograd.grad(model.encoder(x), list(model.encoder.parameters()), direction)
    found = gradients(model)
    assert_close([g for name, g in found.items() if name.startswith("heads")], list(expected.values())[len(shared) :])
    assert_close([g for name, g in found.items() if name.startswith("encoder")], list(shared))

    step = ScaledStep(Step(model, LOSSES, x, targets), scales)
    step.apply_shared(step.flatten(shared))
    assert_close([p.grad for p in model.encoder.parameters()], list(shared))
    assert_close(next(model.heads["c"].parameters()).grad, -joint(model, x, targets, ONES, ONES)["heads.c.0.weight"])
