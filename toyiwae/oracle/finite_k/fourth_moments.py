"""Exact fourth moments: how far a sample variance of a gradient, or of a bound's value, can be trusted.

The n-th moment of `Σ_r Σ_k w̃_k^r G_r(ε_k)` is a sum over n-tuples of powers and over the ways in which their
particles coincide. With R the sum of the powers and the tuple's positions split into b blocks of equal particles,

    E[Π_i Σ_k w_k^{r_i} g_{i,k} / S^R] = 1/Γ(R) Σ_splits K(K-1)…(K-b+1) ∫ t^R Π_B Λ_{R_B, Π_B g} Λ^{K-b} dt/t.

It exists whatever moments the weight has. For the value, `y = (1/K) Σ w` in units of its mean has

    E[y^{-s}] = 1 + 1/Γ(s) ∫ t^{s-1} (Λ(t/K)^K - e^{-t}) dt        for s in a circle about 0,

whose derivatives at 0 are the moments of log y. Central moments lose digits where they cancel; they serve to plan
and judge tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement
from math import factorial, prod
from typing import Any

import numpy as np
from scipy.special import gamma, rgamma

from toyiwae.oracle.finite_k.bounds import FiniteK, rule_error
from toyiwae.oracle.finite_k.every_k import insert_single
from toyiwae.oracle.finite_k.gradients import Components, GradientEngine, total
from toyiwae.oracle.laws.bounded import EPS, Bounded, matmul

ORDER = 4
_RADIUS, _NODES = 0.5, 48  # of the circle on which E[y^-s] is differentiated
_KERNEL = 16.0  # roundings of its kernel


@dataclass(frozen=True)
class Spread:
    """Variance and fourth cumulant of one group, elementwise: [nK, *shape].

    Cumulants of independent parts add up, so those of M groups are `var/M` and `fourth_cumulant/M³`.

    Attributes:
        var: the variance.
        fourth_cumulant: the fourth central moment less 3 var².
    """

    var: Bounded
    fourth_cumulant: Bounded

    def at(self, index: int) -> Spread:
        """That of one number of particles: [*shape]."""
        return Spread(self.var[index], self.fourth_cumulant[index])

    def kurtosis(self, groups: int = 1) -> np.ndarray:
        """Fourth central moment over var² of the mean of `groups` groups, rounded up by its error; NaN at var 0."""
        ratio = self.fourth_cumulant / (self.var * self.var * float(groups))
        return np.where(self.var.value > 0.0, 3.0 + ratio.value + ratio.error, np.nan)


class FourthEngine(GradientEngine):
    """The integrals of fourth moments, for a list of K ≥ 2."""

    def central(self, components: Components) -> tuple[Bounded, Bounded]:
        """Second and fourth central moments of one group's gradient, for each K: [N, nK, F]. Formula: fourth."""
        parts = self._centred(components)
        if max(parts):
            self.request([(sum(powers), tuple(parts[r] for r in powers)) for powers in tuples(parts)])
        return central(raw_moments(parts, lambda powers: self._tuple(powers, parts)))

    def _tuple(self, powers: tuple[int, ...], parts: Mapping[int, Any]) -> Bounded:
        """E[Π_i Σ_k w̃_k^{r_i} g_{i,k}], a power of 0 standing for 1/K."""
        total, found = sum(powers), 0
        for split in splits(len(powers)):
            blocks = [tuple(powers[i] for i in block) for block in split]
            found = (self._coincidence(blocks, parts) if total else self._plain(blocks, parts)) + found
        assert isinstance(found, Bounded)
        return found * (self.particles[:, None] ** -float(powers.count(0)) / (gamma(total) if total else 1.0))

    def _plain(self, blocks: Sequence[tuple[int, ...]], parts: Mapping[int, Any]) -> Bounded:
        """The same without weights: moments under the proposal."""
        moment: Any = prod(self.law.moment(0, tuple(parts[r] for r in block)) for block in blocks)
        return moment[:, None, :] * self._falling(len(blocks))

    def _coincidence(self, blocks: Sequence[tuple[int, ...]], parts: Mapping[int, Any]) -> Bounded:
        """The integral in which the positions of a block are one particle."""
        values: Any = prod(self.get(sum(block), *(parts[r] for r in block)).value for block in blocks)
        weight = self.power(len(blocks)) * (self._falling(len(blocks)) * self.grid.weight)
        return self.integral(weight, values, sum(map(sum, blocks)) + len(blocks))

    def _falling(self, count: int) -> np.ndarray:
        """K(K-1)…(K-count+1): [nK, 1]."""
        k = self.particles[:, None]
        return np.asarray(prod((np.maximum(k - i, 0.0) for i in range(count)), start=np.ones_like(k)))


