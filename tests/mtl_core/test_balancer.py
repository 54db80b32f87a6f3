"""`mtl_core.Balancer`: any network, any loop. Every method in it: tests/mtl_study/test_own_loops.py."""

from __future__ import annotations

import copy
import io
import itertools
import shutil
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import mtl_core
import mtl_core.graph
from mtl_core.balancer import Unmet
from mtl_core.options import BadOption
from mtl_core.smtos import NonFinite, StepResult, build
from mtl_core.smtos.registry import keys, options
from mtl_core.step import MultiTaskModel, Step, inner_products


class Net(nn.Module):
    """Tokens to an LSTM's output and last state; one head reads the one, one the other and, on request, the embedding
    once more, past the features."""

    def __init__(self, tied: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(7, 4), nn.LSTM(4, 5, batch_first=True)
        self.norm, self.dropout, self.tied = nn.BatchNorm1d(5), nn.Dropout(dropout), tied
        self.heads = nn.ModuleList([nn.Linear(5, 2), nn.Linear(5, 4 if tied else 3)])

    @property
    def shared(self) -> list[nn.Parameter]:
        return [p for part in (self.embedding, self.lstm, self.norm) for p in part.parameters()]

    def features(self, x: Tensor) -> dict[str, Any]:
        sequence, (state, _) = self.lstm(self.embedding(x))
        return {"mean": self.dropout(self.norm(sequence.mean(1))), "states": [state], "length": x.shape[1]}

    def losses(self, z: dict[str, Any]) -> list[Tensor]:
        words = self.heads[1](z["states"][0][0])
        if self.tied:
            words = words @ self.embedding.weight.T
        return [self.heads[0](z["mean"]).square().mean(), words.logsumexp(1).mean() + words.square().mean()]


def make(tied: bool = False, dropout: float = 0.0) -> tuple[Net, Tensor]:
    torch.manual_seed(0)
    return Net(tied, dropout).double(), torch.randint(7, (6, 3))


def by_autograd(net: Net, losses: list[Tensor], result: StepResult) -> dict[str, Tensor]:
    """Σ w_k ∇L_k on what is shared, Σ v_k ∇L_k on the heads."""
    shared, found = set(net.shared), {}
    for name, p in net.named_parameters():
        weights = result.weights if p in shared else result.head_weights
        rows = [torch.autograd.grad(loss, p, retain_graph=True, allow_unused=True)[0] for loss in losses]
        found[name] = sum(w * g for w, g in zip(weights.to(p), rows, strict=True) if g is not None)
    return found


def grads(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


def stepped(balance: mtl_core.Balancer) -> None:
    """An optimizer has been, and its step size was 0."""
    with torch.no_grad():
        for p in balance.model.encoder.parameters():
            p.add_(0)


@pytest.mark.parametrize("features", [True, False])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("key", ["cagrad", "mgda_ub", "unit_scal", "excess_mtl", "nash_mtl"])
def test_gradients_are_those_of_autograd(key: str, tied: bool, features: bool) -> None:
    """For an LSTM, two features in a dict and a list, weights that are tied past them; and they are added to .grad."""
    net, x = make(tied)
    z = net.features(x)
    losses = net.losses(z)
    balance = mtl_core.Balancer(key, net.shared, 2)
    if key == "mgda_ub" and not features:
        with pytest.raises(Unmet, match="mgda_ub needs what the heads took in"):
            balance.backward(losses)
        return
    expected = net.losses(net.features(x))
    net.lstm.bias_hh_l0.grad = torch.ones_like(net.lstm.bias_hh_l0)
    result = balance.backward(losses, features=z if features else None)
    net.lstm.bias_hh_l0.grad -= 1
    assert_close(grads(net), by_autograd(net, expected, result))


@pytest.mark.parametrize("key", ["unit_scal", "uw", "rlw_normal", "dwa", "si", "famo"])
def test_in_mixed_precision_weights_on_losses_are_those_of_the_result(key: str) -> None:
    """Against autograd of Σ w_k L_k in one precision, to six digits; the trainer sums in another order."""
    torch.manual_seed(0)
    net = nn.ModuleList([nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 2)])
    x = torch.randn(16, 6)

    def forward() -> tuple[Tensor, list[Tensor]]:
        with torch.autocast("cpu", torch.bfloat16):
            z = net[0](x).tanh()
            return z, [net[1](z).float().square().mean(), 3 * net[2](z).float().abs().mean()]

    balance = mtl_core.Balancer(key, net[0].parameters(), 2, lr=0.1, likelihoods=["gaussian", "laplace"])
    balance.parameters()
    balance.begin_epoch()
    z, losses = forward()
    result = balance.backward(losses, z)
    total = torch.dot(result.weights, torch.stack(forward()[1]))
    names, parameters = zip(*net.named_parameters(), strict=True)
    expected = dict(zip(names, torch.autograd.grad(total, parameters), strict=True))
    assert_close(grads(net), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("given", ["features", "nothing", "groups", "log"])
def test_backward_inside_autocast_is_that_outside(given: str) -> None:
    """To the bit: nothing that the forward pass had in single precision is rounded to bfloat16 on the way back."""
    found = []
    for inside in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5))
        groups = [list(net[0].parameters()), list(net[2].parameters())] if given == "groups" else None
        balance = mtl_core.Balancer(build("edm", 2), net.parameters(), groups=groups, log=given == "log")
        z = net(torch.randn(16, 6))
        losses = [z[:, :2].square().mean(), 3 * (z @ torch.randn(5, 4)).abs().mean()]
        with torch.autocast("cpu", torch.bfloat16, enabled=inside):
            balance.backward(losses, z if given == "features" else None)
        found.append((grads(net), [row["norm"] for row in balance.log]))
    assert_close(*found, rtol=0, atol=0)


def test_the_step_replaces_and_the_balancer_adds() -> None:
    torch.manual_seed(0)
    model = MultiTaskModel(nn.Linear(3, 2), {"a": nn.Linear(2, 1), "b": nn.Linear(2, 1)})
    x, y = torch.randn(4, 3), [torch.zeros(4, 1)] * 2
    for _ in range(2):
        build("edm", 2).backward(Step(model, [F.mse_loss, F.l1_loss], x, y))
    once = grads(model)
    balance = mtl_core.Balancer("edm", model.encoder.parameters(), 2)
    z = model.encoder(x)
    balance.backward([F.mse_loss(model.heads["a"](z), y[0]), F.l1_loss(model.heads["b"](z), y[1])], z)
    assert_close(grads(model), {name: 2 * g for name, g in once.items()})


def test_every_gradient_has_memory_of_its_own() -> None:
    """autograd.grad gives one tensor for two biases that are added, and a single number for a sum: clipping would scale
    the first twice, and could not write into the second."""
    for key in ("unit_scal", "cagrad", "mgda_ub"):
        one, two, scale, head = (nn.Parameter(torch.ones(3)) for _ in range(4))
        z = (one + two) * torch.ones(4, 3)
        balance = mtl_core.Balancer(key, [one, two, scale], 2)
        balance.backward([z.sum() + head.sum() + 0 * scale.sum(), 3 * z.sum()], z if key == "mgda_ub" else None)
        length = nn.utils.clip_grad_norm_([one, two, head], 1.0)
        assert length > 1
        assert_close(nn.utils.get_total_norm([p.grad for p in (one, two, head)]), torch.ones(()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("key", ["unit_scal", "cagrad", "mgda_ub", "nash_mtl"])
def test_gradients_that_autograd_takes_out_of_one_another_have_memory_of_their_own(key: str) -> None:
    """cat([p, q]) + r: the gradients of p and q are parts of that of r. A second step added to them twice."""
    torch.manual_seed(0)
    p, q, r = (nn.Parameter(torch.randn(n, 3)) for n in (3, 1, 4))
    trunk, heads = nn.Linear(3, 3), [nn.Linear(3, 1), nn.Linear(3, 2)]
    balance = mtl_core.Balancer(key, [r, p, q, *trunk.parameters()], 2)
    found = []
    for _ in range(2):
        z = trunk(torch.cat([p, q]) + r).tanh()
        balance.backward([head(z).square().mean() for head in heads], z if key == "mgda_ub" else None)
        found.append([x.grad.clone() for x in (p, q, r)])
    once, twice = found
    if key != "nash_mtl":  # which remembers
        assert_close(twice, [2 * x for x in once])
    assert_close(torch.cat(twice[:2]), twice[2])
    nn.utils.clip_grad_norm_([p, q, r], 1e-3)
    assert_close(torch.cat([p.grad, q.grad]), r.grad)


class Recomputed(torch.autograd.Function):
    """A reversible layer, in short: its backward pass goes forward again and leaves gradients in .grad itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: nn.Module) -> Tensor:
        ctx.layer = layer
        ctx.save_for_backward(x)
        return layer(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            torch.autograd.backward(ctx.layer(x), gradient)
        return x.grad, None


@pytest.mark.parametrize("key", ["cagrad", "db_mtl", "pcgrad"])
def test_a_layer_that_hides_its_parameters_is_refused(key: str) -> None:
    """Their gradients were 0, in silence: autograd.grad does not see them."""
    trunk, hidden, heads = nn.Linear(4, 4), nn.Linear(4, 5), [nn.Linear(5, 1), nn.Linear(5, 2)]
    shared = [*trunk.parameters(), *hidden.parameters()]
    z = Recomputed.apply(trunk(torch.randn(6, 4)), hidden)
    balance = mtl_core.Balancer(key, shared, 2)
    with pytest.raises(ValueError, match=r"a layer's own backward pass puts gradients into \.grad"):
        balance.backward([head(z).square().mean() for head in heads])
    assert all(p.grad is None for p in shared)


def test_constants_among_the_features_are_passed_over() -> None:
    """A mask, say, or what was detached."""
    found = []
    for more in ({}, {"mask": torch.ones(6), "before": torch.zeros(2).requires_grad_().detach()}):
        net, x = make()
        z = net.features(x)
        mtl_core.Balancer("mgda_ub", net.shared, 2).backward(net.losses(z), z | more)
        found.append(grads(net))
    assert_close(*found, rtol=0, atol=0)


def by_features(**given: Any) -> tuple[dict[str, Tensor], StepResult]:
    """A step of CAGrad, or of another method, on a trunk of two layers; `features` makes them of (first, z)."""
    torch.manual_seed(0)
    first, second, heads = nn.Linear(3, 4), nn.Linear(4, 4), nn.ModuleList([nn.Linear(4, 1), nn.Linear(4, 1)])
    trunk = nn.ModuleList([first, second]).double()
    x = torch.randn(5, 3).double()
    hidden = first(x).tanh()
    z = second(hidden)
    losses = [
        head(z).square().mean() + k * hidden.sum() * given.get("past", 0) for k, head in enumerate(heads.double())
    ]
    balance = mtl_core.Balancer(given.get("key", "cagrad"), trunk.parameters(), 2, log=given.get("log", False))
    result = balance.backward(losses, given.get("features", lambda hidden, z: z)(hidden, z))
    return grads(nn.ModuleList([trunk, heads])), result


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("key", ["cagrad", "unit_scal", "mgda_ub"])
def test_features_that_are_given_twice_count_once(key: str, log: bool) -> None:
    once = by_features(key=key)
    assert_close(by_features(key=key, log=log, features=lambda _, z: {"a": z, "b": z})[0], once[0])


@pytest.mark.parametrize(
    "features",
    [
        lambda hidden, z: [z, z[:, 0]],
        lambda hidden, z: [z.view(-1), z],
        lambda hidden, z: [z, z + 1],
        lambda hidden, z: [hidden, z],
        lambda hidden, z: [z, *z.split(2, 1)],
    ],
)
def test_a_feature_that_is_made_of_another_is_refused(features: Callable[[Tensor, Tensor], Any]) -> None:
    """What passes both would count twice."""
    for key in ("cagrad", "unit_scal", "mgda_ub"):
        with pytest.raises(ValueError, match="one of the features is made of another"):
            by_features(key=key, features=features)


def test_parts_of_one_tensor_are_features_as_well_as_the_whole() -> None:
    """Where they do not overlap, and the heads took them: here the whole is made of the parts."""
    torch.manual_seed(0)
    trunk, heads, x, found = (
        nn.Linear(3, 4).double(),
        nn.ModuleList([nn.Linear(2, 1)] * 2).double(),
        torch.randn(5, 3),
        [],
    )
    for parts in (True, False):
        trunk.zero_grad()
        z = trunk(x.double())
        both = z.split(2, 1)
        losses = [heads[k](both[k]).square().mean() for k in (0, 1)]
        mtl_core.Balancer("mgda_ub", trunk.parameters(), 2).backward(losses, list(both) if parts else z)
        found.append(grads(trunk))
    assert_close(*found)


def test_a_hook_on_the_features_is_refused() -> None:
    def turned(_: Tensor, z: Tensor) -> Tensor:
        z.register_hook(lambda g: -0.1 * g)
        return z

    def kept(_: Tensor, z: Tensor) -> Tensor:
        z.retain_grad()
        return z

    for features in (turned, kept):
        with pytest.raises(ValueError, match="a hook on the features, or retain_grad, would act twice"):
            by_features(features=features)


def test_a_task_that_passes_all_features_by_is_named() -> None:
    """A method that reads features would give it no weight; others differentiate it all the way down, the log too."""

    def step(key: str, **given: Any) -> dict[str, Tensor]:
        torch.manual_seed(0)
        trunk, heads, x = nn.Linear(3, 4), nn.ModuleList([nn.Linear(4, 1)] * 2), torch.randn(2, 5, 3)
        a, b = trunk(x[0]), trunk(x[1])
        losses = [heads[0](a).square().mean(), heads[1](b).abs().mean()]
        mtl_core.Balancer(key, trunk.parameters(), 2, **given).backward(losses, a)
        return grads(trunk)

    for key in ("mgda_ub", "imtl_g", "graddrop"):
        with pytest.raises(ValueError, match=r"tasks \[1\] reach shared parameters past all features"):
            step(key)
    assert_close(step("cagrad", log=True), step("cagrad"))


def test_every_tensor_below_the_features_is_asked_for() -> None:
    """A prompt that is no parameter would get no gradient; complex numbers would lose a part."""
    trunk, prompt = nn.Linear(3, 4), torch.zeros(4, requires_grad=True)
    z = trunk(torch.ones(2, 3)) + prompt
    with pytest.raises(ValueError, match=r"inputs \(of shapes \[4\]\) not in `shared`"):
        mtl_core.Balancer("cagrad", trunk.parameters(), 2).backward([z.sum(), z.square().sum()], z)
    weight = nn.Parameter(torch.ones(2, dtype=torch.cfloat))
    with pytest.raises(ValueError, match="complex numbers are not supported"):
        mtl_core.Balancer("mgda", [weight], 2).backward([weight.abs().sum(), weight.real.sum()])


def test_a_sparse_gradient_that_is_there_is_added_to() -> None:
    words = nn.Embedding(5, 2)
    words.weight.grad = torch.sparse_coo_tensor(torch.tensor([[1]]), torch.ones(1, 2), (5, 2))
    z = words(torch.tensor([1, 2]))
    mtl_core.Balancer("unit_scal", words.parameters(), 2).backward([z.sum(), z.sum()])
    assert words.weight.grad.to_dense().tolist() == [[0, 0], [2, 2], [1, 1], [0, 0], [0, 0]]


def test_hooks_that_wait_for_the_gradient_are_called() -> None:
    """As an optimizer inside the backward pass has them: it moves every weight once, by the method's gradient."""
    for key in ("cagrad", "unit_scal"):
        net, x = make()
        for p in net.parameters():
            p.register_post_accumulate_grad_hook(lambda p: p.data.sub_(0.1 * p.grad))
        before, z = copy.deepcopy(net), net.features(x)
        mtl_core.Balancer(key, net.shared, 2).backward(net.losses(z), z)
        expected = {name: p - 0.1 * net.get_parameter(name).grad for name, p in before.named_parameters()}
        assert_close(dict(net.named_parameters()), expected)


def test_a_gradient_within_a_loss() -> None:
    """Of the network by its input, as where a differential equation is learnt."""
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)).double(), torch.rand(9, 1).double()
    x.requires_grad_()

    def losses() -> list[Tensor]:
        u = net(x)
        (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        return [(slope - u).square().mean(), (net(torch.zeros(1, 1).double()) - 1).square().mean()]

    for key in ("cagrad", "unit_scal"):
        net.zero_grad()
        result = mtl_core.Balancer(key, net.parameters(), 2).backward(losses())
        total = torch.dot(result.weights, torch.stack(losses()))
        expected = torch.autograd.grad(total, list(net.parameters()), materialize_grads=True)
        assert_close([p.grad for p in net.parameters()], list(expected))


@pytest.mark.parametrize("key", ["db_mtl", "excess_mtl", "moco"])
def test_what_remembers_each_parameter_refuses_other_ones(key: str) -> None:
    """A layer is frozen in the middle of training; a new Balancer goes on."""
    net, x = make()
    balance = mtl_core.Balancer(key, net.shared, 2)
    balance.backward(net.losses(net.features(x)))
    net.embedding.requires_grad_(False)
    with pytest.raises(ValueError, match=f"{key} remembers each shared parameter; some were frozen or unfrozen"):
        balance.backward(net.losses(net.features(x)))
    mtl_core.Balancer(key, net.shared, 2).backward(net.losses(net.features(x)))


@pytest.mark.parametrize("key", ["db_mtl", "excess_mtl", "moco", "nash_mtl"])
def test_a_layer_that_takes_the_place_of_an_equal_one_is_another_one(key: str) -> None:
    """There are as many numbers as before. What was remembered is saved and restored with whose it is."""
    first, second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2), requires_grad=False)

    def losses() -> list[Tensor]:
        return [(first + second).square().sum(), (first - 2 * second).square().sum() + first[0]]

    balance, loaded = mtl_core.Balancer(key, [first, second], 2), mtl_core.Balancer(key, [first, second], 2)
    balance.backward(losses())
    loaded.load_state_dict(balance.state_dict())
    first.requires_grad_(False)
    second.requires_grad_(True)
    for one in (balance, loaded):
        if key == "nash_mtl":
            one.backward(losses())
        else:
            with pytest.raises(ValueError, match=f"{key} remembers each shared parameter"):
                one.backward(losses())


