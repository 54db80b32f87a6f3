"""Any network: what a Step leaves in .grad is what plain autograd gives, whoever owns the parameters and however they
are stored in memory; and what no method can work with is refused in the same words for all."""

from __future__ import annotations

import copy
import itertools
import random
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

import mtl_core.step
from mtl_core.options import BadOption
from mtl_core.smtos.base import SMTO, LossWeighting, ProblemInfo
from mtl_core.smtos.geometry import NonFinite
from mtl_core.smtos.registry import build, keys
from mtl_core.step import MultiTaskModel, Step

LOSSES = [F.nll_loss, F.mse_loss, F.l1_loss]
SIZE = 5  # of the features
OPTIONS: dict[str, dict[str, Any]] = {
    "fixed": {"weights": [0.2, 0.3, 0.5]},
    "graddrop": {"leak": [1.0, 1.0, 1.0]},  # nothing is dropped: it is the sum
    "db_mtl": {"beta": 0.0},  # no memory of other steps: it has weights
}
NETWORKS = 20
#: a sliced and an expanded parameter, two encoders, a layer used twice within one, hooks on a Sequential, its layout in
#: memory; a layer shared by heads, a weight of the encoder in heads, a layer under two names, heads that begin in place
KINDS = [
    *("stem", "expanded", "branches", "within", "hooks", "channels_last", "heads", "encoder", "twice", "in_place"),
    "frozen",
]
CASES = [(key, OPTIONS.get(key, {})) for key in keys()] + [
    ("graddrop", {"leak": [1.0, 1.0, 1.0], "space": "parameters"}),
    ("imtl_g", {"space": "parameters"}),
    ("rotograd", {"inner": "cagrad", "start": "haar"}),
    ("auto_lambda", {"inner": "mgda"}),
    ("auto_lambda", {"gradients": "finite_difference"}),
]


class Whole(nn.Module):
    """A module as one piece, which nobody takes apart."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Branches(nn.Module):
    """Two encoders of the same image, side by side, and a parameter that nobody uses."""

    def __init__(self, one: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.one, self.other = one, other
        self.unused = nn.Parameter(torch.ones(3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) + self.other(x).tanh()


class Tied(nn.Module):
    """A head that looks at z through a weight of the encoder [5, n], and then through its own layer."""

    def __init__(self, weight: nn.Parameter, out: nn.Module) -> None:
        super().__init__()
        self.weight, self.out = weight, out

    def forward(self, z: Tensor) -> Tensor:
        return self.out(torch.sin(z @ self.weight @ self.weight.T))


class Twice(nn.Module):
    """One layer under two names."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = self.also = layer

    def forward(self, z: Tensor) -> Tensor:
        return self.also(self.layer(z).tanh())


