"""Laws given by finitely many atoms: discrete latents, and nodes of a quadrature rule.

With states of probability `p_i`, weight `w_i` and gradient `g_i`, every moment and transform is a plain sum,

    E[w^a g e^{-t w^p}] = Σ_i p_i w_i^a g_i e^{-t w_i^p},

so that nothing but round-off stands between it and the truth of the atoms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.special import logsumexp

from toyiwae.memory import blocks
from toyiwae.oracle.laws.bounded import EPS, Bounded, dot, dot_rounding, dot_width
from toyiwae.oracle.laws.grid import Grid, Transform


@dataclass(frozen=True, eq=False)
class Table:
    """A function of the state, `base + values`, E[w values] = 0: base [1, F], values [F, n].

    `error` [F, n], or 0, bounds how far each value is off, less any of the function's means or not.
    """

    base: np.ndarray
    values: np.ndarray
    error: np.ndarray | float = 0.0

    @property
    def centred(self) -> Table:
        """The same function less its posterior mean."""
        return replace(self, base=np.zeros_like(self.base))

    def less(self, constant: np.ndarray) -> Table:
        """The function minus a constant per coordinate."""
        return replace(self, base=self.base - constant)

    def __getitem__(self, index) -> Table:
        """Choose coordinates."""
        error = self.error[index] if isinstance(self.error, np.ndarray) else self.error
        return Table(self.base[:, index], self.values[index], error)

    @property
    def plain(self) -> np.ndarray:
        """The function itself: [F, n]."""
        return self.base[0][:, None] + self.values

    @staticmethod
    def combine(terms: Sequence[tuple[float, Table]]) -> Table:
        """Σ factor · function."""
        base, values = (
            sum(factor * g.base for factor, g in terms),
            sum(factor * g.values for factor, g in terms),
        )
        return Table(np.asarray(base), np.asarray(values), sum(abs(factor) * g.error for factor, g in terms))


class DiscreteLaw:
    """The law of a weight on finitely many states.

    Args:
        log_prob: `[n]`, log-probabilities of the states under the proposal; they are normalised.
        log_w: `[n]`, log-weights in any units; they are normalised to E[w] = 1.
    """

    max_power, min_power = np.inf, -np.inf

    def __init__(self, log_prob: np.ndarray, log_w: np.ndarray):
        self.log_prob = log_prob - logsumexp(log_prob)
        self.log_w = log_w - logsumexp(self.log_prob + log_w)

    def __len__(self) -> int:
        """One observation."""
        return 1

    @cached_property
    def _prob(self) -> np.ndarray:
        return np.exp(self.log_prob)

    def table(self, values: np.ndarray | Bounded) -> Table:
        """A function of the state, given by its values `[F, n]`, centred under the posterior."""
        given, posterior = Bounded.exact(values), np.exp(self.log_prob + self.log_w)
        base = dot(given.value, posterior)
        error = 0.0
        if given.error.any():
            error = given.error + (given.error @ (posterior + self._prob))[:, None]
        return Table(base[None], given.value - base[:, None], error)

    def log_moment(self, s: float | np.ndarray) -> np.ndarray:
        """Log E[w^s] for real s [S]: [1, S]."""
        s = np.atleast_1d(np.asarray(s, dtype=float))
        return np.asarray(logsumexp(self.log_prob + s[:, None] * self.log_w, axis=1))[None]

    def moment(self, power: float, factors: tuple[Table, ...] = ()) -> Bounded:
        """E[w^power Π g]: [1, F]."""
        # beyond e^600 a moment is larger than any use for it
        weight = np.exp(np.minimum(self.log_prob + power * self.log_w, 600.0))
        size = self._rounding(8.0) + np.abs(self.log_prob) + abs(power) * np.abs(self.log_w)
        sizes = np.ones((1, len(self.log_w)))
        for factor in factors:
            sizes = sizes * (np.abs(factor.base[0])[:, None] + np.abs(factor.values))
        product = self._product(factors)
        known = power == 1 and len(factors) == 1
        value = factors[0].base if known else dot(product.value, weight)[None]
        return Bounded(value, (EPS * (sizes @ (size * weight)) + product.error @ weight)[None])

    def complex_moment(
        self, c: float, y: np.ndarray, factors: tuple[Table, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """E[w^s Π g] for s = c + iy, y [S], and a bound on its error: [1, S, F]."""
        product, weight = self._product(factors), np.exp(self.log_prob + c * self.log_w)
        parts, sizes = (product.value * weight).T, (np.abs(product.value) * weight).T
        turned, s = EPS * (np.abs(self.log_w) @ sizes), np.hypot(c, y)
        error = EPS * self._rounding(16.0) * sizes.sum(axis=0) + product.error @ weight
        value = np.zeros((len(y), parts.shape[1]), complex)
        for some, states in tiles(0, len(y), len(weight)):
            angle = np.multiply.outer(y[some], self.log_w[states])
            value[some] += np.cos(angle) @ parts[states] + 1j * (np.sin(angle) @ parts[states])
        return value[None], (error + s[:, None] * turned)[None]

    def moment_less_one(self, power: int) -> Bounded:
        """E[w^power] - 1: [1, 1]."""
        return self.moment(power) - 1.0

    def log_moments(
        self, factors: tuple[Table, ...], order: int, centre: float | np.ndarray = 0.0
    ) -> list[Bounded]:
        """E[Π g (log w - centre)^j] for j = 0, …, order: [1, F] each."""
        log_w = self.log_w - centre
        product, size = self._product(factors), np.ones((1, len(self.log_w)))
        for factor in factors:
            size = size * (np.abs(factor.base[0])[:, None] + np.abs(factor.values))
        found = []
        for j in range(order + 1):
            weight = self._prob * log_w**j
            size_of = np.abs(weight) * (self._rounding(8.0) + 2.0 * j + np.abs(self.log_prob))
            error = EPS * (size @ size_of) + product.error @ np.abs(weight)
            found.append(Bounded(dot(product.value, weight)[None], error[None]))
        return found

    def _product(self, factors: tuple[Table, ...]) -> Bounded:
        """Π g, and what the tables' own errors δ do to it, Π (|g| + δ) - Π |g|: [F, n]."""
        result = Bounded.exact(np.ones((1, len(self.log_w))))
        for factor in factors:
            own = factor.plain
            moved = result.error * (np.abs(own) + factor.error) + np.abs(result.value) * factor.error
            result = Bounded(result.value * own, moved)
        return result

    def upper_log_t(self, decay: float, p: float = 1.0) -> float:
        """Log t beyond which E[e^{-t w^p}] < e^-decay, from the smallest weight that carries that much probability."""
        order = np.argsort(self.log_w)
        enough = np.cumsum(self._prob[order]) > np.exp(-decay) / 2
        return float(np.log(decay + 1.0) - p * self.log_w[order][np.argmax(enough)])

    def smoothness(self, p: float = 1.0) -> None:
        """Nothing is known: every atom is a feature."""

    def deviation(self, power: int, grid: Grid) -> Bounded:
        """`t^a (E[w^a e^{-tw}] - e^{-t})` for a = 0 or 1: [1, T]."""
        w, t = np.exp(self.log_w), np.exp(np.minimum(grid.log_t, 300.0))[:, None]
        value, error = np.zeros((2, 1, len(t)))
        for rows, states in tiles(0, len(t), len(w)):
            terms, size = self._deviation_terms(power, t[rows], w[states])
            value[0, rows] += terms @ self._prob[states]
            error[0, rows] += EPS * self._rounding(4.0) * (size @ self._prob[states])
        return Bounded(value, error)

    @staticmethod
    def _deviation_terms(power: int, t: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What each state adds, and the sizes of what it is a difference of: [T, n]."""
        y = t * (w - 1.0)
        near = np.abs(y) < 0.5
        small = np.where(near, y, 0.0)
        with np.errstate(over="ignore", invalid="ignore"):
            decay, direct = np.exp(-t), np.exp(-np.minimum(t * w, 745.0))
            if power == 0:
                # the mean of the first order is zero: it is added where it helps, and dropped from the sum
                first = decay * t * (w - 1.0)
                terms = np.where(near, decay * _second_order(small), direct - decay + first)
                return terms, np.abs(terms) + np.where(near, 0.0, direct + decay + np.abs(first))
            terms = t * w * np.where(near, decay * np.expm1(-small), direct - decay)
            return terms, np.abs(terms) + np.where(near, 0.0, t * w * (direct + decay))

    def transform(
        self, power: float, requests: Sequence[tuple[Table, ...]], grid: Grid, p: float = 1.0
    ) -> list[Transform]:
        """`t^{a/p} E[w^a Π g e^{-t w^p}]` for each tuple of factors: see `Transform`. Formula: states."""
        products = [self._product(factors) for factors in requests]
        columns = [(x.value.T, np.abs(x.value).T, x.error.T if x.error.any() else None) for x in products]
        points, end = len(grid.log_t), self._taylor_end(power, p, grid.log_t)
        found = [np.zeros((2, 1, points, value.shape[1])) for value, _, _ in columns]
        for first, last, less in ((0, end, True), (end, points, False)):
            for rows, states in tiles(first, last, len(self.log_w)):
                weights, size = self._weights(power, p, grid.log_t[rows, None], states, less=less)
                for (remainder, error), (value, of_value, uncertain) in zip(found, columns, strict=True):
                    remainder[0, rows] += weights @ value[states]
                    error[0, rows] += EPS * (size @ of_value[states])
                    if uncertain is not None:
                        error[0, rows] += np.abs(weights) @ uncertain[states]
        split = np.arange(points) < end
        rise = np.where(split, np.exp(np.minimum((power / p) * grid.log_t, 600.0)), 0.0)[:, None]
        moments = [self.moment(power, factors) for factors in requests]
        return [
            Transform(Bounded(*parts), split, Bounded((rise * m.value)[None], (rise * m.error)[None]))
            for parts, m in zip(found, moments, strict=True)
        ]

    def _taylor_end(self, power: float, p: float, log_t: np.ndarray) -> int:
        """The point of the grid from which on the Taylor term is larger than the transform, and is not taken off.

        E[w^a e^{-t w^p}] falls with t, and what is left of E[w^a] grows: the smaller of the two is the more accurate.
        """
        weight = self.log_prob + power * self.log_w
        weight = np.exp(weight - weight.max())
        half, low, high = 0.5 * weight.sum(), 0, len(log_t)
        while low < high:
            middle = (low + high) // 2
            y = np.exp(np.minimum(log_t[middle] + p * self.log_w, 300.0))
            low, high = (middle + 1, high) if np.exp(-y) @ weight > half else (low, middle)
        return low

    def _weights(
        self, power: float, p: float, log_t: np.ndarray, states: slice, *, less: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """What some states add to a transform, and the sizes of its round-off in machine precisions: [T, n] each.

        Args:
            power: a.
            p: p.
            log_t: [T, 1].
            states: which.
            less: whether the Taylor term is taken off.
        """
        log_y = log_t + p * self.log_w[states]
        with np.errstate(over="ignore"):
            y = np.exp(np.minimum(log_y, 300.0))
            log_scaled = self.log_prob[states] + (power / p) * log_y
            weights = np.expm1(-y) * np.exp(np.minimum(log_scaled, 600.0)) if less else np.exp(log_scaled - y)
        return weights, np.abs(weights) * (self._rounding(8.0) + np.abs(log_y))

    def _rounding(self, own: float) -> float:
        """Of a sum over the states whose terms have been rounded so often, in machine precisions."""
        return own + dot_rounding(len(self.log_w)) / EPS


def tiles(first: int, end: int, states: int) -> Iterator[tuple[slice, slice]]:
    """Tiles of some rows of a table of states, √n wide: sums over one after another round no more than `dot`."""
    width = dot_width(states)
    for rows in blocks(first, end, width):
        for i in range(0, states, width):
            yield rows, slice(i, i + width)


def _second_order(y: np.ndarray) -> np.ndarray:
    """e^{-y} - 1 + y for |y| < ½, without cancellation."""
    series = np.zeros_like(y)
    for n in range(16, 1, -1):
        series = (1.0 - y * series) / n if n > 2 else 0.5 * (1.0 - y * series)
    return y * y * series
