"""The loop in README.md is a working one."""

import re
from pathlib import Path

import numpy as np
import torch

TEXT = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_loop_takes_a_step():
    """Every weight has moved, and the Gramian beside it is answered as CAGrad answers: both tasks gain."""
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    before = "optimizer = torch"
    assert code.count(before) == 1
    names: dict = {}
    torch.manual_seed(0)
    exec(code.replace(before, f"start = [p.detach().clone() for p in model.parameters()]\n{before}"), names)
    after = list(names["model"].parameters())
    assert len(after) == 6 and not any(torch.equal(p, old) for p, old in zip(after, names["start"], strict=True))
    (gramian,) = re.findall(r"`smto\.solve\((.*?)\)`", TEXT)
    gramian = eval(gramian)
    assert (np.array(gramian) @ names["smto"].solve(gramian) > 0).all()
