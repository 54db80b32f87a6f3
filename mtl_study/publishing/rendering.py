"""A notebook as a page that needs no network: formulas are MathML, styles and pictures are inside. Nor does it need a
script; where scripts run, what is live (`mtl_study.teaching.live`) takes the place of its picture.

A picture has its size, so that nothing moves while a page loads, a sentence for those who do not see it, and a link to
the whole of it. Parameters are shown once, with the values of this execution. Of cells tagged "remark", that print
sentences, the sentences are shown and not the code. A cell tagged "solution" is folded, with what it prints. Cells that
publish or judge link to the same in index.html.
"""

from __future__ import annotations

import ast
import base64
import copy
import html
import itertools
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jinja2
import latex2mathml.converter
import nbconvert.filters.markdown_mistune as mistune
from nbconvert import HTMLExporter
from nbconvert.preprocessors import TagRemovePreprocessor
from nbformat import NotebookNode

from mtl_study.publishing import notebooks
from mtl_study.teaching import live
from mtl_study.words import described, slug

TEMPLATES = Path(__file__).parent / "templates"
WORDS = 32  # letters: a cell of a table with more of them is text, whose lines break


class BadFormula(ValueError):
    """A formula with a command that cannot be drawn."""


def inside(url: str) -> str:
    """Where a link leads from a page that left the repository and belongs to no edition: a file of it is not there."""
    return "" if url.startswith("../") else url


@dataclass(frozen=True)
class Around:
    """The edition that a page belongs to, as seen from it; empty for a page that belongs to none.

    entries: titles and addresses of its pages, in order; "" for the page itself. up: the way to its folder. link: where
    a link of the page's source leads to, "" where to nothing.
    """

    entries: Sequence[tuple[str, str]] = ()
    up: str = ""
    link: Callable[[str], str] = inside


ALONE = Around()


def to_html(notebook: NotebookNode, name: str, around: Around = ALONE) -> str:
    """A notebook as a page, with a link back to index.html, and with what stopped it, if something did.

    Raises:
        BadFormula: a formula has a command that latex2mathml does not know.
    """
    exporter = NotebookPage(extra_loaders=[jinja2.FileSystemLoader(TEMPLATES)], template_file="notebook.html.j2")
    exporter.register_preprocessor(TagRemovePreprocessor(remove_input_tags={"remark"}), enabled=True)
    exporter.link = around.link
    shown = prepared(notebook)
    page: str = exporter.from_notebook_node(shown, {"metadata": {"name": name}, "around": around})[0]
    return page.replace('<div class="highlight ', '<div tabindex="0" class="highlight ')  # wide code scrolls by key


class NotebookPage(HTMLExporter):
    """nbconvert's pages, with formulas as MathML."""

    link: Callable[[str], str]  # of `Around`

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.seen: Counter[str] = Counter()

    @jinja2.pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        """Markdown as HTML."""
        return markdown(source, self.link, self.seen)

    def default_filters(self) -> Iterator[Any]:
        """nbconvert's, and one that gives the text of a file of its templates."""
        yield from super().default_filters()
        yield "text_of", lambda name: self.environment.loader.get_source(self.environment, name)[0]


class Renderer(mistune.IPythonRenderer):
    """Markdown's parts as HTML; what a link leads nowhere from is shown as plain text."""

    def __init__(self, leads: Callable[[str], str], seen: Counter[str]) -> None:
        super().__init__(escape=False)
        self.leads, self.seen = leads, seen

    def inline_math(self, body: str) -> str:
        """$…$"""
        return formula(body)

    def block_math(self, body: str) -> str:
        """$$…$$"""
        return f'<span class="formula" tabindex="0">{formula(body, "block")}</span>'

    def latex_environment(self, name: str, body: str) -> str:
        r"""\begin{…}…\end{…}"""
        return self.block_math(f"\\begin{{{name}}}{body}\\end{{{name}}}")

    def heading(self, text: str, level: int, **attrs: Any) -> str:
        """# …"""
        plain = html.unescape(re.sub(r"<[^>]*>", "", text))
        return f'<h{level} id="{html.escape(slug(plain, self.seen))}">{text}</h{level}>\n'

    def link(self, text: str, url: str, title: str | None = None) -> str:
        """[text](url)"""
        to = self.leads(url)
        return str(super().link(text, to, title)) if to else text


