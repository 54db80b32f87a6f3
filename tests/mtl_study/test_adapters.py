"""Methods of torchjd and LibMTL as ours."""

from __future__ import annotations

import copy
import inspect
import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torchjd.aggregation import MGDA, PCD, AlignedMTL, ExcessMTL, GradVac, UPGrad, UPGradWeighting

import mtl_core
import mtl_study
from mtl_core.options import BadOption
from mtl_core.smtos.registry import build
from mtl_study.adapters import _Answered, from_libmtl, from_torchjd
from mtl_study.experiments.fingerprints import fingerprint

FACTS = json.loads((Path(__file__).parents[1] / "data" / "libmtl.json").read_text())
REFUSED = {  # of LibMTL's: in which words
    "ExcessMTL": "asks for 'encoder', which is not here",
    "GradDrop": "rep_grad=False",  # its own
    "MoDo": "takes losses of several batches",
    "SDMGrad": "takes losses of several batches",
}
GONE = {"Aligned_MTL": "removed"}  # calls what torch has no longer


class Weighting(nn.Module):
    """A class written for LibMTL, which gives it `epoch`, `train_loss_buffer`, `_get_grads` and others."""

    def init_param(self) -> None:
        """Nothing is learnt."""


class ByEpoch(Weighting):
    """DWA, as one would write it there."""

    def backward(self, losses: Tensor, T: float) -> None:
        weights = torch.ones_like(losses)
        if self.epoch > 1:
            means = torch.tensor(self.train_loss_buffer)
            weights = len(losses) * (means[:, self.epoch - 1] / means[:, self.epoch - 2] / T).softmax(0)
        (losses * weights).sum().backward()


class Learnt(Weighting):
    """IMTL-L with shared gradients at equal lengths: what it learns is learnt by the losses' own backward pass."""

    def init_param(self) -> None:
        self.scale = nn.Parameter(torch.zeros(self.task_num, device=self.device))

    def backward(self, losses: Tensor) -> None:
        grads = self._get_grads(losses * self.scale.exp() - self.scale)
        self._backward_new_grads(1 / grads.norm(dim=1), grads=grads)


class Stateful(Weighting):
    """An average of gradients over steps."""

    def init_param(self) -> None:
        self._compute_grad_dim()
        self.mean = torch.zeros(self.task_num, self.grad_dim)

    def backward(self, losses: Tensor) -> None:
        self.mean = 0.5 * self.mean + 0.5 * self._compute_grad(losses, mode="backward")
        self._reset_grad(self.mean.sum(0))


class Looking(Weighting):
    """An offset to equal weights, learnt by an optimizer of its own from what a step gained, as FAMO's."""

    def init_param(self) -> None:
        self.w, self.places = torch.zeros(self.task_num, requires_grad=True), [1, 0]
        self.by = torch.optim.Adam([self.w], lr=0.1)

    def backward(self, losses: Tensor) -> None:
        self.before, self.weights = losses, (1 + self.w.detach()).numpy()
        (losses * torch.tensor(self.weights)).sum().backward()

    def update_w(self, losses: Tensor) -> None:
        self.w.grad = (self.before - losses).detach()[self.places]
        self.by.step()


class InPlace(Weighting):
    """What it keeps it changes in place: a tensor, a list, an array, and what an optimizer of its own holds."""

    def init_param(self) -> None:
        self.w, self.places = torch.ones(self.task_num, requires_grad=True), [0, 0]
        self.by, self.seen = torch.optim.Adam([self.w], lr=0.1), np.zeros(1)

    def backward(self, losses: Tensor) -> None:
        self.w.data.mul_(0.9)
        self.places[0] += 1
        self.seen += 1
        self.w.grad = losses.detach().clone()
        self.by.step()
        (losses * self.w.detach()).sum().backward()


class Late(Weighting):
    """What is learnt is left alone in the first epoch, as GradNorm's."""

    def init_param(self) -> None:
        self.scale = nn.Parameter(torch.ones(self.task_num))

    def backward(self, losses: Tensor) -> None:
        (losses * (self.scale if self.epoch else 1)).sum().backward()


