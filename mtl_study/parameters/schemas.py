"""What each notebook is given: a schema for each, and the runs that its values ask for, built before any training."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import AfterValidator, Field, model_validator

from mtl_core import problems, smtos
from mtl_core.names import nearest
from mtl_core.step import MultiTaskModel
from mtl_study.experiments import confounds, gates, protocol, sweeps, training
from mtl_study.experiments.population import PopulationConfig
from mtl_study.experiments.runs import BadConfig, RunConfig
from mtl_study.paper import published
from mtl_study.parameters.checking import Folder, Name, Once, Place, Table
from mtl_study.words import listed

CL_RR, CL_CR, STREETS, QM9 = "multimnist/CL_RR", "multimnist/CL_CR", "cityscapes/19C", "qm9"
LADDER = tuple(f"cityscapes/{step}" for step in ("R50", "R18", "inst_seg", "HR", "19C"))
OFF_LADDER = tuple(f"cityscapes/{corner}" for corner in ("SD_19", "SDI_19", "HR_SD_7", "HR_SD_19"))
CORNERS = (*LADDER[1:], *OFF_LADDER)  # of the factorial: what has R18's encoder
FAMILIES = {"multimnist": "digits", "cityscapes": "streets", "qm9": "molecules"}
WITHOUT_WEIGHTS = ("graddrop", "pcgrad")  # methods from which none can be taken

TURNED = ("preset", "store", "methods", "all_methods", "seeds", "source", "data_dir", "device")  # in this order
Plan = Iterator[tuple[str, Callable[[], Any]]]  # what is asked for, in words, and what builds it
Data = Iterator[tuple[str, dict[str, Any], str, tuple[int, int, int], str]]


def _known(smto: str) -> str:
    smtos.get(smto)
    return smto


def _beside_the_uniform_loss(methods: list[str]) -> list[str]:
    if "unit_scal" not in methods:
        raise ValueError(f"= {methods} lacks 'unit_scal', the uniform loss, with which all others are compared")
    if len(methods) < 2:
        raise ValueError(f"= {methods}: a second method is needed, to be compared with the uniform loss")
    return methods


Method = Annotated[str, AfterValidator(_known)]
Methods = Annotated[list[Method], Once, AfterValidator(_beside_the_uniform_loss)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Seeds = Annotated[list[Seed], Field(min_length=1), Once]
Size = Annotated[int, Field(ge=1, le=1_000_000)]  # no data set has more samples
Epochs = Annotated[int, Field(ge=1, le=100_000)]
Positive = Annotated[float, Field(gt=0)]
Rate = Annotated[Positive, Field(le=10)]  # of Adam: by so much a step moves every weight
Share = Annotated[float, Field(ge=0, lt=1)]
Rates = Annotated[list[Rate], Field(min_length=1), Once]
Dropouts = Annotated[list[Share], Field(min_length=1), Once]
Decays = Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=1), Once]
Ratio = Annotated[float, Field(ge=1e-5, le=1e5)]  # weights are rounded to six digits
Points = Annotated[int, Field(ge=2, le=1000)]
Search = Literal["published", "grid"]
Precision = Literal["float32", "float64", "tf32", "amp"]
Schedule = Literal["plateau", "plateau_on_validation"]
Decay = Annotated[float, Field(gt=0, le=1)]
PlateauDecay = Annotated[float, Field(gt=0, lt=1)]  # a plateau schedule multiplies by it
Digits = Literal["embedded", "full"]
Streets = Literal["embedded", "full"]
Molecules = Literal["embedded", "pyg"]


def family(problem: str) -> str:
    """What notebook 05 calls the data of a problem: "digits"."""
    return FAMILIES[problem.split("/")[0]]


class Parameters(Table):
    """Of every notebook: what a reader turns, under names that are the same everywhere, and a table `details` with all
    else."""

    preset: Name

    def plan(self) -> Plan:
        """The runs that are asked for, as far as they are known before any has been trained."""
        yield from ()

    def data(self) -> Data:
        """The data that are needed: problem, its options, source, sizes, folder."""
        yield from ()


class OnData(Parameters):
    """Of a notebook that trains."""

    device: str
    store: Folder
    details: Any


class Sized(Table):
    """What all runs of an experiment have in common."""

    train_size: Size
    val_size: Size
    test_size: Size
    epochs: Epochs
    batch_size: Size
    lr_decay: Decay
    precision: Precision

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.train_size, self.val_size, self.test_size


class Searched(Sized):
    """Of an experiment, with its search."""

    search_seeds: Seeds
    grid: Any


def _planned(
    problem: str,
    methods: list[str],
    seeds: list[int],
    source: str,
    search: Search,
    settings: Searched,
    as_released: bool = False,
) -> list[RunConfig]:
    """What the protocol trains for a problem, with one seed: every method fits the network."""
    given = settings.model_dump()
    names = (*Sized.model_fields, "schedule", "keep_jacobian", "problem_options")
    configs = protocol.planned(
        problem,
        methods,
        seeds=seeds[:1],
        search=search,
        search_seeds=settings.search_seeds[:1],
        grid=protocol.Grid(**given["grid"]),
        as_released=as_released,
        source=source,
        **{name: given[name] for name in names if name in given},
    )
    for config in {(one.smto, str(one.options)): one for one in configs if one.problem == problem}.values():
        training.method(config, _network(problem, **config.problem_options))
    return configs


@functools.cache
def _network(problem: str, **options: Any) -> MultiTaskModel:
    """Without numbers, and without what would have to be downloaded for it."""
    if "pretrained" in options:
        options["pretrained"] = False
    with torch.device("meta"):
        return problems.get(problem, **options).build_model(0.0)


class Chosen(Searched):
    """Details of a notebook whose settings are the paper's or are searched."""

    search: Search


