"""Means E[g k(tw, uw)] over one particle, for the kernels k that logarithms of normalised weights need.

With κ(y) = 1 - e^{-y} - y e^{-y} and E[g] = 0, at two arguments of ratio ρ = t/u ≤ 1,

    A(t,u) = E[g κ(tw) e^{-uw}],    A_0(t) = A(t,0),    B(t,u) = A_0(t) - A(t,u) = E[g κ(tw) (1 - e^{-uw})].

For Gaussian laws each is a contour integral of u^{-s} Γ(s) r(s) E[w^{-s} g] with r in closed form, which keeps the
relative accuracy of every order of vanishing at small u: no Taylor term is ever subtracted. For atoms each is a sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import digamma, expi, gammainc, gammaln

from toyiwae.memory import blocks
from toyiwae.oracle.laws import contour
from toyiwae.oracle.laws.bounded import EPS, Bounded, concatenate, dot_rounding, stack
from toyiwae.oracle.laws.discrete import DiscreteLaw
from toyiwae.oracle.laws.gaussian import GaussianLaw, Segment
from toyiwae.oracle.laws.grid import Grid
from toyiwae.oracle.laws.tilted import TiltedNoise

EULER = float(np.euler_gamma)
_COLUMNS = 4096  # of one matrix product
_NODES = 1024  # of one matrix product
_MORE_LAGS = 64  # by which tables of atoms grow
_MOST_KEPT = 4_000_000  # powers t^{-iy} of one contour

_Terms = tuple[list[np.ndarray], np.ndarray]
"""What a tile of atoms adds to sums of several kinds at some points of the grid, and its relative rounding."""


@dataclass(frozen=True)
class Kernel:
    """A function k of y = tw.

    Attributes:
        strip: the abscissae at which its Mellin transform k* exists, once E[g] = 0.
        ratio: k*(s)/Γ(s).
        plain: k itself.
    """

    strip: tuple[float, float]
    ratio: Callable[[np.ndarray], np.ndarray]
    plain: Callable[[np.ndarray], np.ndarray]


def _mixed(y: np.ndarray) -> np.ndarray:
    """∫_0^1 κ(py) e^{-(1-p)y} dp/p = e^{-y} Σ_{n≥2} y^n/(n n!)."""
    return np.asarray(np.piecewise(y, [y < 1.0, (y >= 1.0) & (y < 40.0)], [_near, _between, _far]))


def _near(y: np.ndarray) -> np.ndarray:
    series = np.zeros_like(y)
    for n in range(20, 1, -1):
        series = (series + 1.0 / n) * y / n
    return np.exp(-y) * y * series


def _between(y: np.ndarray) -> np.ndarray:
    return np.exp(-y) * (expi(y) - np.log(y) - EULER - y)


def _far(y: np.ndarray) -> np.ndarray:
    series = np.zeros_like(y)
    for n in range(30, 0, -1):
        series = (series + 1.0) * n / y
    return (1.0 + series) / y


LOG_WEIGHT = Kernel((-2.0, np.inf), lambda s: -(1.0 + s), lambda y: gammainc(2.0, y))
"""κ, of which -log(1-w̃) - w̃ = ∫ κ(tw) e^{-t(S-w)} dt/t."""

MIXED = Kernel((-2.0, 1.0), lambda s: -(EULER + digamma(1.0 - s) + s), _mixed)
"""∫_0^1 κ(py) e^{-(1-p)y} dp/p, which meets the normalised weight of another particle."""


class GaussianKernels:
    """The kernels' means for a Gaussian law, on a uniform grid of u.

    Lags d [V] stand for t = u e^{-dh}, h the step of the grid. Where `direct` [T] holds, means at two arguments are
    given by what they decay to at large u, elsewhere by what they vanish with at small u.
    """

    def __init__(self, law: GaussianLaw, grid: Grid):
        self.law, self.grid = law, grid
        self._known: dict[Any, list[_Contour]] = {}

    def single(self, kernel: Kernel, score: Any) -> Bounded:
        """E[g k(tw)]: [N, T, F]."""
        parts = _contours(self.law, self.grid, (score,), kernel.strip, lambda c, _: kernel.ratio(c))
        return concatenate([part.sums(kernel.ratio(part.s)[:, None]) for part in parts], axis=2)[0]

    def joint(self, lags: np.ndarray) -> tuple[Bounded, np.ndarray]:
        """Λ(t+u) where direct, E[(1 - e^{-tw})(1 - e^{-uw})] elsewhere: [V, N, T], and `direct` [T]."""
        (found,), direct = self._over((), -2.0, _joint_ratio, lags)
        return found[..., 0], direct

    def pairs(self, score: Any, lags: np.ndarray) -> tuple[Bounded, Bounded, np.ndarray]:
        """A(t,u) and E[g (1+uw) e^{-uw} (1 - e^{-tw})] where direct, B(t,u) and B(u,t) elsewhere: [V, N, T, F].

        Formula: pair-kernel.
        """
        (first, second), direct = self._over((score,), -3.0, _pair_ratios, lags)
        return first, second, direct

    def _over(
        self, factors: tuple[Any, ...], low: float, ratios: Callable[..., list[np.ndarray]], lags: np.ndarray
    ) -> tuple[list[Bounded], np.ndarray]:
        if factors not in self._known:
            one = np.ones(1)
            strip = (low, np.inf)
            self._known[factors] = _contours(
                self.law, self.grid, factors, strip, lambda c, direct: ratios(c, one, direct=direct)[-1]
            )
        rho = np.exp(-self.grid.step * lags)
        parts = self._known[factors]
        found = [[part.sums(r) for r in ratios(part.s[:, None], rho, direct=part.c > 0.0)] for part in parts]
        direct = np.concatenate([np.full(part.stop - part.start, part.c > 0.0) for part in parts])
        return [concatenate(list(sums), axis=2) for sums in zip(*found, strict=True)], direct


def _joint_ratio(s: np.ndarray, rho: np.ndarray, *, direct: bool) -> list[np.ndarray]:
    decay = np.exp(-s * np.log1p(rho))
    return [decay if direct else decay - rho**-s - 1.0]


def _pair_ratios(s: np.ndarray, rho: np.ndarray, *, direct: bool) -> list[np.ndarray]:
    decay = np.exp(-s * np.log1p(rho))
    slope = s * decay / (1.0 + rho)
    first, second = 1.0 - decay - rho * slope, 1.0 + s - decay - slope
    return [first, second] if direct else [-(1.0 + s) * rho**-s - first, -(rho**-s) - second]


def _contours(
    law: GaussianLaw,
    grid: Grid,
    factors: tuple[Any, ...],
    strip: tuple[float, float],
    ratio: Callable[[np.ndarray, bool], np.ndarray],
) -> list[_Contour]:
    """Contours for the whole grid, each on one side of s = 0; `ratio` is that of the kernel at real abscissae."""
    low, high = max(strip[0], -law.max_power), min(strip[1], -law.min_power)
    ends = ((low, 0.0), (0.0, high))
    sides = [contour.candidates(a, b, floor=a, poles=0, spread=law._spread)[0] for a, b in ends]
    abscissa, order = np.concatenate(sides), np.repeat([1, 0], [len(side) for side in sides])
    with np.errstate(divide="ignore"):
        size = np.concatenate([np.log(np.abs(ratio(c, c is sides[1]))) for c in sides]) + gammaln(abscissa)
    size = size + law.log_moment(-abscissa)
    if factors:
        size = size + 0.5 * factors[0].degree * np.log(
            TiltedNoise(law.beta, law.h, -abscissa).second_moment().max(axis=-1)
        )
    good = np.isfinite(size).all(axis=0)
    table = contour.Contours(abscissa[good], order[good], size[:, good], plain=1)
    return [
        _Contour(law, table, line, step, grid, start, stop, factors)
        for line, step, start, stop in table.choose(grid.log_t, grid.breaks)
    ]


class _Contour(Segment):
    """One contour on one part of the grid, for many kernels."""

    def __init__(
        self,
        law: GaussianLaw,
        table: contour.Contours,
        line: int,
        step: float,
        grid: Grid,
        start: int,
        stop: int,
        factors: tuple[Any, ...],
    ):
        super().__init__(law, table, line, step, grid, start, stop, 0.0, 1.0, deviation=False)
        self._phases: dict[int, np.ndarray] = {}
        self.c = float(table.abscissa[line])
        self.s = self.c + 1j * self.y
        mean = np.ones((1, len(self.y), 1))
        if factors:
            mean = TiltedNoise(law.beta, law.h, self.nodes.s).expectation(factors)
        inner, size = np.abs(mean), self.size[:, :, None] * np.abs(mean)
        self._f = ((self.base[0] + 1j * self.base[1])[:, :, None] * mean).transpose(1, 0, 2)  # [S, N, F]
        self._size, self._moving = (
            x.transpose(1, 0, 2) for x in (8.0 * EPS * size, EPS * self.y[:, None] * size)
        )
        starts = self.nodes.starts
        rounding, perturbation = self.rounding
        relative = np.repeat(rounding + perturbation, np.diff(np.append(starts, len(self.y))), axis=1)
        fixed = relative[:, :, None] * size
        if factors:
            every = int(starts[1]) if len(starts) > 1 else len(self.y)  # sizes vary slowly along a contour
            coarse = 2.0 * EPS * every * self.size[:, ::every, None]
            fixed[:, ::every] += coarse * law.sizes(self.nodes.s[::every], factors)
        self._fixed = fixed.transpose(1, 0, 2)
        self._last = EPS * self.size.max(axis=1)[:, None] * inner.max(axis=1) / self.step  # [N, F]

    def sums(self, ratio: np.ndarray) -> Bounded:
        """The contour integrals with the kernels Γ(s) r(s), r [S, V]: [V, N, T', F]."""
        s, n, f = self._f.shape
        width = max(1, _COLUMNS // (n * f))
        value = []
        for first in range(0, ratio.shape[1], width):
            columns = ratio[:, first : first + width, None, None] * self._f[:, None]
            value.append(self._summed(columns.reshape(s, -1)).reshape(len(self.log_t), -1, n, f))
        value = np.concatenate(value, axis=1).transpose(1, 2, 0, 3) * self.scale[:, :, None]
        size = np.abs(ratio).T
        fixed, moving = (np.tensordot(size, x, 1) for x in (self._fixed, self._moving))
        fixed = fixed + np.tensordot(4.0 + np.abs(self.s), self._size, 1)  # of the ratios themselves
        fixed = fixed + self._last * size.max(axis=1)[:, None, None]
        error = self.scale[:, :, None] * (
            fixed[:, :, None] + np.abs(self.log_t)[:, None] * moving[:, :, None]
        )
        return Bounded(value, error + EPS * self.exponent[:, :, None] * np.abs(value))

    def _summed(self, columns: np.ndarray) -> np.ndarray:
        """Re Σ_y columns t^{-iy}: [T', C]; the powers are kept where they are not too many."""
        total = np.zeros((len(self.log_t), columns.shape[1]))
        for first in range(0, len(self.y), _NODES):
            part = slice(first, first + _NODES)
            phases = self._phases.get(first)
            if phases is None:
                angle = np.multiply.outer(self.log_t, self.y[part])
                phases = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
                if len(self.y) * len(self.log_t) <= _MOST_KEPT:
                    self._phases[first] = phases
            total += phases @ np.concatenate([np.real(columns[part]), np.imag(columns[part])])
        return total


class DiscreteKernels:
    """The same means for a law of atoms, as sums over them.

    Tables stand in tiles of √n states `[C, T, √n]`, the last of which is filled up with atoms of no probability: sums
    over one tile after another round no more than `dot` does.
    """

    def __init__(self, law: DiscreteLaw, grid: Grid):
        self.law, self.grid = law, grid
        self._direct = grid.log_t > 0.0
        self._lags = 0
        self._log_w = self._tiled(law.log_w[:, None])[..., 0]

    def _tiled(self, values: np.ndarray) -> np.ndarray:
        """Values of the atoms `[n, F]` in tiles `[C, √n, F]`."""
        n, f = values.shape
        width = math.isqrt(n - 1) + 1
        return np.concatenate([values, np.zeros((-n % width, f))]).reshape(-1, width, f)

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
