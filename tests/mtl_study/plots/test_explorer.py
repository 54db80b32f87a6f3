"""The explorer's table says what the notebooks' tables say."""

import json

import pytest

from mtl_study import artifacts, look, parameters
from mtl_study.analysis import rankings
from mtl_study.experiments import protocol
from mtl_study.experiments.store import RunStore
from mtl_study.paper import published
from mtl_study.plots import explorer, selection

CL_RR, CL_CR = "multimnist/CL_RR", "multimnist/CL_CR"


def shipped(problem):
    """Of the shipped records of quick, at its five seeds: gains, and the same for comparisons at one rate."""
    store = RunStore(artifacts.REPOSITORY / "results")
    methods = [smto for smto in published.methods(problem) if smto != "fixed"]
    settings = parameters.settings_of("quick", problem) | {"store": store, "seeds": [1, 2, 3, 4, 5], "workers": 0}
    experiment = protocol.experiment(problem, methods, **settings)
    return experiment.selected(), protocol.at_one_rate(experiment, store)


@pytest.fixture(scope="module")
def cl_rr():
    return shipped(CL_RR)


def cells(found, rates, metric="delta_m"):
    """The texts of the ranking, by method and head."""
    return {row["smto"]: dict(zip(explorer.HEADS, row["cells"], strict=True)) for row in found["rows"][rates][metric]}


def test_the_ranking_is_that_of_the_notebook(cl_rr):
    """Tables 3 and "Each method minus the uniform loss" of notebook 01, from the shipped records."""
    selected, one_rate = cl_rr
    found = explorer.of_problem(selected, one_rate)
    gains = selection.table_3(selected)
    differences = selection.table_of_differences(selected, one_rate)
    own, matched = cells(found, "own"), cells(found, "one_rate")
    assert len(own) == len(matched) == len(gains) == 16
    for smto, row in own.items():
        table_3 = gains.loc[row["method"]]
        assert (row["places"], row["ties"]) == (table_3.places, table_3.ties), smto
        assert float(row["gain"].replace("−", "-")) == pytest.approx(table_3["Δm"], abs=0.006)
        if smto == "unit_scal":
            continue
        difference = differences.loc[row["method"]]
        assert row["95 % interval"] == difference["95 % interval"] and row["seeds"] == str(difference.n)
        assert float(row["minus Unit. Scal."].replace("−", "-")) == pytest.approx(difference.difference, abs=0.006)
        assert matched[smto]["95 % interval"] == difference["interval at one rate"]
        assert matched[smto]["rate"] == difference["one rate"]


def test_the_numbers_of_the_shipped_records(cl_rr):
    """Golden: CDTT leads with its own rate, and CAGrad is among the first where the rates are equal."""
    found = explorer.of_problem(*cl_rr)
    assert list(found["methods"]) == look.in_order(found["methods"])  # not by letters
    first, *_ = found["rows"]["own"]["delta_m"]
    assert (first["smto"], first["mean"], first["low"], first["high"]) == ("cdtt", 17.8011, 17.388, 18.2141)
    assert cells(found, "own")["cagrad"] == dict(
        zip(explorer.HEADS, ["3 to 6", "CAGrad", "c", "+10.84", "9.85 to 11.83", "5", "0.001", "−10.99"], strict=True)
    )
    assert [row["smto"] for row in found["rows"]["one_rate"]["delta_m"]][:2] == ["imtl", "cagrad"]
    assert cells(found, "one_rate")["cdtt"]["minus Unit. Scal."] == "+8.20"
    assert found["metrics"] == {
        "delta_m": "Δm, mean over tasks",
        "CL": "CL: class of the left digit",
        "RR": "RR: reconstruction of the right digit",
    }
    assert cells(found, "own", "RR") != cells(found, "own")
    json.dumps(found, allow_nan=False)


def test_a_method_without_all_pairs_has_no_place_at_one_rate(cl_rr):
    """As CDTT on CL_CR, whose rate the uniform loss has with three seeds of five; CAGrad here has no pair at all."""
    selected, one_rate = cl_rr
    lost = (one_rate.smto == "cdtt") & (one_rate.seed > 3) | (one_rate.smto == "cagrad")
    one_rate = one_rate.assign(delta_m=one_rate.delta_m.mask(lost), rate=one_rate.rate.mask(one_rate.smto == "cagrad"))
    found = cells(explorer.of_problem(selected, one_rate), "one_rate")
    assert (found["cdtt"]["places"], found["cdtt"]["ties"], found["cdtt"]["seeds"]) == ("–", "", "3")
    assert list(found)[-2:] == ["cdtt", "cagrad"]
    assert (found["cagrad"]["rate"], found["cagrad"]["minus Unit. Scal."]) == ("no runs", "–")
    rest = one_rate[~one_rate.smto.isin(["cdtt", "cagrad"])].pivot(index="seed", columns="smto", values="delta_m")
    assert {s: row["ties"] for s, row in found.items() if row["ties"]} == rankings.places(rest).ties.to_dict()


def test_one_seed_gives_no_interval(cl_rr):
    selected, one_rate = (table[table.seed == 1] for table in cl_rr)
    rows = explorer.of_problem(selected, one_rate)["rows"]["own"]["delta_m"]
    assert {(row["low"], row["high"], row["cells"][4]) for row in rows} == {(None, None, "–")}


def test_what_is_left_is_read_by_the_page(cl_rr, tmp_path, monkeypatch):
    """One file per notebook with its records; running the notebook again clears it."""
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path))
    said = explorer.leave(*cl_rr, preset="quick", notebook="01_mnist_selection", data="digits")
    path = tmp_path / "quick" / "explorer" / "01_mnist_selection.json"
    left = json.loads(path.read_text())
    assert "1 problem" in said.data and {"problems", "records"} == set(left)
    assert left["problems"] == [explorer.of_problem(*cl_rr, "digits")] and left["problems"][0]["data"] == "digits"
    artifacts.clear(tmp_path / "quick", "01_mnist_selection")
    assert not path.exists()
