"""`make compare METHOD=mine.py PROBLEM=multimnist/CL_RR`: your own method against the paper's, on one page."""

from __future__ import annotations

import argparse
import html
import json
from pathlib import Path
from typing import Any

from mtl_core import files
from mtl_core.datasets.base import DataNotFound
from mtl_core.options import BadOption
from mtl_study import artifacts, commands, newcomer, parameters
from mtl_study.checking import ChecksFailed
from mtl_study.experiments import runner
from mtl_study.experiments.runs import BadConfig
from mtl_study.paper.published import NotInPaper
from mtl_study.plots import canvas
from mtl_study.plots import newcomer as drawn
from mtl_study.publishing.rendering import markdown, size

STYLE = ":root {color-scheme: light dark} pre {white-space: pre-wrap} td {white-space: nowrap} \
body {max-width: 66rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif} \
table {border-collapse: collapse; display: block; overflow-x: auto} th, td {padding: .2rem .6rem} \
tr:nth-child(even) {background: #8881} img {max-width: 100%; height: auto}"


def write(found: newcomer.Found, folder: Path) -> Path:
    """The page: index.html with its picture, and the tables as CSV. Returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    canvas.figure_of(drawn.differences(found)).savefig(folder / "differences.png", dpi=150, bbox_inches="tight")
    found.table.to_csv(folder / "methods.csv")
    found.selected.to_csv(folder / "runs.csv", index=False)
    body = markdown(found._repr_markdown_())
    width, height = size((folder / "differences.png").read_bytes())
    picture = f'<img src="differences.png" width="{width}" height="{height}" alt="{html.escape(drawn.caption(found))}">'
    page = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(found.smto)} on {html.escape(found.problem)}</title><style>{STYLE}</style></head>"
        f"<body>{body}<figure>{picture}<figcaption>{html.escape(drawn.caption(found))}</figcaption></figure></body></html>"
    )
    files.write_atomically(folder / "index.html", page)
    return folder / "index.html"


def options_of(text: str) -> dict[str, Any]:
    """The method's options, as JSON. Raises BadOption."""
    try:
        found = json.loads(text or "{}")
    except ValueError as error:
        raise BadOption(f"OPTIONS = {text}: {error}; expected JSON, as OPTIONS='{{\"alpha\": 0.5}}'.") from None
    if not isinstance(found, dict):
        raise BadOption(f"OPTIONS = {text}: expected names and values, as OPTIONS='{{\"alpha\": 0.5}}'.")
    return found


@commands.ends(
    (newcomer.BadMethod, ChecksFailed, BadConfig, BadOption, NotInPaper, parameters.BadParameters, DataNotFound),
    failed=(runner.RunFailed,),
)
def main(arguments: list[str] | None = None) -> int:
    """The command. Returns its exit code: 1 where a run failed, 2 where the request is refused."""
    parser = argparse.ArgumentParser(prog="compare", description="A method of your own against the paper's.")
    parser.add_argument("--method", required=True, help="a Python file with one class")
    parser.add_argument("--problem", default="multimnist/CL_RR", help="a problem of which records ship")
    parser.add_argument("--preset", default="quick", help="whose records: quick or overnight")
    parser.add_argument("--workers", type=int, help="training processes; default: one per core, or per GPU")
    parser.add_argument("--data", help="the folder that holds MNIST/raw, for overnight")
    parser.add_argument("--unless", default="", help="checks that it does not promise: 'permutation scaling'")
    parser.add_argument("--options", default="", help="of the method, as JSON: '{\"alpha\": 0.5}'")
    given = parser.parse_args(arguments)
    if not given.method:
        parser.error("which method? make compare METHOD=mine.py, a Python file with one class under @register")
    found = newcomer.against_shipped(
        given.method,
        given.problem,
        options=options_of(given.options),
        unless=dict.fromkeys(given.unless.replace(",", " ").split(), "not promised, says UNLESS"),
        store=artifacts.REPOSITORY / "runs" / "compare",
        workers=given.workers,
        data_dir=given.data,
        preset=given.preset,
    )
    page = write(found, artifacts.folder("compare") / f"{found.smto}-{given.problem.replace('/', '-')}-{given.preset}")
    print(f"{found._repr_markdown_()}\nThe page: {page}")
    return 0


if __name__ == "__main__":
    commands.run(main)
