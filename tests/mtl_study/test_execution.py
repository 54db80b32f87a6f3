"""Who sits at a notebook gets widgets as progress bars; an executed notebook holds lines, and a log nothing."""

from pathlib import Path

from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from mtl_core import progress

WIDGET = "application/vnd.jupyter.widget-view+json"
BEGIN = 'execution.begin("01_toy", {"preset": "smoke"}, {"preset": "smoke"})\n'
OPEN = BEGIN + 'open_one = progress.bar(total=3, desc="toy runs")'
DONE = BEGIN + 'assert list(progress.bar(range(3), "toy runs", leave=True)) == [0, 1, 2]'
SLOW = BEGIN + 'assert list(progress.bar(range(3), "toy runs", delay=60)) == [0, 1, 2]'
NOBODY = "# nobody sits there\n"
STRICT = "import sys, tqdm, warnings\nwarnings.simplefilter('error', tqdm.TqdmWarning)\n"
MISSING = f"{STRICT}del sys.modules['tqdm.notebook'], tqdm.notebook\nsys.modules['ipywidgets'] = None\n"
QUIET = f"import os\nos.environ['{progress.QUIET}'] = '1'\n"


def test_bars_are_widgets_for_a_reader_and_leave_none(monkeypatch):
    """One that is done leaves its last line, or nothing; without ipywidgets there are lines, and no warning."""
    monkeypatch.delenv(progress.QUIET, raising=False)
    first = "from mtl_core import progress\nfrom mtl_study import execution"
    told = (NOBODY + DONE, OPEN, DONE, DONE.replace("True", "False"), SLOW, MISSING + DONE, QUIET + OPEN)
    cells = [new_code_cell(source) for source in (first, *told)]
    client = NotebookClient(new_notebook(cells=cells), timeout=60, kernel_name="python3", coalesce_streams=True)

    def ask(cell, cell_index):
        """JupyterLab says with every cell that it could answer a question of the code; papermill says it could not."""
        client.kc.allow_stdin = NOBODY not in cell.source

    client.on_cell_start = ask
    client.execute(cwd=str(Path(__file__).parents[2]))
    _, nobody, still_open, done, gone, too_quick, missing, quiet = (cell.outputs for cell in cells)
    (line,), (again,) = nobody, missing
    assert line.name == again.name == "stderr" and "toy runs: 100%" in line.text and "toy runs: 100%" in again.text
    assert [sorted(output.data) for output in (*still_open, *done, *gone)] == [
        [WIDGET, "text/plain"],
        ["text/plain"],
        [],
    ]
    assert done[0].data["text/plain"].startswith("toy runs: 100%")
    assert too_quick == quiet == []