@pytest.mark.parametrize("key", ["unit_scal", "si", "cagrad", "pcgrad", "mgda_ub", "nash_mtl", "excess_mtl", "moco"])
def test_a_parameter_that_no_loss_reaches_has_no_gradient(key: str) -> None:
    """As after loss.backward(): an optimizer passes over it, and weight decay leaves it. In an average over steps it
    has one, from when a loss reached it."""
    net, x = make()
    idle = nn.Parameter(torch.ones(3, dtype=torch.float64))
    balance = mtl_core.Balancer(key, [*net.shared, idle], 2)
    z = net.features(x)
    balance.backward(net.losses(z), z)
    assert all(p.grad is not None for p in net.shared) and idle.grad is None
    if key != "mgda_ub":
        balance.backward([loss + idle.sum() for loss in net.losses(net.features(x))])
        idle.grad = None
        z = net.features(x)
        balance.backward(net.losses(z), z)
        assert (idle.grad is not None) == (key == "moco")


def test_rotations_turn_features_of_another_precision() -> None:
    """The network was made double after the Balancer."""
    torch.manual_seed(0)
    trunk, heads, x = nn.Linear(4, 3), nn.ModuleList([nn.Linear(3, 1), nn.Linear(3, 1)]), torch.randn(5, 4).double()
    balance = mtl_core.Balancer("rotograd", trunk.parameters(), 2, lr=0.1, feature_shape=(3,))
    balance.parameters()
    trunk.double(), heads.double()
    z = trunk(x)
    balance.backward([head(balance.transform(z, k)).square().mean() for k, head in enumerate(heads)], z)
    assert all(p.grad.any() for p in (*balance.smto.parameters(), *trunk.parameters()))


# -- several processes -------------------------------------------------------------------------------------------------


class Whole(nn.Module):
    """A network that gives its features and its losses."""

    def __init__(self, model: MultiTaskModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        z = self.model.encoder(x)
        return z, [head(z).square().mean() for head in self.model.heads.values()]


def refusals(rank: int, meeting: str, folder: str) -> None:
    """In one of two processes: what is said of a Step, of another start and of another seed; and the gradients of a
    Balancer that was made before the processes met."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = MultiTaskModel(nn.Linear(3, 4), {"a": nn.Linear(4, 1), "b": nn.Linear(4, 1)})
    x, said = torch.randn(4, 3, generator=torch.Generator().manual_seed(rank)), []
    early = mtl_core.Balancer("cagrad", model.encoder.parameters(), 2)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)

    def backward(balance: mtl_core.Balancer) -> None:
        z = model.encoder(x)
        balance.backward([head(z).square().mean() for head in model.heads.values()], z)

    def others(**given: Any) -> mtl_core.Balancer:
        return mtl_core.Balancer("cagrad", model.encoder.parameters(), 2, **given)

    backward(early)
    found = grads(model)
    whole = DistributedDataParallel(Whole(model), find_unused_parameters=True)

    def partly() -> None:
        z = model.encoder(x)
        others().backward([head(z).sum() if k == rank else None for k, head in enumerate(model.heads.values())], z)

    def wrapped() -> None:
        z, losses = whole(x)
        others().backward(losses, z)

    def experts() -> None:
        z = model.encoder(x)
        first = list(model.heads.values())[rank]  # of the same sizes: the other's gradient would be added to it
        others().backward([first(z).square().mean(), z.square().mean()], z)

    def stood_in() -> None:
        z = model.encoder(x)
        a, b = model.heads.values()
        others().backward([z.sum() * 0 if rank else a(z).square().mean(), b(z).square().mean()], z)

    def longer() -> None:
        z = model.encoder(torch.ones(4, 5 + rank, 3))
        signs = mtl_core.Balancer("graddrop", model.encoder.parameters(), 2)
        signs.backward([head(z).square().mean() for head in model.heads.values()], z)

    def past() -> None:
        z = model.encoder(x)
        penalty = 0 if rank else model.encoder.weight.square().sum()
        others().backward([head(z).square().mean() + penalty for head in model.heads.values()], z)

    calls: list[Callable[[], Any]] = [
        experts,
        stood_in,
        longer,
        past,
        lambda: Step(model, [F.mse_loss] * 2, x, [torch.zeros(4, 1)] * 2),
        partly,
        wrapped,
        lambda: backward(others(seed=rank)),
        lambda: (model.encoder.weight.data.add_(rank), backward(others(together=False))),
        lambda: backward(others()),
    ]
    for call in calls:
        try:
            call()
            said.append("")
        except (RuntimeError, ValueError) as error:
            said.append(str(error))
    torch.save((found, said), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_processes_that_would_drift_apart_are_refused(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(refusals, (str(tmp_path / "meeting"), str(tmp_path)), nprocs=2)
    (one, said), (other, too) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert_close(one, other, rtol=0, atol=0)
    for task, sentence, same in zip("00", said[:2], too[:2], strict=True):
        assert sentence == same and f"heads of tasks ['{task}'] differ between processes" in sentence
    assert said[2].startswith("sizes differ between processes, here") and too[2].startswith("sizes differ")
    assert said[3] == too[3]
    assert said[3] == "in some processes only a loss reaches shared parameters past the features; give none."
    said, too = said[4:], too[4:]
    assert said == too
    assert "a Step sees one process's batch" in said[0] and "mtl_core.Balancer" in said[0]
    assert said[1] == "tasks ['0', '1'] are missing in some processes only; all need the same in every step."
    assert "no loss depends on the features" in said[2]
    assert said[4] == "" and all("the processes begin with other parameters" in said[k] for k in (3, 5))


KEPT_APART = ["cagrad", "moco", "db_mtl", "pcgrad", "unit_scal"]


def with_another_layer(rank: int, meeting: str, folder: str, used: bool) -> None:
    """In one of two processes: gradients where the first uses another shared layer in this batch, or neither does."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    found = {}
    for key, through in itertools.product(KEPT_APART, (True, False)):
        torch.manual_seed(0)
        net = nn.ModuleDict({"trunk": nn.Linear(3, 4), "other": nn.Linear(3, 4)})
        heads = nn.ModuleList([nn.Linear(4, 1), nn.Linear(4, 1)])
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(rank))
        z = net["trunk"](x) + net["other"](x) if used and rank == 0 else net["trunk"](x)
        losses = [head(z).square().mean() for head in heads]
        weight = net["other"].weight
        (alone,) = torch.autograd.grad(torch.stack(losses).mean(), weight, retain_graph=True, materialize_grads=True)
        mtl_core.Balancer(key, net.parameters(), 2).backward(losses, z if through else None)
        found[f"{key} {through}"] = grads(net), alone
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("used", [False, True])
def test_a_layer_that_one_process_uses_gets_the_mean_and_one_that_none_does_nothing(used: bool, tmp_path: Path) -> None:
    """The other's gradient is 0: the processes used to send tensors of different lengths, and died. Where none uses it
    there is no gradient, as in one process: zeros would let weight decay move it."""
    torch.multiprocessing.spawn(with_another_layer, (str(tmp_path / "meeting"), str(tmp_path), used), nprocs=2)
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert set(one) == {f"{key} {through}" for key in KEPT_APART for through in (True, False)}
    for which, (gradients, alone) in one.items():
        assert_close(gradients, other[which][0], rtol=0, atol=0)
        layers = ["trunk", "other"] if used else ["trunk"]
        assert set(gradients) == {f"{layer}.{name}" for layer in layers for name in ("weight", "bias")}, which
        assert alone.any() == used and not other[which][1].any()
        if used:
            assert gradients["other.weight"].any()
        if used and which.startswith("unit_scal"):
            assert_close(gradients["other.weight"], alone / 2)


