"""`mtl_core.diagnose`: how the gradients of a batch compare."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

import mtl_core
from mtl_core.options import BadOption


def test_by_hand() -> None:
    """Gradients on two samples' features: (3, 0) and (3, 0) of task a, (0, 4) and (0, −4) of b, in the batch's vectors
    (3, 0, 3, 0) and (0, 4, 0, −4): at a right angle. Within a task the samples agree (1), and contradict (−1)."""
    z = torch.zeros(2, 2, requires_grad=True)
    losses = {"a": 3 * z[:, 0].sum(), "b": 4 * (z[0, 1] - z[1, 1])}
    found = mtl_core.diagnose(losses, z)
    assert_allclose(found.norms, [3 * 2**0.5, 4 * 2**0.5])
    assert_allclose(found.cosines, np.eye(2), atol=1e-12)
    assert_allclose(found.within, [1, -1])
    assert_allclose(found.similarity, [[1, 24 / 25], [24 / 25, 1]])
    assert_allclose(found.weights, [4 / 7, 3 / 7])
    assert str(found) == (
        "a: length 4.24, within 1.00, weight 0.571\nb: length 5.66, within -1.00, weight 0.429\n"
        "a, b: cosine 0.00, similarity of lengths 0.96"
    )


def test_a_task_without_gradient_has_no_weight() -> None:
    """Those of the others are what they are without it; it has no direction, and no length to be like."""
    z = torch.zeros(2, 2, requires_grad=True)
    losses = [3 * z[:, 0].sum(), 0 * z.sum(), 4 * (z[0, 1] - z[1, 1]), z.prod()]
    found = mtl_core.diagnose(losses, z)
    assert_allclose(found.norms, [3 * 2**0.5, 0, 4 * 2**0.5, 0])
    assert_allclose(found.weights, [4 / 7, np.nan, 3 / 7, np.nan])
    assert_allclose(found.similarity[0], [1, 0, 24 / 25, 0])
    assert np.isnan(found.similarity[1, 3]) and np.isnan(found.cosines[1]).all()
    assert "1: length 0, within nan, weight nan" in str(found)


def test_on_shared_parameters_it_is_what_autograd_says_and_nothing_changes() -> None:
    """In an LSTM with a dict of features; a loss that misses one of them counts as 0 there."""
    torch.manual_seed(0)
    lstm, head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 1)
    sequence, (state, _) = lstm(torch.randn(6, 5, 3))
    z = {"mean": sequence.mean(1), "states": [state[0]]}
    losses = [head(z["mean"]).square().mean(), z["states"][0].sum()]
    found = mtl_core.diagnose(losses, z, shared=lstm.parameters())
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(lstm.parameters()), retain_graph=True)])
        for loss in losses
    ]
    assert_allclose(found.norms, [float(row.norm()) for row in rows], rtol=1e-6)
    assert_allclose(found.cosines[0, 1], float(torch.cosine_similarity(*rows, dim=0)), rtol=1e-5)
    assert all(p.grad is None for p in (*lstm.parameters(), *head.parameters()))
    losses[0].backward()


def test_sparse_gradients_are_compared_as_dense_ones() -> None:
    found = []
    for sparse in (False, True):
        torch.manual_seed(0)
        words = nn.Embedding(7, 4, sparse=sparse)
        z = words(torch.tensor([0, 3, 3]))
        found.append(mtl_core.diagnose([z.square().sum(), z.exp().sum()], z, shared=words.parameters()))
    assert_allclose(found[0].norms, found[1].norms)
    assert_allclose(found[0].cosines, found[1].cosines)


def test_features_count_once() -> None:
    z = torch.ones(2, 2, requires_grad=True) * 1
    losses = [z[:, 0].sum(), z.square().sum()]
    assert_allclose(mtl_core.diagnose(losses, {"a": z, "b": z}).norms, mtl_core.diagnose(losses, z).norms)
    with pytest.raises(ValueError, match="one of the features is made of another"):
        mtl_core.diagnose(losses, [z, z[:, 0]])


def test_what_cannot_be_compared_is_refused() -> None:
    z, elsewhere = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    for losses, features, words in (
        ([z.sum()], torch.ones(2), "the features carry no gradient"),
        ([z.sum()], elsewhere, "no loss depends on them"),
        ({"a": z.sum(), "b": None}, z, "the loss of task 'b' is NoneType"),
        ([z], z, r"a tensor of shape \(2,\)"),
        ({"a": z.sum(), "b": z.detach().sum()}, z, r"the losses of tasks \['b'\] have no graph"),
    ):
        with pytest.raises(ValueError, match=words):
            mtl_core.diagnose(losses, features)
    for none in (z.sum(), {}, [], 3):
        with pytest.raises(ValueError, match=r"diagnose: give a loss for each task.*\[loss_a, loss_b\]"):
            mtl_core.diagnose(none, z)
    wide = torch.ones(2, 2, requires_grad=True)
    assert mtl_core.diagnose(torch.stack([wide.sum(), wide.square().sum()]), wide).norms.all()
    with pytest.raises(ValueError, match="no tensor is looked for inside SimpleNamespace: give its tensors"):
        mtl_core.diagnose([z.sum()], [z, SimpleNamespace(y=z)])
    layer = nn.Linear(2, 2)
    for shared in (layer, [layer]):
        with pytest.raises(BadOption, match="diagnose: expected shared parameters, not Linear: shared=trunk"):
            mtl_core.diagnose([z.sum()], z, shared=shared)


def test_losses_that_have_been_differentiated_are_not_compared() -> None:
    """torch's own error, with what to do."""
    z = (torch.ones(2, 2, requires_grad=True) * 1).exp()
    losses = [z.square().sum(), z.exp().sum()]
    sum(losses).backward()
    with pytest.raises(RuntimeError, match="second time") as refused:
        mtl_core.diagnose(losses, z)
    assert refused.value.__notes__ == [
        "Each backward takes losses of its own: run the network again before the next one."
    ]


def test_frozen_parameters_have_no_gradient_to_compare() -> None:
    layer = nn.Linear(2, 3)
    z = layer(torch.ones(4, 2))
    losses = [z.sum(), z.square().sum()]
    with_weight = mtl_core.diagnose(losses, z, shared=[layer.weight]).norms
    layer.bias.requires_grad_(False)
    assert_allclose(mtl_core.diagnose(losses, z, shared=layer.parameters()).norms, with_weight)


def test_within_needs_two_samples_with_a_gradient() -> None:
    """A batch of one, and an LSTM's state, whose first dimension is its layers: there is nothing to average."""
    z = torch.ones(1, 3, requires_grad=True) * 1
    assert np.isnan(mtl_core.diagnose([z.sum(), z.square().sum()], z).within).all()
    torch.manual_seed(0)
    _, (state, _) = nn.LSTM(3, 4, num_layers=2, batch_first=True)(torch.randn(6, 5, 3))
    assert np.isnan(mtl_core.diagnose([state[-1].sum(), state[0].sum()], state).within).all()
