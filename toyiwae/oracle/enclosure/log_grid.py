"""Sums over the grid in log t with powers and logarithms of t: moments of sums of weights at complex powers.

With u = log t, `∫ t^z e^{-tS} du = Γ(z) S^{-z}`, so that moments are transforms of what `sums` has on its grid,

    E[X S^{-z}]          = 1/Γ(z) ∫ t^z E[X e^{-tS}] du,
    E[X S^{-z} log(S/K)] = 1/Γ(z) ∫ (ψ(z) - u - log K) t^z E[X e^{-tS}] du;

all nodes on one vertical line are one discrete Fourier transform. The rule's aliases (Poisson) are at most
`Σ_{m≠0} |Γ(z + 2πim/h)| E[|X| S^{-Re z}]`, with `|ψ(z + 2πim/h)| + |log(S/K)|` inside for the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from flint import acb, arb, ctx

from toyiwae.oracle.enclosure.contours import UP, Request, log_gamma, log_up
from toyiwae.oracle.enclosure.laws import BallLaw
from toyiwae.oracle.enclosure.matrices import Balls, balls, exact, radius
from toyiwae.oracle.enclosure.sums import BallSums

_ALIASES = 3  # m up to this; the others together are less than m = ±1 for steps below 1/2


def inverse_moment(law: BallLaw, n: int, a: arb) -> arb:
    """A bound on E[(w_1 + … + w_n)^-a], a > 0: by the geometric mean, or by Jensen's inequality where that is less."""
    found = arb("inf")
    for parts in {1, n}:
        power = a / parts
        if float(power.upper()) < 0.99 * -law.ends()[0]:
            moment = law.tilted([-power]).log_moment()[0].real
            found = min(found, (arb(n) ** -a * (parts * moment).exp()).abs_upper())
    return found


def geometric(log: float, slope: float, step: float, away: float | None) -> arb:
    """A bound on h Σ_{j≥1} e^{log - slope·jh}, times `away + jh` if that is given; infinite unless the slope is > 0."""
    if not (slope > 0 and np.isfinite(log)):
        return arb("inf")
    with ctx.workprec(64):
        h = arb(step)
        ratio = (-arb(slope) * h * (1 - 1e-9)).exp()
        found = ratio / (1 - ratio)
        if away is not None:
            found = found * arb(away + UP) + h * ratio / (1 - ratio) ** 2
        return (found * h * arb(log + UP).exp()).abs_upper()


def digamma_bound(x: float, y: np.ndarray) -> np.ndarray:
    """A bound on |γ + ψ(x + iy)| for x > 0, |y| ≥ 1.

    That is `|Σ_{n≥0} (z-1)/((n+1)(n+z))|`, where |n + z| is at least |y|, and at least n.
    """
    size = np.abs(y)
    return (np.abs(x - 1) + size) / size * (2 + np.log(2 + size))