def test_the_graph_is_let_go() -> None:
    """What the features were made of is freed, as by loss.backward()."""
    for key in ("unit_scal", "mgda_ub", "cagrad"):
        net, x = make()
        z = net.features(x)
        mtl_core.Balancer(key, net.shared, 2).backward(net.losses(z), z)
        with pytest.raises(RuntimeError, match="a second time"):
            z["mean"].sum().backward()


def test_products_of_gradients_are_formed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One small matrix per tensor of features, the log included."""
    formed = []
    monkeypatch.setattr(mtl_core.graph, "inner_products", lambda rows: formed.append(1) or inner_products(rows))
    for log in (False, True):
        net, x = make()
        z = net.features(x)
        formed.clear()
        mtl_core.Balancer("mgda_ub", net.shared, 2, log=log).backward(net.losses(z), z)
        assert len(formed) == 2  # `mean` and `states`


def test_a_penalty_counts_for_its_task() -> None:
    """It reaches the shared parameters past the features: both ways of differentiating give the same."""
    found = []
    for features in (True, False):
        net, x = make()
        z = net.features(x)
        losses = net.losses(z)
        losses[0] = losses[0] + net.embedding.weight.square().sum()
        mtl_core.Balancer("cagrad", net.shared, 2).backward(losses, z if features else None)
        found.append(grads(net))
    assert_close(*found)


def test_each_group_is_a_problem_of_its_own() -> None:
    """On its parameters the gradient is that of the group alone; heads get the mean of their weights."""
    net, x = make()
    groups = [list(net.embedding.parameters()), [*net.lstm.parameters(), *net.norm.parameters()]]
    alone, weights = [], []
    for group in groups:
        result = mtl_core.Balancer("nash_mtl", group, 2).backward(net.losses(net.features(x)))
        alone += [p.grad for p in group]
        weights.append(result.head_weights)
        net.zero_grad()
    result = mtl_core.Balancer("nash_mtl", num_tasks=2, groups=groups).backward(net.losses(net.features(x)))
    assert_close([p.grad for group in groups for p in group], alone)
    assert_close(result.head_weights, torch.stack(weights).mean(0))
    assert result.weights.shape == (2, 2)
    with pytest.raises(BadOption, match="famo solves no Gramian on parameters"):
        mtl_core.Balancer("famo", num_tasks=2, groups=groups)


def test_groups_train_in_every_way() -> None:
    """Two parts of a step are the mean of both, a missing task has no weight, a state goes on where it was, and with a
    GradScaler gradients come out times its factor."""
    net, x = make()
    groups = [list(net.embedding.parameters()), [*net.lstm.parameters(), *net.norm.parameters()]]

    def gradients(balance: mtl_core.Balancer, *batches: Tensor, missing: bool = False, **given: Any) -> list[Tensor]:
        net.zero_grad()
        with balance.accumulate(len(batches)):
            for batch in batches:
                a, b = net.losses(net.features(batch))
                balance.backward([a, None if missing else b], **given)
        return [p.grad.clone() for p in net.shared]

    def new() -> mtl_core.Balancer:
        return mtl_core.Balancer(build("imgrad", 2), groups=groups)

    one, other, both = gradients(new(), x), gradients(new(), x.flip(1)), gradients(new(), x, x.flip(1))
    assert_close(both, [(a + b) / 2 for a, b in zip(one, other, strict=True)])

    alone = torch.autograd.grad(net.losses(net.features(x))[0], net.shared)
    found = gradients(new(), x, missing=True)
    for part in (slice(1), slice(1, None)):  # of the groups
        mine, theirs = (torch.cat([g.flatten() for g in whole[part]]) for whole in (found, alone))
        assert_close(torch.cosine_similarity(mine, theirs, dim=0), torch.ones((), dtype=mine.dtype))

    balance = mtl_core.Balancer("nash_mtl", num_tasks=2, groups=groups)
    gradients(balance, x)
    copied = mtl_core.Balancer("nash_mtl", num_tasks=2, groups=groups)
    copied.load_state_dict(balance.state_dict())
    restored = [gradients(b, x.flip(1)) for b in (balance, copied)]
    assert_close(*restored, rtol=0, atol=0)

    scaled = gradients(new(), x, scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))
    assert_close(scaled, [1024 * g for g in one])


def test_a_dataset_per_task() -> None:
    """A batch and a forward pass for each: a joint step, and steps on one task alone."""
    net, x = make()
    a, b = net.features(x), net.features(x.flip(1))
    losses = [net.losses(a)[0], net.losses(b)[1]]
    balance = mtl_core.Balancer("cagrad", net.shared, tasks=["a", "b"])
    expected = [net.losses(net.features(x))[0], net.losses(net.features(x.flip(1)))[1]]
    result = balance.backward(losses, features=[a, b])
    assert_close(grads(net), by_autograd(net, expected, result))
    net.zero_grad()
    z = net.features(x)
    result = balance.backward({"b": net.losses(z)[1]}, features=z)
    assert result.weights[0] == 0 and "inactive_task" in result.flags
    assert net.heads[0].weight.grad is None and net.heads[1].weight.grad.any()


@pytest.mark.parametrize("wrap", [pytest.param("compiled", marks=pytest.mark.slow), "checkpointed"])
def test_an_encoder_may_be(wrap: str) -> None:
    """By torch's own compiler for one method; for every method, without it: tests/mtl_study/test_own_loops.py."""
    torch.manual_seed(0)
    trunk, heads, x = nn.Sequential(nn.Linear(4, 5), nn.Tanh()), nn.ModuleList([nn.Linear(5, 1)] * 2), torch.randn(3, 4)
    ways: list[Callable[[Tensor], Tensor]] = [trunk]
    if wrap == "compiled":
        if shutil.which("g++") is None:
            pytest.skip("torch's own compiler needs g++")
        ways.append(torch.compile(trunk))
    else:
        ways.append(lambda x: checkpoint(trunk, x, use_reentrant=False))  # type: ignore[arg-type, return-value]
    found = []
    for forward in ways:
        trunk.zero_grad()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            z = forward(x)
        losses = [heads[0](z).square().mean(), (heads[1](z) - 3).abs().mean()]
        mtl_core.Balancer("cagrad", trunk.parameters(), 2).backward(losses, z)
        found.append([p.grad.clone() for p in trunk.parameters()])
    assert_close(*found)


def test_the_log_has_a_row_per_step_and_task_and_moves_nothing() -> None:
    """Lengths and cosines are those of the features' gradients, weights and losses those of the result."""
    found = []
    for log in (False, True):
        net, x = make()
        balance = mtl_core.Balancer("cagrad", net.shared, tasks=["a", "b"], log=log)
        for _ in range(2):
            z = net.features(x)
            losses = dict(zip("ab", net.losses(z), strict=True))
            wanted = [z["mean"], z["states"][0]]
            rows = [torch.autograd.grad(x, wanted, retain_graph=True, materialize_grads=True) for x in losses.values()]
            g = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
            result = balance.backward(losses, z)
        found.append(grads(net))
    assert_close(*found)
    assert [(row["step"], row["task"]) for row in balance.log] == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]
    cosine = float(torch.cosine_similarity(g[0], g[1], dim=0))
    for k, row in enumerate(balance.log[2:]):
        assert_close([row["norm"], row["cosine"]], [float(g[k].norm()), cosine])
        assert row["weight"] == float(result.weights[k]) and row["loss"] == float(list(losses.values())[k])
        assert row["conflicts"] == (cosine < 0)


def test_parts_of_a_step_have_its_number_in_the_log() -> None:
    net, x = make()
    balance = mtl_core.Balancer("edm", net.shared, 2, log=True)
    for _ in range(2):
        with balance.accumulate(2):
            for _ in range(2):
                balance.backward(net.losses(net.features(x)))
    assert [row["step"] for row in balance.log] == [0] * 4 + [1] * 4
    later = mtl_core.Balancer("edm", net.shared, 2, log=True)
    later.load_state_dict(balance.state_dict())
    later.backward(net.losses(net.features(x)))
    assert [row["step"] for row in later.log] == [2, 2]


def test_the_log_compares_the_tasks_that_are_there() -> None:
    """Of a task that is missing there is no cosine; the two others have theirs."""
    shared, rows = nn.Parameter(torch.ones(2)), [torch.tensor([1.0, 0.0]), None, torch.tensor([-1.0, 1.0])]
    balance = mtl_core.Balancer("edm", [shared], 3, log=True)
    balance.backward([None if row is None else row @ shared for row in rows])
    assert_close([row["cosine"] for row in balance.log], [-(0.5**0.5), float("nan"), -(0.5**0.5)], equal_nan=True)
    assert [row["conflicts"] for row in balance.log] == [1, 0, 1]


# -- losses once more --------------------------------------------------------------------------------------------------


def test_the_second_look_meets_the_same_masks() -> None:
    """Nothing moves, so nothing improves: δ = 0, random numbers and running statistics stay. Without begin_step masks
    would be others, which is refused; a network without dropout needs none."""
    net, x = make(dropout=0.5)
    balance = mtl_core.Balancer(build("famo", 2), net.shared)
    balance.begin_step()
    z = net.features(x)
    balance.backward(net.losses(z), z)
    count, state = int(net.norm.num_batches_tracked), torch.get_rng_state()
    stepped(balance)
    balance.after_step(lambda: net.losses(net.features(x)))
    assert not balance.smto.improvement.any()
    assert net.norm.num_batches_tracked == count and torch.equal(torch.get_rng_state(), state)

    for dropout in (0.5, 0.0):
        net, x = make(dropout=dropout)
        balance = mtl_core.Balancer("famo", net.shared, 2)
        z = net.features(x)
        balance.backward(net.losses(z), z)
        if dropout:
            with pytest.raises(Unmet, match=r"balance\.begin_step\(\) before the forward pass"):
                stepped(balance)
                balance.after_step(lambda net=net, x=x: net.losses(net.features(x)))
        else:
            stepped(balance)
            balance.after_step(lambda net=net, x=x: net.losses(net.features(x)))


def test_the_second_look_under_autocast_sees_what_the_first_saw() -> None:
    """Nothing moves, so δ = 0; in full precision the losses would be others."""
    torch.manual_seed(0)
    trunk, heads, x = nn.Linear(6, 8), nn.ModuleList([nn.Linear(8, 1), nn.Linear(8, 2)]), torch.randn(16, 6)

    def losses() -> list[Tensor]:
        z = F.dropout(trunk(x))
        return [head(z).float().square().mean() for head in heads]

    for again in (True, False):
        balance = mtl_core.Balancer(build("famo", 2), trunk.parameters())
        balance.begin_step()
        with torch.autocast("cpu", torch.bfloat16):
            balance.backward(losses())
            if again:
                stepped(balance)
                balance.after_step(losses)
        if not again:
            stepped(balance)
            balance.after_step(losses)
        assert bool(balance.smto.improvement.any()) == (not again)


def test_after_the_step_nothing_is_computed_under_autocast() -> None:
    """δ of FAMO is 0.3 and 0.3001: the logits go apart, as they do in full precision."""
    found = []
    for inside in (False, True):
        p = nn.Parameter(torch.ones(2))
        balance = mtl_core.Balancer("famo", [p], 2)
        balance.backward([p[0] * 1.0, p[1] * 1.0])
        with torch.autocast("cpu", torch.bfloat16, enabled=inside):
            stepped(balance)
            balance.after_step(lambda: [torch.tensor(0.7), torch.tensor(0.6999)])
        found.append(dict(balance.smto.state_dict()))
    assert found[0].pop("_extra_state") and found[1].pop("_extra_state")
    assert_close(*found, rtol=0, atol=0)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
