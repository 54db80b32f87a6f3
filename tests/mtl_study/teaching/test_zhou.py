"""The checks of notebook 08 pass where a claim holds, and each fails in a world in which its claim does not."""

import itertools

import numpy as np
import pandas as pd
import pytest

from mtl_study.paper import claims
from mtl_study.paper.claims import NOT_REPRODUCED, OPEN, REPRODUCED
from mtl_study.plots import canvas
from mtl_study.plots import imbalance as figures
from mtl_study.teaching import grid, imbalance, landscape, zhou
from mtl_study.teaching.landscape import Walks

WEIGHTS, RATES = (0.1, 0.5, 0.9), (0.01, 0.1)
BALANCED, UNBALANCED = (1.0, -8.4), (6.5, -8.4)  # points of the Pareto set, for equal weights


def world(arrives=lambda smto, weight, lr, start: True, where=UNBALANCED):
    """Walks as `grid.walk` has them: those that do not arrive stand at one point."""
    rows = [
        ("adam", f"{smto} {reading}", lr, start, smto, c, reading, weight)
        for (smto, c, reading), weight, lr, start in itertools.product(
            grid.arms([0.4, 0.8], ["code"]), WEIGHTS, RATES, range(5)
        )
    ]
    plan = pd.DataFrame(rows, columns=[*landscape.PLAN, "smto", "c", "reading", "weight"])
    plan["steps"] = [9.0 if arrives(p.smto, p.weight, p.lr, p.start) else np.nan for p in plan.itertuples()]
    return {"float64": Walks(plan, np.arange(11), np.tile(np.array(where), (11, len(plan), 1)))}


def holds(evidence):
    """Proposition to whether all its checks passed."""
    return evidence.groupby("proposition").passed.all().to_dict()


def test_balance_is_harmless_where_all_arrive():
    assert holds(zhou.of_balance(world())) == {"equal weights": True, "stuck": True}
    assert "every method reaches the optimum from all 5 starts. Every one of 300 walks" in zhou.on_balance(world())


def test_one_method_that_misses_a_start_at_equal_weights_is_enough():
    def misses(smto, weight, lr, start):
        return smto != "pcgrad" or weight != 0.5 or start > 0

    found = zhou.of_balance(world(misses))
    assert holds(found) == {"equal weights": False, "stuck": True}
    assert list(found[~found.passed].starts) == [4]
    assert "all methods but PCGrad (4 of 5) reach" in zhou.on_balance(world(misses))
    assert holds(zhou.of_balance(world(lambda smto, weight, lr, start: smto != "mgda")))["equal weights"]  # not drawn
    assert holds(zhou.of_balance(world(lambda smto, weight, lr, start: lr > 0.05)))["equal weights"]  # at its best


def test_walks_that_end_in_balanced_conflict_are_told():
    def even(smto, weight, lr, start):
        return weight != 0.5 or lr > 0.05

    assert not holds(zhou.of_balance(world(even, BALANCED)))["stuck"]
    assert "100 % of these end where gradients conflict, and 50 (100.0 %; the rule's line is 10 %)" in zhou.on_balance(
        world(even, BALANCED)
    )
    assert "100 % of these end where gradients conflict, and 0 (0.0 %;" in zhou.on_balance(world(even, UNBALANCED))


def test_imbalance_blocks_where_imgrad_alone_arrives():
    def alone(smto, weight, lr, start):
        return smto == "imgrad" or start > 1

    assert holds(zhou.of_imbalance(world(alone))) == {"ahead": True, "explains": True}
    assert "from more starts than CAGrad in 8 of 8 cells" in zhou.on_grid(world(alone))


