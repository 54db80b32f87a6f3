import math

import numpy as np
import pandas as pd
import pytest
import torch

from mtl_core import problems
from mtl_core.datasets.qm9 import PROPERTIES, scales
from mtl_core.molecules import Group, Molecules
from mtl_core.smtos.imtl import released_system, transposed
from mtl_core.smtos.solvers import equal_projections
from mtl_study import artifacts
from mtl_study.analysis import delta, rankings
from mtl_study.experiments import protocol
from mtl_study.experiments.runs import Gradients
from mtl_study.look import label
from mtl_study.paper import claims, published
from mtl_study.plots import canvas, qm9

TASKS = problems.get("qm9").tasks
SEVEN = list(published.table("table_1").index)


class Targets:
    """As much of a split as the functions on targets look at."""

    def __init__(self, targets, atoms=None):
        self.targets = torch.as_tensor(targets, dtype=torch.float64)
        self.atoms = atoms

    def __len__(self):
        return len(self.targets)


def errors(gain):
    """Errors of all properties that are `gain` percent better than 2 units each."""
    return {key: {"mae": 2 * (1 - gain / 100)} for key in PROPERTIES}


@pytest.fixture
def alone(make_run):
    return [make_run([{key: {"mae": 2.0}}], problem=f"qm9/{key}", batch_size=60) for key in PROPERTIES]


@pytest.fixture
def selected(make_run, alone):
    """Three seeds of the seven methods; the gain on a property is the method's own, minus 10 for every later one."""
    runs = [
        make_run(
            [{key: {"mae": 2 * (1 + (m + seed / 10 + 10 * k) / 100)} for k, key in enumerate(PROPERTIES)}],
            problem="qm9",
            smto=smto,
            seed=seed,
        )
        for m, smto in enumerate(SEVEN)
        for seed in (1, 2, 3)
    ]
    return delta.selected(runs, delta.single_task_baselines(alone, TASKS), TASKS)


# -- the data ----------------------------------------------------------------------------------------------------------


def water():
    """H₂O as the dataset hands it over."""
    places = np.array([[0.0, 0.0], [0.76, 0.59], [-0.76, 0.59]])
    distances = np.linalg.norm(places[:, None] - places, axis=-1)
    edges = torch.zeros(1, 3, 3, 5)
    edges[0, 0, 1:, 0] = edges[0, 1:, 0, 0] = 1
    edges[0, ..., 4] = torch.from_numpy(distances)
    nodes = torch.zeros(1, 3, 11)
    nodes[0, :, 5] = torch.tensor([8.0, 1.0, 1.0])
    return Molecules([Group(torch.tensor([0]), nodes, edges)], 1), distances


def test_a_flat_molecule_is_laid_out_with_its_own_distances():
    batch, distances = water()
    at = qm9.flat(distances)
    np.testing.assert_allclose(np.linalg.norm(at[:, None] - at, axis=-1), distances, atol=1e-7)
    axes = qm9.molecules(batch)
    assert [ax.get_title() for ax in axes] == ["H₂O"] and axes[0].get_adjustable() == "datalim"
    assert len(axes[0].lines) == 2 and [text.get_text() for text in axes[0].texts] == ["O"]


def test_formulas():
    assert qm9.formula([6, 6, 8, 1, 1, 1, 1]) == "C₂H₄O"
    assert qm9.formula([7, 1, 1, 1]) == "H₃N"
    assert qm9.formula([6] * 2 + [1] * 10 + [9]) == "C₂H₁₀F"


def test_targets_come_back_in_their_units():
    """A normalised target of 0 is the mean of all molecules, 1 is a standard deviation more; meV where meV is said."""
    found = qm9.physical(Targets(np.array([np.zeros(11), np.ones(11)])))
    np.testing.assert_allclose(found.homo[0], 1000 * PROPERTIES["homo"].mean)
    np.testing.assert_allclose(found.diff().iloc[1], [scales[key] for key in PROPERTIES])


def test_the_table_of_targets_shows_each_molecules_values():
    batch, _ = water()
    normal, atoms = np.random.default_rng(0).normal(size=(50, 11)), np.arange(3, 53)
    normal[:, 1], normal[:, 2] = 0.1 * atoms, -0.1 * atoms
    found = qm9.table_of_targets(batch, [torch.zeros(1, 1)] * 11, Targets(normal, atoms))
    assert list(found.index) == list(qm9.SIGNS.values())
    assert found.loc["μ", "H₂O"] == f"{PROPERTIES['mu'].mean:.2f}"
    assert found["r with atoms"].tolist()[1:3] == pytest.approx([1, -1])
    assert found["r with atoms"].drop(["α", "HOMO"]).abs().max() < 0.5


