"""Files and folders that appear whole or not at all, so that a killed process or a full disk leaves what was there
before; and where prepared data are kept."""

from __future__ import annotations

import json
import os
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

TEMPORARY = re.compile(r"\..+\.[0-9a-f-]+\.tmp")
LEFT_BEHIND = 3600  # seconds, after which a temporary file is nobody's any more


class CannotWrite(OSError):
    """A file could not be written; what stood there before still does."""

    def __str__(self) -> str:
        return str(self.strerror)


def write_json(path: Path, value: Any) -> None:
    """`write_atomically` for what json can say; keys keep their order."""
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write a file whole or not at all: to a temporary file beside it, then renamed. Makes the folder if need be.

    What earlier processes left behind in that folder when they were killed halfway is cleared away after an hour.

    Raises:
        CannotWrite: no space left, no permission, no such device, …; the old file stands as it was.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(path.parent)
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # a disk that is full says so here, before the old file is given up
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise CannotWrite(
            error.errno,
            f"cannot write {path}: {error.strerror or error}. The file that was there before, if any, is unchanged. "
            "Free some space or make the folder writable, then run the same command again",
        ) from error


def clear_leftovers(folder: Path) -> None:
    """Remove the temporary files of killed processes: those of `write_atomically` that are older than an hour. Whose
    they are cannot be known: other machines and containers may write here, too."""
    for leftover in folder.glob(".*.tmp"):
        with suppress(OSError):  # another process has cleared it, or may
            if TEMPORARY.fullmatch(leftover.name) and time.time() - leftover.stat().st_mtime > LEFT_BEHIND:
                leftover.unlink()


@contextmanager
def whole_folder(folder: Path, finished: Callable[[Path], bool] = Path.is_dir) -> Iterator[Path]:
    """A folder that appears whole or not at all: what this yields is to be filled; when the block ends without an
    error it becomes `folder`. What stands there unfinished is replaced. Where another process was faster, its folder
    stays and ours is thrown away.

    Args:
        finished: whether the folder holds what it shall.

    Raises:
        OSError: the folder cannot be made, or something else has taken its place.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        new, old = Path(scratch) / "new", Path(scratch) / "old"
        new.mkdir()
        yield new
        if folder.exists() and not finished(folder):
            with suppress(FileNotFoundError):  # another process has put it away
                folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            if not finished(folder):
                raise


def cache_folder() -> Path:
    """Where prepared data are kept: the environment variable MTL_DATA; else `data` in a checkout of the repository;
    else the user's cache folder."""
    if chosen := os.environ.get("MTL_DATA"):
        return Path(chosen)
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "mtl_study").is_dir() and (checkout / "pyproject.toml").is_file():
        return checkout / "data"
    from platformdirs import user_cache_path

    return user_cache_path("mtl_core", appauthor=False)
