"""Where runs are trained: in processes of this machine, on a Dask cluster, or here.

An engine takes tasks (`submit`), hands them back as they are `completed`, and can `cancel` all it has. A task that dies
costs itself alone: it comes back as a Failure. Tasks travel with cloudpickle: what a notebook defines goes with them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cloudpickle

ENGINES = ("local", "dask")

# For the processes that train. One thread each; and glibc keeps freed memory for the next step instead of giving it
# back to the system and asking for it again, page by page: a tenth of a LeNet step; elsewhere these two mean nothing.
THREADS = ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMEXPR", "NUMBA")
WORKER_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    **{f"{library}_NUM_THREADS": "1" for library in THREADS},
    "VECLIB_MAXIMUM_THREADS": "1",
}


@dataclass(frozen=True)
class Failure:
    """Why a task has no result. died: its process ended or was ended, and a second try may go better."""

    why: str
    died: bool = False


class EngineLost(RuntimeError):
    """The engine cannot be reached, or no longer."""


class Engine(Protocol):
    """slots: how many tasks it takes at a time, now."""

    slots: int

    def submit(self, name: str, function: Callable[..., Any], *args: Any) -> None:
        """Have function(*args) worked out, under a name."""

    def completed(self, wait: float) -> list[tuple[str, Any]]:
        """What has come back since, by name: results and Failures. Waits that many seconds for the first."""

    def cancel(self) -> None:
        """End all that is running and forget it; what has not been handed back is lost. The engine stays usable."""

    def close(self) -> None:
        """End it, and its processes."""


class Here:
    """In this process, one after the other: for debugging, and for tests. A task that dies takes the process along."""

    slots = 1

    def __init__(self) -> None:
        self.tasks: list[tuple[str, Callable[..., Any], tuple[Any, ...]]] = []

    def submit(self, name: str, function: Callable[..., Any], *args: Any) -> None:
        self.tasks.append((name, function, args))

    def completed(self, wait: float) -> list[tuple[str, Any]]:
        if not self.tasks or not wait:
            time.sleep(wait)
            return []
        name, function, args = self.tasks.pop(0)
        return [(name, attempt(function, args))]

    def cancel(self) -> None:
        self.tasks.clear()

    close = cancel


class Local:
    """In processes of this machine, as many as there are tasks, and no more than `workers`; each goes from one task to
    the next, and waits a while for the next sweep, since a new one takes seconds to start. Nothing but pipes connects
    them with this process: no semaphore, no shared memory.

    Args:
        time_limit: seconds for one task. gpus: that share the tasks, as CUDA_VISIBLE_DEVICES names them; each process
            sees one of them.
    """

    def __init__(self, workers: int, time_limit: float, gpus: Sequence[str] = ()) -> None:
        self.slots, self.time_limit, self.gpus = workers, time_limit, gpus
        self.idle: list[Worker] = []
        self.busy: dict[str, Worker] = {}
        self.done: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    def submit(self, name: str, function: Callable[..., Any], *args: Any) -> None:
        used = Counter(worker.gpu for worker in self.busy.values())
        gpu = min(self.gpus, key=lambda gpu: used[gpu], default=None)
        worker = self.busy[name] = next((w for w in self._waiting(gpu) if w.alive), None) or Worker(gpu)
        task, done = cloudpickle.dumps((function, args)), self.done

        def work() -> None:
            done.put((name, worker.do(task, self.time_limit)))

        threading.Thread(target=work, daemon=True).start()

    def completed(self, wait: float) -> list[tuple[str, Any]]:
        found = taken(self.done, wait)
        for name, _ in found:
            worker = self.busy.pop(name)
            if worker.alive:
                self.idle.append(worker)
        return found

    def _waiting(self, gpu: str | None) -> Iterator[Worker]:
        """Workers that have nothing to do and see this GPU, this sweep's own first; each is taken away."""
        for worker in [worker for worker in reversed(self.idle) if worker.gpu == gpu]:
            self.idle.remove(worker)
            yield worker
        yield from spare(gpu, DRIVER)

    def cancel(self) -> None:
        end_spare()
        for worker in [*self.idle, *self.busy.values()]:
            worker.end()
        self.idle, self.busy, self.done = [], {}, queue.SimpleQueue()

    def close(self) -> None:
        waiting, self.idle = [worker for worker in self.idle if worker.alive], []
        for worker in self.busy.values():
            worker.end()
        end_spare()
        for worker in waiting:
            worker.wait_for_more()


