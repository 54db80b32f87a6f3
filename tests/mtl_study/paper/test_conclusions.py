"""What a notebook says that it found, a test per branch, on small invented tables."""

import json
import math
from types import SimpleNamespace

import pandas as pd
import pytest

from mtl_study import artifacts, provenance
from mtl_study.analysis.inference import Interval
from mtl_study.experiments.runs import RunConfig
from mtl_study.paper import conclusions
from mtl_study.paper.claims import BARRED, NOT_REPRODUCED, OPEN, REPRODUCED

CL_RR, CL_CR = "multimnist/CL_RR", "multimnist/CL_CR"


def verdict(id_, word, mean=None, low=None, high=None, n=5, unit="points"):
    return SimpleNamespace(id=id_, verdict=word, estimate=mean, low=low, high=high, n=n, unit=unit)


def intervals(**rows):
    return pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "low", "high"]).rename_axis("smto")


def gains(problem=CL_RR, seeds=(1, 2, 3), **by_smto):
    rows = [
        {"problem": problem, "smto": smto, "seed": seed, "delta_m": value + 0.1 * seed}
        for smto, value in by_smto.items()
        for seed in seeds
    ]
    return pd.DataFrame(rows)


def says(found):
    """All sentences in one text, what speaks against each behind its "**But**"."""
    return " ".join(conclusions.words(vars(sentence)) for sentence in found.sentences)


def run(problem, seed=1, **settings):
    return SimpleNamespace(config=RunConfig.of(problem=problem, seed=seed, epochs=10, lr=0.001, **settings))


# -- what all share ----------------------------------------------------------------------------------------------------


def test_only_decided_verdicts_count_as_decided_and_what_is_not_stands_against_them():
    mixed = [verdict("C1a", REPRODUCED), verdict("C1b", NOT_REPRODUCED), verdict("C2", OPEN), verdict("C3", BARRED)]

    def said(*verdicts):
        return conclusions.words(vars(conclusions.judged(verdicts)))

    assert said(*mixed) == (
        "Of 4 statements the rules decide 2: 1 is reproduced (C1a). **But** 1 is not (C1b); 1 stays open; 1 cannot be "
        "judged on these runs."
    )
    assert said(*mixed[:1]).endswith("decide 1: 1 is reproduced (C1a). **But** C1a rests on 5 seeds, the fewest.")
    checks = verdict("C12", REPRODUCED, n=2, unit="checks")
    assert said(mixed[0], checks) == (
        "Of 2 statements the rules decide 2: 2 are reproduced (C1a and C12). **But** C12 rests on 2 checks, the fewest."
    )
    assert said(mixed[1], mixed[3]) == (
        "Of 2 statements the rules decide 1: none are reproduced. **But** 1 is not (C1b); 1 cannot be judged on these "
        "runs."
    )
    several = [
        verdict(f"C{i}", word) for word, some in ((REPRODUCED, range(6)), (NOT_REPRODUCED, range(6, 11))) for i in some
    ]
    assert said(*several) == (  # up to five are named
        "Of 11 statements the rules decide 11: 6 are reproduced. **But** 5 are not (C6, C7, C8, C9 and C10)."
    )
    assert said(*mixed[2:]) == (
        "Of 2 statements the rules decide none. **But** 1 stays open; 1 cannot be judged on these runs."
    )


def test_conclusions_are_shown_and_saved_and_smoke_says_that_it_means_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path))
    provenance.forget()
    provenance.note("multimnist/CL_RR/edm/0123456789abcdef", "f" * 64)
    sentences = [conclusions.Sentence("A < B.", "c."), *2 * [conclusions.Sentence("D.", "e.")]]
    found = conclusions.Conclusions(sentences, {"rho": math.nan, "n": 3})
    shown = conclusions.conclude(found, preset="quick", notebook="01_x")._repr_markdown_()
    assert shown == "* A < B. **But** c.\n* D. **But** e.\n* D. **But** e."
    saved = json.loads((tmp_path / "quick/findings/01_x.json").read_text())
    assert saved["sentences"][0] == {"says": "A < B.", "against": "c."}
    assert saved["numbers"] == {"rho": None, "n": 3}
    assert saved["records"] == {"multimnist/CL_RR/edm/0123456789abcdef": "f" * 64}
    at_smoke = conclusions.conclude(found, preset="smoke", notebook="01_x")
    assert at_smoke.sentences[0].says.endswith("mean nothing. A < B.") and at_smoke.sentences[1:] == sentences[1:]
    artifacts.clear(tmp_path / "quick", "01_x")
    assert not (tmp_path / "quick/findings/01_x.json").exists()


def test_a_notebook_finds_three_to_six_things_and_says_what_speaks_against_each():
    """Whatever a notebook concludes is made of these, so this holds for all of them, whatever their numbers are."""
    with pytest.raises(ValueError, match=r"nothing is said against 'A\.'"):
        conclusions.Sentence("A.", "")
    one = conclusions.Sentence("A.", "b.")
    for count in range(9):
        if 3 <= count <= 6:
            assert len(conclusions.Conclusions([one] * count).sentences) == count
        else:
            with pytest.raises(ValueError, match=f"{count} findings, expected 3 to 6"):
                conclusions.Conclusions([one] * count)