class Protocol(Chosen):
    """Details of a notebook that may run everything as released, too."""

    as_released: bool


class PaperNotebook(OnData):
    """A notebook that runs the paper's protocol. reads_data: whether it needs data also where all runs are stored."""

    reads_data: ClassVar[bool] = True
    methods: Methods
    seeds: Seeds
    source: str
    data_dir: Place
    details: Chosen

    def of(self, problem: str, methods: list[str]) -> Plan:
        known = (problem, methods, self.seeds, self.source, self.details.search, self.details)
        too = isinstance(self.details, Protocol) and self.details.as_released
        for as_released in (False, True) if too else (False,):
            yield problem, partial(_planned, *known, as_released)

    def needs(self, problem: str, **options: Any) -> Data:
        yield problem, options, self.source, self.details.sizes, self.data_dir


class DigitGrid(Table):
    lr: Rates
    dropout: Dropouts
    options: bool


class StreetGrid(Table):
    lr: Rates
    weight_decay: Decays
    options: bool


class MoleculeGrid(Table):
    lr: Rates
    options: bool


class StreetOptions(Table):
    """Of the Cityscapes problems. Without `slim` a network would have its full width, which takes a GPU: it is asked
    for."""

    width: Annotated[int, Field(ge=16, le=1024, multiple_of=16)]
    slim: Literal[1, 2, 4, 8, 16, 32]
    pretrained: bool = False
    reduction: Literal["per_image", "pooled"] = "per_image"
    aligned: bool = False
    upsampling: Literal["kernel", "products"] = "kernel"

    @model_validator(mode="after")
    def _whole_networks_only(self) -> StreetOptions:
        if self.pretrained and self.slim != 1:
            raise ValueError(f"= {{pretrained: true, slim: {self.slim}}}: ImageNet's weights are of slim: 1")
        return self


class MoleculeOptions(Table):
    max_atoms: Annotated[int, Field(ge=3, le=29)]
    slim: Literal[1, 2, 4]
    released_features: bool = False


# -- one per notebook --------------------------------------------------------------------------------------------------


