"""The register of differences: what each method reads, what its heads get, its options, and where the method's own
publication, the code released with the main paper and this package differ, and why.

    python -m mtl_study.publishing.methods      writes docs/methods.md
    methods.table()                 the methods at a glance, a row each
    methods.show("nash_mtl")        one method's page, in a notebook

Nothing is written twice: the pages are the docstrings of the files in mtl_core/smtos, and the tables are read off the
classes.
"""

from __future__ import annotations

import ast
import inspect
import json
import math
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import pandas as pd

from mtl_core import files, smtos
from mtl_core.smtos.base import SMTO
from mtl_study import artifacts, commands, own_loops
from mtl_study.look import in_order, label
from mtl_study.teaching import guarantees
from mtl_study.words import slug

if TYPE_CHECKING:
    from IPython.display import Markdown

TARGET = artifacts.REPOSITORY / "docs" / "methods.md"
READS = {"losses": "losses", "features": "gradients on the features", "parameters": "gradients on the parameters"}
HEADS = {
    "plain": "their own gradient",
    "mean": "their own gradient / K",
    "weighted": "their own gradient × the task's weight",
    "scaled": "the gradient of the scaled loss",
}
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


class BadPage(ValueError):
    """The docstring of a method's file lacks a part."""


@dataclass(frozen=True)
class Page:
    """One file of mtl_core/smtos: a method, or variants of one.

    keys: of the methods, in order of display. summary: what they do. text: the formula (indented) and remarks. source:
    where they were published. differs: where the source, the released code and this package differ, one entry each.
    """

    file: str
    keys: tuple[str, ...]
    summary: str
    text: str
    source: str
    differs: tuple[str, ...]


# -- reading the files -------------------------------------------------------------------------------------------------


def pages() -> list[Page]:
    """All files, in the order in which figures show their methods. Raises BadPage."""
    modules: dict[str, list[str]] = {}
    for key in in_order(smtos.keys()):
        modules.setdefault(smtos.get(key).__module__, []).append(key)
    return [page(module, keys) for module, keys in modules.items()]


def page(module: str, keys: Iterable[str]) -> Page:
    """The page of the methods in one module. Raises BadPage, naming the file and the part that it lacks."""
    file = module.replace(".", "/") + ".py"
    return parse(inspect.getdoc(sys.modules[module]) or "", file, tuple(keys))


def parse(docstring: str, file: str, keys: tuple[str, ...]) -> Page:
    """A docstring of the form: what it does, formula and remarks, "Source:", "Differs:" with a numbered list."""
    form = r"(?P<summary>.+?)\n\n(?P<text>.*?)\n*^Source: (?P<source>.+?)\n^Differs:\n(?P<differs>1\. .+)"
    found = re.fullmatch(form, docstring, re.DOTALL | re.MULTILINE)
    if found is None:
        raise BadPage(
            f"{file}: expected a docstring with what the method does, an empty line, its formula, then lines beginning "
            '"Source: " and "Differs:", and below that a list from "1. " on.'
        )
    differs = re.split(r"^\d+\. ", found["differs"], flags=re.MULTILINE)[1:]
    return Page(file, keys, flat(found["summary"]), found["text"], flat(found["source"]), tuple(map(flat, differs)))


def flat(text: str) -> str:
    """A paragraph in one line."""
    return " ".join(text.split())


def options(key: str) -> pd.DataFrame:
    """The options of a method: a row each, with default, values and what it does."""
    documented: dict[str, str] = {}
    for parent in smtos.get(key).__mro__:
        if issubclass(parent, SMTO):
            documented = described(parent.__doc__ or "") | documented
    rows = [
        {
            "option": name,
            "default": literal(parameter.default),
            "values": values(parameter.annotation),
            "what it does": documented.get(name, ""),
        }
        for name, parameter in smtos.options(key).items()
    ]
    return pd.DataFrame(rows, columns=["option", "default", "values", "what it does"])