def test_what_numbers_rest_on_is_read_from_the_runs():
    digits = [run(CL_RR, seed=s, train_size=12_000) for s in (1, 2)]
    streets = run("cityscapes/19C", batch_size=8, train_size=240, problem_options={"width": 64, "slim": 4})
    molecules = run("qm9", batch_size=30, train_size=1500, problem_options={"max_atoms": 13, "slim": 2})
    found = conclusions.basis([*digits, streets, molecules])
    assert found["multimnist"] == (
        "12,000 pairs made of 3,500 handwritten digits; 10 epochs (the paper: 100), batch 256"
    )
    assert found["cityscapes"].startswith(
        "240 synthetic streets, 128 × 64 pixels, layers of 1/4 of the width; 10 epochs"
    )
    small = run("cityscapes/R18", batch_size=8, train_size=240, problem_options={"width": 64, "slim": 4})
    assert "streets, 64 × 32 or 128 × 64 pixels" in conclusions.basis([streets, small])["cityscapes"]
    assert "streets, 64 × 32 pixels" in conclusions.basis([small])["cityscapes"]
    assert found["qm9"].startswith("1,500 molecules of at most 13 atoms, layers of 1/2 of the width; 10 epochs")
    assert conclusions.ours(digits) == f"our numbers rest on {found['multimnist']}, 2 seeds"
    full = conclusions.basis([run(CL_RR, source="full"), run("cityscapes/19C", source="full")])
    assert full["multimnist"].startswith("50,000 pairs made of 50,000") and "photographs" in full["cityscapes"]


def test_what_is_missed_is_named_with_its_reason_and_smoke_means_nothing():
    wrong = SimpleNamespace(id="C1b", verdict=OPEN, why="it crosses 0")
    alike, other = SimpleNamespace(**{**vars(wrong), "id": "C2"}), SimpleNamespace(**{**vars(wrong), "why": "no runs"})
    assert conclusions.missed([verdict("C1a", REPRODUCED), wrong, other, alike], "quick") == (
        "Of the paper's own claims not reproduced, open, or not judged here: C1b and C2 (open: it crosses 0); C1b "
        "(open: no runs)."
    )
    assert conclusions.missed([verdict("C1a", REPRODUCED)], "quick") == "All 1 statements of the paper are reproduced."
    assert "mean nothing" in conclusions.missed([wrong], "smoke")


def test_what_a_notebook_spent_counts_a_run_once():
    runs = [SimpleNamespace(**vars(run(CL_RR, seed)), seconds=20.0, diverged=seed == 2, history=[]) for seed in (1, 2)]
    text = conclusions.spent([*runs, runs[0]])
    assert text.startswith("2 runs, those shared with other notebooks among them, took 40 seconds one after the other.")
    assert "1 run diverged." in text
    assert text.endswith("diverged. No method raised a flag in any step.")


# -- 00 ----------------------------------------------------------------------------------------------------------------


def start(distances=(0.0, 0.35), more=11, angle=116.0, hurt=("2", "")):
    ends = pd.DataFrame({"distance of the ends": distances}, index=["Unit. Scal.", "PCGrad"])
    readers = {"the Gramian": 15, "the losses": 13, "more": more}
    return says(
        conclusions.of_first_steps(ends, readers, angle, 2.4, dict(zip(("unit_scal", "edm"), hurt, strict=True)))
    )


def test_the_start_says_who_reads_what_where_walks_end_and_who_would_hurt_a_task():
    text = start()
    assert "Of 39 methods 15 read the Gramian of the task gradients and 13 the losses alone. **But** 11 need" in text
    assert "1 of 2 methods end at one point from both starts. **But** where PCGrad ends depends on the start." in text
    assert (
        "116° apart, so they conflict, and one is 2.4 times as long as the other; of 2 methods Unit. Scal. would"
        in text
    )
    turned = start((0.0, 0.05), 11, 80.0, ("", ""))
    assert "2 of 2 methods end at one point from both starts. **But** two starts are few, and those of PCGrad" in turned
    assert "end 0.05 apart." in turned and "so they do not conflict" in turned
    assert "of 2 methods none would make a task worse" in turned


# -- 01 ----------------------------------------------------------------------------------------------------------------

TWO = intervals(edm=(10.0, 8.0, 12.0), si=(-3.0, -4.0, -2.0), uw=(0.0, -1.0, 1.0))
GAINS = pd.DataFrame({"CL": [-2.0, -1.0, -4.0], "RR": [-40.0, -20.0, -30.0]}, index=["unit_scal", "edm", "cagrad"])


FASTER = Interval(9.0, 8.0, 10.0, 5)


def selection(paired=TWO, one_rate=TWO, faster=FASTER, rates=(0.001, 0.0025), gains=GAINS, kept=("edm",)):
    outcomes = {
        smto: "holds" if row.low > 0 else "fails" if row.high < 0 else "open" for smto, row in paired.iterrows()
    }
    judged = [verdict("C1a", REPRODUCED)]
    judged[0].details = [{"smto": smto, "outcome": outcome} for smto, outcome in outcomes.items()]
    return conclusions.of_selection(judged, paired, one_rate, kept, faster, rates, gains)


