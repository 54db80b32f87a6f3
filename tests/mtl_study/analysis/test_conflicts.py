"""Measures of conflict on gradients that are made by hand."""

import numpy as np
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
    removes nothing, and ln r drifts by ln 4."""
    g = RNG.normal(size=(2, 8, 30))
    g /= np.linalg.norm(g, axis=-1, keepdims=True)
    first = np.array([4.0, 1.0])[:, None, None]
    steady, drifting = (
        conflicts.per_run([looks_at(*two)]).iloc[0] for two in ((first * g,) * 2, (first * g, g / first))
    )
    assert steady.magnitude_left == pytest.approx(0, abs=1e-4) and steady.drift == pytest.approx(0, abs=1e-4)
    assert steady.magnitude_gap == pytest.approx(2 * 4 / 17 - 1, abs=1e-4) == drifting.magnitude_left
    assert drifting.drift == pytest.approx(np.log(4), abs=1e-4)


def test_signs_that_adam_turns():
    """Gradients (1, −2) and (1, 1) conflict; where the second coordinate counts a tenth they do not."""
    J = np.array([[1.0, -2.0], [1.0, 1.0]])
    P = np.diag([1.0, 0.1])
    found = conflicts.turned_by_adam(look(J[:, None], J @ J.T, J @ P @ J.T))
    assert found == {"conflict": 1.0, "conflict_adam": 0.0, "turned": 1.0}
    assert np.isnan(conflicts.turned_by_adam(look(J[:, None], J @ J.T))["turned"])


def test_lengths_that_vary_alike_have_spreads_alike():
    """Log lengths of sd 0.5 for every task and sample: differences have sd 0.5 √2 either way, without bias."""
    gaps = [
        conflicts.per_look(look(g / np.linalg.norm(g, axis=-1, keepdims=True) * np.exp(RNG.normal(0, 0.5, (2, 8, 1)))))
        for g in RNG.normal(size=(400, 2, 8, 10))
    ]
    gap = np.array([one["spread_gap"] for one in gaps])
    assert abs(gap.mean()) < 0.03


def test_tasks_that_trade_lengths_from_sample_to_sample():
    """Lengths 10 and 1 on one sample, 1 and 10 on the next: no constant weight mends that."""
    trade = np.where(np.arange(8) % 2, 10.0, 1.0)
    g = RNG.normal(size=(2, 8, 60))
    g *= (np.stack([trade, 1 / trade]) / np.linalg.norm(g, axis=-1))[..., None]
    found = conflicts.per_look(look(g))
    assert found["spread_gap"] > 0.5 and conflicts.per_run([looks_at(g)]).magnitude_left[0] < -0.2