class Scaled(nn.Module):
    """A number that is learnt, without dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.number = nn.Parameter(torch.tensor(1.5))

    def forward(self, z: Tensor) -> Tensor:
        return z * self.number


class Network:
    """A random network of three tasks, a batch for it, and what is special about it."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        coin = random.Random(seed)
        self.kinds = {kind for kind in KINDS if coin.random() < 0.4} | ({"linear"} if seed % 5 == 4 else set())
        self.dtype = (torch.float64, torch.float32)[seed % 2]
        encoder = self.encoder()
        if "branches" in self.kinds:
            encoder = Branches(encoder, self.encoder())
        last = [module for module in encoder.modules() if isinstance(module, nn.Linear)][-1]
        self.model = MultiTaskModel(encoder, self.heads(last.weight)).to(self.dtype)
        if "channels_last" in self.kinds:
            self.model.to(memory_format=torch.channels_last)
        stem = next(module for module in encoder.modules() if isinstance(module, nn.Conv2d))
        if "stem" in self.kinds:  # a stem for grey images: a slice of one for colours
            stem.weight = nn.Parameter(torch.randn(4, 3, 3, 3, dtype=self.dtype)[:, :1])
        if "expanded" in self.kinds:
            stem.bias = nn.Parameter(torch.randn(1, dtype=self.dtype).expand(4))
        if "frozen" in self.kinds:
            stem.weight.requires_grad_(False)
        if "hooks" in self.kinds:
            encoder.register_forward_hook(lambda module, inputs, output: output.tanh() * 2)
        self.losses = list(LOSSES)
        self.x = torch.randn(6, 1, 6, 6, dtype=self.dtype)
        self.targets = [
            torch.randint(4, (6,)),
            torch.randn(6, 3, dtype=self.dtype),
            torch.randn(6, 2, dtype=self.dtype),
        ]

    def encoder(self) -> nn.Module:
        middle = nn.Linear(12, 12)
        again = [middle, nn.Tanh(), middle] if "within" in self.kinds else [middle]
        return (Whole if "within" in self.kinds else nn.Sequential)(
            nn.Conv2d(1, 4, 3),
            nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()),
            nn.Conv2d(4, 3, 3),
            nn.Dropout(0.3),
            nn.Flatten(),
            *again,
            nn.Tanh(),
            Scaled(),
            nn.Linear(12, SIZE),
        )

    def heads(self, weight: nn.Parameter) -> dict[str, nn.Module]:
        if "linear" in self.kinds:
            first: list[list[nn.Module]] = [[], [], []]
        else:
            common = nn.Linear(SIZE, SIZE)
            layers = [common if "heads" in self.kinds else nn.Linear(SIZE, SIZE) for _ in range(3)]
            layers = [Twice(layer) if "twice" in self.kinds and k != 1 else layer for k, layer in enumerate(layers)]
            start = [nn.ReLU(inplace=True)] if "in_place" in self.kinds else []
            first = [[*start, layer, nn.Dropout(0.2), nn.Tanh()] for layer in layers]
        heads = {
            "a": nn.Sequential(*first[0], nn.Linear(SIZE, 4), nn.LogSoftmax(1)),
            "b": nn.Sequential(*first[1], nn.Linear(SIZE, 3)),
            "c": nn.Sequential(*first[2], nn.Linear(SIZE, 2)),
        }
        if "encoder" in self.kinds and "linear" not in self.kinds:
            heads |= {name: Tied(weight, heads[name]) for name in "bc"}
        return heads

    def step(self, **keywords: Any) -> Step:
        torch.default_generator.manual_seed(7)
        another = lambda: (self.x.flip(0) + 1, [y.flip(0) for y in self.targets])  # noqa: E731
        return Step(self.model, self.losses, self.x, self.targets, second_batch=another, **keywords)

    def rows(self, smto: SMTO | None = None) -> dict[str, Tensor]:
        """By plain autograd: the gradient of every L_k on every parameter, through one joint graph, float64 [3, …]."""
        torch.default_generator.manual_seed(7)
        z = self.model.encoder(self.x)
        seen = [z.clone() if smto is None else smto.transform_features(z.clone(), k) for k in range(3)]
        predictions = [head(z_k) for head, z_k in zip(self.model.heads.values(), seen, strict=True)]
        named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        found = []
        for loss, prediction, target in zip(self.losses, predictions, self.targets, strict=True):
            value = loss(prediction, target)
            found.append(torch.autograd.grad(value, list(named.values()), retain_graph=True, materialize_grads=True))
        dense = [[g.to_dense().double() for g in gradients] for gradients in zip(*found, strict=True)]
        return dict(zip(named, map(torch.stack, dense), strict=True))

    def check(self, rows: dict[str, Tensor], weights: Tensor, head_weights: Tensor, where: object) -> None:
        """.grad is Σ_k w_k g_k on what the encoder has and Σ_k h_k g_k on the rest, to rounding."""
        largest = float(torch.stack([g.abs().amax() for g in rows.values()]).amax())
        tolerance = (1e-10 if self.dtype == torch.float64 else 2e-5) * largest
        weights, head_weights = weights.double(), head_weights.double()
        allowed = [tolerance * max(1.0, float(used.abs().amax())) for used in (weights, head_weights)]
        for name, p in self.model.named_parameters():
            if not p.requires_grad:
                assert p.grad is None, (where, name)
                continue
            mine = name.startswith("encoder")
            error = torch.tensordot(weights if mine else head_weights, rows[name], 1)
            if p.grad is not None:
                assert p.grad.dtype == p.dtype
                error -= p.grad
            assert float(error.abs().amax()) <= allowed[not mine], (where, name, error)


def ready(key: str, options: dict[str, Any], dtype: torch.dtype) -> SMTO:
    smto = build(key, 3, **options)
    smto.set_up(ProblemInfo(("softmax", "gaussian", "gaussian"), (SIZE,), lr=0.01, weight_decay=0.01), seed=1)
    smto.begin_epoch(0, None, 0.01)
    return smto.to(dtype)


