"""Figures and tables: the same input gives the same bytes, and each says what it rests on."""

import hashlib
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from mtl_study import artifacts, provenance


def test_a_figure_is_the_same_bytes_at_every_commit(tmp_path, monkeypatch):
    """The commit is in the manifest alone."""
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path))
    saved = []
    for commit in ("0123456789", "abcdef0123-dirty"):
        monkeypatch.setattr(artifacts, "commit", lambda commit=commit: commit)
        fig, ax = plt.subplots()
        ax.plot([1, 2], label="EDM")
        png = artifacts.save_figure(fig, "01_line", "smoke", "Title", "Caption.")
        assert fig.texts == []  # the stamp is on the file, not on the figure
        plt.close(fig)
        saved.append([png.with_suffix(suffix).read_bytes() for suffix in (".png", ".pdf")])
        assert json.loads(png.with_suffix(".json").read_text())["commit"] == commit
    assert saved[0] == saved[1]
    assert png == tmp_path / "smoke" / "figures" / "01_line.png"


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A function that begins an execution, in an empty folder of artifacts."""
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path))
    yield lambda *settings, **named: artifacts.begin(artifacts.Execution(*settings, **named))
    artifacts.begin(None)


def test_what_a_search_passes_over_is_behind_nothing(begun):
    """What was read before stays, whether it is met again or not."""
    begun("quick")
    for place in ("before", "met"):
        provenance.note(place, "f" * 64)
    with provenance.choosing() as taken:
        for place in ("met", "passed over", "taken"):
            provenance.note(place, "f" * 64)
        taken.add("taken")
    assert list(provenance.records()) == ["before", "met", "taken"]


def test_a_manifest_names_the_records_the_checksums_and_the_code(begun):
    begun("quick")
    provenance.note("multimnist/CL_RR/edm/0123456789abcdef", "f" * 64)
    artifacts.save_table(pd.DataFrame({"x": [1]}), "01_table", "quick", "Title", "Caption.")
    path = artifacts.folder("quick") / "tables" / "01_table.json"
    manifest = json.loads(path.read_text())
    assert manifest == {
        "title": "Title",
        "caption": "Caption.",
        "preset": "quick",
        "changed": [],
        "interactive": False,
        "commit": artifacts.commit(),
        "files": {
            f"01_table{suffix}": hashlib.sha256(path.with_suffix(suffix).read_bytes()).hexdigest()
            for suffix in (".csv", ".md")
        },
        "records": {"multimnist/CL_RR/edm/0123456789abcdef": "f" * 64},
    }


def test_what_differs_from_its_preset_says_so_and_lies_elsewhere(begun, tmp_path):
    """Under a label and in a folder of its own; a value gives the same folder each time, another value another."""
    cases = [
        ({}, "quick", "quick"),
        ({"changed": {"seeds": [1, 2]}}, "quick, changed: seeds", "quick-changed-"),
        ({"changed": {"seeds": [1, 3], "lr": 0.1}}, "quick, changed: seeds, lr", "quick-changed-"),
        ({"interactive": True}, "quick, interactive", "quick-interactive"),
        ({"changed": {"seeds": [1, 2]}, "interactive": True}, "quick, changed: seeds, interactive", "quick-changed-"),
    ]
    folders = []
    for settings, label, begins in cases:
        begun("quick", **settings)
        shown = artifacts.save_table(pd.DataFrame({"x": [1]}), "01_table", "quick", "", "Caption.").data
        assert shown.endswith(f"\nPreset {label}. Caption." if label != "quick" else "\nCaption.")
        folder = artifacts.folder("quick")
        assert artifacts.execution("quick").label == label
        assert folder.name.startswith(begins) and (folder / "tables/01_table.md").exists()
        assert json.loads((folder / "tables/01_table.json").read_text())["changed"] == list(settings.get("changed", {}))
        folders.append(folder)
    assert len(set(folders)) == len(cases) and folders[0] == tmp_path / "quick"
    begun("quick", changed={"seeds": [1, 2]})
    assert artifacts.folder("quick") == folders[1] and artifacts.folder("smoke") == tmp_path / "smoke"


def test_clearing_at_the_same_time_as_others_never_fails(tmp_path):
    for attempt in range(20):
        for number in range(30):
            path = tmp_path / "figures" / f"01_{number}.png"
            path.parent.mkdir(exist_ok=True)
            path.touch()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: artifacts.clear(tmp_path, "01_toy"), range(4)))
        assert not list((tmp_path / "figures").iterdir()), attempt


def test_outputs_in_a_notebook_are_no_change_of_code(tmp_path, monkeypatch):
    """JupyterLab saves them into the notebook; a changed cell is a change, and so is a changed module."""

    def git(*arguments):
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", *identity, "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    def commit():
        artifacts.commit.cache_clear()
        return artifacts.commit()

    def write(source, outputs):
        cell = {"cell_type": "code", "source": [source], "outputs": outputs}
        (tmp_path / "notebooks/01_toy.ipynb").write_text(json.dumps({"cells": [cell]}))

    for folder in ("mtl_core", "mtl_study", "notebooks", "params"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").write_text("a = 1\n")
    (tmp_path / "constraints.txt").touch()
    write("print(1)", [])
    git("init")
    git("add", ".")
    git("commit", "-m", "all")
    monkeypatch.setattr(artifacts, "REPOSITORY", tmp_path)
    clean = commit()
    assert len(clean) == 10
    write("print(1)", ["1"])
    assert commit() == clean
    write("print(2)", ["2"])
    assert commit() == f"{clean}-dirty"
    write("print(1)", [])
    (tmp_path / "mtl_core/a.py").write_text("a = 2\n")
    assert commit() == f"{clean}-dirty"
    artifacts.commit.cache_clear()


def test_a_table_keeps_its_numbers_in_csv_and_is_readable_in_markdown(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path))
    frame = pd.DataFrame({"smto": ["a|b", "edm"], "Δm": [-65.123456789, None], "lr": [1e-4, 0.5], "n": [3, 10]})
    shown = artifacts.save_table(frame, "01_table", "smoke", "Title", "Caption.", decimals={"Δm": 1})
    folder = tmp_path / "smoke" / "tables"
    assert pd.read_csv(folder / "01_table.csv").equals(frame)
    assert (folder / "01_table.md").read_text().splitlines() == [
        "| smto | Δm | lr | n |",
        "| :--- | ---: | ---: | ---: |",
        r"| a\|b | −65.1 | 0.0001 | 3 |",
        "| edm | – | 0.5 | 10 |",
    ]
    noise = pd.DataFrame({"off": [4.4e-16, -2e-13, 1e-9, 0.0]})  # of which the digits are those of one processor
    assert artifacts.to_markdown(noise).splitlines()[2:] == ["| < 1e−10 |", "| > −1e−10 |", "| 1e−09 |", "| 0 |"]
    assert shown.data.startswith("**Title**\n\n| smto |")
    assert shown.data.endswith("\nPreset smoke decides nothing. Caption.")


def test_an_index_is_shown_where_it_says_something():
    frame = pd.DataFrame({"x": [1]}, index=pd.Index(["edm"], name="smto"))
    assert artifacts.to_markdown(frame).splitlines()[0] == "| smto | x |"
    assert artifacts.to_markdown(frame.reset_index(drop=True)).splitlines()[0] == "| x |"
    wide = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("CL", "ours"), ("CL", "paper")]))
    assert artifacts.to_markdown(wide).splitlines()[0] == "| CL ours | CL paper |"


def test_a_name_without_the_number_of_its_notebook_is_refused():
    with pytest.raises(ValueError, match="'figure_1' is no name for one of the tables: expected the number"):
        artifacts.save_table(pd.DataFrame({"x": [1]}), "figure_1", "smoke", "", "")
