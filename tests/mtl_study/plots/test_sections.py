import itertools
import json
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from mtl_core import problems, smtos
from mtl_core.smtos import geometry
from mtl_study import artifacts, look
from mtl_study.analysis import alignment, comparisons, delta, task_weights
from mtl_study.experiments.runs import Gradients
from mtl_study.look import LOOK
from mtl_study.paper import published
from mtl_study.plots import canvas, captions, selection, similar_tasks

CL_RR, CL_CR, RL_RR = "multimnist/CL_RR", "multimnist/CL_CR", "multimnist/RL_RR"
TABLE_3 = published.table("table_3")
KEPT = ["auto_lambda", "cagrad", "cdtt", "edm", "famo", "imtl", "nash_mtl", "rotograd"]
EPOCHS = 4


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def experiment(make_run):
    """Made-up records of one problem, and their table: `experiment(problem, {smto: (gain, gain)}, seeds)`."""

    def make(problem, gains, seeds=3):
        rng, runs = np.random.default_rng(0), []
        names = problem.split("/")[1].split("_")
        for smto, means in gains.items():
            for seed in range(1, seeds + 1):
                epochs = []
                for epoch in range(EPOCHS):
                    gain = np.array(means) - (EPOCHS - 1 - epoch) + rng.normal(0, 0.2, 2)
                    values = zip(names, gain, strict=True)
                    epochs.append({t: 0.95 * (1 + g / 100) if t[0] == "C" else 0.4 * (1 - g / 100) for t, g in values})
                first = rng.uniform(0.3, 0.7, EPOCHS)
                weights = [[None, None] if smto == "rotograd" else [w, 1 - w] for w in first]
                own = [{"alpha_0": w, "alpha_1": 1 - w} if smto == "imtl" else {} for w in first]
                lie = Gradients(cosine_to_mean=0.7, pairwise_cosine=0.1 * seed, norms=[1.0, 2.0], norm_ratio=2.0)
                lies = {"features": lie, "parameters": lie}
                runs.append(
                    make_run(
                        epochs, problem=problem, smto=smto, seed=seed, weights=weights, gradients=lies, diagnostics=own
                    )
                )
        alone = [make_run([{name: 0.95 if name[0] == "C" else 0.4}]) for name in names]
        tasks = problems.get(problem).tasks
        return runs, delta.selected(runs, delta.single_task_baselines(alone, tasks), tasks)

    return make


@pytest.fixture
def all_methods(experiment):
    return experiment(CL_RR, {smto: (row.CL, row.RR) for smto, row in TABLE_3.iterrows()})


@pytest.fixture
def two_problems(experiment):
    gains = {smto: (-1, -1) for smto in ["unit_scal", *KEPT]}
    one, other = experiment(CL_CR, gains), experiment(RL_RR, {smto: (-20, -20) for smto in gains})
    return [*one[0], *other[0]], pd.concat([one[1], other[1]], ignore_index=True)


def overlapping_labels(figure):
    """Pairs of neighbouring tick labels that overlap, as drawn."""
    figure.draw_without_rendering()
    found = []
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        shown = [label for label in axis.get_ticklabels() if label.get_visible() and label.get_text()]
        for one, other in itertools.pairwise(shown):
            a, b = one.get_window_extent(), other.get_window_extent()
            line = 0.7 * one.get_fontsize() * figure.dpi / 72
            # slanted labels end at their ticks: there, a line's height between the ends is enough
            if abs(a.x1 - b.x1) < line if one.get_rotation() else a.overlaps(b):
                found.append((one.get_text(), other.get_text()))
    return found


# -- the look of a method ----------------------------------------------------------------------------------------------


def test_seaborn_draws_a_method_the_same_whoever_it_stands_beside():
    import seaborn as sns

    table = pd.DataFrame({"smto": ["edm", "edm", "si", "si"], "x": [0, 1, 0, 1], "y": [0, 1, 1, 0]})
    colours = []
    for chosen in [["edm"], ["edm", "si"]]:
        _, ax = canvas.figure()
        sns.lineplot(table[table.smto.isin(chosen)], x="x", y="y", errorbar=None, ax=ax, **look.look(chosen))
        colours.append(ax.lines[0].get_color())
    assert colours == [LOOK["edm"].colour] * 2


def test_every_method_has_a_look():
    assert set(smtos.keys()) <= set(LOOK)


