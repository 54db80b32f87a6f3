"""Which cells another cell rests on, and which records a figure rests on."""

import pytest
from IPython.core.interactiveshell import InteractiveShell

from mtl_study import artifacts, cells, provenance

CELLS = [
    "import numpy as np",  # 0
    "rng = np.random.default_rng(1)",  # 1
    "rows = []",  # 2
    "a = rng.normal()",  # 3
    "rows.append(a)",  # 4
    "def f(x):\n    return x + hidden",  # 5
    "hidden = 2",  # 6
    "b = rng.normal()",  # 7
    "c = [rows for rows in range(3)]",  # 8
    "say(rows)",  # 9
    "hidden = 3",  # 10
    "%matplotlib inline",  # 11
]


@pytest.mark.parametrize(
    ("source", "rests_on"),
    [
        ("print(1)", set()),
        ("print(b)", {0, 1, 3, 7}),  # the draw before it moves the generator on
        ("print(rows)", {0, 1, 2, 3, 4}),  # filled in place; the comprehension has a name of its own
        ("print(f(1))", {5, 10}),  # what a function uses counts, and of two values the later
        ("a = draw(np)\nb = a\nfor rows in b:\n    print(rows, b)", {0}),  # the rest it has given a value itself
    ],
)
def test_a_cell_rests_on_those_whose_names_it_uses(source, rests_on):
    assert cells.needed([*CELLS, source], len(CELLS)) == rests_on | {len(CELLS)}


def test_a_value_under_a_condition_does_not_hide_the_one_before():
    assert cells.needed(["x = 1", "if y:\n    x = 2", "print(x)"], 2) == {0, 1, 2}
    assert cells.needed(["x = {}", "x['a'] = 1", "x['b'] += 1", "print(x)"], 3) == {0, 1, 2, 3}
    assert cells.needed(["x = 1", "x = 2", "print(x)"], 2) == {1, 2}


def test_a_cell_that_names_a_figure_is_found_by_it():
    assert cells.mentions('publish(ax, "01_figure_1", preset)', "01_figure_1")
    assert cells.mentions('publish(ax, f"05_front_{name}", preset)', "05_front_cl_rr")
    assert not cells.mentions('publish(ax, f"05_front_{name}", preset)', "05_back")
    assert not cells.mentions('publish(ax, f"{name}", preset)', "05_back")


def test_a_figure_rests_on_the_records_that_its_cells_read(monkeypatch):
    """Not on those of other cells, of whatever order."""
    shell = InteractiveShell()
    monkeypatch.setattr(provenance, "_shell", lambda: shell)
    artifacts.begin(None)
    for source in (
        "from mtl_study import provenance; note = provenance.note",
        "a = note('a', '1')",
        "b = note('b', '2')",
        "print(a); found = provenance.records()",
        "print(b); later = provenance.records()",
    ):
        shell.run_cell(source, store_history=True).raise_error()
    assert shell.user_ns["found"] == {"a": "1"} and shell.user_ns["later"] == {"b": "2"}
    artifacts.begin(None)
    assert provenance.records() == {}
