"""What each notebook found: sentences that are computed, each with the strongest evidence against it.

    conclude(of_selection(…), preset=preset, notebook=notebook)      shows them and records them for the report

A function per notebook makes them of tables that the notebook has anyway. What a table lacks is said to be missing or
left out; nothing is said of numbers that are not there. `answer` joins the numbers of all notebooks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from mtl_core.datasets import multimnist
from mtl_core.datasets.cityscapes import Cityscapes
from mtl_study import artifacts
from mtl_study.analysis import comparisons, frames, inference
from mtl_study.analysis.inference import Interval
from mtl_study.experiments.runs import Run, RunConfig
from mtl_study.look import in_order, label, problem_label
from mtl_study.paper import published
from mtl_study.paper.claims import BARRED, NOT_REPRODUCED, OPEN, REPRODUCED, Verdict, plain
from mtl_study.words import counted, duration, listed, number, percent, spanned, untagged

CL_RR, UNIFORM = "multimnist/CL_RR", "unit_scal"
FEWEST, MOST = 3, 6  # sentences of a notebook


@dataclass(frozen=True)
class Sentence:
    """One finding, and the strongest evidence against it. Raises ValueError where that is missing."""

    says: str
    against: str

    def __post_init__(self) -> None:
        for name in ("says", "against"):  # a label may end with a full stop: "Inst. Seg."
            object.__setattr__(self, name, re.sub(r"(?<!\.)\.\.$", ".", getattr(self, name)))
        if not self.against:
            raise ValueError(f"nothing is said against {self.says!r}; compute what speaks most against it.")


@dataclass(frozen=True)
class Conclusions:
    """What a notebook found: three to six sentences, and the numbers that the report joins with those of others, by
    name. Raises ValueError for fewer sentences, or more."""

    sentences: list[Sentence]
    numbers: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not FEWEST <= len(self.sentences) <= MOST:
            said = "; ".join(sentence.says for sentence in self.sentences)
            raise ValueError(f"{len(self.sentences)} findings, expected {FEWEST} to {MOST}; merge or drop some: {said}")

    def _repr_markdown_(self) -> str:
        return untagged("\n".join(f"* {words(asdict(sentence))}" for sentence in self.sentences))


def words(sentence: Mapping[str, str]) -> str:
    """A sentence and what speaks against it, as Markdown."""
    return f"{sentence['says']} **But** {sentence['against']}"


def conclude(found: Conclusions, *, preset: str, notebook: str, runs: Iterable[Run] = ()) -> Conclusions:
    """Record what a notebook found in artifacts/<preset>/findings/<notebook>.json; at smoke it begins with a warning.

    Args:
        runs: what it rests on, where the first page of the report is to say so (`basis`).

    Raises:
        CannotWrite: the record could not be written.
    """
    if rests_on := basis(runs):
        found = replace(found, numbers={**found.numbers, "basis": rests_on})
    if preset == artifacts.SMOKE:
        first, *rest = found.sentences
        warning = "The preset smoke shows that the code runs; its numbers, these and those below, mean nothing."
        found = replace(found, sentences=[replace(first, says=f"{warning} {first.says}"), *rest])
    artifacts.save_findings(plain(asdict(found)), notebook, preset)
    return found


# -- words that several share ------------------------------------------------------------------------------------------


def points(interval: Sequence[float], unit: str = "points") -> str:
    """ "9.4 points (8.0 to 10.8)"; without an interval the mean alone."""
    mean, low, high = interval[:3]
    known = math.isfinite(low) and math.isfinite(high)
    return f"{number(mean)} {unit}" + (f" ({number(low)} to {number(high)})" if known else "")


def told(interval: Sequence[float]) -> bool:
    """Whether the seeds tell two things apart: the interval of their difference [mean, low, high] is without 0."""
    return interval[1] > 0 or interval[2] < 0


def between(interval: Sequence[float]) -> str:
    """ "1.6 points (−0.9 to 4.0) between them, which may be none": how far two things are apart."""
    return f"{points(interval)} between them{'' if told(interval) else ', which may be none'}"


def ahead(interval: Sequence[float], of: str) -> str:
    """ "2.6 points (−2.8 to 8.1) ahead of it, which may be nothing"; "behind" where the mean is below 0."""
    mean, low, high = interval[:3]
    of = f"{points(interval)} ahead of {of}" if mean >= 0 else f"{points((-mean, -high, -low))} behind {of}"
    return of + ("" if told(interval) else ", which may be nothing")


def side(mean: float, unit: str = "points") -> str:
    """ "10.7 points ahead", "0.3 points behind"."""
    return f"{number(abs(mean))} {unit} {'ahead' if mean >= 0 else 'behind'}"


def still_ahead(sure: int, of: int, left: float) -> str:
    """ "8 of 8 SMTOs still surely lead, by 9.4 points (median)": where both have one learning rate."""
    if sure:
        return f"{sure} of {of} SMTOs still surely lead, by {number(left)} points (median)"
    return f"none of {of} SMTOs still surely leads (median: {side(left)})"


def judged(verdicts: Iterable[Verdict]) -> Sentence:
    """How the rules decided; what is not reproduced, or not decided, is the evidence against, and where that is
    nothing, how little one of them rests on."""
    verdicts = list(verdicts)
    of = {word: [v.id for v in verdicts if v.verdict == word] for word in (REPRODUCED, NOT_REPRODUCED, OPEN, BARRED)}
    decided = len(of[REPRODUCED]) + len(of[NOT_REPRODUCED])
    says = f"Of {counted(len(verdicts), 'statement')} the rules decide {decided or 'none'}"
    if decided:
        says += f": {len(of[REPRODUCED]) or 'none'} {_are(of[REPRODUCED])} reproduced{_named(of[REPRODUCED])}"
    lost = of[NOT_REPRODUCED]
    against = [f"{len(lost)} {_are(lost)} not{_named(lost)}"] if lost else []
    against += [f"{len(of[OPEN])} stay{'s' if len(of[OPEN]) == 1 else ''} open"] if of[OPEN] else []
    against += [f"{len(of[BARRED])} cannot be judged on these runs"] if of[BARRED] else []
    if not against:
        least = min(verdicts, key=lambda v: v.n)
        against = [f"{least.id} rests on {counted(least.n, 'check' if least.unit == 'checks' else 'seed')}, the fewest"]
    return Sentence(f"{says}.", f"{'; '.join(against)}.")


def missed(verdicts: Iterable[Verdict], preset: str) -> str:
    """Which of the paper's own claims are not reproduced, with the reason, as a sentence."""
    if preset == artifacts.SMOKE:
        return "The smoke preset shows that the code runs; its numbers mean nothing, and neither do those in this list."
    verdicts, of = list(verdicts), dict[str, list[str]]()
    for verdict in verdicts:
        if verdict.verdict != REPRODUCED:
            of.setdefault(f"{verdict.verdict}: {verdict.why}", []).append(verdict.id)
    if not of:
        return f"All {len(verdicts)} statements of the paper are reproduced."
    named = "; ".join(f"{listed(ids)} ({why})" for why, ids in of.items())
    return f"Of the paper's own claims not reproduced, open, or not judged here: {named}."


