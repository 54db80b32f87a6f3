"""Runs that die, hang or are killed; drivers that are; sweeps that share a store; methods of a script; Dask."""

import functools
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections import Counter
from pathlib import Path

import nbformat
import psutil
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook

from mtl_study.artifacts import REPOSITORY
from mtl_study.experiments import engines, runner, training
from mtl_study.experiments.engines import Failure, Local
from mtl_study.experiments.runs import BadConfig, RunConfig

ENGINES = ["local", pytest.param("dask", marks=pytest.mark.cluster)]
SETTINGS = {"problem": "multimnist/CL_RR", "lr": 0.002, "epochs": 1, "batch_size": 64}
SIZES = {"train_size": 128, "val_size": 40, "test_size": 40}


def config(**settings):
    return RunConfig.of(**{**SETTINGS, **SIZES, "seed": 0, **settings})


@pytest.fixture
def local():
    engine = Local(workers=2, time_limit=60)
    yield engine
    engine.close()


def all_of(engine, number, seconds=120):
    """What comes back, by name, once so many have."""
    found, deadline = {}, time.monotonic() + seconds
    while len(found) < number and time.monotonic() < deadline:
        found |= dict(engine.completed(1))
    return found


# -- the processes -----------------------------------------------------------------------------------------------------


def test_tasks_come_back_and_processes_are_reused(local):
    local.submit("a", pow, 2, 3)
    local.submit("b", os.getpid)
    first = all_of(local, 2)
    local.submit("c", os.getpid)
    local.submit("d", os.getpid)
    second = all_of(local, 2)
    assert first["a"] == 8 and first["b"] in second.values() and os.getpid() not in second.values()


