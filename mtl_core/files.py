"""Files and folders that appear whole or not at all, so that a killed process or a full disk leaves what was there
before; and where prepared data are kept."""

from __future__ import annotations

import glob
import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # not POSIX
    fcntl = None  # type: ignore[assignment]

TEMPORARY = re.compile(r"\..+\.[0-9a-f-]+\.tmp")
LEFT_BEHIND = 3600  # seconds, after which a temporary file is nobody's any more
LOCK, JUST_MADE = ".lock", 2.0  # of a scratch folder; seconds within which its process may not have locked it yet


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
def scratch(prefix: str, parent: Path) -> Iterator[Path]:
    """A folder `<prefix>…` in `parent` for as long as the block lasts. Those of killed processes are removed here: each
    folder holds a file that its process has locked, and a lock ends with its process, whichever machine or container it
    was on."""
    for leftover in parent.glob(f"{glob.escape(prefix)}*"):
        if leftover.is_dir() and _abandoned(leftover):
            shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as folder, open(Path(folder) / LOCK, "w") as lock:
        if fcntl:
            with suppress(OSError):  # a file system without locks: then its age says whether it was left behind
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield Path(folder)


def _abandoned(folder: Path) -> bool:
    """Whether nobody works in a scratch folder any more."""
    try:
        lock = open(folder / LOCK)  # noqa: SIM115  (closed below)
        age = time.time() - os.fstat(lock.fileno()).st_mtime
    except OSError:  # killed before it was locked, or made by older code
        return time.time() - folder.stat().st_mtime > LEFT_BEHIND
    with lock:
        if fcntl is None:
            return age > 24 * LEFT_BEHIND
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            return age > 24 * LEFT_BEHIND
    return age > JUST_MADE


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
    with scratch(f".{folder.name}-", folder.parent) as place:
        new, old = place / "new", place / "old"
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
