"""The means E[g k(tw, uw)] of `toyiwae.oracle.finite_k.weight_kernels` for laws of atoms: sums over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np

from toyiwae.memory import blocks
from toyiwae.oracle.finite_k.weight_kernels import LOG_WEIGHT, Kernel
from toyiwae.oracle.laws.bounded import EPS, Bounded, dot_rounding, dot_width, stack
from toyiwae.oracle.laws.discrete import DiscreteLaw
from toyiwae.oracle.laws.grid import Grid

_MORE_LAGS = 64  # by which tables of atoms grow

_Terms = tuple[list[np.ndarray], np.ndarray]
"""What a tile of atoms adds to sums of several kinds at some points of the grid, and its relative rounding."""


class DiscreteKernels:
    """The same means for a law of atoms, as sums over them.

    Tables stand in tiles of √n states `[C, T, √n]`, the last of which is filled up with atoms of no probability: sums
    over one tile after another round no more than `dot` does.
    """

    def __init__(self, law: DiscreteLaw, grid: Grid):
        self.law, self.grid = law, grid
        self._direct = grid.log_t > 0.0
        self._lags = 0

    def _tiled(self, values: np.ndarray) -> np.ndarray:
        """Values of the atoms `[n, F]` in tiles `[C, √n, F]`."""
        n, f = values.shape
        width = dot_width(n)
        return np.concatenate([values, np.zeros((-n % width, f))]).reshape(-1, width, f)

    @cached_property
    def _log_w(self) -> np.ndarray:
        return self._tiled(self.law.log_w[:, None])[..., 0]

    @cached_property
    def _table(self) -> _AtomTable:
        return _AtomTable(self.grid.log_t, self._log_w)

    def single(self, kernel: Kernel, score: Any) -> Bounded:
        """E[g k(tw)]: [1, T, F]."""

        def terms(at: tuple[int, slice], _: bool) -> _Terms:
            y, rounding = _arguments(self.grid.log_t[at[1]], self._log_w[at[0]])
            return [kernel.plain(y)], rounding

        return self._means(terms, 1, score)[0]

    def joint(self, lags: np.ndarray) -> tuple[Bounded, np.ndarray]:
        """As of Gaussian laws."""
        found = []
        for t, u in self._shifted(lags):

            def terms(at: tuple[int, slice], direct: bool, t: _AtomTable = t, u: _AtomTable = u) -> _Terms:
                left, right = (t.decay, u.decay) if direct else (t.growth, u.growth)
                return [left[at] * right[at]], t.rounding[at] + u.rounding[at]

            found.append(self._means(terms, 1, None)[0][..., 0])
        return stack(found), self._direct

    def pairs(self, score: Any, lags: np.ndarray) -> tuple[Bounded, Bounded, np.ndarray]:
        """As of Gaussian laws."""
        found = []
        for t, u in self._shifted(lags):

            def terms(at: tuple[int, slice], direct: bool, t: _AtomTable = t, u: _AtomTable = u) -> _Terms:
                first = t.log_weight[at] * (u.decay if direct else u.growth)[at]
                right = (1.0 + u.y[at]) * u.decay[at] if direct else u.log_weight[at]
                return [first, t.growth[at] * right], t.rounding[at] + u.rounding[at]

            found.append(self._means(terms, 2, score))
        first, second = (stack(list(sums)) for sums in zip(*found, strict=True))
        return first, second, self._direct

    def _shifted(self, lags: np.ndarray) -> Iterator[tuple[_AtomTable, _AtomTable]]:
        """The tables at t and at u, for each lag; what smaller t need is put before them."""
        missing = int(lags[-1]) - self._lags
        if missing > 0:
            more = max(missing, _MORE_LAGS)
            log_t = self.grid.log_t[0] - self.grid.step * np.arange(self._lags + more, self._lags, -1)
            self._table = _AtomTable(log_t, self._log_w).before(self._table)
            self._lags += more
        count, u = len(self.grid.log_t), self._table[self._lags :]
        for lag in lags:
            start = self._lags - int(lag)
            yield self._table[start : start + count], u

    def _means(
        self, terms: Callable[[tuple[int, slice], bool], _Terms], count: int, score: Any
    ) -> list[Bounded]:
        """Σ p g terms for so many kinds of terms: [1, T, F] each.

        Args:
            terms: of one tile at some points of the grid, all `direct` or none.
            count: how many kinds.
            score: g; None for 1.
        """
        prob = np.exp(self.law.log_prob)
        factor, uncertain = prob[:, None], None
        if score is not None:
            factor = (prob * score.plain).T
            if np.any(score.error):
                uncertain = self._tiled((prob * score.error * np.ones_like(score.plain)).T)
        factor, summing = self._tiled(factor), dot_rounding(len(prob)) / EPS
        size_of, points = np.abs(factor), len(self.grid.log_t)
        found = np.zeros((count, 2, 1, points, factor.shape[-1]))
        middle = int(np.searchsorted(self._direct, True))
        for first, end, direct in ((0, middle, False), (middle, points, True)):
            for rows in blocks(first, end, factor.shape[1]):
                for tile in range(len(factor)):
                    kinds, rounding = terms((tile, rows), direct)
                    for (value, bound), own in zip(found, kinds, strict=True):
                        size = np.abs(own)
                        value[0, rows] += own @ factor[tile]
                        bound[0, rows] += EPS * ((size * (rounding + summing)) @ size_of[tile])
                        if uncertain is not None:
                            bound[0, rows] += size @ uncertain[tile]
        return [Bounded(*pair) for pair in found]


def _arguments(log_t: np.ndarray, log_w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Arguments tw at the atoms, and the relative rounding of functions of them in machine precisions: [..., T, n]."""
    log_y = np.minimum(log_t[:, None] + log_w[..., None, :], 300.0)
    y = np.exp(log_y)
    return y, 8.0 + 2.0 * (1.0 + np.minimum(y, 700.0)) * (1.0 + np.abs(log_y))


class _AtomTable:
    """Functions of y = tw at the atoms, and their relative rounding: [C, T, √n]."""

    def __init__(self, log_t: np.ndarray, log_w: np.ndarray):
        self.y, self.rounding = _arguments(log_t, log_w)
        self.decay, self.growth = np.exp(-self.y), -np.expm1(-self.y)
        self.log_weight = LOG_WEIGHT.plain(self.y)

    def __getitem__(self, rows: slice) -> _AtomTable:
        """Some of the t."""
        return self._made(lambda name: getattr(self, name)[:, rows])

    def before(self, other: _AtomTable) -> _AtomTable:
        """The rows of both."""
        return self._made(lambda name: np.concatenate([getattr(self, name), getattr(other, name)], axis=1))

    def _made(self, entry: Callable[[str], np.ndarray]) -> _AtomTable:
        made = object.__new__(_AtomTable)
        for name in vars(self):
            setattr(made, name, entry(name))
        return made
