"""What theory says of scale invariance holds to the last bit, and a way to train that is not invariant is caught."""

import numpy as np
import pytest
import torch

from mtl_study.teaching import fingerprint, invariance
from mtl_study.teaching.invariance import NO_EPS, SETTINGS, Setting, compare

pytestmark = pytest.mark.training


def test_every_setting_does_what_theory_says():
    """In two steps already: equal to the last bit, or visibly apart. Heads of a trained backbone make the same first
    step under Adam and part with it afterwards."""
    rows = [compare(setting, steps=2) for setting in SETTINGS]
    for row in rows:
        assert row["bits"] == row["invariant"], row
        assert row["control"] < 1e-11
        moved = max(row["heads"], np.nan_to_num(row["encoder"]))
        assert moved < 1e-10 if row["invariant"] else moved > 0.01, row
    (adam,) = [row for row in rows if row["group"] == "backbone"]
    assert adam["first heads"] < 1e-12 < 0.01 < adam["heads"] and adam["first encoder"] > 0.1
    (memoryless,) = [row for row in rows if row["group"] == "memoryless"]
    assert memoryless["first encoder"] > 0.1


def test_adam_with_a_factor_is_adam_with_another_epsilon_and_decay():
    found = dict(invariance.equivalences(3))
    assert len(found) == 4 and all(found.values())


def test_without_the_division_of_epsilon_it_is_not():
    """A plant: ε and λ as they were."""
    used = Setting("", "", True, {"eps": 1e-8, "weight_decay": 1e-5})
    one, other = (invariance.train(used, units, steps=3) for units in ((8.0, 8.0), (1.0, 1.0)))
    assert not invariance.same_bits(one, other)


def test_changing_weights_move_heads_unless_there_is_no_memory():
    found = invariance.changing_weights(1, 3).set_index(["weights", "betas"]).apart
    assert (found.xs((0.0, 0.0), level="betas") < 1e-12).all()
    assert (found.drop((0.0, 0.0), level="betas") > 0.01).all()


def test_epsilon_and_decay_are_felt_the_more_the_larger_they_are():
    found = invariance.sizes([{"eps": 1e-9}, {"eps": 1e-7}, {"weight_decay": 1e-5}, {"weight_decay": 1e-3}], steps=2)
    assert found["apart"].iloc[0] < found["apart"].iloc[1] and found["apart"].iloc[2] < found["apart"].iloc[3]
    assert (
        list(found.columns) == ["eps", "weight_decay", "apart"]
        and found.eps.notna().tolist() == [True] * 2 + [False] * 2
    )


def test_a_common_factor_is_none_to_adam():
    whole = Setting("", "", True, NO_EPS)
    assert invariance.same_bits(*(invariance.train(whole, units, steps=3) for units in ((8.0, 8.0), (1.0, 1.0))))


def test_steps_are_those_of_training():
    """SGD's first step is the gradient of the weighted losses: ten times as long on one head, and the same on the
    other."""
    sgd = Setting("", "", False, {"optimizer": "sgd"})
    one, other = (invariance.train(sgd, units, steps=1) for units in ((1.0, 1.0), (10.0, 1.0)))
    torch.testing.assert_close(other.heads[0][0], 10 * one.heads[0][0], rtol=1e-9, atol=1e-16)
    torch.testing.assert_close(other.heads[1], one.heads[1])


@pytest.mark.parametrize("num_tasks", [2, 3, 11])
def test_which_methods_notice_units(num_tasks):
    """By theory: the logarithm of the losses, the bargain, the weighted maximum; the bisector and what is on it."""
    rng = np.random.default_rng(1)
    gramians = fingerprint.random_gramians(8, num_tasks, rng)
    found = fingerprint.fingerprints(gramians, np.exp(rng.normal(size=(8, num_tasks)))).invariant
    expected = dict.fromkeys(fingerprint.methods(), fingerprint.NEITHER) | fingerprint.EXPECTED
    if num_tasks == 2:
        expected["GO4Align"] = fingerprint.DIRECTION  # two groups of one task each
    allowed = {fingerprint.UP_TO_SIGN, fingerprint.DIRECTION}
    assert {n: w for n, w in found.items() if w != expected[n] and {w, expected[n]} != allowed} == {}
