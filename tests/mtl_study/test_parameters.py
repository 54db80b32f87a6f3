"""One check for every way in: what it converts, what it refuses, and in which words."""

import ast
import math
import sys

import papermill
import pytest

from mtl_study import artifacts, execution, parameters
from mtl_study.experiments import runner
from mtl_study.experiments.runs import BadConfig, RunConfig
from mtl_study.experiments.store import RunStore
from mtl_study.parameters import BadParameters, checking
from mtl_study.publishing import links, notebooks

PARAMS, NOTEBOOKS = artifacts.REPOSITORY / "params", artifacts.REPOSITORY / "notebooks"
DIGITS, LADDER, FIXED = "01_mnist_selection", "03_cityscapes_ladder", "05_fixed_weights"
SWEEP, WAYS = "05b_sweep_or_smto", "05c_other_ways"
OPTIMIZERS, IMBALANCE = "07_optimizers", "08_imbalance"


@pytest.fixture(autouse=True)
def begun(monkeypatch):
    """What was begun: notebook, its values, those of the preset. Nothing is cleared."""
    found = []
    monkeypatch.setattr(execution, "begin", lambda *given: found.append(given))
    return found


def preset(notebook, **changed):
    """The values of smoke, with some changed; "digits.seeds" means one inside a table, ... takes one out."""
    values = parameters.preset_values(PARAMS / "smoke" / f"{notebook}.yaml")
    for place, value in changed.items():
        *path, name = place.split("__")
        owner = values
        for step in path:
            owner = owner[step]
        if value is ...:
            del owner[name]
        else:
            owner[name] = value
    return values


def refusal(notebook, **changed):
    """What the notebook's first cell says."""
    with pytest.raises(BadParameters) as refused:
        parameters.check(notebook, preset(notebook, **changed))
    return str(refused.value)


def test_what_is_unambiguous_is_converted(begun):
    """Text that is a list, as papermill's -p hands it over; the home; a whole number where a rate is asked for."""
    names = preset(DIGITS, seeds="[1, 2]", methods="[unit_scal, cagrad]", details__grid__lr=[1], store="~/runs")
    parameters.check(DIGITS, names)
    assert (names["seeds"], names["methods"], names["details"]["grid"]["lr"]) == (
        [1, 2],
        ["unit_scal", "cagrad"],
        [1.0],
    )
    assert names["store"].endswith("/runs") and "~" not in names["store"]
    [(notebook, given, of_preset)] = begun
    assert notebook == DIGITS and set(execution.changed(given, of_preset)) == {"methods", "details.grid.lr"}


