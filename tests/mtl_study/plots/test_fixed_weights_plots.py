"""Figures and tables of fixed weights contain what their captions say."""

import json
import math
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from mtl_core import problems
from mtl_study import look
from mtl_study.analysis import delta, fronts, task_weights
from mtl_study.look import LOOK
from mtl_study.plots import ablations, canvas, pareto, population_search, weight_paths

TASKS = problems.get("multimnist/CL_RR").tasks
EPOCHS = [{"CL": 0.8, "RR": 0.5}] * 8


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def baselines(make_run):
    singles = [make_run([{"CL": 0.8}], problem="multimnist/CL"), make_run([{"RR": 0.5}], problem="multimnist/RR")]
    return delta.single_task_baselines(singles, TASKS)


def rows(smto, gains, config=None, problem="multimnist/CL_RR", **columns):
    """Rows as of `delta.selected`: (gain on CL, gain on RR) per seed."""
    found = [
        {"problem": problem, "smto": smto, "config": json.dumps(config or {"lr": 0.001}), "seed": seed, "epoch": 0}
        | {"CL": cl, "RR": rr, "delta_m": (cl + rr) / 2, "val_delta_m": (cl + rr) / 2, "diverged": False}
        for seed, (cl, rr) in enumerate(gains, 1)
    ]
    return pd.DataFrame(found).assign(**columns)


def sweep():
    """Five fixed weights on a line from (0, 0) to (4, −40), seeds 0.1 and 1 apart; one far inside; the uniform loss."""
    seeds = [(-0.1, -1.0), (0.0, 0.0), (0.1, 1.0)]
    points = [*((float(k), -10.0 * k) for k in range(5)), (-3.0, -45.0)]
    of_sweep = [
        rows("fixed", [(x + dx, y + dy) for dx, dy in seeds], {"lr": 0.001, "weights": k})
        for k, (x, y) in enumerate(points)
    ]
    others = [rows("unit_scal", [(-1 + dx, -20 + dy) for dx, dy in seeds]), rows("edm", [(2.5, -15.0)] * 3)]
    return pd.concat([*of_sweep, *others], ignore_index=True)


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def lines_of(ax, colour):
    return [line for line in ax.lines if to_rgb(line.get_color()) == to_rgb(colour)]


# -- Figures 5 and 6 ---------------------------------------------------------------------------------------------------


def test_figure_5_has_a_box_per_source_and_the_median_of_the_method():
    source = rows("nash_mtl", [(-50, -52), (-54, -56), (-58, -60)], problem="qm9")
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


# -- the front ---------------------------------------------------------------------------------------------------------


def test_front_line_is_that_of_the_means_and_words_stand_in_the_legend():
    table = sweep()
    placed = fronts.placed(table, ("CL", "RR"))
    ax, zoom = pareto.front(table, ("CL", "RR"), placed)
    (line,) = [line for line in lines_of(ax, LOOK["fixed"].colour) if line.get_linewidth() == 1.8]
    assert np.column_stack(line.get_data()) == pytest.approx(np.array([[k, -10.0 * k] for k in range(5)]))
    assert texts(zoom) == ["front of the sweep", "fixed weights", "Unit. Scal.", "EDM: beyond"]
    (left, right), (bottom, top) = zoom.get_xlim(), zoom.get_ylim()
    for point in [(2.5, -15.0), (-1.1, -21.0), (-0.9, -19.0)]:  # EDM and the seeds of the uniform loss
        assert left < point[0] < right and bottom < point[1] < top
    assert not left < -3 < right
    (frame,) = ax.patches
    assert frame.get_bbox().extents == pytest.approx([left, bottom, right, top])
    assert "0.10 points on CL" in canvas.figure_of(ax).get_label()
    assert "6 configurations of fixed weights" in canvas.figure_of(ax).get_label()


def test_front_of_two_rates_tells_them_apart():
    """Full colour for the rate that comes first, white for the other, the uniform loss included."""
    more = rows("fixed", [(0.5, -1.0)] * 3, {"lr": 0.002, "weights": 9})
    table = pd.concat([sweep(), more, rows("unit_scal", [(0.4, -9.0)] * 3, {"lr": 0.002})])
    ax, zoom = pareto.front(table)
    assert texts(zoom)[1:4] == [
        "fixed weights, learning rate 0.001",
        "fixed weights, learning rate 0.002",
        "Unit. Scal. (the same shades)",
    ]
    faces = {
        tuple(np.round(dots.get_offsets()[0], 6)): tuple(dots.get_facecolor()[0][:3])
        for dots in ax.collections
        if len(dots.get_offsets()) == 1 and dots.get_sizes()[0] > 50
    }
    assert faces[0.5, -1.0] == faces[0.4, -9.0] == (1, 1, 1)
    assert faces[-1, -20] == to_rgb(LOOK["unit_scal"].colour) and faces[1, -10] == to_rgb(LOOK["fixed"].colour)