def methods(linear: bool, dtype: torch.dtype) -> Iterator[tuple[object, SMTO]]:
    for key, options in CASES:
        if key != "bayesagg_mtl" or linear:
            yield (key, options), ready(key, options, dtype)


def test_every_kind_of_network_is_among_them() -> None:
    """Every peculiarity in four of them at least, and some together that meet in one gradient."""
    drawn = [Network(seed).kinds for seed in range(NETWORKS)]
    for kind in set().union(*drawn):
        assert sum(kind in kinds for kinds in drawn) >= 4, kind
    for pair in ({"heads", "encoder"}, {"stem", "encoder"}, {"heads", "twice"}, {"encoder", "branches"}):
        assert any(pair <= kinds for kinds in drawn if "linear" not in kinds), pair


@pytest.mark.parametrize("keep_jacobian", [True, False])
def test_every_method_leaves_the_gradients_of_plain_autograd(keep_jacobian: bool) -> None:
    """The weights it says it gave, applied to the gradients of the K losses."""
    for seed in range(NETWORKS):
        network = Network(seed)
        plain = network.rows()
        for case, smto in methods("linear" in network.kinds, network.dtype):
            if not keep_jacobian and (isinstance(smto, LossWeighting) or (smto.space == "features" and seed > 3)):
                continue  # it never looks at gradients on the parameters
            rows = network.rows(smto) if "rotograd" in case else plain
            step = network.step(
                transform_features=smto.transform_features, replay=smto.replay, keep_jacobian=keep_jacobian
            )
            result = smto.backward(step)
            weights = torch.ones(3) if "graddrop" in case else result.weights
            network.check(rows, weights, result.head_weights, (seed, network.kinds, case))
            smto.after_step(step)


def test_every_path_leaves_the_gradients_of_plain_autograd() -> None:
    """Whatever was looked at before: nothing, the features, the Jacobian, its Gramian; other weights for the heads, the
    same, or none. Gramians and single parameters, too; and a Jacobian taken in one batched pass, where torch has it."""
    w, h = torch.tensor([0.3, -1.2, 2.0]), torch.tensor([1.5, 0.2, 0.7])
    for seed in range(NETWORKS):
        network = Network(seed)
        rows = network.rows()
        shared = [name for name, p in network.model.encoder.named_parameters() if p.requires_grad]
        flat = torch.cat([rows[f"encoder.{name}"].reshape(3, -1) for name in shared], 1)
        for keep in (True, False):
            for look in (
                ("losses", "features", "parameters", "jacobian", "shared", "direction") if keep else ("parameters",)
            ):
                for heads in (None, h, w):
                    step = network.step(keep_jacobian=keep)
                    where = (seed, network.kinds, keep, look, heads)
                    used = torch.ones(3) if heads is None else heads
                    if look in ("features", "parameters"):
                        gramian = step.gramian(look)
                        if look == "parameters":
                            assert_close(gramian, flat @ flat.T, rtol=1e-4, atol=1e-5)
                    if look in ("jacobian", "shared"):
                        assert step.jacobian.shape == flat.shape
                        parameter = step.shared[-2]
                        expected = rows[f"encoder.{shared[-2]}"].reshape(3, -1)
                        assert_close(step.gradients_on(parameter).double(), expected, rtol=1e-4, atol=1e-5)
                    if look == "shared":
                        step.apply_shared(w.to(step.jacobian) @ step.jacobian, heads)
                    elif look == "direction" and heads is w:  # the only weights that say what goes past z, too
                        step.apply_features(torch.tensordot(w.to(step.z), step.feature_gradients, 1), heads)
                    else:
                        step.apply(w, heads)
                    network.check(rows, w, used, where)
                    for p in network.model.parameters():  # fused optimizers read both in the order of memory
                        if p.grad is not None and p.is_contiguous(memory_format=torch.channels_last):
                            assert p.grad.stride() == p.stride(), where


