"""Facts about the repository: what is written where, once, and that its parts fit each other."""

import ast
import graphlib
import importlib.metadata
import io
import json
import os
import re
import subprocess
import sys
import tokenize
import tomllib
import urllib.request
from pathlib import Path

import pytest
import yaml
from packaging.version import Version

from mtl_study import artifacts, parameters, words
from mtl_study.artifacts import REPOSITORY
from mtl_study.parameters import schemas
from mtl_study.publishing import doctor, house, notebooks
from tests import conftest

CONFTEST = REPOSITORY / "tests" / "conftest.py"
MADE = {"artifacts", "runs", "__pycache__", "mtl_core.egg-info"}  # folders that commands make
NOTEBOOKS = notebooks.find(REPOSITORY / "notebooks")
PRESETS = ("smoke", "quick", "overnight", "paper")
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
EXTRA = PYPROJECT["project"]["optional-dependencies"]
BOUNDS = [bound for bounds in (PYPROJECT["project"]["dependencies"], *EXTRA.values()) for bound in bounds]
PINS = dict(re.findall(r"^([\w-]+)==(\S+)$", (REPOSITORY / "constraints.txt").read_text(), flags=re.MULTILINE))
OURS = {"mtl_core", "mtl_study", "benchmarks", "tests"}


def ours(*suffixes: str) -> list[Path]:
    """The files of the repository; only those with these suffixes if any are given."""
    found: list[Path] = []
    for folder, below, files in os.walk(REPOSITORY):
        below[:] = [name for name in below if name not in MADE and (name[0] != "." or name == ".ci")]
        found += [Path(folder, name) for name in files]
    return sorted(path for path in found if path.is_file() and (not suffixes or path.suffix in suffixes))


def name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


# -- notebooks and presets ---------------------------------------------------------------------------------------------


