"""Pages and REPORT.md from artifacts that are whole, damaged or incomplete: they tell which, and lose nothing."""

import dataclasses
import html
import io
import json
import re

import nbformat
import pandas as pd
import PIL.Image
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mtl_study import artifacts, parameters
from mtl_study.paper import answer, claims, rules
from mtl_study.publishing import notebooks, pages, report
from tests.mtl_study.publishing import crawl

PROPOSITIONS = claims.parts("C12")[0].rule.propositions


def anchors_of(markdown):
    """The anchors that GitHub gives the headings: lower case, no punctuation, hyphens for blanks, a number where one
    occurs again."""
    found = []
    for heading in re.findall(r"^#+ (.*)$", markdown, re.MULTILINE):
        slug = re.sub(r"[^\w -]", "", re.sub("[½₁₂]", "", html.unescape(heading)).lower()).replace(" ", "-")
        found.append(f"{slug}-{n}" if (n := sum(re.sub(r"-\d$", "", a) == slug for a in found)) else slug)
    return found


def test_a_picture_that_shows_the_same_keeps_its_bytes(house):
    """Another commit, another compression, and what nobody sees change no tracked picture; other pixels do."""
    house.report()
    tracked = house.repository / "docs/report/01_line.png"
    pixels, file = PIL.Image.open(tracked), io.BytesIO()
    pixels.save(file, "PNG", compress_level=1)
    assert file.getvalue() != tracked.read_bytes()
    tracked.write_bytes(file.getvalue())
    house.report()
    assert tracked.read_bytes() == file.getvalue()
    red, *others = pixels.convert("RGBA").getpixel((3, 3))
    for levels, kept in ((2, True), (3, False)):  # two are rounding on another processor
        other, file = pixels.convert("RGBA"), io.BytesIO()
        other.putpixel((3, 3), (red - levels, *others))
        other.save(file, "PNG")
        tracked.write_bytes(file.getvalue())
        house.report()
        assert (tracked.read_bytes() == file.getvalue()) is kept


def test_verdicts_as_data_are_the_same_on_every_processor(house):
    """The last digits of a number that is computed each time are those of one; the pages keep them."""
    path = house.folder / "claims/02_proofs.json"
    rows = json.loads(path.read_text())
    for estimate in (1 / 3, 0.33333333333333337):
        rows[0]["estimate"] = estimate
        path.write_text(json.dumps(rows))
        house.report()
        found = json.loads((house.repository / "docs/report/claims.json").read_text())
        assert next(row for row in found if row["id"] == rows[0]["id"])["estimate"] == 0.3333333333


def test_a_page_shows_beside_a_verdict_the_one_that_ships_at_another_preset(house, monkeypatch):
    """Below it, with its preset; not where it ships at this one, and not at smoke, which is no evidence."""
    monkeypatch.setattr(artifacts, "REPOSITORY", house.repository)
    house.report()
    ships = house.repository / pages.SHIPS
    (row,) = json.loads(ships.read_text())
    assert "at quick: " not in house.index()
    found = {"verdict": "not reproduced", "estimate": -3.4, "low": -4.5, "high": -2.3, "unit": "points", "n": 7}
    found["of"] = "R18"
    ships.write_text(json.dumps([row | found | {"preset": "overnight", "why": "below 0", "also": [{"reading": "x"}]}]))
    says = "at overnight: not reproduced, R18 with −3.40 points (−4.50 to −2.30)"
    assert says in house.index() and "at overnight" not in house.report().read_text()
    ships.write_text(json.dumps([row | found | {"preset": "overnight", "why": "below 0"}]))
    pages.write_index(house.folder, parameters.SHIPPED, house.sources)
    assert "at overnight" not in (house.folder / "index.html").read_text()  # it is what will ship
    (section,) = (one for one in pages.sections(house.folder, house.sources) if one.claims)
    pages.write_index(house.folder, "smoke", house.sources)
    assert "at overnight" not in (house.folder / "index.html").read_text()
    for preset, readings in (("quick", 1), ("overnight", 0)):
        claims = [claim | {"preset": preset} for claim in section.claims]
        (shown,) = pages.beside_what_ships(dataclasses.replace(section, claims=claims)).claims
        assert len(shown["also"]) == readings


