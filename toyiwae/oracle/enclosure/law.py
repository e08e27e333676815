# pyright: basic, reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
# ruff: noqa: E501
"""The law of the weight in any number of digits: moments, and Laplace transforms by Fourier sums on vertical lines.

With `M(σ) = E[w^σ]` and `E_σ[g]` the mean of `g` under the density ∝ w^σ, both closed-form,

    t^{a/p} E[w^a g e^{-t w^p}] = (1/2πi) ∫ Γ(s + a/p) t^{-s} M(-ps) E_{-ps}[g] ds,

so that one line `s = c + iy` serves every power a. Nodes `y = jη` and `log t = kh` with `hη = 2π/N` make the
trapezoidal sum a discrete Fourier transform of length N. Its errors are aliases, `log t ± 2π/η`, whose size follows
from a table of real moments. The first Taylor terms in t are taken out with a matching multiple of e^{-t}, so that
the line may run between -2 and 0 and small t keep their relative accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from mpmath import MPContext

from toyiwae.oracle.enclosure.fixed_point import (
    Arithmetic,
    Complex,
    Objects,
    as_float,
    objects,
    real_transforms,
)
from toyiwae.oracle.enclosure.gamma import gamma_on_line

_LOG2 = float(np.log(2.0))


@dataclass(frozen=True, eq=False)
class Affine:
    """`constant + linear·ε`, multiprecision."""

    constant: Any
    linear: Objects


@dataclass(frozen=True, eq=False)
class Quadratic:
    """`constant + left·right`, or `constant + left` where `right` is None."""

    constant: Any
    left: Affine
    right: Affine | None = None

    def plus(self, constant: Any) -> Quadratic:
        """Add a constant."""
        return Quadratic(self.constant + constant, self.left, self.right)


@dataclass(frozen=True, eq=False)
class PreciseLaw:
    """The weight of a Gaussian proposal, normalised to E[w] = 1, by multiprecision β and h (see laws.GaussianLaw)."""

    ctx: MPContext
    beta: list[Any]
    h: list[Any]

    @property
    def max_power(self) -> float:
        """E[w^s] exists below this power."""
        worst = min([0.0, *map(float, self.beta)])
        return np.inf if worst == 0.0 else -1.0 / worst

    @property
    def min_power(self) -> float:
        """E[w^s] exists above this power."""
        worst = max([0.0, *map(float, self.beta)])
        return -np.inf if worst == 0.0 else -1.0 / worst

    def log_moment(self, s: Any) -> Any:
        """Log E[w^s] at one multiprecision s."""
        log, total = self.ctx.log, self.ctx.zero
        for b, h in zip(self.beta, self.h, strict=True):
            total += (s * log(1 + b) - log(1 + s * b)) / 2 + h**2 * s * (s - 1) / (2 * (1 + s * b) * (1 + b))
        return total

    def log_moments(self, s: np.ndarray) -> np.ndarray:
        """Log E[w^s] in double precision at each of many s, real or complex, for planning."""
        beta, h = np.array(self.beta, float), np.array(self.h, float)
        sb = 1.0 + np.multiply.outer(s, beta)
        square = s[:, None] * (s[:, None] - 1.0) / (2.0 * sb * (1.0 + beta)) * h**2
        return (0.5 * (s[:, None] * np.log1p(beta) - np.log1p(np.multiply.outer(s, beta))) + square).sum(
            axis=1
        )

    def mean(self, s: Any, *factors: Quadratic) -> Any:
        """E_s[g], or E_s[f g], at one real s: products of affine functions by Wick's rule."""
        variances = objects([1 / (1 + s * b) for b in self.beta])
        tilt = objects([-s * h * v for h, v in zip(self.h, variances, strict=True)])
        real = _RealTilt(tilt, variances)
        return _expectation(real, factors)


class _RealTilt:
    """Means and covariances of affine functions at one real tilt."""

    def __init__(self, mean: Objects, variances: Objects):
        self._mean, self._variances = mean, variances

    def affine(self, a: Affine) -> Any:
        return a.constant + a.linear.dot(self._mean)

    def covariance(self, a: Affine, b: Affine) -> Any:
        return (a.linear * b.linear).dot(self._variances)

    @staticmethod
    def times(a: Any, b: Any) -> Any:
        return a * b

    @staticmethod
    def constant(value: Any) -> Any:
        return value


