"""Pages and REPORT.md from artifacts that are whole, damaged or incomplete: they tell which, and lose nothing."""

import io
import json

import nbformat
import pandas as pd
import PIL.Image
import pytest
from nbformat.v4 import new_markdown_cell, new_notebook

from mtl_study import artifacts
from mtl_study.paper import claims
from mtl_study.publishing import notebooks, pages

PROPOSITIONS = claims.parts("C12")[0].rule.propositions


def test_a_picture_that_shows_the_same_keeps_its_bytes(house):
    """Another commit, and another compression of the same pixels, change no tracked picture; other pixels do."""
    house.report()
    tracked = house.repository / "docs/report/01_line.png"
    pixels, file = PIL.Image.open(tracked), io.BytesIO()
    pixels.save(file, "PNG", compress_level=1)
    assert file.getvalue() != tracked.read_bytes()
    tracked.write_bytes(file.getvalue())
    house.report()
    assert tracked.read_bytes() == file.getvalue()
    other, file = pixels.copy(), io.BytesIO()
    other.putpixel((3, 3), (1, 2, 3, 255))
    other.save(file, "PNG")
    tracked.write_bytes(file.getvalue())
    house.report()
    assert tracked.read_bytes() != file.getvalue()


def test_a_report_of_incomplete_artifacts_is_refused_by_name_and_nothing_is_removed(house):
    house.report()
    before = house.tracked()
    assert {"01_line.png", "02_line.png", "claims.json", "REPORT.md"} == set(before)

    def refusal():
        with pytest.raises(pages.NothingToShow) as error:
            house.report()
        assert house.tracked() == before
        return str(error.value)

    (house.folder / "figures/01_line.png").unlink()
    assert "docs/report/01_line.png" in refusal() and "DROP=1" in refusal()
    (house.folder / "claims/02_proofs.json").unlink()
    assert "02_proofs: no verdict on C12" in refusal() and "the verdict on C12, which the last report has" in refusal()
    (house.folder / "notebooks/01_lines.ipynb").unlink()
    assert "01_lines: it has not been run" in refusal()
    (house.folder / "notebooks/02_proofs.ipynb").rename(house.folder / "notebooks/02_proofs.failed.ipynb")
    assert "02_proofs: it failed" in refusal()


def test_what_a_notebook_no_longer_draws_leaves_the_report_only_when_asked(house):
    house.report()
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Empty")]), house.sources[0])
    artifacts.clear(house.folder, "01_lines")
    house.run(house.sources[0])
    (house.folder / "figures/01_line.png").unlink()
    with pytest.raises(pages.NothingToShow, match=r"docs/report/01_line\.png"):
        house.report()
    house.report(drop=True)
    assert "01_line.png" not in house.tracked() and "02_line.png" in house.tracked()


def test_the_report_reads_unchanged_presets_only(house):
    """Of what was run with other parameters, or by hand in JupyterLab, it knows nothing."""
    before = house.report().read_bytes()
    for settings in ({"changed": {"seeds": [1]}}, {"interactive": True}):
        artifacts.begin(artifacts.Execution("quick", **settings))
        artifacts.save_table(pd.DataFrame({"x": [7.0]}), "01_numbers", "quick", "Numbers", "Other.")
        assert house.report().read_bytes() == before
        artifacts.begin(None)


def test_an_unchanged_preset_that_was_run_by_hand_counts(house):
    """Nobody says when such a run has ended: it has when all is there that the notebook draws and judges."""
    for path in house.sources:
        artifacts.begin(artifacts.Execution("quick"), path.stem)
        house.run(path, artifacts.BY_HAND)
    assert house.report().exists()
    assert "Run by hand" in house.index()
    (house.folder / "tables/01_numbers.md").unlink()
    page = house.index()
    assert "1 of 2 notebooks did not come to their end" in page and "it has not come to its end." in page


def test_a_page_says_at_its_top_which_notebooks_failed_and_which_claims_are_missing(house):
    """And one that was interrupted is not one that has not been run."""
    assert "did not come to their end" not in house.index()
    for stem, mark in (("01_lines", ".begun"), ("02_proofs", ".failed.ipynb")):
        artifacts.clear(house.folder, stem)
        file = house.folder / "notebooks" / f"{stem}{mark}"
        stopped = new_notebook(metadata={"failure": "Stopped in cell [4]: KeyError"})
        file.write_text(nbformat.writes(stopped) if mark.endswith("ipynb") else "")
    file.with_suffix(".html").write_text("up to the error")
    top = house.index().partition("</main>")[0].partition("<main>")[2].partition("<section")[0]
    assert "2 of 2 notebooks did not come to their end" in top
    assert "was interrupted, or still runs" in top and "failed; without a verdict: C12" in top
    page = house.index()
    assert "Stopped in cell [4]: KeyError" in page and 'href="notebooks/02_proofs.failed.html"' in page
    assert "Not run yet" not in page


def test_a_damaged_executed_notebook_blocks_nothing(house):
    """It counts as failed and is named; the others are shown."""
    for name in ("01_lines.ipynb", "01_lines.failed.ipynb"):
        for text in ("", '{"cells": [', "[]", "{}", "null", "\x00", "\udcff"):
            path = house.folder / "notebooks" / name
            path.write_bytes(text.encode(errors="surrogateescape"))
            section, other = pages.sections(house.folder, house.sources)
            assert (section.state, other.state) == ("failed", "done"), (name, text)
            assert name in section.failure and "Run this notebook again." in section.failure, (name, text)
    assert name in house.index()


def test_what_another_command_takes_away_meanwhile_is_passed_over(house, monkeypatch):
    """A file that is listed and gone a moment later is no error."""
    read = pages._load

    def vanishing(path):
        if path.name == "01_numbers.json":
            path.unlink()
        return read(path)

    monkeypatch.setattr(pages, "_load", vanishing)
    assert "01_line.png" in house.index()


def test_the_claims_and_pictures_of_a_notebook_are_read_from_its_cells(house):
    source = notebooks.read(house.sources[1])
    assert notebooks.claims_of(source) == ["C12"] and notebooks.pictures_of(source) == ["02_line", "02_numbers"]
    (row,) = json.loads((house.folder / "claims/02_proofs.json").read_text())
    assert row["id"] == "C12" and row["verdict"] == "reproduced"
    evidence = pd.read_csv(house.folder / "claims/02_proofs/C12.csv")
    assert list(evidence.proposition) == PROPOSITIONS
