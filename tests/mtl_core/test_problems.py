"""Problems are found by name, and a wrong name or option is answered with the nearest."""

import pytest
import torch
from torch.testing import assert_close

from mtl_core import problems
from mtl_core.options import BadOption


def test_a_wrong_option_is_refused():
    with pytest.raises(BadOption, match="did you mean 'width'"):
        problems.get("multimnist/CL", widht=2)
    with pytest.raises(BadOption, match="width = 0"):
        problems.get("multimnist/CL", width=0)


def test_unknown_problem_names_the_nearest():
    with pytest.raises(BadOption, match="did you mean 'multimnist/CL_RR'"):
        problems.get("multimnist/CLRR")


def test_both_ways_of_upsampling_are_the_same_network():
    """The same weights, under the same names; predictions of all tasks agree to rounding."""
    found = {}
    for way in ("kernel", "products"):
        torch.manual_seed(1)
        model = problems.get("cityscapes/19C", width=32, slim=32, upsampling=way).build_model(0.0).eval()
        x = torch.randn(2, 3, 32, 64, generator=torch.Generator().manual_seed(2))
        found[way] = model.state_dict(), [prediction.detach() for prediction in model(x)]
    (weights, kernel), (same, products) = found.values()
    assert list(weights) == list(same) and all(torch.equal(weights[name], same[name]) for name in weights)
    assert [y.shape[1] for y in products] == [19, 1, 2]
    assert_close(products, kernel, rtol=1e-4, atol=1e-5)
