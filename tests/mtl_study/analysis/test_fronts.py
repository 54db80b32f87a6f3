"""Fronts of two tasks: areas and distances by hand, what every front must obey, and where methods are placed."""

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mtl_study.analysis import frames, fronts

THREE = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]])
coordinates = st.integers(-8, 8).map(float)
some_points = st.integers(1, 7).flatmap(lambda n: arrays(float, (n, 2), elements=coordinates))


# -- points ------------------------------------------------------------------------------------------------------------


def test_hypervolume_of_three_points_by_hand():
    """From (0, 0): a staircase of 3 + 2 + 1 unit squares; from (1, 1) only the middle one is left."""
    assert fronts.hypervolume(THREE, [0, 0]) == 6
    assert fronts.hypervolume(THREE, [1, 1]) == 1
    assert fronts.hypervolume(THREE, [3, 3]) == 0
    assert fronts.hypervolume(np.empty((0, 2)), [0, 0]) == 0


def test_additive_epsilon_by_hand():
    """(2.5, 2.5) is half a unit better than (2, 2); (1.5, 1.5) half a unit worse; (2, 3) fills a gap; points are on."""
    assert fronts.additive_epsilon([2.5, 2.5], THREE) == 0.5
    assert fronts.additive_epsilon([1.5, 1.5], THREE) == -0.5
    assert fronts.additive_epsilon([2, 3], THREE) == 1
    assert fronts.additive_epsilon([5, -9], THREE) == 2  # beyond the right end, however bad the other coordinate
    assert [fronts.additive_epsilon(point, THREE) for point in THREE] == [0, 0, 0]


def test_nondominated_by_hand():
    """A point that equals another in one coordinate and is worse in the other is dominated; of twins both stay."""
    points = [[1, 3], [1, 2], [3, 1], [3, 1], [0, 0]]
    assert fronts.nondominated(points).tolist() == [True, False, True, True, False]
    assert fronts.nondominated([[1, 2, 3], [1, 2, 4], [2, 1, 0]]).tolist() == [False, True, True]
    assert fronts.nondominated(np.empty((0, 2))).tolist() == []


@given(some_points, st.tuples(coordinates, coordinates))
def test_a_dominated_point_changes_nothing(points, point):
    """Moved to the lower left of another point, it is on no front, adds no area and is covered already."""
    worse = np.minimum(points[0], point) - [0, 1]
    more = np.vstack([points, worse])
    assert not fronts.nondominated(more)[-1]
    assert fronts.hypervolume(more, [-9, -9]) == fronts.hypervolume(points, [-9, -9])
    assert fronts.additive_epsilon(point, more) == fronts.additive_epsilon(point, points)
    assert fronts.additive_epsilon(worse, points) <= 0


@given(some_points, st.tuples(coordinates, coordinates))
def test_a_point_is_beyond_exactly_where_it_adds_area(points, point):
    """Above the reference, an ε above 0 and a larger hypervolume are the same statement."""
    adds = fronts.hypervolume(np.vstack([points, point]), [-9, -9]) > fronts.hypervolume(points, [-9, -9])
    assert adds == (fronts.additive_epsilon(point, points) > 0)


@given(some_points)
def test_hypervolume_agrees_with_the_squares_that_are_dominated(points):
    """Integer points: the area is the number of unit squares whose upper right corner some point dominates."""
    corners = np.array(list(itertools.product(range(-8, 9), repeat=2)))
    dominated = (points[:, None] >= corners[None]).all(axis=-1).any(axis=0)
    assert fronts.hypervolume(points, [-9, -9]) == dominated.sum()


