"""What the notebooks teach with: sources as they are, honest feedback, and a toy whose numbers can be had by hand."""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from jupyter_client import KernelManager
from numpy.testing import assert_allclose

from mtl_core import smtos
from mtl_core.smtos import edm
from mtl_core.smtos.base import GramianWeighting, LossWeighting
from mtl_study import execution
from mtl_study.publishing import notebooks
from mtl_study.teaching import marking
from mtl_study.teaching.exercises import show_source
from mtl_study.teaching.toys import Bowl, Pair, Slope, Toy, walk, weigh

TOY = Toy((Bowl((-2, 0), (2, 1), 1.0), Bowl((2, 1), (0.5, 0.5), 0.25)))
START = (0.0, 2.0)


# -- the notebook and its reader ---------------------------------------------------------------------------------------


def test_widgets_are_for_those_who_can_answer(tmp_path_factory):
    """A kernel is asked by a front end that takes questions (JupyterLab), then by one that does not (papermill)."""
    manager = KernelManager(kernel_name="python3", transport="ipc", ip=str(tmp_path_factory.mktemp("k") / "k"))
    manager.start_kernel()
    client = manager.client()
    source = inspect.getsource(execution.has_frontend)  # alone: the kernel need not import torch for it
    try:
        client.start_channels()
        client.wait_for_ready(timeout=120)

        def answer(allow_stdin: bool) -> str:
            asked = {"answer": "has_frontend()"}
            reply = client.execute(source, user_expressions=asked, allow_stdin=allow_stdin, reply=True, timeout=120)
            return reply["content"]["user_expressions"]["answer"]["data"]["text/plain"]

        assert answer(allow_stdin=True) == "True"
        assert answer(allow_stdin=False) == "False"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_there_is_no_front_end_in_a_plain_interpreter():
    assert execution.has_frontend() is False


def test_a_method_is_shown_as_it_lies_on_disk():
    shown = show_source(edm.EDM.weights).data
    place, code = shown.split("\n\n", 1)
    assert place.startswith("`mtl_core/smtos/edm.py`, line ")
    line = int(place.rsplit(" ", 1)[1])
    on_disk = Path(edm.__file__).read_text(encoding="utf-8").splitlines()
    assert code.splitlines()[0] == "```python"
    assert code.splitlines()[1] == on_disk[line - 1].strip()


def test_a_module_is_shown_whole():
    assert show_source(edm).data.endswith("```python\n" + Path(edm.__file__).read_text(encoding="utf-8") + "```")


def test_what_is_not_written_in_python_has_no_source():
    with pytest.raises(TypeError, match="no Python source"):
        show_source(len)


def test_backquotes_in_a_source_do_not_end_the_block(tmp_path, monkeypatch):
    (tmp_path / "quoting.py").write_text('"""```"""\n')
    monkeypatch.syspath_prepend(tmp_path)
    quoting = importlib.import_module("quoting")
    assert show_source(quoting).data == '````python\n"""```"""\n````'


def test_the_reading_list_holds_what_exists(tmp_path):
    for stem, title in (("00_start", "First"), ("01_next", "Second")):
        cell = {"cell_type": "markdown", "metadata": {}, "source": f"# {title}", "id": "a"}
        notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        (tmp_path / f"{stem}.ipynb").write_text(json.dumps(notebook))
    listed = notebooks.reading_list(here="00_start", folder=tmp_path).data
    assert listed == "* 00: First (you are here)\n* 01: [Second](01_next.html)"


# -- answers -----------------------------------------------------------------------------------------------------------


def test_a_number_is_right_within_one_part_in_a_million():
    """Of what is expected, or as such where that is below 1; a thousandth is wrong."""
    for expected in (1.0, -250.0, 0.001):
        allowed = 1e-6 * max(1, abs(expected))
        assert marking.same(expected + 0.5 * allowed, expected) and not marking.same(expected + 2 * allowed, expected)


# -- Gramian in, weights out -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("angle", "ratio", "loss_ratio"), [(60, 1, 1), (120, 4, 3), (179, 1 / 8, 1 / 2)])
def test_a_pair_has_the_angle_and_the_ratios_that_were_asked_for(angle, ratio, loss_ratio):
    pair = Pair(angle, ratio, loss_ratio, length=0.5, loss=2.0)
    first, second = pair.gradients
    lengths = np.linalg.norm(pair.gradients, axis=1)
    assert_allclose(first @ second / lengths.prod(), np.cos(np.deg2rad(angle)), atol=1e-12)
    assert_allclose([lengths[0] / lengths[1], lengths.prod() ** 0.5], [ratio, 0.5])
    assert_allclose([pair.losses[0] / pair.losses[1], pair.losses.prod() ** 0.5], [loss_ratio, 2.0])
    again = Pair.of(pair.gramian, pair.losses)
    assert_allclose(again.gramian, pair.gramian, atol=1e-12)
    assert_allclose(again.losses, pair.losses)


