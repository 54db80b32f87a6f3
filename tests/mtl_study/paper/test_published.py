import re

import numpy as np
import pytest

from mtl_core import problems, smtos
from mtl_study.artifacts import REPOSITORY
from mtl_study.paper import published

SELECTED = ["auto_lambda", "cagrad", "cdtt", "edm", "famo", "imtl", "nash_mtl", "rotograd"]


def test_every_average_of_table_3_is_the_mean_of_its_tasks():
    table = published.table("table_3")
    assert len(table) == 16
    np.testing.assert_allclose(table[["CL", "RR"]].mean(axis=1), table["delta_m"], atol=0.006)


def test_every_average_of_table_4_counts_tasks_equally_not_metrics():
    """avg = mean of (mean of S's two metrics, mean of D's two, I's one); the mean over the five columns differs."""
    t = published.table("table_4")
    by_task = (t[["S/acc", "S/mIoU"]].mean(axis=1) + t[["D/l1_abs", "D/l1_rel"]].mean(axis=1) + t["I/l1_abs"]) / 3
    np.testing.assert_allclose(by_task, t["delta_m"], atol=0.006)
    assert abs(t.drop(columns="delta_m").mean(axis=1) - t["delta_m"]).max() > 1


def test_mean_ranks_of_table_1_are_elevenths_that_sum_to_those_of_seven_methods():
    ranks = published.table("table_1")["mr"]
    np.testing.assert_allclose(ranks * 11, (ranks * 11).round(), atol=0.06)
    assert (ranks * 11).round().sum() == 11 * sum(range(1, 8))


def test_tables_that_report_the_same_number_agree():
    two = published.table("table_2")
    assert two.loc["multimnist/CL_RR", "unit_scal"] == published.table("table_3").loc["unit_scal", "delta_m"]
    assert two.loc["multimnist/CL_RR", "best_smto"] == published.table("table_3")["delta_m"].max()
    assert two.loc["cityscapes/19C", "best_smto"] == published.table("table_4")["delta_m"].max()
    assert two.loc["qm9", "best_smto"] == published.table("table_1")["delta_m"].max()
    assert (published.table("table_5")["avg"] == published.table("table_1")["delta_m"]).all()


def test_the_best_setting_of_every_method_lies_in_its_grid():
    for problem in ["multimnist/CL_CR", "multimnist/CL_RR", "multimnist/RL_RR", "cityscapes/19C", "qm9"]:
        for smto in published.methods(problem):
            if smto != "fixed":
                assert published.best(problem, smto) in published.grid(problem, smto), (problem, smto)


def test_grids_have_the_sizes_of_the_search():
    """7 learning rates × 6 dropouts, times each method's own axis."""
    sizes = {
        smto: len(published.grid("multimnist/CL_RR", smto))
        for smto in ["uw", "cagrad", "cdtt", "rotograd", "auto_lambda"]
    }
    assert sizes == {"uw": 42, "cagrad": 126, "cdtt": 210, "rotograd": 168, "auto_lambda": 294}
    assert len(published.grid("qm9", "cdtt")) == 5 and published.rate_of("qm9", "cdtt") == "edm"  # at EDM's rate
    assert published.seeds("multimnist/CL_RR") == ([1, 2, 3, 4, 5], list(range(1, 11)))
    assert published.seeds("cityscapes/19C") == ([1], [1, 2, 3])


def test_published_options_are_options_of_our_methods():
    """Every published setting of the three digit problems builds."""
    for problem in ["multimnist/CL_CR", "multimnist/CL_RR", "multimnist/RL_RR"]:
        assert set(published.methods(problem)) >= {"unit_scal", *SELECTED}
        for smto in published.methods(problem):
            smtos.build(smto, 2, **published.best(problem, smto)["options"])
        for smto in SELECTED:
            for options in published.option_grid(problem, smto):
                smtos.build(smto, 2, **options)


def test_every_single_task_of_a_digit_problem_has_its_own_setting():
    for name in ["multimnist/CL_CR", "multimnist/CL_RR", "multimnist/RL_RR"]:
        for single in problems.get(name).single_tasks:
            assert list(published.single_task(single).values()) == [published.best(single)]


def test_metrics_of_a_single_task_may_have_chosen_different_settings():
    """Table 9: L1-abs and L1-rel of the disparity differ in learning rate, both metrics of the segmentation agree."""
    found = {name: [s["lr"] for s in published.single_task(f"cityscapes/19C/{name}").values()] for name in "SD"}
    assert found == {"S": [0.001, 0.001], "D": [0.001, 0.0005]}
    assert published.best("cityscapes/19C/D", metric="l1_rel")["lr"] == 0.0005


def test_fixed_weights_sum_to_one():
    assert sum(published.best("multimnist/CL_RR", "fixed")["options"]["weights"]) == pytest.approx(1)
    for lr in [0.005, 0.001, 0.0005, 0.0001]:
        assert sum(published.qm9_fixed_weights(lr).values()) == pytest.approx(1)


def test_what_is_handed_out_can_be_changed_without_changing_the_paper():
    published.best("multimnist/CL_RR", "cagrad")["options"]["c"] = 0.0
    published.axes("multimnist/CL_RR")["lr"].clear()
    assert published.best("multimnist/CL_RR", "cagrad")["options"] == {"c": 0.8}
    assert len(published.axes("multimnist/CL_RR")["lr"]) == 7


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: published.table("table_33"), r"no table 'table_33' \(did you mean 'table_3'\?\)"),
        (lambda: published.best("multimnist/CL_RR", "cagrd"), r"did you mean 'cagrad'\?"),
        (lambda: published.best("multimnist/RL_RR", "uw"), "no settings on multimnist/RL_RR for the method 'uw'"),
        (lambda: published.best("cityscapes/19C/S"), "name one of acc, mIoU"),
        (lambda: published.axes("celeba"), "no grid for 'celeba'"),
    ],
)
def test_what_the_paper_does_not_have_is_refused_by_name(ask, message):
    with pytest.raises(published.NotInPaper, match=message):
        ask()


def test_every_place_in_the_paper_that_is_cited_by_number_is_explained():
    """D1 to D50 each have one entry in docs/defects.md, and nothing cites a number without one."""
    explained = re.findall(r"^\*\*(D\d+)\.", (REPOSITORY / "docs" / "defects.md").read_text(), re.MULTILINE)
    assert sorted(explained, key=lambda d: int(d[1:])) == [f"D{i}" for i in range(1, 51)]
    files = [*REPOSITORY.glob("mtl_core/**/*.py"), *REPOSITORY.glob("mtl_core/**/*.yaml"), *REPOSITORY.glob("**/*.md")]
    cited = {d for path in files if ".venv" not in path.parts for d in re.findall(r"\bD\d+\b", path.read_text())}
    assert cited <= set(explained)


def test_the_problems_of_figure_7():
    """Three of Multi-MNIST, five steps of the Cityscapes ladder, QM9; each has settings for the uniform loss."""
    families = [problem.split("/")[0] for problem in published.problems()]
    assert [families.count(name) for name in ("multimnist", "cityscapes", "qm9")] == [3, 5, 1]
    assert all("unit_scal" in published.methods(problem) for problem in published.problems())
