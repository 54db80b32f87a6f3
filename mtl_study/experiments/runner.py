"""Getting runs done: those that the store does not hold are trained, one process per core; safe to kill and repeat."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Generic, cast

import cloudpickle
import joblib

from mtl_core import progress, smtos
from mtl_core.files import clear_leftovers
from mtl_core.smtos.base import REGISTRY, register
from mtl_study.experiments import checkpoints, engines, fingerprints, leases, training
from mtl_study.experiments.engines import Engine, EngineLost, Failure
from mtl_study.experiments.runs import BadConfig, Run, RunConfig
from mtl_study.experiments.store import C, R, RunStore, Store, StoreError, record_config

POLL = 2.0  # seconds between looks at what others have finished
READ_ONLY = "MTL_READ_ONLY"  # set where a missing run is an error, not work to do
TIME_LIMIT = 24  # hours after which a run counts as hanging, where MTL_TIME_LIMIT says no other

Train = Callable[[C, str, str | None], R]


def run(
    configs: Iterable[RunConfig],
    store: RunStore | str | os.PathLike[str],
    *,
    workers: int | None = None,
    device: str = "auto",
    data_dir: str | None = None,
    title: str = "runs",
    engine: str | None = None,
    address: str | None = None,
    time_limit: float | None = None,
    keep: bool | None = None,
    longest_first: bool = True,
) -> list[Run]:
    """The records of these configurations, in order; those that the store does not hold are trained and stored.

    Several sweeps, also of different machines, may share a store: each run is trained by one of them.

    Args:
        configs: duplicates are trained once.
        store: where records are kept; a folder.
        workers: training processes; None is MTL_WORKERS, or one per core, or, where there are GPUs, MTL_RUNS_PER_GPU
            (1) on each. They are spread over all GPUs that are visible, and have one torch thread each. 0 trains in
            this process, for debugging.
        device, data_dir: as for `training.train`.
        title: what the progress bar says.
        engine: "local", processes of this machine; "dask", a Dask cluster (docs/cluster.md). None is MTL_ENGINE, or
            local.
        address: of the Dask scheduler. None is MTL_ADDRESS, or a cluster that is started here.
        time_limit: seconds, after which a run counts as hanging. None is MTL_TIME_LIMIT, in hours, or a day.
        keep: leave each run's last checkpoint in the store, so that asking for more epochs trains only those. None:
            whether MTL_KEEP is set.
        longest_first: begin with the longest runs, so that no process is left alone with one at the end; else in the
            order given.

    Raises:
        BadConfig, BadOption, DataNotFound: before any training, if a run of the sweep could not start.
        StoreError: the store cannot be written to. Before training; or, if that happens later (a full disk), at the
            end: every finished run is then kept, and the message says where.
        RunFailed: a run raised an error, or its process died twice; all other runs are done and stored first.
        EngineLost: the Dask cluster cannot be reached, or no longer; what had finished is stored.
    """
    store = store if isinstance(store, RunStore) else RunStore(store)
    keep = bool(os.environ.get("MTL_KEEP")) if keep is None else keep
    return records(
        configs,
        store,
        functools.partial(training.train_from_checkpoint, store.folder.resolve(), keep=keep),
        workers=workers,
        device=device,
        data_dir=data_dir,
        title=title,
        engine=engine,
        address=address,
        time_limit=time_limit,
        keep=keep,
        longest_first=longest_first,
    )


@fingerprints.held()
def records(
    configs: Iterable[C],
    store: Store[C, R],
    train: Train[C, R],
    *,
    workers: int | None = None,
    device: str = "auto",
    data_dir: str | None = None,
    title: str = "records",
    engine: str | None = None,
    address: str | None = None,
    time_limit: float | None = None,
    keep: bool = False,
    longest_first: bool = True,
) -> list[R]:
    """`run` for records of any kind.

    Args:
        train: makes the record of a configuration, in a worker; (config, device, data_dir).
        keep: leave the checkpoints that it wrote.
    """
    configs = list(configs)
    keys = [config.key for config in configs]
    longest: dict[str, C] = {}  # of one key, as it serves the shorter ones
    for key, config in zip(keys, configs, strict=True):
        if key not in longest or config.epochs_in_all > longest[key].epochs_in_all:
            longest[key] = config
    found = {key: record for key, config in longest.items() if (record := store.get(config)) is not None}
    for key in found:
        if leases.abandoned(lease := _lease(store, longest[key])):  # of a sweep that was killed after it had stored it
            _remove_superfluous_checkpoint(store, longest[key])
            leases.clear(lease)
    missing = [config for key, config in longest.items() if key not in found]
    if missing and os.environ.get(READ_ONLY):
        raise BadConfig(
            f"{len(missing)} of {len(longest)} {store.what}s are not stored, and nothing is trained here: "
            f"{_described(missing[0])}. `make reproduce` trains what is missing."
        )
    if missing:
        where, gpus = training.find_device(device), training.gpus(device)
        _check(missing, store, data_dir)
        if workers is None:
            workers = workers_wanted()
        runs_per_gpu = runs_per_gpu_wanted()
        if runs_per_gpu and not gpus:
            warnings.warn(f"MTL_RUNS_PER_GPU = {runs_per_gpu} has no effect: the runs go to {where}", stacklevel=1)
        if workers is None:
            workers = len(gpus) * (runs_per_gpu or 1) or (joblib.cpu_count() if where.type == "cpu" else 1)
        if time_limit is None:
            time_limit = 3600.0 * hours_wanted()
        name, address = engine or os.environ.get("MTL_ENGINE") or "local", address or os.environ.get("MTL_ADDRESS")
        try:
            chosen = engines.engine(name, min(workers, len(missing)), address or None, time_limit, gpus)
        except ValueError as error:
            raise BadConfig(str(error)) from None
        if longest_first:
            missing.sort(key=_cost, reverse=True)
        found |= _Sweep(missing, store, chosen, (train, device, data_dir), title, keep).run()
    return [cast(R, found[key].serving(config)) for key, config in zip(keys, configs, strict=True)]


def wanted(name: str, least: int = 0, what: str = "processes") -> int | None:
    """A whole number in the environment, where it is set. Raises BadConfig: it is none, or less than `least`."""
    text = os.environ.get(name, "").strip()
    if text and not (text.isascii() and text.isdigit() and int(text) <= 10_000):
        raise BadConfig(f"{name} = {text!r} is no number of {what}; give a whole number, or unset it.")
    if text and int(text) < least:
        raise BadConfig(f"{name} = {text}: give at least {least}, or unset it.")
    return int(text) if text else None


workers_wanted = functools.partial(wanted, "MTL_WORKERS")
runs_per_gpu_wanted = functools.partial(wanted, "MTL_RUNS_PER_GPU", least=1)


def hours_wanted() -> int:
    """After which a run counts as hanging."""
    return wanted("MTL_TIME_LIMIT", least=1, what="hours") or TIME_LIMIT


class RunFailed(RuntimeError):
    """A run of a sweep raised an error that is not a divergence, or died."""


def _check(configs: list[C], store: Store[C, R], data_dir: str | None) -> None:
    """Raises what would keep a run from starting, before any does; and prepares the data, once for all."""
    bases = {(b.problem, str(b.problem_options), b.smto, b.source, b.sizes): b for b in (c.base for c in configs)}
    for config in bases.values():
        problem = config.definition
        problem.data.check(config.source, config.sizes, data_dir)
        training.method(config, problem.build_model(config.dropout))
    store.check_writable()
    for config in {(b.problem, str(b.problem_options), b.source, b.sizes): b for b in bases.values()}.values():
        config.definition.data.prepare(config.source, config.sizes, data_dir)


def _lease(store: Store[C, R], config: C) -> Path:
    return store.path(config).with_suffix(".lease")


def _remove_superfluous_checkpoint(store: Store[C, R], config: C) -> None:
    """Remove the checkpoint of a run that has ended and is stored. One of a longer run, or that was kept, stays."""
    file = training.checkpoint_of(store.folder, config)
    ended = checkpoints.over_at(file)
    if ended and (stored := store.longest(config)) and record_config(stored).epochs_in_all >= ended:
        with contextlib.suppress(OSError):
            file.unlink()


class _Sweep(Generic[C, R]):
    """What is missing gets done: claimed, handed to the engine, stored. `todo`: runs that are neither found nor failed
    and not in the engine, some of them perhaps with another sweep. `back`: what the engine has handed back and is not
    stored yet. `died`: those whose process died, once; each is tried again, alone, when nothing else runs.
    """

    def __init__(
        self,
        configs: list[C],
        store: Store[C, R],
        engine: Engine,
        how: tuple[Train[C, R], str, str | None],
        title: str,
        keep: bool,
    ) -> None:
        self.configs = {config.key: config for config in configs}
        self.store, self.engine, self.how, self.keep = store, engine, how, keep
        self.definitions = b"" if isinstance(engine, engines.Here) else _definitions()  # known here as they are
        self.todo, self.running = list(self.configs), set[str]()
        self.back: list[tuple[str, Any]] = []
        self.died: list[str] = []
        self.again = ""  # the one that is tried once more
        self.found: dict[str, R] = {}
        self.failed: dict[str, str] = {}
        self.unsaved = _Unsaved(store)
        self.leases = leases.Leases()
        options: dict[str, Any] = {"desc": title, "unit": store.what, "file": sys.stderr, "dynamic_ncols": True}
        self.bar = progress.bar(total=len(configs), leave=False, **options)

    def run(self) -> dict[str, R]:
        for folder in {self.store.path(config).parent for config in self.configs.values()}:
            clear_leftovers(folder)
        try:
            with self.bar:
                while self.todo or self.running or self.died:
                    self._start()
                    self._take(POLL)
        except BaseException as error:
            self._put_away()  # what an interrupt has left of a batch
            with contextlib.suppress(EngineLost):
                self._take(0)
            try:
                self.unsaved.report()
            except StoreError as lost:
                print(lost, file=sys.stderr)
            if isinstance(error, EngineLost):
                raise EngineLost(
                    f"{error} {len(self.found)} of {len(self.configs)} {self.store.what}s are stored; the same command "
                    "trains only what is missing."
                ) from None
            raise
        finally:
            self.engine.close()
            self.leases.close()
        self.unsaved.report()
        if self.failed:
            how_many = f"{len(self.failed)} of {len(self.configs)} {self.store.what}s failed; the others are stored."
            raise RunFailed(
                "\n".join([how_many, *(f"{_described(self.configs[k])}: {why}" for k, why in self.failed.items())])
            )
        return self.found

    def _start(self) -> None:
        """Hand the engine as much as it takes of what nobody else trains."""
        if self.again:
            return
        for key in list(self.todo):
            if len(self.running) >= self.engine.slots:
                return
            if self.leases.claim(self._lease(key)):
                self.todo.remove(key)
                if (record := self.store.get(self.configs[key])) is not None:  # of another sweep, meanwhile
                    _remove_superfluous_checkpoint(self.store, self.configs[key])
                    self._found(key, record)
                else:
                    self._submit(key)
        if not self.running and self.died:
            self.engine.cancel()  # nothing else should take memory
            self.again = self.died.pop()
            self._submit(self.again)
        elif not self.running and self.todo:
            self.bar.set_postfix_str(f"waiting for {leases.holder(self._lease(self.todo[0]))}")

    def _submit(self, key: str) -> None:
        self.running.add(key)
        self.engine.submit(key, _train, self.definitions, self.configs[key], *self.how)

    def _take(self, wait: float) -> None:
        """Store what the engine has done."""
        self.back += self.engine.completed(wait)
        self._put_away()

    def _put_away(self) -> None:
        while self.back:
            self._settle(*self.back[0])
            del self.back[0]

    def _settle(self, key: str, result: Any) -> None:
        """Store one result, or note why there is none. After an interrupt, once more does no harm."""
        self.running.discard(key)
        if isinstance(result, Failure) and result.died and key != self.again:
            self.died.append(key)
            return
        if key == self.again:
            self.again = ""
        if isinstance(result, Failure):
            self._end(key)
            self.failed[key] = result.why + (", twice" if result.died else "")
        elif result.key != key:
            self._end(key)
            self.failed[key] = "the worker has another version of the code"
        else:
            if self.unsaved.save(result) and not self.keep:
                _remove_superfluous_checkpoint(self.store, self.configs[key])
            self._found(key, result)

    def _found(self, key: str, record: R) -> None:
        self.found[key] = record
        self._end(key)

    def _end(self, key: str) -> None:
        self.leases.release(self._lease(key))
        self.bar.set_postfix_str(self.configs[key].title)
        self.bar.update()

    def _lease(self, key: str) -> Path:
        return _lease(self.store, self.configs[key])


def _definitions() -> bytes:
    """The methods from outside the package, as they are now, for the workers."""
    foreign = [smto for smto in REGISTRY.values() if not smto.__module__.startswith("mtl_core.")]
    modules = [sys.modules[name] for name in {smto.__module__ for smto in foreign} - {"__main__"}]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps([(smto, _fingerprint(smto)) for smto in foreign])
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def _fingerprint(smto: type) -> str | None:
    """None where it cannot be told: then no run is of this method."""
    with contextlib.suppress(fingerprints.CannotTell):
        return fingerprints.fingerprint(smto)
    return None


def _train(definitions: bytes, config: C, train: Train[C, R], device: str, data_dir: str | None) -> R:
    """In a worker. definitions: of the methods that are no part of the package; none where all are known."""
    known = {register(smto): found for smto, found in (cloudpickle.loads(definitions) if definitions else [])}
    with fingerprints.held({smto: found for smto, found in known.items() if found}):
        return train(config, device, data_dir)


def _described(config: C) -> str:
    """A run or population with its key and its whole configuration."""
    return f"{config.title} (key {config.key}, {json.dumps(config.settings)})"


def _cost(config: C) -> tuple[int, float]:
    """Steps times a rough price, to start the longest runs first."""
    cheap = smtos.get(config.base.smto).space in ("losses", "features")
    return config.epochs_in_all * config.base.sizes[0], 1.0 if cheap else 1.4


class _Unsaved(Generic[C, R]):
    """Writes records to the store, and elsewhere when the store stops taking them: nothing finished is lost."""

    def __init__(self, store: Store[C, R]) -> None:
        self.store = store
        self.refuge: Store[C, R] | None = None
        self.error: OSError | None = None
        self.waiting: list[R] = []  # in memory, for want of any other place

    def save(self, run: R) -> bool:
        """Returns whether the store itself has it."""
        try:
            self.store.put(run)
        except OSError as error:
            self.error = error
            self.waiting.append(run)
            self.shelter()
            return False
        return True

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
        if self.waiting:
            self.shelter()
        what, folder = self.store.what, self.store.folder
        if self.refuge is not None and not any(self.refuge.folder.rglob("*.json")):  # it has taken nothing
            shutil.rmtree(self.refuge.folder, ignore_errors=True)
            self.refuge = None
        if self.waiting:
            raise StoreError(
                f"neither the {what} store {folder} nor a temporary folder could be written to ({self.error}): "
                f"{len(self.waiting)} finished {what}s are lost. Free some space and run the same command again."
            )
        if self.refuge is not None:
            raise StoreError(
                f"the {what} store {folder} could no longer be written to ({self.error}). The {what}s finished since "
                f"then lie in {self.refuge.folder}: copy its contents into the store, then run the same command again."
            )
