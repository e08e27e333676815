"""A computation in a process of its own, which may run out of time or memory."""

import multiprocessing
import resource
import signal
from collections.abc import Callable, Iterator
from typing import Any

from toyiwae.errors import PrecisionError

SECONDS = 120  # of processor time for each part of a problem: what else runs on the machine does not count


def isolated(part: Callable[[], Iterator[Any]]) -> list[Any] | str:
    """The values, computed in a process of their own that may run out of time or memory; or why there are none."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(part, send))
    process.start()
    send.close()
    try:
        found = receive.recv()
    except EOFError:
        process.join()
        out_of_time = process.exitcode == -signal.SIGXCPU
        return f"more than {SECONDS} s" if out_of_time else "the process died, probably out of memory"
    finally:
        process.kill()
        process.join()
    if isinstance(found, Exception):
        raise found
    return found


def _send(part: Callable[[], Iterator[Any]], send: Any) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))  # the kernel ends it by SIGXCPU
    try:
        send.send(list(part()))
    except (PrecisionError, MemoryError) as error:
        send.send(str(error) or "out of memory")
    except Exception as error:
        send.send(error)
