"""What each notebook trains, counted from its parameters: no data, no record and no training is needed.

With `search: grid` some runs hang on what the search will choose; they are counted as if it chose what the paper chose
(`protocol.expected`). Weights that are only known after a run stand here as weights that no other run has, and a step
size that is chosen from several as the middle one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mtl_core import problems, smtos
from mtl_study.experiments import confounds, gates, probes, protocol, sweeps, transfer
from mtl_study.experiments.extras import ExtraConfig
from mtl_study.experiments.population import PopulationConfig
from mtl_study.experiments.protocol import Expected
from mtl_study.experiments.runs import RunConfig
from mtl_study.parameters.schemas import CL_CR, CL_RR, CORNERS, LADDER, QM9, SCHEMAS, STREETS, OnData, Sized, family

RUN = (*Sized.model_fields, "schedule", "keep_jacobian", "problem_options")  # settings of all runs of an experiment
RL_RR = "multimnist/RL_RR"
Config = RunConfig | ExtraConfig | PopulationConfig  # of a record: has a `base` run and `epochs_in_all`


def runs(notebook: str, values: Mapping[str, Any]) -> list[Config]:
    """The configurations of the records that a notebook makes, each once; none for one that trains nothing.

    Args:
        notebook: its name, "01_mnist_selection". values: of all its parameters.
    """
    made = NOTEBOOKS.get(notebook)
    found = _named(notebook, values) if made is None else made(values)
    return list({config.key: config for config in found}.values())


def partly(notebook: str) -> bool:
    """Whether only what a notebook's parameters name is counted."""
    return issubclass(SCHEMAS[notebook], OnData) and notebook not in NOTEBOOKS


def _named(notebook: str, values: Mapping[str, Any]) -> Iterator[Config]:
    """What its schema builds from the parameters, with every seed."""
    for _, build in SCHEMAS[notebook](**values).plan():
        built = build()
        for config in built if isinstance(built, list) else [built]:
            if isinstance(config, RunConfig) and isinstance(seeds := values.get("seeds"), list):
                yield from (config.model_copy(update={"seed": seed}) for seed in seeds)
            elif isinstance(config, Config):
                yield config


def _changed(configs: Sequence[RunConfig], **changes: Any) -> list[RunConfig]:
    return [config.model_copy(update=changes) for config in configs]


def _experiment(values: Mapping[str, Any], problem: str, methods: Sequence[str]) -> Iterator[Expected]:
    """As we have it, and then, where that is asked for, as released."""
    details = values["details"]
    for as_released in (False, True) if details.get("as_released") else (False,):
        yield protocol.expected(
            problem,
            methods,
            seeds=values["seeds"],
            search=details["search"],
            search_seeds=details["search_seeds"],
            grid=protocol.Grid(**details["grid"]),
            as_released=as_released,
            source=values["source"],
            **{name: details[name] for name in RUN if name in details},
        )


def _at_one_rate(found: Expected) -> list[RunConfig]:
    """The uniform loss at every rate of a method."""
    uniform = found.of("unit_scal")
    rates = dict.fromkeys(config.lr for config in found.runs)
    return [config.model_copy(update={"lr": lr}) for lr in rates for config in uniform]


def _selection(values: Mapping[str, Any]) -> Iterator[RunConfig]:
    ours, *released = _experiment(values, CL_RR, values["methods"])
    for one in (ours, *released):
        yield from one.all
    if values["details"]["train_at_one_rate"]:
        yield from _at_one_rate(ours)
    uniform = ours.of("unit_scal")
    yield from _changed(uniform, lr=max(config.lr for config in ours.runs))
    yield from _changed(uniform, smto="fixed", options={"weights": [0.1, 0.9]})  # as an exercise's solution has it


def _similar(values: Mapping[str, Any]) -> Iterator[RunConfig]:
    for problem in (CL_CR, RL_RR, CL_RR):
        ours, *released = _experiment(values, problem, values["methods"])
        for one in (ours, *released):
            yield from one.all
        if problem != CL_RR and values["details"]["train_at_one_rate"]:
            yield from _at_one_rate(ours)
        if problem == CL_CR:
            for config in ours.of("famo"):
                fresh = _changed([config], options={**config.options, "masks": "fresh"})
                yield from [*fresh, *_changed(fresh, dropout=0.0)]  # the latter for an exercise


