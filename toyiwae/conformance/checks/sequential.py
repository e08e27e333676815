"""Sequential mode: an e-process that stops at the first proof of a gross error.

For one coordinate let `x_i = (g_i − μ)/σ`, with μ and σ² exact. A correct estimator has `E x = 0` and `E x² = 1`;
then for every λ, with Catoni's influence function `ψ(y) = log(1 + y + y²/2)` for `y ≥ 0` and `ψ(−y) = −ψ(y)`,

    E exp(ψ(λ x)) ≤ 1 + λ² E x²/2 = 1 + λ²/2,     so     e_n(λ) = Π_i exp(ψ(λ x_i)) / (1 + λ²/2)

is a nonnegative supermartingale that starts at 1. So is its average over ±λ and a grid of λ. By Ville's
inequality it ever reaches `1/α` with probability at most α, whatever the law of the gradient, at any sample size,
however often one looks, and whenever one stops: no normal approximation. The family-wise rate is split over the
coordinates. What it rejects is "mean μ and variance at most σ²", so excess variance of a named target can be
found as well; where μ or σ² is not known the coordinate is refused by name.

References:
    catoni2012challenging
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from toyiwae.conformance.calling.call import Sample, Violation
from toyiwae.conformance.checks import mean_variance
from toyiwae.conformance.checks.hypothesis_tests import influence
from toyiwae.conformance.report import Check
from toyiwae.conformance.truths.targets import Truth

GRID = (0.1, 0.25, 0.5)
BATCH, BATCHES = 50, 80
CELL = ("problem", "K", "M")
Where = tuple[str, int, int]
"""A cell: the problem's name, K and M."""


@dataclass
class EProcess:
    """The running e-values of some coordinates.

    Attributes:
        mean, std: exact, of the coordinates' shape.
        log_e: their log e-values for each λ of the grid and each sign `[2·L, ...]`.
        peak: the largest log e-value so far, averaged over the grid.
    """

    mean: Any
    std: Any
    n: int = 0
    total: Any = field(default_factory=lambda: np.zeros(()))
    log_e: Any = field(default_factory=lambda: np.zeros(()))
    peak: Any = field(default_factory=lambda: np.zeros(()))

    def add(self, samples: np.ndarray) -> None:
        """Takes in replicates `[n, ...]`."""
        x = (samples - self.mean) / self.std
        steps = []
        for size in GRID:
            for bet in (size, -size):
                steps.append(np.cumsum(influence(bet * x) - np.log1p(0.5 * size * size), axis=0))
        paths = self.log_e + np.stack(steps, axis=1) if self.n else np.stack(steps, axis=1)
        mixed = np.logaddexp.reduce(paths, axis=1) - np.log(2 * len(GRID))
        top = mixed.max(axis=0)
        self.peak = np.maximum(self.peak, top) if self.n else np.maximum(0.0, top)
        self.log_e = paths[-1]
        self.total = self.total + samples.sum(axis=0)
        self.n += len(samples)


def minimum_detectable(n: int, tests: int, rate: float) -> float:
    """The shift found within n replicates with probability 0.999, for normal replicates and the best λ.

    The log e-value then has mean `n δ²/2` and standard deviation `δ √n`.
    """
    threshold = np.log(tests / rate * 2 * len(GRID))
    return float((3.09 + np.sqrt(3.09**2 + 2.0 * threshold)) / np.sqrt(n))


def processes(
    truths: Mapping[Where, Mapping[str, Truth]],
) -> tuple[dict[tuple[Where, str], EProcess], list[Check]]:
    """The e-processes of what is known, by cell and name, and the refusals of what is not."""
    started = {
        (where, name): start(truths[where][name], where, name) for where in truths for name in truths[where]
    }
    running = {key: process for key, (process, _) in started.items() if process is not None}
    return running, [check for _, refused in started.values() for check in refused]


def count(running: Mapping[tuple[Where, str], EProcess]) -> int:
    """Number of coordinates that share the rate."""
    return max(1, sum(int(np.isfinite(process.std).sum()) for process in running.values()))


def checks(
    running: Mapping[tuple[Where, str], EProcess], rate: float, draw: Callable[..., Sample]
) -> Iterator[Check]:
    """Rounds of 50 replicates of every cell until one coordinate is rejected, at most 80 rounds.

    Args:
        running: the e-processes; the replicates are added to them.
        rate: the family-wise error rate.
        draw: `(problem's name, K, M, replicates, number of the round) -> Sample`.
    """
    tests = count(running)
    threshold = float(np.log(tests / rate))
    for number in range(BATCHES):
        for where in dict.fromkeys(where for where, _ in running):
            try:
                sample = draw(*where, BATCH, number)
            except Violation as found:
                yield found.check(dict(zip(CELL, where, strict=True)))
                return
            for name, array in sample.arrays.items():
                if (where, name) in running:
                    running[where, name].add(array)
        if any(np.max(process.peak) >= threshold for process in running.values()):
            break
    for (where, name), process in running.items():
        if process.n:
            detectable = minimum_detectable(process.n, tests, rate)
            yield _check(where, name, process, threshold, detectable)


def start(truth: Truth, where: Where, name: str) -> tuple[EProcess | None, list[Check]]:
    """The e-process of the coordinates whose mean and variance are known, and the refusal of the others.

    Coordinates that are not judged have mean 0 and an infinite standard deviation: nothing is wagered on them.
    """
    base: dict[str, Any] = dict(zip(CELL, where, strict=True))
    base |= {"name": "sequential mean", "tier": 2, "parameter": name}
    if truth.mean is None:
        return None, [Check(**base, reason=truth.mean_reason)]
    reason = f"no bound on the variance: {truth.var_reason}"
    if truth.var is None or truth.var_error is None:
        return None, [Check(**base, reason=reason)]
    free = mean_variance.judged(name, np.shape(truth.mean))
    centred = free & np.isfinite(truth.mean)
    std = np.sqrt(truth.var + truth.var_error)
    known = centred & np.isfinite(std)
    left = [(free & ~centred, truth.mean_reason), (centred & ~known, reason)]
    refused = list(mean_variance.left_out(base, known, left))
    known &= std > 1e-12
    if not known.any():
        return None, refused
    return EProcess(np.where(known, truth.mean, 0.0), np.where(known, std, np.inf)), refused


def _check(where: Where, name: str, process: EProcess, threshold: float, detectable: float) -> Check:
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(process.peak)), np.shape(process.peak)))
    peak, n = float(process.peak[index]), process.n
    estimate, truth = float(process.total[index]) / n, float(process.mean[index])
    return Check(
        "sequential mean", 2, *where, parameter=name, index=index, coordinates=int(np.isfinite(process.std).sum()),
        n=n, estimate=estimate, truth=truth, truth_error=0.0,
        shift_in_sd=(estimate - truth) / float(process.std[index]), p_value=float(np.exp(-min(peak, 700.0))),
        smallest_detectable=detectable, passed=peak < threshold, e_value=float(np.exp(min(peak, 700.0))),
    )  # fmt: skip
