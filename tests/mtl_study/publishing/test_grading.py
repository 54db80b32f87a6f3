"""What is read off handed-in notebooks, and what makes a mark doubtful."""

import json

import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from mtl_core import files
from mtl_study import artifacts
from mtl_study.publishing import grading

ANSWER, CHECK = "my_weights = [0.75, 0.25]", 'check("edm_weights", my_weights)'


def cell(source, count=None, text=None):
    outputs = [] if text is None else [new_output("stream", name="stdout", text=text)]
    return new_code_cell(source, execution_count=count, outputs=outputs)


def notebook(*cells):
    return new_notebook(cells=list(cells))


def marks(*cells, expected=()):
    return [(row["mark"], row["doubt"]) for row in grading.marks(notebook(*cells), list(expected))]


def test_marks_are_read_off_the_outputs():
    right = "✓ Right. As 1/|g₁| to 1/|g₂|; the angle\n  plays no part.\n"
    assert marks(cell(ANSWER, 1), cell(CHECK, 2, right)) == [("right", "")]
    (row,) = grading.marks(notebook(cell(ANSWER, 1), cell(CHECK, 2, right)), [])
    assert row["said"] == "✓ Right. As 1/|g₁| to 1/|g₂|; the angle plays no part."
    assert marks(cell(ANSWER, 1), cell(CHECK, 2, "✗ Not yet. You gave x.\n")) == [("wrong", "")]
    assert marks(cell(ANSWER, 1), cell(CHECK, 2, "○ Not answered yet.\n")) == [("unanswered", "")]
    assert marks(cell(ANSWER), cell(CHECK)) == [("not run", "")]
    assert marks(cell(ANSWER), expected=["edm_weights"]) == [("missing", "")]


def test_two_checks_of_one_cell_are_told_apart():
    both = cell(f'{CHECK}\ncheck("least_c", my_c)', 3, "✗ Not yet. A.\n  More.\n✓ Right.\n")
    rows = grading.marks(notebook(cell("my_weights, my_c = 1, 2", 1), both), [])
    assert [(row["exercise"], row["mark"]) for row in rows] == [("edm_weights", "wrong"), ("least_c", "right")]


@pytest.mark.parametrize(
    ("answer", "count", "checked", "doubt"),
    [
        ("my_weights = None", 1, 2, "right, but there is no answer"),
        (ANSWER, 3, 2, "the answer was run again after its check"),
        (ANSWER, None, 2, "an output without a run"),
        (ANSWER, 1, None, "an output without a run"),
    ],
)
def test_what_does_not_fit_is_named(answer, count, checked, doubt):
    assert marks(cell(answer, count), cell(CHECK, checked, "✓ Right.\n")) == [("right", doubt)]


def test_a_folder_of_notebooks_becomes_a_table(tmp_path, capsys):
    """By folder or by the end of the file's name; what is no notebook is a row, too."""
    source = notebook(cell("my_weights = None"), cell(CHECK))
    handed_in = notebook(cell(ANSWER, 1), cell(CHECK, 2, "✓ Right.\n"))
    repository, folder = tmp_path / "repository", tmp_path / "in"
    files.write_atomically(repository / "notebooks/01_toy.ipynb", json.dumps(source))
    files.write_atomically(folder / "ada/01_toy.ipynb", json.dumps(handed_in))
    files.write_atomically(folder / "01_toy-bob.ipynb", json.dumps(notebook()))
    files.write_atomically(folder / "eve/01_toy.ipynb", "no notebook")
    files.write_atomically(folder / ".ipynb_checkpoints/01_toy.ipynb", "no notebook")
    assert grading.main([str(folder)], repository) == 0
    grades = pd.read_csv(artifacts.root() / "grades.csv", keep_default_na=False)
    assert list(zip(grades.name, grades.notebook, grades.mark, strict=True)) == [
        ("bob", "01_toy", "missing"),
        ("ada", "01_toy", "right"),
        ("eve", "01_toy", "no notebook"),
    ]
    exported = (artifacts.root() / "nbgrader.csv").read_text()
    assert "01_toy,,,ada,,,,1.0,0.0,1.0,1.0\n" in exported and "01_toy,,,bob,,,,0.0,0.0,0.0,1.0\n" in exported
    page = (artifacts.root() / "grades.md").read_text()
    assert "nothing was run here" in page and "| ada | 01_toy | 1 |" in page


def test_a_doubtful_mark_gives_no_point():
    """And what somebody did not hand in gives none either."""
    row = {"notebook": "01_toy", "exercise": "edm_weights", "mark": "right", "doubt": "", "said": ""}
    rows = [{**row, "name": "ada"}, {**row, "name": "bob", "doubt": "an output without a run"}]
    found = grading.points(pd.DataFrame([*rows, {**row, "name": "ada", "notebook": "02_toy"}]))
    scores = {(one.assignment, one.student_id): (one.score, one.max_score) for one in found.itertuples()}
    assert scores == {
        ("01_toy", "ada"): (1, 1),
        ("01_toy", "bob"): (0, 1),
        ("02_toy", "ada"): (1, 1),
        ("02_toy", "bob"): (0, 1),
    }


def test_without_a_folder_nothing_is_read(tmp_path, capsys):
    with pytest.raises(SystemExit):
        grading.main([""], tmp_path)
    assert "which folder? make grade FOLDER=handed_in" in capsys.readouterr().err


def test_an_empty_folder_is_named(tmp_path, capsys):
    assert grading.main([str(tmp_path)], tmp_path) == 2
    assert f"{tmp_path} holds no handed-in notebooks" in capsys.readouterr().err
