import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mtl_core.smtos import geometry
from mtl_study.analysis import alignment, comparisons, delta, frames, inference, rankings, task_weights, tuning
from mtl_study.experiments.runs import Gradients


def task(name, **metric_directions):
    return SimpleNamespace(
        name=name, metrics={m: SimpleNamespace(higher_is_better=up) for m, up in metric_directions.items()}
    )


CL, RR = task("CL", accuracy=True), task("RR", mse=False)
S = task("S", acc=True, mIoU=True)


@pytest.fixture
def baselines(make_run):
    """CL: accuracy 0.8 on validation and test; RR: mse 0.5."""
    return delta.single_task_baselines(
        [make_run([{"CL": 0.8}], problem="p/CL"), make_run([{"RR": 0.5}], problem="p/RR")], [CL, RR]
    )


# -- the chosen epoch --------------------------------------------------------------------------------------------------


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


# -- Δm ----------------------------------------------------------------------------------------------------------------


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


def test_reference_itself_has_delta_m_zero(make_run, baselines):
    assert delta.selected([make_run([{"CL": 0.8, "RR": 0.5}])], baselines, [CL, RR]).delta_m.item() == 0


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


def test_seeds_share_a_configuration_and_settings_do_not(make_run):
    def config(**settings):
        return frames.configuration(make_run([], **settings).config)

    assert config(seed=1) == config(seed=2)
    assert len({config(), config(lr=0.01), config(smto="edm"), config(options={"c": 0.5})}) == 4
    assert "seed" not in json.loads(config())


# -- baselines --------------------------------------------------------------------------------------------------------


def test_reference_is_the_mean_over_seeds_of_the_configuration_best_on_validation(make_run):
    """The configuration that is better on test but worse on validation is not chosen."""

    def single(seed, dropout, val, test):
        return make_run([{"RR": val}], [{"RR": test}], seed=seed, dropout=dropout)

    runs = [single(1, 0.0, 0.5, 0.7), single(2, 0.0, 0.7, 0.9), single(1, 0.5, 0.8, 0.1), single(2, 0.5, 0.6, 0.1)]
    found = delta.single_task_baselines(runs, [RR])
    assert found.value.to_dict() == pytest.approx({("val", "RR", "mse"): 0.6, ("test", "RR", "mse"): 0.8})
    assert (found.n == 2).all() and json.loads(found.config.iloc[0])["dropout"] == 0.0


def test_configurations_are_compared_on_the_seeds_they_share(make_run):
    """The chosen one has extra seeds, on which it does worse: they count in the reference, not in the choice."""
    runs = [
        make_run([{"CL": value}], seed=seed, dropout=p)
        for seed, p, value in [(1, 0.0, 0.9), (2, 0.0, 0.5), (3, 0.0, 0.4), (1, 0.5, 0.8)]
    ]
    found = delta.single_task_baselines(runs, [CL])
    assert found.value.tolist() == pytest.approx([0.6, 0.6]) and found.n.tolist() == [3, 3]


def test_a_configuration_that_diverged_is_never_the_reference(make_run):
    runs = [make_run([{"CL": None}], dropout=0.0), make_run([{"CL": 0.5}], dropout=0.5)]
    assert delta.single_task_baselines(runs, [CL]).value.tolist() == [0.5, 0.5]


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
        ([("CL", 0.5), ("RR", 0.0)], "the val reference of RR mse is 0.0"),
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


# -- over methods ------------------------------------------------------------------------------------------------------


def table(values, column="delta_m", problem="p"):
    """One row per run from {smto: [value per seed]}."""
    rows = [(problem, smto, smto, seed, v) for smto, vs in values.items() for seed, v in enumerate(vs)]
    return pd.DataFrame(rows, columns=["problem", "smto", "config", "seed", column])


def test_mean_rank_averages_ties_and_counts_a_task_once():
    """acc: a, b tie at the top (1.5 each), c third; mIoU: c, b, a; RR: a, b, c. MR(a) = ((1.5 + 3)/2 + 1)/2."""
    found = pd.DataFrame({"smto": list("abc"), "S/acc": [5, 5, 1], "S/mIoU": [1, 2, 3], "RR": [3, 2, 1]})
    assert rankings.mean_rank(found, [S, RR]).to_dict() == pytest.approx({"a": 1.625, "b": 1.875, "c": 2.5})