def test_the_second_look_may_have_a_graph_of_its_own(mode: Any) -> None:
    """As a penalty on gradients takes one: the logits are those of the plain loop, and hold no graph. A part of an old
    graph is refused there, too."""
    found = []
    for context in (nullcontext, mode):
        net, x = make()
        balance, optimizer = mtl_core.Balancer("famo", net.shared, 2), torch.optim.SGD(net.parameters(), lr=0.1)
        early = net.losses(net.features(x))
        balance.backward(early)
        optimizer.step()

        def again(net: Net = net, x: Tensor = x, context: Any = context) -> list[Tensor]:
            with context():
                return net.losses(net.features(x))

        balance.after_step(again)
        found.append(balance.smto.logits.clone())
        assert not balance.smto.logits.requires_grad and not balance.smto.improvement.requires_grad
        for old in (lambda early=early: early, lambda early=early, again=again: [again()[0], early[1]]):
            balance.backward(net.losses(net.features(x)))
            optimizer.step()
            with pytest.raises(ValueError, match="after_step gives losses that were there before"), context():
                balance.after_step(old)
    assert bool(found[0].any())
    assert_close(found[1], found[0], rtol=0, atol=0)


def test_losses_that_were_there_before_are_refused() -> None:
    """They would say that nothing changes."""
    net, x = make()
    balance = mtl_core.Balancer("famo", net.shared, 2)
    losses = net.losses(net.features(x))
    balance.backward(losses)
    with pytest.raises(ValueError, match="losses that were there before; it has to compute them anew"):
        stepped(balance)
        balance.after_step(lambda: losses)
    for key in ("auto_lambda", "modo", "sdmgrad"):
        losses = net.losses(net.features(x))
        with pytest.raises(ValueError, match="losses that were there before"):
            mtl_core.Balancer(key, net.shared, 2, lr=0.1).backward(losses, second_batch=lambda kept=losses: kept)
        z = net.features(x.flip(0))  # of another batch, and yet too early: Auto-Lambda asks at other parameters
        early = net.losses(z)
        for function in (lambda early=early: early, lambda z=z: net.losses(z)):
            with pytest.raises(ValueError, match="losses that were there before"):
                losses = net.losses(net.features(x))
                mtl_core.Balancer(key, net.shared, 2, lr=0.1).backward(losses, second_batch=function)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("key", ["auto_lambda", "famo", "modo", "sdmgrad"])
def test_losses_that_are_not_finite_leave_the_method_as_it_was(key: str, value: float) -> None:
    """Those of a second batch, or of the look after the step, would stay in its state for good. What comes next is as
    if they had never been; a GradScaler does not take them for its own overflow."""
    loop, plain = Loop(key), Loop(key)
    loop.step(), plain.step()
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=2.0)):
        if key == "famo":
            loop.backward(2.0), plain.backward(2.0)
            loop.optimizer.step(), plain.optimizer.step()
            plain.balance.skip_step()
        before = copy.deepcopy(loop.balance.smto.state_dict())
        z, losses = loop.losses()

        def other() -> list[Tensor]:
            return [loop.losses()[1][0], loop.losses()[1][1] * value]

        where = "after_step" if key == "famo" else "second_batch"
        words = rf"{where} gives losses of tasks \['1'\] that are not finite.*as it was before.*next batch"
        with pytest.raises(NonFinite, match=words):
            if key == "famo":
                loop.balance.after_step(other)
            else:
                loop.balance.backward(losses, z, second_batch=other, scaler=scaler)
        assert_close(loop.balance.smto.state_dict(), before, rtol=0, atol=0)
        loop.balance.skip_step()
        assert_close(loop.balance.smto.state_dict(), before, rtol=0, atol=0)
        assert_close(loop.step(2.0), plain.step(2.0), rtol=0, atol=0)


@pytest.mark.parametrize("key", ["auto_lambda", "famo", "modo", "sdmgrad"])
def test_a_function_gives_losses_and_nothing_else(key: str) -> None:
    loop = Loop(key)
    where = "after_step" if key == "famo" else "second_batch"

    def once(function: Callable[[], Any]) -> None:
        z, losses = loop.losses()
        loop.balance.backward(losses, z, second_batch=function)
        stepped(loop.balance)
        loop.balance.after_step(function)

    for wrong, words in (
        (lambda: (loop.losses()[0], dict(zip("ab", loop.losses()[1], strict=True))), "task '0' is a tensor of shape"),
        (lambda: (0.5 * loop.losses()[1][0], {"a": loop.losses()[1][1]}), "task '1' is dict; expected a scalar tensor"),
        (lambda: [*loop.losses()[1], None], "3 losses for 2 tasks"),
        (lambda: None, "1 losses for 2 tasks"),
    ):
        with pytest.raises(ValueError, match=f"{where}: give a function of the losses alone.*{words}"):
            once(wrong)
    if key != "famo":
        for wrong in (torch.no_grad()(lambda: loop.losses()[1]), lambda: [x.detach() for x in loop.losses()[1]]):
            with pytest.raises(ValueError, match=r"second_batch gives losses without a graph.* no_grad\(\) or detach"):
                once(wrong)
        once(lambda: [loop.losses()[1][0], None])  # a task that is missing from it, before any last loss is known


def test_one_tensor_is_transformed() -> None:
    net, x = make()
    balance = mtl_core.Balancer("rotograd", net.shared, 2, lr=0.1, feature_shape=3)
    with pytest.raises(ValueError, match=r"balance.transform\(z, 0\): z is one tensor \[B, …\], not dict"):
        balance.transform(net.features(x), 0)


def test_gradnorm_refuses_a_last_matrix_that_no_loss_reaches() -> None:
    """As of a classifier that a network still holds. All lengths were 0, and the weights stayed equal."""
    network, heads = nn.ModuleDict({"body": nn.Linear(4, 3), "fc": nn.Linear(3, 10)}), [nn.Linear(3, 1) for _ in "ab"]

    def losses() -> list[Tensor]:
        z = network["body"](torch.ones(8, 4))
        return [head(z).square().mean() for head in heads]

    with pytest.raises(BadOption, match=r"last matrix of the shared part is \[10, 3\], and no loss reaches it"):
        mtl_core.Balancer("gradnorm", network.parameters(), 2).backward(losses())
    mtl_core.Balancer("gradnorm", network["body"].parameters(), 2).backward(losses())


def test_bayesagg_looks_at_targets_before_it_needs_them() -> None:
    """It collects them in its tenth epoch only; what they are is known in the first step."""
    trunk, heads = nn.Linear(4, 3), nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.Linear(3, 1)})
    given = {"likelihoods": ["softmax", "gaussian"], "feature_shape": 3, "heads": heads}
    classes, numbers = torch.ones(6, dtype=torch.int64), torch.ones(6, 1)
    for targets, words in (
        ([classes.double(), numbers], r"targets of task 0 are torch.float64 \[6\]; expected a class \(integer\)"),
        ([classes[:5], numbers], r"task 0 are torch.int64 \[5\]; expected a class \(integer\) for each of 6 samples"),
        ([classes, numbers[:5]], r"task 1 are torch.float32 \[5, 1\]; expected a number for each of 6 samples"),
    ):
        balance = mtl_core.Balancer("bayesagg_mtl", trunk.parameters(), **given)
        balance.begin_epoch()
        z = trunk(torch.ones(6, 4))
        losses = {"a": F.cross_entropy(heads["a"](z), classes), "b": F.mse_loss(heads["b"](z), numbers)}
        with pytest.raises(ValueError, match=words):
            balance.backward(losses, z, targets=targets)


