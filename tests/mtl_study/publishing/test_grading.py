"""What is read off handed-in notebooks, and what makes a mark doubtful."""

import json

import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from mtl_core import files
from mtl_study import artifacts
from mtl_study.publishing import grading, handouts, notebooks
from mtl_study.teaching import marking

ANSWER, CHECK = "my_weights = [0.75, 0.25]", 'check("edm_weights", my_weights)'


def cell(source, count=None, text=None):
    outputs = [] if text is None else [new_output("stream", name="stdout", text=text)]
    return new_code_cell(source, execution_count=count, outputs=outputs)


def notebook(*cells):
    return new_notebook(cells=list(cells))


def marks(*cells, expected=None):
    """As read from a notebook that was handed out with these exercises; if not said otherwise, with all it checks."""
    found = notebook(*cells)
    asked = notebooks.checks(found) if expected is None else expected
    return [(row["mark"], row["doubt"]) for row in grading.marks(found, asked)]


def test_marks_are_read_off_the_outputs():
    right = "✓ Right. As 1/|g₁| to 1/|g₂|; the angle\n  plays no part.\n"
    assert marks(cell(ANSWER, 1), cell(CHECK, 2, right)) == [("right", "")]
    (row,) = grading.marks(notebook(cell(ANSWER, 1), cell(CHECK, 2, right)), ["edm_weights"])
    assert row["said"] == "✓ Right. As 1/|g₁| to 1/|g₂|; the angle plays no part."
    assert marks(cell(ANSWER, 1), cell(CHECK, 2, "✗ Not yet. You gave x.\n")) == [("wrong", "")]
    assert marks(cell(ANSWER, 1), cell(CHECK, 2, "○ Not answered yet.\n")) == [("unanswered", "")]
    assert marks(cell(ANSWER), cell(CHECK)) == [("not run", "")]
    assert marks(cell(ANSWER), expected=["edm_weights"]) == [("missing", "")]


def test_two_checks_of_one_cell_are_told_apart():
    both = cell(f'{CHECK}\ncheck("least_c", my_c)', 3, "✗ Not yet. A.\n  More.\n✓ Right.\n")
    rows = grading.marks(notebook(cell("my_weights, my_c = 1, 2", 1), both), ["edm_weights", "least_c"])
    assert [(row["exercise"], row["mark"]) for row in rows] == [("edm_weights", "wrong"), ("least_c", "right")]


@pytest.mark.parametrize(
    ("answer", "count", "checked", "doubt"),
    [
        ("my_weights = None", 1, 2, "right, but there is no answer"),
        ("my_weights = [0.75, 0.25]\nmy_weights = None", 1, 2, "right, but there is no answer"),
        ("my_weights = ...", 1, 2, "right, but there is no answer"),
        ("my_weights: list = None", 1, 2, "right, but there is no answer"),
        ("(my_weights := None)", 1, 2, "right, but there is no answer"),
        ("a, (my_weights, b) = 1, (None, 2)", 1, 2, "right, but there is no answer"),
        ("def mine(g):\n    my_weights = [0.75, 0.25]", 1, 2, "right, but there is no answer"),
        ("my_other = [0.75, 0.25]", 1, 2, "right, but there is no answer"),
        ("my_weights = [0.75, 0.25", 1, 2, "right, but there is no answer"),
        (ANSWER, 3, 2, "the answer was run again after its check"),
        (ANSWER, None, 2, "an output without a run"),
        (ANSWER, 1, None, "an output without a run"),
    ],
)
def test_what_does_not_fit_is_named(answer, count, checked, doubt):
    assert marks(cell(answer, count), cell(CHECK, checked, "✓ Right.\n")) == [("right", doubt)]


@pytest.mark.parametrize(
    "answer",
    [
        "def my_weights(gramian):\n    return None",
        "class my_weights:\n    pass",
        "my_weights: list = [0.75, 0.25]",
        "print(my_weights := [0.75, 0.25])",
        "from of_mine import good as my_weights",
        "for my_weights in ([1, 0], [0.75, 0.25]):\n    pass",
        "%time x = 1\nmy_weights, other = [0.75, 0.25], None",
        "(my_weights, *_) = found",
    ],
)
def test_the_last_binding_is_the_answer(answer):
    """Whatever its form, below the line that was handed out, in the same cell or in the next."""
    check = cell(CHECK, 3, "✓ Right.\n")
    assert marks(cell(f"my_weights = None  # your function\n{answer}", 1), check) == [("right", "")]
    assert marks(cell("my_weights = None", 1), cell(answer, 2), check) == [("right", "")]
    assert marks(cell(answer, 1), cell("my_weights = None", 2), check) == [("right", "right, but there is no answer")]


