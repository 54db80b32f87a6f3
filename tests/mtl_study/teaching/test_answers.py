"""Every exercise, with right answers for several readers and with wrong ones planted: each of those gets a hint of its
own, and no answer, however strange, ends a notebook."""

import ast
import functools
import itertools
import math
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from mtl_core import problems
from mtl_core.datasets.qm9 import PROPERTIES
from mtl_core.smtos import edm, solvers
from mtl_core.smtos.base import GramianWeighting
from mtl_core.smtos.imtl import transposed
from mtl_study.analysis import fronts
from mtl_study.artifacts import REPOSITORY
from mtl_study.cosines import cosine_to_mean
from mtl_study.plots import canvas
from mtl_study.publishing import notebooks
from mtl_study.teaching import guesses, imbalance, marking, proofs
from mtl_study.teaching.marking import RIGHT, UNANSWERED, WRONG, Given, Wrong, accepted, ask, check
from mtl_study.words import number

BOOK = marking.book()


def share(values):
    return np.asarray(values) / np.sum(values)


def weighing(function):
    """A reader's class whose weights are this function of the Gramian (and of the method)."""

    class Mine(GramianWeighting):
        key = "mine"

        def weights(self, gramian):
            return function(gramian, self)

    return Mine


def diagonal(power):
    return lambda G: share(np.diagonal(G) ** power)


def epoch(cl, rr):
    return {"CL": {"accuracy": cl}, "RR": {"mse": rr}}


def run(seed):
    draws = np.random.default_rng(seed)
    history = [
        SimpleNamespace(test=epoch(*draws.uniform(0.05, 0.9, 2)), val=epoch(*draws.uniform(0.05, 0.9, 2)))
        for _ in range(3)
    ]
    return SimpleNamespace(history=history, config=SimpleNamespace(smto="edm", seed=seed))


def gains(run, sign=-1, split="test", mean=0.5):
    values = [getattr(one, split) for one in run.history]
    return [100 * mean * (v["CL"]["accuracy"] / 0.9 - 1 + sign * (v["RR"]["mse"] / 0.1 - 1)) for v in values]


def reached(length):
    return {"correct": np.full(3, 0.5), "transposed": np.array([1.0, 0.8, 1.3 - 0.3 * length])}


def iou(m, absent=True, union=1):
    true, predicted, right = m.sum(1), m.sum(0), np.diag(m)
    values = right / (true + predicted - union * right)
    return values[true > 0].mean() if absent else values.mean()


MIOU = problems.get("cityscapes/R18").tasks[0].metrics["mIoU"]
DIFFERENCES = {f"method {i}": np.random.default_rng(i).normal(0.1 * i, 1, 5) for i in range(4)}
FACTS = {
    "equal_rates": {"learnt": np.array([0.3, 0.7])},
    "epoch_gains": {"runs": [run(1), run(2)], "package": gains, "accuracy": 0.9, "mse": 0.1},
    "two_one_sided_tests": {"differences": DIFFERENCES, "margin": 0.5},
    "fair_length": {"reached": reached},
    "mean_iou": {"package": lambda m: float(MIOU.value(torch.from_numpy(m).double()))},
    "extraction": {"runs": [np.random.default_rng(1).uniform(0.2, 3, (6, 3))]},
    "some_rates": {"grid": [0.0005, 0.001, 0.002, 0.004]},
    "felt_epsilon": {"moved": lambda epsilon: min(1.0, 6e6 * epsilon)},
}


def tost(values, ddof=1, joined=max):
    n = len(values)
    error = np.std(values, ddof=ddof) / np.sqrt(n)
    low, high = (np.mean(values) + 0.5) / error, (np.mean(values) - 0.5) / error
    return joined([stats.t.sf(low, n - 1), stats.t.cdf(high, n - 1)])


def pcgrad(G, half=0.5, sign=1.0, clip=True, swap=False):
    conflict = max(0.0, -G[0, 1]) if clip else -G[0, 1]
    return half * (1 + sign * conflict / (G.diagonal()[::-1] if swap else G.diagonal()))


def front(points, weak=False, strict=False):
    found = []
    for i, point in enumerate(points):
        others = np.delete(points, i, axis=0)
        as_good, better = (others >= point).all(1), (others > point)
        found.append(not (better.all(1) if strict else as_good if weak else as_good & better.any(1)).any())
    return np.array(found)


def gate(needs, owed=1.0, size=50):
    opened = []
    for t, need in enumerate(needs):
        window = np.array(needs[max(0, t - size + 1) : t + 1])
        opened.append(int(np.mean(window > need) < 0.3 + owed * (0.3 * t - sum(opened)) / 50))
    return opened


def cosine(G):
    return np.mean(G.mean(1) / np.sqrt(G.diagonal() * G.mean()))


def extraction(weights, keep=0.9, shares=True):
    values = weights / weights.sum(1, keepdims=True) if shares else weights
    average = values[0]
    for value in values[1:]:
        average = keep * average + (1 - keep) * value
    return share(average)


def best_of(case, chosen=0, read=1, join=np.mean):
    ways = itertools.combinations(range(len(case[0])), case[2])
    return join([case[read][max(way, key=lambda i: case[chosen][i])] for way in ways])


def sign_sgd(gradients, beta=0.9, rate=0.1, late=False):
    average, way = np.zeros(6), np.zeros(6)
    for gradient in gradients:
        before, average = average, beta * average + (1 - beta) * gradient
        way = way - rate * np.sign(before if late else average)
    return way


