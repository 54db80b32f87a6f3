"""Bring stores together: `python -m mtl_study.experiments.merge FROM --into STORE`, or `make merge FROM=folder`.

FROM is a live store or an archive, of this or of an older format. Into a live store records are copied; an archive is
packed again, file by file, its lines in the order of their keys. Of two records of one key the longer holds if the
shorter is its beginning; two that differ are named, and the one that was there stays. FROM is left as it is. Files are
written whole or not at all: after a kill, the same command continues.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from mtl_core import progress
from mtl_core.files import write_atomically
from mtl_study.experiments.population import PopulationStore
from mtl_study.experiments.probes import LooksStore
from mtl_study.experiments.runs import BadRecord, Record, explain
from mtl_study.experiments.store import RunStore, Store, alike, archived, checked, live, record_config
from mtl_study.experiments.strides import StridesStore
from mtl_study.experiments.transfer import TransferStore
from mtl_study.words import counted

#: of every kind
STORES: tuple[type[Store[Any, Any]], ...] = (RunStore, PopulationStore, LooksStore, StridesStore, TransferStore)


@dataclass
class Merged:
    """What came of it, by the names of records: added, longer than what was there, differing, unreadable (in FROM or
    where they were to go); and how many were there already."""

    added: list[str] = field(default_factory=list)
    longer: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    unshipped: list[str] = field(default_factory=list)
    known: int = 0

    def __str__(self) -> str:
        added = counted(len(self.added), "record")
        lines = [f"{added} added, {len(self.longer)} replaced shorter ones, {self.known} known."]
        lines += [f"differs from the one that is there, which stays: {name}" for name in self.differing]
        lines += [f"cannot be read: {name}" for name in self.unreadable]
        lines += [f"not packed, its method is defined in a notebook or a script: {name}" for name in self.unshipped]
        return "\n".join(lines)


def merge(source: Path, target: Path, pack: bool = False) -> Merged:
    """Bring the records of one store into another.

    Args:
        target: a live store, or an archive. pack: make it an archive where it is none yet.
    """
    done = Merged()
    place = _Archive(target, done) if pack or archived(target) else _Live(target, done)
    for name, line, record in progress.bar(read(source, done), desc="records", unit="record", delay=2, leave=False):
        folder, key = record_config(record).folder, record.key
        if place.shipped and "defined_in" in environment(record):
            done.unshipped.append(name)
            continue
        try:
            before = place.record(type(record), folder, key)
        except (BadRecord, OSError) as error:
            done.unreadable.append(f"{target / folder}, {key}: {error}")
            continue
        if before is None:
            done.added.append(name)
        elif not alike(before, record):
            done.differing.append(name)
            continue
        elif record_config(before).epochs_in_all >= record_config(record).epochs_in_all:
            done.known += 1
            continue
        else:
            done.longer.append(name)
        place.put(folder, key, line)
    place.close()
    return done


def environment(record: Record) -> dict[str, str]:
    """On what a record of any kind was made."""
    found: dict[str, str] = cast(Any, record).environment
    return found


class _Live:
    shipped = False

    def __init__(self, folder: Path, done: Merged) -> None:
        self.folder, self.done = folder, done
        self.stores: dict[type[Record], Store[Any, Any]] = {store.kind: store(folder) for store in STORES}

    def record(self, kind: type[Record], folder: str, key: str) -> Record | None:
        """What is there under this key. A damaged record is set aside, and noted. Raises BadRecord or OSError where
        something else is in its place, which stays."""
        path = self._path(folder, key)
        there = os.path.lexists(path)
        found: Record | None = self.stores[kind].read(path)
        if there and found is None:
            if os.path.lexists(path):
                raise BadRecord("what is there is no such record, and stays")
            self.done.unreadable.append(f"{path}: it was damaged and is set aside; the one from FROM is there now")
        return found

    def put(self, folder: str, key: str, line: str) -> None:
        write_atomically(self._path(folder, key), line)

    def _path(self, folder: str, key: str) -> Path:
        return self.folder / folder / f"{key}.json"

    def close(self) -> None:
        """Everything is written."""


class _Archive:
    """Packed files, read when they are asked for and written at the end. Damaged lines stay, last in their file, until
    there is a record of their key."""

    shipped = True

    def __init__(self, folder: Path, done: Merged) -> None:
        self.folder, self.done = folder, done
        self.files: dict[str, dict[str, str]] = {}
        self.damaged: dict[str, list[bytes]] = {}
        self.changed: set[str] = set()

    def _file(self, folder: str) -> dict[str, str]:
        if folder not in self.files:
            path = self.folder / f"{folder}.jsonl"
            content = list(checked(path)) if os.path.lexists(path) else []
            self.files[folder], self.damaged[folder] = {}, []
            for line, key, damage in content:
                if damage or key in self.files[folder]:
                    self.damaged[folder].append(line)
                    self.done.unreadable.append(damage or f"{path}, {key}: a second line of this key")
                else:
                    self.files[folder][key] = line.decode()
        return self.files[folder]

    def record(self, kind: type[Record], folder: str, key: str) -> Record | None:
        """What is there under this key. Raises BadRecord or OSError where something else is in its place."""
        line = self._file(folder).get(key)
        return None if line is None else kind.from_line(line)

    def put(self, folder: str, key: str, line: str) -> None:
        self._file(folder)[key] = line
        self.changed.add(folder)

    def close(self) -> None:
        """Write the files to which something came."""
        for folder in sorted(self.changed):
            known = self.files[folder]
            whole = [known[key].encode() for key in sorted(known)]
            kept = [line for line in self.damaged[folder] if line[9:25].decode(errors="replace") not in known]
            kept = [line if line.endswith(b"\n") else line + b"\n" for line in kept]
            write_atomically(self.folder / f"{folder}.jsonl", b"".join([*whole, *kept]))


def read(source: Path, done: Merged) -> Iterator[tuple[str, str, Record]]:
    """Every record of a store, of this format or of the first: its name, its line and itself; what cannot be read is
    noted."""
    for path in archived(source):
        for line, key, damage in checked(path):
            if damage:
                done.unreadable.append(damage)
                continue
            try:
                yield f"{path}, {key}", line.decode(), _kind(path.stem).from_line(line.decode(), whole=True)
            except BadRecord as error:
                done.unreadable.append(f"{path}, {key}: {error}")
    for path in live(source):
        try:
            text = path.read_bytes().decode()
            if text.startswith('{"key"'):
                yield str(path), text, _kind(path.parent.name).from_line(text, whole=True)
            else:
                record = first_format(_kind(path.parent.name), text)
                yield str(path), record.to_line(), record
        except (BadRecord, UnicodeDecodeError, OSError) as error:
            done.unreadable.append(f"{path}: {error}")


def _kind(folder: str) -> type[Record]:
    return next((store.kind for store in STORES if store.place == folder), RunStore.kind)


def first_format(kind: type[Record], text: str) -> Record:
    """A record of the first format: the bare record, without key and checksum. Raises BadRecord."""
    try:
        record = kind.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise BadRecord(explain(error, kind)) from None
    record.check()
    return record


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns its exit code: 1 where records differ or cannot be read."""
    parser = argparse.ArgumentParser(prog="merge", description="Bring the records of one store into another.")
    parser.add_argument("source", type=Path, metavar="FROM", help="a store: a folder of records")
    parser.add_argument("--into", type=Path, default=Path("results"), help="another store (default: results)")
    parser.add_argument("--pack", action="store_true", help="make it an archive: packed, to be shipped")
    given = parser.parse_args(arguments)
    if not given.source.is_dir():
        parser.error(f"{given.source} is no folder.")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        done = merge(given.source, given.into, given.pack)
    print(done)
    return 1 if done.differing or done.unreadable else 0


if __name__ == "__main__":
    sys.exit(main())
