"""Where figures, tables and verdicts are written, and how: whole or not at all.

    artifacts/<preset>/figures/<NN>_<name>.pdf, .png, .json     NN is the number of the notebook
    artifacts/<preset>/tables/<NN>_<name>.csv, .md, .json
    artifacts/<preset>/findings/<notebook>.json, explorer/<notebook>.json: its conclusions, and what a reader can redraw
    artifacts/<preset>/claims/<notebook>.json, and <notebook>/<claim>.csv, .json: the evidence

Each .json is the manifest of the file next to it: title, caption, preset, the commit of the code, the checksums of
its files, and the run records that it rests on, with theirs. A notebook that is run with other parameters than its
preset's, or by hand in JupyterLab, says so (`begin`) and has a folder of its own. The root is the folder named by the
environment variable MTL_ARTIFACTS, or `artifacts/` in the repository (outside a checkout, in the present folder).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl_core.files import CannotWrite, write_atomically, write_json
from mtl_study import provenance
from mtl_study.words import minus, untagged

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import Markdown
    from matplotlib.figure import Figure


REPOSITORY = Path(__file__).resolve().parents[1]
CHECKOUT = (REPOSITORY / "pyproject.toml").is_file()  # not so where the package was installed from a wheel
BY_HAND = ".by_hand"  # the mark of a notebook that papermill or JupyterLab runs
REPRODUCED = "MTL_REPRODUCED"  # in kernels that `make reproduce` starts: the folder of what they leave
SMOKE = "smoke"  # the preset that shows that everything runs
NAME = re.compile(r"\d\d[a-z]?_[a-z0-9_]+")
NOISE = 1e-10  # what is smaller in a table is what rounding leaves


def number_of(name: str) -> str:
    """The number that the name of a notebook, a figure or a table begins with: "05b" of "05b_answer"."""
    return name.partition("_")[0]


def need_checkout() -> None:
    """Ends a program that reads or writes the repository's own files where there is no repository."""
    if not CHECKOUT:
        raise SystemExit(f"This command works in a checkout of the repository, and {REPOSITORY} is none.")


def root() -> Path:
    """The folder of all artifacts: MTL_ARTIFACTS, or `artifacts/` in the repository."""
    given = os.path.expanduser(os.environ.get("MTL_ARTIFACTS", ""))
    return Path(given or (REPOSITORY if CHECKOUT else Path.cwd()) / "artifacts").absolute()


@dataclass(frozen=True)
class Execution:
    """A notebook that runs: its preset, the parameters that differ from it, and whether somebody sits at it."""

    preset: str
    changed: Mapping[str, Any] = field(default_factory=dict)
    interactive: bool = False

    @property
    def label(self) -> str:
        """ "quick", "quick, changed: seeds", "quick, interactive"."""
        changed = [f"changed: {', '.join(self.changed)}"] if self.changed else []
        return ", ".join([self.preset, *changed, *(["interactive"] if self.interactive else [])])

    @property
    def folder(self) -> str:
        """The name of its folder below the root: that of the preset for the preset alone, other names for others."""
        digest = hashlib.sha256(json.dumps(self.changed, sort_keys=True, default=str).encode()).hexdigest()[:8]
        changed = [f"changed-{digest}"] if self.changed else []
        return "-".join([self.preset, *changed, *(["interactive"] if self.interactive else [])])


_execution: Execution | None = None  # of the notebook that runs in this process


def begin(execution: Execution | None, stem: str = "") -> None:
    """Say what runs in this process from now on; None: nothing in particular. What an earlier execution of the notebook
    `stem` left in its folder is cleared, and a mark says that it was begun; `make reproduce` has done both."""
    global _execution
    _execution = execution
    provenance.forget()
    if execution and stem and REPRODUCED not in os.environ:
        clear(folder(execution.preset), stem)
        write_atomically(folder(execution.preset) / "notebooks" / f"{stem}{BY_HAND}", "")


def execution(preset: str) -> Execution:
    """What runs at this preset: what was begun, or the preset as it is."""
    return _execution if _execution and _execution.preset == preset else Execution(preset)


def folder(preset: str) -> Path:
    """The folder of one preset's artifacts, or that of what was begun at this preset. What `make reproduce` began goes
    where it said, unless a parameter is not the preset's."""
    begun = execution(preset)
    return Path((not begun.changed and os.environ.get(REPRODUCED)) or root() / begun.folder)