def test_hypervolume_agrees_with_monte_carlo():
    """Twelve random points and 200,000 random places in the unit square: within five standard errors of each other."""
    rng = np.random.default_rng(0)
    points, places = rng.random((12, 2)), rng.random((200_000, 2))
    share = (points[:, None] >= places[None]).all(axis=-1).any(axis=0).mean()
    error = math.sqrt(share * (1 - share) / len(places))
    assert fronts.hypervolume(points, [0, 0]) == pytest.approx(share, abs=5 * error)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: fronts.hypervolume([[1, math.nan]], [0, 0]), "1 of 1 points are not finite"),
        (lambda: fronts.hypervolume([[1, 2, 3]], [0, 0]), r"shape \[1, 3\]; expected \[n, 2\]"),
        (lambda: fronts.hypervolume([1, 2], [0, 0]), r"shape \[2\]"),
        (lambda: fronts.hypervolume(THREE, [0]), "expected two finite numbers"),
        (lambda: fronts.hypervolume(THREE, [0, math.inf]), "expected two finite numbers"),
        (lambda: fronts.nondominated([[math.inf, 1]]), "not finite"),
        (lambda: fronts.additive_epsilon([1, 2, 3], THREE), r"expected \[n, 3\]"),
        (lambda: fronts.additive_epsilon([math.nan, 2], THREE), "not finite"),
        (lambda: fronts.additive_epsilon([1, 2], np.empty((0, 2))), "no point"),
        (lambda: fronts.expected_hypervolume(THREE, [0, 0], 4), "n = 4 of 3 runs"),
        (lambda: fronts.expected_best([1, 2], [1, 2], 0), "n = 0 of 2 runs"),
        (lambda: fronts.expected_best([1, math.nan], [1, 2], 1), "not finite"),
    ],
)
def test_what_is_no_set_of_points_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


# -- what n runs buy ---------------------------------------------------------------------------------------------------


@given(some_points, st.data())
def test_expected_hypervolume_is_the_mean_over_all_subsets(points, data):
    n = data.draw(st.integers(1, len(points)))
    reference = data.draw(st.tuples(coordinates, coordinates))
    subsets = [fronts.hypervolume(points[list(s)], reference) for s in itertools.combinations(range(len(points)), n)]
    assert fronts.expected_hypervolume(points, reference, n) == pytest.approx(np.mean(subsets), abs=1e-9)


@given(some_points, st.data())
def test_expected_best_is_the_mean_over_all_subsets(pairs, data):
    """Of equal scores the later run is taken, as in the definition."""
    n = data.draw(st.integers(1, len(pairs)))
    subsets = itertools.combinations(range(len(pairs)), n)
    best = [pairs[max(s, key=lambda i: (pairs[i, 0], i)), 1] for s in subsets]
    assert fronts.expected_best(pairs[:, 0], pairs[:, 1], n) == pytest.approx(np.mean(best), abs=1e-9)


def test_expectations_over_many_runs_do_not_overflow():
    """Of 3,000 runs, with binomials far beyond any float: the median of pairs' maxima is at two thirds."""
    values = np.arange(3000) / 2999
    assert fronts.expected_best(values, values, 2) == pytest.approx(2 / 3, abs=1e-3)
    assert fronts.expected_best(values, values, 1500) < 1


# -- runs --------------------------------------------------------------------------------------------------------------


def table(points, seeds=(1, 2, 3), noise=0.1):
    """Rows as of `delta.selected` on CL_RR: `points` by (method, configuration); seeds differ by a step of noise."""
    rows = []
    for (smto, config), (cl, rr) in points.items():
        for i, seed in enumerate(seeds):
            step = noise * (i - (len(seeds) - 1) / 2)
            row = {"problem": "p", "smto": smto, "config": json.dumps({"w": config}), "seed": seed, "epoch": 1}
            gains = {"CL": cl + step, "RR": rr + 10 * step}
            rows.append({**row, **gains, "delta_m": (cl + rr) / 2 + 5.5 * step, "diverged": False})
    return pd.DataFrame(rows).assign(val_delta_m=lambda t: t.delta_m)


SWEEP = {("fixed", k): (float(k), -10.0 * k) for k in range(5)} | {("unit_scal", "-"): (-1.0, -10.0)}


def test_seed_sd_by_hand():
    """Steps of −0.1, 0, 0.1 have the standard deviation 0.1; the dominated uniform loss does not count, whatever its
    own."""
    runs = table(SWEEP)
    runs.loc[runs.smto == "unit_scal", "CL"] += [-3.0, 0.0, 3.0]
    assert fronts.seed_sd(runs, ["CL", "RR"]).to_dict() == pytest.approx({"CL": 0.1, "RR": 1.0})
    assert fronts.seed_sd(table(SWEEP, seeds=(1,)), ["CL", "RR"]).isna().all()


