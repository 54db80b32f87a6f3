"""Two tasks in one gridworld, with exact policy gradients: who steps onto the goal of a task, or stays there by walking
into a wall, gets its reward, and both tasks have the one policy.

    world = Gridworld(5, goals=((0, 0), (4, 4)))
    world.returns(theta)                       expected discounted return of each task [2]; higher is better
    world.jacobian(theta)                      the gradient of each, [2, P]

The policy is a softmax of a table, θ [states, actions]. Nothing is sampled: with P the transitions under π,

    V_k = (I − γ P)⁻¹ r_k    ρ = (I − γ Pᵀ)⁻¹ μ    ∂J_k/∂θ(s, a) = ρ(s) π(a|s) (Q_k(s, a) − V_k(s))

so two gradients differ by their tasks alone, and not by chance. (Sutton et al. 2000, the policy gradient theorem.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import pandas as pd

from mtl_core import smtos
from mtl_study.look import label
from mtl_study.teaching.toys import weigh

Cell = tuple[int, int]
NOTHING = 1e-8  # of a gradient's length at the start
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))  # up, down, left, right; a wall holds


@dataclass(frozen=True)
class Gridworld:
    """A square of cells; an episode begins in any of them, and never ends.

    goals: of each task, the cell (row, column) whose entry is rewarded. rewards: of each. start: where an episode
    begins; None for anywhere, at random.
    """

    size: int
    goals: Sequence[Cell]
    rewards: Sequence[float] = field(default=(1.0, 1.0))
    start: Cell | None = None
    gamma: float = 0.9

    @cached_property
    def after(self) -> np.ndarray:
        """Where every action leads from every state, [S, A]."""
        cells = np.indices((self.size, self.size)).reshape(2, -1).T
        moved = np.clip(cells[:, None] + np.array(MOVES), 0, self.size - 1)
        found: np.ndarray = moved[..., 0] * self.size + moved[..., 1]
        return found

    def _state(self, cell: Cell) -> int:
        return cell[0] * self.size + cell[1]

    def _begin(self) -> np.ndarray:
        S = self.size**2
        return np.full(S, 1 / S) if self.start is None else np.eye(S)[self._state(self.start)]

    def _solved(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Policy [S, A], discounted visits [S], values [K, S] and action values [K, S, A]."""
        S = self.size**2
        policy = np.exp(theta - theta.max(1, keepdims=True))
        policy /= policy.sum(1, keepdims=True)
        moves = np.zeros((S, S))
        np.add.at(moves, (np.arange(S)[:, None], self.after), policy)
        system = np.eye(S) - self.gamma * moves
        paid = np.zeros((len(self.goals), S))
        for row, goal, reward in zip(paid, self.goals, self.rewards, strict=True):
            row[self._state(goal)] = reward
        of_actions = paid[:, self.after]  # reward for entering
        values = np.linalg.solve(system, (of_actions * policy).sum(-1).T).T
        visits = np.linalg.solve(system.T, self._begin())
        return policy, visits, values, of_actions + self.gamma * values[:, self.after]

    def returns(self, theta: np.ndarray) -> np.ndarray:
        """Expected discounted return of each task [K]."""
        found: np.ndarray = self._solved(theta)[2] @ self._begin()
        return found

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """The gradient of each task's return [K, S A]."""
        policy, visits, values, actions = self._solved(theta)
        found: np.ndarray = visits[:, None] * policy * (actions - values[..., None])
        return found.reshape(len(self.goals), -1)

    def train(
        self, weights: Callable[[np.ndarray], np.ndarray], steps: int, lr: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gradient ascent from the uniform policy along Σ_k w_k g_k, a step `lr` long.

        Args:
            weights: Gramian [K, K] to task weights [K].

        Returns:
            Returns [steps + 1, K], and Gramians [steps, K, K].
        """
        theta = np.zeros((self.size**2, len(MOVES)))
        found, gramians = [self.returns(theta)], []
        for _ in range(steps):
            J = self.jacobian(theta)
            gramians.append(J @ J.T)
            d = weights(gramians[-1]) @ J
            theta = theta + lr * (d / max(np.linalg.norm(d), 1e-12)).reshape(theta.shape)
            found.append(self.returns(theta))
        return np.array(found), np.array(gramians)


def cosine_and_ratio(gramian: np.ndarray) -> tuple[float, float]:
    """Of two gradients: the cosine between them, and the longer over the shorter."""
    first, second = np.sqrt(gramian.diagonal())
    return float(gramian[0, 1] / (first * second)), float(max(first, second) / min(first, second))


def compare(worlds: Mapping[str, Gridworld], methods: Iterable[str], steps: int = 200, lr: float = 1.0) -> pd.DataFrame:
    """Every method in every world, with the package's options: a row each.

    Returns:
        Index: world and method. The cosine and the ratio of the gradients at the start, the share of the steps in which
        gradients conflict, of those where both have a length, and the return of each task in the end.
    """
    rows = []
    for name, world in worlds.items():
        for key in methods:
            smto = smtos.build(key, len(world.goals))
            weights = partial(weigh, smto, losses=np.ones(len(world.goals)))
            returns, gramians = world.train(weights, steps, lr)
            cosine, ratio = cosine_and_ratio(gramians[0])
            row = {"world": name, "method": label(key), "cosine": cosine, "ratio": ratio}
            lengths = np.sqrt(gramians.diagonal(axis1=1, axis2=2))
            told = (lengths > NOTHING * lengths[0]).all(1)  # below, the sign is that of what rounding leaves
            row |= {"conflict": float((gramians[told, 0, 1] < 0).mean())}
            rows.append(row | {f"return {k + 1}": value for k, value in enumerate(returns[-1])})
    return pd.DataFrame(rows).set_index(["world", "method"])
