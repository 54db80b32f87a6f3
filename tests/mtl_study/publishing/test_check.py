"""Numbers compared with the shipped ones, notebooks with what they rest on, and the preset with what was run."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ET

import nbformat
import pytest

from mtl_study import artifacts, commands, execution, parameters
from mtl_study.publishing import check, notebooks, pages, summary, touched

REPOSITORY = artifacts.REPOSITORY
ROW = {"id": "C12", "estimate": 10.0, "low": 8.0, "high": 12.0, "n": 5, "verdict": "open"}


@pytest.mark.parametrize(
    ("ours", "theirs", "exact", "allowed", "how"),
    [
        (1.0, 1.0, True, 0.0, "same"),
        (None, None, True, 0.0, "same"),
        (1.0 + 1e-9, 1.0, True, 0.0, "same"),  # another order of a few sums
        (1.0 + 1e-5, 1.0, True, 0.0, "drift"),  # the same records give the same number
        (1.005, 1.0, False, 0.0, "rounding"),  # on another kind of machine
        (1.02, 1.0, False, 0.0, "drift"),
        (0.001, -0.001, False, 0.1, "rounding"),  # small against its interval
        (5, 6, False, 10.0, "drift"),  # seeds and checks are counted, not rounded
        (None, 1.0, False, 10.0, "drift"),
        (float("nan"), 1.0, False, 10.0, "drift"),
        (float("inf"), 1.0, False, 10.0, "drift"),
    ],
)
def test_a_number_is_the_same_is_rounded_or_has_drifted(ours, theirs, exact, allowed, how):
    assert check.compared(ours, theirs, exact, allowed) == how


@pytest.mark.parametrize(
    ("ours", "exact", "how"),
    [
        ("| edm | −1.25 | 1,000 |", True, None),
        ("| edm | −1.26 | 1,000 |", True, "rounding"),  # the last digit
        ("| edm | −1.35 | 1,000 |", True, "drift"),
        ("| edm | −1.25 | 1,009 |", False, "rounding"),
        ("| edm | −1.25 | 1,100 |", False, "drift"),
        ("| si | −1.25 | 1,000 |", False, "drift"),
        ("| edm | – | 1,000 |", False, "drift"),
        ("| edm | −1.25 | 1,000 |\n| si | 1 | 2 |", False, "drift"),
    ],
)
def test_a_table_differs_in_digits_or_in_substance(ours, exact, how):
    found = check.compared_tables(ours, "| edm | −1.25 | 1,000 |", exact)
    assert (found and found[0]) == how


def test_a_table_is_found_whatever_its_title():
    report = "### Mean |w|, by task\n\n| a |\n| --- |\n| 1 |\n\nIts caption.\n\n### A figure\n\n![](a.png)\n"
    assert check.TABLE.findall(report) == [("Mean |w|, by task", "| a |\n| --- |\n| 1 |")]


def test_numbers_are_held_against_the_shipped_verdicts_and_tables(house, monkeypatch):
    """Strictly on a machine of the kind that made the shipped records, else with room for rounding."""
    house.report()
    shipped = house.repository / "docs/report/claims.json"
    path = house.folder / "claims/02_proofs.json"
    (whole,) = json.loads(path.read_text())

    def found(strict, **changed):
        monkeypatch.setattr(check.Shipped, "strict", lambda *_: strict)
        path.write_text(json.dumps([{**whole, **ROW, **changed}]))
        shown = pages.sections(house.folder, house.sources)
        return [(d.what, d.kind) for d in check.differences(house.repository, shown, house.folder)]

    shipped.write_text(json.dumps([{**ROW, "preset": "quick"}]))
    assert found(True) == found(False) == []
    assert found(True, estimate=10.1) == [("C12", "drift")] and found(False, estimate=10.1) == [("C12", "rounding")]
    assert found(False, estimate=10.1, verdict="reproduced") == [("C12", "rounding")]  # an end has crossed its line
    assert found(False, verdict="reproduced") == [("C12", "drift")] and found(False, n=4) == [("C12", "drift")]
    assert found(False, estimate=13.0) == [("C12", "drift")]
    report = house.repository / "REPORT.md"
    report.write_text(report.read_text().replace("| 1.25 |", "| 1.45 |", 1))
    assert found(False) == [("Numbers", "drift")]
    report.write_text(report.read_text().replace("### Numbers\n", "### Figures\n", 1))
    assert found(True) == [("Numbers", "drift"), ("Figures", "drift")]  # one is new, the other is not made any more
    path.unlink()
    shown = pages.sections(house.folder, house.sources)
    assert ("C12", "drift") in [(d.what, d.kind) for d in check.differences(house.repository, shown, house.folder)]


def test_shipped_records_are_strict_wherever_they_are_read(monkeypatch):
    monkeypatch.setattr(check.evidence, "here", lambda: "cpu (arm64), NEON")
    known = check.Shipped({"a": "1", "b": "2"}, {"cpu (x86_64), AVX512"})
    assert known.strict({"a": "1"}) and not known.strict({"a": "2"}) and not known.strict({"c": "3"})
    assert not known.strict({})  # what is computed again
    monkeypatch.setattr(check.evidence, "here", lambda: "cpu (x86_64), AVX512")
    assert known.strict({}) and known.strict({"c": "3"})
    shipped = check.Shipped.read(REPOSITORY / "results")
    assert len(shipped.records) > 500 and all(len(checksum) == 64 for checksum in shipped.records.values())
    assert all("instruction set unknown" not in kind for kind in shipped.kinds)


def test_drift_fails_a_claim_and_a_verdict_does_not(house):
    """In JUnit XML: a case per notebook, claim and drifted table."""
    shown = pages.sections(house.folder, house.sources)
    drift = [check.Difference("02_proofs", "C12", "estimate is 1, shipped 2", "drift")]
    drift += [check.Difference("01_lines", "Numbers", "1 numbers differ", "drift")]
    rounding = [check.Difference("02_proofs", "C12", "a digit", "rounding")]
    for found, failed in (([], []), (rounding, []), (drift, ["C12", "Numbers"])):
        summary.write(house.folder, "quick", commands.PASSED, shown, found)
        cases = ET.parse(house.folder / "junit.xml").getroot()
        assert [case.get("name") for case in cases if case.find("failure") is not None] == failed
        assert {"01_lines", "02_proofs", "C12"} <= {case.get("name") for case in cases}
        written = json.loads((house.folder / "summary.json").read_text())
        assert [claim["against_shipped"] for claim in written["claims"]] == [found[0].says if found else ""]


# -- what a change touches ---------------------------------------------------------------------------------------------


def test_a_notebook_is_touched_by_what_it_hangs_on(house):
    source, preset = house.sources[0], house.repository / "params/quick/01_lines.yaml"
    preset.parent.mkdir(parents=True)
    preset.write_text("preset: quick\n")
    (house.repository / "constraints.txt").write_text("torch==1\n")

    def files():
        return touched.since_executed(house.repository, source, "quick", house.folder)

    assert len(files()) == 3  # it was executed by an older version, which kept no hashes
    executed = notebooks.read(house.folder / "notebooks/01_lines.ipynb")
    executed.metadata["inputs"] = touched.stamp(house.repository, source, "quick")
    nbformat.write(executed, house.folder / "notebooks/01_lines.ipynb")
    assert files() == []
    notebook = notebooks.read(source)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="printed")]
    nbformat.write(notebook, source)
    assert files() == []
    preset.write_text("preset: quick\nlr: 1\n")
    assert files() == ["params/quick/01_lines.yaml"]
    notebook.cells[1].source += "\nx = 1"
    nbformat.write(notebook, source)
    assert files() == ["notebooks/01_lines.ipynb", "params/quick/01_lines.yaml"]
    with pytest.raises(ValueError, match="git does not know 'nowhere'"):
        touched.since_commit(house.repository, source, "quick", "nowhere")


def test_a_change_of_one_figure_touches_its_notebook_alone():
    """Of the real ones: what draws streets touches 03; what plans runs, which every first cell checks, touches all."""
    of = {}
    for path in notebooks.find(REPOSITORY / "notebooks"):
        of[artifacts.number_of(path.stem)] = {
            p.relative_to(REPOSITORY).as_posix() for p in touched.inputs(REPOSITORY, path, "quick")
        }

    def touched_by(file):
        return [number for number, files in of.items() if file in files]

    assert touched_by("mtl_study/plots/cityscapes.py") == ["03"] and touched_by("mtl_study/plots/prices.py") == ["05b"]
    assert {"01", "02", "02b", "03", "04", "05", "05b", "05c"} <= set(touched_by("mtl_study/experiments/protocol.py"))
    for file in ("mtl_core/smtos/edm.py", "mtl_study/look.py", "mtl_study/paper/data/claims.yaml"):
        assert touched_by(file) == list(of), file
    assert touched_by("params/quick/03_cityscapes_ladder.yaml") == ["03"]
    assert "results/multimnist/CL_RR/edm.jsonl" in of["01"]
    (source,) = (path for path in notebooks.find(REPOSITORY / "notebooks") if path.stem.startswith("07"))
    ships = {path.relative_to(REPOSITORY).as_posix() for path in touched.inputs(REPOSITORY, source, "shipped")}
    assert {"params/shipped.yaml", "params/overnight/07_optimizers.yaml"} == ships - of["07"]


# -- unchanged or not --------------------------------------------------------------------------------------------------


def test_a_parameter_that_differs_from_its_preset_is_a_change_and_a_place_is_none():
    preset = {"preset": "quick", "seeds": [1, 2], "lr": 0.1, "store": "results", "details": {"grid": [1], "n": 2}}
    same = {**preset, "store": "runs/mine", "data_dir": "/data", "device": "cpu", "other": 1}
    assert execution.changed(preset, preset) == {} and execution.changed(same, preset) == {}
    changed = {**preset, "seeds": [1, 3], "details": {"grid": [1], "n": 3}}
    assert execution.changed(changed, preset) == {"seeds": [1, 3], "details.n": 3}


def test_a_notebook_that_begins_says_what_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path))
    values = parameters.preset_values(REPOSITORY / "params/smoke/01_mnist_selection.yaml")
    old = tmp_path / "smoke/figures/01_old.png"
    old.parent.mkdir(parents=True)
    for changes, label, stays in (({"seeds": [7]}, "smoke, changed: seeds", True), ({"store": "x"}, "smoke", False)):
        old.touch()
        begun = execution.begin("01_mnist_selection", {**values, **changes}, values)
        assert (begun.label, old.exists()) == (label, stays)  # each clears its own folder
        assert (tmp_path / begun.folder / "notebooks/01_mnist_selection.by_hand").exists()
    monkeypatch.setenv(artifacts.REPRODUCED, str(tmp_path / "shipped"))
    old.touch()
    execution.begin("01_mnist_selection", values, values)
    assert old.exists()  # cleared by the command, which marks its notebooks itself
    assert artifacts.folder("smoke") == tmp_path / "shipped"
    changed = execution.begin("01_mnist_selection", {**values, "seeds": [7]}, values)  # the file, meanwhile
    assert artifacts.folder("smoke") == tmp_path / changed.folder != tmp_path / "shipped"
    artifacts.begin(None)


@pytest.mark.slow
def test_a_preset_by_papermill_is_that_of_make_reproduce(tmp_path, monkeypatch):
    """06 at smoke, by hand: as it is it counts, with another value it has a label and a folder of its own."""
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path))
    source = REPOSITORY / "notebooks/06_proofs.ipynb"
    command = [sys.executable, "-m", "papermill", str(source), str(tmp_path / "out.ipynb"), "-k", "python3"]
    command += ["-f", str(REPOSITORY / "params/smoke/06_proofs.yaml")]
    for changes in ([], ["-y", "details: {resolution: 20}"]):
        subprocess.run([*command, *changes], check=True, cwd=REPOSITORY, capture_output=True)
    whole, changed = sorted(tmp_path.glob("smoke*/figures"), key=lambda path: len(str(path)))
    assert whole == tmp_path / "smoke/figures" and "changed" in changed.parent.name
    (section,) = pages.sections(tmp_path / "smoke", [source])
    assert section.state == "done" and not section.missing
    manifest = json.loads(next(changed.glob("*.json")).read_text())
    assert manifest["changed"] == ["details.resolution"]
