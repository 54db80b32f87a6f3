"""What a method from outside the package is made of, in 16 hexadecimal digits: another definition under the same key is
another method, whose records are never taken for those of the first.

Code and values count, with all that they use at any depth; where a class is read from a file, so does the whole source
of that file and of those beside it that it imports (comments and blanks do not). What belongs to an installed package
counts by its name.
"""

from __future__ import annotations

import ast
import contextlib
import dis
import functools
import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType, GetSetDescriptorType, MappingProxyType, MemberDescriptorType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtl_core.options import BadOption

COMPILERS_OWN = {"PUSH_NULL", "PRECALL", "RESUME", "NOP", "CACHE"}  # these depend on the code around a class, too
UNTOLD = {"__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__annotations__", "__firstlineno__"}
UNTOLD |= {"__static_attributes__", "_abc_impl"}
#: what pydantic makes of a class's fields, with the class's place in memory
UNTOLD |= {"__pydantic_core_schema__", "__pydantic_validator__", "__pydantic_serializer__", "__signature__"}
PACKAGE = ("mtl_core", "mtl_study")
INSTALLED = {"site-packages", "dist-packages"}

_held: dict[type, str] | None = None
#: by file, and what was loaded from it (which lives on here, so that its id stays its own): the source that it had then
_read: dict[tuple[Path, int], tuple[Any, str]] = {}


class CannotTell(BadOption):
    """A method rests on something of which cannot be told whether it has changed."""


@contextlib.contextmanager
def held(known: Mapping[type, str] | None = None) -> Iterator[None]:
    """Within it a method has the fingerprint that it had first, here or, where it is known, in another process: what a
    method keeps outside itself may change while it trains."""
    global _held
    before, _held = _held, {**(_held or {}), **(known or {})}
    try:
        yield
    finally:
        _held = before


def fingerprint(smto: type) -> str:
    """Of a class from outside the package: changes with its code and values, and not with where or when they are read.

    Raises:
        CannotTell: a class without a file, as in a notebook, uses what cannot be told: a lock, an open file, …
    """
    if _held is not None and smto in _held:
        return _held[smto]
    teller = _Teller(smto)
    parts = [teller.tell(smto), sorted(teller.parts.items()), sorted(teller.sources())]
    found = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    if _held is not None:
        _held[smto] = found
    return found


def _installed(module: str) -> bool:
    top = module.partition(".")[0]
    if top in PACKAGE:
        return top == "mtl_core"  # what the study makes of others' methods has no code version: its code counts
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return top in sys.stdlib_module_names or top == "builtins" or bool(INSTALLED & {*Path(file).parts})


