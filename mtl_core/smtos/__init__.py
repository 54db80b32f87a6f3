"""One file per method, each a page: what it does, the formula, the source, where we differ, the code."""

from mtl_core.smtos.base import SMTO, Applied, BadOption, NonFinite, build, get, keys, options

__all__ = ["SMTO", "Applied", "BadOption", "NonFinite", "build", "get", "keys", "options"]