def test_of_two_answers_each_is_looked_at():
    both = cell('check("two_readings", (my_first, my_second))', 3, "✓ Right.\n")
    first, second = cell("my_first = 1", 1), cell("my_second = 2", 2)
    assert marks(first, second, both) == [("right", "")]
    assert marks(cell("my_first = None", 1), second, both) == [("right", "right, but there is no answer")]
    assert marks(cell("my_first = 1", 4), second, both) == [("right", "the answer was run again after its check")]


@pytest.mark.parametrize(
    ("now", "doubt"),
    [
        ("seeded(7)", ""),
        ("seeded(0)", "the numbers of seed 0, handed out with 7"),
        ("marking.seeded(seed=3)", "the numbers of seed 3, handed out with 7"),
        ("seeded(7)\nseeded(0)", "the numbers of seed 7 and 0, handed out with 7"),
        ("x = 1", "the numbers of seed 0, handed out with 7"),
    ],
)
def test_another_seed_than_the_one_handed_out_is_named(now, doubt):
    """Where an exercise has numbers."""
    source = notebook(
        cell(ANSWER, 2), cell(CHECK, 3, "✓ Right.\n"), cell('check("least_c", my_weights)', 4, "✓ Right.")
    )
    done = handouts.handed_out(source, "runs", 7)
    (place,) = [one for one in done.cells if "seeded(7)" in one.source]
    place.source = place.source.replace("seeded(7)", now)
    found = {row["exercise"]: row["doubt"] for row in grading.marks(done, ["edm_weights", "least_c"])}
    numbers = {name: bool(marking.find(name).numbers) for name in found}
    assert numbers["edm_weights"] and found == {name: doubt if numbers[name] else "" for name in found}


def test_a_seed_that_nobody_handed_out_is_named():
    own = cell("seeded(5)", 1)
    doubt = "the numbers of seed 5, handed out with 0"
    assert marks(own, cell(ANSWER, 2), cell(CHECK, 3, "✓ Right.\n")) == [("right", doubt)]


@pytest.mark.parametrize("path", notebooks.find(artifacts.REPOSITORY / "notebooks"), ids=lambda path: path.stem)
def test_solutions_leave_no_doubt_and_what_is_handed_out_does(path):
    """Were every check to print that all is right."""
    source = notebooks.read(path)
    for theirs, doubt in ((source, ""), (handouts.student(source), "right, but there is no answer")):
        for i, one in enumerate(one for one in theirs.cells if one.cell_type == "code"):
            one.execution_count = i + 1
            one.outputs = [
                new_output("stream", name="stdout", text="✓ Right.\n" * len(notebooks.checks_in(one.source)))
            ]
        found = grading.marks(theirs, notebooks.checks(source))
        assert {(row["mark"], row["doubt"]) for row in found} == {("right", doubt)}


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


