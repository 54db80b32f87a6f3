"""The one command: what it refuses, what it leaves behind, what it does when a notebook fails."""

import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from mtl_core import files
from mtl_study import artifacts, commands
from mtl_study.paper import rules
from mtl_study.paper.claims import COLUMNS
from mtl_study.parameters import schemas
from mtl_study.parameters.checking import Table
from mtl_study.publishing import notebooks, pages, report, reproduce


class Options(Table):
    c: float


class Toy(schemas.Parameters):
    lr: float
    seeds: schemas.Seeds
    data_dir: None
    options: Options
    decide: bool


class Stored(schemas.Parameters):
    store: str


PARAMETERS = """
preset = "quick"
lr = 0.001  # Adam step size
seeds = [1, 2]
data_dir = None
options = {"c": 0.5}
decide = False
"""
VALUES = {"preset": "smoke", "lr": 0.1, "seeds": [1], "data_dir": None, "options": {"c": 0.4}, "decide": True}

WORK = """
import os, sys
from pathlib import Path
import matplotlib.pyplot as plt, pandas as pd
from tqdm import tqdm
from mtl_core import files
from mtl_study import artifacts
for _ in tqdm(range(5), desc="toy runs"):
    pass
fig, ax = plt.subplots()
ax.plot(seeds)
artifacts.save_figure(fig, "01_line", preset, "A <line>", "One dot per seed & run.")
claim = {"id": "T1", "says": "a | b", "where": "section 0", "paper": -65.1234567, "ours": [1.0, None], "n": 2,
         "estimate": 1.5, "low": 0.7, "high": 2.3, "unit": "points", "settles": "", "also": [], "of": "",
         "verdict": "reproduced", "why": "all lie above", "rule": "above 0.5 %.", "preset": preset}
open_one = {**claim, "id": "T2", "verdict": "open", "why": "it crosses 0.5", "settles": "12 more seeds, 40 minutes",
            "also": [{**claim, "reading": "as released"}]}
barred = {**claim, "id": "T3", "verdict": "cannot be judged", "why": "smoke decides nothing",
          "settles": "the preset paper"}
files.write_json(artifacts.folder(preset) / "claims" / "01_toy.json", [claim, open_one, barred])
Path("here.json").write_text(f'["{sys.executable}", "{os.getcwd()}"]')
artifacts.save_table(pd.DataFrame({"smto": ["edm"], "lr": [lr]}), "01_numbers", preset, "Numbers", "From one run.")
"""


def write_notebook(path: Path, *cells, parameters=PARAMETERS) -> None:
    """A notebook with a title, a parameters cell and these cells."""
    start = [new_markdown_cell("# A toy question"), new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=[*start, *cells], metadata=kernel), path)


def write_preset(path: Path, values: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values, sort_keys=False))


@pytest.fixture
def toy(tmp_path, monkeypatch) -> Path:
    """A repository of one notebook and one preset."""
    for name in ("00_broken", "00_first", "01_toy"):
        monkeypatch.setitem(schemas.SCHEMAS, name, Toy)
    remark = new_code_cell("print('what was', 'measured')", metadata={"tags": ["remark"]})
    solution = new_code_cell("answer = 42", metadata={"tags": ["solution"]})
    write_notebook(tmp_path / "notebooks" / "01_toy.ipynb", new_code_cell(WORK), remark, solution)
    write_preset(tmp_path / "params" / "smoke" / "01_toy.yaml", VALUES)
    return tmp_path


# -- refused before anything runs --------------------------------------------------------------------------------------


def refusal(toy, capsys, *arguments, **changed) -> str:
    """What the command says when it refuses these arguments, or the preset with these values (... takes one out)."""
    values = {name: value for name, value in {**VALUES, **changed}.items() if value is not ...}
    write_preset(toy / "params" / "smoke" / "01_toy.yaml", values)
    assert reproduce.main(list(arguments), toy) == 2
    assert not (toy / "here.json").exists()
    return capsys.readouterr().out


