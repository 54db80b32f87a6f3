"""The first page of the report: five sentences and a guide, from invented numbers of the notebooks."""

import pytest

from mtl_study.paper import answer, rules
from mtl_study.paper.claims import BARRED, NOT_REPRODUCED, OPEN, REPRODUCED


@pytest.fixture
def changed(numbers):
    """The numbers, with some of one notebook changed."""

    def change(notebook, **others):
        return {**numbers, notebook: numbers[notebook] | others}

    return change


def guide(found, **verdicts):
    rows = {id_.replace("_", "-"): {"verdict": word} for id_, word in verdicts.items()}
    return {advice.topic: advice.says for advice in answer.guide(found, rows)}


def answered(found):
    return [said.says for said in answer.answer(found)]


OPEN_ADVICE = " No rule decides this."


def test_the_answer_is_five_sentences_with_numbers(numbers, changed):
    one, two, three, four, five = answered(numbers)
    assert "10 of 15 SMTOs surely beat the uniform loss" in one and "10.7 points of Δm ahead" in one
    assert two == (
        "A larger learning rate alone (0.0025 in place of 0.001) gives the uniform loss 9.6 points (8.8 to 10.4) "
        "over 5 seeds. Compared at equal rates, 7 of 8 SMTOs still surely lead, by 9.4 points (median), and where both "
        "have the larger one CAGrad and IMTL lead by 8.2; the batch was 256 throughout, so its part is not known."
    )
    by_batch = {
        "best": 128,
        "alone": [-3.1, -5.0, -1.2],
        "sizes": [32, 64, 128],
        "suits": ["0.0025", 256],
        "edges": ["no rate above 0.0025", "no batch above 256"],
        "left": 7.4,
        "led": "CAGrad and EDM",
    }
    _, two, *_ = answered(changed("05c", by_batch=by_batch))
    assert two == (
        "A larger learning rate alone (0.0025 in place of 0.001) gives the uniform loss 9.6 points (8.8 to 10.4) "
        "over 5 seeds; of the batches 32, 64 and 128, with about as many steps, none helps (at best, with 128 in place "
        "of 256: −3.1 points (−5.0 to −1.2)). Compared at equal rates, 7 of 8 SMTOs still surely lead, by 9.4 points "
        "(median); where rate and batch suit the uniform loss best (0.0025, 256; nothing larger was tried) CAGrad and "
        "EDM lead by 7.4."
    )
    for other, words in (
        ({"alone": [2.0, 1.0, 3.0]}, "steps, one helps, too (at best"),
        ({"alone": [0.2, -1.0, 1.4]}, "none helps, for all we know (at"),
        ({"edges": ["no rate above 0.0025"]}, "(0.0025, 256; no rate above 0.0025 was tried)"),
        ({"edges": []}, "(0.0025, 256)"),
    ):
        _, two, *_ = answered(changed("05c", by_batch=by_batch | other))
        assert words in two, two
    assert (
        "8 of 16 differences are shown to be smaller than 2 points, 2 are surely larger, 4 are surely not 0 and may be "
        "larger, 2 are not known, and" in three
    )
    assert "the largest is −6.7 points (EDM on RL_RR)" in three
    assert four.startswith(
        "On CL_RR, over 3 seeds, the best of 14 fixed-weight runs, chosen on validation at each seed, reaches −4.9 %"
    )
    assert "reaches −4.9 %, the best SMTO, CDTT, −3.4 %: 1.5 points (−0.9 to 4.0) between " in four
    assert "them, which may be none; to find that SMTO cost 22 runs of the uniform loss, without the search" in four
    assert five.startswith(
        "The streets are drawn, and so decide none of 15 statements on Cityscapes; on molecules 4 of 7 SMTOs cannot be "
        "told"
    )
    assert "over 9 problems the paper's cosine C has a rank correlation of −0.45" in five
    assert five.endswith("the number of tasks alone 0.28, the longest gradient's length over the shortest's 0.67.")
    *_, five = answered(changed("04", rho_by_seed=-0.0168))
    assert "(−0.02 over all problems with the paper's settings, seed by seed), the number of tasks alone" in five
    assert answered(changed("04", rho_by_seed=None)) == answered(numbers)


