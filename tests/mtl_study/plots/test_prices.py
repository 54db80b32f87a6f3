"""What a sweep reaches, what SMTOs add, and the answer, by hand."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from mtl_study import look
from mtl_study.plots import canvas, prices

CL_RR, NAMES = "multimnist/CL_RR", {"multimnist/CL_RR": ["CL", "RR"]}


def test_a_sweep_reaches_all_of_a_convex_front_and_the_ends_of_another():
    """With L = x² the share w leads to θ = 2w − 1; with a bump of losses no minimum is near the middle."""
    shares = np.linspace(0.02, 0.98, 25)
    found, front = prices.minima(np.square, shares)
    assert np.sqrt(found[:, 0]) == pytest.approx(1 - (2 * shares - 1), abs=0.002) and len(front) == 2001
    found, _ = prices.minima(lambda x: 1 - np.exp(-(x**2)), shares)
    assert np.abs(found[:, 0] - found[:, 1]).min() > 0.5
    convex, other = prices.convex()
    for ax, expected in ((convex, np.square), (other, lambda x: 1 - np.exp(-(x**2)))):
        grey, blue = ax.lines
        assert to_rgb(grey.get_color()) == to_rgb(look.FAINT) and blue.get_marker() == "o"
        assert np.column_stack(blue.get_data()) == pytest.approx(prices.minima(expected, shares)[0])


def test_the_area_of_the_picture_is_that_of_its_caption():
    """Columns of heights 4, 3 and 1, as wide as 1, 1 and 2; the fourth point is dominated."""
    ax = prices.hypervolume()
    assert "dominate an area of 9 above" in canvas.figure_of(ax).get_label() and len(ax.collections) == 3


def test_contributions_name_the_one_that_adds_most():
    added = pd.DataFrame(
        [
            (smto, seed, value)
            for smto, value in (("all", 9.0), ("edm", 7.0), ("famo", 1.0), ("fixed", 2.0))
            for seed in (1, 2)
        ],
        columns=["smto", "seed", "added"],
    )
    alone = added[added.smto.isin(["all", "fixed"])]
    table = prices.contributions({(CL_RR, "test metric"): added, (CL_RR, "training loss"): alone})
    assert table.index.tolist() == ["CL_RR, test metric", "CL_RR, training loss"]
    first, second = table.which
    assert (
        (first, second) == ("EDM", "–")
        and table["the most of one"].iloc[0] == 7
        and table["a sweep point"].iloc[0] == 2
    )
    assert table["all SMTOs"].tolist() == [9, 9] and table.n.tolist() == [2, 2]


def test_the_answer_pays_for_all_that_were_tried(rows):
    """Validation prefers EDM, at −3; the sweep has −10 and −2, so two runs reach it and one does not."""
    gains = pd.concat(
        [
            rows("unit_scal", [(-10.0, -10.0), (-10.2, -10.0)]),
            rows("fixed", [(-2.0, -2.0), (-2.2, -2.0)], {"lr": 0.001, "weights": 1}),
            rows("edm", [(-3.0, -3.0), (-3.0, -3.0)]),
            rows("imtl", [(-4.0, -4.0), (-4.0, -4.0)]),
        ],
        ignore_index=True,
    )
    price = {CL_RR: {"edm": 1.5, "imtl": 1.1, "fixed": 1.0, "unit_scal": 1.0}}
    found = prices.answers({CL_RR: gains}, NAMES, price)
    row, gap = found.loc["CL_RR"], found.attrs["gaps"]["CL_RR"]
    assert gap.low < gap.mean == pytest.approx(row["SMTO − sweep"]) and gap.n == 2
    assert (row["best SMTO"], row["its price"], row["its Δm"], row["runs of the sweep"]) == ("EDM", 1.5, -3, 2)
    assert row["price of trying all"] == pytest.approx(2.6) and row["runs that reach it"] == "2"
    assert row["SMTO − sweep"] == pytest.approx(-3 + 2.05) and row["Δm of its best"] == pytest.approx(-2.05)
    flattered = gains.assign(delta_m=gains.delta_m.where(gains.smto != "imtl", -1.0))  # on test data alone
    assert prices.answers({CL_RR: flattered}, NAMES, price).loc["CL_RR", "best SMTO"] == "EDM"
    poor = prices.answers({CL_RR: gains.assign(delta_m=gains.delta_m.where(gains.smto != "fixed", -9.0))}, NAMES, price)
    assert poor["runs that reach it"]["CL_RR"] == "–"


def test_an_epochs_price_is_a_geometric_mean_of_pairs():
    """1.9 and 2.1 times as long as the uniform loss at the same seed; where there is one seed there is no interval."""
    seconds = {"unit_scal": [1.0, 10.0], "cagrad": [1.9, 21.0], "famo": [1.5, np.nan]}
    rows = [(smto, seed, s) for smto, two in seconds.items() for seed, s in enumerate(two, 1)]
    table = prices.paces(pd.DataFrame(rows, columns=["smto", "seed", "seconds_per_epoch"]))
    assert list(table.index) == ["CAGrad", "FAMO"] and list(table.reads) == ["parameters", "losses"]
    assert table["× uniform loss"].tolist() == pytest.approx([np.sqrt(1.9 * 2.1), 1.5]) and list(table.seeds) == [2, 1]
    assert table["95 % interval"].tolist() == ["1.06 to 3.77", "–"]  # t is 12.7, the error of the logarithm 0.05
