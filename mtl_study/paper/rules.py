"""The claims and their rules as data: data/claims.yaml, read and checked.

data/claims.yaml says for every claim what it is, where the paper makes it, what it takes to judge it, and the rule that
decides. A rule of kind

    count    asks of how many (problem, method) pairs something holds: that a number per run (a combination of columns,
             minus the same of another method, or on another problem, at the same seed) is within bounds on average
    rank     asks whether the methods come in the paper's order; with groups of them, whether the groups do, and whether
             the methods do within their groups
    share    asks whether something happens in more than half of the runs
    checks   asks whether all checks of a proof, or of what a theory promises to the last bit, have passed
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from typing import Annotated, Literal

import yaml
from pydantic import Field, model_validator

from mtl_core.names import nearest
from mtl_study.paper import published


class BadEvidence(ValueError):
    """A claim was asked for that does not exist, or with a table that cannot decide it."""


class Compared(published.Strict):
    """A number per run, and the bounds that it is compared with.

    exceeds: methods or groups; the number is then the lesser of itself and what it has beyond their mean, at each
    seed, so that both it and its lead over them have to be above the line. unit: of the number, e.g. "points"; "share
    of runs" for a share, "share" for a difference of shares, which is read in points; of a plain number its name, e.g.
    "C". log: whether the columns are positive and compared by their logarithms, so that a difference is a ratio;
    bounds, too, are then ratios.
    """

    value: dict[str, float]
    minus_smto: str | None = None
    minus_problem: str | None = None
    exceeds: list[str] = Field(default=[])
    above: float = -math.inf
    below: float = math.inf
    unit: str
    log: bool = False

    def bounds(self) -> tuple[float, float]:
        """Above and below, as logarithms where these are compared."""
        if not self.log:
            return self.above, self.below
        return (math.log(self.above) if self.above > 0 else -math.inf), math.log(self.below)


class Count(Compared):
    """At least `at_least` of the pairs in `of` have Σ value[c] · c, minus that of another run, within the bounds.

    together: the pairs of a problem are one comparison: the mean of their numbers at a seed, or the share of them that
    is ahead, above 0 (½ where it is 0).

    statistic: not the mean over seeds is compared but a spread: "spread", the standard deviation between seeds over
    that of `minus_smto`; "choice", that between the means at several values of the column `over`, over that between
    seeds at the value that is best by `best_by`.
    """

    kind: Literal["count"]
    of: dict[str, list[str]]  # problem → methods or groups of methods
    at_least: int
    together: Literal["", "mean", "ahead"] = ""
    statistic: Literal["mean", "spread", "choice"] = "mean"
    over: str = ""
    best_by: str = ""


class Rank(published.Strict):
    """Spearman's correlation of each seed's column with the paper's is above the line. Of several groups two numbers
    are: the mean correlation within a group, and how well the groups come in their order (Somers' d)."""

    kind: Literal["rank"]
    problem: str
    groups: list[list[str]]
    column: str
    above: float


class Share(Compared):
    """In more than half of its runs the one pair in `of` has Σ value[c] · c, minus that of another run, within the
    bounds."""

    kind: Literal["share"]
    of: dict[str, list[str]]


class Checks(published.Strict):
    """Every check of every proposition has passed. A proposition has a number, or a name where the paper gives none."""

    kind: Literal["checks"]
    propositions: list[int | str]


class Reference(published.Strict):
    """Where to find the paper's own number: a table of results or a number in its text."""

    table: str | None = None
    text: str | None = None


#: whose shipped runs were looked at before some rules were fixed
LOOKED_AT = "quick"


class Needs(published.Strict):
    """What it takes to judge: one of these presets, so many seeds, and data of one of these sources (any if empty).
    reason: why no other preset can. after: at the preset `LOOKED_AT` only seeds above this number count, since its runs
    up to it were looked at before the rule was fixed; those of the other presets were not."""

    presets: list[str]
    seeds: int
    after: int = 0
    sources: list[str] = Field(default=[])
    reason: str = ""


class Part(published.Strict):
    """One statement with its rule."""

    says: str
    where: str
    paper: Reference = Reference()
    needs: Needs
    rule: Annotated[Count | Rank | Share | Checks, Field(discriminator="kind")]
    in_words: str


class _File(published.Strict):
    groups: dict[str, list[str]]
    figures: dict[str, list[str]]
    claims: dict[str, list[Part]]

    @model_validator(mode="after")
    def _rules_make_sense(self) -> _File:
        if strangers := [name for name in self.figures if name not in self.claims]:
            raise ValueError(f"figures: {strangers[0]!r} is no claim{nearest(strangers[0], self.claims)}")
        for name, parts in self.claims.items():
            for rule in (part.rule for part in parts):
                if isinstance(rule, Count | Share):
                    joined = isinstance(rule, Count) and rule.together
                    n = len(rule.of) if joined else len(pairs(rule, self.groups))
                    if isinstance(rule, Count) and not 1 <= rule.at_least <= n:
                        raise ValueError(f"{name}: at_least is {rule.at_least}, of {n} pairs")
                    if isinstance(rule, Share) and n != 1:
                        raise ValueError(f"{name}: a share is of one pair, not of {n}")
        return self


@cache
def _file() -> _File:
    text = resources.files(__package__).joinpath("data", "claims.yaml").read_text(encoding="utf-8")
    return _File.model_validate(yaml.safe_load(text))


def names() -> list[str]:
    """The claims that there are rules for."""
    return list(_file().claims)


def figures() -> dict[str, list[str]]:
    """By claim the names of the figures and tables that show it, the best first. Of the figures the report shows those
    that come first, and no others; the notebooks show all."""
    return _file().figures


def parts(claim: str) -> list[Part]:
    """The statements of one claim. Raises BadEvidence, naming the nearest."""
    known = _file().claims
    if claim not in known:
        raise BadEvidence(f"there is no claim {claim!r}{nearest(claim, known)}. Known: {', '.join(known)}.")
    return known[claim]


def named_parts(claim: str) -> Iterator[tuple[str, Part]]:
    """The statements of one claim with their ids: "C12" where there is one, "C10b", "Xin-front a"."""
    found = parts(claim)
    for i, part in enumerate(found):
        letter = "" if len(found) == 1 else chr(ord("a") + i)
        space = " " if letter and not claim[-1].isdigit() else ""
        yield f"{claim}{space}{letter}", part


def fresh_seeds(claim: str) -> list[int]:
    """The seeds that a claim is judged on whose rule was fixed after others had been looked at: as many again as its
    parts need, from the first that counts on."""
    after = max(part.needs.after for part in parts(claim))
    return list(range(after + 1, after + 1 + 2 * max(part.needs.seeds for part in parts(claim))))


def pairs(rule: Count | Share, groups: dict[str, list[str]] | None = None) -> list[tuple[str, str]]:
    """The (problem, method) pairs that a rule is about."""
    return [(problem, smto) for problem, members in rule.of.items() for smto in expand(members, groups)]


def named(rule: Count | Share | Rank) -> set[tuple[str, str]]:
    """All (problem, method) pairs whose runs a rule looks at: what it is about, and what that is compared with."""
    if isinstance(rule, Rank):
        return {(rule.problem, smto) for group in rule.groups for smto in expand(group)}
    found = set(pairs(rule))
    found |= {(problem, smto) for problem, _ in found for smto in expand(rule.exceeds)}
    if rule.minus_smto or rule.minus_problem:
        found |= {(rule.minus_problem or problem, rule.minus_smto or smto) for problem, smto in found}
    return found


def expand(members: Sequence[str], groups: dict[str, list[str]] | None = None) -> list[str]:
    """Methods, with groups of them written out."""
    groups = _file().groups if groups is None else groups
    return [smto for member in members for smto in groups.get(member, [member])]
