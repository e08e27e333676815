# ruff: noqa: E501
"""Finite-K sums in any number of digits, from the transforms of `precise_law` (formulas: see finite_k.py)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mpmath import MPContext

from toyiwae.oracle.enclosure.fixed_point import Arithmetic, Objects, objects
from toyiwae.oracle.enclosure.law import Line, PreciseLaw, Quadratic, Request, head
from toyiwae.oracle.enclosure.plan import plan


@dataclass(frozen=True)
class Sum:
    """A value and the sum of its terms' sizes; their ratio tells the digits lost to cancellation."""

    value: Any
    size: Any

    def __add__(self, other: Sum) -> Sum:
        """Sum."""
        return Sum(self.value + other.value, self.size + other.size)

    def times(self, factor: Any) -> Sum:
        """Product with a number."""
        return Sum(self.value * factor, self.size * abs(factor))

    def product(self, other: Sum) -> Sum:
        """Product with another sum."""
        return Sum(self.value * other.value, self.size * abs(other.value) + abs(self.value) * other.size)


class PreciseFiniteK:
    """The integrals of one law over one plan; on the grid everything is in fixed-point numbers of one scale.

    Args:
        law: the law.
        particles: numbers of particles, each at least 2.
        requests: the transforms needed beside Λ itself.
        digits: decimal digits of each sum beside its largest term.
        p: power of the weight in the exponential, 2 for the sample size.
        variant: of the plan.
    """

    def __init__(
        self,
        law: PreciseLaw,
        particles: Sequence[int],
        requests: Sequence[Request],
        digits: float,
        *,
        p: int = 1,
        variant: int = 0,
    ):
        wanted = {_key(request): request for request in (Request(0), *requests)}
        powers = sorted({request.power for request in wanted.values()})
        self.plan = plan(law, p, powers, particles, digits, variant=variant)
        self._law, self._p = law, p
        self._a = Arithmetic(self.plan.bits + int((2 + max(powers) / p) * math.log2(max(particles))) + 32)
        self.ctx = MPContext()
        self.ctx.prec = self._a.bits
        self._step = self.ctx.mpf(self.plan.spacing)
        self._t = [self.ctx.exp(self._step * k) for k in range(self.plan.low, self.plan.high)]
        self._decay = self._a.numbers([self.ctx.exp(-t) for t in self._t])
        self._values: dict[tuple, Objects] = {key: objects([]) for key in wanted}
        for segment in self.plan.segments:
            line = Line(law, p, self.plan.spacing, segment)
            for key, part in zip(wanted, line.transforms(list(wanted.values()), self._a.bits), strict=True):
                self._values[key] = np.concatenate([self._values[key], part])
        self._log_base(self._values[_key(Request(0))])
        for key, request in wanted.items():
            self._values[key] = self._values[key] + self._head(request)
        self._powers: dict[tuple[int, int], Objects] = {}

    def _head(self, request: Request) -> Any:
        """What was taken out of a transform."""
        first, second = head(self._law, self._p, request)
        if first == 0 and second == 0:
            return 0
        a, ctx = self._a, self.ctx
        if self._p == 2 and request.power == 1:
            return (
                self._decay * a.numbers([ctx.sqrt(t) if t < 1e9 else ctx.zero for t in self._t])
            ) >> a.bits
        clipped = a.numbers([t if t < 1e9 else ctx.zero for t in self._t])
        factor = a.number(first) + ((a.number(second) * clipped) >> a.bits)
        return (self._decay * factor) >> a.bits

    def _log_base(self, excess: Objects) -> None:
        """Λ and log Λ."""
        ctx, bits = self.ctx, self._a.bits
        self._base, logs = self._decay + excess, []
        for t, decay, more in zip(self._t, self._decay, excess, strict=True):
            if t < 2:
                logs.append(ctx.log1p(ctx.mpf(int(more)) / int(decay)) - t)
            else:
                value = int(decay + more)
                logs.append(ctx.log(ctx.ldexp(value, -bits)) if value > 0 else ctx.ninf)
        self._logs = logs

    def _power(self, k: int, drop: int) -> Objects:
        """Λ^(K-drop)."""
        if (k, drop) not in self._powers:
            exponent, tiny = k - drop, -self._a.bits
            if exponent == 0:
                found = objects([self._a.one] * len(self._t))
            elif drop < 2:
                found = (self._power(k, drop + 1) * self._base) >> self._a.bits
            else:
                logs = (exponent * x for x in self._logs)
                found = self._a.numbers([self.ctx.exp(x) if x > tiny else self.ctx.zero for x in logs])
            self._powers[k, drop] = found
        return self._powers[k, drop]

    def _get(self, power: int, *factors: Quadratic) -> Objects:
        return self._values[(power, *map(id, factors))]

    # values ----------------------------------------------------------------------------------------------------------

    def gap(self, k: int) -> Sum:
        """Log E[w] less the bound: ∫ (Λ^K - e^{-Kt}) dt/t."""
        bits, ctx = self._a.bits, self.ctx
        plain = [ctx.exp(-k * t) if k * t < bits else ctx.zero for t in self._t]
        terms = self._power(k, 0) - self._a.numbers(plain)
        scale = ctx.ldexp(self._step, -bits)
        return Sum(scale * int(terms.sum()), scale * int(abs(terms).sum()))

    def sample_size(self, k: int) -> Sum:
        """E[(Σw)²/Σw²], for p = 2."""
        one, two = self._get(1), self._get(2)
        return self._sum(k, self._power(k, 1), two) + self._sum(k * (k - 1), self._power(k, 2), one, one)

    def single(self, k: int, r: int, g: Quadratic) -> Sum:
        """E[Σ w^r g / S^r]."""
        return self._sum(k, self._power(k, 1), self._get(r, g)).times(1 / self.ctx.gamma(r))

    def pair(self, k: int, r: int, f: Quadratic, s: int, g: Quadratic) -> Sum:
        """E[Σ w^r f Σ w^s g / S^{r+s}]."""
        same = self._sum(k, self._power(k, 1), self._get(r + s, f, g))
        other = self._sum(k * (k - 1), self._power(k, 2), self._get(r, f), self._get(s, g))
        return (same + other).times(1 / self.ctx.gamma(r + s))

    def _sum(self, factor: int, power: Objects, *transforms: Objects) -> Sum:
        """Step times factor times the sum of products."""
        terms, bits = power, self._a.bits
        for transform in transforms[:-1]:
            terms = (terms * transform) >> bits
        terms = terms * transforms[-1]
        scale = self.ctx.ldexp(self._step * factor, -2 * bits)
        return Sum(scale * int(terms.sum()), scale * int(abs(terms).sum()))


