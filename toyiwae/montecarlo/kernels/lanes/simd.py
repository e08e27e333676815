"""Elementary functions that LLVM turns into vector instructions without a vector library, and Numba's settings.

Calls of a library's `exp`, `log`, `sin` and `cos` are not vectorised; polynomials are. Coefficients are those of Taylor
series in float64; in float32 those of Moshier's Cephes library, as many terms as the precision shows. `math.exp` of
everything else costs nothing, so that only what runs once a particle or a normal is here.

References:
    box1958normal, moshier1989methods
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import config
from numba.extending import intrinsic

from toyiwae.montecarlo.kernels.lanes.cache import kernel_cache

U32, I32, F32, F64 = np.uint32, np.int32, np.float32, np.float64

EXACT = {"contract", "nsz", "nnan", "ninf"}
"""Flags of LLVM where the order of operations matters: fused multiply-adds alone."""

SUMS = {*EXACT, "reassoc"}
"""Flags of LLVM where a sum may run over the lanes of a vector."""


ALONE: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Options of what Python never calls: without its ways in, it compiles in four fifths of the time."""


def helper(flags: set[str] = EXACT) -> Any:
    """Compiles a function that only kernels call.

    It allocates nothing, so it needs no counts of references (`_nrt`), which cost more than the arithmetic of a short
    loop: a quarter of the time at K = 64.
    """
    options: dict[str, Any] = {
        **ALONE,
        "nogil": True,
        "fastmath": flags,
        "error_model": "numpy",
        "_nrt": False,
    }
    return numba.njit(**options)


def kernel(function: Any) -> Any:
    """Compiles a function that Python calls, without its global lock and with a cache on disk."""
    return _cached(function, {})


def bare_kernel(function: Any) -> Any:
    """`kernel` for a function that allocates nothing, without counts of references as `helper`."""
    return _cached(function, {"_nrt": False})


def _cached(function: Any, options: dict[str, Any]) -> Any:
    with kernel_cache(config) as there_is:
        shared: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
        return numba.njit(**shared, **options, cache=there_is)(function)


def _reinterpreted(source: Any, target: Any) -> Any:
    """An intrinsic that takes the bits of one type for those of another."""

    @intrinsic
    def reinterpret(context, value):
        def generate(context, builder, signature, arguments):
            return builder.bitcast(arguments[0], context.get_value_type(target))

        return target(source), generate

    return reinterpret


bits32, float_of32 = _reinterpreted(types.float32, types.uint32), _reinterpreted(types.uint32, types.float32)
bits64, float_of64 = _reinterpreted(types.float64, types.int64), _reinterpreted(types.int64, types.float64)


def _larger(context: Any, x: Any, y: Any) -> Any:
    """The larger of two float64 that are not NaN; unlike Numba's, LLVM knows it as the step of a vector reduction."""

    def generate(context, builder, signature, arguments):
        double = ir.DoubleType()
        function = builder.module.declare_intrinsic(
            "llvm.maxnum", [double], ir.FunctionType(double, [double, double])
        )
        return builder.call(function, arguments, fastmath=("nnan", "nsz", "ninf"))

    return types.float64(types.float64, types.float64), generate


larger: Any = intrinsic(_larger)


def _whole_registers(context: Any) -> Any:
    """Has LLVM use the widest vectors that the processor has in the function that calls this.

    By itself it halves those of 512 bits, which pays only where vectors are rare. llvmlite's own set of attributes
    knows no attribute with a value.
    """

    def generate(context, builder, signature, arguments):
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.none(), generate


whole_registers: Any = intrinsic(_whole_registers)

_LOG2_E, _TO_INTEGER, _LEAST = 1.0 / math.log(2.0), 6755399441055744.0, -700.0
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_E2, _E3, _E4, _E5, _E6, _E7, _E8, _E9, _E10, _E11 = (1.0 / math.factorial(n) for n in range(2, 12))


@helper()
def exponential(x):
    """e^x for x ≤ 700, within 1e-14; e^−700 below −700."""
    x = larger(x, _LEAST)
    shifted = x * _LOG2_E + _TO_INTEGER  # whose low bits are the integer nearest to x / log 2
    whole = shifted - _TO_INTEGER
    r = (x - whole * _LN2_HIGH) - whole * _LN2_LOW
    p = _E11 * r + _E10
    p = p * r + _E9
    p = p * r + _E8
    p = p * r + _E7
    p = p * r + _E6
    p = p * r + _E5
    p = p * r + _E4
    p = p * r + _E3
    p = p * r + _E2
    p = (p * r + 1.0) * r + 1.0
    return float_of64(bits64(p) + (bits64(shifted) << 52))


_L = tuple(
    F32(c)
    for c in (
        7.0376836292e-2,
        -1.1514610310e-1,
        1.1676998740e-1,
        -1.2420140846e-1,
        1.4249322787e-1,
        -1.6668057665e-1,
        2.0000714765e-1,
        -2.4999993993e-1,
        3.3333331174e-1,
    )
)
_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7, _L8 = _L
_LN2, _HALF, _ONE = F32(math.log(2.0)), F32(0.5), F32(1.0)
_ROOT_HALF_32 = I32(0x3F3504F3)


@helper()
def _log32(u):
    """Log u of a positive float32."""
    bits = I32(bits32(u))
    exponent = I32(I32(bits - _ROOT_HALF_32) >> I32(23))
    x = float_of32(U32(bits - I32(exponent << I32(23)))) - _ONE  # √½ − 1 ≤ x < √2 − 1
    p = _L0 * x + _L1
    p = p * x + _L2
    p = p * x + _L3
    p = p * x + _L4
    p = p * x + _L5
    p = p * x + _L6
    p = p * x + _L7
    p = p * x + _L8
    square = x * x
    return (p * x * square - _HALF * square + x) + F32(exponent) * _LN2


_S1, _S2, _S3 = F32(-1.6666654611e-1), F32(8.3321608736e-3), F32(-1.9515295891e-4)
_C1, _C2, _C3 = F32(4.166664568298827e-2), F32(-1.388731625493765e-3), F32(2.443315711809948e-5)
_UNIT, _FINE, _FINEST = F32(2.0**-32), F32(2.0**-38), F32(2.0**-39)
_ANGLE, _MINUS_2 = F32(math.pi / 2 * 2.0**-24), F32(-2.0)


@helper()
def pair32(a, b):
    """Two independent float32 normals of two words of 32 random bits.

    `√(−2 log u) (cos θ, sin θ)` with u of 38 bits, so that |z| reaches 7.3: a's and b's six lowest. θ has two bits for
    the quadrant and 24 for the angle within it.
    """
    u = F32(a) * _UNIT + (F32(I32(b & U32(63))) * _FINE + _FINEST)
    radius = np.sqrt(_MINUS_2 * _log32(u))
    x = (F32(I32(I32(b << U32(2)) >> I32(8))) + _HALF) * _ANGLE  # −π/4 < x < π/4
    square = x * x
    sine = ((_S3 * square + _S2) * square + _S1) * square * x + x
    cosine = ((_C3 * square + _C2) * square + _C1) * square * square - _HALF * square + _ONE
    swap, sign = (b & U32(0x40000000)) != U32(0), U32(b & U32(0x80000000))
    first = sine if swap else cosine
    other = cosine if swap else sine
    return float_of32(bits32(first * radius) ^ sign), float_of32(bits32(other * radius) ^ sign)
