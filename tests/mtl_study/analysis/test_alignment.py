"""What records say of the task gradients, against theory and by hand."""

import numpy as np
import pytest

from mtl_core.smtos import geometry
from mtl_study.analysis import alignment
from mtl_study.experiments.runs import Gradients


@pytest.mark.parametrize("num_tasks", [2, 3, 11])
def test_unrelated_gradients_of_equal_length_have_the_floor(num_tasks):
    gramian = 7.0 * np.eye(num_tasks)
    c = geometry.cosine_to_mean(gramian)
    assert c == pytest.approx(alignment.cosine_floor(num_tasks)) == pytest.approx(num_tasks**-0.5)
    assert geometry.pairwise_cosine(gramian) == 0
    assert alignment.normalised_cosine(c, num_tasks) == pytest.approx(0, abs=1e-12)


def test_normalised_cosine_gives_a_common_cosine_back():
    for cosine in [-0.2, 0.0, 0.3, 0.9]:
        gramian = np.full((4, 4), cosine) + (1 - cosine) * np.eye(4)
        assert alignment.normalised_cosine(geometry.cosine_to_mean(gramian), 4) == pytest.approx(cosine)
        assert geometry.pairwise_cosine(gramian) == pytest.approx(cosine)


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
