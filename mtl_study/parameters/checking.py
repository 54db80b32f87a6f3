"""What comes from outside: text read as YAML without its traps, values brought to the type that is asked for where that
is unambiguous, and all that is wrong said in one message.

A schema is a `Table`: names with types, nested. Nothing has a default that would say something else than was meant.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import PureWindowsPath
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from mtl_core.names import nearest

T = TypeVar("T")
NUMBER_AS_TEXT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
TRAPS = re.compile(r"[-+]?(0[0-9_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")  # base 8 and base 60 of YAML 1.1
EXPECTED = {
    "int_type": "a whole number",
    "int_parsing_size": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true/false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a table of names and values",
    "model_type": "a table of names and values",
    "finite_number": "a finite number",
}


class BadParameters(ValueError):
    """Values that a notebook cannot run with, or a preset or a notebook that does not hold them as it should."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: the message alone."""
        return [str(self)]


# -- YAML --------------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML in which a name is given once, and a number is what a reader sees: YAML 1.1 takes 02000 for 1024 (base 8)
    and 17:04 for 1024 (base 60)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if names.count(key.value) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"given twice: {key.value}", key.start_mark)
        return super().construct_mapping(node, deep)

    def _number(self, node: yaml.ScalarNode) -> int | float:
        whole = node.tag.endswith("int")
        number = self.construct_yaml_int(node) if whole else self.construct_yaml_float(node)
        if TRAPS.fullmatch(node.value) and set(node.value) - set("0+-"):
            meant = node.value.lstrip("+-0") or "0"
            says = f'{node.value} is {number} in YAML 1.1; write {meant} or {number}, or "{node.value}" for text'
            raise yaml.constructor.ConstructorError(None, None, says, node.start_mark)
        return number


for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader._number)


def read_yaml(text: str) -> Any:
    """What a text says. Raises ValueError: it is no YAML, gives a name twice, or has a number that is another one than
    it looks like."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.constructor.ConstructorError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise ValueError(f"line {line}: {error.problem}.") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"this is no YAML: {' '.join(str(error).split())}") from None


def from_text(values: dict[str, Any], schema: type[BaseModel]) -> dict[str, Any]:
    """These values; where one is text that is a list or a table in YAML, as `papermill -p seeds "[1, 2]"` hands it
    over, and the schema wants something else than text, it is what the text says."""
    found = {}
    for name, value in values.items():
        field = schema.model_fields.get(name)
        if isinstance(value, str) and field is not None and field.annotation is not str and value.strip()[:1] in "[{":
            try:
                value = read_yaml(value)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        found[name] = value
    return found


def completed(given: dict[str, Any], whole: dict[str, Any], schema: type[BaseModel]) -> dict[str, Any]:
    """These values, where what is not given of a table is as in others; what is no table of the schema stays as it
    is."""
    found = dict(given)
    for name, table in _tables(schema).items():
        ours, theirs = given.get(name), whole.get(name)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            found[name] = {**theirs, **completed(ours, theirs, table)}
    return found


def place_of(name: str, schema: type[BaseModel]) -> str:
    """Where an unknown name may belong, to be said in brackets: the nearest one here, or the table that has it."""
    for table, inner in _tables(schema).items():
        if name in inner.model_fields:
            return f" (it belongs to {table}: write {table}: {{{name}: …}})"
    return nearest(name, schema.model_fields)


def _tables(schema: type[BaseModel]) -> dict[str, type[BaseModel]]:
    kinds = {name: field.annotation for name, field in schema.model_fields.items()}
    return {name: kind for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, BaseModel)}


# -- types -------------------------------------------------------------------------------------------------------------


class Table(BaseModel):
    """Names and values: all of them, and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _once(values: list[T]) -> list[T]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"names {value!r} {'twice' if values.count(value) == 2 else 'several times'}")
    return values


