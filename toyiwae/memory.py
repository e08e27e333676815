"""Memory that comes and goes in large pieces, and pieces that need not be large."""

from functools import cache

import numpy as np

CACHED = 2**15
"""Numbers of an array that stays in a processor's cache with the others of a formula."""


@cache
def keep_freed() -> None:
    """Has the C library keep what this process frees: new pages cost more than what is written to them.

    glibc hands every piece of more than 128 kB back to the system, until such a piece is freed: from then on it keeps
    pieces that are no larger, here 16 MB, and hands back what is free at its end beyond twice as much.
    """
    np.empty(2**21)
