"""Rates at equal terms: validation chooses, seed by seed, and nothing is best where a seed left nothing."""

import math

import pandas as pd
import pytest

from mtl_core import problems
from mtl_study.analysis import terms

SEEDS = (1, 2)


def table(of):
    """Gains from (batch, method, rate) → (validation, test), each one number for both seeds or one per seed."""
    rows = []
    for (batch, smto, lr), both in of.items():
        for place, seed in enumerate(SEEDS):
            val, test = (values[place] if isinstance(values, tuple) else values for values in both)
            rows.append((batch, smto, lr, seed, val, test))
    return pd.DataFrame(rows, columns=["batch", "smto", "lr", "seed", "val_delta_m", "delta_m"])


GAINS = table(
    {
        (256, "unit_scal", 0.001): (-8, -9),
        (256, "unit_scal", 0.002): (-5, (-6, -8)),
        (256, "unit_scal", 0.004): (-7, -1),  # better on test, which does not count
        (256, "edm", 0.001): (-3, (-4, -5)),
        (256, "edm", 0.002): (-4, -3),
        (256, "edm", 0.004): ((0, math.nan), 0),  # the best, but a seed left nothing
    }
)


def test_the_best_rate_is_that_of_validation_where_every_seed_has_a_value():
    found = terms.rates(GAINS).set_index("smto")
    assert found.lr.to_dict() == {"unit_scal": 0.002, "edm": 0.001}
    assert found.inside.to_dict() == {"unit_scal": True, "edm": False}
    assert terms.rates(GAINS.assign(val_delta_m=math.nan)).empty


def test_leads_are_paired_at_each_ones_best_rate_and_at_one_for_all():
    own = terms.leads(GAINS, terms.rates(GAINS))
    assert own[["smto", "seed", "lead"]].to_numpy().tolist() == [["edm", 1, 2], ["edm", 2, 3]]
    one = terms.one_rate(GAINS)
    assert one.lr.tolist() == [0.002, 0.002]
    assert terms.leads(GAINS, one).lead.tolist() == [3, 5]


def test_one_rate_is_one_that_every_method_has():
    without = GAINS[~((GAINS.smto == "edm") & (GAINS.lr == 0.002))]
    assert set(terms.one_rate(without).lr) == {0.004}  # of 0.001 and 0.004, by the uniform loss's validation
    assert terms.one_rate(GAINS[:0]).empty and terms.leads(GAINS[:0], terms.rates(GAINS[:0])).empty


def test_with_several_batches_each_method_may_have_its_own():
    more = table({(64, "unit_scal", 0.001): (-4, -2), (64, "edm", 0.001): (-6, 3)})
    both = pd.concat([GAINS, more], ignore_index=True)
    places = terms.best_places(both).set_index("smto")
    assert places[["batch", "lr"]].T.to_dict("list") == {"unit_scal": [64, 0.001], "edm": [256, 0.001]}
    assert terms.leads(both, terms.best_places(both)).lead.tolist() == [-2, -3]
    by_batch = terms.leads(both, terms.rates(both)).groupby("batch").lead.mean()
    assert by_batch.to_dict() == {64: 5, 256: 2.5}


def test_equal_epochs_and_equal_steps_by_hand():
    """12,000 pictures: 188 steps an epoch at 64, 24 at 512; the least is 1,880 steps."""
    sizes = [(64, 20), (128, 20), (256, 40), (512, 80)]
    assert terms.equal_epochs(sizes) == {64: 20, 128: 20, 256: 20, 512: 20}
    assert terms.equal_steps(sizes, 12000) == {64: 10, 128: 20, 256: 40, 512: 78}
    assert terms.equal_epochs([]) == terms.equal_steps([], 0) == {}


@pytest.mark.parametrize(("reference", "at_128"), [(None, 12.5), (64, 80.0)])
def test_gains_read_the_first_epochs_over_single_tasks_of_the_same_length(make_run, reference, at_128):
    """After one epoch the accuracy of CL alone is 0.5 at a batch of 64 and 0.8 at 128; what came later is not read. The
    error of RR is 0.5 everywhere."""

    def run(accuracies, batch, **given):
        tasks = given.pop("tasks", ("CL", "RR"))
        metrics = [{task: {"CL": a, "RR": 0.5}[task] for task in tasks} for a in accuracies]
        return make_run(metrics, metrics, batch_size=batch, **given)

    held = {
        (batch, 2): (
            [run([0.9, 0.1], batch, smto="edm")],
            [
                run([alone, 0.99], batch, problem="multimnist/CL", tasks=("CL",)),
                run([alone, 0.99], batch, problem="multimnist/RR", tasks=("RR",)),
            ],
        )
        for batch, alone in ((64, 0.5), (128, 0.8))
    }
    tasks = problems.get("multimnist/CL_RR").tasks
    found = terms.gains(held, tasks, {64: 1, 128: 1}, reference).set_index("batch")
    assert found.CL.to_dict() == pytest.approx({64: 80.0, 128: at_128})
    assert found.RR.tolist() == [0, 0] and found.epochs.tolist() == [1, 1]
    assert terms.gains({}, tasks).empty
