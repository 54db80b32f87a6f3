"""The notebooks themselves: every one runs at smoke, and the shipped records give the committed report."""

import ast
import hashlib
import itertools
import json
import re
import shutil
from collections import Counter

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mtl_study import artifacts, cells, parameters
from mtl_study.artifacts import number_of
from mtl_study.experiments.population import PopulationStore
from mtl_study.experiments.runs import Run
from mtl_study.experiments.store import NOT_RUNS, RunStore
from mtl_study.paper import answer, rules
from mtl_study.publishing import grading, links, notebooks, pages, report, reproduce

REPOSITORY = artifacts.REPOSITORY
NOTEBOOKS = notebooks.find(REPOSITORY / "notebooks")
SHIPPED = REPOSITORY / "results"
RECORDS = sorted(path for path in SHIPPED.rglob("*.jsonl") if path.stem not in NOT_RUNS)
JOBS = reproduce.plan(REPOSITORY, parameters.SHIPPED, [], {})
ON_RECORDS = [job for job in JOBS if job.values.get("store") == SHIPPED.name]
AT_OVERNIGHT = [job for job in JOBS if job.values["preset"] == "overnight"]
# The quick one is the first, which trains; with all records one of those that judge.
JUDGED = ("01", "02", "02b", "03", "04", "05", "05b", "05c", "07", "08")
MARKS = {"00": [pytest.mark.training], "06": [pytest.mark.slow]}
MARKS |= {number: [pytest.mark.training, pytest.mark.slow] for number in JUDGED}
LONG = {number: pytest.mark.slow for number in JUDGED if number != "02b"}


@pytest.mark.parametrize(
    "notebook", [pytest.param(path, id=path.stem, marks=MARKS.get(number_of(path.stem), ())) for path in NOTEBOOKS]
)
def test_a_notebook_runs_at_smoke(notebook, tmp_path, monkeypatch):
    """From nothing: its runs are trained, its exercises' solutions pass, its figures, tables and page are there, and
    smoke decides no claim."""
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setenv("MTL_WORKERS", "1")
    (job,) = reproduce.plan(REPOSITORY, "smoke", [notebook.stem], {})
    if "store" in job.values:
        job.values["store"] = str(tmp_path / "store")
    folder = artifacts.folder("smoke")
    reproduce.run(job, REPOSITORY, folder)
    pages.write_index(folder, "smoke", [notebook])
    number = number_of(notebook.stem)
    assert (folder / "notebooks" / f"{notebook.stem}.html").exists() and (folder / "index.html").exists()
    figures = {path.suffix for path in (folder / "figures").glob(f"{number}_*")}
    assert figures == {".pdf", ".png", ".json"}
    executed = notebooks.read(folder / "notebooks" / notebook.name)
    assert any(notebooks.tagged(cell, "solution") and cell.execution_count for cell in executed.cells)
    marks = grading.marks(executed, notebooks.checks(notebooks.read(notebook)))
    assert [mark for mark in marks if (mark["mark"], mark["doubt"]) != ("right", "")] == []
    if "seeds" in job.values:  # it judges runs; a proof is as good at smoke
        claims = json.loads((folder / "claims.json").read_text())
        assert claims and {claim["verdict"] for claim in claims} == {"cannot be judged"}


def test_minutes_by_hand():
    """400 words, a figure, a table, and 20 lines of code; parameters, solutions and empty lines are not read."""
    drawn = ["publish(ax, 'x', preset, 't')\n\n" + "a = 1\n" * 18, "publish_table(t, 'x', preset, 't')"]
    cells = [new_markdown_cell("word " * 400), *map(new_code_cell, drawn)]
    cells += [new_code_cell("publish(1)\n" * 100, metadata={"tags": [tag]}) for tag in ("parameters", "solution")]
    assert notebooks.minutes(new_notebook(cells=cells)) == pytest.approx(400 / 200 + 0.75 + 20 * 3 / 60)


LONGEST, PUBLISHED = 45, ("publish", "publish_table")


