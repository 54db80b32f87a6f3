"""Which run records were read, and by which cell of a notebook: what a figure's manifest says of its evidence.

The stores note every record that they hand out. A figure or table rests on the records that were read by the cells
that it rests on (`cells.needed`); outside a notebook, on all that were read so far.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mtl_study import cells

_read: dict[str, tuple[str, set[int]]] = {}  # folder and key → checksum, numbers of cells


def note(place: str, checksum: str) -> None:
    """A record was read or made. place: its folder and key, "multimnist/CL_RR/edm/0123456789abcdef"."""
    _read.setdefault(place, (checksum, set()))[1].add(_cell())


@contextmanager
def choosing() -> Iterator[set[str]]:
    """Of what is read inside only the places that are put into the set count: who looks through a store rests on what
    it takes, not on what it passes over."""
    before = {place: set(read_by) for place, (_, read_by) in _read.items()}
    taken: set[str] = set()
    yield taken
    for place in _read.keys() - taken:
        checksum, _ = _read.pop(place)
        if place in before:
            _read[place] = checksum, before[place]


def records() -> dict[str, str]:
    """The records behind what is drawn now, in order of their places, each with its checksum."""
    shell = _shell()
    wanted: set[int] | None = None
    if shell is not None:
        wanted = cells.needed(shell.user_ns["In"], _cell())
    return {
        place: checksum for place, (checksum, read_by) in sorted(_read.items()) if wanted is None or read_by & wanted
    }


def forget() -> None:
    """Start over: a notebook is run from its first cell again."""
    _read.clear()


def _cell() -> int:
    """The number of the cell that runs; 0 outside a notebook."""
    shell = _shell()
    return len(shell.user_ns["In"]) - 1 if shell is not None else 0


def _shell() -> Any:
    """The notebook's shell, None in a plain program: where there is one, IPython has been imported."""
    shells: Any = getattr(sys.modules.get("IPython.core.interactiveshell"), "InteractiveShell", None)
    if shells is None or not shells.initialized():
        return None
    shell = shells.instance()
    return shell if "In" in shell.user_ns else None
