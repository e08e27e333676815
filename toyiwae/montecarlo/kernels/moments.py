"""Estimators with a Form in one pass over the noise: sums of powers of the normalised weights, whatever K.

Tile by tile the noise is drawn, turned into log-weights and weighted into running sums of the group; when a larger
weight than all before comes along, the sums are scaled down to it. So neither noise nor weights are ever held.
"""

from __future__ import annotations

import math

import numpy as np

from toyiwae.montecarlo.kernels.simd import helper, kernel
from toyiwae.montecarlo.kernels.streams import GRANULE, LANES, granule, start
from toyiwae.montecarlo.kernels.tiles import (
    LOWEST,
    STEP,
    add_first,
    add_second,
    add_symmetric,
    exponentiate,
    log_weights,
    peak,
    powers,
)

TILE_NUMBERS, LARGEST_TILE = 5120, 512
LINE = 8
"""Numbers in a line of the cache."""


def tile_of(dim: int) -> int:
    """Particles in a tile: what a core's nearest cache holds in double precision."""
    return min(LARGEST_TILE, max(GRANULE, TILE_NUMBERS // dim // GRANULE * GRANULE))


def aligned(*shape: int) -> np.ndarray:
    """Zeros whose first stands at the start of a line of the cache, which vectors of 512 bits ask for."""
    size = math.prod(shape)
    raw = np.zeros(size + LINE)
    first = -raw.ctypes.data // raw.itemsize % LINE
    return raw[first : first + size].reshape(shape)


class Room:
    """What one thread's calls of `moments` write to on their way.

    Attributes:
        scratch: a granule's noise `[D, GRANULE]`; the tile's in double precision `[D4, tile + LINE]`, whose rows start
            in different sets of the cache; log-weights; weights of each exponent; coefficients; ones; products.
        running: sums of the group: largest log-weights, sums of weights, sums of powers.
        pool: the same of the replicate's groups before.
        state: of the stream.
    """

    def __init__(self, dim: int, exponents: int, powers: int, precision: np.dtype, *, second: bool):
        """Takes the memory."""
        width, four = tile_of(dim), (dim + 3) // 4 * 4
        length = 1 + dim + (four * four if second else 0)
        self.scratch = (
            aligned(dim, width + LINE * 2).astype(precision),
            aligned(width),
            aligned(exponents, width),
            aligned(width),
            aligned(width) + 1.0,
            aligned(2, four, STEP + LINE),
        )
        self.running, self.pool = (
            (np.empty(exponents), np.empty(exponents + 1), np.empty((powers, length))) for _ in range(2)
        )
        self.state = np.empty((4, LANES), np.uint32)


@helper()
def _to(x, power):
    """x^power for a power from 0, 1 below; Numba's own compiles a power function."""
    found = 1.0
    for _ in range(power):
        found *= x
    return found


@helper()
def _mix(factor, sums, other_factor, others):
    """`sums = factor · sums + other_factor · others`, of vectors."""
    for i in range(len(sums)):
        sums[i] = factor * sums[i] + other_factor * others[i]


@helper()
def _clear(tops, totals, sums):
    """Nothing taken in yet."""
    for e in range(len(tops)):
        tops[e] = LOWEST
    for e in range(len(totals)):
        totals[e] = 0.0
    for p in range(sums.shape[0]):
        for i in range(sums.shape[1]):
            sums[p, i] = 0.0


@helper()
def _take_in(scratch, first, count, terms, running, dim, with_second):
    """Adds some particles of one group to its running sums."""
    exponents, exponent_of, power_of, needs_second = terms
    tops, totals, sums = running
    noise, log_w, weights, coefficients, ones, products = scratch
    for e in range(len(exponents)):
        top = peak(log_w, first, count, exponents[e])
        if top > tops[e]:
            factor = math.exp(tops[e] - top)
            totals[e] *= factor
            if e == 0:
                totals[-1] *= factor * factor
            for p in range(len(exponent_of)):
                if exponent_of[p] == e and power_of[p] > 0:
                    _mix(_to(factor, power_of[p]), sums[p], 0.0, sums[p])
            tops[e] = top
        total, squares = exponentiate(log_w, first, count, exponents[e], tops[e], weights[e])
        totals[e] += total
        if e == 0:
            totals[-1] += squares
        for p in range(len(exponent_of)):
            if exponent_of[p] != e:
                continue
            c, own, power = weights[e, first : first + count], sums[p], power_of[p]
            if power == 1:
                own[0] += total
            elif power > 1:
                own[0] += powers(weights[e], first, count, power, coefficients)
                c = coefficients[first : first + count]
            else:
                own[0] += count
                c = ones[:count]
            add_first(noise, first, count, c, own[1 : 1 + dim])
            if with_second is not None:  # known when this is compiled
                if needs_second[p]:
                    four = products.shape[1]
                    add_second(noise, first, count, c, products, own[1 + dim :].reshape((four, four)))


@helper()
def _merge(terms, running, pool):
    """Adds a group's sums to those of the replicate's groups before."""
    exponents, exponent_of, power_of, _ = terms
    tops, totals, sums = running
    pool_tops, pool_totals, pool_sums = pool
    for e in range(len(exponents)):
        top = max(tops[e], pool_tops[e])
        before, now = math.exp(pool_tops[e] - top), math.exp(tops[e] - top)
        pool_totals[e] = pool_totals[e] * before + totals[e] * now
        for p in range(len(exponent_of)):
            if exponent_of[p] == e:
                _mix(_to(before, power_of[p]), pool_sums[p], _to(now, power_of[p]), sums[p])
        pool_tops[e] = top


@helper()
def _give(factor, own, wanted, where, first, second):
    """Adds a group's sums, normalised, to the replicate's."""
    r, n, p = where
    out = first[r, n, p]
    for i in range(len(out)):
        out[i] += factor * own[i]
    if second is not None:  # known when this is compiled
        if wanted:
            four = (len(out) + 2) // 4 * 4
            square = own[len(out) :].reshape((four, four))
            add_symmetric(square, factor, second[r, n if second.shape[1] > 1 else 0, p])


@helper()
def _finish(terms, pooled, pooling, sizes, base, running, where, values, ess, first, second):
    """Gives a whole group's sums, or with `pooling` those of all groups, to the replicate (r, n)."""
    exponents, exponent_of, power_of, needs_second = terms
    tops, totals, sums = running
    r, n = where
    groups, particles = sizes
    if not pooling:
        values[r, n] += (tops[0] + math.log(totals[0] / particles) + base) / groups
        ess[r, n] += totals[0] * totals[0] / totals[-1] / groups
    for p in range(len(exponent_of)):
        if pooled[p] != pooling:
            continue
        e, power = exponent_of[p], power_of[p]
        if power > 0:
            factor = 1.0 / _to(totals[e], power)
        elif power == 0:
            factor = 1.0 / particles
        else:
            factor = (tops[e] + math.log(totals[e] / particles)) / exponents[e] + base
        if not pooling:
            factor /= groups
        _give(factor, sums[p], needs_second[p], (r, n, p), first, second)


@kernel
def moments(
    key, block, each, rows, sizes, constants, terms, pooled, room, at, most, values, ess, first, second
):
    """Replicates of one or more blocks of streams, for some rows; goes on where the last call stopped.

    Args:
        key: of the cell.
        block: the first.
        each: replicates in a block; the last one may have fewer.
        rows: the first row and how many; row n has the stream (block, n) in each block.
        sizes: M and K.
        constants: base `[N]`, slope `[N, D]` and curvature `[1 or N, D]` of the log-weights.
        terms: exponents `[E]`, the first of them 1, and of every pair (exponent, power) the index of the exponent, the
            power or −1 for `log Ẑ`, and whether Σ c ηηᵀ is wanted; each `[P]`.
        pooled: which pairs normalise over all groups `[P]`.
        room: scratch, running sums, those of the groups before, and the stream's state, of a `Room`.
        at: where it stopped, zeros at the start: the row, the first replicate of the block, particles left of its
            stream (0: it has not begun), replicate, group, and particle.
        most: particles after which it stops.
        values: log Ẑ, mean over groups `[R, n]`.
        ess: effective sample size, mean over groups `[R, n]`.
        first: Σ c and Σ c η `[R, n, P, 1 + D]`, for `c = w̃^r / M`, `1/(MK)` at power 0, `log Ẑ_m / M`, or pooled w̃^r.
        second: Σ c ηηᵀ, of all rows or of each: `[R, 1 or n, P, D, D]`; None where it is not wanted.

    Returns:
        Whether all is done; else it is to be called again with the same arguments.
    """
    groups, particles = sizes
    base, slope, curvature = constants
    scratch, running, pool, state = room
    noise, log_w = scratch[0], scratch[1]
    dim, width, budget = len(noise), len(log_w), most
    alone, together = np.bool_(False), np.bool_(True)
    any_pooled = alone
    for p in range(len(pooled)):
        any_pooled |= pooled[p]
    left, r, m, k = at[2], at[3], at[4], at[5]
    if at[0] == 0 and at[1] == 0 and left == 0:
        _clear(*running)
        _clear(*pool)
    for n in range(at[0], rows[1]):
        row = rows[0] + n
        bent = curvature[row if len(curvature) > 1 else 0]
        for begun in range(at[1], values.shape[0], each):
            if left == 0:
                start(key, block + begun // each, row, state)
                r, left = begun, min(each, values.shape[0] - begun) * groups * particles
            while left > 0:
                if budget <= 0:
                    at[0], at[1], at[2], at[3], at[4], at[5] = n, begun, left, r, m, k
                    return False
                here, done = min(width, left), np.int64(0)
                left -= here
                budget -= here
                for column in range(0, here, GRANULE):
                    granule(state, noise, column)
                    log_weights(noise, column, slope[row], bent, log_w)
                while done < here:
                    count = min(here - done, particles - k)
                    _take_in(scratch, done, count, terms, running, dim, second)
                    done += count
                    k += count
                    if k < particles:
                        continue
                    k, m = np.int64(0), m + 1
                    place = (r, n)
                    _finish(
                        terms, pooled, alone, sizes, base[row], running, place, values, ess, first, second
                    )
                    if any_pooled:
                        _merge(terms, running, pool)
                    _clear(*running)
                    if m < groups:
                        continue
                    if any_pooled:
                        _finish(
                            terms, pooled, together, sizes, base[row], pool, place, values, ess, first, second
                        )
                        _clear(*pool)
                    m, r = np.int64(0), r + 1
        at[1] = 0
    return True