def test_processes_are_spread_over_the_gpus():
    """Each sees one; a task goes where the fewest are, and to a process that is there."""
    engine = Local(workers=3, time_limit=60, gpus=["3", "5"])
    look = functools.partial(lambda: (os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"]))
    try:
        engine.submit("a", look)
        engine.submit("b", look)
        assert [engine.busy[name].gpu for name in "ab"] == ["3", "5"]
        first = all_of(engine, 2)
        engine.submit("c", look)
        assert [first[name][1] for name in "ab"] == ["3", "5"] and all_of(engine, 1) == {"c": first["a"]}
    finally:
        engine.close()


@pytest.mark.parametrize("workers", range(1, 8))
@pytest.mark.parametrize("gpus", [["0"], ["3", "5"], ["GPU-a", "GPU-b", "GPU-c"]])
def test_dask_workers_are_spread_over_the_gpus_as_processes_are(monkeypatch, workers, gpus):
    """Of as many at a time, each GPU has as many with either engine. Without a GPU, and elsewhere, nothing is set."""
    monkeypatch.setattr(engines, "spare", lambda *_: iter(()))
    monkeypatch.setattr(engines, "Worker", StandsStill)
    local = Local(workers, 60, gpus)
    for number in range(workers):
        local.submit(str(number), os.getpid)
    of_dask = [engines.gpu_of(number, gpus) for number in range(workers)]  # as a LocalCluster names its workers
    assert Counter(of_dask) == Counter(worker.gpu for worker in local.busy.values())
    assert len({*of_dask}) == min(workers, len(gpus)) and engines.gpu_of("tcp://host:1", []) is None


class StandsStill:
    """In place of a process."""

    alive = True

    def __init__(self, gpu):
        self.gpu = gpu

    def do(self, task, time_limit):
        return None


def test_as_many_processes_as_gpus_or_runs_per_gpu(monkeypatch, tmp_path):
    made = []

    def engine(name, workers, address, time_limit, gpus):
        made.append((workers, gpus))
        raise ValueError("that is all")

    monkeypatch.setattr(training, "gpus", lambda device: ["0", "1"])
    monkeypatch.setattr(runner.engines, "engine", engine)
    monkeypatch.delenv("MTL_WORKERS", raising=False)
    configs = [config(seed=seed) for seed in range(9)]
    for runs, given in ((None, None), ("3", None), ("3", 5)):
        if runs:
            monkeypatch.setenv("MTL_RUNS_PER_GPU", runs)
        with pytest.raises(BadConfig, match="that is all"):
            runner.run(configs, tmp_path, workers=given)
    assert made == [(2, ["0", "1"]), (6, ["0", "1"]), (5, ["0", "1"])]
    monkeypatch.setenv("MTL_TIME_LIMIT", "200")
    assert runner.hours_wanted() == 200
    monkeypatch.setenv("MTL_TIME_LIMIT", "long")
    with pytest.raises(BadConfig, match="MTL_TIME_LIMIT = 'long' is no number of hours"):
        runner.hours_wanted()
    monkeypatch.delenv("MTL_TIME_LIMIT")
    assert runner.hours_wanted() == 24
    monkeypatch.setenv("MTL_RUNS_PER_GPU", "0")
    with pytest.raises(BadConfig, match="MTL_RUNS_PER_GPU = 0: give at least 1, or unset it"):
        runner.run(configs, tmp_path)


def test_runs_per_gpu_without_a_gpu_are_said_to_have_no_effect(monkeypatch, tmp_path):
    """Once, and not where they were not asked for. No process at all, 0 workers, may be asked for."""
    monkeypatch.delenv("MTL_RUNS_PER_GPU", raising=False)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        runner.run([config(seed=0)], tmp_path, workers=0, device="cpu")
        assert not said
        monkeypatch.setenv("MTL_RUNS_PER_GPU", "4")
        monkeypatch.setenv("MTL_WORKERS", "0")
        for seed in (1, 2):
            runner.run([config(seed=seed)], tmp_path, device="cpu")
    assert [str(one.message) for one in said] == ["MTL_RUNS_PER_GPU = 4 has no effect: the runs go to cpu"]


def test_the_gpus_that_are_visible(monkeypatch):
    """As CUDA_VISIBLE_DEVICES names them; one by its number is all there is, and on a processor there is none."""
    monkeypatch.setattr(training, "find_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert training.gpus("cuda") == ["0", "1"] and training.gpus("cuda:1") == training.gpus("cpu") == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    assert training.gpus("cuda") == ["GPU-a", "GPU-b"]


@pytest.mark.parametrize(
    ("function", "args", "why", "died"),
    [
        (os.abort, (), "its process was ended by SIGABRT", True),
        (signal.raise_signal, (signal.SIGKILL,), "its process was ended by SIGKILL, as when memory runs out", True),
        (os._exit, (3,), "its process ended by itself, with exit code 3", True),
        (int, ("x",), "ValueError: invalid literal for int() with base 10: 'x'", False),
        (threading.Lock, (), "TypeError: cannot pickle '_thread.lock' object", False),
    ],
)
def test_one_that_dies_or_fails_costs_itself_alone(local, function, args, why, died):
    local.submit("bad", function, *args)
    local.submit("good", pow, 2, 3)
    found = all_of(local, 2)
    local.submit("after", pow, 2, 4)
    assert found == {"bad": Failure(why, died), "good": 8} and all_of(local, 1) == {"after": 16}


def test_a_result_that_cannot_be_read_here_costs_itself_alone(local):
    class Odd:
        def __reduce__(self):
            return int, ("x",)

    local.submit("bad", Odd)
    found = all_of(local, 1, seconds=30)
    local.submit("good", pow, 2, 3)
    why = "its result cannot be read here: ValueError: invalid literal for int() with base 10: 'x'"
    assert found == {"bad": Failure(why)} and all_of(local, 1) == {"good": 8}


def test_one_that_hangs_is_ended():
    engine = Local(workers=1, time_limit=1.5)
    engine.submit("bad", time.sleep, 1000)
    assert all_of(engine, 1) == {"bad": Failure("it took longer than the time limit of 1.5 s", died=True)}
    engine.close()


def test_an_idle_process_that_is_killed_costs_nothing(local):
    local.submit("a", os.getpid)
    os.kill(all_of(local, 1)["a"], signal.SIGKILL)
    time.sleep(0.2)
    local.submit("b", pow, 2, 3)
    assert all_of(local, 1) == {"b": 8}


def test_what_a_run_prints_does_not_get_among_the_results(local):
    local.submit("a", print, "said")
    local.submit("b", os.system, "echo said")
    assert all_of(local, 2) == {"a": None, "b": 0}


def test_what_is_cancelled_ends_at_once(local):
    local.submit("a", time.sleep, 1000)
    (worker,) = local.busy.values()
    local.cancel()
    assert not worker.alive and local.completed(0) == []
    local.submit("a", pow, 2, 3)
    assert all_of(local, 1) == {"a": 8}


def test_a_worker_has_one_thread_of_everything_and_keeps_memory(local):
    local.submit("a", os.getenv, "OMP_NUM_THREADS")
    local.submit("b", os.getenv, "MALLOC_TRIM_THRESHOLD_")
    assert all_of(local, 2) == {"a": "1", "b": str(2**32)}


def test_an_unknown_engine_is_refused(tmp_path):
    with pytest.raises(BadConfig, match="engine = 'celery'; expected 'local' or 'dask'"):
        runner.run([config()], tmp_path, engine="celery")
    with pytest.raises(BadConfig, match=r"engine = 'dask' with 0 workers would train nothing\."):
        runner.run([config()], tmp_path, engine="dask", workers=0)


def test_a_worker_whose_parent_is_not_the_driver_ends_at_once():
    command = [sys.executable, "-c", engines.START, "1", *sys.path]
    assert subprocess.run(command, stdin=subprocess.DEVNULL, timeout=60).returncode == 1


# -- sweeps in processes of their own ----------------------------------------------------------------------------------

SCRIPT = """
import functools, os, signal, sys, time
from pathlib import Path
import torch
from mtl_core.smtos.base import LossWeighting, register
from mtl_study.experiments import leases, runner, training
from mtl_study.experiments.runs import RunConfig
from mtl_study.experiments.store import RunStore

folder, seeds, engine = Path(sys.argv[1]), [int(seed) for seed in sys.argv[2].split(",")], sys.argv[3]
def place(name):  # which is not part of what the method is
    return Path(os.environ["SWEEP"]) / name

@register
class Mine(LossWeighting):
    key = "mine"
    def __init__(self, num_tasks):  # before the first epoch, which may be the last one of a run that goes on
        super().__init__(num_tasks)
        if not hasattr(training.Training, "silently"):
            training.Training.silently = training.Training.epoch
            training.Training.epoch = said
    def begin_epoch(self, epoch, mean_losses, lr):
        for name in ("log", "ends"):
            place(name).mkdir(exist_ok=True)
        (place("log") / f"{time.time_ns()}-{os.getpid()}").touch()
    def weights(self, losses):
        DISTURB
        return torch.ones_like(losses)

def said(self):
    self.silently()
    if not self.unfinished:
        (place("ends") / f"{self.config.seed}-{time.time_ns()}").touch()

settings = dict(problem="multimnist/CL_RR", lr=0.002, epochs=EPOCHS, batch_size=64, val_size=40, test_size=40)
configs = [RunConfig.of(smto="mine", seed=s, train_size=TRAIN, **settings) for s in seeds]
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # where tests run in the background, it is ignored
    train = functools.partial(training.train_from_checkpoint, folder, every=0)  # a checkpoint after every epoch
    runner.records(configs, RunStore(folder), train, workers=2, engine=engine, time_limit=LIMIT)
"""

PYTHON = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


class Sweep:
    """A sweep of a method that the script defines itself, in a process of its own; `disturb` is in its every step.
    notebook: the script is the cell of one, executed as `make reproduce` does."""

    def __init__(
        self,
        folder: Path,
        disturb: str = "pass",
        train: int = 128,
        limit: float = 1000,
        epochs: int = 1,
        notebook=False,
    ):
        folder.mkdir(exist_ok=True)
        self.script, self.store, self.notebook = folder / "sweep.py", folder / "store", notebook
        values = {"TRAIN": str(train), "LIMIT": str(limit), "EPOCHS": str(epochs)}
        code = functools.reduce(lambda text, name: text.replace(name, values[name]), values, SCRIPT)
        self.script.write_text(code.replace("DISTURB", textwrap.indent(disturb, " " * 8).strip()))

    def start(self, seeds: list[int], engine: str = "local") -> subprocess.Popen:
        arguments = [str(self.script), str(self.store), ",".join(map(str, seeds)), engine]
        command = [sys.executable, *arguments]
        if self.notebook:
            toy = self.script.parent / "toy"
            cells = [new_code_cell("preset = 'smoke'", metadata={"tags": ["parameters"]})]
            cells += [new_code_cell(f"import sys\nsys.argv = {arguments}\n{self.script.read_text()}")]
            for path, text in (
                ("notebooks/01_toy.ipynb", nbformat.writes(new_notebook(cells=cells, metadata=PYTHON))),
                ("params/smoke/01_toy.yaml", "preset: smoke\n"),
            ):
                (toy / path).parent.mkdir(parents=True, exist_ok=True)
                (toy / path).write_text(text)
            code = "from pathlib import Path; from mtl_study.publishing import reproduce; "
            code += "reproduce.parameters.problems_of = lambda *_: []; "  # a toy has no schema
            code += f"reproduce.main(['--artifacts', {str(toy / 'out')!r}], Path({str(toy)!r}))"
            command = [sys.executable, "-c", code]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "SWEEP": str(self.store.parent)}
        return subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env=environment,
            start_new_session=True,
        )

    def run(self, seeds: list[int], engine: str = "local") -> str:
        """What it says."""
        process = self.start(seeds, engine)
        return process.communicate(timeout=900)[1]

    def records(self) -> dict[int, str]:
        """By seed, without what depends on time and place."""
        found = {}
        for path in self.store.rglob("*.json"):
            record = json.loads(path.read_text())["record"]
            for name in ("seconds", "clock", "environment"):
                record.pop(name)
            found[record["config"]["seed"]] = json.dumps(record)
        return found

    def trained(self) -> int:
        return len(os.listdir(self.store.parent / "log"))

    def processes(self) -> list[psutil.Process]:
        """That have to do with this sweep."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and str(self.script) in " ".join(
                    [*process.cmdline(), *process.environ().values()]
                ):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                pass
        return found

    def left_behind(self) -> list[str]:
        return [str(p) for p in self.store.rglob("*") if p.is_file() and p.suffix != ".json"]


KILL = "if losses.shape and torch.initial_seed() == 1: {}"


def workers_of(process: subprocess.Popen) -> list[psutil.Process]:
    try:
        return [p for p in psutil.Process(process.pid).children(recursive=True) if engines.START in p.cmdline()]
    except psutil.NoSuchProcess:
        return []


@pytest.mark.training
@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_method_of_the_script_is_known_to_two_workers(tmp_path, engine):
    sweep = Sweep(tmp_path)
    assert "Error" not in sweep.run([0, 1, 2], engine)
    assert set(sweep.records()) == {0, 1, 2} and sweep.trained() == 3 and sweep.left_behind() == []


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("disturb", "limit", "why"),
    [
        ("os.abort()", 600, "its process was ended by SIGABRT"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 600, "its process was ended by SIGKILL, as when memory runs out"),
        ("time.sleep(1000)", 80, "it took longer than the time limit of 80 s"),  # long enough on a busy machine
    ],
)
def test_a_run_that_dies_is_tried_again_and_named_and_the_others_are_stored(tmp_path, disturb, limit, why, engine):
    sweep = Sweep(tmp_path, KILL.format(disturb), limit=limit)
    said = sweep.run([0, 1, 2, 3], engine)
    assert "1 of 4 runs failed; the others are stored." in said
    assert re.search(rf"multimnist/CL_RR, mine, seed 1 \(key [0-9a-f]{{16}}, .*\): {why}, twice", said)
    assert set(sweep.records()) == {0, 2, 3} and sweep.trained() == 5 and sweep.left_behind() == []


@pytest.mark.slow
def test_three_sweeps_on_one_store_train_each_run_once(tmp_path):
    sweep = Sweep(tmp_path)
    processes = [sweep.start(order) for order in ([*range(12)], [*range(11, -1, -1)], [*range(12)])]
    said = [process.communicate(timeout=900)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    assert sweep.trained() == 12 and len(sweep.records()) == 12 and sweep.left_behind() == []
    assert len({name.split("-")[1] for name in os.listdir(tmp_path / "log")}) > 2  # they shared the work


@pytest.mark.slow
def test_without_shared_memory_runs_are_trained_all_the_same(tmp_path, monkeypatch):
    """A container whose /dev/shm is full or read-only has no semaphores."""
    (tmp_path / "sitecustomize.py").write_text(
        "import _multiprocessing\n"
        "class SemLock(_multiprocessing.SemLock):\n"
        "    def __new__(cls, *args, **kwargs): raise OSError(28, 'No space left on device')\n"
        "_multiprocessing.SemLock = SemLock\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    sweep = Sweep(tmp_path / "sweep")
    said = sweep.run([0, 1])
    assert set(sweep.records()) == {0, 1}, said


@pytest.mark.slow
def test_a_disk_that_is_full_at_an_interrupt(tmp_path, monkeypatch):
    """What had finished is kept where the message says; nothing else is left in the temporary folder."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    sweep = Sweep(tmp_path, "time.sleep(1000 * (torch.initial_seed() == 1))")
    sweep.store.mkdir()
    (sweep.store / "multimnist").write_text("in the way, as a full disk is")
    process = sweep.start([0, 1])
    deadline = time.monotonic() + 120
    while not list(temporary.rglob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[1]
    refuge = Path(said.split("lie in ")[1].split(":")[0])
    assert len(list(refuge.rglob("*.json"))) == 1
    assert list(temporary.glob("mtl-*")) == [refuge]


@pytest.mark.slow
def test_an_interrupt_leaves_nothing_but_records(tmp_path):
    sweep = Sweep(tmp_path, "time.sleep(1000 * (torch.initial_seed() == 1))")
    process = sweep.start([0, 1])
    deadline = time.monotonic() + 120
    while not sweep.records() and time.monotonic() < deadline:
        time.sleep(0.1)
    workers = workers_of(process)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
    said = process.communicate(timeout=120)[1]
    assert "KeyboardInterrupt" in said and set(sweep.records()) == {0} and sweep.left_behind() == []
    assert len(workers) == 2 and wait_for_the_end_of(workers, 20) == []


# -- kills -------------------------------------------------------------------------------------------------------------


def wait_for_the_end_of(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that are still there."""
    deadline = time.monotonic() + seconds
    while (alive := [process for process in processes if _lives(process)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return alive


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.02, 0.5, 6])
def test_workers_whose_driver_was_killed_end(tmp_path, after):
    """Right after they were started, while they import, and while they train."""
    sweep = Sweep(tmp_path, "time.sleep(1000)")
    process = sweep.start([0, 1])
    deadline = time.monotonic() + 120
    while len(workers := workers_of(process)) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(after)
    process.kill()
    process.communicate()
    assert workers and wait_for_the_end_of(workers, 10) == []
    if after < 1:
        assert not (tmp_path / "log").exists()


FORKS = """
import os, time
from mtl_study.experiments.engines import Worker
worker = Worker()
child = os.fork()
if child:
    print(worker.process.pid, child, flush=True)
time.sleep(1000)
"""


def test_a_worker_whose_driver_was_killed_ends_although_a_child_of_the_driver_lives_on():
    """Which has the other end of the worker's standard input, too."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    driver = subprocess.Popen([sys.executable, "-c", FORKS], stdout=subprocess.PIPE, text=True, env=environment)
    worker, child = (psutil.Process(int(pid)) for pid in driver.stdout.readline().split())
    time.sleep(8)  # it has started
    assert _lives(worker)
    driver.kill()
    driver.wait()
    try:
        assert wait_for_the_end_of([worker], 10) == [] and _lives(child)
    finally:
        child.kill()
        driver.stdout.close()
        if _lives(worker):
            worker.kill()


def kernels_of(process: subprocess.Popen) -> list[psutil.Process]:
    try:
        return [p for p in psutil.Process(process.pid).children(recursive=True) if "ipykernel_launcher" in p.cmdline()]
    except psutil.NoSuchProcess:
        return []


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("notebook", "kills"), [(False, 15), (True, 9)], ids=["script", "notebook"])
def test_kills_at_random_moments(tmp_path, monkeypatch, engine, notebook, kills):
    """Of the command, the notebook's kernel and a worker in turn: in the end the store is that of an undisturbed sweep,
    no run was trained to its end twice but those whose records were thrown away, and nothing is left behind."""
    seeds, dice, temporary = list(range(12)), random.Random(1), tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    undisturbed = Sweep(tmp_path / "undisturbed", epochs=3, notebook=notebook)
    undisturbed.run(seeds)
    sweep = Sweep(tmp_path / "killed", epochs=3, notebook=notebook)
    left, expected = kills, Counter(seeds)
    process, deadline = sweep.start(seeds, engine), time.monotonic() + 1500
    everything: list[psutil.Process] = []
    while left and time.monotonic() < deadline:
        time.sleep(dice.uniform(0.5, 8))
        everything += [*workers_of(process), *kernels_of(process)]
        if process.poll() is not None:  # all done, or one run died twice: throw two records away
            process.communicate()
            for path in sorted(sweep.store.rglob("*.json"))[:2]:
                expected[json.loads(path.read_text())["record"]["config"]["seed"]] += 1
                path.unlink()
            process = sweep.start(seeds, engine)
            continue
        victims = [[], workers_of(process), kernels_of(process)][left % (3 if notebook else 2)]
        (dice.choice(victims) if victims else process).kill()
        left -= 1
        if not victims:
            process.communicate()
            process = sweep.start(seeds, engine)
    process.communicate(timeout=900)
    sweep.run(seeds, engine)
    assert left == 0
    assert sweep.records() == undisturbed.records()
    ends = Counter(int(path.name.split("-")[0]) for path in (sweep.store.parent / "ends").iterdir())
    assert ends == expected
    assert wait_for_the_end_of(everything, 30) == []
    assert [name for name in sweep.left_behind() if not name.endswith(".tmp")] == []
    assert list(temporary.glob("mtl-*")) == []


# -- Dask --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def scheduler(tmp_path, start_cluster):
    """A Dask cluster of two workers: (address, scheduler, workers)."""
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "MTL_TEST": str(tmp_path), "SWEEP": str(tmp_path)}
    return start_cluster(tmp_path, environment)


CLUSTER_PAGE = (REPOSITORY / "docs" / "cluster.md").read_text(encoding="utf-8")


def test_each_way_to_a_cluster_is_tried_or_said_to_be_not_run():
    for title, marked in (
        ("A workstation", "A test runs these two lines, with two workers"),
        ("One worker per GPU", "These lines have not been run"),
        ("SLURM", "This has not been run"),
        ("One GPU, or several in one machine", "None of these commands has been run"),
    ):
        section = CLUSTER_PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
        assert marked in section, title


@pytest.mark.cluster
def test_the_lines_for_a_workstation(tmp_path, monkeypatch):
    """As the page gives them, but for the port, the number of workers, and the dashboard's port."""
    section = CLUSTER_PAGE.split("## A workstation\n")[1].split("\n## ")[0]
    scheduler, worker = [line.split() for line in section.splitlines() if line.startswith("    .venv/bin/dask ")]
    address = f"tcp://127.0.0.1:{free_port()}"
    at = worker.index("--nworkers") + 1
    worker[at], worker[2] = "2", address
    processes = []
    try:
        for words in ([*scheduler, "--port", address.rsplit(":")[-1], "--no-dashboard"], worker):
            command = [sys.executable, "-m", f"distributed.cli.dask_{words[1]}", *words[2:]]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            processes.append(subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL))
        monkeypatch.setenv("MTL_ADDRESS", address)
        configs = [config(seed=seed) for seed in range(3)]
        found = runner.run(configs, tmp_path / "dask", engine="dask")
        assert [run.history for run in found] == [training.train(one, device="cpu").history for one in configs]
        assert psutil.Process(processes[1].pid).children() != []  # a nanny per worker
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(60)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def beside_dask(workers: list[subprocess.Popen]) -> list[psutil.Process]:
    return [child for worker in workers for child in workers_of(worker)]