def test_selection_says_how_much_of_the_lead_is_the_learning_rate():
    found = selection()
    text = says(found)
    assert "1 of 3 SMTOs surely beat the uniform loss on CL_RR (by C1a's intervals)" in text
    assert "are 10.0 points of Δm ahead (median). **But** SI is surely worse." in text
    assert (
        "0.0025 in place of 0.001, which some SMTOs have, the uniform loss gains 9.0 points (8.0 to 10.0) over 5 "
        "seeds, 90 %" in text
    )
    one_rate = "of the kept ones, where both have one learning rate, "
    assert f"{one_rate}1 of 1 SMTOs still surely lead, by 10.0 points (median)." in text
    assert f"{one_rate}none of 1 SMTOs still surely leads (median: 3.0 points behind)." in says(selection(kept=("si",)))
    assert "the reconstruction is 40.0 % worse than alone, the classification 2.0 %. **But** the two rulers" in text
    assert "as far as an error can rise; under EDM it is 20.0 % and 1.0 %." in text
    assert found.numbers["rate_gain"] == [9.0, 8.0, 10.0] and found.numbers["sure_at_one_rate"] == 1


def test_selection_says_where_nothing_is_ahead_and_where_rates_explain_nothing():
    level = intervals(edm=(0.0, -1.0, 1.0), uw=(-0.5, -1.0, 1.0))
    text = says(selection(level, level * math.nan, Interval(0.5, -1.0, 2.0, 5)))
    assert (
        "None of 2 SMTOs surely beats" in text
        and "does not surely help the uniform loss: 0.5 points (−1.0 to 2.0). **But** a gain of 2.0 points is within "
        "the interval; there are no runs at one rate for both."
        in text
    )
    assert "**But** EDM, which gains most, is at 0.0 points." in text
    assert "**But** for 1 the seeds cannot tell." in says(selection(TWO.drop(index="si")))
    ahead = intervals(si=(20.0, 18.0, 22.0), edm=(10.0, 8.0, 12.0))
    assert "**But** EDM, which gains least, is at +10.0 points." in says(selection(ahead))
    assert "no runs at one rate for both" in says(selection(one_rate=TWO * math.nan))
    same = says(selection(rates=(0.0025, 0.0025)))
    assert "rates explain nothing. **But** of the kept ones, where both have one" in same
    assert "50.0 %. **But** under EDM it is 20.0 % and 50.0 %." in says(selection(gains=GAINS.assign(CL=-50.0)))
    assert "reconstruction" not in says(selection(gains=GAINS[1:])) + says(selection(gains=GAINS[:1]))


def test_the_lead_of_the_kept_methods_is_their_median():
    ahead = intervals(si=(30.0, 28.0, 32.0), edm=(10.0, 8.0, 12.0), uw=(5.0, 3.0, 7.0))
    near = intervals(si=(9.0, 7.0, 11.0), edm=(3.0, 1.0, 5.0), uw=(0.0, -1.0, 1.0))
    found = selection(ahead, near, kept=("si", "edm", "uw"))
    assert "the 3 that the paper keeps are 10.0 points of Δm ahead (median)." in says(found)
    assert "2 of 3 SMTOs still surely lead, by 3.0 points (median)." in says(found)
    assert (found.numbers["lead"], found.numbers["lead_at_one_rate"]) == (10, 3)


# -- 02 ----------------------------------------------------------------------------------------------------------------

EQUIVALENCE = pd.DataFrame(
    {
        "problem": "CL_CR",
        "method": ["EDM", "CAGrad", "IMTL", "CDTT"],
        "difference": [0.1, 6.0, 1.0, 3.0],
        "reading": ["equal within ±2", "different, by more than 2", "cannot tell", "different"],
        "reading at one rate": ["equal within ±2", "different, by less than 2", "no runs", "different"],
    }
)
WEIGHTS = pd.DataFrame({"mean |w₁ − ½|": [0.03, 0.3], "reading": ["nearer", None]})
FAMO = pd.DataFrame({"mean |w₁ − ½|": [0.08, 0.03]})
REACH = pd.DataFrame({"share": [0.5, 0.9]}, index=["edm", "cagrad"])


ANGLES = pd.DataFrame(
    {"cosine_to_mean": [0.7, 0.72, 0.6], "pairwise_cosine": [0.0, 0.05, 0.02]},
    index=[CL_CR, "multimnist/RL_RR", CL_RR],
)


def ranking(c, ratio=(1.0, 3.0, 2.0, 5.0, 4.0), floor=(0.7, 0.7, 0.58, 0.3, 0.2)):
    table = pd.DataFrame({"C": c, "pairwise cosine": [0.1, 0.0, 0.2, 0.1, 0.3], "norm ratio": ratio, "1/√K": floor})
    table = table.assign(gap=range(5))
    return pd.concat([table, pd.DataFrame({"C": [-1.0]}, index=["rank correlation with the gap"])])


def similar(reach=REACH, weights=WEIGHTS, famo=FAMO):
    return conclusions.of_similar_tasks([verdict("C3a", OPEN)], EQUIVALENCE, 2.0, weights, famo, reach, 3)


def cosine(angles=ANGLES, features=ANGLES, c=(0.7, 0.6, 0.5, 0.4, 0.3), **others):
    return conclusions.of_the_cosine([verdict("C10a", OPEN)], angles, features, CL_RR, ranking(list(c), **others))


def test_similar_tasks_say_what_is_small_and_what_is_not_known():
    found = similar()
    text = says(found)
    assert "1 of 4 differences to the uniform loss are shown to be smaller than 2 points of Δm (2 at one" in text
    assert (
        "**But** 1 is surely larger, 1 is surely not 0 and may be larger, 1 cannot be told, and CAGrad on CL_CR "
        "differs by +6.0 points." in text
    )
    said = conclusions.not_so_small(0, 2)
    assert said == "none are surely larger, 2 are surely not 0 and may be larger"
    kinds = ("pairs", "small", "larger", "different", "unknown")
    assert [found.numbers[name] for name in kinds] == [4, 1, 1, 1, 1]
    assert (
        "within 0.03 of ½ there on average; 1 of 1 are nearer" in text
        and "strays by 0.080 on CL_CR, ours by 0.030" in text
    )
    assert (
        "2 of 3 SMTOs reach what the uniform loss ends with" in text
        and "EDM, after 50 % of its epochs (median). **But** 1 never does." in text
    )
    assert found.numbers["first"] == "EDM"


