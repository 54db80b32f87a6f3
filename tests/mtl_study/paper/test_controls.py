"""A control for every rule: where the runs show a claim clearly it is reproduced, where they show its contrary it is
not, and where they show neither it is open. Whoever adds a rule adds its control with it: it is made from the rule."""

import math

import numpy as np
import pandas as pd
import pytest

from mtl_core import problems
from mtl_study.analysis import delta
from mtl_study.paper import claims, published, rules
from mtl_study.paper.claims import BARRED, NOT_REPRODUCED, OPEN, REPRODUCED

EVERY = [found for claim in rules.names() for found in rules.named_parts(claim)]
ONLY_OVERNIGHT = "Equal-terms"  # no other preset trains several methods at every rate of a grid
TIMED = "Time-to-target"  # overnight's seconds are no measure: it trains beside other work
WORLDS = {"the claim": REPRODUCED, "its contrary": NOT_REPRODUCED, "neither": OPEN}


def planted(part, world):
    """A table of runs, or of checks, in which the claim holds clearly, does not, or is undecided."""
    seeds = range(part.needs.after + 1, part.needs.after + 2 * max(part.needs.seeds, 2) + 1)
    if (statistic := getattr(part.rule, "statistic", "mean")) != "mean":
        return {"spread": of_spreads, "choice": of_choices}[statistic](part, world, range(1, 21))
    kinds = {"checks": of_checks, "rank": of_ranks, "share": of_numbers, "count": of_numbers}
    return kinds[part.rule.kind](part, world, seeds)


def of_checks(part, world, _):
    propositions = part.rule.propositions[:-1] if world == "neither" else part.rule.propositions
    passed = [world != "its contrary" or p > min(propositions) for p in propositions]
    return pd.DataFrame({"proposition": propositions, "check": "a check", "passed": passed})


def of_ranks(part, world, seeds):
    """The paper's column, its opposite, or one and the other by turns."""
    smtos = [smto for group in part.rule.groups for smto in rules.expand(group)]
    theirs = published.table(part.paper.table).loc[smtos, part.rule.column]
    signs = {"the claim": (1, 1), "its contrary": (-1, -1), "neither": (1, -1)}[world]
    rows = [
        {"problem": part.rule.problem, "smto": smto, "seed": seed, part.rule.column: signs[seed % 2] * value}
        for seed in seeds
        for smto, value in theirs.items()
    ]
    return pd.DataFrame(rows)


def of_numbers(part, world, seeds):
    """Runs whose number is well inside the bounds, well outside, or on both sides of a bound by turns; a hundredth
    of the distance to it is noise. The run that is subtracted has 0, or 1 where ratios are compared."""
    rule = part.rule
    above, below = rule.bounds()
    line = above if math.isfinite(above) else below
    inward = (below - above) / 2 if math.isfinite(above) and math.isfinite(below) else max(abs(line), 1.0)
    inward *= 1 if math.isfinite(above) else -1
    first = next(iter(rule.value))

    def run(problem, smto, seed, number):
        columns = dict.fromkeys(rule.value, 1.0 if rule.log else 0.0)
        number /= rule.value[first]
        columns[first] = math.exp(number) if rule.log else number
        return {"problem": problem, "smto": smto, "seed": seed, "seconds": 60.0, **columns}

    rows = []
    for i, (problem, smto) in enumerate(rules.pairs(rule)):
        for seed in seeds:
            noise = 0.01 * math.sin(7 * i + seed)
            side = {"the claim": 1 + noise, "its contrary": -1 + noise, "neither": (-1) ** seed}[world]
            rows.append(run(problem, smto, seed, line + side * inward))
            rows += [run(problem, other, seed, 0.0) for other in rules.expand(rule.exceeds)]
            if rule.minus_smto or rule.minus_problem:
                rows.append(run(rule.minus_problem or problem, rule.minus_smto or smto, seed, 0.0))
    return pd.DataFrame(rows).drop_duplicates(["problem", "smto", "seed"])


def of_spreads(part, world, seeds):
    """Seeds that differ ten times as much, a tenth as much, or as much as those of the other method."""
    ((problem, smto),), (column,) = rules.pairs(part.rule), part.rule.value
    times = {"the claim": 10.0, "its contrary": 0.1, "neither": 1.0}[world]
    rows = [(problem, smto, seed, times * math.sin(5 * seed)) for seed in seeds]
    rows += [(problem, part.rule.minus_smto, seed, math.sin(3 * seed + 1)) for seed in seeds]
    return pd.DataFrame(rows, columns=["problem", "smto", "seed", column])


