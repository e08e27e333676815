"""Where compiled kernels are kept: a folder of the user's for each state of their sources.

Numba's own cache looks at the file of the function that is called, and would not see a change in the functions that it
calls. A folder that cannot be written means no cache, nothing worse; one that is not asked for in a month goes when
a new one is made.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

_KEPT = 30 * 86_400.0  # seconds


@cache
def folder() -> str | None:
    """The folder, under `XDG_CACHE_HOME` or `~/.cache`; None where none can be made."""
    sources = sorted(Path(__file__).parents[1].rglob("*.py"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()[:16]
    try:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        found = Path(base) / "toyiwae" / "kernels" / digest
        fresh = not found.exists()
        found.mkdir(parents=True, exist_ok=True)
        os.utime(found)
        if fresh:
            _prune(found)
    except (OSError, RuntimeError):  # the latter of a user without a home
        return None
    return str(found) if os.access(found, os.W_OK) else None


def _prune(found: Path) -> None:
    """Removes the other folders beside it that nobody has asked for in a month: those of sources long gone."""
    for other in found.parent.iterdir():
        with contextlib.suppress(OSError):  # another process may be at it
            if other != found and other.is_dir() and time.time() - other.stat().st_mtime > _KEPT:
                shutil.rmtree(other, ignore_errors=True)


@contextlib.contextmanager
def kernel_cache(config: Any) -> Iterator[bool]:
    """Has Numba keep what is compiled inside there, unless `NUMBA_CACHE_DIR` names another folder; whether it does."""
    before = config.CACHE_DIR
    if before:
        yield True
        return
    config.CACHE_DIR = folder() or ""
    try:
        yield bool(config.CACHE_DIR)
    finally:
        config.CACHE_DIR = before
