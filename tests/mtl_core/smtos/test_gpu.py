"""Every method on a GPU does what it does on the CPU. `make test-all MARK=gpu` runs these."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from mtl_core import problems
from mtl_core.smtos.registry import build, keys
from mtl_core.step import Step

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")]

GPU = "cuda"
OPTIONS: dict[str, dict] = {
    "fixed": {"weights": [0.3, 0.7]},
    "bayesagg_mtl": {"warm_up": 0},  # so that the steps are the method's own
    "stch": {"warm_up": 0},
}


def two_steps(toy, key: str, device: str) -> list[torch.Tensor]:
    """All gradients of two steps of gradient descent on a device, so that what has a memory has one; on the CPU."""
    toy.model.to(device)
    toy.x, toy.targets = toy.x.to(device), [target.to(device) for target in toy.targets]
    smto = build(key, 2, **OPTIONS.get(key, {}))
    smto.set_up(toy.setting, seed=1)
    smto.to(device).to(torch.float64)
    optimizer = torch.optim.SGD([{"params": list(toy.model.parameters())}, *smto.parameter_groups(0.01)], lr=0.01)
    found = []
    smto.begin_epoch(0, None, 0.01)
    for number in range(2):
        before = [p.detach().clone() for p in toy.model.encoder.parameters()]
        (applied,) = toy.train(smto, optimizer, range(number, number + 1))
        for weights in (applied.weights, applied.head_weights):
            assert weights.device.type == torch.device(device).type
        moved = [not torch.equal(p, old) for p, old in zip(toy.model.encoder.parameters(), before, strict=True)]
        assert all(moved)
        found += [p.grad.cpu() for p in [*toy.model.parameters(), *smto.parameters()] if p.grad is not None]
    return found


@pytest.mark.parametrize("key", keys())
def test_a_step_on_the_gpu_is_that_on_the_cpu(make_toy, key) -> None:
    """Gradients of encoder, heads and method in float64. Chance is drawn on the host, the same for both."""
    on_gpu, on_cpu = two_steps(make_toy(), key, GPU), two_steps(make_toy(), key, "cpu")
    assert_close(on_gpu, on_cpu, rtol=1e-6, atol=1e-9)
    assert all(gradient.isfinite().all() for gradient in on_gpu)


def test_gradients_of_molecules_come_at_once(monkeypatch) -> None:
    """QM9's network asks for it: eleven rows of one batched pass are those of eleven passes, to rounding."""
    problem = problems.get("qm9", max_atoms=11, slim=4)
    problem.data.prepare("embedded", (32, 8, 8), None)
    data = problem.data.load("embedded", (32, 8, 8), None, torch.device(GPU), torch.float64)["train"]
    torch.manual_seed(0)
    model = problem.build_model(0.0).to(GPU, torch.float64)
    x, targets = data.batch(torch.arange(8, device=GPU), problem.task_names)
    losses = [task.loss for task in problem.tasks]
    at_once = Step(model, losses, x, targets).jacobian
    monkeypatch.setattr(type(model.encoder), "gradients_at_once", False)
    assert_close(at_once, Step(model, losses, x, targets).jacobian)
