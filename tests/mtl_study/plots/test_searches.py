"""Ways to find weights, and an SMTO against the sweep at several rates, by hand."""

import json

import pandas as pd
import pytest

from mtl_study.plots import searches


def test_ways_to_find_weights_are_compared_with_random_points():
    gains = {
        "equal": pd.Series({1: 0.0, 2: 2.0}),
        "population": pd.Series({1: 5.0}),
        "2 random points": pd.Series({1: 3.0, 2: 5.0}),
    }
    weights = {"equal": [0.5, 0.5], "population": [0.9, 0.1]}
    table = searches.found(
        gains, weights, {"population": 40, "2 random points": 20}, "2 random points", (2, 7), ["CL", "RR"]
    )
    assert table["of CL, RR"].tolist() == ["0.500, 0.500", "0.900, 0.100", "–"]
    assert table["epochs of search"].tolist() == [0, 40, 20] and table["Δm"].tolist() == [1, 5, 4]
    assert table["minus random points"].tolist()[:2] == [-3, 2] and pd.isna(table["minus random points"].iloc[2])
    assert "A population for each of 1 seed;" in table.attrs["caption"]
    assert "of 2 of the sweep's 7 at this learning rate" in table.attrs["caption"]


def test_random_points_by_hand(rows):
    """Of three points that validation puts in the order of their test Δm, two of three pairs have the best."""
    swept = pd.concat([rows("fixed", [(x, x), (2 * x, 2 * x)], {"w": x}) for x in (1.0, 2.0, 3.0)])
    assert searches.random_points(swept, 2).to_dict() == pytest.approx({1: (2 + 3 + 3) / 3, 2: 2 * (2 + 3 + 3) / 3})
    assert searches.random_points(swept, 9).to_dict() == pytest.approx({1: 3, 2: 6})


def test_placed_by_rate_has_a_row_for_each_rate_that_the_sweep_has(rows):
    points = [(float(k), -10.0 * k) for k in range(4)]
    swept = pd.concat(
        [rows("fixed", [(x - 0.1, y - 1), (x + 0.1, y + 1)], {"lr": 0.001, "w": x}) for x, y in points],
        ignore_index=True,
    )
    others = pd.concat(
        [rows("edm", [(gain, gain)] * 2, {"lr": lr}) for lr, gain in ((0.001, -50.0), (0.01, 50.0))]
        + [rows("unit_scal", [(0.0, 0.0)] * 2)],
        ignore_index=True,
    )
    table = searches.placed_by_rate(swept, others, ["CL", "RR"])
    assert table["learning rate"].tolist() == ["0.001"] and table.index.tolist() == ["EDM"]  # no sweep at 0.01
    assert table.reading.tolist() == ["inside"] and table["Δm"].tolist() == [-50]
    both = pd.concat([swept, rows("fixed", [(0.0, 0.0)] * 2, {"lr": 0.01, "w": 9})], ignore_index=True)
    assert searches.placed_by_rate(both, others, ["CL", "RR"]).reading.tolist() == ["inside", "beyond"]
    assert searches.placed_by_rate(swept, others[others.smto == "unit_scal"], ["CL", "RR"]).empty
    assert json.loads(others.config.iloc[0]) == {"lr": 0.001}
