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

from toyiwae.oracle.finite_k.bounds import FiniteK
from toyiwae.oracle.laws import contour
from toyiwae.oracle.laws.bounded import EPS, Bounded
from toyiwae.oracle.laws.discrete import DiscreteLaw
from toyiwae.oracle.laws.tilted import TiltedNoise

_EULER = float(np.euler_gamma)
_TRUNCATION = 15.0  # ordinate at which |F*(s)/Γ(-s)| has fallen

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
    end = min(2.0, law.max_power, -law.min_power)

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
    c, order = contour.candidates(low, high, floor=low, poles=0, spread=1.0)
    good = np.abs(c - np.round(c)) > min(0.02, 0.1 * (high - low))
    c, order = c[good], order[good]
    with np.errstate(divide="ignore"):
        found = np.log(np.abs(_transform(ratio, c))) + size(c)
    usable = np.isfinite(found).all(axis=0)
    table = contour.Contours(c[usable], order[usable], found[:, usable], plain=0)
    line, step, *_ = table.choose(np.zeros(1))[0]
    return float(table.abscissa[line]), step


class Ratios:
    """E[g h F(w_1/S_{-1})] by Mellin–Parseval, on one contour for each K."""

    def __init__(self, engine: FiniteK):
        self.engine, self.law = engine, engine.law
        self._log_t, self._step = engine.grid.log_t, engine.grid.step

    def mean(self, low: float, ratio: Ratio, factors: tuple[Any, Any]) -> Bounded:
        """The mean for each K: [N, nK, F].

        Args:
            low: the lower end of the strip of F*.
            ratio: F*(s)/(Γ(s)Γ(-s)).
            factors: g and h.
        """
        power = self.engine.power(1)
        known: dict[Any, Any] = {}
        found = []
        for i, k in enumerate(self.engine.particles):
            end = max(low, -self.law.max_power, (k - 1.0) * self.law.min_power)
            c, step = _contour(end, 0.0, ratio, lambda c, i=i: self._size(c, power.value[:, i]))
            if (c, step) not in known:
                s = c + 1j * contour.ordinates(step, _TRUNCATION)
                moment, error = _complex_moment(self.law, -s, factors)
                known[c, step] = s, moment, error, np.exp(-np.multiply.outer(self._log_t, s))
            found.append(self._integral(ratio, step, known[c, step], power[:, i]))
        values, errors = zip(*found, strict=True)
        return Bounded(np.stack(values, axis=1), np.stack(errors, axis=1))

    def _size(self, c: np.ndarray, power: np.ndarray) -> np.ndarray:
        """Log of E[w^{-c}] E[S_{-1}^c] [N, J]; infinite where the grid ends too early for the second."""
        terms = np.exp(-np.multiply.outer(self._log_t, c))  # [T, J]
        sums, last = power @ terms, power[:, -1:] * terms[-1]
        with np.errstate(divide="ignore"):
            size = self.law.log_moment(-c) + np.log(sums) - loggamma(-c).real
        return np.where(last <= EPS * sums, size, np.inf)

    def _integral(self, ratio: Any, step: float, known: Any, power: Bounded) -> tuple[np.ndarray, np.ndarray]:
        s, moment, moment_error, phases = known
        h, size_t = self._step, np.abs(phases[:, 0])
        scale = np.full(phases.shape, h, dtype=complex)
        scale[0] /= -np.expm1(h * s)  # all points below the grid, where Λ^{K-1} is 1
        factor = _transform(ratio, s) * np.exp(-loggamma(-s))
        of_sum = power.value @ (scale * phases)  # [N, S]
        error_t = power.error + EPS * (8.0 + np.abs(self._log_t)) * power.value
        sizes = (power.value * size_t) @ np.abs(scale)
        slack = (error_t * size_t) @ np.abs(scale) + EPS * np.abs(s.imag) * (
            (power.value * np.abs(self._log_t) * size_t) @ np.abs(scale)
        )
        # the rule in log t, relative to |Γ(-s)|
        alias = sum(np.exp(loggamma(-s + 2j * np.pi * m / h).real - loggamma(-s.real).real) for m in (-1, 1))
        slack = slack + sizes * alias + 32 * EPS * sizes
        weight = (factor * of_sum)[:, None, :] * (step / np.pi)  # [N, 1, S]
        value = np.real(weight @ moment)[:, 0]
        bound = np.abs(factor) * slack * (step / np.pi)
        error = (bound[:, None, :] @ np.abs(moment) + np.abs(weight) @ moment_error)[:, 0]
        return value, error


def _complex_moment(law: Any, s: np.ndarray, factors: tuple[Any, ...]) -> tuple[np.ndarray, np.ndarray]:
    """E[w^s Π g] for complex s [S], and a bound on its error: [N, S, F]."""
    if isinstance(law, DiscreteLaw):
        prob, log_w = np.exp(law.log_prob), law.log_w
        values = prob * np.prod([g.plain for g in factors], axis=0)  # [F, n]
        weight = np.exp(np.multiply.outer(s, log_w))
        size = np.abs(weight) * (16.0 + np.abs(s)[:, None] * np.abs(log_w))
        return (weight @ values.T)[None], EPS * (size @ np.abs(values).T)[None]
    moment, mean = np.exp(law.log_moment(s))[:, :, None], TiltedNoise(law.beta, law.h, s).expectation(factors)
    error = law.log_moment_error(s)[:, :, None] * np.abs(mean) + EPS * law.sizes(s, factors)
    return moment * mean, np.abs(moment) * error
