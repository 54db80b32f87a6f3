"""`make bench`: what a method costs, as ratios measured side by side in one process.

    python -m benchmarks.speed steps        a training step of every method over one of the plain sum of losses
    python -m benchmarks.speed waits        what the host waits for a GPU for in such a step, counted without one
    python -m benchmarks.speed entry        the same step through mtl_core.Balancer, over the trainer's step
    python -m benchmarks.speed loading      steps per second with and without loading; K gradients one by one or at once
    python -m benchmarks.speed upsampling   from z to pixels, by the kernel and as products of matrices
    python -m benchmarks.speed encoder      QM9's network, dense as in ours, and from torch-geometric's NNConv
    python -m benchmarks.speed data         reading all of QM9, and how SMILES and geometries were brought together
    python -m benchmarks.speed solvers      the K×K subproblems, by our solvers, by scipy and by cvxpy
    python -m benchmarks.speed records      20,000 records that are all there, found again by a sweep
    python -m benchmarks.speed              all of them
    python -m benchmarks.speed epochs       a whole epoch of every method on every network; not part of "all"

`--device cuda` measures steps, entry, loading, upsampling and epochs on a GPU. `--rounds 10` is
quicker, and less exact.

What is compared takes turns, round by round, so that a busy machine slows all alike; the numbers are medians over
rounds of times and of their ratios within a round. One thread, except for `data`, which is done once, on all cores.
Results are kept in artifacts/bench and shown next to those of the next time: ratios and counts, since a machine is not
equally busy at two times.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from benchmarks import last
from mtl_core import names, problems, progress, smtos
from mtl_core.balancer import Balancer
from mtl_core.datasets.base import Sizes, Split
from mtl_core.datasets.qm9 import QM9
from mtl_core.models import deeplab
from mtl_core.smtos.base import ProblemInfo
from mtl_core.step import MultiTaskModel, Step
from mtl_study import commands
from mtl_study.experiments import runner
from mtl_study.experiments.merge import merge
from mtl_study.experiments.runs import RunConfig
from mtl_study.experiments.store import RunStore
from mtl_study.experiments.training import Training, determinism, find_device, train
from mtl_study.experiments.waits import Waits
from mtl_study.publishing import calibration
from mtl_study.words import duration, listed

BATCH = 256
DEFAULT = ", default layout"
GROUPS = "nash_mtl, groups"
ENTRY_LIMIT = 3  # percent over the trainer's step
PAIRS = 6  # of networks, in `entry`
CPU = torch.device("cpu")


def needed(key: str, tasks: int) -> dict[str, Any]:
    """Options without which a method cannot be built."""
    return {"weights": [1 / tasks] * tasks} if key == "fixed" else {}


def _wait(device: torch.device) -> None:
    """Until the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def interleaved(
    rows: Mapping[str, Callable[[], object]], rounds: int, baselines: Mapping[str, str], device: torch.device = CPU
) -> pd.DataFrame:
    """Median milliseconds of each row, and for each baseline (column: row) its median ratio to that row of the same
    round. A call ends when the device has done its work."""
    seconds = {name: np.zeros(rounds) for name in rows}
    for call in rows.values():
        call()  # the first call also allocates
    for i in progress.bar(range(rounds), desc="rounds", leave=False):
        for name, call in rows.items():
            _wait(device)
            start = time.perf_counter()
            call()
            _wait(device)
            seconds[name][i] = time.perf_counter() - start
    table = {
        name: {"ms": np.median(taken) * 1e3}
        | {column: np.median(taken / seconds[baseline]) for column, baseline in baselines.items()}
        for name, taken in seconds.items()
    }
    return pd.DataFrame.from_dict(table, orient="index")


