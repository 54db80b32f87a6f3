"""What all figures share: labels that do not overlap, captions that are kept."""

import itertools
import json

from mtl_study import artifacts
from mtl_study.analysis import alignment
from mtl_study.plots import canvas, selection, similar_tasks


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
