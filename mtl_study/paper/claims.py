"""A computed verdict on each of the paper's claims.

    claims.judge("C1", selected, preset="quick", notebook="01_mnist_selection")

`rules` says how a claim is decided. Numbers are compared with bounds by intervals over the seeds, never by their means
alone:

    reproduced          the whole interval supports the claim
    not reproduced      the whole interval contradicts it
    open                the interval crosses the line, there are too few seeds, or seeds without a number; it is said
                        what would settle it
    cannot be judged    the preset is too small for it, or the data are not those that it speaks of

Means have t intervals, shares of runs exact ones. For a count "at least u of n" either verdict is wrong with a
probability of 2.5 % at most, however the methods depend on each other. It takes u intervals on the right side, each at
level 1 − 0.05/(n − u + 1), to support the claim: if fewer than u held in truth, the interval of one of the n − u + 1 or
more others would have missed. To contradict it takes n − u + 1 intervals on the wrong side, each at level 1 − 0.05/u;
for these the variances of several methods are averaged (`inference.moderated`).

A t interval supposes that seeds are about normal. Differences between methods are so even where seeds are skewed; a
level of a skewed number is not: with lognormal seeds (skewness 6) a single interval misses in 11 to 18 % in place of
5, nearly always below the truth. Verdicts on levels of weights (C3d, C9c, Xin-static a) have to be read with that.

Of a count one comparison decides and is the verdict's estimate: the u-th, where those come first that hold, then those
that are open, both by the margin of their means.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from mtl_core import files
from mtl_study import artifacts
from mtl_study.analysis import inference
from mtl_study.analysis.delta import LEVEL
from mtl_study.analysis.inference import Interval
from mtl_study.look import label, problem_label
from mtl_study.paper import published
from mtl_study.paper.rules import (
    LOOKED_AT,
    BadEvidence,
    Checks,
    Compared,
    Count,
    Part,
    Rank,
    Share,
    expand,
    named,
    named_parts,
    names,
    pairs,
    parts,
)
from mtl_study.words import counted, duration, listed, minus, sized

__all__ = ["BadEvidence", "names", "pairs", "parts"]  # for notebooks, which need one name for it all

REPRODUCED, NOT_REPRODUCED, OPEN, BARRED = "reproduced", "not reproduced", "open", "cannot be judged"
COLOURS = {REPRODUCED: "#00704f", NOT_REPRODUCED: "#a94400", OPEN: "#2c5aa0", BARRED: "#5c6068"}
ERROR = 0.05  # both sides together
Pair = tuple[str, str]  # of a problem and a method


# -- verdicts ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What became of one statement.

    paper, ours: what is compared, in words and numbers. estimate, low, high: of the comparison that decides, in `unit`;
    None where nothing is random. n: the fewest seeds behind any number in it (of proofs, the checks). why: what made
    the verdict. settles: what would decide an open one, or what would let it be judged; "" for the others. also: other
    readings of the same rule (`reading`, verdict, estimate, low, high, unit, n, of; of a longer preset also why). rule:
    in words. details: a row per pair, with mean and interval at the level that can support the claim, or a row per
    check. of: the method, the problem or both that the estimate is of, where a rule compares several; else "".
    """

    id: str
    says: str
    where: str
    paper: str
    ours: str
    verdict: str
    estimate: float | None
    low: float | None
    high: float | None
    unit: str
    n: int
    why: str
    settles: str
    rule: str
    preset: str
    also: list[dict[str, Any]] = field(default_factory=list)
    details: list[dict[str, Any]] = field(default_factory=list)
    of: str = ""


#: of a verdict, what the shipped list of verdicts holds
COLUMNS = ("id", "says", "verdict", "estimate", "low", "high", "unit", "n", "of", "preset", "why", "settles", "also")


def remarks(row: Mapping[str, Any]) -> list[str]:
    """What is shown below a verdict, given as a row: why, what would settle it, and the other readings."""
    words = {OPEN: "would settle it", BARRED: "would let it be judged"}
    settles = [f"{row['settles']} {words[row['verdict']]}"] if row["settles"] else []
    return [row["why"], *settles, *(f"{o['reading']}: {o['verdict']}, {_of_row(o)}" for o in row["also"])]