def test_placed_by_hand():
    """Seed sd 0.1 and 1. Three sds beyond (2, −20) on both axes, as far inside, one beyond: the words follow."""
    methods = {("edm", 0): (2.3, -17.0), ("cagrad", 0): (1.7, -23.0), ("imtl", 0): (2.1, -19.0)}
    found = fronts.placed(table(SWEEP | methods, noise=0.1), ["CL", "RR"])
    assert found.epsilon.to_dict() == pytest.approx({"edm": 3, "cagrad": -3, "imtl": 1})
    assert found.word.to_dict() == {"edm": "beyond", "cagrad": "inside", "imtl": "on"}
    assert found.yardstick.tolist() == pytest.approx([10] * 3)  # neighbours are one apart, ten sds on either axis
    assert found.attrs["sd"] == pytest.approx({"CL": 0.1, "RR": 1.0}) and found.attrs["sweep"] == 6


def test_placed_compares_with_the_front_of_the_same_seed():
    """A method on the front with every seed is on it, though seeds move both by far more than the front is wide."""
    found = fronts.placed(table(SWEEP | {("edm", 0): (2.0, -20.0)}, noise=50), ["CL", "RR"])
    assert found.loc["edm", ["epsilon", "low", "high"]].tolist() == pytest.approx([0, 0, 0])


def test_seeds_that_do_not_agree_cannot_tell():
    """4 sds beyond on average, but with one seed of three far inside; and with one seed, nothing."""
    runs = table(SWEEP | {("edm", 0): (2.0, -20.0)})
    edm = runs.smto == "edm"
    for task, sd in (("CL", 0.1), ("RR", 1.0)):
        runs.loc[edm, task] += sd * np.array([-8.0, 8.0, 9.0])
    found = fronts.placed(runs, ["CL", "RR"]).loc["edm"]
    assert found.epsilon == pytest.approx(3) and found.word == "cannot tell"
    assert fronts.placed(table(SWEEP | {("edm", 0): (9.0, 9.0)}, seeds=(1,)), ["CL", "RR"]).word.item() == "cannot tell"


def test_a_run_that_diverged_is_left_out_and_a_missing_front_refused():
    runs = table(SWEEP | {("edm", 0): (2.0, -20.0)})
    runs.loc[(runs.smto == "edm") & (runs.seed == 1), ["CL", "RR"]] = math.nan
    assert fronts.placed(runs, ["CL", "RR"]).n.item() == 2
    with pytest.raises(ValueError, match="no run of fixed or unit_scal"):
        fronts.placed(runs[runs.smto == "edm"], ["CL", "RR"])
    with pytest.raises(ValueError, match="XX: no such column"):
        fronts.placed(runs, ["CL", "XX"])
    with pytest.raises(ValueError, match="two tasks"):
        fronts.placed(runs, ["CL"])
    with pytest.raises(ValueError, match="one problem at a time"):
        fronts.placed(pd.concat([runs, runs.assign(problem="q")]), ["CL", "RR"])


def test_a_seed_that_has_only_half_the_sweep_is_left_out():
    """With seed 4 there is the uniform loss only, and every method would beat it by far."""
    runs = table(SWEEP | {("edm", 0): (2.0, -20.0)})
    more = table({("unit_scal", "-"): (-1.0, -10.0), ("edm", 0): (2.0, -20.0)}, seeds=(4,))
    whole = fronts.placed(runs, ["CL", "RR"])
    pd.testing.assert_frame_equal(fronts.placed(pd.concat([runs, more], ignore_index=True), ["CL", "RR"]), whole)
    found = fronts.budget(pd.concat([runs, more], ignore_index=True), ["CL", "RR"])
    assert set(found.seed) == {1, 2, 3}
    with pytest.raises(ValueError, match="share no seed"):
        fronts.placed(pd.concat([runs[runs.smto != "unit_scal"], more]), ["CL", "RR"])


def test_the_default_reference_lets_every_method_count():
    """The sweep's front ends at (0, 0) and (4, −40), a method far inside at (−1, −60): a tenth of 5 and 60 below."""
    found = fronts.budget(table(SWEEP | {("edm", 0): (-1.0, -60.0)}, seeds=(1,)), ["CL", "RR"])
    assert found.attrs["reference"] == pytest.approx([-1.5, -66])
    assert found[found.smto == "edm"].value.item() == pytest.approx(0.5 * 6)


