"""What is compared in `make bench` is comparable: the three ways solve the same problem."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import last, oracles, speed
from mtl_core import problems, smtos
from mtl_core.datasets import qm9
from mtl_core.files import cache_folder
from mtl_study import artifacts, parameters

SUBPROBLEMS = speed.subproblems()


@pytest.mark.parametrize("kind", speed.GRAMIANS)
@pytest.mark.parametrize("name", SUBPROBLEMS)
def test_ours_scipy_and_cvxpy_solve_the_same_problem(name, kind):
    ways, G = SUBPROBLEMS[name], oracles.gramian(3, 1, **speed.GRAMIANS[kind])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        misses = [ways.violation(G, solve(G)) for solve in (ways.ours, ways.scipy, ways.cvxpy)]
    assert misses[0] <= 1e-12
    assert max(misses[1:]) <= 1e-3


def test_weights_that_are_no_solution_violate():
    G, wrong = oracles.gramian(3, 1, decades=2), np.array([0.2, 0.3, 0.5])
    for ways in SUBPROBLEMS.values():
        assert ways.violation(G, wrong) > 1e-3


def test_a_row_per_subproblem_kind_and_size():
    table = speed.solver_times(rounds=1, sizes=(2,))
    assert len(table) == len(SUBPROBLEMS) * len(speed.GRAMIANS)
    assert (table["ours misses by"] <= 1e-12).all() and np.isfinite(
        table.drop(columns=["subproblem", "Gramian"])
    ).all().all()


@pytest.mark.slow
def test_steps_has_a_row_per_method_and_for_loops_of_ones_own(monkeypatch, capsys):
    """Sums and passes in both layouts first; the method that LeNet's heads do not suit is left out and named. What GPUs
    are asked for in test_gpu.py."""
    monkeypatch.setattr(speed, "BATCH", 8)
    table = speed.steps(rounds=1)
    own = [f"{name}{where}" for where in ("", speed.DEFAULT) for name in ("plain sum", "K full backward passes")]
    assert list(table.index) == [*own, *speed.entered()] and (table > 0).all(axis=None)
    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()] == ["bayesagg_mtl:"]


@pytest.mark.slow
def test_entry_takes_the_steps_of_a_loop_of_ones_own(monkeypatch):
    """A row per method, and one with a small problem per layer."""
    monkeypatch.setattr(smtos, "keys", lambda: ["edm", "famo", "rotograd", "auto_lambda"])
    table = speed.entry(rounds=1)
    assert list(table.index) == [*smtos.keys(), "nash_mtl, groups"] and (table > 0).all(axis=None)


def test_the_shipped_table_of_entry_has_every_method():
    """In order, the small problems last; what has not been measured yet has a row as well."""
    part = (artifacts.REPOSITORY / "docs/bench.md").read_text(encoding="utf-8").split("## The same step through")[1]
    rows = re.findall(
        r"^\| (\w+(?:, groups)?) \| (?:[\d.]+|–) \| (?:[\d.]+|–) \|$", part.split("\n## ")[0], re.MULTILINE
    )
    assert rows == [*sorted(speed.entered()), speed.GROUPS]
    assert [key for key in smtos.keys() if key not in rows] == ["bayesagg_mtl"]  # noqa: SIM118


@pytest.mark.slow
def test_waits_has_a_row_per_method(monkeypatch):
    """None is left out: not one without a default for its options, nor one that is particular about its heads."""
    found = {"unit_scal": 0, "famo": 0, "cagrad": 1, "rotograd": 1, "fixed": 0, "bayesagg_mtl": 11}
    monkeypatch.setattr(smtos, "keys", lambda: list(found))
    table = speed.waits()
    assert table.waits.to_dict() == found and table["read"]["bayesagg_mtl"] == "11 × cholesky"


def test_the_shipped_table_of_waits_has_every_method():
    """A number of waits, and what is read as often."""
    _, table = re.split(r"waits +read\n", (artifacts.REPOSITORY / "docs/bench.md").read_text(encoding="utf-8"))
    rows = [line.split(maxsplit=2) for line in table.split("```")[0].splitlines()]
    assert sorted(key for key, *_ in rows) == sorted(smtos.keys())
    for key, waits, *read in rows:
        several = re.fullmatch(r"(\d+) × \w+", "".join(read))
        assert int(waits) == (int(several[1]) if several else len(read)), key


@pytest.mark.slow
def test_loading_has_a_row_per_problem(monkeypatch, tmp_path):
    """At two rounds the numbers mean nothing, but every part of the comparison runs."""
    monkeypatch.setenv("MTL_DATA", str(tmp_path))
    rows = {name: speed.LOADED[name] for name in ("multimnist/CL_RR", "cityscapes/R18")}
    rows["cityscapes/R18"] = rows["cityscapes/R18"]._replace(sizes=(16, 4, 4))
    table = speed.loading(rounds=2, what=rows)
    assert list(table.index) == list(rows) and (table.filter(like="steps/s") > 0).all().all()
    assert (table["fewer by, %"] < 100).all()
    assert table.batch.tolist() == [256, 8] and table.rounds.tolist() == [2, 2]


def test_times_on_a_gpu_begin_and_end_when_it_has_nothing_left_to_do(monkeypatch):
    """Before and after every call that counts; a call on the host is over when it returns."""
    waited, calls = [], []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: waited.append(len(calls)))
    rows = {name: lambda: calls.append(1) for name in ("one", "two")}
    speed.interleaved(rows, 3, {}, torch.device("cuda"))
    assert waited == [before + after for before in range(2, 8) for after in (0, 1)]  # two calls came first, to allocate
    waited.clear()
    speed.interleaved(rows, 3, {})
    assert waited == []


def test_both_ways_of_upsampling_are_measured():
    table = speed.upsampling(rounds=2, images=1)
    assert list(table.index) == ["kernel", "products"] and (table > 0).all().all()
    assert table["× kernel"]["kernel"] == 1.0


@pytest.mark.slow
def test_epochs_has_a_row_per_problem_and_method_that_it_can_train():
    """One linear head on one representation is what bayesagg_mtl needs: LeNet's heads are not."""
    sizes = {"train_size": 64, "val_size": 16, "test_size": 16, "batch_size": 32}
    table = speed.epochs(torch.device("cpu"), {"multimnist/CL_RR": sizes})
    assert table.method.tolist() == speed.entered()
    assert (table.ended == "finished").all() and (table["ms"] > 0).all() and (table["× plain mean"] > 0).all()


