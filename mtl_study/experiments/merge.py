"""Bring stores together: `python -m mtl_study.experiments.merge FROM --into STORE`, or `make merge FROM=folder`.

FROM is a live store or an archive, of this or of an older format. Into a live store records are copied; an archive is
packed anew, file by file, its lines in the order of their keys. Of two records of one key the longer holds if the
shorter is its beginning; two that differ are named, and the one that was there stays. FROM is left as it is.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError
from tqdm import tqdm

from mtl_core.files import write_atomically
from mtl_study.experiments.population import Population, PopulationStore
from mtl_study.experiments.runs import BadRecord, Record, Run
from mtl_study.experiments.store import POPULATIONS, RunStore, archived, find, index, record_config
from mtl_study.words import counted


@dataclass
class Merged:
    """What came of it, by the names of records: added, longer than what was there, differing, unreadable; and how many
    were there already."""

    added: list[str] = field(default_factory=list)
    longer: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    known: int = 0

    def __str__(self) -> str:
        added = counted(len(self.added), "record")
        lines = [f"{added} added, {len(self.longer)} in place of shorter ones, {self.known} known."]
        lines += [f"differs from the one that is there, which stays: {name}" for name in self.differing]
        lines += [f"cannot be read: {name}" for name in self.unreadable]
        return "\n".join(lines)


def merge(source: Path, target: Path, pack: bool = False) -> Merged:
    """Bring the records of one store into another.

    Args:
        target: a live store, or an archive. pack: make it an archive where it is none yet.
    """
    done = Merged()
    into_archive = pack or next(target.rglob("*.jsonl"), None) is not None
    known: dict[str, dict[str, Record]] = {}  # of an archive: by folder and key
    for name, record in tqdm(list(read(source, done)), desc="records", unit="record", delay=2, leave=False):
        folder, key = record_config(record).folder, record.key
        if into_archive:
            if folder not in known:
                known[folder] = _packed(target / f"{folder}.jsonl", type(record))
            before = known[folder].get(key)
        else:
            store = PopulationStore(target) if isinstance(record, Population) else RunStore(target)
            path = store.folder / folder / f"{key}.json"
            before = type(record).from_line(path.read_text()) if path.exists() else None
        if before is not None and not before.same_beginning(record):
            done.differing.append(name)
            continue
        if before is not None and record_config(before).epochs_in_all >= record_config(record).epochs_in_all:
            done.known += 1
            continue
        (done.added if before is None else done.longer).append(name)
        if into_archive:
            known[folder][key] = record
        else:
            write_atomically(path, record.to_line())
    if done.added or done.longer:
        for folder, records in known.items():
            lines = "".join(records[key].to_line() for key in sorted(records))
            if records:
                write_atomically(target / f"{folder}.jsonl", lines)
    return done


def _packed(path: Path, kind: type[Record]) -> dict[str, Record]:
    if not path.exists():
        return {}
    return {key: kind.from_line(find(path, key) or "") for key in index(path, path.stat().st_mtime_ns)}


def read(source: Path, done: Merged) -> Iterator[tuple[str, Record]]:
    """Every record of a store, of this format or of the first, with its name; what cannot be read is noted."""
    for path in archived(source):
        kind: type[Record] = Population if path.stem == POPULATIONS else Run
        for key in index(path, path.stat().st_mtime_ns):
            try:
                yield f"{path}, {key}", kind.from_line(find(path, key) or "")
            except BadRecord as error:
                done.unreadable.append(f"{path}, {key}: {error}")
    for path in RunStore(source).files() if not archived(source) else []:
        kind = Population if path.parent.name == POPULATIONS else Run
        try:
            text = path.read_bytes().decode()
            yield str(path), kind.from_line(text) if text.startswith('{"key"') else first_format(kind, text)
        except (BadRecord, UnicodeDecodeError) as error:
            done.unreadable.append(f"{path}: {error}")


def first_format(kind: type[Record], text: str) -> Record:
    """A record of the first format: the bare record, without key and checksum. Raises BadRecord."""
    try:
        record = kind.model_validate_json(text, strict=False)
    except ValidationError as error:
        raise BadRecord(f"no record: {error.errors()[0]['msg']}") from None
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
