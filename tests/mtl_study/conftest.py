"""Records that are made by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from mtl_study.experiments.runs import Epoch, Gradients, Run, RunConfig

Values = Sequence[dict[str, Any]]  # one per epoch: {task: value} or {task: {metric: value}}


@pytest.fixture
def make_run() -> Callable[..., Run]:
    """A function that makes a record by hand, without training: only what the test is about needs to be given."""

    def make(
        val: Values,
        test: Values | None = None,
        *,
        problem: str = "multimnist/CL_RR",
        smto: str = "unit_scal",
        seed: int = 1,
        weights: Sequence[Sequence[float | None]] | None = None,
        gradients: dict[str, Gradients] | None = None,
        diagnostics: Sequence[dict[str, float]] | None = None,
        ended: str = "finished",
        **config: Any,
    ) -> Run:
        def metrics(values: dict[str, Any]) -> dict[str, dict[str, float | None]]:
            names = {"C": "accuracy", "R": "mse"}
            return {task: v if isinstance(v, dict) else {names[task[0]]: v} for task, v in values.items()}

        history = []
        for epoch, values in enumerate(val):
            w = weights[epoch] if weights else [1 / len(values)] * len(values)
            history.append(
                Epoch(
                    lr=0.001,
                    train_losses=[1.0] * len(values),
                    val=metrics(values),
                    test=metrics((test or val)[epoch]),
                    weights=list(w),
                    head_weights=list(w),
                    diagnostics=diagnostics[epoch] if diagnostics else {},
                    flags={},
                    gradients=gradients or {},
                )
            )
        # model_construct: a record may be of a problem or a method that only this test knows
        settings = RunConfig.model_construct(
            problem=problem, smto=smto, seed=seed, epochs=len(val), **{"lr": 0.001, "options": {}, **config}
        )
        return Run.model_construct(
            config=settings, code_versions={}, ended=ended, history=history, seconds=1.0, environment={}
        )

    return make
