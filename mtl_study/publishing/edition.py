"""The published edition: the results of one preset, or of what ships, its executed notebooks in reading order,
questions before and after the course, slides, a page per method, the other docs, the API of mtl_core and a search over
all of them, as a folder that needs no network.

    python -m mtl_study.publishing.edition --preset shipped    writes artifacts/site/ from artifacts/shipped/
"""

from __future__ import annotations

import argparse
import pkgutil
import posixpath
import re
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import jinja2

import mtl_core
from mtl_core import files
from mtl_study import artifacts, commands, parameters
from mtl_study.publishing import notebooks, pages, questions, searching, slides
from mtl_study.publishing.rendering import TEMPLATES, Around, headed, markdown, to_html
from mtl_study.words import slug

Entry = tuple[str, str]  # a title, and the address of its page from the folder of the edition
DOCS = (  # in the order of the contents, after the methods
    *("cheat_sheet", "glossary", "install", "own_loops", "own_problem", "cluster", "evidence", "bench", "defects"),
    "teaching",
)
METHODS = "docs/methods.md"


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
        ("Slides", "slides/index.html"),
        *((title, address) for address, (title, *_) in documents.items()),
    ]
    api = _api(target)
    if api:
        entries.append(("API of mtl_core", api[0]))
    known = {f"notebooks/{stem.removesuffix('.failed')}.ipynb": f"notebooks/{stem}.html" for stem in read}
    known |= {source: address for address, (*_, source) in documents.items()} | {"REPORT.md": "index.html"}
    known |= {address.removeprefix("api/").removesuffix(".html") + ".py": address for address in api}
    known |= {address.removeprefix("api/").removesuffix(".html"): address for address in api}

    def around(address: str, source: str = "") -> Around:
        up = "../" * address.count("/")
        method = "docs/method-"  # their pages are in the contents of one of them alone
        told = [entry for entry in entries if address.startswith(method) or not entry[1].startswith(method)]
        seen = [(title, "" if other == address else up + other) for title, other in told]
        return Around(seen, up, _links(known, address, source))

    for stem, notebook in read.items():
        address, source = f"notebooks/{stem}.html", f"notebooks/{stem}.ipynb"
        files.write_atomically(target / address, to_html(notebook, stem, around(address, source)))
    template = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True)
    titles = {stem: notebooks.title(notebook) for stem, notebook in read.items()}
    bodies = {
        address: (title, headed(markdown(text, around(address, source).link)), around(address, source))
        for address, (title, text, source) in documents.items()
    }
    asked = questions.body(questions.read(), titles)
    bodies["questions.html"] = (questions.TITLE, asked, around("questions.html"))
    talks = slides.write({stem: read[stem] for stem in read if not stem.endswith(".failed")}, target / "slides")
    told = f"# {slides.TITLE}\n\nMade of the notebooks, for a talk; arrow keys turn them.\n\n{slides.listed(talks)}\n"
    bodies["slides/index.html"] = (slides.TITLE, markdown(told, str), around("slides/index.html"))
    for address, (title, body, here) in bodies.items():
        page = template.get_template("document.html.j2").render(title=title, body=body, around=here)
        files.write_atomically(target / address, page)
    pages.write_index(target, preset, notebooks.find(repository / "notebooks"), around("index.html"))
    searched = [*entries, *((f"API: {a[4:-5].replace('/', '.')}", a) for a in api)]
    searching.write(target, {address: title for title, address in searched})
    page = template.get_template("search.html.j2").render(around=around(searching.PAGE), api=api[0] if api else "")
    files.write_atomically(target / searching.PAGE, page)
    return target / "index.html"


