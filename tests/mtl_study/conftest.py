"""Records that are made by hand, and a Dask cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mtl_study.experiments.runs import Epoch, Gradients, Run, RunConfig
from tests.mtl_study.figures import figures

__all__ = ["figures"]

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


@pytest.fixture
def start_cluster() -> Iterator[Callable[[Path, dict[str, str]], tuple[str, subprocess.Popen, list[subprocess.Popen]]]]:
    """A function that starts a Dask cluster of two workers by hand, as on several machines: (address, scheduler,
    workers). It takes a folder for their files and what they have in their environment."""
    processes: list[subprocess.Popen] = []

    def start(folder: Path, environment: dict[str, str]) -> tuple[str, subprocess.Popen, list[subprocess.Popen]]:
        where = folder / "scheduler.json"
        for part in (
            ["dask_scheduler", "--port", "0", "--no-dashboard", "--no-show"],
            *2 * [["dask_worker", "--nthreads", "1", "--no-nanny", "--no-dashboard"]],
        ):
            command = [sys.executable, "-m", f"distributed.cli.{part[0]}", *part[1:], "--scheduler-file", str(where)]
            options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
            processes.append(subprocess.Popen(command, env={**os.environ, **environment}, **options))
        deadline = time.monotonic() + 120
        while not where.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        return json.loads(where.read_text())["address"], processes[0], processes[1:]

    yield start
    for process in reversed(processes):
        process.kill()
        process.wait()


@pytest.fixture
def numbers():
    """What the notebooks' conclusions left for the report, invented."""
    return {
        "01": {
            "lead": 10.7,
            "kept": 8,
            "better": 10,
            "methods": 15,
            "rates": [0.001, 0.0025],
            "rate_gain": [9.6, 8.8, 10.4],
            "rate_seeds": 5,
        }
        | {
            "lead_at_one_rate": 9.4,
            "sure_at_one_rate": 7,
            "compared_at_one_rate": 8,
            "basis": {"multimnist": "12,000 pairs"},
        },
        "02": {"pairs": 16, "small": 8, "larger": 2, "different": 4, "unknown": 2, "margin": 2.0}
        | {"largest": ["EDM on RL_RR", -6.7]}
        | {"reach": 7, "of": 8, "first": "CAGrad", "first_share": 0.5},
        "02b": {"problems": 9, "rho": -0.45, "p": 0.27, "rho_of_floor": -0.28, "rival": ["norm ratio", 0.67]},
        "03": {"holds": 3, "statements": 15, "drawn": True, "basis": {"cityscapes": "240 streets"}},
        "04": {"better": 1, "worse": 2, "methods": 7, "basis": {"qm9": "1,500 molecules"}},
        "05": {"fixed": [9.0, 5.3, 12.8], "basis": {"multimnist": "12,000 pairs"}},
        "05b": {
            "best": "CDTT",
            "best_delta_m": -3.4,
            "sweep": 14,
            "sweep_delta_m": -4.9,
            "gap_to_sweep": [1.5, -0.9, 4.0],
            "seeds": 3,
        }
        | {"price": 1.4, "price_of_all": 22.0},
        "05c": {"leads_by_rate": {"0.001": 10.6, "0.0025": 8.2}, "led": "CAGrad and IMTL", "batch": 256},
    }