def spent(runs: Iterable[Run]) -> str:
    """How many runs a notebook rests on, how long they took, which diverged, and which solvers took an emergency
    exit; a run that is named twice counts once."""
    known = {run.config.key: run for run in runs}.values()
    diverged = counted(sum(run.diverged for run in known), "run").capitalize()
    return (
        f"{counted(len(known), 'run')}, those shared with other notebooks among them, took "
        f"{duration(sum(run.seconds for run in known))} one after the other. {diverged} diverged. "
        f"{frames.flags_in_words(known)}"
    )


def _named(ids: Sequence[str]) -> str:
    """A few claims by name; where they are many, the verdicts say which."""
    return f" ({listed(ids)})" if 0 < len(ids) <= NAMED else ""


def _are(items: Sequence[Any]) -> str:
    return "is" if len(items) == 1 else "are"


def _sides(table: pd.DataFrame) -> tuple[list[str], list[str], list[str]]:
    """Of a table with low and high the rows that are above 0, below it, and neither; rows without a value are left
    out."""
    known = table.dropna(subset=["mean"])
    above, below = known.index[known.low > 0], known.index[known.high < 0]
    return list(above), list(below), [row for row in known.index if row not in {*above, *below}]


def basis(runs: Iterable[Run]) -> dict[str, str]:
    """What a notebook's numbers rest on, in words by kind of data ("multimnist", …): samples, epochs here and in the
    paper, and batch. Runs of one kind all have the same data. Seeds differ from claim to claim: `answer.basis`."""
    found: dict[str, str] = {}
    for family, of in _by_family(runs).items():
        first, size = of[0], of[0].sizes[0]
        options = first.problem_options
        embedded = first.source == "embedded"
        if family == "multimnist":
            different = 10 * multimnist.DIGITS_PER_CLASS[0] if embedded else multimnist.SIZES["full"][0]
            what = f"{size:,} pairs made of {different:,} handwritten digits"
        elif family == "cityscapes":
            widths = sorted({c.definition.data.width for c in of if isinstance(c.definition.data, Cityscapes)})
            pixels = listed([f"{width} × {width // 2}" for width in widths], last="or")
            kind = "synthetic streets" if embedded else "photographs of Cityscapes"
            what = f"{size:,} {kind}, {pixels} pixels"
        else:
            atoms = f" of at most {options['max_atoms']} atoms" if "max_atoms" in options else ""
            what = f"{size:,} molecules{atoms}"
        slim = f", layers of 1/{options['slim']} of the width" if options.get("slim", 1) > 1 else ""
        theirs = published.training(next((c.problem for c in of if c.problem in published.problems()), first.problem))
        found[family] = (
            f"{what}{slim}; {spanned({c.epochs for c in of}, 'epoch')} (the paper: {theirs.epochs}), batch "
            f"{listed(map(str, sorted({c.batch_size for c in of})))}"
        )
    return found


def _by_family(runs: Iterable[Run]) -> dict[str, list[RunConfig]]:
    """The settings of runs by kind of data."""
    found: dict[str, list[RunConfig]] = {}
    for run in runs:
        found.setdefault(run.config.problem.partition("/")[0], []).append(run.config)
    return found


def ours(runs: Iterable[Run]) -> str:
    """What our numbers rest on, for the tables that have the paper's numbers next to ours."""
    runs = list(runs)
    words, of = basis(runs), _by_family(runs)
    each = (f"{words[family]}, {counted(len({c.seed for c in of[family]}), 'seed')}" for family in of)
    return f"our numbers rest on {'; on '.join(each)}"


# -- 00: the start -----------------------------------------------------------------------------------------------------


def of_first_steps(
    ends: pd.DataFrame,
    readers: Mapping[str, int],
    angle: float,
    ratio: float,
    hurt: Mapping[str, str],
    near: float = 0.1,
) -> Conclusions:
    """Notebook 00.

    Args:
        ends: `start_here.ends`, index method. readers: how many methods read the Gramian, the losses, and more than
            either. angle: between two real gradients, in degrees; ratio: of the longer to the shorter. hurt: by method
            the tasks that a step on these makes worse. near: ends that are closer than this in θ are one.
    """
    apart = list(ends.index[ends["distance of the ends"] >= near])
    farthest = ends["distance of the ends"].idxmax()
    hurting = [label(smto) for smto, tasks in hurt.items() if tasks]
    conflict = "they conflict" if angle > 90 else "they do not conflict"
    sentences = [
        Sentence(
            f"Of {sum(readers.values())} methods {readers['the Gramian']} read the Gramian of the task gradients and "
            f"{readers['the losses']} the losses alone.",
            f"{readers['more']} need to see more, such as another batch, single features or earlier gradients.",
        ),
        Sentence(
            f"On the toy {len(ends) - len(apart)} of {len(ends)} methods end at one point from both starts.",
            f"where {listed(apart)} end{'s' * (len(apart) == 1)} depends on the start."
            if apart
            else f"two starts are few, and those of {farthest} end "
            f"{number(ends['distance of the ends'][farthest], 2)} apart.",
        ),
        Sentence(
            f"On digits two gradients of one batch are {number(angle, 0)}° apart, so {conflict}, and one is "
            f"{number(ratio)} times as long as the other; "
            f"of {counted(len(hurt), 'method')} {listed(hurting, none='none')} would make a task worse.",
            "one batch at one moment of one run proves nothing: that is what the other notebooks are for.",
        ),
    ]
    return Conclusions(sentences)


# -- 01: fifteen methods on two tasks that differ ----------------------------------------------------------------------


