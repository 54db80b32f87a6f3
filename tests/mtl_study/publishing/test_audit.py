"""From a verdict back to the records, one figure from its cells, shipped records trained again; and the doctor."""

import json
import os
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mtl_core.datasets import multimnist
from mtl_study import artifacts
from mtl_study.analysis.frames import configuration
from mtl_study.experiments import runner
from mtl_study.experiments.runs import BadConfig, RunConfig
from mtl_study.experiments.store import RunStore
from mtl_study.paper import claims
from mtl_study.parameters import schemas
from mtl_study.publishing import audit, doctor, excerpts, retrain

REPOSITORY = artifacts.REPOSITORY
SHIPPED = REPOSITORY / "results"
TINY = {"problem": "multimnist/CL_RR", "epochs": 1, "batch_size": 64, "lr": 0.001}
TINY |= {"train_size": 128, "val_size": 64, "test_size": 40}


# -- a verdict ---------------------------------------------------------------------------------------------------------


def test_a_verdict_is_followed_back_to_its_records(tmp_path, monkeypatch):
    """Every number that the rule looks at, with key and checksum of its record; then rule, intervals, verdict."""
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path))
    artifacts.begin(artifacts.Execution("quick"))
    store, rows, lines = RunStore(SHIPPED), [], {}
    for smto in ("unit_scal", "edm"):
        for run in store.records(f"multimnist/RL_RR/{smto}"):
            value = 1.5 + run.config.seed if smto == "edm" else 1.0 + run.config.seed
            named = {"problem": run.config.problem, "smto": smto, "seed": run.config.seed}
            rows.append({**named, "config": configuration(run.config), "delta_m": value})
            lines[run.key] = f"{value:g}"
    frame = pd.DataFrame(rows).drop_duplicates(["smto", "seed"])
    parts = audit.find("C3")[1]
    assert audit.find("C3b")[1] == parts[1:2]
    monkeypatch.setattr(claims, "named_parts", lambda claim: parts[1:2])  # the evidence is of this one alone
    claims.judge("C3", frame, preset="quick", notebook="02_two")
    printed = list(audit.trail("C3", parts[1:2], artifacts.folder("quick"), store, "02_two"))
    of_both = [parts[1], ("C3z", parts[1][1])]  # another part, with a verdict of its own
    judged = artifacts.folder("quick") / "claims/02_two.json"
    (verdict,) = json.loads(judged.read_text())
    assert verdict["verdict"] != claims.NOT_REPRODUCED
    other = verdict | {"id": "C3z", "verdict": claims.NOT_REPRODUCED, "settles": "", "ours": "other numbers"}
    judged.write_text(json.dumps([verdict, other]))
    both = "\n".join(audit.trail("C3", of_both, artifacts.folder("quick"), store, "02_two"))
    first, _, second = both.partition("C3z: ")
    assert f"Verdict: {verdict['verdict']}, " in first and "Verdict: not reproduced, " in second
    assert f"Measured: {verdict['ours']}; " in first and "Measured: other numbers; " in second
    artifacts.begin(None)
    for row in frame.to_dict("records"):
        (line,) = [p for p in printed if f" {row['smto']} " in p and f"{row['seed']:>5}  " in p]
        key, checksum, *_, value = line.split()
        assert float(value) == row["delta_m"] and lines[key] == f"{row['delta_m']:g}"
        assert any(checksum in text for text in (SHIPPED / f"multimnist/RL_RR/{row['smto']}.jsonl").read_text().split())
    text = "\n".join(printed)
    assert "multimnist/RL_RR edm: mean 0.5 over" in text and "\nRule: " in text and "\nVerdict: " in text


def test_what_is_not_there_is_refused_with_the_nearest_name(capsys):
    for arguments, says in (
        (["--claim", "C33"], "no claim 'C33' (did you mean 'C3"),
        (["--claim", "C3b", "--preset", "quik"], "no preset 'quik' (did you mean 'quick'?)"),
        (["--runs", "1", "--preset", "quik"], "no preset 'quik' (did you mean 'quick'?)"),
        ([], "CLAIM=C3b, or RUNS=3"),
        (["--runs", "100000"], "RUNS=100000: expected 1 to"),
    ):
        assert audit.main(arguments) == 2
        assert says in capsys.readouterr().err
    assert excerpts.main(["01_figure_11"]) == 2
    assert "no notebook publishes '01_figure_11' (did you mean '01_figure_1'?)" in capsys.readouterr().err
    assert audit.find("Xin-front a")[1] == audit.find("Xin-fronta")[1]


class Rates(schemas.Parameters):
    """Of the toy."""

    lr: float


