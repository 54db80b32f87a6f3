"""What a reader opens: artifacts/<preset>/index.html, and REPORT.md, both made of what the notebooks left behind.

A notebook is tied to its figures, tables and claims by its number: figures/01_*.png, tables/01_*.md,
claims/01_mnist_selection.json.
"""

from __future__ import annotations

import html
import importlib.metadata
import json
import platform
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import jinja2
import nbconvert.filters
import pandas as pd
from nbformat import NotebookNode

from mtl_core import files
from mtl_study import artifacts
from mtl_study.paper.claims import BARRED, COLUMNS, NOT_REPRODUCED, OPEN, REPRODUCED, remarks
from mtl_study.publishing import notebooks
from mtl_study.words import minus, untagged

VERSIONS_SHOWN = ("torch", "numpy", "scipy", "pandas")
CLAIM = {"where", "paper", "ours", "rule", *COLUMNS}  # what is shown of a claim, and shipped
TONES = {REPRODUCED: "yes", NOT_REPRODUCED: "no", OPEN: "open", BARRED: "barred"}  # of a verdict's badge
State = Literal["done", "failed", "not run"]


class NothingToShow(RuntimeError):
    """A report was asked for before everything in it has been run."""


class Unreadable(RuntimeError):
    """A file that a notebook left behind is damaged, or older than this version."""


@dataclass(frozen=True)
class Picture:
    """A figure or a table: its files without suffix, and the note beside them."""

    kind: Literal["figure", "table"]
    path: Path
    title: str
    caption: str
    commit: str

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def markdown(self) -> str:
        """The rows of a table; nothing in them is an HTML tag."""
        return untagged(self.path.with_suffix(".md").read_text(encoding="utf-8"))

    @property
    def html(self) -> str:
        """The rows of a table, as HTML."""
        return nbconvert.filters.markdown2html(self.markdown)


@dataclass(frozen=True)
class Section:
    """What one notebook left behind; its figures and tables in the order in which it shows them.

    executed: file name of the executed notebook, or of the part that was executed before it failed. failure: what went
    wrong.
    """

    stem: str
    title: str
    state: State
    executed: str = ""
    seconds: float | None = None
    failure: str = ""
    pictures: Sequence[Picture] = ()
    claims: Sequence[dict[str, Any]] = ()

    @property
    def number(self) -> str:
        return self.stem[:2]


def sections(folder: Path, sources: list[Path]) -> list[Section]:
    """One section per notebook, in reading order. One whose files cannot be read counts as failed."""
    found = []
    for source in sources:
        try:
            found.append(_section(folder, source))
        except Unreadable as error:
            title = notebooks.title(notebooks.read(source))
            found.append(Section(source.stem, title, "failed", failure=f"{error} Run this notebook again."))
    return found


def _section(folder: Path, source: Path) -> Section:
    stem, seconds, failure, notebook = source.stem, None, "", notebooks.read(source)
    state: State = "not run"
    done, failed = (folder / "notebooks" / f"{stem}{suffix}" for suffix in (".ipynb", ".failed.ipynb"))
    if failed.exists():
        state, failure = "failed", notebooks.read(failed).metadata.get("failure", "")
    elif done.exists():
        state, seconds = "done", notebooks.read(done).metadata.get("papermill", {}).get("duration")
    return Section(
        stem=stem,
        title=notebooks.title(notebook),
        state=state,
        executed={"done": done.name, "failed": failed.name, "not run": ""}[state],
        seconds=seconds,
        failure=failure,
        pictures=_pictures(folder, notebook, stem[:2]),
        claims=_claims(folder / "claims" / f"{stem}.json"),
    )


def _pictures(folder: Path, notebook: NotebookNode, number: str) -> list[Picture]:
    """Figures and tables in the order in which their names stand in the notebook, of one name the figure first; those
    that it does not name come last."""
    source = "\n".join(cell.source for cell in notebook.cells)

    def place(path: Path) -> int:
        at = source.find(f'"{path.stem}"')
        return len(source) if at < 0 else at

    figures, tables = (folder / "figures").glob(f"{number}_*.png"), (folder / "tables").glob(f"{number}_*.md")
    pictures = []
    for path in sorted([*sorted(figures), *sorted(tables)], key=place):
        kind: Literal["figure", "table"] = "figure" if path.suffix == ".png" else "table"
        note = _load(path.with_suffix(".json"))
        try:
            pictures.append(Picture(kind, path.with_suffix(""), note["title"], note["caption"], note["commit"]))
        except (KeyError, TypeError):
            raise Unreadable(f"{path.with_suffix('.json')} lacks title, caption or commit.") from None
    return pictures


def _claims(path: Path) -> list[dict[str, Any]]:
    claims = _load(path) if path.exists() else []
    if not (isinstance(claims, list) and all(isinstance(claim, dict) and claim.keys() >= CLAIM for claim in claims)):
        raise Unreadable(f"{path}: a claim lacks one of {', '.join(sorted(CLAIM))}.")
    return claims


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Unreadable(f"{path} cannot be read ({error}).") from None


def clear(folder: Path, stem: str) -> None:
    """Remove what an earlier execution of a notebook left in an artifacts folder. Raises CannotWrite if that fails."""
    patterns = (f"figures/{stem[:2]}_*", f"tables/{stem[:2]}_*", f"claims/{stem}.json", f"notebooks/{stem}.*")
    for pattern in patterns:
        for path in folder.glob(pattern):
            try:
                path.unlink()
            except OSError as error:
                raise files.CannotWrite(error.errno, f"cannot remove {path}: {error.strerror}") from error


