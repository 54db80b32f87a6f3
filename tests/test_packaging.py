"""The wheel, taken along to an empty environment outside the checkout: the core alone, with its extras, and with the
lowest versions that pyproject.toml allows.

An environment is made once and grows: tests that need less of it come before those that need more.
"""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.version import Version

from mtl_study.artifacts import REPOSITORY

pytestmark = pytest.mark.slow

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRA = PROJECT["optional-dependencies"]
PACKAGES = ("mtl_core", "mtl_study")
CONSTRAINTS = ("--constraint", str(REPOSITORY / "constraints.txt"))


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and an empty folder in which its programs run."""

    folder: Path
    wheel: Path

    @property
    def elsewhere(self) -> Path:
        return self.folder / "elsewhere"

    def make(self) -> None:
        subprocess.run([sys.executable, "-m", "venv", self.folder], check=True)
        self.elsewhere.mkdir()

    def size(self) -> int:
        """Bytes of its files."""
        return sum(path.lstat().st_size for path in self.folder.rglob("*") if path.is_file())

    def install(self, extra: str = "", *more: str) -> None:
        """The wheel, with an extra such as "[data]"; more: further arguments of pip."""
        done = self.python("-m", "pip", "install", "--quiet", "--no-compile", f"{self.wheel}{extra}", *more)
        assert done.returncode == 0, done.stderr

    def python(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run Python, with these environment variables and none of this repository's."""
        ours = {name for name in os.environ if name.startswith(("MTL_", "PYTHON"))}
        environment = {name: value for name, value in os.environ.items() if name not in ours} | variables
        command = [str(self.folder / "bin" / "python"), *arguments]
        return subprocess.run(command, cwd=self.elsewhere, env=environment, capture_output=True, text=True)

    def call(self, function: Callable[[], None], **variables: str) -> str:
        """Run the source of a function as a program of its own; what it printed."""
        program = self.elsewhere / "program.py"
        program.write_text(f"{inspect.getsource(function)}\n\n{function.__name__}()\n")
        done = self.python(program.name, **variables)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that neither the checkout gets a build folder nor the wheel what is in one."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    for name in PACKAGES:
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = folder.iterdir()
    return built


