"""What all figures share: labels that do not overlap, captions that are kept."""

import itertools
import json
import math

import pandas as pd
import pytest
from matplotlib.ticker import MaxNLocator

from mtl_study import artifacts, look
from mtl_study.analysis import alignment
from mtl_study.plots import canvas, forest, selection, similar_tasks


def overlapping_labels(figure):
    """Pairs of neighbouring tick labels that overlap, as drawn."""
    figure.draw_without_rendering()
    found = []
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        shown = [label for label in axis.get_ticklabels() if label.get_visible() and label.get_text()]
        for one, other in itertools.pairwise(shown):
            a, b = one.get_window_extent(), other.get_window_extent()
            line = 0.7 * one.get_fontsize() * figure.dpi / 72
            # slanted labels end at their ticks: there, a line's height between the ends is enough
            if abs(a.x1 - b.x1) < line if one.get_rotation() else a.overlaps(b):
                found.append((one.get_text(), other.get_text()))
    return found


@pytest.mark.parametrize("log", [False, True])
def test_labels_of_numbers_that_touch_are_thinned(log, tmp_path, monkeypatch):
    """Where a figure is published; those that have room stay, and names are left alone."""
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path))
    figure, (narrow, wide, named) = canvas.figure(14, 2, 3, width_ratios=[1, 5, 1])
    for ax in (narrow, wide):
        ax.set(xlim=(1, 1000) if log else (-0.012, 0.012), yticks=[])
        ax.xaxis.set_major_locator(MaxNLocator(8))
        if log:
            ax.set_xscale("log")
            canvas.plain_log_ticks(ax.xaxis)
    named.set_xticks(range(8), ["a long name"] * 8)
    figure.draw_without_rendering()
    places = list(wide.get_xticks())
    assert len(overlapping_labels(figure)) > 7
    canvas.publish(narrow, "01_x", "order", "Title")
    assert {one for pair in overlapping_labels(figure) for one in pair} == {"a long name"}
    assert list(wide.get_xticks()) == places and len(narrow.get_xticks()) < len(places)
    if log:
        assert {"1", "10", "100"} <= {label.get_text() for label in narrow.get_xticklabels()}


def test_a_band_is_the_mean_and_one_standard_deviation_between_seeds():
    """By hand, of 1 and 3: 2 ± √2; at the second place, where there is one seed, 5 and no band."""
    table = pd.DataFrame({"at": [1, 1, 2], "value": [1.0, 3.0, 5.0], "smto": "edm"})
    _, ax = canvas.figure()
    assert canvas.lines(ax, table, "at", "value", errorbar=canvas.one_sd()) == ["edm"]
    (line,), (band,) = ax.lines, ax.collections
    assert (line.get_label(), line.get_color()) == ("EDM", look.LOOK["edm"].colour)
    assert line.get_xydata().tolist() == [[1, 2], [2, 5]]
    heights = band.get_paths()[0].vertices
    at_first = heights[heights[:, 0] == 1, 1]
    assert at_first.min() == pytest.approx(2 - math.sqrt(2)) and at_first.max() == pytest.approx(2 + math.sqrt(2))
    assert set(heights[:, 0]) == {1}
    _, other = canvas.figure()
    canvas.lines(other, table, "at", "value", errorbar=canvas.one_sd(lambda mean: 1.5))
    assert other.collections[0].get_paths()[0].vertices[:, 1].min() == 1.5
    assert (other.get_xlabel(), other.get_ylabel()) == ("", "")  # not the names of columns
    _, logarithmic = canvas.figure()
    logarithmic.set_yscale("log")
    with pytest.raises(ValueError, match="average logarithms"):
        canvas.lines(logarithmic, table, "at", "value")


def test_a_cross_is_the_mean_and_one_standard_deviation_between_seeds():
    """By hand, of 1 and 3: 2 and √2; of one seed 0."""
    mean, sd = canvas.mean_and_sd(pd.DataFrame({"method": ["a", "a", "b"], "value": [1.0, 3.0, 5.0]}).groupby("method"))
    assert mean.value.tolist() == [2, 5] and sd.value.tolist() == pytest.approx([math.sqrt(2), 0])


def test_a_legend_shows_the_dashes_on_both_sides_of_a_marker():
    """Nash-MTL's and RotoGrad's first gap would be under the marker of a sample of the usual length."""
    _, ax = canvas.figure()
    smtos = ["edm", "nash_mtl", "rotograd"]
    handles = [canvas.legend_entry(smto) for smto in smtos]
    canvas.lines(ax, pd.DataFrame([(s, at, at) for s in smtos for at in (0, 1)], columns=["smto", "x", "y"]), "x", "y")
    for dashed, shown in ((False, handles[:1]), (True, handles)):
        found = canvas.legend(ax, handles=shown, fontsize=8.5)
        assert (found.handlelength > 3) == dashed and not found.get_frame_on()
    assert [sample.is_dashed() for sample in found.legend_handles] == [False, True, True]


def test_seaborn_draws_problems_as_they_are_drawn_elsewhere():
    problems = ["multimnist/CL_RR", "cityscapes/HR"]
    table = pd.DataFrame([(p, at, at) for p in problems for at in (0, 1)], columns=["problem", "at", "value"])
    _, ax = canvas.figure()
    canvas.lines(ax, table, "at", "value", "problem")
    for line, problem in zip(ax.lines, problems, strict=True):
        drawn = canvas.problem_line(problem)
        assert [line.get_label(), line.get_marker(), line.get_color()] == [
            drawn[k] for k in ("label", "marker", "color")
        ]
        assert (line.get_linestyle() == "--") == ("linestyle" in drawn)


