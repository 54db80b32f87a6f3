"""The paper's numbers as data: what it reports and with which settings. Nothing of this is typed anywhere else.

    table("table_3")                     a data frame, methods × columns
    best("multimnist/CL_RR", "cagrad")   {"lr": 0.001, "dropout": 0.0, "weight_decay": 0.0, "options": {"c": 0.8}}
    grid("multimnist/CL_RR", "cagrad")   all settings that its search tried

The files are data/paper_results.yaml and data/paper_hyperparameters.yaml; data/elich.yaml has those of a companion.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Any, Literal, TypedDict

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict

from mtl_core.names import nearest


class NotInPaper(ValueError):
    """The paper has no such number."""


class Settings(TypedDict):
    """Hyperparameters of one configuration; `options` are those of the SMTO."""

    lr: float
    dropout: float
    weight_decay: float
    options: dict[str, Any]


# -- what the files must look like -------------------------------------------------------------------------------------


class Strict(BaseModel):
    """Part of a file: other fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Text(Strict):
    """A number from the running text: value, unit ("%" or none), and of what."""

    value: float
    unit: Literal["%", ""]
    says: str


class TrainingProtocol(Strict):
    """How long, in which batches and with which schedule a family of problems was trained."""

    epochs: int
    batch_size: int
    lr_decay: float
    schedule: str


class _Table(Strict):
    title: str
    problem: str | None
    columns: list[str]
    rows: dict[str, list[float]]


class _Results(Strict):
    tables: dict[str, _Table]
    text: dict[str, Text]


class _Chosen(Strict):
    lr: float
    dropout: float = 0.0
    weight_decay: float = 0.0
    options: dict[str, Any] = {}


class _Grid(Strict):
    lr: list[float]
    dropout: list[float]
    weight_decay: list[float]
    search_seeds: int
    seeds: int
    options: dict[str, dict[str, list[float]]]
    lr_of: dict[str, str] = {}


class _Problem(Strict):
    table: int | None = None
    smtos: dict[str, _Chosen]


class _FixedWeights(Strict):
    tasks: list[str]
    by_source_lr: dict[float, list[float]]


class _Hyperparameters(Strict):
    training: dict[str, TrainingProtocol]
    grids: dict[str, _Grid]
    problems: dict[str, _Problem]
    single_tasks: dict[str, dict[str, _Chosen]]
    qm9_fixed_weights: _FixedWeights


def _read(name: str) -> Any:
    return yaml.safe_load(resources.files(__package__).joinpath("data", name).read_text(encoding="utf-8"))


@cache
def _results() -> _Results:
    return _Results.model_validate(_read("paper_results.yaml"))


@cache
def _hyperparameters() -> _Hyperparameters:
    return _Hyperparameters.model_validate(_read("paper_hyperparameters.yaml"))


def _find(known: dict[Any, Any], name: Any, what: str) -> Any:
    if name not in known:
        raise NotInPaper(
            f"the paper has no {what} {name!r}{nearest(str(name), [str(k) for k in known])}. "
            f"It has: {', '.join(map(str, known))}."
        )
    return known[name]


# -- what it reports ---------------------------------------------------------------------------------------------------


def table(name: str) -> pd.DataFrame:
    """A table of results, "table_1" to "table_5": index smto (problem in "table_2"), columns as the paper has them.

    Relative changes and delta_m in percent, higher is better; mr is a mean rank, lower is better.

    Raises:
        NotInPaper: naming the tables there are.
    """
    found = _find(_results().tables, name, "table")
    index = "smto" if found.problem else "problem"
    return pd.DataFrame.from_dict(found.rows, orient="index", columns=found.columns).rename_axis(index)


def text(name: str) -> Text:
    """A number in the running text, such as "rl_rr_delta_m". Raises NotInPaper."""
    return _find(_results().text, name, "number in its text called")


def of_elich() -> pd.DataFrame:
    """Δm of the best runs of Elich et al. 2024, arXiv:2311.04698, tables A4 to A7: index smto, columns network and
    optimizer ("adam", "sgd").

    In percent, higher is better: theirs with the sign turned. A flat mean over all metrics, other than ours.
    """
    found = {
        (network, optimizer): {smto: -values[i] for smto, values in rows.items()}
        for network, rows in _read("elich.yaml")["delta_m"].items()
        for i, optimizer in enumerate(("adam", "sgd"))
    }
    return pd.DataFrame(found).rename_axis("smto").rename_axis(columns=["network", "optimizer"])


# -- with which settings -----------------------------------------------------------------------------------------------


