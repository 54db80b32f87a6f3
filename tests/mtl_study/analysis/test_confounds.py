"""Optimizers and units are compared at their best step sizes, against one yardstick."""

import itertools

import numpy as np
import pandas as pd
import pytest

from mtl_study.analysis import confounds, delta
from mtl_study.analysis.confounds import ALONE
from mtl_study.experiments import confounds as configs
from mtl_study.experiments import runner
from mtl_study.experiments.runs import BadConfig, RunConfig

TINY = {"train_size": 64, "val_size": 20, "test_size": 20, "epochs": 1, "batch_size": 64, "lr": 0.001, "seed": 1}
LIKE = RunConfig.of(problem="multimnist/CL_RR", **TINY)
ARMS = [("unit_scal", "adam"), ("si", "sgd"), ("si", "adam")]
RATES = {"adam": [0.001, 0.01], "sgd": [0.01]}


def test_every_method_meets_every_optimizer_and_step_size():
    found = configs.crossed(LIKE, ["unit_scal", "cagrad"], RATES, [1, 2])
    assert len(found) == (2 + 2) * 3 * 2 == len({config.key for config in found})
    assert {config.problem for config in found} == {"multimnist/CL_RR", "multimnist/CL", "multimnist/RR"}
    assert {(c.optimizer, c.momentum, c.lr) for c in found} == {
        ("adam", 0, 0.001),
        ("adam", 0, 0.01),
        ("sgd", 0.9, 0.01),
    }
    assert configs.under(found[-1], "adam", 0.001, problem=LIKE.problem, smto="unit_scal", seed=1).key == LIKE.key
    ways = [("multimnist/RR", "unit_scal", "sgd", 0.1), ("multimnist/CL_RR", "uw", "adam", 0.01)]
    again = configs.at_rates(LIKE, ways, [3, 4])
    assert [(c.problem, c.smto, c.optimizer, c.lr, c.seed) for c in again] == [
        (*way, s) for way in ways for s in (3, 4)
    ]
    with pytest.raises(BadConfig, match=r"optimizer 'sdg' \(did you mean 'sgd'"):
        configs.under(LIKE, "sdg", 0.1)


def test_the_last_loss_is_measured_in_several_units():
    found = configs.in_units(LIKE, {("unit_scal", "sgd"): 0.1, ("si", "adam"): 0.001}, [0.01, 1.0], [1])
    assert [(c.smto, c.lr, c.units) for c in found] == [
        ("unit_scal", 0.1, [1.0, 0.01]),
        ("si", 0.001, [1.0, 0.01]),
        ("unit_scal", 0.1, []),
        ("si", 0.001, []),
    ]


def rows(numbers):
    """(method, optimizer, lr, factor) → Δm of the seeds; of the single-task models the same in both tasks."""
    return pd.DataFrame(
        [
            (
                problem,
                len(problem.split("_")),
                "unit_scal" if smto == ALONE else smto,
                *key,
                seed,
                value,
                value,
                1.0,
                False,
            )
            for (smto, *key), values in numbers.items()
            for problem in (["multimnist/CL", "multimnist/RR"] if smto == ALONE else ["multimnist/CL_RR"])
            for seed, value in enumerate(values, 1)
        ],
        columns=confounds.COLUMNS,
    )


def grid(smto, optimizer, best):
    """Three step sizes, the middle one best."""
    return {(smto, optimizer, lr, 1.0): np.array(best) - off for lr, off in ((0.1, 5.0), (0.2, 0.0), (0.3, 5.0))}


