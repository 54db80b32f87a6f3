"""Section 3.2: figures and tables contain what their captions say."""

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from mtl_study import artifacts, look
from mtl_study.analysis import alignment, comparisons, task_weights
from mtl_study.cosines import cosine_to_mean, pairwise_cosine
from mtl_study.experiments.runs import Gradients
from mtl_study.paper import published
from mtl_study.plots import canvas, similar_tasks

CL_RR, CL_CR, RL_RR = "multimnist/CL_RR", "multimnist/CL_CR", "multimnist/RL_RR"
TABLE_3 = published.table("table_3")
NAMES = {name for name, *_ in look.PROBLEMS.values()}
KEPT = ["auto_lambda", "cagrad", "cdtt", "edm", "famo", "imtl", "nash_mtl", "rotograd"]


def test_figure_2_has_boxes_to_the_left_and_a_line_per_method_with_weights_to_the_right(two_problems):
    runs, table = two_problems
    axes = similar_tasks.figure_2(table, runs)
    assert axes.shape == (2, 2)
    assert [left.get_title(loc="left") for left, _ in axes] == [look.PROBLEMS[p][0] for p in (CL_CR, RL_RR)]
    for (left, right), problem in zip(axes, (CL_CR, RL_RR), strict=True):
        assert len(left.patches) == 9
        dashed = [line for line in left.lines if line.get_linestyle() == "--" and line.get_color() == look.INK]
        uniform = table[(table.problem == problem) & (table.smto == "unit_scal")]
        assert [line.get_ydata()[0] for line in dashed] == [uniform.delta_m.median()]
        assert [line.get_label() for line in right.lines] == [look.label(s) for s in KEPT if s != "rotograd"]
        assert right.get_ylim()[0] == 0
        assert all(line.get_xdata().tolist() == [1, 2, 3, 4] for line in right.lines)
        assert seeds_under_names(left) == {
            look.label(smto): [(gain, look.LOOK[smto].colour) for gain in sorted(own.delta_m)]
            for smto, own in table[table.problem == problem].groupby("smto")
        }
    widths = [ax.get_gridspec().get_width_ratios() for ax in axes.flat]
    assert widths[0] == [65, 35]


def seeds_under_names(ax):
    """The seeds over each name of the axis across: {name: [(height, colour)]}."""
    names, found = [tick.get_text() for tick in ax.get_xticklabels()], {}
    for dots in ax.collections:
        for x, height in np.asarray(dots.get_offsets()):
            found.setdefault(names[round(x)], []).append((height, to_hex(dots.get_facecolor()[0]).upper()))
    return {name: sorted(drawn) for name, drawn in found.items()}


def test_figure_2_draws_the_mean_over_seeds(two_problems):
    runs, table = two_problems
    axes = similar_tasks.figure_2(table, runs, problems=[RL_RR])
    found = task_weights.distance_from_equal(r for r in runs if r.config.problem == RL_RR and r.config.smto == "edm")
    line = next(line for line in axes[0, 1].lines if line.get_label() == "EDM")
    assert list(line.get_ydata()) == pytest.approx(list(found.groupby("epoch").distance.mean()))


def test_bands_are_drawn_where_they_do_not_cover_each_other(two_problems):
    """± 1 standard deviation of the seeds, no lower than 0, for up to four lines; of more the caption tells it."""
    runs, table = two_problems
    few = [run for run in runs if run.config.smto in ("unit_scal", "edm")]
    (right,) = similar_tasks.figure_2(table[table.smto.isin(["unit_scal", "edm"])], few, problems=[RL_RR])[:, 1]
    found = task_weights.distance_from_equal(few)
    values = found[(found.problem == RL_RR) & (found.smto == "edm") & (found.epoch == 2)].distance
    (band,) = right.collections
    at = band.get_paths()[0].vertices
    low, high = (values.mean() + sign * values.std(ddof=1) for sign in (-1, 1))
    assert sorted({round(y, 9) for x, y in at if x == 3}) == pytest.approx([max(low, 0), high])
    axes = similar_tasks.figure_2(table, runs)
    assert not any(right.collections for _, right in axes)
    every = task_weights.distance_from_equal(runs)
    each = every[every.smto != "unit_scal"].groupby(["problem", "smto", "epoch"]).distance.std(ddof=1)
    words = f"Right: means over seeds (standard deviation {each.mean():.2f}), as the paper logs weights"
    assert words in canvas.figure_of(axes).get_label()


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


