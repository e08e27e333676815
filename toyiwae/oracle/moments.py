"""Exact mean, variance and covariance of self-normalised gradients `Σ_r Σ_k w̃_k^r G_r(ε_k)` at any K.

A gradient is given by its components {power r: polynomial G_r}; the power 0 stands for coefficients 1/K.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import comb, gamma

from toyiwae.errors import PrecisionError
from toyiwae.oracle.finite_k import Estimate, FiniteK, rule_error
from toyiwae.oracle.laws import EPS, Transform
from toyiwae.oracle.protocol import Function, Law

Components = Mapping[int, Any]

_CONTROL_FROM = (
    100  # K from which the control for squared weights wins; for nearly equal weights it always does
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

    limit: np.ndarray
    shift: Estimate
    var: Estimate
    mean: Estimate


class GradientEngine(FiniteK):
    """The integrals of gradients, for a list of K ≥ 2; transforms are computed once, in batches by power."""

    @cached_property
    def _transforms(self) -> dict[tuple[int, ...], Transform]:
        return {}

    @cached_property
    def _centres(self) -> dict[tuple[int, int], Function]:
        return {}

    @cached_property
    def _kept(self) -> list[Function]:
        return []  # polynomials are keyed by identity, so they must outlive the caches

    def moments(self, components: Components) -> GradientMoments:
        """Mean and variance for each K.

        Args:
            components: power -> polynomial, as in the module's text.
        """
        self.prepare([(components, components)])
        parts = self._centred(components)
        shape = (len(self.law), len(self.particles), next(iter(parts.values())).base.shape[-1])
        limit, limit_error = np.zeros((shape[0], shape[2])), np.zeros((shape[0], shape[2]))
        value, error = np.zeros(shape), np.zeros(shape)
        for r, g in components.items():
            if r < 2:
                limit = limit + (g.base if r else self.law.moment(0, (g,)))
                limit_error = limit_error + self.law.moment_error(r, (g,))
            if r:
                mean = self._single(r, parts[r])
                value, error = value + mean.value, error + mean.error
        limit_error = limit_error + 2 * EPS * np.abs(limit)
        mean = Estimate(limit[:, None, :] + value, error + limit_error[:, None, :])
        return GradientMoments(limit, Estimate(value, error), self.covariance(components, components), mean)

    def covariance(self, left: Components, right: Components) -> Estimate:
        """Covariance of two gradients on the same particles, coordinate by coordinate, for each K: [N, nK, F]."""
        self.prepare([(left, right)])
        same = left is right
        lefts, rights = self._centred(left), self._centred(right)
        value, error = np.zeros(1), np.zeros(1)
        for r, f in lefts.items():
            for s, g in rights.items():
                if same and s < r:
                    continue
                part, times = self._pair_covariance(r, f, s, g), 2 if same and s > r else 1
                value, error = value + times * part.value, error + times * part.error
        return Estimate(value, error)

    def forget(self) -> None:
        """Drop the transforms, when many gradients are asked for one after another."""
        self._transforms.clear()
        self._centres.clear()
        self._kept.clear()

    # what is needed --------------------------------------------------------------------------------------------

    def prepare(self, pairs: Iterable[tuple[Components, Components]]) -> None:
        """Compute the transforms that the covariances of these pairs need, all of one power at once."""
        wanted: dict[int, dict[tuple[int, ...], tuple[Function, ...]]] = {}
        for left, right in pairs:
            for power, factors in self._requests(self._centred(left), self._centred(right)):
                key = (power, *sorted(map(id, factors)))
                if key not in self._transforms:
                    wanted.setdefault(power, {})[key] = factors
                    self._kept.extend(factors)
        for power, batch in wanted.items():
            found = self.law.transform(power, list(batch.values()), self.grid)
            self._transforms.update(zip(batch, found, strict=True))

    def _requests(self, left: Components, right: Components) -> list[tuple[int, tuple[Function, ...]]]:
        wanted = [(r, (g,)) for parts in (left, right) for r, g in parts.items()]
        wanted += [(r + s, (f, g)) for r, f in left.items() for s, g in right.items() if r + s]
        if self._controlled(left, right):
            wanted += [(2, ()), (3, (left[2],)), (3, (right[2],))]
        return wanted

    def _controlled(self, left: Components, right: Components) -> bool:
        """Whether the control for squared weights applies: E[w²] exists in floats, and some K is large enough."""
        if not (2 in left and 2 in right and self.law.max_power > 2.0):
            return False
        log_square = self.law.log_moment(2.0)
        return bool(
            (self.particles.max() >= _CONTROL_FROM and log_square.max() < _CONTROL_TO)
            or log_square.min() < _NEARLY_EQUAL
        )

    def _centred(self, components: Components) -> dict[int, Function]:
        """The components less what is constant in the sum: means under q for power 0, under the posterior for 1."""
        result = {}
        for r, g in components.items():
            key = (min(r, 2), id(g))
            if key not in self._centres:
                self._kept.append(g)
                self._centres[key] = (
                    g.centred if r == 1 else g.less(self.law.moment(0, (g,))) if r == 0 else g
                )
            result[r] = self._centres[key]
        return result

    def _get(self, power: int, *factors: Function) -> Transform:
        return self._transforms[(power, *sorted(map(id, factors)))]

    # the integrals ---------------------------------------------------------------------------------------------

    def _single(self, r: int, f: Function) -> Estimate:
        """E[Σ w^r f / S^r]."""
        transform = self._get(r, f)
        first, _, slack, _ = self.weights
        value = transform.value
        size = np.abs(value)
        error = (
            first @ (transform.value_error + (rule_error(r + 1, self.grid.step) + 2 * EPS) * size)
            + slack @ size
        )
        return Estimate(first @ value / gamma(r), error / gamma(r))

    def _pair(self, r: int, f: Function, s: int, g: Function) -> Estimate:
        """E[Σ w^r f Σ w^s g / S^{r+s}], r + s ≥ 1."""
        same, left, right = self._get(r + s, f, g), self._get(r, f), self._get(s, g)
        first, second, first_slack, second_slack = self.weights
        a, b, c = same.value, left.value, right.value
        rule = rule_error(r + s + 2, self.grid.step) + 4 * EPS
        size_a, size_bc = np.abs(a), np.abs(b * c)
        error = first @ (same.value_error + rule * size_a) + first_slack @ size_a + second_slack @ size_bc
        moved = left.value_error * np.abs(c) + np.abs(b) * right.value_error
        error = error + second @ (moved + rule * size_bc)
        return Estimate((first @ a + second @ (b * c)) / gamma(r + s), error / gamma(r + s))

    def _pair_covariance(self, r: int, f: Function, s: int, g: Function) -> Estimate:
        """Cov of Σ w̃^r f and Σ w̃^s g, both centred."""
        k = self.particles[:, None]
        if r == s == 0:
            value = self.law.moment(0, (f, g))[:, None, :] / k
            error = self.law.moment_error(0, (f, g))[:, None, :] / k
            return Estimate(value, error + 2 * EPS * np.abs(value))
        product = self._pair(r, f, s, g)
        if r == 0 or s == 0:  # the 1/K of the power 0; its own mean is zero
            return Estimate(product.value / k, product.error / k)
        a, b = self._single(r, f), self._single(s, g)
        off = a.value * b.value
        error = product.error + np.abs(a.value) * b.error + a.error * np.abs(b.value) + 2 * EPS * np.abs(off)
        value = product.value - off
        if r == s == 2 and self._controlled({2: f}, {2: g}):
            # where the control is refused, or overflows, the plain form stands without it
            with contextlib.suppress(PrecisionError), np.errstate(over="ignore", invalid="ignore"):
                other = self._squared_weights(f, g)
                better = other.error < error
                value, error = np.where(better, other.value, value), np.where(better, other.error, error)
        return Estimate(value, error)

    # squared weights -------------------------------------------------------------------------------------------

    def _squared_weights(self, p: Function, q: Function) -> Estimate:
        """Cov[Σ w²p / S², Σ w²q / S²] without the loss of log10 K digits, by a control for what S alone explains.

        For any constant μ, with `f = w²p - 2μw + μ`,  Σ w²p/S² = μ/K + Σ f/S² - (μ/K)(1 - K/S)². With μ = E[w²p]
        both f and the last term are of second order in the fluctuation of S, and nothing large is left to cancel.
        """
        k = self.particles[:, None]
        w1, w2, slack1, slack2 = self.weights
        sides = [_Side(self, g) for g in ((p,) if p is q else (p, q))]
        a, b = sides[0], sides[-1]
        both, both_error = self._second_order_product(a, b)
        (q1, q1_error), (q2, q2_error) = self._control(2), self._control(4)
        rule = rule_error(6, self.grid.step) + 4 * EPS
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
        return Estimate(value - off_a * off_b, error)

    def _cross(self, side: _Side) -> tuple[np.ndarray, np.ndarray]:
        """E[Σ f/S² (1 - K/S)²] and its error: the Γ-weights of 1/S² - 2K/S³ + K²/S⁴ applied to f's transform."""
        w1, _, slack1, _ = self.weights
        kt = self.particles[:, None] * self.t
        with np.errstate(over="ignore", invalid="ignore"):
            gain = np.where(w1 > 0.0, 1.0 - kt + kt**2 / 6.0, 0.0)
            gains, slack = w1 * gain, slack1 * np.abs(gain)
        size = np.abs(side.value)
        rule = rule_error(6, self.grid.step) + 4 * EPS
        return gains @ side.value, np.abs(gains) @ (side.error + rule * size) + slack @ size

    def _second_order_product(self, a: _Side, b: _Side) -> tuple[np.ndarray, np.ndarray]:
        """t⁴ E[f g e^{-tw}] for the f of `a` and of `b`, and its error: [N, T, F]."""
        t, decay = self.t[:, None], np.exp(-self.t[:, None])
        e0, e0_error, e1, e1_error = (x[..., None] for pair in (self.excess, self.excess_one) for x in pair)
        square, plain = self._get(4, a.polynomial, b.polynomial), self._get(2)
        one, base = t * decay + e1, decay + e0
        ones = t**2 * (4 * plain.value - 4 * t * one + t**2 * base)
        level = a.level * b.level
        value = square.value + level * ones
        size = np.abs(square.value)
        size = size + np.abs(level) * t**2 * (4 * plain.value + 4 * t * np.abs(one) + t**2 * np.abs(base))
        error = square.value_error
        error = error + np.abs(level) * t**2 * (4 * plain.value_error + 4 * t * e1_error + t**2 * e0_error)
        for mu, side in ((a.level, b), (b.level, a)):
            lead, cubic = self._get(2, side.polynomial), self._get(3, side.polynomial)
            value = value - mu * (2 * t * cubic.value - t**2 * lead.value)
            size = size + np.abs(mu) * (2 * t * np.abs(cubic.value) + t**2 * np.abs(lead.value))
            error = error + np.abs(mu) * (2 * t * cubic.value_error + t**2 * lead.value_error)
        return value, error + self.rounding * size

    @cached_property
    def rounding(self) -> np.ndarray:
        """Relative round-off of a product with powers of t, which come out of log t: [T, 1]."""
        return EPS * (4.0 + 2.0 * np.abs(self.grid.log_t))[:, None]

    def _control(self, q: int) -> tuple[np.ndarray, np.ndarray]:
        """E[(1 - K/S)^q] and its error: ∫ [Σ_n C(q,n)(-1)^n τ^n/Γ(n)] (Λ^K - e^{-τ}) dτ/τ, τ = Kt: [N, nK, 1]."""
        difference, slack = self.difference
        tau, step = self.particles[:, None] * self.t, self.grid.weight[:, None]
        with np.errstate(over="ignore", invalid="ignore"):
            weight = sum(comb(q, n) * (-1) ** n * tau**n / gamma(n) for n in range(1, q + 1))
            terms = np.where(difference != 0.0, weight * difference, 0.0)
            errors = np.where(slack > 0.0, np.abs(weight) * slack, 0.0)
        errors = errors + rule_error(q + 2, self.grid.step) * np.abs(terms)
        return terms @ step, errors @ step