def kappas(asked):
    return imbalance.kappa(np.array([asked.ratio, 1.0]), np.cos(np.deg2rad([90.0, asked.angle])))


def pair(asked):
    cosine = np.cos(np.deg2rad(asked.angle))
    return np.array([[asked.ratio**2, asked.ratio * cosine], [asked.ratio * cosine, 1.0]])


def cosine_where_one_is_dropped(asked):
    """The least cosine at which CAGrad's dual is least at an end of the segment, by a fine search along it."""
    w = np.linspace(0, 1, 20001)
    for cosine in np.arange(0, 1, 0.01):
        g = np.array([[1, asked.ratio * cosine], [asked.ratio * cosine, asked.ratio**2]])
        mean = g.mean()
        W = np.stack([w, 1 - w])
        dual = (g.mean(0) @ W) + asked.c * np.sqrt(mean * (W * (g @ W)).sum(0))
        if dual.argmin() in (0, len(w) - 1):
            return cosine
    raise AssertionError


def circulant(total, aside=0.1):
    row = [1, aside, total - 1 - 2 * aside, aside]
    return [[row[(j - i) % 4] for j in range(4)] for i in range(4)]


CIRCULANT = circulant(1, aside=0.2)


def transposed_form(G):
    return share(np.linalg.solve((G / np.sqrt(G.diagonal())[:, None]).T, np.ones(len(G))))


RIGHT_ANSWERS = {
    "unit_keepers": lambda asked: {"SI", "edm"},
    "mgda_ratio": lambda asked: 1 / np.cos(np.deg2rad(asked.angle)),
    "inverse_norms": lambda asked: weighing(lambda G, _: diagonal(-0.5)(G)),
    "still_edm": lambda asked: False,
    "equal_rates": lambda asked: weighing(lambda G, smto: share(np.linalg.solve(G, smto.losses))),
    "two_gains": lambda asked: (
        50 * ((asked.right - asked.right_alone) / asked.right_alone - asked.error / asked.error_alone + 1)
    ),
    "constant_weights": lambda asked: {"w_CL": 0.1, "w_RR": 0.9},
    "epoch_gains": lambda asked: lambda run: gains(run),
    "unrelated_cosines": lambda asked: [(asked.ratio + 1) / np.hypot(asked.ratio, 1) / 2, asked.K**-0.5],
    "other_dropout": lambda asked: 0,
    "two_readings": lambda asked: ("unknown", "Both"),
    "longer_ratio": lambda asked: (1 + np.sqrt(1 - 0.44**2)) / 0.44,  # 4C² − 1 = 0.44
    "cosine_by_gramian": lambda asked: cosine,
    "moving_average": lambda asked: [
        asked.later - (asked.later - asked.first) * 0.9**9,
        1 + next(e for e in range(99) if (asked.later - asked.first) * 0.9**e < asked.later - asked.line),
    ],
    "extraction": lambda asked: extraction,
    "worth": lambda asked: 0.9,
    "best_of_points": lambda asked: [(asked.test[1] + 2 * asked.test[2]) / 3, asked.test[2]],
    "some_rates": lambda asked: [0.001, 0.004],
    "best_of": lambda asked: best_of,
    "two_one_sided_tests": lambda asked: tost,
    "five_gains": lambda asked: (
        ((asked.acc + asked.miou) / 2 + (asked.absolute + asked.relative) / 2 + asked.instances) / 3
    ),
    "fair_length": lambda asked: 1.2,
    "mean_iou": lambda asked: iou,
    "two_methods": lambda asked: [
        100 * np.mean([(a - m) / a for a, m in zip(asked.errors[0], method, strict=True)])
        for method in asked.errors[1:]
    ],
    "winner_by_rank": lambda asked: "a",
    "kept_properties": lambda asked: ["mu", "heat capacity at 298.15 K"],
    "imtl_weights": lambda asked: lambda G: share(np.linalg.solve(G / np.sqrt(G.diagonal())[:, None], np.ones(len(G)))),
    "three_points": lambda asked: sum(
        (x - before) * y for (x, y), (before, _) in zip(asked.gains, ((0, 0), *asked.gains), strict=False)
    ),
    "fourth_point": lambda asked: 0,
    "moving_factor": lambda asked: 0.5,
    "front_filter": lambda asked: front,
    "edm_weights": lambda asked: [asked.ratio / (1 + asked.ratio), 1 / (1 + asked.ratio)],
    "cagrad_cosine": cosine_where_one_is_dropped,
    "equal_parts": lambda asked: diagonal(-0.5),
    "equal_rows": lambda asked: circulant(asked.total),
    "equal_bits": lambda asked: "acde",
    "felt_epsilon": lambda asked: 1e-8,
    "sign_sgd": lambda asked: sign_sgd,
    "two_kappas": kappas,
    "least_c": lambda asked: imbalance.least_c(pair(asked)),
    "pcgrad_weights": lambda asked: pcgrad,
    "agreeing_goals": lambda asked: (((0, 2), (0, 4)), (0, 0)),
    "gate": lambda asked: gate,
}

