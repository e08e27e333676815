"""Sweeps: what a cell costs beside its own time, how two processes scale, and a store of a million rows.

Overheads and scaling are wall time, since waiting is part of them: run it on a machine that does nothing else. What one
process does with the store is CPU time.
"""

from __future__ import annotations

import multiprocessing
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from analysis.benchmarks.timing import Timing
from analysis.settings import Settings
from analysis.sweep import executors, export
from analysis.sweep.experiment import Experiment
from analysis.sweep.grid import Grid
from analysis.sweep.run import sweep
from analysis.sweep.store import DONE, Result, reading, writing
from toyiwae.extras import import_extra

CELLS = 20_000
MILLION = 1_000_000
SPUN = 800
TURNS = 3
ROW = '{"state": 0.12345678901234567, "a": 0.14285714285714285, "b": 0.333333333333333, "text": "some", "none": null}'


class SpinSettings(Settings):
    """A cell that computes for a while."""

    a: int = 0
    b: int = 0
    steps: int = 0


def spin(settings: Any, block: int) -> dict[str, Any]:
    """So many steps of a generator of random numbers, in pure Python."""
    state = settings.a * 1000 + settings.b + 1
    for _ in range(settings.steps):
        state = state * 6364136223846793005 % 18446744073709551616
    return {"state": state / 2**64, "a": settings.a / 7, "b": settings.b / 3, "text": "some", "none": None}


SPIN = Experiment("spin", 1, SpinSettings, spin)


def run() -> Iterator[Timing]:
    """Overheads by executor, scaling, and the large store."""
    yield from overheads()
    yield from scaling()
    yield from million()


def overheads() -> Iterator[Timing]:
    """Cells that take no time, a second after the workers have started."""
    for name, workers in (("serial", executors.serial()), ("2 processes", executors.processes(2))):
        yield Timing(f"overhead, {name}", 1e6 * per_cell(workers), "µs a cell")
    distributed: Any = import_extra("distributed", extra="cluster", purpose="the benchmark of sweeps")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        seconds = per_cell(executors.dask(cluster.scheduler_address))
    yield Timing("overhead, Dask, 2 workers", 1e6 * seconds, "µs a cell")


def per_cell(workers: executors.Workers) -> float:
    """Wall seconds of a cell without work: the difference of two sweeps, so that starting workers does not count."""
    few, many = (timed(grid_of(cells // 100, 100), workers) for cells in (CELLS // 10, CELLS))
    return (many - few) / (CELLS - CELLS // 10)


def scaling() -> Iterator[Timing]:
    """Two processes on cells of 20 ms, against two copies of a loop over half of them each, in turns.

    Both are the difference of a long and a short run, so that starting processes does not count.
    """
    steps = round(0.02 / (min(once(100_000) for _ in range(5)) / 100_000))
    seconds: dict[str, list[float]] = {"copies": [], "sweep": []}
    for _ in range(TURNS):
        long, short = (copies(cells // 2, steps) for cells in (SPUN, SPUN // 4))
        seconds["copies"].append(long - short)
        grids = (grid_of(cells // 20, 20, steps=steps) for cells in (SPUN, SPUN // 4))
        long, short = (timed(grid, executors.processes(2)) for grid in grids)
        seconds["sweep"].append(long - short)
    cells = SPUN - SPUN // 4
    rate = cells / statistics.median(seconds["sweep"])
    yield Timing(
        "2 processes, cells of 20 ms", rate, "cells/s", rate / (cells / statistics.median(seconds["copies"]))
    )


def once(steps: int) -> float:
    """Seconds of one cell."""
    started = time.perf_counter()
    spin(SimpleNamespace(a=1, b=1, steps=steps), 0)
    return time.perf_counter() - started


def copies(cells: int, steps: int) -> float:
    """Wall seconds of two processes that run a plain loop each, from when both have started."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    running = [context.Process(target=_loop, args=(barrier, cells, steps)) for _ in range(2)]
    for process in running:
        process.start()
    barrier.wait()
    started = time.perf_counter()
    for process in running:
        process.join()
    return time.perf_counter() - started


def _loop(barrier: Any, cells: int, steps: int) -> None:
    barrier.wait()
    for cell in range(cells):
        spin(SimpleNamespace(a=cell, b=1, steps=steps), 0)


def million() -> Iterator[Timing]:
    """A store of a million cells: planning, `status`, a resume that finds nothing to do, and the export."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "million.sqlite")
        grid = grid_of(1000, MILLION // 1000)
        yield Timing("10⁶ cells: plan", cpu(lambda: sweep(grid, path, limit=1)), "s")
        fill(path)
        yield Timing("10⁶ rows: file", path.stat().st_size / 1e6, "MB")
        yield Timing("10⁶ rows: status", cpu(lambda: status(path)), "s")
        yield Timing("10⁶ rows: resume", cpu(lambda: sweep(grid, path)), "s")
        context = multiprocessing.get_context("spawn")
        receiver, sender = context.Pipe(False)
        process = context.Process(target=_export, args=(path, sender))
        process.start()
        seconds, bytes_ = receiver.recv()
        process.join()
        yield Timing("10⁶ rows: export to CSV", seconds, "s")
        yield Timing("10⁶ rows: export, peak memory", bytes_ / 1e6, "MB")


def fill(path: Path) -> None:
    """Rows for all cells, in transactions of 10,000."""
    with writing(path) as store:
        after = -1
        while found := store.to_do(after, 10_000):
            after = found[-1].position
            results = [Result(cell.cell, 0, 1e-3, ROW) for cell in found]
            store.write("{}", results, {cell.cell: (DONE, 1) for cell in found})


def status(path: Path) -> None:
    """What the command asks the store."""
    with reading(path) as store:
        assert store.counts()[1] == MILLION
        assert not store.unplanned()
        assert not store.failures(20)


def _export(path: Path, sender: Any) -> None:
    with reading(path) as store:
        seconds = cpu(lambda: export.to_csv(store, SPIN, path.with_suffix(".csv")))
        assert store.counts()[1] == MILLION
    status = Path("/proc/self/status").read_text(
        encoding="ascii"
    )  # getrusage would count the parent's memory
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    sender.send((seconds, 1024 * int(peak)))


def grid_of(rows: int, columns: int, **settings: int) -> Grid:
    """A grid of so many cells."""
    return Grid("spin", SPIN, [{"a": list(range(rows)), "b": list(range(columns))}], settings)


def timed(grid: Grid, workers: executors.Workers) -> float:
    """Wall seconds of a whole sweep in a new store."""
    with tempfile.TemporaryDirectory() as temporary:
        return wall(lambda: sweep(grid, Path(temporary, "a.sqlite"), workers=workers))


def wall(call: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def cpu(call: Callable[[], object]) -> float:
    """CPU seconds of one call, in this process."""
    started = time.process_time()
    call()
    return time.process_time() - started
