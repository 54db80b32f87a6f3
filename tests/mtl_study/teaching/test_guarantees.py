"""Promises that hold by theorem have no counterexample, and the smallest one of a broken promise is right by hand."""

import itertools

import numpy as np
import pytest

from mtl_study.teaching import guarantees
from mtl_study.teaching.guarantees import BROKEN, smallest

WORSE, STOPS, UNIT, ORDER = BROKEN


def test_problems_come_small_ones_first_and_every_gramian_once():
    for K, largest in ((2, 2), (3, 1)):
        found = guarantees.problems(K)
        every = np.array([v for v in itertools.product(range(-largest, largest + 1), repeat=2) if any(v)], dtype=float)
        gramians = {(J @ J.T).astype(int).tobytes() for J in map(np.array, itertools.product(every, repeat=K))}
        assert len(found) == len(gramians) and {(J @ J.T).astype(int).tobytes() for J in found} == gramians
        sizes = [np.abs(g).sum() for g in found]
        assert sizes == sorted(sizes) and all(g.any(axis=1).all() for g in found)


@pytest.mark.parametrize("key", ["edm", "fairgrad", "imtl_g", "nash_mtl", "upgrad", "config"])
def test_no_task_gets_worse_where_that_is_a_theorem(key):
    """In the plane: IMTL-G's projections can be negative only for three independent gradients and more."""
    assert [smallest(key, WORSE, K) for K in (2, 3)] == ["", ""]


def test_nash_mtl_and_equal_projections_do_not_hang_on_units_and_the_others_do():
    assert {key for key in guarantees.methods() if not smallest(key, UNIT, 2)} == {
        "cdtt", "config", "edm", "imtl_g", "nash_mtl",
    }  # fmt: skip


def test_pcgrad_with_three_tasks_still_conflicts():
    """By hand, in order: v₁ = (0, 0), v₂ = (0, −½), v₃ = (−½, 0); their mean (−⅙, −⅙) is against g₁ = (1, 1)."""
    assert smallest("pcgrad", WORSE, 2) == ""
    assert smallest("pcgrad", WORSE, 3) == "(1, 1), (0, −1), (−1, 0)"
    gradients = np.array([[1.0, 1.0], [0.0, -1.0], [-1.0, 0.0]])
    np.testing.assert_allclose(guarantees.weights("pcgrad", gradients) @ gradients, [-1 / 6, -1 / 6])


def test_cagrad_moves_where_all_is_balanced():
    """(2, 0), (−1, 0): the mean is (½, 0) and 0 is between the two; the second task gets worse."""
    assert smallest("cagrad", WORSE, 2) == smallest("cagrad", STOPS, 2) == "(2, 0), (−1, 0)"


def test_a_tie_is_broken_by_the_order_of_the_tasks_in_imgrad_alone():
    """Of (0, 1) and (0, −1), both at a right angle to (1, 0), it follows the one that comes first or last."""
    drawing = {"pcgrad", "gradvac"}
    assert {key for key in guarantees.methods() if smallest(key, ORDER, 3)} == {"imgrad"} | drawing
    assert all(smallest(key, ORDER, 2) == "" for key in guarantees.methods())
