"""Exact fourth moments: how far a sample variance of a gradient, or of a bound's value, can be trusted.

The n-th moment of `Σ_r Σ_k w̃_k^r G_r(ε_k)` is a sum over n-tuples of powers and over the ways in which their
particles coincide. With R the sum of the powers and the tuple's positions split into b blocks of equal particles,

    E[Π_i Σ_k w_k^{r_i} g_{i,k} / S^R] = 1/Γ(R) Σ_splits K(K-1)…(K-b+1) ∫ t^R Π_B Λ_{R_B, Π_B g} Λ^{K-b} dt/t.

It exists whatever moments the weight has. For the value, `y = (1/K) Σ w` in units of its mean has

    E[y^{-s}] = 1 + 1/Γ(s) ∫ t^{s-1} (Λ(t/K)^K - e^{-t}) dt        for s in a circle about 0,

whose derivatives at 0 are the moments of log y. Central moments lose digits where they cancel; they serve to plan
and judge tests, and carry their errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from toyiwae.oracle.laws.bounded import EPS, Bounded

ORDER = 4
_RADIUS, _NODES = 0.5, 48  # of the circle on which E[y^-s] is differentiated


@dataclass(frozen=True)
class Spread:
    """Variance and fourth cumulant of one group, elementwise: [nK, *shape].

    Cumulants of independent parts add up, so those of M groups are `var/M` and `excess/M³`.

    Attributes:
        var: the variance.
        excess: the fourth cumulant, the fourth central moment less 3 var².
        error: bound on the error of the fourth central moment.
    """

    var: np.ndarray
    excess: np.ndarray
    error: np.ndarray

    def at(self, index: int) -> Spread:
        """That of one number of particles: [*shape]."""
        return Spread(self.var[index], self.excess[index], self.error[index])

    def kurtosis(self, groups: int = 1) -> np.ndarray:
        """Fourth central moment over var² of the mean of `groups` groups, rounded up by its error; NaN at var 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(3.0 + (self.excess + self.error) / (groups * self.var**2))


class FourthEngine(GradientEngine):
    """The integrals of fourth moments, for a list of K ≥ 2."""

    def central(self, components: Components) -> tuple[Bounded, Bounded]:
        """Second and fourth central moments of one group's gradient, for each K: [N, nK, F]."""
        parts = self._centred(components)
        self._prepare_all(parts)
        return central([self._raw(parts, n) for n in range(1, ORDER + 1)])

    def _prepare_all(self, parts: Mapping[int, Any]) -> None:
        """All transforms, in one batch for each power."""
        wanted: dict[int, dict[tuple[int, ...], tuple[Any, ...]]] = {}
        for n in range(1, ORDER + 1):
            for powers in combinations_with_replacement(sorted(parts), n):
                power, factors = sum(powers), tuple(parts[r] for r in powers)
                key = (power, *sorted(map(id, factors)))
                if max(parts) and key not in self._transforms:
                    wanted.setdefault(power, {})[key] = factors
        for power, batch in wanted.items():
            found = self.law.transform(power, list(batch.values()), self.grid)
            self._transforms.update(zip(batch, found, strict=True))

    def _raw(self, parts: Mapping[int, Any], n: int) -> Bounded:
        """The n-th moment of the centred gradient."""
        value, error = np.zeros(1), np.zeros(1)
        for powers in combinations_with_replacement(sorted(parts), n):
            orders = factorial(n) // prod(factorial(powers.count(r)) for r in set(powers))
            part = self._tuple(powers, parts)
            value, error = value + orders * part.value, error + orders * part.error
        return Bounded(value, error)

    def _tuple(self, powers: tuple[int, ...], parts: Mapping[int, Any]) -> Bounded:
        """E[Π_i Σ_k w̃_k^{r_i} g_{i,k}], a power of 0 standing for 1/K."""
        value, error, k = np.zeros(1), np.zeros(1), self.particles[:, None]
        for split in splits(len(powers)):
            blocks = [tuple(powers[i] for i in block) for block in split]
            part = self._coincidence(blocks, parts) if sum(powers) else self._plain(blocks, parts)
            value, error = value + part.value, error + part.error
        scale = k ** -float(powers.count(0)) / (gamma(sum(powers)) if sum(powers) else 1.0)
        return Bounded(value * scale, error * scale)

    def _plain(self, blocks: Sequence[tuple[int, ...]], parts: Mapping[int, Any]) -> Bounded:
        """The same without weights: moments under the proposal."""
        found = [self.law.moment(0, tuple(parts[r] for r in block)) for block in blocks]
        moment: Any = prod(found)
        return moment[:, None, :] * self._falling(len(blocks))

    def _coincidence(self, blocks: Sequence[tuple[int, ...]], parts: Mapping[int, Any]) -> Bounded:
        """The integral in which the positions of a block are one particle."""
        found = [self.get(sum(block), *(parts[r] for r in block)) for block in blocks]
        values = [transform.value.value for transform in found]
        value: Any = prod(values)
        size, moved = np.abs(value), np.zeros(1)
        for i, transform in enumerate(found):
            others: Any = prod(values[:i] + values[i + 1 :], start=np.ones(1))
            moved = moved + transform.value.error * np.abs(others)
        power = self.power(len(blocks)) * (self._falling(len(blocks)) * self.grid.weight)
        rule = rule_error(sum(map(sum, blocks)) + len(blocks), self.grid.step) + 8 * EPS
        weight, slack = power.value, power.error
        return Bounded(weight @ value, weight @ (moved + rule * size) + slack @ size)

    def _falling(self, count: int) -> np.ndarray:
        """K(K-1)…(K-count+1): [nK, 1]."""
        k = self.particles[:, None]
        return np.asarray(prod((np.maximum(k - i, 0.0) for i in range(count)), start=np.ones_like(k)))


