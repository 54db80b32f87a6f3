"""Answers to exercises: read, checked, and answered in a sentence. A wrong answer never stops a notebook.

seeded(7)                                gives the exercises below the numbers of a reader with this seed
numbers = ask("edm_weights")             the numbers of this reader's exercise; prints them
check("edm_weights", my_weights)         prints "✓ Right.", "○ Not answered yet." or "✗ Not yet." with a hint
accepted("edm_weights")                  the answer as it was read, if the last check found it right; else None

An exercise is a function in mtl_study/teaching/answers, one file per notebook. These files are no secret: who opens one
sees how the right answer is computed. The notebooks of the student edition hold no answers, and name these files only.
"""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import itertools
import math
import os
import pkgutil
import random
import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from mtl_core.names import nearest, plain
from mtl_study.teaching import limits
from mtl_study.words import counted, listed, minus

RIGHT, UNANSWERED, WRONG = "✓ Right.", "○ Not answered yet.", "✗ Not yet."
WIDTH = 110  # of a line of feedback
NBGRADER = "NBGRADER_EXECUTION"  # which nbgrader sets where it validates or grades a notebook
MANY = 10_000  # parts that an answer may have
SECONDS = 20  # that an answer may take, if it is code; what a check itself does takes about one


class Wrong(Exception):
    """What is wrong with an answer: a sentence for the one who gave it."""


class Unanswered(Exception):
    """A function that still returns nothing."""


class NotRight(AssertionError):
    """A check that found no right answer, where nbgrader runs it."""


# -- exercises ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exercise:
    """judge: a function of the answer (Given), the numbers and what the notebook hands over. It returns what to say to
    a right answer, or raises Wrong. numbers: by name, the values that a reader may meet, the standard one first. words:
    the numbers in a sentence."""

    name: str
    judge: Callable[..., str | None]
    numbers: Mapping[str, Sequence[Any]]
    words: str

    def asked(self, seed: int) -> dict[str, Any]:
        """The numbers of one reader: the standard ones for seed 0. Exercises that share a number draw the same."""
        return {
            name: random.Random(f"{seed} {name} {values}").choice(values) if seed else values[0]
            for name, values in self.numbers.items()
        }


BOOK: dict[str, Exercise] = {}
_accepted: dict[str, Any] = {}
_reader = {"seed": 0}


def exercise(words: str = "", **numbers: Sequence[Any]) -> Callable[[Callable[..., str | None]], Callable[..., Any]]:
    """Enter a function into the book, as the exercise of its name."""

    def enter(judge: Callable[..., str | None]) -> Callable[..., str | None]:
        BOOK[judge.__name__] = Exercise(judge.__name__, judge, numbers, words)
        return judge

    return enter


def book() -> dict[str, Exercise]:
    """All exercises, by name."""
    from mtl_study.teaching import answers

    for module in pkgutil.iter_modules(answers.__path__):
        importlib.import_module(f"{answers.__name__}.{module.name}")
    return BOOK


def find(name: str) -> Exercise:
    """An exercise. Raises KeyError, naming the nearest, for one that is not in the book."""
    if name not in BOOK and name not in book():
        raise KeyError(f"there is no exercise {name!r}{nearest(name, BOOK)}.")
    return BOOK[name]


# -- for notebooks -----------------------------------------------------------------------------------------------------


def seeded(seed: int) -> None:
    """Choose the numbers of all exercises that follow. `make student SEED=7` writes this call into its notebooks, so
    that a handed-in notebook says by itself which answers are right."""
    _reader["seed"] = seed


def ask(name: str) -> SimpleNamespace:
    """The numbers of an exercise, by name; it prints them."""
    asked = find(name).asked(_reader["seed"])
    _print(f"Your numbers: {find(name).words.format(**asked)}.")
    return SimpleNamespace(**asked)


