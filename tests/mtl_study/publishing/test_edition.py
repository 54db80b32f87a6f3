"""The published edition: one folder, in which every link answers."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from mtl_study import artifacts
from mtl_study.publishing import edition, running

METHODS = """# Methods

| method | key |
| :--- | :--- |
| [EDM](#edm) | `edm` |
| [IMTL, IMTL-G](#imtl-imtl-g) | `imtl` |

See [the defects](defects.md) and [the file](../mtl_core/smtos/edm.py).

## In a loop of your own

Both.

## EDM

The bisector; not [IMTL](#imtl-imtl-g).

## IMTL, IMTL-G

```text
w = 1
```
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
def docs(house):
    folder = house.repository / "docs"
    folder.mkdir()
    (folder / "methods.md").write_text(METHODS)
    (folder / "defects.md").write_text("# Defects\n\nD1\n")
    running.render_again(house.folder)
    return house


def test_every_page_is_there_and_every_link_answers(docs, monkeypatch):
    monkeypatch.setattr(edition, "_api", lambda target: "")  # the next test has it
    first = edition.write("quick", docs.repository)
    folder = first.parent
    assert folder == artifacts.root() / "site"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.html")} == {
        "index.html",
        "notebooks/01_lines.html",
        "notebooks/02_proofs.html",
        "questions.html",
        "docs/methods.html",
        "docs/method-edm.html",
        "docs/method-imtl-imtl-g.html",
        "docs/defects.html",
    }
    assert dead_links(folder) == []
    page = (folder / "notebooks/02_proofs.html").read_text()
    around = [("../notebooks/01_lines.html", "prev"), ("../questions.html", "next")]
    assert re.findall(r'href="([^"]*)" rel="(prev|next)"', page) == around
    methods = (folder / "docs/methods.html").read_text()
    assert 'href="method-edm.html"' in methods and "Both." in methods and "bisector" not in methods
    assert 'href="method-imtl-imtl-g.html"' in (folder / "docs/method-edm.html").read_text()
    assert not list(folder.rglob("*.begun")) and (folder / "figures/01_line.png").exists()


def test_an_edition_of_nothing_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path))
    assert edition.main(["--preset", "quick"]) == 1
    assert "run `make reproduce PRESET=quick` first" in capsys.readouterr().out


@pytest.mark.slow
def test_the_api_of_the_core_is_part_of_it(docs):
    folder = edition.write("quick", docs.repository).parent
    page = (folder / "api/mtl_core/balancer.html").read_text()
    assert "backward" in page and not re.findall(r'(?:src|<link[^>]*href)="https?:', page)
    assert 'href="api/mtl_core.html"' in (folder / "index.html").read_text()