def test_an_unknown_preset_is_refused_by_name(toy, capsys):
    for more in ([], ["--report"]):
        message = refusal(toy, capsys, "--preset", "smok", *more)
        assert "no preset 'smok' (did you mean 'smoke'?)" in message
    assert "no preset ''. Presets are the folders of" in refusal(toy, capsys, "--preset", "")


def test_an_unknown_notebook_is_refused_by_name(toy, capsys):
    assert "no notebook '01_tyo' (did you mean '01_toy'?)" in refusal(toy, capsys, "--only", "01_tyo")
    assert "no notebook '07'" in refusal(toy, capsys, "--only", "01,07")
    assert "ONLY is blank" in refusal(toy, capsys, "--only", " ")


def test_a_number_means_all_parts_of_a_lesson_and_a_part_has_its_own():
    found = [Path(f"{name}.ipynb") for name in ("02_a", "02b_b", "05_a", "05b_b", "05c_c")]

    def chosen(*only):
        return [path.stem for path in reproduce.choose(found, list(only))]

    assert chosen("05") == chosen("5") == ["05_a", "05b_b", "05c_c"]
    assert chosen("5c", "02b") == ["02b_b", "05c_c"] and chosen("05_a") == ["05_a"]


def test_an_unknown_parameter_is_refused_with_its_place_and_the_nearest_name(toy, capsys):
    message = refusal(toy, capsys, sedes=[1])
    assert "unknown parameter 'sedes' (did you mean 'seeds'?)" in message
    assert str(Path("params") / "smoke" / "01_toy.yaml") in message


def test_a_missing_parameter_is_refused(toy, capsys):
    assert "missing: lr" in refusal(toy, capsys, lr=...)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"lr": "1e-3"}, 'lr is text ("1e-3"), expected a number; YAML takes 1e-3 for text: write 0.001'),
        ({"seeds": 3}, "seeds is a whole number (3), expected a list; write [3]"),
        ({"seeds": [1, "two"]}, 'seeds[1] is text ("two"), expected a whole number'),
        ({"seeds": ["1e1"]}, "expected a whole number; YAML takes 1e-3 for text: write 10"),
        ({"options": {"c": "5e-1"}}, 'options.c is text ("5e-1")'),
        ({"options": {"d": 0.5}}, "unknown parameter 'options.d'"),
        ({"decide": 1}, "decide is a whole number (1), expected true/false"),
        ({"lr": None}, "lr is null (null), expected a number"),
        ({"preset": "quick"}, "preset is 'quick', expected 'smoke'"),
    ],
    ids=str,
)
def test_a_wrong_type_is_refused(toy, capsys, changed, says):
    assert says in refusal(toy, capsys, **changed)


def test_all_that_is_wrong_is_said_at_once(toy, capsys):
    message = refusal(toy, capsys, lr="1e-3", sedes=[1], decide=...)
    assert all(word in message for word in ("lr is text", "'sedes'", "missing: decide"))


def test_a_parameter_given_twice_is_refused(toy, capsys):
    path = toy / "params" / "smoke" / "01_toy.yaml"
    path.write_text(path.read_text() + "lr: 0.2\n")
    assert reproduce.main([], toy) == 2
    assert "given twice: lr" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "says"), [("lr: [1", "is no YAML"), ("- 1\n", "expected lines `name: value`"), (None, "is missing")]
)
def test_a_preset_file_that_is_none_is_refused(toy, capsys, text, says):
    path = toy / "params" / "smoke" / "01_toy.yaml"
    path.unlink() if text is None else path.write_text(text)
    assert reproduce.main([], toy) == 2
    message = capsys.readouterr().out
    assert says in message and "01_toy.yaml" in message


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ("n = len(seeds)", "may only hold lines `name = literal`; this one is not: n = len(seeds)"),
        ("import os", "this one is not: import os"),
        ("lr = 1\nlr = 2", "sets lr twice"),
        ("lr = ", "is no Python"),
    ],
)
def test_a_parameters_cell_that_computes_is_refused(toy, capsys, parameters, says):
    write_notebook(toy / "notebooks" / "01_toy.ipynb", parameters=parameters)
    assert reproduce.main([], toy) == 2
    assert says in capsys.readouterr().out