def test_the_mean_predictor_answers_with_the_mean_of_the_training_set():
    train, test = Targets([[0.0] * 11, [2.0] * 11]), Targets([[1.0] * 11, [4.0] * 11])
    found = qm9.mean_predictor(train, test)
    np.testing.assert_allclose(found, [1.5 * scales[key] for key in PROPERTIES])


def test_correlated_targets_are_seen():
    normal = np.random.default_rng(0).normal(size=(200, 11))
    normal[:, 1] = -normal[:, 0]
    ax = qm9.correlations(Targets(normal))
    assert ax.images[0].get_array()[0, 1] == pytest.approx(-1)


# -- errors, Tables 1 and 5 --------------------------------------------------------------------------------------------


def test_an_error_is_the_gain_undone(selected, alone):
    reference = delta.single_task_baselines(alone, TASKS)
    found = qm9.errors(selected, reference)
    row = found[(found.smto == SEVEN[2]) & (found.seed == 1)].iloc[0]
    assert row.mu == pytest.approx(2 * 1.021) and row.Cv == pytest.approx(2 * 2.021)
    mean = pd.Series(4.0, index=list(PROPERTIES))
    table = qm9.table_of_errors(selected, reference, mean)
    assert table.loc["μ", "Unit. Scal."] == pytest.approx(2 * 1.002)
    assert (table["single task"] == 2).all() and (table["mean predictor"] == 4).all()


def test_per_property_draws_a_bar_per_method_and_names_the_gain(selected, alone):
    axes = qm9.per_property(selected, delta.single_task_baselines(alone, TASKS), pd.Series(2.5, index=list(PROPERTIES)))
    assert [len(ax.patches) for ax in axes.flat] == [7] * 11 + [0]
    assert axes[0, 0].texts[0].get_text() == "0 %" and axes[2, 2].texts[0].get_text() == "−100 %"
    assert axes[0, 0].get_title(loc="left") == "μ in D"


def test_error_over_the_mean_predictors(make_run):
    runs = [make_run([errors(0), errors(50)], problem="qm9"), make_run([{"mu": {"mae": 3.0}}], problem="qm9/mu")]
    found = qm9.against_mean(runs, pd.Series(4.0, index=list(PROPERTIES)))
    assert found.error.tolist() == pytest.approx([0.5, 0.25, 0.75])
    ax = qm9.learning(runs[:1], runs[1:], pd.Series(4.0, index=list(PROPERTIES)))
    assert ax.get_legend().get_texts()[-1].get_text() == "single-task models"
    of_method, alone = ax.lines[:2]
    assert of_method.get_xydata() == pytest.approx(np.array([[1, 0.5], [2, 0.25]]))
    assert alone.get_xydata() == pytest.approx(np.array([[1, 0.75]]))


def test_table_1_stands_beside_the_papers_and_ranks_the_papers_methods_only(selected):
    other = selected[selected.smto == "edm"].assign(smto="imtl")
    found = qm9.table_1(pd.concat([selected, other]), TASKS)
    assert len(found) == 7 and found.loc["Nash-MTL", "paper Δm"] == -53.62
    assert found.MR.tolist() == [1, 2, 3, 4, 5, 6, 7]  # each method is better on every property than the next
    assert found.loc["Unit. Scal.", "Δm"] == pytest.approx(-50.2)


def test_table_5_has_both_variants(selected):
    """Gains 0, −10, …, −100: the average is their median, so as a twelfth value it moves only the deviation (D32)."""
    row = qm9.table_5(selected, TASKS).loc["Unit. Scal."]
    assert row["median"] == pytest.approx(-50.2) == row["median of 12"]
    assert row["std"] == pytest.approx(np.std(np.arange(0, 101, 10)))
    assert row["std of 12"] == pytest.approx(np.std([*np.arange(0, 101, 10), 50]))
    assert row["paper std"] == 229.4


def test_statistics_per_run_agree_with_those_per_method(selected):
    found = rankings.over_tasks(selected, TASKS)
    per_method = rankings.task_statistics(selected, TASKS)
    of_seed = found.groupby("smto", sort=False)[["min", "std", "mr"]].mean()
    np.testing.assert_allclose(of_seed["min"], per_method["min"])
    np.testing.assert_allclose(of_seed["std"], per_method["std"])
    np.testing.assert_allclose(of_seed.mr, rankings.mean_rank(selected, TASKS))