def of_selection(
    verdicts: Sequence[Verdict],
    paired: pd.DataFrame,
    one_rate: pd.DataFrame,
    kept: Sequence[str],
    faster: Interval,
    rates: tuple[float, float],
    gains: pd.DataFrame,
) -> Conclusions:
    """Notebook 01.

    Args:
        verdicts: C1 and C2; the first says who is ahead. paired, one_rate: `comparisons.paired` as published, and
            where both have one learning rate. kept: the methods that the paper keeps. faster: what the uniform loss
            gains from the larger rate, in points; rates: its own and the larger one.
            gains: index smto; CL and RR, mean gains in percent.
    """
    better, worse = (
        [row["smto"] for row in verdicts[0].details if row["outcome"] == outcome] for outcome in ("holds", "fails")
    )
    lead = float(paired["mean"].reindex(kept).median())
    sentences = [
        Sentence(
            f"With the paper's settings {len(better)} of {len(paired)} SMTOs surely beat the uniform loss on CL_RR (by "
            f"C1a's intervals); the {len(kept)} that the paper keeps are {side(lead, 'points of Δm')} (median)."
            if better
            else f"None of {len(paired)} SMTOs surely beats the uniform loss on CL_RR.",
            f"{listed(map(label, worse))} {_are(worse)} surely worse." if worse else _least_sure(paired, better),
        )
    ]
    own, larger = rates
    numbers: dict[str, Any] = {"lead": lead, "kept": len(kept), "better": len(better), "methods": len(paired)}
    numbers |= {"rates": [own, larger], "rate_gain": list(faster[:3]), "rate_seeds": faster.n}
    known = one_rate.reindex(kept).dropna(subset=["mean"])
    sure, left = int((known.low > 0).sum()), float(known["mean"].median())
    numbers |= {"lead_at_one_rate": left, "sure_at_one_rate": sure, "compared_at_one_rate": len(known)}
    still = (
        f"of the kept ones, where both have one learning rate, {still_ahead(sure, len(known), left)}."
        if len(known)
        else "there are no runs at one rate for both."
    )
    if larger <= own:
        sentences.append(
            Sentence("No method has a larger learning rate than the uniform loss, so rates explain nothing.", still)
        )
    elif faster.low > 0:
        share = f", {percent(100 * faster.mean / lead, 0)} of that lead" if lead > 0 else ""
        sentences.append(
            Sentence(
                f"With the learning rate {larger:g} in place of {own:g}, which some SMTOs have, the uniform loss gains "
                f"{points(faster)} over {counted(faster.n, 'seed')}{share}.",
                still,
            )
        )
    else:
        sentences.append(
            Sentence(
                f"A learning rate of {larger:g} in place of {own:g} does not surely help the uniform loss: "
                f"{points(faster)}.",
                f"a gain of {number(faster.high)} points is within the interval; {still}",
            )
        )
    others = gains.drop(index=UNIFORM, errors="ignore")
    if UNIFORM in gains.index and len(others):
        cl, rr = gains.CL[UNIFORM], gains.RR[UNIFORM]
        best = others[["CL", "RR"]].mean(axis=1).idxmax()
        under_best = f"under {label(str(best))} it is {percent(-others.RR[best])} and {percent(-others.CL[best])}"
        sentences.append(
            Sentence(
                f"Under the uniform loss the reconstruction is {percent(-rr)} worse than alone, the classification "
                f"{percent(-cl)}.",
                f"the two rulers differ: an accuracy near 100 % cannot fall as far as an error can rise; {under_best}."
                if -rr > -cl > 0
                else f"{under_best}.",
            )
        )
    return Conclusions([*sentences, judged(verdicts)], numbers)


def _least_sure(paired: pd.DataFrame, better: Sequence[str]) -> str:
    """Where no method is surely worse than the uniform loss: what is left to say against the sentence on them."""
    if better and len(better) < len(paired):
        return f"for {len(paired) - len(better)} the seeds cannot tell."
    which, at = ("least", paired["mean"].idxmin()) if better else ("most", paired["mean"].idxmax())
    return f"{label(str(at))}, which gains {which}, is at {number(paired['mean'][at], 1, sign=True)} points."


# -- 02: two similar tasks, and time to target -------------------------------------------------------------------------


def of_similar_tasks(
    verdicts: Iterable[Verdict],
    equivalence: pd.DataFrame,
    margin: float,
    weights: pd.DataFrame,
    famo: pd.DataFrame,
    reach: pd.DataFrame,
    methods: int,
) -> Conclusions:
    """Notebook 02.

    Args:
        equivalence: `similar_tasks.equivalence`, margin in points. weights: `similar_tasks.weights`. famo:
            `similar_tasks.famo_table`: as released first, ours second. reach: `targets.half_way` on CL_RR, of so many
            methods.
    """
    small = int(equivalence.reading.str.contains("equal|by less than").sum())
    unknown = int((equivalence.reading == "cannot tell").sum())
    different = int((equivalence.reading == "different").sum())
    larger = int(equivalence.reading.str.contains("by more than").sum())
    large = equivalence.loc[equivalence.difference.abs().idxmax()]
    at_one = equivalence["reading at one rate"].str.contains("equal|by less than").sum()
    numbers: dict[str, Any] = {"pairs": len(equivalence), "small": small, "different": different, "larger": larger}
    numbers |= {"unknown": unknown, "margin": margin}
    numbers |= {"largest": [f"{large.method} on {large.problem}", float(large.difference)]}
    sentences = [
        Sentence(
            f"Where two tasks are alike, {small} of {len(equivalence)} differences to the uniform loss are shown to be "
            f"smaller than {margin:g} points of Δm ({at_one} at one learning rate).",
            f"{not_so_small(larger, different)}, {unknown} cannot be told, and {large.method} on {large.problem} "
            f"differs by {number(large.difference, 1, sign=True)} points.",
        )
    ]
    compared = weights.dropna(subset="reading")
    if len(compared):
        farthest = float(compared["mean |w₁ − ½|"].max())
        numbers["farthest_weight"] = farthest
        nearer = int((compared.reading == "nearer").sum())
        theirs, ours = famo["mean |w₁ − ½|"].iloc[0], famo["mean |w₁ − ½|"].iloc[1]
        sentences.append(
            Sentence(
                f"Learnt weights stay within {number(farthest, 2)} of ½ there on average; {nearer} of {len(compared)} "
                "are nearer to it than the same method's where the tasks differ.",
                f"FAMO as the paper ran it strays by {number(theirs, 3)} on CL_CR, ours by {number(ours, 3)}"
                + (": the released code looks at a batch again under new masks (D42)." if theirs > ours else "."),
            )
        )
    if len(reach):
        first = reach.iloc[0]
        firsts = reach[reach.share == first.share]
        names = listed(label(str(smto)) for smto in firsts.index)
        numbers |= {"reach": len(reach), "of": methods, "first": names, "first_share": float(first.share)}
        never, last = methods - len(reach), reach.share.idxmax()
        sentences.append(
            Sentence(
                f"On CL_RR {len(reach)} of {methods} SMTOs reach what the uniform loss ends with at the same settings, "
                f"the first, {numbers['first']}, after {percent(100 * first.share, 0)} of its epochs (median).",
                f"{never} never {'does' if never == 1 else 'do'}."
                if never
                else f"{label(str(last))} takes {percent(100 * reach.share[last], 0)} of them.",
            )
        )
    else:
        sentences.append(
            Sentence(
                "No SMTO reaches what the uniform loss ends with on CL_RR in half of its runs.",
                f"only {counted(methods, 'method')} were timed, each in one setting.",
            )
        )
    return Conclusions([*sentences, judged(verdicts)], numbers)


