"""Estimators with a Form in one pass over the noise: sums of powers of the normalised weights, whatever K.

Tile by tile the noise is drawn, turned into log-weights and weighted into running sums of the group; when a larger
weight than all before comes along, the sums are scaled down to it. So neither noise nor weights are ever held.
"""

from __future__ import annotations

import math

import numpy as np

from toyiwae.montecarlo.kernels.lanes.matrices import copy, put_zeros
from toyiwae.montecarlo.kernels.lanes.simd import bare_kernel, helper, larger
from toyiwae.montecarlo.kernels.one_row import map_sums
from toyiwae.montecarlo.kernels.streams import GRANULE, granule, start
from toyiwae.montecarlo.kernels.sums import add_first, add_symmetric, add_two_firsts, log_weights
from toyiwae.montecarlo.kernels.tiles import LOWEST, add_second, exponentiate, peak, powers


@helper()
def _to(x, power):
    """x^power for a power from 0, 1 below; Numba's own compiles a power function."""
    found = 1.0
    for _ in range(power):
        found *= x
    return found


@helper()
def _mix(factor, own, other_factor, other, p):
    """Of the sums of a power, `own = factor · own + other_factor · other`."""
    sums, others = own[2][p], other[2][p]
    for i in range(len(sums)):
        sums[i] = factor * sums[i] + other_factor * others[i]
    for k in range(own[3].shape[1]):
        squares, more = own[3][p, k], other[3][p, k]
        for i in range(len(squares)):
            squares[i] = factor * squares[i] + other_factor * more[i]


@helper()
def _clear(running):
    """Nothing taken in yet."""
    tops, totals, sums, squares = running
    for e in range(len(tops)):
        tops[e] = LOWEST
    put_zeros(totals)
    put_zeros(sums)
    put_zeros(squares)


@helper()
def _take_in(scratch, first, count, terms, running, with_second):
    """Adds some particles of one group to its running sums."""
    exponents, exponent_of, power_of, needs_second, row_of = terms
    tops, totals, sums, squares = running
    noise, log_w, coefficients, products = scratch
    for e in range(len(exponents)):
        top, own = peak(log_w, first, count, exponents[e]), row_of[e]
        if top > tops[e]:
            if totals[e] > 0.0:
                factor = math.exp(tops[e] - top)
                totals[e] *= factor
                if e == 0:
                    totals[-1] *= factor * factor
                for p in range(len(exponent_of)):
                    if exponent_of[p] == e and power_of[p] > 0:
                        _mix(_to(factor, power_of[p]), running, 0.0, running, p)
            tops[e] = top
        total, squared = exponentiate(log_w, first, count, exponents[e], tops[e], coefficients[own])
        totals[e] += total
        if e == 0:
            totals[-1] += squared
        for p in range(len(exponent_of)):
            if exponent_of[p] != e:
                continue
            if p == own:
                sums[p, 0] += total
            elif power_of[p] > 0:
                sums[p, 0] += powers(coefficients[own], count, power_of[p], coefficients[p])
            else:
                sums[p, 0] += count
    for p in range(0, len(power_of) - 1, 2):
        add_two_firsts(noise, first, count, coefficients, p, sums, p)
    if len(power_of) % 2 == 1:
        add_first(noise, first, count, coefficients, len(power_of) - 1, sums, len(power_of) - 1)
    if with_second is not None:  # known when this is compiled
        for p in range(len(power_of)):
            if needs_second[p]:
                add_second(noise, first, count, coefficients[p], products, squares[p])


@helper()
def _merge(terms, running, pool):
    """Adds a group's sums to those of the replicate's groups before."""
    exponents, exponent_of, power_of, _, _ = terms
    for e in range(len(exponents)):
        top = larger(running[0][e], pool[0][e])
        before, now = math.exp(pool[0][e] - top), math.exp(running[0][e] - top)
        pool[1][e] = pool[1][e] * before + running[1][e] * now
        for p in range(len(exponent_of)):
            if exponent_of[p] == e:
                _mix(_to(before, power_of[p]), pool, _to(now, power_of[p]), running, p)
        pool[0][e] = top


@helper()
def _finish(terms, pooled, pooling, sizes, base, running, where, values, ess, first, second):
    """Gives a whole group's sums, or with `pooling` those of all groups, to the replicate (r, n)."""
    exponents, exponent_of, power_of, needs_second, _ = terms
    tops, totals, sums, squares = running
    r, place, n, group = where
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
        given, own = first[place, n, p], sums[p]
        fresh = pooling or group == 0
        if fresh:
            for i in range(len(own)):
                given[i] = factor * own[i]
        else:
            for i in range(len(own)):
                given[i] += factor * own[i]
        if second is not None:  # known when this is compiled
            apart = second.shape[1] > 1
            if needs_second[p]:
                add_symmetric(
                    squares[p], factor, second[place, n if apart else 0, p], fresh and (apart or n == 0)
                )


