"""The twelve questions: each right choice is what the packages compute, and the sections they name are there."""

import re
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from mtl_core import smtos
from mtl_core.step import MultiTaskModel, Step
from mtl_study import table
from mtl_study.analysis.inference import t_interval, tost
from mtl_study.artifacts import REPOSITORY
from mtl_study.publishing import notebooks, questions
from mtl_study.teaching import guarantees

QUESTIONS = {question.id: question for question in questions.read()}


def pair(length, degrees):
    return np.array([[1.0, 0.0], length * np.array([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))])])


def angle(a, b):
    return np.rad2deg(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))


def longer():
    short, long = pair(3, 90)
    return "longer" if angle(short + long, long) < angle(short + long, short) else "shorter"


def hurt():
    gradients = pair(3, 120)
    rises = gradients @ gradients.mean(0) < 0
    return {(True, False): "shorter gradient rises", (False, True): "longer gradient rises"}[tuple(rises)]


def unit():
    kept = []
    for key in ("fixed", "cagrad", "pcgrad", "edm"):
        before, after = pair(2, 100), pair(2, 100) * [[1000.0], [1.0]]
        weigh = (lambda g: np.ones(2)) if key == "fixed" else partial(guarantees.weights, key)
        if angle(weigh(before) @ before, weigh(after) @ after) < 1e-4:
            kept.append(key)
    return {"edm": "EDM"}[" ".join(kept)]


def losses():
    spaces = {key: smtos.get(key).space for key in ("mgda", "uw", "pcgrad", "nash_mtl")}
    return {"uw": "UW"}[" ".join(key for key, space in spaces.items() if space == "losses")]


def alike():
    draws = [
        guarantees.weights(key, pair(1, a)) for key in ("edm", "cagrad", "nash_mtl", "pcgrad") for a in (20, 90, 170)
    ]
    return "all of them equal weights" if all(np.allclose(w / w.sum(), 0.5, atol=1e-4) for w in draws) else "its own"


def promise():
    found = guarantees.table()["no task gets worse"]
    sums = any((g @ g.T).sum(1).min() < 0 for K in guarantees.LARGEST for g in guarantees.problems(K))
    kept = [key for key in ("nash_mtl", "cagrad", "imgrad") if not any(found.loc[key])]
    assert sums  # that the plain sum raises one, too
    return {"nash_mtl": "Nash-MTL"}[" ".join(kept)]


def gain():
    rows = {"method": ["single", "mine"], "seed": [1, 1], "accuracy ↑": [80, 84], "error ↓": [0.10, 0.11]}
    return f"{table.gains(pd.DataFrame(rows)).delta_m.iloc[0]:.1f} %".replace("-", "−")


def interval():
    found = t_interval([2, 3, -1])
    return "the question stays open" if found.low < 0 < found.high else "better"


def equal():
    """The same three seeds show neither a difference nor, within a point, equality."""
    found = t_interval([2, 3, -1])
    return "nothing yet" if found.low < 0 < found.high and tost([2, 3, -1], 1) > 0.025 else "equally good"


def cosine():
    two, eight = (np.mean(np.eye(K).mean(0) / np.linalg.norm(np.eye(K).mean(0))) for K in (2, 8))
    return {0.5: "it halves", 0.25: "it falls to a quarter", 1.0: "it stays"}[round(eight / two, 9)]


class Counted(torch.autograd.Function):
    passes = 0

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        Counted.passes += 1
        return gradient


class Encoder(nn.Linear):
    def forward(self, x):
        return Counted.apply(super().forward(x))


def passes():
    torch.manual_seed(0)
    names = [str(k) for k in range(10)]
    model = MultiTaskModel(Encoder(3, 4), {name: nn.Linear(4, 1) for name in names})
    step = Step(model, [mse_loss] * 10, torch.randn(5, 3), [torch.randn(5, 1)] * 10)
    Counted.passes = 0
    smtos.build("edm", 10).backward(step)
    return {1: "one", 2: "two", 10: "ten", 45: "forty-five"}[Counted.passes]


def adam():
    ends = []
    for unit in (1, 1000):
        x = nn.Parameter(torch.tensor([3.0, -2.0], dtype=torch.float64))
        optimizer = torch.optim.Adam([x], lr=0.1)
        for _ in range(20):
            optimizer.zero_grad()
            (unit * (x[0] ** 2 + 10 * (x[1] - 1) ** 2)).backward()
            optimizer.step()
        ends.append(x.detach())
    return "next to nothing" if torch.allclose(*ends, atol=1e-6) else "steps"


COMPUTED = {f.__name__: f for f in (longer, hurt, unit, losses, alike, promise, gain, interval, equal, cosine)} | {
    "passes": passes,
    "adam": adam,
}


def test_there_are_twelve():
    assert len(QUESTIONS) == 12 and set(QUESTIONS) == set(COMPUTED)
    places = [question.right for question in QUESTIONS.values()]
    assert max(map(places.count, places)) <= 6  # no place is the right one all the time


@pytest.mark.parametrize("name", sorted(QUESTIONS))
def test_the_right_choice_is_what_is_computed(name):
    """It is the one choice with these words."""
    question, words = QUESTIONS[name], COMPUTED[name]()
    assert [i for i, (says, _) in enumerate(question.choices) if words in says] == [question.right]


@pytest.mark.parametrize("name", sorted(QUESTIONS))
def test_each_wrong_choice_has_a_hint_of_its_own_and_the_section_is_there(name):
    question = QUESTIONS[name]
    says, hints = zip(*question.choices, strict=True)
    assert len(set(says)) == len(set(hints)) == len(says) >= 3
    notebook = notebooks.read(REPOSITORY / "notebooks" / f"{question.where[0]}.ipynb")
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert re.findall(rf"^#+ {re.escape(question.where[1])}$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- {id: a}", "question 1: expected id, asks, where: .notebook, section., choices"),
        ("- {id: a, ask: x}", r"question 1: 'ask' is none of id, asks, .*did you mean 'asks'"),
        ("- {id: a, asks: x, where: [n, s], choices: [{says: y}, {says: z}]}", "question 1: one choice, the right one"),
        ("- &q {id: a, asks: x, where: [n, s], choices: [{says: y}]}\n- *q", "question 2: the id 'a' is taken"),
    ],
)
def test_what_cannot_be_asked_is_named(text, said, tmp_path):
    (tmp_path / "questions.yaml").write_text(text)
    with pytest.raises(questions.BadQuestion, match=said):
        questions.read(tmp_path / "questions.yaml")