def not_so_small(larger: int, different: int) -> str:
    """Of differences whose interval is beyond the margin, and of those whose interval is without 0 and reaches beyond
    it."""
    are = ["is" if many == 1 else "are" for many in (larger, different)]
    return f"{larger or 'none'} {are[0]} surely larger, {different or 'none'} {are[1]} surely not 0 and may be larger"


# -- 02b: does the cosine C tell? --------------------------------------------------------------------------------------

NUMBER_OF_TASKS = "1/√K"  # what C is where tasks have nothing to do with each other
CALLED = {
    NUMBER_OF_TASKS: "1/√K, which knows only the number of tasks,",
    "norm ratio": "the longest gradient's length over the shortest's",
    "pairwise cosine": "the pairwise cosine",
}
NAMED = 5  # claims that a sentence lists; of more it gives the number
_RIGHT = 10.0  # degrees from a right angle


def of_the_cosine(
    verdicts: Iterable[Verdict], angles: pd.DataFrame, features: pd.DataFrame, different: str, ranking: pd.DataFrame
) -> Conclusions:
    """Notebook 02b.

    Args:
        angles: index problem; cosine_to_mean and pairwise_cosine under the uniform loss, on the shared parameters;
            features: the same on the features. different: the problem whose tasks differ. ranking:
            `similar_tasks.ranking`.
    """
    degrees = pd.Series(np.rad2deg(np.arccos(angles.pairwise_cosine)), angles.index)
    each = listed(f"{degrees[problem]:.0f}° on {problem_label(str(problem))}" for problem in degrees.index)
    alike = angles.drop(index=different)
    drop = float(alike.cosine_to_mean.mean() - angles.cosine_to_mean[different])
    lowest = str(features.pairwise_cosine.idxmin())
    turned = (
        f"on the features the lowest pairwise cosine, {number(features.pairwise_cosine[lowest], 2)}, is that of "
        f"{problem_label(lowest)}, whose tasks {'differ' if lowest == different else 'are alike'}."
    )
    equal = math.sqrt((1 + angles.pairwise_cosine[different]) / 2)
    there = float(features.cosine_to_mean.drop(index=different).mean() - features.cosine_to_mean[different])
    sentences = [
        Sentence(
            f"Under the uniform loss the gradients of the two tasks are at {each}."
            + (
                " All are close to a right angle: by their gradients, similar tasks are hardly more alike than "
                "different ones."
                if (degrees - 90).abs().max() < _RIGHT
                else ""
            ),
            turned,
        ),
        Sentence(
            f"C is {number(drop, 2)} lower on {problem_label(different)} than on the problems with similar tasks."
            if drop > 0
            else f"C is not lower on {problem_label(different)} than on the problems with similar tasks.",
            f"with equally long gradients at that angle it would be {number(equal, 2)} there, not "
            f"{number(angles.cosine_to_mean[different], 2)}, so "
            f"{_share_of(equal - angles.cosine_to_mean[different], drop)} of the drop comes from unequal lengths."
            if drop > 0
            else f"on the features it is {number(abs(there), 2)} {'lower' if there > 0 else 'higher'} there.",
        ),
    ]
    gap = ranking.columns[-1]
    problems = ranking[ranking.C.notna() & ranking[gap].notna()]
    c, *others = (inference.spearman(problems[name], problems[gap]) for name in ("C", *CALLED))
    rho = {name: other.rho for name, other in zip(CALLED, others, strict=True)}
    rivals = sorted((name for name in CALLED if math.isfinite(rho[name])), key=lambda name: -abs(rho[name]))
    numbers: dict[str, Any] = {"rho": c.rho, "p": c.p, "rho_of_floor": rho[NUMBER_OF_TASKS], "problems": len(problems)}
    numbers["rival"] = [rivals[0], rho[rivals[0]]] if rivals else [NUMBER_OF_TASKS, math.nan]
    if math.isfinite(c.rho):
        rest = (
            f"{CALLED[name]} has {number(rho[name], 2)}{' (stronger)' if abs(rho[name]) > abs(c.rho) else ''}"
            for name in rivals
        )
        sentences.append(
            Sentence(
                f"Over {len(problems)} problems the paper's C has a rank correlation of {number(c.rho, 2)} with IMTL's "
                f"gain at one learning rate (p = {number(c.p, 2)}; the paper's reading asks for −1).",
                f"{listed(rest)}; of unrelated tasks C is 1/√K (D29).",
            )
        )
    return Conclusions([*sentences, judged(verdicts)], numbers)


def _share_of(part: float, whole: float) -> str:
    """How much of a difference a part of it is, in words."""
    share = round(100 * part / whole)
    return "all" if share >= 100 else percent(share, 0) if share > 0 else "none"


# -- 03: the ladder ----------------------------------------------------------------------------------------------------


def of_ladder(
    verdicts: Iterable[Verdict],
    here: pd.Series,
    both_forms: pd.DataFrame,
    one_rate: pd.DataFrame,
    turned: Sequence[str],
    cosines: pd.DataFrame,
    runs: Sequence[Run],
) -> Conclusions:
    """Notebook 03.

    Args:
        here: by statement "holds", "does not hold" or "cannot tell" on these data. both_forms: rows as of
            `delta.selected` with imtl, imtl_transposed and the uniform loss on every step; one_rate: imtl at one rate.
            turned: the statements that come out otherwise with the transposed form. cosines: index problem, in order;
            num_tasks, cosine_to_mean, pairwise_cosine under the uniform loss.
    """
    drawn = any(run.config.source == "embedded" for run in runs)
    holds, fails = ((here == word).sum() for word in ("holds", "does not hold"))
    on = "synthetic streets" if drawn else "Cityscapes"
    sentences = [
        Sentence(
            f"On {on} {holds} of {len(here)} statements of the section hold, {counted(fails, 'does', 'do')} not, and "
            f"for {len(here) - holds - fails} the seeds cannot tell.",
            "drawn streets decide nothing about Cityscapes, whatever they show." if drawn else f"{ours(runs)}.",
        )
    ]
    published_gap, matched, other = (_gaps(table, smto) for table, smto in _forms(both_forms, one_rate))
    last = published_gap.index[-1]
    sentences.append(
        Sentence(
            f"On {problem_label(str(last))}, with the paper's settings, IMTL is "
            f"{ahead(list(published_gap.loc[last]), 'the uniform loss')}.",
            _moved_by_rates(published_gap, matched),
        )
    )
    known = other.dropna(subset=["mean"])
    if len(known):
        both = listed(
            f"{number(published_gap['mean'][problem], 1, sign=True)} and {number(row['mean'], 1, sign=True)} on "
            f"{problem_label(str(problem))}"
            for problem, row in known.iterrows()
        )
        sentences.append(
            Sentence(
                "With three tasks the paper ran IMTL's transposed form (D24); the gaps of the correct form and of that "
                f"one are, in points, {both}.",
                f"with it {listed(turned)} {'comes' if len(turned) == 1 else 'come'} out otherwise, so it matters "
                "to the paper's story which form was run."
                if turned
                else "no statement comes out otherwise with it.",
            )
        )
    two, three = (cosines[cosines.num_tasks == k][["cosine_to_mean", "pairwise_cosine"]].mean() for k in (2, 3))
    numbers: dict[str, Any] = {"holds": int(holds), "statements": len(here), "drawn": drawn}
    numbers |= {"gap": list(published_gap.loc[last])[:3], "turned": len(turned)}
    if two.notna().all() and three.notna().all():
        alone = 2**-0.5 - 3**-0.5
        fall = two.cosine_to_mean - three.cosine_to_mean
        sentences.append(
            Sentence(
                f"From two tasks to three C falls by {number(fall, 2)}; unrelated gradients of equal length fall by "
                f"{number(alone, 2)} for the number of tasks alone (D29).",
                "the pairwise cosine, which does not depend on that number, goes from "
                f"{number(two.pairwise_cosine, 2)} to {number(three.pairwise_cosine, 2)}.",
            )
        )
    return Conclusions([*sentences, judged(verdicts)], numbers)