REFUSED = [
    (DIGITS, {"methods": "cagrad"}, 'methods is text ("cagrad"), expected a list; write [cagrad]'),
    (DIGITS, {"methods": ["unit_scal", "cagrda"]}, "no SMTO called 'cagrda' (did you mean 'cagrad'?)"),
    (DIGITS, {"methods": ["unit_scal", "edm", "edm"]}, "methods names 'edm' twice"),
    (DIGITS, {"methods": ["edm", "cagrad"]}, "lacks 'unit_scal'"),
    (
        DIGITS,
        {"methods": ["unit_scal", "upgrad"], "details__search": "published"},
        "the paper has no settings on multimnist/CL_RR for the method 'upgrad'",
    ),
    (FIXED, {"details__nash_lr": [0.005, 1.0]}, "nash_lr: the paper has no fixed weights from learning rate 1.0"),
    (DIGITS, {"seeds": [1, 1]}, "seeds names 1 twice"),
    (DIGITS, {"seeds": [-1]}, "seeds[0] is a whole number (-1): expected greater than or equal to 0"),
    (DIGITS, {"seeds": [2**64 - 1]}, "seeds[0] is a whole number (18446744073709551615)"),
    (DIGITS, {"seeds": 3}, "seeds is a whole number (3), expected a list; write [3]"),
    (DIGITS, {"seeds": "[1, 010]"}, "seeds: line 1: 010 is 8 in YAML 1.1; write 10 or 8"),
    (DIGITS, {"source": "Full"}, "(did you mean 'full'?), expected 'embedded' or 'full'"),
    (DIGITS, {"preset": "Quick"}, "no preset 'Quick' (did you mean 'quick'?)"),
    (DIGITS, {"preset": "../../x"}, "preset is '../../x', which is no name of a folder"),
    (
        DIGITS,
        {"details__grid__lr": [math.inf]},
        "details.grid.lr[0] is a number with a point (Infinity), expected a finite number",
    ),
    (
        DIGITS,
        {"details__grid__lr": [1e308]},
        "details.grid.lr[0] is a number with a point (1e+308): expected less than",
    ),
    (DIGITS, {"details__grid__lr": ["1e-3"]}, "YAML takes 1e-3 for text: write 0.001"),
    (DIGITS, {"details__test_size": 200_000_000_000}, "details.test_size is a whole number (200000000000)"),
    (DIGITS, {"details__test_size": 2e11}, "; write 200000000000"),
    (DIGITS, {"store": "C:\\runs"}, "store is a path of Windows"),
    (DIGITS, {"store": "~nobody_is_called_so/runs"}, "store names the home of a user that is not known here"),
    (DIGITS, {"store": ""}, "store is empty"),
    (DIGITS, {"device": "gpu"}, "device 'gpu' cannot be used"),
    (DIGITS, {"source": "full", "data_dir": "/nowhere"}, "/nowhere/MNIST/raw"),
    (DIGITS, {"details__precision": "tf32", "device": "cpu"}, "precision = 'tf32' needs an NVIDIA GPU"),
    (DIGITS, {"methods": ["unit_scal", "bayesagg_mtl"]}, "bayesagg_mtl: head 'CL' holds Linear, Linear"),
    (LADDER, {"all_methods": ["unit_scal", "imtl", "x"]}, "no SMTO called 'x'"),
    (LADDER, {"all_methods": ["unit_scal", "edm"]}, "all_methods must have imtl"),
    (
        "02_two_similar_tasks",
        {"methods": ["unit_scal", "edm"]},
        "methods must have famo, of which this notebook speaks",
    ),
    (LADDER, {"details__problem_options__num_tasks": 2}, "unknown parameter 'details.problem_options.num_tasks'"),
    (LADDER, {"details__batch_size": 7, "details__train_size": 15}, "the last batch has 1 of the at least 2 samples"),
    (
        "04_qm9",
        {"details__train_size": 4},
        "details.train_size is a whole number (4): expected greater than or equal to 5",
    ),
    (LADDER, {"details__test_size": 3}, "details.test_size is a whole number (3): expected greater than or equal to 4"),
    ("04_qm9", {"details__both_schedules": ["edm"]}, "both_schedules: 'edm' is not among the methods"),
    ("04_qm9", {"details__train_size": 999_999}, "QM9: train_size is 999,999"),
    ("04_qm9", {"details__train_size": 9_999}, "molecules of that split have at most 11 atoms"),
    (FIXED, {"details__streets__gird": {}}, "unknown parameter 'details.streets.gird' (did you mean 'grid'?)"),
    (FIXED, {"source__molecules": "mebedded"}, "(did you mean 'embedded'?)"),
    (SWEEP, {"details__widths": [0.0]}, "details.widths[0] is a number with a point (0.0)"),
    (SWEEP, {"details__sweep_seeds": [7]}, "sweep_seeds: [7] must be among seeds, too"),
    (SWEEP, {"all_methods": ["unit_scal", "famo"]}, "all_methods: a method that reads the gradients on the parameters"),
    (WAYS, {"details__taken_from": "graddrop"}, "taken_from: 'graddrop' is not among the methods"),
    (
        WAYS,
        {"methods": ["unit_scal", "cagrad", "pcgrad"], "details__taken_from": "pcgrad"},
        "taken_from: 'pcgrad' has no weights of its own",
    ),
    ("02b_cosine", {"methods": ["unit_scal", "edm"]}, "methods must have imtl, of which this notebook speaks"),
    (SWEEP, {"details__ratios__multimnist/CL_RR__highest": 5.0}, "in 3 points, and none is 1, the uniform loss"),
    (WAYS, {"details__kurin": [[0.3, 0.0]]}, "kurin: [0.0, 0.0]"),
    (WAYS, {"details__kurin": [[0.0, 0.0], [1.0, 0.0]]}, "kurin: dropout = 1.0"),
    (WAYS, {"details__lr_methods": ["unit_scal", "si"]}, "lr_methods: si must be among the methods"),
    (FIXED, {"details__sources__qm9": "edm"}, "sources.qm9: 'edm' is not among the methods"),
    (WAYS, {"details__population__exploit_interval": 2}, "exploit_interval = 2 is all of base.epochs"),
    (OPTIMIZERS, {"details__optimizers": ["adam", "sdg"]}, "there are no step sizes for sdg"),
    (OPTIMIZERS, {"details__optimizers": ["sgd"]}, "lacks 'adam'"),
    (OPTIMIZERS, {"details__uniform_under": ["moun"]}, "there are no step sizes for moun"),
    (OPTIMIZERS, {"details__uniform_under": ["sgd"]}, "sgd is among details.optimizers already"),
    (OPTIMIZERS, {"details__arms": [["unit_scal", "adma"]]}, "there are no step sizes for adma"),
    (
        OPTIMIZERS,
        {"details__rates": {"adam": [0.001], "sgd": [0.1], "adm": [0.1]}, "details__optimizers": ["adam", "adm"]},
        "'adm' (did you mean 'adam'?)",
    ),
    (OPTIMIZERS, {"details__steps": 1}, "details.steps is a whole number (1): expected greater than or equal to 2"),
    (OPTIMIZERS, {"details__factors": [0.01, 10.0]}, "1.0, the loss as it is, must be there"),
    (OPTIMIZERS, {"details__transfer_methods": ["unit_scal", "edm"]}, "edm must be among the methods"),
    (OPTIMIZERS, {"details__look_problems": ["multimnist/CL_RL"]}, "CL_RL"),
    (IMBALANCE, {"methods": ["unit_scal", "cagrad"]}, "methods must have imgrad and nash_mtl, of which this notebook"),
    (
        IMBALANCE,
        {"details__problems": ["cityscapes/inst_seg"]},
        "lacks 'multimnist/CL_RR', on which gates are compared",
    ),
    (IMBALANCE, {"details__look_problems": ["qm9"]}, "there are no settings for qm9"),
    (IMBALANCE, {"details__problems": ["multimnist/CL_RR", "multimnist/CL_RL"]}, "CL_RL"),
    (IMBALANCE, {"details__page_rate": 0.2}, "details.page_rate = 0.2 must be among grid_rates"),
    (IMBALANCE, {"details__grid_weights": [0.5]}, "details.grid_weights: 0.9 must be there"),
    (IMBALANCE, {"details__duties": [0.3]}, "details.duties: 0.7 must be there"),
    (IMBALANCE, {"details__num_tasks": [11]}, "details.num_tasks: 2 must be there"),
    (IMBALANCE, {"details__radii": [1.0]}, "details.radii[0] is a number with a point (1.0)"),
    (IMBALANCE, {"details__inner": "cagard"}, "(did you mean 'cagrad'?)"),
    ("06_proofs", {"details__sizes": [3, 4]}, "details.sizes = [3, 4]: a number above 4 is needed"),
    (
        "06_proofs",
        {"details__sizes": [2]},
        "details.sizes[0] is a whole number (2): expected greater than or equal to 3",
    ),
    ("00_start_here", {"details__resolution": 1}, "expected greater than or equal to 2"),
    ("07_optimizers", {"details__test_size": 3}, "expected greater than or equal to 4"),  # the fourth is shown
    ("07_optimizers", {"details__preferences": [[0.9, 0.2], [0.1, 0.9]]}, "the weights of each must have the sum 1"),
    ("07_optimizers", {"details__preferences": [[0.9, 0.1], [0.8, 0.2]]}, "each must prefer another task"),
]


