"""A progress bar with the bound and the steps per second, on standard error where that is a terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

SECONDS = 0.25
"""Least time between two looks at the bound, which makes a GPU wait."""


@contextlib.contextmanager
def bar(total: int, start: int, *, wanted: bool | None = None) -> Iterator[Callable[[int, Any], None]]:
    """Within the block: a function to call after each step, with the steps made and the members' bounds.

    Args:
        total: steps there are to make.
        start: steps made already.
        wanted: whether to show it; by default if standard error is a terminal.
    """
    shown = (sys.stderr is not None and sys.stderr.isatty()) if wanted is None else wanted
    if not shown:
        yield lambda step, bound: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("bound {task.fields[bound]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f} steps/s"),
        TimeRemainingColumn(),
    )
    began = seen = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total, completed=start, bound="–", rate=0.0)

        def update(step: int, bound: Any) -> None:
            nonlocal seen
            now = time.monotonic()
            if now - seen >= SECONDS:
                rate = (step - start) / (now - began)
                progress.update(task, completed=step, bound=f"{float(bound.mean()):.2f}", rate=rate)
                seen = now

        yield update
