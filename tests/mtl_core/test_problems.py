"""Problems are found by name, and a wrong name or option is answered with the nearest."""

import pytest

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
