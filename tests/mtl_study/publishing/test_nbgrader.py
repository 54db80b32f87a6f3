"""nbgrader takes the students' notebooks, and gives the points that `make grade` gives."""

import csv
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mtl_core import files
from mtl_study import artifacts
from mtl_study.artifacts import REPOSITORY
from mtl_study.publishing import grading, handouts, notebooks

NBGRADER = "nbgrader==0.9.6"  # the newest that was tried
CELLS = [
    new_markdown_cell("# Toy"),
    new_code_cell("from mtl_study.teaching.marking import check"),
    new_code_cell("my_weights = None"),
    new_code_cell("my_properties = None"),
    new_code_cell('check("edm_weights", my_weights)\ncheck("kept_properties", my_properties)\nprint("on")'),
]
SEED = 7  # with which the second gradient is 4 times as long
ANSWERS = {"ada": ("[0.8, 0.2]", "['mu', 'Cv']"), "bob": ("[0.75, 0.25]", "['mu', 'Cv']"), "eve": ("[1]", "None")}
pytestmark = pytest.mark.slow


class Tool:
    """nbgrader in an environment of its own, which also has our packages, and a course."""

    def __init__(self, folder: Path) -> None:
        self.python, self.course = folder / "env/bin/python", folder / "course"
        venv.create(folder / "env", with_pip=True)
        shared = next(path for path in sys.path if path.endswith("site-packages"))
        (own,) = (folder / "env/lib").glob("python*/site-packages")
        (own / "shared.pth").write_text(f"{shared}\n")
        pinned = ["--constraint", str(REPOSITORY / "constraints.txt")]
        got = self.run("-m", "pip", "install", "--quiet", *pinned, NBGRADER)
        if got.returncode:
            pytest.skip(f"not run: {NBGRADER} cannot be installed here: {got.stderr.strip().splitlines()[-1]}")
        self.course.mkdir()

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.python.parent}{os.pathsep}{os.environ['PATH']}"  # it calls alembic
        environment = os.environ | {"PATH": path, "PYTHONPATH": str(REPOSITORY), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        at = self.course if self.course.exists() else None
        return subprocess.run([self.python, *command], cwd=at, env=environment, capture_output=True, text=True)

    def nbgrader(self, *command: str) -> str:
        got = self.run("-m", "nbgrader", *command)
        assert got.returncode == 0, got.stderr
        return got.stderr


@pytest.fixture(scope="module")
def tool(tmp_path_factory):
    return Tool(tmp_path_factory.mktemp("nbgrader"))


def put(notebook, *places):
    for place in places:
        files.write_atomically(place, notebooks.nbformat.writes(notebook))


def test_its_points_are_ours(tool, tmp_path):
    """On its side by running the notebooks, each with the numbers of its seed, on ours by reading what they printed."""
    source = new_notebook(cells=CELLS)
    handed_out = handouts.handed_out(handouts.student(source), "results", SEED)
    put(source, tmp_path / "repository/notebooks/01_toy.ipynb")
    put(handed_out, tool.course / "source/01_toy/01_toy.ipynb")
    tool.nbgrader("generate_assignment", "01_toy")
    released = notebooks.read(tool.course / "release/01_toy/01_toy.ipynb")
    assert [cell.source for cell in released.cells] == [cell.source for cell in handed_out.cells]
    for name, (weights, properties) in ANSWERS.items():
        done = notebooks.read(tool.course / "release/01_toy/01_toy.ipynb")
        done.cells[3].source = f"my_weights = {weights}"
        done.cells[4].source = f"my_properties = {properties}"
        NotebookClient(done, timeout=600, kernel_name="python3").execute(cwd=str(tmp_path))
        put(done, tool.course / "submitted" / name / "01_toy/01_toy.ipynb")
    tool.nbgrader("autograde", "01_toy", "--create", "--ExecutePreprocessor.timeout=600")  # 30 s where nothing is said
    tool.nbgrader("export", "--to", "theirs.csv")
    assert grading.main([str(tool.course / "submitted")], tmp_path / "repository") == 0
    with open(tool.course / "theirs.csv") as theirs, open(artifacts.root() / "nbgrader.csv") as ours:
        their_rows, our_rows = list(csv.DictReader(theirs)), list(csv.DictReader(ours))
    assert their_rows[0].keys() == our_rows[0].keys()
    unknown = {"timestamp"}  # of a hand-in, which a folder does not say
    rows = [sorted([{k: v for k, v in row.items() if k not in unknown} for row in found], key=str)
            for found in (their_rows, our_rows)]  # fmt: skip
    assert rows[0] == rows[1]
    assert {row["student_id"]: row["score"] for row in our_rows} == {"ada": "2.0", "bob": "1.0", "eve": "0.0"}


def test_it_takes_all_notebooks(tool):
    """By its schema, and as an assignment."""
    sources = notebooks.find(REPOSITORY / "notebooks")
    for path in sources:
        put(handouts.student(notebooks.read(path)), tool.course / "source/course" / path.name)
    check = "import sys\nfrom nbgrader.nbgraderformat import read\n[read(path, as_version=4) for path in sys.argv[1:]]"
    got = tool.run("-c", check, *[str(path) for path in (tool.course / "source/course").iterdir()])
    assert got.returncode == 0, got.stderr
    tool.nbgrader("generate_assignment", "course")
    listed = "from nbgrader.api import Gradebook\nwith Gradebook('sqlite:///gradebook.db') as book:\n    print(int("
    got = tool.run("-c", f"{listed}book.find_assignment('course').max_score))")
    assert int(got.stdout) == sum(len(notebooks.checks(notebooks.read(path))) for path in sources)