# -- one figure --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_one_table_is_made_by_the_cells_that_it_rests_on(tmp_path, monkeypatch, capsys):
    """Other cells, one that would fail among them, are left out; what is in the preset's folder stays."""
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setitem(schemas.SCHEMAS, "01_toy", Rates)
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [
        new_markdown_cell("# Toy"),
        new_code_cell('preset = "smoke"\nlr = 0.1', metadata={"tags": ["parameters"]}),
        new_code_cell("import pandas as pd\nfrom mtl_study.plots.canvas import publish_table"),
        new_code_cell("raise KeyError('not needed')"),
        new_code_cell('publish_table(pd.DataFrame({"lr": [lr]}), "01_rates", preset, "Rates")'),
    ]
    path = tmp_path / "notebooks/01_toy.ipynb"
    path.parent.mkdir()
    nbformat.write(new_notebook(cells=cells, metadata=kernel), path)
    preset = tmp_path / "params/quick/01_toy.yaml"
    preset.parent.mkdir(parents=True)
    preset.write_text(yaml.safe_dump({"preset": "quick", "lr": 0.5}))
    (tmp_path / "params/shipped.yaml").write_text("01_toy: quick\n")
    assert excerpts.main(["01_rates"], tmp_path) == 0
    printed = capsys.readouterr().out
    assert "| 0.5 |" in printed and "Drawn from no records" in printed
    assert {p.name for p in (tmp_path / "artifacts").iterdir()} == {"excerpts"}


def test_nothing_is_trained_where_records_are_only_read(tmp_path, monkeypatch):
    monkeypatch.setenv(runner.READ_ONLY, "1")
    with pytest.raises(BadConfig, match="1 of 1 runs are not stored, and nothing is trained here: multimnist/CL_RR"):
        runner.run([RunConfig.of(**TINY, smto="edm", seed=1)], tmp_path)
    assert not list(tmp_path.iterdir())


def core_seconds():
    """Of this process and its children that have ended, so that others on the machine do not count."""
    return sum(os.times()[:4])


@pytest.mark.slow
@pytest.mark.pinned
def test_a_shipped_figure_and_a_verdict_come_from_the_shipped_records(capsys, tmp_path, monkeypatch):
    """Each within a minute of one core."""
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path))
    begin = core_seconds()
    assert excerpts.main(["01_figure_1"]) == 0
    assert "The same picture as" in capsys.readouterr().out
    drawn = core_seconds()
    assert audit.main(["--claim", "C3b"]) == 0
    assert drawn - begin < 60 and core_seconds() - drawn < 60
    printed = capsys.readouterr().out
    shipped = {row["id"]: row for row in json.loads((REPOSITORY / "docs/report/claims.json").read_text())}
    assert f"Verdict: {shipped['C3b']['verdict']}, {shipped['C3b']['why']}" in printed


# -- trained again -----------------------------------------------------------------------------------------------------


def archive(folder, runs):
    for run in runs:
        path = folder / f"{run.config.folder}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a") as file:
            file.write(run.to_line())


@pytest.mark.slow
@pytest.mark.training
def test_a_record_that_this_machine_made_is_bit_equal_when_it_is_trained_again(tmp_path, capsys):
    archive(tmp_path / "whole", runner.run([RunConfig.of(**TINY, seed=1)], tmp_path / "live"))
    assert retrain.again(tmp_path / "whole", 1, seed=3) == 0
    assert "bit-equal.\nNothing has drifted." in capsys.readouterr().out


def test_records_on_data_that_are_not_there_are_not_drawn(tmp_path, monkeypatch):
    """The archive has runs on all of MNIST, which does not ship."""
    part = Path("multimnist/CL_RR/imtl.jsonl")
    (tmp_path / part).parent.mkdir(parents=True)
    shutil.copy(SHIPPED / part, tmp_path / part)
    lines = (SHIPPED / part).read_text().splitlines()
    here = len([line for line in lines if '"source":"embedded"' in line])
    assert 0 < here < len(lines)
    runs = retrain.drawn(tmp_path, here, 1, str(tmp_path))
    assert {run.config.source for run in runs} == {"embedded"}
    with pytest.raises(retrain.TooMany, match=f"expected 1 to {here}, "):
        retrain.drawn(tmp_path, here + 1, 1, str(tmp_path))
    asked = []
    monkeypatch.setattr(multimnist, "check", lambda *given: asked.append(given))
    found = retrain.drawn(tmp_path, len(lines), 1, "there")
    assert [run.config.source for run in found].count("full") == len(lines) - here
    assert set(asked) == {("full", (50_000, 10_000, 10_000), "there")}