def test_the_parts_of_a_step_begin_with_the_first() -> None:
    """`begin_step` before each forward pass, as the loop has it: the second look meets the masks of all parts."""
    net, x = make(dropout=0.5)
    balance = mtl_core.Balancer(build("famo", 2), net.shared)
    with balance.accumulate(2):
        for _ in range(2):
            balance.begin_step()
            balance.backward(net.losses(net.features(x)))
    stepped(balance)
    balance.after_step(
        lambda: (torch.stack(net.losses(net.features(x))) + torch.stack(net.losses(net.features(x)))) / 2
    )
    assert not balance.smto.improvement.any()


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_masks_that_the_device_draws_are_missed_too(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device with a generator of its own, played: the host's does not move while dropout draws there."""
    state = torch.zeros(1)
    monkeypatch.setattr(getattr(torch, kind), "get_rng_state", lambda *_: state.clone())
    monkeypatch.setattr(getattr(torch, kind), "set_rng_state", lambda value, *_: state.copy_(value))
    for begun in (False, True):
        net, x = make()
        balance = mtl_core.Balancer(build("famo", 2), net.shared)
        balance.device = torch.device(kind)
        met = []

        def losses(net: Net = net, x: Tensor = x, met: list[float] = met) -> list[Tensor]:
            met.append(float(state.add_(1)))
            return net.losses(net.features(x))

        if begun:
            balance.begin_step()
        balance.backward(losses())
        drawn = state.clone()
        if begun:
            stepped(balance)
            balance.after_step(losses)
            assert met[0] == met[1]
        else:
            with pytest.raises(Unmet, match=r"balance\.begin_step\(\) before the forward pass"):
                stepped(balance)
                balance.after_step(losses)
        assert torch.equal(state, drawn)


def test_the_second_batch_leaves_no_trace() -> None:
    """But of the random generator, which goes on: what draws a batch of its own must not draw it again."""
    net, x = make(dropout=0.5)
    balance = mtl_core.Balancer("auto_lambda", net.shared, 2, lr=0.1)
    z = net.features(x)
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    balance.backward(net.losses(z), z, second_batch=lambda: net.losses(net.features(x.flip(0))))
    assert_close(net.state_dict(), before, rtol=0, atol=0)
    assert not torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("key", ["auto_lambda", "modo", "sdmgrad"])
def test_batches_that_are_drawn_are_new_ones(key: str) -> None:
    net, x = make()
    drawn = list[list[int]]()

    def losses() -> list[Tensor]:
        drawn.append(torch.randperm(1000)[:8].tolist())
        return net.losses(net.features(x))

    balance = mtl_core.Balancer(key, net.shared, 2, lr=0.1)
    for _ in range(2):
        balance.backward(losses(), second_batch=losses)
    assert len(drawn) == (4 if key == "auto_lambda" else 6) == len({*map(tuple, drawn)})


@pytest.mark.parametrize("key", ["auto_lambda", "modo", "sdmgrad"])
def test_the_second_batch_is_seen_under_the_autocast_of_the_call(key: str) -> None:
    net, x = nn.Linear(6, 8), torch.randn(16, 6)
    for autocast in (False, True):
        balance, met = mtl_core.Balancer(key, net.parameters(), 2, lr=0.1), []

        def losses(met: list[Any] = met) -> list[Tensor]:
            z = net(x)
            met.append(z.dtype)
            return [z.float().square().mean(), z.float().abs().mean()]

        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            balance.backward(losses(), second_batch=losses)
        assert len(met) > 1 and set(met) == {torch.bfloat16 if autocast else torch.float32}


def test_a_step_refuses_a_compiled_model() -> None:
    """It calls encoder and heads, which torch.compile(model) leaves as they are."""
    model = MultiTaskModel(nn.Linear(2, 2), {"a": nn.Linear(2, 1)})
    with pytest.raises(ValueError, match=r"compile model\.encoder and heads"):
        Step(torch.compile(model), [F.mse_loss], torch.ones(1, 2), [torch.ones(1, 1)])  # type: ignore[arg-type]


# -- a GradScaler ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["db_mtl", "edm", "imtl_l"])
def test_an_overflow_leaves_the_method_as_it_was(key: str) -> None:
    """A factor of 1e38 makes gradients infinite: the optimizer's step is skipped, the factor falls, the state stays."""
    net, x = make()
    net.float()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    balance = mtl_core.Balancer(key, net.shared, 2, lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=3e38)
    before, weights = copy.deepcopy(balance.smto.state_dict()), copy.deepcopy(net.state_dict())
    z = net.features(x)
    result = balance.backward([1000 * loss for loss in net.losses(z)], z, scaler=scaler)
    assert result.flags == ("overflow",)
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() < 2e38
    assert_close([p for p in net.parameters()], [weights[name] for name, _ in net.named_parameters()])
    assert_close(balance.smto.state_dict(), before)
    with pytest.raises(NonFinite):
        balance.backward([loss * torch.inf for loss in net.losses(net.features(x))], scaler=scaler)


def test_an_overflow_in_one_part_of_a_step_leaves_the_method_as_it_was() -> None:
    """The scaler leaves out the whole step; so nothing has moved the method's own parameters, and that is no mistake.
    The parts after the overflow must not be remembered either."""
    for key in ("uw", "imtl_l"):
        net, x = make()
        net.float()
        balance = mtl_core.Balancer(key, net.shared, 2, lr=0.1, likelihoods=["gaussian", "gaussian"])
        groups: list[Any] = [{"params": list(net.parameters())}, *balance.parameters()]
        optimizer, scaler = torch.optim.SGD(groups, lr=0.1), torch.amp.GradScaler("cpu", init_scale=1e30)
        before = copy.deepcopy(balance.smto.state_dict())
        for sizes, left_out in (((1e12, 1), True), ((1, 1), False)):
            optimizer.zero_grad()
            with balance.accumulate(2):
                for size in sizes:
                    z = net.features(x)
                    result = balance.backward([size * loss for loss in net.losses(z)], z, scaler=scaler)
            assert result.flags == ()
            scaler.step(optimizer)
            scaler.update()
            now = balance.smto.state_dict()
            assert all(torch.equal(v, now[k]) for k, v in before.items() if isinstance(v, Tensor)) == left_out


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_what_is_forgotten_is_named_at_the_next_backward() -> None:
    """The first step cannot know; a step size of 0 moves nothing and is none of it."""
    net, x = make()

    def once(balance: Any) -> None:
        z = net.features(x)
        balance.backward([loss.square() for loss in net.losses(z)], z)

    balance = mtl_core.Balancer("famo", net.shared, 2)
    once(balance)
    with pytest.raises(Unmet, match=r"balance\.after_step.*not come after the last step"):
        once(balance)

    balance = mtl_core.Balancer("ldc_mtl", net.shared, 2)
    own = balance.parameters()
    once(balance)
    with pytest.raises(Unmet, match=r"balance\.parameters.*nothing has moved them"):
        once(balance)
    torch.optim.SGD(own, lr=0.0).step()
    once(balance)
    torch.optim.SGD(own, lr=0.0).step()
    with balance.accumulate(2):
        once(balance)
        once(balance)
    for parts in ("4", 2.5):
        words = f"accumulate\\({parts!r}\\): expected a whole number, at least one part"
        with pytest.raises(BadOption, match=words), balance.accumulate(parts):
            pass
    with pytest.raises(BadOption, match="at least one part"), balance.accumulate(0):
        once(balance)
    torch.optim.SGD(own, lr=0.0).step()
    with pytest.raises(Unmet, match=r"accumulate\(2\): the last step has had 1 of 2 calls"), balance.accumulate(2):
        once(balance)


def test_a_step_may_be_left_out() -> None:
    """Its gradients were not finite, say: neither the look after it nor a moved parameter is missed."""
    net, x = make()
    for key in ("famo", "ldc_mtl"):
        balance = mtl_core.Balancer(key, net.shared, 2)
        balance.parameters()
        for _ in range(3):
            z = net.features(x)
            balance.backward([loss.square() for loss in net.losses(z)], z)
            balance.skip_step()


STATEFUL = ["auto_lambda", "db_mtl", "excess_mtl", "gradnorm", "imtl_l", "moco", "nash_mtl", "gradvac", "gated"]


@pytest.mark.parametrize("key", STATEFUL)
def test_a_step_that_is_left_out_leaves_the_method_as_it_was(key: str) -> None:
    """The losses are finite, their gradients are not. A method that sees it says so, and is as it was, too."""
    net, x = make()
    balance = mtl_core.Balancer(key, net.shared, 2, lr=0.1)
    balance.begin_epoch()

    def once(spoilt: bool) -> None:
        def losses() -> list[Tensor]:
            z = net.features(x)
            spoiling = (0 * z["mean"]).sqrt().sum() if spoilt else 0.0
            return [loss + 1 + spoiling for loss in net.losses(z)]

        more = losses if "second_batch" in balance.needs else None
        net.zero_grad()
        balance.backward(losses(), second_batch=more)

    def state() -> Any:
        return copy.deepcopy([balance.smto.state_dict(), balance.sums, balance.counts])

    once(spoilt=False)
    stepped(balance)
    before = state()
    try:
        once(spoilt=True)
    except NonFinite:
        pass
    else:
        balance.skip_step()
    assert_close(state(), before, rtol=0, atol=0)
    balance.skip_step()
    assert_close(state(), before, rtol=0, atol=0)
    once(spoilt=False)
    moved = state()
    torch.optim.SGD(net.shared, lr=0.0).step()
    balance.skip_step()  # before a backward: the last step has been taken, and stays
    assert_close(state(), moved, rtol=0, atol=0)
    with pytest.raises(Unmet, match="after the last part"), balance.accumulate(2):
        once(spoilt=False)
        balance.skip_step()


@pytest.mark.parametrize("key", ["uw", "ldc_mtl", "famo", "rotograd"])
@pytest.mark.parametrize("how", ["fused", "by hand"])
def test_any_optimizer_may_move_what_it_is_given(key: str, how: str) -> None:
    """A fused one leaves no trace in versions and, in a warm-up from 0, none in values; a loop by hand changes .data.
    Neither is a forgotten one."""
    torch.manual_seed(0)
    trunk, heads = nn.Linear(3, 4), nn.ModuleList([nn.Linear(4, 1), nn.Linear(4, 1)])
    balance = mtl_core.Balancer(key, trunk.parameters(), 2, lr=0.1, likelihoods=["gaussian"] * 2, feature_shape=4)
    groups: list[Any] = [{"params": [*trunk.parameters(), *heads.parameters()]}, *balance.parameters()]
    optimizer = torch.optim.Adam(groups, fused=True)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    x = torch.randn(5, 3)

    def losses() -> list[Tensor]:
        z = trunk(x)
        return [head(balance.transform(z, k)).square().mean() for k, head in enumerate(heads)]

    for _ in range(3):
        optimizer.zero_grad()
        z = trunk(x)
        found = [head(balance.transform(z, k)).square().mean() for k, head in enumerate(heads)]
        balance.backward(found, z)
        if how == "by hand":
            for group in optimizer.param_groups:
                for p in group["params"]:
                    p.data.sub_(0.1 * p.grad)
        else:
            optimizer.step()
        balance.after_step(losses)
    with pytest.raises(Unmet):
        for _ in range(2):
            z = trunk(x)
            found = [head(balance.transform(z, k)).square().mean() for k, head in enumerate(heads)]
            balance.backward(found, z)


def test_what_holds_no_tensor_that_is_seen_is_refused() -> None:
    @dataclass
    class Output:
        hidden: Tensor

    net, x = make()
    z = net.features(x)
    balance = mtl_core.Balancer("mgda_ub", net.shared, 2)
    with pytest.raises(ValueError, match="no tensor is looked for inside Output: give its tensors"):
        balance.backward(net.losses(z), [z["mean"], Output(z["states"][0])])
    with pytest.raises(ValueError, match="a feature has no dimensions"):
        balance.backward(net.losses(z), z["mean"].sum())
    query = nn.Parameter(torch.ones(2))
    made = 2 * query
    with pytest.raises(ValueError, match="one of the features is made of another"):
        mtl_core.Balancer("mgda_ub", [query], 2).backward([made.sum(), (made * query).sum()], [made, query])


def test_masks_of_an_earlier_step_serve_no_later_one() -> None:
    net, x = make(dropout=0.5)
    balance = mtl_core.Balancer(build("famo", 2), net.shared)
    balance.begin_step()
    for first in (True, False):
        z = net.features(x)
        balance.backward(net.losses(z), z)
        if first:
            stepped(balance)
            balance.after_step(lambda: net.losses(net.features(x)))
        else:
            with pytest.raises(Unmet, match=r"balance\.begin_step\(\) before the forward pass"):
                stepped(balance)
                balance.after_step(lambda: net.losses(net.features(x)))


def test_no_parameter_below_the_features_is_left_without_a_gradient() -> None:
    """Those that `shared` lacks are named, whether they come before it, next to it, or were unfrozen later."""
    torch.manual_seed(0)
    first, second, x = nn.Linear(3, 4), nn.Linear(4, 2), torch.randn(5, 3)
    for key in ("cagrad", "unit_scal", "mgda_ub"):
        z = second(first(x).relu())
        with pytest.raises(ValueError, match=r"inputs \(of shapes (\[4, 3\], \[4\]|\[4\], \[4, 3\])\) not in"):
            mtl_core.Balancer(key, second.parameters(), 2).backward([z.sum(), z.square().sum()], z)
        assert not grads(first) and not grads(second)
    first.requires_grad_(False)
    balance = mtl_core.Balancer("edm", second.parameters(), 2)
    z = second(first(x).relu())
    balance.backward([z.sum(), z.square().sum()], z)
    first.requires_grad_(True)
    z = second(first(x).relu())
    with pytest.raises(ValueError, match="not in `shared` and would get no gradient"):
        balance.backward([z.sum(), z.square().sum()], z)


def test_heads_and_targets_come_by_name_or_in_order() -> None:
    """BayesAgg looks at each head together with its task's targets: another order of heads moves no gradient."""
    found = []
    for order, by_name in (("ab", True), ("ba", True), ("ab", False)):
        torch.manual_seed(0)
        trunk, x = nn.Linear(4, 3), torch.randn(6, 4)
        both = {"a": nn.Linear(3, 2), "b": nn.Linear(3, 4)}
        heads = nn.ModuleDict({name: both[name] for name in order})
        targets = {"a": torch.randint(2, (6,)), "b": torch.randint(4, (6,))}
        balance = mtl_core.Balancer(
            build("bayesagg_mtl", 2, warm_up=0),
            trunk.parameters(),
            tasks=["a", "b"],
            likelihoods=["softmax"] * 2,
            feature_shape=[3],
            heads=heads,
        )
        for _ in range(3):
            balance.begin_epoch()
            z = trunk(x)
            losses = {name: F.cross_entropy(heads[name](z), y) for name, y in targets.items()}
            balance.backward(losses, z, targets=targets if by_name else list(targets.values()))
        found.append(grads(trunk))
    assert_close(found[0], found[1])
    assert_close(found[0], found[2])
    z = trunk(x)
    losses = [F.cross_entropy(heads[name](z), y) for name, y in targets.items()]
    for words, given in (("1 targets for 2 tasks", [targets["a"]]), ("targets of \\['a', 'c'\\]", {"a": x, "c": x})):
        with pytest.raises(ValueError, match=words):
            balance.backward(losses, z, targets=given)
    with pytest.raises(Unmet, match="bayesagg_mtl needs"):
        balance.backward(losses, z, targets=[targets["a"], None])
    with pytest.raises(BadOption, match="heads \\['a', 'b'\\] for tasks \\['a', 'c'\\]"):
        mtl_core.Balancer("edm", trunk.parameters(), tasks=["a", "c"], heads=heads)
    with pytest.raises(BadOption, match="heads in a Linear; give one per task, by name or in order"):
        mtl_core.Balancer("edm", trunk.parameters(), tasks=["a", "b"], heads=both["a"])
    with pytest.raises(BadOption, match="2 heads for 3 tasks; give one per task"):
        mtl_core.Balancer("edm", trunk.parameters(), tasks=["a", "b", "c"], heads=list(both.values()))
    with pytest.raises(BadOption, match="2 tasks for 3 tasks; give one per task"):
        mtl_core.Balancer("edm", trunk.parameters(), 3, tasks=["a", "b"])


@pytest.mark.parametrize("named", ["dict", "modules", "in order", "list"])
def test_heads_say_how_many_tasks_there_are(named: str) -> None:
    """And what they are called, where they come by name; a name may have a dot, or be one that a module has."""
    one, other = nn.Linear(3, 2), nn.Linear(3, 4)
    ways: dict[str, Any] = {
        "dict": {"depth.abs": one, "type": other},
        "modules": nn.ModuleDict({"depth": one, "normals": other}),
        "in order": nn.ModuleList([one, other]),
        "list": [one, other],
    }
    balance = mtl_core.Balancer("edm", [nn.Parameter(torch.ones(2))], heads=ways[named])
    assert balance.num_tasks == 2 and list(balance.model.heads.values()) == [one, other]
    assert balance.tasks == (list(ways[named]) if named in ("dict", "modules") else None)


def test_heads_may_be_functions() -> None:
    """A method that reads the layers of heads refuses them; others have no use for heads."""
    trunk, weight = nn.Linear(3, 4), nn.Parameter(torch.ones(4, 2))
    heads = {"a": lambda z: z @ weight, "b": nn.Linear(4, 1)}
    balance = mtl_core.Balancer("cagrad", trunk.parameters(), heads=heads)
    assert balance.tasks == ["a", "b"] and list(balance.model.heads) == ["1"]
    z = trunk(torch.randn(5, 3))
    balance.backward({name: head(z).square().mean() for name, head in heads.items()}, z)
    assert weight.grad is not None and weight.grad.any()
    needed = {"likelihoods": ["gaussian"] * 2, "feature_shape": 4, "lr": 0.1}
    with pytest.raises(BadOption, match=r"bayesagg_mtl takes each head as a Module; given: \[<function .*lambda"):
        mtl_core.Balancer("bayesagg_mtl", trunk.parameters(), heads=heads, **needed)
    with pytest.raises(BadOption, match=r"cagrad takes each head as a Callable; given: \[3\]"):
        mtl_core.Balancer("cagrad", trunk.parameters(), heads=[heads["b"], 3])


def test_what_all_losses_use_is_asked_for_once() -> None:
    """Without features, a part of the trunk that is not in `shared` is trained as heads are: the user is told. A head
    of one task, and layers behind the features, are nobody's mistake."""
    torch.manual_seed(0)
    stem, trunk, heads = nn.Linear(3, 4), nn.Linear(4, 4), [nn.Linear(4, 1), nn.Linear(4, 1)]
    z = trunk(stem(torch.ones(5, 3)).relu())
    losses = [head(z).square().mean() for head in heads]
    balance = mtl_core.Balancer("cagrad", trunk.parameters(), 2)
    with pytest.warns(UserWarning, match=r"all losses use parameters \(shapes \[.*4, 3\].* not in `shared`; they"):
        balance.backward(losses)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        balance.backward([head(trunk(stem(torch.ones(5, 3)))).square().mean() for head in heads])
        z = trunk(stem(torch.ones(5, 3)))
        shared = [*stem.parameters(), *trunk.parameters()]
        mtl_core.Balancer("cagrad", shared, 2).backward([head(z).square().mean() for head in heads])
        z, common = trunk(stem(torch.ones(5, 3))), nn.Linear(4, 4)
        mtl_core.Balancer("cagrad", shared, 2).backward([head(common(z)).square().mean() for head in heads], z)


def test_heads_among_the_shared_parameters_are_named_once() -> None:
    """As of shared=network.parameters(). What lies below the features, too, as a tied matrix, and a layer above them
    that all losses use, are nobody's mistake; neither is what only one loss of a batch can tell."""

    def once(balance: mtl_core.Balancer, kind: str) -> None:
        z = trunk(x)
        above = common(z).tanh()
        losses = [head(above).square().mean() for head in heads]
        if kind == "tied":
            losses[1] = losses[1] + (z @ trunk.weight).square().mean()
        balance.backward([losses[0], None] if kind == "one" else losses, z)

    torch.manual_seed(0)
    trunk, common, heads, x = nn.Linear(3, 4), nn.Linear(4, 6), [nn.Linear(6, 1), nn.Linear(6, 2)], torch.ones(5, 3)
    network = nn.ModuleList([trunk, common, *heads])
    for key in ("cagrad", "unit_scal"):
        balance = mtl_core.Balancer(key, network.parameters(), 2)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            once(balance, "one")
        with pytest.warns(UserWarning, match="only some losses use parameters in `shared`.* above the feat") as found:
            once(balance, "plain")
        shapes = str(found[0].message)
        assert (
            all(s in shapes for s in ("[1]", "[2]", "[1, 6]", "[2, 6]")) and "[4" not in shapes and "[6" not in shapes
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            once(balance, "plain")
            for kind in ("plain", "tied"):
                once(mtl_core.Balancer(key, [*trunk.parameters(), *common.parameters()], 2), kind)


def test_the_reasons_why_nothing_shared_is_met_are_named() -> None:
    """All is frozen; a copy without its network; an iterator that has been used up."""
    net, x = make()
    balance = mtl_core.Balancer("edm", net.shared, 2)
    for features in (True, False):
        z = net.features(x)
        with pytest.raises(ValueError, match=r"depends on a shared parameter.*copy\.deepcopy\(\(network, balance, opt"):
            copy.deepcopy(balance).backward(net.losses(z), z if features else None)
    net, balance = copy.deepcopy((net, balance))
    balance.backward(net.losses(net.features(x)))
    for p in net.shared:
        p.requires_grad_(False)
    for features in (True, False):
        z = net.features(x)
        with pytest.raises(ValueError, match=r"all shared parameters are frozen.*unfreeze some, or train the heads"):
            balance.backward(net.losses(z), z if features else None)
    given = nn.Linear(2, 2).parameters()
    torch.optim.SGD(given, lr=0.1)
    with pytest.raises(BadOption, match=r"list\(trunk\.parameters\(\)\): an iterator serves once"):
        mtl_core.Balancer("edm", given, 2)


def test_the_rate_of_an_epoch_is_one_number() -> None:
    """A scheduler gives a list. Nothing has begun then."""
    balance = mtl_core.Balancer("dwa", nn.Linear(2, 2).parameters(), 2)
    for lr in ([0.1], "0.1", (0.1,)):
        with pytest.raises(BadOption, match=r"begin_epoch\(lr=.*\): expected one number: .*get_last_lr\(\)\[0\]"):
            balance.begin_epoch(lr=lr)  # type: ignore[arg-type]
    assert balance.epoch == 0
    balance.begin_epoch(lr=torch.tensor(0.1))  # type: ignore[arg-type]
    assert balance.epoch == 1


def test_the_optimizer_that_is_asked_for_takes_groups() -> None:
    """Parameters and groups in one list are refused by torch."""
    net, x = make()
    with pytest.raises(Unmet, match="ldc_mtl needs") as refused:
        mtl_core.Balancer("ldc_mtl", net.shared, 2).backward(net.losses(net.features(x)))
    balance = mtl_core.Balancer("ldc_mtl", net.shared, 2)
    call = str(refused.value).split(": ", 1)[1].rstrip(".")
    optimizer = eval(call, {"Adam": torch.optim.Adam, "network": net, "balance": balance})
    assert len(optimizer.param_groups) > 1


def test_what_comes_in_a_wrong_order_is_refused() -> None:
    """after_step before the optimizer or inside a step with parts; a block in a block; a state before a step's end."""
    net, x = make()
    balance = mtl_core.Balancer("famo", net.shared, 2)
    balance.backward(net.losses(net.features(x)))
    with pytest.raises(Unmet, match=r"after_step comes after optimizer\.step\(\); nothing has moved"):
        balance.after_step(lambda: net.losses(net.features(x)))
    with pytest.raises(Unmet, match="between backward and after_step"):
        balance.state_dict()
    stepped(balance)
    balance.after_step(lambda: net.losses(net.features(x)))
    balance.state_dict()
    with pytest.raises(Unmet, match="has had 2 of 3"), balance.accumulate(3):
        with pytest.raises(BadOption, match="no block in another"), balance.accumulate(2):
            pass
        for _ in range(2):
            balance.backward(net.losses(net.features(x)))
        stepped(balance)
        for refused in (balance.state_dict, lambda: balance.after_step(lambda: net.losses(net.features(x)))):
            with pytest.raises(Unmet, match=r"inside accumulate|comes after optimizer"):
                refused()


def test_tasks_of_an_accumulated_step_count_where_they_are() -> None:
    """One task per part: FAMO compares each task's own loss, 2 and 50 before, 1 and 49 after, and no mix of both."""
    net, x = make()
    balance = mtl_core.Balancer("famo", net.shared, tasks=["a", "b"])
    after = torch.tensor([1.0, 49.0], dtype=torch.float64)
    for _ in range(2):
        with balance.accumulate(2):
            for k, (name, value) in enumerate({"a": 2.0, "b": 50.0}.items()):
                loss = net.losses(net.features(x))[k]
                balance.backward({name: loss / loss.detach() * value})
        stepped(balance)
        balance.after_step(lambda: dict(zip("ab", after, strict=True)))
        improvement = balance.smto.improvement
        assert_close(improvement, torch.tensor([2.0, 50.0], dtype=torch.float64).log() - after.log())


def test_gradnorm_wants_every_task_in_its_first_batch() -> None:
    net, x = make()
    balance = mtl_core.Balancer("gradnorm", net.shared, tasks=["a", "b"])
    a, b = net.losses(net.features(x))
    with pytest.raises(Unmet, match='needs every task in its first batch; or its option start="first_epoch"'):
        balance.backward({"a": a})
    balance.backward({"a": a, "b": b})
    balance.backward({"a": net.losses(net.features(x))[0]})


def test_a_state_is_a_copy() -> None:
    """Of several Balancers that go on from one, each counts by itself, and what is kept does not change; a step that
    waited for its second look is over."""
    net, x = make()

    def new() -> mtl_core.Balancer:
        return mtl_core.Balancer("famo", net.shared, 2)

    first = new()
    first.backward(net.losses(net.features(x)))
    stepped(first)
    first.after_step(lambda: [loss.detach() for loss in net.losses(net.features(x))])
    state = first.state_dict()
    before = copy.deepcopy((state["sums"], state["counts"], state["last"]))
    for balance in (new(), new(), first):
        balance.load_state_dict(state)
        balance.backward(net.losses(net.features(x)))
        assert balance.counts.tolist() == [2, 2]
    assert_close((state["sums"], state["counts"], state["last"]), before, rtol=0, atol=0)
    first.load_state_dict(state)
    first.backward(net.losses(net.features(x)))


class Loop:
    """A method's loop over a trunk and two heads."""

    def __init__(self, key: str) -> None:
        torch.manual_seed(0)
        self.layers, self.x = nn.ModuleList([nn.Linear(3, 5), nn.Linear(5, 1), nn.Linear(5, 1)]), torch.randn(4, 3)
        self.trunk, *self.heads = self.layers
        smto = build(key, 2, **({"weights": [0.3, 0.7]} if key == "fixed" else {}))
        given = {"lr": 0.01, "heads": self.heads, "likelihoods": ["gaussian"] * 2, "feature_shape": 5}
        self.balance = mtl_core.Balancer(smto, self.trunk.parameters(), **given)
        learnt = [p for group in self.balance.parameters() for p in group["params"]]
        self.optimizer = torch.optim.SGD([*self.layers.parameters(), *learnt], lr=0.01)
        self.balance.begin_epoch()

    def losses(self, factor: float = 1.0) -> tuple[Tensor, list[Tensor]]:
        z = self.trunk(self.x)
        seen = [self.balance.transform(z, k) for k in range(2)]
        return z, [factor * (head(own) - 1).square().mean() for head, own in zip(self.heads, seen, strict=True)]

    def backward(self, factor: float = 1.0, missing: Sequence[int] = (), scaler: Any = None) -> Tensor:
        self.optimizer.zero_grad()
        self.balance.begin_step()
        z, losses = self.losses(factor)
        there = [None if k in missing else loss for k, loss in enumerate(losses)]
        given = {"targets": [torch.ones(4, 1)] * 2, "second_batch": lambda: self.losses(factor)[1], "scaler": scaler}
        return self.balance.backward(there, z, **given).weights

    def step(self, factor: float = 1.0, missing: Sequence[int] = ()) -> Tensor:
        weights = self.backward(factor, missing)
        self.optimizer.step()
        self.balance.after_step(lambda: self.losses(factor)[1])
        return weights


def numbers(state: dict[str, Any]) -> list[Any]:
    """What a state holds besides names."""
    return [value for name, value in state.items() if name not in ("method", "tasks")]


def own_keys() -> list[str]:
    """Methods that a loop can have as they come."""
    return [key for key in keys() if "inner" not in options(key) or key == "auto_lambda"]


@pytest.mark.parametrize("key", own_keys())
def test_a_state_that_is_kept_in_memory_is_of_one_moment(key: str) -> None:
    """Two steps later it is what it was, and from it the same comes again."""
    loop = Loop(key)
    loop.step()
    state, layers = loop.balance.state_dict(), copy.deepcopy(loop.layers.state_dict())
    before, found = copy.deepcopy(state), [loop.step(2.0), loop.step(3.0)]
    assert_close(numbers(state), numbers(before), rtol=0, atol=0, equal_nan=True)
    loop.balance.load_state_dict(state)
    loop.layers.load_state_dict(layers)
    assert_close([loop.step(2.0), loop.step(3.0)], found, rtol=0, atol=0, equal_nan=True)
    assert_close(numbers(state), numbers(before), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("how", ["skip_step", "overflow"])
@pytest.mark.parametrize("key", [key for key in own_keys() if key not in ("bayesagg_mtl", "gradnorm")])
def test_a_step_that_is_left_out_is_not_the_last_one_of_a_missing_task(key: str, how: str) -> None:
    """Its losses, a hundred times as large, are not what a task had that is then missing from a batch."""
    plain, other = Loop(key), Loop(key)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127) if how == "overflow" else None
    plain.step(), other.step()
    other.backward(100.0, scaler=scaler)
    other.balance.skip_step()
    assert_close(other.balance.last, plain.balance.last, rtol=0, atol=0)
    assert_close(other.backward(missing=[1]), plain.backward(missing=[1]), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("key", ["moco", "db_mtl"])
def test_a_fused_optimizer_that_leaves_a_step_out_has_moved_nothing(key: str, fused: bool) -> None:
    """Something else has made a gradient infinite; a GradScaler calls the optimizer, which sees it and does nothing."""
    loop, scaler = Loop(key), torch.amp.GradScaler("cpu")
    optimizer = torch.optim.Adam(loop.layers.parameters(), fused=fused)
    for spoilt in (False, True):
        before, weight = loop.balance.state_dict(), loop.trunk.weight.clone()
        loop.backward(scaler=scaler)
        if spoilt:
            loop.trunk.weight.grad[0, 0] = torch.inf
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(weight, loop.trunk.weight) == spoilt
        if not spoilt:
            moved = loop.balance.state_dict()
            loop.balance.skip_step()  # too late: the step has been taken, and stays
            assert_close(numbers(loop.balance.state_dict()), numbers(moved), rtol=0, atol=0)
    loop.balance.skip_step()
    assert_close(loop.balance.state_dict()["smtos"], before["smtos"], rtol=0, atol=0)


@pytest.mark.parametrize("key", ["moco", "db_mtl"])
def test_what_was_looked_at_between_backward_and_skip_step_is_no_step(key: str) -> None:
    """Averaged weights are put in to look at them, and taken out."""
    loop = Loop(key)
    loop.step()
    before = loop.balance.state_dict()
    loop.backward(2.0)
    with torch.no_grad():
        loop.trunk.weight.mul_(2).div_(2)
    loop.balance.skip_step()
    assert_close(loop.balance.state_dict()["smtos"], before["smtos"], rtol=0, atol=0)


class Kept(torch.autograd.Function):
    """A sum whose gradient is a buffer of its own."""

    ones = torch.ones(3)

    @staticmethod
    def forward(ctx: Any, w: Tensor) -> Tensor:
        return w.sum()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        return Kept.ones


@pytest.mark.parametrize("key", own_keys())
def test_a_gradient_is_nobody_elses_memory(key: str) -> None:
    """A number added to a loss has the loss's weight as its gradient; some layers give a buffer of their own."""
    loop, number, buffered = Loop(key), nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(3))
    plain = loop.losses

    def losses(factor: float = 1.0) -> tuple[Tensor, list[Tensor]]:
        z, (first, second) = plain(factor)
        return z, [first + number + Kept.apply(buffered), second]

    loop.losses = losses  # type: ignore[method-assign]
    weights = loop.backward()
    before = copy.deepcopy([weights, loop.balance.smto.state_dict()])
    for p in (number, buffered):
        assert p.grad is not None
        p.grad.zero_()
    assert_close([weights, loop.balance.smto.state_dict()], before, rtol=0, atol=0, equal_nan=True)
    assert Kept.ones.all()


def test_a_copy_of_a_balancer_knows_what_an_optimizer_moves() -> None:
    """By a step size of 0, which changes no value and, fused, no version."""
    loop = copy.deepcopy(Loop("famo"))
    loop.optimizer = torch.optim.Adam(loop.layers.parameters(), lr=0.0, fused=True)
    for _ in range(2):
        loop.step()


@pytest.mark.parametrize("key", ["auto_lambda", "famo", "gradnorm", "imtl_l"])
def test_complex_parameters_are_pairs_of_real_ones(key: str) -> None:
    """To methods that form no Gramian. Auto-Lambda multiplies gradients of two batches; what is learnt is real."""
    torch.manual_seed(0)
    start, x = torch.randn(3, 5, 2), torch.randn(4, 8, 3, dtype=torch.complex64)
    layers, found = nn.ModuleList([nn.Linear(5, 1), nn.Linear(5, 1)]), []
    for w in (nn.Parameter(torch.view_as_complex(start.clone())), nn.Parameter(start.clone())):
        heads = copy.deepcopy(layers)
        balance = mtl_core.Balancer(key, [w], 2, lr=0.1)
        balance.begin_epoch()
        learnt = [p for group in balance.parameters() for p in group["params"]]
        optimizer = torch.optim.SGD([w, *heads.parameters(), *learnt], lr=0.1)

        def losses(batch: Tensor, w: Tensor = w, heads: nn.ModuleList = heads) -> list[Tensor]:
            z = (batch @ (w if w.is_complex() else torch.view_as_complex(w))).abs()
            return [(k + 1) * (head(z) - k).square().mean() for k, head in enumerate(heads)]

        for batch, another in itertools.pairwise(x):
            optimizer.zero_grad()
            balance.backward(losses(batch), second_batch=lambda other=another, of=losses: of(other))  # type: ignore[misc]
            optimizer.step()
            balance.after_step(lambda batch=batch, of=losses: of(batch))  # type: ignore[misc]
        found.append([torch.view_as_real(w) if w.is_complex() else w, balance.last])
    assert_close(found[0], found[1])


def test_targets_come_one_per_task() -> None:
    """A tensor of two rows is not two targets."""
    loop = Loop("bayesagg_mtl")
    z, losses = loop.losses()
    with pytest.raises(ValueError, match=r"targets in one tensor \[2, 2\]; give one per task"):
        loop.balance.backward(losses, z, targets=torch.ones(2, 2))


def test_a_state_of_something_else_is_refused() -> None:
    net, _ = make()
    groups = [list(net.embedding.parameters()), list(net.lstm.parameters())]
    saved = mtl_core.Balancer("edm", num_tasks=2, groups=groups).state_dict()
    with pytest.raises(ValueError, match="saved with 2 groups; there are 1 here"):
        mtl_core.Balancer("edm", net.shared, 2).load_state_dict(saved)
    cagrad = mtl_core.Balancer("cagrad", net.shared, tasks=["a", "b"])
    for other, words in (
        (mtl_core.Balancer("famo", net.shared, 2), r"method = \['cagrad', 2\]; this Balancer has \['famo', 2\]"),
        (mtl_core.Balancer("cagrad", net.shared, 3), r"method = \['cagrad', 2\]; this Balancer has \['cagrad', 3\]"),
        (mtl_core.Balancer("cagrad", net.shared, tasks=["b", "a"]), r"tasks = \['a', 'b'\]; this Balancer has"),
    ):
        with pytest.raises(ValueError, match=words):
            other.load_state_dict(cagrad.state_dict())
    with pytest.raises(ValueError, match="this state has method = None"):
        cagrad.load_state_dict({})


def test_what_cannot_be_worked_with_is_refused_before_anything_moves() -> None:
    net, x = make()
    z = net.features(x)
    losses = net.losses(z)
    balance = mtl_core.Balancer("edm", net.shared, 2)
    for error, words, given in (
        (ValueError, "3 losses for 2 tasks", {"losses": [*losses, losses[0]]}),
        (
            ValueError,
            "the loss of task '0' is a tensor of shape \\(2,\\)",
            {"losses": [torch.stack(losses), losses[1]]},
        ),
        (ValueError, "every task is missing", {"losses": [None, None]}),
        (ValueError, "the features carry no gradient", {"losses": losses, "features": z["mean"].detach()}),
        (ValueError, "on the features.*compile no whole network", {"losses": losses, "features": net.features(x)}),
        (ValueError, "name all: Balancer\\(…, tasks", {"losses": {"a": losses[0]}}),
        (ValueError, "no loss depends on a shared parameter", {"losses": [p.sum() for p in net.heads[0].parameters()]}),
        (ValueError, "1 losses for 2 tasks", {"losses": losses[0] + losses[1]}),
        (ValueError, "no tensor of floats is in the nest", {"losses": losses, "features": object()}),
        (ValueError, "1 targets for 2 tasks", {"losses": losses, "targets": 3}),
        (ValueError, "scaler=True: expected the torch.amp.GradScaler", {"losses": losses, "scaler": True}),
    ):
        with pytest.raises(error, match=words):
            balance.backward(**given)
    other, hidden = make()[0], checkpoint(net.norm, z["mean"].clone(), use_reentrant=True)
    for features in (hidden, None):
        with pytest.raises(ValueError, match="use_reentrant=False"):
            balance.backward([hidden.sum(), hidden.square().sum()], features)
    with pytest.raises(ValueError, match=r"no loss depends on a shared parameter.*FSDP"):
        mtl_core.Balancer("edm", other.shared, 2).backward(losses, z)
    with pytest.raises(ValueError, match="one tensor of features"):
        mtl_core.Balancer("graddrop", net.shared, 2).backward(losses, z)
    with pytest.raises(BadOption, match="how many tasks"):
        mtl_core.Balancer("edm", net.shared)
    with pytest.raises(BadOption, match="no trainable parameter"):
        mtl_core.Balancer("edm", [], 2)
    for shared, kind in ((net, "Net"), (net.named_parameters(), "tuple"), ([torch.ones(1)], "Tensor")):
        with pytest.raises(BadOption, match=f"expected shared parameters, not {kind}: shared=trunk"):
            mtl_core.Balancer("edm", shared, 2)
    with pytest.raises(ValueError, match=r"transform\(z, 'a'\): there are 2 tasks, and their names are None"):
        mtl_core.Balancer("edm", net.shared, 2).transform(z["mean"], "a")
    embedding, lstm = (list(part.parameters()) for part in (net.embedding, net.lstm))
    for groups in ([embedding, embedding], [lstm]):
        with pytest.raises(BadOption, match="one group for each shared parameter"):
            mtl_core.Balancer("edm", embedding, 2, groups=groups)
    balance = mtl_core.Balancer("edm", net.shared, 2, groups=[embedding, lstm, list(net.norm.parameters())])
    net.embedding.requires_grad_(False)
    with pytest.raises(ValueError, match="frozen or unfrozen since; make a new Balancer"):
        balance.backward(net.losses(net.features(x)))
    net.embedding.requires_grad_(True)
    with pytest.raises(BadOption, match="is no SMTO; give its key"):
        mtl_core.Balancer(object(), net.shared, 2)
    with pytest.raises(ValueError, match="a function that computes the losses, not their values"):
        mtl_core.Balancer("modo", net.shared, 2).backward(losses, second_batch=losses)
    with pytest.raises(BadOption, match="1 likelihoods for 2 tasks"):
        mtl_core.Balancer("uw", net.shared, 2, likelihoods=["softmax"])
    with pytest.raises(BadOption, match="made for 2 tasks"):
        mtl_core.Balancer(build("edm", 2), net.shared, 3)
    with pytest.raises(AttributeError, match="no attribute 'Balancers'"):
        mtl_core.Balancers  # noqa: B018
    assert not grads(net)


def test_what_needs_a_trainer_is_refused_before_the_first_step() -> None:
    smto = build("auto_lambda", 2, gradients="finite_difference")
    with pytest.raises(Unmet, match=r'auto_lambda needs a Step that runs the network itself.*take gradients="exact"'):
        mtl_core.Balancer(smto, [nn.Parameter(torch.ones(2))], lr=0.1)


def test_what_a_loss_is_comes_from_a_list() -> None:
    """BayesAgg took everything but a softmax for a squared error; a shape may be a number."""
    trunk = nn.Linear(4, 3)
    for key in ("bayesagg_mtl", "uw"):
        given: dict[str, Any] = {"feature_shape": 3, "heads": [nn.Linear(3, 2), nn.Linear(3, 1)]}
        with pytest.raises(BadOption, match=r"\['cross_entropy', 'mse'\]: .* 'softmax', 'gaussian' or 'laplace'"):
            mtl_core.Balancer(key, trunk.parameters(), 2, likelihoods=["cross_entropy", "mse"], **given)
        balance = mtl_core.Balancer(key, trunk.parameters(), 2, likelihoods=["softmax", "gaussian"], **given)
        assert balance.num_tasks == 2
        by_name = {"tasks": ["a", "b"], "likelihoods": {"b": "gaussian", "a": "softmax"}} | given
        named = mtl_core.Balancer(key, trunk.parameters(), **by_name)
        assert list(named.smto.likelihoods) == ["softmax", "gaussian"] == list(balance.smto.likelihoods)
        with pytest.raises(
            BadOption, match=r"likelihoods \['a'\] for tasks \['a', 'b'\]; give one per task, by its name"
        ):
            mtl_core.Balancer(key, trunk.parameters(), **by_name | {"likelihoods": {"a": "softmax"}})
        with pytest.raises(BadOption, match="softmax"):
            mtl_core.Balancer(key, trunk.parameters(), **by_name | {"likelihoods": {"a": "mse", "b": "softmax"}})
    with pytest.raises(Unmet, match="the shape of one sample's features"):
        mtl_core.Balancer("rotograd", trunk.parameters(), 2, lr=0.1, feature_shape=())
    with pytest.raises(BadOption, match=r"two tasks have one name: \['a', 'a'\]"):
        mtl_core.Balancer("edm", trunk.parameters(), tasks=["a", "a"])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"lr": "fast"}, "lr = 'fast': Input should be a valid number"),
        ({"lr": float("nan")}, "lr = nan: expected a finite number"),
        ({"weight_decay": None}, "weight_decay = None"),
        ({"together": 2}, "together = 2: Input should be a valid boolean"),
        ({"likelihoods": "softmax"}, "likelihoods = 'softmax'"),
        ({"tasks": "ab"}, "tasks = 'ab': expected a list"),
        ({"groups": 3}, "groups = 3: expected a list"),
        ({"groups": [3]}, "expected shared parameters, not int"),
        ({"shared": 3}, "expected shared parameters, not int"),
        ({"shared": nn.Linear(1, 1)}, "expected shared parameters, not Linear"),
        ({"tasks": frozenset("a")}, "expected a list"),
        ({"seed": 1.0}, "seed = 1.0: expected a whole number"),
    ],
    ids=str,
)
def test_an_argument_of_the_wrong_kind_is_refused_by_name(given: dict[str, Any], words: str) -> None:
    with pytest.raises(BadOption, match=words):
        mtl_core.Balancer(**{"smto": "edm", "shared": nn.Linear(4, 3).parameters(), "num_tasks": 2} | given)


