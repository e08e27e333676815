"""Runs all benchmarks: `python -m analysis.benchmarks`."""

from __future__ import annotations

import importlib
import pkgutil

import analysis.benchmarks
from toyiwae.records import provenance

SHARED = {"__main__", "gpu_kernels", "graph_checks", "gpu_noise", "sampling_peers", "timing"}


def main() -> None:
    """Prints a line per timing, and the versions."""
    modules = [found.name for found in pkgutil.iter_modules(analysis.benchmarks.__path__)]
    for name in sorted(set(modules) - SHARED):
        module = importlib.import_module(f"analysis.benchmarks.{name}")
        print(f"{name}: {(module.__doc__ or '').splitlines()[0]}")
        for timing in module.run():
            share = "" if timing.share is None else f"   {timing.share:.2f} of the limit"
            print(f"  {timing.benchmark:34} {timing.rate:14,.0f} {timing.unit}{share}", flush=True)
    versions = {key: value for key, value in provenance().items() if isinstance(value, str)}
    print("  ".join(f"{key} {value}" for key, value in versions.items()))


if __name__ == "__main__":
    main()
