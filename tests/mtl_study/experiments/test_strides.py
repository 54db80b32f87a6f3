"""Strides are the run's real steps, and looking changes nothing."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from mtl_study.experiments import gates, merge, strides, training
from mtl_study.experiments.runs import BadRecord, RunConfig
from mtl_study.experiments.store import RunStore

pytestmark = pytest.mark.training
TINY = {"train_size": 96, "val_size": 20, "test_size": 20, "epochs": 2, "batch_size": 32, "lr": 0.002, "seed": 1}


def striding(looks=3, **settings):
    base = RunConfig.of(**{"problem": "multimnist/CL_RR", **TINY, **settings})
    return strides.StridesConfig.of(base=base, looks=looks)


def test_strides_are_stored_and_found_again_and_hold_the_run(tmp_path):
    """They have a store of their own; the runs' stores do not see them. The first step is there, and so is the last."""
    asked = striding(smto="cagrad")
    (found,) = strides.strides([asked], tmp_path, workers=0)
    assert [(one.epoch, one.step) for one in found.strides] == [(0, 0), (0, 1), (1, 0), (1, 2)]
    assert found.run.history == training.train(asked.base).history and found.run.key == asked.base.key
    store = strides.StridesStore(tmp_path)
    assert store.path(asked) == tmp_path / "multimnist/CL_RR/strides" / f"{asked.key}.json"
    assert store.get(asked) == found and list(RunStore(tmp_path)) == [] and store.get(striding(2)) is None
    assert merge.merge(tmp_path, tmp_path / "into", pack=True).added
    assert strides.StridesStore(tmp_path / "into").get(asked) == found
    for change, message in (
        ({"ended": "banana"}, "expected 'finished'"),
        ({"strides": []}, "0 of 4 strides"),
        ({"history": found.history[:1]}, "1 of 2 epochs"),
        ({"strides": [found.strides[0].model_copy(update={"losses": [1.0]}), *found.strides[1:]]}, "stride 0"),
    ):
        with pytest.raises(BadRecord, match=message):
            found.model_copy(update=change).check()


def test_under_gradient_descent_a_step_is_the_direction():
    """s = γ d with d = ½ (g_1 + g_2): so g_k·d are the means of the rows of J Jᵀ, and the cosine is 1."""
    found = strides.stride(striding(optimizer="sgd", precision="float64", lr=0.1, lr_decay=1.0))
    for one in found.strides:
        G, along, D = (np.array(getattr(one, name)) for name in ("gramian", "along", "directions"))
        assert_allclose(along[0], G.mean(axis=1), rtol=1e-3)
        assert_allclose(along[1], 0.1 * along[0], rtol=1e-3)
        assert_allclose(D, D[0, 0] * np.array([[1, 0.1], [0.1, 0.01]]), rtol=1e-3)


def test_adams_first_step_has_the_length_of_a_sign():
    """It moves every weight by γ but where the gradient is 0; the second one is not along its direction."""
    found = strides.stride(striding(precision="float64"))
    moved = found.strides[0].directions[1][1] / 0.002**2
    run = training.Training(striding().base, torch.device("cpu"), None)
    assert 0.9 * moved < sum(p.numel() for p in run.model.encoder.parameters()) <= 1.5 * moved
    assert found.strides[0].directions[0][1] > 0


def test_configurations_at_equal_terms():
    """c is given to those that have one; behind a gate, too. Seeds are next to each other, so that whole seeds come
    first."""
    like = striding().base
    assert [c.smto for c in gates.at_radii(like, [0.2, 0.8], [1])] == ["cagrad", "imgrad"] * 2
    assert [c.options for c in gates.at_radii(like, [0.3, 0.9], [1])] == [{"c": c} for c in (0.3, 0.3, 0.9, 0.9)]
    watched = gates.watched(like, ["unit_scal", "cagrad", "imgrad"], 0.3, [1, 2], 5)
    assert [w.base.options for w in watched] == [{}, {"c": 0.3}, {"c": 0.3}] * 2
    assert [w.base.seed for w in watched] == [1, 1, 1, 2, 2, 2] and watched[2].looks == 5
    ways = [c.options for c in gates.gated(like, "cagrad", 0.4, [0.3, 0.7], [1])]
    assert len({str(way) for way in ways}) == 6 and all(way["inner_options"] == {"c": 0.4} for way in ways)
    assert gates.gated(like, "mgda", 0.4, [0.3], [1])[0].options.get("inner_options", {}) == {}
    assert [c.problem for c in gates.baselines(like, [1])] == ["multimnist/CL", "multimnist/RR"]
