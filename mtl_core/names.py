"""The nearest known name, for messages about a wrong one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """ " (did you mean …?)" for the closest known name, or nothing. Capitals and signs between letters do not count."""
    names = {plain(one): one for one in known}
    close = difflib.get_close_matches(plain(name), names, n=1, cutoff=0.5)
    return f" (did you mean {names[close[0]]!r}?)" if close else ""


def plain(name: str) -> str:
    """A name without capitals and signs: "Nash-MTL", "NashMTL" and "nash_mtl" are one."""
    return "".join(filter(str.isalnum, name.lower()))