PLANTED = {
    "unit_keepers": [
        {"unit_scal", "si", "edm"},
        {"si", "edm", "pcgrad"},
        {"CAGrad", "SI", "EDM"},
        {"edm"},
        {"si"},
        {"si", "famo"},
        3,
        (),
    ],
    "mgda_ratio": [1, 1.2, 0.5, 3, 2 / np.sqrt(3), "two", [1, 2]],
    "inverse_norms": [
        weighing(lambda G, _: diagonal(-1)(G)),
        weighing(lambda G, _: G.diagonal() ** -0.5),
        weighing(lambda G, _: 1 / G.diagonal()),
        weighing(lambda G, _: diagonal(0.5)(G)),
        weighing(lambda G, _: np.full(2, 0.5)),
        weighing(lambda G, _: 1 / 0),
        weighing(lambda G, _: [0.5, 0.25, 0.25]),
        weighing(lambda G, _: "half"),
        weighing(lambda G, _: np.nan * G[0]),
        diagonal(-0.5),
        weighing(lambda G, _: diagonal(-0.5)(G))(2),
        type("Empty", (GramianWeighting,), {"key": "empty"}),
        type("Nameless", (GramianWeighting,), {"weights": lambda self, G: diagonal(-0.5)(G)}),
    ],
    "still_edm": [True, "perhaps"],
    "equal_rates": [
        weighing(lambda G, smto: np.linalg.solve(G, smto.losses)),
        weighing(lambda G, smto: share(np.linalg.solve(G, [1, 1]))),
        weighing(lambda G, smto: share(1 / smto.losses)),
        weighing(lambda G, smto: share(smto.losses)),
        weighing(lambda G, smto: share(G @ smto.losses)),
        weighing(lambda G, smto: diagonal(-0.5)(G)),
        weighing(lambda G, smto: smto.loss),
    ],
    "two_gains": [
        50 * (-2 / 97 + 0.2),
        50 * (2 / 97 + 0.2),
        100 * (-2 / 97 - 0.2),
        (-2 / 97 - 0.2) / 2,
        50 * (-0.02 - 0.02),
        50 * (-2 / 95 - 0.02 / 0.12),
        -200 / 97,
        -20,
        4,
        "−11",
        [-2.06, -20],
    ],
    "constant_weights": [
        [1.2, -0.2],
        [1.0],
        [0.2, 0.3, 0.5],
        [0.5, 0.6],
        [0.3, 0.7005],
        [0.5, 0.5],
        {"CL": 0.1, "RR": 0.9},
        "0.1",
    ],
    "epoch_gains": [
        lambda run: gains(run, sign=1),
        lambda run: gains(run, mean=1),
        lambda run: [gain / 100 for gain in gains(run)],
        lambda run: [-gain for gain in gains(run)],
        lambda run: gains(run, split="val"),
        lambda run: gains(run)[::-1],
        lambda run: [100 * (one.test["CL"]["accuracy"] / 0.9 - 1) for one in run.history],
        lambda run: gains(run)[0],
        lambda run: run.epochs,
        gains(run(1)),
    ],
    "unrelated_cosines": [
        [0.5, 0.632],
        [0, 0],
        [0.949, 0.5],
        [0.316, 0.5],
        [0.707, 0.5],
        [0.632, 0.707],
        [0.632, 0.25],
        [0.7, 0.3],
        0.894,
        "x",
    ],
    "two_readings": [
        ("equal", "both"),
        ("different", "both"),
        ("unknown", "equal"),
        ("unknown", "different"),
        "both",
    ],
    "longer_ratio": [0.232, 4 / 3, 18.6, 1, 2, 3.8, 5, 6, 1e9, "long", [1, 2]],
    "cosine_by_gramian": [
        lambda G: np.mean((G / np.sqrt(np.outer(G.diagonal(), G.diagonal())))[np.triu_indices(len(G), 1)]),
        lambda G: np.mean(G / np.sqrt(np.outer(G.diagonal(), G.diagonal()))),
        lambda G: np.mean(G.mean(1) / (np.sqrt(G.diagonal()) * G.mean())),
        lambda G: np.mean(G.mean(1) / np.sqrt(G.diagonal())),
        lambda G: np.mean(G.mean(1) / np.sqrt(G.mean())),
        lambda G: np.mean(G.mean(1) / (G.diagonal() * np.sqrt(G.mean()))),
        lambda G: len(G) * cosine(G),
        lambda G: G.mean(1) / np.sqrt(G.diagonal() * G.mean()),
    ],
    "moving_average": [
        [0.9 - 0.4 * 0.9**10, 15],
        [0.9 - 0.4 * 0.9**8, 15],
        [0.9 - 0.4 * 0.1**9, 15],
        [0.86, 15],
        [0.54, 15],
        [0.5, 15],
        [0.9 - 0.4 * 0.9**9, 14],
        [0.9 - 0.4 * 0.9**9, 16],
        [0.9 - 0.4 * 0.9**9, 30],
        0.75,
    ],
    "extraction": [
        lambda w: extraction(w, shares=False),
        lambda w: extraction(w, keep=0.1),
        lambda w: extraction(w[::-1]),
        lambda w: share(w[-1]),
        lambda w: (w / w.sum(1, keepdims=True)).mean(0),
        lambda w: share(w.sum(0) ** 2),
        lambda w: w,
    ],
    "worth": [1.5, "all"],
    "best_of_points": [[3, 7 / 3], [13 / 3, 5], [3, 3], [7 / 3, 5], [8 / 3, 3], [1, 1], 3],
    "some_rates": [[0.003, 0.001], [0.001], [0.0005, 0.001, 0.002, 0.004], "0.001"],
    "best_of": [
        lambda case: best_of(case, chosen=1),
        lambda case: best_of(case, read=0),
        lambda case: best_of(case, join=max),
        lambda case: best_of(case, join=sum),
        lambda case: best_of(case, join=np.median),
        lambda case: np.mean(case[1]),
        lambda case: case[1][np.argmax(case[0])],
        lambda case: case[1],
    ],
    "other_dropout": [0.7, "none", [0.1, 0.2]],
    "two_one_sided_tests": [
        lambda values: tost(values, joined=min),
        lambda values: tost(values, joined=sum),
        lambda values: tost(values, ddof=0),
        lambda values: 1 - tost(values),
        lambda values: tost(values, joined=lambda p: p[0]),
        lambda values: tost(values, joined=lambda p: p[1]),
        lambda values: values,
        lambda values: stats.ttest(values),
        0.03,
    ],
    "five_gains": [-0.6, -4.5, -5 / 3, -4 / 3, -1, 1.5, -0.015, 2, "x", [1, 2]],
    "fair_length": [1, 5, 10, 0.1, "longer", [1.2, 1.3]],
    "mean_iou": [
        lambda m: np.trace(m) / m.sum(),
        lambda m: iou(m, absent=False),
        lambda m: iou(m, union=0),
        lambda m: 2 * iou(m, union=0),
        lambda m: 100 * iou(m),
        lambda m: np.mean((np.diag(m) / m.sum(0))[m.sum(1) > 0]),
        lambda m: np.mean((np.diag(m) / np.maximum(m.sum(1), 1))[m.sum(1) > 0]),
        lambda m: np.diag(m) / m.sum(0),
        lambda m: np.nan,
    ],
    "two_methods": [
        [-25, -220 / 3],
        [220 / 3, 25],
        [-220, -75],
        [-2.2 / 3, -0.25],
        [-27.8, -17.8],
        [-4 / 3, -10 / 3],
        [-100 * 4 / 31, -100 * 10 / 31],
        [1, 1],
        -73.3,
        ["a", "b"],
    ],
    "winner_by_rank": ["B", "neither"],
    "kept_properties": [["mu", "entropy"], list(PROPERTIES), ["mu"], 3],
    "imtl_weights": [
        transposed,
        transposed_form,
        lambda G: np.linalg.solve(G / np.sqrt(G.diagonal())[:, None], np.ones(len(G))),
        lambda G: share(np.linalg.solve(G, np.ones(len(G)))),
        diagonal(-0.5),
        lambda G: share(np.linalg.solve(G / G.diagonal()[:, None], np.ones(len(G)))),
        lambda G: np.full(len(G), 1 / len(G)),
        lambda G: G / G.sum(),
        lambda G: np.linalg.solve(G[0], G),
    ],
    "three_points": [13, 6, 12, 14, 13 / 3, 5, "eight"],
    "fourth_point": [4, 8, 1, -1, 2, [0, 0]],
    "moving_factor": [1, 1.5, 0.9, "all"],
    "front_filter": [
        lambda points: front(points, weak=True),
        lambda points: front(points, strict=True),
        lambda points: front(-points),
        lambda points: ~front(points),
        lambda points: np.ones(len(points)),
        lambda points: (points == points.max(0)).any(1),
        lambda points: points[front(points)],
    ],
    "edm_weights": [
        [0.25, 0.75],
        [0.5, 0.5],
        [0.9, 0.1],
        [0.1, 0.9],
        [1, 1 / 3],
        [75, 25],
        [30, 10.1],
        [1, 3],
        [1, 0],
        [0.75],
        [0.2, 0.3, 0.5],
        "3:1",
        [0.7, 0.3],
    ],
    "cagrad_cosine": [0.2, 0.95, 37, "0.7", [0.1, 0.2]],
    "equal_parts": [
        lambda G: G.diagonal() ** -0.5,
        diagonal(-1),
        diagonal(0.5),
        lambda G: np.full(len(G), 1 / len(G)),
        lambda G: share(np.linalg.solve(G, np.ones(len(G)))),
        weighing(lambda G, _: diagonal(-0.5)(G)),
        lambda G: G,
        lambda G: 1 / 0,
    ],
    "equal_rows": [
        np.eye(3),
        "a matrix",
        np.ones((4, 4)) + np.triu(np.ones((4, 4)), 1),
        2 * np.eye(4),
        0.5 * np.eye(4) + 0.5,
        np.array(CIRCULANT) + 0.1 * np.diag([0.0, 0, 0, 0]) + np.kron([[1, 0], [0, 0]], [[0, 0.1], [0.1, 0]]),
        np.where(np.array(CIRCULANT) < 0, -0.9, np.where(np.eye(4), 1, 0.0)) - 0.1 * (np.array(CIRCULANT) == 0.2),
        np.where(np.array(CIRCULANT) < 0, -1.2, np.where(np.eye(4), 1, 0.0)),
        np.full((4, 4), np.nan),
        circulant(1, aside=0.25),  # of vectors that depend on one another
        solvers.cosines(proofs.equal_rows(1, 4, np.random.default_rng(0))[0])[1],  # the notebook calls it
    ],
    "equal_bits": ["abcde", "cde", "ade", "ace", "acd", {"a", "x"}, 5],
    "felt_epsilon": [1e-9, 1e-7, 0, -1e-3, 2.0, "small"],
    "sign_sgd": [
        lambda g: sign_sgd(g, beta=0.0),
        lambda g: -sign_sgd(g),
        lambda g: sign_sgd(g, late=True),
        lambda g: sign_sgd(g, rate=1.0),
        lambda g: sign_sgd(g, beta=0.1),
        lambda g: -0.1 * np.sign(np.sum(g, axis=0)),
        lambda g: sign_sgd(g) - sign_sgd(g[:-1]),
        lambda g: np.sign(g),
    ],
    "two_kappas": [
        [1, 0.6],
        [0.6, 0],
        [0.6, 0.985],
        [0.6, 0.174],
        [0, 1],
        [1 / 3, 1],
        [0.3, 1],
        [1, 1],
        [0.5, 0.5],
        0.6,
    ],
    "least_c": [0.5, 0.961, -0.28, 1, 0.25, 0.4, 0.9707, "x"],
    "pcgrad_weights": [
        lambda G: pcgrad(G, half=1.0),
        lambda G: pcgrad(G, sign=-1.0),
        lambda G: pcgrad(G, clip=False),
        lambda G: pcgrad(G, swap=True),
        lambda G: share(pcgrad(G)),
        lambda G: [0.5, 0.5],
        lambda G: 0.5,
    ],
    "agreeing_goals": [
        (((0, 0), (4, 4)), (2, 2)),
        (((0, 1), (4, 4)), (0, 0)),
        (((0, 3), (0, 4)), (0, 0)),
        (((0, 3), (0, 3)), (0, 0)),
        (((0, 3), (0, 5)), (0, 0)),
        ((0, 3), (0, 0)),
    ],
    "gate": [
        lambda needs: gate(needs, owed=0.0),
        lambda needs: gate(needs, size=51),
        lambda needs: gate(needs, size=200),
        lambda needs: 1 - np.array(gate(needs)),
        lambda needs: sum(gate(needs)),
        lambda needs: needs[120],
    ],
}

