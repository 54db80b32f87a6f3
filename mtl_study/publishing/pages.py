"""What a reader opens: artifacts/<preset>/index.html, and REPORT.md, both made of what the notebooks left behind.

A notebook is tied to its figures, tables and claims by its number: figures/01_*.png, tables/01_*.md,
claims/01_mnist_selection.json.
"""

from __future__ import annotations

import html
import importlib.metadata
import io
import json
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import jinja2
import nbconvert.filters
import numpy as np
import pandas as pd
import PIL.Image
import yaml
from nbformat import NotebookNode

from mtl_core import files
from mtl_study import artifacts
from mtl_study.paper import answer, conclusions
from mtl_study.paper.answer import Advice
from mtl_study.paper.claims import BARRED, COLUMNS, NOT_REPRODUCED, OPEN, REPRODUCED, remarks
from mtl_study.publishing import notebooks
from mtl_study.words import minus, untagged

VERSIONS_SHOWN = ("torch", "numpy", "scipy", "pandas")
CLAIM = {"where", "paper", "ours", "rule", *COLUMNS}  # what is shown of a claim, and shipped
TONES = {REPRODUCED: "yes", NOT_REPRODUCED: "no", OPEN: "open", BARRED: "barred"}  # of a verdict's badge
MARKS = (".begun", artifacts.BY_HAND, ".ipynb", ".failed.ipynb")  # of a notebook's state, in artifacts/…/notebooks
WHEN = "%d %B %Y, %H:%M %Z"
State = Literal["done", "failed", "stopped", "not run"]


class NothingToShow(RuntimeError):
    """A report was asked for, and not everything in it is there."""


class Unreadable(RuntimeError):
    """A file that a notebook left behind is damaged, or older than this version."""


@dataclass(frozen=True)
class Picture:
    """A figure or a table: its files without suffix, and the manifest beside them. markdown: the rows of a table."""

    kind: Literal["figure", "table"]
    path: Path
    title: str
    caption: str
    commit: str
    markdown: str = ""

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def html(self) -> str:
        """The rows of a table, as HTML."""
        return nbconvert.filters.markdown2html(self.markdown)


@dataclass(frozen=True)
class Section:
    """What one notebook left behind; its figures and tables in the order in which it shows them.

    state: "stopped" if it was begun and never came to its end. executed: file name of the executed notebook, or of the
    part that was executed before it failed; "" where it was run by hand. page: that of its page. failure: what went
    wrong. missing: the claims that it judges and has no verdict on, where it was begun. found, numbers: its conclusions
    (`conclusions.Conclusions`); silent: it should have some and has none.
    """

    stem: str
    title: str
    state: State
    executed: str = ""
    page: str = ""
    seconds: float | None = None
    failure: str = ""
    pictures: Sequence[Picture] = ()
    claims: Sequence[dict[str, Any]] = ()
    missing: Sequence[str] = ()
    found: Sequence[dict[str, str]] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)
    silent: bool = False

    @property
    def number(self) -> str:
        return self.stem[:2]


def sections(folder: Path, sources: list[Path]) -> list[Section]:
    """One section per notebook, in reading order. One whose files cannot be read counts as failed."""
    found = []
    for source in sources:
        notebook = notebooks.read(source)
        try:
            found.append(_section(folder, source.stem, notebook))
        except Unreadable as error:
            failure, missing = f"{error} Run this notebook again.", notebooks.claims_of(notebook)
            found.append(Section(source.stem, notebooks.title(notebook), "failed", failure=failure, missing=missing))
    return found


