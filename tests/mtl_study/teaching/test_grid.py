"""The grid counts what the walks do, and its measures say who decides."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mtl_study.teaching import grid, landscape
from mtl_study.teaching.landscape import Walks


@pytest.fixture(scope="module")
def walks():
    return grid.walk([0.5, 0.9], [0.1], [0.4], ["code"], 120)


def test_every_method_walks_from_every_start_with_every_option(walks):
    of = walks.plan.groupby(["smto", "c", "reading"]).size()
    assert set(of) == {2 * 5} and len(of) == 8
    assert len(grid.arms([0.4, 0.8], ["code", "eq9"])) == 6 + 2 + 4


def test_reached_counts_walks_that_came_near_the_weighted_optimum(walks):
    goals = np.array([landscape.optimum(weight) for weight in walks.plan.weight])
    near = (np.linalg.norm(walks.paths[-1] - goals, axis=-1) < landscape.NEAR).astype(int)
    counted = walks.plan.assign(near=near).groupby(["smto", "c", "reading", "weight", "lr"], sort=False).near.sum()
    reached = grid.reached(walks)
    assert_array_equal(reached.reached, counted)
    assert 0 < reached.reached.sum() < 80


def test_the_optimum_of_the_weighted_losses():
    """In the bowls gradients balance at x₁ = 7 (2w − 1), but for the gates' pull along x₂."""
    for weight in (0.1, 0.5, 0.9):
        x = np.array(landscape.optimum(weight))
        assert_allclose([weight, 1 - weight] @ landscape.gradients(x), 0, atol=1e-6)
        assert_allclose(x, [7 * (2 * weight - 1), -8.4], atol=0.06)


def test_the_middle_of_the_seam_is_no_resting_place():
    """At (0, 0), one of the starts, both gates have a slope; else all walks from there would stay."""
    assert (np.abs(landscape.gradients(np.zeros(2))[:, 1]) > 1).all()
    moved = landscape.walk(pd.DataFrame([("adam", "unit_scal", 0.1, 0)], columns=landscape.PLAN), 2, starts=[(0, 0)])
    assert np.abs(moved.paths[-1]).max() > 0.1


def cells(**reached):
    """A row per method, weight and step size; a function of the last two gives the starts reached."""
    rows = [
        (smto, 0.4 if smto in ("cagrad", "imgrad") else grid.NO_C, "", weight, lr, of(weight, lr))
        for smto, of in reached.items()
        for weight in (0.1, 0.5, 0.9)
        for lr in (0.01, 0.1)
    ]
    return pd.DataFrame(rows, columns=["smto", "c", "reading", "weight", "lr", "reached"])


def test_shares_of_the_variance_by_hand():
    by_rate = cells(cagrad=lambda w, lr: 5 * (lr > 0.05), imgrad=lambda w, lr: 5 * (lr > 0.05))
    assert_allclose(grid.explained(by_rate, ("cagrad", "imgrad")), [1, 0, 0, 0], atol=1e-12)
    by_method = cells(cagrad=lambda w, lr: 1, imgrad=lambda w, lr: 4)
    assert_allclose(grid.explained(by_method, ("cagrad", "imgrad")), [0, 0, 1, 0], atol=1e-12)
    both = cells(cagrad=lambda w, lr: 2 * (lr > 0.05), imgrad=lambda w, lr: 1 + 2 * (lr > 0.05))
    assert_allclose(grid.explained(both, ("cagrad", "imgrad")), [0.8, 0, 0.2, 0], atol=1e-12)
    assert grid.explained(cells(cagrad=lambda w, lr: 3), ("cagrad",)).isna().all()


def test_a_contest_meets_in_cells_of_unequal_weights():
    table = cells(cagrad=lambda w, lr: 3, imgrad=lambda w, lr: 4 + (w > 0.5), unit_scal=lambda w, lr: 2)
    found = grid.contest(table)
    assert list(found.ahead) == [4, 4, 5, 5] and set(found.behind) == {3} and set(found.weight) == {0.1, 0.9}
    assert set(grid.contest(table, "cagrad", "unit_scal").behind) == {2}
    twice = pd.concat([table, table[table.smto == "cagrad"].assign(c=0.8, reached=1)])
    assert set(grid.contest(twice).behind) == {3}  # the same c meets


def test_ends_of_walks_that_do_not_arrive():
    """Four walks that stand still: on the Pareto set in balance and not, in agreement, and one that arrives."""
    plan = pd.DataFrame({"start": range(4), "weight": 0.5, "steps": [np.nan, np.nan, np.nan, 7.0]})
    points = np.array([[1.0, -8.4], [5.0, -8.4], [0.0, -200.0], [0.0, -8.355]])
    lost = grid.ends(Walks(plan, np.arange(11), np.tile(points, (11, 1, 1))))
    assert list(lost.start) == [0, 1, 2]
    assert_allclose(lost.ratio, [8 / 6, 6, 1], rtol=0.01)
    assert_array_equal(lost.cosine < 0, [True, True, False])
    assert_array_equal(grid.stuck_in_balance(lost), [True, False, False])
