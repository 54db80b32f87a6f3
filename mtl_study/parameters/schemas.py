"""What each notebook is given: a schema for each, and the runs that its values ask for, built before any training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from mtl_core import smtos
from mtl_core.names import nearest
from mtl_study.experiments import protocol, sweeps
from mtl_study.experiments.population import PopulationConfig
from mtl_study.experiments.runs import BadConfig, RunConfig
from mtl_study.parameters.checking import Folder, Name, Once, Place, Table
from mtl_study.words import listed

CL_RR, CL_CR, STREETS, QM9 = "multimnist/CL_RR", "multimnist/CL_CR", "cityscapes/19C", "qm9"
LADDER = tuple(f"cityscapes/{step}" for step in ("R50", "R18", "inst_seg", "HR", "19C"))
CORNERS = tuple(f"cityscapes/{corner}" for corner in ("SD_19", "SDI_19", "HR_SD_7", "HR_SD_19"))
WITHOUT_WEIGHTS = ("graddrop", "pcgrad")  # methods from which none can be taken

Plan = Iterator[tuple[str, Callable[[], Any]]]  # what is asked for, in words, and what builds it


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
Share = Annotated[float, Field(ge=0, lt=1)]
Rates = Annotated[list[Positive], Field(min_length=1), Once]
Dropouts = Annotated[list[Share], Field(min_length=1), Once]
Decays = Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1), Once]
Points = Annotated[int, Field(ge=2, le=1000)]
Search = Literal["published", "grid"]
Precision = Literal["float32", "float64", "tf32"]
Schedule = Literal["plateau", "plateau_on_validation"]
Decay = Annotated[float, Field(gt=0, le=1)]
PlateauDecay = Annotated[float, Field(gt=0, lt=1)]  # a plateau schedule multiplies by it
Digits = Literal["embedded", "full"]
Streets = Literal["embedded", "full"]
Molecules = Literal["embedded", "pyg"]


class Parameters(Table):
    """Of every notebook."""

    preset: Name

    def plan(self) -> Plan:
        """The runs that are asked for, as far as they are known before any has been trained."""
        yield from ()

    def data(self) -> Iterator[tuple[str, dict[str, Any], str, tuple[int, int, int], str]]:
        """The data that are needed: problem, its options, source, sizes, folder."""
        yield from ()


class OnData(Parameters):
    """Of a notebook that trains."""

    device: str
    store: Folder


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


class Experiment(OnData, Sized):
    """Of a notebook that runs the paper's protocol."""

    methods: Methods
    seeds: Seeds
    search: Search
    search_seeds: Seeds
    grid_lr: Rates
    grid_options: bool
    as_released: bool
    data_dir: Place

    def of(self, problem: str, methods: list[str], **settings: Any) -> Plan:
        """What the protocol trains for a problem, with one seed."""
        given = self.model_dump()
        common = {
            name: given[name]
            for name in (*Sized.model_fields, "source", "schedule", "keep_jacobian", "problem_options")
            if name in given
        }
        axes = {name: given[f"grid_{name}"] for name in ("dropout", "weight_decay") if f"grid_{name}" in given}
        for as_released in (False, True) if self.as_released else (False,):
            yield (
                problem,
                partial(
                    protocol.planned,
                    problem,
                    methods,
                    seeds=self.seeds[:1],
                    search=self.search,
                    search_seeds=self.search_seeds[:1],
                    grid=protocol.Grid(lr=self.grid_lr, options=self.grid_options, **axes),
                    as_released=as_released,
                    **{**common, **settings},
                ),
            )


# -- one per notebook --------------------------------------------------------------------------------------------------


class StartHere(Parameters):
    interactive: Literal["auto", "always", "never"]
    resolution: Annotated[int, Field(ge=2, le=500)]
    walk_steps: Annotated[int, Field(ge=1, le=100_000)]
    walk_lr: Annotated[float, Field(gt=0, le=1)]  # beyond, the walks leave the page
    batch_size: Annotated[int, Field(ge=8, le=10_000)]  # eight are shown
    warm_up: Annotated[int, Field(ge=0, le=10_000)]
    seed: Seed


class Selection(Experiment):
    source: Digits
    grid_dropout: Dropouts
    train_at_one_rate: bool

    def plan(self) -> Plan:
        yield from self.of(CL_RR, self.methods)

    def data(self) -> Any:
        yield CL_RR, {}, self.source, self.sizes, self.data_dir


