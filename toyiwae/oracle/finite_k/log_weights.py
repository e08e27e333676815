"""Logarithms of normalised weights without cancellation, at any K: f(w̃) = -log(1 - w̃) - w̃ and its products.

With κ(y) = 1 - e^{-y} - y e^{-y}, a score g of mean 0, Λ the transform of w, and the means A_0, A, B of κ over one
particle of `toyiwae.oracle.finite_k.weight_kernels`,

    m = E[f(w̃) g]                = ∫ Λ^{K-1} A_0 dt/t
    E[f(w̃_1) g_1 g_2]            = ∫ Λ^{K-2} A_0 Λ_g dt/t
    E[f(w̃_1) g_1 w̃_2 h_2]        = ∫ Λ^{K-2} E[g k(tw)] t Λ_{1,h} dt/t,         k(y) = ∫_0^1 κ(py) e^{-(1-p)y} dp/p
    E[f(w̃_1) g_1 f(w̃_2) g_2]     = ∬ Λ(t+u)^{K-2} A(t,u) A(u,t) dt du/(tu),

and the terms of one particle twice are those of `toyiwae.oracle.finite_k.weight_ratios`. The double integral less m²
is of the order 1/K of either. It is taken under the integral, with ℓ = log Λ and λ = ℓ(t+u) - ℓ(t) - ℓ(u), as

    Λ(t+u)^{K-2} [A A' - A_0 A_0'] - Λ(t+u)^{K-2} expm1(ℓ(t) + ℓ(u) - (K-2)λ) A_0 A_0',

where nothing large is left to cancel: the variance of Σ f g keeps its relative accuracy at any K.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from toyiwae.oracle.finite_k import weight_ratios
from toyiwae.oracle.finite_k.atom_kernels import DiscreteKernels
from toyiwae.oracle.finite_k.bounds import FiniteK
from toyiwae.oracle.finite_k.weight_kernels import LOG_WEIGHT, MIXED, GaussianKernels
from toyiwae.oracle.laws.bounded import EPS, Bounded, concatenate, where
from toyiwae.oracle.laws.discrete import DiscreteLaw
from toyiwae.oracle.laws.grid import Grid

_TAIL = 40.0  # natural logarithm of the relative size at which a pair integral ends
_ROUNDING = 4 * EPS
_CHUNK = 8  # lags at a time
_TINY = 1e-300


class LogWeights:
    """Moments of Σ f(w̃_k) g_k for a score g with E[g] = 0 and each K ≥ 2; see the module's text.

    Args:
        engine: the integrals of the law for these K, on a uniform grid.
        score: g.
        zeroth: its transform E[g e^{-tw}] on the engine's grid [N, T, F].
    """

    def __init__(self, engine: FiniteK, score: Any, zeroth: Bounded):
        self.engine, self.score, self.zeroth = engine, score, zeroth
        self._k = engine.particles[:, None]
        kernels: Any = DiscreteKernels if isinstance(engine.law, DiscreteLaw) else GaussianKernels
        self._ratios = weight_ratios.Ratios(engine)
        self._make = lambda grid: kernels(engine.law, grid)

    @cached_property
    def _single(self) -> Bounded:
        """A_0 on the engine's grid: [N, T, F]."""
        return self._make(self.engine.grid).single(LOG_WEIGHT, self.score)

    @cached_property
    def mean(self) -> Bounded:
        """E[Σ f g]: [N, nK, F]."""
        return self.engine.integral(self.engine.weights[0], self._single, 3)

    @cached_property
    def var(self) -> Bounded:
        """Var[Σ f g]: [N, nK, F]. Formula: log-weights."""
        alone = self._ratios.mean(-4.0, weight_ratios.square, (self.score, self.score))
        pairs = self._pair_covariance()
        return self._k * alone - self.mean * self.mean * (1.0 / self._k) + (self._k * (self._k - 1.0)) * pairs

    @cached_property
    def with_scores(self) -> Bounded:
        """E[Σ f g Σ g]: [N, nK, F]."""
        alone = self._ratios.mean(-2.0, weight_ratios.first_power, (self.score, self.score))
        return self._k * alone + self.engine.integral(self.engine.weights[1], self._single * self.zeroth, 4)

    def with_weights(self, other: Any, first: Bounded, mean: Bounded) -> Bounded:
        """Cov[Σ f g, Σ w̃ h]: [N, nK, F].

        Args:
            other: h.
            first: its transform t E[w h e^{-tw}] on the engine's grid [N, T, F].
            mean: E[Σ w̃ h] [N, nK, F].
        """
        alone = self._ratios.mean(-3.0, weight_ratios.mixed_power, (self.score, other))
        mixed = self._make(self.engine.grid).single(MIXED, self.score)
        return (
            self._k * alone
            + self.engine.integral(self.engine.weights[1], mixed * first, 5)
            - self.mean * mean
        )

    # pairs of particles ----------------------------------------------------------------------------------------------

    def _pair_covariance(self) -> Bounded:
        """Cov[f(w̃_1) g_1, f(w̃_2) g_2]: [N, nK, F]."""
        two = self.engine.particles == 2.0
        single = self.mean / self._k
        parts = []
        if two.any():
            parts.append(
                weight_ratios.two_particles(self.engine.law, self.score)[:, None]
                - single[:, two] * single[:, two]
            )
        if not two.all():
            parts.append(self._double_integral(np.flatnonzero(~two)))
        order = np.argsort(np.r_[np.flatnonzero(two), np.flatnonzero(~two)])
        return concatenate(parts, axis=1)[:, order]

    def _double_integral(self, many: np.ndarray) -> Bounded:
        """The same for the K ≥ 3 at these positions, by one rule in log u and in the lag between log t and log u."""
        grid, slope = self.engine.grid, min(2.0, self.engine.law.max_power)
        places = self._places(many)
        at = grid.log_t[places]
        kernels = self._make(Grid.spanning(at[0] + 1e-3, at[-1] - 1e-3, grid.step))
        total: Any = 0
        largest, first = 0.0, 0
        while first < len(grid.log_t):
            lags = np.arange(first, first + _CHUNK)
            parts = self._lags(kernels, lags, places, many)
            for part, size in parts:
                total = part + total
                largest = np.maximum(largest, size)
            first += _CHUNK
            if first * grid.step > 4.0 and all((size <= EPS / 16 * largest).all() for _, size in parts):
                break
        return total.widened(2.0 / np.expm1(slope * grid.step) * size + 2 * _ROUNDING * np.abs(total.value))

    def _places(self, many: np.ndarray) -> np.ndarray:
        """Points u of the grid that a pair integral needs, with t ≤ u.

        Its terms are of the size of Λ(u)^{K-2} A_0(u) times A_0(u) or, for t about 1/K, Λ(u) or O((Ku)^{-2}). Below
        1/K both factors fall like u², but under weights of large variance more slowly over many decades.
        """
        log_t, k = self.engine.grid.log_t, self._k[many]
        single = np.abs(self._single.value)[:, None]
        power = [self.engine.power(drop).value[:, many, :, None] for drop in (1, 2)]
        far = 1.0 / (1.0 + np.minimum(k * self.engine.t.value, 1e150)[..., None] ** 2)
        falling = single * np.maximum(
            power[0],
            power[1] * np.maximum(single / np.maximum(single.max(axis=2, keepdims=True), 1e-300), far),
        )
        rising = (single - self._single.error[:, None]).clip(0.0) * power[0]
        falling, rising = (
            (size / np.maximum(size.max(axis=2, keepdims=True), 1e-300)).max(axis=(0, 1, 3))
            for size in (falling, rising)
        )
        # where u⁴ has fallen, which is enough for light weights, and for equal ones, whose A_0 is noise
        below = np.searchsorted(log_t, -np.log(k.max()) - 0.25 * _TAIL)
        first = np.min(np.flatnonzero(rising > np.exp(-0.5 * _TAIL)), initial=below)
        last = np.max(np.flatnonzero(falling > np.exp(-_TAIL)), initial=first + 1)
        return np.arange(first, last + 1)

    def _lags(
        self, kernels: Any, lags: np.ndarray, places: np.ndarray, many: np.ndarray
    ) -> list[tuple[Bounded, np.ndarray]]:
        """What some lags add, and its size: [N, nK, F] each."""
        other = np.maximum(places - lags[:, None], 0)
        inside = places >= lags[:, None]
        k, h = self._k[many] - 2.0, self.engine.grid.step
        logs = self.engine.log_base[0]
        joint, direct_joint = kernels.joint(lags)
        first, second, direct = kernels.pairs(self.score, lags)
        found = []
        for i, lag in enumerate(lags):
            small, large = self._single[:, other[i]] * inside[i][:, None], self._single[:, places]
            far = first[i] * (self.zeroth[:, other[i]] + large + second[i]) - small * large
            near = first[i] * second[i] - small * second[i] - first[i] * large
            product = where(direct[:, None], far, near)
            together, change = _joint(logs[:, other[i]], logs[:, places], joint[i], direct_joint)
            weight = _power(together, k) * (h * h * (2.0 if lag else 1.0))
            apart = (logs[:, other[i]] + logs[:, places])[:, None] - change[:, None] * k
            moved, single = weight * (-apart.clip(high=0.0).expm1()).clip(0.0, 1.0), small * large
            part = weight @ product + moved @ single
            size = weight.value @ np.abs(product.value) + moved.value @ np.abs(single.value)
            ends = [0, -1]  # beyond which terms fall further
            sizes = [np.abs(x.value[:, ends]) + x.error[:, ends] for x in (product, single)]
            cut = weight.value[..., ends] @ sizes[0] + moved.value[..., ends] @ sizes[1]
            found.append((part.widened(10.0 * cut), size))
        return found


