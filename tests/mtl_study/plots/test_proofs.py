"""The figures of notebook 06: every method is named, and what is drawn is what was computed."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
from matplotlib.text import Text

from mtl_core import smtos
from mtl_study import look
from mtl_study.plots import canvas
from mtl_study.plots import proofs as figures
from mtl_study.teaching import proofs
from mtl_study.teaching.toys import Pair

UNSCALED = {"mgda": {"normalize": "none"}, "fixed": {"weights": [0.5, 0.5]}}
PAIRS = [Pair(angle, ratio) for angle in (40, 120, 160) for ratio in (0.3, 1.0, 2.5)]


def test_every_method_is_named_on_the_page_for_the_wall():
    without = {"rlw_normal": "dice", "rlw_dirichlet": "dice", "graddrop": "coins"}
    without |= {"auto_lambda": "a second batch", "bayesagg_mtl": "last layers", "moco": "earlier steps"}
    without |= {"modo": "further batches", "sdmgrad": "further batches"}
    groups = proofs.same_field(look.in_order(set(smtos.keys()) - set(without)), PAIRS, UNSCALED)
    axes = figures.fields(groups, without, UNSCALED, resolution=5)
    lines = [line for text in canvas.figure_of(axes).findobj(Text) for line in text.get_text().splitlines()]
    named = {line.split(":")[0] for line in lines}
    assert {look.label(key) for key in smtos.keys()} <= named  # noqa: SIM118


def test_the_share_of_task_1_is_drawn_where_its_gradient_is_that_long():
    """EDM weighs by 1/|g|: task 1 has ⅑ at the top, where its gradient is eight times as long, and ⅞ … at the foot."""
    axes = figures.fields([["edm"], ["unit_scal"], ["cagrad"]], {}, {}, resolution=9)
    edm, mean = (ax.collections[0].get_array().reshape(9, 9) for ax in axes.flat[:2])
    np.testing.assert_allclose(edm[:, 4], [1 / (1 + r) for r in 2 ** np.linspace(-3, 3, 9)], atol=1e-6)
    np.testing.assert_allclose(mean, 0.5)
    assert axes.flat[0].get_ylim() == (1 / 8, 8) and axes.flat[0].get_xlim() == (-1, 1)
    hatched = axes.flat[1].collections[-1].get_paths()  # where the mean makes a task worse: only where they conflict
    assert hatched and max(path.vertices[:, 0].max() for path in hatched if len(path.vertices)) < 0


def test_weights_are_to_the_left_and_turns_to_the_right():
    cosines = np.array([-0.5, 0.0, 0.5])
    frame = pd.DataFrame({"smto": "edm", "cosine": cosines, "share": [0.5, 0.6, 0.7], "degrees": [3.0, 2.0, 1.0]})
    axes = figures.sensitivity(frame, 1.1)
    assert [ax.get_title(loc="left") for ax in axes] == [
        "the weights", "the update, turned away from the mean gradient by"
    ]  # fmt: skip
    for ax, column in zip(axes, ("share", "degrees"), strict=True):
        np.testing.assert_allclose(ax.lines[0].get_xydata(), np.stack([cosines, frame[column]], axis=1))
    assert axes[0].texts[0].get_text() == "EDM" and axes[0].texts[0].xy == (0.5, 0.7)


def test_beyond_two_tasks_the_lone_gradient_is_hollow():
    deviations = pd.DataFrame([("edm", 3, 0.1, 1e-15)], columns=["smto", "K", "median", "worst"])
    left, right = figures.beyond_two({"edm": np.array([0.2, 0.3, 0.5])}, deviations)
    filled, hollow = (line for line in left.lines if line.get_marker() == "o")
    assert list(filled.get_xdata()) == [0.2, 0.3] and list(hollow.get_xdata()) == [0.5]
    assert hollow.get_markerfacecolor() == "white"
    faces = {dots.get_offsets()[0][0]: tuple(dots.get_facecolor()[0][:3]) for dots in right.collections}
    assert faces[0.1] == (1, 1, 1) and faces[1e-15] != (1, 1, 1)


def test_famo_on_two_toys_and_under_noise():
    shares = np.array([[0.5, 0.5], [0.2, 0.8]])
    still = SimpleNamespace(weights=shares)
    left, right = figures.famo({"a": still, "b": still}, {0.1: np.full((3, 4), 0.4)})
    assert left.lines[0].get_ydata().tolist() == [0.5, 0.2] and [t.get_text() for t in left.texts] == ["a", "b"]
    assert right.lines[0].get_ydata().tolist() == [0.4] * 4
    assert [ax.get_title(loc="left") for ax in (left, right)][1] == "equal tasks, noisy losses"
