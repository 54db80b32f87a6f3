"""What is compared in `make bench` is comparable: the three ways solve the same problem."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from mtl_core import bench, oracles

SUBPROBLEMS = bench.subproblems()


@pytest.mark.parametrize("kind", bench.GRAMIANS)
@pytest.mark.parametrize("name", SUBPROBLEMS)
def test_ours_scipy_and_cvxpy_solve_the_same_problem(name, kind):
    ways, G = SUBPROBLEMS[name], oracles.gramian(3, 1, **bench.GRAMIANS[kind])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        misses = [ways.violation(G, solve(G)) for solve in (ways.ours, ways.scipy, ways.cvxpy)]
    assert misses[0] <= 1e-12
    assert max(misses[1:]) <= 1e-3


def test_weights_that_are_no_solution_violate():
    G, wrong = oracles.gramian(3, 1, decades=2), np.array([0.2, 0.3, 0.5])
    for ways in SUBPROBLEMS.values():
        assert ways.violation(G, wrong) > 1e-3


def test_a_row_per_subproblem_kind_and_size():
    table = bench.solver_times(rounds=1, sizes=(2,))
    assert len(table) == len(SUBPROBLEMS) * len(bench.GRAMIANS)
    assert (table["ours misses by"] <= 1e-12).all() and np.isfinite(
        table.drop(columns=["subproblem", "Gramian"])
    ).all().all()


def test_loading_has_a_row_per_problem():
    """At two rounds the numbers mean nothing, but every part of the comparison runs."""
    table = bench.loading(rounds=2, names=["multimnist/CL_RR", "cityscapes/R18"])
    assert list(table.index) == ["multimnist/CL_RR", "cityscapes/R18"] and (table > 0).all().all()