def _key(request: Request) -> tuple:
    return (request.power, *map(id, request.factors))


# moments of gradients --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Components:
    """A gradient coordinate's polynomials by power of the normalised weight, centred where that costs nothing.

    The power 0 is centred under the proposal and the power 1 under the posterior (the law's unit tilt); `limit` is
    what that takes out of the mean.
    """

    parts: dict[int, Quadratic]
    limit: Sum

    @classmethod
    def of(cls, law: PreciseLaw, raw: dict[int, Quadratic]) -> Components:
        """Centre raw polynomials."""
        ctx, parts, limit = law.ctx, {}, Sum(law.ctx.zero, law.ctx.zero)
        for r, g in raw.items():
            if r < 2:
                mean, square = law.mean(ctx.mpf(r), g), law.mean(ctx.mpf(r), g, g)
                limit = limit + Sum(mean, ctx.sqrt(abs(square)))
                g = g.plus(-mean)
            parts[r] = g
        return cls(parts, limit)

    def requests(self) -> list[Request]:
        """The transforms that the moments need."""
        parts = self.parts
        singles = [Request(r, (g,)) for r, g in parts.items()]
        return singles + [
            Request(r + s, (parts[r], parts[s])) for r in parts for s in parts if r <= s and r + s
        ]


def shift(engine: PreciseFiniteK, k: int, components: Components) -> Sum:
    """The mean less its limit."""
    zero = engine.ctx.zero
    total = Sum(zero, zero)
    for r, g in components.parts.items():
        total = total + (engine.single(k, r, g) if r else Sum(zero, zero))
    return total


def variance(engine: PreciseFiniteK, law: PreciseLaw, k: int, components: Components) -> Sum:
    """The variance of one replicate's gradient."""
    zero, parts = law.ctx.zero, components.parts
    total = Sum(zero, zero)
    means = {r: engine.single(k, r, g) if r else Sum(zero, zero) for r, g in parts.items()}
    for r, f in parts.items():
        for s, g in parts.items():
            if s < r:
                continue
            total = total + _covariance(engine, law, k, (r, f), (s, g), means).times(1 + (s > r))
    return total


def _covariance(engine: PreciseFiniteK, law: PreciseLaw, k: int, one: tuple, two: tuple, means: dict) -> Sum:
    (r, f), (s, g) = one, two
    if r == s == 0:
        value = law.mean(law.ctx.zero, f, g) / k
        return Sum(value, abs(value))
    product = engine.pair(k, r, f, s, g)
    if r == 0:
        return product.times(law.ctx.one / k)
    return product + means[r].product(means[s]).times(-1)