def place(text: str) -> str:
    """A folder as a person writes it, ~ expanded. Raises ValueError if it can be none here."""
    if "\0" in text:
        raise ValueError("is no path")
    if os.name != "nt" and (PureWindowsPath(text).drive or "\\" in text):
        raise ValueError("is a path of Windows, and this is another system; write it with / and without a drive")
    path = os.path.expanduser(text)
    if path.startswith("~"):
        raise ValueError("names the home of a user that is not known here")
    return path


def _not_empty(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty, expected a folder")
    return text


def _name(text: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", text):
        raise ValueError(f"is {text!r}, which is no name of a folder in params/")
    return text


Name = Annotated[str, AfterValidator(_name)]  # of a preset: what is written goes into a folder of this name
Once = AfterValidator(_once)  # of a list: no value comes twice
Place = Annotated[str, AfterValidator(place)]  # a folder, "" where none is needed; ~ is expanded
Folder = Annotated[Place, AfterValidator(_not_empty)]


# -- messages ----------------------------------------------------------------------------------------------------------


def explain(error: ValidationError, schema: type[BaseModel]) -> list[str]:
    """What is wrong, one sentence per value, each with its place and the nearest name."""
    said = [_said(one, schema) for one in error.errors(include_url=False)]
    return list(dict.fromkeys(said))


def _said(problem: Any, schema: type[BaseModel]) -> str:
    kind, value, context = problem["type"], problem["input"], problem.get("ctx", {})
    parts = [part for part in problem["loc"] if part != "[key]"]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")
    if kind == "missing":
        return f"missing: {where}"
    if kind == "extra_forbidden":
        owner = _owner(schema, parts[:-1])
        known = list(owner.model_fields) if owner else []
        there = ".".join(map(str, parts[:-1])) or "the notebook"
        hint = place_of(str(parts[-1]), owner) if owner else ""
        return f"unknown parameter {where!r}{hint}; {there} has: {', '.join(known)}"
    if kind == "value_error":
        message = str(context["error"]).rstrip(".")
        return f"{where} {message}" if where else message
    if kind == "literal_error":
        options = context["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        hint = nearest(value, options) if isinstance(value, str) else ""
        return f"{where} is {_kind(value)}{hint}, expected {context['expected']}"
    if kind in ("too_short", "too_long"):
        least = context.get("min_length", context.get("max_length"))
        bound = "at least" if kind == "too_short" else "at most"
        return f"{where} has {context['actual_length']} values, expected {bound} {least}"
    if kind in EXPECTED:
        return f"{where} is {_kind(value)}, expected {EXPECTED[kind]}{_hint(kind, value)}"
    return f"{where} is {_kind(value)}: {problem['msg'].replace('Input should be', 'expected')}"


def _owner(schema: type[BaseModel], parts: list[Any]) -> type[BaseModel] | None:
    """The table at this place of a schema."""
    found: Any = schema
    for part in parts:
        if not (isinstance(found, type) and issubclass(found, BaseModel) and part in found.model_fields):
            return None
        found = found.model_fields[part].annotation
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def _hint(kind: str, value: Any) -> str:
    """How to write what was probably meant."""
    if kind in ("int_type", "float_type") and isinstance(value, str) and NUMBER_AS_TEXT.fullmatch(value):
        number = float(value)
        shown = int(number) if number.is_integer() and kind == "int_type" else number
        return f"; YAML takes 1e-3 for text: write {shown!r}"
    if kind == "int_type" and isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return f"; write {int(value)}"
    if kind == "list_type" and isinstance(value, str | int | float):
        text = str(value).strip()
        return "; write it without quotes" if text.startswith("[") else f"; write [{text}]" if text else ""
    return ""


def _kind(value: Any) -> str:
    names = {str: "text", bool: "true/false", int: "a whole number", float: "a number with a point", list: "a list"}
    names |= {dict: "a table of names and values", type(None): "null"}
    shown = json.dumps(value, default=str, ensure_ascii=False)
    shown = shown if len(shown) <= 80 else f"{shown[:77]}…"
    return f"{names.get(type(value), type(value).__name__)} ({shown})"