def test_every_sentence_names_its_evidence_and_nothing_of_notebooks_that_say_nothing(numbers):
    """Claims, and figures or tables, that there are; of a part of the notebooks those of that part."""
    known = {id_ for claim in rules.names() for id_, _ in rules.named_parts(claim)}
    for said in answer.answer(numbers):
        assert said.claims and said.pictures and set(said.claims) <= known, said
    *_, five = answer.answer(numbers)
    assert five.notebooks == ("03",) and five.claims == ("C7b", "C10-ranking a")
    (molecules,) = answer.answer({"04": numbers["04"]})
    assert (molecules.notebooks, molecules.claims, molecules.pictures) == ((), ("C7b",), ("04_figure_8",))


def test_the_answer_turns_where_the_numbers_turn(changed):
    (_, two, *_) = answered(changed("01", rate_gain=[0.1, -1.0, 1.2], compared_at_one_rate=0))
    help_ = "is not shown to help the uniform loss: 0.1 points (−1.0 to 1.2)"
    assert two.startswith(f"A larger learning rate alone (0.0025 in place of 0.001) {help_}")
    assert "ompared at equal rates" not in two
    (one, two, *_) = answered(changed("01", rates=[0.0025, 0.0025], sure_at_one_rate=0, lead_at_one_rate=-0.3))
    assert two.startswith(
        "No SMTO has a larger learning rate than the uniform loss. Compared at equal rates, none of 8 "
    )
    assert (
        "none of 8 SMTOs still surely leads (median: 0.3 points behind), and" in two
        and "10.7 points of Δm ahead" in one
    )
    (one, *_) = answered(changed("01", better=0, lead=-1.2))
    assert "none of 15 SMTOs surely beat" in one and "the paper keeps are 1.2 points of Δm behind (median)." in one
    (_, two, *_) = answered({**changed("05c"), "05c": {"leads_by_rate": {}}})
    assert "batch" not in two and "larger one" not in two
    *_, five = answered(changed("03", drawn=False))
    assert five.startswith("On Cityscapes 3 of 15 statements hold; on molecules")


def test_where_a_notebook_has_other_digits_than_01_every_sentence_on_it_says_so(numbers):
    """Fewer, or for another length; and nothing where they are the same."""
    for name in ("02b", "05", "05b", "05c"):
        numbers[name] = numbers[name] | {"basis": {"multimnist": "12,000 pairs of some; 10 epochs (the paper: 100)"}}
    for name in ("01", "02"):
        numbers[name] = numbers[name] | {"basis": {"multimnist": "12,000 pairs of others; 10 epochs (the paper: 90)"}}
    assert not any(" digits," in text or "for 10" in text for text in [*answered(numbers), *guide(numbers).values()])
    for name in ("01", "02"):
        numbers[name] = numbers[name] | {"basis": {"multimnist": "50,000 pairs; 40 epochs (the paper: 100)"}}
    one, two, three, four, five = answered(numbers)
    fewer = "on fewer digits, for 10 epochs"
    assert "digits," not in one + three
    assert f"and where both have the larger one, {fewer}, " in two
    assert four.startswith(f"On CL_RR, {fewer}, over ")
    assert f"over 9 problems (those {fewer} among them) the paper's cosine C has" in five
    found = guide(numbers)
    assert f"without a larger rate, {fewer}." in found["Try first"]
    assert f"best of 14 runs of fixed weights, {fewer}, CDTT is" in found["When an SMTO pays"]
    costs = f"runs of the uniform loss, {fewer}. In return, on more digits, for 40 epochs, 7 of 8 reach"
    assert costs in found["What it costs"]
    assert found["The cosine C is not shown to tell"].startswith(f"Over 9 problems (those {fewer} among them) it has")
    by_batch = {"sizes": [32, 64], "alone": [-3.3, -5.0, -1.7], "best": 64, "suits": [0.0025, 256]}
    by_batch |= {"edges": ["nothing larger"], "led": "CAGrad", "left": 7.8}
    numbers["05c"] = numbers["05c"] | {"by_batch": by_batch, "batch": 256}
    two = answered(numbers)[1]
    assert f"; of the batches 32 and 64, {fewer}, with about as many steps, none helps" in two
    assert "; where rate and batch suit the uniform loss best there (0.0025, 256; nothing larger was tried) " in two
    numbers["01"] = numbers["01"] | {"basis": {"multimnist": "12,000 pairs; 40 epochs (the paper: 100)"}}
    of_all = answered(numbers)
    assert of_all[3].startswith("On CL_RR, for 10 epochs, over ")
    assert of_all[2].startswith("Where two tasks are alike, on more digits, 8 of 16")


