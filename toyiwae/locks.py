"""One process at a time: a lock file that says who holds it, and knows when its holder is gone.

The system's lock (`flock`) goes with its process, however that ends, also across the hosts of a network file system
that has such locks. The record beside it serves messages, and systems and file systems without them: a process is known
by its host, its number and when it started, a host's start by its boot id; of another host's process nobody here can
know whether it still runs, so it is taken for alive.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from toyiwae.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: the record alone keeps two processes apart
    fcntl = None

GLOBAL_STATE = threading.RLock()
"""Held by computations that two threads must not make at once: python-flint's precision is one for all threads."""


@contextlib.contextmanager
def only_process(lock: Path, what: str) -> Iterator[None]:
    """Within the block: no other process is in a block with the same file.

    Args:
        lock: the file; it stays when the block ends, empty.
        what: is locked, for messages.

    Raises:
        InputError: another process is; it names the process, its host and since when.
        OSError: the file cannot be written.
    """
    with open(lock, "a+", encoding="utf-8") as stream:
        free, record = _flock(stream), _read(stream)
        if free is False or (free is None and record and is_alive(record)):
            raise InputError(f"{what} is in use by {in_words(record)}{_way_out(record, lock)}")
        _write(stream, json.dumps(this_process()))
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # a full disk: the record then tells of a process that is gone
                _write(stream, "")


def holder(lock: Path) -> dict[str, Any] | None:
    """The record of the process that holds a lock file now; None if none does."""
    try:
        with open(lock, encoding="utf-8") as stream:
            record = _read(stream)
    except OSError:
        return None
    return record if record and is_alive(record) else None


def this_process() -> dict[str, Any]:
    """Who we are: process number, host, boot id, start time of the process, and the time now."""
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "boot": _boot(),
        "started": _started(os.getpid()),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def is_alive(record: dict[str, Any]) -> bool:
    """Whether the process of a record may still run; one of another host may, since nobody here can know."""
    if record.get("host") != socket.gethostname():
        return True
    if record.get("boot") != _boot():
        return False
    pid, started = record.get("pid"), record.get("started")
    if started is not None:
        return _started(int(pid or 0)) == started
    if os.name != "posix" or not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def in_words(record: dict[str, Any]) -> str:
    """A record for a message: process 123 on HOST since 2026-01-31 12:00:00 UTC."""
    if not record:
        return "another process"
    since = str(record.get("since", "")).removesuffix("+00:00").replace("T", " ")
    return f"process {record.get('pid')} on {record.get('host')} since {since} UTC"


def _way_out(record: dict[str, Any], lock: Path) -> str:
    elsewhere = bool(record) and record.get("host") != socket.gethostname()
    return f"; if that process is gone, delete {str(lock)!r}" if elsewhere else ""


def _flock(stream: TextIO) -> bool | None:
    """Takes the system's lock: whether it was free; None where there are no such locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _read(stream: TextIO) -> dict[str, Any]:
    stream.seek(0)
    try:
        found = json.loads(stream.read())
    except ValueError:  # empty, or half written when its process was killed
        return {}
    return found if isinstance(found, dict) else {}


def _write(stream: TextIO, text: str) -> None:
    stream.seek(0)
    stream.truncate(0)
    stream.write(text)
    stream.flush()


def _boot() -> str | None:
    """What tells one start of this machine from the next; None where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None


def _started(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is none, or the system does not say."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[19])