def test_the_report_says_at_which_preset_a_notebook_was_run(house):
    """Also where each has its own."""
    text = house.report().read_text()
    assert text.startswith("# What we measured: preset quick\n") and text.count(" · Preset: quick\n") == 2
    for path in house.folder.glob("*/02_*.json"):
        note = json.loads(path.read_text())
        if "preset" in note:
            path.write_text(json.dumps(note | {"preset": "overnight"}))
    text = report.write_report(house.repository, "quick", house.sources).read_text()
    assert text.startswith("# What we measured: preset quick, in notebook 02 overnight\n")
    assert text.count(" · Preset: quick\n") == text.count(" · Preset: overnight\n") == 1
    pages.write_index(house.folder, parameters.SHIPPED, house.sources)
    assert "preset <b>quick, in notebook 02 overnight</b>" in (house.folder / "index.html").read_text()


def test_a_report_of_incomplete_artifacts_is_refused_by_name_and_nothing_is_removed(house):
    house.report()
    before = house.tracked()
    assert {"01_line.png", "02_line.png", "claims.json", "records.md", "REPORT.md"} == set(before)

    def refusal():
        with pytest.raises(report.NothingToShow) as error:
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
    with pytest.raises(report.NothingToShow, match=r"docs/report/01_line\.png"):
        house.report()
    house.report(drop=True)
    assert "01_line.png" not in house.tracked() and "02_line.png" in house.tracked()


def test_the_report_shows_the_figures_of_claims_and_names_the_others(house, monkeypatch):
    """All tables; of the figures those that a claim names. The others are named, with their notebook."""
    monkeypatch.setattr(rules, "figures", lambda: {"C12": ["02_line"]})
    text = house.report().read_text()
    assert "02_line.png" in house.tracked() and "01_line.png" not in house.tracked()
    assert text.count("![") == 1 and "](docs/report/02_line.png)" in text and text.count("### Numbers") == 2
    assert "More figures, in the notebook and by `make figure NAME=…`: Line (`01_line`)." in text
    assert text.count("More figures") == 1
    assert text.count(artifacts.commit()) == text.count("Code at commit ") == 1


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


def test_the_report_begins_with_the_answer_what_it_rests_on_and_the_guide(house, numbers):
    """In its first 60 lines: five sentences with numbers, the picture, the digits' size and epochs, and the guide,
    whose links lead somewhere; the page in HTML begins with the same."""
    for number, own in numbers.items():
        stem = {"01": "01_lines", "02": "02_proofs"}.get(number, f"{number}_x")
        path = house.sources[0].with_name(f"{stem}.ipynb")
        if path not in house.sources:
            name = answer.PICTURE if number == "05b" else f"{number}_line"
            cells = [new_markdown_cell(f"# On {stem}?"), new_code_cell(f'publish(ax, "{name}", preset, "Two tasks")')]
            nbformat.write(new_notebook(cells=cells), path)
            house.sources.append(path)
            house.run(path)
        basis = {"multimnist": "12,000 pairs, 10 epochs"} if number == "01" else {}
        sentences = [{"says": f"Found {number}.", "against": "but."}]
        artifacts.save_findings({"sentences": sentences, "numbers": {**own, "basis": basis}}, stem, "quick")
    for suffix in (".png", ".pdf", ".json"):
        (house.folder / f"figures/05b_line{suffix}").rename(house.folder / f"figures/{answer.PICTURE}{suffix}")
    text = house.report().read_text()
    lines = text.splitlines()
    top = "\n".join(lines[:60])
    sentences = [said.says for said in answer.answer(numbers)]
    assert len(sentences) == 5 and all(f"{i}. {sentence}" in top for i, sentence in enumerate(sentences, 1))
    assert all(any(digit in sentence for digit in "123456789") for sentence in sentences)
    assert f"](docs/report/{answer.PICTURE}.png)" in top and "* Digits: 12,000 pairs, 10 epochs." in top
    assert "## Should I use an SMTO?" in top and all(
        f"* **{a.topic}.** {a.says}" in top for a in answer.guide(numbers, {})
    )
    links = set(re.findall(r"\]\(#([^)]*)\)", text))
    assert {"01--on-01_lines", "05--on-05_x", "c12", "all-claims"} <= links <= set(anchors_of(text))
    assert "* Found 03. **But** but." in text
    page = house.index()
    first = page.partition('id="01_lines"')[0]
    assert all(html.escape(sentence, quote=False) in html.unescape(first) for sentence in sentences)
    assert first.index("Should I use an SMTO?") < first.index("What we found") and "12,000 pairs, 10 epochs" in first
    assert f'src="figures/{answer.PICTURE}.png"' in first and "Found 05. <b>But</b> but." in first


