"""The paper's claims as data, and a computed verdict on each.

    claims.judge("C1", selected, preset="quick", notebook="01_mnist_selection")

data/claims.yaml says for every claim what it is, where the paper makes it, and the rule that decides. A rule of kind

    count    asks of how many (problem, method) pairs something holds: that a number per run (a combination of columns,
             minus the same of another method, or on another problem, at the same seed) lies within bounds
    rank     asks whether the methods come in the paper's order
    checks   asks whether all checks of a proof have passed

Numbers are compared with bounds by t intervals over the seeds, never by their means alone:

    reproduced                    the whole interval supports the claim
    not reproduced                the whole interval contradicts it
    inconclusive at this scale    anything else: an interval across the line, too few seeds, a preset that is too small

For a count "at least u of n" either verdict is wrong with a probability of 2.5 % at most, however the methods depend on
each other. It takes u intervals on the right side, each at level 1 − 0.05/(n − u + 1), to support the claim: if fewer
than u held in truth, the interval of one of the n − u + 1 or more others would have missed. To contradict it takes
n − u + 1 intervals on the wrong side, each at level 1 − 0.05/u.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal

import pandas as pd
import yaml
from pydantic import Field, model_validator

from mtl_core import files
from mtl_core.names import nearest
from mtl_study import artifacts
from mtl_study.analysis import inference
from mtl_study.analysis.inference import Interval
from mtl_study.look import label, problem_label
from mtl_study.paper import published
from mtl_study.words import counted, listed, minus, number

REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE = "reproduced", "not reproduced", "inconclusive at this scale"
ERROR = 0.05  # both sides together


class BadEvidence(ValueError):
    """A claim was asked for that does not exist, or with a table that cannot decide it."""


# -- the rules, as the file has them -----------------------------------------------------------------------------------


class Count(published.Strict):
    """At least `at_least` of the pairs in `of` have Σ value[c] · c, minus that of another run, within the bounds."""

    kind: Literal["count"]
    of: dict[str, list[str]]  # problem → methods or groups of methods
    value: dict[str, float]
    minus_smto: str | None = None
    minus_problem: str | None = None
    above: float = -math.inf
    below: float = math.inf
    at_least: int


class Rank(published.Strict):
    """Spearman's correlation of each seed's column with the paper's is above `at_least`."""

    kind: Literal["rank"]
    problem: str
    smtos: list[str]
    column: str
    at_least: float


class Checks(published.Strict):
    """Every check of every proposition has passed."""

    kind: Literal["checks"]
    propositions: list[int]


class Reference(published.Strict):
    """Where the paper's own number stands: a table of results or a number in its text."""

    table: str | None = None
    text: str | None = None


class Needs(published.Strict):
    """What it takes to decide: one of these presets, so many seeds, and data of one of these sources (any if empty)."""

    presets: list[str]
    seeds: int
    sources: list[str] = Field(default=[])


class Part(published.Strict):
    """One statement with its rule."""

    says: str
    where: str
    paper: Reference = Reference()
    needs: Needs
    rule: Annotated[Count | Rank | Checks, Field(discriminator="kind")]
    in_words: str


class _File(published.Strict):
    groups: dict[str, list[str]]
    claims: dict[str, list[Part]]

    @model_validator(mode="after")
    def _counts_make_sense(self) -> _File:
        for name, parts in self.claims.items():
            for part in parts:
                if isinstance(part.rule, Count):
                    n = len(pairs(part.rule, self.groups))
                    if not 1 <= part.rule.at_least <= n:
                        raise ValueError(f"{name}: at_least is {part.rule.at_least}, of {n} pairs")
        return self


@cache
def _file() -> _File:
    text = resources.files(__package__).joinpath("data", "claims.yaml").read_text(encoding="utf-8")
    return _File.model_validate(yaml.safe_load(text))


def names() -> list[str]:
    """The claims that there are rules for."""
    return list(_file().claims)


