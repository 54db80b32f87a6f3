"""A batch of molecules: what a dataset gives, and a network takes."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Group:
    """The molecules of a batch that have n atoms.

    index: their places in the batch, int64 [G]. nodes: features of the atoms [G, n, 11]. edges: features of the pairs
    of atoms [G, n, n, 5], symmetric; the diagonal is zero and has no meaning, as an atom is not its own neighbour.
    """

    index: Tensor
    nodes: Tensor
    edges: Tensor


class Molecules(NamedTuple):
    """A batch, by number of atoms. size: molecules in all."""

    groups: list[Group]
    size: int
