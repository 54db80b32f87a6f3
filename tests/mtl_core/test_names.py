"""The nearest known name, as messages say it."""

from mtl_core.names import nearest


def test_the_closest_name_or_none():
    known = {"nash_mtl": 1, "mgda": 2, "mgda_ub": 3}
    assert nearest("nash", known) == " (did you mean 'nash_mtl'?)"
    assert nearest("mdga", known) == " (did you mean 'mgda'?)"
    assert nearest("xyz", known) == nearest("mgda", []) == ""
