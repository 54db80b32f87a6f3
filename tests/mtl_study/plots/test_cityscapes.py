"""Figures and tables of the Cityscapes ladder contain what their captions say."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgb
from scipy import stats

from mtl_core import problems
from mtl_study import look
from mtl_study.analysis import inference
from mtl_study.parameters import schemas
from mtl_study.plots import canvas, captions, cityscapes, selection
from mtl_study.plots.cityscapes import CORNERS, STEPS

LAST = "cityscapes/19C"
GAPS = {"tasks": 3.0, "classes": -1.0, "resolution": 0.5}  # what each change adds to the gap, by construction


def rows(names, lead, seeds=3):
    """Rows as of `delta.selected`: the uniform loss differs by seed and problem, IMTL leads it by `lead(problem)`."""
    rng, found = np.random.default_rng(0), []
    for name, seed in itertools.product(names, range(1, seeds + 1)):
        uniform = rng.normal(-5, 2)
        for smto, gain in (("unit_scal", uniform), ("imtl", uniform + lead(name))):
            found.append(
                {
                    "problem": name,
                    "smto": smto,
                    "config": json.dumps({"lr": 0.001}),
                    "seed": seed,
                    "delta_m": gain,
                    "diverged": False,
                    "machine": "cpu, AVX2",
                }
            )
    return pd.DataFrame(found)


def in_corner(name):
    corner = CORNERS[name]._asdict()
    return 1 + sum(effect * corner[factor] for factor, effect in GAPS.items())


# -- the scenes --------------------------------------------------------------------------------------------------------


def test_scenes_show_every_map_of_every_scene():
    """A grey picture, class 0 with an ignored pixel, a pixel without disparity, a pixel that is the middle itself."""
    classes = torch.zeros(2, 4, 8, dtype=torch.int64)
    classes[0, 0, 0] = -1
    depth, offsets = torch.ones(2, 1, 4, 8), torch.zeros(2, 3, 4, 8)
    depth[0, 0, 1, 1] = 0
    offsets[:, :, 2, 3] = torch.tensor([2.0, 0.0, 1.0])  # two rows below the middle
    axes = cityscapes.scenes({"picture": torch.zeros(2, 3, 4, 8), "S": classes}, depth, offsets)
    assert axes.shape == (2, 4)
    assert [ax.get_title() for ax in axes[0]] == ["picture", "S", "D: disparity", "I: way to the middle"]
    picture, labels, disparity, ways = (np.asarray(ax.get_images()[0].get_array()) for ax in axes[0])
    assert picture == pytest.approx(np.broadcast_to(cityscapes.MEAN, (4, 8, 3)))  # 0 is ImageNet's mean colour
    assert labels[0, 0] == pytest.approx([1, 1, 1]) and labels[1, 1] == pytest.approx(cityscapes.COLOURS[0])
    assert disparity[1, 1, :3] == pytest.approx([1, 1, 1])
    assert ways[0, 0] == pytest.approx([cityscapes.NO_OBJECT] * 3) and len({*ways[2, 3]}) > 1  # grey, and a hue


def test_the_legend_of_the_scenes_has_the_classes_that_occur_in_them():
    """Of the 19: sky and car; of the 7 categories: the same, and a pixel that is ignored."""
    of_19, of_7 = torch.full((1, 4, 8), 10), torch.full((1, 4, 8), 4)
    of_19[0, 3], of_7[0, 3], of_7[0, 0, 0] = 13, 6, -1
    depth, offsets = torch.ones(1, 1, 4, 8), torch.zeros(1, 3, 4, 8)
    axes = cityscapes.scenes({"S: 7": of_7, "S: 19": of_19, "picture": torch.zeros(1, 3, 4, 8)}, depth, offsets)
    (legend,) = canvas.figure_of(axes).legends
    assert [t.get_text() for t in legend.get_texts()] == ["S: 7", "sky", "vehicle", "S: 19", "sky", "car"]
    shown = np.asarray(axes[0, 1].get_images()[0].get_array())
    assert legend.legend_handles[-1].get_facecolor()[:3] == pytest.approx(tuple(shown[3, 0]))


def test_opposite_ways_have_opposite_hues():
    from matplotlib.colors import rgb_to_hsv

    offsets = torch.zeros(1, 3, 1, 2)
    offsets[0, :, 0] = torch.tensor([[3.0, -3.0], [0.0, 0.0], [1.0, 1.0]])  # below and above the middle
    hues = rgb_to_hsv(cityscapes._directions(offsets.numpy()))[0, 0, :, 0]
    assert abs(hues[0] - hues[1]) == pytest.approx(0.5)


def test_every_class_has_its_own_colour():
    assert len({tuple(colour) for colour in cityscapes.COLOURS}) == 19
    assert len({tuple(colour) for colour in cityscapes.COLOURS_7}) == 7


def test_the_table_of_steps_is_read_off_the_problems():
    table = cityscapes.table_of_steps(list(STEPS), width=64, slim=16, pretrained=True)
    assert list(table.index) == list(STEPS.values())
    assert list(table.picture) == ["64 × 32"] * 3 + ["128 × 64"] * 2
    assert list(table["map of features"]) == ["8 × 4"] * 3 + ["16 × 8"] * 2
    assert list(table["dilations at work"]) == ["none"] * 3 + ["12"] * 2
    assert list(table.tasks) == ["S D"] * 2 + ["S D I"] * 3 and list(table.classes) == [7, 7, 7, 7, 19]
    model = problems.get("cityscapes/R50", width=64, slim=16).build_model(0.0)
    assert table["weights of the encoder"].iloc[0] == f"{sum(p.numel() for p in model.encoder.parameters()):,}"


@pytest.mark.parametrize("name", ["cityscapes/R18", "cityscapes/HR"])
@pytest.mark.parametrize("width", [32, 64, 128, 256])
def test_where_a_dilation_is_not_at_work_its_outer_taps_change_nothing(name, width):
    problem = problems.get(name, width=width, slim=32)
    z = torch.rand(1, 1, *problem.feature_shape[1:], dtype=torch.float64)
    whole, middle = torch.rand(2, 1, 1, 3, 3, dtype=torch.float64)
    middle[:] = 0
    middle[..., 1, 1] = whole[..., 1, 1]
    at_work = [d for d in (12, 24, 36) if not torch.equal(*(dilated(z, weight, d) for weight in (whole, middle)))]
    assert cityscapes.dilations_at_work(problem) == at_work


def dilated(z, weight, dilation):
    return torch.nn.functional.conv2d(z, weight, padding=dilation, dilation=dilation)


# -- the ladder --------------------------------------------------------------------------------------------------------


def test_gaps_compare_runs_of_the_same_problem_and_seed():
    table = cityscapes.gaps(rows(CORNERS, in_corner))
    assert (table[table.smto == "unit_scal"].gap == 0).all()
    imtl = table[table.smto == "imtl"]
    assert imtl.gap.tolist() == pytest.approx([in_corner(name) for name in imtl.problem])


def test_a_run_without_its_partner_has_no_gap():
    table = rows([LAST], lambda name: 1.0)
    table = table[~((table.smto == "unit_scal") & (table.seed == 2))]
    gap = cityscapes.gaps(table).query("smto == 'imtl'").set_index("seed").gap
    assert np.isnan(gap[2]) and gap[1] == pytest.approx(1.0)


def test_the_ladder_has_both_methods_above_and_their_difference_below():
    table = rows(STEPS, lambda name: 2.0 * list(STEPS).index(name))
    above, below = cityscapes.ladder(table)
    assert [t.get_text() for t in below.get_xticklabels()] == list(STEPS.values())
    means = table.groupby(["smto", "problem"]).delta_m.mean()
    for smto in ("unit_scal", "imtl"):
        (line,) = (one for one in above.lines if one.get_label() == look.label(smto))
        assert list(line.get_ydata()) == pytest.approx([means[smto, step] for step in STEPS])
    (line,) = (one for one in below.lines if one.get_label() == look.label("imtl"))
    assert list(line.get_ydata()) == pytest.approx([0, 2, 4, 6, 8])
    assert look.label("unit_scal") not in [one.get_label() for one in below.lines]
    zeros = [[one for one in ax.lines if list(one.get_ydata()) == [0, 0]] for ax in (above, below)]
    assert [(to_rgb(one.get_color()), one.is_dashed()) for (one,) in zeros] == [
        (to_rgb(look.GREY), False),  # single-task models
        (to_rgb(look.INK), True),  # the uniform loss
    ]
    sd = table[table.smto == "imtl"].groupby("problem").delta_m.std(ddof=1)
    band = next(c for c in above.collections if tuple(c.get_facecolor()[0][:3]) == to_rgb(look.LOOK["imtl"].colour))
    top = band.get_paths()[0].vertices[:, 1].max()
    assert top == pytest.approx(max(means["imtl", step] + sd[step] for step in STEPS))
    assert [entry.get_text() for entry in above.get_legend().get_texts()] == ["Unit. Scal.", "IMTL"]
    text = canvas.figure_of(above).get_label()
    assert "3 seeds" in text and "bands for all lines alike (D31)" in text


def test_the_ladder_says_where_a_gap_is_not_of_the_methods_alone():
    table = rows(STEPS, lambda name: 1.0)
    assert cityscapes.unequal_rates(table) == {}
    assert "learning rates" not in canvas.figure_of(cityscapes.ladder(table)).get_label()
    table.loc[(table.smto == "imtl") & (table.problem == "cityscapes/R18"), "config"] = json.dumps({"lr": 0.0005})
    assert cityscapes.unequal_rates(table) == {"cityscapes/R18": "Unit. Scal.: 0.001, IMTL: 0.0005"}
    text = canvas.figure_of(cityscapes.ladder(table)).get_label()
    assert "The learning rates differ on R18 (Unit. Scal.: 0.001, IMTL: 0.0005): a gap there" in text


def test_the_transposed_form_is_drawn_from_where_it_has_runs():
    table = rows(STEPS, lambda name: 1.0)
    third = table[(table.smto == "imtl") & table.problem.isin(list(STEPS)[2:])].assign(smto="imtl_transposed")
    axes = cityscapes.ladder(pd.concat([table, third]))
    for ax in axes:
        (line,) = (one for one in ax.lines if one.get_label() == "IMTL, transposed")
        assert line.get_xdata().tolist() == [2, 3, 4] and np.isfinite(line.get_ydata()).all()
    assert "With two tasks the two forms of IMTL are one (D24)." in canvas.figure_of(axes).get_label()


def test_tables_4_and_9_stand_beside_the_papers():
    table = rows([LAST], lambda name: 5.0)
    table[["S/acc", "S/mIoU", "D/l1_abs", "D/l1_rel", "I/l1_abs"]] = 1.0
    found = selection.table_3(table, "table_4", spread=["delta_m"])
    assert (found.loc["IMTL", "paper Δm"], found.loc["IMTL", "paper S/mIoU"]) == (0.570, -2.759)
    assert "± Δm" in found and "± S/mIoU" not in found
    assert "D24" not in found.attrs["caption"]
    both = pd.concat([table, table[table.smto == "imtl"].assign(smto="imtl_transposed")])
    found = selection.table_3(both, "table_4")
    assert found.loc["IMTL, transposed", "paper Δm"] == found.loc["IMTL", "paper Δm"] == 0.570
    assert "The paper ran IMTL transposed (D24); its numbers are in both rows." in found.attrs["caption"]
    settings = [
        {
            "smto": "single_task",
            "task": "D",
            "lr": 0.0005,
            "weight_decay": 0.0001,
            "options": {},
            "chosen": "published",
        },
        {
            "smto": "cagrad",
            "task": "",
            "lr": 0.001,
            "weight_decay": 0.0001,
            "options": {"c": 0.2},
            "chosen": "published",
        },
    ]
    found = selection.table_of_settings(pd.DataFrame(settings).assign(dropout=0.0), LAST)
    assert found["paper's choice"].tolist() == [
        "0.001, 0, wd 0.0001; 0.0005, 0, wd 0.0001",
        "0.001, 0, wd 0.0001, c = 0.2",
    ]
    assert "Table 9" in found.attrs["caption"] and "weight decay (wd)" in found.attrs["caption"]


# -- the factorial -----------------------------------------------------------------------------------------------------


def test_the_eight_corners_are_what_their_problems_are():
    for name, corner in CORNERS.items():
        problem = problems.get(name, width=64, slim=16)
        assert (len(problem.tasks) == 3, problem.data.classes == 19, problem.data.width == 128) == corner
    assert len(set(CORNERS.values())) == 8
    assert set(CORNERS) == set(schemas.CORNERS)  # which `make plan` counts


def test_effects_are_what_the_gaps_were_made_of():
    """Additive gaps: every main effect comes back, and no interaction."""
    found = cityscapes.effects(cityscapes.gaps(rows(CORNERS, in_corner)).query("smto == 'imtl'"))
    assert len(found) == 3 and len(found.columns) == 7
    for factor, effect in GAPS.items():
        assert found[factor].tolist() == pytest.approx([effect] * 3)
    assert np.abs(found[[name for name in found if "×" in name]].to_numpy()).max() == pytest.approx(0, abs=1e-12)


def test_an_interaction_is_half_of_what_one_change_does_more_beside_the_other():
    """By hand: a gap of 4 only where the third task and 19 classes meet."""
    lead = {name: 4.0 * (corner.tasks and corner.classes) for name, corner in CORNERS.items()}
    found = cityscapes.effects(cityscapes.gaps(rows(CORNERS, lead.__getitem__, seeds=1)).query("smto == 'imtl'"))
    assert found.iloc[0].round(9).to_dict() == {
        "tasks": 2.0,
        "classes": 2.0,
        "resolution": 0.0,
        "tasks × classes": 2.0,
        "tasks × resolution": 0.0,
        "classes × resolution": 0.0,
        "tasks × classes × resolution": 0.0,
    }


def test_a_seed_without_all_corners_has_no_effects_and_two_methods_are_refused():
    table = cityscapes.gaps(rows(CORNERS, in_corner))
    imtl = table[table.smto == "imtl"]
    assert list(cityscapes.effects(imtl[~((imtl.seed == 2) & (imtl.problem == LAST))]).index) == [1, 3]
    with pytest.raises(ValueError, match="several runs of one corner"):
        cityscapes.effects(table)


def test_the_factorial_draws_eight_corners_and_seven_effects():
    table = cityscapes.gaps(rows(CORNERS, in_corner))
    left, right = cityscapes.factorial(table)
    assert len(left.get_xticks()) == 8
    assert [t.get_text() for t in right.get_yticklabels()][:3] == list(cityscapes.FACTORS.values())
    effects = cityscapes.table_of_effects({"all tasks": cityscapes.effects(table[table.smto == "imtl"])})
    assert effects["all tasks"].iloc[:3].tolist() == pytest.approx(list(GAPS.values()))
    assert "3 seeds" in effects.attrs["caption"]


def test_effects_have_one_error_variance_in_common():
    """By hand, two effects over three seeds: variances 1 and 3 have the mean 2 with 4 degrees of freedom."""
    root = np.sqrt(3)
    found = pd.DataFrame({"tasks": [4.0, 5.0, 6.0], "classes": [-root, 0.0, root]}, index=[1, 2, 3])
    table = cityscapes.effect_intervals(found)
    half = stats.t.ppf(0.975, 4) * np.sqrt(2 / 3)
    assert table["mean"].tolist() == pytest.approx([5, 0])
    assert (table.high - table["mean"]).tolist() == pytest.approx([half, half])
    assert (table["mean"] - table.low).tolist() == pytest.approx([half, half])
    own = [inference.t_interval(found[name]) for name in found]
    assert table[["own_low", "own_high"]].to_numpy() == pytest.approx(np.array([[i.low, i.high] for i in own]))


def test_intervals_with_a_variance_in_common_miss_as_rarely_as_they_promise():
    """Gaps that differ by chance alone, with another mean per seed: every twentieth interval misses zero."""
    rng, missed, worlds = np.random.default_rng(0), 0, 150
    for _ in range(worlds):
        gaps = rng.normal(0, 1, (3, 8)) + rng.normal(0, 5, (3, 1))
        rows = [(name, seed, gaps[seed, i]) for i, name in enumerate(CORNERS) for seed in range(3)]
        table = cityscapes.effect_intervals(cityscapes.effects(pd.DataFrame(rows, columns=["problem", "seed", "gap"])))
        missed += ((table.low > 0) | (table.high < 0)).sum()
    assert abs(missed / (7 * worlds) - 0.05) < 3 * np.sqrt(0.05 * 0.95 / (7 * worlds))


def test_table_and_figure_show_the_same_intervals():
    rng = np.random.default_rng(1)
    table = cityscapes.gaps(rows(CORNERS, lambda name: in_corner(name) + rng.normal()))
    found = cityscapes.effects(table[table.smto == "imtl"])
    intervals = cityscapes.effect_intervals(found)
    _, right = cityscapes.factorial(table)
    drawn = [line.get_xdata() for line in right.lines if len(line.get_xdata()) == 2 and line.get_marker() == "None"]
    shown = cityscapes.table_of_effects({"all": found})
    for i, row in enumerate(intervals.itertuples()):
        assert list(drawn[i]) == pytest.approx([row.low, row.high])
        assert shown["all: 95 % interval"].iloc[i] == captions.interval(row.low, row.high)
        assert shown["all: by itself"].iloc[i] == captions.interval(row.own_low, row.own_high)
    text = shown.attrs["caption"]
    assert "one variance, the mean of the" in text and "(14 degrees of freedom), as if" in text
    assert "Intervals share one error variance (table below)" in canvas.figure_of(right).get_label()


def test_one_seed_has_no_intervals():
    table = cityscapes.gaps(rows(CORNERS, in_corner, seeds=1))
    left, _ = cityscapes.factorial(table)
    assert "With one seed there is no interval." in canvas.figure_of(left).get_label()
    effects = cityscapes.table_of_effects({"all": cityscapes.effects(table[table.smto == "imtl"])})
    assert set(effects["all: 95 % interval"]) == {"–"}


# -- the weights -------------------------------------------------------------------------------------------------------


def test_trajectories_draw_the_normalised_weights_and_their_average(make_run):
    values = {"S": {"acc": 0.5, "mIoU": 0.5}, "D": {"l1_abs": 1.0, "l1_rel": 1.0}, "I": {"l1_abs": 1.0}}
    weights = [[1.0, 2.0, 1.0], [3.0, 2.0, 5.0]]
    made = [make_run([values] * 2, problem=LAST, smto="edm", seed=seed, weights=weights) for seed in (1, 2)]
    axes = cityscapes.trajectories(made)
    assert axes.shape == (1, 2)
    faint, strong = axes[0, 0].lines[:2]
    assert list(faint.get_ydata()) == pytest.approx([0.25, 0.3])
    assert list(strong.get_ydata()) == pytest.approx([0.25, 0.255]) and faint.get_color() is not None
    assert tuple(faint.get_color()) == tuple(strong.get_color())
    assert "after 2 epochs, 90.0 % of it is still the first epoch" in canvas.figure_of(axes).get_label()
    with pytest.raises(ValueError, match="has weights"):
        cityscapes.trajectories([make_run([values], problem=LAST, smto="rotograd", weights=[[None] * 3])])


def test_no_labels_overlap(make_run):
    drawn = [
        cityscapes.ladder(rows(STEPS, lambda name: 1.0)),
        cityscapes.factorial(cityscapes.gaps(rows(CORNERS, in_corner))),
    ]
    for axes in drawn:
        figure = canvas.figure_of(axes)
        figure.draw_without_rendering()
        for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
            boxes = [t.get_window_extent() for t in axis.get_ticklabels() if t.get_visible() and t.get_text()]
            assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))