@bare_kernel
def moments(cell, at, most, values, ess, first, second, pool, maps, begun):
    """Replicates of one or more blocks of streams, for some rows; goes on where the last call stopped.

    Of one row, their gradients are formed while their sums are in the nearest cache.

    Args:
        cell: what does not change: the cell's key; the first block; replicates in a block, of which the last may have
            fewer; the first row and how many, of which row n has the stream (block, n) in each block; M and K; base
            `[N]`, slope `[N, D]` and curvature `[1 or N, D]` of the log-weights; the terms: exponents `[E]`, the first
            of them 1; of every pair (exponent, power) the index of the exponent, the power or −1 for `log Ẑ`, and
            whether Σ c ηηᵀ is wanted, each `[P]`; and the row of coefficients where the weights of each exponent stand
            `[E]`; which pairs normalise over all groups `[P]`; and of a `Room` scratch, running sums, and the stream's
            state.
        at: where it stopped, zeros at the start: the row, the first replicate of the block, particles left of its
            stream (0: it has not begun), replicate, group, and particle; and the caller's, the replicate at which
            `first` and `second` start.
        most: particles after which it stops.
        values: log Ẑ, mean over groups, is added here `[R, n]`.
        ess: effective sample size, mean over groups, likewise `[R, n]`.
        first: takes Σ c and Σ c η `[R, n, P, 1 + D]` of as many replicates as are held, for `c = w̃^r / M`, `1/(MK)` at
            power 0, `log Ẑ_m / M`, or pooled w̃^r.
        second: takes Σ c ηηᵀ, of all rows or of each: `[R, 1 or n, P, D4, D4]`; None where it is not wanted.
        pool: of a `Room`; None where no pair normalises over all groups, which takes less to compile.
        maps: of a `OneRow`, for whose sake `first` and `second` hold but a tile's replicates and two more; None where
            all sums are wanted.
        begun: what `OneRow.begin` gives; None likewise.

    Returns:
        Whether all is done; else it is to be called again with the same arguments.
    """
    key, block, each, rows, sizes, constants, terms, pooled, room = cell
    groups, particles = sizes
    base, slope, curvature = constants
    scratch, running, state = room
    noise, log_w = scratch[0], scratch[1]
    width, budget = len(log_w), most
    alone, together = np.bool_(False), np.bool_(True)
    left, r, m, k = at[2], at[3], at[4], at[5]
    if at[0] == 0 and at[1] == 0 and left == 0:
        _clear(running)
        if pool is not None:  # known when this is compiled
            _clear(pool)
    for n in range(at[0], rows[1]):
        row = rows[0] + n
        bent = curvature[row if len(curvature) > 1 else 0]
        for head in range(at[1], values.shape[0], each):
            if left == 0:
                start(key, block + head // each, row, state)
                r, there = head, values.shape[0] - head
                left = (each if each < there else there) * groups * particles  # `min` takes long to compile
            while left > 0:
                if budget <= 0:
                    at[0], at[1], at[2], at[3], at[4], at[5] = n, head, left, r, m, k
                    return False
                here, done = width if width < left else left, np.int64(0)
                left -= here
                budget -= here
                for column in range(0, here, GRANULE):
                    granule(state, noise, column)
                    log_weights(noise, column, 0.0, slope[row], bent, log_w)
                while done < here:
                    of_tile, of_group = here - done, particles - k
                    count = of_tile if of_tile < of_group else of_group
                    _take_in(scratch, done, count, terms, running, second)
                    done += count
                    k += count
                    if k < particles:
                        continue
                    place = (r, r - at[6], n, m)
                    k, m = np.int64(0), m + 1
                    _finish(
                        terms, pooled, alone, sizes, base[row], running, place, values, ess, first, second
                    )
                    if pool is not None:
                        _merge(terms, running, pool)
                    _clear(running)
                    if m < groups:
                        continue
                    if pool is not None:
                        _finish(
                            terms, pooled, together, sizes, base[row], pool, place, values, ess, first, second
                        )
                        _clear(pool)
                    m, r = np.int64(0), r + 1
                if maps is not None:  # known when this is compiled
                    whole = r - at[6]
                    if whole > 0:
                        map_sums(first, second, maps, begun, at[6], whole)
                        at[6] = r
                        if m > 0:
                            copy(first[whole], first[0])
                            if second is not None:
                                copy(second[whole], second[0])
        at[1] = 0
    return True
