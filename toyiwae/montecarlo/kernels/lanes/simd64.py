"""Standard normals in double precision, of 128 random bits a pair."""

from __future__ import annotations

import math

import numpy as np

from toyiwae.montecarlo.kernels.lanes.simd import F64, I32, U32, bits64, float_of64, helper

_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_ROOT_HALF, _MANTISSA = 0x3FE6A09E667F3BCD, 52
_A3, _A5, _A7, _A9, _A11, _A13, _A15, _A17, _A19, _A21 = (2.0 / n for n in range(3, 22, 2))
_S3, _S5, _S7, _S9, _S11, _S13, _S15, _S17 = ((-1.0) ** (n // 2) / math.factorial(n) for n in range(3, 18, 2))
_C4, _C6, _C8, _C10, _C12, _C14, _C16 = ((-1.0) ** (n // 2) / math.factorial(n) for n in range(4, 17, 2))
_UNIT, _FINE, _QUARTER = 2.0**-32, 2.0**-64, math.pi / 2.0


@helper()
def _log64(u):
    """Log u of a positive float64, by the series of 2 artanh of (m − 1)/(m + 1), √½ ≤ m < √2."""
    bits = bits64(u)
    exponent = (bits - _ROOT_HALF) >> _MANTISSA
    m = float_of64(bits - (exponent << _MANTISSA))
    x = (m - 1.0) / (m + 1.0)
    z = x * x
    p = _A21 * z + _A19
    p = p * z + _A17
    p = p * z + _A15
    p = p * z + _A13
    p = p * z + _A11
    p = p * z + _A9
    p = p * z + _A7
    p = p * z + _A5
    p = p * z + _A3
    e = F64(exponent)
    return (p * z * x + e * _LN2_LOW) + 2.0 * x + e * _LN2_HIGH


@helper()
def pair64(a, b, c, d):
    """Two independent float64 normals of four words of 32 random bits, as `pair32`; |z| reaches 9.4."""
    u = F64(a) * _UNIT + (F64(b) + 0.5) * _FINE
    radius = np.sqrt(-2.0 * _log64(u))
    x = (F64(I32(c << U32(2))) * _UNIT + (F64(d) + 0.5) * _FINE) * _QUARTER
    z = x * x
    p = _S17 * z + _S15
    p = p * z + _S13
    p = p * z + _S11
    p = p * z + _S9
    p = p * z + _S7
    p = p * z + _S5
    p = p * z + _S3
    sine = p * z * x + x
    p = _C16 * z + _C14
    p = p * z + _C12
    p = p * z + _C10
    p = p * z + _C8
    p = p * z + _C6
    p = p * z + _C4
    cosine = p * z * z - 0.5 * z + 1.0
    swap, sign = (c & U32(0x40000000)) != U32(0), 1.0 if (c & U32(0x80000000)) == U32(0) else -1.0
    first = sine if swap else cosine
    other = cosine if swap else sine
    return sign * first * radius, sign * other * radius