def test_similar_tasks_leave_out_what_is_not_there():
    text = says(similar(reach=REACH[:0], weights=WEIGHTS[1:]))
    assert "No SMTO reaches what the uniform loss ends with" in text and "**But** only 3 methods were timed" in text
    assert "Learnt weights" not in text
    assert "ours by 0.030: the released code looks at a batch again under new masks (D42)." in says(similar())
    assert "by 0.030 on CL_CR, ours by 0.080. *" in says(similar(famo=FAMO[::-1])).replace(" On", " *")
    assert "never" not in says(similar(reach=pd.concat([REACH, REACH[:1]])))
    whole = pd.concat([REACH[:1], REACH.assign(share=0.8)], ignore_index=True).set_axis(["edm", "si", "uw"])
    assert "**But** SI takes 80 % of them." in says(similar(reach=whole))
    assert "**But** 2 never do." in says(similar(reach=REACH[:1]))
    tied = similar(reach=REACH.assign(share=0.5))
    assert "the first, EDM and CAGrad, after 50 % of its epochs (median)" in says(tied)
    assert tied.numbers["first"] == "EDM and CAGrad"


# -- 02b ---------------------------------------------------------------------------------------------------------------


def test_the_cosine_says_how_it_ranks_problems_and_what_a_low_one_comes_from():
    found = cosine()
    text = says(found)
    assert "are at 90° on CL_CR, 87° on RL_RR and 89° on CL_RR. All are close to a right angle" in text
    assert "on the features the lowest pairwise cosine, 0.00, is that of CL_CR, whose tasks are alike." in text
    assert "C is 0.11 lower on CL_RR than on the problems with similar tasks." in text
    assert "with equally long gradients at that angle it would be 0.71 there, not 0.60" in text
    assert "Over 5 problems the paper's C has a rank correlation of −1.00 with IMTL's gain" in text
    assert (
        "**But** 1/√K, which knows only the number of tasks, has −0.97, the longest gradient's length over the "
        "shortest's has 0.80 and the pairwise cosine has 0.67; of unrelated tasks C is 1/√K (D29)." in text
    )
    assert found.numbers["rival"] == ["1/√K", pytest.approx(-0.97, abs=0.01)]
    assert found.numbers["problems"] == 5 and found.numbers["rho"] == pytest.approx(-1)


def test_the_strongest_rival_of_the_cosine_is_named_first_and_so_is_that_it_is_stronger():
    one = cosine(c=(0.7, 0.6, 0.3, 0.5, 0.4), ratio=(1, 2, 3, 4, 5), floor=[0.7] * 5)  # 1/√K has no ranks
    assert (
        "rank correlation of −0.70 with" in says(one)
        and "**But** the longest gradient's length over the shortest's has 1.00 (stronger) and the pairwise cosine has "
        "0.67; of unrelated"
        in says(one)
    )
    assert one.numbers["rival"] == ["norm ratio", pytest.approx(1.0)]
    assert cosine(c=[math.nan] * 5).numbers["rival"] == ["1/√K", pytest.approx(math.nan, nan_ok=True)]


def test_the_cosine_turns_its_sentences_and_leaves_out_what_is_not_there():
    far = ANGLES.assign(pairwise_cosine=[0.5, 0.6, 0.02], cosine_to_mean=[0.7, 0.72, 0.8])
    text = says(cosine(far, far, [math.nan] * 5))
    assert "right angle" not in text and "rank correlation" not in text and "unequal lengths" not in text
    assert "**But** on the features the lowest pairwise cosine, 0.02, is that of CL_RR, whose tasks differ." in text
    assert "C is not lower on CL_RR" in text and "**But** on the features it is 0.09 higher there." in text
    lower = says(cosine(far, ANGLES, [math.nan] * 5))
    assert "C is not lower on CL_RR" in lower and "**But** on the features it is 0.11 lower there." in lower


# -- 03 ----------------------------------------------------------------------------------------------------------------


def ladder(turned=("C5b",), one_rate=2.0, source="embedded", tasks=(2, 3)):
    r18, last = "cityscapes/R18", "cityscapes/19C"
    both = pd.concat([gains(r18, unit_scal=0, imtl=-4.5), gains(last, unit_scal=0, imtl=1.0, imtl_transposed=3.0)])
    matched = pd.concat([gains(r18, unit_scal=0, imtl=one_rate), gains(last, unit_scal=0, imtl=1.0)])
    cosines = pd.DataFrame(
        {"num_tasks": tasks, "cosine_to_mean": [0.74, 0.58], "pairwise_cosine": [0.12, 0.13]}, index=[r18, last]
    )
    here = pd.Series(["holds", "holds", "does not hold", "cannot tell"])
    runs = [run(last, source=source)]
    return conclusions.of_ladder([verdict("C4", BARRED)], here, both, matched, list(turned), cosines, runs)


