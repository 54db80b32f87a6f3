"""Stand-ins have the shape of records, say what they are, and are turned into figures and tables within memory."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks import standins
from mtl_study import artifacts
from mtl_study.experiments.population import PopulationConfig
from mtl_study.experiments.probes import LooksConfig
from mtl_study.experiments.runs import RunConfig
from mtl_study.experiments.strides import StridesConfig
from mtl_study.experiments.transfer import TransferConfig
from mtl_study.publishing import plan
from mtl_study.publishing.running import GIB, Limits

DIGITS = {"train_size": 500, "val_size": 100, "test_size": 100, "epochs": 4}
RUN = RunConfig.of(problem="multimnist/CL_RR", seed=1, lr=0.001, **DIGITS)
BASELINES = {task.name: dict.fromkeys(task.metrics, 0.5) for task in RUN.definition.tasks}
CONFIGS = [
    RUN,
    RUN.model_copy(update={"problem": "multimnist/CL"}),
    RUN.model_copy(update={"problem": "qm9", "smto": "nash_mtl", "batch_size": 120}),
    LooksConfig.of(base=RUN, looks=3),
    StridesConfig.of(base=RUN.model_copy(update={"smto": "cagrad"}), looks=3),
    TransferConfig.of(base=RUN, tuning_epochs=1),
    PopulationConfig.of(base=RUN, baselines=BASELINES, size=4, exploit_interval=2),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{type(config).__name__}, {config.title}")
def test_a_stand_in_is_a_record_of_its_kind(config, tmp_path):
    """It fits its configuration, is found again, is the same each time, and says that nothing was trained."""
    standins.write(tmp_path, [config])
    found = standins.STORES[type(config)](tmp_path).get(config)
    found.check(whole=True)
    assert found.to_line() == standins.stand_in(config).to_line()
    assert found.environment["device"] == standins.DEVICE and "not trained" in standins.DEVICE


def test_settings_and_seeds_draw_numbers_of_their_own():
    other = [RUN.model_copy(update=change) for change in ({"seed": 2}, {"lr": 0.002}, {"smto": "cagrad"})]
    ends = [standins.of_run(config).history[-1].val["CL"]["accuracy"] for config in [RUN, *other]]
    assert len(set(ends)) == len(ends)
    lost = RUN.model_copy(update={"lr": 2 * standins.DIVERGES, "epochs": 10})
    ended = {standins.of_run(lost.model_copy(update={"seed": seed})).diverged for seed in range(10)}
    assert ended == {True, False}


def test_a_table_has_a_row_per_notebook_and_the_page_a_place_for_it():
    text = standins.table([standins.Taken("01_mnist_selection", 7445, 61.2, 1.234, 9)])
    assert text.splitlines()[2] == "| 01_mnist_selection | 7,445 | 61 | 1.23 | 9 |"
    page = (artifacts.REPOSITORY / "docs" / "cluster.md").read_text(encoding="utf-8")
    before, inside = page.split(standins.START)
    assert "python -m benchmarks.standins --docs" in before and inside.count(standins.END) == 1


def test_the_page_says_what_is_planned_since_its_stand_ins():
    """So many runs more as the README's plan has; where that changes, so does the note below the table."""
    page, readme = (
        (artifacts.REPOSITORY / name).read_text(encoding="utf-8") for name in ("docs/cluster.md", "README.md")
    )
    table, note = page.split(standins.END)
    rows = re.findall(r"^\| \d\w+ \| ([\d,]+) \|", readme.split(plan.START)[1].split(plan.END)[0], re.MULTILINE)
    then, since = re.search(r"([\d,]+) records were planned", table), re.search(r"plan has (\d+) runs more", note)
    assert sum(map(number, rows)) == number(then[1]) + number(since[1])


def number(text):
    return int(text.replace(",", ""))


def test_no_shipped_record_is_a_stand_in():
    for path in (artifacts.REPOSITORY / "results").rglob("*.jsonl"):
        assert standins.DEVICE not in path.read_text(encoding="utf-8"), path


@pytest.mark.slow
def test_a_notebook_of_the_paper_preset_is_shown_from_stand_ins(tmp_path, monkeypatch):
    """02b at its own size, some thousands of records: within 2 GiB, with all its figures, and nothing outside the
    folder."""
    for name in ("MTL_ARTIFACTS", "MTL_DATA", "IPYTHONDIR", "MTL_QUIET"):
        monkeypatch.setenv(name, "")  # so that they are put back
    given, said = standins.prepared("paper", ["02b"], tmp_path)
    [taken] = standins.measure(given, "paper", Limits(memory=2 * GIB))
    assert not taken.failed and "records were planned" in said
    assert taken.records > 2000 and taken.shown > 2 and 0 < taken.gib < 2
    places = {path.name for path in tmp_path.iterdir()}
    assert {"store", "artifacts", "data"} <= places
    [manifest, *_] = sorted((tmp_path / "artifacts" / "paper").glob("figures/02b_*.json"))
    assert json.loads(manifest.read_text())["preset"] == "paper"


def test_an_unknown_preset_is_refused_by_name(capsys):
    assert standins.main(["--preset", "papper"]) == 2
    assert "no preset 'papper' (did you mean 'paper'?)" in capsys.readouterr().err
