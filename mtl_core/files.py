"""Files and folders that appear whole or not at all, so that a killed process or a full disk leaves what was there
before; prepared data that prove themselves, and where they are kept."""

from __future__ import annotations

import glob
import json
import os
import re
import secrets
import shutil
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # not POSIX
    fcntl = None  # type: ignore[assignment]

TEMPORARY = re.compile(r"\..+\.[0-9a-f-]+\.tmp")
LEFT_BEHIND = 3600  # seconds, after which what is temporary is nobody's any more
LOCK, JUST_MADE = ".lock", 2.0  # of a scratch folder; seconds within which its process may not have locked it yet
MANIFEST = "files.json"  # of a prepared folder, written last: what it holds, and each file's bytes and checksum
HOW = (
    "Free some space, make the folder writable, or name another one: MTL_DATA is the environment variable for prepared "
    "data, MTL_ARTIFACTS for figures, tables and pages, `store` the parameter for records. Then run the same again"
)


class CannotWrite(OSError):
    """A file could not be written; what was there before still is."""

    def __str__(self) -> str:
        return str(self.strerror)


@contextmanager
def writing(path: Path, unchanged: str = "") -> Iterator[None]:
    """Says of an error of the disk what could not be written, and which variable names another place.

    Raises:
        CannotWrite: no space left, no permission, no such device, …
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or isinstance(error, CannotWrite):  # said in our own words
            raise
        why = error.strerror if error.filename is None else f"{error.strerror} ({error.filename})"
        raise CannotWrite(error.errno, f"cannot write {path}: {why}. {unchanged}{HOW}") from error


def write_json(path: Path, value: Any) -> None:
    """`write_atomically` for what json can say; keys keep their order."""
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write a file whole or not at all: to a temporary file next to it, which is then renamed. Makes the folder.

    What earlier processes left behind in that folder when they were killed halfway is cleared away after an hour.

    Raises:
        CannotWrite: no space left, no permission, no such device, …; the old file is unchanged.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    with writing(path, "The file that was there before, if any, is unchanged. "):
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
    folder holds a file that its process has locked; a lock ends with its process, in every machine and container."""
    for leftover in parent.glob(f"{glob.escape(prefix)}*"):
        with suppress(FileNotFoundError):  # it ended in this moment
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
        with open(folder / LOCK) as lock:
            age = time.time() - os.fstat(lock.fileno()).st_mtime
            if fcntl is None:
                return age > 24 * LEFT_BEHIND
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return age > JUST_MADE
    except BlockingIOError:
        return False
    except FileNotFoundError:  # killed before it was locked, or made by older code
        return time.time() - folder.stat().st_mtime > LEFT_BEHIND
    except OSError:  # a file system without locks
        return time.time() - folder.stat().st_mtime > 24 * LEFT_BEHIND


@contextmanager
def whole_folder(folder: Path, finished: Callable[[Path], bool] = Path.is_dir) -> Iterator[Path]:
    """A folder that appears whole or not at all: what this yields is to be filled; when the block ends without an
    error it becomes `folder`, in place of an unfinished one. Where another process is faster, its folder stays.

    Args:
        finished: whether the folder holds what it should.

    Raises:
        OSError: the folder cannot be made, or something else has taken its place.
    """
    with writing(folder):
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


def prepared(folder: Path, write: Callable[[Path], None], about: Any = None) -> Path:
    """A folder of prepared data that proves itself: filled by `write`, whole or not at all, unless it is there.

    Its manifest, written last, lists every file. Each call compares the files' sizes with it; the first call of a
    process, and one that finds a file with another date, the checksums too (about a second per GB). What is lost, cut
    or altered, or made by a version without checksums, is made again, with a warning.

    Args:
        about: what the folder holds, as JSON.

    Raises:
        CannotWrite: no space left, no permission, …
        FileExistsError: outside of `cache_folder()`, the path is taken by something else.
    """
    if is_whole(folder, about):
        return folder
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        held = manifest(folder).get("about", f"no {MANIFEST}")
        if held != about and not folder.resolve().is_relative_to(cache_folder().resolve()):
            raise FileExistsError(f"{folder} holds {held}, asked for {about}. Name another folder, or delete this one")
        warnings.warn(f"{folder} is damaged, or an older version's: it is made again", stacklevel=2)
    with whole_folder(folder, lambda path: is_whole(path, about)) as new:
        write(new)
        files = sorted(path for path in new.rglob("*") if path.is_file())
        listed = {path.relative_to(new).as_posix(): [path.stat().st_size, checksum(path)] for path in files}
        write_json(new / MANIFEST, {"about": about, "files": listed})
    return folder


def is_whole(folder: Path, about: Any = None) -> bool:
    """Whether a prepared folder is there and agrees with its manifest: see `prepared`."""
    try:
        held = manifest(folder)
        files = {folder / name: tuple(known) for name, known in held["files"].items()}
        state = [(path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        if held["about"] != about or [size for size, _ in state] != [size for size, _ in files.values()]:
            return False
        if _compared.get(folder) != (state, held):
            if any(checksum(path) != known for path, (_, known) in files.items()):
                return False
            _compared[folder] = (state, held)
    except (OSError, LookupError, TypeError, ValueError, AttributeError):  # not there, or no manifest of ours
        return False
    return True


_compared: dict[Path, Any] = {}  # folders whose checksums agreed in this process; sizes, dates and manifest then


def manifest(folder: Path) -> dict[str, Any]:
    """What a prepared folder holds, by its manifest; empty where that cannot be read."""
    try:
        found = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def checksum(file: Path) -> int:
    """CRC-32 of a file's contents."""
    value = 0
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            value = zlib.crc32(block, value)
    return value


def cache_folder() -> Path:
    """Where prepared data are kept: the environment variable MTL_DATA; else `data` in a checkout of the repository;
    else the user's cache folder."""
    if chosen := os.environ.get("MTL_DATA"):
        return Path(os.path.expanduser(chosen))
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "mtl_study").is_dir() and (checkout / "pyproject.toml").is_file():
        return checkout / "data"
    from platformdirs import user_cache_path

    return user_cache_path("mtl_core", appauthor=False)
