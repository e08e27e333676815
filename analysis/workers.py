"""Studies on worker processes: those that take longest first, as many at a time as there are workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass
from typing import Any

from analysis.runner import Outcome, run
from analysis.settings import Settings
from analysis.study import Study
from analysis.sweep import executors
from analysis.sweep.work import one_thread

Cell = tuple[Study, Settings]


@dataclass(frozen=True)
class Watch:
    """What is called in this process as studies come and go.

    Attributes:
        begins: with the place of a study, when it is sent to a worker.
        ends: with its place and its outcome.
    """

    begins: Callable[[int], Any]
    ends: Callable[[int, Outcome], Any]


def run_on(jobs: int, cells: Sequence[Cell], places: Sequence[int], venue: str, watch: Watch) -> None:
    """Runs studies on processes started afresh, one thread each.

    Those under way when a process is lost (out of memory, a signal) run once more, each alone, since which of them was
    at fault is not known; the outcome of one that is lost again says so.

    Args:
        jobs: processes.
        cells: studies, which must be picklable, with their settings.
        places: of those in `cells` that run.
        venue: whose style the figures have.
        watch: told what happens.

    Raises:
        KeyboardInterrupt: on Ctrl-C; the processes are gone then.
    """
    order = sorted(places, key=lambda place: -cells[place][0].cost)
    for place in _round(jobs, cells, order, venue, watch):
        if _round(1, cells, [place], venue, watch):
            watch.ends(
                place, Outcome(*cells[place], 0.0, error="its process was lost, twice: out of memory?")
            )


def _round(jobs: int, cells: Sequence[Cell], order: Sequence[int], venue: str, watch: Watch) -> list[int]:
    """Runs studies in this order; returns those that were under way when a process was lost."""
    workers, waiting, lost = executors.processes(jobs), list(order), []
    flying: dict[Future, int] = {}
    pool = workers.start()

    def submit(place: int) -> Future:
        return pool.submit(_run, *cells[place], venue)

    try:
        while waiting or flying:
            while waiting and len(flying) < jobs:
                place = waiting.pop(0)
                watch.begins(place)
                try:
                    flying[submit(place)] = place
                except BrokenExecutor:  # an idle worker is gone
                    pool = _restarted(workers, pool)
                    flying[submit(place)] = place
            broken = False
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                place, error = flying.pop(future), future.exception()
                if error is not None and executors.is_loss(error):
                    lost, broken = [*lost, place], True
                else:
                    watch.ends(place, _outcome(cells[place], future))
            if broken:
                lost += flying.values()
                flying.clear()
                pool = _restarted(workers, pool)
    finally:
        workers.stop(pool)
    return lost


def _run(study: Study, settings: Settings, venue: str) -> Outcome:
    with one_thread():
        return run(study, settings, venue)


def _restarted(workers: executors.Workers, pool: Executor) -> Executor:
    workers.stop(pool)
    return workers.start()


def _outcome(cell: Cell, future: Future) -> Outcome:
    """What came back; a study that could not be sent, or could not be sent back, broke down."""
    error = future.exception()
    if error is None:
        return future.result()
    return Outcome(*cell, 0.0, error=" ".join(f"{type(error).__name__}: {error}".split()))