def _forms(both: pd.DataFrame, one_rate: pd.DataFrame) -> list[tuple[pd.DataFrame, str]]:
    return [(both, "imtl"), (one_rate, "imtl"), (both, "imtl_transposed")]


def _gaps(table: pd.DataFrame, smto: str) -> pd.DataFrame:
    """Index problem, in order of appearance: mean, low, high of the method minus the uniform loss."""
    rows = {}
    for problem, found in table.groupby("problem", sort=False):
        of = found[found.smto.isin([smto, UNIFORM])]
        if {smto, UNIFORM} <= set(of.smto):
            rows[problem] = comparisons.paired(of).loc[smto, ["mean", "low", "high"]]
    return pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "low", "high"])


def _moved_by_rates(as_published: pd.DataFrame, matched: pd.DataFrame) -> str:
    """Where the gap at one rate is another than with the published ones; or the problem with the most different gap."""
    both = as_published.join(matched.add_suffix("_matched")).dropna()
    moved = both[(both["mean"] - both.mean_matched).abs() > 1e-9]
    if moved.empty:
        gaps = as_published["mean"]
        other = (gaps - gaps.iloc[-1]).abs().idxmax()
        return f"on {problem_label(str(other))} it is {number(gaps[other], 1, sign=True)} points."
    each = [
        f"on {problem_label(str(problem))} a gap of {number(row['mean'], 1, sign=True)} points becomes "
        f"{number(row.mean_matched, 1, sign=True)} at one learning rate"
        for problem, row in moved.iterrows()
    ]
    return f"{listed(each)}."


# -- 04: molecules -----------------------------------------------------------------------------------------------------


def of_molecules(
    verdicts: Sequence[Verdict],
    paired: pd.DataFrame,
    imtl: pd.DataFrame,
    cosines: pd.Series,
    steps: tuple[int, int],
    runs: Sequence[Run],
) -> Conclusions:
    """Notebook 04.

    Args:
        paired: `comparisons.paired`. imtl: `qm9.imtl_table`: the correct form, then the transposed one. cosines: of the
            uniform loss, cosine_to_mean and pairwise_cosine, and floor (1/√K). steps: of a run here and in the paper.
    """
    of = {verdict.id: verdict for verdict in verdicts}
    better, worse, open_ = _sides(paired)
    half = float(((paired.high - paired.low) / 2).median())
    sentences = [
        Sentence(
            f"On QM9 {len(better)} of {len(paired)} SMTOs are surely better than the uniform loss, {len(worse)} surely "
            f"worse; for {len(open_)} the seeds cannot tell.",
            f"an interval reaches {number(half, 0)} points to either side (median)"
            + (": this says little either way." if len(open_) > len(paired) / 2 else "."),
        )
    ]
    form = ("its correct form", "the transposed one that the paper ran (D24)")
    lost = [
        f"{int(row.diverged)} of {int(row.runs)} runs of {name}"
        for name, (_, row) in zip(form, imtl.iterrows(), strict=True)
    ]
    here, theirs = steps
    sentences.append(
        Sentence(
            f"IMTL, which the paper drops because it overflows, overflows in {listed(lost)}.",
            f"these are {here:,} steps of the paper's {theirs:,}; what happens later is not seen."
            if here < theirs
            else f"{ours(runs)}.",
        )
    )
    numbers: dict[str, Any] = {"better": len(better), "worse": len(worse), "methods": len(paired), "half": half}
    if "C10-ranking a" in of and of["C10-ranking a"].n:
        numbers["rho_by_seed"] = of["C10-ranking a"].estimate
    if {"C11a", "C11c"} <= set(of) and of["C11a"].estimate and of["C11c"].estimate:
        raw, rest = of["C11a"], of["C11c"]
        sentences.append(
            Sentence(
                f"RotoGrad's rotation loss is {_times(raw)} as large on QM9 as on CL_RR, both at the paper's batches.",
                f"with the lengths of the gradients and the batch taken out it is {_times(rest)} as large.",
            )
        )
    agree = cosines.pairwise_cosine > 0
    sentences.append(
        Sentence(
            f"C is {number(cosines.cosine_to_mean, 2)} on QM9, and that of as many unrelated tasks with equally long "
            f"gradients is {number(cosines.floor, 2)}.",
            f"the pairwise cosine is {number(cosines.pairwise_cosine, 2)}: on average these gradients "
            f"{'agree' if agree else 'conflict'}.",
        )
    )
    return Conclusions([*sentences, judged(verdicts)], numbers)


def _times(verdict: Verdict) -> str:
    interval = (verdict.estimate, verdict.low, verdict.high)
    mean, low, high = (math.nan if x is None else x for x in interval)
    return points((mean, low, high), "times")