class _Side:
    """t² E[f e^{-tw}] for f = w²p - 2μw + μ with the level μ = E[w²p], and its error: [N, T, F]."""

    def __init__(self, engine: GradientEngine, p: Function):
        self.polynomial, self.level = p, engine.law.moment(2, (p,))[:, None, :]
        mu, t = self.level, engine.t[:, None]
        lead = engine._get(2, p)
        e0, e0_error, e1, e1_error = (
            x[..., None] for pair in (engine.excess, engine.excess_one) for x in pair
        )
        plain = mu * t**2 * np.exp(-t)
        split = lead.split[:, None]
        head = lead.remainder - np.where(split, mu * t**2 * np.expm1(-t), plain)
        head_size = np.where(split, np.abs(head), np.abs(lead.remainder) + np.abs(plain))
        self.value = head - 2 * mu * t * e1 + mu * t**2 * e0
        size = np.abs(head) + np.abs(mu) * (2 * t * np.abs(e1) + t**2 * np.abs(e0))
        spread = np.abs(mu) * (2 * t * e1_error + t**2 * e0_error)
        self.error = lead.error + spread + engine.rounding * (size + head_size)

    def mean(self, w1, slack1, k, q1, q1_error) -> tuple[np.ndarray, np.ndarray]:
        """E[Σ f/S² - (μ/K)(1 - K/S)²]: what the mean differs by from μ/K, and its error."""
        ratio = self.level / k
        error = w1 @ self.error + slack1 @ np.abs(self.value) + np.abs(ratio) * q1_error
        return w1 @ self.value - ratio * q1, error


