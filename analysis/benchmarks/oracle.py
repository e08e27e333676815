"""Exact answers: how long they take, and how many times longer sampling the same SNRs to 1 % would take.

The relative variance of an SNR estimated from R replicates is about `(1/SNR² + 1/2)/R`, so 1 % needs
`R = 10⁴ (1/SNR² + 1/2)` replicates, here for the median coordinate of each estimator and K. The cost of a replicate
is measured in the same run at K = 256 on one row and extrapolated in proportion to K and to the number of rows;
all estimators and parameters share its particles, so the largest R at each K counts once.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch

import toyiwae
from analysis.benchmarks.timing import Timing
from toyiwae import Problem, estimators
from toyiwae.montecarlo import replicates
from toyiwae.truth import ExactResult

SHORT = {"K": 256, "replicates": 2000, "seed": 1}
TWELVE = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 100_000, 300_000, 1_000_000)


def run() -> Iterator[Timing]:
    """One problem in fifty dimensions, and the paper's full problem with 440 parameters."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        forms = [e.name for e in estimators.all() if e.form is not None and not e.form.has_log_terms]
        yield from _case("D = 50, every form, K = 10⁶", random_problem(50, 40), forms, [10**6], 5)
        yield from _case(
            "D = 20, 1,024 rows, IWAE, DReG, 12 K", toyiwae.paper_problem(), ["iwae", "dreg"], TWELVE, 1
        )
    finally:
        torch.set_num_threads(threads)


def random_problem(dim_z: int, dim_x: int) -> Problem:
    """An asymmetric problem whose proposal is a little wide of the posterior."""
    rng = np.random.default_rng(dim_z)

    def positive(n: int) -> np.ndarray:
        root = 0.15 * rng.normal(size=(n, n))
        return np.diag(rng.uniform(0.6, 1.4, n)) + root @ root.T

    prior_cov, noise_cov, loading = (
        positive(dim_z),
        2.0 * positive(dim_x),
        0.3 * rng.normal(size=(dim_x, dim_z)),
    )
    prior_mean, offset, x = 0.3 * rng.normal(size=dim_z), rng.normal(size=dim_x), rng.normal(size=dim_x)
    cov = np.linalg.inv(np.linalg.inv(prior_cov) + loading.T @ np.linalg.solve(noise_cov, loading))
    cov = 0.5 * (cov + cov.T)
    mean = cov @ (np.linalg.solve(prior_cov, prior_mean) + loading.T @ np.linalg.solve(noise_cov, x - offset))
    model = {"prior_mean": prior_mean, "prior_cov": prior_cov, "loading": loading, "offset": offset}
    proposal = {
        "mean": mean + 0.05 * rng.normal(size=dim_z),
        "cov": 1.1 * cov + np.diag(rng.uniform(0, 0.05, dim_z)),
    }
    return Problem.from_dict(
        {"model": model | {"noise_cov": noise_cov}, "proposal": proposal, "data": {"x": x}}
    )


def _case(
    label: str, problem: Problem, names: Sequence[str], particles: Sequence[int], times: int
) -> Iterator[Timing]:
    seconds, result = [], None
    for _ in range(times):
        started = time.perf_counter()
        result = toyiwae.exact(problem, K=particles, estimators=names)
        seconds.append(time.perf_counter() - started)
    assert result is not None
    exact = statistics.median(seconds)
    yield Timing(label, 1000 * exact, "ms")
    yield Timing(
        "  sampling these SNRs to 1 %", _sampling_seconds(problem, names[0], result) / exact, "times as long"
    )


def _sampling_seconds(problem: Problem, name: str, result: ExactResult) -> float:
    row = problem.row(0)
    costs = []
    for _ in range(3):
        started = time.perf_counter()
        for _ in replicates(row, name, **SHORT):
            pass
        costs.append(time.perf_counter() - started)
    cost = (
        statistics.median(costs) / (SHORT["replicates"] * SHORT["K"]) * problem.n_rows
    )  # of one particle of each row
    total = 0.0
    for cell in result.results:
        snrs = [
            np.asarray(m.snr)
            for g in cell.gradients.values()
            for m in g.parameters.values()
            if m.snr is not None
        ]
        smallest = min(float(np.median(snr[np.isfinite(snr) & (snr > 0)])) for snr in snrs if np.any(snr > 0))
        total += 1e4 * (1.0 / smallest**2 + 0.5) * cell.K * cost
    return total