class Dask:
    """On a Dask cluster: the one at an address, or one of `workers` processes that is started here. A task runs in a
    process apart from the cluster's worker, so that a crash leaves the worker alive. It takes twice as many
    tasks as the cluster has threads, as workers come and go: none of them waits, and a task that is queued is claimed
    and kept from other sweeps. Processes that are started here share the GPUs; elsewhere each has what its worker has.

    Raises:
        EngineLost: nothing answers at the address, or Dask is not installed; later: the scheduler is gone.
    """

    def __init__(self, address: str | None, workers: int, time_limit: float, gpus: Sequence[str] = ()) -> None:
        try:
            import dask
            import distributed
        except ImportError as error:
            raise EngineLost(f"the engine 'dask' needs the extra [cluster]: {error}.") from None
        for part in ("client", "utils"):  # a lost scheduler is said below, in words
            logging.getLogger(f"distributed.{part}").setLevel(logging.CRITICAL)
        self.address, self.time_limit, self.gpus = address, time_limit, gpus if address is None else ()
        self.cluster: Any = None
        if address is None:
            with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
                self.cluster = distributed.LocalCluster(
                    n_workers=workers, threads_per_worker=1, memory_limit=0, dashboard_address=None
                )
        try:
            self.client = distributed.Client(self.cluster or address, set_as_default=False)
        except (OSError, ValueError) as error:
            raise EngineLost(f"no Dask scheduler answers at {address}: {error}") from None
        self.lost = distributed.client.FutureCancelledError, distributed.comm.CommClosedError
        self.killed = distributed.KilledWorker
        self.gone = False
        self.futures: dict[str, Any] = {}
        self.done: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self.slots = 0
        self._count_threads()

    def _count_threads(self) -> None:
        """Without a worker there are still two slots: clusters that grow with their queue need one."""
        with contextlib.suppress(Exception):  # a lost scheduler is noticed by what comes back from it
            self.slots = 2 * max(sum(self.client.nthreads().values()), 1)

    def submit(self, name: str, function: Callable[..., Any], *args: Any) -> None:
        task, done = cloudpickle.dumps((function, args)), self.done
        future = self.client.submit(do_beside, task, self.time_limit, self.gpus, DRIVER, pure=False)
        self.futures[name] = future
        future.add_done_callback(lambda future: done.put((name, future)))

    def completed(self, wait: float) -> list[tuple[str, Any]]:
        found = []
        for name, future in taken(self.done, wait):
            try:
                found.append((name, future.result()))
            except self.killed as error:
                found.append((name, Failure(f"its Dask worker died ({error.last_worker.address})", died=True)))
            except self.lost:
                self.gone = True
                continue
            except Exception as error:
                found.append((name, Failure(f"{type(error).__name__}: {error}")))
            del self.futures[name]
        if not found and (self.gone or self.client.status != "running"):
            raise EngineLost(f"the Dask scheduler {self.address or ''} is gone.")
        if wait and self.client.status == "running":
            self._count_threads()
        return found

    def cancel(self) -> None:
        with contextlib.suppress(Exception):  # without a scheduler there is nothing to cancel
            self.client.cancel(list(self.futures.values()), force=True)
        self.futures, self.done = {}, queue.SimpleQueue()

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.client.close(timeout=5)
        if self.cluster is not None:
            self.cluster.close(timeout=10)


def engine(name: str, workers: int, address: str | None, time_limit: float, gpus: Sequence[str] = ()) -> Engine:
    """The engine of that name. Raises ValueError if there is none."""
    if name == "local":
        return Local(workers, time_limit, gpus) if workers else Here()
    if name == "dask":
        if not (workers or address):
            raise ValueError(
                "engine = 'dask' with 0 workers would train nothing. Give at least 1, or engine = 'local'."
            )
        return Dask(address, workers, time_limit, gpus)
    raise ValueError(f"engine = {name!r}; expected {' or '.join(map(repr, ENGINES))}.")


def taken(done: queue.SimpleQueue[tuple[str, Any]], wait: float) -> list[tuple[str, Any]]:
    """All that is in a queue; if it is empty, what comes first within that many seconds."""
    found = []
    with contextlib.suppress(queue.Empty):
        found.append(done.get(timeout=wait))
        while True:
            found.append(done.get_nowait())
    return found


