"""Estimators with a Form in one pass over the noise: sums of powers of the normalised weights, whatever K.

Tile by tile the noise is drawn, turned into log-weights and weighted into running sums of the group; when a larger
weight than all before comes along, the sums are scaled down to it. So neither noise nor weights are ever held.
"""

from __future__ import annotations

import math

import numpy as np

from toyiwae.montecarlo.kernels.simd import helper, kernel
from toyiwae.montecarlo.kernels.streams import GRANULE, LANES, advance, start
from toyiwae.montecarlo.kernels.tiles import (
    LOWEST,
    add_first,
    add_second,
    add_symmetric,
    exponentiate,
    log_weights,
    peak,
    powers,
)

TILE_NUMBERS, LARGEST_TILE = 2**14, 512


def tile_of(dim: int) -> int:
    """Particles in a tile: what a core's nearest caches hold."""
    return min(LARGEST_TILE, max(GRANULE, TILE_NUMBERS // dim // GRANULE * GRANULE))


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
def _take_in(noise, log_w, first, count, terms, running, scratch, products):
    """Adds some particles of one group to its running sums."""
    exponents, exponent_of, power_of, needs_second = terms
    tops, totals, sums = running
    weights, coefficients, ones = scratch
    dim = noise.shape[0]
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
            if products is not None:  # known when this is compiled
                if needs_second[p]:
                    plain, scaled = products
                    square = own[1 + dim :].reshape((len(plain), len(plain)))
                    add_second(noise, first, count, c, plain, scaled, square)


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
def moments(key, block, each, rows, sizes, constants, terms, pooled, tile, values, ess, first, second):
    """Replicates of one or more blocks of streams, for some rows.

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
        tile: scratch `[D, tile]` in the precision of the noise.
        values: log Ẑ, mean over groups `[R, n]`.
        ess: effective sample size, mean over groups `[R, n]`.
        first: Σ c and Σ c η `[R, n, P, 1 + D]`, for `c = w̃^r / M`, `1/(MK)` at power 0, `log Ẑ_m / M`, or pooled w̃^r.
        second: Σ c ηηᵀ, of all rows or of each: `[R, 1 or n, P, D, D]`; None where it is not wanted.
    """
    groups, particles = sizes
    base, slope, curvature = constants
    (dim, width), number, exponents = tile.shape, len(pooled), len(terms[0])
    if second is None:  # known when this is compiled
        products, length = None, 1 + dim
    else:
        four = (dim + 3) // 4 * 4
        products, length = (np.zeros((four, width)), np.zeros((four, width))), 1 + dim + four * four
    log_w, state = np.empty(width), np.empty((4, LANES), np.uint32)
    scratch = (np.empty((exponents, width)), np.empty(width), np.ones(width))
    running = (np.empty(exponents), np.empty(exponents + 1), np.empty((number, length)))
    pool = (np.empty(exponents), np.empty(exponents + 1), np.empty((number, length)))
    alone, together = np.bool_(False), np.bool_(True)
    any_pooled = alone
    for p in range(number):
        any_pooled |= pooled[p]
    for n in range(rows[1]):
        row = rows[0] + n
        bent = curvature[row if len(curvature) > 1 else 0]
        m = k = np.int64(0)
        _clear(*running)
        _clear(*pool)
        for begun in range(0, values.shape[0], each):
            r = begun
            start(key, block + begun // each, row, state)
            left = min(each, values.shape[0] - begun) * groups * particles
            while left > 0:
                here, at = min(width, left), np.int64(0)
                left -= here
                advance(state, tile, here)
                for first_particle in range(0, here, GRANULE):
                    log_weights(tile, first_particle, GRANULE, slope[row], bent, log_w)
                while at < here:
                    count = min(here - at, particles - k)
                    _take_in(tile, log_w, at, count, terms, running, scratch, products)
                    at += count
                    k += count
                    if k < particles:
                        continue
                    k, m = np.int64(0), m + 1
                    _finish(
                        terms, pooled, alone, sizes, base[row], running, (r, n), values, ess, first, second
                    )
                    if any_pooled:
                        _merge(terms, running, pool)
                    _clear(*running)
                    if m < groups:
                        continue
                    if any_pooled:
                        _finish(
                            terms,
                            pooled,
                            together,
                            sizes,
                            base[row],
                            pool,
                            (r, n),
                            values,
                            ess,
                            first,
                            second,
                        )
                        _clear(*pool)
                    m, r = np.int64(0), r + 1