def test_the_ladder_tells_the_form_the_rate_and_the_number_of_tasks_apart():
    assert ladder().numbers["drawn"] and not ladder(source="full").numbers["drawn"]
    text = says(ladder())
    assert (
        "On synthetic streets 2 of 4 statements of the section hold, 1 does not, and for 1 the seeds cannot tell."
        in text
    )
    assert "decide nothing about Cityscapes" in text
    assert "On 19C, with the paper's settings, IMTL is 1.0 points (1.0 to 1.0) ahead of the uniform loss." in text
    assert "on R18 a gap of −4.5 points becomes +2.0 at one learning rate." in text
    assert (
        "gaps of the correct form and of that one are, in points, +1.0 and +3.0 on 19C. **But** with it C5b comes out"
        in text
    )
    assert "C falls by 0.16; unrelated gradients of equal length fall by 0.13" in text and "from 0.12 to 0.13" in text


def test_the_ladder_says_no_more_than_its_runs_do():
    text = says(ladder(turned=(), one_rate=-4.5, source="full", tasks=(2, 2)))
    assert "no statement comes out otherwise with it" in text and "becomes" not in text
    assert "ahead of the uniform loss. **But** on R18 it is −4.5 points." in text and "C falls" not in text
    assert "On Cityscapes 2 of 4" in text and "nothing about" not in text
    assert "**But** our numbers rest on" in text and "photographs of Cityscapes" in text


def test_a_lead_says_on_which_side_it_is_and_whether_it_may_be_nothing():
    assert conclusions.ahead((2.6, 1.0, 4.2), "it") == "2.6 points (1.0 to 4.2) ahead of it"
    assert conclusions.ahead((2.6, -2.8, 8.1), "it") == "2.6 points (−2.8 to 8.1) ahead of it, which may be nothing"
    assert conclusions.ahead((-2.0, -3.0, -1.0), "it") == "2.0 points (1.0 to 3.0) behind it"
    assert conclusions.ahead((-2.0, -5.0, 1.0), "it") == "2.0 points (−1.0 to 5.0) behind it, which may be nothing"
    assert conclusions.ahead((1.0, math.nan, math.nan), "it") == "1.0 points ahead of it, which may be nothing"


# -- 04 ----------------------------------------------------------------------------------------------------------------


def molecules(paired=TWO, diverged=0, steps=(600, 110_000), agree=0.2, c11=True):
    imtl = pd.DataFrame({"runs": [3, 3], "diverged": [0, diverged]})
    cosines = pd.Series({"cosine_to_mean": 0.42, "pairwise_cosine": agree, "floor": 0.30})
    judged = [verdict("C11a", REPRODUCED, 57.5, 36.9, 89.5), verdict("C11c", NOT_REPRODUCED, 1.15, 0.86, 1.53)]
    return conclusions.of_molecules(
        judged if c11 else [verdict("C7a", OPEN)], paired, imtl, cosines, steps, [run("qm9")]
    )


def test_molecules_say_who_is_better_and_what_the_seeds_cannot_tell():
    text = says(molecules())
    assert (
        "On QM9 1 of 3 SMTOs are surely better than the uniform loss, 1 surely worse; for 1 the seeds cannot tell."
        in text
    )
    assert "overflows in 0 of 3 runs of its correct form and 0 of 3 runs of the transposed one" in text
    assert "600 steps of the paper's 110,000" in text
    assert "57.5 times (36.9 to 89.5) as large on QM9 as on CL_RR, both at the paper's batches. **But**" in text
    assert "1.1 times (0.9 to 1.5) as large" in text or "1.2 times (0.9 to 1.5) as large" in text
    assert "C is 0.42 on QM9, and that of as many unrelated tasks with equally long gradients is 0.30." in text
    assert "these gradients agree" in text


def test_molecules_say_that_wide_intervals_say_little_and_leave_out_what_is_not_judged():
    wide = intervals(edm=(10.0, -80.0, 100.0), si=(-3.0, -60.0, 40.0))
    assert "reaches 70 points to either side (median): this says little either way" in says(molecules(wide))
    text = says(molecules(diverged=2, steps=(110_000, 110_000), agree=-0.1, c11=False))
    assert "2 of 3 runs of the transposed one" in text and "is not seen" not in text
    assert "(D24). **But** our numbers rest on" in text
    assert "reaches 1 points to either side (median). " in text
    assert "RotoGrad" not in text and "these gradients conflict" in text


def suspected(ours=0, theirs=0, alpha=2.0, reach=0.5):
    rows = {
        "correct": {"runs": 3, "diverged": ours, "largest |α|": 1.5, "largest e^s": 1.2, "e^s at rest": 90.0},
        "transposed": {"runs": 3, "diverged": theirs, "largest |α|": alpha, "largest e^s": 1.3, "e^s at rest": 80.0},
    }
    return conclusions.suspects(pd.DataFrame.from_dict(rows, orient="index"), pd.Series([1.0, 2.0]), reach)


def test_the_suspects_of_an_overflow_are_judged_by_who_overflows():
    matrix, scales = suspected(theirs=2)
    assert matrix.startswith("**supported**: 2 of 3 runs overflow with the transposed form")
    assert scales.startswith("**refuted as the only cause**: the correct form has the same scales, up to 1.2")
    matrix, scales = suspected(ours=1)
    assert matrix == "**refuted**: only the correct form overflowed, in 1 of 3 runs."
    assert scales.startswith("**not refuted**: runs diverge with the correct form, too")
    assert suspected(ours=1, theirs=2)[0].startswith("**refuted as the only cause**: the correct form overflows, too")
    matrix, scales = suspected()
    assert matrix.startswith("**not seen in these runs**: no run overflowed; the largest |α| of any step is 2.00 with")
    assert "from 10 in the first epoch to 100 in the last" in matrix
    assert scales.startswith("**not put to the test**: All steps together bring a scale e^s to e^0.50 = 1.65 at most")
    matrix, scales = suspected(alpha=11.0, reach=5.0)
    assert matrix.startswith("**not refuted**: no run overflowed") and "condition" not in matrix
    assert scales.startswith("**not seen in these runs**: the largest scale is 1.30, on the way to 90.0 (1/L")


