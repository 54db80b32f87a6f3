"""REPORT.md: what the notebooks left behind, as GitHub shows it, from the same source as index.html.

It begins with the answer and ends with the table of all claims. From each sentence its rule, its figure, the records
and the code are at most two links away: sentences link to claims, figures and sections; these to each other, to their
notebook, and to the records in docs/report/records.md. Tables that are wider than a page are folded.
"""

from __future__ import annotations

import html
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image

from mtl_core import files
from mtl_study import artifacts, parameters
from mtl_study.paper import conclusions, rules
from mtl_study.paper.claims import COLUMNS, OPEN, remarks
from mtl_study.parameters import SHIPPED
from mtl_study.plots import captions
from mtl_study.publishing import behind
from mtl_study.publishing.behind import Behind
from mtl_study.publishing.pages import (
    TONES,
    Front,
    Link,
    Picture,
    Section,
    Trail,
    cells,
    front,
    linked,
    of_any_processor,
    scale,
    sections,
    trails,
    value,
)
from mtl_study.words import slug, untagged

WIDTH = 900  # pixels that GitHub gives a table
PER_LETTER, PER_CELL = 8.6, 27  # pixels of a letter, and of the space around a cell
MEASURED = "We measured"
Key = tuple[str, str]  # what a heading is about: ("section", "01_…"), ("picture", "01_figure_1"), ("claim", "C1a"), …


class NothingToShow(RuntimeError):
    """A report was asked for, and not everything in it is there."""


def write_report(repository: Path, preset: str, sources: list[Path], drop: bool = False) -> Path:
    """Write REPORT.md, the figures that it shows, docs/report/*.png, the verdicts as data, docs/report/claims.json, and
    the records behind it all. The same artifacts give the same bytes, and a picture that shows the same stays as it is.

    Args:
        drop: remove what the last report showed and these artifacts lack; without it nothing is written then.

    Raises:
        NothingToShow: a notebook has not been run, or not to its end; a claim, or something that the last report
            showed, is missing.
    """
    folder, place = artifacts.root() / preset, repository / "docs" / "report"
    shown = sections(folder, sources)
    figures = [picture for section in shown for picture in section.pictures if picture.kind == "figure"]
    figures = list(filter(in_report, figures))
    gone = sorted(path for path in place.glob("*.png") if path.stem not in {figure.name for figure in figures})
    numbers = {section.number for section in shown}
    rows = [{column: claim[column] for column in COLUMNS} for section in shown for claim in section.claims]
    other = _elsewhere(shown, sources) if preset == SHIPPED else []
    lost = [] if drop else [*(str(path.relative_to(repository)) for path in gone), *_lost(place, rows)]
    if problems := [*_incomplete(shown), *other, *lost]:
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
    files.write_json(place / "claims.json", of_any_processor(rows))
    path, page, evidence = repository / "REPORT.md", front(shown, repository), trails(shown, folder)
    headings = _outline(shown, page)
    seen = Counter[str]()
    at = {key: slug(heading, seen) for key, heading in headings.items()}
    records = behind.behind(shown, _resting(shown, evidence, folder, at), repository / "results")
    report = "\n\n".join(_report(preset, shown, page, evidence, headings, at, records))
    files.write_atomically(path, untagged(report) + "\n")
    files.write_atomically(repository / behind.PLACE, records.text)
    return path


def _resting(
    shown: Sequence[Section], evidence: Mapping[str, Trail], folder: Path, at: Mapping[Key, str]
) -> dict[str, list[behind.Resting]]:
    """What rests on records, by notebook: the figures and tables of the report, and the verdicts."""
    found = {}
    for section in shown:
        pictures = [(p.anchor, p.title, ("picture", p.anchor), p.records) for p in filter(in_report, section.pictures)]
        claims = [
            (id_, id_, ("claim", id_), behind.of_claim(folder, evidence[id_]))
            for id_ in (claim["id"] for claim in section.claims)
        ]
        found[section.stem] = [
            (name, f"[{words(text)}](../../REPORT.md#{at[key]})", places)
            for name, text, key, places in (*pictures, *claims)
        ]
    return found


def in_report(picture: Picture) -> bool:
    """Whether the report shows it: every table, and the figures that show a claim best (`rules.figures`)."""
    return picture.kind == "table" or picture.name in {names[0] for names in rules.figures().values() if names}


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


