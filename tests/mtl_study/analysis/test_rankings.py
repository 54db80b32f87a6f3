"""Ranks and spreads over tasks, by hand."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from mtl_core import problems
from mtl_study.analysis import rankings

CL, RR = problems.get("multimnist/CL_RR").tasks
S = dataclasses.replace(CL, name="S", metrics={name: CL.metrics["accuracy"] for name in ("acc", "mIoU")})  # both rise


def test_mean_rank_averages_ties_and_counts_a_task_once():
    """acc: a, b tie at the top (1.5 each), c third; mIoU: c, b, a; RR: a, b, c. MR(a) = ((1.5 + 3)/2 + 1)/2."""
    found = pd.DataFrame({"smto": list("abc"), "S/acc": [5, 5, 1], "S/mIoU": [1, 2, 3], "RR": [3, 2, 1]})
    assert rankings.mean_rank(found, [S, RR]).to_dict() == pytest.approx({"a": 1.625, "b": 1.875, "c": 2.5})


def test_mean_ranks_sum_to_the_sum_of_ranks():
    values = np.random.default_rng(0).normal(size=(7, 2))
    found = pd.DataFrame(values, columns=["CL", "RR"]).assign(smto=list("abcdefg"))
    assert rankings.mean_rank(found, [CL, RR]).sum() == pytest.approx(28)


def test_task_statistics_with_and_without_the_average_as_a_value():
    """Gains −8, 0, 2 with mean −2: median 0, sd √(56/3); with the mean as a fourth value −1 and √(56/4) = √14."""
    tasks = [dataclasses.replace(CL, name=name) for name in "abc"]
    found = pd.DataFrame({"smto": ["x", "x"], "a": [-9, -7], "b": [0, 0], "c": [2, 2]})
    ours = rankings.task_statistics(found, tasks).loc["x"]
    released = rankings.task_statistics(found, tasks, as_released=True).loc["x"]
    assert ours.tolist() == pytest.approx([-8, 2, 0, math.sqrt(56 / 3), -2])
    assert released.tolist() == pytest.approx([-8, 2, -1, math.sqrt(14), -2])
