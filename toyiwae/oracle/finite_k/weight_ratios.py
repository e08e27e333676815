"""Means E[g h F(w_1/S_{-1})] of functions of one weight over the sum of the others, by Mellin–Parseval.

With F* the Mellin transform of F, at any K and for any F whose strip meets that of the moments,

    E[g h F(w_1/S_{-1})] = (1/2πi) ∫ F*(s) E[g h w^{-s}] E[S_{-1}^s] ds,
    E[S_{-1}^s]          = (1/Γ(-s)) ∫ t^{-s-1} Λ^{K-1} dt.

F* decays like e^{-π|Im s|} while 1/Γ(-s) grows like e^{π|Im s|/2}. Here y = w_1/S_{-1}, the normalised weight is
w̃ = y/(1+y), f = -log(1-w̃) - w̃ = log(1+y) - y/(1+y), and every F* is Γ(s)Γ(-s) = -π/(s sin πs) times a ratio.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import digamma, loggamma

from toyiwae.errors import PrecisionError
from toyiwae.oracle.finite_k.bounds import FiniteK
from toyiwae.oracle.laws import contour
from toyiwae.oracle.laws.bounded import EPS, Bounded, stack
from toyiwae.oracle.laws.discrete import DiscreteLaw
from toyiwae.oracle.laws.tilted import TiltedNoise

_EULER = float(np.euler_gamma)
_TRUNCATION = 15.0  # ordinate at which |F*(s)/Γ(-s)| has fallen

_LEAST = 4  # candidate contours that a choice needs
_NARROWEST = 1e-3  # strip in which contours are looked for

Ratio = Callable[[np.ndarray], np.ndarray]


def square(s: np.ndarray) -> np.ndarray:
    """The Mellin transform of f² = (log(1+y) - y/(1+y))², less the factor Γ(s)Γ(-s)."""
    return (1.0 + s) * (2.0 * (_EULER + digamma(-s)) + s)


def mixed_power(s: np.ndarray) -> np.ndarray:
    """Likewise of f w̃, w̃ = y/(1+y)."""
    return -s * (_EULER + digamma(-s) + 1.0 + s)


def first_power(s: np.ndarray) -> np.ndarray:
    """Likewise of f."""
    return -(1.0 + s)


def _opposite(s: np.ndarray) -> np.ndarray:
    """Likewise of f(y/(1+y)) f(1/(1+y)), what two particles have."""
    slope = -1.0 / s - np.pi / np.tan(np.pi * s)  # of log Γ(s)Γ(-s)
    return 2.0 * (_EULER + digamma(-s)) + 2.0 - s * s + (1.0 + s) * slope


def two_particles(law: Any, score: Any) -> Bounded:
    """E[f(w̃_1) g_1 f(w̃_2) g_2] for K = 2, where w̃ depends on w_1/w_2 alone: [N, F]."""
    end = min(1.0, law.max_power, -law.min_power)  # of F*, up to 2: near 0 the moments are smallest

    def size(c: np.ndarray) -> np.ndarray:
        return law.log_moment(-c) + law.log_moment(c)

    c, step = _contour(-end, end, _opposite, size)
    s = c + 1j * contour.ordinates(step, _TRUNCATION)
    (one, one_error), (other, other_error) = (_complex_moment(law, power, (score,)) for power in (-s, s))
    weight = (_transform(_opposite, s) * (step / np.pi))[:, None]
    value = np.real(weight * one * other).sum(axis=1)
    error = np.abs(one) * other_error + one_error * np.abs(other) + 64 * EPS * np.abs(one * other) / end
    return Bounded(value, (np.abs(weight) * error).sum(axis=1))


def _transform(ratio: Ratio, s: np.ndarray) -> np.ndarray:
    return -np.pi * ratio(s) / (s * np.sin(np.pi * s))


def _contour(
    low: float,
    high: float,
    ratio: Ratio,
    size: Callable[[np.ndarray], np.ndarray],
) -> tuple[float, float]:
    """Abscissa, off the whole numbers, and step of the rule for an integrand of log-size `size` [N, J] times F*."""
    while True:
        c, order = contour.candidates(low, high, floor=low, poles=0, spread=1.0)
        good = np.abs(c - np.round(c)) > min(0.02, 0.1 * (high - low))
        c, order = c[good], order[good]
        with np.errstate(divide="ignore"):
            found = np.log(np.abs(_transform(ratio, c))) + size(c)
        usable = np.isfinite(found).all(axis=0)
        if usable.sum() >= _LEAST:
            break
        if low > -_NARROWEST:
            raise PrecisionError("the weights reach too far for the means of their logarithms")
        low = 0.25 * low
    table = contour.Contours(c[usable], order[usable], found[:, usable], plain=0)
    line, step, *_ = table.choose(np.zeros(1))[0]
    return float(table.abscissa[line]), step


class Ratios:
    """E[g h F(w_1/S_{-1})] by Mellin–Parseval, on one contour for each K."""

    def __init__(self, engine: FiniteK):
        self.engine: FiniteK = engine
        self.law: Any = engine.law
        self._log_t, self._step = engine.grid.log_t, engine.grid.step

    def mean(self, low: float, ratio: Ratio, factors: tuple[Any, Any]) -> Bounded:
        """The mean for each K: [N, nK, F].

        Formula: weight-ratio.

        Args:
            low: the lower end of the strip of F*.
            ratio: F*(s)/(Γ(s)Γ(-s)).
            factors: g and h.
        """
        power, law = self.engine.power(1), self.law
        known: dict[Any, Any] = {}
        phases: dict[Any, np.ndarray] = {}  # of the grid in log t, which K = 2 does without
        found = []
        for i, k in enumerate(self.engine.particles):
            end = max(low, -law.max_power, (k - 1.0) * law.min_power)
            if k == 2.0:  # one other weight, whose moments are known
                c, step = _contour(end, 0.0, ratio, lambda c: law.log_moment(-c) + law.log_moment(c))
            else:
                c, step = _contour(end, 0.0, ratio, lambda c, i=i: self._size(c, power.value[:, i]))
            if (c, step) not in known:
                s = c + 1j * contour.ordinates(step, _TRUNCATION)
                known[c, step] = s, *_complex_moment(law, -s, factors)
            s, moment, moment_error = known[c, step]
            if k == 2.0:
                of_sum, slack = (part[..., 0] for part in _complex_moment(law, s, ()))
            else:
                if (c, step) not in phases:
                    phases[c, step] = np.exp(-np.multiply.outer(self._log_t, s))
                of_sum, slack = self._sum_moment(s, phases[c, step], power[:, i])
            factor = _transform(ratio, s) * (step / np.pi)
            weight, bound = (
                (factor * of_sum)[:, None],
                (np.abs(factor) * (slack + 32 * EPS * np.abs(of_sum)))[:, None],
            )
            value = np.real(weight @ moment)[:, 0]
            found.append(Bounded(value, (bound @ np.abs(moment) + np.abs(weight) @ moment_error)[:, 0]))
        return stack(found, axis=1)

    def _size(self, c: np.ndarray, power: np.ndarray) -> np.ndarray:
        """Log of E[w^{-c}] E[S_{-1}^c] [N, J]; infinite where the grid ends too early for the second."""
        terms = np.exp(-np.multiply.outer(self._log_t, c))  # [T, J]
        sums, last = power @ terms, power[:, -1:] * terms[-1]
        with np.errstate(divide="ignore"):
            size = self.law.log_moment(-c) + np.log(sums) - loggamma(-c).real
        return np.where(last <= EPS * sums, size, np.inf)

    def _sum_moment(self, s: np.ndarray, phases: np.ndarray, power: Bounded) -> tuple[np.ndarray, np.ndarray]:
        """E[S_{-1}^s] for complex s, and a bound on its error: [N, S]."""
        h, size_t, distance = self._step, np.abs(phases[:, 0]), np.abs(self._log_t)
        scale = np.full(phases.shape, h, dtype=complex)
        scale[0] /= -np.expm1(h * s)  # all points below the grid, where Λ^{K-1} is 1
        inverse = np.exp(-loggamma(-s))
        slack = ((power.error + EPS * (40.0 + distance) * power.value) * size_t) @ np.abs(scale)
        slack = slack + EPS * np.abs(np.imag(s)) * ((power.value * distance * size_t) @ np.abs(scale))
        # the rule in log t, relative to |Γ(-s)|
        alias = sum(
            np.exp(np.real(loggamma(-s + 2j * np.pi * m / h) - loggamma(-np.real(s)))) for m in (-1, 1)
        )
        slack = slack + alias * ((power.value * size_t) @ np.abs(scale))
        return inverse * (power.value @ (scale * phases)), np.abs(inverse) * slack


def _complex_moment(law: Any, s: np.ndarray, factors: tuple[Any, ...]) -> tuple[np.ndarray, np.ndarray]:
    """E[w^s Π g] for complex s [S] of one real part, and a bound on its error: [N, S, F]."""
    if isinstance(law, DiscreteLaw):
        return law.complex_moment(float(np.real(s[0])), np.imag(s), factors)
    moment = np.exp(law.log_moment(s))[:, :, None]
    if not factors:
        return moment, np.abs(moment) * law.log_moment_error(s)[:, :, None]
    mean = TiltedNoise(law.beta, law.h, s).expectation(factors)
    error = law.log_moment_error(s)[:, :, None] * np.abs(mean) + EPS * law.sizes(s, factors)
    return moment * mean, np.abs(moment) * error
