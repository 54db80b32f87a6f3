"""One file per method, each a page: what it does, the formula, the source, where we differ, the code."""

from mtl_core.options import BadOption
from mtl_core.smtos.base import SMTO, StepResult
from mtl_core.smtos.geometry import NonFinite
from mtl_core.smtos.registry import build, get, keys, options

__all__ = ["SMTO", "BadOption", "NonFinite", "StepResult", "build", "get", "keys", "options"]
