"""κ has its formula for two tasks and none for more; the least c that hurts nobody is CAGrad's."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mtl_core import smtos
from mtl_study.analysis.failures import margin
from mtl_study.teaching import imbalance

RNG = np.random.default_rng(2)


def pair(ratio, degrees):
    cos = np.cos(np.deg2rad(degrees))
    return np.array([[ratio**2, ratio * cos], [ratio * cos, 1.0]])


def test_kappa_by_hand():
    """Equal lengths: 1, whatever the angle. A right angle: 2r/(r² + 1). Parallel: the shorter is the shortest."""
    assert_allclose(imbalance.kappa(1.0, np.array([-0.9, 0.0, 0.9])), 1)
    assert_allclose(imbalance.kappa(np.array([2.0, 3.0]), 0.0), [0.8, 0.6])
    assert_allclose(imbalance.kappa(3.0, 1.0), 1)
    assert_allclose(imbalance.kappa(10.0, np.cos(np.pi / 6)), 0.888, atol=5e-4)
    assert_allclose(imbalance.kappa(10.0, np.cos(5 * np.pi / 6)), 0.100, atol=5e-4)


def test_the_formula_is_what_imgrad_computes_and_no_other_is():
    gramians = {shared: imbalance.random_gramians(shared, 60, 2, RNG) for shared in imbalance.SHARED}
    table = imbalance.measured(gramians)
    found = imbalance.correlations(table)
    assert found.deviation.max() < 1e-12 and set(found.gramians) == {60}
    assert (found.spearman < -0.8).all()
    shifted = imbalance.correlations(table.assign(closed=imbalance.kappa(1.001 * table.ratio, table.cosine)))
    assert shifted.deviation.min() > 1e-6
    assert imbalance.falls()


def test_a_formula_that_rises_somewhere_is_told(monkeypatch):
    monkeypatch.setattr(imbalance, "kappa", lambda ratio, cosine: np.cos(ratio) * (1 + 0 * cosine))
    assert not imbalance.falls()


def test_more_tasks_have_no_formula_and_zeros_are_left_out():
    gramians = [*imbalance.random_gramians(1.0, 5, 4, RNG), np.diag([1.0, 0.0, 1.0, 1.0])]
    table = imbalance.measured({"some": gramians})
    assert len(table) == 5 and table.closed.isna().all() and (table.ratio >= 1).all()
    assert np.isnan(imbalance.correlations(table[:2]).spearman[0])


def test_of_eleven_tasks_kappa_tells_less_the_more_they_share():
    """Random Gramians by the same recipe, worked out here; each value lies within the interval of the other's."""
    found = []
    for shared in imbalance.SHARED:
        J = RNG.normal(size=(400, 11, 40)) + shared * RNG.normal(size=(400, 1, 40))
        J *= np.exp(RNG.normal(0, 0.7, (400, 11, 1)))
        table = imbalance.measured({shared: imbalance.random_gramians(shared, 400, 11, RNG)})
        found.append(row := imbalance.correlations(table).iloc[0])
        other = imbalance.correlations(imbalance.measured({shared: J @ J.swapaxes(1, 2)})).spearman[0]
        assert 2 * row.low - row.spearman < other < 2 * row.high - row.spearman
    assert (np.diff([row.spearman for row in found]) > 0.05).all()
    assert found[0].high < -0.7 and found[-1].low > -0.5


@pytest.mark.parametrize("shared", [0.0, 2.0])
def test_the_interval_of_a_rank_correlation_holds_what_it_promises(shared):
    """Over 150 sets of 60 Gramians it holds the value of them all as often as it says, give or take chance."""
    G = imbalance.random_gramians(shared, 9000, 5, np.random.default_rng(3))
    table = imbalance.measured({shared: G})
    whole = imbalance.correlations(table).spearman[0]
    parts = [imbalance.correlations(table[i : i + 60]).iloc[0] for i in range(0, 9000, 60)]
    assert 0.90 <= np.mean([part.low <= whole <= part.high for part in parts]) <= 0.99
    assert np.isnan(imbalance.interval(0.5, 3)).all()
    # by hand: z = .549, standard error √(1.125/97) = .1077
    assert_allclose(imbalance.interval(0.5, 100), np.tanh([0.5493 - 0.2111, 0.5493 + 0.2111]), atol=1e-3)


@pytest.mark.parametrize(("ratio", "degrees"), [(4.0, 150.0), (2.0, 100.0), (1.2, 170.0), (30.0, 120.0)])
def test_below_the_least_c_cagrad_hurts_a_task_and_above_it_does_not(ratio, degrees):
    G, c = pair(ratio, degrees), imbalance.least_c(pair(ratio, degrees))
    margins = [margin(G, smtos.build("cagrad", 2, c=x).solve(G)) for x in (c - 0.01, c + 0.01) if x >= 0]
    assert margins[-1] > 0 and (c == 0 or margins[0] < 0)


def test_the_least_c_by_hand():
    """g = (4, 0) and (−½, √¾): the mean is (7/4, √3/4), 1.803 long, and along the second −½."""
    assert_allclose(imbalance.least_c(pair(4.0, 120.0)), 0.5 / np.sqrt(13) * 2, rtol=1e-6)
    assert imbalance.least_c(pair(4.0, 80.0)) == 0
