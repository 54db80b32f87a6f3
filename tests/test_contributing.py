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
    yield smtos.build("inverse_norms", num_tasks=2)
    registry.REGISTRY.clear()
    registry.REGISTRY.update(known)


def test_the_example_does_what_its_page_says(example):
    """|g| = 2 and 1: weights ⅓ and ⅔ whatever the angle, as EDM has them."""
    for cosine in (-0.9, 0.0, 0.7):
        gramian = np.array([[4.0, 2 * cosine], [2 * cosine, 1.0]])
        np.testing.assert_allclose(example.solve(gramian), [1 / 3, 2 / 3])
        np.testing.assert_allclose(example.solve(gramian), smtos.build("edm", 2).solve(gramian))


def test_the_example_passes_the_checks_that_its_page_names(example):
    assert "check_smto(InverseNorms)" in TEXT
    report = check_smto(type(example))
    assert report.of("kept") == list(report.found)


def test_the_example_is_twenty_lines():
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    written = [line for line in code.split('"""', 2)[2].splitlines() if line.strip()]
    assert len(written) <= 20
