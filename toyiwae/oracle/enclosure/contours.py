"""Proven bounds on Laplace transforms, and the contours, ranges and steps that follow from them.

For `T(t) = t^{a/p} E[w^a Π g e^{-t w^p}]` and every c with `x = c + a/p ≥ 0`, and g by Cauchy-Schwarz,

    |T(t)| ≤ (x/e)^x t^{-c} M(-pc) Π √E_{-pc}[g²]                 (from y^x e^{-y} ≤ (x/e)^x)

(times (n-1)^n for n ≥ 3 polynomials, by Hölder and hypercontractivity), and without the factor (x/e)^x for
-1 ≤ x < 0 where `E[w^a g] = 0` (p = 1). For `T = E[e^{-tw^p}] - e^{-t}`, the *deviation*, the factor of t^{-c} is
`(M + 1)(c/e)^c` for c ≥ 0; for c < 0 it is M + 1, and for p = 1 also 1 where c ≥ -1, and `((M(2) - 1)/2)^{-c/2}` where
E[w²] exists; for `T = E[Π g (e^{-tw} - e^{-t})]` it is the same with E_{-pc}[Π |g|] M + E[Π |g|], c ≥ -1. Logarithms of
these bounds over a table of c, rounded up, are all that the errors of the trapezoidal rules and of the truncations are
made of; the choice of contours needs no proof.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flint import acb, arb, ctx
from numpy.typing import NDArray
from scipy.special import loggamma

from toyiwae.oracle.enclosure.laws import BallLaw, Quadratic
from toyiwae.oracle.laws.spectrum import log_abs_expm1

Floats = NDArray[np.float64]
UP = 1e-6  # added to logarithms of bounds: more than the round-off of float64 in forming them


@dataclass(frozen=True)
class Request:
    """One transform; `centred` where E[w^a g] = 0. The power 0 without factors stands for the deviation.

    Of the power 0 and several polynomials, the centred transform is that less `E[Π g] e^{-t}`.
    """

    power: int
    factors: tuple[Quadratic, ...] = ()
    centred: bool = False

    @property
    def subtracted(self) -> bool:
        """Whether `E[Π g] e^{-t}` is taken off."""
        return self.centred and self.power == 0 and len(self.factors) > 1


def log_up(x: arb) -> float:
    """Logarithm of a nonnegative ball's upper end, rounded up."""
    upper = x.abs_upper()
    return float(upper.log().upper()) + UP if upper > 0 else -np.inf