def test_budget_of_a_sweep_rises_to_its_hypervolume():
    """With all its runs the sweep has the whole area, with one the mean of single areas; a method has its one point."""
    runs = table(SWEEP | {("edm", 0): (2.0, -20.0)}, seeds=(1,))
    found = fronts.budget(runs, ["CL", "RR"], prices={"edm": 1.5})
    found, corner = found.set_index(["smto", "runs"]), found.attrs["reference"]
    assert corner == pytest.approx([-0.4, -44])
    sweep = np.array(list(SWEEP.values()))
    assert found.loc[("fixed", 6), "value"] == pytest.approx(fronts.hypervolume(sweep, corner))
    singles = np.prod(np.maximum(sweep - corner, 0), axis=1)
    assert found.loc[("fixed", 1), "value"] == pytest.approx(singles.mean())
    assert (found.loc["fixed", "value"].diff().dropna() > 0).all()
    assert found.loc[("edm", 1), ["cost", "value"]].tolist() == pytest.approx([1.5, 2.4 * 24])


def test_budget_of_delta_m_chooses_on_validation():
    """Validation prefers the configuration that is worst on test: with two runs, two of three pairs take it."""
    runs = table({("fixed", 0): (0.0, 0.0), ("fixed", 1): (1.0, 1.0), ("fixed", 2): (2.0, 2.0)}, seeds=(1,))
    runs["val_delta_m"] = -runs.delta_m
    found = fronts.budget(runs, ["CL", "RR"], measure="delta_m").set_index("runs").value
    assert found.to_dict() == pytest.approx({1: 1, 2: (0 + 0 + 1) / 3, 3: 0})


def test_utilities_choose_on_validation_and_winners_change():
    """For the first task alone the sweep takes k = 4, for the second k = 0; the method between wins in the middle."""
    runs = table(SWEEP | {("edm", 0): (3.9, -1.0)}, noise=0.01)
    found = fronts.utilities(runs, runs, ["CL", "RR"], steps=3)
    of_sweep = found[found.smto == "fixed"].groupby("u").config.unique()
    assert [json.loads(config)["w"] for (config,) in of_sweep] == [0, 0, 4]
    first = fronts.winners(found)
    assert first.smto.tolist() == ["fixed", "edm", "fixed"] and (first.other == "edm").all()
    assert first.lead.tolist() == pytest.approx([1, (0 - 2.9) / 2, 0.1])
    misled = fronts.utilities(runs, runs.assign(CL=-runs.CL), ["CL", "RR"], steps=2)
    assert json.loads(misled[(misled.u == 1) & (misled.smto == "fixed")].config.iloc[0])["w"] == "-"


def test_with_cost_reads_width_and_time(make_run):
    runs = [
        make_run([{"CL": 0.8, "RR": 0.5}] * epochs, smto="unit_scal", problem_options=options)
        for epochs, options in ((2, {}), (4, {"width": 2}))
    ]
    rows = pd.DataFrame([frames.run_key(run) for run in runs], columns=frames.RUN)
    found = fronts.with_cost(
        rows.assign(seconds=[9.0, 9.0]), runs
    )  # a column that `delta.selected` has: of a whole run
    assert found.width.tolist() == [1, 2] and found.seconds.tolist() == [0.5, 0.25]
    assert found.times.tolist() == [1, 0.5]  # over the uniform loss at the paper's width


def test_hypervolume_contributions_by_hand():
    """A front of (0, 4), (2, 2), (4, 0) above (−0.4, −0.4): columns of heights 4.4, 2.4 and 0.4. A method at (3, 3)
    adds 2 × 1 above the second column and 1 × 3 above the third; one at (1, 1) adds nothing."""
    given = {("fixed", 0): (0.0, 4.0), ("fixed", 1): (2.0, 2.0), ("fixed", 2): (4.0, 0.0), ("fixed", 3): (1.0, 1.0)}
    runs = table(given | {("edm", 0): (3.0, 3.0), ("cagrad", 0): (1.0, 1.0)}, seeds=(1,))
    found = fronts.hypervolume_contributions(runs, ["CL", "RR"]).set_index("smto").added
    area = 0.4 * 4.4 + 2 * 2.4 + 2 * 0.4
    assert found["edm"] == found["all"] == pytest.approx(100 * (2 * 1 + 1 * 3) / area)
    assert found["cagrad"] == 0
    lost = (0.4 * 2, 2 * 2.4 - (1 * 1.4 + 1 * 0.4), 2 * 0.4)  # without (2, 2) the point (1, 1), dominated now, steps in
    ends = [100 * (area / (area - one) - 1) for one in lost]
    assert found["fixed"] == pytest.approx(np.median(ends))


