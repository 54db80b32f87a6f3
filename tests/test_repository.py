"""Facts about the repository: what is written where, once, and that its parts fit each other."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from mtl_core import notebooks
from mtl_core.artifacts import REPOSITORY

MADE = {"artifacts", "runs", "__pycache__", "mtl_core.egg-info"}  # folders that commands make
NOTEBOOKS = notebooks.find(REPOSITORY / "notebooks")
PRESETS = ("smoke", "quick", "paper")
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
EXTRA = PYPROJECT["project"]["optional-dependencies"]
PINS = [*PYPROJECT["project"]["dependencies"], *EXTRA["dev"]]


def ours(*suffixes: str) -> list[Path]:
    """The files of the repository; only those with these suffixes if any are given."""
    found = []
    for path in sorted(REPOSITORY.rglob("*")):
        *folders, _ = path.relative_to(REPOSITORY).parts
        hidden = any(folder.startswith(".") and folder != ".ci" for folder in folders)  # .git, .venv, caches
        if path.is_file() and not hidden and not MADE & set(folders) and (not suffixes or path.suffix in suffixes):
            found.append(path)
    return found


def name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


# -- notebooks and presets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_is_committed_without_outputs(path):
    assert not notebooks.has_outputs(notebooks.read(path))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_opens_with_its_title_and_any_python_kernel(path):
    notebook = notebooks.read(path)
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_is_tagged_with_known_tags_only(path):
    """A solution that is tagged "solutions" would stand in the student copy."""
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


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_preset_fits_its_notebook(path, preset):
    """The same names in the same order, with values of the same types: the diff of two presets is what differs."""
    defaults = notebooks.parameters(path)
    values = notebooks.preset_values(REPOSITORY / "params" / preset / f"{path.stem}.yaml")
    assert notebooks.misfits(values, defaults) == []
    assert list(values) == list(defaults)
    assert values["preset"] == preset


def test_every_preset_belongs_to_a_notebook():
    of_presets = {(path.parent.name, path.stem) for path in (REPOSITORY / "params").glob("*/*")}
    assert of_presets == {(preset, path.stem) for preset in PRESETS for path in NOTEBOOKS}


# -- one source of versions --------------------------------------------------------------------------------------------


def test_this_environment_is_the_pinned_one():
    pinned = dict(re.fullmatch(r"([\w-]+)==([\w.]+)", pin).groups() for pin in PINS)
    assert {package: importlib.metadata.version(package) for package in pinned} == pinned


def test_environment_yml_has_no_versions_of_its_own():
    """conda brings a Python that pyproject.toml allows; pip takes the rest from there."""
    python, pip, packages = yaml.safe_load((REPOSITORY / "environment.yml").read_text())["dependencies"]
    assert (pip, packages) == ("pip", {"pip": ["-e .[dev]"]})
    lowest = re.match(r">=([\d.]+)", PYPROJECT["project"]["requires-python"])[1]
    assert python == f"python={lowest}"


def test_every_package_that_is_imported_is_pinned():
    pinned = {re.split("==", pin)[0].lower().replace("_", "-") for pin in PINS}
    package_of = importlib.metadata.packages_distributions()
    sources = {path: path.read_text(encoding="utf-8") for path in ours(".py")}
    for path in NOTEBOOKS:
        code = "\n".join(cell.source for cell in notebooks.read(path).cells if cell.cell_type == "code")
        sources[path] = re.sub(r"^\s*[%!].*$", "", code, flags=re.MULTILINE)
    missing = {}
    for path, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            for top in {module.split(".")[0] for module in modules} - sys.stdlib_module_names - {"mtl_core", "tests"}:
                packages = {package.lower().replace("_", "-") for package in package_of.get(top, [top])}
                if not packages & pinned:
                    missing[top] = name(path)
    assert missing == {}


# -- style -------------------------------------------------------------------------------------------------------------


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


def layers() -> dict[str, set[str]]:
    """Every module of mtl_core with the modules of mtl_core that it imports."""
    imports = {}
    for path in sorted((REPOSITORY / "mtl_core").rglob("*.py")):
        found = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mtl_core"):
                found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names if alias.name.startswith("mtl_core")}
        imports[".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")] = found
    return imports


@pytest.mark.parametrize(
    ("room", "closed"),
    [
        (
            "smtos",
            ("models", "datasets", "problems", "tasks", "training", "runs", "sweeps", "claims", "plots", "paper"),
        ),
        ("datasets", ("smtos", "models", "training", "runs", "sweeps", "claims", "plots")),
        ("models", ("smtos", "datasets", "training", "runs", "sweeps", "claims", "plots")),
        ("training", ("sweeps", "claims", "plots", "reproduce")),
        ("sweeps", ("population", "claims", "plots", "reproduce")),
        ("population", ("claims", "plots", "reproduce")),
        ("plots", ("training", "reproduce")),
    ],
)
def test_imports_run_downwards(room, closed):
    """A method never imports a dataset, a dataset never a method, and nothing what stands above it."""
    wrong = {
        module: sorted(i for i in imports if i.startswith(tuple(f"mtl_core.{other}" for other in closed)))
        for module, imports in layers().items()
        if module.startswith(f"mtl_core.{room}")
    }
    assert {module: found for module, found in wrong.items() if found} == {}
