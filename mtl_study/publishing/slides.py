"""Slides for a talk, made of executed notebooks by nbconvert: reveal.js, formulas as MathML, nothing from a network.

    python -m mtl_study.publishing.slides --preset shipped    writes artifacts/slides/ from artifacts/shipped/

What is a slide is a rule, not a mark in a notebook. A heading begins one; where it is full, another begins under the
same heading. A figure or a table has a slide to itself, with the sentences before it; where these ask for a guess, it
comes a key press later. Of a paragraph the first sentences are shown; of the code what `show_source` prints, and a few
lines with their value. Of the exercises the questions are shown, and nothing that solves them.
"""

from __future__ import annotations

import argparse
import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import jinja2
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mtl_core import files
from mtl_study import artifacts, commands, parameters
from mtl_study.plots import explorer
from mtl_study.publishing import notebooks
from mtl_study.publishing.rendering import TEMPLATES, NotebookPage, inside, prepared
from mtl_study.words import counted

ASSETS = ("reveal.js", "reveal.css", "slides.js", "slides.css")  # next to the slides; the first two as npm has them
TITLE = "Slides"  # of the one that leads to all
FAILED = ".failed.ipynb"  # ends the name of a notebook that was executed in part
HIDDEN = ("parameters", "injected-parameters", "solution")  # cells of which nothing is shown
WORDS, SENTENCES, BEFORE = 130, 42, 60  # at most: on a slide, of a paragraph, before a figure
ROWS, CELLS = 17, 270  # of a table on a slide at most: rows, and words in them
LINES, SHORT = 20, 6  # of code or printed text at most; of code that is shown with its value
WHOLE = ("#", "|", ">", "```", "$$", "**Predict", "**What to look for")  # begin what is shown in full
HEADING = re.compile(r"(#{1,3}) (.*)")  # what begins a slide; one of a lower level is a title of what follows
ENDS = re.compile(r"(?<=[.?!])(?<!Unit\.)(?<!Inst\.)(?<!al\.)\s+(?=[A-Z*`$\"“(])")
ITEM = re.compile(r"^(?=(?:[*-]|\d+\.) )", re.MULTILINE)


def deck(notebook: NotebookNode) -> NotebookNode:
    """The slides of a notebook, as a notebook with nbconvert's marks: a cell is text, or a figure."""
    cells: list[NotebookNode] = []
    heading, held = "", 0  # of this slide: its heading, and the room that is taken below it, in words

    def add(part: NotebookNode, kind: str = "-") -> None:
        part.metadata["slideshow"] = {"slide_type": kind}
        cells.append(part)

    for part in _parts(prepared(notebook)):
        if head := HEADING.match(part.source):
            alone = bool(cells) and HEADING.match(cells[-1].source)  # a heading, and nothing under it yet
            add(part, "slide" if len(head[1]) < 3 else "-" if alone else "subslide")
            heading, held = f"{'#' * max(2, len(head[1]))} {head[2]}", 0
            continue
        figure = part.cell_type == "code"
        led: list[NotebookNode] = []
        if held and (held > BEFORE if figure else held + _room(part) > WORDS):
            while _leads(cells[-1], (led or [part])[0]) and sum(map(_room, [cells[-1], *led])) <= BEFORE:
                led.insert(0, cells.pop())
            if not HEADING.match(cells[-1].source):
                add(new_markdown_cell(heading), "subslide")
            held = sum(map(_room, led))
            for cell in led:
                add(cell)
        guess = "**Predict" in cells[-1].source and (figure or part.source.startswith("|"))
        add(part, "fragment" if guess else "-")
        held += _room(part)
    return NotebookNode(notebook, cells=cells, metadata={**notebook.metadata, "title": notebooks.title(notebook)})