def test_mean_ranks_sum_to_the_sum_of_ranks():
    values = np.random.default_rng(0).normal(size=(7, 2))
    found = pd.DataFrame(values, columns=["CL", "RR"]).assign(smto=list("abcdefg"))
    assert rankings.mean_rank(found, [CL, RR]).sum() == pytest.approx(28)


def test_task_statistics_with_and_without_the_average_as_a_value():
    """Gains −8, 0, 2 with mean −2: median 0, sd √(56/3); with the mean as a fourth value −1 and √(56/4) = √14."""
    tasks = [task(name, m=True) for name in "abc"]
    found = pd.DataFrame({"smto": ["x", "x"], "a": [-9, -7], "b": [0, 0], "c": [2, 2]})
    ours = rankings.task_statistics(found, tasks).loc["x"]
    released = rankings.task_statistics(found, tasks, as_released=True).loc["x"]
    assert ours.tolist() == pytest.approx([-8, 2, 0, math.sqrt(56 / 3), -2])
    assert released.tolist() == pytest.approx([-8, 2, -1, math.sqrt(14), -2])


def test_paired_differences_cancel_what_the_seed_does_to_both():
    """Seeds differ by tens, the method by 1, 2, 3 over the baseline: mean 2, t interval 2 ± 4.3027/√3."""
    found = comparisons.paired(table({"unit_scal": [0, 10, 20], "edm": [1, 12, 23]})).loc["edm"]
    half = stats.t.ppf(0.975, 2) / math.sqrt(3)
    assert found.to_dict() == pytest.approx({"mean": 2, "low": 2 - half, "high": 2 + half, "n": 3})


def test_a_seed_without_a_value_is_left_out_of_the_pairs_and_of_n():
    found = comparisons.paired(table({"unit_scal": [0, 0, 0], "edm": [1, math.nan, 3]}))
    assert found.loc["edm", ["mean", "n"]].tolist() == [2, 2]


def test_one_seed_bounds_nothing():
    found = comparisons.paired(table({"unit_scal": [0], "edm": [5]})).loc["edm"]
    assert (found["mean"], found.low, found.high, found.n) == (5, -math.inf, math.inf, 1)


def test_t_interval_covers_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(size=(4000, 5))
    hits = [low <= 0 <= high for _, low, high, _ in map(inference.t_interval, draws)]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.012)


def test_bootstrap_is_seeded_and_near_the_t_interval_for_many_values():
    values = np.random.default_rng(1).normal(3, 1, 200)
    one, again = inference.bootstrap_interval(values), inference.bootstrap_interval(values)
    assert one == again
    assert one[:3] == pytest.approx(inference.t_interval(values)[:3], abs=0.02)


def test_comparisons_across_problems_or_configurations_are_refused():
    two = pd.concat([table({"unit_scal": [0]}), table({"edm": [1]}, problem="q")])
    with pytest.raises(ValueError, match="one problem at a time"):
        comparisons.paired(two)
    with pytest.raises(ValueError, match="keep one configuration per method"):
        comparisons.paired(pd.concat([table({"unit_scal": [0], "edm": [1]}), table({"edm": [2]})]))
    with pytest.raises(ValueError, match="baseline 'unit_scal'"):
        comparisons.paired(table({"edm": [1]}))


def test_tost_agrees_with_the_90_percent_interval():
    """p < 0.05 exactly where the 90 % interval lies within the margin."""
    rng = np.random.default_rng(0)
    verdicts = []
    for _ in range(300):
        values = rng.normal(rng.uniform(-2, 2), 0.5, rng.integers(2, 8))
        _, low, high, _ = inference.t_interval(values, 0.90)
        verdicts.append(low > -1 and high < 1)
        assert (inference.tost(values, 1) < 0.05) == verdicts[-1]
    assert 30 < sum(verdicts) < 270  # both happened


def test_no_significant_difference_is_not_equivalence():
    noisy = [-3.0, 4.0, 0.5]
    assert stats.ttest_1samp(noisy, 0).pvalue > 0.5
    assert inference.tost(noisy, 1) > 0.2
    found = comparisons.equivalence(table({"unit_scal": [0, 0, 0], "edm": noisy, "si": [0.1, 0.0, -0.1]}), margin=1)
    assert found.p["si"] < 0.05 < found.p["edm"]