STRANGE = [
    *("", "½", b"x", [], {}, set(), (1, [2]), [None], [None, 1], {"a": 1}, 1e400, float("nan"), 1 + 2j, True),
    *(object(), type, max, np.ones((2, 2, 2)), torch.ones(2), torch.full((), -7.0), np.array("x"), [["a"]], range(3)),
    *(lambda: 1, lambda *_: None, lambda x: x, lambda x: x["a"], lambda x: [[1], [2, 3]], lambda x: print),
]

#: exercises whose answer is a function or a class
WITH_CODE = {
    *("inverse_norms", "equal_rates", "epoch_gains", "cosine_by_gramian", "extraction", "best_of", "mean_iou", "gate"),
    *("two_one_sided_tests", "imtl_weights", "front_filter", "equal_parts", "sign_sgd", "pcgrad_weights"),
}


def test_every_exercise_is_tried_here():
    assert set(BOOK) == set(RIGHT_ANSWERS) == set(PLANTED)


@pytest.mark.parametrize("name", sorted(BOOK))
def test_a_right_answer_is_praised_whatever_the_numbers(name, capsys, monkeypatch):
    for seed in (0, 1, 2, 7) if BOOK[name].numbers else (0,):
        monkeypatch.setitem(marking._reader, "seed", seed)
        asked = SimpleNamespace(**BOOK[name].asked(seed))
        check(name, RIGHT_ANSWERS[name](asked), **FACTS.get(name, {}))
        assert capsys.readouterr().out.startswith(RIGHT), (seed, asked)
        assert accepted(name) is not None


