"""Runs benchmarks: `python -m analysis.benchmarks [NAME ...]`, all of them without a name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from toyiwae.errors import InputError
from toyiwae.records import provenance

BENCHMARKS = ("digits", "graph", "mnist", "networks", "oracle", "sampling", "sampling_gpu", "sweep")
"""The modules here that have `run`; others are asked with arguments of their own, or are shared."""


def main(names: Sequence[str] = ()) -> None:
    """Prints a line per timing, and the versions.

    Raises:
        InputError: for a name that is no benchmark's, before anything runs.
    """
    for name in names:
        if name not in BENCHMARKS:
            raise InputError(f"benchmark {name!r}: expected one of {', '.join(BENCHMARKS)}")
    for name in names or BENCHMARKS:
        module = importlib.import_module(f"analysis.benchmarks.{name}")
        print(f"{name}: {(module.__doc__ or '').splitlines()[0]}")
        for timing in module.run():
            share = "" if timing.share is None else f"   {timing.share:.2f} of the limit"
            print(f"  {timing.benchmark:34} {_readable(timing.rate):>14} {timing.unit}{share}", flush=True)
    versions = {key: value for key, value in provenance().items() if isinstance(value, str)}
    print("  ".join(f"{key} {value}" for key, value in versions.items()))


def _readable(rate: float) -> str:
    """Three digits at least."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


if __name__ == "__main__":
    from analysis.__main__ import main as command_line

    sys.argv[1:1] = ["bench"]
    command_line()
