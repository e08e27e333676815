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
from analysis.sweep.run import sweep
from analysis.sweep.store import reading
from tests.sweep_cells import exported, forked, grid, pausing

LONGEST = 0.6
"""Seconds that a life lasts at most, beyond those in which worker processes start."""

GRID = grid(axes=[{"kind": ["sin", "cos"], "n": [1, 2, 3, 5], "x": [x / 8 for x in range(251)]}])
WORKERS = (executors.serial, lambda: executors.threads(2), lambda: executors.processes(1))
STARTING = (0.0, 0.0, 1.0)


def life(path: Path, workers: executors.Workers, seconds: float) -> bool:
    """Starts or resumes the sweep and kills it after some time; whether it was killed.

    Raises:
        RuntimeError: it ended with an error.
    """
    child = forked(lambda: silent() or sweep(GRID, path, workers=workers))
    time.sleep(seconds)
    ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, signal.SIGKILL)  # it is not reaped yet, so the number is still its own
        status = os.waitpid(child, 0)[1]
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        raise RuntimeError(f"a sweep in {path} ended with an error")
    return os.WIFSIGNALED(status)


def silent() -> None:
    """Worker processes complain on standard error when they lose the one that started them."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


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
        with pausing(LONGEST * kills / len(GRID)):  # so that it is not over before
            while taken < kills:
                kind = chance.choice([0, 0, 0, 1, 1, 2])
                taken += life(path, WORKERS[kind](), chance.uniform(0.0, LONGEST + STARTING[kind]))
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
