"""Δm, what it is measured against, and the epoch at which a run is read: by hand."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest

from mtl_core import problems
from mtl_study.analysis import delta, frames, inference

CL, RR = problems.get("multimnist/CL_RR").tasks
S = dataclasses.replace(CL, name="S", metrics={name: CL.metrics["accuracy"] for name in ("acc", "mIoU")})  # both rise


@pytest.mark.parametrize(
    ("values", "epoch"),
    [
        ([1, 3, 2], 1),
        ([3, 3, 3], 0),
        ([math.nan, -5, -6], 1),
        ([math.nan, math.nan], None),
        ([], None),
        ([-math.inf, 0], 1),
    ],
)
def test_best_val_epoch_is_the_first_largest_and_never_nan(values, epoch):
    assert delta.best_val_epoch(values) == epoch


def test_delta_m_by_hand(make_run, baselines):
    """CL 0.76 against 0.8 is −5 %; RR 0.6 against 0.5 is −20 %, since a lower error is better; Δm is their mean."""
    table = delta.delta_m(frames.tidy([make_run([{"CL": 0.76, "RR": 0.6}])]), baselines, [CL, RR])
    row = table.xs("test", level="split").iloc[0]
    assert row.to_dict() == pytest.approx({"CL": -5, "RR": -20, "delta_m": -12.5})


def test_tasks_count_equally_whatever_their_number_of_metrics(make_run):
    """S gains 10 % and 30 %, so 20 % as a task; RR loses 20 %: Δm is 0, not the 6.7 % of the mean over metrics."""
    singles = [make_run([{"S": {"acc": 0.5, "mIoU": 0.1}}]), make_run([{"RR": 1.0}])]
    baselines = delta.single_task_baselines(singles, [S, RR])
    run = make_run([{"S": {"acc": 0.55, "mIoU": 0.13}, "RR": 1.2}])
    row = delta.selected([run], baselines, [S, RR]).iloc[0]
    assert row[["S", "RR", "S/acc", "S/mIoU"]].tolist() == pytest.approx([20, -20, 10, 30])
    assert row.delta_m == pytest.approx(0, abs=1e-9)


def test_a_metric_that_is_not_finite_makes_delta_m_nan_and_not_the_mean_of_the_rest(make_run, baselines):
    table = delta.delta_m(frames.tidy([make_run([{"CL": 0.8, "RR": None}])]), baselines, [CL, RR])
    assert table["delta_m"].isna().all() and table["CL"].notna().all()


def test_the_baseline_itself_has_delta_m_zero(make_run, baselines):
    assert delta.selected([make_run([{"CL": 0.8, "RR": 0.5}])], baselines, [CL, RR]).delta_m.item() == 0


def test_many_runs_are_read_a_few_at_a_time(make_run, baselines, monkeypatch):
    """The table of all epochs of all runs is never held; the rows are those that it would give, bit for bit."""
    several = [
        make_run([{"CL": 0.7 + 0.01 * ((7 * seed + e) % 5), "RR": 0.5 + 0.003 * seed} for e in range(3)], seed=seed)
        for seed in range(7)
    ]
    whole, held = delta.selected(several, baselines, [CL, RR]), []
    monkeypatch.setattr(delta, "AT_ONCE", 3)
    monkeypatch.setattr(delta, "tidy", lambda runs: held.append(len(runs)) or frames.tidy(runs))
    pd.testing.assert_frame_equal(delta.selected(several, baselines, [CL, RR]), whole, check_exact=True)
    assert held == [3, 3, 1]
    alone = [make_run([{"RR": 0.5 + 0.1 * seed}], seed=seed) for seed in range(4)]
    assert delta.single_task_baselines(alone, [RR]).n.tolist() == [4, 4] and held[3:] == [3, 1]


def test_selected_reads_test_at_the_epoch_that_validation_chose(make_run, baselines):
    """Validation is best at epoch 1, test at epoch 2: the test value of epoch 1 is reported."""
    run = make_run(
        val=[{"CL": 0.7, "RR": 0.5}, {"CL": 0.8, "RR": 0.5}, {"CL": 0.6, "RR": 0.5}],
        test=[{"CL": 0.1, "RR": 0.5}, {"CL": 0.4, "RR": 0.5}, {"CL": 0.9, "RR": 0.5}],
    )
    row = delta.selected([run], baselines, [CL, RR]).iloc[0]
    assert (row.epoch, row.CL, row.val_delta_m) == (1, pytest.approx(-50), pytest.approx(0))


def test_diverged_runs_keep_their_best_epoch_and_their_flag(make_run, baselines):
    late = make_run(
        [{"CL": 0.8, "RR": 0.5}, {"CL": None, "RR": None}], smto="imtl", ended="diverged at epoch 2, step 0"
    )
    at_once = make_run([], smto="rotograd", ended="diverged at epoch 0, step 3")
    table = delta.selected([late, at_once], baselines, [CL, RR]).set_index("smto")
    assert table.diverged.all()
    assert table.loc["imtl", "epoch"] == 0 and table.loc["imtl", "delta_m"] == 0
    assert math.isnan(table.loc["rotograd", "delta_m"]) and table.loc["rotograd", "epoch"] is pd.NA


def test_runs_of_another_problem_are_refused(make_run, baselines):
    with pytest.raises(ValueError, match="not the same problem"):
        delta.selected([make_run([{"CL": 0.8, "CR": 0.8}])], baselines, [CL, RR])


def test_the_baseline_is_the_mean_over_seeds_of_the_configuration_best_on_validation(make_run):
    """The configuration that is better on test but worse on validation is not chosen."""

    def single(seed, dropout, val, test):
        return make_run([{"RR": val}], [{"RR": test}], seed=seed, dropout=dropout)

    runs = [single(1, 0.0, 0.5, 0.7), single(2, 0.0, 0.7, 0.9), single(1, 0.5, 0.8, 0.1), single(2, 0.5, 0.6, 0.1)]
    found = delta.single_task_baselines(runs, [RR])
    assert found.value.to_dict() == pytest.approx({("val", "RR", "mse"): 0.6, ("test", "RR", "mse"): 0.8})
    assert (found.n == 2).all() and json.loads(found.config.iloc[0])["dropout"] == 0.0


def test_configurations_are_compared_on_the_seeds_they_share(make_run):
    """The chosen one has extra seeds, on which it does worse: they count in the baseline, not in the choice."""
    runs = [
        make_run([{"CL": value}], seed=seed, dropout=p)
        for seed, p, value in [(1, 0.0, 0.9), (2, 0.0, 0.5), (3, 0.0, 0.4), (1, 0.5, 0.8)]
    ]
    found = delta.single_task_baselines(runs, [CL])
    assert found.value.tolist() == pytest.approx([0.6, 0.6]) and found.n.tolist() == [3, 3]


def test_a_configuration_that_diverged_is_never_the_baseline(make_run):
    runs = [make_run([{"CL": None}], dropout=0.0), make_run([{"CL": 0.5}], dropout=0.5)]
    assert delta.single_task_baselines(runs, [CL]).value.tolist() == [0.5, 0.5]


def test_a_configuration_that_diverged_in_its_first_epoch_is_not_chosen_and_said(make_run):
    """The larger rate has one lucky seed and one that left no epoch: the smaller rate, with two, is the baseline."""
    single = {"problem": "multimnist/CL", "problem_options": {}}
    at_once = {"history": [], "ended": "diverged at epoch 0, step 7"}
    runs = [
        make_run([{"CL": 0.9}], seed=1, lr=0.1, **single),
        make_run([{"CL": 0.9}], seed=2, lr=0.1, **single).model_copy(update=at_once),
        *(make_run([{"CL": 0.8}], seed=seed, lr=0.001, **single) for seed in (1, 2)),
    ]
    with pytest.warns(UserWarning, match=r"CL alone diverged at epoch 0 at learning rate 0\.1 \(seed 2\)"):
        found = delta.single_task_baselines(runs, [CL])
    assert found.value.tolist() == [0.8, 0.8] and found.n.tolist() == [2, 2]
    with (
        pytest.warns(UserWarning, match="not chosen"),
        pytest.raises(ValueError, match="every configuration diverged at some seed"),
    ):
        delta.single_task_baselines(runs[:2], [CL])


def test_each_metric_has_its_own_epoch_and_the_released_rule_lets_test_choose(make_run):
    """acc is best at epoch 0, mIoU at epoch 1; on test, epoch 1 happens to be better for both (D11)."""
    run = make_run(
        val=[{"S": {"acc": 0.9, "mIoU": 0.2}}, {"S": {"acc": 0.8, "mIoU": 0.4}}],
        test=[{"S": {"acc": 0.7, "mIoU": 0.1}}, {"S": {"acc": 0.75, "mIoU": 0.3}}],
    )
    own = delta.single_task_baselines([run], [S]).value
    released = delta.single_task_baselines([run], [S], test_rule="best_test").value
    assert own["val"].tolist() == released["val"].tolist() == [0.9, 0.4]
    assert own["test"].tolist() == [0.7, 0.3]
    assert released["test"].tolist() == [0.75, 0.3]


def test_a_lower_is_better_metric_is_chosen_and_read_the_right_way_round(make_run):
    run = make_run(val=[{"RR": 0.3}, {"RR": 0.2}], test=[{"RR": 0.1}, {"RR": 0.4}])
    for rule in ["own_epoch", "best_test"]:
        assert delta.single_task_baselines([run], [RR], test_rule=rule).value.tolist() == [0.2, 0.4]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([("CL", 0.5)], "no single-task run of 'RR'"),
        ([("CL", 0.5), ("RR", 0.0)], "the val baseline of RR mse is 0.0"),
        ([("CL", 0.5), ("RR", None)], "RR: every configuration diverged"),
    ],
)
def test_baselines_that_cannot_serve_are_refused(make_run, values, message):
    with pytest.raises(ValueError, match=message):
        delta.single_task_baselines([make_run([{name: value}]) for name, value in values], [CL, RR])


def test_best_configuration_per_method_by_mean_validation_delta_m(make_run, baselines):
    runs = [
        make_run([{"CL": 0.8, "RR": mse}], smto=smto, lr=lr, seed=seed)
        for smto, lr, seed, mse in [
            ("edm", 0.1, 1, 0.5), ("edm", 0.1, 2, 0.7), ("edm", 0.1, 3, 9.0), ("edm", 0.2, 1, 0.65),
            ("edm", 0.2, 2, 0.65), ("si", 0.1, 1, 0.9), ("si", 0.2, 1, 0.5),
        ]
    ]  # fmt: skip
    best = delta.best_configurations(delta.selected(runs, baselines, [CL, RR]))
    chosen = {(row.smto, json.loads(row.config)["lr"], row.seed) for row in best.itertuples()}
    assert chosen == {("edm", 0.1, 1), ("edm", 0.1, 2), ("edm", 0.1, 3), ("si", 0.2, 1)}


def test_selected_reads_validation_or_the_last_epoch_when_asked(make_run, baselines):
    """Validation is best at epoch 0; without early stopping the last epoch counts, whatever it is."""
    run = make_run([{"CL": 0.8, "RR": 0.5}, {"CL": 0.4, "RR": 0.5}], [{"CL": 0.88, "RR": 0.5}, {"CL": 0.96, "RR": 0.5}])
    read = {
        (split, rule): delta.selected([run], baselines, [CL, RR], split, rule).iloc[0]
        for split in ("test", "val")
        for rule in ("best_val_epoch", "last_epoch")
    }
    assert {at: row.delta_m for at, row in read.items()} == pytest.approx(
        {
            ("test", "best_val_epoch"): 5,
            ("test", "last_epoch"): 10,
            ("val", "best_val_epoch"): 0,
            ("val", "last_epoch"): -25,
        }
    )
    assert read["test", "last_epoch"].epoch == 1 and read["test", "last_epoch"].val_delta_m == pytest.approx(-25)
    broken = make_run([], seed=2, ended="diverged at epoch 0, step 0")
    found = delta.selected([run, broken], baselines, [CL, RR], rule="last_epoch").delta_m
    assert found[0] == pytest.approx(10) and math.isnan(found[1])


# -- levels, and the error of what they are measured against -----------------------------------------------------------


def values_alone(of_cl, of_rr):
    """`single_task_values` of two tasks, one value per seed (from 0); the test split is what counts."""
    rows = [
        ("test", task, metric, seed, value, "one")
        for task, metric, values in (("CL", "accuracy", of_cl), ("RR", "mse", of_rr))
        for seed, value in enumerate(values)
    ]
    columns = ["split", "task", "metric", "seed", "value", "config"]
    return pd.DataFrame(rows, columns=columns).set_index(columns[:4])


def measured(of_cl, of_rr, alone):
    """`selected` of one method, from its values on both tasks, one per seed."""
    mean = alone["value"].groupby(level="task").mean()
    gains = {"CL": 100 * (np.array(of_cl) / mean["CL"] - 1), "RR": -100 * (np.array(of_rr) / mean["RR"] - 1)}
    table = pd.DataFrame(gains).assign(problem="p", smto="edm", config="one", seed=range(len(of_cl)))
    return table.assign(delta_m=(table.CL + table.RR) / 2)


def levels(of_cl, of_rr, alone, column="delta_m"):
    return delta.with_levels(measured(of_cl, of_rr, alone), alone, [CL, RR])[f"level {column}"]


def test_levels_by_hand():
    """CL alone is 0.8 give or take 0.01 (1.25 %), and the method's gain on it 0: each seed's level moves against
    its own single-task model, by 100 % of that. RR alone is the same at every seed, so nothing moves there."""
    alone = values_alone([0.79, 0.80, 0.81], [0.5, 0.5, 0.5])
    method = [0.8, 0.8, 0.8], [0.6, 0.55, 0.5]
    assert levels(*method, alone, "CL").tolist() == pytest.approx([1.25, 0, -1.25])
    assert levels(*method, alone, "RR").tolist() == pytest.approx([-20, -10, 0])
    assert levels(*method, alone).tolist() == pytest.approx([-9.375, -5, -0.625])


def test_the_error_of_a_baseline_counts_by_what_is_left_of_it():
    """With half the error (a gain of 50 %), a baseline that is off by 10 % moves the gain by 5 points."""
    alone = values_alone([0.8, 0.8], [0.9, 1.1])
    assert levels([0.8, 0.8], [0.5, 0.5], alone, "RR").tolist() == pytest.approx([45, 55])


def test_what_a_seed_does_to_a_method_and_to_its_baselines_alike_cancels():
    alone = values_alone([0.7, 0.8, 0.9], [0.4, 0.5, 0.6])
    found = levels([0.63, 0.72, 0.81], [0.48, 0.6, 0.72], alone)
    assert found.std() < 1e-9 and found.mean() == pytest.approx(-15)


def test_levels_keep_the_mean_and_count_the_seeds_that_both_have():
    """Five seeds alone, four of the method, one of which diverged: three values, and the mean of all that it has."""
    alone = values_alone([0.78, 0.79, 0.80, 0.81, 0.82], [0.5] * 5)
    table = measured([0.7, 0.8, 0.9, math.nan], [0.6, 0.6, 0.7, math.nan], alone)
    found = delta.with_levels(table, alone, [CL, RR])
    assert found["level delta_m"].count() == 3 and found["level delta_m"].mean() == pytest.approx(table.delta_m.mean())
    assert found[table.columns].equals(table)
    one = delta.with_levels(table.iloc[:1], alone, [CL, RR])
    assert one["level delta_m"].tolist() == table.delta_m.iloc[:1].tolist()


def test_a_configuration_that_somebody_has_chosen_is_not_chosen_again(make_run):
    """0.9 is better on validation than 0.8, but the paper took 0.8's rate."""
    runs = [make_run([{"CL": 0.8}], problem="p/CL", lr=0.1), make_run([{"CL": 0.9}], problem="p/CL", lr=0.2)]
    theirs = {("CL", "accuracy"): frames.configuration(runs[0].config)}
    assert delta.single_task_baselines(runs, [CL]).value.tolist() == [0.9, 0.9]
    assert delta.single_task_baselines(runs, [CL], chosen=theirs).value.tolist() == [0.8, 0.8]


