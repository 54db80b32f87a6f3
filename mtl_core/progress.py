"""Progress bars: on a terminal and in a notebook, not in a log."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

QUIET = "MTL_QUIET"  # set where a notebook is executed into a log
kind: Callable[..., tqdm[Any]] = tqdm  # `mtl_study.execution` puts a widget here for who sits at a notebook


def bar(*args: Any, **settings: Any) -> tqdm[Any]:
    """tqdm with these arguments, without a bar where standard error is neither a terminal nor a notebook's."""
    seen = sys.stderr.isatty() or "ipykernel" in sys.modules
    return kind(*args, **{"disable": not seen or bool(os.environ.get(QUIET)), **settings})