def check(name: str, answer: Any, **facts: Any) -> None:
    """Feedback on an answer, in print. `None` and `...`, alone or as a part of it, count as not answered yet.

    Args:
        facts: what the exercise needs to know of the notebook.

    Raises:
        NotRight: under nbgrader, which reads marks from errors.
    """
    one = find(name)
    _accepted.pop(name, None)
    given = Given(answer)
    try:
        if unanswered(answer) or (isinstance(answer, tuple | list) and any(map(unanswered, answer))):
            raise Unanswered
        said = limits.within(SECONDS, lambda: one.judge(given, **one.asked(_reader["seed"]), **facts))
    except Unanswered:
        print(UNANSWERED)
    except (Wrong, limits.Stopped) as wrong:
        _print(f"{WRONG} You gave {given.said}. {wrong}")
    except (Exception, SystemExit) as error:  # an answer that nobody thought of must not end the notebook
        _print(f"{WRONG} You gave {given.said}. It cannot be read: {type(error).__name__}: {error}.")
    else:
        _accepted[name] = given.value
        _print(f"{RIGHT} {said or ''}".strip())
    if name not in _accepted and NBGRADER in os.environ:
        raise NotRight(f"{name} has no right answer")


def accepted(name: str) -> Any:
    """The answer as it was read, if the last check in this session found it right; else None."""
    return _accepted.get(name)


def _print(text: str) -> None:
    for line in text.splitlines():
        print(textwrap.fill(line, WIDTH, subsequent_indent="  "))


# -- reading -----------------------------------------------------------------------------------------------------------


