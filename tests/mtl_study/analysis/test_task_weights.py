"""Whether weights settle: speeds and spreads by hand."""

import math

import pytest

from mtl_study.analysis import task_weights


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
