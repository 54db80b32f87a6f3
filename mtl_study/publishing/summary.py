"""What a command found, for programs: artifacts/<preset>/summary.json and junit.xml, a line per notebook and claim.

The exit code says the outcome, too: 0 passed; 1 a notebook failed, or something could not be written; 2 refused, before
anything ran; 3 drifted: a number is no longer the shipped one; 130 interrupted.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtl_core import files
from mtl_study import artifacts
from mtl_study.commands import DRIFTED, FAILED, INTERRUPTED, PASSED, REFUSED
from mtl_study.publishing.check import Difference
from mtl_study.publishing.pages import Section

OUTCOMES = {PASSED: "passed", FAILED: "failed", REFUSED: "refused", DRIFTED: "drifted", INTERRUPTED: "interrupted"}


def write(
    folder: Path, preset: str, code: int, shown: Sequence[Section] = (), found: Sequence[Difference] = (), why: str = ""
) -> None:
    """Write both files.

    Args:
        code: the exit code. shown: the notebooks that were run. found: what differs from the shipped numbers.
        why: of a refusal. Raises CannotWrite.
    """
    of = {(difference.notebook, difference.what): difference for difference in found}
    summary: dict[str, Any] = {
        "preset": preset,
        "outcome": OUTCOMES[code],
        "exit": code,
        "why": why,
        "commit": artifacts.commit(),
        "notebooks": [
            {
                "notebook": section.stem,
                "state": section.state,
                "seconds": section.seconds,
                "failure": section.failure,
                "missing": list(section.missing),
            }
            for section in shown
        ],
        "claims": [
            {
                **{name: claim[name] for name in ("id", "verdict", "estimate", "low", "high", "unit", "n")},
                "notebook": section.stem,
                "against_shipped": getattr(of.get((section.stem, claim["id"])), "says", ""),
            }
            for section in shown
            for claim in section.claims
        ],
        "differences": [vars(difference) for difference in found],
    }
    files.write_json(folder / "summary.json", summary)
    files.write_atomically(folder / "junit.xml", junit(preset, shown, found, why))


def junit(preset: str, shown: Sequence[Section], found: Sequence[Difference], why: str) -> str:
    """A test case per notebook, per claim, and per table that drifted. Whatever its verdict, a claim passes: it fails
    where it is missing, or where its numbers drifted."""
    drift = {(d.notebook, d.what): d.says for d in found if d.kind == "drift"}
    cases: list[tuple[str, str, float | None, str]] = []  # class, name, seconds, failure
    if why:
        cases.append((preset, "request", None, why))
    for section in shown:
        failure = section.failure if section.state != "done" else ""
        cases.append((preset, section.stem, section.seconds, failure or ("" if section.state == "done" else "not run")))
        name = f"{preset}.{section.stem}"
        cases += [(name, id_, None, "no verdict") for id_ in section.missing]
        cases += [(name, claim["id"], None, drift.pop((section.stem, claim["id"]), "")) for claim in section.claims]
    cases += [
        (f"{preset}.{notebook}", what, None, says)
        for (notebook, what), says in drift.items()
        if what not in {id_ for section in shown for id_ in section.missing}
    ]
    suite = ET.Element(
        "testsuite", name=f"reproduce {preset}", tests=str(len(cases)), failures=str(sum(bool(c[3]) for c in cases))
    )
    for group, name, seconds, failure in cases:
        case = ET.SubElement(suite, "testcase", classname=group, name=name)
        if seconds is not None:
            case.set("time", f"{seconds:.1f}")
        if failure:
            ET.SubElement(case, "failure", message=_printable(failure.splitlines()[0])).text = _printable(failure)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(suite, encoding="unicode") + "\n"


def _printable(text: str) -> str:
    """Without what XML cannot hold."""
    return "".join(c for c in text if c.isprintable() or c in "\n\t")