def test_a_store_that_no_notebook_takes_is_refused(toy, capsys):
    assert "none of these notebooks has a parameter 'store'" in refusal(toy, capsys, "--store", "somewhere")


def test_the_store_replaces_that_of_the_preset(toy, monkeypatch):
    monkeypatch.setitem(schemas.SCHEMAS, "01_toy", Stored)
    write_notebook(toy / "notebooks" / "01_toy.ipynb", parameters='store: str = "runs"')
    write_preset(toy / "params" / "smoke" / "01_toy.yaml", {"preset": "smoke", "store": "results"})
    (job,) = reproduce.plan(toy, "smoke", [], {"store": "elsewhere"})
    assert job.values == {"preset": "smoke", "store": "elsewhere"}


# -- what a run leaves -------------------------------------------------------------------------------------------------


def test_a_notebook_goes_through_the_whole_of_it(toy, capsys, monkeypatch):
    monkeypatch.setattr(rules, "figures", lambda: {"T1": ["01_line"]})
    out = toy / "out"
    assert reproduce.main(["--artifacts", str(out)], toy) == 0
    folder = out / "smoke"
    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert written == {
        "claims.json",
        "claims/01_toy.json",
        "figures/01_line.json",
        "figures/01_line.pdf",
        "figures/01_line.png",
        "index.html",
        "junit.xml",
        "notebooks/01_toy.html",
        "notebooks/01_toy.ipynb",
        "summary.json",
        "tables/01_numbers.csv",
        "tables/01_numbers.json",
        "tables/01_numbers.md",
    }
    # this interpreter, in the repository
    python, place = json.loads((toy / "here.json").read_text())
    assert (python, Path(place)) == (sys.executable, toy.resolve())

    # the preset's values reached the notebook, and the progress bar the terminal; one state of it is kept
    assert (folder / "tables/01_numbers.csv").read_text() == "smto,lr\nedm,0.1\n"
    assert "| edm | 0.1 |" in (folder / "tables/01_numbers.md").read_text()
    assert "toy runs: 100%" in capsys.readouterr().err
    executed = notebooks.read(folder / "notebooks/01_toy.ipynb")
    bars = [o.text for cell in executed.cells for o in cell.get("outputs", []) if o.get("name") == "stderr"]
    assert len(bars) == 1 and bars[0].startswith("toy runs: 100%") and "\r" not in bars[0]

    html = (folder / "notebooks/01_toy.html").read_text()
    assert "what was measured" in html and "&#39;measured&#39;" not in html  # of a remark, the sentence alone
    assert "answer" in html
    assert html.index('href="../index.html"') < html.index("<main>")
    assert not re.findall(r"https?://[^\"'\s]*\.(?:js|css|mjs)|<script", html)
    assert re.sub("<[^>]*>", "", html).count("lr = ") == 1  # the parameters, once

    page = (folder / "index.html").read_text()
    for shown in (
        "A &lt;line&gt;",
        "One dot per seed &amp; run.",
        'src="figures/01_line.png" width=',
        "figures/01_line.pdf",
    ):
        assert shown in page
    for shown in (
        "A toy question",
        "−65.12",
        "1, –",
        "above 0.5 %.",
        "all lie above",
        'class="badge yes">reproduced',
        'class="badge open">open',
        "12 more seeds, 40 minutes would settle it",
        "as released: reproduced, 1.50 points (0.70 to 2.30)",
        'class="badge barred">cannot be judged',
        "the preset paper would let it be judged",
        'data-head="smto" style="text-align:left">edm</td>',
    ):
        assert shown in page
    assert "http" not in page
    assert [claim["id"] for claim in json.loads((folder / "claims.json").read_text())] == ["T1", "T2", "T3"]

    # and from these artifacts alone, twice the same report
    reports = []
    for _ in range(2):
        assert reproduce.main(["--preset", "smoke", "--artifacts", str(out), "--report"], toy) == 0
        reports.append((toy / "REPORT.md").read_bytes())
    text = reports[0].decode()
    assert reports[0] == reports[1]
    assert (
        "**Reproduced**, all lie above. We measured: 1, –. Claim (section 0): a | b Rule: above 0.5 %. Code: [" in text
    )
    assert "![A &lt;line&gt;: One dot per seed &amp; run.](docs/report/01_line.png)" in text
    assert "| edm | 0.1 |" in text and r"a \| b" in text
    assert text.index("01_line.png") < text.index("| edm |") < text.index("#### T1") < text.index("| [T1](#t1) |")
    shipped = json.loads((toy / "docs/report/claims.json").read_text())
    assert [tuple(row) for row in shipped] == [COLUMNS] * 3 and shipped[1]["settles"] == "12 more seeds, 40 minutes"
    assert (toy / "docs/report/01_line.png").read_bytes() == (folder / "figures/01_line.png").read_bytes()


