"""The published edition: the results of one preset, its executed notebooks in reading order, questions before and
after the course, a page per method, the other docs and the API of mtl_core, as a folder that needs no network.

    python -m mtl_study.publishing.edition --preset quick      writes artifacts/site/ from artifacts/quick/
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2

from mtl_core import files
from mtl_study import artifacts
from mtl_study.publishing import notebooks, pages, questions
from mtl_study.publishing.methods import anchor
from mtl_study.publishing.rendering import TEMPLATES, markdown, to_html

Entry = tuple[str, str]  # a title, and the address of its page from the folder of the edition
DOCS = ("own_loops", "own_problem", "cluster", "evidence", "bench", "defects")  # in the order of the contents


def write(preset: str, repository: Path = artifacts.REPOSITORY, target: Path | None = None) -> Path:
    """Write the edition, in place of an earlier one. Returns its first page.

    Args:
        target: its folder; by default `site` in the folder of all artifacts.

    Raises:
        FileNotFoundError: the preset has no artifacts, or no notebook of it was executed.
    """
    folder, target = artifacts.root() / preset, target or artifacts.root() / "site"
    executed = sorted((folder / "notebooks").glob("*.ipynb"))
    if not executed:
        raise FileNotFoundError(f"{folder} has no executed notebooks; run `make reproduce PRESET={preset}` first.")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.html", "*.begun", "junit.xml", "summary.json"))
    read = {path.name.removesuffix(".ipynb"): notebooks.read(path) for path in executed}
    lessons = [(notebooks.title(notebook), f"notebooks/{stem}.html") for stem, notebook in read.items()]
    documents = _documents(repository / "docs")
    entries: list[Entry] = [
        ("Results", "index.html"),
        *lessons,
        (questions.TITLE, "questions.html"),
        *((title, name) for name, (title, _) in documents.items()),
    ]
    if api := _api(target):
        entries.append(("API of mtl_core", api))
    contents = [entry for entry in entries if not entry[1].startswith("docs/method-")]
    for stem, notebook in read.items():
        around = _around(contents, f"notebooks/{stem}.html")
        files.write_atomically(target / f"notebooks/{stem}.html", to_html(notebook, stem, around))
    template = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True)
    titles = {stem: notebooks.title(notebook) for stem, notebook in read.items()}
    bodies = {name: (title, _local(markdown(text), documents)) for name, (title, text) in documents.items()}
    bodies["questions.html"] = (questions.TITLE, questions.body(questions.read(), titles))
    for name, (title, body) in bodies.items():
        page = template.get_template("document.html.j2").render(title=title, body=body, around=_around(contents, name))
        files.write_atomically(target / name, page)
    pages.write_index(target, preset, notebooks.find(repository / "notebooks"), _around(contents, "index.html"))
    return target / "index.html"


def _around(contents: Sequence[Entry], here: str) -> list[Entry]:
    """The contents, as seen from one page of them; the address of that page itself is ""."""
    up = "../" if "/" in here else ""
    return [(title, "" if address == here else up + address) for title, address in contents]


def _documents(folder: Path) -> dict[str, Entry]:
    """The docs as pages, docs/methods.md as one per method: address → title and Markdown."""
    found: dict[str, Entry] = {}
    if (path := folder / "methods.md").exists():
        head, *parts = re.split(r"^(?=## )", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        named = {part.split("\n")[0].removeprefix("## "): part for part in parts}
        linked = {title for title in named if f"](#{anchor(title)})" in head}
        about = "".join(part for title, part in named.items() if title not in linked)
        found["docs/methods.html"] = ("Methods", head + about)
        found |= {
            f"docs/method-{anchor(title)}.html": (title, "#" + part.removeprefix("##"))
            for title, part in named.items()
            if title in linked
        }
    for name in DOCS:
        if (path := folder / f"{name}.md").exists():
            text = path.read_text(encoding="utf-8")
            found[f"docs/{name}.html"] = (text.split("\n")[0].removeprefix("# "), text)
    return found


def _local(body: str, documents: Mapping[str, Entry]) -> str:
    """A document's links: to other documents as pages, to a method's section as its page."""
    body = re.sub(r'href="([a-z_]+)\.md(#[^"]*)?"', r'href="\1.html\2"', body)

    def method(link: re.Match[str]) -> str:
        name = f"method-{link[1]}.html"
        return f'href="{name}"' if f"docs/{name}" in documents else link[0]

    return re.sub(r'href="#([^"]*)"', method, body)


def _api(target: Path) -> str:
    """Write the API of mtl_core by pdoc; the address of its first page."""
    import pdoc

    pdoc.render.configure(docformat="markdown", show_source=True)
    with (
        warnings.catch_warnings()
    ):  # of annotations that are imported for type checkers only: they are shown as written
        warnings.simplefilter("ignore", UserWarning)
        pdoc.pdoc("mtl_core", output_directory=target / "api")
    return "api/mtl_core.html"


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns its exit code: 1 where there is nothing to publish."""
    parser = argparse.ArgumentParser(prog="edition", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--preset", default="quick", help="whose artifacts; default: quick")
    given = parser.parse_args(arguments)
    try:
        print(f"Open {write(given.preset)}")
    except (FileNotFoundError, files.CannotWrite) as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    artifacts.need_checkout()
    sys.exit(main())
