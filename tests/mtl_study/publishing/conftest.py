"""A small repository whose notebooks have been run, for pages, reports and checks."""

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mtl_study import artifacts
from mtl_study.paper import answer, claims, rules
from mtl_study.publishing import notebooks, pages, report
from mtl_study.publishing.rendering import to_html

PROPOSITIONS = claims.parts("C12")[0].rule.propositions
CHECKS = pd.DataFrame({"proposition": PROPOSITIONS, "check": "equal", "passed": True})
SOURCE = 'publish(ax, "{0}_line", preset, "Line")\npublish_table(t, "{0}_numbers", preset, "Numbers")\n'
JUDGE = 'verdict = claims.judge("C12", record, preset=preset, notebook=notebook)'


class House:
    """A repository with two notebooks, of which the second judges C12, and the artifacts of their runs."""

    def __init__(self, folder: Path) -> None:
        self.repository = folder / "repository"
        self.sources = []
        for stem, cells in (("01_lines", [SOURCE.format("01")]), ("02_proofs", [SOURCE.format("02"), JUDGE])):
            path = self.repository / "notebooks" / f"{stem}.ipynb"
            path.parent.mkdir(parents=True, exist_ok=True)
            notebook = new_notebook(cells=[new_markdown_cell(f"# On {stem}"), *map(new_code_cell, cells)])
            nbformat.write(notebook, path)
            self.sources.append(path)
            self.run(path)

    @property
    def folder(self) -> Path:
        return artifacts.root() / "quick"

    def run(self, path: Path, mark: str = ".ipynb") -> None:
        """What executing a notebook leaves."""
        number = artifacts.number_of(path.stem)
        fig = plt.figure(figsize=(1, 1))
        artifacts.save_figure(fig, f"{number}_line", "quick", "Line", "Caption.")
        plt.close(fig)
        artifacts.save_table(pd.DataFrame({"x": [1.25]}), f"{number}_numbers", "quick", "Numbers", "Caption.")
        if number == "02":
            claims.judge("C12", CHECKS, preset="quick", notebook=path.stem)
        target = self.folder / "notebooks" / f"{path.stem}{mark}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes() if mark.endswith(".ipynb") else b"")

    def report(self, **settings) -> Path:
        return report.write_report(self.repository, "quick", self.sources, **settings)

    def index(self) -> str:
        pages.write_index(self.folder, "quick", self.sources)
        return (self.folder / "index.html").read_text()

    def tracked(self) -> dict[str, bytes]:
        """REPORT.md and what is in docs."""
        files = [*(self.repository / "docs").rglob("*.*"), self.repository / "REPORT.md"]
        return {path.name: path.read_bytes() for path in files if path.is_file()}


@pytest.fixture(scope="session")
def rendered() -> Callable[[Path], None]:
    """Makes the page of every executed notebook in a folder of artifacts, with the code of today."""

    def render(folder: Path) -> None:
        for path in (folder / "notebooks").glob("*.ipynb"):
            stem = path.name.removesuffix(".ipynb").removesuffix(".failed")
            path.with_suffix(".html").write_text(to_html(notebooks.read(path), stem))

    return render


@pytest.fixture
def house(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path / "artifacts"))
    shown = {number: [f"{number}_line"] for number in ("01", "02", "03", "04", "05")} | {"first page": [answer.PICTURE]}
    monkeypatch.setattr(rules, "figures", lambda: shown)
    yield House(tmp_path)
    artifacts.begin(None)
