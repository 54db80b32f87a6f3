"""Time to target: by hand, and by simulation."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mtl_core import problems
from mtl_study.analysis import inference, targets

CL_RR = "multimnist/CL_RR"
TASKS = problems.get(CL_RR).tasks
SIZES = {"train_size": 1000, "val_size": 10, "test_size": 10, "batch_size": 300}  # four steps an epoch


@pytest.fixture
def curve(make_run):
    """A run whose validation Δm takes these values, epoch by epoch; on test it is one point higher."""

    def make(values, smto="edm", seed=1, seconds=None, **config):
        def metrics(gains):
            return [{"CL": 0.8 * (1 + g / 100), "RR": 0.5 * (1 - g / 100)} for g in gains]

        run = make_run(
            metrics(values), metrics([v + 1 for v in values]), smto=smto, seed=seed, **SIZES | {"lr": 0.001} | config
        )
        return run.model_copy(update={"seconds": seconds or float(len(values))})

    return make


def test_a_method_reaches_the_uniform_losss_best_at_its_first_epoch_with_as_much(curve, baselines):
    """The uniform loss is best after three epochs (−4); EDM has −4 after two, IMTL never; at another rate at once."""
    runs = [
        curve([-9, -6, -4, -5], "unit_scal"),
        curve([-8, -4, -7, -3], "edm", seconds=8.0),  # two seconds an epoch where the uniform loss takes one
        curve([-9, -8, -7, -6], "imtl"),
        curve([-9, -8, -7, -6], "unit_scal", lr=0.01),
        curve([-5, -9, -9, -9], "edm", lr=0.01),
        curve([-5, -9, -9, -9], "cagrad", lr=0.1),
    ]
    found = targets.to_target(runs, baselines, TASKS)
    np.testing.assert_allclose(found.target, [-4, -4, -4, -6, -6, math.nan])
    np.testing.assert_allclose(found.epochs, [3, 2, math.inf, 4, 1, math.nan])
    np.testing.assert_allclose(found.share, [1, 2 / 3, math.inf, 1, 1 / 4, math.nan])
    np.testing.assert_allclose(found.steps, [12, 8, math.inf, 16, 4, math.nan])
    np.testing.assert_allclose(found.seconds, [3, 4, math.inf, 4, 1, math.nan])
    np.testing.assert_allclose(found.share_of_seconds[:2], [1, 4 / 3])
    best = targets.to_target(runs, baselines, TASKS, "best settings")
    np.testing.assert_allclose(best.target, [-4] * 6)
    np.testing.assert_allclose(best.epochs, [3, 2, math.inf, math.inf, math.inf, math.inf])


def test_by_method_a_median_of_its_seeds(curve, baselines):
    """EDM's three seeds take 1, 1/2 and ∞ of the uniform loss's epochs, and 3, 2 and 4 seconds for one of its 1."""
    runs = [curve([-9, -4], "unit_scal", seed) for seed in (1, 2, 3)]
    runs += [curve(v, "edm", seed, s) for seed, v, s in ((1, [-9, -4], 6.0), (2, [-4, -9], 4.0), (3, [-9, -9], 8.0))]
    assert targets.reaches(targets.to_target(runs, baselines, TASKS)).to_dict() == {"edm": 1, "unit_scal": 1}
    assert targets.costs(runs).to_dict() == {"edm": 3, "unit_scal": 1}
    assert targets.reaches(targets.to_target(runs[:3] + runs[4:], baselines, TASKS))["edm"] == math.inf
    assert math.isnan(targets.costs(runs[3:])["edm"])


def test_what_an_epoch_costs_is_read_seed_by_seed(curve):
    """The machine was three times as slow at seed 2, for both, and for EDM alone at seed 3. An epoch of it costs 1.5;
    medians over seeds, divided, would say 4.5."""
    took = {"unit_scal": (2.0, 6.0, 2.0), "edm": (3.0, 9.0, 9.0)}
    runs = [curve([-9, -4], smto, seed, s) for smto, of in took.items() for seed, s in enumerate(of, 1)]
    assert targets.costs(runs).to_dict() == {"edm": 1.5, "unit_scal": 1}
    assert sorted(targets.seconds_per_epoch(runs).values()) == [1, 1.5]


def test_targets_are_those_of_the_same_seed(curve, baselines):
    runs = [curve([-9, v], "unit_scal", seed) for seed, v in ((1, -2), (2, -6))]
    runs += [curve([-9, -5], "edm", seed) for seed in (1, 2, 3)]
    found = targets.to_target(runs, baselines, TASKS).query("smto == 'edm'").set_index("seed").epochs
    assert found[[1, 2]].tolist() == [math.inf, 2]
    assert math.isnan(found[3])  # the uniform loss has no such seed


def test_without_the_uniform_loss_there_is_no_target(curve, baselines):
    with pytest.raises(ValueError, match="nothing to reach"):
        targets.to_target([curve([-1], "edm")], baselines, TASKS)


def test_ahead_stops_a_method_early_and_reads_both_on_test(curve, baselines):
    """Half of four epochs are two: there EDM is at −3, the uniform loss ends at −4. At two seconds an epoch, half
    of the uniform loss's four seconds is one epoch."""
    runs = [curve([-9, -8, -6, -5], "unit_scal"), curve([-8, -4, -3, -2], "edm", seconds=8.0)]
    found = targets.ahead(runs, baselines, TASKS, share=0.5)
    assert found.smto.tolist() == ["edm"]
    assert found.epochs.tolist() == [2]
    np.testing.assert_allclose(found.lead, 1)
    np.testing.assert_allclose(targets.ahead(runs, baselines, TASKS, share=0.5, by="seconds").lead, -8 + 5)
    assert targets.ahead(runs, baselines, TASKS, share=0.1).lead.isna().all()  # not one epoch
    other = [runs[0], curve([-8, -4], "edm", lr=0.01)]
    assert targets.ahead(other, baselines, TASKS).lead.isna().all()


