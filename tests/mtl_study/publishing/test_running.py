"""One notebook in its kernel: what stops it, and what is left then. Most of it with a stand-in for papermill."""

import io
import json
import time
import xml.etree.ElementTree as ET

import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from papermill.engines import NotebookExecutionManager

from mtl_study import artifacts, commands
from mtl_study.parameters import schemas
from mtl_study.publishing import pages, reproduce, running
from mtl_study.publishing.running import Job, Limits, Lines, NotebookFailed

MINUTE = 60.0


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A repository with notebooks 01 and 02 and a preset for each; `papermill` copies a notebook instead of running
    it, unless `toy.raises` has an error for it."""
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path / "artifacts"))
    for stem in ("01_first", "02_second"):
        monkeypatch.setitem(schemas.SCHEMAS, stem, schemas.Parameters)
        for path in (tmp_path / f"notebooks/{stem}.ipynb", tmp_path / f"params/smoke/{stem}.yaml"):
            path.parent.mkdir(parents=True, exist_ok=True)
        parameters = new_code_cell('preset = "quick"', metadata={"tags": ["parameters"]})
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        cells = [new_markdown_cell(f"# {stem}"), parameters, new_code_cell("x = 1")]
        nbformat.write(new_notebook(cells=cells, metadata=kernel), tmp_path / f"notebooks/{stem}.ipynb")
        (tmp_path / f"params/smoke/{stem}.yaml").write_text("preset: smoke\n")
    raises = {}

    def execute(source, target, **_):
        notebook = nbformat.read(source, as_version=4)
        for cell in notebook.cells[1:]:
            cell.metadata["papermill"] = {"start_time": "now"}
        nbformat.write(notebook, target)
        if source.stem in raises:
            raise raises[source.stem]

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    tmp_path.joinpath("raises").mkdir()
    return tmp_path, raises


def states(repository):
    shown = pages.sections(artifacts.root() / "smoke", sorted((repository / "notebooks").glob("*.ipynb")))
    return [section.state for section in shown]


def outcome():
    written = json.loads((artifacts.root() / "smoke/summary.json").read_text())
    cases = ET.parse(artifacts.root() / "smoke/junit.xml").getroot()
    failed = [case.get("name") for case in cases if case.find("failure") is not None]
    assert cases.get("failures") == str(len(failed)) and cases.get("tests") == str(len(cases))
    return written["outcome"], written["exit"], failed


def test_a_page_that_cannot_be_made_costs_no_later_notebook(toy, monkeypatch, capsys):
    repository, _ = toy
    whole = running.to_html

    def to_html(notebook, name):
        if name == "01_first":
            raise RuntimeError("a filter broke")
        return whole(notebook, name)

    monkeypatch.setattr(running, "to_html", to_html)
    assert reproduce.main([], repository) == commands.FAILED
    assert (
        "01_first.ipynb was executed. Its page could not be made: RuntimeError: a filter broke"
        in capsys.readouterr().out
    )
    names = {path.name for path in (artifacts.root() / "smoke/notebooks").iterdir()}
    assert names == {"01_first.ipynb", "02_second.ipynb", "02_second.html"}
    page = (artifacts.root() / "smoke/index.html").read_text()
    assert "a filter broke" in page and "notebooks/01_first.html" not in page


def test_a_failed_notebook_is_the_last_thing_that_is_said(toy, capsys):
    """With its page up to the error; and a program reads the same from summary.json, junit.xml and the exit code."""
    repository, raises = toy
    raises["01_first"] = ValueError("no such thing <b>")
    assert reproduce.main([], repository) == commands.FAILED
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("✗ 01_first: Stopped in cell [*], which begins `x = 1`: ValueError: no such thing")
    html = (artifacts.root() / "smoke/notebooks/01_first.failed.html").read_text()
    assert "no such thing &lt;b&gt;" in html and "x" in html
    assert states(repository) == ["failed", "done"] and outcome() == ("failed", 1, ["01_first"])
    raises.clear()
    assert reproduce.main(["--only", "01"], repository) == commands.PASSED
    assert states(repository) == ["done", "done"] and outcome() == ("passed", 0, [])
    assert not (artifacts.root() / "smoke/notebooks/01_first.failed.html").exists()


def test_an_interrupted_notebook_is_not_one_that_was_not_run(toy):
    repository, raises = toy
    raises["01_first"] = KeyboardInterrupt()
    assert reproduce.main([], repository) == commands.INTERRUPTED
    assert states(repository) == ["failed", "not run"] and outcome()[:2] == ("interrupted", 130)
    assert "interrupted" in (artifacts.root() / "smoke/index.html").read_text()


def with_one_cell(folder, code):
    """A notebook for a kernel of its own: a title, and this cell."""
    path = folder / "01_toy.ipynb"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Toy"), new_code_cell(code)], metadata=kernel), path)
    return path


def test_an_interrupt_before_the_first_cell_with_code_is_told(tmp_path, monkeypatch):
    """papermill starts texts as it starts code, but a text has no number."""
    start = NotebookExecutionManager.cell_start

    def interrupted(*arguments, **named):
        start(*arguments, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(NotebookExecutionManager, "cell_start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        running.run(Job(with_one_cell(tmp_path, "1 + 1"), {}), tmp_path, tmp_path / "out")
    kept = nbformat.read(tmp_path / "out/notebooks/01_toy.failed.ipynb", as_version=4)
    assert kept.metadata["failure"] == "Stopped at the text that begins `# Toy`: interrupted"
    assert sorted(path.name for path in (tmp_path / "out/notebooks").iterdir()) == [
        "01_toy.failed.html",
        "01_toy.failed.ipynb",
    ]


IN_THE_LAST_MESSAGE = """import inspect, time
handlers = get_ipython().kernel.shell_handlers
answer = handlers["kernel_info_request"]

