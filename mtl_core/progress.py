"""Progress bars: widgets in JupyterLab, lines on a terminal and where nobody sits at a notebook, nothing in a log."""

from __future__ import annotations

import os
import sys
from importlib import import_module, util
from typing import Any

from tqdm import tqdm

QUIET = "MTL_QUIET"  # set where a notebook is executed into a log


def has_frontend() -> bool:
    """Whether somebody sits at this notebook. JupyterLab and VS Code say with every cell that they could answer a
    question of its code (`allow_stdin`); papermill and nbconvert, which run a notebook with nobody there, say no."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    kernel = getattr(shell, "kernel", None)  # None in a terminal
    return bool(kernel and kernel.get_parent("shell").get("content", {}).get("allow_stdin"))


def bar(*args: Any, **settings: Any) -> tqdm[Any]:
    """tqdm with these arguments, as a widget where somebody sits at a notebook and ipywidgets is installed; without a
    bar where standard error is neither a terminal nor a notebook's."""
    seen = sys.stderr.isatty() or "ipykernel" in sys.modules
    kind = import_module("tqdm.notebook").tqdm if has_frontend() and util.find_spec("ipywidgets") else tqdm
    return kind(*args, **{"disable": not seen or bool(os.environ.get(QUIET)), **settings})