def test_a_loss_that_reaches_the_encoder_past_the_features() -> None:
    """A penalty on a weight of the encoder within a loss: it counts where heads have parts of the encoder or of each
    other; where none does it is refused, except for a weighted sum of losses, which is right by itself."""
    w, h, refused = torch.tensor([0.3, -1.2, 2.0]), torch.tensor([1.5, 0.2, 0.7]), 0
    for seed in range(8):
        network = Network(seed)
        weight = [module for module in network.model.encoder.modules() if isinstance(module, nn.Linear)][-1].weight
        network.losses[2] = lambda p, y, weight=weight: F.l1_loss(p, y) + weight.square().mean()
        rows, tied = network.rows(), bool(network.kinds & {"heads", "encoder"}) and "linear" not in network.kinds
        for keep, heads in itertools.product((True, False), (h, w)):
            step = network.step(keep_jacobian=keep)
            if not tied and heads is h:
                with pytest.raises(ValueError, match=r"encoder's parameter '.*weight' past the features"):
                    step.gramian("parameters")
                refused += 1
                continue
            if tied and heads is h:
                names = [n for n, p in network.model.encoder.named_parameters() if p.requires_grad]
                flat = torch.cat([rows[f"encoder.{name}"].reshape(3, -1) for name in names], 1)
                assert_close(step.gramian("parameters"), flat @ flat.T, rtol=1e-4, atol=1e-5)
            step.apply(w, heads)
            network.check(rows, w, heads, (seed, network.kinds, keep))
    assert 4 <= refused <= 12


def test_a_network_is_as_it_was_after_looks_elsewhere() -> None:
    """Every parameter stays in every place, also where one layer has two names; Auto-Lambda trains all of them."""
    for seed in range(NETWORKS):
        network = Network(seed)
        if "expanded" in network.kinds:
            continue  # torch's optimizers cannot move one number that is expanded to many
        modules = list(network.model.modules())
        before = [list(module._parameters.values()) for module in modules]
        smto = ready("auto_lambda", {"gradients": "finite_difference"}, network.dtype)
        optimizer = torch.optim.SGD(network.model.parameters(), lr=0.1)
        start = copy.deepcopy(network.model.state_dict())
        smto.backward(network.step(replay=True))
        for module, parameters in zip(modules, before, strict=True):
            assert all(a is b for a, b in zip(module._parameters.values(), parameters, strict=True)), network.kinds
        optimizer.step()
        for name, p in network.model.named_parameters():
            if name.startswith("heads"):  # a bias before batch normalisation has no gradient
                assert not torch.equal(p, start[name]), (network.kinds, name)


def test_heads_do_not_see_what_others_do_in_place() -> None:
    """In evaluation, too: every head predicts what it predicts alone."""
    for seed in range(NETWORKS):
        network = Network(seed)
        network.model.eval()
        with torch.no_grad():
            alone = [head(network.model.encoder(network.x)) for head in network.model.heads.values()]
            assert_close(network.model(network.x), alone, rtol=0, atol=0)


def test_a_sliced_layer_beside_a_dense_one_by_hand() -> None:
    """∂/∂W of Σ c_k · (second layer) (W x): outer products, whatever is between the rows of W in memory."""
    first, second = nn.Linear(5, 4, bias=False), nn.Linear(4, 40, bias=False)
    first.weight = nn.Parameter(torch.randn(4, 10)[:, :5])
    model = MultiTaskModel(nn.Sequential(first, second), {"a": nn.Identity(), "b": nn.Identity()})
    x, c = torch.randn(1, 5), torch.randn(2, 40)
    step = Step(model, [lambda p, y: (p * y).sum()] * 2, x, list(c))
    expected = [torch.cat([(second.weight.T @ v).outer(x[0]).flatten(), v.outer(first(x)[0]).flatten()]) for v in c]
    assert_close(step.jacobian, torch.stack(expected).detach())
    step.apply(torch.tensor([2.0, -1.0]))
    assert_close(first.weight.grad, (second.weight.T @ (2 * c[0] - c[1])).outer(x[0]).detach())


# -- types -----------------------------------------------------------------------------------------------------------


