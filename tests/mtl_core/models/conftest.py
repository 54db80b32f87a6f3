"""What the tests of all networks share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import nn
from torch.nn.utils import parameters_to_vector


@pytest.fixture
def count_parameters() -> Callable[[nn.Module], int]:
    """How many numbers training adjusts."""
    return lambda network: parameters_to_vector(network.parameters()).numel()
