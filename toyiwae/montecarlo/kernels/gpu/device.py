"""Standard normals on chip: Philox counters in, four normals out. Triton functions that kernels are made of.

A counter has four words, a key two, and each (counter, key) gives four random words by ten rounds of two 32-bit
multiplications (Philox-4x32-10). Each pair of words gives two normals by the method of Box and Muller,

    r = √(−2 log u),  u = (word + ½)·2⁻³²,  angle θ = 2π·2⁻³²·(the other word, read as signed):  r cos θ, r sin θ,

with all 32 bits of both, so that |z| reaches 6.7. The logarithm, the root and the circle functions are the hardware's
approximations, four for two normals: their absolute errors are below 2⁻²⁰. Every multiplication that is fused with an
addition says so, so that compilers do not differ in it.

References:
    salmon2011random
"""

# Triton's language is not quite Python's:
# pyright: reportMissingImports=false, reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl
from triton import knobs

ROUNDS = 10
"""Of Philox. Seven are the fewest that passed the tests of its authors."""

HALF_UNIT, TWO_LOG_2 = tl.constexpr(2.0**-33), tl.constexpr(1.3862943611198906)
UNIT, ANGLE = tl.constexpr(2.0**-32), tl.constexpr(6.283185307179586 * 2.0**-32)

INTERPRETED = tl.constexpr(knobs.runtime.interpret)  # TRITON_INTERPRET=1: NumPy stands in for the hardware


@triton.jit
def _log2(x):
    if INTERPRETED:
        y = tl.log2(x)
    else:
        y = tl.inline_asm_elementwise("lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, True, 1)
    return y


@triton.jit
def _sqrt(x):
    if INTERPRETED:
        y = tl.sqrt(x)
    else:
        y = tl.inline_asm_elementwise("sqrt.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, True, 1)
    return y


@triton.jit
def _sin(x):
    if INTERPRETED:
        y = tl.sin(x)
    else:
        y = tl.inline_asm_elementwise("sin.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, True, 1)
    return y


@triton.jit
def _cos(x):
    if INTERPRETED:
        y = tl.cos(x)
    else:
        y = tl.inline_asm_elementwise("cos.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, True, 1)
    return y


@triton.jit
def philox(c0, c1, c2, c3, k0, k1, ROUNDS: tl.constexpr):
    """Four random words of uint32 counters and keys.

    `triton.language.philox` gives the same words; it forms both halves of each product apart, which costs half as many
    instructions again as the one 64-bit product here.
    """
    for _ in tl.static_range(ROUNDS):
        a = c0.to(tl.uint64) * 0xD2511F53
        b = c2.to(tl.uint64) * 0xCD9E8D57
        c0 = (b >> 32).to(tl.uint32) ^ c1 ^ k0
        c2 = (a >> 32).to(tl.uint32) ^ c3 ^ k1
        c1 = b.to(tl.uint32)
        c3 = a.to(tl.uint32)
        k0 = k0 + 0x9E3779B9
        k1 = k1 + 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def box_muller(a, b):
    """Two standard normals (float32) of two random words."""
    u = tl.fma(a.to(tl.float32), UNIT, HALF_UNIT)
    radius = _sqrt(_log2(u) * -TWO_LOG_2)
    angle = b.to(tl.int32, bitcast=True).to(tl.float32) * ANGLE
    return radius * _cos(angle), radius * _sin(angle)


@triton.jit
def normals(particle, quad, unit, key, ROUNDS: tl.constexpr):
    """Four standard normals of a particle of a unit: its coordinates 4·quad to 4·quad + 3.

    Args:
        particle: uint32.
        quad: a whole number.
        unit: int64.
        key: int64.
        ROUNDS: of Philox.
    """
    c2, c3 = unit.to(tl.uint32), (unit >> 32).to(tl.uint32)
    c1 = tl.full([1], quad, tl.uint32)
    k0, k1 = key.to(tl.uint32), (key >> 32).to(tl.uint32)
    a, b, c, d = philox(particle, c1, c2, c3, k0, k1, ROUNDS)
    x, y = box_muller(a, b)
    z, w = box_muller(c, d)
    return x, y, z, w