def _elsewhere(shown: list[Section], sources: list[Path]) -> list[str]:
    """What was run at another preset than the one that it ships at; a line each."""
    ships = {path.stem: parameters.ships_at(path.stem, path.parents[1] / "params") for path in sources}
    done = [(section, ships[section.stem]) for section in shown if section.state == "done"]
    return [f"{s.stem}: it ships at {own}, and was run at {s.preset}" for s, own in done if s.preset != own]


def _lost(place: Path, rows: list[dict[str, Any]]) -> list[str]:
    """Verdicts that the last report has and this one would not."""
    try:
        before = [row["id"] for row in json.loads((place / "claims.json").read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    lost = [id_ for id_ in before if id_ not in {row["id"] for row in rows}]
    return [f"the verdict on {id_}, which the last report has" for id_ in lost]


def _keep_or_write(path: Path, content: bytes) -> None:
    """Write a picture, unless that which is there shows the same: it keeps its bytes."""
    if not (path.exists() and same_picture(path.read_bytes(), content)):
        files.write_atomically(path, content)


def same_picture(one: bytes, other: bytes) -> bool:
    """Whether two PNG files show the same, pixel by pixel: two of 255 levels apart, as rounding can be, nobody sees."""
    if one == other:
        return True
    try:
        a, b = (np.asarray(PIL.Image.open(io.BytesIO(content)).convert("RGBA"), int) for content in (one, other))
    except OSError:
        return False
    return bool(a.shape == b.shape and (abs(a - b) <= 2).all())


# -- headings and links ------------------------------------------------------------------------------------------------


def _outline(shown: Sequence[Section], page: Front) -> dict[Key, str]:
    """The headings of the report, in their order, as plain text."""
    found: dict[Key, str] = {("part", "title"): "What we measured"}
    if page.guide:
        found["part", "guide"] = "Should I use an SMTO?"
    found["part", "contents"] = "Contents"
    if any(section.found for section in shown):
        found["part", "found"] = "What we found"
        found |= {("found", section.stem): f"Notebook {section.number}" for section in shown if section.found}
    for section in shown:
        found["section", section.stem] = f"{section.number} · {section.title}"
        found |= {("picture", p.anchor): p.title for p in section.pictures if in_report(p)}
        if section.claims:
            found["verdicts", section.stem] = "Verdicts"
            found |= {("claim", claim["id"]): claim["id"] for claim in section.claims}
    if any(section.claims for section in shown):
        found["part", "claims"] = "All claims"
    return found


def _in_contents(key: Key) -> bool:
    return key[0] == "section" or (key[0] == "part" and key[1] not in ("title", "contents"))


def words(text: str) -> str:
    """Plain text as Markdown that shows it as it is."""
    return html.escape(text, quote=False).replace("[", r"\[").replace("]", r"\]")


def _link(text: str, to: str) -> str:
    return f"[{words(text)}](#{to})"


# -- the paragraphs ----------------------------------------------------------------------------------------------------


def _report(
    preset: str,
    shown: list[Section],
    page: Front,
    evidence: Mapping[str, Trail],
    headings: Mapping[Key, str],
    at: Mapping[Key, str],
    records: Behind,
) -> list[str]:
    """The paragraphs of the report."""
    claims = [claim for section in shown for claim in section.claims]
    commits = sorted({picture.commit for section in shown for picture in section.pictures})
    parts = [
        f"# {headings['part', 'title']}: preset {scale(preset, shown)}",
        f"Generated by `make report` from the artifacts of `make reproduce PRESET={preset}`; nothing here is typed by "
        f"hand. Code at commit {', '.join(commits)}.",
        *_first_page(page, at),
        f"## {headings['part', 'contents']}",
        "\n".join(f"* {_link(headings[key], at[key])}" for key in headings if _in_contents(key)),
    ]
    if ("part", "found") in at:
        parts.append(f"## {headings['part', 'found']}")
        for section in (section for section in shown if section.found):
            to = _link(section.title, at["section", section.stem])
            parts += [
                f"### {headings['found', section.stem]}",
                f"{to} · {records.link(section.stem)} · {_code(section)}",
                "\n".join(f"* {_found(one, at)}" for one in section.found),
            ]
    shows: dict[str, list[str]] = {}
    for id_, trail in evidence.items():
        for picture in filter(in_report, trail.pictures):
            shows.setdefault(picture.anchor, []).append(_link(id_, at["claim", id_]))
    parts.append(f"**In all figures and tables.** {captions.EVERYWHERE}")
    for section in shown:
        parts.append(f"## {words(headings['section', section.stem])}")
        parts += _opening(section, at, records)
        for picture in filter(in_report, section.pictures):
            title = words(picture.title)
            figure = f"![{words(picture.alt)}](docs/report/{picture.name}.png)"
            parts += [f"### {title}", figure if picture.kind == "figure" else folded(picture.markdown)]
            parts.append(words(picture.caption))
            line = f"{_code(section, picture.cell)} · {records.link(picture.anchor)}"
            shown_here = shows.get(picture.anchor)
            parts.append(f"{line} · Shows: {', '.join(shown_here)}" if shown_here else line)
        if others := [f"{words(p.title)} (`{p.name}`)" for p in section.pictures if not in_report(p)]:
            parts.append(f"More figures, in the notebook and by `make figure NAME=…`: {'; '.join(others)}.")
        if section.claims:
            parts.append(f"### {headings['verdicts', section.stem]}")
            for claim in section.claims:
                trail, (whole, cell) = evidence[claim["id"]], section.judged.get(claim["id"], ("", ""))
                of = "of all parts" if whole not in ("", claim["id"]) else ""  # a claim is judged as a whole
                links = f"{_code(section, cell)}. {records.link(claim['id'], of)}."
                parts += [f"#### {claim['id']}", _decision(claim, trail, links, at)]
    if claims:
        counts = Counter(claim["verdict"] for claim in claims)
        counted = [f"{counts[verdict]} {verdict}" for verdict in TONES if counts[verdict]]
        parts += [
            f"## {headings['part', 'claims']}",
            f"{'; '.join(counted)}. As data: [claims.json](docs/report/claims.json). `make audit CLAIM=C3b` prints the "
            "records behind a verdict, its numbers per seed and its rule.",
            *([f"They rest on: {'; '.join(_basis(page))}."] if page.basis else []),
            "What is said of Cityscapes is decided by Cityscapes only: a row about it that rests on synthetic streets "
            "cannot be judged. A row about methods may count them as one of its problems, and says so. Where a row "
            "asks something of several methods or problems, its intervals are wider than 95 %, so that either verdict "
            "is wrong with a probability of 2.5 % at most. An open row says what would settle it: how many seeds more "
            "would do so in four cases of five, if mean and spread are what they seem, and how long they take, as in "
            "the records.",
            _claims_table(claims, at),
        ]
    return [part for part in parts if part]


def _first_page(page: Front, at: Mapping[Key, str]) -> list[str]:
    """The paragraphs that the report begins with."""
    parts = [page.question]
    if page.answer:
        told = (f"{i}. {words(said.says)}{_see(links, at)}" for i, (said, links) in enumerate(page.answer, 1))
        parts.append("\n".join(told))
    if page.picture:
        parts.append(f"![{words(page.picture.alt)}](docs/report/{page.picture.name}.png)")
    if page.basis:
        parts += ["**What it rests on.**", "\n".join(f"* {text}." for text in _basis(page))]
    if page.guide:
        advised = (f"* **{a.topic}.** {words(a.says)}{_see(links, at)}" for a, links in page.guide)
        parts += ["## Should I use an SMTO?", "\n".join(advised)]
    if page.cite:
        parts.append(f"**How to cite.** {words(page.cite)}")
    return parts


def _basis(page: Front) -> list[str]:
    return [f"{kind}: {words(text)}" for kind, text in page.basis.items()]


def _see(links: Sequence[Link], at: Mapping[Key, str]) -> str:
    """Behind a sentence the links to its evidence, of what the report shows."""
    found = [_link(link.text, at[link.kind, link.name]) for link in links if (link.kind, link.name) in at]
    return f" ({', '.join(found)})" if found else ""


def _code(section: Section, cell: str = "") -> str:
    """The code of something: its notebook, and the cell if it has one."""
    return f"Code: [{section.stem}](notebooks/{section.stem}.ipynb)" + (f", cell `{cell}`" if cell else "")


def _opening(section: Section, at: Mapping[Key, str], records: Behind) -> list[str]:
    """What a section begins with: what the papers say, and the way to everything in it."""
    parts = []
    if section.says:
        parts.append(f"**What the paper says** ({section.says.where}). {words(section.says.text)}")
    found = [f"What we found: {_link('above', at['found', section.stem])}"] if section.found else []
    at_preset = [f"Preset: {section.preset}"] if section.preset else []
    parts.append(" · ".join([*found, records.link(section.stem), _code(section), *at_preset]))
    shown = [_link(p.title, at["picture", p.anchor]) for p in filter(in_report, section.pictures)]
    parts += [f"Shown: {'; '.join(shown)}."] if shown else []
    tally = [
        f"{len(ids)} {verdict} ({', '.join(_link(id_, at['claim', id_]) for id_ in ids)})"
        for verdict, ids in section.tally.items()
    ]
    parts += [f"Verdicts: {'; '.join(tally)}."] if tally else []
    return parts


def _found(sentence: Mapping[str, str], at: Mapping[Key, str]) -> str:
    text = conclusions.words({part: words(text) for part, text in sentence.items()})
    claims = [name for kind, name in at if kind == "claim"]
    return linked(text, claims, lambda id_: _link(id_, at["claim", id_]))


def _decision(claim: dict[str, Any], trail: Trail, links: str, at: Mapping[Key, str]) -> str:
    """A claim, how its verdict came about, what was measured, and what shows it."""
    beneath = "; ".join(remarks(claim)).rstrip(".")
    shown = ", ".join(_link(p.title, at["picture", p.anchor]) for p in filter(in_report, trail.pictures))
    return (
        f"**{claim['verdict'].capitalize()}**, {beneath}. {MEASURED}: {words(measured(claim))}. "
        f"Claim ({claim['where']}): {words(claim['says'])} "
        f"Rule: {claim['rule'].rstrip('.')}. {links}" + (f" Shown in: {shown}." if shown else "")
    )


def measured(claim: Mapping[str, Any]) -> str:
    """What was measured, in the section of a claim and in the table of all: the number, what it is of where the rule
    compares several, and what the rule asks for."""
    return value(claim["ours"])


def _claims_table(claims: list[dict[str, Any]], at: Mapping[Key, str]) -> str:
    columns = {"id": "Claim", "says": "Statement", "paper": "Paper", "ours": MEASURED, "n": "n"}
    columns |= {"verdict": "Verdict"}
    rows = [{head: value(claim[column]) for column, head in columns.items()} for claim in claims]
    for row, claim in zip(rows, claims, strict=True):
        row["Claim"] = _link(claim["id"], at["claim", claim["id"]])
        row[MEASURED] = measured(claim)
        row["Verdict"] += f": {claim['settles']}" if claim["verdict"] == OPEN and claim["settles"] else ""
    return artifacts.to_markdown(pd.DataFrame(rows)).rstrip()


# -- wide tables -------------------------------------------------------------------------------------------------------


def folded(markdown: str, width: float = WIDTH) -> str:
    """A Markdown table as it is if it fits a page, else as several below each other, each with the first columns, which
    tell the rows apart. No column is lost."""
    lines = markdown.rstrip().split("\n")
    table = [cells(line) for line in lines]
    columns = list(zip(*table, strict=True))
    least = [_least(column) for column in columns]
    if sum(least) <= width:
        return "\n".join(lines)
    rows = table[2:]
    keys = next((k for k in range(1, len(columns)) if len({tuple(row[:k]) for row in rows}) == len(rows)), 1)
    own, rest = sum(least[:keys]), sum(least[keys:])
    parts = max(2, -int(-rest // max(width - own, 1)))
    groups: list[list[int]] = [[]]
    used = 0.0
    for i in range(keys, len(columns)):
        even = used + least[i] / 2 > rest * len(groups) / parts
        if groups[-1] and (even or own + sum(least[j] for j in (*groups[-1], i)) > width):
            groups.append([])
        groups[-1].append(i)
        used += least[i]
    chosen = ([*range(keys), *group] for group in groups)
    return "\n\n".join("\n".join(f"| {' | '.join(row[i] for i in shown)} |" for row in table) for shown in chosen)


def unfolded(markdown: str) -> str:
    """The table that was folded."""
    blocks = [[cells(line) for line in block.split("\n")] for block in markdown.split("\n\n")]
    first, *others = blocks
    keys = 0
    while others and all([row[keys] for row in first] == [row[keys] for row in other] for other in others):
        keys += 1
    rows = [sum((row[keys:] for row in more), start) for start, *more in zip(*blocks, strict=True)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _least(column: Iterable[str]) -> float:
    """The pixels that a column takes at least: its longest word does not break; of a link its text is seen."""
    head, _, *entries = (re.sub(r"\[(.*?)\]\(.*?\)", r"\1", cell) for cell in column)
    longest = max((len(word) for cell in (head, *entries) for word in html.unescape(cell).split()), default=1)
    return longest * PER_LETTER + PER_CELL
