"""What the solvers are measured by, in the tests and in `make bench`: Gramians of many kinds, certificates of
optimality, and the same problems solved by cvxpy and by scipy. And what QM9's network is measured by: the same network
from torch-geometric's layers.

Nothing here shares code with `mtl_core.smtos.solvers`. The programmes are solved to 1e-4 … 1e-7. The certificates are
exact to rounding; they scale gradients to unit length, so that a violation of 1e-8 means the same for every task.
"""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
import torch
from scipy.optimize import least_squares, minimize, nnls
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_core.models import mpnn
from mtl_core.molecules import Molecules
from mtl_core.smtos.base import GramianWeighting
from mtl_core.smtos.registry import get, keys

GRAMIAN_METHODS = [key for key in keys() if issubclass(get(key), GramianWeighting)]

# K = 3, 3 and 2: conflicts without and with very unequal lengths
G1 = np.array([[4.0, -2.0, 0.0], [-2.0, 6.0, -1.0], [0.0, -1.0, 11.0]])
G2 = np.array([[1.0, 0.09, 0.5], [0.09, 0.01, 0.08], [0.5, 0.08, 1.0]])
G3 = np.array([[1.0, -0.6], [-0.6, 4.0]])


def jacobian(
    K: int, seed: int = 0, *, cosine: float = 0.0, decades: float = 0.0, rank: int | None = None, size: int = 100
) -> np.ndarray:
    """Random task gradients [K, P]: mean cosine `cosine`, lengths over `decades`, or a rank (then P = rank)."""
    random = np.random.default_rng((K, seed))
    J = random.standard_normal((K, rank or max(size, 2 * K)))
    J = np.sqrt(1 - cosine) * J + np.sqrt(cosine) * random.standard_normal(J.shape[1])
    lengths = 10.0 ** random.uniform(0, decades, (K, 1)) if decades else 1.0
    return J / np.linalg.norm(J, axis=1, keepdims=True) * lengths


def gramian(K: int, seed: int = 0, **kind: Any) -> np.ndarray:
    """J Jᵀ of `jacobian`, [K, K]."""
    J = jacobian(K, seed, **kind)
    return J @ J.T


def balanced(K: int, seed: int = 0) -> np.ndarray:
    """A random Gramian of equally long gradients whose rows all have the same sum: G 1 ∝ 1."""
    _, C = units(gramian(K, seed, size=3 * K))
    off = C - np.eye(K)
    if K > 2:  # lift entry ij by x_i + x_j
        lift = np.linalg.solve((K - 2) * np.eye(K) + 1, off.sum() / K - off.sum(1))
        off += lift[:, None] + lift
    np.fill_diagonal(off, 0)
    lowest = np.linalg.eigvalsh(off)[0]
    return np.eye(K) + off * min(1.0, 0.95 / abs(lowest) if lowest < 0 else 1.0)


