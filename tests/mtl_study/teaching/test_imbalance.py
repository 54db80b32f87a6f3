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
    gramians = {kind: imbalance.random_gramians(kind, 60, 2, RNG) for kind in imbalance.SHARED}
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
    gramians = [*imbalance.random_gramians(imbalance.IN_COMMON, 5, 4, RNG), np.diag([1.0, 0.0, 1.0, 1.0])]
    table = imbalance.measured({"some": gramians})
    assert len(table) == 5 and table.closed.isna().all() and (table.ratio >= 1).all()
    assert np.isnan(imbalance.correlations(table[:2]).spearman[0])


@pytest.mark.parametrize(("ratio", "degrees"), [(4.0, 150.0), (2.0, 100.0), (1.2, 170.0), (30.0, 120.0)])
def test_below_the_least_c_cagrad_hurts_a_task_and_above_it_does_not(ratio, degrees):
    G, c = pair(ratio, degrees), imbalance.least_c(pair(ratio, degrees))
    margins = [margin(G, smtos.build("cagrad", 2, c=x).solve(G)) for x in (c - 0.01, c + 0.01) if x >= 0]
    assert margins[-1] > 0 and (c == 0 or margins[0] < 0)


def test_the_least_c_by_hand():
    """g = (4, 0) and (−½, √¾): the mean is (7/4, √3/4), 1.803 long, and along the second −½."""
    assert_allclose(imbalance.least_c(pair(4.0, 120.0)), 0.5 / np.sqrt(13) * 2, rtol=1e-6)
    assert imbalance.least_c(pair(4.0, 80.0)) == 0