def test_a_notebook_is_one_lesson():
    """At most 45 minutes each; and each says at its head how long it takes to read."""
    found = {path.stem: notebooks.minutes(notebooks.read(path)) for path in NOTEBOOKS}
    assert {name: round(minutes, 1) for name, minutes in found.items() if minutes > LONGEST} == {}
    for path in NOTEBOOKS:
        (said,) = re.findall(r"Reading takes about (\d+)\s+minutes", notebooks.read(path).cells[0].source)
        assert abs(int(said) - found[path.stem]) <= 4, path.stem


def test_cells_are_short():
    """No cell, of code or of text, has more than twenty lines, except the one that holds the parameters."""
    for path in NOTEBOOKS:
        shown = [cell for cell in notebooks.read(path).cells if not notebooks.tagged(cell, "parameters")]
        assert [cell.source for cell in shown if len(cell.source.splitlines()) > 20] == [], path.stem


def test_an_id_begins_with_its_notebook_and_a_number():
    """The report names cells by these ids: 05b-07, 05b-07a, 05b-07-guess; no two cells of a notebook share one."""
    for path in NOTEBOOKS:
        ids = [cell.id for cell in notebooks.read(path).cells if cell.id not in (links.LINKS, links.SETUP)]
        form = re.compile(rf"{number_of(path.stem)}-\d{{2,3}}[a-z]?(-[a-z0-9]+)*")
        assert [id_ for id_ in ids if not form.fullmatch(id_)] == []
        assert len(set(ids)) == len(ids), path.stem


def test_a_verdict_has_a_name_of_its_own():
    """What is appended to a list rests on all that was in it: a verdict would have the records of those before it."""
    for path in NOTEBOOKS:
        judging = [c.source for c in notebooks.read(path).cells if notebooks.judged(new_notebook(cells=[c]))]
        for source in judging:
            (statement,) = [node for node in ast.parse(source).body if "claims.judge(" in ast.unparse(node)]
            assert isinstance(statement, ast.Assign), (path.stem, source)
            own = {target.id for target in statement.targets}
            others = [cells.names(other) for other in judging if other != source]
            assert not any(own & (other.uses | other.binds) for other in others), (path.stem, source)


def test_a_verdict_rests_on_the_records_that_its_own_evidence_is_made_of():
    """Kurin-length on the real steps and the single-task models, and neither on the looks nor on other radii or gates;
    balanced landscapes on no runs."""
    code = [
        cell for cell in notebooks.read(REPOSITORY / "notebooks/08_imbalance.ipynb").cells if cell.cell_type == "code"
    ]
    sources, at = [cell.source for cell in code], {cell.id: i for i, cell in enumerate(code)}
    reading = {"08-15", "08-28", "08-31", "08-35", "08-38"}  # what asks the store for records
    assert {
        id_ for id_ in at if "store_folder, " in sources[at[id_]] or "store_folder,\n" in sources[at[id_]]
    } == reading

    def rests_on(claim):
        ((_, cell), *_) = [found for found in notebooks.judged(new_notebook(cells=code)).values() if found[0] == claim]
        return {code[i].id for i in cells.needed(sources, at[cell])} & reading

    assert rests_on("Kurin-length") == rests_on("Royer-conflict") == rests_on("Zhou-steps") == {"08-28", "08-31"}
    assert rests_on("Zhou-pareto") == {"08-15"} and rests_on("Zhou-balance-harmless") == set()
    assert rests_on("Zhou-gates") == {"08-28", "08-31", "08-35"}


def test_a_notebook_that_judges_says_where_changed_rules_are():
    """Some rules were changed after a look at the runs, so none may say without more that all were written before."""
    for path in NOTEBOOKS:
        told = [" ".join(cell.source.split()) for cell in notebooks.read(path).cells if "rules were" in cell.source]
        assert all("; what was changed afterwards is in CHANGELOG.md." in text for text in told), path.stem
        assert len(told) == (number_of(path.stem) not in ("00", "06")), path.stem


def test_the_papers_section_stands_in_each_title_and_in_one_table():
    """The README's table has every notebook in order: its file, and the section that ends its title."""
    rows = re.findall(
        r"^\| \[(\w+)\]\(notebooks/(\w+)\.ipynb\) \| ([^|]+?) \|", (REPOSITORY / "README.md").read_text(), re.MULTILINE
    )
    titles = [re.fullmatch(r".+ \((.+)\)", notebooks.title(notebooks.read(path))) for path in NOTEBOOKS]
    assert rows == [(path.stem, path.stem, title and title[1]) for path, title in zip(NOTEBOOKS, titles, strict=True)]
    numbers = {number_of(stem): section for stem, _, section in rows}
    assert all(section.startswith(f"section 3.{int(n[:2])}") for n, section in numbers.items() if "01" <= n < "06")