def _room(cell: NotebookNode) -> int:
    """How much room a cell takes, in words: a line of code counts as several, a row of a table too; a figure takes all
    that is left."""
    if cell.cell_type == "code":
        return WORDS + 1
    lines = cell.source.count("\n")
    return max(len(cell.source.split()) * (4 if cell.source.startswith("|") else 8) // 8, 7 * lines)


def _leads(cell: NotebookNode, to: NotebookNode) -> bool:
    """Whether a text belongs on the slide of what follows: before a figure, a table or code, or where it ends in a
    colon."""
    text = cell.source
    if cell.cell_type == "code" or HEADING.match(text) or text.startswith(("|", "```")):
        return False
    return to.cell_type == "code" or to.source.startswith(("#", "|", "```")) or text.endswith(":")


def _parts(notebook: NotebookNode) -> Iterator[NotebookNode]:
    """What is shown of a notebook, in order: headings, paragraphs, items of lists and tables, each as a cell of text,
    and figures, each with its caption."""
    exercises = False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            if cell.source.startswith("## "):
                exercises = cell.source.startswith("## Exercises")
            if not exercises or cell.source.startswith("#"):
                yield from map(new_markdown_cell, texts(cell.source, whole=exercises))
        elif cell.cell_type == "code" and not exercises and not any(notebooks.tagged(cell, tag) for tag in HIDDEN):
            yield from _outputs(cell)


def _outputs(cell: NotebookNode) -> Iterator[NotebookNode]:
    """What is shown of what a cell printed and drew; a value with its code, and not where that is long."""
    figure = None
    for output in cell.outputs:
        data = output.get("data", {})
        if "image/png" in data:
            figure = new_code_cell(outputs=[output])
            yield figure
        elif "text/markdown" in data:
            source = data["text/markdown"]
            if figure and source.startswith("**"):
                figure.metadata["caption"] = shortened(source)
                figure = None
                continue
            found = [text for text in texts(source) if explorer.PAGE not in text]
            if "text/html" in data:  # a verdict: its table, not the rules below it
                found = [text for text in found if text.startswith("|")]
            yield from map(new_markdown_cell, found)
        elif output.output_type == "stream":
            if output.name == "stdout" and output.text.strip() and output.text.count("\n") <= LINES:
                yield new_markdown_cell(f"```\n{output.text.rstrip()}\n```")
        elif output.output_type == "execute_result" and "text/html" not in data and cell.source.count("\n") < SHORT:
            yield new_markdown_cell(f"```python\n{cell.source}\n```")
            yield new_markdown_cell(data.get("text/latex", f"```\n{data['text/plain']}\n```"))


def texts(source: str, whole: bool = False) -> list[str]:
    """Markdown as what fits on slides: tables in parts, the beginning of code, paragraphs and items of lists, shortened
    if not `whole`."""
    blocks: list[str] = []
    for block in re.split(r"\n\s*\n", source.strip()):
        if blocks and (blocks[-1].count("```") % 2 or blocks[-1].count("$$") % 2):
            blocks[-1] += f"\n\n{block}"
        else:
            blocks.append(block)
    found = []
    for block in blocks:
        if block.startswith("#"):
            head, _, rest = block.partition("\n")
            found += [head, *(texts(rest, whole) if rest else [])]
        elif block.startswith("|"):
            found += _tables(block.split("\n"))
        elif block.startswith("```"):
            lines = block.split("\n")
            found.append(block if len(lines) <= LINES + 2 else "\n".join([*lines[: LINES + 1], "…", "```"]))
        else:
            items = [item.strip() for item in ITEM.split(block) if item.strip()]
            found += items if whole else map(shortened, items)
    return found


def _tables(lines: list[str]) -> list[str]:
    """A table in parts that fit, equally long, each under the same head."""
    head, rows = lines[:2], lines[2:]
    words = sum(len(row.split()) - row.count("|") for row in rows)
    length = math.ceil(len(rows) / max(math.ceil(len(rows) / ROWS), math.ceil(words / CELLS), 1)) or 1
    return ["\n".join([*head, *rows[at : at + length]]) for at in range(0, len(rows), length)]


def shortened(paragraph: str) -> str:
    """The first sentences of a paragraph, at least one; and the last, if it leads to what follows."""
    if paragraph.startswith(WHOLE) or "$$" in paragraph or "\\begin" in paragraph:
        return paragraph
    sentences, kept = ENDS.split(paragraph), ""
    for number, sentence in enumerate(sentences):
        broken = kept.count("**") % 2 or kept.count("`") % 2 or kept.count("$") % 2 or kept.count("(") > kept.count(")")
        if number and not broken and len(f"{kept} {sentence}".split()) > SENTENCES:
            break
        kept = f"{kept} {sentence}".strip()
    last = sentences[-1]
    return f"{kept} {last}" if last.rstrip().endswith(":") and not kept.endswith(last) else kept


def to_html(notebook: NotebookNode, link: Callable[[str], str] = inside) -> str:
    """The slides of a notebook as a page.

    Args:
        link: where a link of the notebook leads to, "" where to nothing.

    Raises:
        BadFormula: a formula has a command that latex2mathml does not know.
    """
    loader = jinja2.FileSystemLoader(TEMPLATES)
    exporter = NotebookPage(template_name="reveal", extra_loaders=[loader], template_file="slides.html.j2")
    exporter.link = link
    page: str = exporter.from_notebook_node(deck(notebook))[0]
    return page


def write(read: Mapping[str, NotebookNode], folder: Path) -> dict[str, str]:
    """Write the slides of these notebooks into a folder, with what they need and one that leads to all. Returns title
    by file name."""
    for name in ASSETS:
        files.write_atomically(folder / name, (TEMPLATES / name).read_bytes())
    to = {f"{stem}.ipynb": f"{stem}.html" for stem in read}
    for stem, notebook in read.items():
        page = to_html(notebook, lambda url: url if urlsplit(url).scheme else to.get(url, ""))
        files.write_atomically(folder / f"{stem}.html", page)
    titles = {f"{stem}.html": notebooks.title(notebook) for stem, notebook in read.items()}
    contents = new_notebook(cells=[new_markdown_cell(f"# {TITLE}\n\n{listed(titles)}")])
    files.write_atomically(folder / "index.html", to_html(contents, str))
    return titles


def listed(titles: Mapping[str, str]) -> str:
    """Links to slides, as a list in Markdown."""
    return "\n".join(f"* [{title}]({name})" for name, title in titles.items())


@commands.ends((parameters.BadParameters,), failed=(FileNotFoundError,))
def main(arguments: list[str] | None = None) -> int:
    """The command. Returns its exit code: 1 where nothing was executed, 2 where there is no such preset."""
    parser = argparse.ArgumentParser(prog="slides", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--preset", default=parameters.SHIPPED, help="whose executed notebooks; default: shipped")
    given = parser.parse_args(arguments)
    preset = parameters.need(given.preset)
    folder = artifacts.root() / preset / "notebooks"
    executed = {path.stem: path for path in sorted(folder.glob("*.ipynb")) if not path.name.endswith(FAILED)}
    if not executed:
        raise FileNotFoundError(f"{folder} has no executed notebooks; run `make reproduce PRESET={preset}` first.")
    target = artifacts.root() / "slides"
    shutil.rmtree(target, ignore_errors=True)
    written = write({stem: notebooks.read(path) for stem, path in executed.items()}, target)
    print(f"Wrote the slides of {counted(len(written), 'notebook')}. Open {target / 'index.html'}")
    return 0


if __name__ == "__main__":
    commands.run(main)