class Verdicts(list[Verdict]):
    """The verdicts on one claim, a row each in a notebook."""

    @property
    def verdict(self) -> str:
        """On the claim as a whole: reproduced if every part is, not reproduced if one part is not."""
        found = {part.verdict for part in self}
        return next((verdict for verdict in (NOT_REPRODUCED, BARRED, OPEN) if verdict in found), REPRODUCED)

    def details(self) -> pd.DataFrame:
        """The evidence behind the verdicts: a row per claim and method, or per check."""
        return pd.DataFrame([{"claim": part.id, **row} for part in self for row in part.details])

    def _repr_markdown_(self) -> str:
        head = f"| {' | '.join(_HEAD)} |\n| :--- | :--- | :--- | :--- | ---: | :--- |\n"
        rows = []
        for p in self:
            cells = [
                f"**{p.id}**",
                f"{p.says} ({p.where})",
                p.paper,
                p.ours,
                str(p.n),
                f"**{p.verdict}**: {'; '.join(remarks(vars(p)))}",
            ]
            rows.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n")
        rules = [f"\n*{p.id} is decided by:* {p.rule}\n" for p in self]
        return head + "".join(rows) + "".join(rules)

    def _repr_html_(self) -> str:
        cell = 'style="text-align:left;vertical-align:top;padding:.45em .7em;max-width:22em"'
        head = "".join(f"<th {cell}>{name}</th>" for name in _HEAD)
        rows = []
        for p in self:
            says = f"{html.escape(p.says)}<br><small>{html.escape(p.where)} · decided by: {html.escape(p.rule)}</small>"
            beneath = "<br>".join(map(html.escape, remarks(vars(p))))
            badge = f'<b style="color:{COLOURS[p.verdict]}">{p.verdict}</b><br><small>{beneath}</small>'
            cells = [f"<b>{p.id}</b>", says, html.escape(p.paper), html.escape(p.ours), str(p.n), badge]
            named = zip(_HEAD, cells, strict=True)
            rows.append(
                "<tr>" + "".join(f'<td data-head="{name}" {cell}>{text}</td>' for name, text in named) + "</tr>"
            )
        return f'<table class="verdicts"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


_HEAD = ("Claim", "Statement", "Paper", "We measured", "n", "Verdict")


def judge(
    claim: str,
    evidence: pd.DataFrame,
    *,
    preset: str,
    notebook: str,
    source: str | None = None,
    also: Mapping[str, pd.DataFrame] | None = None,
    seconds: float | None = None,
) -> Verdicts:
    """The verdict on a claim, recorded in artifacts/<preset>/claims/<notebook>.json, with its evidence next to it.

    Args:
        claim: "C1", …
        evidence: for counts, shares and ranks one row per run, with problem, smto, seed and the columns that the rule
            needs: `delta.selected(…)`, joined with `alignment.per_run(…)` where it asks for weights or gradients; with
            a column `seconds`, an open verdict says what settling it costs. For checks one row per check: proposition,
            check, passed, and what else is worth showing.
        preset: of this run; smoke never decides.
        notebook: whose verdict it is, e.g. "01_mnist_selection".
        source: of the data behind it, "full" or "embedded"; where a claim needs a certain one, no other decides.
        also: other readings ("as released", "at one rate"), each with its evidence. They are judged by the same rule
            and shown next to the verdict. A part for which a reading has no run is left without it.
        seconds: what one more seed takes (`frames.seconds_per_seed`), where a row of the evidence is not a run and so
            has no seconds of its own.

    Raises:
        BadEvidence: no such claim, a column is missing, or several runs of a method have the same seed.
        CannotWrite: the record could not be written.
    """
    verdicts = decide(claim, evidence, preset=preset, source=source, also=also, seconds=seconds)
    path = artifacts.folder(preset) / "claims" / f"{notebook}.json"
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    ours = {v.id for v in verdicts}
    kept = [row for row in earlier if row["id"] not in ours]
    artifacts.save_evidence(evidence, notebook, claim, preset)
    files.write_json(path, [*kept, *(plain(asdict(verdict)) for verdict in verdicts)])
    return verdicts


def decide(
    claim: str,
    evidence: pd.DataFrame,
    *,
    preset: str,
    source: str | None = None,
    also: Mapping[str, pd.DataFrame] | None = None,
    seconds: float | None = None,
) -> Verdicts:
    """The verdict on a claim without a record of it, for a second look at other evidence. As `judge` otherwise."""
    parts = named_parts(claim)
    return Verdicts(_judge(id_, part, evidence, preset, source, also or {}, seconds) for id_, part in parts)


def on_paper(part: Part) -> Finding:
    """The same rule applied to the paper's own table, whose means are taken as exact."""
    assert part.paper.table is not None
    table = published.table(part.paper.table)
    table = table.join(table.add_prefix(LEVEL)).reset_index()
    if "problem" in table:  # Table 2: a row per problem, the methods are its columns
        return find(part, table.assign(smto="fixed", seed=1), exact=True)
    rule = part.rule
    problem = rule.problem if isinstance(rule, Rank) else next(iter(rule.of)) if isinstance(rule, Count) else ""
    return find(part, table.assign(problem=problem, seed=1), exact=True)


def _judge(
    id_: str,
    part: Part,
    evidence: pd.DataFrame,
    preset: str,
    source: str | None,
    also: Mapping[str, pd.DataFrame],
    seconds: float | None,
) -> Verdict:
    barred, permits = _barred(part, preset, source)
    if seconds is not None and not isinstance(part.rule, Checks):
        evidence = evidence.assign(seconds=seconds / len(named(part.rule)))  # in all as many

    def verdict(finding: Finding) -> str:
        return BARRED if barred else finding.verdict

    after = part.needs.after if preset == LOOKED_AT else 0
    finding = find(part, evidence, after=after)
    readings = {name: find(part, other, after=after) for name, other in also.items()}
    return Verdict(
        id=id_,
        says=" ".join(part.says.split()),
        where=part.where,
        paper=_paper_text(part),
        ours=finding.text,
        verdict=verdict(finding),
        **finding.numbers(),
        why=barred or finding.why,
        settles=permits if barred else finding.settles,
        rule=" ".join(part.in_words.split()) + (f" {finding.method}" if finding.method else ""),
        preset=preset,
        also=[
            {"reading": name, "verdict": verdict(found), **found.numbers()}
            for name, found in readings.items()
            if found.n
        ],
        details=finding.details,
    )


