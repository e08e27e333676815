"""What benchmarks share: one timing, and how it is taken."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """One result.

    Attributes:
        benchmark: what was timed.
        rate: how many per CPU-second, median over repetitions.
        unit: of what.
        share: of the limit that the hardware sets, measured in the same minute; None where there is none.
    """

    benchmark: str
    rate: float
    unit: str
    share: float | None = None


def rate(call: Callable[[], object], count: int, *, repetitions: int = 5) -> float:
    """`count` per CPU-second: the median over repetitions, after one that is not counted.

    CPU time, since other programs' share of a busy machine is not the code's doing.
    """
    call()
    seconds = []
    for _ in range(repetitions):
        started = time.process_time()
        call()
        seconds.append(time.process_time() - started)
    return count / statistics.median(seconds)
