"""What a notebook says of itself when it begins: which preset it runs, what was changed in it, and who sits at it.

A run of an unchanged preset is the same however it was started: by `make reproduce`, by papermill, or by nbconvert.
One with other parameters, or in JupyterLab, is labelled and has a folder of its own (`artifacts.begin`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtl_core.progress import has_frontend
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
