"""What a reader opens: artifacts/<preset>/index.html, made of what the notebooks left behind; `report` makes REPORT.md
of the same.

A notebook is tied to its figures, tables and claims by its number: figures/01_*.png, tables/01_*.md,
claims/01_mnist_selection.json. From a claim it is one link to each figure that shows it, to its cell and its records,
and back.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import jinja2
import yaml
from nbformat import NotebookNode

from mtl_core import files
from mtl_study import artifacts
from mtl_study.paper import answer, rules
from mtl_study.paper.answer import Advice, Said
from mtl_study.paper.claims import BARRED, COLUMNS, NOT_REPRODUCED, OPEN, REPRODUCED, remarks
from mtl_study.paper.says import Says, says
from mtl_study.parameters import SHIPPED
from mtl_study.plots import explorer
from mtl_study.publishing import notebooks
from mtl_study.publishing.rendering import ALONE, TEMPLATES, Around, anchor, headed, markdown, size, table_anchor
from mtl_study.words import described, listed, minus, untagged

DENSITY = 1.5  # pixels of a figure per pixel of a page
VERSIONS_SHOWN = ("torch", "numpy", "scipy", "pandas")
CLAIM = {"where", "paper", "ours", "rule", *COLUMNS}  # what is shown of a claim, and shipped
TONES = {REPRODUCED: "yes", NOT_REPRODUCED: "no", OPEN: "open", BARRED: "barred"}  # of a verdict's badge
MARKS = (".begun", artifacts.BY_HAND, ".ipynb", ".failed.ipynb")  # of a notebook's state, in artifacts/…/notebooks
SHIPS = Path("docs", "report", "claims.json")  # the verdicts of the report
READING = ("verdict", "estimate", "low", "high", "unit", "n", "of", "why", "settles")
WHEN = "%d %B %Y, %H:%M %Z"
State = Literal["done", "failed", "stopped", "not run"]


class Unreadable(RuntimeError):
    """A file that a notebook left behind is damaged, or older than this version."""


@dataclass(frozen=True)
class Picture:
    """A figure or a table: its files without suffix, and what its manifest says.

    cell: the id of the cell that publishes it, "" where none names it. preset: that of its notebook. markdown: the rows
    of a table. size: width and height of a figure on a page, in pixels. records: the places of the run records that it
    rests on."""

    kind: Literal["figure", "table"]
    path: Path
    title: str
    caption: str
    commit: str
    preset: str = ""
    cell: str = ""
    markdown: str = ""
    size: tuple[int, int] = (0, 0)
    records: Sequence[str] = ()

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def alt(self) -> str:
        """What it shows, for those who do not see it."""
        return described(self.title, self.caption)

    @property
    def short(self) -> str:
        """What a link in a sentence calls it: "Figure 1" of "Figure 1: all methods on CL_RR", else "figure in 05b"."""
        head = self.title.partition(":")[0]
        plain = f"{self.kind} in {artifacts.number_of(self.name)}"
        return head if head.startswith(("Figure", "Table")) else plain

    @property
    def anchor(self) -> str:
        """Its id on the page of results; a table may have the name of a figure."""
        return table_anchor(self.name) if self.kind == "table" else self.name

    @property
    def html(self) -> str:
        """The rows of a table, as HTML."""
        return headed(markdown(self.markdown))


@dataclass(frozen=True)
class Section:
    """What one notebook left behind; its figures and tables in the order in which it shows them.

    state: "stopped" if it was begun and never came to its end. judged: each claim that it judges, part by part, with
    the name of the whole claim and the id of the cell. executed: file name of the executed notebook, or of the
    part that was executed before it failed; "" where it was run by hand. page: that of its page. failure: what went
    wrong. missing: the claims that it judges and has no verdict on, where it was begun. found, numbers: its conclusions
    (`conclusions.Conclusions`); silent: it should have some and has none. explored: the problems that its readers can
    explore (`plots.explorer`).
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
    judged: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    found: Sequence[dict[str, str]] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)
    silent: bool = False
    explored: Sequence[dict[str, Any]] = ()

    @property
    def number(self) -> str:
        return artifacts.number_of(self.stem)

    @property
    def preset(self) -> str:
        """The preset that it was run at, which its pictures name."""
        return next((picture.preset for picture in self.pictures), "")

    @property
    def says(self) -> Says | None:
        """What the papers say about it."""
        return says(self.number)

    @property
    def tally(self) -> dict[str, list[str]]:
        """The claims that it judges, by verdict."""
        of = {verdict: [claim["id"] for claim in self.claims if claim["verdict"] == verdict] for verdict in TONES}
        return {verdict: ids for verdict, ids in of.items() if ids}

    def code(self, cell: str) -> str:
        """The address of a cell on the page of this notebook, seen from index.html; "" where there is none."""
        return f"notebooks/{self.page}#cell-id={quote(cell)}" if self.page and cell else ""


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
    pictures = _pictures(folder, notebook, artifacts.number_of(stem))
    claims = _claims(folder / "claims" / f"{stem}.json")
    judged = notebooks.judged(notebook)
    missing = [id_ for id_ in judged if id_ not in {claim["id"] for claim in claims}]
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
        judged=judged,
        found=found,
        numbers=numbers,
        silent=silent,
        explored=_explored(folder / "explorer" / f"{stem}.json"),
    )