def test_imbalance_does_not_block_where_the_step_size_decides():
    by_rate = world(lambda smto, weight, lr, start: lr > 0.05)
    assert holds(zhou.of_imbalance(by_rate)) == {"ahead": False, "explains": False}
    assert "in 0 of 8 cells, from fewer in 0 and from as many in 8" in zhou.on_grid(by_rate)
    assert "step size explains 100.0 % and the method 0.0 %" in zhou.on_grid(by_rate)
    half = world(lambda smto, weight, lr, start: smto != "cagrad" or weight != 0.1)
    assert not holds(zhou.of_imbalance(half))["ahead"]  # half of the cells are not most


def test_the_planted_pair_is_told_by_real_walks():
    """Nash-MTL does not see weights, so it does not stop at their optimum; the uniform loss does."""
    walks = {"float64": grid.walk([0.1, 0.9], [0.1], [0.4], ["code"], 400)}
    assert holds(zhou.of_imbalance(walks, "unit_scal", "nash_mtl"))["ahead"]
    assert not holds(zhou.of_imbalance(walks, "nash_mtl", "unit_scal"))["ahead"]


def correlations(deviation=1e-15, spearman=-0.8):
    rows = [("random", 2, 50, deviation, -0.99), ("random", 11, 50, np.nan, spearman)]
    found = pd.DataFrame(rows, columns=["origin", "num_tasks", "gramians", "deviation", "spearman"])
    return found.assign(low=found.spearman - 0.05, high=found.spearman + 0.05)


def test_the_cosine():
    good = {"closed form": True, "falls": True, "11 tasks": True}
    assert holds(zhou.of_cosine(correlations(), True)) == good
    assert holds(zhou.of_cosine(correlations(), False)) == good | {"falls": False}
    assert holds(zhou.of_cosine(correlations(deviation=1e-9), True)) == good | {"closed form": False}
    for low in (-0.4, -0.52):  # the interval of the second holds −0.5
        assert holds(zhou.of_cosine(correlations(spearman=low), True)) == good | {"11 tasks": False}
    text = zhou.on_cosine(correlations())
    assert (
        "differ by 1e-15 at most, over 50 Gramians" in text
        and "With 11 tasks it is, with 95 % intervals, −0.80 (−0.85 to −0.75; random)." in text
    )


@pytest.fixture
def per_run():
    row = {"problem": "multimnist/RL_RR", "smto": "unit_scal", "seed": 1, "unit_scal": 0.3, "nash exact": 0.0}
    row |= {"nash released": 0.1, "fallback": 0.2, "cagrad 0.2": 0.05, "imgrad 0.2": 0.15, "hurts alone": 0.1}
    row |= {"cagrad": 0.05, "imgrad": 0.15, "looks": 20, "close": 0.75}
    return pd.DataFrame([row | {"repairs": 0}, row | {"seed": 2, "repairs": 0}])


def test_failures_in_words(per_run):
    text = zhou.on_failures(per_run, [0.2])
    assert "hurt a task at 30.0 % on RL_RR. Nash-MTL with its released solver hurts one at 10.0 % on RL_RR" in text
    assert "5.0 % and 15.0 % at c = 0.2 (there are 40 looks). IMGrad repairs no failure of CAGrad" in text
    assert "in the reading of its code, hurts a task where CAGrad does not at 10.0 % on RL_RR" in text
    assert text.endswith(" At equal c their directions are less than 1° apart at 75.0 % on RL_RR.")
    assert "against the theorem" in zhou.on_failures(per_run.assign(repairs=1), [0.2])
    assert "neither" not in text
    none = zhou.on_failures(per_run.assign(cagrad=0.0, imgrad=0.0), [0.2])
    assert " On RL_RR neither of the two hurts a task at any look: there is nothing to repair. At" in none


def verdicts(name, evidence):
    return [part.verdict for part in claims.decide(name, evidence, preset="quick")]