def test_a_method_that_diverged_with_every_setting_keeps_its_rows(make_run, alone):
    """It is a result, and must not end a search; the setting with most seeds that have a value is shown."""
    fine = [make_run([errors(1)], problem="qm9", smto="imtl", seed=1, lr=0.1)]
    settings = ((2, 0.1), (1, 0.2), (2, 0.2))
    lost = [make_run([errors(1)], problem="qm9", smto="imtl", seed=seed, lr=lr) for seed, lr in settings]
    for run in lost:
        run.history, run.ended = [], "diverged at epoch 0, step 3"
    table = delta.selected([*fine, *lost], delta.single_task_baselines(alone, TASKS), TASKS)
    kept = delta.best_configurations(table)
    assert kept.seed.tolist() == [1, 2] and kept.delta_m.isna().tolist() == [False, True]


# -- IMTL and RotoGrad -------------------------------------------------------------------------------------------------


def test_the_rotation_loss_in_units_of_the_gradients(make_run):
    """Twice the batch makes gradients per sample half as long and the loss a quarter; the ratio stays."""
    runs = []
    for seed, batch in ((1, 50), (2, 100)):
        norms = [math.sqrt(1 / batch)] * 11  # of 11 tasks; |G|² falls with 1/B
        lie = Gradients(cosine_to_mean=0.3, pairwise_cosine=0.0, norms=norms, norm_ratio=1.0)
        loss = [{"rotation_loss": 0.8 / batch**2}] * 2
        runs.append(
            make_run(
                [errors(0)] * 2, problem="qm9", smto="rotograd", seed=seed, batch_size=batch,
                gradients={"features": lie}, diagnostics=loss,
            )
        )  # fmt: skip
    found = qm9.rotation_losses(runs)
    assert found.groupby("seed").rotation_loss.mean().tolist() == pytest.approx([0.8 / 50**2, 0.8 / 100**2])
    assert found.relative.tolist() == pytest.approx([0.8] * 4)
    axes = qm9.figure_9(found, {name: 8 for name in found.problem.unique()})
    assert axes[0].get_yscale() == "log" and len(axes[1].lines) == 2
    assert [ax.get_title(loc="left") for ax in axes] == ["rotation loss", "over the squared length of the gradients"]
    drawn = [ax.lines[0].get_ydata()[0] for ax in axes]
    assert drawn == pytest.approx([found.rotation_loss.mean(), 0.8])


@pytest.fixture
def fine(make_run):
    """A run of IMTL that ended well: |α| is 2^e at its peak and half of that on average."""
    course = [{"peak_alpha": 2.0**e, "largest_alpha": 2.0**e / 2, "log10_condition_of_M": float(e)} for e in range(3)]
    return make_run([errors(0)] * 3, problem="qm9", smto="imtl", seed=1, diagnostics=course)


@pytest.fixture
def lost(make_run):
    """One that diverged in its third epoch, at the eighth step of ten, and grew in the three steps before."""
    course = [{"peak_alpha": 2.0**e, "largest_alpha": 2.0**e / 2, "log10_condition_of_M": float(e)} for e in range(2)]
    run = make_run(
        [errors(0)] * 2, problem="qm9", smto="imtl", seed=2, diagnostics=course, ended="diverged at epoch 2, step 7",
        train_size=600, val_size=60, test_size=60, batch_size=60,
    )  # fmt: skip
    run.before_divergence = {
        "peak_alpha": [50.0, 700.0, None],
        "log10_condition_of_M": [3.0, 5.0, 4.0],
        "largest_scale": [2.0, 3.0],
    }
    return run


def test_the_course_of_imtl_has_its_epochs_and_the_last_steps_before_a_divergence(fine, lost):
    course = qm9.imtl_course([fine, lost])
    assert course.epochs.tolist() == pytest.approx([1, 2, 3, 1, 2, 2.5, 2.6, 2.7])
    assert course.last_steps.tolist() == [False] * 5 + [True] * 3
    np.testing.assert_allclose(course.peak, [1, 2, 4, 1, 2, 50, 700, np.nan])
    np.testing.assert_allclose(course.condition, [0, 1, 2, 0, 1, 3, 5, 4])
    np.testing.assert_allclose(course.scale[5:], [np.nan, 2, 3])  # the last is the last of all


