"""Looks change nothing, and what they see are the gradients."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from mtl_study.experiments import merge, probes, training
from mtl_study.experiments.runs import BadRecord, RunConfig
from mtl_study.experiments.store import RunStore

pytestmark = pytest.mark.training
TINY = {"train_size": 96, "val_size": 20, "test_size": 20, "epochs": 2, "batch_size": 32, "lr": 0.002, "seed": 1}


def config(**settings):
    return RunConfig.of(**{"problem": "multimnist/CL_RR", **TINY, **settings})


def looking(looks, samples, **settings):
    return probes.LooksConfig.of(base=config(**settings), looks=looks, samples=samples)


@pytest.mark.parametrize(
    "settings", [{"dropout": 0.3}, {"smto": "cagrad"}, {"smto": "rotograd", "dropout": 0.2}], ids=str
)
def test_a_run_that_is_looked_at_is_the_run(settings):
    """Bit for bit except for the pass that makes the loss's gradient, which rounds otherwise where the uniform loss
    takes its short way."""
    alone = training.train(config(**settings))
    watched = probes._Watched(looking(3, 4, **settings), torch.device("cpu"), None)
    with training.determinism(1, "float32"):
        while watched.unfinished:
            watched.epoch()
    assert [(look.epoch, look.step) for look in watched.looks] == [(0, 1), (1, 0), (1, 2)]
    one, other = ([epoch.train_losses for epoch in run.history] for run in (alone, watched.record()))
    assert_allclose(one, other, rtol=1e-5)
    if settings.get("smto") == "cagrad":  # takes all gradients anyway
        assert watched.record().history == alone.history


def test_gradients_of_samples_add_up_to_those_of_the_batch():
    """Without dropout the batch's gradient is the mean of its samples': so are the inner products."""
    run = Recording(looking(1, 96, epochs=1, precision="float64", batch_size=96), torch.device("cpu"), None)
    run.epoch()
    ((products,), (jacobian,), (look,)) = run.products, run.jacobians, run.looks
    assert_allclose(products.mean(axis=(1, 3)), (jacobian @ jacobian.T).numpy(), rtol=1e-8)
    assert_allclose(look.of_batch, (jacobian @ jacobian.T).numpy(), rtol=1e-4)
    assert look.preconditioned == []  # Adam has taken no step yet


def test_a_look_has_lengths_and_cosines_by_hand():
    """Lengths 3, 1 and 1, 2; at right angles, and opposite; a gradient that is zero has cosine 0."""
    g = np.array([[[3.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [-2.0, 0.0]]])
    found = probes.Look.of(np.einsum("ksp,ltp->kslt", g, g), np.eye(2), np.empty((0, 0)), epoch=0, step=0)
    assert found.norms == [[3, 1], [1, 2]] and found.of_tasks == [[0, -1]] and found.of_samples == [[1], [0]]
    g[0, 0] = 0
    found = probes.Look.of(np.einsum("ksp,ltp->kslt", g, g), np.eye(2), np.empty((0, 0)), epoch=0, step=0)
    assert found.norms[0] == [0, 1] and found.of_samples == [[0], [0]]


@pytest.mark.parametrize(
    ("change", "message"), [({"ended": "banana"}, "expected 'finished'"), ({"looks": []}, "0 of 2 looks")]
)
def test_looks_that_do_not_fit_are_not_written(change, message):
    found = probes.watch(looking(2, 4, epochs=1))
    with pytest.raises(BadRecord, match=message):
        found.model_copy(update=change).to_line()


def test_looks_are_stored_and_found_again(tmp_path):
    """In a folder next to the runs, whose stores do not see them; another number of looks is another record."""
    asked = looking(2, 4, epochs=1)
    (found,) = probes.watch_all([asked], tmp_path, workers=0)
    store = probes.LooksStore(tmp_path)
    assert store.path(asked) == tmp_path / "multimnist/CL_RR/looks" / f"{asked.key}.json"
    assert store.get(asked) == found and list(store.records()) == [found] and list(RunStore(tmp_path)) == []
    assert store.get(looking(3, 4, epochs=1)) is None
    assert merge.merge(tmp_path, tmp_path / "into", pack=True).added and not (tmp_path / "into/multimnist/CL").exists()
    assert probes.LooksStore(tmp_path / "into").get(asked) == found
    found.looks[0].norms.pop()
    with pytest.raises(BadRecord, match="look 0: norms of another size"):
        found.check()


class Recording(probes._Watched):
    """Keeps the Jacobians, and the inner products of single samples."""

    def __init__(self, *args):
        super().__init__(*args)
        self.jacobians, self.products = [], []

    def before_backward(self, step):
        super().before_backward(step)
        self.jacobians.append(step.jacobian.detach().clone())
        self.products.append(probes.per_sample(self.model, self.loss_functions, step, self.samples))


def test_what_adam_measures_by_hand():
    """After one step √v̂ is |g| of that step, the mean of the rows of J: J P Jᵀ of the second step has 1/(|g| + ε)."""
    run = Recording(looking(2, 4, epochs=1, precision="float64", train_size=64), torch.device("cpu"), None)
    run.epoch()
    (first, second), (_, look) = run.jacobians, run.looks
    expected = second / (first.mean(0).abs() + 1e-8) @ second.T
    assert look.step == 1 and not np.allclose(look.preconditioned, look.of_batch)
    assert_allclose(look.preconditioned, expected.numpy(), rtol=1e-4)


def test_looking_leaves_statistics_and_generators_alone():
    run = probes._Watched(looking(6, 4, dropout=0.5), torch.device("cpu"), None)
    state = torch.get_rng_state()
    index = torch.arange(8)
    x, targets = run.data["train"].batch(index, run.names, run.augmentation)
    step = training.Step(run.model, run.loss_functions, x, targets)
    after = torch.get_rng_state()
    probes.per_sample(run.model, run.loss_functions, step, 4)
    assert torch.equal(torch.get_rng_state(), after) and not torch.equal(state, after)
    assert run.model.training and all(p.grad is None for p in run.model.parameters())
