"""What a preset takes before any of it is run: `make plan PRESET=paper DEVICES=4`.

A row per notebook: runs and steps, counted from its parameters (`planned`); hours, from steps that are measured here on
drawn samples (`calibration`); memory of the largest run, and disk for its records. No data are needed.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mtl_core import files
from mtl_study import artifacts, parameters
from mtl_study.experiments import training
from mtl_study.experiments.runs import BadConfig, RunConfig
from mtl_study.parameters import BadParameters
from mtl_study.publishing import calibration, notebooks, planned
from mtl_study.publishing.calibration import Shape
from mtl_study.publishing.reproduce import BadRequest, choose
from mtl_study.words import counted

GIB, HOUR = 2**30, 3600
LONGEST = 60.0  # seconds that are measured for
EVALUATED = 1 / 3  # a sample that is evaluated is one forward pass of three


@dataclass(frozen=True)
class Row:
    """Of a notebook: what it trains that none before it in the same store does. hours: on one device; published: with
    the paper's settings in place of a search. memory: GiB of the largest run. disk: GiB of all records."""

    notebook: str
    runs: int
    epochs: int
    steps: int
    hours: float
    hours_published: float
    memory: float
    disk: float


def steps(config: RunConfig) -> int:
    """Of a run."""
    return config.epochs * math.ceil(config.sizes[0] / config.batch_size)


def samples(config: RunConfig) -> float:
    """That a run trains on, and those that it evaluates for as many as they cost."""
    train, val, test = config.sizes
    return config.epochs * (train + EVALUATED * (val + test))


def with_published(values: dict[str, Any]) -> dict[str, Any]:
    """Parameters with the paper's settings in place of a search."""
    details = values.get("details", {})
    return {**values, "details": {**details, "search": "published"}} if "search" in details else values


def timed(
    configs: Sequence[RunConfig], measure: Callable[[Shape], float], longest: float = LONGEST
) -> tuple[dict[Shape, float], int]:
    """Seconds per sample of the shapes of these runs, those first that take the most samples; and how many shapes
    there was no time for: they have the time of the slowest of their problems that was measured, or of any."""
    weight: Counter[Shape] = Counter()
    for config in configs:
        weight[calibration.shape(config)] += int(samples(config) * math.prod(config.definition.feature_shape))
    found: dict[Shape, float] = {}
    begun = last = time.perf_counter()
    slowest_yet = 0.0
    for one, _ in weight.most_common():
        if found and last - begun + slowest_yet > longest:
            break
        found[one] = measure(one)
        slowest_yet, last = max(slowest_yet, time.perf_counter() - last), time.perf_counter()
    rest = [one for one in weight if one not in found]

    def slowest(like: Shape) -> float:
        family = like.problem.split("/")[0]
        alike = [t for one, t in found.items() if one.problem.split("/")[0] == family]
        return max(alike or found.values())

    return found | {one: slowest(one) for one in rest}, len(rest)


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
    found, wrong = {}, []
    for notebook in choose(notebooks.find(repository / "notebooks"), list(only)):
        path = repository / "params" / preset / f"{notebook.stem}.yaml"
        try:
            found[notebook.stem] = parameters.preset_values(path)
        except BadParameters as error:
            wrong.append(str(error))
            continue
        wrong += [f"{path}: {one}." for one in parameters.misfits(notebook.stem, found[notebook.stem])]
    if wrong:
        raise BadRequest("\n".join(wrong))
    return found


def new_runs(notebooks_: dict[str, dict[str, Any]]) -> dict[str, list[RunConfig]]:
    """By notebook: what it trains that none before it does."""
    seen: set[tuple[str, str]] = set()
    found = {}
    for name, values in notebooks_.items():
        keyed = {(values.get("store", ""), c.key): c for c in planned.runs(name[:2], values)}
        found[name] = [config for key, config in keyed.items() if key not in seen]
        seen |= keyed.keys()
    return found