# -- index.html and claims.json ----------------------------------------------------------------------------------------


def write_index(folder: Path, preset: str, sources: list[Path]) -> None:
    """Bring claims.json and index.html up to date with what lies in the folder."""
    shown = sections(folder, sources)
    claims = [claim for section in shown for claim in section.claims]
    files.write_json(folder / "claims.json", claims)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"tone": TONES.get, "value": value, "remarks": remarks}
    page = environment.get_template("index.html.j2").render(
        preset=preset,
        sections=shown,
        claims=claims,
        verdicts=Counter(claim["verdict"] for claim in claims),
        commit=artifacts.commit(),
        date=datetime.now().astimezone().strftime("%d %B %Y, %H:%M %Z"),
        versions={
            "Python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in VERSIONS_SHOWN},
        },
    )
    files.write_atomically(folder / "index.html", page)


def value(x: Any) -> str:
    """A value of a claim as text: numbers to four digits, a dash for what is missing."""
    if x is None:
        return "–"
    if isinstance(x, float):
        return minus(f"{x:.4g}")
    if isinstance(x, list):
        return ", ".join(value(item) for item in x)
    if isinstance(x, dict):
        return ", ".join(f"{name}: {value(item)}" for name, item in x.items())
    return str(x)


# -- REPORT.md ---------------------------------------------------------------------------------------------------------


def write_report(repository: Path, preset: str, sources: list[Path]) -> Path:
    """Write REPORT.md, the figures that it shows, docs/report/*.png, and the verdicts as data, docs/report/claims.json.
    The same artifacts give the same bytes.

    Raises:
        NothingToShow: the preset has not been run.
    """
    shown = [section for section in sections(artifacts.folder(preset), sources) if section.state != "not run"]
    if not shown:
        raise NothingToShow(
            f"{artifacts.folder(preset)} holds no executed notebook; run `make reproduce PRESET={preset}` first."
        )
    failed = [section.stem for section in shown if section.state == "failed"]
    if failed:
        raise NothingToShow(f"no report is written while a notebook has failed: {', '.join(failed)}.")
    figures = repository / "docs" / "report"
    if figures.exists():
        shutil.rmtree(figures)
    for section in shown:
        for figure in (picture for picture in section.pictures if picture.kind == "figure"):
            files.write_atomically(figures / f"{figure.name}.png", figure.path.with_suffix(".png").read_bytes())
    rows = [{column: claim[column] for column in COLUMNS} for section in shown for claim in section.claims]
    files.write_json(figures / "claims.json", rows)
    path = repository / "REPORT.md"
    files.write_atomically(path, untagged("\n\n".join(_report(preset, shown))) + "\n")
    return path


def _report(preset: str, shown: list[Section]) -> list[str]:
    """The paragraphs of the report."""
    claims = [claim for section in shown for claim in section.claims]
    commits = sorted({picture.commit for section in shown for picture in section.pictures})
    parts = [
        f"# What we measured: preset {preset}",
        f"Generated by `make report` from the artifacts of `make reproduce PRESET={preset}`; nothing here is typed by "
        f"hand. Code at commit {', '.join(commits)}.",
    ]
    if claims:
        counts = Counter(claim["verdict"] for claim in claims)
        counted_ = [f"{counts[verdict]} {verdict}" for verdict in TONES if counts[verdict]]
        parts += ["## Verdicts", f"{'; '.join(counted_)}. As data: [claims.json](docs/report/claims.json)."]
        parts += [
            _claims_table(claims),
            "How each came about stands at the end of its section, and on which data. What is said of Cityscapes is "
            "decided by Cityscapes only: a row that rests on synthetic streets cannot be judged. An open row says what "
            "would settle it: how many seeds more would do so in four cases of five, if mean and spread are what they "
            "seem, and how long they take, as in the records.",
        ]
    for section in shown:
        parts.append(f"## {section.number} · {_words(section.title)}")
        for picture in section.pictures:
            title = _words(picture.title)
            image = f"![{title}](docs/report/{picture.name}.png)"
            shown_as = image if picture.kind == "figure" else picture.markdown.rstrip()
            parts += [f"### {title}", shown_as, _words(picture.caption)]
        if section.claims:
            parts += ["### How the verdicts came about", *(_decision(claim) for claim in section.claims)]
    return [part for part in parts if part]


def _words(text: str) -> str:
    """Plain text as Markdown that shows it as it is."""
    return html.escape(text, quote=False).replace("[", r"\[").replace("]", r"\]")


def _claims_table(claims: list[dict[str, Any]]) -> str:
    columns = {"id": "Claim", "says": "Statement", "paper": "Paper", "ours": "We measured", "n": "n"}
    columns |= {"verdict": "Verdict"}
    rows = [{head: value(claim[column]) for column, head in columns.items()} for claim in claims]
    for row, claim in zip(rows, claims, strict=True):
        row["Verdict"] += f": {claim['settles']}" if claim["verdict"] == OPEN and claim["settles"] else ""
    return artifacts.to_markdown(pd.DataFrame(rows)).rstrip()


def _decision(claim: dict[str, Any]) -> str:
    """How a verdict came about."""
    beneath = "; ".join(remarks(claim))
    text = f"**{claim['id']}** ({claim['where']}): {claim['verdict']}, {beneath}. Rule: {claim['rule']}"
    return text.rstrip(".") + "."
