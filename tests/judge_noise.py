"""Judges the kernels' generator: moments, density, tails, and the independence of lanes, numbers, rows and blocks.

    python -m tests.judge_noise [DRAWS [PRECISION]]

draws 10¹⁰ float32 normals (about two minutes of one core) and exits with 1 if any statistic deviates at a family-wise
rate of 1e-6. Everything is compared with the standard normal law, nothing with a tolerance of its own.
"""

from __future__ import annotations

import math
import sys
import time

import numba
import numpy as np
import scipy.special
import scipy.stats

from toyiwae import stats
from toyiwae.montecarlo.kernels import streams

ORDERS, BINS, PER_UNIT = 12, 1024, 64
DIM, PARTICLES = 16, 2**13
TAILS = (1.0, 2.0, 3.0, 4.0, 5.0, 5.5, 6.0)
PRODUCTS = ("pair", "lane", "granule", "number", "row", "block", "cell")


@numba.njit(nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _powers(x, sums):
    s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = s9 = s10 = s11 = s12 = 0.0
    for i in range(x.size):
        z = np.float64(x[i])
        z2 = z * z
        z3, z4 = z2 * z, z2 * z2
        z8 = z4 * z4
        s1 += z
        s2 += z2
        s3 += z3
        s4 += z4
        s5 += z4 * z
        s6 += z4 * z2
        s7 += z4 * z3
        s8 += z8
        s9 += z8 * z
        s10 += z8 * z2
        s11 += z8 * z3
        s12 += z8 * z4
    for k, value in enumerate((s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12)):
        sums[k] += value


@numba.njit(nogil=True)
def _histogram(x, counts):
    for i in range(x.size):
        counts[min(max(math.floor(x[i] * PER_UNIT) + BINS // 2, 0), BINS - 1)] += 1


@numba.njit(nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _product(x, y, sums):
    first = squares = 0.0
    for i in range(x.size):
        a, b = np.float64(x[i]), np.float64(y[i])
        first += a * b
        squares += (a * a - 1.0) * (b * b - 1.0)
    sums[0] += first
    sums[1] += squares
    sums[2] += x.size


class Judge:
    """Takes in the numbers of many streams."""

    def __init__(self, seed: int, precision: str = "float32"):
        """Nothing drawn yet."""
        self.seed, self.draws = seed, 0
        self._powers, self._counts = np.zeros(ORDERS), np.zeros(BINS, dtype=np.int64)
        self._products = {name: np.zeros(3) for name in PRODUCTS}
        self._noise = {
            name: np.empty((DIM, PARTICLES), precision) for name in ("own", "row", "block", "cell")
        }

    def take_in(self, block: int) -> None:
        """The numbers of one stream, and their products with each other and with those of three other streams."""
        key, other = streams.key_of(self.seed, 1), streams.key_of(self.seed, 2)
        for name, where in (
            ("own", (key, block, 0)),
            ("row", (key, block, 1)),
            ("block", (key, block + 1, 0)),
        ):
            streams.normals(*where, self._noise[name])
        streams.normals(other, block, 0, self._noise["cell"])
        own = self._noise["own"]
        flat = own.reshape(-1)
        _powers(flat, self._powers)
        _histogram(flat, self._counts)
        self.draws += flat.size
        granules, half = own.reshape(DIM, -1, streams.GRANULE), streams.LANES
        pairs = {
            "pair": (granules[:, :, :half], granules[:, :, half:]),
            "lane": (granules[:, :, : half - 1], granules[:, :, 1:half]),
            "granule": (granules[:, :-1], granules[:, 1:]),
            "number": (own[:-1], own[1:]),
            **{name: (own, self._noise[name]) for name in ("row", "block", "cell")},
        }
        for name, (x, y) in pairs.items():
            _product(
                np.ascontiguousarray(x).reshape(-1), np.ascontiguousarray(y).reshape(-1), self._products[name]
            )

    def scores(self) -> dict[str, float]:
        """Every statistic in standard deviations of its law; tails and the density by their p-values."""
        found: dict[str, float] = {}
        for k, total in enumerate(self._powers, start=1):
            mean = _moment(k)
            found[f"moment {k}"] = (total / self.draws - mean) / math.sqrt(
                (_moment(2 * k) - mean**2) / self.draws
            )
        edges = np.abs(np.arange(BINS) - BINS // 2 + 0.5) / PER_UNIT
        for tail in TAILS:
            expected = 2.0 * float(scipy.stats.norm.sf(tail))
            count = int(self._counts[edges > tail].sum())
            found[f"tail {tail}"] = _binomial_score(count, self.draws, expected)
        for name, (first, squares, count) in self._products.items():
            found[f"{name}: product"] = first / math.sqrt(count)
            found[f"{name}: product of squares"] = squares / math.sqrt(4.0 * count)
        found["density"] = self._density()
        return found

    def _density(self) -> float:
        """The χ² of all bins with at least ten expected numbers, as a normal score."""
        cuts = (np.arange(1, BINS) - BINS // 2) / PER_UNIT
        below = np.concatenate([[0.0], scipy.special.ndtr(cuts), [1.0]])
        above = np.concatenate([[1.0], scipy.special.ndtr(-cuts), [0.0]])
        share = np.where(np.arange(BINS) < BINS // 2, np.diff(below), -np.diff(above))
        known = share * self.draws >= 10.0
        squares = (self._counts[known] - share[known] * self.draws) ** 2 / (share[known] * self.draws)
        return float(scipy.stats.norm.isf(scipy.stats.chi2.sf(squares.sum(), known.sum() - 1)))


def _moment(order: int) -> float:
    """E z^order of a standard normal."""
    return 0.0 if order % 2 else float(math.prod(range(1, order, 2)))


def _binomial_score(count: int, draws: int, share: float) -> float:
    """How far a count is from its mean, as the normal score of its smaller tail probability."""
    law = scipy.stats.binom(draws, share)
    low, high = law.cdf(count), law.sf(count - 1)
    return float(scipy.stats.norm.ppf(low) if low < high else scipy.stats.norm.isf(high))


def main(draws: float = 1e10, precision: str = "float32") -> int:
    """Prints every statistic; 1 if one deviates."""
    judge, started = Judge(20_261_129, precision), time.process_time()
    while judge.draws < draws:
        judge.take_in(2 * (judge.draws // (DIM * PARTICLES)))
    scores = judge.scores()
    threshold = stats.family_threshold(len(scores), 1e-6)
    for name, score in scores.items():
        print(f"{name:28} {score:7.2f}{'  deviates' if abs(score) > threshold else ''}")
    worst = max(scores.values(), key=abs)
    print(
        f"{judge.draws:.3g} numbers in {precision}, {time.process_time() - started:.0f} s of CPU:"
        f" largest |score| {abs(worst):.2f}, threshold {threshold:.2f}"
    )
    return int(abs(worst) > threshold)


if __name__ == "__main__":
    asked = [*sys.argv[1:], *("1e10", "float32")[len(sys.argv) - 1 :]]
    sys.exit(main(float(asked[0]), asked[1]))
