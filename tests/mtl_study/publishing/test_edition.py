"""The published edition: one folder, in which every link answers and all that is said can be found."""

import hashlib
import json
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from nbformat.v4 import new_markdown_cell

from mtl_study import artifacts
from mtl_study.publishing import edition, notebooks, searching
from mtl_study.publishing.rendering import TEMPLATES

METHODS = """# Methods

| method | key |
| :--- | :--- |
| [EDM](#edm) | `edm` |
| [IMTL, IMTL-G](#imtl-imtl-g) | `imtl` |

See [the defects](defects.md#d1), [the words](glossary.md#gramian) and [the file](../mtl_core/smtos/edm.py).

## In a loop of your own

Both.

## EDM

The bisector; not [IMTL](#imtl-imtl-g).

## IMTL, IMTL-G

```text
w = 1
```
"""
GLOSSARY = """# Glossary

## Gramian

All inner products of the gradients. [First lesson](../notebooks/01_lines.ipynb), [the map](../CONTRIBUTING.md).

## Gramian

Said twice.
"""


def dead_links(folder: Path) -> list[tuple[str, str]]:
    """Links of the pages of a folder that lead to no file, or to no place in it."""
    found = []
    for page in folder.rglob("*.html"):
        for link in re.findall(r'<a [^>]*?href="([^"]*)"', page.read_text()):
            parts = urlsplit(link.replace("&amp;", "&"))
            if parts.scheme:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            place = f'id="{unquote(parts.fragment)}"'
            if not target.is_file() or (parts.fragment and place not in target.read_text()):
                found.append((str(page.relative_to(folder)), link))
    return found


@pytest.fixture
def docs(house, rendered):
    folder = house.repository / "docs"
    folder.mkdir()
    (folder / "methods.md").write_text(METHODS)
    (folder / "defects.md").write_text("# Defects\n\n## D1\n\nOdd.\n")
    (folder / "glossary.md").write_text(GLOSSARY)
    lesson = house.folder / "notebooks/01_lines.ipynb"
    read = notebooks.read(lesson)
    read.cells.append(new_markdown_cell("[words](../docs/glossary.md#gramian-1), [next](02_proofs.html), [x](../x.md)"))
    notebooks.nbformat.write(read, lesson)
    rendered(house.folder)
    return house


def test_every_page_is_there_and_every_link_answers(docs, monkeypatch):
    monkeypatch.setattr(edition, "_api", lambda target: [])  # another test has it
    first = edition.write("quick", docs.repository)
    folder = first.parent
    assert folder == artifacts.root() / "site"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.html")} == {
        "index.html",
        "notebooks/01_lines.html",
        "notebooks/02_proofs.html",
        "questions.html",
        "slides/index.html",
        "slides/01_lines.html",
        "slides/02_proofs.html",
        "docs/methods.html",
        "docs/method-edm.html",
        "docs/method-imtl-imtl-g.html",
        "docs/defects.html",
        "docs/glossary.html",
        "search.html",
    }
    assert dead_links(folder) == []
    page = (folder / "notebooks/02_proofs.html").read_text()
    around = [("../notebooks/01_lines.html", "prev"), ("../questions.html", "next")]
    assert re.findall(r'href="([^"]*)" rel="(prev|next)"', page) == around
    front = (folder / "index.html").read_text()
    assert re.findall(r'href="([^"]*)" rel="(prev|next)"', front) == [("notebooks/01_lines.html", "next")]
    methods = (folder / "docs/methods.html").read_text()
    assert 'href="method-edm.html"' in methods and "Both." in methods and "bisector" not in methods
    assert 'href="defects.html#d1"' in methods and 'href="glossary.html#gramian"' in methods
    assert "and the file." in methods  # that of no page
    assert 'href="method-imtl-imtl-g.html"' in (folder / "docs/method-edm.html").read_text()
    method = (folder / "docs/method-edm.html").read_text()
    around = [("../docs/methods.html", "prev"), ("../docs/method-imtl-imtl-g.html", "next")]
    assert re.findall(r'href="([^"]*)" rel="(prev|next)"', method) == around and "method-edm" not in page
    glossary = (folder / "docs/glossary.html").read_text()
    assert 'href="../notebooks/01_lines.html">First lesson' in glossary and "the map." in glossary
    lesson = (folder / "notebooks/01_lines.html").read_text()
    assert '<a href="../docs/glossary.html#gramian-1">words</a>, <a href="02_proofs.html">next</a>, x' in lesson
    assert not list(folder.rglob("*.begun")) and (folder / "figures/01_line.png").exists()


