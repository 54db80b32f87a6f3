"""Generalisation and optimisation, told apart where the training losses are equal."""

import math

import numpy as np
import pandas as pd
import pytest

from mtl_core import problems
from mtl_study.analysis import delta, generalisation
from mtl_study.analysis.frames import RUN

CL_RR = "multimnist/CL_RR"
TASKS = problems.get(CL_RR).tasks


def test_a_level_is_met_on_a_straight_line_of_the_logarithm():
    """From 4 to 1: 2 is in the middle of the logarithms."""
    losses = np.array([16.0, 4.0, 1.0, 0.5])
    assert generalisation.where(losses, 2.0) == pytest.approx(1.5)
    assert generalisation.where(losses, 4.0) == 1
    assert generalisation.where(losses, 16.0) == 0
    assert math.isnan(generalisation.where(losses, 0.4))  # never so low
    assert math.isnan(generalisation.where(losses, 20.0))  # already lower when it starts


def test_two_runs_on_one_curve_differ_by_optimisation_only():
    """Gain as a function of the training loss alone; one run is twice as fast. At equal loss there is no difference."""
    fast, slow = 0.25 ** np.arange(4.0), 0.5 ** np.arange(4.0)
    level, one, other = generalisation.at_equal_loss((fast, slow), (np.log2(1 / fast), np.log2(1 / slow)))
    assert level == 0.125
    assert one == pytest.approx(other) == pytest.approx(3)


def test_runs_that_share_no_level_are_not_compared():
    level, one, other = generalisation.at_equal_loss(
        (np.array([0.5, 0.1]), np.array([2.0, 1.0])), (np.zeros(2), np.zeros(2))
    )
    assert level == 1
    assert math.isnan(one)
    assert other == 0


@pytest.fixture
def trained(make_run):
    """A run with these training losses; a gain is −10 per doubling of the loss, plus `lift` points."""

    def make(losses, smto="unit_scal", seed=1, lift=0.0, problem=CL_RR):
        gains = -10 * np.log2(losses) + lift
        names = problem.split("/")[1].split("_")
        values = [{t: 0.8 * (1 + g / 100) if t == "CL" else 0.5 * (1 - g / 100) for t in names} for g in gains]
        run = make_run(values, smto=smto, seed=seed, problem=problem)
        for epoch, loss in zip(run.history, losses, strict=True):
            epoch.train_losses[:] = [float(loss)] * len(names)
        return run

    return make


def test_a_lead_is_split_into_what_remains_at_equal_loss_and_the_rest(trained, baselines):
    """EDM gets to half the loss (10 points of optimisation) and is 2 points better at any loss (generalisation)."""
    sum_ = trained([4.0, 2.0, 1.0])
    found = generalisation.parts([trained([4.0, 2.0, 1.0, 0.5], "edm", lift=2.0)], [sum_], baselines, TASKS).iloc[0]
    assert found.difference == pytest.approx(12)
    assert found.generalisation == pytest.approx(2)
    assert found.optimisation == pytest.approx(10)
    assert found.log_loss == pytest.approx(math.log(0.5))
    other_seed = generalisation.parts([trained([1.0], "edm", seed=2)], [sum_], baselines, TASKS)
    assert other_seed.difference.isna().all()


def test_against_single_task_models_the_difference_is_delta_m_by_seed(trained, baselines):
    alone = [trained([4.0, 1.0], problem=f"multimnist/{name}") for name in ("CL", "RR")]
    run = trained([4.0, 2.0], lift=-3.0)
    found = generalisation.parts([run], alone, baselines, TASKS).iloc[0]
    assert found.generalisation == pytest.approx(-3)
    assert found.optimisation == pytest.approx(-10)
    assert found.difference == pytest.approx(delta.selected([run], baselines, TASKS).delta_m[0])  # theirs is 0


def table(rng, methods=16, seeds=3, tie_general=0.0, tie_optimisation=0.0):
    rows = [
        (
            "p",
            f"m{m}",
            "c",
            seed,
            cosine,
            tie_general * cosine + rng.normal(),
            -tie_optimisation * cosine + rng.normal(),
        )
        for seed in range(seeds)
        for m, cosine in enumerate(rng.normal(size=methods))
    ]
    found = pd.DataFrame(rows, columns=[*RUN, "pairwise_cosine", "generalisation", "log_loss"])
    return found.drop(columns="pairwise_cosine"), found[[*RUN, "pairwise_cosine"]]


def test_conflict_is_tied_to_what_it_is_tied_to():
    """Planted: optimisation follows the cosine, generalisation does not; then the other way round."""
    found = generalisation.conflict(*table(np.random.default_rng(0), tie_optimisation=50))
    assert (found.rho_optimisation > 0.95).all()
    assert (found.rho_generalisation.abs() < 0.7).all()
    assert found.n.tolist() == [16] * 3
    found = generalisation.conflict(*table(np.random.default_rng(0), tie_general=50))
    assert (found.rho_generalisation > 0.95).all()


def test_noise_alone_is_split_evenly_between_generalisation_and_nothing_else(trained, baselines):
    """Twelve pairs that differ by noise on test only: both parts are 0 on average, within three standard errors."""
    rng = np.random.default_rng(0)
    found = [
        generalisation.parts(
            [trained([4.0, 2.0, 1.0], "edm", lift=rng.normal())],
            [trained([4.0, 2.0, 1.0], lift=rng.normal())],
            baselines,
            TASKS,
        ).iloc[0]
        for _ in range(12)
    ]
    optimisation = np.array([row.optimisation for row in found])
    general = np.array([row.generalisation for row in found])
    np.testing.assert_allclose(optimisation, 0, atol=1e-9)  # equal losses: nothing is left for it
    assert abs(general.mean()) < 3 * general.std() / math.sqrt(len(general))


def test_a_method_is_compared_with_the_uniform_loss_in_the_same_settings(trained, baselines):
    sums = [trained([4.0, 2.0]), trained([4.0, 2.0], lift=50.0)]
    sums[1] = sums[1].model_copy(update={"config": sums[1].config.model_copy(update={"lr": 0.01})})
    edm = trained([4.0, 2.0], "edm", lift=1.0)
    fast = edm.model_copy(update={"config": edm.config.model_copy(update={"lr": 0.01})})
    for order in (sums, sums[::-1]):
        found = generalisation.parts([edm, fast], order, baselines, TASKS)
        assert found.generalisation.tolist() == pytest.approx([1, -49])
