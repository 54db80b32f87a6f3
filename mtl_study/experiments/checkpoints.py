"""The state of a run, in a file: written whole or not at all, read without running anything that is in it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from mtl_core.files import write_atomically

EVERY = 180.0  # seconds


class Resumable(Protocol):
    """Work done epoch by epoch, which continues from a saved state bit for bit as if it had not stopped.

    beyond: whether it has come further than it was asked to.
    """

    @property
    def unfinished(self) -> bool: ...

    @property
    def beyond(self) -> bool: ...

    def epoch(self) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


W = TypeVar("W", bound=Resumable)


@dataclass(frozen=True)
class Checkpoint:
    """The place of one run's checkpoint.

    key: of the run, which says configuration and code versions. environment: processor, instruction set, versions,
    threads. What was saved under another key or in another environment would not continue bit for bit: it is discarded.
    epochs: where the run ends.
    """

    path: Path
    key: str
    environment: Mapping[str, str]
    epochs: int

    def save(self, state: Mapping[str, Any], over: bool = False) -> None:
        """The state, behind a checksum. over: the run has ended, and its record makes this superfluous."""
        file = io.BytesIO()
        said = {"key": self.key, "environment": dict(self.environment), "over_at": self.epochs if over else 0}
        torch.save({**said, "state": _to_plain(state)}, file)
        try:
            write_atomically(self.path, _checksum(file.getvalue()) + file.getvalue())
        except OSError as error:  # the run itself is none the worse
            warnings.warn(f"no checkpoint: {error}", stacklevel=2)

    def load(self) -> dict[str, Any] | None:
        """The state, or None where there is none to continue from; one that does not fit is removed, with a warning."""
        try:
            saved = _read(self.path)
            if (saved["key"], saved["environment"]) == (self.key, dict(self.environment)):
                state: dict[str, Any] = _from_plain(saved["state"])
                return state
            why = "it is of another run, code version or kind of machine"
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Exception as error:  # damaged files raise whatever their bytes lead to
            why = f"{type(error).__name__}: {str(error).splitlines()[0]}" if str(error) else type(error).__name__
        self.discard(why)
        return None

    def discard(self, why: str) -> None:
        """Remove a state that does not fit, and say so."""
        warnings.warn(f"{self.path} cannot be continued and is removed ({why}).", stacklevel=3)
        self.remove()

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that a GPU's memory did not do. CUDA and its libraries have several for it."""
    words = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in words or "alloc_failed" in words


def complete(build: Callable[[], W], place: Checkpoint | None, every: float = EVERY, keep: bool = False) -> W:
    """Epoch by epoch to the end, from where its checkpoint left it.

    Args:
        build: makes the work as it is at its beginning.
        place: of the checkpoint, written after an epoch where the last time is `every` seconds ago. One that was
            written is still there at the end: a record can still be lost on its way; whatever stores it removes the
            checkpoint. One that is beyond the end is left as it is. None: no checkpoint.
        keep: write the last one in any case, so that the work can be lengthened.

    Returns:
        The work, done.
    """
    work = build()
    state = None if place is None else place.load()
    if place and state is not None:
        try:
            work.load_state_dict(state)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:  # of other code under the same key
            if out_of_memory(error):  # the checkpoint is sound
                raise
            place.discard(f"{type(error).__name__}: {str(error).splitlines()[0]}")
            work, state = build(), None
    there, moved, last = state is not None, False, time.perf_counter()
    while work.unfinished:
        work.epoch()
        moved = True
        if place and work.unfinished and time.perf_counter() - last >= every:
            place.save(work.state_dict())
            there, last = True, time.perf_counter()
    if place and not work.beyond and (keep or (there and moved)):
        place.save(work.state_dict(), over=not keep)
    return work


def over_at(path: Path) -> int:
    """The length in epochs of the run that has ended with this checkpoint, and whose record makes it superfluous; 0
    where a run is on its way, may be lengthened, or left no checkpoint that can be read."""
    try:
        found: int = _read(path).get("over_at", 0)
    except Exception:  # whatever damaged bytes lead to; the caller warns
        return 0
    return found


CHECKSUM = 64


def _read(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    if content[:CHECKSUM] != _checksum(content[CHECKSUM:]):
        raise ValueError("its checksum does not fit")
    saved: dict[str, Any] = torch.load(io.BytesIO(content[CHECKSUM:]), map_location="cpu", weights_only=True)
    return saved


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def _to_plain(value: Any) -> Any:
    """What `torch.load(weights_only=True)` reads: tensors, numbers, texts, lists and dicts."""
    match value:
        case np.ndarray():
            return {"numpy": torch.from_numpy(value.copy())}
        case np.generic():
            return {
                "numpy": torch.as_tensor(value.item(), dtype=torch.from_numpy(np.array(value)).dtype),
                "scalar": True,
            }
        case deque():
            return {"deque": [_to_plain(item) for item in value], "maxlen": value.maxlen}
        case Mapping():
            return {"dict": {name: _to_plain(item) for name, item in value.items()}}
        case list() | tuple():
            return {type(value).__name__: [_to_plain(item) for item in value]}
    return value


def _from_plain(value: Any) -> Any:
    match value:
        case {"numpy": tensor, "scalar": True}:
            return tensor.numpy()[()]
        case {"numpy": tensor}:
            return tensor.numpy()
        case {"deque": items, "maxlen": maxlen}:
            return deque(map(_from_plain, items), maxlen)
        case {"dict": items}:
            return {name: _from_plain(item) for name, item in items.items()}
        case {"list": items}:
            return list(map(_from_plain, items))
        case {"tuple": items}:
            return tuple(map(_from_plain, items))
    return value