def clear(folder: Path, stem: str) -> None:
    """Remove what an earlier execution of a notebook left in a folder of artifacts; others may do so at the same time.
    Raises CannotWrite if something stays."""
    for pattern in (
        *("figures/{0}_*", "tables/{0}_*", "claims/{1}.json", "claims/{1}/*", "notebooks/{1}.*"),
        *("findings/{1}.json", "explorer/{1}.json"),
    ):
        for path in folder.glob(pattern.format(number_of(stem), stem)):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise CannotWrite(error.errno, f"cannot remove {path}: {error.strerror}") from error


@cache
def commit() -> str:
    """The commit, with "-dirty" where code, notebooks or parameters differ from it; "unknown" outside a checkout. What
    notebooks have printed is no difference."""
    if not CHECKOUT:
        return "unknown"
    try:
        head = _git("rev-parse", "--short=10", "HEAD").strip()
        code = ["mtl_core", "mtl_study", "notebooks", "params", "constraints.txt"]
        changed = [path for path in _git("diff", "--name-only", "HEAD", "--", *code).splitlines() if _differs(path)]
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("-dirty" if changed else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True, encoding="utf-8", check=True
    )
    return done.stdout


def _differs(path: str) -> bool:
    """Whether a file that differs from HEAD does so in its code: of a notebook, in the sources of its cells."""
    if not path.endswith(".ipynb"):
        return True
    try:
        before, now = _git("show", f"HEAD:{path}"), (REPOSITORY / path).read_text(encoding="utf-8")
        return bool(_sources(before) != _sources(now))
    except (OSError, subprocess.CalledProcessError, ValueError, KeyError, TypeError):
        return True


def _sources(notebook: str) -> list[tuple[str, str]]:
    return [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(notebook)["cells"]]


def warning(preset: str) -> str:
    """What a caption on a page begins with: that smoke decides nothing, or what is not as in the preset; else ""."""
    label = execution(preset).label
    if preset == SMOKE:
        return f"Preset {label} decides nothing. "
    return f"Preset {label}. " if label != preset else ""


def save_figure(fig: Figure, name: str, preset: str, title: str, caption: str, data: str = "") -> Path:
    """Write a figure as PDF, PNG (150 dpi) and its manifest; the preset is in small print under it. The same
    figure gives the same bytes.

    Args:
        name: `<NN>_<name>`, e.g. "01_figure_1".
        title, caption: plain text, as the report shows them.
        data: goes into the small print, too, where a reader might take the data for others: "synthetic streets".

    Returns:
        The path of the PNG.

    Raises:
        ValueError: the name does not start with the number of a notebook.
        CannotWrite: the disk is full or the folder is not writable.
    """
    path = _place(preset, "figures", name)
    # Below the lower edge, so that it covers nothing; bbox_inches="tight" makes room for it.
    scale = f"preset {execution(preset).label}" + (", which decides nothing" if preset == SMOKE else "")
    small = " · ".join([scale, *([data] if data else [])])
    stamp = fig.text(0, 0, small, fontsize=6, color="0.5", ha="left", va="top")
    try:
        for suffix, metadata in ((".pdf", {"CreationDate": None}), (".png", {"Software": None})):
            file = io.BytesIO()
            fig.savefig(file, format=suffix[1:], dpi=150, bbox_inches="tight", metadata=metadata)
            write_atomically(path.with_suffix(suffix), file.getvalue())
    finally:
        stamp.remove()
    _manifest(path, (".png", ".pdf"), preset, title, caption)
    return path.with_suffix(".png")


