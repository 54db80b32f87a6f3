"""How a command starts and ends: its `main` returns an exit code, and what it refuses or fails at is said in words."""

from __future__ import annotations

import functools
import os
import select
import sys
from collections.abc import Callable
from typing import NoReturn, ParamSpec

from mtl_core.files import CannotWrite
from mtl_study import artifacts

PASSED, FAILED, REFUSED, DRIFTED, INTERRUPTED, UNHEARD = 0, 1, 2, 3, 130, 141
P = ParamSpec("P")
Errors = tuple[type[Exception], ...]


def ends(refused: Errors = (), failed: Errors = ()) -> Callable[[Callable[P, int]], Callable[P, int]]:
    """Decorates a `main`: these errors end it without a traceback.

    Args:
        refused: of a request for which nothing is done: code 2. failed: of the work itself: code 1, as where something
            cannot be written.
    """
    told: Errors = (*refused, *failed, CannotWrite)

    def decorate(main: Callable[P, int]) -> Callable[P, int]:
        @functools.wraps(main)
        def command(*given: P.args, **named: P.kwargs) -> int:
            try:
                return main(*given, **named)
            except told as error:
                print(error, file=sys.stderr)
                return REFUSED if isinstance(error, refused) else FAILED

        return command

    return decorate


def run(main: Callable[[], int | None]) -> NoReturn:
    """Starts a command of the repository, and ends the program with its code; quietly where whoever reads along has
    gone, as `head` does."""
    artifacts.need_checkout()
    os.environ.pop(artifacts.REPRODUCED, None)  # of a notebook that called it
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        if not _unheard():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = UNHEARD
    sys.exit(code)


def _unheard() -> bool:
    """Whether nobody reads any more what is printed."""
    pipe = select.poll()
    pipe.register(sys.stdout, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in pipe.poll(0))
