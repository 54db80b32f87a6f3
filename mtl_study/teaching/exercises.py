"""Code shown as it ran, and answers checked.

show_source(EDM.weights)                   the code of a function, a class or a whole file, as it is on disk
check(answer, 0.5, hint="…")               feedback on an exercise; a wrong answer raises AssertionError
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl_core.names import nearest
from mtl_study.artifacts import REPOSITORY
from mtl_study.execution import has_frontend
from mtl_study.teaching.marking import describe, same, unanswered

if TYPE_CHECKING:
    from IPython.display import Markdown


def sliders_wanted(interactive: str) -> bool:
    """Whether a notebook should show its sliders: "always", "never", or "auto", where somebody works in it.

    Raises:
        ValueError: another word.
    """
    answers = {"always": True, "never": False, "auto": has_frontend()}
    if interactive not in answers:
        raise ValueError(
            f"interactive is {interactive!r}{nearest(interactive, answers)}; expected one of: {', '.join(answers)}."
        )
    return answers[interactive]


def show_source(shown: Any) -> Markdown:
    """The code of a function, a method, a class, or (for a module) of a whole file, with its place.

    Raises:
        TypeError: there is no Python source for it.
    """
    from IPython.display import Markdown

    shown = inspect.unwrap(shown) if callable(shown) else shown
    try:
        lines, first = inspect.getsourcelines(shown)
        file = inspect.getsourcefile(shown) or ""
    except (TypeError, OSError):
        raise TypeError(
            f"{shown!r} has no Python source to show; give a module, or a class or function that is written in Python."
        ) from None
    source, path = textwrap.dedent("".join(lines)).rstrip(), Path(file)
    fence = "```"
    while fence in source:
        fence += "`"
    place = ""
    if path.is_relative_to(REPOSITORY):
        place = f"`{path.relative_to(REPOSITORY).as_posix()}`" + ("" if first <= 1 else f", line {first}") + "\n\n"
    return Markdown(f"{place}{fence}python\n{source}\n{fence}")


def check(answer: Any, expected: Any, hint: str = "", tolerance: float = 1e-6) -> None:
    """Feedback on an answer: a number, a word, a set of words or an array. `None` and `...` count as not answered yet.

    Args:
        hint: what to think about, shown with a wrong answer; the right one is not given away.
        tolerance: of numbers, relative to the expected ones (absolute where those are below 1).

    Raises:
        AssertionError: the answer is wrong.
    """
    __tracebackhide__ = True
    if unanswered(answer):
        print("○ Not answered yet.")
        return
    if not same(answer, expected, tolerance):
        raise AssertionError(f"Not yet. Your answer is {describe(answer)}.{_hint(hint)}")
    print("✓ Right.")


def check_function(
    function: Callable[..., Any] | None,
    expected: Callable[..., Any],
    inputs: Sequence[Any],
    hint: str = "",
    tolerance: float = 1e-6,
) -> None:
    """Feedback on a function of one argument: it must agree with another one on every input. `None`, or a function that
    returns `None` or `...`, counts as not answered yet.

    Raises:
        AssertionError: it does not, or it fails; the message shows the input.
    """
    __tracebackhide__ = True
    if function is None:
        print("○ Not answered yet.")
        return
    for given in inputs:
        try:
            answer = function(given)
        except Exception as error:
            raise AssertionError(
                f"Not yet. For {describe(given)} your code stops: {type(error).__name__}: {error}{_hint(hint)}"
            ) from error
        if unanswered(answer):
            print("○ Not answered yet.")
            return
        if not same(answer, expected(given), tolerance):
            raise AssertionError(
                f"Not yet. For {describe(given)} your code gives {describe(answer)}, expected "
                f"{describe(expected(given))}.{_hint(hint)}"
            )
    print(f"✓ Right, on all {len(inputs)} inputs.")


def _hint(hint: str) -> str:
    return f" Hint: {hint}" if hint else ""
