"""What steps, ratios and gates say, on numbers by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from mtl_study.analysis import gates, ratios, strides
from mtl_study.experiments.probes import Look
from mtl_study.experiments.strides import Stride

J = torch.tensor([[2.0, 0.0], [-1.0, 1.0]])


def stride(asked, moved):
    return Stride.of(torch.ones(2), J, torch.tensor([asked, moved]), epoch=0, step=0)


def test_a_stride_by_hand():
    """(1, 0) hurts the second task; (½, ½) hurts neither: g·d = 1 and 0. Their cosine is √½."""
    found = strides.of_stride(stride([0.5, 0.5], [1.0, 0.0]))
    assert (found["asked"], found["moved"]) == (0, 1)
    assert found["share"] == pytest.approx(np.sqrt(0.5), abs=1e-4)
    assert found["cosine"] == pytest.approx(-np.sqrt(0.5), abs=1e-4)
    assert found["ratio"] == pytest.approx(np.sqrt(2), abs=1e-4)
    assert found["log_sum"] == pytest.approx(np.log(np.sqrt(2)), abs=1e-4)  # |(1, 1)|


def test_a_direction_that_only_rounding_turns_does_not_fail():
    """The right angle is no failure, in single precision either."""
    found = strides.of_stride(stride([1.0, 1.0 - 1e-7], [1.0, 0.999]))
    assert (found["asked"], found["moved"]) == (0, 1)


def test_late_is_the_last_fifth_of_the_steps_and_not_of_the_epochs():
    """Of a hundred steps those from the eightieth on, in the middle of the last of two epochs. The sums there are √2
    times 4 and 9, in geometric mean √2 · 6; all that came before is far from it."""
    steps, lengths = [0, 50, 79, 80, 99], [100.0, 100.0, 100.0, 4.0, 9.0]
    directions = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    looks = [
        Stride.of(torch.ones(2), c * J, directions, epoch=s // 50, step=s % 50)
        for s, c in zip(steps, lengths, strict=True)
    ]
    history = [SimpleNamespace(train_losses=[1.0, 0.5])] * 2
    base = SimpleNamespace(problem="p", smto="mgda", seed=1, epochs=2)
    config = SimpleNamespace(base=base, steps=set(steps))
    record = SimpleNamespace(config=config, strides=looks, history=history, seconds=1.0, finished=True)
    (row,) = strides.per_run([record]).to_dict("records")
    assert row["sum"] == pytest.approx(np.sqrt(2) * 6, rel=1e-4)
    assert row["gap"] == pytest.approx(0.5) and row["smto"] == "mgda"


def test_the_gap_is_that_of_the_last_third_of_the_epochs():
    """Two of six; in the four before, one task is far behind."""
    looks = [stride([1.0, 1.0], [1.0, 0.0])]
    losses = [[1.0, 9.0]] * 4 + [[0.5, 0.7], [0.2, 0.6]]  # gaps 8, 8, 8, 8, 0.2, 0.4
    base = SimpleNamespace(problem="p", smto="mgda", seed=1, epochs=6)
    history = [SimpleNamespace(train_losses=row) for row in losses]
    config = SimpleNamespace(base=base, steps={0})
    record = SimpleNamespace(config=config, strides=looks, history=history, seconds=1.0, finished=True)
    assert strides.per_run([record]).gap.item() == pytest.approx(0.3)


def test_correlations_over_methods():
    """Δm falls with the gap but for MGDA, the most even and the worst."""
    rows = [("mgda", 0.0, -9.0), ("a", 0.1, 3.0), ("b", 0.2, 2.0), ("c", 0.3, 1.0)]
    table = pd.DataFrame(rows, columns=["smto", "gap", "delta_m"]).assign(problem="p", seed=1, seconds=2.0)
    (row,) = strides.over_methods(table.assign(cosine=table.delta_m, share=1.0, failures=0.0)).itertuples()
    found = row._asdict()
    assert row.methods == 4 and row.seconds == 8.0 and row.smto == "unit_scal"
    values = strides.over_methods(table.assign(cosine=table.delta_m, share=1.0, failures=0.0)).iloc[0]
    assert values["rho gap"] == pytest.approx(0.2) and values["rest gap"] == pytest.approx(-1)
    assert values["rho cosine"] == pytest.approx(1) and found["methods"] == 4
    assert np.isnan(values["better gap"])  # of two methods there is none


def test_the_better_half_of_the_methods_is_compared_by_itself():
    """Over all, Δm falls with the gap; among the three best it rises. Which they are depends on the mean over seeds."""
    rows = [("a", 0.1, 7.0), ("b", 0.2, 8.0), ("c", 0.3, 9.0), ("d", 0.7, 3.0), ("e", 0.8, 2.0), ("f", 0.9, 1.0)]
    once = pd.DataFrame(rows, columns=["smto", "gap", "delta_m"]).assign(problem="p", seconds=2.0)
    again = once.assign(seed=2, delta_m=once.delta_m.replace({9.0: 2.5}))  # c is worse than d here
    table = pd.concat([once.assign(seed=1), again]).assign(cosine=0.0, share=1.0, failures=0.0)
    found = strides.over_methods(table)
    assert (found["rho gap"] < -0.5).all() and found["better gap"].tolist() == pytest.approx([1, -0.5])


def looks(lengths, cosine=-0.5):
    """At two gradients of these lengths [L, 2]."""
    none = np.empty((0, 0))
    shape = np.array([[1.0, cosine], [cosine, 1.0]])
    eye = np.eye(4).reshape(2, 2, 2, 2)
    return [Look.of(eye, shape * np.outer(pair, pair), none, epoch=0, step=i) for i, pair in enumerate(lengths)]


def test_a_ratio_and_its_units():
    """4 : 1 and 1 : 1; the last loss times 10 makes them 10 : 4 and 10 : 1. The best unit leaves 2, twice."""
    table = ratios.of_run(looks([(4.0, 1.0), (1.0, 1.0)]), [10.0])
    assert table.ratio.tolist() == pytest.approx([4, 1], rel=1e-4)
    assert table["times 10"].tolist() == pytest.approx([2.5, 10], rel=1e-4)
    assert table.left.tolist() == pytest.approx([2, 2], rel=1e-4) and table.conflict.tolist() == [1, 1]
    assert len(ratios.of_run(looks([(4.0, 1.0), (0.0, 1.0)], 0.5), [10.0])) == 1
    skewed = ratios.of_run(looks([(1.0, 1.0), (1.0, 1.0), (8.0, 1.0)]), [10.0])  # the mean logarithm is that of 2 : 1
    assert skewed.left.tolist() == pytest.approx([2, 2, 4], rel=1e-4)


def test_a_unit_of_a_loss_leaves_what_is_left_alone():
    lengths = np.exp(np.random.default_rng(0).normal(size=(30, 2)))
    one, other = (ratios.of_run(looks(lengths * unit), [1.0]) for unit in ([1.0, 1.0], [1.0, 50.0]))
    assert other.ratio.median() > 5 * one.ratio.median()
    assert other.left.tolist() == pytest.approx(one.left.tolist(), rel=1e-3)


def selected(rows, options):
    """As `delta.selected` has it: smto, seed, Δm, validation Δm, options."""
    found = pd.DataFrame(rows, columns=["smto", "seed", "delta_m", "val_delta_m"]).assign(problem="p", seconds=1.0)
    texts = [str(one).replace("'", '"') for one in options]
    return found.assign(config=[f'{{"options":{text}}}' for text in texts])


def test_gates_by_duty():
    rows = [("gated", seed, 10.0 * seed + i, 0.0) for seed in (1, 2) for i in range(3)]
    table = selected(rows, [{**by, "duty": 0.3} for _ in (1, 2) for by in ({}, {"by": "cosine"}, {"by": "random"})])
    found = gates.by_duty(table, pd.DataFrame({"seed": [2, 3], "delta_m": [7.0, 8.0]}))
    assert found.always.isna().tolist() == [True, False] and found.always[1] == 7
    assert found[["ratio 0.3", "cosine 0.3", "random 0.3"]].to_numpy().tolist() == [[10, 11, 12], [20, 21, 22]]
    assert set(found.smto) == {"gated"} and found.seconds.tolist() == [3, 3]


def test_equal_c_and_the_best_c():
    """CAGrad is best at its default by validation, IMGrad at 0.2: the differences are 1 and 2 at equal c, and 6 at the
    best."""
    rows = [(smto, s, 10.0 * s + d, v) for s in (1, 2) for smto, d, v in SETTINGS]
    table = gates.with_radius(selected(rows, [{}, {"c": 0.2}, {"c": 0.2}, {"c": 0.5}] * 2))
    found = gates.at_radii(table).set_index(["smto", "seed"])
    assert found.c.groupby("smto").first().to_dict() == {"cagrad": 0.5, "imgrad": 0.2}
    assert found.equal.to_dict()["cagrad", 1] == 13 and found.best.to_dict()["imgrad", 2] == 27
    apart = gates.apart(table).groupby("c").difference.mean()
    assert apart.to_dict() == {0.2: 1, 0.5: 2, gates.BEST: 7}


SETTINGS = [("cagrad", 0.0, 9.0), ("cagrad", 6.0, 1.0), ("imgrad", 7.0, 5.0), ("imgrad", 2.0, 2.0)]
