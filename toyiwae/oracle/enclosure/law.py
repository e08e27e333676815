# pyright: basic, reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
"""The moments of the weight in multiprecision, for the expansions in 1/K."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mpmath import MPContext
from numpy.typing import NDArray

Objects = NDArray[np.object_]


def objects(values: Sequence[Any]) -> Objects:
    """A vector of Python objects."""
    result = np.empty(len(values), dtype=object)
    result[:] = values
    return result


@dataclass(frozen=True, eq=False)
class Affine:
    """`constant + linear·ε`, multiprecision."""

    constant: Any
    linear: Objects


@dataclass(frozen=True, eq=False)
class Quadratic:
    """`constant + left·right`, or `constant + left` where `right` is None."""

    constant: Any
    left: Affine
    right: Affine | None = None

    def plus(self, constant: Any) -> Quadratic:
        """Add a constant."""
        return Quadratic(self.constant + constant, self.left, self.right)


@dataclass(frozen=True, eq=False)
class PreciseLaw:
    """The weight of a Gaussian proposal, normalised to E[w] = 1, by multiprecision β and h (see laws.GaussianLaw)."""

    ctx: MPContext
    beta: list[Any]
    h: list[Any]

    @property
    def max_power(self) -> float:
        """E[w^s] exists below this power."""
        worst = min([0.0, *map(float, self.beta)])
        return np.inf if worst == 0.0 else -1.0 / worst

    @property
    def min_power(self) -> float:
        """E[w^s] exists above this power."""
        worst = max([0.0, *map(float, self.beta)])
        return -np.inf if worst == 0.0 else -1.0 / worst

    def log_moment(self, s: Any) -> Any:
        """Log E[w^s] at one multiprecision s."""
        log, total = self.ctx.log, self.ctx.zero
        for b, h in zip(self.beta, self.h, strict=True):
            total += (s * log(1 + b) - log(1 + s * b)) / 2 + h**2 * s * (s - 1) / (2 * (1 + s * b) * (1 + b))
        return total

    def mean(self, s: Any, *factors: Quadratic) -> Any:
        """E_s[g], or E_s[f g], at one real s: products of affine functions by Wick's rule."""
        variances = objects([1 / (1 + s * b) for b in self.beta])
        tilt = objects([-s * h * v for h, v in zip(self.h, variances, strict=True)])
        real = _RealTilt(tilt, variances)
        return _expectation(real, factors)


class _RealTilt:
    """Means and covariances of affine functions at one real tilt."""

    def __init__(self, mean: Objects, variances: Objects):
        self._mean, self._variances = mean, variances

    def affine(self, a: Affine) -> Any:
        return a.constant + a.linear.dot(self._mean)

    def covariance(self, a: Affine, b: Affine) -> Any:
        return (a.linear * b.linear).dot(self._variances)

    @staticmethod
    def times(a: Any, b: Any) -> Any:
        return a * b

    @staticmethod
    def constant(value: Any) -> Any:
        return value


def _expectation(tilt: Any, factors: tuple[Quadratic, ...]) -> Any:
    if len(factors) == 1:
        return _mean_of(tilt, factors[0])
    f, g = factors
    return tilt.times(_mean_of(tilt, f), _mean_of(tilt, g)) + _covariance_of(tilt, f, g)


def _mean_of(tilt: Any, g: Quadratic) -> Any:
    left = tilt.affine(g.left)
    if g.right is None:
        return left + tilt.constant(g.constant)
    return (
        tilt.times(left, tilt.affine(g.right)) + tilt.covariance(g.left, g.right) + tilt.constant(g.constant)
    )


def _covariance_of(tilt: Any, f: Quadratic, g: Quadratic) -> Any:
    """Sum over the pairings that join f to g."""
    cov, at, times = tilt.covariance, tilt.affine, tilt.times
    if f.right is None and g.right is None:
        return cov(f.left, g.left)
    if f.right is None:
        f, g = g, f
    assert f.right is not None
    if g.right is None:
        return times(cov(f.left, g.left), at(f.right)) + times(cov(f.right, g.left), at(f.left))
    total = times(cov(f.left, g.left), cov(f.right, g.right)) + times(
        cov(f.left, g.right), cov(f.right, g.left)
    )
    for a, a_other in ((f.left, f.right), (f.right, f.left)):
        for b, b_other in ((g.left, g.right), (g.right, g.left)):
            total = total + times(cov(a, b), times(at(a_other), at(b_other)))
    return total
