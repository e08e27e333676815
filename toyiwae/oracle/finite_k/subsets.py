"""Variance of the average of a self-normalised gradient over all subsets of m of K particles, at any K.

The average is a U-statistic; with `Δ_A = Σ_{k∈A} w_k g_k / S_A` and subsets that share c of their particles,

    Var[mean_A Δ_A] = Σ_{c≥1} H_c ζ_c,     ζ_c = Cov[Δ_A, Δ_B], |A∩B| = c,     H_c = C(m,c) C(K-m,m-c) / C(K,m),

where no ζ_c depends on K (hoeffding1948statistics). ζ_m is the variance of a group of m; for c < m, with `Λ` the
transform of w, `G(t) = t E[w g e^{-tw}]`, `Q(t) = t² E[w² g² e^{-tw}]`, `s = t + u`, `r = t/s` and `p = u/s`,

    E[Δ_A Δ_B] = ∬ { rp [c Q(s) Λ(s)^{c-1} + c(c-1) G(s)² Λ(s)^{c-2}] (Λ(t)Λ(u))^{m-c}
                     + c(m-c) G(s) Λ(s)^{c-1} [r Λ(t) G(u) + p Λ(u) G(t)] (Λ(t)Λ(u))^{m-c-1}
                     + (m-c)² G(t) G(u) Λ(s)^c (Λ(t)Λ(u))^{m-c-1} } dt/t du/u,

less the product of the means under the integral. One rule in log u and in the lag between log t and log u serves all c.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import comb
from typing import Any

import numpy as np

from toyiwae.oracle.finite_k.bounds import FiniteK, common_grid
from toyiwae.oracle.finite_k.gradients import GradientEngine, covariance_of_one
from toyiwae.oracle.laws.bounded import EPS, Bounded, better, concatenate, matmul, stack
from toyiwae.oracle.laws.grid import STEP, Grid
from toyiwae.oracle.laws.protocol import Law

_ROUNDING = 4 * EPS
_LEBESGUE = 8.0  # what an interpolated value is off by, relative to the largest error of the values
_FAR = 150.0  # log t at which e^-t is 0
_ENDS = 10.0  # times the integrand at an end bounds what is beyond it


def variance(law: Law, g: Any, particles: Sequence[int], size: int) -> Bounded:
    """Var of the average of `Σ_{k∈A} w_k g_k / S_A` over subsets A of `size` particles, for each K: [N, nK, F].

    Formula: subsets.

    Args:
        law: that of w.
        g: a polynomial of the noise.
        particles: K, none below `size`.
        size: m.
    """
    g = g.centred
    parts = {1: g}
    if size == 1:
        return stack([covariance_of_one(law, parts, parts, k)[:, 0] for k in particles], axis=1)
    whole = GradientEngine(law, [size]).covariance(parts, parts)  # ζ_m [N, 1, F]
    shared = (
        whole if all(k == size for k in particles) else concatenate([_shared(law, g, size), whole], axis=1)
    )
    first = size + 1 - shared.shape[1]
    weights = np.array([[_chance(k, size, c) for c in range(first, size + 1)] for k in particles])
    return matmul(Bounded.rounded(weights), shared, 0.0)


def _chance(k: int, size: int, c: int) -> float:
    """H_c: that two subsets, drawn apart, share c particles."""
    return comb(size, c) * comb(k - size, size - c) / comb(k, size)


def _shared(law: Law, g: Any, size: int) -> Bounded:
    """ζ_c for c = 1, ..., m-1: [N, m-1, F]."""
    around = common_grid(law, [2, size])  # at its ends every transform has fallen
    grid = Grid.spanning(around.log_t[0] + 1e-3, around.log_t[-1] - 1e-3, 0.5 * STEP)
    total: Any = 0
    largest = 0.0
    for part, terms in _lags(law, g, size, grid):
        total = part + total
        largest = np.maximum(largest, terms)
        if (terms <= EPS / 16 * largest).all():
            break
    return total.widened(2.0 / np.expm1(STEP) * terms + _ROUNDING * np.abs(total.value))


def _lags(law: Law, g: Any, size: int, grid: Grid) -> Iterator[tuple[Bounded, np.ndarray]]:
    """What each lag adds to every ζ_c, and the sizes of its terms: [N, m-1, F] each."""
    engine = FiniteK(law, [size], grid)
    decay = (-engine.t).exp()
    away = better(engine.deviation, engine.get(0).value[..., 0] - decay)[
        ..., None
    ]  # Λ - e^-t, small at both ends
    first, second = engine.get(1, g).value, engine.get(2, g, g).value
    curves = [_Curve(x, grid.log_t, grid.step) for x in (away, first, second)]
    base, first = (away + decay[:, None])[:, ::2], first[:, ::2]
    log_t, c = grid.log_t[::2], np.arange(1.0, size)[:, None]
    for lag in range(len(log_t)):
        ratio = np.exp(-lag * STEP)
        r, p, by = 1.0 / (1.0 + ratio), ratio / (1.0 + ratio), np.log1p(ratio)
        joint, both, again = (curve.shifted(by)[:, lag:] for curve in curves)
        sums = Bounded.rounded(np.exp(np.minimum(log_t[lag:] + by, _FAR)), 4.0)
        joint = (joint + (-sums).exp()[:, None]).clip(0.0, 1.0)
        large, small = slice(lag, None), slice(None, len(log_t) - lag)
        a, b, one, other = base[:, large], base[:, small], first[:, large], first[:, small]
        apart, pair = a * b, one * other
        powers = [list(accumulate([x[..., 0]] * (size - 1), Bounded.__mul__)) for x in (joint, apart)]
        together, alone = ([Bounded.exact(np.ones(x[0].shape)), *x] for x in powers)
        weight = stack([together[n - 1] * alone[size - n - 1] for n in range(1, size)], axis=1)
        terms = [
            (weight, apart * again * (r * p), c),
            (weight, both * (a * other * r + b * one * p), c * (size - c)),
            (weight, joint * pair, (size - c) ** 2),
            (alone[size - 1][:, None] * np.ones((1, size - 1, 1)), pair, -float(size**2) * np.ones_like(c)),
        ]
        if size > 2:
            twice = [together[n - 2] * alone[size - n] for n in range(2, size)]
            twice = stack([twice[0] * 0.0, *twice], axis=1)
            terms.append((twice, both * both * (r * p), c * (c - 1.0)))
        yield _summed(terms, STEP**2 * (2.0 if lag else 1.0))


class _Curve:
    """A function f of log t on a uniform grid, small at both ends: its values between the points by Fourier's series.

    Transforms of `e^{-tw}` are analytic to a distance of π/2 from the real axis, so that their spectra have fallen to
    e^{-π²/(2h)}, 4e-20 for the step h, at the highest frequency of the grid. For small t, where f = O(t²), f/t serves.
    """

    def __init__(self, found: Bounded, log_t: np.ndarray, step: float):
        self._parts = [_Series(found, step), _Series(found * np.exp(-log_t[:, None]), step)]
        self._t = np.exp(log_t[::2, None])

    def shifted(self, by: float) -> Bounded:
        """The function at every second point, moved to the right: [N, T/2, F]."""
        plain, divided = (part.shifted(by) for part in self._parts)
        return better(plain, divided * (self._t * np.exp(by)))


class _Series:
    """The same by one series, with one error for all its values."""

    def __init__(self, found: Bounded, step: float):
        self._count = found.shape[1]
        self._spectrum = np.fft.rfft(found.value, axis=1)
        self._frequency = 2.0 * np.pi * np.fft.rfftfreq(self._count, step)[:, None]
        largest = np.abs(found.value).max(axis=1, keepdims=True)
        error = np.broadcast_to(found.error, found.shape).max(axis=1, keepdims=True)
        self._error = _LEBESGUE * error + 16 * EPS * largest

    def shifted(self, by: float) -> Bounded:
        """As of the curve."""
        value = np.fft.irfft(self._spectrum * np.exp(1j * self._frequency * by), self._count, axis=1)[:, ::2]
        return Bounded(value, np.broadcast_to(self._error, value.shape))


def _summed(terms: list[tuple[Bounded, Bounded, np.ndarray]], scale: float) -> tuple[Bounded, np.ndarray]:
    """Σ factor Σ_t weight · values, the ends added to its error, and Σ of absolute terms."""
    total, size = [], np.zeros(())
    for weight, values, factor in terms:
        found = matmul(weight, values, _ROUNDING)
        ends = sum(np.abs(weight.value[..., [i]] * values.value[:, None, i]) for i in (0, -1))
        total.append(found.widened(_ENDS * ends) * (factor * scale))
        size = size + np.abs(weight.value) @ np.abs(values.value) * np.abs(factor) * scale
    return sum(total[1:], total[0]), size