def test_loading_is_measured_at_the_quick_presets_and_at_the_papers_resolution():
    digits, streets, molecules = (
        parameters.preset_values(artifacts.REPOSITORY / "params" / "quick" / f"{name}.yaml")["details"]
        for name in ("01_mnist_selection", "03_cityscapes_ladder", "04_qm9")
    )
    assert speed.LOADED["multimnist/CL_RR"].batch == digits["batch_size"]
    quick = {**dict.fromkeys(("cityscapes/R50", "cityscapes/R18", "cityscapes/19C"), streets), "qm9": molecules}
    for name, values in quick.items():
        sizes = tuple(values[f"{split}_size"] for split in ("train", "val", "test"))
        assert speed.LOADED[name][:4] == (name, values["problem_options"], values["batch_size"], sizes)
    assert problems.get("cityscapes/19C", **speed.LOADED["cityscapes/19C, paper's size"].options).data.width == 512


@pytest.mark.slow
def test_reading_counts_every_molecule_and_leaves_the_cache_alone(tmp_path):
    """Of the few hundred nearly all go the first way. The text itself need not be read again for this."""
    table, cache = qm9._table(), cache_folder()
    there = tmp_path / "empty" / table.relative_to(cache)
    there.parent.mkdir(parents=True)
    there.symlink_to(table)
    seconds, ways = speed.reading((300, 40, 40), tmp_path / "empty")
    assert seconds > 0 and list(ways) == list(qm9.WAYS)
    assert sum(ways.values()) == 380 and ways["in order"] > 370
    assert {path.name for path in there.parent.iterdir()} == {"table", "300-40-40"} and cache_folder() == cache


def test_the_solvers_in_short():
    table = speed.solver_times(rounds=1, sizes=(2,))
    table["cvxpy, ×"] = 80.0
    worst = f"ours {table['ours misses by'].max():.0e}"
    assert worst in speed.in_short(table) and "everywhere (the least: 80 times)" in speed.in_short(table)
    table.loc[0, "cvxpy, ×"] = 49.0
    table.loc[1, "cvxpy misses by"] = np.inf
    row = table.iloc[0]
    assert f"not for {row.subproblem}, {row.Gramian}, K = 2 (the least: 49 times)" in speed.in_short(table)
    assert "cvxpy inf" in speed.in_short(table)


@pytest.mark.slow
def test_records_are_found_again_in_both_kinds_of_store():
    """Of 20,000 in seconds, without holding their histories: together in less than half a GB."""
    table = speed.records()
    assert list(table.index) == ["live store", "archive"] and (table["seconds"] < 60).all()
    assert not (table["MiB held"] > 500).any()