def test_a_failing_notebook_is_kept_and_the_others_still_run(toy, capsys):
    print_all = new_code_cell("print(1)")
    write_notebook(toy / "notebooks/00_broken.ipynb", print_all, new_code_cell("x = 1\nraise KeyError('nowhere')"))
    write_notebook(toy / "notebooks/01_toy.ipynb", print_all)
    write_preset(toy / "params/smoke/00_broken.yaml", VALUES)
    folder = toy / "out/smoke"
    files.write_atomically(folder / "figures/00_old.png", b"from an earlier execution")

    assert reproduce.main(["--artifacts", str(toy / "out")], toy) == 1
    said = capsys.readouterr().out
    assert "00_broken.ipynb stopped in cell [4], which begins `x = 1`: KeyError: 'nowhere'" in said
    assert {path.name for path in (folder / "notebooks").iterdir()} == {
        "00_broken.failed.html",
        "00_broken.failed.ipynb",
        "01_toy.html",
        "01_toy.ipynb",
    }
    kept = notebooks.read(folder / "notebooks/00_broken.failed.ipynb")
    texts = [output.get("text") for cell in kept.cells for output in cell.get("outputs", [])]
    assert "1\n" in texts
    assert not (folder / "figures/00_old.png").exists()
    page = (folder / "index.html").read_text()
    assert "KeyError: &#39;nowhere&#39;" in page and "00_broken.failed.ipynb" in page

    assert reproduce.main(["--preset", "smoke", "--artifacts", str(toy / "out"), "--report"], toy) == 1
    assert "00_broken: it failed. Stopped in cell [4]" in capsys.readouterr().out


def test_a_kernel_that_dies_is_a_failure_that_names_the_cell(toy, capsys):
    write_notebook(toy / "notebooks/01_toy.ipynb", new_code_cell("import os\nos.kill(os.getpid(), 9)"))
    assert reproduce.main(["--artifacts", str(toy / "out")], toy) == 1
    said = capsys.readouterr().out
    assert "01_toy.ipynb stopped in cell" in said and "which begins `import os`: DeadKernelError" in said
    assert (toy / "out/smoke/notebooks/01_toy.failed.ipynb").exists()


@pytest.mark.slow
def test_an_interrupt_takes_the_kernel_along(toy):
    """The notebook writes down its process and sleeps; once the command is interrupted, that process is gone."""
    sleep = "import os, time\nfrom pathlib import Path\nPath('pid.part').write_text(str(os.getpid()))\n"
    sleep += "os.replace('pid.part', 'pid')\ntime.sleep(1000)"
    write_notebook(toy / "notebooks/01_toy.ipynb", new_code_cell(sleep))
    code = "import signal, sys; from pathlib import Path; from mtl_study.publishing import reproduce; "
    code += "reproduce.parameters.problems_of = lambda *_: []; "
    code += "signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += f"sys.exit(reproduce.main(['--artifacts', {str(toy / 'out')!r}], Path({str(toy)!r})))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        while not (toy / "pid").exists() and process.poll() is None:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        said = process.communicate()[0]
    assert process.returncode == 130 and "Stopped. Finished runs are kept" in said
    with pytest.raises(ProcessLookupError):
        os.kill(int((toy / "pid").read_text()), 0)