def test_who_passes_the_uniform_losss_best_within_a_share_of_its_epochs_is_ahead_there(curve, baselines):
    """On validation the two questions are one: test equals validation plus one point here."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        runs = [curve(rng.normal(0, 1, 8), smto) for smto in ("unit_scal", "edm")]
        epochs = targets.to_target(runs, baselines, TASKS).epochs[1]
        lead = targets.ahead(runs, baselines, TASKS, share=0.75).lead[0]
        assert (epochs <= 6) == (lead >= -1e-9)


def test_a_method_that_is_no_better_is_ahead_at_three_quarters_in_2_5_percent_of_studies(curve, baselines):
    """Curves that rise by 4 points in the last quarter, ten seeds: were the method the uniform loss itself, it would be
    behind; lifted by just that, it is on the line, and a 95 % interval is above it in 2.5 %, within 2 standard
    errors of the simulation. Found with the arithmetic of `ahead`, whose agreement with it the first lines check."""
    rise = np.array([-9, -8, -7, -6, -5, -4, -2, 0.0])

    def leads(rng, seeds):
        noise = rng.normal(0, 1, (2, seeds))  # a seed moves a run as a whole
        method, uniform = rise[:6].max() + 4 + noise[0], rise.max() + noise[1]
        return method - uniform, noise

    lead, noise = leads(np.random.default_rng(0), 3)
    runs = [curve(rise + noise[1, s], "unit_scal", s) for s in range(3)]
    runs += [curve(rise + 4 + noise[0, s], "edm", s) for s in range(3)]
    np.testing.assert_allclose(targets.ahead(runs, baselines, TASKS).lead, lead)

    rng = np.random.default_rng(1)
    above = np.mean([inference.t_interval(leads(rng, 10)[0]).low > 0 for _ in range(1000)])
    assert abs(above - 0.025) < 2 * math.sqrt(0.025 * 0.975 / 1000)


def times(**shares):
    """Rows as of `to_target`: {method: {problem: share per seed}}."""
    rows = [
        {"problem": problem, "smto": smto, "config": json.dumps({"lr": 0.001}), "seed": seed, "share": share}
        for smto, found in shares.items()
        for problem, values in found.items()
        for seed, share in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_a_performance_profile_by_hand():
    """On p EDM is fastest (½) and the uniform loss twice as slow; on q the uniform loss is, and EDM never gets there;
    IMTL takes three times as long on q and never ends on p in two of three seeds."""
    table = times(
        unit_scal={"p": [1, 1, 1], "q": [1, 1, 1]},
        edm={"p": [0.5, 0.4, 0.6], "q": [math.inf] * 3},
        imtl={"p": [1, math.inf, math.inf], "q": [3, 2, 9]},
    )
    profile = targets.profile(table)
    assert profile.index.tolist() == [1, 2, 3, 4]
    assert profile.unit_scal.tolist() == [0.5, 1, 1, 1]
    assert profile.edm.tolist() == [0.5] * 4
    assert profile.imtl.tolist() == [0, 0, 0.5, 0.5]
    area = {smto: sum(profile[smto].iloc[:-1] * np.diff(profile.index)) / 3 for smto in profile}
    assert targets.scores(table).to_dict() == pytest.approx(area)
    assert area == pytest.approx({"unit_scal": (0.5 + 1 + 1) / 3, "edm": 0.5, "imtl": 0.5 / 3})
    by_seed = targets.scores_by_seed(table).set_index(["seed", "smto"]).score
    assert by_seed[0, "edm"] == 0.5
    assert by_seed[0, "imtl"] == pytest.approx((2 / 3 + 1 / 3) / 2)  # 1 to ½ on p, 3 to 1 on q


def test_a_profile_wants_every_method_once_on_every_problem():
    with pytest.raises(ValueError, match="no run of imtl on q"):
        targets.profile(times(unit_scal={"p": [1], "q": [1]}, imtl={"p": [1]}))
    twice = pd.concat([times(edm={"p": [1]}), times(edm={"p": [1]}).assign(config=json.dumps({"lr": 0.01}))])
    with pytest.raises(ValueError, match="several configurations of edm"):
        targets.profile(twice)


def test_one_setting_for_all_problems_is_the_one_with_the_best_score():
    """EDM at 0.01 is the fastest on p and never ends on q; at 0.001 it takes 2 and 1. IMTL has no rate in common."""

    def at(lr, **shares):
        settings = {"lr": lr, "dropout": 0.0, "weight_decay": 0.0, "options": {}}
        return times(**shares).assign(config=lambda t: [json.dumps(settings | {"problem": p}) for p in t.problem])

    table = pd.concat(
        [
            at(0.001, unit_scal={"p": [1], "q": [1]}, edm={"p": [2], "q": [1]}, imtl={"p": [1]}),
            at(0.01, edm={"p": [0.6], "q": [math.inf]}, imtl={"q": [1]}),
        ]
    )
    found = targets.one_setting(table)
    assert found.smto.unique().tolist() == ["unit_scal", "edm"]
    assert [json.loads(setting)[0] for setting in found.setting.unique()] == [0.001]
    assert targets.scores(found)["edm"] == pytest.approx((2 + 3) / 6)  # twice as long on p, as long on q
    by_seed = targets.scores_in_one_setting(table).set_index("smto")
    assert by_seed.score["edm"] == pytest.approx(5 / 6) and set(by_seed.problem) == {"every problem"}
    assert targets.scores_in_one_setting(table[table.smto != "unit_scal"]).empty


def test_equal_methods_have_equal_scores_whatever_their_noise():
    """Ten seeds, four problems, 400 studies: the difference of two methods that are alike is 0 on average, and its 95 %
    interval over seeds covers 0 as often as it says."""
    rng, covered, means = np.random.default_rng(0), 0, []
    for _ in range(400):
        shares = np.exp(rng.normal(0, 0.4, (2, 4, 10)))
        shares[rng.random(shares.shape) < 0.1] = math.inf
        values = []
        for a, b in np.moveaxis(shares, -1, 0):
            best = np.minimum(1, np.minimum(a, b))  # the uniform loss takes 1
            values.append([np.clip(4 - row / best, 0, None).mean() / 3 for row in (a, b)])
        difference = np.subtract(*np.transpose(values))
        means.append(difference.mean())
        interval = inference.t_interval(difference)
        covered += interval.low < 0 < interval.high
    assert abs(np.mean(means)) < 3 * np.std(means) / math.sqrt(len(means))
    assert stats.binomtest(covered, 400, 0.95).pvalue > 0.01


def test_half_way_takes_the_upper_median_and_leaves_out_who_rarely_arrives():
    """Shares 0.4, 0.6 and never: the upper median of an even number of runs is the later one."""
    rows = [("edm", 0.4), ("edm", 0.6), ("si", 0.2), ("si", math.inf), ("uw", 0.3)]
    times = pd.DataFrame(rows, columns=["smto", "share"]).assign(target=1.0)
    without = pd.DataFrame({"smto": ["cagrad", "unit_scal"], "share": 0.1, "target": [math.nan, 1.0]})
    found = targets.half_way(pd.concat([times, without]))
    assert found.index.tolist() == ["uw", "edm"]
    assert found.share.tolist() == [0.3, 0.6]