@dataclass
class Given:
    """An answer. Each method reads it as something, and raises Wrong with what it expects; `value` is what was read,
    and `said` repeats it with names: "w₁ = 0.25 and w₂ = 0.75"."""

    raw: Any
    value: Any = field(init=False)
    said: str = field(init=False)

    def __post_init__(self) -> None:
        self.value, self.said = self.raw, describe(self.raw)

    def _read(self, value: Any, said: str) -> Any:
        self.value, self.said = value, said
        return value

    def number(self, name: str, low: float = -math.inf, high: float = math.inf) -> float:
        """One finite number in [low, high]."""
        found = self.numbers(name)[0]
        if not low <= found <= high:
            bounds = f"from {short(low)} to {short(high)}" if high < math.inf else f"at least {short(low)}"
            raise Wrong(f"{name} has to be {bounds}.")
        return float(self._read(found, f"{name} = {short(found)}"))

    def numbers(self, *names: str) -> np.ndarray:
        """One finite number per name: a list, an array, or a table by these names."""
        values = self.raw
        if isinstance(values, Mapping):
            by_name = {typed(str(key)): value for key, value in values.items()}
            if set(by_name) != set(map(typed, names)):
                raise Wrong(f"A number each for {listed(names)} is asked for.")
            values = [by_name[typed(name)] for name in names]
        if any(isinstance(value, bool | str) for value in [values, *_items(values)]):
            raise Wrong(f"{_asked_for(names)} asked for; words are no numbers.")
        if callable(values):
            raise Wrong(f"{_asked_for(names)} asked for; this is a function or a class.")
        try:
            found = np.asarray(values, dtype=float)
        except Exception:
            raise Wrong(f"{_asked_for(names)} asked for.") from None
        if found.size != len(names) or found.ndim > 1:
            there = f"{'is' if found.size == 1 else 'are'} {counted(found.size, 'number')}"
            raise Wrong(f"{_asked_for(names)} asked for, and there {there if found.ndim < 2 else 'is a table'}.")
        found = self._read(found.reshape(-1), named(names, found.reshape(-1)))
        if not np.isfinite(found).all():
            raise Wrong("That is not finite; somewhere a 0 divides.")
        return found

    def weights(self, *names: str) -> np.ndarray:
        """One positive number per name, with sum 1."""
        found = self.numbers(*names)
        if (found <= 0).any():
            raise Wrong(f"Each weight has to be above 0; {names[int(found.argmin())]} is not.")
        if abs(found.sum() - 1) > 1e-6:
            raise Wrong(f"The weights have to have sum 1; yours have {found.sum():.8g}. Divide each by that.")
        return found

    def keys(self, known: Mapping[str, str]) -> set[str]:
        """A set of keys. Labels are taken for keys, and a single one for a set of one.

        Args:
            known: the keys that there are, with their labels.
        """
        names = {plain(label): key for key, label in known.items()} | {plain(key): key for key in known}
        items = self.raw.split(",") if isinstance(self.raw, str) else _items(self.raw)
        several = isinstance(self.raw, Iterable) and not callable(self.raw) and getattr(self.raw, "ndim", 1) != 0
        if not several or not all(isinstance(item, str) for item in items):
            raise Wrong(f"A set of names is asked for, of {listed(known)}.")
        for item in items:
            if plain(item) not in names:
                raise Wrong(f"{item.strip()!r} is none of {listed(known)}{nearest(item, known)}.")
        found = {names[plain(item)] for item in items}
        self._read(found, listed((key for key in known if key in found), none="no name"))
        if not found:
            raise Wrong(f"At least one of {listed(known)} has to be in it.")
        return found

    def choice(self, *options: str) -> str:
        """One of these words."""
        names = {plain(option): option for option in options}
        if not isinstance(self.raw, str) or plain(self.raw) not in names:
            raise Wrong(f"One of {listed(map(repr, options), last='or')} is asked for.")
        return str(self._read(names[plain(self.raw)], repr(names[plain(self.raw)])))

    def truth(self) -> bool:
        """True or False, or yes or no."""
        words = {"true": True, "yes": True, "false": False, "no": False}
        found = words.get(plain(self.raw)) if isinstance(self.raw, str) else self.raw
        if not isinstance(found, bool | np.bool_):
            raise Wrong("True or False is asked for.")
        return bool(self._read(bool(found), str(bool(found))))

    def function(self, what: str = "function") -> Callable[..., Any]:
        """Something that can be called."""
        if not callable(self.raw):
            raise Wrong(f"The {what} itself is asked for: its name, without brackets and quotation marks.")
        kind = "class" if inspect.isclass(self.raw) else "function"
        self.said = f"the {kind} {getattr(self.raw, '__name__', 'without a name')}"
        if kind == "class" and what != kind:
            raise Wrong("This is a class. A function is asked for: `def mine(…): …`, and its name as the answer.")
        if _packaged(self.raw):
            raise Wrong(f"That is the package's own. Write a {what} yourself.")
        return self.raw

    def output(self, function: Callable[..., Any], one: Any, shape: tuple[int, ...], of: str) -> np.ndarray:
        """What a function gives for an input, which is called `of`: finite numbers in this shape."""
        try:
            output = function(_copied(one))
        except (Exception, SystemExit) as error:
            raise Wrong(f"For {of} it stops: {type(error).__name__}: {str(error).rstrip('.')}.") from None
        if unanswered(output):
            raise Unanswered
        try:
            found = np.asarray(output, dtype=float)
        except (TypeError, ValueError):
            raise Wrong(f"For {of} it gives {describe(output)}; {_size(shape)} asked for.") from None
        if found.shape != shape:
            raise Wrong(f"For {of} it gives {describe(found)}; {_size(shape)} asked for.")
        if not np.isfinite(found).all():
            raise Wrong(f"For {of} it gives {describe(found)}: not finite, somewhere a 0 divides.")
        return found

    def agrees(
        self,
        inputs: Sequence[Any],
        right: Callable[[Any], Any],
        mistakes: Iterable[tuple[Callable[[Any], Any], str]],
        hint: str,
        function: Callable[..., Any] | None = None,
        show: Callable[[Any], str] | None = None,
    ) -> str:
        """Hold a function against another one. A mistake is a function that gives other numbers, and the hint for it.
        What is accepted in the end is the answer as it was read: a function that gives arrays of floats.

        Args:
            function: what is made of the answer, where that is not the function itself. show: an input in words.
        """
        mine, show = function or self.function(), show or describe
        if mine is right:
            raise Wrong("That is what the check compares with. Write a function yourself.")
        if not inputs:
            raise Wrong("There is nothing yet to compare it with. Run the cells above, then this one again.")
        expected = [np.asarray(right(one), dtype=float) for one in inputs]
        found = [self.output(mine, one, e.shape, show(one)) for one, e in zip(inputs, expected, strict=True)]
        off = [i for i, pair in enumerate(zip(found, expected, strict=True)) if not same(*pair)]
        if not off:
            if function is None:
                self.value = lambda one: np.asarray(mine(_copied(one)), dtype=float)
            return f"It agrees on {'the one input' if len(inputs) == 1 else f'all {len(inputs)} inputs'}."
        for mistake, its_hint in mistakes:
            if all(same(value, mistake(one)) for value, one in zip(found, inputs, strict=True)):
                raise Wrong(its_hint)
        i = off[0]
        values = f"{describe(found[i])}, and {describe(expected[i])} would be right"
        raise Wrong(f"For {show(inputs[i])} it gives {values}. {hint}")


