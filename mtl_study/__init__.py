"""Do specialized multi-task optimizers (SMTOs) beat the plain sum of losses? The code behind the notebooks.

mtl_study.check_smto(method)                 what one may expect of a method, checked on three small tasks
mtl_study.compare(problem, methods, seeds)   methods against the uniform loss on one problem, at equal terms
mtl_study.power(claim, evidence)             how many seeds a claim takes
mtl_study.against_shipped(method, problem)   a new method compared with the paper's, whose runs ship
mtl_study.from_torchjd(aggregator)           torchjd's method as one of ours; from_libmtl(weighting): LibMTL's
"""

import importlib
from typing import Any

_CALLABLE = {  # name → module of this package, imported when it is asked for
    "check_smto": "checking",
    "compare": "comparing",
    "power": "comparing",
    "against_shipped": "newcomer",
    "from_torchjd": "adapters",
    "from_libmtl": "adapters",
}


def __getattr__(name: str) -> Any:
    if name in _CALLABLE:
        return getattr(importlib.import_module(f"mtl_study.{_CALLABLE[name]}"), name)
    raise AttributeError(f"module 'mtl_study' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_CALLABLE])
