"""Covariances of sums of squared normalised weights, by a control for what their sum alone explains."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import comb, gamma

from toyiwae.oracle.finite_k.bounds import rule_error
from toyiwae.oracle.laws.bounded import EPS, Bounded
from toyiwae.oracle.laws.protocol import Function

if TYPE_CHECKING:
    from toyiwae.oracle.finite_k.gradients import GradientEngine


class SquaredWeights:
    """What the engine of some gradients needs for their squared weights; see `covariance`."""

    def __init__(self, engine: GradientEngine):
        self.engine = engine

    def covariance(self, p: Function, q: Function) -> Bounded:
        """Cov[Σ w²p / S², Σ w²q / S²] without the loss of log10 K digits, by a control for what S alone explains.

        For any constant μ, with `f = w²p - 2μw + μ`,  Σ w²p/S² = μ/K + Σ f/S² - (μ/K)(1 - K/S)². With μ = E[w²p]
        both f and the last term are of second order in the fluctuation of S, and nothing large is left to cancel.
        """
        k = self.engine.particles[:, None]
        (w1, slack1), (w2, slack2) = ((weight.value, weight.error) for weight in self.engine.weights)
        sides = [_Side(self.engine, g, self.rounding) for g in ((p,) if p is q else (p, q))]
        a, b = sides[0], sides[-1]
        both, both_error = self._second_order_product(a, b)
        (q1, q1_error), (q2, q2_error) = self._control(2), self._control(4)
        rule = rule_error(6, self.engine.grid.step) + 4 * EPS
        ab = np.abs(a.value * b.value)
        value = (w1 @ both + w2 @ (a.value * b.value)) / 6.0
        error = (w1 @ (both_error + rule * np.abs(both)) + slack1 @ np.abs(both)) / 6.0
        moved = np.abs(a.value) * b.error + a.error * np.abs(b.value)
        error = error + (w2 @ (moved + rule * ab) + slack2 @ ab) / 6.0
        for one, two in ((a, b), (b, a)):
            cross, cross_error = self._cross(one)
            ratio = two.level / k
            value = value - ratio * cross
            error = error + np.abs(ratio) * cross_error
        ratio = a.level * b.level / k**2
        value = value + ratio * q2
        error = error + np.abs(ratio) * (q2_error + rule * np.abs(q2))
        offs = [side.mean(w1, slack1, k, q1, q1_error) for side in (a, b)]
        (off_a, slack_a), (off_b, slack_b) = offs
        error = error + np.abs(off_a) * slack_b + slack_a * np.abs(off_b) + 4 * EPS * np.abs(off_a * off_b)
        return Bounded(value - off_a * off_b, error)

    def _cross(self, side: _Side) -> tuple[np.ndarray, np.ndarray]:
        """E[Σ f/S² (1 - K/S)²] and its error: the Γ-weights of 1/S² - 2K/S³ + K²/S⁴ applied to f's transform."""
        w1, slack1 = self.engine.weights[0].value, self.engine.weights[0].error
        kt = self.engine.particles[:, None] * self.engine.t
        with np.errstate(over="ignore", invalid="ignore"):
            gain = np.where(w1 > 0.0, 1.0 - kt + kt**2 / 6.0, 0.0)
            gains, slack = w1 * gain, slack1 * np.abs(gain)
        size = np.abs(side.value)
        rule = rule_error(6, self.engine.grid.step) + 4 * EPS
        return gains @ side.value, np.abs(gains) @ (side.error + rule * size) + slack @ size

    def _second_order_product(self, a: _Side, b: _Side) -> tuple[np.ndarray, np.ndarray]:
        """t⁴ E[f g e^{-tw}] for the f of `a` and of `b`, and its error: [N, T, F]."""
        t, decay = self.engine.t[:, None], np.exp(-self.engine.t[:, None])
        e0, e0_error, e1, e1_error = (
            array[..., None]
            for x in (self.engine.deviation, self.engine.weighted_deviation)
            for array in (x.value, x.error)
        )
        square, plain = self.engine.get(4, a.polynomial, b.polynomial).value, self.engine.get(2).value
        one, base = t * decay + e1, decay + e0
        ones = t**2 * (4 * plain.value - 4 * t * one + t**2 * base)
        level = a.level * b.level
        value = square.value + level * ones
        size = np.abs(square.value)
        size = size + np.abs(level) * t**2 * (4 * plain.value + 4 * t * np.abs(one) + t**2 * np.abs(base))
        error = square.error
        error = error + np.abs(level) * t**2 * (4 * plain.error + 4 * t * e1_error + t**2 * e0_error)
        for mu, side in ((a.level, b), (b.level, a)):
            lead, cubic = (self.engine.get(power, side.polynomial).value for power in (2, 3))
            value = value - mu * (2 * t * cubic.value - t**2 * lead.value)
            size = size + np.abs(mu) * (2 * t * np.abs(cubic.value) + t**2 * np.abs(lead.value))
            error = error + np.abs(mu) * (2 * t * cubic.error + t**2 * lead.error)
        return value, error + self.rounding * size

    @cached_property
    def rounding(self) -> np.ndarray:
        """Relative round-off of a product with powers of t, which come out of log t: [T, 1]."""
        return EPS * (4.0 + 2.0 * np.abs(self.engine.grid.log_t))[:, None]

    def _control(self, q: int) -> tuple[np.ndarray, np.ndarray]:
        """E[(1 - K/S)^q] and its error: ∫ [Σ_n C(q,n)(-1)^n τ^n/Γ(n)] (Λ^K - e^{-τ}) dτ/τ, τ = Kt: [N, nK, 1]."""
        difference, slack = self.engine.difference.value, self.engine.difference.error
        tau, step = self.engine.particles[:, None] * self.engine.t, self.engine.grid.weight[:, None]
        with np.errstate(over="ignore", invalid="ignore"):
            weight = sum(comb(q, n) * (-1) ** n * tau**n / gamma(n) for n in range(1, q + 1))
            terms = np.where(difference != 0.0, weight * difference, 0.0)
            errors = np.where(slack > 0.0, np.abs(weight) * slack, 0.0)
        errors = errors + rule_error(q + 2, self.engine.grid.step) * np.abs(terms)
        return terms @ step, errors @ step