def test_what_an_older_version_left_behind_does_not_keep_notebooks_from_running(toy, capsys):
    write_notebook(toy / "notebooks/00_first.ipynb", new_code_cell("print(1)"))
    write_preset(toy / "params/smoke/00_first.yaml", VALUES)
    folder = toy / "out/smoke"
    files.write_json(folder / "claims/01_toy.json", [{"id": "T1"}])
    assert reproduce.main(["--artifacts", str(toy / "out"), "--only", "00"], toy) == 0
    page = (folder / "index.html").read_text()
    assert "01_toy.json: a claim lacks one of also, estimate" in page and "00_first.html" in page


def test_a_folder_that_cannot_be_written_is_named(toy, capsys):
    (toy / "out").write_text("a file where the folder should be")
    assert reproduce.main(["--artifacts", str(toy / "out")], toy) == commands.FAILED
    assert f"cannot write {toy / 'out'}" in capsys.readouterr().out


def test_a_report_of_what_was_never_run_says_what_to_run(toy, capsys):
    (toy / "params" / "quick").mkdir()
    assert reproduce.main(["--preset", "quick", "--report"], toy) == 1
    assert "make reproduce PRESET=quick" in capsys.readouterr().out


def test_each_notebook_ships_at_a_preset_of_its_own(toy, capsys):
    """All go to one folder, from which the report comes; they can be checked, and are where no preset is named."""
    to, ships = ("--artifacts", str(toy / "out")), toy / "params/shipped.yaml"
    assert reproduce.main(["--preset", "shipped", *to], toy) == commands.REFUSED
    assert f"{ships} should say at which preset 01_toy ships." in capsys.readouterr().out
    assert json.loads((toy / "out/shipped/summary.json").read_text())["outcome"] == "refused"
    ships.write_text("01_toy: smoke\n")
    assert reproduce.main(["--check", *to], toy) == commands.REFUSED
    assert "there are no shipped numbers to check against" in capsys.readouterr().out
    assert reproduce.main(["--preset", "shipped", *to], toy) == 0
    assert (toy / "out/shipped/figures/01_line.png").exists() and not (toy / "out/smoke").exists()
    manifest = json.loads((toy / "out/shipped/figures/01_line.json").read_text())
    assert manifest["preset"] == "smoke" and manifest["changed"] == []
    assert reproduce.main(["--report", *to], toy) == 0
    assert (toy / "REPORT.md").read_text().startswith("# What we measured: preset smoke\n")
    assert reproduce.main(["--check", *to], toy) == 0
    assert "Checked against the shipped numbers: all are the same." in capsys.readouterr().out
    assert reproduce.main(["--check", "--preset", "smoke", *to], toy) == 0  # at which it ships
    assert (toy / "out/smoke/figures/01_line.png").exists()

    write_preset(toy / "params/quick/01_toy.yaml", VALUES | {"preset": "quick"})
    ships.write_text("01_toy: quick\n")
    assert reproduce.main(["--report", *to], toy) == 1
    assert "01_toy: it ships at quick, and was run at smoke" in capsys.readouterr().out
    assert reproduce.main(["--check", "--preset", "smoke", *to], toy) == commands.REFUSED
    assert "the numbers of smoke cannot be checked: 01_toy ships at quick." in capsys.readouterr().out