def units(G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths [K] and cosines [K, K]."""
    n = np.sqrt(np.diag(G))
    return n, G / np.outer(n, n)


def root(G: np.ndarray) -> np.ndarray:
    """R [K, K] with R Rᵀ = G."""
    values, vectors = np.linalg.eigh(G)
    return vectors * np.sqrt(np.maximum(values, 0))


# -- certificates: by how much a point misses the optimality conditions ------------------------------------------------


def min_norm_violation(G: np.ndarray, w: np.ndarray) -> float:
    """Of u_k·d ≥ |d|²/n_k, with equality on the support, w on the simplex; over Σ w_k n_k, an upper bound of |d|."""
    n, _ = units(G)
    gap = (G @ w - w @ G @ w) / n / (w @ n)
    return max(abs(w.sum() - 1), -w.min(), -gap.min(), both(w * n, gap))


def both(v: np.ndarray, gap: np.ndarray) -> float:
    """By how much a task is on the support and off the equality at once: the lesser of its share of v and its gap."""
    return np.minimum(np.abs(v) / np.abs(v).sum(), np.abs(gap)).max()


def equal_projection_violation(G: np.ndarray, a: np.ndarray) -> float:
    """Spread of u_k·d over Σ |a_k| n_k, a summing to 1."""
    n, _ = units(G)
    return max(abs(a.sum() - 1) / np.abs(a).sum(), np.ptp(G @ a / n) / (np.abs(a) @ n))


def cagrad_violation(G: np.ndarray, w: np.ndarray, c: float) -> float:
    """Of u_k·d ≥ ν/n_k, with equality on the support, d = g_0 + c |g_0| g_w / |g_w|; over |g_0|, w on the simplex."""
    n, _ = units(G)
    length = np.sqrt(G.mean())
    projections = (G.mean(1) + c * length / np.sqrt(w @ G @ w) * G @ w) / n / length
    v = w * n
    nu = (v @ projections) / w.sum()
    gap = projections - nu / n
    return max(abs(w.sum() - 1), -w.min(), -gap.min(), both(v, gap))


def fair_violation(G: np.ndarray, w: np.ndarray, alpha: float = 1.0) -> float:
    """Of (G w)_k w_k^(1/α) = 1."""
    return np.abs((G @ w) * w ** (1 / alpha) - 1).max() if w.min() > 0 else np.inf


def fair_rounding(G: np.ndarray, w: np.ndarray, alpha: float = 1.0) -> float:
    """Of the same, in units of the terms that (G w)_k is the sum of, where these cancel to less: the share of G that
    would have to be rounded otherwise for the equation to hold."""
    gains, gap = w ** (-1 / alpha), np.abs(G @ w - w ** (-1 / alpha))
    return np.minimum(gap / gains, gap / (np.abs(G) @ w)).max() if w.min() > 0 else np.inf


def dual_cone_violation(G: np.ndarray, a: np.ndarray) -> float:
    """Distance of the update from the mean of K projections by non-negative least squares, over Σ n_k."""
    n, C = units(G)
    R = root(C)
    projected = [R[i] + nnls(R.T, -R[i])[0] @ R for i in range(len(G))]
    expected = n @ np.array(projected) / len(G)
    return np.linalg.norm((a * n) @ R - expected) / n.sum()


# -- convex programmes -------------------------------------------------------------------------------------------------


def value(variable: cp.Variable) -> np.ndarray:
    """What a solve has left in a variable. Raises SolverError if it has left nothing."""
    if variable.value is None:
        raise cp.SolverError("the solver found no solution.")
    return variable.value


def min_norm(G: np.ndarray) -> np.ndarray:
    """argmin |Σ w_k g_k|² over the simplex."""
    w = cp.Variable(len(G), nonneg=True)
    cp.Problem(cp.Minimize(cp.sum_squares(root(G / np.trace(G)).T @ w)), [cp.sum(w) == 1]).solve()
    return value(w)


def cagrad_direction(G: np.ndarray, c: float) -> np.ndarray:
    """R's coordinates of argmax min_k g_k·d over |d − g_0| ≤ c |g_0|: the primal, where the solver has the dual."""
    R = root(G)
    mean = R.mean(0)
    d, least = cp.Variable(len(G)), cp.Variable()
    cp.Problem(cp.Maximize(least), [R @ d >= least, cp.norm(d - mean) <= c * np.linalg.norm(mean)]).solve(
        solver="CLARABEL"
    )
    return value(d)


def imgrad_dual(G: np.ndarray, c: float, kappa: float, reading: str = "code") -> np.ndarray:
    """The least of IMGrad's objective over the simplex, in the reading of the code or as printed."""
    w = cp.Variable(len(G), nonneg=True)
    length, linear = cp.norm(root(G).T @ w), G.mean(0) @ w
    radius = c * np.sqrt(G.mean())
    objective = {
        "code": (1.5 - kappa) * linear + kappa * radius * length,
        "eq9": (1 - kappa) * (linear + radius * length) + kappa * length**2,
        "eq11": (1 - kappa) * linear + kappa * radius * length**2,
        "eq11_plain": (1 - kappa) * linear + kappa * radius * length,
    }[reading]
    cp.Problem(cp.Minimize(objective), [cp.sum(w) == 1]).solve()
    return value(w)


def fair(G: np.ndarray, alpha: float = 1.0) -> np.ndarray:
    """argmin |Σ w_k g_k|²/2 − Σ φ(w_k), φ' = w^(−1/α)."""
    w = cp.Variable(len(G))
    power = 1 - 1 / alpha
    gains = cp.sum(cp.log(w)) if alpha == 1 else cp.sum(cp.power(w, power)) / power
    cp.Problem(cp.Minimize(cp.sum_squares(root(G).T @ w) / 2 - gains)).solve()
    return value(w)


def equal_projections(G: np.ndarray) -> np.ndarray:
    """a with sum 1 and one common value of all u_k·d."""
    n, C = units(G)
    a, common = cp.Variable(len(G)), cp.Variable()
    cp.Problem(cp.Minimize(cp.sum_squares(C @ cp.multiply(n, a) - common)), [cp.sum(a) == 1]).solve()
    return value(a)


def dual_cone(G: np.ndarray) -> np.ndarray:
    """Sum over i of argmin |Σ_k v_k g_k| over v ≥ e_i / K."""
    K = len(G)
    V = cp.Variable((K, K))
    cp.Problem(cp.Minimize(cp.sum_squares(V @ root(G / np.trace(G)))), [np.eye(K) / K <= V]).solve()
    return value(V).sum(0)


# -- the same with scipy, as in other codes ----------------------------------------------------------------------------


def min_norm_by_nnls(G: np.ndarray) -> np.ndarray:
    """The non-negative x with the least |Σ x_k g_k|² + (Σ x_k − 1)², brought to sum 1."""
    R = root(G / np.trace(G))
    x = nnls(np.vstack([R.T, np.ones(len(G))]), np.append(np.zeros(len(G)), 1.0))[0]
    return x / x.sum()


def equal_projections_by_lapack(G: np.ndarray) -> np.ndarray:
    """One linear system in the K weights and the common projection."""
    K, n = len(G), units(G)[0]
    system = np.block([[G, -n[:, None]], [np.ones((1, K)), np.zeros((1, 1))]])
    return np.linalg.solve(system, np.append(np.zeros(K), 1.0))[:K]


def cagrad_dual_by_slsqp(G: np.ndarray, c: float) -> np.ndarray:
    """From equal weights, with numerical derivatives, as CAGrad's own code."""
    K = len(G)
    mean, radius = G.mean(0), c * np.sqrt(G.mean())
    return minimize(
        lambda w: w @ mean + radius * np.sqrt(w @ G @ w + 1e-8),
        np.full(K, 1 / K),
        method="SLSQP",
        bounds=[(0, 1)] * K,
        constraints={"type": "eq", "fun": lambda w: 1 - w.sum()},
    ).x


def fair_by_least_squares(G: np.ndarray, alpha: float = 1.0) -> np.ndarray:
    """Bounded least squares on G w − w^(−1/α), as FairGrad's own code."""
    K = len(G)
    return least_squares(lambda w: G @ w - w ** (-1 / alpha), np.full(K, 1 / K), bounds=(0, np.inf)).x


def dual_cone_by_nnls(G: np.ndarray) -> np.ndarray:
    """K problems of non-negative least squares, on unit gradients."""
    n, C = units(G)
    R = root(C)
    turned = np.array([nnls(R.T, -R[i])[0] for i in range(len(G))])
    return (1 + n @ turned / n) / len(G)


# -- QM9's network, from torch-geometric's layers ----------------------------------------------------------------------


class SparseEncoder(nn.Module):
    """The encoder of `mtl_core.models.mpnn` at full width, with a list of edges and a 64×64 matrix for each of them."""

    def __init__(self) -> None:
        from torch_geometric.nn import NNConv, Set2Set

        super().__init__()
        self.atom = nn.Linear(11, 64)
        self.convolution = NNConv(
            64, 64, nn.Sequential(nn.Linear(5, 128), nn.ReLU(), nn.Linear(128, 4096)), aggr="mean"
        )
        self.gru = nn.GRU(64, 64)
        self.set2set = Set2Set(64, processing_steps=3)
        self.out = nn.Linear(128, 64)

    def forward(self, nodes: Tensor, edge_index: Tensor, edge_features: Tensor, molecule: Tensor) -> Tensor:
        """Atoms [N, 11], edges from j to i [2, E], their features [E, 5] and each atom's molecule [N] to z [B, 64]."""
        x = F.relu(self.atom(nodes))
        state = x[None]
        for _ in range(3):
            x, state = self.gru(F.relu(self.convolution(x, edge_index, edge_features))[None], state)
            x = x[0]
        return F.relu(self.out(self.set2set(x, molecule)))


SPARSE_NAMES = {  # of a parameter of the dense encoder: in the sparse one
    "atom.weight": "atom.weight",
    "atom.bias": "atom.bias",
    "convolution.hidden.weight": "convolution.nn.0.weight",
    "convolution.hidden.bias": "convolution.nn.0.bias",
    "convolution.matrix.weight": "convolution.nn.2.weight",
    "convolution.matrix.bias": "convolution.nn.2.bias",
    "convolution.root.weight": "convolution.lin.weight",
    "convolution.root.bias": "convolution.bias",
    **{f"gru.{name}": f"gru.{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")},
    **{f"set2set.lstm.{name}": f"set2set.lstm.{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")},
    "out.weight": "out.weight",
    "out.bias": "out.bias",
}


def sparse_encoder(dense: mpnn.Encoder) -> SparseEncoder:
    """The sparse encoder with the weights of a dense one."""
    sparse = SparseEncoder().to(dense.out.weight.dtype)
    sparse.load_state_dict({SPARSE_NAMES[name]: value for name, value in dense.state_dict().items()})
    return sparse


def edge_list(batch: Molecules) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A batch, all pairs of different atoms of a molecule joined, as the sparse encoder takes it."""
    found: dict[int, tuple[Tensor, Tensor]] = {}
    for group in batch.groups:
        found |= {place: (group.nodes[row], group.edges[row]) for row, place in enumerate(group.index.tolist())}
    molecules = [found[place] for place in sorted(found)]
    sizes = [len(nodes) for nodes, _ in molecules]
    edge_index, features, start = [], [], 0
    for nodes, edges in molecules:
        i, j = (~torch.eye(len(nodes), dtype=torch.bool)).nonzero(as_tuple=True)
        edge_index.append(torch.stack([j, i]) + start)
        features.append(edges[i, j])
        start += len(nodes)
    molecule = torch.repeat_interleave(torch.tensor(sizes))
    return torch.cat([nodes for nodes, _ in molecules]), torch.cat(edge_index, 1), torch.cat(features), molecule
