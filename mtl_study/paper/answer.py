"""The first page of the report: the answer, what it rests on, and whether to use an SMTO.

    answer(found), guide(found, verdicts), basis(found, judged)

`found` are the numbers that the notebooks' conclusions left (`conclusions`), by the notebook's number; verdicts are the
rows of claims.json by id. What a number is missing for is left out, so that a page of a part of the notebooks says what
that part knows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mtl_study.paper.claims import ERROR, NOT_REPRODUCED, OPEN, REPRODUCED
from mtl_study.paper.conclusions import (
    CALLED,
    NUMBER_OF_TASKS,
    between,
    not_so_small,
    points,
    side,
    still_ahead,
    told,
)
from mtl_study.words import counted, listed, number, percent, spanned

QUESTION = (
    "Multi-task networks are trained on several losses at once. Do specialized multi-task optimizers (SMTOs), which "
    "weigh the tasks in every step, beat the uniform loss, the plain sum of all losses?"
)
#: the kinds of data, as `conclusions.basis` names them, and what they stand for on the page
DATA = {"multimnist": "Digits", "cityscapes": "Streets", "qm9": "Molecules"}
PICTURE = "05b_two_objectives"

Found = Mapping[str, Mapping[str, Any]]
Rows = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Said:
    """One sentence of the answer, and where the evidence is: notebooks by number, claims by id, and figures and tables
    by the ids that they have on the page of results."""

    says: str
    notebooks: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Advice(Said):
    """One line of the guide, with its topic; of the claims only those that are decided."""

    topic: str = ""


def _known(found: Found) -> Found:
    """The numbers as they were before they became JSON, which has no NaN."""

    def known(value: Any) -> Any:
        if isinstance(value, list):
            return [known(item) for item in value]
        return math.nan if value is None else value

    return {notebook: {name: known(value) for name, value in numbers.items()} for notebook, numbers in found.items()}


def answer(found: Found) -> list[Said]:
    """The answer in five sentences, fewer where numbers are missing."""
    found = _known(found)
    notebooks = ("01", "02", "02b", "03", "04", "05b", "05c")
    one, two, cosine, three, four, sweep, ways = (found.get(notebook, {}) for notebook in notebooks)
    return [
        *_where_tasks_differ(one),
        *_how_much_is_speed(one, ways),
        *_where_tasks_are_alike(two, _apart(two, one)),
        *_a_sweep(sweep, _apart(sweep, one)),
        *_elsewhere(three, four, cosine, one),
    ]


def _apart(numbers: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    """ ", on fewer digits, for 10 epochs": what the digits of a notebook have other than 01's; else ""."""
    (theirs, epochs), (ours, length) = (_scale(of.get("basis", {}).get("multimnist", "")) for of in (numbers, one))
    if not theirs or not ours:
        return ""
    pairs = f", on {'fewer' if theirs < ours else 'more'} digits" if theirs != ours else ""
    return pairs + (f", for {epochs}" if epochs != length else "")


def _scale(basis: str) -> tuple[int, str]:
    """How many pairs the words say that there are, and for how long: (12000, "10 epochs"); without words (0, "")."""
    pairs, _, rest = basis.partition(" ")
    return int(pairs.replace(",", "") or 0), rest.partition("; ")[2].partition(" (")[0]


def _where_tasks_differ(one: Mapping[str, Any]) -> Iterator[Said]:
    if one:
        yield Said(
            f"Where two tasks differ (CL_RR: name one digit, redraw the other), {one['better'] or 'none'} of "
            f"{one['methods']} SMTOs surely beat the uniform loss with the paper's settings; the {one['kept']} that "
            f"the paper keeps are {side(one['lead'], 'points of Δm')} (median).",
            claims=("C1a",),
            pictures=("01_figure_1", "01_table_3-table"),
        )