def _cosine(values: Mapping[str, Any]) -> Iterator[RunConfig]:
    for problem in (CL_CR, RL_RR, CL_RR):
        [found] = _experiment(values, problem, values["methods"])
        yield from found.all


def _ladder(values: Mapping[str, Any]) -> Iterator[RunConfig]:
    for problem in LADDER:
        methods = values["all_methods"] if problem == STREETS else values["methods"]
        ours, *released = _experiment(values, problem, methods)
        for one in (ours, *released):
            yield from one.all
        if len(problems.get(problem).tasks) == 3:
            yield from _changed(ours.of("imtl"), options={"form": "transposed"})
        if problem == STREETS:
            for corner in CORNERS:
                yield from _changed(ours.of(*values["methods"]), problem=corner)
        alone = [config for config in ours.baselines if config.problem == "cityscapes/R18/S"]
        yield from _changed(alone, problem="cityscapes/SD_19/S")


def _properties(values: Mapping[str, Any]) -> Iterator[RunConfig]:
    details = values["details"]
    ours, *released = _experiment(values, QM9, values["methods"])
    for one in (ours, *released):
        yield from one.all
    if details["train_at_one_rate"]:
        yield from _at_one_rate(ours)
    yield from _changed(ours.of("imtl"), options={"form": "transposed"})
    for schedule in ("plateau", "plateau_on_validation"):
        yield from _changed(ours.of(*details["both_schedules"]), schedule=schedule, epochs=details["schedule_epochs"])


def _fixed_weights(values: Mapping[str, Any]) -> Iterator[RunConfig]:
    details, found = values["details"], {}
    for problem, methods in values["methods"].items():
        name = family(problem)
        own = {"search_seeds": [], **details[name], "search": details["search"]}
        of_problem = {"details": own, "seeds": values["seeds"][name], "source": values["source"][name]}
        [found[problem]] = _experiment(of_problem, problem, methods)
        yield from found[problem].all
    here = {problem: values["seeds"][family(problem)] for problem in found}
    here |= {problem: details["digits"]["sweep_seeds"] for problem in (CL_RR, CL_CR)}
    taken = {problem: found[problem].of(smto)[0] for problem, smto in details["sources"].items()}
    for problem in (CL_RR, STREETS):
        yield from _found(_average(taken[problem].smto), taken[problem], here[problem])
    for run, lr in enumerate(details["nash_lr"]):
        yield taken[QM9].model_copy(update={"lr": lr})
        yield from _found(_average(taken[QM9].smto, run), taken[QM9], here[QM9], lr=details["fixed_lr"])


def _average(smto: str, run: int = 0) -> int:
    """The number of the weights that a method's run settles on, the same for every notebook that takes them."""
    return 1 + list(smtos.keys()).index(smto) + run * len(smtos.keys())


def _found(number: int, like: RunConfig, seeds: Sequence[int], **changes: Any) -> list[RunConfig]:
    """Runs with weights that only another run will name: as if they were some that no other run has."""
    weights = [1 + number / 10_000, *[1.0] * (len(like.definition.tasks) - 1)]  # that much is not rounded away
    return sweeps.fixed(like, weights, seeds, **changes)


def _swept(values: Mapping[str, Any], found: Expected) -> Iterator[RunConfig]:
    """An experiment, and a sweep at all of its rates."""
    details, uniform = values["details"], found.of("unit_scal")[0]
    yield from found.all
    ratios = sweeps.ratios(**details["ratios"][uniform.problem])
    for lr in dict.fromkeys(config.lr for config in found.runs):
        yield from sweeps.front(uniform, ratios, details["sweep_seeds"], lr=lr)


def _of_seeds(found: Expected, smto: str, seeds: Sequence[int], **changes: Any) -> list[RunConfig]:
    return _changed([config for config in found.of(smto) if config.seed in seeds], **changes)


def _sweep_or_smto(values: Mapping[str, Any]) -> Iterator[RunConfig]:
    details = values["details"]
    [found] = _experiment(values, CL_RR, values["all_methods"])
    [alike] = _experiment(values, CL_CR, values["methods"])
    yield from _swept(values, found)
    yield from _swept(values, alike)
    for width, lr in itertools.product(details["widths"], dict.fromkeys(config.lr for config in found.runs)):
        yield from _of_seeds(found, "unit_scal", details["sweep_seeds"], problem_options={"width": width}, lr=lr)


