"""Exact finite-K truth from a law: bound, expected sample size, and mean and variance of any Form's gradient.

With `S = Σ_k w_k` of K independent weights, `E e^{-tS} = Λ(t)^K` and `S^{-n} = 1/Γ(n) ∫ t^{n-1} e^{-tS} dt` give

    L_K - log Z              = ∫ (e^{-Kt} - Λ(t)^K) dt/t
    E[Σ_k w_k^r g_k / S^r]   = K/Γ(r) ∫ t^r Λ_{r,g} Λ^{K-1} dt/t
    E[Σ_k w_k^r f_k Σ_l w_l^s g_l / S^{r+s}]
                             = K/Γ(r+s) ∫ t^{r+s} [Λ_{r+s,fg} Λ^{K-1} + (K-1) Λ_{r,f} Λ_{s,g} Λ^{K-2}] dt/t

each a sum over one grid in log t that serves every K.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, cached_property
from typing import Any

import numpy as np
from scipy.special import gammaln, loggamma

from toyiwae.errors import PrecisionError
from toyiwae.memory import blocks
from toyiwae.oracle.laws.bounded import Bounded, better, concatenate, matmul, where
from toyiwae.oracle.laws.grid import UNIFORM_TO, Grid, Smoothness, Transform
from toyiwae.oracle.laws.protocol import Function, Law

TAIL = 44.0
"""Natural logarithm of the relative size at which a grid ends."""


def common_grid(law: Law, particles: Sequence[int]) -> Grid:
    """The part of the log t axis that carries the integrals of all rows for these numbers of particles (at least 2)."""
    return Grid.covering(*_range(law, particles), smoothness_of(law, particles))


def smoothness_of(law: Law, particles: Sequence[int] | np.ndarray, p: float = 1.0) -> Smoothness | None:
    """How smooth powers up to K of the transforms of w^p are; None where nothing is known."""
    smooth = law.smoothness(p)
    return None if smooth is None else smooth.of_largest(float(max(particles)))


def _range(law: Law, particles: Sequence[int]) -> tuple[float, float]:
    high = law.upper_log_t(TAIL / (min(particles) - 1))
    return -np.log(float(max(particles))) - TAIL, high + 2.0


MOST_UNIFORM = 1000
"""Most points of a uniform grid. Time grows with their third power: with two latents, 910 take 12 s of CPU time."""


class Grids:
    """Grids for batches of rows: each no longer than its rows need, and one object for all that need about the same.

    Args:
        particles: the numbers of particles; those of 1 need no grid.
        uniform: whether the points must have one distance; then there are at most `MOST_UNIFORM`.
    """

    def __init__(self, particles: Sequence[int], *, uniform: bool = False):
        self._particles, self._uniform = [k for k in particles if k > 1], uniform
        self._known: dict[Any, Grid] = {}

    def __call__(self, law: Law) -> Grid | None:
        """The grid for these rows, or None where no K is above 1.

        Raises:
            PrecisionError: it would have too many points.
        """
        if not self._particles:
            return None
        low, high = _range(law, self._particles)
        smooth = None if self._uniform else smoothness_of(law, self._particles)
        high = 4.0 * np.ceil(high / 4.0) if high < UNIFORM_TO else _rounded(high)
        if smooth is not None and high >= UNIFORM_TO:
            scale = 2.0 ** np.floor(np.log2(smooth.scale)) if smooth.scale > 0.0 else 0.0
            smooth = Smoothness(4.0 * np.ceil(smooth.features / 4.0), scale)
        key = (high, smooth if high >= UNIFORM_TO else None)
        if key not in self._known:
            grid = Grid.covering(low, high, smooth)
            if self._uniform and len(grid.log_t) > MOST_UNIFORM:
                raise PrecisionError(
                    f"the weights reach over {low:.6g} < log t < {high:.6g}: integrals over pairs of particles would"
                    f" need {len(grid.log_t)}² points, more than {MOST_UNIFORM}² (the proposal is too wide for so few"
                    " particles)"
                )
            self._known[key] = grid
        return self._known[key]


def _rounded(high: float) -> float:
    """Rounded up to the next power of 2^(1/4), where that is finite."""
    return float(2.0 ** (np.ceil(4.0 * np.log2(high)) / 4.0)) if np.isfinite(high) else high


_FAR = 150.0  # log t from which e^-t is 0 and powers of t are not needed
_NEVER = (
    -1e70
)  # below every log Λ on a grid, which is at least -t; stands for log 0 where it is multiplied by K
_ENDS = 10.0  # times the integrand at an end bounds what is beyond it


class FiniteK:
    """All integrals of one law for a list of K ≥ 2; transforms are computed once, in batches by power.

    Arrays have the observations in front: `[N, nK]` for bounds, `[N, nK, F]` for gradients.
    """

    def __init__(self, law: Law, particles: Sequence[int], grid: Grid | None = None):
        self.law, self.particles = law, np.asarray(particles, dtype=float)
        self.grid = grid or common_grid(law, particles)
        self.t = Bounded.rounded(np.exp(np.minimum(self.grid.log_t, _FAR)))
        self._transforms: dict[tuple[float, frozenset], Transform] = {}

    # transforms ------------------------------------------------------------------------------------------------------

    def request(self, wanted: Sequence[tuple[int, tuple[Function, ...]]]) -> None:
        """Compute the transforms of `w^power Π factors` that are not known yet, all of one power at once."""
        batches: dict[int, dict[tuple, tuple[Function, ...]]] = {}
        for power, factors in wanted:
            key = _key(power, factors)
            if key not in self._transforms:
                batches.setdefault(power, {})[key] = factors
        for power, batch in batches.items():
            found = self.law.transform(power, list(batch.values()), self.grid)
            self._transforms.update(zip(batch, found, strict=True))

    def get(self, power: int, *factors: Function) -> Transform:
        """The transform of `w^power Π factors`: [N, T, F]."""
        key = _key(power, factors)
        if key not in self._transforms:
            self.request([(power, factors)])
        return self._transforms[key]

    def integral(self, weight: Bounded, values: Bounded, order: int) -> Bounded:
        """Σ_t weight · values: [N, nK, F]. Their product is a polynomial in t from t^order on, times e^{-tS}."""
        return matmul(weight, values, rule_error(order, self.grid.step))

    # the base transform ----------------------------------------------------------------------------------------------

    @cached_property
    def deviation(self) -> Bounded:
        """E[e^{-tw}] - e^{-t}, by Jensen's inequality not negative; unknown where it cannot be had: [N, T]."""
        try:
            return self.law.deviation(0, self.grid).clip(0.0)
        except PrecisionError:
            nothing = np.zeros((len(self.law), len(self.grid.log_t)))
            return Bounded(nothing, np.full_like(nothing, np.inf))

    @cached_property
    def weighted_deviation(self) -> Bounded:
        """T (E[w e^{-tw}] - e^{-t}): [N, T]."""
        return self.law.deviation(1, self.grid)

    @cached_property
    def log_base(self) -> tuple[Bounded, Bounded]:
        """Log Λ(t), and log Λ(t) + t with a relative accuracy of its own: [N, T].

        Formula: log-base.

        Two ways to either: from the deviation from e^-t (small spread of the weights), and from the plain transform
        (far-off proposals, whose Λ stays near 1 while e^-t falls; large t). At every t that of the smaller error.
        """
        t, size = self.t, self.t.value
        plain = self.get(0)
        rest = plain.remainder[..., 0]
        growth = self.deviation * where(size < 30.0, t, 0.0).exp()  # Λ e^t - 1
        near = (size < 2.0) | ((size < 30.0) & (growth.value < 1.0))
        direct = (self.deviation + (-t).exp()).log()
        ratio = where(near, growth.log1p(), direct + t)
        log_value = where(near, ratio - t, direct)
        other = where(plain.split, rest.log1p(), rest.log())
        return better(log_value, other).clip(_NEVER, 0.0), better(ratio, other + t).clip(low=0.0)

    @cached_property
    def _highest(self) -> np.ndarray:
        """What log Λ(t) is certainly not above, since Λ falls with t: [N, T]."""
        return _highest(self.log_base[0], self.grid)

    def power(self, drop: int) -> Bounded:
        """Λ^(K-drop) for each K, 1 where none are left: [N, nK, T]."""
        return self._each(lambda k: self._power(k - drop))

    def _power(self, exponents: np.ndarray) -> Bounded:
        """Λ^n for each n, 1 for those of 0 and below: [N, nK, T]."""
        return _powers(self.log_base[0], self._highest, exponents)

    def _each(self, function: Callable[[np.ndarray], Bounded], grid: Grid | None = None) -> Bounded:
        """A function of numbers of particles `[nK, 1]` and points of a grid: of as many K at a time as fit a cache."""
        k, points = self.particles[:, None], len((grid or self.grid).log_t)
        return concatenate([function(k[some]) for some in blocks(0, len(k), len(self.law) * points)], axis=1)

    @cached_property
    def weights(self) -> tuple[Bounded, Bounded]:
        """K h Λ^(K-1) and K(K-1) h Λ^(K-2), h the distances of the grid: [N, nK, T]."""
        step = self.grid.weight
        return (
            self._each(lambda k: self._power(k - 1) * (k * step)),
            self._each(lambda k: self._power(k - 2) * (k * (k - 1) * step)),
        )

    @cached_property
    def difference(self) -> Bounded:
        """Λ^K - e^{-Kt}, by Jensen's inequality not negative: [N, nK, T]."""

        def of(k: np.ndarray) -> Bounded:
            grown, decay = self.log_base[1][:, None] * k, (self.t * -k).exp()
            close = grown.value < 1.0
            value = where(close, where(close, grown, 0.0).expm1() * decay, self._power(k) - decay)
            return value.clip(0.0, np.exp(k * self._highest[:, None]))

        return self._each(of)

    # bound and expected sample size ----------------------------------------------------------------------------------

    def gap(self) -> Bounded:
        """Log Z - L_K of each K (in units of the law: for w^e, of its own mean): [N, nK]. Formula: gap."""
        return _total(self.difference, self.grid, 3)

    def ess(self) -> Bounded:
        """Expected effective sample size E[(Σw)²/Σw²] of each K: [N, nK]. It exists whatever moments w has.

        Formula: ess.
        """
        law = self.law
        slope = min(1.0, 0.5 * law.max_power)
        high = law.upper_log_t(TAIL / (self.particles.min() - 1), p=2.0)
        low = -2.0 * np.log(self.particles.max()) - TAIL / slope
        grid = Grid.covering(low, high + 4.0, smoothness_of(law, self.particles, 2.0))
        base, one, two = (law.transform(power, [()], grid, p=2.0)[0] for power in (0, 1, 2))
        rest = base.remainder[..., 0]
        log_value = where(base.split, rest.log1p(), rest.log()).clip(_NEVER, 0.0)
        highest = _highest(log_value, grid)
        a, b = (x.value[:, None, :, 0] for x in (two, one))
        b = b * b

        def size(k: np.ndarray) -> Bounded:
            first = _powers(log_value, highest, k - 1) * a * k
            second = _powers(log_value, highest, k - 2) * b * (k * (k - 1))
            return _total(first + second, grid, 1, slope)

        return self._each(size, grid)


