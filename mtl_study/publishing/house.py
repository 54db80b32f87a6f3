"""The map of the two packages, drawn from their imports: `python -m mtl_study.publishing.house` writes it into
CONTRIBUTING.md. FLOORS is the one statement of what may import what; the tests hold every module to it."""

from __future__ import annotations

import ast
from pathlib import Path

from mtl_core.files import write_atomically
from mtl_study import commands
from mtl_study.artifacts import REPOSITORY

TARGET = REPOSITORY / "CONTRIBUTING.md"
START, END = "<!-- map -->\n", "<!-- end of the map -->\n"
PACKAGES, OUTSIDE = ("mtl_core", "mtl_study"), ("benchmarks", "tests")

#: from top to bottom; a module imports from its own floor, without cycles, and from those below
FLOORS: dict[str, tuple[str, ...]] = {
    "publishing": ("mtl_study.publishing",),
    "figures and lessons": ("mtl_study.plots", "mtl_study.teaching"),
    "on one's own problem": ("mtl_study.comparing", "mtl_study.newcomer", "mtl_study.table", "mtl_study.checking"),
    "verdicts": (
        "mtl_study.paper.answer",
        "mtl_study.paper.conclusions",
        "mtl_study.paper.claims",
        "mtl_study.paper.rules",
        "mtl_study.paper.says",
    ),
    "what a notebook is given": ("mtl_study.parameters",),
    "protocol": (
        "mtl_study.experiments.protocol",
        "mtl_study.experiments.sweeps",
        "mtl_study.experiments.confounds",
        "mtl_study.experiments.gates",
        "mtl_study.experiments.population",
        "mtl_study.experiments.merge",
        "mtl_study.experiments.evidence",
    ),
    "records read, the paper's numbers": (
        "mtl_study.analysis",
        "mtl_study.paper.published",
        "mtl_study.paper.released",
    ),
    "training": (
        "mtl_study.experiments.runner",
        "mtl_study.experiments.engines",
        "mtl_study.experiments.leases",
        "mtl_study.experiments.training",
        "mtl_study.experiments.inner",
        "mtl_study.experiments.extras",
        "mtl_study.experiments.probes",
        "mtl_study.experiments.strides",
        "mtl_study.experiments.transfer",
        "mtl_study.experiments.waits",
    ),
    "records, words and looks": (
        "mtl_study.experiments.runs",
        "mtl_study.experiments.fingerprints",
        "mtl_study.experiments.store",
        "mtl_study.experiments.checkpoints",
        "mtl_study.experiments.digits",
        "mtl_study.experiments.corruptions",
        "mtl_study.artifacts",
        "mtl_study.execution",
        "mtl_study.provenance",
        "mtl_study.cells",
        "mtl_study.commands",
        "mtl_study.cosines",
        "mtl_study.look",
        "mtl_study.words",
    ),
    "what is learnt": (
        "mtl_core.problems",
        "mtl_study.streets",
        "mtl_study.own_loops",
        "mtl_study.adapters",
    ),
    "loops of one's own": ("mtl_core.balancer", "mtl_core.diagnosis"),
    "samples, networks, methods": ("mtl_core.datasets", "mtl_core.models", "mtl_core.smtos"),
    "the calculus": ("mtl_core.graph", "mtl_core.molecules", "mtl_core.step", "mtl_core.tasks"),
    "names and files": ("mtl_core.names", "mtl_core.options", "mtl_core.files", "mtl_core.progress"),
}


def imports(repository: Path = REPOSITORY) -> dict[str, set[str]]:
    """Every module of the two packages, and what it imports of them, of the benchmarks and of the tests, wherever in
    its file. The name of a package means its `__init__`, and is left out where that imports nothing.

    Raises:
        ValueError: a relative import; the whole name says where an arrow leads.
    """
    files = {
        ".".join(path.relative_to(repository).with_suffix("").parts).removesuffix(".__init__"): path
        for package in PACKAGES
        for path in sorted((repository / package).rglob("*.py"))
    }
    found: dict[str, set[str]] = {}
    for module, path in files.items():
        named: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                if node.level or not node.module:
                    raise ValueError(f"{path}, line {node.lineno}: a relative import; give the whole name.")
                named |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
        found[module] = {name for name in named if name in files or name.split(".")[0] in OUTSIDE} - {module}
    silent = {module for module, path in files.items() if path.name == "__init__.py" and not found[module]}
    return {module: others - silent for module, others in found.items() if module not in silent}


def floor(module: str) -> int:
    """On which floor a module is, 0 at the top. Raises KeyError for one that has none."""
    for number, rooms in enumerate(FLOORS.values()):
        if any(module == room or module.startswith(f"{room}.") for room in rooms):
            return number
    raise KeyError(f"{module} is on no floor; give it one in FLOORS, mtl_study/publishing/house.py.")


def room(module: str) -> str:
    """The room of a module: the entry of FLOORS that it belongs to."""
    rooms = list(FLOORS.values())[floor(module)]
    return next(room for room in rooms if module == room or module.startswith(f"{room}."))


def picture(found: dict[str, set[str]]) -> str:
    """The map as a Mermaid flow chart: floors with their rooms, and an arrow from a room to each room below that it
    imports from and does not reach through another."""
    arrows: dict[str, set[str]] = {}
    for module, others in found.items():
        arrows.setdefault(room(module), set()).update({room(other) for other in others} - {room(module)})

    def reached(start: str) -> set[str]:
        return set().union(*({other} | reached(other) for other in arrows.get(start, ())))

    lines = ["flowchart TB"]
    for number, (name, rooms) in enumerate(FLOORS.items()):
        lines.append(f'    subgraph floor{number}["{name}"]')
        for entry in rooms:
            inside = list(dict.fromkeys(m[len(entry) + 1 :].split(".")[0] for m in found if m.startswith(f"{entry}.")))
            shown = f"<b>{entry}</b>" + (f"<br>{_wrapped(inside)}" if inside else "")
            lines.append(f'        {_id(entry)}["{shown}"]')
        lines.append("    end")
    for start in (entry for rooms in FLOORS.values() for entry in rooms):
        ends = arrows.get(start, set())
        beyond = set().union(*(reached(end) for end in ends))
        lines += [f"    {_id(start)} --> {_id(end)}" for end in sorted(ends - beyond)]
    return "```mermaid\n" + "\n".join(lines) + "\n```\n"


def _id(entry: str) -> str:
    return entry.replace(".", "_")


def _wrapped(words: list[str], width: int = 48) -> str:
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += f"{word} "
    return "<br>".join(line.strip() for line in lines)


def with_map(text: str) -> str:
    """The text of CONTRIBUTING.md with the map as it is now. Raises ValueError if the place for it is not there."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(
            f"CONTRIBUTING.md lacks the lines {START.strip()} and {END.strip()}: the map goes between them."
        )
    return before + start + picture(imports()) + end + after


def main() -> None:
    write_atomically(TARGET, with_map(TARGET.read_text(encoding="utf-8")))


if __name__ == "__main__":
    commands.run(main)
