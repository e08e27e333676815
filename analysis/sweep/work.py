"""What a worker does: a batch of blocks, each one a row or a failure.

A worker needs NumPy, toyiwae and what the experiment imports: functions come by value, settings as JSON.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import toyiwae
from toyiwae import records
from toyiwae.extras import import_extra


class Result(NamedTuple):
    """What came of a block: a row as JSON, or an error with its traceback."""

    cell: int
    block: int
    seconds: float
    row: str | None
    error: str = ""
    traceback: str = ""


class Job(NamedTuple):
    """One block to be run: its cell's number, its own, and the cell's settings as JSON."""

    cell: int
    block: int
    own: str
    common: str


class ByValue:
    """A function that pickle sends by value, so that workers need not be able to import it.

    Functions and classes of its module, and of `analysis`, go with it; modules are imported there, so a function that
    runs where `analysis` is not installed imports names from it, not modules.

    Attributes:
        function: what is called.
    """

    def __init__(self, function: Callable[..., Any], *modules: str):
        """Takes the function, and the names of further modules that go by value."""
        self.function, self._modules = function, modules
        self._pickled: bytes | None = None

    def __call__(self, *arguments: Any) -> Any:
        """Calls the function."""
        return self.function(*arguments)

    def __reduce__(self) -> Any:
        """Arrives as the plain function."""
        if self._pickled is None:
            self._pickled = _by_value(self.function, self._modules)
        return pickle.loads, (self._pickled,)


def _by_value(function: Any, names: Iterable[str]) -> bytes:
    cloudpickle: Any = import_extra("cloudpickle", extra="analysis", purpose="a sweep with workers")
    before = set(cloudpickle.list_registry_pickle_by_value())
    modules = [sys.modules[name] for name in {*names, "analysis"} - before if name in sys.modules]
    try:
        for module in modules:
            cloudpickle.register_pickle_by_value(module)
        return cloudpickle.dumps(functools.partial(_call, cloudpickle.dumps(function)))
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def _call(pickled: bytes, *arguments: Any) -> Any:
    """Calls a pickled function. What it lacks on a worker is missed here, where it is an exception of this call.

    Dask unpickles what it is sent while it reads messages, and a worker that cannot do that is lost.
    """
    return pickle.loads(pickled)(*arguments)


def task(run: Callable[[Any, int], Any]) -> ByValue:
    """`perform` for one experiment."""
    return ByValue(functools.partial(perform, run), run.__module__)


def perform(run: Callable[[Any, int], Any], jobs: Sequence[tuple], budget: float) -> list[tuple]:
    """Runs blocks one after the other, on one thread, until a time is up; at least one.

    Args:
        run: (settings, block) -> row, as of an experiment.
        jobs: `Job`s as plain tuples.
        budget: seconds after which no further block is begun.

    Returns:
        As many `Result`s as blocks were run, as plain tuples.

    Raises:
        RuntimeError: toyiwae has another version here than where the sweep was started.
    """
    with torch_on_one_thread():  # the same numbers on every worker
        return _performed(run, jobs, budget)


def _performed(run: Callable[[Any, int], Any], jobs: Sequence[tuple], budget: float) -> list[tuple]:
    """`perform`, on as many threads as there are."""
    found: list[tuple] = []
    commons: dict[str, Any] = {}
    began = time.perf_counter()
    for cell, block, own, common in jobs:
        if common not in commons:
            *_, version, commons[common] = json.loads(common)
            if version != toyiwae.__version__:
                raise RuntimeError(f"a worker has toyiwae {toyiwae.__version__}, the sweep {version}")
        started = time.perf_counter()
        try:
            settings = SimpleNamespace(**with_values(commons[common], json.loads(own)))
            row = json.dumps(records.plain(run(settings, block)), allow_nan=False, ensure_ascii=False)
            found.append((cell, block, time.perf_counter() - started, row, "", ""))
        except (Exception, SystemExit) as error:
            message = in_line(error)
            seconds = time.perf_counter() - started
            found.append((cell, block, seconds, None, message, traceback.format_exc()))
        if time.perf_counter() - began > budget:
            break
    return found


def in_line(error: BaseException) -> str:
    """An exception in one line that is not too long."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def with_values(settings: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with further values, whose names may reach into tables: `"model.latents"`."""
    result = dict(settings)
    for name, value in own.items():
        *above, last = name.split(".")
        table = result
        for part in above:
            inner = table.get(part)
            table[part] = table = dict(inner) if isinstance(inner, dict) else {}
        table[last] = value
    return result


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Within the block, the libraries of this process use one thread each, as those of workers do."""
    limits = importlib.util.find_spec("threadpoolctl") and importlib.import_module("threadpoolctl")
    with torch_on_one_thread(), limits.threadpool_limits(1) if limits else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def torch_on_one_thread() -> Iterator[None]:
    """Within the block, torch uses one thread, also if a cell is the first to import it; afterwards as many as before.

    So it is imported here, unless it is not installed or would start with one thread.
    """
    alone = os.environ.get("OMP_NUM_THREADS") == "1" or not importlib.util.find_spec("torch")
    torch: Any = sys.modules.get("torch") if alone else importlib.import_module("torch")
    before = torch.get_num_threads() if torch else 1
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
