"""Bars where somebody looks."""

import io
import sys

import pytest

from mtl_core import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("terminal", "notebook", "quiet", "shown"),
    [(True, False, "", True), (False, False, "", False), (False, True, "", True), (False, True, "1", False)],
)
def test_bars_are_shown_on_terminals_and_in_notebooks_and_not_in_logs(monkeypatch, terminal, notebook, quiet, shown):
    monkeypatch.setenv(progress.QUIET, quiet)
    monkeypatch.setattr(sys, "stderr", Terminal() if terminal else io.StringIO())
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    if notebook:
        monkeypatch.setitem(sys.modules, "ipykernel", sys)
    assert list(progress.bar(range(3), "toy runs", file=sys.stderr)) == [0, 1, 2]
    assert ("toy runs" in sys.stderr.getvalue()) is shown