def suspects(forms: pd.DataFrame, condition: pd.Series, reach: float) -> tuple[str, str]:
    """Why IMTL overflows on QM9: what runs say of two suspects, the transposed matrix (D24) and the learnt scales.

    Args:
        forms: `qm9.imtl_table`: the correct form, then the transposed one. condition: by epoch, with the transposed
            form, the mean log₁₀ of the condition number of M. reach: what the logarithm of a scale can move in all
            steps, their number times the learning rate.

    Returns:
        A sentence on each.
    """
    ours, theirs = (row for _, row in forms.iterrows())
    lost, of, lost_there, of_there = (int(row[name]) for row in (ours, theirs) for name in ("diverged", "runs"))
    limit = f"All steps together bring a scale e^s to e^{number(reach, 2)}"
    largest, rest = max(ours["largest e^s"], theirs["largest e^s"]), number(ours["e^s at rest"])
    if lost_there and not lost:
        return (
            f"**supported**: {lost_there} of {of_there} runs overflow with the transposed form, none with the "
            "correct one, and nothing else differs.",
            f"**refuted as the only cause**: the correct form has the same scales, up to "
            f"{number(ours['largest e^s'])}, and none of its runs diverged.",
        )
    if lost:
        only = "only the correct form overflowed" if not lost_there else "the correct form overflows, too"
        return (
            f"**refuted{'' if not lost_there else ' as the only cause'}**: {only}, in {lost} of {of} runs.",
            f"**not refuted**: runs diverge with the correct form, too, with scales up to "
            f"{number(ours['largest e^s'])}. {limit} at most.",
        )
    peaks = (
        f"no run overflowed; the largest |α| of any step is {number(theirs['largest |α|'], 2)} with the transposed "
        f"form, {number(ours['largest |α|'], 2)} with the correct one"
    )
    transposition = (
        f"**not refuted**: {peaks}."
        if theirs["largest |α|"] > _LARGE
        else f"**not seen in these runs**: {peaks}. The condition number of M went from {10 ** condition.iloc[0]:.3g} "
        f"in the first epoch to {10 ** condition.iloc[-1]:.3g} in the last, and without a badly conditioned system the "
        "transposition does little."
    )
    if reach < math.log(_LARGE):
        return transposition, (
            f"**not put to the test**: {limit} = {number(math.exp(reach), 2)} at most; the largest is "
            f"{number(largest, 2)}. So no scale could overflow in these runs, however far it still had to go to {rest} "
            "(1/L, in the last epoch)."
        )
    return transposition, (
        f"**not seen in these runs**: the largest scale is {number(largest, 2)}, on the way to {rest} (1/L, in the "
        f"last epoch), where the loss would stop it. {limit} at most."
    )


_LARGE = 10.0  # a weight or a scale that overflows nothing


# -- 05: weights taken from an SMTO ------------------------------------------------------------------------------------


def of_fixed_weights(
    verdicts: Sequence[Verdict],
    table_2: pd.DataFrame,
    source: str,
    replaced: pd.DataFrame,
    by_source: Mapping[float, pd.DataFrame],
    drift: pd.DataFrame,
) -> Conclusions:
    """Notebook 05.

    Args:
        table_2: rows of `fixed_weights.by_seed`. source: of the fixed weights on CL_RR. replaced:
            `fixed_weights.replaced`. by_source: `delta.selected` of the fixed weights
            on QM9 by the learning rate of the run that they come from. drift: `task_weights.drift`.
    """
    rows = table_2[table_2.problem == CL_RR]
    gained = inference.t_interval(rows.fixed - rows.unit_scal)
    left = inference.t_interval(rows.best_smto - rows.fixed)
    best, (theirs, of_best) = label(str(rows.best.iloc[0])), rows[["lr", "lr of best"]].iloc[0]
    rates = f" (at the learning rate {of_best}; theirs is {theirs})" if theirs != of_best else ""
    equal = list(replaced.index[replaced.p < inference.TOST])
    unknown = [problem for problem in replaced.index if problem not in equal]
    near = replaced.p.fillna(1).idxmin() if unknown else replaced.p.idxmax()
    sentences = [
        Sentence(
            f"Weights taken from one run of {label(source)} on CL_RR and then held fixed are "
            f"{ahead(gained, 'the uniform loss')}.",
            f"the SMTO that validation prefers, {best}{rates}, is {ahead(left, 'them')}."
            if left.mean > 0
            else f"at the seed that is worst for them it is {number((rows.fixed - rows.unit_scal).min())} points.",
        ),
        Sentence(
            f"On {len(equal)} of {len(replaced)} problems fixed weights are shown to be as good as the method that "
            "they come from, within one standard deviation between its seeds.",
            f"on {listed(unknown)} they are not shown to be."
            if unknown and equal
            else f"on {near}, where the test {'comes nearest to showing it' if unknown else 'shows it least'} (p = "
            f"{number(replaced.p[near], 3)}), the difference is "
            f"{number(replaced['fixed − source'][near], 2, sign=True)} points "
            f"({replaced['95 % interval'][near]}), and the margin is {number(replaced.margin[near], 2)}.",
        ),
    ]
    means = {lr: float(table.delta_m.mean()) for lr, table in by_source.items()}
    if len(means) > 1:
        low, high = min(means, key=lambda lr: means[lr]), max(means, key=lambda lr: means[lr])
        noise = float(np.median([table.delta_m.std(ddof=1) for table in by_source.values()]))
        sentences.append(
            Sentence(
                f"On QM9, by the run that the weights come from, Δm goes from {percent(means[low])} (source at "
                f"learning rate {low:g}) to {percent(means[high])} ({high:g}).",
                f"seeds of one set of weights differ by {number(noise)} points (standard deviation, median over sets).",
            )
        )
    intervals = settling(drift)
    slower, faster = (sum(1 for i in intervals.values() if test(i)) for test in (_below_zero, _above_zero))
    if intervals:
        sentences.append(
            Sentence(
                f"Of {counted(len(intervals), 'pair')} of a problem and a method whose weights move, {slower} slow "
                f"down with their whole interval, {faster} speed up.",
                "the learning rate falls, too, so weights that follow the network slow down with it."
                if slower
                else f"for {len(intervals) - faster} the seeds cannot tell.",
            )
        )
    return Conclusions([*sentences, judged(verdicts)], {"fixed": list(gained[:3])})


def settling(drift: pd.DataFrame) -> dict[tuple[str, str], Interval]:
    """By problem and method the mean log ratio of late to early speed, of those whose weights move."""
    known = drift[np.isfinite(drift.log_ratio)]
    groups = known.groupby(["problem", "smto"], sort=False)
    return {(str(p), str(s)): inference.t_interval(rows.log_ratio) for (p, s), rows in groups}


def _below_zero(interval: Interval) -> bool:
    return interval.high < 0


def _above_zero(interval: Interval) -> bool:
    return interval.low > 0


# -- 05b: an SMTO, or a sweep ------------------------------------------------------------------------------------------


