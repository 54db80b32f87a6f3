"""Regularisation, luck, tuning and size: figures and tables contain what their captions say."""

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from mtl_core import problems
from mtl_study.analysis import delta
from mtl_study.look import LOOK
from mtl_study.plots import ablations

TASKS = problems.get("multimnist/CL_RR").tasks


@pytest.fixture
def baselines(make_run):
    singles = [make_run([{"CL": 0.8}], problem="multimnist/CL"), make_run([{"RR": 0.5}], problem="multimnist/RR")]
    return delta.single_task_baselines(singles, TASKS)


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def lines_of(ax, colour):
    return [line for line in ax.lines if to_rgb(line.get_color()) == to_rgb(colour)]


def test_regularised_reads_every_run_at_both_epochs(make_run, baselines):
    """Best on validation after the first epoch, overfitted after the second."""
    run = make_run([{"CL": 0.88, "RR": 0.5}, {"CL": 0.8, "RR": 0.6}], dropout=0.2, weight_decay=1e-4)
    table = ablations.regularised([run], baselines, TASKS)
    assert table.set_index("early_stopping").delta_m.to_dict() == pytest.approx({True: 5, False: -10})
    assert (table.dropout == 0.2).all() and (table.weight_decay == 1e-4).all()


def test_a_lead_that_regularisation_explains(rows):
    """EDM leads by 4 without and by 0 with dropout; CAGrad by 4 in both; UW never leads."""
    leads = {"unit_scal": (0, 0), "edm": (4, 0), "cagrad": (4, 4), "uw": (-1, -1)}
    tables = []
    for smto, both in leads.items():
        for dropout, lead in zip((0.0, 0.5), both, strict=True):
            gains = [(lead + 12 * dropout + noise, lead + 12 * dropout + noise) for noise in (-0.1, 0.0, 0.1)]
            if smto != "unit_scal":
                gains = [(cl + e, rr + e) for (cl, rr), e in zip(gains, (-0.2, 0.1, 0.1), strict=True)]
            table = rows(smto, gains, {"lr": 0.001, "dropout": dropout}, dropout=dropout, weight_decay=0.0)
            tables += [table.assign(early_stopping=stops) for stops in (False, True)]
    table = pd.concat(tables, ignore_index=True)
    found = ablations.table_of_regularisation(table)
    assert found.reading.to_dict() == {"EDM": "explained", "CAGrad": "a lead remains", "UW": "no lead to explain"}
    assert found.loc["EDM", ["lead, none", "lead, best for each", "shrank by"]].tolist() == pytest.approx([4, 0, 4])
    axes = ablations.regularisation(table)
    assert [t.get_text() for t in axes[0].get_xticklabels()] == ["none", "dropout 0.5"]
    assert len(axes) == 1 and "early stopping chooses the same one" in axes[0].get_title(
        loc="left"
    )  # two would be the same
    dots = np.vstack([seeds.get_offsets() for seeds in axes[0].collections])
    for place, dropout in enumerate((0.0, 0.5)):
        runs = table[table.early_stopping & (table.dropout == dropout)]
        assert sorted(dots[dots[:, 0].round() == place, 1]) == pytest.approx(sorted(runs.delta_m))
    stopped = table.assign(delta_m=table.delta_m + 3 * (table.early_stopping & (table.smto == "edm")))
    early = ablations.table_of_regularisation(stopped).loc["EDM", ["lead, none", "lead, best for each", "shrank by"]]
    assert early.tolist() == pytest.approx([4, 3, 1])  # none: at the last epoch
    axes = ablations.regularisation(stopped)
    assert [ax.get_title(loc="left") for ax in axes] == ["last epoch", "with early stopping"]
    of_edm = [next(line for line in ax.lines if line.get_label() == "EDM").get_ydata()[0] for ax in axes]
    assert of_edm == pytest.approx([4, 7])
    drawn = {line.get_label(): (line.get_color(), line.get_marker()) for line in axes[0].lines if len(line.get_xdata())}
    for smto in leads:
        assert drawn[LOOK[smto].label] == (LOOK[smto].colour, LOOK[smto].marker)
    with pytest.raises(ValueError, match="no run of unit_scal without"):
        ablations.table_of_regularisation(table[table.dropout > 0])