def test_no_two_methods_look_alike_even_where_only_lines_or_only_markers_are_drawn():
    for draw in [("colour", "dash"), ("colour", "marker")]:
        assert len({tuple(getattr(one, part) for part in draw) for one in LOOK.values()}) == len(LOOK)
    assert len({one.label for one in LOOK.values()}) == len(LOOK)


def test_black_is_the_uniform_loss_and_only_that():
    assert [smto for smto, one in LOOK.items() if one.colour == look.INK] == ["unit_scal"]
    assert len({one.colour for one in LOOK.values()}) == 7


def test_methods_come_in_the_papers_order():
    assert look.in_order(reversed(TABLE_3.index)) == list(TABLE_3.index)
    with pytest.raises(KeyError, match="no_such: no look"):
        look.in_order(["edm", "no_such"])


# -- section 3.1 -------------------------------------------------------------------------------------------------------


def test_figure_1_has_a_box_per_method_and_the_median_of_unit_scal(all_methods):
    _, table = all_methods
    ax = selection.figure_1(table)
    assert [t.get_text() for t in ax.get_xticklabels()] == [look.label(smto) for smto in TABLE_3.index]
    assert len(ax.patches) == 16
    median = table[table.smto == "unit_scal"].delta_m.median()
    dashed = [line for line in ax.lines if line.get_linestyle() == "--" and line.get_color() == look.INK]
    assert [line.get_ydata()[0] for line in dashed] == [median]


def test_few_seeds_are_drawn_one_by_one_and_many_are_not(experiment):
    gains = {"unit_scal": (-1, -9), "edm": (-1, -3)}
    for seeds, dots in [(3, 6), (5, 10), (6, 0)]:
        _, table = experiment(CL_RR, gains, seeds)
        ax = selection.figure_1(table)
        assert sum(len(points.get_offsets()) for points in ax.collections) == dots
        assert f"{seeds} seeds" in canvas.figure_of(ax).get_label()


def test_a_method_without_any_value_keeps_its_place(all_methods):
    _, table = all_methods
    table.loc[table.smto == "imtl", ["delta_m", "CL", "RR"]] = math.nan
    table.loc[table.smto == "imtl", "diverged"] = True
    ax = selection.figure_1(table)
    assert len(ax.get_xticklabels()) == 16 and len(ax.patches) == 15
    assert "diverged, read at their best epoch before, if any: 3 of IMTL." in canvas.figure_of(ax).get_label()
    selection.forest(table)
    selection.trade_off(table)


def test_forest_draws_the_paired_intervals_and_the_papers_difference(all_methods):
    _, table = all_methods
    ax = selection.forest(table)
    found = comparisons.paired(table)
    row = [t.get_text() for t in ax.get_yticklabels()].index("EDM")
    drawn = [line for line in ax.lines if len(line.get_ydata()) and line.get_ydata()[0] in (row, row + 0.27)]
    spans = [tuple(line.get_xdata()) for line in drawn if len(line.get_xdata()) == 2]
    assert spans == [(found.low["edm"], found.high["edm"])]
    hollow = [line.get_xdata()[0] for line in drawn if line.get_markerfacecolor() == "white"]
    assert hollow == [pytest.approx(-2.303 + 8.952)]


def test_one_seed_is_drawn_without_an_interval(experiment):
    _, table = experiment(CL_RR, {"unit_scal": (-1, -9), "edm": (-1, -3)}, seeds=1)
    ax = selection.forest(table, margin=2)
    assert np.isfinite(ax.get_xlim()).all()
    assert "With one seed there is no interval." in canvas.figure_of(ax).get_label()
    selection.figure_1(table)


def test_table_3_stands_beside_the_papers(all_methods):
    _, table = all_methods
    found = selection.table_3(table)
    assert list(found.index) == [look.label(smto) for smto in TABLE_3.index]
    row = found.loc["CAGrad"]
    runs = table[table.smto == "cagrad"]
    assert (row["paper Δm"], row["n"]) == (-2.137, 3)
    assert row["Δm"] == runs.delta_m.mean() and row["± RR"] == runs.RR.std(ddof=1)
    assert "standard deviation between seeds" in found.attrs["caption"]


