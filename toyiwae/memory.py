"""Memory that comes and goes in large pieces."""

from functools import cache

import numpy as np


@cache
def keep_freed() -> None:
    """Has the C library keep what is freed, up to 32 MB: new pages cost more than what is written to them.

    glibc hands every piece of more than 128 kB back to the system, until the first such piece is freed; then it keeps
    all that are no larger.
    """
    np.empty(2**21)
