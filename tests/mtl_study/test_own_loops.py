"""Every method in your own loop takes the trainer's gradients, however it trains: docs/methods.md's table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mtl_core.smtos.registry import keys
from mtl_study.own_loops import REFUSED, WAYS, Way, across, apart, by_hand, by_trainer, digits


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
    ways = {name: way for name, way in WAYS.items() if way.replicas[1] == 1}
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
        with pytest.raises(ValueError, match=f"{key}.*missing"):
            by_hand(key, WAYS[name])