def central(raw: Sequence[Bounded]) -> tuple[Bounded, Bounded]:
    """Second and fourth central moments from the first four raw ones."""
    (m1, m2, m3, m4), (e1, e2, e3, e4) = (
        [getattr(moment, name) for moment in raw] for name in ("value", "error")
    )
    size = np.abs(m1)
    second = Bounded(m2 - m1**2, e2 + 2 * size * e1 + 4 * EPS * (m2 + m1**2))
    value = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
    error = e4 + 4 * size * e3 + 6 * m1**2 * e2
    error = error + e1 * (4 * np.abs(m3) + 12 * size * m2 + 12 * size**3)
    return second, Bounded(value, error + 8 * EPS * (np.abs(m4) + 4 * np.abs(m1 * m3) + 6 * m1**2 * m2))


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


def log_moments(engine: FiniteK) -> list[tuple[np.ndarray, np.ndarray]]:
    """E[log^n y] for n = 1, …, 4, each with its error: derivatives at 0 of E[y^-s], by Cauchy's integral: [N]."""
    difference, error = engine.difference.value[:, 0], engine.difference.error[:, 0]
    log_kt = engine.grid.log_t + np.log(engine.particles[0])
    turns = np.exp(2j * np.pi * np.arange(_NODES) / _NODES)
    s = _RADIUS * turns
    with np.errstate(over="ignore", invalid="ignore"):
        kernel = (
            np.exp(s[:, None] * np.minimum(log_kt, 700.0)) * rgamma(s)[:, None] * engine.grid.weight
        )  # [S, T]
        kernel = np.where(np.isfinite(kernel), kernel, 0.0)
    found, slack = (
        difference @ kernel.T,
        error @ np.abs(kernel).T + 8 * EPS * (np.abs(difference) @ np.abs(kernel).T),
    )
    result = []
    for n in range(1, ORDER + 1):
        scale = (-1.0) ** n * factorial(n) / (_NODES * _RADIUS**n)
        result.append((scale * np.real(found @ turns**-n), np.abs(scale) * slack.sum(axis=1)))
    return result


def for_all(
    law: Any, components: Components, particles: Sequence[int], engine: FourthEngine | None
) -> tuple[Bounded, Bounded]:
    """Second and fourth central moments for every K: closed form at K = 1, integrals elsewhere: [N, nK, F]."""
    g = total(components)
    g = g.less(law.moment(0, (g,)).value)
    one = [law.moment(0, (g,) * n)[:, None, :] for n in (2, ORDER)]
    many = engine.central(components) if engine is not None else (None, None)
    second, fourth = (insert_single(particles, many[i], one[i]) for i in range(2))
    return second, fourth
