"""What a notebook says of itself when it begins: which preset it runs, what was changed in it, and who sits at it; a
reader gets widgets as progress bars.

A run of an unchanged preset is the same however it was started: by `make reproduce`, by papermill, or by nbconvert.
One with other parameters, or in JupyterLab, is labelled and has a folder of its own (`artifacts.begin`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from mtl_core import progress
from mtl_study import artifacts

PLACES = {"store", "data_dir", "device"}  # where a run happens, not what it is


def begin(stem: str, values: Mapping[str, Any], preset: Mapping[str, Any]) -> artifacts.Execution:
    """To be called when the parameters of a notebook are checked.

    Args:
        stem: of the notebook, "01_mnist_selection".
        values: its parameters, by name. preset: those of its preset's file.
    """
    execution = artifacts.Execution(str(values["preset"]), changed(values, preset), has_frontend())
    artifacts.begin(execution, stem)
    progress.kind = widget() if has_frontend() else tqdm
    return execution


def changed(values: Mapping[str, Any], preset: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a preset's parameters that have another value, except places; of a table of values those within it,
    "digits.seeds"."""
    found: dict[str, Any] = {}
    for name, theirs in preset.items():
        ours = values.get(name, theirs)
        if name in PLACES or ours == theirs:
            continue
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            whole = {**dict.fromkeys(ours.keys() - theirs.keys()), **theirs}
            found |= {f"{name}.{inner}": value for inner, value in changed(ours, whole).items()}
        else:
            found[name] = ours
    return found


def has_frontend() -> bool:
    """Whether somebody sits at this notebook, so that a widget makes sense.

    Every request to run a cell says whether its sender could answer a question of the code (`allow_stdin`): JupyterLab,
    the classic notebook and VS Code say yes; papermill and nbconvert, which run a notebook with nobody there, say no.
    """
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:
        return False
    kernel = getattr(get_ipython(), "kernel", None)  # None in a plain interpreter and in a terminal
    request = kernel.get_parent("shell") if kernel is not None else {}
    return bool(request.get("content", {}).get("allow_stdin", False))


def widget() -> type[tqdm[Any]]:
    """A progress bar for somebody who sits at a notebook: a widget while it runs, and then its last line, or nothing.
    A widget that stayed would be an error message when the notebook is opened again. Without ipywidgets: lines."""
    from IPython.display import display
    from tqdm import notebook

    if notebook.IProgress is None:
        return tqdm

    class Widget(notebook.tqdm):
        displayed: bool
        place: Any  # where it is displayed

        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **settings, display=False)
            if not self.disable and not self.delay:
                self.refresh()

        def display(self, *args: Any, check_delay: bool = True, **signals: Any) -> None:
            super().display(*args, check_delay=False, **signals)
            if check_delay and not self.displayed:
                self.place, self.displayed = display(self.container, display_id=True), True

        def close(self) -> None:
            shown = not self.disable and self.displayed
            super().close()
            if shown:
                self.place.update({"text/plain": str(self)} if self.leave else {}, raw=True)

    return Widget
