"""Numbers and lists as words, for the sentences that notebooks print about what they measured; and what links call
headings."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.display import Markdown

KEPT = {"Ll", "Lm", "Lo", "Lt", "Lu", "Mc", "Me", "Mn", "Nd", "Pc"}  # categories of what GitHub keeps of a heading


def minus(text: str) -> str:
    """A number as text, its hyphens made true minus signs."""
    return text.replace("-", "−")


def untagged(text: str) -> str:
    """Text or Markdown in which nothing is an HTML tag: a `<` that would begin one is shown as it is."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)


def first_sentence(text: str) -> str:
    """The first sentence of a text: up to a space before a capital, a sign or a digit, but not within "Unit. Scal."."""
    return re.split(r"(?<=[.!?])(?<!Unit\.)\s+(?=[^a-z])", text.strip(), maxsplit=1)[0]


def described(title: str, caption: str) -> str:
    """A picture in words, for those who do not see it: its title, and the first sentence of its caption."""
    return f"{title}: {first_sentence(caption)}" if caption.strip() else title


def number(value: float, digits: int = 1, sign: bool = False) -> str:
    """A number with a true minus and a comma per thousand; with `sign` a plus before what is above zero."""
    if math.isnan(value):
        return "no value"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:+,.{digits}f}" if sign else f"{value:,.{digits}f}"
    if not any(digit in text for digit in "123456789"):
        text = text.lstrip("+-")  # neither −0.0 nor +0.0
    return minus(text)


def known(value: float, digits: int = 2) -> str:
    """A number, or a dash where there is none."""
    return "–" if math.isnan(value) else number(value, digits)


def interval(mean: float, low: float, high: float) -> str:
    """ "+1.20 [0.40, 2.00]", or a dash where there is none."""
    return "–" if math.isnan(mean) else f"{number(mean, 2, sign=True)} [{number(low, 2)}, {number(high, 2)}]"


def bounded(mean: float, low: float, high: float, digits: int = 1) -> str:
    """ "+1.2 (+0.4 to +2.0)", without the second half where there is no interval."""
    middle, *ends = (number(value, digits, sign=True) for value in (mean, low, high))
    return f"{middle} ({ends[0]} to {ends[1]})" if math.isfinite(low) else middle


def sized(*values: float) -> list[str]:
    """Numbers that belong together, all with as many decimals as give the largest of them three digits."""
    largest = max((abs(value) for value in values if math.isfinite(value) and value), default=1.0)
    digits = min(max(2 - math.floor(math.log10(largest)), 0), 6)
    return [number(value, digits) for value in values]


def percent(value: float, digits: int = 1, sign: bool = False) -> str:
    """A value in percent."""
    return f"{number(value, digits, sign)} %"


def listed(items: Iterable[str], none: str = "none", last: str = "and") -> str:
    """ "a", "a and b", "a, b and c"; `none` where there is nothing to list. last: "or" for "a, b or c"."""
    *others, final = list(items) or [none]
    return f"{', '.join(others)} {last} {final}" if others else final


def counted(n: int, one: str, several: str | None = None) -> str:
    """ "1 run", "3 runs", "12,000 runs"; "no runs" for 0."""
    amount = f"{n:,}" if n else "no"
    return f"{amount} {one if n == 1 else several or one + 's'}"


def spanned(numbers: Iterable[int], one: str) -> str:
    """ "3 seeds" where all of the numbers are 3, "3 to 5 seeds" where they differ."""
    found = sorted(set(numbers)) or [0]
    return f"{found[0]} to {counted(found[-1], one)}" if len(found) > 1 else counted(found[0], one)


def duration(seconds: float) -> str:
    """ "40 seconds", "14 minutes", "2.3 hours"."""
    if seconds < 90:
        return counted(round(seconds), "second")
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def say(text: str) -> Markdown:
    """Text as Markdown: an empty line separates paragraphs; other line breaks and indents are ignored."""
    from IPython.display import Markdown

    paragraphs = (" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", untagged(text)))
    return Markdown("\n\n".join(paragraph for paragraph in paragraphs if paragraph))


def slug(heading: str, seen: Counter[str] | None = None) -> str:
    """What a heading is linked by, as GitHub makes it: lower case, hyphens for blanks, no punctuation.

    Args:
        seen: how often the page had each of them already; one that occurs again gets a number.
    """
    kept = (c for c in heading.lower() if c in " -" or unicodedata.category(c)[:2] in KEPT)
    own, before = "".join(kept).replace(" ", "-"), 0
    if seen is not None:
        before = seen[own]
        seen[own] += 1
    return f"{own}-{before}" if before else own
