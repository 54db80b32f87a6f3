"""Fronts: what a sweep of fixed weights can reach on two tasks at once, and how far every other method is from it.

    nondominated(points)                which points no other point beats
    hypervolume(points, reference)      the area that they dominate
    additive_epsilon(point, front)      how far one point is beyond (> 0) or inside (< 0) a front
    placed(selected, tasks)             the same for every method: "beyond", "on" or "inside", with intervals over seeds
    placed_at_own_rate(…)               against the sweep at the method's own learning rate only
    hypervolume_contributions(…)        how much hypervolume the other methods add to the sweep's
    budget(selected, tasks)             what n runs buy: the sweep's, and each method's
    utilities(…), winners(…)            which method is best for u · task 1 + (1 − u) · task 2

A point is a run. Its coordinates are the gains on two tasks over their single-task models, in percent, as columns of
`delta.selected` have them: higher is better in both. A gain is an affine map of the raw metric, so that a front in
gains is the front in metrics. `training_losses` gives the same table in losses instead.

Sources: the hypervolume is Zitzler and Thiele's (1998, "Multiobjective optimization using evolutionary algorithms: a
comparative case study"), the additive ε-indicator Zitzler, Thiele, Laumanns, Fonseca and Grunert da Fonseca's (2003,
"Performance assessment of multiobjective optimizers"). That SMTOs are on the front of fixed weights is a claim of Xin
et al. (2022, arXiv:2209.11379).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mtl_study.analysis import frames, inference
from mtl_study.experiments.runs import Run

FRONT = ("fixed", "unit_scal")  # what a sweep consists of: the uniform loss is its point of equal weights
SWEEP = "fixed"  # what the sweep is called among methods


# -- points ------------------------------------------------------------------------------------------------------------


def _points(points: ArrayLike, columns: int | None = 2, what: str = "points") -> np.ndarray:
    found = np.asarray(points, dtype=float)
    if found.ndim != 2 or (columns is not None and found.shape[1] != columns):
        expected = "[n, d]" if columns is None else f"[n, {columns}]"
        raise ValueError(f"{what} have the shape {list(found.shape)}; expected {expected}, one row per point.")
    if not np.isfinite(found).all():
        bad = int((~np.isfinite(found)).any(axis=1).sum())
        raise ValueError(f"{bad} of {len(found)} {what} are not finite; leave them out (a run that diverged?).")
    return found


def _corner(reference: ArrayLike) -> np.ndarray:
    found = np.asarray(reference, dtype=float)
    if found.shape != (2,) or not np.isfinite(found).all():
        raise ValueError(f"the reference is {reference!r}; expected two finite numbers, one per task.")
    return found


def nondominated(points: ArrayLike) -> np.ndarray:
    """Which points are on the front: no other is at least as good in every coordinate and better in one.

    Args:
        points: [n, d], higher is better. Of equal points all are kept.

    Returns:
        One truth value per point [n].

    Raises:
        ValueError: NaN or infinite coordinates, or not a table of points.
    """
    found = _points(points, columns=None)
    as_good = (found[:, None] >= found[None]).all(axis=-1)  # [i, j]: i is at least as good as j everywhere
    return np.logical_not((as_good & ~as_good.T).any(axis=0))


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """The area that the points dominate: of all that is better than the reference and worse than one of them.

        HV(P; r) = area of ⋃_{p ∈ P} [r₁, p₁] × [r₂, p₂]

    Higher is better; adding a dominated point changes nothing. In squared percent where the points are gains.

    Args:
        points: [n, 2], higher is better; one that is no better than the reference in both coordinates counts 0.
        reference: [2], a point that all runs worth counting should beat.

    Raises:
        ValueError: NaN, infinite numbers, or more than two coordinates.
    """
    found, corner = _points(points), _corner(reference)
    area, height = 0.0, corner[1]
    for x, y in found[np.lexsort((found[:, 1], found[:, 0]))][::-1]:  # from the right; each adds what rises above
        if x > corner[0] and y > height:
            area += (x - corner[0]) * (y - height)
            height = y
    return float(area)


def _below(points: np.ndarray) -> np.ndarray:
    """A reference point for the hypervolume: the worst coordinates, and a tenth of the points' extent worse still, so
    that the ends of a front count something."""
    return points.min(axis=0) - 0.1 * np.ptp(points, axis=0)


def additive_epsilon(point: ArrayLike, front: ArrayLike) -> float:
    """How far a point is beyond a front: by how much the front would have to move, everywhere, to cover it.

        ε(p, F) = min_{f ∈ F} max_j (p_j − f_j)

    This is the additive ε-indicator of the front with respect to the single point. > 0: no point of the front is as
    good in both coordinates; < 0: one is better in both, by at least so much. In the unit of the coordinates, which
    should therefore be comparable: see `additive_epsilons`.

    Args:
        point: [d]. front: [n, d], n ≥ 1; dominated points among it change nothing.

    Raises:
        ValueError: NaN, infinite numbers, an empty front, or different numbers of coordinates.
    """
    found = _points(np.asarray(point, dtype=float)[None], columns=None, what="points")[0]
    others = _points(front, columns=len(found), what="front points")
    if not len(others):
        raise ValueError("the front has no point: there is nothing to be beyond.")
    return float((found - others).max(axis=1).min())


# -- what n runs buy ---------------------------------------------------------------------------------------------------


def _subsets(size: int, n: int) -> None:
    if not 1 <= n <= size:
        raise ValueError(f"n = {n} of {size} runs; expected 1 to {size}.")


def _none_of(count: ArrayLike, size: int, n: int) -> np.ndarray:
    """The part of all subsets of n out of `size` that hold none of `count` given ones: C(size − count, n) / C(size, n).

    As a product over the n draws, since the binomials themselves would overflow.
    """
    left = size - np.asarray(count, dtype=float)[..., None] - np.arange(n)
    return np.clip(left / (size - np.arange(n)), 0, None).prod(axis=-1)


def expected_hypervolume(points: ArrayLike, reference: ArrayLike, n: int) -> float:
    """The hypervolume that n of these runs have on average, over all subsets of n. Exact.

        E HV = ∫ 1 − C(N − m(z), n) / C(N, n) dz      m(z): how many of the N points dominate z

    A place z is dominated unless the subset leaves out all m(z) points that dominate it; m is constant on the
    rectangles between the points' coordinates.

    Args:
        points: [N, 2], higher is better. reference: [2]. n: 1 to N.

    Raises:
        ValueError: n out of range, NaN or wrong shapes.
    """
    found, corner = _points(points), _corner(reference)
    _subsets(len(found), n)
    xs, ys = (np.unique(np.clip([corner[j], *found[:, j]], corner[j], None)) for j in range(2))
    dominating = ((found[:, 0, None, None] >= xs[1:, None]) & (found[:, 1, None, None] >= ys[1:])).sum(axis=0)
    reached = 1 - _none_of(dominating, len(found), n)
    return float((reached * np.diff(xs)[:, None] * np.diff(ys)).sum())


def expected_best(scores: ArrayLike, values: ArrayLike, n: int) -> float:
    """The value of the best-scored of n runs, on average over all subsets of n. Exact.

        Σ_r P(r) v_(r)      P(r) = C(r − 1, n − 1) / C(N, n), with the runs in rising order of score, r = 1 … N

    Args:
        scores: what chooses, [N], higher is better. values: what is then read, [N]. n: 1 to N. Runs with equal scores
            are put in order by their place.

    Raises:
        ValueError: n out of range, or values that are not finite.
    """
    pairs = _points(np.column_stack([np.asarray(scores, dtype=float), np.asarray(values, dtype=float)]), what="runs")
    size = len(pairs)
    _subsets(size, n)
    better = np.arange(size)[::-1]  # how many are better than each, from the worst on
    chosen = _none_of(better, size, n) - _none_of(better + 1, size, n)
    return float(chosen @ pairs[np.argsort(pairs[:, 0], kind="stable"), 1])


# -- runs --------------------------------------------------------------------------------------------------------------


def training_losses(runs: Iterable[Run]) -> pd.DataFrame:
    """One row per run: what its last epoch left of each task's training loss, with its sign turned: higher is better.

    What a sweep over weights minimises is this, not a metric on test data. The mean over the steps of the epoch, with
    the dropout of training.

    Returns:
        problem, smto, config, seed, and a column per task; NaN for a run that left no epoch.
    """
    rows = []
    for run in runs:
        names = run.config.definition.task_names
        losses = run.history[-1].train_losses if run.history else [None] * len(names)
        values = {name: math.nan if loss is None else -loss for name, loss in zip(names, losses, strict=True)}
        rows.append(dict(zip(frames.RUN, frames.run_key(run), strict=True)) | values)
    return pd.DataFrame(rows)


def comparable(selected: pd.DataFrame, tasks: Sequence[str]) -> pd.DataFrame:
    """The runs that can be compared: with a seed that every configuration of the sweep was run with, and finite gains.

    Raises:
        ValueError: several problems, unknown tasks, no run of the sweep, or no seed that all of it has.
    """
    if len(tasks) != 2:
        raise ValueError(f"tasks = {list(tasks)}: a front is drawn for two tasks; name two.")
    if missing := [task for task in tasks if task not in selected]:
        raise ValueError(f"{', '.join(missing)}: no such column; the table has {', '.join(selected)}.")
    if selected.problem.nunique() > 1:
        raise ValueError(f"one problem at a time, not {', '.join(sorted(selected.problem.unique()))}.")
    sweep = selected[selected.smto.isin(FRONT)]
    if sweep.empty:
        raise ValueError(f"no run of {' or '.join(FRONT)} in the table: there is no front to compare with.")
    seeds = set.intersection(*(set(runs.seed) for _, runs in sweep.groupby(["smto", "config"])))
    if not seeds:
        raise ValueError("the configurations of the sweep share no seed, so no seed has the whole front.")
    return selected[selected.seed.isin(seeds)].dropna(subset=list(tasks))


def seed_sd(selected: pd.DataFrame, tasks: Sequence[str]) -> pd.Series:
    """How far another seed moves a point of the front: the standard deviation over seeds per task, in percent.

    Its square is the median of the variances of those configurations of the sweep whose means are on the front: at the
    ends of a front, where a task hardly counts, one configuration may scatter many times as much as the others.

    Returns:
        Index task; NaN where no configuration has two seeds.
    """
    table = comparable(selected, tasks)
    by_config = table[table.smto.isin(FRONT)].groupby(["smto", "config"])[list(tasks)]
    on_front = nondominated(by_config.mean())
    return by_config.var(ddof=1)[on_front].median().pow(0.5)


def additive_epsilons(selected: pd.DataFrame, tasks: Sequence[str]) -> pd.DataFrame:
    """The additive ε of every run against the sweep's front with the same seed, in standard deviations of a seed.

    The two axes have different noise (an accuracy moves by tenths of a percent where an error moves by whole ones), so
    each is divided by its `seed_sd` first: an ε of 1 is a step of one seed standard deviation on either axis. A run of
    the sweep is compared with the rest of the sweep: on a front of few points this is the distance from one point to
    the next, the yardstick for everything else.

    Args:
        selected: of one problem; of the sweep several configurations, all with the same seeds. Seeds that one of them
            lacks are left out everywhere: half a sweep is easily beaten. tasks: two columns of it.

    Returns:
        problem, smto, config, seed, epsilon (NaN without a second seed, or where its sweep has no other run), of_sweep,
        on_front (of its sweep, with the same seed; False for the runs of other methods).
    """
    table = comparable(selected, tasks)
    sd = seed_sd(selected, tasks)
    sweep = table[table.smto.isin(FRONT)]
    scaled = table[list(tasks)] / sd.replace(0, math.nan)
    known = bool(scaled.notna().all(axis=None))
    rows = []
    for seed, of_seed in table.groupby("seed", sort=False):
        front = sweep.index[sweep.seed == seed]
        best = set(front[nondominated(table.loc[front, list(tasks)])]) if len(front) else set()
        for index, run in of_seed.iterrows():
            others = scaled.loc[front.drop(index, errors="ignore")]
            value = additive_epsilon(scaled.loc[index], others) if known and len(others) else math.nan
            rows.append((*run[frames.RUN], value, index in front, index in best))
    return pd.DataFrame(rows, columns=[*frames.RUN, "epsilon", "of_sweep", "on_front"])


def placed(
    selected: pd.DataFrame,
    tasks: Sequence[str],
    margin: float = 2.0,
) -> pd.DataFrame:
    """Every method compared with the front of fixed weights: a row per method.

    The mean over seeds of its `additive_epsilons`, with the t interval, both in seed standard deviations, and one word:

        beyond         the mean is above +margin and the interval above 0: fixed weights of this sweep do not get there
        inside         the mean is below −margin and the interval below 0: some fixed weights are better at both tasks
        on             the whole interval is within ±margin
        cannot tell    anything else, one seed included

    "yardstick" is the median ε of a point on the sweep's own front over the rest of the sweep, mean over seeds: a
    method that is beyond by no more than that may just have met a gap between two weights.

    Returns:
        Index smto (with several configurations of a method all of them count); epsilon, low, high, n (seeds),
        yardstick, word. `.attrs`: tasks, margin, sd (of a seed, per task, in percent), sweep (configurations on the
        front's side).

    Raises:
        ValueError: several problems, unknown tasks, no run of the sweep, or no seed that all of it has.
    """
    table = additive_epsilons(selected, tasks)
    own = table[table.on_front].dropna(subset="epsilon").groupby("seed").epsilon.median()
    yardstick = float(own.mean()) if len(own) else math.nan
    rows = {}
    for smto, runs in table[~table.of_sweep].groupby("smto", sort=False):
        interval = inference.t_interval(runs.groupby("seed").epsilon.mean())
        row = {"epsilon": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n}
        rows[smto] = row | {"yardstick": yardstick, "word": _word(interval, margin)}
    columns = ["epsilon", "low", "high", "n", "yardstick", "word"]
    found = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("smto")
    found.attrs |= {"tasks": list(tasks), "margin": margin, "sd": seed_sd(selected, tasks).to_dict()}
    found.attrs["sweep"] = int(table[table.of_sweep].groupby(["smto", "config"]).ngroups)
    return found


def placed_at_own_rate(selected: pd.DataFrame, tasks: Sequence[str]) -> pd.DataFrame:
    """`placed` once more, each method against that part of the sweep which has the method's own learning rate.

    A sweep at several rates is compared with methods at one each, and a larger step is no merit of fixed weights. Here
    it is like with like, on a front of fewer points.

    Returns:
        The columns of `placed` and lr.
    """
    rates = pd.Series([frames.setting(config, "lr") for config in selected.config], index=selected.index)
    of_sweep = selected.smto.isin(FRONT)
    tables = [
        placed(selected[rates == lr], tasks).assign(lr=lr)
        for lr in rates[~of_sweep].drop_duplicates()
        if (of_sweep & (rates == lr)).any()
    ]
    return pd.concat(tables) if tables else placed(selected[of_sweep], tasks).assign(lr=math.nan)


def _word(interval: inference.Interval, margin: float) -> str:
    mean, low, high, n = interval
    if n < 2:
        return "cannot tell"
    if mean > margin and low > 0:
        return "beyond"
    if mean < -margin and high < 0:
        return "inside"
    return "on" if -margin <= low and high <= margin else "cannot tell"


def hypervolume_contributions(selected: pd.DataFrame, tasks: Sequence[str]) -> pd.DataFrame:
    """How much hypervolume each other method adds to the sweep's, with the same seed, and all of them together.

        added = HV(sweep ∪ method) / HV(sweep) − 1      in percent, ≥ 0; 0: the method is dominated everywhere

    More points are never worse, whatever their method. The yardstick is what a point of the sweep adds to the rest of
    it, the median over the points of its front.

    The reference is a little below the worst coordinates on the sweep's fronts of all seeds.

    Returns:
        smto ("fixed": a point of the sweep; "all": all other methods), seed, added (NaN where the sweep has one point).

    Raises:
        ValueError: as for `comparable`.
    """
    table = comparable(selected, tasks)
    of_sweep = table.smto.isin(FRONT)
    own = {seed: runs[list(tasks)].to_numpy() for seed, runs in table[of_sweep].groupby("seed", sort=False)}
    fronts = {seed: points[nondominated(points)] for seed, points in own.items()}
    corner = _below(np.vstack(list(fronts.values())))
    rows = []
    for seed, runs in table.groupby("seed", sort=False):
        points, sweep = runs[list(tasks)].to_numpy(), of_sweep[runs.index].to_numpy()
        front = fronts[seed]
        volume = hypervolume(front, corner) or math.nan
        rest = [hypervolume(np.delete(own[seed], i, axis=0), corner) for i in np.flatnonzero(nondominated(own[seed]))]
        yardstick = float(np.median([volume / one - 1 for one in rest if one > 0])) if any(rest) else math.nan
        others = runs.smto[~sweep]
        groups = {smto: points[~sweep][(others == smto).to_numpy()] for smto in others.unique()}
        groups["all"] = points[~sweep]
        added = {smto: hypervolume(np.vstack([front, of]), corner) / volume - 1 for smto, of in groups.items()}
        rows += [(smto, seed, 100 * value) for smto, value in (added | {SWEEP: yardstick}).items()]
    return pd.DataFrame(rows, columns=["smto", "seed", "added"])


Measure = Literal["hypervolume", "delta_m"]


def budget(
    selected: pd.DataFrame,
    tasks: Sequence[str],
    measure: Measure = "hypervolume",
    prices: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """What n runs buy: of the sweep, and of every other method with the configurations that it has in the table.

    Per seed and number of runs, the mean over all choices of n configurations (`expected_hypervolume`,
    `expected_best`): as if one tried n of them in random order.

    Args:
        selected: of one problem. tasks: two columns.
        measure: the "hypervolume" of the n runs, or the test "delta_m" of the one with the best validation Δm.
        prices: of one run by method, in any unit, such as runs of the uniform loss; 1 for those not named.

    Returns:
        smto ("fixed" for the sweep, the uniform loss in it), seed, runs (n), cost (n runs at their price), value. In
        `.attrs["reference"]` that of the hypervolume: a little below the worst coordinates on the sweep's front and
        among the methods' means, so that each of them counts something.
    """
    table = comparable(selected, tasks)
    of_sweep = table.smto.isin(FRONT)
    points = table[of_sweep][list(tasks)].to_numpy()
    means = table[~of_sweep].groupby("smto")[list(tasks)].mean().to_numpy()
    corner = _below(np.vstack([points[nondominated(points)], means]))
    strategy = table.smto.mask(of_sweep, SWEEP)
    rows = []
    for (smto, seed), runs in table.groupby([strategy, "seed"], sort=False):
        price = (prices or {}).get(str(smto), 1.0)
        for n in range(1, len(runs) + 1):
            if measure == "hypervolume":
                value = expected_hypervolume(runs[list(tasks)], corner, n)
            else:
                value = expected_best(runs.val_delta_m, runs.delta_m, n)
            rows.append((smto, seed, n, n * price, value))
    found = pd.DataFrame(rows, columns=["smto", "seed", "runs", "cost", "value"])
    found.attrs |= {"reference": corner.tolist(), "measure": measure, "tasks": list(tasks)}
    return found


# -- what one wants ----------------------------------------------------------------------------------------------------


def utilities(
    selected: pd.DataFrame,
    validation: pd.DataFrame,
    tasks: Sequence[str],
    steps: int = 101,
) -> pd.DataFrame:
    """How good every method is for someone who values the first task with u and the second with 1 − u.

        U(u) = u · gain on task 1 + (1 − u) · gain on task 2      u = 0 … 1, higher is better

    The sweep is one method with many configurations: for every u it takes the one with the best mean utility on
    validation over the seeds; so does every other method that has several. Test gains are then read.

    Args:
        selected, validation: of the same runs, `delta.selected(…)` and the same with split="val". tasks: two columns.
        steps: how many values of u.

    Returns:
        u, smto ("fixed" for the sweep), config, seed, utility (percent).
    """
    test, chooses = comparable(selected, tasks), comparable(validation, tasks)
    means = chooses.groupby(["smto", "config"], sort=False)[list(tasks)].mean()
    smtos = means.index.get_level_values("smto")
    strategy = smtos.where(~smtos.isin(FRONT), SWEEP)
    found = []
    for u in np.linspace(0, 1, steps):
        wanted = np.array([u, 1 - u])
        score = means @ wanted
        for name, of_strategy in score.groupby(strategy, sort=False):
            smto, config = of_strategy.idxmax()
            runs = test[(test.smto == smto) & (test.config == config)]
            row = {"u": u, "smto": name, "config": config, "seed": runs.seed, "utility": runs[list(tasks)] @ wanted}
            found.append(pd.DataFrame(row))
    return pd.concat(found, ignore_index=True)


def winners(utilities: pd.DataFrame) -> pd.DataFrame:
    """Who is best for every u, and by how much the sweep leads (or trails) the best of the other methods.

    Returns:
        Index u; smto (of the largest mean), utility (its mean), other (the best method that is not the sweep), lead
        (mean of sweep − other over the seeds that both have, in points; > 0: the sweep is better), low, high, n.
    """
    rows = {}
    for u, table in utilities.groupby("u"):
        by_seed = table.pivot(index="seed", columns="smto", values="utility")
        means = by_seed.mean()
        row: dict[str, Any] = {"smto": means.idxmax(), "utility": means.max()}
        others = means.drop(SWEEP, errors="ignore")
        if SWEEP in means and len(others):
            other = others.idxmax()
            lead = inference.t_interval(by_seed[SWEEP] - by_seed[other])
            row |= {"other": other, "lead": lead.mean, "low": lead.low, "high": lead.high, "n": lead.n}
        rows[u] = row
    columns = ["smto", "utility", "other", "lead", "low", "high", "n"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("u")


def with_cost(selected: pd.DataFrame, runs: Iterable[Run]) -> pd.DataFrame:
    """`selected` and what its runs cost: width (of the network, 1 is the paper's), lr, seconds (per epoch) and times
    (over the uniform loss at the same seed), both of `frames.paces`.

    Raises:
        KeyError: a row has no record among the runs.
    """
    records = {frames.run_key(run): run for run in runs}
    found = [records[tuple(row)] for row in selected[frames.RUN].itertuples(index=False, name=None)]
    return (
        selected.drop(columns="seconds", errors="ignore")
        .assign(  # of a whole run, in tables of `delta.selected`
            width=[float(run.config.problem_options.get("width", 1)) for run in found],
            lr=[run.config.lr for run in found],
        )
        .merge(frames.paces(records.values()), on=frames.RUN, how="left", validate="one_to_one")
    )


def prices(selected: pd.DataFrame, runs: Iterable[Run]) -> dict[str, float]:
    """What a run of each method costs, in runs of the uniform loss: the median over the runs of times (`with_cost`). A
    run of the sweep costs 1.

    Args:
        selected, runs: as for `with_cost`.
    """
    times = with_cost(selected, runs).groupby("smto").times.median().to_dict()
    return {str(smto): float(value) for smto, value in times.items()} | {frames.UNIFORM: 1.0, SWEEP: 1.0}


def for_the_money(bought: pd.DataFrame, prices: Mapping[str, float]) -> dict[str, list[str]]:
    """Who has surely more hypervolume, and who less, than the sweep for the price of one run: as many of its runs as
    that buys, at least one.

    Args:
        bought: of `budget`. prices: as there.

    Returns:
        Methods by "more", "less" and "open".
    """
    of_sweep = bought[bought.smto == SWEEP].pivot(index="seed", columns="runs", values="value")
    words: dict[str, list[str]] = {"more": [], "less": [], "open": []}
    for smto, runs in bought[bought.smto != SWEEP].groupby("smto", sort=False):
        affordable = min(max(int(prices[str(smto)]), 1), of_sweep.columns[-1])
        ahead = inference.t_interval(runs.set_index("seed").value - of_sweep[affordable])
        words["more" if ahead.low > 0 else "less" if ahead.high < 0 else "open"].append(str(smto))
    return words


def least_leads(validation: pd.DataFrame, wanted: pd.DataFrame) -> pd.Series:
    """The sweep's lead where it is least, by seed, in points: validation says for which u and over which method; test
    is then read there.

    Args:
        validation, wanted: `utilities` read on validation, and on test.
    """
    promised = validation.groupby(["u", "smto"]).utility.mean().unstack("smto")
    others = promised.drop(columns=SWEEP)
    u = (promised[SWEEP] - others.max(axis=1)).idxmin()
    table = wanted[wanted.u == u].pivot(index="seed", columns="smto", values="utility")
    return table[SWEEP] - table[others.idxmax(axis=1)[u]]
