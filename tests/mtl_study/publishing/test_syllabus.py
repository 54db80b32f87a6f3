"""The lecturer's page has the minutes of the notebooks as they are, and the pages of a course fit together."""

import re

import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mtl_core import smtos
from mtl_study.artifacts import REPOSITORY
from mtl_study.look import in_order, label
from mtl_study.publishing import notebooks, sheet, syllabus
from mtl_study.teaching import guarantees
from mtl_study.words import slug

DOCS = REPOSITORY / "docs"
GLOSSARY = {slug(h) for h in re.findall(r"^## (.+)$", (DOCS / "glossary.md").read_text(), re.MULTILINE)}


def test_the_page_on_disk_has_the_minutes_of_today():
    """After a change to a notebook: python -m mtl_study.publishing.syllabus."""
    text = syllabus.TARGET.read_text(encoding="utf-8")
    assert syllabus.with_minutes(text) == text


def test_minutes_by_hand():
    """400 words take 2 minutes, a figure ¾ and its line of code 3 seconds; parameters and solutions take none."""
    cells = [
        new_markdown_cell("word " * 400),
        new_code_cell('publish(ax, "01_x", preset, "X")\n\n'),
        new_code_cell("x = 1\n" * 100, metadata={"tags": ["solution"]}),
        new_code_cell("x = 1\n" * 100, metadata={"tags": ["parameters"]}),
    ]
    assert notebooks.minutes(new_notebook(cells=cells)) == pytest.approx(2 + 0.75 + 0.05)


def test_a_page_without_a_place_and_a_plan_without_a_notebook_are_refused(tmp_path):
    with pytest.raises(ValueError, match="lacks the lines <!-- minutes -->"):
        syllabus.with_minutes("")
    with pytest.raises(ValueError, match="has no notebook 00"):
        syllabus.of_numbers(["00"], tmp_path)


def test_the_cheat_sheet_has_every_method_and_what_was_measured():
    costs = sheet.costs(sheet.BENCH.read_text(encoding="utf-8"))
    assert costs["pcgrad"] == 1.49
    assert sorted([*costs, "bayesagg_mtl"]) == sorted(smtos.keys())  # that one asks for other heads than LeNet's
    text = sheet.TARGET.read_text(encoding="utf-8")
    rows = [line.split(" | ")[0].strip("| ") for line in text.splitlines() if line.startswith("| ")][2:]
    assert rows == [label(key) for key in in_order(smtos.keys())]


def test_the_cheat_sheet_says_truly_which_methods_were_asked():
    """Those with marks; which of them read losses; and that the first step of CDTT is EDM's."""
    about, _, rows = sheet.TARGET.read_text(encoding="utf-8").partition("| method |")
    marked = {line.split(" | ")[0].strip("| ") for line in rows.splitlines() if "✓" in line or "✗" in line}
    assert marked == {label(key) for key in guarantees.methods()}
    unlike = {
        label(key)
        for key in guarantees.methods()
        for gradients in guarantees.problems(2)[:12]
        if not np.allclose(*(guarantees.weights(key, gradients, np.array([1.0, loss])) for loss in (1.0, 4.0)))
    }
    assert f"some read the losses\nof the step as well ({', '.join(sorted(unlike))})." in about
    for gradients in guarantees.problems(2) + guarantees.problems(3):
        assert guarantees.weights("cdtt", gradients) == pytest.approx(guarantees.weights("edm", gradients))
    assert "function of the Gramian alone" not in about


def test_a_notebook_says_how_long_it_takes():
    """The sentence is rounded, to within half of five minutes."""
    for path in notebooks.find(REPOSITORY / "notebooks"):
        notebook = notebooks.read(path)
        said = re.findall(r"Reading takes about (\d+)\s+minutes", notebook.cells[0].source)
        assert len(said) == 1 and abs(int(said[0]) - notebooks.minutes(notebook)) <= 2.5, path.name


def test_the_glossary_has_its_words_and_each_is_linked_where_a_notebook_uses_it():
    assert len(GLOSSARY) == 31
    found = set()
    for path in notebooks.find(REPOSITORY / "notebooks"):
        for cell in notebooks.read(path).cells:
            if cell.cell_type == "markdown":
                found |= set(re.findall(r"\]\(\.\./docs/glossary\.md#([\w-]+)\)", cell.source))
    assert found == GLOSSARY