class Pictures(Table):
    resolution: Annotated[int, Field(ge=2, le=500)]
    walk_steps: Annotated[int, Field(ge=1, le=100_000)]
    walk_lr: Annotated[float, Field(gt=0, le=1)]  # beyond, the walks leave the page
    batch_size: Annotated[int, Field(ge=8, le=10_000)]  # eight are shown
    warm_up: Annotated[int, Field(ge=0, le=10_000)]
    seed: Seed


class StartHere(Parameters):
    details: Pictures


class OnDigits(Protocol):
    grid: DigitGrid
    train_at_one_rate: bool


class Selection(PaperNotebook):
    reads_data: ClassVar[bool] = False
    source: Digits
    details: OnDigits

    def plan(self) -> Plan:
        yield from self.of(CL_RR, self.methods)

    def data(self) -> Data:
        yield from self.needs(CL_RR)


def _needed(where: str, methods: list[str], *needed: str) -> Plan:
    """That methods of which a notebook speaks by name are there."""
    if lacking := [smto for smto in needed if smto not in methods]:
        yield where, partial(_refuse, f"{where} must have {listed(lacking)}, of which this notebook speaks by name")


class SimilarTasks(PaperNotebook):
    reads_data: ClassVar[bool] = False
    source: Digits
    details: OnDigits

    def plan(self) -> Plan:
        yield from _needed("methods", self.methods, "famo")
        for problem in (CL_CR, "multimnist/RL_RR", CL_RR):
            yield from self.of(problem, self.methods)

    def data(self) -> Data:
        yield from self.needs(CL_RR)


class AnglesDetails(Chosen):
    grid: DigitGrid


class Cosine(PaperNotebook):
    reads_data: ClassVar[bool] = False
    source: Digits
    details: AnglesDetails

    def plan(self) -> Plan:
        yield from _needed("methods", self.methods, "imtl")
        for problem in (CL_CR, "multimnist/RL_RR", CL_RR):
            yield from self.of(problem, self.methods)

    def data(self) -> Data:
        yield from self.needs(CL_RR)


class OnStreets(Protocol):
    test_size: Annotated[Size, Field(ge=4)]  # four are shown
    grid: StreetGrid
    problem_options: StreetOptions
    keep_jacobian: bool


class Ladder(PaperNotebook):
    all_methods: Methods
    source: Streets
    details: OnStreets

    def plan(self) -> Plan:
        yield from _needed("methods", self.methods, "imtl")
        yield from _needed("all_methods", self.all_methods, "imtl", "edm")
        for problem in LADDER:
            yield from self.of(problem, self.all_methods if problem == STREETS else self.methods)
        lacking = [smto for smto in self.methods if smto not in self.all_methods]
        if lacking:  # problems off the ladder are compared with the last step
            yield (
                "methods",
                partial(_refuse, f"methods: {listed(lacking)} must be among all_methods, too"),
            )

    def data(self) -> Data:
        for problem in (*LADDER, *OFF_LADDER):
            yield from self.needs(problem, **self.details.problem_options.model_dump())


class OnMolecules(Protocol):
    train_size: Annotated[Size, Field(ge=5)]  # five are shown
    grid: MoleculeGrid
    problem_options: MoleculeOptions
    lr_decay: PlateauDecay
    schedule: Schedule
    train_at_one_rate: bool
    both_schedules: Annotated[list[Method], Once]
    schedule_epochs: Epochs


class Properties(PaperNotebook):
    source: Molecules
    details: OnMolecules

    def plan(self) -> Plan:
        yield from _needed("methods", self.methods, "imtl", "rotograd")
        yield from self.of(QM9, self.methods)
        for smto in self.details.both_schedules:
            if smto not in self.methods:
                yield "both_schedules", partial(_refuse, f"both_schedules: {smto!r} is not among the methods")

    def data(self) -> Data:
        yield from self.needs(QM9, **self.details.problem_options.model_dump())