def test_a_notebook_that_should_say_what_it_found_and_did_not_stops_the_report(house):
    cells = [new_markdown_cell("# On lines"), new_code_cell("conclusions.conclude(found, preset=preset)")]
    nbformat.write(new_notebook(cells=cells), house.sources[0])
    with pytest.raises(report.NothingToShow, match="01_lines: nothing on what it found"):
        house.report()
    artifacts.save_findings({"sentences": [{"says": "A.", "against": "b."}], "numbers": {}}, "01_lines", "quick")
    text = house.report(drop=True).read_text()
    assert "* A. **But** b.\n" in text
    assert "### Notebook 01\n" in text and "What we found: [above](#notebook-01) · " in text
    (house.folder / "findings/01_lines.json").write_text('{"sentences": []}')
    assert "lacks sentences or numbers" in house.index()


def test_what_older_code_found_is_named_and_not_reported(house):
    """A page says what to do; a report is not written."""
    artifacts.save_findings({"sentences": [], "numbers": {"better": 1}}, "01_lines", "quick")
    assert "older code wrote it. Run the notebooks again." in html.unescape(house.index())
    with pytest.raises(pages.Unreadable, match="lacks 'methods': older code"):
        house.report()


# -- links and tables of the report ------------------------------------------------------------------------------------


def test_what_notebooks_left_for_the_explorer_is_in_the_page(house):
    """As data for its script, in which no tag can end; without such a file there is no explorer, and a damaged one is
    named."""
    assert 'id="explorer"' not in house.index()
    metrics = {"delta_m": "Δm", "CL": "class"}  # not in the order of letters: Δm is offered first
    one = {"problem": "p", "label": "</script>", "metrics": metrics, "methods": {}, "rows": {}}
    artifacts.save_findings({"problems": [one]}, "01_lines", "quick", kind="explorer")
    page = house.index()
    data = re.search(r'<script type="application/json" id="explored">(.*?)</script>', page)[1]
    assert json.loads(data) == [one] and '<a href="#explorer">' in page
    assert list(json.loads(data)[0]["metrics"]) == list(metrics)
    (house.folder / "explorer/01_lines.json").write_text('{"problems": [{"problem": "p"}]}')
    assert "a problem lacks its metrics, methods or rows. Run this notebook again." in house.index()


def test_a_figure_and_a_table_of_one_name_have_places_of_their_own(house, monkeypatch):
    monkeypatch.setattr(rules, "figures", lambda: {"C12": ["02_line"]})
    artifacts.save_table(pd.DataFrame({"x": [1]}), "02_line", "quick", "Rows", "Caption.")
    page = house.index()
    assert len(ids := re.findall(r' id="([^"]*)"', page)) == len(set(ids)), ids
    assert {"02_line", "02_line-table"} <= set(ids)
    assert page.count('<span class="badge yes">reproduced</span>') == 2  # the verdict on C12, there and in the table
    assert '<span class="badge yes">1 reproduced</span>' in page
    assert 'Shown in <a href="#02_line">Line</a>' in page and 'Shown in <a href="#02_line-table">' not in page


