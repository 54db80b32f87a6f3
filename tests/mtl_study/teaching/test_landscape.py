"""The landscape is the published one, its methods are those of the package, and walks do not feel each other."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from mtl_core import smtos
from mtl_study.teaching import landscape, two_tasks
from mtl_study.teaching.landscape import METHODS, RATES, plan, walk

RNG = np.random.default_rng(0)
POINTS = RNG.uniform(-10, 10, (500, 2))


def test_losses_and_gradients_are_the_published_ones():
    assert_allclose(landscape.losses(POINTS), by_torch(torch.tensor(POINTS)).numpy(), rtol=1e-12)
    jacobian = torch.autograd.functional.jacobian(by_torch, torch.tensor(POINTS[:40]))
    for i in range(40):
        assert_allclose(landscape.gradients(POINTS[i]), jacobian[i, :, i].numpy(), rtol=1e-9, atol=1e-12)


def by_torch(x):
    """The two losses as their source has them, term by term, outside the clamp."""
    x1, x2 = x[:, 0], x[:, 1]
    u = (0.5 * (-x1 - 7) - torch.tanh(-x2)).abs().log() + 6
    w = (0.5 * (-x1 + 3) + torch.tanh(-x2) + 2).abs().log() + 6
    p = ((-x1 + 7) ** 2 + 0.1 * (-x2 - 8) ** 2) / 10 - 20
    q = ((-x1 - 7) ** 2 + 0.1 * (-x2 - 8) ** 2) / 10 - 20
    c1, c2 = torch.tanh(x2 * 0.5).clamp(min=0), torch.tanh(x2 * -0.5).clamp(min=0)
    return torch.stack([u * c1 + p * c2, w * c1 + q * c2], dim=-1)


def test_the_mean_is_least_at_the_known_point():
    best = np.array(landscape.BEST)
    assert_allclose(landscape.losses(best).mean(), landscape.LOWEST, atol=1e-4)
    assert_allclose(landscape.gradients(best).mean(0), 0, atol=1e-4)
    assert landscape.losses(POINTS).mean(-1).min() > landscape.LOWEST


def test_inside_a_clamped_valley_the_log_pulls_nowhere():
    x2 = 3.0
    x1 = -7 + 2 * np.tanh(x2)  # where the first valley's argument is 0
    (g, _) = landscape.gradients(np.array([x1, x2]))
    assert g[0] == 0.0  # its bowl is switched off above, and so is the logarithm


@pytest.mark.parametrize(
    ("ours", "core"),
    [
        ("unit_scal", None),
        ("pcgrad", smtos.build("pcgrad", 2, order="index")),
        ("cagrad", smtos.build("cagrad", 2, c=0.5, rescale=2)),
    ],
)
def test_methods_are_those_of_the_package(ours, core):
    """CAGrad without the released 1e-4, divided by 1 + c as in the toy; gradients short and long, alike and not."""
    G = landscape.gradients(POINTS) * 10 ** RNG.uniform(-3, 3, (len(POINTS), 2, 1))
    weights = METHODS[ours](G) if ours != "cagrad" else two_tasks.cagrad(G, 0.5, 0.0)
    for one, found in zip(G, weights, strict=True):
        expected = [0.5, 0.5] if core is None else core.solve(one @ one.T)
        scale = np.abs(expected @ one).max()
        assert_allclose(found @ one, expected @ one, atol=1e-5 * scale)


def test_released_cagrad_shrinks_what_is_short():
    """Gradients of 1e-3: what is added to the lengths is more than they are, and the pull halves to c/2 = ¼."""
    G = 1e-3 * np.array([[[1.0, 0.2], [-1.0, 0.2]]])
    assert_allclose(two_tasks.cagrad(G)[0], (0.5 + 0.25 / 2) / 1.5, rtol=0.01)
    assert_allclose(two_tasks.cagrad(G, 0.5, 0.0)[0], (0.5 + 0.5 / 2) / 1.5)


def test_walks_do_not_feel_each_other_and_end_where_they_arrive():
    everything = plan(["gd", "adam"], METHODS, [1.0, 0.5])
    together = walk(everything, 120, keep=[60])
    for i in (0, 7, 20, 35):
        alone = walk(everything.iloc[[i]], 120, keep=[60])
        assert_array_equal(alone.paths[:, 0], together.paths[:, i])
        assert_array_equal(alone.plan.steps, together.plan.steps.iloc[[i]])
    arrived = together.plan.steps.notna().to_numpy()
    means = landscape.losses(together.paths[-1]).mean(-1)
    assert_array_equal(means < landscape.REACHED, arrived) and 0 < arrived.sum() < len(arrived)


def test_adam_is_torchs():
    """In both precisions, step by step."""
    for precision, dtype, rounding in (("float32", torch.float32, 3e-6), ("float64", torch.float64, 1e-12)):
        p = torch.nn.Parameter(torch.tensor(landscape.STARTS[0], dtype=dtype))
        adam = torch.optim.Adam([p], lr=0.05)
        rows = plan(["adam"], ["unit_scal"], [0.05]).iloc[[0]]
        for _ in range(15):
            (g,) = landscape.gradients(p.detach().numpy()[None]).mean(1)
            p.grad = torch.tensor(g)
            adam.step()
        assert_allclose(walk(rows, 15, precision).paths[-1, 0], p.detach().numpy(), rtol=rounding)


def test_the_large_steps_of_adam_arrive_as_published():
    """Uniform loss and CAGrad at step sizes of ½ and above, in float32; not all three starts arrive in 40 steps."""
    table = walk(plan(["adam"], ["unit_scal", "cagrad"], RATES[:4]), 120, "float32").table()
    assert_array_equal(table.loc[("adam", "unit_scal")], [26, 37, 22, 58])
    assert_array_equal(table.loc[("adam", "cagrad")], [27, 30, 32, 106])
    cut = walk(plan(["adam"], ["cagrad"], RATES[:4]), 40, "float32").table()
    assert_array_equal(cut.isna().to_numpy()[0], [False, False, False, True])