def parts(claim: str) -> list[Part]:
    """The statements of one claim. Raises BadEvidence, naming the nearest, if there is no such claim."""
    known = _file().claims
    if claim not in known:
        raise BadEvidence(f"there is no claim {claim!r}{nearest(claim, known)}. Known: {', '.join(known)}.")
    return known[claim]


def pairs(rule: Count, groups: dict[str, list[str]] | None = None) -> list[tuple[str, str]]:
    """The (problem, method) pairs that a count is about."""
    groups = _file().groups if groups is None else groups
    return [(problem, smto) for problem, members in rule.of.items() for smto in _expand(members, groups)]


def _expand(members: Sequence[str], groups: dict[str, list[str]]) -> list[str]:
    return [smto for member in members for smto in groups.get(member, [member])]


# -- verdicts ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What became of one statement.

    paper, ours: what is compared, in words and numbers. interval: of what decides (a count, a correlation). n: the
    fewest seeds behind any number in it. because: what made the verdict. rule: in words. details: a row per pair, with
    mean and interval at the level that can support the claim, or a row per check.
    """

    claim: str
    says: str
    where: str
    paper: str
    ours: str
    interval: tuple[float, float] | None
    n: int
    verdict: str
    because: str
    rule: str
    preset: str
    details: list[dict[str, Any]] = field(default_factory=list)


class Verdicts(list[Verdict]):
    """The verdicts on one claim, a row each in a notebook."""

    @property
    def verdict(self) -> str:
        """On the claim as a whole: reproduced if every part is, not reproduced if one part is not."""
        found = {part.verdict for part in self}
        if NOT_REPRODUCED in found:
            return NOT_REPRODUCED
        return INCONCLUSIVE if INCONCLUSIVE in found else REPRODUCED

    def details(self) -> pd.DataFrame:
        """What lies behind the verdicts: a row per claim and method, or per check."""
        return pd.DataFrame([{"claim": part.claim, **row} for part in self for row in part.details])

    def _repr_markdown_(self) -> str:
        head = f"| {' | '.join(_HEAD)} |\n| :--- | :--- | :--- | :--- | ---: | :--- |\n"
        rows = []
        for p in self:
            cells = [
                f"**{p.claim}**",
                f"{p.says} ({p.where})",
                p.paper,
                p.ours,
                str(p.n),
                f"**{p.verdict}**: {p.because}",
            ]
            rows.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n")
        rules = [f"\n*{p.claim} is decided by:* {p.rule}\n" for p in self]
        return head + "".join(rows) + "".join(rules)

    def _repr_html_(self) -> str:
        cell = 'style="text-align:left;vertical-align:top;padding:.45em .7em;max-width:22em"'
        head = "".join(f"<th {cell}>{name}</th>" for name in _HEAD)
        rows = []
        for p in self:
            says = f"{html.escape(p.says)}<br><small>{html.escape(p.where)} · decided by: {html.escape(p.rule)}</small>"
            colour = {REPRODUCED: "#00734f", NOT_REPRODUCED: "#b34700"}.get(p.verdict, "#5f6368")
            badge = f'<b style="color:{colour}">{p.verdict}</b><br><small>{html.escape(p.because)}</small>'
            cells = [f"<b>{p.claim}</b>", says, html.escape(p.paper), html.escape(p.ours), str(p.n), badge]
            rows.append("<tr>" + "".join(f"<td {cell}>{text}</td>" for text in cells) + "</tr>")
        return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


_HEAD = ("Claim", "Statement", "Paper", "We measured", "n", "Verdict")


def judge(claim: str, evidence: pd.DataFrame, *, preset: str, notebook: str, source: str | None = None) -> Verdicts:
    """The verdict on a claim, recorded in artifacts/<preset>/claims/<notebook>.json.

    Args:
        claim: "C1", …
        evidence: for counts and ranks one row per run, with problem, smto, seed and the columns that the rule needs:
            `delta.selected(…)`, joined with `alignment.per_run(…)` where it asks for weights or gradients. For checks
            one row per check: proposition, check, passed, and what else is worth showing.
        preset: of this run; smoke never decides.
        notebook: whose verdict it is, e.g. "01_mnist_selection".
        source: of the data behind it, "full" or "embedded"; where a claim needs a certain one, no other decides.

    Raises:
        BadEvidence: no such claim, a column is missing, or several runs of a method have the same seed.
        CannotWrite: the record could not be written.
    """
    verdicts = decide(claim, evidence, preset=preset, source=source)
    path = artifacts.folder(preset) / "claims" / f"{notebook}.json"
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    ours = {v.claim for v in verdicts}
    kept = [row for row in earlier if row["claim"] not in ours]
    files.write_json(path, [*kept, *(_plain(asdict(verdict)) for verdict in verdicts)])
    return verdicts


def decide(claim: str, evidence: pd.DataFrame, *, preset: str, source: str | None = None) -> Verdicts:
    """The verdict on a claim without a record of it, for a second look at other evidence. As `judge` otherwise."""
    found = parts(claim)
    letters = [""] if len(found) == 1 else [chr(ord("a") + i) for i in range(len(found))]
    if not claim[-1].isdigit():  # "C10-Cityscapes b", but "C10b"
        letters = [f" {letter}".rstrip() for letter in letters]
    return Verdicts(
        _judge(f"{claim}{letter}", part, evidence, preset, source) for letter, part in zip(letters, found, strict=True)
    )


def changed(before: Iterable[Verdict], after: Iterable[Verdict]) -> list[str]:
    """Which verdicts other evidence changes, each in words, with the counts that make it."""
    return [
        f"{new.claim} becomes {new.verdict} ({new.because}; before: {old.verdict})"
        for old, new in zip(before, after, strict=True)
        if old.verdict != new.verdict
    ]


def on_paper(part: Part) -> Finding:
    """The same rule applied to the paper's own table, whose means are taken as exact."""
    assert part.paper.table is not None
    table = published.table(part.paper.table).reset_index()
    if "problem" in table:  # Table 2: a row per problem, the methods are its columns
        return find(part, table.assign(smto="fixed", seed=1), exact=True)
    rule = part.rule
    problem = rule.problem if isinstance(rule, Rank) else next(iter(rule.of)) if isinstance(rule, Count) else ""
    return find(part, table.assign(problem=problem, seed=1), exact=True)