def _globals_of(code: CodeType) -> set[str]:
    """The names that code looks up around it, that of functions within it included."""
    inside = (_globals_of(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    looked_up = ("LOAD_GLOBAL", "LOAD_NAME")
    return {one.argval for one in dis.get_instructions(code) if one.opname in looked_up}.union(*inside)


def _file(code: CodeType) -> Path | None:
    path = Path(code.co_filename)
    return path if path.is_file() else None


def _functions(one: type) -> list[FunctionType]:
    found = (getattr(value, "__func__", getattr(value, "fget", value)) for value in vars(one).values())
    return [value for value in found if isinstance(value, FunctionType) and value.__module__ == one.__module__]


class _Teller:
    """Turns what a class is made of into JSON. parts: its functions and classes, each under a name; loaded: the files
    that they are from, with what tells whether a file was read again."""

    def __init__(self, smto: type) -> None:
        self.smto, self.parts, self.loaded = smto, dict[str, Any](), dict[Path, Any]()
        self.named: dict[str, Any] = {}
        self.inside: list[int] = []
        self.where: list[str] = []
        self.in_file = smto.__module__.startswith(PACKAGE) or bool(self._of_file(smto))

    def tell(self, value: Any) -> Any:
        """Of a value, what changes with it."""
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            return repr(value)
        if isinstance(value, FunctionType | type):
            return self._once(value)
        if id(value) in self.inside:
            return f"again, {len(self.inside) - self.inside.index(id(value))} around it"
        self.inside.append(id(value))
        try:
            return [type(value).__qualname__, self._content(value)]
        finally:
            self.inside.pop()

    def _content(self, value: Any) -> Any:
        if type(value) in (list, tuple):
            return [self.tell(item) for item in value]
        if type(value) in (set, frozenset):
            return sorted(json.dumps(self.tell(item)) for item in value)
        match value:
            case MappingProxyType() | dict() if type(value) in (dict, MappingProxyType):
                return [[self.tell(name), self._at(str(name), item)] for name, item in value.items()]
            case Tensor() | np.ndarray() | np.generic():
                return self._numbers(value)
            case staticmethod() | classmethod():
                return self.tell(value.__func__)
            case property():
                return [self.tell(one) for one in (value.fget, value.fset, value.fdel)]
            case re.Pattern():
                return [self.tell(value.pattern), value.flags]
            case functools.cached_property():
                return self.tell(value.func)
            case CodeType():
                return [
                    self._instruction(one) for one in dis.get_instructions(value) if one.opname not in COMPILERS_OWN
                ]
            case ModuleType():
                if not _installed(value.__name__) and value.__name__.partition(".")[0] not in PACKAGE:
                    self._loaded(getattr(value, "__file__", None), vars(value))
                return value.__name__
            case MemberDescriptorType() | GetSetDescriptorType():
                return value.__name__
        if "__wrapped__" in getattr(value, "__dict__", {}):
            return self.tell(value.__wrapped__)
        return self._reduced(value)

    def _numbers(self, value: Any) -> Any:
        """Of a tensor or an array."""
        if isinstance(value, Tensor):
            try:
                plain = value.detach().cpu().resolve_conj().resolve_neg().contiguous().flatten()
                content = plain.view(torch.uint8).numpy().tobytes()
            except (RuntimeError, NotImplementedError, TypeError) as error:
                return self._untold(value, error)
            return [str(value.dtype), [*value.shape], hashlib.sha256(content).hexdigest()]
        if value.dtype.hasobject:
            return [[*value.shape], self.tell(value.ravel().tolist())]
        return [str(value.dtype), [*value.shape], hashlib.sha256(value.tobytes()).hexdigest()]

    def _reduced(self, value: Any) -> Any:
        """Of any other object what pickle would keep."""
        try:
            found = value.__reduce_ex__(4)
        except Exception as error:
            return self._untold(value, error)
        if isinstance(found, str):
            return found
        parts = [list(part) if number > 2 and part is not None else part for number, part in enumerate(found)]
        return [self.tell(part) for part in parts]

    def _untold(self, value: Any, error: Exception) -> str:
        kind = type(value).__qualname__
        if self.in_file:
            return kind  # the source tells how it was made
        raise CannotTell(
            f"{self.smto.__qualname__}: {'.'.join(self.where)} is a {kind}, of which cannot be told whether it has "
            f"changed since a record was made ({str(error).splitlines()[0] if str(error) else type(error).__name__}). "
            "Make it in __init__, or move the class into a file that you import: there the whole source counts."
        )

    def _at(self, name: str, value: Any) -> Any:
        self.where.append(name)
        found = self.tell(value)
        self.where.pop()
        return found

    def _once(self, value: Any) -> str:
        """The name under which a function or a class is told."""
        module = value.__globals__.get("__name__", "") if isinstance(value, FunctionType) else value.__module__
        own = value.__code__.co_qualname if isinstance(value, FunctionType) else value.__qualname__
        name = own if module == self.smto.__module__ else f"{module}.{own}"
        if _installed(str(module)):
            wrapped = vars(value).get("__wrapped__") if isinstance(value, FunctionType) else None
            return name if wrapped is None else f"{name} of {self.tell(wrapped)}"
        while self.named.setdefault(name, value) is not value:
            name += "'"
        if name not in self.parts:
            self.parts[name] = None  # one that uses itself is told once
            around, self.where = self.where, [value.__qualname__]
            self.parts[name] = self._class(value) if isinstance(value, type) else self._function(value)
            self.where = around
        return name

    def _class(self, one: type) -> Any:
        self._of_file(one)
        attributes = [[name, self._at(name, value)] for name, value in sorted(vars(one).items()) if name not in UNTOLD]
        return [[self.tell(base) for base in one.__bases__], attributes]

    def _function(self, function: FunctionType) -> Any:
        code, around = function.__code__, function.__globals__
        told = [self.tell(part) for part in (code, function.__defaults__, function.__kwdefaults__, vars(function))]
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # a cell that is empty still
                told.append([name, self._at(name, cell.cell_contents)])
        if str(around.get("__name__", "")).partition(".")[0] in PACKAGE:
            return told
        self._loaded(_file(code), around)
        names = sorted(name for name in _globals_of(code) & around.keys() if not name.startswith("__"))
        return [*told, [[name, self._at(name, around[name])] for name in names]]

    def _instruction(self, one: dis.Instruction) -> list[Any]:
        jumps = one.opcode in dis.hasjrel or one.opcode in dis.hasjabs  # how far depends on what the compiler adds
        return [one.opname.replace("METHOD", "ATTR"), None if jumps else self.tell(one.argval)]

    def _of_file(self, one: type) -> bool:
        """Whether a class is read from a file, which is noted."""
        if one.__module__.partition(".")[0] in PACKAGE:
            return False
        around = vars(sys.modules[one.__module__]) if one.__module__ in sys.modules else {}
        if functions := _functions(one):
            return self._loaded(_file(functions[0].__code__), functions[0].__globals__)
        return self._loaded(around.get("__file__"), around)

    def _loaded(self, file: str | Path | None, around: Mapping[str, Any]) -> bool:
        if file is None or not Path(file).is_file() or INSTALLED & {*Path(file).parts}:
            return False
        self.loaded[Path(file).resolve()] = around.get("__spec__") or around
        return True

    def sources(self) -> list[str]:
        """Of the files that were met, and of those beside them that they import."""
        found, todo = dict[Path, str](), dict(self.loaded)
        while todo:
            path, loaded = todo.popitem()
            if path.suffix not in (".py", ""):
                found[path] = hashlib.sha256(path.read_bytes()).hexdigest()
                continue
            found[path], beside = _source(path, loaded)
            todo |= {other: by for other, by in beside.items() if other not in found}
        return [hashlib.sha256(text.encode()).hexdigest() for text in found.values()]


def _source(path: Path, loaded: Any) -> tuple[str, dict[Path, Any]]:
    """Of a file what it says, as it was when it was loaded, and the files in its folder that it imports."""
    if loaded is None or (path, id(loaded)) not in _read:
        _read[path, id(loaded)] = loaded, path.read_text(encoding="utf-8", errors="replace")
    text = _read[path, id(loaded)][1]
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return text, {}
    return ast.dump(tree), _beside(path, tree)


def _beside(path: Path, tree: ast.Module) -> dict[Path, Any]:
    names: list[tuple[Path, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [(path.parent, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            folder = path.parents[max(node.level, 1) - 1] if node.level <= len(path.parents) else path.parent
            names += [(folder, ".".join(filter(None, (node.module, alias.name)))) for alias in node.names]
    found: dict[Path, Any] = {}
    for folder, name in names:
        parts = name.split(".")
        for length in range(1, len(parts) + 1) if parts[0] not in PACKAGE else ():
            place = folder.joinpath(*parts[:length])
            module = sys.modules.get(".".join(parts[:length]))
            for file in (place.with_suffix(".py"), place / "__init__.py"):
                if file.is_file():
                    found[file.resolve()] = getattr(module, "__spec__", None)
    return found
