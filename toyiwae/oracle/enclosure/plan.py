# pyright: basic, reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
"""Which lines, ranges, steps and numbers of bits a multiprecision computation needs, planned in double precision.

With `S_a(c) = log |Γ(c + a/p) M(-pc)|` (or with M - 1, where the head is taken out) every transform obeys
`|transform(t)| ≤ e^{S_a(c)} t^{-c}` for every admissible c, up to a modest factor. From this bound follow the range of
log t that carries the integrals, the aliases and the round-off of a line, and the digits lost to cancellation. Nothing
here has to be right to more than a few units: results are compared with those of a second, different plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, loggamma

from toyiwae.errors import PrecisionError
from toyiwae.oracle.enclosure.law import PreciseLaw, Segment
from toyiwae.oracle.laws.special import log_abs_expm1

_LOG10 = float(np.log(10.0))
_LOG2 = float(np.log(2.0))
_LARGEST = 2**19  # nodes of a line; a longer one would take minutes
_LOSS = 50.0  # natural logarithm of the round-off that a line may add before the next one takes over
_GUARD = 48  # bits beside the counted ones: sums over nodes, polynomials, the planner's own crudeness

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """The grid `log t = k·spacing` for low ≤ k < high, and its segments."""

    spacing: float
    low: int
    high: int
    segments: tuple[Segment, ...]
    bits: int


def spacing_for(digits: float, order: int) -> float:
    """Step in log t at which the trapezoidal rule for t^{n-1} e^{-t} dt is right to so many digits, for n ≤ order."""
    steps = np.arange(256, 2, -1) / 256
    error = loggamma(order + 2j * np.pi / steps).real - gammaln(order)
    return float(steps[np.argmax(error < -_LOG10 * digits)])


class _Tables:
    """Bounds on transforms: S_a(c) on a ladder of c, and what they imply on a grid of log t."""

    def __init__(self, law: PreciseLaw, p: int, powers: Sequence[int], particles: Sequence[int], nats: float):
        self.law, self.p, self.powers = law, p, sorted({0, *powers})
        self.particles, self.nats = np.array(sorted(set(particles)), float), nats
        self.low = -min(2.0 / p, law.max_power / p)
        self.high = -law.min_power / p
        self.ladder = self._ladder()
        log_moment = law.log_moments(-p * self.ladder)
        self.full = np.stack([gammaln(self.ladder + a / p) + log_moment for a in self.powers])
        headless = log_abs_expm1(log_moment)
        self.size = np.stack(
            [gammaln(self.ladder + a / p) + (headless if a < 2 else log_moment) for a in self.powers]
        )

    def _ladder(self) -> Floats:
        spread = (
            float(np.sum(np.array(self.law.h, float) ** 2 / (1 + np.array(self.law.beta, float)))) * self.p**2
        )
        fine = 2.0 ** np.clip(np.floor(np.log2(4.0 / np.sqrt(spread + 1e-9))), -9, -3)
        even = np.arange(-2.0 + fine / 2, 2.0, fine)
        long = 2.0 ** np.arange(1, 9.1, 0.25)
        short = 2.0 ** np.arange(-14, -3, 0.5)
        high = min(self.high, 1e4)
        ends = [
            self.low + (min(high, 2.0) - self.low) * np.array([0.01, 0.03, 0.06]),
            high * np.array([0.9, 0.95, 0.99]),
        ]
        ladder = np.concatenate([even, np.arange(-15, 400, 2) / 8, long, short, -short, *ends])
        ladder = np.unique(np.round(ladder * 2.0**24) / 2.0**24)  # short binary fractions: c + 1/2 is exact
        inside = (ladder > self.low) & (ladder < self.high)
        off = np.abs(ladder * self.p - np.round(ladder * self.p)) > 1e-4
        return ladder[inside & (off | (ladder > 0))]

    @property
    def common(self) -> NDArray[np.bool_]:
        """The odd multiples of 1/8."""
        return np.abs(4 * self.ladder - 0.5 - np.round(4 * self.ladder - 0.5)) < 1e-6

    def usable(self) -> NDArray[np.bool_]:
        """Lines far enough from the ends of the strip and from Γ's poles."""
        c, span = self.ladder, min(self.high, 1.0) - self.low
        clear = np.abs(c * self.p - np.round(c * self.p)) / self.p
        away = (clear > 0.1 / self.p) | (c > 0.0)
        return away & (c - self.low > 0.1 * span) & (self.high - c > 0.15 * min(self.high, 1.0))

    def best(self, log_t: Floats) -> Floats:
        """Log of the bound on each power's transform: [A, T]."""
        exponents = np.multiply.outer(log_t, self.ladder)
        return np.stack([(size[None, :] - exponents).min(axis=1) for size in self.size])

    def log_base(self, log_t: Floats, best: Floats) -> Floats:
        """Log of the bound on Λ."""
        return np.minimum(np.logaddexp(-np.exp(np.minimum(log_t, 600.0)), best[0]), 0.0)

    def demand(self, log_t: Floats) -> Floats:
        """How much an error in a power's transform counts beside the largest term of its sum: [A, T], ≤ 0 at best."""
        best = self.best(log_t)
        base = self.log_base(log_t, best)
        powers = (self.particles - 1)[:, None] * base[None, :]
        peaks = (best[:, None, :] + powers[None, :, :]).max(axis=2)
        return (powers[None, :, :] - peaks[:, :, None]).max(axis=1)

    def range(self) -> tuple[float, float]:
        """The stretch of log t outside of which every sum's terms are negligible."""
        low, high = -self.p * np.log(self.particles.max()) - 2.2 * self.nats, 40.0
        while True:
            log_t = np.linspace(low, high, 1500)
            terms = (self.best(log_t) + self.demand(log_t)).max(axis=0)
            carried = np.flatnonzero(terms > -self.nats)
            if not len(carried):
                raise PrecisionError("the weights are too nearly equal for their integrals to be planned")
            if carried[-1] < 1400:
                break
            high *= 1.6
            if high > 3e5:
                raise PrecisionError(
                    f"the lower tail of the weight is too long: a wide proposal, β = {1 / self.high:.3g}"
                )
        peak = log_t[np.flatnonzero(terms > -2.0)[0]]
        return float(min(log_t[carried[0]], peak - self.nats)) - 1.0, float(log_t[carried[-1]] + 2.0)