def test_spearman_p_is_exact_for_few_points():
    """Four points in order: 2 of the 24 orders are as extreme (this one and its reverse)."""
    assert inference.spearman([1, 2, 3, 4], [1, 8, 27, 64]) == (pytest.approx(1), pytest.approx(1 / 12), 4, True)
    assert inference.spearman([1, 2, 3], [3, 2, 1]) == (pytest.approx(-1), pytest.approx(1 / 3), 3, True)


def test_spearman_agrees_with_scipy_with_ties_and_for_many_points():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, 16), rng.integers(0, 6, 16)
    ours, theirs = inference.spearman(x, y), stats.spearmanr(x, y)
    assert not ours.exact
    assert ours.rho == pytest.approx(theirs.statistic) and ours.p == pytest.approx(theirs.pvalue, abs=0.02)
    assert math.isnan(inference.spearman([1, 1, 1], [1, 2, 3]).rho)


# -- gradients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_tasks", [2, 3, 11])
def test_unrelated_gradients_of_equal_length_have_the_floor(num_tasks):
    gramian = 7.0 * np.eye(num_tasks)
    c = geometry.cosine_to_mean(gramian)
    assert c == pytest.approx(alignment.cosine_floor(num_tasks)) == pytest.approx(num_tasks**-0.5)
    assert geometry.pairwise_cosine(gramian) == 0
    assert alignment.normalised_cosine(c, num_tasks) == pytest.approx(0, abs=1e-12)


def test_normalised_cosine_gives_a_common_cosine_back():
    for cosine in [-0.2, 0.0, 0.3, 0.9]:
        gramian = np.full((4, 4), cosine) + (1 - cosine) * np.eye(4)
        assert alignment.normalised_cosine(geometry.cosine_to_mean(gramian), 4) == pytest.approx(cosine)
        assert geometry.pairwise_cosine(gramian) == pytest.approx(cosine)


def test_cosine_to_mean_is_its_definition_on_random_gradients():
    gradients = np.random.default_rng(0).normal(size=(5, 20)) * [[1], [10], [0.1], [1], [3]]
    mean = gradients.mean(axis=0)
    expected = np.mean([g @ mean / (np.linalg.norm(g) * np.linalg.norm(mean)) for g in gradients])
    assert geometry.cosine_to_mean(gradients @ gradients.T) == pytest.approx(expected)


def test_unequal_lengths_lower_the_cosine_without_any_conflict():
    """Two orthogonal gradients: from 0.71 at equal length towards ½ as one grows."""
    values = [geometry.cosine_to_mean(np.diag([1.0, ratio**2])) for ratio in [1, 3, 10, 1000]]
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(0.5**0.5) and values[-1] == pytest.approx(0.5, abs=1e-3)


def test_cosines_with_a_zero_gradient_or_a_zero_mean_are_nan():
    assert math.isnan(geometry.cosine_to_mean(np.diag([1.0, 0.0])))
    assert math.isnan(geometry.pairwise_cosine(np.diag([1.0, 0.0])))
    assert math.isnan(geometry.cosine_to_mean(np.array([[1.0, -1.0], [-1.0, 1.0]])))


def test_gradient_statistics_have_a_row_per_epoch_and_space(make_run):
    found = Gradients(cosine_to_mean=0.5**0.5, pairwise_cosine=None, norms=[1.0, 1.0], norm_ratio=1.0)
    run = make_run([{"CL": 1, "RR": 1}] * 3, gradients={"features": found, "parameters": found})
    rows = alignment.gradient_statistics([run])
    assert len(rows) == 6 and set(rows.progress) == {0, 50, 100}
    assert rows.normalised_cosine.tolist() == pytest.approx([0] * 6, abs=1e-12) and rows.pairwise_cosine.isna().all()


# -- weights -----------------------------------------------------------------------------------------------------------