class Table:
    """The bounds of one law for some requests over a table of c, and what they say.

    Attributes:
        c: the table [C]. base: log-bounds on E[e^{-tw^p}] [C]. bounds: on each request [R, C].
        sizes: about the logarithm of each integrand where a contour meets the real axis [R, C].
    """

    def __init__(self, law: BallLaw, p: int, requests: Sequence[Request]):
        """Evaluates everything with 64 bits."""
        self.p, self.requests = p, list(requests)
        low, high = law.ends()
        self.low, self.high = max(-2.0, -high) / p, -low / p
        with ctx.workprec(64):
            self.c = self._table(law)
            tilted = law.tilted([arb(-p * float(c)) for c in self.c])
            moment = [x.real for x in tilted.log_moment()]
            self.log_moment = np.array([float(x.upper()) + UP for x in moment])
            self.add_one = np.array([log_up(x.exp() + 1) for x in moment])
            excess = log_up((law.log_moment(2.0).exp() - 1) / 2) if p == 1 and high > 2 else np.inf
            pairs = {g: None for request in requests for g in request.factors}
            tilted.prepare([(g, g) for g in pairs])
            self.noise = {g: np.array([log_up(x.real) / 2 for x in tilted.mean(g, g)]) for g in pairs}
        self.base = np.where(self.c > 0, self._peak(self.c) + self.log_moment, np.inf)
        self.bounds = np.array([self._bound(request, excess) for request in requests])
        self.sizes = np.array([self._integrand(request) for request in requests])

    def _table(self, law: BallLaw) -> Floats:
        spread = float(sum((h * h / (1 + b) for b, h in zip(law.beta, law.h, strict=True)), arb(0)).mid())
        fine = 2.0 ** np.clip(np.floor(np.log2(4.0 / np.sqrt(spread * self.p**2 + 1e-9))), -6, -2)
        low, high = self.low, min(self.high, 1e4)
        ends = [
            0.9 * low,
            0.8 * low,
            0.95 * low,
            0.3 * high,
            0.5 * high,
            0.85 * high,
            0.93 * high,
            0.7 * high,
            0.985 * high,
            0.995 * high,
        ]
        c = np.concatenate(
            [np.arange(-2, 2 + fine, fine), np.arange(-15, 64, 4) / 8, 2.0 ** np.arange(1, 9, 0.5), ends]
        )
        fixed = np.array([0.0, -0.5, -1.0, -2.0]) / self.p
        inside = (c > 0.98 * low) & (c < 0.997 * self.high)
        fixed = fixed[(fixed >= -1.0 / self.p) | (law.ends()[1] > 2.05)]
        return np.unique(np.concatenate([c[inside], fixed]))

    @staticmethod
    def _peak(x: Floats) -> Floats:
        """Log (x/e)^x, 0 at 0."""
        safe = np.where(x > 0, x, 1.0)
        return np.where(x > 0, safe * np.log(safe) - safe + UP, 0.0)

    def _bound(self, request: Request, excess: float) -> Floats:
        c, p = self.c, self.p
        if request.power == 0 and not request.factors:
            found = self._peak(c) + self.add_one
            if p == 1:
                found = np.where((c >= -1) & (c <= 0), np.minimum(found, 0.0), found)
                if excess < np.inf:
                    found = np.where(c <= 0, np.minimum(found, -c / 2 * excess + UP), found)
            return found
        x = c + request.power / p
        lowest = -1.0 if request.centred and p == 1 else 0.0
        return np.where(x >= lowest, self._peak(x) + self._moment(request), np.inf)

    def _moment(self, request: Request) -> Floats:
        """Log of the bound on M E_{-pc}[Π |g|], with E_0[Π |g|] added where that is subtracted: [C]."""
        found = self.log_moment + self._factors(request)
        if request.subtracted:
            found = np.logaddexp(found, self._factors(request)[self.c == 0.0]) + UP
        return found

    def _factors(self, request: Request) -> Floats:
        """Log of the bound on E_{-pc}[Π |g|]: [C]."""
        count = len(request.factors)
        found = sum((self.noise[g] for g in request.factors), np.zeros_like(self.c))
        return found + (count * np.log(count - 1.0) + UP if count > 2 else 0.0)

    def _integrand(self, request: Request) -> Floats:
        """Log of |Γ(c + a/p) M(-pc) E[g]|, about: [C]."""
        plain = request.power == 0 and not request.factors
        found = np.maximum(log_abs_expm1(self.log_moment), -700.0) if plain else self.log_moment
        found = found + self._factors(request)
        return found + loggamma(self.c + request.power / self.p + 1e-3j).real

    def at(self, bound: Floats, log_t: Floats) -> Floats:
        """Log of the bound on a transform at each log t."""
        return (bound[None, :] - np.multiply.outer(log_t, self.c)).min(axis=1)

    def alias(self, bound: Floats, contour: int, log_t: Floats, period: float) -> Floats:
        """Log of the bound on what `e^{cmL} T(log t + mL)`, m ≠ 0, add up to, times e^{-c·0}: [T]. Formula: alias."""
        away = np.abs(self.c - self.c[contour]) * period
        with np.errstate(divide="ignore"):
            each = bound - away - np.log1p(-np.exp(-np.maximum(away, 1e-12)))
        total = np.full(len(log_t), -np.inf)
        for side in (self.c < self.c[contour], self.c > self.c[contour]):
            each_side = np.where(side, each, np.inf)
            total = np.logaddexp(total, self.at(each_side, log_t))
        return total + UP

    def tail(self, bounds: Sequence[Floats], log_t: float, spacing: float, sign: int) -> float:
        """Log of the bound on Σ_{j≥1} Π |T(log t + sign·j·spacing)|."""
        best = []
        for bound in bounds:
            side = sign * self.c > 0
            side = side if np.isfinite(bound[side]).any() else self.c == 0  # one that does not fall
            best.append(int(np.argmin(np.where(side, bound - self.c * log_t, np.inf))))
        slope = sum(self.c[i] for i in best)
        value = sum(bound[i] for bound, i in zip(bounds, best, strict=True)) - slope * log_t
        return float(value - np.log(np.expm1(min(abs(slope) * spacing, 700.0))) + UP) if slope else np.inf

    def truncation(self, i: int, contour: int, step: float, count: int) -> float:
        """Log of the bound on Σ_{j≥count} |Γ(c + a/p + ij·step)| · |M E[g]|, for request i.

        Formula: truncation.

        By `log_gamma_tail`.
        """
        request, c = self.requests[i], float(self.c[contour])
        x, y = c + request.power / self.p, step * count
        plain = request.power == 0 and not request.factors
        moment = (self.add_one if plain else self._moment(request))[contour]
        return float(log_gamma_tail(x, y) + moment - np.log(-np.expm1(-step)) + UP)


def log_gamma(x: float, y: Floats | float) -> Floats | float:
    """Log of the bound √(2π) |z|^{x-1/2} e^{-π|y|/2 + 1/(6|z|)} on |Γ(z)|, z = x + iy, x ≥ 0 (DLMF 5.6.9).

    For x < 0 by Γ(z) = Γ(z+n)/(z…(z+n-1)), y ≠ 0.
    """
    lift = max(0, int(np.ceil(-x)))
    size, along = np.hypot(x + lift, y), np.abs(y)
    found = 0.5 * np.log(2 * np.pi) + (x + lift - 0.5) * np.log(size) - np.pi * along / 2 + 1 / (6 * size)
    return found - lift * np.log(along) if lift else found


def log_gamma_tail(x: float, y: Floats | float) -> Floats:
    """The same where it falls at least like e^{-y} from y on; inf where y is too small for that."""
    return np.where(np.asarray(y) > max((x - 0.5) / 0.57, 1.0), log_gamma(x, y), np.inf)


def outer_error(order: int, spacing: float) -> arb:
    """Relative error of the trapezoidal rule in log t for ∫ t^{n-1} e^{-tS} dt, whatever S; n = 0: for E log S.

    Formula: outer-rule.

    For n = 0: with x = log(S/K), |e^{-iωx} - 1 + iω(e^x - 1)| ≤ (1.77ω² + ω)(e^x - 1 - x) for ω ≥ 3, whose mean is that
    many times the gap.
    """
    with ctx.workprec(64):
        total, omega = arb(0), 2 * arb.pi() / arb(spacing)
        for m in range(1, 4):
            size = abs(acb(order, m * omega).gamma())
            total += size * ((1.77 * (m * omega) ** 2 + m * omega) if order == 0 else 1)
        total = total * (2 if order == 0 else 2 / arb(order).gamma())
        return total.abs_upper() * 2  # m ≥ 4 together are less than m = 1 for spacings below 1/2
