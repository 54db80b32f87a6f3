"""Table 2, and whether fixed weights replace the method that they come from, by hand."""

import pandas as pd
import pytest

from mtl_study.paper import published
from mtl_study.plots import fixed_weights

CL_RR = "multimnist/CL_RR"


@pytest.fixture
def tables(rows):
    """The uniform loss at −20, EDM at −10 and −12, which validation prefers, IMTL at −8; fixed weights at −11."""
    selected = pd.concat(
        [
            rows("unit_scal", [(-20.0, -20.0)] * 2),
            rows("edm", [(-10.0, -10.0), (-12.0, -12.0)], {"lr": 0.002}).assign(val_delta_m=0.0),
            rows("imtl", [(-8.0, -8.0)] * 2),
        ],
        ignore_index=True,
    )
    return selected, rows("fixed", [(-11.0, -11.0), (-11.0, -11.0)], {"lr": 0.005})


def test_table_2_has_the_best_by_validation_the_papers_means_and_the_rates(tables):
    selected, fixed = tables
    found = fixed_weights.by_seed(selected, fixed, [1, 2])
    assert found[["unit_scal", "fixed", "best_smto"]].values.tolist() == [[-20, -11, -10], [-20, -11, -12]]
    assert found[["lr", "lr of best"]].values.tolist() == [["0.005", "0.002"]] * 2
    assert found.best.unique() == ["edm"] and found.seed.tolist() == [1, 2] and set(found.smto) == {"fixed"}
    table = fixed_weights.table_2(found, {CL_RR: selected}, {CL_RR: fixed}, 4)
    row, theirs = table.loc["CL_RR"], published.table("table_2").loc[CL_RR]
    assert row[["Unit. Scal.", "fixed weights", "best SMTO, Δm"]].tolist() == [-20, -11, -11]
    assert row[["paper Unit. Scal.", "paper fixed weights", "paper best SMTO, Δm"]].tolist() == [
        *theirs[["unit_scal", "fixed", "best_smto"]]
    ]
    assert row["best SMTO"] == "EDM" and row["± best SMTO, Δm"] == pytest.approx(2**0.5) and row.n == 2
    caption = table.attrs["caption"]
    assert "from left to right: 0.001, 0.005, 0.002 on CL_RR." in caption and "the best of 4 sets" in caption


def test_what_a_moving_average_remembers():
    assert "35 % on CL_RR" in fixed_weights.remembered({CL_RR: 11}) and "100 % on QM9" in fixed_weights.remembered(
        {"qm9": 1}
    )


def test_fixed_weights_replace_a_method_from_which_they_do_not_differ(rows, tables):
    """A difference of 0 and of 1 against a source that scatters by more than a point, and by ten."""
    fixed = tables[1]
    edm = tables[0][tables[0].smto == "edm"]
    assert fixed_weights.minus_source(fixed, edm).to_dict() == {1: -1, 2: 1}
    five = [(x, x) for x in (-10.0, 0.0, 10.0, 20.0, -20.0)]
    near = rows("fixed", [(x + 1.0 + 0.1 * x / 20, x + 1.0) for x, _ in five])
    table = fixed_weights.replaced({CL_RR: (near, rows("edm", five)), "qm9": (fixed[:0], edm)}, "Note.")
    assert table["fixed − source"]["CL_RR"] == pytest.approx(1, abs=0.1) and table.p["CL_RR"] < 0.001
    assert table["learning rates"].tolist() == ["0.001, source 0.001", "–, source 0.002"]
    assert table.n.tolist() == [5, 0] and table.attrs["caption"].endswith("equal. Note.")