def coverage(n, n_alone, shared, draws=400):
    """The share of draws in which the 95 % interval of a level holds the true one, by a method's own seeds and by
    its levels. Baselines scatter by 2 % and 5 %, the method by 1 %; `shared`: of a seed's luck that both have."""
    rng, truth, held = np.random.default_rng(0), (100 * (0.72 / 0.8 - 1) - 100 * (0.55 / 0.5 - 1)) / 2, []
    for _ in range(draws):
        luck = rng.normal(size=(2, max(n, n_alone)))
        alone = values_alone(*(np.array([[0.8], [0.5]]) * (1 + np.array([[0.02], [0.05]]) * luck))[:, :n_alone])
        own = shared * np.array([[0.02], [0.05]]) * luck[:, :n] + 0.01 * rng.normal(size=(2, n))
        table = measured(*(np.array([[0.72], [0.55]]) * (1 + own)), alone)
        both = delta.with_levels(table, alone, [CL, RR])
        intervals = [inference.t_interval(both[column]) for column in ("delta_m", "level delta_m")]
        held.append([i.low <= truth <= i.high for i in intervals])
    return np.mean(held, axis=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "n_alone", "shared", "before"), [(3, 3, 0.0, 0.6), (3, 10, 0.0, 0.8), (10, 10, 1.0, 1.0)]
)
def test_the_interval_of_a_level_holds_the_true_one(n, n_alone, shared, before):
    """In 95 % of draws, with unequal numbers of seeds and where a seed's luck is shared. By the method's own seeds
    alone it is 60 or 80 %; or, where they share the luck, more than need be."""
    own, whole = coverage(n, n_alone, shared)
    assert own == pytest.approx(before, abs=0.04) and whole == pytest.approx(0.95, abs=0.03)
