"""What students get: no answers, a store of their own, and nothing that they wrote is lost."""

import ast
import copy
import importlib
import json
import re
from functools import cache

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mtl_core import files
from mtl_study.artifacts import REPOSITORY
from mtl_study.experiments.store import RunStore
from mtl_study.publishing import handouts, notebooks
from mtl_study.teaching import marking
from mtl_study.teaching.exercises import show_source

NOTEBOOKS = [path for path in notebooks.find(REPOSITORY / "notebooks") if notebooks.checks(notebooks.read(path))]
LARGE = 6  # so many parts make an expression worth hiding
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


class Plain(ast.NodeTransformer):
    """Code in which all variables have one name, and those of an object are variables."""

    def visit_Name(self, node):
        return node if node.id in ("np", "self") else ast.Name("_", ast.Load())

    def visit_arg(self, node):
        return ast.arg("_")

    def visit_Attribute(self, node):
        self.generic_visit(node)
        return ast.Name("_", ast.Load()) if getattr(node.value, "id", "") == "self" else node


def expressions(source):
    """The large expressions of some code, and its long lists of constants, whatever the variables are called."""
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.expr):
            size = sum(isinstance(part, ast.expr) for part in ast.walk(node))
            listed = isinstance(node, ast.Set | ast.List | ast.Tuple) and size > 4
            if size >= LARGE or (listed and all(isinstance(part, ast.Constant) for part in node.elts)):
                found[ast.dump(Plain().visit(copy.deepcopy(node)))] = ast.unparse(node)
    return found


def shown(notebook):
    """The code that a notebook shows with show_source."""
    names = {}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("mtl_"):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    if not hasattr(module, alias.name):
                        importlib.import_module(f"{node.module}.{alias.name}")
                    names[alias.asname or alias.name] = getattr(module, alias.name)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "show_source":
                yield re.findall(
                    r"```python\n(.*)\n```", show_source(eval(ast.unparse(node.args[0]), names)).data, re.S
                )[0]


def solutions(notebook):
    return [cell.source for cell in notebook.cells if notebooks.tagged(cell, "solution")]


@cache
def hidden():
    """Of all solutions."""
    return {
        dump for path in NOTEBOOKS for solution in solutions(notebooks.read(path)) for dump in expressions(solution)
    }


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_student_notebook_holds_no_answer(path):
    """No large expression of a solution is in a cell or in code that a cell shows, no comment of one in a cell; what is
    asked for is None, and every check names an exercise and is given no right answer."""
    notebook = notebooks.read(path)
    theirs = handouts.student(notebook)
    code = [cell.source for cell in theirs.cells if cell.cell_type == "code"]
    seen = {dump: text for source in [*code, *shown(theirs)] for dump, text in expressions(source).items()}
    text = " ".join(" ".join(cell.source.split()) for cell in theirs.cells)
    for solution in solutions(notebook):
        large = {} if solution.startswith("show_source") else expressions(solution)
        assert {seen[dump] for dump in set(large) & set(seen)} == set()
        assert [comment for comment in re.findall(r"# (.{20,})", solution) if comment in text] == []
    for source in code:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Assign) and "my_" in ast.unparse(node.targets[0]):
                values = getattr(node.value, "elts", [node.value])
                assert all(isinstance(value, ast.Constant) and value.value is None for value in values), source
            if isinstance(node, ast.Call) and getattr(node.func, "id", "").startswith("check"):
                assert ast.literal_eval(node.args[0]) in marking.book() and len(node.args) == 2, source
    checked = notebooks.checks(theirs)
    assert [cell.metadata.nbgrader.grade_id for cell in theirs.cells if "nbgrader" in cell.metadata] == checked
    assert len(checked) == len(set(checked)) == len(notebooks.checks(notebook)) >= 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_prints_a_solution(page):
    seen = {}
    for code in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        seen |= expressions(code)
    assert {seen[dump] for dump in hidden() & set(seen)} == set()


# -- writing them ------------------------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path):
    """One with a notebook of one exercise, and with records."""
    cells = [
        new_markdown_cell("# Toy\n\n[Adam](../docs/glossary.md#adam)"),
        new_code_cell('store: str = "results"  # folder', metadata={"tags": ["parameters"]}),
        new_markdown_cell("## Exercises\n\n" + "word " * 400),
        new_code_cell("my_weights = None"),
        new_code_cell("my_weights = [3 / 4, 1 / 4]", metadata={"tags": ["solution"]}),
        new_code_cell('check("edm_weights", my_weights)'),
    ]
    path = tmp_path / "repository/notebooks/01_toy.ipynb"
    files.write_atomically(path, json.dumps(new_notebook(cells=cells)))
    files.write_atomically(tmp_path / "repository/results/toy/edm.jsonl", '{"key": "0123456789abcdef"}\n')
    files.write_atomically(tmp_path / "repository/docs/glossary.md", "# Glossary\n\n## Adam\n")
    return tmp_path / "repository"


def sources(path):
    return [cell.source for cell in notebooks.read(path).cells]