def test_weigh_asks_each_kind_of_method_its_own_question():
    gramian, losses = np.array([[4.0, 0.0], [0.0, 1.0]]), np.array([1.0, 4.0])
    assert_allclose(weigh(smtos.build("edm", 2), gramian, losses), [1 / 3, 2 / 3])
    assert_allclose(weigh(smtos.build("si", 2), gramian, losses), [1 / 2, 1 / 8])
    with pytest.raises(TypeError, match="graddrop is a function of neither"):
        weigh(smtos.build("graddrop", 2), gramian, losses)


# -- the toy -----------------------------------------------------------------------------------------------------------


def test_the_toy_by_hand():
    """At (0, 2): L = (7, 3/2), g₁ = (4, 2), g₂ = (−1, ½), so G = [[20, −3], [−3, 5/4]]."""
    assert_allclose(TOY.losses(START), [7, 1.5])
    assert_allclose(TOY.jacobian(START), [[4, 2], [-1, 0.5]])
    assert_allclose(TOY.gramian(START), [[20, -3], [-3, 1.25]])


@pytest.mark.parametrize("task", [*TOY.tasks, Slope((3, -1), 2.0)], ids=str)
def test_gradients_are_those_of_the_losses(task):
    theta = torch.tensor([0.7, -1.3], dtype=torch.float64, requires_grad=True)
    (by_autograd,) = torch.autograd.grad(task.loss(theta), theta)
    assert_allclose(task.gradient(theta.detach().numpy()), by_autograd)


def test_on_the_pareto_set_the_gradients_are_opposed():
    points = TOY.pareto_set(11)
    assert_allclose(points[[0, -1]], [(-2, 0), (2, 1)])
    for point in points[1:-1]:
        assert Pair.of(TOY.gramian(point), TOY.losses(point)).angle == pytest.approx(180, abs=1e-4)


def test_a_slope_has_no_pareto_set():
    with pytest.raises(TypeError, match="a slope has no minimum"):
        Toy((TOY.tasks[0], Slope((1, 0)))).pareto_set()


def test_a_walk_with_the_uniform_loss_is_gradient_descent_on_the_mean():
    walked, theta = walk(TOY, smtos.build("unit_scal", 2), START, lr=0.1, steps=5), np.array(START)
    for point, update in zip(walked.points, walked.updates, strict=False):
        assert_allclose(point, theta, atol=1e-6)
        assert_allclose(update, TOY.jacobian(theta).mean(0), atol=1e-5)
        theta = theta - 0.1 * TOY.jacobian(theta).mean(0)
    assert walked.points.shape == (6, 2)
    assert_allclose(walked.losses, TOY.losses(walked.points), atol=1e-5)


def test_a_held_walk_asks_the_same_question_again_and_again():
    walked = walk(TOY, smtos.build("edm", 2), START, lr=0.1, steps=4, hold=True)
    assert_allclose(walked.points, np.tile(START, (5, 1)))
    assert_allclose(walked.weights, np.tile([1 / 5, 4 / 5], (4, 1)), atol=1e-6)


def test_edm_walks_to_the_pareto_set_and_stops():
    end = walk(TOY, smtos.build("edm", 2), START, lr=0.12, steps=150).points[-1]
    assert Pair.of(TOY.gramian(end), TOY.losses(end)).angle == pytest.approx(180, abs=0.5)


def test_what_auto_lambda_learns_is_decided_by_the_second_batch():
    """Where only one of two opposed tasks is left on the second batch, that one gains weight and the other loses."""
    slopes = Toy((Slope((1, 0)), Slope((-1, 1))))
    for kept in (0, 1):
        second = Toy(tuple(task if k == kept else Slope((0, 0)) for k, task in enumerate(slopes.tasks)))
        lambdas = walk(slopes, smtos.build("auto_lambda", 2), (0, 0), 0.02, 5, hold=True, second_batch=second).weights
        assert lambdas[-1, kept] > lambdas[0, kept] and lambdas[-1, 1 - kept] < lambdas[0, 1 - kept]


NOT_ON_A_TOY = {"bayesagg_mtl"}  # it needs heads with a linear layer


@pytest.mark.parametrize("key", sorted(set(smtos.keys()) - NOT_ON_A_TOY))
def test_every_method_walks(key):
    """Three steps by the method's own code; where it has weights, they make the update."""
    smto = smtos.build(key, 2, **({"weights": [0.2, 0.8]} if key == "fixed" else {}))
    walked = walk(TOY, smto, START, lr=0.01, steps=3)
    assert np.isfinite(walked.points).all() and np.isfinite(walked.updates).all()
    if isinstance(smto, GramianWeighting | LossWeighting):
        combined = np.stack([w @ TOY.jacobian(point) for w, point in zip(walked.weights, walked.points, strict=False)])
        assert_allclose(walked.updates, combined, atol=1e-4)
