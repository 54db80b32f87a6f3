"""A folder for a lab without internet: wheels, the repository's tracked files, the built site, and how to install.

    python -m mtl_study.publishing.bundle                                                writes artifacts/bundle/
    python -m mtl_study.publishing.bundle --wheels artifacts/bundle/wheels --folder new  takes wheels that are there

It appears whole or not at all. Before it does, every wheel is read, and pip has to find all that an installation takes
in this folder alone, without the settings of this machine.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

from mtl_core import files
from mtl_study import artifacts, commands
from mtl_study.words import counted, duration

CPU = "https://download.pytorch.org/whl/cpu"
OWN = ("mtl_core", "mtl_study", "pyproject.toml", "README.md", "LICENSE")  # what the project's own wheel is made of
PROJECT = "mtl_core[dev]"
SUMS, README = "SHA256SUMS", "README.txt"
HOW = """\
The repository of mtl_core, for a lab without internet: wheels, all tracked files, the site.

You need {system} on {machine}, Python {python} and make. Check the files, install, run the notebooks:

    sha256sum --check --quiet {sums}
    cd repository
    make reproduce WHEELS=../wheels BASE=python{python}

The environment is made in repository/.venv, from the wheels alone; more is in repository/docs/install.md.
To read without installing anything, open site/index.html in a browser.
"""


class Refused(ValueError):
    """What is asked for cannot be bundled; nothing was made."""


class Failed(RuntimeError):
    """A command that fills the bundle, or proves it, has failed; nothing was made."""


def write(folder: Path, wheels: Path | None = None, torch: str = "", repository: Path = artifacts.REPOSITORY) -> None:
    """Write the bundle.

    Args:
        wheels: a folder of wheels to take; None: they are collected from the package index, each file checked by its
            hash.
        torch: "cpu" for torch without CUDA. It comes from PyTorch's own index, of which constraints.lock has no hashes.

    Raises:
        Refused: the folder is there, the site or the wheels are not, or a wheel is damaged.
        Failed: pip or git failed, or an installation would lack something.
    """
    site = artifacts.root() / "site"
    if folder.exists():
        raise Refused(f"{folder} is there already. Remove it, or name another folder: FOLDER=…")
    if not (site / "index.html").is_file():
        raise Refused(f"{site} has no index.html, so there is no site to bundle. Run `make site` first.")
    if wheels:
        read(wheels)
    with files.whole_folder(folder) as new:
        say("Collecting the wheels")
        packed = new / "wheels"
        packed.mkdir()
        if wheels:
            for wheel in sorted(wheels.glob("*.whl")):
                shutil.copy2(wheel, packed)
        elif torch:
            own = ("--constraint", "constraints.txt", "--extra-index-url", CPU, ".[dev]", "setuptools")
            _call(repository, *_pip("wheel"), "--wheel-dir", str(packed), *own)
        else:
            locked = ("--require-hashes", "--requirement", "constraints.lock")
            _call(repository, *_pip("wheel"), "--wheel-dir", str(packed), *locked)
        say("Packing the repository and the site")
        unpack(repository, new / "repository")
        shutil.copytree(site, new / "site")
        say("Making the project's own wheel, and trying the installation from the bundle alone")
        prove(packed, repository)
        say("Adding checksums")
        python, sums = ".".join(platform.python_version_tuple()[:2]), new / SUMS
        how = HOW.format(system=platform.system(), machine=platform.machine(), python=python, sums=SUMS)
        (new / README).write_text(how, encoding="utf-8")
        listed = sorted(path for path in new.rglob("*") if path.is_file())
        lines = [f"{digest(path)}  {path.relative_to(new).as_posix()}\n" for path in listed]
        sums.write_text("".join(lines), encoding="utf-8")


def read(wheels: Path) -> None:
    """Read every wheel of a folder to its end.

    Raises:
        Refused: there is none, or one is damaged.
    """
    found = sorted(wheels.glob("*.whl"))
    if not found:
        raise Refused(f"{wheels} has no wheels; docs/install.md says how to fill a folder, or leave WHEELS out.")
    for wheel in found:
        try:
            with zipfile.ZipFile(wheel) as opened:
                damaged = opened.testzip()
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            damaged = str(error)
        if damaged:
            raise Refused(f"{wheel} is damaged ({damaged}). Remove it and get it again: pip download --no-deps …")


def unpack(repository: Path, folder: Path, *only: str) -> None:
    """Write the tracked files of the last commit into a folder, or only some of them."""
    packed = _call(repository, "git", "archive", "--format=tar", "HEAD", *only, caught=True)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")


def prove(wheels: Path, repository: Path) -> None:
    """Add the project's own wheel to a folder of wheels, built with what is in there, and let pip look for all that an
    installation takes in this folder alone.

    Raises:
        Failed: something is not there; pip names it.
    """
    alone = ("--no-index", "--find-links", str(wheels))
    with tempfile.TemporaryDirectory() as source:
        unpack(repository, Path(source), *(name for name in OWN if (repository / name).exists()))
        _call(repository, *_pip("wheel", "--isolated"), "--no-deps", *alone, "--wheel-dir", str(wheels), source)
    tried = ("--dry-run", "--ignore-installed", "--constraint", "constraints.txt", PROJECT)
    _call(repository, *_pip("install", "--isolated"), *alone, *tried)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def say(what: str) -> None:
    """A line for a part that takes a while."""
    print(f"{time.strftime('%H:%M:%S')} {what} …", flush=True)


def _pip(*command: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "pip", *command)


def _call(repository: Path, *command: str, caught: bool = False) -> bytes:
    """Run a command in the repository; what it prints is shown, or returned."""
    done = subprocess.run(command, cwd=repository, stdout=subprocess.PIPE if caught else None, check=False)
    if done.returncode:
        said = " ".join(command).removeprefix(f"{sys.executable} -m ")
        raise Failed(f"No bundle was made: `{said}` failed in {repository}; the reason is above.")
    return done.stdout or b""


@commands.ends((Refused,), failed=(Failed,))
def main(arguments: list[str] | None = None, repository: Path = artifacts.REPOSITORY) -> int:
    """The command. Returns its exit code: 1 where pip or git failed, 2 where the request is refused."""
    parser = argparse.ArgumentParser(prog="bundle", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", type=Path, help="where to; default: artifacts/bundle")
    parser.add_argument("--wheels", type=Path, help="a folder of wheels to take, instead of collecting them")
    parser.add_argument("--torch", choices=["cpu"], help="torch without CUDA")
    given = parser.parse_args(arguments)
    folder, wheels = (path and Path(os.path.abspath(path.expanduser())) for path in (given.folder, given.wheels))
    folder, begun = folder or artifacts.root() / "bundle", time.monotonic()
    write(folder, wheels, given.torch or "", repository)
    held = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    took = duration(time.monotonic() - begun)
    print(f"{folder}: {counted(len(held), 'file')}, {sum(held) / 1e9:.1f} GB, in {took}")
    return 0


if __name__ == "__main__":
    commands.run(main)