class Words(nn.Module):
    """Words and numbers: an embedding with sparse gradients, a layer in double precision."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, SIZE, sparse=True)
        self.layer = nn.Linear(SIZE, SIZE).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.words(x).tanh().sum(1).double()).float()


def test_sparse_gradients_and_mixed_types() -> None:
    """On encoder and heads, for every method, with and without the Jacobian."""
    for keep in (True, False):
        for case, smto in methods(False, torch.float32):
            torch.manual_seed(0)
            heads = {"a": nn.Sequential(nn.Linear(SIZE, 4), nn.LogSoftmax(1)), "b": nn.Linear(SIZE, 3)}
            network = Network(0)
            network.dtype = torch.float32
            network.model = MultiTaskModel(nn.Sequential(Words(), nn.Tanh()), {**heads, "c": nn.Linear(SIZE, 2)})
            network.x = torch.randint(8, (6, 3))
            network.targets = [y.float() if y.is_floating_point() else y for y in network.targets]
            rows = network.rows(smto)
            step = network.step(transform_features=smto.transform_features, replay=smto.replay, keep_jacobian=keep)
            result = smto.backward(step)
            for p in network.model.parameters():
                p.grad = p.grad.to_dense() if p.grad.is_sparse else p.grad
            weights = torch.ones(3) if "graddrop" in case else result.weights
            network.check(rows, weights, result.head_weights, case)


# -- nothing shared, nothing learnt ------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ["frozen", "without parameters"])
def test_heads_are_trained_where_nothing_is_shared(encoder: str) -> None:
    """By every method, and a warning says so. GradNorm alone needs a shared layer, and names it."""
    network = Network(0)
    network.model.heads = nn.ModuleDict(Network(2).model.heads)
    if encoder == "frozen":
        network.model.encoder.requires_grad_(False)
    else:
        network.model.encoder = nn.Sequential(nn.Flatten(), nn.AdaptiveAvgPool1d(SIZE))
    network.model.double()
    plain = network.rows()
    for keep in (True, False):
        for case, smto in methods(False, torch.float64):
            rows = network.rows(smto) if "rotograd" in case else plain
            with pytest.warns(UserWarning, match="nothing is shared"):
                step = network.step(transform_features=smto.transform_features, replay=smto.replay, keep_jacobian=keep)
            if "gradnorm" in case:
                with pytest.raises(BadOption, match="gradnorm judges gradients on the weight of the last shared layer"):
                    smto.backward(step)
                continue
            result = smto.backward(step)
            network.check(rows, result.weights, result.head_weights, case)
            assert any(p.grad is not None and p.grad.any() for p in network.model.heads.parameters()), case
            smto.after_step(step)


def test_constant_losses_teach_nothing() -> None:
    """One, or all of them: every method continues, without a gradient from it; where it is all, a warning says so."""
    constant = lambda p, y: torch.ones((), dtype=p.dtype)  # noqa: E731
    for seed in (0, 1):
        network = Network(seed)
        for case, smto in methods(False, network.dtype):
            for silent in ((1,), (0, 1, 2)):
                losses = [constant if k in silent else loss for k, loss in enumerate(LOSSES)]
                with warnings.catch_warnings(record=True) as said:
                    warnings.simplefilter("always")
                    step = Step(
                        network.model,
                        losses,
                        network.x,
                        network.targets,
                        transform_features=smto.transform_features,
                        second_batch=lambda batch=(network.x, network.targets): batch,
                        replay=smto.replay,
                    )
                assert any("nothing is learnt" in str(w.message) for w in said) == (len(silent) == 3)
                smto.backward(step)
                for p in network.model.parameters():
                    none = len(silent) == 3 and "moco" not in case  # which goes on by the gradients of earlier steps
                    assert p.grad is None or (p.grad.isfinite().all() and not (none and p.grad.any())), case


# -- refused ---------------------------------------------------------------------------------------------------------


def test_what_no_method_can_work_with_is_refused_in_one_way() -> None:
    """Another number of tasks, and a loss that is no number: before any state of the method moves."""
    for key in keys():
        network = Network(1)
        if key == "bayesagg_mtl":
            network.model.heads = nn.ModuleDict(
                {"a": nn.Linear(SIZE, 4), "b": nn.Linear(SIZE, 3), "c": nn.Linear(SIZE, 2)}
            )
        few = build(key, 2, **({"weights": [0.5, 0.5]} if key == "fixed" else {}))
        with pytest.raises(BadOption, match=f"{key}: made for num_tasks = 2; the model has 3 heads"):
            few.backward(network.step())
        smto = ready(key, {"weights": [0.2, 0.3, 0.5]} if key == "fixed" else {}, torch.float32)
        before = copy.deepcopy(smto.state_dict())
        for bad in (torch.nan, torch.inf):
            network.targets[1][0, 0] = bad
            with pytest.raises(NonFinite, match=f"{key}: a loss is not finite: .*{bad}"):
                smto.backward(network.step(transform_features=smto.transform_features, replay=smto.replay))
        assert str(smto.state_dict()) == str(before)


class Detached(nn.Module):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x).detach()


class Overwrites(nn.Module):
    """Works in place where nobody can see it."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(SIZE, 3)

    def forward(self, z: Tensor) -> Tensor:
        return self.out(z.relu_())