def _links(known: Mapping[str, str], here: str, source: str) -> Callable[[str], str]:
    """Where a link of a page leads to in the edition: to the page that was made of a file, or of a part of it, or to
    another page; "" where to no page.

    Args:
        known: address by file of the repository, or by file#heading. here: the address of the page. source: what it was
            made of.
    """
    addresses, whole = set(known.values()), source.partition("#")[0]

    def link(url: str) -> str:
        to = urlsplit(url)
        if to.scheme:
            return url
        path = posixpath.normpath(posixpath.join(posixpath.dirname(whole), to.path)) if to.path else whole
        part = f"#{to.fragment}" if to.fragment else ""
        address = path if path in addresses else known.get(path, "")
        if part and path + part in known:
            address, part = known[path + part], ""
        if address == here and part:
            return part
        return posixpath.relpath(address, posixpath.dirname(here) or ".") + part if address else ""

    return link


def _documents(folder: Path) -> dict[str, tuple[str, str, str]]:
    """The docs as pages, docs/methods.md as one per method: address → title, Markdown, and the file or the part of it
    that it is made of."""
    found: dict[str, tuple[str, str, str]] = {}
    if (path := folder / "methods.md").exists():
        head, *parts = re.split(r"^(?=## )", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        named = {part.split("\n")[0].removeprefix("## "): part for part in parts}
        linked = {title for title in named if f"](#{slug(title)})" in head}
        about = "".join(part for title, part in named.items() if title not in linked)
        found["docs/methods.html"] = ("Methods", head + about, METHODS)
        found |= {
            f"docs/method-{slug(title)}.html": (title, "#" + part.removeprefix("##"), f"{METHODS}#{slug(title)}")
            for title, part in named.items()
            if title in linked
        }
    for name in DOCS:
        if (path := folder / f"{name}.md").exists():
            text = path.read_text(encoding="utf-8")
            found[f"docs/{name}.html"] = (text.split("\n")[0].removeprefix("# "), text, f"docs/{name}.md")
    return found


def _api(target: Path) -> list[str]:
    """Write the API of mtl_core by pdoc; the addresses of its pages, the first page first."""
    import pdoc

    dark = type(pdoc.render_helpers.formatter)(style="github-dark")
    pdoc.render.env.globals["dark_code"] = dark.get_style_defs(".pdoc-code")
    pdoc.render.configure(docformat="google", show_source=True, template_directory=TEMPLATES / "api")
    modules = [name for _, name, _ in pkgutil.walk_packages(mtl_core.__path__, "mtl_core.")]  # __all__ hides some
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # annotations for type checkers only are shown as written
        pdoc.pdoc("mtl_core", *modules, output_directory=target / "api")
    made = sorted(path.relative_to(target).as_posix() for path in (target / "api" / "mtl_core").rglob("*.html"))
    for address in (found := ["api/mtl_core.html", *made]):
        page = target / address
        files.write_atomically(page, _reachable(page.read_text(encoding="utf-8")))
    return found


def _reachable(page: str) -> str:
    """A page of pdoc for a keyboard and a screen reader: links have names and lead somewhere, what scrolls takes the
    focus, what is called a heading, always by the same id, is text, and the only picture has a size."""
    ids = set(re.findall(r'\bid="([^"]*)"', page))
    page = re.sub(r'<a href="#([^"]*)">(.*?)</a>', lambda link: link[0] if link[1] in ids else link[2], page)
    page = page.replace('alt="pdoc logo"', 'alt="pdoc logo" width="50" height="27"')
    page = re.sub(r'(<a class="headerlink" href="#([^"]*)")>', r'\1 aria-label="Link to \2">', page)
    page = re.sub(r"<h6 id=[^>]*>(.*?)</h6>", r"<p>\1</p>", page)
    return page.replace("<pre>", '<pre tabindex="0">')


@commands.ends((parameters.BadParameters,), failed=(FileNotFoundError,))
def main(arguments: list[str] | None = None) -> int:
    """The command. Returns its exit code: 1 where there is nothing to publish, 2 where there is no such preset."""
    parser = argparse.ArgumentParser(prog="edition", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--preset", default=parameters.SHIPPED, help="whose artifacts; default: shipped")
    given = parser.parse_args(arguments)
    print(f"Open {write(parameters.need(given.preset))}")
    return 0


if __name__ == "__main__":
    commands.run(main)
