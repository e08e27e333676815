"""Ctrl-C and SIGTERM wait for the end of a step, so that a checkpoint can be written before they act."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def waiting() -> Iterator[Callable[[], int | None]]:
    """Within the block: what says which signal came, None if none did; it acts when the block ends.

    A second one acts at once. Only the main thread gets signals; in others nothing waits.
    """
    came: list[int] = []
    before: dict[int, Any] = {}

    def wait(number: int, _: Any) -> None:
        came.append(number)
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) not in (None, signal.SIG_IGN):
                before[number] = signal.signal(number, wait)
    try:
        yield lambda: came[0] if came else None
    finally:
        restore()
    if came:
        signal.raise_signal(came[0])
