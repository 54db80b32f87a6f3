"""Every test runs on one thread, draws the same random examples each time, and writes nothing into the repository; what
demands the exact versions of constraints.txt runs under them alone; and what several test files share."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import pytest
import torch
from hypothesis import settings

from mtl_study.artifacts import REPOSITORY
from mtl_study.experiments.runs import Epoch, Gradients, Run, RunConfig

matplotlib.use("Agg")
torch.set_num_threads(1)
settings.register_profile("deterministic", derandomize=True, deadline=None, database=None)
settings.load_profile("deterministic")

Values = Sequence[dict[str, Any]]  # one per epoch: {task: value} or {task: {metric: value}}


def unpinned(constraints: str) -> str:
    """The first package that is not there in the version that constraints.txt has, in words; "" if all are."""
    for package, version in re.findall(r"^([\w-]+)==(\S+)$", constraints, flags=re.MULTILINE):
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found = "not installed"
        if found != version:
            return f"constraints.txt has {package} {version}; here it is {found}"
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `pinned` are skipped under other versions."""
    if reason := unpinned((REPOSITORY / "constraints.txt").read_text()):
        for item in items:
            if item.get_closest_marker("pinned"):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def artifacts_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Artifacts of tests go to a temporary folder."""
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path_factory.getbasetemp() / "artifacts"))


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