def save_table(
    frame: pd.DataFrame,
    name: str,
    preset: str,
    title: str,
    caption: str,
    decimals: int | Mapping[str, int] | None = None,
) -> Markdown:
    """Write a table as CSV (full precision), Markdown and its manifest.

    Args:
        name: `<NN>_<name>`, e.g. "01_table_3".
        title, caption: plain text, as the report shows them.
        decimals: of the numbers in Markdown, for all columns or by column; where not given, four significant digits,
            from 10,000 to 10 million whole numbers, and below 1e−10 (what rounding leaves) only that.

    Returns:
        Title, table and caption, to be the last value of a notebook cell.

    Raises:
        ValueError: the name does not start with the number of a notebook.
        CannotWrite: the disk is full or the folder is not writable.
    """
    from IPython.display import Markdown

    path, text = _place(preset, "tables", name), to_markdown(frame, decimals)
    write_atomically(path.with_suffix(".csv"), frame.to_csv(index=_has_index(frame), lineterminator="\n"))
    write_atomically(path.with_suffix(".md"), text)
    _manifest(path, (".csv", ".md"), preset, title, caption)
    return Markdown(untagged(f"**{title}**\n\n{text}\n{warning(preset)}{caption}"))


def to_markdown(frame: pd.DataFrame, decimals: int | Mapping[str, int] | None = None) -> str:
    """A data frame as a Markdown table: numbers to the right, what is missing as a dash."""
    if _has_index(frame):
        frame = frame.reset_index()
    # columns one by one: a row of mixed types would turn whole numbers into fractions
    columns = [(_words(name), frame.iloc[:, i]) for i, name in enumerate(frame.columns)]
    numeric = [column.dtype.kind in "iuf" for _, column in columns]
    places = [decimals.get(name) if isinstance(decimals, Mapping) else decimals for name, _ in columns]
    cells = [[_cell(value, n) for value in column] for (_, column), n in zip(columns, places, strict=True)]
    lines = [
        [_cell(name, None) for name, _ in columns],
        ["---:" if right else ":---" for right in numeric],
        *zip(*cells, strict=True),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _place(preset: str, kind: str, name: str) -> Path:
    """Where a figure or table goes, without its suffix."""
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name for one of the {kind}: expected the number of the notebook and a short name in lower "
            "case, such as '01_figure_1'."
        )
    return folder(preset) / kind / name


def save_evidence(frame: pd.DataFrame, notebook: str, claim: str, preset: str) -> None:
    """Write what a claim was judged on, as CSV (full precision) and its manifest. Raises CannotWrite."""
    path = folder(preset) / "claims" / notebook / claim
    write_atomically(path.with_suffix(".csv"), frame.to_csv(index=False, lineterminator="\n"))
    _manifest(path, (".csv",), preset, f"Evidence of {claim}", "A row per run or check.")


def save_findings(found: Mapping[str, Any], notebook: str, preset: str, kind: str = "findings") -> None:
    """Write what a notebook found, and the records that it rests on, as JSON. Raises CannotWrite.

    Args:
        kind: the folder that it goes to, "findings" or "explorer".
    """
    write_json(folder(preset) / kind / f"{notebook}.json", {**found, "records": provenance.records()})


def _manifest(path: Path, suffixes: tuple[str, ...], preset: str, title: str, caption: str) -> None:
    """Write what a figure, a table or a claim's evidence is, and what it rests on."""
    files = [path.with_suffix(suffix) for suffix in suffixes]
    manifest = {
        "title": title,
        "caption": caption,
        "preset": preset,
        "changed": list(execution(preset).changed),
        "interactive": execution(preset).interactive,
        "commit": commit(),
        "files": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
        "records": provenance.records(),
    }
    write_json(path.with_suffix(".json"), manifest)


def _has_index(frame: pd.DataFrame) -> bool:
    """Whether the index says something: it has a name, or is no mere count."""
    import pandas as pd

    return any(name is not None for name in frame.index.names) or not isinstance(frame.index, pd.RangeIndex)


def _words(column: Any) -> str:
    """The head of a column; the levels of a MultiIndex are joined."""
    return " ".join(str(part) for part in column if part != "") if isinstance(column, tuple) else str(column)


def _cell(value: Any, decimals: int | None) -> str:
    """One cell as text that cannot break a Markdown table, nor bring tags into a page."""
    import pandas as pd

    if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
        return "–"
    if pd.api.types.is_float(value):
        if decimals is None:
            text = f"{value:,.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.4g}"
            if 0 < abs(value) < NOISE:  # its digits are those of one processor
                text = f"< {NOISE:.0e}" if value > 0 else f"> {-NOISE:.0e}"
        else:
            text = f"{value:.{decimals}f}"
        return minus(text)
    return " ".join(untagged(str(value)).replace("|", r"\|").split())
