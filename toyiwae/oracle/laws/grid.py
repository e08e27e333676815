"""Grids in log t: uniform where the transforms of a weight have features, ever coarser beyond them.

The integrals over `u = log t` are sums over a uniform grid of step h wherever the integrand varies on the scale of
its kernel e^-tw, about 1. Weights of a proposal far wider than the posterior, or far from it, spread over hundreds of
units of log w, and so does the range of u. Out there nothing varies fast: Λ(e^u) is the distribution of -log w blurred
by the kernel, and the only point at which the density of a Gaussian's log-weights is not smooth is its value at the
stationary point of the quadratic form. At distance d right of all features a function varies on the scale d, and a
step of d/21 serves. So the integrand is split by smooth windows,

    1 = Σ_j χ_j(u),   χ_j = E_j - E_{j+1},   E_j(u) = ½ erfc(-(u - U_j)/(2 h_j)),   h_j = 2^j h,

each summed with its own step: a window's transform has fallen to e^-39 at the first alias 2π/h_j.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.special import erfc

from toyiwae.errors import PrecisionError
from toyiwae.oracle.laws import contour
from toyiwae.oracle.laws.bounded import Bounded, where

STEP = 0.22
UNIFORM_TO = 100.0  # log t up to which a uniform grid is short enough
_KERNEL_END = 6.0  # log t beyond which e^-t, and all that comes with it, is gone
_DISTANCE = 21.0  # steps between the last feature and the middle of a window's rise
_SUPPORT = 12.6  # steps from there to where the window is below 1e-18
_MOST_POINTS = 20_000
_FARTHEST = 1e13  # log t at which a step is still resolved


@dataclass(frozen=True)
class Smoothness:
    """How smooth a law's transforms are in log t.

    Attributes:
        features: log t right of which they vary on the scale of the distance to it.
        scale: they vary nowhere on a scale shorter than this, in standard deviations of a Gaussian blur.
    """

    features: float
    scale: float

    def of_largest(self, particles: float) -> Smoothness:
        """That of powers up to K of the transforms: the largest of K weights varies √(2 log K) times less than one."""
        return Smoothness(self.features, self.scale / (1.0 + 1.5 * np.sqrt(2.0 * np.log(particles))))

    def step_begins(self, step: float) -> float:
        """Log t from which a step is short enough for the middle of a window's rise."""
        law = -np.inf if step <= 0.35 * self.scale else self.features
        return max(_KERNEL_END, law) + _DISTANCE * step


@dataclass(frozen=True)
class Grid:
    """Points in log t, shared by all transforms of one computation.

    Attributes:
        log_t: the points [T]; increasing up to each of the `breaks`, where a coarser part begins.
        weight: the weight of each in an integral over log t [T].
        step: distance of the points of the finest part.
        breaks: indices at which the coarser parts begin.
        features: log t beyond which the law is smooth on the scale of the distance.
    """

    log_t: np.ndarray
    weight: np.ndarray
    step: float
    breaks: tuple[int, ...]
    features: float
    kernel: contour.Kernel = field(repr=False)

    @classmethod
    def spanning(cls, low: float, high: float, step: float = STEP) -> Grid:
        """The uniform grid of multiples of `step` that covers [low, high].

        Raises:
            PrecisionError: if it would be too long.
        """
        return cls._of([_points(low, high, step)], [], step, np.inf)

    @classmethod
    def covering(cls, low: float, high: float, smooth: Smoothness | None) -> Grid:
        """A grid that covers [low, high] in as few points as the law allows; uniform for short ranges.

        Formula: windows.

        Raises:
            PrecisionError: if it would be too long.
        """
        if smooth is None or high < UNIFORM_TO:
            return cls.spanning(low, high)
        steps, begins = [STEP], [-np.inf]
        while (begin := smooth.step_begins(2.0 * steps[-1])) - 2.0 * _SUPPORT * steps[-1] < high:
            steps.append(2.0 * steps[-1])
            begins.append(begin)
        begins.append(np.inf)
        parts = []
        for step, begin, end in zip(steps, begins[:-1], begins[1:], strict=True):
            first = max(low, begin - _SUPPORT * step)
            parts.append(_points(first, min(high, end + 2.0 * _SUPPORT * step), step))
        return cls._of(parts, begins[1:-1], STEP, smooth.features)

    @classmethod
    def _of(cls, parts: list[np.ndarray], begins: list[float], step: float, features: float) -> Grid:
        weights = []
        for j, points in enumerate(parts):
            size = step * 2.0**j
            rise = _rise(points, begins[j - 1], size) if j else np.ones(len(points))
            fall = _rise(points, begins[j], 2.0 * size) if j < len(begins) else np.zeros(len(points))
            weights.append(size * (rise - fall))
        log_t = np.concatenate(parts)
        breaks = tuple(int(n) for n in np.cumsum([len(points) for points in parts])[:-1])
        kernel = contour.Kernel(log_t, breaks[0] if breaks else len(log_t), step)
        return cls(log_t, np.concatenate(weights), step, breaks, features, kernel)

    def distances(self, start: int) -> tuple[float, float]:
        """How far right of all features, and of those of e^-t alone, the coarse points from `start` lie; else 0."""
        if not self.breaks or start < self.breaks[0]:
            return 0.0, 0.0
        place = float(self.log_t[start])
        return max(0.0, place - max(self.features, _KERNEL_END)), max(0.0, place - _KERNEL_END)

    @property
    def coarsest(self) -> float:
        """The longest step, 1 at least."""
        return max(1.0, float(self.weight.max()))

    @property
    def finest(self) -> float | None:
        """The scale 1/max log t of the lines of transforms that a coarse grid needs; None for a uniform one."""
        return 1.0 / float(self.log_t.max()) if self.breaks else None


def _rise(points: np.ndarray, middle: float, step: float) -> np.ndarray:
    return 0.5 * erfc((middle - points) / (2.0 * step))


def _points(low: float, high: float, step: float) -> np.ndarray:
    """Multiples of `step` that cover [low, high]."""
    if not high < _FARTHEST or not (high - low) / step < _MOST_POINTS:
        ends = f"{low:.6g} < log t" + (
            f" < {high:.6g}" if np.isfinite(high) else ", without an end in float64"
        )
        raise PrecisionError(
            f"the weights reach over {ends}: more than this integral over t can cover"
            " (the proposal is too far from the posterior, or too much wider)"
        )
    return np.arange(np.floor(low / step), np.ceil(high / step) + 1) * step


@dataclass(frozen=True)
class Transform:
    """`t^{a/p} E[w^a g e^{-t w^p}]` on a grid, split into a remainder and its value for t → 0.

    `remainder` [N, T, F] lacks the first Taylor term `leading` (the scaled moment of order a) where `split` [T] is
    true. Scaling by t^{a/p} keeps every number within the range of double precision.
    """

    remainder: Bounded
    split: np.ndarray
    leading: Bounded  # [N, T, F]; zeros where the moment does not exist (then nothing is split off)

    @cached_property
    def value(self) -> Bounded:
        """The transform itself."""
        if not self.split.any():
            return self.remainder
        return self.remainder + where(self.split[:, None], self.leading, 0.0)
