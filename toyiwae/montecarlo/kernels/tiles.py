"""What kernels do with log-weights of a tile of particles, and with its noise by loops of Numba's own.

Noise is `[D, particles]`: the particles of one coordinate stand side by side, so that all loops run along vectors.
Whatever is a sum is in float64.
"""

from __future__ import annotations

from toyiwae.montecarlo.kernels.lanes.simd import F64, SUMS, exponential, helper, larger, whole_registers
from toyiwae.montecarlo.kernels.lanes.vectors import WIDTH
from toyiwae.montecarlo.kernels.sums import STEP, add_tile

LOWEST = -1e300
"""Below all log-weights: kernels are compiled for finite numbers."""


@helper(SUMS)
def peak(log_w, first, count, exponent):
    """The largest `exponent · log w`."""
    whole_registers()
    w, found = log_w[first : first + count], LOWEST
    for j in range(count):
        found = larger(found, exponent * w[j])
    return found


@helper(SUMS)
def exponentiate(log_w, first, count, exponent, top, out):
    """`out[j] = exp(exponent · log w_first+j − top)`; their sum and that of their squares."""
    whole_registers()
    w, u = log_w[first : first + count], out[:count]
    total, squares = 0.0, 0.0
    for j in range(count):
        value = exponential(exponent * w[j] - top)
        u[j] = value
        total += value
        squares += value * value
    return total, squares


@helper(SUMS)
def powers(u, count, power, out):
    """`out = u^power`; their sum."""
    whole_registers()
    v, c, total = u[:count], out[:count], 0.0
    if power == 2:
        for j in range(count):
            value = v[j] * v[j]
            c[j] = value
            total += value
        return total
    for j in range(count):
        value = 1.0
        for _ in range(power):
            value *= v[j]
        c[j] = value
        total += value
    return total


@helper(SUMS)
def total(c):
    """`Σ_l c_l`."""
    whole_registers()
    found = 0.0
    for j in range(len(c)):
        found += c[j]
    return found


@helper(SUMS)
def add_second(noise, first, count, c, products, out):
    """`out[i, j] += Σ_l c_l η_i,first+l η_j,first+l` for j ≤ i, and above the diagonal what tiles hold as well.

    `products` is scratch `[2, D4, at least STEP]`, D4 the multiple of 4 from D on, whose last rows are zero; `out` is
    `[D4, D4]`.
    """
    whole_registers()
    plain, scaled = products[0], products[1]
    for at in range(0, count, STEP):
        here, begin = min(STEP, count - at), first + at
        whole = -(-here // WIDTH) * WIDTH
        part = c[at : at + here]
        for i in range(noise.shape[0]):
            x, p, s = noise[i, begin : begin + here], plain[i], scaled[i]
            for j in range(here):
                y = F64(x[j])
                p[j] = y
                s[j] = part[j] * y
            for j in range(here, whole):
                s[j] = 0.0
        for i in range(0, out.shape[0], 4):
            for j in range(0, i + 1, 4):
                add_tile(plain, scaled, i, j, whole, out)