class OfDigits(Searched):
    """As in notebooks 01 and 02."""

    sweep_seeds: Seeds
    grid: DigitGrid


class OfStreets(Searched):
    """As in notebook 03."""

    grid: StreetGrid
    problem_options: StreetOptions


class OfMolecules(Searched):
    """As in notebook 04."""

    grid: MoleculeGrid
    problem_options: MoleculeOptions
    lr_decay: PlateauDecay
    schedule: Schedule


class SeedsByFamily(Table):
    digits: Seeds
    streets: Seeds
    molecules: Seeds


class SourceByFamily(Table):
    digits: Digits
    streets: Streets
    molecules: Molecules


class FolderByFamily(Table):
    digits: Place
    streets: Place
    molecules: Place


class RatioSweep(Table):
    lowest: Ratio
    highest: Ratio
    points: Points

    @model_validator(mode="after")
    def _from_low_to_high(self) -> RatioSweep:
        if not self.lowest < self.highest:
            raise ValueError(f"goes from {self.lowest} to {self.highest}; lowest must be below highest")
        if not any(round(one - other, 6) == 0 for one, other in sweeps.ratios(**self.model_dump())):
            raise ValueError(
                f"goes from {self.lowest} to {self.highest} in {self.points} points, and none is 1, the uniform loss; "
                "an odd number of points from 1/r to r has it"
            )
        return self


class PopulationOptions(Table):
    size: Annotated[int, Field(ge=4, le=1000)]
    exploit_interval: Epochs
    seeds: Seeds


def _all_of(names: tuple[str, ...]) -> AfterValidator:
    """Of a table: exactly these names."""

    def check(table: dict[str, Any]) -> dict[str, Any]:
        for name in table:
            if name not in names:
                raise ValueError(f"has {name!r}{nearest(name, names)}; it is about {listed(names)}")
        if missing := [name for name in names if name not in table]:
            raise ValueError(f"lacks {listed(missing)}")
        return table

    return AfterValidator(check)


SWEPT, EXTRACTED, ALL = (CL_RR, CL_CR), (CL_RR, STREETS, QM9), (CL_RR, CL_CR, STREETS, QM9)


class FixedWeightsDetails(Table):
    search: Search
    digits: OfDigits
    streets: OfStreets
    molecules: OfMolecules
    sources: Annotated[dict[str, Method], _all_of(EXTRACTED)]
    nash_lr: Rates
    fixed_lr: Rate


class FixedWeights(OnData):
    methods: Annotated[dict[str, Methods], _all_of(ALL)]
    seeds: SeedsByFamily
    source: SourceByFamily
    data_dir: FolderByFamily
    details: FixedWeightsDetails

    def plan(self) -> Plan:
        details = self.details
        yield "", self._fits
        for problem in ALL:
            seeds, source, settings = (getattr(part, family(problem)) for part in (self.seeds, self.source, details))
            known = (problem, self.methods[problem], seeds, source, details.search, settings)
            yield problem, partial(_planned, *known)
        for lr in details.nash_lr:
            yield "nash_lr", partial(published.qm9_fixed_weights, lr)

    def _fits(self) -> None:
        """What holds one parameter against another."""
        said, details = [], self.details
        for problem, smto in details.sources.items():
            said += _gives_weights(f"sources.{problem}", smto, self.methods[problem])
        said += _paired("sweep_seeds", details.digits.sweep_seeds, "seeds.digits", self.seeds.digits)
        if details.sources[QM9] != "nash_mtl":
            said.append(f"sources.{QM9}: nash_lr gives the rates of nash_mtl, so that it must be the source")
        if said:
            raise BadConfig(". ".join(said))

    def data(self) -> Data:
        for problem in ALL:
            source, folder, settings = (
                getattr(part, family(problem)) for part in (self.source, self.data_dir, self.details)
            )
            yield problem, settings.model_dump().get("problem_options", {}), source, settings.sizes, folder


