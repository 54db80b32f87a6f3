"""Made-up results that several files of tests draw."""

import json

import numpy as np
import pandas as pd
import pytest

from mtl_core import problems
from mtl_study.analysis import delta
from mtl_study.experiments.runs import Gradients
from mtl_study.paper import published

CL_RR, CL_CR, RL_RR = "multimnist/CL_RR", "multimnist/CL_CR", "multimnist/RL_RR"
TABLE_3 = published.table("table_3")
KEPT = ["auto_lambda", "cagrad", "cdtt", "edm", "famo", "imtl", "nash_mtl", "rotograd"]
EPOCHS = 4


@pytest.fixture
def experiment(make_run):
    """Made-up records of one problem, and their table: `experiment(problem, {smto: (gain, gain)}, seeds)`."""

    def make(problem, gains, seeds=3):
        rng, runs = np.random.default_rng(0), []
        names = problem.split("/")[1].split("_")
        for smto, means in gains.items():
            for seed in range(1, seeds + 1):
                epochs = []
                for epoch in range(EPOCHS):
                    gain = np.array(means) - (EPOCHS - 1 - epoch) + rng.normal(0, 0.2, 2)
                    values = zip(names, gain, strict=True)
                    epochs.append({t: 0.95 * (1 + g / 100) if t[0] == "C" else 0.4 * (1 - g / 100) for t, g in values})
                first = rng.uniform(0.3, 0.7, EPOCHS)
                weights = [[None, None] if smto == "rotograd" else [w, 1 - w] for w in first]
                own = [{"alpha_0": w, "alpha_1": 1 - w} if smto == "imtl" else {} for w in first]
                lie = Gradients(cosine_to_mean=0.7, pairwise_cosine=0.1 * seed, norms=[1.0, 2.0], norm_ratio=2.0)
                logged = {"features": lie, "parameters": lie}
                runs.append(
                    make_run(
                        epochs,
                        problem=problem,
                        smto=smto,
                        seed=seed,
                        weights=weights,
                        gradients=logged,
                        diagnostics=own,
                    )
                )
        alone = [make_run([{name: 0.95 if name[0] == "C" else 0.4}]) for name in names]
        tasks = problems.get(problem).tasks
        return runs, delta.selected(runs, delta.single_task_baselines(alone, tasks), tasks)

    return make


@pytest.fixture
def all_methods(experiment):
    return experiment(CL_RR, {smto: (row.CL, row.RR) for smto, row in TABLE_3.iterrows()})


@pytest.fixture
def two_problems(experiment):
    gains = {smto: (-1, -1) for smto in ["unit_scal", *KEPT]}
    one, other = experiment(CL_CR, gains), experiment(RL_RR, {smto: (-20, -20) for smto in gains})
    return [*one[0], *other[0]], pd.concat([one[1], other[1]], ignore_index=True)


@pytest.fixture
def rows():
    """Rows as of `delta.selected`: (gain on CL, gain on RR) per seed."""

    def make(smto, gains, config=None, problem="multimnist/CL_RR", **columns):
        found = [
            {"problem": problem, "smto": smto, "config": json.dumps(config or {"lr": 0.001}), "seed": seed, "epoch": 0}
            | {"CL": cl, "RR": rr, "delta_m": (cl + rr) / 2, "val_delta_m": (cl + rr) / 2, "diverged": False}
            for seed, (cl, rr) in enumerate(gains, 1)
        ]
        return pd.DataFrame(found).assign(**columns)

    return make
