"""The law of the weight on balls: moments and exponentially tilted means, real and complex.

With `A(s) = I + s(diag β + E)`, `|E| ≤ e` (see `matrices`), moments and tilted noise are closed-form (theory §3); E
enters as a radius: with `ρ = min_i Re(1 + sβ_i) - |s|e` and `δ = |s|e/ρ < 1/2`, leaving it out changes `A⁻¹` by at most
`2δ/ρ` in norm and `log det A` by `2Dδ`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flint import acb, arb, arb_mat, ctx

from toyiwae.errors import InputError
from toyiwae.oracle.enclosure.matrices import Balls, balls, radius
from toyiwae.oracle.enclosure.wick import mean_of_product


@dataclass(frozen=True, eq=False)
class Affine:
    """`constant + linear·ε`."""

    constant: arb
    linear: Balls

    def norm(self) -> arb:
        """A bound on |linear|."""
        return sum((x.abs_upper() * x.abs_upper() for x in self.linear), arb(0)).sqrt().abs_upper()


@dataclass(frozen=True, eq=False)
class Quadratic:
    """`constant + left·right`, or `constant + left` where `right` is None."""

    constant: arb
    left: Affine
    right: Affine | None = None

    def plus(self, constant: arb) -> Quadratic:
        """Add a constant."""
        return Quadratic(self.constant + constant, self.left, self.right)


@dataclass(frozen=True, eq=False)
class BallLaw:
    """The weight of a Gaussian proposal, normalised to E[w] = 1.

    Attributes:
        beta, h: of theory §3 [D].
        remainder: e, a bound on what the diagonal β leaves out.
    """

    beta: Balls
    h: Balls
    remainder: arb
    _known: dict[tuple[float, int], Tilted] = field(default_factory=dict)

    def ends(self) -> tuple[float, float]:
        """E[w^s] exists between these powers."""
        low, high = (float(f(float(b.mid()) for b in self.beta)) for f in (min, max))
        return -1.0 / high if high > 0 else -np.inf, -1.0 / low if low < 0 else np.inf

    def tilted(self, s: Iterable[Any]) -> Tilted:
        """The laws of the noise under densities ∝ w^s at some s, all of one real part or all real."""
        return Tilted(self, balls(acb(x) for x in s))

    def _at(self, s: float) -> Tilted:
        """The noise under the density ∝ w^s at one real s, remembered at each precision."""
        key = (s, ctx.prec)
        if key not in self._known:
            self._known[key] = self.tilted([s])
        return self._known[key]

    def mean(self, s: float, *factors: Quadratic) -> arb:
        """E_s[Π g] at one real s."""
        return self._at(s).mean(*factors)[0].real

    def power(self, exponent: float) -> BallLaw:
        """The law of w^e, normalised to mean 1 again.

        Raises:
            InputError: if E[w^e] does not exist.
        """
        e = arb(exponent)
        law = BallLaw(e * self.beta, e * self.h, abs(e) * self.remainder)
        if any(1 + b <= 0 for b in law.beta):
            raise InputError(f"the mean of w^{exponent:g} does not exist for this problem")
        return law

    def log_moment(self, s: float) -> arb:
        """Log E[w^s], 0 at s = 0 and 1."""
        return self._at(s).log_moment()[0].real if s not in (0.0, 1.0) else arb(0)

    @property
    def max_power(self) -> float:
        """E[w^s] exists below this power."""
        return self.ends()[1]

    def moment_less_one(self, power: float) -> arb:
        """E[w^power] - 1."""
        return self.log_moment(power).expm1()

    def moment(self, power: float, factors: tuple[Quadratic, ...]) -> arb:
        """E[w^power Π g]."""
        return self.log_moment(power).exp() * self.mean(power, *factors)

    def first_gap(self) -> arb:
        """-E log w, the gap at K = 1: Σ h²/(2(1+β)) - (log(1+β) - β)/2."""
        total = sum((b - (1 + b).log() for b in self.beta), arb(0)) / 2
        total += sum((h * h / (2 * (1 + b)) for b, h in zip(self.beta, self.h, strict=True)), arb(0))
        return total + radius(self._at(1.0).log_error)


class Tilted:
    """Moments of w and of the noise at nodes s [Y]: A(s)⁻¹ is diag(V) but for an error of norm `inverse_error`."""

    def __init__(self, law: BallLaw, s: Balls):
        self._law, self._s = law, s
        self._inverse = balls(1 / (1 + x * b) for x in s for b in law.beta).reshape(len(s), -1)
        size = max(arb(1), *(x.abs_upper() for x in s))
        ends = min(arb(1), *(x.real.lower() for x in s)), max(arb(1), *(x.real.upper() for x in s))
        least = min((1 + x * b).lower() for x in ends for b in law.beta)
        least = least - size * law.remainder
        delta = size * law.remainder / least
        valid = least > 0 and delta < 0.5
        self.inverse_error = (2 * delta / least).abs_upper() if valid else arb("inf")
        norm = sum((x.abs_upper() * x.abs_upper() for x in law.h), arb(0))
        count = len(law.beta)
        error = count * delta + size * size * norm * self.inverse_error / 2
        self.log_error = ((1 + size) * error).abs_upper() if valid else arb("inf")
        self._parts: tuple[arb_mat, arb_mat] | None = None
        self._h = Affine(arb(0), law.h)
        self._cov: dict[tuple[Affine, Affine], Balls] = {}
        self._at: dict[Affine, Balls] = {}

    def log_moment(self) -> Balls:
        """Log M(s) = Σ ½(s log(1+β) - log(1+sβ)) + s(s-1) h²/(2(1+sβ)(1+β)): [Y]."""
        law = self._law
        half = sum(((1 + b).log() for b in law.beta), arb(0)) / 2
        weight = [h * h / (2 * (1 + b)) for b, h in zip(law.beta, law.h, strict=True)]
        square = self._dot([weight])[0]
        logs = balls(sum((x.log() for x in row), acb(0)) / 2 for row in self._inverse)
        error = acb(radius(self.log_error), radius(self.log_error))
        return self._s * half + logs + self._s * (self._s - 1) * square + error

    def prepare(self, requests: Iterable[tuple[Quadratic, ...]]) -> None:
        """Compute the covariances of all pairs of affine functions that means of these products need, at once."""
        missing = [p for p in pairs_in(self._h, requests) if p not in self._cov and p[::-1] not in self._cov]
        found = self._dot([list(a.linear * b.linear) for a, b in missing])
        for (a, b), column in zip(missing, found, strict=True):
            error = radius(a.norm() * b.norm() * self.inverse_error)
            self._cov[a, b] = column + acb(error, error)

    def mean(self, *factors: Quadratic) -> Balls:
        """E_s[Π g], by Wick's rule: [Y]."""
        if len(factors) == 2:
            f, g = factors
            self.prepare([factors])
            return self._mean_of(f) * self._mean_of(g) + self._covariance_of(f, g)
        if len(factors) == 1:
            self.prepare([factors])
            return self._mean_of(factors[0])
        return mean_of_product(self, factors)

    def _dot(self, columns: list[list[arb]]) -> list[Balls]:
        """diag(V) times columns."""
        if not columns:
            return []
        count, dim = self._inverse.shape
        if self._parts is None:
            entries = list(self._inverse.ravel())
            self._parts = (
                arb_mat(count, dim, [x.real for x in entries]),
                arb_mat(count, dim, [x.imag for x in entries]),
            )
        right = arb_mat(len(columns), dim, [x for column in columns for x in column]).transpose()
        re, im = ((part * right).transpose().entries() for part in self._parts)
        both = [acb(x, y) for x, y in zip(re, im, strict=True)]
        return [balls(both[i : i + count]) for i in range(0, len(both), count)]

    def covariance(self, a: Affine, b: Affine) -> Balls:
        """Covariance of two prepared affine functions: [Y]."""
        return self._cov[a, b] if (a, b) in self._cov else self._cov[b, a]

    def affine(self, a: Affine) -> Balls:
        """Mean of a prepared affine function: [Y]."""
        if a not in self._at:
            self._at[a] = acb(a.constant) - self._s * self.covariance(self._h, a)
        return self._at[a]

    def _mean_of(self, g: Quadratic) -> Balls:
        left = self.affine(g.left) + (acb(g.constant) if g.right is None else 0)
        if g.right is None:
            return left
        return left * self.affine(g.right) + self.covariance(g.left, g.right) + acb(g.constant)

    def _covariance_of(self, f: Quadratic, g: Quadratic) -> Balls:
        """Sum over the pairings that join f to g."""
        cov, at = self.covariance, self.affine
        f_sides = [(f.left, f.right)] if f.right is None else [(f.left, f.right), (f.right, f.left)]
        g_sides = [(g.left, g.right)] if g.right is None else [(g.left, g.right), (g.right, g.left)]
        total: Any = 0
        for a, a_other in f_sides:
            for b, b_other in g_sides:
                term = cov(a, b)
                for other in (a_other, b_other):
                    term = term if other is None else term * at(other)
                total = total + term
        if f.right is not None and g.right is not None:
            total = total + cov(f.left, g.left) * cov(f.right, g.right)
            total = total + cov(f.left, g.right) * cov(f.right, g.left)
        return total


def pairs_in(h: Affine | None, requests: Iterable[tuple[Quadratic, ...]]) -> dict[tuple[Any, Affine], None]:
    """The pairs of affine functions whose covariances means of these products need."""
    pairs: dict[tuple[Any, Affine], None] = {}
    for factors in requests:
        affine = [a for g in factors for a in (g.left, g.right) if a is not None]
        for i, a in enumerate(affine):
            pairs[h, a] = None
            for b in affine[i + 1 :]:
                pairs[a, b] = None
    return pairs