def test_figure_7_draws_each_statistic_in_its_column_and_a_row_per_family(make_run):
    """Few problems share a row; more have a row per family, whose axes are those of the others."""
    values = {"cosine_to_mean": 0.7, "pairwise_cosine": 0.2, "norm_ratio": 3.0}
    gradients = {"parameters": Gradients(norms=[1.0, 3.0], **values)}
    apart = {"cosine_to_mean": 0.1, "pairwise_cosine": -0.4, "norm_ratio": 60.0}
    far = {"parameters": Gradients(norms=[1.0, 60.0], **apart)}
    of = {problem: far if problem == "qm9" else gradients for problem in look.PROBLEMS}
    made = [make_run([{"CL": 0.9}], problem=problem, gradients=of[problem]) for problem in look.PROBLEMS]
    table = alignment.gradient_statistics(made)
    few = similar_tasks.figure_7(table[table.problem.isin([CL_CR, RL_RR, CL_RR])])
    assert [ax.lines[0].get_ydata()[0] for ax in few] == list(values.values())
    axes = similar_tasks.figure_7(table)
    assert axes.shape == (3, 3)
    colours = [[line.get_color() for line in row[0].lines if line.get_label() in NAMES] for row in axes]
    assert [len(found) for found in colours] == [3, 5, 1]
    assert colours[1][0] == canvas.problem_line("cityscapes/R50")["color"]
    for row, expected in zip(axes, (values, values, apart), strict=True):
        drawn = [ax.lines[0].get_ydata()[0] for ax in row]
        assert drawn == list(expected.values())
        assert [ax.get_ylim() for ax in row] == [ax.get_ylim() for ax in axes[0]]
        assert all(ax.get_ylim()[0] < y < ax.get_ylim()[1] for ax, y in zip(row, drawn, strict=True))  # nothing is cut


def test_figure_7_draws_each_space_in_a_row_of_its_own(make_run):
    values = {"cosine_to_mean": 0.7, "pairwise_cosine": 0.2, "norm_ratio": 3.0}
    features = {"cosine_to_mean": 0.6, "pairwise_cosine": -0.1, "norm_ratio": 2.0}
    both = {
        "parameters": Gradients(norms=[1.0, 3.0], **values),
        "features": Gradients(norms=[1.0, 2.0], **features),
    }
    table = alignment.gradient_statistics([make_run([{"CL": 0.9}], problem=CL_RR, gradients=both)])
    axes = similar_tasks.figure_7(table, spaces=["parameters", "features"])
    assert [[ax.lines[0].get_ydata()[0] for ax in row] for row in axes] == [[*values.values()], [*features.values()]]
    assert [row[0].get_ylabel() for row in axes] == ["on the parameters", "on the features"]
    assert "on the shared parameters and features under" in canvas.figure_of(axes).get_label()
    (alone,) = {len(similar_tasks.figure_7(table[table.space == "parameters"])[0].lines)}
    assert [len(row[0].lines) for row in axes] == [alone, alone]


def test_figure_7_says_where_an_epoch_is_one_look(two_problems, make_run):
    """A look at the second step and every hundredth after it: one per epoch up to 101 steps, two from 102 on."""
    gradients = {"parameters": Gradients(cosine_to_mean=0.7, pairwise_cosine=0.0, norms=[1.0, 1.0], norm_ratio=1.0)}
    values = {"CL": 0.9, "CR": 0.9}
    captions = []
    for steps in ((101, 101), (101, 102), (102, 102)):
        sizes = [{"train_size": 8 * each, "batch_size": 8} for each in steps]
        problems = zip((CL_CR, "cityscapes/inst_seg"), sizes, strict=True)
        made = [make_run([values], problem=p, gradients=gradients, **size) for p, size in problems]
        axes = similar_tasks.figure_7(alignment.gradient_statistics(made))
        captions.append(canvas.figure_of(axes).get_label())
    sentence = "Looks: the second step of an epoch, then every 100th"
    assert "Looks: the second step of each epoch (D30)." in captions[0]
    assert f"{sentence}; here one per epoch on CL_CR (D30)." in captions[1]
    assert f"{sentence}." in captions[2]


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


def test_gradients_of_the_sweep_have_the_cosine_and_the_lengths_they_were_asked_for():
    gramian = similar_tasks.unrelated_gramian(4, ratio=9.0, cosine=0.3)
    lengths = np.sqrt(gramian.diagonal())
    assert lengths.max() / lengths.min() == pytest.approx(9)
    assert pairwise_cosine(gramian) == pytest.approx(0.3)
    assert np.linalg.eigvalsh(gramian).min() > 0
    with pytest.raises(ValueError, match="cannot all have cosine"):
        similar_tasks.unrelated_gramian(4, 1.0, -0.5)


