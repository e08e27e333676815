"""Memory that the kernels write to on their way: tiles that fit the nearest cache, lines of the cache whole."""

from __future__ import annotations

import math

import numpy as np

from toyiwae.montecarlo.kernels.streams import GRANULE, LANES
from toyiwae.montecarlo.kernels.sums import STEP

TILE_NUMBERS, LARGEST_TILE = 5120, 512
LINE = 64
"""Bytes in a line of the cache."""


def tile_of(dim: int) -> int:
    """Particles in a tile: what a core's nearest cache holds in double precision."""
    return min(LARGEST_TILE, max(GRANULE, TILE_NUMBERS // dim // GRANULE * GRANULE))


def fours(dim: int) -> int:
    """The multiple of 4 from D on: tiles of Σ c ηηᵀ are four by four."""
    return (dim + 3) // 4 * 4


def aligned(*shape: int, precision: np.dtype | type = np.float64) -> np.ndarray:
    """Zeros in lines of the cache of their own: vectors of 512 bits ask for whole ones, and so do other threads."""
    size = math.prod(shape) * np.dtype(precision).itemsize
    raw = np.zeros(size + 2 * LINE, np.uint8)
    first = -raw.ctypes.data % LINE
    return raw[first : first + size].view(precision).reshape(shape)


class Room:
    """What one thread's calls of `moments` write to on their way.

    Attributes:
        scratch: a tile's noise `[D, tile + 16]`, whose rows start in different sets of the cache; its log-weights; its
            coefficients: of every power, and the weights of exponents without a power 1; products of noise.
        running: sums of the group: largest log-weights, sums of weights, of powers, and of powers times products.
        pool: the same of the replicate's groups before; None where none is normalised over all of them.
        state: of the stream.
    """

    def __init__(
        self,
        dim: int,
        exponents: int,
        power_of: np.ndarray,
        precision: np.dtype,
        *,
        second: bool,
        pooled: bool,
    ):
        """Takes the memory."""
        width, four, powers = tile_of(dim), fours(dim) if second else 0, len(power_of)
        coefficients = aligned(powers + exponents, width + 8)
        coefficients[:powers][power_of <= 0] = 1.0
        self.scratch = (
            aligned(dim, width + 16, precision=precision),
            aligned(width),
            coefficients,
            aligned(2, four, STEP + 8),
        )
        self.running, pool = (
            (
                aligned(exponents),
                aligned(exponents + 1),
                aligned(powers, 1 + dim),
                aligned(powers, four, four),
            )
            for _ in range(2)
        )
        self.pool = pool if pooled else None
        self.state = aligned(4, LANES, precision=np.uint32)
