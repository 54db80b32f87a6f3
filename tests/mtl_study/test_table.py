"""Δm from anyone's numbers."""

import io
import re
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mtl_study import table
from mtl_study.analysis import inference

TEXT = """
method, seed, seg/mIoU ↑, seg/accuracy up, depth ↓
single, 1, .50, .70,
single, 2, .52, .74,
single, 1, , , .0160
single, 2, , , .0170
sum, 1, .51, .73, .0171
sum, 2, .50, .72, .0172
mgda, 1, .55, .74, .0151
mgda, 2, .53, .73, .0155
"""


def frame(text=TEXT):
    return pd.read_csv(io.StringIO(text), skipinitialspace=True)


def test_values_by_hand():
    """Tasks count equally, metrics equally within a task; single-task means .51, .72, .0165."""
    found = table.gains(frame())
    seg = (100 * (0.505 - 0.51) / 0.51 + 100 * (0.725 - 0.72) / 0.72) / 2
    depth = -100 * (0.01715 - 0.0165) / 0.0165
    assert found.loc["sum", ["seg", "depth", "delta_m"]].tolist() == pytest.approx([seg, depth, (seg + depth) / 2])
    assert list(found.index) == ["sum", "mgda"] and found.n.tolist() == [2, 2]


def test_the_interval_holds_the_error_of_the_single_task_models():
    """Coverage of 95 % over freshly drawn tables, where the runs of the method alone would give far less."""
    rng, hits, without = np.random.default_rng(0), 0, 0
    for _ in range(120):
        single, own = rng.normal(1.0, 0.05, 5), rng.normal(1.1, 0.01, 5)
        rows = [("single", s + 1, v) for s, v in enumerate(single)] + [("m", s + 1, v) for s, v in enumerate(own)]
        given = pd.DataFrame(rows, columns=["method", "seed", "accuracy ↑"])
        found = table.gains(given).loc["m"]
        hits += found.low <= 10.0 <= found.high
        alone = inference.t_interval(100 * (own - single.mean()) / single.mean())
        without += alone.low <= 10.0 <= alone.high
    assert 0.9 <= hits / 120 <= 0.99 and without / 120 < 0.6


def test_a_level_is_a_share_and_blanks_around_a_slash_are_none():
    with pytest.raises(table.BadTable, match="level = 95 of the intervals: expected a share between 0 and 1"):
        table.gains(frame(), level=95)
    assert table.gains(frame(TEXT.replace("seg/accuracy", "seg / accuracy"))).equals(table.gains(frame()))


def test_without_a_column_of_seeds_rows_count_as_seeds():
    rows = frame("method, accuracy ↑\nsingle, .5\nsingle, .6\nmine, .55\nmine, .66\n")
    found = table.gains(rows).loc["mine"]
    assert found.delta_m == pytest.approx(10.0) and found.low < 10 < found.high


