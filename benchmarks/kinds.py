"""Do machines of different kinds agree? One small problem, the same seeds, two instruction sets of one processor.

    python -m benchmarks.kinds [FOLDER]     ten minutes on two idle cores; FOLDER keeps the runs, to continue from them

Each is trained once as it is and once under AVX2. The table says the mean over seeds and the spread between them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from mtl_core import problems
from mtl_study import artifacts
from mtl_study.analysis import comparisons, delta
from mtl_study.analysis.inference import t_interval
from mtl_study.experiments import runner
from mtl_study.experiments.runs import RunConfig
from mtl_study.experiments.store import RunStore

PROBLEM, METHODS, SEEDS, RATE, EPOCHS = "multimnist/CL_RR", ("unit_scal", "cagrad", "edm"), range(1, 9), 0.001, 10
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


def configs() -> list[RunConfig]:
    """The same on every machine."""
    return [
        RunConfig.of(problem=PROBLEM, smto=smto, seed=seed, epochs=EPOCHS, lr=RATE)
        for smto in METHODS
        for seed in SEEDS
    ]


def by_kind(folder: Path) -> dict[str, pd.DataFrame]:
    """Δm of every run, by kind of machine: index seed, one column per method. Baselines are the shipped ones."""
    tasks, shipped = problems.get(PROBLEM).tasks, RunStore(artifacts.REPOSITORY / "results")
    alone = [run for task in tasks for run in shipped.records(f"multimnist/{task.name}")]
    here = delta.single_task_baselines([run for run in alone if run.config.source == "embedded"], tasks)
    found = {}
    for place in sorted(folder.iterdir()):
        runs = runner.run(configs(), place)
        found[runs[0].machine] = comparisons.by_seed(delta.selected(runs, here, tasks))
    return found


def table(found: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Per method: Δm on each kind (mean and standard deviation over seeds), and the mean difference, seed by seed, with
    its 95 % interval."""
    (_, first), (_, second) = found.items()
    rows = []
    for smto in first:
        gap = t_interval(second[smto] - first[smto])
        cells = {kind: f"{of[smto].mean():.1f} ± {of[smto].std():.1f}" for kind, of in found.items()}
        rows.append(
            {"method": smto, **cells, "difference": f"{gap.mean:.2f} [{gap.low:.2f}, {gap.high:.2f}]", "seeds": gap.n}
        )
    return pd.DataFrame(rows)


def main() -> None:
    if sys.argv[1:2] == ["--train"]:
        runner.run(configs(), Path(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if sys.argv[1:] else temporary)
        for place, limits in (("as it is", {}), ("AVX2", AVX2)):
            command = [sys.executable, "-m", "benchmarks.kinds", "--train", str(folder / place)]
            subprocess.run(command, env={**os.environ, **limits}, check=True)
        print(table(by_kind(folder)).to_string(index=False))


if __name__ == "__main__":
    main()