def test_trajectories_are_normalised_and_leave_out_methods_without_weights(make_run):
    epochs = [{"CL": 1, "RR": 1}] * 2
    nash = make_run(epochs, smto="nash_mtl", weights=[[30, 10], [1, 1]])
    graddrop = make_run(epochs, smto="graddrop", weights=[[None, None]] * 2)
    found = task_weights.trajectories([nash, graddrop])
    assert found.smto.unique().tolist() == ["nash_mtl"]
    assert found.weight.tolist() == [0.75, 0.25, 0.5, 0.5] and found.task.tolist() == ["CL", "RR"] * 2
    assert task_weights.distance_from_equal([nash, graddrop]).distance.tolist() == [0.25, 0]


def test_weights_as_the_paper_logs_them_and_as_they_are_applied(make_run):
    """Nash-MTL's heads get α before the clip; IMTL's α is a diagnostic beside the scaled weights (D25)."""
    epochs = [{"CL": 1, "RR": 1}]
    nash = make_run(epochs, smto="nash_mtl", weights=[[1, 1]])
    nash.history[0].head_weights = [3.0, 1.0]
    imtl = make_run(epochs, smto="imtl", weights=[[1, 3]], diagnostics=[{"alpha_0": 0.4, "alpha_1": 0.6}])
    first = {
        which: task_weights.trajectories([nash, imtl], which).weight[::2].tolist() for which in ("logged", "applied")
    }
    assert first == {"logged": [0.75, 0.4], "applied": [0.5, 0.25]}


def test_fixed_weights_are_the_last_of_the_moving_average(make_run):
    """Start (¾, ¼), then (½, ½): 0.9 · ¾ + 0.1 · ½ = 0.725."""
    run = make_run([{"CL": 1, "RR": 1}] * 2, smto="nash_mtl", weights=[[30, 10], [1, 1]])
    assert task_weights.fixed_weights(run) == pytest.approx({"CL": 0.725, "RR": 0.275})
    with pytest.raises(ValueError, match="graddrop gives no weights"):
        task_weights.fixed_weights(make_run([{"CL": 1, "RR": 1}], smto="graddrop", weights=[[None, None]]))


def test_moving_average_of_a_constant_is_the_constant():
    assert task_weights.ema(np.full((5, 2), 0.3)) == pytest.approx(np.full((5, 2), 0.3))


def test_per_run_means_over_epochs(make_run):
    found = Gradients(cosine_to_mean=0.6, pairwise_cosine=0.1, norms=[1.0, 2.0], norm_ratio=2.0)
    epochs = [{"CL": 1, "RR": 1}] * 2
    runs = [
        make_run(epochs, weights=[[1, 3], [1, 1]], gradients={"parameters": found}),
        make_run(epochs, smto="graddrop", weights=[[None, None]] * 2),
    ]
    rows = alignment.per_run(runs).set_index("smto")
    assert rows.loc["unit_scal", ["weight_distance", "cosine_to_mean", "norm_ratio"]].tolist() == [0.125, 0.6, 2.0]
    assert rows.loc["graddrop", ["weight_distance", "cosine_to_mean"]].isna().all()


# -- luck and tuning ---------------------------------------------------------------------------------------------------


def test_optimism_is_validation_minus_test_at_the_chosen_epoch(make_run, baselines):
    """At epoch 1 validation gains 5 % and 0 %, test loses 5 % and 0 %: 2.5 − (−2.5)."""
    run = make_run([{"CL": 0.8, "RR": 0.6}, {"CL": 0.84, "RR": 0.5}], [{"CL": 0.9, "RR": 0.5}, {"CL": 0.76, "RR": 0.5}])
    row = tuning.selection_bias([run], baselines, [CL, RR]).iloc[0]
    assert row[["epoch", "val_delta_m", "delta_m", "optimism"]].tolist() == pytest.approx([1, 2.5, -2.5, 5])
    assert math.isnan(row.luck)


def test_luck_is_against_the_same_configuration_at_other_seeds(make_run, baselines):
    """Validation is 10, 0 and 20 % of CL above test: 5, 0 and 10 points of Δm; minus the mean of the other two."""
    runs = [
        make_run([{"CL": v, "RR": 0.5}], [{"CL": 0.8, "RR": 0.5}], seed=seed)
        for seed, v in enumerate((0.88, 0.8, 0.96), 1)
    ]
    found = tuning.selection_bias(runs, baselines, [CL, RR])
    assert found.optimism.tolist() == pytest.approx([5, 0, 10])
    assert found.luck.tolist() == pytest.approx([0, -7.5, 7.5])


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