# -- 05, 05b and 05c ---------------------------------------------------------------------------------------------------

NONE = pd.DataFrame(columns=["smto", "seed", "delta_m", "val_delta_m", "lr", "batch", "steps"])
JUDGED = [verdict("C8a", REPRODUCED)]


def drift(**by_smto):
    rows = [("q", smto, seed, x) for smto, xs in by_smto.items() for seed, x in enumerate(xs)]
    return pd.DataFrame(rows, columns=["problem", "smto", "seed", "log_ratio"])


def fixed(best=2.0, p=(0.001, 0.5), sources=(0.001, 0.005), moved=None, lr="0.0025"):
    table = pd.DataFrame({"problem": CL_RR, "seed": [1, 2, 3], "unit_scal": -20.0, "fixed": [-11.0, -11.1, -10.9]})
    table = table.assign(best_smto=-11.0 + best, best="cdtt", **{"lr": "0.001", "lr of best": lr})
    of_source = {"fixed − source": [-0.3, 1.9], "95 % interval": ["−0.9 to 0.3", "−2.9 to 6.7"], "margin": [0.8, 2.5]}
    replaced = pd.DataFrame({"p": p} | of_source, index=["CL_RR", "QM9"])
    by_source = {lr: pd.DataFrame({"delta_m": [-1000 * lr - 1, -1000 * lr + 1]}) for lr in sources}
    moved = drift(edm=[-1.0, -1.1], cagrad=[1.0, 1.1], imtl=[-3.0, 5.0], uw=[math.nan] * 2) if moved is None else moved
    return conclusions.of_fixed_weights(JUDGED, table, "cagrad", replaced, by_source, moved)


def test_fixed_weights_say_what_they_reach_and_whether_they_settle():
    found = fixed()
    text = says(found)
    assert (
        "one run of CAGrad on CL_RR and then held fixed are 9.0 points (8.8 to 9.2) ahead of the uniform loss" in text
    )
    prefers = "**But** the SMTO that validation prefers, CDTT{}, is 2.0 points (1.8 to 2.2) ahead of them."
    assert prefers.format(" (at the learning rate 0.0025; theirs is 0.001)") in text
    assert prefers.format("") in says(fixed(lr="0.001"))
    assert "On 1 of 2 problems fixed weights are shown to be as good as the method" in text
    assert "**But** on QM9 they are not shown to be." in text
    assert "Δm goes from −5.0 % (source at learning rate 0.005) to −1.0 % (0.001). **But** seeds of one set" in text
    assert "differ by 1.4 points" in text
    assert (
        "Of 3 pairs of a problem and a method whose weights move, 1 slow down with their whole interval, 1 speed"
        in text
    )
    assert "the learning rate falls, too" in text and found.numbers["fixed"][0] == pytest.approx(9)


def test_fixed_weights_turn_their_sentences_where_the_numbers_turn():
    text = says(fixed(best=-1.0, p=(0.001, 0.001), sources=(0.001,), moved=drift(edm=[1.0, 1.1])))
    assert "validation prefers" not in text and "not shown" not in text and "by the run that" not in text
    assert "**But** at the seed that is worst for them it is 8.9 points." in text
    assert "On 2 of 2 problems" in text and "**But** on CL_RR, where the test shows it least (p = 0.001), the" in text
    assert "On 0 of 2 problems" in (none := says(fixed(p=(0.4, 0.3))))
    assert (
        "**But** on QM9, where the test comes nearest to showing it (p = 0.300), the difference is +1.90 points (−2.9 "
        "to 6.7), and the margin is 2.50." in none
    )
    assert "1 pair of a problem and a method whose weights move, 0 slow down" in text and "rate falls" not in text
    assert "1 speed up. **But** for 0 the seeds cannot tell." in text
    assert "pair" not in says(fixed(moved=drift(edm=[math.nan])))


def swept(
    enough="–",
    words=("beyond", "on", "inside", "cannot tell"),
    own=("beyond",) * 3,
    ahead=1.0,
    edm=(4.0, "fails"),
    cdtt=(1.0, "open"),
    more=("cagrad", "edm"),
    gap=(1.5, -0.9, 4.0),
):
    row = {"best SMTO": "CDTT", "its price": 1.4, "price of trying all": 22.0, "its Δm": -3.4, "runs of the sweep": 14}
    row |= {"Δm of its best": -4.9, "runs that reach it": enough}
    answer = pd.DataFrame([row], index=["CL_RR"])
    answer.attrs["gaps"] = {"CL_RR": Interval(*gap, 3)}
    wider = verdict("Xin-compute", OPEN)
    wider.details = [{"smto": s, "mean": of[0], "outcome": of[1]} for s, of in {"edm": edm, "cdtt": cdtt}.items()]
    best = pd.DataFrame({"smto": ["edm", "edm", "fixed", "edm"], "lead": [-0.5, -2.0, ahead, -1.0]})
    return conclusions.of_a_sweep(
        [*JUDGED, wider],
        answer,
        pd.DataFrame({"word": words}),
        pd.DataFrame({"word": own}),
        {"more": more, "less": ("uw",), "open": ("imtl",)},
        1.4,
        best,
    )


