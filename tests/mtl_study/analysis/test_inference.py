"""Intervals and tests of one sample, against theory, scipy and numbers by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from mtl_study.analysis import inference


def test_t_interval_covers_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(size=(4000, 5))
    hits = [low <= 0 <= high for _, low, high, _ in map(inference.t_interval, draws)]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.012)


def test_tost_agrees_with_the_90_percent_interval():
    """p < 0.05 exactly where the 90 % interval lies within the margin."""
    rng = np.random.default_rng(0)
    verdicts = []
    for _ in range(300):
        values = rng.normal(rng.uniform(-2, 2), 0.5, rng.integers(2, 8))
        _, low, high, _ = inference.t_interval(values, 0.90)
        verdicts.append(low > -1 and high < 1)
        assert (inference.tost(values, 1) < 0.05) == verdicts[-1]
    assert 30 < sum(verdicts) < 270  # both happened


def test_spearman_p_is_exact_for_few_points():
    """Four points in order: 2 of the 24 orders are as extreme (this one and its reverse)."""
    assert inference.spearman([1, 2, 3, 4], [1, 8, 27, 64]) == (pytest.approx(1), pytest.approx(1 / 12), 4, True)
    assert inference.spearman([1, 2, 3], [3, 2, 1]) == (pytest.approx(-1), pytest.approx(1 / 3), 3, True)


def test_spearman_agrees_with_scipy_with_ties_and_for_many_points():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, 16), rng.integers(0, 6, 16)
    ours, theirs = inference.spearman(x, y), stats.spearmanr(x, y)
    assert not ours.exact
    assert ours.rho == pytest.approx(theirs.statistic) and ours.p == pytest.approx(theirs.pvalue, abs=0.02)
    assert math.isnan(inference.spearman([1, 1, 1], [1, 2, 3]).rho)