def _executed(path: Path) -> NotebookNode:
    try:
        return notebooks.read(path)
    except (notebooks.BadParameters, OSError) as error:
        raise Unreadable(str(error)) from None


def _pictures(folder: Path, notebook: NotebookNode, number: str) -> list[Picture]:
    """Figures and tables in the order in which their names stand in the notebook, of one name the figure first; those
    that it does not name come last. What another command takes away meanwhile is passed over."""
    places: dict[Path, tuple[int, int, str]] = {}
    for path in (
        *sorted((folder / "figures").glob(f"{number}_*.png")),
        *sorted((folder / "tables").glob(f"{number}_*.md")),
    ):
        at, cell = notebooks.place_of(notebook, path.stem)
        within = notebook.cells[at].source.find(f'"{path.stem}"') if cell else 0
        places[path] = (at, within, cell)
    pictures = []
    for path, (*_, cell) in sorted(places.items(), key=lambda item: item[1][:2]):
        kind: Literal["figure", "table"] = "figure" if path.suffix == ".png" else "table"
        try:
            rows = untagged(path.read_text(encoding="utf-8")) if kind == "table" else ""
            width, height = size(path.read_bytes()) if kind == "figure" else (0, 0)
            note = _load(path.with_suffix(".json"))
            texts = (note["title"], note["caption"], note["commit"], note["preset"], cell, rows)
            shown = (round(width / DENSITY), round(height / DENSITY))
            pictures.append(Picture(kind, path.with_suffix(""), *texts, shown, list(note.get("records", ()))))
        except FileNotFoundError:
            continue
        except (KeyError, TypeError):
            raise Unreadable(f"{path.with_suffix('.json')} lacks title, caption, commit or preset.") from None
        except ValueError as error:
            raise Unreadable(f"{path}: {error}") from None
    return pictures


def _claims(path: Path) -> list[dict[str, Any]]:
    try:
        claims = _load(path)
    except FileNotFoundError:
        return []
    if not (isinstance(claims, list) and all(isinstance(claim, dict) and claim.keys() >= CLAIM for claim in claims)):
        raise Unreadable(f"{path}: a claim lacks one of {', '.join(sorted(CLAIM))}.")
    return claims


def beside_what_ships(section: Section) -> Section:
    """With one more reading of each claim whose verdict ships at another preset: that one."""
    path = artifacts.REPOSITORY / SHIPS
    ships = {row["id"]: row for row in _load(path)} if path.is_file() else {}
    claims = []
    for claim in section.claims:
        row = ships.get(claim["id"], claim)
        if row["preset"] != claim["preset"]:
            other = {"reading": f"at {row['preset']}"} | {name: row[name] for name in READING}
            claim = claim | {"also": [*claim["also"], other]}
        claims.append(claim)
    return replace(section, claims=claims)


