"""SMTOs by name: `build("cagrad", num_tasks=2, c=0.5)`.

The same with types that an editor knows: `CAGrad(num_tasks=2, c=0.5)`, from mtl_core.smtos.cagrad.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from typing import Any

from mtl_core.names import nearest, plain
from mtl_core.options import BadOption, check_options, parameters
from mtl_core.smtos.base import REGISTRY, SMTO

#: what other libraries call a method, where the spelling says nothing: the plain name to the key
ELSEWHERE = {
    **dict.fromkeys(("ew", "ls", "linearscalarization", "mean", "sum"), "unit_scal"),
    **dict.fromkeys(("uncertainty", "uncertaintyweighting"), "uw"),
    **dict.fromkeys(("rlw", "random"), "rlw_normal"),
    "scaleinvls": "si",
    "dynamicweightaverage": "dwa",
    "constant": "fixed",
}


@functools.cache
def _load() -> None:
    """Import every file of this package, so that each has registered itself."""
    package = importlib.import_module("mtl_core.smtos")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def keys() -> list[str]:
    """The keys of all SMTOs, sorted."""
    _load()
    return sorted(REGISTRY)


def get(key: str) -> type[SMTO]:
    """The class of an SMTO. Raises BadOption, naming the nearest key, if there is none."""
    _load()
    if key not in REGISTRY:
        hint = nearest(ELSEWHERE.get(plain(key), key), REGISTRY)
        raise BadOption(f"there is no SMTO called {key!r}{hint}. Known: {', '.join(keys())}.")
    return REGISTRY[key]


def options(key: str) -> dict[str, inspect.Parameter]:
    """The options of an SMTO: name to parameter, with annotation and default."""
    return {name: p for name, p in parameters(get(key).__init__).items() if name not in ("self", "num_tasks")}


def canonical(key: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the options of an SMTO say, in one spelling: see `check_options`; those of an inner SMTO likewise.

    Raises:
        BadOption: unknown key or option (the nearest is named), or a value of the wrong type or out of range.
    """
    said = check_options(key, options(key), given)
    if said.get("inner") and said.get("inner_options"):
        said["inner_options"] = canonical(said["inner"], said["inner_options"])
    if not said.get("inner_options", True):
        del said["inner_options"]
    return said


def build(key: str, num_tasks: int, **given: Any) -> SMTO:
    """The SMTO called `key` for K tasks, with options: `build("cagrad", num_tasks=2, c=0.5)`.

    Raises:
        BadOption: unknown key or option (the nearest is named), or a value of the wrong type or out of range.
    """
    return get(key)(num_tasks, **given)
