"""What a notebook says about itself.

A notebook has one cell tagged "parameters" that holds literals only; params/<preset>/<notebook>.yaml gives the same
names other values, and `mtl_study.parameters` has the schema of both. Cells tagged "solution" are left out of the
student copy. Of cells tagged "remark", that print sentences about what was measured, a page shows the sentences only.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
from nbconvert.filters import strip_ansi
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from nbformat import NotebookNode

from mtl_study.artifacts import NAME, REPOSITORY, number_of
from mtl_study.execution import has_frontend
from mtl_study.paper import rules
from mtl_study.parameters.checking import BadParameters

if TYPE_CHECKING:
    from IPython.display import Markdown


def reading_list(here: str, folder: Path = REPOSITORY / "notebooks") -> Markdown:
    """Links to the notebooks that exist, in reading order, with their titles.

    Args:
        here: name of the notebook that shows the list; it gets no link there.
    """
    from IPython.display import Markdown

    suffix = ".ipynb" if has_frontend() else ".html"  # an executed notebook has its page next to it
    lines = []
    for path in find(folder):
        heading = title(read(path))
        link = f"{heading} (you are here)" if path.stem == here else f"[{heading}]({path.stem}{suffix})"
        lines.append(f"* {number_of(path.stem)}: {link}")
    return Markdown("\n".join(lines))


def find(folder: Path) -> list[Path]:
    """The notebooks of a folder, in reading order; JupyterLab's copies ("01_…-Copy1.ipynb") are passed over."""
    return sorted(path for path in folder.glob("*.ipynb") if NAME.fullmatch(path.stem))


def read(path: Path) -> NotebookNode:
    """A notebook. Raises BadParameters, naming the file, if it is none."""
    try:
        return nbformat.read(path, as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, UnicodeDecodeError, AttributeError) as error:
        raise BadParameters(f"{path} is no notebook: {(str(error).splitlines() or ['it is empty'])[0]}") from None


def tagged(cell: NotebookNode, tag: str) -> bool:
    """Whether a cell carries a tag."""
    return tag in cell.metadata.get("tags", [])


