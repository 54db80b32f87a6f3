"""The nearest known name, for messages about a wrong one."""

from __future__ import annotations

import difflib
from typing import Any


def nearest(name: str, known: Any) -> str:
    """ " (did you mean …?)" for the closest known name, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
