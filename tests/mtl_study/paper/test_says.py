"""What the papers say, section by section: the numbers are those of the paper's tables."""

import pytest

from mtl_study import artifacts
from mtl_study.paper import published, rules
from mtl_study.paper.says import CLAIMS, says
from mtl_study.publishing import notebooks


def test_every_notebook_begins_with_what_is_said_and_where():
    numbers = [artifacts.number_of(path.stem) for path in notebooks.find(artifacts.REPOSITORY / "notebooks")]
    said = {number: says(number) for number in numbers}
    assert all(one.where and one.text.endswith(".") and len(one.text.split()) <= 60 for one in said.values())
    assert len(said) == len(set(said.values())) == len(numbers) and says("09") is None


@pytest.mark.parametrize(
    ("number", "parts"),
    [
        ("01", ["10 of 15 SMTOs", "uniform loss (−9.0 %)", "CAGrad, comes to −2.1 %, but none", "first 8"]),
        ("02", ["about −20 %"]),
        ("02b", ["about 0.7 where", "about 0.45 on", "about 0.3 on QM9"]),
        ("03", ["8 of 8 SMTOs", "(−5.3 %)", "EDM and IMTL beat the single-task"]),
        ("04", ["of 7 methods", "Nash-MTL, has a Δm of −53.6 %", "Auto-Lambda, −186.9 %", "loss −135.7 %"]),
        ("05", ["−3.3 % on CL_RR (the best SMTO −2.1 %", "0.1 % on 19C (the best SMTO 0.6 %", "−53.7 % on QM9"]),
    ],
)
def test_the_papers_numbers_are_in_its_sentences(number, parts):
    assert [part for part in parts if part not in says(number).text] == []


def test_the_sentences_follow_the_papers_tables(monkeypatch):
    """Nothing is typed: other numbers give another sentence."""
    table = published.table("table_3")
    table.loc["cagrad", "delta_m"], table.loc["mgda_ub", "delta_m"] = 1.25, -9.5
    monkeypatch.setattr(published, "table", lambda name: table)
    text = says("01").text
    assert "9 of 15 SMTOs" in text and "CAGrad, comes to 1.2 %, and some beat the single-task models" in text


def test_beyond_the_paper_the_words_are_those_of_the_claims():
    known = {id_: part for claim in rules.names() for id_, part in rules.named_parts(claim)}
    for number, claims in CLAIMS.items():
        said = says(number)
        for part in map(known.get, claims):
            assert not part.where.startswith("our test") and "Our test" not in part.says  # theirs, not ours
            assert part.says in said.text and part.where.split(",")[0] in said.where
    assert says("08").where == "Zhou et al. 2025, arXiv:2503.08006"
