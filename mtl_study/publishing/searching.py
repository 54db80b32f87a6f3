"""The search of an edition: what it finds, and the files that its page needs.

The sections of all pages are a script, `search/sections.js`, since a page that is opened from a disk can load scripts
and no other files. What ranks them is MiniSearch (`templates/minisearch.js`: as npm has it, its licence on top), in the
browser.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

from mtl_core import files
from mtl_study.publishing.rendering import TEMPLATES

PAGE = "search.html"
SCRIPTS = ("minisearch.js", "search.js")  # besides the sections
HEADINGS = {"h1", "h2", "h3", "h4", "h5"}
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
INLINE = {"a", "b", "code", "em", "i", "mark", "span", "strong", "sub", "sup", "wbr"}
INLINE |= {"math", "mfrac", "mi", "mn", "mo", "mover", "mrow", "msqrt", "mstyle", "msub", "msubsup", "msup", "mtext"}
UNREAD = {"button", "nav", "script", "select", "style", "svg", "template"}  # tags, and classes:
UNSHOWN = {"anchor-link", "chooser", "jp-InputPrompt", "jp-OutputPrompt", "links", "pdoc-code", "results"}
UNSHOWN |= {"solution", "view-source-button"}


class Passage(NamedTuple):
    """A heading with the text below it. address: of its page, with the id that leads to it."""

    address: str
    page: str
    heading: str
    text: str


def sections(page: str, address: str, title: str) -> list[Passage]:
    """The sections of a page, in their order: what its <main> says, cut at its headings. What pdoc writes has no
    headings for members; a name is one."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    return [
        Passage(f"{address}#{id_}" if id_ else address, title, _flat(heading) or title, _flat(text))
        for id_, heading, text in reader.found
        if _flat([*heading, *text])
    ]


def _flat(pieces: Sequence[str]) -> str:
    return " ".join("".join(pieces).split())


def write(folder: Path, titles: Mapping[str, str]) -> None:
    """Write what the page of the search needs. titles: of the pages that are searched, by address."""
    found = [
        list(section)
        for address, title in titles.items()
        for section in sections((folder / address).read_text(encoding="utf-8"), address, title)
    ]
    lines = ",\n".join(json.dumps(section, ensure_ascii=False) for section in found)
    files.write_atomically(folder / "search" / "sections.js", f"const SECTIONS = [\n{lines}\n];\n")
    for name in SCRIPTS:
        shutil.copyfile(TEMPLATES / name, folder / "search" / name)


class _Reader(HTMLParser):
    """Cuts a page into sections. found: of each the id, and the pieces of heading and text."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, list[str], list[str]]] = []
        self._open: list[tuple[str, str, bool, bool]] = []  # tag, id, whether it is left out, whether it is a heading

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        classes = set((given.get("class") or "").split())
        if tag not in INLINE:
            self.handle_data(" ")
        if tag in VOID:
            return
        id_, unread = given.get("id") or "", self._unread or tag in UNREAD or bool(classes & UNSHOWN)
        heads = not unread and self._within("main") and (tag in HEADINGS or self._names_member(tag, classes))
        if heads:
            ids = (id_, *(other for _, other, *_ in reversed(self._open)))
            self.found.append((next(filter(None, ids), ""), [], []))
        elif tag == "main":
            self.found.append(("", [], []))
        self._open.append((tag, id_, unread, heads))

    def handle_endtag(self, tag: str) -> None:
        if tag not in INLINE:
            self.handle_data(" ")
        if self._within(tag):
            while self._open.pop()[0] != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self.found and self._within("main") and not self._unread:
            _, heading, text = self.found[-1]
            (heading if any(heads for *_, heads in self._open) else text).append(data)

    def _within(self, tag: str) -> bool:
        return any(tag == other for other, *_ in self._open)

    @property
    def _unread(self) -> bool:
        return bool(self._open) and self._open[-1][2]

    def _names_member(self, tag: str, classes: set[str]) -> bool:
        """Whether this is the name of a class, a function or a variable on a page of pdoc."""
        return tag == "span" and "name" in classes and self._open[-1][0] == "div"