def test_a_run_that_diverged_ends_with_a_cross(fine, lost):
    axes = qm9.imtl({"one": [fine], "other": [lost]})
    assert [line.get_marker() for line in axes[1].lines] == ["o", "s", "X"]
    condition, peak, _ = ([(line.get_xdata()[-1], line.get_ydata()[-1]) for line in ax.lines] for ax in axes)
    assert condition[1] == condition[2] == pytest.approx((2.7, 1e4))
    assert peak[1] == peak[2] == pytest.approx((2.6, 700))  # the step after has no finite value
    assert axes[1].lines[1].get_markevery() == [0, 1]  # markers are epochs
    caption = canvas.figure_of(axes).get_label()
    assert "the largest |α| in any step" in caption


def test_the_table_of_imtl_counts_the_last_steps(fine, lost):
    table = qm9.imtl_table({"one": [fine], "other": [lost]})
    assert table["largest |α|"].tolist() == [4.0, 700.0]
    np.testing.assert_allclose(table["condition number of M"], [100, 1e5])
    assert table.loc["other", "where"] == "seed 2: epoch 3, step 8" and table.loc["one", "where"] == "–"
    lost.before_divergence = {}
    assert qm9.imtl_table({"other": [lost]})["largest |α|"].item() == 2.0
    lost.history = []  # in its first step
    qm9.imtl({"other": [lost]})
    assert np.isnan(qm9.imtl_table({"other": [lost]})["largest |α|"].item())


def test_a_mean_does_not_stand_for_a_peak(fine):
    """Records from before peaks were kept have no largest |α|."""
    for epoch in fine.history:
        del epoch.diagnostics["peak_alpha"]
    assert np.isnan(qm9.imtl_table({"one": [fine]})["largest |α|"].item())
    qm9.imtl({"one": [fine]})


def test_runs_of_the_transposed_form_have_a_name_of_their_own(fine):
    (renamed,) = qm9.as_transposed([fine])
    assert (renamed.config.smto, fine.config.smto) == ("imtl_transposed", "imtl")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("num_tasks", [3, 11])
def test_the_correct_form_by_its_closed_form(num_tasks, seed):
    """Mᵀ α_{2…K} = r gives what C y = 1 gives; so both forms have one condition number, that of M."""
    gramian = qm9.collinear(num_tasks, 2, 0.5, seed)
    matrix, right = released_system(gramian)
    found = np.linalg.solve(matrix.T, right)
    np.testing.assert_allclose(found, equal_projections(gramian).weights[1:], atol=1e-3)
    np.testing.assert_allclose(qm9.both_forms(gramian)["condition"], np.linalg.cond(matrix.T))


@pytest.mark.parametrize("seed", range(5))
def test_only_the_correct_form_gives_equal_projections(seed):
    """On eleven gradients, four of them 2° apart; the transposed form has the larger weights as well."""
    found = qm9.both_forms(qm9.collinear(11, 4, math.cos(math.radians(2)), seed))
    assert found["correct: unequal"] < 1e-10 and found["transposed: unequal"] > 0.1
    assert found["transposed: largest |α|"] > 10 * found["correct: largest |α|"]


@pytest.mark.parametrize("seed", range(5))
def test_two_tasks_have_one_form(seed):
    gramian = qm9.collinear(2, 0, 0.0, seed)
    np.testing.assert_allclose(transposed(gramian), equal_projections(gramian).weights, atol=1e-4)


def test_collinear_gradients_have_the_angle_asked_for():
    found = np.mean([np.mean(_cosines(qm9.collinear(11, 4, 0.9, s))[np.triu_indices(4, 1)]) for s in range(40)])
    assert found == pytest.approx(0.9, abs=0.02)


def _cosines(gramian):
    lengths = np.sqrt(gramian.diagonal())
    return (gramian / np.outer(lengths, lengths))[:4, :4]


def test_schedules_are_drawn_relative_to_their_start(make_run):
    runs = [make_run([errors(0)] * 2, problem="qm9", seed=s) for s in (1, 2)]
    runs[1].history[1].lr = 0.0007
    ax = qm9.schedules({"watching the last batch": runs[:1], "watching validation": runs[1:]})
    assert [line.get_ydata()[1] / line.get_ydata()[0] for line in ax.lines] == pytest.approx([1, 0.7])


def test_stored_runs_come_once_although_single_tasks_lie_below_their_problem():
    for name in ("qm9", "cityscapes/19C"):
        found = protocol.stored(name, ["rotograd"], artifacts.REPOSITORY / "results")
        assert found is not None
        keys = [run.config.key for run in [*found.runs, *found.baselines]]
        assert len(set(keys)) == len(keys)
        assert {run.config.problem for run in found.baselines} == set(found.problem.single_tasks)


