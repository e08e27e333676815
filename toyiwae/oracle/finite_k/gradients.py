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
from scipy.special import gamma

from toyiwae.errors import PrecisionError
from toyiwae.oracle.finite_k.bounds import FiniteK, rule_error
from toyiwae.oracle.finite_k.squared_weights import SquaredWeights
from toyiwae.oracle.laws.bounded import EPS, Bounded
from toyiwae.oracle.laws.protocol import Function, Law, Transform

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
    shift: Bounded
    var: Bounded
    mean: Bounded


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
                moment = self.law.moment(r, (g,))
                limit = limit + (g.base if r else moment.value)
                limit_error = limit_error + moment.error
            if r:
                mean = self._single(r, parts[r])
                value, error = value + mean.value, error + mean.error
        limit_error = limit_error + 2 * EPS * np.abs(limit)
        mean = Bounded(limit[:, None, :] + value, error + limit_error[:, None, :])
        return GradientMoments(limit, Bounded(value, error), self.covariance(components, components), mean)

    def covariance(self, left: Components, right: Components) -> Bounded:
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
        return Bounded(value, error)

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
                    g.centred if r == 1 else g.less(self.law.moment(0, (g,)).value) if r == 0 else g
                )
            result[r] = self._centres[key]
        return result

    def get(self, power: int, *factors: Function) -> Transform:
        """The transform of `w^power Π factors`, once `prepare` has computed it."""
        return self._transforms[(power, *sorted(map(id, factors)))]

    # the integrals ---------------------------------------------------------------------------------------------

    def _single(self, r: int, f: Function) -> Bounded:
        """E[Σ w^r f / S^r]."""
        transform = self.get(r, f)
        first, slack = self.weights[0].value, self.weights[0].error
        value = transform.value.value
        size = np.abs(value)
        error = (
            first @ (transform.value.error + (rule_error(r + 1, self.grid.step) + 2 * EPS) * size)
            + slack @ size
        )
        return Bounded(first @ value / gamma(r), error / gamma(r))

    def _pair(self, r: int, f: Function, s: int, g: Function) -> Bounded:
        """E[Σ w^r f Σ w^s g / S^{r+s}], r + s ≥ 1."""
        same, left, right = self.get(r + s, f, g), self.get(r, f), self.get(s, g)
        first, second = (weight.value for weight in self.weights)
        first_slack, second_slack = (weight.error for weight in self.weights)
        a, b, c = (x.value.value for x in (same, left, right))
        rule = rule_error(r + s + 2, self.grid.step) + 4 * EPS
        size_a, size_bc = np.abs(a), np.abs(b * c)
        error = first @ (same.value.error + rule * size_a) + first_slack @ size_a + second_slack @ size_bc
        moved = left.value.error * np.abs(c) + np.abs(b) * right.value.error
        error = error + second @ (moved + rule * size_bc)
        return Bounded((first @ a + second @ (b * c)) / gamma(r + s), error / gamma(r + s))

    def _pair_covariance(self, r: int, f: Function, s: int, g: Function) -> Bounded:
        """Cov of Σ w̃^r f and Σ w̃^s g, both centred."""
        k = self.particles[:, None]
        if r == s == 0:
            return self.law.moment(0, (f, g))[:, None, :] / k
        product = self._pair(r, f, s, g)
        if r == 0 or s == 0:  # the 1/K of the power 0; its own mean is zero
            return Bounded(product.value / k, product.error / k)
        a, b = self._single(r, f), self._single(s, g)
        off = a.value * b.value
        error = product.error + np.abs(a.value) * b.error + a.error * np.abs(b.value) + 2 * EPS * np.abs(off)
        value = product.value - off
        if r == s == 2 and self._controlled({2: f}, {2: g}):
            # where the control is refused, or overflows, the plain form stands without it
            with contextlib.suppress(PrecisionError), np.errstate(over="ignore", invalid="ignore"):
                other = SquaredWeights(self).covariance(f, g)
                better = other.error < error
                value, error = np.where(better, other.value, value), np.where(better, other.error, error)
        return Bounded(value, error)


def moments_of_one(law: Law, components: Components, count: float = 1.0) -> GradientMoments:
    """The moments over `count` independent draws of equal weights: K = 1, and weights to the power 0."""
    whole = total(components, count)
    mean = law.moment(0, (whole,))
    centred = whole.less(mean.value)
    var = law.moment(0, (centred, centred)) / count
    limit = np.zeros_like(mean.value)
    for r, g in components.items():
        if r < 2:
            limit = limit + (g.base if r else law.moment(0, (g,)).value)
    rest = {r: g.centred if r == 1 else g for r, g in components.items() if r}
    shift = law.moment(0, (total(rest, count),)) if rest else Bounded.zeros(mean.shape)
    return GradientMoments(limit, *(part[:, None, :] for part in (shift, var, mean)))


def total(components: Components, scale: float = 1.0) -> Function:
    """Σ_r scale^(1-r) G_r (r = 0 counted as 1): what the components add up to when all weights are equal."""
    terms = [(scale ** (1 - max(r, 1)), g) for r, g in components.items()]
    return type(terms[0][1]).combine(terms)  # pyright: ignore[reportAttributeAccessIssue]
