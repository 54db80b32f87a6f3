"""Whether the numbers are still the shipped ones: `make reproduce CHECK=1`.

Verdicts are compared with docs/report/claims.json, tables with those in REPORT.md. Where a number rests on the
shipped records alone, or was computed on a machine of the kind that made them, it has to agree in all but the last
digit. Elsewhere sums are rounded in another order: then differences that are small against the interval over seeds are
reported as rounding. What is larger, and what is missing, is drift.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mtl_study import parameters
from mtl_study.experiments import evidence
from mtl_study.experiments.runs import machine
from mtl_study.experiments.store import archived
from mtl_study.publishing.pages import Section
from mtl_study.publishing.report import unfolded, words
from mtl_study.words import listed

SAME, ROUNDING = 1e-6, 0.01  # of a number's size; what counts as equal on the same machine, and on another kind
TABLE = re.compile(r"^### (.+)\n\n(\|.*(?:\n\n?\|.*)*)", re.MULTILINE)  # in the report: title and rows
SHARE = 0.1  # of half an interval's width: rounding moves a number less than that
NUMBER = re.compile(r"(?<![\w.])[−-]?\d[\d,]*(?:\.\d+)?(?:e[−-]?\d+)?")
ENVIRONMENT = re.compile(rb'"environment":(\{[^{}]*\})')
LINE = re.compile(rb'\{"key": "([0-9a-f]{16})", "checksum": "([0-9a-f]{64})"')


@dataclass(frozen=True)
class Difference:
    """One number that is another than the shipped one. what: "C3b" or the title of a table."""

    notebook: str
    what: str
    says: str
    kind: Literal["rounding", "drift"]

    def __str__(self) -> str:
        return f"{self.notebook}, {self.what}: {self.says} ({self.kind})"


class NothingShipped(ValueError):
    """There is nothing to compare the numbers of a preset with."""


def need_same_preset(repository: Path, preset: str, notebooks: Iterable[str]) -> None:
    """Raises NothingShipped, naming them, where notebooks ship at another preset."""
    ships = {stem: parameters.ships_at(stem, repository / "params") for stem in notebooks}
    if others := [f"{stem} ships at {own}" for stem, own in ships.items() if preset not in (own, parameters.SHIPPED)]:
        raise NothingShipped(
            f"the numbers of {preset} cannot be checked: {listed(others)}. Name others with ONLY, or take "
            f"PRESET={parameters.SHIPPED}."
        )


def shipped(repository: Path) -> list[dict[str, Any]]:
    """The shipped verdicts. Raises NothingShipped."""
    path = repository / "docs" / "report" / "claims.json"
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NothingShipped(f"there are no shipped numbers to check against: {path} ({error}).") from None
    return rows


def differences(repository: Path, shown: list[Section], folder: Path) -> list[Difference]:
    """What differs from the shipped numbers in these sections. Raises NothingShipped."""
    rows = {row["id"]: row for row in shipped(repository)}
    report = (repository / "REPORT.md").read_text(encoding="utf-8")
    known = Shipped.read(repository / "results")
    return [
        found
        for section in shown
        for found in itertools.chain(_verdicts(section, rows, folder, known), _tables(section, report, known))
    ]


@dataclass(frozen=True)
class Shipped:
    """The shipped records: folder and key → checksum; and the kinds of machine (`runs.machine`) that made those which
    say their instruction set."""

    records: dict[str, str]
    kinds: set[str]

    @classmethod
    def read(cls, folder: Path) -> Shipped:
        records: dict[str, str] = {}
        kinds: set[str] = set()
        for path in archived(folder):
            content, place = path.read_bytes(), path.relative_to(folder).with_suffix("").as_posix()
            records |= {f"{place}/{key.decode()}": checksum.decode() for key, checksum in LINE.findall(content)}
            for environment in map(json.loads, ENVIRONMENT.findall(content)):
                kinds |= {machine(environment)} if "instruction_set" in environment else set()
        return cls(records, kinds)

    def strict(self, records: dict[str, str]) -> bool:
        """Whether what rests on these records has to be the same: they are shipped ones, or this machine is of a kind
        that made some of them."""
        return (bool(records) and records.items() <= self.records.items()) or evidence.here() in self.kinds


def _verdicts(section: Section, rows: dict[str, Any], folder: Path, known: Shipped) -> Iterator[Difference]:
    for id_ in section.missing:
        if id_ in rows:
            yield Difference(section.stem, id_, "no verdict", "drift")
    for claim in section.claims:
        if (row := rows.get(claim["id"])) is None:
            yield Difference(section.stem, claim["id"], "no shipped verdict", "drift")
            continue
        exact = known.strict(_records(folder / "claims" / section.stem, claim["id"]))
        half = abs(row["high"] - row["low"]) / 2 if row["low"] is not None and row["high"] is not None else 0.0
        allowed = SHARE * half if math.isfinite(half) and not exact else 0.0
        worst, says = "same", []
        for column in ("n", "estimate", "low", "high"):
            how = compared(claim[column], row[column], exact, allowed)
            if how != "same":
                says.append(f"{column} is {claim[column]}, shipped {row[column]}")
                worst = "drift" if "drift" in (how, worst) else how
        if claim["verdict"] != row["verdict"]:
            says.append(f"{claim['verdict']}, shipped {row['verdict']}")
            worst = worst if worst == "rounding" else "drift"  # an interval's end has crossed its line
        if says:
            yield Difference(section.stem, claim["id"], "; ".join(says), "drift" if worst == "drift" else "rounding")


def _tables(section: Section, report: str, known: Shipped) -> Iterator[Difference]:
    _, _, report = report.partition(f"\n## {section.number} · ")
    report = report.partition("\n## ")[0]
    shipped = dict(TABLE.findall(report))
    for picture in section.pictures:
        if picture.kind != "table":
            continue
        theirs = shipped.pop(words(picture.title), None)
        if theirs is None:
            yield Difference(section.stem, picture.title, "no shipped table", "drift")
            continue
        exact = known.strict(_records(picture.path.parent, picture.name))
        if found := compared_tables(picture.markdown.rstrip(), unfolded(theirs), exact):
            yield Difference(section.stem, picture.title, found[1], found[0])
    for title in shipped:
        yield Difference(section.stem, title, "the shipped table is not made any more", "drift")


def compared_tables(ours: str, theirs: str, exact: bool) -> tuple[Literal["rounding", "drift"], str] | None:
    """How two Markdown tables differ, if they do: in words by drift, in numbers as `compared` says."""
    if ours == theirs:
        return None
    if NUMBER.sub("#", ours) != NUMBER.sub("#", theirs):
        line = next((a for a, b in itertools.zip_longest(ours.split("\n"), theirs.split("\n")) if a != b), "") or ""
        return "drift", f"other rows or words than the shipped table, first in: {line.strip()[:120]}"
    changed = [(a, b) for a, b in zip(NUMBER.findall(ours), NUMBER.findall(theirs), strict=True) if a != b]
    drifted = [(a, b) for a, b in changed if compared(_value(a), _value(b), exact, _last_digit(a, b)) == "drift"]
    shown = ", ".join(f"{a} (shipped {b})" for a, b in (drifted or changed)[:3])
    return ("drift" if drifted else "rounding"), f"{len(drifted or changed)} numbers differ: {shown}"


def compared(ours: Any, theirs: Any, exact: bool, allowed: float) -> Literal["same", "rounding", "drift"]:
    """How a number differs from the shipped one. allowed: by how much rounding may move it; where the numbers have to
    be the same (exact) only a table's last digit is such a thing, and `allowed` is what that is worth."""
    if ours == theirs:
        return "same"
    if not (isinstance(ours, int | float) and isinstance(theirs, int | float)):
        return "drift"
    if (isinstance(ours, int) and isinstance(theirs, int)) or not (math.isfinite(ours) and math.isfinite(theirs)):
        return "drift"
    off, size = abs(ours - theirs), max(abs(ours), abs(theirs))
    if off <= SAME * size:
        return "same"
    return "rounding" if off <= max(allowed, 0.0 if exact else ROUNDING * size) else "drift"


def _value(text: str) -> float:
    return float(text.replace(",", "").replace("−", "-"))


def _last_digit(*texts: str) -> float:
    """What one unit in the last place of the coarsest of these is worth."""
    worth = []
    for text in texts:
        digits, _, power = text.replace("−", "-").partition("e")
        worth.append(10.0 ** (int(power or 0) - len(digits.partition(".")[2])))
    return 1.001 * max(worth)


def _records(folder: Path, name: str) -> dict[str, str]:
    """The records that a manifest names; that of a claim's part is the claim's."""
    fitting = [path for path in folder.glob("*.json") if name == path.stem or name.startswith(path.stem)]
    try:
        path = max(fitting, key=lambda path: len(path.stem))
        found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["records"]
    except (ValueError, OSError, KeyError):
        return {}
    return found
