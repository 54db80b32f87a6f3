"""A notebook as a page: no network, formulas as MathML, pictures with a size, parameters once."""

import base64
import io
import re

import PIL.Image
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from mtl_study import artifacts
from mtl_study.publishing import notebooks, rendering, searching

OWN = """\
preset: str = "quick"  # the folder of params/ – where these come from
methods: list[str] = [
    "unit_scal",
    "edm",
]  # in order of display
details: dict = {
    "epochs": 10,  # of a run
    "grid": {"lr": [0.001]},  # what a search tries
}
"""
GIVEN = (
    'preset = "smoke"\nmethods = ["unit_scal", "edm"]\ndetails = {"epochs": 1, "grid": {"lr": [0.001]}}\nextra = None\n'
)
MARKDOWN = r"""
## The *least* mathematics

Inline $|w_1 - \tfrac12| < \varepsilon$, and in a block

$$ s_k = \begin{cases} +1 & \text{higher is better} \\ -1 & \text{else} \end{cases} , \qquad
G = \begin{pmatrix} a & b \\ b & c \end{pmatrix} $$

[its code](../mtl_core/smtos/edm.py), [another notebook](02_next.html), [a paper](https://arxiv.org/abs/2505.10347)
"""


def png(width, height):
    file = io.BytesIO()
    PIL.Image.new("RGB", (width, height), "white").save(file, "PNG")
    return file.getvalue()


def body(page):
    return page.partition("<main>")[2]


@pytest.fixture(scope="module")
def page():
    picture = {"image/png": base64.b64encode(png(120, 70)).decode(), "text/plain": "Figure"}
    caption = {"text/markdown": "**Figure 1: a &lt;b&gt; in a title.** What &lt;b&gt; shows, from 0.5 on. Line: CL."}
    show = 'publish(draw(x, "a"), "01_line", preset, "Figure 1")'
    cells = [
        new_markdown_cell("# Is *this* a question?"),
        new_code_cell(OWN, metadata={"tags": ["parameters"]}),
        new_code_cell(GIVEN, metadata={"tags": ["injected-parameters"]}),
        new_markdown_cell(MARKDOWN),
        new_code_cell(
            show, outputs=[new_output("display_data", picture), new_output("display_data", caption)], id="at"
        ),
        new_code_cell("axes", outputs=[new_output("display_data", picture)]),
        new_code_cell('claims.judge("C12", record)', id="judge"),
        new_code_cell("say(1)", outputs=[new_output("stream", text="one")], metadata={"tags": ["remark"]}),
        new_code_cell(
            "sympy", outputs=[new_output("display_data", {"text/latex": r"$\displaystyle \frac{n_1}{n_2}$"})]
        ),
    ]
    return rendering.to_html(new_notebook(cells=cells, metadata={"failure": "Stopped: <b>"}), "01_toy")


def test_nothing_comes_from_a_network(page):
    """No script at all; what is linked is for the reader to follow."""
    assert "<script" not in page and "@import" not in page and "@font-face" not in page
    loaded = re.findall(r"<(?:img|link|iframe|source|video|object|embed)[^>]*(?:src|href|data)=\"([^\"]*)", page)
    assert loaded and all(url.startswith("data:") for url in loaded)
    assert set(re.findall(r"url\(\"?'?([a-z]+):", page)) <= {"data"}
    assert re.findall(r"https?://(?!www\.w3\.org)[^\"'\s<)]*", body(page)) == ["https://arxiv.org/abs/2505.10347"]


def test_formulas_are_mathml(page):
    drawn = body(page)
    assert drawn.count("<math") == 3 and drawn.count('display="block"') == 1
    assert drawn.count("<mtable") == 2 and "<mfrac" in drawn
    assert "$" not in drawn and not re.search(r"\\[a-z]+", drawn)


def test_pictures_have_a_size_a_text_and_a_link_to_the_whole(page):
    first, second = re.findall(r"<img[^>]*>", page)
    for picture in (first, second):
        assert 'width="120"' in picture and 'height="70"' in picture
    assert 'alt="Figure 1: a &lt;b&gt; in a title: What &lt;b&gt; shows, from 0.5 on."' in first
    assert 'alt="Figure: The *least* mathematics"' in second
    assert re.findall(r'<a href="(\.\./figures/[^"]*)"[^>]*><img', page) == ["../figures/01_line.png"]


