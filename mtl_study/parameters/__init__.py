"""The parameters of the notebooks: one check for every way in, by `make reproduce`, papermill or JupyterLab.

check("01_mnist_selection", globals())     in a notebook's first cell: converts what is unambiguous, refuses the rest
problems_of(notebook, values)              the same for a planner: a sentence for everything that is wrong
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mtl_core import problems
from mtl_core.datasets.base import DataNotFound
from mtl_core.names import nearest
from mtl_study import execution
from mtl_study.artifacts import REPOSITORY
from mtl_study.experiments import protocol, runner, training
from mtl_study.experiments.store import RunStore
from mtl_study.parameters.checking import BadParameters, completed, explain, from_text, place_of, read_yaml
from mtl_study.parameters.schemas import FAMILIES, SCHEMAS, OnData, PaperNotebook, Parameters, Sized, family
from mtl_study.words import listed

__all__ = [
    "SCHEMAS",
    "BadParameters",
    "check",
    "file_of",
    "folder_of",
    "for_experiment",
    "lacking",
    "preset_values",
    "problems_of",
    "seeds_of",
    "settings_of",
    "ships_at",
]

SHIPPED = "shipped"  # asked for as a preset: for each notebook the one that params/shipped.yaml names

INJECTED = "# Parameters\n"  # how the cell begins into which papermill writes what it was given


def check(notebook: str, names: MutableMapping[str, Any]) -> None:
    """Holds a notebook's parameters against its schema, and builds every problem and run that they ask for.

    Args:
        notebook: its name, "01_mnist_selection". names: `globals()`; what is unambiguous is converted there.

    Raises:
        BadParameters: with everything that is wrong, before anything is trained.
    """
    said = _of_another_environment()
    if said:
        print(said)
    schema = SCHEMAS[notebook]
    values = _completed(notebook, {name: names[name] for name in schema.model_fields if name in names})
    found, wrong = _read(notebook, values)
    wrong += _unknown(names.get("In", []), schema)
    if found is not None:
        wrong += _unmet(found)
    if wrong:
        raise BadParameters("\n".join([f"{notebook}: nothing was run.", *(f"* {one}." for one in wrong)]))
    assert found is not None
    given = found.model_dump(exclude_unset=True)
    names.update(given)
    execution.begin(notebook, given, _as_in_the_preset(notebook, given))


def _completed(notebook: str, values: dict[str, Any]) -> dict[str, Any]:
    """These values; of a table that is given in part, `details` above all, the rest is as in the preset."""
    path = REPOSITORY / "params" / str(values.get("preset")) / f"{notebook}.yaml"
    try:
        given = from_text(values, SCHEMAS[notebook])
    except ValueError:
        return values  # `_read` says what is wrong
    whole = completed(given, preset_values(path), SCHEMAS[notebook]) if path.is_file() else given
    if parts := [name for name, value in given.items() if value != whole[name]]:
        print(f"What is not given of {listed(parts)} is as in the preset {values['preset']}.")
    return whole


def _as_in_the_preset(notebook: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values of the preset's file in their types; the given ones where there is none, outside a checkout."""
    path = REPOSITORY / "params" / str(given["preset"]) / f"{notebook}.yaml"
    found = _read(notebook, preset_values(path))[0] if path.is_file() else None
    return given if found is None else found.model_dump(exclude_unset=True)


def problems_of(notebook: str, values: Mapping[str, Any], folder: Path | None = None) -> list[str]:
    """What keeps a notebook from running with these values, one sentence each; empty if nothing does.

    Args:
        folder: of the presets; None: that of the repository.
    """
    found, wrong = _read(notebook, values, folder)
    return wrong if found is None else wrong + _unmet(found)


def misfits(notebook: str, values: Mapping[str, Any]) -> list[str]:
    """As `problems_of`, without what depends on this machine: data, device, workers."""
    return _read(notebook, values)[1]


