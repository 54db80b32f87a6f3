"""Links to where this repository can be read and run on the web.

    python -m mtl_study.publishing.links      writes them into README.md and the notebooks

The address is written once, in pyproject.toml: [project.urls], Repository. Where there is none there are no links; the
command then removes those of before.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from urllib.parse import quote

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from mtl_core import files
from mtl_study import artifacts, commands
from mtl_study.publishing import notebooks

START, END = "<!-- links -->\n", "<!-- end of the links -->\n"
LINKS, SETUP = "links", "in-colab"  # ids of the cells that are written into notebooks
LIGHT = ("00_start_here", "06_proofs")  # run with the light install: pyproject.toml, [light]

IN_COLAB = """\
import os
import subprocess
import sys

if "google.colab" in sys.modules and not os.path.exists("pyproject.toml"):  # there a notebook comes alone
    if not os.path.exists("checkout"):  # it does after a restart
        subprocess.run(["git", "clone", "-q", "--depth", "1", "{address}", "checkout"], check=True)
    os.chdir("checkout")
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-e", ".[light]"], check=True)"""


def address(repository: Path) -> str:
    """Of the repository on GitHub; "" where none is configured.

    Raises:
        ValueError: it is not one of GitHub's.
    """
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: str = project.get("urls", {}).get("Repository", "").rstrip("/").removesuffix(".git")
    if found and not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", found):
        raise ValueError(
            f"pyproject.toml, [project.urls]: Repository is {found!r}; expected https://github.com/OWNER/NAME: of it "
            "the links to GitHub Pages, Colab, Binder and Codespaces are made"
        )
    return found


def edition(address: str) -> str:
    """Where the workflow publishes the site."""
    owner, name = address.split("/")[-2:]
    site = f"{owner.lower()}.github.io"
    return f"https://{site}" if name.lower() == site else f"https://{site}/{name}"


def runs(address: str, stem: str) -> dict[str, str]:
    """Where a notebook of the light install can be run: service → address."""
    owner_and_name, path = address.removeprefix("https://github.com/"), f"notebooks/{stem}.ipynb"
    return {
        "Colab": f"https://colab.research.google.com/github/{owner_and_name}/blob/main/{path}",
        "Binder": f"https://mybinder.org/v2/gh/{owner_and_name}/HEAD?labpath={quote(path, safe='')}",
    }


def of_notebook(address: str, stem: str) -> str:
    """The line of links that a notebook gets."""
    said = f"[This notebook with its results]({edition(address)}/notebooks/{stem}.html)"
    if stem in LIGHT:
        said += ". Run it without installing anything: "
        said += ", ".join(f"[{service}]({where})" for service, where in runs(address, stem).items())
    return f"{said}."


def of_readme(address: str) -> str:
    """The badges and the line of links that the README gets."""
    if not address:
        return ""
    badges = [f"[![ci]({address}/actions/workflows/ci.yml/badge.svg)]({address}/actions/workflows/ci.yml)"]
    images = {
        "Colab": "https://colab.research.google.com/assets/colab-badge.svg",
        "Binder": "https://mybinder.org/badge_logo.svg",
    }
    for stem in LIGHT:
        for service, where in runs(address, stem).items():
            badges.append(f"[![{artifacts.number_of(stem)} in {service}]({images[service]})]({where})")
    codespace = f"https://codespaces.new/{address.removeprefix('https://github.com/')}"
    lines = [
        *badges,
        "",
        f"[Read the edition]({edition(address)}/): results, executed notebooks, methods. Notebooks "
        f"{' and '.join(map(artifacts.number_of, LIGHT))} run in Colab, in Binder and in a [codespace]({codespace}).",
    ]
    return "\n".join(lines) + "\n"


def in_readme(text: str, address: str) -> str:
    """The README with these links between its marks."""
    if not 0 <= text.find(START) < text.find(END):
        raise ValueError(f"README.md has no place for links: a line {START.strip()} and below it {END.strip()}")
    before, rest = text.split(START)
    return f"{before}{START}{of_readme(address)}{END}{rest.split(END)[1]}"


def in_notebook(notebook: NotebookNode, address: str, stem: str) -> NotebookNode:
    """A notebook with these links below its first cell, and before its imports with what Colab needs."""
    notebook.cells = [cell for cell in notebook.cells if cell.id not in (LINKS, SETUP)]
    if address:
        if stem in LIGHT:
            first = next(i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code")
            notebook.cells.insert(first, new_code_cell(IN_COLAB.format(address=address), id=SETUP))
        notebook.cells.insert(1, new_markdown_cell(of_notebook(address, stem), id=LINKS))
    return notebook


def write(repository: Path) -> list[Path]:
    """Bring README.md and the notebooks up to date. Returns the files that changed."""
    where, readme = address(repository), repository / "README.md"
    new = {readme: in_readme(readme.read_text(encoding="utf-8"), where)}
    for path in notebooks.find(repository / "notebooks"):
        new[path] = nbformat.writes(in_notebook(notebooks.read(path), where, path.stem)) + "\n"
    changed = [path for path, text in new.items() if path.read_text(encoding="utf-8") != text]
    for path in changed:
        files.write_atomically(path, new[path])
    return changed


def main() -> int:
    """The command. Returns the exit code: 2 where the address or the place is not what is expected."""
    try:
        changed = write(artifacts.REPOSITORY)
    except ValueError as error:
        print(error)
        return 2
    print("\n".join(f"wrote {path}" for path in changed) or "nothing changed")
    return 0


if __name__ == "__main__":
    commands.run(main)