def test_the_report_has_three_to_six_findings_of_every_notebook_each_with_what_speaks_against_it():
    part = (REPOSITORY / "REPORT.md").read_text().partition("\n## What we found\n")[2].partition("\n## ")[0]
    _, *blocks = re.split(r"^### Notebook (\w+)$", part, flags=re.MULTILINE)
    assert blocks[::2] == [number_of(path.stem) for path in NOTEBOOKS]
    found = [[line for line in block.splitlines() if line.startswith("* ")] for block in blocks[1::2]]
    assert all(
        notebooks.title(notebooks.read(path)) in block for path, block in zip(NOTEBOOKS, blocks[1::2], strict=True)
    )
    assert {len(sentences) for sentences in found} <= {3, 4, 5, 6}
    assert [line for sentences in found for line in sentences if not re.search(r"\. \*\*But\*\* [\w\[]", line)] == []


def test_a_figure_leads_to_the_cell_that_publishes_it():
    """Not to the guess about it, which comes first."""
    for path in NOTEBOOKS:
        notebook = notebooks.read(path)
        for picture in notebooks.pictures_of(notebook):
            at, _ = notebooks.place_of(notebook, picture)
            assert picture in notebooks.pictures_of(new_notebook(cells=[notebook.cells[at]])), (path.stem, picture)


def test_figure_7_is_published_once_and_its_parts_once():
    """All problems in 04; 02b has the digits, with their features, and 03 the ladder."""
    cells = [cell for path in NOTEBOOKS for cell in notebooks.read(path).cells if "figure_7(" in cell.source]
    assert [notebooks.published(cell) for cell in cells] == [["02b_figure_7"], ["03_figure_7"], ["04_figure_7"]]


def test_the_report_shows_at_most_forty_figures_and_notebooks_publish_them():
    cells = [cell for path in NOTEBOOKS for cell in notebooks.read(path).cells if cell.cell_type == "code"]
    figures, tables = ({name for cell in cells for name in notebooks.published(cell, how)} for how in PUBLISHED)
    shown = {names[0] for names in rules.figures().values() if names}
    assert len(shown & figures) <= 40 and answer.PICTURE in shown and shown <= figures | tables


@pytest.mark.training
@pytest.mark.slow
def test_a_notebook_as_released_shows_both_verdicts(tmp_path, monkeypatch):
    """Next to our verdict is the one on the same rule with the runs of the paper's released code, which differ."""
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setenv("MTL_WORKERS", "1")
    (job,) = reproduce.plan(REPOSITORY, "smoke", ["01_mnist_selection"], {})
    job.values["store"] = str(tmp_path / "store")
    job.values["details"].update(as_released=True, search="published")
    folder = artifacts.folder("smoke")
    reproduce.run(job, REPOSITORY, folder)
    (changed,) = artifacts.root().glob("smoke-changed-*")  # a changed preset has a folder of its own
    rows = json.loads((changed / "claims/01_mnist_selection.json").read_text())
    assert [row["id"] for row in rows] == ["C1a", "C1b", "C2"]
    for row in rows:
        assert row["verdict"] == "cannot be judged"
        readings = {also["reading"]: also for also in row["also"]}
        assert readings["as released"]["verdict"] == "cannot be judged"
        assert readings["as released"]["estimate"] != row["estimate"]


def test_every_shipped_record_is_current():
    """It is where its identity says, under the code versions of today: no record is stale, and each is there once."""
    assert RECORDS and not list(SHIPPED.rglob("*.json"))
    store, found = RunStore(SHIPPED), []
    for path in RECORDS:
        for line in path.read_text().splitlines(keepends=True):
            run = Run.from_line(line)
            assert run.key == run.config.key and path == SHIPPED / f"{run.config.folder}.jsonl"
            assert store.get(run.config) == run and run.to_line() == line
            found.append(run.key)
    assert len(found) == len(set(found)) == len(list(store))


