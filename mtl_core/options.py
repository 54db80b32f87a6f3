"""Options by name, checked against the signature that takes them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mtl_core.names import nearest


class BadOption(ValueError):
    """An SMTO or a problem was asked for by a wrong name, or with a wrong option."""


@cache
def parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """What a function takes: name to parameter, with annotation and default."""
    return inspect.signature(function, eval_str=True).parameters


_adapter = cache(TypeAdapter)


def check_options(owner: str, known: Mapping[str, inspect.Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """Holds options against the signature that takes them.

    Returns:
        What the options say, each in one spelling only: values in the type that is asked for (1 is 1.0 where a float
        is, −0.0 is 0.0), without those that are the default.

    Raises:
        BadOption: naming the owner and the nearest name.
    """
    said = {}
    for name, value in given.items():
        if name not in known:
            words = f"Its options: {', '.join(known) or 'none'}."
            raise BadOption(f"{owner} has no option {name!r}{nearest(name, known)}. {words}")
        try:
            typed = _adapter(known[name].annotation).validate_python(value, strict=True)
        except ValidationError as error:
            words = f"{error.errors()[0]['msg']}. Default: {known[name].default!r}."
            raise BadOption(f"{owner}: option {name} = {value!r}: {words}") from None
        numbers = typed if isinstance(typed, list) else [typed]
        numbers = [number + 0.0 if isinstance(number, float) else number for number in numbers]  # 0.0 for −0.0
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            raise BadOption(f"{owner}: option {name} = {value!r}: expected a finite number.")
        typed = numbers if isinstance(typed, list) else numbers[0]
        if typed != known[name].default:
            said[name] = typed
    return said
