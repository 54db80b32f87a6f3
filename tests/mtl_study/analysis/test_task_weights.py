"""The weights that methods gave, and whether they settle: by hand."""

import math

import pandas as pd
import pytest

from mtl_study.analysis import task_weights


def test_trajectories_are_normalised_and_leave_out_methods_without_weights(make_run):
    epochs = [{"CL": 1, "RR": 1}] * 2
    nash = make_run(epochs, smto="nash_mtl", weights=[[30, 10], [1, 1]])
    graddrop = make_run(epochs, smto="graddrop", weights=[[None, None]] * 2)
    found = task_weights.trajectories([nash, graddrop])
    assert found.smto.unique().tolist() == ["nash_mtl"]
    assert found.weight.tolist() == [0.75, 0.25, 0.5, 0.5] and found.task.tolist() == ["CL", "RR"] * 2
    assert task_weights.distance_from_equal([nash, graddrop]).distance.tolist() == [0.25, 0]


def test_weights_are_those_that_the_paper_logs(make_run):
    """Nash-MTL's heads get α before the clip; IMTL's α is a diagnostic, kept with the scaled weights (D25)."""
    epochs = [{"CL": 1, "RR": 1}]
    nash = make_run(epochs, smto="nash_mtl", weights=[[1, 1]])
    nash.history[0].head_weights = [3.0, 1.0]
    imtl = make_run(epochs, smto="imtl", weights=[[1, 3]], diagnostics=[{"alpha_0": 0.4, "alpha_1": 0.6}])
    assert task_weights.trajectories([nash, imtl]).weight[::2].tolist() == [0.75, 0.4]


def test_fixed_weights_are_the_last_of_the_moving_average(make_run):
    """Start (¾, ¼), then (½, ½): 0.9 · ¾ + 0.1 · ½ = 0.725."""
    run = make_run([{"CL": 1, "RR": 1}] * 2, smto="nash_mtl", weights=[[30, 10], [1, 1]])
    assert task_weights.fixed_weights(run) == pytest.approx({"CL": 0.725, "RR": 0.275})
    with pytest.raises(ValueError, match="graddrop gives no weights"):
        task_weights.fixed_weights(make_run([{"CL": 1, "RR": 1}], smto="graddrop", weights=[[None, None]]))


def test_moving_average_of_a_constant_is_the_constant():
    constant = pd.DataFrame(0.3, index=range(5), columns=["CL", "RR"])
    pd.testing.assert_frame_equal(task_weights.ema(constant), constant)


def made(make_run, first, **config):
    """A run of two tasks whose first weight is given per epoch."""
    return make_run([{"CL": 0.8, "RR": 0.5}] * len(first), smto="edm", weights=[[w, 1 - w] for w in first], **config)


def test_drift_by_hand(make_run):
    """Six steps: the first two of 0.2 and 0.1, the last two of 0.05 and 0.025. A quarter of the speed."""
    run = made(make_run, [0.1, 0.3, 0.4, 0.4, 0.9, 0.85, 0.875])
    row = task_weights.drift([run]).iloc[0]
    assert row[["early", "late"]].tolist() == pytest.approx([0.15, 0.0375])
    assert row.log_ratio == pytest.approx(math.log(1 / 4))


def test_drift_has_no_value_where_it_means_nothing(make_run):
    """Too few epochs; weights that never move; no weights at all. Weights that come to rest have −∞."""
    short, constant, resting = [0.1, 0.2, 0.3, 0.4, 0.5], [0.3] * 8, [0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4]
    none = make_run([{"CL": 0.8, "RR": 0.5}] * 8, weights=[[None, None]] * 8)
    found = task_weights.drift([*(made(make_run, w) for w in (short, constant, resting)), none]).log_ratio
    assert [math.isnan(value) for value in found] == [True, True, False, True] and found[2] == -math.inf


def test_drift_does_not_depend_on_the_scale_of_the_weights(make_run):
    """Weights are normalised first: those ten times as large, with another factor every epoch, move as much."""
    first = [0.1, 0.3, 0.4, 0.4, 0.9, 0.85, 0.875]
    scaled = make_run(
        [{"CL": 0.8, "RR": 0.5}] * 7,
        smto="edm",
        weights=[[(e + 1) * w, (e + 1) * (1 - w)] for e, w in enumerate(first)],
    )
    assert task_weights.drift([scaled]).log_ratio[0] == pytest.approx(
        task_weights.drift([made(make_run, first)]).log_ratio[0]
    )


def test_static_cv_by_hand(make_run):
    """Of ten epochs the last eight: 0.4 and 0.6 in turn, with mean 0.5 and deviation 0.1 for both tasks."""
    run = made(make_run, [0.9, 0.1, *[0.4, 0.6] * 4])
    assert task_weights.static_cv([run]).cv[0] == pytest.approx(0.2)
    assert task_weights.static_cv([made(make_run, [0.3] * 8)]).cv[0] == pytest.approx(0, abs=1e-12)
    assert math.isnan(task_weights.static_cv([made(make_run, [0.3, 0.4])]).cv[0])