class Loop:
    """Two tasks of two heads on one layer."""

    def __init__(self, method: Any) -> None:
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(6, 5), nn.Tanh())
        self.heads, self.x = nn.ModuleList([nn.Linear(5, 2), nn.Linear(5, 1)]), torch.randn(16, 6)
        self.balance = mtl_core.Balancer(method, self.trunk.parameters(), 2, lr=0.1)
        parameters = [*self.trunk.parameters(), *self.heads.parameters()]
        self.optimizer = torch.optim.SGD([{"params": parameters}, *self.balance.parameters()], lr=0.1)

    def losses(self) -> list[Tensor]:
        self.z = self.trunk(self.x)
        return [self.heads[0](self.z).square().mean(), 4 * (self.heads[1](self.z) - self.x[:, :1]).square().mean()]

    def step(self) -> list[Tensor]:
        self.balance.begin_epoch()
        losses = self.losses()
        self.optimizer.zero_grad()
        self.balance.backward(losses, self.z)
        self.optimizer.step()
        self.balance.after_step(self.losses)
        return [p.grad.clone() for p in (*self.trunk.parameters(), *self.heads.parameters())]


def steps(method: Any, count: int = 4) -> list[list[Tensor]]:
    loop = Loop(method)
    return [loop.step() for _ in range(count)]


def test_an_aggregator_gives_the_gradients_of_the_same_method_here() -> None:
    for aggregator, key, options in (
        (UPGrad(), "upgrad", {}),
        (MGDA(epsilon=1e-9, max_iters=300), "mgda", {"normalize": "none"}),
        (AlignedMTL(), "aligned_mtl", {}),
    ):
        theirs = steps(from_torchjd(aggregator)(2))
        assert_close(theirs, steps(build(key, 2, **options)), rtol=1e-3, atol=1e-4, msg=key)


def test_a_weighting_is_no_aggregator() -> None:
    with pytest.raises(BadOption, match="is a weighting of torchjd; give an aggregator"):
        from_torchjd(UPGradWeighting())


@pytest.mark.parametrize(
    "given", ["upgrad", None, lambda rows: rows.mean(0), nn.Linear(1, 1)], ids=["key", "none", "function", "module"]
)
def test_what_is_neither_is_refused_before_a_method_is_made(given: Any) -> None:
    with pytest.raises(BadOption, match=r"from_torchjd: .* is no aggregator of torchjd; give one, such as UPGrad\(\)"):
        from_torchjd(given)


@pytest.mark.parametrize("given", ["CAGrad", Weighting()], ids=["key", "object"])
def test_a_weighting_of_libmtl_is_a_class(given: Any) -> None:
    with pytest.raises(BadOption, match=r"from_libmtl: .* is no class; give one.*from_libmtl\(CAGrad\)"):
        from_libmtl(given)


def test_an_aggregator_goes_on_where_it_was_saved(tmp_path: Path) -> None:
    """Those that make their buffers in the first step, and also count; in new objects, and in those at hand."""
    for aggregator in (GradVac(), ExcessMTL(), PCD(), UPGrad()):
        loop, other = (Loop(from_torchjd(aggregator)(2)) for _ in range(2))
        fresh = copy.deepcopy(loop.balance.state_dict())
        loop.step(), loop.step()
        torch.save(loop.balance.state_dict(), tmp_path / "state.pt")
        for mine, theirs in ((other.trunk, loop.trunk), (other.heads, loop.heads)):
            mine.load_state_dict(theirs.state_dict())
        expected = loop.step()
        other.balance.load_state_dict(torch.load(tmp_path / "state.pt"))
        assert_close(other.step(), expected, rtol=0, atol=0, msg=str(aggregator))
        other.balance.load_state_dict(fresh)
        first = Loop(from_torchjd(aggregator)(2))
        first.trunk.load_state_dict(loop.trunk.state_dict())
        first.heads.load_state_dict(loop.heads.state_dict())
        assert_close(other.step(), first.step(), rtol=0, atol=0, msg=str(aggregator))


def test_weights_on_losses_go_to_all_parameters() -> None:
    assert_close(steps(from_libmtl(ByEpoch, T=2.0)(2)), steps(build("dwa", 2)))


def test_what_a_class_learns_is_in_the_optimizer() -> None:
    loop = Loop(from_libmtl(Learnt)(2))
    first, second = loop.step(), loop.step()
    (scale,) = loop.balance.smto.parameters()
    assert scale.any() and scale.grad is not None
    flat = torch.cat([g.flatten() for g in first[:2]])
    assert flat.norm() <= 2  # two unit vectors
    assert all(g.any() for g in second)


def test_what_is_left_alone_for_an_epoch_is_not_missed() -> None:
    """No gradient reaches it, so that no optimizer moves it."""
    loop = Loop(from_libmtl(Late)(2))
    loop.step()
    (scale,) = loop.balance.smto.parameters()
    assert scale.grad is None
    loop.step()
    assert (scale != 1).all()


