"""What validation's choice adds, and the learning rate against the seed, by hand."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from mtl_core import problems
from mtl_study.analysis import tuning

CL, RR = problems.get("multimnist/CL_RR").tasks


def test_selection_bias_is_validation_minus_test_at_the_chosen_epoch(make_run, baselines):
    """At epoch 1 validation gains 5 % and 0 %, test loses 5 % and 0 %: 2.5 − (−2.5)."""
    run = make_run([{"CL": 0.8, "RR": 0.6}, {"CL": 0.84, "RR": 0.5}], [{"CL": 0.9, "RR": 0.5}, {"CL": 0.76, "RR": 0.5}])
    row = tuning.selection_bias([run], baselines, [CL, RR]).iloc[0]
    assert row[["epoch", "val_delta_m", "delta_m", "bias"]].tolist() == pytest.approx([1, 2.5, -2.5, 5])
    assert math.isnan(row.luck)


def test_luck_is_against_the_same_configuration_at_other_seeds(make_run, baselines):
    """Validation is 10, 0 and 20 % of CL above test: 5, 0 and 10 points of Δm; minus the mean of the other two."""
    runs = [
        make_run([{"CL": v, "RR": 0.5}], [{"CL": 0.8, "RR": 0.5}], seed=seed)
        for seed, v in enumerate((0.88, 0.8, 0.96), 1)
    ]
    found = tuning.selection_bias(runs, baselines, [CL, RR])
    assert found.bias.tolist() == pytest.approx([5, 0, 10])
    assert found.luck.tolist() == pytest.approx([0, -7.5, 7.5])


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
    assert row.low == 0 and 3 < row.high < math.inf  # three seeds cannot exclude that all rates are alike


def test_lr_vs_seed_interval_covers_for_many_seeds():
    """Forty seeds around means 0, 2, 4 with standard deviation 1: the true ratio 2 is in a narrow interval."""
    rng = np.random.default_rng(3)
    row = tuning.lr_vs_seed(by_lr({lr: rng.normal(m, 1, 40) for lr, m in ((1e-3, 0), (2e-3, 2), (4e-3, 4))})).iloc[0]
    assert row.low < 2 < row.high < 1.5 * row.low + 1


def test_lr_vs_seed_needs_several_rates_and_no_other_difference():
    assert tuning.lr_vs_seed(by_lr({0.001: [1, 2]})).empty
    one_seed = tuning.lr_vs_seed(by_lr({0.001: [1], 0.002: [3]})).iloc[0]
    assert one_seed.sd_lr == pytest.approx(math.sqrt(2)) and math.isnan(one_seed.ratio) and math.isnan(one_seed.low)
    with pytest.raises(ValueError, match="give those that differ in these only"):
        tuning.lr_vs_seed(pd.concat([by_lr({0.001: [1, 2]}), by_lr({0.001: [1, 2]})]))