def moments_of_one(law: Law, components: Components, count: float = 1.0) -> GradientMoments:
    """The moments over `count` independent draws of equal weights: K = 1, and weights to the power 0."""
    whole = total(components, count)
    mean, mean_error = law.moment(0, (whole,)), law.moment_error(0, (whole,))
    centred = whole.less(mean)
    var = law.moment(0, (centred, centred))[:, None, :] / count
    var_error = law.moment_error(0, (centred, centred))[:, None, :] / count
    limit, shift, shift_error = np.zeros_like(mean), np.zeros_like(mean), np.zeros_like(mean)
    for r, g in components.items():
        if r < 2:
            limit = limit + (g.base if r else law.moment(0, (g,)))
    rest = {r: g.centred if r == 1 else g for r, g in components.items() if r}
    if rest:
        moved = total(rest, count)
        shift, shift_error = law.moment(0, (moved,)), law.moment_error(0, (moved,))
    return GradientMoments(
        limit,
        Estimate(shift[:, None, :], shift_error[:, None, :]),
        Estimate(var, var_error),
        Estimate(mean[:, None, :], mean_error[:, None, :]),
    )


def total(components: Components, scale: float = 1.0) -> Function:
    """Σ_r scale^(1-r) G_r (r = 0 counted as 1): what the components add up to when all weights are equal."""
    terms = [(scale ** (1 - max(r, 1)), g) for r, g in components.items()]
    return type(terms[0][1]).combine(terms)  # pyright: ignore[reportAttributeAccessIssue]