def rows(
    given: dict[str, dict[str, Any]], measure: Callable[[Shape], float], per_epoch: float, longest: float = LONGEST
) -> tuple[list[Row], int]:
    """A row per notebook, and how many shapes of runs were not measured."""
    as_given = new_runs(given)
    published = new_runs({name: with_published(values) for name, values in given.items()})
    everything = [config for some in (*as_given.values(), *published.values()) for config in some]
    per_sample, unmeasured = timed(everything, measure, longest)

    def hours(configs: Sequence[RunConfig]) -> float:
        return sum(samples(config) * per_sample[calibration.shape(config)] for config in configs) / HOUR

    return [
        Row(
            name,
            len(configs),
            sum(config.epochs for config in configs),
            sum(map(steps, configs)),
            hours(configs),
            hours(published[name]),
            max(map(calibration.memory, {calibration.shape(config) for config in configs}), default=0) / GIB,
            sum(config.epochs for config in configs) * per_epoch / GIB,
        )
        for name, configs in as_given.items()
    ], unmeasured


def table(found: Sequence[Row], devices: int) -> str:
    """As Markdown."""
    head = ["notebook", "runs", "epochs", "steps", "hours"]
    head += [f"hours, {devices} devices"] if devices > 1 else []
    head += ["hours, `search: published`", "GiB per run", "GiB of records"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in found:
        cells = [row.notebook, f"{row.runs:,}", f"{row.epochs:,}", f"{row.steps:,}", f"{row.hours:,.1f}"]
        cells += [f"{row.hours / devices:,.1f}"] if devices > 1 else []
        lines.append([*cells, f"{row.hours_published:,.1f}", f"{row.memory:.2f}", f"{row.disk:.2f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: list[str] | None = None, repository: Path = artifacts.REPOSITORY) -> int:
    """The command. Returns 0, or 2 where the request is refused."""
    parser = argparse.ArgumentParser(prog="plan", description="What a preset takes, before any of it is run.")
    parser.add_argument("--preset", default="smoke", help="a folder of params/")
    parser.add_argument("--only", nargs="+", default=[], metavar="NN", help="notebooks by number; default: all")
    parser.add_argument("--devices", type=int, default=1, help="devices that share the runs evenly")
    parser.add_argument("--device", default="auto", help="that steps are measured on")
    given = parser.parse_args(arguments)
    try:
        if given.devices < 1:
            raise BadRequest(f"DEVICES={given.devices}: give a whole number from 1.")
        device = training.find_device(given.device)
        values = read(repository, given.preset, [name for text in given.only for name in text.split()])
        with training.determinism(1):
            found, unmeasured = rows(values, lambda one: calibration.seconds(one, device), bytes_per_epoch(repository))
    except (BadRequest, BadConfig) as error:
        print(f"Nothing was planned.\n{error}", file=sys.stderr)
        return 2
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"one core of {training.processor()}"
    notes = [
        f"Preset {given.preset}; hours as measured on {where}, in float32, one run after the other, without loading.",
        "A notebook's row leaves out what one before it has trained into the same store.",
        "Where a search decides, runs are counted as if it chose what the paper chose.",
    ]
    if unmeasured:
        notes.append(
            f"There was no time to measure {counted(unmeasured, 'shape')} of runs: the slowest alike stands in."
        )
    print(f"{table(found, given.devices)}\n\n" + "\n".join(notes))
    path = artifacts.folder(given.preset) / "plan.json"
    told = {"preset": given.preset, "device": where, "devices": given.devices, "unmeasured": unmeasured, "notes": notes}
    report = {**told, "notebooks": [vars(row) | {"hours_on_all": row.hours / given.devices} for row in found]}
    files.write_atomically(path, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print(f"Wrote {path}")
    return 0


if __name__ == "__main__":
    artifacts.need_checkout()
    sys.exit(main())