def test_a_record_that_comes_out_otherwise_is_told_with_its_name_and_by_how_much(monkeypatch, capsys):
    """Training answers with what is shipped, then with a number that is off by more than the seeds spread."""
    (shipped,) = retrain.drawn(SHIPPED, 1, seed=3)
    given = []
    monkeypatch.setattr(runner, "run", lambda *_, data_dir, **__: given.append(data_dir) or [shipped])
    assert audit.main(["--runs", "1", "--seed", "3", "--data", "there"]) == 0 and given == ["there"]
    assert f"{shipped.key} {shipped.config.title}: bit-equal.\nNothing has drifted." in capsys.readouterr().out
    *before, last = shipped.history
    task, metrics = next(iter(last.test.items()))
    other = {task: {metric: 100.0 * value for metric, value in metrics.items()}}
    changed = shipped.model_copy(
        update={"history": [*before, last.model_copy(update={"test": {**last.test, **other}})]}
    )
    monkeypatch.setattr(runner, "run", lambda *_, **__: [changed])
    assert retrain.again(SHIPPED, 1, seed=3) == 3
    assert f"not bit-equal: {task} " in (printed := capsys.readouterr().out) and "A number has drifted." in printed


def test_what_differs_is_measured_by_the_spread_of_the_seeds(make_run, monkeypatch):
    def run(seed, accuracy):
        return make_run([{"CL": accuracy, "RR": 1.0}], seed=seed)

    class Others:
        def records(self, part):
            return [run(1, 0.5), run(2, 0.7), make_run([{"CL": 0.9, "RR": 9.0}], seed=3, lr=0.1)]

    found = retrain.compare(run(1, 0.55), run(1, 0.5), Others())
    assert not found.equal and found.where == "CL accuracy"
    assert found.worst == pytest.approx(0.05 / 0.1 / 2**0.5)  # the standard deviation of 0.5 and 0.7 is 0.1·√2
    assert not found.drifted(alike=False) and found.drifted(alike=True)
    assert not retrain.compare(run(1, 0.9), run(1, 0.5), Others()).drifted(alike=False)  # two seeds tell little
    assert retrain.compare(run(1, 90.0), run(1, 0.5), Others()).drifted(alike=False)
    assert retrain.compare(run(1, 0.5), run(1, 0.5), Others()).equal


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_a_run_that_differs_like_a_seed_is_called_drifted_in_at_most_one_of_a_hundred(seeds):
    """A run on another kind of machine against one of the shipped seeds, in two metrics; and one that is far off."""
    rng = np.random.default_rng(seeds)
    shipped, ours = rng.normal(size=(20_000, 2, seeds)), rng.normal(size=(20_000, 2))
    spread, limit = shipped.std(axis=-1, ddof=1), retrain.two_seeds(seeds, metrics=2)

    def alarms(run):
        return ((abs(run - shipped[..., 0]) / spread).max(axis=-1) >= limit).mean()

    assert 0 < alarms(ours) <= 0.01
    assert alarms(ours + 100) > 0.99


# -- the doctor --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_doctor_needs_less_than_a_minute_and_says_whether_smoke_can_run(capsys):
    begin = core_seconds()
    code = doctor.main()
    assert core_seconds() - begin < 60
    assert ("smoke can run here" if code == 0 else "smoke cannot run here") in capsys.readouterr().out


def test_the_doctor_says_what_a_machine_can_run(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "kernel", lambda: doctor.Line("notebooks", "one runs", True))
    monkeypatch.setattr(doctor, "memory", lambda: 64 * 2.0**30)
    monkeypatch.setattr(doctor, "_place", lambda name, folder: doctor.Line(name, str(folder), True))
    monkeypatch.setattr(doctor, "NEEDS", {name: (needs, 0, time) for name, (needs, _, time) in doctor.NEEDS.items()})
    assert doctor.main() == 0
    printed = capsys.readouterr().out
    for word in ("Python", "packages", "memory", "MTL_DATA", "instruction set", "GPU", "✓ smoke: can run", "✓ quick"):
        assert word in printed
    assert "✗ paper: lacks" in printed and "streets in data/cityscapes" in printed
    monkeypatch.setattr(doctor, "memory", lambda: 2.0**30)
    assert doctor.main() == 1
    assert "✗ smoke: lacks 4 GiB of memory" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "memory", lambda: 64 * 2.0**30)
    monkeypatch.setattr(doctor, "kernel", lambda: doctor.Line("notebooks", "it died", False))
    assert doctor.main() == 1
    assert "smoke cannot run here: notebooks." in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    found = doctor._place("artifacts (MTL_ARTIFACTS)", tmp_path / "file" / "below")
    assert found.good is False and str(tmp_path / "file" / "below") in str(found)
    assert doctor._place("data", tmp_path / "new").good