def _needed(where: str, methods: list[str], *needed: str) -> Plan:
    """That methods of which a notebook speaks by name are there."""
    if lacking := [smto for smto in needed if smto not in methods]:
        yield where, partial(_refuse, f"{where} must have {listed(lacking)}, of which this notebook speaks by name")


class SimilarTasks(Experiment):
    source: Digits
    grid_dropout: Dropouts
    train_at_one_rate: bool

    def plan(self) -> Plan:
        yield from _needed("methods", self.methods, "famo")
        for problem in (CL_CR, "multimnist/RL_RR", CL_RR):
            yield from self.of(problem, self.methods)

    def data(self) -> Any:
        yield CL_RR, {}, self.source, self.sizes, self.data_dir


class StreetOptions(Table):
    """Of the Cityscapes problems. Without `slim` a network would have its full width, which takes a GPU: it is asked
    for."""

    width: Annotated[int, Field(ge=16, le=1024, multiple_of=16)]
    slim: Literal[1, 2, 4, 8, 16, 32]
    pretrained: bool = False
    reduction: Literal["per_image", "pooled"] = "per_image"
    aligned: bool = False

    @model_validator(mode="after")
    def _whole_networks_only(self) -> StreetOptions:
        if self.pretrained and self.slim != 1:
            raise ValueError(f"= {{pretrained: true, slim: {self.slim}}}: ImageNet's weights are of slim: 1")
        return self


class Ladder(Experiment):
    all_methods: Methods
    source: Streets
    grid_weight_decay: Decays
    problem_options: StreetOptions
    keep_jacobian: bool

    def plan(self) -> Plan:
        yield from _needed("methods", self.methods, "imtl")
        yield from _needed("all_methods", self.all_methods, "imtl", "edm")
        for problem in LADDER:
            yield from self.of(problem, self.all_methods if problem == STREETS else self.methods)
        lacking = [smto for smto in self.methods if smto not in self.all_methods]
        if lacking:  # what is beside the ladder is compared with the last step
            yield (
                "methods",
                partial(_refuse, f"methods: {listed(lacking)} must be among all_methods, too"),
            )

    def data(self) -> Any:
        for problem in (*LADDER, *CORNERS):
            yield problem, self.problem_options.model_dump(), self.source, self.sizes, self.data_dir


class Properties(Experiment):
    source: Molecules
    train_at_one_rate: bool
    max_atoms: Annotated[int, Field(ge=3, le=29)]
    slim: Literal[1, 2, 4]
    released_features: bool
    lr_decay: PlateauDecay
    schedule: Schedule
    both_schedules: Annotated[list[Method], Once]
    schedule_epochs: Epochs

    @property
    def options(self) -> dict[str, Any]:
        return {"max_atoms": self.max_atoms, "slim": self.slim, "released_features": self.released_features}

    def plan(self) -> Plan:
        yield from _needed("methods", self.methods, "imtl", "rotograd")
        yield from self.of(QM9, self.methods, problem_options=self.options)
        for smto in self.both_schedules:
            if smto not in self.methods:
                yield "both_schedules", partial(_refuse, f"both_schedules: {smto!r} is not among the methods")

    def data(self) -> Any:
        yield QM9, self.options, self.source, self.sizes, self.data_dir


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


class Family(Sized):
    """Settings of another notebook's experiment."""

    seeds: Seeds
    search_seeds: Seeds
    data_dir: Place


class OfDigits(Family):
    sweep_seeds: Seeds
    grid: DigitGrid
    source: Digits


class OfStreets(Family):
    grid: StreetGrid
    source: Streets
    problem_options: StreetOptions


class MoleculeOptions(Table):
    max_atoms: Annotated[int, Field(ge=3, le=29)]
    slim: Literal[1, 2, 4]
    released_features: bool = False


class OfMolecules(Family):
    grid: MoleculeGrid
    source: Molecules
    problem_options: MoleculeOptions
    lr_decay: PlateauDecay
    schedule: Schedule


class Ratios(Table):
    lowest: Positive
    highest: Positive
    points: Points

    @model_validator(mode="after")
    def _from_low_to_high(self) -> Ratios:
        if not self.lowest < self.highest:
            raise ValueError(f"goes from {self.lowest} to {self.highest}; lowest must be below highest")
        return self


class Population(Table):
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