@pytest.mark.slow
def test_the_sparse_encoder_needs_more_memory():
    """It holds a matrix per edge. (Equal results: tests/mtl_core/models/test_mpnn.py.)"""
    table = speed.encoder(rounds=1, molecules=24)
    assert list(table.index) == [speed.OURS, speed.SPARSE] and (table["ms"] > 0).all()
    assert table.loc[speed.OURS, "time, ×"] == 1
    assert table["peak, MiB"].isna().all() or table.loc[speed.SPARSE, "peak, ×"] > 1


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """A bench of two parts that are measured at once; what `steps` measures can be set."""
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path))
    tables = {
        "steps": pd.DataFrame({"ms": [40.0, 50.0], "× plain sum": [1.0, 1.5]}, index=["unit_scal", "cagrad"]),
        "solvers": pd.DataFrame({"K": [2], "scipy, ×": [7.0]}, index=pd.MultiIndex.from_tuples([("dual", "A")])),
    }
    parts = {
        name: speed.BenchPart(
            lambda rounds, device, name=name: speed.Benched(f"# {name}, {rounds}", tables[name]), 60, (2, 10)
        )
        for name in tables
    }
    monkeypatch.setattr(speed, "PARTS", parts)
    return tables


def test_a_part_is_shown_next_to_its_last_result(toy, capsys):
    """Its ratios only: milliseconds of two runs are not compared. A method that is new has none."""
    assert speed.main(["steps", "--rounds", "10"]) == 0
    first = capsys.readouterr().out
    assert "# steps, 10" in first and "last" not in first.lower() and "solvers" not in first
    toy["steps"] = pd.DataFrame({"ms": [4.0, 8.0], "× plain sum": [1.0, 2.0]}, index=["cagrad", "edm"])
    assert speed.main(["steps"]) == 0
    heading, table, note = capsys.readouterr().out.strip().split("\n\n")[-3:]
    assert heading == "# steps, 60"
    rows = [line.split() for line in table.splitlines()]
    assert rows[1:] == [["cagrad", "4.00", "1.00", "1.50"], ["edm", "8.00", "2.00"]]
    assert table.splitlines()[0].split() == ["ms", "×", "plain", "sum", "last", "×", "plain", "sum"]
    assert note.startswith("Last: ") and "10 rounds" in note


def test_results_of_a_gpu_are_not_compared_with_those_of_a_processor():
    assert last.file("steps", "cpu") != last.file("steps", "cuda")


def test_rows_of_several_keys_are_found_again(toy, capsys):
    for _ in range(2):
        assert speed.main([]) == 0
    shown = capsys.readouterr().out
    assert ["dual", "A", "2.00", "7.00", "7.00"] in [line.split() for line in shown.splitlines()]


def test_the_time_is_estimated_before_and_learns_from_the_last(toy, capsys):
    """Two seconds for each round and ten besides; then in proportion to what it took."""
    speed.main(["steps", "--rounds", "10"])
    assert "Time: steps 30 seconds." in capsys.readouterr().out
    before = last.find(last.file("steps", "cpu"))
    assert before.rounds == 10
    part = speed.PARTS["steps"]
    assert part.time(60, None) == 130 and part.time(60, last.Result({}, 10, 15.0)) == 65
    unknown = part._replace(seconds=(0, 0))
    assert unknown.time(1, None) == 0 and unknown.time(1, last.Result({}, 1, 15.0)) == 15
    speed.main([])
    assert "This takes about 2 minutes: steps no seconds, solvers 2 minutes." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["stesp"], "there is no part 'stesp' (did you mean 'steps'?); there are steps and solvers"),
        (["steps", "--rounds", "0"], "--rounds 0: a whole number from 1 is needed"),
    ],
)
def test_what_cannot_be_measured_is_refused(toy, arguments, says, capsys):
    with pytest.raises(SystemExit) as refusal:
        speed.main(arguments)
    assert refusal.value.code == 2 and says in capsys.readouterr().err


def test_a_damaged_result_is_named(toy, capsys):
    last.file("steps", "cpu").parent.mkdir()
    for text in ("{", "[]", '{"rows": {}}'):
        last.file("steps", "cpu").write_text(text)
        assert speed.main(["steps"]) == 2
        assert f"{last.file('steps', 'cpu')} holds no result that can be read" in capsys.readouterr().err


def test_every_part_has_its_time_and_is_listed():
    """In the order of the head of the file, which `make bench` follows."""
    listed = [
        line.split()[3]
        for line in speed.__doc__.splitlines()
        if line.startswith("    python -m") and "all of them" not in line
    ]
    assert listed == list(speed.PARTS)
    page = (artifacts.REPOSITORY / "docs" / "bench.md").read_text(encoding="utf-8")
    assert re.findall(r"`(\w+)`", page[page.index("one part (") : page.index("`ROUNDS")]) == listed
    assert [name for name, part in speed.PARTS.items() if part.seconds == (0, 0)] == ["epochs"]
    assert all((part.rounds > 1) == (part.seconds[0] > 0) for part in speed.PARTS.values())