def _section(folder: Path, stem: str, notebook: NotebookNode) -> Section:
    place, seconds, failure, executed = folder / "notebooks", None, "", ""
    state: State = "not run"
    pictures, claims = _pictures(folder, notebook, stem[:2]), _claims(folder / "claims" / f"{stem}.json")
    expected = notebooks.claims_of(notebook)
    missing = [id_ for id_ in expected if id_ not in {claim["id"] for claim in claims}]
    found, numbers = _findings(folder / "findings" / f"{stem}.json")
    silent = notebooks.concludes(notebook) and not found
    begun, by_hand, done, failed = (place / f"{stem}{suffix}" for suffix in MARKS)
    if failed.exists():
        state, executed, failure = "failed", failed.name, _executed(failed).metadata.get("failure", "")
    elif done.exists():
        notes = _executed(done).metadata
        state, executed, failure = "done", done.name, notes.get("failure", "")
        seconds = notes.get("papermill", {}).get("duration")
    elif begun.exists():  # by a command that was killed, or still runs
        state = "stopped"
    elif by_hand.exists():  # where nobody says that it has ended: it has when all is there
        absent = set(notebooks.pictures_of(notebook)) - {picture.name for picture in pictures}
        state = "stopped" if missing or absent or silent else "done"
    if state == "stopped":
        at = datetime.fromtimestamp(max(p.stat().st_mtime for p in (begun, by_hand) if p.exists())).astimezone()
        failure = f"Begun on {at.strftime(WHEN)}; it has not come to its end."
    page = Path(executed).with_suffix(".html").name if executed else ""
    return Section(
        stem=stem,
        title=notebooks.title(notebook),
        state=state,
        executed=executed,
        page=page if page and (place / page).exists() else "",
        seconds=seconds,
        failure=failure,
        pictures=pictures,
        claims=claims,
        missing=missing if state != "not run" else (),
        found=found,
        numbers=numbers,
        silent=silent,
    )


def _executed(path: Path) -> NotebookNode:
    try:
        return notebooks.read(path)
    except (notebooks.BadParameters, OSError) as error:
        raise Unreadable(str(error)) from None


def _pictures(folder: Path, notebook: NotebookNode, number: str) -> list[Picture]:
    """Figures and tables in the order in which their names stand in the notebook, of one name the figure first; those
    that it does not name come last. What another command takes away meanwhile is passed over."""
    source = "\n".join(cell.source for cell in notebook.cells)

    def place(path: Path) -> int:
        at = source.find(f'"{path.stem}"')
        return len(source) if at < 0 else at

    figures, tables = (folder / "figures").glob(f"{number}_*.png"), (folder / "tables").glob(f"{number}_*.md")
    pictures = []
    for path in sorted([*sorted(figures), *sorted(tables)], key=place):
        kind: Literal["figure", "table"] = "figure" if path.suffix == ".png" else "table"
        try:
            text = untagged(path.read_text(encoding="utf-8")) if kind == "table" else ""
            note = _load(path.with_suffix(".json"))
            pictures.append(Picture(kind, path.with_suffix(""), note["title"], note["caption"], note["commit"], text))
        except FileNotFoundError:
            continue
        except (KeyError, TypeError):
            raise Unreadable(f"{path.with_suffix('.json')} lacks title, caption or commit.") from None
    return pictures


def _claims(path: Path) -> list[dict[str, Any]]:
    try:
        claims = _load(path)
    except FileNotFoundError:
        return []
    if not (isinstance(claims, list) and all(isinstance(claim, dict) and claim.keys() >= CLAIM for claim in claims)):
        raise Unreadable(f"{path}: a claim lacks one of {', '.join(sorted(CLAIM))}.")
    return claims


def _findings(path: Path) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """The sentences that a notebook ended with, and its numbers; none where there is no such file."""
    try:
        found = _load(path)
        return [{part: str(one[part]) for part in ("says", "against")} for one in found["sentences"]], found["numbers"]
    except FileNotFoundError:
        return [], {}
    except (KeyError, TypeError):
        raise Unreadable(f"{path} lacks sentences or numbers.") from None