def test_a_sweep_says_what_it_reaches_what_an_smto_costs_and_for_whom():
    found = swept()
    text = says(found)
    assert "sweep of 14 runs of fixed weights, the best kept by validation, comes to −4.9 % on CL_RR" in text
    assert (
        "1.5 points (−0.9 to 4.0) between them, which may be none. **But** no number of the sweep's runs reaches"
        in text
    )
    assert "choosing it took 22 runs of the uniform loss" in text
    assert "Of 4 SMTOs 1 are beyond the front of the sweep, 1 on it, 1 inside; for 1 the seeds cannot tell." in text
    assert (
        "**But** against the sweep at its own learning rate alone, 3 of 3 are beyond; for the price of one run 2 of 4 "
        "surely buy more hypervolume than the sweep." in text
    )
    assert (
        "Of 2 methods that read the gradients of the parameters, 1 surely beats the uniform loss with a network 1.4 "
        "times as wide at the same learning rate, 0 are surely worse (by Xin-compute's intervals). **But** for 1 the "
        "seeds cannot tell." in text
    )
    assert "first place changes 2 times" in text
    assert "never more than 2.0 points behind the best SMTO, and up to 1.0 ahead." in text
    assert found.numbers["sweep"] == 14 and found.numbers["price_of_all"] == 22.0


def test_a_sweep_turns_its_sentences_where_the_numbers_turn():
    text = says(swept(enough="5", own=("inside",), ahead=-0.1, more=()))
    assert "5 runs of the sweep reach it on average, and choosing the SMTO took 22." in text
    assert "alone, 0 of 1 are beyond." in text and "never more than 2.0 points behind the best SMTO. " in text
    assert "may be none" not in says(swept(gap=(1.5, 0.1, 2.9))) + says(swept(gap=(-1.5, -2.9, -0.1)))
    assert "alone, 0 of 1 are beyond. " in text and "hypervolume" not in text
    worse = says(swept(edm=(-4.0, "holds")))
    assert (
        "0 surely beat the uniform loss with a network 1.4 times as wide at the same learning rate, 1 is surely"
        in worse
    )
    sure = says(swept(cdtt=(5.0, "fails")))
    assert (
        "2 surely beat" in sure
        and "0 are surely worse (by Xin-compute's intervals). **But** EDM is 4.0 points ahead of it." in sure
    )
    sure = says(swept(edm=(-4.0, "holds"), cdtt=(-3.8, "holds")))
    assert "2 are surely worse (by Xin-compute's intervals). **But** CDTT is 3.8 points behind it." in sure


def ways(rates=(0.001, 0.0025), by_batch=NONE, tuned=9.0, population=True, other=2.0, still=1.0):
    by_strategy = {"equal": pd.Series([-20.0, -20.1]), "mean": pd.Series([other, other])}
    by_strategy |= {"population": pd.Series([1.0, 1.2])} if population else {}
    by_strategy["4 random points"] = pd.Series([-1.0, -0.8])
    leads = dict(zip((0.001, 0.0025), (10.0, 8.0), strict=True))
    by_rate = pd.concat([gains(unit_scal=-20, cagrad=-20 + leads[lr]).assign(lr=lr) for lr in rates])
    both = {"smto": ["cagrad", "edm"], "seed": 1, "lead_plain": 10.0, "lead_tuned": [tuned - 1, tuned + 1]}
    lead = pd.DataFrame(both)
    rows = [("cagrad", still, 5.0), ("edm", 6.0 * still, 1.0), ("rlw_normal", -3.0, -4.0)]
    parts = pd.DataFrame(rows, columns=["smto", "generalisation", "optimisation"])
    return conclusions.of_other_ways(JUDGED, by_strategy, "4 random points", by_rate, by_batch, 0.001, 256, lead, parts)


def test_other_ways_say_what_a_search_finds_and_what_explains_a_lead():
    found = ways()
    text = says(found)
    assert "populations find end at 1.1 % on CL_RR, 4 random points at −0.9 % for the same cost: 2.0 points" in text
    assert "**But** another way (mean) ends at 2.0 %." in text
    assert (
        "CAGrad lead the uniform loss on CL_RR by 10.0 at 0.001 and 8.0 at 0.0025 points (means). **But** the lead is"
        in text
    )
    assert "part of it may be speed; all these runs have the batch 256, so what the batch does is not known." in text
    assert "9.0 of 10.0 points of lead on CL_RR remain: it is not regularisation" in text
    assert "as short as these. **But** least remains for CAGrad: 8.0 of 10.0." in text
    assert "Of 2 SMTOs that lead the uniform loss in the same settings, 1 owe more of it to optimisation" in text
    assert "at equal training loss they still lead by 3.5 points of Δm (mean)." in text
    assert found.numbers["leads_by_rate"] == {"0.001": pytest.approx(10), "0.0025": pytest.approx(8)}
    assert found.numbers["batch"] == 256 and found.numbers["led"] == "CAGrad" and "by_batch" not in found.numbers


