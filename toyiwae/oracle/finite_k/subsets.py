"""Variance of the average of a self-normalised gradient over all subsets of m of K particles, at any K.

The average is a U-statistic; with `Δ_A = Σ_{k∈A} w_k g_k / S_A` and subsets that share c of their particles,

    Var[mean_A Δ_A] = Σ_{c≥1} H_c ζ_c,     ζ_c = Cov[Δ_A, Δ_B], |A∩B| = c,     H_c = C(m,c) C(K-m,m-c) / C(K,m),

where no ζ_c depends on K (hoeffding1948statistics). ζ_m is the variance of a group of m; for c < m, with `Λ` the
transform of w, `G(t) = t E[w g e^{-tw}]`, `Q(t) = t² E[w² g² e^{-tw}]`, `s = t + u`, `r = t/s` and `p = u/s`,

    E[Δ_A Δ_B] = ∬ { rp [c Q(s) Λ(s)^{c-1} + c(c-1) G(s)² Λ(s)^{c-2}] (Λ(t)Λ(u))^{m-c}
                     + c(m-c) G(s) Λ(s)^{c-1} [r Λ(t) G(u) + p Λ(u) G(t)] (Λ(t)Λ(u))^{m-c-1}
                     + (m-c)² G(t) G(u) Λ(s)^c (Λ(t)Λ(u))^{m-c-1} } dt/t du/u,

less the product of the means under the integral. One rule in log u and in the lag between log t and log u serves all c.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import comb
from typing import Any

import numpy as np

from toyiwae.oracle.finite_k.bounds import common_grid
from toyiwae.oracle.finite_k.gradients import GradientEngine, covariance_of_one
from toyiwae.oracle.laws.bounded import EPS, Bounded, concatenate, matmul, stack
from toyiwae.oracle.laws.grid import Grid
from toyiwae.oracle.laws.protocol import Function, Law

_ROUNDING = 4 * EPS
_ENDS = 10.0  # times the integrand at an end bounds what is beyond it


def variance(law: Law, g: Function, particles: Sequence[int], size: int) -> Bounded:
    """Var of the average of `Σ_{k∈A} w_k g_k / S_A` over subsets A of `size` particles, for each K: [N, nK, F].

    Formula: subsets.
    """
    g = g.centred
    parts = {1: g}
    if size == 1:
        return stack([covariance_of_one(law, parts, parts, k)[:, 0] for k in particles], axis=1)
    whole = GradientEngine(law, [size]).covariance(parts, parts)  # ζ_m [N, 1, F]
    shared = whole if all(k == size for k in particles) else concatenate([_shared(law, g, size), whole], axis=1)
    first = size + 1 - shared.shape[1]
    weights = np.array([[_chance(k, size, c) for c in range(first, size + 1)] for k in particles])
    return matmul(Bounded.rounded(weights), shared, 0.0)


def _chance(k: int, size: int, c: int) -> float:
    """H_c: that two subsets, drawn apart, share c particles."""
    return comb(size, c) * comb(k - size, size - c) / comb(k, size)


def _shared(law: Law, g: Function, size: int) -> Bounded:
    """ζ_c for c = 1, ..., m-1: [N, m-1, F]."""
    around = common_grid(law, [size])
    grid = Grid.spanning(around.log_t[0] + 1e-3, around.log_t[-1] - 1e-3)
    total: Any = 0
    largest = 0.0
    for part, terms in _lags(law, g, size, grid):
        total = part + total
        largest = np.maximum(largest, terms)
        if (terms <= EPS / 16 * largest).all():
            break
    return total.widened(2.0 / np.expm1(grid.step) * terms + _ROUNDING * np.abs(total.value))


def _lags(law: Law, g: Function, size: int, grid: Grid) -> Iterator[tuple[Bounded, np.ndarray]]:
    """What each lag adds to every ζ_c, and the sizes of its terms: [N, m-1, F] each."""
    base, first = _transforms(law, grid, (0, ()), (1, (g,)))
    c = np.arange(1.0, size)[:, None]
    for lag in range(len(grid.log_t)):
        ratio = np.exp(-lag * grid.step)
        r, p = 1.0 / (1.0 + ratio), ratio / (1.0 + ratio)
        sums = grid.shifted(lag, float(np.log1p(ratio)))
        joint, second = _transforms(law, sums, (0, ()), (2, (g, g)))
        (both,) = _transforms(law, sums, (1, (g,)))
        large, small = slice(lag, None), slice(None, len(grid.log_t) - lag)
        a, b, one, other = base[:, large], base[:, small], first[:, large], first[:, small]
        apart, pair = a * b, one * other
        powers = [list(accumulate([x[..., 0]] * (size - 1), Bounded.__mul__)) for x in (joint, apart)]
        together, alone = ([Bounded.exact(np.ones(x[0].shape)), *x] for x in powers)
        weight = stack([together[n - 1] * alone[size - n - 1] for n in range(1, size)], axis=1)
        terms = [
            (weight, apart * second * (r * p), c),
            (weight, both * (a * other * r + b * one * p), c * (size - c)),
            (weight, joint * pair, (size - c) ** 2),
            (alone[size - 1][:, None] * np.ones((1, size - 1, 1)), pair, -float(size**2) * np.ones_like(c)),
        ]
        if size > 2:
            twice = [together[n - 2] * alone[size - n] for n in range(2, size)]
            twice = stack([twice[0] * 0.0, *twice], axis=1)
            terms.append((twice, both * both * (r * p), c * (c - 1.0)))
        scale = grid.step**2 * (2.0 if lag else 1.0)
        yield _summed(terms, scale)


def _summed(terms: list[tuple[Bounded, Bounded, np.ndarray]], scale: float) -> tuple[Bounded, np.ndarray]:
    """Σ factor Σ_t weight · values, the ends added to its error, and Σ of absolute terms."""
    total, size = [], 0.0
    for weight, values, factor in terms:
        found = matmul(weight, values, _ROUNDING)
        ends = sum(np.abs(weight.value[..., [i]] * values.value[:, None, i]) for i in (0, -1))
        total.append(found.widened(_ENDS * ends) * (factor * scale))
        size = size + np.abs(weight.value) @ np.abs(values.value) * np.abs(factor) * scale
    return sum(total[1:], total[0]), size


def _transforms(law: Law, grid: Grid, *wanted: tuple[int, tuple[Any, ...]]) -> list[Bounded]:
    """`t^a E[w^a Π g e^{-tw}]` on a grid: [N, T, F] each."""
    return [law.transform(power, [factors], grid)[0].value for power, factors in wanted]