def test_the_interaction_by_hand():
    """Adam gives the method 4 and 6 points, single-task models 10 and 9: an interaction of −6 and −3."""
    numbers = {
        **grid("uw", "adam", [1.0, 2.0]),
        **grid("uw", "sgd", [-3.0, -4.0]),
        **grid(ALONE, "adam", [0.0, 0.0]),
        **grid(ALONE, "sgd", [-10.0, -9.0]),
    }
    best = confounds.at_best(rows(numbers))
    found = confounds.interaction(best)
    assert set(confounds.best_rates(rows(numbers)).values()) == {(0.2, True)} and confounds.at_the_edge(best) == []
    assert found.gain.tolist() == [4, 6] and found.gain_alone.tolist() == [10, 9]
    assert found.interaction.tolist() == [-6, -3] and found.seconds.tolist() == [6, 6]


def test_a_best_step_size_at_the_edge_leaves_the_method_out():
    numbers = {
        **grid("uw", "adam", [1.0]),
        **grid(ALONE, "adam", [0.0]),
        **grid(ALONE, "sgd", [0.0]),
    }
    numbers[("uw", "sgd", 0.1, 1.0)] = [1.0]
    numbers[("uw", "sgd", 0.2, 1.0)] = [2.0]
    best = confounds.at_best(rows(numbers))
    assert confounds.at_the_edge(best) == [("uw", "sgd")] and confounds.interaction(best).empty


def test_a_step_size_that_diverged_at_a_seed_is_not_best():
    numbers = {("uw", "sgd", 0.1, 1.0): [1.0, 1.0], ("uw", "sgd", 0.2, 1.0): [9.0, np.nan]}
    assert set(confounds.at_best(rows(numbers)).lr) == {0.1}


def test_of_equal_step_sizes_the_one_inside_the_grid_is_taken():
    """Accuracies of a few hundred digits are often equal; the edge is then no better."""
    numbers = {("uw", "sgd", lr, 1.0): [gain] for lr, gain in ((0.1, 3.0), (0.2, 3.0), (0.4, 1.0))}
    assert set(confounds.best_rates(rows(numbers)).values()) == {(0.2, True)}
    flat = {("uw", "sgd", lr, 1.0): [3.0] for lr in (0.1, 0.4)}
    assert set(confounds.best_rates(rows(flat)).values()) == {(0.1, False)}


def test_step_sizes_are_chosen_at_the_seeds_that_all_of_them_have():
    """The first; of the one that is chosen all seeds count, however they did."""
    numbers = {("uw", "sgd", 0.1, 1.0): [2.0], ("uw", "sgd", 0.2, 1.0): [3.0, -9.0], ("uw", "sgd", 0.4, 1.0): [1.0]}
    best = confounds.at_best(rows(numbers))
    assert best.delta_m.tolist() == [3.0, -9.0] and best.inside.all()


def test_single_task_models_have_step_sizes_of_their_own():
    """CL is best at 0.2 and RR at 0.3, the edge: joined, a mean gain of (4 + 8)/2 at a step size at the edge."""
    table = rows({(ALONE, "sgd", lr, 1.0): [value] for lr, value in ((0.1, 1.0), (0.2, 4.0), (0.3, 2.0))})
    table.loc[(table.problem == "multimnist/RR") & (table.lr == 0.3), ["delta_m", "val_delta_m"]] = 8.0
    (row,) = confounds.at_best(table).to_dict("records")
    assert (row["smto"], row["delta_m"], row["inside"], row["seconds"]) == (ALONE, 6.0, False, 2.0)
    lacking = table[(table.problem == "multimnist/CL") | (table.seed == 2)]
    assert len(confounds.at_best(pd.concat([table, lacking.assign(seed=2)]))) == 1
    lost = table.assign(seed=2, delta_m=table.delta_m.where(table.problem == "multimnist/RR"))
    assert np.isnan(confounds.at_best(pd.concat([table, lost])).set_index("seed").delta_m[2])  # CL has diverged


