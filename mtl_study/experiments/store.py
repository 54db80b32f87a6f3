"""The store: a folder with one JSON file per record, named by the hash of its configuration, written whole or not at
all.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from pydantic import ValidationError

from mtl_core.files import write_atomically
from mtl_study.experiments.runs import Record, Run, RunConfig

POPULATIONS = "populations"  # the folder, beside those of the methods, whose records are not of single runs


class StoreError(OSError):
    """Records could not be written where they were meant to be."""


C = TypeVar("C", bound=Any)
R = TypeVar("R", bound=Record)


class Store(Generic[C, R]):
    """A folder of records of one kind: <config.folder>/<config.key>.json."""

    kind: type[R]

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    @property
    def what(self) -> str:
        """What the records are of: "run"."""
        return self.kind.__name__.lower()

    def path(self, config: C) -> Path:
        """Where the record of this configuration lies, or would lie."""
        return self.folder / config.folder / f"{config.key}.json"

    def get(self, config: C) -> R | None:
        """The record of this very configuration, or None. A file that is damaged, or whose contents belong to another
        identity, is a miss and says so."""
        path = self.path(config)
        try:
            record: Any = self.kind.from_json(path.read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValidationError, UnicodeDecodeError) as error:
            warnings.warn(f"{path} is no {self.what} record and will be replaced: {error}", stacklevel=2)
            return None
        if {**record.config.settings, "numerics": record.code_versions} != config.identity:
            warnings.warn(f"{path} holds another {self.what} than its name says and will be replaced", stacklevel=2)
            return None
        return record

    def put(self, record: R) -> Path:
        """Write a record, whole or not at all. Raises OSError where that fails."""
        path = self.path(cast(Any, record).config)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, record.to_json())
        return path

    def check_writable(self) -> None:
        """Raises StoreError, before any training, if nothing can be written here."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder) as file:
                file.write(b"x")
        except OSError as error:
            raise StoreError(
                f"the {self.what} store {self.folder} cannot be written to ({error}); name another folder."
            ) from None


class RunStore(Store[RunConfig, Run]):
    """A folder of runs: <problem>/<smto>/<key>.json."""

    kind = Run

    def __iter__(self) -> Iterator[Run]:
        """All current records in the folder, in a fixed order; what is damaged or of older code is left out."""
        for path in sorted(self.folder.rglob("*.json")):
            if path.parent.name == POPULATIONS:
                continue
            try:
                run = Run.from_json(path.read_text())
            except (ValidationError, UnicodeDecodeError) as error:
                warnings.warn(f"{path} is no run record and is left out: {error}", stacklevel=2)
                continue
            if run.code_versions == run.config.identity["numerics"]:
                yield run
