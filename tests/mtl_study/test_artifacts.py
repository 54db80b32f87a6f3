"""Figures and tables: the same input gives the same bytes."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from mtl_study import artifacts


def test_a_figure_is_the_same_bytes_twice_and_stamped(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path))
    saved = []
    for _ in range(2):
        fig, ax = plt.subplots()
        ax.plot([1, 2], label="EDM")
        png = artifacts.save_figure(fig, "01_line", "smoke", "Title", "Caption.")
        assert fig.texts == []  # the stamp is on the file, not on the figure
        plt.close(fig)
        saved.append([png.with_suffix(suffix).read_bytes() for suffix in (".png", ".pdf", ".json")])
    assert saved[0] == saved[1]
    assert png == tmp_path / "smoke" / "figures" / "01_line.png"
    assert b'"preset": "smoke"' in saved[0][2]


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
