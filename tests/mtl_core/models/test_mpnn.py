"""The dense network for QM9 against the sparse one, built from torch-geometric's layers."""

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close

from benchmarks import oracles
from mtl_core.models import mpnn
from mtl_core.molecules import Group, Molecules
from mtl_core.step import MultiTaskModel, Step

SIZES = [3, 5, 3, 9, 2, 5, 3]  # atoms of the molecules of a batch, in its order


def pair(dtype):
    """The network here and there, with the same weights; b is not zero."""
    torch.manual_seed(0)
    dense = mpnn.Encoder().to(dtype)
    nn.init.normal_(dense.convolution.root.bias)
    return dense, oracles.sparse_encoder(dense)


def molecules(sizes, dtype=torch.float32, seed=0):
    """One molecule of each size: features of its atoms [n, 11] and of its edges [n, n, 5], not symmetric."""
    generator = torch.Generator().manual_seed(seed)
    draw = {"generator": generator, "dtype": dtype}
    return [(torch.randn(n, 11, **draw), torch.randn(n, n, 5, **draw)) for n in sizes]


def grouped(batch):
    """The batch as the dense network takes it."""
    groups = []
    for n in sorted({len(nodes) for nodes, _ in batch}, reverse=True):
        index = [place for place, (nodes, _) in enumerate(batch) if len(nodes) == n]
        nodes, edges = (torch.stack(part) for part in zip(*(batch[place] for place in index), strict=True))
        groups.append(Group(torch.tensor(index), nodes, edges))
    return Molecules(groups, len(batch))


def test_parameter_counts(count_parameters):
    """Encoder 616,960, head 65, as torch-geometric's layers have."""
    assert count_parameters(mpnn.Encoder()) == count_parameters(oracles.SparseEncoder()) == 616_960
    assert count_parameters(mpnn.Head()) == 65


@pytest.mark.training
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=str)
def test_equals_torch_geometric(dtype, tolerance):
    """The same features, and the same gradient of every parameter, for molecules of different sizes in one batch."""
    dense, sparse = pair(dtype)
    batch = molecules(SIZES, dtype)
    z, expected = dense(grouped(batch)), sparse(*oracles.edge_list(grouped(batch)))
    assert z.shape == (len(SIZES), 64) and (z > 0).any()
    assert_close(z, expected, rtol=tolerance, atol=tolerance)

    direction = torch.randn(z.shape, dtype=dtype)
    z.backward(direction)
    expected.backward(direction)
    for here, there in oracles.SPARSE_NAMES.items():
        ours, theirs = dense.get_parameter(here).grad, sparse.get_parameter(there).grad
        assert theirs.abs().max() > 0
        assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max(), here


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_gradients_come_at_once_where_they_are_asked_for(monkeypatch):
    """Three tasks' gradients by one batched pass, as on a GPU, are those one by one."""
    torch.manual_seed(0)
    model = MultiTaskModel(mpnn.Encoder(8), {name: mpnn.Head(8) for name in "abc"}).double()
    batch, losses = grouped(molecules(SIZES, torch.float64)), [nn.functional.mse_loss] * 3
    targets = list(torch.randn(3, len(SIZES), 1, dtype=torch.float64))
    expected = Step(model, losses, batch, targets).jacobian
    monkeypatch.setattr("mtl_core.step._on_gpu", lambda z: True)
    monkeypatch.delattr("mtl_core.step._gradients")  # the way one by one
    assert_close(Step(model, losses, batch, targets).jacobian, expected)


def test_distributions_of_initial_weights():
    """Uniform within the bounds of torch-geometric's layers: the largest weights and the spread agree."""
    torch.manual_seed(0)
    dense, sparse = dict(mpnn.Encoder().named_parameters()), dict(oracles.SparseEncoder().named_parameters())
    for here, there in oracles.SPARSE_NAMES.items():
        ours, theirs = dense[here].detach(), sparse[there].detach()
        assert_close(ours.abs().max(), theirs.abs().max(), rtol=0.1, atol=0)
        assert_close(ours.std(), theirs.std(), rtol=0.25, atol=0)
    assert (dense["convolution.root.bias"] == 0).all()


def test_molecules_do_not_see_each_other():
    """A molecule has the same features alone as in a batch with larger and smaller ones."""
    dense, _ = pair(torch.float64)
    batch = molecules(SIZES, torch.float64)
    z = dense(grouped(batch))
    for k, molecule in enumerate(batch):
        assert_close(dense(grouped([molecule]))[0], z[k])


def test_order_of_atoms_does_not_count():
    dense, _ = pair(torch.float64)
    (nodes, edges) = molecules([7], torch.float64)[0]
    order = torch.randperm(7)
    assert_close(dense(grouped([(nodes[order], edges[order][:, order])])), dense(grouped([(nodes, edges)])))


def test_diagonal_does_not_count():
    """No atom is its own neighbour, whatever the features of the edge to itself."""
    dense, _ = pair(torch.float64)
    (nodes, edges) = molecules([6], torch.float64)[0]
    changed = edges + 100 * torch.eye(6)[..., None]
    assert_close(dense(grouped([(nodes, changed)])), dense(grouped([(nodes, edges)])))


def test_lone_atom():
    """A molecule of one atom hears nothing: finite features and gradients, the features torch-geometric gives it."""
    dense, sparse = pair(torch.float64)
    batch = molecules([4, 1], torch.float64)
    z = dense(grouped(batch))
    assert_close(z, sparse(*oracles.edge_list(grouped(batch))))
    assert all(g.isfinite().all() for g in torch.autograd.grad(z.sum(), list(dense.parameters())))


def test_other_parameters_by_functional_call():
    """The network at other parameters than its own is the network that has them."""
    dense, _ = pair(torch.float64)
    torch.manual_seed(1)
    other = mpnn.Encoder().double()
    batch = grouped(molecules(SIZES, torch.float64))
    assert_close(functional_call(dense, dict(other.named_parameters()), (batch,)), other(batch))


def test_the_width_divisor_divides_the_network():
    """Half the features per atom and half the hidden layer; the same kinds of layers, and a smaller z."""
    slim = mpnn.Encoder(width_divisor=2)
    z = slim(grouped(molecules(SIZES, torch.float32)))
    assert z.shape == (len(SIZES), 32)
    shapes = [(p.shape, q.shape) for p, q in zip(slim.parameters(), mpnn.Encoder().parameters(), strict=True)]
    assert all(len(small) == len(large) for small, large in shapes)
    assert slim.convolution.matrix.weight.shape == (32 * 32, 64)
