"""Multi-task learning to take along: specialized multi-task optimizers (SMTOs), the step, models, datasets.

mtl_core.Balancer(method, shared, num_tasks)   a method in your own training loop
mtl_core.diagnose(losses, features)            lengths and directions of the tasks' gradients, compared
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_CALLABLE = {"Balancer": "balancer", "diagnose": "diagnosis"}  # name → module, imported when asked for: it takes torch


def __getattr__(name: str) -> Any:
    if name in _CALLABLE:
        return getattr(importlib.import_module(f"mtl_core.{_CALLABLE[name]}"), name)
    raise AttributeError(f"module 'mtl_core' has no attribute {name!r}")