def _how_much_is_speed(one: Mapping[str, Any], ways: Mapping[str, Any]) -> Iterator[Said]:
    if not one:
        return
    own, larger = one["rates"]
    gains, gain = f"A larger learning rate alone ({larger:g} in place of {own:g}) ", points(one["rate_gain"])
    if one["rate_gain"][1] > 0:
        gains += f"gives the uniform loss {gain} over {counted(one['rate_seeds'], 'seed')}"
    else:
        gains += f"is not shown to help the uniform loss: {gain}"
    if larger <= own:
        gains = "No SMTO has a larger learning rate than the uniform loss"
    compared = one["sure_at_one_rate"], one["compared_at_one_rate"], one["lead_at_one_rate"]
    left = f". Compared at equal rates, {still_ahead(*compared)}" if one["compared_at_one_rate"] else ""
    batch, shown, apart = "", ["05c_lr_vs_seed", "01_differences-table"], _apart(ways, one)
    if found := ways.get("by_batch"):
        _, low, high = found["alone"]
        does = "one helps, too" if low > 0 else "none helps" + (", for all we know" if high > 0 else "")
        gains += f"; of the batches {listed(map(str, found['sizes']))}{apart}, with about as many steps, {does} "
        gains += f"(at best, with {found['best']} in place of {ways['batch']}: {points(found['alone'])})"
        place = ", ".join(map(str, found["suits"]))
        if edges := found["edges"]:
            place += f"; {'nothing larger' if len(edges) > 1 else edges[0]} was tried"
        where = "best there" if apart else "best"
        left += f"; where rate and batch suit the uniform loss {where} ({place}) {found['led']} lead by "
        left += number(found["left"])
        shown = ["05c_batch", "05c_batches-table", *shown]
    else:
        both = ways.get("leads_by_rate", {}).get(f"{larger:g}")
        if both is not None:
            left += f", and where both have the larger one{apart and f'{apart},'} {ways['led']} lead by {number(both)}"
        batch = f"; the batch was {ways['batch']} throughout, so its part is not known" if "batch" in ways else ""
    yield Said(f"{gains}{left}{batch}.", claims=("C1a", "Xin-learning-rate"), pictures=tuple(shown))


def _where_tasks_are_alike(two: Mapping[str, Any], apart: str) -> Iterator[Said]:
    if two:
        name, largest = two["largest"]
        yield Said(
            f"Where two tasks are alike{apart}, {two['small']} of {two['pairs']} differences are shown to be smaller "
            f"than {two['margin']:g} points, {not_so_small(two['larger'], two['different'])}, {two['unknown']} are not "
            f"known, and the largest is {number(largest, 1, sign=True)} points ({name}).",
            claims=("C3a", "C3b"),
            pictures=("02_figure_2", "02_equivalence-table"),
        )


def _a_sweep(sweep: Mapping[str, Any], apart: str) -> Iterator[Said]:
    if "gap_to_sweep" in sweep:
        yield Said(
            f"On CL_RR{apart}, over {counted(sweep['seeds'], 'seed')}, the best of {sweep['sweep']} fixed-weight runs, "
            f"chosen on validation at each seed, reaches {percent(sweep['sweep_delta_m'])}, the best SMTO, "
            f"{sweep['best']}, {percent(sweep['best_delta_m'])}: {between(sweep['gap_to_sweep'])}; to find that SMTO "
            f"cost {number(sweep['price_of_all'], 0)} runs of the uniform loss, without the search for learning rates.",
            claims=("Xin-front a", "Xin-utility"),
            pictures=(PICTURE, "05b_answer-table"),
        )


def _elsewhere(
    three: Mapping[str, Any], four: Mapping[str, Any], cosine: Mapping[str, Any], one: Mapping[str, Any]
) -> Iterator[Said]:
    parts = []
    if three:
        parts.append(
            f"the streets are drawn, and so decide none of {three['statements']} statements on Cityscapes"
            if three["drawn"]
            else f"on Cityscapes {three['holds']} of {three['statements']} statements hold"
        )
    if four:
        rest = four["methods"] - four["better"] - four["worse"]
        parts.append(f"on molecules {rest} of {four['methods']} SMTOs cannot be told from the uniform loss")
    if cosine.get("problems"):
        parts.append(
            f"over {cosine['problems']} problems{_among(cosine, one)} the paper's cosine C has a rank correlation of "
            f"{number(cosine['rho'], 2)} with what IMTL gains at one learning rate{_by_seed(four)}, {_rivals(cosine)}"
        )
    if parts:
        text = "; ".join(parts)
        yield Said(
            f"{text[0].upper()}{text[1:]}.",
            ("03",) if three else (),
            (*(("C7b",) if four else ()), *(("C10-ranking a",) if cosine.get("problems") else ())),
            (*(("04_figure_8",) if four else ()), *(("02b_ranking-table",) if cosine.get("problems") else ())),
        )


