"""Where cells run: any `concurrent.futures.Executor`, and how it is started, watched and stopped."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from toyiwae.errors import InputError
from toyiwae.extras import import_extra

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
"""Environment variables that say how many threads a library uses."""

LOST = frozenset({"KilledWorker", "FutureCancelledError", "CommClosedError"})
"""Names of the exceptions by which Dask says that a worker is gone; it blames all that was queued on it."""


@dataclass(frozen=True)
class Workers:
    """A kind of executor.

    Attributes:
        start: makes one; again after a worker's death has broken it.
        count: how many blocks it runs at a time, now.
        stop: ends it at once, unfinished cells included.
        local: whether cells run in this process, so that nothing has to be sent.
    """

    start: Callable[[], Executor]
    count: Callable[[Executor], int]
    stop: Callable[[Executor], None]
    local: bool = False


def is_loss(error: BaseException) -> bool:
    """Whether an exception says that a worker was lost, not that something is wrong with what it did."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, (BrokenExecutor, CancelledError)) or bool(names & LOST)


class Serial(Executor):
    """Runs everything at once, here."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """A future that is done."""
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class Dask(Executor):
    """A Dask cluster as an executor.

    Dask's own (`Client.get_executor`) mistakes the result of a task for an exception when the worker that holds it dies
    while it is fetched (distributed 2026.8).
    """

    def __init__(self, client: Any):
        """Takes a client, which is closed with the executor."""
        self.client = client

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Sends a call; it may run more than once."""
        there = self.client.submit(fn, *args, **kwargs, pure=False)
        here: Future = Future()

        async def follow() -> None:
            try:
                here.set_result(await there._result())
            except BaseException as error:
                here.set_exception(error)

        self.client.loop.add_callback(follow)
        return here

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leaves the cluster, which forgets what has not been fetched."""
        self.client.close(timeout=10 if wait else 1)


def serial() -> Workers:
    """One cell after the other, in this process."""
    return Workers(Serial, lambda executor: 1, lambda executor: None, local=True)


def threads(count: int) -> Workers:
    """Threads of this process: for cells that spend their time outside Python's lock."""
    return Workers(
        lambda: ThreadPoolExecutor(count),
        lambda executor: count,
        lambda executor: executor.shutdown(wait=False, cancel_futures=True),
        local=True,
    )


def processes(count: int) -> Workers:
    """Processes of this machine, started afresh, with one thread each."""
    return Workers(lambda: _pool(count), lambda executor: count, _kill)


def dask(address: str) -> Workers:
    """The workers of a Dask cluster.

    Args:
        address: of its scheduler, such as `"tcp://10.0.0.1:8786"`.

    Raises:
        InputError: nothing answers there.
        MissingExtraError: Dask is not installed.
    """
    distributed: Any = import_extra("distributed", extra="cluster", purpose="--scheduler")

    def start() -> Executor:
        try:
            return Dask(distributed.Client(address, timeout=10, set_as_default=False))
        except (OSError, ValueError) as error:
            raise InputError(f"no Dask scheduler answers at {address!r}: {error}") from None

    return Workers(
        start,
        lambda executor: sum(executor.client.nthreads().values()),  # pyright: ignore[reportAttributeAccessIssue]
        lambda executor: executor.shutdown(wait=False),
    )


def of_executor(executor: Executor, count: int) -> Workers:
    """An executor of yours, such as executorlib's or submitit's on a Slurm cluster; it is not shut down.

    Args:
        executor: it must send what it runs to its workers by pickle or cloudpickle.
        count: how many blocks it runs at a time.
    """
    return Workers(lambda: executor, lambda _: count, lambda _: None)


def _pool(count: int) -> ProcessPoolExecutor:
    pool = ProcessPoolExecutor(
        count, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_worker
    )
    with _environment(dict.fromkeys(THREADS, "1") | {"OMP_WAIT_POLICY": "passive"}):
        for _ in range(
            count
        ):  # each starts a process, which reads the environment when it loads its libraries
            pool.submit(int)
    return pool


def _kill(pool: Any) -> None:
    for process in list((pool._processes or {}).values()):  # Python 3.14 has kill_workers
        process.kill()
    pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker() -> None:
    """A worker leaves Ctrl-C to the process that started it, and ends when that one is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        assert parent is not None
        parent.join()
        os._exit(1)

    if parent is not None:
        threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
