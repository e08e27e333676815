"""Laws given by finitely many atoms: discrete latents, and nodes of a quadrature rule.

With states of probability `p_i`, weight `w_i` and gradient `g_i`, every moment and transform is a plain sum,

    E[w^a g e^{-t w^p}] = Σ_i p_i w_i^a g_i e^{-t w_i^p},

so that nothing but round-off stands between it and the truth of the atoms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.special import logsumexp

from toyiwae.oracle.laws.bounded import EPS, Bounded
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
        base = given.value @ posterior
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
        size = 8.0 + np.abs(self.log_prob) + abs(power) * np.abs(self.log_w)
        sizes = np.ones((1, len(self.log_w)))
        for factor in factors:
            sizes = sizes * (np.abs(factor.base[0])[:, None] + np.abs(factor.values))
        product = self._product(factors)
        known = power == 1 and len(factors) == 1
        value = factors[0].base if known else (product.value @ weight)[None]
        return Bounded(value, (EPS * (sizes @ (size * weight)) + product.error @ weight)[None])

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
            size_of = np.abs(weight) * (8.0 + 2.0 * j + np.abs(self.log_prob))
            error = EPS * (size @ size_of) + product.error @ np.abs(weight)
            found.append(Bounded((product.value @ weight)[None], error[None]))
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
        t = np.exp(np.minimum(grid.log_t, 300.0))[:, None]
        w = np.exp(self.log_w)
        y = t * (w - 1.0)
        near = np.abs(y) < 0.5
        small = np.where(near, y, 0.0)
        with np.errstate(over="ignore", invalid="ignore"):
            decay, direct = np.exp(-t), np.exp(-np.minimum(t * w, 745.0))
            first = decay * t * (w - 1.0)  # its mean is zero: added where it helps, and dropped from the sum
            if power == 0:
                terms = np.where(near, decay * _second_order(small), direct - decay + first)
                size = np.abs(terms) + np.where(near, 0.0, direct + decay + np.abs(first))
            else:
                terms = t * w * np.where(near, decay * np.expm1(-small), direct - decay)
                size = np.abs(terms) + np.where(near, 0.0, t * w * (direct + decay))
        return Bounded((terms @ self._prob)[None], (4 * EPS * (size @ self._prob))[None])

    def transform(
        self, power: float, requests: Sequence[tuple[Table, ...]], grid: Grid, p: float = 1.0
    ) -> list[Transform]:
        """`t^{a/p} E[w^a Π g e^{-t w^p}]` for each tuple of factors: see `Transform`. Formula: states."""
        log_y = grid.log_t[:, None] + p * self.log_w  # [T, n]
        with np.errstate(over="ignore"):
            y = np.exp(np.minimum(log_y, 300.0))
            log_scaled = self.log_prob + (power / p) * log_y
            whole, less = np.exp(log_scaled - y), np.expm1(-y) * np.exp(np.minimum(log_scaled, 600.0))
            split = -less.sum(axis=1) < whole.sum(axis=1)  # the smaller of the two is the more accurate
            rise = np.where(split, np.exp(np.minimum((power / p) * grid.log_t, 600.0)), 0.0)[:, None]
        weights = np.where(split[:, None], less, whole)
        size = np.abs(weights) * (8.0 + np.abs(log_y))
        result = []
        for factors in requests:
            values = self._product(factors)
            moment = self.moment(power, factors)
            leading = Bounded((rise * moment.value)[None], (rise * moment.error)[None])
            error = EPS * (size @ np.abs(values.value).T) + np.abs(weights) @ values.error.T
            remainder = Bounded((weights @ values.value.T)[None], error[None])
            result.append(Transform(remainder, split, leading))
        return result


def _second_order(y: np.ndarray) -> np.ndarray:
    """e^{-y} - 1 + y for |y| < ½, without cancellation."""
    series = np.zeros_like(y)
    for n in range(16, 1, -1):
        series = (1.0 - y * series) / n if n > 2 else 0.5 * (1.0 - y * series)
    return y * y * series
