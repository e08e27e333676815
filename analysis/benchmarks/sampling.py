"""Gradient replicates per CPU-second of the paper's toy problem (D = 20, one row) on one thread.

The limit is torch's generator of float64 standard normals in units of the sampler's size: an estimator that
cost nothing beyond its noise would reach it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from analysis.benchmarks.timing import Timing, rate
from toyiwae import paper_problem
from toyiwae.montecarlo import replicates
from toyiwae.montecarlo.noise import UNIT

NORMALS = 2**23
"""Numbers drawn in one repetition, whatever K."""

CASES = (("iwae", None), ("iwae", "all"), ("dreg", None), ("dreg", "all"))


def run() -> Iterator[Timing]:
    """K = 1, 64 and 4096; gradients by the means, and by all parameters (which need second-order sums)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield Timing("float64 normals", rate(_normals, NORMALS), "numbers/s")
        problem = paper_problem(N=1)
        for particles in (1, 64, 4096):
            count = max(1, NORMALS // (particles * problem.dim_z))
            for name, parameters in CASES:

                def sample(particles=particles, count=count, name=name, parameters=parameters) -> None:
                    options = {"K": particles, "replicates": count, "seed": 1, "parameters": parameters}
                    for _ in replicates(problem, name, **options):
                        pass

                limit, found = rate(_normals, NORMALS), rate(sample, count)
                label = f"{name}, K = {particles}, {'all parameters' if parameters else 'means'}"
                yield Timing(label, found, "replicates/s", found * particles * problem.dim_z / limit)
    finally:
        torch.set_num_threads(threads)


def _normals() -> None:
    generator, unit = torch.Generator().manual_seed(1), torch.empty(UNIT, dtype=torch.float64)
    for _ in range(NORMALS // UNIT):
        unit.normal_(generator=generator)