def test_selection_bias_is_drawn_per_method(rows):
    table = rows("edm", [(0, 0)] * 3).assign(bias=[1.0, 2.0, 3.0])
    ax = ablations.selection_bias(table)
    assert any(line.get_xdata()[0] == 2 for line in ax.lines if line.get_marker() == LOOK["edm"].marker)
    assert "to the right: validation flatters" in ax.get_xlabel()


def test_search_selection_bias_rises_where_the_best_on_validation_is_luck(rows):
    """Luck is what validation says, so that of the best of n is the largest of n of 1, 2 and 3: 2, 8/3, 3."""
    table = pd.concat(
        [rows("edm", [(0, 0)], {"lr": lr}).assign(val_delta_m=v, luck=v) for lr, v in ((1, 1.0), (2, 2.0), (3, 3.0))]
    )
    ax = ablations.search_selection_bias(table)
    assert lines_of(ax, LOOK["edm"].colour)[0].get_ydata() == pytest.approx([2, 8 / 3, 3])


def test_lr_vs_seed_marks_an_interval_without_upper_bound():
    table = pd.DataFrame(
        {"sd_lr": 3.0, "sd_seed": 1.0, "ratio": 3.0, "low": 2.0, "high": [math.inf, 4.0], "best_lr": 0.001}
        | {"lrs": 3, "seeds": 3},
        index=["edm", "cagrad"],
    )
    ax = ablations.lr_vs_seed(table)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["CAGrad", "EDM"]
    (shaded,) = ax.patches
    assert (shaded.get_x(), shaded.get_x() + shaded.get_width()) == (6, 7)
    arrows = [line for line in ax.lines if line.get_marker() == ">"]
    assert [line.get_ydata()[0] for line in arrows] == [1]
    intervals = {
        line.get_ydata()[0]: list(line.get_xdata())
        for line in ax.lines
        if len(line.get_xdata()) == 2 and list(line.get_xdata()) != [1, 1]
    }
    assert intervals[0] == [2, 4] and intervals[1][0] == 2
    assert [line.get_xdata()[0] for line in ax.lines if line.get_marker() == LOOK["edm"].marker] == [3]


def test_compute_parity_joins_the_widths_of_the_uniform_loss(rows):
    """At the median of the times, and the mean of the gains; the rate that comes first has the full colour."""
    us = rows("unit_scal", [(-14, -14), (-9, -9), (-7, -7)]).assign(width=1.0, times=[1.0, 2.0, 6.0], lr=0.001)
    table = pd.concat([us, us.assign(width=2.0, times=4.0, delta_m=-6.0), us.assign(smto="edm", times=3.0)])
    ax = ablations.compute_parity(table)
    (line,) = lines_of(ax, LOOK["unit_scal"].colour)
    assert line.get_xydata() == pytest.approx(np.array([[2, -10], [4, -6]], dtype=float))
    dots = {(*point,) for seeds in ax.collections for point in np.asarray(seeds.get_offsets())}
    assert dots == {(2, -14), (2, -9), (2, -7), (4, -6), (3, -14), (3, -9), (3, -7)}  # a dot per seed
    assert [text.get_text() for text in ax.texts] == ["× 1", "× 2"]
    again = ablations.compute_parity(pd.concat([table, us.assign(lr=0.002), us.assign(smto="cdtt", lr=0.002)]))
    assert texts(again) == ["Unit. Scal., 0.001", "Unit. Scal., 0.002", "CDTT, 0.002", "EDM, 0.001"]
    faces = {line.get_label(): to_rgb(line.get_markerfacecolor()) for line in again.lines if len(line.get_xdata())}
    ours = LOOK["unit_scal"].colour
    assert [faces[f"Unit. Scal., {lr}"] for lr in (0.001, 0.002)] == [to_rgb(ours), to_rgb("white")]
    assert faces["EDM, 0.001"] == to_rgb(LOOK["edm"].colour)
