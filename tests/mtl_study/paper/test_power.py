"""The rules that replaced others: what ten seeds find with each, where seeds scatter as in the shipped records, and how
often it errs; and what its predecessor made of the same worlds."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mtl_study.analysis import inference
from mtl_study.paper import claims, published, rules
from mtl_study.paper.claims import NOT_REPRODUCED, OPEN, REPRODUCED

PARTS = dict(found for claim in rules.names() for found in rules.named_parts(claim))
CL_RR, CL_CR, RL_RR = "multimnist/CL_RR", "multimnist/CL_CR", "multimnist/RL_RR"

#: the rule, the standard deviation between seeds of each comparison, and the number in a world that shows the claim and
#: in one that shows its contrary
REPLACED = {
    "C10c": ({CL_CR: 0.07, RL_RR: 0.07}, 0.2, 0.0),
    "Xin-optimism": ({CL_RR: 0.3}, 1.0, 0.0),
    "Royer-population a": ({CL_RR: 2.5}, 6.0, 0.0),
    "Xin-static b": ({CL_RR: 0.6}, 0.0, -4.0),
    "Xin-front a": ({CL_RR: 0.9, CL_CR: 0.7}, 0.0, 2.0),
}


def world(part, sds, number, seeds, rng):
    """Runs whose number has this mean, and this standard deviation at each problem; what is subtracted is 0. Where
    methods are taken together a seed moves all of them."""
    (column,) = part.rule.value
    rows = [
        (problem, smto, seed, number + luck)
        for problem, sd in sds.items()
        for seed, luck in enumerate(rng.normal(0, sd, seeds))
        for smto in rules.expand(part.rule.of[problem])
    ]
    table = pd.DataFrame(rows, columns=["problem", "smto", "seed", column])
    if not (part.rule.minus_smto or part.rule.minus_problem):
        return table
    other = {"problem": part.rule.minus_problem, "smto": part.rule.minus_smto}
    return pd.concat([table, table.assign(**{k: v for k, v in other.items() if v}, **{column: 0.0}).drop_duplicates()])


def share_of(verdict, part, tables):
    return np.mean([claims.find(part, table).verdict == verdict for table in tables])


@pytest.mark.slow
@pytest.mark.parametrize("id_", REPLACED)
def test_ten_seeds_decide_in_four_of_five_worlds_and_err_as_rarely_as_promised(id_):
    part, (sds, claimed, contrary), worlds = PARTS[id_], REPLACED[id_], 150
    rng = np.random.default_rng(0)
    least = stats.binom.ppf(0.001, worlds, 0.8) / worlds
    assert share_of(REPRODUCED, part, (world(part, sds, claimed, 10, rng) for _ in range(worlds))) >= least
    assert share_of(NOT_REPRODUCED, part, (world(part, sds, contrary, 10, rng) for _ in range(worlds))) >= least
    line = part.rule.above if np.isfinite(part.rule.above) else part.rule.below
    tables = [world(part, sds, line, 10, rng) for _ in range(worlds)]
    most = stats.binom.isf(0.001, worlds, 0.025) / worlds
    assert share_of(REPRODUCED, part, tables) <= most and share_of(NOT_REPRODUCED, part, tables) <= most


@pytest.mark.slow
def test_a_line_at_no_difference_is_never_settled_where_there_is_none():
    """Before: a difference of 0 compared with a line at 0 stayed open in 95 % of the worlds, with ten seeds as with a
    hundred; against a line at what is worth knowing it is decided."""
    rng = np.random.default_rng(0)
    for seeds in (10, 100):
        intervals = [inference.t_interval(rng.normal(0, 2.5, seeds)) for _ in range(400)]
        assert np.mean([i.low <= 0 < i.high for i in intervals]) > 0.92
    part, sds = PARTS["Royer-population a"], REPLACED["Royer-population a"][0]
    assert share_of(NOT_REPRODUCED, part, (world(part, sds, 0.0, 10, rng) for _ in range(100))) > 0.8


def qm9(part, lead, rng, seeds=10):
    """Seven methods on QM9 that scatter by 40 points, six of them `lead` above the uniform loss, which has a very bad
    seed now and then."""
    smtos = rules.expand(part.rule.of["qm9"])
    us = rng.normal(0, 40, seeds) - 300 * (rng.random(seeds) < 0.1)
    rows = [("qm9", "unit_scal", seed, value) for seed, value in enumerate(us)]
    rows += [("qm9", smto, seed, value) for smto in smtos for seed, value in enumerate(rng.normal(lead, 40, seeds))]
    return pd.DataFrame(rows, columns=["problem", "smto", "seed", "delta_m"])


@pytest.mark.slow
def test_most_methods_are_ahead_is_found_where_five_of_six_are():
    """A lead of 55 points puts five of six ahead. Before, "at least 5 of 6" by intervals in points was mostly open."""
    part, rng, worlds = PARTS["C7b"], np.random.default_rng(0), 100
    tables = [qm9(part, 55, rng) for _ in range(worlds)]
    assert share_of(REPRODUCED, part, tables) > 0.8
    old = part.model_copy(update={"rule": part.rule.model_copy(update={"together": "", "above": 0.0, "at_least": 5})})
    assert share_of(OPEN, old, tables) > 0.5
    alike = [qm9(part, 0, rng).assign(delta_m=lambda t: rng.normal(0, 40, len(t))) for _ in range(worlds)]
    assert share_of(REPRODUCED, part, alike) <= stats.binom.isf(0.001, worlds, 0.025) / worlds


def test_a_random_order_within_the_groups_no_longer_passes_for_the_papers():
    """The eight kept methods first, each group in random order. Before: Spearman's ρ over all 16, 0.75 on average, was
    compared with 0.5."""
    rng, theirs = np.random.default_rng(0), published.table("table_3").delta_m
    groups = [rules.expand(group) for group in PARTS["C1b"].rule.groups]
    rows, overall = [], []
    for seed in range(10):
        order = [smto for group in groups for smto in rng.permutation(group)]
        values = pd.Series(-np.arange(16.0), order)
        overall.append(inference.rank_correlation(values[theirs.index], theirs))
        rows += [(CL_RR, smto, seed, value) for smto, value in values.items()]
    assert np.mean(overall) > 0.65
    table = pd.DataFrame(rows, columns=["problem", "smto", "seed", "delta_m"])
    found = claims.find(PARTS["C1b"], table)
    assert found.verdict == NOT_REPRODUCED and found.text.endswith(
        "between them 1.00 at every seed; the rule asks for more than 0.5 for both"
    )


def test_whoever_loses_like_the_kept_methods_no_longer_shows_where_the_others_lose():
    """All methods lose 1 % on CL and 20 % on RR. Before: that reproduced the claim about those that are not kept."""
    part = PARTS["C2"]
    smtos = ["unit_scal", *rules.expand(["kept", "dropped"])]
    noise = np.random.default_rng(0).normal(0, 0.1, (16, 5))
    rows = [(CL_RR, smto, seed, -1.0, -20 + noise[i, seed]) for i, smto in enumerate(smtos) for seed in range(5)]
    table = pd.DataFrame(rows, columns=["problem", "smto", "seed", "level CL", "level RR"])
    old = part.model_copy(update={"rule": part.rule.model_copy(update={"exceeds": []})})
    assert claims.find(old, table).verdict == REPRODUCED and claims.find(part, table).verdict != REPRODUCED
    apart = table.copy()
    apart.loc[table.smto.isin(rules.expand(["kept"])), "level RR"] += 15
    assert claims.find(part, apart).verdict == REPRODUCED