def of_a_sweep(
    verdicts: Sequence[Verdict],
    answer: pd.DataFrame,
    located: pd.DataFrame,
    own: pd.DataFrame,
    money: Mapping[str, Sequence[str]],
    width: float,
    best: pd.DataFrame,
) -> Conclusions:
    """Notebook 05b, all on CL_RR.

    Args:
        verdicts: Xin-compute among them, on a network `width` times as wide. answer: of "An SMTO, or a sweep?", index
            problem. located, own: `fronts.placed` and `fronts.placed_at_own_rate`. money: `fronts.for_the_money`.
            best: `fronts.winners`.
    """
    row = answer.loc[problem_label(CL_RR)]
    trying, enough = float(row["price of trying all"]), str(row["runs that reach it"])
    numbers: dict[str, Any] = {"price": float(row["its price"]), "price_of_all": trying, "enough": enough}
    numbers |= {"best": row["best SMTO"], "best_delta_m": float(row["its Δm"]), "sweep": int(row["runs of the sweep"])}
    gap = answer.attrs["gaps"][problem_label(CL_RR)]
    numbers |= {"sweep_delta_m": float(row["Δm of its best"]), "gap_to_sweep": list(gap[:3]), "seeds": gap.n}
    count = {word: int((located.word == word).sum()) for word in ("beyond", "on", "inside", "cannot tell")}
    there = int((own.word == "beyond").sum())
    tried, bought = sum(map(len, money.values())), len(money["more"])
    buys = f"; for the price of one run {bought} of {tried} surely buy more hypervolume than the sweep" * (bought > 0)
    compared = pd.DataFrame(next(v.details for v in verdicts if v.id == "Xin-compute"))
    better, worse, open_ = (int((compared.outcome == outcome).sum()) for outcome in ("fails", "holds", "open"))
    unsure = f"for {open_} the seeds cannot tell."
    if not open_:
        odd = compared.loc[compared["mean"].idxmin() if better >= worse else compared["mean"].idxmax()]
        side = "ahead of" if odd["mean"] > 0 else "behind"
        unsure = f"{label(odd.smto)} is {number(abs(odd['mean']))} points {side} it."
    changes = int((best.smto != best.smto.shift()).sum()) - 1
    sentences = [
        Sentence(
            f"A sweep of {numbers['sweep']} runs of fixed weights, the best kept by validation, comes to "
            f"{percent(numbers['sweep_delta_m'])} on CL_RR, the best SMTO, {numbers['best']}, to "
            f"{percent(numbers['best_delta_m'])}: {between(gap)}.",
            f"no number of the sweep's runs reaches the SMTO on average; choosing it took {number(trying, 0)} runs of "
            "the uniform loss, since all had to be tried."
            if enough == "–"
            else f"{counted(int(enough), 'run')} of the sweep reach it on average, and choosing the SMTO took "
            f"{number(trying, 0)}.",
        ),
        Sentence(
            f"Of {len(located)} SMTOs {count['beyond']} are beyond the front of the sweep, {count['on']} on it, "
            f"{count['inside']} inside; for {count['cannot tell']} the seeds cannot tell.",
            f"against the sweep at its own learning rate alone, {there} of {len(own)} are beyond{buys}.",
        ),
        Sentence(
            f"Of {len(compared)} methods that read the gradients of the parameters, {better} surely "
            f"{'beats' if better == 1 else 'beat'} the uniform loss with a network {width:g} times as wide at the same "
            f"learning rate, {worse} {'is' if worse == 1 else 'are'} surely worse (by Xin-compute's intervals).",
            unsure,
        ),
        Sentence(
            f"Which method is best depends on what one wants: first place changes {counted(changes, 'time')} on the "
            "way from one task alone to the other alone.",
            f"the sweep is never more than {number(max(-float(best.lead.min()), 0.0))} points behind the best SMTO"
            + (f", and up to {number(float(best.lead.max()))} ahead." if best.lead.max() > 0 else "."),
        ),
    ]
    return Conclusions([*sentences, judged(verdicts)], numbers)


# -- 05c: other ways to find weights, and what else moves a result -----------------------------------------------------


def of_other_ways(
    verdicts: Sequence[Verdict],
    by_strategy: Mapping[str, pd.Series],
    random: str,
    by_rate: pd.DataFrame,
    by_batch: pd.DataFrame,
    lr: float,
    batch: int,
    lead: pd.DataFrame,
    parts: pd.DataFrame,
) -> Conclusions:
    """Notebook 05c, all on CL_RR.

    Args:
        by_strategy: Δm by seed of each way to find weights; random: the name of random points of the sweep.
            by_rate: rows of `delta.selected` with a column lr, the uniform loss among them. by_batch: as of
            `sweeps.gains_by_batch`; lr, batch: those of the uniform loss elsewhere. lead: a row per method and seed:
            lead_plain, lead_tuned (in points, without and with regularisation). parts: `generalisation.parts` of SMTOs
            against the uniform loss.
    """
    sentences, numbers = [], dict[str, Any]()
    means = {name: float(values.mean()) for name, values in by_strategy.items()}
    if "population" in by_strategy:
        gained = inference.t_interval(by_strategy["population"] - by_strategy[random])
        others = {name: mean for name, mean in means.items() if name not in ("population", random)}
        best = max(others, key=lambda name: others[name])
        sentences.append(
            Sentence(
                f"Weights that populations find end at {percent(means['population'])} on CL_RR, {random} at "
                f"{percent(means[random])} for the same cost: {between(gained)}.",
                f"{'another' if others[best] > means['population'] else 'the next best'} way ({best}) ends at "
                f"{percent(means[best])}.",
            )
        )
    equal = _leads_by_rate(by_rate)
    names = listed(label(smto) for smto in in_order(by_rate.smto) if smto != UNIFORM)
    numbers |= {"leads_by_rate": {f"{lr:g}": lead_there for lr, lead_there in equal.items()}, "led": names}
    numbers["batch"], of_batches = batch, _of_batches(by_batch, lr, batch)
    sentences.append(_of_rates(names, equal, None if of_batches else batch))
    if of_batches:
        sentences.append(of_batches[0])
        numbers["by_batch"] = of_batches[1]
    leads = lead.groupby("smto")[["lead_plain", "lead_tuned"]].mean().dropna()
    if len(leads):
        bare, tuned = float(leads.lead_plain.mean()), float(leads.lead_tuned.mean())
        share, stays = leads.lead_tuned / leads.lead_plain, tuned > bare / 2
        odd = share.idxmin() if stays else share.idxmax()
        sentences.append(
            Sentence(
                f"With dropout, weight decay and early stopping tuned for everybody {number(tuned)} of {number(bare)} "
                "points of lead on CL_RR remain"
                + (": it is not regularisation, in trainings as short as these." if stays else "."),
                f"{'least' if stays else 'most'} remains for {label(str(odd))}: {number(leads.lead_tuned[odd])} of "
                f"{number(leads.lead_plain[odd])}.",
            )
        )
    apart = parts.groupby("smto")[["generalisation", "optimisation"]].mean().dropna()
    apart = apart[apart.sum(axis=1) > 0]
    if len(apart):
        further = int((apart.optimisation > apart.generalisation).sum())
        sentences.append(
            Sentence(
                f"Of {len(apart)} SMTOs that lead the uniform loss in the same settings, {further} owe more of it to "
                "optimisation than to generalisation: they get further down on the training loss.",
                f"at equal training loss they still lead by {number(float(apart.generalisation.mean()))} points of Δm "
                "(mean)."
                if apart.generalisation.mean() > 0
                else f"at equal training loss {label(str(apart.generalisation.idxmax()))} leads by "
                f"{number(apart.generalisation.max())} points.",
            )
        )
    return Conclusions([*sentences, judged(verdicts)], numbers)


