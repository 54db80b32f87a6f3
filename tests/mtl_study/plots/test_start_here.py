"""The figures of notebook 00 say what is true: pulls, steps, marks and tables, against theory and the registry."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mtl_core import smtos
from mtl_core.smtos.base import GramianWeighting, LossWeighting
from mtl_study.look import label
from mtl_study.plots import start_here
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


def test_the_sliders_open_and_redraw(capsys):
    """Outside a notebook a displayed figure is a line of text: one when the sliders open, one more for each move."""
    box = start_here.explorer(["unit_scal", "edm"], ["edm"])
    controls, _ = box.children
    angle, ratio, loss_ratio, methods = controls.children
    assert capsys.readouterr().out.count("Figure") == 1
    angle.value, ratio.value, loss_ratio.value, methods.value = 30, 2.0, 0.5, ("unit_scal",)
    assert capsys.readouterr().out.count("Figure") == 4


def test_under_the_sliders_words_and_weights_agree():
    """120°, 4 : 1: the mean harms task 2, the bisector weighs by 1/|g| and harms none."""
    _, table = start_here.one_pair(Pair(120, 4), ["unit_scal", "edm"])
    texts = [text.get_text() for text in table.texts]
    assert texts[texts.index("Unit. Scal.") :][:4] == ["Unit. Scal.", ".50", ".50", "makes task 2 worse"]
    assert texts[texts.index("EDM") :][:4] == ["EDM", ".20", ".80", ""]