def test_training_losses_are_those_of_the_last_epoch_turned(make_run):
    runs = [make_run([{"CL": 0.8, "RR": 0.5}] * 2, seed=1), make_run([], seed=2, ended="diverged at epoch 0, step 0")]
    runs[0].history[-1].train_losses = [0.3, 0.7]
    found = fronts.training_losses(runs)
    assert found[["CL", "RR"]].iloc[0].tolist() == [-0.3, -0.7] and found[["CL", "RR"]].iloc[1].isna().all()
    assert found.seed.tolist() == [1, 2]


def test_placed_at_own_rate_is_like_with_like():
    """At 0.001 the front is (0, 0) to (4, −40), at 0.002 it is five points better on both axes: a method at 0.001 that
    is two points beyond the one is inside of both together."""
    slow, fast = table(SWEEP), table({key: (cl + 5, rr + 5) for key, (cl, rr) in SWEEP.items()})
    edm = table({("edm", 0): (4.0, -18.0)})
    slow, edm, fast = (
        runs.assign(config=[json.dumps(json.loads(config) | {"lr": lr}) for config in runs.config])
        for runs, lr in ((slow, 0.001), (edm, 0.001), (fast, 0.002))
    )
    runs = pd.concat([slow, fast, edm], ignore_index=True)
    own = fronts.placed_at_own_rate(runs, ["CL", "RR"])
    pd.testing.assert_series_equal(
        own.loc["edm"].drop("lr"),
        fronts.placed(pd.concat([slow, edm], ignore_index=True), ["CL", "RR"]).loc["edm"],
        check_dtype=False,
    )
    assert own.lr["edm"] == 0.001
    assert fronts.placed(runs, ["CL", "RR"]).epsilon["edm"] < 0 < own.epsilon["edm"]
    assert fronts.placed_at_own_rate(pd.concat([slow, fast], ignore_index=True), ["CL", "RR"]).empty


def test_prices_are_in_runs_of_the_uniform_loss_at_the_same_seed(make_run):
    """An epoch of EDM takes twice as long. At seed 2 the machine had other work for all of them, at seed 3 for EDM
    alone; over medians it would be four times."""
    took = {"unit_scal": (1.0, 4.0, 1.0), "edm": (2.0, 8.0, 4.0)}
    runs = [
        make_run([{"CL": 0.8, "RR": 0.5}], smto=smto, seed=seed).model_copy(update={"seconds": seconds})
        for smto, by_seed in took.items()
        for seed, seconds in enumerate(by_seed, 1)
    ]
    rows = pd.DataFrame([frames.run_key(run) for run in runs], columns=frames.RUN)
    assert fronts.prices(rows, runs) == {"unit_scal": 1.0, "edm": 2.0, "fixed": 1.0}


def test_for_the_money_a_dear_method_is_compared_with_more_of_the_sweep():
    """One run of the sweep has 1, two have 3. A method with 2 is ahead for the price of one, behind for that of two."""
    values = {("fixed", 1): 1.0, ("fixed", 2): 3.0, ("edm", 1): 2.0, ("cagrad", 1): 2.0}
    bought = pd.DataFrame([(s, seed, n, v + 0.01 * seed) for (s, n), v in values.items() for seed in (1, 2, 3)])
    bought = bought.set_axis(["smto", "seed", "runs", "value"], axis=1)
    noisy = bought[bought.smto == "edm"].assign(smto="imtl", value=[1.0, 0.0, 3.0])
    found = fronts.for_the_money(pd.concat([bought, noisy]), {"edm": 1.9, "cagrad": 2.0, "imtl": 0.5})
    assert found == {"more": ["edm"], "less": ["cagrad"], "open": ["imtl"]}


def test_least_leads_are_read_on_test_where_validation_says():
    """Validation puts the sweep furthest behind EDM at u = 1; on test it is ahead there, and CAGrad does not count."""

    def utilities(by_u):
        rows = [
            (u, smto, seed, value + seed) for u, of in by_u.items() for smto, value in of.items() for seed in (1, 2)
        ]
        return pd.DataFrame(rows, columns=["u", "smto", "seed", "utility"])

    validation = utilities({0: {"fixed": 3, "edm": 1, "cagrad": 2}, 1: {"fixed": 3, "edm": 5, "cagrad": 4}})
    test = utilities({0: {"fixed": 0, "edm": 9, "cagrad": 9}, 1: {"fixed": 6, "edm": 5, "cagrad": 9}})
    assert fronts.least_leads(validation, test).to_dict() == {1: 1, 2: 1}