def test_numbers_of_numpy_and_torch_are_numbers() -> None:
    """They are kept as Python's: a rate that an optimizer fills in place would move along, and a state that holds one
    of NumPy's cannot be read by torch.load."""
    trunk, rate = nn.Linear(4, 3), torch.tensor(0.5)
    given = {"shared": nn.ParameterList(trunk.parameters()), "seed": np.int64(3), "weight_decay": np.float32(0.5)}
    made = mtl_core.Balancer("auto_lambda", num_tasks=2, lr=rate, **given)
    rate.fill_(0.1)
    made.begin_epoch(lr=np.float64(0.25))
    assert made.lr == 0.5 and type(made.lr) is float
    file = io.BytesIO()
    torch.save(made.state_dict(), file)
    file.seek(0)
    assert torch.load(file)["method"] == ["auto_lambda", 2]
    for shape in (np.int64(4), torch.tensor(4), [4], torch.Size([4])):
        assert mtl_core.Balancer("rotograd", trunk.parameters(), 2, lr=0.1, feature_shape=shape).smto.channels == 4


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("key", ["unit_scal", "cagrad", "edm"])
def test_losses_that_have_been_differentiated_are_not_taken_again(key: str, log: bool) -> None:
    """torch's own error, with what to do; nothing is lost: .grad and the method are as they were."""
    net, x = make()
    losses = net.losses(net.features(x))
    first, second = (mtl_core.Balancer(key, net.shared, 2, log=log) for log in (False, log))
    first.backward(losses)
    before = grads(net)
    with pytest.raises(RuntimeError, match="second time") as refused:
        second.backward(losses)
    assert refused.value.__notes__ == [
        "Each backward takes losses of its own: run the network again before the next one."
    ]
    assert grads(net).keys() == before.keys() and all(torch.equal(grads(net)[p], g) for p, g in before.items())


