"""How a lead changes with a setting that both share."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mtl_study.analysis import slopes


def selected(values):
    """{smto: [Δm per seed]}"""
    rows = [("p", smto, smto, seed, v) for smto, vs in values.items() for seed, v in enumerate(vs)]
    return pd.DataFrame(rows, columns=["problem", "smto", "config", "seed", "delta_m"])


def test_slopes_by_hand():
    """The uniform loss falls with the batch; EDM's lead is 1, 3, 5 at 32, 64, 128: two points per doubling."""
    tables = {
        32: selected({"unit_scal": [0, 10], "edm": [1, 11]}),
        64: selected({"unit_scal": [-5, 5], "edm": [-2, 8]}),
        128: selected({"unit_scal": [-9, 1], "edm": [-4, math.nan]}),
    }
    leads = slopes.leads(tables)
    assert leads.set_index(["value", "seed"]).lead.to_dict() == {
        (32, 0): 1,
        (32, 1): 1,
        (64, 0): 3,
        (64, 1): 3,
        (128, 0): 5,
    }
    found = slopes.slopes(leads)
    assert found.seed.tolist() == [0]  # the other seed lacks a value
    assert found.slope.tolist() == pytest.approx([2])
    by_unit = slopes.slopes(leads[leads.value < 128], log=False)
    assert by_unit.slope.tolist() == pytest.approx([2 / 32] * 2)
    assert slopes.slopes(leads[leads.value == 32]).empty  # one value has no slope


def test_a_lead_that_does_not_change_is_called_growing_or_shrinking_in_5_percent():
    """1,000 studies of six seeds and four batches, with a seed's own level: within two standard errors of 5 %."""
    rng, x = np.random.default_rng(0), np.log2([32, 64, 128, 256])
    leads = rng.normal(3, 2, (6000, 1)) + rng.normal(0, 1, (6000, 4))
    slope = np.polyfit(x, leads.T, 1)[0].reshape(1000, 6)
    missed = (stats.ttest_1samp(slope, 0, axis=1).pvalue < 0.05).mean()
    assert abs(missed - 0.05) < 2 * math.sqrt(0.05 * 0.95 / 1000)
    rows = [("edm", 0, value, lead) for value, lead in zip(2**x, leads[0], strict=True)]
    table = pd.DataFrame(rows, columns=["smto", "seed", "value", "lead"])
    assert slopes.slopes(table).slope[0] == pytest.approx(slope[0, 0])


def test_equal_steps_in_whole_epochs():
    """12,000 pairs: 40 epochs of 47 steps are 1,880; of 188 steps it takes 10, of 94 it takes 20, of 24 it takes 78."""
    assert slopes.whole_epochs(40, 256, 64, 12_000) == (10, 1880)
    assert slopes.whole_epochs(40, 256, 128, 12_000) == (20, 1880)
    assert slopes.whole_epochs(40, 256, 512, 12_000) == (78, 1872)
    assert slopes.whole_epochs(40, 256, 256, 12_000) == (40, 1880)
    with pytest.raises(ValueError, match="less than half of one epoch"):
        slopes.whole_epochs(1, 256, 8, 12_000)
