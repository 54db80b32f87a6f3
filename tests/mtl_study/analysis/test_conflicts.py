"""Measures of conflict on gradients that are made by hand."""

import numpy as np
import pandas as pd
import pytest

from mtl_study.analysis import conflicts
from mtl_study.experiments.probes import Look, Looks, LooksConfig
from mtl_study.experiments.runs import RunConfig

RNG = np.random.default_rng(0)
NONE = np.empty((0, 0))


def look(gradients, of_batch=NONE, preconditioned=NONE):
    """At gradients [K, S, P]."""
    products = np.einsum("ksp,ltp->kslt", gradients, gradients)
    return Look.of(products, of_batch, preconditioned, epoch=0, step=0)


def test_pairs_by_hand():
    """Two tasks, two samples: lengths 3 and 1 at right angles on one sample; opposite on the other."""
    g = np.array([[[3.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [-2.0, 0.0]]])
    table = conflicts.pairs(look(g))
    tasks, samples = (table[table.between == name] for name in (conflicts.TASKS, conflicts.SAMPLES))
    assert tasks.cosine.tolist() == pytest.approx([0, -1]) and samples.cosine.tolist() == pytest.approx([1, 0])
    assert tasks.magnitude.tolist() == pytest.approx([0.6, 0.8])
    assert tasks.log_ratio.tolist() == pytest.approx([np.log(3), -np.log(2)])
    assert tasks.magnitude.tolist() == pytest.approx((1 / np.cosh(tasks.log_ratio)).tolist())


def test_a_gradient_that_is_zero_has_no_pair():
    g = RNG.normal(size=(2, 3, 5))
    g[0, 0] = 0
    table = conflicts.pairs(look(g))
    assert (table.between == conflicts.TASKS).sum() == 2 and (table.between == conflicts.SAMPLES).sum() == 4


def test_a_constant_weight_changes_the_magnitude_gap_and_not_what_it_leaves():
    g = RNG.normal(size=(2, 8, 30)) * np.exp(RNG.normal(0, 0.4, (2, 8, 1)))
    scaled = g * np.array([10.0, 1.0])[:, None, None]
    one, other = (conflicts.per_look(look(x)) for x in (g, scaled))
    assert other["magnitude_gap"] < one["magnitude_gap"] - 0.3
    for name in ("inside", "cosine_gap", "spread_gap"):
        assert other[name] == pytest.approx(one[name], abs=1e-3)
    left = [conflicts.of_run([look(x)]).groupby("between").left.mean() for x in (g, scaled)]
    assert left[0].tolist() == pytest.approx(left[1].tolist(), abs=1e-3)


def test_planted_worlds():
    """Tasks that always agree while samples are random; tasks that always fight; tasks like samples."""
    base = RNG.normal(size=(1, 8, 30))
    friends = conflicts.per_look(look(np.concatenate([base, base + 0.3 * RNG.normal(size=base.shape)])))
    foes = conflicts.per_look(look(np.concatenate([base, 0.3 * RNG.normal(size=base.shape) - base])))
    assert friends["cosine_gap"] > 0.5 and foes["cosine_gap"] < -0.5 and foes["inside"] == 0
    alike = conflicts.per_look(look(RNG.normal(size=(2, 40, 30))))
    assert abs(alike["cosine_gap"]) < 0.1 and abs(alike["magnitude_gap"]) < 0.05


def looks_at(*gradients, seed=4):
    base = RunConfig.of(problem="multimnist/CL_RR", seed=seed, epochs=1, lr=0.001)
    config, looks = LooksConfig.of(base=base), [look(g, np.eye(2)) for g in gradients]
    how = {"code_versions": config.code_versions, "ended": "finished", "seconds": 2.0, "environment": {}}
    return Looks(config=config, looks=looks, **how)


def test_a_run_is_the_mean_of_its_looks():
    record = looks_at(*RNG.normal(size=(3, 2, 8, 30)))
    (row,) = conflicts.per_run([record]).to_dict("records")
    assert (row["problem"], row["smto"], row["seed"], row["seconds"]) == ("multimnist/CL_RR", "unit_scal", 4, 2.0)
    assert row["cosine_gap"] == pytest.approx(np.mean([conflicts.per_look(one)["cosine_gap"] for one in record.looks]))
    assert row["magnitude_gap"] == pytest.approx(row["magnitude tasks"] - row["magnitude samples"])


def test_what_a_constant_weight_removes_and_what_drifts():
    """Task 1 four times as long at all looks: a constant removes it. Four times at one look, a quarter at the other: it
    removes nothing, and ln r has the variance of ln 4 and −ln 4."""
    g = RNG.normal(size=(2, 8, 30))
    g /= np.linalg.norm(g, axis=-1, keepdims=True)
    first = np.array([4.0, 1.0])[:, None, None]
    steady, drifting = (
        conflicts.per_run([looks_at(*two)]).iloc[0] for two in ((first * g,) * 2, (first * g, g / first))
    )
    assert steady.magnitude_left == pytest.approx(0, abs=1e-4) and steady.drift == pytest.approx(0, abs=1e-4)
    assert steady.magnitude_gap == pytest.approx(2 * 4 / 17 - 1, abs=1e-4) == drifting.magnitude_left
    assert drifting.drift == pytest.approx(2 * np.log(4) ** 2, abs=1e-4)
    assert (steady["pairs tasks"], steady["pairs samples"]) == (8, 2 * 28)


def log_ratios(drift, noise, looks=20, samples=8):
    """One pair of tasks, whose ln r moves from look to look with this deviation, its samples about it with that."""
    means = RNG.normal(0, drift, (looks, 1))
    values = means + RNG.normal(0, noise, (looks, samples))
    return pd.DataFrame({"look": np.repeat(np.arange(looks), samples), "log_ratio": values.ravel()})


@pytest.mark.parametrize("planted", [0.0, 0.6])
def test_the_chance_of_few_samples_is_no_drift(planted):
    """By simulation: a steady world has drift 0 on average, and one that drifts its own, whatever the noise. The
    deviation of the means, which was printed before, is 0.5 in the steady one."""
    worlds = [log_ratios(planted, 1.5) for _ in range(300)]
    drifts = [conflicts.drift(world) for world in worlds]
    assert np.mean(drifts) == pytest.approx(planted**2, abs=4 * np.std(drifts) / np.sqrt(300)) and min(drifts) < 0.2
    naive = np.mean([world.groupby("look").log_ratio.mean().std() for world in worlds])
    assert naive > np.hypot(planted, 0.5)


def test_a_drift_takes_two_looks_and_a_look_with_two_samples():
    assert np.isnan(conflicts.drift(log_ratios(0.5, 1.0, looks=1)))
    assert np.isnan(conflicts.drift(log_ratios(0.5, 1.0, samples=1)))


def test_a_band_of_few_is_inside_one_of_many_by_chance():
    """As many and equally wide: a quarter, as either end is inside by a coin. 8 and 56: more than a half; far wider:
    hardly ever. On looks at gradients where nothing differs, whose pairs share samples, it is about the same."""
    assert conflicts.inside_by_chance(8, 56) == pytest.approx(0.61, abs=0.02)
    assert conflicts.inside_by_chance(8, 56, wider=1.1) == pytest.approx(0.5, abs=0.02)
    assert conflicts.inside_by_chance(500, 500) == pytest.approx(0.25, abs=0.03)
    assert conflicts.inside_by_chance(8, 56, wider=3.0) < 0.05
    alike = [conflicts.per_look(look(g))["inside"] for g in RNG.normal(size=(400, 2, 8, 20))]
    assert np.mean(alike) == pytest.approx(0.61, abs=0.1)


def test_all_looks_together_may_be_outside_where_single_looks_are_inside():
    """At one look tasks reach as far as 95 % of the samples do, 0.95; over two looks, one of them narrow, those reach
    0.90."""
    record = looks_at(*RNG.normal(size=(2, 2, 8, 30)))
    for one, far in zip(record.looks, (1.0, 0.1), strict=True):
        one.of_tasks, one.of_samples = [[-0.94 * far, 0.94 * far] * 4], [list(np.linspace(-far, far, 28))] * 2
    (row,) = conflicts.per_run([record]).to_dict("records")
    assert (row["inside"], row["inside_pooled"]) == (1, 0)


def test_signs_that_adam_turns():
    """Gradients (1, −2) and (1, 1) conflict; where the second coordinate counts a tenth they do not."""
    J = np.array([[1.0, -2.0], [1.0, 1.0]])
    P = np.diag([1.0, 0.1])
    found = conflicts.turned_by_adam(look(J[:, None], J @ J.T, J @ P @ J.T))
    assert found == {"conflict": 1.0, "conflict_adam": 0.0, "ended": 1.0, "made": 0.0}
    other = conflicts.turned_by_adam(look(J[:, None], J @ P @ J.T, J @ J.T))
    assert other == {"conflict": 0.0, "conflict_adam": 1.0, "ended": 0.0, "made": 1.0}
    assert np.isnan(conflicts.turned_by_adam(look(J[:, None], J @ J.T))["ended"])


def test_lengths_that_vary_alike_have_spreads_alike():
    """Log lengths of sd 0.5 for every task and sample: differences have sd 0.5 √2 either way, without bias."""
    gaps = [
        conflicts.per_look(look(g / np.linalg.norm(g, axis=-1, keepdims=True) * np.exp(RNG.normal(0, 0.5, (2, 8, 1)))))
        for g in RNG.normal(size=(400, 2, 8, 10))
    ]
    gap, *spreads = (np.array([one[name] for one in gaps]) for name in ("spread_gap", "spread tasks", "spread samples"))
    assert abs(gap.mean()) < 0.03 and gap == pytest.approx(spreads[0] - spreads[1])
    assert [spread.mean() for spread in spreads] == pytest.approx([0.5 * 2**0.5] * 2, abs=0.03)


def test_tasks_that_trade_lengths_from_sample_to_sample():
    """Lengths 10 and 1 on one sample, 1 and 10 on the next: no constant weight mends that."""
    trade = np.where(np.arange(8) % 2, 10.0, 1.0)
    g = RNG.normal(size=(2, 8, 60))
    g *= (np.stack([trade, 1 / trade]) / np.linalg.norm(g, axis=-1))[..., None]
    found = conflicts.per_look(look(g))
    assert found["spread_gap"] > 0.5 and conflicts.per_run([looks_at(g)]).magnitude_left[0] < -0.2