@pytest.mark.parametrize("other", ["1.0", "01", "1e0", "1 "])
@pytest.mark.parametrize("last", ["", "mgda, last, .5, .7, .015\n"])
def test_seeds_are_the_same_in_any_spelling(other, last, tmp_path):
    """Numbers are matched and text is stripped, also where one row makes a column of texts of it."""
    expected = table.gains(frame())
    (tmp_path / "t.csv").write_text((TEXT.replace("sum, 1,", f"sum, {other},") + last).strip(), encoding="utf-8")
    found = table.gains(table.read(tmp_path / "t.csv"))
    assert found.loc["sum"].tolist() == pytest.approx(expected.loc["sum"].tolist())
    named = TEXT.replace(", 1,", ", s1,").replace("sum, s1,", "sum, s1 ,")
    assert table.gains(frame(named)).loc["sum"].tolist() == pytest.approx(expected.loc["sum"].tolist())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((".0171", "True"), "not a number: 'depth ↓', row 6"),
        (
            (".0160\nsingle, 2, , , .0170\nsum", "True\nsingle, 2, , , False\nsum"),
            "not a number: 'depth ↓', row 4; .*5",
        ),
        (("mgda, 2, .53", "mgda, 1.0, .53"), "twice in the table: mgda .seed 1"),
        (("seg/mIoU ↑", "seg/mIoU"), "end it in ↑"),
        (("seg/accuracy", "seg/mIoU"), "columns 'seg/mIoU ↑' and 'seg/mIoU up' are of one metric"),
        (("method,", "methods,"), "no column 'method' .did you mean 'methods'"),
        (("single", "singel"), "no row has the method 'single' .did you mean 'singel'"),
        ((".0171", "abc"), "not a number: 'depth ↓', row 6"),
        (("mgda, 2, .53", "mgda, 2, "), "empty cells: mgda .seed 2"),
        (("mgda, 2", "mgda, 1"), "twice in the table: mgda .seed 1"),
        (("single, 1, .50", "single, 1, 0"), "0 or less in a row of 'single'; Δm is percent of it: 'seg/mIoU ↑'"),
        (("single, 1, .50", "single, 1, -2"), "0 or less in a row of 'single'"),
        (("single, 2, , , .0170", "single, 1, , , .0170"), "twice in rows of 'single': depth/depth .seed 1"),
        (("mgda, 2", "mgda, "), "no seed in row 9"),
        (("mgda, 2", ", 2"), "no method in row 9"),
        (("depth ↓", "low ↓"), "column 'low ↓': 'low' means something else in the answer"),
        (("depth ↓", "epoch ↓"), "column 'epoch ↓': 'epoch' means something else"),
        (("depth ↓", "comment"), "column 'comment': end it in .* or leave it out"),
        ((".0171", "inf"), "infinite: 'depth ↓'"),
        ((".0160\nsingle, 2, , , .0170", "\nsingle, 2, , , "), "no row of 'single' has a value of depth"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(change, message, tmp_path, capsys):
    text = TEXT.replace(*change)
    with pytest.raises(table.BadTable, match=message):
        table.gains(frame(text))
    (tmp_path / "t.csv").write_text(text.strip(), encoding="utf-8")
    assert table.main([str(tmp_path / "t.csv")]) == 2
    assert "t.csv" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((",", ";"), "columns are separated by ';'; expected commas"),
        ((",", "\t"), "columns are separated by '\\t'; expected commas"),
        (("seg/accuracy up", "seg/mIoU ↑"), "two columns have one name: 'seg/mIoU ↑'"),
        (("mgda", "single"), "twice in rows of 'single'"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(change, message, tmp_path, capsys):
    (tmp_path / "t.csv").write_text(TEXT.strip().replace(*change), encoding="utf-8")
    assert table.main([str(tmp_path / "t.csv")]) == 2
    assert message in capsys.readouterr().err


def test_single_task_models_alone_are_no_comparison():
    with pytest.raises(table.BadTable, match="all rows are of 'single'; there is no method to compare"):
        table.gains(frame("method, accuracy ↑\nsingle, .5\nsingle, .6\n"))


def test_the_command_prints_a_row_per_method(tmp_path, capsys):
    (tmp_path / "t.csv").write_text(TEXT.strip(), encoding="utf-8")
    assert table.main([str(tmp_path / "t.csv"), "--level", "0.9"]) == 0
    said = capsys.readouterr().out
    assert "90 % interval" in said and "−2.04" in said and "mgda" in said
    assert table.main([str(tmp_path / "none.csv")]) == 2


def test_the_table_of_the_page_is_one_and_help_has_it(tmp_path, capsys):
    page = (Path(__file__).parents[2] / "docs" / "own_loops.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"runs this table -->\n```text\n(.*?)```", page, re.DOTALL)
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    assert table.main([str(tmp_path / "t.csv")]) == 0
    seg = -100 * (0.003 / 0.521 + 0.003 / 0.742) / 2
    values = [f"−{abs(value):.2f}" for value in ((seg - 100 * 0.0007 / 0.0164) / 2, seg, -100 * 0.0007 / 0.0164)]
    said = capsys.readouterr().out
    assert all(value in said for value in values) and "No interval: sum." in said
    with pytest.raises(SystemExit):
        table.main(["--help"])
    assert textwrap.indent(text, "    ") in capsys.readouterr().out


def test_a_missing_interval_has_its_reason(tmp_path, capsys):
    (tmp_path / "t.csv").write_text(TEXT.strip().replace("mgda, ", "mgda, 1"), encoding="utf-8")
    assert table.main([str(tmp_path / "t.csv")]) == 0
    assert "No interval: mgda. It takes two seeds that the method shares" in capsys.readouterr().out
    (tmp_path / "t.csv").write_bytes("method, a up\nmgdä, 1".encode("latin-1"))
    assert table.main([str(tmp_path / "t.csv")]) == 2
    assert "utf-8" in capsys.readouterr().err