def test_points_are_of_what_was_handed_out(tmp_path, capsys):
    """A copy adds none, nor does a check that somebody wrote, nor another notebook's content; what cannot be read takes
    none from the most that there is. A folder is one, whatever its name."""
    right = notebook(cell(ANSWER, 1), cell(CHECK, 2, "✓ Right.\n"))
    more = notebook(*right.cells, cell('check("gate", my_weights)', 3, "✓ Right.\n"))
    empty = json.dumps(notebook(cell("my_weights = None"), cell(CHECK)))
    folder, repository = tmp_path / "in", tmp_path / "repository"
    for stem in ("01_toy", "02_toy", "03_toy"):
        files.write_atomically(repository / f"notebooks/{stem}.ipynb", empty)
    files.write_atomically(repository / "notebooks/02_toy.ipynb", empty.replace("edm_weights", "least_c"))
    for within, text in {
        "ada/01_toy.ipynb": json.dumps(right),
        "ada/01_toy-Copy1.ipynb": json.dumps(more),
        "ada/old/01_toy.ipynb": json.dumps(right),
        "bob/01_toy-Copy2.ipynb": json.dumps(right),
        "cem/01_toy.ipynb": json.dumps(more),
        "01_toy-dan.ipynb": json.dumps(right),
        "01_toy-dan (1).ipynb": json.dumps(right),
        "eve/02_toy.ipynb": json.dumps(right),
        "eve/03_toy.ipynb": "no notebook",
        "eve/O1_toy.ipynb": json.dumps(right),
        "x.ipynb/01_toy.ipynb": json.dumps(right),
    }.items():
        files.write_atomically(folder / within, text)
    assert grading.main([str(folder)], repository) == 0
    found = pd.read_csv(artifacts.root() / "nbgrader.csv")
    points = {name: dict(zip(own.assignment, own.score, strict=True)) for name, own in found.groupby("student_id")}
    full, none = ({"01_toy": score, "02_toy": 0, "03_toy": 0} for score in (1, 0))
    assert points == {**dict.fromkeys(["ada", "bob", "cem", "dan", "x.ipynb"], full), "eve": none}
    assert set(found.max_score) == {1}
    grades = pd.read_csv(artifacts.root() / "grades.csv", keep_default_na=False)
    copies = grades[grades.mark == "a copy"]
    assert set(copies.said) == {
        "ada/01_toy-Copy1.ipynb does not count, ada/01_toy.ipynb does.",
        "ada/old/01_toy.ipynb does not count, ada/01_toy.ipynb does.",
        "01_toy-dan (1).ipynb does not count, 01_toy-dan.ipynb does.",
    }
    added = grades[grades.doubt == "not an exercise of this notebook"]
    assert list(zip(added.name, added.exercise, strict=True)) == [("cem", "gate"), ("eve", "edm_weights")]
    unread = dict(zip(*[grades[grades.mark == "no notebook"][column] for column in ("notebook", "said")], strict=True))
    assert "is no notebook" in unread["03_toy"] and "(did you mean '01_toy'?)" in unread["O1_toy"]


def test_without_a_notebook_of_ours_there_are_no_points(tmp_path, capsys):
    """And metadata that somebody broke are named."""
    files.write_atomically(tmp_path / "notebooks/01_toy.ipynb", json.dumps(notebook(cell(ANSWER), cell(CHECK))))
    files.write_atomically(tmp_path / "in/ada/mine.ipynb", json.dumps(notebook(cell(ANSWER, 1))))
    assert grading.main([str(tmp_path / "in")], tmp_path) == 0
    assert (artifacts.root() / "nbgrader.csv").read_text() == ",".join(grading.EXPORTED) + "\n"
    broken = notebook(cell(ANSWER, 1), cell(CHECK, 2, "✓ Right.\n"))
    broken.metadata[handouts.OURS] = {"seed": "seven"}
    files.write_atomically(tmp_path / "in/ada/01_toy.ipynb", json.dumps(broken))
    assert grading.main([str(tmp_path / "in")], tmp_path) == 0
    assert "seven" in (artifacts.root() / "grades.md").read_text()
    assert "01_toy,,,ada,,,,0.0,0.0,0.0,1.0\n" in (artifacts.root() / "nbgrader.csv").read_text()


def test_a_doubtful_mark_gives_no_point():
    """And what somebody did not hand in gives none either."""
    row = {"notebook": "01_toy", "exercise": "edm_weights", "mark": "right", "doubt": "", "said": ""}
    rows = [{**row, "name": "ada"}, {**row, "name": "bob", "doubt": "an output without a run"}]
    ours = {"01_toy": ["edm_weights"], "02_toy": ["edm_weights", "least_c"], "03_toy": ["gate"]}
    found = grading.points(pd.DataFrame([*rows, {**row, "name": "ada", "notebook": "02_toy"}]), ours)
    scores = {(one.assignment, one.student_id): (one.score, one.max_score) for one in found.itertuples()}
    assert scores == {
        ("01_toy", "ada"): (1, 1),
        ("01_toy", "bob"): (0, 1),
        ("02_toy", "ada"): (1, 2),
        ("02_toy", "bob"): (0, 2),
    }


def test_without_a_folder_nothing_is_read(tmp_path, capsys):
    with pytest.raises(SystemExit):
        grading.main([""], tmp_path)
    assert "which folder? make grade FOLDER=handed_in" in capsys.readouterr().err


def test_an_empty_folder_is_named(tmp_path, capsys):
    assert grading.main([str(tmp_path)], tmp_path) == 2
    assert f"{tmp_path} holds no handed-in notebooks" in capsys.readouterr().err