def markdown(source: str, leads: Callable[[str], str] = inside, seen: Counter[str] | None = None) -> str:
    """Markdown as HTML, its formulas as MathML.

    Args:
        leads: where a link leads to, "" where to nothing. seen: as of `slug`, where a page has several such parts.
    """
    renderer = Renderer(leads, Counter() if seen is None else seen)
    return str(mistune.MarkdownWithMath(renderer=renderer).render(source))


def headed(page: str) -> str:
    """A page for narrow screens: each cell of a table knows the head of its column and whether it is more than a number
    or a name, and wide code scrolls by key."""

    def cell(found: re.Match[str], head: str) -> str:
        kind = ' class="text"' if len(re.sub(r"<[^>]*>", "", found[2])) > WORDS else ""
        return f'<td data-head="{head}"{kind}{found[1]}'

    def cells(table: re.Match[str]) -> str:
        heads = [re.sub(r"<[^>]*>", "", head) for head in re.findall(r"<th\b[^>]*>(.*?)</th>", table[0], re.DOTALL)]
        column = itertools.cycle(html.escape(html.unescape(head).strip()) for head in heads or [""])
        return re.sub(r"<td\b([^>]*>(.*?)</td>)", lambda m: cell(m, next(column)), table[0], flags=re.DOTALL)

    page = re.sub(r"<table.*?</table>", cells, page, flags=re.DOTALL)
    return page.replace("<pre>", '<pre tabindex="0">')


def formula(tex: str, display: Literal["inline", "block"] = "inline") -> str:
    """A formula in TeX as MathML, which browsers draw by themselves. Raises BadFormula."""
    drawn: str = latex2mathml.converter.convert(" ".join(tex.split()), display=display)
    if unknown := re.search(r"\\[A-Za-z]+", html.unescape(drawn)):
        raise BadFormula(f"latex2mathml does not know {unknown[0]}, which is in the formula {tex.strip()}.")
    return drawn


# -- what is shown of the cells ----------------------------------------------------------------------------------------


def prepared(notebook: NotebookNode) -> NotebookNode:
    """A copy with notes for the template: the title of the page; for each picture size, text and link; for each cell
    what it left in index.html."""
    shown = copy.deepcopy(notebook)
    shown.cells = _parameters_once(shown.cells)
    shown.metadata["title"] = notebooks.title(shown)
    parts = notebooks.judged(shown)
    heading = shown.metadata["title"]
    for cell in shown.cells:
        if cell.cell_type == "markdown":
            heading = (re.findall(r"^#+ (.*)$", cell.source, re.MULTILINE) or [heading])[-1]
        elif cell.cell_type == "code":
            shown_here = [output.get("data", {}) for output in cell.outputs]
            drawn = any("image/png" in data for data in shown_here)
            printed = any(
                "\n| :-" in data.get("text/markdown", "") or "\n| -" in data.get("text/markdown", "")
                for data in shown_here
            )
            figures = notebooks.published(cell) if drawn else []
            tables = notebooks.published(cell, "publish_table") if printed else []
            links = [(name, f"../index.html#{name}") for name in figures]
            links += [(name, f"../index.html#{table_anchor(name)}") for name in tables]
            links += [(id_, f"../index.html#{anchor(id_)}") for id_, (_, at) in parts.items() if at == cell.get("id")]
            cell.metadata["results"] = links
            _note_pictures(cell, figures, heading)
    if any(live.MIME in output.get("data", {}) for cell in shown.cells for output in cell.get("outputs", [])):
        shown.metadata["live"] = {"module": live.module(), "css": live.text("live.css")}
    return shown