class FixedWeights(OnData):
    search: Search
    digits: OfDigits
    streets: OfStreets
    molecules: OfMolecules
    methods: Annotated[dict[str, Methods], _all_of(ALL)]
    sources: Annotated[dict[str, Method], _all_of(EXTRACTED)]
    nash_lr: Rates
    fixed_lr: Positive
    ratios: Annotated[dict[str, Ratios], _all_of(SWEPT)]
    lr_methods: Methods
    lr_grid: Annotated[list[Positive], Field(min_length=2), Once]
    kurin_methods: Methods
    kurin: Annotated[list[Annotated[list[float], Field(min_length=2, max_length=2)]], Once]
    widths: Annotated[list[Annotated[float, Field(ge=0.1, le=16)]], Field(min_length=1), Once]
    population: Population

    @property
    def families(self) -> dict[str, Family]:
        return {CL_RR: self.digits, CL_CR: self.digits, STREETS: self.streets, QM9: self.molecules}

    def plan(self) -> Plan:
        yield "", self._fits
        for problem, family in self.families.items():
            common = family.model_dump(exclude={"grid", "data_dir", "seeds", "search_seeds", "sweep_seeds"})
            yield (
                problem,
                partial(
                    protocol.planned,
                    problem,
                    self.methods[problem],
                    seeds=family.seeds[:1],
                    search=self.search,
                    search_seeds=family.search_seeds[:1],
                    grid=protocol.Grid(**family.model_dump()["grid"]),
                    **common,
                ),
            )
        uniform = self.digits.model_dump(include={"source", *Sized.model_fields}) | {"problem": CL_RR, "seed": 1}
        uniform |= {"lr": 0.001}
        for dropout, decay in self.kurin:
            yield "kurin", partial(RunConfig.of, **{**uniform, "dropout": dropout, "weight_decay": decay})
        for width in self.widths:
            yield "widths", partial(RunConfig.of, **{**uniform, "problem_options": {"width": width}})
        for ratios in self.ratios.values():
            yield "ratios", partial(sweeps.ratios, **ratios.model_dump())
        yield "population", partial(self._population, uniform)

    def _population(self, uniform: dict[str, Any]) -> PopulationConfig:
        base = RunConfig.of(**uniform)
        baselines = {task.name: dict.fromkeys(task.metrics, 1.0) for task in base.definition.tasks}
        size, interval = self.population.size, self.population.exploit_interval
        return PopulationConfig.of(base=base, baselines=baselines, size=size, exploit_interval=interval)

    def _fits(self) -> None:
        """What holds one parameter against another."""
        said = []
        for problem, smto in self.sources.items():
            if smto not in self.methods[problem]:
                said.append(f"sources.{problem}: {smto!r} is not among the methods of {problem}")
            elif smto == "unit_scal" or smto in WITHOUT_WEIGHTS:
                said.append(f"sources.{problem}: {smto!r} has no weights of its own to be taken")
        for name in ("lr_methods", "kurin_methods"):
            if lacking := [smto for smto in getattr(self, name) if smto not in self.methods[CL_RR]]:
                said.append(f"{name}: {listed(lacking)} must be among the methods of {CL_RR}, too")
        if not any(smtos.get(smto).space == "parameters" for smto in self.methods[CL_RR]):
            said.append(
                f"methods.{CL_RR}: a method that reads the gradients on the parameters is needed, to compare cost"
            )
        if [0.0, 0.0] not in self.kurin:
            said.append("kurin: [0.0, 0.0], neither dropout nor weight decay, must be there, to compare with")
        for name, seeds in (("sweep_seeds", self.digits.sweep_seeds), ("population.seeds", self.population.seeds)):
            if lacking := [seed for seed in seeds if seed not in self.digits.seeds]:
                said.append(f"{name}: {lacking} must be among digits.seeds, too; runs are compared seed by seed")
        if self.sources[QM9] != "nash_mtl":
            said.append(f"sources.{QM9}: nash_lr gives the rates of nash_mtl, so that it must be the source")
        if said:
            raise BadConfig(". ".join(said))

    def data(self) -> Any:
        for problem, family in self.families.items():
            given = family.model_dump()
            yield problem, given.get("problem_options", {}), given["source"], family.sizes, family.data_dir


class Proofs(Parameters):
    draws: Annotated[int, Field(ge=10, le=1_000_000)]
    sizes: Annotated[list[Annotated[int, Field(ge=3, le=100)]], Field(min_length=1), Once]
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


SCHEMAS: dict[str, type[Parameters]] = {
    "00_start_here": StartHere,
    "01_mnist_selection": Selection,
    "02_two_similar_tasks": SimilarTasks,
    "03_cityscapes_ladder": Ladder,
    "04_qm9": Properties,
    "05_fixed_weights": FixedWeights,
    "06_proofs": Proofs,
}


def _refuse(message: str) -> None:
    raise BadConfig(message)
