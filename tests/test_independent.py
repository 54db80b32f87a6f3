"""A second computation of the verdicts, by a script that shares nothing with the packages but the data."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mtl_study.artifacts import REPOSITORY

SCRIPT = Path(__file__).parent / "independent" / "verdicts.py"
ONCE = ("Elich", "MAdam", "Muon", "Zhou", "Kurin-length", "Royer-conflict")  # claims of notebooks 07 and 08


def test_the_script_is_short_and_imports_nothing_of_ours():
    text = SCRIPT.read_text()
    assert len(text.splitlines()) <= 210 and "mtl_" not in text.replace("mtl_study/paper/data", "")
    nodes = list(ast.walk(ast.parse(text)))
    modules = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    modules += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    imports = {module.split(".")[0] for module in modules}
    assert not {"__import__", "exec", "eval"} & {node.id for node in nodes if isinstance(node, ast.Name)}
    assert imports == {"json", "math", "sys", "pathlib", "pandas", "yaml", "scipy"}


@pytest.mark.pinned
@pytest.mark.slow
def test_an_independent_script_comes_to_the_same_verdicts():
    """All that rest on trained runs, from the shipped records: barred and judged ones. Those of notebooks 07 and 08
    are not computed twice."""
    rows = json.loads((REPOSITORY / "docs/report/claims.json").read_text())
    twice = [row for row in rows if row["unit"] != "checks" and not row["id"].startswith(ONCE)]
    assert len({row["verdict"] for row in twice}) == 4
    for preset in {row["preset"] for row in twice}:
        command = [sys.executable, str(SCRIPT), preset]
        printed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        elsewhere = {row["id"] for row in rows if row["preset"] != preset}
        theirs = {id_: said for id_, said in printed.items() if id_ not in elsewhere and not id_.startswith(ONCE)}
        assert theirs == {row["id"]: row["verdict"] for row in twice if row["preset"] == preset}


@pytest.mark.slow
def test_without_records_the_script_judges_nothing(tmp_path):
    script = tmp_path / SCRIPT.relative_to(REPOSITORY)
    script.parent.mkdir(parents=True)
    shutil.copy(SCRIPT, script)
    for folder in ("mtl_study", "params"):
        (tmp_path / folder).symlink_to(REPOSITORY / folder)
    printed = subprocess.run([sys.executable, str(script), "quick"], capture_output=True, text=True, check=True).stdout
    assert set(json.loads(printed).values()) == {"open", "cannot be judged"}
