"""Every test runs on one thread, draws the same random examples each time, and writes nothing into the repository; what
demands the exact versions of constraints.txt runs under them alone."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import matplotlib
import pytest
import torch
from hypothesis import settings

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"

matplotlib.use("Agg")
torch.set_num_threads(1)
settings.register_profile("deterministic", derandomize=True, deadline=None, database=None)
settings.load_profile("deterministic")


def unpinned(constraints: str) -> str:
    """The first package that is not there in the version that constraints.txt has, in words; "" if all are. A local
    version (2.14.1+cpu) tells where a package was built."""
    for package, version in re.findall(r"^([\w-]+)==(\S+)$", constraints, flags=re.MULTILINE):
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found = "not installed"
        if found.split("+")[0] != version:
            return f"constraints.txt has {package} {version}; here it is {found}"
    return ""


LONGEST = "test_paper_preset"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `pinned` are skipped under other versions. The longest begin first: no process waits for them."""
    items.sort(key=lambda item: item.path.stem != LONGEST)
    if reason := unpinned(CONSTRAINTS.read_text()):
        for item in items:
            if item.get_closest_marker("pinned"):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def artifacts_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Artifacts of tests go to a temporary folder."""
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path_factory.getbasetemp() / "artifacts"))
