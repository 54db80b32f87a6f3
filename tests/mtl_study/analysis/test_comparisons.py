"""Methods compared with the uniform loss, seed by seed."""

import json
import math

import pandas as pd
import pytest
from scipy import stats

from mtl_study.analysis import comparisons, inference


def table(values, column="delta_m", problem="p"):
    """One row per run from {smto: [value per seed]}."""
    rows = [(problem, smto, smto, seed, v) for smto, vs in values.items() for seed, v in enumerate(vs)]
    return pd.DataFrame(rows, columns=["problem", "smto", "config", "seed", column])


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


def test_comparisons_across_problems_or_configurations_are_refused():
    two = pd.concat([table({"unit_scal": [0]}), table({"edm": [1]}, problem="q")])
    with pytest.raises(ValueError, match="one problem at a time"):
        comparisons.paired(two)
    with pytest.raises(ValueError, match="keep one configuration per method"):
        comparisons.paired(pd.concat([table({"unit_scal": [0], "edm": [1]}), table({"edm": [2]})]))
    with pytest.raises(ValueError, match="no run of 'unit_scal'"):
        comparisons.paired(table({"edm": [1]}))


def test_no_significant_difference_is_not_equivalence():
    noisy = [-3.0, 4.0, 0.5]
    assert stats.ttest_1samp(noisy, 0).pvalue > 0.5
    assert inference.tost(noisy, 1) > 0.2
    found = comparisons.equivalence(table({"unit_scal": [0, 0, 0], "edm": noisy, "si": [0.1, 0.0, -0.1]}), margin=1)
    assert found.p["si"] < inference.TOST < found.p["edm"]


def with_rates(values):
    """`selected` from {(smto, rate): [value per seed]}."""
    rows = [
        ("p", smto, json.dumps({"lr": lr}), seed, 0, v, 2 * v)
        for (smto, lr), vs in values.items()
        for seed, v in enumerate(vs)
    ]
    return pd.DataFrame(rows, columns=["problem", "smto", "config", "seed", "epoch", "delta_m", "CL"])


def test_at_one_rate_by_hand():
    """The uniform loss gains 4 and 5 points by the rate of `edm`: of its lead of 10 there remain 6 and 5. `si` is taken
    at the rate of the uniform loss, `uw` has that rate already, and of `famo` nothing is known at one rate."""
    reported = {("unit_scal", 0.1): [0, 0], ("edm", 0.2): [10, 10], ("si", 0.3): [7, 7], ("uw", 0.1): [1, 2]}
    selected = with_rates(reported | {("famo", 0.4): [9, 9]})
    others = with_rates({("unit_scal", 0.2): [4, 5], ("si", 0.1): [1, 3], ("unit_scal", 0.3): [0]})
    found = comparisons.at_one_rate(selected, others)
    each = comparisons.differences(found)
    assert each["edm"].tolist() == [6, 5] and each["si"].tolist() == [1, 3] and each["uw"].tolist() == [1, 2]
    assert each["famo"].isna().all() and comparisons.paired(found).n["famo"] == 0
    rates = found.groupby("smto").rate.first()
    assert rates[["edm", "si", "uw"]].tolist() == [0.2, 0.1, 0.1] and math.isnan(rates["famo"])
    assert found.CL.equals(2 * found.delta_m)  # the gain of every task is moved alike
    assert comparisons.at_one_rate(selected, others.iloc[:0]).rate.isna().sum() == 6


def test_at_one_rate_counts_the_pairs_that_there_are():
    """Three seeds of the method, two of the uniform loss at its rate."""
    selected = with_rates({("unit_scal", 0.1): [0, 0, 0], ("edm", 0.2): [1, 2, 3]})
    found = comparisons.paired(comparisons.at_one_rate(selected, with_rates({("unit_scal", 0.2): [1, 1]})))
    assert found.loc["edm", ["mean", "n"]].tolist() == [0.5, 2]


def test_a_level_is_the_yardsticks_where_all_methods_ask_for_the_same_one():
    """Errors of 0.3 and 0.2 over single-task errors of 0.25 (theirs) and 0.2 (ours); accuracies of 0.8 and 0.9 over 0.8
    and 0.9."""
    theirs, ours = (pd.Series({"edm": 0.3, "famo": 0.2}) / alone for alone in (0.25, 0.2))
    found = comparisons.yardstick(100 * (1 - ours), 100 * (1 - theirs), higher_is_better=False)
    assert found.to_dict() == pytest.approx({"edm": 0.8, "famo": 0.8})
    theirs, ours = (pd.Series({"edm": 0.8, "famo": 0.9}) / alone for alone in (0.8, 0.9))
    gains = [100 * (of - 1) for of in (ours, theirs)]
    assert comparisons.yardstick(*gains, higher_is_better=True).to_dict() == pytest.approx(
        {"edm": 1.125, "famo": 1.125}
    )
    assert comparisons.yardstick(gains[0], gains[1][["edm"]], higher_is_better=True).index.tolist() == ["edm"]
