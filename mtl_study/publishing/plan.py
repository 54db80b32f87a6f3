"""What a preset takes before any of it is run: `make plan PRESET=paper DEVICES=4`.

A row per notebook: runs and steps, counted from its parameters (`planned`); hours, from steps that are measured here on
drawn samples (`calibration`); memory of the largest run, and disk for its records. No data are needed.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

from mtl_core import files, problems, progress, smtos
from mtl_core.options import BadOption
from mtl_study import artifacts, commands, parameters
from mtl_study.experiments import runner, training
from mtl_study.experiments.runs import BadConfig
from mtl_study.parameters import BadParameters
from mtl_study.publishing import calibration, notebooks, planned
from mtl_study.publishing.calibration import Shape, Steps
from mtl_study.publishing.planned import Config
from mtl_study.publishing.reproduce import BadRequest, choose, need_preset
from mtl_study.words import counted, listed

GIB, HOUR = 2**30, 3600
LIMIT, LAST = 130, 5  # seconds for all of it; for measuring, at least
EVALUATED = 1 / 3  # of a training step of the uniform loss is the forward pass that evaluates as many samples
START, END = "<!-- plan -->\n", "<!-- end of the plan -->\n"  # around the table in README.md
LARGEST = (  # of each network, at the paper's size
    *(Shape("multimnist/CL_RR", (), 256, ""), Shape("qm9", (), 120, "")),
    *(Shape(f"cityscapes/{name}", (), 32, "") for name in ("R18", "R50", "19C")),
)
MEMORY = "<!-- memory -->\n", "<!-- end of the memory -->\n"  # around the table in docs/cluster.md


@dataclass(frozen=True)
class Row:
    """Of a notebook: what it trains that none before it in the same store does. hours: on one device; published: with
    the paper's settings in place of a search; amp: under autocast to bfloat16, None where the device has none. memory:
    GiB of the largest run. maps, samples: GiB of data that a process keeps; those of a host share Cityscapes' maps,
    which are in files. disk: GiB of all records. longest: hours of one run, at most."""

    notebook: str
    runs: int
    epochs: int
    steps: int
    hours: float
    hours_published: float
    hours_amp: float | None
    memory: float
    maps: float
    samples: float
    disk: float
    longest: float

    def hours_on(self, devices: int) -> float:
        """Of devices that share the runs evenly; no run is divided."""
        return max(self.hours / devices, self.longest)

    def on_gpu(self, runs: int) -> float:
        """GiB on a GPU that so many runs share."""
        return runs * (self.memory + self.maps + self.samples)

    def on_host(self, runs: int, process: float) -> float:
        """GiB of a host where so many cores train. process: of one that has nothing to train yet."""
        return runs * (self.memory + self.samples + process) + self.maps if self.runs else 0


def steps(config: Config) -> int:
    """Of training, in all."""
    return config.epochs_in_all * math.ceil(config.base.sizes[0] / config.base.batch_size)


def shapes(configs: Sequence[Config], evaluated: bool = True) -> Mapping[Shape, float]:
    """How often a step of each shape is taken; the forward passes that evaluate stand there as so many steps of the
    uniform loss, or are left out."""
    found: defaultdict[Shape, float] = defaultdict(float)
    for config in configs:
        (_, val, test), one = config.base.sizes, calibration.shape(config.base)
        found[one] += steps(config)
        if evaluated:
            found[one._replace(way="losses")] += EVALUATED * config.epochs_in_all * (val + test) / one.batch
    return found


def with_published(values: dict[str, Any]) -> dict[str, Any]:
    """Parameters with the paper's settings in place of a search."""
    details = values.get("details", {})
    return {**values, "details": {**details, "search": "published"}} if "search" in details else values


def bytes_per_epoch(repository: Path) -> float:
    """Of a shipped record: the mean over the first one of every file."""
    sizes = []
    for path in sorted((repository / "results").rglob("*.jsonl")):
        with path.open(encoding="utf-8") as file:
            line = file.readline()
        if epochs := len(json.loads(line)["record"].get("history", ())):  # a population has none of its own
            sizes.append(len(line) / epochs)
    if not sizes:
        raise BadRequest(f"{repository / 'results'} holds no record, from which the disk that others take is told.")
    return sum(sizes) / len(sizes)