def test_the_three_values_of_the_paper_are_what_unrelated_tasks_can_have():
    """0.7 for two tasks, 0.45 for three, 0.3 for eleven: with pairwise cosine 0 and lengths at most 11 : 1."""
    for name, num_tasks in [("cosine_high", 2), ("cosine_middle", 3), ("cosine_low", 11)]:
        values = [
            cosine_to_mean(similar_tasks.unrelated_gramian(num_tasks, ratio)) for ratio in np.geomspace(1, 11, 50)
        ]
        assert min(values) <= published.text(name).value <= max(values) + 0.003


def test_the_gap_of_a_problem_is_that_of_one_method_at_one_rate(two_problems, experiment):
    """One number per problem; a problem whose two rates were never made one is named and left out."""
    runs, table = two_problems
    more, digits = experiment(CL_RR, {smto: (row.CL, row.RR) for smto, row in TABLE_3.iterrows()})
    table.loc[(table.problem == RL_RR) & (table.smto == "imtl"), "delta_m"] = math.nan
    found = similar_tasks.ranking(alignment.per_run([*runs, *more]), pd.concat([table, digits]))
    assert list(found.index) == ["CL_CR", "CL_RR", "rank correlation with the gap"]
    assert found.gap["CL_RR"] == pytest.approx(comparisons.paired(digits)["mean"]["imtl"])
    assert math.isnan(found["1/√K"].iloc[-1])  # two problems with two tasks each
    assert "No runs at one rate: RL_RR." in found.attrs["caption"]


def test_equivalence_tells_small_differences_from_unknown_ones(make_run):
    """By hand, margin 2: within, different but within, beyond, too noisy to tell, and on both sides of the margin; one
    seed never tells."""
    gains = {
        "unit_scal": [0.0, 0.0, 0.0],
        "cagrad": [0.1, -0.1, 0.0],
        "edm": [1.0, 1.1, 0.9],
        "famo": [5.0, 5.1, 4.9],
        "imtl": [-6.0, 7.0, 1.0],
        "nash_mtl": [2.0, 3.0, 2.5],
    }
    rows = [
        {"problem": problem, "smto": smto, "seed": seed, "delta_m": gain, "diverged": False}
        for problem in (RL_RR, CL_CR)
        for smto, values in gains.items()
        for seed, gain in enumerate(values)
    ]
    found = similar_tasks.equivalence(pd.DataFrame(rows), margin=2)
    assert list(found.problem) == ["CL_CR"] * 5 + ["RL_RR"] * 5
    different = [f"different{how}" for how in (", by less than 2", ", by more than 2", "")]
    assert list(found.reading[:5]) == ["equal within ±2", *different[:2], "cannot tell", different[2]]
    assert (found.p[:2] < 0.025).all() and (found.p[2:5] > 0.025).all()
    below = pd.DataFrame(rows).assign(delta_m=lambda table: -table.delta_m)
    assert list(similar_tasks.equivalence(below, margin=2).reading) == list(found.reading)
    alone = similar_tasks.equivalence(pd.DataFrame([row for row in rows if row["seed"] == 0]), margin=2)
    assert set(alone.reading) == {"cannot tell"} and set(alone["95 % interval"]) == {"–"}


def test_equivalence_is_read_at_one_rate_too():
    """EDM is 3 better with its own rate; at one rate nothing is left of it. Of FAMO there are no runs at one rate."""
    gains = {"unit_scal": [0.0, 0.0, 0.0], "edm": [3.0, 3.1, 2.9], "famo": [1.0, 1.1, 0.9]}
    table = pd.DataFrame(
        [
            {"problem": CL_CR, "smto": smto, "seed": seed, "delta_m": gain, "diverged": False}
            for smto, values in gains.items()
            for seed, gain in enumerate(values)
        ]
    )
    moved = table.smto.map({"unit_scal": 0.0, "edm": -3.0, "famo": math.nan})
    found = similar_tasks.equivalence(table, 2, table.assign(delta_m=table.delta_m + moved)).set_index("method")
    assert found.loc["EDM", ["reading", "reading at one rate"]].tolist() == [
        "different, by more than 2",
        "equal within ±2",
    ]
    assert found.loc["FAMO", ["seeds at one rate", "reading at one rate"]].tolist() == [0, "no runs"]
    assert "reading at one rate" not in similar_tasks.equivalence(table, 2)


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
    found = similar_tasks.ranking(per_run, selected, "edm")
    assert list(found.index[:-1]) == ["CL_CR", "3", "molecules"]
    assert found["1/√K"].iloc[:-1].tolist() == pytest.approx([k**-0.5 for k in tasks.values()])
    assert found.gap.iloc[:-1].tolist() == [2, 3, 11]
    assert found.iloc[-1][["C", "1/√K"]].tolist() == pytest.approx([-1, -1])
    assert math.isnan(found.iloc[-1]["pairwise cosine"])