def _other_ways(values: Mapping[str, Any]) -> Iterator[RunConfig]:
    details = values["details"]
    [found] = _experiment(values, CL_RR, values["methods"])
    [alike] = _experiment(values, CL_CR, ["unit_scal"])
    yield from _swept(values, found)
    yield from _swept(values, alike)
    here, uniform, unknown = details["sweep_seeds"], found.of("unit_scal")[0], itertools.count(1001)
    for seed in details["population"]["seeds"]:
        for _ in range(details["population"]["size"]):  # its members, as so many runs
            yield from _found(next(unknown), uniform, [seed])
        yield from _found(next(unknown), uniform, [seed])  # trained again with what it found
    yield from _found(_average(details["taken_from"]), uniform, here)
    for _ in range(3):  # inverse losses, inverse gradients, and a method's mean
        yield from _found(next(unknown), uniform, here)
    for smto, lr in itertools.product(details["lr_methods"], details["lr_grid"]):
        yield from _of_seeds(found, smto, here, lr=lr)
    for smto, (dropout, decay) in itertools.product(details["kurin_methods"], details["kurin"]):
        yield from _of_seeds(found, smto, here, dropout=dropout, weight_decay=decay)


def _optimizers(values: Mapping[str, Any]) -> Iterator[Config]:
    details, seeds = values["details"], values["seeds"]
    settings = {name: details[name] for name in Sized.model_fields}
    like = RunConfig.of(problem=CL_RR, seed=seeds[0], lr=0.001, source=values["source"], **settings)
    rates, arms = details["rates"], [(smto, optimizer) for smto, optimizer in details["arms"]]
    middle = {name: found[len(found) // 2] for name, found in rates.items()}
    compared = details["optimizers"]
    for methods, names in ((values["methods"], compared), (["unit_scal"], details["uniform_under"])):
        yield from confounds.crossed(like, methods, {name: rates[name] for name in names}, seeds[:1])
        yield from confounds.crossed(like, methods, {name: [middle[name]] for name in names}, seeds[1:])
    for weights in details["preferences"]:
        yield from confounds.preferring(like, weights, {name: rates[name] for name in compared}, seeds[:1])
        yield from confounds.preferring(like, weights, {name: [middle[name]] for name in compared}, seeds[1:])
    for arm in arms:
        for lr in rates[arm[1]]:
            yield from confounds.in_units(like, {arm: lr}, [1.0], seeds[:1])
    yield from confounds.in_units(like, {arm: middle[arm[1]] for arm in arms}, details["factors"], seeds)
    for problem, seed in itertools.product(details["look_problems"], details["look_seeds"]):
        base = like.model_copy(update={"problem": problem, "seed": seed, "epochs": details["look_epochs"]})
        yield probes.LooksConfig.of(base=base, looks=details["looks"])
    for base in confounds.crossed(like, details["transfer_methods"], {"adam": [middle["adam"]]}, seeds):
        yield transfer.TransferConfig.of(base=base, tuning_epochs=details["tuning_epochs"])


def _imbalance(values: Mapping[str, Any]) -> Iterator[Config]:
    details, seeds = values["details"], values["seeds"]

    def like(problem: str) -> RunConfig:
        name = family(problem)
        return RunConfig.of(problem=problem, seed=seeds[0], source=values["source"][name], **details[name])

    digits, radius = like(CL_RR), details["radius"]
    for problem, seed in itertools.product(details["look_problems"], details["look_seeds"]):
        base = digits.model_copy(update={"problem": problem, "seed": seed, "epochs": details["look_epochs"]})
        yield probes.LooksConfig.of(base=base, looks=details["looks"])
    yield from gates.watched(digits, values["methods"], radius, seeds, details["strides"])
    yield from gates.gated(digits, details["inner"], radius, details["duties"], seeds)
    for problem in dict.fromkeys([CL_RR, *details["problems"]]):
        yield from gates.baselines(like(problem), details["baseline_seeds"])
    for problem in details["problems"]:
        yield from gates.at_radii(like(problem), details["radii"], seeds)


NOTEBOOKS: dict[str, Callable[[Mapping[str, Any]], Iterator[Config]]] = {
    "01_mnist_selection": _selection,
    "02_two_similar_tasks": _similar,
    "02b_cosine": _cosine,
    "03_cityscapes_ladder": _ladder,
    "04_qm9": _properties,
    "05_fixed_weights": _fixed_weights,
    "05b_sweep_or_smto": _sweep_or_smto,
    "05c_other_ways": _other_ways,
    "07_optimizers": _optimizers,
    "08_imbalance": _imbalance,
}