def described(docstring: str) -> dict[str, str]:
    """The lines "name: what it does" below "Options:" in the docstring of a class."""
    _, _, below = inspect.cleandoc(docstring).partition("Options:\n")
    found = re.findall(r"^(\w+): (.+(?:\n +.+)*)", below, re.MULTILINE)
    return {name: flat(text) for name, text in found}


def literal(value: Any) -> str:
    """A value as it is written in Python, with double quotes."""
    return json.dumps(value) if isinstance(value, str) else repr(value)


def values(annotation: Any) -> str:
    """What an option may be, in words: "number ≥ 0", '"mean" or "sum"'."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(map(literal, inner))
    if origin is Annotated:
        bounds = [f"{sign} {getattr(m, b):g}" for m in inner[1].metadata for b, sign in BOUNDS.items() if hasattr(m, b)]
        return f"{values(inner[0])} {', '.join(bounds)}"
    if origin in (Union, UnionType):
        return " or ".join(values(one) for one in inner)
    if origin is list:
        return f"list of: {values(inner[0])}"
    if origin is dict:
        return "names with values"
    return {float: "number", int: "whole number", bool: "true or false", str: "text", NoneType: "None"}[annotation]


def cited(source: str) -> str:
    """The first publication that a source names, short: "Navon et al. 2022"."""
    found = re.search(r"([A-ZÀ-Þ][^;:()]*?)(?: et al\.)? (\d{4})", source)
    if found is None:
        return source
    authors = re.split(r", | and ", found[1])
    several = len(authors) > 2 or " et al." in found[0]
    return f"{authors[0]} et al. {found[2]}" if several else f"{' and '.join(authors)} {found[2]}"


# -- showing them ------------------------------------------------------------------------------------------------------


def table() -> pd.DataFrame:
    """The methods at a glance.

    Returns:
        A row per method, in order of display: its key, what it reads, what its heads get, how long its update is, its
        options with their defaults, its source, and how many differences its page names.
    """
    rows = []
    for one in pages():
        for key in one.keys:
            smto = smtos.get(key)
            defaults = zip(*(options(key)[column] for column in ("option", "default")), strict=True)
            rows.append(
                {
                    "method": label(key),
                    "key": key,
                    "reads": READS.get(smto.space, smto.space),
                    "its heads get": HEADS[smto.head_policy],
                    "size of the update": smto.native_scale,
                    "options": ", ".join(f"{name}={default}" for name, default in defaults),
                    "source": cited(one.source),
                    "differences": len(one.differs),
                }
            )
    frame = pd.DataFrame(rows).set_index("key").loc[in_order(smtos.keys())].reset_index().set_index("method")
    frame.attrs["caption"] = (
        "Read from the methods' own files, mtl_core/smtos; docs/methods.md has a page for each. K is the number of "
        "tasks."
    )
    return frame


def promises() -> pd.DataFrame:
    """What every method that is a function of the Gramian guarantees, by the smallest counterexample, if there is one:
    of two tasks, or else of three."""
    found = guarantees.table()
    cells = {
        promise: [next((text for text in found.loc[key, promise] if text), "–") for key in in_order(found.index)]
        for promise in guarantees.BROKEN
    }
    return pd.DataFrame(cells, index=pd.Index([label(key) for key in in_order(found.index)], name="method"))


def show(key: str) -> Markdown:
    """The page of one method, for a notebook. Raises BadOption, naming the nearest, if there is no such method."""
    from IPython.display import Markdown

    known = smtos.get(key).key
    text = section(next(one for one in pages() if known in one.keys))
    return Markdown(f"##{text}")  # a heading below those of the notebook


def section(one: Page) -> str:
    """A page as Markdown."""
    names = ", ".join(label(key) for key in one.keys)
    parts = [f"## {names}", f"[`{one.file}`](../{one.file})", one.summary, blocks(one.text)]
    parts.append(f"**Source:** {one.source}")
    parts.append("**Where source, released code and this package differ:**")
    parts.append("\n".join(f"{i}. {difference}" for i, difference in enumerate(one.differs, start=1)))
    facts = [
        {
            "key": f"`{key}`",
            "reads": READS.get(smtos.get(key).space, smtos.get(key).space),
            "its heads get": HEADS[smtos.get(key).head_policy],
            "size of the update": smtos.get(key).native_scale,
        }
        for key in one.keys
    ]
    parts.append(artifacts.to_markdown(pd.DataFrame(facts)))
    alike: dict[str, list[str]] = {}  # an options' table → the keys that have it
    for key in one.keys:
        if len(frame := options(key)):
            columns = {column: [f"`{cell}`" for cell in frame[column]] for column in ("option", "default")}
            alike.setdefault(artifacts.to_markdown(frame.assign(**columns)), []).append(key)
    for text, keys in alike.items():
        whose = "" if len(alike) == 1 and len(keys) == len(one.keys) else f" of {', '.join(f'`{key}`' for key in keys)}"
        parts.append(f"Options{whose}:\n\n{text}")
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


def blocks(text: str) -> str:
    """Paragraphs as they are, indented lines as code."""

    def fence(run: re.Match[str]) -> str:
        return f"\n```text\n{inspect.cleandoc(run[0])}\n```\n\n"

    fenced = re.sub(r"(?:^ {4}.*\n?)+", fence, text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", fenced).strip()


INTRODUCTION = """\
# Methods, and where their codes differ