def test_the_spread_over_units_by_hand():
    """−1, 0 and 1 have a standard deviation of √(2/3); the rate is that of the factor 1."""
    numbers = {
        ("unit_scal", "adam", 0.1, factor): [delta] for factor, delta in ((0.01, -1.0), (1.0, 0.0), (100.0, 1.0))
    }
    numbers |= {
        ("unit_scal", "adam", 0.2, factor): [delta] for factor, delta in ((0.01, 9.0), (1.0, -5.0), (100.0, 9.0))
    }
    numbers |= {("si", "sgd", 0.1, factor): [3.0] for factor in (0.01, 1.0, 100.0)}
    best = confounds.at_best(rows(numbers)).assign(inside=True)
    found = confounds.spread(best, ARMS).iloc[0]
    assert found["spread unit_scal adam"] == pytest.approx(np.sqrt(2 / 3)) and found["spread si sgd"] == 0
    assert found["delta_m unit_scal adam"] == 0 and found["delta_m si sgd"] == 3
    edge = confounds.spread(best.assign(inside=best.smto == "si"), ARMS).iloc[0]
    assert np.isnan(edge["spread unit_scal adam"]) and np.isnan(edge["delta_m unit_scal adam"])
    assert edge["spread si sgd"] == 0
    assert (found.smto, found.seed, found.seconds) == ("unit_scal", 1, 6)


def test_what_an_optimizer_gives_and_what_a_method_does_by_hand():
    """From SGD to Adam the uniform loss gains 40; CAGrad, the best, 6 over it under Adam and 20 under SGD."""
    numbers = {("unit_scal", "adam"): -10, ("unit_scal", "sgd"): -50, ("cagrad", "adam"): -4, ("cagrad", "sgd"): -30}
    found = [(m, o, v, 1.0, True) for (m, o), v in (numbers | {("uw", "adam"): -20, ("uw", "sgd"): -60}).items()]
    best = pd.DataFrame(found, columns=["smto", "optimizer", "delta_m", "factor", "inside"])
    assert confounds.gains(best) == {"optimizer": 40, "adam": 6, "sgd": 20}
    assert confounds.gains(best.assign(inside=best.optimizer == "adam")) == {}
    assert confounds.gains(best[best.smto == "uw"]) == confounds.gains(best[best.optimizer == "adam"]) == {}


@pytest.mark.training
def test_runs_become_rows(tmp_path):
    """Single-task models at the yardstick's own step size have a gain of 0 on average, by definition; SI does
    not feel the factor."""
    asked = configs.crossed(LIKE, ["unit_scal"], {"adam": [0.001]}, [1, 2])
    asked += configs.in_units(LIKE, {("si", "adam"): 0.001}, [0.125, 1.0, 8.0], [1, 2])
    table = confounds.under_optimizers(runner.run(asked, tmp_path, workers=0), LIKE.definition.tasks)
    best = confounds.at_best(table)
    assert best[best.smto == ALONE].delta_m.mean() == pytest.approx(0, abs=1e-9)
    assert len(table) == 2 + 4 + 6 and len(best) == 2 + 2 + 6 and table.factor.tolist().count(8.0) == 2
    assert table.at_end.all() and best[best.tasks > 1].at_end.all()  # of one epoch
    spread = confounds.spread(best[best.smto == "si"].assign(inside=True), ARMS)
    assert spread["spread si adam"].max() < 0.5 and len(spread) == 2


def ways(optimizer, gains, seeds=(1,)):
    """Of `preferences`: three step sizes, the middle one best; `gains` of both tasks under either preference."""
    found = [
        (
            "multimnist/CL_RR",
            2,
            name,
            optimizer,
            lr,
            1.0,
            s,
            0.0,
            -off,
            1.0,
            False,
            preferred,
            first - off,
            second - off,
        )
        for (name, preferred), (first, second) in zip((("0.9 : 0.1", "CL"), ("0.1 : 0.9", "RR")), gains, strict=True)
        for lr, off in ((0.1, 5.0), (0.2, 0.0), (0.3, 5.0))
        for s in seeds
    ]
    return pd.DataFrame(found, columns=[*confounds.COLUMNS, "preferred", "CL", "RR"])


