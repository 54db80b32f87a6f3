"""How far it is from a sentence to its rule, its figure, its records and its code: what a reader sees where a link
leads, and where the links of that place lead. Of REPORT.md, and of index.html."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bs4 import BeautifulSoup

from mtl_study.paper import rules
from mtl_study.words import slug

ALL = frozenset({"rule", "figure", "records", "code"})


@dataclass
class Place:
    """What is at one address: the kinds of evidence that are seen there, and where its links lead."""

    seen: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)


def reached(start: Place, places: dict[str, Place], steps: int = 2) -> set[str]:
    """The kinds of evidence that are at most so many links away."""
    found = set(start.seen)
    if steps:
        for link in start.links:
            found |= reached(places.get(link, Place()), places, steps - 1)
    return found


# -- REPORT.md ---------------------------------------------------------------------------------------------------------


def of_markdown(text: str) -> Place:
    """A part of REPORT.md. A figure is seen in its own place only, not the one on the first page."""
    kinds = {"rule": r"\bRule: \w", "figure": r"^!\[|^\| "}
    seen = {kind for kind, pattern in kinds.items() if re.search(pattern, text, re.MULTILINE)}
    return Place(seen, re.findall(r"(?<!!)\[(?:[^\[\]\\]|\\.)*\]\(([^)]*)\)", text))


def headed(text: str) -> Iterator[tuple[str, str]]:
    """The headings of a page, each with what is below it up to the next one."""
    _, *parts = re.split(r"^#+ (.*)\n", text, flags=re.MULTILINE)
    return zip(parts[::2], parts[1::2], strict=True)


def of_report(text: str, repository: Path) -> tuple[dict[str, Place], dict[str, str]]:
    """The places of REPORT.md by "#anchor", a place being what is between two headings, with the records and notebooks
    that are there; and the text of each."""
    seen: dict[str, int] = {}
    places, texts = dict[str, Place](), dict[str, str]()
    for head, body in headed(text):
        own = slug(head.replace("\\", "").replace("&lt;", "<"))
        seen[own] = seen.get(own, -1) + 1
        anchor = f"#{own}-{seen[own]}" if seen[own] else f"#{own}"
        places[anchor], texts[anchor] = of_markdown(body), body
    records, counts = repository / "docs/report/records.md", dict[str, int]()
    for head, body in headed(records.read_text()):
        own = slug(head)
        counts[own] = counts.get(own, -1) + 1
        anchor = f"{own}-{counts[own]}" if counts[own] else own
        below = body or "../../results"  # a notebook's own heading: its sets of records follow
        there = [records.parent / to for to in re.findall(r"\]\((\.\./\.\./results/[^)]*)\)", below)]
        if all(path.is_file() for path in there):
            places[f"docs/report/records.md#{anchor}"] = Place({"records"})
    for link in {link for place in places.values() for link in place.links if link.startswith("notebooks/")}:
        if (repository / link).is_file():
            places[link] = Place({"code"})
    return places, texts


def far_in_report(text: str, repository: Path) -> Iterator[str]:
    """What is more than two links away from a sentence of REPORT.md, and what a claim or a figure does not link to."""
    places, texts = of_report(text, repository)

    def lacking(name: str, start: Place, needed: set[str], steps: int) -> Iterator[str]:
        if missing := needed - reached(start, places, steps):
            yield f"{name}: no {', '.join(sorted(missing))} within {steps} links"

    title = next(iter(texts))
    drawn = {
        f"#{slug(id_)}"
        for claim, names in rules.figures().items()
        for id_, _ in rules.named_parts(claim)
        if any(f"](docs/report/{name}.png)" in text for name in names)
    }
    for sentence in re.findall(r"^\d\. .*", texts[title], re.MULTILINE):
        yield from lacking(sentence[:60], of_markdown(sentence), set(ALL), 2)
    for sentence in re.findall(r"^\* .*", texts.get("#should-i-use-an-smto", ""), re.MULTILINE):
        yield from lacking(sentence[:60], of_markdown(sentence), set(ALL), 2)
    for anchor, body in texts.items():
        if anchor.startswith("#notebook-"):
            number = anchor.removeprefix("#notebook-")
            needed = set(ALL) - ({"rule"} if f"## {number} · " in text and not judges(text, number) else set())
            needed -= {"records"} if none_needed(body) else set()
            head = body.partition("\n* ")[0]
            for sentence in re.findall(r"^\* .*", body, re.MULTILINE):
                yield from lacking(sentence[:60], of_markdown(f"{head}\n{sentence}"), needed, 2)
        elif "rule" in places[anchor].seen:
            needed = {"rule", "code"} | ({"figure"} if anchor in drawn else set())
            yield from lacking(anchor, places[anchor], needed | (set() if none_needed(body) else {"records"}), 1)
        elif re.search(r"^(?:!\[|\| )", body, re.MULTILINE) and anchor not in (title, "#all-claims"):
            needed = {"figure", "code"} | (set() if none_needed(body) else {"records"})
            yield from lacking(anchor, places[anchor], needed | ({"rule"} if "Shows: " in body else set()), 1)


def none_needed(body: str) -> bool:
    """Whether it says that no records are behind it."""
    return "Records: none (computed in the notebook)" in body


def judges(report: str, number: str) -> bool:
    """Whether the section of a notebook has verdicts."""
    section = report.partition(f"\n## {number} · ")[2].partition("\n## ")[0]
    return "\n### Verdicts" in section


# -- index.html --------------------------------------------------------------------------------------------------------


def far_in_index(page: str, folder: Path) -> Iterator[str]:
    """The same of index.html. The place of a section is what is above its first card."""
    soup = BeautifulSoup(page, "html.parser")
    places: dict[str, Place] = {}

    def place(*parts) -> Place:
        links = [str(a["href"]) for part in parts for a in ([part] if part.name == "a" else part.select("a[href]"))]
        for link in links:
            path = link.partition("#")[0]
            if path and (folder / path).is_file():
                kind = "code" if path.startswith("notebooks/") else "records" if path.endswith(".json") else ""
                places.setdefault(link, Place({kind} - {""}))
        return Place(set(), links)

    for part in soup.select("figure[id], .card[id]"):
        places[f"#{part['id']}"] = place(part)
        places[f"#{part['id']}"].seen |= {"figure"} if part.select("img, table") else set()
    for part in soup.select("article.claim"):
        places[f"#{part['id']}"] = place(part)
        places[f"#{part['id']}"].seen |= {"rule"} if "decided by:" in part.get_text() else set()
    for part in soup.select("main > section[id]"):
        places.setdefault(f"#{part['id']}", place(*part.find_all("p", recursive=False)))
    for item in soup.select("#answer > ol > li, #guide > ul > li"):
        if missing := ALL - reached(place(item), places):
            yield f"{item.get_text()[:60]}: no {', '.join(sorted(missing))}"
    for head in soup.select(".found > h3"):
        links, sentences = head.find_next_sibling("p"), head.find_next_sibling("ul").find_all("li")
        claims = soup.select_one(f"[id='{head['id'].removeprefix('found-')}-claims']")
        for item in sentences:
            if missing := ALL - reached(place(head, links, item), places) - (set() if claims else {"rule"}):
                yield f"{item.get_text()[:60]}: no {', '.join(sorted(missing))}"
    for name, here in list(places.items()):
        needed = {"rule", "code", "records"} if "rule" in here.seen else set()
        needed |= {"figure", "code", "records"} if "figure" in here.seen else set()
        if missing := needed - reached(here, places, 1):
            yield f"{name}: no {', '.join(sorted(missing))}"
