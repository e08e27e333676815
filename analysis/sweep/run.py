"""Running a sweep: the store is locked, the grid planned in it, and the engine does what is left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from analysis.sweep import executors
from analysis.sweep.engine import BATCH_SECONDS, Engine, Summary
from analysis.sweep.executors import Workers
from analysis.sweep.grid import Grid
from analysis.sweep.mounts import network_file_system
from analysis.sweep.store import Store, writing
from toyiwae.checks import shown
from toyiwae.errors import InputError


def sweep(
    grid: Grid,
    path: str | Path,
    *,
    workers: Workers | None = None,
    limit: int | None = None,
    update: bool = False,
    retry_failed: bool = False,
    batch_seconds: float = BATCH_SECONDS,
    show_progress: bool | None = None,
    note: Callable[[str], Any] = lambda line: None,
) -> Summary:
    """Runs the cells of a grid that have no rows yet.

    Args:
        grid: the cells.
        path: the store; made if there is none.
        workers: what they run on; by default one after the other, here.
        limit: end after so many cells.
        update: take a grid or a version other than the store's: rows that belong to its cells count, the others stay.
        retry_failed: run cells again that failed before.
        batch_seconds: about how long a batch of blocks takes that is sent to a worker.
        show_progress: whether there is a progress bar; by default if standard error is a terminal.
        note: told in one line what a user should know.

    Returns:
        How the sweep stands.

    Raises:
        InputError: a bad grid, another process writes to the store, or it was made for another grid or version.
        ToyiwaeError: no room in the store, no worker that works.
        KeyboardInterrupt: on Ctrl-C, after what was finished is written.
    """
    new = not Path(path).exists()
    with writing(path) as store:
        kind = network_file_system(path) if new else None
        if kind:
            note(
                f"{str(path)!r} lies on a network file system ({kind}): slower, and safe only where its locks work; "
                "keep the store on a local disk of the machine that runs this command, if it has one"
            )
        planned(store, grid, update=update)
        if retry_failed:
            store.forget_failures()
        engine = Engine(store, grid, workers or executors.serial(), limit, batch_seconds, note)
        return engine.run(show_progress)


def planned(store: Store, grid: Grid, *, update: bool) -> None:
    """Sees to it that a store has planned the cells of this grid.

    Raises:
        InputError: a bad grid; or the store was made for another one, or another version, and `update` is false.
    """
    before, now = store.declaration, json.loads(json.dumps(grid.declaration))
    if before == now:
        if store.contents == grid.contents:
            return
        if not update:
            raise InputError(
                f"the grid reads as it did, but its cells are not those that the store {str(store.path)!r} was made "
                "with: a file that it names has changed; name another store, or say --update to plan the cells as "
                "they are now (rows that still belong to a cell are kept, the others stay until gc)"
            )
    elif before is not None and not update:
        name = next(key for key in now if before.get(key) != now[key])
        raise InputError(
            f"{name} is {shown(now[name], 200)}, but the store {str(store.path)!r} was made with "
            f"{shown(before.get(name), 200)}: name another store, or say --update to plan the cells as they are now "
            "(rows that still belong to a cell are kept, the others stay until gc)"
        )
    store.adopt(grid)