def test_how_far_preferences_lead_apart_by_hand():
    """Under SGD the first task has 8 or −2 points, the second 6 or 0: (10 + 6)/2. Under Adam (1 + 1)/2."""
    table = pd.concat([ways("sgd", [(8.0, 0.0), (-2.0, 6.0)]), ways("adam", [(1.0, 2.0), (0.0, 3.0)])])
    best = confounds.at_best(table)
    (found,) = confounds.ends(best).to_dict("records")
    assert (found["apart sgd"], found["apart adam"], found["seconds"]) == (8, 1, 4)
    by_task = [found[f"apart {optimizer} {task}"] for optimizer in ("sgd", "adam") for task in ("CL", "RR")]
    assert by_task == [10, 6, 1, 1]
    assert (found["problem"], found["smto"], found["seed"]) == ("multimnist/CL_RR", "unit_scal", 1)
    edge = confounds.ends(confounds.at_best(table[(table.optimizer == "sgd") | (table.lr > 0.1)])).iloc[0]
    assert edge["apart sgd"] == 8 and np.isnan(edge["apart adam"]) and np.isnan(edge["apart adam CL"])
    lacking = best[(best.optimizer == "sgd") | (best.preferred == "CL")]
    assert np.isnan(confounds.ends(lacking)["apart adam"]).all()
    empty = confounds.ends(confounds.at_best(table[:0]))
    assert empty.empty and {"smto", "seed", "seconds"} <= {*empty}


def points(found):
    """(method, optimizer, seed) → gains in both tasks."""
    rows = [
        {"smto": m, "optimizer": o, "seed": s, "factor": 1.0, "CL": x, "RR": y, "delta_m": (x + y) / 2}
        for (m, o, s), (x, y) in found.items()
    ]
    return pd.DataFrame(rows)


def test_who_holds_the_front_by_hand():
    """On it are both runs of one pair and one run each of two more: Adam has 2 of 4, one of them by a coin; that one
    or more of two coins say so has a chance of 3/4."""
    found = {
        ("uw", "adam", 1): (0.0, 9.0),
        ("uw", "sgd", 1): (1.0, 8.0),
        ("uw", "adam", 2): (2.0, 7.0),
        ("uw", "sgd", 2): (1.0, 1.0),
        ("cagrad", "adam", 1): (0.0, 0.0),
        ("cagrad", "sgd", 1): (3.0, 6.0),
        ("cagrad", "adam", 2): (99.0, 99.0),  # without a partner
        (ALONE, "adam", 1): (50.0, 50.0),
    }
    assert confounds.front(points(found), ["CL", "RR"]) == (4, 2, 0.75)
    assert confounds.front(points(found)[:1], ["CL", "RR"]).size == 0


def test_the_chance_on_the_front_is_that_of_labels_that_are_exchanged():
    rng = np.random.default_rng(0)
    keys = [(m, o, s) for m in ("uw", "cagrad", "unit_scal") for s in (1, 2, 3) for o in ("adam", "sgd")]
    table = points({key: rng.normal(size=2) + (key[1] == "adam") * 0.5 for key in keys})
    first = confounds.front(table, ["CL", "RR"]).first
    counts = []
    for coins in itertools.product([False, True], repeat=9):
        flip = np.repeat(coins, 2)
        labels = np.where(flip, np.where(table.optimizer == "adam", "sgd", "adam"), table.optimizer)
        counts.append(confounds.front(table.assign(optimizer=labels), ["CL", "RR"]).first >= first)
    assert confounds.front(table, ["CL", "RR"]).p == pytest.approx(np.mean(counts), abs=1e-12)