def test_what_makes_no_sense_is_refused_with_its_place_before_anything_is_read():
    said = [(refusal(notebook, **changed), says) for notebook, changed, says in REFUSED]
    assert [pair for pair in said if pair[1] not in pair[0]] == []


def test_all_that_is_wrong_is_said_at_once():
    said = refusal(DIGITS, seeds=[1, 1], source="Full", store=...)
    assert all(word in said for word in ("seeds names 1 twice", "did you mean 'full'?", "missing: store"))


def test_a_preset_is_whole_and_of_details_by_hand_the_rest_is_as_in_the_preset(begun, capsys):
    """`papermill -y "details: {epochs: 7}"`; what belongs to another table or is misspelt is named with its place."""
    lacks = {"details__problem_options__slim": ...}
    said = parameters.problems_of(LADDER, preset(LADDER, **lacks))
    assert said == ["missing: details.problem_options.slim"]
    whole = preset(FIXED)
    names = whole | {"details": "{digits: {epochs: 3}, sources: {}}", "source": {"digits": "embedded"}}
    assert "details.sources lacks multimnist/CL_RR" in refusal(
        FIXED, **{name: names[name] for name in ("details", "source")}
    )
    names["details"] = {"digits": {"epochs": 3}}
    parameters.check(FIXED, names)
    whole["details"]["digits"]["epochs"] = 3
    assert {name: names[name] for name in whole} == whole
    [(_, given, of_preset)] = begun
    assert execution.changed(given, of_preset) == {"details.digits.epochs": 3}
    assert "What is not given of details and source is as in the preset smoke." in capsys.readouterr().out
    where = "unknown parameter 'epochs' (it belongs to details: write details: {epochs: …})"
    assert where in parameters.problems_of(DIGITS, preset(DIGITS) | {"epochs": 3})[0]
    assert where in refusal(DIGITS, In=["# Parameters\nepochs = 3\n"])