def _key(power: float, factors: Sequence[Function]) -> tuple[float, frozenset]:
    """Of a product, whatever the order of its factors; functions are told apart by identity."""
    return power, frozenset((g, factors.count(g)) for g in factors)


def _highest(log_value: Bounded, grid: Grid) -> np.ndarray:
    """The running minimum over t of the upper bounds on log Λ, no more than 0: [N, T]."""
    order = np.argsort(grid.log_t, kind="stable")
    result = np.empty_like(log_value.value)
    upper = np.minimum(log_value.value + log_value.error, 0.0)
    result[:, order] = np.minimum.accumulate(upper[:, order], axis=1)
    return result


def _powers(log_value: Bounded, highest: np.ndarray, exponents: np.ndarray) -> Bounded:
    """Λ^n for each exponent n [nK, 1], 1 for those of 0 and below: [N, nK, T]."""
    n = np.maximum(exponents, 0.0)
    if not n.any():
        return Bounded.exact(np.ones((len(highest), len(n), highest.shape[-1])))
    power = (log_value[:, None] * n).exp()
    # where n δ is at most ½ the bound is below Λ^n itself, and the ends of its range could hardly narrow it
    if n.max() * log_value.error.max() > 0.5:
        power = power.clip(0.0, np.exp(n * highest[:, None]))
    return power if n.all() else where(n > 0.0, power, 1.0)


def _total(integrand: Bounded, grid: Grid, order: int, slope: float = 1.0) -> Bounded:
    """∫ dlog t of an integrand [..., T] that begins with t^order or t^slope, the ends and the rule in its error."""
    size = np.abs(integrand.value)
    ends = size[..., 0] + grid.coarsest * size[..., -1]
    total = matmul(integrand, grid.weight, rule_error(order, grid.step))
    return total.widened(_ENDS / slope * ends)


@cache
def rule_error(n: int, step: float) -> float:
    """Relative error of the trapezoidal rule for ∫ t^n e^{-tS} dt/t in log t: 2|Γ(n + 2πi/h)|/Γ(n), whatever S.

    Formula: trapezoid.

    A factor E[f e^{-tw}] with E[f] = 0 begins with t: n counts one more for each, and two for Λ^K - e^{-Kt}.
    """
    return float(2.0 * np.exp(loggamma(n + 2j * np.pi / step).real - gammaln(n)))
