"""Grids and contours for the sums on balls, chosen in double precision; nothing here needs proof.

A poor choice leaves wide balls, never wrong ones: what contours, periods and truncations cost is bounded in `contours`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import loggamma

from toyiwae.errors import PrecisionError
from toyiwae.oracle.enclosure.contours import Floats, Table, log_gamma_tail

BLOCK = 1024  # nodes at which everything is evaluated together
MOST_BYTES = 2.0**31
MOST_SECONDS = 1200.0  # estimated, for the sums of one law
_LARGEST = 2**19  # nodes of a contour; a longer one would take minutes
_SIZES = sorted([2**i for i in range(5, 20)] + [3 * 2**i for i in range(4, 18)])  # of its Fourier transform
_SHARES = (0.9, 0.05)
_TRIED = 24  # contours that are compared for each segment
_LOSS = 50.0  # natural logarithm of the round-off that a contour may add before the next one takes over


@dataclass(frozen=True)
class Segment:
    """A contour (its place in the table), the points [start, stop) it serves, period, number of nodes, and bits."""

    contour: int
    start: int
    stop: int
    size: int
    count: int
    bits: int


@dataclass(frozen=True)
class Plan:
    """The grid `log t = k·spacing` for low ≤ k < high, and its segments."""

    spacing: float
    low: int
    high: int
    segments: list[Segment]


def spacing_for(nats: float, orders: Sequence[int]) -> float:
    """The largest step, a binary fraction, at which that error is below e^-nats."""
    steps: Floats = np.concatenate([np.arange(128, 16, -1) / 256, np.arange(128, 0, -1) / 2048])
    good = np.ones(len(steps), bool)
    for n in orders:
        omega = 2 * np.pi / steps
        extra = np.log(1.77 * omega**2 + omega) if n == 0 else -loggamma(n).real
        good &= loggamma(n + 1j * omega).real + extra + np.log(4.0) < -nats
    if not good.any():
        raise PrecisionError("more digits than the rule in log t was made for")
    return float(steps[np.argmax(good)])


class Planner:
    """Chooses grid and contours in double precision, from a table's bounds."""

    def __init__(
        self, table: Table, particles: Sequence[int], nats: float, spacing: float, upper: float = 1.0
    ):
        self.t, self.nats, self.spacing, self.upper = table, nats, spacing, upper
        self.particles = np.array(sorted(set(particles)), float)
        reference = int(np.argmin(np.abs(table.c + 1.0 / table.p)))
        kinds: dict[tuple, Floats] = {}
        for bound, size, request in zip(table.bounds, table.sizes, table.requests, strict=True):
            row = np.array([bound, size]) - sum(table.noise[g][reference] for g in request.factors)
            key = (request.power, request.centred, bool(request.factors))
            kinds[key] = np.maximum(kinds.get(key, row), row)
        self.kinds, tables = list(kinds), np.array(list(kinds.values()))
        self.bounds, self.sizes = tables[:, 0], tables[:, 1]

    def best(self, log_t: Floats) -> Floats:
        """Log-bounds on each kind of transform: [kinds, T]."""
        return np.array([self.t.at(bound, log_t) for bound in self.bounds])

    def demand(self, log_t: Floats, best: Floats) -> Floats:
        """Log of how much an error in a transform counts beside the largest term of its sum, for any K: [kinds, T]."""
        deviation = best[self.kinds.index((0, False, False))]
        base = np.minimum(np.logaddexp(-np.exp(np.minimum(log_t, 600.0)), deviation), 0.0)
        base = np.minimum.accumulate(np.minimum(base, self.t.at(self.t.base, log_t)))
        powers = (self.particles - 1)[:, None] * base[None, :]
        peaks = (best[:, None, :] + powers[None]).max(axis=2)
        return (powers[None] - peaks[:, :, None]).max(axis=1)

    def range(self) -> tuple[float, float]:
        """The stretch of log t outside of which every sum's terms are negligible."""
        low, high = -self.t.p * np.log(self.particles.max()) - 2.2 * self.nats, 40.0
        while True:
            log_t = np.linspace(low, high, 1500)
            best = self.best(log_t)
            size = (best + self.demand(log_t, best)).max(axis=0)
            low_end, high_end = (np.flatnonzero(size > -self.nats * factor) for factor in (1.0, self.upper))
            if len(low_end) and high_end[-1] < 1400:
                return float(log_t[max(low_end[0] - 1, 0)]) - 1.0, float(log_t[high_end[-1]]) + 2.0
            high *= 1.6
            if high > 3e5 or not len(low_end):
                raise PrecisionError(
                    "the lower tail of the weight is too long for its integrals to be planned"
                )

    def plan(self) -> Plan:
        """The grid and its segments."""
        low, high = self.range()
        first, last = int(np.floor(low / self.spacing)), int(np.ceil(high / self.spacing)) + 1
        points = np.unique(np.linspace(first, last, min(400, last - first + 1)).astype(int))
        log_t = points * self.spacing
        demand = self.demand(log_t, self.best(log_t))
        usable = self._usable()
        size = self.sizes[:, usable]
        loss = size[:, None, :] - np.multiply.outer(log_t, self.t.c[usable])[None] + demand[:, :, None]
        loss = loss.max(axis=0)
        every = (self._segments(usable, points, loss, demand, first, last, share) for share in _SHARES)
        segments = min(every, key=_cost)
        if max(max(one.count, one.size) for one in segments) > _LARGEST:
            raise PrecisionError("more than half a million nodes needed: the weight's law is too wide")
        return Plan(self.spacing, first, last, segments)

    def _segments(
        self,
        usable: NDArray[np.int64],
        points: NDArray[np.int64],
        loss: Floats,
        demand: Floats,
        first: int,
        last: int,
        share: float,
    ) -> list[Segment]:
        """Contours for all points, each the cheapest per point of those that serve a share of what one can serve."""
        segments, at, log_t = [], 0, np.asarray(points * self.spacing, float)
        while at < len(points):
            limit = max(_LOSS, float(loss[at].min()) + 0.3 * _LOSS)
            good = loss[at:] <= limit
            served = np.where(good.all(axis=0), len(good), np.argmin(good, axis=0))
            options = np.flatnonzero(served >= share * served.max())
            tried = []
            for one in options[:: -(-len(options) // _TRIED)]:
                stop = at + int(served[one])
                part = slice(at, stop)
                ends = (
                    first if at == 0 else int(points[at]),
                    last if stop >= len(points) else int(points[stop]),
                )
                found = self._segment(int(usable[one]), ends, log_t[part], demand[:, part], loss[part, one])
                tried.append((found, stop))
            best, at = min(tried, key=lambda pair: _cost([pair[0]]) / (pair[1] - at))
            segments.append(best)
        return segments

    def _usable(self) -> NDArray[np.int64]:
        """Contours within the strip of every request, clear of its ends and of Γ's poles."""
        c, p = self.t.c, self.t.p
        lowest = self.t.low
        for power, centred, factors in self.kinds:
            subtracted = (
                (2.0 if p == 1 else 1.0)
                if power == 0 and not factors
                else (power + (1 if centred and p == 1 else 0)) / p
            )
            lowest = max(lowest, -subtracted)
        clear = (np.abs(c * p - np.round(c * p)) > 0.02) | (c > 0.1)  # these poles are removable: a few bits
        span = min(self.t.high, 1.0) - lowest
        inside = (c - lowest > 0.1 * span) & (self.t.high - c > 0.15 * min(self.t.high, 1.0))
        found = np.flatnonzero(clear & inside)
        if not len(found):
            raise PrecisionError("no contour lies clear of the ends of the weight's strip of moments")
        return found

    def _period(self, contour: int, log_t: Floats, demand: Floats) -> float:
        """About the least L at which the aliases of `Table.alias` are negligible at all these points."""
        size = self.bounds[:, None, :] - np.multiply.outer(log_t, self.t.c) + demand[:, :, None]
        away = self.t.c - self.t.c[contour]
        sides = ((size[..., :contour], -away[:contour]), (size[..., contour + 1 :], away[contour + 1 :]))
        return max(float(((part + self.nats + 1.5) / by).min(axis=2).max()) for part, by in sides)

    def _segment(
        self, contour: int, ends: tuple[int, int], log_t: Floats, demand: Floats, loss: Floats
    ) -> Segment:
        c, nats = float(self.t.c[contour]), self.nats
        some = slice(None, None, max(1, len(log_t) // 50))
        least = self._period(contour, log_t[some], demand[:, some]) / self.spacing
        size = next((n for n in _SIZES if n >= least), 2 * _LARGEST)
        lost = max(float(loss.max()), 0.0)
        y = np.concatenate([2.0 ** np.arange(-3, 13, 0.02)])
        step = 2 * np.pi / (self.spacing * size)
        need = -np.inf
        for power, _, _ in self.kinds:
            x = c + power / self.t.p
            fallen = log_gamma_tail(x, y) < loggamma(x + 1e-3j).real - nats - lost + np.log(step)
            need = max(need, float(y[np.argmax(fallen)]))
        bits = int((nats + lost) / np.log(2.0)) + 48
        return Segment(contour, *ends, size, int(np.ceil(need / step)) + 2, bits)


def _cost(segments: Sequence[Segment]) -> float:
    return float(sum(one.count * one.bits for one in segments))


# effort ------------------------------------------------------------------------------------------------------------


def check_effort(plan: Plan, requests: int, dim: int, pairs: int, particles: int) -> None:
    """Refuse sums that are beyond the limits.

    Args:
        plan: their nodes and points.
        requests: number of their transforms.
        dim: D.
        pairs: pairs of affine functions whose covariances the transforms need.
        particles: numbers of particles.

    Raises:
        PrecisionError: with what the sums would take.
    """
    taken, held = seconds(plan, requests, dim, pairs, particles), size(plan, requests, dim, pairs)
    if taken > MOST_SECONDS or held > MOST_BYTES:
        nodes = sum(segment.count for segment in plan.segments)
        bits = max(segment.bits for segment in plan.segments)
        raise PrecisionError(
            f"the sums for {requests} transforms at {nodes} nodes with {bits} bits would take about "
            f"{taken:.2g} s and {held / 2**30:.2g} GiB, more than {MOST_SECONDS:.0f} s or {MOST_BYTES / 2**30:.0f} GiB:"
            " ask for fewer digits, or for fewer parameters"
        )


def seconds(plan: Plan, requests: int, dim: int, pairs: int, particles: int = 1) -> float:
    """About how long they take on one core; fitted to measurements from 128 to 4,096 bits."""
    total = 0.0
    for one in plan.segments:
        x = one.bits / 256
        node = 20 * x**1.5 + dim * (2 + 2 * x**1.4) + pairs * (1 + 0.06 * dim * x) + requests * (4 + x)
        fourier = one.size * (math.log2(one.size) * (0.1 + 0.1 * x) + 3)
        total += one.count * node + requests / 2 * fourier
        total += (one.stop - one.start) * ((requests + particles) * (4 + x) + 4 * x**1.4)
    return 1e-6 * total


def size(plan: Plan, requests: int, dim: int, pairs: int) -> float:
    """About how many bytes they hold at once."""
    points = plan.high - plan.low
    most = 0.0
    for one in plan.segments:
        ball = 130 + one.bits / 4  # a complex one
        most = max(most, ball * (one.count * requests + 3 * one.size + BLOCK * (dim + 2 * pairs)))
    return most + points * requests * (100 + max(one.bits for one in plan.segments) / 8)