def _leads_by_rate(by_rate: pd.DataFrame) -> dict[float, float]:
    """By learning rate the mean lead of the methods over the uniform loss at that rate, in points."""
    found = {}
    for lr, rows in by_rate.groupby("lr"):
        if UNIFORM in set(rows.smto):
            found[float(str(lr))] = float(comparisons.differences(rows).mean().mean())
    return found


def _of_rates(names: str, leads: Mapping[float, float], batch: int | None) -> Sentence:
    """The lead over the uniform loss by learning rate, and what may be speed, or the batch if there is but one."""
    each = [f"{number(value)} at {lr:g}" for lr, value in leads.items()]
    largest = max(leads)
    against = (
        ["the lead is smaller at the largest rate than at its best: part of it may be speed"]
        if leads[largest] < max(leads.values())
        else [f"no rate above {largest:g} was tried"]
    )
    if batch:
        against.append(f"all these runs have the batch {batch}, so what the batch does is not known")
    at = "equal learning rates" if len(leads) > 1 else "the one learning rate that both have"
    return Sentence(
        f"At {at} {names} lead the uniform loss on CL_RR by {listed(each)} points (means).", f"{'; '.join(against)}."
    )


def _by_place(by_batch: pd.DataFrame, value: str) -> pd.DataFrame:
    """A row per seed, a column per method, learning rate and batch: of the rates that have several batches, the methods
    that are in all these places, over the seeds that all of them have there."""
    several = by_batch.groupby("lr")["batch"].transform("nunique") > 1
    found = by_batch[several].pivot_table(index="seed", columns=["smto", "lr", "batch"], values=value)
    places = found.columns.droplevel("smto").nunique()
    whole = [smto for smto, of in found.T.groupby(level="smto") if len(of) == places]
    return found[whole].dropna()


def _of_batches(by_batch: pd.DataFrame, lr: float, batch: int) -> tuple[Sentence, dict[str, Any]] | None:
    """What the batch does to the uniform loss and to the lead over it; and that as numbers. None while runs are
    missing."""
    if by_batch[by_batch.lr == lr].batch.nunique() < 2:
        return None
    table = _by_place(by_batch, "delta_m")
    methods = in_order({*table.columns.get_level_values("smto")} - {UNIFORM})
    if not len(table) or not methods or (UNIFORM, lr, batch) not in table:
        return None
    uniform = table[UNIFORM]
    alone = {b: inference.t_interval(uniform[lr, b] - uniform[lr, batch]) for b in uniform[lr].columns if b != batch}
    best = max(alone, key=lambda b: alone[b].mean)
    rate, size = _by_place(by_batch, "val_delta_m")[UNIFORM].mean().idxmax()
    left = [float((table[smto, rate, size] - uniform[rate, size]).mean()) for smto in methods]
    mean, names = float(np.mean(left)), listed(label(smto) for smto in methods)
    rates, sizes = (uniform.columns.get_level_values(level) for level in ("lr", "batch"))
    edges = [f"no rate above {rate:g}"] * bool(rate == rates.max())
    edges += [f"no batch above {size:g}"] * bool(size == sizes.max())
    against = [
        f"single methods lead by {number(min(left))} to {number(max(left))} there",
        f"all have {spanned(by_batch.steps, 'step')}, and so a smaller batch has fewer epochs",
    ]
    sentence = Sentence(
        f"On CL_RR at the rate {lr:g} {_best_of(alone, best)} the uniform loss: {best:g} in place of {batch} gives it "
        f"{points(alone[best])}, for about as many steps. With the rate and the batch that suit it best on validation "
        f"({rate:g}, {size:g}) {names} lead by {number(mean)} points (mean).",
        "; ".join([*against, f"{listed(edges)} was tried"] if edges else against) + ".",
    )
    numbers = {"best": int(best), "alone": list(alone[best])[:3], "suits": [f"{rate:g}", int(size)], "left": mean}
    numbers |= {"sizes": sorted(int(b) for b in alone), "edges": edges}
    return sentence, numbers | {"led": names}


def _best_of(alone: Mapping[Any, Interval], best: float) -> str:
    """What other batches do to the uniform loss, by their differences to the one that it has."""
    others = listed((f"{b:g}" for b in sorted(alone)), last="or")
    return f"another batch ({others}) helps" if alone[best].low > 0 else f"no other batch ({others}) surely helps"


# -- 06: proofs --------------------------------------------------------------------------------------------------------


def of_proofs(
    verdicts: Iterable[Verdict], record: pd.DataFrame, apart: Mapping[str, float], heads: tuple[float, float]
) -> Conclusions:
    """Notebook 06.

    Args:
        record: a row per check: proposition, check, passed. apart: by method the largest share that one of three
            equally long gradients gets, two of which agree. heads: how far Adam's heads end from their way without
            weights, as shares of it: under a constant weight, and under one that grows tenfold.
    """
    failed = [
        f"{row.check} (Proposition {row.proposition})" for row in record[~record.passed.astype(bool)].itertuples()
    ]
    constant, growing = heads
    sentences = [
        Sentence(
            f"{listed(failed)} {'does' if len(failed) == 1 else 'do'} not hold as the paper has it."
            if failed
            else f"All {len(record)} checks of the propositions pass: with two gradients of equal length the methods "
            "give equal weights, under the conditions that are given with them.",
            _unless_three(apart)
            if not failed
            else f"the other {counted(len(record) - len(failed), 'check passes', 'checks pass')}.",
        ),
        Sentence(
            "Under Adam without weight decay a constant weight on a loss moves its head by "
            f"{percent(100 * constant, 3)} of its way.",
            f"a weight that grows tenfold half way moves it by {percent(100 * growing, 0)}, and SMTOs change theirs in "
            "every step.",
        ),
    ]
    return Conclusions([*sentences, judged(verdicts)])


def _unless_three(apart: Mapping[str, float]) -> str:
    unequal = {smto: share for smto, share in apart.items() if share > 1 / 3 + 1e-6}
    if not unequal:
        return f"three tasks were tried with {counted(len(apart), 'method')} alone."
    most = max(unequal, key=lambda smto: unequal[smto])
    return (
        f"with three tasks equal lengths are not enough: {listed(map(label, unequal))} weigh them unequally, "
        f"{label(most)} up to {number(unequal[most], 2)} for one."
    )
