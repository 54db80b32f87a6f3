"""Methods compared on your own problem: `mtl_study.compare`, and how many seeds a claim takes: `mtl_study.power`.

    compare("multimnist/CL_RR", ["cagrad", "edm"], seeds=[1, 2, 3, 4, 5], epochs=10)

trains what is missing and gives one row per method: its own best learning rate, its gain over single-task models, the
difference to the uniform loss with its interval, the same at one learning rate, and which methods cannot be told apart.
Every method, the uniform loss and every single task is tuned over the same learning rates with the same seeds.
"""

from __future__ import annotations

import itertools
import math
import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from mtl_core import problems, smtos
from mtl_study.analysis import comparisons, delta, inference, rankings, targets
from mtl_study.experiments import runner
from mtl_study.experiments.runs import BadConfig, Run, RunConfig
from mtl_study.experiments.store import RunStore
from mtl_study.look import label
from mtl_study.paper import claims
from mtl_study.paper.rules import BadEvidence, Count, named_parts, pairs
from mtl_study.words import interval, known, number

UNIFORM = "unit_scal"
RATES = (0.0005, 0.001, 0.0025)
SEARCH_SEEDS = (101, 102, 103)  # not among those that are reported: a lucky seed is not chosen by and counted, too
EFFECT = 2.0  # points of Δm: the study calls smaller differences equal (C3)


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    table: one row per method: lr (its own best), delta_m (mean), place, first, last (the places that it may have), ties
    (a letter per group that cannot be told apart); difference, low, high (to the uniform loss, each at its own best
    rate, paired by seed) and n; rate, difference_at_rate, low_at_rate, high_at_rate (both at one rate); seeds_needed
    for `effect`; reaches (median over seeds of the epochs to the uniform loss's best at the same rate, as a share of
    those that it takes itself; ∞ where it does not get there); cost (seconds per epoch over those of the uniform loss,
    as recorded). All gains in percent, differences in points, higher is better.
    selected: one row per run behind it. runs: their records, those of the search and of single tasks among them.
    """

    problem: str
    table: pd.DataFrame
    selected: pd.DataFrame
    runs: list[Run]
    effect: float
    level: float

    def _repr_markdown_(self) -> str:
        percent = f"{100 * self.level:g} %"
        lines = [
            f"| method | learning rate | Δm | ties | minus {label(UNIFORM)} ({percent}) | at one rate ({percent}) | n "
            f"| seeds for ±{self.effect:g} | share of the uniform loss's epochs to its best | time per epoch, × |",
            "| :--- | ---: | ---: | :--- | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for smto, row in self.table.iterrows():
            own = smto == UNIFORM
            needed = (
                "–" if own else f"> {inference.MOST}" if math.isnan(row.seeds_needed) else f"{row.seeds_needed:.0f}"
            )
            cells = [
                label(str(smto)),
                f"{row.lr:g}",
                number(row.delta_m, 2),
                str(row.ties),
                interval(row.difference, row.low, row.high),
                "–"
                if own
                else f"{interval(row.difference_at_rate, row.low_at_rate, row.high_at_rate)} at {row.rate:g}",
                f"{row.n:.0f}",
                needed,
                known(row.reaches),
                known(row.cost),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"


def compare(
    problem: str,
    methods: Sequence[str],
    seeds: Sequence[int],
    *,
    rates: Sequence[float] = RATES,
    search_seeds: Sequence[int] = SEARCH_SEEDS,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    effect: float = EFFECT,
    level: float = 0.95,
    store: RunStore | str | os.PathLike[str] = "runs/compare",
    workers: int | None = None,
    device: str = "auto",
    data_dir: str | None = None,
    **settings: Any,
) -> Comparison:
    """Methods against the uniform loss on one problem, at equal terms. What the store lacks is trained.

    Each method is run at every rate with the search seeds; the rate with the best mean validation Δm is its own. Then
    it is run with all `seeds` at its own rate; and the uniform loss at that rate as well, so that there is a difference
    that is not one of rates.

    Args:
        problem: a name in `mtl_core.problems.PROBLEMS`. One of your own is put there, as a function that returns a
            `Problem`, and is trained in this process, since others do not know it.
        methods: keys of SMTOs; the uniform loss is added where it is missing.
        seeds: that are reported, other ones than `search_seeds`. rates: learning rates that are tried.
        options: of methods, e.g. {"cagrad": {"c": 0.5}}; the same in the search and after it.
        effect: points of Δm; `seeds_needed` is how many seeds would show that a method is as good as the uniform loss
            within ± this, with 80 % power, if it is exactly as good.
        settings: everything else of a RunConfig (epochs, batch_size, source, train_size, …).
        store, workers, device, data_dir: as for `runner.run`.

    Raises:
        BadConfig, BadOption: before any training; also what `runner.run` raises.
    """
    if isinstance(methods, str):
        raise BadConfig(f"methods = {methods!r}: give a list, as methods=[{methods!r}].")
    methods, rates = list(dict.fromkeys([UNIFORM, *methods])), [float(lr) for lr in rates]
    seeds, search_seeds = ([operator.index(seed) for seed in given] for given in (seeds, search_seeds))
    _check(methods, seeds, search_seeds, rates, options or {}, settings)
    whole = problems.get(problem, **settings.get("problem_options", {}))
    if not problems.PROBLEMS[problem].__module__.startswith("mtl_core."):
        workers = 0
    given = {smto: {"options": dict((options or {}).get(smto, {}))} for smto in methods}

    def train(plan: Sequence[tuple[str, str, float]], with_seeds: Sequence[int], title: str) -> list[Run]:
        """The runs of a plan of (problem, method, rate)."""
        configs = [
            RunConfig.of(
                **{**settings, **(given[s] if p == problem else {}), "problem": p, "smto": s, "lr": lr, "seed": n}
            )
            for (p, s, lr), n in itertools.product(plan, with_seeds)
        ]
        return runner.run(configs, store, title=title, workers=workers, device=device, data_dir=data_dir)

    alone_plan = [(name, UNIFORM, lr) for name in whole.single_tasks for lr in rates]
    plan = [(problem, smto, lr) for smto in methods for lr in rates]
    searched = train(alone_plan + plan, search_seeds, f"{problem}: learning rates")
    split = len(alone_plan) * len(search_seeds)
    reference = delta.single_task_baselines(searched[:split], whole.tasks)
    best = delta.best_configurations(delta.selected(searched[split:], reference, whole.tasks))
    own = {smto: searched_lr for smto, searched_lr in zip(best.smto, map(_lr, best.config), strict=True)}

    chosen_alone = _chosen(searched[:split], reference)
    alone = train(chosen_alone, seeds, f"{problem}: single tasks")
    reported = train([(problem, smto, own[smto]) for smto in methods], seeds, f"{problem}: methods")
    other_rates = [lr for lr in dict.fromkeys(own.values()) if lr != own[UNIFORM]]
    others = train([(problem, UNIFORM, lr) for lr in other_rates], seeds, f"{problem}: the uniform loss at other rates")

    reference = delta.single_task_baselines(alone, whole.tasks)
    selected = delta.selected(reported, reference, whole.tasks)
    at_rate = comparisons.at_one_rate(selected, delta.selected(others, reference, whole.tasks))
    times = targets.to_target([*reported, *others], reference, whole.tasks)
    table = _table(selected, at_rate, own, effect, level)
    table["reaches"], table["cost"] = targets.reaches(times), targets.costs(reported)
    return Comparison(problem, table, selected, [*searched, *alone, *reported, *others], effect, level)


def _check(
    methods: Sequence[str],
    seeds: Sequence[int],
    search_seeds: Sequence[int],
    rates: Sequence[float],
    options: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> None:
    for smto in methods:
        smtos.get(smto)
    if unknown := sorted(set(options) - set(methods)):
        raise BadConfig(f"options for {', '.join(unknown)}, which is not among the methods {', '.join(methods)}.")
    if taken := sorted({"lr", "options", "smto", "seed", "problem"} & set(settings)):
        raise BadConfig(f"{', '.join(taken)}: given by rates, options, methods and seeds here, not as a setting.")
    if len(seeds) < 2 or not len(search_seeds) or not len(rates):
        raise BadConfig("compare needs at least two seeds, one search seed and one rate, e.g. seeds=[1, 2, 3].")
    for name, values in (("seeds", seeds), ("search_seeds", search_seeds), ("rates", rates)):
        if len(set(values)) < len(values):
            raise BadConfig(f"{name} = {list(values)}: one is there twice.")
    if both := sorted(set(seeds) & set(search_seeds)):
        raise BadConfig(
            f"seeds {both} would choose the rates and be reported, too, which flatters; give other search_seeds."
        )


def _lr(config: str) -> float:
    return float(comparisons.setting(config, "lr"))


def _chosen(alone: Sequence[Run], reference: pd.DataFrame) -> list[tuple[str, str, float]]:
    """(problem, method, rate) of the single-task configurations that some metric chose."""
    chosen = set(reference["config"])
    found = [(run.config.problem, run.config.smto, run.config.lr) for run in alone if _name(run) in chosen]
    return list(dict.fromkeys(found))


def _name(run: Run) -> str:
    return delta.configuration(run.config)


def _table(
    selected: pd.DataFrame, at_rate: pd.DataFrame, own: Mapping[str, float], effect: float, level: float
) -> pd.DataFrame:
    by_seed = comparisons.by_seed(selected)
    table = rankings.places(by_seed, level).rename(columns={"mean": "delta_m"})
    table.insert(0, "lr", pd.Series(own))
    own_rates = comparisons.paired(selected, level)
    one_rate = comparisons.paired(at_rate, level).add_suffix("_at_rate").rename(columns={"mean_at_rate": "mean"})
    table = table.join(own_rates[["mean", "low", "high", "n"]].rename(columns={"mean": "difference"}))
    table["rate"] = at_rate.groupby("smto")["rate"].first()
    table = table.join(one_rate[["mean", "low_at_rate", "high_at_rate"]].rename(columns={"mean": "difference_at_rate"}))
    table["n"] = table["n"].fillna(by_seed[UNIFORM].notna().sum())
    sds = comparisons.differences(at_rate).std(ddof=1)
    needed = {smto: inference.seeds_for_mean([effect / sd] * 2, level) for smto, sd in sds.items() if sd > 0}
    table["seeds_needed"] = pd.Series(needed, dtype=float).reindex(table.index)
    return table


# -- how many seeds a claim takes --------------------------------------------------------------------------------------


def power(
    claim: str,
    evidence: pd.DataFrame,
    effect: float | None = None,
    chance: float = inference.POWER,
) -> pd.DataFrame:
    """How many seeds would reproduce a claim with this chance, if it holds by the effect of interest; a row per part.

    The spread between seeds is that of the evidence. Where at least u of n comparisons must hold, each gets so much
    power that u of n succeed with the chance that is asked for, whether they depend on each other or not.

    Args:
        evidence: as for `claims.judge`.
        effect: by how much the numbers are beyond the rule's line, in its unit; where ratios are compared by what
            factor. Between two lines the number is taken to be in the middle, and the effect is half their distance.
            None where that decides it, or where the paper has numbers of its own: then it is the median distance of
            the paper's from the line.

    Returns:
        id, effect, sd (of the comparison that decides if the steadiest hold; of ratios both are logarithms), level,
        seeds (NaN where more than `inference.MOST`), n (seeds so far), unit. Proofs, ranks and shares are left out.

    Raises:
        BadEvidence: no such claim, or no effect of interest can be told.
    """
    rows = []
    for id_, part in named_parts(claim):
        if not isinstance(part.rule, Count):
            continue
        rule, n = part.rule, len(pairs(part.rule))
        finding = claims.find(part, evidence)
        level = 1 - claims.ERROR / (n - rule.at_least + 1)
        sds = sorted(_sds(finding.details, level, rule.log))
        if not sds:
            rows.append({"id": id_, "level": level, "n": finding.n, "unit": rule.unit})
            continue
        sd = sds[min(rule.at_least, len(sds)) - 1]  # the u steadiest may be the ones that hold
        distances = _distances(id_, part, effect)
        needed = inference.seeds_for_mean([d / sd for d in distances], level, each(chance, rule.at_least, n))
        rows.append({"id": id_, "effect": distances[0], "sd": sd, "level": level, "seeds": needed, "n": finding.n})
        rows[-1]["unit"] = rule.unit
    return pd.DataFrame(rows, columns=["id", "effect", "sd", "level", "seeds", "n", "unit"]).astype({"seeds": float})


def each(chance: float, at_least: int, n: int) -> float:
    """What power every one of n comparisons needs, so that at least so many succeed with this chance: if they are
    independent, and also if they are one and the same."""
    alone = float(stats.beta.ppf(chance, at_least, n - at_least + 1))  # p with P(X ≥ at_least | n, p) = chance
    return max(chance, alone)


def _sds(details: Sequence[Mapping[str, Any]], level: float, log: bool) -> list[float]:
    """Standard deviations between seeds, from the intervals in the rows behind a verdict; of ratios, of their
    logarithms."""
    found = []
    for row in details:
        low, high = (math.log(row[end]) if log and row[end] > 0 else row[end] for end in ("low", "high"))
        half = (high - low) / 2
        if row["n"] > 1 and math.isfinite(half) and half > 0:
            found.append(half * math.sqrt(row["n"]) / inference.critical_t(level, row["n"] - 1))
    return found


def _distances(id_: str, part: Any, effect: float | None) -> list[float]:
    """From the effect of interest to each line, the shorter first."""
    rule = part.rule
    above, below = rule.bounds()
    if math.isfinite(above) and math.isfinite(below):
        return [(below - above) / 2] * 2
    if effect is None and part.paper.table:
        means = np.array([row["mean"] for row in claims.on_paper(part).details])
        effect = float(
            np.median(np.abs((np.log(means) if rule.log else means) - (above if above > -math.inf else below)))
        )
    elif effect is not None and rule.log:
        effect = abs(math.log(effect))
    if effect is None or not effect > 0:
        raise BadEvidence(
            f"{id_}: no number of the paper says how large the effect is; give effect, above 0, in {rule.unit}."
        )
    return [effect]


__all__ = ["Comparison", "compare", "each", "power"]