@dataclass(frozen=True, eq=False)
class LogGrid:
    """Integrals of products of transforms with powers and logarithms of t, in the working precision.

    Attributes:
        sums: the transforms. bits: the precision to work in.
    """

    sums: BallSums
    bits: int

    @property
    def step(self) -> float:
        """The grid's step h."""
        return self.sums.plan.spacing

    @property
    def log_t(self) -> np.ndarray:
        """The grid, in double precision exactly."""
        return self.sums.log_t

    @cached_property
    def _u(self) -> Balls:
        return exact(self.log_t)

    @cached_property
    def t(self) -> Balls:
        """The grid's t."""
        return balls(u.exp() for u in self._u)

    @cached_property
    def _log_base(self) -> float:
        """Λ at the grid's end, its logarithm rounded up."""
        return log_up(self.sums.power(1)[-1])

    def values(self, requests: Sequence[Request], n: int) -> Balls:
        """Π T · Λ^n at the grid's points."""
        found = self.sums.power(n)
        for request in requests:
            found = found * self.sums.transform(request)
        return found

    def with_logs(self, values: Balls, shift: arb) -> Balls:
        """(u + shift) times values."""
        return values * (self._u + shift)

    def integral(self, requests: Sequence[Request], n: int, shift: arb | None = None) -> arb:
        """∫ Π T Λ^n du, with the factor u + shift if that is given, but for aliases."""
        values = self.values(requests, n)
        values = values if shift is None else self.with_logs(values, shift)
        rest = self.low(requests, shift=shift) + self.high(requests, n, shift=shift)
        return values.sum() * arb(self.step) + radius(rest)

    def low(self, requests: Sequence[Request], a: float = 0.0, shift: arb | None = None) -> arb:
        """A bound on `h Σ e^{au} Π|T|` below the grid, with the factor |u + shift| if that is given."""
        end, slope, log = float(self.log_t[0]), a, 0.0
        for bound in self._bounds(requests):
            value, c = self._best(bound, end, -1)
            log, slope = log + value, slope - c
        return geometric(log + a * end, slope, self.step, self._away(end, shift))

    def high(self, requests: Sequence[Request], n: int, a: float = 0.0, shift: arb | None = None) -> arb:
        """The same of `h Σ e^{au} Π|T| Λ^n` above it: n - m of the Λ are at most what they are at its end."""
        end, found = float(self.log_t[-1]), arb("inf")
        for m in {0, n, *(2**i for i in range(12) if 2**i < n)}:
            log, slope = (n - m) * self._log_base + a * end, -a
            for bound, count in ((self.sums.table.base, m), *((b, 1) for b in self._bounds(requests))):
                if count:
                    value, c = self._best(bound, end, 1)
                    log, slope = log + count * value, slope + count * c
            found = min(found, geometric(log, slope, self.step, self._away(end, shift)))
        return found

    def exponential(self, k: int, shift: arb | None = None) -> arb:
        """The same of `h Σ e^{-Kt}` above the grid, where e^{-Kt} ≤ e^{-K t_end} (t_end/t)^{K t_end}."""
        end = float(self.log_t[-1])
        slope = k * float(np.exp(min(end, 300.0)))
        return geometric(-slope * (1 - 1e-9), min(slope, 1e6) * (1 - 1e-9), self.step, self._away(end, shift))

    def _bounds(self, requests: Sequence[Request]) -> list[np.ndarray]:
        return [self.sums.bound(request) for request in requests]

    def _best(self, bound: np.ndarray, end: float, sign: int) -> tuple[float, float]:
        """The least of the bounds t^-c e^b at an end, among the c that fall, or do not grow, beyond it."""
        c = self.sums.table.c
        values = np.where(sign * c >= 0, bound - c * end, np.inf)
        at = int(np.argmin(values))
        return float(values[at]), float(c[at])

    @staticmethod
    def _away(end: float, shift: arb | None) -> float | None:
        return None if shift is None else abs(end) + float(abs(shift).upper())

    # Fourier transforms ----------------------------------------------------------------------------------------------

    def fourier(self, values: Balls, a: float, size: int, count: int) -> Balls:
        """The sums h Σ values · t^{a - 2πij/(size h)} for j < count."""
        folded = np.full(size, acb(0), dtype=object)
        scaled = values * balls((arb(a) * u).exp() for u in self._u) * arb(self.step)
        index = np.arange(self.sums.plan.low, self.sums.plan.high) % size
        for i in range(0, len(index), size):
            part = slice(i, i + size)
            folded[index[part]] += scaled[part]
        found = balls(acb.dft(list(folded)))
        return found[np.arange(count) % size]

    def below(self, a: float, nodes: Balls, n: int) -> Balls:
        """`h Σ t^{-s}` below the grid at nodes s with Re s = -a, for a Λ^n that is 1 there but for n·t: exactly 1."""
        h, end = arb(self.step), self._u[0]
        ratios = [(s * h).exp() for s in nodes]
        found = balls((-s * end).exp() * q / (1 - q) * h for s, q in zip(nodes, ratios, strict=True))
        rest = radius(arb(n) * geometric((a + 1) * float(self.log_t[0]), a + 1, self.step, None))
        return found + acb(rest, rest)

    def aliases(self, x: float, y: np.ndarray, *, logs: bool = False) -> np.ndarray:
        """Log of the bound on `Σ_{m≠0} |Γ(x + iy + 2πim/h)|` for x > 0, or on the sum with |ψ| inside: [Y]."""
        found, omega = np.full(len(y), -np.inf), 2 * np.pi / self.step
        for m in [*range(-_ALIASES, 0), *range(1, _ALIASES + 1)]:
            at = np.abs(y + m * omega)
            size = log_gamma(x, at) + (np.log(np.euler_gamma + digamma_bound(x, at)) if logs else 0.0)
            found = np.logaddexp(found, np.where(at > 1.0, size, np.inf))
        return found + np.log(2.0) + UP