def tuples(parts: Iterable[int]) -> list[tuple[int, ...]]:
    """The multisets of up to four powers."""
    return [c for n in range(1, ORDER + 1) for c in combinations_with_replacement(sorted(parts), n)]


def raw_moments(parts: Iterable[int], moment: Callable[[tuple[int, ...]], Any]) -> list[Any]:
    """The first four moments of a gradient, in any kind of number.

    Args:
        parts: the powers of its polynomials.
        moment: E[Π_i Σ_k w̃_k^{r_i} g_{i,k}] for a multiset of powers.
    """
    raw: list[Any] = [0] * ORDER
    for powers in tuples(parts):
        orders = factorial(len(powers)) // prod(factorial(powers.count(r)) for r in set(powers))
        raw[len(powers) - 1] = moment(powers) * float(orders) + raw[len(powers) - 1]
    return raw


def central(raw: Sequence[Any]) -> tuple[Any, Any]:
    """Second and fourth central moments from the first four raw ones, in any kind of number."""
    m1, m2, m3, m4 = raw
    square = m1 * m1
    return m2 - square, m4 - m1 * m3 * 4.0 + square * m2 * 6.0 - square * square * 3.0


@cache
def splits(count: int) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """All ways to split 0, …, count - 1 into blocks.

    >>> [len(splits(n)) for n in (1, 2, 3, 4)]
    [1, 2, 5, 15]
    """
    if count == 0:
        return ((),)
    found = []
    for smaller in splits(count - 1):
        found += [(*smaller[:i], (*block, count - 1), *smaller[i + 1 :]) for i, block in enumerate(smaller)]
        found.append((*smaller, (count - 1,)))
    return tuple(found)


def log_moments(engine: FiniteK) -> list[Bounded]:
    """E[log^n y] for n = 1, …, 4 and the first K: derivatives at 0 of E[y^-s], by Cauchy's integral: [N] each.

    Formula: log-powers.
    """
    difference, count = engine.difference[:, 0], engine.particles[0]
    log_kt = engine.grid.log_t + np.log(count)
    s = _RADIUS * np.exp(2j * np.pi * np.arange(_NODES) / _NODES)
    with np.errstate(over="ignore", invalid="ignore"):
        kernel = np.exp(s[:, None] * np.minimum(log_kt, 700.0)) * rgamma(s)[:, None] * engine.grid.weight
        kernel = np.where(np.isfinite(kernel), kernel, 0.0)  # [S, T]
    result = []
    for n in range(1, ORDER + 1):
        scale = (-1.0) ** n * factorial(n) / _NODES
        weight = scale * np.real(s**-n @ kernel)
        size = abs(scale) / _RADIUS**n * np.abs(kernel).sum(axis=0)
        found = Bounded(weight, EPS * (_KERNEL + np.abs(log_kt)) * size)
        result.append(matmul(difference, found, rule_error(1, engine.grid.step)))
    return result


def for_all(
    law: Any, components: Components, particles: Sequence[int], engine: FourthEngine | None
) -> tuple[Bounded, Bounded]:
    """Second and fourth central moments for every K: closed form at K = 1, integrals elsewhere: [N, nK, F]."""
    g = total(components)
    g = g.less(law.moment(0, (g,)).value)
    many = engine.central(components) if engine is not None else (None, None)
    second, fourth = (
        insert_single(particles, found, law.moment(0, (g,) * n)[:, None, :])
        for found, n in zip(many, (2, ORDER), strict=True)
    )
    return second, fourth
