"""`make bench`: what a method costs, as ratios measured side by side in one process.

    python -m mtl_core.bench steps        a training step of every method over one of the plain sum of losses
    python -m mtl_core.bench solvers      the K×K subproblems, by our solvers, by scipy and by cvxpy
    python -m mtl_core.bench loading      what a batch takes beside a step; K gradients one by one or all at once
    python -m mtl_core.bench              all of them

What is compared takes turns, round by round, so that a busy machine slows all alike; the numbers are medians over
rounds of times and of their ratios within a round. One thread.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm, trange

from mtl_core import problems, smtos
from mtl_core.datasets.base import Split
from mtl_core.smtos.base import Setting
from mtl_core.step import MultiTaskModel, Step

BATCH = 256
DEFAULT = ", default layout"
NEEDED = {"fixed": {"weights": [0.5, 0.5]}}  # options without which a method cannot be built


def interleaved(rows: Mapping[str, Callable[[], object]], rounds: int, baselines: Mapping[str, str]) -> pd.DataFrame:
    """Median milliseconds of each row, and for each baseline (column: row) its median ratio to that row of the same
    round."""
    seconds = {name: np.zeros(rounds) for name in rows}
    for call in rows.values():
        call()  # the first call also allocates
    for i in trange(rounds, desc="rounds", leave=False):
        for name, call in rows.items():
            start = time.perf_counter()
            call()
            seconds[name][i] = time.perf_counter() - start
    table = {
        name: {"ms": np.median(taken) * 1e3}
        | {column: np.median(taken / seconds[baseline]) for column, baseline in baselines.items()}
        for name, taken in seconds.items()
    }
    return pd.DataFrame.from_dict(table, orient="index")


def steps(problem_name: str = "multimnist/CL_RR", rounds: int = 60) -> pd.DataFrame:
    """One training step (batch, forward, backward, Adam) of every method over that of the plain sum of losses.

    Rows that are not methods: the plain sum and K full backward passes as a user would write them on one joint graph,
    each in the memory layout in which this package trains (channels last) and in torch's default layout.

    Returns:
        ms; "× plain sum": the ratio to the plain sum, all else equal; "× user's loop": the ratio to the plain sum in
        torch's default layout, which is what a user would otherwise run.
    """
    problem = problems.get(problem_name)
    data = problem.data.load("embedded", problem.data.sizes("embedded"), None, torch.device("cpu"), torch.float32)[
        "train"
    ]
    rows: dict[str, Callable[[], object]] = {
        f"{name}{where}": _joint(problem, data, passes, layout)
        for where, layout in (("", torch.channels_last), (DEFAULT, torch.contiguous_format))
        for name, passes in (("plain sum", 1), ("K full backward passes", len(problem.tasks)))
    }
    for key in smtos.keys():  # noqa: SIM118
        call = _method(problem, data, key)
        try:
            call()
        except smtos.BadOption as refusal:
            print(f"left out: {refusal}")
        else:
            rows[key] = call
    return interleaved(rows, rounds, {"× plain sum": "plain sum", "× user's loop": f"plain sum{DEFAULT}"})


def _model(problem: problems.Problem, layout: torch.memory_format = torch.channels_last) -> MultiTaskModel:
    torch.manual_seed(0)
    return problem.build_model(0.0).to(memory_format=layout)


def _joint(problem: problems.Problem, data: Split, passes: int, layout: torch.memory_format) -> Callable[[], object]:
    model = _model(problem, layout)
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

    def batch() -> tuple[Any, Sequence[torch.Tensor]]:
        return data.batch(torch.randint(len(data), (BATCH,)), problem.task_names)

    def one() -> None:
        step = Step(model, loss_functions, *batch(), adapt=smto.adapt, another=batch, replay=smto.replay)
        smto.backward(step)
        optimizer.step()
        smto.after_step(step)

    return one


# -- what a batch takes ---------------------------------------------------------------------------------------------

LOADED: dict[str, tuple[dict[str, Any], int]] = {  # problem: its options, batch size
    "multimnist/CL_RR": ({}, BATCH),
    "cityscapes/R18": ({"width": 64, "slim": 4}, 8),
    "cityscapes/19C": ({"width": 64, "slim": 4}, 8),
    "qm9": ({"max_atoms": 13, "slim": 2}, 60),
}


def loading(rounds: int = 20, names: Sequence[str] = tuple(LOADED)) -> pd.DataFrame:
    """Per problem, at the settings of its quick preset, under the plain mean with augmentation where there is any.

    Returns:
        batch, ms; step, ms: with its batch already there; "loading, %": by how much the batch lengthens the step.
        "all at once, ×": K encoder gradients by one batched backward pass, over K passes one by one, as the step has
        them.
    """
    rows = {name: _loading(name, rounds) for name in tqdm(names, desc="problems", leave=False)}
    return pd.DataFrame.from_dict(rows, orient="index")


def _loading(name: str, rounds: int) -> dict[str, float]:
    options, size = LOADED[name]
    problem = problems.get(name, **options)
    sizes = (4 * size, size, size)
    problem.data.prepare("embedded", sizes, None)
    data = problem.data.load("embedded", sizes, None, torch.device("cpu"), torch.float32)["train"]
    model, augmentation = _model(problem), torch.Generator().manual_seed(0)
    loss_functions = [task.loss for task in problem.tasks]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    mean = smtos.build("unit_scal", len(problem.tasks))

    def batch() -> tuple[Any, Sequence[torch.Tensor]]:
        return data.batch(torch.randint(len(data), (size,)), problem.task_names, augmentation)

    x, targets = batch()
    gradients = Step(model, loss_functions, x, targets).feature_gradients
    z, shared = model.encoder(x), list(model.encoder.parameters())

    def train() -> None:
        mean.backward(Step(model, loss_functions, x, targets))
        optimizer.step()

    def one_by_one() -> None:
        for gradient in gradients:
            torch.autograd.grad(z, shared, gradient, retain_graph=True)

    def at_once() -> None:
        torch.autograd.grad(z, shared, gradients, retain_graph=True, is_grads_batched=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # vmap names the operations that it takes one by one
        passes = interleaved({"one": one_by_one, "all": at_once}, max(3, rounds // 4), {"ratio": "one"})
    taken = interleaved({"batch": batch, "step": train}, rounds, {"ratio": "step"})
    return {
        "batch, ms": taken.ms["batch"],
        "step, ms": taken.ms["step"],
        "loading, %": 100 * taken.ratio["batch"],
        "all at once, ×": passes.ratio["all"],
    }


# -- the K×K subproblems -----------------------------------------------------------------------------------------------

GRAMIANS = {"A": {"cosine": 0.3, "decades": 1.0}, "B": {"decades": 2.0}}  # mean cosine, range of the lengths
SIZES = (2, 3, 11, 40)


class Subproblem(NamedTuple):
    """Gramian to weights in three ways, and by how much weights miss the optimality conditions."""

    ours: Callable[[np.ndarray], np.ndarray]
    scipy: Callable[[np.ndarray], np.ndarray]
    cvxpy: Callable[[np.ndarray], np.ndarray]
    violation: Callable[[np.ndarray, np.ndarray], float]


def subproblems() -> dict[str, Subproblem]:
    """What the methods solve, by the methods that solve it."""
    from mtl_core import oracles
    from mtl_core.smtos import solvers

    return {
        "shortest vector (MGDA, EDM)": Subproblem(
            lambda G: solvers.min_norm_point(G).weights,
            oracles.min_norm_by_nnls,
            oracles.min_norm,
            oracles.min_norm_violation,
        ),
        "equal projections (IMTL-G)": Subproblem(
            lambda G: solvers.equal_projections(G).weights,
            oracles.equal_projections_by_lapack,
            oracles.equal_projections,
            oracles.equal_projection_violation,
        ),
        "dual, c = 0.5 (CAGrad, IMGrad)": Subproblem(
            lambda G: solvers.cagrad_dual(G, 0.5).weights,
            lambda G: oracles.cagrad_dual_by_slsqp(G, 0.5),
            lambda G: oracles.imgrad_dual(G, 0.5, kappa=0.75),  # the two terms then have one factor
            lambda G, w: oracles.cagrad_violation(G, w, 0.5),
        ),
        "bargain (Nash-MTL)": Subproblem(
            lambda G: solvers.bargaining(G).weights,
            oracles.fair_by_least_squares,
            oracles.fair,
            oracles.fair_violation,
        ),
        "bargain, α = 2 (FairGrad)": Subproblem(
            lambda G: solvers.bargaining(G, 2.0).weights,
            lambda G: oracles.fair_by_least_squares(G, 2.0),
            lambda G: oracles.fair(G, 2.0),
            lambda G, w: oracles.fair_violation(G, w, 2.0),
        ),
        "dual cone (UPGrad)": Subproblem(
            lambda G: solvers.dual_cone_projection(G).weights,
            oracles.dual_cone_by_nnls,
            oracles.dual_cone,
            oracles.dual_cone_violation,
        ),
    }


def solver_times(rounds: int = 9, sizes: Sequence[int] = SIZES) -> pd.DataFrame:
    """Every subproblem on the same random Gramians, one per round: a row per subproblem, kind of Gramian and K.

    Returns:
        ours: microseconds. scipy, cvxpy: how many times as long (for cvxpy with building the programme, as its users
        write it). The columns "… misses by": the worst violation of the optimality conditions; ∞ where a solve failed.
    """
    from mtl_core import oracles

    rows = []
    for name, ways in tqdm(subproblems().items(), desc="subproblems", leave=False):
        for kind, settings in GRAMIANS.items():
            for K in sizes:
                seconds: dict[str, list[float]] = {"ours": [], "scipy": [], "cvxpy": []}
                misses = dict.fromkeys(seconds, 0.0)
                for seed in range(-1, rounds):  # the first round warms up
                    G = oracles.gramian(K, max(seed, 0), **settings)
                    for way, taken in seconds.items():
                        taken.append(_timed(getattr(ways, way), G, 20 if way == "ours" else 1))
                        misses[way] = max(misses[way], _missed(getattr(ways, way), ways.violation, G))
                ours, scipy, cvxpy = (np.array(taken[1:]) for taken in seconds.values())
                row = {"subproblem": name, "Gramian": kind, "K": K, "ours, µs": np.median(ours) * 1e6}
                row |= {"scipy, ×": np.median(scipy / ours), "cvxpy, ×": np.median(cvxpy / ours)}
                rows.append(row | {f"{way} misses by": miss for way, miss in misses.items()})
    return pd.DataFrame(rows)


def _timed(solve: Callable[[np.ndarray], np.ndarray], gramian: np.ndarray, repeats: int) -> float:
    """Median seconds of some repeats."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        _solved(solve, gramian)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def _solved(solve: Callable[[np.ndarray], np.ndarray], gramian: np.ndarray) -> np.ndarray | None:
    """Weights, or None where a solver gave up."""
    import cvxpy

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "may be inaccurate": the violation says how much
            return solve(gramian)
    except cvxpy.SolverError:
        return None