def _joint(small: Bounded, large: Bounded, joint: Bounded, direct: np.ndarray) -> tuple[Bounded, Bounded]:
    """Log Λ(t+u), and λ ≥ 0 that it exceeds log Λ(t) + log Λ(u) by, which weights are positively correlated: [N, T].

    What round-off hides is known from above alone, to within a factor of 2; the error of λ is infinite there.
    """
    apart = small + large
    hidden = direct & (joint.value < 2.0 * joint.error)
    known = where(direct & ~hidden, joint, 1.0).log()
    least = np.log(np.maximum(joint.error, _TINY))
    log_joint = Bounded(
        np.where(hidden, np.minimum(least, 0.0), known.value), np.where(hidden, 1.1, known.error)
    )
    with np.errstate(over="ignore", invalid="ignore"):
        covariance = (joint - small.expm1() * large.expm1()) * (-where(direct, 0.0, apart)).exp()
    gain = where(direct, 0.0, covariance.clip(0.0)).log1p()
    change = where(direct, (log_joint - apart).clip(0.0), gain)
    change = Bounded(change.value, np.where(hidden, np.inf, change.error))
    return where(direct, log_joint, apart + gain), change


def _power(logs: Bounded, k: np.ndarray) -> Bounded:
    """e^{k x} for x ≤ 0, which is at most e^{k (x + δ)} and 1: [N, nK, T]."""
    x, error = logs.value[:, None], k * logs.error[:, None]
    with np.errstate(over="ignore", invalid="ignore"):
        value, upper = np.exp(k * x), np.exp(np.minimum(k * x + error, 0.0))
        close = value * (np.expm1(np.minimum(error, 1.0)) + EPS * (2.0 - k * x))
    return Bounded(value, np.where(error < 0.5, close, np.maximum(upper, value)))
