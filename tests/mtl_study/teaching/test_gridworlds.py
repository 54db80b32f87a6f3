"""Returns and gradients of a gridworld are exact."""

import numpy as np
from numpy.testing import assert_allclose

from mtl_core import smtos
from mtl_study.teaching.gridworlds import Gridworld, compare, cosine_and_ratio

RNG = np.random.default_rng(3)


def test_returns_by_hand():
    """Two by two, always up: from below one enters the goal once, and a wall then holds one on it for ever."""
    up = np.tile([50.0, 0, 0, 0], (4, 1))
    world = Gridworld(2, goals=((0, 0), (0, 1)), rewards=(1.0, 3.0), start=(1, 0), gamma=0.5)
    assert_allclose(world.returns(up), [2, 0], atol=1e-12)
    assert_allclose(Gridworld(2, ((0, 0), (0, 1)), (1.0, 3.0), None, 0.5).returns(up), [1, 3], atol=1e-12)


def test_gradients_are_those_of_the_returns():
    world = Gridworld(3, goals=((0, 0), (2, 1)), rewards=(1.0, 0.3), start=(1, 1))
    theta, step = RNG.normal(size=(9, 4)), 1e-5
    J = world.jacobian(theta)
    for i in range(0, 36, 5):
        d = np.zeros(36)
        d[i] = step
        change = world.returns(theta + d.reshape(9, 4)) - world.returns(theta - d.reshape(9, 4))
        assert_allclose(J[:, i], change / (2 * step), atol=1e-8)


def test_a_reward_is_a_unit():
    """Ten times the reward: the same direction, ten times as long."""
    usual, more = (Gridworld(3, ((0, 0), (2, 2)), rewards) for rewards in ((1.0, 1.0), (1.0, 10.0)))
    theta = RNG.normal(size=(9, 4))
    first, second = usual.jacobian(theta), more.jacobian(theta)
    assert_allclose(second, first * [[1], [10]])
    cosines, _ = zip(*(cosine_and_ratio(J @ J.T) for J in (first, second)), strict=True)
    assert_allclose(*cosines)


def test_opposite_corners_conflict_in_balance_and_a_goal_on_the_way_does_not():
    corners, on_the_way = Gridworld(5, ((0, 0), (4, 4))), Gridworld(5, ((0, 2), (0, 4)), start=(0, 0))
    J, K = corners.jacobian(np.zeros((25, 4))), on_the_way.jacobian(np.zeros((25, 4)))
    assert cosine_and_ratio(J @ J.T)[0] < 0 and abs(cosine_and_ratio(J @ J.T)[1] - 1) < 1e-9
    assert cosine_and_ratio(K @ K.T)[0] > 0.3 and cosine_and_ratio(K @ K.T)[1] > 2


def test_training_climbs_and_keeps_its_gramians():
    world = Gridworld(3, ((0, 0), (2, 2)))
    returns, gramians = world.train(smtos.build("cagrad", 2, c=0.5).solve, 20, 0.5)
    assert returns.shape == (21, 2) and gramians.shape == (20, 2, 2)
    assert (returns[-1] > returns[0]).all()
    J = world.jacobian(np.zeros((9, 4)))
    assert_allclose(gramians[0], J @ J.T)


def test_conflict_in_balance_serves_both_and_imbalance_one_in_whatever_unit():
    """What notebook 08 says of its three worlds. Nash-MTL does not see how large a reward is."""
    close = {"goals": ((0, 1), (0, 4)), "start": (0, 0)}
    worlds = {"corners": Gridworld(5, ((0, 0), (4, 4)))}
    worlds |= {"near": Gridworld(5, **close), "rich": Gridworld(5, **close, rewards=(1.0, 5.0))}
    table = compare(worlds, ["unit_scal", "cagrad", "imgrad", "nash_mtl"], steps=100)
    assert list(table.index.get_level_values("method")) == ["Unit. Scal.", "CAGrad", "IMGrad", "Nash-MTL"] * 3
    corners, near, rich = (table.loc[name] for name in worlds)
    assert (corners.cosine < 0).all() and (corners.ratio < 1.01).all() and (rich.ratio < 1.5).all()
    assert (near.cosine > 0).all() and (near.ratio > 4).all()
    first, second = "return 1", "return 2"
    assert (corners[[first, second]] > 3.5).all(axis=None)
    assert (near[second][:3] < 0.1).all() and (rich[first][:3] <= 1.1).all() and (near[first][:3] > 9).all()
    assert near[second]["Nash-MTL"] > 2
    assert_allclose(rich.loc["Nash-MTL", [first, second]], near.loc["Nash-MTL", [first, second]] * [1, 5], rtol=1e-3)