def steps(problem_name: str = "multimnist/CL_RR", rounds: int = 60, device: torch.device = CPU) -> pd.DataFrame:
    """One training step (batch, forward, backward, Adam) of every method over that of the plain sum of losses.

    Rows that are not methods: the plain sum and K full backward passes as a user would write them on one joint graph,
    each in the memory layout in which this package trains (channels last) and in torch's default layout.

    Returns:
        ms; "× plain sum": the ratio to the plain sum, all else equal; "× user's loop": the ratio to the plain sum in
        torch's default layout, which is what a user would otherwise run.
    """
    problem = problems.get(problem_name)
    data = problem.data.load("embedded", problem.data.sizes("embedded"), None, device, torch.float32)["train"]
    rows: dict[str, Callable[[], object]] = {
        f"{name}{where}": _joint(problem, data, passes, layout, device)
        for where, layout in (("", torch.channels_last), (DEFAULT, torch.contiguous_format))
        for name, passes in (("plain sum", 1), ("K full backward passes", len(problem.tasks)))
    }
    for key in smtos.keys():  # noqa: SIM118
        call = _method(problem, data, key, device)
        try:
            call()
        except smtos.BadOption as refusal:
            print(f"left out: {refusal}")
        else:
            rows[key] = call
    return interleaved(rows, rounds, {"× plain sum": "plain sum", "× user's loop": f"plain sum{DEFAULT}"}, device)


def _model(
    problem: problems.Problem, device: torch.device, layout: torch.memory_format = torch.channels_last
) -> MultiTaskModel:
    torch.manual_seed(0)
    return problem.build_model(0.0).to(device).to(memory_format=layout)


def _joint(
    problem: problems.Problem, data: Split, passes: int, layout: torch.memory_format, device: torch.device
) -> Callable[[], object]:
    model = _model(problem, device, layout)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        x, targets = data.batch(torch.randint(len(data), (BATCH,), device=device), problem.task_names)
        z = model.encoder(x)
        losses = [t.loss(h(z), y) for t, h, y in zip(problem.tasks, model.heads.values(), targets, strict=True)]
        if passes == 1:
            losses = [torch.stack(losses).sum()]
        for k, loss in enumerate(losses):
            optimizer.zero_grad()
            loss.backward(retain_graph=k < len(losses) - 1)
        optimizer.step()

    return step


def _method(problem: problems.Problem, data: Split, key: str, device: torch.device) -> Callable[[], object]:
    model = _model(problem, device)
    smto = smtos.build(key, len(problem.tasks), **needed(key, len(problem.tasks)))
    likelihoods = tuple(task.likelihood for task in problem.tasks)
    smto.set_up(
        ProblemInfo(likelihoods=likelihoods, feature_shape=problem.feature_shape, lr=1e-3, weight_decay=0.0), seed=0
    )
    smto.to(device)
    smto.begin_epoch(0, None, 1e-3)
    groups = [{"params": list(model.parameters())}, *smto.parameter_groups(1e-3)]
    optimizer = torch.optim.Adam(groups, lr=1e-3, fused=True)
    loss_functions = [task.loss for task in problem.tasks]

    def batch() -> tuple[Any, Sequence[torch.Tensor]]:
        return data.batch(torch.randint(len(data), (BATCH,), device=device), problem.task_names)

    def one() -> None:
        step = Step(
            model,
            loss_functions,
            *batch(),
            transform_features=smto.transform_features,
            second_batch=batch,
            replay=smto.replay,
        )
        smto.backward(step)
        optimizer.step()
        smto.after_step(step)

    return one


THREE_TASKS = calibration.Shape("cityscapes/19C", (("slim", 32), ("width", 32)), 2, "")
SUITED = {  # a method that no three tasks of ours suit: it asks for heads of one linear layer
    "bayesagg_mtl": calibration.Shape("qm9", (("max_atoms", 9), ("slim", 4)), 2, ""),
}


def waits() -> pd.DataFrame:
    """What the host waits for in a training step of every method on a GPU, with three tasks (bayesagg_mtl: QM9's
    eleven): counted on tensors without numbers (experiments/waits.py).

    Returns:
        waits: how many; read: the shapes of what the host reads, () a number, (4, 3) a Gramian and the losses; or the
        linear algebra that it looks at, whether it went well, and how often.
    """
    rows = {}
    for key in progress.bar(smtos.keys(), "methods", leave=False):
        shape = SUITED.get(key, THREE_TASKS)._replace(way=key)
        one = calibration.one_step(shape, calibration.NOWHERE)
        with Waits() as found:
            one()
        looked_at = [f"{times} × {name}" for name, times in Counter(found.checked).items()]
        rows[key] = {"waits": found.count, "read": ", ".join([*map(str, found.read), *looked_at])}
    return pd.DataFrame.from_dict(rows, orient="index")


