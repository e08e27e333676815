"""Exact finite-K truth from a law: bound, expected sample size, and mean and variance of any Form's gradient.

With `S = Σ_k w_k` of K independent weights, `E e^{-tS} = Λ(t)^K` and `S^{-n} = 1/Γ(n) ∫ t^{n-1} e^{-tS} dt` give

    L_K - log Z              = ∫ (e^{-Kt} - Λ(t)^K) dt/t
    E[Σ_k w_k^r g_k / S^r]   = K/Γ(r) ∫ t^r Λ_{r,g} Λ^{K-1} dt/t
    E[Σ_k w_k^r f_k Σ_l w_l^s g_l / S^{r+s}]
                             = K/Γ(r+s) ∫ t^{r+s} [Λ_{r+s,fg} Λ^{K-1} + (K-1) Λ_{r,f} Λ_{s,g} Λ^{K-2}] dt/t

each a sum over one grid in log t that serves every K.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property

import numpy as np
from scipy.special import gammaln, loggamma

from toyiwae.errors import PrecisionError
from toyiwae.oracle.laws.bounded import EPS, Bounded
from toyiwae.oracle.laws.grid import Grid
from toyiwae.oracle.laws.protocol import Law
from toyiwae.oracle.laws.ranges import TAIL, common_grid, smoothness_of

_FAR = 150.0  # log t from which e^-t is 0 and powers of t are not needed
_NEVER = -1e30  # stands for log 0 where it is multiplied by K


class FiniteK:
    """All integrals of one law for a list of K ≥ 2; transforms are computed once, in batches by power.

    Arrays have the rows of data in front: `[N, nK]` for bounds, `[N, nK, F]` for gradients.
    """

    def __init__(self, law: Law, particles: Sequence[int], grid: Grid | None = None):
        self.law, self.particles = law, np.asarray(particles, dtype=float)
        self.grid = grid or common_grid(law, particles)
        self.t = np.exp(np.minimum(self.grid.log_t, _FAR))

    # the base transform ----------------------------------------------------------------------------------------------

    @cached_property
    def deviation(self) -> Bounded:
        """E[e^{-tw}] - e^{-t}: [N, T]; where it cannot be had, the plain transform has to do."""
        try:
            return self.law.deviation(0, self.grid)
        except PrecisionError:
            nothing = np.zeros((len(self.law), len(self.t)))
            return Bounded(nothing, np.full_like(nothing, np.inf))

    @cached_property
    def weighted_deviation(self) -> Bounded:
        """T (E[w e^{-tw}] - e^{-t}): [N, T]."""
        return self.law.deviation(1, self.grid)

    @cached_property
    def log_base(self) -> tuple[Bounded, Bounded]:
        """Log Λ(t), and log Λ(t) + t with a relative accuracy of its own, with absolute errors: [N, T].

        Two ways to either: from the excess over e^-t (small spread of the weights), and from the plain transform
        (far-off proposals, whose Λ stays near 1 while e^-t falls; large t). At every t that of the smaller error.
        """
        excess, error = self.deviation.value, self.deviation.error
        t, plain = self.t, self.law.transform(0, [()], self.grid)[0]
        rest, rest_error = plain.remainder.value[..., 0], plain.remainder.error[..., 0]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            value = np.exp(-t) + np.maximum(excess, 0.0)
            gain = np.exp(np.minimum(t, 30.0)) * np.maximum(excess, 0.0)
            near = (t < 2.0) | ((t < 30.0) & (gain < 1.0))
            beyond = np.where(near, np.log1p(gain), np.log(value) + t)
            log_value = np.where(near, beyond - t, np.log(value))
            beyond_error = error / value + np.where(near, 4 * EPS * beyond, EPS * np.abs(log_value))
            log_error = beyond_error + EPS * np.where(near, t, 0.0)
            other = np.where(plain.split, np.log1p(np.maximum(rest, -1.0)), np.log(np.maximum(rest, 0.0)))
            other_error = rest_error / np.where(plain.split, 1.0 + rest, rest) + EPS * np.abs(other)
            log_error, other_error = (
                np.where(np.isfinite(e), np.abs(e), np.inf) for e in (log_error, other_error)
            )
            beyond_error = np.where(np.isfinite(beyond_error), beyond_error, np.inf)
        logs = np.where(other_error < log_error, other, log_value)
        far = other_error + EPS * t < beyond_error
        sums = np.where(far, other + t, beyond)
        sums_error = np.where(far, other_error + EPS * t, beyond_error)
        return (
            Bounded(np.clip(logs, _NEVER, 0.0), np.minimum(np.minimum(log_error, other_error), 1.0)),
            Bounded(np.maximum(sums, 0.0), np.minimum(sums_error, 1.0)),
        )

    def power(self, drop: int) -> Bounded:
        """Λ^(K-drop) for each K, 1 where none are left: [N, nK, T]."""
        log_value = self.log_base[0]
        exponent = np.maximum(self.particles - drop, 0.0)[:, None]
        power = np.exp(exponent * log_value.value[:, None, :])
        return Bounded(power, power * np.minimum(exponent * log_value.error[:, None, :], 1.0))

    @cached_property
    def weights(self) -> tuple[Bounded, Bounded]:
        """K h Λ^(K-1) and K(K-1) h Λ^(K-2), h the distances of the grid: [N, nK, T]."""
        k, step = self.particles[:, None], self.grid.weight
        return self.power(1) * (k * step), self.power(2) * (k * (k - 1) * step)

    @cached_property
    def difference(self) -> Bounded:
        """Λ^K - e^{-Kt}: [N, nK, T]."""
        log_value, beyond = self.log_base
        k, t = self.particles[:, None], self.t
        power, decay = np.exp(k * log_value.value[:, None, :]), np.exp(-k * t)
        grown = k * beyond.value[:, None, :]
        close = grown < 1.0
        value = np.where(close, decay * np.expm1(np.where(close, grown, 0.0)), power - decay)
        slack = np.where(close, beyond.error[:, None, :], log_value.error[:, None, :])
        error = np.maximum(power, decay) * np.minimum(k * slack, 1.0)
        size = np.where(close, np.abs(value), power + decay)
        return Bounded(value, error + EPS * (4 + np.minimum(k * t, 50.0)) * size)

    # bound and expected sample size ----------------------------------------------------------------------------------

    def gap(self) -> Bounded:
        """Log Z - L_K of each K (in units of the law: for w^e, of its own mean): [N, nK]."""
        value, error = self.difference.value, self.difference.error
        weight = self.grid.weight
        ends = 10.0 * (np.abs(value[..., 0]) + self.grid.coarsest * np.abs(value[..., -1]))
        total = value @ weight
        return Bounded(total, error @ weight + ends + rule_error(3, self.grid.step) * total)

    def ess(self) -> Bounded:
        """Expected effective sample size E[(Σw)²/Σw²] of each K: [N, nK]. It exists whatever moments w has."""
        law, k = self.law, self.particles[:, None]
        slope = min(1.0, 0.5 * law.max_power)
        high = law.upper_log_t(TAIL / (self.particles.min() - 1), p=2.0)
        low = -2.0 * np.log(self.particles.max()) - TAIL / slope
        grid = Grid.covering(low, high + 4.0, smoothness_of(law, self.particles, 2.0))
        base, one, two = (law.transform(power, [()], grid, p=2.0)[0] for power in (0, 1, 2))
        value = base.value.value[..., 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            plain = np.log(np.maximum(value, 0.0))
            log_value = np.where(base.split, np.log1p(np.maximum(base.remainder.value[..., 0], -1.0)), plain)
            relative = np.where(value > 0, base.remainder.error[..., 0] / value, 1.0)[:, None, :]
        log_value = np.maximum(log_value, _NEVER)[:, None, :]
        first = k * np.exp((k - 1) * log_value)
        second = k * (k - 1) * np.where(k > 2, np.exp((k - 2) * log_value), 1.0)
        (a, a_error), (b, b_error) = (
            (x.value.value[..., 0][:, None, :], x.value.error[..., 0][:, None, :]) for x in (two, one)
        )
        integrand = first * a + second * b**2
        error = np.minimum((k - 1) * relative, 1.0) * np.abs(integrand)
        error = error + first * a_error + 2 * second * b * b_error
        ends = np.abs(integrand[..., 0]) + grid.coarsest * np.abs(integrand[..., -1])
        total = integrand @ grid.weight
        rule = rule_error(1, grid.step) + 4 * EPS
        return Bounded(total, error @ grid.weight + 10.0 * ends / slope + rule * total)


@cache
def rule_error(n: int, step: float) -> float:
    """Relative error of the trapezoidal rule for ∫ t^n e^{-tS} dt/t in log t: 2|Γ(n + 2πi/h)|/Γ(n), whatever S.

    A factor E[f e^{-tw}] with E[f] = 0 begins with t: n counts one more for each, and two for Λ^K - e^{-Kt}.
    """
    return float(2.0 * np.exp(loggamma(n + 2j * np.pi / step).real - gammaln(n)))