def test_of_some_notebooks_the_page_says_what_they_know(numbers):
    """Nothing of none; what became null in JSON is no value, and breaks nothing."""
    assert answer.answer({}) == [] and answer.guide({}, {}) == [] and answer.basis({}, {}) == {}
    assert len(answer.answer({"02": numbers["02"]})) == len(answer.answer({"02b": numbers["02b"]})) == 1
    older = {name: value for name, value in numbers["05b"].items() if name != "gap_to_sweep"}
    assert answer.answer({"05b": older}) == [] and len(answer.guide({"05b": older}, {})) == 1  # of an earlier version
    unknown = {name: None if isinstance(value, float) else value for name, value in numbers["02b"].items()}
    assert "no value" in answered({"02b": unknown})[0]


def test_the_guide_says_what_to_try_first_when_an_smto_pays_and_what_it_costs(numbers):
    found = guide(numbers)
    assert found["Try first"] == (
        "Tune the learning rate of the uniform loss, which gave 9.6 points (8.8 to 10.4); then a few fixed weights, "
        "or weights taken from one SMTO run: held fixed, those of one run gave 9.0 points (5.3 to 12.8) "
        "without a larger rate." + OPEN_ADVICE
    )
    assert (
        "at one learning rate 7 of the 8 that the paper keeps surely led the uniform loss" in found["When an SMTO pays"]
    )
    swept = "Against the best of 14 runs of fixed weights, CDTT is "
    assert swept + "not shown to be ahead: 1.5 points (−0.9 to 4.0) between them." in found["When an SMTO pays"]
    assert "Where they are alike, 8 of 16 differences are shown to be below 2 points." in found["When an SMTO pays"]
    assert (
        "A run of CDTT takes 1.4 times the seconds" in found["What it costs"]
        and "took as long as 22 runs" in found["What it costs"]
    )
    assert "7 of 8 reach the uniform loss's end on CL_RR, CAGrad after 50 % of its epochs" in found["What it costs"]
    unshown = found["The cosine C is not shown to tell"]
    assert "−0.45 with what IMTL gains at one learning rate (p = 0.27), the number of tasks alone 0.28" in unshown
    assert all(advice.notebooks for advice in answer.guide(numbers, {}))


def test_the_guide_names_only_claims_that_are_decided_and_says_where_none_is(numbers):
    """A statement that stays open, or cannot be judged, is no evidence; it is named where there is no other."""
    words = {"C1a": REPRODUCED, "C3a": OPEN, "C10c": BARRED, "C10-QM9c": NOT_REPRODUCED, "C8a": BARRED}
    advised = answer.guide(numbers, {id_: {"verdict": word} for id_, word in words.items()})
    named = {advice.topic: advice.claims for advice in advised}
    assert named == {
        "Try first": ("C8a",),
        "When an SMTO pays": ("C1a",),
        "What it costs": (),
        "The cosine C is not shown to tell": ("C10-QM9c",),
    }
    first, pays, costs, cosine = (advice.says for advice in advised)
    assert first.endswith(" No rule decides this: C8a cannot be judged.") and costs.endswith(OPEN_ADVICE)
    assert "No rule" not in pays + cosine
    both = answer.guide(numbers, {"C8a": {"verdict": BARRED}, "Xin-learning-rate": {"verdict": OPEN}})[0]
    assert both.says.endswith(": C8a cannot be judged and Xin-learning-rate is open.") and len(both.claims) == 2