def entry(problem_name: str = "multimnist/CL_RR", rounds: int = 180, device: torch.device = CPU) -> pd.DataFrame:
    """One training step of every method through mtl_core.Balancer, as in your own loop, over the trainer's step:
    medians of six pairs of networks, since where their tensors happen to be in memory moves a ratio by two percent.

    Returns:
        ms; "× trainer's step". The row "nash_mtl, groups" has one small problem per layer of the encoder.
    """
    problem = problems.get(problem_name)
    data = problem.data.load("embedded", problem.data.sizes("embedded"), None, device, torch.float32)["train"]

    def medians(key: str, groups: bool = False) -> pd.Series:
        pairs = []
        for i in range(PAIRS):
            made = [(key, lambda: _method(problem, data, key, device))]
            made.insert(i % 2, ("own", lambda: _own_loop(problem, data, key, device, groups)))
            rows = {name: make() for name, make in made}
            pairs.append(interleaved(rows, -(-rounds // PAIRS), {"× trainer's step": key}, device).loc["own"])
        return pd.DataFrame(pairs).median()

    found = {key: medians(key) for key in progress.bar(entered(), "methods", leave=False)}
    return pd.DataFrame(found | {GROUPS: medians("nash_mtl", groups=True)}).T


def entered() -> list[str]:
    """The methods that `entry` measures: BayesAgg-MTL asks for heads of one linear layer."""
    return [key for key in smtos.keys() if key != "bayesagg_mtl"]  # noqa: SIM118


def _own_loop(
    problem: problems.Problem, data: Split, key: str, device: torch.device, groups: bool = False
) -> Callable[[], object]:
    model = _model(problem, device)
    layers = [list(layer.parameters(recurse=False)) for layer in model.encoder.modules()]
    balance = Balancer(
        smtos.build(key, len(problem.tasks), **needed(key, len(problem.tasks))),
        shared=model.encoder.parameters(),
        lr=1e-3,
        likelihoods=[task.likelihood for task in problem.tasks],
        feature_shape=problem.feature_shape,
        groups=[layer for layer in layers if layer] if groups else None,
    )
    parameters = [{"params": list(model.parameters())}, *balance.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)
    balance.begin_epoch()

    def batch() -> tuple[Any, Sequence[torch.Tensor]]:
        return data.batch(torch.randint(len(data), (BATCH,), device=device), problem.task_names)

    def forward(x: Any, targets: Sequence[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        z = model.encoder(x)
        heads = zip(problem.tasks, model.heads.values(), targets, strict=True)
        return z, [task.loss(head(balance.transform(z, k)), y) for k, (task, head, y) in enumerate(heads)]

    def one() -> None:
        now = batch()
        balance.begin_step()
        z, losses = forward(*now)
        optimizer.zero_grad()
        balance.backward(losses, features=z, second_batch=lambda: forward(*batch())[1])
        optimizer.step()
        balance.after_step(lambda: forward(*now)[1])

    return one


# -- what a batch takes ---------------------------------------------------------------------------------------------

LIMIT = 10  # percent of its steps per second that loading may cost a training


class Loaded(NamedTuple):
    """A problem with its options, how many samples a batch and the splits have, and at most how many rounds."""

    problem: str
    options: dict[str, Any]
    batch: int
    sizes: Sizes
    rounds: int = 1_000


_STREETS: dict[str, Any] = {"options": {"width": 64, "slim": 4}, "batch": 8, "sizes": (240, 80, 80)}  # as at quick
LOADED = {
    "multimnist/CL_RR": Loaded("multimnist/CL_RR", {}, BATCH, (4 * BATCH, BATCH, BATCH)),
    **{name: Loaded(name, **_STREETS) for name in ("cityscapes/R50", "cityscapes/R18", "cityscapes/19C")},
    "cityscapes/19C, paper's size": Loaded("cityscapes/19C", {"width": 256}, 2, (32, 8, 8), rounds=3),
    "qm9": Loaded("qm9", {"max_atoms": 13, "slim": 2}, 30, (1500, 300, 500)),
}


def loading(rounds: int = 20, what: Mapping[str, Loaded] = LOADED, device: torch.device = CPU) -> pd.DataFrame:
    """Per problem, at the settings of its quick preset (one row: at the paper's size of the pictures), under the plain
    mean with augmentation where there is any.

    Returns:
        batch: its samples. rounds: of which the row holds medians. Steps per second with every batch loaded for its
        step, and with one batch that is there already. "fewer by, %": by how much loading makes them fewer, from the
        median of the ratios per round. "all at once, ×": K encoder gradients by one batched backward pass, over K
        passes one by one, as the step has them (NaN where torch has no such pass).
    """
    rows = {
        name: _loading(one, min(rounds, one.rounds), device)
        for name, one in progress.bar(what.items(), "problems", leave=False)
    }
    return pd.DataFrame.from_dict(rows, orient="index").astype({"batch": int, "rounds": int})


def _loading(what: Loaded, rounds: int, device: torch.device) -> dict[str, float]:
    problem, size = problems.get(what.problem, **what.options), what.batch
    problem.data.prepare("embedded", what.sizes, None)
    data = problem.data.load("embedded", what.sizes, None, device, torch.float32)["train"]
    model, augmentation = _model(problem, device), torch.Generator().manual_seed(0)
    loss_functions = [task.loss for task in problem.tasks]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    mean = smtos.build("unit_scal", len(problem.tasks))

    def batch() -> tuple[Any, Sequence[torch.Tensor]]:
        index = torch.randint(len(data), (size,), device=device)
        return data.batch(index, problem.task_names, augmentation)

    x, targets = batch()
    gradients = Step(model, loss_functions, x, targets).feature_gradients
    z, shared = model.encoder(x), list(model.encoder.parameters())

    def train(x: Any, targets: Sequence[torch.Tensor]) -> None:
        mean.backward(Step(model, loss_functions, x, targets))
        optimizer.step()

    def one_by_one() -> None:
        for gradient in gradients:
            torch.autograd.grad(z, shared, gradient, retain_graph=True)

    def at_once() -> None:
        torch.autograd.grad(z, shared, gradients, retain_graph=True, is_grads_batched=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # vmap names the operations that it takes one by one
        try:
            passes = interleaved({"one": one_by_one, "all": at_once}, max(3, rounds // 4), {"ratio": "one"}, device)
            batched = passes.ratio["all"]
        except RuntimeError as refusal:  # on a GPU it takes no convolution in the channels-last layout
            print(f"no batched pass for {what.problem}: {str(refusal).splitlines()[0]}")
            batched = np.nan
    ways = {"loaded": lambda: train(*batch()), "there": lambda: train(x, targets)}
    taken = interleaved(ways, rounds, {"ratio": "there"}, device)
    return {
        "batch": size,
        "rounds": rounds,
        "steps/s, loaded": 1e3 / taken.ms["loaded"],
        "steps/s, there": 1e3 / taken.ms["there"],
        "fewer by, %": 100 * (1 - 1 / taken.ratio["loaded"]),
        "all at once, ×": batched,
    }


# -- whole epochs -----------------------------------------------------------------------------------------------------

_PICTURES: dict[str, Any] = {
    "problem_options": {"width": 256},
    "train_size": 320,
    "val_size": 64,
    "test_size": 64,
    "batch_size": 32,
}
WHOLE: dict[str, dict[str, Any]] = {  # the paper's widths and batches, on fewer samples
    "multimnist/CL_RR": {"train_size": 12_000, "val_size": 2_000, "test_size": 2_000, "batch_size": 256},
    **{name: _PICTURES for name in ("cityscapes/R18", "cityscapes/19C")},
    "qm9": {"train_size": 480, "val_size": 120, "test_size": 120, "batch_size": 120},
}


def epochs(device: torch.device, what: Mapping[str, Mapping[str, Any]] = WHOLE) -> pd.DataFrame:
    """The second epoch of every method in the study's own training loop: batches, steps, and both evaluations.

    Returns:
        Per problem and method: ms; "× plain mean": over the plain mean's epoch that was trained just before; on a GPU
        "peak, MiB": of its memory, everything in it included; "ended": finished, or where it diverged.
    """
    rows = []
    for problem, values in what.items():
        given: dict[str, Any] = {"source": "embedded", "epochs": 2, "lr": 1e-4, "seed": 1, **values}
        tasks = len(problems.get(problem, **given.get("problem_options", {})).tasks)
        for key in progress.bar(smtos.keys(), problem, leave=False):
            config = RunConfig.of(problem=problem, smto=key, options=needed(key, tasks), **given)
            with determinism(threads=torch.get_num_threads()):
                try:
                    method = Training(config, device, None)
                except smtos.BadOption as refusal:
                    print(f"left out on {problem}: {refusal}")
                    continue
                mean = Training(RunConfig.of(problem=problem, smto="unit_scal", **given), device, None)
                seconds = {}
                for training in (mean, method, mean, method):
                    if device.type == "cuda":
                        torch.cuda.reset_peak_memory_stats(device)
                    _wait(device)
                    start = time.perf_counter()
                    if training.unfinished:
                        training.epoch()
                    _wait(device)
                    seconds[training] = time.perf_counter() - start
                row = {"problem": problem, "method": key, "ms": seconds[method] * 1e3}
                row["× plain mean"] = seconds[method] / seconds[mean]
                if device.type == "cuda":
                    row["peak, MiB"] = torch.cuda.max_memory_allocated(device) / 2**20
                rows.append(row | {"ended": method.diverged or "finished"})
    return pd.DataFrame(rows)


# -- upsampling --------------------------------------------------------------------------------------------------------


def upsampling(rounds: int = 20, device: torch.device = CPU, images: int = 32) -> pd.DataFrame:
    """Log-odds of 19 classes from an eighth of 512×256 to all of it, and the gradient back, with the deterministic
    kernels of a run.

    Returns:
        ms; "× kernel": the ratio to torch's kernel.
    """

    def row(products: bool) -> Callable[[], object]:
        to_pixels = deeplab.Head(1, 1, width_divisor=32, products=products)[-1]
        return lambda: torch.autograd.grad(to_pixels(z), z, upstream)

    with determinism(1):
        z = torch.randn(images, 19, 32, 64, device=device, requires_grad=True)
        upstream = torch.randn(images, 19, 256, 512, device=device)
        rows = {"kernel": row(False), "products": row(True)}
        return interleaved(rows, rounds, {"× kernel": "kernel"}, device)


# -- QM9's encoder -----------------------------------------------------------------------------------------------------

OURS, SPARSE = "dense", "NNConv"


def encoder(rounds: int = 5, molecules: int = 120) -> pd.DataFrame:
    """Forward and backward pass of QM9's encoder at full width, over one batch of real molecules of mixed sizes: dense,
    as this package has it, and from torch-geometric's layers with the same weights. The batch is there already, in the
    form that each takes.

    Returns:
        ms; "time, ×": over dense; "peak, MiB": by how much the pass, once, raises the largest memory of a process of
        its own (as Linux counts it; NaN elsewhere); "peak, ×": over dense.
    """
    passes = {way: _encoder_pass(way, molecules) for way in (OURS, SPARSE)}
    table = interleaved(passes, rounds, {"time, ×": OURS})
    spawn = multiprocessing.get_context("spawn")
    for way in passes:
        with ProcessPoolExecutor(1, mp_context=spawn) as process:
            table.loc[way, "peak, MiB"] = process.submit(_peak, way, molecules).result()
    table["peak, ×"] = table["peak, MiB"] / table.loc[OURS, "peak, MiB"]
    return table


def _encoder_pass(way: str, molecules: int) -> Callable[[], object]:
    from benchmarks import oracles
    from mtl_core.models import mpnn

    data, sizes = problems.get("qm9").data, (molecules, 4, 4)
    data.prepare("embedded", sizes, None)
    train = data.load("embedded", sizes, None, CPU, torch.float32)["train"]
    batch = train.batch(torch.arange(molecules), ())[0]
    torch.manual_seed(0)
    dense = mpnn.Encoder()
    model = dense if way == OURS else oracles.sparse_encoder(dense)
    inputs = (batch,) if way == OURS else oracles.edge_list(batch)

    def one() -> None:
        model.zero_grad()
        model(*inputs).sum().backward()

    return one


def _peak(way: str, molecules: int) -> float:
    """MiB by which the pass raises the largest memory of this process."""
    torch.set_num_threads(1)
    one = _encoder_pass(way, molecules)
    status = Path("/proc/self/status")
    if not status.exists():  # no Linux
        return np.nan
    Path("/proc/self/clear_refs").write_text("5")  # the largest memory so far is the present one
    before = _largest_memory(status)
    one()
    return _largest_memory(status) - before


def _largest_memory(status: Path) -> float:
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 2**10  # KiB


# -- records -----------------------------------------------------------------------------------------------------------


def records(number: int = 20_000, epochs: int = 10) -> pd.DataFrame:
    """What repeating a sweep costs whose runs are all stored, in a live store and in an archive. One run is trained;
    the others are it under other seeds.

    Returns:
        seconds; "MiB held": by the records that are handed back, in a process of its own (NaN where it is no Linux).
    """
    sizes = {"train_size": 256, "val_size": 20, "test_size": 20}
    first = RunConfig.of(problem="multimnist/CL_RR", smto="cagrad", seed=0, epochs=epochs, lr=0.001, **sizes)
    run, rows = train(first), {}
    with tempfile.TemporaryDirectory() as folder:
        live = RunStore(Path(folder) / "live store")
        for seed in progress.bar(range(number), "records", leave=False):
            config = first.model_copy(update={"seed": seed})
            path = live.path(config)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(run.model_copy(update={"config": config}).to_line())
        merge(live.folder, Path(folder) / "archive", pack=True)
        for kind in ("live store", "archive"):
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
                rows[kind] = process.submit(_found_again, Path(folder) / kind, first, number).result()
    return pd.DataFrame.from_dict(rows, orient="index", columns=["seconds", "MiB held"])


def _found_again(store: Path, first: RunConfig, number: int) -> tuple[float, float]:
    configs = [first.model_copy(update={"seed": seed}) for seed in range(number)]
    pages, start = Path("/proc/self/statm"), time.perf_counter()
    before = pages.read_text() if pages.exists() else ""
    found = runner.run(configs, store)
    seconds = time.perf_counter() - start
    assert len(found) == number
    if not before:
        return seconds, np.nan
    held = int(pages.read_text().split()[1]) - int(before.split()[1])
    return seconds, held * os.sysconf("SC_PAGE_SIZE") / 2**20


# -- reading QM9 -------------------------------------------------------------------------------------------------------


def reading(sizes: Sizes | None = None, folder: str | os.PathLike[str] | None = None) -> tuple[float, dict[str, int]]:
    """QM9 from its package's text into an empty cache, bonds and all.

    Args:
        sizes: molecules in train, val and test; None: all there are. folder: of the cache; None: a temporary one.

    Returns:
        Seconds; and how many molecules went which way (`datasets.qm9.graph`).
    """
    data = QM9()
    sizes = sizes or data.sizes("embedded")
    with tempfile.TemporaryDirectory() as temporary, _cache_in(folder or temporary):
        start = time.perf_counter()
        data.prepare("embedded", sizes, None)
        seconds = time.perf_counter() - start
        return seconds, data.ways(sizes)


@contextlib.contextmanager
def _cache_in(folder: str | os.PathLike[str]) -> Iterator[None]:
    before = os.environ.get("MTL_DATA")
    os.environ["MTL_DATA"] = str(folder)
    try:
        yield
    finally:
        del os.environ["MTL_DATA"]
        if before is not None:
            os.environ["MTL_DATA"] = before


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
    from benchmarks import oracles
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
    from benchmarks import oracles

    rows = []
    for name, ways in progress.bar(subproblems().items(), desc="subproblems", leave=False):
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


def in_short(table: pd.DataFrame, wanted: float = 50) -> str:
    """What `solver_times` says, over all its rows: the worst violations, and whether ours is faster everywhere."""
    worst = "; ".join(f"{way} {table[f'{way} misses by'].max():.0e}" for way in ("ours", "scipy", "cvxpy"))
    times = table["cvxpy, ×"]
    slow = [f"{row.subproblem}, {row.Gramian}, K = {row.K}" for row in table[times < wanted].itertuples()]
    where = f"not for {'; '.join(slow)}" if slow else "everywhere"
    return (
        f"Misses the optimality conditions by, at worst: {worst}.\n"
        f"At least {wanted:g} times as fast as cvxpy: {where} (the least: {times.min():.0f} times)."
    )


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


class Benched(NamedTuple):
    """A part of the bench: a heading, a table and a remark; formats: of columns, others are shown as `digits` says."""

    heading: str
    table: pd.DataFrame
    remark: str = ""
    digits: str = "{:.2f}"
    formats: Mapping[str, str] = {}

    def shown(self, before: last.Result | None) -> str:
        """As text, next to the result before, if there is one."""
        table = last.next_to(self.table, before) if before else self.table
        keyed = all(table.index.names)
        table = table.reset_index() if keyed else table
        shapes = {
            name: self.formats.get(name.removeprefix("last "), self.digits) for name in table.select_dtypes("number")
        }
        text = table.to_string(
            index=not keyed,
            formatters={name: shape.format for name, shape in shapes.items()},
            na_rep="",
            sparsify=False,
        )
        parts = [self.heading, text, self.remark]
        parts.append(f"Last: {before}." if before and last.comparable(table) else "")
        return "\n\n".join(part for part in parts if part)


def _where(device: torch.device) -> str:
    return "one thread" if device.type == "cpu" else torch.cuda.get_device_name(device)


def _steps(rounds: int, device: torch.device) -> Benched:
    heading = f"One training step on multimnist/CL_RR, batch {BATCH}, {_where(device)}: median of {rounds} rounds"
    return Benched(heading, steps(rounds=rounds, device=device).sort_values("ms"))


def _waits(rounds: int, device: torch.device) -> Benched:
    heading = (
        "What the host waits for in one training step on a GPU, three tasks (bayesagg_mtl: 11), counted without one"
    )
    return Benched(heading, waits().sort_values("waits", kind="stable"), digits="{:.0f}")


def _entry(rounds: int, device: torch.device) -> Benched:
    table = entry(rounds=rounds, device=device)
    cost = 100 * (table["× trainer's step"].drop(GROUPS) - 1)
    remark = f"It costs at most {cost.max():.1f} % over the trainer's step ({cost.idxmax()}); limit {ENTRY_LIMIT} %."
    heading = f"The same through mtl_core.Balancer, {_where(device)}: median of {PAIRS} pairs, {rounds} rounds in all"
    return Benched(heading, table, remark, digits="{:.3f}")


def _load(rounds: int, device: torch.device) -> Benched:
    table = loading(rounds, device=device)
    cost = table["fewer by, %"]
    return Benched(
        f"Loading, at the settings of the quick presets, but for the row of the paper's size; {_where(device)}\n"
        "(medians over rounds; fewer by: of the ratios per round)",
        table,
        f"Loading costs at most {cost.max():.1f} % of the steps per second ({cost.idxmax()}); limit {LIMIT} %.",
        formats=dict.fromkeys(("batch", "rounds"), "{:.0f}"),
    )


def _upsampling(rounds: int, device: torch.device) -> Benched:
    heading = f"Predictions of 19C to its pixels, forward and backward, {_where(device)}: median of {rounds} rounds"
    return Benched(heading, upsampling(rounds, device))


def _encoder(rounds: int, device: torch.device) -> Benched:
    heading = "QM9's encoder, forward and backward, 120 real molecules, one thread"
    return Benched(f"{heading}: median of {rounds} rounds", encoder(rounds))


def _data(rounds: int, device: torch.device) -> Benched:
    seconds, ways = reading()
    heading = f"Reading QM9, all cores: {sum(ways.values()):,} molecules in {seconds:.0f} s, once"
    return Benched(heading, pd.DataFrame({"molecules": pd.Series(ways)}), digits="{:,.0f}")


def _solvers(rounds: int, device: torch.device) -> Benched:
    table = solver_times(rounds)
    heading = f"The K×K subproblems: median of {rounds} Gramians; A: {GRAMIANS['A']}, B: {GRAMIANS['B']}"
    formats = {name: "{:.0e}" for name in table if name.endswith("misses by")}
    return Benched(heading, table.set_index(["subproblem", "Gramian", "K"]), in_short(table), "{:.0f}", formats)


def _records(rounds: int, device: torch.device) -> Benched:
    found = {f"{length} epochs": records(epochs=length) for length in (10, 100)}
    heading = "20,000 records that are all there, found again by a sweep, once"
    return Benched(heading, pd.concat(found), digits="{:.1f}")


def _epochs(rounds: int, device: torch.device) -> Benched:
    heading = f"The second epoch of every method, evaluations included; full width; {_where(device)}"
    return Benched(heading, epochs(device).set_index(["problem", "method"]))


class BenchPart(NamedTuple):
    """How a part is measured; its rounds (1 where it is done once); seconds on two cores of a server, of each round
    and apart from them."""

    measure: Callable[[int, torch.device], Benched]
    rounds: int
    seconds: tuple[float, float]

    def time(self, rounds: int, before: last.Result | None) -> float:
        """Seconds: as it took here the last time, or as it took elsewhere; in proportion to the rounds. 0: unknown."""
        each, fixed = self.seconds
        usual = fixed + each * rounds
        return usual if not before else before.seconds * (usual / (fixed + each * before.rounds) if usual else 1)


PARTS = {
    "steps": BenchPart(_steps, 60, (2, 10)),
    "waits": BenchPart(_waits, 1, (0, 40)),
    "entry": BenchPart(_entry, 180, (4, 10)),
    "loading": BenchPart(_load, 20, (0.8, 160)),
    "upsampling": BenchPart(_upsampling, 20, (1, 10)),
    "encoder": BenchPart(_encoder, 5, (7, 30)),
    "data": BenchPart(_data, 1, (0, 40)),
    "solvers": BenchPart(_solvers, 9, (1.8, 6)),
    "records": BenchPart(_records, 1, (0, 130)),
    "epochs": BenchPart(_epochs, 1, (0, 0)),  # for a GPU; nobody has measured how long
}


@commands.ends((last.NoResult,))
def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code: 2 for a request that cannot be met, 1 where a result cannot be kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.split("\n")[0])
    parser.add_argument("what", nargs="*", help=f"{', '.join(PARTS)}; default: all but epochs")
    parser.add_argument(
        "--device", default="cpu", help="where steps, entry, loading, upsampling and epochs run: cpu or cuda"
    )
    rounds = ", ".join(f"{name} {part.rounds}" for name, part in PARTS.items() if part.rounds > 1)
    parser.add_argument("--rounds", type=int, help=f"default: {rounds}; the others are done once")
    given = parser.parse_args(arguments)
    for name in given.what:
        if name not in PARTS:
            parser.error(f"there is no part {name!r}{names.nearest(name, PARTS)}; there are {listed(PARTS)}")
    if given.rounds is not None and given.rounds < 1:
        parser.error(f"--rounds {given.rounds}: a whole number from 1 is needed")
    torch.set_num_threads(1)
    device = find_device(given.device)
    wanted = {name: PARTS[name] for name in given.what or PARTS if given.what or name != "epochs"}
    number = {name: (given.rounds or part.rounds) if part.rounds > 1 else 1 for name, part in wanted.items()}
    before = {name: last.find(last.file(name, device.type)) for name in wanted}
    seconds = {name: part.time(number[name], before[name]) for name, part in wanted.items()}
    each = ", ".join(f"{name} {duration(taken) if taken else 'a time not known'}" for name, taken in seconds.items())
    print(
        f"This takes about {duration(sum(seconds.values()))}: {each}." if len(seconds) > 1 else f"Time: {each}.",
        flush=True,
    )
    for name, part in wanted.items():
        start = time.perf_counter()
        measured = part.measure(number[name], device)
        print(f"\n{measured.shown(before[name])}", flush=True)
        last.keep(last.file(name, device.type), measured.table, number[name], time.perf_counter() - start)
    return 0


if __name__ == "__main__":
    sys.exit(main())
