"""Runs repeat on a GPU. `make test-all MARK=gpu` runs these."""

from __future__ import annotations

import pytest
import torch

from mtl_study.experiments.runs import RunConfig
from mtl_study.experiments.training import train

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")]

GPU = "cuda"
FAMILIES = {
    "multimnist/CL_RR": ({}, {"dropout": 0.3}),
    "cityscapes/19C": ({"width": 32, "slim": 16}, {"dropout": 0.3}),
    "qm9": ({"max_atoms": 11, "slim": 4}, {}),
}


@pytest.mark.parametrize("problem", FAMILIES)
def test_a_run_on_the_gpu_repeats(problem, tmp_path_factory, monkeypatch) -> None:
    """Two epochs of every family, twice: the same record, except for the seconds, made on a GPU."""
    options, settings = FAMILIES[problem]
    if problem.startswith("cityscapes"):
        monkeypatch.setenv("MTL_DATA", str(tmp_path_factory.mktemp("data")))
    config = RunConfig.of(
        problem=problem,
        smto="imtl",
        problem_options=options,
        **{"train_size": 32, "val_size": 8, "test_size": 8, "batch_size": 8, "epochs": 2, "lr": 0.001, "seed": 1},
        **settings,
    )
    one, two = (train(config, GPU).model_dump(exclude={"seconds", "clock"}) for _ in range(2))
    assert one == two
    assert one["ended"] == "finished" and one["environment"]["device"].startswith(GPU)
