"""Slides made of notebooks: what begins one, what is on it, what is left out. test_browser.py looks at them."""

import base64
import hashlib
import re

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from mtl_study.artifacts import REPOSITORY
from mtl_study.publishing import notebooks, slides
from mtl_study.publishing.rendering import TEMPLATES, BadFormula

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\2\0\0\0\1\0\x08\2\0\0\0" + b"\0" * 8).decode()


def drawn(caption="**A line.** What it shows."):
    return [
        new_output("display_data", {"image/png": PNG, "text/plain": "<Figure>"}),
        new_output("display_data", {"text/markdown": caption, "text/plain": "<Markdown>"}),
    ]


def notebook(*cells):
    made = [new_markdown_cell(cell) if isinstance(cell, str) else cell for cell in ("# A talk", *cells)]
    return new_notebook(cells=made)


def seen(made):
    """Each slide as the list of what is on it."""
    found = []
    for cell in slides.deck(made).cells:
        if cell.metadata["slideshow"]["slide_type"] in ("slide", "subslide"):
            found.append([])
        found[-1].append(cell.source or "figure")
    return found


def test_a_heading_begins_a_slide_and_one_right_below_it_does_not():
    made = notebook("Why.", "## One\n\n### First\n\nText.", "### Second\n\nMore.", "#### Title\n\nOf it.")
    assert seen(made) == [
        ["# A talk", "Why."],
        ["## One", "### First", "Text."],
        ["### Second", "More.", "#### Title", "Of it."],
    ]


def test_a_full_slide_goes_on_under_the_same_heading():
    words = " ".join(["word"] * 70)
    assert seen(notebook(f"## One\n\n{words}\n\n{words}"))[1:] == [["## One", words], ["## One", words]]


def test_a_figure_takes_the_sentences_before_it_along():
    """And comes a key press later where they ask for a guess; its caption belongs to it."""
    words = " ".join(["word"] * 70)
    figure = new_code_cell("draw()", outputs=drawn())
    made = notebook(f"## One\n\n{words}\n\n**Predict first:** which?", figure, "After.")
    assert seen(made)[1:] == [
        ["## One", words],
        ["## One", "**Predict first:** which?", "figure"],
        ["## One", "After."],
    ]
    [figure] = [cell for cell in slides.deck(made).cells if cell.cell_type == "code"]
    assert figure.metadata["slideshow"]["slide_type"] == "fragment"
    assert figure.metadata["caption"] == "**A line.** What it shows."
    page = slides.to_html(made)
    [image] = re.findall(r'<div class="fragment">\s*<figure>\s*(<img [^>]*>)', page)
    assert all(part in image for part in ('width="512"', 'height="256"', 'alt="A line: What it shows."'))
    assert "draw()" not in page and "What it shows." in page


def test_a_long_table_is_cut_into_equal_parts_and_each_has_its_head():
    rows = [f"| {n} | x |" for n in range(slides.ROWS + 2)]
    table = "\n".join(["| n | x |", "| :- | :- |", *rows])
    first, second = slides.texts(table)
    assert first.split("\n")[:2] == second.split("\n")[:2] == ["| n | x |", "| :- | :- |"]
    assert first.split("\n")[2:] + second.split("\n")[2:] == rows
    assert abs(first.count("\n") - second.count("\n")) <= 1


def test_of_a_paragraph_the_first_sentences_are_shown():
    """Never half of what is bold, and where the last one leads to what follows it is there, too."""
    long = " ".join(["word"] * slides.SENTENCES)
    assert slides.shortened(f"First one. Then {long}. Last.") == "First one."
    assert slides.shortened(f"First one. Then {long}. The sum is:") == "First one. The sum is:"
    assert slides.shortened(f"**Bold. Still {long}.** Not.") == f"**Bold. Still {long}.** Not."
    assert slides.shortened(f"Of Unit. Scal. it is true. {long} {long}.".replace("true. w", "true. W")) == (
        "Of Unit. Scal. it is true."
    )
    assert slides.shortened(f"$$a. B$$ {long} {long}. C.").endswith("C.")