def _judge(name: str, part: Part, evidence: pd.DataFrame, preset: str, source: str | None) -> Verdict:
    finding = find(part, evidence)
    verdict, because = finding.verdict, finding.because
    lacking = [f"the preset {preset}"] if preset not in part.needs.presets else []
    if part.needs.sources and source not in part.needs.sources:
        drawn = " (synthetic streets)" if source == "embedded" else ""
        lacking.append(f"the source {source}{drawn}" if source else "a source that is not known")
    if lacking:
        verdict, because = INCONCLUSIVE, f"{listed(lacking)} decide{'s' if len(lacking) == 1 else ''} nothing"
    return Verdict(
        claim=name,
        says=" ".join(part.says.split()),
        where=part.where,
        paper=_paper_text(part),
        ours=finding.text,
        interval=finding.interval,
        n=finding.n,
        verdict=verdict,
        because=because,
        rule=" ".join(part.in_words.split()) + (f" {finding.method}" if finding.method else ""),
        preset=preset,
        details=finding.details,
    )


def _paper_text(part: Part) -> str:
    if part.paper.text:
        found = published.text(part.paper.text)
        return f"about {minus(f'{found.value:g}')}{' %' if found.unit == '%' else ''}"
    return on_paper(part).text if part.paper.table else "no number"


# -- deciding ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """What a rule finds in a table, before it is asked whether the table is large enough."""

    verdict: str
    because: str
    text: str
    interval: tuple[float, float] | None
    n: int
    method: str
    details: list[dict[str, Any]]


