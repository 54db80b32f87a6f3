"""The figures of notebook 00 say what is true: pulls, steps, marks and tables, against theory and the registry."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import FancyArrowPatch, Polygon
from numpy.testing import assert_allclose

from mtl_core import smtos
from mtl_core.smtos.base import GramianWeighting, LossWeighting
from mtl_study.look import LOOK, label
from mtl_study.plots import canvas, start_here
from mtl_study.teaching.toys import Bowl, Pair, Toy, walk

TOY = Toy((Bowl((-2, 0), (2, 1), 1.0), Bowl((2, 1), (0.5, 0.5), 0.25)))


@pytest.mark.parametrize("angle", [20, 90, 150])
@pytest.mark.parametrize("ratio", [1 / 4, 1, 4])
def test_whose_gradient_an_update_follows(angle, ratio):
    """The bisector pulls both alike; the mean follows lengths alone; PCGrad is the mean until there is conflict."""
    pair = Pair(angle, ratio)
    for key in ("edm", "imtl_g", "nash_mtl"):
        assert start_here.pull(key, pair) == pytest.approx(1 / 2)
    uniform = start_here.pull("unit_scal", pair)
    assert uniform == pytest.approx(ratio / (1 + ratio))
    pcgrad = start_here.pull("pcgrad", pair)
    if angle <= 90:
        assert pcgrad == pytest.approx(uniform)
    else:
        assert abs(pcgrad - 1 / 2) < abs(uniform - 1 / 2) or ratio == 1


def test_the_mark_of_a_harmful_step_by_hand():
    """120° and 3 : 1: g₂·(g₁ + g₂) = −3/2 + 1 < 0 in units of |g₂|², so the mean harms task 2 and only that."""
    mean = np.array([0.5, 0.5])
    assert start_here.made_worse(Pair(120, 3), mean) == "2"
    assert start_here.made_worse(Pair(120, 1 / 3), mean) == "1"
    assert start_here.made_worse(Pair(120, 1), mean) == ""


def test_a_step_has_the_length_asked_for_and_goes_downhill():
    pair = Pair(100, 2)
    step = start_here.step(pair, np.array([0.3, 0.7]), 0.85)
    assert np.linalg.norm(step) == pytest.approx(0.85)
    assert (pair.gradients @ step < 0).all()
    assert_allclose(start_here.step(Pair(180, 1), np.array([0.5, 0.5]), 0.85), 0)


@pytest.mark.parametrize(
    ("number", "text"), [(0.25, ".25"), (1.5, "1.50"), (-0.5, "−0.50"), (123.4, "123"), (0, ".00")]
)
def test_weights_are_printed_short(number, text):
    assert start_here.short(number) == text


def test_the_catalogue_has_a_sentence_for_every_method():
    keys = smtos.keys()
    table = start_here.catalogue(keys)
    assert list(table.index) == [label(key) for key in keys]
    assert table["what it does"].str.len().min() > 20


def test_the_grid_holds_every_method_that_reads_gramian_or_losses():
    registered = smtos.keys()
    keys = [key for key in registered if issubclass(smtos.get(key), GramianWeighting | LossWeighting)]
    ax = start_here.grid(keys, [Pair(60, 1), Pair(120, 3)], options={"fixed": {"weights": [0.2, 0.8]}})
    texts = {text.get_text() for text in ax.texts}
    assert {label(key) for key in keys} <= texts
    assert {"60°\ngradients 1 : 1\nlosses 1 : 1", ".20  .80", "at random", "2 worse"} <= texts


def test_the_table_of_ends_tells_those_that_forget_their_start():
    starts = ((0, 2), (2.6, -1))
    walked = {key: [walk(TOY, smtos.build(key, 2), s, 0.12, 100) for s in starts] for key in ("unit_scal", "edm")}
    table = start_here.ends(TOY, walked)
    assert (table["smallest angle"] > 178).all()
    assert table["distance of the ends"]["Unit. Scal."] < 0.01 < 1 < table["distance of the ends"]["EDM"]


def test_of_a_methods_ends_the_smallest_angle_is_in_the_table():
    """By hand from the Jacobians of a walk that arrives and of one that has just begun."""
    walked = [walk(TOY, smtos.build("edm", 2), (0, 2), 0.12, steps) for steps in (100, 1)]
    units = [TOY.jacobian(one.points[-1]) for one in walked]
    units = [gradients / np.linalg.norm(gradients, axis=1, keepdims=True) for gradients in units]
    far, near = (np.rad2deg(np.arccos(first @ second)) for first, second in units)
    assert far > 178 and near < 150
    assert start_here.ends(TOY, {"edm": walked})["smallest angle"].tolist() == pytest.approx([near])


def test_of_one_pair_words_and_weights_agree():
    """120°, 4 : 1: the mean harms task 2, the bisector weighs by 1/|g| and harms none."""
    _, table = start_here.one_pair(Pair(120, 4), ["unit_scal", "edm"])
    texts = [text.get_text() for text in table.texts]
    assert texts[texts.index("Unit. Scal.") :][:4] == ["Unit. Scal.", ".50", ".50", "makes task 2 worse"]
    assert texts[texts.index("EDM") :][:4] == ["EDM", ".20", ".80", ""]


def arrows(ax):
    """Tail and head of every arrow, with its colour."""
    patches = [patch for patch in ax.patches if isinstance(patch, FancyArrowPatch)]
    return [(*map(np.array, patch._posA_posB), to_hex(patch.get_edgecolor()).upper()) for patch in patches]


def test_minima_are_named_where_they_are():
    ax = start_here.landscape(TOY, canvas.figure()[1])
    assert {text.get_text(): text.xy for text in ax.texts} == {"minimum of L₁": (-2, 0), "minimum of L₂": (2, 1)}
    assert [tuple(line.get_xydata()[0]) for line in ax.lines if line.get_marker() == "x"] == [(-2, 0), (2, 1)]


def test_arrows_point_downhill_and_carry_their_own_names():
    theta, weights = np.array([0.0, 2.0]), {"unit_scal": np.array([0.5, 0.5]), "edm": np.array([0.2, 0.8])}
    ax = start_here.one_step(TOY, theta, weights, scale=0.1)
    first, second, *steps = arrows(ax)
    jacobian = TOY.jacobian(theta)
    names = {text.get_text(): text.xy for text in ax.texts}
    for (tail, head, _), gradient, name in zip((first, second), jacobian, ("−g₁", "−g₂"), strict=True):
        assert_allclose([tail, head], [theta, theta - 0.1 * gradient])
        assert_allclose(names[name], head)
    for (_, head, colour), (smto, w) in zip(steps, weights.items(), strict=True):
        assert_allclose(head, theta - 0.1 * w @ jacobian, atol=1e-12)
        assert colour == LOOK[smto].colour
    assert "0.1 times as long" in canvas.figure_of(ax).get_label()


def test_steps_that_make_task_2_worse_are_shaded_and_named():
    """The third pair conflicts and its mean helps both; of the fourth the mean makes task 2 worse."""
    axes = start_here.agreement_and_conflict()
    titles = [ax.get_title() for ax in axes]
    assert [title.split(": ")[1].split("\n")[0] for title in titles] == [
        "they agree", "unrelated", "conflict", "conflict, and the"
    ]  # fmt: skip
    assert ["makes task 2 worse" in title for title in titles] == [False, False, False, True]
    for ax, angle in zip(axes, (40, 90, 140, 140), strict=True):
        (shaded,) = [patch for patch in ax.patches if isinstance(patch, Polygon)]
        second = [np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))]
        assert (shaded.get_xy() @ second).min() < -1 and (shaded.get_xy() @ second).max() < 1e-9
        mean = next(head for _, head, colour in arrows(ax) if colour == LOOK["unit_scal"].colour)
        assert (mean @ second < 0) == ("worse" in ax.get_title())


def test_walks_are_drawn_as_points_to_the_left_and_as_losses_to_the_right():
    walked = walk(TOY, smtos.build("edm", 2), (0, 2), 0.12, 5)
    plane, losses = start_here.walks(TOY, {"edm": [walked]})
    assert (plane.get_xlabel(), losses.get_xlabel(), losses.get_ylabel()) == ("θ₁", "L₁", "L₂")
    for ax, path in ((plane, walked.points), (losses, walked.losses)):
        drawn = [line.get_xydata() for line in ax.lines if len(line.get_xydata()) == len(path)]
        assert any(np.array_equal(points, path) for points in drawn)
        (end,) = [line.get_xydata()[0] for line in ax.lines if line.get_marker() == LOOK["edm"].marker]
        assert_allclose(end, path[-1])


def test_the_columns_of_the_grid_have_the_pairs_that_their_heads_name():
    """120° and 3 : 1 in the second column: the mean is bad for task 2 there; EDM and Nash-MTL share a row."""
    pairs = [Pair(60, 1), Pair(120, 3)]
    ax = start_here.grid(["unit_scal", "edm", "nash_mtl"], pairs)
    at = {text.get_text(): text.get_position() for text in ax.texts}
    assert at["2 worse"][0] == at[start_here.title(pairs[1])][0] > at[start_here.title(pairs[0])][0]
    assert at[".25  .75"][0] == at["2 worse"][0] and at[".25  .75"][1] < at["2 worse"][1]
    edm, nash = at["EDM"][1], at["Nash-MTL"][1]
    assert edm > nash > at[".25  .75"][1] and sum(text.get_text() == ".25  .75" for text in ax.texts) == 1
    grey = [(tail, head) for tail, head, colour in arrows(ax) if colour == start_here.TASKS[0].upper()]
    for (tail, head), pair in zip(grey, 2 * pairs, strict=True):  # task 1 of every cell, row by row
        assert_allclose(head - tail, -pair.gradients[0] / np.linalg.norm(pair.gradients, axis=1).max())


def test_maps_of_pulls_are_shared_by_methods_that_are_the_same():
    """Across the cosine from −1, up the length of g₁; the mean pulls by length alone, the bisector evenly."""
    axes = list(start_here.pulls(["unit_scal", "edm", "pcgrad", "nash_mtl"], 9).flat)
    assert [ax.get_title() for ax in axes if ax.has_data()] == ["Unit. Scal.", "EDM, Nash-MTL", "PCGrad"]
    mean, bisector, pcgrad = (ax.collections[0].get_array().reshape(9, 9) for ax in axes if ax.has_data())
    assert_allclose(mean[:, 3], [r / (1 + r) for r in np.geomspace(1 / 8, 8, 9)])
    assert_allclose(bisector, 0.5, atol=0.02)
    assert_allclose(pcgrad[:, 5:], mean[:, 5:])  # no conflict where the cosine is above 0
    assert (np.abs(pcgrad[[0, -1], 1] - 0.5) < np.abs(mean[[0, -1], 1] - 0.5)).all()
    corner = axes[0].collections[0].get_coordinates()
    assert corner[0, 0, 0] < corner[0, -1, 0] and corner[0, 0, 1] < corner[-1, 0, 1]


def test_digits_and_weights_in_place_are_those_given():
    images, originals = np.zeros((2, 28, 28)), np.ones((2, 28, 28))
    axes = start_here.digits(images, [7, 0], originals)
    assert [ax.get_title() for ax in axes[0]] == ["CL: 7", "CL: 0"]
    assert (axes[0, 1].images[0].get_array() == 0).all() and (axes[1, 1].images[0].get_array() == 1).all()
    held = walk(TOY, smtos.build("edm", 2), (0, 2), lr=0.05, steps=4, hold=True)
    ax = start_here.memory({"edm": held})
    assert_allclose(ax.lines[0].get_ydata(), 0.2, atol=1e-6)


def test_real_gradients_are_drawn_downhill_under_their_names():
    fields = {"features": Pair(120, 4), "parameters": Pair(60, 1)}
    for ax, (name, pair) in zip(start_here.real_pairs(fields, ("CL", "RR"), ["edm"]), fields.items(), strict=True):
        assert ax.get_title() == name
        first, second, edm = arrows(ax)
        unit = np.linalg.norm(pair.gradients, axis=1).max()
        assert_allclose([first[1], second[1]], -pair.gradients / unit)
        named = {text.get_text(): text.xy for text in ax.texts}
        assert_allclose([named["CL"], named["RR"]], [first[1], second[1]])
        assert np.linalg.norm(edm[1]) == pytest.approx(0.85) and edm[2] == LOOK["edm"].colour