def test_the_student_copy_lacks_the_solutions_and_has_a_store_of_its_own(repository, capsys):
    folder = repository / "artifacts/student"
    assert handouts.main(["--folder", str(folder), "--seed", "7"], repository) == 0
    ours, theirs = sources(repository / "notebooks/01_toy.ipynb"), sources(folder / "01_toy.ipynb")
    assert theirs[0] == ours[0].replace("../docs", "docs")
    assert theirs[1].endswith("seeded(7)  # the numbers of your exercises")
    assert theirs[2] == 'store: str = "artifacts/student/results"  # folder'
    assert theirs[3:] == [*ours[2:4], ours[5]]
    store = RunStore(
        folder / "results"
    )  # the shipped records are read there, and new ones go into the student's folder
    assert store.archive == folder / "results" and (folder / "results/toy/edm.jsonl").exists()
    assert store.folder == folder / "runs/results"
    assert capsys.readouterr().out.endswith(f"/jupyter lab {folder}\n")


@pytest.mark.parametrize("folder", ["repository/artifacts/student", "elsewhere/ada"])
def test_jupyterlab_finds_what_a_handed_out_notebook_links_to(repository, tmp_path, folder):
    """It serves the folder that it was started in and nothing outside: here the student's."""
    assert handouts.main(["--folder", str(tmp_path / folder)], repository) == 0
    (link,) = re.findall(r"\]\(([^)#]*)#adam\)", sources(tmp_path / folder / "01_toy.ipynb")[0])
    assert ".." not in link and (tmp_path / folder / link).read_text().startswith("# Glossary")


def test_what_readme_says_opens_the_notebooks_with_the_docs():
    """Started in the repository: from notebooks/ no link leads to docs/."""
    started = re.findall(r"`([^`]*jupyter lab[^`]*)`", PAGES[0].read_text(encoding="utf-8"))
    assert started == [".venv/bin/jupyter lab"]


def test_each_check_has_a_cell_of_its_own_for_nbgrader():
    source = 'x = 1  # before\ncheck("least_c", my_c)\ncheck(\n    "gate", my_gate\n)\nif accepted("gate"):\n    x = 2'
    cells = handouts.student(new_notebook(cells=[new_code_cell(source, id="c")])).cells
    assert [cell.id for cell in cells] == ["c", "c-2", "c-3", "c-4"]
    assert [cell.source for cell in cells][0::3] == ["x = 1  # before", 'if accepted("gate"):\n    x = 2']
    graded = [cell.metadata.get("nbgrader", {}).get("grade_id") for cell in cells]
    assert graded == [None, "least_c", "gate", None]
    assert [cell.source for cell in cells][1:3] == ['check("least_c", my_c)', 'check(\n    "gate", my_gate\n)']


def test_the_instructor_has_solutions_and_minutes(repository, tmp_path):
    assert handouts.main(["--folder", str(tmp_path / "of_mine"), "--instructor"], repository) == 0
    found = sources(tmp_path / "of_mine/01_toy.ipynb")
    assert "2 minutes to read, 1 checked answer." in found[1] and "| Exercises | 2 |" in found[1]
    assert found[5:7] == ["**Solution**", "my_weights = [3 / 4, 1 / 4]"]
    assert found[2] == f'store: str = "{tmp_path}/of_mine/results"  # folder'


def test_answers_are_not_overwritten(repository, tmp_path, capsys):
    """A copy that nobody touched, outputs apart, is brought up to date."""
    folder, source = tmp_path / "course", repository / "notebooks/01_toy.ipynb"
    command = ["--folder", str(folder)]
    assert handouts.main(command, repository) == 0
    files.write_atomically(source, source.read_text().replace("# Toy", "# Another"))
    assert handouts.main([*command, "--seed", "3"], repository) == 0
    assert sources(folder / "01_toy.ipynb")[0].startswith("# Another")
    files.write_atomically(source, source.read_text().replace("# Another", "# Toy"))
    assert handouts.main(command, repository) == 0  # the seed stays
    assert sources(folder / "01_toy.ipynb")[0].startswith("# Toy")
    assert "\nseeded(3)" in sources(folder / "01_toy.ipynb")[1]
    text = (folder / "01_toy.ipynb").read_text().replace("my_weights = None", "my_weights = [1, 0]")
    (folder / "01_toy.ipynb").write_text(text)
    assert handouts.main(command, repository) == 2
    assert "worked in 1 notebook of" in capsys.readouterr().err and (folder / "01_toy.ipynb").read_text() == text


def test_a_handed_in_notebook_is_checked_with_its_own_numbers_wherever_it_runs(repository, tmp_path):
    """Without any other file of the student."""
    assert handouts.main(["--folder", str(tmp_path / "ada"), "--seed", "7"], repository) == 0
    notebook = notebooks.read(tmp_path / "ada/01_toy.ipynb")
    ratio = marking.find("edm_weights").asked(7)["ratio"]
    assert ratio != marking.find("edm_weights").asked(0)["ratio"]
    said, place = [], {"check": lambda name, answer: marking.check(name, answer) or said.append(marking.accepted(name))}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            exec(cell.source.replace("None", f"[{ratio / (ratio + 1)}, {1 / (ratio + 1)}]"), place)
    marking.seeded(0)
    assert len(said) == 1 and said[0] is not None


def test_a_folder_that_cannot_be_written_is_named(repository, tmp_path, capsys):
    (tmp_path / "file").write_text("a file where the folder should be")
    assert handouts.main(["--folder", str(tmp_path / "file")], repository) == 1
    assert f"cannot write {tmp_path / 'file' / '01_toy.ipynb'}: " in capsys.readouterr().err