class _Side:
    """t² E[f e^{-tw}] for f = w²p - 2μw + μ with the level μ = E[w²p], and its error: [N, T, F]."""

    def __init__(self, engine: GradientEngine, p: Function, rounding: np.ndarray):
        self.polynomial, self.level = p, engine.law.moment(2, (p,)).value[:, None, :]
        mu, t = self.level, engine.t[:, None]
        lead = engine.get(2, p)
        e0, e0_error, e1, e1_error = (
            array[..., None]
            for x in (engine.deviation, engine.weighted_deviation)
            for array in (x.value, x.error)
        )
        plain = mu * t**2 * np.exp(-t)
        split = lead.split[:, None]
        head = lead.remainder.value - np.where(split, mu * t**2 * np.expm1(-t), plain)
        head_size = np.where(split, np.abs(head), np.abs(lead.remainder.value) + np.abs(plain))
        self.value = head - 2 * mu * t * e1 + mu * t**2 * e0
        size = np.abs(head) + np.abs(mu) * (2 * t * np.abs(e1) + t**2 * np.abs(e0))
        spread = np.abs(mu) * (2 * t * e1_error + t**2 * e0_error)
        self.error = lead.remainder.error + spread + rounding * (size + head_size)

    def mean(self, w1, slack1, k, q1, q1_error) -> tuple[np.ndarray, np.ndarray]:
        """E[Σ f/S² - (μ/K)(1 - K/S)²]: what the mean differs by from μ/K, and its error."""
        ratio = self.level / k
        error = w1 @ self.error + slack1 @ np.abs(self.value) + np.abs(ratio) * q1_error
        return w1 @ self.value - ratio * q1, error