def test_other_ways_turn_their_sentences_where_the_numbers_turn():
    places = {
        (0.001, 32): (-30, 4, 2),
        (0.001, 64): (-25, 5, 5),
        (0.001, 128): (-25, 6, 6),
        (0.001, 256): (-20, 10, 8),
        (0.0025, 32): (-25, 3, 1),
        (0.0025, 64): (-22, 3, 1),
        (0.0025, 128): (-15, 4, 2),
        (0.0025, 256): (-11, 7, 6),
    }
    rows = [
        (
            name,
            seed,
            gain + own + seed * (name == "unit_scal" and size < 128),
            -own,
            lr,
            size,
            375 if size == 32 else 470,
        )
        for (lr, size), (own, *leads) in places.items()
        for name, gain in zip(("unit_scal", "cagrad", "edm"), (0, *leads), strict=True)
        for seed in (1, 3)
    ]
    rows += [("cagrad", 2, 99.0, 0.0, 0.001, 256, 470), ("imtl", 1, 50.0, 0.0, 0.001, 32, 375)]  # not everywhere
    rows += [("unit_scal", 1, 60.0, 0.0, 0.0005, 256, 470)]  # a rate with one batch
    by_batch = pd.DataFrame(rows, columns=NONE.columns)
    found = ways(rates=(0.001,), by_batch=by_batch)
    assert found.numbers["by_batch"] == {
        "best": 64,  # of −8, −3 and −5
        "alone": [-3.0, pytest.approx(-15.706, abs=1e-3), pytest.approx(9.706, abs=1e-3)],  # t = 12.706 · √(2/2)
        "suits": ["0.001", 32],  # on validation, which turns the order here
        "left": 1.0,
        "led": "CAGrad and EDM",
        "sizes": [32, 64, 128],
        "edges": [],
    }
    text = says(ways(rates=(0.001,), by_batch=by_batch, tuned=2.0, other=0.0, still=-0.1))
    assert "**But** the next best way (mean) ends at 0.0 %." in text and "still lead" not in text
    assert "At the one learning rate that both have CAGrad lead" in text and "so what the batch does" not in text
    assert "by 10.0 at 0.001 points (means). **But** no rate above 0.001 was tried." in text
    assert (
        "On CL_RR at the rate 0.001 no other batch (32, 64 or 128) surely helps the uniform loss: 64 in place of 256 "
        "gives it −3.0 points (−15.7 to 9.7), for about as many steps. With the rate and the batch that suit it best "
        "on validation (0.001, 32) CAGrad and EDM lead by 1.0 points (mean). **But** single methods lead by 0.0 to 2.0 "
        "there; all have 375 to 470 steps, and so a smaller batch has fewer epochs." in text
    )
    trained = (by_batch.smto != "unit_scal") | (by_batch.batch == 32) | (by_batch.lr == 0.001)  # not yet all
    half = by_batch[trained]
    for partly in (half, by_batch[by_batch.smto == "unit_scal"], by_batch[by_batch.batch == 32]):
        assert "by_batch" not in ways(by_batch=partly).numbers
    by_batch["val_delta_m"] *= -1
    turned = says(ways(rates=(0.001,), by_batch=by_batch))
    assert "(0.0025, 256) CAGrad and EDM lead by 6.5 points (mean)" in turned
    assert "no rate above 0.0025 and no batch above 256 was tried." in turned
    assert "2.0 of 10.0 points of lead on CL_RR remain. **But** most remains for EDM: 3.0 of 10.0." in text
    assert "**But** at equal training loss CAGrad leads by −0.1 points." in text
    assert "populations" not in says(ways(population=False))


def test_a_batch_that_surely_helps_is_said_to():
    alone = {32: Interval(1.0, -0.5, 2.5, 5), 64: Interval(2.0, 0.1, 3.9, 5)}
    assert conclusions._best_of(alone, 64) == "another batch (32 or 64) helps"
    assert conclusions._best_of(alone, 32) == "no other batch (32 or 64) surely helps"


# -- 06 ----------------------------------------------------------------------------------------------------------------


def test_proofs_say_what_holds_where_it_ends_and_what_fails():
    record = pd.DataFrame({"proposition": [1, 4], "check": ["equal", "bisector"], "passed": True})
    judged = [verdict("C12", REPRODUCED, n=26, unit="checks")]
    text = says(conclusions.of_proofs(judged, record, {"edm": 0.4, "cdtt": 0.5, "pcgrad": 1 / 3}, (0.0002, 0.28)))
    assert "All 2 checks of the propositions pass" in text
    assert "EDM and CDTT weigh them unequally, CDTT up to 0.50 for one." in text
    assert "moves its head by 0.020 % of its way. **But** a weight that grows tenfold half way moves it by 28 %" in text
    failed = says(conclusions.of_proofs(judged, record.assign(passed=[True, False]), {"edm": 1 / 3}, (0.0, 0.0)))
    assert failed.startswith(
        "bisector (Proposition 4) does not hold as the paper has it. **But** the other 1 check passes."
    )
    equal = says(conclusions.of_proofs(judged, record, {"edm": 1 / 3}, (0.0, 0.0)))
    assert "**But** three tasks were tried with 1 method alone." in equal


def test_a_sentence_ends_with_one_full_stop():
    """A label may end with one of its own."""
    assert conclusions.Sentence("On Inst. Seg..", "Who knows...") == conclusions.Sentence(
        "On Inst. Seg.", "Who knows..."
    )


def test_a_share_of_a_difference_is_all_of_it_some_or_none():
    shares = [conclusions._share_of(part, 0.08) for part in (0.0802, 0.08, 0.0798, 0.04, 0.0, -0.01)]
    assert shares == ["all"] * 3 + ["50 %", "none", "none"]