def _load(path: Path) -> Any:
    """What a JSON file says. Raises FileNotFoundError where there is none, Unreadable if it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise Unreadable(f"{path} cannot be read ({error}).") from None


# -- the first page ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Front:
    """The first page, for REPORT.md and index.html alike: question, answer, the picture that carries it, what it rests
    on, the guide (each advice with the sections and claims that are its evidence), and how to cite."""

    question: str
    answer: Sequence[str]
    picture: Picture | None
    basis: Mapping[str, str]
    guide: Sequence[tuple[Advice, Sequence[Section], Sequence[str]]]
    cite: str


def front(shown: Sequence[Section], repository: Path = artifacts.REPOSITORY) -> Front:
    """The first page of these sections."""
    found = {section.number: section.numbers for section in shown if section.numbers}
    verdicts = {claim["id"]: claim for section in shown for claim in section.claims}
    pictures = [picture for section in shown for picture in section.pictures if picture.name == answer.PICTURE]
    guide = [
        (
            advice,
            [section for section in shown if section.number in advice.notebooks],
            [id_ for id_ in advice.claims if id_ in verdicts],
        )
        for advice in answer.guide(found, verdicts)
    ]
    return Front(
        answer.QUESTION, answer.answer(found), next(iter(pictures), None), answer.basis(found), guide, _cite(repository)
    )


def _cite(repository: Path) -> str:
    """How to cite the package, and the paper, from CITATION.cff; "" where there is none."""
    path = repository / "CITATION.cff"
    if not path.exists():
        return ""
    own = yaml.safe_load(path.read_text(encoding="utf-8"))
    paper = own["references"][0]
    return (
        f"{own['title']}, version {own['version']} (CITATION.cff); and the paper: {paper['title']}, "
        f"{paper['identifiers'][0]['value']}."
    )


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
        front=front(shown),
        sections=shown,
        broken=[section for section in shown if section.state in ("failed", "stopped")],
        claims=claims,
        verdicts=Counter(claim["verdict"] for claim in claims),
        commit=artifacts.commit(),
        date=datetime.now().astimezone().strftime(WHEN),
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


def write_report(repository: Path, preset: str, sources: list[Path], drop: bool = False) -> Path:
    """Write REPORT.md, the figures that it shows, docs/report/*.png, and the verdicts as data, docs/report/claims.json.
    The same artifacts give the same bytes, and a picture that shows the same stays as it is.

    Args:
        drop: remove what the last report showed and these artifacts lack; without it nothing is written then.

    Raises:
        NothingToShow: a notebook has not been run, or not to its end; a claim, or something that the last report
            showed, is missing.
    """
    folder, place = artifacts.root() / preset, repository / "docs" / "report"
    shown = sections(folder, sources)
    figures = [picture for section in shown for picture in section.pictures if picture.kind == "figure"]
    gone = sorted(path for path in place.glob("*.png") if path.stem not in {figure.name for figure in figures})
    numbers = {section.number for section in shown}
    rows = [{column: claim[column] for column in COLUMNS} for section in shown for claim in section.claims]
    lost = [] if drop else [*(str(path.relative_to(repository)) for path in gone), *_lost(place, rows)]
    if problems := [*_incomplete(shown), *lost]:
        raise NothingToShow(
            f"No report is written, and nothing is removed: {folder} lacks\n  "
            + "\n  ".join(problems)
            + f"\nRun `make reproduce PRESET={preset}` (ONLY={' '.join(sorted(numbers))}) first"
            + ("; `make report DROP=1` leaves out what only the last report has." if lost else ".")
        )
    for figure in figures:
        _keep_or_write(place / f"{figure.name}.png", figure.path.with_suffix(".png").read_bytes())
    for path in gone:
        path.unlink()
    files.write_json(place / "claims.json", rows)
    path = repository / "REPORT.md"
    files.write_atomically(path, untagged("\n\n".join(_report(preset, shown, front(shown, repository)))) + "\n")
    return path


def _incomplete(shown: list[Section]) -> list[str]:
    """What is not there, of all that the notebooks should have left; a line each."""
    words = {"not run": "has not been run", "failed": "failed", "stopped": "was begun and did not come to its end"}
    lines = []
    for section in shown:
        if section.state != "done":
            lines.append(f"{section.stem}: it {words[section.state]}. {section.failure}".rstrip())
        elif section.missing:
            lines.append(f"{section.stem}: no verdict on {', '.join(section.missing)}")
        elif section.silent:
            lines.append(f"{section.stem}: nothing on what it found")
    return lines


def _lost(place: Path, rows: list[dict[str, Any]]) -> list[str]:
    """Verdicts that the last report has and this one would not."""
    try:
        before = [row["id"] for row in json.loads((place / "claims.json").read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    lost = [id_ for id_ in before if id_ not in {row["id"] for row in rows}]
    return [f"the verdict on {id_}, which the last report has" for id_ in lost]


def _keep_or_write(path: Path, content: bytes) -> None:
    """Write a picture, unless that which is there has the same pixels: it keeps its bytes."""
    if not (path.exists() and same_picture(path.read_bytes(), content)):
        files.write_atomically(path, content)


def same_picture(one: bytes, other: bytes) -> bool:
    """Whether two PNG files show the same, pixel by pixel."""
    if one == other:
        return True
    try:
        a, b = (np.asarray(PIL.Image.open(io.BytesIO(content)).convert("RGBA")) for content in (one, other))
    except OSError:
        return False
    return bool(a.shape == b.shape and (a == b).all())


def _first_page(page: Front) -> list[str]:
    """The paragraphs that the report begins with."""
    parts = [page.question]
    if page.answer:
        parts.append("\n".join(f"{i}. {words(sentence)}" for i, sentence in enumerate(page.answer, 1)))
    if page.picture:
        title = words(page.picture.title)
        parts.append(f"![{title}](docs/report/{page.picture.name}.png)")
    if page.basis:
        parts += ["**What it rests on.**", "\n".join(f"* {kind}: {words(text)}." for kind, text in page.basis.items())]
    if page.guide:
        parts += ["## Should I use an SMTO?", "\n".join(_advice(*line) for line in page.guide)]
    if page.cite:
        parts.append(f"**How to cite.** {words(page.cite)}")
    return parts


def _advice(advice: Advice, sections_: Sequence[Section], ids: Sequence[str]) -> str:
    links = [f"[notebook {section.number}](#{_anchor(section)})" for section in sections_]
    links += [f"[{id_}](#verdicts)" for id_ in ids]
    return f"* **{advice.topic}.** {words(advice.says)} ({', '.join(links)})"


def _heading(section: Section) -> str:
    return f"{section.number} · {words(section.title)}"


def _anchor(section: Section) -> str:
    """What a heading is linked by, as GitHub makes it: lower case, hyphens for blanks, no punctuation."""
    kept = "".join(c for c in _heading(section).lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")


def _report(preset: str, shown: list[Section], page: Front) -> list[str]:
    """The paragraphs of the report."""
    claims = [claim for section in shown for claim in section.claims]
    commits = sorted({picture.commit for section in shown for picture in section.pictures})
    parts = [
        f"# What we measured: preset {preset}",
        f"Generated by `make report` from the artifacts of `make reproduce PRESET={preset}`; nothing here is typed by "
        f"hand. Code at commit {', '.join(commits)}.",
        *_first_page(page),
    ]
    if found := [section for section in shown if section.found]:
        parts.append("## What we found")
        for section in found:
            parts += [
                f"**[{_heading(section)}](#{_anchor(section)})**",
                "\n".join(f"* {_found(one)}" for one in section.found),
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
        parts.append(f"## {_heading(section)}")
        for picture in section.pictures:
            title = words(picture.title)
            image = f"![{title}](docs/report/{picture.name}.png)"
            shown_as = image if picture.kind == "figure" else picture.markdown.rstrip()
            parts += [f"### {title}", shown_as, words(picture.caption)]
        if section.claims:
            parts += ["### How the verdicts came about", *(_decision(claim) for claim in section.claims)]
    return [part for part in parts if part]


def _found(sentence: Mapping[str, str]) -> str:
    return conclusions.words({part: words(text) for part, text in sentence.items()})


def words(text: str) -> str:
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
