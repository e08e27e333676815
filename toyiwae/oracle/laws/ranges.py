"""The part of the log t axis that carries the integrals, and grids that many observations share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from toyiwae.oracle.laws.grid import UNIFORM_TO, Grid, Smoothness
from toyiwae.oracle.laws.protocol import Law

TAIL = 44.0
"""Natural logarithm of the relative size at which a grid ends."""


def common_grid(law: Law, particles: Sequence[int]) -> Grid:
    """The part of the log t axis that carries the integrals of all rows for these numbers of particles (at least 2)."""
    return Grid.covering(*_range(law, particles), smoothness_of(law, particles))


def smoothness_of(law: Law, particles: Sequence[int] | np.ndarray, p: float = 1.0) -> Smoothness | None:
    """How smooth powers up to K of the transforms of w^p are; None where nothing is known."""
    smooth = law.smoothness(p)
    return None if smooth is None else smooth.of_largest(float(max(particles)))


def _range(law: Law, particles: Sequence[int]) -> tuple[float, float]:
    high = law.upper_log_t(TAIL / (min(particles) - 1))
    return -np.log(float(max(particles))) - TAIL, high + 2.0


class Grids:
    """Grids for batches of rows: each no longer than its rows need, and one object for all that need about the same.

    Args:
        particles: the numbers of particles; those of 1 need no grid.
        uniform: whether the points must have one distance.
    """

    def __init__(self, particles: Sequence[int], *, uniform: bool = False):
        self._particles, self._uniform = [k for k in particles if k > 1], uniform
        self._known: dict[Any, Grid] = {}

    def __call__(self, law: Law) -> Grid | None:
        """The grid for these rows, or None where no K is above 1."""
        if not self._particles:
            return None
        low, high = _range(law, self._particles)
        smooth = None if self._uniform else smoothness_of(law, self._particles)
        high = 4.0 * np.ceil(high / 4.0) if high < UNIFORM_TO else _rounded(high)
        if smooth is not None and high >= UNIFORM_TO:
            scale = 2.0 ** np.floor(np.log2(smooth.scale)) if smooth.scale > 0.0 else 0.0
            smooth = Smoothness(4.0 * np.ceil(smooth.features / 4.0), scale)
        key = (high, smooth if high >= UNIFORM_TO else None)
        if key not in self._known:
            self._known[key] = Grid.covering(low, high, smooth)
        return self._known[key]


def _rounded(high: float) -> float:
    """Rounded up to the next power of 2^(1/4), where that is finite."""
    return float(2.0 ** (np.ceil(4.0 * np.log2(high)) / 4.0)) if np.isfinite(high) else high
