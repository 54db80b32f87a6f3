"""What notebook 08 makes of its experiments: checks for the verdicts, and the sentences that it prints.

The rules are in mtl_study/paper/data/claims.yaml; each check names the proposition that it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd

from mtl_core.smtos.gated import Gated
from mtl_study.analysis.gates import BEST
from mtl_study.analysis.inference import t_interval
from mtl_study.look import label, problem_label
from mtl_study.paper.claims import Verdicts
from mtl_study.teaching.elich import judged
from mtl_study.words import counted, listed, number, percent

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
    units = [f"{number(first[f'times {factor:g}'], 1)} with it times {factor:g}" for factor in factors]
    left = [f"{number(row.left, 1)} on {name}" for name, (_, row) in zip(names, means.iterrows(), strict=True)]
    return (
        f"The median ratio of the longest to the shortest gradient is {listed(medians)}. On {names[0]}, where the last "
        f"loss has the unit that its authors happened to choose, it is {listed(units)}: r is a number about units as "
        f"much as about tasks. In the units that make the lengths equal on average {listed(left)} are left."
    )


def on_steps(per_run: pd.DataFrame) -> str:
    """Directions beside real steps.

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
    return (
        "From the direction that is asked for to the step that Adam makes, the share of looks at which a task is hurt "
        f"goes {listed(f'for {one}' for one in both)}.{never} The cosine between the two is "
        f"{number(means['share'].mean(), 2)} on average, from {number(means['share'][least], 2)} "
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
    sums = means["sum"] / means["sum"]["unit_scal"]
    longest = sums.drop("unit_scal").sort_values(ascending=False)
    return (
        f"Over {counted(len(means), 'method')} the rank correlation of Δm with the gap in progress is "
        f"{number(over['rho gap'].mean(), 2, sign=True)} on average over seeds, and "
        f"{number(over['rest gap'].mean(), 2, sign=True)} without MGDA. Progress is most even for {label(str(even))}, "
        f"which has place {place} by Δm; the best is {label(str(best))}, with a gap of {number(means.gap[best], 3)} "
        f"beside {number(means.gap[even], 3)}. With the mean cosine between the gradients the correlation of Δm is "
        f"{number(over['rho cosine'].mean(), 2, sign=True)}. Late in training the sum of the gradients is longest, in "
        f"units of that of the uniform loss, under "
        f"{listed(f'{label(str(m))} ({number(v, 2)})' for m, v in longest.iloc[:2].items())}."
    )


def on_gates(per_seed: pd.DataFrame, acted: pd.DataFrame, duties: Sequence[float]) -> str:
    """Whether it matters when an SMTO acts.

    Args:
        per_seed: `analysis.gates.by_duty`. acted: `analysis.gates.duty`.
    """
    words = []
    for duty in duties:
        apart = [per_seed[f"ratio {duty:g}"] - per_seed[f"{other} {duty:g}"] for other in ("random", "cosine")]
        words.append(
            f"at {percent(100 * duty, 0)} of the steps {_points(apart[0])} over random steps and {_points(apart[1])} "
            "over those most in conflict"
        )
    off = (acted.acted - acted.duty).abs().max()
    return (
        "Acting where gradients are least balanced gains, in points of Δm with 95 % intervals, "
        f"{listed(words)}. All gates keep their duty within {percent(100 * off, 1)} of the steps: what differs is when "
        "the method acts and not how often."
    )


def _points(values: pd.Series) -> str:
    mean, low, high, n = t_interval(values)
    bounds = f" ({number(low, 1, sign=True)} to {number(high, 1, sign=True)})" if n > 1 else ""
    return f"{number(mean, 1, sign=True)}{bounds}"


def on_better(apart: pd.DataFrame, chosen: pd.DataFrame) -> str:
    """IMGrad beside CAGrad, at equal c and each at its best.

    Args:
        apart: `analysis.gates.apart`. chosen: `analysis.gates.at_radii`.
    """
    words = []
    for problem, rows in apart.groupby("problem", sort=False):
        equal = rows[rows.c != BEST].groupby("seed").difference.mean()
        best = rows[rows.c == BEST].set_index("seed").difference
        c = chosen[chosen.problem == problem].groupby("smto").c.first()
        words.append(
            f"on {problem_label(str(problem))} {_points(equal)} points at equal c and {_points(best)} with each at its "
            f"best (c = {c['imgrad']:g} beside {c['cagrad']:g})"
        )
    return f"IMGrad minus CAGrad is {listed(words)}."


def findings(
    verdicts: Iterable[Verdicts],
    exact: Iterable[str],
    ratio_runs: pd.DataFrame,
    steps: pd.DataFrame,
    per_seed: pd.DataFrame,
    duties: Sequence[float],
    apart: pd.DataFrame,
) -> str:
    """What the notebook found, the strongest evidence against each statement beside it.

    Args:
        exact: sentences on what takes no training.
    """
    return " ".join([judged(verdicts), *exact, *_of_training(ratio_runs, steps, per_seed, duties, apart)])


def _of_training(
    ratio_runs: pd.DataFrame, steps: pd.DataFrame, per_seed: pd.DataFrame, duties: Sequence[float], apart: pd.DataFrame
) -> Iterator[str]:
    """A sentence for each experiment."""
    means = ratio_runs.groupby("problem", sort=False)[["ratio", "left"]].mean()
    name = means.ratio.idxmax()
    yield (
        f"Gradients are least balanced on {problem_label(str(name))}, by a factor of {number(means.ratio[name], 1)}; "
        f"in the best constant units of the losses {number(means.left[name], 1)} is left of it."
    )
    if not steps.empty:
        of = steps.groupby("smto")[["asked", "moved"]].mean() * 100
        yield (
            f"IMGrad asks for a direction that hurts a task at {percent(of.asked['imgrad'], 1)} of the looks, CAGrad "
            f"at {percent(of.asked['cagrad'], 1)}; Adam's steps hurt one at {percent(of.moved['imgrad'], 1)} "
            f"and {percent(of.moved['cagrad'], 1)}, those of the uniform loss at {percent(of.moved['unit_scal'], 1)}."
        )
    gains = [(per_seed[f"ratio {d:g}"] - per_seed[f"random {d:g}"]).mean() for d in duties]
    against = [(per_seed[f"ratio {d:g}"] - per_seed[f"cosine {d:g}"]).mean() for d in duties]
    yield (
        "With as many steps behind every gate, acting where gradients are least balanced gains "
        f"{listed(number(gain, 1, sign=True) for gain in gains)} points of Δm over acting at random (at duties of "
        f"{listed(percent(100 * duty, 0) for duty in duties)}), and "
        f"{listed(number(gain, 1, sign=True) for gain in against)} over acting where they conflict."
    )
    differences = apart[apart.c != BEST].groupby("problem", sort=False).difference.mean()
    yield (
        "At equal c IMGrad is ahead of CAGrad by "
        f"{listed(f'{number(v, 1, sign=True)} points on {problem_label(str(p))}' for p, v in differences.items())}: "
        "what it is credited with has to come from elsewhere than from its rule."
        if (differences.abs() < 2).all()
        else "At equal c IMGrad is ahead of CAGrad by "
        f"{listed(f'{number(v, 1, sign=True)} points on {problem_label(str(p))}' for p, v in differences.items())}."
    )


# -- an exercise -------------------------------------------------------------------------------------------------------


def gate(needs: Sequence[float], duty: float = 0.3) -> np.ndarray:
    """In which steps a gate of this duty opens, for the needs of the steps in order, by the package's own [T]."""
    method = Gated(2, duty=duty)
    return np.array([method.opens(float(need)) for need in needs])