class _LineTilt:
    """The same for all nodes of a line, in fixed-point complex numbers."""

    def __init__(self, arithmetic: Arithmetic, mean: Complex, variances: Complex):
        self._a, self._mean, self._variances = arithmetic, mean, variances
        self._known: dict[int, Complex] = {}
        self.times = arithmetic.times

    def affine(self, a: Affine) -> Complex:
        if id(a) not in self._known:
            self._known[id(a)] = self._a.dot(self._mean, self._a.numbers(a.linear)) + self.constant(
                a.constant
            )
        return self._known[id(a)]

    def covariance(self, a: Affine, b: Affine) -> Complex:
        return self._a.dot(self._variances, self._a.numbers(a.linear * b.linear))

    def constant(self, value: Any) -> Complex:
        zeros = np.zeros(len(self._mean.re), dtype=object)
        return Complex(zeros + self._a.number(value), zeros)


def _expectation(tilt: Any, factors: tuple[Quadratic, ...]) -> Any:
    if len(factors) == 1:
        return _mean_of(tilt, factors[0])
    f, g = factors
    return tilt.times(_mean_of(tilt, f), _mean_of(tilt, g)) + _covariance_of(tilt, f, g)


def _mean_of(tilt: Any, g: Quadratic) -> Any:
    left = tilt.affine(g.left)
    if g.right is None:
        return left + tilt.constant(g.constant)
    return (
        tilt.times(left, tilt.affine(g.right)) + tilt.covariance(g.left, g.right) + tilt.constant(g.constant)
    )


def _covariance_of(tilt: Any, f: Quadratic, g: Quadratic) -> Any:
    """Sum over the pairings that join f to g."""
    cov, at, times = tilt.covariance, tilt.affine, tilt.times
    if f.right is None and g.right is None:
        return cov(f.left, g.left)
    if f.right is None:
        f, g = g, f
    assert f.right is not None
    if g.right is None:
        return times(cov(f.left, g.left), at(f.right)) + times(cov(f.right, g.left), at(f.left))
    total = times(cov(f.left, g.left), cov(f.right, g.right)) + times(
        cov(f.left, g.right), cov(f.right, g.left)
    )
    for a, a_other in ((f.left, f.right), (f.right, f.left)):
        for b, b_other in ((g.left, g.right), (g.right, g.left)):
            total = total + times(cov(a, b), times(at(a_other), at(b_other)))
    return total


# lines ---------------------------------------------------------------------------------------------------------------


def _shifted(x: int, bits: int) -> int:
    return x << bits if bits >= 0 else x >> -bits


@dataclass(frozen=True, eq=False)
class Request:
    """One transform: `t^{a/p} E[w^a Π factors e^{-t w^p}]`, a = 0 without factors standing for Λ itself."""

    power: int
    factors: tuple[Quadratic, ...] = ()


@dataclass(frozen=True)
class Segment:
    """A line, the stretch [start, stop) of the grid `log t = kh` that it serves, its number of nodes and of bits."""

    abscissa: float
    start: int
    stop: int
    size: int
    count: int
    bits: int


