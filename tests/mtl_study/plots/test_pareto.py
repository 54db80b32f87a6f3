"""The front of a sweep of fixed weights, drawn and in words."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from mtl_study.analysis import fronts
from mtl_study.look import LOOK
from mtl_study.plots import canvas, pareto


@pytest.fixture
def sweep(rows):
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


def test_front_line_is_that_of_the_means_and_words_stand_in_the_legend(sweep):
    table = sweep
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
    assert (
        "6 settings of unequal weights; thick line: the front of their means and the uniform"
        in canvas.figure_of(ax).get_label()
    )


def test_front_of_two_rates_tells_them_apart(rows, sweep):
    """Full colour for the rate that comes first, white for the other, the uniform loss included."""
    more = rows("fixed", [(0.5, -1.0)] * 3, {"lr": 0.002, "weights": 9})
    table = pd.concat([sweep, more, rows("unit_scal", [(0.4, -9.0)] * 3, {"lr": 0.002})])
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


def test_table_of_placed_says_what_the_additive_epsilon_indicator_is(sweep):
    found = pareto.table_of_placed(fronts.placed(sweep, ("CL", "RR")))
    assert found.loc["EDM", ["ε+", "seeds", "reading"]].tolist() == pytest.approx([5, 3, "beyond"])
    assert (
        "7 fixed-weight runs (equal ones too), same" in found.attrs["caption"]
        and "1.00 points on RR" in found.attrs["caption"]
    )


def test_budget_is_a_line_for_the_sweep_and_a_point_for_a_method(sweep):
    table = fronts.budget(sweep, ("CL", "RR"), prices={"edm": 1.5})
    ax = pareto.budget(table)
    (edm,) = lines_of(ax, LOOK["edm"].colour)
    (of_sweep,) = lines_of(ax, LOOK["fixed"].colour)
    assert edm.get_xdata().tolist() == [1.5] and of_sweep.get_xdata().tolist() == list(range(1, 8))
    assert (np.diff(of_sweep.get_ydata()) > 0).all() and ax.get_xscale() == "log"
    named = {text.get_text(): text.xy for text in ax.texts if text.get_text()}
    assert named["EDM"] == pytest.approx(edm.get_xydata()[0]) and "sweep of fixed weights" in named
    means = table.groupby(["smto", "runs"]).value.mean()
    assert of_sweep.get_ydata().tolist() == pytest.approx(means["fixed"].tolist())
    ends = table[table.smto == "fixed"].groupby("runs").value
    (band,) = [shape for shape in ax.collections if np.ptp(shape.get_paths()[0].vertices[:, 0]) > 0]
    corners = band.get_paths()[0].vertices
    for n in range(1, 8):  # from the least to the greatest of the seeds
        heights = corners[np.isclose(corners[:, 0], n), 1]
        assert (heights.min(), heights.max()) == pytest.approx((ends.min()[n], ends.max()[n]))
    (stroke,) = [shape.get_segments()[0] for shape in ax.collections if hasattr(shape, "get_segments")]
    of_edm = table[table.smto == "edm"].value
    assert stroke.tolist() == [[1.5, pytest.approx(of_edm.min())], [1.5, pytest.approx(of_edm.max())]]


def test_utility_is_relative_to_the_best_and_counts_its_changes(sweep):
    """The ends belong to the sweep's ends, the middle to EDM."""
    table = sweep
    found = fronts.utilities(table, table, ("CL", "RR"), steps=21)
    ax = pareto.utility(found)
    best = found.groupby(["u", "smto"]).utility.mean().unstack().idxmax(axis=1)
    for u in (0.1, 0.5, 0.9):  # the bar has the colour of the method with the largest utility there
        (bar,) = [bar for bar in ax.patches if bar.get_x() < u < bar.get_x() + bar.get_width()]
        of_best = best.iloc[np.abs(best.index - u).argmin()]
        assert to_rgb(bar.get_facecolor()[:3]) == to_rgb(LOOK[of_best].colour)
    assert max(line.get_ydata().max() for line in ax.lines) == 0
    shown = {tuple(to_rgb(bar.get_facecolor()[:3])) for bar in ax.patches}
    assert shown == {to_rgb(LOOK[smto].colour) for smto in ("fixed", "edm")}
    assert "2 times" in canvas.figure_of(ax).get_label()
    names = {"the sweep": "fixed", "EDM": "edm"}
    for text in ax.texts:  # a name is printed on its own colour
        (bar,) = [b for b in ax.patches if b.get_x() < text.get_position()[0] < b.get_x() + b.get_width()]
        assert to_rgb(bar.get_facecolor()[:3]) == to_rgb(LOOK[names[text.get_text()]].colour)
    assert ax.texts
    (of_sweep,) = [line for line in ax.lines if line.get_label() == "best of the sweep"]
    assert ax.get_ylim()[0] < of_sweep.get_ydata().min()