def _among(cosine: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    """Where the digits among the problems are not those of 01."""
    apart = _apart(cosine, one)
    return f" (those{apart.removeprefix(',')} among them)" if apart else ""


def _by_seed(four: Mapping[str, Any]) -> str:
    """The other number that is called so: the claim's."""
    rho = four.get("rho_by_seed", math.nan)
    words = "over all problems with the paper's settings, seed by seed"
    return f" ({number(rho, 2)} {words})" if math.isfinite(rho) else ""


def _rivals(cosine: Mapping[str, Any]) -> str:
    """What the number of tasks has in place of C, and what has most."""
    name, rho = cosine["rival"]
    alone = f"the number of tasks alone {number(-cosine['rho_of_floor'], 2)}"  # of 1/√K, which falls with it
    return alone if name == NUMBER_OF_TASKS else f"{alone}, {CALLED[name]} {number(rho, 2)}"


# -- should I use an SMTO? ---------------------------------------------------------------------------------------------


def guide(found: Found, verdicts: Rows) -> list[Advice]:
    """What to try first, when an SMTO pays, what it costs, and what not to go by."""
    found = _known(found)
    one, two, cosine, five, sweep = (found.get(number_, {}) for number_ in ("01", "02", "02b", "05", "05b"))
    advised = [
        *_first(one, five),
        *_pays(one, two, sweep, verdicts),
        *_costs(two, sweep, one, verdicts),
        *_not_by(cosine, one, verdicts),
    ]
    return [_by_what_is_decided(advice, verdicts) for advice in advised]


def _by_what_is_decided(advice: Advice, verdicts: Rows) -> Advice:
    """The advice with those of its claims that the rules decide. Where they decide none, that is said, with all."""
    known = {id_: verdict for id_ in advice.claims if (verdict := _verdict(id_, verdicts))}
    if decided := tuple(id_ for id_, verdict in known.items() if verdict in (REPRODUCED, NOT_REPRODUCED)):
        return replace(advice, claims=decided)
    words = f": {listed(f'{i} is open' if v == OPEN else f'{i} {v}' for i, v in known.items())}" if known else ""
    return replace(advice, says=f"{advice.says} No rule decides this{words}.", claims=tuple(known))


def _verdict(id_: str, verdicts: Rows) -> str:
    """The verdict on a claim; "" where there is none."""
    return str(verdicts.get(id_, {}).get("verdict", ""))


def _first(one: Mapping[str, Any], five: Mapping[str, Any]) -> Iterator[Advice]:
    steps = []
    if one and one["rate_gain"][1] > 0:
        steps.append(f"the learning rate of the uniform loss, which gave {points(one['rate_gain'])}")
    if five and five["fixed"][1] > 0:
        steps.append(
            "a few fixed weights, or weights taken from one SMTO run: held fixed, those of one run gave "
            f"{points(five['fixed'])} without a larger rate{_apart(five, one)}"
        )
    says = f"Tune {'; then '.join(steps)}." if steps else "Nothing cheap is shown to help the uniform loss."
    if one or five:
        yield Advice(says, ("01", "05", "05c"), ("C8a", "Xin-learning-rate"), topic="Try first")


def _pays(one: Mapping[str, Any], two: Mapping[str, Any], sweep: Mapping[str, Any], verdicts: Rows) -> Iterator[Advice]:
    if not one:
        return
    differ = (
        f"Where tasks differ: at one learning rate {one['sure_at_one_rate']} of the {one['compared_at_one_rate']} that "
        f"the paper keeps surely led the uniform loss, by {number(one['lead_at_one_rate'])} points."
        if one["sure_at_one_rate"]
        else "We saw no SMTO that is surely ahead at one learning rate."
    )
    tuned = ""
    if "gap_to_sweep" in sweep:
        mean, low, high = gap = sweep["gap_to_sweep"]
        apart, side = (gap, "ahead") if mean > 0 else ((-mean, -high, -low), "behind")
        says = f"is {points(apart)} {side}" if told(gap) else f"is not shown to be {side}: {points(apart)} between them"
        tuned = (
            f" Against the best of {sweep['sweep']} runs of fixed weights{_apart(sweep, one)}, {sweep['best']} {says}."
        )
    alike = (
        f" Where they are alike, {two['small']} of {two['pairs']} differences are shown to be below {two['margin']:g} "
        "points."
        if two
        else ""
    )
    shown = {REPRODUCED: " Whatever one wants of two tasks, fixed weights do as well."}
    utility = shown.get(_verdict("Xin-utility", verdicts), "")
    shown = {NOT_REPRODUCED: " The paper's order of the methods does not come out again."}
    says = differ + tuned + alike + utility + shown.get(_verdict("C1b", verdicts), "")
    yield Advice(says, ("01", "02", "05b"), ("C1a", "C1b", "C3a", "Xin-utility"), topic="When an SMTO pays")


def _costs(
    two: Mapping[str, Any], sweep: Mapping[str, Any], one: Mapping[str, Any], verdicts: Rows
) -> Iterator[Advice]:
    if not sweep:
        return
    says = (
        f"A run of {sweep['best']} takes {number(sweep['price'])} times the seconds of the uniform loss, and to find "
        f"out that it is the best took as long as {number(sweep['price_of_all'], 0)} runs of the uniform loss"
        f"{_apart(sweep, one)}."
    )
    if two.get("reach"):
        apart = _apart(two, sweep)
        says += (
            f" In return{apart and f'{apart},'} {two['reach']} of {two['of']} reach the uniform loss's end on CL_RR, "
            f"{two['first']} after {percent(100 * two['first_share'], 0)} of its epochs."
        )
    if _verdict("C13", verdicts) == NOT_REPRODUCED:
        says += " Not every method that reads losses only is free."
    yield Advice(says, ("02", "05b"), ("C13", "Time-to-target a", "Xin-compute"), topic="What it costs")


def _not_by(cosine: Mapping[str, Any], one: Mapping[str, Any], verdicts: Rows) -> Iterator[Advice]:
    if not cosine.get("problems"):
        return
    says = (
        f"Over {counted(cosine['problems'], 'problem')}{_among(cosine, one)} it has a rank correlation of "
        f"{number(cosine['rho'], 2)} with what IMTL gains at one learning rate (p = {number(cosine['p'], 2)}), "
        f"{_rivals(cosine)}."
    )
    tells = cosine["p"] < ERROR and not abs(cosine["rho"]) <= abs(cosine["rival"][1])
    topic = "The cosine C tells" if tells else "The cosine C is not shown to tell"
    yield Advice(says, ("02b", "04"), ("C10c", "C10-QM9c"), topic=topic)


def basis(found: Found, judged: Mapping[str, Iterable[Mapping[str, Any]]]) -> dict[str, str]:
    """What the numbers rest on, in words by kind of data. Where notebooks have different runs of a kind they are named.
    Seeds are those of all statements that are judged on such runs.

    Args:
        judged: by the notebook's number the rows of claims.json.
    """
    texts: dict[str, dict[str, list[str]]] = {}  # by kind and what is said the notebooks that say it
    for notebook, numbers in sorted(found.items()):
        for family, text in numbers.get("basis", {}).items():
            texts.setdefault(family, {}).setdefault(text, []).append(notebook)
    known = {}
    for family, said in texts.items():
        for text, notebooks in said.items():
            where = notebooks if len(said) > 1 else judged
            seeds = _seeds(family, [row for notebook in where for row in judged.get(notebook, [])])
            name = DATA.get(family, family) + (f" in {_notebooks(notebooks)}" if len(said) > 1 else "")
            known[name] = f"{text}, {spanned(seeds, 'seed')}" if seeds else text
    return known


def _notebooks(numbers: Sequence[str]) -> str:
    return f"notebook{'s' if len(numbers) > 1 else ''} {listed(numbers)}"


def _seeds(family: str, rows: Iterable[Mapping[str, Any]]) -> set[int]:
    """How many seeds the statements on one kind of data rest on; what has no runs yet rests on none."""
    return {
        row["n"]
        for row in rows
        if row["n"] and any(str(one.get("problem", "")).partition("/")[0] == family for one in row["details"])
    }
