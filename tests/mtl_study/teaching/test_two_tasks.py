"""Closed forms for two tasks are the package's methods."""

import numpy as np
from numpy.testing import assert_allclose

from mtl_core import smtos
from mtl_core.smtos.imgrad import balance
from mtl_study.analysis.failures import READINGS
from mtl_study.teaching import landscape, two_tasks

RNG = np.random.default_rng(0)
POINTS = RNG.uniform(-10, 10, (30, 2))
GRADIENTS = landscape.gradients(POINTS) * 10 ** RNG.uniform(-3, 3, (len(POINTS), 2, 1))  # long and short


def same(weights, smto, G=GRADIENTS, tolerance=1e-9):
    for one, found in zip(G, weights, strict=True):
        expected = smto.solve(one @ one.T) @ one
        assert_allclose(found @ one, expected, atol=tolerance * np.abs(expected).max())


def test_methods_are_those_of_the_package():
    options = {"pcgrad": {"order": "index"}, "mgda": {"normalize": "none"}}
    for key in ("pcgrad", "mgda", "imtl_g", "nash_mtl", "aligned_mtl"):
        same(two_tasks.METHODS[key](GRADIENTS), smtos.build(key, 2, **options.get(key, {})))
    same(two_tasks.pcgrad(GRADIENTS), smtos.build("upgrad", 2), tolerance=1e-4)  # for two tasks one method
    same(two_tasks.imtl_g(GRADIENTS), smtos.build("edm", 2))


def test_every_reading_of_imgrad_is_that_of_the_package():
    for reading in READINGS:
        smto = smtos.build("imgrad", 2, c=0.4, rescale=2, reading=reading)
        tolerance = 1e-5 if reading == "eq9" else 1e-9  # found by halving
        same(two_tasks.imgrad(GRADIENTS, 0.4, reading), smto, tolerance=tolerance)
    assert_allclose(two_tasks.balance(GRADIENTS), [balance(J @ J.T) for J in GRADIENTS], atol=1e-9)


def test_opposite_gradients_leave_nothing_to_the_bisector():
    G = np.array([[[1.0, 2.0], [-0.5, -1.0]]])
    assert_allclose(two_tasks.nash_mtl(G), 0)
    assert_allclose(two_tasks.mgda(G) @ G[0], 0, atol=1e-15)
    assert two_tasks.balance(G) == 0
