"""Looks change nothing, and what they see are the gradients."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from mtl_study.experiments import probes, training
from mtl_study.experiments.runs import RunConfig

pytestmark = pytest.mark.training
TINY = {"train_size": 96, "val_size": 20, "test_size": 20, "epochs": 2, "batch_size": 32, "lr": 0.002, "seed": 1}


def config(**settings):
    return RunConfig.of(**{"problem": "multimnist/CL_RR", **TINY, **settings})


@pytest.mark.parametrize(
    "settings", [{"dropout": 0.3}, {"smto": "cagrad"}, {"smto": "rotograd", "dropout": 0.2}], ids=str
)
def test_a_run_that_is_looked_at_is_the_run(settings):
    """Bit for bit but for the pass by which the loss's gradient is made, which rounds otherwise where the uniform loss
    takes its short way."""
    alone = training.train(config(**settings))
    watched, looks = probes.watch(config(**settings), looks=3, samples=4)
    assert [(look.epoch, look.step) for look in looks] == [(0, 1), (1, 0), (1, 2)]
    one, other = ([epoch.train_losses for epoch in run.history] for run in (alone, watched))
    assert_allclose(one, other, rtol=1e-5)
    if settings.get("smto") == "cagrad":  # takes all gradients anyway
        assert watched.history == alone.history


def test_gradients_of_samples_add_up_to_those_of_the_batch():
    """Without dropout the batch's gradient is the mean of its samples': so are the inner products."""
    _, (look,) = probes.watch(config(epochs=1, precision="float64", batch_size=96), looks=1, samples=96)
    assert look.gramian.shape == (2, 96, 2, 96)
    assert_allclose(look.gramian.mean(axis=(1, 3)), look.of_batch, rtol=1e-8)
    assert np.isnan(look.preconditioned).all()  # Adam has taken no step yet


class Recording(probes._Watched):
    """Keeps the Jacobians."""

    def __init__(self, *args):
        super().__init__(*args)
        self.jacobians = []

    def before_backward(self, step):
        super().before_backward(step)
        self.jacobians.append(step.jacobian.detach().clone())


def test_what_adam_measures_by_hand():
    """After one step √v̂ is |g| of that step, the mean of the rows of J: J P Jᵀ of the second step has 1/(|g| + ε)."""
    run = Recording(config(epochs=1, precision="float64", train_size=64), torch.device("cpu"), None, 2, 4)
    run.epoch()
    (first, second), (_, look) = run.jacobians, run.looks
    expected = second / (first.mean(0).abs() + 1e-8) @ second.T
    assert look.step == 1 and not np.allclose(look.preconditioned, look.of_batch)
    assert_allclose(look.preconditioned, expected.numpy(), rtol=1e-6)


def test_looking_leaves_statistics_and_generators_alone():
    run = probes._Watched(config(dropout=0.5), torch.device("cpu"), None, 6, 4)
    state = torch.get_rng_state()
    index = torch.arange(8)
    x, targets = run.data["train"].batch(index, run.names, run.augmentation)
    step = training.Step(run.model, run.loss_functions, x, targets)
    after = torch.get_rng_state()
    probes.per_sample(run.model, run.loss_functions, step, 4)
    assert torch.equal(torch.get_rng_state(), after) and not torch.equal(state, after)
    assert run.model.training and all(p.grad is None for p in run.model.parameters())
