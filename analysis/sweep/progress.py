"""How far a sweep is: a bar with rate and time left on a terminal, elsewhere a line a minute."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS, LINE_SECONDS = 0.25, 60.0


@contextlib.contextmanager
def bar(
    total: int, start: int, *, wanted: bool | None, note: Callable[[str], Any]
) -> Iterator[Callable[[int, int], None]]:
    """Within the block: a function to call with the cells finished, and those of them that failed.

    Args:
        total: cells there are.
        start: cells finished before.
        wanted: whether to show a bar; by default if standard error is a terminal. Otherwise `note` gets lines.
        note: where these go.
    """
    shown = (sys.stderr is not None and sys.stderr.isatty()) if wanted is None else wanted
    began = seen = time.monotonic()

    def words(finished: int, failures: int) -> str:
        rate = (finished - start) / max(time.monotonic() - began, 1e-9)
        return f"{rate:,.1f} cells/s" + (f", {failures:,} failed" if failures else "")

    if not shown:

        def say(finished: int, failures: int) -> None:
            nonlocal seen
            now = time.monotonic()
            if now - seen >= LINE_SECONDS:
                left = (total - finished) * (now - began) / max(finished - start, 1)
                rest = f"{duration(left)} left" if finished > start else "time left unknown"
                note(f"{finished:,} of {total:,} cells, {words(finished, failures)}, {rest}")
                seen = now

        yield say
        return
    columns = (
        TextColumn("cells"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as progress:
        task = progress.add_task("", total=total, completed=start)

        def update(finished: int, failures: int) -> None:
            nonlocal seen
            now = time.monotonic()
            if now - seen >= SECONDS:
                progress.update(task, completed=finished, description=words(finished, failures))
                progress.refresh()
                seen = now

        yield update


def duration(seconds: float) -> str:
    """A time in words: 12 s, 3 min, 5.2 h, 4.1 days."""
    for name, unit in (("days", 172_800.0), ("h", 7200.0), ("min", 120.0)):
        if seconds >= unit:
            size = {"days": 86_400.0, "h": 3600.0, "min": 60.0}[name]
            return f"{seconds / size:.3g} {name}"
    return f"{seconds:.2g} s"
