"""Estimators as functions of log-weights: noise and log-weights of a block, then sums weighted by any coefficients.

Between the two kernels the estimator's own function turns log-weights into coefficients.
"""

from __future__ import annotations

import math

import numpy as np

from toyiwae.montecarlo.kernels.lanes.matrices import put_zeros
from toyiwae.montecarlo.kernels.lanes.simd import helper, kernel, whole_registers
from toyiwae.montecarlo.kernels.streams import GRANULE, LANES, granule, start
from toyiwae.montecarlo.kernels.sums import add_first, add_symmetric, log_weights
from toyiwae.montecarlo.kernels.tiles import add_second, exponentiate, peak, total


@kernel
def begin(key, block, row):
    """The state in which a stream starts, for `go_on`."""
    state = np.empty((4, LANES), np.uint32)
    start(key, block, row, state)
    return state


@kernel
def go_on(state, base, slope, curvature, noise, log_w):
    """The next noise `[D, at least W]` of a stream, and its log-weights `[W]`; W is a multiple of `GRANULE`."""
    for first in range(0, len(log_w), GRANULE):
        granule(state, noise, first)
        log_weights(noise, first, base, slope, curvature, log_w)


@kernel
def hold(key, block, rows, sizes, constants, noise, log_w, count, place, values, ess):
    """Noise and log-weights of some rows of a block of replicates.

    Args:
        key: of the cell.
        block: of replicates.
        rows: the first and how many.
        sizes: M and K.
        constants: base `[N]`, slope `[N, D]` and curvature `[1 or N, D]` of the log-weights.
        noise: takes the noise `[n, D, at least W]`; W is a multiple of `GRANULE`, and at least R·M·K.
        log_w: takes the log-weights `[n, W]`.
        count: R, the replicates.
        place: those of the first replicate and of the first row in values and ess.
        values: takes log Ẑ, means over groups.
        ess: takes the effective sample sizes, means over groups.
    """
    groups, particles = sizes
    weights = np.empty(particles)
    base, slope, curvature = constants
    state = np.empty((4, LANES), np.uint32)
    for n in range(rows[1]):
        row = rows[0] + n
        bent = curvature[row if len(curvature) > 1 else 0]
        start(key, block, row, state)
        go_on(state, base[row], slope[row], bent, noise[n], log_w[n])
        for r in range(count):
            value, size = 0.0, 0.0
            for m in range(groups):
                first = (r * groups + m) * particles
                top = peak(log_w[n], first, particles, 1.0)
                total, squares = exponentiate(log_w[n], first, particles, 1.0, top, weights)
                value += (top + math.log(total / particles)) / groups
                size += total * total / squares / groups
            values[place[0] + r, place[1] + n], ess[place[0] + r, place[1] + n] = value, size


@kernel
def weigh(noise, offset, c, factors, room, place, first, second):
    """Adds `Σ c`, `Σ c η` and `Σ c ηηᵀ` of every replicate, for coefficients that are multiples of one.

    Args:
        noise: `[n, D, at least offset + R·width + WIDTH − 1]`, replicate by replicate.
        offset: where the first replicate starts.
        c: the coefficient `[n, R, width]`.
        factors: of c in each of P coefficients, for sums of first and of second order; 0 where c is not in it `[2, P]`.
        room: zeros `[2, D4, at least STEP]`, `[D4, D4]` and `[1, 1 + D]`, with D4 the multiple of 4 from D on; it takes
            noise in double precision, the same times c, and sums.
        place: those of the first replicate and of the first row in first and second.
        first: Σ c and Σ c η `[all replicates, all rows, P, 1 + D]`.
        second: of all rows or of each `[all replicates, 1 or all rows, P, D4, D4]`; None where it is not wanted.
    """
    width = c.shape[2]
    products, squares, sums = room
    for n in range(c.shape[0]):
        for r in range(c.shape[1]):
            begin, own = offset + r * width, first[place[0] + r, place[1] + n]
            put_zeros(sums)
            sums[0, 0] = total(c[n, r])
            add_first(noise[n], begin, width, c[n], r, sums, 0)
            for p in range(len(own)):
                if factors[0, p] != 0.0:
                    for i in range(own.shape[1]):
                        own[p, i] += factors[0, p] * sums[0, i]
            if second is None or not factors[1].any():  # the former is known when this is compiled
                continue
            put_zeros(squares)
            add_second(noise[n], begin, width, c[n, r], products, squares)
            pairs = second[place[0] + r, place[1] + n if second.shape[1] > 1 else 0]
            for p in range(len(pairs)):
                if factors[1, p] != 0.0:
                    add_symmetric(squares, factors[1, p], pairs[p], False)


@kernel
def times(one, other):
    """1.0 or −1.0 where a coefficient `[...]` is that multiple of another, else 0.0."""
    a, b = one.ravel(), other.ravel()
    factor = 1.0 if a[0] == b[0] else -1.0
    return factor if abs(a[0]) == abs(b[0]) and _same(a, factor, b) else 0.0


@helper()
def _same(a, factor, b):
    """Whether `a = factor · b`; looks at all numbers, in vectors."""
    whole_registers()
    others = 0
    for i in range(len(a)):
        others += a[i] != factor * b[i]
    return others == 0