async def slowly(*message):
    answered = answer(*message)
    if inspect.isawaitable(answered):
        await answered
    time.sleep(5)

handlers["kernel_info_request"] = slowly"""


def test_on_success_a_kernel_says_nothing_of_its_end(tmp_path, capfd):
    """It is interrupted before it is asked to stop. In the middle of a message it would call that an error,
    "KeyboardInterrupt caught in kernel"; here the last one takes long enough."""
    running.run(Job(with_one_cell(tmp_path, IN_THE_LAST_MESSAGE), {}), tmp_path, tmp_path / "out")
    assert "".join(capfd.readouterr()) == ""


def test_one_that_was_killed_is_neither(toy, monkeypatch):
    """Nothing could be written at its end: only the mark that it was begun is there."""
    repository, raises = toy
    raises["01_first"] = SystemExit()
    with pytest.raises(SystemExit):
        reproduce.main([], repository)
    assert states(repository) == ["stopped", "not run"]


def test_a_refusal_is_told_apart_by_code_and_summary(toy):
    repository, _ = toy
    assert reproduce.main(["--only", "07"], repository) == commands.REFUSED
    assert outcome() == ("refused", 2, ["request"])
    assert reproduce.main(["--preset", "smoke", "--check"], repository) == commands.REFUSED
    assert reproduce.main(["--preset", "../smoke"], repository) == commands.REFUSED
    assert {path.name for path in repository.iterdir()} == {"artifacts", "notebooks", "params", "raises"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limits", "code", "says"),
    [
        (Limits(seconds=3), "import time; time.sleep(1000)", "it took longer than the limit of 3 seconds"),
        (
            Limits(memory=2**30),
            "x = b'x' * 2**31; import time; time.sleep(1000)",
            "GiB of memory, above the limit of 1",
        ),
    ],
)
def test_a_notebook_beyond_its_limit_is_ended(tmp_path, limits, code, says):
    begin = time.monotonic()
    with pytest.raises(NotebookFailed, match=says):
        running.run(Job(with_one_cell(tmp_path, code), {}), tmp_path, tmp_path / "out", limits)
    assert time.monotonic() - begin < MINUTE
    assert says in (tmp_path / "out/notebooks/01_toy.failed.html").read_text()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_has_lines_and_a_terminal_everything():
    """Of a progress bar a log has the last state, however the text is cut."""
    bar = "".join(f"\r{n}%|{'#' * n}| {n}/100" for n in range(101))
    text = f"a warning\n{bar}\nthe end\r\n\rnext: 50%"
    for size in (1, 7, 1000, len(text)):
        log, terminal = io.StringIO(), Terminal()
        for to in (log, terminal):
            lines = Lines(to)
            for start in range(0, len(text), size):
                lines.write(text[start : start + size])
            lines.close()
        assert log.getvalue().splitlines() == ["a warning", f"100%|{'#' * 100}| 100/100", "the end", "next: 50%"], size
        assert terminal.getvalue() == text
