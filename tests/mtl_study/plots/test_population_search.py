"""A population on its way: shares, takeovers, the winner."""

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from mtl_core import problems
from mtl_study import look
from mtl_study.plots import canvas, population_search


def population(weights_of, scores, parents, best, problem="multimnist/CL_RR"):
    """As much of a record as the figure looks at."""
    members = [
        SimpleNamespace(weights=w, score=s, parent=p) for w, s, p in zip(weights_of, scores, parents, strict=True)
    ]
    base = SimpleNamespace(problem=problem, definition=problems.get(problem))
    config = SimpleNamespace(base=base, exploit_interval=1, quantile=0.25)
    return SimpleNamespace(config=config, members=members, best=best, epochs_trained=4)


def test_population_of_two_tasks_shows_shares_and_who_was_copied():
    """The second member takes over from the first, from share ¼ to share ½, before epoch 2."""
    best = SimpleNamespace(member=1, epoch=1, score=3.0, weights=[1.0, 1.0])
    found = population([[[1, 3], [1, 3]], [[9, 1], [1, 1]]], [[2.0, 2.5], [None, 3.0]], [[None, None], [None, 0]], best)
    ax = population_search.population(found)
    (lineage,) = [line for line in ax.lines if to_rgb(line.get_color()) == to_rgb(look.GREY)]
    assert lineage.get_xydata() == pytest.approx(np.array([[1, 0.25], [2, 0.5]], dtype=float))
    (star,) = [line for line in ax.lines if line.get_marker() == "*"]
    assert star.get_xydata() == pytest.approx(np.array([[2, 0.5]], dtype=float))
    assert "(1 time in all)" in canvas.figure_of(ax).get_label()


def test_population_of_many_tasks_follows_the_winner_to_its_forebears():
    """Weights of the winner's forebear before the takeover, its own after it, each brought to sum 1."""
    names = [task.name for task in problems.get("cityscapes/19C").tasks]
    best = SimpleNamespace(member=1, epoch=1, score=3.0, weights=[1.0, 1.0, 2.0])
    found = population(
        [[[2, 1, 1], [2, 1, 1]], [[0, 0, 1], [1, 1, 2]]],
        [[2.0, 2.5], [1.0, 3.0]],
        [[None, None], [None, 0]],
        best,
        "cityscapes/19C",
    )
    ax = population_search.population(found)
    lines = {line.get_label(): line.get_ydata() for line in ax.lines}
    assert [lines[name].tolist() for name in names] == [[0.5, 0.25], [0.25, 0.25], [0.25, 0.5]]
