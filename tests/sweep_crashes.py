"""One sweep, killed at random moments (SIGKILL) and resumed, exports what an uninterrupted one does, byte for byte.

    python -m tests.sweep_crashes [KILLS [SEED]]

A life of the sweep is a forked process that runs cells by itself, in threads or in processes; it dies wherever it is:
while it plans, computes, commits, starts workers. After every kill a copy of the store, with the journal that may lie
beside it, passes `PRAGMA integrity_check`. The exit status is 1 unless all is well.
"""

import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

from analysis.sweep import executors
from analysis.sweep.engine import Engine
from analysis.sweep.run import sweep
from analysis.sweep.store import reading
from tests.sweep_cells import exported, forked, grid, pausing

LONGEST = 0.5
"""Seconds that a life lasts at most once its cells have begun, or from its beginning if it dies early."""

EARLY = 0.25
"""Share of lives that may die before their cells begin."""

GRID = grid(axes=[{"kind": ["sin", "cos"], "n": [1, 2, 3, 5], "x": [x / 8 for x in range(251)]}])
WORKERS = (executors.serial, lambda: executors.threads(2), lambda: executors.processes(1))


def life(path: Path, workers: executors.Workers, seconds: float, *, early: bool) -> bool:
    """Starts or resumes the sweep and kills it after some time; whether it was killed.

    Args:
        path: of the store.
        workers: what cells run on.
        seconds: until the kill.
        early: whether they count from the beginning, or from when cells begin.

    Raises:
        RuntimeError: it ended with an error.
    """
    began, begins = os.pipe()

    def work() -> None:
        loop = Engine._loop

        def told(engine: Engine) -> None:
            os.write(begins, b".")
            loop(engine)

        Engine._loop = told  # pyright: ignore[reportAttributeAccessIssue]
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # worker processes complain when they lose this one
        sweep(GRID, path, workers=workers)

    child = forked(work)
    os.close(begins)
    if not early:
        os.read(began, 1)
    os.close(began)
    time.sleep(seconds)
    ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, signal.SIGKILL)  # it is not reaped yet, so the number is still its own
        status = os.waitpid(child, 0)[1]
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        raise RuntimeError(f"a sweep in {path} ended with an error")
    return os.WIFSIGNALED(status)


def verdict(path: Path) -> tuple[str, bool]:
    """What SQLite says of a copy of the store, and whether it was killed in the middle of a commit."""
    with tempfile.TemporaryDirectory() as temporary:
        copy, journal = Path(temporary, path.name), path.with_name(f"{path.name}-journal")
        if not path.exists():
            return "ok", False
        shutil.copy(path, copy)
        hot = journal.exists()
        if hot:
            shutil.copy(journal, Path(temporary, journal.name))
        connection = sqlite3.connect(copy)
        try:
            return connection.execute("PRAGMA integrity_check").fetchone()[0], hot
        finally:
            connection.close()


def main(kills: int, seed: int) -> int:
    """Takes so many lives of one sweep; the exit status."""
    chance, taken, commits, wrong = random.Random(seed), 0, 0, 0
    with tempfile.TemporaryDirectory() as temporary:
        whole, path = Path(temporary, "whole.sqlite"), Path(temporary, "killed.sqlite")
        sweep(GRID, whole)
        expected = exported(whole)
        with pausing(0.8 * LONGEST * kills / len(GRID)):  # so that it is not over before
            while taken < kills:
                workers, early = chance.choices(WORKERS, [3, 2, 1])[0](), chance.random() < EARLY
                taken += life(path, workers, chance.uniform(0.0, LONGEST), early=early)
                said, hot = verdict(path)
                commits, wrong = commits + hot, wrong + (said != "ok")
        with reading(path) as store:
            to_do, done, _ = store.counts()
        sweep(GRID, path)
        same = exported(path) == expected
    print(
        f"{taken} kills during a sweep of {len(GRID)} cells, {commits} of them in the middle of a commit, {to_do} "
        f"left when the last one came: {wrong} failed integrity checks, the export is "
        f"{'the same' if same else 'ANOTHER'}"
    )
    return int(wrong > 0 or not same or not to_do or not done)


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:]]
    sys.exit(main(*(numbers + [200, 0][len(numbers) :])))
