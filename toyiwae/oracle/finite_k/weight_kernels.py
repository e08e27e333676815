"""Means E[g k(tw, uw)] over one particle, for the kernels k that logarithms of normalised weights need.

With κ(y) = 1 - e^{-y} - y e^{-y} and E[g] = 0, at two arguments of ratio ρ = t/u ≤ 1,

    A(t,u) = E[g κ(tw) e^{-uw}],    A_0(t) = A(t,0),    B(t,u) = A_0(t) - A(t,u) = E[g κ(tw) (1 - e^{-uw})].

For Gaussian laws each is a contour integral of u^{-s} Γ(s) r(s) E[w^{-s} g] with r in closed form, which keeps the
relative accuracy of every order of vanishing at small u: no Taylor term is ever subtracted. For atoms each is a sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import digamma, expi, gammainc, gammaln

from toyiwae.oracle.laws import contour
from toyiwae.oracle.laws.bounded import EPS, Bounded, concatenate
from toyiwae.oracle.laws.gaussian import GaussianLaw, Segment
from toyiwae.oracle.laws.grid import Grid
from toyiwae.oracle.laws.tilted import TiltedNoise

EULER = float(np.euler_gamma)
_COLUMNS = 4096  # of one matrix product
_NODES = 1024  # of one matrix product
_MOST_KEPT = 4_000_000  # powers t^{-iy} of one contour


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
