"""Nothing in a step assumes a CPU: one step of every SMTO runs on PyTorch's meta device, where tensors have shapes and
no numbers, and where reading a number is an error. The K×K problems, solved on the host, are replaced by constants."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_core.smtos.base import GramianWeighting, ProblemInfo
from mtl_core.smtos.registry import build, keys
from mtl_core.step import MultiTaskModel, Step

COMBINATIONS = [
    ("rotograd", {"inner": "edm"}),
    ("rotograd", {"inner": "nash_mtl", "start": "haar"}),
    ("auto_lambda", {"inner": "cagrad"}),
    ("auto_lambda", {"gradients": "finite_difference", "inner": "rotograd"}),
    ("graddrop", {"space": "parameters", "leak": [0.1, 0.2]}),
    ("graddrop", {"mode": "random"}),
    ("famo", {"masks": "fresh", "max_norm": 1.0}),
    ("gradnorm", {"start": "first_epoch"}),
]
CASES = [
    (key, {"fixed": {"weights": [1.0, 2.0]}, "bayesagg_mtl": {"warm_up": 0}}.get(key, {})) for key in keys()
] + COMBINATIONS


@pytest.mark.parametrize(("key", "options"), CASES, ids=str)
def test_a_step_on_the_meta_device(key: str, options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    def constants(self: GramianWeighting, gramian: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
        assert gramian.is_meta and gramian.dtype == torch.float64 and gramian.shape == (2, 2)
        weights = torch.full((2,), 0.5, dtype=torch.float64, device="meta")
        return weights, weights

    monkeypatch.setattr(GramianWeighting, "on_host", constants)
    encoder = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5))
    heads = {"a": nn.Sequential(nn.Linear(5, 3), nn.LogSoftmax(1)), "b": nn.Linear(5, 4)}
    model = MultiTaskModel(encoder, heads).to("meta")
    smto = build(key, 2, **options)
    smto.set_up(ProblemInfo(("softmax", "gaussian"), (5,), lr=0.01, weight_decay=0.0), seed=1)
    smto.to("meta")
    optimizer = torch.optim.Adam([{"params": list(model.parameters())}, *smto.parameter_groups(0.01)], lr=0.01)

    x = torch.empty(6, 1, 6, 6, device="meta")
    targets = [torch.empty(6, dtype=torch.long, device="meta"), torch.empty(6, 4, device="meta")]
    smto.begin_epoch(0, None, 0.01)
    step = Step(
        model,
        [F.nll_loss, F.mse_loss],
        x,
        targets,
        transform_features=smto.transform_features,
        second_batch=lambda: (x, targets),
        replay=smto.replay,
    )
    applied = smto.backward(step)
    optimizer.step()
    smto.after_step(step)
    smto.begin_epoch(1, torch.ones(2, device="meta"), 0.01)
    assert applied.weights.is_meta and applied.weights.shape == (2,)
    assert all(p.grad.is_meta and p.grad.shape == p.shape for p in [*model.parameters(), *smto.parameters()])