def test_what_looks_again_is_shown_the_losses() -> None:
    """And refuses to continue where it is not."""
    loop = Loop(from_libmtl(Looking)(2))
    first, second = loop.step(), loop.step()
    assert loop.balance.smto.own.w.detach().abs().sum() > 0.1 and not torch.equal(first[0], second[0])
    loop.balance.after_step = lambda losses: None
    loop.step()
    with pytest.raises(mtl_core.balancer.Unmet, match=r"balance\.after_step.*not come after the last step"):
        loop.step()


@pytest.mark.parametrize("weighting", [Stateful, Looking])
def test_a_state_is_saved_and_restored(weighting: type, tmp_path: Path) -> None:
    """Tensors, arrays, lists, an optimizer and what it holds; after two steps, to the bit."""
    loop, method = Loop(from_libmtl(weighting)(2)), from_libmtl(weighting)
    loop.step(), loop.step()
    other = Loop(method(2))
    torch.save(loop.balance.state_dict(), tmp_path / "state.pt")
    other.balance.load_state_dict(torch.load(tmp_path / "state.pt"))
    for mine, theirs in zip(other.trunk.parameters(), loop.trunk.parameters(), strict=True):
        mine.data.copy_(theirs)
    other.heads.load_state_dict(loop.heads.state_dict())
    for _ in range(2):
        assert_close(other.step(), loop.step(), rtol=0, atol=0)


def test_what_a_class_changes_in_place_goes_back_with_a_step_that_is_left_out() -> None:
    """And a state that was kept in memory does not change."""
    loop = Loop(from_libmtl(InPlace)(2))
    loop.step()
    state = loop.balance.state_dict()
    before, own = copy.deepcopy(state["smtos"]), loop.balance.smto.own
    loop.balance.backward(loop.losses())
    assert own.places == [2, 0] and own.seen == 2
    loop.balance.skip_step()
    assert own.places == [1, 0] and own.seen == 1 and own.by.state_dict()["state"][0]["step"] == 1
    assert_close(loop.balance.state_dict()["smtos"], before, rtol=0, atol=0)
    loop.step()
    loop.balance.load_state_dict(state)
    loop.step()
    assert_close(state["smtos"], before, rtol=0, atol=0)


def test_what_asks_for_more_is_refused() -> None:
    class SeveralBatches(Weighting):
        def backward(self, losses: Tensor) -> None:
            self._get_grads(losses[:1])

    class OneOfSeveral(Weighting):
        def backward(self, losses: Tensor) -> None:
            self._get_grads(losses[0])

    class TheNetwork(Weighting):
        def backward(self, losses: Tensor) -> None:
            self.get_share_params()

    class Nothing(Weighting):
        def backward(self, losses: Tensor) -> None:
            """Forgets to."""

    for weighting, error, words in (
        (SeveralBatches, BadOption, "SeveralBatches takes losses of several batches"),
        (OneOfSeveral, BadOption, "OneOfSeveral takes losses of several batches"),
        (
            TheNetwork,
            AttributeError,
            "TheNetwork asks for 'get_share_params', which is not here: LibMTL's trainer has it",
        ),
        (Nothing, BadOption, "neither differentiates the losses nor sets a gradient"),
    ):
        with pytest.raises(error, match=words):
            Loop(from_libmtl(weighting)(2)).step()


def test_what_a_class_may_call_takes_libmtls_arguments() -> None:
    for name, arguments in FACTS["AbsWeighting"].items():
        if name != "init_param":  # the class's own
            assert list(inspect.signature(getattr(_Answered, name)).parameters)[1:][: len(arguments)] == arguments, name


def test_libmtl_is_as_listed_where_it_is() -> None:
    libmtl = pytest.importorskip("LibMTL", reason="LibMTL is not in the environment")
    for module, names in FACTS["names"].items():
        place = libmtl if module == "LibMTL" else getattr(libmtl, module.split(".")[1])
        assert set(names) <= set(dir(place)), module
    assert FACTS["names"]["LibMTL.weighting"] == sorted(set(libmtl.weighting.__all__) - {"AbsWeighting"})
    for name in ("__init__", "train"):
        listed = FACTS["Trainer" if name == "__init__" else name]
        assert list(inspect.signature(getattr(libmtl.Trainer, name)).parameters)[1:] == listed
    base = libmtl.weighting.AbsWeighting
    for name, arguments in FACTS["AbsWeighting"].items():
        assert list(inspect.signature(getattr(base, name)).parameters)[1:] == arguments, name


