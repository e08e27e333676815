"""The largest memory of a process."""

import re
from pathlib import Path


def peak_gib() -> float:
    """Of this process, in GiB (Linux); `ru_maxrss` begins with that of the process it was forked from."""
    return _gib("VmHWM")


def resident_gib() -> float:
    """What this process holds now, in GiB (Linux)."""
    return _gib("VmRSS")


def _gib(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 2**20
