"""Bars where somebody looks."""

import io
import sys
from pathlib import Path

import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from mtl_core import progress

WIDGET = "application/vnd.jupyter.widget-view+json"
BAR = 'from mtl_core import progress\nassert list(progress.bar(range(3), "toy runs", leave=False)) == [0, 1, 2]'


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


def test_a_reader_sees_a_widget_or_a_line_where_ipywidgets_is_missing(monkeypatch):
    """And no warning of tqdm; a notebook that is executed with nobody there holds lines."""
    monkeypatch.delenv(progress.QUIET, raising=False)
    nobody = "# nobody is there\n"
    strict = 'import sys, tqdm, warnings\nwarnings.simplefilter("error", tqdm.TqdmWarning)\n'
    missing = f'{strict}sys.modules["ipywidgets"] = None\n'
    quiet = f'import os\nos.environ["{progress.QUIET}"] = "1"\n'
    cells = [new_code_cell(source + BAR) for source in (nobody, "", missing, quiet)]
    client = NotebookClient(new_notebook(cells=cells), timeout=60, kernel_name="python3", coalesce_streams=True)

    def ask(cell, cell_index):
        """JupyterLab says with every cell that it could answer a question of the code."""
        client.kc.allow_stdin = nobody not in cell.source

    client.on_cell_start = ask
    client.execute(cwd=str(Path(__file__).parents[2]))
    left = [[output.get("name") or sorted(output.data) for output in cell.outputs] for cell in cells]
    assert left == [["stderr"], [[WIDGET, "text/plain"]], ["stderr"], []]
