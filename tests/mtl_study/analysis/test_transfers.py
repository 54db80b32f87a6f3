"""δ and the difference of scores, by hand."""

import pytest

from mtl_core import problems
from mtl_study.analysis import transfers
from mtl_study.experiments.corruptions import SEVERITIES
from mtl_study.experiments.runs import RunConfig
from mtl_study.experiments.transfer import Transfer, TransferConfig

TASKS = problems.get("multimnist/CL_RR").tasks


def record(problem, seed, clean, corrupted, smto="unit_scal"):
    """Scores by task, the same under every corruption."""
    metrics = {"CL": "accuracy", "RR": "mse"}
    base = RunConfig.of(problem=f"multimnist/{problem}", smto=smto, seed=seed, epochs=1, lr=0.001)
    config = TransferConfig.of(base=base, tuning_epochs=1)
    scores = [{task: {metrics[task]: value} for task, value in of.items()} for of in (clean, corrupted)]
    found = {"clean": scores[0], "corrupted": {name: [scores[1]] * 5 for name in SEVERITIES}}
    how = {"code_versions": config.code_versions, "ended": "finished", "seconds": 3.0, "environment": {}}
    made = Transfer(config=config, **found, **how)
    made.check()
    return made


ALONE = [record("CL", 1, {"CL": 0.8}, {"CL": 0.6}), record("RR", 1, {"RR": 0.5}, {"RR": 1.0})]


def test_a_model_that_is_bad_on_clean_pictures_keeps_more_and_is_worse():
    """CL: 0.45 of 0.5 is kept, of the single-task model 0.6 of 0.8: δ = −(0.9 − 0.75); its score is 25 % lower. RR: an
    error of 0.9 from 0.6 against 1 from 0.5: δ = 1.5 − 2, and 10 % lower."""
    together = [record("CL_RR", 1, {"CL": 0.5, "RR": 0.6}, {"CL": 0.45, "RR": 0.9})]
    table = transfers.by_task(together, ALONE, TASKS)
    assert len(table) == 2 * 10 * 5
    (row,) = transfers.per_run(table).to_dict("records")
    assert row["delta CL"] == pytest.approx(-0.15) and row["difference CL"] == pytest.approx(25)
    assert row["delta RR"] == pytest.approx(-0.5) and row["difference RR"] == pytest.approx(-10)
    assert row["delta"] == pytest.approx(-0.325) and row["difference"] == pytest.approx(7.5)
    assert (row["favours"], row["agree"], row["seconds"], row["smto"], row["seed"]) == (1, 0.5, 3, "unit_scal", 1)


def test_a_model_beside_itself_is_level():
    together = [record("CL_RR", 1, {"CL": 0.8, "RR": 0.5}, {"CL": 0.6, "RR": 1.0})]
    (row,) = transfers.per_run(transfers.by_task(together, ALONE, TASKS)).to_dict("records")
    assert row["delta"] == row["difference"] == row["favours"] == 0


def test_a_seed_without_single_task_models_is_left_out():
    together = [record("CL_RR", seed, {"CL": 0.8, "RR": 0.5}, {"CL": 0.6, "RR": 1.0}) for seed in (1, 2)]
    found = transfers.per_run(transfers.by_task(together, ALONE, TASKS))
    assert found.seed.tolist() == [1]
    assert transfers.per_run(transfers.by_task([], ALONE, TASKS)).empty
