"""Tasks on threads, the caller's among them; their results in order."""

from __future__ import annotations

import contextvars
import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable
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
) -> Generator[Found, None, None]:
    """The results of all tasks, in order, by so many threads, of which the caller's is one.

    Each thread takes the next task as soon as it is free, so that one whose core is taken away holds up no other. The
    caller's does, too, while the result that it wants next is not there: it would wake up for every result, and each
    time take a core from one of the others. Tasks of all threads run in the caller's context (NumPy's `errstate`, say).
    """
    if threads == 1:
        for task in tasks:
            with heard():  # the first of them compiles
                found = run(task)
            yield found
        return
    waiting: deque[tuple[Task, Future[Found]]] = deque()
    left, pool = iter(tasks), ThreadPoolExecutor(threads - 1, thread_name_prefix="toyiwae")
    try:
        while True:
            for task in itertools.islice(left, max(0, _AHEAD * threads - len(waiting))):
                waiting.append((task, pool.submit(contextvars.copy_context().run, run, task)))
            if not waiting:
                return
            while not waiting[0][1].done() and _helped(run, waiting):
                pass
            yield waiting.popleft()[1].result()
    finally:
        stopped.say()
        pool.shutdown(wait=True, cancel_futures=True)


def _helped(run: Callable[[Task], Found], waiting: deque[tuple[Task, Future[Found]]]) -> bool:
    """Runs the first task that no thread has begun; false if there is none."""
    for place, (task, future) in enumerate(waiting):
        if future.cancel():  # the pool passes it over
            own: Future[Found] = Future()
            waiting[place] = task, own
            with heard():
                try:
                    own.set_result(run(task))
                except Exception as error:
                    own.set_exception(error)  # raised when its turn comes
            return True
    return False
