"""Runs repeat on a GPU, are those of the CPU to rounding, and wait for it where they say. `make test-all MARK=gpu` runs
these."""

from __future__ import annotations

import contextlib
import warnings

import pytest
import torch

from mtl_core.smtos.base import LossWeighting
from mtl_core.smtos.registry import get, keys
from mtl_study.experiments import runner, training
from mtl_study.experiments.runs import RunConfig
from mtl_study.experiments.store import RunStore
from mtl_study.experiments.training import Training, train
from mtl_study.experiments.waits import Waits

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")]

GPU = "cuda"
SMALL = {"train_size": 32, "val_size": 8, "test_size": 8, "batch_size": 8, "epochs": 2, "lr": 0.001, "seed": 1}
FAMILIES = {
    "multimnist/CL_RR": ({}, {"dropout": 0.3}),
    "cityscapes/19C": ({"width": 32, "slim": 16}, {"dropout": 0.3}),
    "qm9": ({"max_atoms": 11, "slim": 4}, {}),
}
OPTIONS = {"fixed": {"weights": [0.3, 0.7]}, "bayesagg_mtl": {"warm_up": 0}, "stch": {"warm_up": 0}}
APART = {"seconds", "clock"}


@pytest.fixture(autouse=True)
def own_arrays(tmp_path_factory, monkeypatch) -> None:
    """The streets are drawn and reduced where nothing else looks."""
    monkeypatch.setenv("MTL_DATA", str(tmp_path_factory.getbasetemp() / "arrays"))


def config(problem: str, smto: str = "imtl", **changes) -> RunConfig:
    options, settings = FAMILIES[problem]
    given = {"problem": problem, "smto": smto, "problem_options": options, **SMALL, **settings}
    return RunConfig.of(**given | changes)


def of_method(smto: str) -> RunConfig:
    """Without dropout, whose masks are drawn on the device, in float64. BayesAgg-MTL asks for linear heads."""
    if smto == "bayesagg_mtl":
        return config("qm9", smto, precision="float64", options=OPTIONS[smto])
    return config("multimnist/CL_RR", smto, precision="float64", dropout=0.0, options=OPTIONS.get(smto, {}))


@contextlib.contextmanager
def only_deterministic():
    """A kernel that is not would be warned of, as the experiments ask for deterministic ones."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*deterministic.*")
        yield


@pytest.mark.parametrize("problem", FAMILIES)
def test_a_run_on_the_gpu_repeats(problem) -> None:
    """Two epochs of every family, twice: the same record, except for the seconds, made on a GPU."""
    with only_deterministic():
        one, two = (train(config(problem), GPU).model_dump(exclude=APART) for _ in range(2))
    assert one == two
    assert one["ended"] == "finished" and one["environment"]["device"].startswith(GPU)


def test_runs_that_share_a_gpu_are_those_of_one_at_a_time(tmp_path, monkeypatch) -> None:
    """Two seeds of every family, two at a time on one GPU, each in a process of its own."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", training.gpus(GPU)[0])
    monkeypatch.delenv("MTL_WORKERS", raising=False)
    wanted = [config(problem, seed=seed) for problem in FAMILIES for seed in (1, 2)]
    found = {}
    for number in ("1", "2"):
        monkeypatch.setenv("MTL_RUNS_PER_GPU", number)
        records = runner.run(wanted, RunStore(tmp_path / number), device=GPU)
        assert all(record.environment["device"].startswith(GPU) for record in records)
        found[number] = [record.model_dump(exclude=APART) for record in records]
    assert found["1"] == found["2"]


@pytest.mark.parametrize("smto", keys())
def test_every_methods_epochs_on_the_gpu_are_those_on_the_cpu(smto) -> None:
    """Losses, weights and metrics of two epochs, to rounding in float64: all chance is drawn on the host."""
    wanted = of_method(smto)
    there, here = train(wanted, GPU), train(wanted, "cpu")
    assert there.key == here.key and there.ended == here.ended == "finished"
    for one, other in zip(there.history, here.history, strict=True):
        assert one.train_losses == pytest.approx(other.train_losses, rel=1e-4)
        assert [w is None for w in one.weights] == [w is None for w in other.weights]  # a method may have none
        known = [[w for w in epoch.weights if w is not None] for epoch in (one, other)]
        assert known[0] == pytest.approx(known[1], rel=1e-3, abs=1e-6)
        for task, values in one.val.items():
            assert values == pytest.approx(other.val[task], rel=1e-3, abs=1e-6)


def test_a_store_takes_records_from_every_device(tmp_path) -> None:
    """A record that a GPU made is what a CPU is asked for, and the other way round: nothing is trained twice, and each
    says where it was made."""
    store = RunStore(tmp_path)
    first, second = config("multimnist/CL_RR"), config("multimnist/CL_RR", seed=2)
    on_gpu, on_cpu = (runner.run([one], store, device=name)[0] for one, name in ((first, GPU), (second, "cpu")))
    assert on_gpu.environment["device"].startswith(GPU) and on_cpu.environment["device"].startswith("cpu")
    for name in ("cpu", GPU):
        assert runner.run([first, second], store, device=name) == [on_gpu, on_cpu]
    assert len(list(store)) == 2 and on_gpu.machine != on_cpu.machine