Made by `python -m mtl_study.publishing.methods` from the files in
[`mtl_core/smtos`](../mtl_core/smtos); change those, not this.

Three versions of a method can differ: what its **source** published (its text and its authors' code), the code
**released** with the main paper (Gama and Grassi 2025, arXiv:2505.10347), and **this package**. Where the released
code has a mistake or an approximation, the default here is the method as its source has it, and the released behaviour
is an option, so that the two can be compared. Where it made a choice (a sum or a mean, the value of an option), the
default is mostly that choice, and the source's is the option. Each page names all known differences and why they are
there. Numbers such as D24 refer to [the list of defects](defects.md).

g_k is the gradient of task k, L_k its loss, z the shared features, K the number of tasks, w_k the weight of g_k in the
update. A head's "own gradient" is that of its unweighted loss.
"""


class Agreement(NamedTuple):
    """A test that compares methods with something else. digits: to how many; None: what is compared is not a number."""

    oracle: str
    methods: tuple[str, ...]
    digits: int | None
    test: str


DEFAULTS = {"assert_allclose": 1e-7, "assert_close": 1.3e-6}  # relative, of numpy and of torch


def agreements(folder: Path = artifacts.REPOSITORY / "tests" / "mtl_core") -> list[Agreement]:
    """What is marked `agrees` in the tests, read off their files. The digits are those of the widest tolerance in the
    test, unless the mark names others."""
    found = []
    for path in sorted(folder.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef):
                continue
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.agrees":
                    oracle, *keys = (ast.literal_eval(argument) for argument in mark.args)
                    said = {word.arg: ast.literal_eval(word.value) for word in mark.keywords}
                    found.append(Agreement(oracle, tuple(keys), said.get("digits", digits(node)), node.name))
    return found


def digits(test: ast.FunctionDef) -> int | None:
    """To how many digits a test compares numbers, at least; None where it compares none."""
    widest = [0.0]
    for call in ast.walk(test):
        if isinstance(call, ast.Call) and (default := DEFAULTS.get(ast.unparse(call.func).split(".")[-1])):
            given = {word.arg: _number(word.value) for word in call.keywords if word.arg in ("rtol", "atol")}
            relative = given.get("rtol", 0.0 if default > 1e-7 and "atol" in given else default)
            widest.append(max(relative, given.get("atol", 0.0)))
    return math.floor(-math.log10(max(widest))) if max(widest) else None


def _number(tolerance: ast.expr) -> float:
    """The largest number in it: a tolerance may be one times something."""
    constants = [part.value for part in ast.walk(tolerance) if isinstance(part, ast.Constant)]
    return max((float(value) for value in constants if isinstance(value, int | float)), default=0.0)


def agreed() -> pd.DataFrame:
    """Every method and what it agrees with, a row each."""
    found = agreements()
    rows = [
        {"method": label(key), "agrees with": one.oracle, "digits": one.digits, "test": f"`{one.test}`"}
        for key in in_order(smtos.keys())
        for one in found
        if key in one.methods
    ]
    return pd.DataFrame(rows).set_index("method").astype({"digits": "Int64"})


def needs() -> pd.DataFrame:
    """What each method needs in your own loop."""
    cells = [", ".join(f"`{need}`" for need in own_loops.method(key).required()) for key in in_order(smtos.keys())]
    return pd.DataFrame({"needs": cells}, index=pd.Index(map(label, in_order(smtos.keys())), name="method"))


def loops(ways: Sequence[str]) -> pd.DataFrame:
    """To how many digits your own loop takes the trainer's gradients, by method and way of training."""
    keys = in_order(smtos.keys())
    cells = {way: [own_loops.digits(key, way) or "refused" for key in keys] for way in ways}
    return pd.DataFrame(cells, index=pd.Index(map(label, keys), name="method"))


LOOPS = """\
## In a loop of your own

What `mtl_core.Balancer` must be given besides losses and shared parameters ([docs/own_loops.md](own_loops.md)), and to
how many digits its gradients are those of the trainer's step: in the plain loop; with two parts per step; with tasks
missing from batches; saved, and restored in new objects; with the forward pass in bfloat16 on the CPU; likewise with a
GradScaler; in two processes with half a batch each. Digits are of the largest entry, over six steps, on three tasks.
`tests/mtl_study/test_own_loops.py` measures every cell.
"""

NETWORKS = """\
Likewise with clipped gradients and a step size that falls every epoch, of which the method is told; with a batch and a
forward pass for each task; with a layer frozen before the fourth step; with an encoder that is checkpointed, or
compiled (torch's `aot_eager`, which needs no compiler of C++; one method is tested with torch's own); with network and
data in bfloat16; with a transformer, dropout included; and with an LSTM whose features come in a dict with a list in
it. Three methods look at one tensor of features and refuse several, three remember each shared parameter and refuse
others, in words.
"""

AGREEMENTS = """\
## What each agrees with

Read off the tests, which are marked for it. The digits are those of the widest tolerance of the whole test, so that
most comparisons are closer. In addition, every method is compared with plain automatic differentiation on random
networks (`tests/mtl_core/test_networks.py`), and the K×K solvers with scipy and cvxpy
(`tests/mtl_core/smtos/test_solvers.py`).
"""

GUARANTEES = """\
## What each guarantees

A counterexample is one gradient per task, in the plane. "–": there is none among all problems of two tasks with
coordinates from −2 to 2 and of three tasks with coordinates from −1 to 1. That is no proof, but a method that breaks a
promise mostly does so in small problems. All losses are 1; every method has its default options and no memory, and
PCGrad and GradVac meet the tasks in their order. A point is stationary where 0 is in the convex hull of the gradients.
For a change of unit the loss and the gradient of one task are four times as large.
"""


def markdown() -> str:
    """The whole of docs/methods.md."""
    frame = table()
    anchors = {key: slug(", ".join(label(k) for k in one.keys)) for one in pages() for key in one.keys}
    frame.index = pd.Index([f"[{name}](#{anchors[key]})" for name, key in frame.key.items()], name="method")
    frame["key"], frame["options"] = frame.key.map("`{}`".format), frame.options.map(lambda t: f"`{t}`" if t else "")
    tables = [
        LOOPS,
        artifacts.to_markdown(pd.concat([needs(), loops(own_loops.TABLES[0])], axis=1)),
        NETWORKS,
        artifacts.to_markdown(loops(own_loops.TABLES[1])),
        AGREEMENTS,
        artifacts.to_markdown(agreed()),
        GUARANTEES,
        artifacts.to_markdown(promises()),
    ]
    return "\n".join([INTRODUCTION, artifacts.to_markdown(frame), *tables, *map(section, pages())])


def main(target: Path = TARGET) -> None:
    files.write_atomically(target, markdown())
    print(f"Wrote {target}")


if __name__ == "__main__":
    commands.run(main)