def test_what_a_page_says_is_found_under_its_heading(docs, monkeypatch):
    """In a script, which a page from a disk can load; each section with an address that is there."""
    monkeypatch.setattr(edition, "_api", lambda target: [])
    folder = edition.write("quick", docs.repository).parent
    script = (folder / "search/sections.js").read_text()
    found = [searching.Passage(*one) for one in json.loads(script.removeprefix("const SECTIONS = ").rstrip(";\n"))]
    of = {passage.address: passage for passage in found}
    assert of["docs/glossary.html#gramian-1"] == ("docs/glossary.html#gramian-1", "Glossary", "Gramian", "Said twice.")
    assert of["docs/method-edm.html#edm"].text == "The bisector; not IMTL."
    assert of["index.html#02_proofs"].page == "Results" and "C12" in of["index.html#claim-C12"].heading
    assert of["notebooks/01_lines.html#on-01_lines"].heading == "On 01_lines"
    assert {address.partition("#")[0] for address in of} == {
        str(path.relative_to(folder)) for path in folder.rglob("*.html")
    } - {"search.html", "slides/01_lines.html", "slides/02_proofs.html"}
    for address in of:
        page, _, id_ = address.partition("#")
        assert not id_ or f'id="{id_}"' in (folder / page).read_text(), address
    page = (folder / "docs/glossary.html").read_text()
    assert '<form class="search" role="search" action="../search.html">' in page


def test_what_is_no_text_is_not_found():
    page = """<body><nav>no</nav><main><h1 id="a">A <i>b</i></h1><p>one<br>two <math><mi>w</mi><mo>=</mo></math></p>
        <script>no</script><div class="pdoc-code"><h2>no</h2>no</div><section id="s"><h2>C</h2>three</section></main>"""
    assert searching.sections(page, "x.html", "X") == [
        ("x.html#a", "X", "A b", "one two w="),
        ("x.html#s", "X", "C", "three"),
    ]


def test_every_document_of_the_repository_is_a_page():
    docs = {path.stem for path in (artifacts.REPOSITORY / "docs").glob("*.md")}
    assert docs == {*edition.DOCS, "methods"}


def test_minisearch_is_as_npm_has_it():
    """Version 7.2.0, dist/umd/index.js, below its licence."""
    licence, _, code = (TEMPLATES / "minisearch.js").read_bytes().partition(b"*/\n")
    assert b"Permission is hereby granted" in licence
    assert hashlib.sha256(code).hexdigest() == "03c27931eb603af1d3358579e9885eafdb6a2f5fa9929557b3e77d7e99d06d03"


def test_an_edition_of_nothing_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path))
    for given, preset in ([], "shipped"), (["--preset", "quick"], "quick"):
        assert edition.main(given) == 1
        assert f"run `make reproduce PRESET={preset}` first" in capsys.readouterr().err
    assert edition.main(["--preset", "quik"]) == 2
    assert "no preset 'quik' (did you mean 'quick'?)" in capsys.readouterr().err


@pytest.mark.slow
def test_the_api_of_the_core_is_part_of_it(docs):
    folder = edition.write("quick", docs.repository).parent
    page = (folder / "api/mtl_core/balancer.html").read_text()
    assert "backward" in page and not re.findall(r'(?:src|<link[^>]*href)="https?:', page)
    assert 'href="../../search.html"' in page and 'aria-label="Link to Balancer.backward"' in page
    assert "<strong>losses:</strong>" in page  # an argument, in a list
    assert all('width="' in image and 'height="' in image for image in re.findall(r"<img\b[^>]*>", page))
    assert len(ids := re.findall(r' id="([^"]*)"', page)) == len(set(ids)), ids
    methods = (folder / "api/mtl_core/smtos.html").read_text()  # with docs of torch, which link to what it alone has
    assert set(re.findall(r'<a [^>]*href="#([^"]+)"', methods)) <= set(re.findall(r'\bid="([^"]*)"', methods))
    assert 'href="api/mtl_core.html"' in (folder / "index.html").read_text()
    assert 'href="../api/mtl_core/smtos/edm.html"' in (folder / "docs/methods.html").read_text()
    sections = (folder / "search/sections.js").read_text()
    assert '["api/mtl_core/balancer.html#Balancer.backward", "API: mtl_core.balancer", "backward",' in sections
