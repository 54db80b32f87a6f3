"""What notebook 08 makes of its experiments: checks for the verdicts, and the sentences that it prints.

The rules are in mtl_study/paper/data/claims.yaml; each check names the proposition that it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from mtl_core.smtos.gated import Gated
from mtl_study.analysis import failures
from mtl_study.analysis.gates import BEST
from mtl_study.analysis.inference import Interval, t_interval
from mtl_study.look import label, problem_label
from mtl_study.paper import conclusions
from mtl_study.paper.claims import Verdicts
from mtl_study.paper.conclusions import Conclusions, Sentence
from mtl_study.teaching import grid
from mtl_study.teaching.elich import checked
from mtl_study.teaching.landscape import Walks
from mtl_study.words import bounded, counted, listed, number, percent

DRAWN = ("unit_scal", "pcgrad", "cagrad", "nash_mtl", "imgrad")  # whose walks the paper shows
ROUNDING = 1e-10  # between two ways to compute one cosine
STRONG = -0.5  # a correlation that lets one number stand for another
SAME = 2.0  # points within which two methods are the same, as in the rule on equal c
FEW = 0.1  # of the walks that do not arrive
KEPT = 2.0  # percent of the steps that a gate may be off its duty


def of_balance(walks: Mapping[str, Walks]) -> pd.DataFrame:
    """One row per method, whether equal weights keep it from the optimum, and one on the walks that do not arrive, by
    precision. Of `grid.walk`."""
    found = []
    for precision, these in walks.items():
        reached = grid.reached(these)
        even = reached[reached.weight == 0.5]
        for smto in DRAWN:
            most = int(even[even.smto == smto].reached.max())
            name = f"{label(smto)}, {precision}: starts of {len(grid.STARTS)} at its best step size"
            found.append(checked("equal weights", name, most == len(grid.STARTS), starts=most))
        lost = grid.ends(these)
        share = float(grid.stuck_in_balance(lost).mean()) if len(lost) else 0.0
        found.append(checked("stuck", f"walks that do not arrive, {precision}", share < FEW, share=share))
    return pd.DataFrame(found)


def of_imbalance(walks: Mapping[str, Walks], ahead: str = "imgrad", behind: str = "cagrad") -> pd.DataFrame:
    """One row per precision: in how many cells `ahead` reaches the optimum from more starts, and what the method and
    the step size explain. Of `grid.walk`."""
    found = []
    for precision, these in walks.items():
        reached = grid.reached(these)
        cells = grid.contest(reached, ahead, behind)
        more = int((cells.ahead > cells.behind).sum())
        name = f"{label(ahead)} against {label(behind)}, {precision}"
        found.append(checked("ahead", name, more > len(cells) / 2, more=more, cells=len(cells)))
        shares = grid.explained(reached)
        method, rate = shares["method"], shares["step size"]
        name = f"shares of the variance, {precision}"
        found.append(checked("explains", name, method > rate, method=method, step_size=rate))
    return pd.DataFrame(found)


def of_cosine(table: pd.DataFrame, falls: bool) -> pd.DataFrame:
    """One row per origin of Gramians. Of `imbalance.correlations`, and whether the closed form falls."""
    found = [checked("falls", "the closed form, with the ratio", falls)]
    for row in table.itertuples():
        name = f"{row.gramians} Gramians, {row.origin}"
        if row.num_tasks == 2:
            found.append(checked("closed form", name, row.deviation < ROUNDING, deviation=row.deviation))
        else:
            values = {"spearman": row.spearman, "low": row.low, "high": row.high}
            found.append(checked(f"{row.num_tasks} tasks", name, row.high < STRONG, **values))
    return pd.DataFrame(found)


# -- sentences ---------------------------------------------------------------------------------------------------------


def on_grid(walks: Mapping[str, Walks]) -> str:
    """Who reaches the optimum at unequal weights, and what decides."""
    parts = []
    for precision, these in walks.items():
        reached = grid.reached(these)
        cells = grid.contest(reached)
        more, fewer = int((cells.ahead > cells.behind).sum()), int((cells.ahead < cells.behind).sum())
        shares = grid.explained(reached)
        parts.append(
            f"In {precision}, at unequal weights, IMGrad reaches the optimum from more starts than CAGrad in {more} of "
            f"{counted(len(cells), 'cell')}, from fewer in {fewer} and from as many in {len(cells) - more - fewer}. Of "
            f"the variance between the cells (equal weights as well) of Unit. Scal., CAGrad and IMGrad the step size "
            f"explains {_share(shares['step size'])} and the method {_share(shares['method'])}."
        )
    return " ".join(parts)


def _share(value: float) -> str:
    return "nothing, as nothing varies," if np.isnan(value) else percent(100 * value, 1)


def on_balance(walks: Mapping[str, Walks]) -> str:
    """Who reaches the optimum at equal weights, and where the walks that do not arrive end."""
    parts = []
    for precision, these in walks.items():
        reached, starts = grid.reached(these), len(grid.STARTS)
        best = reached[reached.weight == 0.5].groupby("smto", sort=False).reached.max()
        missing = [f"{label(str(smto))} ({most} of {starts})" for smto, most in best.items() if most < starts]
        who = f"all methods but {listed(missing)} reach" if missing else "every method reaches"
        lost = grid.ends(these)
        parts.append(
            f"In {precision}, at equal weights and the best of the step sizes, {who} the optimum from all {starts} "
            f"starts. {_of_lost(lost, len(these.plan))}"
        )
    return " ".join(parts)


def _of_lost(lost: pd.DataFrame, walks: int) -> str:
    if lost.empty:
        return f"Every one of {walks:,} walks arrives."
    conflict, stuck = 100 * (lost.cosine < 0).mean(), lost[grid.stuck_in_balance(lost)]
    return (
        f"Of {walks:,} walks {len(lost):,} do not arrive: {percent(conflict, 0)} of these end where gradients "
        f"conflict, and {len(stuck):,} ({percent(100 * len(stuck) / len(lost), 1)}; the rule's line is "
        f"{percent(100 * FEW, 0)}) where they do while one is less than twice as long as the other. Of the latter "
        f"{int(stuck.optimal.sum())} have reached the optimum for some other weights, where no step improves both "
        "losses."
    )


def on_cosine(table: pd.DataFrame) -> str:
    """How near the computed cosine is to its formula, and how well it tells imbalance. Of `imbalance.correlations`."""
    two, more = table[table.num_tasks == 2], table[table.num_tasks > 2]
    said = (
        f"For two tasks κ as IMGrad computes it and the formula differ by {two.deviation.max():.0e} at most, over "
        f"{counted(int(two.gramians.sum()), 'Gramian')}."
    )
    words = [f"{number(row.spearman, 2)} ({row.origin})" for row in two.itertuples() if row.spearman == row.spearman]
    if words:
        said += f" Its rank correlation with the ratio of lengths is {listed(words)}."
    for tasks, part in more.groupby("num_tasks"):
        words = [
            f"{number(row.spearman, 2)} ({number(row.low, 2)} to {number(row.high, 2)}; {row.origin})"
            for row in part.itertuples()
        ]
        said += f" With {tasks} tasks it is, with 95 % intervals, {listed(words)}."
    return said


def on_failures(per_run: pd.DataFrame, cs: Sequence[float]) -> str:
    """Who would have hurt a task on the way of the uniform loss. Of `failures.per_run`."""
    means = per_run.groupby("problem", sort=False).mean(numeric_only=True)

    def shares(column: str) -> str:
        found = [f"{percent(100 * value, 1)} on {problem_label(str(name))}" for name, value in means[column].items()]
        return f"at {listed(found)}" if means[column].any() else "nowhere"

    worst = {f"{c:g}": (means[f"cagrad {c:g}"].max(), means[f"imgrad {c:g}"].max()) for c in cs}
    words = [f"{percent(100 * a, 1)} and {percent(100 * b, 1)} at c = {c}" for c, (a, b) in worst.items()]
    repairs, alone = per_run.repairs.sum(), shares("hurts alone")
    looks = per_run.groupby("problem").looks.sum().max()
    return (
        f"Of all looks, the uniform loss itself would have hurt a task {shares(failures.EQUAL)}. Nash-MTL with its "
        f"released solver hurts one {shares('nash released')} (it gives up {shares('fallback')}), and solved exactly "
        f"{shares('nash exact')}. CAGrad and IMGrad hurt one, on the problem where they do most, at {listed(words)} "
        f"(there are {looks} looks). IMGrad repairs "
        f"{'failures of CAGrad, against the theorem' if repairs else 'no failure of CAGrad'}, and, in the reading of "
        f"its code, {'never hurts' if alone == 'nowhere' else 'hurts'} a task where CAGrad does not"
        f"{'' if alone == 'nowhere' else ' ' + alone}."
        f"{_neither(means.index[(means.cagrad + means.imgrad) == 0])} At equal c their directions are less than "
        f"{failures.CLOSE:g}° apart {shares('close')}."
    )


def _neither(problems: Sequence[str]) -> str:
    """Where a difference between CAGrad and IMGrad is 0 since neither fails."""
    if not len(problems):
        return ""
    where = listed(problem_label(str(name)) for name in problems)
    return f" On {where} neither of the two hurts a task at any look: there is nothing to repair."


# -- runs (B4 to B7) ---------------------------------------------------------------------------------------------------


def on_ratios(per_run: pd.DataFrame, factors: Sequence[float]) -> str:
    """How unbalanced gradients are, and what of it is the unit of a loss.

    Args:
        per_run: `analysis.ratios.per_run`.
    """
    means = per_run.groupby("problem", sort=False).mean(numeric_only=True)
    names = [problem_label(str(name)) for name in means.index]
    medians = [f"{number(row.ratio, 1)} on {name}" for name, (_, row) in zip(names, means.iterrows(), strict=True)]
    first = means.iloc[0]
    units = [f"times {factor:g} makes it {number(first[f'times {factor:g}'], 1)}" for factor in factors]
    left = [f"{number(row.left, 1)} on {name}" for name, (_, row) in zip(names, means.iterrows(), strict=True)]
    return (
        f"The median ratio of the longest to the shortest gradient is {listed(medians)}. On {names[0]} the last loss "
        f"{listed(units)}: r is a number about units as much as about tasks. In the units that make the lengths equal "
        f"on average, what is left of it is {listed(left)}."
    )


def on_steps(per_run: pd.DataFrame) -> str:
    """Directions compared with real steps.

    Args:
        per_run: `analysis.strides.per_run`.
    """
    if per_run.empty:
        return "There is no run that finished."
    means = per_run.groupby("smto", sort=False).mean(numeric_only=True)
    clean = [str(smto) for smto in means.index[means.asked == 0]]
    both = [
        f"{label(str(smto))} from {percent(100 * row.asked, 1)} to {percent(100 * row.moved, 1)}"
        for smto, row in means.iterrows()
        if smto in ("unit_scal", "cagrad", "imgrad", "nash_mtl")
    ]
    never = (
        f" {listed(map(label, clean))} never ask{'s' * (len(clean) == 1)} for a direction that hurts a task; the steps "
        f"that Adam makes of {'it' if len(clean) == 1 else 'them'} hurt one at "
        f"{percent(100 * means.moved[clean].mean(), 1)} of the looks."
        if clean
        else ""
    )
    least, most = means["share"].idxmin(), means["share"].idxmax()
    pair = [smto for smto in ("cagrad", "imgrad") if smto in clean]
    if len(pair) == 2:
        never += " So between CAGrad and IMGrad there is no difference to find in how often directions hurt a task."
    return (
        "From the direction that is asked for to the step that Adam makes, the share of looks at which a task is hurt "
        f"goes {listed(f'for {one}' for one in both)}.{never} The cosine between direction "
        f"and step is {number(means['share'].mean(), 2)} on average, from {number(means['share'][least], 2)} "
        f"({label(str(least))}) to {number(means['share'][most], 2)} ({label(str(most))})."
    )


def on_progress(per_run: pd.DataFrame, over: pd.DataFrame) -> str:
    """What goes with Δm over the methods, and how long the sum of the gradients is late in training.

    Args:
        per_run: `analysis.strides.per_run` with delta_m. over: `analysis.strides.over_methods` of it.
    """
    if per_run.empty or over.methods.max() < 3:
        return "There are too few methods for a correlation."
    means = per_run.groupby("smto", sort=False)[["gap", "delta_m", "sum"]].mean()
    even, best = means.gap.idxmin(), means.delta_m.idxmax()
    place = int((means.delta_m > means.delta_m[even]).sum()) + 1
    sums = means["sum"] / means["sum"].get("unit_scal", np.nan)
    longest = sums.drop("unit_scal", errors="ignore").sort_values(ascending=False)
    return (
        f"Over {counted(len(means), 'method')} the rank correlation of Δm with the gap in progress is "
        f"{number(over['rho gap'].mean(), 2, sign=True)} on average over seeds, and "
        f"{number(over['rest gap'].mean(), 2, sign=True)} without MGDA; within the better half of the methods it is "
        f"{number(over['better gap'].mean(), 2, sign=True)}. Progress is most even for {label(str(even))}, "
        f"which has place {place} by Δm; the best is {label(str(best))}, with a gap of {number(means.gap[best], 3)} "
        f"against {number(means.gap[even], 3)}. With the mean cosine between the gradients the correlation of Δm is "
        f"{number(over['rho cosine'].mean(), 2, sign=True)}. Late in training the sum of the gradients is longest, in "
        f"units of that of the uniform loss, under "
        f"{listed(f'{label(str(m))} ({number(v, 2)})' for m, v in longest.iloc[:2].items())}."
    )


def lengths(per_run: pd.DataFrame) -> pd.DataFrame:
    """How long the sum of the task gradients is late in training, over that under the uniform loss: a row per method,
    the longest first. Of `analysis.strides.per_run`."""
    by_seed = np.log(per_run.pivot(index="seed", columns="smto", values="sum"))
    rows = []
    for smto in by_seed.columns.drop("unit_scal"):
        mean, low, high, n = t_interval(by_seed[smto] - by_seed["unit_scal"])
        ends = f"{number(np.exp(low), 2)} to {number(np.exp(high), 2)}" if np.isfinite(low) else "–"
        rows.append({"method": label(smto), "times": float(np.exp(mean)), "95 % interval": ends, "n": n})
    table = pd.DataFrame(rows).sort_values("times", ascending=False).set_index("method")
    table.attrs["caption"] = (
        "The length of the sum of the task gradients over that under the uniform loss at the same seed: geometric mean "
        "over the last fifth of training and over seeds. Above 1 it is longer than under the uniform loss."
    )
    table.attrs["decimals"] = {"times": 2}
    return table


def on_gates(per_seed: pd.DataFrame, acted: pd.DataFrame, duties: Sequence[float], levels: Mapping[str, float]) -> str:
    """Whether it matters when an SMTO acts.

    Args:
        per_seed: `analysis.gates.by_duty`. acted: `analysis.gates.duty`. levels: Δm without a gate, by name.
    """
    words = []
    for duty in duties:
        apart = [per_seed[f"ratio {duty:g}"] - per_seed[f"{other} {duty:g}"] for other in ("random", "cosine")]
        words.append(
            f"at {percent(100 * duty, 0)} of the steps {_points(apart[0])} over random steps and {_points(apart[1])} "
            "over those most in conflict"
        )
    off = 100 * (acted.acted - acted.duty).abs().max()
    kept = (
        "what differs is when the method acts and hardly how often"
        if off < KEPT
        else "so they differ in how often the method acts, too"
    )
    mean = {duty: per_seed[f"ratio {duty:g}"].mean() for duty in duties}
    gated = [f"{percent(value, 1)} at a duty of {percent(100 * duty, 0)}" for duty, value in mean.items()]
    without = [f"{percent(value, 1)} with {name}" for name, value in levels.items()]
    return (
        "Acting where gradients are least balanced gains, in points of Δm with 95 % intervals, "
        f"{listed(words)}. The share of the steps in which the method has acted, mean over the last epoch, is off the "
        f"duty by {percent(off, 1)} of the steps at most, over all gates: {kept}. Behind that gate Δm is "
        f"{listed(gated)}; without a gate it is {listed(without)}."
    )


def _points(values: pd.Series) -> str:
    return bounded(*t_interval(values)[:3])


def on_better(apart: pd.DataFrame, chosen: pd.DataFrame) -> str:
    """IMGrad compared with CAGrad, at equal c and each at its best.

    Args:
        apart: `analysis.gates.apart`. chosen: `analysis.gates.at_radii`.
    """
    words, edges, tried = [], list[str](), apart.c[apart.c != BEST].astype(float)
    for problem, rows in apart.groupby("problem", sort=False):
        equal = rows[rows.c != BEST].groupby("seed").difference.mean()
        best = rows[rows.c == BEST].set_index("seed").difference
        c = chosen[chosen.problem == problem].groupby("smto").c.first()
        words.append(
            f"on {problem_label(str(problem))} {_points(equal)} points at equal c and {_points(best)} with each at its "
            f"best (c = {c['imgrad']:g} for IMGrad, {c['cagrad']:g} for CAGrad)"
        )
        edges += [problem_label(str(problem))] * bool(c.isin([tried.min(), tried.max()]).any())
    edge = f" On {listed(edges)} a best c is the least or the largest that was tried." if edges else ""
    return f"IMGrad minus CAGrad is {listed(words)}, with 95 % intervals.{edge}"


def findings(
    verdicts: Iterable[Verdicts],
    walks: Mapping[str, Walks],
    hurt: pd.DataFrame,
    ratio_runs: pd.DataFrame,
    steps: pd.DataFrame,
    per_seed: pd.DataFrame,
    duties: Sequence[float],
    always: float,
    over: pd.DataFrame,
    apart: pd.DataFrame,
) -> Conclusions:
    """What the notebook found, and what speaks against each statement.

    Args:
        hurt: of `failures.per_run`. always: Δm of the gated method in every step. over: of `strides.over_methods`.
    """
    judged = conclusions.judged(part for found in verdicts for part in found)
    trained = [
        _of_failures(hurt, steps),
        _of_ratios(ratio_runs),
        *_of_progress(over),
        _of_gates(per_seed, duties, always),
    ]
    return Conclusions([_of_imgrad(walks, apart), *trained, judged])


def _of_imgrad(walks: Mapping[str, Walks], apart: pd.DataFrame) -> Sentence:
    """IMGrad against CAGrad, on the landscape and, where there are runs, in training."""
    more, fewer, explained, full = dict[str, str](), dict[str, str](), [], dict[str, str]()
    for precision, these in walks.items():
        reached = grid.reached(these)
        cells, shares = grid.contest(reached), grid.explained(reached)
        more[precision] = f"{(cells.ahead > cells.behind).sum()} of {counted(len(cells), 'cell')}"
        fewer[precision] = f"{(cells.ahead < cells.behind).sum()}"
        full[precision] = f"{int((cells.behind == len(grid.STARTS)).sum())} of {counted(len(cells), 'cell')}"
        explained.append(f"{_share(shares['step size'])} and {_share(shares['method'])} ({precision})")
    said = (
        "On the landscape with unequal weights IMGrad reaches the optimum from more starts than CAGrad in "
        f"{_by_precision(more)}, from fewer in {_by_precision(fewer)}"
    )
    equal, best = (_leads(apart[of]) for of in (apart.c != BEST, apart.c == BEST))
    if not equal:
        return Sentence(
            f"{said}.",
            "of the variance between cells (equal weights as well) the step size and the method explain "
            f"{listed(explained)}.",
        )
    return Sentence(
        f"{said}. In training at equal c IMGrad minus CAGrad is {_by_problem(equal)}{_so(equal)}; each at its own best "
        f"c it is {_by_problem(best)}.",
        f"CAGrad reaches it from every start in {_by_precision(full)}, so that there IMGrad cannot be ahead.",
    )


def _by_precision(said: Mapping[str, str]) -> str:
    """What is said of each precision, once where it is the same."""
    if len(set(said.values())) == 1:
        return f"{next(iter(said.values()))} ({listed(said)})"
    return listed(f"{words} ({precision})" for precision, words in said.items())


def _leads(apart: pd.DataFrame) -> dict[str, Interval]:
    """By problem the interval over seeds, of each the mean over c."""
    groups = apart.groupby("problem", sort=False)
    return {str(problem): t_interval(rows.groupby("seed").difference.mean()) for problem, rows in groups}


def _by_problem(leads: Mapping[str, Interval]) -> str:
    return listed(f"{bounded(*lead[:3])} points on {problem_label(problem)}" for problem, lead in leads.items())


def _so(leads: Mapping[str, Interval]) -> str:
    """What follows where all of the intervals are within the margin; else where it is open whether they are."""
    if all(lead.low > -SAME and lead.high < SAME for lead in leads.values()):
        return ": what it is credited with has to come from elsewhere than from its rule"
    unknown = [p for p, lead in leads.items() if any(lead.low < line < lead.high for line in (-SAME, SAME))]
    where = listed(map(problem_label, unknown))
    return f"; on {where} it is open whether that is less than {SAME:g} points" if unknown else ""


def _of_failures(hurt: pd.DataFrame, steps: pd.DataFrame) -> Sentence:
    """Directions that hurt a task: on the same gradients, and, where there are runs, in training."""
    repairs = int(hurt.repairs.sum())
    most = hurt.groupby("problem", sort=False).cagrad.mean().max()
    repaired = counted(repairs, "failure") if repairs else "no failure"
    said = f"On the gradients that a run of the uniform loss met IMGrad repairs {repaired} of CAGrad" + (
        "" if repairs else ", as the theorem says"
    )
    against = (
        "the theorem says that there are none to repair"
        if repairs
        else f"there was little to repair: CAGrad, mean over c, hurts a task at {percent(100 * most, 1)} of these "
        "looks on the problem where it does most"
    )
    if not steps.empty:
        of = steps.groupby("smto")[["asked", "moved"]].mean().reindex(["imgrad", "cagrad", "unit_scal"]) * 100
        asked, moved = ([percent(value, 1) for value in of[column]] for column in of)
        said += f"; in training IMGrad asks for a direction that hurts a task at {asked[0]} of the looks, CAGrad at "
        said += asked[1]
        against += (
            f"; and Adam's steps, which move the network, hurt one at {moved[0]} and {moved[1]}, those of the uniform "
            f"loss at {moved[2]}"
        )
    return Sentence(f"{said}.", f"{against}.")


def _of_ratios(ratio_runs: pd.DataFrame) -> Sentence:
    means = ratio_runs.groupby("problem", sort=False)[["ratio", "left"]].mean()
    name = means.ratio.idxmax()
    return Sentence(
        f"Gradients are least balanced on {problem_label(str(name))}, by a factor of {number(means.ratio[name], 1)}.",
        f"in the best constant units of the losses {number(means.left[name], 1)} is left of it.",
    )


def _of_progress(over: pd.DataFrame) -> Iterator[Sentence]:
    """Whether even progress goes with a high Δm, where there are methods enough for a correlation."""
    if over.methods.max() < 3:
        return
    rho = t_interval(over["rho gap"])
    found = "the more even, the better" if rho.high < 0 else "the less even, the better" if rho.low > 0 else "open"
    yield Sentence(
        f"Over {int(over.methods.max())} methods the rank correlation of Δm with the gap in progress between tasks is "
        f"{_correlation(rho)}: {found}.",
        f"within the better half of the methods it is {_correlation(t_interval(over['better gap']))}.",
    )


def _correlation(over_seeds: Interval) -> str:
    """Its mean and interval, as far as a correlation can be."""
    mean, low, high = (min(max(value, -1.0), 1.0) for value in over_seeds[:3])
    return bounded(mean, low, high, digits=2)


def _of_gates(per_seed: pd.DataFrame, duties: Sequence[float], always: float) -> Sentence:
    def gains(other: str) -> str:
        return listed(_points(per_seed[f"ratio {duty:g}"] - per_seed[f"{other} {duty:g}"]) for duty in duties)

    best = max(per_seed[f"ratio {duty:g}"].mean() for duty in duties)
    return Sentence(
        "With as many steps behind every gate, acting where gradients are least balanced gains "
        f"{gains('random')} points of Δm over acting at random (at duties of "
        f"{listed(percent(100 * duty, 0) for duty in duties)}), and {gains('cosine')} over acting where they conflict.",
        f"in every step the method has a Δm of {percent(always, 1)}, and behind the best of these gates "
        f"{percent(best, 1)}.",
    )


# -- an exercise -------------------------------------------------------------------------------------------------------


def gate(needs: Sequence[float], duty: float = 0.3) -> np.ndarray:
    """In which steps a gate of this duty opens, for the needs of the steps in order, by the package's own [T]."""
    method = Gated(2, duty=duty)
    return np.array([method.opens(float(need)) for need in needs])
