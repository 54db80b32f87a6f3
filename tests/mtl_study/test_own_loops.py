"""Every method in your own loop takes the trainer's gradients, however it trains: docs/methods.md's table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from mtl_core.balancer import Unmet
from mtl_core.diagnosis import diagnose
from mtl_core.smtos.registry import keys
from mtl_study.own_loops import REFUSED, WAYS, Way, across, apart, by_hand, by_trainer, digits, samples


def wrong(ways: dict[str, Way], among: Sequence[str] | None = None) -> dict[tuple[str, str], float]:
    """Where fewer digits agree than the table says: by how much they are apart."""
    found = {}
    for key in among or keys():
        for name, way in ways.items():
            if (key, name) not in REFUSED:
                gap = apart(by_hand(key, way), by_trainer(key, replace(way, saved=-1)))
                if gap > 10.0 ** -(digits(key, name) or 0):
                    found[key, name] = gap
    return found


def test_some_methods_take_them_in_every_way_within_one_process() -> None:
    """One of each kind, for a look that takes no time; the slow tests have all."""
    ways = {name: way for name, way in WAYS.items() if way.replicas[1] == 1 and way.wrap != "compiled"}
    assert wrong(ways, ("cagrad", "famo", "rotograd")) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, way in WAYS.items() if way.replicas[1] == 1])
def test_every_cell_of_the_table(name: str) -> None:
    assert wrong({name: WAYS[name]}) == {}


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    """With half of each batch each: the same gradients in both, bit for bit, and those of the whole batch."""
    torch.multiprocessing.spawn(across, (2, str(tmp_path / "meeting"), keys(), str(tmp_path)), nprocs=2)
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for key in keys():
        assert apart(one[key], other[key]) == 0, key
        assert apart(one[key], by_trainer(key, Way())) <= 10.0 ** -(digits(key, "two processes") or 0), key


def test_what_is_refused_is_refused_by_name() -> None:
    for key, name in REFUSED:
        words = (
            "missing"
            if WAYS[name].partial
            else r"one tensor of features|transform\(z, k\)|remembers each shared parameter"
        )
        with pytest.raises((ValueError, Unmet), match=words):
            by_hand(key, WAYS[name])


class Single(Way):
    dtype = torch.float32


class NoFloat64(TorchDispatchMode):
    """A device without float64, played on the CPU: a tensor in float64 is on the host, one in float32 on the device,
    whole numbers where they come from; one that is drawn or filled may be on either. `wrong` has what takes tensors of
    both places (a scalar of the host may join) or makes float64 of what is on the device, but in `in_float64`."""

    def __init__(self, *on_device: Tensor) -> None:
        super().__init__()
        self.wrong, self.known = set[str](), WeakTensorKeyDictionary()
        for tensor in on_device:
            self.known[tensor] = "device"

    def place(self, tensor: Tensor) -> str | None:
        if tensor.dtype == torch.float64:
            return "host"
        return self.known.get(tensor, "device" if tensor.is_floating_point() else None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        taken = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        places = {self.place(t) for t in taken if t.dim() or self.place(t) == "device"} - {None}
        made = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        callers = [sys._getframe(depth).f_code.co_name for depth in range(2, 5)]
        copied = name in ("_to_copy", "copy_")
        if copied and "device" in places and any(self.place(t) == "host" for t in made) and "in_float64" not in callers:
            self.wrong.add(f"{name} to float64")
        if not copied and len(places) > 1:
            self.wrong.add(f"{name} of both places")
        for tensor in made:
            if not taken or (places and not tensor.is_floating_point()):
                self.known[tensor] = min(places, default=None)
        return out


def without_float64(among: Sequence[str]) -> dict[str, set[str]]:
    labels = samples(torch.float32)[1][0]
    found = {}
    for key in among:
        with NoFloat64(labels) as device:
            by_hand(key, Single())
        found[key] = device.wrong
    return {key: wrong for key, wrong in found.items() if wrong}


def test_a_device_without_float64_keeps_it_on_the_host() -> None:
    assert without_float64(("cagrad", "modo", "bayesagg_mtl", "go4align")) == {}


def test_gradients_are_compared_without_float64_on_the_device() -> None:
    trunk, head = torch.nn.Linear(3, 4), torch.nn.Linear(4, 1)
    with NoFloat64() as device:
        z = trunk(torch.randn(5, 3))
        diagnose([head(z).square().mean(), z.abs().sum()], z, shared=trunk.parameters())
    assert device.wrong == set()


@pytest.mark.slow
def test_no_method_needs_float64_on_the_device() -> None:
    assert without_float64(keys()) == {}
