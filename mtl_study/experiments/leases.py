"""Leases: who trains a run says so in the store, so that sweeps that share a store share the work.

`<key>.lease` next to the record, made by whoever is first. Its holder renews it; one that was not renewed for EXPIRES
seconds, or whose holder is known to be dead, is anyone's. Times are those of the file system: clocks may differ.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RENEW, EXPIRES = 20.0, 120.0  # seconds


class Leases:
    """Those that this sweep holds; a thread renews them until it is closed."""

    def __init__(self) -> None:
        self.token = secrets.token_hex(8)
        self.held: dict[Path, int] = {}  # by path: how often it was taken over
        self.closed = threading.Event()
        threading.Thread(target=self._keep, daemon=True).start()

    def claim(self, path: Path) -> bool:
        """Whether the lease is now ours. Where none can be written it is, too: training goes before sharing."""
        said = {"token": self.token, "place": PLACE, "pid": os.getpid(), "since": time.time()}
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
        times = 0
        while True:
            lease = _taken_over(path, times)
            try:
                file = os.open(lease, os.O_CREAT | os.O_EXCL | os.O_WRONLY)  # of several, one succeeds
            except FileExistsError:
                if _over(lease):
                    times += 1
                elif os.path.lexists(lease):
                    return False
                else:  # just released
                    times = 0
                continue
            except OSError:
                return True
            with contextlib.suppress(OSError), os.fdopen(file, "w") as stream:
                json.dump(said, stream)
            if not _alone(path, times):
                with contextlib.suppress(OSError):
                    lease.unlink()
                return False
            self.held[path] = times
            return True

    def release(self, path: Path) -> None:
        """Give it back. One that was taken over is the successor's, and so are the files before it."""
        times = self.held.pop(path, -1)
        if times >= 0 and self._ours(path, times):
            _remove(path, range(times + 1))

    def close(self) -> None:
        self.closed.set()
        for path in list(self.held):
            self.release(path)

    def _ours(self, path: Path, times: int) -> bool:
        lease = _taken_over(path, times)
        there = lease.exists() and not _taken_over(path, times + 1).exists()
        return there and _read(lease).get("token", self.token) == self.token

    def _keep(self) -> None:
        while not self.closed.wait(RENEW):
            for path, times in list(self.held.items()):
                with contextlib.suppress(OSError):
                    if self._ours(path, times):
                        os.utime(_taken_over(path, times))


def holder(path: Path) -> str:
    """Who has a lease, in words; empty if nobody is known to have it."""
    said = _read(_last(path))
    return f"{said['place'].split()[0]}, process {said['pid']}" if said else ""


def abandoned(path: Path) -> bool:
    """Whether there is a lease that nobody holds any more."""
    return path.exists() and _over(_last(path))


def clear(path: Path) -> None:
    """Remove an abandoned lease. For runs whose record is there: who claims one looks for it after."""
    if abandoned(path):
        _remove(path, itertools.count())


def _taken_over(path: Path, times: int) -> Path:
    """The file of a lease that was taken over so many times. Its predecessors stay until it is released: only so is
    there one successor."""
    return path.with_suffix(f".{times}.lease") if times else path


def _last(path: Path) -> Path:
    times = 0
    while _taken_over(path, times + 1).exists():
        times += 1
    return _taken_over(path, times)


def _alone(path: Path, times: int) -> bool:
    """Whether a lease that was just made is the only one in force. It may have followed one that was released or
    renewed at the same moment, or come before one that followed such: each makes its own first and then looks, so that
    of two at least one sees the other."""
    last = _last(path)
    followed = times == 0 or _over(_taken_over(path, times - 1))
    return followed and (last == _taken_over(path, times) or _over(last))


def _remove(path: Path, all_times: Iterable[int]) -> None:
    for times in all_times:
        try:
            _taken_over(path, times).unlink()
        except OSError:
            return


def _over(lease: Path) -> bool:
    """Whether its holder is known to be dead, or has not renewed it for too long."""
    said = _read(lease)
    if said.get("place") == PLACE and os.name == "posix":
        try:
            os.kill(said["pid"], 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
    try:
        return _now(lease.parent) - lease.lstat().st_mtime > EXPIRES
    except OSError:  # just released
        return False


def _now(folder: Path) -> float:
    """The time by the clock that stamps files there."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()


def _read(path: Path) -> dict[str, Any]:
    try:
        said: dict[str, Any] = json.loads(path.read_text())
        return said
    except (OSError, ValueError):
        return {}


def _place() -> str:
    """Where process numbers mean the same: host, boot and, in containers, the space of numbers."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


PLACE = _place()