def plan(
    law: PreciseLaw,
    p: int,
    powers: Sequence[int],
    particles: Sequence[int],
    digits: float,
    *,
    variant: int = 0,
) -> Plan:
    """A plan for transforms of these powers and numbers of particles, right to so many digits of their sums.

    Args:
        law: the law.
        p: power of w in the exponential, 1 or 2.
        powers: the powers a of the transforms.
        particles: numbers of particles, at least 2.
        digits: decimal digits asked of each sum beside its largest term.
        variant: plans of different variants have different steps, lines and bits.

    Raises:
        PrecisionError: if a line needed more than half a million nodes.
    """
    nats = _LOG10 * (digits + 4 + 2 * variant)
    order = max(2 * max([*powers, 1]) // 2, 1) if p == 1 else 1
    spacing = spacing_for(digits + 4 + 2 * variant, order) - variant / 1024
    tables = _Tables(law, p, powers, particles, nats)
    low, high = tables.range()
    log_t = np.linspace(low, high, int(np.clip(2 * (high - low), 200, 3000)))
    demand = tables.demand(log_t)
    loss = (tables.full[:, None, :] - np.multiply.outer(log_t, tables.ladder)[None] + demand[:, :, None]).max(
        axis=0
    )
    segments, first, last = [], int(np.floor(low / spacing)), int(np.ceil(high / spacing)) + 1
    at, start = 0, first
    while at < len(log_t):
        options = _reaches(loss[at:], tables.usable(), tables.common, _LOSS * (1.0 + 0.3 * variant))
        tried = []
        for line, length in options:
            stop = last if at + length >= len(log_t) else int(np.floor(log_t[at + length] / spacing))
            part = slice(at, at + length)
            segment = _segment(
                tables,
                line,
                (start, max(stop, start + 1)),
                spacing,
                log_t[part],
                demand[:, part],
                loss[part, line],
            )
            tried.append((segment.count * segment.bits, length, segment))
        _, length, segment = min(tried, key=lambda entry: entry[:2])
        segments.append(segment)
        at, start = at + length, segment.stop
    largest = max(segments, key=lambda segment: segment.count)
    if max(largest.count, largest.size) > _LARGEST:
        raise PrecisionError(
            f"{largest.count} nodes needed at Re s = {largest.abscissa:.4g}: the weight's law is too wide"
        )
    return Plan(spacing, first, last, tuple(segments), max(segment.bits for segment in segments))


def _reaches(
    loss: Floats, usable: NDArray[np.bool_], common: NDArray[np.bool_], limit: float
) -> list[tuple[int, int]]:
    """Lines that stay within the tolerated round-off nearly as far as the best one, and how far: at most nine.

    The `common` ones are preferred, for which Γ is likely to be known from another problem. Where even the best line
    exceeds the limit at the start, what it needs there is tolerated, and a little more: its bits are added either way.
    """
    allowed = np.where(usable[None, :], loss, np.inf)
    limit = max(limit, float(allowed[0].min()) + 0.3 * limit)
    good = allowed <= limit
    reach = np.where(good.all(axis=0), len(good), np.argmin(good, axis=0))
    longest = int(reach.max())
    lines = np.flatnonzero(reach >= 0.9 * longest)
    if common[lines].any():
        lines = lines[common[lines]]
    return [(int(line), int(reach[line])) for line in lines[:: -(-len(lines) // 9)]]


def _segment(
    tables: _Tables,
    line: int,
    ends: tuple[int, int],
    spacing: float,
    log_t: Floats,
    demand: Floats,
    loss: Floats,
) -> Segment:
    c, nats = float(tables.ladder[line]), tables.nats
    some = slice(None, None, max(1, len(log_t) // 100))
    size = 2 ** int(np.ceil(np.log2(ends[1] - ends[0] + 1)))
    while size <= _LARGEST and _aliases(tables, c, log_t[some], size * spacing, demand[:, some]) > -nats:
        size *= 2
    lost = max(float(loss.max()), 0.0)
    count = int(np.ceil(_reach(tables, c, nats + lost) * spacing * size / (2 * np.pi))) + 2
    bits = int((nats + lost) / _LOG2) + _GUARD
    return Segment(c, *ends, size, count, -(-bits // 64) * 64)


def _aliases(tables: _Tables, c: float, log_t: Floats, period: float, demand: Floats) -> float:
    """Log of the largest first alias, counted in the sums."""
    worst = -np.inf
    for sign in (-1, 1):
        image = log_t + sign * period
        bound = tables.best(image) + c * image - c * log_t + demand
        worst = max(worst, float(bound.max()))
    return worst


def _reach(tables: _Tables, c: float, nats: float) -> float:
    """Height beyond which the integrand of every power has fallen by so much."""
    y = np.concatenate([[0.0], 2.0 ** np.arange(-12, 9.01, 0.0625)])
    s = c + 1j * y
    log_moment = tables.law.log_moments(-tables.p * s).real
    height = 0.0
    for a in tables.powers:
        size = loggamma(s + a / tables.p).real + (np.maximum(log_moment, 0.0) if a < 2 else log_moment)
        height = max(height, float(y[np.flatnonzero(size > size[0] - nats)[-1]]))
    return height * 1.05 + 1.0
