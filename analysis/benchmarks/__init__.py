"""Benchmarks: each a module with `run()`, which yields `Timing`s; `python -m analysis.benchmarks` runs all."""
