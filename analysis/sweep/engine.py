"""The engine of a sweep: hands blocks to an executor in batches, takes what comes back, writes it to the store."""

from __future__ import annotations

import contextlib
import json
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field
from typing import Any

from analysis.sweep import executors, progress
from analysis.sweep.adaptive import merged
from analysis.sweep.executors import Serial, Workers
from analysis.sweep.grid import Grid
from analysis.sweep.origin import origin
from analysis.sweep.store import DONE, FAILED, Store
from analysis.sweep.work import Job, Result, in_line, one_thread, task
from toyiwae.errors import ToyiwaeError

BATCH_SECONDS = 0.2
"""How long a batch takes, about: long beside what sending it costs, short beside the patience of who waits."""

LARGEST_BATCH = 2000
AHEAD = 2  # batches that wait on each worker, its own included
LOSSES = 3  # of a worker on which a block was alone, until the block is to blame
MOST_LOST = 20  # batches before the first one comes back
GRACE_SECONDS = 1.0  # after Ctrl-C, for batches under way
CELLS_AT_A_TIME = 1000


@dataclass(frozen=True)
class Summary:
    """How a sweep stands when it ends.

    Attributes:
        done, failed, to_do: cells.
        blocks: that were run.
        seconds: that took.
    """

    done: int
    failed: int
    to_do: int
    blocks: int
    seconds: float


@dataclass
class _Task:
    """A block on its way, and how many workers were lost with it: among others, and alone."""

    job: Job
    losses: int = 0
    alone: int = 0


@dataclass
class _Cell:
    """A cell under way."""

    waiting: int
    rows: dict[int, Any] = field(default_factory=dict)
    failed: bool = False