@pytest.mark.parametrize("what", ["unused", "skipped now and then", "not in the optimizer", "moved by a hook"])
def test_the_optimizer_has_been_if_any_shared_parameter_has_moved(what: str) -> None:
    """FAMO asked the smallest one, which may have no gradient in a step, or be another's business."""
    torch.manual_seed(0)
    trunk, scale = nn.Linear(3, 4), nn.Parameter(torch.ones(()))
    balance = mtl_core.Balancer("famo", [*trunk.parameters(), scale], 2)
    moved = trunk.parameters() if what == "not in the optimizer" else [*trunk.parameters(), scale]
    optimizer = torch.optim.SGD(moved, lr=0.1, momentum=0.9)
    if what == "moved by a hook":
        for p in trunk.parameters():
            p.register_post_accumulate_grad_hook(lambda p: p.data.sub_(0.1 * p.grad))
            p.register_post_accumulate_grad_hook(lambda p: torch.no_grad()(p.sub_)(0.1 * p.grad))

    def losses(used: bool) -> list[Tensor]:
        z = trunk(torch.ones(5, 3))
        z = z * scale if used else z
        return [z.square().mean(), (z - 1).square().mean()]

    for step in range(4):
        used = what != "unused" and (what != "skipped now and then" or step % 2 == 0)
        optimizer.zero_grad()
        balance.backward(losses(used))
        if what != "moved by a hook":
            optimizer.step()
        balance.after_step(lambda used=used: losses(used))
    balance.backward(losses(True))
    if what != "moved by a hook":
        with pytest.raises(Unmet, match=r"nothing has moved since. \(balance.skip_step\?\)"):
            balance.after_step(lambda: losses(True))


