"""Multi-task learning to take along: specialized multi-task optimizers (SMTOs), the step, models, datasets.

mtl_core.Balancer(method, shared, num_tasks)   a method in a training loop of one's own
mtl_core.diagnose(losses, features)            lengths and directions of the tasks' gradients, compared
"""

import importlib
from typing import Any

__version__ = "0.1.0"
_PLACES = {"Balancer": "balancer", "diagnose": "diagnosis"}


def __getattr__(name: str) -> Any:
    if name in _PLACES:  # imported when it is asked for: it takes torch, and names and files do not
        return getattr(importlib.import_module(f"mtl_core.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'mtl_core' has no attribute {name!r}")
