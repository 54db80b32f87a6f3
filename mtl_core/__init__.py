"""Multi-task learning to take along: specialized multi-task optimizers (SMTOs), the step, models, datasets.

mtl_core.Balancer(method, shared, num_tasks)   a method in your own training loop
"""

import importlib
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Balancer":  # imported when it is asked for: it takes torch, and names and files do not
        return importlib.import_module("mtl_core.balancer").Balancer
    raise AttributeError(f"module 'mtl_core' has no attribute {name!r}")
