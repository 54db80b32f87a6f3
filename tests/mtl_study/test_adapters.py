"""Methods of torchjd and LibMTL as ours."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torchjd.aggregation import MGDA, AlignedMTL, UPGrad

import mtl_core
import mtl_study
from mtl_core.options import BadOption
from mtl_core.smtos.registry import build
from mtl_study.adapters import from_libmtl, from_torchjd
from mtl_study.experiments.runs import fingerprint


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


class Loop:
    """Two tasks of two heads on one layer."""

    def __init__(self, method: Any) -> None:
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(6, 5), nn.Tanh())
        self.heads, self.x = nn.ModuleList([nn.Linear(5, 2), nn.Linear(5, 1)]), torch.randn(16, 6)
        self.balance = mtl_core.Balancer(method, self.trunk.parameters(), 2, lr=0.1)
        parameters = [*self.trunk.parameters(), *self.heads.parameters()]
        self.optimizer = torch.optim.SGD([{"params": parameters}, *self.balance.parameters()], lr=0.1)

    def step(self) -> list[Tensor]:
        self.balance.begin_epoch()
        z = self.trunk(self.x)
        losses = [self.heads[0](z).square().mean(), 4 * (self.heads[1](z) - self.x[:, :1]).square().mean()]
        self.optimizer.zero_grad()
        self.balance.backward(losses, z)
        self.optimizer.step()
        return [p.grad.clone() for p in (*self.trunk.parameters(), *self.heads.parameters())]


def steps(method: Any, count: int = 4) -> list[list[Tensor]]:
    loop = Loop(method)
    return [loop.step() for _ in range(count)]


def test_an_aggregator_gives_the_gradients_of_the_same_method_here() -> None:
    for aggregator, key, options in (
        (UPGrad(), "upgrad", {}),
        (MGDA(epsilon=1e-9, max_iters=100_000), "mgda", {"normalize": "none"}),
        (AlignedMTL(), "aligned_mtl", {}),
    ):
        theirs = steps(from_torchjd(aggregator)(2))
        assert_close(theirs, steps(build(key, 2, **options)), rtol=1e-3, atol=1e-4, msg=key)


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


def test_a_state_is_saved_and_restored() -> None:
    loop, method = Loop(from_libmtl(Stateful)(2)), from_libmtl(Stateful)
    loop.step()
    other = Loop(method(2))
    other.balance.load_state_dict(copy.deepcopy(loop.balance.state_dict()))
    for mine, theirs in zip(other.trunk.parameters(), loop.trunk.parameters(), strict=True):
        mine.data.copy_(theirs)
    other.heads.load_state_dict(loop.heads.state_dict())
    assert_close(other.step(), loop.step())


def test_what_asks_for_more_is_refused() -> None:
    class SeveralBatches(Weighting):
        def backward(self, losses: Tensor) -> None:
            self._get_grads(losses[:1])

    class TheNetwork(Weighting):
        def backward(self, losses: Tensor) -> None:
            self.get_share_params()

    class Nothing(Weighting):
        def backward(self, losses: Tensor) -> None:
            """Forgets to."""

    for weighting, error, words in (
        (SeveralBatches, BadOption, "SeveralBatches takes losses of several batches"),
        (TheNetwork, AttributeError, "TheNetwork asks for 'get_share_params', which LibMTL's trainer has"),
        (Nothing, BadOption, "neither differentiates the losses nor sets a gradient"),
    ):
        with pytest.raises(error, match=words):
            Loop(from_libmtl(weighting)(2)).step()


def test_both_keep_what_is_expected_of_every_method() -> None:
    report = mtl_study.check_smto(from_torchjd(UPGrad(), key="theirs"))
    assert not report.of("broken")


def test_two_methods_of_others_are_two_runs():
    """Of one key: their class and settings are part of what a run is."""

    class Mean:
        def __init__(self, scale):
            self.scale = scale

        def __repr__(self):
            return f"Mean({self.scale})"

    assert fingerprint(from_torchjd(Mean(1))) == fingerprint(from_torchjd(Mean(1)))
    assert fingerprint(from_torchjd(Mean(1))) != fingerprint(from_torchjd(Mean(2)))
    assert fingerprint(from_libmtl(Mean)) != fingerprint(from_libmtl(dict))
    assert fingerprint(from_libmtl(Mean, c=1)) != fingerprint(from_libmtl(Mean, c=2))