def find(part: Part, evidence: pd.DataFrame, exact: bool = False) -> Finding:
    """Apply a rule to a table. With `exact` the numbers are taken as they are, without an interval."""
    rule = part.rule
    if isinstance(rule, Checks):
        return _checks(rule, evidence)
    needed = ["problem", "smto", "seed", *(rule.value if isinstance(rule, Count) else [rule.column])]
    if missing := [column for column in needed if column not in evidence]:
        raise BadEvidence(
            f"the rule asks for {', '.join(missing)}, which the table does not have; it has {', '.join(evidence)}. "
            "Columns on weights and gradients come from alignment.per_run(runs)."
        )
    if evidence.duplicated(["problem", "smto", "seed"]).any():
        raise BadEvidence(
            "several runs of one method have the same problem and seed; keep one configuration per method."
        )
    return _count(part, rule, evidence, exact) if isinstance(rule, Count) else _rank(part, rule, evidence, exact)


def _count(part: Part, rule: Count, evidence: pd.DataFrame, exact: bool) -> Finding:
    of, seeds = _values(rule, evidence), 1 if exact else max(part.needs.seeds, 1)
    n, u = len(of), rule.at_least
    support, contradiction = 1 - ERROR / (n - u + 1), 1 - ERROR / u
    outcomes: dict[str, list[str]] = {"holds": [], "fails": [], "open": []}
    details, sizes = [], []
    for (problem, smto), values in of.items():
        inner, outer = _interval(values, support, exact), _interval(values, contradiction, exact)
        complete = len(values) >= seeds and values.notna().all()
        if complete and rule.above < inner.low and inner.high < rule.below:
            outcome = "holds"
        elif complete and (outer.high <= rule.above or outer.low >= rule.below):
            outcome = "fails"
        else:
            outcome = "open"
        where = f" on {problem_label(problem)}" if len(rule.of) > 1 else ""
        outcomes[outcome].append(f"{label(smto)}{where}")
        details.append({"problem": problem, "smto": smto, **inner._asdict(), "outcome": outcome})
        sizes.append(inner.n)
    low, high = len(outcomes["holds"]), n - len(outcomes["fails"])
    verdict = REPRODUCED if low >= u else NOT_REPRODUCED if high < u else INCONCLUSIVE
    span = f"{low}" if low == high else f"{low} to {high}"
    because = f"{span} of {n}, and it takes {u}"
    if max(sizes) < seeds:
        because = f"{counted(max(sizes), 'seed')}, and it takes {seeds}"
    text = f"{span} of {n}"
    for outcome, word in (("fails", "not"), ("open", "open:")):
        if found := outcomes[outcome]:
            text += f"; {word} {', '.join(found) if len(found) < min(n, 9) else f'all {len(found)}'}"
    if not exact:
        text += f" ({_means(rule, details)})"
    method = (
        f"Intervals over seeds, {_percent(support)} each to support it, {_percent(contradiction)} to contradict it."
    )
    return Finding(verdict, because, text, (low, high), min(sizes), method, details)


def _values(rule: Count, evidence: pd.DataFrame) -> dict[tuple[str, str], pd.Series]:
    """The number that the rule is about, by seed, for every pair; only seeds that both runs of a difference have."""
    numbers = evidence[list(rule.value)].astype(float) @ pd.Series(rule.value)
    by_seed = pd.Series(numbers.to_numpy(), evidence["seed"])
    where = evidence.groupby(["problem", "smto"]).indices
    values = {pair: by_seed.iloc[rows] for pair, rows in where.items()}
    nothing = pd.Series(dtype=float)
    found = {}
    for problem, smto in pairs(rule):
        found[problem, smto] = values.get((problem, smto), nothing)
        if rule.minus_smto or rule.minus_problem:
            other = values.get((rule.minus_problem or problem, rule.minus_smto or smto), nothing)
            found[problem, smto] = (found[problem, smto] - other)[found[problem, smto].index.intersection(other.index)]
    return found


def _interval(values: pd.Series, level: float, exact: bool) -> Interval:
    if exact and len(values):
        return Interval(values.iloc[0], values.iloc[0], values.iloc[0], 1)
    return inference.t_interval(values, level)


