"""Captions say what is shown, how many, and who chose; and none is long."""

import ast
from pathlib import Path

import pandas as pd
import pytest

from mtl_study import look, plots
from mtl_study.plots import canvas, captions, selection, similar_tasks

WORDS = {"chosen": 14, "diverged": 12, "elsewhere": 0, "seeds": 2, "listed": 6, "interval_words": 10, "spanned": 4,
         "learning_rates": 9, "_looks": 12, "_paced": 8, "_on": 3, "join": 4, "counted": 2}  # fmt: skip


def longest(node):
    """The longest text that an expression of a caption can be, with as many words as a call usually gives."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(longest(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return longest(node.value)
    if isinstance(node, ast.IfExp):
        return max(longest(node.body), longest(node.orelse), key=lambda text: len(text.split()))
    if isinstance(node, ast.BinOp):
        return longest(node.left) + longest(node.right)
    if isinstance(node, ast.Call):
        return " ".join(["word"] * WORDS.get(ast.unparse(node.func).split(".")[-1], 1))
    return "word"


@pytest.mark.parametrize("path", sorted(Path(plots.__file__).parent.glob("*.py")), ids=lambda path: path.stem)
def test_no_caption_can_have_more_than_sixty_words(path):
    """Of a figure or a table, with every condition that makes it longer, whatever the preset."""
    found = {}
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(function, ast.FunctionDef):
            for call in ast.walk(function):
                if isinstance(call, ast.Call) and ast.unparse(call.func) in ("canvas.caption", "caption"):
                    text = " ".join(longest(sentence) for sentence in call.args[1:])
                    found[f"{function.name}: {text}"] = len(text.split())
    assert {text: words for text, words in found.items() if words > 60} == {}


def test_many_methods_that_diverged_are_counted():
    smtos = list(look.LOOK)[:5]
    table = pd.DataFrame({"problem": "qm9", "smto": smtos, "seed": 1, "diverged": True})
    assert captions.diverged(table).startswith("5 runs diverged;")
    assert (
        captions.diverged(table[:1]) == "Runs that diverged, read at their best epoch before, if any: 1 of Unit. Scal.."
    )


def test_every_caption_says_what_is_shown_how_many_and_who_chose(all_methods, two_problems):
    _, table = all_methods
    both, two = two_problems
    chosen = "searched here over 2 configurations × 1 seeds"
    settings = pd.DataFrame({"smto": ["edm", "famo"], "lr": 0.001, "chosen": chosen})
    for axes in [
        selection.figure_1(table, settings=settings),
        selection.forest(table, settings=settings),
        selection.trade_off(table, settings=settings),
        similar_tasks.figure_2(two, both, settings=settings),
    ]:
        text = canvas.figure_of(axes).get_label()
        assert "3 seeds" in text
        assert text.endswith("Settings: searched here over 2 configurations × 1 seeds.")
        assert "  " not in text and " ." not in text and " ;" not in text


def test_unequal_learning_rates_are_named():
    """What most have, then the others from the smallest on, methods in order of display; nothing where all agree."""
    rates = {"unit_scal": 0.005, "cagrad": 0.001, "edm": 0.001, "famo": 0.005, "imtl": 0.0005, "nash_mtl": 0.001}
    assert (
        captions.learning_rates(rates)
        == "Learning rate: 0.001, but 0.0005 for IMTL and 0.005 for Unit. Scal. and FAMO."
    )
    assert captions.learning_rates(dict.fromkeys(rates, 0.001)) == ""
    settings = pd.DataFrame(
        {"smto": ["single_task", "unit_scal", "edm"], "lr": [0.1, 0.005, 0.005], "chosen": "published"}
    )
    drawn = ["unit_scal", "edm"]
    assert captions.chosen(settings, drawn) == "Settings: as published."
    more = pd.concat([settings, settings.iloc[1:].assign(lr=[0.001, 0.005])])  # of two problems
    assert captions.chosen(more, drawn) == "Settings: as published."
    unequal = settings.assign(lr=[0.1, 0.005, 0.001])
    assert captions.chosen(unequal, drawn).endswith("Learning rate: 0.005, but 0.001 for EDM.")
    assert captions.chosen(unequal, ["unit_scal"]) == "Settings: as published."  # of what is not drawn nothing is said


def test_rows_of_another_kind_of_machine_are_named(make_run):
    """By seed: a block is kept as it was made, and what came to it from elsewhere is named."""
    rows = [("unit_scal", 1, "A"), ("edm", 1, "A"), ("cagrad", 1, "B"), ("unit_scal", 2, "B"), ("cagrad", 2, "B")]
    table = pd.DataFrame(rows, columns=["smto", "seed", "machine"]).assign(problem="multimnist/CL_RR")
    assert captions.elsewhere(table) == "Some runs are from another kind of machine: CAGrad."
    assert captions.elsewhere(table[table.seed == 2]) == ""
    assert make_run([{"CL": 0.5}]).machine == "device unknown, instruction set unknown"