def digest(config, record):
    """Of all that a record says, its seconds and environment apart, in the words of the first format."""
    content = {"history", "members", "best", "epochs_trained", "before_divergence", "ended"}
    said = {name: record.get(name, {}) for name in content}
    text = json.dumps({"config": config.settings, **said}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_the_contents_of_shipped_records_are_those_before_they_were_keyed_anew():
    """All 546 records of the first format but RotoGrad's 21, which were trained again since; each as it was served
    then: also the beginnings of longer runs, which were records of their own. A line of the list: folder, seed,
    epochs, digest."""
    before = json.loads((REPOSITORY / "tests/data/shipped_before_format_2.json").read_text())
    served = {}
    for store in (RunStore(SHIPPED), PopulationStore(SHIPPED)):
        for record in store.records():
            folder, base = record.config.folder, record.config.base
            lengths = {epochs for f, seed, epochs, _ in before if (f, seed) == (folder, base.seed)}
            for epochs in lengths if record.config is base else {base.epochs}:
                config = record.config.model_copy(update={"epochs": epochs}) if record.config is base else record.config
                if (found := store.get(config)) is not None:
                    as_json = found.model_dump(mode="json", by_alias=True)
                    served[folder, base.seed, epochs, digest(config, as_json)] = found
    assert len(before) == 525
    assert [line for line in before if tuple(line) not in served] == []


NUMBER = re.compile(r"(?<![\w.])−?\d[\d,]*(?:\.\d+)?(?:e−?\d+)?")


def there():
    """The shipped records, and those that a reader has trained next to them, each with the time of its last change."""
    folders = SHIPPED, RunStore(SHIPPED).folder
    return {path: path.stat().st_mtime_ns for of in folders for path in of.rglob("*") if path.is_file()}


def reports(job, folder, monkeypatch):
    """REPORT.md as this notebook alone gives it, and as it is committed."""
    monkeypatch.setenv("MTL_ARTIFACTS", str(folder / "artifacts"))
    reproduce.run(job, REPOSITORY, artifacts.root() / parameters.SHIPPED)
    copy = folder / "repository"
    copy.mkdir()
    return report.write_report(copy, parameters.SHIPPED, [job.notebook]).read_text(), (
        REPOSITORY / "REPORT.md"
    ).read_text()


def section(report, title):
    """The lines of one section of the report, by the beginning of its title; without the links to what other notebooks
    show, and those that depend on how often a heading occurs before."""
    (found,) = re.findall(rf"^## {title}\b.*?(?=^## |\Z)", report, re.DOTALL | re.MULTILINE)
    return re.sub(r" · Shows: .*|^Shown: .*| Shown in: .*", "", found, flags=re.MULTILINE).strip().splitlines()


def verdicts(report):
    """The rows of the table of verdicts."""
    rows = [line for line in section(report, "All claims") if line.startswith("| ")]
    return [line for line in rows if not line.startswith(("| Claim |", "| :---"))]


@pytest.mark.pinned
@pytest.mark.parametrize(
    "job",
    [pytest.param(job, id=job.notebook.stem, marks=LONG.get(number_of(job.notebook.stem), ())) for job in ON_RECORDS],
)
def test_the_report_is_what_the_shipped_records_give(job, tmp_path, monkeypatch):
    """Nothing is trained, and the notebook's section of REPORT.md and its rows in the table of verdicts are those."""
    before = there()
    report, committed = reports(job, tmp_path, monkeypatch)
    assert there() == before
    number = number_of(job.notebook.stem)
    assert section(report, number) == section(committed, number)
    assert verdicts(report) and set(verdicts(report)) <= set(verdicts(committed))
    ours, theirs = (
        json.loads((of / "docs/report/claims.json").read_text()) for of in (tmp_path / "repository", REPOSITORY)
    )
    assert ours and all(row in theirs for row in ours)


@pytest.mark.parametrize("job", AT_OVERNIGHT, ids=lambda job: number_of(job.notebook.stem))
def test_at_overnight_every_claim_that_a_rule_admits_is_judged_and_decided_by_all_seeds(job):
    """What is no run has checks."""
    judged = notebooks.judged(notebooks.read(job.notebook))
    parts = dict(part for claim in {whole for whole, _ in judged.values()} for part in rules.named_parts(claim))
    rows = {row["id"]: row for row in json.loads((REPOSITORY / pages.SHIPS).read_text()) if row["id"] in judged}
    assert rows and {row["preset"] for row in rows.values()} == {"overnight"}
    barred = {id_ for id_, row in rows.items() if row["verdict"] == pages.BARRED}
    assert barred == {id_ for id_ in rows if "overnight" not in parts[id_].needs.presets}
    decided = [
        row for row in rows.values() if row["unit"] != "checks" and row["verdict"] not in (pages.OPEN, pages.BARRED)
    ]
    assert {row["n"] for row in decided} == {len(job.values["seeds"])}


@pytest.mark.slow
@pytest.mark.parametrize("number", [number_of(job.notebook.stem) for job in AT_OVERNIGHT])
def test_what_ships_at_overnight_trains_nothing_at_quick_either(number, tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path / "artifacts"))
    before = there()
    (job,) = reproduce.plan(REPOSITORY, "quick", [number], {})
    reproduce.run(job, REPOSITORY, artifacts.folder("quick"))
    assert there() == before


