import numpy as np
import pytest
import torch

from mtl_core import problems, smtos
from mtl_study import look
from mtl_study.analysis import delta
from mtl_study.plots import learning

TASKS = problems.get("multimnist/CL_RR").tasks
ACCURACY, MSE = 0.9, 0.5  # of the single-task models


@pytest.fixture
def reference(make_run):
    return delta.single_task_baselines([make_run([{"CL": ACCURACY}]), make_run([{"RR": MSE}])], TASKS)


def with_gains(gains):
    """Metrics of one run whose two gains are both g percent, epoch by epoch."""
    return [{"CL": ACCURACY * (1 + g / 100), "RR": MSE * (1 - g / 100)} for g in gains]


def test_a_learning_curve_is_the_mean_over_seeds_of_validation_delta_m(make_run, reference):
    runs = [make_run(with_gains(g), smto=s, seed=n) for s, n, g in [("edm", 1, [-8, -4]), ("edm", 2, [-6, -2])]]
    ax = learning.learning_curves(runs, reference, TASKS, ["edm"])
    drawn = next(line for line in ax.lines if line.get_label() == look.label("edm"))
    assert list(drawn.get_xdata()) == [1, 2]
    np.testing.assert_allclose(drawn.get_ydata(), [-7, -3])
    others = learning.learning_curves([*runs, make_run(with_gains([-9, -5]))], reference, TASKS, ["edm"])
    faint = next(line for line in others.lines if line.get_color() == look.FAINT)
    assert list(faint.get_xdata()) == [1, 2] and list(faint.get_ydata()) == pytest.approx([-9, -5])
    assert ax.get_ylim()[0] < ax.get_ylim()[1]  # up is better
    assert "mean over 2 seeds" in ax.figure.get_label()


def test_the_legend_has_who_is_best_after_the_last_epoch_first(make_run, reference):
    ends = {"cagrad": [-1, -4], "edm": [-9, -2], "famo": [-5, -3]}
    runs = [make_run(with_gains(g), smto=smto) for smto, g in ends.items()]
    ax = learning.learning_curves(runs, reference, TASKS, list(ends))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["EDM", "FAMO", "CAGrad"]


def test_early_epochs_far_below_the_rest_are_cut_off_and_the_later_half_is_not(make_run, reference):
    runs = [make_run(with_gains([-900, -30, -12, -10]))]
    ax = learning.learning_curves(runs, reference, TASKS, ["unit_scal"])
    assert -30 < ax.get_ylim()[0] < -12


def test_a_run_that_diverged_early_does_not_keep_the_curves_from_being_drawn(make_run, reference):
    whole = make_run(with_gains([-9, -5, -3]))
    broken = make_run(with_gains([-9]), smto="edm", ended="diverged at epoch 1, step 0")
    ax = learning.learning_curves([whole, broken], reference, TASKS, ["unit_scal", "edm"])
    assert ax.get_legend() is not None


def test_samples_show_the_input_the_class_and_the_digit():
    x, digits = torch.rand(3, 1, 28, 28), torch.rand(3, 28, 28)
    axes = learning.samples(x, torch.tensor([7, 0, 3]), digits)
    assert axes.shape == (3, 3)
    assert [ax.texts[0].get_text() for ax in axes[1]] == ["7", "0", "3"]
    np.testing.assert_array_equal(axes[2, 1].images[0].get_array(), digits[1])


def test_every_method_has_a_row_in_the_table_of_methods():
    known = [key for key in look.LOOK if key in smtos.keys()]  # noqa: SIM118
    table = learning.table_of_methods(known)
    assert list(table.index) == [look.label(key) for key in known]
    assert (table != "").all(axis=None)
