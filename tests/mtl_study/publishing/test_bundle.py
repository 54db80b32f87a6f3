"""The bundle for a lab without internet: whole and proved, or refused in words. The wheels are made on the spot."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from mtl_study import artifacts
from mtl_study.publishing import bundle

BUILDS = '''
import pathlib, zipfile

def wheel(folder, name, needs=()):
    """A wheel of nothing but its metadata."""
    info, path = f"{name}-1.0.dist-info", pathlib.Path(folder) / f"{name}-1.0-py3-none-any.whl"
    needed = "".join(f"Requires-Dist: {need}\\n" for need in needs)
    with zipfile.ZipFile(path, "w") as packed:
        said = f"Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\nProvides-Extra: dev\\n"
        packed.writestr(f"{info}/METADATA", said + needed)
        packed.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        packed.writestr(f"{info}/RECORD", "")
    return path.name

def build_wheel(folder, config_settings=None, metadata_directory=None):
    return wheel(folder, "mtl_core", ['tiny; extra == "dev"'])
'''
TOOL = """[build-system]
requires = []
build-backend = "builds"
backend-path = ["mtl_core"]
[project]
name = "mtl_core"
version = "1.0"
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A repository whose project needs one package, `tiny`; its wheel; a site."""
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path / "artifacts"))
    repository, wheels, site = tmp_path / "repository", tmp_path / "wheels", tmp_path / "artifacts/site"
    for folder in (repository / "mtl_core", repository / "results", wheels, site):
        folder.mkdir(parents=True)
    (repository / "mtl_core/builds.py").write_text(BUILDS)
    (repository / "pyproject.toml").write_text(TOOL)
    (repository / "constraints.txt").write_text("tiny==1.0\n")
    (repository / "results/record.json").write_text("{}\n")
    (site / "index.html").write_text("<h1>Results</h1>")
    made: dict[str, Any] = {}
    exec(BUILDS, made)
    made["wheel"](wheels, "tiny")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=repository, check=True)
    (repository / "results/untracked.json").write_text("{}\n")
    return tmp_path


def command(lab: Path, *more: str) -> int:
    return bundle.main(["--wheels", str(lab / "wheels"), *more], lab / "repository")


def test_a_bundle_has_wheels_tracked_files_the_site_and_checksums(lab, capfd):
    """And the list of checksums is one that sha256sum checks; a file that is altered is found."""
    assert command(lab) == 0, capfd.readouterr().err
    folder = lab / "artifacts/bundle"
    held = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert held == {
        *("README.txt", "SHA256SUMS", "site/index.html", "wheels/tiny-1.0-py3-none-any.whl"),
        *("wheels/mtl_core-1.0-py3-none-any.whl", "repository/mtl_core/builds.py", "repository/pyproject.toml"),
        *("repository/constraints.txt", "repository/results/record.json"),
    }
    says = (folder / "README.txt").read_text()
    assert (
        f"make reproduce WHEELS=../wheels BASE=python3.{sys.version_info.minor}\n" in says
        and len(says.splitlines()) <= 12
    )
    check = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    assert len((folder / "SHA256SUMS").read_text().splitlines()) == len(held) - 1
    assert subprocess.run(check, cwd=folder, check=False).returncode == 0
    (folder / "site/index.html").write_text("altered")
    assert subprocess.run(check, cwd=folder, check=False).returncode == 1
    assert command(lab) == 2 and "is there already" in capfd.readouterr().err


@pytest.mark.slow
def test_what_an_installation_would_lack_is_named(lab, capfd):
    (lab / "wheels/tiny-1.0-py3-none-any.whl").rename(lab / "wheels/other-1.0-py3-none-any.whl")
    assert command(lab) == 1
    said = capfd.readouterr()
    assert "depends on tiny" in said.out and "No bundle was made: `pip install" in said.err
    assert not (lab / "artifacts/bundle").exists()


@pytest.mark.parametrize("fault", ["cut", "altered"])
def test_a_damaged_wheel_is_refused(lab, capfd, fault):
    wheel = lab / "wheels/tiny-1.0-py3-none-any.whl"
    content = wheel.read_bytes()
    wheel.write_bytes(content[:-40] if fault == "cut" else content.replace(b"Name: tiny", b"Name: tinz"))
    assert command(lab) == 2
    assert re.search(r"tiny-1\.0-py3-none-any\.whl is damaged \(.+\)", capfd.readouterr().err)
    assert not (lab / "artifacts/bundle").exists()


def test_a_folder_without_wheels_and_a_missing_site_are_refused(lab, capfd):
    (lab / "artifacts/site/index.html").unlink()
    assert command(lab) == 2
    assert "Run `make site` first" in capfd.readouterr().err
    (lab / "artifacts/site/index.html").write_text("x")
    (lab / "wheels/tiny-1.0-py3-none-any.whl").unlink()
    assert command(lab) == 2
    assert "has no wheels" in capfd.readouterr().err


@pytest.mark.slow
def test_our_own_wheel_is_built_from_the_tracked_files(tmp_path):
    """With the setuptools of this environment, in place of those of a bundle."""
    bundle.unpack(artifacts.REPOSITORY, tmp_path / "source", *bundle.OWN)
    bundle._call(tmp_path, *bundle._pip("wheel"), "--no-deps", "--no-build-isolation", str(tmp_path / "source"))
    [wheel] = tmp_path.glob("mtl_core-*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
    assert "mtl_study/publishing/bundle.py" in names and "mtl_study/publishing/templates/index.css" in names