@pytest.mark.pinned
@pytest.mark.slow
def test_the_whole_report_is_what_the_shipped_records_give(tmp_path, monkeypatch):
    """From the first page to the last claim, word by word and in order; numbers to 1 %, or 0.01 where they are small,
    since the last digits of what is computed each time are those of one processor."""
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path / "artifacts"))
    folder = artifacts.root() / parameters.SHIPPED
    for job in JOBS:
        reproduce.run(job, REPOSITORY, folder)
    found = itertools.chain(*(folder.glob(f"{kind}/*.json") for kind in ("figures", "tables")))
    made = [json.loads(path.read_text())["caption"] for path in found]
    assert len(made) > 100 and [text for text in made if len(text.split(" Data: ")[0].split()) > 60] == []
    copy = tmp_path / "repository"
    copy.mkdir()
    shutil.copy(REPOSITORY / "CITATION.cff", copy)
    written = report.write_report(copy, parameters.SHIPPED, [job.notebook for job in JOBS])
    ours, theirs = (re.sub(r"Code at commit .*", "", path.read_text()) for path in (written, REPOSITORY / "REPORT.md"))
    assert NUMBER.sub("#", ours).splitlines() == NUMBER.sub("#", theirs).splitlines()
    values = [[float(x.replace(",", "").replace("−", "-")) for x in NUMBER.findall(text)] for text in (ours, theirs)]
    assert len(values[0]) > 5000 and values[0] == pytest.approx(values[1], rel=0.01, abs=0.01)


def test_captions_in_the_report_have_at_most_sixty_words():
    """Of figures with the sentence on the data, which a notebook adds; of tables without what the numbers rest on."""
    blocks = (REPOSITORY / "REPORT.md").read_text().split("\n\n")
    captions = [caption for image, caption in itertools.pairwise(blocks) if image.startswith("![")]
    after = [text for table, text in itertools.pairwise(blocks) if table.startswith("| ")]
    of_tables = [text.split(" Data: ")[0] for text in after if not text.startswith(("| ", "#"))]
    assert len(captions) > 20 and len(of_tables) > 10
    assert [text for text in captions + of_tables if len(text.split()) > 60] == []


def test_every_verdict_of_the_report_is_explained_in_a_section_and_counted():
    """Row by row; and every notebook has a section."""
    report = (REPOSITORY / "REPORT.md").read_text()
    rows = [re.match(r"\| \[(.*?)\]", row)[1] for row in verdicts(report)]
    judged = r"^#### (.+)\n\n\*\*(?:Reproduced|Not reproduced|Open|Cannot be judged)\*\*"
    assert rows == re.findall(judged, report, re.MULTILINE)
    assert {number_of(job.notebook.stem) for job in JOBS} <= set(
        re.findall(r"^## (\d\d[a-z]?) ·", report, re.MULTILINE)
    )
    shipped = json.loads((REPOSITORY / "docs/report/claims.json").read_text())
    counts = Counter(row["verdict"] for row in shipped)
    assert "; ".join(f"{counts[verdict]} {verdict}" for verdict in pages.TONES) + ". As data: " in report
    assert sum(counts.values()) == len(rows)
