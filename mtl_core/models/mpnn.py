"""The paper's message-passing network for QM9, computed on complete graphs without a matrix per edge.

Encoder (616,960 parameters): the atoms' features → linear 11→64 → ReLU = x; three rounds with the same weights,

    m_i = W x_i + b + 1/(n-1) Σ_(j≠i) x_j M(e_ij)        x_i ← GRU(ReLU(m_i), x_i)

where x_i [64] is a row and M(e) [64, 64] comes from the edge network, linear 5→128 → ReLU → linear 128→4096; then
Set2Set, 64 per atom to 128 per molecule in three steps; then linear 128→64 → ReLU = z. Head (65): linear 64→1.

M is linear in the hidden layer h [128] of the edge network, M(e) = B_0 + Σ_k h_k(e) B_k, so that

    Σ_j x_j M(e_ij) = Σ_j Σ_k h_ijk (x_j B_k)            h_ij0 = 1

is two matrix products: y_jk = x_j B_k for all k at once, [nodes, 64] by [64, 129·64], and for every molecule
[n, n·129] by [n·129, 64]. That is nearly n times less work than M(e) takes for all edges; h is the same in all rounds.
And since s ReLU(a) = ReLU(s a) for s ≥ 0, features multiplied by s_ij = [i ≠ j] / (n-1) on their way into the edge
network leave atom i out of its own neighbours and make the sum a mean (0 for a lone atom).

Initial weights: uniform in ±1/√(inputs) for linear layers, weights and biases, in ±1/8 for GRU and LSTM; b = 0. These
are the distributions of torch-geometric's NNConv and Set2Set. `width_divisor` divides the 64 and the 128, for small
machines; the paper's is 1.

Source: Gilmer et al. 2017, arXiv:1704.01212 (the network); Vinyals et al. 2016, arXiv:1511.06391 (Set2Set).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CODE_VERSION = 1  # raise when the numbers a model produces change
ATOM_FEATURES = 11
EDGE_FEATURES = 5
FEATURES = 64  # per atom, and of z
HIDDEN = 128  # of the edge network
ROUNDS = 3  # of message passing, and steps of Set2Set


class GroupLike(Protocol):
    """The molecules of a batch that have n atoms: their places in the batch [G], features of the atoms [G, n, 11] and
    of the pairs of atoms [G, n, n, 5]."""

    @property
    def index(self) -> Tensor: ...
    @property
    def nodes(self) -> Tensor: ...
    @property
    def edges(self) -> Tensor: ...


class MoleculesLike(Protocol):
    """A batch, by number of atoms."""

    @property
    def groups(self) -> Sequence[GroupLike]: ...


class EdgeConvolution(nn.Module):
    """W x_i + b plus the mean over all other atoms j of x_j M(e_ij)."""

    def __init__(self, features: int = FEATURES, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.hidden = nn.Linear(EDGE_FEATURES, hidden)
        self.matrix = nn.Linear(hidden, features * features)
        self.root = nn.Linear(features, features)
        nn.init.zeros_(self.root.bias)

    def hidden_layer(self, edges: Tensor) -> Tensor:
        """Features of edges [G, n, n, 5] to s_ij (h_ij1, …, h_ij128, 1) [G, n, n, 129]; row i is the one that hears."""
        n = edges.shape[1]
        scale = (1 - torch.eye(n, dtype=edges.dtype, device=edges.device)) / max(n - 1, 1)
        inputs = F.pad(edges, (0, 1), value=1.0) * scale[..., None]
        weight = torch.cat([self.hidden.weight, self.hidden.bias[:, None]], dim=1)
        constant = torch.eye(EDGE_FEATURES + 1, dtype=edges.dtype, device=edges.device)[-1:]  # hands on the last input
        return (inputs @ torch.cat([weight, constant]).T).relu_()

    def bases(self) -> Tensor:
        """B_1, …, B_128, B_0 side by side [64, 129·64]."""
        bases = torch.cat([self.matrix.weight, self.matrix.bias[:, None]], dim=1)
        size = self.root.in_features
        return bases.view(size, size, -1).transpose(1, 2).reshape(size, -1)

    def forward(self, atoms: Tensor, hidden: list[Tensor], bases: Tensor) -> Tensor:
        """Atoms [nodes, 64], in the order of the molecules' groups, to what each of them hears [nodes, 64]."""
        means = []
        for h, x in zip(hidden, atoms.split([h.shape[0] * h.shape[1] for h in hidden]), strict=True):
            y = (x @ bases).view(len(h), -1, atoms.shape[1])  # rows (j, k)
            means.append((h.flatten(2) @ y).flatten(0, 1))
        heard: Tensor = torch.cat(means) + self.root(atoms)
        return heard