def _read(notebook: str, values: Mapping[str, Any], folder: Path | None = None) -> tuple[Parameters | None, list[str]]:
    """The values in their types, and what is wrong with them."""
    if notebook not in SCHEMAS:
        return None, [f"no schema for the notebook {notebook!r}{nearest(notebook, SCHEMAS)}; add one to SCHEMAS"]
    schema = SCHEMAS[notebook]
    wrong = []
    try:
        found = schema.model_validate(from_text(dict(values), schema))
    except ValidationError as error:
        return None, explain(error, schema)
    except ValueError as error:
        return None, [str(error).rstrip(".")]
    presets = _presets(folder or REPOSITORY / "params")
    if presets and found.preset not in presets:
        wrong.append(f"there is no preset {found.preset!r}{nearest(found.preset, presets)}: {', '.join(presets)}")
    for where, build in found.plan():
        try:
            build()
        except ValueError as error:
            said = str(error).rstrip(".")
            wrong.append(said if not where or where in said else f"{where}: {said}")
    return found, list(dict.fromkeys(wrong))


def _presets(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.glob("*") if one.is_dir())


def lacking(notebook: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The data that a notebook with these values needs and that are not there: which, and what to do about it. 01, 02
    and 02b need none where all planned runs are stored.

    Raises:
        ValidationError: the values are not the notebook's.
    """
    schema = SCHEMAS[notebook]
    yield from _lacking(schema.model_validate(from_text(dict(values), schema)))


def _lacking(found: Parameters) -> Iterator[tuple[str, str]]:
    for name, options, source, sizes, data_dir in found.data():
        what = f"{family(name)} in {data_dir or 'data_dir'}"
        try:
            problems.get(name, **options).data.check(source, sizes, str(REPOSITORY / data_dir) if data_dir else None)
        except DataNotFound as error:
            if not _all_stored(found):
                yield what, str(error)
        except (ValueError, OSError) as error:
            yield what, str(error)


def _all_stored(found: Parameters) -> bool:
    """Whether nothing but records is read: the notebook reads no data itself, and every planned run is stored."""
    if not isinstance(found, PaperNotebook) or found.reads_data:
        return False
    store = RunStore(REPOSITORY / found.store)
    of_seeds = [found.model_copy(update={"seeds": [seed]}) for seed in found.seeds]  # a plan has one seed
    try:
        planned = [config for one in of_seeds for _, build in one.plan() for config in build()]
    except ValueError:
        return False  # `_read` says what is wrong
    return all(store.get(config) is not None for config in planned)


def _unmet(found: Parameters) -> list[str]:
    """What this machine lacks: data that are not there or not so many, a device, workers that are none."""
    wrong = [said.rstrip(".") for _, said in _lacking(found)]
    if isinstance(found, OnData):
        looks: list[Callable[[], Any]] = [partial(training.find_device, found.device), partial(_precision, found)]
        looks += [runner.workers_wanted, runner.runs_per_gpu_wanted]
        for look in looks:
            try:
                look()
            except ValueError as error:
                wrong.append(str(error).rstrip("."))
    return list(dict.fromkeys(wrong))


def _precision(found: OnData) -> None:
    for one in (found.details, *(getattr(found.details, name, None) for name in FAMILIES.values())):
        if precision := getattr(one, "precision", ""):
            training.check_precision(precision, training.find_device(found.device))


def _unknown(executed: list[str], schema: type[Parameters]) -> list[str]:
    """Names that papermill was given and the notebook does not have: it would run on without a word."""
    cell = next((text for text in reversed(executed) if text.startswith(INJECTED)), "")
    given = [target.id for line in ast.parse(cell).body if isinstance(line, ast.Assign) for target in _names(line)]
    known = list(schema.model_fields)
    return [
        f"unknown parameter {name!r}{place_of(name, schema)}; the notebook has: {', '.join(known)}"
        for name in given
        if name not in known
    ]


def _names(line: ast.Assign) -> Iterator[ast.Name]:
    return (target for target in line.targets if isinstance(target, ast.Name))


def _of_another_environment() -> str:
    """What to say where the kernel is not the repository's own."""
    ours, prefix = REPOSITORY / ".venv", Path(sys.prefix)
    made_ready = (prefix / "mtl_core.ready").exists()  # by make, in an environment that was active
    if not ours.is_dir() or prefix.resolve() == ours.resolve() or made_ready:
        return ""
    return (
        f"This kernel is {sys.executable}, and not that of the repository's environment, {ours}: other versions of its "
        "packages can give other numbers. Choose the kernel of .venv, or go on if you meant this one."
    )


def settings_of(preset: str, problem: str) -> dict[str, Any]:
    """What all runs of a problem have in common at a preset, and how their settings were found, as `protocol.stored`
    takes it: notebook 05, which uses the
    runs of the others, has it for each family of problems.

    Raises:
        BadParameters: there is no such preset.
    """
    values = preset_values(folder_of(preset) / "05_fixed_weights.yaml")
    data, of_no_run = family(problem), ("sweep_seeds", "search_seeds", "grid")
    of_runs = {name: value for name, value in values["details"][data].items() if name not in of_no_run}
    return {"search": values["details"]["search"], "source": values["source"][data], **of_runs}


def seeds_of(preset: str, problem: str) -> list[int]:
    """The seeds of a problem at a preset, as `settings_of` has its settings. Raises BadParameters."""
    seeds: list[int] = preset_values(folder_of(preset) / "05_fixed_weights.yaml")["seeds"][family(problem)]
    return seeds


def for_experiment(
    seeds: list[int], source: str, details: Mapping[str, Any], store: str, data_dir: str, device: str
) -> dict[str, Any]:
    """What `protocol.experiment` takes besides a problem and its methods, from the parameters of a notebook."""
    names = (*Sized.model_fields, "schedule", "keep_jacobian", "problem_options", "search", "search_seeds")
    return {
        "seeds": seeds,
        "source": source,
        "grid": protocol.Grid(**details["grid"]),
        "store": REPOSITORY / store,
        "data_dir": str(REPOSITORY / data_dir) if data_dir else None,
        "device": device,
        **{name: details[name] for name in names if name in details},
    }


def folder_of(preset: str, params: Path = REPOSITORY / "params") -> Path:
    """That with a preset's parameters. Raises BadParameters if there is no such preset."""
    if preset not in (presets := _presets(params)):
        raise BadParameters(
            f"there is no preset {preset!r}{nearest(preset, presets)}. Presets are the folders of {params}: "
            f"{', '.join(presets) or 'none'}."
        )
    return params / preset


def need(preset: str, params: Path = REPOSITORY / "params") -> str:
    """The name of a preset, or `SHIPPED`. Raises BadParameters if there is no such preset."""
    return preset if preset == SHIPPED else folder_of(preset, params).name


def ships_at(notebook: str, params: Path = REPOSITORY / "params") -> str:
    """The preset whose numbers ship, of this notebook. Raises BadParameters if params/shipped.yaml names none."""
    path = params / f"{SHIPPED}.yaml"
    named = preset_values(path) if path.is_file() else {}
    if notebook not in named:
        raise BadParameters(f"{path} {'does not say' if named else 'should say'} at which preset {notebook} ships.")
    return folder_of(str(named[notebook]), params).name


def file_of(preset: str, notebook: str, params: Path = REPOSITORY / "params") -> Path:
    """That with a notebook's values at a preset, or at `SHIPPED`. Raises BadParameters as `ships_at`."""
    return params / (ships_at(notebook, params) if preset == SHIPPED else preset) / f"{notebook}.yaml"


def preset_values(path: Path) -> dict[str, Any]:
    """The values in a preset file.

    Raises:
        BadParameters: the file is missing, is no YAML, is no list of `name: value`, gives a name twice, or has a number
            that is another one than it looks like.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadParameters(f"{path} is missing: every notebook needs its parameters in every preset.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadParameters(f"{path} cannot be read: {error}") from None
    try:
        values = read_yaml(text)
    except ValueError as error:
        raise BadParameters(f"{path}: {error}") from None
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise BadParameters(f"{path}: expected lines `name: value`.")
    return values
