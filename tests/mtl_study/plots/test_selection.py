"""Section 3.1: figures and tables contain what their captions say."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.markers import MarkerStyle

from mtl_study import look
from mtl_study.analysis import comparisons, inference
from mtl_study.paper import published
from mtl_study.plots import canvas, captions, selection

CL_RR, CL_CR, RL_RR = "multimnist/CL_RR", "multimnist/CL_CR", "multimnist/RL_RR"
TABLE_3 = published.table("table_3")


def test_figure_1_has_a_box_per_method_and_the_median_of_unit_scal(all_methods):
    _, table = all_methods
    ax = selection.figure_1(table)
    assert [t.get_text() for t in ax.get_xticklabels()] == [look.label(smto) for smto in TABLE_3.index]
    assert len(ax.patches) == 16
    median = table[table.smto == "unit_scal"].delta_m.median()
    dashed = [line for line in ax.lines if line.get_linestyle() == "--" and line.get_color() == look.INK]
    assert [line.get_ydata()[0] for line in dashed] == [median]


def test_a_box_has_quartiles_and_whiskers_of_one_and_a_half_lengths():
    """By hand, of 0 to 8: quartiles 2 and 6, so that a whisker may reach 12, and 100 is beyond it."""
    _, ax = canvas.figure()
    selection.box(ax, 3, np.array([0, 1, 2, 3, 4, 5, 6, 7, 100]), "edm")
    (patch,) = ax.patches
    assert patch.get_path().vertices[:, 1].min() == 2 and patch.get_path().vertices[:, 1].max() == 6
    assert max(line.get_ydata().max() for line in ax.lines if len(line.get_ydata()) == 2) == 7
    assert any(list(line.get_ydata()) == [4, 4] for line in ax.lines)
    selection.box(ax, 4, np.array([0, 1, 2]), "edm")
    mark = MarkerStyle(look.LOOK["edm"].marker)
    expected = mark.get_path().transformed(mark.get_transform()).vertices
    assert ax.collections[0].get_paths()[0].vertices == pytest.approx(expected)


def test_the_trade_off_has_each_name_at_its_mean_and_lines_of_equal_delta_m(experiment):
    _, table = experiment(CL_RR, {"unit_scal": (-1, -9), "edm": (-2, -3)})
    ax = selection.trade_off(table)
    means = table.groupby("smto")[["CL", "RR"]].mean()
    named = {text.get_text(): text.xy for text in ax.texts if text.get_text()}
    for smto, own in table.groupby("smto"):
        drawn = [c for c in ax.collections if to_hex(c.get_facecolor()[0]).upper() == look.LOOK[smto].colour]
        at = np.concatenate([np.asarray(c.get_offsets()) for c in drawn])
        np.testing.assert_allclose(at, [*own[["CL", "RR"]].to_numpy(), means.loc[smto].to_numpy()])
    assert named["EDM"] == pytest.approx(means.loc["edm"]) and named["Unit. Scal."] == pytest.approx(
        means.loc["unit_scal"]
    )
    assert named["single-task models"] == (0, 0)
    dots = ax.transData.transform(means)
    for text in ax.texts:  # no name is under the marker of another method
        box = text.get_window_extent()
        assert text.get_text() in ("", "single-task models") or box.padded(4).count_contains(dots) <= 1
    assert ax.get_xlabel().startswith("gain on CL") and ax.get_ylabel().startswith("gain on RR")
    thin = [line.get_xydata() for line in ax.lines if line.get_color() == "#ececec"]
    levels = [ends.mean(axis=1) for ends in thin]  # Δm at both ends of a line: the same, and evenly spread over lines
    lowest, highest = np.add(ax.get_xlim(), ax.get_ylim()) / 2
    np.testing.assert_allclose(np.transpose(levels), [np.linspace(lowest, highest, 9)[1:-1]] * 2)
    dots = {tuple(np.round(points.get_offsets()[0], 9)) for points in ax.collections if len(points.get_offsets()) == 1}
    assert tuple(np.round(means.loc["edm"], 9)) in dots


def test_few_seeds_are_drawn_one_by_one_and_many_are_not(experiment):
    gains = {"unit_scal": (-1, -9), "edm": (-1, -3)}
    for seeds, dots in [(3, 6), (5, 10), (6, 0)]:
        _, table = experiment(CL_RR, gains, seeds)
        ax = selection.figure_1(table)
        assert sum(len(points.get_offsets()) for points in ax.collections) == dots
        assert f"{seeds} seeds" in canvas.figure_of(ax).get_label()


def test_a_method_without_any_value_keeps_its_place(all_methods):
    _, table = all_methods
    table.loc[table.smto == "imtl", ["delta_m", "CL", "RR"]] = math.nan
    table.loc[table.smto == "imtl", "diverged"] = True
    ax = selection.figure_1(table)
    assert len(ax.get_xticklabels()) == 16 and len(ax.patches) == 15
    assert "diverged, read at their best epoch before, if any: 3 of IMTL." in canvas.figure_of(ax).get_label()
    selection.forest(table)
    selection.trade_off(table)


def test_forest_draws_the_paired_intervals_and_the_papers_difference(all_methods):
    _, table = all_methods
    ax = selection.forest(table)
    found = comparisons.paired(table)
    row = [t.get_text() for t in ax.get_yticklabels()].index("EDM")
    drawn = [line for line in ax.lines if len(line.get_ydata()) and line.get_ydata()[0] in (row, row + 0.27)]
    spans = [tuple(line.get_xdata()) for line in drawn if len(line.get_xdata()) == 2]
    assert spans == [(found.low["edm"], found.high["edm"])]
    hollow = [line.get_xdata()[0] for line in drawn if line.get_markerfacecolor() == "white"]
    assert hollow == [pytest.approx(-2.303 + 8.952)]
    entries = ax.get_legend().get_texts(), ax.get_legend().legend_handles
    assert {text.get_text(): sample.get_markerfacecolor() for text, sample in zip(*entries, strict=True)} == {
        "here": look.INK,  # grey are those at one learning rate
        "paper": "white",
    }


def test_the_papers_imtl_is_next_to_both_forms(experiment):
    """It computed the transposed one (D24)."""
    _, table = experiment(CL_RR, {smto: (-1, -9) for smto in ("unit_scal", "imtl", "imtl_transposed")}, seeds=2)
    hollow = [line for line in selection.forest(table).lines if line.get_markerfacecolor() == "white"]
    theirs = TABLE_3.delta_m["imtl"] - TABLE_3.delta_m["unit_scal"]
    assert [line.get_xdata()[0] for line in hollow] == pytest.approx([theirs] * 2)


def test_one_seed_is_drawn_without_an_interval(experiment):
    _, table = experiment(CL_RR, {"unit_scal": (-1, -9), "edm": (-1, -3)}, seeds=1)
    ax = selection.forest(table, margin=2)
    assert np.isfinite(ax.get_xlim()).all()
    assert "With one seed there is no interval." in canvas.figure_of(ax).get_label()
    selection.figure_1(table)


def test_table_3_stands_beside_the_papers(all_methods):
    _, table = all_methods
    found = selection.table_3(table)
    assert list(found.index) == [look.label(smto) for smto in TABLE_3.index]
    row = found.loc["CAGrad"]
    runs = table[table.smto == "cagrad"]
    assert (row["paper Δm"], row["n"]) == (-2.137, 3)
    assert row["Δm"] == runs.delta_m.mean() and row["± RR"] == runs.RR.std(ddof=1)
    assert "standard deviation of single runs" in found.attrs["caption"]


def test_table_of_settings_says_who_chose_and_what_the_paper_chose():
    rows = [
        {"smto": "single_task", "task": "CL", "lr": 0.001, "dropout": 0.0, "options": {}, "chosen": "searched here"},
        {"smto": "imgrad", "task": "", "lr": 0.001, "dropout": 0.0, "options": {"c": 0.8}, "chosen": "searched here"},
        {"smto": "cagrad", "task": "", "lr": 0.005, "dropout": 0.1, "options": {"c": 0.2}, "chosen": "searched here"},
    ]
    found = selection.table_of_settings(pd.DataFrame(rows).assign(weight_decay=0.0), CL_RR)
    assert list(found.index) == ["single task CL", "CAGrad", "IMGrad"]
    assert found["paper's choice"].tolist() == ["0.0025, 0.5", "0.001, 0, c = 0.8", "not in the paper"]
    assert found.loc["CAGrad", ["lr", "dropout", "own options"]].tolist() == ["0.005", "0.1", "c = 0.2"]
    assert "Table 7" in found.attrs["caption"] and "D47" not in found.attrs["caption"]
    without = selection.table_of_settings(pd.DataFrame(rows).assign(weight_decay=0.0, dropout=0.0), CL_RR)
    assert without.attrs["caption"].endswith("No method here is regularised by dropout or weight decay (D47).")


def test_table_3_says_how_sure_a_level_and_a_place_are(all_methods):
    """Of the level the interval of its own column, which holds the error of the single-task models; of the place those
    that it shares with methods it cannot be told from."""
    _, table = all_methods
    wide = table.groupby("smto").delta_m.transform("mean") + 5 * (table.seed - 2)
    found = selection.table_3(table.assign(**{"level delta_m": wide}))
    mean, low, high, _ = inference.t_interval(wide[table.smto == "uw"])
    assert found["Δm, 95 % interval"]["UW"] == captions.interval(low, high, 1) and high - mean > 10
    assert found.places["SI"] == "15 to 16" and set(found.ties["SI"]) & set(found.ties["UW"])
    assert "Δm, 95 % interval" not in selection.table_3(table)


def test_differences_stand_beside_those_at_one_rate(all_methods):
    """FAMO and EDM have another rate than Unit. Scal.: of FAMO there are runs at one rate, of EDM there are none."""
    _, table = all_methods
    rate = table.smto.map({"famo": 0.01, "edm": 0.02}).fillna(0.001)
    table = table.assign(config=[json.dumps({"lr": lr}) for lr in rate])
    others = table[table.smto == "unit_scal"].assign(config=json.dumps({"lr": 0.01}))
    others["delta_m"] += 3
    one_rate = comparisons.at_one_rate(table, others)
    found = selection.table_of_differences(table, one_rate)
    assert found.loc["FAMO", "difference"] - found.loc["FAMO", "at one rate"] == pytest.approx(3)
    assert found.loc["FAMO", ["rates", "one rate", "n at one rate"]].tolist() == ["0.01, 0.001", "0.01", 3]
    assert found.loc["EDM", ["one rate", "n at one rate"]].tolist() == ["no runs", 0]
    assert found.loc["CAGrad", "difference"] == found.loc["CAGrad", "at one rate"]
    assert "No runs at one rate: EDM." in found.attrs["caption"]
    ax = selection.forest(table, one_rate=one_rate)
    assert "(no runs: EDM)" in canvas.figure_of(ax).get_label()
    row = [tick.get_text() for tick in ax.get_yticklabels()].index("FAMO")
    (grey,) = [line for line in ax.lines if line.get_color() == look.GREY and line.get_markersize() == 7]
    assert grey.get_xydata()[0] == pytest.approx([found.loc["FAMO", "at one rate"], row - 0.27])