def decision(text, id_):
    """The paragraph of a claim, and its row in the table of all."""
    row = next(line for line in text.splitlines() if line.startswith(f"| [{id_}](#"))
    return text.partition(f"\n#### {id_}\n\n")[2].partition("\n")[0], pages.cells(row)


def test_the_section_of_a_claim_has_the_number_that_the_table_of_all_has(house):
    """In the unit of the thing, with what the rule asks for; of several methods, whose number it is."""
    claim, path = {"where": "s", "rule": "r."}, house.folder / "claims/02_proofs.json"
    (row,) = json.loads(path.read_text())
    several = "holds for 9 of 15; the one that decides is Auto-Lambda with 4.60 points; the rule asks for more than 0"
    one_rate = {"reading": "at one rate", "verdict": "open", "estimate": 1.5, "low": -1.0, "high": 4.0, "n": 5}
    one_rate |= {"unit": "points", "of": "CAGrad"}
    for ours, why, also, said in (
        ("828 times (528 to 1,294); the rule asks for more than 10 times", "the whole interval is above 10 times", [],
         "**Reproduced**, the whole interval is above 10 times. We measured: 828 times (528 to 1,294); the rule asks "
         "for more than 10 times. Claim (s): "),
        (several, "at least 9 of 15 methods, and it takes 8", [one_rate],
         "**Reproduced**, at least 9 of 15 methods, and it takes 8; at one rate: open, CAGrad with 1.50 points (−1.00 "
         f"to 4.00). We measured: {several}. Claim (s): "),
    ):  # fmt: skip
        path.write_text(json.dumps([row | claim | {"ours": ours, "why": why, "also": also}]))
        text = house.report().read_text()
        found, cells = decision(text, "C12")
        assert found.startswith(said) and cells[3] == ours, found


def test_the_records_of_a_part_are_those_of_its_claim(house):
    """A claim is judged as a whole: its parts say that the records are of all of them."""
    source, folder = house.repository / "notebooks/02_proofs.ipynb", house.folder / "claims"
    before, (row,) = source.read_text(), json.loads((folder / "02_proofs.json").read_text())
    manifest = json.loads((folder / "02_proofs/C12.json").read_text()) | {"records": {"multimnist/CL/edm/a": ""}}
    for claim, ids, of in (("C12", ["C12"], "Records"), ("C11", ["C11a", "C11b", "C11c"], "Records of all parts")):
        source.write_text(before.replace('\\"C12\\"', f'\\"{claim}\\"'))
        (folder / "02_proofs.json").write_text(json.dumps([row | {"id": id_} for id_ in ids]))
        (folder / f"02_proofs/{claim}.json").write_text(json.dumps(manifest))
        text = house.report(drop=True).read_text()
        assert all(f". {of}: [1](docs/report/records.md#" in decision(text, id_)[0] for id_ in ids)


def test_every_link_of_the_report_lands_and_claims_and_figures_link_to_each_other(house):
    """In both notebooks a figure is called "Line": the second one has another anchor."""
    text = house.report().read_text()
    anchors, links = anchors_of(text), re.findall(r"\]\(#([^)]*)\)", text)
    assert len(anchors) == len(set(anchors)) and {"line", "line-1", "numbers-1"} <= set(anchors)
    assert set(links) <= set(anchors)
    contents = text.partition("## Contents")[2].partition("\n## ")[0]
    assert re.findall(r"\* \[(.*?)\]", contents) == ["01 · On 01_lines", "02 · On 02_proofs", "All claims"]
    assert text.index("#### C12") < text.index("## All claims") < text.index("| [C12](#c12) |")
    assert "\n## All claims\n\n1 reproduced. As data: " in text
    head = next(line for line in text.partition("\n## All claims\n")[2].splitlines() if line.startswith("|"))
    assert pages.cells(head) == ["Claim", "Statement", "Paper", "We measured", "n", "Verdict"]
    for path in re.findall(r"\]\(((?:notebooks|docs)/[^)]*)\)", text):
        assert (house.repository / path).exists(), path