def test_a_strip_has_a_mark_per_seed_and_its_mean_across_or_upright():
    for upright in (False, True):
        _, ax = canvas.figure()
        canvas.strip(ax, 3, pd.Series([1.0, 2.0, 6.0]), "k", "o", upright=upright, label="it")
        (marks,), (bar,) = ax.collections, ax.lines
        assert marks.get_offsets()[:, int(upright)].tolist() == [1, 2, 6]
        assert ax.get_legend() is None  # which seaborn would add, as there is a label
        assert marks.get_offsets()[:, int(not upright)].tolist() == [3, 3, 3]
        assert bar.get_xydata()[:, int(upright)].tolist() == [3, 3] and marks.get_label() == "it"
        assert bar.get_xydata()[:, int(not upright)] == pytest.approx([2.7, 3.3])


def test_lines_of_reference_are_at_zero():
    _, ax = canvas.figure()
    canvas.zero_line(ax)
    canvas.zero_line(ax, "x")
    across, up = ax.lines
    assert list(across.get_ydata()) == [0, 0] and list(up.get_xdata()) == [0, 0]


def test_a_forest_plot_has_a_row_per_method_and_problem_next_to_its_name():
    """EDM on two problems, IMTL on one: three rows, in the order of display, each tick in the middle of its rows."""
    rows = [("edm", "multimnist/CL_RR", 1.0), ("edm", "multimnist/CL_CR", 2.0), ("imtl", "multimnist/CL_RR", 3.0)]
    table = pd.DataFrame(
        [(s, p, seed, v + seed) for s, p, v in rows for seed in (-1, 1)], columns=["smto", "problem", "seed", "value"]
    )
    ax = forest.forest_plot(table, "value")
    means = {
        line.get_xdata()[0]: (line.get_ydata()[0], line.get_color())
        for line in ax.lines
        if line.get_markersize() == 7 and len(line.get_xdata()) == 1
    }
    problem = {name: canvas.problem_line(f"multimnist/{name}")["color"] for name in ("CL_CR", "CL_RR")}
    assert means == {2.0: (0, problem["CL_CR"]), 1.0: (1, problem["CL_RR"]), 3.0: (2.7, problem["CL_RR"])}
    ticks = {text.get_text(): text.get_position()[1] for text in ax.get_yticklabels()}
    assert ticks == {"EDM": 0.5, "IMTL": 2.7}
    (interval,) = [
        line
        for line in ax.lines
        if len(line.get_xdata()) == 2 and line.get_marker() == "None" and line.get_ydata()[0] == 2.7
    ]
    half = 12.706 * math.sqrt(2) / math.sqrt(2)  # t of one degree of freedom, sd √2, two seeds
    assert list(interval.get_xdata()) == pytest.approx([3 - half, 3 + half], abs=1e-2)


def test_no_labels_overlap(all_methods, two_problems):
    runs, table = all_methods
    both, two = two_problems
    drawn = [
        selection.figure_1(table),
        selection.figure_1(table, scale="symlog"),
        selection.forest(table),
        selection.forest(table, scale="symlog"),
        selection.trade_off(table),
        similar_tasks.figure_2(two, both),
        similar_tasks.figure_7(alignment.gradient_statistics(both)),
        similar_tasks.weight_distances(alignment.per_run([*runs, *both])),
        similar_tasks.unrelated_tasks(),
    ]
    assert [overlapping_labels(canvas.figure_of(axes)) for axes in drawn] == [[]] * len(drawn)


def test_published_figures_and_tables_keep_their_captions(all_methods):
    _, table = all_methods
    ax = selection.figure_1(table)
    shown = canvas.publish(ax, "01_figure_1", "smoke", "Figure 1")
    folder = artifacts.folder("smoke")
    note = json.loads((folder / "figures" / "01_figure_1.json").read_text())
    assert note["title"] == "Figure 1" and note["caption"] == canvas.figure_of(ax).get_label()
    assert shown.data == f"**Figure 1.** Preset smoke decides nothing. {note['caption']}"
    assert note["caption"] in canvas.publish(ax, "01_figure_1", "quick", "Figure 1").data.removeprefix("**Figure 1.** ")
    canvas.publish_table(selection.table_3(table), "01_table_3", "smoke", "Table 3")
    assert "| CAGrad |" in (folder / "tables" / "01_table_3.md").read_text()


def test_a_name_is_at_its_own_point_and_covers_neither_a_marker_nor_a_name():
    """Three points in a row, so close that the nearest place of each name is taken."""
    _, ax = canvas.figure()
    points = [(0.4, 0.5), (0.44, 0.5), (0.48, 0.5)]
    ax.set(xlim=(0, 1), ylim=(0, 1))
    found = canvas.label_points(ax, points, ["one", "two", "three"], ["k"] * 3)
    dots, boxes = ax.transData.transform(points), [text.get_window_extent() for text in found]
    assert [text.xy for text in found] == points
    for i, box in enumerate(boxes):
        assert not any(box.padded(4).contains(*dot) for j, dot in enumerate(dots) if j != i)
        assert not any(box.overlaps(other) for other in boxes[:i])