def _rank(part: Part, rule: Rank, evidence: pd.DataFrame, exact: bool) -> Finding:
    smtos = _expand(rule.smtos, _file().groups)
    assert part.paper.table is not None
    theirs = published.table(part.paper.table).loc[smtos, rule.column]
    rows = evidence[(evidence.problem == rule.problem) & evidence.smto.isin(smtos)]
    ours = rows.pivot(index="seed", columns="smto", values=rule.column).reindex(columns=smtos).dropna()
    rhos = pd.Series({s: inference.spearman(ours.loc[s], theirs).rho for s in ours.index}, dtype=float)
    mean, low, high, n = _interval(rhos, 1 - ERROR, exact)
    low, high = max(low, -1.0), min(high, 1.0)
    verdict = REPRODUCED if low > rule.at_least else NOT_REPRODUCED if high <= rule.at_least else INCONCLUSIVE
    details = [{"problem": rule.problem, "seed": int(seed), "rho": rho} for seed, rho in rhos.items()]
    method = "One correlation per seed, 95 % interval over seeds."
    if n == 0:
        return Finding(INCONCLUSIVE, "no seed has all the methods", "nothing to compare", None, 0, method, details)
    bounds = f" [{number(low, 2)}, {number(high, 2)}]" if n > 1 else ", no interval"
    text = "ρ = 1, its own order" if exact else f"ρ = {number(mean, 2)}{bounds}"
    because = f"the interval from {number(low, 2)} to {number(high, 2)}, the line at {rule.at_least}"
    if n < part.needs.seeds and not exact:
        verdict, because = INCONCLUSIVE, f"{counted(n, 'seed')}, and it takes {part.needs.seeds}"
    return Finding(verdict, because, text, (low, high), n, method, details)


def _checks(rule: Checks, evidence: pd.DataFrame) -> Finding:
    if missing := [column for column in ("proposition", "check", "passed") if column not in evidence]:
        raise BadEvidence(f"checks need the columns proposition, check and passed; {', '.join(missing)} is missing.")
    passed = evidence.passed.astype(bool)
    absent = sorted(set(rule.propositions) - set(evidence.proposition))
    text = f"{passed.sum()} of {len(evidence)} checks passed"
    details = evidence.to_dict("records")
    if not passed.all():
        failed = ", ".join(f"{row.check} (proposition {row.proposition})" for row in evidence[~passed].itertuples())
        return Finding(NOT_REPRODUCED, f"failed: {failed}", text, None, len(evidence), "", details)
    if absent:
        because = f"no check of proposition {', '.join(map(str, absent))}"
        return Finding(INCONCLUSIVE, because, text, None, len(evidence), "", details)
    return Finding(REPRODUCED, "every check passed", text, None, len(evidence), "", details)


# -- words -------------------------------------------------------------------------------------------------------------


def _percent(level: float) -> str:
    return f"{round(100 * level, 1):g} %"


def _means(rule: Count, details: list[dict[str, Any]]) -> str:
    """The numbers behind a count: each with its interval where there are two, else from the least to the greatest."""
    if len(details) <= 2:
        methods = len({d["smto"] for d in details}) > 1
        names = [label(d["smto"]) if methods else problem_label(d["problem"]) for d in details]
        return "; ".join(f"{name} {number(d['mean'], 3)}{_bounds(d)}" for name, d in zip(names, details, strict=True))
    means = [d["mean"] for d in details if math.isfinite(d["mean"])]
    minus = rule.minus_smto or rule.minus_problem
    what = "mean margins" if len(rule.value) > 1 else "mean differences" if minus else "means"
    return f"{what} from {number(min(means), 2)} to {number(max(means), 2)}" if means else "no value"


def _bounds(row: dict[str, Any]) -> str:
    return f" [{number(row['low'], 3)}, {number(row['high'], 3)}]" if math.isfinite(row["low"]) else ", no interval"


def _plain(value: Any) -> Any:
    """For JSON: plain numbers, and null for what is not finite."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