def test_a_number_that_yaml_reads_as_another_one_is_noticed(tmp_path):
    """Base 8 and base 60 of YAML 1.1; a name given twice, at any depth."""
    file = tmp_path / "preset.yaml"
    says = {"size: 02000": "02000 is 1024", "size: 17:04": "17:04 is 1024", "a: {b: 1, b: 2}": "given twice: b"}
    for text, expected in says.items():
        file.write_text(f"preset: smoke\n{text}\n")
        with pytest.raises(BadParameters, match=f"preset.yaml: line 2: {expected}"):
            parameters.preset_values(file)
    assert checking.read_yaml("[0, 10, 0.5, -3, 1_000]") == [0, 10, 0.5, -3, 1000]


def test_data_are_needed_where_a_planned_run_is_not_stored(tmp_path, monkeypatch):
    """The paper's digits are not shipped; some of their records are, and reading them needs no digits."""
    values = parameters.preset_values(PARAMS / "overnight" / f"{DIGITS}.yaml")
    values |= {"data_dir": str(tmp_path), "seeds": [2, 1]}
    assert parameters.problems_of(DIGITS, values) == []
    for change in (
        {"store": str(tmp_path)},
        {"seeds": [1, 77]},
        {"details": values["details"] | {"epochs": 90}},
        {"details": values["details"] | {"train_size": 49_999}},
    ):
        [said] = parameters.problems_of(DIGITS, values | change)
        assert said.startswith(f"MNIST: {tmp_path}/MNIST/raw/train-images-idx3-ubyte does not exist")
        assert [what for what, _ in parameters.lacking(DIGITS, values | change)] == [f"digits in {tmp_path}"]
    monkeypatch.setattr(RunStore, "get", lambda store, config: config)  # all that anybody asks for
    asks = {DIGITS: set(), "02_two_similar_tasks": set(), "02b_cosine": set(), WAYS: {"digits"}, SWEEP: {"digits"}}
    for notebook, lacks in (
        asks | {LADDER: {"streets"}, FIXED: {"digits", "streets"}}
    ).items():  # torch-geometric fetches
        values = parameters.preset_values(PARAMS / "paper" / f"{notebook}.yaml")
        folder = values["data_dir"]
        values["data_dir"] = dict.fromkeys(folder, str(tmp_path)) if isinstance(folder, dict) else str(tmp_path)
        assert {what.split()[0] for what, _ in parameters.lacking(notebook, values)} == lacks


