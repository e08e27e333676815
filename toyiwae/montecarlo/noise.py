"""Noise keyed by (seed, cell, unit), so that numbers depend neither on chunks, memory, order nor workers.

The standard normals of a cell, `[replicates, rows, M, K, D]`, are cut into units of at most `UNIT` numbers
along one axis; where and how follows from the problem's sizes and from K and M alone. Each unit comes from a
generator of its own, which starts at a seed that no other unit of the cell has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

MOST_UNITS = 2**32
"""Units of a cell; beyond, seeds and with them the noise would repeat."""

UNIT = 2**17
"""Numbers in a unit of noise: 1 MiB in float64, which stays in a core's cache."""

REPLICATES, ROWS, GROUPS, PARTICLES = range(4)

_MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class Layout:
    """How the noise of a cell is cut into units.

    The axis that is cut is the outermost one below which everything fits into a unit; a unit holds `block`
    steps along it, one index of the axes outside, and all of the axes inside.

    Attributes:
        rows, groups, particles, dim: N, M, K and D.
        axis: the axis that is cut: `REPLICATES`, `ROWS`, `GROUPS` or `PARTICLES`.
        block: steps of a unit along it; the last unit of an axis other than the replicates' may be shorter.
    """

    rows: int
    groups: int
    particles: int
    dim: int
    axis: int
    block: int

    @classmethod
    def of(cls, rows: int, groups: int, particles: int, dim: int, unit: int = UNIT) -> Layout:
        """The layout of a problem with N rows and D latents at (M, K)."""
        sizes = (rows, groups, particles, dim)
        axis = next((axis for axis in range(3) if math.prod(sizes[axis:]) <= unit), PARTICLES)
        return cls(*sizes, axis, max(1, unit // math.prod(sizes[axis:])))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Numbers along rows, groups, particles and latents."""
        return self.rows, self.groups, self.particles, self.dim

    @property
    def length(self) -> int:
        """Steps along the axis that is cut, for one index outside; of the replicates' axis, a block."""
        return (self.block, *self.shape[:3])[self.axis]

    @property
    def units(self) -> int:
        """Units for one index outside."""
        return -(-self.length // self.block)

    def total_units(self, replicates: int) -> int:
        """Units for that many replicates."""
        if self.axis == REPLICATES:
            return -(-replicates // self.block)
        return replicates * math.prod(self.shape[: self.axis - 1]) * self.units

    @property
    def step(self) -> int:
        """Numbers in one step along the axis that is cut."""
        return math.prod(self.shape[self.axis :])


class Noise:
    """The standard normals of one cell, unit by unit.

    Args:
        layout: how they are cut.
        seed: the user's seed, any whole number from 0.
        stream: what else tells this noise from other noise of the same seed, e.g. (K, M).
        device: where to draw. CPU and GPU generators differ, and so do their numbers.
    """

    def __init__(self, layout: Layout, seed: int, stream: tuple[int, ...], device: torch.device):
        """Derives the start of the cell's sequence of seeds."""
        self.layout, self.device = layout, device
        self._start = int(np.random.SeedSequence([seed, *stream]).generate_state(1, np.uint32)[0])
        self._generator = torch.Generator(device)

    def draw(self, first: int, count: int = 1, outer: int = 0) -> torch.Tensor:
        """The units `first` to `first + count − 1` of one index outside, joined.

        Args:
            first: number of the first unit, counted from 0 for each `outer`.
            count: how many.
            outer: flat index of the axes outside the one that is cut.

        Returns:
            Noise `[replicates, rows, M, K, D]`, in which the axes outside have length 1.
        """
        layout = self.layout
        numbers = layout.block * layout.step
        total = (
            count * numbers if layout.axis == REPLICATES else layout.length * layout.step - first * numbers
        )
        noise = torch.empty(min(count * numbers, total), dtype=torch.float64, device=self.device)
        for index, unit in enumerate(noise.split(numbers)):
            unit.normal_(
                generator=self._generator.manual_seed(
                    scrambled(self._start + outer * layout.units + first + index)
                )
            )
        inner = layout.shape[layout.axis :]
        return noise.view(*(1 for _ in range(layout.axis)), -1, *inner)


def scrambled(number: int) -> int:
    """A seed of 32 bits, since the CPU generator reads no more: distinct for 2³² successive numbers.

    A bijection (Wellons' `lowbias32`) of start + unit: hashing units independently would repeat a seed,
    and so a unit's noise, with probability 1 % after 10⁴ units.
    """
    mixed = number & _MASK
    mixed = ((mixed ^ (mixed >> 16)) * 0x7FEB352D) & _MASK
    mixed = ((mixed ^ (mixed >> 15)) * 0x846CA68B) & _MASK
    return mixed ^ (mixed >> 16)