def _gives_weights(name: str, smto: str, methods: list[str]) -> list[str]:
    """What is wrong with a method that weights are taken from."""
    if smto not in methods:
        return [f"{name}: {smto!r} is not among the methods"]
    if smto == "unit_scal" or smto in WITHOUT_WEIGHTS:
        return [f"{name}: {smto!r} has no weights of its own to be taken"]
    return []


def _paired(name: str, seeds: list[int], of_all: str, known: list[int]) -> list[str]:
    """What is wrong with the seeds of runs that are compared with others, seed by seed."""
    lacking = [seed for seed in seeds if seed not in known]
    return [f"{name}: {lacking} must be among {of_all}, too; runs are compared seed by seed"] if lacking else []


class SweepDetails(Chosen):
    """On digits, as in notebooks 01 and 02. sweep_seeds: of what is trained here."""

    grid: DigitGrid
    sweep_seeds: Seeds
    ratios: Annotated[dict[str, RatioSweep], _all_of(SWEPT)]

    def uniform(self, source: str, **changes: Any) -> RunConfig:
        """A run of the uniform loss on CL_RR with some settings changed."""
        settings = self.model_dump(include={*Sized.model_fields})
        return RunConfig.of(**{**settings, "source": source, "problem": CL_RR, "seed": 1, "lr": 0.001, **changes})


class PriceDetails(SweepDetails):
    widths: Annotated[list[Annotated[float, Field(gt=1, le=16)]], Field(min_length=1), Once]


class OnSweeps(PaperNotebook):
    """A notebook that compares methods with a sweep of fixed weights."""

    source: Digits
    details: SweepDetails

    def swept(self) -> Plan:
        for ratios in self.details.ratios.values():
            yield "ratios", partial(sweeps.ratios, **ratios.model_dump())

    def data(self) -> Data:
        yield from self.needs(CL_RR)


class SweepOrMethod(OnSweeps):
    all_methods: Methods
    details: PriceDetails

    def plan(self) -> Plan:
        yield "", self._fits
        yield from self.of(CL_RR, self.all_methods)
        yield from self.of(CL_CR, self.methods)
        yield from self.swept()
        for width in self.details.widths:
            yield "widths", partial(self.details.uniform, self.source, problem_options={"width": width})

    def _fits(self) -> None:
        """What holds one parameter against another."""
        said = _paired("sweep_seeds", self.details.sweep_seeds, "seeds", self.seeds)
        if not any(smtos.get(smto).space == "parameters" for smto in self.all_methods):
            said.append("all_methods: a method that reads the gradients on the parameters is needed, to compare cost")
        if said:
            raise BadConfig(". ".join(said))


class WaysDetails(SweepDetails):
    taken_from: Method
    lr_methods: Methods
    lr_grid: Annotated[list[Rate], Field(min_length=2), Once]
    kurin_methods: Methods
    kurin: Annotated[list[Annotated[list[Annotated[float, Field(le=1)]], Field(min_length=2, max_length=2)]], Once]
    population: PopulationOptions


class OtherWays(OnSweeps):
    details: WaysDetails

    def plan(self) -> Plan:
        details = self.details
        yield "", self._fits
        yield from self.of(CL_RR, self.methods)
        yield from self.of(CL_CR, ["unit_scal"])
        yield from self.swept()
        for dropout, decay in details.kurin:
            yield "kurin", partial(details.uniform, self.source, dropout=dropout, weight_decay=decay)
        yield "population", self._population

    def _population(self) -> PopulationConfig:
        base = self.details.uniform(self.source)
        baselines = {task.name: dict.fromkeys(task.metrics, 1.0) for task in base.definition.tasks}
        size, interval = self.details.population.size, self.details.population.exploit_interval
        return PopulationConfig.of(base=base, baselines=baselines, size=size, exploit_interval=interval)

    def _fits(self) -> None:
        """What holds one parameter against another."""
        details = self.details
        said = _gives_weights("taken_from", details.taken_from, self.methods)
        for name in ("lr_methods", "kurin_methods"):
            if lacking := [smto for smto in getattr(details, name) if smto not in self.methods]:
                said.append(f"{name}: {listed(lacking)} must be among the methods, too")
        if [0.0, 0.0] not in details.kurin:
            said.append("kurin: [0.0, 0.0], neither dropout nor weight decay, must be there, to compare with")
        for name, seeds in (("sweep_seeds", details.sweep_seeds), ("population.seeds", details.population.seeds)):
            said += _paired(name, seeds, "seeds", self.seeds)
        if said:
            raise BadConfig(". ".join(said))