def title(notebook: NotebookNode) -> str:
    """The first heading."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for line in cell.source.splitlines():
                if line.startswith("# "):
                    return line[2:].strip()
    return "Untitled"


def judged(notebook: NotebookNode) -> dict[str, tuple[str, str]]:
    """The claims that a notebook judges, part by part (what `judge("C3", …)` means in its cells), each with the name of
    the whole claim and the id of the cell."""
    found: dict[str, tuple[str, str]] = {}
    for cell in notebook.cells:
        for call in (call for call in _calls(cell, "judge") if call.args):
            # of `judge(name, …)` in a loop, what is named in the cell
            named = call.args[:1] if isinstance(call.args[0], ast.Constant) else ast.walk(ast.parse(cell.source))
            texts = [str(node.value) for node in named if isinstance(node, ast.Constant)]
            for claim in texts if len(texts) == 1 else [text for text in texts if text in rules.names()]:
                found |= {
                    part: (claim, cell.get("id", "")) for part, _ in rules.named_parts(claim) if part not in found
                }
    return found


def claims_of(notebook: NotebookNode) -> list[str]:
    """The claims that a notebook judges, part by part."""
    return list(judged(notebook))


def minutes(notebook: NotebookNode) -> float:
    """How long a notebook takes to read: 200 words of text per minute, three quarters of a minute for a cell that draws
    a figure, and three seconds for a line of code. Cells tagged "parameters" or "solution" are left out."""
    words = sum(len(cell.source.split()) for cell in notebook.cells if cell.cell_type == "markdown")
    read = [
        cell.source
        for cell in notebook.cells
        if cell.cell_type == "code" and not tagged(cell, "parameters") and not tagged(cell, "solution")
    ]
    lines = sum(bool(line.strip()) for source in read for line in source.splitlines())
    return words / 200 + 0.75 * sum(map(_draws, read)) + lines * 3 / 60


def _draws(source: str) -> bool:
    with suppress(SyntaxError):
        calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
        return any(getattr(call.func, "id", "") == "publish" for call in calls)
    return False


def concludes(notebook: NotebookNode) -> bool:
    """Whether a notebook records what it found: whether a cell calls `conclude`."""
    return any(True for cell in notebook.cells for _ in _calls(cell, "conclude"))


def place_of(notebook: NotebookNode, picture: str) -> tuple[int, str]:
    """The cell that publishes a figure or table, or else the first that names it: its position and its id; after the
    last one, and "", where no cell names it."""
    code = [(at, cell) for at, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    named = [(at, cell) for at, cell in code if f'"{picture}"' in cell.source]
    showing = [(at, cell) for at, cell in named if picture in published(cell) + published(cell, "publish_table")]
    for at, cell in showing + named:
        return at, cell.get("id", "")
    return len(notebook.cells), ""


def pictures_of(notebook: NotebookNode) -> list[str]:
    """The figures and tables that a notebook publishes under a name that is written in its cells, whatever happens."""
    found = []
    for source in (cell.source for cell in notebook.cells if cell.cell_type == "code"):
        with suppress(SyntaxError):
            for statement in ast.parse(source).body:
                call = getattr(statement, "value", None)
                if isinstance(call, ast.Call) and getattr(call.func, "id", "").startswith("publish"):
                    found += [str(arg.value) for arg in call.args[1:2] if isinstance(arg, ast.Constant)]
    return found


def published(cell: NotebookNode, function: str = "publish") -> list[str]:
    """The figures that a cell publishes, in order; with "publish_table" the tables."""
    calls = sorted(_calls(cell, function), key=lambda call: (call.lineno, call.col_offset))
    return [str(call.args[1].value) for call in calls if len(call.args) > 1 and isinstance(call.args[1], ast.Constant)]


def _calls(cell: NotebookNode, function: str) -> Iterator[ast.Call]:
    """The calls `function(…)` and `….function(…)` in a cell; none in one that is no Python."""
    if cell.cell_type == "code":
        with suppress(SyntaxError):
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.Call) and function in (getattr(node.func, n, "") for n in ("attr", "id")):
                    yield node


def without_solutions(notebook: NotebookNode) -> NotebookNode:
    """The notebook that a student gets."""
    return NotebookNode(notebook, cells=[cell for cell in notebook.cells if not tagged(cell, "solution")])


def checks(notebook: NotebookNode) -> list[str]:
    """The exercises that a notebook checks, in order: what `check("edm_weights", …)` names in its cells."""
    return [name for cell in notebook.cells if cell.cell_type == "code" for name in checks_in(cell.source)]


def checks_in(source: str) -> list[str]:
    """The exercises that a cell checks, in order; none in one that is no Python."""
    return [ast.literal_eval(call.args[0]) for call in check_calls(source)]


def check_calls(source: str) -> list[ast.Call]:
    """The calls `check("…", answer)` of a cell, in order."""
    try:
        nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    except SyntaxError:
        return []
    calls = [node for node in nodes if getattr(node.func, "id", "") == "check" and len(node.args) == 2]
    named = [call for call in calls if isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str)]
    return sorted(named, key=lambda call: call.lineno)


def seeds(notebook: NotebookNode) -> list[str]:
    """The seeds that a notebook gives its exercises, in order: what is written in `seeded(…)` in its cells."""
    calls = (call for cell in notebook.cells for call in _calls(cell, "seeded"))
    return [ast.unparse(value) for call in calls for value in (*call.args, *(named.value for named in call.keywords))]


def parameters(path: Path) -> dict[str, Any]:
    """Names and default values in the cell tagged "parameters".

    Raises:
        BadParameters: no such cell or several; a line that is not `name = literal`; a name given twice.
    """
    cells = [cell for cell in read(path).cells if tagged(cell, "parameters")]
    if len(cells) != 1:
        raise BadParameters(f'{path}: expected one cell tagged "parameters", found {len(cells)}.')
    found: dict[str, Any] = {}
    try:
        statements = ast.parse(cells[0].source).body
    except SyntaxError as error:
        raise BadParameters(f"{path}: the parameters cell is no Python: line {error.lineno}: {error.msg}.") from None
    for statement in statements:
        line = ast.unparse(statement)
        try:
            match statement:
                case (
                    ast.Assign(targets=[ast.Name(id=name)], value=value)
                    | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
                ):
                    literal = ast.literal_eval(value)
                case _:
                    raise ValueError
        except ValueError:
            raise BadParameters(
                f"{path}: the parameters cell may only hold lines `name = literal`; this one is not: {line}. What is "
                "computed from parameters belongs into the next cell."
            ) from None
        if name in found:
            raise BadParameters(f"{path}: the parameters cell sets {name} twice.")
        found[name] = literal
    return found


def tidy(notebook: NotebookNode) -> None:
    """Leave the last state of every progress bar, in place; nothing of those that say nothing in the end."""
    CoalesceStreamsPreprocessor().preprocess(notebook, {})
    for cell in notebook.cells:
        if cell.cell_type == "code":
            streams = [output for output in cell.outputs if output.output_type == "stream"]
            for output in streams:
                output.text = strip_ansi(output.text)
            cell.outputs = [o for o in cell.outputs if o.output_type != "stream" or o.text.strip()]
