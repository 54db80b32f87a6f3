"""Where figures, tables and verdicts are written, and how: whole or not at all.

    artifacts/<preset>/figures/<NN>_<name>.pdf, .png, .json     NN is the number of the notebook
    artifacts/<preset>/tables/<NN>_<name>.csv, .md, .json
    artifacts/<preset>/claims/<notebook>.json

Each .json says what stands beside it: title, caption, preset and commit. The root is the folder named by the
environment variable MTL_ARTIFACTS, or `artifacts/` in the repository (outside a checkout, in the present folder).
"""

from __future__ import annotations

import io
import os
import re
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl_core.files import write_atomically, write_json
from mtl_study.words import minus, untagged

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import Markdown
    from matplotlib.figure import Figure


REPOSITORY = Path(__file__).resolve().parents[1]
CHECKOUT = (REPOSITORY / "pyproject.toml").is_file()  # not so where the package was installed from a wheel
SMOKE = "smoke"  # the preset that shows that everything runs
NAME = re.compile(r"\d\d_[a-z0-9_]+")


def need_checkout() -> None:
    """Ends a program that reads or writes the repository's own files where there is no repository."""
    if not CHECKOUT:
        raise SystemExit(f"This command works in a checkout of the repository, and {REPOSITORY} is none.")


def root() -> Path:
    """The folder of all artifacts: MTL_ARTIFACTS, or `artifacts/` in the repository."""
    return Path(os.environ.get("MTL_ARTIFACTS") or (REPOSITORY if CHECKOUT else Path.cwd()) / "artifacts").absolute()


def folder(preset: str) -> Path:
    """The folder of one preset's artifacts."""
    return root() / preset


@cache
def commit() -> str:
    """The commit, with "-dirty" where code, notebooks or parameters differ from it; "unknown" outside a checkout."""
    if not CHECKOUT:
        return "unknown"
    git = ["git", "-C", str(REPOSITORY)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=True)
        code = ["mtl_core", "mtl_study", "notebooks", "params", "constraints.txt"]
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *code], capture_output=True).returncode
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("-dirty" if changed else "")


def warning(preset: str) -> str:
    """What a caption on a page begins with: that smoke decides nothing; "" for other presets."""
    return "Preset smoke decides nothing. " if preset == SMOKE else ""


def save_figure(fig: Figure, name: str, preset: str, title: str, caption: str, data: str = "") -> Path:
    """Write a figure as PDF, PNG (150 dpi) and a JSON note; preset and commit stand in small print under it.

    Args:
        name: `<NN>_<name>`, e.g. "01_figure_1".
        title, caption: plain text, as the report shows them.
        data: stands in the small print, too, where a reader might take the data for others: "synthetic streets".

    Returns:
        The path of the PNG.

    Raises:
        ValueError: the name does not start with the number of a notebook.
        CannotWrite: the disk is full or the folder is not writable.
    """
    path = _place(preset, "figures", name)
    # Below the lower edge, so that it covers nothing; bbox_inches="tight" makes room for it.
    scale = f"preset {preset}" + (", which decides nothing" if preset == SMOKE else "")
    small = " · ".join([scale, *([data] if data else []), f"commit {commit()}"])
    stamp = fig.text(0, 0, small, fontsize=6, color="0.5", ha="left", va="top")
    try:
        for suffix, metadata in ((".pdf", {"CreationDate": None}), (".png", {"Software": None})):
            file = io.BytesIO()
            fig.savefig(file, format=suffix[1:], dpi=150, bbox_inches="tight", metadata=metadata)
            write_atomically(path.with_suffix(suffix), file.getvalue())
    finally:
        stamp.remove()
    _note(path, preset, title, caption)
    return path.with_suffix(".png")


def save_table(
    frame: pd.DataFrame,
    name: str,
    preset: str,
    title: str,
    caption: str,
    decimals: int | Mapping[str, int] | None = None,
) -> Markdown:
    """Write a table as CSV (full precision), Markdown and a JSON note.

    Args:
        name: `<NN>_<name>`, e.g. "01_table_3".
        title, caption: plain text, as the report shows them.
        decimals: of the numbers in Markdown, for all columns or by column; where not given, four significant digits,
            and from 10,000 to 10 million whole numbers.

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
    _note(path, preset, title, caption)
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


def _note(path: Path, preset: str, title: str, caption: str) -> None:
    write_json(path.with_suffix(".json"), {"title": title, "caption": caption, "preset": preset, "commit": commit()})


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
        else:
            text = f"{value:.{decimals}f}"
        return minus(text)
    return " ".join(untagged(str(value)).replace("|", r"\|").split())