def _beyond_four(sizes: list[int]) -> list[int]:
    if max(sizes) < 5:
        raise ValueError(
            f"= {sizes}: a number above 4 is needed; up to there equal rows say that tasks can change places"
        )
    return sizes


class ProofDetails(Table):
    draws: Annotated[int, Field(ge=100, le=1_000_000)]  # of a tenth, in every case one must contradict
    sizes: Annotated[list[Annotated[int, Field(ge=3, le=100)]], Field(min_length=1), Once, AfterValidator(_beyond_four)]
    resolution: Annotated[int, Field(ge=2, le=500)]
    cosines: Annotated[int, Field(ge=2, le=10_000)]
    length_ratio: Annotated[float, Field(gt=1, le=1000)]
    cagrad_c: Annotated[list[Share], Field(min_length=1), Once]
    cdtt_alpha: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1), Once]
    famo_gamma: Annotated[float, Field(ge=0, le=1)]
    famo_noise: Annotated[list[Annotated[float, Field(ge=0, le=100)]], Field(min_length=1), Once]
    famo_paths: Annotated[int, Field(ge=1, le=1000)]
    famo_steps: Annotated[int, Field(ge=2, le=100_000)]
    seed: Seed


class Proofs(Parameters):
    details: ProofDetails


RatesByOptimizer = dict[str, Annotated[list[Positive], Field(min_length=1), Once]]
Gramians = Annotated[int, Field(ge=1, le=100_000)]
Steps = Annotated[int, Field(ge=2, le=1_000_000)]
Arms = Annotated[list[Annotated[list[str], Field(min_length=2, max_length=2)]], Field(min_length=1), Once]


class OptimizerDetails(Sized):
    test_size: Annotated[Size, Field(ge=4)]  # the fourth is shown
    optimizers: Annotated[list[str], Field(min_length=1), Once]
    uniform_under: Annotated[list[str], Once]
    rates: RatesByOptimizer
    preferences: Annotated[
        list[Annotated[list[Positive], Field(min_length=2, max_length=2)]], Field(min_length=2), Once
    ]
    factors: Annotated[list[Positive], Field(min_length=2), Once]
    arms: Arms
    look_problems: Annotated[list[str], Field(min_length=1), Once]
    look_seeds: Seeds
    look_epochs: Epochs
    looks: Annotated[int, Field(ge=1, le=10_000)]
    transfer_methods: Methods
    tuning_epochs: Epochs
    steps: Steps
    epsilons: Annotated[list[Positive], Field(min_length=1), Once]
    decays: Annotated[list[Positive], Field(min_length=1), Once]
    changing_steps: Steps
    changing_draws: Annotated[int, Field(ge=1, le=1000)]
    walk_steps: Steps
    gramians: Gramians
    num_tasks: Annotated[list[Annotated[int, Field(ge=2, le=100)]], Field(min_length=1), Once]
    seed: Seed


