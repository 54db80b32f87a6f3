"""What `make bench` measured the last time, to be shown next to what it measures now."""

from __future__ import annotations

import datetime
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mtl_core import files
from mtl_study import artifacts
from mtl_study.experiments import evidence
from mtl_study.words import counted


class NoResult(ValueError):
    """A file that holds no result that can be read."""


@dataclass(frozen=True)
class Result:
    """One part of the bench as it was measured.

    rows: label → column → value, of the columns that can be compared between runs. seconds: the whole part took.
    """

    rows: dict[str, dict[str, float]]
    rounds: int
    seconds: float
    where: str = field(default_factory=evidence.here)
    when: str = field(default_factory=lambda: f"{datetime.datetime.now():%d %B %Y, %H:%M}")

    def __str__(self) -> str:
        return f"{self.when}, {counted(self.rounds, 'round')}, {self.where}"


def file(part: str, device: str) -> Path:
    return artifacts.root() / "bench" / f"{part}-{device}.json"


def keep(path: Path, table: pd.DataFrame, rounds: int, seconds: float) -> None:
    """In place of the result before."""
    columns = comparable(table)
    values = [map(float, row) for row in table[columns].to_numpy()]
    rows = {label: dict(zip(columns, row, strict=True)) for label, row in zip(labels(table), values, strict=True)}
    files.write_json(path, asdict(Result(rows, rounds, seconds)))


def find(path: Path) -> Result | None:
    """The last result, if there is one.

    Raises:
        NoResult: there is one that cannot be read.
    """
    if not path.exists():
        return None
    try:
        return Result(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise NoResult(f"{path} holds no result that can be read ({error}); remove it") from error


def comparable(table: pd.DataFrame) -> list[str]:
    """Ratios, and what is counted: milliseconds of two runs say more about the machine than about the code."""
    return [name for name in table if any(sign in name for sign in ("×", "%", "waits", "molecules"))]


def labels(table: pd.DataFrame) -> list[str]:
    return [", ".join(map(str, key)) if isinstance(key, tuple) else str(key) for key in table.index]


def next_to(table: pd.DataFrame, last: Result) -> pd.DataFrame:
    """The table, with the last value after each that can be compared (NaN where there was none)."""
    found: dict[str, Any] = {}
    for name in table:
        found[name] = table[name]
        if name in comparable(table):
            found[f"last {name}"] = [last.rows.get(label, {}).get(name, np.nan) for label in labels(table)]
    return pd.DataFrame(found, index=table.index)