def test_table_of_settings_says_who_chose_and_what_the_paper_chose():
    rows = [
        {"smto": "single_task", "task": "CL", "lr": 0.001, "dropout": 0.0, "options": {}, "chosen": "searched here"},
        {"smto": "imgrad", "task": "", "lr": 0.001, "dropout": 0.0, "options": {"c": 0.8}, "chosen": "searched here"},
        {"smto": "cagrad", "task": "", "lr": 0.005, "dropout": 0.1, "options": {"c": 0.2}, "chosen": "searched here"},
    ]
    found = selection.table_of_settings(pd.DataFrame(rows).assign(weight_decay=0.0), CL_RR)
    assert list(found.index) == ["single task CL", "CAGrad", "IMGrad"]
    assert found["paper's choice"].tolist() == ["0.0025, 0.5", "0.001, 0, c = 0.8", "not in the paper"]
    assert found.loc["CAGrad", ["lr", "dropout", "own options"]].tolist() == ["0.005", "0.1", "c = 0.2"]
    assert "Table 7" in found.attrs["caption"] and "D47" not in found.attrs["caption"]
    without = selection.table_of_settings(pd.DataFrame(rows).assign(weight_decay=0.0, dropout=0.0), CL_RR)
    assert without.attrs["caption"].endswith("No method here is regularised by dropout or weight decay (D47).")


# -- section 3.2 -------------------------------------------------------------------------------------------------------


def test_figure_2_has_boxes_to_the_left_and_a_line_per_method_with_weights_to_the_right(two_problems):
    runs, table = two_problems
    axes = similar_tasks.figure_2(table, runs)
    assert axes.shape == (2, 2)
    for left, right in axes:
        assert len(left.patches) == 9
        assert [line.get_label() for line in right.lines] == [look.label(s) for s in KEPT if s != "rotograd"]
        assert right.get_ylim()[0] == 0
    widths = [ax.get_gridspec().get_width_ratios() for ax in axes.flat]
    assert widths[0] == [65, 35]


def test_figure_2_draws_the_mean_over_seeds(two_problems):
    runs, table = two_problems
    axes = similar_tasks.figure_2(table, runs, problems=[RL_RR])
    found = task_weights.distance_from_equal(r for r in runs if r.config.problem == RL_RR and r.config.smto == "edm")
    line = next(line for line in axes[0, 1].lines if line.get_label() == "EDM")
    assert list(line.get_ydata()) == pytest.approx(list(found.groupby("epoch").distance.mean()))


def test_famo_noise_takes_its_weight_apart(make_run):
    """By hand: losses 1 and 3 alone give ¾; improvements 0.03 and 0.01 on average, their difference spreads by 0.2."""
    told = {"share_0": 0.6, "improvement_0": 0.03, "improvement_1": 0.01, "lead_squared_0": 0.0101}
    told = [told, {**told, "lead_squared_0": 0.0201}]
    run = make_run([{"CL": 1, "CR": 1}] * 2, problem=CL_CR, smto="famo", weights=[[0.9, 0.1]] * 2, diagnostics=told)
    run.history[0].train_losses = [1.0, 3.0]
    row = similar_tasks.famo_noise([run]).iloc[0]
    assert row[["weight", "share_z", "share_loss"]].tolist() == pytest.approx([0.9, 0.6, 0.75])
    assert row[["improvement", "drift", "spread", "noise"]].tolist() == pytest.approx([0.02, 0.02, 0.2, 10])
    axes = similar_tasks.famo({"one": [run], "other": [run]})
    assert [ax.get_title(loc="left") for ax in axes] == ["one", "other", "chance over improvement"]
    assert axes[2].lines[0].get_ydata()[0] == pytest.approx(10)
    run.history[1].weights, run.history[1].train_losses = [0.6, 0.4], [2.0, 3.0]
    row = similar_tasks.famo_table({"one": [run]}).loc["one"]
    assert row["w₁ moves per epoch by"] == pytest.approx(0.3) and row["mean |w₁ − ½|"] == pytest.approx(0.25)
    assert row["w₁ by 1/L alone"] == "0.60 to 0.75" and row["smaller loss at the end"] == 2


def test_famo_noise_refuses_records_that_cannot_tell(make_run):
    old = make_run([{"CL": 1, "CR": 1}], problem=CL_CR, smto="famo")
    with pytest.raises(ValueError, match=r"CL_CR \(seed 1\) has no share_0, improvement_0"):
        similar_tasks.famo_noise([old])
    with pytest.raises(ValueError, match="no run of FAMO"):
        similar_tasks.famo_noise([make_run([{"CL": 1, "CR": 1}], problem=CL_CR)])


