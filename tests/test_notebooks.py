"""The notebooks themselves: every one runs at smoke, and the shipped records give the committed report."""

import json

import pytest

from mtl_core import artifacts, notebooks, pages, reproduce
from mtl_core.runs import POPULATIONS, Run, RunStore

REPOSITORY = artifacts.REPOSITORY
NOTEBOOKS = notebooks.find(REPOSITORY / "notebooks")
SHIPPED = REPOSITORY / "results"
RECORDS = sorted(path for path in SHIPPED.rglob("*.json") if path.parent.name != POPULATIONS)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
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


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_shipped_record_is_current(path):
    """It lies where its identity says, under the numerics of this version: no record is stale."""
    run = Run.from_json(path.read_text())
    assert RunStore(SHIPPED).path(run.config) == path
    assert RunStore(SHIPPED).get(run.config) == run


def test_the_report_is_what_the_shipped_records_give(tmp_path, monkeypatch):
    """Nothing is trained, and every verdict, figure caption and table row that rests on runs stands in REPORT.md."""
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path / "artifacts"))
    before = {path: path.stat().st_mtime_ns for path in SHIPPED.rglob("*.json")}
    jobs = [job for job in reproduce.plan(REPOSITORY, "quick", [], {}) if job.values.get("store") == SHIPPED.name]
    for job in jobs:
        reproduce.run(job, REPOSITORY, artifacts.folder("quick"))
    assert {path: path.stat().st_mtime_ns for path in SHIPPED.rglob("*.json")} == before
    copy = tmp_path / "repository"
    copy.mkdir()
    report = pages.write_report(copy, "quick", [job.notebook for job in jobs]).read_text().splitlines()
    body = report[report.index("## Verdicts") + 3 :]  # below the commit and the count of verdicts
    assert len(body) > 100
    assert not set(body) - set((REPOSITORY / "REPORT.md").read_text().splitlines())
