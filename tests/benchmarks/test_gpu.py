"""`make bench` on a GPU: a time ends when the device has done its work. `make test-all MARK=gpu` runs these."""

from __future__ import annotations

import pytest
import torch

from benchmarks import speed
from mtl_core import smtos

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")]

GPU = torch.device("cuda")


def test_a_time_is_that_of_the_device() -> None:
    """What is measured of a product of matrices, which the host only asks for, is what the device's own events say."""
    matrix = torch.randn(4096, 4096, device=GPU)
    work = lambda: [matrix @ matrix for _ in range(20)]  # noqa: E731
    table = speed.interleaved({"work": work}, 5, {"×": "work"}, GPU)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    assert table.ms["work"] == pytest.approx(start.elapsed_time(end), rel=0.5)


def test_every_method_has_a_step_and_an_epoch() -> None:
    """But the one that LeNet's heads do not suit. test_speed.py asks the same of a processor."""
    steps = speed.steps(rounds=2, device=GPU)
    assert [name for name in steps.index if name in smtos.keys()] == speed.entered()  # noqa: SIM118
    assert (steps.ms > 0).all()
    sizes = {"train_size": 64, "val_size": 16, "test_size": 16, "batch_size": 32}
    epochs = speed.epochs(GPU, {"multimnist/CL_RR": sizes})
    assert epochs.method.tolist() == speed.entered()
    assert (epochs.ended == "finished").all() and (epochs["peak, MiB"] > 0).all()


def test_loading_and_both_ways_of_upsampling_are_measured(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MTL_DATA", str(tmp_path))
    rows = {"cityscapes/R18": speed.LOADED["cityscapes/R18"]._replace(sizes=(16, 4, 4))}
    assert (speed.loading(rounds=2, what=rows, device=GPU).filter(like="steps/s") > 0).all().all()
    table = speed.upsampling(rounds=2, device=GPU, images=4)
    assert list(table.index) == ["kernel", "products"] and (table > 0).all().all()
