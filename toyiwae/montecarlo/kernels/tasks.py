"""Tasks on threads, their results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import TypeVar

from toyiwae.signals import heard

Task = TypeVar("Task")
Found = TypeVar("Found")

_AHEAD = 3  # tasks that each thread may be ahead of whoever takes the results


class Stopped:
    """Whether whoever wanted the results has gone, by Ctrl-C or another error."""

    def __init__(self) -> None:
        """Not yet."""
        self._gone = False

    def say(self) -> None:
        """They have."""
        self._gone = True

    def refuse(self) -> None:
        """Ends a long task that nobody waits for.

        Raises:
            CancelledError: in the task, where nobody sees it.
        """
        if self._gone:
            raise CancelledError


def in_order(
    run: Callable[[Task], Found], tasks: Iterable[Task], threads: int, stopped: Stopped
) -> Iterator[Found]:
    """The results of all tasks, in order; on one thread without any of its own.

    Each thread takes the next task as soon as it is free, so that one whose core is taken away holds up no other.
    """
    if threads == 1:
        for task in tasks:
            with heard():  # the first of them compiles
                found = run(task)
            yield found
        return
    waiting: deque[Future[Found]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="toyiwae")
    try:
        for task in tasks:
            waiting.append(pool.submit(run, task))
            if len(waiting) > _AHEAD * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        stopped.say()
        pool.shutdown(wait=True, cancel_futures=True)
