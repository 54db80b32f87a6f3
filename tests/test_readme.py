"""The loops in README.md and docs/own_loops.md are working ones, with every method."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import mtl_core
from mtl_core import smtos
from mtl_core.balancer import Unmet
from mtl_core.smtos.base import NEEDS
from mtl_core.smtos.registry import keys

REPOSITORY = Path(__file__).parents[1]
TEXT = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PAGE = (REPOSITORY / "docs" / "own_loops.md").read_text(encoding="utf-8")
OPTIONS: dict[str, dict] = {"fixed": {"weights": [0.3, 0.7]}, "bayesagg_mtl": {"warm_up": 1}}


def blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def run(text: str, key: str, names: dict[str, Any]) -> None:
    """A page's first block of Python, with another method; where it began is in `start`."""
    code = blocks(text)[0]
    assert code.count('"cagrad"') == code.count("optimizer = torch") == 1
    names["method"] = smtos.build(key, 2, **OPTIONS.get(key, {}))
    code = code.replace('"cagrad"', "method")
    torch.manual_seed(0)
    note = "start = [p.detach().clone() for p in network.parameters()]"
    exec(code.replace("optimizer = torch", f"{note}\noptimizer = torch"), names)


def moved(names: dict[str, Any]) -> list[bool]:
    return [not torch.equal(p, old) for p, old in zip(names["network"].parameters(), names["start"], strict=True)]


@pytest.mark.parametrize("key", keys())
def test_the_loop_takes_a_step_or_says_what_is_missing(key: str) -> None:
    """Every weight has moved; or none, and the message names every call that this method needs."""
    names: dict[str, Any] = {}
    needs = set(smtos.build(key, 2, **OPTIONS.get(key, {})).required()) - {"features", "after_step"}
    if not needs:
        run(TEXT, key, names)
        assert moved(names) == [True] * 6
        return
    with pytest.raises(Unmet, match=f"^{key} needs ") as refusal:
        run(TEXT, key, names)
    assert not any(moved(names))
    before = needs & {"lr", "likelihoods", "feature_shape", "heads"} or needs
    assert {need for need, words in NEEDS.items() if words in str(refusal.value)} == before


def test_the_loop_that_serves_every_method_does() -> None:
    """Network and what the method learns by the optimizer move, and it takes three epochs of four steps."""
    for key in keys():
        names: dict[str, Any] = {}
        run(PAGE, key, names)
        assert moved(names) == [True] * 6, key
        assert all(bool(p.any()) for p in names["method"].parameters()), key


def test_torchjd_gives_the_same_gradients() -> None:
    """To six digits, in single precision."""
    found = []
    for code in blocks(PAGE)[1:]:
        torch.manual_seed(0)
        trunk, heads, x = (
            nn.Sequential(nn.Linear(8, 5), nn.Tanh()),
            [nn.Linear(5, 1), nn.Linear(5, 1)],
            torch.randn(9, 8),
        )
        z = trunk(x)
        losses = [(heads[0](z) - x[:, :1]).square().mean(), (heads[1](z) + 3 * x[:, :1]).square().mean()]
        exec(code, {"mtl_core": mtl_core, "trunk": trunk, "losses": losses, "z": z})
        found.append([p.grad for module in (trunk, *heads) for p in module.parameters()])
    assert_close(*found, rtol=1e-6, atol=1e-6)


def test_the_gramian_is_answered() -> None:
    """As CAGrad answers it: both tasks gain."""
    ((call, gramian),) = re.findall(r"`(smtos\.build\(.*?\)\.solve\((.*?)\))`", TEXT)
    assert (np.array(eval(gramian)) @ eval(call) > 0).all()