def test_groups_without_a_gradient_have_no_part_in_the_heads() -> None:
    """As docs/own_loops.md has it, a group per block: activations have no parameters, a block is frozen, one unused."""
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, 4), nn.Tanh())
    trunk[3].requires_grad_(False)
    unused, heads, x = nn.Linear(4, 4), [nn.Linear(4, 1) for _ in range(3)], torch.randn(6, 3)
    found = []
    for blocks in ([trunk[0], trunk[2]], [*trunk, unused]):
        balance = mtl_core.Balancer("nash_mtl", num_tasks=3, groups=[block.parameters() for block in blocks])
        z = trunk(x)
        losses = [(k + 1) * (head(z) - k).square().mean() for k, head in enumerate(heads)]
        result = balance.backward(losses, z)
        found.append([result.head_weights, *grads(nn.ModuleList(heads)).values()])
        nn.ModuleList(heads).zero_grad()
    assert_close(found[0], found[1])


def test_features_that_are_transformed_in_evaluation_are_not_those_of_a_step() -> None:
    torch.manual_seed(0)
    trunk, heads = nn.Linear(3, 4), [nn.Linear(4, 1), nn.Linear(4, 1)]
    balance = mtl_core.Balancer("rotograd", trunk.parameters(), 2, lr=0.1, feature_shape=4)
    balance.parameters()
    with torch.no_grad():
        for k in range(2):
            balance.transform(trunk(torch.ones(5, 3)), k)
    z = trunk(torch.ones(5, 3))
    with pytest.raises(Unmet, match=r"heads that take balance\.transform"):
        balance.backward([head(z).square().mean() for head in heads], z)
    with pytest.raises(ValueError, match=r"transform\(z, 7\): there are 2 tasks, and their names are None"):
        balance.transform(z, 7)
    with pytest.raises(BadOption, match=r"features \[5, 7, 4\]: axis 1 must have the 4 of feature_shape"):
        balance.transform(torch.ones(5, 7, 4), 0)  # tokens; their places would be rotated


def test_a_tensor_of_losses_says_nothing_of_what_is_shared() -> None:
    """Every loss in it depends on every head, by a graph that is one."""
    torch.manual_seed(0)
    trunk, heads = nn.Linear(3, 4), [nn.Linear(4, 1), nn.Linear(4, 1)]
    z = trunk(torch.ones(5, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stacked = torch.stack([head(z).square().mean() for head in heads])
        mtl_core.Balancer("cagrad", trunk.parameters(), 2).backward(stacked)


# -- peculiar networks -------------------------------------------------------------------------------------------------


class Peculiar(nn.Module):
    """Words to three tasks. Its kind: a matrix that two heads share; a layer common to two heads; a head, or all of
    them, that sees a layer below the features, too; a matrix of the trunk in a head; sparse gradients; parts that are
    frozen."""

    PAST = ("skip", "skips", "trunk")  # a loss reaches shared parameters past the features
    KINDS = ("plain", "tied", "common", *PAST, "sparse", "frozen trunk", "frozen head", "half a head")

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.words = kind, nn.Embedding(9, 5, sparse=kind == "sparse")
        self.middle, self.last, self.common = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 5)
        self.heads = nn.ModuleList([nn.Linear(5, size) for size in (4, 3, 3)])
        if kind == "tied":
            self.heads[2].weight = self.heads[1].weight
        for frozen in {
            "frozen trunk": [self.words, self.middle.weight],
            "frozen head": [self.heads[1]],
            "half a head": [self.heads[1].weight],
        }.get(kind, []):
            frozen.requires_grad_(False)
        self.double()

    @property
    def shared(self) -> list[nn.Parameter]:
        return [p for part in (self.words, self.middle, self.last) for p in part.parameters()]

    def losses(self, x: Tensor, transform: Callable[[Tensor, int], Tensor]) -> tuple[Tensor, list[Tensor]]:
        below = self.middle(self.words(x).tanh().mean(1)).tanh()
        z, losses = self.last(below), []
        for k, head in enumerate(self.heads):
            seen = transform(z, k)
            out = head(self.common(seen).tanh() if self.kind == "common" and k != 1 else seen)
            if self.kind == "skips" or (self.kind == "skip" and k == 2):
                out = out + below[:, : out.shape[1]]
            if self.kind == "trunk" and k == 1:
                out = out @ self.middle.weight[:3]
            losses.append((k + 1) * out.square().mean() + out.logsumexp(1).mean())
        return z, losses


FAST = ("skip", "sparse")


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[] if k in FAST else pytest.mark.slow) for k in Peculiar.KINDS])
def test_peculiar_networks(kind: str) -> None:
    """Every method leaves Σ w_k g_k on what is shared and Σ v_k g_k on the heads, with the weights that it says, where
    .grad is None and where it is zero, with features and, where it takes none, without; and again in a second step.
    MoCo's memory has no weights, and GradDrop refuses what goes past the features."""
    options = {"fixed": {"weights": [0.2, 0.3, 0.5]}, "graddrop": {"leak": [1.0] * 3}, "db_mtl": {"beta": 0.0}}
    x, tried = torch.tensor([[0, 1, 1], [2, 3, 4], [5, 6, 7], [8, 0, 3]]), 0
    for key, zero, given in itertools.product(keys(), (True, False), (True, False)):
        torch.manual_seed(0)
        net = Peculiar(kind)
        smto = build(key, 3, **options.get(key, {}))
        told: dict[str, Any] = {"likelihoods": ["gaussian"] * 3, "feature_shape": (5,), "heads": net.heads, "lr": 0.01}
        balance = mtl_core.Balancer(smto, net.shared, 3, **told)
        if not given and "features" in balance.needs + ["features"] * (key == "bayesagg_mtl"):
            continue
        trained = [p for p in net.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD([{"params": trained}, *balance.parameters()], lr=0.01)
        balance.begin_epoch()
        if key == "graddrop" and kind in Peculiar.PAST:
            z, losses = net.losses(x, balance.transform)
            with pytest.raises(ValueError, match="a loss reaches shared parameters past the features"):
                balance.backward(losses, z)
            continue
        for number in range(2):
            optimizer.zero_grad(set_to_none=not zero)
            z, losses = net.losses(x, balance.transform)
            rows = [torch.autograd.grad(loss, trained, retain_graph=True, allow_unused=True) for loss in losses]
            more: dict[str, Any] = {"targets": [torch.zeros(4, 2).double()] * 3}
            more["second_batch"] = lambda net=net, to=balance.transform: net.losses(x.flip(1)[:2], to)[1]
            result = balance.backward(losses, z if given else None, **more)
            weights = torch.ones(3) if key == "graddrop" else result.weights
            assert bool(weights.isnan().any()) == (key == "moco" and number > 0)
            for i, p in enumerate(trained):
                used = weights if any(p is q for q in net.shared) else result.head_weights
                if used.isnan().any():
                    continue
                found = [row[i] if row[i] is not None else torch.zeros_like(p) for row in rows]
                total = sum(w * g.to_dense() for w, g in zip(used.double(), found, strict=True))
                grad = torch.zeros_like(p) if p.grad is None else p.grad.to_dense()
                assert_close(grad, total, msg=lambda words, key=key: f"{key}: {words}")
            assert all(p.grad is None for p in net.parameters() if not p.requires_grad)
            optimizer.step()
            balance.after_step(lambda net=net, to=balance.transform: net.losses(x, to)[1])
        tried += 1
    assert tried > 100
