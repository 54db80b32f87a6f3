"""Code shown as it ran: `show_source(EDM.weights)` is the code of a function, a class or a whole file, as on disk."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl_study.artifacts import REPOSITORY

if TYPE_CHECKING:
    from IPython.display import Markdown


def show_source(shown: Any) -> Markdown:
    """The code of a function, a method, a class, or (for a module) of a whole file, with its place.

    Raises:
        TypeError: there is no Python source for it.
    """
    from IPython.display import Markdown

    shown = inspect.unwrap(shown) if callable(shown) else shown
    try:
        lines, first = inspect.getsourcelines(shown)
        file = inspect.getsourcefile(shown) or ""
    except (TypeError, OSError):
        raise TypeError(
            f"{shown!r} has no Python source to show; give a module, or a class or function that is written in Python."
        ) from None
    source, path = textwrap.dedent("".join(lines)).rstrip(), Path(file)
    fence = "```"
    while fence in source:
        fence += "`"
    place = ""
    if path.is_relative_to(REPOSITORY):
        place = f"`{path.relative_to(REPOSITORY).as_posix()}`" + ("" if first <= 1 else f", line {first}") + "\n\n"
    return Markdown(f"{place}{fence}python\n{source}\n{fence}")