def test_nothing_that_solves_an_exercise_is_shown():
    told = [new_output("display_data", {"text/markdown": "So it is one.", "text/plain": ""})]
    made = notebook(
        "## Before",
        new_code_cell("show_source(answer)", metadata={"tags": ["solution"]}, outputs=told),
        "## Exercises\n\n### 1. Predict\n\nWhat is it? " + " ".join(["Long."] * 60),
        new_code_cell("answer = 1", metadata={"tags": ["solution"]}),
        new_code_cell("check(answer)", outputs=[new_output("stream", name="stdout", text="Right: it is one.\n")]),
        "So it is one.",
        "## What we found\n\nMuch.",
    )
    page = slides.to_html(made)
    assert "What is it?" in page and page.count("Long.") == 60
    assert "it is one" not in page and "answer" not in page and "Much." in page


def test_a_value_is_shown_with_its_code_where_that_is_short():
    value = [new_output("execute_result", {"text/plain": "3"}, execution_count=1)]
    assert seen(notebook("## One", new_code_cell("1 + 2", outputs=value)))[1][1:] == [
        "```python\n1 + 2\n```",
        "```\n3\n```",
    ]
    long = "\n".join(["x = 1"] * (slides.SHORT + 1))
    assert seen(notebook("## One", new_code_cell(long, outputs=value)))[1:] == [["## One"]]


@pytest.mark.parametrize("path", notebooks.find(REPOSITORY / "notebooks"), ids=lambda path: path.stem)
def test_every_notebook_has_slides_that_need_no_network(path):
    """Also without having been executed; no solution is on them, and all formulas can be drawn."""
    read = notebooks.read(path)
    page = slides.to_html(read)
    assert not re.findall(r"""(?:src|<link[^>]*href)=["']?(?:https?:)?//|url\((?!["']?data:)|@import""", page)
    assert set(re.findall(r'(?:src|<link[^>]* href)="(?!data:)([^"]*)"', page)) == set(slides.ASSETS)
    for cell in read.cells:
        if notebooks.tagged(cell, "solution"):
            assert cell.source not in page
    heads = [line for cell in read.cells if cell.cell_type == "markdown" for line in cell.source.split("\n")]
    sections = sum(line.startswith(("# ", "## ")) for line in heads)
    assert len([c for c in slides.deck(read).cells if c.metadata["slideshow"]["slide_type"] == "slide"]) == sections


def test_a_formula_that_cannot_be_drawn_is_refused():
    with pytest.raises(BadFormula):
        slides.to_html(notebook(r"Let $\nosuchcommand x$."))


def test_slides_link_to_slides(tmp_path):
    written = slides.write({"01_a": notebook("To [b](02_b.ipynb), [c](03_c.ipynb)."), "02_b": notebook()}, tmp_path)
    assert written == {"01_a.html": "A talk", "02_b.html": "A talk"}
    page = (tmp_path / "01_a.html").read_text()
    assert '<a href="02_b.html">b</a>, c.' in page
    assert {path.name for path in tmp_path.iterdir()} == {*written, "index.html", *slides.ASSETS}
    every = (tmp_path / "index.html").read_text()
    assert all(f'<a href="{name}">{title}</a>' in every for name, title in written.items())
    assert all('<a href="index.html">All slides</a>' in text for text in (page, every))


def test_slides_of_nothing_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path))
    for given, preset in ([], "shipped"), (["--preset", "quick"], "quick"):
        assert slides.main(given) == 1
        assert f"run `make reproduce PRESET={preset}` first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("reveal.js", "aa1bbbf2617b23a623b23612cb3c5bdb63de512e652bf20fcfa832b045d37844"),
        ("reveal.css", "615ee850cbbb98a0f688b60ed37b21819a3f54c9f3e6f20e33e63693ab74a0c0"),
    ],
)
def test_reveal_is_as_npm_has_it(name, digest):
    """Version 6.0.2, below its licence."""
    licence, _, code = (TEMPLATES / name).read_bytes().partition(b"*/\n")
    assert b"reveal.js 6.0.2" in licence and b"Permission is hereby granted" in licence
    assert hashlib.sha256(code).hexdigest() == digest