def test_weight_distances_leave_out_what_has_no_weights(two_problems):
    runs, _ = two_problems
    ax = similar_tasks.weight_distances(alignment.per_run(runs), near=0.1)
    assert [t.get_text() for t in ax.get_yticklabels()] == [look.label(s) for s in KEPT if s != "rotograd"]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [look.PROBLEMS[p][0] for p in (CL_CR, RL_RR)]


def test_figure_7_has_the_floor_of_every_number_of_tasks(two_problems):
    runs, _ = two_problems
    axes = similar_tasks.figure_7(alignment.gradient_statistics(runs))
    assert axes[0].lines[-1].get_ydata()[0] == alignment.cosine_floor(2)
    assert [ax.get_title(loc="left") for ax in axes] == [
        look.NAMES[c] for c in ("cosine_to_mean", "pairwise_cosine", "norm_ratio")
    ]


def test_figure_7_says_where_an_epoch_is_one_look(two_problems, make_run):
    """A look at the second step and every hundredth after it: one per epoch up to 101 steps, two from 102 on."""
    gradients = {"parameters": Gradients(cosine_to_mean=0.7, pairwise_cosine=0.0, norms=[1.0, 1.0], norm_ratio=1.0)}
    values = {"CL": 0.9, "CR": 0.9}
    captions = []
    for steps in (101, 102):
        size = {"train_size": 8 * steps, "batch_size": 8}
        made = [make_run([values], problem=p, gradients=gradients, **size) for p in (CL_CR, "cityscapes/inst_seg")]
        axes = similar_tasks.figure_7(alignment.gradient_statistics(made))
        captions.append(canvas.figure_of(axes).get_label())
    sentence = "Samples are the second step of an epoch and every 100th after it, averaged over the epoch"
    assert f"{sentence}; at these settings one batch per epoch on CL_CR and Inst. Seg. (D30)." in captions[0]
    assert f"{sentence}." in captions[1]


def test_the_legend_of_figure_7_covers_nothing(make_run):
    """Neither the small print nor the panels' labels; as it is saved, cropped to what is drawn."""
    gradients = {"parameters": Gradients(cosine_to_mean=0.7, pairwise_cosine=0.0, norms=[1.0, 1.0], norm_ratio=1.0)}
    made = [make_run([{"CL": 0.9}], problem=problem, gradients=gradients) for problem in look.PROBLEMS]
    figure = canvas.figure_of(similar_tasks.figure_7(alignment.gradient_statistics(made)))
    (legend,) = figure.legends
    assert len(legend.get_texts()) == len(look.PROBLEMS)
    covered = []

    def measure(event):
        box = legend.get_window_extent(event.renderer)
        others = [figure.texts[-1], *(ax.xaxis.label for ax in figure.axes), *(ax._left_title for ax in figure.axes)]
        covered.append(sum(box.overlaps(other.get_window_extent(event.renderer)) for other in others))

    figure.canvas.mpl_connect("draw_event", measure)
    artifacts.save_figure(figure, "02_figure_7", "smoke", "Figure 7", "")
    assert covered and covered[-1] == 0


def test_problems_are_called_what_the_paper_calls_them():
    names = {"cityscapes/inst_seg": "Inst. Seg.", "qm9": "QM9", "cityscapes/19C": "19C", CL_CR: "CL_CR"}
    assert {problem: look.problem_label(problem) for problem in names} == names


def test_gradients_of_the_sweep_have_the_cosine_and_the_lengths_they_were_asked_for():
    gramian = similar_tasks.unrelated_gramian(4, ratio=9.0, cosine=0.3)
    lengths = np.sqrt(gramian.diagonal())
    assert lengths.max() / lengths.min() == pytest.approx(9)
    assert geometry.pairwise_cosine(gramian) == pytest.approx(0.3)
    assert np.linalg.eigvalsh(gramian).min() > 0
    with pytest.raises(ValueError, match="cannot all have cosine"):
        similar_tasks.unrelated_gramian(4, 1.0, -0.5)


def test_the_three_values_of_the_paper_are_what_unrelated_tasks_can_have():
    """0.7 for two tasks, 0.45 for three, 0.3 for eleven: with pairwise cosine 0 and lengths at most 11 : 1."""
    for name, num_tasks in [("cosine_high", 2), ("cosine_middle", 3), ("cosine_low", 11)]:
        values = [
            geometry.cosine_to_mean(similar_tasks.unrelated_gramian(num_tasks, ratio))
            for ratio in np.geomspace(1, 11, 50)
        ]
        assert min(values) <= published.text(name).value <= max(values) + 0.003


