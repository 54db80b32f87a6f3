"""What a cell of a notebook rests on: the earlier cells whose names it uses, and theirs in turn.

    needed(["a = 1", "b = 2", "print(a)"], last=2)   {0, 2}

Read from the code, without running it. A cell is needed for the names that it binds, and for those that it changes in
place: by `x[…] = …`, `x.y = …`, `x += …`, `x.append(…)` or `f(x)` standing as statements of their own. A generator of
random numbers is changed by every cell that uses it. What only ends up on the screen changes nothing.
"""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

SHOWS = {"say", "print", "display", "publish", "publish_table", "show_source", "check"}
STREAMS = {"default_rng", "Generator", "RandomState"}
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
IMMEDIATE = {"listcomp", "setcomp", "dictcomp", "genexpr"}  # as symtable calls them
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass
class Names:
    """Of one cell. uses: names that it reads and has not given a value itself before; later: those among them that its
    functions read. binds: names that it gives a value; always: whatever happens, not only under a condition. changes:
    in place. streams: bound to a generator of random numbers."""

    uses: set[str] = field(default_factory=set)
    later: set[str] = field(default_factory=set)
    binds: set[str] = field(default_factory=set)
    always: set[str] = field(default_factory=set)
    changes: set[str] = field(default_factory=set)
    streams: set[str] = field(default_factory=set)


def needed(sources: Sequence[str], last: int) -> set[int]:
    """The cells that the cell `last` rests on, itself included, as indices; sources: the code of all cells."""
    cells = [names(source) for source in sources[: last + 1]]
    streams = set().union(*(cell.streams for cell in cells))
    found: set[int] = set()
    more = {last}
    while more - found:  # a function reads its names when it is called, also those that are bound after it
        found |= more
        wanted = set(cells[last].uses).union(*(cells[i].later for i in found))
        for i in range(last - 1, -1, -1):
            cell = cells[i]
            if wanted & (cell.binds | cell.changes | (streams & cell.uses)):
                more.add(i)
                wanted = (wanted - (cell.always - cell.changes)) | cell.uses
    return found


@lru_cache(maxsize=1024)
def names(source: str) -> Names:
    """The names of a cell; of one that is no Python (a magic command) none."""
    found = Names()
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return found
    for statement in tree.body:
        now, later = _free(symtable.symtable(ast.unparse(statement), "cell", "exec"))
        found.uses |= (now | later) - found.always - _loop_names(statement)
        found.later |= later
        alone = Names()
        for node in _outside_functions([statement]):
            _read(node, alone)
        found.binds |= alone.binds
        found.changes |= alone.changes
        found.streams |= alone.streams
        if isinstance(statement, (ast.Assign, ast.AnnAssign, ast.Import, ast.ImportFrom, *SCOPES)):
            found.always |= alone.binds
    return found


def _free(table: symtable.SymbolTable, deferred: bool = False) -> tuple[set[str], set[str]]:
    """The names that a statement reads from outside: at once, and when a function that it defines is called."""
    top = table.get_type() == "module"
    own = {s.get_name() for s in table.get_symbols() if s.is_referenced() and (top or s.is_global())}
    now, later = (set(), own) if deferred else (own, set())
    for inner in table.get_children():
        function = inner.get_type() == "function" and inner.get_name() not in IMMEDIATE
        found = _free(inner, deferred or function)
        now, later = now | found[0], later | found[1]
    return now, later


def _loop_names(statement: ast.stmt) -> set[str]:
    """The names that a loop or a `with` gives its values to before its body reads them."""
    targets: list[ast.AST] = []
    for node in ast.walk(statement):
        if isinstance(node, ast.For):
            targets.append(node.target)
        elif isinstance(node, ast.withitem) and node.optional_vars:
            targets.append(node.optional_vars)
    return {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}


def mentions(source: str, text: str) -> bool:
    """Whether a cell names something: as a string, or as an f-string that can become it."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except SyntaxError:
        return False
    return any(_can_be(node, text) for node in nodes if isinstance(node, ast.Constant | ast.JoinedStr))


def _can_be(node: ast.Constant | ast.JoinedStr, text: str) -> bool:
    if isinstance(node, ast.Constant):
        return bool(node.value == text)
    first = node.values[0] if node.values else None
    last = node.values[-1] if node.values else None
    begins = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""
    ends = last.value if isinstance(last, ast.Constant) and isinstance(last.value, str) else ""
    return len(begins) > 2 and text.startswith(begins) and text.endswith(ends)


def _outside_functions(nodes: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """These and all within them, except the bodies of functions and classes, and comprehensions' own names."""
    for node in nodes:
        yield node
        if not isinstance(node, SCOPES + COMPREHENSIONS):
            yield from _outside_functions(list(ast.iter_child_nodes(node)))


def _read(node: ast.AST, found: Names) -> None:
    """What one node binds and changes."""
    match node:
        case ast.Name(id=name, ctx=ast.Store()):
            found.binds.add(name)
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            found.binds.add(name)
        case ast.Import() | ast.ImportFrom():
            found.binds |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        case ast.AugAssign(target=target):
            found.changes |= _root(target)
        case ast.Subscript(ctx=ast.Store()) | ast.Attribute(ctx=ast.Store()):
            found.changes |= _root(node)
        case ast.Expr(value=ast.Call(func=function, args=args)) if not _root(function) & SHOWS:
            found.changes |= set().union(
                _root(function) if isinstance(function, ast.Attribute) else set(), *map(_root, args)
            )
    if isinstance(node, ast.Assign) and any(
        isinstance(part, ast.Name | ast.Attribute) and getattr(part, "id", getattr(part, "attr", "")) in STREAMS
        for part in ast.walk(node.value)
    ):
        found.streams |= set().union(*map(_root, node.targets))


def _root(node: ast.AST) -> set[str]:
    """The name that an expression begins with: {"x"} of `x.y[0]`."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Starred | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return {node.id} if isinstance(node, ast.Name) else set()
