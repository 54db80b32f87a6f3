"""The example in CONTRIBUTING.md is a working SMTO."""

import re
from pathlib import Path

import numpy as np
import pytest

from mtl_core import smtos
from mtl_core.smtos import registry
from mtl_study import check_smto

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()


@pytest.fixture
def example():
    """The class that the code block defines, taken out of the registry again afterwards."""
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    smtos.keys()
    known = dict(registry.REGISTRY)
    exec(code, {"__name__": "example"})
    yield smtos.build("yielding", num_tasks=2)
    registry.REGISTRY.clear()
    registry.REGISTRY.update(known)


def test_the_example_does_what_its_page_says(example):
    """|g| = 2 and 1: ½ each where nothing conflicts; at cosine −0.9 both have c = 1.8, so that y = 4/5.8 and 1/2.8."""
    for cosine in (0.0, 0.7):
        np.testing.assert_allclose(example.solve(np.array([[4.0, 2 * cosine], [2 * cosine, 1.0]])), [1 / 2, 1 / 2])
    kept = np.array([4 / 5.8, 1 / 2.8])
    np.testing.assert_allclose(example.solve(np.array([[4.0, -1.8], [-1.8, 1.0]])), kept / kept.sum())


def test_the_example_passes_the_checks_that_its_page_names(example):
    assert "check_smto(Yielding)" in TEXT
    report = check_smto(type(example))
    assert report.of("kept") == list(report.found)


def test_the_example_is_twenty_lines():
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    written = [line for line in code.split('"""', 2)[2].splitlines() if line.strip()]
    assert len(written) <= 20
