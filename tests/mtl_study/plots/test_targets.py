"""What the figures on time to target draw."""

import json
import math

import numpy as np
import pandas as pd

from mtl_study import look
from mtl_study.plots import targets


def times(problems=("multimnist/CL_RR",), **shares):
    rows = [
        {"problem": problem, "smto": smto, "config": json.dumps({"lr": 0.001}), "seed": seed, "target": -4.0}
        | {"share": share, "share_of_seconds": 2 * share}
        for problem in problems
        for smto, values in shares.items()
        for seed, share in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_every_run_is_a_dot_at_its_share_and_who_never_gets_there_stands_on_the_right():
    ax = targets.times(times(unit_scal=[1, 1, 1], imtl=[0.5, 0.8, math.inf], cagrad=[0.6, 0.6, 0.7]))
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["CAGrad", "IMTL"]  # the uniform loss is the line at 1
    points = np.vstack([marks.get_offsets() for marks in ax.collections])
    np.testing.assert_allclose(points[:, 1], [-0.2, 0, 0.2, 0.8, 1, 1.2], atol=1e-9)  # seeds next to each other
    np.testing.assert_allclose(points[:3, 0], [0.6, 0.6, 0.7])
    np.testing.assert_allclose(points[3:, 0], [0.5, 0.8, 1.25])  # a quarter beyond the uniform loss
    bars = {line.get_ydata()[0]: line.get_xdata()[0] for line in ax.lines if line.get_marker() == "|"}
    assert bars == {0: 0.6, 1: 0.8}
    assert [list(line.get_xdata()) for line in ax.lines if line.get_linestyle() == "--"] == [[1, 1]]
    two = targets.times(times(unit_scal=[1, 1], edm=[0.5, 0.8]))  # of an even number of seeds the slower one
    assert [line.get_xdata()[0] for line in two.lines if line.get_marker() == "|"] == [0.8]
    assert ax.get_xticklabels()[-1].get_text() == "not\nreached"
    assert "3 seeds" in ax.figure.get_label()
    assert "roughly" not in ax.figure.get_label()


def test_seconds_are_drawn_as_seconds_and_said_to_be_rough():
    ax = targets.times(times(unit_scal=[1], cagrad=[0.4]), by="seconds")
    assert any(np.allclose(marks.get_offsets()[:, 0], 0.8) for marks in ax.collections)
    assert "roughly" in ax.figure.get_label()


def test_a_profile_draws_the_steps_that_it_states_and_the_scores_in_its_legend():
    table = times(("multimnist/CL_RR", "qm9"), unit_scal=[1], edm=[0.5], si=[math.inf])
    ax = targets.profile(table)
    lines = {line.get_label(): line for line in ax.lines}
    assert set(lines) == {"Unit. Scal. 0.67", "EDM 1.00", "SI 0.00"}
    assert lines["Unit. Scal. 0.67"].get_color() == look.INK
    assert lines["Unit. Scal. 0.67"].get_drawstyle() == "steps-post"
    np.testing.assert_allclose(lines["Unit. Scal. 0.67"].get_ydata(), [0, 1, 1])  # at τ = 1, 2 and 4
    np.testing.assert_allclose(lines["EDM 1.00"].get_ydata(), 1)
    assert "CL_RR, QM9" in ax.figure.get_label()