def _missed(
    solve: Callable[[np.ndarray], np.ndarray], violation: Callable[[np.ndarray, np.ndarray], float], gramian: np.ndarray
) -> float:
    weights = _solved(solve, gramian)
    return np.inf if weights is None or not np.isfinite(weights).all() else float(violation(gramian, weights))


# -- the command -------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m mtl_core.bench", description=__doc__.split("\n")[0])
    parser.add_argument("what", nargs="?", choices=["steps", "loading", "solvers"], help="default: all")
    parser.add_argument("--rounds", type=int, help="60 for steps, 20 for loading, 9 for solvers")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if given.what in (None, "steps"):
        rounds = given.rounds or 60
        print(f"One training step on multimnist/CL_RR, batch {BATCH}, one thread: median of {rounds} rounds\n")
        print(steps(rounds=rounds).sort_values("ms").to_string(float_format="%.2f"))
    if given.what in (None, "loading"):
        rounds = given.rounds or 20
        print(f"\nLoading, at the settings of the quick presets, one thread: median of {rounds} rounds\n")
        print(loading(rounds).to_string(float_format="%.2f"))
    if given.what in (None, "solvers"):
        rounds = given.rounds or 9
        table = solver_times(rounds)
        print(f"\nThe K×K subproblems: median of {rounds} Gramians; A: {GRAMIANS['A']}, B: {GRAMIANS['B']}\n")
        shown = {name: "{:.0f}".format for name in ("ours, µs", "scipy, ×", "cvxpy, ×")}
        shown |= {name: "{:.0e}".format for name in table if name.endswith("misses by")}
        print(table.to_string(index=False, formatters=shown))
        print(f"\nOver all rows cvxpy takes at least {table['cvxpy, ×'].min():.0f} times as long as ours.")


if __name__ == "__main__":
    main()