def attempt(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """function(*args), or what it raised as a Failure."""
    try:
        return function(*args)
    except Exception as error:
        return Failure(f"{type(error).__name__}: {error}")


# -- a process that trains ---------------------------------------------------------------------------------------------

START = "import sys; sys.path[:] = sys.argv[2:]; from mtl_study.experiments import engines; engines.serve(sys.argv[1])"


SPARE: list[Worker] = []  # those that wait for the next task
SPARE_FOR = 120.0  # seconds
DRIVER = uuid.uuid4().hex  # names this process, as the one that hands tasks out


def spare(gpu: str | None, driver: str) -> Iterator[Worker]:
    """Those that wait, see this GPU, have worked for this driver (another may have changed the code), and would see
    the same environment, folder and path if they were new; each is taken away."""
    for worker in [w for w in SPARE if (w.gpu, w.driver) == (gpu, driver) and w.made_in == surroundings()]:
        with contextlib.suppress(ValueError):  # it has just been ended, or taken by another thread
            SPARE.remove(worker)
            worker.timer.cancel()
            if worker.alive:
                yield worker


def end_spare(workers: Sequence[Worker] | None = None) -> None:
    """End those that wait: these, or all."""
    for worker in list(SPARE if workers is None else workers):
        with contextlib.suppress(ValueError):  # it has work
            SPARE.remove(worker)
            worker.end()


def surroundings() -> tuple[dict[str, str], str, list[str]]:
    """What a process takes over from the one that starts it."""
    return dict(os.environ), os.getcwd(), list(sys.path)


class Worker:
    """A process that works out one task after the other, and ends with this one. gpu: the only one that it sees; None:
    what this process sees. driver: whose tasks these are."""

    def __init__(self, gpu: str | None = None, driver: str = DRIVER) -> None:
        self.ended_by, self.gpu, self.driver = "", gpu, driver
        self.made_in = surroundings()
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, str(os.getpid()), *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **WORKER_ENVIRONMENT, **({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})},
        )
        assert self.process.stdin and self.process.stdout
        self.tasks, self.results = self.process.stdin, self.process.stdout

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def wait_for_more(self) -> None:
        """Be one of the SPARE, and end after a while."""
        self.timer = threading.Timer(SPARE_FOR, end_spare, [[self]])
        self.timer.daemon = True
        SPARE.append(self)
        self.timer.start()

    def do(self, task: bytes, time_limit: float) -> Any:
        """The result of a pickled task, or a Failure; after one that died, so is the worker."""
        timer = threading.Timer(time_limit, self.end, [f"it took longer than the time limit of {time_limit:g} s"])
        timer.daemon = True
        timer.start()
        try:
            pickle.dump(task, self.tasks)
            self.tasks.flush()
            result = pickle.load(self.results)
        except Exception:  # the pipe is closed, or ends halfway
            self.end()
            return Failure(self.ended_by or _how_it_ended(self.process.returncode), died=True)
        finally:
            timer.cancel()
        try:
            return pickle.loads(result)
        except Exception as error:  # something that this process cannot import, say
            return Failure(f"its result cannot be read here: {type(error).__name__}: {error}")

    def end(self, why: str = "") -> None:
        self.ended_by = self.ended_by or why
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):  # what could not be sent any more
            self.tasks.close()


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"its process ended by itself, with exit code {code}"
    name = signal.Signals(-code).name
    return f"its process was ended by {name}" + (", as when memory runs out" if name == "SIGKILL" else "")


def serve(driver: str) -> None:
    """What a worker process does. Its tasks come from standard input; when that ends, or when the worker has another
    parent, the driver is gone, and so is the worker, in the middle of whatever it does. (Processes that the driver has
    forked may keep standard input open.)"""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which then ends its workers
    tasks, results = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a run prints must not get among the results
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def listen() -> None:
        with contextlib.suppress(Exception):
            while True:
                waiting.put(pickle.load(tasks))  # bytes: nothing is imported here
        os._exit(1)

    def watch() -> None:
        while os.getppid() == int(driver):
            time.sleep(1)
        os._exit(1)

    if os.name == "posix":
        threading.Thread(target=watch, daemon=True).start()
    threading.Thread(target=listen, daemon=True).start()
    while True:
        pickle.dump(_answer(waiting.get()), results)
        results.flush()


def _answer(task: bytes) -> bytes:
    try:
        function, args = pickle.loads(task)
        return cloudpickle.dumps(attempt(function, args))
    except Exception as error:  # something that this process cannot import, or that does not travel
        return pickle.dumps(Failure(f"{type(error).__name__}: {error}"))


def gpu_of(name: object, gpus: Sequence[str]) -> str | None:
    """The GPU of a Dask worker that was started here, which has a number for a name: in turn, so that no GPU has two
    more than another. None where there is none to choose from."""
    return gpus[int(str(name)) % len(gpus)] if gpus else None


def do_beside(task: bytes, time_limit: float, gpus: Sequence[str], driver: str) -> Any:
    """In a Dask worker: run a task in a process apart, which sees the one of these GPUs that the worker has. Then it
    waits for this driver's next task. It ends when the task is cancelled, and so when the driver or the scheduler is
    gone."""
    import distributed

    dask_worker = distributed.get_worker()
    key = dask_worker.get_current_task()
    gpu = gpu_of(dask_worker.name, gpus)
    worker = next(spare(gpu, driver), None) or Worker(gpu, driver)
    finished, ending = threading.Event(), threading.Lock()

    def cancelled() -> bool:
        state = dask_worker.state.tasks.get(key)
        closing = dask_worker.status.name in ("closing", "closed", "failed")
        return state is None or state.state == "cancelled" or closing

    def watch() -> None:
        while not finished.wait(1):
            with ending:  # a process that has gone on to its next task is left alone
                if not finished.is_set() and cancelled():
                    worker.end("it was cancelled")

    threading.Thread(target=watch, daemon=True).start()
    try:
        return worker.do(task, time_limit)
    finally:
        with ending:
            finished.set()
        if worker.alive:
            worker.wait_for_more()
