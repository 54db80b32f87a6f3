"""Margins by hand, the theorem over all rules, and tables that count what they are given."""

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mtl_core import smtos
from mtl_study.analysis import failures

RNG = np.random.default_rng(4)
G = np.array([[4.0, -1.0], [-1.0, 1.0]])  # lengths 2 and 1, 120° apart


def test_margin_by_hand():
    """The mean of (2, 0) and (−½, √¾) is along the second: (−¾ + ¾)/2 = 0; the first alone hurts it by cos 120°."""
    assert_allclose(failures.margin(G, np.array([0.5, 0.5])), 0, atol=1e-12)
    assert_allclose(failures.margin(G, np.array([1.0, 0.0])), -0.5)
    assert_allclose(failures.margin(G, np.array([0.0, 3.0])), -0.5)
    assert failures.margin(G, np.zeros(2)) == 0
    assert_allclose(failures.margin(np.diag([1.0, 0.0]), np.array([1.0, 1.0])), 1)  # nothing to hurt in the other


def test_angle_by_hand():
    """120° between the two, none between one and its triple; a millionth of a degree is kept."""
    assert failures.angle(G, np.array([1.0, 0.0]), np.array([0.0, 2.0])) == pytest.approx(120)
    assert failures.angle(G, np.array([1.0, 0.0]), np.array([3.0, 0.0])) == 0
    turned = np.array([np.cos(np.radians(1e-6)), np.sin(np.radians(1e-6))])
    assert failures.angle(np.eye(2), np.array([1.0, 0.0]), turned) == pytest.approx(1e-6)
    assert np.isnan(failures.angle(G, np.zeros(2), np.ones(2)))


def test_a_small_failure_is_one_and_rounding_is_none(monkeypatch):
    """Steps whose worst-off task gets −0.001 of them, and −1e-9."""
    monkeypatch.setattr(failures, "margin", lambda gramian, weights: gramian[0, 1])
    looks = [SimpleNamespace(of_batch=[[1.0, x], [x, 1.0]]) for x in (-1e-3, -1e-9, 0.5)]
    found = failures.per_run([SimpleNamespace(config=record(1).config, looks=looks, seconds=1.0)], [0.2])
    assert found.unit_scal.item() == found.cagrad.item() == pytest.approx(1 / 3)


def gramians(count):
    J = RNG.normal(size=(count, 2, 4)) * 10 ** RNG.uniform(-1, 1, (count, 2, 1))
    J[:, 1] -= 2 * J[:, 0] / np.linalg.norm(J[:, 0], axis=-1, keepdims=True)  # in conflict
    return list(J @ J.swapaxes(1, 2))


@pytest.fixture(scope="module")
def margins():
    return failures.per_look(gramians(25), [0.2, 0.8])


def test_methods_that_promise_it_hurt_nobody_and_the_uniform_loss_does(margins):
    fails = (margins < -failures.ROUNDING).mean()
    assert fails["unit_scal"] > 0.2
    for rule in ("pcgrad", "mgda", "imtl_g", "nash exact"):
        assert fails[rule] == 0
    assert 0 < fails["cagrad 0.2"] > fails["cagrad 0.8"]


def record(seed, count=8):
    base = SimpleNamespace(problem="multimnist/CL_RR", smto="unit_scal", seed=seed)
    looks = [SimpleNamespace(of_batch=G.tolist()) for G in gramians(count)]
    return SimpleNamespace(config=SimpleNamespace(base=base), looks=looks, seconds=1.0)


def test_one_row_per_run_and_the_theorem():
    found = failures.per_run([record(1), record(2)], [0.2, 0.5])
    assert list(found.seed) == [1, 2] and list(found.problem) == ["multimnist/CL_RR"] * 2
    assert (found.repairs == 0).all()
    assert_allclose(found["imgrad"], (found["imgrad 0.2"] + found["imgrad 0.5"]) / 2)
    assert_allclose(found["imgrad"] - found["cagrad"], found["hurts alone"], atol=1e-12)
    assert (found.looks == 8).all() and found.close.between(0, 1).all()
    assert {"nash released", "nash exact", "fallback", "imgrad eq9 0.5"} <= set(found)


@pytest.mark.parametrize("num_tasks", [2, 3, 11])
def test_imgrad_in_every_reading_fails_wherever_cagrad_does(num_tasks):
    """Its first line, too: no step of the ball, drawn at random, serves the worst-off task better than CAGrad's."""
    J = RNG.normal(size=(15, num_tasks, 20)) * 10 ** RNG.uniform(-1, 1, (15, num_tasks, 1))
    J[:, 1] -= (
        1.5 * np.linalg.norm(J[:, 1], axis=-1, keepdims=True) * J[:, 0] / np.linalg.norm(J[:, 0], axis=-1)[:, None]
    )
    margins = failures.per_look(J @ J.swapaxes(1, 2), [0.2, 0.6])
    for c in ("0.2", "0.6"):
        fails = margins[f"cagrad {c}"] < -failures.ROUNDING
        assert fails.any() and (c == "0.2" or not fails.all())
        for reading in failures.READINGS:
            assert (margins.loc[fails, f"{failures.imgrad(reading)} {c}"] < 0).all()
    cagrad = smtos.build("cagrad", num_tasks, c=0.4, rescale=0)
    for rows in J[:5]:
        mean = rows.mean(0)
        step = cagrad.solve(rows @ rows.T) @ rows
        others = RNG.normal(size=(500, 20))
        others *= 0.4 * np.linalg.norm(mean) / np.linalg.norm(others, axis=1, keepdims=True)
        assert (rows @ step).min() >= ((mean + others) @ rows.T).min(1).max()


@pytest.mark.parametrize("reading", failures.READINGS)
def test_a_rule_outside_the_theorem_would_be_caught(reading, monkeypatch):
    """A reading's place taken by a method that hurts nobody: it repairs failures, and each is counted."""
    real = failures.rules

    def planted(num_tasks, cs):
        found = real(num_tasks, cs)
        return found | {f"{failures.imgrad(reading)} 0.2": found["mgda"]}

    monkeypatch.setattr(failures, "rules", planted)
    found = failures.per_run([record(1)], [0.2])
    assert found.repairs.item() == round((found.cagrad * found.looks).item()) >= 1


def test_one_method_twice_has_one_direction(monkeypatch):
    real = failures.rules
    monkeypatch.setattr(failures, "rules", lambda K, cs: (found := real(K, cs)) | {"imgrad 0.2": found["cagrad 0.2"]})
    assert failures.per_run([record(1)], [0.2]).close.tolist() == [1]  # one method twice has one direction


def test_a_solver_that_gives_up_is_counted():
    """Gradients a million times shorter from one look to the next."""
    G = gramians(1)[0]
    found = failures.per_look([G, 1e-12 * G], [0.5])
    assert list(found.fallback) == [0, 1]