def by_lr(values, smto="unit_scal"):
    """Rows as of `selected`: values by learning rate, one per seed; validation agrees with test."""
    rows = [
        {"problem": "p", "smto": smto, "config": json.dumps({"lr": lr}), "seed": seed, "delta_m": v, "val_delta_m": v}
        for lr, of_seeds in values.items()
        for seed, v in enumerate(of_seeds, 1)
    ]
    return pd.DataFrame(rows)


def test_lr_vs_seed_by_hand():
    """Means 0, 3 and 6 have the standard deviation 3; at the best rate, 0.004, the seeds 5, 6 and 7 have 1."""
    table = by_lr({0.001: [1, 0, -1], 0.002: [3, 3, 3], 0.004: [5, 6, 7]})
    row = tuning.lr_vs_seed(table).loc["unit_scal"]
    assert row[["sd_lr", "sd_seed", "ratio", "best_lr", "lrs", "seeds"]].tolist() == pytest.approx(
        [3, 1, 3, 0.004, 3, 3]
    )
    assert row.low < 3 < row.high == math.inf  # three equal seeds are drawn in one draw of nine


def test_lr_vs_seed_by_seed_is_the_jackknife():
    """By hand from the ratios without one seed; their mean is near the logarithm of the whole ratio, and for many seeds
    the t interval covers the truth as the bootstrap does."""
    table = by_lr({0.001: [1, 0, -1], 0.002: [3, 3, 3], 0.004: [5, 6, 7]})
    found = tuning.lr_vs_seed_by_seed(table).set_index("seed").log_ratio
    without = [tuning.lr_vs_seed(table[table.seed != seed]).ratio.item() for seed in (1, 2, 3)]
    assert found.tolist() == pytest.approx([3 * math.log(3) - 2 * math.log(ratio) for ratio in without])
    assert tuning.lr_vs_seed_by_seed(table[table.seed < 3]).empty
    rng = np.random.default_rng(5)
    many = tuning.lr_vs_seed_by_seed(by_lr({lr: rng.normal(m, 1, 40) for lr, m in ((1e-3, 0), (2e-3, 2), (4e-3, 4))}))
    interval = inference.t_interval(many.log_ratio)
    assert interval.low < math.log(2) < interval.high < interval.low + 1


def test_lr_vs_seed_over_coarse_grids_takes_the_best_of_each():
    """Grids {0.001, 0.004} and {0.002, 0.008} give 4 and 6, by validation; singly the rates would spread far more."""
    table = by_lr({0.001: [3, 5], 0.002: [5, 7], 0.004: [-20, -20], 0.008: [-90, -90]})
    row = tuning.lr_vs_seed(table, grids=[(0.001, 0.004), (0.002, 0.008)]).loc["unit_scal"]
    assert row.sd_lr == pytest.approx(math.sqrt(2)) and row.ratio == pytest.approx(1)
    with pytest.raises(ValueError, match=r"no run with the learning rate 0\.05"):
        tuning.lr_vs_seed(table, grids=[(0.001, 0.05)])


def test_lr_vs_seed_interval_covers_for_many_seeds():
    """Forty seeds around means 0, 2, 4 with standard deviation 1: the true ratio 2 lies in a narrow interval."""
    rng = np.random.default_rng(3)
    row = tuning.lr_vs_seed(by_lr({lr: rng.normal(m, 1, 40) for lr, m in ((1e-3, 0), (2e-3, 2), (4e-3, 4))})).iloc[0]
    assert row.low < 2 < row.high < 1.5 * row.low + 1


def test_lr_vs_seed_needs_several_rates_and_no_other_difference():
    assert tuning.lr_vs_seed(by_lr({0.001: [1, 2]})).empty
    one_seed = tuning.lr_vs_seed(by_lr({0.001: [1], 0.002: [3]})).iloc[0]
    assert one_seed.sd_lr == pytest.approx(math.sqrt(2)) and math.isnan(one_seed.ratio) and math.isnan(one_seed.low)
    with pytest.raises(ValueError, match="give those that differ in these only"):
        tuning.lr_vs_seed(pd.concat([by_lr({0.001: [1, 2]}), by_lr({0.001: [1, 2]})]))
