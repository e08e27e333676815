"""What kernels do with the noise of a tile of particles: log-weights, weights, and weighted sums of the noise.

Noise is `[D, particles]`: the particles of one coordinate stand side by side, so that all loops run along vectors.
Whatever is a sum is in float64.
"""

from __future__ import annotations

from toyiwae.montecarlo.kernels.simd import F64, SUMS, exponential, helper, larger, whole_registers
from toyiwae.montecarlo.kernels.streams import GRANULE

LOWEST = -1e300
"""Below all log-weights: kernels are compiled for finite numbers."""

STEP = 64
"""Particles whose products are formed at once: few enough for a core's nearest cache."""


@helper()
def log_weights(noise, first, slope, curvature, out):
    """Of a granule, less their constant: `out[first + j] = Σ_i η_il (slope_i + curvature_i η_il)`, `l = first + j`."""
    w = out[first : first + GRANULE]
    w[:] = 0.0
    dim, i = len(slope), 0
    while i + 4 <= dim:
        x0, x1 = noise[i, first : first + GRANULE], noise[i + 1, first : first + GRANULE]
        x2, x3 = noise[i + 2, first : first + GRANULE], noise[i + 3, first : first + GRANULE]
        a0, a1, a2, a3 = slope[i], slope[i + 1], slope[i + 2], slope[i + 3]
        b0, b1, b2, b3 = curvature[i], curvature[i + 1], curvature[i + 2], curvature[i + 3]
        for j in range(GRANULE):
            y0, y1, y2, y3 = F64(x0[j]), F64(x1[j]), F64(x2[j]), F64(x3[j])
            w[j] += (y0 * (a0 + b0 * y0) + y1 * (a1 + b1 * y1)) + (y2 * (a2 + b2 * y2) + y3 * (a3 + b3 * y3))
        i += 4
    while i < dim:
        x, a, b = noise[i, first : first + GRANULE], slope[i], curvature[i]
        for j in range(GRANULE):
            y = F64(x[j])
            w[j] += y * (a + b * y)
        i += 1


@helper(SUMS)
def peak(log_w, first, count, exponent):
    """The largest `exponent · log w`."""
    w, found = log_w[first : first + count], LOWEST
    for j in range(count):
        found = larger(found, exponent * w[j])
    return found


@helper(SUMS)
def exponentiate(log_w, first, count, exponent, top, out):
    """`u = exp(exponent · log w − top)` into `out`; their sum and that of their squares."""
    w, u = log_w[first : first + count], out[first : first + count]
    total, squares = 0.0, 0.0
    for j in range(count):
        value = exponential(exponent * w[j] - top)
        u[j] = value
        total += value
        squares += value * value
    return total, squares


@helper(SUMS)
def powers(u, first, count, power, out):
    """`out = u^power`; their sum."""
    v, c, total = u[first : first + count], out[first : first + count], 0.0
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
    found = 0.0
    for j in range(len(c)):
        found += c[j]
    return found


@helper(SUMS)
def add_first(noise, first, count, c, out):
    """`out[i] += Σ_l c_l η_il`; `c` is `[count]`."""
    dim, i = len(out), 0
    while i + 4 <= dim:
        x0, x1 = noise[i, first : first + count], noise[i + 1, first : first + count]
        x2, x3 = noise[i + 2, first : first + count], noise[i + 3, first : first + count]
        a0, a1, a2, a3 = 0.0, 0.0, 0.0, 0.0
        for j in range(count):
            v = c[j]
            a0 += v * F64(x0[j])
            a1 += v * F64(x1[j])
            a2 += v * F64(x2[j])
            a3 += v * F64(x3[j])
        out[i] += a0
        out[i + 1] += a1
        out[i + 2] += a2
        out[i + 3] += a3
        i += 4
    while i < dim:
        x, a = noise[i, first : first + count], 0.0
        for j in range(count):
            a += c[j] * F64(x[j])
        out[i] += a
        i += 1


@helper(SUMS)
def _add_block(plain, scaled, i, j, count, out):
    """Four rows by four columns of `add_second`."""
    whole_registers()
    s0, s1, s2, s3 = scaled[i], scaled[i + 1], scaled[i + 2], scaled[i + 3]
    p0, p1, p2, p3 = plain[j], plain[j + 1], plain[j + 2], plain[j + 3]
    a00, a01, a02, a03 = 0.0, 0.0, 0.0, 0.0
    a10, a11, a12, a13 = 0.0, 0.0, 0.0, 0.0
    a20, a21, a22, a23 = 0.0, 0.0, 0.0, 0.0
    a30, a31, a32, a33 = 0.0, 0.0, 0.0, 0.0
    for k in range(count):
        y0, y1, y2, y3 = s0[k], s1[k], s2[k], s3[k]
        x0, x1, x2, x3 = p0[k], p1[k], p2[k], p3[k]
        a00 += y0 * x0
        a01 += y0 * x1
        a02 += y0 * x2
        a03 += y0 * x3
        a10 += y1 * x0
        a11 += y1 * x1
        a12 += y1 * x2
        a13 += y1 * x3
        a20 += y2 * x0
        a21 += y2 * x1
        a22 += y2 * x2
        a23 += y2 * x3
        a30 += y3 * x0
        a31 += y3 * x1
        a32 += y3 * x2
        a33 += y3 * x3
    o0, o1, o2, o3 = out[i], out[i + 1], out[i + 2], out[i + 3]
    o0[j] += a00
    o0[j + 1] += a01
    o0[j + 2] += a02
    o0[j + 3] += a03
    o1[j] += a10
    o1[j + 1] += a11
    o1[j + 2] += a12
    o1[j + 3] += a13
    o2[j] += a20
    o2[j + 1] += a21
    o2[j + 2] += a22
    o2[j + 3] += a23
    o3[j] += a30
    o3[j + 1] += a31
    o3[j + 2] += a32
    o3[j + 3] += a33


@helper(SUMS)
def add_second(noise, first, count, c, products, out):
    """`out[i, j] += Σ_l c_l η_il η_jl` for j ≤ i, and above the diagonal what blocks of four rows hold as well.

    `products` is scratch `[2, D4, at least STEP]`, D4 the multiple of 4 from D on, whose last rows are zero; `out` is
    `[D4, D4]`.
    """
    whole_registers()
    plain, scaled = products[0], products[1]
    for at in range(0, count, STEP):
        here, begin = min(STEP, count - at), first + at
        part = c[at : at + here]
        for i in range(noise.shape[0]):
            x, p, s = noise[i, begin : begin + here], plain[i], scaled[i]
            for j in range(here):
                y = F64(x[j])
                p[j] = y
                s[j] = part[j] * y
        for i in range(0, out.shape[0], 4):
            for j in range(0, i + 1, 4):
                _add_block(plain, scaled, i, j, here, out)


@helper()
def add_symmetric(lower, factor, out):
    """`out += factor ·` the symmetric matrix whose lower triangle is given; `out` is `[D, D]`."""
    for i in range(out.shape[0]):
        for j in range(i + 1):
            value = factor * lower[i, j]
            out[i, j] += value
            if i != j:
                out[j, i] += value