# -- claims ------------------------------------------------------------------------------------------------------------


def test_the_papers_own_tables_reproduce_c7():
    decided = [part for part in claims.parts("C7") if part.paper.table]
    assert len(decided) == 6
    assert {claims.on_paper(part).verdict for part in decided} == {claims.REPRODUCED}


@pytest.mark.parametrize(
    ("transposed", "correct", "matrix", "scales"),
    [
        (1, 0, claims.REPRODUCED, claims.NOT_REPRODUCED),  # only the released form overflows
        (1, 1, claims.NOT_REPRODUCED, claims.REPRODUCED),  # both do: not the matrix
        (0, 1, claims.NOT_REPRODUCED, claims.REPRODUCED),
        (0, 0, claims.NOT_REPRODUCED, claims.NOT_REPRODUCED),
    ],
)
def test_the_two_suspects_of_imtl_are_judged(transposed, correct, matrix, scales):
    runs = [("imtl_transposed", transposed), ("imtl", correct)]
    evidence = pd.DataFrame(
        [
            {"problem": "qm9", "smto": smto, "seed": seed, "diverged": float(diverged)}
            for smto, diverged in runs
            for seed in range(1, 7)
        ]
    )
    of_matrix, of_scales = (part for part in claims.parts("C7") if part.where.startswith("our test"))
    assert claims.find(of_matrix, evidence).verdict == matrix
    assert claims.find(of_scales, evidence).verdict == scales
    assert claims.find(of_matrix, evidence[evidence.seed < 6]).verdict == claims.OPEN  # five, all alike, are too few
    assert of_matrix.needs.presets == of_scales.needs.presets == ["paper"]


def rotation(factor, seeds=3):
    losses = {"multimnist/CL_RR": 1.0, "qm9": factor}
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {"problem": problem, "smto": "rotograd", "seed": seed, "relative": 1.0}
            | {"rotation_loss": loss * 10 ** rng.normal(0, 0.02)}
            for problem, loss in losses.items()
            for seed in range(1, seeds + 1)
        ]
    )


@pytest.mark.parametrize(("factor", "verdict"), [(50, claims.REPRODUCED), (3, claims.NOT_REPRODUCED)])
def test_c11_is_about_a_factor_of_ten(factor, verdict):
    found = claims.judge("C11", rotation(factor), preset="quick", notebook="04_qm9")
    assert found[0].verdict == verdict
    assert found[1].verdict == claims.BARRED  # nothing of Cityscapes is there
    assert found[2].verdict == claims.NOT_REPRODUCED  # in units of the gradients there is no difference


@pytest.mark.parametrize(
    ("preset", "source", "verdict"),
    [
        ("paper", "full", claims.REPRODUCED),
        ("paper", "embedded", claims.BARRED),
        ("quick", "full", claims.BARRED),
    ],
)
def test_synthetic_streets_do_not_decide_c11s_part_on_cityscapes(preset, source, verdict):
    table = rotation(50)
    table["problem"] = table.problem.replace("multimnist/CL_RR", "cityscapes/19C")
    assert claims.decide("C11", table, preset=preset, source=source)[1].verdict == verdict
    on_digits = claims.decide("C11", rotation(50), preset=preset, source=source)[0]
    assert on_digits.verdict == claims.REPRODUCED  # whatever Cityscapes rests on


def test_imtls_forms_are_drawn_by_their_median_and_quartiles_over_draws():
    axes = qm9.forms_by_cosine(draws=4)
    found = [qm9.both_forms(qm9.collinear(11, 4, math.cos(math.radians(90)), draw)) for draw in range(4)]
    for ax, column in zip(axes, ("largest |α|", "unequal"), strict=True):
        assert [line.get_label() for line in ax.lines] == [label("imtl"), label("imtl_transposed")]
        for form, line, band in zip(("correct", "transposed"), ax.lines, ax.collections, strict=True):
            low, middle, high = np.percentile([one[f"{form}: {column}"] for one in found], [25, 50, 75])
            corners = band.get_paths()[0].vertices
            heights = corners[np.isclose(corners[:, 0], 90), 1]
            assert line.get_ydata()[np.isclose(line.get_xdata(), 90)] == pytest.approx([middle])
            assert (heights.min(), heights.max()) == pytest.approx((low, high))


def test_every_figure_says_what_it_shows(selected):
    for axes in (qm9.forms_by_cosine(draws=3), qm9.molecules(water()[0])):
        assert len(canvas.figure_of(axes).get_label()) > 50
