"""Figures 5 and 6, and whether weights settle: what is drawn is what was measured."""

import math

import numpy as np
import pytest

from mtl_study.analysis import task_weights
from mtl_study.look import LOOK
from mtl_study.plots import canvas, weight_paths

EPOCHS = [{"CL": 0.8, "RR": 0.5}] * 8


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_figure_5_has_a_box_per_source_and_the_median_of_the_method(rows):
    source = rows("nash_mtl", [(-50, -52), (-54, -56), (-58, -70)], problem="qm9")  # the mean is lower
    fixed = {lr: source.assign(smto="fixed", delta_m=-60.0 - i) for i, lr in enumerate((0.005, 0.001))}
    ax = weight_paths.figure_5(source, fixed)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["Nash-MTL", "0.005", "0.001"]
    dashed = [line for line in ax.lines if len(line.get_xdata()) == 2 and list(line.get_xdata()) == [0, 1]]
    assert [line.get_ydata()[0] for line in dashed] == [-55]
    assert "trained at 0.001" in canvas.figure_of(ax).get_label()


def test_figure_6_draws_epoch_means_and_their_average(make_run):
    """Weights 0.1, 0.3, 0.3, … : the faint line is these, the strong one 0.1 + 0.2 (1 − 0.9ᵉ)."""
    first = [0.1, *[0.3] * 7]
    run = make_run(EPOCHS, smto="cagrad", weights=[[2 * w, 2 * (1 - w)] for w in first])
    axes = weight_paths.figure_6(run, run, [run, run, run, run])
    assert len(axes) == 6 and [ax.get_title(loc="left")[:3] for ax in axes[:2]] == ["(a)", "(b)"]
    for ax in axes:
        faint, strong = ax.lines[:2]
        assert faint.get_ydata() == pytest.approx(first) and faint.get_alpha() < 1
        assert strong.get_ydata() == pytest.approx(0.1 + 0.2 * (1 - 0.9 ** np.arange(8)))
    assert all(ax.get_ylim() == axes[2].get_ylim() for ax in axes[2:])
    assert texts(axes[0]) == ["CL", "RR"]


def test_extraction_ends_with_the_fixed_weights(make_run):
    run = make_run(EPOCHS, smto="nash_mtl", weights=[[3 + e, 1] for e in range(8)])
    axes = weight_paths.extraction(run)
    assert axes[0].lines[0].get_ydata().tolist() == list(range(3, 11))
    assert axes[1].lines[0].get_ydata()[0] == 0.75
    found = task_weights.fixed_weights(run)
    assert [bar.get_width() for bar in axes[3].patches] == pytest.approx(list(found.values()))
    with pytest.raises(ValueError, match="gives no weights"):
        weight_paths.extraction(make_run(EPOCHS, smto="graddrop", weights=[[None, None]] * 8))


def test_drift_is_drawn_as_a_ratio_with_an_interval(make_run):
    """Half as fast with every seed: the mean is at ln ½; a run of too few epochs is named, not drawn."""
    first = [0.1, 0.3, 0.5, 0.5, 0.5, 0.6, 0.7]
    runs = [make_run(EPOCHS[:7], smto="edm", seed=seed, weights=[[w, 1 - w] for w in first]) for seed in (1, 2, 3)]
    runs.append(make_run(EPOCHS[:4], smto="edm", problem="multimnist/CL_CR", weights=[[0.1, 0.9]] * 4))
    ax = weight_paths.drift(task_weights.drift(runs))
    (mean,) = [line for line in ax.lines if line.get_marker() == LOOK["edm"].marker]
    assert mean.get_xdata()[0] == pytest.approx(math.log(0.5))
    assert "Fewer than 6 epochs: CL_CR." in canvas.figure_of(ax).get_label()
    at = {label.get_text(): label.get_position()[0] for label in ax.get_xticklabels()}
    assert at["1/2"] == pytest.approx(math.log(0.5))


def test_static_leaves_out_what_is_constant_by_definition(make_run):
    first = [0.9, 0.1, *[0.4, 0.6] * 4]
    runs = [make_run([EPOCHS[0]] * 10, smto=smto, weights=[[w, 1 - w] for w in first]) for smto in ("edm", "unit_scal")]
    ax = weight_paths.static(task_weights.static_cv(runs))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["EDM"]
    assert ax.lines[-1].get_xdata()[0] == pytest.approx(0.2)
