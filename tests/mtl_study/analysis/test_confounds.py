"""Optimizers and units are compared at their best step sizes, against one yardstick."""

import numpy as np
import pandas as pd
import pytest

from mtl_study.analysis import confounds
from mtl_study.experiments import confounds as configs
from mtl_study.experiments import runner
from mtl_study.experiments.runs import BadConfig, RunConfig

TINY = {"train_size": 64, "val_size": 20, "test_size": 20, "epochs": 1, "batch_size": 64, "lr": 0.001, "seed": 1}
LIKE = RunConfig.of(problem="multimnist/CL_RR", **TINY)
ARMS = [("unit_scal", "adam"), ("si", "sgd"), ("si", "adam")]
RATES = {"adam": [0.001, 0.01], "sgd": [0.01]}


def test_every_method_meets_every_optimizer_and_step_size():
    together, alone = configs.crossed(LIKE, ["unit_scal", "cagrad"], RATES, [1, 2])
    assert len(together) == 2 * 3 * 2 and len(alone) == 2 * 3 * 2
    assert {config.problem for config in alone} == {"multimnist/CL", "multimnist/RR"}
    assert {(c.optimizer, c.momentum, c.lr) for c in together} == {
        ("adam", 0, 0.001),
        ("adam", 0, 0.01),
        ("sgd", 0.9, 0.01),
    }
    assert len({c.key for c in together + alone}) == 24
    assert configs.under(together[-1], "adam", 0.001, smto="unit_scal", seed=1).key == LIKE.key
    with pytest.raises(BadConfig, match=r"optimizer 'sdg' \(did you mean 'sgd'"):
        configs.under(LIKE, "sdg", 0.1)


def test_the_last_loss_is_measured_in_several_units():
    arms = [("unit_scal", "sgd"), ("si", "adam")]
    found = configs.in_units(LIKE, arms, [0.01, 1.0], {arms[0]: 0.1, arms[1]: [0.001, 0.01]}, [1])
    assert [(c.smto, c.lr, c.units) for c in found] == [
        ("unit_scal", 0.1, [1.0, 0.01]),
        ("unit_scal", 0.1, []),
        ("si", 0.001, [1.0, 0.01]),
        ("si", 0.001, []),
        ("si", 0.01, [1.0, 0.01]),
        ("si", 0.01, []),
    ]


def rows(numbers, problem="multimnist/CL_RR"):
    """(method, optimizer, lr, factor) → Δm of the seeds."""
    return pd.DataFrame(
        [
            (problem, *key, seed, value, value, 1.0)
            for key, values in numbers.items()
            for seed, value in enumerate(values, 1)
        ],
        columns=["problem", "smto", "optimizer", "lr", "factor", "seed", "delta_m", "val_delta_m", "seconds"],
    )


def grid(smto, optimizer, best):
    """Three step sizes, the middle one best."""
    return {(smto, optimizer, lr, 1.0): np.array(best) - off for lr, off in ((0.1, 5.0), (0.2, 0.0), (0.3, 5.0))}


def test_the_interaction_by_hand():
    """Adam gives the method 4 and 6 points, single-task models 10 and 9: an interaction of −6 and −3."""
    numbers = {
        **grid("uw", "adam", [1.0, 2.0]),
        **grid("uw", "sgd", [-3.0, -4.0]),
        **grid(confounds.ALONE, "adam", [0.0, 0.0]),
        **grid(confounds.ALONE, "sgd", [-10.0, -9.0]),
    }
    best = confounds.at_best(rows(numbers))
    found = confounds.interaction(best)
    assert set(best.lr) == {0.2} and confounds.at_the_edge(best) == []
    assert found.gain.tolist() == [4, 6] and found.gain_alone.tolist() == [10, 9]
    assert found.interaction.tolist() == [-6, -3] and found.seconds.tolist() == [4, 4]


def test_a_best_step_size_at_the_edge_leaves_the_method_out():
    numbers = {
        **grid("uw", "adam", [1.0]),
        **grid(confounds.ALONE, "adam", [0.0]),
        **grid(confounds.ALONE, "sgd", [0.0]),
    }
    numbers[("uw", "sgd", 0.1, 1.0)] = [1.0]
    numbers[("uw", "sgd", 0.2, 1.0)] = [2.0]
    best = confounds.at_best(rows(numbers))
    assert confounds.at_the_edge(best) == [("uw", "sgd")] and confounds.interaction(best).empty


def test_a_step_size_that_diverged_at_a_seed_is_not_best():
    numbers = {("uw", "sgd", 0.1, 1.0): [1.0, 1.0], ("uw", "sgd", 0.2, 1.0): [9.0, np.nan]}
    assert set(confounds.at_best(rows(numbers)).lr) == {0.1}


def test_the_spread_over_units_by_hand():
    """−1, 0 and 1 have a standard deviation of √(2/3); the rate is that of the factor 1."""
    numbers = {
        ("unit_scal", "adam", 0.1, factor): [delta] for factor, delta in ((0.01, -1.0), (1.0, 0.0), (100.0, 1.0))
    }
    numbers |= {
        ("unit_scal", "adam", 0.2, factor): [delta] for factor, delta in ((0.01, 9.0), (1.0, -5.0), (100.0, 9.0))
    }
    numbers |= {("si", "sgd", 0.1, factor): [3.0] for factor in (0.01, 1.0, 100.0)}
    found = confounds.spread(confounds.at_best(rows(numbers), factor=1.0), ARMS).iloc[0]
    assert found["spread unit_scal adam"] == pytest.approx(np.sqrt(2 / 3)) and found["spread si sgd"] == 0
    assert found["delta_m unit_scal adam"] == 0 and found["delta_m si sgd"] == 3
    assert (found.smto, found.seed, found.seconds) == ("unit_scal", 1, 6)


@pytest.mark.training
def test_runs_become_rows(tmp_path):
    """Single-task models at the yardstick's own step size have a gain of 0 on average, by definition; SI does
    not feel the factor."""
    together, alone = configs.crossed(LIKE, ["unit_scal"], {"adam": [0.001]}, [1, 2])
    units = configs.in_units(LIKE, [("si", "adam")], [0.125, 1.0, 8.0], {("si", "adam"): 0.001}, [1, 2])
    found = runner.run([*together, *alone, *units], tmp_path, workers=0)
    runs, singles = [*found[:2], *found[6:]], found[2:6]
    table = confounds.under_optimizers(runs, singles, LIKE.definition.tasks)
    assert table[table.smto == confounds.ALONE].delta_m.mean() == pytest.approx(0, abs=1e-9)
    assert len(table) == 2 + 2 + 6 and table.factor.tolist().count(8.0) == 2
    spread = confounds.spread(confounds.at_best(table[table.smto == "si"], factor=1.0), ARMS)
    assert spread["spread si adam"].max() < 0.5 and len(spread) == 2


def test_without_runs_tables_are_empty_and_have_their_columns():
    table = confounds.under_optimizers([], [], LIKE.definition.tasks)
    best = confounds.at_best(table)
    assert {"gain", "interaction"} <= {*confounds.interaction(best)} and confounds.interaction(best).empty
    spread = confounds.spread(confounds.at_best(table, factor=1.0), ARMS)
    assert spread.empty and {"spread si sgd", "delta_m unit_scal adam"} <= {*spread}