def test_orders_by_hand():
    """Three methods: at seed 1 the same order, at seed 2 one of three pairs is turned, τ = 1/3; seed 3 lacks a run."""
    gains = {"adam": {1: (1, 2, 3), 2: (1, 2, 3), 3: (1, 2, 3)}, "sgd": {1: (4, 5, 6), 2: (5, 4, 6), 3: (3, 2, np.nan)}}
    names = ("uw", "cagrad", "unit_scal")
    table = points(
        {
            (name, o, s): (value, value)
            for o, seeds in gains.items()
            for s, values in seeds.items()
            for name, value in zip(names, values, strict=True)
        }
    )
    assert confounds.orders(table) == pytest.approx(2 / 3)
    assert np.isnan(confounds.orders(table[table.optimizer == "adam"]))
    assert np.isnan(confounds.orders(table[table.smto == "uw"]))


def test_interactions_of_any_two_optimizers():
    numbers = {**grid("uw", "muon", [4.0]), **grid("uw", "adam", [1.0]), **grid(ALONE, "muon", [2.0])}
    best = confounds.at_best(rows(numbers | grid(ALONE, "adam", [0.0])))
    (found,) = confounds.interaction(best, other="adam", of="muon").to_dict("records")
    assert (found["gain"], found["gain_alone"], found["interaction"]) == (3, 2, 1)
    assert confounds.interaction(best).empty


def test_an_interaction_by_task():
    """In CL the method has twice its Δm, single-task models half of theirs; each model has its own task's gain."""
    numbers = {**grid("uw", "muon", [4.0]), **grid("uw", "adam", [1.0]), **grid(ALONE, "muon", [2.0])}
    table = rows(numbers | grid(ALONE, "adam", [0.0]))
    several, of_cl = table.problem == "multimnist/CL_RR", table.problem == "multimnist/CL"
    table["CL"] = np.where(several, 2 * table.delta_m, np.where(of_cl, table.delta_m / 2, np.nan))
    table["RR"] = np.where(of_cl, np.nan, table.delta_m)
    best = confounds.at_best(table)
    assert confounds.task_names(best) == ["CL", "RR"]
    found = {task: confounds.interaction(best, "adam", "muon", task).iloc[0] for task in ("CL", "RR")}
    assert (found["CL"].gain, found["CL"].gain_alone, found["RR"].interaction) == (6, 1, 1)


@pytest.mark.training
def test_weights_become_units_and_choose_by_weighted_gains(tmp_path):
    """Equal weights are the uniform loss itself; of any others the validation gains are weighed alike."""
    assert configs.preferring(LIKE, [0.5, 0.5], {"adam": [0.001]}, [1])[0].key == LIKE.key
    asked = configs.preferring(LIKE, [0.9, 0.1], {"adam": [0.001, 0.01]}, [1, 2])
    assert [(c.units, c.lr, c.seed) for c in asked] == [([1.8, 0.2], lr, s) for lr in (0.001, 0.01) for s in (1, 2)]
    alone = runner.run(configs.crossed(LIKE, [], {"adam": [0.001]}, [1, 2]), tmp_path, workers=0)
    tasks = LIKE.definition.tasks
    runs = runner.run(asked, tmp_path, workers=0)
    table = confounds.preferences(runs, alone, tasks)
    val = delta.selected(runs, delta.single_task_baselines(alone, tasks), tasks, "val")
    assert table.val_delta_m.tolist() == pytest.approx((0.9 * val.CL + 0.1 * val.RR).tolist())
    assert set(table.smto) == {"0.9 : 0.1"} == {confounds.named([0.9, 0.1])} and set(table.preferred) == {"CL"}
    assert confounds.preferences(runs, [], tasks).empty


def test_without_runs_tables_are_empty_and_have_their_columns():
    table = confounds.under_optimizers([], LIKE.definition.tasks)
    best = confounds.at_best(table)
    assert {"gain", "interaction"} <= {*confounds.interaction(best)} and confounds.interaction(best).empty
    spread = confounds.spread(best, ARMS)
    assert spread.empty and {"spread si sgd", "delta_m unit_scal adam"} <= {*spread}
