"""Exact mean, variance and covariance of self-normalised gradients `Σ_r Σ_k w̃_k^r G_r(ε_k)` at any K.

A gradient is given by its components {power r: polynomial G_r}; the power 0 stands for coefficients 1/K.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import comb, gamma

from toyiwae.errors import PrecisionError
from toyiwae.oracle.finite_k.bounds import FiniteK
from toyiwae.oracle.laws.bounded import Bounded, better, where
from toyiwae.oracle.laws.grid import Grid
from toyiwae.oracle.laws.protocol import Function, Law

Components = Mapping[int, Any]

_CONTROL_FROM = (
    100  # K from which the control variate for squared weights wins; for nearly equal weights it always does
)
_NEARLY_EQUAL = 0.1  # log E[w²] of those
_CONTROL_TO = 100.0  # log E[w²] beyond which it is useless, since no K reaches the regime it is made for


@dataclass(frozen=True)
class GradientMoments:
    """Mean and variance of one group's gradient: `limit` [N, F] + `shift` [N, nK, F], and `var` [N, nK, F].

    `limit` is the part of the mean that no K changes; for IWAE-type coefficients it is the gradient of log Z
    (or 0), so that `shift` is the bias itself, with its own relative accuracy. `mean` is their sum, at K = 1 computed
    apart: the mean of a score is exactly 0 there.
    """

    limit: Bounded
    shift: Bounded
    var: Bounded
    mean: Bounded


class GradientEngine(FiniteK):
    """The integrals of gradients, for a list of K ≥ 2."""

    def __init__(self, law: Law, particles: Sequence[int], grid: Grid | None = None):
        super().__init__(law, particles, grid)
        self._centres: dict[tuple[int, Function], Function] = {}
        self._singles: dict[tuple[int, Function], Bounded] = {}

    def moments(self, components: Components) -> GradientMoments:
        """Mean and variance for each K.

        Args:
            components: power -> polynomial, as in the module's text.
        """
        self.prepare([(components, components)])
        limit = limit_of(self.law, components)
        parts = [(r, g) for r, g in self._centred(components).items() if r]
        shape = (len(self.law), len(self.particles), limit.shape[-1])
        shift = sum((self.single(r, g) for r, g in parts), Bounded.zeros(shape))
        var = self.covariance(components, components)
        return GradientMoments(limit, shift, var, shift + limit[:, None, :])

    def covariance(self, left: Components, right: Components) -> Bounded:
        """Covariance of two gradients on the same particles, coordinate by coordinate, for each K: [N, nK, F].

        Formula: covariance.
        """
        self.prepare([(left, right)])
        same = left is right
        lefts, rights = self._centred(left), self._centred(right)
        pairs = [
            self._pair_covariance(r, f, s, g) * (2.0 if same and s > r else 1.0)
            for r, f in lefts.items()
            for s, g in rights.items()
            if not (same and s < r)
        ]
        return sum(pairs[1:], pairs[0])

    def forget(self) -> None:
        """Drop the transforms with functions, when many gradients are asked for one after another."""
        self._transforms = {key: found for key, found in self._transforms.items() if not key[1]}
        self._centres.clear()
        self._singles.clear()

    # what is needed --------------------------------------------------------------------------------------------

    def prepare(self, pairs: Iterable[tuple[Components, Components]]) -> None:
        """Compute the transforms that the covariances of these pairs need, all of one power at once."""
        self.request(
            [
                request
                for left, right in pairs
                for request in self._requests(self._centred(left), self._centred(right))
            ]
        )

    def _requests(self, left: Components, right: Components) -> list[tuple[int, tuple[Function, ...]]]:
        wanted = [(r, (g,)) for parts in (left, right) for r, g in parts.items()]
        wanted += [(r + s, (f, g)) for r, f in left.items() for s, g in right.items() if r + s]
        if self._controlled(left, right):
            wanted += [(2, ()), (3, (left[2],)), (3, (right[2],))]
        return wanted

    def _controlled(self, left: Components, right: Components) -> bool:
        """Whether the control variate for squared weights serves: E[w²] exists in floats, some K is large enough."""
        if not (2 in left and 2 in right and self.law.max_power > 2.0):
            return False
        log_square = self.law.log_moment(2.0)
        return bool(
            (self.particles.max() >= _CONTROL_FROM and log_square.max() < _CONTROL_TO)
            or log_square.min() < _NEARLY_EQUAL
        )

    def _centred(self, components: Components) -> dict[int, Function]:
        """The components less what is constant in the sum: means under q for power 0, under the posterior for 1."""
        return {r: self.centre(r, g) for r, g in components.items()}

    def centre(self, r: int, g: Function) -> Function:
        """A function less its mean under q for power 0, under the posterior for power 1; else as it is."""
        key = (min(r, 2), g)
        if key not in self._centres:
            self._centres[key] = (
                g.centred if r == 1 else g.less(self.law.moment(0, (g,)).value) if r == 0 else g
            )
        return self._centres[key]

    # the integrals ---------------------------------------------------------------------------------------------

    def single(self, r: int, f: Function) -> Bounded:
        """E[Σ w^r f / S^r] of a centred f. Formula: mean."""
        if (r, f) not in self._singles:
            integral = self.integral(self.weights[0], self.get(r, f).value, r + 1)
            self._singles[r, f] = integral / gamma(r)
        return self._singles[r, f]

    def _pair(self, r: int, f: Function, s: int, g: Function) -> Bounded:
        """E[Σ w^r f Σ w^s g / S^{r+s}], r + s ≥ 1."""
        first, second = self.weights
        left = self.get(r, f).value
        product = left * left if f is g and r == s else left * self.get(s, g).value
        same = self.integral(first, self.get(r + s, f, g).value, r + s + 2)
        return (same + self.integral(second, product, r + s + 2)) / gamma(r + s)

    def _pair_covariance(self, r: int, f: Function, s: int, g: Function) -> Bounded:
        """Cov of Σ w̃^r f and Σ w̃^s g, both centred."""
        k = self.particles[:, None]
        if r == s == 0:
            return self.law.moment(0, (f, g))[:, None, :] / k
        product = self._pair(r, f, s, g)
        if r == 0 or s == 0:  # the 1/K of the power 0; its own mean is zero
            return product / k
        found = product - self.single(r, f) * self.single(s, g)
        if r == s == 2 and self._controlled({2: f}, {2: g}):
            # where the control variate is refused, or overflows, the plain form stands without it
            with contextlib.suppress(PrecisionError), np.errstate(over="ignore", invalid="ignore"):
                found = better(found, covariance_of_squares(self, f, g))
        return found


def moments_of_one(law: Law, components: Components, count: float = 1.0) -> GradientMoments:
    """The moments over `count` independent draws of equal weights: K = 1, and weights to the power 0.

    Formula: one-particle.
    """
    whole = total(components, count)
    mean = law.moment(0, (whole,))
    rest = {r: g.centred if r == 1 else g for r, g in components.items() if r}
    shift = law.moment(0, (total(rest, count),)) if rest else Bounded.zeros(mean.shape)
    var = covariance_of_one(law, components, components, count)
    return GradientMoments(limit_of(law, components), shift[:, None, :], var, mean[:, None, :])


def covariance_of_one(law: Law, left: Components, right: Components, count: float = 1.0) -> Bounded:
    """Covariance of two gradients over `count` independent draws of equal weights: [N, 1, F]."""
    wholes = [total(parts, count) for parts in ((left,) if left is right else (left, right))]
    centred = [whole.less(law.moment(0, (whole,)).value) for whole in wholes]
    return law.moment(0, (centred[0], centred[-1]))[:, None, :] / count


def limit_of(law: Law, components: Components) -> Bounded:
    """The part of the mean that no K changes: the means of the powers 0 and 1: [N, F]."""
    nothing = Bounded.zeros((len(law), next(iter(components.values())).base.shape[-1]))
    return sum((mean_of(law, r, g) for r, g in components.items() if r < 2), nothing)


def mean_of(law: Law, r: int, g: Any) -> Bounded:
    """E[w^r g]; for r = 1 the very number that `g` is an expansion about: [N, F]."""
    found = law.moment(r, (g,))
    return Bounded(g.base, found.error) if r == 1 else found


def total(components: Components, scale: float = 1.0) -> Function:
    """Σ_r scale^(1-r) G_r (r = 0 counted as 1): what the components add up to when all weights are equal."""
    terms = [(scale ** (1 - max(r, 1)), g) for r, g in components.items()]
    return type(terms[0][1]).combine(terms)  # pyright: ignore[reportAttributeAccessIssue]


def covariance_of_squares(engine: FiniteK, p: Function, q: Function) -> Bounded:
    """Cov[Σ w²p / S², Σ w²q / S²] without the loss of log10 K digits: [N, nK, F].

    Formula: squared-weights.

    For any constant μ, with `f = w²p - 2μw + μ`,  Σ w²p/S² = μ/K + Σ f/S² - (μ/K)(1 - K/S)². With μ = E[w²p]
    both f and the last term are of second order in the fluctuation of S, and nothing large is left to cancel.
    """
    k, (first, second) = engine.particles[:, None], engine.weights
    sides = [_side(engine, g) for g in ((p,) if p is q else (p, q))]
    a, b = sides[0], sides[-1]
    second_moment, fourth_moment = (_control(engine, n) for n in (2, 4))
    value = engine.integral(first, _product(engine, a, b), 6) + engine.integral(second, a.f * b.f, 6)
    value = value / 6.0 + fourth_moment * (a.mean * b.mean / k**2)
    means = []
    for side, other in ((a, b), (b, a)):
        value = value - _cross(engine, side) * (other.mean / k)
        means.append(first @ side.f - second_moment * (side.mean / k))
    return value - means[0] * means[1]


class _Side(NamedTuple):
    """`p`, its mean μ = E[w²p] [N, 1, F], and t² E[f e^{-tw}] for f = w²p - 2μw + μ [N, T, F]."""

    p: Function
    mean: Bounded
    f: Bounded


def _side(engine: FiniteK, p: Function) -> _Side:
    """T² (E[w²p e^{-tw}] - μe^{-t}) - 2μt² (E[we^{-tw}] - e^{-t}) + μt² (E e^{-tw} - e^{-t})."""
    mean, t = engine.law.moment(2, (p,))[:, None, :], engine.t[:, None]
    lead, decay = engine.get(2, p), -t
    own = lead.remainder - where(lead.split[:, None], decay.expm1(), decay.exp()) * t**2 * mean
    zeroth, first = _deviations(engine)
    return _Side(p, mean, own + (zeroth * t - first * 2.0) * t * mean)


def _deviations(engine: FiniteK) -> tuple[Bounded, Bounded]:
    """E[e^{-tw}] - e^{-t} and t (E[we^{-tw}] - e^{-t}): [N, T, 1]."""
    return engine.deviation[..., None], engine.weighted_deviation[..., None]


def _product(engine: FiniteK, a: _Side, b: _Side) -> Bounded:
    """T⁴ E[f g e^{-tw}] for the f of `a` and the g of `b`: [N, T, F]."""
    t = engine.t[:, None]
    decay, (zeroth, first) = (-t).exp(), _deviations(engine)
    plain = engine.get(2).value * 4.0 - (first + decay * t) * t * 4.0 + (zeroth + decay) * t**2
    value = engine.get(4, a.p, b.p).value + plain * t**2 * (a.mean * b.mean)
    for mean, p in ((a.mean, b.p), (b.mean, a.p)):
        value = value - (engine.get(3, p).value * 2.0 - engine.get(2, p).value * t) * t * mean
    return value


def _cross(engine: FiniteK, side: _Side) -> Bounded:
    """E[Σ f/S² (1 - K/S)²]: the Γ-weights of 1/S² - 2K/S³ + K²/S⁴ applied to f's transform: [N, nK, F]."""
    first, kt = engine.weights[0], engine.t * engine.particles[:, None]
    gain = 1.0 - kt + kt**2 / 6.0
    weight = where(first.value + first.error > 0.0, first * gain, 0.0)
    return engine.integral(weight, side.f, 6)


def _control(engine: FiniteK, q: int) -> Bounded:
    """E[(1 - K/S)^q] = ∫ [Σ_n C(q,n)(-1)^n τ^n/Γ(n)] (Λ^K - e^{-τ}) dτ/τ, τ = Kt: [N, nK, 1]."""
    difference, tau = engine.difference, engine.t * engine.particles[:, None]
    weight = sum((tau**n * (comb(q, n) * (-1) ** n / gamma(n)) for n in range(1, q + 1)), 0)
    terms = where(difference.error > 0.0, difference * weight, 0.0)
    return engine.integral(terms, Bounded.exact(engine.grid.weight[:, None]), q + 2)