def test_the_picture_of_the_answer_has_every_name_at_its_own_point(rows, sweep):
    """Points are means, no two names overlap, and a method with another rate than the sweep's first says so."""
    close = [
        rows(smto, [(2.4 + 0.05 * i, -15.2)] * 3, {"lr": 0.002}) for i, smto in enumerate(("cagrad", "famo", "imtl"))
    ]
    faster = rows("unit_scal", [(0.4, -9.0)] * 3, {"lr": 0.002, "options": {}})
    weighed = [
        rows("fixed", [at] * 3, {"lr": 0.001, "options": {"weights": w}})
        for at, w in [((1.0, -5.0), [0.7, 0.3]), ((-2.0, -1.0), [0.1, 0.9]), ((0.0, -30.0), [0.9, 0.1])]
    ]
    plain = rows("unit_scal", [(-1.0, -20.0)] * 3, {"lr": 0.001, "options": {}})
    edm = sweep[sweep.smto == "edm"]
    ax = pareto.objectives(pd.concat([*weighed, plain, edm, faster, *close], ignore_index=True))
    named = {text.get_text(): text for text in ax.texts if text.get_text()}
    assert set(named) == {"Unit. Scal., rate 0.001", "Unit. Scal., rate 0.002", "EDM"} | {
        f"{LOOK[smto].label}, rate 0.002" for smto in ("cagrad", "famo", "imtl")
    }
    assert named["EDM"].xy == pytest.approx((2.5, -15)) and named["Unit. Scal., rate 0.001"].xy == pytest.approx(
        (-1, -20)
    )
    dots = [tuple(line.get_xydata()[0]) for line in ax.lines if len(line.get_xydata()) == 1]
    assert {tuple(np.round(text.xy, 6)) for text in named.values()} == {tuple(np.round(dot, 6)) for dot in dots}
    renderer = canvas.figure_of(ax).canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in named.values()]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    frame = ax.get_window_extent()
    assert all(frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1) for box in boxes)
    (line,) = [line for line in ax.lines if len(line.get_xydata()) > 1]
    assert line.get_label() == "fixed weights, rate 0.001"
    in_order = [[-2, -1], [-1, -20], [1, -5], [0, -30]]  # by the weight of the first task, the uniform loss among them
    assert line.get_xydata() == pytest.approx(np.array(in_order, dtype=float))


def test_the_crosses_of_the_answer_are_one_standard_deviation_of_each_task(rows):
    """CL moves by 1 between seeds, RR by 3."""
    weighed = [
        rows("fixed", [at] * 3, {"lr": 0.001, "options": {"weights": w}})
        for at, w in [((1.0, -5.0), [0.7, 0.3]), ((-2.0, -1.0), [0.1, 0.9])]
    ]
    moving = rows("edm", [(1.0, -8.0), (2.0, -5.0), (3.0, -2.0)])
    plain = rows("unit_scal", [(-1.0, -3.0)] * 3, {"lr": 0.001, "options": {}})
    ax = pareto.objectives(pd.concat([*weighed, plain, moving], ignore_index=True))
    (cross,) = ax.containers
    across, up = (arms.get_segments()[0].tolist() for arms in cross.lines[2])
    assert across == [[1, -5], [3, -5]] and up == [[2, -8], [2, -2]]