class Optimizers(OnData):
    methods: Methods
    seeds: Seeds
    source: Digits
    data_dir: Place
    details: OptimizerDetails

    def plan(self) -> Plan:
        yield "details", self._fits
        yield "details", self._runs

    def _fits(self) -> None:
        """What holds one parameter against another."""
        details, said = self.details, []
        used = [*details.optimizers, *details.uniform_under, *(optimizer for _, optimizer in details.arms)]
        if lacking := [name for name in dict.fromkeys(used) if name not in details.rates]:
            said.append(f"details.rates: there are no step sizes for {listed(lacking)}")
        if "adam" not in details.optimizers:
            said.append(f"details.optimizers = {details.optimizers} lacks 'adam', with which all others are compared")
        if twice := [name for name in details.uniform_under if name in details.optimizers]:
            said.append(f"details.uniform_under: {listed(twice)} is among details.optimizers already")
        if any(abs(sum(weights) - 1) > 1e-9 for weights in details.preferences):
            said.append(f"details.preferences = {details.preferences}: the weights of each must have the sum 1")
        if len({weights.index(max(weights)) for weights in details.preferences}) < len(details.preferences):
            said.append(f"details.preferences = {details.preferences}: each must prefer another task")
        if 1.0 not in details.factors:
            said.append("details.factors: 1.0, the loss as it is, must be there: step sizes are chosen at it")
        tuned = {*self.methods, *(smto for smto, optimizer in details.arms if optimizer == "adam")}
        if lacking := [smto for smto in details.transfer_methods if smto not in tuned]:
            said.append(
                f"details.transfer_methods: {listed(lacking)} must be among the methods, or the arms under adam"
            )
        if said:
            raise BadConfig(". ".join(said))

    def _runs(self) -> None:
        details = self.details
        common = details.model_dump(include={*Sized.model_fields})
        like = RunConfig.of(problem=CL_RR, seed=self.seeds[0], lr=0.001, source=self.source, **common)
        rates, alone = (
            {name: details.rates[name] for name in names if name in details.rates}
            for names in (details.optimizers, details.uniform_under)
        )
        confounds.crossed(like, self.methods, rates, self.seeds[:1])
        confounds.crossed(like, ["unit_scal"], alone, self.seeds[:1])
        for weights in details.preferences:
            confounds.preferring(like, weights, rates, self.seeds[:1])
        for smto, optimizer in details.arms:
            confounds.in_units(like, {(smto, optimizer): 0.001}, details.factors, self.seeds[:1])
        for problem in details.look_problems:
            confounds.under(like, "adam", 0.001, problem=problem)
        for smto in details.transfer_methods:
            confounds.under(like, "adam", 0.001, smto=smto)

    def data(self) -> Any:
        for problem in dict.fromkeys((CL_RR, *self.details.look_problems)):
            yield problem, {}, self.source, self.details.sizes, self.data_dir


class OnOneRate(Sized):
    """What all runs of one family have in common."""

    lr: Rate
    weight_decay: Annotated[float, Field(ge=0, le=1)]

    def config(self, problem: str, source: str, seed: int = 1) -> RunConfig:
        """A run of the uniform loss."""
        return RunConfig.of(problem=problem, source=source, seed=seed, **self.model_dump())


class StreetsOnOneRate(OnOneRate):
    problem_options: StreetOptions


class TwoSources(Table):
    digits: Digits
    streets: Streets


class TwoFolders(Table):
    digits: Place
    streets: Place


Radius = Annotated[float, Field(ge=0, lt=1)]  # CAGrad's c; from 1 on it is not known to converge
Radii = Annotated[list[Radius], Field(min_length=1), Once]
Names = Annotated[list[str], Field(min_length=1), Once]
Readings = Annotated[list[Literal["code", "eq9", "eq11", "eq11_plain"]], Field(min_length=1), Once]


class ImbalanceDetails(Table):
    digits: OnOneRate
    streets: StreetsOnOneRate
    problems: Names
    baseline_seeds: Seeds
    radii: Radii
    radius: Radius
    inner: Method
    duties: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1), Once]
    strides: Annotated[int, Field(ge=1, le=10_000)]
    look_problems: Names
    look_seeds: Seeds
    look_epochs: Epochs
    looks: Annotated[int, Field(ge=1, le=10_000)]
    factors: Annotated[list[Positive], Field(min_length=1), Once]
    grid_steps: Steps
    grid_weights: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1), Once]
    grid_rates: Rates
    grid_c: Radii
    grid_readings: Readings
    grid_precisions: Annotated[list[Literal["float32", "float64"]], Field(min_length=1), Once]
    page_rate: Rate
    gramians: Gramians
    num_tasks: Annotated[list[Annotated[int, Field(ge=2, le=100)]], Field(min_length=1), Once]
    seed: Seed