def _barred(part: Part, preset: str, source: str | None) -> tuple[str, str]:
    """Why a statement cannot be judged here, and what would let it be; "" where it can."""
    needs, lacking, permits = part.needs, [], []
    if preset not in needs.presets:
        lacking.append(f"the preset {preset}")
        permits.append(f"the preset {listed(needs.presets, last='or')}")
    if needs.sources and source not in needs.sources:
        drawn = " (synthetic streets)" if source == "embedded" else ""
        lacking.append(f"the source {source}{drawn}" if source else "a source that is not known")
        permits.append(f"data of the source {listed(needs.sources, last='or')}")
    if not lacking:
        return "", ""
    reason = f": {needs.reason}" if needs.reason and preset not in needs.presets and preset != artifacts.SMOKE else ""
    return f"{listed(lacking)} decide{'s' if len(lacking) == 1 else ''} nothing{reason}", " with ".join(permits)


def _paper_text(part: Part) -> str:
    if part.paper.text:
        found = published.text(part.paper.text)
        return f"about {minus(f'{found.value:g}')}{' %' if found.unit == '%' else ''}"
    return on_paper(part).text if part.paper.table else "no number"


# -- deciding ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """What a rule finds in a table, before it is asked whether preset and data can decide. As `Verdict`; `ask` works
    out what would settle it."""

    verdict: str
    why: str
    text: str
    n: int
    estimate: Interval | None = None
    unit: str = ""
    ask: Callable[[], str] = str
    method: str = ""
    details: list[dict[str, Any]] = field(default_factory=list)
    of: str = ""

    @property
    def settles(self) -> str:
        return self.ask()

    def numbers(self) -> dict[str, Any]:
        """estimate, low, high, unit, n, and what the estimate is of."""
        mean, low, high = self.estimate[:3] if self.estimate else (None, None, None)
        return {"estimate": mean, "low": low, "high": high, "unit": self.unit, "n": self.n, "of": self.of}


def find(part: Part, evidence: pd.DataFrame, exact: bool = False, after: int = 0) -> Finding:
    """Apply a rule to a table: to its seeds above `after`, those that nobody had looked at when the rule was fixed.
    With `exact` the numbers are taken as they are, without an interval."""
    if not after or "seed" not in evidence:
        return _find(part, evidence, exact)
    found = _find(part, evidence[evidence.seed > after], exact)
    seen = f"; only seeds above {after} count, the others had been looked at before the rule was fixed"

    def ask() -> str:
        return f"{settles} (above seed {after})" if (settles := found.settles) else ""

    text = found.text if found.n else f"no runs yet with seeds above {after}"
    return replace(found, why=found.why + seen, text=text, ask=ask)


def _find(part: Part, evidence: pd.DataFrame, exact: bool) -> Finding:
    rule = part.rule
    if isinstance(rule, Checks):
        return _checks(rule, evidence)
    key = ["problem", "smto", "seed", *([rule.over] if isinstance(rule, Count) and rule.over else [])]
    extra = [rule.best_by] if isinstance(rule, Count) and rule.best_by else []
    needed = [*key, *extra, *([rule.column] if isinstance(rule, Rank) else rule.value)]
    if missing := [column for column in needed if column not in evidence]:
        raise BadEvidence(
            f"the rule asks for {', '.join(missing)}, which the table does not have; it has {', '.join(evidence)}. "
            "Columns on weights and gradients come from alignment.per_run(runs), those on levels from "
            "delta.with_levels(selected, …)."
        )
    if evidence.duplicated(key).any():
        raise BadEvidence(
            "several runs of one method have the same problem and seed; keep one configuration per method."
        )
    if isinstance(rule, Rank):
        return _rank(part, rule, evidence, exact)
    return _share(part, rule, evidence) if isinstance(rule, Share) else _count(part, rule, evidence, exact)


@dataclass(frozen=True)
class _Compared:
    """One comparison of a rule: what is asked, its interval, and whether that holds, fails or is open."""

    pair: Pair
    estimate: inference.Estimate
    against: inference.Estimate
    inner: Interval
    outer: Interval
    outcome: str
    margin: float

    @property
    def decisive(self) -> Interval:
        """The interval that made the outcome; of an open one the wider."""
        if self.outcome != "open":
            return self.inner if self.outcome == "holds" else self.outer
        return max(self.inner, self.outer, key=lambda interval: interval.high - interval.low)


@dataclass(frozen=True)
class _Ballot:
    """At least `needed` of these have to be between the bounds."""

    compared: list[_Compared]  # those that hold first, then the open ones, each by margin
    above: float
    below: float
    needed: int
    support: float
    contradiction: float

    @classmethod
    def of(
        cls, estimates: Mapping[Pair, inference.Estimate], bounds: tuple[float, float], needed: int, seeds: int
    ) -> _Ballot:
        """seeds: the fewest with which a comparison may decide."""
        against = _moderated(estimates)
        n, (above, below) = len(estimates), bounds
        support, contradiction = 1 - ERROR / (n - needed + 1), 1 - ERROR / needed
        compared = []
        for pair, estimate in estimates.items():
            inner, outer = estimate.interval(support), against[pair].interval(contradiction)
            complete = estimate.n >= seeds and not estimate.lost
            if complete and above < inner.low and inner.high < below:
                outcome = "holds"
            elif complete and (outer.high <= above or outer.low >= below):
                outcome = "fails"
            else:
                outcome = "open"
            margin = min(inner.mean - above, below - inner.mean) if math.isfinite(inner.mean) else -math.inf
            compared.append(_Compared(pair, estimate, against[pair], inner, outer, outcome, margin))
        order = {"holds": 0, "open": 1, "fails": 2}
        compared.sort(key=lambda c: (order[c.outcome], -c.margin))
        return cls(compared, above, below, needed, support, contradiction)

    def having(self, outcome: str) -> list[_Compared]:
        return [c for c in self.compared if c.outcome == outcome]

    @property
    def verdict(self) -> str:
        return {"holds": REPRODUCED, "fails": NOT_REPRODUCED, "open": OPEN}[self.deciding.outcome]

    @property
    def deciding(self) -> _Compared:
        return self.compared[self.needed - 1]

    @property
    def least(self) -> int:
        return len(self.having("holds"))

    @property
    def most(self) -> int:
        return len(self.compared) - len(self.having("fails"))

    @property
    def leans(self) -> bool:
        return self.above < self.deciding.inner.mean < self.below

    @property
    def wanted(self) -> list[_Compared]:
        """The open ones that settle a vote, the way it leans."""
        wanted = self.compared[: self.needed] if self.leans else self.compared[self.needed - 1 :]
        return [c for c in wanted if c.outcome == "open"]

    def seeds(self) -> int | None:
        """The seeds that settle an open vote, the way it leans: in four of five cases, if all is as it seems."""
        power = 1 - (1 - inference.POWER) / len(self.wanted)
        found = [self._seeds_of(c, self.leans, power) for c in self.wanted]
        known = [n for n in found if n is not None]
        return max(known) if len(known) == len(found) else None

    def _seeds_of(self, compared: _Compared, leans: bool, power: float) -> int | None:
        if leans:
            return compared.estimate.seeds(self.above, self.below, self.support, power)
        outside = (self.below, math.inf) if compared.inner.mean >= self.below else (-math.inf, self.above)
        return compared.against.seeds(*outside, self.contradiction, power)


def _moderated(estimates: Mapping[Pair, inference.Estimate]) -> dict[Pair, inference.Estimate]:
    """What may contradict: means with variances averaged over the methods of a problem; all others as they are."""
    found = dict(estimates)
    for problem in dict.fromkeys(problem for problem, _ in estimates):
        means = {pair: e for pair, e in estimates.items() if pair[0] == problem and isinstance(e, inference.Mean)}
        found |= dict(zip(means, inference.moderated(list(means.values())), strict=True))
    return found


def _count(part: Part, rule: Count, evidence: pd.DataFrame, exact: bool) -> Finding:
    estimates = _estimates(rule, evidence, exact)
    ballot = _Ballot.of(estimates, rule.bounds(), rule.at_least, 1 if exact else max(part.needs.seeds, 1))
    u, n = rule.at_least, len(ballot.compared)
    takes = "both" if u == n == 2 else f"all {n}" if u == n else f"{u}"
    several = len(rule.of) > 1
    of_problems = bool(rule.together) or (several and len({smto for _, smto in estimates}) == 1)

    def called(pair: Pair) -> str:
        problem, smto = pair
        return problem_label(problem) if of_problems else label(smto) + f" on {problem_label(problem)}" * several

    number = _number(rule)

    def possible(interval: Interval) -> Interval:
        return _possible(_natural(rule, interval), number)

    shown = {c.pair: possible(c.decisive) for c in ballot.compared}
    deciding = shown[ballot.deciding.pair]
    equal = len({_in_unit(interval, rule.unit) for interval in shown.values()}) == 1
    asked = "" if exact else f"; the rule asks for {_asked(rule)}"
    if not any(c.estimate.n for c in ballot.compared):
        text = "no runs that count yet"
    elif n == 1:
        text = _quantity(deciding, number) + asked
    else:
        text = _votes(ballot, list(estimates), called, part.needs.seeds) + (
            "" if exact or ballot.least == u == n or _too_few(part, ballot) else f"; it takes {takes}"
        )
        if n == 2 and not exact:
            methods = len({smto for _, smto in estimates}) > 1
            text += f"; {_name(number)}: " if _name(number) else ": "
            text += ", ".join(
                f"{label(pair[1]) if methods else problem_label(pair[0])} {_in_unit(shown[pair], rule.unit)}"
                for pair in estimates
            )
        elif not exact and (means := [i.mean for i in shown.values() if math.isfinite(i.mean)]):
            of = f" of {'the ' * (len(_name(number)) > 1)}{_name(number)}" if _name(number) else ""
            least, most = sized(*(_factor(rule.unit) * mean for mean in (min(means), max(means))))
            said = _in_unit(deciding, rule.unit)
            if equal:
                text += f". All means{of} are {said}"
            else:
                span = f"All means{of} are {least}" if least == most else f"Means{of} from {least} to {most}"
                decides = "would decide" if ballot.verdict == OPEN else "decides"
                text += f". {span}{_suffix(rule.unit)}; the one that {decides} is "
                text += f"{called(ballot.deciding.pair)} with {said}"
        text += asked
    tally = _tally(ballot, "problem" if of_problems else "pair" if several else "method")
    averaged = any(c.against is not c.estimate for c in ballot.compared)
    method = f"Intervals over seeds, {_percent(ballot.support)} each to support it, {_percent(ballot.contradiction)} "
    method += f"to contradict it{', with variances averaged over the methods' if averaged else ''}."
    by_pair = {c.pair: c for c in ballot.compared}
    details = [
        {"problem": pair[0], "smto": pair[1], **possible(c.inner)._asdict(), "outcome": c.outcome}
        for pair, c in ((pair, by_pair[pair]) for pair in estimates if pair in by_pair)
    ]
    return Finding(
        verdict=ballot.verdict,
        why=_why(part, ballot, rule) if n == 1 else _too_few(part, ballot) or f"{tally}, and it takes {takes}",
        text=text,
        n=min(c.estimate.n for c in ballot.compared),
        estimate=deciding,
        unit=number,
        ask=lambda: _settles(part, ballot, _seconds(rule, evidence)),
        method=method,
        details=details,
        of="" if n == 1 or equal else called(ballot.deciding.pair),
    )


def _estimates(rule: Count, evidence: pd.DataFrame, exact: bool) -> dict[Pair, inference.Estimate]:
    """What a count compares with its bounds, by pair, or by problem where its methods are taken together."""
    if rule.statistic == "spread":
        return _spreads(rule, evidence)
    if rule.statistic == "choice":
        return _choices(rule, evidence)
    values = _values(rule, evidence)
    if rule.together:
        tables = {
            problem: pd.DataFrame({smto: of for (where, smto), of in values.items() if where == problem})
            for problem in rule.of
        }
        if rule.together == "ahead":
            tables = {problem: (np.sign(table) + 1) / 2 for problem, table in tables.items()}
        values = {(problem, ""): table.mean(axis=1, skipna=False) for problem, table in tables.items()}
    return {pair: _mean(of_pair, exact) for pair, of_pair in values.items()}


def _spreads(rule: Count, evidence: pd.DataFrame) -> dict[Pair, inference.Estimate]:
    (column,) = rule.value
    found: dict[Pair, inference.Estimate] = {}
    for problem, smto in pairs(rule):
        rows = evidence[(evidence.problem == problem) & evidence.smto.isin([smto, rule.minus_smto])]
        table = rows.pivot(index="seed", columns="smto", values=column).reindex(columns=[smto, rule.minus_smto])
        found[problem, smto] = inference.SpreadRatio(table.dropna().to_numpy(dtype=float))
    return found


def _choices(rule: Count, evidence: pd.DataFrame) -> dict[Pair, inference.Estimate]:
    (column,) = rule.value
    found: dict[Pair, inference.Estimate] = {}
    for problem, smto in pairs(rule):
        rows = evidence[(evidence.problem == problem) & (evidence.smto == smto)]
        values, scores = (
            rows.pivot(index="seed", columns=rule.over, values=name).dropna() for name in (column, rule.best_by)
        )
        best = int(scores.mean().to_numpy().argmax()) if len(scores) else 0
        found[problem, smto] = inference.ChoiceRatio(
            values.loc[scores.index.intersection(values.index)].to_numpy(dtype=float), best
        )
    return found


def _values(rule: Count | Share, evidence: pd.DataFrame) -> dict[Pair, pd.Series]:
    """The number that the rule is about, by seed, for every pair; only seeds that both runs of a difference have."""
    columns = evidence[list(rule.value)].astype(float)
    if rule.log:
        columns = np.log(columns.where(columns > 0))
    by_seed = pd.Series((columns @ pd.Series(rule.value)).to_numpy(), evidence["seed"])
    where = evidence.groupby(["problem", "smto"]).indices
    values = {pair: by_seed.iloc[rows] for pair, rows in where.items()}
    nothing = pd.Series(dtype=float)
    found = {}
    for problem, smto in pairs(rule):
        found[problem, smto] = values.get((problem, smto), nothing)
        if rule.minus_smto or rule.minus_problem:
            other = values.get((rule.minus_problem or problem, rule.minus_smto or smto), nothing)
            found[problem, smto] = (found[problem, smto] - other)[found[problem, smto].index.intersection(other.index)]
        if rule.exceeds:
            group = pd.DataFrame({other: values.get((problem, other), nothing) for other in expand(rule.exceeds)})
            beyond = found[problem, smto] - group.mean(axis=1, skipna=False).reindex(found[problem, smto].index)
            found[problem, smto] = np.minimum(found[problem, smto], beyond)
    return found


def _seconds(rule: Count | Share | Rank, evidence: pd.DataFrame) -> float:
    """What one more seed of every run that a rule names takes: as long as the fastest in the records, since a busy
    machine only adds to it; NaN where they do not say."""
    if "seconds" not in evidence:
        return math.nan
    taken = evidence.groupby(["problem", "smto"])["seconds"].min()
    return float(taken.reindex(pd.MultiIndex.from_tuples(sorted(named(rule)))).sum(skipna=False))


def _mean(values: pd.Series, exact: bool) -> inference.Estimate:
    if exact and len(values):
        return inference.Exact(float(values.iloc[0]))
    return inference.Mean(values.to_numpy(dtype=float))


def _share(part: Part, rule: Share, evidence: pd.DataFrame) -> Finding:
    ((pair, values),) = _values(rule, evidence).items()
    above, below = rule.bounds()
    known = values.dropna()
    estimate = inference.Proportion(((known > above) & (known < below)).to_numpy())
    ballot = _Ballot.of({pair: estimate}, (0.5, math.inf), 1, part.needs.seeds)
    interval, n = ballot.deciding.decisive, ballot.deciding.estimate.n
    text = f"in {estimate.happened.sum()} of {counted(n, 'run')}" if n else "no runs that count yet"
    if n:
        low, high = sized(*_as_read(interval, "share of runs")[1:])
        text += f", by the interval {low} to {high} % of all; the rule asks for more than half"
    return Finding(
        verdict=ballot.verdict,
        why=_too_few(part, ballot) or _against(ballot, "one half"),
        text=text,
        n=n,
        estimate=interval,
        unit="share of runs",
        ask=lambda: _settles(part, ballot, _seconds(rule, evidence)),
        method="Exact 95 % interval of the share.",
        details=[{"problem": pair[0], "smto": pair[1], **interval._asdict(), "outcome": ballot.deciding.outcome}],
    )


def _rank(part: Part, rule: Rank, evidence: pd.DataFrame, exact: bool) -> Finding:
    groups = [expand(group) for group in rule.groups]
    smtos = [smto for group in groups for smto in group]
    assert part.paper.table is not None
    theirs = published.table(part.paper.table)[rule.column]
    rows = evidence[(evidence.problem == rule.problem) & evidence.smto.isin(smtos)]
    ours = rows.pivot(index="seed", columns="smto", values=rule.column).reindex(columns=smtos).dropna()
    within = [[inference.rank_correlation(of_seed[g], theirs[g]) for g in groups] for _, of_seed in ours.iterrows()]
    order = pd.DataFrame({"order": np.mean(within, axis=1) if within else []}, ours.index, dtype=float)
    if len(groups) > 1:
        order["split"] = [inference.somers_d([of_seed[g] for g in groups]) for _, of_seed in ours.iterrows()]
    estimates = {(rule.problem, name): _mean(order[name], exact) for name in order}
    ballot = _Ballot.of(estimates, (rule.above, math.inf), len(estimates), 1 if exact else part.needs.seeds)
    words = {"order": "rank correlation"}
    if len(groups) > 1:
        words = {"order": "rank correlation within the groups", "split": "Somers' d between them"}
    shown = {c.pair[1]: _possible(c.decisive, words[c.pair[1]]) for c in ballot.compared}
    interval, n = shown[ballot.deciding.pair[1]], len(ours)
    text = ", ".join(_quantity(shown[name], words[name]) for name in order)
    text += f"; the rule asks for more than {rule.above:g}{' for both' if len(groups) > 1 else ''}"
    line = f"{rule.above:g}{f' ({words[ballot.deciding.pair[1]]})' if len(groups) > 1 else ''}"
    return Finding(
        verdict=ballot.verdict,
        why="no seed has all the methods" if n == 0 else _too_few(part, ballot) or _against(ballot, line),
        text="its own order" if exact else text if n else "no runs that count yet",
        n=n,
        estimate=interval,
        unit=words[ballot.deciding.pair[1]],
        ask=lambda: _settles(part, ballot, _seconds(rule, evidence)),
        method=f"One number per seed, intervals over seeds, {_percent(ballot.support)} to support it, "
        f"{_percent(ballot.contradiction)} to contradict it.",
        details=order.rename_axis("seed").reset_index().assign(problem=rule.problem).to_dict("records"),
    )


def _checks(rule: Checks, evidence: pd.DataFrame) -> Finding:
    if missing := [column for column in ("proposition", "check", "passed") if column not in evidence]:
        raise BadEvidence(f"checks need the columns proposition, check and passed; {', '.join(missing)} is missing.")
    evidence = evidence[evidence.proposition.isin(rule.propositions)]
    passed = evidence.passed.astype(bool)
    absent = sorted(set(rule.propositions) - set(evidence.proposition), key=str)
    verdict, why, settles = REPRODUCED, "every check passed", ""
    if not passed.all():
        failed = ", ".join(f"{row.check} (proposition {row.proposition})" for row in evidence[~passed].itertuples())
        verdict, why = NOT_REPRODUCED, f"failed: {failed}"
    elif absent:
        missing = [str(proposition) for proposition in absent]
        verdict, why, settles = OPEN, f"no check of proposition {', '.join(missing)}", "the missing checks"
    text = _passed(int(passed.sum()), len(evidence))
    return Finding(
        verdict, why, text, len(evidence), unit="checks", ask=lambda: settles, details=evidence.to_dict("records")
    )


# -- words -------------------------------------------------------------------------------------------------------------


def _too_few(part: Part, ballot: _Ballot) -> str:
    """That there are too few seeds, where no comparison has enough."""
    n = max(c.estimate.n for c in ballot.compared)
    seeds = part.needs.seeds
    return (
        f"{counted(n, 'seed')}, and it takes {seeds}" if n < seeds and ballot.support < 1 and not _exact(ballot) else ""
    )


def _exact(ballot: _Ballot) -> bool:
    return any(isinstance(c.estimate, inference.Exact) for c in ballot.compared)


def _why(part: Part, ballot: _Ballot, rule: Compared) -> str:
    """Where the interval of a single comparison is."""
    bounds = _bounds(rule)
    interval, open_ = ballot.deciding.decisive, ballot.deciding.outcome == "open"
    crossed = [line for line in bounds if open_ and interval.low <= line <= interval.high]
    if few := _too_few(part, ballot):
        return few
    lost = _lost([ballot.deciding]) if open_ else ""
    said = _against(ballot, _lines(rule, crossed or bounds))
    return said + f", and {lost}" * bool(lost) if crossed or not lost else lost


def _lost(compared: list[_Compared]) -> str:
    """ "3 of 7 seeds have no number", of the one that has most such seeds, and for how many of these comparisons, if
    not for all; "" for none."""
    found = [c.estimate for c in compared if c.estimate.lost]
    if not found:
        return ""
    most = max(found, key=lambda estimate: estimate.lost)
    of = f" for {len(found)} of them" if len(found) < len(compared) else ""
    return f"{most.lost} of {counted(most.lost + most.n, 'seed')} ha{'s' if most.lost == 1 else 've'} no number{of}"


def _bounds(rule: Compared) -> list[float]:
    return [line for line in (rule.above, rule.below) if math.isfinite(line)]


def _lines(rule: Compared, bounds: list[float]) -> str:
    """Bounds of a rule in its unit: "1 time", "−2 and 2 points"."""
    lines = [minus(f"{_factor(rule.unit) * line:g}") for line in bounds]
    return " and ".join(lines) + (" time" if lines == ["1"] and rule.unit == "times" else _suffix(rule.unit))


def _asked(rule: Compared) -> str:
    """What a rule asks of a number: "more than 10 times", "between −2 and 2 points"."""
    bounds = _bounds(rule)
    side = "between" if len(bounds) == 2 else "more than" if math.isfinite(rule.above) else "less than"
    return f"{side} {_lines(rule, bounds)}"


def _votes(ballot: _Ballot, pairs: list[Pair], called: Callable[[Pair], str], seeds: int) -> str:
    """ "holds for 9 of 15, fails for 3 (GradDrop, …), open for 3 (SI, …)". What is open for want of seeds says so, as
    its interval may well be on one side of the line."""
    n, few, lost = len(ballot.compared), _few(ballot, seeds), _lost(ballot.having("open"))
    why = f": {few or lost}" if few or lost else ""
    all_of = f"{'both' if n == 2 else f'all {n}'}"
    if ballot.least == n:
        return f"holds for {all_of}"
    said = [f"holds for {ballot.least or 'none'} of {n}"]
    for outcome, word in (("fails", "fails for"), ("open", "open for")):
        found = {c.pair for c in ballot.having(outcome)}
        if len(found) == n:
            return f"holds for none of {n}" if outcome == "fails" else few or f"open for {all_of}{why}"
        if found:
            named = f" ({', '.join(called(pair) for pair in pairs if pair in found)})" if len(found) < 9 else ""
            said.append(f"{word} {len(found)}{named}{why if outcome == 'open' else ''}")
    return ", ".join(said)


def _tally(ballot: _Ballot, one: str) -> str:
    """ "at least 9 of 15 methods": for how many a rule holds, as far as the intervals tell."""
    n, least, most = len(ballot.compared), ballot.least, ballot.most
    of = f"of {counted(n, one)}"
    if least == most:
        return f"{least or 'none'} {of}"
    if most - least == n:
        return f"none {of} is certain"
    if ballot.verdict == REPRODUCED:
        return f"at least {least} {of}"
    return f"{least} to {most} {of}" if ballot.verdict == OPEN and least else f"at most {most} {of}"


def _few(ballot: _Ballot, seeds: int) -> str:
    """ "too few seeds (3, it takes 5)", and for how many of those that are open, if not for all; "" for none."""
    short = [c.estimate.n for c in ballot.having("open") if c.estimate.n < seeds and not _exact(ballot)]
    of = f" for {len(short)}" if len(short) < len(ballot.having("open")) else ""
    if not short:
        return ""
    there = f"{min(short)} to {max(short)}" if min(short) < max(short) else f"{max(short)}"
    return f"too few seeds{of} ({there}, it takes {seeds})"


def _passed(passed: int, n: int) -> str:
    """How many checks passed, as a sentence."""
    if n == 1:
        return f"its one check {'passes' if passed else 'fails'}"
    if n == 2 and passed != 1:
        return "both checks pass" if passed else "neither check passes"
    return f"all {n} checks pass" if passed == n else f"{passed or 'none'} of {n} checks pass" + "es" * (passed < 2)


def _against(ballot: _Ballot, lines: str) -> str:
    outcome = ballot.deciding.outcome
    if outcome == "open":
        return f"the interval crosses {lines}" if ballot.deciding.estimate.n > 1 else "no interval"
    two = math.isfinite(ballot.above) and math.isfinite(ballot.below)
    side = "between" if two else "above" if math.isfinite(ballot.above) else "below"
    return f"{'the whole interval' if outcome == 'holds' else 'no part of the interval'} is {side} {lines}"


def _settles(part: Part, ballot: _Ballot, seconds: float) -> str:
    """What would decide an open vote: so many seeds more, and how long they take."""
    if ballot.verdict != OPEN:
        return ""
    if _lost(ballot.wanted):
        return "a number for every seed"
    have = min(c.estimate.n for c in ballot.having("open"))
    if have < 2 <= part.needs.seeds:
        return f"{part.needs.seeds} seeds"
    seeds = ballot.seeds()
    if seeds is None:
        return f"more than {inference.MOST:,} seeds (the estimate is close to the line)"
    more = max(seeds, part.needs.seeds, have + 1) - have
    return f"{counted(more, 'more seed')}{f', {duration(more * seconds)}' if math.isfinite(seconds) else ''}"


def _percent(level: float) -> str:
    return f"{round(100 * level, 1):g} %"


def _natural(rule: Compared, interval: Interval) -> Interval:
    """An interval in the unit of the thing, where logarithms were compared."""
    if not rule.log:
        return interval
    mean, low, high = (math.exp(x) if math.isfinite(x) else x for x in interval[:3])
    return Interval(mean, 0.0 if low == -math.inf < high < math.inf else low, high, interval.n)


#: what follows a number in a unit; what is none of these is the name of a number without one, which comes before it
_SUFFIXES = {
    "percent": " %",
    "points": " points",
    "points per doubling": " points per doubling",
    "points per task": " points per task",
    "times": " times",
    "standard deviations": " sd",
    "share": " points",
    "share of methods": " % of the methods",
    "share of runs": " % of the runs",
    "share of looks": " % of the looks",
    "share of tasks": " % of the tasks",
}


def _suffix(unit: str) -> str:
    return _SUFFIXES.get(unit, "")


def _name(unit: str) -> str:
    return "" if unit in _SUFFIXES else unit


def _number(rule: Compared) -> str:
    """The unit or the name of what is compared with the line: "points", "C", "difference in C"."""
    differs = rule.minus_smto or rule.minus_problem
    return f"difference in {rule.unit}" if differs and _name(rule.unit) else rule.unit


def _factor(unit: str) -> int:
    """What a number is multiplied by to be read in its unit: a share is read in percent."""
    return 100 if unit.startswith("share") else 1


#: what a number can be at all, by what its unit or name contains ("share" alone is a difference, which may be negative)
_BOUNDS = {"correlation": (-1.0, 1.0), "Somers' d": (-1.0, 1.0), "cosine": (-1.0, 1.0), "share of ": (0.0, 1.0)}


def _possible(interval: Interval, number: str) -> Interval:
    """The part of an interval that the number can be in, never without the mean; an unknown bound stays unknown."""
    least, most = next((bounds for name, bounds in _BOUNDS.items() if name in number), (-math.inf, math.inf))
    if number.startswith("difference in "):
        least, most = least - most, most - least
    mean, low, high, n = interval
    low = min(max(low, least), mean) if math.isfinite(low) else low
    return Interval(mean, low, max(min(high, most), mean) if math.isfinite(high) else high, n)


def _as_read(interval: Interval, unit: str) -> tuple[float, float, float]:
    """Mean, low and high in the unit that is read."""
    mean, low, high = (_factor(unit) * x for x in _possible(interval, unit)[:3])
    return mean, low, high


def _in_unit(interval: Interval, unit: str) -> str:
    """ "9.17 points (5.35 to 13.0)"."""
    mean, low, high = _as_read(interval, unit)
    if not math.isfinite(mean):
        return "no value"
    value, *bounds = sized(mean, low, high)
    if interval.low == interval.high:
        return f"{value}{_suffix(unit)}{' at every seed' if interval.n > 1 else ''}"
    known = math.isfinite(interval.low) and math.isfinite(interval.high)
    return f"{value}{_suffix(unit)}{f' ({bounds[0]} to {bounds[1]})' if known else ', no interval'}"


def _quantity(interval: Interval, unit: str) -> str:
    """The same with its name, where it has one: "rank correlation 0.25 (0.15 to 0.35)"."""
    return f"{_name(unit)} {_in_unit(interval, unit)}".lstrip()


def _of_row(row: Mapping[str, Any]) -> str:
    """The number of a reading, and what it is of: "Auto-Lambda with 4.60 points (2.38 to 6.81)"; of an open one that
    says it, also why and what would settle it."""
    if row["estimate"] is None and "why" in row:
        return str(row["why"])
    mean, low, high = (math.nan if row[name] is None else row[name] for name in ("estimate", "low", "high"))
    said = _quantity(Interval(mean, low, high, row["n"]), row["unit"])
    why = f", {row['why']}" if row["verdict"] == OPEN and row.get("why") else ""
    why += f"; {row['settles']} would settle it" if why and row.get("settles") else ""
    return (f"{row['of']} with {said}" if row.get("of") else said) + why


def plain(value: Any) -> Any:
    """For JSON: plain numbers, and null for what is not finite."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