def table_anchor(name: str) -> str:
    """The id of a table on the page of results, where a figure may have its name."""
    return f"{name}-table"


def anchor(claim: str) -> str:
    """The id of a claim in index.html."""
    return f"claim-{claim.replace(' ', '-')}"


def _note_pictures(cell: NotebookNode, figures: list[str], heading: str) -> None:
    """Size, text and link of the pictures of a cell. A caption follows its picture, and begins with a title; without
    one the section's heading says what is shown."""
    pictures = [at for at, output in enumerate(cell.outputs) if "image/png" in output.get("data", {})]
    for number, at in enumerate(pictures):
        below = cell.outputs[at + 1].get("data", {}).get("text/markdown", "") if at + 1 < len(cell.outputs) else ""
        title = re.match(r"\*\*(.+?)\.?\*\*(.*)", below, re.DOTALL)
        alt = html.unescape(described(title[1], title[2])) if title else f"Figure: {heading}"
        width, height = size(base64.b64decode(cell.outputs[at].data["image/png"]))
        drawn = {"width": width, "height": height, "alt": alt}
        if len(figures) == len(pictures):
            drawn["whole"] = f"../figures/{figures[number]}.png"
        if live.MIME in cell.outputs[at].data:
            drawn["live"] = cell.outputs[at].data[live.MIME]
        cell.outputs[at].metadata["drawn"] = drawn


def size(png: bytes) -> tuple[int, int]:
    """Width and height of a PNG file in pixels; the first bytes are enough. Raises ValueError if it is none."""
    if png[:8] != b"\x89PNG\r\n\x1a\n" or len(png) < 24:
        raise ValueError("this is no PNG file.")
    return struct.unpack(">II", png[16:24])


def _parameters_once(cells: list[NotebookNode]) -> list[NotebookNode]:
    """The cells without the one that papermill put in: the parameters cell shows its values, with the comments."""
    given = [cell for cell in cells if notebooks.tagged(cell, "injected-parameters")]
    own = [cell for cell in cells if notebooks.tagged(cell, "parameters")]
    if len(given) != 1 or len(own) != 1:
        return cells
    own[0].source = with_values(own[0].source, given[0].source)
    own[0].outputs = [*own[0].outputs, *given[0].outputs]
    return [cell for cell in cells if cell is not given[0]]


def with_values(source: str, given: str) -> str:
    """A parameters cell with the values of another, where they differ; what is not replaced keeps its comments. A table
    is compared entry by entry. A name that the cell lacks is added at its end."""
    values, more = _values(given), []
    code = source.encode()
    begins = [0]
    for line in code.splitlines(keepends=True):
        begins.append(begins[-1] + len(line))
    edits = []
    known = _values(source)
    for name, new in values.items():
        if name in known:
            edits += list(_edits(known[name], new))
        else:
            more.append(f"\n{name} = {ast.get_source_segment(given, new)}")
    for old, new in sorted(edits, key=lambda edit: (edit[0].lineno, edit[0].col_offset), reverse=True):
        start = begins[old.lineno - 1] + old.col_offset
        end = begins[(old.end_lineno or old.lineno) - 1] + (old.end_col_offset or 0)
        code = code[:start] + (ast.get_source_segment(given, new) or "").encode() + code[end:]
    return code.decode() + "".join(more)


def _values(source: str) -> dict[str, ast.expr]:
    """What is assigned to each name."""
    found: dict[str, ast.expr] = {}
    for statement in ast.parse(source).body:
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                found[name] = value
    return found


def _edits(old: ast.expr, new: ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
    """The smallest expressions in which two differ."""
    if ast.dump(old) == ast.dump(new):
        return
    if isinstance(old, ast.Dict) and isinstance(new, ast.Dict):
        ours, theirs = (
            {ast.dump(key): value for key, value in zip(d.keys, d.values, strict=True) if key} for d in (old, new)
        )
        if ours.keys() == theirs.keys():
            for key, value in ours.items():
                yield from _edits(value, theirs[key])
            return
    yield old, new
