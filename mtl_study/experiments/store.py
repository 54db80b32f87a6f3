"""Where records are kept.

A live store is a folder with one file per record, <problem>/<smto>/<key>.json, written whole or not at all. An archive
is what is shipped: read-only, packed per problem and method, <problem>/<smto>.jsonl, with one record a line. A line is
the same in both (`runs.Record`). Where a folder is an archive, what it lacks is trained into the live store beside it,
`runs/<its name>`, and both are read.
"""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from mtl_core.files import write_atomically
from mtl_study.experiments.runs import BadRecord, Record, Run, RunConfig

POPULATIONS = "populations"  # the folder, beside those of the methods, whose records are not of single runs
NAMED_BY_KEY = re.compile(r"[0-9a-f]{16}\.json")
KEY_IN_LINE = slice(len('{"key": "'), len('{"key": "') + 16)


class StoreError(OSError):
    """Records could not be written where they were meant to be, or what stands in their place is no file."""


C = TypeVar("C", bound=Any)
R = TypeVar("R", bound=Record)


class Store(Generic[C, R]):
    """Records of one kind.

    Args:
        folder: a live store, or an archive.

    Attributes:
        folder: of the live store, where new records go. archive: the folder of the archive, or None.
    """

    kind: type[R]

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        given = Path(folder)
        self.archive = given if next(given.rglob("*.jsonl"), None) else None
        self.folder = given.parent / "runs" / given.name if self.archive else given

    @property
    def what(self) -> str:
        """What the records are of: "run"."""
        return self.kind.__name__.lower()

    def path(self, config: C) -> Path:
        """Where the record of this configuration lies in the live store, or would lie."""
        return self.folder / config.folder / f"{config.key}.json"

    def get(self, config: C) -> R | None:
        """The record of this configuration, or None. A longer run serves a shorter request: its first epochs. A file
        that is damaged, or whose contents belong to another identity, is set aside, says so, and counts as missing.

        Raises:
            StoreError: a folder or a link to nowhere stands in the record's place.
        """
        for record in self._held(config):
            if (served := record.serving(config)) is not None:
                return served
        return None

    def _held(self, config: C) -> Iterator[R]:
        """What the live store and the archive have under this key."""
        path = self.path(config)
        if path.is_dir() or (path.is_symlink() and not path.exists()):
            raise StoreError(f"{path} stands where a {self.what} record belongs, and is no file; move it away.")
        if path.exists() and (record := self._read(path)) is not None:
            yield record
        if self.archive and (line := find(self.archive / f"{config.folder}.jsonl", config.key)) is not None:
            try:
                yield self.kind.from_line(line)
            except BadRecord as error:
                name = self.archive / f"{config.folder}.jsonl"
                warnings.warn(f"{name}, {config.key}: no {self.what} record and left out: {error}", stacklevel=4)

    def _read(self, path: Path) -> R | None:
        """The record in a file of the live store; one that is none is set aside, by name."""
        try:
            line = path.read_bytes().decode()
            record = self.kind.from_line(line)
            if line[KEY_IN_LINE] != path.stem or self.folder / record_config(record).folder != path.parent:
                raise BadRecord("it holds another record than its name says")
            return record
        except (BadRecord, UnicodeDecodeError) as error:
            aside = path.with_suffix(".damaged")
            warnings.warn(f"{path} is no {self.what} record and was set aside, as {aside.name}: {error}", stacklevel=5)
            os.replace(path, aside)
            return None

    def put(self, record: R) -> Path:
        """Write a record, whole or not at all. Of two of one key the longer stays, if the shorter is its beginning;
        if they differ, the older is set aside and a warning names both.

        Raises:
            OSError: it could not be written.
        """
        path = self.path(record_config(record))
        if path.is_file() and (known := self._read(path)) is not None and known.identity == record.identity:
            if not known.same_beginning(record):
                aside = path.with_suffix(".other")
                warnings.warn(f"{path}: the new record differs from the older one, now {aside.name}", stacklevel=2)
                os.replace(path, aside)
            elif record_config(known).epochs_in_all >= record_config(record).epochs_in_all:
                return path
        write_atomically(path, record.to_line())
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

    def files(self, part: str = "") -> Iterator[Path]:
        """The files of the live store that are named by a key, in a fixed order. What else lies there is passed over
        and mentioned once: copies that editors and sync tools make are no records."""
        strange: list[str] = []
        for path in sorted((self.folder / part).rglob("*.json")):
            hidden = any(folder.startswith(".") for folder in path.relative_to(self.folder).parts[:-1])
            if NAMED_BY_KEY.fullmatch(path.name) and not hidden:
                yield path
            else:
                strange.append(str(path))
        if strange:
            warnings.warn(f"passed over, since not named by a record's key: {', '.join(strange)}", stacklevel=3)

    def records(self, part: str = "") -> Iterator[R]:
        """All records of this kind, live and archived, in a fixed order; of one key the longest. What is damaged or
        of older code is left out.

        Args:
            part: a folder of the store: "multimnist/CL_RR/cagrad", all of it by default.
        """
        found: dict[str, R] = {}
        for record in self._all(part):
            if record.identity != record_config(record).identity:
                continue  # of older code
            key = record_config(record).key
            if key not in found or record_config(found[key]).epochs_in_all < record_config(record).epochs_in_all:
                found[key] = record
        yield from found.values()

    def _all(self, part: str) -> Iterator[R]:
        for path in archived(self.archive, part) if self.archive else []:
            if self._kept_in(path.stem):
                for key in index(path, path.stat().st_mtime_ns):
                    try:
                        yield self.kind.from_line(cast(str, find(path, key)))
                    except BadRecord as error:
                        warnings.warn(f"{path}, {key}: no {self.what} record and left out: {error}", stacklevel=4)
        for path in self.files(part):
            if self._kept_in(path.parent.name) and (record := self._read(path)) is not None:
                yield record

    def _kept_in(self, folder: str) -> bool:
        """Whether a folder of this name holds records of this kind."""
        return folder != POPULATIONS


class RunStore(Store[RunConfig, Run]):
    """Runs: <problem>/<smto>/<key>.json, or <problem>/<smto>.jsonl."""

    kind = Run

    def __iter__(self) -> Iterator[Run]:
        return self.records()


def record_config(record: Record) -> Any:
    """The configuration of a record of any kind."""
    return cast(Any, record).config


# -- archives ----------------------------------------------------------------------------------------------------------


def archived(folder: Path, part: str = "") -> list[Path]:
    """The packed files of an archive, or of a part of it, in a fixed order."""
    whole = folder / f"{part}.jsonl"
    return [*([whole] if part and whole.is_file() else []), *sorted((folder / part).rglob("*.jsonl"))]


@lru_cache(maxsize=1024)
def index(path: Path, changed: int) -> dict[str, tuple[int, int]]:
    """Where each record of a packed file lies: key to offset and length in bytes. `changed` is the time of the file."""
    places, offset = {}, 0
    with open(path, "rb") as file:
        for line in file:
            places[line[KEY_IN_LINE].decode(errors="replace")] = (offset, len(line))
            offset += len(line)
    return places


def find(path: Path, key: str) -> str | None:
    """The line of a packed file that has this key, or None."""
    try:
        place = index(path, path.stat().st_mtime_ns).get(key)
    except OSError:
        return None
    if place is None:
        return None
    with open(path, "rb") as file:
        file.seek(place[0])
        return file.read(place[1]).decode(errors="replace")