def test_figures_and_tables_come_in_the_order_of_their_notebook(tmp_path):
    """A table that the notebook shows before a figure comes first, however they are called."""
    source, folder = tmp_path / "01_toy.ipynb", artifacts.folder("order")
    write_notebook(source, new_code_cell('show("01_z")'), new_code_cell('show("01_y")\nshow("01_x")'))
    for name in ("01_z", "01_x"):
        artifacts.save_table(pd.DataFrame({"lr": [0.1]}), name, "order", name, "")
    for name in ("01_unnamed", "01_y"):
        artifacts.save_figure(plt.figure(), name, "order", name, "")
    (section,) = pages.sections(folder, [source])
    assert [(picture.kind, picture.name) for picture in section.pictures] == [
        ("table", "01_z"),
        ("figure", "01_y"),
        ("table", "01_x"),
        ("figure", "01_unnamed"),
    ]


def test_nothing_that_was_recorded_becomes_a_tag(tmp_path):
    """A machine's name, a title or a claim with a script in it is shown as text: in the table's file, where the
    notebook shows it, on the index page and in the report. "1 < 2" stays as it is."""
    script, (preset, source) = "<script>alert(1)</script>", ("tags", tmp_path / "01_toy.ipynb")
    write_notebook(source, new_code_cell('show("01_x")'))
    folder = artifacts.folder(preset)
    shown = artifacts.save_table(pd.DataFrame({script: [script, "1 < 2"]}), "01_x", preset, script, script)
    (folder / "tables/01_y.md").write_text(f"| a |\n| :--- |\n| {script} |\n")  # by an older version
    shutil.copy(folder / "tables/01_x.json", folder / "tables/01_y.json")
    claim = {**dict.fromkeys(pages.CLAIM, script), "verdict": pages.OPEN, "also": [], "n": 1}
    files.write_json(folder / "claims/01_toy.json", [claim])
    files.write_atomically(folder / "notebooks/01_toy.ipynb", source.read_bytes())
    pages.write_index(folder, preset, [source])
    written = report.write_report(tmp_path, preset, [source]).read_text()
    for text in (shown.data, (folder / "tables/01_x.md").read_text(), (folder / "index.html").read_text(), written):
        assert script not in text and script in html.unescape(text)
    assert "1 < 2" in shown.data and "1 < 2" in written


# -- small pieces ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("printed", "kept"),
    [
        (["plain\n", "text\n"], ["plain\ntext\n"]),
        (["\r 10%", "\r 50%", "\r100%\n", "done\n"], ["100%\ndone\n"]),
        (["\rrunning 1", "\r         \r"], []),
        (["\x1b[31mred\x1b[0m"], ["red"]),
    ],
)
def test_of_a_progress_bar_the_last_state_is_kept(printed, kept):
    outputs = [new_output("stream", name="stderr", text=text) for text in printed]
    notebook = new_notebook(cells=[new_code_cell("", outputs=outputs)])
    notebooks.tidy(notebook)
    assert [output.text for output in notebook.cells[0].outputs] == kept


def test_a_number_in_a_claim_is_short_and_what_is_missing_a_dash():
    assert [pages.value(x) for x in (-0.123456, 3, None, "a", [1.0, 2.0])] == ["−0.1235", "3", "–", "a", "1, 2"]


@pytest.mark.parametrize(("store", "said"), [("C:/runs", "path of Windows"), ("~nobodyx/runs", "home of a user")])
def test_a_store_that_can_be_none_is_refused_as_the_parameter_is(store, said, capsys):
    assert reproduce.main(["--preset", "smoke", "--only", "06", "--store", store]) == 2
    said_all = "".join(capsys.readouterr())
    assert f"STORE = '{store}'" in said_all and said in said_all


def test_a_tilde_is_the_home_in_variables_too(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MTL_ARTIFACTS", "~/pages")
    monkeypatch.setenv("MTL_DATA", "~/data")
    assert artifacts.root() == tmp_path / "pages" and files.cache_folder() == tmp_path / "data"
    assert reproduce.store_at(Path("~/runs")) == str(tmp_path / "runs")
