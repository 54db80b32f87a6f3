"""Ranks and spreads over tasks, by hand."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mtl_core import problems
from mtl_study.analysis import rankings

CL, RR = problems.get("multimnist/CL_RR").tasks
S = dataclasses.replace(CL, name="S", metrics={name: CL.metrics["accuracy"] for name in ("acc", "mIoU")})  # both rise


def test_mean_rank_averages_ties_and_counts_a_task_once():
    """acc: a, b tie at the top (1.5 each), c third; mIoU: c, b, a; RR: a, b, c. MR(a) = ((1.5 + 3)/2 + 1)/2."""
    found = pd.DataFrame({"smto": list("abc"), "S/acc": [5, 5, 1], "S/mIoU": [1, 2, 3], "RR": [3, 2, 1]})
    assert rankings.mean_rank(found, [S, RR]).to_dict() == pytest.approx({"a": 1.625, "b": 1.875, "c": 2.5})


def test_a_method_that_lost_a_run_is_not_ranked_by_those_that_survived():
    """b has the best mean of what is left, and one run without a value: it comes last."""
    found = pd.DataFrame({"smto": list("abcabc"), "CL": [1, 9, 0, 1, math.nan, 0]})
    assert rankings.mean_rank(found, [CL]).to_dict() == {"a": 1, "c": 2, "b": 3}


def test_places_and_ties_by_hand():
    """b is 1 below a at every seed, give or take 0.01, and d 4 below b; c cannot be told from a or b."""
    table = pd.DataFrame({"a": [5, 6, 7], "b": [4, 5, 6.01], "c": [4.2, 4.6, 5.9], "d": [0, 1.01, 2]})
    found = rankings.places(table)
    assert found[["place", "first", "last"]].to_numpy().tolist() == [[1, 1, 2], [2, 2, 3], [3, 1, 3], [4, 4, 4]]
    assert found.ties.to_dict() == {"a": "a", "b": "b", "c": "b", "d": "c"}
    one_seed = rankings.places(table.iloc[:1])
    assert (one_seed["first"] == 1).all() and (one_seed["last"] == 4).all() and set(one_seed.ties) == {"a"}


def test_a_method_that_lost_a_run_may_have_any_place():
    table = pd.DataFrame({"a": [5.0, 6, 7], "b": [1, 2, 3.01], "c": [99, 99, math.nan]})
    found = rankings.places(table)
    assert found.loc["c", ["place", "first", "last"]].tolist() == [3, 1, 3]
    assert found["last"].to_dict() == {"a": 2, "b": 3, "c": 3}


def coverage(intervals, draws, m=6, n=5):
    """The share of (draw, method) in which the interval of places holds the true place; spreads from 0.5 to 4, and a
    luck of the seed that all share."""
    rng, truth = np.random.default_rng(0), np.linspace(0.5, 0, m)
    held = []
    for _ in range(draws):
        noise = rng.normal(size=(n, m)) * np.linspace(0.5, 4, m) + 3 * rng.normal(size=(n, 1))
        first, last = intervals(pd.DataFrame(truth + noise, columns=list("abcdef")))
        held.append((first <= np.arange(1, m + 1)) & (np.arange(1, m + 1) <= last))
    return np.mean(held, axis=0)


def bootstrapped(table):
    """The percentile bootstrap of places over seeds, which is what one would take first."""
    rng = np.random.default_rng(1)
    means = table.to_numpy()[rng.integers(len(table), size=(199, len(table)))].mean(axis=1)
    ranks = stats.rankdata(-means, axis=1)
    return np.floor(np.quantile(ranks, 0.025, axis=0)), np.ceil(np.quantile(ranks, 0.975, axis=0))


@pytest.mark.slow
def test_an_interval_of_places_holds_the_true_place():
    """Of every method in 95 % of draws or more, whatever its spread; a bootstrap over five seeds has too few."""
    ours = coverage(lambda table: tuple(rankings.places(table)[["first", "last"]].to_numpy().T), 200)
    assert ours.min() > 0.95 - 2 * math.sqrt(0.05 * 0.95 / 200)
    assert coverage(bootstrapped, 200).min() < 0.93


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