def test_a_figure_that_shows_a_claim_is_linked_from_it_and_back(house, monkeypatch):
    monkeypatch.setattr(rules, "figures", lambda: {"C1": ["01_line"], "C12": ["02_line", "02_numbers", "03_elsewhere"]})
    text = house.report().read_text()
    own = text.partition("## 02 · ")[2]
    assert "Shown in: [Line](#line-1), [Numbers](#numbers-1)." in own
    assert own.count(" · Shows: [C12](#c12)\n") == 2 and "Shows:" not in text.partition("## 02 · ")[0]
    page = house.index()
    claim = re.search(r'<article class="claim" id="claim-C12">.*?</article>', page, re.DOTALL)[0]
    assert 'href="#02_line"' in claim and 'href="claims/02_proofs/C12.json"' in claim and "decided by:" in claim
    figure = re.search(r'<figure class="card" id="02_line">.*?</figure>', page, re.DOTALL)[0]
    assert 'href="#claim-C12"' in figure and 'href="figures/02_line.json"' in figure


def test_from_every_sentence_of_the_report_rule_figure_records_and_code_are_two_links_away():
    """Those of the first page, of the guide and of what was found; a claim, a figure or a table has its own one link
    away. With a link dropped it is not so."""
    text = (artifacts.REPOSITORY / "REPORT.md").read_text()

    def far(report):
        return list(crawl.far_in_report(report, artifacts.REPOSITORY))

    assert far(text) == []
    for at_first in re.findall(r"^(?:\d\.|\*) .*( \(\[.*\))$", text.partition("## Contents")[0], re.MULTILINE):
        assert far(text.replace(at_first, "", 1)), at_first
    place = re.compile(r"^#### C1a\n.*?(?=^#)|^### Figure 1: .*?(?=^#)", re.DOTALL | re.MULTILINE)
    for body in (found[0] for found in place.finditer(text)):
        for pattern in (r"Records[^:]*: \[.*?\]\([^)]*\)", r"Code: \[.*?\]\([^)]*\)", r"Sho(?:ws|wn in): .*"):
            if "Shows" not in body or "Sho" not in pattern:
                assert far(text.replace(body, re.sub(pattern, "", body), 1)), (body[:20], pattern)
    assert far(re.sub(r"^Verdicts: .*", "", text, flags=re.MULTILINE)) and far(text.replace("Rule: ", ""))
    assert far(re.sub(r"^Shown: .*", "", text, flags=re.MULTILINE))


def test_from_every_sentence_of_the_page_everything_is_two_links_away(house, numbers, monkeypatch):
    """As in the report, with the rule of the claim, the page of the notebook and the manifests."""
    monkeypatch.setattr(rules, "figures", lambda: {"C12": ["02_line"]})
    said = answer.Said("So it is.", claims=("C12",), pictures=("02_line",))
    monkeypatch.setattr(answer, "answer", lambda found: [said])
    artifacts.save_findings({"sentences": [{"says": "C12 holds.", "against": ""}], "numbers": {}}, "02_proofs", "quick")
    for path in house.sources:
        (house.folder / "notebooks" / f"{path.stem}.html").write_text("a page")
    page = house.index()
    assert "So it is. <span" in page and '<a href="#claim-C12">C12</a> holds.' in page
    assert "<b>What the paper says</b> (section 3.2, figure 2)" in page
    assert list(crawl.far_in_index(page, house.folder)) == []
    for link in ('<a href="#claim-C12">C12</a>, <a href="#02_line">', "decided by:", "claims/02_proofs/C12.json"):
        assert page.count(link) and list(crawl.far_in_index(page.replace(link, ""), house.folder)), link