@pytest.mark.cluster
def test_a_dask_worker_keeps_its_process_for_one_driver(scheduler, monkeypatch):
    """A new process takes seconds to start; but one that another driver has used may have its code."""
    engine = engines.Dask(scheduler[0], 1, 60)

    def process() -> int:
        engine.submit("a", os.getpid)
        return all_of(engine, 1)["a"]

    try:
        first = {process() for _ in range(6)}
        monkeypatch.setattr(engines, "DRIVER", "another")
        second = {process() for _ in range(6)}
    finally:
        engine.close()
    assert len(first) <= 2 and len(second) <= 2 and not first & second


@pytest.mark.cluster
def test_a_dask_worker_killed_in_the_middle(tmp_path, scheduler, monkeypatch):
    address, _, workers = scheduler
    monkeypatch.setenv("MTL_ADDRESS", address)
    sweep = Sweep(tmp_path, train=640)
    process = sweep.start(list(range(6)), "dask")
    deadline = time.monotonic() + 200
    while not sweep.records() and time.monotonic() < deadline:
        time.sleep(0.05)
    workers[0].kill()
    said = process.communicate(timeout=600)[1]
    assert process.returncode == 0, said
    assert set(sweep.records()) == set(range(6)) and sweep.left_behind() == []


@pytest.mark.cluster
def test_with_the_scheduler_lost_the_command_ends_in_words(tmp_path, scheduler, monkeypatch):
    address, process_of_scheduler, workers = scheduler
    monkeypatch.setenv("MTL_ADDRESS", address)
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "5s")
    sweep = Sweep(tmp_path, "time.sleep(1 * (torch.initial_seed() > 1))")
    process = sweep.start([0, 1, 2, 3, 4, 5], "dask")
    deadline = time.monotonic() + 200
    while len(sweep.records()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers_of_dask = beside_dask(workers)
    process_of_scheduler.kill()
    said = process.communicate(timeout=200)[1]
    stored = len(sweep.records())
    assert f"the Dask scheduler {address} is gone. {stored} of 6 runs are stored; the same command trains only" in said
    assert "Traceback" not in said.split("Traceback", 1)[1], "more than the one of the error itself"
    assert wait_for_the_end_of(workers_of_dask, 60) == []
    monkeypatch.delenv("MTL_ADDRESS")
    before = sweep.trained()
    assert "Error" not in sweep.run([0, 1, 2, 3, 4, 5])
    assert sweep.trained() == before + 6 - stored and len(sweep.records()) == 6 and sweep.left_behind() == []


@pytest.mark.cluster
def test_a_killed_driver_leaves_nothing_running_on_the_cluster(tmp_path, scheduler, monkeypatch):
    address, _, workers = scheduler
    monkeypatch.setenv("MTL_ADDRESS", address)
    sweep = Sweep(tmp_path, "time.sleep(1000)")
    process = sweep.start([0, 1], "dask")
    deadline = time.monotonic() + 200
    while not (tmp_path / "log").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    workers_of_dask = beside_dask(workers)
    process.kill()
    process.communicate()
    assert workers_of_dask and wait_for_the_end_of(workers_of_dask, 60) == []
    assert [worker.poll() for worker in workers] == [None, None]


@pytest.mark.cluster
def test_dasks_processes_are_spread_over_the_gpus():
    """Of two that are started here, and are busy at the same time, each sees its own."""
    engine = engines.Dask(None, 2, 120, ["3", "5"])

    def look():
        time.sleep(3)
        return os.environ["CUDA_VISIBLE_DEVICES"]

    try:
        for name in "ab":
            engine.submit(name, look)
        assert sorted(all_of(engine, 2).values()) == ["3", "5"]
    finally:
        engine.close()


@pytest.mark.cluster
def test_a_sweep_claims_what_the_cluster_can_work_on(tmp_path, scheduler, monkeypatch):
    """Two runs for each thread; fewer when a worker has gone."""
    address, _, workers = scheduler
    engine, deadline = engines.Dask(address, 1, 60), time.monotonic() + 120
    try:
        while engine.slots < 4 and time.monotonic() < deadline:
            engine.completed(0.1)
        assert engine.slots == 4
        monkeypatch.setenv("MTL_ADDRESS", address)
        process = Sweep(tmp_path, "time.sleep(1000)").start(list(range(12)), "dask")
        while len(list((tmp_path).rglob("*.lease"))) < 4 and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(3)
        assert len(list((tmp_path).rglob("*.lease"))) == 4
        process.kill()
        process.communicate()
        workers[0].kill()
        while engine.slots > 2 and time.monotonic() < deadline:
            engine.completed(0.1)
        assert engine.slots == 2
    finally:
        engine.close()


@pytest.mark.cluster
def test_an_address_where_nobody_answers(monkeypatch, tmp_path):
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "2s")
    sweep = Sweep(tmp_path)
    monkeypatch.setenv("MTL_ADDRESS", "tcp://127.0.0.1:1")
    assert "no Dask scheduler answers at tcp://127.0.0.1:1" in sweep.run([0], "dask")