@pytest.mark.parametrize("name", sorted(BOOK))
def test_a_planted_mistake_gets_a_hint_of_its_own(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hints = {}
    for answer in PLANTED[name]:
        check(name, answer, **FACTS.get(name, {}))
        text = " ".join(capsys.readouterr().out.split())
        assert text.startswith(f"{WRONG} You gave ") and accepted(name) is None, (answer, text)
        with pytest.raises(Wrong) as wrong:
            BOOK[name].judge(Given(answer), **BOOK[name].asked(0), **FACTS.get(name, {}))
        hints.setdefault(str(wrong.value), []).append(answer)
    assert max(map(len, hints.values())) == 1, hints


#: words that the hints for the first planted mistakes have to hold, in their order
HINTS = {
    "mgda_ratio": "weight of 0.500 | weight of 0.323 | divided the other way | had none at a smaller | the sine",
    "inverse_norms": "before the 1/ | not 1 yet. Divide | ; and the sum | gets more here | equal weights",
    "equal_rates": "sum of w to 1 | same amount | This is SI | falls Gw | multiplies by G | This is EDM",
    "two_gains": (
        "other sign | both gains are negative | the sum | no percentage | plain differences | not by the new one | "
        "on CL alone | on RR alone"
    ),
    "epoch_gains": "sign of RR | the sum | no percentages | Both signs | on validation | reverse | CL alone",
    "unrelated_cosines": (
        "other order | between two | longer gradient alone | shorter gradient alone | "
        "first is right for equal lengths | that of two gradients | there is a root"
    ),
    "two_readings": (
        "−0.39 to 2.39. Is all | −0.39 to 2.39. Does it leave | 0.17 to 1.83. Does it | 0.17 to 1.83. Is all"
    ),
    "longer_ratio": (
        "divided the other way | the shorter one has | squared lengths | Try a longer one | Try a longer one | "
        "Try a longer one | Try a shorter one | Try a shorter one | Try a shorter one"
    ),
    "cosine_by_gramian": (
        "pairwise | mean of all cosines | there is a root | projections | of the single gradients | holds |g|² | "
        "the sum over the tasks"
    ),
    "moving_average": (
        "after eleven | after nine | not the other way | plain mean | after two | shrinks by | one too few | "
        "one too many | shrunk far enough"
    ),
    "extraction": "by its sum before | not the other way | last to the first | last epoch's | plain mean",
    "best_of_points": "other order | test chooses | mean of all | not the best on test | validation Δm of what",
    "best_of": (
        "test chooses | of the validation | best of all that | the sum | the median | mean of all points | "
        "best of all points on validation"
    ),
    "two_one_sided_tests": "the larger of the two | not added | ddof=1 | other tail | lower side | upper side",
    "five_gains": (
        "mean of the five | sum over the three | second metric | first metric | averaged, not added | "
        "Leave the signs | in percent already"
    ),
    "mean_iou": "accuracy | class 3 never occurs | counts once | Dice | in percent | TP + FP | TP + FN",
    "two_methods": (
        "other order | negative gain | sums over | no percentages | not by the method's | plain differences | "
        "cannot be added"
    ),
    "imtl_weights": "own. Write | swapped | sum of the weights to 1 | g_k · d are | two tasks only | its root | equal",
    "three_points": "more than once | largest rectangle | no model is there | added | mean of the rectangles",
    "fourth_point": "(2, 2) alone | hypervolume itself | outside the others | smaller | as good on both",
    "front_filter": "Equal points | not in all | for lower | other way round | every point | some coordinate",
    "edm_weights": (
        "swapped | for equal lengths | that is MGDA | not as 1/|g|² | sum is 1.333 | sum is 100 | here it is 40.1 | "
        "; and the sum | some weight"
    ),
    "equal_parts": "sum of the weights to 1 | smaller part | gets more here | Equal weights | gain the same",
    "sign_sgd": "no momentum | uphill | before its sign | size of 0.1 | keeps 0.9 | one step | last step",
    "two_kappas": (
        "other order | not depend on the angle | no cosine | divided out | right angle | r² + 1 | factor of 2 | "
        "equal lengths only"
    ),
    "least_c": "between the two | the sine | not below 0 | holds 0 | ratio of the lengths | +0.127 | longer gradient",
    "pcgrad_weights": "Take the mean | is below 0 | projects nothing | wrong length | to sum 1 | plain mean",
    "agreeing_goals": "one nearer than | not agree enough | too equally long | one cell | is outside",
    "felt_epsilon": "take a larger one | 6.0 % already | cancels altogether | not below 0 | SGD with momentum",
    "gate": "second term | here are 51 | not all | 1 is for open",
}


@pytest.mark.parametrize("name", HINTS)
def test_a_planted_mistake_gets_the_hint_for_it(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for answer, words in zip(PLANTED[name], HINTS[name].split(" | "), strict=False):
        with pytest.raises(Wrong) as wrong:
            BOOK[name].judge(Given(answer), **BOOK[name].asked(0), **FACTS.get(name, {}))
        assert words in str(wrong.value), answer


#: exercises in which a reader chooses a number, and a whole range is right
CHOSEN = {"constant_weights", "other_dropout", "worth", "moving_factor", "some_rates", "fair_length", "felt_epsilon"}


@pytest.mark.parametrize("name", sorted(BOOK))
def test_only_what_a_reader_may_choose_has_a_wide_range_of_right_answers(name, capsys):
    """All others refuse a number that is a quarter off, or has the other sign; most of them one that is 5 % off."""
    try:
        right = np.asarray(RIGHT_ANSWERS[name](SimpleNamespace(**BOOK[name].asked(0))), dtype=float)
    except (TypeError, ValueError):
        return  # words, functions and classes have their planted mistakes
    near = (1.05, 0.95) if name != "longer_ratio" else ()  # of which C is held to 0.01, and moves slowly
    for off in (1 / 0.75, 0.75, -1, *near):
        check(name, (right * off + (right == 0)).tolist(), **FACTS.get(name, {}))
        said = capsys.readouterr().out
        assert name in CHOSEN or said.startswith(WRONG), (off, said)


@pytest.mark.parametrize("name", sorted(BOOK))
def test_no_answer_ends_a_notebook(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for answer in STRANGE:
        check(name, answer, **FACTS.get(name, {}))
        assert capsys.readouterr().out.startswith((WRONG, UNANSWERED)), answer
    for nothing in (None, ...):
        check(name, nothing, **FACTS.get(name, {}))
        assert capsys.readouterr().out.strip() == UNANSWERED


def endless(*_):
    while True:
        pass


@pytest.mark.parametrize("name", sorted(BOOK))
def test_an_endless_answer_is_stopped(name, capsys, monkeypatch):
    monkeypatch.setattr(marking, "SECONDS", 0.3)
    told = []
    for answer in (endless, weighing(endless), itertools.count()):
        check(name, answer, **FACTS.get(name, {}))
        text = " ".join(capsys.readouterr().out.split())
        assert text.startswith(WRONG), text
        told.append("stopped after 0.3 seconds. Does a loop never end?" in text)
    assert any(told[:2]) == (name in WITH_CODE)


def test_under_nbgrader_a_wrong_answer_is_an_error(capsys, monkeypatch):
    """It takes a cell without an error for right."""
    monkeypatch.setenv(marking.NBGRADER, "autograde")
    check("kept_properties", ["mu", "Cv"])
    for wrong in (["mu"], None):
        with pytest.raises(marking.NotRight, match="kept_properties has no right answer"):
            check("kept_properties", wrong)
    assert capsys.readouterr().out.startswith(RIGHT)


def test_an_answer_that_leaves_python_is_wrong(capsys):
    check("front_filter", lambda points: exit())
    assert "it stops: SystemExit" in capsys.readouterr().out


def test_ask_prints_the_numbers_of_the_reader(capsys, monkeypatch):
    assert ask("edm_weights").ratio == 3
    assert capsys.readouterr().out == "Your numbers: |g₁| = 1 and |g₂| = 3.\n"
    monkeypatch.setitem(marking._reader, "seed", 0)  # taken back in the end
    marking.seeded(5)
    assert ask("edm_weights").ratio == ask("edm_weights").ratio == BOOK["edm_weights"].asked(5)["ratio"]
    assert len({BOOK["edm_weights"].asked(seed)["ratio"] for seed in range(20)}) > 2


def test_what_is_solved_is_what_was_read(capsys):
    """A label is a key; and a wrong answer takes the right one back."""
    check("kept_properties", ("dipole moment", "Cv"))
    assert accepted("kept_properties") == ["mu", "Cv"]
    check("kept_properties", "entropy")
    assert accepted("kept_properties") is None and "did you mean" not in capsys.readouterr().out.splitlines()[0]


def test_an_answer_may_be_typed_in_any_way(capsys):
    """Names without small figures, several in one text; and what was given is said as it was written."""
    check("edm_weights", {"w1": 0.75, "w_2": 0.25})
    check("unit_keepers", "SI, edm")
    assert [line.startswith(RIGHT) for line in capsys.readouterr().out.splitlines()] == [True, True]
    for answer, said in ((3, "3"), ([2.0, 1], "[2, 1]"), ([[1, -0.25]], "[[1, −0.25]]"), (math.nan, "nan")):
        assert marking.describe(answer) == said


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no words")


class Leaving:
    def __repr__(self):
        exit()


def test_an_answer_that_cannot_be_printed_ends_no_notebook(capsys):
    for answer in (Unprintable(), Leaving()):
        for name in ("edm_weights", "unit_keepers", "equal_rows"):
            check(name, answer)
            text = " ".join(capsys.readouterr().out.split())
            assert text.startswith(f"{WRONG} You gave an object of the class {type(answer).__name__}, which cannot be")


def test_what_is_no_set_is_said_as_it_was_given(capsys):
    for answer, said in ((5, "5"), (True, "True"), (np.array("x"), "array('x', dtype='<U1')"), (set(), "no name")):
        check("unit_keepers", answer)
        assert f"You gave {said}. " in " ".join(capsys.readouterr().out.split())


def test_weights_in_percent_are_told_their_sum(capsys):
    for answer, hint in (([75, 25], "The ratio is right, and the sum is 100."), ([70, 30], "here it is 100. Prop")):
        check("edm_weights", answer)
        assert hint in " ".join(capsys.readouterr().out.split())


def test_a_class_is_no_function_and_is_told_so(capsys):
    check("equal_parts", weighing(lambda G, _: diagonal(-0.5)(G)))
    text = capsys.readouterr().out
    assert "This is a class. A function is asked for" in text and "BadOption" not in text


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("cosine_by_gramian", cosine_to_mean),
        ("cosine_by_gramian", functools.partial(cosine_to_mean)),
        ("cosine_by_gramian", lambda gramian: cosine_to_mean(gramian)),
        ("front_filter", fronts.nondominated),
        ("best_of", lambda given: fronts.expected_best(*given)),
        ("imtl_weights", transposed),
        ("inverse_norms", edm.EDM),
    ],
)
def test_what_the_package_has_is_no_answer(name, answer, capsys):
    check(name, answer)
    assert capsys.readouterr().out.startswith(WRONG) and accepted(name) is None
    with pytest.raises(Wrong, match=r"the package's own\. Write a (function|class) yourself"):
        BOOK[name].judge(Given(answer), **BOOK[name].asked(0))


def test_what_the_check_compares_with_is_no_answer(capsys):
    check("epoch_gains", gains, **FACTS["epoch_gains"])
    assert "That is what the check compares with" in capsys.readouterr().out


def test_nothing_is_right_where_nothing_is_compared(capsys):
    check("epoch_gains", lambda run: 42, **FACTS["epoch_gains"] | {"runs": []})
    assert "There is nothing yet to compare it with." in capsys.readouterr().out
    for answer, mark in ((lambda values: 42, WRONG), (tost, RIGHT)):
        check("two_one_sided_tests", answer, differences={}, margin=0.5)
        assert capsys.readouterr().out.startswith(mark)


def loads_of(tree, names):
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)} & names