def test_every_claim_can_go_either_way():
    """Each part turns in a world of its own, and no other does."""
    yes, no = REPRODUCED, NOT_REPRODUCED

    def by_rate(smto, weight, lr, start):
        return lr > 0.05

    def never_even(smto, weight, lr, start):
        return weight != 0.5

    def alone(smto, weight, lr, start):
        return smto == "imgrad" or start > 1

    balance, blocks = "Zhou-balance-harmless", "Zhou-imbalance-blocks"
    assert verdicts(balance, zhou.of_balance(world(by_rate))) == [yes, yes]
    assert verdicts(balance, zhou.of_balance(world(never_even))) == [no, yes]
    assert verdicts(balance, zhou.of_balance(world(by_rate, BALANCED))) == [yes, no]
    assert verdicts(blocks, zhou.of_imbalance(world(alone))) == [yes, yes]
    assert verdicts(blocks, zhou.of_imbalance(world(by_rate))) == [no, no]
    assert verdicts("Zhou-cosine", zhou.of_cosine(correlations(), True)) == [yes, yes]
    assert verdicts("Zhou-cosine", zhou.of_cosine(correlations(), False)) == [no, yes]
    assert verdicts("Zhou-cosine", zhou.of_cosine(correlations(spearman=-0.4), True)) == [yes, no]


def test_failures_are_judged_run_by_run():
    """In the released solver's world it fails everywhere; in the theorem's IMGrad never fails less often; elsewhere it
    does; where runs differ the verdict is open."""

    def runs(**columns):
        rows = [
            {"problem": problem, "smto": "unit_scal", "seed": seed, "nash exact": 0.0, "nash released": 0.1}
            | {"cagrad": 0.1, "imgrad": 0.1}
            | {name: of(seed) for name, of in columns.items()}
            for problem in ("multimnist/CL_RR", "multimnist/CL_CR", "multimnist/RL_RR")
            for seed in range(1, 8)
        ]
        return pd.DataFrame(rows)

    assert verdicts("Zhou-pareto", runs()) == [REPRODUCED, NOT_REPRODUCED]
    assert verdicts("Zhou-pareto", runs(imgrad=lambda seed: 0.01 * seed, cagrad=lambda seed: 0.1 + 0.01 * seed))[1] == (
        REPRODUCED
    )
    never = runs(**{"nash released": lambda seed: 0.0}, imgrad=lambda seed: 0.1 + 0.01 * seed)
    assert verdicts("Zhou-pareto", never) == [NOT_REPRODUCED, NOT_REPRODUCED]
    once = runs(**{"nash released": lambda seed: 0.1 * (seed == 1)})
    assert verdicts("Zhou-pareto", once)[0] == OPEN


def test_figures_are_drawn_and_explain_themselves(per_run):
    walks = world(lambda smto, weight, lr, start: start > 0)
    draws = np.random.default_rng(0)
    gramians = {f"{s:g}": imbalance.random_gramians(s, 5, 2, draws) for s in imbalance.SHARED}
    table = imbalance.measured({**gramians, "looks at RL_RR": imbalance.random_gramians(1.0, 4, 2, draws)})
    more = imbalance.measured({f"{s:g}": imbalance.random_gramians(s, 5, 11, draws) for s in imbalance.SHARED})
    drawn = [
        figures.reached({precision: grid.reached(w) for precision, w in walks.items()}),
        figures.paths(walks["float64"], 0.9, 0.1),
        figures.kappas(pd.concat([table, more])),
        figures.hurt(per_run, ["unit_scal", "nash released", "cagrad 0.2", "imgrad 0.2"]),
    ]
    for ax in drawn:
        assert len(str(canvas.figure_of(ax).get_label())) > 100
    rows = [text.get_text() for text in drawn[0].flat[0].get_yticklabels()]
    assert len(rows) == 10 and rows[:3] == ["Unit. Scal.", "CAGrad, c = 0.4", "CAGrad, c = 0.8"]
    assert {t.get_text() for t in drawn[0].flat[0].texts} >= {"4", "0.9 : 0.1"}
    assert [ax.get_title() for ax in drawn[1].flat][:2] == ["Unit. Scal.: 4 of 5", "CAGrad, c = 0.4: 4 of 5"]
    for ax in drawn[1].flat[:2]:  # the star is where the weighted sum is least: to the right, with more weight on L₁
        (star,) = [line.get_xydata()[0] for line in ax.lines if line.get_marker() == "*"]
        assert star == pytest.approx(landscape.optimum(0.9)) and star[0] > 1
    assert [ax.get_title() for ax in drawn[2].flat] == ["2 tasks", "11 tasks"]
    ratio, kappa = {text.get_text(): text.xy for text in drawn[2].flat[0].texts}["90°"]
    assert kappa == pytest.approx(2 * ratio / (1 + ratio**2))  # (r, 1) and (1, r): the mean, and the shortest mixture
    shown = [text.get_text() for text in drawn[3].flat[0].get_yticklabels()]
    assert shown == ["Unit. Scal.", "Nash-MTL, released solver", "CAGrad, c = 0.2", "IMGrad, c = 0.2"]
    assert [bar.get_width() for bar in drawn[3].flat[0].patches] == pytest.approx([30, 10, 5, 15])
    dots = np.vstack([runs.get_offsets() for runs in drawn[3].flat[0].collections])
    of_rules = per_run[["unit_scal", "nash released", "cagrad 0.2", "imgrad 0.2"]]
    assert [sorted(dots[dots[:, 1] == i, 0]) for i in range(4)] == [
        pytest.approx(sorted(100 * of_rules[rule])) for rule in of_rules
    ]


