"""The lecturer's page, docs/teaching.md: its tables of minutes are computed from the notebooks.

python -m mtl_study.publishing.syllabus      writes them between the page's marks; all else is written by hand
"""

from __future__ import annotations

from pathlib import Path

from mtl_core import files
from mtl_study import artifacts, commands
from mtl_study.publishing import notebooks

TARGET = artifacts.REPOSITORY / "docs" / "teaching.md"
START, END = "<!-- {} -->\n", "<!-- end of {} -->\n"

#: what is read before each session, by the numbers of the notebooks
PLANS: dict[str, list[list[str]]] = {
    "one session": [["00"]],
    "three sessions": [["00"], ["01"], ["05b"]],
    "six sessions": [["00"], ["01"], ["02"], ["06"], ["05", "05b"], ["07", "08"]],
}


def of_numbers(numbers: list[str], folder: Path) -> list[Path]:
    """The notebooks with these numbers. Raises ValueError for a number that no notebook has."""
    found = {artifacts.number_of(path.stem): path for path in notebooks.find(folder)}
    if missing := [number for number in numbers if number not in found]:
        raise ValueError(f"{folder} has no notebook {', '.join(missing)}; change PLANS in publishing/syllabus.py.")
    return [found[number] for number in numbers]


def link(path: Path) -> str:
    return f"[{path.stem}](../notebooks/{path.name})"


def each(folder: Path) -> str:
    """A row per notebook: minutes to read, exercises that are checked, guesses that are asked for."""
    rows = ["| notebook | minutes to read | checked answers | guesses |", "| :--- | ---: | ---: | ---: |"]
    for path in notebooks.find(folder):
        notebook = notebooks.read(path)
        asked = sum(cell.cell_type == "code" and cell.source.startswith("predict(") for cell in notebook.cells)
        checked = len(set(notebooks.checks(notebook)))
        rows.append(f"| {link(path)} | {notebooks.minutes(notebook):.0f} | {checked} | {asked} |")
    return "\n".join(rows) + "\n"


def plan(sessions: list[list[str]], folder: Path) -> str:
    """A row per session: what is read before it, and for how long."""
    rows = ["| session | read before | minutes |", "| ---: | :--- | ---: |"]
    for number, numbers in enumerate(sessions, start=1):
        paths = of_numbers(numbers, folder)
        minutes = sum(notebooks.minutes(notebooks.read(path)) for path in paths)
        rows.append(f"| {number} | {', '.join(map(link, paths))} | {minutes:.0f} |")
    return "\n".join(rows) + "\n"


def with_minutes(text: str, folder: Path = artifacts.REPOSITORY / "notebooks") -> str:
    """The page with its tables as they are now. Raises ValueError if the place of one is not there."""
    for name in ("minutes", *PLANS):
        start, end = START.format(name), END.format(name)
        before, found, rest = text.partition(start)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"docs/teaching.md lacks the lines {start.strip()} and {end.strip()}.")
        table = plan(PLANS[name], folder) if name in PLANS else each(folder)
        text = f"{before}{start}\n{table}\n{end}{after}"
    return text


def main() -> None:
    files.write_atomically(TARGET, with_minutes(TARGET.read_text(encoding="utf-8")))
    print(f"Wrote {TARGET}")


if __name__ == "__main__":
    commands.run(main)
