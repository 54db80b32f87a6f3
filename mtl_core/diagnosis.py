"""How the tasks of a network get on: lengths and directions of their gradients, before a method is chosen.

Source of the similarity of magnitudes: Yu et al. 2020 (arXiv:2001.06782), definition 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mtl_core.graph import below_features, differentiated, parameters_of, tensors_in
from mtl_core.step import check_scalars, in_float64


@dataclass(frozen=True)
class Diagnosis:
    """Of one batch, for K tasks; `print` shows it.

    norms: |g_k| [K]. cosines: between the tasks' gradients [K, K], below 0 where two conflict; NaN for one of length 0.
    within: mean cosine of the gradients of two samples of one task [K]; near 0 the batch is mostly noise. NaN
        where the features have no samples in common along their first dimension.
    similarity: 2 |g_j||g_k| / (|g_j|² + |g_k|²) [K, K]; 1 where they are equally long, NaN where both are 0.
    weights: fixed ones that make all gradients equally long [K], summing to 1: `smtos.build("fixed", K, weights=…)`;
        NaN for one of length 0, which no weight can make longer.
    """

    tasks: list[str]
    norms: np.ndarray
    cosines: np.ndarray
    within: np.ndarray
    similarity: np.ndarray
    weights: np.ndarray

    def __str__(self) -> str:
        each = zip(self.tasks, self.norms, self.within, self.weights, strict=True)
        pairs = [(j, k) for k in range(len(self.tasks)) for j in range(k)]
        return "\n".join(
            [f"{task}: length {norm:.3g}, within {w:.2f}, weight {weight:.3g}" for task, norm, w, weight in each]
            + [
                f"{self.tasks[j]}, {self.tasks[k]}: cosine {self.cosines[j, k]:.2f}, "
                f"similarity of lengths {self.similarity[j, k]:.2f}"
                for j, k in pairs
            ]
        )


def diagnose(
    losses: Mapping[str, Tensor] | Sequence[Tensor], features: Any, shared: Iterable[nn.Parameter] = ()
) -> Diagnosis:
    """Gradients of one batch, compared. Every .grad stays, and the losses can still be differentiated.

    Args:
        losses: one scalar per task, by name or in order.
        features: what the heads took in, [B, …], in any nest of lists, tuples and dicts.
        shared: parameters that all tasks use. With them everything but `within` is of the gradients there, which takes
            K more passes; without them it is of those on the features.

    Raises:
        ValueError: a loss is no scalar or has no graph, or none depends on what is given; a feature is made of another.
    """
    if not (isinstance(losses, Mapping | Sequence) or (isinstance(losses, Tensor) and losses.dim())) or not len(losses):
        raise ValueError("diagnose: give a loss for each task, by name or in order: [loss_a, loss_b].")
    named = losses if isinstance(losses, Mapping) else dict(zip(map(str, range(len(losses))), losses, strict=True))
    z, trained = tensors_in(features), [p for p in parameters_of(shared, "diagnose") if p.requires_grad]
    check_scalars(named)
    below_features(z)
    if constant := [name for name, loss in named.items() if not loss.requires_grad]:
        raise ValueError(f"diagnose: the losses of tasks {constant} have no graph that could be differentiated.")
    if not z:
        raise ValueError("diagnose: the features carry no gradient; give what the heads took in.")

    def rows(wanted: Sequence[Tensor], start: int) -> Tensor:
        found = [differentiated(x, wanted, retain_graph=True, materialize_grads=True) for x in named.values()]
        dense = [[in_float64(g.to_dense() if g.is_sparse else g).flatten(start) for g in each] for each in found]
        return torch.stack([torch.cat(each, -1) for each in dense])

    g = rows(trained or z, 0)
    if not g.any():
        raise ValueError("diagnose: no loss depends on them; give the features that the losses were made of.")
    gramian, within = (g @ g.T).cpu().numpy(), np.full(len(g), np.nan)
    if len({len(t) for t in z}) == 1:
        samples = rows(z, 1)  # [K, B, …]
        lengths = samples.norm(dim=2, keepdim=True)
        total, count = (samples / lengths.where(lengths > 0, 1)).sum(1).square().sum(1), (lengths > 0).sum((1, 2))
        within = ((total - count).where(count > 1, torch.nan) / (count * (count - 1))).cpu().numpy()
    norms = np.sqrt(gramian.diagonal())
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines, inverse = gramian / np.outer(norms, norms), 1 / np.where(norms > 0, norms, np.nan)
        similarity = 2 * np.outer(norms, norms) / (norms[:, None] ** 2 + norms**2)
        return Diagnosis(list(named), norms, cosines, within, similarity, inverse / np.nansum(inverse))
