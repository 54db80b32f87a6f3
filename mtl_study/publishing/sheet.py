"""The cheat sheet: every method on one page, with what it reads, what it guarantees and what a step costs.

    python -m mtl_study.publishing.sheet      writes docs/cheat_sheet.md

Read off the registry, the search for counterexamples (`teaching.guarantees`) and what docs/bench.md measured.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from mtl_core import files, smtos
from mtl_study import artifacts, commands
from mtl_study.look import in_order, label
from mtl_study.publishing import methods
from mtl_study.teaching import guarantees

TARGET = artifacts.REPOSITORY / "docs" / "cheat_sheet.md"
BENCH = artifacts.REPOSITORY / "docs" / "bench.md"
MEASURED = "One training step on multimnist/CL_RR, batch 256, one thread"

TEXT = """\
# Cheat sheet

Made by `python -m mtl_study.publishing.sheet`; [methods.md](methods.md) has a page for each method, and
[the glossary](glossary.md) the words.

**Guarantees.** ✓: no counterexample among small problems ([which](methods.md#what-each-guarantees)); ✗: there is one;
empty: not asked. Asked are the methods that compute all their weights from the Gramian of a step; some read the losses
of the step as well (MGDA, MGDA-UB). A method with a memory is asked for a first step, and that of CDTT is EDM's. The
others are not asked: their weights are constant, drawn, learnt or made from something else, or they do more than weigh
(IMTL learns scales as well).

**Cost.** Time of a training step over that of the plain sum of the losses, for two tasks on a small network
([measured](bench.md#one-training-step)); empty: not measured. A method that reads gradients on the parameters takes one
backward pass through the encoder per task, so its cost grows with the number of tasks; one that reads losses, or
gradients on the features, takes one in all. FAMO looks at the losses a second time.
"""


def costs(text: str) -> dict[str, float]:
    """What a step of each method costs over plain training, as docs/bench.md has it. Raises ValueError without it."""
    _, found, rest = text.partition(MEASURED)
    if not found:
        raise ValueError(f"docs/bench.md lacks the table that begins with {MEASURED!r}.")
    rows = re.findall(r"^(\w+) +[\d.]+ +([\d.]+) +[\d.]+$", rest.partition("```")[0], re.MULTILINE)
    return {key: float(ratio) for key, ratio in rows}


def table() -> pd.DataFrame:
    """A row per method, in order of display."""
    cost, promised = costs(BENCH.read_text(encoding="utf-8")), guarantees.table()
    rows = []
    for key in in_order(smtos.keys()):
        row = {"method": label(key), "reads": methods.READS.get(smtos.get(key).space, smtos.get(key).space)}
        for promise in guarantees.BROKEN:
            kept = key in promised.index and not any(promised.loc[key, promise])
            row[promise] = "" if key not in promised.index else "✓" if kept else "✗"
        rows.append(row | {"cost": f"{cost[key]:.2f}" if key in cost else ""})
    return pd.DataFrame(rows).set_index("method")


def markdown() -> str:
    """The whole page."""
    return f"{TEXT}\n{artifacts.to_markdown(table())}"


def main(target: Path = TARGET) -> None:
    files.write_atomically(target, markdown())
    print(f"Wrote {target}")


if __name__ == "__main__":
    commands.run(main)
