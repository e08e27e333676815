"""Estimators as functions of log-weights: noise and log-weights of a block, then sums weighted by any coefficients.

Between the two kernels the estimator's own function turns log-weights into coefficients.
"""

from __future__ import annotations

import math

import numpy as np

from toyiwae.montecarlo.kernels.simd import kernel
from toyiwae.montecarlo.kernels.streams import GRANULE, LANES, granule, start
from toyiwae.montecarlo.kernels.tiles import (
    add_first,
    add_second,
    add_symmetric,
    exponentiate,
    log_weights,
    peak,
    total,
)


@kernel
def begin(key, block, row):
    """The state in which a stream starts, for `go_on`."""
    state = np.empty((4, LANES), np.uint32)
    start(key, block, row, state)
    return state


@kernel
def go_on(state, base, slope, curvature, noise, log_w):
    """The next noise `[D, W]` of a stream, and its log-weights `[W]`; W is a multiple of `GRANULE`."""
    for first in range(0, len(log_w), GRANULE):
        granule(state, noise, first)
        log_weights(noise, first, slope, curvature, log_w)
        for j in range(first, first + GRANULE):
            log_w[j] += base


@kernel
def hold(key, block, rows, sizes, constants, noise, log_w, values, ess):
    """Noise and log-weights of some rows of a block of replicates.

    Args:
        key: of the cell.
        block: of replicates.
        rows: the first and how many.
        sizes: M and K.
        constants: base `[N]`, slope `[N, D]` and curvature `[1 or N, D]` of the log-weights.
        noise: takes the noise `[n, D, W]`; W is a multiple of `GRANULE`, and at least R·M·K.
        log_w: takes the log-weights `[n, W]`.
        values: takes log Ẑ, mean over groups `[R, n]`.
        ess: takes the effective sample size, mean over groups `[R, n]`.
    """
    groups, particles = sizes
    weights = np.empty(log_w.shape[1])
    base, slope, curvature = constants
    state = np.empty((4, LANES), np.uint32)
    for n in range(rows[1]):
        row = rows[0] + n
        bent = curvature[row if len(curvature) > 1 else 0]
        start(key, block, row, state)
        go_on(state, base[row], slope[row], bent, noise[n], log_w[n])
        for r in range(values.shape[0]):
            values[r, n] = ess[r, n] = 0.0
            for m in range(groups):
                first = (r * groups + m) * particles
                top = peak(log_w[n], first, particles, 1.0)
                total, squares = exponentiate(log_w[n], first, particles, 1.0, top, weights)
                values[r, n] += (top + math.log(total / particles)) / groups
                ess[r, n] += total * total / squares / groups


@kernel
def weigh(noise, offset, c, room, first, second):
    """Adds `Σ c`, `Σ c η` and `Σ c ηηᵀ` of every replicate.

    Args:
        noise: `[n, D, at least offset + R·width]`, replicate by replicate.
        offset: where the first replicate starts.
        c: the coefficient `[n, R, width]`.
        room: zeros `[2, D4, at least STEP]` and `[D4, D4]`, with D4 the multiple of 4 from D on; it takes noise in
            double precision, the same times c, and sums.
        first: Σ c and Σ c η `[R, n, 1 + D]`.
        second: of all rows or of each `[R, 1 or n, D, D]`; None where it is not wanted.
    """
    width = c.shape[2]
    products, pairs = room
    for n in range(noise.shape[0]):
        for r in range(first.shape[0]):
            begin, part, out = offset + r * width, c[n, r], first[r, n]
            out[0] += total(part)
            add_first(noise[n], begin, width, part, out[1:])
            if second is None:  # known when this is compiled
                continue
            add_second(noise[n], begin, width, part, products, pairs)
            add_symmetric(pairs, 1.0, second[r, n if second.shape[1] > 1 else 0])
            pairs[:] = 0.0
