"""Every notebook on a GPU. `make test-all MARK=gpu` runs this."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from mtl_study import artifacts, parameters
from mtl_study.experiments.store import RunStore
from mtl_study.publishing import calibration

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")]

GPU = "cuda"


@pytest.mark.slow
def test_every_notebook_runs_at_smoke_on_the_gpu(tmp_path) -> None:
    """Trained from nothing, `device: auto`: each is done, and all its runs were made on the GPU."""
    command = [sys.executable, "-m", "mtl_study.publishing.reproduce", "--preset", "smoke"]
    places = ["--store", str(tmp_path / "store"), "--artifacts", str(tmp_path / "pages")]
    done = subprocess.run(
        [*command, *places], cwd=artifacts.REPOSITORY, env={**os.environ}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    found = json.loads((tmp_path / "pages" / "smoke" / "summary.json").read_text())
    assert len(found["notebooks"]) == len(parameters.SCHEMAS)
    devices = {run.environment["device"].split()[0] for run in RunStore(tmp_path / "store")}
    assert devices == {GPU}


@pytest.mark.parametrize("amp", [False, True], ids=["float32", "amp"])
def test_what_a_preset_takes_is_measured_on_the_gpu(amp) -> None:
    """A step of each family, for the hours of `make plan`."""
    for problem, options in (
        ("multimnist/CL_RR", ()),
        ("cityscapes/19C", (("slim", 16), ("width", 32))),
        ("qm9", (("max_atoms", 9), ("slim", 4))),
    ):
        for way in calibration.STANDS_FOR:
            shape = calibration.Shape(problem, options, 8, way)
            assert calibration.seconds(shape, torch.device(GPU), amp=amp) > 0
