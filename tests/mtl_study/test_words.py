import math
from collections import Counter

import pytest

from mtl_study.words import counted, duration, first_sentence, listed, minus, number, percent, say, slug, spanned


@pytest.mark.parametrize(
    ("value", "digits", "sign", "text"),
    [
        (-8.952, 2, False, "−8.95"),
        (2.6, 1, True, "+2.6"),
        (-0.04, 1, False, "0.0"),  # no minus before nothing
        (0.04, 1, True, "0.0"),
        (19600, 0, False, "19,600"),
        (math.inf, 1, False, "∞"),
        (-math.inf, 1, False, "−∞"),
        (math.nan, 1, False, "no value"),
    ],
)
def test_a_number_is_written_as_in_a_sentence(value, digits, sign, text):
    assert number(value, digits, sign) == text


def test_a_percentage_keeps_its_sign_and_its_unit():
    assert percent(-13.5, sign=True) == "−13.5 %"


@pytest.mark.parametrize(
    ("items", "text"), [([], "none"), (["a"], "a"), (["a", "b"], "a and b"), (list("abc"), "a, b and c")]
)
def test_a_list_ends_with_and(items, text):
    assert listed(items) == text


def test_things_are_counted_in_singular_and_plural():
    assert [counted(n, "run") for n in (0, 1, 2, 7440)] == ["no runs", "1 run", "2 runs", "7,440 runs"]
    assert counted(2, "was", "were") == "2 were"


@pytest.mark.parametrize(
    ("numbers", "text"), [([], "no seeds"), ([1, 1], "1 seed"), ([3, 3], "3 seeds"), ([5, 1, 3], "1 to 5 seeds")]
)
def test_how_many_where_it_differs(numbers, text):
    assert spanned(numbers, "seed") == text


def test_a_minus_is_no_hyphen():
    assert minus("-1e-05") == "−1e−05"


@pytest.mark.parametrize(
    ("seconds", "text"), [(1, "1 second"), (40.4, "40 seconds"), (840, "14 minutes"), (8280, "2.3 hours")]
)
def test_a_duration_is_told_in_one_unit(seconds, text):
    assert duration(seconds) == text


def test_only_empty_lines_part_what_is_said():
    assert say("\n  one\n  two\n\n\n  three\n").data == "one two\n\nthree"


def test_a_heading_is_linked_as_on_github():
    """Letters and digits of any script and hyphens stay, punctuation goes, and one that occurs again gets a number."""
    seen = Counter[str]()
    headings = ["Δm, in %", "What w₁ = ½ means", "IMTL, IMTL-G", "Again", "Again", "again!"]
    assert [slug(heading, seen) for heading in headings] == [
        "δm-in-", "what-w---means", "imtl-imtl-g", "again", "again-1", "again-2",
    ]  # fmt: skip
    assert slug("Again") == "again"


def test_the_first_sentence_of_a_caption():
    """Neither a decimal point nor the label of the uniform loss ends one."""
    assert (
        first_sentence("Gaps of 0.5 under Unit. Scal., 3 seeds. Left: C.") == "Gaps of 0.5 under Unit. Scal., 3 seeds."
    )
    assert first_sentence("One run each. 2: the other.") == "One run each."
    assert first_sentence("No stop") == "No stop" and first_sentence("") == ""
