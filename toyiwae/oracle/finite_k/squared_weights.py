"""Covariances of sums of squared normalised weights, by a control variate for what their sum alone explains."""

from __future__ import annotations

from typing import NamedTuple

from scipy.special import comb, gamma

from toyiwae.oracle.finite_k.bounds import FiniteK
from toyiwae.oracle.laws.bounded import Bounded, where
from toyiwae.oracle.laws.protocol import Function


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