def test_the_records_behind_a_figure_are_named_and_led_to(house):
    """What rests on the same records has one entry; a file that is not there has no link."""
    folder = house.folder / "figures/01_line.json"
    places = [f"multimnist/CL/edm/{key * 16}" for key in "ab"]
    folder.write_text(json.dumps(json.loads(folder.read_text()) | {"records": dict.fromkeys(places, "")}))
    (shipped := house.repository / "results/multimnist/CL/edm.jsonl").parent.mkdir(parents=True)
    for name in ("[multimnist/CL/edm](../../results/multimnist/CL/edm.jsonl)", "multimnist/CL/edm"):
        shipped.unlink(missing_ok=True)
        if name.startswith("["):
            shipped.write_text("")
        text = house.report().read_text()
        listed = (house.repository / "docs/report/records.md").read_text()
        assert "Records: [2](docs/report/records.md#01-2-records)" in text
        assert "Records: none (computed in the notebook)" in text
        assert "### 01: 2 records\n\nBehind [Line](../../REPORT.md#line)." in listed
        assert f"* {name}: aaaaaaaa, bbbbbbbb\n" in listed and "## 02" not in listed


def test_a_record_behind_two_pictures_is_one_record_of_the_notebook(house):
    """The figure rests on a and b, the table on b and c: together on three."""
    for name, keys in (("figures/01_line.json", "ab"), ("tables/01_numbers.json", "bc")):
        path = house.folder / name
        places = [f"multimnist/CL/edm/{key * 16}" for key in keys]
        path.write_text(json.dumps(json.loads(path.read_text()) | {"records": dict.fromkeys(places, "")}))
    opening = house.report().read_text().partition("\n## 01 · ")[2].partition("\n### ")[0]
    assert "Records: [3](docs/report/records.md#01--on-01_lines)" in opening


def test_every_claim_is_shown_by_pictures_that_a_notebook_publishes():
    sources = [notebooks.read(path) for path in notebooks.find(artifacts.REPOSITORY / "notebooks")]
    names = rules.figures()
    judged = {claim for source in sources for claim, _ in notebooks.judged(source).values()}
    assert judged == set(names)
    text = "\n".join(cell.source for source in sources for cell in source.cells if cell.cell_type == "code")
    published = set(re.findall(r'"(\d\d[a-z]?_[a-z0-9_]+)"', text))
    assert {claim: left for claim, found in names.items() if (left := set(found) - published)} == {}


def test_a_table_wider_than_a_page_is_folded_and_nothing_is_lost():
    """The columns that tell rows apart are repeated; a table that fits stays as it is."""
    narrow = artifacts.to_markdown(pd.DataFrame({"a": ["x"], "b": [1.5]})).rstrip()
    assert report.folded(narrow) == narrow == report.unfolded(narrow)
    frame = pd.DataFrame(
        {"problem": ["p", "p", "q"], "method": ["a", "b", "a"]} | {f"column {i} a|b": [i, 2.5, 3] for i in range(20)}
    )
    wide = artifacts.to_markdown(frame).rstrip()
    folded = report.folded(wide)
    blocks = folded.split("\n\n")
    assert len(blocks) > 1 and all(block.startswith("| problem | method | column") for block in blocks)
    assert all(
        sum(map(report._least, zip(*map(pages.cells, block.split("\n")), strict=True))) <= report.WIDTH
        for block in blocks
    )
    assert report._least(["Claim", ":---", "[C1](#a-long-address)"]) == report._least(["Claim", ":---", "C1"])
    widths = [len(pages.cells(block.split("\n")[0])) for block in blocks]
    assert max(widths) - min(widths) <= 2 and report.unfolded(folded) == wide


def test_no_table_of_the_report_is_wider_than_a_page():
    text = (artifacts.REPOSITORY / "REPORT.md").read_text()
    tables = re.findall(r"^\|.*\n\| :?-.*\n(?:\|.*\n)*", text, re.MULTILINE)
    wide = [t.split("\n")[0] for t in tables if report.folded(t.rstrip()) != t.rstrip()]
    assert tables and wide == []