class Engine:
    """One run of a sweep."""

    def __init__(
        self,
        store: Store,
        grid: Grid,
        workers: Workers,
        limit: int | None,
        batch_seconds: float,
        note: Callable[[str], Any],
    ):
        """Everything before the first cell."""
        self.store, self.grid, self.workers, self.note = store, grid, workers, note
        self.left = limit
        self.task, self.origin = task(grid.experiment.run), origin()
        self.buffer: tuple[list[Result], dict[int, tuple[int, int]]] = ([], {})
        self.queue: deque[_Task] = deque()
        self.flying: dict[Future, list[_Task]] = {}
        self.cells: dict[int, _Cell] = {}
        self.executor: Executor = Serial()
        self.position = -1
        self.blocks = 0
        self.lost, self.heard = 0, False
        self.batch_seconds, self.batch = batch_seconds, 1.0
        self.flushed, self.flush_seconds = time.monotonic(), 0.0
        self.asked, self.count, self.there = -1e9, 1, True

    def run(self, show_progress: bool | None) -> Summary:
        """Runs until there is nothing left to run.

        Raises:
            ToyiwaeError: no room in the store, no worker that works.
            KeyboardInterrupt: on Ctrl-C, after what was finished is written.
        """
        began = time.monotonic()
        to_do, done, failed = self.store.counts()
        total = to_do + done + failed
        with contextlib.ExitStack() as stack:
            self.update = stack.enter_context(
                progress.bar(total, done + failed, wanted=show_progress, note=self.note)
            )
            self.finished, self.failures = done + failed, failed
            if self._fill(1):
                if self.workers.local:
                    stack.enter_context(one_thread())
                self.executor = self.workers.start()
                try:
                    self._loop()
                except BaseException:
                    self._drain()
                    raise
                finally:
                    try:
                        self._flush()
                    finally:
                        self.workers.stop(self.executor)
            self._flush()
        to_do, done, failed = self.store.counts()
        return Summary(done, failed, to_do, self.blocks, time.monotonic() - began)

    def _loop(self) -> None:
        while True:
            self._submit()
            if not self.flying and not self._fill(1):
                return
            ended, _ = wait(self.flying, timeout=0.25, return_when=FIRST_COMPLETED)
            for future in ended:
                self._take(future)
            if time.monotonic() - self.flushed > max(0.05, 10 * self.flush_seconds):
                self._flush()
            self.update(self.finished, self.failures)

    # what goes out

    def _submit(self) -> None:
        """Keeps the workers busy; a block whose loss took a worker twice goes alone, so that no other is blamed."""
        while len(self.flying) < (
            1 if self.workers.local and self._workers() == 1 else AHEAD * self._workers()
        ):
            size = 1 if self.workers.local else min(LARGEST_BATCH, max(1, round(self.batch)))
            if not self._fill(size):
                return
            if self.queue[0].losses:
                if self.queue[0].losses > 1 and self.flying:
                    return
                size = 1
            batch = [self.queue.popleft() for _ in range(min(size, len(self.queue)))]
            jobs = [tuple(one.job) for one in batch]
            try:
                future = self.executor.submit(self.task, jobs, 2 * self.batch_seconds)
            except Exception as error:
                if not executors.is_loss(error):
                    raise
                self.queue.extendleft(reversed(batch))
                self._restart(error)
                return
            self.flying[future] = batch
            if batch[0].losses > 1:
                return

    def _workers(self) -> int:
        """How many blocks run at a time; asked again now and then, since workers come and go."""
        if time.monotonic() - self.asked > 2:
            try:
                count = self.workers.count(self.executor)
            except Exception as error:
                raise ToyiwaeError(
                    f"the scheduler is gone ({in_line(error)}): start it and run this again"
                ) from None
            if count == 0 and self.there:
                self.note("there is no worker now: waiting for one")
            self.count, self.there = max(1, count), count > 0
            self.asked = time.monotonic()
        return self.count

    def _fill(self, size: int) -> bool:
        """Takes cells from the store until there are so many blocks to run; whether there is one."""
        while len(self.queue) < size and (self.left is None or self.left > 0):
            number = CELLS_AT_A_TIME if self.left is None else min(self.left, CELLS_AT_A_TIME)
            found = self.store.to_do(self.position, number)
            if not found:
                break
            self.position = found[-1].position
            self.left = None if self.left is None else self.left - len(found)
            for cell in found:
                rows = self.store.rows_of(cell.cell) if self._several else {}
                self.cells[cell.cell] = state = _Cell(0, rows)
                self._next_round(cell.cell, state, cell.own, cell.common)
        return bool(self.queue)

    @property
    def _several(self) -> bool:
        return self.grid.replicates.blocks > 1 or self.grid.replicates.target_se is not None

    def _next_round(self, cell: int, state: _Cell, own: str, common: str) -> None:
        """Queues the blocks that a cell lacks; if there are none, it is done."""

        def row(count: int) -> Any:
            return merged(self.grid.experiment, [state.rows[block] for block in range(count)])

        stored = next(block for block in range(len(state.rows) + 1) if block not in state.rows)
        wanted = self.grid.replicates.wanted(row, stored)
        missing = [block for block in range(wanted) if block not in state.rows]
        state.waiting = len(missing)
        self.queue.extend(_Task(Job(cell, block, own, common)) for block in missing)
        if not missing:
            self._close(cell, DONE, wanted)

    # what comes back

    def _take(self, future: Future) -> None:
        """The results of a batch; blocks that it had no time for, or lost with its worker, go out again."""
        batch = self.flying.pop(future)
        try:
            found = future.result()
        except BaseException as error:
            if not executors.is_loss(error):
                raise ToyiwaeError(f"a worker cannot run cells: {in_line(error)}") from error
            self._lose(batch, error)
            return
        self.heard = True
        self.queue.extendleft(reversed(batch[len(found) :]))
        for one, result in zip(batch, found, strict=False):
            self._record(one.job, Result(*result))
        seconds = sum(result[2] for result in found) / len(found)
        ideal = self.batch_seconds / max(seconds, 1e-6)
        self.batch = min(ideal, 4 * self.batch, LARGEST_BATCH)

    def _record(self, job: Job, result: Result) -> None:
        self.blocks += 1
        self.buffer[0].append(result)
        state = self.cells[job.cell]
        state.waiting -= 1
        if result.row is None:
            state.failed = True
        else:
            state.rows[job.block] = json.loads(result.row) if self._several else None
        if state.waiting == 0:
            if state.failed:
                self._close(job.cell, FAILED, self.grid.replicates.blocks)
            else:
                self._next_round(job.cell, state, job.own, job.common)

    def _close(self, cell: int, state: int, blocks: int) -> None:
        del self.cells[cell]
        self.buffer[1][cell] = state, blocks
        self.finished += 1
        self.failures += state == FAILED

    def _lose(self, batch: list[_Task], error: BaseException) -> None:
        """Sends blocks of a lost worker again; one that lost its worker time and again, alone, has failed."""
        alone = len(batch) == 1 and not self.flying and batch[0].losses > 1
        for one in reversed(batch):
            one.losses += 1
            one.alone += alone
            if one.alone >= LOSSES:
                words = f"its worker was lost {one.losses} times: {in_line(error)}"
                self._record(one.job, Result(one.job.cell, one.job.block, 0.0, None, words, words))
            else:
                self.queue.appendleft(one)
        self.batch = 1.0
        self._restart(error)

    def _restart(self, error: BaseException) -> None:
        """Starts the executor again if it is broken, unless it always breaks before anything comes back."""
        self.lost += 1
        if not self.heard and self.lost > MOST_LOST:
            raise ToyiwaeError(f"workers die before they finish anything: {in_line(error)}") from error
        if isinstance(error, executors.BrokenExecutor) and not self.flying:
            self.workers.stop(self.executor)
            self.executor = self.workers.start()

    # what is kept

    def _flush(self) -> None:
        """Writes what has come back since the last time."""
        results, states = self.buffer
        if results or states:
            started = time.monotonic()
            self.store.write(self.origin, results, states)
            self.buffer = ([], {})
            self.flush_seconds = time.monotonic() - started
        self.flushed = time.monotonic()

    def _drain(self) -> None:
        """After Ctrl-C or an error: waits a moment for batches under way, and keeps what they found."""
        ended, _ = wait(self.flying, timeout=GRACE_SECONDS)
        for future in ended:
            if not future.cancelled() and future.exception() is None:
                for one, result in zip(self.flying[future], future.result(), strict=False):
                    self._record(one.job, Result(*result))