def both_ways(libmtl: Any, name: str) -> tuple[Any, Any]:
    """What trains a weighting of LibMTL for three epochs of two steps, by its trainer and in your own loop, and
    gives the trained parameters."""
    x = torch.randn(2, 8, 6, generator=torch.Generator().manual_seed(1))
    batches = [(part, {"a": part[:, :2].argmax(1), "b": 3 * part[:, 2:3]}) for part in x]
    metric = SimpleNamespace(update_fun=lambda *_: None, score_fun=lambda: [1.0], reinit=lambda: None)
    losses = {"a": libmtl.loss.CELoss(), "b": libmtl.loss.MSELoss()}
    arguments, weighting = FACTS["arguments"][name], getattr(libmtl.weighting, name)

    def encoder() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh())

    def by_trainer(heads: nn.ModuleDict) -> nn.Module:
        trainer = libmtl.Trainer(
            {k: {"metrics": ["–"], "metrics_fn": metric, "loss_fn": f, "weight": [1]} for k, f in losses.items()},
            name,
            "HPS",
            encoder,
            heads,
            rep_grad=False,
            multi_input=False,
            optim_param={"optim": "sgd", "lr": 0.05},
            scheduler_param=None,
            weight_args=arguments,
            arch_args={},
        )
        trainer.train(batches, batches, epochs=3)
        found: nn.Module = trainer.model.encoder
        return found

    def by_hand(heads: nn.ModuleDict) -> nn.Module:
        trunk = encoder()
        balance = mtl_core.Balancer(from_libmtl(weighting, **arguments)(2), trunk.parameters(), tasks=[*heads])
        parameters = [*trunk.parameters(), *heads.parameters()]
        optimizer = torch.optim.SGD([{"params": parameters}, *balance.parameters()], lr=0.05)

        def look(x: Tensor, y: dict[str, Tensor]) -> dict[str, Tensor]:
            return {task: losses[task].compute_loss(head(trunk(x)), y[task]) for task, head in heads.items()}

        for _ in range(3):
            balance.begin_epoch()
            for batch in batches:
                optimizer.zero_grad()
                balance.backward(look(*batch))
                optimizer.step()
                balance.after_step(lambda batch=batch: look(*batch))
        return trunk

    def trained(way: Any) -> list[Tensor]:
        torch.manual_seed(1)
        random.seed(0)
        np.random.seed(0)
        heads = nn.ModuleDict({"a": nn.Linear(5, 2), "b": nn.Linear(5, 1)})
        return [*way(heads).parameters(), *heads.parameters()]

    return lambda: trained(by_trainer), lambda: trained(by_hand)


def test_every_weighting_of_libmtl_trains_as_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """To six digits, or is refused. Its trainer gets a CPU."""
    libmtl = pytest.importorskip("LibMTL", reason="LibMTL is not in the environment")
    on_cpu = SimpleNamespace(**vars(torch) | {"device": lambda name: torch.device("cpu")})
    monkeypatch.setattr(libmtl.trainer, "torch", on_cpu)
    for name in FACTS["names"]["LibMTL.weighting"]:
        by_trainer, by_hand = both_ways(libmtl, name)
        if name in REFUSED | GONE:
            with pytest.raises((AttributeError, BadOption, ValueError, RuntimeError), match=(REFUSED | GONE)[name]):
                by_hand()
        else:
            assert_close(by_hand(), by_trainer(), rtol=1e-6, atol=1e-6, msg=name)


def test_both_keep_what_is_expected_of_every_method() -> None:
    report = mtl_study.check_smto(from_torchjd(UPGrad(), key="theirs"))
    assert not report.of("broken")


def test_two_methods_of_others_are_two_runs():
    """Of one key: their class and settings are part of what a run is."""

    class Aggregator:
        """Torchjd's, in name."""

    class Mean(Aggregator):
        def __init__(self, scale):
            self.scale = scale

        def __repr__(self):
            return f"Mean({self.scale})"

    assert fingerprint(from_torchjd(Mean(1))) == fingerprint(from_torchjd(Mean(1)))
    assert fingerprint(from_torchjd(Mean(1))) != fingerprint(from_torchjd(Mean(2)))
    assert fingerprint(from_libmtl(Mean)) != fingerprint(from_libmtl(dict))
    assert fingerprint(from_libmtl(Mean, c=1)) != fingerprint(from_libmtl(Mean, c=2))