def test_notebooks_are_committed_without_outputs():
    """As nbstripout leaves them, which the hook before a commit calls."""
    command = [sys.executable, "-m", "nbstripout", "--keep-id", "--verify", *map(str, NOTEBOOKS)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_copies_of_notebooks_are_passed_over(tmp_path):
    for copy in ("01_b.ipynb", "01_b-Copy1.ipynb", "01_b (conflicted copy).ipynb", ".01_c.ipynb", "notes.ipynb"):
        (tmp_path / copy).touch()
    assert notebooks.find(tmp_path) == [tmp_path / "01_b.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_opens_with_its_title_and_any_python_kernel(path):
    notebook = notebooks.read(path)
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_is_tagged_with_known_tags_only(path):
    """A solution that is tagged "solutions" would be left in the student copy."""
    tags = {tag for cell in notebooks.read(path).cells for tag in cell.metadata.get("tags", [])}
    assert tags <= {"parameters", "remark", "solution"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_what_a_cell_says_is_shown(path):
    """Only the last expression of a cell is displayed: a remark inside an if, or before the end, would be lost."""
    for cell in notebooks.read(path).cells:
        if cell.cell_type == "code":
            body = ast.parse(cell.source).body
            said = [n for n in ast.walk(ast.Module(body, [])) if isinstance(n, ast.Expr) and _calls(n, "say")]
            assert said in ([], body[-1:]), cell.id


def _calls(node, function):
    return isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == function


STORES = {"smoke": "runs/smoke", "quick": "results", "overnight": "results", "paper": "runs/paper"}  # shipped: results


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_preset_fits_its_notebook(path, preset):
    """The same names in the same order, with values of the same types: the diff of two presets is what differs."""
    defaults = notebooks.parameters(path)
    values = parameters.preset_values(REPOSITORY / "params" / preset / f"{path.stem}.yaml")
    assert parameters.misfits(path.stem, values) == parameters.misfits(path.stem, defaults) == []
    assert list(values) == [name for name in schemas.TURNED if name in values] + ["details"]
    assert list(values) == list(defaults) and list(values["details"]) == list(defaults["details"])
    assert values["preset"] == preset
    assert values.get("store") in (None, STORES[preset])


def test_what_ships_is_one_preset_of_each_notebook_and_the_report_has_it():
    """Of presets that rest on shipped records; the report's verdicts are of these."""
    named = parameters.preset_values(REPOSITORY / "params/shipped.yaml")
    assert list(named) == [path.stem for path in NOTEBOOKS] and set(named.values()) <= {"quick", "overnight"}
    files = {path.stem: parameters.file_of(parameters.SHIPPED, path.stem) for path in NOTEBOOKS}
    assert {stem: path.parent.name for stem, path in files.items()} == named and all(map(Path.is_file, files.values()))
    long = [artifacts.number_of(stem) for stem, preset in named.items() if preset == "overnight"]
    readme = " ".join((REPOSITORY / "README.md").read_text().split())
    assert f"published page: {words.listed(long)} at overnight, the others at quick" in readme
    preset = named["01_mnist_selection"]
    assert f"*Preset {preset}: boxes over the seeds" in readme and f"As far as the {preset} preset can tell:" in readme
    rows = json.loads((REPOSITORY / "docs/report/claims.json").read_text())
    presets = {row["id"]: row["preset"] for row in rows}
    for path in NOTEBOOKS:
        of = notebooks.judged(notebooks.read(path))
        assert {presets[id_] for id_ in of} <= {named[path.stem]}, path.stem


def test_a_notebook_that_is_shipped_nowhere_is_named(tmp_path):
    for folder in ("quick", "overnight"):
        (tmp_path / folder).mkdir()
    (tmp_path / "shipped.yaml").write_text("01_one: overnight\n02_two: nightly\n")
    assert parameters.file_of("shipped", "01_one", tmp_path) == tmp_path / "overnight/01_one.yaml"
    for stem, says in (("02_two", "no preset 'nightly'"), ("03_three", "does not say at which preset 03_three ships")):
        with pytest.raises(parameters.BadParameters, match=says):
            parameters.file_of("shipped", stem, tmp_path)


def test_every_preset_belongs_to_a_notebook():
    of_presets = {(path.parent.name, path.stem) for path in (REPOSITORY / "params").glob("*/*")}
    assert of_presets == {(preset, path.stem) for preset in PRESETS for path in NOTEBOOKS}


# -- one source of versions --------------------------------------------------------------------------------------------


def plain(package: str) -> str:
    """A package's name as an index compares it."""
    return package.lower().replace("_", "-")


@pytest.mark.skipif(not (Path(sys.prefix) / "mtl_core.ready").exists(), reason="not installed by make")
def test_this_environment_is_the_pinned_one():
    assert {package: Version(importlib.metadata.version(package)).public for package in PINS} == PINS


def test_a_package_built_elsewhere_is_still_the_pinned_one(monkeypatch):
    """torch 2.14.1+cpu is torch 2.14.1, for tests marked `pinned` and for `make doctor`."""
    pins = (REPOSITORY / "constraints.txt").read_text()
    for local, other in (("+cpu", False), (".post1", True)):
        found = {"torch": PINS["torch"] + local}
        monkeypatch.setattr(importlib.metadata, "version", (PINS | found).get)
        assert bool(conftest.unpinned(pins)) == other
        (line,) = (line for line in doctor.machine(REPOSITORY) if line.what == "packages")
        assert ("other versions: torch" in line.says) == other


def test_whoever_installs_us_gets_lower_bounds():
    """The core asks for four packages; nothing is pinned, and nothing caps Python."""
    assert sorted(re.split(">=", bound)[0] for bound in PYPROJECT["project"]["dependencies"]) == [
        "numpy", "pydantic", "scipy", "torch",
    ]  # fmt: skip
    assert [bound for bound in BOUNDS if not re.fullmatch(r"mtl_core\[\w+\]|[\w-]+>=[\d.]+", bound)] == []
    assert PYPROJECT["project"]["requires-python"] == ">=3.11"


def test_every_bound_has_a_pin_that_keeps_it():
    bounds = dict(bound.split(">=") for bound in BOUNDS if ">=" in bound)
    assert {plain(package) for package in bounds} == {plain(package) for package in PINS}
    below = {p: PINS[p] for p, bound in bounds.items() if Version(PINS[p]) < Version(bound)}
    assert below == {}


def test_the_locked_list_has_the_pins_and_a_hash_of_every_file():
    """All that pyproject.toml asks for, in the versions of constraints.txt, and what these packages need."""
    text = (REPOSITORY / "constraints.lock").read_text()
    command = re.search(r"^#    (uv pip compile .*)$", text, flags=re.MULTILINE)[1]
    entries = re.findall(r"^([\w.-]+)==(\S+)(.*\n(?:    .*\n)*)", text, flags=re.MULTILINE)
    locked = {plain(package): version for package, version, _ in entries}
    assert {package: locked.get(plain(package)) for package in PINS} == PINS, f"{command}   # makes the list again"
    asked = {plain(package) for package, _, rest in entries if "mtl-core" in rest.split("# via")[1]}
    assert asked == {plain(package) for package in PINS}, f"{command}   # makes the list again"
    assert [package for package, _, rest in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", rest)] == []


def test_the_light_install_is_a_part_of_the_whole():
    """At the same bounds, but for what Colab's kernel is made of; without molecules and solvers. Binder and the dev
    container take it from one file."""
    light = {name.split(">=")[0] for name in EXTRA["light"]}
    assert set(EXTRA["light"]) - {*EXTRA["data"], *EXTRA["study"]} == {"ipykernel>=6.17", "ipython>=7.34"}
    assert not light & {"rdkit", "qm9pack", "torch-geometric", "cvxpy", "ecos", "jupyterlab", "papermill"}
    lines = (REPOSITORY / ".binder" / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "--extra-index-url https://download.pytorch.org/whl/cpu", "-c ../constraints.txt", "-e .[light]",
    ]  # fmt: skip
    container = json.loads((REPOSITORY / ".devcontainer" / "devcontainer.json").read_text())
    assert container["postCreateCommand"].endswith("-m pip install -r .binder/requirements.txt")
    python = re.match(r">=([\d.]+)", PYPROJECT["project"]["requires-python"])[1]
    assert container["image"].endswith(f":{python}")
    assert (REPOSITORY / ".binder" / "runtime.txt").read_text() == f"python-{python}\n"


def test_environment_yml_has_no_versions_of_its_own():
    """conda brings a Python that pyproject.toml allows; pip takes the rest under the constraints."""
    python, pip, packages = yaml.safe_load((REPOSITORY / "environment.yml").read_text())["dependencies"]
    assert (pip, packages) == ("pip", {"pip": ["-c constraints.txt", "-e .[dev]"]})
    lowest = re.match(r">=([\d.]+)", PYPROJECT["project"]["requires-python"])[1]
    assert python == f"python={lowest}"


def top_level(source: str) -> set[str]:
    """The top-level modules of what a source imports."""
    modules: list[str] = []
    for node in ast.walk(ast.parse(source)):
        modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
    return {module.split(".")[0] for module in modules}


def test_every_package_that_is_imported_is_asked_for():
    """mtl_core by its own needs and [data]; the study, the benchmarks and the notebooks by [study], Dask by [cluster];
    tests by [dev]."""
    package_of = importlib.metadata.packages_distributions()
    core = PYPROJECT["project"]["dependencies"]
    data = [*core, *EXTRA["data"]]
    study = [*data, *EXTRA["study"]]
    allowed = {"mtl_core/smtos": core, "mtl_core/step.py": core, "mtl_core/tasks.py": core, "mtl_core": data,
               "mtl_study/experiments/engines.py": [*study, *EXTRA["cluster"]],
               "mtl_study": study, "notebooks": study, "benchmarks": [*study, *EXTRA["dev"]],
               "tests": [*study, *EXTRA["dev"]]}  # fmt: skip
    sources = {name(path): path.read_text(encoding="utf-8") for path in ours(".py")}
    for path in NOTEBOOKS:
        code = "\n".join(cell.source for cell in notebooks.read(path).cells if cell.cell_type == "code")
        sources[name(path)] = re.sub(r"^\s*[%!].*$", "", code, flags=re.MULTILINE)
    missing = {}
    for path, source in sources.items():
        place = next(place for place in allowed if path.startswith(place))
        known = {plain(re.split(">=", bound)[0]) for bound in allowed[place]}
        for top in top_level(source) - sys.stdlib_module_names - OURS:
            if top == "cvxpy" and path == "mtl_core/smtos/nash_mtl.py":
                continue  # its released solver: asked for by name, refused with a reason where it is not there
            if not {plain(package) for package in package_of.get(top, [top])} & known:
                missing[top] = path
    assert missing == {}


# -- what other machines read ------------------------------------------------------------------------------------------

WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
FORMS = REPOSITORY / ".github" / "ISSUE_TEMPLATE"


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", WORKFLOWS),
        ("custom.github-workflows-require-timeout", WORKFLOWS),
        ("vendor.github-issue-forms", [FORMS / "method.yml", FORMS / "wrong.yml"]),
        ("vendor.github-issue-config", [FORMS / "config.yml"]),
        ("vendor.citation-file-format", [REPOSITORY / "CITATION.cff"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_fits_its_schema(schema, files):
    command = [sys.executable, "-m", "check_jsonschema", "--force-filetype", "yaml", "--builtin-schema", schema]
    done = subprocess.run([*command, *map(str, files)], capture_output=True, text=True)
    assert files and done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow  # asks the network
def test_the_dev_container_fits_its_schema():
    schema = "https://raw.githubusercontent.com/devcontainers/spec/main/schemas/devContainer.base.schema.json"
    file = REPOSITORY / ".devcontainer" / "devcontainer.json"
    try:
        urllib.request.urlopen(schema, timeout=20).close()
    except OSError as error:
        pytest.skip(f"not run: the schema cannot be had ({error})")
    command = [sys.executable, "-m", "check_jsonschema", "--schemafile", schema, str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_workflow_calls_what_make_has():
    """Commands, with the variables that the Makefile reads; tests on both Pythons; only main is published."""
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)[1].split()
    read = set(re.findall(r"\$\((?:if |or |origin )?([A-Z]+)\b", makefile))
    jobs = yaml.safe_load(WORKFLOWS[0].read_text())["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    called = [step["run"].split()[1:] for step in steps if step.get("run", "").startswith("make ")]
    given = {value.split("=")[0] for _, *values in called for value in values if "=" in value}
    assert {command for command, *_ in called} == {"lint", "test", "doctor", "reproduce", "site"} <= set(targets)
    assert given | {"TORCH"} <= read and given >= {"PRESET", "CHECK", "BASE"}
    assert jobs["tests"]["strategy"]["matrix"]["python"] == ["3.11", "3.12"]
    assert jobs["publish"]["needs"] == "notebooks" and "event_name == 'push'" in jobs["publish"]["if"]
    assert jobs["notebooks"]["if"] == "github.event_name != 'push' || github.ref == 'refs/heads/main'"


# -- style -------------------------------------------------------------------------------------------------------------


@pytest.mark.pinned  # other versions of ruff have other rules
@pytest.mark.parametrize("check", [["check"], ["format", "--check"]], ids=" ".join)
def test_the_code_is_as_ruff_wants_it(check):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *check, "-q", "--output-format", "concise", "."],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_no_file_names_a_place_outside_the_repository():
    """An absolute path of somebody's machine works there and nowhere else."""
    places = re.compile("|".join((r"/wo" "rk/", r"(?<!\w)sha" "red/", r"/ho" "me/", r"/Us" "ers/", r"/ro" "ot/")))
    found = {}
    for path in ours():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if match := places.search(text):
            found[name(path)] = match[0]
    assert found == {}


# -- who may import what -----------------------------------------------------------------------------------------------

IMPORTS = house.imports()


def test_what_is_read_is_in_plain_words():
    """Four words of a translation; the few that are left are quoted, or keys of a configuration."""
    avoided = re.compile(r"\b(?:anew|lies|stands|beside)\b", re.IGNORECASE)
    read = [path for path in ours(".py", ".ipynb", ".md", ".yaml") if path.name not in ("CHANGELOG.md", "REPORT.md")]
    assert sum(len(avoided.findall(path.read_text(encoding="utf-8"))) for path in read) <= 60


AMERICAN = re.compile(
    r"\b(?:(?:neighbor|behavior|favor|color|gray)(?:s|ed|ing|hood)?|(?:label|model|travel|cancel)(?:ed|ing)|cent(?:er|ered)"
    r"|(?:normaliz|regulariz|optimiz(?!er)|minimiz|maximiz|initializ|generaliz|parametriz|penaliz|standardiz)\w*"
    r"|learned|catalogs?)\b|\boptimisers?\b",
    re.IGNORECASE,
)


def prose(path: Path) -> str:
    """What a file says to a reader: docstrings and comments of a module, text of a notebook; no code, quotes, links."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        nodes = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Module | ast.FunctionDef | ast.ClassDef)]
        said = [ast.get_docstring(node) or "" for node in nodes]
        said += [t.string for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type == tokenize.COMMENT]
        text = "\n".join(said)
    elif path.suffix == ".ipynb":
        text = "\n".join(cell.source for cell in notebooks.read(path).cells if cell.cell_type == "markdown")
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return re.sub(
        r"`[^`]*`|\"[^\"]*\"|\$[^$]*\$|\*Uniform Loss[^*]*\*|\(http[^)]*\)|^\s*\w+:|fmt: \w+", "", text, flags=re.M
    )


def test_what_is_read_is_in_british_english():
    """As most of it was: colour, normalise, learnt; "optimizer" is the field's word, and titles and code are quoted."""
    read = [path for path in ours(".py", ".ipynb", ".md") if path.name not in ("CHANGELOG.md", "REPORT.md")]
    found = {name(path): sorted({*AMERICAN.findall(prose(path))}) for path in read}
    assert {path: words for path, words in found.items() if words} == {}


def test_every_module_imports_from_its_own_floor_or_from_below():
    """publishing → figures, lessons → verdicts → protocol → analysis, the paper's numbers → training → mtl_core."""
    upward = {(a, b) for a, others in IMPORTS.items() for b in others if house.floor(b) < house.floor(a)}
    assert upward == set()
    floors = {name: [m for m in IMPORTS if house.floor(m) == i] for i, name in enumerate(house.FLOORS)}
    assert all(floors.values()) and sum(map(len, floors.values())) == len(IMPORTS)


def test_the_core_knows_nothing_of_the_study():
    assert {(a, b) for a, others in IMPORTS.items() for b in others if a[:8] == "mtl_core" != b[:8]} == set()


def test_the_tests_of_the_core_know_nothing_of_the_study():
    """Whoever takes the core along takes tests/mtl_core, too."""
    sources = {name(path): path.read_text() for path in (*(REPOSITORY / "tests/mtl_core").rglob("*.py"), CONFTEST)}
    assert "tests/mtl_core/test_step.py" in sources
    assert [path for path, source in sources.items() if "mtl_study" in top_level(source)] == []


def test_the_tests_mirror_the_packages():
    """A folder of tests is named like the room that it tests."""
    for package in ("mtl_core", "mtl_study"):
        for path in (REPOSITORY / "tests" / package).rglob("test_*.py"):
            room = path.parent.relative_to(REPOSITORY / "tests")
            assert (REPOSITORY / room / "__init__.py").is_file(), path


def test_a_name_stands_for_one_class():
    """Networks and their private helpers apart: an encoder is called Encoder in every model's file."""
    named: dict[str, list[str]] = {}
    for path in ours(".py"):
        where = path.relative_to(REPOSITORY)
        if where.parts[0] in ("mtl_core", "mtl_study", "benchmarks") and where.parts[:2] != ("mtl_core", "models"):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef):
                    named.setdefault(node.name, []).append(str(where))
    assert {name: places for name, places in named.items() if len(places) > 1} == {}


def test_no_modules_import_each_other_in_a_circle():
    list(graphlib.TopologicalSorter(IMPORTS).static_order())  # raises CycleError


def test_samples_networks_and_methods_do_not_know_each_other():
    """A method never imports a dataset or a network, a dataset never a method."""
    rooms = ("mtl_core.datasets", "mtl_core.models", "mtl_core.smtos")
    of = {module: next((room for room in rooms if module.startswith(room)), None) for module in IMPORTS}
    assert {(a, b) for a, others in IMPORTS.items() for b in others if of[a] and of[b] and of[a] != of[b]} == set()


def test_the_walls_are_seen(tmp_path):
    """Imports of a claim by a dataset, inside a function and under another name, and by a package itself; a benchmark;
    a relative import; a module without a floor."""

    def house_with(sources):
        for path, source in {"mtl_study/paper/claims.py": "", "mtl_core/__init__.py": "", **sources}.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(source)
        return house.imports(tmp_path)

    claim = "def f():\n    from mtl_study.paper import claims as c\n"
    found = house_with({"mtl_core/datasets/new.py": claim})
    assert found == {"mtl_core.datasets.new": {"mtl_study.paper.claims"}, "mtl_study.paper.claims": set()}
    assert house.floor("mtl_study.paper.claims") < house.floor("mtl_core.datasets.new")
    assert house.floor("mtl_study.analysis.delta") < house.floor("mtl_study.experiments.runner")
    found = house_with({"mtl_core/__init__.py": "import mtl_study.paper.claims", "mtl_core/datasets/new.py": ""})
    assert found["mtl_core"] == {"mtl_study.paper.claims"}
    assert house_with({"mtl_core/step.py": "from benchmarks import speed"})["mtl_core.step"] == {
        "benchmarks", "benchmarks.speed",
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"step\.py, line 1: a relative import"):
        house_with({"mtl_core/step.py": "from . import tasks"})
    for stranger in ("mtl_study.elsewhere", "benchmarks.speed", "mtl_core"):
        with pytest.raises(KeyError, match=rf"{re.escape(stranger)} is on no floor"):
            house.floor(stranger)


def test_the_map_in_contributing_is_that_of_the_imports():
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert house.with_map(text) == text, "run .venv/bin/python -m mtl_study.publishing.house"


HEAVY = "cvxpy ecos jupyter_client matplotlib nbformat pandas papermill rdkit seaborn sympy torch_geometric torchvision"


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import mtl_core.smtos, mtl_core.step, mtl_core.tasks; mtl_core.smtos.keys()", HEAVY),
        ("import mtl_core; mtl_core.Balancer, mtl_core.diagnose", HEAVY),
        ("import mtl_study.experiments.protocol, mtl_study.experiments.training", "torchvision torch_geometric cvxpy"),
        ("import mtl_core.names, mtl_core.files", f"{HEAVY} torch numpy scipy pydantic"),
        ("from mtl_study.look import label; label('edm')", "matplotlib seaborn torch"),
    ],
    ids=["methods", "own loops", "what every notebook imports", "nearest name", "labels"],
)
def test_what_is_light_stays_light(statement, absent):
    """In a process of its own: what may not be in sys.modules after an import."""
    code = f"{statement}\nimport sys\nprint(*sorted({{m.split('.')[0] for m in sys.modules}} & set({absent.split()})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_what_ships_of_the_records_stays_below_40_megabytes():
    """Packed: a line per record. Checkpoints and single files do not ship."""
    files = [path for path in (REPOSITORY / "results").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".jsonl"}
    assert 1e6 < sum(path.stat().st_size for path in files) < 40e6


def test_the_core_stays_small():
    """What is taken along into another project stays small."""
    lines = {
        path: len(path.read_text(encoding="utf-8").splitlines()) for path in (REPOSITORY / "mtl_core").rglob("*.py")
    }
    assert sum(lines.values()) <= 8645
