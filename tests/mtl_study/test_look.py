"""A method looks the same in every figure, and no two look alike."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from mtl_core import smtos
from mtl_study import look
from mtl_study.look import LOOK
from mtl_study.paper import published
from mtl_study.plots import canvas

TABLE_3 = published.table("table_3")


def test_seaborn_draws_a_method_the_same_whoever_it_stands_beside():
    import seaborn as sns

    table = pd.DataFrame({"smto": ["edm", "edm", "si", "si"], "x": [0, 1, 0, 1], "y": [0, 1, 1, 0]})
    colours = []
    for chosen in [["edm"], ["edm", "si"]]:
        _, ax = canvas.figure()
        sns.lineplot(table[table.smto.isin(chosen)], x="x", y="y", errorbar=None, ax=ax, **look.look(chosen))
        colours.append(ax.lines[0].get_color())
    plt.close("all")
    assert colours == [LOOK["edm"].colour] * 2


def test_every_method_has_a_look():
    assert set(smtos.keys()) <= set(LOOK)


def test_no_two_methods_look_alike_even_where_only_lines_or_only_markers_are_drawn():
    for draw in [("colour", "dash"), ("colour", "marker")]:
        assert len({tuple(getattr(one, part) for part in draw) for one in LOOK.values()}) == len(LOOK)
    assert len({one.label for one in LOOK.values()}) == len(LOOK)


def test_black_is_the_uniform_loss_and_brown_fixed_weights_and_only_that():
    for colour, only in ((look.INK, "unit_scal"), (look.BROWN, "fixed")):
        assert [smto for smto, one in LOOK.items() if one.colour == colour] == [only]
    assert len({one.colour for one in LOOK.values()}) == 8


def test_methods_come_in_the_papers_order():
    assert look.in_order(reversed(TABLE_3.index)) == list(TABLE_3.index)
    with pytest.raises(KeyError, match="no_such: no look"):
        look.in_order(["edm", "no_such"])


def test_problems_are_called_what_the_paper_calls_them():
    names = {"cityscapes/inst_seg": "Inst. Seg.", "qm9": "QM9", "cityscapes/19C": "19C", "multimnist/CL_CR": "CL_CR"}
    assert {problem: look.problem_label(problem) for problem in names} == names
