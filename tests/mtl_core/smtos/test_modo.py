"""MoDo, SDMGrad, MoCo: weights that follow gradients of further batches, or averages of gradients."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, cycle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from mtl_core.smtos import modo
from mtl_core.smtos.modo import on_simplex
from mtl_core.smtos.registry import build
from mtl_core.step import MultiTaskModel, Step

ONE, TWO, THREE = [[2.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [0.0, 3.0]], [[1.0, 0.0], [1.0, 2.0]]


def step(gradients: list[list[float]], *further: list[list[float]], losses: tuple[float, ...] = (0.0, 0.0)) -> Step:
    """A step of two tasks whose gradients on two shared weights are given, with further batches of this kind: features
    are the weights (0), and loss k is g_k·z + c_k."""
    encoder = nn.Linear(1, 2, bias=False).double()
    nn.init.zeros_(encoder.weight)
    model = MultiTaskModel(encoder, {"a": nn.Identity(), "b": nn.Identity()})
    batches: Iterator[Any] = cycle([targets(rows, losses) for rows in further] or [None])
    functions = [lambda z, y: (z[0] * y[:2]).sum() + y[2]] * 2
    x, y = targets(gradients, losses)
    return Step(model, functions, x, y, second_batch=(lambda: next(batches)) if further else None)


def targets(gradients: list[list[float]], losses: tuple[float, ...]) -> tuple[Tensor, list[Tensor]]:
    rows = [torch.tensor([*row, loss], dtype=torch.float64) for row, loss in zip(gradients, losses, strict=True)]
    return torch.ones(1, 1, dtype=torch.float64), rows


def shared(one: Step) -> Tensor:
    (parameter,) = one.model.encoder.parameters()
    return parameter.grad.flatten()


def test_the_nearest_point_of_the_simplex() -> None:
    """By hand, and by the conditions that tell it from all others: v − p is the same wherever p > 0, and no greater
    elsewhere."""
    assert_close(on_simplex(torch.tensor([0.5, 0.9])), torch.tensor([0.3, 0.7]))
    assert_close(on_simplex(torch.tensor([2.0, 0.5, -1.0])), torch.tensor([1.0, 0.0, 0.0]))
    for v in torch.randn(50, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64):
        p = on_simplex(v)
        gap, inside = v - p, p > 0
        assert abs(float(p.sum()) - 1) < 1e-12 and (p >= 0).all()
        assert float(gap[inside].max() - gap[inside].min()) < 1e-12
        assert not (~inside).any() or float(gap[~inside].max()) <= float(gap[inside].min()) + 1e-12


def test_modo_by_hand() -> None:
    """J₁J₂ᵀ = [[1, 1], [2, 6]] on w = (½, ½) is (1, 4); with ρ = 2 and γ = 0.1 w loses (0.2, 0.5): Π(0.3, 0) is
    (0.65, 0.35). The update is Jᵀw of this batch."""
    smto = build("modo", 2, gamma=0.1, rho=2.0).double()
    one = step(ONE, THREE, [[1.0, 0.0], [1.0, 1.0]])
    between = torch.tensor(THREE).double() @ torch.tensor([[1.0, 0.0], [1.0, 1.0]]).double().T
    assert_close(step(ONE, THREE).second_jacobian(), torch.tensor(THREE).double())
    w = torch.tensor([0.5, 0.5], dtype=torch.float64)
    expected = on_simplex(w - 0.1 * (between @ w + 2 * w))
    result = smto.backward(one)
    assert_close(result.weights, expected)
    assert_close(shared(one), torch.tensor(ONE).double().T @ expected)


@pytest.mark.agrees("its definition, worked out apart", "modo", "sdmgrad", "moco")
def test_ten_steps_are_those_of_the_definition() -> None:
    """Written once more with numbers instead of steps, from the page."""
    drawn = torch.randn(10, 3, 2, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for key, options in (
        ("modo", {"gamma": 0.3}),
        ("sdmgrad", {}),
        ("sdmgrad", {"reading": "released"}),
        ("moco", {}),
        ("moco", {"rho": 0.2}),
    ):
        smto, released = build(key, 2, **options).double(), "reading" in options
        w, average = torch.full((2,), 0.5, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
        for t, (J, first, second) in enumerate(drawn, 1):
            one = step(J.tolist(), first.tolist(), second.tolist(), losses=(0.7, 2.0))
            smto.backward(one)
            if key == "modo":
                w = on_simplex(w - 0.3 * (first @ second.T @ w + 0.1 * w))
                update = J.T @ w
            elif key == "sdmgrad":
                M = J @ J.T if released else first @ second.T
                length = torch.sqrt(M.diagonal().clamp(min=0) + 1e-4 * released).mean()
                M = M / length**2 if length > 0 else 0 * M
                b = torch.zeros(2, dtype=torch.float64)
                for _ in range(20):
                    b = 0.5 * b + M @ w + 0.3 * M.mean(1)
                    w = on_simplex(w - 10 * b)
                update = (J.T @ w + 0.3 * J.mean(0)) / 1.3 * (2 if released else 1)
            else:
                average = average - 0.5 / t**0.5 * (average - J)
                G = average @ average.T + options.get("rho", 0) * torch.eye(2)
                w = on_simplex(w - 0.1 / t**0.5 * G @ w)
                update = average.T @ w
            assert_close(shared(one), update, rtol=1e-7, atol=1e-9)


def test_the_released_sdmgrad_looks_at_no_further_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Golden: for J = diag(2, 1) with M = diag(4, 1) over ((√4.0001 + √1.0001)/2)², w ends where M (w + 0.15) is equal
    for both, (0.11, 0.89)."""
    monkeypatch.setattr(modo, "STEPS", 2000)
    monkeypatch.setattr(modo, "LR", 0.1)
    smto = build("sdmgrad", 2, reading="released").double()
    assert smto.required() == []
    smto.backward(step(ONE))
    assert_close(smto.w, torch.tensor([0.11, 0.89], dtype=torch.float64))
    with pytest.raises(RuntimeError, match="needs a second batch in every step"):
        build("modo", 2).double().backward(step(ONE))


def test_where_no_task_has_a_gradient_the_weights_stay() -> None:
    zero = [[0.0, 0.0], [0.0, 0.0]]
    smto = build("sdmgrad", 2).double()
    assert smto.backward(step(ONE, zero)).flags == ("no_gradient",)
    assert_close(smto.w, torch.full((2,), 0.5, dtype=torch.float64))


def test_a_further_batch_leaves_no_trace() -> None:
    """Statistics and gradients stay as they were. Masks are drawn anew each time, as batches are."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    model = MultiTaskModel(encoder, {"a": nn.Linear(4, 1), "b": nn.Linear(4, 1)})
    batch = torch.randn(6, 3), [torch.zeros(6, 1)] * 2
    one = Step(model, [nn.functional.mse_loss] * 2, *batch, second_batch=lambda: batch)
    before, state = [b.clone() for b in encoder.buffers()], torch.get_rng_state()
    rows = one.second_jacobian()
    assert rows.shape == (2, sum(p.numel() for p in encoder.parameters())) and rows.any()
    assert_close(list(encoder.buffers()), before)
    assert not torch.equal(torch.get_rng_state(), state) and not torch.equal(one.second_jacobian(), rows)
    assert all(p.grad is None for p in chain(model.parameters()))
