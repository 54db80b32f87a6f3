"""Gradients of equal length, and weights that would make them so."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mtl_study.analysis import balance
from mtl_study.experiments.runs import Gradients


def lengths(*norms):
    return {"parameters": Gradients(cosine_to_mean=0.7, pairwise_cosine=0.0, norms=list(norms), norm_ratio=1.0)}


def test_similarity_by_hand():
    """2 · 1 · 3/(1 + 9) = 0.6; of (1, 1, 3) the pairs have 1, 0.6, 0.6; a common factor changes nothing."""
    assert balance.magnitude_similarity([1, 3]) == pytest.approx(0.6)
    assert balance.magnitude_similarity([2, 6]) == pytest.approx(0.6)
    assert balance.magnitude_similarity([1, 1, 3]) == pytest.approx(2.2 / 3)
    assert balance.magnitude_similarity([5, 5, 5]) == 1
    assert balance.magnitude_similarity([0, 1]) == 0
    assert math.isnan(balance.magnitude_similarity([math.nan, 1]))


def test_a_run_is_measured_with_its_weights(make_run):
    """Lengths 1 : 3 with weights ¾ : ¼ are equally long; a method without weights has no similarity."""
    values = [{"CL": 0.8, "RR": 0.5}]
    weighted = make_run(values, smto="fixed", weights=[[0.75, 0.25]], gradients=lengths(1, 3))
    unweighted = make_run(values, smto="rotograd", weights=[[None, None]], gradients=lengths(1, 3))
    plain = make_run(values, gradients=lengths(1, 3))
    found = balance.of_runs([weighted, unweighted, plain]).set_index("smto").similarity
    assert found["fixed"] == pytest.approx(1)
    assert found["unit_scal"] == pytest.approx(0.6)
    assert math.isnan(found["rotograd"])


def test_inverse_norms_make_a_runs_gradients_equally_long(make_run):
    run = make_run([{"CL": 0.8, "RR": 0.5}] * 2, gradients=lengths(4, 1))
    weights = balance.inverse_norms(run)
    assert weights == [0.2, 0.8]
    assert balance.magnitude_similarity(np.array(weights) * [4, 1]) == 1
    run.history[1].gradients = lengths(1, 1)  # geometric means 2 and 1
    assert balance.inverse_norms(run) == [0.333, 0.667]
    with pytest.raises(ValueError, match="no task gradients of positive length"):
        balance.inverse_norms(make_run([{"CL": 0.8, "RR": 0.5}]))


def sweep(rng, seeds, tie):
    """Seven configurations per seed; Δm follows similarity as far as `tie` says."""
    rows = []
    for seed in range(seeds):
        similarity = rng.uniform(0, 1, 7)
        gains = tie * similarity + rng.normal(0, 0.3, 7)
        rows += [("p", "fixed", str(i), seed, s, g) for i, (s, g) in enumerate(zip(similarity, gains, strict=True))]
    return pd.DataFrame(rows, columns=["problem", "smto", "config", "seed", "similarity", "delta_m"])


def test_agreement_is_one_rank_correlation_per_seed():
    table = sweep(np.random.default_rng(0), 2, tie=100)
    found = balance.agreement(table.drop(columns="similarity"), table.drop(columns="delta_m"))
    assert found.rho.tolist() == [1, 1]
    assert found.n.tolist() == [7, 7]


def test_without_a_tie_the_interval_of_the_correlations_covers_zero_as_often_as_it_says():
    """20,000 studies with six seeds of seven points each. Seven points give few values of ρ, which is not normal; that
    this does no harm is what is checked: 5 % miss, and half a percent more at most."""
    ranks = np.random.default_rng(0).permuted(np.tile(np.arange(7.0), (20_000 * 6, 1)), axis=1) - 3
    rho = (ranks @ np.arange(-3.0, 4)).reshape(-1, 6) / 28
    missed = (stats.ttest_1samp(rho, 0, axis=1).pvalue < 0.05).mean()
    assert 0.045 < missed < 0.055