def environment(folder: Path, wheel: Path) -> Iterator[Environment]:
    """An empty environment; its 5 GB go when the tests are done."""
    made = Environment(folder, wheel)
    made.make()
    yield made
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def empty(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    yield from environment(tmp_path_factory.mktemp("environment"), wheel)


@pytest.fixture(scope="module")
def core(empty: Environment) -> Environment:
    empty.install()
    return empty


@pytest.fixture(scope="module")
def data(core: Environment) -> Environment:
    core.install("[data]", *CONSTRAINTS)
    return core


@pytest.fixture(scope="module")
def study(data: Environment) -> Environment:
    data.install("[study]", *CONSTRAINTS)
    return data


def lower_bounds(*extras: str) -> list[str]:
    """Each package that the core and these extras name, at its lower bound; at the highest where several name it."""
    named = [*PROJECT["dependencies"], *(bound for extra in extras for bound in EXTRA[extra])]
    found: dict[str, Version] = {}
    for package, version in (bound.split(">=") for bound in named if ">=" in bound):
        found[package] = max(Version(version), found.get(package, Version("0")))
    return [f"{package}=={version}" for package, version in found.items()]


@pytest.fixture(scope="module")
def lowest(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """The core with [data], every package at its lower bound."""
    for made in environment(tmp_path_factory.mktemp("lowest"), wheel):
        made.install("[data]", *lower_bounds("data"))
        yield made


@pytest.fixture(scope="module")
def lowest_study(lowest: Environment) -> Environment:
    """All of it, every package at its lower bound."""
    lowest.install("[study]", *lower_bounds("data", "study"))
    return lowest


def for_processors(*packages: str) -> list[str]:
    """What makes pip take these packages as built for processors alone, without CUDA: at their pins, or else at the
    highest version that can be had. Skips the test where there is none."""
    index = ["--extra-index-url", "https://download.pytorch.org/whl/cpu", "--retries", "0", "--timeout", "20"]
    found = []
    for package in packages:
        pin = re.search(rf"^{package}==(\S+)$", (REPOSITORY / "constraints.txt").read_text(), flags=re.MULTILINE)[1]
        command = [sys.executable, "-m", "pip", "index", "versions", package, *index]
        known = subprocess.run(command, capture_output=True, text=True).stdout
        versions = set(re.findall(r"[\d.]+\+cpu\b", known))
        if not versions:
            pytest.skip(f"not run: {package} without CUDA cannot be had")
        best = f"{pin}+cpu" if f"{pin}+cpu" in versions else max(versions, key=Version)
        found.append(f"{package}=={best}")
    return [*found, *index]


@pytest.fixture(scope="module")
def offline(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """The core alone, from a folder of wheels, with torch for processors."""
    folder = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(folder), str(wheel)]
    done = subprocess.run([*command, *for_processors("torch")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for made in environment(tmp_path_factory.mktemp("offline"), wheel):
        from_folder = ["install", "--quiet", "--no-compile", "--no-index", "--find-links", str(folder), "mtl_core"]
        done = made.python("-m", "pip", *from_folder, PIP_CONFIG_FILE=os.devnull, PIP_FIND_LINKS="")
        assert done.returncode == 0, done.stderr
        shutil.rmtree(folder)
        yield made


@pytest.fixture(scope="module")
def light(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """What the line of .binder/requirements.txt names, at the pins, with torch as the index has it."""
    for made in environment(tmp_path_factory.mktemp("light"), wheel):
        made.install("[light]", *CONSTRAINTS)
        yield made


# -- programs of somebody else, each run as a file of its own ----------------------------------------------------------


def a_step_of_every_method() -> None:
    import torch
    from torch import nn
    from torch.nn import functional as F

    from mtl_core.smtos import build, keys
    from mtl_core.smtos.base import ProblemInfo
    from mtl_core.step import MultiTaskModel, Step

    weights = build("cagrad", num_tasks=2, c=0.5).solve([[4, 1], [1, 1]])
    assert len(weights) == 2 and min(weights) >= 0
    options = {"fixed": {"weights": [1.0, 2.0]}, "bayesagg_mtl": {"warm_up": 0}}
    for key in keys():
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5))
        model = MultiTaskModel(encoder, {"a": nn.Linear(5, 3), "b": nn.Linear(5, 4)})
        smto = build(key, 2, **options.get(key, {}))
        smto.set_up(ProblemInfo(("softmax", "gaussian"), (5,), lr=0.01, weight_decay=0.0), seed=1)
        groups = [{"params": list(model.parameters())}, *smto.parameter_groups(0.01)]
        optimizer = torch.optim.Adam(groups, lr=0.01, fused=True)
        x, targets = torch.randn(6, 1, 6, 6), [torch.randint(3, (6,)), torch.randn(6, 4)]
        before = [p.detach().clone() for p in model.parameters()]
        for epoch in range(2):
            smto.begin_epoch(epoch, torch.ones(2) if epoch else None, 0.01)
            for _ in range(3):
                step = Step(
                    model,
                    [F.cross_entropy, F.mse_loss],
                    x,
                    targets,
                    transform_features=smto.transform_features,
                    second_batch=lambda x=x, targets=targets: (x, targets),
                    replay=smto.replay,
                )
                smto.backward(step)
                optimizer.step()
                smto.after_step(step)
        after = list(model.parameters())
        assert all(bool(p.isfinite().all()) for p in after), key
        assert any(not bool(p.equal(old)) for p, old in zip(after, before, strict=True)), key
        print(key)


def a_step_on_every_kind_of_problem() -> None:
    import torch

    from mtl_core import problems, smtos
    from mtl_core.step import Step
    from mtl_study import streets  # noqa: F401  (draws the embedded scenes)

    sizes = (8, 4, 4)
    for name, options in {
        "multimnist/CL_RR": {},
        "cityscapes/inst_seg": {"width": 32, "slim": 32},
        "qm9": {"max_atoms": 9, "slim": 4},
    }.items():
        problem = problems.get(name, **options)
        problem.data.check("embedded", sizes, None)
        problem.data.prepare("embedded", sizes, None)
        split = problem.data.load("embedded", sizes, None, torch.device("cpu"), torch.float32)["train"]
        x, targets = split.batch(torch.arange(8), problem.task_names, torch.Generator().manual_seed(1))
        model = problem.build_model(0.0)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.001, fused=True)
        smto = smtos.build("imtl_g", len(problem.tasks))
        step = Step(model, [task.loss for task in problem.tasks], x, targets)
        smto.backward(step)
        optimizer.step()
        assert bool(step.losses.isfinite().all()) and all(bool(p.isfinite().all()) for p in model.parameters()), name
        print(name)


def a_run_on_every_kind_of_problem() -> None:
    import tempfile

    from mtl_study.experiments import runner
    from mtl_study.experiments.runs import RunConfig

    kinds = {
        "multimnist/CL_RR": {},
        "cityscapes/inst_seg": {"width": 32, "slim": 32},
        "qm9": {"max_atoms": 9, "slim": 4},
    }
    sizes = {"train_size": 8, "val_size": 4, "test_size": 4, "batch_size": 4}
    configs = [
        RunConfig.of(problem=name, smto="cagrad", seed=1, epochs=1, lr=0.001, problem_options=options, **sizes)
        for name, options in kinds.items()
    ]
    with tempfile.TemporaryDirectory() as store:
        runs = runner.run(configs, store, workers=1)
    print(*(f"{run.config.problem} {run.ended}" for run in runs), sep="\n")


RUNS = ["multimnist/CL_RR finished", "cityscapes/inst_seg finished", "qm9 finished"]

# -- what is true of the wheel -----------------------------------------------------------------------------------------


def test_the_wheel_holds_every_file_of_both_packages(wheel: Path) -> None:
    """Types (py.typed), numbers and claims (YAML) and the pages' templates among them; no tests, no notebooks."""
    here = [
        path.relative_to(REPOSITORY).as_posix()
        for name in PACKAGES
        for path in (REPOSITORY / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    packed = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert sorted(packed) == sorted(here)
    assert {Path(name).name for name in packed} >= {"py.typed", "claims.yaml"}
    assert any(name.endswith(".j2") for name in packed)


def test_the_core_alone_takes_steps_with_every_method(core: Environment) -> None:
    from mtl_core.smtos import keys

    extras = "import importlib.util as u; print(*filter(u.find_spec, ['torchvision', 'pandas', 'joblib', 'cvxpy']))"
    assert core.python("-c", extras).stdout.split() == []
    assert core.call(a_step_of_every_method).split() == keys()


def test_the_core_alone_says_what_its_problems_need(core: Environment) -> None:
    done = core.python("-c", "import mtl_core.problems")
    assert done.returncode == 1
    assert 'pip install "mtl_core[data]"' in done.stderr.splitlines()[-1]


def test_the_core_alone_takes_one_gigabyte_without_cuda(offline: Environment) -> None:
    """Installed without an index and, as everywhere here, without bytecode; and it works."""
    from mtl_core.smtos import keys

    assert offline.size() <= 1_000_000_000
    assert offline.call(a_step_of_every_method).split() == keys()


def test_pip_takes_the_file_of_the_light_install(tmp_path: Path) -> None:
    """As Binder and the dev container give it: its paths are found, and the checkout's extra is one."""
    for part in (".binder", "mtl_core", "mtl_study"):
        shutil.copytree(REPOSITORY / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "README.md", "LICENSE", "constraints.txt"):
        shutil.copy(REPOSITORY / part, tmp_path)
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--retries", "0"]
    done = subprocess.run(
        [*command, "-r", ".binder/requirements.txt"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 and "Would install mtl_core-" in done.stdout, done.stdout + done.stderr
    assert "does not provide the extra" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["00_start_here", "06_proofs"])
def test_with_the_light_install_a_notebook_runs(light: Environment, name: str, tmp_path: Path) -> None:
    """To its end, at its own parameters; without molecules, solvers and papermill."""
    extras = (
        "import importlib.util as u; print(*filter(u.find_spec, ['rdkit', 'torch_geometric', 'cvxpy', 'papermill']))"
    )
    assert light.python("-c", extras).stdout.split() == []
    variables = {f"MTL_{part.upper()}": str(tmp_path / part) for part in ("artifacts", "data")}
    command = ["-m", "nbconvert", "--to", "notebook", "--execute", "--output-dir", str(tmp_path)]
    notebook = str(REPOSITORY / f"notebooks/{name}.ipynb")
    done = light.python(*command, notebook, **variables, JUPYTER_PREFER_ENV_PATH="1")
    assert done.returncode == 0, done.stderr
    assert "image/png" in (tmp_path / f"{name}.ipynb").read_text()


@pytest.mark.skipif(
    not (CONDA := next(filter(None, map(shutil.which, ("micromamba", "mamba", "conda"))), None)),
    reason="not run: neither micromamba, mamba nor conda is there",
)
def test_conda_makes_the_environment(tmp_path: Path) -> None:
    """All of it, from a copy of the checkout; make then takes it."""
    source, folder = tmp_path / "source", tmp_path / "environment"
    copied = shutil.ignore_patterns(".*", "artifacts", "runs", "__pycache__", "*.egg-info")
    shutil.copytree(REPOSITORY, source, ignore=copied)
    command = [
        str(CONDA),
        *([] if CONDA.endswith("micromamba") else ["env"]),
        "create",
        "--yes",
        "--prefix",
        str(folder),
    ]
    done = subprocess.run([*command, "--file", "environment.yml"], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    active = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "CONDA_DEFAULT_ENV")}
    active |= {"CONDA_PREFIX": str(folder)}
    done = subprocess.run(["make", "doctor"], cwd=source, env=active, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (source / ".venv").exists()


def test_with_data_every_kind_of_problem_is_there(data: Environment, tmp_path: Path) -> None:
    assert data.call(a_step_on_every_kind_of_problem, MTL_DATA=str(tmp_path)).split() == [
        "multimnist/CL_RR", "cityscapes/inst_seg", "qm9",
    ]  # fmt: skip


def test_with_the_study_every_kind_of_problem_is_trained_on_data_in_mtl_data(
    study: Environment, tmp_path: Path
) -> None:
    chosen, user = tmp_path / "chosen", tmp_path / "user"
    printed = study.call(a_run_on_every_kind_of_problem, MTL_DATA=str(chosen), XDG_CACHE_HOME=str(user))
    assert printed.splitlines() == RUNS
    kinds = {folder.name.split("-")[0] for folder in chosen.iterdir()}
    assert kinds == {"cityscapes", "streets", "qm9"}
    assert not (user / "mtl_core").exists()


def test_without_mtl_data_prepared_data_lie_in_the_users_cache_folder(study: Environment, tmp_path: Path) -> None:
    printed = study.call(a_run_on_every_kind_of_problem, XDG_CACHE_HOME=str(tmp_path))
    assert printed.splitlines() == RUNS
    kinds = {folder.name.split("-")[0] for folder in (tmp_path / "mtl_core").iterdir()}
    assert kinds == {"cityscapes", "streets", "qm9"}
    assert list(study.elsewhere.iterdir()) == [study.elsewhere / "program.py"]


@pytest.mark.parametrize("module", ["reproduce", "excerpts", "audit", "doctor", "methods", "house"])
def test_what_needs_the_checkout_says_so(study: Environment, module: str) -> None:
    """In plain words, and nothing is written into the environment."""
    done = study.python("-m", f"mtl_study.publishing.{module}")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr and "checkout" in done.stdout + done.stderr
    (site,) = (study.folder / "lib").glob("python*/site-packages")
    assert not [name for name in ("docs", "artifacts", "CONTRIBUTING.md", "REPORT.md") if (site / name).exists()]


def test_the_lowest_versions_take_steps_with_every_method(lowest: Environment) -> None:
    from mtl_core.smtos import keys

    assert lowest.call(a_step_of_every_method).split() == keys()


def test_the_lowest_versions_have_every_kind_of_problem(lowest: Environment, tmp_path: Path) -> None:
    assert lowest.call(a_step_on_every_kind_of_problem, MTL_DATA=str(tmp_path)).split() == [
        "multimnist/CL_RR", "cityscapes/inst_seg", "qm9",
    ]  # fmt: skip


def test_the_lowest_versions_run_a_notebook_and_make_its_page(lowest_study: Environment, tmp_path: Path) -> None:
    """01 at smoke: trained, judged, drawn."""
    name, executed = "01_mnist_selection", tmp_path / "out.ipynb"
    variables = {f"MTL_{part.upper()}": str(tmp_path / part) for part in ("artifacts", "data")}
    source, preset = REPOSITORY / f"notebooks/{name}.ipynb", REPOSITORY / f"params/smoke/{name}.yaml"
    command = ["-m", "papermill", str(source), str(executed), "-f", str(preset), "-p", "store", str(tmp_path / "store")]
    done = lowest_study.python(*command, **variables, MTL_WORKERS="2", JUPYTER_PREFER_ENV_PATH="1")
    assert done.returncode == 0, done.stderr
    made = {
        path.suffix for part in ("figures", "tables") for path in (tmp_path / "artifacts/smoke" / part).glob("01_*")
    }
    assert made == {".pdf", ".png", ".json", ".md", ".csv"}
    page = "import nbformat, sys; from mtl_study.publishing.running import to_html; "
    page += "print(to_html(nbformat.read(sys.argv[1], as_version=4), 'page'))"
    done = lowest_study.python("-c", page, str(executed))
    assert done.returncode == 0, done.stderr
    assert "Figure 1" in done.stdout