def test_the_guide_follows_the_verdicts(changed):
    nothing = changed("01", rate_gain=[0.0, -1.0, 1.0], sure_at_one_rate=0)
    nothing |= {"05": nothing["05"] | {"fixed": [0.0, -1.0, 1.0]}}
    found = guide(nothing)
    assert found["Try first"] == "Nothing cheap is shown to help the uniform loss." + OPEN_ADVICE
    assert found["When an SMTO pays"].startswith("We saw no SMTO that is surely ahead")
    swept = "Against the best of 14 runs of fixed weights, CDTT is "
    ahead, behind = (
        changed("05b", gap_to_sweep=[2.0, 1.0, 3.0]),
        changed("05b", gap_to_sweep=[-2.0, -3.0, -1.0]),
    )
    assert swept + "2.0 points (1.0 to 3.0) ahead." in guide(ahead)["When an SMTO pays"]
    assert swept + "2.0 points (1.0 to 3.0) behind." in guide(behind)["When an SMTO pays"]
    assert not any("may be none" in answered(found)[3] for found in (ahead, behind))
    (*_, five) = answered(changed("02b", rival=["1/√K", -0.28]))
    assert five.endswith("what IMTL gains at one learning rate, the number of tasks alone 0.28.")
    found = guide(changed("02b", rho=-0.9, p=0.001), C13=NOT_REPRODUCED, C1b=NOT_REPRODUCED, Xin_utility=REPRODUCED)
    assert (
        "Not every method that reads losses only is free." in found["What it costs"]
        and "paper's order of the methods" in found["When an SMTO pays"]
    )
    assert "fixed weights do as well" in found["When an SMTO pays"]


@pytest.mark.parametrize(
    ("others", "tells"),
    [
        ({"rho": -0.9, "p": 0.001}, True),
        ({"rho": 0.9, "p": 0.001}, True),
        ({"rho": -0.9, "p": 0.001, "rival": ["norm ratio", -0.95]}, False),  # the lengths tell more
        ({"rho": -0.9, "p": 0.001, "rival": ["norm ratio", 0.95]}, False),
        ({"rho": -0.6, "p": 0.001, "rival": ["1/√K", 0.6]}, False),  # and as much
        ({"rho": -0.9, "p": 0.001, "rival": ["1/√K", None]}, True),  # one task count in all problems: nothing to rank
        ({"rho": -0.9, "p": 0.06}, False),
        ({"rho": None, "p": None}, False),
    ],
)
def test_the_cosine_tells_where_it_is_sure_and_stronger_than_every_rival(others, tells, changed):
    topics = [topic for topic in guide(changed("02b", **others)) if "cosine" in topic]
    assert topics == ["The cosine C tells" if tells else "The cosine C is not shown to tell"]


def test_without_problems_nothing_is_said_of_the_cosine(changed):
    without = changed("02b", problems=0)
    assert not any("cosine" in topic for topic in guide(without)) and "cosine" not in answered(without)[4]
    assert "Over 1 problem it has" in guide(changed("02b", problems=1))["The cosine C is not shown to tell"]


def test_each_kind_of_data_is_described_with_the_seeds_of_all_its_statements(changed):
    """Once where the runs are the same; a notebook with other runs is named, and has its own seeds."""

    def judged(problem, *ns):
        return [{"n": n, "details": [{"problem": problem}]} for n in ns]

    said = {"Digits": "12,000 pairs", "Streets": "240 streets", "Molecules": "1,500 molecules"}
    numbers = changed("05")
    assert answer.basis(numbers, {}) == said
    numbers["02"] |= {"basis": {"multimnist": "12,000 pairs"}}
    numbers |= {number: {"basis": {"multimnist": "4,000 pairs"}} for number in ("07", "08")}
    rows = {
        "01": judged("multimnist/CL_RR", 5, 0),
        "02": judged("multimnist/CL_CR", 3),
        "04": judged("qm9", 3),
        "06": [{"n": 26, "details": [{"proposition": 1}]}],
        "07": judged("multimnist/CL_RR", 7),
        "08": judged("multimnist/CL_CR", 4) + judged("cityscapes/R18", 6),
    }
    assert answer.basis(numbers, rows) == {
        "Digits in notebooks 01, 02 and 05": "12,000 pairs, 3 to 5 seeds",
        "Digits in notebooks 07 and 08": "4,000 pairs, 4 to 7 seeds",
        "Streets": "240 streets, 6 seeds",
        "Molecules": "1,500 molecules, 3 seeds",
    }
    numbers["08"] = {"basis": {"multimnist": "2,000 pairs", "cityscapes": "160 streets"}}
    found = answer.basis(numbers, rows)
    assert found["Digits in notebook 07"] == "4,000 pairs, 7 seeds" and found["Streets in notebook 03"] == "240 streets"
    assert found["Digits in notebook 08"] == "2,000 pairs, 4 seeds"
    assert found["Streets in notebook 08"] == "160 streets, 6 seeds"