class Imbalance(OnData):
    methods: Methods
    seeds: Seeds
    source: TwoSources
    data_dir: TwoFolders
    details: ImbalanceDetails

    def plan(self) -> Plan:
        yield from _needed("methods", self.methods, "cagrad", "imgrad", "nash_mtl")
        yield "details", self._fits
        yield "details", self._runs

    @property
    def _problems(self) -> list[str]:
        return list(dict.fromkeys([*self.details.problems, *self.details.look_problems]))

    @property
    def _known(self) -> list[tuple[str, str]]:
        """The problems for which there are settings, and whose."""
        families = [(problem, FAMILIES.get(problem.split("/")[0], "")) for problem in self._problems]
        return [(problem, name) for problem, name in families if name in TwoSources.model_fields]

    def _fits(self) -> None:
        """What holds one parameter against another."""
        details, said = self.details, []
        if CL_RR not in details.problems:
            said.append(f"details.problems = {details.problems} lacks {CL_RR!r}, on which gates are compared")
        names = dict(self._known)
        strangers = [problem for problem in self._problems if problem not in names]
        strangers += [problem for problem in details.look_problems if names.get(problem) == "streets"]
        if strangers:
            said.append(f"details: there are no settings for {listed(dict.fromkeys(strangers))}")
        if details.page_rate not in details.grid_rates:
            said.append(f"details.page_rate = {details.page_rate} must be among grid_rates")
        if lacking := [weight for weight in (0.5, 0.9) if weight not in details.grid_weights]:
            said.append(f"details.grid_weights: {listed(map(str, lacking))} must be there, of which the claims speak")
        if lacking := [duty for duty in (0.3, 0.7) if duty not in details.duties]:
            said.append(f"details.duties: {listed(map(str, lacking))} must be there, of which the claims speak")
        if 2 not in details.num_tasks:
            said.append("details.num_tasks: 2 must be there, the number with a closed form")
        if said:
            raise BadConfig(". ".join(said))

    def _runs(self) -> None:
        details = self.details
        for problem, name in self._known:
            settings: OnOneRate = getattr(details, name)
            like = settings.config(problem, getattr(self.source, name), self.seeds[0])
            gates.at_radii(like, details.radii, self.seeds[:1])
            gates.baselines(like, details.baseline_seeds)
            if problem == CL_RR:
                configs = [gates.method(like, smto, details.radius, self.seeds[0]) for smto in self.methods]
                configs += gates.gated(like, details.inner, details.radius, details.duties, self.seeds[:1])
                for config in configs:
                    training.method(config, _network(problem))

    def data(self) -> Data:
        for problem, name in self._known:
            of = getattr(self.details, name)
            options = of.model_dump().get("problem_options", {})
            yield problem, options, getattr(self.source, name), of.sizes, getattr(self.data_dir, name)


SCHEMAS: dict[str, type[Parameters]] = {
    "00_start_here": StartHere,
    "01_mnist_selection": Selection,
    "02_two_similar_tasks": SimilarTasks,
    "02b_cosine": Cosine,
    "03_cityscapes_ladder": Ladder,
    "04_qm9": Properties,
    "05_fixed_weights": FixedWeights,
    "05b_sweep_or_smto": SweepOrMethod,
    "05c_other_ways": OtherWays,
    "06_proofs": Proofs,
    "07_optimizers": Optimizers,
    "08_imbalance": Imbalance,
}


def _refuse(message: str) -> None:
    raise BadConfig(message)