def test_the_gaps_of_a_problem_are_those_of_all_smtos_that_it_has(two_problems, experiment):
    runs, table = two_problems
    more, digits = experiment(CL_RR, {smto: (row.CL, row.RR) for smto, row in TABLE_3.iterrows()})
    table = table[(table.problem != RL_RR) | table.smto.isin(["unit_scal", "imtl"])]
    found = similar_tasks.ranking(alignment.per_run([*runs, *more]), pd.concat([table, digits]))
    by_mean, by_largest = "rank correlation with the mean gap", "rank correlation with the largest gap"
    assert list(found.index) == ["CL_CR", "RL_RR", "CL_RR", by_mean, by_largest]
    assert found["SMTOs"].iloc[:3].tolist() == [8, 1, 15]
    everybody = comparisons.paired(digits)["mean"]
    assert found.loc["CL_RR", ["mean gap", "largest gap"]].tolist() == pytest.approx(
        [everybody.mean(), everybody.max()]
    )
    assert found.loc["RL_RR", "mean gap"] == found.loc["RL_RR", "largest gap"]
    assert math.isnan(found.loc[by_mean, "1/√K"])  # three problems with two tasks each
    assert "below 0.33" in found.attrs["caption"]


def test_equivalence_tells_small_differences_from_unknown_ones(make_run):
    """By hand, margin 2: within, different but within, beyond, and too noisy to tell; one seed never tells."""
    gains = {
        "unit_scal": [0.0, 0.0, 0.0],
        "cagrad": [0.1, -0.1, 0.0],
        "edm": [1.0, 1.1, 0.9],
        "famo": [5.0, 5.1, 4.9],
        "imtl": [-6.0, 7.0, 1.0],
    }
    rows = [
        {"problem": problem, "smto": smto, "seed": seed, "delta_m": gain, "diverged": False}
        for problem in (RL_RR, CL_CR)
        for smto, values in gains.items()
        for seed, gain in enumerate(values)
    ]
    found = similar_tasks.equivalence(pd.DataFrame(rows), margin=2)
    assert list(found.problem) == ["CL_CR"] * 4 + ["RL_RR"] * 4
    assert list(found.reading[:4]) == ["equal within ±2", "different, by less than 2", "different", "cannot tell"]
    assert (found.p[:2] < 0.05).all() and (found.p[2:4] > 0.05).all()
    alone = similar_tasks.equivalence(pd.DataFrame([row for row in rows if row["seed"] == 0]), margin=2)
    assert set(alone.reading) == {"cannot tell"} and set(alone["90 % interval"]) == {"–"}


def test_weights_are_compared_seed_by_seed_with_the_problem_whose_tasks_differ():
    """Nearer by 0.2 at every seed although the seeds spread; without weights, no row."""
    per_run = pd.DataFrame(
        [
            {"problem": problem, "smto": smto, "config": "", "seed": seed, "weight_distance": value}
            for problem, more in ((CL_RR, 0.2), (CL_CR, 0.0))
            for smto, values in {"edm": [0.01, 0.06, 0.11], "rotograd": [math.nan] * 3, "unit_scal": [0.0] * 3}.items()
            for seed, value in enumerate(np.array(values) + more)
        ]
    )
    found = similar_tasks.weights(per_run, against=CL_RR)
    assert list(found.problem) == ["CL_CR", "CL_RR"] and set(found.method) == {"EDM"}
    assert found["mean |w₁ − ½|"].tolist() == pytest.approx([0.06, 0.26])
    assert found.difference[0] == pytest.approx(-0.2) and found.reading[0] == "nearer"