def training(problem: str) -> TrainingProtocol:
    """Epochs, batch size and schedule of a problem's family. Raises NotInPaper."""
    return _find(_hyperparameters().training, _family(problem), "training of")


def table_number(problem: str) -> int | None:
    """The number of the table that lists a problem's chosen settings (6 to 10); None for those in the scripts only."""
    return _find(_hyperparameters().problems, problem, "settings for the problem").table


def best(problem: str, smto: str = "unit_scal", metric: str | None = None) -> Settings:
    """The settings that the paper chose for a method on a problem, or for a single task ("multimnist/CL").

    Args:
        metric: needed only for a single task with several metrics, each of which has its own settings.

    Raises:
        NotInPaper: no such problem or metric, or the paper did not run this method on it.
    """
    known = _hyperparameters()
    if problem in known.single_tasks:
        metrics = single_task(problem)
        if metric is None and len(metrics) > 1:
            raise NotInPaper(f"{problem} has settings per metric; name one of {', '.join(metrics)}.")
        return _find(metrics, metric or next(iter(metrics)), f"settings of {problem} for the metric")
    found = _find(known.problems, problem, "settings for the problem")
    return _settings(_find(found.smtos, smto, f"settings on {problem} for the method"))


def single_task(name: str) -> dict[str, Settings]:
    """The settings chosen for a single task ("multimnist/CL"), by metric, each its own. Raises NotInPaper."""
    found = _find(_hyperparameters().single_tasks, name, "settings for the single task")
    return {metric: _settings(chosen) for metric, chosen in found.items()}


def _settings(chosen: _Chosen) -> Settings:
    return Settings(
        lr=chosen.lr,
        dropout=chosen.dropout,
        weight_decay=chosen.weight_decay,
        options=copy.deepcopy(chosen.options),
    )


def problems() -> list[str]:
    """The multi-task problems of the paper, in its order."""
    return list(_hyperparameters().problems)


def methods(problem: str) -> list[str]:
    """The methods that the paper has settings for on a problem, in its order; fixed weights are among them."""
    return list(_find(_hyperparameters().problems, problem, "settings for the problem").smtos)


def axes(problem: str) -> dict[str, list[float]]:
    """The axes that every method's search shares: lr, dropout, weight_decay. Raises NotInPaper."""
    found = _find(_hyperparameters().grids, _family(problem), "grid for")
    return {"lr": list(found.lr), "dropout": list(found.dropout), "weight_decay": list(found.weight_decay)}


def rate_of(problem: str, smto: str) -> str | None:
    """The method whose chosen learning rate another one took over on a problem, without a search; None for most."""
    return _find(_hyperparameters().grids, _family(problem), "grid for").lr_of.get(smto)


def option_axes(problem: str, smto: str) -> dict[str, list[float]]:
    """The axes that the search of one method adds: {"c": [0.2, 0.5, 0.8]} for CAGrad, none for most."""
    found = _find(_hyperparameters().grids, _family(problem), "grid for")
    return {name: list(values) for name, values in found.options.get(smto, {}).items()}


def option_grid(problem: str, smto: str) -> list[dict[str, Any]]:
    """All combinations of a method's own options that the search tried; [{}] for a method without any."""
    found = option_axes(problem, smto)
    return [dict(zip(found, values, strict=True)) for values in itertools.product(*found.values())]


def grid(problem: str, smto: str = "unit_scal") -> list[Settings]:
    """All settings that the paper's search tried for a method (or a single task) on a problem."""
    tried = axes(problem)
    if model := rate_of(problem, smto):
        tried["lr"] = [best(problem, model)["lr"]]
    values: Iterable[tuple[float, ...]] = itertools.product(*tried.values())
    return [
        Settings(lr=lr, dropout=dropout, weight_decay=weight_decay, options=options)
        for (lr, dropout, weight_decay), options in itertools.product(values, option_grid(problem, smto))
    ]


def seeds(problem: str) -> tuple[list[int], list[int]]:
    """The seeds of the search, and all seeds of the chosen configuration (those of the search among them)."""
    found = _find(_hyperparameters().grids, _family(problem), "grid for")
    return list(range(1, found.search_seeds + 1)), list(range(1, found.seeds + 1))


def qm9_fixed_weights(source_lr: float) -> dict[str, float]:
    """Fixed weights by task, taken from the Nash-MTL run at one of four learning rates; they sum to 1."""
    known = _hyperparameters().qm9_fixed_weights
    weights = _find(known.by_source_lr, source_lr, "fixed weights from learning rate")
    return dict(zip(known.tasks, weights, strict=True))


def _family(problem: str) -> str:
    return problem.split("/")[0]
