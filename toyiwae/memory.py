"""Memory that comes and goes in large pieces, and sizes of pieces that fit a processor's cache."""

from collections.abc import Iterator
from functools import cache

import numpy as np

CACHED = 2**15
"""Float64 numbers of an array that share a core's cache with a formula's other arrays."""


def blocks(first: int, end: int, width: int) -> Iterator[slice]:
    """The rows from `first` to `end` of a table so wide, as many at a time as make `CACHED` numbers, at least one."""
    size = max(1, CACHED // max(width, 1))
    return (slice(i, min(i + size, end)) for i in range(first, end, size))


@cache
def keep_freed() -> None:
    """Has the C library keep what this process frees: new pages cost more than what is written to them.

    glibc hands every piece of more than 128 kB back to the system, until such a piece is freed: from then on it keeps
    pieces that are no larger, here 16 MB, and hands back what is free at its end beyond twice as much.
    """
    np.empty(2**21)
