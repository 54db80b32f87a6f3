"""`make bench`: what a method costs, as ratios measured side by side in one process.

Every row takes turns with the others, round by round, so that a busy machine slows them all alike; a row's number is
the median over rounds of its time divided by that of plain training in the same round. One torch thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import torch
from tqdm import trange

from mtl_core import problems, smtos
from mtl_core.datasets.multimnist import Split
from mtl_core.smtos.base import Setting
from mtl_core.step import MultiTaskModel, Step

BATCH = 256
NEEDED = {"fixed": {"weights": [0.5, 0.5]}}  # options without which a method cannot be built


def interleaved(rows: Mapping[str, Callable[[], object]], rounds: int, baseline: str) -> pd.DataFrame:
    """Median milliseconds of each row, and its median ratio to the baseline of the same round."""
    seconds = {name: np.zeros(rounds) for name in rows}
    for call in rows.values():
        call()  # the first call also allocates
    for i in trange(rounds, desc="rounds", leave=False):
        for name, call in rows.items():
            start = time.perf_counter()
            call()
            seconds[name][i] = time.perf_counter() - start
    table = {
        name: {"ms": np.median(taken) * 1e3, "ratio": np.median(taken / seconds[baseline])}
        for name, taken in seconds.items()
    }
    return pd.DataFrame.from_dict(table, orient="index")


def steps(problem_name: str = "multimnist/CL_RR", rounds: int = 60) -> pd.DataFrame:
    """One training step (batch, forward, backward, Adam) of every method over that of the plain sum of losses.

    Three rows are not methods: the plain sum and K full backward passes as a user would write them on one joint graph,
    and the step of this package under the plain mean.
    """
    problem = problems.get(problem_name)
    data = problem.load("embedded", problem.default_sizes("embedded"), None, torch.device("cpu"), torch.float32)[
        "train"
    ]
    rows: dict[str, Callable[[], object]] = {
        "plain sum": _joint(problem, data, passes=1),
        "K full backward passes": _joint(problem, data, passes=len(problem.tasks)),
    }
    for key in smtos.keys():  # noqa: SIM118
        call = _method(problem, data, key)
        try:
            call()
        except smtos.BadOption as refusal:
            print(f"left out: {refusal}")
        else:
            rows[key] = call
    return interleaved(rows, rounds, baseline="plain sum")


def _model(problem: problems.Problem) -> MultiTaskModel:
    torch.manual_seed(0)
    return problem.build_model(0.0).to(memory_format=torch.channels_last)


def _joint(problem: problems.Problem, data: Split, passes: int) -> Callable[[], object]:
    model = _model(problem)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        x, targets = data.batch(torch.randint(len(data), (BATCH,)), problem.task_names)
        z = model.encoder(x)
        losses = [t.loss(h(z), y) for t, h, y in zip(problem.tasks, model.heads.values(), targets, strict=True)]
        if passes == 1:
            losses = [torch.stack(losses).sum()]
        for k, loss in enumerate(losses):
            optimizer.zero_grad()
            loss.backward(retain_graph=k < len(losses) - 1)
        optimizer.step()

    return step


def _method(problem: problems.Problem, data: Split, key: str) -> Callable[[], object]:
    model = _model(problem)
    smto = smtos.build(key, len(problem.tasks), **NEEDED.get(key, {}))
    likelihoods = tuple(task.likelihood for task in problem.tasks)
    smto.set_up(
        Setting(likelihoods=likelihoods, feature_shape=problem.feature_shape, lr=1e-3, weight_decay=0.0), seed=0
    )
    smto.begin_epoch(0, None, 1e-3)
    groups = [{"params": list(model.parameters())}, *smto.parameter_groups(1e-3)]
    optimizer = torch.optim.Adam(groups, lr=1e-3, fused=True)
    loss_functions = [task.loss for task in problem.tasks]

    def batch() -> tuple[torch.Tensor, list[torch.Tensor]]:
        return data.batch(torch.randint(len(data), (BATCH,)), problem.task_names)

    def one() -> None:
        step = Step(model, loss_functions, *batch(), adapt=smto.adapt, another=batch, replay=smto.replay)
        smto.backward(step)
        optimizer.step()
        smto.after_step(step)

    return one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=60)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"One training step on multimnist/CL_RR, batch {BATCH}, one thread: median of {arguments.rounds} rounds\n")
    print(steps(rounds=arguments.rounds).sort_values("ratio").to_string(float_format="%.2f"))


if __name__ == "__main__":
    main()
