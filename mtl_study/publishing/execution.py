"""What a notebook says of itself when it begins: which preset it runs, what was changed in it, and who sits at it.

A run of an unchanged preset is the same however it was started: by `make reproduce`, by papermill, or by nbconvert.
One with other parameters, or in JupyterLab, is labelled and has a folder of its own (`artifacts.begin`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtl_study import artifacts
from mtl_study.publishing import notebooks
from mtl_study.teaching.exercises import has_frontend

PLACES = {"store", "data_dir", "device", "interactive"}  # where a run happens, not what it is


def begin(stem: str, values: Mapping[str, Any]) -> artifacts.Execution:
    """To be called by the first cell of a notebook, once its parameters are checked.

    Args:
        stem: of the notebook, "01_mnist_selection".
        values: its parameters, by name.

    Raises:
        BadParameters: there is no such preset.
    """
    preset = str(values["preset"])
    path = artifacts.REPOSITORY / "params" / preset / f"{stem}.yaml"
    execution = artifacts.Execution(preset, changed(values, notebooks.preset_values(path)), has_frontend())
    artifacts.begin(execution, stem)
    return execution


def changed(values: Mapping[str, Any], preset: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a preset's parameters that have another value, but for places; of a table of values those within it,
    "digits.seeds"."""
    found: dict[str, Any] = {}
    for name, theirs in preset.items():
        ours = values.get(name, theirs)
        if name in PLACES or (ours == theirs and type(ours) is type(theirs)):
            continue
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            whole = {**dict.fromkeys(ours.keys() - theirs.keys()), **theirs}
            found |= {f"{name}.{inner}": value for inner, value in changed(ours, whole).items()}
        else:
            found[name] = ours
    return found
