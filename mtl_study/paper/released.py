"""What the paper's released code did differently, as options. `as_released: true` in a preset asks for all of them.

What is the default already (docs/defects.md: "Here: as released") is not repeated. What is not offered cannot be asked
for: in Auto-Lambda a pass of its own for the virtual step and losses averaged over all pixels in the second batch; and
the 1e-7 that GradDrop's code adds to sums of gradients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple


class Change(NamedTuple):
    """What undoes one of our corrections. where: the place in docs/defects.md, or the page that tells of it."""

    where: str
    smto: str
    options: dict[str, Any]


CHANGES = (
    Change("D10", "auto_lambda", {"meta_split": "validation"}),
    Change("its page", "auto_lambda", {"gradients": "finite_difference"}),
    Change("D42", "auto_lambda", {"masks": "fresh"}),
    Change("D50", "cagrad", {"solver": "slsqp"}),
    Change("D24", "imtl", {"form": "transposed"}),
    Change("D24", "imtl_g", {"form": "transposed"}),
    *(Change("D26", smto, {"solver": "search"}) for smto in ("cdtt", "edm", "mgda", "mgda_ub")),
    Change("D27", "cdtt", {"zero_gradient": "stop"}),
    Change("D27", "edm", {"zero_gradient": "stop"}),
    Change("D42", "famo", {"masks": "fresh"}),
    Change("its page", "mgda", {"combine": "scaled"}),
    Change("its page", "nash_mtl", {"solver": "cvxpy"}),
    Change("its page", "pcgrad", {"scale": "sum"}),
    Change("its page", "rlw_dirichlet", {"scale": "sum"}),
    Change("its page", "rlw_normal", {"scale": "sum"}),
    Change("its page", "rotograd", {"start": "haar", "reduction": "package"}),
)
NO_WEIGHT_DECAY = ("rotograd",)  # D13: these methods are trained without any
PROBLEM_OPTIONS = {"qm9": {"released_features": True}}  # by family; the last section of docs/defects.md
ONE_METHODS_PROBLEM = {("rotograd", "cityscapes"): {"reduction": "pooled"}}  # by method and family: D14
TEST_RULE: Literal["best_test"] = "best_test"  # of the single-task baselines: D11


def settings(smto: str, problem: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a method on a problem, as that code would have trained it: what was chosen, and its own ways. Options
    of the problem that are this method's alone are among them."""
    options: dict[str, Any] = {}
    for change in CHANGES:
        if change.smto == smto:
            options |= change.options
    decay = {"weight_decay": 0.0} if smto in NO_WEIGHT_DECAY else {}
    alone = ONE_METHODS_PROBLEM.get((smto, problem.split("/")[0]))
    return {
        **chosen,
        **decay,
        "options": {**options, **chosen["options"]},
        **({"problem_options": alone} if alone else {}),
    }


def problem_options(problem: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a problem as that code had it."""
    return {**given, **PROBLEM_OPTIONS.get(problem.split("/")[0], {})}


def table() -> str:
    """Which option undoes which correction, as docs/defects.md shows it."""
    rows = [(change.where, f"`{change.smto}`", _listed(change.options)) for change in CHANGES]
    rows += [("D13", f"`{smto}`", "weight decay 0") for smto in NO_WEIGHT_DECAY]
    rows += [
        ("D14", f"`{problem}`, the problem, with `{smto}`", _listed(options))
        for (smto, problem), options in ONE_METHODS_PROBLEM.items()
    ]
    rows += [("below", f"`{problem}`, the problem", _listed(options)) for problem, options in PROBLEM_OPTIONS.items()]
    rows.append(("D11", "single-task baselines", f"`test_rule: {TEST_RULE}`"))
    lines = [" | ".join(("", *row, "")).strip() for row in [("place", "of", "option"), ("---",) * 3, *rows]]
    return "\n".join(lines) + "\n"


def _listed(options: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}: {str(v).lower() if isinstance(v, bool) else v}`" for name, v in options.items())
