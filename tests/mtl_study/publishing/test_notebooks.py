"""The notebooks themselves: every one runs at smoke, and the shipped records give the committed report."""

import json
import re

import pytest

from mtl_study import artifacts
from mtl_study.experiments.runs import Run
from mtl_study.experiments.store import POPULATIONS, RunStore
from mtl_study.publishing import notebooks, pages, reproduce

REPOSITORY = artifacts.REPOSITORY
NOTEBOOKS = notebooks.find(REPOSITORY / "notebooks")
SHIPPED = REPOSITORY / "results"
RECORDS = sorted(path for path in SHIPPED.rglob("*.json") if path.parent.name != POPULATIONS)
QUICK = [job for job in reproduce.plan(REPOSITORY, "quick", [], {}) if job.values.get("store") == SHIPPED.name]
# The quick ones are the first, one that trains digits, one that trains molecules, and one that proves.
MARKS = {number: [pytest.mark.training] for number in ("00", "01", "04")}
MARKS |= {number: [pytest.mark.training, pytest.mark.slow] for number in ("02", "03", "05")}


@pytest.mark.parametrize(
    "notebook", [pytest.param(path, id=path.stem, marks=MARKS.get(path.stem[:2], ())) for path in NOTEBOOKS]
)
def test_a_notebook_runs_at_smoke(notebook, tmp_path, monkeypatch):
    """From nothing: its runs are trained, its exercises' solutions pass, its figures, tables and page are there, and
    smoke decides no claim."""
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setenv("MTL_WORKERS", "1")
    (job,) = reproduce.plan(REPOSITORY, "smoke", [notebook.stem], {})
    if "store" in job.values:
        job.values["store"] = str(tmp_path / "store")
    folder = artifacts.folder("smoke")
    reproduce.run(job, REPOSITORY, folder)
    pages.write_index(folder, "smoke", [notebook])
    number = notebook.stem[:2]
    assert (folder / "notebooks" / f"{notebook.stem}.html").exists() and (folder / "index.html").exists()
    figures = {path.suffix for path in (folder / "figures").glob(f"{number}_*")}
    assert figures == {".pdf", ".png", ".json"}
    executed = notebooks.read(folder / "notebooks" / notebook.name)
    assert any(notebooks.tagged(cell, "solution") and cell.execution_count for cell in executed.cells)
    if "seeds" in job.values:  # it judges runs; a proof is as good at smoke
        claims = json.loads((folder / "claims.json").read_text())
        assert claims and {claim["verdict"] for claim in claims} == {"inconclusive at this scale"}


def test_every_shipped_record_is_current():
    """It lies where its identity says, under the code versions of today: no record is stale."""
    assert RECORDS
    for path in RECORDS:
        run = Run.from_json(path.read_text())
        assert RunStore(SHIPPED).path(run.config) == path
        assert RunStore(SHIPPED).get(run.config) == run, path


def section(report, title):
    """The lines of one section of the report, by the beginning of its title."""
    (found,) = re.findall(rf"^## {title}\b.*?(?=^## |\Z)", report, re.DOTALL | re.MULTILINE)
    return found.strip().splitlines()


def verdicts(report):
    """The rows of the table of verdicts."""
    return [line for line in section(report, "Verdicts") if line.startswith("| C") and "| Claim |" not in line]


@pytest.mark.pinned
@pytest.mark.parametrize("job", QUICK, ids=lambda job: job.notebook.stem)
def test_the_report_is_what_the_shipped_records_give(job, tmp_path, monkeypatch):
    """Nothing is trained, and the notebook's section of REPORT.md and its rows in the table of verdicts are those."""
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path / "artifacts"))
    before = {path: path.stat().st_mtime_ns for path in SHIPPED.rglob("*.json")}
    reproduce.run(job, REPOSITORY, artifacts.folder("quick"))
    assert {path: path.stat().st_mtime_ns for path in SHIPPED.rglob("*.json")} == before
    copy = tmp_path / "repository"
    copy.mkdir()
    report, committed = (
        path.read_text() for path in (pages.write_report(copy, "quick", [job.notebook]), REPOSITORY / "REPORT.md")
    )
    number = job.notebook.stem[:2]
    assert section(report, number) == section(committed, number)
    assert verdicts(report) and set(verdicts(report)) <= set(verdicts(committed))


def test_every_verdict_of_the_report_is_explained_in_a_section():
    """Row by row; and every notebook on shipped records has a section."""
    report = (REPOSITORY / "REPORT.md").read_text()
    rows = [row.split("|")[1].strip() for row in verdicts(report)]
    assert rows == re.findall(r"^\*\*(C[^*]+)\*\* \(", report, re.MULTILINE)
    assert {job.notebook.stem[:2] for job in QUICK} <= set(re.findall(r"^## (\d\d) ·", report, re.MULTILINE))