def test_a_run_that_was_interrupted_on_the_gpu_continues_there(tmp_path) -> None:
    """From its checkpoint, as if nothing had been; on a CPU, which rounds otherwise, it begins again."""
    wanted, file = config("multimnist/CL_RR"), tmp_path / "checkpoint"
    train(wanted.model_copy(update={"epochs": 1}), GPU, checkpoint=file, every=0, keep=True)
    assert file.is_file()
    whole = train(wanted, GPU)
    assert train(wanted, GPU, checkpoint=file).model_dump(exclude=APART) == whole.model_dump(exclude=APART)
    train(wanted.model_copy(update={"epochs": 1}), GPU, checkpoint=file, every=0, keep=True)
    assert train(wanted, "cpu", checkpoint=file).history == train(wanted, "cpu").history


@pytest.mark.parametrize("problem", FAMILIES)
def test_steps_under_autocast_repeat_and_are_near_those_without(problem) -> None:
    """Evaluation is in float32; amp is part of what a run is."""
    plain, mixed = config(problem, "unit_scal"), config(problem, "unit_scal", precision="amp")
    assert plain.key != mixed.key
    with only_deterministic():
        one, two, whole = train(mixed, GPU), train(mixed, GPU), train(plain, GPU)
    assert one.model_dump(exclude=APART) == two.model_dump(exclude=APART)
    assert one.history != whole.history
    assert one.history[0].train_losses == pytest.approx(whole.history[0].train_losses, rel=0.1)


def test_steps_in_tf32_repeat() -> None:
    wanted = config("multimnist/CL_RR", precision="tf32")
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this GPU has no tf32")
    one, two = (train(wanted, GPU).model_dump(exclude=APART) for _ in range(2))
    assert one == two


def test_streets_that_stay_on_the_host_give_the_same_run(monkeypatch) -> None:
    """To the last bit: only where the maps are kept differs."""
    held = train(config("cityscapes/19C"), GPU).model_dump(exclude=APART)
    monkeypatch.setenv("MTL_STREAM", "1")
    assert train(config("cityscapes/19C"), GPU).model_dump(exclude=APART) == held


def test_upsampling_by_products_repeats_and_is_near_the_kernel() -> None:
    options, _ = FAMILIES["cityscapes/19C"]
    products = config("cityscapes/19C", problem_options=options | {"upsampling": "products"}, precision="float64")
    with only_deterministic():
        one, two = (train(products, GPU) for _ in range(2))
    assert one.model_dump(exclude=APART) == two.model_dump(exclude=APART)
    kernel = train(config("cityscapes/19C", precision="float64"), GPU)
    for epoch, other in zip(one.history, kernel.history, strict=True):
        assert epoch.train_losses == pytest.approx(other.train_losses, rel=1e-4)


@pytest.mark.parametrize("problem", FAMILIES)
def test_a_step_of_a_method_that_reads_losses_waits_for_nothing(problem) -> None:
    """torch itself raises where the host would wait. `test_waits` counts the same without a GPU."""
    with training.determinism(1):
        run = Training(config(problem, "uw"), torch.device(GPU), None)
        assert issubclass(get("uw"), LossWeighting)
        run.epoch()  # the first one allocates, and chooses kernels
        taken = run._step

        def step(*args) -> None:
            torch.cuda.set_sync_debug_mode("error")
            try:
                taken(*args)
            finally:
                torch.cuda.set_sync_debug_mode("default")

        run._step = step  # type: ignore[method-assign]
        run.epoch()
    assert len(run.history) == 2


def test_linear_algebra_waits_where_the_counter_says_so() -> None:
    """What bayesagg_mtl calls, and some that others might; torch itself raises where the host would wait."""
    matrix, right = 2 * torch.eye(3, device=GPU), torch.ones(3, 2, device=GPU)
    for call, *given in (
        (torch.linalg.cholesky, matrix),
        (torch.cholesky_solve, right, matrix),
        (torch.cholesky_inverse, matrix),
        (lambda a, b: torch.linalg.solve_triangular(a, b, upper=True), matrix, right),
        (torch.linalg.cholesky_ex, matrix),
        (torch.linalg.inv, matrix),
        (torch.linalg.solve, matrix, right),
        (torch.linalg.eigh, matrix),
    ):
        with Waits() as counted:
            call(*(tensor.to("meta") for tensor in given))
        call(*given)  # the first one loads its library
        torch.cuda.set_sync_debug_mode("error")
        waited = False
        try:
            call(*given)
        except RuntimeError:
            waited = True
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert waited == bool(counted.checked), call