class Set2Set(nn.Module):
    """A set of atoms to one vector, whatever their order: an LSTM asks, attention over the atoms answers.

    q = LSTM(q, r), the answer so far      a = softmax over atoms of x_i · q      r = Σ_i a_i x_i
    """

    def __init__(self, features: int = FEATURES) -> None:
        super().__init__()
        self.lstm = nn.LSTMCell(2 * features, features)

    def forward(self, atoms: Tensor, absent: Tensor) -> Tensor:
        """Atoms [B, n, 64], and true where a place is empty [B, n], to (q, r) [B, 128]."""
        answer, state = atoms.new_zeros(len(atoms), 2 * atoms.shape[2]), None
        for _ in range(ROUNDS):
            state = self.lstm(answer, state)
            q = state[0]
            scores = (atoms @ q[..., None]).squeeze(-1)
            attention = scores.masked_fill(absent, -torch.inf).softmax(dim=1)
            answer = torch.cat([q, (attention[:, None] @ atoms).squeeze(1)], dim=1)
        return answer


class Encoder(nn.Module):
    """Molecules, in groups of equal size, to features z [B, 64] in the order of the batch."""

    gradients_at_once = True  # on a GPU eleven gradients take 36 ms in one pass and 228 ms one by one

    def __init__(self, width_divisor: int = 1) -> None:
        super().__init__()
        features = FEATURES // width_divisor
        self.atom = nn.Linear(ATOM_FEATURES, features)
        self.convolution = EdgeConvolution(features, HIDDEN // width_divisor)
        self.gru = nn.GRUCell(features, features)
        self.set2set = Set2Set(features)
        self.out = nn.Linear(2 * features, features)

    def forward(self, molecules: MoleculesLike) -> Tensor:
        """A batch of B molecules to z [B, 64], not negative."""
        groups = molecules.groups
        hidden = [self.convolution.hidden_layer(group.edges) for group in groups]
        bases = self.convolution.bases()
        atoms = self.atom(torch.cat([group.nodes.flatten(0, 1) for group in groups])).relu()
        for _ in range(ROUNDS):
            atoms = self.gru(self.convolution(atoms, hidden, bases).relu(), atoms)

        shapes = [group.nodes.shape[:2] for group in groups]  # molecules, atoms in each
        most = max(n for _, n in shapes)
        parts = zip(shapes, atoms.split([size * n for size, n in shapes]), strict=True)
        padded = [F.pad(part.view(size, n, -1), (0, 0, 0, most - n)) for (size, n), part in parts]
        counts = torch.cat([group.index.new_full((size,), n) for group, (size, n) in zip(groups, shapes, strict=True)])
        absent = torch.arange(most, device=counts.device) >= counts[:, None]
        z: Tensor = self.out(self.set2set(torch.cat(padded), absent)).relu()
        return z[torch.cat([group.index for group in groups]).argsort()]


class Head(nn.Linear):
    """Features [B, 64] to one normalised property [B, 1]."""

    def __init__(self, width_divisor: int = 1) -> None:
        super().__init__(FEATURES // width_divisor, 1)
