"""A reader's code, called for a limited time and with limited print: an endless loop must not hang a notebook.

    within(20, lambda: my_function(3))       what it gives; raises Stopped after 20 seconds

Python's own code is stopped wherever it is; a call into compiled code, such as a product of huge arrays, only at its
end. Where there is no timer that interrupts (Windows, a thread), a line is printed instead that says how to stop it.
"""

from __future__ import annotations

import contextlib
import io
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

Result = TypeVar("Result")
CHARACTERS = 10_000  # that may be printed
AGAIN = 0.01  # seconds until another try, where the code itself has caught the first one


class Stopped(BaseException):
    """Why a call was stopped. No Exception, so that `except Exception` in the code itself does not catch it."""


def within(seconds: float, call: Callable[[], Result]) -> Result:
    """What a call gives.

    Raises:
        Stopped: it takes longer, or prints more than CHARACTERS.
    """
    # the interpreter writes to whatever sys.stdout is, so the limit works for print as well as for loggers made there
    with contextlib.redirect_stdout(_Limited(sys.stdout)), contextlib.redirect_stderr(_Limited(sys.stderr)):
        interrupts = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
        return (_interrupted if interrupts else _announced)(seconds, call)


def _interrupted(seconds: float, call: Callable[[], Result]) -> Result:
    may_raise, late = True, False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal late
        late = True
        if may_raise:
            raise Stopped(f"It was stopped after {seconds:g} seconds. Does a loop never end? Print what it counts.")

    def lost(error: sys.UnraisableHookArgs) -> None:
        """What Python does with an error that nothing can catch, as in `__del__`: it reports it, in full. Later than
        the limit it does not, for then it may be Stopped that was lost, and the next try is soon."""
        nonlocal may_raise
        if not late:
            may_raise = False
            report(error)
            may_raise = True

    before, report = signal.signal(signal.SIGALRM, stop), sys.unraisablehook
    sys.unraisablehook = lost
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
        return call()
    finally:
        may_raise = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        sys.unraisablehook = report


def _announced(seconds: float, call: Callable[[], Result]) -> Result:
    text = f"This has taken {seconds:g} seconds. Does a loop never end? Stop it yourself: Kernel, Interrupt."
    timer = threading.Timer(seconds, print, [text], {"flush": True})
    timer.daemon = True
    timer.start()
    try:
        return call()
    finally:
        timer.cancel()


class _Limited(io.TextIOBase):
    """A stream that passes on what is written to it, up to a number of characters."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.left = stream, CHARACTERS

    def write(self, text: str) -> int:
        self.stream.write(text[: max(0, self.left)])
        self.left -= len(text)
        if self.left < 0:
            raise Stopped(f"It was stopped after it had printed {CHARACTERS:,} characters. Does a loop never end?")
        return len(text)

    def flush(self) -> None:
        self.stream.flush()