def test_table_of_placed_says_what_an_excess_is():
    found = pareto.table_of_placed(fronts.placed(sweep(), ("CL", "RR")))
    assert found.loc["EDM", ["ε+", "seeds", "reading"]].tolist() == pytest.approx([5, 3, "beyond"])
    assert "7 configurations" in found.attrs["caption"] and "1.00 points on RR" in found.attrs["caption"]


def test_budget_is_a_line_for_the_sweep_and_a_point_for_a_method():
    table = fronts.budget(sweep(), ("CL", "RR"), prices={"edm": 1.5})
    ax = pareto.budget(table)
    (edm,) = lines_of(ax, LOOK["edm"].colour)
    (of_sweep,) = lines_of(ax, LOOK["fixed"].colour)
    assert edm.get_xdata().tolist() == [1.5] and of_sweep.get_xdata().tolist() == list(range(1, 8))
    assert (np.diff(of_sweep.get_ydata()) > 0).all()


def test_utility_is_relative_to_the_best_and_counts_its_changes():
    """The ends belong to the sweep's ends, the middle to EDM."""
    table = sweep()
    ax = pareto.utility(fronts.utilities(table, table, ("CL", "RR"), steps=21))
    assert max(line.get_ydata().max() for line in ax.lines) == 0
    shown = {tuple(to_rgb(bar.get_facecolor()[:3])) for bar in ax.patches}
    assert shown == {to_rgb(LOOK[smto].colour) for smto in ("fixed", "edm")}
    assert "2 times" in canvas.figure_of(ax).get_label()
    names = {"the sweep": "fixed", "EDM": "edm"}
    for text in ax.texts:  # a name stands on its own colour
        (bar,) = [b for b in ax.patches if b.get_x() < text.get_position()[0] < b.get_x() + b.get_width()]
        assert to_rgb(bar.get_facecolor()[:3]) == to_rgb(LOOK[names[text.get_text()]].colour)
    assert ax.texts
    (of_sweep,) = [line for line in ax.lines if line.get_label() == "best of the sweep"]
    assert ax.get_ylim()[0] < of_sweep.get_ydata().min()


# -- do weights settle? ------------------------------------------------------------------------------------------------


def test_drift_is_drawn_as_a_ratio_with_an_interval(make_run):
    """Half as fast with every seed: the mean lies at ln ½; a run of too few epochs is named, not drawn."""
    first = [0.1, 0.3, 0.5, 0.5, 0.5, 0.6, 0.7]
    runs = [make_run(EPOCHS[:7], smto="edm", seed=seed, weights=[[w, 1 - w] for w in first]) for seed in (1, 2, 3)]
    runs.append(make_run(EPOCHS[:4], smto="edm", problem="multimnist/CL_CR", weights=[[0.1, 0.9]] * 4))
    ax = weight_paths.drift(task_weights.drift(runs))
    (mean,) = [line for line in ax.lines if line.get_marker() == LOOK["edm"].marker]
    assert mean.get_xdata()[0] == pytest.approx(math.log(0.5))
    assert "(fewer than 6 epochs): CL_CR." in canvas.figure_of(ax).get_label()
    assert "1/2" in [label.get_text() for label in ax.get_xticklabels()]


def test_static_leaves_out_what_is_constant_by_definition(make_run):
    first = [0.9, 0.1, *[0.4, 0.6] * 4]
    runs = [make_run([EPOCHS[0]] * 10, smto=smto, weights=[[w, 1 - w] for w in first]) for smto in ("edm", "unit_scal")]
    ax = weight_paths.static(task_weights.static_cv(runs))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["EDM"]
    assert ax.lines[-1].get_xdata()[0] == pytest.approx(0.2)


def population(weights_of, scores, parents, best, problem="multimnist/CL_RR"):
    """As much of a record as the figure looks at."""
    members = [
        SimpleNamespace(weights=w, score=s, parent=p) for w, s, p in zip(weights_of, scores, parents, strict=True)
    ]
    base = SimpleNamespace(problem=problem, definition=problems.get(problem))
    config = SimpleNamespace(base=base, exploit_interval=1, quantile=0.25)
    return SimpleNamespace(config=config, members=members, best=best, epochs_trained=4)


