"""What notebook 07 makes of its experiments: checks for the verdicts, and the sentences that it prints.

The rules are in mtl_study/paper/data/claims.yaml; each check names the proposition that it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from mtl_study.analysis import conflicts
from mtl_study.analysis.confounds import ALONE, at_the_edge, front, gains, interaction, orders, task_names
from mtl_study.analysis.inference import t_interval
from mtl_study.experiments import inner
from mtl_study.look import OPTIMIZERS, label, problem_label
from mtl_study.paper import conclusions
from mtl_study.paper.claims import Verdicts
from mtl_study.paper.conclusions import Conclusions, Sentence
from mtl_study.teaching import fingerprint, landscape
from mtl_study.teaching.invariance import BETAS
from mtl_study.words import bounded, counted, listed, number, percent

FELT, ROUNDING = 0.01, 1e-9  # of the way: what counts as moved, and as not
AS_GOOD = 2.0  # points of Δm that count as the same, as in Elich-mechanism c
LARGE = 0.1  # step sizes of the landscape from which on paths are not chaotic
FLIPS = "IMTL-G without its guard"  # whose update may point backwards
ALLOWED = {"unit_scal": 0.03, "cagrad": 0.03, "pcgrad": 0.15}


def checked(proposition: str, check: str, passed: bool, **shown: Any) -> dict[str, Any]:
    """A row of evidence for a rule of kind `checks`, with what else is worth showing."""
    return {"proposition": proposition, "check": check, "passed": bool(passed), **shown}


def of_invariance(rows: pd.DataFrame, equivalences: Iterable[tuple[str, bool]], common_factor: bool) -> pd.DataFrame:
    """One row per check, of `invariance.table` and `equivalences`, and whether a common factor changes no bit."""
    found = []
    for row in rows.itertuples():
        name, moved = f"{row.setting}, {row.backbone} backbone", max(row.heads, row.encoder if row.encoder > 0 else 0)
        match row.group:
            case "head":
                found.append(checked("head", name, row.bits, distance=row.heads))
            case "head, as used":
                found.append(checked("head as used", name, row.heads < FELT, distance=row.heads))
            case "backbone":
                encoder, heads = rows.loc[row.Index, ["first encoder", "first heads"]]
                found.append(checked("backbone", "its first step", encoder > FELT, distance=encoder))
                found.append(checked("backbone", "and that of the heads", heads < ROUNDING, distance=heads))
            case "full":
                found.append(checked("full", name, row.bits, distance=moved))
            case "learned" if not row.invariant:
                found.append(checked("learnt", name, moved < FELT, distance=moved))
            case "none":
                least = row.heads if row.backbone == "frozen" else min(row.heads, row.encoder)
                found.append(checked("none", name, least > FELT, distance=least))
            case "memoryless":
                found.append(checked("memoryless", name, row.bits, distance=moved))
    found += [checked("head", f"Adam(α, ε, λ) and Adam(1, ε/α, λ/α): {name}", same) for name, same in equivalences]
    found.append(checked("backbone", "a common factor changes no bit", common_factor))
    return pd.DataFrame(found)


def of_changing_weights(table: pd.DataFrame) -> pd.DataFrame:
    """One row per draw, of `invariance.changing_weights`."""
    usual, equal, none = BETAS
    found = []
    for (kind, draw), part in table.groupby(["weights", "draw"], sort=False):
        apart = part.set_index("betas").apart
        passed = apart[equal] < apart[usual] and apart[none] < ROUNDING
        found.append(checked(kind, f"draw {draw + 1}", passed, usual=apart[usual], equal=apart[equal]))
    return pd.DataFrame(found)


def of_fingerprints(tables: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """One row per method and number of tasks, of `fingerprint.fingerprints`."""
    found = []
    for num_tasks, table in tables.items():
        for method, row in table.iterrows():
            expected = fingerprint.EXPECTED.get(str(method), fingerprint.NEITHER)
            kept = {row.invariant, expected}
            passed = len(kept) == 1 or kept == {fingerprint.UP_TO_SIGN, fingerprint.DIRECTION}
            passed |= num_tasks == 2 and expected == fingerprint.NEITHER  # with two tasks more may be
            found.append(checked(f"{num_tasks} tasks", str(method), passed, keeps=row.invariant))
    return pd.DataFrame(found)


def of_toy(tables: Mapping[str, pd.DataFrame], published: pd.DataFrame) -> pd.DataFrame:
    """One row per check, of `landscape.Walks.table` by precision, and the published one."""
    found = []
    large = [lr for lr in published.columns if lr >= LARGE]
    for method, allowed in ALLOWED.items():
        for lr in large:
            ours, theirs = (table.loc[("adam", method), lr] for table in (tables["float32"], published))
            near = abs(ours / theirs - 1) <= allowed
            found.append(checked(method, f"Adam, {label(method)}, step size {lr:g}", near, ours=ours, paper=theirs))
    for precision, table in tables.items():
        ahead = int((table.loc[("adam", "unit_scal"), large] < table.loc[("adam", "cagrad"), large]).sum())
        arrive = int(table.loc[("gd", "unit_scal"), large].notna().sum())
        found.append(checked("faster", f"in {precision}", ahead >= 3, ours=ahead))
        found.append(checked(precision, f"step sizes that arrive in {precision}", arrive <= 1, ours=arrive))
    return pd.DataFrame(found)


def of_their_runs(delta_m: pd.DataFrame) -> pd.DataFrame:
    """What Adam gives over SGD with momentum in the paper's own tables: points of Δm, a row per method.

    Args:
        delta_m: `published.of_elich`.
    """
    gains = delta_m.xs("adam", axis=1, level="optimizer") - delta_m.xs("sgd", axis=1, level="optimizer")
    gains = gains.rename(index=label).rename_axis("method").rename_axis(columns=None)
    gains.attrs["caption"] = (
        "Elich et al., tables A4 to A7: Δm under Adam minus Δm under SGD with momentum, in points, mean of 3 seeds, "
        "with the sign turned: above 0, Adam is better. Their Δm is the mean over all metrics, and all single-task "
        "models were trained under Adam."
    )
    gains.attrs["decimals"] = dict.fromkeys(gains, 1)
    return gains


# -- sentences ---------------------------------------------------------------------------------------------------------


def on_invariance(rows: pd.DataFrame) -> str:
    """What the table of scale invariance shows."""
    exact = rows[rows.bits & rows.invariant].shape[0]
    promised = int(rows.invariant.sum())
    by_name = rows.set_index(["setting", "backbone"])
    adam = by_name.loc[("Adam, ε → 0", "trained")]
    used, decayed = (rows[rows.group == "head, as used"].heads * 100).tolist()
    return (
        f"{exact} of the {counted(promised, 'setting')} that theory calls invariant are so, to the last bit (with a "
        "matched start, to rounding). Under plain Adam the factors change the backbone's first step by "
        f"{percent(100 * adam['first encoder'], 0)} of its length, and through it the heads' way by "
        f"{percent(100 * adam.heads, 0)}. On a frozen backbone Adam's heads come {percent(used, 0)} of their way apart "
        f"with its usual ε of 1e-8, and {percent(decayed, 0)} with a weight decay of 1e-5 in the gradient."
    )


def on_toy(tables: Mapping[str, pd.DataFrame]) -> str:
    """What the two precisions say of gradient descent."""
    arrive = {
        precision: [f"{lr:g}" for lr, steps in table.loc[("gd", "unit_scal")].items() if steps == steps]
        for precision, table in tables.items()
    }
    words = [f"in {precision} at {_rates(rates)}" for precision, rates in arrive.items()]
    return (
        f"Gradient descent on the uniform loss arrives from all three starts {listed(words)}. The two differ in "
        "nothing but the number format; conflicts between gradients are the same in both."
    )


def _rates(rates: Sequence[str]) -> str:
    return "no step size" if not rates else f"the step size{'s' if len(rates) > 1 else ''} {listed(rates)}"


def on_fingerprints(tables: Mapping[int, pd.DataFrame]) -> str:
    """Which methods keep what, over all numbers of tasks, and how far the uniform loss turns."""
    kept = pd.DataFrame({K: table.invariant for K, table in tables.items()})
    both = [str(name) for name, row in kept.iterrows() if set(row) == {fingerprint.BOTH}]
    last = tables[max(tables)]
    turned = last.median_cosine[label("unit_scal")]
    flips, asked = (int(last.loc[FLIPS, name]) for name in ("flips", "asked"))
    said = (
        f"Units change neither direction nor length of {listed(both)}. The uniform loss turns: with {max(tables)} "
        f"tasks the median cosine between its two updates is {number(turned, 2)}."
    )
    points = "points" if flips == 1 else "point"
    return (
        f"{said} Of {asked:,} updates of IMTL-G, whose weights may be negative, with {max(tables)} tasks "
        f"{flips or 'none'} {points} backwards after the change."
    )


def on_optimizers(
    best: pd.DataFrame, interactions: pd.DataFrame, rates: Mapping[tuple[str, str, str], tuple[float, bool]]
) -> str:
    """What Adam gives to methods, and to single-task models; and which step sizes the latter want.

    Args:
        rates: `confounds.best_rates`.
    """
    if interactions.empty:
        names = [(label(m) if m != ALONE else "the single-task models", o) for m, o in at_the_edge(best)]
        edge = [f"{name} under {OPTIMIZERS[optimizer]}" for name, optimizer in names]
        why = f"the best step size of {listed(edge)} is at the edge of those tried" if edge else "there are no runs"
        return f"Nothing can be compared here: {why}."
    means = interactions.groupby("smto", sort=False)[["gain", "gain_alone", "interaction"]].mean()
    given = gains(best)
    methods = (
        f" From the uniform loss to the best method it is {number(given['adam'], 1, sign=True)} points under Adam and "
        f"{number(given['sgd'], 1, sign=True)} under SGD."
        if given
        else ""
    )
    alone = means.gain_alone.mean()
    words = [f"{label(str(m))} {number(row.gain, 1, sign=True)} points" for m, row in means.iterrows()]
    return (
        f"From SGD with momentum to Adam, each at its best step size: {listed(words)}; the single-task models "
        f"{number(alone, 1, sign=True)}.{methods} What Adam does for multi-task training beyond what it does for "
        "training is the difference, "
        f"{listed(f'{number(v, 1, sign=True)} points for {label(str(m))}' for m, v in means.interaction.items())}. "
        f"Alone, the tasks want step sizes {listed(_wanted(rates, best.problem.iloc[0]))}."
    )


def on_their_runs(gains: pd.DataFrame) -> str:
    """Where Adam helps in the paper's own tables, and where it does not.

    Args:
        gains: `of_their_runs`.
    """
    medians = [f"{number(median, 1, sign=True)} on {name}" for name, median in gains.median().items()]
    behind = [
        f"{method} on {name} ({number(value, 1, sign=True)})"
        for name, values in gains.items()
        for method, value in values[values < 0].items()
    ]
    return (
        f"In the paper's own tables Adam is ahead of SGD with momentum in {int((gains > 0).to_numpy().sum())} of "
        f"{counted(gains.size, 'cell')}; the median over methods is {listed(medians)}, in points"
        f"{f'. It is behind for {listed(behind)}' if behind else ''}. What single-task models gain there is not known."
    )


def on_front(best: pd.DataFrame, tasks: Sequence[str]) -> str:
    """Whose runs are on the joint front, and whether methods keep their order under the other optimizer."""
    held, tau = front(best, tasks), orders(best)
    if not held.size:
        return "There are no two optimizers whose runs could be on one front."
    kept = (
        ""
        if np.isnan(tau)
        else (
            f" Kendall's τ between the methods' orders by Δm under the two is {number(tau, 2, sign=True)}, mean over "
            f"seeds ({counted(len(set(best.smto) - {ALONE}), 'method')}; 1: the same order)."
        )
    )
    return (
        f"Of the {counted(held.size, 'run')} on the joint Pareto front under Adam and SGD with momentum {held.first} "
        f"{'is' if held.first == 1 else 'are'} Adam's. If a coin had said which run of a pair (one method, one seed) "
        f"is whose, as many or more would be with a probability "
        f"{f'of {number(held.p, 2)}' if held.p >= 0.005 else 'below 0.005'}"
        f"{', so nothing follows from it' if held.p > 0.05 else ''}.{kept}"
    )


def on_muon(of_muon: pd.DataFrame, best: pd.DataFrame) -> str:
    """What Muon gives over Adam to methods and to single-task models, and what speaks against it.

    Args:
        of_muon: `confounds.interaction(best, other="adam", of="muon")`.
    """
    if of_muon.empty:
        return "Muon cannot be compared here: it was not trained, or a best step size is at the edge of those tried."
    gains, alone = of_muon.groupby("smto", sort=False).gain, of_muon.groupby("seed").gain_alone.first()
    words = [f"{_gain(values)} for {label(str(smto))}" for smto, values in gains]
    says = f"From Adam to Muon, in points of Δm with 95 % intervals: {listed(words)}, and {_gain(alone)} for the"
    return f"{says} single-task models.{_against_muon(best)}"


def _beyond_muon(best: pd.DataFrame) -> str:
    """In which tasks Muon helps the uniform loss more than single-task models."""
    found = {name: interaction(best, "adam", "muon", name) for name in task_names(best)}
    means = {name: of_task[of_task.smto == "unit_scal"].interaction.mean() for name, of_task in found.items()}
    by_task = [f"{number(mean, 1, sign=True)} points in {name}" for name, mean in means.items() if not np.isnan(mean)]
    return f"what Muon gives the uniform loss beyond that is {listed(by_task) if by_task else 'not known'}"


def _against_muon(best: pd.DataFrame) -> str:
    """And how far the uniform loss stays below single-task models, and whether its runs are at their end."""
    rows = best[(best.optimizer == "muon") & (best.factor == 1)]
    level, late = rows.groupby("smto").delta_m.mean(), rows[rows.smto == "unit_scal"].at_end.astype(bool)
    if not {"unit_scal", ALONE} <= {*level.index}:
        return ""
    side = _side(level["unit_scal"] - level[ALONE], 1, " points")
    return (
        f" By task, {_beyond_muon(best)}. Under Muon that loss is {side} single-task models, and {late.sum()} of its "
        f"{counted(len(late), 'run')} are best on validation at their last epoch."
    )


def on_preferences(best: pd.DataFrame, apart: pd.DataFrame) -> str:
    """How far apart opposite preferences lead under each optimizer.

    Args:
        best: `confounds.at_best` of `confounds.preferences`. apart: `confounds.ends` of it.
    """
    known = {o: apart[f"apart {o}"] for o in dict.fromkeys(best.optimizer) if apart[f"apart {o}"].notna().any()}
    if not known:
        return "Nothing can be said of preferences here: best step sizes are at the edge of those tried."
    words = [f"{_gain(values)} points under {OPTIMIZERS[o]}" for o, values in known.items()]
    weights = listed(dict.fromkeys(best.smto), last="or")
    return (
        f"With the weights {weights} a task gains more where it is the preferred one: {listed(words)}. By task it is "
        f"{_by_task(apart, known)}."
    )


def _by_task(apart: pd.DataFrame, optimizers: Iterable[str]) -> str:
    """How far apart preferences lead, mean over the seeds: task by task, and by optimizer."""
    found: dict[str, list[str]] = {}
    for optimizer in optimizers:
        for column in (name for name in apart if name.startswith(f"apart {optimizer} ")):
            mean = number(apart[column].mean(), 1, sign=True)
            found.setdefault(column.split()[-1], []).append(f"{mean} under {OPTIMIZERS[optimizer]}")
    return "; ".join(f"in {task} {listed(of)}" for task, of in found.items())


def _gain(values: pd.Series) -> str:
    return bounded(*t_interval(values)[:3])


def _wanted(rates: Mapping[tuple[str, str, str], tuple[float, bool]], problem: str) -> list[str]:
    """The best step sizes of the single-task models, by optimizer."""
    found: dict[str, list[str]] = {}
    for (name, _, optimizer), (rate, _) in rates.items():
        if name != problem:
            found.setdefault(optimizer, []).append(f"{rate:g} ({name.split('/')[-1]})")
    return [f"of {listed(wanted)} under {OPTIMIZERS[optimizer]}" for optimizer, wanted in found.items()]


def on_units(spreads: pd.DataFrame, arms: Sequence[tuple[str, str]]) -> str:
    """Which way to train feels the unit of a loss most, and what the invariant ones reach."""
    if spreads.empty:
        return "Nothing can be compared here: there are no runs."
    spread = {arm: spreads[f"spread {arm[0]} {arm[1]}"].mean() for arm in arms}
    if not (arms := [arm for arm in arms if not np.isnan(spread[arm])]):
        return "Nothing can be compared here: no way to train has runs at all factors and its best step size inside."
    level = {arm: spreads[f"delta_m {arm[0]} {arm[1]}"].mean() for arm in arms}
    most, least = max(arms, key=lambda arm: spread[arm]), min(arms, key=lambda arm: spread[arm])
    names = {arm: f"{label(arm[0])} under {OPTIMIZERS[arm[1]]}" for arm in arms}
    deaf = [arm for arm in arms if spread[arm] <= 2 * spread[least] + 0.5]
    best, worst = max(deaf, key=lambda arm: level[arm]), min(deaf, key=lambda arm: level[arm])
    lost = {arm: int(spreads[f"spread {arm[0]} {arm[1]}"].isna().sum()) for arm in arms}
    without = [f"{lost[arm]} of {counted(len(spreads), 'seed')} for {names[arm]}" for arm in arms if lost[arm]]
    said = (
        f"Over the units of one loss Δm varies most for {names[most]} (standard deviation {number(spread[most], 1)} "
        f"points) and least for {names[least]} ({number(spread[least], 1)})."
    )
    steady = [arm for arm in arms if arm[0] == "unit_scal" and arm[1] in ("adam", "signsgd", "muon")]
    if len(steady) > 1:
        of = [f"{number(spread[arm], 1)} under {OPTIMIZERS[arm[1]]}" for arm in steady]
        felt = "what loses the size of the whole gradient still feels how much of it comes from which task"
        said += f" For the uniform loss it is {listed(of)}{'' if {*steady} & {*deaf} else f': {felt}'}."
    if without:
        said += f" Seeds with a run that diverged are left out: {listed(without)}."
    if best == worst:
        return said
    return (
        f"{said} But of those that hardly vary {names[best]} has a Δm of {percent(level[best], 1)} and {names[worst]} "
        f"of {percent(level[worst], 1)}: not to notice units is no merit by itself."
    )


def on_conflicts(per_run: pd.DataFrame, turned: pd.DataFrame) -> str:
    """Tasks compared with samples, problem by problem, and what Adam's measure makes of conflicts.

    Args:
        per_run: `conflicts.per_run`. turned: `conflicts.turned_by_adam`, a row per look, with its problem and seed.
    """
    means = per_run.groupby("problem", sort=False).mean(numeric_only=True)
    names = [problem_label(str(name)) for name in means.index]
    gaps = [f"{number(gap, 2, sign=True)} on {name}" for name, gap in zip(names, means.cosine_gap, strict=True)]
    lengths = [
        f"on {problem_label(str(name))} from {number(row['magnitude tasks'], 2)} to {number(row['left tasks'], 2)} "
        f"(samples: {number(row['magnitude samples'], 2)})"
        for name, row in means.iterrows()
    ]
    often = [
        f"{percent(100 * row['conflicts tasks'], 0)} (samples: {percent(100 * row['conflicts samples'], 0)}) on {name}"
        for name, (_, row) in zip(names, means.iterrows(), strict=True)
    ]
    return (
        f"{_on_bands(per_run)} The mean cosine between tasks minus that between samples is {listed(gaps)}; of the "
        f"pairs of tasks {listed(often)} have a cosine below 0. One constant weight takes the magnitude similarity "
        f"between tasks {listed(lengths)}.\n\n{_within_a_look(means)} {_on_drift(per_run)}\n\n{_on_measures(turned)}"
    )


def _on_bands(per_run: pd.DataFrame) -> str:
    """How often the band between tasks is inside, at single looks and over a run, and how often by chance."""
    of_runs = per_run.groupby("problem", sort=False)
    looks, runs, together = of_runs.inside.mean(), of_runs.size(), of_runs.inside_pooled.sum()
    names = [problem_label(str(name)) for name in looks.index]
    inside = [f"{percent(100 * share, 0)} of the looks on {name}" for name, share in zip(names, looks, strict=True)]
    pooled = [f"{k:.0f} of {counted(n, 'run')} on {name}" for k, n, name in zip(together, runs, names, strict=True)]
    few, many = (int(per_run[f"pairs {between}"].median()) for between in ("tasks", "samples"))
    alike, wider = (percent(100 * conflicts.inside_by_chance(few, many, width), 0) for width in (1.0, 1.1))
    return (
        f"The band between tasks is inside that between samples at {listed(inside)}. A band of {few} pairs is narrower "
        f"than one of {many}: if all cosines were alike it would be at {alike}, if those of tasks were spread a tenth "
        f"wider at {wider}. With all looks of a run together it is inside in {listed(pooled)}."
    )


def _within_a_look(means: pd.DataFrame) -> str:
    """By how much the ratio of two lengths differs from sample to sample, by problem."""
    factors = np.exp(means[["spread tasks", "spread samples"]])
    within = [
        f"{number(tasks, 1)} (samples: {number(samples, 1)}) on {problem_label(str(name))}"
        for name, tasks, samples in factors.itertuples()
    ]
    return (
        "Within a look the ratio of two tasks' lengths differs from sample to sample by a factor of "
        f"{listed(within)} (one standard deviation of its logarithm)."
    )


def _on_drift(per_run: pd.DataFrame) -> str:
    """Whether the ratio of two tasks' lengths moves over a run, beyond the chance of so few samples: where the interval
    over seeds of that variance is above 0."""
    moves, still, uneven, unknown = [], [], [], []
    for name, rows in per_run.groupby("problem", sort=False):
        mean, low, high, n = t_interval(rows.drift)
        times = [number(np.exp(np.sqrt(max(value, 0.0))), 1) for value in (mean, low, high)] if n > 1 else []
        where = problem_label(str(name))
        if not times:
            unknown.append(where)
        elif low > 0:
            moves.append(f"{times[0]} ({times[1]} to {times[2]}) on {where}")
        elif high < 0:
            uneven.append(where)
        else:
            still.append(f"{times[2]} on {where}")
    said = []
    if moves:
        said.append(
            "Over a run the ratio of two tasks' lengths is not steady: beyond what so few samples leave to chance it "
            f"moves from look to look by a factor of {listed(moves)} (one standard deviation of its mean logarithm)."
        )
    if still:
        least = f"by the intervals over seeds it is at most a factor of {listed(still)}"
        said.append(
            f"Elsewhere it moves no more than by this chance: {least}."
            if moves
            else "Over a run the ratio of two tasks' lengths moves no more than so few samples leave to chance: "
            f"{least}."
        )
    if uneven:
        said.append(
            f"On {listed(uneven)} the ratio of two tasks' lengths moves less than this chance is reckoned to be: "
            "samples differ too much there to tell."
        )
    if unknown:
        said.append(f"Whether the ratio of two tasks' lengths moves on {listed(unknown)} takes more seeds, or looks.")
    return " ".join(said)


def _on_measures(turned: pd.DataFrame) -> str:
    """How often two tasks conflict by plain gradients and as Adam measures them, problem by problem."""
    known = turned.dropna()
    if known.empty:
        return "At these looks Adam had no measure yet."
    shares = 100 * known.groupby("problem", sort=False)[["conflict", "conflict_adam", "ended", "made"]].mean()
    plain, adams, ended, made = (
        listed(f"{percent(share, 0)} on {problem_label(str(name))}" for name, share in shares[column].items())
        for column in shares
    )
    return (
        f"The share of looks at which two tasks' gradients on a whole batch conflict is {plain}; as Adam measures them "
        f"(each term of their inner product divided by the root of Adam's mean square) it is {adams}. Of "
        f"the looks it ends a conflict at {ended} and makes one at {made}. {_on_the_measure(known)}"
    )


def _on_the_measure(known: pd.DataFrame) -> str:
    """Whether conflicts come from the measure: where they are rarer in Adam's, or more frequent, by intervals over
    seeds."""
    apart = (100 * (known.conflict_adam - known.conflict)).groupby([known.problem, known.seed], sort=False).mean()
    sure = [
        f"{'rarer' if mean < 0 else 'more frequent'} on {problem_label(str(name))}, by {number(abs(mean), 1)} points "
        f"({number(min(abs(low), abs(high)), 1)} to {number(max(abs(low), abs(high)), 1)})"
        for name, values in apart.groupby(level="problem", sort=False)
        for mean, low, high, _ in [t_interval(values)]
        if low > 0 or high < 0
    ]
    if not sure:
        return "By the intervals over seeds, conflicts are not surely rarer, nor more frequent, in Adam's measure."
    return f"By the intervals over seeds, conflicts in Adam's measure are {listed(sure)}."


def on_transfers(robust: pd.DataFrame) -> str:
    """δ, the difference of the scores, and how often they agree.

    Args:
        robust: `transfers.per_run`.
    """
    if robust.empty:
        return "Nothing can be compared here: there are no runs."
    means = robust.groupby("smto", sort=False)[["delta", "difference", "favours", "agree"]].mean()
    words = [
        f"{label(str(smto))} has a δ of {number(row.delta, 3, sign=True)} and a difference of "
        f"{percent(row.difference, 1, sign=True)}"
        for smto, row in means.iterrows()
    ]
    return (
        f"On average over tasks, corruptions and seeds {listed(words)} (both: below 0, multi-task is ahead). δ favours "
        f"the multi-task features in {percent(100 * means.favours.mean(), 0)} of the cells of task, corruption and "
        f"severity. Its mean has the sign of the difference in {percent(100 * means.agree.mean(), 0)} of the pairs of "
        "a run and a task."
    )


def findings(
    rows: pd.DataFrame,
    tables: Mapping[str, pd.DataFrame],
    best: pd.DataFrame,
    interactions: pd.DataFrame,
    spreads: pd.DataFrame,
    per_run: pd.DataFrame,
    robust: pd.DataFrame,
    verdicts: Iterable[Verdicts],
) -> Conclusions:
    """What the notebook found, each statement with the strongest evidence against it."""
    arrive = [int(table.loc[("gd", "unit_scal")].notna().sum()) for table in tables.values()]
    count = len(next(iter(tables.values())).columns)
    steps = of_toy(tables, landscape.published())
    steps = steps[steps.proposition == "unit_scal"]
    near, of_large = int(steps.passed.sum()), len(steps)
    toy = Sentence(
        "On the landscape of the paper's first figure Adam takes the uniform loss to the optimum within 3 % of the "
        f"published numbers of steps at {near} of the {of_large} step sizes from {LARGE:g}.",
        f"gradient descent arrives at {arrive[0]} of {count} step sizes"
        + (
            f", in {listed(tables)} alike."
            if len({*arrive}) == 1
            else f" or at {arrive[-1]}, depending on whether {listed(tables, last='or')} is asked."
        ),
    )
    judged = conclusions.judged(part for found in verdicts for part in found)
    trained = _of_training(best, interactions, per_run, robust)
    return Conclusions([_of_units(rows, spreads), toy, *trained, judged])


def _of_units(rows: pd.DataFrame, spreads: pd.DataFrame) -> Sentence:
    """What Adam hides of the unit of a loss: by theory, as it is used, and in training where there are runs."""
    used, decayed = rows[rows.group == "head, as used"].heads
    usual, invariant = "unit_scal adam", "si sgd"
    exact = "Adam cancels the unit of a loss in the head of its task, to the last bit, in the limit of a small ε"
    if spreads.empty or not spreads[[f"delta_m {usual}", f"delta_m {invariant}"]].notna().all(axis=None):
        return Sentence(
            f"{exact}.",
            f"with the usual ε of 1e-8 factors of 10 and 0.1 still move heads by {percent(100 * used, 0)} of their "
            f"way, and with a weight decay of 1e-5 in the gradient by {percent(100 * decayed, 0)}.",
        )
    here, there = (spreads[f"delta_m {arm}"].mean() for arm in (usual, invariant))
    felt, unfelt = (number(spreads[f"spread {arm}"].mean(), 1) for arm in (usual, invariant))
    so = ": not to notice units is not what makes Adam good." if there < here - AS_GOOD else "."
    return Sentence(
        f"{exact}; with the usual ε of 1e-8 factors of 10 and 0.1 still move heads by {percent(100 * used, 0)} of "
        "their way.",
        f"in training the unit of one loss makes the uniform loss's Δm under Adam vary by {felt} points (standard "
        f"deviation over the units), and that of SI under SGD by {unfelt}; it is {percent(there, 1)} with SI under SGD "
        f"and {percent(here, 1)} with the uniform loss under Adam{so}",
    )


def _of_training(
    best: pd.DataFrame,
    interactions: pd.DataFrame,
    per_run: pd.DataFrame,
    robust: pd.DataFrame,
) -> Iterator[Sentence]:
    """A sentence for each experiment that has runs."""
    if not interactions.empty:
        yield _of_adam(best, interactions)
    yield _of_gradients(per_run)
    if not robust.empty:
        sides = ("are more robust to corruptions", "are less robust to corruptions")
        yield Sentence(
            "By δ (how corrupted pictures change a score, compared with single-task models: below 0 multi-task is "
            "ahead), with 95 % intervals over seeds, multi-task features "
            f"{_apart(robust, 'delta', *sides, 3)}.",
            f"{_by_tasks(robust)}, and by the scores on corrupted pictures, in percent, they "
            f"{_apart(robust, 'difference', 'are better', 'are worse', 1)}.",
        )


def _by_tasks(robust: pd.DataFrame) -> str:
    """δ task by task, mean over methods and seeds."""
    means = robust.filter(regex="^delta .").mean()
    of = [f"{number(mean, 3, sign=True)} in {str(name).split()[-1]}" for name, mean in means.items()]
    return f"the mean δ over methods is {listed(of)}"


def _of_gradients(per_run: pd.DataFrame) -> Sentence:
    """Whether tasks disagree more than samples: in direction, and in length with and without one constant weight."""
    means = per_run.groupby("problem", sort=False).mean(numeric_only=True)
    means.index = means.index.map(problem_label)
    inside = [percent(100 * share, 0) for share in means.inside]
    chance = conflicts.inside_by_chance(
        *(int(per_run[f"pairs {between}"].median()) for between in ("tasks", "samples"))
    )
    least, most = means.magnitude_gap.idxmin(), means.magnitude_gap.idxmax()
    contrast = f"; on {most} tasks are {_side(means.magnitude_gap[most])} samples in this similarity"
    return Sentence(
        "The cosines between tasks are inside the band of those between samples at "
        f"{listed(f'{share} of the looks on {name}' for share, name in zip(inside, means.index, strict=True))}. Tasks "
        f"are least alike in length on {least}: their magnitude similarity is {_side(means.magnitude_gap[least])} that "
        f"of samples, and {_side(means.magnitude_left[least])} with one constant weight.",
        f"a band of so few pairs is inside at {percent(100 * chance, 0)} by chance, and the mean cosine between tasks "
        "minus that between samples is "
        f"{listed(f'{number(gap, 2, sign=True)} on {name}' for name, gap in means.cosine_gap.items())}"
        f"{contrast if means.magnitude_gap[most] > 0 > means.magnitude_gap[least] else ''}.",
    )


def _side(difference: float, digits: int = 2, unit: str = "") -> str:
    """ "0.34 below", "0.03 above", "13.0 points below"."""
    return f"{number(abs(difference), digits)}{unit} {'below' if difference < 0 else 'above'}"


def _of_adam(best: pd.DataFrame, interactions: pd.DataFrame) -> Sentence:
    """What methods gain from SGD to Adam. Against it speaks what single-task models gain, or, where that is less, that
    runs under SGD are not at their end."""
    gain, alone = interactions.gain.mean(), interactions.groupby("seed").gain_alone.first().mean()
    given, (of_muon, beyond) = gains(best), _of_muon(best)
    so = (
        f". Over the uniform loss the best method gains {number(given['adam'], 1, sign=True)} under Adam and "
        f"{number(given['sgd'], 1, sign=True)} under SGD"
        if given
        else ""
    )
    so = f"{so}{of_muon}."
    of_each = interactions.groupby("smto", sort=False).gain.mean()
    least, most = of_each.idxmin(), of_each.idxmax()
    ends = [f"{number(of_each[smto], 1, sign=True)} ({label(str(smto))})" for smto in (least, most)]
    span = f"from {ends[0]} to {ends[1]}" if least != most else number(gain, 1, sign=True)
    says = f"From SGD to Adam methods gain {span} points of Δm"
    single = f"single-task models {'gain ' if gain <= alone else ''}{number(alone, 1, sign=True)}"
    if gain <= alone:
        return Sentence(
            f"{says}{so}", f"{single}: Adam helps multi-task training no more than it helps training{beyond}."
        )
    rows = best[best.smto.isin(interactions.smto) & (best.factor == 1)].astype({"at_end": bool})
    runs = rows.groupby("optimizer").at_end.agg(["sum", "count"])
    late = {name: f"{row['sum']:.0f} of {row['count']:.0f}" for name, row in runs.iterrows()}
    if not runs["sum"].get("sgd", 0):
        return Sentence(
            f"{says}, {single}{so}", f"this is one problem, and {counted(interactions.seed.nunique(), 'seed')}{beyond}."
        )
    its = rows[(rows.smto == most) & (rows.optimizer == "sgd")].at_end
    of_most = f"{its.sum()} of {len(its)} of {label(str(most))}'s, {late['adam']} under Adam"
    return Sentence(
        f"{says}, {single}{so}",
        f"SGD may be merely slower in trainings as short as these: {late['sgd']} of the methods' runs under it "
        f"({of_most}) are best at their last epoch, on validation{beyond}.",
    )


def _of_muon(best: pd.DataFrame) -> tuple[str, str]:
    """What Muon gives over Adam, and in which tasks; two empty ones where that is not known."""
    of_muon = interaction(best, "adam", "muon")
    of_muon = of_muon[of_muon.smto == "unit_scal"]
    if of_muon.empty:
        return "", ""
    gain, alone = (number(of_muon[name].mean(), 1, sign=True) for name in ("gain", "gain_alone"))
    return f". From Adam to Muon the uniform loss gains {gain}, single-task models {alone}", f"; {_beyond_muon(best)}"


def _apart(robust: pd.DataFrame, column: str, below: str, above: str, digits: int) -> str:
    """What the intervals over seeds say, with which method: that a column is below 0, above it, or not told from it."""
    found: dict[str, list[str]] = {}
    for smto, rows in robust.groupby("smto", sort=False):
        mean, low, high, n = t_interval(rows[column])
        word = below if high < 0 else above if low > 0 else "cannot be told from single-task ones"
        bounds = f", {number(low, digits, sign=True)} to {number(high, digits, sign=True)}" if n > 1 else ""
        found.setdefault(word, []).append(f"{label(str(smto))} ({number(mean, digits, sign=True)}{bounds})")
    return listed(f"{word} with {listed(of)}" for word, of in found.items())


# -- an exercise -------------------------------------------------------------------------------------------------------


def way_of_sign_sgd(gradients: Sequence[np.ndarray]) -> np.ndarray:
    """The sum of the steps of signSGD, step size 0.1 and momentum 0.9, on these gradients: by the package's own."""
    p = torch.nn.Parameter(torch.zeros(np.shape(gradients[0]), dtype=torch.float64))
    optimizer = inner.SignSGD([p], 0.1, momentum=0.9)
    for gradient in gradients:
        p.grad = torch.as_tensor(gradient)
        optimizer.step()
    way: np.ndarray = p.detach().numpy()
    return way
