"""The register of differences says what the methods' files say."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field

from mtl_core import smtos
from mtl_study.artifacts import REPOSITORY
from mtl_study.publishing import methods, sheet

PAGES = methods.pages()


def test_the_register_on_disk_is_up_to_date():
    """After a change to a method's file: python -m mtl_study.publishing.methods, and the same of sheet."""
    assert methods.TARGET.read_text(encoding="utf-8") == methods.markdown()
    assert sheet.TARGET.read_text(encoding="utf-8") == sheet.markdown()


NO_METHODS = ("__init__", "adam", "base", "checks", "geometry", "registry", "released", "solvers", "wrapping")  # shared


def test_every_method_and_every_file_has_its_page():
    assert sorted(key for page in PAGES for key in page.keys) == smtos.keys()
    files = {f"mtl_core/smtos/{path.name}" for path in (REPOSITORY / "mtl_core" / "smtos").glob("*.py")}
    assert files - {f"mtl_core/smtos/{name}.py" for name in NO_METHODS} == {p.file for p in PAGES}


def test_every_page_has_a_method_that_agrees_with_something_else():
    found = methods.agreements()
    held = {key for one in found for key in one.methods}
    assert held <= set(smtos.keys())
    assert [page.file for page in PAGES if not held & set(page.keys)] == []


@pytest.mark.parametrize(
    ("body", "digits"),
    [
        ("assert_allclose(a, b)", 7),
        ("assert_allclose(a, b, atol=1e-9)", 7),
        ("assert_allclose(a, b, rtol=1e-9, atol=1e-12)", 9),
        ("np.testing.assert_allclose(a, b, rtol=1e-12)\n    assert_close(a, b, rtol=0, atol=0.04)", 1),
        ("assert_close(a, b)", 5),
        ("assert a == b", None),
    ],
)
def test_the_digits_are_those_of_the_widest_tolerance(tmp_path, body, digits):
    (tmp_path / "test_it.py").write_text(
        f"@pytest.mark.agrees('an oracle', 'edm', 'mgda')\ndef test_it():\n    {body}\n"
    )
    assert methods.agreements(tmp_path) == [methods.Agreement("an oracle", ("edm", "mgda"), digits, "test_it")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.file)
def test_a_page_names_formula_source_and_differences(page):
    """The formula is set off; the source has a year; the list of differences counts from 1 without a gap."""
    shown = methods.section(page)
    assert "```text\n" in shown and f"**Source:** {page.source}\n" in shown
    assert methods.cited(page.source)[-4:].isdigit()
    assert page.differs and all(f"\n{i}. {text}\n" in shown for i, text in enumerate(page.differs, start=1))


@pytest.mark.parametrize("key", smtos.keys())
def test_a_page_explains_every_option(key):
    frame = methods.options(key).set_index("option")
    assert list(frame.index) == list(smtos.options(key))
    assert list(frame.index[frame["what it does"] == ""]) == []
    for parent in smtos.get(key).__mro__[:-1]:  # no explanation of an option that is no more
        if parent.__module__ == smtos.get(key).__module__:
            assert set(methods.described(parent.__doc__ or "")) <= set(smtos.options(key))


def test_the_table_has_a_row_per_method_with_its_class_attributes():
    table = methods.table().set_index("key")
    assert set(table.index) == set(smtos.keys())
    assert table.loc["nash_mtl", "its heads get"] == "their own gradient × the task's weight"
    assert table.loc["mgda_ub", "reads"] == "gradients on the features"
    assert 'form="correct"' in table.loc["imtl_g", "options"]


def test_show_gives_the_page_of_one_method():
    text = methods.show("imtl_l").data
    assert text.startswith("#### IMTL") and 'form="transposed"' in text
    with pytest.raises(smtos.BadOption, match="nash_mtl"):
        methods.show("nash")


@pytest.mark.parametrize(
    "docstring",
    [
        "No source.\n\n    w = 1\n\nDiffers:\n1. None.",
        "No list.\n\n    w = 1\n\nSource: Somebody 2020.\n",
        "No formula.\nSource: Somebody 2020.\nDiffers:\n1. None.",
        "An empty list.\n\n    w = 1\n\nSource: Somebody 2020.\nDiffers:\n",
    ],
)
def test_a_page_that_lacks_a_part_is_refused(docstring):
    with pytest.raises(methods.BadPage, match=r"a_method\.py.*Source.*Differs"):
        methods.parse(docstring, "a_method.py", ("a_method",))


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Literal["mean", "sum"], '"mean" or "sum"'),
        (Literal[0, 1, 2], "0 or 1 or 2"),
        (Annotated[float, Field(ge=0, le=1)], "number ≥ 0, ≤ 1"),
        (Annotated[int, Field(gt=0)] | None, "whole number > 0 or None"),
        (list[float] | None, "list of: number or None"),
    ],
)
def test_the_values_of_an_option_in_words(annotation, words):
    assert methods.values(annotation) == words


@pytest.mark.parametrize(
    ("source", "short"),
    [
        ("Katrutsa, Merkulov, Tursynbek, Oseledets 2020, arXiv:2007.06937.", "Katrutsa et al. 2020"),
        ("Quinton, Rey 2024, arXiv:2406.16232.", "Quinton and Rey 2024"),
        ("a baseline of Navon et al. 2022, arXiv:2202.01017.", "Navon et al. 2022"),
    ],
)
def test_a_source_is_cited_short(source, short):
    assert methods.cited(source) == short
