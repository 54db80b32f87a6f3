"""Getting runs done: those that the store does not hold are trained, one process per core; safe to kill and repeat."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import joblib
from tqdm import tqdm

from mtl_core import smtos
from mtl_study.experiments import training
from mtl_study.experiments.runs import Run, RunConfig
from mtl_study.experiments.store import C, R, RunStore, Store, StoreError

# For the workers, which read them when they start: glibc then keeps freed memory for the next step instead of giving it
# back to the system and asking for it again, page by page. A tenth of a LeNet step; elsewhere these mean nothing.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**32)}


def run(
    configs: Iterable[RunConfig],
    store: RunStore | str | os.PathLike[str],
    *,
    workers: int | None = None,
    device: str = "auto",
    data_dir: str | None = None,
    title: str = "runs",
) -> list[Run]:
    """The records of these configurations, in order; those that the store does not hold are trained and stored.

    Args:
        configs: duplicates are trained once.
        store: where records are kept; a folder.
        workers: training processes; None is one per core (one per GPU where there is one). Each has one torch thread.
        device, data_dir: as for `training.train`.
        title: what the progress bar says.

    Raises:
        BadConfig, BadOption, DataNotFound: before any training, if a run of the sweep could not start.
        StoreError: the store cannot be written to. Before training; or, if that happens later (a full disk), at the
            end: every finished run is then kept, and the message says where.
        RunFailed: a run raised an error; all other runs are done and stored first.
    """
    store = store if isinstance(store, RunStore) else RunStore(store)
    how: dict[str, Any] = {"workers": workers, "device": device, "data_dir": data_dir, "title": title}
    return records(configs, store, training.train, **how)


def records(
    configs: Iterable[C],
    store: Store[C, R],
    train: Callable[[C, str, str | None], R],
    *,
    workers: int | None = None,
    device: str = "auto",
    data_dir: str | None = None,
    title: str = "records",
) -> list[R]:
    """`run` for records of any kind.

    Args:
        train: makes the record of a configuration, in a worker; (config, device, data_dir).
    """
    configs = list(configs)
    found = {config.key: record for config in configs if (record := store.get(config)) is not None}
    missing = list({config.key: config for config in configs if config.key not in found}.values())
    if missing:
        found |= _train(missing, store, train, workers, device, data_dir, title)
    return [found[config.key] for config in configs]


class RunFailed(RuntimeError):
    """A run of a sweep raised an error that is not a divergence."""


def _train(
    configs: list[C],
    store: Store[C, R],
    train: Callable[[C, str, str | None], R],
    workers: int | None,
    device: str,
    data_dir: str | None,
    title: str,
) -> dict[str, R]:
    where = training.find_device(device)
    bases = {(b.problem, str(b.problem_options), b.smto, b.source, b.sizes): b for b in (c.base for c in configs)}
    for config in bases.values():
        problem = config.definition
        problem.data.check(config.source, config.sizes, data_dir)
        smtos.build(config.smto, len(problem.tasks), **config.options).check_model(problem.build_model(config.dropout))
    store.check_writable()
    if workers is None:
        workers = int(os.environ.get("MTL_WORKERS") or (joblib.cpu_count() if where.type == "cpu" else 1))

    for name, value in KEEP_MEMORY.items():
        os.environ.setdefault(name, value)
    for config in {(b.problem, str(b.problem_options), b.source, b.sizes): b for b in bases.values()}.values():
        config.definition.data.prepare(config.source, config.sizes, data_dir)

    found: dict[str, R] = {}
    failed: list[str] = []
    unsaved = _Unsaved(store)
    longest_first = sorted(configs, key=_cost, reverse=True)
    with (
        joblib.parallel_config("loky", inner_max_num_threads=1),
        joblib.Parallel(n_jobs=min(workers, len(configs)), return_as="generator_unordered", batch_size=1) as parallel,
        tqdm(total=len(configs), desc=title, unit=store.what, file=sys.stderr, dynamic_ncols=True, leave=False) as bar,
    ):
        for config, result in parallel(
            joblib.delayed(_attempt)(train, c, device, data_dir, os.getpid()) for c in longest_first
        ):
            if isinstance(result, str):
                failed.append(f"{config.title}: {result}")
            else:
                found[config.key] = result
                unsaved.save(result)
            bar.set_postfix_str(config.title)
            bar.update()
    unsaved.report()
    if failed:
        how_many = f"{len(failed)} of {len(configs)} {store.what}s failed; the others are stored."
        raise RunFailed("\n".join([how_many, *failed]))
    return found


def _attempt(
    train: Callable[[C, str, str | None], R], config: C, device: str, data_dir: str | None, driver: int
) -> tuple[C, R | str]:
    """In a worker: train, and hand an error back as text, so that one bad run does not cost the others."""
    if os.getpid() != driver:
        end_with(driver)
    try:
        return config, train(config, device, data_dir)
    except Exception as error:
        return config, f"{type(error).__name__}: {error}"


@functools.cache
def end_with(driver: int) -> None:
    """A worker whose driver was killed would go on training for nobody: it ends within a second."""

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(1)
        os._exit(1)

    if os.getppid() == driver:
        threading.Thread(target=watch, daemon=True).start()


def _cost(config: Any) -> tuple[int, float]:
    """Steps times a rough price, to start the longest runs first."""
    price = {"losses": 1.0, "features": 1.0, "parameters": 1.4}[smtos.get(config.base.smto).space]
    return config.epochs_in_all * config.base.sizes[0], price


class _Unsaved:
    """Writes records to the store, and elsewhere when the store stops taking them: nothing finished is lost."""

    def __init__(self, store: Store[Any, Any]) -> None:
        self.store = store
        self.refuge: Store[Any, Any] | None = None
        self.error: OSError | None = None
        self.waiting: list[Any] = []  # in memory, for want of any other place

    def save(self, run: Any) -> None:
        try:
            self.store.put(run)
        except OSError as error:
            self.error = error
            self.waiting.append(run)
            self.shelter()

    def shelter(self) -> None:
        """Move what waits to a temporary folder, as far as that takes it."""
        try:
            if self.refuge is None:
                self.refuge = type(self.store)(tempfile.mkdtemp(prefix=f"mtl-unsaved-{self.store.what}s-"))
            while self.waiting:
                self.refuge.put(self.waiting[-1])
                self.waiting.pop()
        except OSError as error:
            self.error = error

    def report(self) -> None:
        """Raises StoreError if anything could not be stored, after a last try."""
        for run in list(self.waiting):
            with contextlib.suppress(OSError):
                self.store.put(run)
                self.waiting.remove(run)
        self.shelter()
        what, folder = self.store.what, self.store.folder
        if self.waiting:
            raise StoreError(
                f"neither the {what} store {folder} nor a temporary folder could be written to ({self.error}): "
                f"{len(self.waiting)} finished {what}s are lost. Free some space and run the same command again."
            )
        if self.refuge is not None and any(self.refuge.folder.rglob("*.json")):
            raise StoreError(
                f"the {what} store {folder} could no longer be written to ({self.error}). The {what}s finished since "
                f"then lie in {self.refuge.folder}: copy its contents into the store, then run the same command again."
            )
