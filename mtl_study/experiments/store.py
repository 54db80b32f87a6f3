"""Where records are kept.

A live store is a folder with one file per record, <problem>/<smto>/<key>.json, written whole or not at all. An archive
is what is shipped: read-only, packed per problem and method, <problem>/<smto>.jsonl, with one record a line. A line is
the same in both (`runs.Record`). Where a folder is an archive, what it lacks is trained into the live store next to it,
`runs/<its name>`, and both are read.
"""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from mtl_core.files import write_atomically
from mtl_study import provenance
from mtl_study.experiments.runs import BadRecord, ForeignRecord, Record, Run, RunConfig, checksum, unpacked
from mtl_study.words import counted

#: folders, next to those of the methods, whose records are not of single runs
POPULATIONS, LOOKS, STRIDES, TRANSFERS = NOT_RUNS = "populations", "looks", "strides", "transfers"
NAMED_BY_KEY = re.compile(r"[0-9a-f]{16}\.json")
BEGINNING = b'{"key": "'  # of every line
FIRST_FORMAT = re.compile(rb'\s*\{\s*"config"')  # the bare record, without key and checksum


class StoreError(OSError):
    """Records could not be written where they were meant to be, or what is in their place is no file."""


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
    place = ""  # the folder of all such records, where they have one to themselves

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        given = Path(folder)
        self.archive = given if archived(given) else None
        self.folder = given
        if self.archive:
            whole = given if given.name not in ("", "..") else given.resolve()
            self.folder = whole.parent / "runs" / whole.name

    @property
    def what(self) -> str:
        """What the records are of: "run"."""
        return self.kind.__name__.lower()

    def path(self, config: C) -> Path:
        """Where the record of this configuration is in the live store, or would be."""
        return self._path(config.folder, config.key)

    def _path(self, folder: str, key: str) -> Path:
        return self.folder / folder / f"{key}.json"

    def get(self, config: C) -> R | None:
        """The record of this configuration, or None. A longer run serves a shorter request: its first epochs. A record
        that is damaged is named and set aside (in an archive left out), and counts as missing.

        Raises:
            StoreError: a folder or a link to nowhere is in the record's place.
        """
        found = self.longest(config)
        return None if found is None else found.serving(config)

    def longest(self, config: C) -> R | None:
        """What is stored under the key of this configuration, however long it is."""
        return self._longest(config.folder, config.key)

    def _longest(self, folder: str, key: str) -> R | None:
        """Of the records under one key the longest. If they are not each other's beginning, a warning says so."""
        found = list(self._held(folder, key))
        longest = max(found, key=lambda record: record_config(record).epochs_in_all, default=None)
        for other in found:
            if longest is not None and other is not longest and not alike(longest, other):
                place = f"{folder}, {key} in {self.archive} and {self.folder}"
                warnings.warn(f"{place}: records of one key that differ; the longest is taken", stacklevel=4)
        return longest

    def _held(self, folder: str, key: str) -> Iterator[R]:
        """The records of the archive and of the live store under this key, those of the archive first."""
        if self.archive:
            path = self.archive / f"{folder}.jsonl"
            for line in lines(path, key):
                try:
                    text = line.decode(errors="replace")
                    record = self.kind.from_line(text)
                    if record_config(record).folder != folder:
                        raise BadRecord(f"its place is {record_config(record).folder}")
                    provenance.note(f"{folder}/{key}", checksum(text))
                    yield record
                except BadRecord as error:
                    warnings.warn(f"{path}, {key}: no {self.what} record and left out: {error}", stacklevel=5)
        record_there = self.read(self._path(folder, key))
        if record_there is not None:
            yield record_there

    def _bytes(self, path: Path) -> bytes | None:
        """A file of the live store, or None. Raises StoreError where something else is in its place."""
        try:
            return path.read_bytes()
        except OSError:
            if path.is_dir() or path.is_symlink():
                what = "is a folder" if path.is_dir() else "is a link to nowhere"
                raise StoreError(f"{path} {what}, where a {self.what} record belongs; move it away.") from None
            if not path.exists():
                return None
            raise

    def read(self, path: Path) -> R | None:
        """The record in a file of the live store, or None. A damaged one is set aside, by name; a record of something
        else than the file's name says, and one of the first format, stay where they are and are mentioned.

        Raises:
            StoreError: a folder or a link to nowhere is in its place.
        """
        content = self._bytes(path)
        if content is None:
            return None
        if FIRST_FORMAT.match(content):
            advice = f"`make merge FROM={self.folder}` brings it into another store"
            warnings.warn(f"{path} has the first format of records and is passed over; {advice}", stacklevel=6)
            return None
        try:
            record = self.kind.from_line(content.decode())
        except ForeignRecord as error:
            warnings.warn(f"{path} is passed over, as this version does not know it: {error}", stacklevel=6)
            return None
        except (BadRecord, UnicodeDecodeError) as error:
            if self._bytes(path) != content:  # another process has dealt with it
                return self.read(path)
            aside = set_aside(path, "damaged")
            warnings.warn(f"{path} is no {self.what} record and was set aside, as {aside.name}: {error}", stacklevel=6)
            return None
        if self._path(record_config(record).folder, record.key) != path:
            warnings.warn(f"{path} holds another {self.what} than its name says and is passed over", stacklevel=6)
            return None
        provenance.note(f"{record_config(record).folder}/{record.key}", checksum(content.decode()))
        return record

    def put(self, record: R) -> Path:
        """Write a record, whole or not at all. Of two of one key the longer stays, if the shorter is its beginning;
        if they differ, or if something else was there, that is set aside and a warning names both.

        Raises:
            OSError: it could not be written.
        """
        config = record_config(record)
        path = self._path(config.folder, record.key)
        known = self.read(path)
        if known is not None and alike(known, record):
            if record_config(known).epochs_in_all >= config.epochs_in_all:
                return path
        elif path.exists():
            aside = set_aside(path, "other")
            warnings.warn(f"{path}: what was there differs from the new record and is now {aside.name}", stacklevel=2)
        write_atomically(path, line := record.to_line())
        provenance.note(f"{config.folder}/{record.key}", checksum(line))
        return path

    def check_writable(self) -> None:
        """Raises StoreError, before any training, if nothing can be written here."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder) as file:
                file.write(b"x")
        except OSError as error:
            raise StoreError(
                f"the {self.what} store {self.folder} cannot be written to ({error}); name another folder as `store`."
            ) from None

    def files(self, part: str = "") -> Iterator[Path]:
        """The files of the live store that are named by a key, in a fixed order (`live`)."""
        return live(self.folder, part)

    def records(self, part: str = "") -> Iterator[R]:
        """All records of this kind, live and archived, in a fixed order; of one key the longest. What is damaged or
        of older code is left out.

        Args:
            part: a folder of the store: "multimnist/CL_RR/cagrad", all of it by default.
        """
        for folder, key in self._places(part):
            record = self._longest(folder, key)
            if record is not None and record.identity == record_config(record).identity:
                yield record

    def _places(self, part: str) -> dict[tuple[str, str], None]:
        """Folder and key of every record, unread."""
        places: dict[tuple[str, str], None] = {}
        if self.archive and (loose := list((self.archive / part).rglob("*.json"))):
            files = counted(len(loose), "file")
            advice = f"`make merge FROM={self.archive}` packs what records there are"
            warnings.warn(f"{files} next to the archive {self.archive} passed over; {advice}", stacklevel=4)
        for path in archived(self.archive, part) if self.archive else []:
            folder = path.relative_to(cast(Path, self.archive)).with_suffix("").as_posix()
            if self._kept_in(path.stem):
                places |= dict.fromkeys((folder, key) for key in index(path))
        for path in self.files(part):
            if self._kept_in(path.parent.name):
                places[path.parent.relative_to(self.folder).as_posix(), path.stem] = None
        return places

    def _kept_in(self, folder: str) -> bool:
        """Whether a folder of this name holds records of this kind."""
        return folder == self.place if self.place else folder not in NOT_RUNS


class RunStore(Store[RunConfig, Run]):
    """Runs: <problem>/<smto>/<key>.json, or <problem>/<smto>.jsonl."""

    kind = Run

    def __iter__(self) -> Iterator[Run]:
        return self.records()


def alike(one: Record, other: Record) -> bool:
    """Whether one is the other's beginning; a record whose epochs do not fit is nobody's."""
    try:
        return one.same_beginning(other)
    except BadRecord:
        return False


def record_config(record: Record) -> Any:
    """The configuration of a record of any kind."""
    return cast(Any, record).config


# -- live stores -------------------------------------------------------------------------------------------------------


def live(folder: Path, part: str = "") -> Iterator[Path]:
    """The files of a folder that are named by a key, in a fixed order. What else is there is passed over and
    mentioned once: copies that editors and sync tools make are no records."""
    strange: list[str] = []
    for path in sorted((folder / part).rglob("*.json")):
        if NAMED_BY_KEY.fullmatch(path.name) and not _hidden(path, folder):
            yield path
        else:
            strange.append(str(path))
    if strange:
        files = counted(len(strange), "file")
        warnings.warn(f"{files} passed over, not named by a record's key: {', '.join(strange)}", stacklevel=3)


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def set_aside(path: Path, why: str) -> Path:
    """Rename a file, `KEY.damaged`, so that it is read no more and nothing is lost. Where that cannot be done it
    stays."""
    aside, number = path.with_suffix(f".{why}"), 1
    while aside.exists():
        number += 1
        aside = path.with_suffix(f".{number}.{why}")
    with suppress(OSError):  # read-only, or another process was faster
        os.replace(path, aside)
    return aside


# -- archives ----------------------------------------------------------------------------------------------------------


def archived(folder: Path, part: str = "") -> list[Path]:
    """The packed files of an archive, or of a part of it, in a fixed order. Other files of lines are mentioned."""
    whole = folder / f"{part}.jsonl"
    found = [*([whole] if part else []), *sorted((folder / part).rglob("*.jsonl"))]
    found = [path for path in found if path.is_file() and not _hidden(path, folder)]
    packed = [path for path in found if _packed(path)]
    if strange := [str(path) for path in found if path not in packed]:
        warnings.warn(f"passed over, no records in its first line: {', '.join(strange)}", stacklevel=3)
    return packed


def _packed(path: Path) -> bool:
    """Whether a file begins as a line of records does; a few flipped bits do not count."""
    with open(path, "rb") as file:
        start = file.read(len(BEGINNING))
    return sum(a == b for a, b in zip(start, BEGINNING, strict=False)) >= len(BEGINNING) - 2


def checked(path: Path) -> Iterator[tuple[bytes, str, str]]:
    """The lines of a packed file, with their key and nothing, or, if a single bit was changed, with nothing and a
    message that names the record."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield line, unpacked(line.decode())[0], ""
            except (BadRecord, UnicodeDecodeError) as error:
                keys = ", ".join(key.decode() for key in re.findall(rb'"key": "([0-9a-f]{16})"', line))
                yield line, "", f"{path}, line {number} ({keys or 'its key cannot be read'}): {error}"


def index(path: Path) -> dict[str, list[tuple[int, int]]]:
    """Where the records of a packed file are: key to offsets and lengths in bytes. What is damaged is left out, by
    name; empty where there is no such file."""
    try:
        state = path.stat()
    except OSError:
        return {}
    return _index(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=1024)
def _index(path: Path, changed: int, size: int) -> dict[str, list[tuple[int, int]]]:
    places: dict[str, list[tuple[int, int]]] = {}
    offset = 0
    for line, key, damage in checked(path):
        if damage:
            warnings.warn(f"left out: {damage}", stacklevel=7)
        else:
            places.setdefault(key, []).append((offset, len(line)))
        offset += len(line)
    return places


def lines(path: Path, key: str) -> list[bytes]:
    """The lines of a packed file that have this key."""
    if not (places := index(path).get(key)):
        return []
    found = []
    with open(path, "rb") as file:
        for offset, length in places:
            file.seek(offset)
            found.append(file.read(length))
    return found