def of_any_processor(value: Any) -> Any:
    """Numbers to ten digits, in lists and dicts, too; the last of all their digits are those of one processor."""
    if isinstance(value, dict):
        return {name: of_any_processor(v) for name, v in value.items()}
    if isinstance(value, list):
        return [of_any_processor(v) for v in value]
    return float(f"{value:.10g}") if isinstance(value, float) else value


def _findings(path: Path) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """The sentences that a notebook ended with, and its numbers; none where there is no such file."""
    try:
        found = _load(path)
        return [{part: str(one[part]) for part in ("says", "against")} for one in found["sentences"]], found["numbers"]
    except FileNotFoundError:
        return [], {}
    except (KeyError, TypeError):
        raise Unreadable(f"{path} lacks sentences or numbers.") from None


def _explored(path: Path) -> list[dict[str, Any]]:
    """The problems that a notebook left for the explorer; none where there is no such file."""
    try:
        found = _load(path)["problems"]
    except FileNotFoundError:
        return []
    except (KeyError, TypeError):
        raise Unreadable(f"{path} lacks problems.") from None
    if not all(one.keys() >= {"problem", "label", "metrics", "methods", "rows"} for one in found):
        raise Unreadable(f"{path}: a problem lacks its metrics, methods or rows.")
    return list(found)


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
class Link:
    """From a sentence to its evidence on the same page: a section by its name, a claim by its id, a figure or a table
    by the id that it has on the page of results."""

    text: str
    kind: Literal["section", "claim", "picture"]
    name: str

    @property
    def anchor(self) -> str:
        """Its id on the page of results."""
        return anchor(self.name) if self.kind == "claim" else self.name


@dataclass(frozen=True)
class Front:
    """The first page, for REPORT.md and index.html alike: question, answer, the picture that carries it, what it rests
    on, the guide (each sentence with the links to its evidence), and how to cite."""

    question: str
    answer: Sequence[tuple[Said, Sequence[Link]]]
    picture: Picture | None
    basis: Mapping[str, str]
    guide: Sequence[tuple[Advice, Sequence[Link]]]
    cite: str


def front(shown: Sequence[Section], repository: Path = artifacts.REPOSITORY) -> Front:
    """The first page of these sections. Raises Unreadable where older code wrote what a notebook found."""
    found = {section.number: section.numbers for section in shown if section.numbers}
    verdicts = {claim["id"]: claim for section in shown for claim in section.claims}
    pictures = [picture for section in shown for picture in section.pictures if picture.name == answer.PICTURE]
    try:
        sentences, advices = answer.answer(found), answer.guide(found, verdicts)
        basis = answer.basis(found, {section.number: section.claims for section in shown})
    except KeyError as missing:
        raise Unreadable(
            f"what a notebook found lacks {missing}: older code wrote it. Run the notebooks again."
        ) from None
    linked = [(one, _evidence(one, shown)) for one in sentences]
    guide = [(one, _evidence(one, shown)) for one in advices]
    return Front(answer.QUESTION, linked, next(iter(pictures), None), basis, guide, _cite(repository))


def _evidence(said: Said, shown: Sequence[Section]) -> list[Link]:
    """Where the evidence of a sentence is, of what there is."""
    claims = {claim["id"] for section in shown for claim in section.claims}
    pictures = {picture.anchor: picture for section in shown for picture in section.pictures}
    return [
        *(Link(f"notebook {s.number}", "section", s.stem) for s in shown if s.number in said.notebooks),
        *(Link(id_, "claim", id_) for id_ in said.claims if id_ in claims),
        *(Link(pictures[name].short, "picture", name) for name in said.pictures if name in pictures),
    ]