def of_choices(part, world, seeds):
    """Three settings whose means differ ten times as much as seeds do, a third as much, or as much."""
    rule, (column,) = part.rule, part.rule.value
    times = {"the claim": 10.0, "its contrary": 0.3, "neither": 1.0}[world]
    rows = [
        {"problem": problem, "smto": smto, "seed": seed, rule.over: i, column: times * i + value, rule.best_by: i}
        for problem, smto in rules.pairs(rule)
        for i in (-1, 0, 1)
        for seed, value in zip(seeds, np.random.default_rng(i + 5).normal(size=len(seeds)), strict=True)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("world", WORLDS)
def test_every_rule_tells_the_claim_from_its_contrary_and_from_neither(world):
    found = {}
    for id_, part in EVERY:
        finding = claims.find(part, planted(part, world))
        found[id_] = finding.verdict
        assert bool(finding.settles) == (finding.verdict == OPEN), id_
        if part.rule.kind != "checks":
            assert finding.estimate.low <= finding.estimate.mean <= finding.estimate.high, id_
    assert {id_: verdict for id_, verdict in found.items() if verdict != WORLDS[world]} == {}
    assert len(found) >= 87


def test_a_rule_without_a_run_or_with_one_seed_is_open_and_says_what_it_takes():
    for id_, part in EVERY:
        if part.rule.kind != "checks":
            table = planted(part, "the claim")
            for rest in (table[:0], table[table.seed == table.seed.min()]):
                found = claims.find(part, rest)
                assert (found.verdict, found.n) == (OPEN, min(len(rest), 1)) and found.settles and found.why, id_


def test_every_claim_can_be_judged_somewhere_and_never_at_smoke():
    for claim in rules.names():
        needs = [part.needs for part in rules.parts(claim)]
        table = pd.concat([planted(part, "the claim") for part in rules.parts(claim)]).reset_index(drop=True)
        if "seed" in table and "lr" not in table:
            table = table.groupby(["problem", "smto", "seed"]).first().reset_index()
        for need in needs:
            assert claim == ONLY_OVERNIGHT or "paper" in need.presets
            assert claim == TIMED or "overnight" in need.presets or "quick" not in need.presets
            assert need.reason or "quick" in need.presets or need.presets == ["paper"]
        found = claims.decide(claim, table, preset=needs[0].presets[-1], source="full")
        assert {part.verdict for part in found} <= {REPRODUCED, NOT_REPRODUCED, OPEN}
        barred = claims.decide(claim, table, preset="smoke", source="full")
        assert {part.verdict for part in barred} == {BARRED} and all(part.settles for part in barred)


def test_an_estimate_decides_as_its_verdict_says():
    """The comparison that decides is on the side of its verdict, in the unit of the thing."""
    rng = np.random.default_rng(0)
    seen = set()
    for id_, part in EVERY:
        if part.rule.kind not in ("count", "share") or getattr(part.rule, "statistic", "mean") != "mean":
            continue
        for world in WORLDS:
            table = planted(part, world)
            first = next(iter(part.rule.value))
            if part.rule.kind == "count" and not part.rule.log:
                table[first] += rng.normal(0, 0.3, len(table))
            found = claims.find(part, table)
            low, high = found.estimate[1:3]
            above, below = (0.5, math.inf) if part.rule.kind == "share" else (part.rule.above, part.rule.below)
            inside, outside = above < low and high < below, high <= above or low >= below
            assert (inside, outside) == (found.verdict == REPRODUCED, found.verdict == NOT_REPRODUCED), (id_, world)
            seen.add(found.verdict)
    assert seen == set(WORLDS.values())


def test_a_claim_about_a_level_reads_it_with_the_error_of_its_baselines():
    """Where a gain over single-task models is compared with a number, and not with the gain of another run."""
    tasks = [task for name in published.problems() for task in problems.get(name).tasks]
    gains = {"delta_m", *(task.name for task in tasks), *(f"{task.name}/{m}" for task in tasks for m in task.metrics)}
    about_levels = {
        id_: {*part.rule.value}
        for id_, part in EVERY
        if part.rule.kind == "count" and not (part.rule.minus_smto or part.rule.minus_problem)
        if part.rule.statistic == "mean"  # a spread over seeds or rates is the same about any level
        if {column.removeprefix(delta.LEVEL) for column in part.rule.value} <= gains
    }
    assert {"C3c", "C6b", "C6c", "C6d", "C6e", "C7a"} <= {*about_levels}
    assert all(column.startswith(delta.LEVEL) for columns in about_levels.values() for column in columns)