def test_bad_input_is_one_clear_message() -> None:
    network = Network(1)
    model, x, targets = network.model, network.x, network.targets
    per_sample = [*LOSSES[:2], lambda p, y: (p - y).abs().sum(1)]
    cases: list[tuple[str, MultiTaskModel, list, Any, list]] = [
        ("3 heads, 2 loss functions and 3 targets", model, LOSSES[:2], x, targets),
        ("3 heads, 3 loss functions and 2 targets", model, LOSSES, x, targets[:2]),
        (r"loss of task 'c' is a tensor of shape \(6,\); expected a scalar", model, per_sample, x, targets),
        ("loss of task 'c' is float; expected", model, [*LOSSES[:2], lambda p, y: 0.0], x, targets),
        (
            "features carry no gradient.*detaches",
            MultiTaskModel(Detached(model.encoder), model.heads),
            LOSSES,
            x,
            targets,
        ),
        (
            "the encoder gives tuple; expected one tensor",
            MultiTaskModel(nn.GRU(6, 5), model.heads),
            LOSSES,
            x[:, 0],
            targets,
        ),
        ("the encoder gives torch.int64", MultiTaskModel(nn.Flatten(), model.heads), LOSSES, x.long(), targets),
        (
            "head 'b' changes the features in place",
            MultiTaskModel(model.encoder, {**model.heads, "b": Overwrites()}),
            LOSSES,
            x,
            targets,
        ),
    ]
    for message, bad, losses, inputs, goals in cases:
        with pytest.raises(ValueError, match=message):
            Step(bad, losses, inputs.to(network.dtype) if inputs.is_floating_point() else inputs, goals)
    with torch.no_grad(), pytest.raises(ValueError, match=r"made under torch\.no_grad"):
        network.step()


def test_a_step_is_applied_once() -> None:
    """A second update, or a look that would need the graph again, by every path; what is known can still be read."""
    w, other = torch.ones(3), torch.full((3,), 0.5)
    for look in ("losses", "features", "parameters"):
        network = Network(1)
        step = network.step()
        if look != "losses":
            gramian = step.gramian(look)
        step.apply(w, w if look == "losses" else other)
        again = [
            lambda step=step: step.apply(w, w),
            lambda step=step: step.apply(w),
            lambda step=step: step.apply_features(step.z),
            lambda step=step: step.apply_shared(torch.zeros(1)),
            lambda step=step: step.gradients_on(step.shared[0]),
        ]
        again += [lambda step=step: step.jacobian] if look != "parameters" else []
        for call in again:
            with pytest.raises(RuntimeError, match=r"this Step has been applied.*make a new Step"):
                call()
        if look != "losses":
            assert torch.equal(step.gramian(look), gramian)


# -- all gradients at once -------------------------------------------------------------------------------------------


def test_gradients_at_once_are_those_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where the encoder asks for it; also with parameters that are tied or unused."""
    passes = []
    grad = torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *a, **k: (passes.append(k.get("is_grads_batched")), grad(*a, **k))[1]
    )
    for seed in range(NETWORKS):
        network = Network(seed)
        one_by_one = network.step().jacobian
        monkeypatch.setattr(mtl_core.step, "_on_gpu", lambda z: True)
        assert torch.equal(network.step().jacobian, one_by_one)  # nobody asked
        assert not any(passes)
        network.model.encoder.gradients_at_once = True
        step = network.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch names what it takes one by one
            at_once = step.jacobian
        assert passes.count(True) == 1
        close = {"rtol": 1e-4, "atol": 1e-5} if network.dtype == torch.float32 else {}
        assert_close(at_once, one_by_one, **close)
        monkeypatch.setattr(mtl_core.step, "_on_gpu", lambda z: z.is_cuda)
        passes.clear()