def test_parameters_are_shown_once_with_their_values_and_comments(page):
    text = re.sub(r"<[^>]*>", "", body(page))
    assert text.count("&quot;unit_scal&quot;") + text.count('"unit_scal"') == 1 and "# of a run" in text
    assert "injected" not in body(page) and "extra = None" in text


def test_a_solution_is_folded_with_what_it_prints_and_nothing_else_is():
    """Whether or not other cells have tags."""
    cells = [
        new_code_cell("my_answer = None  # yours"),
        new_code_cell(
            "my_answer = 42", metadata={"tags": ["solution"]}, outputs=[new_output("stream", text="forty-two")]
        ),
        new_code_cell('check("it", my_answer)', metadata={"tags": ["other"]}),
        new_code_cell("show_source(it)", metadata={"tags": ["solution"]}),
    ]
    page = rendering.to_html(new_notebook(cells=cells), "01_toy")
    drawn = body(page)
    assert "<summary>Code that an exercise asks for</summary>" in drawn
    (folded,) = re.findall(r"<details class=\"solution\"><summary>Solution</summary>(.*?)</details>", drawn, re.DOTALL)
    shown = drawn.replace(folded, "")
    assert ">42<" in folded and "forty-two" in folded and "check" not in folded and "# yours" not in folded
    assert ">42<" not in shown and "forty-two" not in shown and "check" in shown and "# yours" in shown
    (found,) = searching.sections(page, "01_toy.html", "Toy")  # nor does the search of a site show it
    assert "# yours" in found.text and "42" not in found.text and "forty" not in found.text


def test_wide_code_can_be_reached_by_the_keyboard(page):
    blocks = re.findall(r"<div[^>]*class=\"highlight [^>]*>", page)
    assert blocks and all('tabindex="0"' in block for block in blocks)


def test_values_replace_those_that_differ_and_nothing_else():
    expected = OWN.replace('"quick"', '"smoke"').replace('"epochs": 10', '"epochs": 1') + "\nextra = None"
    assert rendering.with_values(OWN, GIVEN) == expected
    assert (
        rendering.with_values('é = {"a": 1}  # é\nb = 2\n', 'é = {"c": 1}\nb = -0.5') == 'é = {"c": 1}  # é\nb = -0.5\n'
    )


def test_cells_link_to_what_they_left_in_the_results(page):
    at, judge = (
        re.search(rf'id="cell-id={cell}".*?<p class="results">(.*?)</p>', page, re.DOTALL)[1]
        for cell in ("at", "judge")
    )
    assert re.findall('href="([^"]*)"', at) == ["../index.html#01_line"]
    assert re.findall('href="([^"]*)"', judge) == ["../index.html#claim-C12"]


def test_a_page_says_what_it_is_and_what_stopped_it(page):
    assert "<title>Is *this* a question?</title>" in page and 'lang="en"' in page
    assert "Stopped: &lt;b&gt;" in page.partition("<main>")[0]
    assert "say(" not in re.sub(r"<[^>]*>", "", body(page)) and "one" in page  # of a remark what it prints
    assert ">its code<" not in page and "its code," in page  # a page leaves the repository
    assert 'href="02_next.html"' in page


def test_every_formula_of_the_notebooks_can_be_drawn():
    drawn = 0
    for path in notebooks.find(artifacts.REPOSITORY / "notebooks"):
        for cell in notebooks.read(path).cells:
            if cell.cell_type == "markdown" and "$" in cell.source:
                shown = rendering.markdown(cell.source)
                assert "$" not in re.sub(r"<code>.*?</code>", "", shown), cell.id
                drawn += shown.count("<math")
    assert drawn > 300


def test_a_formula_that_cannot_be_drawn_is_refused_by_name():
    with pytest.raises(rendering.BadFormula, match=r"does not know \\nonsense, which is in the formula a \\nonsense"):
        rendering.markdown(r"Then $a \nonsense b$.")


def test_the_size_of_a_picture_is_in_its_first_bytes():
    assert rendering.size(png(31, 7)[:24]) == (31, 7)
    with pytest.raises(ValueError, match="no PNG"):
        rendering.size(b"GIF89a")


def test_cells_know_their_head_and_whether_they_are_text():
    table = "| rule | <b>n</b> |\n| --- | ---: |\n| Δm | 1 |\n| the whole interval is above the line | 2 |\n"
    page = rendering.headed(rendering.markdown(table))
    assert '<td data-head="rule">Δm' in page and '<td data-head="n" style="text-align:right">2' in page
    assert re.findall(r'class="text">([^<]*)<', page) == ["the whole interval is above the line"]
