"""Which environment make takes, and what it leaves alone: the Makefile itself, in a folder where every Python is a
script of the shell that notes what it is asked for. Nothing is installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from mtl_study.artifacts import REPOSITORY
from mtl_study.publishing import handouts

PYTHON = f"""#!/bin/sh
# A Python of the version that the file next to its folder says. As an environment's it knows the folder that it is in.
here="$(cd "$(dirname "$0")/.." && pwd)"
test ! -e "$here/lost" || here=/usr
version="$(cat "$here/version" 2>/dev/null || echo "3, 11")"
case "$1 $2" in
    "-c "*) exec {sys.executable} -c "import sys; sys.prefix = '$here'; sys.version_info = ($version, 0)
$2" ;;
    "--version "*) echo "Python $version"; exit ;;
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip") test "$3" = --version && exit "$(cat "$here/pip" 2>/dev/null || echo 0)" ;;
esac
echo "$*" >> "$LOG"
test ! -e "$here/broken"
"""


class Room:
    """A folder with the Makefile, and a python3.11 on the path."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder / "checkout", folder / "log"
        self.folder.mkdir()
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            (self.folder / name).write_bytes((REPOSITORY / name).read_bytes())
        self.python(folder / "usr/bin/python3.11")

    def python(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PYTHON)
        path.chmod(0o755)

    def environment(self, folder: Path, version: str = "3, 11") -> Path:
        """One that somebody made, with a file of theirs."""
        self.python(folder / "bin/python")
        (folder / "version").write_text(version)
        (folder / "theirs").touch()
        return folder

    def make(self, *arguments: str, code: int = 0, **variables: object) -> tuple[str, list[str]]:
        """What make prints, and what Pythons are asked for meanwhile."""
        path = f"{self.log.parent / 'usr/bin'}:{os.environ['PATH']}"
        unset = {"VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "MAKEFLAGS", "MAKELEVEL", "TORCH", "WHEELS"}
        given = {name: str(value) for name, value in variables.items()}
        environment = {name: value for name, value in os.environ.items() if name not in unset}
        environment |= {"PATH": path, "LOG": str(self.log), **given}
        self.log.write_text("")
        done = subprocess.run(
            ["make", *(arguments or ("doctor",))], cwd=self.folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr, self.log.read_text().splitlines()


INSTALLS = "-m pip install --no-compile --constraint constraints.txt --editable .[dev]"
RUNS = "-m mtl_study.publishing.doctor"


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def installed(asked: list[str]) -> list[str]:
    """The commands, with single blanks."""
    return [" ".join(line.split()) for line in asked]


def test_without_an_active_environment_make_makes_one_once(room: Room) -> None:
    """Later only what pyproject.toml or constraints.txt changed is installed."""
    says, asked = room.make()
    assert installed(asked) == ["-m venv .venv", INSTALLS, RUNS]
    assert "Making the environment in .venv with Python 3, 11." in says
    assert room.make()[1] == [RUNS]
    ready = room.folder / ".venv/mtl_core.ready"
    os.utime(ready, (0, 0))
    assert installed(room.make()[1]) == [INSTALLS, RUNS]


@pytest.mark.parametrize("kind", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_an_active_environment_is_taken(room: Room, tmp_path: Path, kind: str) -> None:
    theirs = room.environment(tmp_path / "theirs")
    assert installed(room.make(**{kind: theirs})[1]) == [INSTALLS, RUNS]
    assert room.make(**{kind: theirs})[1] == [RUNS]
    assert (theirs / "theirs").exists() and not (room.folder / ".venv").exists()


def test_a_virtual_environment_in_a_conda_environment_is_the_active_one(room: Room, tmp_path: Path) -> None:
    inner, outer = room.environment(tmp_path / "inner"), room.environment(tmp_path / "outer")
    room.make(VIRTUAL_ENV=inner, CONDA_PREFIX=outer)
    assert (inner / "mtl_core.ready").exists() and not (outer / "mtl_core.ready").exists()


@pytest.mark.parametrize("sign", ["its name", "its folder"])
def test_nothing_is_installed_into_condas_base(room: Room, tmp_path: Path, sign: str) -> None:
    base = room.environment(tmp_path / "conda")
    if sign == "its folder":
        (base / "condabin").mkdir()
    says, _ = room.make(CONDA_PREFIX=base, CONDA_DEFAULT_ENV="base" if sign == "its name" else str(base))
    assert "conda's base is left as it is: this goes to .venv." in says
    assert (room.folder / ".venv/mtl_core.ready").exists() and not (base / "mtl_core.ready").exists()


@pytest.mark.parametrize("version", ["3, 10", "3, 13"])
def test_another_python_is_refused(room: Room, tmp_path: Path, version: str) -> None:
    """Also where the environment got another Python after it was made."""
    theirs = room.environment(tmp_path / "theirs", version)
    (theirs / "mtl_core.ready").touch()
    says, asked = room.make(code=2, VIRTUAL_ENV=theirs)
    assert f"{theirs} is no environment of Python 3.11 or 3.12; it has Python {version}." in says
    assert "Activate another, or none." in says
    assert not any("pip" in line for line in asked)


def test_an_environment_that_is_gone_is_refused(room: Room, tmp_path: Path) -> None:
    says, _ = room.make(code=2, VIRTUAL_ENV=tmp_path / "gone")
    assert f"{tmp_path / 'gone'} is no environment" in says and "it has no Python that runs." in says


def test_a_python_that_is_not_the_environments_own_is_refused(room: Room, tmp_path: Path) -> None:
    """Without its pyvenv.cfg a virtual environment's Python is the system's, and pip would install there."""
    theirs = room.environment(tmp_path / "theirs")
    room.make(VIRTUAL_ENV=theirs)
    (theirs / "lost").touch()
    assert room.make(code=2, VIRTUAL_ENV=theirs)[1] == []


def test_a_path_with_a_blank_is_refused_except_for_our_own(tmp_path: Path) -> None:
    """.venv is called .venv wherever the checkout is."""
    (tmp_path / "my projects").mkdir()
    room = Room(tmp_path / "my projects")
    says, _ = room.make(code=2, VIRTUAL_ENV=room.environment(tmp_path / "my projects/theirs"))
    assert "there is a blank in this path" in says
    room.make()
    assert room.make(VIRTUAL_ENV=room.folder / ".venv")[1] == [RUNS]


def test_without_pip_it_comes_first(room: Room, tmp_path: Path) -> None:
    """As uv makes environments."""
    theirs = room.environment(tmp_path / "theirs")
    (theirs / "pip").write_text("1")
    assert installed(room.make(VIRTUAL_ENV=theirs)[1]) == ["-m ensurepip", INSTALLS, RUNS]


# -- what is never cleared ---------------------------------------------------------------------------------------------


def test_a_folder_that_make_did_not_make_is_taken_but_not_cleared(room: Room) -> None:
    theirs = room.environment(room.folder / ".venv")
    assert installed(room.make()[1]) == [INSTALLS, RUNS]
    (theirs / "bin/python").unlink()
    says, asked = room.make(code=2)
    assert ".venv is no environment" in says and "remove such a .venv" in says
    assert asked == [] and (theirs / "theirs").exists()


def test_a_link_is_never_cleared(room: Room, tmp_path: Path) -> None:
    """Not even to an environment that make made elsewhere."""
    theirs = room.environment(tmp_path / "theirs")
    (theirs / "mtl_core.made").touch()
    (room.folder / ".venv").symlink_to(theirs)
    assert installed(room.make()[1]) == [INSTALLS, RUNS]
    (theirs / "bin/python").unlink()
    room.make(code=2)
    assert (theirs / "theirs").exists() and (room.folder / ".venv").is_symlink()


def test_what_make_made_is_made_again_where_it_was_cut_off_or_lost_its_python(room: Room) -> None:
    ours = room.folder / ".venv"
    for spoil in (ours / "mtl_core.ready", ours / "bin/python"):
        room.make()
        (ours / "rest").touch()
        spoil.unlink()
        assert installed(room.make()[1]) == ["-m venv .venv", INSTALLS, RUNS]
        assert not (ours / "rest").exists()


def test_an_installation_that_fails_is_not_ready(room: Room, tmp_path: Path) -> None:
    theirs = room.environment(tmp_path / "theirs")
    (theirs / "broken").touch()
    assert RUNS not in room.make(code=2, VIRTUAL_ENV=theirs)[1]
    assert (theirs / "theirs").exists() and not (theirs / "mtl_core.ready").exists()


# -- where packages come from ------------------------------------------------------------------------------------------


def test_torch_for_processors_comes_from_its_own_index(room: Room) -> None:
    _, asked = room.make("TORCH=cpu", "doctor")
    assert installed(asked)[1] == INSTALLS.replace(
        "install", "install --extra-index-url https://download.pytorch.org/whl/cpu"
    )
    room.make("TORCH=cpu", "doctor")
    (room.folder / ".venv/mtl_core.ready").unlink()
    assert "TORCH=gpu: cpu is possible" in room.make("TORCH=gpu", "doctor", code=2)[0]


def test_who_sees_no_gpu_is_told_of_the_smaller_torch(room: Room) -> None:
    for given, told in (((), not shutil.which("nvidia-smi")), (("TORCH=cpu",), False)):
        assert ("No GPU is seen: TORCH=cpu" in room.make(*given, "doctor")[0]) == told
        shutil.rmtree(room.folder / ".venv")
    room.python(room.log.parent / "usr/bin/nvidia-smi")
    assert "No GPU is seen" not in room.make()[0]


def test_a_folder_of_wheels_takes_the_place_of_the_index(room: Room) -> None:
    assert "WHEELS=wheels: no such folder" in room.make("WHEELS=wheels", "doctor", code=2)[0]
    (room.folder / "wheels").mkdir()
    _, asked = room.make("WHEELS=wheels", "doctor")
    assert installed(asked)[1] == INSTALLS.replace("install", "install --no-index --find-links wheels")


# -- presets -----------------------------------------------------------------------------------------------------------


def test_no_preset_is_named_but_the_one_that_is_given(room: Room) -> None:
    """So that each command has its own default, also in a target that is added."""
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = [rule.split(":")[0] for rule in makefile.split("\n\n") if '--preset "$(PRESET)"' in rule]
    assert targets == ["reproduce", "plan", "figure", "audit", "records", "compare", "site", "slides"]
    for target in targets:
        assert "--preset" not in room.make(target)[1][-1], target
        assert room.make(target, "PRESET=papr")[1][-1].split("--preset ")[1].startswith("papr"), target


def test_an_engine_and_its_address_are_handed_on(room: Room) -> None:
    room.make()
    said = room.make("-n", "reproduce", "ENGINE=dask", "ADDRESS=tcp://host:8786")[0]
    assert 'MTL_ENGINE="dask" MTL_ADDRESS="tcp://host:8786"' in said.replace("\\\n", " ").replace("\t", "")
    assert "MTL_ENGINE" not in room.make("-n", "reproduce")[0]


# -- what clean leaves -------------------------------------------------------------------------------------------------


def test_clean_leaves_answers_runs_and_the_environment_alone(room: Room) -> None:
    """A folder that was handed out has a link to the shipped records, whatever it is called and wherever it is."""
    kept = [room.folder / path for path in ("artifacts/student", "artifacts/2027/group one", "artifacts/instructor")]
    for folder in kept:
        folder.mkdir(parents=True)
        (folder / "results").symlink_to(room.folder / "results")
    gone = room.folder / "artifacts/smoke/results"  # no link
    gone.mkdir(parents=True)
    (gone.parent / "01.ipynb").write_text("{}")
    answers = room.folder / "artifacts/handed in/alice/01_lines.ipynb"  # as it is sent, without the folder's link
    answers.parent.mkdir(parents=True)
    source = nbformat.read(REPOSITORY / "notebooks" / "00_start_here.ipynb", 4)
    nbformat.write(handouts.handed_out(source, "runs", 7), answers)
    others = [room.folder / path for path in ("runs/mine/a.json", "data/x", ".venv/y")]
    for path in others:
        path.parent.mkdir(parents=True)
        path.touch()
    for name in ("mtl_core", "mtl_study", "benchmarks", "tests", "notebooks"):
        (room.folder / name / "__pycache__").mkdir(parents=True)
    room.make("clean")
    assert all(path.exists() for path in (*others, answers))
    assert all((folder / "results").is_symlink() for folder in kept)
    assert not gone.exists() and not (room.folder / "tests/__pycache__").exists()
    room.make("clean")