class Line:
    """All transforms of one segment."""

    def __init__(self, law: PreciseLaw, p: int, spacing: float, segment: Segment):
        self._law, self._p, self._spacing, self._segment = law, p, spacing, segment
        self._a = Arithmetic(segment.bits)
        a, count, c = self._a, segment.count, segment.abscissa
        ctx = law.ctx
        step = 2 * ctx.pi / (ctx.mpf(spacing) * segment.size)
        self._step = step
        nodes = np.arange(count).astype(object)
        zeros = np.zeros(count, dtype=object)
        self.s = Complex(zeros + a.number(ctx.mpf(c)), nodes * a.number(step))
        self._sigma = Complex(-p * self.s.re, -p * self.s.im)
        self._at = -p * ctx.mpf(c)
        self._variances = self._reciprocals()
        h = a.numbers(law.h)
        pulled = Complex((self._variances.re * h) >> a.bits, (self._variances.im * h) >> a.bits)
        tilt = a.times(Complex(-self._sigma.re[:, None], -self._sigma.im[:, None]), pulled)
        self._tilt = _LineTilt(a, tilt, self._variances)
        self._moment, self._peak = self._moments()

    def _reciprocals(self) -> Complex:
        """1/(1 + σβ): [Y, D]."""
        a = self._a
        beta = a.numbers(self._law.beta)
        re = a.one + ((self._sigma.re[:, None] * beta) >> a.bits)
        im = (self._sigma.im[:, None] * beta) >> a.bits
        return a.reciprocal(Complex(re, im))

    def _moments(self) -> tuple[Complex, int]:
        """M(σ) 2^-peak, with `peak` the binary logarithm of M at y = 0, rounded."""
        a, law, ctx = self._a, self._law, self._law.ctx
        kappa = a.numbers([h**2 / (2 * (1 + b)) for b, h in zip(law.beta, law.h, strict=True)])
        half = a.number(sum((ctx.log(1 + b) for b in law.beta), ctx.zero) / 2)
        sigma = self._sigma
        less = Complex(sigma.re - a.one, sigma.im)
        exponent = a.times(a.times(sigma, less), a.dot(self._variances, kappa)) + a.scaled(sigma, half)
        product, angle = self._variances[:, 0], 0.0
        for i in range(len(law.beta)):
            one = self._variances[:, i]
            product = one if i == 0 else a.times(product, one)
            angle = angle + np.arctan2(as_float(one.im, a.bits), as_float(one.re, a.bits))
        root = a.sqrt(product, np.exp(0.5j * angle))
        peak = round(float(law.log_moment(self._at)) / _LOG2)
        exponent = Complex(exponent.re - a.number(peak * ctx.log(2)), exponent.im)
        return a.times(a.exp(exponent), root), peak

    def _gamma(self, shift: int) -> Complex:
        """Γ(s + shift/p)."""
        a, segment = self._a, self._segment
        odd = shift % self._p
        start = segment.abscissa + odd / self._p
        gamma = gamma_on_line(start, self._spacing, segment.size, segment.count, a)
        at = Complex(self.s.re + a.one * odd // self._p, self.s.im)
        for _ in range(shift // self._p):
            gamma = a.times(gamma, at)
            at = Complex(at.re + a.one, at.im)
        return gamma

    def transforms(self, requests: list[Request], bits: int) -> list[Objects]:
        """For each request, its values less `head`, on the segment's grid, in fixed-point numbers of these bits."""
        a, segment, ctx = self._a, self._segment, self._law.ctx
        gammas = {power: self._gamma(power) for power in {request.power for request in requests}}
        lines = []
        for request in requests:
            inner = self._moment
            if request.factors:
                inner = a.times(inner, _expectation(self._tilt, request.factors))
            lines.append(a.times(gammas[request.power], inner - self._subtracted(request)))
        index = np.arange(segment.start, segment.stop)
        spread = ctx.mpf(segment.abscissa) * ctx.mpf(self._spacing)
        weights = [ctx.exp(-spread * int(k)) * self._step / (2 * ctx.pi) for k in index]
        mantissas, shifts = [], []
        for weight in weights:
            _, mantissa, exponent, length = weight._mpf_
            drop = max(length - a.bits - 16, 0)
            mantissas.append(int(mantissa) >> drop)
            shifts.append(exponent + drop + self._peak - a.bits + bits)
        return [
            objects(
                [
                    _shifted(int(x) * m, by)
                    for x, m, by in zip(values[index % segment.size], mantissas, shifts, strict=True)
                ]
            )
            for values in real_transforms(lines, segment.size, a.bits)
        ]

    def _subtracted(self, request: Request) -> Complex:
        """Mellin image of `head` over Γ(s + a/p), 2^-peak: κ₀ + κ₁ s, or κ₁ for the power p."""
        a, ctx = self._a, self._law.ctx
        zeros = np.zeros(self._segment.count, dtype=object)
        first, second = head(self._law, self._p, request)
        down = ctx.ldexp(1, -self._peak)
        if request.power == 0:
            return Complex(zeros + a.number(first * down), zeros) + a.scaled(self.s, a.number(second * down))
        return Complex(zeros + a.number((first if self._p == 2 else second) * down), zeros)


def head(law: PreciseLaw, p: int, request: Request) -> tuple[Any, Any]:
    """κ₀, κ₁: the first Taylor terms of a transform are those of `(κ₀ + κ₁ t) e^{-t}` (of `κ₀ √t e^{-t}` for p = 2, a = 1)."""
    ctx, a = law.ctx, request.power
    if a > 1 or (p == 2 and request.factors):
        return ctx.zero, ctx.zero
    if p == 2:
        return ctx.one, ctx.zero
    if not request.factors:
        return (ctx.one, ctx.zero) if a == 0 else (ctx.zero, ctx.one)
    at_one = law.mean(ctx.one, *request.factors)
    if a == 1:
        return ctx.zero, at_one
    at_zero = law.mean(ctx.zero, *request.factors)
    return at_zero, at_zero - at_one
