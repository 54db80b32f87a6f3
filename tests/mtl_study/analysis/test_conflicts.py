"""Measures of conflict on gradients that are made by hand."""

import numpy as np
import pytest

from mtl_study.analysis import conflicts

RNG = np.random.default_rng(0)


def gramian(gradients):
    """Gradients [K, S, P] to inner products [K, S, K, S]."""
    return np.einsum("ksp,ltp->kslt", gradients, gradients)


def test_pairs_by_hand():
    """Two tasks, two samples: lengths 3 and 1 at right angles on one sample; opposite on the other."""
    g = np.array([[[3.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [-2.0, 0.0]]])
    table = conflicts.pairs(gramian(g))
    tasks, samples = (table[table.between == name] for name in (conflicts.TASKS, conflicts.SAMPLES))
    assert tasks.cosine.tolist() == pytest.approx([0, -1]) and samples.cosine.tolist() == pytest.approx([1, 0])
    assert tasks.magnitude.tolist() == pytest.approx([0.6, 0.8])
    assert tasks.log_ratio.tolist() == pytest.approx([np.log(3), -np.log(2)])
    assert tasks.magnitude.tolist() == pytest.approx((1 / np.cosh(tasks.log_ratio)).tolist())


def test_a_gradient_that_is_zero_has_no_pair():
    g = RNG.normal(size=(2, 3, 5))
    g[0, 0] = 0
    table = conflicts.pairs(gramian(g))
    assert (table.between == conflicts.TASKS).sum() == 2 and (table.between == conflicts.SAMPLES).sum() == 4


def test_a_constant_weight_changes_the_magnitude_gap_and_not_what_it_leaves():
    g = RNG.normal(size=(2, 8, 30)) * np.exp(RNG.normal(0, 0.4, (2, 8, 1)))
    scaled = g * np.array([10.0, 1.0])[:, None, None]
    one, other = (conflicts.per_look(gramian(x)) for x in (g, scaled))
    assert other["magnitude_gap"] < one["magnitude_gap"] - 0.3
    for name in ("inside", "cosine_gap", "spread_gap", "magnitude_left"):
        assert other[name] == pytest.approx(one[name])


def test_planted_worlds():
    """Tasks that always agree while samples are random; tasks that always fight; tasks like samples."""
    base = RNG.normal(size=(1, 8, 30))
    friends = conflicts.per_look(gramian(np.concatenate([base, base + 0.3 * RNG.normal(size=base.shape)])))
    foes = conflicts.per_look(gramian(np.concatenate([base, 0.3 * RNG.normal(size=base.shape) - base])))
    assert friends["cosine_gap"] > 0.5 and foes["cosine_gap"] < -0.5 and foes["inside"] == 0
    alike = conflicts.per_look(gramian(RNG.normal(size=(2, 40, 30))))
    assert abs(alike["cosine_gap"]) < 0.1 and abs(alike["magnitude_gap"]) < 0.05


def test_a_run_is_the_mean_of_its_looks():
    looks = [gramian(RNG.normal(size=(2, 8, 30))) for _ in range(3)]
    row = conflicts.per_run(looks, "p", "unit_scal", 4)
    assert (row["problem"], row["seed"]) == ("p", 4)
    assert row["cosine_gap"] == pytest.approx(np.mean([conflicts.per_look(g)["cosine_gap"] for g in looks]))


def test_signs_that_adam_turns():
    """Gradients (1, −2) and (1, 1) conflict; where the second coordinate counts a tenth they do not."""
    J = np.array([[1.0, -2.0], [1.0, 1.0]])
    P = np.diag([1.0, 0.1])
    found = conflicts.turned_by_adam(J @ J.T, J @ P @ J.T)
    assert found == {"conflict": 1.0, "conflict_adam": 0.0, "turned": 1.0}
    assert np.isnan(conflicts.turned_by_adam(J @ J.T, np.full((2, 2), np.nan))["turned"])


def test_lengths_that_vary_alike_have_spreads_alike():
    """Log lengths of sd 0.5 for every task and sample: differences have sd 0.5 √2 either way, without bias."""
    gaps = [
        conflicts.per_look(
            gramian(g / np.linalg.norm(g, axis=-1, keepdims=True) * np.exp(RNG.normal(0, 0.5, (2, 8, 1))))
        )
        for g in RNG.normal(size=(400, 2, 8, 10))
    ]
    gap = np.array([look["spread_gap"] for look in gaps])
    assert abs(gap.mean()) < 0.03


def test_tasks_that_trade_lengths_from_sample_to_sample():
    """Lengths 10 and 1 on one sample, 1 and 10 on the next: no constant weight mends that."""
    trade = np.where(np.arange(8) % 2, 10.0, 1.0)
    g = RNG.normal(size=(2, 8, 60))
    g *= (np.stack([trade, 1 / trade]) / np.linalg.norm(g, axis=-1))[..., None]
    look = conflicts.per_look(gramian(g))
    assert look["spread_gap"] > 0.5 and look["magnitude_left"] < -0.2
