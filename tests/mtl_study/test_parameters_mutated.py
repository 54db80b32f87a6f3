"""Two thousand presets with something changed, drawn by a seed: each is refused at once, in words, or accepted, and
then its notebook runs to the end: on invented records, except one run of each problem, which is trained."""

import copy
import functools
import itertools
import math
import random

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mtl_study import artifacts, execution, parameters
from mtl_study.experiments import corruptions, population, probes, runner, training, transfer
from mtl_study.experiments.runs import Epoch, Gradients, Run, RunConfig
from mtl_study.plots import canvas
from mtl_study.publishing import notebooks

MUTATIONS, RUN, PARTS = 2000, 60, 4
PRESETS = {
    name: parameters.preset_values(artifacts.REPOSITORY / "params" / "smoke" / f"{name}.yaml")
    for name in parameters.SCHEMAS
}


# -- mutations ---------------------------------------------------------------------------------------------------------


def places(value, where=()):
    """Every place in nested values."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield (*where, name)
            yield from places(item, (*where, name))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield (*where, i)
            yield from places(item, (*where, i))


def other(value, rng):
    """Another value than this one: mostly one that might be meant."""
    strange = [None, "", "x", -1, 0, 2**64, math.inf, math.nan, [], {}, True, "1e-3", "~/x", "C:\\x", "../x", 1e308]
    match value:
        case _ if rng.random() < 0.2:
            return rng.choice(strange)
        case bool():
            return not value
        case int():
            return rng.choice([value + 1, value - 1, 1, 2, 3, 2 * value, max(value // 2, 1), float(value)])
        case float():
            return rng.choice([value / 2, 2 * value, 1, 0.0, 1.0, -value, value])
        case str():
            return rng.choice([value.upper(), value[1:], value + "x", *WORDS])
        case list():
            changed = [copy.deepcopy(one) for one in value]
            match rng.randrange(6):
                case 0 if changed:
                    changed.pop(rng.randrange(len(changed)))
                case 1 if changed:
                    changed.append(rng.choice(changed))
                case 2:
                    rng.shuffle(changed)
                case 3:
                    changed = changed[:1]
                case 4:
                    return str(value)
                case _:
                    changed.append(other(changed[0], rng) if changed else 1)
            return changed
    return rng.choice(strange)


KEPT = [("preset",), ("details",)]
WORDS = [
    "edm",
    "imtl",
    "si",
    "upgrad",
    "grid",
    "published",
    "embedded",
    "full",
    "pyg",
    "float64",
    "cpu",
    "cuda",
    "plateau",
    "never",
]


def mutated(values, rng):
    """These values with one to three things changed."""
    values = copy.deepcopy(values)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        *path, name = rng.choice([place for place in places(values) if place not in KEPT])
        owner = functools.reduce(lambda part, step: part[step], path, values)
        match rng.random():
            case chance if chance < 0.06:
                del owner[name]
            case chance if chance < 0.1 and isinstance(owner, dict):
                owner[f"{name}s"] = owner.pop(name)
            case _:
                owner[name] = other(owner[name], rng)
    return values


@functools.cache
def drawn(mutations=MUTATIONS):
    """The notebook, the values and what is wrong with them, of every mutation."""
    rng, found = random.Random(19), []
    for notebook in itertools.islice(itertools.cycle(PRESETS), mutations):
        values = mutated(PRESETS[notebook], rng)
        found.append((notebook, values, parameters.problems_of(notebook, values)))
    return found


@pytest.mark.parametrize("mutations", [200, pytest.param(MUTATIONS, marks=pytest.mark.slow)])
def test_every_mutation_is_checked_in_words(mutations):
    """Some are taken and most are not."""
    found = drawn(mutations)
    accepted = [notebook for notebook, _, wrong in found if not wrong]
    assert set(accepted) == set(PRESETS) and len(accepted) < mutations / 2
    said = [sentence for _, _, wrong in found for sentence in wrong]
    assert all(sentence.strip() and "Traceback" not in sentence and "object at" not in sentence for sentence in said)


# -- to the end --------------------------------------------------------------------------------------------------------


def history(config, epochs, weights=None):
    """As training leaves it, with values that a seed draws."""
    rng, tasks = random.Random(config.key), config.definition.tasks
    K = len(tasks)

    def metrics():
        return {task.name: {metric: rng.uniform(0.4, 0.6) for metric in task.metrics} for task in tasks}

    def epoch():
        norms = [rng.uniform(0.5, 2) for _ in tasks]
        gradients = Gradients(
            cosine_to_mean=rng.uniform(0.5, 1), pairwise_cosine=rng.uniform(-0.5, 0.5), norms=norms, norm_ratio=2.0
        )
        names = ("share", "improvement", "improvement_squared", "lead_squared", "alpha")
        diagnostics = {f"{name}_{k}": rng.uniform(0.1, 1) for name in names for k in range(K)}
        diagnostics |= {"rotation_loss": 0.5, "peak_alpha": 2.0, "log10_condition_of_M": 1.0, "share": 0.5}
        has_weights = config.smto not in ("graddrop", "pcgrad")
        given = weights or [rng.uniform(0.1, 1) if has_weights else None for _ in tasks]
        return Epoch(
            lr=config.lr,
            train_losses=[rng.uniform(0.4, 0.6) for _ in tasks],
            val=metrics(),
            test=metrics(),
            weights=given,
            head_weights=given,
            diagnostics=diagnostics,
            flags={},
            gradients={"features": gradients, "parameters": gradients},
        )

    return [epoch() for _ in range(epochs)]


def looked(config, number):
    """A look at gradients that a seed draws."""
    K, S = len(config.base.definition.tasks), config.samples
    g = np.random.default_rng([number, int(config.key, 16)]).normal(size=(K, S, 5))
    J = g.mean(1)
    return probes.Look.of(np.einsum("ksp,ltp->kslt", g, g), J @ J.T, J @ J.T, epoch=0, step=number)


def made(config):
    """The record that training would leave."""
    environment = training.environment(training.find_device("cpu"))
    if isinstance(config, RunConfig):
        return Run(
            config=config,
            code_versions=config.identity["numerics"],
            ended="finished",
            history=history(config, config.epochs),
            seconds=1.0,
            environment=environment,
        )
    rng, base = random.Random(config.key), config.base
    how = {"code_versions": config.code_versions, "ended": "finished", "seconds": 1.0, "environment": environment}
    if isinstance(config, probes.LooksConfig):
        return probes.Looks(config=config, looks=[looked(config, number) for number in range(config.looks)], **how)
    if isinstance(config, transfer.TransferConfig):
        scores = [epoch.test for epoch in history(base, 6)]
        corrupted = dict.fromkeys(corruptions.SEVERITIES, scores[1:])
        return transfer.Transfer(config=config, clean=scores[0], corrupted=corrupted, **how)
    weights = [rng.uniform(0.1, 1) for _ in base.definition.tasks]
    members = [
        population.Member(
            weights=[weights] * base.epochs,
            score=[rng.uniform(-1, 0) for _ in range(base.epochs)],
            parent=[None] * base.epochs,
        )
        for _ in range(config.size)
    ]
    score, member, epoch = max((s, m, e) for m, one in enumerate(members) for e, s in enumerate(one.score))
    best = population.Winner(
        member=member, epoch=epoch, score=score, weights=weights, history=history(base, epoch + 1, weights)
    )
    return population.Population(
        config=config,
        code_versions=config.code_versions,
        ended="finished",
        members=members,
        best=best,
        epochs_trained=config.epochs_in_all,
        seconds=1.0,
        environment=environment,
    )


def stand_in(trained):
    """`runner.records`, where of every problem one run is trained, for an epoch, and what runs and populations leave is
    made up."""

    def records(configs, store, train, *, device="auto", data_dir=None, **_):
        configs = list(configs)
        missing = {config.key: config for config in configs if store.get(config) is None}
        runner._check([*missing.values()], store, data_dir)
        for config in missing.values():
            if isinstance(config, RunConfig) and config.problem not in trained:
                trained[config.problem] = training.train(config.model_copy(update={"epochs": 1}), "cpu", data_dir)
            known = isinstance(config, RunConfig | population.PopulationConfig)
            store.put(made(config) if known else train(config, "cpu", data_dir))
        return [store.get(config).serving(config) for config in configs]

    return records


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_what_is_accepted_runs_to_the_end(part, tmp_path, monkeypatch):
    """Every cell, without pictures on disk."""
    accepted = [(notebook, values) for notebook, values, wrong in drawn() if not wrong]
    accepted = [(notebook, values) for notebook, values in accepted if execution.changed(values, PRESETS[notebook])]
    chosen = random.Random(60).sample(accepted, RUN)[part::PARTS]
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setattr(canvas, "save_figure", lambda fig, name, *_, **__: (plt.close(fig), tmp_path / name)[1])
    failed = []
    for number, (notebook, values) in enumerate(chosen):
        monkeypatch.setattr(runner, "records", stand_in({}))
        if "store" in values:
            values = {**values, "store": str(tmp_path / str(number))}
        if why := stopped(notebook, values):
            failed.append((notebook, execution.changed(values, PRESETS[notebook]), why))
        plt.close("all")
    artifacts.begin(None)
    assert failed == []


def stopped(notebook, values):
    """Why a notebook does not run to its end, if it does not: every code cell, in one namespace."""
    cells = notebooks.read(artifacts.REPOSITORY / "notebooks" / f"{notebook}.ipynb").cells
    names = {"__name__": "__main__", "display": lambda *_: None, **values}
    for number, cell in enumerate(cells):
        if cell.cell_type == "code" and not notebooks.tagged(cell, "parameters"):
            try:
                exec(compile(cell.source, f"{notebook}, cell {number}", "exec"), names)
            except Exception as error:
                return f"cell {number}: {type(error).__name__}: {str(error)[:300]}"
    return ""
