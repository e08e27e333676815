"""Ctrl-C and SIGTERM: that they wait for the end of a step, and that Ctrl-C is never lost."""

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


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """Within the block Ctrl-C acts as ever, and once more at its end where what it raised was dropped.

    Python drops what is raised in a function that C code calls, as Numba's compiler does for seconds. Only the main
    thread gets signals, and a handler of the user's is left alone.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is not signal.default_int_handler:
        yield
        return
    came: list[int] = []

    def note(number: int, frame: Any) -> None:
        came.append(number)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt
