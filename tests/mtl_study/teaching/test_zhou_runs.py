"""The trained half of notebook 08: planted worlds turn each verdict, sentences and figures say what tables say."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from scipy import stats

from mtl_study.analysis.gates import BEST
from mtl_study.paper import claims
from mtl_study.paper.claims import BARRED, NOT_REPRODUCED, REPRODUCED
from mtl_study.plots import canvas
from mtl_study.plots import gates as figures
from mtl_study.teaching import grid, zhou
from mtl_study.words import number

CL_RR, YES, NO = "multimnist/CL_RR", REPRODUCED, NOT_REPRODUCED
DUTIES = (0.3, 0.7)


def verdicts(name, evidence, preset="overnight"):
    return [part.verdict for part in claims.decide(name, evidence, preset=preset)]


def seeds_of(problem, smto, **columns):
    """One row per seed, a little apart."""
    return [
        {
            "problem": problem,
            "smto": smto,
            "seed": s,
            "seconds": 1.0,
            **{k: v * (1 + s / 1000) for k, v in columns.items()},
        }
        for s in range(1, 8)
    ]


def world(*rows):
    return pd.DataFrame([row for seeds in rows for row in seeds])


def test_worlds_of_imbalance():
    """a: on CL_RR; b: on the other two; c: whatever the units."""

    others = ("graddrop", "pcgrad", "mgda", "aligned_mtl", "imtl", "edm", "nash_mtl", "cagrad", "imgrad")

    def looked(mixed, alike, left):
        rows = [seeds_of(p, "unit_scal", ratio=alike, left=1.0) for p in ("multimnist/CL_CR", "multimnist/RL_RR")]
        rows += [seeds_of(CL_RR, smto, ratio=alike if smto == "mgda" else mixed) for smto in others]
        return world(seeds_of(CL_RR, "unit_scal", ratio=mixed, left=left), *rows)

    assert verdicts("Zhou-imbalance", looked(4.3, 3.0, 2.5)) == [YES] * 4
    assert verdicts("Zhou-imbalance", looked(4.3, 1.3, 1.4)) == [YES, NO, NO, NO]


def test_worlds_of_steps():
    """a, b: IMGrad hurts less, in directions and in steps; c: steps are no worse than directions; d: little of the
    current gradient is in them."""

    def trained(of_imgrad, moved, share):
        asked = {"unit_scal": 0.3, "cagrad": 0.1, "imgrad": of_imgrad, "nash_mtl": 0.001}
        rows = [
            seeds_of(CL_RR, smto, asked=a, moved=a + moved, failures=moved, share=share) for smto, a in asked.items()
        ]
        return world(*rows)

    assert verdicts("Zhou-steps", trained(0.01, 0.01, 0.3)) == [YES] * 4
    assert verdicts("Zhou-steps", trained(0.2, 0.2, 0.8)) == [NO] * 4
    assert verdicts("Zhou-steps", trained(0.2, 0.07, 0.8))[2] == NO  # the line is at 5 points


def test_worlds_of_correlations():
    for gap, rest, cosine, progress, conflict in ((-0.8, -0.9, 0.1, [YES] * 2, YES), (0.4, -0.5, -0.9, [NO, YES], NO)):
        over = world(seeds_of(CL_RR, "unit_scal", **{"rho gap": gap, "rest gap": rest, "rho cosine": cosine}))
        assert verdicts("Zhou-progress", over) == progress and verdicts("Royer-conflict", over) == [conflict]
    lengths = {"unit_scal": 1.0, "mgda": 1.5, "imtl": 1.2}
    assert verdicts("Kurin-length", world(*(seeds_of(CL_RR, m, sum=v) for m, v in lengths.items()))) == [YES]
    lengths |= {"imtl": 0.7, "mgda": 0.8}
    assert verdicts("Kurin-length", world(*(seeds_of(CL_RR, m, sum=v) for m, v in lengths.items()))) == [NO]


def behind(ratio, cosine, random, always=4.0):
    names = {"ratio": ratio, "cosine": cosine, "random": random}
    values = {f"{by} {d}": v for d in DUTIES for by, v in names.items()}
    return world(seeds_of(CL_RR, "gated", **values, always=always))


def test_worlds_of_gates():
    """a, b: better than at random; c, d: than where gradients conflict; e, f: than in every step."""
    assert verdicts("Zhou-gates", behind(5.0, 3.0, 3.0)) == [YES] * 6
    assert verdicts("Zhou-gates", behind(5.0, 3.0, 3.0), "quick") == [YES] * 4 + [BARRED] * 2  # written after its runs
    assert verdicts("Zhou-gates", behind(5.0, 6.0, 3.0, 7.0)) == [YES, YES, NO, NO, NO, NO]
    assert verdicts("Zhou-gates", behind(2.0, 1.0, 3.0, 1.5)) == [NO, NO, YES, YES, YES, YES]


def test_worlds_of_equal_c():
    """The claim; its contrary; and two methods that are one."""

    def trained(equal, best):
        problems = (CL_RR, "cityscapes/inst_seg")
        rows = [seeds_of(p, "cagrad", equal=1.0, best=1.0) for p in problems]
        return world(*rows, *(seeds_of(p, "imgrad", equal=1 + equal, best=1 + best) for p in problems))

    assert verdicts("Zhou-better", trained(3.0, 4.0)) == [YES, YES, NO]
    assert verdicts("Zhou-better", trained(-3.0, -4.0)) == [NO, NO, NO]
    assert verdicts("Zhou-better", trained(0.1, 0.2)) == [YES, YES, YES]


def of_steps():
    values = {
        "unit_scal": (0.3, 0.4, 9.0),
        "cagrad": (0.0, 0.1, 8.0),
        "imgrad": (0.0, 0.2, 7.0),
        "mgda": (0.0, 0.5, -9.0),
    }
    rows = [
        seeds_of(CL_RR, m, asked=a, moved=b, failures=b - a, share=0.4, gap=i / 10, cosine=-0.1, sum=i + 1.0)
        for i, (m, (a, b, _)) in enumerate(values.items())
    ]
    table = world(*rows)
    return table.assign(delta_m=[values[m][2] for m in table.smto])


def differences():
    rows = [(p, c, s, d) for p, d in ((CL_RR, 0.5), ("q", -1.0)) for c in (0.2, 0.8, BEST) for s in (1, 2)]
    return pd.DataFrame(rows, columns=["problem", "c", "seed", "difference"])


def test_sentences():
    looks = world(seeds_of(CL_RR, "unit_scal", ratio=4.3, left=1.4, **{"times 10": 2.4}))
    found = zhou.on_ratios(looks, [10.0])
    assert "is 4.3 on CL_RR." in found and "times 10 makes it 2.4:" in found and "of it is 1.4 on CL_RR." in found
    found = zhou.on_steps(of_steps())
    assert "for CAGrad from 0.0 % to 10.0 %" in found and "CAGrad, IMGrad and MGDA never ask for" in found
    assert "at 26.8 % of the looks" in found and "is 0.40 on average" in found
    assert (
        "So between CAGrad and IMGrad there is no difference to find in how often directions hurt a task. The cosine"
        in found
    )
    some = of_steps().assign(asked=0.1)
    assert "no difference to find" not in zhou.on_steps(some)
    assert "no run" in zhou.on_steps(of_steps()[:0])
    over = world(seeds_of(CL_RR, "unit_scal", **{"rho gap": -0.3, "rest gap": -0.8, "rho cosine": 0.2})).assign(
        **{"methods": 4, "better gap": 0.4}
    )
    found = zhou.on_progress(of_steps(), over)
    assert "is −0.30 on average over seeds, and −0.80 without MGDA; within the better" in found
    assert "half of the methods it is +0.40. Progress" in found
    assert "most even for Unit. Scal., which has place 1" in found and "under MGDA (4.00) and IMGrad (3.00)" in found
    assert "too few methods" in zhou.on_progress(of_steps(), over.assign(methods=2))
    acted = pd.DataFrame({"duty": [0.3, 0.7], "acted": [0.31, 0.67]})
    found = zhou.on_gates(behind(5.0, 6.0, 3.0), acted, DUTIES, {"the mean loss": 2.0, "CAGrad in every step": 7.0})
    assert "Δm is 5.0 % at a duty of 30 % and" in found and "2.0 % with the mean loss and 7.0 % with CAGrad" in found
    assert (
        "at 30 % of the steps +2.0 (+2.0 to +2.0) over random steps and −1.0" in found
        and "by 3.0 % of the steps at most" in found
    )
    assert found.count("so they differ in how often") == 1
    acted = acted.assign(acted=[0.31, 0.69])
    found = zhou.on_gates(behind(5.0, 6.0, 3.0), acted, DUTIES, {"the mean loss": 2.0})
    assert "by 1.0 % of the steps at most, over all gates: what differs is when the method acts and hardly" in found
    c = pd.DataFrame({"problem": [CL_RR] * 2 + ["q"] * 2, "smto": ["cagrad", "imgrad"] * 2, "c": [0.2, 0.8] * 2})
    found = zhou.on_better(differences(), c)
    assert "on CL_RR +0.5 (+0.5 to +0.5) points at equal c" in found and "(c = 0.8 for IMGrad, 0.2 for CAGrad)" in found
    assert found.endswith(" On CL_RR and q a best c is the least or the largest that was tried.")
    inner = zhou.on_better(differences().replace({0.2: 0.1, 0.8: 0.9}), c)
    assert inner.endswith("with 95 % intervals.")


def test_what_was_found_is_said_with_what_speaks_against_it():
    looks = pd.DataFrame({"problem": [CL_RR, "q"], "ratio": [4.3, 1.2], "left": [2.5, 1.1]})
    walks = {"float64": grid.walk([0.9], [0.1], [0.4], ["code"], 20, "float64")}
    hurt = pd.DataFrame({"problem": [CL_RR, "q"], "repairs": [0, 0], "cagrad": [0.02, 0.01]})

    gated = claims.decide("Zhou-gates", behind(5.0, 6.0, 3.0), preset="quick")

    over = pd.DataFrame({"rho gap": [-0.6, -0.5], "better gap": [0.3, -0.2], "methods": 10})

    def found(hurt, steps, apart, over=over):
        given = (looks, steps, behind(5.0, 6.0, 3.0), DUTIES, 7.0, over, apart)
        return [(one.says, one.against) for one in zhou.findings([gated], walks, hurt, *given).sentences]

    apart = differences()
    apart["difference"] = apart.difference.where(apart.c != BEST, 3.0)
    imgrad, repairs, ratio, progress, gates, judged = found(hurt, of_steps(), apart)
    assert (
        "in 0 of 1 cell (float64), from fewer in 0 (float64). In training at equal c IMGrad minus CAGrad is +0.5"
        in imgrad[0]
    )
    assert "no failure" in repairs[0] and "at 2.0 % of these looks" in repairs[1]
    assert (
        "as the theorem says; in training IMGrad asks for a direction that hurts a task at 0.0 % of the looks"
        in repairs[0]
    )
    assert "and Adam's steps, which move the network, hurt one at 20.1 % and 10.0 %, those of the uniform" in repairs[1]
    assert progress[0].startswith("Over 10 methods the rank correlation of Δm with the gap in progress")
    assert progress[0].endswith("is −0.55 (−1.00 to +0.09): open.") and "it is +0.05 (" in progress[1]
    assert "on CL_RR, by a factor of 4.3." in ratio[0] and ratio[1].endswith(" 2.5 is left of it.")
    assert "gains +2.0 (+2.0 to +2.0) and +2.0 (+2.0 to +2.0) points of Δm over acting at random" in gates[0]
    assert (
        "−1.0 (−1.0 to −1.0) over acting where they conflict" in gates[0]
        and "a Δm of 7.0 %, and behind the best" in gates[1]
    )
    assert "+0.5 (+0.5 to +0.5) points on CL_RR and −1.0 (−1.0 to −1.0) points on q: what it is credited" in imgrad[0]
    each = "+3.0 (+3.0 to +3.0) points"
    assert imgrad[0].endswith(f"; each at its own best c it is {each} on CL_RR and {each} on q.")
    full = "CAGrad reaches it from every start in {} of 1 cell (float64), so that there IMGrad cannot be ahead."
    assert imgrad[1] == full.format(0)
    assert judged[0].startswith("Of 6 statements")
    large = found(hurt, of_steps(), differences().assign(difference=2.0))[0]
    assert "+2.0 (+2.0 to +2.0) points on q; each at" in large[0]  # surely not less than 2
    apart.loc[(apart.problem == "q") & (apart.c != BEST) & (apart.seed == 1), "difference"] = 0.5  # t is 12.7
    wide = found(hurt, of_steps(), apart)[0]
    assert "−0.2 (−9.8 to +9.3) points on q; on q it is open whether that is less than 2 points; each" in wide[0]
    one = found(hurt, of_steps(), apart[apart.seed == 1])[0]  # one seed has no interval
    assert "+0.5 points on q; on CL_RR and q it is open whether that is less than 2 points; each" in one[0]
    told = found(hurt.assign(repairs=[2, 1]), of_steps().iloc[:0], differences()[:0])
    assert told[0][0].endswith("in 0 of 1 cell (float64), from fewer in 0 (float64).") and told[0][1].startswith(
        "of the variance between cells"
    )
    assert told[1] == (
        "On the gradients that a run of the uniform loss met IMGrad repairs 3 failures of CAGrad.",
        "the theorem says that there are none to repair.",
    )
    ends = ("the more even, the better.", "the less even, the better.")
    for sign, end in zip((-1, 1), ends, strict=True):
        sure = over.assign(**{"rho gap": [sign * 0.60, sign * 0.61]})
        assert found(hurt, of_steps(), apart, sure)[3][0].endswith(end)
    few = found(hurt, of_steps(), apart, over.assign(methods=2))
    assert [says[:9] for says, _ in few] == ["On the la", "On the gr", "Gradients", "With as m", "Of 6 stat"]


def test_a_gate_by_hand():
    """Needs that rise all the time: the first opens, and what it owes keeps the share at the duty."""
    opened = zhou.gate(np.arange(400.0))
    assert opened[0] and opened.mean() == pytest.approx(0.3, abs=0.12)
    assert zhou.gate([1.0, 0.0, 0.0]).tolist() == [True, False, False]


def test_the_table_of_lengths_by_hand():
    """Twice and 8 times as long as under the uniform loss at its seed: 4 times, by the geometric mean. The longest
    comes first, and one seed has no interval."""
    sums = {"unit_scal": (1.0, 10.0), "imtl": (0.5, 5.0), "mgda": (2.0, 80.0)}
    rows = [(smto, seed, value) for smto, values in sums.items() for seed, value in enumerate(values, 1)]
    per_run = pd.DataFrame(rows, columns=["smto", "seed", "sum"])
    table = zhou.lengths(per_run)
    assert list(table.index) == ["MGDA", "IMTL"] and table.times.tolist() == pytest.approx([4, 0.5])
    assert table["95 % interval"]["IMTL"] == "0.50 to 0.50" and table.n.tolist() == [2, 2]
    half = stats.t.ppf(0.975, 1) * np.std(np.log([2, 8]), ddof=1) / np.sqrt(2)
    ends = (number(4 * np.exp(-half), 2), number(4 * np.exp(half), 2))
    assert table["95 % interval"]["MGDA"] == "{} to {}".format(*ends)
    assert zhou.lengths(per_run[per_run.seed == 1])["95 % interval"].tolist() == ["–", "–"]


def test_figures():
    looks = pd.DataFrame({"ratio": [1.0, 2.0, 9.0], "times 10": [2.0, 3.0, 9.0], "left": [1.0, 1.5, 2.0]})
    drawn = figures.ratios({CL_RR: looks, "multimnist/CL_CR": looks}, [10.0])
    assert [text.get_text() for text in drawn.flat[0].get_yticklabels()] == ["as it is", "last loss × 10", "best units"]
    dots = [line.get_xdata()[0] for line in drawn.flat[0].lines if line.get_marker() == "o"]
    assert dots == [2, 3, 1.5] and drawn.flat[0].get_xscale() == "log"  # the medians
    bars = figures.failures(of_steps())
    assert [round(bar.get_width(), 1) for bar in bars.flat[0].patches][:2] == [30.1, 40.2]
    words = {said.get_label(): to_hex(said.patches[0].get_facecolor()) for said in bars.flat[0].containers[:2]}
    assert list(words) == ["the direction asked for", "the step that Adam makes"]
    dots = np.vstack([seeds.get_offsets() for seeds in bars.flat[0].collections])
    first = of_steps()[of_steps().smto == "unit_scal"]
    for at, column in ((-0.17, "asked"), (0.17, "moved")):
        assert sorted(dots[dots[:, 1] == at, 0]) == pytest.approx(sorted(100 * first[column]))
    paths = figures.progress(of_steps())
    assert len(paths.flat[0].lines) == 8
    means = of_steps().groupby("smto").mean(numeric_only=True)
    for ax, column in zip(paths.flat, ("gap", "cosine"), strict=True):
        assert column in ax.get_xlabel()
        named = {text.get_text(): text.xy for text in ax.texts if text.get_text()}
        assert named["MGDA"] == pytest.approx((means[column]["mgda"], -9)) and len(named) == 4
    levels = {"mean loss, no gate": 1.0}
    both = figures.gates(behind(5.0, 6.0, 3.0), DUTIES, levels)
    names = [text.get_text() for text in both.flat[1].get_yticklabels()]
    assert names == [f"{d} %: minus {other}" for d in (30, 70) for other in ("at random", "most in conflict")]
    gains = [line.get_xdata()[0] for line in both.flat[1].lines if line.get_marker() == "D"]
    assert gains == pytest.approx([2, -1, 2, -1], rel=0.01)  # 5 behind the first gate, 3 at random, 6 in conflict
    bars_of = {line.get_ydata()[0] for line in both.flat[0].lines if line.get_linestyle() == "-"}
    assert {round(value) for value in bars_of} == {5, 6, 3}
    apart = figures.equal_radii(differences())
    assert [text.get_text() for text in apart.flat[0].get_yticklabels()] == ["c = 0.2", "c = 0.8", "each at its best c"]
    means = [[line.get_xdata()[0] for line in ax.lines if line.get_marker() == "D"] for ax in apart.flat]
    assert means == [[0.5] * 3, [-1.0] * 3] and apart.flat[0].patches[0].get_xy()[0] == -2
    for axes in (drawn, bars, paths, both, apart):
        assert len(str(canvas.figure_of(axes).get_label())) > 100