def spot(value: Any, right: Any, mistakes: Iterable[tuple[Any, str]], hint: str, tolerance: float = 1e-6) -> None:
    """Hold numbers against the right ones. Raises Wrong with the hint of the mistake that they are, or with `hint`.
    A mistake that comes to the right numbers is none."""
    if same(value, right, tolerance):
        return
    for mistake, its_hint in mistakes:
        if same(value, mistake, max(tolerance, 1e-3)):
            raise Wrong(its_hint)
    raise Wrong(hint)


# -- words -------------------------------------------------------------------------------------------------------------


def unanswered(answer: Any) -> bool:
    """Whether an exercise still holds what it was handed out with: None or `...`."""
    return answer is None or answer is ...


def same(answer: Any, expected: Any, tolerance: float = 1e-6) -> bool:
    """Whether an answer is the expected one: words in any case, sets in any order, numbers within the tolerance
    (relative, absolute where they are below 1)."""
    if isinstance(expected, str):
        return isinstance(answer, str) and answer.strip().casefold() == expected.strip().casefold()
    if isinstance(expected, bool | np.bool_):
        return isinstance(answer, bool | np.bool_) and bool(answer) == bool(expected)
    if isinstance(expected, set | frozenset):
        return isinstance(answer, set | frozenset | list | tuple) and set(answer) == expected
    truth = np.asarray(expected, dtype=float)
    try:
        given = np.asarray(answer, dtype=float)
    except (TypeError, ValueError):
        return False
    if given.shape != truth.shape or not np.isfinite(given).all():
        return False
    return bool((np.abs(given - truth) <= tolerance * np.maximum(1, np.abs(truth))).all())


def describe(value: Any) -> str:
    """A value as a reader wants to see it: numbers to four digits, anything else cut short."""
    if inspect.isroutine(value) or inspect.isclass(value):
        return getattr(value, "__name__", "a function")
    try:
        if isinstance(value, str | bool):
            raise TypeError
        array = np.asarray(value, dtype=float)
    except (Exception, SystemExit):
        return _written(value)
    shown = np.array2string(array, separator=", ", formatter={"float_kind": short}, threshold=20, edgeitems=2)
    return " ".join(shown.split())


def short(value: float | np.floating) -> str:
    """A number to four digits, with a true minus."""
    return minus(f"{value:.4g}")


def typed(name: str) -> str:
    """A name as it is typed, without capitals and signs: "w₁", "w_1" and "W1" are one."""
    return plain(unicodedata.normalize("NFKC", name))


def named(names: Sequence[str], values: Iterable[float]) -> str:
    """Numbers with their names: "w₁ = 0.25 and w₂ = 0.75"."""
    return listed(f"{name} = {short(value)}" for name, value in zip(names, values, strict=True))


def _written(value: Any) -> str:
    """What Python prints for a value, cut short; its class where it cannot be printed."""
    try:
        return textwrap.shorten(repr(value), 100, placeholder=" …")
    except (Exception, SystemExit):
        return f"an object of the class {type(value).__name__}, which cannot be printed"


def _copied(one: Any) -> Any:
    """An input for a function that may change it."""
    return copy.deepcopy(one) if isinstance(one, np.ndarray | list) else one


def _packaged(code: Any) -> bool:
    """Whether a function or a class is one of the package's, perhaps with some arguments filled in, or names nothing
    but one of the package's: `lambda points: fronts.nondominated(points)`."""
    while isinstance(code, functools.partial):
        code = code.func
    whole = [code]
    if inspect.isfunction(code) and code.__code__.co_names:
        first, *rest = code.__code__.co_names
        named_first = code.__globals__.get(first)
        whole.append(functools.reduce(lambda value, name: getattr(value, name, None), rest, named_first))
    return any(str(getattr(one, "__module__", "")).split(".")[0] in ("mtl_core", "mtl_study") for one in whole)


def _items(values: Any) -> list[Any]:
    """What a list, a set or an array holds; nothing where it is none of them."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        return []
    try:
        return list(itertools.islice(values, MANY))  # an iterator may have no end
    except TypeError:  # an array without axes
        return []


def _asked_for(names: Sequence[str]) -> str:
    return f"One number, {names[0]}, is" if len(names) == 1 else f"{len(names)} numbers, {listed(names)}, are"


def _size(shape: tuple[int, ...]) -> str:
    if len(shape) == 1 and shape[0] != 1:
        return f"{shape[0]} numbers are"
    return "one number is" if shape in ((), (1,)) else f"a table of {' by '.join(map(str, shape))} is"