def read(repository: Path, preset: str, only: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The parameters of the notebooks, by name, in reading order. Raises BadRequest, with all that is wrong."""
    need_preset(repository, preset)
    found, wrong = {}, []
    for notebook in choose(notebooks.find(repository / "notebooks"), list(only)):
        try:
            path = parameters.file_of(preset, notebook.stem, repository / "params")
            found[notebook.stem] = parameters.preset_values(path)
        except BadParameters as error:
            wrong.append(str(error))
            continue
        wrong += [f"{path}: {one}." for one in parameters.misfits(notebook.stem, found[notebook.stem])]
    if wrong:
        raise BadRequest("\n".join(wrong))
    return found


def new_runs(notebooks_: dict[str, dict[str, Any]]) -> dict[str, list[Config]]:
    """By notebook: what it trains that none before it does."""
    seen: set[tuple[str, str]] = set()
    found = {}
    for name, values in notebooks_.items():
        keyed = {(values.get("store", ""), c.key): c for c in planned.runs(name, values)}
        found[name] = [config for key, config in keyed.items() if key not in seen]
        seen |= keyed.keys()
    return found


@dataclass(frozen=True)
class Measured:
    """On one device: steps in float32, and how many times as long they take under autocast, by family of problems; None
    where the device has no bfloat16."""

    float32: Steps
    amp: dict[str, float] | None

    def hours(self, taken: Mapping[Shape, float]) -> float:
        return sum(n * self.float32.seconds(one) for one, n in taken.items()) / HOUR

    def saved(self, trained: Mapping[Shape, float]) -> float | None:
        """Hours that autocast saves: in training, as evaluation is in float32."""
        if self.amp is None:
            return None
        factors = {one: 1 - self.amp[self.float32.like(one).family] for one in trained}
        return sum(n * self.float32.seconds(one) * factors[one] for one, n in trained.items()) / HOUR

    def notes(self, taken: Mapping[Shape, float]) -> list[str]:
        """What was measured, and what was scaled from what."""
        said = [f"Measured: {one}: {1000 * t:,.0f} ms per step." for one, t in self.float32.items()]
        for one in taken:
            if (known := self.float32.like(one)) != one:
                times = calibration.work(one) / calibration.work(known)
                said.append(f"Scaled: {one}: {times:.3g} × ({known}), as the operations are.")
        if self.amp is None:
            return [*said, "Autocast was not measured: this device does not compute in bfloat16 itself."]
        return said + [f"Under autocast a step on {family} takes {x:.2f} × as long." for family, x in self.amp.items()]


def measured(
    taken: Mapping[Shape, float],
    seconds: Callable[..., float],
    bfloat16: bool,
    until: float = math.inf,
) -> Measured:
    """What these steps take.

    Args:
        seconds: of a step, as `calibration.seconds` has them on a device. bfloat16: whether the device has it. until:
            when it should be known, by time.perf_counter.
    """
    found, amp, order = Steps(), dict[str, float](), calibration.in_turn(taken)
    found.measure(order, seconds, max(LAST, min(calibration.LONGEST, until - time.perf_counter())))
    if not bfloat16:
        return Measured(found, None)
    for one in found:  # the lightest of each family comes first
        if one.family not in amp:
            amp[one.family] = seconds(one, amp=True) / found[one]
    return Measured(found, amp)


def rows(
    given: dict[str, dict[str, Any]],
    seconds: Callable[..., float],
    bfloat16: bool,
    per_epoch: float,
    until: float = math.inf,
) -> tuple[list[Row], list[str]]:
    """A row per notebook, and what the hours follow from. until: see `measured`."""
    as_given = new_runs(given)
    published = new_runs({name: with_published(values) for name, values in given.items()})
    taken = {name: shapes(configs) for name, configs in as_given.items()}
    taken_published = {name: shapes(configs) for name, configs in published.items()}
    everything = shapes([config for some in (*as_given.values(), *published.values()) for config in some])
    known = measured(everything, seconds, bfloat16, until)
    saved = {name: known.saved(shapes(configs, evaluated=False)) for name, configs in as_given.items()}
    return [
        Row(
            name,
            len(configs),
            sum(config.epochs_in_all for config in configs),
            sum(map(steps, configs)),
            known.hours(taken[name]),
            known.hours(taken_published[name]),
            None if (less := saved[name]) is None else known.hours(taken[name]) - less,
            max(map(calibration.memory, taken[name]), default=0) / GIB,
            calibration.maps(configs) / GIB,
            calibration.samples(configs) / GIB,
            sum(config.epochs_in_all for config in configs) * per_epoch / GIB,
            max((known.hours(shapes([config])) for config in configs), default=0),
        )
        for name, configs in as_given.items()
    ], known.notes(everything)


def table(
    found: Sequence[Row], devices: int = 1, device: str = "core", runs_per_gpu: int = 1, process: float = 0
) -> str:
    """As Markdown.

    Args:
        device: that hours are of: "core" or "GPU". process: see `Row.on_host`.
    """
    several = [f"hours, {devices} {device}s"] if devices > 1 else []
    shared = f"GiB per GPU, {runs_per_gpu} runs" if runs_per_gpu > 1 else "GiB per GPU"
    head = ["notebook", "runs", "epochs", "steps", f"hours, one {device}", *several, "hours, `search: published`"]
    on_host = [f"GiB, {counted(devices, 'core')} of one host"] if device == "core" else []
    lines = [[*head, "hours, `precision: amp`", "GiB per run", *on_host, shared, "GiB of records"]]
    lines.append(["---", *["---:"] * (len(lines[0]) - 1)])
    for row in found:
        cells = [row.notebook, *(f"{n:,}" for n in (row.runs, row.epochs, row.steps))]
        of_several = [row.hours_on(devices)] if devices > 1 else []
        cells += [_rounded(x) for x in (row.hours, *of_several, row.hours_published, row.hours_amp)]
        of_host = [row.on_host(devices, process)] if on_host else []
        lines.append([*cells, *map(_rounded, (row.memory, *of_host, row.on_gpu(runs_per_gpu), row.disk))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def memory_table() -> str:
    """GiB of a run by method and network, as Markdown; methods that take as much on all networks share a row."""
    same: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for key in progress.bar(smtos.keys(), "methods", leave=False):
        same[tuple(_gib(one._replace(way=key)) for one in LARGEST)].append(key)
    lines = [["methods", *(f"{one.problem}, batch {one.batch}" for one in LARGEST)]]
    lines.append(["---", *["---:"] * len(LARGEST)])
    lines += [[", ".join(methods), *cells] for cells, methods in sorted(same.items(), key=lambda row: -len(row[1]))]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _gib(found: Shape) -> str:
    """Memory of a run, or – where the method does not suit the network."""
    with calibration.NOWHERE:
        model = problems.get(found.problem).build_model(0.0)
    try:
        calibration.method(found).check_model(model)
    except BadOption:
        return "–"
    return f"{calibration.memory(found) / GIB:.2g}"


def notes(preset: str, where: str, found: Sequence[Row], runs_per_gpu: int = 1, process: float = 0) -> list[str]:
    """What the table means."""
    said = [
        f"Preset {preset}; hours on {where}, also those at `precision: amp`, one run after the other on each device, "
        "evaluation included, without loading.",
        "A notebook's row leaves out what one before it has trained into the same store.",
        "Where a search decides, runs are counted as if it chose what the paper chose.",
        "Memory is a lower bound, without the libraries' workspace. Per GPU it is that of "
        f"{counted(runs_per_gpu, 'run')} (MTL_RUNS_PER_GPU), each with its data (Cityscapes' maps stay in files with "
        "MTL_STREAM=1).",
        f"A host has a process per core or run, each with up to {_rounded(process)} GiB for Python and its libraries, "
        "and on cores one run, and digits or molecules; all share Cityscapes' maps, which may stay in their files.",
        "Records take that much on all devices together.",
        "Steps are Adam's, in float32; what probes and transfers do besides is left out.",
    ]
    if long := [f"{row.notebook} ({_rounded(row.longest)})" for row in found if row.longest > runner.TIME_LIMIT]:
        said.append(
            f"Hours of the longest run, where it takes more than the {runner.TIME_LIMIT} after which a run counts as "
            f"hanging, so that MTL_TIME_LIMIT (in hours) has to be set: {listed(long)}."
        )
    if any(row.hours_amp is None for row in found):
        said.append(
            "Hours at `precision: amp` are left out (–): this device does not compute in bfloat16 itself, so that "
            "autocast was not measured."
        )
    if dearer := [row.notebook for row in found if row.hours_published > row.hours]:
        said.append(
            f"{listed(dearer)} take more with `search: published`: some of their runs a search has trained already, "
            "and they count in the rows before."
        )
    if partly := [row.notebook for row in found if planned.partly(row.notebook)]:
        said.append(f"Of {listed(partly)} only those runs are counted that its parameters name.")
    return said


def _rounded(x: float | None) -> str:
    """To two digits, or to whole ones; – for what is not known."""
    if x is None:
        return "–"
    return f"{x:,.0f}" if x >= 10 else f"{x:.2g}"


@commands.ends((BadRequest, BadConfig))
def main(arguments: list[str] | None = None, repository: Path = artifacts.REPOSITORY) -> int:
    """The command. Returns 0, or 2 where the request is refused."""
    parser = argparse.ArgumentParser(prog="plan", description="What a preset takes, before any of it is run.")
    parser.add_argument("--preset", default="smoke", help="a folder of params/, or shipped")
    parser.add_argument("--only", nargs="+", default=[], metavar="NN", help="notebooks by number; default: all")
    parser.add_argument("--devices", type=int, default=1, help="devices that share the runs evenly")
    parser.add_argument("--device", default="auto", help="that steps are measured on")
    parser.add_argument("--readme", action="store_true", help="write the table into README.md, too")
    parser.add_argument("--memory", action="store_true", help="only write docs/cluster.md's table of memory")
    given = parser.parse_args(arguments)
    if given.devices < 1:
        raise BadRequest(f"DEVICES={given.devices}: give a whole number from 1.")
    if given.memory:
        within(repository / "docs/cluster.md", MEMORY, memory_table())
        return 0
    begun, process = time.perf_counter(), psutil.Process().memory_info().rss / GIB
    device, runs_per_gpu = training.find_device(given.device), runner.runs_per_gpu_wanted() or 1
    values = read(repository, given.preset, [name for text in given.only for name in text.split()])
    with training.determinism(1):
        seconds = partial(calibration.seconds, device=device)
        bfloat16, per_epoch = calibration.has_bfloat16(device), bytes_per_epoch(repository)
        found, how = rows(values, seconds, bfloat16, per_epoch, begun + LIMIT)
    kind = "GPU" if device.type == "cuda" else "core"
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"one core of {training.processor()}"
    taken = round(time.perf_counter() - begun)
    said = [*notes(given.preset, where, found, runs_per_gpu, process), f"Counting and measuring took {taken} s."]
    text = f"{table(found, given.devices, kind, runs_per_gpu, process)}\n\n" + "\n".join(said)
    print(text + "\n\n" + "\n".join(how))
    path = artifacts.folder(given.preset) / "plan.json"
    told = {"preset": given.preset, "device": where, "devices": given.devices, "runs_per_gpu": runs_per_gpu}
    each = [
        asdict(row)
        | {"hours_on_all": row.hours_on(given.devices), "memory_per_gpu": row.on_gpu(runs_per_gpu)}
        | {"memory_on_one_host": row.on_host(given.devices, process) if kind == "core" else None}
        for row in found
    ]
    report = {**told, "process": process, "seconds": taken, "notes": said, "measured": how, "notebooks": each}
    files.write_atomically(path, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print(f"Wrote {path}")
    if given.readme:
        within(repository / "README.md", (START, END), text)
    return 0


def within(page: Path, marks: tuple[str, str], text: str) -> None:
    """Put a text between two marks of a page, in place of what is there."""
    (start, end), (before, rest) = marks, page.read_text(encoding="utf-8").split(marks[0])
    files.write_atomically(page, f"{before}{start}\n{text}\n\n{end}{rest.split(end)[1]}")


if __name__ == "__main__":
    commands.run(main)