@pytest.mark.parametrize("path", notebooks.find(REPOSITORY / "notebooks"), ids=lambda path: path.stem)
def test_what_follows_a_check_uses_the_answer_as_it_was_read(path):
    """A name that a reader fills in is read by its check only, since its value may be written in many ways."""
    cells = [c for c in notebooks.read(path).cells if c.cell_type == "code" and not notebooks.tagged(c, "solution")]
    trees = [ast.parse(cell.source) for cell in cells]
    blanks = {
        target.id
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and node.value.value is None
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    read = []
    for cell, tree in zip(cells, trees, strict=True):
        in_checks = set().union(*(loads_of(call.args[1], blanks) for call in notebooks.check_calls(cell.source)), set())
        for statement in tree.body:
            if not notebooks.check_calls(ast.unparse(statement)):
                read += [(cell.id, name) for name in loads_of(statement, blanks)]
        assert not in_checks - blanks
    assert blanks and not read


def follow_up(stem, cell, **names):
    """Run a cell of a notebook, less its check, with these names."""
    (source,) = [c.source for c in notebooks.read(REPOSITORY / f"notebooks/{stem}.ipynb").cells if c.id == cell]
    lines = [part for part in ast.parse(source).body if not notebooks.check_calls(ast.unparse(part))]
    given = {"accepted": accepted, "number": number, "np": np, "recall": guesses.recall}
    exec(compile(ast.Module(lines, []), cell, "exec"), given | names)


@pytest.mark.parametrize("answer", [0.3, [0.3], {"dropout": 0.3}, np.array([0.3])], ids=str)
def test_a_dropout_in_any_form_is_trained_with(answer, capsys):
    trained = []
    check("other_dropout", answer)
    run = [SimpleNamespace(config=SimpleNamespace(dropout=0.3))]
    row = {"w₁ moves per epoch by": 0.1, "chance over improvement": 2.0}
    follow_up(
        *("02_two_similar_tasks", "02-64"),
        famo_as_released=lambda dropout: trained.append(dropout) or run,
        new_masks=run,
        similar_tasks=SimpleNamespace(famo_table=lambda tried: pd.DataFrame([row, row], index=list(tried))),
    )
    assert trained == [0.3] and capsys.readouterr().out.count("dropout 0.3") == 2


@pytest.mark.parametrize("kind", [np.array, np.int64, np.float64, list, torch.from_numpy, pd.Series])
def test_a_filter_of_any_kind_chooses_rows(kind, capsys):
    """Truth values, or 0 and 1; in an array, a list, a tensor or a column."""
    check("front_filter", lambda points: kind(front(points)))
    points = pd.DataFrame({"a": [1.0, 2.0, 0.0], "b": [2.0, 1.0, 0.0], "smto": ["edm", "si", "edm"]}, index=[5, 6, 7])
    follow_up(
        *("05b_sweep_or_smto", "05b-98"), gains={"x": points}, names={"x": ["a", "b"]}, CL_RR="x", in_words=str.upper
    )
    text = capsys.readouterr().out
    assert "front of 3 runs" in text and "EDM 1×" in text and "SI 1×" in text


@pytest.mark.parametrize(
    "kind", [list, torch.tensor, lambda values: np.array(values).astype(str)], ids=["list", "tensor", "text"]
)
def test_gains_of_any_kind_are_compared_with_what_was_selected(kind, capsys):
    check("epoch_gains", lambda run: kind(gains(run)), **FACTS["epoch_gains"])
    runs = FACTS["epoch_gains"]["runs"]
    selected = pd.DataFrame({"diverged": [False, False], "delta_m": [max(gains(run)) - 1 for run in runs]})
    follow_up(*("01_mnist_selection", "01-68"), finished=runs, selected=selected, median=pd.Series([2.0, 1.0]))
    assert "adds 1.00 points per run, 1.00 at most" in capsys.readouterr().out


def test_what_counts_as_the_same_answer():
    """Words in any case, sets in any order, numbers to a part in a million, arrays of whatever kind."""
    alike = [(0.5, 0.5), (2, 2.0), (1000.0001, 1000.0), (" EDM", "edm"), (True, True), (["si", "edm"], {"edm", "si"})]
    alike += [([1, 2], np.array([1.0, 2.0])), (torch.tensor([1.0, 2.0]), [1, 2])]
    apart = [(0.51, 0.5), ("half", 0.5), (0.5, "half"), (1, True), (float("nan"), 0.5), ("edm", {"edm"})]
    apart += [({"edm", "si"}, {"edm"}), ([1.0], [1.0, 2.0]), ([[1.0, 2.0]], [1.0, 2.0])]
    assert [pair for pair in alike if not marking.same(*pair)] == [pair for pair in apart if marking.same(*pair)] == []


def test_an_exercise_that_is_not_there_is_named():
    with pytest.raises(KeyError, match=r"no exercise 'edm_weight' \(did you mean 'edm_weights'\?\)"):
        check("edm_weight", 1)


def test_a_guess_is_kept_and_shown_again(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    guesses.predict("00_walks", "")
    assert guesses.guess_at("00_walks") == "" and not (tmp_path / guesses.FILE).exists()
    guesses.predict("00_walks", "all end in one point")
    guesses.predict("00_maps", "white")
    assert guesses.guess_at("00_walks") == "all end in one point"
    capsys.readouterr()
    guesses.recall("00_maps")
    guesses.recall("00_nothing")
    assert capsys.readouterr().out == "Your guess: white\n"
    shown = canvas.publish_table(pd.DataFrame({"x": [1]}), "00_walks", "smoke", "Walks")
    assert shown.data.endswith("\n\n> **Your guess:** all end in one point")
    assert "guess" not in canvas.publish_table(pd.DataFrame({"x": [1]}), "00_ends", "smoke", "Ends").data
    (tmp_path / guesses.FILE).write_text("no json")
    assert guesses.guess_at("00_walks") == ""


@pytest.mark.parametrize("path", notebooks.find(REPOSITORY / "notebooks"), ids=lambda path: path.stem)
def test_every_prediction_has_a_place_to_write_it_and_comes_back(path):
    """After "Predict" comes a cell for the guess; a figure or table of that name, or `recall`, shows it again later."""
    cells = notebooks.read(path).cells
    sources = [cell.source for cell in cells]
    names = []
    for i, cell in enumerate(cells):
        if cell.cell_type == "markdown" and "**Predict" in cell.source:
            if sources[i + 1].startswith("my_guess = None"):  # an exercise of its own, which is checked
                continue
            (name,) = re.findall(r'^predict\("(\w+)", ""\)', sources[i + 1])
            names.append(name)
            later = "\n".join(sources[i + 2 :])
            shown = re.search(rf'publish(_table)?\([^"]*"{name}"', later)
            assert shown or f'recall("{name}")' in later, (cell.id, name)
    assert names and len(names) == len(set(names))