def linked(text: str, claims: Iterable[str], link: Callable[[str], str]) -> str:
    """A text in which every claim that it names by its id is a link. link: makes one of an id."""
    ids = "|".join(sorted(map(re.escape, claims), key=len, reverse=True))
    return re.sub(rf"(?<![\w-])(?:{ids})(?![\w-])", lambda found: link(found[0]), text) if ids else text


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


# -- what is behind a claim --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trail:
    """What is behind a verdict: the figures and tables that show it; the addresses, seen from index.html, of the cell
    that judges it, of the manifest with its records, and of its numbers; "" where there is none."""

    pictures: Sequence[Picture] = ()
    code: str = ""
    records: str = ""
    numbers: str = ""


def trails(shown: Sequence[Section], folder: Path) -> dict[str, Trail]:
    """What is behind each verdict, by the id of the claim."""
    everything = sorted((p for section in shown for p in section.pictures), key=lambda p: p.kind, reverse=True)
    pictures, found = {picture.name: picture for picture in everything}, {}  # of two with one name the figure
    for section in shown:
        for claim in section.claims:
            whole, cell = section.judged.get(claim["id"], ("", ""))
            named = [pictures[name] for name in rules.figures().get(whole, ()) if name in pictures]
            evidence = [
                f"claims/{section.stem}/{quote(whole)}{suffix}"
                if whole and (folder / "claims" / section.stem / f"{whole}{suffix}").exists()
                else ""
                for suffix in (".json", ".csv")
            ]
            found[claim["id"]] = Trail(named, section.code(cell), *evidence)
    return found


# -- index.html and claims.json ----------------------------------------------------------------------------------------


def write_index(folder: Path, preset: str, sources: list[Path], around: Around = ALONE) -> None:
    """Bring claims.json and index.html up to date with what is in the folder."""
    shown = sections(folder, sources)
    if preset not in (SHIPPED, artifacts.SMOKE):  # smoke is no evidence, and is compared with nothing
        shown = list(map(beside_what_ships, shown))
    try:
        first = front(shown)
    except Unreadable as error:
        first = Front(answer.QUESTION, [(Said(str(error)), [])], None, {}, [], "")
    claims = [claim for section in shown for claim in section.claims]
    files.write_json(folder / "claims.json", claims)
    behind = trails(shown, folder)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # the explorer offers metrics in their order
    ids = [claim["id"] for claim in claims]

    def with_links(text: str) -> str:
        return linked(text, ids, lambda id_: f'<a href="#{anchor(id_)}">{id_}</a>')

    environment.filters |= {"tone": TONES.get, "value": value, "remarks": remarks, "anchor": anchor}
    environment.filters["linked"] = with_links
    page = environment.get_template("index.html.j2").render(
        preset=preset,
        scale=scale(preset, shown),
        around=around,
        front=first,
        sections=shown,
        broken=[section for section in shown if section.state in ("failed", "stopped")],
        absent=[section for section in shown if section.state == "not run"],
        trails=behind,
        shows={
            picture.anchor: [id_ for id_, trail in behind.items() if picture in trail.pictures]
            for section in shown
            for picture in section.pictures
        },
        explored=[problem for section in shown for problem in section.explored],
        explorer=explorer,
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


def scale(preset: str, shown: Iterable[Section]) -> str:
    """The preset of these sections; where it is each notebook's own, "quick, in notebooks 07 and 08 overnight"."""
    by_preset: dict[str, list[str]] = {}
    for section in shown:
        if section.preset:
            by_preset.setdefault(section.preset, []).append(section.number)
    most, *others = sorted(by_preset, key=lambda one: -len(by_preset[one])) or [preset]
    parts = [
        f"in {'notebooks' if len(by_preset[one]) > 1 else 'notebook'} {listed(by_preset[one])} {one}" for one in others
    ]
    return ", ".join([most, *parts])


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


def cells(line: str) -> list[str]:
    """The cells of one line of a Markdown table."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