def test_a_problem_on_which_no_step_hurts_has_no_panel(per_run):
    rules = ["unit_scal", "cagrad 0.2"]
    spared = per_run.assign(problem="multimnist/CL_CR", **dict.fromkeys(rules, 0.0))
    axes = figures.hurt(pd.concat([per_run.assign(problem="multimnist/CL_RR"), spared]), rules)
    assert [ax.get_title() for ax in axes.flat] == ["CL_RR"]
    assert canvas.figure_of(axes).get_label().endswith("No step hurts a task on CL_CR.")
    axes = figures.hurt(spared, rules)
    assert [ax.get_title() for ax in axes.flat] == ["CL_CR"] and "No step hurts" not in canvas.figure_of(
        axes
    ).get_label()


def test_the_readings_of_imgrad_have_names_and_an_order():
    rows = [("imgrad", 0.8, reading, 0.5, 0.1, 5) for reading in ("eq9", "eq11_plain", "code", "eq11")]
    table = pd.DataFrame(rows, columns=["smto", "c", "reading", "weight", "lr", "reached"])
    (ax,) = figures.reached({"float64": table}).flat
    named = ("released code", "equation 9", "equation 11", "equation 11 by 10")
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [f"IMGrad, c = 0.8, {name}" for name in named]
    assert canvas.figure_of(ax).get_label().endswith("IMGrad: as released, and by its equations.")


def test_the_grid_of_starts_has_its_counts_under_their_weight_and_step_size():
    """Columns: the weights, and for each the step sizes; rows: the methods in the paper's order."""
    cells = [(smto, w, lr) for smto in ("unit_scal", "imgrad") for w in (0.5, 0.9) for lr in (0.01, 0.1, 1.0)]
    rows = [(smto, grid.NO_C, grid.NO_READING, w, lr, i % 6) for i, (smto, w, lr) in enumerate(cells)]
    table = pd.DataFrame(rows, columns=["smto", "c", "reading", "weight", "lr", "reached"])
    (ax,) = figures.reached({"float64": table.sample(frac=1, random_state=0)}).flat
    assert ax.images[0].get_array().tolist() == [[0, 1, 2, 3, 4, 5]] * 2
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0.01", "0.1", "1"] * 2
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["Unit. Scal.", "IMGrad"]
    above = {text.get_text(): text.get_position()[0] for text in ax.texts if ":" in text.get_text()}
    assert above == {"0.5 : 0.5": 1.0, "0.9 : 0.1": 4.0}