def test_ranking_takes_problems_that_have_no_look_yet_with_their_own_number_of_tasks():
    """C falls and the gap grows with K: both rank the problems alike, and so does 1/√K, which knows no gradient."""
    tasks = {CL_CR: 2, "streets/3": 3, "molecules": 11}
    per_run = pd.DataFrame(
        [
            {"problem": p, "smto": "unit_scal", "num_tasks": k, "cosine_to_mean": 1 / k, "pairwise_cosine": 0.0}
            | {"norm_ratio": 1.0}
            for p, k in tasks.items()
        ]
    )
    selected = pd.DataFrame(
        [
            {"problem": p, "smto": smto, "seed": seed, "delta_m": gain * k, "diverged": False}
            for p, k in tasks.items()
            for smto, gain in (("unit_scal", 0.0), ("edm", 1.0))
            for seed in (1, 2)
        ]
    )
    found = similar_tasks.ranking(per_run, selected)
    assert list(found.index[:-1]) == ["CL_CR", "3", "molecules"]
    assert found["1/√K"].iloc[:-1].tolist() == pytest.approx([k**-0.5 for k in tasks.values()])
    assert found["mean gap"].iloc[:-1].tolist() == [2, 3, 11]
    assert found.iloc[-1][["C", "1/√K"]].tolist() == pytest.approx([-1, -1])
    assert math.isnan(found.iloc[-1]["pairwise cosine"])


# -- all of them -------------------------------------------------------------------------------------------------------


def test_no_labels_overlap(all_methods, two_problems):
    runs, table = all_methods
    both, two = two_problems
    drawn = [
        selection.figure_1(table),
        selection.figure_1(table, scale="symlog"),
        selection.forest(table),
        selection.forest(table, scale="symlog"),
        selection.trade_off(table),
        similar_tasks.figure_2(two, both),
        similar_tasks.figure_7(alignment.gradient_statistics(both)),
        similar_tasks.weight_distances(alignment.per_run([*runs, *both])),
        similar_tasks.unrelated_tasks(),
    ]
    assert [overlapping_labels(canvas.figure_of(axes)) for axes in drawn] == [[]] * len(drawn)


def test_every_caption_says_what_is_shown_how_many_and_who_chose(all_methods, two_problems):
    _, table = all_methods
    both, two = two_problems
    chosen = "searched here over 2 configurations × 1 seeds"
    settings = pd.DataFrame({"smto": ["edm", "famo"], "lr": 0.001, "chosen": chosen})
    for axes in [
        selection.figure_1(table, settings=settings),
        selection.forest(table, settings=settings),
        selection.trade_off(table, settings=settings),
        similar_tasks.figure_2(two, both, settings=settings),
    ]:
        text = canvas.figure_of(axes).get_label()
        assert "3 seeds" in text and captions.A_SEED in text
        assert text.endswith("Settings: searched here over 2 configurations × 1 seeds.")
        assert "  " not in text and " ." not in text and " ;" not in text


def test_published_figures_and_tables_keep_their_captions(all_methods):
    _, table = all_methods
    ax = selection.figure_1(table)
    shown = canvas.publish(ax, "01_figure_1", "smoke", "Figure 1")
    folder = artifacts.folder("smoke")
    note = json.loads((folder / "figures" / "01_figure_1.json").read_text())
    assert note["title"] == "Figure 1" and note["caption"] == canvas.figure_of(ax).get_label()
    assert shown.data == f"**Figure 1.** Preset smoke decides nothing. {note['caption']}"
    assert note["caption"] in canvas.publish(ax, "01_figure_1", "quick", "Figure 1").data.removeprefix("**Figure 1.** ")
    canvas.publish_table(selection.table_3(table), "01_table_3", "smoke", "Table 3")
    assert "| CAGrad |" in (folder / "tables" / "01_table_3.md").read_text()


def test_unequal_learning_rates_are_named():
    """What most have, then the others from the smallest on, methods in order of display; nothing where all agree."""
    rates = {"unit_scal": 0.005, "cagrad": 0.001, "edm": 0.001, "famo": 0.005, "imtl": 0.0005, "nash_mtl": 0.001}
    assert (
        captions.learning_rates(rates)
        == "Learning rate: 0.001, but 0.0005 for IMTL and 0.005 for Unit. Scal. and FAMO."
    )
    assert captions.learning_rates(dict.fromkeys(rates, 0.001)) == ""
    settings = pd.DataFrame(
        {"smto": ["single_task", "unit_scal", "edm"], "lr": [0.1, 0.005, 0.005], "chosen": "published"}
    )
    assert captions.chosen(settings) == "Settings: as published."
    more = pd.concat([settings, settings.iloc[1:].assign(lr=[0.001, 0.005])])  # of two problems
    assert captions.chosen(more) == "Settings: as published."
    assert captions.chosen(settings.assign(lr=[0.1, 0.005, 0.001])).endswith("Learning rate: 0.005, but 0.001 for EDM.")
