"""Records say under which instruction set they were made, and training goes through under each."""

import os
import subprocess
import sys

import numpy as np
import pytest
import scipy
import torch

from mtl_study.experiments import training
from mtl_study.experiments.runs import RunConfig


def test_a_record_says_processor_and_instruction_set(monkeypatch):
    """What torch uses, and what the libraries it calls were told not to exceed. Neither is part of what a run is."""
    for name in training.LIMITS.values():
        monkeypatch.delenv(name, raising=False)
    found, capability = training.environment(torch.device("cpu")), torch.backends.cpu.get_cpu_capability()
    assert found["processor"] and found["instruction_set"] == capability
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setenv("MKL_ENABLE_INSTRUCTIONS", "AVX2")
    found = training.environment(torch.device("cpu"))
    assert found["instruction_set"] == f"{capability}, oneDNN at most AVX2, MKL at most AVX2"
    assert (found["numpy"], found["scipy"]) == (np.__version__, scipy.__version__)


@pytest.mark.slow
def test_torchs_own_kernels_are_limited_by_a_variable_of_their_own():
    """What `make test-all` sets: a process that is told so uses no AVX-512, and says it."""
    code = "from mtl_study.experiments.training import instruction_set; print(instruction_set())"
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(("DEFAULT, oneDNN at most AVX2", "NO AVX, oneDNN at most AVX2"))


def test_the_processor_is_the_one_that_the_system_names():
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            assert training.processor() in file.read()


# -- under whatever instruction set this runs, and make test-all runs it under several ---------------------------------

TINY = {"train_size": 16, "val_size": 8, "test_size": 8, "batch_size": 8, "epochs": 1, "lr": 0.001, "seed": 1}
FAMILIES = [("multimnist/CL_RR", {}), ("qm9", {"max_atoms": 11, "slim": 4})]
FAMILIES += [
    (f"cityscapes/{step}", {"slim": slim, "width": 32}) for step in ("R18", "R50", "19C") for slim in (8, 16, 32)
]


@pytest.fixture(scope="module")
def streets_elsewhere(tmp_path_factory):
    """A folder for streets and arrays."""
    return str(tmp_path_factory.mktemp("data"))


@pytest.mark.training
@pytest.mark.parametrize(("problem", "options"), FAMILIES, ids=str)
def test_an_epoch_of_every_family_goes_through(problem, options, streets_elsewhere, monkeypatch):
    """Finite losses, and no write past some memory, which would end this process. Streets with both encoders, one and
    four times as many pixels, as narrow as they can be."""
    if problem.startswith("cityscapes"):
        monkeypatch.setenv("MTL_DATA", streets_elsewhere)
    run = training.train(RunConfig.of(problem=problem, smto="edm", problem_options=options, **TINY), "cpu")
    assert run.ended == "finished" and None not in run.history[0].train_losses


@pytest.mark.training
def test_a_record_says_under_which_instruction_set_it_was_made():
    """The one that torch uses, and the limits of this process, where it has any, in a record that was trained in it."""
    run = training.train(RunConfig.of(problem="multimnist/CL_RR", **TINY), "cpu")
    assert run.environment["instruction_set"] == training.instruction_set()
    assert run.environment["instruction_set"].split(",")[0] == torch.backends.cpu.get_cpu_capability()