def test_a_parameter_that_papermill_injects_and_nobody_has_is_refused():
    """papermill itself only warns."""
    names = {**preset(DIGITS), "In": ["", "preset = 'quick'", "# Parameters\nsedes = [1]\nsource = 'embedded'\n"]}
    with pytest.raises(BadParameters, match=r"unknown parameter 'sedes' \(did you mean 'seeds'\?\)"):
        parameters.check(DIGITS, names)


def test_workers_that_are_none_are_refused(monkeypatch):
    for text in ("two", "-1", "1.5", "१"):
        monkeypatch.setenv("MTL_WORKERS", text)
        with pytest.raises(BadConfig, match="MTL_WORKERS"):
            runner.workers_wanted()
        assert "MTL_WORKERS" in refusal(DIGITS)
    monkeypatch.setenv("MTL_WORKERS", " 3 ")
    assert runner.workers_wanted() == 3


def test_a_kernel_of_another_environment_is_named(tmp_path, monkeypatch, capsys):
    """But not .venv's, nor that of an environment that was active when make installed into it."""
    (tmp_path / ".venv").mkdir()
    (tmp_path / "theirs").mkdir()
    monkeypatch.setattr(parameters, "REPOSITORY", tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "theirs"))
    parameters.check("06_proofs", preset("06_proofs"))
    assert f"This kernel is {sys.executable}" in capsys.readouterr().out
    (tmp_path / "theirs/mtl_core.ready").touch()
    parameters.check("06_proofs", preset("06_proofs"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    parameters.check("06_proofs", preset("06_proofs"))
    assert capsys.readouterr().out == ""


def test_nothing_is_trained_that_cannot_be_read_back():
    """Copies are checked like originals, and so are seeds and reserved options."""
    config = RunConfig.of(problem="multimnist/CL_RR", seed=1, epochs=1, lr=0.001)
    assert config.model_copy(update={"seed": 2}).seed == 2
    for change in ({"seed": -1}, {"seed": 2**64}, {"lr": math.inf}, {"smto": "edm", "options": {"num_tasks": 3}}):
        with pytest.raises(BadConfig):
            config.model_copy(update=change)
        with pytest.raises(BadConfig):
            RunConfig.of(**{**config.model_dump(), **change})


def test_papermill_shows_the_type_of_every_parameter():
    """That of the schema, and the notebook's own values fit it; the first cell of code checks them."""
    for path in notebooks.find(NOTEBOOKS):
        shown = papermill.inspect_notebook(str(path))
        fields = parameters.SCHEMAS[path.stem].model_fields
        assert set(shown) == set(fields)
        for name, parameter in shown.items():
            given = ast.literal_eval(parameter["default"])
            assert parameter["inferred_type_name"].split("[")[0] == type(given).__name__, (path.stem, name)
        cells = [c.source for c in notebooks.read(path).cells if c.cell_type == "code" and c.id != links.SETUP]
        assert "parameters.check(" in cells[1] and "parameters.check(" not in "".join(cells[2:])


def test_an_unknown_preset_has_no_settings():
    with pytest.raises(BadParameters, match=r"no preset 'quik' \(did you mean 'quick'\?\). Presets are the folders of"):
        parameters.settings_of("quik", "qm9")
