"""What records say of the task gradients, against theory and by hand."""

import numpy as np
import pandas as pd
import pytest

from mtl_study.analysis import alignment
from mtl_study.cosines import cosine_to_mean, pairwise_cosine
from mtl_study.experiments.runs import Gradients


@pytest.mark.parametrize("num_tasks", [2, 3, 11])
def test_unrelated_gradients_of_equal_length_have_the_floor(num_tasks):
    gramian = 7.0 * np.eye(num_tasks)
    c = cosine_to_mean(gramian)
    assert c == pytest.approx(alignment.cosine_floor(num_tasks)) == pytest.approx(num_tasks**-0.5)
    assert pairwise_cosine(gramian) == 0
    assert alignment.normalised_cosine(c, num_tasks) == pytest.approx(0, abs=1e-12)


def test_normalised_cosine_gives_a_common_cosine_back():
    for cosine in [-0.2, 0.0, 0.3, 0.9]:
        gramian = np.full((4, 4), cosine) + (1 - cosine) * np.eye(4)
        assert alignment.normalised_cosine(cosine_to_mean(gramian), 4) == pytest.approx(cosine)
        assert pairwise_cosine(gramian) == pytest.approx(cosine)


def test_gradient_statistics_have_a_row_per_epoch_and_space(make_run):
    found = Gradients(cosine_to_mean=0.5**0.5, pairwise_cosine=None, norms=[1.0, 1.0], norm_ratio=1.0)
    run = make_run([{"CL": 1, "RR": 1}] * 3, gradients={"features": found, "parameters": found})
    rows = alignment.gradient_statistics([run])
    assert len(rows) == 6 and set(rows.progress) == {0, 50, 100}
    assert rows.normalised_cosine.tolist() == pytest.approx([0] * 6, abs=1e-12) and rows.pairwise_cosine.isna().all()


def test_per_run_means_over_epochs(make_run):
    found = Gradients(cosine_to_mean=0.6, pairwise_cosine=0.1, norms=[1.0, 2.0], norm_ratio=2.0)
    epochs = [{"CL": 1, "RR": 1}] * 2
    runs = [
        make_run(epochs, weights=[[1, 3], [1, 1]], gradients={"parameters": found}),
        make_run(epochs, smto="graddrop", weights=[[None, None]] * 2),
    ]
    rows = alignment.per_run(runs).set_index("smto")
    assert rows.loc["unit_scal", ["weight_distance", "cosine_to_mean", "norm_ratio"]].tolist() == [0.125, 0.6, 2.0]
    assert rows.loc["graddrop", ["weight_distance", "cosine_to_mean"]].isna().all()


def test_the_ranking_of_problems_by_c_against_the_gap_by_hand():
    """Four problems: C .7, .6, .5, .3 with gaps 1, 0, 4, 9 (one pair out of order: ρ = −0.8); K = 2, 2, 3, 11."""
    table, cosines = [], []
    for problem, c, gap, tasks in [("p", 0.7, 1, 2), ("q", 0.6, 0, 2), ("r", 0.5, 4, 3), ("s", 0.3, 9, 11)]:
        table += [(problem, "unit_scal", 1, -5.0), (problem, "edm", 1, -5.0 + gap), (problem, "famo", 1, -5.0 + gap)]
        cosines.append((problem, "unit_scal", 1, c, tasks))
    selected = pd.DataFrame(table, columns=["problem", "smto", "seed", "delta_m"])
    looks = pd.DataFrame(cosines, columns=["problem", "smto", "seed", "cosine_to_mean", "num_tasks"])
    found = alignment.ranking(selected, looks, ["edm", "famo"]).iloc[0]
    assert found.rho == pytest.approx(-0.8)
    assert found.rho_of_floor == pytest.approx(-3 / np.sqrt(10))  # two problems share a place
    assert found.problems == 4
    selected.loc[(selected.problem == "s") & (selected.smto == "famo"), "delta_m"] = np.nan
    assert alignment.ranking(selected, looks, ["edm", "famo"]).problems[0] == 3


def test_of_nine_unrelated_problems_5_percent_are_beyond_the_line_of_the_rule():
    """That |ρ| > 0.7 is what nine problems without any relation reach in 5 % at most, by all orders drawn at random."""
    rng, order = np.random.default_rng(0), np.arange(9) - 4.0
    ranks = rng.permuted(np.tile(order, (20_000, 1)), axis=1)
    beyond = (np.abs(ranks @ order / (order @ order)) > 0.7).mean()
    assert 0.02 < beyond < 0.05