def test_population_of_two_tasks_shows_shares_and_who_was_copied():
    """The second member takes over from the first, from share ¼ to share ½, before epoch 2."""
    best = SimpleNamespace(member=1, epoch=1, score=3.0, weights=[1.0, 1.0])
    found = population([[[1, 3], [1, 3]], [[9, 1], [1, 1]]], [[2.0, 2.5], [None, 3.0]], [[None, None], [None, 0]], best)
    ax = population_search.population(found)
    (lineage,) = [line for line in ax.lines if to_rgb(line.get_color()) == to_rgb(look.GREY)]
    assert lineage.get_xydata() == pytest.approx(np.array([[1, 0.25], [2, 0.5]], dtype=float))
    (star,) = [line for line in ax.lines if line.get_marker() == "*"]
    assert star.get_xydata() == pytest.approx(np.array([[2, 0.5]], dtype=float))
    assert "(1 time in all)" in canvas.figure_of(ax).get_label()


def test_population_of_many_tasks_follows_the_winner_to_its_forebears():
    """Weights of the winner's forebear before the takeover, its own after it, each brought to sum 1."""
    names = [task.name for task in problems.get("cityscapes/19C").tasks]
    best = SimpleNamespace(member=1, epoch=1, score=3.0, weights=[1.0, 1.0, 2.0])
    found = population(
        [[[2, 1, 1], [2, 1, 1]], [[0, 0, 1], [1, 1, 2]]],
        [[2.0, 2.5], [1.0, 3.0]],
        [[None, None], [None, 0]],
        best,
        "cityscapes/19C",
    )
    ax = population_search.population(found)
    lines = {line.get_label(): line.get_ydata() for line in ax.lines}
    assert [lines[name].tolist() for name in names] == [[0.5, 0.25], [0.25, 0.25], [0.25, 0.5]]


# -- regularisation ----------------------------------------------------------------------------------------------------


def test_regularised_reads_every_run_at_both_epochs(make_run, baselines):
    """Best on validation after the first epoch, overfitted after the second."""
    run = make_run([{"CL": 0.88, "RR": 0.5}, {"CL": 0.8, "RR": 0.6}], dropout=0.2, weight_decay=1e-4)
    table = ablations.regularised([run], baselines, TASKS)
    assert table.set_index("early_stopping").delta_m.to_dict() == pytest.approx({True: 5, False: -10})
    assert (table.dropout == 0.2).all() and (table.weight_decay == 1e-4).all()


def test_a_lead_that_regularisation_explains():
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
    with pytest.raises(ValueError, match="no run of unit_scal without"):
        ablations.table_of_regularisation(table[table.dropout > 0])


# -- luck, tuning, size ------------------------------------------------------------------------------------------------


def test_selection_bias_is_drawn_per_method():
    table = rows("edm", [(0, 0)] * 3).assign(bias=[1.0, 2.0, 3.0])
    ax = ablations.selection_bias(table)
    assert any(line.get_xdata()[0] == 2 for line in ax.lines if line.get_marker() == LOOK["edm"].marker)


def test_search_selection_bias_rises_where_the_best_on_validation_is_luck():
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
    arrows = [line for line in ax.lines if line.get_marker() == ">"]
    assert [line.get_ydata()[0] for line in arrows] == [1]


def test_compute_parity_joins_the_widths_of_the_uniform_loss():
    us = rows("unit_scal", [(-10, -10)] * 3).assign(width=1.0, seconds=2.0, lr=0.001)
    table = pd.concat([us, us.assign(width=2.0, seconds=4.0, delta_m=-6.0), us.assign(smto="edm", seconds=3.0)])
    ax = ablations.compute_parity(table)
    (line,) = lines_of(ax, LOOK["unit_scal"].colour)
    assert line.get_xydata() == pytest.approx(np.array([[2, -10], [4, -6]], dtype=float))
    assert [text.get_text() for text in ax.texts] == ["× 1", "× 2"]
    again = ablations.compute_parity(pd.concat([table, us.assign(lr=0.002), us.assign(smto="cdtt", lr=0.002)]))
    assert texts(again) == ["Unit. Scal., 0.001", "Unit. Scal., 0.002", "CDTT, 0.002", "EDM, 0.001"]
